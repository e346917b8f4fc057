//! Visits of TLS, and of the PROXY protocol: as it should be, and as it should not.

use std::net::SocketAddr;
use std::sync::Arc;

use rustls::ClientConfig;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::place::Place;
use crate::support::origin::Peer;
use crate::support::pki::{Secure, get};

const NAME: &str = "shop.example";

fn connect(place: &Place, to: SocketAddr, config: &Arc<ClientConfig>) -> Secure {
    let connected = Secure::connect(to, b"", NAME, config.clone());
    place.doors.runtime.block_on(connected).expect("the handshake succeeds")
}

/// Two requests on one connection.
fn two(place: &Place, config: &Arc<ClientConfig>) {
    let mut secure = connect(place, place.doors.tls, config);
    for _ in 0..2 {
        let answer = place.doors.runtime.block_on(secure.get(&place.path("ok"))).expect("it is answered");
        assert_eq!((answer.status, answer.text.as_str()), (200, "ok"));
    }
}

/// A handshake that fails, or a request that does, for with TLS 1.3 a caller may go on before it is told.
fn fails(place: &Place, to: SocketAddr, config: &Arc<ClientConfig>) {
    let failed = place.doors.runtime.block_on(get(to, b"", NAME, config.clone()));
    assert!(failed.is_err(), "{failed:?}");
}

/// Says something, and waits for the end.
fn says(to: SocketAddr, what: impl AsRef<[u8]>) -> Vec<u8> {
    let mut peer = Peer::connect(to);
    peer.send(what);
    peer.rest().unwrap_or_default()
}

/// Says something, and ends.
fn begins(to: SocketAddr, what: impl AsRef<[u8]>) {
    let mut peer = Peer::connect(to);
    peer.send(what);
    peer.finish_sending();
    let _ = peer.rest();
}

pub fn ordinary(place: &Place) {
    two(place, &place.doors.clients.http1);
}

pub fn http2(place: &Place) {
    two(place, &place.doors.clients.http2);
}

pub fn leaves(place: &Place) {
    let request = place.request("POST", "silence", "Content-Length: 100\r\n") + "half";
    let connected = place.doors.runtime.block_on(async {
        let stream = TcpStream::connect(place.doors.tls).await?;
        let connector = TlsConnector::from(place.doors.clients.http1.clone());
        let mut stream = connector.connect(NAME.try_into().expect("a name"), stream).await?;
        stream.write_all(request.as_bytes()).await?;
        stream.flush().await?;
        std::io::Result::Ok(stream)
    });
    place.arrived();
    drop(connected);
}

pub fn http2_leaves(place: &Place) {
    let mut secure = connect(place, place.doors.tls, &place.doors.clients.http2);
    let path = place.path("silence");
    let asking = place.doors.runtime.spawn(async move { secure.get(&path).await });
    place.arrived();
    // The request is cancelled, and then the connection goes.
    asking.abort();
    let _ = place.doors.runtime.block_on(asking);
}

pub fn certified(place: &Place) {
    let mut secure = connect(place, place.doors.certified, &place.doors.clients.certified);
    let answer = place.doors.runtime.block_on(secure.get(&place.path("ok"))).expect("it is answered");
    assert_eq!(answer.text, "ok");
}

pub fn wrong_certificate(place: &Place) {
    fails(place, place.doors.certified, &place.doors.clients.wrongly_certified);
}

pub fn no_certificate(place: &Place) {
    fails(place, place.doors.certified, &place.doors.clients.http1);
}

pub fn distrust(place: &Place) {
    fails(place, place.doors.tls, &place.doors.clients.distrusting);
}

pub fn incompatible(place: &Place) {
    fails(place, place.doors.tls, &place.doors.clients.incompatible);
}

pub fn garbage(place: &Place) {
    assert_eq!(says(place.doors.tls, b"\0\x01\x02\x03 garbage\r\n\r\n"), b"");
}

pub fn malformed(place: &Place) {
    // A record of a handshake message that there is not.
    says(place.doors.tls, b"\x16\x03\x01\0\x08\xff\0\0\x04\xff\xff\xff\xff");
}

pub fn aborted(place: &Place) {
    // The beginning of a ClientHello of 512 bytes.
    begins(place.doors.tls, b"\x16\x03\x01\x02\0\x01\0\x01\xfc\x03\x03");
}

pub fn plain(place: &Place) {
    let answer = says(place.doors.tls, place.get("ok"));
    assert!(answer.starts_with(b"HTTP/1.1 400"), "{}", answer.escape_ascii());
}

pub fn proxied(place: &Place) {
    let mut peer = Peer::connect(place.doors.proxied);
    peer.send(format!("PROXY TCP4 203.0.113.9 192.0.2.1 50000 443\r\n{}", place.get("ok")));
    assert_eq!(peer.response().text(), "ok");
}

pub fn unproxied(place: &Place) {
    assert_eq!(says(place.doors.proxied, place.get("ok")), b"");
}

pub fn misproxied(place: &Place) {
    assert_eq!(says(place.doors.proxied, b"PROXY TCP4 nobody knows whom\r\n"), b"");
}

pub fn half_proxied(place: &Place) {
    begins(place.doors.proxied, b"PROXY TCP4 203.0.113.9 19");
}
