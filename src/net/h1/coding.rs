//! The content of a message as it is read from its connection.

use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::io::Io;
use crate::wire::Broken;
use crate::wire::h1::chunked::{Decoded, Decoder};
use crate::wire::h1::{Framing, Limits};

/// How far the content of a message has been read.
#[derive(Debug)]
pub(super) enum Coding {
    /// To its end.
    Done,
    /// So many bytes are to come, at least one.
    Length(u64),
    /// Chunks are to come.
    Chunked(Decoder),
    /// All that comes is content.
    UntilClose,
    /// It broke off, and nobody knows what comes next.
    Broken,
}

impl From<Framing> for Coding {
    fn from(framing: Framing) -> Self {
        match framing {
            Framing::None | Framing::Length(0) => Self::Done,
            Framing::Length(length) => Self::Length(length),
            Framing::Chunked => Self::Chunked(Decoder::default()),
            Framing::UntilClose => Self::UntilClose,
        }
    }
}

impl Coding {
    pub(super) fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }

    /// What is known of the rest.
    pub(super) fn size_hint(&self) -> SizeHint {
        match self {
            Self::Done => SizeHint::with_exact(0),
            Self::Length(left) => SizeHint::with_exact(*left),
            Self::Chunked(_) | Self::UntilClose | Self::Broken => SizeHint::default(),
        }
    }

    /// Reads the next piece.
    pub(super) fn poll(
        &mut self,
        io: &mut Io,
        limits: &Limits,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let result = ready!(self.poll_frame(io, limits, cx));
        if let Some(Err(_)) = result {
            *self = Self::Broken;
        }
        Poll::Ready(result)
    }

    fn poll_frame(
        &mut self,
        io: &mut Io,
        limits: &Limits,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        loop {
            match self {
                Self::Done => return Poll::Ready(None),
                Self::Broken => return Poll::Ready(Some(Err(Broken::Incomplete))),
                Self::Length(left) => {
                    if !io.read.is_empty() {
                        let n = usize::try_from(*left).map_or(io.read.len(), |left| left.min(io.read.len()));
                        *left -= n as u64;
                        if *left == 0 {
                            *self = Self::Done;
                        }
                        return data(io, n);
                    }
                    io.expect(*left);
                }
                Self::Chunked(decoder) => match decoder.decode(&mut io.read, limits) {
                    Ok(Decoded::Data(data)) => return Poll::Ready(Some(Ok(Frame::data(data)))),
                    Ok(Decoded::More) => {}
                    Ok(Decoded::End(trailers)) => {
                        *self = Self::Done;
                        return Poll::Ready(trailers.map(|trailers| Ok(Frame::trailers(trailers))));
                    }
                    Err(refused) => return Poll::Ready(Some(Err(Broken::Invalid(refused.reason)))),
                },
                Self::UntilClose => {
                    if !io.read.is_empty() {
                        let n = io.read.len();
                        return data(io, n);
                    }
                }
            }
            match ready!(io.poll_fill(cx)) {
                Ok(0) if matches!(self, Self::UntilClose) => *self = Self::Done,
                Ok(0) => return Poll::Ready(Some(Err(Broken::Incomplete))),
                Ok(_) => {}
                Err(error) => return Poll::Ready(Some(Err(Broken::Failed(error)))),
            }
        }
    }

    /// Throws away what has been read already; whether that was all.
    pub(super) fn skip(&mut self, io: &mut Io, limits: &Limits) -> bool {
        let mut cx = Context::from_waker(std::task::Waker::noop());
        while !self.is_done() && !io.read.is_empty() {
            let before = io.read.len();
            let enough = match self {
                Self::Length(left) => *left <= before as u64,
                Self::Chunked(_) => true,
                _ => false,
            };
            if !enough || !matches!(self.poll(io, limits, &mut cx), Poll::Ready(Some(Ok(_)) | None)) {
                return false;
            }
        }
        self.is_done()
    }
}

fn data(io: &mut Io, n: usize) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
    Poll::Ready(Some(Ok(Frame::data(io.read.split_to(n).freeze()))))
}
