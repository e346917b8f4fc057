//! WebSocket over HTTP/2 (RFC 8441), in the form that everything above knows: that of HTTP/1.1.
//!
//! There a WebSocket is a GET with `Upgrade`, a key, and a 101 that proves by the key that the server knows what was asked
//! for. On HTTP/2 it is a CONNECT with a `:protocol` and without a key, and the answer is a 200. Whoever stands between the
//! two is a WebSocket client on one hop and a server on the other, so it makes the key or the proof that one side lacks, and
//! checks what the other sends (HX-5, RFC 6455 section 4).

use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::header::{CONTENT_LENGTH, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, TRAILER, UPGRADE};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::ext::Protocol;
use hyper::upgrade::OnUpgrade;
use ring::digest::{SHA1_FOR_LEGACY_USE_ONLY, digest};

use super::caller::Caller;
use super::side::{Http2Stream, Side};
use super::tasks::{Sends, spawn_counted};
use super::tunnel::Tunnel;
use crate::exchange::random_bytes;
use crate::stats::Stats;
use crate::wire::headers;

/// The protocol's name, in `Upgrade` and in `:protocol`.
const WEBSOCKET: &str = "websocket";

/// What servers put behind a key (RFC 6455 section 1.3).
const GUID: &[u8] = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11";

/// Whether that is the name of the protocol.
fn is_websocket(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(WEBSOCKET.as_bytes())
}

/// A key, for a client that has none.
fn new_key() -> HeaderValue {
    text(&BASE64.encode(random_bytes::<16>()))
}

/// Whether that is the key of a client that knows the protocol: 16 bytes in base64 (RFC 6455 section 4.2.1).
fn is_key(key: &HeaderValue) -> bool {
    BASE64.decode(key.as_bytes()).is_ok_and(|bytes| bytes.len() == 16)
}

/// The proof that belongs to a key.
fn proof_of(key: &HeaderValue) -> HeaderValue {
    let hash = digest(&SHA1_FOR_LEGACY_USE_ONLY, &[key.as_bytes(), GUID].concat());
    text(&BASE64.encode(hash))
}

fn text(base64: &str) -> HeaderValue {
    HeaderValue::from_str(base64).expect("base64 is text")
}

/// Gives a request of an HTTP/2 caller that wants to open a WebSocket the form of HTTP/1.1, and an [`Opening`]. One for any
/// other protocol remains a CONNECT, which nobody here serves over HTTP/2.
pub(super) fn in_known_form(mut request: Request<Incoming>, stats: &Arc<Stats>) -> Request<Incoming> {
    let asked = request.extensions().get::<Protocol>();
    if !asked.is_some_and(|protocol| is_websocket(protocol.as_ref())) {
        return request;
    }
    let key = new_key();
    let upgrade = hyper::upgrade::on(&mut request);
    let opening = Opening(Box::new(Asked { proof: proof_of(&key), upgrade, stats: stats.clone() }));
    *request.method_mut() = Method::GET;
    request.extensions_mut().clear();
    request.extensions_mut().insert(opening);
    let fields = request.headers_mut();
    // CONNECT has no content (RFC 9110 section 9.3.6), and what says so means nothing of the kind with GET.
    fields.remove(CONTENT_LENGTH);
    fields.insert(SEC_WEBSOCKET_KEY, key);
    headers::request_upgrade(fields, HeaderValue::from_static(WEBSOCKET));
    request
}

/// A WebSocket that an HTTP/2 caller wants to open: comes along with its request, as an extension.
#[derive(Clone, Debug)]
pub struct Opening(Box<Asked>);

#[derive(Clone, Debug)]
struct Asked {
    proof: HeaderValue,
    upgrade: OnUpgrade,
    stats: Arc<Stats>,
}

