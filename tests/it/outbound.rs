//! The way out: calls of the service through the forward proxy and mapped listeners, as both of their ends see them.

/// The trace that a call goes on with, and what destinations get to see of it.
mod contexts;
/// HTTP/2.
mod http2;
/// CLIENT spans, metrics and log lines.
mod spans;
/// `CONNECT`, and what is said inside.
mod tunnels;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use rustls::{ServerConfig, ServerConnection, StreamOwned};
use tracecar::exchange::{Outcome, Record, Side, Stream};
use tracecar::net::intercept::Authority;

use crate::support::PATIENCE;
use crate::support::car::TestCar;
use crate::support::origin::{Message, Nowhere, Origin, Peer};
use crate::support::service::{call, destination};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A sidecar whose service is nowhere, since the test makes its calls.
fn car(yaml: &str) -> TestCar {
    TestCar::with("http://127.0.0.1:1", yaml, |_| {})
}

/// The same with nothing but a forward proxy.
fn proxy() -> TestCar {
    car("outbound: { proxy: '127.0.0.1:0' }")
}

fn url_of(record: &Record) -> &str {
    record.text(record.request.as_ref().expect("a request was read").url.expect("and it has a URL"))
}

#[test]
fn a_full_url_is_asked_for_at_its_host_byte_for_byte() {
    let (origin, asks) = destination(OK);
    let car = proxy();
    for target in ["/a/../b?x=%2F&&", "//double//slash/", "/%7Euser/+%20?q=a+b&q", "/?", "/;p=1|{}"] {
        let answer = call(car.proxy(), &format!("{}{target}", origin.url()), "");
        assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"), "{target}");
        let asked = asks.recv_timeout(PATIENCE).unwrap();
        assert!(asked.head.starts_with(&format!("GET {target} HTTP/1.1\r\n")), "HOP-11: {}", asked.head);
        assert_eq!(asked.headers("host").collect::<Vec<_>>(), [origin.address.to_string()], "FWD-1");
        let record = car.record();
        assert_eq!(
            (record.side, record.status, record.outcome),
            (Side::Outbound, Some(200), Outcome::Complete)
        );
        assert_eq!(record.peer, Some(origin.address));
    }
    assert_eq!(car.ended().len(), 0, "one record for each");
}

#[test]
fn host_is_that_of_the_target_whatever_else_is_claimed() {
    let (origin, asks) = destination(OK);
    let car = proxy();
    let address = origin.address;
    for hosts in ["Host:\r\n", "Host: other.example\r\n", "Host: a:1\r\n"] {
        let mut service = Peer::connect(car.proxy());
        service.send(format!("GET http://user:secret@{address}/x HTTP/1.1\r\n{hosts}\r\n"));
        assert_eq!(service.response().status(), 200, "{hosts}");
        let asked = asks.recv_timeout(PATIENCE).unwrap();
        assert_eq!(asked.headers("host").collect::<Vec<_>>(), [address.to_string()], "FWD-1");
        assert!(!asked.head.contains("secret"), "{}", asked.head);
        assert_eq!(url_of(&car.record()), format!("http://{address}/x"), "SEM-80");
    }
}

#[test]
fn what_is_said_to_a_proxy_goes_no_further() {
    let (origin, asks) = destination(
        "HTTP/1.1 200 OK\r\nConnection: X-Back\r\nX-Back: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Authenticate: Basic\r\nX-End: 1\r\nContent-Length: 0\r\n\r\n",
    );
    let car = proxy();
    let answer = call(
        car.proxy(),
        &format!("{}/x", origin.url()),
        "Proxy-Authorization: Basic c2VjcmV0\r\nProxy-Connection: keep-alive\r\nConnection: keep-alive, X-Hop\r\n\
         X-Hop: 1\r\nKeep-Alive: timeout=5\r\nTE: gzip\r\nAuthorization: Bearer kept\r\nCookie: a=1\r\n",
    );
    let asked = asks.recv_timeout(PATIENCE).unwrap();
    for name in ["proxy-authorization", "proxy-connection", "connection", "x-hop", "keep-alive", "te", "via"]
    {
        assert_eq!(asked.header(name), None, "HOP-1 to HOP-3: {name}");
    }
    assert_eq!((asked.header("authorization"), asked.header("cookie")), (Some("Bearer kept"), Some("a=1")));
    for name in ["connection", "x-back", "keep-alive"] {
        assert_eq!(answer.header(name), None, "HOP-1: {name}");
    }
    assert_eq!(answer.header("x-end"), Some("1"));
    for name in ["server-timing", "x-correlation-id"] {
        assert_eq!(answer.header(name), None, "the service did not ask us anything: {name}");
    }
}

