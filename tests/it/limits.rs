//! Bounds on how much there is at once, and on how long anything lasts.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use tracecar::exchange::Outcome;

use crate::support::car::TestCar;
use crate::support::origin::{Origin, Peer};
use crate::support::service::Service;
use crate::support::{PATIENCE, eventually};

const GET: &str = "GET /a HTTP/1.1\r\nHost: shop\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A service that says when it is asked, and answers when it is told to.
fn waiting() -> (Origin, Receiver<()>, Sender<()>) {
    let (arrived, arrives) = channel();
    let (answer, answers) = channel::<()>();
    let (arrived, answers) = (Mutex::new(arrived), Mutex::new(answers));
    let origin = Origin::new(move |peer| {
        while peer.request().is_some() {
            let _ = arrived.lock().unwrap().send(());
            let _ = answers.lock().unwrap().recv_timeout(PATIENCE);
            peer.send(OK);
        }
    });
    (origin, arrives, answer)
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_beyond_the_bound_on_connections_wait_and_are_served_then() {
    let origin = Origin::answering(OK);
    for workers in [1, 3] {
        let yaml = format!("limits: {{ connections: 2 }}\nruntime: {{ workers: {workers} }}");
        let car = TestCar::with(&origin.url(), &yaml, |_| {});
        let mut inside: Vec<_> = (0..2).map(|_| Peer::connect(car.address())).collect();
        for caller in &mut inside {
            caller.send(GET);
            assert_eq!(caller.response().status(), 200);
        }
        if workers > 1 {
            // Workers that had begun to accept before it was full take one more each.
            continue;
        }
        eventually("it is full", || car.stats().connections_full.value() > 0).await;
        let mut outside = Peer::connect(car.address());
        outside.send(GET);
        let quick = Duration::from_millis(200);
        outside.stream.set_read_timeout(Some(quick)).unwrap();
        assert!(outside.line().is_none(), "it is not served while the others are there");
        assert_eq!(car.stats().connections_accepted.value(), 2);
        outside.stream.set_read_timeout(Some(PATIENCE)).unwrap();
        drop(inside.pop());
        assert_eq!(outside.response().status(), 200);
    }
}

/// Whoever floods the service does not keep it from calling out.
#[test]
fn the_bound_on_connections_is_each_listeners_own() {
    let origin = Origin::answering(OK);
    let yaml = "limits: { connections: 1 }\noutbound: { proxy: '127.0.0.1:0' }";
    let car = TestCar::with(&origin.url(), yaml, |_| {});
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    assert_eq!(caller.response().status(), 200);
    let mut service = Peer::connect(car.proxy());
    service.send(format!("GET {}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.url()));
    assert_eq!(service.response().status(), 200);
}

#[test]
fn requests_beyond_the_bound_get_a_503_and_may_come_again() {
    let (origin, arrives, answer) = waiting();
    let yaml = "limits: { requests: 2 }\nexclude: { rules: [{ path: /healthz }] }";
    let car = TestCar::with(&origin.url(), yaml, |_| {});
    let mut inside: Vec<_> = (0..2).map(|_| Peer::connect(car.address())).collect();
    for caller in &mut inside {
        caller.send(GET);
        arrives.recv_timeout(PATIENCE).expect("it arrives");
    }
    let mut outside = Peer::connect(car.address());
    outside.send(GET);
    let refused = outside.response();
    assert_eq!((refused.status(), refused.header("retry-after")), (503, Some("1")));
    let says = refused.header("proxy-status").expect("it is ours");
    assert!(says.starts_with("tracecar; error=connection_limit_reached;"), "{says}");
    let record = car.record();
    assert_eq!((record.outcome, record.status), (Outcome::Overloaded, Some(503)));
    assert_eq!(car.stats().requests_limited.value(), 1);
    // A service that has much to do is not dead.
    let mut probe = Peer::connect(car.address());
    probe.send("GET /healthz HTTP/1.1\r\nHost: shop\r\n\r\n");
    arrives.recv_timeout(PATIENCE).expect("it arrives");
    for _ in 0..3 {
        answer.send(()).expect("the service waits");
    }
    assert_eq!(probe.response().status(), 200);
    for caller in &mut inside {
        assert_eq!(caller.response().status(), 200);
    }
    outside.send(GET);
    arrives.recv_timeout(PATIENCE).expect("it arrives");
    answer.send(()).expect("the service waits");
    assert_eq!(outside.response().status(), 200);
}

/// Otherwise a service whose requests are all under way could not call anybody, and they would never end.
#[test]
fn calls_are_not_counted_among_the_requests_that_make_them() {
    let service = Service::new();
    let (origin, arrives, answer) = waiting();
    let yaml = "limits: { requests: 1 }\noutbound: { proxy: '127.0.0.1:0' }";
    let car = TestCar::with(&service.url(), yaml, |_| {});
    let work = service.work(&car, "/a", "");
    let call = || {
        let mut caller = Peer::connect(car.proxy());
        caller.send(format!("GET {}/ HTTP/1.1\r\nHost: x\r\n\r\n", origin.url()));
        caller
    };
    let mut first = call();
    arrives.recv_timeout(PATIENCE).expect("it arrives");
    assert_eq!(call().response().status(), 503, "calls have the same bound, by themselves");
    answer.send(()).expect("the service waits");
    assert_eq!(first.response().status(), 200);
    assert_eq!(work.done().status(), 200);
}

#[test]
fn a_service_that_falls_silent_in_the_middle_of_its_answer_is_given_up() {
    for (answer, begins) in [
        ("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\npart", "part"),
        ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n", "4\r\npart\r\n"),
    ] {
        let origin = Origin::new(move |peer| {
            peer.request();
            peer.send(answer);
            let _ = peer.rest();
        });
        let car = TestCar::with(&origin.url(), "timeouts: { response_body: 1s }", |_| {});
        let mut caller = Peer::connect(car.address());
        caller.send(GET);
        let begun = Instant::now();
        assert!(caller.head().expect("a head").starts_with("HTTP/1.1 200 "));
        assert_eq!(caller.exactly(begins.len()), begins.as_bytes());
        assert_eq!(caller.rest().unwrap_or_default(), b"", "FRM-4: it breaks off");
        assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
        let record = car.record();
        let seen = (record.outcome, record.status, record.response_bytes);
        assert_eq!(seen, (Outcome::UpstreamNotSending, Some(200), 4));
        assert_eq!(car.stats().closed_response_body.value(), 1);
    }
}

#[test]
fn a_service_that_speaks_now_and_then_is_listened_to() {
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 6\r\n\r\n");
        for _ in 0..6 {
            // This is how slow it is, not a wait for something to happen.
            std::thread::sleep(Duration::from_millis(700));
            peer.send(".");
        }
    });
    let car = TestCar::with(&origin.url(), "timeouts: { response_body: 1s }", |_| {});
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    assert_eq!(caller.response().text(), "......");
    assert_eq!(car.record().outcome, Outcome::Complete);
}

#[test]
fn a_caller_that_does_not_go_on_with_its_content_gets_a_408() {
    let origin = Origin::new(|peer| {
        peer.head();
        let _ = peer.rest();
    });
    let car = TestCar::with(&origin.url(), "timeouts: { request_body: 1s }", |_| {});
    let mut caller = Peer::connect(car.address());
    caller.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\npart");
    let begun = Instant::now();
    assert_eq!(caller.response().status(), 408);
    assert!(begun.elapsed() >= Duration::from_secs(1), "{:?}", begun.elapsed());
    let record = car.record();
    assert_eq!((record.outcome, record.status), (Outcome::ClientNotSending, Some(408)));
    assert_eq!(car.stats().closed_request_body.value(), 1);
}

/// A stream of both ways may be quiet on the caller's side for as long as the service likes.
#[test]
fn a_caller_whom_the_service_has_begun_to_answer_may_be_quiet() {
    let origin = Origin::new(|peer| {
        peer.head();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for _ in 0..4 {
            // This is how slow it is, not a wait for something to happen.
            std::thread::sleep(Duration::from_millis(900));
            peer.send("1\r\n.\r\n");
        }
        peer.chunks();
        peer.send("0\r\n\r\n");
    });
    let car = TestCar::with(&origin.url(), "timeouts: { request_body: 1s }", |_| {});
    let mut caller = Peer::connect(car.address());
    caller.send("POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    assert!(caller.head().expect("a head").starts_with("HTTP/1.1 200 "));
    for _ in 0..4 {
        assert_eq!(caller.exactly(6), b"1\r\n.\r\n");
    }
    caller.send("0\r\n\r\n");
    assert_eq!(caller.chunks().expect("it ends well"), b"");
    assert_eq!(car.record().outcome, Outcome::Complete);
}

#[test]
fn what_lasts_for_too_long_ends_before_its_answer_with_504_and_behind_it_broken() {
    let silent = Origin::new(|peer| {
        peer.request();
        let _ = peer.rest();
    });
    let endless = Origin::new(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while peer.stream.peer_addr().is_ok() {
            // This is how slow it is, not a wait for something to happen.
            std::thread::sleep(Duration::from_millis(100));
            peer.send("1\r\n.\r\n");
        }
    });
    for (origin, status) in [(silent, 504), (endless, 200)] {
        let car = TestCar::with(&origin.url(), "timeouts: { stream: 1s }", |_| {});
        let mut caller = Peer::connect(car.address());
        caller.send(GET);
        let begun = Instant::now();
        if status == 504 {
            assert_eq!(caller.response().status(), 504);
        } else {
            assert!(caller.head().expect("a head").starts_with("HTTP/1.1 200 "));
            assert!(!caller.rest().unwrap_or_default().ends_with(b"0\r\n\r\n"));
        }
        assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
        let record = car.record();
        assert_eq!((record.outcome, record.status), (Outcome::StreamTimeout, Some(status)));
        assert_eq!(car.stats().closed_stream.value(), 1);
    }
}

#[test]
fn a_tunnel_that_is_quiet_on_both_sides_is_closed() {
    let (ended, ends) = channel();
    let ended = Mutex::new(ended);
    let origin = Origin::new(move |peer| {
        peer.request();
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\nhello");
        let _ = peer.rest();
        let _ = ended.lock().unwrap().send(());
    });
    let car = TestCar::with(&origin.url(), "timeouts: { tunnel: 1s }", |_| {});
    let mut caller = Peer::connect(car.address());
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n");
    assert!(caller.head().expect("a head").starts_with("HTTP/1.1 101 "));
    assert_eq!(caller.exactly(5), b"hello");
    let begun = Instant::now();
    assert_eq!(caller.rest().unwrap_or_default(), b"");
    assert!(begun.elapsed() >= Duration::from_millis(700), "{:?}", begun.elapsed());
    ends.recv_timeout(PATIENCE).expect("the service is told, too");
    let record = car.record();
    assert_eq!((record.outcome, record.fault()), (Outcome::TunnelIdle, None));
    assert_eq!(car.stats().closed_tunnel.value(), 1);
}

#[test]
fn a_request_waits_for_a_connection_to_the_service_and_gets_the_one_that_comes_free() {
    let (origin, arrives, answer) = waiting();
    let car = TestCar::with(&origin.url(), "limits: { upstream_connections: 1 }", |_| {});
    let mut callers: Vec<_> = (0..3).map(|_| Peer::connect(car.address())).collect();
    for caller in &mut callers {
        caller.send(GET);
    }
    for _ in 0..3 {
        arrives.recv_timeout(PATIENCE).expect("one after the other");
        assert!(arrives.try_recv().is_err(), "there is one connection");
        answer.send(()).expect("the service waits");
    }
    for caller in &mut callers {
        assert_eq!(caller.response().status(), 200);
    }
    assert_eq!(car.stats().upstream_connects.value(), 1);
}
