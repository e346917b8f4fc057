//! What a collector's answer means: taken, never, or later (OTLP-20 to OTLP-27).
//!
//! Pure: bytes and headers in, a verdict out. HTTP and gRPC say the same things in different words.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_TYPE, RETRY_AFTER};
use http::{HeaderMap, StatusCode};
use prost::Message;

use crate::exchange::GRPC_STATUS;
use crate::telemetry::words::percent_decoded;

/// How much of a collector's own words goes into a reason, in characters.
const QUOTE: usize = 200;

/// The bytes before each gRPC message: a flag for compression, and the length.
pub(super) const FRAME_HEAD: usize = 5;

/// What one attempt came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Answer {
    /// The collector took the batch, but for `rejected` of its spans. `message` says why, or warns.
    Taken { rejected: u64, message: String },
    /// The collector will not take this batch, however often it is sent.
    Refused(String),
    /// It may take the batch another time: not before `after`, where it said so.
    Later { reason: String, after: Option<Duration> },
}

/// What an answer to OTLP/HTTP means. `now` is what a date in `Retry-After` is compared with.
pub(super) fn of_http(status: StatusCode, headers: &HeaderMap, body: Bytes, now: SystemTime) -> Answer {
    if status.is_success() {
        return taken(body);
    }
    let reason = match said(headers, &body) {
        words if words.is_empty() => format!("HTTP {status}"),
        words => format!("HTTP {status}: {words}"),
    };
    // Neither 500 nor 408 is among them (OTLP-21).
    match status.as_u16() {
        429 | 502 | 503 | 504 => Answer::Later { reason, after: retry_after(headers, now) },
        _ => Answer::Refused(reason),
    }
}

/// What an answer to OTLP/gRPC means.
pub(super) fn of_grpc(
    status: StatusCode,
    headers: &HeaderMap,
    trailers: Option<&HeaderMap>,
    body: Bytes,
) -> Answer {
    // An answer without content has its status among the headers ("Trailers-Only", RPC-12).
    let last = trailers.filter(|trailers| trailers.contains_key("grpc-status")).unwrap_or(headers);
    let text = |name: &str| last.get(name).and_then(|value| value.to_str().ok());
    let Some(code) = text("grpc-status") else {
        let code = code_of_http(status);
        let reason = format!("HTTP {status} without a gRPC status: is this the collector's gRPC port?");
        return match retryable(code, None) {
            true => Answer::Later { reason, after: None },
            false => Answer::Refused(reason),
        };
    };
    if code == "0" {
        return taken(unframed(body).unwrap_or_default());
    }
    // 2 is UNKNOWN, which is what an unknown number means.
    let code: usize = code.parse().unwrap_or(2);
    let name = GRPC_STATUS.get(code).copied().unwrap_or("UNKNOWN");
    let words = quote(&percent_decoded(text("grpc-message").unwrap_or_default()));
    let reason = match words.is_empty() {
        true => format!("gRPC {name}"),
        false => format!("gRPC {name}: {words}"),
    };
    let after = text("grpc-status-details-bin").and_then(retry_info);
    match retryable(code, after) {
        true => Answer::Later { reason, after },
        false => Answer::Refused(reason),
    }
}

/// What comes before a gRPC message of that many bytes.
pub(super) fn frame_head(length: usize, compressed: bool) -> [u8; FRAME_HEAD] {
    // Requests are bounded far below 4 GiB (OTLP-8).
    let [a, b, c, d] = (length as u32).to_be_bytes();
    [compressed.into(), a, b, c, d]
}

/// The first message of a gRPC answer; `None` where it is cut short, or compressed though we did not ask for that.
fn unframed(body: Bytes) -> Option<Bytes> {
    let (head, _) = body.split_at_checked(FRAME_HEAD)?;
    let length = u32::from_be_bytes(head[1..].try_into().ok()?) as usize;
    let end = FRAME_HEAD.checked_add(length).filter(|end| *end <= body.len())?;
    (head[0] == 0).then(|| body.slice(FRAME_HEAD..end))
}

fn taken(body: Bytes) -> Answer {
    // Collectors exist that answer `{}` or a line of text to protobuf. They took the spans all the same.
    let partial = TraceResponse::decode(body).ok().and_then(|answer| answer.partial_success);
    let partial = partial.unwrap_or_default();
    Answer::Taken {
        rejected: u64::try_from(partial.rejected_spans).unwrap_or_default(),
        message: quote(&partial.error_message),
    }
}

/// OTLP-22. An exhausted resource may be a quota of the month; only a collector that says when is asked again.
fn retryable(code: usize, after: Option<Duration>) -> bool {
    match GRPC_STATUS.get(code) {
        Some(
            &"CANCELLED" | &"DEADLINE_EXCEEDED" | &"ABORTED" | &"OUT_OF_RANGE" | &"UNAVAILABLE"
            | &"DATA_LOSS",
        ) => true,
        Some(&"RESOURCE_EXHAUSTED") => after.is_some(),
        _ => false,
    }
}

