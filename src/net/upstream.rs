//! Connections to the service: opened when needed, kept for the next request, timed phase by phase.
//!
//! A pool belongs to one worker and one service. HTTP/1 connections are used one request at a time, the most
//! recently used first; HTTP/2 ones are shared.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use http::header::UPGRADE;
use http::{Method, Request, Response};
use http_body::Body;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use thiserror::Error;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::acks::Acks;
use super::upstream_io::UpstreamIo;
use crate::config::{Timeouts, Upstream, UpstreamProtocol};
use crate::stats::Stats;
use crate::wire::Received;
use crate::wire::body::describe;

/// A kept connection that has rested for longer than this is likely to be closed by the service in the same moment that
/// we use it. So a request that must not be sent twice gets a new one (HOP-15).
const STALE_AFTER: Duration = Duration::from_secs(1);

/// Idle connections beyond this many are closed when they have rested for [`STALE_AFTER`]: each holds two 8 KiB
/// buffers, and a burst should not be paid for long.
const KEEP_IDLE: usize = 32;

/// Header bytes that an HTTP/2 response may have.
const HTTP2_HEADER_BYTES: u32 = 64 * 1024;

/// Connections to one service.
#[derive(Debug)]
pub struct Pool<B> {
    upstream: Upstream,
    stats: Arc<Stats>,
    acks: Arc<Acks>,
    idle: Mutex<Idle<B>>,
    shared: Mutex<Option<http2::SendRequest<B>>>,
    /// Held while the shared connection is opened, so that a burst of requests opens one and not one each.
    opening: tokio::sync::Mutex<()>,
}

#[derive(Debug)]
struct Idle<B> {
    /// Most recently used last.
    connections: VecDeque<Rested<B>>,
    /// A task looks after the idle time of the connections.
    reaped: bool,
}

#[derive(Debug)]
struct Rested<B> {
    sender: http1::SendRequest<B>,
    since: Instant,
}

/// What happened on the way to the service, also when it failed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    /// Time for name resolution, where a name was resolved.
    pub dns: Option<Duration>,
    /// Time for connecting, where a connection was opened.
    pub connect: Option<Duration>,
    /// When the request head was handed to the connection.
    pub sent: Option<std::time::Instant>,
}

/// The HTTP/1 connection that a response is still arriving on. Dropped without [`Lease::give_back`], the connection
/// is closed as soon as its response is no longer read.
#[derive(Debug)]
pub struct Lease<B> {
    pool: Arc<Pool<B>>,
    sender: http1::SendRequest<B>,
    keep: Duration,
    /// When the response's head had come.
    answered: Instant,
}

/// Why there is no response.
#[derive(Debug, Error)]
pub enum SendError {
    /// The name could not be resolved.
    #[error("cannot resolve {0}: {1}")]
    Unresolved(String, io::Error),
    /// Nothing listens there.
    #[error("connection refused")]
    Refused,
    /// The host or its network cannot be reached.
    #[error("cannot connect: {0}")]
    Unreachable(io::Error),
    /// Connecting took too long.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// The response head took too long.
    #[error("no response within {0:?}")]
    HeaderTimeout(Duration),
    /// The connection was closed or reset before the response head.
    #[error("connection closed before a response: {0}")]
    Reset(String),
    /// What came back is not HTTP.
    #[error("invalid response: {0}")]
    Invalid(String),
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes> + Default + Send + Unpin + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// A pool without connections.
    pub fn new(upstream: Upstream, stats: Arc<Stats>) -> Arc<Self> {
        let idle = Mutex::new(Idle { connections: VecDeque::new(), reaped: false });
        Arc::new(Self {
            upstream,
            stats,
            acks: Arc::default(),
            idle,
            shared: Mutex::new(None),
            opening: tokio::sync::Mutex::default(),
        })
    }

    /// Where this pool's connections go.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Sends a request and waits for the head of its response. `progress` tells how much of the request's content has
    /// been taken so far; `phases` says how far it all came, also on failure.
    ///
    /// # Errors
    /// Says what went wrong on the way; the request has been tried as often as HTTP allows (HOP-15).
    pub async fn send(
        self: &Arc<Self>,
        request: Request<B>,
        timeouts: &Timeouts,
        progress: impl Fn() -> u64,
        phases: &mut Phases,
    ) -> Result<(Response<Received>, Option<Lease<B>>), SendError> {
        match self.upstream.protocol {
            UpstreamProtocol::Http1 => self.send_http1(request, timeouts, progress, phases).await,
            UpstreamProtocol::H2c => Ok((self.send_http2(request, timeouts, progress, phases).await?, None)),
        }
    }

