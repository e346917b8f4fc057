//! The fronts as one type, since a worker serves all of its listeners alike.

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
use super::inbound::Inbound;
use super::outbound::Outbound;
use crate::net::Drain;
use crate::net::server::{self, Bounds, Caller, Handler, Surroundings, Unreadable};
use crate::stats::Stats;
use crate::wire::Received;

/// Decides about the requests of one listener, on one worker.
#[derive(Debug)]
pub enum Front {
    /// From the network to the service.
    Inbound(Inbound),
    /// From the service to the network.
    Outbound(Outbound),
}

impl Handler for Front {
    type Body = ResponseBody;

    fn bounds(&self) -> Bounds {
        match self {
            Front::Inbound(front) => front.bounds(),
            Front::Outbound(front) => front.bounds(),
        }
    }

    fn handle(
        &self,
        request: Request<Received>,
        caller: Caller,
    ) -> impl Future<Output = Response<ResponseBody>> + Send + use<> {
        match self {
            Front::Inbound(front) => Either::Inbound { answer: front.handle(request, caller) },
            Front::Outbound(front) => Either::Outbound { answer: front.handle(request, caller) },
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
        match &*self {
            Front::Inbound(_) => {
                let surroundings = Surroundings { drain, stats };
                server::serve(stream.into(), Bytes::new(), peer, self, surroundings, held).await;
            }
            Front::Outbound(front) => Arc::new(front.clone()).accept(stream, peer, drain, stats, held).await,
        }
    }

    fn unreadable(&self, peer: SocketAddr, problem: Unreadable) {
        match self {
            Front::Inbound(front) => front.unreadable(peer, problem),
            Front::Outbound(front) => front.unreadable(peer, problem),
        }
    }
}

pin_project! {
    /// An answer of either front. Not an `async` block, since that would copy the request once more.
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
