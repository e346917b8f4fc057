//! What comes before HTTP on a connection to an inbound listener: the PROXY protocol's header, and TLS.
//!
//! Each is waited for, but not for long, and in a task that no other connection waits for. What ends a connection here
//! is counted by its reason; only somebody who sent a request without the TLS that is asked for is told, and recorded.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use http::StatusCode;
use ipnet::IpNet;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::debug;

use super::first_bytes::{self, FirstBytes};
use super::server::{Surroundings, Unreadable, last_words, linger};
use super::stream::Stream;
use super::termination::{self, Termination};
use crate::exchange::{Outcome, TlsFacts};
use crate::stats::Stats;
use crate::wire::proxy_protocol::{self, Header, Malformed, Parsed};

/// Room for the first read: a PROXY header with a few TLVs, or the first message of a TLS client.
const FIRST_READ: usize = 2048;

/// What is said about it on the record and in the answer.
const PLAIN_HTTP: &str = "plain HTTP on a TLS port: write https://";

/// Who is at the other end of a connection.
#[derive(Debug)]
pub struct Peer {
    /// Its socket.
    pub socket: SocketAddr,
    /// What was said before HTTP began; nothing on most connections.
    pub arrival: Option<Box<Arrival>>,
}

/// What was said before HTTP began.
#[derive(Debug, Default)]
pub struct Arrival {
    /// Whose connection it is, by the word of a load balancer that is believed.
    pub claimed: Option<SocketAddr>,
    /// The TLS that it is protected by.
    pub tls: Option<Arc<TlsFacts>>,
}

impl From<SocketAddr> for Peer {
    fn from(socket: SocketAddr) -> Self {
        Self { socket, arrival: None }
    }
}

/// What the connections of a listener begin with.
#[derive(Debug, Default)]
pub struct Entrance {
    /// Networks from which each begins with the PROXY protocol.
    pub proxies: Vec<IpNet>,
    /// TLS, where they speak it.
    pub tls: Option<Arc<Termination>>,
}

/// How long is waited.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// For the PROXY protocol's header.
    pub detection: Duration,
    /// For the whole of a handshake.
    pub handshake: Duration,
}

/// A connection on which HTTP begins.
#[derive(Debug)]
pub struct Arrived {
    /// The connection, with TLS where that was agreed on.
    pub stream: Stream,
    /// What has been read of it.
    pub early: Bytes,
    /// Whose it is.
    pub peer: Peer,
}

/// A connection that comes to nothing, and has been counted; with what is to be recorded of it.
pub type Turned = Option<Unreadable>;

impl Entrance {
    /// Whether a connection from there begins with anything else than HTTP.
    pub fn expects(&self, peer: IpAddr) -> bool {
        self.tls.is_some() || self.expects_header(peer)
    }

    fn expects_header(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.proxies.iter().any(|net| net.contains(&peer))
    }

    /// Takes what comes before HTTP.
    ///
    /// # Errors
    /// Where HTTP does not begin.
    pub async fn arrive(
        &self,
        stream: TcpStream,
        socket: SocketAddr,
        limits: Limits,
        surroundings: &Surroundings,
    ) -> Result<Arrived, Turned> {
        let mut stream = Stream::from(stream);
        let mut read = BytesMut::new();
        let mut arrival = Box::<Arrival>::default();
        if self.expects_header(socket.ip()) {
            let header = header(&mut stream, &mut read, socket, limits.detection, surroundings).await;
            if let Header::Proxied { source, .. } = header.ok_or(None)? {
                arrival.claimed = Some(source);
            }
        }
        if let Some(tls) = &self.tls {
            let limit = limits.handshake;
            stream = secure(tls, stream, read.split().freeze(), socket, limit, surroundings).await?;
            arrival.tls = termination::facts(&stream).map(Arc::new);
        }
        Ok(Arrived { stream, early: read.freeze(), peer: Peer { socket, arrival: Some(arrival) } })
    }
}

