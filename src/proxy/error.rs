//! Errors that tracecar answers by itself: the status, the words, and what the record says.
//!
//! They are marked as ours by `Proxy-Status` (RFC 9209), so that nobody looks for them in the service.

use bytes::Bytes;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE, HeaderName, RETRY_AFTER};
use http::{HeaderValue, Response, StatusCode};

use super::body::ResponseBody;
use crate::config::Upstream;
use crate::exchange::{Outcome, grpc};
use crate::net::server::Unreadable;
use crate::net::upstream::SendError;

/// Marks what tracecar answers by itself (RFC 9209).
pub(super) const PROXY_STATUS: HeaderName = HeaderName::from_static("proxy-status");

/// An answer of our own.
#[derive(Debug)]
pub(super) struct Error {
    pub(super) status: StatusCode,
    pub(super) outcome: Outcome,
    /// The proxy error type of RFC 9209 section 2.3.
    kind: &'static str,
    /// One sentence for people.
    pub(super) detail: String,
    /// The service has reset the stream of the request with this code of HTTP/2.
    reset: Option<u32>,
    /// It was a call, and its deadline was over by then.
    overdue: bool,
}

impl Error {
    /// The service could not be asked, or gave no answer (GW-1, GW-2).
    pub(super) fn upstream(error: &SendError, upstream: &Upstream) -> Self {
        let (status, outcome, kind) = match error {
            SendError::Refused => (StatusCode::BAD_GATEWAY, Outcome::UpstreamRefused, "connection_refused"),
            SendError::Unresolved(..) => (StatusCode::BAD_GATEWAY, Outcome::UpstreamUnresolved, "dns_error"),
            SendError::Unreachable(_) => {
                (StatusCode::BAD_GATEWAY, Outcome::UpstreamUnreachable, "destination_ip_unroutable")
            }
            SendError::ConnectTimeout(_) => {
                (StatusCode::GATEWAY_TIMEOUT, Outcome::UpstreamConnectTimeout, "connection_timeout")
            }
            SendError::Busy(_) => {
                (StatusCode::SERVICE_UNAVAILABLE, Outcome::Overloaded, "connection_limit_reached")
            }
            SendError::HeaderTimeout(_) => {
                (StatusCode::GATEWAY_TIMEOUT, Outcome::UpstreamTimeout, "http_response_timeout")
            }
            SendError::Reset(_) => (StatusCode::BAD_GATEWAY, Outcome::UpstreamReset, "connection_terminated"),
            SendError::Invalid(_) => {
                (StatusCode::BAD_GATEWAY, Outcome::UpstreamInvalid, "http_protocol_error")
            }
            SendError::Tls(_) => (StatusCode::BAD_GATEWAY, Outcome::UpstreamTls, "tls_protocol_error"),
            SendError::Certificate(_) => {
                (StatusCode::BAD_GATEWAY, Outcome::UpstreamCertificate, "tls_certificate_error")
            }
            SendError::Denied(_) => (StatusCode::FORBIDDEN, Outcome::Rejected, "destination_ip_prohibited"),
        };
        let detail = match error {
            SendError::Denied(reason) => reason.clone(),
            error => format!("no answer from the service at {upstream}: {error}"),
        };
        Self { status, outcome, kind, detail, reset: None, overdue: false }
    }

    /// The caller broke off in the middle of its request. If only its sending side is closed, it learns of it.
    pub(super) fn incomplete_request() -> Self {
        Self {
            status: StatusCode::BAD_REQUEST,
            outcome: Outcome::ClientGoneBeforeResponse,
            kind: "http_request_error",
            detail: "the request was not sent completely".to_owned(),
            reset: None,
            overdue: false,
        }
    }

    /// What no request could be read from.
    pub(super) fn unreadable(problem: &Unreadable) -> Self {
        let Unreadable { outcome, status, ref detail } = *problem;
        let status = status.unwrap_or(StatusCode::BAD_REQUEST);
        Self {
            status,
            outcome,
            kind: "http_request_error",
            detail: detail.clone(),
            reset: None,
            overdue: false,
        }
    }

    /// A request that an intermediary before an origin server has no use for.
    pub(super) fn rejected(status: StatusCode, detail: &str) -> Self {
        let (outcome, kind) = (Outcome::Rejected, "http_request_denied");
        Self { status, outcome, kind, detail: detail.to_owned(), reset: None, overdue: false }
    }

