//! The caller's socket, as hyper sees it, and what we learn by standing between the two.
//!
//! hyper does not say when a response has left for the kernel, when a connection is idle, or whether a caller
//! that it calls gone has merely closed its sending side. All three show in the reads and writes.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU16, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};

use bytes::Bytes;
use http::Version;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::OnceCell;

use super::process::ProcessSockets;
use super::stream::{Stream, give_early};
use super::tunnel::{Next, Tunnel};
use crate::exchange::{Exchange, Outcome};

/// Writes up to this many bytes are copied together: one `send` is cheaper than a `writev` of small pieces. The place
/// they are copied to has to be zeroed for each write, so it is no larger than ordinary small answers need.
const SMALL_WRITE: usize = 1024;

/// What is known of one connection from a caller. Shared by its socket, its requests, and the task that drives it;
/// all run on one thread, so the locks never wait.
#[derive(Debug)]
pub struct Connection {
    /// The TCP peer.
    pub peer: SocketAddr,
    /// The address that the caller reached.
    pub local: SocketAddr,
    /// The caller's process, once it was found: for this connection, by whoever needs it first.
    pub process: OnceCell<Option<Arc<ProcessSockets>>>,
    /// Whether a caller that closes its sending side counts as gone.
    pub(super) cancel_on_half_close: bool,
    multiplexed: bool,
    requests: AtomicU32,
    in_flight: AtomicU32,
    request_read: AtomicBool,
    /// Nobody wants the rest of the request's content; the codec skips it or closes the connection.
    request_given_up: AtomicBool,
    /// The latest request is of HTTP/1.0, where the end of the connection may be the end of the content.
    http_1_0: AtomicBool,
    /// Bytes came that no request has been made of yet.
    head_begun: AtomicBool,
    hidden_end: AtomicBool,
    own_status: AtomicU16,
    /// The latest request was a `CONNECT` that is not granted.
    tunnel_refused: AtomicBool,
    unsettled: AtomicBool,
    /// The latest response has been handed to the codec.
    responding: AtomicBool,
    /// The latest request came while an earlier response waited in the write buffer, so what is written next is not
    /// of the latest response.
    behind: AtomicBool,
    /// A byte of the latest response has left for the kernel.
    head_sent: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// Exchanges whose last byte is in the write buffer, waiting for it to be flushed.
    settling: Vec<Settling>,
    next: Option<Next>,
    waker: Option<Waker>,
}

#[derive(Debug)]
struct Settling {
    exchange: Exchange,
    outcome: Outcome,
    /// Which request of the connection it is.
    number: u32,
    /// What [`Connection::head_sent`] was for it, once a later request took that over.
    head_sent: bool,
}

impl Connection {
    pub(super) fn new(
        peer: SocketAddr,
        local: SocketAddr,
        multiplexed: bool,
        cancel_on_half_close: bool,
    ) -> Arc<Self> {
        Arc::new(Self {
            peer,
            local,
            process: OnceCell::new(),
            cancel_on_half_close,
            multiplexed,
            requests: AtomicU32::new(0),
            in_flight: AtomicU32::new(0),
            request_read: AtomicBool::new(true),
            request_given_up: AtomicBool::new(false),
            http_1_0: AtomicBool::new(false),
            head_begun: AtomicBool::new(false),
            hidden_end: AtomicBool::new(false),
            own_status: AtomicU16::new(0),
            tunnel_refused: AtomicBool::new(false),
            unsettled: AtomicBool::new(false),
            responding: AtomicBool::new(false),
            behind: AtomicBool::new(false),
            head_sent: AtomicBool::new(false),
            state: Mutex::default(),
        })
    }

    /// A request head has been read. `whole` says that no content follows it.
    pub(super) fn request_begun(self: &Arc<Self>, version: Version, whole: bool) -> Caller {
        let behind = self.unsettled.load(Ordering::Relaxed);
        if behind {
            // Responses leave in order: where the latest has begun to, so have all before it.
            if self.head_sent.load(Ordering::Relaxed) {
                self.state().settling.iter_mut().for_each(|settling| settling.head_sent = true);
            }
        }
        self.behind.store(behind, Ordering::Relaxed);
        self.requests.fetch_add(1, Ordering::Relaxed);
        self.in_flight.fetch_add(1, Ordering::Relaxed);
        self.request_read.store(whole, Ordering::Relaxed);
        self.request_given_up.store(false, Ordering::Relaxed);
        self.http_1_0.store(version == Version::HTTP_10, Ordering::Relaxed);
        self.head_begun.store(false, Ordering::Relaxed);
        self.responding.store(false, Ordering::Relaxed);
        self.head_sent.store(false, Ordering::Relaxed);
        Caller(self.clone())
    }

    /// The last byte of the request's content has been read.
    pub fn request_read(&self) {
        self.request_read.store(true, Ordering::Relaxed);
    }

