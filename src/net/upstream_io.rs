//! The service's socket, as hyper sees it: small writes are put together, and one that fails is not the end.

use std::io::{ErrorKind, IoSlice, Result};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::acks::Acks;
use super::client_io::write_together;
use super::stream::Stream;

/// A socket to the service.
pub(super) struct UpstreamIo {
    stream: Stream,
    acks: Arc<Acks>,
    /// How the service refused to take what we send.
    deaf: Option<ErrorKind>,
    /// Everything that the service said has been read.
    ended: bool,
    /// Whoever waits to write to a service that is deaf.
    writer: Option<Waker>,
}

impl UpstreamIo {
    pub(super) fn new(stream: Stream, acks: Arc<Acks>) -> Self {
        Self { stream, acks, deaf: None, ended: false, writer: None }
    }

    /// A service may refuse a request before all of its content has come, and close: then a write fails while the
    /// answer waits to be read, and hyper would take the failure for the answer. So a write fails only when everything
    /// has been read (RFC 9112 section 9.5).
    fn written(&mut self, cx: &mut Context<'_>, written: Result<usize>) -> Poll<Result<usize>> {
        match written {
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                self.deaf = Some(error.kind());
                // What there is to read came before this, so nothing else may wake the reader.
                cx.waker().wake_by_ref();
                self.refuse(error.kind(), cx)
            }
            written => Poll::Ready(written),
        }
    }

    fn refuse(&mut self, how: ErrorKind, cx: &mut Context<'_>) -> Poll<Result<usize>> {
        if self.ended {
            return Poll::Ready(Err(how.into()));
        }
        self.writer = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl AsyncRead for UpstreamIo {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = ready!(Pin::new(&mut this.stream).poll_read(cx, buffer));
        if read.is_err() || buffer.filled().len() == before {
            this.ended = true;
            if let Some(writer) = this.writer.take() {
                writer.wake();
            }
        } else {
            this.acks.received(this.stream.tcp());
        }
        Poll::Ready(read)
    }
}

impl AsyncWrite for UpstreamIo {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<Result<usize>> {
        let this = self.get_mut();
        if let Some(how) = this.deaf {
            return this.refuse(how, cx);
        }
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes));
        this.written(cx, written)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<Result<usize>> {
        let this = self.get_mut();
        if let Some(how) = this.deaf {
            return this.refuse(how, cx);
        }
        let written = ready!(write_together(&mut this.stream, cx, slices));
        this.written(cx, written)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
