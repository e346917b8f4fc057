//! TLS with callers, on real sockets: which certificate they are shown, what they have to show, and what becomes of those
//! who speak something else.

mod files;
pub mod onwards;

use std::io::{Read, Write};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Version;
use rcgen::SanType;
use rustls::{ClientConfig, ProtocolVersion};
use tracecar::exchange::{ClientCertificate, Outcome, Record, semconv};

use crate::support::car::{TestCar, loaded};
use crate::support::eventually;
use crate::support::origin::{Origin, Peer};
use crate::support::pki::{Answer, Pki, Secure, get};

const HTTP2: &[&str] = &["h2", "http/1.1"];
const HTTP1: &[&str] = &["http/1.1"];
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A sidecar whose listener says this besides, before a service that answers `ok`.
fn car(listener: &str, more: &str) -> TestCar {
    car_before(&Origin::answering(OK).url(), listener, more)
}

fn car_before(to: &str, listener: &str, more: &str) -> TestCar {
    TestCar::start(loaded(&format!(
        "service: {{ name: under-test }}\ninbound: [{{ listen: '127.0.0.1:0', to: '{to}', {listener} }}]\n\
         admin: {{ listen: '127.0.0.1:0' }}\n{more}\n"
    )))
}

/// A sidecar with TLS for `shop.example`.
fn shop(pki: &Pki, tls: &str, more: &str) -> TestCar {
    car(&format!("tls: {{ certificates: [{}], {tls} }}", pki.pair("shop", "shop.example")), more)
}

/// What a span says of a record.
fn attribute(record: &Record, name: &str) -> Option<String> {
    let mut found = None;
    semconv::attributes(record, &mut |key, value| {
        if key == name {
            found = Some(match value {
                semconv::Value::Str(text) => text.to_owned(),
                other => format!("{other:?}"),
            });
        }
    });
    found
}

