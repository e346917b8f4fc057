//! The chunked coding (RFC 9112 section 7.1).
//!
//! Lines end with CRLF and nothing else here, for an LF alone is what chunks are smuggled with (SMG-16).

use bytes::{Buf, Bytes, BytesMut};
use http::{HeaderMap, HeaderName};
use memchr::{memchr, memchr_iter};

use super::fields::{self, Whose};
use super::{Limits, Refused};

/// Bytes of the line before a chunk, its extensions included and its CRLF not; and of all extensions of a message. They are passed over, and
/// who sends more wants to keep us busy (SMG-17).
const LINE_BYTES: usize = 4096;
const EXTENSION_BYTES: usize = 16_384;

/// Takes the chunked coding off, piece by piece.
#[derive(Debug, Default)]
pub struct Decoder {
    state: State,
    /// How much of what is read need not be looked at again for the end of a line, or of the trailers.
    scanned: usize,
    /// Bytes of extensions so far.
    extensions: usize,
}

#[derive(Clone, Copy, Debug, Default)]
enum State {
    /// Before the line with a chunk's size.
    #[default]
    Size,
    /// So much of a chunk is still to come, which is not 0.
    Data(u64),
    /// Before the CRLF behind a chunk.
    DataEnd,
    Trailers,
    Ended,
}

/// A piece of decoded content.
#[derive(Debug)]
pub enum Decoded {
    /// More bytes have to come.
    More,
    /// Content, never empty.
    Data(Bytes),
    /// The end, with the trailers, if there are any.
    End(Option<HeaderMap>),
}

impl Decoder {
    /// Takes what comes next off the front of `read`. `limits` bounds the trailers, of which those are left out that
    /// mean something only in front of the content (SMG-25).
    ///
    /// # Errors
    /// What is not the chunked coding (SMG-15, SMG-16, SMG-17).
    pub fn decode(&mut self, read: &mut BytesMut, limits: &Limits) -> Result<Decoded, Refused> {
        loop {
            self.state = match self.state {
                State::Size => match self.size(read)? {
                    None => return Ok(Decoded::More),
                    Some(0) => State::Trailers,
                    Some(size) => State::Data(size),
                },
                State::Data(_) if read.is_empty() => return Ok(Decoded::More),
                State::Data(left) => {
                    let length = usize::try_from(left).map_or(read.len(), |left| left.min(read.len()));
                    let left = left - length as u64;
                    self.state = if left == 0 { State::DataEnd } else { State::Data(left) };
                    return Ok(Decoded::Data(read.split_to(length).freeze()));
                }
                State::DataEnd => match read.as_ref() {
                    [b'\r', b'\n', ..] => {
                        read.advance(2);
                        State::Size
                    }
                    [] | [b'\r'] => return Ok(Decoded::More),
                    _ => return Err(Refused::bad("a chunk that is longer than its size")),
                },
                State::Trailers => {
                    let Some(end) = self.trailers_end(read, limits)? else { return Ok(Decoded::More) };
                    let section = read.split_to(end).freeze();
                    self.state = State::Ended;
                    return trailers(&section, limits).map(Decoded::End);
                }
                State::Ended => return Ok(Decoded::End(None)),
            };
        }
    }

    /// The size of the next chunk, once its line is there.
    fn size(&mut self, read: &mut BytesMut) -> Result<Option<u64>, Refused> {
        let Some(found) = memchr(b'\n', read.get(self.scanned..).unwrap_or_default()) else {
            self.scanned = read.len();
            // What cannot become a size is not waited for.
            let digits = read.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
            return match read.get(digits) {
                _ if digits > MOST_DIGITS => Err(NO_SIZE),
                Some(b';') if read.len() > LINE_BYTES + 1 => Err(LONG_EXTENSION),
                Some(b';') if digits > 0 => Ok(None),
                Some(b'\r') if digits > 0 && read.len() == digits + 1 => Ok(None),
                Some(_) => Err(NO_SIZE),
                None => Ok(None),
            };
        };
        let end = self.scanned + found;
        self.scanned = 0;
        let line = read[..end].strip_suffix(b"\r").ok_or(LINE_END)?;
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        let (digits, extension) = line.split_at(digits);
        let size = size(digits)?;
        if !matches!(extension.first(), None | Some(b';')) {
            return Err(NO_SIZE);
        }
        if extension.iter().any(|byte| matches!(byte, 0..=8 | 10..=31 | 127)) {
            return Err(Refused::bad("a chunk extension with a control character"));
        }
        self.extensions += extension.len();
        if line.len() > LINE_BYTES || self.extensions > EXTENSION_BYTES {
            return Err(LONG_EXTENSION);
        }
        read.advance(end + 1);
        Ok(Some(size))
    }