    /// Whoever was to take the request's content does not want the rest.
    pub fn request_given_up(&self) {
        self.request_given_up.store(true, Ordering::Relaxed);
    }

    /// The handler has answered: what is written from now on may be the response.
    pub(super) fn response_begun(&self) {
        self.responding.store(true, Ordering::Relaxed);
    }

    /// The latest request was a `CONNECT` that is not granted: whatever follows it was meant for the tunnel.
    pub(super) fn tunnel_refused(&self) {
        self.tunnel_refused.store(true, Ordering::Relaxed);
    }

    /// Whether something may still be on its way of what the last answer was not waiting for: the request's content, the
    /// rest of what could not be read, the first bytes for a tunnel.
    pub(super) fn more_may_come(&self) -> bool {
        !self.request_read.load(Ordering::Relaxed)
            || self.own_status().is_some()
            || self.tunnel_refused.load(Ordering::Relaxed)
    }

    /// Whether the caller takes a closed connection for the end of a response.
    pub(super) fn ends_by_closing(&self) -> bool {
        self.http_1_0.load(Ordering::Relaxed)
    }

    pub(super) fn take_next(&self) -> Option<Next> {
        self.state().next.take()
    }

    /// Requests read so far.
    pub(super) fn requests(&self) -> u32 {
        self.requests.load(Ordering::Relaxed)
    }

    /// Nothing is going on: no request is being read or answered, no byte waits to be written. A request that was
    /// answered before its content had come is still being read: whatever comes next is not a request head.
    pub(super) fn idle(&self) -> bool {
        self.between_requests()
            && !self.head_begun.load(Ordering::Relaxed)
            && !self.unsettled.load(Ordering::Relaxed)
    }

    /// A part of a request head has come, and the rest has not.
    pub(super) fn waits_for_head(&self) -> bool {
        self.between_requests()
            && self.head_begun.load(Ordering::Relaxed)
            && !self.unsettled.load(Ordering::Relaxed)
    }