    async fn send_http1(
        self: &Arc<Self>,
        mut request: Request<B>,
        timeouts: &Timeouts,
        progress: impl Fn() -> u64,
        phases: &mut Phases,
    ) -> Result<(Response<Received>, Option<Lease<B>>), SendError> {
        let repeatable = is_repeatable(&request);
        while let Some(Rested { mut sender, .. }) = self.rested(repeatable) {
            // The service may close a kept connection in the moment that we use it. One copied head per request is the
            // price of not showing that to anybody.
            let copy = repeatable.then(|| copy_of(&request));
            match receive(&mut sender, request, timeouts, &progress, phases).await {
                Ok(response) => return Ok((response, Some(self.lease(sender, timeouts)))),
                // It was never sent, so sending it elsewhere is no repetition.
                Err(Failed { unsent: Some(unsent), .. }) => request = *unsent,
                Err(Failed { error, unsent: None }) => match (copy, &error) {
                    (Some(copy), SendError::Reset(_)) => {
                        self.stats.upstream_retries.increment();
                        request = copy;
                        break;
                    }
                    _ => return Err(error),
                },
            }
        }
        let stream = self.connect(timeouts, phases).await?;
        let (mut sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(UpstreamIo::new(stream, self.acks.clone())))
            .await
            .map_err(|error| SendError::Reset(describe(&error)))?;
        tokio::spawn(async move {
            // How it ended is told to whoever waits for the response.
            let _ = connection.with_upgrades().await;
        });
        match receive(&mut sender, request, timeouts, &progress, phases).await {
            Ok(response) => Ok((response, Some(self.lease(sender, timeouts)))),
            Err(failed) => Err(failed.error),
        }
    }

    async fn send_http2(
        self: &Arc<Self>,
        mut request: Request<B>,
        timeouts: &Timeouts,
        progress: impl Fn() -> u64,
        phases: &mut Phases,
    ) -> Result<Response<Received>, SendError> {
        let mut again = true;
        loop {
            let mut sender = match self.open_shared() {
                Some(sender) => sender,
                None => self.open_one_for_all(timeouts, phases).await?,
            };
            phases.sent = Some(std::time::Instant::now());
            let sending = sender.try_send_request(request);
            match while_it_moves(timeouts.response_header, &progress, sending).await {
                Some(Ok(response)) => return Ok(response),
                Some(Err(mut failed)) => match failed.take_message() {
                    // The connection ended as we came to it, and nothing was sent (RFC 9113 section 8.7). Once only:
                    // a service that closes each connection at once should not keep us busy.
                    Some(unsent) if std::mem::take(&mut again) => request = unsent,
                    _ => return Err(classify(failed.error())),
                },
                None => return Err(SendError::HeaderTimeout(timeouts.response_header)),
            }
        }
    }

    fn open_shared(&self) -> Option<http2::SendRequest<B>> {
        lock(&self.shared).clone().filter(|sender| !sender.is_closed())
    }

    /// Opens the connection that all requests share, or waits for whoever is about to.
    async fn open_one_for_all(
        self: &Arc<Self>,
        timeouts: &Timeouts,
        phases: &mut Phases,
    ) -> Result<http2::SendRequest<B>, SendError> {
        // Each waits for the others no longer than it would for its own connection.
        let Ok(_opening) = timeout(timeouts.connect, self.opening.lock()).await else {
            return Err(SendError::ConnectTimeout(timeouts.connect));
        };
        if let Some(sender) = self.open_shared() {
            return Ok(sender);
        }
        let stream = self.connect(timeouts, phases).await?;
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(HTTP2_HEADER_BYTES)
            .handshake(TokioIo::new(UpstreamIo::new(stream, self.acks.clone())))
            .await
            .map_err(|error| SendError::Reset(describe(&error)))?;
        tokio::spawn(connection);
        *lock(&self.shared) = Some(sender.clone());
        Ok(sender)
    }

    async fn connect(&self, timeouts: &Timeouts, phases: &mut Phases) -> Result<TcpStream, SendError> {
        let connecting = async {
            let addresses = self.resolve(phases).await?;
            let begun = Instant::now();
            let connected = connect_any(&addresses, timeouts.connect).await;
            phases.connect = Some(begun.elapsed());
            connected
        };
        let stream = match timeout(timeouts.connect, connecting).await {
            Ok(connected) => connected?,
            Err(_) => return Err(SendError::ConnectTimeout(timeouts.connect)),
        };
        self.stats.upstream_connects.increment();
        // Small requests must not wait for acknowledgements.
        let _ = stream.set_nodelay(true);
        Ok(stream)
    }

    async fn resolve(&self, phases: &mut Phases) -> Result<Vec<SocketAddr>, SendError> {
        let Upstream { host, port, .. } = &self.upstream;
        if let Ok(address) = host.parse::<IpAddr>() {
            return Ok(vec![(address, *port).into()]);
        }
        let begun = Instant::now();
        let found = tokio::net::lookup_host((host.as_str(), *port)).await;
        phases.dns = Some(begun.elapsed());
        found.map(Iterator::collect).map_err(|error| SendError::Unresolved(host.clone(), error))
    }

    fn lease(self: &Arc<Self>, sender: http1::SendRequest<B>, timeouts: &Timeouts) -> Lease<B> {
        Lease { pool: self.clone(), sender, keep: timeouts.upstream_idle, answered: Instant::now() }
    }

