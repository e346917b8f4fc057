//! The fronts as one type, since a worker serves all of its listeners alike; and what can be exchanged of them while they
//! serve.
//!
//! All that decides about a request is behind one pointer: its settings, where its listener leads, whose certificates are
//! trusted. A request loads it once, so it sees one version, from first byte to last; a reload stores another.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio::net::TcpStream;

use super::body::ResponseBody;
use super::error::Error;
use super::inbound::Inbound;
use super::outbound::Outbound;
use crate::config::{Limits, Live, Swap, Timeouts, WeakSwap};
use crate::net::Drain;
use crate::net::arrival::Arrived;
use crate::net::server::{self, Bounds, Caller, Handler, Http2Bounds, Surroundings, Unreadable};
use crate::stats::Stats;
use crate::wire::Received;

/// Decides about the requests of one listener, on one worker.
#[derive(Clone, Debug)]
pub struct Front(Swap<Role>);

/// What a front does, as the settings have it.
#[derive(Debug)]
pub enum Role {
    /// From the network to the service.
    Inbound(Inbound),
    /// From the service to the network.
    Outbound(Outbound),
}

impl Front {
    /// A front that does this.
    pub fn new(role: Role) -> Self {
        Self(Swap::new_cyclic(|front| role.on(front)))
    }

    /// What it does now.
    pub fn now(&self) -> Arc<Role> {
        self.0.load()
    }

    /// Does what it did in another way, with requests that begin from now on. Those that have begun, tunnels and streams go on.
    /// It never turns round: one that leads the other way is another front.
    pub fn turn(&self, role: Role) {
        self.0.store(role.on(self.0.downgrade()));
    }
}

impl Role {
    /// Connections may outlive what their first request saw, and then ask again.
    fn on(self, front: WeakSwap<Role>) -> Self {
        match self {
            Role::Inbound(way) => Role::Inbound(way),
            Role::Outbound(way) => Role::Outbound(Outbound { front: Some(front), ..way }),
        }
    }

    pub(super) fn live(&self) -> &Arc<Live> {
        match self {
            Role::Inbound(way) => way.live(),
            Role::Outbound(way) => &way.live,
        }
    }
}

/// What a connection that begins now is held to.
pub fn bounds(live: &Live) -> Bounds {
    let Timeouts { detection, request_header, request_body, idle, response_send, .. } = live.timeouts;
    let Limits { connections, header_bytes, headers, target_bytes, http2_streams, http2_resets, .. } =
        live.limits;
    Bounds {
        detection,
        request_header,
        idle,
        half_close: live.half_close,
        request_body,
        response_send,
        head_bytes: header_bytes,
        header_lines: headers,
        target_bytes,
        connections,
        http2: Http2Bounds { streams: http2_streams.try_into().unwrap_or(u32::MAX), resets: http2_resets },
    }
}

impl Handler for Front {
    type Body = ResponseBody;

    fn bounds(&self) -> Bounds {
        bounds(self.now().live())
    }

    fn handle(
        &self,
        request: Request<Received>,
        caller: Caller,
    ) -> impl Future<Output = Response<ResponseBody>> + Send + use<> {
        match &*self.now() {
            Role::Inbound(way) => Either::Inbound { answer: way.handle(request, caller) },
            Role::Outbound(way) => Either::Outbound { answer: way.answer(request, caller) },
        }
    }

    async fn accept<G: Send + 'static>(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        drain: Drain,
        stats: Arc<Stats>,
        held: G,
    ) {
        let surroundings = Surroundings { drain, stats };
        let (redirected, entrance) = match &*self.now() {
            Role::Outbound(way) => (way.redirected(), None),
            Role::Inbound(way) => (None, way.entrance(peer.ip())),
        };
        if let Some(way) = redirected {
            return Box::pin(super::transparent::accept(way, stream, peer, surroundings, held)).await;
        }
        let arrived = match entrance {
            Some((entrance, limits)) => {
                Box::pin(async { entrance.arrive(stream, peer, limits, &surroundings).await }).await
            }
            None => Ok(Arrived { stream: stream.into(), early: Bytes::new(), peer: peer.into() }),
        };
        match arrived {
            Ok(Arrived { stream, early, peer }) => {
                server::serve(stream, early, peer, self, surroundings, held).await;
            }
            Err(turned) => {
                turned.into_iter().for_each(|problem| self.unreadable(peer, problem));
                drop(held);
            }
        }
    }

    fn refusal(&self, problem: &Unreadable) -> Response<ResponseBody> {
        Error::unreadable(problem).reply(None, "", "")
    }

    fn unreadable(&self, peer: SocketAddr, problem: Unreadable) {
        match &*self.now() {
            Role::Inbound(way) => way.unreadable(peer, &problem),
            Role::Outbound(way) => way.note_unreadable(peer, &problem),
        }
    }
}

pin_project! {
    /// An answer of either way. Not an `async` block, since that would copy the request once more.
    #[project = EitherPinned]
    enum Either<I, O> {
        Inbound { #[pin] answer: I },
        Outbound { #[pin] answer: O },
    }
}

impl<I, O> Future for Either<I, O>
where
    I: Future,
    O: Future<Output = I::Output>,
{
    type Output = I::Output;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<I::Output> {
        match self.project() {
            EitherPinned::Inbound { answer } => answer.poll(cx),
            EitherPinned::Outbound { answer } => answer.poll(cx),
        }
    }
}
