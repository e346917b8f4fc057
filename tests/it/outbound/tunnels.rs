//! Tunnels: one record for each, unless what is said inside is plain HTTP, which is seen as such.

use std::io::{Read, Write};
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::Duration;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tracecar::exchange::{Outcome, Side, Stream, Tunneled};

use super::{OK, car, proxy, secured, url_of};
use crate::support::PATIENCE;
use crate::support::car::TestCar;
use crate::support::origin::{Nowhere, Origin, Peer};
use crate::support::service::destination;

/// Longer than any test waits: who needs it to be over fails.
fn without_end(car: &str) -> TestCar {
    TestCar::with("http://127.0.0.1:1", car, |settings| {
        settings.live.timeouts.detection = Duration::from_secs(3600);
    })
}

fn connect(car: &TestCar, authority: &str) -> Peer {
    let mut service = Peer::connect(car.proxy());
    service.send(format!("CONNECT {authority} HTTP/1.1\r\nHost: {authority}\r\n\r\n"));
    service
}

#[test]
fn a_tunnel_is_one_record_of_what_went_through() {
    let origin = Origin::new(|peer| {
        let heard = peer.rest().unwrap();
        peer.send([heard, b" back".to_vec()].concat());
    });
    let car = proxy();
    let mut service = connect(&car, &origin.address.to_string());
    let answer = service.response_head();
    assert_eq!(answer.status(), 200);
    for name in ["content-length", "transfer-encoding", "connection", "server-timing"] {
        assert_eq!(answer.header(name), None, "FRM-2, HX-4: {name}");
    }
    service.send("\0 not HTTP");
    service.finish_sending();
    assert_eq!(service.rest().unwrap(), b"\0 not HTTP back", "half-close is passed on");
    let record = car.record();
    assert_eq!((record.side, record.outcome, record.status), (Side::Outbound, Outcome::Complete, None));
    assert_eq!(record.tunnel, Some(Tunneled::Connect));
    assert_eq!((record.request_bytes, record.response_bytes), (10, 15));
    assert_eq!(record.peer, Some(origin.address));
    let request = record.request.as_ref().unwrap();
    assert_eq!((request.method.as_str(), request.url), ("CONNECT", None));
    assert_eq!(record.text(request.authority), origin.address.to_string());
    assert!(record.ancestry.is_some(), "a tunnel has a cause like any other call");
    assert_eq!(car.ended().len(), 0);
}