    /// The same error of a call: the service has reset its stream with the code `reset`, or its deadline was over.
    pub(super) fn of_call(self, reset: Option<u32>, overdue: bool) -> Self {
        Self { reset, overdue, ..self }
    }

    /// The status for a call. It is what its client would say of the same trouble without us, so that it does not try again what
    /// it would not have tried again. A service that has a call and does not answer may be at it still: `UNAVAILABLE`
    /// asks for another try, and `DEADLINE_EXCEEDED` does not.
    pub(super) fn grpc_status(&self) -> u8 {
        match (self.outcome, self.reset) {
            (_, Some(code)) => grpc::of_reset(code),
            // Services close connections for which they have no more use, and may do so before the caller's own clock says so.
            (_, None) if self.overdue => grpc::DEADLINE_EXCEEDED,
            (Outcome::UpstreamTimeout, None) => grpc::DEADLINE_EXCEEDED,
            (Outcome::ClientGoneBeforeResponse, None) => grpc::CANCELLED,
            _ => grpc::of_http(self.status.as_u16()),
        }
    }

    /// The answer to a call, whose clients read no other (RPC-14).
    pub(super) fn reply_to_call(&self, status: u8) -> Response<ResponseBody> {
        let mut response = super::grpc::answer(status, &self.detail);
        response.headers_mut().insert(PROXY_STATUS, self.proxy_status());
        response
    }

    /// As much is under way as may be at once. The caller may try again in a moment.
    pub(super) fn overloaded(detail: &str) -> Self {
        Self {
            status: StatusCode::SERVICE_UNAVAILABLE,
            outcome: Outcome::Overloaded,
            kind: "connection_limit_reached",
            detail: detail.to_owned(),
            reset: None,
            overdue: false,
        }
    }

    /// The caller did not go on with its request's content (GW-3).
    pub(super) fn request_timeout() -> Self {
        Self {
            status: StatusCode::REQUEST_TIMEOUT,
            outcome: Outcome::ClientNotSending,
            kind: "http_request_error",
            detail: "the request's content did not go on within timeouts.request_body".to_owned(),
            reset: None,
            overdue: false,
        }
    }

    /// A request that lasts for longer than any may.
    pub(super) fn stream_timeout() -> Self {
        Self {
            status: StatusCode::GATEWAY_TIMEOUT,
            outcome: Outcome::StreamTimeout,
            kind: "http_response_timeout",
            detail: "the request was not answered within timeouts.stream".to_owned(),
            reset: None,
            overdue: false,
        }
    }

