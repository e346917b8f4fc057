//! Serves one connection from a caller: finds out which HTTP it speaks, and hands each request to a [`Handler`].

use std::future::Future;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Request, Response, StatusCode};
use http_body::Body;
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::time::{sleep, timeout};
use tracing::debug;

pub use super::arrival::Peer;
pub use super::caller::{Caller, Connection};
use super::h1::server::Http1;
pub use super::http2::Bounds as Http2Bounds;
use super::stream::Stream;
pub use super::tunnel::{Continuation, Next, Surroundings, Tunnel};
use super::{Drain, http2};
use crate::config::HalfClose;
use crate::exchange::Outcome;
use crate::stats::Stats;
use crate::wire::h1::Refused;
use crate::wire::{Broken, Laid, Received};

/// What an HTTP/2 client with prior knowledge sends first (RFC 9113 section 3.4).
pub(super) const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Room for the first read of a connection: an ordinary request head fits.
const FIRST_READ: usize = 2048;

/// How long a connection that has said nothing yet is listened to when a drain begins: its first request may be on
/// the way already, or waiting where the runtime has not looked yet.
const LAST_WORDS: Duration = Duration::from_millis(100);

/// How long is read on, and thrown away, what comes behind an answer that was the last.
pub(super) const LINGER: Duration = Duration::from_secs(5);

/// How often a busy connection looks at its bounds. They are kept to within this much.
pub(super) const TICK: Duration = Duration::from_secs(1);

/// Answers requests.
pub trait Handler: Send + Sync + 'static {
    /// Content of its responses.
    type Body: Body<Data = Bytes, Error = Broken> + Laid + Send + 'static;

    /// The bounds for a connection that begins now.
    fn bounds(&self) -> Bounds;

    /// Answers one request.
    fn handle(
        &self,
        request: Request<Received>,
        caller: Caller,
    ) -> impl Future<Output = Response<Self::Body>> + Send + use<Self>;

    /// The answer to bytes from which no request can be read.
    fn refusal(&self, problem: &Unreadable) -> Response<Self::Body>;

    /// Takes note of such bytes, when the answer has left, or could not.
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
    /// Between two parts of a request's content.
    pub request_body: Duration,
    /// Until the caller takes more of a response.
    pub response_send: Duration,
    /// What a closed sending side means.
    pub half_close: HalfClose,
    /// Bytes of a request's head.
    pub head_bytes: usize,
    /// Lines of a request's header section.
    pub header_lines: usize,
    /// Bytes of a request's target.
    pub target_bytes: usize,
    /// Connections of one listener; `None` is no bound.
    pub connections: Option<NonZeroUsize>,
    /// What an HTTP/2 connection is held to beside all that.
    pub http2: Http2Bounds,
}

/// Why no request could be read.
#[derive(Debug)]
pub struct Unreadable {
    /// [`Outcome::MalformedRequest`] or [`Outcome::RequestTimeout`].
    pub outcome: Outcome,
    /// What the caller is answered, if it is.
    pub status: Option<StatusCode>,
    /// What was wrong with the bytes.
    pub detail: String,
}

impl Unreadable {
    /// The connection ended before the head did.
    pub(super) fn cut_short() -> Self {
        let detail = "the connection ended in the middle of a request head".to_owned();
        Self { outcome: Outcome::MalformedRequest, status: Some(StatusCode::BAD_REQUEST), detail }
    }

    /// The head took too long (GW-3).
    pub(super) fn too_slow() -> Self {
        let detail = "the request head was not completed in time".to_owned();
        Self { outcome: Outcome::RequestTimeout, status: Some(StatusCode::REQUEST_TIMEOUT), detail }
    }
}

impl From<Refused> for Unreadable {
    fn from(Refused { status, reason }: Refused) -> Self {
        Self { outcome: Outcome::MalformedRequest, status: Some(status), detail: reason.to_owned() }
    }
}

/// Serves HTTP on a connection until it ends, and drops `held` then. `early` are bytes that were read from it already.
///
/// What waits for most of a connection's life is an idle socket. So every stage of it that is not waiting is boxed,
/// and this future is small.
pub async fn serve<H: Handler, G: Send>(
    stream: Stream,
    early: Bytes,
    peer: impl Into<Peer>,
    handler: Arc<H>,
    surroundings: Surroundings,
    held: G,
) {
    let _held = held;
    // Aside, since each stage would hold a copy.
    let bounds = Box::new(handler.bounds());
    let peer = peer.into();
    let begun = Box::pin(begin(stream, early, peer.socket, *bounds, &surroundings)).await;
    let Some((protocol, stream, early)) = begun else { return };
    let Surroundings { drain, stats } = surroundings;
    let cancel = bounds.half_close == HalfClose::Cancel;
    // A socket that cannot say is about to fail anyway.
    let local = stream.local_addr().unwrap_or(peer.socket);
    let connection = Connection::new(peer, local, protocol == Protocol::Http2, cancel);
    match protocol {
        Protocol::Http1 => {
            Http1 { handler, connection, drain, stats }.serve(stream, early).await;
        }
        Protocol::Http2 => {
            let served = http2::serve(stream, early, connection.clone(), handler, *bounds, drain, stats);
            Box::pin(served).await;
            // Tunnels learn of their end by what the connection has left behind, and have something to tell of it.
            connection.all_left().await;
        }
    }
}

/// Finds out what a new connection speaks. `None` where there is nothing to serve.
async fn begin(
    mut stream: Stream,
    early: Bytes,
    peer: SocketAddr,
    bounds: Bounds,
    surroundings: &Surroundings,
) -> Option<(Protocol, Stream, Bytes)> {
    let detected = tokio::select! {
        biased;
        detected = timeout(bounds.detection, detect(&mut stream, early)) => detected,
        () = last_words(&surroundings.drain) => return None,
    };
    match detected {
        Ok(Ok(Some((protocol, early)))) => return Some((protocol, stream, early)),
        Ok(Ok(None)) => {}
        Ok(Err(error)) => debug!(%peer, %error, "connection ended before a request"),
        Err(_) => surroundings.stats.closed_detection.increment(),
    }
    None
}

/// Reads on for a while behind the last answer, whose end the caller has been told. Closed with bytes unread, a socket
/// answers them with a reset, which can destroy the answer on its way (FRM-8).
pub(super) async fn linger(mut stream: Stream, drain: Drain) {
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

#[cfg(test)]
mod tests {
    use super::*;

    struct Nobody;

    impl Handler for Nobody {
        type Body = Received;

        fn bounds(&self) -> Bounds {
            let time = Duration::from_secs(1);
            Bounds {
                detection: time,
                request_header: time,
                idle: time,
                half_close: HalfClose::Serve,
                request_body: time,
                response_send: time,
                head_bytes: 1024,
                header_lines: 100,
                target_bytes: 1024,
                connections: None,
                http2: Http2Bounds { streams: 100, resets: None },
            }
        }

        fn handle(
            &self,
            _: Request<Received>,
            _: Caller,
        ) -> impl Future<Output = Response<Self::Body>> + Send + use<> {
            std::future::pending()
        }

        fn refusal(&self, _: &Unreadable) -> Response<Received> {
            Response::default()
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