#[test]
fn what_comes_right_behind_connect_is_not_lost() {
    let origin = Origin::new(|peer| {
        let heard = peer.rest().unwrap();
        peer.send(heard);
    });
    let car = proxy();
    for early in ["\0early", "S", "PRI * no", "GET elsewhere"] {
        let mut service = Peer::connect(car.proxy());
        let address = origin.address;
        service.send(format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n{early}"));
        service.finish_sending();
        assert_eq!(service.response_head().status(), 200);
        assert_eq!(service.rest().unwrap(), early.as_bytes());
        let record = car.record();
        let bytes = early.len() as u64;
        assert_eq!((record.request_bytes, record.response_bytes), (bytes, bytes), "{early}");
    }
}

#[test]
fn a_server_that_speaks_first_is_heard_at_once() {
    let origin = Origin::new(|peer| {
        peer.send("220 mail.example\r\n");
        assert_eq!(peer.line().unwrap(), "QUIT\r\n");
        peer.send("221 bye\r\n");
    });
    let car = without_end("outbound: { proxy: '127.0.0.1:0' }");
    let mut service = connect(&car, &origin.address.to_string());
    assert_eq!(service.response_head().status(), 200);
    assert_eq!(service.line().unwrap(), "220 mail.example\r\n");
    service.send("QUIT\r\n");
    assert_eq!(service.line().unwrap(), "221 bye\r\n");
    drop(service);
    let record = car.record();
    assert_eq!((record.request_bytes, record.response_bytes), (6, 27));
}

#[test]
fn a_tunnel_in_which_nobody_says_anything_ends_with_either_side() {
    let (arrived, arrives) = channel();
    let origin = Origin::new(move |peer| {
        let _ = arrived.send(peer.rest().map(|rest| rest.len()));
    });
    let car = without_end("outbound: { proxy: '127.0.0.1:0' }");
    let mut service = connect(&car, &origin.address.to_string());
    assert_eq!(service.response_head().status(), 200);
    drop(service);
    assert!(matches!(arrives.recv_timeout(PATIENCE).unwrap(), Ok(0)));
    assert_eq!(car.record().outcome, Outcome::Complete);

    let closes = Origin::new(|_| {});
    let mut service = connect(&car, &closes.address.to_string());
    assert_eq!(service.response_head().status(), 200);
    assert_eq!(service.rest().unwrap(), b"");
    drop(service);
    assert_eq!(car.record().outcome, Outcome::Complete);
}

#[test]
fn a_tunnel_to_nowhere_is_refused_on_the_connect() {
    let nowhere = Nowhere::new();
    let car = proxy();
    for (authority, kind, outcome) in [
        (nowhere.address.to_string(), "connection_refused", Outcome::UpstreamRefused),
        ("no-such-host.invalid:443".to_owned(), "dns_error", Outcome::UpstreamUnresolved),
    ] {
        let mut service = connect(&car, &authority);
        let answer = service.response();
        assert_eq!(answer.status(), 502);
        let expected = format!("tracecar; error={kind};");
        assert!(answer.header("proxy-status").unwrap().starts_with(&expected), "{}", answer.head);
        let record = car.record();
        assert_eq!((record.outcome, record.status, record.peer), (outcome, None, None));
        assert_eq!(record.tunnel, Some(Tunneled::Connect));
        // What was sent behind it for the tunnel is no request.
        assert_eq!(answer.header("connection"), Some("close"));
        assert!(service.request().is_none(), "the connection ends");
    }
}

#[test]
fn tls_passes_a_tunnel_unseen() {
    let (port, certificate, asks) = secured();
    let car = proxy();
    let mut service = connect(&car, &format!("localhost:{port}"));
    assert_eq!(service.response_head().status(), 200);
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificate.path()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = Arc::new(config.with_root_certificates(roots).with_no_client_auth());
    let client = ClientConnection::new(config, "localhost".try_into().unwrap()).unwrap();
    let mut tls = StreamOwned::new(client, service.stream);
    tls.write_all(b"GET /secret HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
    let mut answer = vec![0; OK.len()];
    tls.read_exact(&mut answer).unwrap();
    assert_eq!(answer, OK.as_bytes());
    assert!(!asks.recv_timeout(PATIENCE).unwrap().contains("traceparent"), "nobody wrote into it");
    tls.sock.shutdown(std::net::Shutdown::Both).unwrap();
    let record = car.record();
    assert_eq!((record.tunnel, record.status), (Some(Tunneled::Connect), None));
    assert!(record.request_bytes > 100 && record.response_bytes > OK.len() as u64);
    assert!(record.timings.connect.is_some() && record.timings.dns.is_some(), "{:?}", record.timings);
    assert_eq!(car.ended().len(), 0);
}

#[test]
fn plain_http_inside_a_tunnel_is_seen_request_by_request() {
    let (origin, asks) = destination(OK);
    let car = without_end("outbound: { proxy: '127.0.0.1:0', url_templates: ['/items/{id}'] }");
    let authority = origin.address.to_string();
    let mut service = connect(&car, &authority);
    assert_eq!(service.response_head().status(), 200);
    for path in ["/items/1?a=b", "/x"] {
        service.send(format!("GET {path} HTTP/1.1\r\nHost: {authority}\r\n\r\n"));
        assert_eq!(service.response().text(), "ok");
        let asked = asks.recv_timeout(PATIENCE).unwrap();
        assert!(asked.head.starts_with(&format!("GET {path} HTTP/1.1\r\n")), "{}", asked.head);
        let record = car.record();
        let context = format!("00-{}-{}-", record.identity.trace_id, record.identity.span_id);
        assert!(asked.header("traceparent").unwrap().starts_with(&context));
        assert_eq!((record.tunnel, record.status), (None, Some(200)));
        assert_eq!(url_of(&record), format!("{}{}", origin.url(), path.replace("=b", "=REDACTED")));
        let route = record.request.as_ref().unwrap().route.clone();
        assert_eq!(route.as_deref(), (path != "/x").then_some("/items/{id}"));
    }
    service.finish_sending();
    assert_eq!(car.ended().len(), 0, "the tunnel itself is no call");
}

#[test]
fn a_websocket_inside_a_tunnel_is_seen_as_one() {
    let origin = Origin::new(|peer| {
        // The connection that was opened for the tunnel is not the one that the request comes on.
        let Some(asked) = peer.request() else { return };
        assert_eq!(asked.header("upgrade"), Some("websocket"));
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhi");
        let heard = peer.rest().unwrap();
        peer.send(heard);
    });
    let car = proxy();
    let authority = origin.address.to_string();
    let mut service = connect(&car, &authority);
    assert_eq!(service.response_head().status(), 200);
    service.send(format!(
        "GET /ws HTTP/1.1\r\nHost: {authority}\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nearly"
    ));
    assert_eq!(service.response_head().status(), 101);
    assert_eq!(service.exactly(2), b"hi");
    service.finish_sending();
    assert_eq!(service.rest().unwrap(), b"early");
    let record = car.record();
    assert_eq!((record.stream, record.status), (Some(Stream::WebSocket), Some(101)));
    assert_eq!((record.request_bytes, record.response_bytes), (5, 7));
}

#[test]
fn a_drain_ends_tunnels_at_its_deadline_whatever_was_said_in_them() {
    let origin = Origin::new(|peer| drop(peer.rest()));
    let mut car = without_end("outbound: { proxy: '127.0.0.1:0' }");
    let open = |said: &str| {
        let mut service = connect(&car, &origin.address.to_string());
        assert_eq!(service.response_head().status(), 200);
        service.send(said);
        service
    };
    let kept = [open(""), open("\0"), open("GET ")];
    car.stop();
    car.cut();
    let records = car.ended();
    assert_eq!(records.len(), kept.len());
    for record in records {
        assert_eq!((record.outcome, record.tunnel), (Outcome::Drained, Some(Tunneled::Connect)));
    }
}

#[test]
fn a_side_that_resets_a_tunnel_is_named() {
    let origin = Origin::new(|peer| {
        let first = peer.exactly(1);
        peer.send(&first);
        match first[0] {
            b'\0' => drop(peer.rest()),
            _ => socket2::SockRef::from(&peer.stream).set_linger(Some(Duration::ZERO)).unwrap(),
        }
    });
    let car = car("outbound: { proxy: '127.0.0.1:0' }");
    let open = |first: &str| {
        let mut service = connect(&car, &origin.address.to_string());
        assert_eq!(service.response_head().status(), 200);
        service.send(first);
        assert_eq!(service.exactly(1), first.as_bytes());
        service
    };
    open("\0").reset();
    let record = car.record();
    assert_eq!((record.outcome, record.error_type()), (Outcome::ClientGoneDuringResponse, None), "SEM-65");
    let _kept = open("\x01");
    let record = car.record();
    assert_eq!(record.outcome, Outcome::UpstreamBroken);
    assert!(record.failed(), "SEM-64");
}

#[test]
fn what_is_said_to_another_proxy_passes_as_it_is() {
    let (heard, hears) = std::sync::mpsc::channel();
    let heard = std::sync::Mutex::new(heard);
    let other = Origin::new(move |peer| {
        let request = peer.request().unwrap();
        let _ = heard.lock().unwrap().send(request.head);
        peer.send(OK);
    });
    for request in ["GET http://proxied.example/inner HTTP/1.1", "CONNECT other.example:443 HTTP/1.1"] {
        let car = proxy();
        let mut service = connect(&car, &other.address.to_string());
        assert_eq!(service.response_head().status(), 200);
        service.send(format!("{request}\r\nHost: a\r\nProxy-Authorization: Basic c2VjcmV0\r\n\r\n"));
        assert_eq!(service.response().status(), 200);
        let head = hears.recv_timeout(PATIENCE).unwrap();
        assert!(head.starts_with(request) && head.contains("Proxy-Authorization: Basic"), "{head}");
    }
}
