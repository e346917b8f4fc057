//! Watches a body until it ends.
//!
//! [`Watched`] counts bytes and calls back exactly once: at the end, on an error, or when it is dropped. It knows
//! nothing of exchanges; its [`Watcher`] decides what an end means.

use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::Received;

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
    /// `bytes` of content have been handed on so far.
    fn progressed(&self, _bytes: u64) {}

    /// `bytes` of content were handed on before the end; trailers do not count.
    fn ended(self, end: End, bytes: u64);
}

/// A body on its way through, not buffered, watched until it ends.
#[derive(Debug)]
pub struct Watched<W: Watcher> {
    body: Received,
    bytes: u64,
    watcher: Option<W>,
}

impl<W: Watcher> Watched<W> {
    /// Watches `body` on behalf of `watcher`.
    pub fn new(body: Received, watcher: W) -> Self {
        Self { body, bytes: 0, watcher: Some(watcher) }
    }

    fn end(&mut self, end: End) {
        if let Some(watcher) = self.watcher.take() {
            watcher.ended(end, self.bytes);
        }
    }
}

impl<W: Watcher + Unpin> Body for Watched<W> {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match ready!(Pin::new(&mut self.body).poll_frame(cx)) {
            Some(Ok(frame)) => {
                if let Some(data) = frame.data_ref() {
                    self.bytes += data.len() as u64;
                    if let Some(watcher) = &self.watcher {
                        watcher.progressed(self.bytes);
                    }
                }
                // Whoever sends a body of known length stops asking after its last byte, so the end has to be
                // noticed here.
                if frame.is_trailers() || self.body.is_end_stream() {
                    self.end(End::Complete);
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                // The error goes on to the taker, who aborts its own message: a body that was cut short never ends
                // cleanly (FRM-4).
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
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
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
        let end = if self.body.is_end_stream() { End::Complete } else { End::Dropped };
        self.end(end);
    }
}
