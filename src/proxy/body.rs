//! Bodies on their way through, and what happens when they end.

use std::error::Error;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::grpc;
use super::vigil::{Overdue, Patience};
use crate::config::Live;
use crate::exchange::{BodyReader, Exchange, MAX_CONTENT, Outcome};
use crate::net::server::Caller;
use crate::stats::Stats;
use crate::wire::body::{Ahead, End, Watched, Watcher};
use crate::wire::h1::Layout;
use crate::wire::{Broken, Laid, Received};

/// Content on its way to the service.
#[derive(Debug)]
pub enum RequestBody {
    /// None, behind a head that was written like that.
    Empty(Option<Layout>),
    /// That of the caller.
    Passing(Passing<RequestWatcher>),
}

impl Default for RequestBody {
    fn default() -> Self {
        Self::Empty(None)
    }
}

/// Content that is waited for with patience, up to a point.
#[derive(Debug)]
pub struct Passing<W: Watcher> {
    body: Watched<W>,
    patience: Patience,
}

impl<W: Watcher + Unpin> Passing<W> {
    /// What comes next, or what is over: then the content is.
    fn poll(&mut self, cx: &mut Context<'_>) -> Result<Polled, Overdue> {
        if self.patience.is_late() {
            return Err(Overdue::Late);
        }
        let polled = self.poll_body(cx);
        match polled {
            Poll::Ready(_) => self.patience.go_on(),
            Poll::Pending => self.patience.wait(cx)?,
        }
        Ok(polled)
    }

    fn poll_body(&mut self, cx: &mut Context<'_>) -> Polled {
        Pin::new(&mut self.body).poll_frame(cx)
    }
}

type Polled = Poll<Option<Result<Frame<Bytes>, Broken>>>;

/// How far the content of a request has come. Shared by the request's body and the exchange.
#[derive(Debug, Default)]
pub(super) struct Upload {
    bytes: AtomicU64,
    broken: AtomicBool,
    late: AtomicBool,
    answered: AtomicBool,
}

impl Upload {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The caller broke off in the middle of its request.
    pub(super) fn broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// The caller did not go on with its request for too long.
    pub(super) fn late(&self) -> bool {
        self.late.load(Ordering::Relaxed)
    }

    /// The service has begun to answer. From now on it decides for how long it listens: on a stream of both ways, such as
    /// gRPC's, the caller may have nothing to say for hours.
    pub(super) fn answered(&self) {
        self.answered.store(true, Ordering::Relaxed);
    }
}

/// Notes how the content of a request ended.
#[derive(Debug)]
pub struct RequestWatcher {
    upload: Arc<Upload>,
    reading: Option<Box<Reading>>,
}

/// Content of a request that is looked at as it passes, for values that may come back in calls.
#[derive(Debug)]
pub(super) struct Reading {
    pub(super) live: Arc<Live>,
    pub(super) of: BodyReader,
    pub(super) seen: Vec<u8>,
}

/// Bytes of a body that are looked at.
pub(super) const LOOKED_AT: usize = 16 * 1024;

impl RequestBody {
    /// Content of a request, and how far it has come; nothing is to be watched where there is none.
    pub(super) fn new(
        ahead: Ahead,
        mut body: Received,
        reading: Option<Box<Reading>>,
        patience: Patience,
    ) -> (Self, Option<Arc<Upload>>) {
        if ahead.is_empty() && body.is_end_stream() {
            return (Self::Empty(body.take_layout()), None);
        }
        let upload = Arc::new(Upload::default());
        let watcher = RequestWatcher { upload: upload.clone(), reading };
        (Self::Passing(Passing { body: Watched::new(ahead, body, watcher), patience }), Some(upload))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.of.read(&self.live.lineage, &self.seen);
    }
}

impl RequestWatcher {
    /// Whether the service has begun to answer, so that nobody else is to say that the caller takes too long.
    fn is_listened_to(&self) -> bool {
        self.upload.answered.load(Ordering::Relaxed)
    }
}

impl Watcher for RequestWatcher {
    fn progressed(&mut self, data: &Bytes, bytes: u64) {
        self.upload.bytes.store(bytes, Ordering::Relaxed);
        if let Some(reading) = &mut self.reading {
            let room = LOOKED_AT - reading.seen.len();
            reading.seen.extend_from_slice(&data[..data.len().min(room)]);
            if reading.seen.len() == LOOKED_AT {
                // The rest is not looked at, and calls may come before it has passed.
                self.reading = None;
            }
        }
    }

    fn ended(mut self, end: End, _bytes: u64) {
        self.reading = None;
        match end {
            End::Broken(_) => self.upload.broken.store(true, Ordering::Relaxed),
            End::Complete | End::Dropped => {}
        }
    }
}

