//! Heads of requests and responses.

use std::ops::Range;

use bytes::{Buf, Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, Version};
use memchr::{memchr, memchr_iter, memchr3};

use super::fields::{self, Whose};
use super::{Framing, Layout, Limits, Refused, framing, target};

/// A request head.
#[derive(Debug)]
pub struct RequestHead {
    /// Method, target, version and header lines, all of them. The target is in the form in which it was sent.
    pub request: Request<()>,
    /// How it was written.
    pub layout: Layout,
    /// How its content is delimited; never [`Framing::UntilClose`].
    pub framing: Framing,
    /// Whether its sender lets the connection go on after the response (RFC 9112 section 9.3).
    pub keep_alive: bool,
}

/// A response head.
#[derive(Debug)]
pub struct ResponseHead {
    /// Status, version and header lines.
    pub response: Response<()>,
    /// How it was written.
    pub layout: Layout,
    /// How its content is delimited.
    pub framing: Framing,
    /// Whether its sender lets the connection go on.
    pub keep_alive: bool,
}

/// Reads a request head from the front of `read`, and takes it off. `None` where more has to come; then `scanned` is how much
/// need not be looked at again: 0 at first, and passed as it is with each call until there is a result.
///
/// # Errors
/// What is no request head, or one that can be read in two ways.
pub fn request(
    read: &mut BytesMut,
    scanned: &mut usize,
    limits: &Limits,
) -> Result<Option<RequestHead>, Refused> {
    let start = empty_lines(read)?;
    let seen = (*scanned).max(start);
    let Some(end) = find_end(read, seen, scanned).filter(|end| *end <= limits.head_bytes) else {
        let within = read.len().min(limits.head_bytes);
        unfinished_request(read.get(start..within).unwrap_or_default(), seen - start, limits)?;
        return unfinished(read, limits);
    };
    *scanned = 0;
    let (line, fields) = first_line(&read[start..end]);
    let line = RequestLine::read(line, limits)?;
    read.advance(start);
    let head = read.split_to(end - start).freeze();

    let (uri, soft_target) = target::read(&line.method, head.slice(line.target))?;
    let mut headers = fields::read(&head, fields, Whose::Request, limits)?;
    target::check_host(line.version, &headers)?;
    let framing = framing::of_request(&line.method, line.version, &mut headers)?;
    let keep_alive = framing::keep_alive(line.version, &headers);

    let mut request = Request::new(());
    *request.method_mut() = line.method;
    *request.uri_mut() = uri;
    *request.version_mut() = line.version;
    *request.headers_mut() = headers;
    let layout = Layout { head, reason: Bytes::new(), soft_target };
    Ok(Some(RequestHead { request, layout, framing, keep_alive }))
}

/// The same with the head of a response to a request of that method. There are no empty lines in front of it: what follows
/// a response without a request is none (SMG-19).
///
/// # Errors
/// What is no response head, or one that can be read in two ways (SMG-12: 502).
pub fn response(
    read: &mut BytesMut,
    scanned: &mut usize,
    limits: &Limits,
    method: &Method,
) -> Result<Option<ResponseHead>, Refused> {
    read_response(read, scanned, limits, method).map_err(Refused::of_response)
}

fn read_response(
    read: &mut BytesMut,
    scanned: &mut usize,
    limits: &Limits,
    method: &Method,
) -> Result<Option<ResponseHead>, Refused> {
    let seen = *scanned;
    let Some(end) = find_end(read, seen, scanned).filter(|end| *end <= limits.head_bytes) else {
        // What does not even begin as HTTP/1 is not waited for.
        if !read.iter().zip(b"HTTP/1.").all(|(byte, expected)| byte == expected) {
            return Err(NO_STATUS_LINE);
        }
        return unfinished(read, limits);
    };
    *scanned = 0;
    let (line, fields) = first_line(&read[..end]);
    let (version, status, reason) = status_line(line)?;
    let mut head = read.split_to(end);
    fields::repair(&mut head, fields)?;
    let head = head.freeze();

    let mut headers = fields::read(&head, fields, Whose::Response, limits)?;
    let keep_alive = framing::keep_alive(version, &headers);
    let (framing, clean) = framing::of_response(method, status, version, &mut headers)?;

    let mut response = Response::new(());
    *response.status_mut() = status;
    *response.version_mut() = version;
    *response.headers_mut() = headers;
    let layout = Layout { reason: head.slice(reason), head, soft_target: None };
    Ok(Some(ResponseHead { response, layout, framing, keep_alive: keep_alive && clean }))
}

const HEAD_TOO_LARGE: Refused = Refused::too_large("the head is too large");
const NO_STATUS_LINE: Refused = Refused::bad("the status line is none");
const NO_REQUEST_LINE: Refused = Refused::bad("the request line is none");
const TARGET_TOO_LONG: Refused = Refused::new(StatusCode::URI_TOO_LONG, "the request target is too long");

/// Bytes of a method; more is 501 (SMG-21).
const METHOD_BYTES: usize = 64;

/// Empty lines in front of a request that are passed over (RFC 9112 section 2.2): some clients send one behind content.
const EMPTY_LINES: usize = 8;

/// Whether nothing has come but line ends, which are no beginning of a request.
pub fn is_blank(read: &[u8]) -> bool {
    read.iter().all(|byte| matches!(byte, b'\r' | b'\n'))
}

/// How many bytes the empty lines in front of a request take.
fn empty_lines(read: &[u8]) -> Result<usize, Refused> {
    let mut rest = read;
    for _ in 0..=EMPTY_LINES {
        rest = match rest {
            [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] => rest,
            _ => return Ok(read.len() - rest.len()),
        };
    }
    Err(Refused::bad("too many empty lines before a request"))
}

