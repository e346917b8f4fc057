//! One type for every connection: a bare socket, or TLS on either side.
//!
//! HTTP is served on it and sent over it, tunnels copy it, and an idle one waits in it. A bare socket is held as it is,
//! so that the ordinary path has nothing to allocate and one comparison more.

use std::future::poll_fn;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Buf, Bytes};
use tokio::io::{AsyncBufRead, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::{client, server};

use super::own::OwnSocket;

/// A connection.
#[derive(Debug)]
pub enum Stream {
    /// A bare socket.
    Tcp(TcpStream),
    /// A bare socket that tracecar has opened, and is known by.
    Opened(TcpStream, Box<OwnSocket>),
    /// TLS that we have accepted.
    Accepted(Box<server::TlsStream<Rewound>>),
    /// TLS that we have begun.
    Secured(Box<client::TlsStream<Stream>>),
}

impl From<TcpStream> for Stream {
    fn from(stream: TcpStream) -> Self {
        Self::Tcp(stream)
    }
}

impl Stream {
    /// The socket below.
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Tcp(stream) | Self::Opened(stream, _) => stream,
            Self::Accepted(tls) => tls.get_ref().0.stream.tcp(),
            Self::Secured(tls) => tls.get_ref().0.tcp(),
        }
    }

    /// The protocol that both sides of a TLS connection agreed on (ALPN).
    pub fn alpn(&self) -> Option<&[u8]> {
        match self {
            Self::Tcp(_) | Self::Opened(..) => None,
            Self::Accepted(tls) => tls.get_ref().1.alpn_protocol(),
            Self::Secured(tls) => tls.get_ref().1.alpn_protocol(),
        }
    }

    /// Whether its bytes are protected by TLS on the wire.
    pub fn is_tls(&self) -> bool {
        matches!(self, Self::Accepted(_) | Self::Secured(_))
    }

    /// Address of the far end.
    ///
    /// # Errors
    /// Of a socket that is not connected any more.
    pub fn peer_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().peer_addr()
    }

    /// Address of our end.
    ///
    /// # Errors
    /// Of a socket that is gone.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp().local_addr()
    }

    /// Whether small writes leave at once.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn set_nodelay(&self, at_once: bool) -> io::Result<()> {
        self.tcp().set_nodelay(at_once)
    }

    /// Makes closing it a reset.
    ///
    /// # Errors
    /// Of the operating system.
    pub fn set_zero_linger(&self) -> io::Result<()> {
        self.tcp().set_zero_linger()
    }

    /// Waits until there is something to read, or its end. Takes no memory meanwhile beyond what the connection has.
    ///
    /// # Errors
    /// A connection that broke.
    pub async fn readable(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_readable(cx)).await
    }

    /// The same, to be asked.
    pub(super) fn poll_readable(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self {
            Self::Tcp(stream) | Self::Opened(stream, _) => stream.poll_read_ready(cx),
            // What arrives on the socket need not be content, and content may have been decrypted already.
            Self::Accepted(tls) => Pin::new(&mut **tls).poll_fill_buf(cx).map_ok(|_content| ()),
            Self::Secured(tls) => Pin::new(&mut **tls).poll_fill_buf(cx).map_ok(|_content| ()),
        }
    }
}

/// Does the same with whichever connection it is.
macro_rules! with_any {
    ($stream:expr, $any:ident => $action:expr) => {
        match $stream.get_mut() {
            Stream::Tcp($any) | Stream::Opened($any, _) => $action,
            Stream::Accepted($any) => $action,
            Stream::Secured($any) => $action,
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        with_any!(self, any => Pin::new(any).poll_read(cx, buffer))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        with_any!(self, any => Pin::new(any).poll_write(cx, bytes))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        with_any!(self, any => Pin::new(any).poll_write_vectored(cx, slices))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_any!(self, any => Pin::new(any).poll_flush(cx))
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        with_any!(self, any => Pin::new(any).poll_shutdown(cx))
    }
}

/// A connection with bytes that were read from it already in front.
#[derive(Debug)]
pub struct Rewound {
    early: Bytes,
    stream: Stream,
}

impl Rewound {
    pub(super) fn new(early: Bytes, stream: Stream) -> Self {
        Self { early, stream }
    }

    /// The connection alone.
    pub(super) fn into_inner(self) -> Stream {
        self.stream
    }

    /// Makes closing it a reset.
    pub(super) fn set_zero_linger(&self) -> io::Result<()> {
        self.stream.set_zero_linger()
    }
}

/// Moves as much of `early` as fits to `buffer`.
pub(super) fn give_early(early: &mut Bytes, buffer: &mut ReadBuf<'_>) {
    let n = early.len().min(buffer.remaining());
    buffer.put_slice(&early[..n]);
    early.advance(n);
    if early.is_empty() {
        // An empty `Bytes` would still own what it was cut from, for as long as the connection lives.
        *early = Bytes::new();
    }
}

impl AsyncRead for Rewound {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.early.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        give_early(&mut this.early, buffer);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Rewound {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}
