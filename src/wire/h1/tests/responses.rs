//! Heads of responses.

use bytes::BytesMut;
use http::{Method, Version};

use super::{LIMITS, answer, lines, response};
use crate::wire::h1::{Framing, Limits, head};

fn with_fields(fields: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{fields}\r\n\r\n").replace("\r\n\r\n\r\n", "\r\n\r\n")
}

#[test]
fn a_status_line_has_a_version_and_three_digits() {
    for (line, read) in [
        (&b"HTTP/1.1 200 OK"[..], Some((Version::HTTP_11, 200, &b"OK"[..]))),
        (b"HTTP/1.0 999 What  now ", Some((Version::HTTP_10, 999, b"What  now "))),
        (b"HTTP/1.1 404 ", Some((Version::HTTP_11, 404, b""))),
        (b"HTTP/1.1 404", Some((Version::HTTP_11, 404, b""))),
        (b"HTTP/1.5 100 \xe4\t", Some((Version::HTTP_11, 100, b"\xe4\t"))),
        (b"HTTP/1.1 099 OK", None),
        (b"HTTP/1.1 20 OK", None),
        (b"HTTP/1.1 2000 OK", None),
        (b"HTTP/1.1 200OK", None),
        (b"HTTP/1.1 +20 OK", None),
        (b"HTTP/1.1  200 OK", None),
        (b"HTTP/1.1", None),
        (b"HTTP/1.10 200 OK", None),
        (b"HTTP/2.0 200 OK", None),
        (b"http/1.1 200 OK", None),
        (b" HTTP/1.1 200 OK", None),
        (b"HTTP/1.1 200 O\rK", None),
        (b"HTTP/1.1 200 O\0K", None),
        (b"\r\nHTTP/1.1 200 OK", None), // SMG-19
        (b"<html>", None),
    ] {
        let text = line.escape_ascii();
        match (response([line, b"\r\n\r\n"].concat()), read) {
            (Ok(head), Some((version, status, reason))) => {
                assert_eq!(
                    (head.response.version(), head.response.status().as_u16()),
                    (version, status),
                    "{text}"
                );
                assert_eq!(head.layout.reason, reason, "{text}");
            }
            (Err(refused), None) => assert_eq!(refused.status, 502, "{text}"),
            (result, _) => panic!("{text} became {result:?}"),
        }
    }
}

#[test]
fn what_is_no_http_is_not_waited_for() {
    for (bytes, refused) in [("", false), ("HTT", false), ("HTTP/1.1", false), ("<", true), ("HTTP/2", true)]
    {
        let read = head::response(&mut BytesMut::from(bytes), &mut 0, &LIMITS, &Method::GET);
        assert_eq!(read.is_err(), refused, "{bytes:?}");
    }
}

#[test]
fn a_service_is_forgiven_what_does_not_matter() {
    for (fields, read) in [
        ("A : b", &["a: b"][..]),                     // SMG-3
        ("A \t:b\r\nC\t: d:e", &["a: b", "c: d:e"]),  // SMG-3
        ("A: b\r\n  c\r\n\td", &["a: b    c  \\td"]), // SMG-4
        ("A:\r\n b\r\nC: d", &["a: b", "c: d"]),      // SMG-4
        ("A: b\n c : d", &["a: b  c : d"]),           // SMG-4
        ("A\r\nB: c", &["b: c"]),
        ("A(: b\r\nB: c", &["b: c"]),
        ("A B: b\r\nB: c", &["b: c"]),
        (": b\r\nB: c", &["b: c"]),
        (" : b", &[]),
    ] {
        let read_now = response(with_fields(fields)).map(|head| lines(head.response.headers()));
        if fields.starts_with(' ') {
            assert_eq!(read_now.unwrap_err().status, 502, "SMG-5");
        } else {
            assert_eq!(read_now.unwrap(), read, "{fields:?}");
        }
    }
    for fields in ["A: b\rc", "A: b\0", "A\0: b", "A\rB: c: d", "A(\x1b: b"] {
        assert_eq!(response(with_fields(fields)).unwrap_err().status, 502, "{fields:?}");
    }
}

