//! The network at its worst: peers that say the wrong thing, at the wrong moment, or leave.

use std::io::Write;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tracecar::exchange::Outcome;
use tracecar::net::Drain;
use tracecar::net::server::{Bounds, Caller, Handler, Unreadable};
use tracecar::proxy::ResponseBody;
use tracecar::stats::Stats;
use tracecar::wire::Received;

use crate::support::car::TestCar;
use crate::support::origin::{Message, Origin, Peer};
use crate::support::{PATIENCE, eventually};

const GET: &str = "GET /a HTTP/1.1\r\nHost: shop\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

/// Answers everything with an empty 200, and tells what it was asked.
fn telling() -> (Origin, Receiver<Message>) {
    let (asked, asks) = channel();
    let origin = Origin::new(move |peer| {
        while let Some(request) = peer.request() {
            let _ = asked.send(request);
            peer.send(OK);
        }
    });
    (origin, asks)
}

#[test]
fn content_that_follows_an_early_answer_is_never_read_as_a_request() {
    let (asked, asks) = channel();
    let origin = Origin::new(move |peer| {
        while let Some(head) = peer.head() {
            let _ = asked.send(head);
            peer.send(OK);
        }
    });
    let car = TestCar::before(&origin.url());
    let smuggled = "GET /smuggled HTTP/1.1\r\nHost: shop\r\n\r\n";
    let mut caller = Peer::connect(car.address());
    caller.send(format!("POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: {}\r\n\r\n", smuggled.len() + 1));
    assert_eq!(caller.response().status(), 200, "HOP-16: relayed at once");
    caller.send(smuggled);
    caller.finish_sending();
    let _ = caller.rest();
    let records = car.ended();
    assert_eq!(records.len(), 1, "one request, one record: {records:?}");
    assert!(asks.recv_timeout(PATIENCE).unwrap().starts_with("POST /a "));
}

#[test]
fn a_request_that_outlasts_the_tick_after_a_drain_began_still_finishes() {
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
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    arrives.recv_timeout(PATIENCE).unwrap();
    car.stop();
    // Longer than two ticks of the connection: the passing of time is what this is about.
    std::thread::sleep(Duration::from_millis(2500));
    answer.send(()).unwrap();
    assert_eq!(caller.response().text(), "ok");
    assert_eq!(car.stats().panics.value(), 0);
    assert_eq!(car.ended()[0].outcome, Outcome::Complete);
}

#[test]
fn more_pipelined_requests_than_one_turn_takes_are_all_answered() {
    let car = TestCar::with("http://127.0.0.1:1", "outbound: { proxy: '127.0.0.1:0' }", |_| {});
    let mut caller = Peer::connect(car.bound.proxy.expect("it is on"));
    // Refused without waiting for anybody, so that all are answered in one go.
    caller.send("GET /a HTTP/1.1\r\nHost: a:1\r\n\r\n".repeat(64));
    for number in 0..64 {
        assert_eq!(caller.response().status(), 400, "answer {number}");
    }
    for _ in 0..64 {
        assert_eq!(car.record().outcome, Outcome::Rejected);
    }
}

#[test]
fn a_long_answer_reaches_a_slow_reader_that_has_closed_its_sending_side() {
    const LONG: usize = 6 << 20;
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {LONG}\r\n\r\n"));
        peer.send(vec![b'x'; LONG]);
        let _ = peer.rest();
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    caller.finish_sending();
    assert!(caller.head().unwrap().starts_with("HTTP/1.1 200"));
    // Lets every buffer on the way fill up.
    std::thread::sleep(Duration::from_millis(200));
    assert_eq!(caller.rest().unwrap().len(), LONG);
    let record = car.record();
    assert_eq!((record.outcome, record.status), (Outcome::Complete, Some(200)));
    assert_eq!(record.response_bytes, LONG as u64);
}

#[test]
fn a_101_that_nobody_asked_for_is_an_invalid_response() {
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nraw");
        let _ = peer.rest();
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    assert_eq!(caller.response().status(), 502);
    assert_eq!(car.record().outcome, Outcome::UpstreamInvalid);
}

