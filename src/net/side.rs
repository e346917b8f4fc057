//! One side of a tunnel: a connection that has become it, or a stream of an HTTP/2 connection.
//!
//! An end of one direction is FIN or TLS' `close_notify` on a connection, and END_STREAM on a stream. A side that breaks
//! off is a reset either way: RST of the connection, RST_STREAM of the stream (RFC 8441 section 5).

use std::error::Error;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::room::Seat;
use super::stream::{Rewound, Stream};
use super::tasks::Sends;

/// A side of a tunnel.
#[derive(Debug)]
pub enum Side {
    /// A connection.
    Socket(Rewound, Option<Seat>),
    /// A stream of one.
    Http2(Http2Stream),
}

impl From<Stream> for Side {
    /// A connection from which nothing was read.
    fn from(stream: Stream) -> Self {
        Self::socket(stream, Bytes::new(), None)
    }
}

impl Side {
    /// A connection of which `early` was read already, with its place among those to its destination.
    pub(super) fn socket(stream: Stream, early: Bytes, seat: Option<Seat>) -> Self {
        Self::Socket(Rewound::new(early, stream), seat)
    }

    /// What sends on it beside whoever writes; has to be driven along.
    pub(super) fn sends(&self) -> Option<Sends> {
        match self {
            Self::Socket(..) => None,
            Self::Http2(stream) => stream.sends.clone(),
        }
    }

    /// Dropping it is a reset from now on. Dropping a stream whose directions have not both ended always is.
    pub(super) fn break_off(&self) {
        if let Self::Socket(socket, _) = self {
            // If the socket does not take that, nothing else can be done.
            let _ = socket.set_zero_linger();
        }
    }
}

/// A stream of an HTTP/2 connection that has become a tunnel.
pub struct Http2Stream {
    io: TokioIo<Upgraded>,
    /// `None` where the codec sends by itself.
    sends: Option<Sends>,
    /// We have ended our direction.
    ended: bool,
    /// Keeps the connection open.
    _connection: Option<Box<dyn Send>>,
}

impl Http2Stream {
    pub(super) fn new(upgraded: Upgraded, sends: Option<Sends>, connection: Option<Box<dyn Send>>) -> Self {
        Self { io: TokioIo::new(upgraded), sends, ended: false, _connection: connection }
    }

    fn send(&self, cx: &mut Context<'_>) {
        if let Some(sends) = &self.sends {
            sends.poll(cx);
        }
    }

    /// Whether the far end has reset the stream, as far as that can be known: when we have ended our direction, nobody
    /// says any more whether the far end has ended its own or reset it.
    fn is_reset(&self) -> bool {
        !self.ended && self.sends.as_ref().is_some_and(Sends::is_finished)
    }
}

impl std::fmt::Debug for Http2Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Http2Stream")
    }
}

impl Drop for Http2Stream {
    fn drop(&mut self) {
        // Before the other half goes: what sends would take that for an end, and say so.
        if let Some(sends) = &self.sends {
            sends.stop();
        }
    }
}

/// Whether an error stands for `NO_ERROR`: a server that has said all it had to say, and wants to hear no more (RFC 9113
/// section 8.1).
fn is_no_error(error: &io::Error) -> bool {
    let source =
        error.get_ref().and_then(|error| error.downcast_ref::<hyper::Error>()).and_then(Error::source);
    let reason = source.and_then(|error| error.downcast_ref::<h2::Error>()).and_then(h2::Error::reason);
    reason == Some(h2::Reason::NO_ERROR)
}

/// A connection that ends in the middle of a stream is no end of the stream, as the kind of its error might say.
fn broken(error: io::Error) -> io::Error {
    match error.kind() {
        io::ErrorKind::UnexpectedEof => io::Error::new(io::ErrorKind::ConnectionReset, error),
        _ => error,
    }
}

impl AsyncRead for Http2Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.io).poll_read(cx, buffer)).map_err(broken)?;
        if buffer.filled().len() == before {
            // The codec takes CANCEL for an end. What sends knows better: it would go on after an end.
            this.send(cx);
            if this.is_reset()
                && let Err(error) = ready!(Pin::new(&mut this.io).poll_flush(cx))
                && !is_no_error(&error)
            {
                return Poll::Ready(Err(broken(error)));
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Http2Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(Pin::new(&mut this.io).poll_write(cx, bytes)).map_err(broken)?;
        this.send(cx);
        Poll::Ready(Ok(written))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        this.send(cx);
        Pin::new(&mut this.io).poll_flush(cx).map_err(broken)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if !this.ended {
            // What happened before must not look like the end that we send.
            this.send(cx);
            this.ended = !this.is_reset();
        }
        // The first time says that there is nothing more to come; then it is sent, and the second time that is known.
        if let Poll::Ready(result) = Pin::new(&mut this.io).poll_shutdown(cx) {
            return Poll::Ready(result);
        }
        this.send(cx);
        Pin::new(&mut this.io).poll_shutdown(cx)
    }
}

/// Does the same with either kind of side.
macro_rules! with_either {
    ($side:expr, $any:ident => $action:expr) => {
        match $side.get_mut() {
            Side::Socket($any, _) => $action,
            Side::Http2($any) => $action,
        }
    };
}

impl AsyncRead for Side {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        with_either!(self, any => Pin::new(any).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Side {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        with_either!(self, any => Pin::new(any).poll_write(cx, bytes))
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_either!(self, any => Pin::new(any).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_either!(self, any => Pin::new(any).poll_shutdown(cx))
    }
}
