//! What the service is told of its caller, by `X-Forwarded-*` and `Forwarded`.

use std::sync::mpsc::Receiver;

use crate::support::PATIENCE;
use crate::support::car::TestCar;
use crate::support::origin::{Message, Origin, Peer};
use crate::support::service::destination;

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

const NAMES: [&str; 5] =
    ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-host", "x-forwarded-port", "forwarded"];

/// What a load balancer says, with what a caller has said before it.
const SENT: &str = "X-Forwarded-For: 6.6.6.6\r\nX-Forwarded-For:  203.0.113.9 ,,\r\nX-Forwarded-Proto: https\r\n\
                    X-Forwarded-Host: shop.example\r\nForwarded: for=\"6.6.6.6, \\\"7.7.7.7\"\r\nForwarded: for=_a;;\r\n";

/// A sidecar with these settings of `client`, before a service.
struct Scene {
    _origin: Origin,
    asked: Receiver<Message>,
    car: TestCar,
}

impl Scene {
    fn new(client: &str) -> Self {
        let (origin, asked) = destination(OK);
        let car = TestCar::with(&origin.url(), &format!("client: {{ {client} }}\n"), |_| {});
        Self { _origin: origin, asked, car }
    }

    /// Which of these headers arrive, with the case of their names, when they are sent.
    fn arrive(&self, headers: &str) -> Vec<String> {
        let mut peer = Peer::connect(self.car.address());
        peer.send(format!("GET / HTTP/1.1\r\nHost: shop:81\r\n{headers}\r\n"));
        assert_eq!(peer.response().status(), 200);
        told(&self.asked.recv_timeout(PATIENCE).unwrap())
    }
}

fn told(asked: &Message) -> Vec<String> {
    let is_told = |line: &&str| {
        let name = line.split(':').next().unwrap_or_default();
        NAMES.iter().any(|known| known.eq_ignore_ascii_case(name))
    };
    asked.head.lines().skip(1).filter(is_told).map(str::to_owned).collect()
}

/// The values of one header.
fn values(lines: &[String], name: &str) -> Vec<String> {
    let lines = lines.iter().filter_map(|line| line.split_once(':'));
    lines
        .filter(|(key, _)| key.eq_ignore_ascii_case(name))
        .map(|(_, value)| value.trim().to_owned())
        .collect()
}

#[test]
fn nothing_that_tells_of_a_caller_is_changed_unless_asked_for() {
    for client in ["", "trusted_proxies: [127.0.0.0/8]"] {
        let mut arrived = Scene::new(client).arrive(SENT);
        let mut sent: Vec<_> = SENT.lines().map(str::to_owned).collect();
        arrived.sort();
        sent.sort();
        assert_eq!(arrived, sent, "FWD-6");
    }
    assert!(Scene::new("").arrive("").is_empty(), "FWD-6");
}

#[test]
fn a_peer_is_appended_and_what_a_stranger_says_of_scheme_and_host_is_replaced() {
    let scene = Scene::new("headers: { x_forwarded: append, forwarded: append }");
    let arrived = scene.arrive(SENT);
    let expected = ["6.6.6.6, 203.0.113.9 ,,, 127.0.0.1", "http", "shop:81", "81"];
    for (name, expected) in NAMES.into_iter().zip(expected) {
        assert_eq!(values(&arrived, name), [expected], "{name}: FWD-6");
    }
    let expected = r#"for="6.6.6.6, \"7.7.7.7", for=_a;;, for=127.0.0.1;host="shop:81";proto=http"#;
    assert_eq!(values(&arrived, "forwarded"), [expected], "FWD-4");
    assert_eq!(scene.car.record().request.as_ref().unwrap().client.to_string(), "127.0.0.1");
}

#[test]
fn a_trusted_proxy_is_appended_and_keeps_its_word() {
    let scene = Scene::new("trusted_proxies: [127.0.0.0/8], headers: { x_forwarded: append }");
    let arrived = scene.arrive("X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\n");
    let expected = ["203.0.113.9, 127.0.0.1", "https", "shop:81", "81"];
    for (name, expected) in NAMES.into_iter().zip(expected) {
        assert_eq!(values(&arrived, name), [expected], "{name}: FWD-6");
    }
}

