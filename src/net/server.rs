//! Serves one connection from a caller: finds out which HTTP it speaks, and hands each request to a [`Handler`].
//!
//! hyper keeps two 8 KiB buffers for every HTTP/1 connection, busy or not. Most connections of a sidecar are idle
//! most of the time, so an idle one is taken out of hyper and waits as a bare socket (`Rest::Parked`). A new
//! connection is parked as soon as it has nothing to do; one that turned out to be busy, only when it has been
//! quiet for a while: that costs a request nothing.

use std::convert::Infallible;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::CONNECTION;
use http::{HeaderValue, Method, Request, Response};
use http_body::Body;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use pin_project_lite::pin_project;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};
use tracing::debug;

use super::client_io::ClientIo;
pub use super::client_io::{Caller, Connection};
use super::stream::Stream;
pub use super::tunnel::{Continuation, FarSide, Next, Surroundings, Tunnel};
use super::{Drain, http2};
use crate::config::HalfClose;
use crate::exchange::Outcome;
use crate::stats::Stats;
use crate::wire::Received;
use crate::wire::body::describe;

/// What an HTTP/2 client with prior knowledge sends first (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Room for the first read of a connection: an ordinary request head fits.
const FIRST_READ: usize = 2048;

/// How long a connection that has said nothing yet is listened to when a drain begins: its first request may be on
/// the way already, or waiting where the runtime has not looked yet.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How long is read on, and thrown away, what comes behind an answer that was the last.
const LINGER: Duration = Duration::from_secs(5);

/// How often a busy connection looks at its bounds. They are kept to within this much.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Content of its responses.
    type Body: Body<Data = Bytes, Error = hyper::Error> + Send + 'static;

    /// The bounds for a connection that begins now.
    fn bounds(&self) -> Bounds;

    /// Answers one request.
    fn handle(
        &self,
        request: Request<Received>,
        caller: Caller,
    ) -> impl Future<Output = Response<Self::Body>> + Send + use<Self>;

    /// Takes note of bytes from which no request could be read.
    fn unreadable(&self, peer: SocketAddr, problem: Unreadable);

    /// Takes a connection that has just been accepted, and drops `held` when it has ended. A front that refuses some
    /// callers, or has to find out first what they speak, does so here; the others [`serve`] it.
    fn accept<G: Send + 'static>(
        self: Arc<Self>,
        stream: TcpStream,
        peer: SocketAddr,
        drain: Drain,
        stats: Arc<Stats>,
        held: G,
    ) -> impl Future<Output = ()> + Send + 'static
    where
        Self: Sized,
    {
        serve(Stream::Tcp(stream), Bytes::new(), peer, self, Surroundings { drain, stats }, held)
    }
}

/// What a connection is held to.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// From accepting a connection until its protocol is known.
    pub detection: Duration,
    /// From the first byte of a request head until its last.
    pub request_header: Duration,
    /// Between requests.
    pub idle: Duration,
    /// What a closed sending side means.
    pub half_close: HalfClose,
}

/// Why no request could be read.
#[derive(Debug)]
pub struct Unreadable {
    /// [`Outcome::MalformedRequest`] or [`Outcome::RequestTimeout`].
    pub outcome: Outcome,
    /// The status that the codec answered with, where it answered.
    pub status: Option<u16>,
    /// What was wrong with the bytes.
    pub detail: String,
}

/// Serves HTTP on a connection until it ends, and drops `held` then. `early` are bytes that were read from it already.
///
/// What waits for most of a connection's life is an idle socket. So every stage of it that is not waiting is boxed,
/// and this future is small.
pub async fn serve<H: Handler, G: Send>(
    stream: Stream,
    early: Bytes,
    peer: SocketAddr,
    handler: Arc<H>,
    surroundings: Surroundings,
    held: G,
) {
    let _held = held;
    let bounds = handler.bounds();
    let Some((protocol, io)) = Box::pin(begin(stream, early, peer, bounds, &surroundings)).await else {
        return;
    };
    let Surroundings { drain, stats } = surroundings;
    match protocol {
        Protocol::Http1 => Http1 { handler, bounds, drain, stats }.serve(io).await,
        Protocol::Http2 => Box::pin(http2::serve(io, handler, bounds, drain, stats)).await,
    }
}

