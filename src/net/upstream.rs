//! Connections to the service: opened when needed, kept for the next request, timed phase by phase.
//!
//! A pool belongs to one worker and one service. HTTP/1 connections are used one request at a time, the most
//! recently used first; HTTP/2 ones are shared. Which of the two it is may be the service's choice, made when TLS begins.
//! So requests come in the form that they were received in, and get that of the connection right before they are sent.

use std::collections::VecDeque;
use std::error::Error as StdError;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, UPGRADE};
use http::uri::Scheme;
use http::{Request, Response, Version};
use http_body::Body;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{Instant, sleep, timeout};

use super::acks::Acks;
use super::attempt::{Failed, classify, copy_of, is_repeatable, receive, while_it_moves};
pub use super::attempt::{Phases, SendError};
use super::connector::{Connector, Offer};
use super::stream::Stream;
use super::upstream_io::UpstreamIo;
use crate::config::{Timeouts, Upstream, UpstreamProtocol};
use crate::stats::Stats;
use crate::wire::body::describe;
use crate::wire::{Received, headers, target};

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
    connector: Arc<Connector>,
    stats: Arc<Stats>,
    acks: Arc<Acks>,
    idle: Mutex<Idle<B>>,
    shared: Mutex<Option<Held<B>>>,
    /// Held while the shared connection is opened, so that a burst of requests opens one and not one each.
    opening: tokio::sync::Mutex<()>,
    /// A service that had the choice chose HTTP/1.1: its connections need not be opened one after the other.
    chose_http1: AtomicBool,
}

/// The addresses of a connection.
#[derive(Debug)]
struct Ends {
    local: SocketAddr,
    peer: SocketAddr,
}

/// The HTTP/2 connection that all requests share.
#[derive(Debug)]
struct Shared<B> {
    sender: http2::SendRequest<B>,
    ends: Arc<Ends>,
}

impl<B> Clone for Shared<B> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), ends: self.ends.clone() }
    }
}

/// The same as it waits for the next request.
#[derive(Debug)]
struct Held<B> {
    shared: Shared<B>,
    /// When a request was last sent on it.
    used: Instant,
}

#[derive(Debug)]
struct Idle<B> {
    /// Most recently used last.
    connections: VecDeque<Rested<B>>,
    /// A task looks after the idle time of the connections, the shared one included.
    reaped: bool,
    /// How long a connection is kept without use.
    keep: Duration,
}

#[derive(Debug)]
struct Rested<B> {
    sender: http1::SendRequest<B>,
    ends: Arc<Ends>,
    since: Instant,
}

/// The HTTP/1 connection that a response is still arriving on. Dropped without [`Lease::give_back`], the connection
/// is closed as soon as its response is no longer read.
#[derive(Debug)]
pub struct Lease<B> {
    pool: Arc<Pool<B>>,
    sender: http1::SendRequest<B>,
    ends: Arc<Ends>,
    /// When the response's head had come.
    answered: Instant,
}

/// What is sent along with a request, and noted on its way.
struct Sending<'a, P, C> {
    timeouts: &'a Timeouts,
    progress: P,
    connected: C,
    phases: &'a mut Phases,
}

impl<P, C: Fn(SocketAddr, SocketAddr)> Sending<'_, P, C> {
    /// The head is about to be sent on a connection.
    fn begins_on(&mut self, &Ends { local, peer }: &Ends) {
        (self.phases.local, self.phases.peer) = (Some(local), Some(peer));
        (self.connected)(local, peer);
        self.phases.sent = Some(std::time::Instant::now());
    }
}

/// A response head, and the connection that is busy with it where nobody shares that.
type Answered<B> = (Response<Received>, Option<Lease<B>>);

/// What came of trying a connection.
enum Tried<B> {
    Answered(Answered<B>),
    /// The request may be sent on another.
    Again(Request<B>),
}

/// A new connection.
enum Opened<B> {
    Http1(Stream, Arc<Ends>),
    Http2(Shared<B>),
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes> + Default + Send + Unpin + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// A pool without connections; `connector` opens them, and `keep` is how long one is kept without use.
    pub fn new(
        upstream: Upstream,
        connector: Arc<Connector>,
        keep: Duration,
        stats: Arc<Stats>,
    ) -> Arc<Self> {
        let idle = Mutex::new(Idle { connections: VecDeque::new(), reaped: false, keep });
        Arc::new(Self {
            upstream,
            connector,
            stats,
            acks: Arc::default(),
            idle,
            shared: Mutex::new(None),
            opening: tokio::sync::Mutex::default(),
            chose_http1: AtomicBool::new(false),
        })
    }