#[test]
fn a_password_for_a_proxy_ends_at_the_proxy_that_it_was_said_to() {
    let (origin, asks) = destination(OK);
    let car = car(&format!(
        "outbound: {{ proxy: '127.0.0.1:0', mapped: [ {{ listen: '127.0.0.1:0', to: '{}' }} ] }}",
        origin.url()
    ));
    let request = "GET / HTTP/1.1\r\nHost: s\r\nProxy-Authorization: Basic c2VjcmV0\r\n\r\n";
    let mut mapped = Peer::connect(car.mapped(0));
    mapped.send(request);
    mapped.response();
    let mut tunnel = Peer::connect(car.proxy());
    tunnel.send(format!("CONNECT {} HTTP/1.1\r\nHost: s\r\n\r\n", origin.address));
    assert_eq!(tunnel.response_head().status(), 200);
    tunnel.send(request);
    tunnel.response();
    let passwords: Vec<_> = (0..2)
        .map(|_| asks.recv_timeout(PATIENCE).unwrap().header("proxy-authorization").map(str::to_owned))
        .collect();
    let inside = Some("Basic c2VjcmV0".to_owned());
    assert_eq!(passwords, [None, inside], "HOP-3: what is said in a tunnel is said to its far end");
}

#[test]
fn a_url_without_a_path_is_asked_for_with_one() {
    let (origin, asks) = destination(OK);
    let car = proxy();
    for (target, expected) in [("", "/"), ("/", "/"), ("?q", "/?q")] {
        for method in ["GET", "OPTIONS"] {
            let asterisk = target.is_empty() && method == "OPTIONS";
            let mut service = Peer::connect(car.proxy());
            service.send(format!("{method} {}{target} HTTP/1.1\r\nHost: s\r\n\r\n", origin.url()));
            assert_eq!(service.response().status(), 200);
            let asked = asks.recv_timeout(PATIENCE).unwrap();
            let line = format!("{method} {} HTTP/1.1\r\n", if asterisk { "*" } else { expected });
            assert!(asked.head.starts_with(&line), "FWD-2: {}", asked.head);
            let shown = expected.replace("?q", "?REDACTED");
            assert_eq!(url_of(&car.record()), format!("{}{shown}", origin.url()));
        }
    }
}

#[test]
fn a_proxy_that_is_taken_for_a_server_says_what_it_is() {
    let car = proxy();
    for (target, words) in [("/x", "HTTP_PROXY"), ("ftp://files.example/x", "scheme")] {
        let mut service = Peer::connect(car.proxy());
        service.send(format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n"));
        let answer = service.response();
        assert_eq!(answer.status(), 400, "{target}");
        assert!(answer.text().contains(words), "{}", answer.text());
        let record = car.record();
        assert_eq!((record.outcome, record.status, record.peer), (Outcome::Rejected, None, None));
    }
}

#[test]
fn one_connection_to_the_proxy_leads_to_many_destinations() {
    let destinations = [destination(OK), destination("HTTP/1.1 201 Created\r\nContent-Length: 0\r\n\r\n")];
    let car = proxy();
    let mut service = Peer::connect(car.proxy());
    for turn in 0..4 {
        let (origin, asks) = &destinations[turn % 2];
        service.send(format!("GET {}/{turn} HTTP/1.1\r\nHost: s\r\n\r\n", origin.url()));
        assert_eq!(service.response().status(), [200, 201][turn % 2]);
        let asked = asks.recv_timeout(PATIENCE).unwrap();
        assert!(asked.head.starts_with(&format!("GET /{turn} HTTP/1.1\r\n")), "{}", asked.head);
        assert_eq!(car.record().peer, Some(origin.address));
    }
}

#[test]
fn a_client_of_http_1_0_need_not_know_of_host() {
    let (origin, asks) = destination(OK);
    let car = proxy();
    let mut service = Peer::connect(car.proxy());
    service.send(format!("GET {}/x HTTP/1.0\r\n\r\n", origin.url()));
    assert_eq!(service.response().text(), "ok");
    let asked = asks.recv_timeout(PATIENCE).unwrap();
    assert!(asked.head.starts_with("GET /x HTTP/1.1\r\n"), "HOP-7: {}", asked.head);
    assert_eq!(asked.header("host"), Some(&*origin.address.to_string()));
    assert_eq!(service.rest().unwrap(), b"", "and its connection ends");
}

/// A destination with TLS for `localhost`, its port, the certificate that vouches for it, and what it is asked.
fn secured() -> (u16, tempfile::NamedTempFile, Receiver<String>) {
    let (certificate, key) = Authority::make().unwrap();
    let config: Arc<ServerConfig> =
        Authority::load(&certificate, &key).unwrap().acceptor("localhost", false).unwrap();
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(certificate.as_bytes()).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let (asks, asked) = channel();
    std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            stream.set_read_timeout(Some(PATIENCE)).unwrap();
            let (config, asks) = (config.clone(), asks.clone());
            std::thread::spawn(move || {
                let mut tls = StreamOwned::new(ServerConnection::new(config).unwrap(), stream);
                let mut head = Vec::new();
                let mut byte = [0];
                while tls.read_exact(&mut byte).is_ok() {
                    head.push(byte[0]);
                    if head.ends_with(b"\r\n\r\n") {
                        let _ = asks.send(String::from_utf8(std::mem::take(&mut head)).unwrap());
                        let _ = tls.write_all(OK.as_bytes());
                    }
                }
            });
        }
    });
    (port, file, asked)
}