/// Finds out what a new connection speaks. `None` where there is nothing to serve.
async fn begin(
    mut stream: Stream,
    early: Bytes,
    peer: SocketAddr,
    bounds: Bounds,
    surroundings: &Surroundings,
) -> Option<(Protocol, ClientIo)> {
    let detected = tokio::select! {
        biased;
        detected = timeout(bounds.detection, detect(&mut stream, early)) => detected,
        () = last_words(&surroundings.drain) => return None,
    };
    match detected {
        Ok(Ok(Some((protocol, early)))) => {
            let cancel = bounds.half_close == HalfClose::Cancel;
            // A socket that cannot say is about to fail anyway.
            let local = stream.local_addr().unwrap_or(peer);
            let connection = Connection::new(peer, local, protocol == Protocol::Http2, cancel);
            return Some((protocol, ClientIo { stream, early, connection }));
        }
        Ok(Ok(None)) => {}
        Ok(Err(error)) => debug!(%peer, %error, "connection ended before a request"),
        Err(_) => surroundings.stats.closed_detection.increment(),
    }
    None
}

/// Is ready a moment after the drain has begun: when whoever has said nothing until then may be left.
pub async fn last_words(drain: &Drain) {
    drain.wait().await;
    sleep(LAST_WORDS).await;
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Protocol {
    Http1,
    Http2,
}

/// Reads until the protocol is certain. What was read is given back, to be read again. `None` where the caller closed
/// without a word: a port probe.
async fn detect(stream: &mut Stream, early: Bytes) -> std::io::Result<Option<(Protocol, Bytes)>> {
    if let Some(protocol) = Protocol::of(&early) {
        return Ok(Some((protocol, early)));
    }
    // A connection that says nothing should not hold a buffer while we wait for it.
    stream.readable().await?;
    let mut read = BytesMut::with_capacity(FIRST_READ);
    read.extend_from_slice(&early);
    loop {
        let n = stream.read_buf(&mut read).await?;
        let protocol = match Protocol::of(&read) {
            Some(protocol) => protocol,
            None if n > 0 => continue,
            None if read.is_empty() => return Ok(None),
            None => Protocol::Http1,
        };
        return Ok(Some((protocol, read.freeze())));
    }
}

impl Protocol {
    /// What begins with `bytes`; `None` where more have to come.
    fn of(bytes: &[u8]) -> Option<Self> {
        match bytes {
            _ if bytes.starts_with(PREFACE) => Some(Self::Http2),
            _ if PREFACE.starts_with(bytes) => None,
            _ => Some(Self::Http1),
        }
    }
}

/// How a stretch of activity on an HTTP/1 connection ended.
enum Rest {
    /// Idle: a bare socket until the next byte comes.
    Parked(ClientIo),
    /// A 101 was sent, or a 2xx to a `CONNECT`.
    Upgraded(Stream, Bytes, Next),
    /// Over.
    Closed(Stream, Result<(), hyper::Error>),
    /// A request head was not completed in time.
    HeadTooSlow,
}

/// Why hyper does not serve a connection for now.
enum Pause {
    Idle,
    Closed(Result<(), hyper::Error>),
    HeadTooSlow,
}

/// What serving HTTP/1 connections takes.
struct Http1<H> {
    handler: Arc<H>,
    bounds: Bounds,
    drain: Drain,
    stats: Arc<Stats>,
}

impl<H: Handler> Http1<H> {
    async fn serve(self, mut io: ClientIo) {
        let connection = io.connection.clone();
        let mut busy = false;
        loop {
            // Boxed, so that a parked connection is small.
            match Box::pin(self.active(io, busy)).await {
                // The head of the next request came with the one before: nothing to wait for.
                Rest::Parked(parked) if !parked.early.is_empty() => {
                    busy = true;
                    io = parked;
                }
                Rest::Parked(mut parked) => {
                    let since = Instant::now();
                    tokio::select! {
                        // A request that is here already is served, even if the drain begins in the same moment.
                        biased;
                        ready = timeout(self.bounds.idle, parked.stream.readable()) => match ready {
                            Ok(Ok(())) => {}
                            Ok(Err(_)) => return,
                            Err(_) => return self.stats.closed_idle.increment(),
                        },
                        () = self.drain.wait() => return,
                    }
                    busy = since.elapsed() < TICK;
                    io = parked;
                }
                Rest::Upgraded(stream, early, Next::Tunnel(tunnel)) => {
                    return Box::pin(tunnel.run(stream, early)).await;
                }
                Rest::Upgraded(stream, early, Next::Serve(go_on)) => {
                    let Self { drain, stats, .. } = self;
                    return go_on(stream, early, Surroundings { drain, stats }).await;
                }
                Rest::Closed(stream, result) => {
                    self.closed(&connection, &stream, result);
                    if !connection.more_may_come() {
                        return;
                    }
                    // Before the wait, so that what has not left by now is recorded.
                    drop(connection);
                    return Box::pin(linger(stream, self.drain)).await;
                }
                Rest::HeadTooSlow => {
                    self.stats.closed_request_header.increment();
                    let detail = "the request head was not completed in time".to_owned();
                    let problem = Unreadable { outcome: Outcome::RequestTimeout, status: None, detail };
                    return self.handler.unreadable(connection.peer, problem);
                }
            }
        }
    }

    /// Lets hyper serve the connection until it is over or has nothing to do.
    async fn active(&self, io: ClientIo, busy: bool) -> Rest {
        let connection = io.connection.clone();
        let service = service_fn(|request: Request<Received>| {
            let caller = connection.request_begun(request.version(), request.body().is_end_stream());
            let connect = request.method() == Method::CONNECT;
            Answer { answer: self.handler.handle(request, caller), connection: connection.clone(), connect }
        });
        let mut http = hyper::server::conn::http1::Builder::new()
            .preserve_header_case(true)
            .auto_date_header(false)
            .serve_connection(TokioIo::new(io), service);

        let mut tick = std::pin::pin!(sleep(TICK));
        let mut drain = std::pin::pin!(self.drain.wait());
        let mut armed = false;
        let mut drain_pending = true;
        let mut told_to_drain = false;
        let before = connection.requests();
        let mut last = Progress::default();

        let pause = poll_fn(|cx| {
            if let Poll::Ready(result) = Pin::new(&mut http).poll(cx) {
                return Poll::Ready(Pause::Closed(result));
            }
            if !busy && connection.requests() > before && connection.idle() {
                return Poll::Ready(Pause::Idle);
            }
            // The timer and the drain are polled once, to be woken by them; later they are only looked at.
            if !armed || tick.is_elapsed() {
                armed = true;
                // Once it is ready it must not be polled again.
                drain_pending = drain_pending && drain.as_mut().poll(cx).is_pending();
                while tick.as_mut().poll(cx).is_ready() {
                    match last.advance(&connection, &self.bounds) {
                        Tick::Go => {}
                        Tick::Park => return Poll::Ready(Pause::Idle),
                        Tick::Close => return Poll::Ready(Pause::HeadTooSlow),
                    }
                    let next = Instant::now() + TICK;
                    tick.as_mut().reset(next);
                }
            }
            if !told_to_drain && self.drain.begun() {
                told_to_drain = true;
                Pin::new(&mut http).graceful_shutdown();
                // It has to be polled to act on that.
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        })
        .await;

        let result = match pause {
            Pause::HeadTooSlow => return Rest::HeadTooSlow,
            Pause::Closed(result) => Some(result),
            Pause::Idle => None,
        };
        let parts = http.into_parts();
        let mut io = parts.io.into_inner();
        if let Some(result) = result {
            // After an error the 101 may not have left; the connection knows, and records the exchange when it goes.
            let next = if result.is_ok() { connection.take_next() } else { None };
            return match next {
                Some(next) => Rest::Upgraded(io.stream, together(parts.read_buf, io.early), next),
                None => Rest::Closed(io.stream, result),
            };
        }
        // An empty `Bytes` would still own hyper's buffer, so only one with something in it is kept.
        if !parts.read_buf.is_empty() {
            io.early = parts.read_buf;
        }
        Rest::Parked(io)
    }

    fn closed(&self, connection: &Connection, stream: &Stream, result: Result<(), hyper::Error>) {
        let Err(error) = result else {
            return;
        };
        if error.is_user() && connection.ends_by_closing() {
            // The response broke off. Where the end of the connection is the end of the content, closing would make
            // it look whole (FRM-4); a reset does not. If the socket does not take that, nothing else can be done.
            let _ = stream.set_zero_linger();
        }
        if error.is_parse() {
            let problem = Unreadable {
                outcome: Outcome::MalformedRequest,
                status: connection.own_status(),
                detail: describe(&error),
            };
            return self.handler.unreadable(connection.peer, problem);
        }
        // Everything else happened to a request, and its exchange has recorded it.
        debug!(peer = %connection.peer, error = describe(&error), "connection ended");
    }
}

/// What the codec has read, and what it had still to read of what was there before.
fn together(read: Bytes, early: Bytes) -> Bytes {
    match (read.is_empty(), early.is_empty()) {
        (_, true) => read,
        (true, _) => early,
        _ => [read, early].concat().into(),
    }
}

pin_project! {
    /// An answer in the making. Not an `async` block, since that would copy the request once more.
    struct Answer<F> {
        #[pin]
        answer: F,
        connection: Arc<Connection>,
        connect: bool,
    }
}

impl<F: Future<Output = Response<B>>, B> Future for Answer<F> {
    type Output = Result<Response<B>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let mut answer = ready!(this.answer.poll(cx));
        if *this.connect && !answer.status().is_success() {
            // Some send the first bytes of what they would tunnel behind the CONNECT. They are no request.
            answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            this.connection.tunnel_refused();
        }
        this.connection.response_begun();
        Poll::Ready(Ok(answer))
    }
}

/// Reads on for a while behind the last answer, whose end the caller has been told. Closed with bytes unread, a socket
/// answers them with a reset, which can destroy the answer on its way (RFC 9112 section 9.6).
async fn linger(mut stream: Stream, drain: Drain) {
    let mut thrown_away = Vec::with_capacity(16 * 1024);
    let reading = async {
        while stream.read_buf(&mut thrown_away).await.is_ok_and(|n| n > 0) {
            thrown_away.clear();
        }
    };
    tokio::select! {
        _ = timeout(LINGER, reading) => {}
        () = last_words(&drain) => {}
    }
}

/// What a busy connection had done by its last tick.
#[derive(Default)]
struct Progress {
    requests: u32,
    head_begun: bool,
    ticks: u32,
}

enum Tick {
    Go,
    Park,
    Close,
}

impl Progress {
    fn advance(&mut self, connection: &Connection, bounds: &Bounds) -> Tick {
        let now =
            Progress { requests: connection.requests(), head_begun: connection.waits_for_head(), ticks: 0 };
        let same = now.requests == self.requests && now.head_begun == self.head_begun;
        let ticks = if same { self.ticks + 1 } else { 0 };
        *self = Progress { ticks, ..now };
        if self.head_begun && TICK * ticks >= bounds.request_header {
            return Tick::Close;
        }
        if ticks > 0 && connection.idle() {
            return Tick::Park;
        }
        Tick::Go
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Handler for Nobody {
        type Body = http_body_util::combinators::BoxBody<Bytes, hyper::Error>;

        fn bounds(&self) -> Bounds {
            let time = Duration::from_secs(1);
            Bounds { detection: time, request_header: time, idle: time, half_close: HalfClose::Serve }
        }

        fn handle(
            &self,
            _: Request<Received>,
            _: Caller,
        ) -> impl Future<Output = Response<Self::Body>> + Send + use<> {
            std::future::pending()
        }

        fn unreadable(&self, _: SocketAddr, _: Unreadable) {}
    }

    #[tokio::test]
    async fn an_idle_connection_takes_little_memory() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let stream = TcpStream::connect(address).await.unwrap();
        let served = Arc::new(Nobody).accept(stream, address, Drain::default(), Arc::default(), ());
        let size = size_of_val(&served);
        assert!(size <= 1280, "{size} bytes for each connection that is open");
    }
}