/// The gRPC code that an HTTP status stands for where something in between answered (RPC-12).
fn code_of_http(status: StatusCode) -> usize {
    match status.as_u16() {
        400 | 431 => 13,
        401 => 16,
        403 => 7,
        404 => 12,
        429 | 502 | 503 | 504 => 14,
        _ => 2,
    }
}

/// `Retry-After` in seconds or as a date (OTLP-23); a date that has passed means at once.
fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let value = headers.get(RETRY_AFTER)?.to_str().ok()?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let date = httpdate::parse_http_date(value).ok()?;
    Some(date.duration_since(now).unwrap_or_default())
}

/// The delay that `google.rpc.RetryInfo` asks for, out of `grpc-status-details-bin`.
fn retry_info(details: &str) -> Option<Duration> {
    let status = RpcStatus::decode(base64_decoded(details)?.as_slice()).ok()?;
    let info = status.details.iter().find(|any| any.type_url.ends_with("/google.rpc.RetryInfo"))?;
    let delay = RetryInfo::decode(info.value.as_slice()).ok()?.retry_delay?;
    let seconds = u64::try_from(delay.seconds).unwrap_or_default();
    let nanos = u32::try_from(delay.nanos).unwrap_or_default();
    Some(Duration::from_secs(seconds).saturating_add(Duration::from_nanos(nanos.into())))
}

/// What the body of an error says to people: a `google.rpc.Status` (OTLP-27) or text.
fn said(headers: &HeaderMap, body: &Bytes) -> String {
    let protobuf = headers.get(CONTENT_TYPE).is_some_and(|kind| kind.as_bytes() == b"application/x-protobuf");
    match RpcStatus::decode(body.clone()) {
        Ok(status) if protobuf => quote(&status.message),
        _ => quote(&String::from_utf8_lossy(body)),
    }
}

/// The first characters of a foreign text, on one line.
pub(in crate::telemetry) fn quote(text: &str) -> String {
    let line = |c: char| if c.is_control() { ' ' } else { c };
    text.trim().chars().map(line).take(QUOTE).collect()
}

/// Base64 with or without padding, as binary gRPC headers have it. The one place that needs it.
fn base64_decoded(text: &str) -> Option<Vec<u8>> {
    let text = text.trim_end_matches('=').as_bytes();
    let mut out = Vec::with_capacity(text.len() * 3 / 4);
    for group in text.chunks(4) {
        let mut bits = 0_u32;
        for &letter in group {
            let value = match letter {
                b'A'..=b'Z' => letter - b'A',
                b'a'..=b'z' => letter - b'a' + 26,
                b'0'..=b'9' => letter - b'0' + 52,
                b'+' => 62,
                b'/' => 63,
                _ => return None,
            };
            bits = bits << 6 | u32::from(value);
        }
        // 4 letters are 3 bytes, 3 are 2, 2 are 1; a single one is nothing.
        let count = group.len() - 1;
        if count == 0 {
            return None;
        }
        let bits = bits << (6 * (4 - group.len()));
        out.extend_from_slice(&bits.to_be_bytes()[1..=count]);
    }
    Some(out)
}

/// `ExportTraceServiceResponse`. Two messages are all that is needed of opentelemetry-proto, which has the SDK below it.
#[derive(Clone, PartialEq, Message)]
struct TraceResponse {
    #[prost(message, optional, tag = "1")]
    partial_success: Option<PartialSuccess>,
}

/// `ExportTracePartialSuccess`.
#[derive(Clone, PartialEq, Message)]
struct PartialSuccess {
    #[prost(int64, tag = "1")]
    rejected_spans: i64,
    #[prost(string, tag = "2")]
    error_message: String,
}

/// `google.rpc.Status`.
#[derive(Clone, PartialEq, Message)]
struct RpcStatus {
    #[prost(string, tag = "2")]
    message: String,
    #[prost(message, repeated, tag = "3")]
    details: Vec<Any>,
}

/// `google.protobuf.Any`.
#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// `google.rpc.RetryInfo`.
#[derive(Clone, PartialEq, Message)]
struct RetryInfo {
    #[prost(message, optional, tag = "1")]
    retry_delay: Option<Delay>,
}

/// `google.protobuf.Duration`.
#[derive(Clone, PartialEq, Message)]
struct Delay {
    #[prost(int64, tag = "1")]
    seconds: i64,
    #[prost(int32, tag = "2")]
    nanos: i32,
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn headers(list: &[(&'static str, &str)]) -> HeaderMap {
        list.iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_str(value).unwrap()))
            .collect()
    }