/// Why a connection has no header.
#[derive(Debug, thiserror::Error)]
enum Headless {
    #[error("{0}")]
    Malformed(#[from] Malformed),
    #[error("it ended within its PROXY header")]
    Ended,
    #[error(transparent)]
    Broken(#[from] io::Error),
}

/// Reads the header, and leaves what follows it in `read`. `None` where the connection is over.
async fn header(
    stream: &mut Stream,
    read: &mut BytesMut,
    peer: SocketAddr,
    limit: Duration,
    Surroundings { drain, stats }: &Surroundings,
) -> Option<Header> {
    let header = tokio::select! {
        biased;
        header = timeout(limit, read_header(stream, read)) => header,
        () = last_words(drain) => return None,
    };
    let error = match header {
        Ok(Ok(header)) => return header,
        Ok(Err(error)) => error,
        Err(_) => {
            stats.closed_detection.increment();
            return None;
        }
    };
    match &error {
        Headless::Malformed(Malformed::Absent) => stats.proxy_absent.increment(),
        Headless::Malformed(_) => stats.proxy_malformed.increment(),
        Headless::Ended | Headless::Broken(_) => stats.proxy_ended.increment(),
    }
    debug!(%peer, %error, "connection closed for its PROXY header");
    None
}

/// `None` where the connection was closed without a word: a port probe.
async fn read_header(stream: &mut Stream, read: &mut BytesMut) -> Result<Option<Header>, Headless> {
    // A connection that says nothing should not hold a buffer while we wait for it.
    stream.readable().await?;
    read.reserve(FIRST_READ);
    loop {
        // No more is read than a header can have: it is whole then, or is none.
        if stream.read_buf(read).await? == 0 {
            return if read.is_empty() { Ok(None) } else { Err(Headless::Ended) };
        }
        if let Parsed::Whole(header, length) = proxy_protocol::parse(read)? {
            read.advance(length);
            return Ok(Some(header));
        }
    }
}

/// Accepts TLS.
async fn secure(
    tls: &Termination,
    mut stream: Stream,
    early: Bytes,
    peer: SocketAddr,
    limit: Duration,
    Surroundings { drain, stats }: &Surroundings,
) -> Result<Stream, Turned> {
    let until = Instant::now() + limit;
    let mut read = BytesMut::from(early);
    if read.is_empty() {
        let first = async {
            stream.readable().await?;
            read.reserve(FIRST_READ);
            stream.read_buf(&mut read).await
        };
        tokio::select! {
            biased;
            first = timeout_at(until, first) => match first {
                Ok(Ok(1..)) => {}
                // Closed without a word, or broken before one.
                Ok(_) => return Err(None),
                Err(_) => return Err(too_slow(stats)),
            },
            () = last_words(drain) => return Err(None),
        }
    }
    // Who has said something is not left any more, however soon the drain is to be over.
    if !first_bytes::begins_tls(&read) {
        let detected = first_bytes::detect(&mut stream, &mut read, None, limit);
        let found = match timeout_at(until, detected).await {
            Ok(found) => found.unwrap_or(FirstBytes::Ended),
            Err(_) => return Err(too_slow(stats)),
        };
        if !matches!(found, FirstBytes::Http1 | FirstBytes::Http2) {
            stats.tls_absent.increment();
            debug!(%peer, "connection closed: it does not begin with TLS");
            return Err(None);
        }
        stats.tls_plain_http.increment();
        let status = match found {
            FirstBytes::Http1 => refuse_plain(stream, until, drain).await,
            // Who speaks HTTP/2 at once would not understand it.
            _ => None,
        };
        let detail = PLAIN_HTTP.to_owned();
        return Err(Some(Unreadable { outcome: Outcome::MalformedRequest, status, detail }));
    }
    match timeout_at(until, tls.accept(stream, read.freeze())).await {
        Ok(Ok(stream)) => {
            stats.tls_complete.increment();
            Ok(stream)
        }
        Ok(Err(error)) => {
            termination::count(&error, stats).increment();
            debug!(%peer, %error, "TLS handshake failed");
            Err(None)
        }
        Err(_) => Err(too_slow(stats)),
    }
}

fn too_slow(stats: &Stats) -> Turned {
    stats.tls_timed_out.increment();
    None
}

/// Answers who speaks HTTP where TLS is spoken. Returns the status, if it was sent.
async fn refuse_plain(mut stream: Stream, until: Instant, drain: &super::Drain) -> Option<StatusCode> {
    let text = format!("400 Bad Request\ntracecar: {PLAIN_HTTP}\n");
    let answer = format!(
        "HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: {}\r\n\
         proxy-status: tracecar; error=http_request_denied; details=\"{PLAIN_HTTP}\"\r\nconnection: close\r\n\r\n{text}",
        text.len()
    );
    let sent = timeout_at(until, async {
        stream.write_all(answer.as_bytes()).await?;
        stream.shutdown().await
    });
    let sent = sent.await.is_ok_and(|sent| sent.is_ok());
    // Whoever goes on sending has the time of a handshake, and no more.
    let _ = timeout_at(until, linger(stream, drain.clone())).await;
    sent.then_some(StatusCode::BAD_REQUEST)
}
