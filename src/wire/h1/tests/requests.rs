//! Heads of requests.

use bytes::BytesMut;
use http::{Method, Version};

use super::{LIMITS, lines, request};
use crate::wire::h1::{Framing, Limits, head};

/// A request with this first line.
fn with_line(line: &[u8]) -> Vec<u8> {
    [line, b"\r\nHost: shop\r\n\r\n"].concat()
}

/// A request with these lines besides `Host`.
fn with_fields(fields: &str) -> String {
    format!("POST / HTTP/1.1\r\nHost: shop\r\n{fields}\r\n\r\n")
}

fn status_of(bytes: impl AsRef<[u8]>) -> Option<u16> {
    request(bytes).err().map(|refused| refused.status.as_u16())
}

#[test]
fn a_request_line_has_three_words_and_one_space_between_them() {
    for (line, status) in [
        (&b"GET / HTTP/1.1"[..], None),
        (b"get / HTTP/1.1", None),
        (b"M-SEARCH / HTTP/1.0", None),
        (b"GET  / HTTP/1.1", Some(400)),
        (b"GET /  HTTP/1.1", Some(400)),
        (b"GET / HTTP/1.1 ", Some(400)),
        (b" GET / HTTP/1.1", Some(400)),
        (b"GET\t/ HTTP/1.1", Some(400)),
        (b"GET /a b HTTP/1.1", Some(400)),  // SMG-20
        (b"GET /a\rb HTTP/1.1", Some(400)), // SMG-6
        (b"GET /", Some(400)),
        (b"GET", Some(400)),
        (b"G(T / HTTP/1.1", Some(400)),
        (b"G\xc3\x84T / HTTP/1.1", Some(400)),
        // SMG-23.
        (b"GET / http/1.1", Some(400)),
        (b"GET / HTTP/1.10", Some(400)),
        (b"GET / HTTP/1.", Some(400)),
        (b"GET / HTTP/01.1", Some(400)),
        (b"GET / HTTP/0.9", Some(400)),
        (b"GET / HTTP/2", Some(400)),
        (b"GET / HTTP/2.0", Some(505)),
        (b"PRI * HTTP/2.0", Some(505)),
        (b"GET / HTTP/9.1", Some(505)),
    ] {
        assert_eq!(status_of(with_line(line)), status, "{}", line.escape_ascii());
    }
    // SMG-21.
    assert_eq!(status_of(with_line(format!("{} / HTTP/1.1", "M".repeat(64)).as_bytes())), None);
    assert_eq!(status_of(with_line(format!("{} / HTTP/1.1", "M".repeat(65)).as_bytes())), Some(501));
}

#[test]
fn a_minor_version_that_we_do_not_know_is_read_as_the_one_we_know() {
    for (text, version) in [("1.0", Version::HTTP_10), ("1.1", Version::HTTP_11), ("1.7", Version::HTTP_11)] {
        let head = request(with_line(format!("GET / HTTP/{text}").as_bytes())).unwrap();
        assert_eq!(head.request.version(), version);
    }
}

