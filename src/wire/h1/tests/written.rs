//! What is written.

use http::header::HOST;
use http::uri::PathAndQuery;
use http::{HeaderMap, HeaderValue, Method, StatusCode, Uri};

use super::{request, response};
use crate::wire::h1::write;

fn written(headers: &HeaderMap, layout: Option<&crate::wire::h1::Layout>) -> String {
    let mut out = Vec::new();
    write::fields(&mut out, headers, layout);
    String::from_utf8(out).unwrap()
}

/// What the request line of a request for `target` is when its `Uri` has become what `change` makes of it.
fn line_for(method: &str, target: &[u8], change: impl FnOnce(&mut Uri)) -> Vec<u8> {
    let bytes = [method.as_bytes(), b" ", target, b" HTTP/1.1\r\nHost: shop\r\n\r\n"].concat();
    let mut head = request(bytes).unwrap();
    change(head.request.uri_mut());
    let mut out = Vec::new();
    write::request_line(&mut out, head.request.method(), head.request.uri(), Some(&head.layout));
    let line = out.strip_suffix(b" HTTP/1.1\r\n").expect("a request line");
    line.strip_prefix(format!("{method} ").as_bytes()).expect("a request line").to_vec()
}

/// What the way out does with a target in absolute form.
fn to_origin(uri: &mut Uri) {
    *uri = Uri::from(uri.path_and_query().unwrap().clone());
}

/// What a destination with a path of its own does.
fn below_base(uri: &mut Uri) {
    let path = format!("/base{}", uri.path_and_query().unwrap());
    *uri = Uri::from(PathAndQuery::try_from(path).unwrap());
}

#[test]
fn a_target_is_written_as_it_was_read() {
    for target in [&b"/"[..], b"/a/../b?x=%2F&&", b"/a<b>`c\"?{\\}^|", b"/\xff?\xe4", b"/\xc3\xa4", b"//x"] {
        assert_eq!(line_for("GET", target, |_| {}), target);
        let below = [b"/base", target].concat();
        assert_eq!(line_for("GET", target, below_base), below);
    }
    for (target, path) in [
        (&b"http://shop"[..], &b"/"[..]),
        (b"http://shop/", b"/"),
        (b"http://shop/a?b", b"/a?b"),
        (b"http://shop?b", b"/?b"),
        (b"http://shop/a<b", b"/a<b"),
        (b"http://shop?a<b", b"/?a<b"),
    ] {
        assert_eq!(line_for("GET", target, |_| {}), path);
        assert_eq!(line_for("GET", target, to_origin), path);
    }
    // FWD-2.
    assert_eq!(line_for("OPTIONS", b"*", |_| {}), b"*");
    assert_eq!(line_for("OPTIONS", b"http://shop:81", to_origin), b"*");
    assert_eq!(line_for("OPTIONS", b"http://shop:81/", to_origin), b"/");
    assert_eq!(line_for("OPTIONS", b"http://shop:81", below_base), b"/base/");
    assert_eq!(line_for("CONNECT", b"shop:443", |_| {}), b"shop:443");
    // Another one altogether.
    assert_eq!(line_for("GET", b"/a<b", |uri| *uri = Uri::from_static("/c")), b"/c");
}

#[test]
fn a_target_without_a_layout_is_the_uri() {
    for (uri, line) in
        [("/a?b", "GET /a?b"), ("http://shop", "GET /"), ("http://shop?b", "GET /?b"), ("*", "GET *")]
    {
        let mut out = Vec::new();
        write::request_line(&mut out, &Method::GET, &uri.parse().unwrap(), None);
        assert_eq!(String::from_utf8(out).unwrap(), format!("{line} HTTP/1.1\r\n"));
    }
}

#[test]
fn a_reason_phrase_is_kept_while_the_status_is() {
    let head = response(b"HTTP/1.0 404 Nicht gefunden \xe4\r\n\r\n").unwrap();
    let empty = response("HTTP/1.1 404\r\n\r\n").unwrap();
    for (status, layout, line) in [
        (404, Some(&head.layout), &b"HTTP/1.1 404 Nicht gefunden \xe4\r\n"[..]),
        (200, Some(&head.layout), b"HTTP/1.1 200 OK\r\n"),
        (404, Some(&empty.layout), b"HTTP/1.1 404 \r\n"),
        (404, None, b"HTTP/1.1 404 Not Found\r\n"),
        (799, None, b"HTTP/1.1 799 \r\n"),
    ] {
        let mut out = Vec::new();
        write::status_line(&mut out, StatusCode::from_u16(status).unwrap(), layout);
        assert_eq!(out, line);
    }
}

const LINES: &str = "hOST: shop\r\nX-One:  1\r\nB:\r\nx-one:\t2\r\nC: d\r\nAccept: */*\r\n";

fn head() -> crate::wire::h1::head::RequestHead {
    request(format!("GET / HTTP/1.1\r\n{LINES}\r\n")).unwrap()
}