#[test]
fn the_content_of_a_response_ends_where_only_one_end_can_be() {
    let (none, close, chunked) = (Framing::None, Framing::UntilClose, Framing::Chunked);
    for (fields, read) in [
        ("", Some((close, false))),
        ("Content-Length: 0", Some((none, true))),
        ("Content-Length: 42", Some((Framing::Length(42), true))),
        ("Content-Length: 42\r\nConnection: close", Some((Framing::Length(42), false))),
        ("Transfer-Encoding: chunked", Some((chunked, true))),
        ("Transfer-Encoding: CHUNKED", Some((chunked, true))),
        ("Transfer-Encoding: chunked\r\nContent-Length: 42", Some((chunked, false))), // SMG-8
        ("Transfer-Encoding: identity", Some((close, false))),
        ("Transfer-Encoding: identity\r\nContent-Length: 5", Some((close, false))),
        ("Transfer-Encoding: gzip", None),
        ("Transfer-Encoding: gzip, chunked", None),
        ("Transfer-Encoding: chunked, chunked", None), // SMG-11
        ("Transfer-Encoding: chunked, gzip", None),
        ("Transfer-Encoding:", None),
        // SMG-12 to SMG-15.
        ("Content-Length: 5, 5", Some((Framing::Length(5), true))),
        ("Content-Length: 5\r\nContent-Length: 5", Some((Framing::Length(5), true))),
        ("Content-Length: 5\r\nContent-Length: 6", None),
        ("Content-Length: 5, 6", None),
        ("Content-Length: 5,", None),
        ("Content-Length: -5", None),
        ("Content-Length:", None),
        ("Content-Length: 9223372036854775808", None),
    ] {
        let head = response(with_fields(fields));
        match (&head, read) {
            (Ok(head), Some(read)) => {
                assert_eq!((head.framing, head.keep_alive), read, "{fields:?}");
                let headers = head.response.headers();
                assert!(headers.get_all("content-length").iter().count() <= 1, "{fields:?}");
                let both =
                    headers.contains_key("content-length") && headers.contains_key("transfer-encoding");
                assert!(!both, "{fields:?}: FRM-2");
            }
            (Err(refused), None) => assert_eq!(refused.status, 502, "{fields:?}"),
            (result, _) => panic!("{fields:?} became {result:?}"),
        }
    }
    let old =
        response("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n").unwrap();
    assert_eq!((old.framing, old.keep_alive), (chunked, false), "SMG-9");
    let old = response("HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 5\r\n\r\n").unwrap();
    assert_eq!((old.framing, old.keep_alive), (Framing::Length(5), true));
}

#[test]
fn some_responses_have_no_content_whatever_they_say() {
    for fields in ["", "Content-Length: 42\r\n", "Transfer-Encoding: chunked\r\n"] {
        for (method, status, kept) in [
            (Method::HEAD, 200, true), // FRM-1
            (Method::GET, 304, true),
            (Method::GET, 204, false), // FRM-2, SMG-26
            (Method::GET, 100, false),
            (Method::GET, 101, false),
            (Method::GET, 103, false),
            (Method::CONNECT, 200, false), // HX-4
            (Method::CONNECT, 299, false),
        ] {
            let head = answer(&method, format!("HTTP/1.1 {status} X\r\n{fields}\r\n")).unwrap();
            assert_eq!(
                (head.framing, head.keep_alive),
                (Framing::None, true),
                "{method} {status} {fields:?}"
            );
            let headers = head.response.headers();
            assert_eq!(headers.is_empty(), !kept || fields.is_empty(), "{method} {status} {fields:?}");
        }
    }
    let refused = answer(&Method::CONNECT, "HTTP/1.1 403 X\r\nContent-Length: 42\r\n\r\n").unwrap();
    assert_eq!(refused.framing, Framing::Length(42), "no tunnel");
}

#[test]
fn a_response_has_limits_too() {
    let limits = Limits { head_bytes: 60, lines: 1, target_bytes: 0 };
    for (bytes, refused) in [
        (format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "a".repeat(36)), false),
        (format!("HTTP/1.1 200 OK\r\nA: {}\r\n\r\n", "a".repeat(37)), true),
        (format!("HTTP/1.1 200 {}", "a".repeat(46)), false),
        (format!("HTTP/1.1 200 {}", "a".repeat(47)), true),
        ("HTTP/1.1 200 OK\r\nA:\r\nB:\r\n\r\n".to_owned(), true),
    ] {
        let read = head::response(&mut BytesMut::from(&*bytes), &mut 0, &limits, &Method::GET);
        assert_eq!(read.err().map(|refused| refused.status.as_u16()), refused.then_some(502), "{bytes:?}");
    }
}