#[test]
fn a_target_has_one_of_four_forms() {
    for (line, uri) in [
        (&b"GET / HTTP/1.1"[..], Some("/")),
        (b"GET /a/../b?x=%2F&& HTTP/1.1", Some("/a/../b?x=%2F&&")), // HOP-11
        (b"GET //a?b?c HTTP/1.1", Some("//a?b?c")),
        (b"GET /\xc3\xa4 HTTP/1.1", Some("/\u{e4}")),
        (b"GET http://shop HTTP/1.1", Some("http://shop/")),
        (b"GET HTTP://user:pw@shop:81/a?b HTTP/1.1", Some("http://user:pw@shop:81/a?b")),
        (b"GET https://[::1]:81?b HTTP/1.1", Some("https://[::1]:81/?b")),
        (b"GET ftp://shop/a HTTP/1.1", Some("ftp://shop/a")),
        (b"OPTIONS * HTTP/1.1", Some("*")),
        (b"CONNECT shop:443 HTTP/1.1", Some("shop:443")),
        (b"CONNECT [::1]:443 HTTP/1.1", Some("[::1]:443")),
        (b"GET * HTTP/1.1", None),
        (b"OPTIONS *a HTTP/1.1", None),
        (b"GET shop:443 HTTP/1.1", None),
        (b"GET shop HTTP/1.1", None),
        (b"GET ?a HTTP/1.1", None),
        (b"GET /a#b HTTP/1.1", None),
        (b"GET /a\x7f HTTP/1.1", None),
        (b"GET /a\x00 HTTP/1.1", None),
        (b"GET http:///a HTTP/1.1", None),
        (b"GET http://:80/a HTTP/1.1", None),
        (b"GET http://a@b@c/ HTTP/1.1", None),
        (b"GET http://shop:x/ HTTP/1.1", None),
        (b"GET http:/shop HTTP/1.1", None),
        (b"GET 1http://shop/ HTTP/1.1", None),
        (b"GET http://sh\\op/ HTTP/1.1", None),
        // SMG-24.
        (b"CONNECT shop HTTP/1.1", None),
        (b"CONNECT shop: HTTP/1.1", None),
        (b"CONNECT shop:0 HTTP/1.1", None),
        (b"CONNECT shop:65536 HTTP/1.1", None),
        (b"CONNECT shop:+80 HTTP/1.1", None),
        (b"CONNECT :80 HTTP/1.1", None),
        (b"CONNECT user@shop:80 HTTP/1.1", None),
        (b"CONNECT http://shop:80/ HTTP/1.1", None),
        (b"CONNECT / HTTP/1.1", None),
    ] {
        let line_text = line.escape_ascii();
        match (request(with_line(line)), uri) {
            (Ok(head), Some(uri)) => assert_eq!(head.request.uri().to_string(), uri, "{line_text}"),
            (Err(refused), None) => assert_eq!(refused.status, 400, "{line_text}"),
            (result, _) => panic!("{line_text} became {result:?}"),
        }
    }
}

#[test]
fn what_a_uri_does_not_hold_is_percent_encoded_in_it() {
    for (target, uri) in [
        (&b"/a<b>`c\"?{\\}^|"[..], "/a%3Cb%3E%60c%22?%7B%5C%7D%5E%7C"),
        (b"/\xff?a", "/%FF?a"),
        (b"http://shop?a=b", "http://shop/?a=b"),
        (b"http://shop?a>b", "http://shop/?a%3Eb"),
    ] {
        let head = request(with_line(&[b"GET ", target, b" HTTP/1.1"].concat())).unwrap();
        assert_eq!(head.request.uri().to_string(), uri);
        let path = head.request.uri().path_and_query().unwrap();
        assert!(path.as_str().starts_with('/') && uri.ends_with(path.as_str()), "{path}");
    }
}

#[test]
fn a_host_is_one_host_with_or_without_a_port() {
    for (host, fine) in [
        ("shop", true),
        ("shop:", true),
        ("shop:8080", true),
        ("", true),
        ("a_b.example", true),
        ("a%20b", true),
        ("[2001:db8::1]", true),
        ("[2001:db8::1]:80", true),
        ("[fe80::1%25eth0]", true),
        ("[v1.x:y]", true),
        (":80", false),
        ("a b", false),
        ("a,b", true), // By the grammar; nobody is called so.
        ("a/b", false),
        ("user@shop", false),
        ("shop:80:80", false),
        ("shop:x", false),
        ("a%2", false),
        ("[::1", false),
        ("[::1]x", false),
        ("[::g]", false),
        ("[]", false),
        ("[v.x]", false),
        ("http://shop", false),
        ("sh\u{f6}p", false),
    ] {
        for line in ["GET / HTTP/1.1", "GET http://other/ HTTP/1.1", "GET / HTTP/1.0"] {
            let bytes = format!("{line}\r\nHost: {host}\r\n\r\n");
            assert_eq!(status_of(&bytes), (!fine).then_some(400), "{bytes:?}"); // SMG-2
        }
    }
    assert_eq!(status_of("GET / HTTP/1.1\r\n\r\n"), Some(400), "SMG-1");
    assert_eq!(status_of("GET http://shop/ HTTP/1.1\r\n\r\n"), Some(400), "SMG-1");
    assert_eq!(status_of("GET / HTTP/1.0\r\n\r\n"), None);
    assert_eq!(status_of("GET / HTTP/1.1\r\nHost: a\r\nhost: a\r\n\r\n"), Some(400), "SMG-2");
}