#[test]
fn connection_cannot_take_away_what_we_send_on() {
    let (origin, asks) = telling();
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(
        "GET / HTTP/1.1\r\nHost: shop\r\nConnection: traceparent, x-correlation-id, baggage\r\n\
         traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n\r\n",
    );
    caller.response();
    let asked = asks.recv_timeout(PATIENCE).unwrap();
    assert_eq!(asked.headers("traceparent").count(), 1, "{}", asked.head);
    assert_eq!(asked.headers("x-correlation-id").count(), 1);
    let context = asked.header("traceparent").unwrap();
    assert!(
        context.contains("0af7651916cd43dd8448eb211c80319c"),
        "HOP-1: the context was read first: {context}"
    );
}

#[test]
fn a_caller_of_http_1_0_without_host_reaches_a_service_that_needs_one() {
    let (origin, asks) = telling();
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send("GET / HTTP/1.0\r\n\r\n");
    assert_eq!(caller.response().status(), 200);
    let asked = asks.recv_timeout(PATIENCE).unwrap();
    assert_eq!(asked.headers("host").collect::<Vec<_>>(), [origin.address.to_string()]);
}

#[test]
fn bytes_behind_an_answer_are_never_the_next_answer() {
    let origin = Origin::new(|peer| {
        let mut first = true;
        // In one piece: what comes later than our next request cannot be told from its answer, by nobody.
        const MORE: &str = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
        while peer.request().is_some() {
            peer.send(if std::mem::take(&mut first) { [OK, MORE].concat() } else { OK.to_owned() });
        }
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    for _ in 0..20 {
        caller.send("POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\nx");
        let answer = caller.response();
        assert_ne!(answer.text(), "evil");
    }
}

#[test]
fn an_early_refusal_reaches_a_caller_that_is_still_sending() {
    const LONG: usize = 4 << 20;
    let origin = Origin::new(|peer| {
        peer.head();
        peer.send(
            "HTTP/1.1 413 Content Too Large\r\nConnection: close\r\nContent-Length: 9\r\n\r\ntoo large",
        );
        // Closed with unread bytes, as many services do: the socket answers with a reset.
    });
    let car = TestCar::before(&origin.url());
    for _ in 0..20 {
        let mut caller = Peer::connect(car.address());
        caller.send(format!("POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: {LONG}\r\n\r\n"));
        caller.send(vec![b'x'; LONG]);
        let answer = caller.response();
        assert_eq!((answer.status(), answer.text().as_str()), (413, "too large"));
        let record = car.record();
        assert_eq!((record.outcome, record.status), (Outcome::Complete, Some(413)), "{record:?}");
    }
}

#[test]
fn our_own_refusal_reaches_a_caller_that_is_still_sending() {
    const LONG: usize = 4 << 20;
    let nowhere = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let car = TestCar::before(&format!("http://{nowhere}"));
    for _ in 0..20 {
        let mut caller = Peer::connect(car.address());
        caller.send(format!("POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: {LONG}\r\n\r\n"));
        caller.stream.write_all(&vec![b'x'; LONG]).expect("no reset comes in between");
        assert_eq!(caller.response().status(), 502);
    }
}

#[test]
fn a_slow_upload_is_not_a_slow_service() {
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send(OK);
    });
    let car = TestCar::with(&origin.url(), "", |settings| {
        settings.live.timeouts.response_header = Duration::from_millis(200);
    });
    let mut caller = Peer::connect(car.address());
    caller.send("POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 8\r\n\r\n");
    for _ in 0..8 {
        std::thread::sleep(Duration::from_millis(70));
        caller.send("x");
    }
    assert_eq!(caller.response().status(), 200);
    assert_eq!(car.record().request_bytes, 8);
}

#[test]
fn a_truncated_answer_without_length_ends_in_a_reset() {
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send("GET / HTTP/1.0\r\nHost: shop\r\n\r\n");
    assert!(caller.head().is_none_or(|head| head.starts_with("HTTP/1.1 200")), "HOP-7");
    assert!(caller.rest().is_err(), "FRM-4: to HTTP/1.0 a clean end would mean that this was all");
    assert_eq!(car.record().outcome, Outcome::UpstreamBroken);
}

