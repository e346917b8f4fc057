//! What is known of one connection from a caller, shared by whoever drives it and by its requests.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::{Response, Version};
use tokio::sync::{Notify, OnceCell};

use super::arrival::{Arrival, Peer};
use super::process::ProcessSockets;
use super::tunnel::Next;
use crate::exchange::{Exchange, Outcome, TlsFacts};
use crate::wire::h1::{Layout, write};

/// Informational responses that wait for a caller who does not read. Beyond this many bytes they are dropped: nothing depends
/// on them.
const MOST_INTERIM: usize = 64 * 1024;

/// A connection from a caller. What touches it runs on one thread, so the lock never waits.
#[derive(Debug)]
pub struct Connection {
    /// The TCP peer, whoever it speaks for; [`caller`](Self::caller) is who that is.
    pub peer: SocketAddr,
    /// What was said before HTTP began.
    arrival: Option<Box<Arrival>>,
    /// The address that the caller reached.
    pub local: SocketAddr,
    /// The caller's process, once it was found: for this connection, by whoever needs it first.
    pub process: OnceCell<Option<Arc<ProcessSockets>>>,
    /// Whether a caller that closes its sending side counts as gone.
    pub(super) cancel_on_half_close: bool,
    multiplexed: bool,
    requests: AtomicU32,
    in_flight: AtomicU32,
    /// Nothing is in flight any more.
    left: Notify,
    /// The latest request is of HTTP/1.0, whose callers know no informational responses (HX-1).
    http_1_0: AtomicBool,
    /// The latest response has begun.
    responding: AtomicBool,
    /// A byte of the latest response has left for the kernel.
    answered: AtomicBool,
    interim_waits: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// The exchange whose last byte waits to leave for the kernel.
    settling: Option<(Exchange, Outcome)>,
    next: Option<Next>,
    /// Informational responses to be written.
    interim: Vec<u8>,
    /// See [`Connection::ends_as`].
    ends_as: Option<Outcome>,
}

impl Connection {
    pub(super) fn new(
        peer: impl Into<Peer>,
        local: SocketAddr,
        multiplexed: bool,
        cancel_on_half_close: bool,
    ) -> Arc<Self> {
        let Peer { socket: peer, arrival } = peer.into();
        Arc::new(Self {
            peer,
            arrival,
            local,
            process: OnceCell::new(),
            cancel_on_half_close,
            multiplexed,
            requests: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            left: Notify::new(),
            http_1_0: AtomicBool::new(false),
            responding: AtomicBool::new(false),
            answered: AtomicBool::new(false),
            interim_waits: AtomicBool::new(false),
            state: Mutex::default(),
        })
    }

    /// Who has opened the connection: the TCP peer, or whom a load balancer names that is believed.
    pub fn caller(&self) -> SocketAddr {
        self.arrival.as_ref().and_then(|arrival| arrival.claimed).unwrap_or(self.peer)
    }

    /// The TLS that was accepted on it before HTTP began.
    pub fn tls(&self) -> Option<&Arc<TlsFacts>> {
        self.arrival.as_ref()?.tls.as_ref()
    }

    /// A request head has been read.
    pub(super) fn request_begun(self: &Arc<Self>, version: Version) -> Caller {
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.http_1_0.store(version == Version::HTTP_10, Ordering::Relaxed);
        self.responding.store(false, Ordering::Relaxed);
        self.answered.store(false, Ordering::Relaxed);
        Caller(self.clone())
    }

    /// What is written from now on is the latest response.
    pub(super) fn response_begun(&self) {
        self.responding.store(true, Ordering::Relaxed);
    }

    /// Bytes have left for the kernel.
    pub(super) fn written(&self) {
        if self.responding.load(Ordering::Relaxed) {
            self.answered.store(true, Ordering::Relaxed);
        }
    }

    /// The last byte of the latest response has left for the kernel.
    pub(super) fn settled(&self) {
        let settling = self.state().settling.take();
        if let Some((exchange, outcome)) = settling {
            exchange.finish(outcome);
        }
    }

    /// Moves the informational responses that wait behind `out`; whether there were any.
    pub(super) fn take_interim(&self, out: &mut Vec<u8>) -> bool {
        let any = self.interim_waits.swap(false, Ordering::Relaxed);
        if any {
            out.append(&mut self.state().interim);
        }
        any
    }

    pub(super) fn take_next(&self) -> Option<Next> {
        self.state().next.take()
    }

