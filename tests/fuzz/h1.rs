//! What must hold of HTTP/1 whatever comes over a connection. For the fuzz targets and the property tests, as in `checks.rs`.

#![allow(dead_code, reason = "each fuzz target calls one of the checks; only the property tests call all")]

use bytes::BytesMut;
use http::{HeaderMap, Method};
use tracecar::wire::h1::chunked::{Decoded, Decoder};
use tracecar::wire::h1::head::{self, RequestHead, ResponseHead};
use tracecar::wire::h1::{Framing, Limits, Refused, write};

/// As in practice.
pub const ROOMY: Limits = Limits { head_bytes: 65_536, lines: 200, target_bytes: 8192 };
/// So that short input goes beyond them.
const TIGHT: Limits = Limits { head_bytes: 120, lines: 4, target_bytes: 20 };

/// How a head was read: it, and how many bytes it took.
type Heads<Head> = Result<Option<(Head, usize)>, Refused>;

/// Reads a head that arrives `piece` bytes at a time.
fn arriving<Head>(
    data: &[u8],
    piece: usize,
    mut read: impl FnMut(&mut BytesMut, &mut usize) -> Result<Option<Head>, Refused>,
) -> Heads<Head> {
    let (mut buffer, mut scanned, mut taken) = (BytesMut::new(), 0, 0);
    for piece in data.chunks(piece.max(1)) {
        buffer.extend_from_slice(piece);
        taken += piece.len();
        if let Some(head) = read(&mut buffer, &mut scanned)? {
            return Ok(Some((head, taken - buffer.len())));
        }
        assert!(scanned <= buffer.len(), "what was looked at is there");
    }
    Ok(None)
}

fn read_request(data: &[u8], piece: usize, limits: &Limits) -> Heads<RequestHead> {
    arriving(data, piece, |buffer, scanned| head::request(buffer, scanned, limits))
}

fn read_response(data: &[u8], piece: usize, limits: &Limits, method: &Method) -> Heads<ResponseHead> {
    arriving(data, piece, |buffer, scanned| head::response(buffer, scanned, limits, method))
}

/// All that a result says, to be compared.
fn told<Head: std::fmt::Debug>(heads: &Heads<Head>) -> String {
    match heads {
        // Reasons may differ, where it is too early for the whole truth.
        Err(refused) => format!("{}", refused.status),
        Ok(head) => format!("{head:?}"),
    }
}

