//! The PROXY protocol, with and without TLS behind it, from those who are believed and from others.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use tracecar::exchange::{Outcome, Record};

use crate::support::car::{TestCar, loaded};
use crate::support::eventually;
use crate::support::origin::{Origin, Peer};
use crate::support::pki::{Pki, get};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const ASK: &str = "GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n";
const V1: &str = "PROXY TCP4 203.0.113.9 192.0.2.1 50000 443\r\n";
const HERE: &str = "proxy_protocol: { from: [127.0.0.0/8] }";

/// Version 2 for the same connection, with something behind its addresses.
fn v2() -> Vec<u8> {
    let fixed = [0x21, 0x11, 0, 19];
    let ends = [203, 0, 113, 9, 192, 0, 2, 1, 0xc3, 0x50, 1, 0xbb];
    [&b"\r\n\r\n\0\r\nQUIT\n"[..], &fixed, &ends, &[1, 0, 4, b't', b'e', b'x', b't']].concat()
}

fn car(listener: &str, more: &str) -> TestCar {
    let to = Origin::answering(OK).url();
    TestCar::start(loaded(&format!(
        "service: {{ name: under-test }}\ninbound: [{{ listen: '127.0.0.1:0', to: '{to}', {listener} }}]\n\
         admin: {{ listen: '127.0.0.1:0' }}\n{more}\n"
    )))
}

/// Client and TCP peer as the record has them.
fn ends(record: &Arc<Record>) -> (IpAddr, SocketAddr) {
    (record.request.as_ref().expect("it was read").client, record.peer.expect("somebody called"))
}

fn claimed() -> IpAddr {
    IpAddr::from([203, 0, 113, 9])
}

#[test]
fn the_header_says_whose_connection_it_is_and_the_socket_says_who_is_there() {
    let car = car(HERE, "");
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0".to_vec();
    let unknown = b"PROXY UNKNOWN\r\n".to_vec();
    let here = IpAddr::from([127, 0, 0, 1]);
    for (header, client) in
        [(V1.as_bytes().to_vec(), claimed()), (v2(), claimed()), (local, here), (unknown, here)]
    {
        let mut caller = Peer::connect(car.address());
        let us = caller.stream.local_addr().unwrap();
        // All at once, as a load balancer may send it.
        caller.send([&header, ASK.as_bytes()].concat());
        assert_eq!(caller.response().text(), "ok");
        assert_eq!(ends(&car.record()), (client, us), "SEM-30, SEM-31: {}", header.escape_ascii());
        // It is said once.
        caller.send(ASK);
        assert_eq!(caller.response().text(), "ok");
        assert_eq!(ends(&car.record()), (client, us));
    }
}

#[test]
fn a_header_may_come_in_pieces() {
    let car = car(HERE, "");
    for header in [V1.as_bytes().to_vec(), v2()] {
        let mut caller = Peer::connect(car.address());
        for byte in &header {
            caller.send([*byte]);
        }
        caller.send(ASK);
        assert_eq!(caller.response().text(), "ok");
        assert_eq!(ends(&car.record()).0, claimed());
    }
}

#[test]
fn who_is_claimed_is_the_one_who_is_trusted_or_not() {
    let forwarded = "GET / HTTP/1.1\r\nHost: s\r\nX-Forwarded-For: 198.51.100.7\r\n\r\n";
    for (trusted, client) in [("203.0.113.0/24", [198, 51, 100, 7]), ("127.0.0.0/8", [203, 0, 113, 9])] {
        let car = car(HERE, &format!("client: {{ trusted_proxies: [{trusted}] }}"));
        let mut caller = Peer::connect(car.address());
        caller.send(format!("{V1}{forwarded}"));
        assert_eq!(caller.response().text(), "ok");
        assert_eq!(ends(&car.record()).0, IpAddr::from(client), "SEM-53");
    }
    let context = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (from, links) in [("203.0.113.9/32", 1), ("127.0.0.1/32", 0)] {
        let trust = format!("propagation: {{ trust: [{{ from: [{from}], policy: restart }}] }}");
        let car = car(HERE, &trust);
        let mut caller = Peer::connect(car.address());
        caller.send(format!("{V1}GET / HTTP/1.1\r\nHost: s\r\n{context}\r\n\r\n"));
        assert_eq!(caller.response().text(), "ok");
        assert_eq!(car.record().links.len(), links, "CTX-14");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn it_comes_before_tls() {
    let pki = Pki::new("ca");
    let tls = format!("tls: {{ certificates: [{}] }}", pki.pair("shop", "shop.example"));
    let car = car(&format!("{HERE}, {tls}"), "");
    for header in [V1.as_bytes().to_vec(), v2()] {
        for alpn in ["h2", "http/1.1"] {
            let client = pki.client(&[alpn], None);
            let answer = get(car.address(), &header, "shop.example", client).await.unwrap();
            assert_eq!((answer.status, answer.text.as_str()), (200, "ok"));
            let record = car.record();
            assert_eq!(ends(&record).0, claimed());
            assert_eq!(record.request.as_ref().unwrap().scheme, "https");
        }
    }
    let without = get(car.address(), b"", "shop.example", pki.client(&[], None)).await;
    assert!(without.is_err());
    eventually("it is counted", || car.stats().proxy_absent.value() == 1).await;
}

#[test]
fn a_header_from_somebody_else_is_no_header() {
    let car = car("proxy_protocol: { from: [10.0.0.0/8] }", "");
    for header in [V1.as_bytes().to_vec(), v2()] {
        let mut caller = Peer::connect(car.address());
        caller.send([&header, ASK.as_bytes()].concat());
        let answer = String::from_utf8_lossy(&caller.rest().unwrap_or_default()).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 400 "), "{answer}");
        let record = car.record();
        assert_eq!(record.outcome, Outcome::MalformedRequest);
        assert!(record.peer.unwrap().ip().is_loopback());
    }
    let mut caller = Peer::connect(car.address());
    caller.send(ASK);
    assert_eq!(caller.response().text(), "ok", "and without one they are served");
    assert!(ends(&car.record()).0.is_loopback());
}

#[tokio::test(flavor = "multi_thread")]
async fn who_has_to_send_one_and_does_not_is_closed_without_a_word() {
    let car = car(HERE, "timeouts: { detection: 300ms }");
    let address = car.address();
    let close = move |bytes: Vec<u8>, ends: bool| {
        tokio::task::spawn_blocking(move || {
            let mut caller = Peer::connect(address);
            caller.send(bytes);
            if ends {
                caller.finish_sending();
            }
            assert_eq!(caller.rest().unwrap_or_default(), b"");
        })
    };
    let stats = car.stats();
    close(ASK.into(), false).await.unwrap();
    eventually("it is counted", || stats.proxy_absent.value() == 1).await;
    close(V1.replace("50000", "65536").into(), false).await.unwrap();
    close([&v2()[..13], b"\x51\0\0"].concat(), false).await.unwrap();
    eventually("they are counted", || stats.proxy_malformed.value() == 2).await;
    close(v2()[..20].to_vec(), true).await.unwrap();
    eventually("it is counted", || stats.proxy_ended.value() == 1).await;
    for begun in [Vec::new(), v2()[..20].to_vec()] {
        close(begun, false).await.unwrap();
    }
    eventually("it is counted", || stats.closed_detection.value() == 2).await;
    // A port that is only looked at is nothing to tell.
    close(Vec::new(), true).await.unwrap();
    eventually("nobody is left", || stats.connections_open.value() == 0).await;
    assert_eq!((stats.proxy_ended.value(), stats.panics.value()), (1, 0));
    assert!(car.ended().is_empty());
}