    /// Whoever is about to drop what is under way says how that ends: exchanges that are dropped ask, and otherwise take it
    /// that the caller has left.
    pub(super) fn ends_as(&self, outcome: Option<Outcome>) {
        self.state().ends_as = outcome;
    }

    /// How what is dropped in this moment ends; `None` where the caller has left.
    pub fn ending(&self) -> Option<Outcome> {
        self.state().ends_as
    }

    /// Requests read so far.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// Waits until nothing is in flight.
    pub(super) async fn all_left(&self) {
        while self.in_flight() > 0 {
            self.left.notified().await;
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // What has not settled by now never left. A status of which not even a byte did was not sent (SEM-25).
        let answered = self.answered.load(Ordering::Relaxed);
        let State { settling, next, ends_as, .. } = std::mem::take(&mut *self.state());
        let tunnel = match next {
            Some(Next::Tunnel(tunnel)) => Some(tunnel.exchange),
            _ => None,
        };
        for mut exchange in settling.map(|(exchange, _)| exchange).into_iter().chain(tunnel) {
            if !answered {
                exchange.not_answered();
            }
            if let Some(outcome) = ends_as {
                exchange.finish(outcome);
            }
        }
    }
}

/// Whoever waits for the response to one request. Dropped when the response has ended, in whatever way.
#[derive(Debug)]
pub struct Caller(Arc<Connection>);

impl Caller {
    /// The connection that the request came on.
    pub fn connection(&self) -> &Arc<Connection> {
        &self.0
    }

    /// The response's last byte was handed to the connection: closes `exchange` when it has left for the kernel,
    /// or as [`Outcome::ClientGoneDuringResponse`] if it never does. An HTTP/2 connection has one write buffer for
    /// many responses, so there it is closed at once.
    pub fn settle(self, exchange: Exchange, outcome: Outcome) {
        if self.0.multiplexed {
            exchange.finish(outcome);
            return;
        }
        self.0.state().settling = Some((exchange, outcome));
    }

    /// Whether any byte of the response has left for the kernel. For HTTP/2, which shares its connection with other
    /// responses, nobody can say: then it is taken to have.
    pub fn was_answered(&self) -> bool {
        self.0.multiplexed || self.0.answered.load(Ordering::Relaxed)
    }

    /// Passes an informational response on (HX-1). HTTP/1.0 knows none, and our codec for HTTP/2 cannot send them.
    pub fn inform(&self, response: &Response<()>, layout: Option<&Layout>) {
        if self.0.multiplexed || self.0.http_1_0.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.0.state();
        if state.interim.len() < MOST_INTERIM {
            write::status_line(&mut state.interim, response.status(), layout);
            write::fields(&mut state.interim, response.headers(), layout);
            state.interim.extend_from_slice(b"\r\n");
            self.0.interim_waits.store(true, Ordering::Relaxed);
        }
    }

    /// Leaves what becomes of the connection when the 101, or the 2xx to a `CONNECT`, has been sent. Only an HTTP/1
    /// connection becomes anything else.
    pub fn upgrade(&self, next: impl Into<Next>) {
        self.0.state().next = Some(next.into());
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        if self.0.in_flight.fetch_sub(1, Ordering::Relaxed) == 1 && self.0.multiplexed {
            self.0.left.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;
    use crate::exchange::{Outbox, Recorder, Sampler, Side, Start};
    use crate::stats::Stats;

    const PEER: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 1);

    #[test]
    fn a_status_counts_as_sent_only_when_a_byte_of_its_own_response_has_left() {
        let stats = Arc::new(Stats::default());
        let outbox = Arc::new(Outbox::new(Arc::new(Notify::new()), stats.clone()));
        let recorder = Recorder::new(outbox.clone(), stats, Arc::default());
        let answered = || {
            let mut exchange = recorder.begin(Start::new(Side::Inbound, Some(PEER)), &Sampler::default());
            exchange.note_status(200, None);
            exchange
        };
        let connection = Connection::new(PEER, PEER, false, false);
        let first = connection.request_begun(Version::HTTP_11);
        connection.response_begun();
        connection.written();
        first.settle(answered(), Outcome::Complete);
        connection.settled();
        let second = connection.request_begun(Version::HTTP_11);
        // A 100 Continue is no answer.
        connection.written();
        assert!(!second.was_answered());
        second.settle(answered(), Outcome::Complete);
        drop(connection);
        let endings: Vec<_> =
            outbox.take(Vec::new()).iter().map(|record| (record.outcome, record.status)).collect();
        assert_eq!(endings, [(Outcome::Complete, Some(200)), (Outcome::ClientGoneBeforeResponse, None)]);
    }
}