/// A request head is the same however it arrives; what is taken, `httparse` takes too, with the same lines; and it is written
/// as it came, but for the version, the ends of lines, and the white space before these.
pub fn request(data: &[u8]) {
    for limits in [TIGHT, ROOMY] {
        let once = read_request(data, data.len(), &limits);
        for piece in [1, 2, 7] {
            let apart = read_request(data, piece, &limits);
            assert_eq!(told(&once), told(&apart), "{piece} bytes at a time");
        }
    }
    let Ok(Some((head, taken))) = read_request(data, data.len(), &ROOMY) else { return };
    let empty = data.iter().take_while(|byte| matches!(byte, b'\r' | b'\n')).count();
    let bytes = &data[empty..taken];
    let headers = head.request.headers();
    assert!(head.framing != Framing::UntilClose && head.framing != Framing::Length(0));
    assert!(headers.get_all("host").iter().count() <= 1);
    assert!(headers.get_all("content-length").iter().count() <= 1);
    assert!(!(headers.contains_key("content-length") && headers.contains_key("transfer-encoding")));
    assert_eq!(headers.contains_key("transfer-encoding"), head.framing == Framing::Chunked);

    let mut lines = bytes.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
    let words: Vec<&[u8]> = lines.next().expect("a first line").split(|byte| *byte == b' ').collect();
    let [method, target, version] = words[..] else { panic!("three words") };
    let mut room = [httparse::EMPTY_HEADER; 256];
    let mut other = httparse::Request::new(&mut room);
    // It does not know later versions, and wants UTF-8.
    if matches!(version, b"HTTP/1.0" | b"HTTP/1.1") && std::str::from_utf8(target).is_ok() {
        let status = other.parse(bytes).unwrap_or_else(|error| panic!("{error} for httparse"));
        assert_eq!(status, httparse::Status::Complete(bytes.len()));
        same_lines(other.headers, headers);
    }

    let mut expected = [method, b" ", &origin_form(method, target), b" HTTP/1.1\r\n"].concat();
    for line in lines.take_while(|line| !line.is_empty()) {
        let colon = line.iter().position(|byte| *byte == b':').expect("a colon");
        let last = line[colon + 1..].iter().rposition(|byte| !matches!(byte, b' ' | b'\t'));
        // Of an empty value nobody can say whether the white space is in front or behind.
        let end = last.map_or(line.len(), |last| colon + last + 2);
        expected.extend_from_slice(&line[..end]);
        expected.extend_from_slice(b"\r\n");
    }
    let mut out = Vec::new();
    write::request_line(&mut out, head.request.method(), head.request.uri(), Some(&head.layout));
    write::fields(&mut out, headers, Some(&head.layout));
    assert_eq!(out.escape_ascii().to_string(), expected.escape_ascii().to_string());
    out.extend_from_slice(b"\r\n");
    // Of HTTP/1.0 it may have no Host, which HTTP/1.1 has to have; whoever sends it on gives it one.
    if target.first() == Some(&b'/') && headers.contains_key("host") {
        let (again, taken) = read_request(&out, out.len(), &ROOMY).unwrap().expect("as complete as before");
        assert_eq!(taken, out.len());
        assert_eq!((again.framing, again.request.headers()), (head.framing, headers));
        assert_eq!(again.request.uri(), head.request.uri());
    }
}

/// What a server is asked for, by this target.
fn origin_form(method: &[u8], target: &[u8]) -> Vec<u8> {
    if method == b"CONNECT" || target.first() == Some(&b'/') || target == b"*" {
        return target.to_vec();
    }
    let authority = target.windows(3).position(|window| window == b"://").expect("absolute form") + 3;
    let rest = target[authority..].iter().position(|byte| matches!(byte, b'/' | b'?'));
    match rest.map(|rest| &target[authority + rest..]) {
        None if method == b"OPTIONS" => b"*".to_vec(),
        None => b"/".to_vec(),
        Some(rest @ [b'?', ..]) => [b"/", rest].concat(),
        Some(rest) => rest.to_vec(),
    }
}

