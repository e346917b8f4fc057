//! Connections that change their protocol.

use tracecar::exchange::{Outcome, Stream};

use crate::support::car::TestCar;
use crate::support::origin::{Origin, Peer};

const ASK: &str = "GET /ws HTTP/1.1\r\nHost: s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";
const AGREE: &str = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                     Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

#[test]
fn an_upgraded_connection_is_a_tunnel_and_one_record() {
    let origin = Origin::new(|peer| {
        let asked = peer.request().unwrap();
        assert_eq!(asked.header("upgrade"), Some("websocket"), "HX-3");
        assert_eq!(asked.header("connection"), Some("Upgrade"));
        assert_eq!(asked.header("sec-websocket-key"), Some("dGhlIHNhbXBsZSBub25jZQ=="));
        // Bytes right behind the head must not be lost.
        peer.send([AGREE, "hello"].concat());
        let heard = peer.exactly(9);
        peer.send(heard);
        assert_eq!(peer.rest().unwrap(), b"");
        peer.send("last words");
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    // So must those right behind the request.
    caller.send([ASK, "early"].concat());
    let answer = caller.response_head();
    assert_eq!((answer.status(), answer.header("upgrade")), (101, Some("websocket")));
    assert!(answer.header("sec-websocket-accept").is_some());
    assert_eq!(caller.exactly(5), b"hello");
    caller.send("late");
    assert_eq!(caller.exactly(9), b"earlylate");
    caller.finish_sending();
    assert_eq!(caller.rest().unwrap(), b"last words", "half-close is passed on");
    let record = car.record();
    assert_eq!((record.outcome, record.status), (Outcome::Complete, Some(101)));
    assert_eq!(record.stream, Some(Stream::WebSocket));
    assert_eq!((record.request_bytes, record.response_bytes), (9, 24));
    assert_eq!(car.ended().len(), 0);
}

#[test]
fn a_refused_upgrade_is_an_ordinary_answer() {
    let origin = Origin::answering("HTTP/1.1 426 Upgrade Required\r\nContent-Length: 2\r\n\r\nno");
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    for _ in 0..2 {
        caller.send(ASK);
        assert_eq!(caller.response().text(), "no");
        let record = car.record();
        assert_eq!((record.status, record.stream), (Some(426), None));
    }
}

#[test]
fn a_caller_that_resets_a_tunnel_is_gone() {
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send(AGREE);
        let _ = peer.rest();
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(ASK);
    caller.response_head();
    caller.reset();
    assert_eq!(car.record().outcome, Outcome::ClientGoneDuringResponse);
}

#[test]
fn a_service_that_resets_a_tunnel_broke_it() {
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send(AGREE);
        peer.exactly(1);
        socket2::SockRef::from(&peer.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(ASK);
    caller.response_head();
    caller.send("x");
    assert_eq!(car.record().outcome, Outcome::UpstreamBroken);
}

#[test]
fn a_drain_ends_a_tunnel_at_its_deadline() {
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send([AGREE, "hi"].concat());
        let _ = peer.rest();
    });
    let mut car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(ASK);
    caller.response_head();
    assert_eq!(caller.exactly(2), b"hi");
    car.stop();
    caller.send("still through");
    car.cut();
    let record = car.record();
    assert_eq!((record.outcome, record.response_bytes), (Outcome::Drained, 2));
}
