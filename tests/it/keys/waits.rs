//! Bounds on waiting. Each is a moment at first and a second later, and what it ends is watched: that may end late on a busy
//! machine, and never early.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

use super::car::{Car, Key, takes};
use super::exporting::Exported;
use crate::support::PATIENCE;
use crate::support::origin::{Origin, Peer};
use crate::support::pki::Pki;

keys! {
    "timeouts.detection" => a_caller_that_says_nothing_is_left,
    "timeouts.tls_handshake" => a_caller_that_does_not_shake_hands_is_left,
    "timeouts.request_header" => a_caller_that_does_not_finish_its_head_is_left,
    "timeouts.idle" => a_connection_without_requests_is_closed,
    "timeouts.connect" => a_service_that_is_not_reached_is_given_up,
    "timeouts.response_header" => a_service_that_does_not_answer_is_given_up,
    "timeouts.upstream_idle" => a_connection_to_the_service_without_use_is_closed,
    "export.otlp.timeout" => an_attempt_to_export_is_given_up,
    "export.otlp.queue.schedule_delay" => a_batch_waits_for_more,
    "export.otlp.queue.export_timeout" => an_attempt_takes_no_longer_than_the_queue_lets_it,
    "runtime.drain" => what_is_in_flight_is_cut_off_when_it_stops,
}

const A_MOMENT_THEN_A_SECOND: [&str; 2] = ["50ms", "1s"];

/// Whether something lasts for a second.
fn lasts(ends: impl FnOnce()) -> bool {
    takes(ends) >= Duration::from_secs(1)
}

/// Waits until the other side closes the connection, in whatever way.
fn closed(peer: &mut Peer) {
    // A reset is an end, too. A bound on reading is not.
    if let Err(error) = peer.rest() {
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{error}");
    }
}

fn a_caller_that_says_nothing_is_left(key: Key) {
    let see = |car: &mut Car| {
        lasts(|| {
            let mut caller = Peer::connect(car.place.listen);
            closed(&mut caller);
        })
    };
    key.live("timeouts: { detection: <> }", A_MOMENT_THEN_A_SECOND, see, [false, true]);
}

fn a_caller_that_does_not_shake_hands_is_left(key: Key) {
    let pki = Pki::new("ca");
    pki.pair("shop", "shop.example");
    let key = key.word("CERT", pki.path("shop.pem").display()).word("SECRET", pki.path("shop.key").display());
    let see = |car: &mut Car| {
        lasts(|| {
            let mut caller = Peer::connect(car.place.listen);
            caller.send(b"\x16\x03\x01");
            closed(&mut caller);
        })
    };
    let yaml = "inbound: [{ listen: 'LISTEN', to: 'http://SERVICE', tls: { certificates: [{ certificate: CERT, key: SECRET }] } }]\n\
                timeouts: { tls_handshake: <> }";
    key.live(yaml, A_MOMENT_THEN_A_SECOND, see, [false, true]);
}

fn a_caller_that_does_not_finish_its_head_is_left(key: Key) {
    // Heads are looked at once per second, and first when they have begun: even a moment lasts for two seconds.
    let see = |car: &mut Car| {
        let mut caller = Peer::connect(car.place.listen);
        caller.send("GET / HTTP/1.1\r\nHost: ");
        takes(|| closed(&mut caller)) >= Duration::from_secs(3)
    };
    key.live("timeouts: { request_header: <> }", ["50ms", "3s"], see, [false, true]);
}

fn a_connection_without_requests_is_closed(key: Key) {
    let see = |car: &mut Car| {
        lasts(|| {
            let mut caller = Peer::connect(car.place.listen);
            caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n");
            assert_eq!(caller.response().status(), 200);
            closed(&mut caller);
        })
    };
    key.live("timeouts: { idle: <> }", A_MOMENT_THEN_A_SECOND, see, [false, true]);
}

fn a_service_that_is_not_reached_is_given_up(key: Key) {
    // It listens, and so is connected to, but never begins to speak TLS.
    let silent = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = silent.local_addr().expect("it is bound").port();
    let key = key.word("PORT", port);
    let see = |car: &mut Car| lasts(|| assert_eq!(car.ask("/", "").status(), 504));
    let yaml = "inbound: [{ listen: 'LISTEN', to: 'https://localhost:PORT' }]\ntimeouts: { connect: <> }";
    key.live(yaml, A_MOMENT_THEN_A_SECOND, see, [false, true]);
}

