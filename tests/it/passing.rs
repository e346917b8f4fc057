//! What goes in comes out: messages of every shape, as they were.

use std::sync::mpsc::channel;
use std::time::Duration;

use tracecar::exchange::{Outcome, Stream};

use crate::support::PATIENCE;
use crate::support::car::TestCar;
use crate::support::origin::{Message, Origin, Peer};

/// Answers with what it was asked, and tells it.
fn echo() -> (Origin, std::sync::mpsc::Receiver<Message>) {
    let (asked, asks) = channel();
    let origin = Origin::new(move |peer| {
        while let Some(request) = peer.request() {
            let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", request.body.len());
            let _ = asked.send(request.clone());
            peer.send([head.as_bytes(), &request.body].concat());
        }
    });
    (origin, asks)
}

#[test]
fn the_target_passes_byte_for_byte() {
    let (origin, asks) = echo();
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    for target in ["/a/../b?x=%2F&&", "//double//slash/", "/%7Euser/+%20?q=a+b&q", "/?"] {
        caller.send(format!("GET {target} HTTP/1.1\r\nHost: shop\r\n\r\n"));
        assert_eq!(caller.response().status(), 200);
        let asked = asks.recv_timeout(PATIENCE).unwrap();
        assert!(asked.head.starts_with(&format!("GET {target} HTTP/1.1\r\n")), "HOP-11: {}", asked.head);
    }
}

#[test]
fn an_absolute_target_becomes_origin_form_with_its_own_host() {
    let (origin, asks) = echo();
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send("GET http://real.example/x?y=1 HTTP/1.1\r\nHost: claimed\r\n\r\n");
    caller.response();
    let asked = asks.recv_timeout(PATIENCE).unwrap();
    assert!(asked.head.starts_with("GET /x?y=1 HTTP/1.1\r\n"), "{}", asked.head);
    assert_eq!(asked.headers("host").collect::<Vec<_>>(), ["real.example"], "FWD-1");
}