    /// The answer: short, plain text or JSON by `Accept`.
    pub(super) fn reply(
        &self,
        accept: Option<&HeaderValue>,
        correlation: &str,
        trace: &str,
    ) -> Response<ResponseBody> {
        let status = self.status.as_u16();
        let reason = self.status.canonical_reason().unwrap_or_default();
        let (kind, body) = if prefers_json(accept) {
            // RFC 9457: a client that knows problem details can read it without knowing us.
            let problem = serde_json::json!({
                "type": "about:blank", "title": reason, "status": status, "detail": self.detail,
                "error": self.kind, "source": "tracecar", "correlation_id": correlation, "trace_id": trace,
            });
            ("application/problem+json", format!("{problem}\n"))
        } else {
            let mut text = format!("{status} {reason}\ntracecar: {}\n", self.detail);
            for (name, value) in [("correlation id", correlation), ("trace id", trace)] {
                if !value.is_empty() {
                    text.push_str(&format!("{name}: {value}\n"));
                }
            }
            ("text/plain; charset=utf-8", text)
        };
        let mut response = Response::new(ResponseBody::Own(Some(Bytes::from(body.clone()))));
        *response.status_mut() = self.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        headers.insert(CONTENT_LENGTH, HeaderValue::from(body.len()));
        headers.insert(PROXY_STATUS, self.proxy_status());
        if self.outcome == Outcome::Overloaded {
            headers.insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }

    fn proxy_status(&self) -> HeaderValue {
        // A structured-field string takes visible ASCII, with `"` and `\` escaped (RFC 8941 section 3.3.3).
        let details: String = self
            .detail
            .chars()
            .filter(|character| matches!(character, ' '..='~'))
            .flat_map(|character| {
                matches!(character, '"' | '\\').then_some('\\').into_iter().chain(Some(character))
            })
            .collect();
        let value = format!("tracecar; error={}; details=\"{details}\"", self.kind);
        HeaderValue::from_str(&value).unwrap_or(HeaderValue::from_static("tracecar"))
    }
}

/// Whether a caller would rather read JSON: its `Accept` names it, and names no text form.
fn prefers_json(accept: Option<&HeaderValue>) -> bool {
    let accept = accept.and_then(|value| value.to_str().ok()).unwrap_or_default().to_ascii_lowercase();
    let names = |part: &str| {
        accept.split(',').any(|range| range.split(';').next().unwrap_or_default().contains(part))
    };
    names("json") && !names("text/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn asks_for_json(accept: &'static str) -> bool {
        prefers_json(Some(&HeaderValue::from_static(accept)))
    }

    #[test]
    fn json_is_for_those_who_ask_for_it() {
        assert!(asks_for_json("application/json"));
        assert!(asks_for_json("application/problem+json, */*;q=0.1"));
        assert!(!asks_for_json("text/html, application/json"));
        assert!(!asks_for_json("*/*"));
        assert!(!prefers_json(None));
    }

    #[test]
    fn proxy_status_is_a_valid_string_whatever_the_detail_says() {
        let error = Error::rejected(StatusCode::NOT_IMPLEMENTED, "a \"quoted\" \\ thing\nand é");
        assert_eq!(
            error.proxy_status(),
            r#"tracecar; error=http_request_denied; details="a \"quoted\" \\ thingand ""#
        );
    }

    #[test]
    fn the_status_of_a_call_does_not_ask_for_a_second_try_that_may_do_things_twice() {
        use std::time::Duration;

        use crate::config::UpstreamProtocol;
        let upstream = Upstream { protocol: UpstreamProtocol::H2c, host: "a".into(), port: 1, address: None };
        let name = |error: SendError, code| {
            let status = Error::upstream(&error, &upstream).of_call(code, false).grpc_status();
            crate::exchange::GRPC_STATUS[usize::from(status)]
        };
        let second = Duration::from_secs(1);
        assert_eq!(name(SendError::Refused, None), "UNAVAILABLE");
        assert_eq!(name(SendError::ConnectTimeout(second), None), "UNAVAILABLE");
        assert_eq!(name(SendError::HeaderTimeout(second), None), "DEADLINE_EXCEEDED");
        assert_eq!(name(SendError::Reset(String::new()), None), "UNAVAILABLE");
        assert_eq!(name(SendError::Reset(String::new()), Some(0xb)), "RESOURCE_EXHAUSTED", "RPC-13");
        assert_eq!(name(SendError::Denied(String::new()), None), "PERMISSION_DENIED");
        let overdue = Error::upstream(&SendError::Reset(String::new()), &upstream).of_call(None, true);
        assert_eq!(overdue.grpc_status(), grpc::DEADLINE_EXCEEDED);
        assert_eq!(name(SendError::Tls(String::new()), None), "UNAVAILABLE");
    }

    #[test]
    fn a_gateway_timeout_is_504_a_denial_403_and_everything_else_502() {
        use crate::config::UpstreamProtocol;
        let upstream =
            Upstream { protocol: UpstreamProtocol::Http1, host: "::1".into(), port: 3000, address: None };
        let refused = Error::upstream(&SendError::Refused, &upstream);
        assert_eq!((refused.status, refused.outcome), (StatusCode::BAD_GATEWAY, Outcome::UpstreamRefused));
        assert_eq!(refused.detail, "no answer from the service at [::1]:3000: connection refused");
        let denied = Error::upstream(&SendError::Denied("link-local".to_owned()), &upstream);
        assert_eq!((denied.status, denied.outcome), (StatusCode::FORBIDDEN, Outcome::Rejected));
        assert!(denied.proxy_status().to_str().unwrap().contains("error=destination_ip_prohibited;"));
        let late = Error::upstream(&SendError::HeaderTimeout(std::time::Duration::from_secs(1)), &upstream);
        assert_eq!((late.status, late.outcome), (StatusCode::GATEWAY_TIMEOUT, Outcome::UpstreamTimeout));
    }
}