impl Laid for RequestBody {
    fn layout(&self) -> Option<&Layout> {
        match self {
            Self::Empty(layout) => layout.as_ref(),
            Self::Passing(passing) => passing.body.layout(),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let passing = match self.get_mut() {
            Self::Empty(_) => return Poll::Ready(None),
            Self::Passing(passing) => passing,
        };
        if passing.body.watcher().is_none_or(RequestWatcher::is_listened_to) {
            return passing.poll_body(cx);
        }
        match passing.poll(cx) {
            Ok(polled) => polled,
            Err(_) => {
                if let Some((watcher, _)) = passing.body.give_up() {
                    watcher.upload.late.store(true, Ordering::Relaxed);
                }
                Poll::Ready(Some(Err(Broken::Overdue)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty(_) => true,
            Self::Passing(passing) => passing.body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty(_) => SizeHint::with_exact(0),
            Self::Passing(passing) => passing.body.size_hint(),
        }
    }
}

/// Content on its way to the caller.
#[derive(Debug)]
pub enum ResponseBody {
    /// That of the service.
    Passing(Passing<ResponseWatcher>),
    /// The same for a client of gRPC, who is told in trailers if it breaks off.
    Call(Passing<ResponseWatcher>),
    /// None, behind a head that was written like that, after which the connection is another.
    Switching(Option<Layout>),
    /// A short text of our own, sent in one piece.
    Own(Option<Bytes>),
}

/// Closes the exchange when the content of the response ends.
#[derive(Debug)]
pub struct ResponseWatcher {
    exchange: Exchange,
    caller: Caller,
    upload: Option<Arc<Upload>>,
    /// The response ends with its head, whatever its body says: nobody will read that.
    bodiless: bool,
    said: Said,
    stats: Arc<Stats>,
}

/// What is read of a response on its way, for whoever wants to know why it failed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    /// Its content is kept.
    pub(super) content: bool,
    /// It is a gRPC response, whose status is in the trailers.
    pub(super) grpc: bool,
}

impl ResponseBody {
    /// Content of the service, watched from now on; `call` says that a client of gRPC waits for it.
    pub(super) fn passing(body: Received, watcher: ResponseWatcher, patience: Patience, call: bool) -> Self {
        let passing = Passing { body: Watched::new(Ahead::default(), body, watcher), patience };
        if call { Self::Call(passing) } else { Self::Passing(passing) }
    }
}

impl ResponseWatcher {
    pub(super) fn new(
        exchange: Exchange,
        caller: Caller,
        upload: Option<Arc<Upload>>,
        bodiless: bool,
        said: Said,
        stats: Arc<Stats>,
    ) -> Self {
        Self { exchange, caller, upload, bodiless, said, stats }
    }

    /// The content is not waited for any longer, and breaks off.
    fn overdue(self, overdue: Overdue, bytes: u64) {
        let Self { mut exchange, upload, stats, .. } = self;
        let (count, outcome) = match overdue {
            Overdue::Quiet => (&stats.closed_response_body, Outcome::UpstreamNotSending),
            Overdue::Late => (&stats.closed_stream, Outcome::StreamTimeout),
        };
        count.increment();
        let record = exchange.record();
        record.response_bytes = bytes;
        record.request_bytes = upload.as_deref().map_or(0, Upload::bytes);
        exchange.finish(outcome);
    }
}

impl Watcher for ResponseWatcher {
    fn progressed(&mut self, data: &Bytes, _bytes: u64) {
        if self.said.content
            && let Some(evidence) = &mut self.exchange.record().evidence
        {
            let room = MAX_CONTENT.saturating_sub(evidence.content.len());
            evidence.cut |= data.len() > room;
            evidence.content.extend_from_slice(&data[..data.len().min(room)]);
        }
    }

    fn trailers(&mut self, trailers: &HeaderMap) {
        if self.said.grpc {
            grpc::note_status(self.exchange.record(), trailers);
        }
    }

    fn breaks(&mut self, error: &(dyn Error + 'static)) {
        grpc::note_break(self.exchange.record(), error);
    }

    fn ended(self, end: End, bytes: u64) {
        let Self { mut exchange, caller, upload, bodiless, .. } = self;
        let record = exchange.record();
        record.response_bytes = bytes;
        record.request_bytes = upload.as_deref().map_or(0, Upload::bytes);
        if matches!(end, End::Complete) || bodiless {
            grpc::note_missing_status(record);
        }
        match end {
            // HTTP/2 lets a service end such a response in a frame of its own, which nobody waits for.
            End::Dropped if bodiless => caller.settle(exchange, Outcome::Complete),
            End::Complete => caller.settle(exchange, Outcome::Complete),
            End::Broken(reason) => {
                // The service may have broken off because the caller did so first, in the middle of its request.
                let outcome = match upload {
                    Some(upload) if upload.broken() => Outcome::ClientGoneDuringResponse,
                    _ => Outcome::UpstreamBroken,
                };
                record.detail = record.put(&reason);
                exchange.finish(outcome);
            }
            // The exchange finds out by itself who left. A status that never left for the kernel was not sent.
            End::Dropped => {
                if !caller.was_answered() {
                    exchange.not_answered();
                }
                if let Some(outcome) = caller.connection().ending() {
                    exchange.finish(outcome);
                }
            }
        }
    }
}

impl Laid for ResponseBody {
    fn layout(&self) -> Option<&Layout> {
        match self {
            Self::Passing(passing) | Self::Call(passing) => passing.body.layout(),
            Self::Switching(layout) => layout.as_ref(),
            Self::Own(_) => None,
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Polled {
        let this = self.get_mut();
        let (passing, call) = match this {
            Self::Switching(_) => return Poll::Ready(None),
            Self::Own(text) => return Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
            Self::Passing(passing) => (passing, false),
            Self::Call(passing) => (passing, true),
        };
        let polled = match passing.poll(cx) {
            Ok(polled) => polled,
            Err(overdue) => {
                if let Some((watcher, bytes)) = passing.body.give_up() {
                    watcher.overdue(overdue, bytes);
                }
                Poll::Ready(Some(Err(Broken::Overdue)))
            }
        };
        if call
            && let Poll::Ready(Some(Err(error))) = &polled
            && let Some(trailers) = grpc::farewell(error)
        {
            *this = Self::Own(None);
            return Poll::Ready(Some(Ok(Frame::trailers(trailers))));
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Passing(passing) | Self::Call(passing) => passing.body.is_end_stream(),
            Self::Switching(_) => true,
            Self::Own(text) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Passing(passing) | Self::Call(passing) => passing.body.size_hint(),
            Self::Switching(_) => SizeHint::with_exact(0),
            Self::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }
}
