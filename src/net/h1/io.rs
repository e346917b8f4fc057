//! A connection with the bytes that wait on either side of it.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker, ready};

use bytes::{Buf, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, ReadBuf};
use tokio::task::unconstrained;

use crate::net::acks::Acks;
use crate::net::stream::Stream;

/// Room for what is read first: an ordinary head, with a small content behind it.
const FIRST_READ: usize = 4096;

/// The most that is read at once. Content is passed on in pieces of this size, where as much is there.
const LARGEST_READ: usize = 128 * 1024;

/// With less room than this a read is not worth its system call.
const LEAST_ROOM: usize = 512;

/// Content up to this size is copied behind what goes before it: cheaper than a write of several pieces.
const COPIED: usize = 4096;

/// What may wait to be written before more is asked for.
const MUCH: usize = 64 * 1024;

/// A connection, what was read from it and not used yet, and what is to be written.
#[derive(Debug)]
pub(super) struct Io {
    pub(super) stream: Stream,
    /// What was read and not used yet.
    pub(super) read: BytesMut,
    /// The far side has closed its sending side.
    pub(super) ended: bool,
    read_size: usize,
    /// `read` may be what is left of a large piece, which it holds as a whole.
    large: bool,
    /// Bytes read in all.
    taken: u64,
    out: Out,
    /// The stream has taken bytes that it has not passed on to the kernel yet, as TLS may.
    unflushed: bool,
    /// Of connections to services: acknowledges at once what comes, where that is wanted.
    acks: Option<Arc<Acks>>,
}

/// Bytes to be written: some, a large piece as it is, and some more.
#[derive(Debug, Default)]
struct Out {
    front: Vec<u8>,
    /// So much of `front` is written.
    sent: usize,
    piece: Bytes,
    back: Vec<u8>,
    /// All that was ever written.
    written: u64,
}

impl Io {
    /// `early` was read from `stream` already.
    pub(super) fn new(stream: Stream, early: Bytes, acks: Option<Arc<Acks>>) -> Self {
        let read = match early.try_into_mut() {
            Ok(early) => early,
            Err(shared) => BytesMut::from(&shared[..]),
        };
        Self {
            stream,
            read,
            ended: false,
            read_size: FIRST_READ,
            large: false,
            taken: 0,
            out: Out::default(),
            unflushed: false,
            acks,
        }
    }

    /// The bare connection, and what was read of it.
    pub(super) fn into_parts(self) -> (Stream, Bytes) {
        // An empty buffer would still own its memory.
        let early = if self.read.is_empty() { Bytes::new() } else { self.read.freeze() };
        (self.stream, early)
    }