#[test]
fn https_is_spoken_with_a_destination_whose_certificate_is_trusted() {
    let (port, certificate, asks) = secured();
    let car = car(&format!(
        "outbound: {{ proxy: '127.0.0.1:0', certificate: '{}', mapped: [\n\
         {{ listen: '127.0.0.1:0', to: 'https://localhost:{port}/base', name: vault }} ] }}",
        certificate.path().display()
    ));
    let answer = call(car.proxy(), &format!("https://localhost:{port}/x?y=1"), "");
    assert_eq!(answer.text(), "ok");
    let asked = asks.recv_timeout(PATIENCE).unwrap();
    assert!(asked.starts_with("GET /x?y=1 HTTP/1.1\r\n") && asked.contains("traceparent: "), "{asked}");
    assert!(asked.to_lowercase().contains(&format!("host: localhost:{port}\r\n")), "{asked}");
    let record = car.record();
    assert!(record.timings.tls.is_some() && record.timings.dns.is_some(), "phases: {:?}", record.timings);
    assert_eq!(url_of(&record), format!("https://localhost:{port}/x?y=REDACTED"));

    let mut service = Peer::connect(car.mapped(0));
    service.send("GET /x?y=1 HTTP/1.1\r\nHost: 127.0.0.1:8031\r\n\r\n");
    assert_eq!(service.response().text(), "ok");
    let asked = asks.recv_timeout(PATIENCE).unwrap();
    assert!(asked.starts_with("GET /base/x?y=1 HTTP/1.1\r\n"), "{asked}");
    assert!(asked.to_lowercase().contains(&format!("host: localhost:{port}\r\n")), "{asked}");
    assert_eq!(car.record().destination.as_deref(), Some("vault"));
}

#[test]
fn a_certificate_that_nobody_vouches_for_ends_the_call_before_it_is_sent() {
    let (port, _, asks) = secured();
    let car = proxy();
    let answer = call(car.proxy(), &format!("https://localhost:{port}/x"), "");
    assert_eq!(answer.status(), 502);
    assert!(answer.header("proxy-status").unwrap().contains("error=tls_certificate_error"));
    let record = car.record();
    assert_eq!((record.outcome, record.status), (Outcome::UpstreamCertificate, None));
    assert!(asks.try_recv().is_err(), "the destination saw nothing of it");
}

#[test]
fn a_mapped_listener_stands_for_its_destination() {
    let (origin, asks) = destination(OK);
    let url = origin.url();
    let car = car(&format!(
        "outbound: {{ mapped: [ {{ listen: '127.0.0.1:0', to: '{url}', name: plain }},\n\
         {{ listen: '127.0.0.1:0', to: '{url}/base/v1/', name: based }} ] }}"
    ));
    let cases = [
        (0, "GET /a/../b?x=%2F&&", "GET /a/../b?x=%2F&&", "/a/../b?x=REDACTED&&"),
        (0, "OPTIONS *", "OPTIONS *", ""),
        (1, "GET /a?b=c", "GET /base/v1/a?b=c", "/base/v1/a?b=REDACTED"),
        (1, "GET /", "GET /base/v1/", "/base/v1/"),
        (1, "GET /?q", "GET /base/v1/?q", "/base/v1/?REDACTED"),
        (1, "OPTIONS *", "OPTIONS /base/v1", "/base/v1"),
        // A client that takes us for a proxy as well; who it asks for is not what we stand for.
        (1, "GET http://elsewhere.example/a", "GET /base/v1/a", "/base/v1/a"),
    ];
    for (index, line, expected, shown) in cases {
        let mut service = Peer::connect(car.mapped(index));
        service.send(format!("{line} HTTP/1.1\r\nHost: 127.0.0.1:8031\r\n\r\n"));
        assert_eq!(service.response().status(), 200, "{line}");
        let asked = asks.recv_timeout(PATIENCE).unwrap();
        assert!(asked.head.starts_with(&format!("{expected} HTTP/1.1\r\n")), "{line}: {}", asked.head);
        assert_eq!(asked.headers("host").collect::<Vec<_>>(), [origin.address.to_string()], "{line}");
        let record = car.record();
        assert_eq!(record.destination.as_deref(), Some(["plain", "based"][index]));
        assert_eq!(url_of(&record), format!("{url}{shown}"), "{line}");
    }
    let mut service = Peer::connect(car.mapped(0));
    service.send("CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\n\r\n");
    assert_eq!(service.response().status(), 501);
}

