//! What becomes of a connection that stops being HTTP: a tunnel, whose copying [`wire::tunnel`](crate::wire::tunnel)
//! does and which is recorded here, or whatever a front wants to go on with.

use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;

use super::Drain;
use super::side::Side;
use super::stream::Stream;
use super::tasks::Sends;
use crate::exchange::{Exchange, Outcome};
use crate::stats::Stats;
use crate::wire::tunnel;

/// What a connection becomes when its last response has left.
pub enum Next {
    /// A tunnel.
    Tunnel(Tunnel),
    /// What this makes of it: TLS may be accepted on it, and HTTP served inside by
    /// [`server::serve`](super::server::serve).
    Serve(Continuation),
}

/// Goes on with a connection. Gets the bytes that were read from it already, which come first.
pub type Continuation =
    Box<dyn FnOnce(Stream, Bytes, Surroundings) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send>;

/// What serving a connection takes beside a handler.
#[derive(Clone, Debug)]
pub struct Surroundings {
    /// Begins when the connection should come to its end.
    pub drain: Drain,
    /// The program's own counters.
    pub stats: Arc<Stats>,
}

impl From<Tunnel> for Next {
    fn from(tunnel: Tunnel) -> Self {
        Self::Tunnel(tunnel)
    }
}

impl fmt::Debug for Next {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tunnel(tunnel) => tunnel.fmt(f),
            Self::Serve(_) => f.write_str("Serve"),
        }
    }
}

/// A tunnel in the making: the far side has agreed, the 101 or 2xx is on its way to the caller.
#[derive(Debug)]
pub struct Tunnel {
    /// The other end.
    pub upstream: Side,
    /// Stays open until both sides have closed.
    pub exchange: Exchange,
    /// How long both sides may be quiet; `None` is no bound.
    pub idle: Option<Duration>,
    /// Where its end by that is counted.
    pub stats: Arc<Stats>,
}

impl Tunnel {
    /// Carries the exchange until both sides of its connection have closed. `early` are bytes that were read from
    /// `client` already. Nothing bounds it but the drain, and
    /// `idle`; what passed is counted.
    ///
    /// A side that breaks off has that passed on: the other should not take it for an end.
    pub async fn run(self, client: Stream, early: Bytes) {
        self.between(client.into(), early).await;
    }

    /// The same for a caller that is behind whatever kind of side.
    pub(super) async fn between(self, mut client: Side, early: Bytes) {
        let Self { mut upstream, exchange, idle, stats } = self;
        let mut open =
            OpenTunnel { exchange: Some(exchange), passed: tunnel::Passed::default(), ended: None };
        let passed = &mut open.passed;
        let sends = [client.sends(), upstream.sends()];
        let end = tokio::select! {
            // What a side was given has to leave before it is asked for more.
            biased;
            () = all_go_on(&sends) => return,
            end = tunnel::run(&mut client, early, &mut upstream, passed, idle) => end,
        };
        if matches!(end, tunnel::End::ClientBroken(_)) {
            upstream.break_off();
        }
        if matches!(end, tunnel::End::UpstreamBroken(_)) {
            client.break_off();
        }
        if matches!(end, tunnel::End::Idle) {
            stats.closed_tunnel.increment();
        }
        open.ended = Some(end);
    }
}

/// Sends what sides were given, for as long as that is awaited.
async fn all_go_on(sends: &[Option<Sends>]) {
    poll_fn(|cx| {
        sends.iter().flatten().for_each(|sends| sends.poll(cx));
        Poll::Pending
    })
    .await
}

/// Notes what passed, even if the tunnel is cut off by the end of a drain.
struct OpenTunnel {
    exchange: Option<Exchange>,
    passed: tunnel::Passed,
    ended: Option<tunnel::End>,
}

impl Drop for OpenTunnel {
    fn drop(&mut self) {
        let Some(mut exchange) = self.exchange.take() else {
            return;
        };
        let record = exchange.record();
        record.request_bytes += self.passed.sent;
        record.response_bytes += self.passed.received;
        let (outcome, error) = match self.ended.take() {
            // Dropping the exchange finds out why.
            None => return,
            Some(tunnel::End::Closed) => return exchange.finish(Outcome::Complete),
            Some(tunnel::End::Idle) => return exchange.finish(Outcome::TunnelIdle),
            Some(tunnel::End::ClientBroken(error)) => (Outcome::ClientGoneDuringResponse, error),
            Some(tunnel::End::UpstreamBroken(error)) => (Outcome::UpstreamBroken, error),
        };
        record.detail = record.put(&error.to_string());
        exchange.finish(outcome);
    }
}