fn same_lines(theirs: &[httparse::Header<'_>], ours: &HeaderMap) {
    assert_eq!(theirs.len(), ours.len(), "as many lines");
    for name in ours.keys() {
        let theirs = theirs.iter().filter(|line| line.name.eq_ignore_ascii_case(name.as_str()));
        let theirs = theirs.map(|line| line.value.to_vec()).collect::<Vec<_>>();
        let ours = ours.get_all(name).iter().map(|value| value.as_bytes().to_vec()).collect::<Vec<_>>();
        assert_eq!(theirs, ours, "{name}");
    }
}

/// A response head is the same however it arrives, is refused as a service's fault only, and what was written of it is read
/// with the same meaning, and then written the same.
pub fn response(data: &[u8]) {
    for method in [Method::GET, Method::HEAD, Method::CONNECT] {
        for limits in [TIGHT, ROOMY] {
            let once = read_response(data, data.len(), &limits, &method);
            assert!(!matches!(once, Err(refused) if refused.status != 502));
            for piece in [1, 2, 7] {
                assert_eq!(told(&once), told(&read_response(data, piece, &limits, &method)));
            }
        }
        let Ok(Some((head, _))) = read_response(data, data.len(), &ROOMY, &method) else { continue };
        let headers = head.response.headers();
        assert!(headers.get_all("content-length").iter().count() <= 1);
        assert!(!(headers.contains_key("content-length") && headers.contains_key("transfer-encoding")));
        assert!(!(head.framing == Framing::UntilClose && head.keep_alive));

        let written = write_response(&head);
        let (again, taken) =
            read_response(&written, written.len(), &ROOMY, &method).unwrap().expect("complete");
        assert_eq!(taken, written.len());
        let status = |head: &ResponseHead| head.response.status();
        assert_eq!(status(&again), status(&head));
        assert_eq!(again.response.headers(), headers);
        let lengths = headers.contains_key("content-length") || headers.contains_key("transfer-encoding");
        if lengths || head.framing == Framing::None {
            assert_eq!(again.framing, head.framing);
        }
        assert_eq!(write_response(&again).escape_ascii().to_string(), written.escape_ascii().to_string());
    }
}

fn write_response(head: &ResponseHead) -> Vec<u8> {
    let mut out = Vec::new();
    write::status_line(&mut out, head.response.status(), Some(&head.layout));
    write::fields(&mut out, head.response.headers(), Some(&head.layout));
    out.extend_from_slice(b"\r\n");
    out
}

/// Content, how many trailers, and how many bytes it all took.
type Content = Result<Option<(Vec<u8>, usize, usize)>, u16>;

fn decode(data: &[u8], piece: usize, limits: &Limits) -> Content {
    let (mut decoder, mut buffer, mut content, mut taken) =
        (Decoder::default(), BytesMut::new(), Vec::new(), 0);
    let mut pieces = data.chunks(piece.max(1));
    loop {
        match decoder.decode(&mut buffer, limits).map_err(|refused| refused.status.as_u16())? {
            Decoded::More => {
                let Some(piece) = pieces.next() else { return Ok(None) };
                buffer.extend_from_slice(piece);
                taken += piece.len();
            }
            Decoded::Data(data) => {
                assert!(!data.is_empty());
                content.extend_from_slice(&data);
            }
            Decoded::End(trailers) => {
                assert!(trailers.as_ref().is_none_or(|trailers| !trailers.is_empty()));
                let trailers = trailers.map_or(0, |trailers| trailers.len());
                return Ok(Some((content, trailers, taken - buffer.len())));
            }
        }
    }
}

/// Chunked content is the same however it arrives, and what the grammar says; and any content, in chunks of any size, is
/// what it was.
pub fn chunked(data: &[u8]) {
    for limits in [TIGHT, ROOMY] {
        let once = decode(data, data.len(), &limits);
        for piece in [1, 2, 7] {
            assert_eq!(decode(data, piece, &limits), once, "{piece} bytes at a time");
        }
    }
    if let Ok(Some((content, _, taken))) = decode(data, data.len(), &ROOMY) {
        assert_eq!(by_the_grammar(&data[..taken]).as_ref(), Some(&content));
    }

    // The first byte says how long the chunks are.
    let size = data.first().map_or(1, |first| usize::from(*first) + 1);
    let mut encoded = Vec::new();
    for chunk in data.chunks(size) {
        write::chunk_size(&mut encoded, chunk.len());
        encoded.extend_from_slice(chunk);
        encoded.extend_from_slice(b"\r\n");
    }
    write::last_chunk(&mut encoded, None);
    let length = encoded.len();
    encoded.extend_from_slice(b"GET /");
    for piece in [1, 3, encoded.len()] {
        assert_eq!(decode(&encoded, piece, &ROOMY), Ok(Some((data.to_vec(), 0, length))));
    }
}

/// The content of a whole chunked body, read in the plainest way.
fn by_the_grammar(mut rest: &[u8]) -> Option<Vec<u8>> {
    let mut content = Vec::new();
    loop {
        let end = rest.windows(2).position(|window| window == b"\r\n")?;
        let line = std::str::from_utf8(rest[..end].split(|byte| *byte == b';').next()?).ok()?;
        let size = u64::from_str_radix(line, 16).ok()?;
        if line.starts_with('+') {
            return None;
        }
        rest = &rest[end + 2..];
        if size == 0 {
            return (rest == b"\r\n" || rest.ends_with(b"\r\n\r\n")).then_some(content);
        }
        let size = usize::try_from(size).ok()?;
        content.extend_from_slice(rest.get(..size)?);
        rest = rest.get(size..)?.strip_prefix(b"\r\n")?;
    }
}