    /// The next byte that the caller sends is the first of a request head.
    fn between_requests(&self) -> bool {
        self.in_flight() == 0
            && (self.request_read.load(Ordering::Relaxed) || self.request_given_up.load(Ordering::Relaxed))
    }

    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight.load(Ordering::Relaxed)
    }

    /// The status that the HTTP codec answered by itself, having read no request.
    pub(super) fn own_status(&self) -> Option<u16> {
        Some(self.own_status.load(Ordering::Relaxed)).filter(|status| *status != 0)
    }

    fn flushed(&self) {
        if !self.unsettled.swap(false, Ordering::Relaxed) {
            return;
        }
        let (settled, reader) = {
            let mut state = self.state();
            (std::mem::take(&mut state.settling), state.waker.take())
        };
        for Settling { exchange, outcome, .. } in settled {
            exchange.finish(outcome);
        }
        // Whatever part of a later response was in the buffer has left with it.
        if self.behind.swap(false, Ordering::Relaxed) && self.responding.load(Ordering::Relaxed) {
            self.head_sent.store(true, Ordering::Relaxed);
        }
        if let Some(reader) = reader {
            reader.wake();
        }
    }

    /// Bytes have left for the kernel.
    fn written(&self) {
        if self.behind.load(Ordering::Relaxed) {
            if let Some(oldest) = self.state().settling.first_mut() {
                oldest.head_sent = true;
            }
        } else if self.responding.load(Ordering::Relaxed) {
            self.head_sent.store(true, Ordering::Relaxed);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Reads the status line of an answer that no request of ours caused.
    fn note_write(&self, bytes: &[u8]) {
        if self.in_flight.load(Ordering::Relaxed) > 0 || !self.head_begun.load(Ordering::Relaxed) {
            return;
        }
        let status = bytes.strip_prefix(b"HTTP/1.1 ").and_then(|rest| rest.get(..3));
        if let Some(status) = status.and_then(|digits| std::str::from_utf8(digits).ok()?.parse().ok()) {
            self.own_status.store(status, Ordering::Relaxed);
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        // What has not settled by now never left. A status of which not even a byte did was not sent (SEM-25).
        let latest_sent = self.head_sent.load(Ordering::Relaxed);
        let State { settling, next, .. } = std::mem::take(&mut *self.state());
        for Settling { mut exchange, number, head_sent, .. } in settling {
            let begun = head_sent || (latest_sent && number == self.requests());
            if !begun {
                exchange.not_answered();
            }
        }
        if let Some(Next::Tunnel(Tunnel { mut exchange, .. })) = next
            && !latest_sent
        {
            exchange.not_answered();
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
        self.0.unsettled.store(true, Ordering::Relaxed);
        let number = self.0.requests();
        self.0.state().settling.push(Settling { exchange, outcome, number, head_sent: false });
    }

    /// Whether any byte of the response has left for the kernel. For HTTP/2, which shares its connection with other
    /// responses, nobody can say: then it is taken to have.
    pub fn was_answered(&self) -> bool {
        self.0.multiplexed || self.0.head_sent.load(Ordering::Relaxed)
    }

    /// Leaves what becomes of the connection when the 101, or the 2xx to a `CONNECT`, has been sent. Only an HTTP/1
    /// connection becomes anything else.
    pub fn upgrade(&self, next: impl Into<Next>) {
        self.0.state().next = Some(next.into());
        // The connection has something to write, and must not be taken for idle before it has.
        self.0.unsettled.store(true, Ordering::Relaxed);
    }
}

impl Drop for Caller {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::Relaxed);
        if self.0.hidden_end.load(Ordering::Relaxed)
            && let Some(waker) = self.0.state().waker.take()
        {
            waker.wake();
        }
    }
}

/// The caller's socket, with bytes that were read from it already in front.
#[derive(Debug)]
pub(super) struct ClientIo {
    pub(super) stream: Stream,
    pub(super) early: Bytes,
    pub(super) connection: Arc<Connection>,
}

impl AsyncRead for ClientIo {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let connection = &this.connection;
        if !this.early.is_empty() {
            give_early(&mut this.early, buffer);
            connection.head_begun.store(true, Ordering::Relaxed);
            return Poll::Ready(Ok(()));
        }
        let busy = !connection.between_requests();
        if !connection.hidden_end.load(Ordering::Relaxed) {
            let before = buffer.filled().len();
            ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
            if buffer.filled().len() > before {
                if !busy {
                    connection.head_begun.store(true, Ordering::Relaxed);
                }
                return Poll::Ready(Ok(()));
            }
        }
        // The caller has closed its sending side. In the middle of a request that means it is cut short; after a
        // whole one, that the caller has nothing more to say and may well be waiting (RFC 9112 section 9.6). hyper
        // would give the request up, so it learns of the end when the response is out, down to its last byte. A
        // reset, which does mean that nobody listens, arrives as an error above.
        let answering = busy || connection.unsettled.load(Ordering::Relaxed);
        let waiting =
            answering && connection.request_read.load(Ordering::Relaxed) && !connection.cancel_on_half_close;
        if waiting && !connection.multiplexed {
            connection.hidden_end.store(true, Ordering::Relaxed);
            connection.state().waker = Some(cx.waker().clone());
            return Poll::Pending;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for ClientIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes))?;
        this.connection.note_write(bytes);
        this.connection.written();
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(write_together(&mut this.stream, cx, slices))?;
        if let Some(first) = slices.first() {
            this.connection.note_write(first);
        }
        this.connection.written();
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        ready!(Pin::new(&mut this.stream).poll_flush(cx))?;
        // hyper flushes us only when its own buffer is empty.
        this.connection.flushed();
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

/// Writes small slices as one piece, large ones as they are.
pub(super) fn write_together(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    slices: &[IoSlice<'_>],
) -> Poll<io::Result<usize>> {
    if let [only] = slices {
        return Pin::new(stream).poll_write(cx, only);
    }
    let total: usize = slices.iter().map(|slice| slice.len()).sum();
    if total > SMALL_WRITE {
        return Pin::new(stream).poll_write_vectored(cx, slices);
    }
    let mut together = [0; SMALL_WRITE];
    let mut end = 0;
    for slice in slices {
        together[end..end + slice.len()].copy_from_slice(slice);
        end += slice.len();
    }
    Pin::new(stream).poll_write(cx, &together[..end])
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
        let first = connection.request_begun(Version::HTTP_11, true);
        connection.response_begun();
        connection.written();
        first.settle(answered(), Outcome::Complete);
        // Pipelined: what is written now is the rest of the first response.
        let second = connection.request_begun(Version::HTTP_11, true);
        connection.response_begun();
        connection.written();
        assert!(!second.was_answered());
        second.settle(answered(), Outcome::Complete);
        drop(connection);
        let endings: Vec<_> =
            outbox.take(Vec::new()).iter().map(|record| (record.outcome, record.status)).collect();
        let gone =
            [(Outcome::ClientGoneDuringResponse, Some(200)), (Outcome::ClientGoneBeforeResponse, None)];
        assert_eq!(endings, gone);
    }

    #[test]
    fn a_100_continue_is_no_answer() {
        let connection = Connection::new(PEER, PEER, false, false);
        let caller = connection.request_begun(Version::HTTP_11, false);
        connection.written();
        assert!(!caller.was_answered());
        connection.response_begun();
        connection.written();
        assert!(caller.was_answered());
    }

    #[test]
    fn a_connection_with_content_to_come_is_not_idle() {
        let connection = Connection::new(PEER, PEER, false, false);
        drop(connection.request_begun(Version::HTTP_11, false));
        assert!(!connection.idle());
        connection.request_read();
        assert!(connection.idle());
    }
}
