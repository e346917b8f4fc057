//! Sentry's `sentry-trace: {trace}-{span}[-{0|1}]`.
//!
//! What Sentry has in `baggage` is frozen once a trace has begun: it passes as it is, and we never add to it (SEN-41).

use http::{HeaderMap, HeaderName, HeaderValue};

use super::hex::{read_span_id, read_trace_id, write_hex};
use super::incoming::Found;
use super::{Context, Format, Incoming, set, trim};

static SENTRY_TRACE: HeaderName = HeaderName::from_static("sentry-trace");

/// Bytes of the two ids and the dash between them.
const IDS_BYTES: usize = 32 + 1 + 16;

/// Reads `sentry-trace`, the first one where there are several.
pub(super) fn extract(headers: &HeaderMap, incoming: &mut Incoming) {
    let Some(value) = headers.get(&SENTRY_TRACE) else { return };
    match parse(trim(value.as_bytes())) {
        Some(found) => incoming.believe(Format::SentryTrace, found),
        None => incoming.malformed.sentry_trace = true,
    }
}

/// Leaves exactly one `sentry-trace`.
pub(super) fn inject(headers: &mut HeaderMap, context: &Context) {
    let mut text = [b'-'; IDS_BYTES + 2];
    write_hex(&context.trace_id.to_bytes(), &mut text[..32]);
    write_hex(&context.span_id.to_bytes(), &mut text[33..IDS_BYTES]);
    text[IDS_BYTES + 1] = b'0' + u8::from(context.sampled());
    set(
        headers,
        &SENTRY_TRACE,
        HeaderValue::from_bytes(&text).expect("hex digits and dashes are legal in a header"),
    );
}

/// Without a third part the decision is ours. There is never a decision alone (SEN-40).
fn parse(value: &[u8]) -> Option<Found> {
    let (ids, decision) = value.split_first_chunk::<IDS_BYTES>()?;
    let sampled = match decision {
        b"" => None,
        b"-0" => Some(false),
        b"-1" => Some(true),
        _ => return None,
    };
    if ids[32] != b'-' {
        return None;
    }
    let (trace_id, span_id) = (read_trace_id(&ids[..32])?, read_span_id(&ids[33..])?);
    Some(Found::Parent(Context { trace_id, span_id, flags: 0, tracestate: None, debug: false }, sampled))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{context, extract, headers, inject};
    use super::*;

    #[test]
    fn a_missing_third_part_leaves_the_decision_to_us() {
        for (more, sampled) in [("", None), ("-0", Some(false)), ("-1", Some(true))] {
            let value = format!("0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331{more}");
            let incoming = extract(Format::SentryTrace, &[("sentry-trace", &value)]);
            assert_eq!(incoming.sampled, sampled, "{more:?}");
            assert_eq!(incoming.parent.unwrap().sampled(), sampled == Some(true), "{more:?}");
        }
    }

    #[test]
    fn one_header_is_written_and_the_baggage_stays() {
        let lines = [("sentry-trace", "a"), ("sentry-trace", "b"), ("baggage", "sentry-trace_id=1")];
        let mut headers = headers(&lines);
        inject(Format::SentryTrace, &mut headers, &context());
        let lines: Vec<_> = headers.get_all("sentry-trace").iter().collect();
        assert_eq!(lines, ["01010101010101010101010101010101-0202020202020202-1"]);
        assert_eq!(headers["baggage"], "sentry-trace_id=1");
    }
}
