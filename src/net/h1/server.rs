//! Answers a caller over HTTP/1.
//!
//! One future reads a head, has it answered, writes the answer, and begins again. A connection with nothing to do is parked
//! as a bare socket: most connections of a sidecar are idle most of the time. A new one is parked as soon as it is idle;
//! one that turned out to be busy, only when it has been quiet for a while: that costs a request nothing.

use std::future::{Future, poll_fn};
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::Response;
use tokio::io::AsyncWriteExt;
use tokio::time::{Instant, timeout};
use tracing::debug;

use super::asked::{Asked, write_head};
use super::bell::{Bell, Stall};
use super::coding::Coding;
use super::encoder::{Encoder, Stuck};
use super::io::Io;
use super::shared::{RequestContent, Shared, SharedMutex, lock, take};
use crate::exchange::Outcome;
use crate::net::Drain;
use crate::net::caller::Connection;
use crate::net::server::{Bounds, Handler, LINGER, TICK, Unreadable, linger};
use crate::net::stream::Stream;
use crate::net::tunnel::{Next, Surroundings};
use crate::stats::Stats;
use crate::wire::h1::head::{self, RequestHead};
use crate::wire::h1::{Framing, Limits};
use crate::wire::{Laid, Received};

/// What a caller may send ahead of the answer that it waits for. Beyond that it is not listened to until it has it.
const MOST_AHEAD: usize = 64 * 1024;

/// How a stretch of activity on a connection ended.
#[expect(clippy::large_enum_variant, reason = "it is looked at once, and not kept")]
enum Rest {
    /// Idle: a bare socket until the next byte comes.
    Parked(Stream),
    /// A 101 was sent, or a 2xx to a `CONNECT`.
    Upgraded(Stream, Bytes, Next),
    /// Over. If `more` may come of what the last answer was not waiting for, it is read and thrown away.
    Closed { stream: Stream, more: bool },
    /// Over, without another word.
    Gone,
}

/// What serving HTTP/1 connections takes.
pub(in crate::net) struct Http1<H> {
    pub(in crate::net) handler: Arc<H>,
    pub(in crate::net) connection: Arc<Connection>,
    pub(in crate::net) drain: Drain,
    pub(in crate::net) stats: Arc<Stats>,
}

impl<H: Handler> Http1<H> {
    /// Serves a connection until it is over. `early` was read from it already.
    pub(in crate::net) async fn serve(self, mut stream: Stream, mut early: Bytes) {
        let mut busy = false;
        loop {
            // Boxed, so that a parked connection is small.
            match Box::pin(self.active(stream, std::mem::take(&mut early), busy)).await {
                Rest::Parked(mut parked) => {
                    let since = Instant::now();
                    tokio::select! {
                        // A request that is here already is served, even if the drain begins in the same moment.
                        biased;
                        ready = timeout(self.handler.bounds().idle, parked.readable()) => match ready {
                            Ok(Ok(())) => {}
                            Ok(Err(_)) => return,
                            Err(_) => {
                                self.stats.closed_idle.increment();
                                return farewell(parked).await;
                            }
                        },
                        () = self.drain.wait() => return farewell(parked).await,
                    }
                    busy = since.elapsed() < TICK;
                    stream = parked;
                }
                Rest::Upgraded(stream, early, Next::Tunnel(tunnel)) => {
                    return Box::pin(tunnel.run(stream, early)).await;
                }
                Rest::Upgraded(stream, early, Next::Serve(go_on)) => {
                    let Self { drain, stats, .. } = self;
                    return go_on(stream, early, Surroundings { drain, stats }).await;
                }
                Rest::Closed { stream, more } => {
                    let Self { connection, drain, .. } = self;
                    // Before the wait, so that what has not left by now is recorded.
                    drop(connection);
                    return Box::pin(close(stream, more, drain)).await;
                }
                Rest::Gone => return,
            }
        }
    }

