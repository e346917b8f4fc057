//! TLS to services, tunnels, and TLS that is intercepted: real handshakes on real sockets, with a CA of the test's own.

use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{Method, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::{TlsConnector, client};
use tracecar::config::{Live, Timeouts, Upstream, UpstreamProtocol};
use tracecar::exchange::{Exchange, Outbox, Outcome, Record, Recorder, Sampler, Side, Start};
use tracecar::net::connector::{Connector, Permits};
use tracecar::net::intercept::{self, Authority, InterceptError};
use tracecar::net::server::{
    self, Bounds, Caller, Continuation, Handler, Next, Surroundings, Tunnel, Unreadable,
};
use tracecar::net::upstream::{Observer, Phases, Pool, SendError};
use tracecar::net::{Drain, Stream, first_bytes};
use tracecar::proxy::{RequestBody, ResponseBody};
use tracecar::stats::Stats;
use tracecar::wire::Received;
use tracecar::wire::h1::Layout;

use crate::support::car::{TestCar, settings};
use crate::support::origin::{Origin, Peer};
use crate::support::secure::{Trust, client_trusting, service};
use crate::support::{PATIENCE, eventually};

const HTTP2: &[&str] = &["h2", "http/1.1"];
const HTTP1: &[&str] = &["http/1.1"];

fn timeouts() -> Timeouts {
    let Live { timeouts, .. } = settings("http://127.0.0.1:1", "").live;
    timeouts
}

fn https(host: &str, port: u16) -> Upstream {
    let address = Some(IpAddr::from([127, 0, 0, 1]));
    Upstream { protocol: UpstreamProtocol::Https, host: host.to_owned(), port, address }
}

fn asked(path: &str) -> Request<RequestBody> {
    let mut request = Request::new(RequestBody::default());
    *request.uri_mut() = path.parse().unwrap();
    request.headers_mut().insert("host", "shop.example".parse().unwrap());
    request.headers_mut().insert("te", "trailers".parse().unwrap());
    request
}

type TestPool = Arc<Pool<RequestBody>>;

/// The ends of the connection that a request was sent on.
#[derive(Default)]
struct Told(Mutex<(Option<SocketAddr>, Option<SocketAddr>)>);

impl Observer for Told {
    fn progress(&self) -> u64 {
        0
    }

    fn connected(&self, local: SocketAddr, peer: SocketAddr) {
        *self.0.lock().unwrap() = (Some(local), Some(peer));
    }

    fn interim(&self, _: Response<()>, _: Option<&Layout>) {}
}

/// The answer's version and content, or why there is none, and how it came about.
async fn sent(
    pool: &TestPool,
    request: Request<RequestBody>,
) -> (Result<(Version, Bytes), SendError>, Phases) {
    sent_within(pool, request, &timeouts()).await
}

async fn sent_within(
    pool: &TestPool,
    request: Request<RequestBody>,
    timeouts: &Timeouts,
) -> (Result<(Version, Bytes), SendError>, Phases) {
    let mut phases = Phases::default();
    let told = Told::default();
    let answered = pool.send(request, timeouts, &told, &mut phases).await;
    if answered.is_ok() {
        assert_eq!((phases.local, phases.peer), *told.0.lock().unwrap(), "told before the head is sent");
    }
    let response = match answered {
        Ok((response, _)) => response,
        Err(error) => return (Err(error), phases),
    };
    let version = response.version();
    let content = response.into_body().collect().await.unwrap().to_bytes();
    (Ok((version, content)), phases)
}

fn pool(upstream: Upstream, connector: Connector) -> TestPool {
    Pool::new(upstream, Arc::new(connector), Duration::from_secs(30), Arc::default())
}

// On one thread, as a worker has it: a connection is free again by the time that its answer has been read.
#[tokio::test]
async fn a_request_gets_the_form_of_the_protocol_that_the_service_chooses() {
    let trust = Trust::new();
    let (port, sees) = service(trust.server("shop.example", HTTP2)).await;
    let both = pool(https("shop.example", port), trust.connector());
    let (answered, first) = sent(&both, asked("/a/../b?c")).await;
    assert_eq!(answered.unwrap().0, Version::HTTP_2);
    let seen = sees.recv_timeout(PATIENCE).unwrap();
    assert_eq!(seen.request.uri().to_string(), "https://shop.example/a/../b?c");
    assert_eq!(first.local, Some(seen.peer));
    assert!(first.tls.is_some() && first.connect.is_some() && first.dns.is_none());
    let (answered, second) = sent(&both, asked("/")).await;
    assert!(answered.is_ok() && second.tls.is_none(), "the connection is shared");
    assert_eq!(second.local, first.local);

    let (port, sees) = service(trust.server("shop.example", HTTP1)).await;
    let older = pool(https("shop.example", port), trust.connector());
    let mut local = None;
    for new in [true, false] {
        let (answered, phases) = sent(&older, asked("http://shop.example/a/../b?c")).await;
        assert_eq!(answered.unwrap().0, Version::HTTP_11);
        let seen = sees.recv_timeout(PATIENCE).unwrap().request;
        assert_eq!((seen.uri().to_string().as_str(), seen.version()), ("/a/../b?c", Version::HTTP_11));
        assert_eq!(
            (&seen.headers()["host"], &seen.headers()["connection"]),
            (&"shop.example".parse().unwrap(), &"te".parse().unwrap())
        );
        assert_eq!((phases.tls.is_some(), phases.resends), (new, 0));
        assert_eq!(*local.get_or_insert(phases.local), phases.local, "the connection is kept");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_upgrade_is_asked_for_in_http1_though_the_service_would_rather_speak_http2() {
    let trust = Trust::new();
    let (port, sees) = service(trust.server("shop.example", HTTP2)).await;
    let pool = pool(https("shop.example", port), trust.connector());
    sent(&pool, asked("/")).await.0.unwrap();
    assert_eq!(sees.recv_timeout(PATIENCE).unwrap().request.version(), Version::HTTP_2);
    let mut request = asked("/ws");
    request.headers_mut().insert("connection", "upgrade".parse().unwrap());
    request.headers_mut().insert("upgrade", "websocket".parse().unwrap());
    sent(&pool, request).await.0.unwrap();
    let seen = sees.recv_timeout(PATIENCE).unwrap().request;
    assert_eq!(
        (seen.version(), &seen.headers()["upgrade"]),
        (Version::HTTP_11, &"websocket".parse().unwrap())
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_burst_shares_the_connection_that_its_first_request_opens() {
    let trust = Trust::new();
    let (port, sees) = service(trust.server("shop.example", HTTP2)).await;
    let pool = pool(https("shop.example", port), trust.connector());
    let burst: Vec<_> = (0..8)
        .map(|_| {
            let pool = pool.clone();
            tokio::spawn(async move { sent(&pool, asked("/")).await.0.is_ok() })
        })
        .collect();
    for one in burst {
        assert!(one.await.unwrap());
    }
    let mut peers: Vec<_> = sees.try_iter().map(|seen| seen.peer).collect();
    assert_eq!(peers.len(), 8);
    peers.dedup();
    assert_eq!(peers.len(), 1);
}

/// Where a service of this file listens.
fn here(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connection_that_nobody_uses_is_closed_in_either_version() {
    let trust = Trust::new();
    for alpn in [HTTP1, HTTP2] {
        let (port, sees) = service(trust.server("shop.example", alpn)).await;
        let connector = trust.connector();
        let own = connector.own.clone();
        let pool = pool(https("shop.example", port), connector);
        pool.keep_for(Duration::from_millis(100));
        sent_within(&pool, asked("/"), &timeouts()).await.0.unwrap();
        let first = sees.recv_timeout(PATIENCE).unwrap().peer;
        assert!(pool.keeps_any(), "{alpn:?}");
        eventually("it is closed", || !own.contains(first, here(port))).await;
        assert!(!pool.keeps_any(), "{alpn:?}");
        // There is another one for whoever comes later, and it is looked after, too.
        sent_within(&pool, asked("/"), &timeouts()).await.0.unwrap();
        let second = sees.recv_timeout(PATIENCE).unwrap().peer;
        eventually("it is closed, too", || !own.contains(second, here(port))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pool_that_is_forgotten_takes_its_connections_along() {
    let trust = Trust::new();
    for alpn in [HTTP1, HTTP2] {
        let (port, sees) = service(trust.server("shop.example", alpn)).await;
        let connector = trust.connector();
        let own = connector.own.clone();
        let pool = pool(https("shop.example", port), connector);
        sent(&pool, asked("/")).await.0.unwrap();
        let peer = sees.recv_timeout(PATIENCE).unwrap().peer;
        assert!(own.contains(peer, here(port)), "{alpn:?}");
        drop(pool);
        eventually("it is closed", || !own.contains(peer, here(port))).await;
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_certificate_has_to_be_trusted_and_for_the_name_that_was_asked_for() {
    let trust = Trust::new();
    let (port, sees) = service(trust.server("shop.example", HTTP2)).await;
    for (host, connector) in [("other.example", trust.connector()), ("shop.example", Connector::default())] {
        let (answered, phases) = sent(&pool(https(host, port), connector), asked("/")).await;
        assert!(matches!(answered, Err(SendError::Certificate(_))), "{answered:?}");
        assert!(phases.sent.is_none() && phases.tls.is_some());
    }
    let plain = Origin::new(|peer| peer.send("220 no TLS here\r\n")).address.port();
    let (answered, _) = sent(&pool(https("shop.example", plain), trust.connector()), asked("/")).await;
    assert!(matches!(answered, Err(SendError::Tls(_))), "{answered:?}");
    assert!(sees.try_recv().is_err(), "nobody was sent anything");
}

#[test]
fn a_caller_is_told_that_the_service_is_not_who_it_should_be() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let trust = Trust::new();
    let (port, _sees) = runtime.block_on(service(trust.server("127.0.0.1", HTTP2)));
    let car = TestCar::before(&format!("https://127.0.0.1:{port}"));
    let mut caller = Peer::connect(car.address());
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n");
    let answer = caller.response();
    assert_eq!(answer.status(), 502);
    let status = answer.header("proxy-status").unwrap();
    assert!(status.starts_with("tracecar; error=tls_certificate_error;"), "{status}");
    let record = car.record();
    assert_eq!((record.outcome, record.status), (Outcome::UpstreamCertificate, Some(502)));
}

/// Permits one address only, and remembers what it was asked.
#[derive(Debug, Default)]
struct Only(Option<IpAddr>, Mutex<Vec<(String, SocketAddr)>>);

impl Permits for Only {
    fn permits(&self, host: &str, address: SocketAddr) -> Result<(), String> {
        self.1.lock().unwrap().push((host.to_owned(), address));
        match self.0 == Some(address.ip()) {
            true => Ok(()),
            false => Err(format!("{} is not permitted", address.ip())),
        }
    }
}

#[tokio::test]
async fn only_permitted_addresses_are_connected_to() {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let port = origin.address.port();
    let to =
        Upstream { protocol: UpstreamProtocol::Http1, host: "localhost".to_owned(), port, address: None };
    let nobody = Arc::new(Only::default());
    let connector = Connector { permits: Some(nobody.clone()), ..Connector::default() };
    let (answered, phases) = sent(&pool(to.clone(), connector.clone()), asked("/")).await;
    assert!(matches!(answered, Err(SendError::Denied(reason)) if reason.ends_with("is not permitted")));
    assert!(phases.peer.is_none());
    let asked_for = std::mem::take(&mut *nobody.1.lock().unwrap());
    assert!(asked_for.contains(&("localhost".to_owned(), origin.address)), "{asked_for:?}");
    let tunnel = connector.open(&to, &timeouts(), &mut Phases::default()).await;
    assert!(matches!(tunnel, Err(SendError::Denied(_))));

    let one =
        Connector { permits: Some(Arc::new(Only(Some(origin.address.ip()), Mutex::default()))), ..connector };
    let (answered, phases) = sent(&pool(to, one), asked("/")).await;
    assert_eq!((answered.unwrap().1, phases.peer), (Bytes::from("ok"), Some(origin.address)));
}

#[tokio::test]
async fn a_connection_is_known_as_our_own_before_anything_is_sent_and_until_it_is_closed() {
    let connector = Connector::default();
    let own = connector.own.clone();
    let (known, knows) = channel();
    let (close, closes) = channel::<()>();
    let closes = Mutex::new(closes);
    let origin = Origin::new({
        let own = own.clone();
        move |peer| {
            peer.request();
            let caller = peer.stream.peer_addr().unwrap();
            let reached = peer.stream.local_addr().unwrap();
            let _ = known.send((own.contains(caller, reached), caller));
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            let _ = closes.lock().unwrap().recv();
        }
    });
    let (host, port) = (origin.address.ip().to_string(), origin.address.port());
    let to = Upstream { protocol: UpstreamProtocol::Http1, host, port, address: None };
    let pool = pool(to, connector);
    sent(&pool, asked("/")).await.0.unwrap();
    let (contained, caller) = knows.recv_timeout(PATIENCE).unwrap();
    assert!(contained && own.contains(caller, origin.address), "it is kept");
    drop(close);
    eventually("the connection is closed", || !own.contains(caller, origin.address)).await;
}

#[tokio::test]
async fn a_request_that_is_sent_again_says_so() {
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        peer.request();
    });
    let (host, port) = (origin.address.ip().to_string(), origin.address.port());
    let to = Upstream { protocol: UpstreamProtocol::Http1, host, port, address: None };
    let pool = pool(to, Connector::default());
    let (_, first) = sent(&pool, asked("/")).await;
    let (answered, second) = sent(&pool, asked("/")).await;
    assert!(answered.is_ok());
    assert_eq!((first.resends, second.resends), (0, 1));
    assert_ne!(first.local, second.local);
}

/// What a [`Gate`] does with a `CONNECT`.
enum Way {
    /// Connects to where the test says.
    Tunnel(Upstream),
    /// Accepts TLS as the host that was asked for.
    Intercept(Box<Authority>),
}

/// A forward proxy in small.
#[derive(Clone)]
struct Gate(Arc<Inner>);

struct Inner {
    way: Way,
    recorder: Arc<Recorder>,
    failures: Mutex<Sender<InterceptError>>,
}

impl Gate {
    /// Serves callers; the outbox has the records, the receiver what failed.
    async fn open(way: Way) -> (SocketAddr, Arc<Outbox>, Receiver<InterceptError>) {
        let stats = Arc::new(Stats::default());
        let outbox = Arc::new(Outbox::new(Arc::default(), stats.clone()));
        let recorder = Recorder::new(outbox.clone(), stats.clone(), Arc::default());
        let (failures, failed) = channel();
        let gate = Arc::new(Self(Arc::new(Inner { way, recorder, failures: Mutex::new(failures) })));
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((stream, peer)) = listener.accept().await {
                tokio::spawn(gate.clone().accept(stream, peer, Drain::default(), stats.clone(), ()));
            }
        });
        (address, outbox, failed)
    }

    /// The way on from a `CONNECT` to `host`, from a caller at `peer`.
    async fn way(self, host: String, peer: SocketAddr, exchange: Exchange) -> Next {
        let Way::Tunnel(to) = &self.0.way else {
            let go_on: Continuation = Box::new(move |stream, early, surroundings| {
                exchange.finish(Outcome::Complete);
                Box::pin(self.intercept(stream, early, surroundings, host, peer))
            });
            return Next::Serve(go_on);
        };
        let stream = Connector::default().open(to, &timeouts(), &mut Phases::default()).await.unwrap();
        Tunnel { upstream: stream.into(), exchange, idle: None, stats: Arc::default() }.into()
    }

    async fn intercept(
        self,
        mut stream: Stream,
        early: Bytes,
        surroundings: Surroundings,
        host: String,
        peer: SocketAddr,
    ) {
        let Way::Intercept(authority) = &self.0.way else {
            unreachable!("a tunnel is none");
        };
        let mut read = BytesMut::from(early);
        let hello = first_bytes::peek(&mut stream, &mut read).await.unwrap().expect("it is TLS");
        assert_eq!(hello.server_name.as_deref(), Some(&*host));
        let http2 = hello.alpn.iter().any(|name| name == b"h2");
        match intercept::accept(stream, read.freeze(), authority, &host, http2, PATIENCE).await {
            Ok(tls) => server::serve(tls, Bytes::new(), peer, Arc::new(self.clone()), surroundings, ()).await,
            Err(error) => drop(self.0.failures.lock().unwrap().send(error)),
        }
    }
}

impl Handler for Gate {
    type Body = ResponseBody;

    fn bounds(&self) -> Bounds {
        tracecar::proxy::bounds(&crate::support::car::settings("http://127.0.0.1:1", "").live)
    }

    fn handle(
        &self,
        request: Request<Received>,
        caller: Caller,
    ) -> impl Future<Output = Response<ResponseBody>> + Send + use<> {
        let gate = self.clone();
        async move {
            if request.method() == Method::CONNECT {
                let host = request.uri().host().unwrap().to_owned();
                let peer = caller.connection().peer;
                let exchange =
                    gate.0.recorder.begin(Start::new(Side::Outbound, Some(peer)), &Sampler::default());
                caller.upgrade(gate.way(host, peer, exchange).await);
                return Response::new(ResponseBody::Own(None));
            }
            let text = format!("{:?} {}", request.version(), request.uri().path());
            let mut response = Response::new(ResponseBody::Own(Some(text.into())));
            *response.status_mut() = StatusCode::ACCEPTED;
            response
        }
    }

    fn refusal(&self, _: &Unreadable) -> Response<ResponseBody> {
        Response::new(ResponseBody::Own(None))
    }

    fn unreadable(&self, _: SocketAddr, problem: Unreadable) {
        panic!("{problem:?}");
    }
}

async fn one_record(outbox: &Outbox) -> Arc<Record> {
    let mut records = Vec::new();
    eventually("a record", || {
        records = outbox.take(std::mem::take(&mut records));
        !records.is_empty()
    })
    .await;
    records.remove(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_becomes_a_tunnel_that_loses_nothing_and_counts() {
    let origin = Origin::new(|peer| {
        peer.send("220 hello\r\n");
        let heard = peer.rest().unwrap();
        peer.send(heard);
        peer.send("bye");
    });
    let (host, port) = (origin.address.ip().to_string(), origin.address.port());
    let to = Upstream { protocol: UpstreamProtocol::Https, host, port, address: None };
    let (address, outbox, _) = Gate::open(Way::Tunnel(to)).await;
    // Whether the caller waits for the answer, or has said all it has to say before that.
    for waits in [true, false] {
        let answer = tokio::task::spawn_blocking(move || {
            let mut caller = Peer::connect(address);
            caller.send("CONNECT shop.example:25 HTTP/1.1\r\nHost: shop.example:25\r\n\r\nearly ");
            if !waits {
                caller.send("late");
                caller.finish_sending();
            }
            let answer = caller.response_head();
            assert_eq!(answer.status(), 200);
            for name in ["content-length", "transfer-encoding", "connection"] {
                assert_eq!(answer.header(name), None, "FRM-2, HX-4");
            }
            if waits {
                caller.send("late");
                caller.finish_sending();
            }
            caller.rest().unwrap()
        });
        assert_eq!(answer.await.unwrap(), b"220 hello\r\nearly latebye", "half-close is passed on");
        let record = one_record(&outbox).await;
        assert_eq!(
            (record.outcome, record.request_bytes, record.response_bytes),
            (Outcome::Complete, 10, 24)
        );
    }
}

/// The inside of a `CONNECT` for `shop.example`.
async fn inside(
    address: SocketAddr,
    config: Arc<ClientConfig>,
) -> std::io::Result<client::TlsStream<TcpStream>> {
    let mut stream = TcpStream::connect(address).await?;
    stream.write_all(b"CONNECT shop.example:443 HTTP/1.1\r\nHost: shop.example:443\r\n\r\n").await?;
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    assert!(head.starts_with(b"HTTP/1.1 200 OK\r\n"), "{}", head.escape_ascii());
    TlsConnector::from(config).connect("shop.example".try_into().unwrap(), stream).await
}

#[tokio::test(flavor = "multi_thread")]
async fn inside_an_intercepted_connect_http_is_served_by_the_same_handler() {
    let trust = Trust::new();
    let client = trust.client();
    let (address, _, _) = Gate::open(Way::Intercept(trust.authority.into())).await;
    let mut stream = inside(address, client.clone()).await.unwrap();
    for path in ["/first", "/second"] {
        stream
            .write_all(format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\n\r\n").as_bytes())
            .await
            .unwrap();
        let mut answer = Vec::new();
        while !answer.ends_with(path.as_bytes()) {
            assert!(stream.read_buf(&mut answer).await.unwrap() > 0);
        }
        assert!(answer.starts_with(b"HTTP/1.1 202 "), "{}", answer.escape_ascii());
    }

    let mut http2 = ClientConfig::clone(&client);
    http2.alpn_protocols = HTTP2.iter().map(|name| name.as_bytes().to_vec()).collect();
    let stream = inside(address, Arc::new(http2)).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut request = asked("https://shop.example/third");
    request.headers_mut().clear();
    let answer = sender.send_request(request).await.unwrap();
    assert_eq!(answer.into_body().collect().await.unwrap().to_bytes(), "HTTP/2.0 /third");
}

/// Asks for `/x` of `shop.example` through a proxy, with OpenSSL's strictest rules, which newer Pythons have by default.
const STRICT: &str = "import http.client, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[2])
context.verify_flags |= ssl.VERIFY_X509_STRICT
connection = http.client.HTTPSConnection('127.0.0.1', int(sys.argv[1]), context=context)
connection.set_tunnel('shop.example', 443)
connection.request('GET', '/x')
print(connection.getresponse().read().decode(), end='')";

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_trust_the_ca_are_content_with_its_certificates() {
    let trust = Trust::new();
    let ca = trust.folder.path().join("ca.pem").into_os_string().into_string().unwrap();
    let (address, _, _) = Gate::open(Way::Intercept(trust.authority.into())).await;
    let (proxy, port) = (format!("http://{address}"), address.port().to_string());
    let programs: [(&[&str], &str); 3] = [
        (
            &["curl", "-sS", "--http1.1", "-x", &proxy, "--cacert", &ca, "https://shop.example/x"],
            "HTTP/1.1 /x",
        ),
        (&["curl", "-sS", "--http2", "-x", &proxy, "--cacert", &ca, "https://shop.example/x"], "HTTP/2.0 /x"),
        (&["python3", "-c", STRICT, &port, &ca], "HTTP/1.1 /x"),
    ];
    for (program, expected) in programs {
        let mut command = tokio::process::Command::new(program[0]);
        let Ok(output) =
            command.args(&program[1..]).env_remove("no_proxy").env_remove("NO_PROXY").output().await
        else {
            eprintln!("skipped: no {}", program[0]);
            continue;
        };
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), expected, "{program:?}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_does_not_want_our_certificate_is_told_from_one_that_fails() {
    let (address, _, failed) = Gate::open(Way::Intercept(Trust::new().authority.into())).await;
    let stranger = client_trusting(RootCertStore::empty());
    assert!(inside(address, stranger.clone()).await.is_err());
    let error = failed.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(error, InterceptError::Refused(_)), "{error:?}");

    // This one says its first words, reads ours, and leaves.
    let mut hello = Vec::new();
    let mut words = rustls::ClientConnection::new(stranger, "shop.example".try_into().unwrap()).unwrap();
    words.write_tls(&mut hello).unwrap();
    let leave = |behind: &'static [u8]| {
        let ask = [b"CONNECT shop.example:443 HTTP/1.1\r\nHost: s\r\n\r\n", &*hello, behind].concat();
        tokio::task::spawn_blocking(move || {
            let mut caller = Peer::connect(address);
            caller.send(ask);
            caller.response_head();
            caller.finish_sending();
            let _ = caller.rest();
        })
    };
    leave(b"").await.unwrap();
    let error = failed.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(error, InterceptError::Refused(_)), "{error:?}");

    leave(b"\x17\x03\x03\x00\x05nonse").await.unwrap();
    let error = failed.recv_timeout(PATIENCE).unwrap();
    assert!(matches!(error, InterceptError::Handshake(_)), "{error:?}");
}