    /// Where the trailers end, behind their empty line, once it is there.
    fn trailers_end(&mut self, read: &[u8], limits: &Limits) -> Result<Option<usize>, Refused> {
        let most = limits.head_bytes.max(2);
        let read = &read[..read.len().min(most)];
        // Limits may have become smaller since.
        let scanned = self.scanned.min(read.len());
        let mut end = read.starts_with(b"\r\n").then_some(2);
        if end.is_none() {
            for at in memchr_iter(b'\n', &read[scanned..]).map(|at| scanned + at) {
                if at == 0 || read[at - 1] != b'\r' {
                    return Err(LINE_END);
                }
                if read[at + 1..].starts_with(b"\r\n") {
                    end = Some(at + 3);
                    break;
                }
            }
        }
        if end.is_none() {
            // The last three bytes may be the beginning of the end.
            self.scanned = read.len().saturating_sub(3);
            return if read.len() < most { Ok(None) } else { Err(TRAILERS_TOO_LARGE) };
        }
        self.scanned = 0;
        Ok(end)
    }
}

const LINE_END: Refused = Refused::bad("a line of the chunked coding ends without CR");
const NO_SIZE: Refused = Refused::bad("a chunk size that is none");
const LONG_EXTENSION: Refused = Refused::bad("chunk extensions that are too long");
const TRAILERS_TOO_LARGE: Refused = Refused::too_large("the trailers are too large");

/// Digits of a size: as many as 64 bits take.
const MOST_DIGITS: usize = 16;

/// Digits and nothing else, up to 2^63 - 1 (SMG-15).
fn size(digits: &[u8]) -> Result<u64, Refused> {
    if digits.is_empty() || digits.len() > MOST_DIGITS {
        return Err(NO_SIZE);
    }
    let text = std::str::from_utf8(digits).map_err(|_| NO_SIZE)?;
    let size = i64::from_str_radix(text, 16).map_err(|_| Refused::bad("a chunk size that is too large"))?;
    u64::try_from(size).map_err(|_| NO_SIZE)
}

fn trailers(section: &Bytes, limits: &Limits) -> Result<Option<HeaderMap>, Refused> {
    let mut trailers = fields::read(section, 0, Whose::Trailers, limits)?;
    if trailers.keys().any(is_forbidden) {
        let kept = trailers.keys().filter(|name| !is_forbidden(name)).cloned().collect::<Vec<_>>();
        let mut rest = HeaderMap::with_capacity(kept.len());
        for name in kept {
            for value in trailers.get_all(&name) {
                rest.append(name.clone(), value.clone());
            }
        }
        trailers = rest;
    }
    Ok((!trailers.is_empty()).then_some(trailers))
}

/// What means something only in front of the content: framing, routing, request modifiers, authentication, and what the
/// content is (RFC 9110 section 6.5.1, which names these kinds and leaves the list to us; it is that of Go's net/http).
fn is_forbidden(name: &HeaderName) -> bool {
    let name = name.as_str();
    name.starts_with("if-")
        || matches!(
            name,
            "authorization"
                | "cache-control"
                | "connection"
                | "content-encoding"
                | "content-length"
                | "content-range"
                | "content-type"
                | "expect"
                | "host"
                | "keep-alive"
                | "max-forwards"
                | "pragma"
                | "proxy-authenticate"
                | "proxy-authorization"
                | "proxy-connection"
                | "range"
                | "te"
                | "trailer"
                | "transfer-encoding"
                | "upgrade"
                | "www-authenticate"
        )
}
