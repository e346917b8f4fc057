//! What events and transactions say in the same words.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use sentry::protocol::{Context, Map, Request, ResponseContext, SpanStatus, TraceContext, Url, Value};
use sentry::protocol::{SpanId, TraceId};

use crate::exchange::{
    Evidence, Fault, GRPC_STATUS, HeaderCopy, Identity, Outcome, Record, RequestFacts, Side,
};
use crate::telemetry::failures::scrub;

/// Longest value of a tag, in characters (SEN-4).
const TAG: usize = 200;

/// Longest path, query or URL, in characters: all of a context may have 8 kB (SEN-4).
const TEXT: usize = 1024;

/// Most bytes of headers in one place: all of a context may have 8 kB (SEN-4).
const HEADERS: usize = 6000;

/// Who made an event or transaction; its kind of span name is by Sentry's conventions for origins (SEN-22).
pub(super) const ORIGIN: &str = "auto.http.tracecar";

/// A moment as it may be sent: in whole microseconds, which is what Sentry reads and what all its ways of writing a time hold
/// exactly, so that no end comes before its beginning; and not before 1970, which cannot be written.
pub(super) fn moment(at: SystemTime) -> SystemTime {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::new(since.as_secs(), since.subsec_micros() * 1000)
}

/// When an exchange was over.
pub(super) fn ended_at(record: &Record) -> SystemTime {
    // A clock at the end of all time stays where it is.
    moment(record.started_at.checked_add(record.timings.total).unwrap_or(record.started_at))
}

/// The text, or as much of it as may be sent, on one line.
pub(super) fn cut(text: &str, characters: usize) -> String {
    let line = |c: char| if c.is_control() { ' ' } else { c };
    text.chars().map(line).take(characters).collect()
}

/// Adds a tag, cleaned and cut, unless it says nothing.
pub(super) fn tag(tags: &mut Map<String, String>, name: &str, value: &str) {
    if !value.is_empty() {
        tags.insert(name.to_owned(), cut(&scrub::text(value), TAG));
    }
}

/// What can be searched for.
pub(super) fn tags(record: &Record, service: &str) -> Map<String, String> {
    let mut tags = Map::new();
    let mut put = |name, value: &str| tag(&mut tags, name, value);
    put("service", service);
    put("side", record.side.as_str());
    put("outcome", record.outcome.as_str());
    put("fault", record.fault().map_or("", Fault::as_str));
    put("status", &record.status.map(|status| status.to_string()).unwrap_or_default());
    put("grpc_status", record.grpc_status.map_or("", grpc_word));
    put("correlation", &scrub::id(record.text(record.correlation)));
    if let Some(request) = &record.request {
        put("method", &method(request));
        put("route", request.route.as_deref().unwrap_or_default());
    }
    if record.side == Side::Outbound {
        put("destination", destination(record));
    }
    tags
}

/// What people call the place that was called, else its name in the URL.
pub(super) fn destination(record: &Record) -> &str {
    let authority = || record.request.as_ref().map_or("", |request| record.text(request.authority));
    record.destination.as_deref().unwrap_or_else(authority)
}

pub(super) fn grpc_word(status: u8) -> &'static str {
    GRPC_STATUS.get(usize::from(status)).copied().unwrap_or("UNKNOWN")
}

/// The ids are those of the span, so that Sentry finds what else it has of the trace (SEN-22).
pub(super) fn trace(identity: &Identity, op: &str) -> TraceContext {
    TraceContext {
        trace_id: TraceId::from(identity.trace_id.to_bytes()),
        span_id: SpanId::from(identity.span_id.to_bytes()),
        parent_span_id: identity.parent.map(|parent| SpanId::from(parent.to_bytes())),
        op: Some(op.to_owned()),
        origin: Some(ORIGIN.to_owned()),
        ..TraceContext::default()
    }
}

/// Where an exchange stands in its trace, and how it went.
pub(super) fn trace_of(record: &Record) -> TraceContext {
    TraceContext {
        status: Some(status(record)),
        data: data(record),
        ..trace(&record.identity, op(record.side))
    }
}

pub(super) fn op(side: Side) -> &'static str {
    match side {
        Side::Inbound => "http.server",
        Side::Outbound => "http.client",
    }
}

