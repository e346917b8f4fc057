//! Serves one HTTP/2 connection from a caller: streams in tasks of their own, and an end to it in any case.
//!
//! The codec is hyper's. What it does not see, or does not say, is seen from outside of it: `frames` finds the frames that
//! pass, `conduct` judges what the caller makes of them, `metered` is the socket between, and `pace` knows which streams
//! their caller does not take.
//!
//! Memory of one connection is bounded: what it may send ahead by [`WINDOW`] (for all of its streams together), what waits
//! for it by [`SEND_BUFFER`] for each stream, and its streams by `limits.http2_streams`. That is 17 MiB at worst, with 256
//! streams that nobody reads, and some 30 KiB for one that is idle.

mod conduct;
mod frames;
mod metered;
mod pace;

use std::convert::Infallible;
use std::future::Future;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use pin_project_lite::pin_project;
use tokio::time::Instant;
use tracing::debug;

use self::conduct::{Conduct, Offence, Stillborn};
use self::frames::ENHANCE_YOUR_CALM;
use self::metered::{Metered, Shared};
use self::pace::{Pace, Paced, StreamTasks, Streams};
use super::caller::Connection;
use super::server::{self, Handler, TICK, Unreadable};
use super::stream::{Rewound, Stream};
use super::{Drain, websocket};
use crate::exchange::Outcome;
use crate::stats::Stats;
use crate::wire::Received;
use crate::wire::body::describe;

/// How long an HTTP/2 connection that was told to end, and has no request left, may take to do so.
const FAREWELL: Duration = Duration::from_secs(3);

/// Content that a caller may send ahead of what the service takes: on one stream, and on all together. 1 MiB fills a line
/// of 80 Mbit/s with a round trip of 100 ms.
const WINDOW: u32 = 1024 * 1024;

/// Content that waits in the codec for the caller to take it, of each stream. Anything more waits in the service.
const SEND_BUFFER: usize = 64 * 1024;

/// How often a caller is asked whether it is still there, and how long it may take to say so. TCP finds out only about
/// hosts, and behind a balancer not even about those.
const PING_EVERY: Duration = Duration::from_secs(60);
const PING_ANSWER: Duration = Duration::from_secs(20);

/// Streams that are reset before the codec has looked at them, where the settings have no bound.
const RESET_UNSEEN: usize = 10_000;

/// What an HTTP/2 connection is held to beside what any is.
#[derive(Clone, Copy, Debug)]
pub struct Bounds {
    /// Requests under way.
    pub streams: u32,
    /// Requests that are cancelled before they are answered, in 30 seconds; `None` is no bound.
    pub resets: Option<NonZeroUsize>,
}