    /// Reads more. 0 is the end.
    pub(super) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        if self.read.capacity() - self.read.len() < LEAST_ROOM {
            // Whoever says nothing for now needs no room for it.
            ready!(self.stream.poll_readable(cx))?;
            self.read.reserve(self.read_size);
            self.large |= self.read_size > 2 * FIRST_READ;
        }
        let room = self.read.capacity() - self.read.len();
        let reading = pin!(self.stream.read_buf(&mut self.read));
        let n = ready!(reading.poll(cx))?;
        self.taken += n as u64;
        if n == 0 {
            self.ended = true;
        } else if n == room {
            self.read_size = (self.read_size * 2).min(LARGEST_READ);
        }
        if let Some(acks) = &self.acks {
            acks.received(self.stream.tcp());
        }
        Poll::Ready(Ok(n))
    }

    /// So much more will come.
    pub(super) fn expect(&mut self, bytes: u64) {
        let bytes = usize::try_from(bytes).unwrap_or(LARGEST_READ);
        self.read_size = bytes.clamp(FIRST_READ, LARGEST_READ);
    }

    /// A message is over; the next begins with a head.
    pub(super) fn message_read(&mut self) {
        self.read_size = FIRST_READ;
        if self.read.is_empty() && (self.large || self.read.capacity() > 2 * FIRST_READ) {
            self.read = BytesMut::new();
            self.large = false;
        }
        if self.out.is_empty() && self.out.front.capacity() + self.out.back.capacity() > 2 * FIRST_READ {
            self.out = Out { written: self.out.written, ..Out::default() };
        }
    }

    /// Whether nothing has come that nobody asked for, the end included: then the connection can be used. Asks the system
    /// only where there is something to be heard.
    pub(super) fn is_quiet(&mut self) -> bool {
        if self.ended || !self.read.is_empty() {
            return false;
        }
        let mut cx = Context::from_waker(Waker::noop());
        let mut byte = [0; 1];
        let stream = &mut self.stream;
        let read = poll_fn(|cx| Pin::new(&mut *stream).poll_read(cx, &mut ReadBuf::new(&mut byte)));
        // A task that has done much for one turn is told that nothing is there, whatever is.
        pin!(unconstrained(read)).poll(&mut cx).is_pending()
    }

    /// Where to write what goes next.
    pub(super) fn text(&mut self) -> &mut Vec<u8> {
        if self.out.piece.is_empty() { &mut self.out.front } else { &mut self.out.back }
    }

    /// Puts content behind what is there already.
    pub(super) fn push(&mut self, data: Bytes) {
        if data.len() <= COPIED || !self.out.piece.is_empty() {
            self.text().extend_from_slice(&data);
        } else {
            self.out.piece = data;
        }
    }

    /// Whether enough waits to be written.
    pub(super) fn is_full(&self) -> bool {
        !self.out.piece.is_empty() || self.out.front.len() > MUCH
    }

    /// Whether nothing waits to be written.
    pub(super) fn is_flushed(&self) -> bool {
        self.out.is_empty() && !self.unflushed
    }

    /// Bytes read in all.
    pub(super) fn taken(&self) -> u64 {
        self.taken
    }

    /// Bytes written in all.
    pub(super) fn written(&self) -> u64 {
        self.out.written
    }

    /// Writes what waits.
    pub(super) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let Self { stream, out, unflushed, .. } = self;
        while !out.is_empty() {
            let n = ready!(out.poll_write(stream, cx))?;
            if n == 0 {
                return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
            }
            out.advance(n);
        }
        let flushed = Pin::new(stream).poll_flush(cx);
        *unflushed = flushed.is_pending();
        flushed
    }
}

impl Out {
    fn is_empty(&self) -> bool {
        self.sent == self.front.len() && self.piece.is_empty() && self.back.is_empty()
    }

    fn poll_write(&self, stream: &mut Stream, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        let front = &self.front[self.sent..];
        if self.piece.is_empty() {
            return Pin::new(stream).poll_write(cx, front);
        }
        let all = [IoSlice::new(front), IoSlice::new(&self.piece), IoSlice::new(&self.back)];
        // An empty slice in front may be taken for all that there is.
        let from = usize::from(front.is_empty());
        Pin::new(stream).poll_write_vectored(cx, &all[from..])
    }

    fn advance(&mut self, n: usize) {
        self.written += n as u64;
        let front = n.min(self.front.len() - self.sent);
        self.sent += front;
        let piece = (n - front).min(self.piece.len());
        self.piece.advance(piece);
        let back = n - front - piece;
        if !self.piece.is_empty() {
            return;
        }
        self.piece = Bytes::new();
        if self.sent < self.front.len() {
            return;
        }
        self.front.clear();
        self.sent = 0;
        if !self.back.is_empty() {
            // What is left behind the piece is now in front of the next.
            std::mem::swap(&mut self.front, &mut self.back);
            self.sent = back;
        }
        if self.sent == self.front.len() {
            self.front.clear();
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_in_parts_is_written_once_and_in_order() {
        for step in 1..40 {
            let mut out = Out::default();
            let mut expected = Vec::new();
            let mut written = Vec::new();
            for round in 0..3u8 {
                out.front.extend([b'a' + round; 7]);
                out.piece = Bytes::from(vec![b'p' + round; 13]);
                out.back.extend([b'z' - round; 5]);
                expected
                    .extend([vec![b'a' + round; 7], vec![b'p' + round; 13], vec![b'z' - round; 5]].concat());
                while !out.is_empty() {
                    let all = [&out.front[out.sent..], &out.piece, &out.back].concat();
                    let n = step.min(all.len());
                    written.extend_from_slice(&all[..n]);
                    out.advance(n);
                }
            }
            assert_eq!(written, expected, "in steps of {step}");
            assert_eq!(out.written, expected.len() as u64);
        }
    }
}