    /// Where this pool's connections go.
    pub fn upstream(&self) -> &Upstream {
        &self.upstream
    }

    /// Sends a request and waits for the head of its response.
    ///
    /// The request has the target and version that it was received with, and no header that concerns one hop only, but
    /// `Upgrade` and the `Connection` that names it where it asks for that. `progress` tells how much of its content has
    /// been taken so far; `connected` is told the local and the far address of the connection right before the head is
    /// sent on it, each time; `phases` says how far it all came, also on failure.
    ///
    /// # Errors
    /// Says what went wrong on the way; the request has been tried as often as HTTP allows (HOP-15).
    pub async fn send(
        self: &Arc<Self>,
        mut request: Request<B>,
        timeouts: &Timeouts,
        progress: impl Fn() -> u64,
        connected: impl Fn(SocketAddr, SocketAddr),
        phases: &mut Phases,
    ) -> Result<Answered<B>, SendError> {
        let upgrade = request.headers().contains_key(UPGRADE);
        let (http1, http2) = match self.upstream.protocol {
            UpstreamProtocol::Http1 => (true, false),
            UpstreamProtocol::H2c => (false, true),
            UpstreamProtocol::Https => (true, !upgrade),
        };
        let mut sending = Sending { timeouts, progress, connected, phases };
        let mut again = true;
        loop {
            let shared = match self.open_shared().filter(|_| http2) {
                Some(shared) => shared,
                None => {
                    if http1 {
                        request = match self.over_kept(request, &mut sending).await? {
                            Tried::Answered(answered) => return Ok(answered),
                            Tried::Again(request) => request,
                        };
                    }
                    // Boxed, so that a request on a kept connection does not carry the room for a handshake.
                    match Box::pin(self.open(http2, sending.timeouts, sending.phases)).await? {
                        Opened::Http1(stream, ends) => {
                            return self.over_new(stream, ends, request, &mut sending).await;
                        }
                        Opened::Http2(shared) => shared,
                    }
                }
            };
            let again = std::mem::take(&mut again);
            request = match self.over_shared(shared, request, &mut sending, again).await? {
                Tried::Answered(answered) => return Ok(answered),
                Tried::Again(request) => request,
            };
        }
    }

    /// Tries the kept HTTP/1 connections.
    async fn over_kept(
        self: &Arc<Self>,
        mut request: Request<B>,
        sending: &mut Sending<'_, impl Fn() -> u64, impl Fn(SocketAddr, SocketAddr)>,
    ) -> Result<Tried<B>, SendError> {
        let repeatable = is_repeatable(&request);
        while let Some(Rested { mut sender, ends, .. }) = self.rested(repeatable) {
            self.fit_for_http1(&mut request);
            // The service may close a kept connection in the moment that we use it. One copied head per request is the
            // price of not showing that to anybody.
            let copy = repeatable.then(|| copy_of(&request));
            sending.begins_on(&ends);
            match receive(&mut sender, request, sending.timeouts, &sending.progress).await {
                Ok(response) => {
                    let lease = self.lease(sender, ends);
                    return Ok(Tried::Answered((response, Some(lease))));
                }
                Err(Failed { unsent: Some(unsent), .. }) => request = *unsent,
                Err(Failed { error, unsent: None }) => match (copy, &error) {
                    (Some(copy), SendError::Reset(_)) => {
                        self.stats.upstream_retries.increment();
                        sending.phases.resends += 1;
                        return Ok(Tried::Again(copy));
                    }
                    _ => return Err(error),
                },
            }
        }
        Ok(Tried::Again(request))
    }

    async fn over_new(
        self: &Arc<Self>,
        stream: Stream,
        ends: Arc<Ends>,
        mut request: Request<B>,
        sending: &mut Sending<'_, impl Fn() -> u64, impl Fn(SocketAddr, SocketAddr)>,
    ) -> Result<Answered<B>, SendError> {
        let (mut sender, connection) = http1::Builder::new()
            .preserve_header_case(true)
            .handshake(TokioIo::new(UpstreamIo::new(stream, self.acks.clone())))
            .await
            .map_err(|error| SendError::Reset(describe(&error)))?;
        tokio::spawn(async move {
            // How it ended is told to whoever waits for the response.
            let _ = connection.with_upgrades().await;
        });
        self.fit_for_http1(&mut request);
        sending.begins_on(&ends);
        match receive(&mut sender, request, sending.timeouts, &sending.progress).await {
            Ok(response) => Ok((response, Some(self.lease(sender, ends)))),
            Err(failed) => Err(failed.error),
        }
    }