    /// Serves the connection until it is over or has nothing to do.
    async fn active(&self, stream: Stream, early: Bytes, busy: bool) -> Rest {
        let bounds = self.handler.bounds();
        let Bounds { head_bytes, header_lines, target_bytes, .. } = bounds;
        let limits = Limits { head_bytes, lines: header_lines, target_bytes };
        let io = Some(Io::new(stream, early, None));
        let shared = Shared { io, content: Coding::Done, limits, given_up: false, owner: None, reader: None };
        let shared = Arc::new(Mutex::new(shared));
        let mut bell = pin!(Bell::new(self.drain.wait()));
        let mut served = false;
        let rest = loop {
            let parks_at_once = served && !busy;
            match self.next_head(&shared, &bounds, bell.as_mut(), parks_at_once).await {
                Head::Request(head) => match self.answer(&shared, &bounds, bell.as_mut(), head).await {
                    After::Next => served = true,
                    After::Rest(rest) => break rest,
                },
                Head::Idle => {
                    let io = take(&shared);
                    break io.map_or(Rest::Gone, |io| Rest::Parked(io.stream));
                }
                Head::Ended => {
                    let io = take(&shared);
                    break io.map_or(Rest::Gone, |io| Rest::Closed { stream: io.stream, more: false });
                }
                Head::Failed => break Rest::Gone,
                Head::Unreadable(problem) => {
                    break self.refuse(&shared, &bounds, bell.as_mut(), problem).await;
                }
            }
        };
        // Content that somebody still holds must not keep the socket open.
        drop(take(&shared));
        rest
    }

    /// Waits for a request head.
    async fn next_head(
        &self,
        shared: &SharedMutex,
        bounds: &Bounds,
        mut bell: Pin<&mut Bell<impl Future<Output = ()>>>,
        parks_at_once: bool,
    ) -> Head {
        let mut scanned = 0;
        let mut ticks = 0;
        poll_fn(|cx| {
            let mut shared = lock(shared);
            let Shared { io: Some(io), limits, .. } = &mut *shared else {
                return Poll::Ready(Head::Failed);
            };
            loop {
                if !io.read.is_empty() {
                    match head::request(&mut io.read, &mut scanned, limits) {
                        Ok(Some(head)) => return Poll::Ready(Head::Request(head)),
                        Ok(None) => {}
                        Err(refused) => return Poll::Ready(Head::Unreadable(refused.into())),
                    }
                }
                match io.poll_fill(cx) {
                    Poll::Ready(Ok(0)) if head::is_blank(&io.read) => return Poll::Ready(Head::Ended),
                    Poll::Ready(Ok(0)) => return Poll::Ready(Head::Unreadable(Unreadable::cut_short())),
                    Poll::Ready(Ok(_)) => {}
                    Poll::Ready(Err(error)) => {
                        debug!(peer = %self.connection.peer, %error, "connection ended");
                        return Poll::Ready(Head::Failed);
                    }
                    Poll::Pending => break,
                }
            }
            if head::is_blank(&io.read) {
                // An empty line behind content, as some clients send it, is no beginning of a request.
                io.read.clear();
                scanned = 0;
            }
            ticks += u32::from(bell.as_mut().poll(cx));
            if !io.read.is_empty() {
                // Kept to within a tick.
                if ticks > 0 && TICK * (ticks - 1) >= bounds.request_header {
                    self.stats.closed_request_header.increment();
                    return Poll::Ready(Head::Unreadable(Unreadable::too_slow()));
                }
            } else if self.drain.begun() {
                return Poll::Ready(Head::Ended);
            } else if parks_at_once || ticks > 0 {
                io.message_read();
                return Poll::Ready(Head::Idle);
            }
            Poll::Pending
        })
        .await
    }

    /// Has a request answered.
    async fn answer(
        &self,
        shared: &SharedMutex,
        bounds: &Bounds,
        mut bell: Pin<&mut Bell<impl Future<Output = ()>>>,
        head: RequestHead,
    ) -> After {
        let RequestHead { request, layout, framing, keep_alive } = head;
        let asked = Asked::of(&request, keep_alive);
        let content = match framing {
            Framing::None => Received::empty(layout),
            framing => {
                let mut locked = lock(shared);
                locked.content = framing.into();
                locked.given_up = false;
                let content = RequestContent { shared: shared.clone(), over: false };
                Received::http1(Box::new(content), layout)
            }
        };
        let caller = self.connection.request_begun(request.version());
        let mut handling = pin!(self.handler.handle(request.map(|()| content), caller));
        let response = poll_fn(|cx| {
            if let Poll::Ready(response) = handling.as_mut().poll(cx) {
                return Poll::Ready(Some(response));
            }
            let mut shared = lock(shared);
            self.pass_interim(&mut shared, cx);
            bell.as_mut().poll(cx);
            if self.has_left(&mut shared, cx) {
                return Poll::Ready(None);
            }
            Poll::Pending
        })
        .await;
        match response {
            Some(response) => self.write(shared, bounds, bell, response, asked).await,
            None => After::Rest(Rest::Gone),
        }
    }