/// Where the head that begins in front of `seen` ends, behind its empty line. `scanned` is then how far it was looked for.
fn find_end(read: &[u8], seen: usize, scanned: &mut usize) -> Option<usize> {
    let seen = seen.min(read.len());
    for line_end in memchr_iter(b'\n', &read[seen..]) {
        let at = seen + line_end;
        match &read[at + 1..] {
            [b'\n', ..] => return Some(at + 2),
            [b'\r', b'\n', ..] => return Some(at + 3),
            // It may yet be the end.
            [] | [b'\r'] => {
                *scanned = at;
                return None;
            }
            _ => {}
        }
    }
    *scanned = read.len();
    None
}

/// More has to come, unless that would be too much.
fn unfinished<Head>(read: &[u8], limits: &Limits) -> Result<Option<Head>, Refused> {
    if read.len() >= limits.head_bytes { Err(HEAD_TOO_LARGE) } else { Ok(None) }
}

/// Refuses the beginning of a head of which it is certain already that it is no request, or too long. `seen` bytes were
/// asked about before.
fn unfinished_request(head: &[u8], seen: usize, limits: &Limits) -> Result<(), Refused> {
    if head.first().is_some_and(|byte| !is_token(&[*byte]) && *byte != b'\r') {
        return Err(NO_REQUEST_LINE);
    }
    let Some(space) = head.iter().take(METHOD_BYTES + 1).position(|byte| *byte == b' ') else {
        return if head.len() > METHOD_BYTES { method(head).map(|_| ()) } else { Ok(()) };
    };
    let longest = space + 1 + target_bytes(limits);
    // Once, when there is enough of it: the whole should cost no more than its length.
    match head.get(space + 1..=longest) {
        Some(target) if seen <= longest && memchr3(b' ', b'\r', b'\n', target).is_none() => {
            Err(method(&head[..space]).err().unwrap_or(TARGET_TOO_LONG))
        }
        _ => Ok(()),
    }
}

/// A method, which is a token that is not too long (SMG-21).
fn method(text: &[u8]) -> Result<Method, Refused> {
    if !is_token(&text[..text.len().min(METHOD_BYTES + 1)]) {
        return Err(NO_REQUEST_LINE);
    }
    if text.len() > METHOD_BYTES {
        return Err(Refused::new(StatusCode::NOT_IMPLEMENTED, "the method is too long"));
    }
    Method::from_bytes(text).map_err(|_| NO_REQUEST_LINE)
}

fn target_bytes(limits: &Limits) -> usize {
    limits.target_bytes.min(target::MAX_LENGTH)
}

/// The first line without its end, and where the second one begins.
fn first_line(head: &[u8]) -> (&[u8], usize) {
    let end = memchr(b'\n', head).unwrap_or(head.len());
    let line = &head[..end];
    (line.strip_suffix(b"\r").unwrap_or(line), (end + 1).min(head.len()))
}

struct RequestLine {
    method: Method,
    /// Where in the line it is.
    target: Range<usize>,
    version: Version,
}

impl RequestLine {
    /// Three words, and one space between them. It is not repaired what is not so (SMG-20, SMG-23).
    fn read(line: &[u8], limits: &Limits) -> Result<Self, Refused> {
        let space = memchr(b' ', line).unwrap_or(line.len());
        let method = method(&line[..space])?;
        let start = space + 1;
        let Some(rest) = line.get(start..) else { return Err(NO_REQUEST_LINE) };
        let length = memchr(b' ', rest).unwrap_or(rest.len());
        if length > target_bytes(limits) {
            return Err(TARGET_TOO_LONG);
        }
        let version = match rest.get(length + 1..) {
            Some(b"HTTP/1.1") => Version::HTTP_11,
            Some(b"HTTP/1.0") => Version::HTTP_10,
            // What is new in a minor version may be ignored (RFC 9110 section 2.5).
            Some([b'H', b'T', b'T', b'P', b'/', b'1', b'.', b'2'..=b'9']) => Version::HTTP_11,
            Some([b'H', b'T', b'T', b'P', b'/', b'2'..=b'9', b'.', b'0'..=b'9']) => {
                let reason = "a version of HTTP that is not spoken here";
                return Err(Refused::new(StatusCode::HTTP_VERSION_NOT_SUPPORTED, reason));
            }
            _ => return Err(NO_REQUEST_LINE),
        };
        Ok(Self { method, target: start..start + length, version })
    }
}

/// Version, status, and where the reason phrase is, which may be missing with the space before it.
fn status_line(line: &[u8]) -> Result<(Version, StatusCode, Range<usize>), Refused> {
    let (version, code) = match line {
        [b'H', b'T', b'T', b'P', b'/', b'1', b'.', minor @ b'0'..=b'9', b' ', code @ ..] => {
            (if *minor == b'0' { Version::HTTP_10 } else { Version::HTTP_11 }, code)
        }
        _ => return Err(NO_STATUS_LINE),
    };
    let reason = match code.get(3..) {
        Some([] | [b' ']) => line.len()..line.len(),
        Some([b' ', reason @ ..]) => line.len() - reason.len()..line.len(),
        _ => return Err(NO_STATUS_LINE),
    };
    let status = StatusCode::from_bytes(&code[..3]).map_err(|_| NO_STATUS_LINE)?;
    if line[reason.clone()].iter().any(|byte| matches!(byte, 0..=8 | 10..=31 | 127)) {
        return Err(Refused::bad("a reason phrase with a control character"));
    }
    Ok((version, status, reason))
}

/// Characters that names are made of (RFC 9110 section 5.6.2).
fn is_token(text: &[u8]) -> bool {
    !text.is_empty()
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}
