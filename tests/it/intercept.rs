//! TLS that is looked into, for `CONNECT`: what clients, services and records see of it, and what happens where it is not
//! wanted. Real handshakes, with a CA for the services and another for the clients.

use std::io;
use std::sync::Arc;

use bytes::Bytes;
use http::{Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_rustls::client::TlsStream;
use tokio_rustls::{TlsAcceptor, TlsConnector};
use tracecar::exchange::{Outcome, Record, Side, Stream, Tunneled};
use tracecar::net::intercept::Authority;

use crate::support::PATIENCE;
use crate::support::car::{TestCar, settings};
use crate::support::origin::Peer;
use crate::support::program::{self, Start};
use crate::support::secure::{Trust, client_trusting, service, service_on};

const BOTH: &[&str] = &["h2", "http/1.1"];

/// A CA as `tracecar ca` makes it, in files.
pub struct LocalCa {
    pub folder: tempfile::TempDir,
    certificate: String,
}

impl LocalCa {
    pub fn new() -> Self {
        let (certificate, key) = Authority::make().unwrap();
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("local.pem"), &certificate).unwrap();
        std::fs::write(folder.path().join("local.key"), key).unwrap();
        Self { folder, certificate }
    }

    pub fn path(&self, file: &str) -> String {
        self.folder.path().join(file).to_str().unwrap().to_owned()
    }

    /// The setting that looks into the TLS of `hosts`.
    pub fn setting(&self, hosts: &str) -> String {
        let (certificate, key) = (self.path("local.pem"), self.path("local.key"));
        format!("intercept: {{ hosts: [{hosts}], ca_certificate: '{certificate}', ca_key: '{key}' }}")
    }

    /// A client that trusts this CA and no other.
    fn client(&self, alpn: &[&str]) -> Arc<ClientConfig> {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_slice(self.certificate.as_bytes()).unwrap()).unwrap();
        let mut config = ClientConfig::clone(&client_trusting(roots));
        config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
        Arc::new(config)
    }
}

/// A forward proxy that looks into the TLS of `hosts`, and trusts the services of `services`.
fn car(local: &LocalCa, hosts: &str, services: &Trust, more: &str) -> TestCar {
    let certificate = services.folder.path().join("ca.pem");
    let yaml = format!(
        "outbound: {{ proxy: '127.0.0.1:0', certificate: '{}', {} }}\n{more}",
        certificate.display(),
        local.setting(hosts)
    );
    TestCar::start(settings("http://127.0.0.1:1", &yaml))
}

/// A tunnel to `target`, as far as its client can tell.
async fn tunnel(car: &TestCar, target: &str) -> TcpStream {
    let mut stream = TcpStream::connect(car.bound.proxy.unwrap()).await.unwrap();
    stream
        .write_all(format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let head = head(&mut stream).await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    stream
}

async fn head(stream: &mut (impl AsyncReadExt + Unpin)) -> String {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    String::from_utf8(head).unwrap()
}

/// TLS in a tunnel to `target`, where the client wants to talk to `name`.
async fn inside(
    car: &TestCar,
    target: &str,
    name: &str,
    config: &Arc<ClientConfig>,
) -> io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(name.to_owned()).unwrap();
    TlsConnector::from(config.clone()).connect(name, tunnel(car, target).await).await
}

/// Asks for `url` in whatever version was agreed on.
async fn ask(stream: TlsStream<TcpStream>, url: &str) -> Response<Bytes> {
    let http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
    let mut request = Request::new(Full::new(Bytes::from("hello")));
    *request.method_mut() = http::Method::POST;
    *request.uri_mut() = url.parse().unwrap();
    let io = TokioIo::new(stream);
    let response = if http2 {
        let (mut sender, connection) =
            hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    } else {
        let host = request.uri().authority().unwrap().as_str().parse().unwrap();
        request.headers_mut().insert("host", host);
        *request.uri_mut() = request.uri().path_and_query().unwrap().as_str().parse().unwrap();
        let (mut sender, connection) = hyper::client::conn::http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        sender.send_request(request).await.unwrap()
    };
    let (parts, body) = response.into_parts();
    Response::from_parts(parts, body.collect().await.unwrap().to_bytes())
}

fn url(record: &Record) -> &str {
    record.text(record.request.as_ref().unwrap().url.expect("it was seen"))
}