/// How an exchange went, as Sentry has it for spans (SEN-31).
pub(super) fn status(record: &Record) -> SpanStatus {
    if let Some(grpc) = record.grpc_status {
        return match grpc_word(grpc) {
            "INTERNAL" => SpanStatus::InternalError,
            // The others are called as gRPC calls them.
            word => word.to_ascii_lowercase().parse().unwrap_or(SpanStatus::UnknownError),
        };
    }
    match (record.outcome, record.status) {
        (
            Outcome::ClientGoneBeforeResponse | Outcome::ClientGoneDuringResponse | Outcome::ClientNotReading,
            _,
        ) => SpanStatus::Cancelled,
        // It broke after its head had promised well.
        (_, Some(..400)) if record.error_of_outcome().is_some() => SpanStatus::InternalError,
        (_, Some(status)) => of_http(status),
        (Outcome::Complete | Outcome::TunnelIdle, None) => SpanStatus::Ok,
        (
            Outcome::UpstreamTimeout
            | Outcome::UpstreamConnectTimeout
            | Outcome::RequestTimeout
            | Outcome::ClientNotSending
            | Outcome::StreamTimeout,
            None,
        ) => SpanStatus::DeadlineExceeded,
        (Outcome::Overloaded, None) => SpanStatus::Unavailable,
        (_, None) => SpanStatus::InternalError,
    }
}

fn of_http(status: u16) -> SpanStatus {
    match status {
        ..400 => SpanStatus::Ok,
        401 => SpanStatus::Unauthenticated,
        403 => SpanStatus::PermissionDenied,
        404 => SpanStatus::NotFound,
        409 => SpanStatus::AlreadyExists,
        429 => SpanStatus::ResourceExhausted,
        499 => SpanStatus::Cancelled,
        400..=499 => SpanStatus::InvalidArgument,
        501 => SpanStatus::Unimplemented,
        503 => SpanStatus::Unavailable,
        504 => SpanStatus::DeadlineExceeded,
        _ => SpanStatus::InternalError,
    }
}

/// What is known of an exchange, under the names that OpenTelemetry and Sentry have for it.
pub(super) fn data(record: &Record) -> Map<String, Value> {
    let mut data = Map::new();
    let mut put = |name: &str, value: Value| drop(data.insert(name.to_owned(), value));
    if let Some(request) = &record.request {
        put("http.request.method", method(request).into());
        put("url.path", cut(&scrub::path(record.text(request.path)), TEXT).into());
        put("server.address", cut(&scrub::text(record.text(request.authority)), TEXT).into());
        if let Some(query) = request.query {
            put("http.query", cut(&scrub::query(record.text(query)), TEXT).into());
        }
        if let Some(route) = &request.route {
            put("http.route", (**route).into());
        }
        if record.side == Side::Outbound {
            put("url", url(record, request).into());
        }
    }
    if let Some(status) = record.status {
        put("http.response.status_code", status.into());
    }
    put("http.request.body.size", record.request_bytes.into());
    put("http.response.body.size", record.response_bytes.into());
    put("tracecar.outcome", record.outcome.as_str().into());
    data
}

/// The method as sent; that is up to strangers, so only as much of it as methods have.
pub(super) fn method(request: &RequestFacts) -> String {
    cut(request.method.as_str(), 32)
}

/// The URL without query and credentials.
pub(super) fn url(record: &Record, request: &RequestFacts) -> String {
    let place = format!("{}://{}", request.scheme, record.text(request.authority));
    cut(&format!("{}{}", scrub::text(&place), scrub::path(record.text(request.path))), TEXT)
}

/// The request of an inbound exchange. Whose it was stays with us (SEN-50): no address of the caller.
pub(super) fn request(record: &Record, evidence: Option<&Evidence>) -> Option<Request> {
    let request = record.request.as_ref().filter(|_| record.side == Side::Inbound)?;
    let mut headers = evidence.map_or_else(Map::new, |kept| shown(&kept.request_headers));
    // Sentry shows cookies apart from the other headers.
    let cookies = headers.remove("cookie");
    Some(Request {
        url: Url::parse(&url(record, request)).ok(),
        method: Some(method(request)),
        query_string: request.query.map(|query| cut(&scrub::query(record.text(query)), TEXT)),
        cookies,
        headers,
        ..Request::default()
    })
}