#[test]
fn a_websocket_passes_the_forward_proxy() {
    let origin = Origin::new(|peer| {
        let asked = peer.request().unwrap();
        assert!(asked.head.starts_with("GET /ws HTTP/1.1\r\n"), "{}", asked.head);
        assert!(asked.header("traceparent").is_some());
        peer.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello",
        );
        let heard = peer.exactly(4);
        peer.send(heard);
        assert_eq!(peer.rest().unwrap(), b"");
        peer.send("bye");
    });
    let car = proxy();
    let mut service = Peer::connect(car.proxy());
    service.send(format!(
        "GET {}/ws HTTP/1.1\r\nHost: s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\nping",
        origin.url()
    ));
    assert_eq!(service.response_head().status(), 101);
    assert_eq!(service.exactly(9), b"helloping");
    service.finish_sending();
    assert_eq!(service.rest().unwrap(), b"bye", "half-close is passed on");
    let record = car.record();
    assert_eq!((record.outcome, record.status), (Outcome::Complete, Some(101)));
    assert_eq!((record.stream, record.tunnel), (Some(Stream::WebSocket), None));
    assert_eq!((record.request_bytes, record.response_bytes), (4, 12));
    assert_eq!(car.ended().len(), 0);
}

#[test]
fn an_event_stream_passes_event_by_event() {
    let (next, nexts) = channel::<()>();
    let nexts = std::sync::Mutex::new(nexts);
    let origin = Origin::new(move |peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..3 {
            peer.send("9\r\ndata: 1\n\n\r\n");
            let _ = nexts.lock().unwrap().recv_timeout(PATIENCE);
        }
        peer.send("0\r\n\r\n");
    });
    let car = proxy();
    let mut service = Peer::connect(car.proxy());
    service.send(format!("GET {}/events HTTP/1.1\r\nHost: s\r\n\r\n", origin.url()));
    service.head().unwrap();
    for _ in 0..3 {
        // The next event is sent only once this one has come.
        assert_eq!(service.exactly(14), b"9\r\ndata: 1\n\n\r\n");
        next.send(()).unwrap();
    }
    let record = car.record();
    assert_eq!((record.stream, record.outcome), (Some(Stream::ServerSentEvents), Outcome::Complete));
}

/// One record, and what it says of how a call ended.
fn only(car: TestCar) -> (Outcome, Option<u16>, Option<String>) {
    let record = car.record();
    assert_eq!(car.ended().len(), 0, "one record");
    (record.outcome, record.status, record.error_type().map(Into::into))
}

#[test]
fn a_service_that_leaves_before_the_answer_cancels_its_call() {
    let (arrived, arrives) = channel();
    let (left, leaves) = channel();
    let origin = Origin::new(move |peer| {
        peer.request();
        let _ = arrived.send(());
        let _ = peer.rest();
        let _ = left.send(());
    });
    let car = proxy();
    let mut service = Peer::connect(car.proxy());
    service.send(format!("GET {}/x HTTP/1.1\r\nHost: s\r\n\r\n", origin.url()));
    arrives.recv_timeout(PATIENCE).unwrap();
    service.reset();
    leaves.recv_timeout(PATIENCE).expect("the destination learns of it");
    assert_eq!(only(car), (Outcome::ClientGoneBeforeResponse, None, None), "SEM-65");
}

