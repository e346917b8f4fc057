//! The exchange of an upgraded connection: [`wire::tunnel`](crate::wire::tunnel) copies, this records.

use bytes::Bytes;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use crate::exchange::{Exchange, Outcome};
use crate::wire::tunnel;

/// An upgraded connection in the making: the service has agreed, the 101 is on its way to the caller.
#[derive(Debug)]
pub struct Tunnel {
    /// The service's side, once its codec lets go of it.
    pub upstream: OnUpgrade,
    /// Stays open until both sides have closed.
    pub exchange: Exchange,
}

/// Carries an exchange until both sides of its connection have closed.
pub(super) async fn run(client: TcpStream, early: Bytes, tunnel: Tunnel) {
    let Tunnel { upstream, exchange } = tunnel;
    let mut open = OpenTunnel { exchange: Some(exchange), passed: tunnel::Passed::default(), ended: None };
    let end = match upstream.await {
        Ok(upstream) => tunnel::run(client, early, TokioIo::new(upstream), &mut open.passed).await,
        Err(error) => tunnel::End::UpstreamBroken(std::io::Error::other(error)),
    };
    open.ended = Some(end);
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
            Some(tunnel::End::ClientBroken(error)) => (Outcome::ClientGoneDuringResponse, error),
            Some(tunnel::End::UpstreamBroken(error)) => (Outcome::UpstreamBroken, error),
        };
        record.detail = record.put(&error.to_string());
        exchange.finish(outcome);
    }
}