/// Serves an HTTP/2 connection until it ends.
pub(super) async fn serve<H: Handler>(
    stream: Stream,
    early: Bytes,
    connection: Arc<Connection>,
    handler: Arc<H>,
    bounds: server::Bounds,
    drain: Drain,
    stats: Arc<Stats>,
) {
    let shared = Shared::new(Conduct::new(bounds.http2.streams, bounds.http2.resets));
    let streams = Streams::new(connection.clone(), stats.clone());
    let service = {
        let (connection, streams) = (connection.clone(), streams.clone());
        let (handler, shared, counted) = (handler.clone(), shared.clone(), stats.clone());
        service_fn(move |request: Request<Incoming>| {
            let caller = connection.request_begun(request.version());
            let pace = streams.begin();
            let request = websocket::in_known_form(request, &counted);
            let answer = handler.handle(request.map(Received::from), caller);
            Answer { answer, shared: shared.clone(), pace: Some(pace) }
        })
    };
    let mut http = hyper::server::conn::http2::Builder::new(StreamTasks(streams.clone()));
    http.timer(TokioTimer::new())
        .max_header_list_size(bounds.head_bytes.try_into().unwrap_or(u32::MAX))
        .max_concurrent_streams(bounds.http2.streams)
        // Conduct counts them, and knows better.
        .max_pending_accept_reset_streams(bounds.http2.resets.map_or(RESET_UNSEEN, NonZeroUsize::get))
        .initial_connection_window_size(WINDOW)
        .initial_stream_window_size(WINDOW)
        .max_send_buf_size(SEND_BUFFER)
        .keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PING_ANSWER)
        .auto_date_header(false)
        .enable_connect_protocol();
    let http = http
        .serve_connection(TokioIo::new(Metered::new(Rewound::new(early, stream), shared.clone())), service);
    let mut http = std::pin::pin!(http);
    let mut idle_since = Instant::now();
    let mut requests = 0;
    let mut told_to_end: Option<Instant> = None;
    let mut next_look = Instant::now() + TICK;
    let end = loop {
        tokio::select! {
            result = http.as_mut() => break result.err(),
            () = drain.wait(), if told_to_end.is_none() => {
                told_to_end = Some(Instant::now());
                http.as_mut().graceful_shutdown();
            }
            () = shared.news.notified() => tell_of_stillborn(&*handler, &connection, &shared, &stats),
            () = tokio::time::sleep_until(next_look) => {
                next_look = Instant::now() + TICK;
                streams.look(bounds.response_send);
                if shared.conduct().head_incomplete_for().is_some_and(|time| time >= bounds.request_header) {
                    stats.closed_request_header.increment();
                    let detail = "the request head was not completed in time".to_owned();
                    let problem = Unreadable { outcome: Outcome::RequestTimeout, status: None, detail };
                    return handler.unreadable(connection.peer, problem);
                }
                if connection.in_flight() > 0 || connection.requests() != requests {
                    requests = connection.requests();
                    idle_since = Instant::now();
                } else if let Some(told) = told_to_end {
                    // A caller that left without a word never acknowledges the GOAWAY.
                    if told.max(idle_since).elapsed() >= FAREWELL {
                        return;
                    }
                } else if idle_since.elapsed() >= bounds.idle {
                    stats.closed_idle.increment();
                    told_to_end = Some(Instant::now());
                    http.as_mut().graceful_shutdown();
                }
            }
        }
    };
    tell_of_stillborn(&*handler, &connection, &shared, &stats);
    if let Some(detail) = blame(&shared, end.as_ref(), &stats) {
        let problem = Unreadable { outcome: Outcome::MalformedRequest, status: None, detail };
        handler.unreadable(connection.peer, problem);
    }
    if let Some(error) = end {
        debug!(peer = %connection.peer, error = describe(&error), "connection ended");
    }
}

pin_project! {
    /// An answer in the making. Not an `async` block, since that would hold the answer twice, and each task is copied.
    struct Answer<F> {
        #[pin]
        answer: F,
        shared: Arc<Shared>,
        pace: Option<Arc<Pace>>,
    }
}

impl<F: Future<Output = Response<B>>, B> Future for Answer<F> {
    type Output = Result<Response<Paced<B>>, Infallible>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let this = self.project();
        let answer = ready!(this.answer.poll(cx));
        this.shared.conduct().answers();
        let pace = this.pace.take().unwrap_or_default();
        Poll::Ready(Ok(answer.map(|body| pace.of(body))))
    }
}

/// Counts and records requests that the codec has refused by itself.
fn tell_of_stillborn<H: Handler>(handler: &H, connection: &Connection, shared: &Shared, stats: &Stats) {
    let stillborn = std::mem::take(&mut shared.conduct().stillborn);
    for one in stillborn {
        let (count, outcome, status, detail) = match one {
            Stillborn::Malformed => {
                (&stats.http2_malformed, Outcome::MalformedRequest, None, "HTTP/2: a malformed request")
            }
            Stillborn::TooLarge => (
                &stats.http2_too_large,
                Outcome::Rejected,
                Some(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE),
                "HTTP/2: the header section is too large",
            ),
        };
        count.increment();
        handler.unreadable(connection.peer, Unreadable { outcome, status, detail: detail.to_owned() });
    }
}

/// What the caller did, where that is why its connection ended; counted by reason.
fn blame(shared: &Shared, end: Option<&hyper::Error>, stats: &Stats) -> Option<String> {
    let conduct = shared.conduct();
    if let Some(offence) = conduct.offence {
        match offence {
            Offence::Resets => stats.http2_ended_resets.increment(),
            Offence::IdleTalk => stats.http2_ended_idle_talk.increment(),
        }
        return Some(format!("HTTP/2: {}", offence.why()));
    }
    if end.is_some_and(hyper::Error::is_timeout) {
        stats.http2_ended_unresponsive.increment();
        return None;
    }
    match conduct.gone_away? {
        ENHANCE_YOUR_CALM => stats.http2_ended_excess.increment(),
        _ => stats.http2_ended_protocol.increment(),
    }
    Some(end.map_or_else(|| "HTTP/2: protocol error".to_owned(), |error| describe(error)))
}