#[test]
fn a_reset_at_any_byte_leaves_at_most_one_record_and_no_invented_status() {
    const BODY: usize = 40;
    let origin =
        Origin::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {BODY}\r\n\r\n{}", "x".repeat(BODY)));
    let car = TestCar::before(&origin.url());
    let request = format!("POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 3\r\n\r\nabc{GET}");
    for end in 0..=request.len() {
        let mut caller = Peer::connect(car.address());
        caller.send(&request[..end]);
        caller.reset();
    }
    for read in 0..60 {
        let mut caller = Peer::connect(car.address());
        caller.send(&request);
        caller.exactly(read);
        caller.reset();
    }
    // One that behaves is served as ever.
    let mut caller = Peer::connect(car.address());
    caller.send(GET);
    assert_eq!(caller.response().status(), 200);
    let stats_active = || car.stats().requests_active.value();
    let begun = std::time::Instant::now();
    while stats_active() > 0 {
        assert!(begun.elapsed() < PATIENCE);
        std::thread::yield_now();
    }
    for record in car.ended() {
        let answered = record.status.is_some();
        match record.outcome {
            Outcome::Complete | Outcome::ClientGoneDuringResponse => assert!(answered, "{record:?}"),
            Outcome::ClientGoneBeforeResponse | Outcome::MalformedRequest => assert!(!answered, "{record:?}"),
            other => panic!("{other:?}: {record:?}"),
        }
    }
}

#[test]
fn a_connection_handed_over_during_a_drain_is_not_lost() {
    for _ in 0..10 {
        let (origin, _asks) = telling();
        let mut car = TestCar::with(&origin.url(), "runtime: { workers: 3 }", |_| {});
        let mut callers: Vec<_> = (0..24).map(|_| Peer::connect(car.address())).collect();
        for caller in &mut callers {
            caller.send(GET);
        }
        car.stop();
        for (number, caller) in callers.iter_mut().enumerate() {
            let head = caller.head().unwrap_or_else(|| panic!("caller {number} is answered"));
            assert!(head.starts_with("HTTP/1.1 200"), "{head}");
        }
    }
}

#[test]
fn services_that_close_after_each_answer_leave_nothing_behind() {
    let connections = Arc::new(AtomicUsize::new(0));
    let counted = connections.clone();
    let origin = Origin::new(move |peer| {
        counted.fetch_add(1, Ordering::SeqCst);
        peer.request();
        peer.send("HTTP/1.0 200 OK\r\n\r\nto the end");
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    for _ in 0..20 {
        caller.send("POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\nx");
        let answer = caller.response();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "to the end"));
    }
    assert_eq!(connections.load(Ordering::SeqCst), 20);
    let bytes: Vec<u64> = (0..20).map(|_| car.record().response_bytes).collect();
    assert_eq!(bytes, [10; 20]);
}

#[test]
fn a_head_that_begins_behind_another_request_has_its_deadline_too() {
    let (origin, _asks) = telling();
    let car = TestCar::with(&origin.url(), "", |settings| {
        settings.live.timeouts.request_header = Duration::from_millis(1)
    });
    let mut caller = Peer::connect(car.address());
    caller.send([GET, "GET /b HT"].concat());
    assert_eq!(caller.response().status(), 200);
    assert_eq!(caller.response().status(), 408);
    assert_eq!(caller.rest().unwrap_or_default(), b"");
    let outcomes: Vec<_> = (0..2).map(|_| car.record().outcome).collect();
    assert_eq!(outcomes, [Outcome::Complete, Outcome::RequestTimeout]);
}

#[test]
fn a_service_that_resets_a_busy_tunnel_ends_it() {
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
        peer.exactly(1);
        socket2::SockRef::from(&peer.stream).set_linger(Some(Duration::ZERO)).unwrap();
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    caller.response_head();
    // Far more than fits into the buffers: the tunnel is writing when the reset comes.
    caller.send(vec![b'x'; 8 << 20]);
    assert_eq!(car.record().outcome, Outcome::UpstreamBroken);
}

