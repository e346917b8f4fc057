//! Watches a body until it ends.
//!
//! [`Watched`] counts bytes and calls back exactly once: at the end, on an error, or when it is dropped. It knows
//! nothing of exchanges; its [`Watcher`] decides what an end means.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::h1::Layout;
use super::{Broken, Laid, Received};

/// The one way in which a body ended.
#[derive(Debug)]
pub enum End {
    /// The last byte (and the trailers, where there are any) were handed on.
    Complete,
    /// The sender of the body broke off, or sent what is not HTTP; says how.
    Broken(String),
    /// Whoever took the body lost interest before its end.
    Dropped,
}

/// Is told once how a [`Watched`] body ended.
pub trait Watcher {
    /// `data` is handed on now; with it that is `bytes` of content.
    fn progressed(&mut self, _data: &Bytes, _bytes: u64) {}

    /// The trailers are handed on now; the end comes right after them.
    fn trailers(&mut self, _trailers: &HeaderMap) {}

    /// The sender of the body breaks off with this error; the end comes right after it.
    fn breaks(&mut self, _error: &(dyn std::error::Error + 'static)) {}

    /// `bytes` of content were handed on before the end; trailers do not count.
    fn ended(self, end: End, bytes: u64);
}

/// A body on its way through, not buffered, watched until it ends.
#[derive(Debug)]
pub struct Watched<W: Watcher> {
    ahead: Ahead,
    body: Received,
    bytes: u64,
    watcher: Option<W>,
}

impl<W: Watcher> Watched<W> {
    /// Watches `body` on behalf of `watcher`. What was read of it already comes first.
    pub fn new(ahead: Ahead, body: Received, watcher: W) -> Self {
        Self { ahead, body, bytes: 0, watcher: Some(watcher) }
    }

    /// Whoever is told how it ends; `None` where that has happened.
    pub fn watcher(&self) -> Option<&W> {
        self.watcher.as_ref()
    }

    /// Gives the body up: its watcher is told no more, and handed back with the bytes of content that have passed.
    pub fn give_up(&mut self) -> Option<(W, u64)> {
        Some((self.watcher.take()?, self.bytes))
    }

    fn all_read(&self) -> bool {
        self.ahead.is_empty() && self.body.is_end_stream()
    }

    fn end(&mut self, end: End) {
        if let Some(watcher) = self.watcher.take() {
            watcher.ended(end, self.bytes);
        }
    }
}

impl<W: Watcher> Laid for Watched<W> {
    fn layout(&self) -> Option<&Layout> {
        self.body.layout()
    }
}

impl<W: Watcher + Unpin> Body for Watched<W> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let next = match self.ahead.take() {
            Some(read) => Some(read),
            None => ready!(Pin::new(&mut self.body).poll_frame(cx)),
        };
        match next {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes += data.len() as u64;
                    let bytes = self.bytes;
                    if let Some(watcher) = &mut self.watcher {
                        watcher.progressed(data, bytes);
                    }
                } else if let (Some(trailers), Some(watcher)) = (frame.trailers_ref(), &mut self.watcher) {
                    watcher.trailers(trailers);
                }
                // Whoever sends a body of known length stops asking after its last byte, so the end has to be
                // noticed here.
                if frame.is_trailers() || self.all_read() {
                    self.end(End::Complete);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                // The error goes on to the taker, who aborts its own message: a body that was cut short never ends
                // cleanly (FRM-4).
                if let Some(watcher) = &mut self.watcher {
                    watcher.breaks(&error);
                }
                self.end(End::Broken(describe(&error)));
                Poll::Ready(Some(Err(error)))
            }
            None => {
                self.end(End::Complete);
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.all_read()
    }

    fn size_hint(&self) -> SizeHint {
        let hint = self.body.size_hint();
        let ahead = self.ahead.bytes() as u64;
        if ahead == 0 {
            return hint;
        }
        // The upper bound first: the lower one may never be above it.
        let mut all = SizeHint::new();
        if let Some(upper) = hint.upper() {
            all.set_upper(upper + ahead);
        }
        all.set_lower(hint.lower() + ahead);
        all
    }
}

/// What was read of a body before somebody takes it, to be handed on first. Nearly always nothing, so that it is small.
#[derive(Debug, Default)]
#[expect(
    clippy::box_collection,
    reason = "it is in each body, and empty in nearly all: 8 bytes in place of 32"
)]
pub struct Ahead(Option<Box<VecDeque<Read>>>);

type Read = Result<Frame<Bytes>, Broken>;

impl Ahead {
    /// Reads on until `limit` bytes are there, or all. Can be given up at any time.
    pub async fn read(&mut self, body: &mut Received, limit: usize) {
        while self.bytes() < limit && !body.is_end_stream() {
            let Some(frame) = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await else { return };
            let over = !frame.as_ref().is_ok_and(Frame::is_data);
            self.0.get_or_insert_default().push_back(frame);
            if over {
                return;
            }
        }
    }

    /// Whether nothing was read.
    pub fn is_empty(&self) -> bool {
        self.0.as_ref().is_none_or(|read| read.is_empty())
    }

    /// The content that was read.
    pub fn content(&self) -> Vec<u8> {
        self.data().fold(Vec::with_capacity(self.bytes()), |mut all, data| {
            all.extend_from_slice(data);
            all
        })
    }

    fn bytes(&self) -> usize {
        self.data().map(Bytes::len).sum()
    }

    fn data(&self) -> impl Iterator<Item = &Bytes> {
        self.0.iter().flat_map(|read| read.iter()).filter_map(|frame| frame.as_ref().ok()?.data_ref())
    }

    fn take(&mut self) -> Option<Read> {
        self.0.as_mut()?.pop_front()
    }
}

/// An error with its causes, in one line.
pub fn describe(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

impl<W: Watcher> Drop for Watched<W> {
    fn drop(&mut self) {
        // A body without content (HEAD, 204, 304, Content-Length: 0) is dropped without ever being asked.
        let end = if self.all_read() { End::Complete } else { End::Dropped };
        self.end(end);
    }
}
