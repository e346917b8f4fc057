//! Connections to the service: opened when needed, kept for the next request, timed phase by phase.
//!
//! A pool belongs to one worker and one service. HTTP/1 connections are used one request at a time, the most
//! recently used first; HTTP/2 ones are shared. Which of the two it is may be the service's choice, made when TLS begins.
//! So requests come in the form that they were received in, and get that of the connection right before they are sent.

use std::collections::VecDeque;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, EXPECT, UPGRADE};
use http::uri::Scheme;
use http::{Method, Request, Response, StatusCode, Version};
use http_body::Body;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::acks::Acks;
pub use super::attempt::{Phases, SendError};
use super::attempt::{classify, is_repeatable, while_it_moves};
use super::connector::{Connector, Offer};
use super::h1::client::{Answer, Conn, Ends, Failed, Home, Terms};
use super::reset;
use super::room::{Room, Seat};
use super::side::Side;
use super::stream::Stream;
use crate::config::{Timeouts, Upstream, UpstreamProtocol};
use crate::stats::Stats;
use crate::wire::body::describe;
use crate::wire::h1::{Layout, Limits};
use crate::wire::{Broken, Laid, Received, headers, target};

mod websocket;

/// A kept connection that has rested for longer than this is likely to be closed by the service in the same moment that
/// we use it. So a request that must not be sent twice gets a new one (HOP-15).
const STALE_AFTER: Duration = Duration::from_secs(1);

/// Idle connections beyond this many are closed when they have rested for [`STALE_AFTER`]: a burst should not be paid for
/// long.
const KEEP_IDLE: usize = 32;

/// Header bytes that an HTTP/2 response may have.
const HTTP2_HEADER_BYTES: u32 = 64 * 1024;

/// How much of a response head over HTTP/1 is read. The service is the one that is to be served, so this is only to keep the
/// memory.
const HEAD: Limits = Limits { head_bytes: 256 * 1024, lines: 1000, target_bytes: 0 };

/// Connections to one service.
#[derive(Debug)]
pub struct Pool<B> {
    upstream: Upstream,
    connector: Arc<Connector>,
    stats: Arc<Stats>,
    acks: Arc<Acks>,
    idle: Mutex<Idle>,
    shared: Mutex<Option<Held<B>>>,
    /// Held while the shared connection is opened, so that a burst of requests opens one and not one each.
    opening: tokio::sync::Mutex<()>,
    /// The connections that are open.
    room: Arc<Room>,
    /// A service that had the choice chose HTTP/1.1: its connections need not be opened one after the other.
    chose_http1: AtomicBool,
}

/// The HTTP/2 connection that all requests share.
#[derive(Debug)]
struct Shared<B> {
    sender: http2::SendRequest<B>,
    ends: Ends,
}

impl<B> Clone for Shared<B> {
    fn clone(&self) -> Self {
        Self { sender: self.sender.clone(), ends: self.ends }
    }
}

/// The same as it waits for the next request.
#[derive(Debug)]
struct Held<B> {
    shared: Shared<B>,
    /// When a request was last sent on it.
    used: Instant,
    /// The service has said that it opens no WebSockets on streams.
    refuses_streams: bool,
}

#[derive(Debug)]
struct Idle {
    /// Most recently used last.
    connections: VecDeque<Rested>,
    /// A task looks after the idle time of the connections, the shared one included.
    reaped: bool,
    /// How long a connection is kept without use.
    keep: Duration,
    /// How many connections there may be.
    limit: Option<NonZeroUsize>,
}

#[derive(Debug)]
struct Rested {
    conn: Box<Conn>,
    since: Instant,
}

/// What is told on the way of a request.
pub trait Observer {
    /// How much of its content has been taken so far.
    fn progress(&self) -> u64;

    /// Its head is about to be sent on a connection from `local` to `peer`.
    fn connected(&self, local: SocketAddr, peer: SocketAddr);