/// The response, where there was one. Of its content nothing is sent (SEN-50).
pub(super) fn response(record: &Record, evidence: Option<&Evidence>) -> Option<Context> {
    let status = record.status?;
    let headers = evidence.map_or_else(Map::new, |kept| shown(&kept.response_headers));
    let response = ResponseContext {
        headers,
        status_code: Some(status.into()),
        body_size: Some(record.response_bytes),
        ..ResponseContext::default()
    };
    Some(response.into())
}

/// Headers, cleaned; several of one name as one, and no more than there is room for.
pub(super) fn shown(headers: &HeaderCopy) -> Map<String, String> {
    let mut shown = Map::<String, String>::new();
    let mut room = HEADERS;
    for (name, value) in headers.iter() {
        let value = scrub::header(name, value);
        let Some(left) = room.checked_sub(name.len() + value.len()) else { continue };
        room = left;
        shown
            .entry(name.to_owned())
            .and_modify(|known| {
                known.push_str(", ");
                known.push_str(&value);
            })
            .or_insert(value);
    }
    shown
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{sample, sample_call};

    #[test]
    fn a_status_is_sentrys_word_for_it() {
        let of = |status| {
            let mut record = sample();
            record.status = Some(status);
            super::status(&record).to_string()
        };
        let list = [
            (101, "ok"),
            (204, "ok"),
            (304, "ok"),
            (400, "invalid_argument"),
            (401, "unauthenticated"),
            (403, "permission_denied"),
            (404, "not_found"),
            (409, "already_exists"),
            (418, "invalid_argument"),
            (429, "resource_exhausted"),
            (499, "cancelled"),
            (500, "internal_error"),
            (501, "unimplemented"),
            (502, "internal_error"),
            (503, "unavailable"),
            (504, "deadline_exceeded"),
            (599, "internal_error"),
            (999, "internal_error"),
        ];
        for (status, word) in list {
            assert_eq!(of(status), word, "{status}");
        }
    }

    #[test]
    fn without_a_status_the_outcome_decides_and_grpc_has_the_last_word() {
        let of = |outcome, status, grpc| {
            let mut record = sample_call();
            (record.outcome, record.status, record.grpc_status) = (outcome, status, grpc);
            super::status(&record).to_string()
        };
        assert_eq!(of(Outcome::UpstreamRefused, None, None), "internal_error");
        assert_eq!(of(Outcome::UpstreamTimeout, None, None), "deadline_exceeded");
        assert_eq!(of(Outcome::ClientGoneBeforeResponse, None, None), "cancelled");
        assert_eq!(of(Outcome::UpstreamBroken, Some(200), None), "internal_error");
        for (grpc, word) in GRPC_STATUS.iter().enumerate() {
            let expected = match *word {
                "INTERNAL" => "internal_error".to_owned(),
                "UNKNOWN" => "unknown_error".to_owned(),
                word => word.to_ascii_lowercase(),
            };
            let said = of(Outcome::Complete, Some(200), Some(grpc as u8));
            assert!(said == expected || (*word == "UNKNOWN" && said == "unknown"), "{word}: {said}");
        }
        assert_ne!(of(Outcome::Complete, Some(200), Some(200)), "ok");
    }

    #[test]
    fn a_moment_is_whole_microseconds_and_never_before_1970() {
        assert_eq!(moment(UNIX_EPOCH + Duration::from_nanos(1999)), UNIX_EPOCH + Duration::from_micros(1));
        assert_eq!(moment(UNIX_EPOCH - Duration::from_secs(1)), UNIX_EPOCH);
    }

    #[test]
    fn headers_are_cleaned_and_bounded() {
        let mut map = http::HeaderMap::new();
        map.insert("authorization", http::HeaderValue::from_static("Bearer hush"));
        map.append("accept", http::HeaderValue::from_static("a/b"));
        map.append("accept", http::HeaderValue::from_static("c/d"));
        map.insert("user-agent", "y".repeat(HEADERS).parse().unwrap());
        let shown = shown(&HeaderCopy::of(&map, 100_000));
        assert_eq!(shown["authorization"], "[Filtered]");
        assert_eq!(shown["accept"], "a/b, c/d");
        assert_eq!(shown.get("user-agent"), None);
    }
}
