//! Every way in which an exchange ends, and that each leaves exactly one honest record.

use std::net::{SocketAddr, TcpListener};
use std::sync::mpsc::channel;
use std::time::Duration;

use tracecar::exchange::{Fault, Outcome, Record};

use crate::support::PATIENCE;
use crate::support::car::TestCar;
use crate::support::origin::{Origin, Peer};

const GET: &str = "GET /a HTTP/1.1\r\nHost: shop\r\n\r\n";

/// Checks the one record of a sidecar that has nothing more to say.
fn only_record(car: TestCar, outcome: Outcome, status: Option<u16>) -> Record {
    let record = car.record();
    assert_eq!((record.outcome, record.status), (outcome, status), "{record:?}");
    assert_eq!(car.ended().len(), 0, "one record and no more");
    (*record).clone()
}

/// An address at which nothing listens.
fn nowhere() -> SocketAddr {
    TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).expect("a port is free")
}

#[test]
fn a_whole_answer_is_complete() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    assert_eq!(caller.response().text(), "ok");
    let record = only_record(car, Outcome::Complete, Some(200));
    assert_eq!(record.response_bytes, 2);
    assert!(record.timings.sent <= record.timings.first_byte);
    assert!(record.timings.first_byte.unwrap() <= record.timings.total);
}

#[test]
fn nothing_listening_is_a_bad_gateway_that_names_itself() {
    let car = TestCar::before(&format!("http://{}", nowhere()));
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    let answer = caller.response();
    assert_eq!(answer.status(), 502);
    assert!(answer.header("proxy-status").unwrap().starts_with("tracecar; error=connection_refused"));
    assert!(answer.text().contains("connection refused"), "{}", answer.text());
    assert!(answer.text().contains(answer.header("x-correlation-id").unwrap()), "the id is in the body");
    let record = only_record(car, Outcome::UpstreamRefused, Some(502));
    assert_eq!(record.fault(), Some(Fault::Upstream));
    assert_eq!(record.error_type().as_deref(), Some("connection_refused"));
}

#[test]
fn an_error_of_ours_is_json_for_those_who_ask() {
    let car = TestCar::before(&format!("http://{}", nowhere()));
    let mut caller = Peer::connect(car.address());
    caller.send("GET /a HTTP/1.1\r\nHost: shop\r\nAccept: application/json\r\nX-Request-Id: r-1\r\n\r\n");
    let answer = caller.response();
    assert_eq!(answer.header("content-type"), Some("application/problem+json"));
    let problem: serde_json::Value = serde_json::from_slice(&answer.body).expect("JSON");
    assert_eq!((&problem["status"], &problem["correlation_id"]), (&502.into(), &"r-1".into()));
}

#[test]
fn a_name_without_address_is_a_bad_gateway() {
    let car = TestCar::before("http://no-such-host.invalid:80");
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    assert_eq!(caller.response().status(), 502);
    let record = only_record(car, Outcome::UpstreamUnresolved, Some(502));
    assert!(record.timings.dns.is_some());
}

#[test]
fn a_service_that_closes_before_its_head_is_a_bad_gateway() {
    let origin = Origin::new(|peer| drop(peer.request()));
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send("POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\nx");
    assert_eq!(caller.response().status(), 502);
    only_record(car, Outcome::UpstreamReset, Some(502));
}

#[test]
fn a_service_that_does_not_speak_http_is_a_bad_gateway() {
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send("SSH-2.0-OpenSSH_9.2\r\n\r\n");
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    assert_eq!(caller.response().status(), 502);
    only_record(car, Outcome::UpstreamInvalid, Some(502));
}

#[test]
fn a_service_that_says_nothing_is_a_gateway_timeout() {
    let origin = Origin::new(|peer| {
        peer.request();
        let _ = peer.rest();
    });
    let car = TestCar::with(&origin.url(), "", |settings| {
        settings.live.timeouts.response_header = Duration::from_millis(50)
    });
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    assert_eq!(caller.response().status(), 504);
    only_record(car, Outcome::UpstreamTimeout, Some(504));
}

#[test]
fn a_service_that_does_not_accept_is_a_gateway_timeout() {
    let full = Full::new();
    let car = TestCar::with(&format!("http://{}", full.address), "", |settings| {
        settings.live.timeouts.connect = Duration::from_millis(50);
    });
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    assert_eq!(caller.response().status(), 504);
    only_record(car, Outcome::UpstreamConnectTimeout, Some(504));
}

#[test]
fn a_body_of_known_length_that_breaks_off_never_ends_cleanly() {
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    assert!(caller.head().unwrap().starts_with("HTTP/1.1 200"));
    assert_eq!(caller.rest().unwrap_or_default(), b"half");
    let record = only_record(car, Outcome::UpstreamBroken, Some(200));
    assert_eq!(record.response_bytes, 4);
    assert_eq!(record.error_type().as_deref(), Some("body_incomplete"));
}

#[test]
fn a_chunked_body_that_breaks_off_gets_no_last_chunk() {
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    caller.head().unwrap();
    assert_eq!(caller.chunks(), None, "FRM-4");
    only_record(car, Outcome::UpstreamBroken, Some(200));
}

#[test]
fn a_caller_that_resets_while_we_connect_is_gone_before_the_response() {
    let full = Full::new();
    let car = TestCar::before(&format!("http://{}", full.address));
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    active(&car, 1);
    caller.reset();
    let record = only_record(car, Outcome::ClientGoneBeforeResponse, None);
    assert_eq!(record.timings.sent, None);
    assert!(!record.failed(), "a caller that leaves is no server error");
}