    /// Writes informational responses that wait.
    fn pass_interim(&self, shared: &mut Shared, cx: &mut Context<'_>) {
        let Some(io) = &mut shared.io else { return };
        if self.connection.take_interim(io.text()) || !io.is_flushed() {
            // Should that fail, so will what is written next.
            let _ = io.poll_flush(cx);
        }
    }

    /// Whether the caller is known to wait no longer. Its sending side may well be closed: it has said all that it had to say
    /// (RFC 9112 section 9.6). A reset means that nobody listens.
    fn has_left(&self, shared: &mut Shared, cx: &mut Context<'_>) -> bool {
        if !shared.content.is_done() {
            // Whoever reads the content will find out.
            return false;
        }
        let Some(io) = &mut shared.io else { return true };
        while !io.ended && io.read.len() < MOST_AHEAD {
            match io.poll_fill(cx) {
                Poll::Ready(Ok(_)) => {}
                Poll::Ready(Err(_)) => return true,
                Poll::Pending => return false,
            }
        }
        io.ended && self.connection.cancel_on_half_close
    }

    /// Writes an answer, and says how it goes on.
    async fn write(
        &self,
        shared: &SharedMutex,
        bounds: &Bounds,
        mut bell: Pin<&mut Bell<impl Future<Output = ()>>>,
        response: Response<H::Body>,
        asked: Asked,
    ) -> After {
        let switching = asked.switches(response.status());
        let closing = match self.write_all(shared, bounds, bell.as_mut(), response, &asked).await {
            Ok(closing) => closing,
            Err(Stopped { reset }) => {
                if let Some(io) = take(shared).filter(|_| reset) {
                    // If the socket does not take that, nothing else can be done.
                    let _ = io.stream.set_zero_linger();
                }
                return After::Rest(Rest::Gone);
            }
        };
        // The last byte has left.
        self.connection.settled();
        if switching && let Some(next) = self.connection.take_next() {
            let io = take(shared);
            return After::Rest(io.map_or(Rest::Gone, |io| {
                let (stream, early) = io.into_parts();
                Rest::Upgraded(stream, early, next)
            }));
        }
        self.finish(shared, bounds, bell, closing, asked).await
    }

    /// Writes all of an answer. Then it is over, and whoever watches it knows; says whether the caller was told that the
    /// connection is, too.
    async fn write_all(
        &self,
        shared: &SharedMutex,
        bounds: &Bounds,
        mut bell: Pin<&mut Bell<impl Future<Output = ()>>>,
        response: Response<H::Body>,
        asked: &Asked,
    ) -> Result<bool, Stopped> {
        let (mut parts, body) = response.into_parts();
        let mut body = pin!(body);
        let status = parts.status;
        let switching = asked.switches(status);
        let framing = asked.framing(&mut parts, &*body, switching);
        let closing = {
            let mut shared = lock(shared);
            let unread = !shared.content.is_done();
            // Whoever waits for a 100 may send its content all the same, or not: nobody could tell it from a request.
            let ambiguous = unread && (asked.expects || shared.given_up && !shared.skip_content());
            let close = !switching && (asked.ends_with(framing, status) || self.drain.begun() || ambiguous);
            let Some(io) = &mut shared.io else { return Err(Stopped { reset: false }) };
            self.connection.take_interim(io.text());
            write_head(io.text(), &parts, body.layout(), framing, close);
            close
        };
        drop(parts);
        self.connection.response_begun();
        let mut encoder = Encoder::new(framing);
        let mut stall = Stall::default();
        poll_fn(|cx| {
            let mut shared = lock(shared);
            let Some(io) = &mut shared.io else { return Poll::Ready(Err(Stopped { reset: false })) };
            let before = io.written();
            let result = encoder.poll(io, body.as_mut(), cx);
            if io.written() != before {
                self.connection.written();
            }
            match result {
                Poll::Ready(Ok(())) => return Poll::Ready(Ok(closing)),
                Poll::Ready(Err(Stuck::Connection(_))) => return Poll::Ready(Err(Stopped { reset: false })),
                // Closing would make content look whole that ends with its connection (FRM-4).
                Poll::Ready(Err(Stuck::Content)) => {
                    return Poll::Ready(Err(Stopped { reset: framing == Framing::UntilClose }));
                }
                Poll::Pending => {}
            }
            let (idle, written) = (io.is_flushed(), io.written());
            if bell.as_mut().poll(cx) && !idle && stall.lasts(written, bounds.response_send) {
                self.stats.closed_response_send.increment();
                self.connection.ends_as(Some(Outcome::ClientNotReading));
                return Poll::Ready(Err(Stopped { reset: true }));
            }
            if idle && self.has_left(&mut shared, cx) {
                return Poll::Ready(Err(Stopped { reset: false }));
            }
            Poll::Pending
        })
        .await
    }

