//! Where the frames of HTTP/2 begin in a stream of bytes, and of what kind they are (RFC 9113 section 4.1).
//!
//! What is in them is the codec's business. Only the error codes of RST_STREAM and GOAWAY are read.

/// Bytes of a frame's head.
const HEAD: usize = 9;

/// A frame that has begun to pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Frame {
    pub(super) kind: u8,
    pub(super) flags: u8,
    pub(super) stream: u32,
    /// Bytes behind its head.
    pub(super) length: u32,
    /// Of RST_STREAM and GOAWAY; 0 where the frame is too short to hold one.
    pub(super) error: u32,
}

pub(super) const DATA: u8 = 0;
pub(super) const HEADERS: u8 = 1;
pub(super) const RST_STREAM: u8 = 3;
pub(super) const GOAWAY: u8 = 7;
pub(super) const CONTINUATION: u8 = 9;

/// Flag of DATA and HEADERS.
pub(super) const END_STREAM: u8 = 0x1;
/// Flag of HEADERS and CONTINUATION.
pub(super) const END_HEADERS: u8 = 0x4;

/// Error codes (RFC 9113 section 7).
pub(super) const NO_ERROR: u32 = 0;
pub(super) const PROTOCOL_ERROR: u32 = 1;
pub(super) const ENHANCE_YOUR_CALM: u32 = 11;

/// Finds frames in bytes that come in pieces of any size.
#[derive(Debug)]
pub(super) struct Scanner {
    /// The head of the next frame, and as much of its payload as is read.
    head: [u8; HEAD + 8],
    have: usize,
    /// Bytes to pass over: the preface at first, then the rest of a frame.
    skip: u64,
}

impl Scanner {
    /// Frames begin after so many bytes.
    pub(super) fn after(skip: usize) -> Self {
        Self { head: [0; HEAD + 8], have: 0, skip: skip as u64 }
    }

    /// Whether the last frame that began has passed as a whole.
    pub(super) fn between_frames(&self) -> bool {
        self.have == 0 && self.skip == 0
    }

    /// Calls `found` with each frame whose head, and error code, is complete with `bytes`.
    pub(super) fn scan(&mut self, mut bytes: &[u8], mut found: impl FnMut(Frame)) {
        while !bytes.is_empty() {
            if self.skip > 0 {
                let over = usize::try_from(self.skip).unwrap_or(usize::MAX).min(bytes.len());
                self.skip -= over as u64;
                bytes = &bytes[over..];
                continue;
            }
            let wanted = if self.have < HEAD { HEAD } else { HEAD + self.read() };
            let taken = (wanted - self.have).min(bytes.len());
            self.head[self.have..self.have + taken].copy_from_slice(&bytes[..taken]);
            self.have += taken;
            bytes = &bytes[taken..];
            if self.have >= HEAD && self.have == HEAD + self.read() {
                found(self.frame());
                self.skip = u64::from(self.length()) - self.read() as u64;
                self.have = 0;
            }
        }
    }

    fn length(&self) -> u32 {
        u32::from_be_bytes([0, self.head[0], self.head[1], self.head[2]])
    }

    /// How much of the payload is read.
    fn read(&self) -> usize {
        let read = match self.head[3] {
            RST_STREAM => 4,
            GOAWAY => 8,
            _ => 0,
        };
        read.min(self.length() as usize)
    }

    fn frame(&self) -> Frame {
        let number = |at: usize| {
            let [a, b, c, d] = [0, 1, 2, 3].map(|index| self.head[at + index]);
            u32::from_be_bytes([a, b, c, d])
        };
        let error = match (self.head[3], self.read()) {
            (RST_STREAM, 4) => number(HEAD),
            (GOAWAY, 8) => number(HEAD + 4),
            _ => NO_ERROR,
        };
        Frame {
            kind: self.head[3],
            flags: self.head[4],
            // The highest bit is reserved, and ignored.
            stream: number(5) & 0x7fff_ffff,
            length: self.length(),
            error,
        }
    }
}

/// A GOAWAY with this error code, after `last` as the last stream (RFC 9113 section 6.8).
pub(super) fn goaway(last: u32, error: u32, why: &str) -> Vec<u8> {
    let length = u32::try_from(8 + why.len()).unwrap_or_default().to_be_bytes();
    let mut frame = vec![length[1], length[2], length[3], GOAWAY, 0, 0, 0, 0, 0];
    frame.extend_from_slice(&last.to_be_bytes());
    frame.extend_from_slice(&error.to_be_bytes());
    frame.extend_from_slice(why.as_bytes());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_are_found_however_their_bytes_are_cut() {
        let mut bytes = b"preface".to_vec();
        bytes.extend([0, 0, 3, DATA, END_STREAM, 0x80, 0, 0, 1, b'a', b'b', b'c']);
        bytes.extend([0, 0, 4, RST_STREAM, 0, 0, 0, 0, 3, 0, 0, 0, 8]);
        bytes.extend([0, 0, 0, DATA, 0, 0, 0, 0, 5]);
        bytes.extend([0, 0, 1, RST_STREAM, 0, 0, 0, 0, 7, 0]);
        bytes.extend(goaway(7, ENHANCE_YOUR_CALM, "why"));
        let frame = |kind, flags, stream, length, error| Frame { kind, flags, stream, length, error };
        let expected = [
            frame(DATA, END_STREAM, 1, 3, 0),
            frame(RST_STREAM, 0, 3, 4, 8),
            frame(DATA, 0, 5, 0, 0),
            frame(RST_STREAM, 0, 7, 1, 0),
            frame(GOAWAY, 0, 0, 11, ENHANCE_YOUR_CALM),
        ];
        for size in 1..=bytes.len() {
            let mut scanner = Scanner::after(7);
            let mut found = Vec::new();
            for piece in bytes.chunks(size) {
                scanner.scan(piece, |frame| found.push(frame));
            }
            assert_eq!(found, expected, "in pieces of {size}");
            assert!(scanner.between_frames());
        }
    }

    #[test]
    fn a_frame_that_has_not_passed_as_a_whole_is_known() {
        let mut scanner = Scanner::after(0);
        scanner.scan(&[0, 0, 2, DATA, 0, 0, 0, 0, 1, b'a'], |_| {});
        assert!(!scanner.between_frames());
        scanner.scan(b"b\0", |_| {});
        assert!(!scanner.between_frames());
    }
}