impl Opening {
    /// Whether the service has agreed, by an answer that changes to `protocol`; `None` is one that changes to nothing.
    ///
    /// # Errors
    /// Says why an answer cannot be passed on. The caller would take any success for an open WebSocket.
    pub fn agreed<B>(&self, response: &Response<B>, protocol: Option<&HeaderValue>) -> Result<bool, String> {
        let status = response.status();
        if status.is_success() {
            return Err(format!("{} to a request for a WebSocket", status.as_u16()));
        }
        if status != StatusCode::SWITCHING_PROTOCOLS {
            return Ok(false);
        }
        if !protocol.is_some_and(|protocol| is_websocket(protocol.as_bytes())) {
            return Err("101 to another protocol than WebSocket".to_owned());
        }
        match response.headers().get(SEC_WEBSOCKET_ACCEPT) {
            Some(proof) if *proof == self.0.proof => Ok(true),
            Some(_) => Err("101 with a Sec-WebSocket-Accept that does not belong to the key".to_owned()),
            None => Err("101 without Sec-WebSocket-Accept".to_owned()),
        }
    }

    /// Gives the head of an answer by which a service has agreed the form of HTTP/2.
    pub fn accept<B>(response: &mut Response<B>) {
        *response.status_mut() = StatusCode::OK;
        let fields = response.headers_mut();
        fields.remove(SEC_WEBSOCKET_ACCEPT);
        fields.remove(CONTENT_LENGTH);
        fields.remove(TRAILER);
    }

    /// The caller's stream becomes its side of `tunnel` when the answer has been sent. To be called where that is made.
    pub fn open(self, tunnel: Tunnel, caller: Caller) {
        let Asked { upgrade, stats, .. } = *self.0;
        let sends = Sends::of_this_stream();
        spawn_counted(&stats, async move {
            // For as long as the tunnel is open, its connection has something to do.
            let _caller = caller;
            match upgrade.await {
                Ok(stream) => {
                    let client = Side::Http2(Http2Stream::new(stream, sends, None));
                    tunnel.between(client, Bytes::new()).await;
                }
                // The caller has left, so the answer could not be sent.
                Err(_) => {
                    let Tunnel { mut exchange, .. } = tunnel;
                    exchange.not_answered();
                }
            }
        });
    }
}

/// The key of a request for a WebSocket in the form of HTTP/1.1; `None` of others, and where that form is broken.
pub(super) fn key_of<B: Body>(request: &Request<B>) -> Option<HeaderValue> {
    let fields = request.headers();
    let asks = fields.get(UPGRADE).is_some_and(|protocol| is_websocket(protocol.as_bytes()));
    let plain = request.method() == Method::GET && request.body().is_end_stream();
    fields.get(SEC_WEBSOCKET_KEY).filter(|key| asks && plain && is_key(key)).cloned()
}

/// Gives such a request the form of HTTP/2.
pub(super) fn into_connect<B>(request: &mut Request<B>) {
    *request.method_mut() = Method::CONNECT;
    request.extensions_mut().insert(Protocol::from_static(WEBSOCKET));
    let fields = request.headers_mut();
    fields.remove(SEC_WEBSOCKET_KEY);
    fields.remove(CONTENT_LENGTH);
}

/// Gives the head of an answer over HTTP/2 by which a service has agreed the form of HTTP/1.1.
pub(super) fn into_switching<B>(response: &mut Response<B>, key: &HeaderValue) {
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let fields = response.headers_mut();
    fields.remove(CONTENT_LENGTH);
    fields.insert(SEC_WEBSOCKET_ACCEPT, proof_of(key));
    headers::request_upgrade(fields, HeaderValue::from_static(WEBSOCKET));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_proof_is_that_of_the_rfc() {
        let key = HeaderValue::from_static("dGhlIHNhbXBsZSBub25jZQ==");
        assert_eq!(proof_of(&key), "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert!(is_key(&key) && is_key(&new_key()));
        assert_ne!(new_key(), new_key());
        for bad in ["", "dGhlIHNhbXBsZSBub25jZQ", "dGhlIHNhbXBsZSBub25j", "!GhlIHNhbXBsZSBub25jZQ=="] {
            assert!(!is_key(&HeaderValue::from_static(bad)), "{bad}");
        }
    }
}