#[test]
fn header_case_and_repeated_lines_survive_both_ways() {
    let (asked, asks) = channel();
    let origin = Origin::new(move |peer| {
        while let Some(request) = peer.request() {
            let _ = asked.send(request);
            peer.send(
                "HTTP/1.1 200 OK\r\nSet-Cookie: a=1\r\nX-CamelCase: yes\r\nSet-Cookie: b=2\r\nContent-Length: 0\r\n\r\n",
            );
        }
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\nX-MiXeD: 1\r\nX-MiXeD: 2\r\n\r\n");
    let answer = caller.response();
    assert_eq!(answer.headers("set-cookie").collect::<Vec<_>>(), ["a=1", "b=2"], "HOP-5");
    assert!(answer.head.contains("X-CamelCase: yes\r\n"));
    assert!(answer.header("date").is_none(), "nothing is added that is not documented");
    let asked = asks.recv_timeout(PATIENCE).unwrap();
    assert_eq!(asked.headers("x-mixed").collect::<Vec<_>>(), ["1", "2"]);
    assert!(asked.head.contains("X-MiXeD: 1\r\n"), "{}", asked.head);
}

#[test]
fn headers_of_this_hop_stay_here() {
    let (origin, asks) = echo();
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(
        "GET / HTTP/1.1\r\nHost: shop\r\nConnection: keep-alive, X-Hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\n\
         Proxy-Connection: keep-alive\r\nX-End: 2\r\n\r\n",
    );
    caller.response();
    let asked = asks.recv_timeout(PATIENCE).unwrap();
    for name in ["connection", "x-hop", "keep-alive", "proxy-connection", "via"] {
        assert_eq!(asked.header(name), None, "HOP-1, HOP-2: {name}");
    }
    assert_eq!(asked.header("x-end"), Some("2"));
}

#[test]
fn via_is_added_where_asked_for() {
    let (origin, asks) = echo();
    let car = TestCar::with(&origin.url(), "propagation: { via: true }", |_| {});
    let mut caller = Peer::connect(car.address());
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n");
    assert_eq!(caller.response().header("via"), Some("1.1 tracecar"));
    assert_eq!(asks.recv_timeout(PATIENCE).unwrap().header("via"), Some("1.1 tracecar"), "HOP-8");
}

#[test]
fn the_kind_of_framing_is_kept() {
    let (origin, asks) = echo();
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send("POST / HTTP/1.1\r\nHost: shop\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n");
    assert_eq!(caller.response().text(), "abc");
    let chunked = asks.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        (chunked.header("transfer-encoding"), chunked.header("content-length")),
        (Some("chunked"), None)
    );
    caller.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\nabc");
    assert_eq!(caller.response().text(), "abc");
    let known = asks.recv_timeout(PATIENCE).unwrap();
    assert_eq!(
        (known.header("transfer-encoding"), known.header("content-length")),
        (None, Some("3")),
        "FRM-3"
    );
    caller.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n");
    caller.response();
    assert_eq!(asks.recv_timeout(PATIENCE).unwrap().header("content-length"), Some("0"));
}

#[test]
fn responses_without_content_keep_their_headers() {
    for (request, response) in [
        ("HEAD / HTTP/1.1\r\nHost: s\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 1234\r\n\r\n"),
        // hyper drops the Content-Length that a 304 may carry (FRM-1), so none is sent here.
        ("GET / HTTP/1.1\r\nHost: s\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: s\r\n\r\n", "HTTP/1.1 204 No Content\r\nX-A: 1\r\n\r\n"),
    ] {
        let origin = Origin::answering(response);
        let car = TestCar::before(&origin.url());
        let mut caller = Peer::connect(car.address());
        // Twice, so that a byte too many of the first answer would be seen in the second.
        for _ in 0..2 {
            caller.send(request);
            let answer = caller.response_head();
            assert!(response.starts_with(answer.head.lines().next().unwrap()), "{}", answer.head);
            let expected = response.contains("Content-Length").then_some("1234");
            assert_eq!(answer.header("content-length"), expected, "FRM-1");
            let record = car.record();
            assert_eq!((record.outcome, record.response_bytes), (Outcome::Complete, 0));
        }
    }
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let (origin, _asks) = echo();
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    let request =
        |body: &str| format!("POST / HTTP/1.1\r\nHost: s\r\nContent-Length: {}\r\n\r\n{body}", body.len());
    caller.send(["one", "two", "three"].map(request).concat());
    for expected in ["one", "two", "three"] {
        assert_eq!(caller.response().text(), expected);
    }
    let records = [car.record(), car.record(), car.record()];
    assert!(records.iter().all(|record| record.outcome == Outcome::Complete));
}

#[test]
fn a_caller_of_http_1_0_gets_an_answer_it_can_read() {
    let origin =
        Origin::answering("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send("GET / HTTP/1.0\r\n\r\n");
    let answer = caller.response();
    assert_eq!((answer.header("transfer-encoding"), answer.text().as_str()), (None, "hello"), "FRM-2");
}

#[test]
fn ten_mebibytes_pass_both_ways_unchanged() {
    let (origin, _asks) = echo();
    let car = TestCar::before(&origin.url());
    let body: Vec<u8> =
        (0..10 * 1024 * 1024_u32).map(|n| (n.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    let mut caller = Peer::connect(car.address());
    caller.send(format!("POST / HTTP/1.1\r\nHost: s\r\nContent-Length: {}\r\n\r\n", body.len()));
    caller.send(&body);
    assert!(caller.response().body == body, "every byte");
    let record = car.record();
    assert_eq!((record.request_bytes, record.response_bytes), (body.len() as u64, body.len() as u64));
}

#[test]
fn a_slow_reader_slows_the_service_and_fills_no_memory() {
    const TOTAL: usize = 64 * 1024 * 1024;
    let (sent, sends) = channel();
    let origin = Origin::new(move |peer| {
        peer.request();
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {TOTAL}\r\n\r\n"));
        peer.stream.set_write_timeout(Some(Duration::from_millis(300))).unwrap();
        let mut total = 0;
        // Stops at the first write that does not go through: everything between us is full.
        while total < TOTAL {
            match std::io::Write::write(&mut peer.stream, &[7; 65536]) {
                Ok(n) => total += n,
                Err(_) => break,
            }
        }
        let _ = sent.send(total);
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send("GET / HTTP/1.1\r\nHost: s\r\n\r\n");
    caller.head().unwrap();
    let passed = sends.recv_timeout(PATIENCE).unwrap();
    assert!(passed < TOTAL / 2, "{passed} bytes were taken from the service though nobody reads them");
}

#[test]
fn an_event_stream_passes_event_by_event_and_is_marked() {
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
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send("GET / HTTP/1.1\r\nHost: s\r\n\r\n");
    caller.head().unwrap();
    for _ in 0..3 {
        assert_eq!(caller.exactly(14), b"9\r\ndata: 1\n\n\r\n");
        next.send(()).unwrap();
    }
    let record = car.record();
    assert_eq!((record.stream, record.outcome), (Some(Stream::ServerSentEvents), Outcome::Complete));
}

#[test]
fn trailers_pass_where_the_caller_takes_them() {
    let origin = Origin::answering(
        "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
    );
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send("GET / HTTP/1.1\r\nHost: s\r\nTE: trailers\r\nConnection: TE\r\n\r\n");
    caller.head().unwrap();
    assert_eq!(caller.exactly(10), b"2\r\nok\r\n0\r\n", "HOP-14");
    assert_eq!(caller.line().unwrap().to_lowercase(), "x-sum: 7\r\n");
}

#[test]
fn connect_is_refused_before_a_service() {
    let (origin, _asks) = echo();
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send("CONNECT db.internal:5432 HTTP/1.1\r\nHost: db.internal:5432\r\n\r\n");
    let answer = caller.response();
    assert_eq!(answer.status(), 501);
    assert_eq!(car.record().outcome, Outcome::Rejected);
}

#[test]
fn a_request_that_names_us_as_its_last_recipient_is_answered_and_goes_nowhere() {
    let (origin, asks) = echo();
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send("TRACE /a?b HTTP/1.1\r\nHost: shop\r\nX-A: 1\r\nCookie: secret\r\nMax-Forwards: 0\r\n\r\n");
    let answer = caller.response();
    assert_eq!((answer.status(), answer.header("content-type")), (200, Some("message/http")), "HOP-9");
    assert!(
        answer.text().starts_with("TRACE /a?b HTTP/1.1\r\nHost: shop\r\nX-A: 1\r\n"),
        "{}",
        answer.text()
    );
    assert!(!answer.text().contains("secret"), "HOP-10");
    caller.send("OPTIONS * HTTP/1.1\r\nHost: shop\r\nMax-Forwards: 0\r\n\r\n");
    assert_eq!(caller.response().status(), 200);
    for (method, sent, passed) in
        [("OPTIONS", "10", "9"), ("TRACE", "1", "0"), ("GET", "0", "0"), ("OPTIONS", "many", "many")]
    {
        caller.send(format!("{method} /x HTTP/1.1\r\nHost: shop\r\nMax-Forwards: {sent}\r\n\r\n"));
        caller.response();
        let asked = asks.recv_timeout(PATIENCE).unwrap();
        assert_eq!((&asked.head[..method.len()], asked.header("max-forwards")), (method, Some(passed)));
    }
    let statuses: Vec<_> = (0..6).map(|_| car.record().status).collect();
    assert_eq!(statuses, [Some(200); 6]);
}