    /// A kept connection that can be used at once. One that may be stale is only for repeatable requests.
    fn rested(&self, repeatable: bool) -> Option<Rested<B>> {
        let mut idle = lock(&self.idle);
        for index in (0..idle.connections.len()).rev() {
            let Rested { sender, since } = &idle.connections[index];
            if sender.is_ready() {
                let usable = repeatable || since.elapsed() <= STALE_AFTER;
                return if usable { idle.connections.remove(index) } else { None };
            }
            // A service that closes after each answer would leave one behind per request, for all later ones to
            // step over.
            if sender.is_closed() {
                idle.connections.remove(index);
            }
        }
        None
    }

    fn keep(self: &Arc<Self>, rested: Rested<B>, keep: Duration) {
        let mut idle = lock(&self.idle);
        idle.connections.push_back(rested);
        if !std::mem::replace(&mut idle.reaped, true) {
            tokio::spawn(reap(self.clone(), keep));
        }
    }
}

impl<B> Lease<B>
where
    B: Body<Data = Bytes> + Default + Send + Unpin + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// The response has been read to its end: the connection may serve the next request.
    pub fn give_back(self) {
        let Lease { pool, sender, keep, answered } = self;
        let now = Instant::now();
        pool.acks.answered(now - answered);
        if !sender.is_closed() {
            pool.keep(Rested { sender, since: now }, keep);
        }
    }
}

/// Closes what has been idle for too long, for as long as there is anything.
async fn reap<B>(pool: Arc<Pool<B>>, keep: Duration) {
    loop {
        sleep(STALE_AFTER.min(keep)).await;
        let mut idle = lock(&pool.idle);
        while let Some(oldest) = idle.connections.front() {
            let rested = oldest.since.elapsed();
            let surplus = idle.connections.len() > KEEP_IDLE && rested > STALE_AFTER;
            if rested < keep && !surplus && !oldest.sender.is_closed() {
                break;
            }
            idle.connections.pop_front();
        }
        if idle.connections.is_empty() {
            idle.reaped = false;
            return;
        }
    }
}

struct Failed<B> {
    error: SendError,
    /// The request, where nothing of it was sent.
    unsent: Option<Box<Request<B>>>,
}

async fn receive<B>(
    sender: &mut http1::SendRequest<B>,
    request: Request<B>,
    timeouts: &Timeouts,
    progress: impl Fn() -> u64,
    phases: &mut Phases,
) -> Result<Response<Received>, Failed<B>>
where
    B: Body<Data = Bytes> + Send + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    phases.sent = Some(std::time::Instant::now());
    let sending = sender.try_send_request(request);
    match while_it_moves(timeouts.response_header, progress, sending).await {
        Some(Ok(response)) => Ok(response),
        Some(Err(mut failed)) => {
            let unsent = failed.take_message().map(Box::new);
            Err(Failed { error: classify(failed.error()), unsent })
        }
        None => Err(Failed { error: SendError::HeaderTimeout(timeouts.response_header), unsent: None }),
    }
}

/// Waits for `answer` until `limit` has passed in which the request's content did not move either: a long upload is no
/// slow service. From its last byte, the service has between one and two times the limit; without content, exactly one.
async fn while_it_moves<T>(
    limit: Duration,
    progress: impl Fn() -> u64,
    answer: impl Future<Output = T>,
) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    let mut before = progress();
    loop {
        if let Ok(answered) = timeout(limit, answer.as_mut()).await {
            return Some(answered);
        }
        let now = progress();
        if now == before {
            return None;
        }
        before = now;
    }
}

fn classify(error: &hyper::Error) -> SendError {
    if error.is_parse() {
        return SendError::Invalid(describe(error));
    }
    SendError::Reset(describe(error))
}

/// Tries one address after the other. Each has its share of `limit`, so that a first one that is never heard of leaves
/// time for the next.
async fn connect_any(addresses: &[SocketAddr], limit: Duration) -> Result<TcpStream, SendError> {
    let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
    let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for address in addresses {
        match timeout(share, TcpStream::connect(address)).await {
            Ok(Ok(stream)) => return Ok(stream),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::ErrorKind::TimedOut.into(),
        }
    }
    match last.kind() {
        io::ErrorKind::ConnectionRefused => Err(SendError::Refused),
        io::ErrorKind::TimedOut => Err(SendError::ConnectTimeout(limit)),
        _ => Err(SendError::Unreachable(last)),
    }
}

/// Whether a request may be sent again: it means the same however often it arrives, and has no content that would
/// have to be kept (HOP-15).
fn is_repeatable<B: Body>(request: &Request<B>) -> bool {
    let idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    );
    // Asking for an upgrade ties a request to its connection.
    idempotent && request.body().is_end_stream() && !request.headers().contains_key(UPGRADE)
}

/// A request that can be sent in place of `request`. It lacks the case of header names, which has its price and no
/// meaning.
fn copy_of<B: Default>(request: &Request<B>) -> Request<B> {
    let mut copy = Request::new(B::default());
    *copy.method_mut() = request.method().clone();
    *copy.uri_mut() = request.uri().clone();
    *copy.version_mut() = request.version();
    *copy.headers_mut() = request.headers().clone();
    copy
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
