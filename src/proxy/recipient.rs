//! Requests that name us as their last recipient: `TRACE` and `OPTIONS` with `Max-Forwards: 0` (HOP-9).

use http::header::{
    AUTHORIZATION, CONTENT_LENGTH, CONTENT_TYPE, COOKIE, HeaderName, MAX_FORWARDS, PROXY_AUTHORIZATION,
};
use http::{HeaderValue, Method, Request, Response};

use super::body::ResponseBody;
use super::error::PROXY_STATUS;
use crate::wire::Laid;
use crate::wire::h1::write;

/// What is not shown to whoever sees the answer to a `TRACE` (HOP-10).
const SENSITIVE: [HeaderName; 3] = [AUTHORIZATION, COOKIE, PROXY_AUTHORIZATION];

/// Counts one hop, and says whether the request ends here. The field is left alone with other methods, and where it is no
/// number.
pub(super) fn ends_here<B>(request: &mut Request<B>) -> bool {
    if !matches!(*request.method(), Method::TRACE | Method::OPTIONS) {
        return false;
    }
    let Some(value) = request.headers().get(MAX_FORWARDS) else { return false };
    let digits = value.to_str().ok().filter(|text| text.bytes().all(|byte| byte.is_ascii_digit()));
    match digits.and_then(|text| text.parse::<u64>().ok()) {
        Some(0) => true,
        Some(left) => {
            request.headers_mut().insert(MAX_FORWARDS, (left - 1).into());
            false
        }
        None => false,
    }
}

/// The answer to such a request: what was received to `TRACE` (RFC 9110 section 9.3.8), nothing to `OPTIONS`.
pub(super) fn answer<B: Laid>(request: &Request<B>) -> Response<ResponseBody> {
    let mut text = Vec::new();
    let trace = *request.method() == Method::TRACE;
    if trace {
        let mut headers = request.headers().clone();
        SENSITIVE.iter().for_each(|name| drop(headers.remove(name)));
        write::request_line(&mut text, request.method(), request.uri(), request.body().layout());
        write::fields(&mut text, &headers, request.body().layout());
        text.extend_from_slice(b"\r\n");
    }
    let length = text.len();
    let mut response = Response::new(ResponseBody::Own((length > 0).then(|| text.into())));
    let headers = response.headers_mut();
    if trace {
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("message/http"));
    }
    headers.insert(CONTENT_LENGTH, length.into());
    headers.insert(PROXY_STATUS, HeaderValue::from_static("tracecar"));
    response
}