#[test]
fn a_tunnel_of_which_the_101_never_left_has_no_status() {
    let (arrived, arrives) = channel();
    let (answer, answers) = channel::<()>();
    let answers = Mutex::new(answers);
    let origin = Origin::new(move |peer| {
        peer.request();
        let _ = arrived.send(());
        let _ = answers.lock().unwrap().recv_timeout(PATIENCE);
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
        let _ = peer.rest();
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    arrives.recv_timeout(PATIENCE).unwrap();
    caller.reset();
    let _ = answer.send(());
    let record = car.record();
    assert_eq!((record.outcome, record.status), (Outcome::ClientGoneBeforeResponse, None));
}

/// Content that says only afterwards that it has ended.
struct Late(Option<&'static str>);

impl http_body::Body for Late {
    type Data = bytes::Bytes;
    type Error = std::convert::Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<bytes::Bytes>, Self::Error>>> {
        Poll::Ready(self.0.take().map(|text| Ok(http_body::Frame::data(text.into()))))
    }
}

/// An HTTP/2 service that answers every request in the same way, on connections that it counts.
async fn http2_service(
    connections: Arc<AtomicUsize>,
    requests_per_connection: usize,
) -> std::net::SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            connections.fetch_add(1, Ordering::SeqCst);
            tokio::spawn(async move {
                let served = AtomicUsize::new(0);
                let goodbye = tokio::sync::Notify::new();
                let service = hyper::service::service_fn(|request: http::Request<hyper::body::Incoming>| {
                    if served.fetch_add(1, Ordering::SeqCst) + 1 == requests_per_connection {
                        goodbye.notify_one();
                    }
                    let text = if request.method() == http::Method::HEAD { None } else { Some("ok") };
                    async move { Ok::<_, std::convert::Infallible>(http::Response::new(Late(text))) }
                });
                let executor = hyper_util::rt::TokioExecutor::new();
                let io = hyper_util::rt::TokioIo::new(stream);
                let connection =
                    hyper::server::conn::http2::Builder::new(executor).serve_connection(io, service);
                let mut connection = std::pin::pin!(connection);
                tokio::select! {
                    _ = connection.as_mut() => return,
                    () = goodbye.notified() => connection.as_mut().graceful_shutdown(),
                }
                let _ = connection.await;
            });
        }
    });
    address
}

type Sender = hyper::client::conn::http2::SendRequest<http_body_util::Full<bytes::Bytes>>;

async fn http2_client(car: &TestCar) -> Sender {
    let stream = tokio::net::TcpStream::connect(car.address()).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (sender, connection) = hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    sender
}

