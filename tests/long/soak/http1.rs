//! Visits of HTTP/1 without TLS.

use std::time::Duration;

use super::BIG;
use super::place::Place;
use crate::support::origin::Peer;

pub fn ordinary(place: &Place) {
    let mut peer = place.connect();
    for _ in 0..3 {
        peer.send(place.get("ok"));
        assert_eq!(peer.response().text(), "ok");
    }
}

pub fn pipelined(place: &Place) {
    let mut peer = place.connect();
    peer.send(place.get("ok").repeat(2));
    assert_eq!((peer.response().text(), peer.response().text()), ("ok".to_owned(), "ok".to_owned()));
}

pub fn upload(place: &Place) {
    let mut peer = place.connect();
    peer.send(place.request("POST", "upload", &format!("Content-Length: {BIG}\r\n")));
    peer.send(vec![b'x'; BIG]);
    assert_eq!(peer.response().status(), 200);
}

pub fn download(place: &Place) {
    assert_eq!(place.ask("download").response().body.len(), BIG);
}

pub fn slow_reader(place: &Place) {
    let mut peer = place.ask("download");
    peer.head().expect("a response head");
    for _ in 0..16 {
        peer.exactly(BIG / 16);
        // Slower than the origin is what this caller is about.
        std::thread::sleep(Duration::from_millis(5));
    }
}

pub fn events(place: &Place) {
    let mut peer = place.ask("events");
    peer.head().expect("a response head");
    assert_eq!(peer.chunks().expect("a whole body").len(), 90);
}

fn upgraded(place: &Place) -> Peer {
    let mut peer = place.connect();
    peer.send(place.request("GET", "upgrade", "Connection: upgrade\r\nUpgrade: echo\r\n"));
    assert!(peer.head().expect("a response head").starts_with("HTTP/1.1 101"));
    peer.send("hello\n");
    assert_eq!(peer.line().as_deref(), Some("hello\n"));
    peer
}

pub fn upgrade(place: &Place) {
    let mut peer = upgraded(place);
    peer.finish_sending();
    assert_eq!(peer.rest().expect("the other side closes too"), b"");
}

pub fn upgrade_reset(place: &Place) {
    upgraded(place).reset();
}

pub fn half_close(place: &Place) {
    let mut peer = place.ask("ok");
    peer.finish_sending();
    assert_eq!(peer.response().text(), "ok");
}

pub fn reset_before(place: &Place) {
    let peer = place.ask("silence");
    place.arrived();
    peer.reset();
}

pub fn reset_during(place: &Place) {
    let mut peer = place.ask("half");
    peer.head().expect("a response head");
    assert_eq!(peer.exactly(4), b"half");
    peer.reset();
}

pub fn reset_upload(place: &Place) {
    let mut peer = place.connect();
    peer.send(place.request("POST", "silence", "Content-Length: 100\r\n") + "half");
    place.arrived();
    peer.reset();
}

pub fn garbage(place: &Place) {
    let mut peer = place.connect();
    peer.send("\u{16}\u{3}\u{1} garbage\r\n\r\n");
    assert!(peer.head().expect("an answer").starts_with("HTTP/1.1 400"));
}

pub fn origin_resets(place: &Place) {
    let mut peer = place.connect();
    peer.send(place.request("POST", "reset", "Content-Length: 0\r\n"));
    assert_eq!(peer.response().status(), 502);
}

pub fn origin_breaks(place: &Place) {
    let mut peer = place.ask("break");
    peer.head().expect("a response head");
    let _ = peer.rest();
}

pub fn silence(place: &Place) {
    drop(place.connect());
}

pub fn pieces(place: &Place) {
    let mut peer = place.connect();
    for piece in place.get("ok").as_bytes().chunks(5) {
        peer.send(piece);
        // Each is to be a packet of its own.
        std::thread::sleep(Duration::from_millis(2));
    }
    assert_eq!(peer.response().text(), "ok");
}

