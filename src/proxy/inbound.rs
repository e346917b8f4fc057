//! The front for requests from the network to the service.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use http::header::USER_AGENT;
use http::{Method, Request, Response, StatusCode};

use super::body::{RequestBody, ResponseBody};
use super::error::Error;
use super::{Job, Proxy, Way, forward};
use crate::config::{self, Live, Timeouts, Trust};
use crate::exchange::{Keep, Match, Side};
use crate::net::arrival::{Entrance, Limits};
use crate::net::connector::Connector;
use crate::net::server::{Caller, Connection, Unreadable};
use crate::net::upstream::Pool;
use crate::wire::Received;

/// Requests of one inbound listener, on one worker, as the settings have it.
#[derive(Debug)]
pub struct Inbound {
    proxy: Arc<Proxy>,
    live: Arc<Live>,
    to: Arc<Pool<RequestBody>>,
    trust: Option<Trust>,
    /// Opens connections to what is thought to be the service, and knows them.
    connector: Arc<Connector>,
    /// What comes before HTTP.
    entrance: Arc<Entrance>,
}

impl Inbound {
    /// Passes what comes in by `entrance` on to the service of `inbound`. What `before` did is done on its connections to that service.
    pub fn new(
        proxy: Arc<Proxy>,
        live: Arc<Live>,
        inbound: &config::Inbound,
        connector: Arc<Connector>,
        entrance: Arc<Entrance>,
        before: Option<&Self>,
    ) -> Self {
        let same = |before: &&Self| {
            *before.to.upstream() == inbound.to && Arc::ptr_eq(&before.connector, &connector)
        };
        let same = before.filter(same);
        let keep = live.timeouts.upstream_idle;
        let to = match same {
            Some(before) => before.to.clone(),
            None => Pool::new(inbound.to.clone(), connector.clone(), keep, proxy.stats.clone()),
        };
        to.keep_for(keep);
        to.allow(live.limits.upstream_connections);
        Self { proxy, live, to, trust: inbound.trust, connector, entrance }
    }

    /// Whether the service that we have called turns out to be ourselves. Calls of the service to itself by way of us are
    /// none: they come from the other side.
    fn is_loop(&self, connection: &Connection) -> bool {
        let Connection { peer, local, .. } = connection;
        // A connection of ours has one host at both ends. Callers from elsewhere need not be looked for.
        peer.ip().to_canonical() == local.ip().to_canonical() && self.connector.own.contains(*peer, *local)
    }
}

impl Inbound {
    /// What a connection from there has to begin with before HTTP, and how long that may take.
    pub(super) fn entrance(&self, peer: IpAddr) -> Option<(Arc<Entrance>, Limits)> {
        let Timeouts { detection, tls_handshake: handshake, .. } = self.live.timeouts;
        let limits = Limits { detection, handshake };
        self.entrance.expects(peer).then(|| (self.entrance.clone(), limits))
    }

    pub(super) fn live(&self) -> &Arc<Live> {
        &self.live
    }

    pub(super) fn handle(
        &self,
        request: Request<Received>,
        caller: Caller,
    ) -> impl Future<Output = Response<ResponseBody>> + Send + use<> {
        let live = self.live.clone();
        let user_agent = request.headers().get(USER_AGENT).and_then(|value| value.to_str().ok());
        let Match { route, excluded } = live.routes.find(request.method(), request.uri().path(), user_agent);
        let keep = match (excluded, live.keep_failures) {
            (false, _) => Keep::Always,
            (true, true) => Keep::IfFailed,
            (true, false) => Keep::Never,
        };
        let connection = caller.connection();
        let to = match *request.method() {
            // A service behind a gateway is no way out of it (HX-4).
            Method::CONNECT => Err(Error::rejected(
                StatusCode::NOT_IMPLEMENTED,
                "CONNECT is not for the service behind this address",
            )),
            _ if self.is_loop(connection) => Err(Error::rejected(
                StatusCode::LOOP_DETECTED,
                "what this request was sent to as the service is tracecar itself: write where the service listens",
            )),
            _ => Ok(self.to.clone()),
        };
        let trust = self.trust.unwrap_or_else(|| live.trust_of(connection.caller().ip()));
        let job = Job { live, to, route, keep, caller, way: Way::Inbound(trust) };
        forward::forward(self.proxy.clone(), job, request)
    }

    pub(super) fn unreadable(&self, peer: SocketAddr, problem: &Unreadable) {
        forward::record_unreadable(&self.proxy, &self.live, Side::Inbound, peer, problem);
    }
}
