//! Where the content of a message ends (RFC 9112 section 6), and whether its connection goes on behind it (section 9.3).

use http::header::{CONNECTION, CONTENT_LENGTH, TRANSFER_ENCODING};
use http::{HeaderMap, HeaderValue, Method, StatusCode, Version};

use super::fields::Blank;
use super::{Framing, Refused};

/// Of a request. One reading or none: what nginx would refuse, or another reader might read otherwise, is refused.
pub(super) fn of_request(
    method: &Method,
    version: Version,
    headers: &mut HeaderMap,
) -> Result<Framing, Refused> {
    let framing = if headers.contains_key(TRANSFER_ENCODING) {
        if headers.contains_key(CONTENT_LENGTH) {
            return Err(Refused::bad("both Transfer-Encoding and Content-Length")); // SMG-8
        }
        if version == Version::HTTP_10 {
            return Err(Refused::bad("Transfer-Encoding in HTTP/1.0")); // SMG-9
        }
        match coding(headers) {
            Coding::Chunked => Framing::Chunked,
            // SMG-10
            Coding::ChunkedBehind => {
                return Err(Refused::new(StatusCode::NOT_IMPLEMENTED, "an unknown transfer coding"));
            }
            Coding::Identity | Coding::Other => {
                return Err(Refused::bad("a Transfer-Encoding that is not chunked"));
            }
        }
    } else {
        let mut lines = headers.get_all(CONTENT_LENGTH).iter();
        match (lines.next(), lines.next()) {
            (None, _) => Framing::None,
            (Some(line), None) => {
                let named = length(line.as_bytes())?;
                if line.len() > MOST_DIGITS {
                    // All zeros in front, at which somebody's number may overflow.
                    headers.insert(CONTENT_LENGTH, named.into());
                }
                delimited(named)
            }
            // SMG-12 and SMG-13: equal ones too, as nginx does.
            (Some(_), Some(_)) => return Err(Refused::bad("several Content-Length lines")),
        }
    };
    if *method == Method::CONNECT && framing != Framing::None {
        // It has no content (RFC 9110 section 9.3.6), and what is behind it could be taken for the tunnel's.
        return Err(Refused::bad("CONNECT with content"));
    }
    Ok(framing)
}

/// Of a response to a request of that method, and whether it could be followed by another one. Removes from `headers` what
/// must not be sent on.
pub(super) fn of_response(
    method: &Method,
    status: StatusCode,
    version: Version,
    headers: &mut HeaderMap,
) -> Result<(Framing, bool), Refused> {
    let tunnel = *method == Method::CONNECT && status.is_success();
    if status.is_informational() || status == StatusCode::NO_CONTENT || tunnel {
        // HX-4, FRM-1, FRM-2, SMG-26.
        headers.remove(CONTENT_LENGTH);
        headers.remove(TRANSFER_ENCODING);
        return Ok((Framing::None, true));
    }
    let (framing, clean) = if headers.contains_key(TRANSFER_ENCODING) {
        // RFC 9112 section 6.3: Transfer-Encoding wins, and the connection is not used again. That goes for HTTP/1.0 too,
        // which should not have it: who writes it there means it, and nginx and curl read it so (SMG-9).
        let clean = headers.remove(CONTENT_LENGTH).is_none() && version != Version::HTTP_10;
        match coding(headers) {
            Coding::Chunked => (Framing::Chunked, clean),
            Coding::Identity => (Framing::UntilClose, clean),
            // Nobody asked for it by TE, which goes one hop only, and with Transfer-Encoding gone nobody could take it off.
            Coding::ChunkedBehind | Coding::Other => {
                return Err(Refused::bad("a Transfer-Encoding that is not chunked"));
            }
        }
    } else {
        (one_length(headers)?.map_or(Framing::UntilClose, delimited), true)
    };
    // FRM-1: they say what would be there.
    if *method == Method::HEAD || status == StatusCode::NOT_MODIFIED {
        return Ok((Framing::None, clean));
    }
    Ok((framing, clean && framing != Framing::UntilClose))
}

/// Whether the sender lets the connection go on.
pub(super) fn keep_alive(version: Version, headers: &HeaderMap) -> bool {
    let mut kept = version != Version::HTTP_10;
    for line in headers.get_all(CONNECTION) {
        for option in members(line) {
            if option.eq_ignore_ascii_case(b"close") {
                return false;
            }
            kept |= option.eq_ignore_ascii_case(b"keep-alive");
        }
    }
    kept
}

/// What all the lines of Transfer-Encoding say.
enum Coding {
    /// `chunked` and nothing else.
    Chunked,
    /// `chunked`, and another coding below it.
    ChunkedBehind,
    /// `identity` alone: the absence of a coding, in the days of RFC 2616.
    Identity,
    /// Anything else; `chunked` twice too (SMG-11).
    Other,
}

fn coding(headers: &HeaderMap) -> Coding {
    let mut before = 0;
    let mut last: &[u8] = b"";
    let mut chunked = 0;
    for (index, name) in headers.get_all(TRANSFER_ENCODING).iter().flat_map(members).enumerate() {
        (before, last) = (index, name);
        if name.is_empty() {
            return Coding::Other;
        }
        chunked += usize::from(name.eq_ignore_ascii_case(b"chunked"));
    }
    let ends = last.eq_ignore_ascii_case(b"chunked");
    match (before, chunked) {
        (0, 1) => Coding::Chunked,
        (_, 1) if ends => Coding::ChunkedBehind,
        (0, 0) if last.eq_ignore_ascii_case(b"identity") => Coding::Identity,
        _ => Coding::Other,
    }
}

/// The members of a list, without the white space around them; empty ones too.
fn members(line: &HeaderValue) -> impl Iterator<Item = &[u8]> {
    line.as_bytes().split(|byte| *byte == b',').map(|name| name.trim_prefix_blank().trim_suffix_blank())
}

/// The length that a response names, however often, and then only one line of it (SMG-12, SMG-13).
fn one_length(headers: &mut HeaderMap) -> Result<Option<u64>, Refused> {
    let mut lines = headers.get_all(CONTENT_LENGTH).iter();
    let Some(first) = lines.next() else { return Ok(None) };
    if lines.next().is_none() && !first.as_bytes().contains(&b',') {
        return length(first.as_bytes()).map(Some);
    }
    let mut all = headers.get_all(CONTENT_LENGTH).iter().flat_map(members);
    let text = all.next().unwrap_or_default();
    let named = length(text)?;
    for other in all {
        if length(other)? != named {
            return Err(Refused::bad("several lengths in Content-Length"));
        }
    }
    // The whole first line, where it is one length, stays where it is.
    let one = if text.len() == first.len() { Ok(first.clone()) } else { HeaderValue::from_bytes(text) };
    headers.insert(CONTENT_LENGTH, one.map_err(|_| Refused::bad(NO_LENGTH))?);
    Ok(Some(named))
}

/// Digits of the largest length.
const MOST_DIGITS: usize = 19;

const NO_LENGTH: &str = "a Content-Length that is no length";

/// Digits and nothing else (SMG-14), up to 2^63 - 1 (SMG-15).
fn length(text: &[u8]) -> Result<u64, Refused> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return Err(Refused::bad(NO_LENGTH));
    }
    text.iter()
        .try_fold(0_i64, |sum, digit| sum.checked_mul(10)?.checked_add(i64::from(digit - b'0')))
        .and_then(|sum| u64::try_from(sum).ok())
        .ok_or(Refused::bad("a Content-Length that is too large"))
}

fn delimited(length: u64) -> Framing {
    if length == 0 { Framing::None } else { Framing::Length(length) }
}