#[test]
fn lines_are_names_and_values() {
    let head =
        request(with_fields("X-a:b\r\nX-B: \t c  d \t \r\nX-C:\r\nX-D: \r\nx-a: \u{ff}\nX-E:\tf:g")).unwrap();
    let expected = ["host: shop", "x-a: b", "x-a: \\xc3\\xbf", "x-b: c  d", "x-c: ", "x-d: ", "x-e: f:g"];
    assert_eq!(lines(head.request.headers()), expected);
    for line in [
        "X-A : b",        // SMG-3
        "X-A\t: b",       // SMG-3
        "X-A: b\r\n c",   // SMG-4
        "X-A: b\r\n\t",   // SMG-4
        "X-A: b\rX-B: c", // SMG-6
        "X-A: b\r\r\nX: y",
        "X-A\r: b",
        "X-A: b\0", // SMG-7
        "X-A: b\x0b",
        "X-A: \x7f",
        "X-A",
        ": b",
        "X(A: b",
        "X\u{e4}: b",
        "X A: b",
        "\r",
    ] {
        assert_eq!(status_of(with_fields(line)), Some(400), "{line:?}");
    }
    assert_eq!(status_of("GET / HTTP/1.1\r\n Host: shop\r\n\r\n"), Some(400), "SMG-5");
    assert_eq!(status_of("GET / HTTP/1.1\r\n \r\nHost: shop\r\n\r\n"), Some(400), "SMG-5");
}

#[test]
fn lines_may_end_with_lf_alone() {
    for bytes in ["GET / HTTP/1.1\nHost: shop\n\n", "GET / HTTP/1.1\r\nHost: shop\n\r\n"] {
        assert_eq!(lines(request(bytes).unwrap().request.headers()), ["host: shop"]);
    }
}

#[test]
fn a_few_empty_lines_before_a_request_are_passed_over() {
    for empty in ["\r\n", "\n", "\r\n\n\r\n", &"\r\n".repeat(8)] {
        assert_eq!(status_of(format!("{empty}GET / HTTP/1.1\r\nHost: shop\r\n\r\n")), None);
    }
    assert_eq!(status_of("\r\n".repeat(9)), Some(400));
    assert_eq!(status_of("\rGET / HTTP/1.1\r\nHost: shop\r\n\r\n"), Some(400));
}

#[test]
fn the_content_of_a_request_has_one_length_or_is_chunked() {
    for (fields, framing) in [
        ("", Ok(Framing::None)),
        ("Content-Length: 0", Ok(Framing::None)),
        ("Content-Length: 42", Ok(Framing::Length(42))),
        ("Content-Length: 0042", Ok(Framing::Length(42))),
        ("Content-Length: 9223372036854775807", Ok(Framing::Length(i64::MAX as u64))),
        ("Transfer-Encoding: chunked", Ok(Framing::Chunked)),
        ("Transfer-Encoding: \tChunked ", Ok(Framing::Chunked)),
        // SMG-8.
        ("Transfer-Encoding: chunked\r\nContent-Length: 0", Err(400)),
        ("Content-Length: 5\r\nTransfer-Encoding: identity", Err(400)),
        // SMG-10, SMG-11.
        ("Transfer-Encoding: gzip", Err(400)),
        ("Transfer-Encoding: identity", Err(400)),
        ("Transfer-Encoding: xchunked", Err(400)),
        ("Transfer-Encoding: chunked, identity", Err(400)),
        ("Transfer-Encoding: chunked, chunked", Err(400)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", Err(400)),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", Err(400)),
        ("Transfer-Encoding: \x0bchunked", Err(400)),
        ("Transfer-Encoding: chunked;a=b", Err(400)),
        ("Transfer-Encoding: \"chunked\"", Err(400)),
        ("Transfer-Encoding:", Err(400)),
        ("Transfer-Encoding: ,chunked", Err(400)),
        ("Transfer-Encoding: chunked,", Err(400)),
        ("Transfer-Encoding:\r\nTransfer-Encoding: chunked", Err(400)),
        ("Transfer-Encoding: gzip, chunked", Err(501)),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", Err(501)),
        ("Transfer-Encoding: identity, chunked", Err(501)),
        // SMG-12 to SMG-15.
        ("Content-Length: 5\r\nContent-Length: 6", Err(400)),
        ("Content-Length: 5\r\nContent-Length: 5", Err(400)),
        ("Content-Length: 5, 5", Err(400)),
        ("Content-Length: +5", Err(400)),
        ("Content-Length: -1", Err(400)),
        ("Content-Length: 0x5", Err(400)),
        ("Content-Length: 5 5", Err(400)),
        ("Content-Length: 1e3", Err(400)),
        ("Content-Length:", Err(400)),
        ("Content-Length: 9223372036854775808", Err(400)),
        ("Content-Length: 18446744073709551621", Err(400)),
    ] {
        let read = request(with_fields(fields).replace("\r\n\r\n\r\n", "\r\n\r\n"));
        let read = read.map(|head| head.framing).map_err(|refused| refused.status.as_u16());
        assert_eq!(read, framing, "{fields:?}");
    }
    let old = "POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n";
    assert_eq!(status_of(old), Some(400), "SMG-9");
    for line in ["Content-Length: 5", "Transfer-Encoding: chunked"] {
        let bytes = format!("CONNECT shop:443 HTTP/1.1\r\nHost: shop:443\r\n{line}\r\n\r\n");
        assert_eq!(status_of(&bytes), Some(400), "{bytes:?}");
    }
}