    /// An informational response has come (HX-1).
    fn interim(&self, response: Response<()>, layout: Option<&Layout>);
}

/// What is sent along with a request, and noted on its way.
struct Sending<'a, O> {
    timeouts: &'a Timeouts,
    observer: &'a O,
    phases: &'a mut Phases,
    /// An HTTP/1 service wants to be told where there is no content.
    say_empty: bool,
}

impl<O: Observer> Sending<'_, O> {
    /// The head is about to be sent on a connection.
    fn begins_on(&mut self, Ends { local, peer }: Ends) {
        (self.phases.local, self.phases.peer) = (Some(local), Some(peer));
        self.observer.connected(local, peer);
        self.phases.sent = Some(std::time::Instant::now());
    }
}

/// A response head, and what its connection has become where that is no HTTP any more.
pub type Answered = (Response<Received>, Option<Side>);

/// What came of trying a connection.
enum Tried<B> {
    Answered(Answered),
    /// The request may be sent on another.
    Again(Request<B>),
}

/// A new connection.
enum Opened<B> {
    Http1(Stream, Ends, Seat),
    Http2(Shared<B>),
}

impl<B> Pool<B>
where
    B: Body<Data = Bytes, Error = Broken> + Laid + Default + Send + Unpin + 'static,
{
    /// A pool without connections; `connector` opens them, and `keep` is how long one is kept without use.
    pub fn new(
        upstream: Upstream,
        connector: Arc<Connector>,
        keep: Duration,
        stats: Arc<Stats>,
    ) -> Arc<Self> {
        let idle = Mutex::new(Idle { connections: VecDeque::new(), reaped: false, keep, limit: None });
        Arc::new(Self {
            upstream,
            connector,
            stats,
            acks: Arc::default(),
            idle,
            shared: Mutex::new(None),
            opening: tokio::sync::Mutex::default(),
            room: Arc::default(),
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
    /// `Upgrade` and the `Connection` that names it where it asks for that. `observer` is told what happens on the way;
    /// `phases` says how far it all came, also on failure.
    ///
    /// # Errors
    /// Says what went wrong on the way; the request has been tried as often as HTTP allows (HOP-15).
    pub async fn send(
        self: &Arc<Self>,
        mut request: Request<B>,
        timeouts: &Timeouts,
        observer: &impl Observer,
        phases: &mut Phases,
    ) -> Result<Answered, SendError> {
        let upgrade = request.headers().contains_key(UPGRADE);
        let (http1, http2) = match self.upstream.protocol {
            UpstreamProtocol::Http1 => (true, false),
            UpstreamProtocol::H2c => (false, true),
            UpstreamProtocol::Https => (true, !upgrade),
        };
        let say_empty = request.version() == Version::HTTP_2 && needs_length(request.method());
        let mut sending = Sending { timeouts, observer, phases, say_empty };
        let mut again = true;
        let mut until = None;
        if upgrade && self.upstream.protocol == UpstreamProtocol::H2c {
            request = match Box::pin(self.over_stream(request, &mut sending)).await? {
                Tried::Answered(answered) => return Ok(answered),
                Tried::Again(request) => request,
            };
        }
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
                    let Some(seat) = self.seat() else {
                        Box::pin(self.change(sending.timeouts.connect, &mut until)).await?;
                        continue;
                    };
                    // Boxed, so that a request on a kept connection does not carry the room for a handshake.
                    match Box::pin(self.open(http2, seat, sending.timeouts, sending.phases)).await? {
                        Opened::Http1(stream, ends, seat) => {
                            let conn = Conn::new(stream, ends, self.acks.clone(), seat);
                            let answered = self.over_http1(conn, &mut request, &mut sending).await;
                            return answered.map_err(|failed| failed.error);
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
        sending: &mut Sending<'_, impl Observer>,
    ) -> Result<Tried<B>, SendError> {
        let repeatable = is_repeatable(&request);
        while let Some(conn) = self.rested(repeatable) {
            // The service may close a kept connection in the moment that we use it, which is nobody's business.
            match self.over_http1(conn, &mut request, sending).await {
                Ok(answered) => return Ok(Tried::Answered(answered)),
                Err(Failed { unsent: true, .. }) => {}
                Err(Failed { error: SendError::Reset(_), .. }) if repeatable => {
                    self.stats.upstream_retries.increment();
                    sending.phases.resends += 1;
                    return Ok(Tried::Again(request));
                }
                Err(failed) => return Err(failed.error),
            }
        }
        Ok(Tried::Again(request))
    }

    async fn over_http1(
        self: &Arc<Self>,
        conn: Box<Conn>,
        request: &mut Request<B>,
        sending: &mut Sending<'_, impl Observer>,
    ) -> Result<Answered, Failed> {
        let say_empty = sending.say_empty;
        self.fit_for_http1(request);
        sending.begins_on(conn.ends);
        let observer = sending.observer;
        let interim = |response, layout: &Layout| observer.interim(response, Some(layout));
        let sent = conn.send(request, Terms { limits: &HEAD, say_empty }, interim, self);
        let limit = sending.timeouts.response_header;
        match while_it_moves(limit, || observer.progress(), sent).await {
            Some(Ok(Answer { response, upgraded })) => {
                let far = upgraded.map(|(stream, early, seat)| Side::socket(stream, early, Some(seat)));
                Ok((response, far))
            }
            Some(Err(failed)) => Err(failed),
            None => Err(Failed { error: SendError::HeaderTimeout(limit), unsent: false }),
        }
    }

    async fn over_shared(
        &self,
        Shared { mut sender, ends }: Shared<B>,
        mut request: Request<B>,
        sending: &mut Sending<'_, impl Observer>,
        again: bool,
    ) -> Result<Tried<B>, SendError> {
        if request.headers_mut().remove(EXPECT).is_some() {
            // Our codec for HTTP/2 says nothing of informational responses, and nobody should wait for what cannot come.
            let mut go_on = Response::new(());
            *go_on.status_mut() = StatusCode::CONTINUE;
            sending.observer.interim(go_on, None);
        }
        self.fit_for_http2(&mut request);
        sending.begins_on(ends);
        let limit = sending.timeouts.response_header;
        let response = sender.try_send_request(request);
        match while_it_moves(limit, || sending.observer.progress(), response).await {
            Some(Ok(response)) => Ok(Tried::Answered((response.map(Received::from), None))),
            Some(Err(mut failed)) => match failed.take_message() {
                // The connection ended as we came to it, and nothing was sent (RFC 9113 section 8.7). Once only:
                // a service that closes each connection at once should not keep us busy.
                Some(unsent) if again => Ok(Tried::Again(unsent)),
                _ => {
                    sending.phases.reset = reset::code(failed.error());
                    Err(classify(failed.error()))
                }
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
        seat: Seat,
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
        let ends = ends_of(&stream)?;
        if !http2 {
            return Ok(Opened::Http1(stream, ends, seat));
        }
        let (sender, connection) = http2::Builder::new(TokioExecutor::new())
            .max_header_list_size(HTTP2_HEADER_BYTES)
            .handshake(TokioIo::new(stream))
            .await
            .map_err(|error| SendError::Reset(describe(&error)))?;
        tokio::spawn(async move {
            let _ = connection.await;
            drop(seat);
        });
        let shared = Shared { sender, ends };
        self.share(shared.clone(), false);
        Ok(Opened::Http2(shared))
    }

    /// All requests use that connection from now on.
    fn share(self: &Arc<Self>, shared: Shared<B>, refuses_streams: bool) {
        *lock(&self.shared) = Some(Held { shared, used: Instant::now(), refuses_streams });
        self.room.stir();
        self.look_after(&mut lock(&self.idle));
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

    /// A kept connection that can be used at once. One that may be stale is only for repeatable requests.
    fn rested(&self, repeatable: bool) -> Option<Box<Conn>> {
        let mut idle = lock(&self.idle);
        while let Some(latest) = idle.connections.back() {
            if !repeatable && latest.since.elapsed() > STALE_AFTER {
                return None;
            }
            // A service that closes after each answer leaves one behind per request.
            let latest = idle.connections.pop_back().map(|rested| rested.conn);
            if let Some(conn) = latest.and_then(Conn::if_usable) {
                return Some(conn);
            }
        }
        None
    }

    /// Keeps connections without use for that long from now on, those that rest already among them.
    pub fn keep_for(&self, keep: Duration) {
        lock(&self.idle).keep = keep;
    }

    /// Opens no more connections than that from now on.
    pub fn allow(&self, limit: Option<NonZeroUsize>) {
        lock(&self.idle).limit = limit;
        self.room.stir();
    }

    /// Room for one more connection, if there is any.
    fn seat(&self) -> Option<Seat> {
        let mut idle = lock(&self.idle);
        if self.room.is_full(idle.limit) {
            // One that rests and was not good enough gives way.
            idle.connections.pop_front();
        }
        (!self.room.is_full(idle.limit)).then(|| self.room.seat())
    }

    /// Waits until a connection ends, or rests: that may be what was waited for. `until` says when that has lasted for too long.
    async fn change(&self, limit: Duration, until: &mut Option<Instant>) -> Result<(), SendError> {
        let until = *until.get_or_insert_with(|| Instant::now() + limit);
        timeout_at(until, self.room.change()).await.map_err(|_| SendError::Busy(limit))
    }

    /// Sees to it that what rests is closed in time. A pool that nobody has any more takes its connections along.
    fn look_after(self: &Arc<Self>, idle: &mut Idle) {
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
        let mut surplus = idle.connections.len().saturating_sub(KEEP_IDLE);
        idle.connections.retain_mut(|rested| {
            let since = rested.since.elapsed();
            let close = since >= keep || surplus > 0 && since > STALE_AFTER || !rested.conn.is_usable();
            surplus = surplus.saturating_sub(usize::from(close));
            !close
        });
        let mut held = lock(&self.shared);
        // One that is given up stays open for the responses that are still arriving on it, and for no new request.
        if held.as_ref().is_some_and(|held| held.used.elapsed() >= keep || held.shared.sender.is_closed()) {
            *held = None;
        }
        idle.reaped = !idle.connections.is_empty() || held.is_some();
        idle.reaped.then(|| STALE_AFTER.min(keep))
    }
}

impl<B> Home for Pool<B>
where
    B: Body<Data = Bytes, Error = Broken> + Laid + Default + Send + Unpin + 'static,
{
    fn welcome(self: &Arc<Self>, conn: Box<Conn>, took: Duration) {
        self.acks.answered(took);
        let mut idle = lock(&self.idle);
        idle.connections.push_back(Rested { conn, since: Instant::now() });
        self.look_after(&mut idle);
        self.room.stir();
    }
}

/// The addresses of a connection. A socket without is one that is reset already.
fn ends_of(stream: &Stream) -> Result<Ends, SendError> {
    let ends = stream.local_addr().and_then(|local| Ok(Ends { local, peer: stream.peer_addr()? }));
    ends.map_err(|error| SendError::Reset(error.to_string()))
}

/// Whether a request of that kind is expected to have content, so that a server wants to be told that it has none (RFC 9110
/// section 8.6).
fn needs_length(method: &Method) -> bool {
    matches!(*method, Method::POST | Method::PUT | Method::PATCH)
}

/// Closes what has been idle for too long, for as long as there is anything.
async fn reap<B>(pool: Weak<Pool<B>>, mut pause: Duration)
where
    B: Body<Data = Bytes, Error = Broken> + Laid + Default + Send + Unpin + 'static,
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