    async fn over_shared(
        &self,
        Shared { mut sender, ends }: Shared<B>,
        mut request: Request<B>,
        sending: &mut Sending<'_, impl Fn() -> u64, impl Fn(SocketAddr, SocketAddr)>,
        again: bool,
    ) -> Result<Tried<B>, SendError> {
        self.fit_for_http2(&mut request);
        sending.begins_on(&ends);
        let limit = sending.timeouts.response_header;
        let response = sender.try_send_request(request);
        match while_it_moves(limit, &sending.progress, response).await {
            Some(Ok(response)) => Ok(Tried::Answered((response, None))),
            Some(Err(mut failed)) => match failed.take_message() {
                // The connection ended as we came to it, and nothing was sent (RFC 9113 section 8.7). Once only:
                // a service that closes each connection at once should not keep us busy.
                Some(unsent) if again => Ok(Tried::Again(unsent)),
                _ => Err(classify(failed.error())),
            },
            None => {
                self.forget(&ends);
                Err(SendError::HeaderTimeout(limit))
            }
        }
    }

    /// Uses the shared connection between `ends` no more: a request on it was not answered in time, and it may be that
    /// nobody is there any longer. What else is under way on it goes on.
    fn forget(&self, ends: &Ends) {
        lock(&self.shared).take_if(|held| held.shared.ends.local == ends.local);
    }

    fn fit_for_http1(&self, request: &mut Request<B>) {
        let received = request.version();
        target::to_origin_form(request, || self.upstream.to_string());
        headers::fit_for_http1(request.headers_mut(), received);
        *request.version_mut() = Version::HTTP_11;
    }

    fn fit_for_http2(&self, request: &mut Request<B>) {
        // Either concerns HTTP/1 only (RFC 9113 section 8.2.2): an upgrade that cannot be had, or an attempt that was
        // to go over a kept HTTP/1 connection.
        request.headers_mut().remove(CONNECTION);
        request.headers_mut().remove(UPGRADE);
        let scheme = match self.upstream.protocol {
            UpstreamProtocol::Https => Scheme::HTTPS,
            UpstreamProtocol::Http1 | UpstreamProtocol::H2c => Scheme::HTTP,
        };
        target::to_http2_form(request, scheme, &self.upstream.to_string());
    }

    fn open_shared(&self) -> Option<Shared<B>> {
        let mut held = lock(&self.shared);
        let held = held.as_mut().filter(|held| !held.shared.sender.is_closed())?;
        held.used = Instant::now();
        Some(held.shared.clone())
    }

