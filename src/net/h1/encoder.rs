//! The content of a message as it is written to its connection.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::HeaderMap;
use http_body::{Body, Frame};

use super::io::Io;
use crate::wire::h1::{Framing, write};

/// How far the content of a message has been written.
#[derive(Debug)]
pub(super) struct Encoder {
    framing: Framing,
    /// Of [`Framing::Length`]: what is to come.
    left: u64,
    ended: bool,
    broken: bool,
}

/// Why a message cannot be completed.
#[derive(Debug)]
pub(super) enum Stuck {
    /// Its content broke off, or is longer or shorter than its head says. What there was of it has left.
    Content,
    /// The connection does not take it.
    Connection(std::io::Error),
}

impl Encoder {
    /// For content that the head on its way has said is delimited like that.
    pub(super) fn new(framing: Framing) -> Self {
        let left = if let Framing::Length(length) = framing { length } else { 0 };
        Self { framing, left, ended: framing == Framing::None, broken: false }
    }

    /// The content broke off.
    pub(super) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Takes content for as long as there is any, and writes it. Ready when all of it has left.
    pub(super) fn poll<B>(
        &mut self,
        io: &mut Io,
        mut body: Pin<&mut B>,
        cx: &mut Context<'_>,
    ) -> Poll<Result<(), Stuck>>
    where
        B: Body<Data = Bytes>,
    {
        loop {
            while !self.ended && !self.broken && !io.is_full() {
                match body.as_mut().poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => {
                        self.put(io, frame);
                        // Content that comes over HTTP/2 may end in a frame of its own, which is waited for.
                        let all = matches!(self.framing, Framing::Length(_)) && self.left == 0;
                        self.ended |= all && !self.broken && body.is_end_stream();
                    }
                    Poll::Ready(Some(Err(_))) => self.broken = true,
                    Poll::Ready(None) => self.end(io, None),
                    Poll::Pending => break,
                }
            }
            let full = io.is_full();
            match io.poll_flush(cx) {
                Poll::Ready(Ok(())) if self.broken => return Poll::Ready(Err(Stuck::Content)),
                Poll::Ready(Ok(())) if self.ended => return Poll::Ready(Ok(())),
                // There is room again.
                Poll::Ready(Ok(())) if full => {}
                Poll::Ready(Ok(())) | Poll::Pending => return Poll::Pending,
                Poll::Ready(Err(error)) => return Poll::Ready(Err(Stuck::Connection(error))),
            }
        }
    }

    fn put(&mut self, io: &mut Io, frame: Frame<Bytes>) {
        let data = match frame.into_data() {
            Ok(data) => data,
            Err(frame) => return self.end(io, frame.into_trailers().ok().as_ref()),
        };
        match self.framing {
            _ if data.is_empty() => {}
            Framing::None => {}
            Framing::Length(_) => match self.left.checked_sub(data.len() as u64) {
                Some(left) => {
                    self.left = left;
                    io.push(data);
                }
                None => self.broken = true,
            },
            Framing::Chunked => {
                write::chunk_size(io.text(), data.len());
                io.push(data);
                io.text().extend_from_slice(b"\r\n");
            }
            Framing::UntilClose => io.push(data),
        }
    }

    fn end(&mut self, io: &mut Io, trailers: Option<&HeaderMap>) {
        self.ended = true;
        match self.framing {
            Framing::Length(_) => self.broken |= self.left > 0,
            // Where there is no place for trailers, they are lost (RFC 9110 section 6.5.1).
            Framing::None | Framing::UntilClose => {}
            Framing::Chunked => write::last_chunk(io.text(), trailers),
        }
    }
}