#[test]
fn set_tells_the_service_what_the_span_says() {
    let scene = Scene::new(
        "trusted_proxies: [127.0.0.0/8], trusted_headers: [x_forwarded], headers: { x_forwarded: set, forwarded: set }",
    );
    let arrived = scene.arrive(SENT);
    let expected =
        ["203.0.113.9", "https", "shop.example", "443", "for=203.0.113.9;host=shop.example;proto=https"];
    for (name, expected) in NAMES.into_iter().zip(expected) {
        assert_eq!(values(&arrived, name), [expected], "{name}");
    }
    let record = scene.car.record();
    let request = record.request.as_ref().unwrap();
    let said = (request.client.to_string(), request.scheme, record.text(request.authority));
    assert_eq!(said, ("203.0.113.9".to_owned(), "https", "shop.example"), "SEM-22, SEM-30, SEM-50");
}

#[test]
fn stripped_headers_do_not_arrive_and_are_read_before() {
    let scene = Scene::new(
        "trusted_proxies: [127.0.0.0/8], trusted_headers: [x_forwarded], headers: { x_forwarded: strip, forwarded: strip }",
    );
    assert!(scene.arrive(SENT).is_empty());
    assert_eq!(scene.car.record().request.as_ref().unwrap().client.to_string(), "203.0.113.9");
}

/// Who can have a header removed by naming it in `Connection` could hide behind us.
#[test]
fn connection_cannot_take_away_what_we_say() {
    let scene = Scene::new("headers: { x_forwarded: append, forwarded: append }");
    let arrived = scene.arrive("Connection: x-forwarded-for, forwarded\r\nX-Forwarded-For: 6.6.6.6\r\n");
    assert_eq!(values(&arrived, "x-forwarded-for"), ["127.0.0.1"]);
    assert_eq!(values(&arrived, "forwarded").len(), 1);
}

#[test]
fn an_excluded_request_is_told_of_like_any_other() {
    let (origin, asked) = destination(OK);
    let yaml = "exclude: { rules: [{ path: '/**' }] }\nclient: { headers: { x_forwarded: set } }\n";
    let car = TestCar::with(&origin.url(), yaml, |_| {});
    let mut peer = Peer::connect(car.address());
    peer.send("GET /healthz HTTP/1.1\r\nHost: shop\r\nX-Forwarded-For: 6.6.6.6\r\n\r\n");
    assert_eq!(peer.response().status(), 200);
    let asked = asked.recv_timeout(PATIENCE).unwrap();
    assert_eq!((asked.header("x-forwarded-for"), asked.header("traceparent")), (Some("127.0.0.1"), None));
}

#[tokio::test(flavor = "multi_thread")]
async fn the_authority_of_http2_is_the_host_that_was_asked_for() {
    let scene = Scene::new("headers: { x_forwarded: set, forwarded: set }");
    let stream = tokio::net::TcpStream::connect(scene.car.address()).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request =
        http::Request::get("http://[2001:db8::1]:444/").body(http_body_util::Empty::<bytes::Bytes>::new());
    sender.send_request(request.unwrap()).await.unwrap();
    let told = told(&scene.asked.recv_timeout(PATIENCE).unwrap());
    let expected = [
        "127.0.0.1",
        "http",
        "[2001:db8::1]:444",
        "444",
        r#"for=127.0.0.1;host="[2001:db8::1]:444";proto=http"#,
    ];
    for (name, expected) in NAMES.into_iter().zip(expected) {
        assert_eq!(values(&told, name), [expected], "{name}");
    }
    drop(sender);
}

#[test]
fn calls_of_the_service_say_what_the_service_says() {
    let (far, asked) = destination(OK);
    let service = Origin::answering(OK);
    let yaml =
        "outbound: { proxy: '127.0.0.1:0' }\nclient: { headers: { x_forwarded: set, forwarded: strip } }\n";
    let car = TestCar::with(&service.url(), yaml, |_| {});
    let mut peer = Peer::connect(car.proxy());
    let address = far.address;
    peer.send(format!("GET http://{address}/ HTTP/1.1\r\nHost: {address}\r\n{SENT}\r\n"));
    assert_eq!(peer.response().status(), 200);
    let arrived = told(&asked.recv_timeout(PATIENCE).unwrap());
    assert_eq!(arrived.len(), SENT.lines().count(), "{arrived:?}");
}
