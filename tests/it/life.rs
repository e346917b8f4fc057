//! Connections over time: kept, parked, gone stale, drained.

use std::sync::Arc;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::channel;
use std::time::Duration;

use tracecar::exchange::Outcome;

use crate::support::PATIENCE;
use crate::support::car::TestCar;
use crate::support::origin::{Origin, Peer};

const GET: &str = "GET /a HTTP/1.1\r\nHost: shop\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

#[test]
fn connections_are_kept_on_both_sides() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let origin = Origin::new(move |peer| {
        counted.fetch_add(1, Ordering::SeqCst);
        while peer.request().is_some() {
            peer.send(OK);
        }
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    for _ in 0..20 {
        caller.send(GET);
        assert_eq!(caller.response().status(), 200);
    }
    let mut another = Peer::connect(car.address());
    another.send(GET);
    another.response();
    assert_eq!(connections.load(Ordering::SeqCst), 1);
    assert_eq!(car.stats().connections_accepted.value(), 2);
    let first = car.record();
    assert!(first.timings.connect.is_some());
    assert!(car.record().timings.connect.is_none(), "the second request found a connection");
}

#[test]
fn a_connection_that_the_service_closed_meanwhile_is_not_used_again() {
    let (closed, closes) = channel();
    let origin = Origin::new(move |peer| {
        peer.request();
        peer.send(OK);
        let _ = peer.stream.shutdown(std::net::Shutdown::Both);
        let _ = closed.send(());
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    for _ in 0..20 {
        caller.send("POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\nx");
        assert_eq!(caller.response().status(), 200);
        closes.recv_timeout(PATIENCE).unwrap();
    }
}

#[test]
fn an_answer_with_connection_close_is_not_followed_by_another_request() {
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n");
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    for _ in 0..5 {
        caller.send(GET);
        let answer = caller.response();
        assert_eq!((answer.status(), answer.header("connection")), (200, None), "it is about the other hop");
    }
}

#[test]
fn a_drain_lets_requests_finish_and_says_so() {
    let (arrived, arrives) = channel();
    let (answer, answers) = channel::<()>();
    let answers = Mutex::new(answers);
    let origin = Origin::new(move |peer| {
        peer.request();
        let _ = arrived.send(());
        let _ = answers.lock().unwrap().recv_timeout(PATIENCE);
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let mut car = TestCar::before(&origin.url());
    let mut idle = Peer::connect(car.address());
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    arrives.recv_timeout(PATIENCE).unwrap();
    car.stop();
    assert_eq!(idle.rest().unwrap_or_default(), b"", "an idle connection is closed");
    answer.send(()).unwrap();
    let last = caller.response();
    assert_eq!((last.text().as_str(), last.header("connection")), ("ok", Some("close")));
    assert_eq!(caller.rest().unwrap(), b"");
    let records = car.ended();
    assert_eq!(records.len(), 1);
    assert_eq!(records[0].outcome, Outcome::Complete);
}

#[test]
fn what_does_not_finish_in_the_drain_time_is_recorded_as_drained() {
    let (arrived, arrives) = channel();
    let origin = Origin::new(move |peer| {
        peer.request();
        let _ = arrived.send(());
        let _ = peer.rest();
    });
    let car = TestCar::with(&origin.url(), "", |settings| settings.startup.drain = Duration::from_millis(50));
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    arrives.recv_timeout(PATIENCE).unwrap();
    let records = car.ended();
    assert_eq!(records.len(), 1);
    assert_eq!((records[0].outcome, records[0].status), (Outcome::Drained, None));
}

#[test]
fn several_workers_share_their_connections_evenly() {
    let (arrived, arrives) = channel();
    let origin = Origin::new(move |peer| {
        while let Some(request) = peer.request() {
            let _ = arrived.send(());
            let _ = request;
            peer.send(OK);
        }
    });
    let car = TestCar::with(&origin.url(), "runtime: { workers: 3 }", |_| {});
    let mut callers: Vec<_> = (0..12).map(|_| Peer::connect(car.address())).collect();
    for caller in &mut callers {
        caller.send(GET);
        assert_eq!(caller.response().status(), 200);
        arrives.recv_timeout(PATIENCE).unwrap();
    }
    let outcomes: Vec<_> = (0..12).map(|_| car.record().outcome).collect();
    assert!(outcomes.iter().all(|outcome| *outcome == Outcome::Complete));
    assert_eq!(car.stats().connections_open.value(), 12);
    drop(callers);
    assert_eq!(car.ended().len(), 0);
}

/// A server that writes head and content separately, and lets its system hold the second back until the first is
/// acknowledged. Through a kept connection each answer would take 40 ms longer than without us.
#[test]
#[cfg(target_os = "linux")]
fn a_service_that_waits_for_acknowledgements_is_not_slowed() {
    let origin = Origin::new(|peer| {
        peer.stream.set_nodelay(false).unwrap();
        while peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
            peer.send("ok");
        }
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    // One right after the other: after a pause the system acknowledges promptly for a while.
    for _ in 0..30 {
        caller.send(GET);
        assert_eq!(caller.response().text(), "ok");
    }
    let totals = (0..30).map(|_| car.record().timings.total);
    let slow = totals.filter(|total| *total >= Duration::from_millis(38)).count();
    assert!(slow <= 5, "{slow} of 30 answers waited for an acknowledgement");
}
