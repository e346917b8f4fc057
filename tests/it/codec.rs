//! HTTP/1 on sockets where both directions are busy at once, or have just been.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread::sleep;
use std::time::{Duration, Instant};

use tracecar::exchange::Outcome;

use crate::support::PATIENCE;
use crate::support::car::TestCar;
use crate::support::origin::{Origin, Peer};

const GET: &str = "GET /a HTTP/1.1\r\nHost: shop\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[test]
fn a_service_that_answers_early_and_reads_on_gets_all_of_the_request() {
    const CONTENT: usize = 200_000;
    for answer in
        [OK, "HTTP/1.1 202 Accepted\r\nContent-Length: 0\r\n\r\n", "HTTP/1.1 204 No Content\r\n\r\n"]
    {
        let (read, reads) = channel();
        let origin = Origin::new(move |peer| {
            peer.head();
            peer.send(answer);
            let _ = read.send(peer.exactly(CONTENT).len());
        });
        let car = TestCar::before(&origin.url());
        let mut caller = Peer::connect(car.address());
        caller.send(format!("POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: {CONTENT}\r\n\r\n"));
        let head = caller.response_head().head;
        caller.send(vec![b'x'; CONTENT]);
        assert_eq!(reads.recv_timeout(PATIENCE), Ok(CONTENT), "after {head}");
        assert_eq!(car.record().outcome, Outcome::Complete);
    }
}

#[test]
fn a_caller_that_leaves_in_its_request_ends_an_answer_that_has_begun() {
    for reset in [true, false] {
        let (left, leaves) = channel();
        let origin = Origin::new(move |peer| {
            peer.head();
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n");
            // It waits for the rest of the request before it goes on.
            let _ = left.send(peer.rest().map(|rest| rest.len()).unwrap_or_default());
        });
        let car = TestCar::before(&origin.url());
        let mut caller = Peer::connect(car.address());
        caller.send("POST /a HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
        caller.response_head();
        assert_eq!(caller.exactly(7), b"2\r\nok\r\n");
        if reset {
            caller.reset()
        } else {
            drop(caller)
        }
        assert_eq!(leaves.recv_timeout(Duration::from_secs(10)), Ok(8), "the service is told");
        let record = car.record();
        assert_eq!(
            (record.outcome, record.status),
            (Outcome::ClientGoneDuringResponse, Some(200)),
            "{record:?}"
        );
    }
}

#[test]
fn a_caller_that_stops_in_its_request_is_given_up_for_both_sides_when_the_answer_is_over() {
    let (left, leaves) = channel();
    let origin = Origin::new(move |peer| {
        peer.head();
        peer.send(OK);
        let _ = left.send(peer.rest().map(|rest| rest.len()).unwrap_or_default());
    });
    let car = TestCar::with(&origin.url(), "timeouts: { request_body: 1s }", |_| {});
    let mut caller = Peer::connect(car.address());
    caller.send("POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 9\r\n\r\nabc");
    assert_eq!(caller.response().text(), "ok");
    assert_eq!(caller.rest().unwrap(), b"", "it is waited for no longer than that");
    assert_eq!(leaves.recv_timeout(Duration::from_secs(5)), Ok(3), "the service is told");
}

#[test]
fn an_empty_line_behind_content_is_no_request() {
    let origin = Origin::answering(OK);
    let car = TestCar::with(&origin.url(), "timeouts: { request_header: 1s, idle: 4s }", |_| {});
    let post = "POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nab\r\n";
    let mut leaves = Peer::connect(car.address());
    leaves.send(post);
    assert_eq!(leaves.response().text(), "ok");
    leaves.finish_sending();
    assert_eq!(leaves.rest().unwrap(), b"", "it is not answered");
    let mut stays = Peer::connect(car.address());
    stays.send(post);
    assert_eq!(stays.response().text(), "ok");
    assert_eq!(stays.rest().unwrap(), b"", "it is closed for it is idle, and without a 408");
    assert_eq!(car.stats().closed_idle.value(), 1);
    let outcomes: Vec<_> = car.ended().iter().map(|record| record.outcome).collect();
    assert_eq!(outcomes, [Outcome::Complete, Outcome::Complete], "and two records");
}

#[test]
fn a_burst_of_connections_that_the_service_has_closed_fails_no_request_after_it() {
    // More than a task of the runtime may ask for in one turn.
    const BURST: usize = 200;
    let (arrived, arrives) = channel();
    let (go_on, goes_on) = channel::<()>();
    let goes_on = Mutex::new(goes_on);
    let (close, closes) = channel::<()>();
    let closes = Mutex::new(closes);
    let origin = Origin::new(move |peer| {
        while let Some(request) = peer.request() {
            if request.head.starts_with("GET") {
                let _ = arrived.send(());
                let _ = goes_on.lock().unwrap().recv();
                peer.send(OK);
                let _ = closes.lock().unwrap().recv();
                return;
            }
            peer.send(OK);
        }
    });
    let car = TestCar::with(&origin.url(), "runtime: { workers: 1 }", |_| {});
    let mut callers: Vec<_> = (0..BURST).map(|_| Peer::connect(car.address())).collect();
    callers.iter_mut().for_each(|caller| caller.send(GET));
    (0..BURST).for_each(|_| arrives.recv_timeout(PATIENCE).unwrap());
    drop(go_on);
    for caller in &mut callers {
        assert_eq!(caller.response().text(), "ok");
        assert_eq!(car.record().outcome, Outcome::Complete);
    }
    drop(close);
    // Nothing tells when the ends have arrived, and what is not known to have ended may be used.
    sleep(Duration::from_millis(200));
    callers[0].send("POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nab");
    let answer = callers[0].response();
    assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"), "{answer:?}");
}

#[test]
fn a_connection_that_rests_and_is_not_used_makes_room_at_once() {
    let origin = Origin::answering(OK);
    let car =
        TestCar::with(&origin.url(), "limits: { upstream_connections: 1 }\nruntime: { workers: 1 }", |_| {});
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    assert_eq!(caller.response().text(), "ok");
    // Until it is too old for a request that cannot be sent twice: the passing of time is what this is about.
    sleep(Duration::from_millis(1200));
    let begun = Instant::now();
    caller.send("POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 2\r\n\r\nab");
    assert_eq!(caller.response().text(), "ok");
    assert!(begun.elapsed() < Duration::from_millis(700), "{:?}", begun.elapsed());
}

#[test]
fn a_change_of_protocol_in_the_middle_of_a_request_is_refused() {
    let origin = Origin::new(|peer| {
        peer.head();
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n");
        let _ = peer.rest();
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(
        "POST /a HTTP/1.1\r\nHost: shop\r\nConnection: upgrade\r\nUpgrade: chat\r\nContent-Length: 9\r\n\r\nab",
    );
    assert_eq!(caller.response().status(), 502);
    assert_eq!(car.record().outcome, Outcome::UpstreamInvalid);
}