#[test]
fn a_connection_goes_on_as_its_version_and_its_options_say() {
    for (version, fields, kept) in [
        ("1.1", "", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: x, CLOSE ,y\r\n", false),
        ("1.1", "Connection: x\r\nConnection: close\r\n", false),
        ("1.1", "Connection: closed\r\n", true),
        ("1.1", "Connection: keep-alive, close\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: Keep-Alive\r\n", true),
        ("1.0", "Connection: keep-alive\r\nConnection: close\r\n", false),
        ("1.0", "Proxy-Connection: keep-alive\r\n", false),
    ] {
        let head = request(format!("GET / HTTP/{version}\r\nHost: shop\r\n{fields}\r\n")).unwrap();
        assert_eq!(head.keep_alive, kept, "{version} {fields:?}");
    }
}

#[test]
fn what_is_too_long_is_refused_before_it_ends() {
    let limits = Limits { head_bytes: 200, lines: 3, target_bytes: 20 };
    let line = format!("GET /{} HTTP/1.1\r\nHost: shop\r\n", "a".repeat(19));
    for (bytes, status) in [
        (format!("{line}\r\n"), None),
        (line.clone(), None),
        (format!("GET /{}", "a".repeat(19)), None),
        (format!("GET /{}", "a".repeat(20)), Some(414)), // SMG-21
        (format!("GET /{} HTTP/1.1\r\nHost: shop\r\n\r\n", "a".repeat(20)), Some(414)),
        ("M".repeat(64), None),
        ("M".repeat(65), Some(501)), // SMG-21
        // SMG-22.
        (format!("{line}X: {}", "a".repeat(199 - line.len() - 3)), None),
        (format!("{line}X: {}", "a".repeat(200 - line.len() - 3)), Some(431)),
        (format!("{line}X: {}\r\n\r\n", "a".repeat(200 - line.len() - 7)), None),
        (format!("{line}X: {}\r\n\r\n", "a".repeat(201 - line.len() - 7)), Some(431)),
        (format!("{line}A:\r\nB:\r\n\r\n"), None),
        (format!("{line}A:\r\nB:\r\nC:\r\n\r\n"), Some(431)),
        // What is no HTTP at all.
        ("\u{16}\u{3}".to_owned(), Some(400)),
    ] {
        let read = head::request(&mut BytesMut::from(&*bytes), &mut 0, &limits);
        assert_eq!(read.err().map(|refused| refused.status.as_u16()), status, "{bytes:?}");
    }
}

#[test]
fn each_byte_is_looked_at_once_however_it_arrives() {
    let bytes = format!("GET / HTTP/1.1\r\nHost: shop\r\nX: {}\r\n\r\nrest", "a".repeat(1000));
    let (mut read, mut scanned) = (BytesMut::new(), 0);
    for (index, byte) in bytes.bytes().enumerate() {
        read.extend_from_slice(&[byte]);
        let head = head::request(&mut read, &mut scanned, &LIMITS).unwrap();
        assert_eq!(head.is_some(), index == bytes.len() - 5);
        if let Some(head) = head {
            assert_eq!((head.request.method(), scanned), (&Method::GET, 0));
            return;
        }
        assert!(scanned + 2 >= read.len(), "{scanned} of {}", read.len());
    }
}

#[test]
fn names_and_methods_of_the_http_crate_are_tokens() {
    for byte in 0..=u8::MAX {
        let token = byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        assert_eq!(http::HeaderName::from_bytes(&[byte]).is_ok(), token, "{byte:#x}");
        assert_eq!(http::HeaderName::from_bytes(&[byte; 100]).is_ok(), token, "{byte:#x}, in a long name");
        assert_eq!(Method::from_bytes(&[byte]).is_ok(), token, "{byte:#x}");
        let text = byte == b'\t' || byte >= b' ' && byte != 0x7f;
        assert_eq!(http::HeaderValue::from_bytes(&[byte]).is_ok(), text, "{byte:#x}");
    }
}
