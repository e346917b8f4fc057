//! The front for requests from the network to the service.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;

use http::header::USER_AGENT;
use http::{Request, Response};

use super::body::{RequestBody, ResponseBody};
use super::{Job, Proxy, forward};
use crate::config::{LiveHandle, Timeouts, Upstream};
use crate::net::server::{Bounds, Caller, Handler, Unreadable};
use crate::net::upstream::Pool;
use crate::wire::Received;

/// Requests of one inbound listener, on one worker.
#[derive(Debug)]
pub struct Inbound {
    proxy: Arc<Proxy>,
    live: LiveHandle,
    to: Arc<Pool<RequestBody>>,
}

impl Inbound {
    /// Passes what comes in on to `upstream`.
    pub fn new(proxy: Arc<Proxy>, live: LiveHandle, upstream: Upstream) -> Arc<Self> {
        let to = Pool::new(upstream, proxy.stats.clone());
        Arc::new(Self { proxy, live, to })
    }
}

impl Handler for Inbound {
    type Body = ResponseBody;

    fn bounds(&self) -> Bounds {
        let live = self.live.load();
        let Timeouts { detection, request_header, idle, .. } = live.timeouts;
        Bounds { detection, request_header, idle, half_close: live.half_close }
    }

    fn handle(
        &self,
        request: Request<Received>,
        caller: Caller,
    ) -> impl Future<Output = Response<ResponseBody>> + Send + use<> {
        let live = self.live.load();
        let user_agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
        let matched = live.routes.find(request.method(), request.uri().path(), user_agent);
        let job = Job { live, to: self.to.clone(), matched, caller };
        forward::forward(self.proxy.clone(), job, request)
    }

    fn unreadable(&self, peer: SocketAddr, problem: Unreadable) {
        forward::record_unreadable(&self.proxy, &self.live.load(), peer, problem);
    }
}