    /// Opens a connection: for this request, or, where it is HTTP/2 (which only `http2` allows), for all. Then whoever
    /// came first opens it, and the others wait.
    async fn open(
        self: &Arc<Self>,
        http2: bool,
        timeouts: &Timeouts,
        phases: &mut Phases,
    ) -> Result<Opened<B>, SendError> {
        let mut _opening = None;
        if http2 && !self.chose_http1.load(Ordering::Relaxed) {
            // Each waits for the others no longer than it would for its own connection.
            let Ok(opening) = timeout(timeouts.connect, self.opening.lock()).await else {
                return Err(SendError::ConnectTimeout(timeouts.connect));
            };
            if let Some(shared) = self.open_shared() {
                return Ok(Opened::Http2(shared));
            }
            // Where it became known meanwhile that there will be no shared connection, nobody waits any longer.
            _opening = Some(opening).filter(|_| !self.chose_http1.load(Ordering::Relaxed));
        }
        let (stream, http2) = self.connect(http2, timeouts, phases).await?;
        let ends = stream.local_addr().and_then(|local| Ok(Ends { local, peer: stream.peer_addr()? }));
        // A socket without addresses is one that is reset already.
        let ends = Arc::new(ends.map_err(|error| SendError::Reset(error.to_string()))?);
        if !http2 {
            return Ok(Opened::Http1(stream, ends));
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(HTTP2_HEADER_BYTES)
            .handshake(TokioIo::new(UpstreamIo::new(stream, self.acks.clone())))
            .await
            .map_err(|error| SendError::Reset(describe(&error)))?;
        tokio::spawn(connection);
        let shared = Shared { sender, ends };
        *lock(&self.shared) = Some(Held { shared: shared.clone(), used: Instant::now() });
        self.look_after(&mut lock(&self.idle));
        Ok(Opened::Http2(shared))
    }

    /// A new connection, and whether it is one for HTTP/2.
    async fn connect(
        &self,
        http2: bool,
        timeouts: &Timeouts,
        phases: &mut Phases,
    ) -> Result<(Stream, bool), SendError> {
        let Self { upstream, connector, .. } = self;
        if upstream.protocol != UpstreamProtocol::Https {
            let stream = connector.open(upstream, timeouts, phases).await?;
            self.stats.upstream_connects.increment();
            return Ok((stream, http2));
        }
        let offer = if http2 { Offer::Either } else { Offer::Http1 };
        let stream = connector.open_tls(upstream, offer, timeouts, phases).await?;
        self.stats.upstream_connects.increment();
        let chosen = stream.alpn() == Some(b"h2");
        if http2 {
            self.chose_http1.store(!chosen, Ordering::Relaxed);
        }
        Ok((stream, chosen))
    }

    fn lease(self: &Arc<Self>, sender: http1::SendRequest<B>, ends: Arc<Ends>) -> Lease<B> {
        Lease { pool: self.clone(), sender, ends, answered: Instant::now() }
    }

    /// A kept connection that can be used at once. One that may be stale is only for repeatable requests.
    fn rested(&self, repeatable: bool) -> Option<Rested<B>> {
        let mut idle = lock(&self.idle);
        for index in (0..idle.connections.len()).rev() {
            let Rested { sender, since, .. } = &idle.connections[index];
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

    /// Keeps connections without use for that long from now on, those that rest already among them.
    pub fn keep_for(&self, keep: Duration) {
        lock(&self.idle).keep = keep;
    }

    fn keep(self: &Arc<Self>, rested: Rested<B>) {
        let mut idle = lock(&self.idle);
        idle.connections.push_back(rested);
        self.look_after(&mut idle);
    }

    /// Sees to it that what rests is closed in time. A pool that nobody has any more takes its connections along.
    fn look_after(self: &Arc<Self>, idle: &mut Idle<B>) {
        if !std::mem::replace(&mut idle.reaped, true) {
            tokio::spawn(reap(Arc::downgrade(self), STALE_AFTER.min(idle.keep)));
        }
    }

    /// Whether any connection waits for a request.
    pub fn keeps_any(&self) -> bool {
        !lock(&self.idle).connections.is_empty() || lock(&self.shared).is_some()
    }

    /// Closes what has been idle for too long. If anything is left, says when to look again.
    fn close_rested(&self) -> Option<Duration> {
        let mut idle = lock(&self.idle);
        let keep = idle.keep;
        while let Some(oldest) = idle.connections.front() {
            let rested = oldest.since.elapsed();
            let surplus = idle.connections.len() > KEEP_IDLE && rested > STALE_AFTER;
            if rested < keep && !surplus && !oldest.sender.is_closed() {
                break;
            }
            idle.connections.pop_front();
        }
        let mut held = lock(&self.shared);
        // One that is given up stays open for the responses that are still arriving on it, and for no new request.
        if held.as_ref().is_some_and(|held| held.used.elapsed() >= keep || held.shared.sender.is_closed()) {
            *held = None;
        }
        idle.reaped = !idle.connections.is_empty() || held.is_some();
        idle.reaped.then(|| STALE_AFTER.min(keep))
    }
}

impl<B> Lease<B>
where
    B: Body<Data = Bytes> + Default + Send + Unpin + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    /// The response has been read to its end: the connection may serve the next request.
    pub fn give_back(self) {
        let Lease { pool, sender, ends, answered } = self;
        let now = Instant::now();
        pool.acks.answered(now - answered);
        if !sender.is_closed() {
            pool.keep(Rested { sender, ends, since: now });
        }
    }
}

/// Closes what has been idle for too long, for as long as there is anything.
async fn reap<B>(pool: Weak<Pool<B>>, mut pause: Duration)
where
    B: Body<Data = Bytes> + Default + Send + Unpin + 'static,
    B::Error: Into<Box<dyn StdError + Send + Sync>>,
{
    loop {
        sleep(pause).await;
        match pool.upgrade().and_then(|pool| pool.close_rested()) {
            Some(next) => pause = next,
            None => return,
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
