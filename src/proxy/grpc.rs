//! gRPC on the path of a request: how long its answer is waited for, what its end says of its status, and errors of our own in
//! the form that its clients read.

use std::error::Error;
use std::fmt::Write as _;
use std::time::Duration;

use http::header::{CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Response};

use super::body::ResponseBody;
use crate::config::Timeouts;
use crate::exchange::grpc::{UNAVAILABLE, UNIMPLEMENTED, UNKNOWN, is_grpc, of_http, of_reset, timeout};
use crate::exchange::{Record, RpcMethod};
use crate::net::reset;
use crate::wire::body::describe;

const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");
const GRPC_MESSAGE: HeaderName = HeaderName::from_static("grpc-message");
const GRPC_TIMEOUT: HeaderName = HeaderName::from_static("grpc-timeout");

/// How much longer than its deadline an answer is waited for. The caller and the service look after the deadline themselves,
/// and should come first.
const GRACE: Duration = Duration::from_secs(5);

/// Bytes of `grpc-message` that are kept.
const MAX_MESSAGE: usize = 1024;

/// Whether a message is one of a call.
pub(super) fn has_call(headers: &HeaderMap) -> bool {
    headers.get(CONTENT_TYPE).is_some_and(|kind| is_grpc(kind.as_bytes()))
}

/// How long the answer to a call is of use to its caller; `None` where it does not say.
pub(super) fn deadline(headers: &HeaderMap) -> Option<Duration> {
    timeout(headers.get(GRPC_TIMEOUT)?.as_bytes())
}

/// The bounds for a request with this deadline. A call is waited for until then, be that sooner or later than the settings
/// have it: it is the caller who says how long an answer is of use.
pub(super) fn patience(timeouts: &Timeouts, deadline: Option<Duration>) -> Timeouts {
    match deadline {
        Some(deadline) => Timeouts { response_header: deadline + GRACE, ..*timeouts },
        None => *timeouts,
    }
}

/// Notes the status of a call (RPC-12) and its message, if they are here.
pub(super) fn note_status(record: &mut Record, headers: &HeaderMap) {
    let Some(status) = headers.get(GRPC_STATUS) else { return };
    // Clients take what they cannot read for a failure, and so do we.
    let status = status.to_str().ok().and_then(|status| status.parse().ok()).unwrap_or(UNKNOWN);
    record.grpc_status = Some(status);
    if status == UNIMPLEMENTED && record.rpc == Some(RpcMethod::OfListedService) {
        // The name may be anybody's invention (RPC-3).
        record.rpc = Some(RpcMethod::Other);
        if let Some(request) = &mut record.request {
            request.route = None;
        }
    }
    if status != 0
        && let Some(message) = headers.get(GRPC_MESSAGE)
    {
        let message = &message.as_bytes()[..message.len().min(MAX_MESSAGE)];
        let evidence = record.evidence.get_or_insert_default();
        evidence.grpc_message = Some(String::from_utf8_lossy(message).into_owned());
    }
}

/// Notes the status that a caller gives to a response that came to its end and had none (RPC-12).
pub(super) fn note_missing_status(record: &mut Record) {
    if let (Some(_), None, Some(status)) = (record.rpc, record.grpc_status, record.status) {
        record.grpc_status = Some(of_http(status));
    }
}

/// Notes the status that the caller of a response gets that breaks off with this error (RPC-13).
pub(super) fn note_break(record: &mut Record, error: &(dyn Error + 'static)) {
    if record.rpc.is_some() && record.grpc_status.is_none() {
        record.grpc_status = Some(reset::code(error).map_or(UNAVAILABLE, of_reset));
    }
}

/// Trailers for a response that breaks off with its connection. Without us the caller would have lost its own, and its library
/// says `UNAVAILABLE` to that, by which it knows that it may come again; to a stream that we reset it would say `INTERNAL`. A
/// reset of the service's is passed on as one: then there are none.
pub(super) fn farewell(error: &(dyn Error + 'static)) -> Option<HeaderMap> {
    if reset::code(error).is_some() {
        return None;
    }
    let mut trailers = HeaderMap::new();
    trailers.insert(GRPC_STATUS, HeaderValue::from(u16::from(UNAVAILABLE)));
    trailers.insert(GRPC_MESSAGE, message(&format!("the service broke off its answer: {}", describe(error))));
    Some(trailers)
}

/// An answer of our own: nothing but a head (RPC-14).
pub(super) fn answer(status: u8, detail: &str) -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Own(None));
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
    headers.insert(GRPC_STATUS, HeaderValue::from(u16::from(status)));
    headers.insert(GRPC_MESSAGE, message(detail));
    response
}

/// `grpc-message`: what is not visible ASCII or a space is percent-encoded, and the percent sign, too (RPC-14).
fn message(detail: &str) -> HeaderValue {
    let mut encoded = String::from("tracecar: ");
    for byte in detail.bytes() {
        match byte {
            b' '..=b'~' if byte != b'%' => encoded.push(char::from(byte)),
            // Writing to a String never fails.
            _ => drop(write!(encoded, "%{byte:02X}")),
        }
    }
    HeaderValue::try_from(encoded).unwrap_or(HeaderValue::from_static("tracecar"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_call_with_a_deadline_is_waited_for_until_then_and_a_moment() {
        let second = Duration::from_secs(1);
        let timeouts = Timeouts {
            detection: second,
            tls_handshake: second,
            request_header: second,
            request_body: second,
            idle: second,
            connect: second,
            response_header: 60 * second,
            response_body: second,
            response_send: second,
            stream: None,
            tunnel: None,
            upstream_idle: second,
        };
        let waited = |timeout: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(GRPC_TIMEOUT, HeaderValue::from_static(timeout));
            patience(&timeouts, deadline(&headers)).response_header.as_secs()
        };
        assert_eq!(waited("10S"), 15, "nobody waits for it any more");
        assert_eq!(waited("1H"), 3605, "the caller does");
        assert_eq!(waited("soon"), 60);
    }

    #[test]
    fn a_message_is_visible_ascii_whatever_the_detail_says() {
        assert_eq!(message("100% of é\n"), "tracecar: 100%25 of %C3%A9%0A");
    }
}
