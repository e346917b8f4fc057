//! Serves one HTTP/2 connection from a caller: streams in tasks of their own, and an end to it in any case.

use std::convert::Infallible;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use http::Request;
use http_body::Body;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, sleep};
use tracing::debug;

use super::Drain;
use super::client_io::ClientIo;
use super::server::{Bounds, Handler, TICK};
use crate::stats::Stats;
use crate::wire::Received;
use crate::wire::body::describe;

/// Header bytes that an HTTP/2 request may have; about what HTTP/1 takes.
const HTTP2_HEADER_BYTES: u32 = 64 * 1024;

/// Requests that one HTTP/2 connection may have open.
const HTTP2_STREAMS: u32 = 256;

/// How long an HTTP/2 connection that was told to end, and has no request left, may take to do so.
const FAREWELL: Duration = Duration::from_secs(3);

/// Serves an HTTP/2 connection until it ends.
pub(super) async fn serve<H: Handler>(
    io: ClientIo,
    handler: Arc<H>,
    bounds: Bounds,
    drain: Drain,
    stats: Arc<Stats>,
) {
    let connection = io.connection.clone();
    let service = {
        let connection = connection.clone();
        service_fn(move |request: Request<Received>| {
            let caller = connection.request_begun(request.version(), request.body().is_end_stream());
            let answer = handler.handle(request, caller);
            async move { Ok::<_, Infallible>(answer.await) }
        })
    };
    let http = hyper::server::conn::http2::Builder::new(StreamTasks(stats.clone()))
        .timer(TokioTimer::new())
        .max_header_list_size(HTTP2_HEADER_BYTES)
        .max_concurrent_streams(HTTP2_STREAMS)
        .auto_date_header(false)
        .serve_connection(TokioIo::new(io), service);
    let mut http = std::pin::pin!(http);
    let mut idle_since = Instant::now();
    let mut requests = 0;
    let mut told_to_end: Option<Instant> = None;
    loop {
        tokio::select! {
            result = http.as_mut() => {
                if let Err(error) = result {
                    debug!(peer = %connection.peer, error = describe(&error), "connection ended");
                }
                return;
            }
            () = drain.wait(), if told_to_end.is_none() => {
                told_to_end = Some(Instant::now());
                http.as_mut().graceful_shutdown();
            }
            () = sleep(TICK) => {
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
    }
}

/// Runs each HTTP/2 stream in a task of its own; one that panics ends only itself, and is counted.
#[derive(Clone)]
struct StreamTasks(Arc<Stats>);

impl<F> hyper::rt::Executor<F> for StreamTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        let counted = CountPanic(self.0.clone());
        tokio::spawn(async move {
            let _counted = counted;
            stream.await;
        });
    }
}

struct CountPanic(Arc<Stats>);

impl Drop for CountPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panics.increment();
        }
    }
}