fn ask(method: &str) -> http::Request<http_body_util::Full<bytes::Bytes>> {
    let builder = http::Request::builder().method(method).uri("http://shop/a");
    builder.body(http_body_util::Full::default()).unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_opens_one_connection_to_a_service_of_http2() {
    let connections = Arc::new(AtomicUsize::new(0));
    let service = http2_service(connections.clone(), usize::MAX).await;
    let car = TestCar::before(&format!("h2c://{service}"));
    let sender = http2_client(&car).await;
    let asking: Vec<_> = (0..50).map(|_| sender.clone().send_request(ask("POST"))).collect();
    for answer in asking {
        assert_eq!(answer.await.unwrap().status(), 200);
    }
    assert_eq!(connections.load(Ordering::SeqCst), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_of_http2_that_says_goodbye_loses_no_request() {
    let connections = Arc::new(AtomicUsize::new(0));
    let service = http2_service(connections.clone(), 3).await;
    let car = TestCar::before(&format!("h2c://{service}"));
    let mut sender = http2_client(&car).await;
    for number in 0..30 {
        let answer = sender.send_request(ask("GET")).await.unwrap();
        assert_eq!(answer.status(), 200, "request {number}");
        let body = http_body_util::BodyExt::collect(answer.into_body()).await.unwrap().to_bytes();
        assert_eq!(&body[..], b"ok");
        assert_eq!(car.record().outcome, Outcome::Complete);
    }
    assert!(connections.load(Ordering::SeqCst) > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_to_head_that_ends_in_a_frame_of_its_own_is_complete() {
    let service = http2_service(Arc::default(), usize::MAX).await;
    let car = TestCar::before(&format!("h2c://{service}"));
    let mut caller = Peer::connect(car.address());
    for _ in 0..3 {
        caller.send("HEAD /a HTTP/1.1\r\nHost: shop\r\n\r\n");
        assert_eq!(caller.response_head().status(), 200);
        let record = car.record();
        assert_eq!((record.outcome, record.status), (Outcome::Complete, Some(200)));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_storm_of_resets_leaves_one_record_each_and_a_working_sidecar() {
    const STORM: usize = 300;
    let (origin, _asks) = telling();
    let car = TestCar::before(&origin.url());
    let sender = http2_client(&car).await;
    let mut begun = 0;
    for _ in 0..STORM {
        let mut sender = sender.clone();
        if sender.ready().await.is_err() {
            break;
        }
        let answer = sender.send_request(ask("GET"));
        tokio::select! {
            biased;
            _ = answer => {}
            () = tokio::task::yield_now() => {}
        }
        begun += 1;
    }
    let mut another = http2_client(&car).await;
    assert_eq!(another.send_request(ask("GET")).await.unwrap().status(), 200);
    drop((sender, another));
    eventually("every request has ended", || car.stats().requests_active.value() == 0).await;
    let records = tokio::task::spawn_blocking(move || car.ended()).await.unwrap();
    assert!(records.len() <= begun + 1, "{} records of {begun} requests", records.len());
    for record in &records {
        assert!(record.status.is_some() || record.outcome == Outcome::ClientGoneBeforeResponse, "{record:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_large_cookie_passes_over_http2() {
    let (origin, asks) = telling();
    let car = TestCar::before(&origin.url());
    let mut sender = http2_client(&car).await;
    let mut request = ask("GET");
    request.headers_mut().insert("cookie", "c".repeat(32 << 10).parse().unwrap());
    assert_eq!(sender.send_request(request).await.unwrap().status(), 200);
    assert_eq!(asks.recv_timeout(PATIENCE).unwrap().header("cookie").unwrap().len(), 32 << 10);
}

/// Answers `/panic` with a panic, and everything else with an empty 200.
struct Fragile;

impl Handler for Fragile {
    type Body = ResponseBody;

    fn bounds(&self) -> Bounds {
        tracecar::proxy::bounds(&crate::support::car::settings("http://127.0.0.1:1", "").live)
    }

    fn handle(
        &self,
        request: http::Request<Received>,
        _caller: Caller,
    ) -> impl Future<Output = http::Response<ResponseBody>> + Send + use<> {
        async move {
            assert!(request.uri().path() != "/panic", "on purpose");
            http::Response::new(ResponseBody::Own(None))
        }
    }

    fn refusal(&self, _: &Unreadable) -> http::Response<ResponseBody> {
        http::Response::new(ResponseBody::Own(None))
    }

    fn unreadable(&self, _: std::net::SocketAddr, _: Unreadable) {}
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_panics_harms_no_other_and_is_counted() {
    let stats = Arc::new(Stats::default());
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn({
        let stats = stats.clone();
        async move {
            let (stream, peer) = listener.accept().await.unwrap();
            Arc::new(Fragile).accept(stream, peer, Drain::default(), stats, ()).await;
        }
    });
    let stream = tokio::net::TcpStream::connect(address).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let io = hyper_util::rt::TokioIo::new(stream);
    let (mut sender, connection): (Sender, _) =
        hyper::client::conn::http2::handshake(executor, io).await.unwrap();
    tokio::spawn(connection);
    let mut broken = ask("GET");
    *broken.uri_mut() = "http://shop/panic".parse().unwrap();
    assert!(sender.send_request(broken).await.is_err());
    assert_eq!(sender.send_request(ask("GET")).await.unwrap().status(), 200, "the connection goes on");
    eventually("the panic is counted", || stats.panics.value() == 1).await;
}