#[tokio::test(flavor = "multi_thread")]
async fn callers_are_served_by_tls_in_whatever_they_speak() {
    let pki = Pki::new("ca");
    let car = shop(&pki, "", "");
    let cases: [(&[&str], Version); 4] = [
        (HTTP2, Version::HTTP_2),
        (HTTP1, Version::HTTP_11),
        (&["http/1.0"], Version::HTTP_11),
        (&[], Version::HTTP_11),
    ];
    for (alpn, version) in cases {
        let answer = get(car.address(), b"", "shop.example", pki.client(alpn, None)).await.unwrap();
        assert_eq!(answer, Answer { version, status: 200, text: "ok".to_owned() }, "{alpn:?}");
        let record = car.record();
        assert_eq!((record.outcome, record.status), (Outcome::Complete, Some(200)));
        let facts = [semconv::URL_SCHEME, semconv::TLS_PROTOCOL_VERSION, semconv::CLIENT_ADDRESS];
        let said = facts.map(|name| attribute(&record, name).unwrap());
        assert_eq!(said, ["https", "1.3", "127.0.0.1"], "SEM-22");
        assert_eq!(attribute(&record, semconv::TLS_CLIENT_SUBJECT), None);
    }
    assert_eq!(car.stats().tls_complete.value(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn programs_that_people_use_are_content() {
    let pki = Pki::new("ca");
    let car = shop(&pki, "", "");
    let (port, ca) = (car.address().port(), pki.ca().display().to_string());
    let resolve = format!("shop.example:{port}:127.0.0.1");
    let url = format!("https://shop.example:{port}/");
    let version = "%{http_version}";
    for (protocol, expected) in [("--http1.1", "ok1.1"), ("--http1.0", "ok1.1"), ("--http2", "ok2")] {
        let mut curl = tokio::process::Command::new("curl");
        curl.args(["-sS", protocol, "--cacert", &ca, "--resolve", &resolve, "-w", version, &url]);
        let Ok(output) = curl.env_remove("no_proxy").env_remove("NO_PROXY").output().await else {
            return eprintln!("skipped: no curl");
        };
        let error = String::from_utf8_lossy(&output.stderr);
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said, expected, "{protocol}: {error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_certificate_is_that_of_the_name_that_is_asked_for() {
    let pki = Pki::new("ca");
    let local = |params: &mut rcgen::CertificateParams| {
        params.subject_alt_names.push(SanType::IpAddress([127, 0, 0, 1].into()));
    };
    pki.put("first", &pki.sign_with("first.example", local));
    let pairs = [
        pki.named("first"),
        pki.pair("shop", "shop.example"),
        pki.pair("wild", "*.shop.example"),
        pki.pair("exact", "exact.shop.example"),
    ];
    let car = car(&format!("tls: {{ certificates: [{}] }}", pairs.join(", ")), "");
    let client = pki.client(HTTP1, None);
    for (name, shown) in [
        ("shop.example", "shop.example"),
        ("SHOP.example", "shop.example"),
        ("any.shop.example", "*.shop.example"),
        ("exact.shop.example", "exact.shop.example"),
        // Who connects to an address names nobody.
        ("127.0.0.1", "first.example"),
    ] {
        let caller = Secure::connect(car.address(), b"", name, client.clone()).await;
        assert_eq!(caller.unwrap_or_else(|error| panic!("{name}: {error}")).common_name(), shown, "{name}");
    }
    let stranger = Secure::connect(car.address(), b"", "a.b.shop.example", client).await;
    let error = stranger.map(|_| ()).unwrap_err().to_string();
    assert!(error.contains("first.example"), "nobody else is for it: {error}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_is_resumed_unless_certificates_are_asked_for() {
    let pki = Pki::new("ca");
    let ca = format!("client_auth: optional, client_ca: '{}'", pki.ca().display());
    for (tls, resumed) in [("", true), (&*ca, false)] {
        let car = shop(&pki, tls, "");
        let client = pki.client(HTTP1, None);
        let mut first = Secure::connect(car.address(), b"", "shop.example", client.clone()).await.unwrap();
        // Tickets come behind the handshake.
        first.get("/").await.unwrap();
        let second = Secure::connect(car.address(), b"", "shop.example", client).await.unwrap();
        assert_eq!((first.resumed, second.resumed), (false, resumed), "{tls}");
    }
}

/// A client of one version only.
fn only(version: &'static rustls::SupportedProtocolVersion, pki: &Pki) -> Arc<ClientConfig> {
    let mut roots = rustls::RootCertStore::empty();
    let read = std::fs::read(pki.ca()).unwrap();
    let ca: rustls::pki_types::CertificateDer<'_> =
        rustls::pki_types::pem::PemObject::from_pem_slice(&read).unwrap();
    roots.add(ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[version]).unwrap();
    Arc::new(builder.with_root_certificates(roots).with_no_client_auth())
}

#[tokio::test(flavor = "multi_thread")]
async fn versions_before_the_first_that_is_taken_are_refused() {
    let pki = Pki::new("ca");
    let older = only(&rustls::version::TLS12, &pki);
    let car = shop(&pki, "", "");
    let caller = Secure::connect(car.address(), b"", "shop.example", older.clone()).await.unwrap();
    assert_eq!(caller.version, ProtocolVersion::TLSv1_2);
    let car = shop(&pki, "min_version: TLSv1.3", "");
    assert!(Secure::connect(car.address(), b"", "shop.example", older).await.is_err());
    eventually("it is counted", || car.stats().tls_incompatible.value() == 1).await;
    assert!(get(car.address(), b"", "shop.example", pki.client(&[], None)).await.is_ok());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_has_to_show_a_certificate_where_that_is_required() {
    let pki = Pki::new("ca");
    let clients = Pki::new("clients");
    let tls = |auth: &str| format!("client_auth: {auth}, client_ca: '{}'", clients.ca().display());
    let spiffe = "spiffe://example/cart";
    let cart = clients.sign_with("cart.example", |params| {
        params.subject_alt_names.push(SanType::URI(spiffe.try_into().unwrap()));
    });
    let expired = clients.sign_with("old.example", |params| {
        params.not_after = (SystemTime::now() - Duration::from_secs(60)).into();
    });
    let foreign = Pki::new("clients").sign("cart.example");
    let ask = async |car: &TestCar, shows| {
        get(car.address(), b"", "shop.example", pki.client(HTTP2, shows)).await.map(|answer| answer.status)
    };
    for auth in ["required", "optional"] {
        let car = shop(&pki, &tls(auth), "");
        assert_eq!(ask(&car, Some(&cart)).await.unwrap(), 200);
        let record = car.record();
        let expected = ClientCertificate {
            subject: "CN=cart.example".to_owned(),
            issuer: "CN=clients".to_owned(),
            name: Some(spiffe.to_owned()),
        };
        assert_eq!(record.tls.as_ref().unwrap().client, Some(expected));
        let names = [semconv::TLS_CLIENT_SUBJECT, semconv::TLS_CLIENT_ISSUER, semconv::TLS_CLIENT_NAME];
        let said = names.map(|name| attribute(&record, name).unwrap());
        assert_eq!(said, ["CN=cart.example", "CN=clients", spiffe]);

        assert!(ask(&car, Some(&expired)).await.is_err());
        assert!(ask(&car, Some(&foreign)).await.is_err());
        let without = ask(&car, None).await;
        match auth {
            "required" => assert!(without.is_err()),
            _ => {
                assert_eq!(without.unwrap(), 200);
                assert_eq!(car.record().tls.as_ref().unwrap().client, None);
            }
        }
        let refused = if auth == "required" { 3 } else { 2 };
        eventually("they are counted", || car.stats().tls_client_certificate.value() == refused).await;
        assert!(car.ended().is_empty(), "who was refused asked nothing");
    }
}

#[test]
fn who_speaks_plain_http_is_told_so() {
    let pki = Pki::new("ca");
    let car = shop(&pki, "", "");
    let mut caller = Peer::connect(car.address());
    caller.send("GET /secret HTTP/1.1\r\nHost: shop.example\r\n\r\n");
    let answer = caller.response();
    assert_eq!((answer.status(), answer.header("connection")), (400, Some("close")));
    assert!(answer.text().contains("plain HTTP on a TLS port"), "{}", answer.text());
    assert_eq!(caller.rest().unwrap(), b"");
    drop(caller);
    let record = car.record();
    assert_eq!((record.outcome, record.status), (Outcome::MalformedRequest, Some(400)));
    assert_eq!(record.text(record.detail), "plain HTTP on a TLS port: write https://");

    let mut caller = Peer::connect(car.address());
    caller.send("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n");
    assert_eq!(caller.rest().unwrap_or_default(), b"");
    let record = car.record();
    assert_eq!((record.outcome, record.status), (Outcome::MalformedRequest, None), "nothing was sent");
    assert_eq!(car.stats().tls_plain_http.value(), 2);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_neither_tls_nor_http_is_closed_and_counted() {
    let pki = Pki::new("ca");
    let car = shop(&pki, "", "");
    let address = car.address();
    let close = move |bytes: &'static [u8]| {
        tokio::task::spawn_blocking(move || {
            let mut caller = Peer::connect(address);
            caller.send(bytes);
            let _ = caller.rest();
        })
    };
    close(b"\0\x01\x02\x03").await.unwrap();
    close(b"SSH-2.0-OpenSSH_9.6\r\n").await.unwrap();
    eventually("they are counted", || car.stats().tls_absent.value() == 2).await;
    // It begins like TLS, and goes on like nothing.
    close(b"\x16\x03\x01\x00\x05hello and more than that").await.unwrap();
    eventually("it is counted", || car.stats().tls_malformed.value() == 1).await;
    let mut leaves = Peer::connect(address);
    leaves.send(b"\x16\x03");
    drop(leaves);
    eventually("it is counted", || car.stats().tls_closed.value() == 1).await;
    assert_eq!((car.stats().panics.value(), car.stats().tls_complete.value()), (0, 0));
    assert!(car.ended().is_empty());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_handshake_takes_no_longer_than_it_may_and_nobody_waits_for_it() {
    let pki = Pki::new("ca");
    let car = shop(&pki, "", "timeouts: { tls_handshake: 300ms, detection: 1h }");
    let address = car.address();
    let slow: [fn(&mut Peer); 3] = [
        |_| {},
        |peer| peer.send(HELLO),
        // A byte now and then, so that there is always something new.
        |peer| {
            peer.send(HELLO);
            (0..100).for_each(|_| drip(peer));
        },
    ];
    let slow = slow.map(|slow| {
        std::thread::spawn(move || {
            let mut peer = Peer::connect(address);
            slow(&mut peer);
            assert_eq!(peer.rest().unwrap_or_default(), b"");
        })
    });
    for _ in 0..20 {
        assert_eq!(get(address, b"", "shop.example", pki.client(HTTP2, None)).await.unwrap().status, 200);
    }
    for slow in slow {
        slow.join().expect("it is closed");
    }
    assert_eq!(car.stats().tls_timed_out.value(), 3);
    eventually("nobody is left", || car.stats().connections_open.value() == 0).await;
}

/// The beginning of a first message of 16 KiB.
const HELLO: &[u8] = b"\x16\x03\x01\x3f\xff\x01\x00\x3f\xfb\x03\x03";

fn drip(peer: &mut Peer) {
    peer.send(b"\0");
    // The pace of the attacker, not a wait for something to happen.
    std::thread::sleep(Duration::from_millis(5));
}

/// Both ends of a conversation in TLS, without HTTP in between.
fn raw(car: &TestCar, pki: &Pki) -> rustls::StreamOwned<rustls::ClientConnection, std::net::TcpStream> {
    let name = "shop.example".try_into().unwrap();
    let session = rustls::ClientConnection::new(pki.client(&[], None), name).unwrap();
    rustls::StreamOwned::new(session, Peer::connect(car.address()).stream)
}

#[test]
fn content_that_ends_with_the_connection_ends_with_a_word_of_tls() {
    let pki = Pki::new("ca");
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send("HTTP/1.0 200 OK\r\n\r\nall of it");
    });
    let listener = format!("tls: {{ certificates: [{}] }}", pki.pair("shop", "shop.example"));
    let car = car_before(&origin.url(), &listener, "");
    let mut caller = raw(&car, &pki);
    caller.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = String::new();
    // Without close_notify this is an error: nobody could tell it from content that was cut short (FRM-5).
    caller.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 200 ") && answer.ends_with("\r\n\r\nall of it"), "{answer}");
    assert_eq!(car.record().outcome, Outcome::Complete);
}

#[test]
fn content_that_was_cut_short_does_not_end_well() {
    let pki = Pki::new("ca");
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\na part");
    });
    let listener = format!("tls: {{ certificates: [{}] }}", pki.pair("shop", "shop.example"));
    let car = car_before(&origin.url(), &listener, "");
    let mut caller = raw(&car, &pki);
    caller.write_all(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    let mut answer = Vec::new();
    // The length says so, or else the end of the connection does (FRM-4).
    let whole = caller.read_to_end(&mut answer).is_ok();
    let text = String::from_utf8_lossy(&answer).to_ascii_lowercase();
    assert!(!whole || text.contains("content-length: 100"), "{text}");
    assert_eq!(car.record().outcome, Outcome::UpstreamBroken);
}

#[test]
fn who_does_not_take_the_answers_is_not_waited_for_though_tls_has_taken_them() {
    let pki = Pki::new("ca");
    // Small enough for TLS to take each as a whole, while the socket takes nothing any more.
    let content = "z".repeat(10_000);
    let origin =
        Origin::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{content}", content.len()));
    let listener = format!("tls: {{ certificates: [{}] }}", pki.pair("shop", "shop.example"));
    let car = car_before(&origin.url(), &listener, "timeouts: { response_send: 1s }");
    let mut caller = raw(&car, &pki);
    // More than the socket's buffers, and little enough to be asked for at once.
    caller.write_all("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n".repeat(1500).as_bytes()).unwrap();
    let last = std::iter::repeat_with(|| car.record()).find(|record| record.outcome != Outcome::Complete);
    assert_eq!(last.map(|record| record.outcome), Some(Outcome::ClientNotReading));
    assert_eq!(car.stats().closed_response_send.value(), 1);
}

#[test]
fn an_upgrade_goes_on_inside_tls() {
    let pki = Pki::new("ca");
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send(
            "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello",
        );
        let heard = peer.exactly(5);
        peer.send(heard);
    });
    let listener = format!("tls: {{ certificates: [{}] }}", pki.pair("shop", "shop.example"));
    let car = car_before(&origin.url(), &listener, "");
    let mut caller = raw(&car, &pki);
    let ask = "GET /ws HTTP/1.1\r\nHost: s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nthere";
    caller.write_all(ask.as_bytes()).unwrap();
    let mut answer = Vec::new();
    let _ = caller.read_to_end(&mut answer);
    let text = String::from_utf8_lossy(&answer);
    assert!(text.starts_with("HTTP/1.1 101 ") && text.ends_with("\r\n\r\nhellothere"), "{text}");
    // A tunnel lasts until both sides have closed.
    drop(caller);
    assert_eq!(car.record().outcome, Outcome::Complete);
}

/// Where a sidecar stops, who has not finished a handshake is not waited for, and who has is.
#[test]
fn a_stop_waits_for_no_handshake_that_has_not_begun() {
    let pki = Pki::new("ca");
    let car = shop(&pki, "", "timeouts: { tls_handshake: 1h }");
    let mut silent = Peer::connect(car.address());
    while car.stats().connections_open.value() == 0 {
        std::thread::yield_now();
    }
    assert!(car.ended().is_empty());
    assert_eq!(silent.rest().unwrap_or_default(), b"");
}
