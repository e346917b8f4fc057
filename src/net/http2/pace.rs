//! Which streams of an HTTP/2 connection their caller does not take, and an end to those.
//!
//! The codec asks for more content as soon as the caller has room for it. A stream whose content is there, and is not asked
//! for, has a caller that does not read: it holds the service's answer, too.

use std::future::Future;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use pin_project_lite::pin_project;

use super::super::caller::Connection;
use super::super::server::TICK;
use super::super::tasks::of_a_stream;
use crate::exchange::Outcome;
use crate::stats::Stats;

/// The streams of one connection that are open.
#[derive(Debug)]
pub(super) struct Streams {
    connection: Arc<Connection>,
    stats: Arc<Stats>,
    open: Mutex<Open>,
}

#[derive(Debug, Default)]
struct Open {
    paces: Vec<Arc<Pace>>,
    /// Of the request that the codec has just handed over, for the task that it is about to begin.
    latest: Option<Arc<Pace>>,
}

/// How far a stream's content is taken.
#[derive(Debug, Default)]
pub(super) struct Pace {
    /// There is content that the caller has not taken.
    offered: AtomicBool,
    /// How often that was seen in a row.
    looks: AtomicU32,
    cut: AtomicBool,
    task: Mutex<Option<Waker>>,
}

impl Streams {
    pub(super) fn new(connection: Arc<Connection>, stats: Arc<Stats>) -> Arc<Self> {
        Arc::new(Self { connection, stats, open: Mutex::default() })
    }

    /// A request has come.
    pub(super) fn begin(&self) -> Arc<Pace> {
        let pace = Arc::new(Pace::default());
        let mut open = self.open();
        open.paces.push(pace.clone());
        open.latest = Some(pace.clone());
        pace
    }

    /// Looks, once per [`TICK`], whether anybody has taken nothing for so long.
    pub(super) fn look(&self, limit: Duration) {
        for pace in &self.open().paces {
            if !pace.offered.load(Ordering::Relaxed) {
                continue;
            }
            let looks = pace.looks.fetch_add(1, Ordering::Relaxed);
            if TICK * looks >= limit {
                pace.cut.store(true, Ordering::Relaxed);
                if let Some(task) = lock(&pace.task).take() {
                    task.wake();
                }
            }
        }
    }

    fn ended(&self, pace: &Arc<Pace>) {
        let mut open = self.open();
        if let Some(place) = open.paces.iter().position(|other| Arc::ptr_eq(other, pace)) {
            open.paces.swap_remove(place);
        }
    }

    fn open(&self) -> MutexGuard<'_, Open> {
        lock(&self.open)
    }
}

impl Pace {
    /// Watches how `body` is taken, from now on.
    pub(super) fn of<B>(self: Arc<Self>, body: B) -> Paced<B> {
        self.offered.store(true, Ordering::Relaxed);
        Paced { body, pace: self }
    }
}

pin_project! {
    /// Content on its way to the caller.
    pub(super) struct Paced<B> {
        #[pin]
        body: B,
        pace: Arc<Pace>,
    }
}

impl<B: Body<Data = Bytes>> Body for Paced<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.project();
        let polled = this.body.poll_frame(cx);
        this.pace.looks.store(0, Ordering::Relaxed);
        this.pace.offered.store(matches!(polled, Poll::Ready(Some(Ok(_)))), Ordering::Relaxed);
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// Runs each stream in a task of its own; one that panics ends only itself, and is counted.
#[derive(Clone)]
pub(super) struct StreamTasks(pub(super) Arc<Streams>);

impl<F> hyper::rt::Executor<F> for StreamTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, stream: F) {
        // What sends on a tunnel is begun by the stream that has become it.
        let Some(stream) = of_a_stream(stream) else { return };
        // The codec begins the task of a request right after it has handed the request over.
        let pace = self.0.open().latest.take();
        tokio::spawn(Task { stream: Some(stream), of: Membership { streams: self.0.clone(), pace } });
    }
}

pin_project! {
    /// A stream, which can be cut off.
    struct Task<F> {
        #[pin]
        stream: Option<F>,
        of: Membership,
    }
}

impl<F: Future<Output = ()>> Future for Task<F> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        if let Some(pace) = &this.of.pace {
            if pace.cut.load(Ordering::Relaxed) {
                // Dropped, the stream is reset, and its exchange asks how it ends.
                let Streams { connection, stats, .. } = &*this.of.streams;
                stats.closed_response_send.increment();
                connection.ends_as(Some(Outcome::ClientNotReading));
                this.stream.set(None);
                connection.ends_as(None);
                return Poll::Ready(());
            }
            let mut task = lock(&pace.task);
            if !task.as_ref().is_some_and(|task| task.will_wake(cx.waker())) {
                *task = Some(cx.waker().clone());
            }
        }
        match this.stream.as_mut().as_pin_mut() {
            Some(stream) => stream.poll(cx),
            None => Poll::Ready(()),
        }
    }
}

/// Keeps a stream among those that are open.
struct Membership {
    streams: Arc<Streams>,
    pace: Option<Arc<Pace>>,
}

impl Drop for Membership {
    fn drop(&mut self) {
        if let Some(pace) = &self.pace {
            self.streams.ended(pace);
        }
        if std::thread::panicking() {
            self.streams.stats.panics.increment();
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