    fn http(status: u16, list: &[(&'static str, &str)], body: &'static str) -> Answer {
        let status = StatusCode::from_u16(status).unwrap();
        of_http(status, &headers(list), Bytes::from_static(body.as_bytes()), SystemTime::UNIX_EPOCH)
    }

    fn grpc(list: &[(&'static str, &str)]) -> Answer {
        of_grpc(StatusCode::OK, &HeaderMap::new(), Some(&headers(list)), Bytes::new())
    }

    #[test]
    fn only_four_http_statuses_are_tried_again() {
        let again = |status| matches!(http(status, &[], ""), Answer::Later { .. });
        let list: Vec<u16> = (300..600).filter(|status| again(*status)).collect();
        assert_eq!(list, [429, 502, 503, 504]);
    }

    #[test]
    fn only_the_listed_grpc_codes_are_tried_again() {
        let again = |code: &u16| matches!(grpc(&[("grpc-status", &code.to_string())]), Answer::Later { .. });
        let list: Vec<u16> = (1..20).filter(again).collect();
        assert_eq!(list, [1, 4, 10, 11, 14, 15]);
    }

    #[test]
    fn retry_after_is_read_in_seconds_and_as_a_date() {
        let after = |value| match http(503, &[("retry-after", value)], "") {
            Answer::Later { after, .. } => after,
            other => panic!("{other:?}"),
        };
        assert_eq!(after("7"), Some(Duration::from_secs(7)));
        assert_eq!(after("Thu, 01 Jan 1970 00:01:30 GMT"), Some(Duration::from_secs(90)));
        assert_eq!(after("soon"), None);
        let mut passed = headers(&[]);
        passed.insert(RETRY_AFTER, HeaderValue::from_static("Thu, 01 Jan 1970 00:00:00 GMT"));
        assert_eq!(retry_after(&passed, SystemTime::now()), Some(Duration::ZERO));
    }

    #[test]
    fn an_error_quotes_the_collector_on_one_short_line() {
        let Answer::Refused(reason) = http(401, &[], "no\ntoken\u{1b}[0m") else { panic!("401 is final") };
        assert_eq!(reason, "HTTP 401 Unauthorized: no token [0m");
        let status = RpcStatus { message: "quota".into(), details: Vec::new() }.encode_to_vec();
        let kind = headers(&[("content-type", "application/x-protobuf")]);
        assert_eq!(said(&kind, &status.into()), "quota");
        assert_eq!(quote(&"x".repeat(1000)).len(), QUOTE);
    }

    #[test]
    fn a_success_in_other_words_than_protobuf_is_a_success() {
        let taken = Answer::Taken { rejected: 0, message: String::new() };
        assert_eq!(http(200, &[], "{\"partialSuccess\":{}}"), taken);
        assert_eq!(http(202, &[], "accepted"), taken);
        assert_eq!(grpc(&[("grpc-status", "0")]), taken);
    }

    #[test]
    fn a_negative_number_of_rejected_spans_is_none() {
        let mut answer =
            opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceResponse::default();
        answer.partial_success.get_or_insert_default().rejected_spans = -3;
        assert!(matches!(taken(answer.encode_to_vec().into()), Answer::Taken { rejected: 0, .. }));
    }

    #[test]
    fn a_grpc_status_is_found_in_headers_and_trailers_and_its_message_decoded() {
        let status = headers(&[("grpc-status", "16"), ("grpc-message", "bad%20token%2")]);
        let expected = Answer::Refused("gRPC UNAUTHENTICATED: bad token%2".into());
        assert_eq!(of_grpc(StatusCode::OK, &status, None, Bytes::new()), expected);
        assert_eq!(of_grpc(StatusCode::OK, &HeaderMap::new(), Some(&status), Bytes::new()), expected);
        let others = headers(&[("x-added-by", "a proxy")]);
        assert_eq!(of_grpc(StatusCode::OK, &status, Some(&others), Bytes::new()), expected);
    }

    #[test]
    fn without_a_grpc_status_the_http_status_decides() {
        let answer = |status| of_grpc(status, &HeaderMap::new(), None, Bytes::new());
        assert!(matches!(answer(StatusCode::SERVICE_UNAVAILABLE), Answer::Later { .. }));
        assert!(matches!(answer(StatusCode::NOT_FOUND), Answer::Refused(_)));
        assert!(matches!(answer(StatusCode::OK), Answer::Refused(_)));
    }

    #[test]
    fn frames_come_apart_as_they_were_put_together() {
        let framed = |compressed| Bytes::from([&frame_head(5, compressed)[..], b"spans"].concat());
        assert_eq!(unframed(framed(false)).as_deref(), Some(&b"spans"[..]));
        assert_eq!(unframed(framed(true)), None);
        for cut in 0..10 {
            assert_eq!(unframed(framed(false).slice(..cut)), None, "cut at {cut}");
        }
    }

    #[test]
    fn base64_is_read_with_and_without_padding() {
        for (text, bytes) in
            [("", &b""[..]), ("Zg", b"f"), ("Zg==", b"f"), ("Zm8=", b"fo"), ("Zm9v+/8", b"foo\xfb\xff")]
        {
            assert_eq!(base64_decoded(text).as_deref(), Some(bytes), "{text}");
        }
        assert_eq!(base64_decoded("Zm9vY"), None);
        assert_eq!(base64_decoded("Zm 9"), None);
    }
}