#[test]
fn a_caller_that_resets_before_the_head_is_gone_before_the_response() {
    let (arrived, arrives) = channel();
    let origin = Origin::new(move |peer| {
        peer.request();
        let _ = arrived.send(());
        let _ = peer.rest();
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    arrives.recv_timeout(PATIENCE).unwrap();
    caller.reset();
    only_record(car, Outcome::ClientGoneBeforeResponse, None);
}

#[test]
fn a_caller_that_resets_in_mid_body_is_gone_during_the_response() {
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
        let _ = peer.rest();
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    caller.head().unwrap();
    assert_eq!(caller.exactly(4), b"half");
    caller.reset();
    only_record(car, Outcome::ClientGoneDuringResponse, Some(200));
}

#[test]
fn a_caller_that_resets_in_the_middle_of_its_request_is_gone_before_the_response() {
    let (arrived, arrives) = channel();
    let origin = Origin::new(move |peer| {
        peer.head();
        peer.exactly(2);
        let _ = arrived.send(());
        let _ = peer.rest();
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send("POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\nxx");
    arrives.recv_timeout(PATIENCE).unwrap();
    caller.reset();
    let record = only_record(car, Outcome::ClientGoneBeforeResponse, None);
    assert_eq!(record.request_bytes, 2);
}

#[test]
fn a_caller_that_only_closes_its_sending_side_is_served() {
    let (arrived, arrives) = channel();
    let (answer, answers) = channel::<()>();
    let answers = std::sync::Mutex::new(answers);
    let origin = Origin::new(move |peer| {
        peer.request();
        let _ = arrived.send(());
        let _ = answers.lock().unwrap().recv_timeout(PATIENCE);
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    caller.finish_sending();
    arrives.recv_timeout(PATIENCE).unwrap();
    answer.send(()).unwrap();
    assert_eq!(caller.response().text(), "ok");
    assert_eq!(caller.rest().unwrap(), b"", "and then the connection ends");
    only_record(car, Outcome::Complete, Some(200));
}

#[test]
fn half_close_cancels_where_the_configuration_says_so() {
    let (arrived, arrives) = channel();
    let origin = Origin::new(move |peer| {
        peer.request();
        let _ = arrived.send(());
        let _ = peer.rest();
    });
    let car = TestCar::with(&origin.url(), "client: { half_close: cancel }", |_| {});
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    arrives.recv_timeout(PATIENCE).unwrap();
    caller.finish_sending();
    only_record(car, Outcome::ClientGoneBeforeResponse, None);
}

#[test]
fn a_request_cut_short_by_half_close_is_not_passed_off_as_whole() {
    let origin = Origin::new(|peer| assert!(peer.request().is_none(), "FRM-4: it never becomes whole"));
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send("POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 10\r\n\r\nxx");
    caller.finish_sending();
    let _ = caller.rest();
    let record = car.record();
    assert_eq!(record.outcome, Outcome::ClientGoneBeforeResponse);
}

#[test]
fn bytes_that_are_no_request_leave_a_record_without_a_method() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send("GARBAGE\r\n\r\n");
    let answer = caller.head().expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 400"), "{answer}");
    let record = only_record(car, Outcome::MalformedRequest, Some(400));
    assert!(record.request.is_none());
    assert!(!record.text(record.detail).is_empty());
}

#[test]
fn a_request_head_that_is_never_finished_is_given_up() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let car = TestCar::with(&origin.url(), "", |settings| {
        settings.live.timeouts.request_header = Duration::from_millis(1)
    });
    let mut caller = Peer::connect(car.address());
    caller.send("GET /a HTTP/1.1\r\nHost: sh");
    assert_eq!(caller.response().status(), 408, "GW-3");
    assert_eq!(caller.rest().unwrap_or_default(), b"");
    only_record(car, Outcome::RequestTimeout, Some(408));
}

#[test]
fn a_connection_that_says_nothing_is_closed_without_a_record() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let car = TestCar::with(&origin.url(), "", |settings| {
        settings.live.timeouts.detection = Duration::from_millis(50)
    });
    let mut silent = Peer::connect(car.address());
    assert_eq!(silent.rest().unwrap_or_default(), b"");
    let mut half_preface = Peer::connect(car.address());
    half_preface.send("PRI * HT");
    assert_eq!(half_preface.rest().unwrap_or_default(), b"");
    assert_eq!(car.ended().len(), 0);
}

#[test]
fn an_idle_connection_is_closed_after_its_time() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let car =
        TestCar::with(&origin.url(), "", |settings| settings.live.timeouts.idle = Duration::from_millis(50));
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    assert_eq!(caller.response().status(), 200);
    assert_eq!(caller.rest().unwrap_or_default(), b"");
}

/// Waits until `count` requests are in the sidecar.
fn active(car: &TestCar, count: u64) {
    let begun = std::time::Instant::now();
    while car.stats().requests_active.value() != count {
        assert!(begun.elapsed() < PATIENCE, "{count} requests become active");
        std::thread::yield_now();
    }
}

/// A listener whose queue is full: nobody can connect to it, and nobody is refused.
struct Full {
    address: SocketAddr,
    _queued: Vec<socket2::Socket>,
    _listener: socket2::Socket,
}

impl Full {
    fn new() -> Self {
        use socket2::{Domain, Socket, Type};
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        listener.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
        listener.listen(0).unwrap();
        let address = listener.local_addr().unwrap().as_socket().unwrap();
        let queued = (0..4)
            .map(|_| {
                let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
                socket.set_nonblocking(true).unwrap();
                let _ = socket.connect(&address.into());
                socket
            })
            .collect();
        Self { address, _queued: queued, _listener: listener }
    }
}
