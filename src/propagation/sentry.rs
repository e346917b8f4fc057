//! Sentry's `sentry-trace: {trace}-{span}[-{0|1}]`.
//!
//! What Sentry has in `baggage` is frozen once a trace has begun: it passes as it is, and we never add to it (SEN-41).

use http::{HeaderMap, HeaderName, HeaderValue};

use super::hex::{read_span_id, read_trace_id, write_hex};
use super::incoming::Found;
use super::{Context, Format, Incoming, set, trim};

static SENTRY_TRACE: HeaderName = HeaderName::from_static("sentry-trace");

const BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// Bytes of the two ids and the dash between them.
const IDS_BYTES: usize = 32 + 1 + 16;

/// Reads `sentry-trace`, the first one where there are several; but not that of another organization than `ours`.
pub(super) fn extract(headers: &HeaderMap, ours: Option<&str>, incoming: &mut Incoming) {
    let Some(value) = headers.get(&SENTRY_TRACE) else { return };
    if is_foreign(headers, ours) {
        return;
    }
    match parse(trim(value.as_bytes())) {
        Some(found) => incoming.believe(Format::SentryTrace, found),
        None => incoming.malformed.sentry_trace = true,
    }
}

/// Whether the trace is that of another organization than `ours` (SEN-44).
fn is_foreign(headers: &HeaderMap, ours: Option<&str>) -> bool {
    ours.is_some_and(|ours| organization(headers).is_some_and(|theirs| theirs != ours.as_bytes()))
}

/// The organization that the baggage names, if it does (SEN-44).
fn organization(headers: &HeaderMap) -> Option<&[u8]> {
    let members =
        headers.get_all(BAGGAGE).into_iter().flat_map(|line| line.as_bytes().split(|byte| *byte == b','));
    members.into_iter().find_map(|member| {
        let value = trim(member).strip_prefix(b"sentry-org_id=")?;
        value.split(|byte| *byte == b';').next().map(trim)
    })
}

/// What a baggage says of a trace that is not continued is not true of the one that begins.
fn strip_members(headers: &mut HeaderMap) {
    let lines: Vec<HeaderValue> = headers.get_all(BAGGAGE).into_iter().cloned().collect();
    headers.remove(BAGGAGE);
    for line in lines {
        let other = |member: &&[u8]| !trim(member).starts_with(b"sentry-");
        let kept: Vec<&[u8]> = line.as_bytes().split(|byte| *byte == b',').filter(other).collect();
        let kept = kept.join(&b","[..]);
        if let Some(value) = HeaderValue::from_bytes(trim(&kept)).ok().filter(|value| !value.is_empty()) {
            headers.append(BAGGAGE, value);
        }
    }
}

/// Leaves exactly one `sentry-trace`.
pub(super) fn inject(headers: &mut HeaderMap, ours: Option<&str>, context: &Context) {
    if is_foreign(headers, ours) {
        strip_members(headers);
    }
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
    fn a_trace_of_another_organization_is_not_continued() {
        let trace = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1";
        let ours =
            || crate::propagation::Propagation::both(vec![Format::SentryTrace]).within(Some("42".into()));
        let continues = |baggage: &str| {
            ours().extract(&headers(&[("sentry-trace", trace), ("baggage", baggage)])).parent.is_some()
        };
        assert!(continues("a=1, sentry-org_id=42;p=1"));
        assert!(continues("sentry-release=1"), "who names none may be of ours");
        assert!(!continues("a=1 , sentry-org_id=43"));
        let mut sent = headers(&[
            ("sentry-trace", trace),
            ("baggage", "a=1, sentry-org_id=43,sentry-x=2"),
            ("baggage", "sentry-y=3"),
        ]);
        ours().inject(&mut sent, &context());
        let baggage: Vec<_> = sent.get_all("baggage").iter().collect();
        assert_eq!(baggage, ["a=1"], "what they said of their trace is not said of ours");
        let of_nobody =
            extract(Format::SentryTrace, &[("sentry-trace", trace), ("baggage", "sentry-org_id=43")]);
        assert!(of_nobody.parent.is_some(), "without a DSN nobody is another");
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
