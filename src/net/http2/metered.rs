//! The caller's socket, as the codec sees it, with an eye on the frames that pass.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::super::server::PREFACE;
use super::super::stream::Rewound;
use super::super::stream::Stream;
use super::conduct::Conduct;
use super::frames::{ENHANCE_YOUR_CALM, Scanner, goaway};

/// How long, and how much, is still read of a caller that was told to go: closed with bytes unread, the socket would answer
/// with a reset, which can destroy what it was told.
const LAST_LOOK: Duration = Duration::from_secs(1);
const LAST_BYTES: u64 = 1024 * 1024;

/// What the socket and whoever drives the connection share. All on one thread, so the lock never waits.
#[derive(Debug)]
pub(super) struct Shared {
    conduct: Mutex<Conduct>,
    /// Something is to be told of.
    pub(super) news: Notify,
}

impl Shared {
    pub(super) fn new(conduct: Conduct) -> Arc<Self> {
        Arc::new(Self { conduct: Mutex::new(conduct), news: Notify::new() })
    }

    pub(super) fn conduct(&self) -> MutexGuard<'_, Conduct> {
        self.conduct.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The socket of one HTTP/2 connection. `None` once its caller was told to go.
pub(super) struct Metered {
    io: Option<Rewound>,
    shared: Arc<Shared>,
    inwards: Scanner,
    outwards: Scanner,
}

impl Metered {
    pub(super) fn new(io: Rewound, shared: Arc<Shared>) -> Self {
        let (inwards, outwards) = (Scanner::after(PREFACE.len()), Scanner::after(0));
        Self { io: Some(io), shared, inwards, outwards }
    }

    fn open(&mut self) -> io::Result<Pin<&mut Rewound>> {
        self.io.as_mut().map(Pin::new).ok_or_else(|| ErrorKind::ConnectionAborted.into())
    }

    fn wrote(&mut self, bytes: &[u8]) {
        let mut conduct = self.shared.conduct();
        self.outwards.scan(bytes, |frame| conduct.sent(frame));
        if !conduct.stillborn.is_empty() {
            self.shared.news.notify_one();
        }
    }

    /// Tells the caller why it has to go (RFC 9113 section 10.5), and lets go of it.
    fn dismiss(&mut self, why: &'static str, latest: u32) {
        let Some(stream) = self.io.take().map(Rewound::into_inner) else { return };
        let frame = self.outwards.between_frames().then(|| goaway(latest, ENHANCE_YOUR_CALM, why));
        tokio::spawn(farewell(stream, frame));
    }
}

/// Says a last word, where it is not in the middle of another.
async fn farewell(mut stream: Stream, frame: Option<Vec<u8>>) {
    let leave = async {
        if let Some(frame) = frame {
            stream.write_all(&frame).await?;
        }
        stream.shutdown().await?;
        tokio::io::copy(&mut stream.take(LAST_BYTES), &mut tokio::io::sink()).await
    };
    // It was told, or does not listen; either way it is over.
    let _ = timeout(LAST_LOOK, leave).await;
}

impl AsyncRead for Metered {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(this.open()?.poll_read(cx, buffer))?;
        let offence = {
            let mut conduct = this.shared.conduct();
            this.inwards.scan(&buffer.filled()[before..], |frame| conduct.received(frame));
            conduct.offence.map(|offence| (offence, conduct.latest))
        };
        if let Some((offence, latest)) = offence {
            this.dismiss(offence.why(), latest);
            return Poll::Ready(Err(ErrorKind::ConnectionAborted.into()));
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Metered {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(this.open()?.poll_write(cx, bytes))?;
        this.wrote(&bytes[..written]);
        Poll::Ready(Ok(written))
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = ready!(this.open()?.poll_write_vectored(cx, slices))?;
        let mut left = written;
        for slice in slices {
            let part = left.min(slice.len());
            this.wrote(&slice[..part]);
            left -= part;
        }
        Poll::Ready(Ok(written))
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().open()?.poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.get_mut().open()?.poll_shutdown(cx)
    }
}
