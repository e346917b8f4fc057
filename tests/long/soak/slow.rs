//! Visits that wait until the program has had enough.

use std::io::Write;
use std::time::Duration;

use super::place::Place;
use crate::support::origin::Peer;

pub fn head(place: &Place) {
    let mut peer = place.connect();
    peer.send("GET / HTTP/1.1\r\nHost: sh");
    let _ = peer.rest();
}

pub fn nothing(place: &Place) {
    let _ = place.connect().rest();
}

pub fn idle(place: &Place) {
    let mut peer = place.ask("ok");
    assert_eq!(peer.response().text(), "ok");
    assert_eq!(peer.rest().expect("it is closed well"), b"");
}

pub fn content(place: &Place) {
    let mut peer = place.connect();
    peer.send(place.request("POST", "silence", "Content-Length: 100\r\n") + "half");
    place.arrived();
    assert_eq!(peer.response().status(), 408);
}

pub fn answer(place: &Place) {
    let mut peer = place.ask("quiet");
    assert_eq!(peer.response().status(), 504);
}

pub fn response(place: &Place) {
    let mut peer = place.ask("half");
    peer.head().expect("a response head");
    let _ = peer.rest();
}

pub fn reader(place: &Place) {
    let mut peer = place.ask("flood");
    peer.head().expect("a response head");
    // That the connection is over, somebody who takes nothing finds out only when he sends.
    while peer.stream.write_all(b"\r\n").is_ok() {
        std::thread::sleep(Duration::from_millis(100));
    }
}

pub fn tunnel(place: &Place) {
    let mut peer = place.connect();
    peer.send(place.request("GET", "upgrade", "Connection: upgrade\r\nUpgrade: echo\r\n"));
    assert!(peer.head().expect("a response head").starts_with("HTTP/1.1 101"));
    let _ = peer.rest();
}

pub fn handshake(place: &Place) {
    let mut peer = Peer::connect(place.doors.tls);
    peer.send(b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03");
    let _ = peer.rest();
}