    /// Waits until whatever is left of the request's content has been read, and says how it goes on.
    async fn finish(
        &self,
        shared: &SharedMutex,
        bounds: &Bounds,
        mut bell: Pin<&mut Bell<impl Future<Output = ()>>>,
        closing: bool,
        asked: Asked,
    ) -> After {
        let mut stall = Stall::default();
        let whole = poll_fn(|cx| {
            let mut shared = lock(shared);
            if shared.content.is_done() {
                return Poll::Ready(true);
            }
            if shared.given_up || matches!(shared.content, Coding::Broken) {
                return Poll::Ready(shared.skip_content());
            }
            let taken = shared.io.as_ref().map_or(0, Io::taken);
            if bell.as_mut().poll(cx) && stall.lasts(taken, bounds.request_body) {
                self.stats.closed_request_body.increment();
                return Poll::Ready(false);
            }
            shared.owner = Some(cx.waker().clone());
            Poll::Pending
        })
        .await;
        if whole && !closing {
            return After::Next;
        }
        let io = take(shared);
        // Whoever does not wait for answers may have sent still more.
        let ahead = io.as_ref().is_some_and(|io| !io.read.is_empty());
        let more = !whole || asked.more_may_come || ahead;
        After::Rest(io.map_or(Rest::Gone, |io| Rest::Closed { stream: io.stream, more }))
    }

    /// Answers what no request can be read from, and closes.
    async fn refuse(
        &self,
        shared: &SharedMutex,
        bounds: &Bounds,
        bell: Pin<&mut Bell<impl Future<Output = ()>>>,
        mut problem: Unreadable,
    ) -> Rest {
        let response = self.handler.refusal(&problem);
        let after = self.write(shared, bounds, bell, response, Asked::nothing()).await;
        let rest = match after {
            After::Rest(rest) => rest,
            After::Next => Rest::Gone,
        };
        // What did not leave was not sent (SEM-25).
        problem.status = problem.status.filter(|_| matches!(rest, Rest::Closed { .. }));
        self.handler.unreadable(self.connection.peer, problem);
        rest
    }
}

/// What comes of waiting for a request head.
#[expect(clippy::large_enum_variant, reason = "nearly all are requests, and none is kept")]
enum Head {
    Request(RequestHead),
    /// Nothing is going on.
    Idle,
    /// The caller has nothing more to ask, or is not to.
    Ended,
    /// The connection broke.
    Failed,
    /// What came is no request.
    Unreadable(Unreadable),
}

/// What comes after an answer.
#[expect(clippy::large_enum_variant, reason = "it is looked at once, and not kept")]
enum After {
    /// The next request.
    Next,
    Rest(Rest),
}

/// An answer did not get to its end.
struct Stopped {
    /// The caller is to be told by a reset: an end would say that it was all, or cannot be heard.
    reset: bool,
}

/// Says that nothing more will come, and hears out what may be on its way.
async fn close(mut stream: Stream, more: bool, drain: Drain) {
    if matches!(timeout(LINGER, stream.shutdown()).await, Ok(Ok(()))) && more {
        linger(stream, drain).await;
    }
}

/// Ends a connection on which nothing is going on.
async fn farewell(mut stream: Stream) {
    // TLS has a word for it.
    let _ = timeout(TICK, stream.shutdown()).await;
}