pub fn expect(place: &Place) {
    let mut peer = place.connect();
    peer.send(place.request("POST", "upload", "Content-Length: 5\r\nExpect: 100-continue\r\n"));
    assert!(peer.head().expect("an interim answer").starts_with("HTTP/1.1 100"));
    peer.send("hello");
    assert_eq!(peer.response().status(), 200);
}

pub fn hints(place: &Place) {
    let mut peer = place.ask("hints");
    assert!(peer.head().expect("an interim answer").starts_with("HTTP/1.1 103"));
    assert_eq!(peer.response().text(), "ok");
}

pub fn trailers(place: &Place) {
    let mut peer = place.connect();
    peer.send(place.request("GET", "trailers", "TE: trailers\r\nConnection: te\r\n"));
    assert_eq!(peer.response().text(), "ok");
}

pub fn trailers_sent(place: &Place) {
    let mut peer = place.connect();
    peer.send(place.request("POST", "upload", "Transfer-Encoding: chunked\r\nTrailer: x-sum\r\n"));
    peer.send("2\r\nhi\r\n0\r\nx-sum: 7\r\n\r\n");
    assert_eq!(peer.response().status(), 200);
}

pub fn failure(place: &Place) {
    assert_eq!(place.ask("failure").response().status(), 500);
}

pub fn excluded(place: &Place) {
    let mut peer = place.connect();
    peer.send("GET /healthz HTTP/1.1\r\nHost: shop\r\n\r\n");
    assert_eq!(peer.response().text(), "ok");
}

pub fn websocket(place: &Place) {
    let mut peer = place.connect();
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    peer.send(place.request(
        "GET",
        "websocket",
        &format!("Connection: upgrade\r\nUpgrade: websocket\r\n{key}"),
    ));
    assert!(peer.head().expect("a response head").starts_with("HTTP/1.1 101"));
    for _ in 0..10 {
        // A masked text, and the same in answer.
        peer.send(b"\x81\x83\0\0\0\0hi\n");
        assert_eq!(peer.exactly(5), b"\x81\x03hi\n");
    }
    peer.finish_sending();
    assert_eq!(peer.rest().expect("the other side closes too"), b"");
}

pub fn half_close_within(place: &Place) {
    let mut peer = place.connect();
    peer.send(place.request("POST", "silence", "Content-Length: 100\r\n") + "half");
    place.arrived();
    peer.finish_sending();
    let _ = peer.rest();
}

pub fn chunked_garbage(place: &Place) {
    let mut peer = place.connect();
    peer.send(place.request("POST", "silence", "Transfer-Encoding: chunked\r\n"));
    place.arrived();
    peer.send("zz\r\n");
    let _ = peer.rest();
}

pub fn origin_truncates(place: &Place) {
    let mut peer = place.ask("truncated");
    peer.head().expect("a response head");
    let _ = peer.rest();
}

pub fn origin_mangles(place: &Place) {
    let mut peer = place.ask("mangled");
    peer.head().expect("a response head");
    let _ = peer.rest();
}

pub fn origin_babbles(place: &Place) {
    assert_eq!(place.ask("garbage").response().status(), 502);
}

pub fn dying(place: &Place) {
    let mut peer = Peer::connect(place.doors.dying);
    peer.send(place.get("ok"));
    let head = peer.head().expect("a response head");
    assert!(head.starts_with("HTTP/1.1 200") || head.starts_with("HTTP/1.1 502"), "{head}");
    peer.finish_sending();
    let _ = peer.rest();
}

pub fn call_out(place: &Place) {
    let mut peer = Peer::connect(place.doors.proxy);
    let url = format!("http://{}{}", place.doors.origin, place.path("ok"));
    peer.send(format!("GET {url} HTTP/1.1\r\nHost: shop\r\n\r\n"));
    assert_eq!(peer.response().text(), "ok");
}

pub fn call_nobody(place: &Place) {
    let mut peer = Peer::connect(place.doors.proxy);
    let url = format!("http://{}{}", place.doors.nowhere.address, place.path("ok"));
    peer.send(format!("GET {url} HTTP/1.1\r\nHost: shop\r\n\r\n"));
    assert_eq!(peer.response().status(), 502);
}
