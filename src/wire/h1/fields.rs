//! Header lines and trailer lines (RFC 9112 section 5).
//!
//! Not by `httparse`: that wants a table of lines whose size is known before, and would be one pass more, for
//! `http::HeaderName` and `http::HeaderValue` check every byte again: a name is made of token characters, and in a value
//! there are no control characters but the tab (SMG-6, SMG-7). What they leave to do is to find the colon and to cut off the
//! white space. Bytes are not copied: values are slices of the head.

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};
use memchr::{memchr, memchr_iter};

use super::{Limits, Refused};

/// Lines that are added before a message is sent on, for which the map need not grow.
const SPARE: usize = 4;

/// Whose lines they are, and so how strictly they are read.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Whose {
    /// A caller's: nothing is forgiven but a line that ends with LF alone (RFC 9112 section 2.2).
    Request,
    /// Of the service or another server, who cannot be told to do better. A line without a proper name is left out, as nginx
    /// does with a caller's; see also [`repair`].
    Response,
    /// Behind the last chunk: as a caller's, and without LF alone (SMG-16).
    Trailers,
}

/// Reads the lines from `start` to the empty line with which `head` ends.
pub(super) fn read(head: &Bytes, start: usize, whose: Whose, limits: &Limits) -> Result<HeaderMap, Refused> {
    // The last one is empty.
    let lines = memchr_iter(b'\n', &head[start..]).count().saturating_sub(1);
    let too_many = Refused::too_large("too many header lines");
    if lines > limits.lines {
        return Err(too_many);
    }
    if lines == 0 {
        return Ok(HeaderMap::new());
    }
    let mut map = HeaderMap::try_with_capacity(lines + SPARE).map_err(|_| too_many)?;
    let mut at = start;
    while let Some(length) = memchr(b'\n', &head[at..]) {
        let mut end = at + length;
        let next = end + 1;
        if head[at..end].last() == Some(&b'\r') {
            end -= 1;
        } else if whose == Whose::Trailers {
            return Err(Refused::bad("a trailer line ends without CR"));
        }
        if at == end {
            break;
        }
        if let Some((name, value)) = line(head, at, end, whose)? {
            map.try_append(name, value).map_err(|_| too_many)?;
        }
        at = next;
    }
    Ok(map)
}

/// One line, which is not empty. `None` if it is left out.
fn line(
    head: &Bytes,
    start: usize,
    end: usize,
    whose: Whose,
) -> Result<Option<(HeaderName, HeaderValue)>, Refused> {
    let bytes = &head[start..end];
    let colon = memchr(b':', bytes);
    let name = &bytes[..colon.unwrap_or(bytes.len())];
    let (Some(colon), Ok(name)) = (colon, HeaderName::from_bytes(name)) else {
        if whose != Whose::Response {
            return Err(no_name(bytes));
        }
        // A control character may be a line's end to somebody.
        let control = bytes.iter().any(|byte| *byte < b' ' && *byte != b'\t' || *byte == 0x7f);
        return if control { Err(Refused::bad(CONTROL)) } else { Ok(None) };
    };
    let value = &bytes[colon + 1..];
    let from = end - value.trim_prefix_blank().len();
    let to = from + head[from..end].trim_suffix_blank().len();
    match HeaderValue::from_maybe_shared(head.slice(from..to)) {
        Ok(value) => Ok(Some((name, value))),
        Err(_) => Err(Refused::bad(CONTROL)),
    }
}

const CONTROL: &str = "a header line has a control character";

/// What is wrong with a line that has no proper name.
fn no_name(line: &[u8]) -> Refused {
    let name = &line[..memchr(b':', line).unwrap_or(line.len())];
    Refused::bad(match (name.first(), name.last()) {
        // SMG-4, SMG-5.
        (Some(b' ' | b'\t'), _) => "a header line begins with white space",
        (_, Some(b' ' | b'\t')) if name.len() < line.len() => "white space before the colon of a header line", // SMG-3
        _ if name.len() == line.len() => "a header line without a colon",
        _ => "a header line with an invalid name",
    })
}

/// Makes proper lines, in place, of those from `start` on that are forgiven a response: line folding becomes spaces (SMG-4), and
/// white space before the colon changes places with it (SMG-3). So each value stays a slice of the head, in its order.
///
/// # Errors
/// The first line is folded into the start line (SMG-5).
pub(super) fn repair(head: &mut BytesMut, start: usize) -> Result<(), Refused> {
    if matches!(head.get(start), Some(b' ' | b'\t')) {
        return Err(Refused::bad("the first header line begins with white space"));
    }
    let blank = |byte: u8| byte == b' ' || byte == b'\t';
    // Mostly there is nothing to do, which this finds out many bytes at a time.
    let section = &head[start..];
    let behind = section.get(1..).unwrap_or_default();
    let found = section.iter().zip(behind).fold(false, |found, (byte, next)| {
        found | ((*byte == b'\n') & blank(*next)) | (blank(*byte) & (*next == b':'))
    });
    if !found {
        return Ok(());
    }
    let mut at = start;
    let mut folded = false;
    while let Some(length) = memchr(b'\n', &head[at..]) {
        let end = at + length;
        if !folded && let Some(colon) = memchr(b':', &head[at..end]) {
            let name = head[at..at + colon].trim_suffix_blank().len();
            if name < colon && name > 0 {
                head.swap(at + name, at + colon);
            }
        }
        folded = matches!(head.get(end + 1), Some(b' ' | b'\t'));
        if folded {
            head[end] = b' ';
            if head[end - 1] == b'\r' {
                head[end - 1] = b' ';
            }
        }
        at = end + 1;
    }
    Ok(())
}

/// White space as RFC 9110 has it between words of a line: spaces and tabs (OWS).
pub(super) trait Blank {
    /// Without the white space in front.
    fn trim_prefix_blank(&self) -> &Self;
    /// Without the white space at the end.
    fn trim_suffix_blank(&self) -> &Self;
}

impl Blank for [u8] {
    fn trim_prefix_blank(&self) -> &Self {
        let mut rest = self;
        while let [b' ' | b'\t', shorter @ ..] = rest {
            rest = shorter;
        }
        rest
    }

    fn trim_suffix_blank(&self) -> &Self {
        let mut rest = self;
        while let [shorter @ .., b' ' | b'\t'] = rest {
            rest = shorter;
        }
        rest
    }
}
