//! Content as it arrives from either side, with the bytes of the head that it came with.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::body::Incoming;
use thiserror::Error;

use super::h1::Layout;

/// The content of a message from either side. Everything above `wire` and `net` names it by this type, whatever codec is
/// behind it.
#[derive(Debug, Default)]
pub struct Received {
    content: Content,
    layout: Option<Layout>,
}

#[derive(Default)]
enum Content {
    #[default]
    Empty,
    Http1(Box<Coded>),
    Http2(Incoming),
}

/// Content that our own codec reads from a connection.
pub type Coded = dyn Body<Data = Bytes, Error = Broken> + Send + Sync + Unpin;

/// Why content ended before its end.
#[derive(Debug, Error)]
pub enum Broken {
    /// The connection was closed.
    #[error("incomplete body: connection closed before its end")]
    Incomplete,
    /// The connection failed.
    #[error("connection failed: {0}")]
    Failed(std::io::Error),
    /// What came is not HTTP.
    #[error("invalid content: {0}")]
    Invalid(&'static str),
    /// It was not waited for any longer.
    #[error("waited for too long")]
    Overdue,
    /// What the HTTP/2 codec says.
    #[error(transparent)]
    Http2(#[from] hyper::Error),
}

/// A message that knows how its head was written.
pub trait Laid {
    /// The bytes of the head, where it came over HTTP/1.
    fn layout(&self) -> Option<&Layout>;
}

impl Received {
    /// No content, behind a head that was written like that.
    pub fn empty(layout: Layout) -> Self {
        Self { content: Content::Empty, layout: Some(layout) }
    }

    /// Content that our codec reads.
    pub fn http1(content: Box<Coded>, layout: Layout) -> Self {
        Self { content: Content::Http1(content), layout: Some(layout) }
    }

    /// Takes the layout out: for whoever sends a message on without its content.
    pub fn take_layout(&mut self) -> Option<Layout> {
        self.layout.take()
    }
}

impl From<Incoming> for Received {
    fn from(content: Incoming) -> Self {
        Self { content: Content::Http2(content), layout: None }
    }
}

impl Laid for Received {
    fn layout(&self) -> Option<&Layout> {
        self.layout.as_ref()
    }
}

impl std::fmt::Debug for Content {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Empty => "Empty",
            Self::Http1(_) => "Http1",
            Self::Http2(_) => "Http2",
        })
    }
}

impl Body for Received {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match &mut self.get_mut().content {
            Content::Empty => Poll::Ready(None),
            Content::Http1(content) => Pin::new(content).poll_frame(cx),
            Content::Http2(content) => {
                Pin::new(content).poll_frame(cx).map(|frame| frame.map(|frame| frame.map_err(Broken::from)))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        match &self.content {
            Content::Empty => true,
            Content::Http1(content) => content.is_end_stream(),
            Content::Http2(content) => content.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match &self.content {
            Content::Empty => SizeHint::with_exact(0),
            Content::Http1(content) => content.size_hint(),
            Content::Http2(content) => content.size_hint(),
        }
    }
}