fn note(record: &Record) -> &str {
    record.text(record.note)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_listed_host_is_asked_is_seen_in_both_versions() {
    let (local, services) = (LocalCa::new(), Trust::new());
    let (port, sees) = service(services.server("shop.example", BOTH)).await;
    let car = car(&local, "'*.example'", &services, "");
    let target = format!("127.0.0.1:{port}");
    for (alpn, version) in [(&["http/1.1"][..], Version::HTTP_11), (BOTH, Version::HTTP_2)] {
        let stream = inside(&car, &target, "shop.example", &local.client(alpn)).await.unwrap();
        let answer = ask(stream, &format!("https://shop.example:{port}/a?token=secret")).await;
        assert_eq!((answer.version(), &answer.body()[..]), (version, &b"hello"[..]));
        let seen = sees.recv_timeout(PATIENCE).unwrap();
        assert_eq!(seen.request.version(), Version::HTTP_2, "with the service it is our choice");
        let record = car.record();
        assert_eq!((record.side, record.outcome, record.tunnel), (Side::Outbound, Outcome::Complete, None));
        assert_eq!(url(&record), format!("https://shop.example:{port}/a?token=REDACTED"));
        assert_eq!(record.peer, Some(([127, 0, 0, 1], port).into()));
        let traceparent = seen.request.headers()["traceparent"].to_str().unwrap();
        let identity = record.identity;
        assert_eq!(traceparent, format!("00-{}-{}-03", identity.trace_id, identity.span_id));
    }
    assert_eq!(car.ended().len(), 0, "a CONNECT whose inside is seen has no record of its own");
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_not_listed_passes_unseen() {
    let (local, services) = (LocalCa::new(), Trust::new());
    let (port, sees) = service(services.server("shop.example", BOTH)).await;
    let car = car(&local, "other.example, '*.shop.example'", &services, "");
    let target = format!("127.0.0.1:{port}");
    let stream = inside(&car, &target, "shop.example", &services.client()).await.unwrap();
    assert_eq!(ask(stream, "https://shop.example/").await.status(), StatusCode::OK);
    assert!(sees.recv_timeout(PATIENCE).unwrap().request.headers().get("traceparent").is_none());
    let record = car.record();
    assert_eq!((record.tunnel, record.outcome), (Some(Tunneled::Connect), Outcome::Complete));
    assert!(record.request_bytes > 200 && record.response_bytes > 200 && note(&record).is_empty());
    assert_eq!(car.stats().upstream_connects.value(), 1, "a tunnel's connection is one, too");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_not_who_it_should_be_is_told_nothing() {
    let (local, services) = (LocalCa::new(), Trust::new());
    let (port, sees) = service(services.server("other.example", BOTH)).await;
    let strangers = Trust::new();
    let (unknown, sees_too) = service(strangers.server("shop.example", BOTH)).await;
    let car = car(&local, "shop.example", &services, "");
    for port in [port, unknown] {
        let target = format!("127.0.0.1:{port}");
        let stream = inside(&car, &target, "shop.example", &local.client(&[])).await.unwrap();
        let answer = ask(stream, "https://shop.example/").await;
        assert_eq!(answer.status(), StatusCode::BAD_GATEWAY);
        let status = answer.headers()["proxy-status"].to_str().unwrap();
        assert!(status.starts_with("tracecar; error=tls_certificate_error;"), "{status}");
        assert_eq!(car.record().outcome, Outcome::UpstreamCertificate);
    }
    assert!(sees.try_recv().is_err() && sees_too.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn after_a_refusal_connections_pass_unseen() {
    let (local, services) = (LocalCa::new(), Trust::new());
    let (port, _sees) = service(services.server("shop.example", BOTH)).await;
    let car = car(&local, "shop.example", &services, "");
    let target = format!("127.0.0.1:{port}");
    // It trusts the service's CA, and not ours.
    assert!(inside(&car, &target, "shop.example", &services.client()).await.is_err());
    let record = car.record();
    assert!(note(&record).starts_with("the client refused our certificate"), "{record:?}");
    assert_eq!(record.tunnel, Some(Tunneled::Connect));
    let stream = inside(&car, &target, "SHOP.example", &services.client()).await.unwrap();
    assert_eq!(ask(stream, "https://shop.example/").await.status(), StatusCode::OK);
    let record = car.record();
    assert_eq!(note(&record), "a client refused our certificate lately, so this was not looked into");
    assert_eq!((record.tunnel, record.outcome), (Some(Tunneled::Connect), Outcome::Complete));
}

#[tokio::test(flavor = "multi_thread")]
async fn who_leaves_twice_right_after_the_handshake_has_refused() {
    let (local, services) = (LocalCa::new(), Trust::new());
    let (port, _sees) = service(services.server("shop.example", BOTH)).await;
    let car = car(&local, "shop.example", &services, "");
    let target = format!("127.0.0.1:{port}");
    let pinning = local.client(&[]);
    for again in [false, true] {
        let mut stream = inside(&car, &target, "shop.example", &pinning).await.unwrap();
        stream.shutdown().await.unwrap();
        drop(stream);
        let record = car.record();
        assert_eq!(record.outcome, Outcome::ClientGoneBeforeResponse);
        assert_eq!(note(&record).starts_with("the client refused our certificate"), again);
    }
    let stream = inside(&car, &target, "shop.example", &services.client()).await.unwrap();
    assert_eq!(ask(stream, "https://shop.example/").await.status(), StatusCode::OK);
    assert!(!note(&car.record()).is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_no_http_inside_is_left_alone_from_then_on() {
    let (local, services) = (LocalCa::new(), Trust::new());
    let (port, _sees) = service(services.server("shop.example", BOTH)).await;
    let car = car(&local, "shop.example", &services, "");
    let target = format!("127.0.0.1:{port}");
    let mut stream = inside(&car, &target, "shop.example", &local.client(&[])).await.unwrap();
    stream.write_all(b"\0binary").await.unwrap();
    assert!(stream.read_u8().await.is_err());
    assert_eq!(car.record().outcome, Outcome::MalformedRequest);
    assert!(inside(&car, &target, "shop.example", &services.client()).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_host_keeps_its_certificate() {
    let (local, services) = (LocalCa::new(), Trust::new());
    let (port, _sees) = service(services.server("shop.example", BOTH)).await;
    let car = car(&local, "'*.example'", &services, "");
    let target = format!("127.0.0.1:{port}");
    let mut certificates = Vec::new();
    for name in ["shop.example", "Shop.example", "other.example"] {
        // Each with a client of its own, which resumes nothing.
        let stream = inside(&car, &target, name, &local.client(&[])).await.unwrap();
        certificates.push(stream.get_ref().1.peer_certificates().unwrap()[0].clone().into_owned());
    }
    assert_eq!(certificates[0], certificates[1]);
    assert_ne!(certificates[0], certificates[2]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_client_chooses_whom_it_talks_to_and_connect_where_that_is() {
    let (local, services) = (LocalCa::new(), Trust::new());
    // Where the name leads, and where the client wants to be connected to.
    let (port, elsewhere) = service(services.server("localhost", BOTH)).await;
    let listener = std::net::TcpListener::bind(("127.0.0.2", port)).unwrap();
    let (_, sees) = service_on(listener, services.server("localhost", BOTH));
    let car = car(&local, "localhost, '*.example'", &services, "");
    let target = format!("127.0.0.2:{port}");
    let stream = inside(&car, &target, "localhost", &local.client(&[])).await.unwrap();
    assert_eq!(ask(stream, "https://localhost/").await.status(), StatusCode::OK);
    sees.recv_timeout(PATIENCE).unwrap();
    assert!(elsewhere.try_recv().is_err());
    assert_eq!(car.record().peer, Some(([127, 0, 0, 2], port).into()));
    // The same name where it leads by itself.
    let target = format!("localhost:{port}");
    let stream = inside(&car, &target, "localhost", &local.client(&[])).await.unwrap();
    assert_eq!(ask(stream, "https://localhost/").await.status(), StatusCode::OK);
    elsewhere.recv_timeout(PATIENCE).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_denied_name_is_denied_inside_whatever_connect_said() {
    let (local, services) = (LocalCa::new(), Trust::new());
    let (port, sees) = service(services.server("denied.example", BOTH)).await;
    let certificate = services.folder.path().join("ca.pem");
    let yaml = format!(
        "outbound: {{ proxy: '127.0.0.1:0', deny: [denied.example], certificate: '{}', {} }}",
        certificate.display(),
        local.setting("'*.example'")
    );
    let car = TestCar::start(settings("http://127.0.0.1:1", &yaml));
    let target = format!("127.0.0.1:{port}");
    for host in ["denied.example", "fine.example"] {
        let stream = inside(&car, &target, "denied.example", &local.client(&[])).await.unwrap();
        assert_eq!(ask(stream, &format!("https://{host}/")).await.status(), StatusCode::FORBIDDEN);
        assert_eq!(car.record().outcome, Outcome::Rejected);
    }
    assert!(sees.try_recv().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_client_that_names_nobody_means_the_address() {
    let (local, services) = (LocalCa::new(), Trust::new());
    let (port, sees) = service(services.server("127.0.0.1", BOTH)).await;
    let car = car(&local, "127.0.0.0/8", &services, "");
    let target = format!("127.0.0.1:{port}");
    let stream = inside(&car, &target, "127.0.0.1", &local.client(&[])).await.unwrap();
    assert_eq!(ask(stream, &format!("https://{target}/a")).await.status(), StatusCode::OK);
    sees.recv_timeout(PATIENCE).unwrap();
    assert_eq!(url(&car.record()), format!("https://{target}/a"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_inside_is_one_record_and_may_end_without_a_farewell() {
    let (local, services) = (LocalCa::new(), Trust::new());
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let acceptor = TlsAcceptor::from(services.server("shop.example", BOTH));
    tokio::spawn(async move {
        // One connection is the tunnel's own, and says nothing.
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let Ok(mut stream) = acceptor.accept(stream).await else { return };
                assert!(head(&mut stream).await.contains("traceparent: 00-"));
                let agree =
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
                stream.write_all(agree.as_bytes()).await.unwrap();
                let mut heard = [0; 4];
                stream.read_exact(&mut heard).await.unwrap();
                stream.write_all(&heard).await.unwrap();
                stream.flush().await.unwrap();
                // The end of TCP is the end, and of TLS nobody speaks: here and at the client.
                let _ = stream.read_u8().await;
            });
        }
    });
    let car = car(&local, "shop.example", &services, "");
    let target = format!("127.0.0.1:{port}");
    let mut stream = inside(&car, &target, "shop.example", &local.client(BOTH)).await.unwrap();
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    stream = inside(&car, &target, "shop.example", &local.client(&["http/1.1"])).await.unwrap();
    let asked =
        "GET /ws HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nping";
    stream.write_all(asked.as_bytes()).await.unwrap();
    assert!(head(&mut stream).await.starts_with("HTTP/1.1 101 "));
    let mut heard = [0; 4];
    stream.read_exact(&mut heard).await.unwrap();
    assert_eq!(&heard, b"ping");
    drop(stream.into_inner().0);
    let record = loop {
        // The connection over which nothing was asked has one, too.
        let record = car.record();
        if record.stream.is_some() {
            break record;
        }
    };
    assert_eq!((record.stream, record.outcome), (Some(Stream::WebSocket), Outcome::Complete));
    assert_eq!((record.status, record.request_bytes, record.response_bytes), (Some(101), 4, 4));
    assert_eq!(url(&record), "https://shop.example/ws");
}

/// Asks for `/x` of `shop.example` through a proxy to where it is.
const PYTHON: &str = "import http.client, socket, ssl, sys
context = ssl.create_default_context(cafile=sys.argv[3])
stream = socket.create_connection(('127.0.0.1', int(sys.argv[1])))
stream.sendall(f'CONNECT {sys.argv[2]} HTTP/1.1\\r\\nHost: {sys.argv[2]}\\r\\n\\r\\n'.encode())
while not stream.recv(1024).endswith(b'\\r\\n\\r\\n'): pass
connection = http.client.HTTPSConnection('shop.example')
connection.sock = context.wrap_socket(stream, server_hostname='shop.example')
for _ in range(2):
    connection.request('POST', '/x', b'hello')
    print(connection.getresponse().read().decode(), end='')";

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_trust_the_ca_are_seen() {
    let (local, services) = (LocalCa::new(), Trust::new());
    let (port, sees) = service(services.server("shop.example", BOTH)).await;
    let car = car(&local, "shop.example", &services, "");
    let proxy = car.bound.proxy.unwrap();
    let (target, proxy_url) = (format!("127.0.0.1:{port}"), format!("http://{proxy}"));
    let (at, ca) = (format!("shop.example:443:{target}"), local.path("local.pem"));
    let curl =
        ["-sS", "-x", &proxy_url, "--proxytunnel", "--connect-to", &at, "--cacert", &ca, "-d", "hello"];
    let url_x = "https://shop.example/x";
    let programs = [
        ("curl", [&curl[..], &["--http1.1", url_x, url_x]].concat()),
        ("curl", [&curl[..], &["--http2", url_x, url_x]].concat()),
        ("python3", vec!["-c", PYTHON, proxy_url.rsplit(':').next().unwrap(), &target, &ca]),
    ];
    for (program, arguments) in programs {
        let mut command = tokio::process::Command::new(program);
        command.args(&arguments).env_remove("no_proxy").env_remove("NO_PROXY");
        let Ok(output) = command.output().await else {
            eprintln!("skipped: no {program}");
            continue;
        };
        let error = String::from_utf8_lossy(&output.stderr);
        assert_eq!(String::from_utf8_lossy(&output.stdout), "hellohello", "{arguments:?}: {error}");
        for _ in 0..2 {
            assert_eq!(url(&car.record()), url_x);
            assert!(sees.recv_timeout(PATIENCE).unwrap().request.headers().contains_key("traceparent"));
        }
    }
}

#[test]
fn a_ca_that_cannot_be_read_is_heard_of_at_start() {
    let local = LocalCa::new();
    let start = || {
        let text = format!(
            "service: {{ name: x }}\ninbound: [{{ listen: '127.0.0.1:0', to: 'http://127.0.0.1:1' }}]\n\
             outbound: {{ proxy: '127.0.0.1:0', {} }}\nadmin: {{ listen: '127.0.0.1:0' }}\n",
            local.setting("shop.example")
        );
        let file = program::File::new(&text);
        let ended = Start::new(["run", "--config", file.name()]).end();
        (ended.code(), ended.stderr.join("\n"))
    };
    let key = local.path("local.key");
    std::fs::write(&key, "-----BEGIN PRIVATE KEY-----\n!!!c2VjcmV0\n-----END PRIVATE KEY-----\n").unwrap();
    let (code, said) = start();
    assert!(code != Some(0) && said.contains(&key) && !said.contains("c2VjcmV0"), "{said}");
    std::fs::remove_file(&key).unwrap();
    let (code, said) = start();
    assert!(code != Some(0) && said.contains(&format!("cannot read {key}")), "{said}");
}

#[test]
fn a_refused_connect_with_a_hello_behind_it_is_one_answer_and_one_record() {
    let car = TestCar::start(settings("http://127.0.0.1:1", "outbound: { proxy: '127.0.0.1:0' }"));
    let ask = b"CONNECT 169.254.169.254:443 HTTP/1.1\r\nHost: x\r\n\r\n\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03";
    for (address, status) in [(car.bound.proxy.unwrap(), 403), (car.address(), 501)] {
        let mut caller = Peer::connect(address);
        caller.send(ask);
        let answer = caller.response();
        assert_eq!((answer.status(), answer.header("connection")), (status, Some("close")));
        caller.send(vec![0; 512]);
        caller.finish_sending();
        assert_eq!(caller.rest().unwrap(), b"", "and no reset");
        assert_eq!(car.record().outcome, Outcome::Rejected);
    }
    assert_eq!(car.ended().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_connect_over_http2_is_told_that_it_cannot_be_had() {
    let car = TestCar::start(settings("http://127.0.0.1:1", "outbound: { proxy: '127.0.0.1:0' }"));
    let io = TokioIo::new(TcpStream::connect(car.bound.proxy.unwrap()).await.unwrap());
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), io).await.unwrap();
    tokio::spawn(connection);
    let mut request = Request::new(Full::<Bytes>::default());
    *request.method_mut() = http::Method::CONNECT;
    *request.uri_mut() = "127.0.0.1:1024".parse().unwrap();
    assert_eq!(sender.send_request(request).await.unwrap().status(), StatusCode::NOT_IMPLEMENTED);
    assert_eq!(car.record().outcome, Outcome::Rejected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_leaves_tunnels_their_time_and_ends_those_that_were_never_used() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let target = listener.local_addr().unwrap().to_string();
    let mut car = TestCar::start(settings("http://127.0.0.1:1", "outbound: { proxy: '127.0.0.1:0' }"));
    let mut used = tunnel(&car, &target).await;
    let (mut far, _) = listener.accept().await.unwrap();
    used.write_all(b"\0one").await.unwrap();
    let mut four = [0; 4];
    far.read_exact(&mut four).await.unwrap();
    let mut unused = tunnel(&car, &target).await;
    let _far_too = listener.accept().await.unwrap();
    car.stop();
    assert_eq!(unused.read(&mut four).await.unwrap(), 0);
    let record = car.record();
    assert_eq!((record.outcome, record.request_bytes), (Outcome::Complete, 0));
    far.write_all(b"two2").await.unwrap();
    used.read_exact(&mut four).await.unwrap();
    assert_eq!(&four, b"two2", "it goes on");
    car.cut();
    let record = car.record();
    assert_eq!((record.outcome, record.request_bytes, record.response_bytes), (Outcome::Drained, 4, 4));
    assert_eq!(tokio::time::timeout(PATIENCE, used.read(&mut four)).await.unwrap().unwrap_or(0), 0);
    assert_eq!(car.ended().len(), 0);
}