#[test]
fn lines_are_written_as_they_were_read() {
    let head = head();
    assert_eq!(written(head.request.headers(), Some(&head.layout)), LINES);
    // White space at the end of a line is not a part of it (RFC 9112 section 5.1), and lines end with CRLF.
    let head = request("GET / HTTP/1.1\nHost: a \t\r\nB: c \nC: d\nD: \r\n\r\n").unwrap();
    assert_eq!(written(head.request.headers(), Some(&head.layout)), "Host: a\r\nB: c\r\nC: d\r\nD: \r\n");
}

#[test]
fn what_is_gone_is_not_written_and_what_is_new_comes_behind() {
    let mut head = head();
    let headers = head.request.headers_mut();
    headers.remove("b");
    headers.append("x-one", HeaderValue::from_static("3"));
    headers.insert("traceparent", HeaderValue::from_static("00"));
    assert_eq!(
        written(head.request.headers(), Some(&head.layout)),
        "hOST: shop\r\nX-One:  1\r\nx-one:\t2\r\nC: d\r\nAccept: */*\r\nx-one: 3\r\ntraceparent: 00\r\n"
    );
    head.request.headers_mut().insert(HOST, HeaderValue::from_static("other"));
    let lines = written(head.request.headers(), Some(&head.layout));
    assert!(lines.starts_with("Host: other\r\nX-One:  1\r\n"), "{lines}");
    assert_eq!(lines.to_lowercase().matches("host:").count(), 1);
}

#[test]
fn no_value_is_lost_that_was_copied() {
    let mut head = head();
    let headers = head.request.headers_mut();
    let copy = headers["c"].clone();
    headers.append("c", copy.clone());
    headers.insert("x-c", copy);
    let empty = headers["b"].clone();
    headers.append("b", empty);
    let lines = written(head.request.headers(), Some(&head.layout));
    assert!(lines.starts_with(LINES), "{lines}");
    let mut rest: Vec<_> = lines[LINES.len()..].lines().collect();
    rest.sort_unstable();
    assert_eq!(rest, ["B:", "C: d", "x-c: d"]);
}

#[test]
fn a_value_that_was_copied_to_another_name_has_that_name() {
    let mut head = request("GET / HTTP/1.1\r\nHost: shop\r\nX-C: d\r\nX-E: f\r\n\r\n").unwrap();
    let headers = head.request.headers_mut();
    let (c, e) = (headers["x-c"].clone(), headers["x-e"].clone());
    headers.remove("x-c");
    // The end of its old name, and one as long as its old name.
    headers.insert("c", c);
    headers.insert("x-y", e);
    let lines = written(head.request.headers(), Some(&head.layout));
    assert!(lines.starts_with("Host: shop\r\nX-E: f\r\n"), "{lines}");
    assert!(lines.contains("\r\nc: d\r\n") && lines.contains("\r\nx-y: f\r\n"), "{lines}");
}

#[test]
fn repaired_lines_stay_in_their_order() {
    let head =
        response("HTTP/1.1 200 OK\r\nSet-Cookie : a\r\nX: y\r\n z\r\njunk\r\nSet-Cookie: b\r\n\r\n").unwrap();
    let lines = written(head.response.headers(), Some(&head.layout));
    assert_eq!(lines, "Set-Cookie:  a\r\nX: y   z\r\nSet-Cookie: b\r\n");
}

#[test]
fn many_lines_keep_their_order_too() {
    let lines: String = (0..250).map(|index| format!("X-{}: {index}\r\n", index % 7)).collect();
    let head = request(format!("GET / HTTP/1.1\r\nHost: shop\r\n{lines}\r\n")).unwrap();
    assert_eq!(written(head.request.headers(), Some(&head.layout)), format!("Host: shop\r\n{lines}"));
}

#[test]
fn without_a_layout_host_comes_first() {
    let mut headers = HeaderMap::new();
    headers.insert("a", HeaderValue::from_static("b"));
    headers.insert(HOST, HeaderValue::from_static("shop"));
    headers.append("a", HeaderValue::from_static(""));
    assert_eq!(written(&headers, None), "Host: shop\r\na: b\r\na: \r\n");
}

#[test]
fn chunks_are_written_as_they_are_read() {
    for (size, line) in [
        (1, "1\r\n"),
        (15, "f\r\n"),
        (16, "10\r\n"),
        (65_536, "10000\r\n"),
        (usize::MAX, "ffffffffffffffff\r\n"),
    ] {
        let mut out = Vec::new();
        write::chunk_size(&mut out, size);
        assert_eq!(out, line.as_bytes());
    }
    let mut trailers = HeaderMap::new();
    trailers.insert("a", HeaderValue::from_static("b"));
    let mut out = Vec::new();
    write::last_chunk(&mut out, Some(&trailers));
    write::last_chunk(&mut out, None);
    assert_eq!(out, b"0\r\na: b\r\n\r\n0\r\n\r\n");
}