fn a_service_that_does_not_answer_is_given_up(key: Key) {
    let origin = Origin::new(|peer| {
        peer.request();
        let _ = peer.rest();
    });
    let key = key.word("SLOW", origin.address);
    let see = |car: &mut Car| lasts(|| assert_eq!(car.ask("/", "").status(), 504));
    let yaml = "inbound: [{ listen: 'LISTEN', to: 'http://SLOW' }]\ntimeouts: { response_header: <> }";
    key.live(yaml, A_MOMENT_THEN_A_SECOND, see, [false, true]);
}

fn a_connection_to_the_service_without_use_is_closed(key: Key) {
    let (origin, closes) = closing();
    let key = key.word("SLOW", origin.address);
    let see = |car: &mut Car| {
        lasts(|| {
            assert_eq!(car.ask("/", "").status(), 200);
            closes.recv_timeout(PATIENCE).expect("it is closed");
        })
    };
    let yaml = "inbound: [{ listen: 'LISTEN', to: 'http://SLOW' }]\ntimeouts: { upstream_idle: <> }";
    key.live(yaml, A_MOMENT_THEN_A_SECOND, see, [false, true]);
}

/// Whoever looks after connections that rest must not go on as it began.
#[test]
fn a_shorter_bound_holds_for_a_connection_that_rests_already() {
    let key = Key::of("timeouts.upstream_idle");
    let (origin, closes) = closing();
    let key = key.word("SLOW", origin.address);
    let yaml = "inbound: [{ listen: 'LISTEN', to: 'http://SLOW' }]\ntimeouts: { upstream_idle: <> }";
    let mut car = key.car(yaml, "1h");
    assert_eq!(car.ask("/", "").status(), 200);
    car.apply("50ms");
    assert_eq!(car.ask("/", "").status(), 200);
    closes.recv_timeout(PATIENCE).expect("it is closed");
}

/// A service that keeps connections, and says when one is closed.
fn closing() -> (Origin, Receiver<()>) {
    let (closed, closes) = channel();
    let closed = Mutex::new(closed);
    let origin = Origin::new(move |peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
        // The test may be over.
        let _ = closed.lock().unwrap().send(());
    });
    (origin, closes)
}

/// How long a collector that never answers is waited for.
fn attempts(key: Key, otlp: &str) {
    let (gave_up, gives_up) = channel();
    let gave_up = Mutex::new(gave_up);
    let collector = Origin::new(move |peer| {
        peer.request();
        let begun = Instant::now();
        let _ = peer.rest();
        // The test may be over.
        let _ = gave_up.lock().unwrap().send(begun.elapsed());
    });
    let key = key.word("COLLECTOR", collector.url());
    let see = |car: &mut Car| {
        car.ask("/", "");
        // The clock is another one than the program's, and begins a little later.
        gives_up.recv_timeout(PATIENCE).expect("it is given up") >= Duration::from_millis(900)
    };
    let yaml = format!("export: {{ otlp: {{ endpoint: COLLECTOR, {otlp} }} }}");
    key.live_in_time(&yaml, A_MOMENT_THEN_A_SECOND, see, [false, true]);
}

fn an_attempt_to_export_is_given_up(key: Key) {
    attempts(key, "timeout: <>, queue: { schedule_delay: 10ms }");
}

fn an_attempt_takes_no_longer_than_the_queue_lets_it(key: Key) {
    attempts(key, "queue: { schedule_delay: 10ms, export_timeout: <> }");
}

fn a_batch_waits_for_more(key: Key) {
    let mut collector = Exported::new();
    let key = key.word("COLLECTOR", collector.url());
    let see = |car: &mut Car| lasts(|| drop(collector.request_about(car)));
    let yaml = "export: { otlp: { endpoint: COLLECTOR, queue: { schedule_delay: <> } } }";
    key.live(yaml, ["10ms", "1s"], see, [false, true]);
}

fn what_is_in_flight_is_cut_off_when_it_stops(key: Key) {
    let (arrived, arrives) = channel();
    let arrived = Mutex::new(arrived);
    let origin = Origin::new(move |peer| {
        peer.request();
        let _ = arrived.lock().unwrap().send(());
        let _ = peer.rest();
    });
    let key = key.word("SLOW", origin.address);
    let stopping = |car: &mut Car| {
        let mut caller = Peer::connect(car.place.listen);
        caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n");
        arrives.recv_timeout(PATIENCE).expect("it arrives");
        lasts(|| {
            car.program().terminate();
            closed(&mut caller);
        })
    };
    // What has stopped cannot be told anything, so there are two: one that stops with the first value, and one that is
    // given the other.
    let yaml = "inbound: [{ listen: 'LISTEN', to: 'http://SLOW' }]\nruntime: { drain: <> }";
    assert!(!stopping(&mut key.clone().car(yaml, "50ms")));
    let mut car = key.car(yaml, "50ms");
    car.apply("1s");
    assert!(stopping(&mut car));
}