#[test]
fn a_service_that_leaves_in_mid_body_is_no_error_and_a_destination_that_breaks_off_is_one() {
    let origin = Origin::new(move |peer| {
        let asked = peer.request().unwrap();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        if !asked.head.starts_with("GET /breaks") {
            let _ = peer.rest();
        }
    });
    let leaves = proxy();
    let mut service = Peer::connect(leaves.proxy());
    service.send(format!("GET {}/waits HTTP/1.1\r\nHost: s\r\n\r\n", origin.url()));
    service.head().unwrap();
    assert_eq!(service.exactly(4), b"half");
    service.reset();
    assert_eq!(only(leaves), (Outcome::ClientGoneDuringResponse, Some(200), None), "SEM-65");

    let breaks = proxy();
    let mut service = Peer::connect(breaks.proxy());
    service.send(format!("GET {}/breaks HTTP/1.1\r\nHost: s\r\n\r\n", origin.url()));
    service.head().unwrap();
    assert_eq!(service.rest().unwrap(), b"half", "and the connection ends with it");
    let broken = Some("body_incomplete".to_owned());
    assert_eq!(only(breaks), (Outcome::UpstreamBroken, Some(200), broken), "SEM-61, SEM-70");
}

#[test]
fn a_destination_that_is_not_there_is_no_answer_of_it() {
    let nowhere = Nowhere::new();
    let car = proxy();
    let mut service = Peer::connect(car.proxy());
    service.send(format!(
        "GET http://{}/x HTTP/1.1\r\nHost: s\r\nAccept: application/json\r\n\r\n",
        nowhere.address
    ));
    let answer: Message = service.response();
    assert_eq!((answer.status(), answer.header("content-type")), (502, Some("application/problem+json")));
    assert!(answer.header("proxy-status").unwrap().starts_with("tracecar; error=connection_refused"));
    let refused = Some("connection_refused".to_owned());
    assert_eq!(only(car), (Outcome::UpstreamRefused, None, refused), "SEM-44: no status of ours");
}

#[test]
fn a_request_that_comes_over_ipv6_goes_where_it_should() {
    let listener = TcpListener::bind("[::1]:0");
    let Ok(listener) = listener else {
        return eprintln!("skipped: no IPv6 here");
    };
    let address: SocketAddr = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut peer = Peer::new(listener.accept().unwrap().0);
        let asked = peer.request().unwrap();
        assert_eq!(asked.header("host"), Some(&*peer.stream.local_addr().unwrap().to_string()));
        peer.send(OK);
    });
    let car = car("outbound: { proxy: '[::1]:0' }");
    assert_eq!(call(car.proxy(), &format!("http://{address}/x"), "").status(), 200);
    let record = car.record();
    assert_eq!((url_of(&record), record.peer), (&*format!("http://{address}/x"), Some(address)));
}

#[test]
fn a_call_that_is_refused_is_recorded_as_it_was_asked_for_and_without_its_password() {
    let car = car("outbound: { proxy: '127.0.0.1:0', deny: [denied.example] }");
    for (target, url, port) in [
        ("https://denied.example/q", "https://denied.example/q", "443"),
        ("http://bob:hunter2@denied.example/q", "http://denied.example/q", "80"),
    ] {
        let answer = call(car.proxy(), target, "");
        assert_eq!(answer.status(), 403, "{}", answer.text());
        let record = car.record();
        assert_eq!(url_of(&record), url);
        let request = record.request.as_ref().unwrap();
        let (_, seen) = tracecar::exchange::semconv::server(&record, request).unwrap();
        assert_eq!(seen.unwrap().to_string(), port);
        assert!(!format!("{record:?}").contains("hunter2"));
    }
    let mut service = Peer::connect(car.proxy());
    service.send("GET /q HTTP/1.1\r\nHost: bob:hunter2@x.example\r\n\r\n");
    assert_eq!(service.response().status(), 400);
    assert!(!format!("{:?}", car.record()).contains("hunter2"), "SEM-80");
}

#[test]
fn a_handshake_that_hangs_shows_where_the_time_went() {
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = silent.local_addr().unwrap().port();
    let car = car("outbound: { proxy: '127.0.0.1:0' }\ntimeouts: { connect: 200ms }");
    assert_eq!(call(car.proxy(), &format!("https://localhost:{port}/"), "").status(), 504);
    let record = car.record();
    assert_eq!(record.peer.map(|peer| peer.port()), Some(port), "it was reached");
    let tls = record.timings.tls.expect("it had begun");
    assert!(tls > std::time::Duration::from_millis(100), "{tls:?} of 200 ms");
}

#[test]
fn two_hosts_in_one_request_are_judged_as_none() {
    let (origin, _asks) = destination(OK);
    let car = proxy();
    let mut tunnel = Peer::connect(car.proxy());
    tunnel.send(format!("CONNECT {} HTTP/1.1\r\nHost: s\r\n\r\n", origin.address));
    assert_eq!(tunnel.response_head().status(), 200);
    tunnel.send("GET / HTTP/1.1\r\nHost: one.example\r\nHost: other.example\r\n\r\n");
    assert_eq!(tunnel.response().status(), 400, "SMG-2");
}
