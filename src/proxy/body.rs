//! Bodies on their way through, and what happens when they end.

use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::facts;
use crate::config::Live;
use crate::exchange::{BodyReader, Exchange, MAX_CONTENT, Outcome};
use crate::net::server::{Caller, Connection};
use crate::net::upstream::Lease;
use crate::wire::Received;
use crate::wire::body::{Ahead, End, Watched, Watcher};

/// Content on its way to the service.
#[derive(Debug, Default)]
pub enum RequestBody {
    /// None.
    #[default]
    Empty,
    /// That of the caller.
    Passing(Watched<RequestWatcher>),
}

/// How far the content of a request has come. Shared by the request's body and the exchange.
#[derive(Debug, Default)]
pub(super) struct Upload {
    bytes: AtomicU64,
    complete: AtomicBool,
    broken: AtomicBool,
}

impl Upload {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }

    /// The caller broke off in the middle of its request.
    pub(super) fn broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }
}

/// Notes how the content of a request ended.
#[derive(Debug)]
pub struct RequestWatcher {
    upload: Arc<Upload>,
    connection: Arc<Connection>,
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
    /// Content of a request on `connection`, and how far it has come; nothing is to be watched where there is none.
    pub(super) fn new(
        ahead: Ahead,
        body: Received,
        connection: &Arc<Connection>,
        reading: Option<Box<Reading>>,
    ) -> (Self, Option<Arc<Upload>>) {
        if ahead.is_empty() && body.is_end_stream() {
            return (Self::Empty, None);
        }
        let upload = Arc::new(Upload::default());
        let watcher = RequestWatcher { upload: upload.clone(), connection: connection.clone(), reading };
        (Self::Passing(Watched::new(ahead, body, watcher)), Some(upload))
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.of.read(&self.live.lineage, &self.seen);
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
            End::Complete => {
                self.upload.complete.store(true, Ordering::Relaxed);
                self.connection.request_read();
            }
            End::Broken(_) => self.upload.broken.store(true, Ordering::Relaxed),
            End::Dropped => self.connection.request_given_up(),
        }
    }
}

impl Body for RequestBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Empty => Poll::Ready(None),
            Self::Passing(body) => Pin::new(body).poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Passing(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Passing(body) => body.size_hint(),
        }
    }
}

/// Content on its way to the caller.
#[derive(Debug)]
pub enum ResponseBody {
    /// That of the service.
    Passing(Watched<ResponseWatcher>),
    /// A short text of our own, sent in one piece.
    Own(Option<Bytes>),
}

/// Closes the exchange when the content of the response ends, and hands the connection back.
#[derive(Debug)]
pub struct ResponseWatcher {
    exchange: Exchange,
    caller: Caller,
    lease: Option<Lease<RequestBody>>,
    upload: Option<Arc<Upload>>,
    /// The response ends with its head, whatever its body says: nobody will read that.
    bodiless: bool,
    said: Said,
}

/// What is read of a response on its way, for whoever wants to know why it failed.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Said {
    /// Its content is kept.
    pub(super) content: bool,
    /// It is a gRPC response, whose status is in the trailers.
    pub(super) grpc: bool,
}

impl ResponseWatcher {
    pub(super) fn new(
        exchange: Exchange,
        caller: Caller,
        lease: Option<Lease<RequestBody>>,
        upload: Option<Arc<Upload>>,
        bodiless: bool,
        said: Said,
    ) -> Self {
        Self { exchange, caller, lease, upload, bodiless, said }
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
            facts::note_grpc(self.exchange.record(), trailers);
        }
    }

    fn ended(self, end: End, bytes: u64) {
        let Self { mut exchange, caller, lease, upload, bodiless, .. } = self;
        let record = exchange.record();
        record.response_bytes = bytes;
        record.request_bytes = upload.as_deref().map_or(0, Upload::bytes);
        match end {
            // HTTP/2 lets a service end such a response in a frame of its own, which nobody waits for.
            End::Dropped if bodiless => caller.settle(exchange, Outcome::Complete),
            End::Complete => {
                // A connection that is still busy with the request's content cannot serve the next one.
                let uploaded = upload.is_none_or(|upload| upload.complete.load(Ordering::Relaxed));
                if let (Some(lease), true) = (lease, uploaded) {
                    lease.give_back();
                }
                caller.settle(exchange, Outcome::Complete);
            }
            End::Broken(reason) => {
                // The service may have broken off because the caller did so first, in the middle of its request.
                let outcome = match upload.is_some_and(|upload| upload.broken()) {
                    true => Outcome::ClientGoneDuringResponse,
                    false => Outcome::UpstreamBroken,
                };
                record.detail = record.put(&reason);
                exchange.finish(outcome);
            }
            // The exchange finds out by itself who left. A status that never left for the kernel was not sent.
            End::Dropped => {
                if !caller.was_answered() {
                    exchange.not_answered();
                }
            }
        }
    }
}

impl Body for ResponseBody {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match self.get_mut() {
            Self::Passing(body) => Pin::new(body).poll_frame(cx),
            Self::Own(text) => Poll::Ready(text.take().map(|text| Ok(Frame::data(text)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Passing(body) => body.is_end_stream(),
            Self::Own(text) => text.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Passing(body) => body.size_hint(),
            Self::Own(text) => SizeHint::with_exact(text.as_ref().map_or(0, |text| text.len() as u64)),
        }
    }
}
