//! Datadog: `x-datadog-trace-id`, `-parent-id`, `-sampling-priority`, and one of the `-tags`.
//!
//! Ids are decimal numbers of 64 bits. The high half of a longer trace id travels in the tag `_dd.p.tid`, in hex (DD-1).
//! The other tags and the origin belong to Datadog's tracers and stay as they are.

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanId, TraceId};

use super::hex::{read_hex, write_hex};
use super::incoming::Found;
use super::{Context, Format, Incoming, set, trim};

static TRACE_ID: HeaderName = HeaderName::from_static("x-datadog-trace-id");
static PARENT_ID: HeaderName = HeaderName::from_static("x-datadog-parent-id");
static PRIORITY: HeaderName = HeaderName::from_static("x-datadog-sampling-priority");
static TAGS: HeaderName = HeaderName::from_static("x-datadog-tags");

const HIGH_HALF: &[u8] = b"_dd.p.tid";
/// Bytes of tags beyond which Datadog's tracers read none of them.
const MAX_TAGS_BYTES: usize = 512;

/// Reads the ids, and what is good of the rest: an unreadable priority leaves the decision to us, an unreadable tag the
/// high half at zero, as Datadog's tracers have it.
pub(super) fn extract(headers: &HeaderMap, incoming: &mut Incoming) {
    let value = |name: &HeaderName| headers.get(name).map(|value| trim(value.as_bytes()));
    let Some(trace) = value(&TRACE_ID) else { return };
    // A trace begun outside a span has no parent: Datadog says so with a zero, or with nothing.
    let parent = value(&PARENT_ID).map_or(Some(0), read_decimal);
    let (Some(low @ 1..), Some(parent)) = (read_decimal(trace), parent) else {
        incoming.malformed.datadog = true;
        return;
    };
    let high = headers.get(&TAGS).map_or(Ok(0), |tags| read_high_half(tags.as_bytes()));
    let sampled = value(&PRIORITY).map(read_priority);
    incoming.malformed.datadog |= high.is_err() || sampled.is_some_and(|sampled| sampled.is_none());
    let trace_id = TraceId::from(u128::from(high.unwrap_or_default()) << 64 | u128::from(low));
    let sampled = sampled.flatten();
    let found = match parent {
        0 => Found::Trace(trace_id, sampled),
        parent => {
            let span_id = SpanId::from(parent);
            Found::Parent(Context { trace_id, span_id, flags: 0, tracestate: None, debug: false }, sampled)
        }
    };
    incoming.believe(Format::Datadog, found);
}

/// Writes the ids and the decision. A priority that says the same decision is left: 2 and -1 say that a user made it.
pub(super) fn inject(headers: &mut HeaderMap, context: &Context) {
    let trace_id = u128::from_be_bytes(context.trace_id.to_bytes());
    let high = (trace_id >> 64) as u64;
    set(headers, &TRACE_ID, HeaderValue::from(trace_id as u64));
    set(headers, &PARENT_ID, HeaderValue::from(u64::from_be_bytes(context.span_id.to_bytes())));
    let mut before = headers.get_all(&PRIORITY).iter();
    let says = before.next().and_then(|value| read_priority(trim(value.as_bytes())));
    if says != Some(context.sampled()) || before.next().is_some() {
        let priority = if context.sampled() { "1" } else { "0" };
        set(headers, &PRIORITY, HeaderValue::from_static(priority));
    }
    inject_high_half(headers, high);
}

/// Puts the tag in its place among the others or before them, and takes it out where the high half is zero.
fn inject_high_half(headers: &mut HeaderMap, high: u64) {
    let mut lines = headers.get_all(&TAGS).iter();
    let first = lines.next();
    let alone = lines.next().is_none();
    let says = first.map_or(Ok(0), |line| read_high_half(line.as_bytes()));
    // The ordinary case within a trace: what is there is right.
    if alone && says == Ok(high) {
        return;
    }
    let mut mine = *b"_dd.p.tid=0000000000000000";
    write_hex(&high.to_be_bytes(), &mut mine[10..]);
    let mine = (high != 0).then_some(&mine[..]);

    let mut text = Vec::with_capacity(MAX_TAGS_BYTES);
    let lines = headers.get_all(&TAGS).iter();
    let tags = lines.flat_map(|line| line.as_bytes().split(|byte| *byte == b',')).map(trim);
    let others = tags.filter(|tag| !tag.is_empty() && key_of(tag) != HIGH_HALF);
    for tag in mine.into_iter().chain(others) {
        if !text.is_empty() {
            text.push(b',');
        }
        text.extend_from_slice(tag);
    }
    if let Some(mine) = mine.filter(|_| text.len() > MAX_TAGS_BYTES) {
        // Nobody would read any of it, and this one is half of the trace id.
        text.truncate(mine.len());
    }
    match HeaderValue::from_maybe_shared(bytes::Bytes::from(text)) {
        Ok(value) if !value.is_empty() => set(headers, &TAGS, value),
        _ => drop(headers.remove(&TAGS)),
    }
}

/// The high half in the tags, zero where they have none; the last one where they have several.
fn read_high_half(tags: &[u8]) -> Result<u64, Unreadable> {
    if tags.len() > MAX_TAGS_BYTES {
        return Err(Unreadable);
    }
    let mut tags = tags.split(|byte| *byte == b',').map(trim);
    let Some(tag) = tags.rfind(|tag| key_of(tag) == HIGH_HALF) else { return Ok(0) };
    let digits = trim(tag.get(HIGH_HALF.len() + 1..).unwrap_or_default());
    let digits = digits.try_into().ok().and_then(|digits: [u8; 16]| read_hex(&digits));
    digits.map(u64::from_be_bytes).filter(|high| *high != 0).ok_or(Unreadable)
}

/// A tag that is there but cannot be read.
#[derive(Debug, PartialEq, Eq)]
struct Unreadable;

fn key_of(tag: &[u8]) -> &[u8] {
    tag.split(|byte| *byte == b'=').next().unwrap_or_default()
}

/// A number of 64 bits in decimal digits alone.
fn read_decimal(text: &[u8]) -> Option<u64> {
    if text.is_empty() || !text.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(text).ok()?.parse().ok()
}

/// The decision that a priority stands for: to drop at 0 and below, to keep above (DD-1).
fn read_priority(text: &[u8]) -> Option<bool> {
    let priority: i32 = std::str::from_utf8(text).ok()?.parse().ok()?;
    Some(priority > 0)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{context, extract, headers, inject};
    use super::*;

    const IDS: [(&str, &str); 2] = [("x-datadog-trace-id", "255"), ("x-datadog-parent-id", "10")];

    fn read(more: &[(&'static str, &str)]) -> Incoming {
        extract(Format::Datadog, &[&IDS, more].concat())
    }

    fn tags_after(lines: &[&str], high: u64) -> Option<String> {
        let lines: Vec<_> = lines.iter().map(|line| ("x-datadog-tags", *line)).collect();
        let mut headers = headers(&lines);
        let trace_id = TraceId::from(u128::from(high) << 64 | 7);
        inject(Format::Datadog, &mut headers, &Context { trace_id, ..context() });
        assert!(headers.get_all("x-datadog-tags").iter().count() <= 1);
        headers.get("x-datadog-tags").map(|tags| tags.to_str().unwrap().to_owned())
    }

    #[test]
    fn the_high_half_comes_from_the_tags() {
        let incoming = read(&[("x-datadog-tags", "_dd.p.dm=-0,_dd.p.tid=00000000000000ab")]);
        assert_eq!(incoming.parent.unwrap().trace_id, TraceId::from(0xab_u128 << 64 | 255));
        let incoming = read(&[("x-datadog-tags", "_dd.p.tid=AB")]);
        assert_eq!(incoming.parent.unwrap().trace_id, TraceId::from(255_u128));
        assert!(incoming.malformed.datadog);
    }

    #[test]
    fn priorities_above_zero_keep() {
        for (priority, sampled) in
            [("2", Some(true)), ("1", Some(true)), ("0", Some(false)), ("-1", Some(false)), ("x", None)]
        {
            let incoming = read(&[("x-datadog-sampling-priority", priority)]);
            assert_eq!(incoming.sampled, sampled, "{priority}");
            assert_eq!(incoming.malformed.datadog, sampled.is_none(), "{priority}");
            assert_eq!(incoming.parent.unwrap().sampled(), sampled == Some(true), "{priority}");
        }
        assert_eq!(read(&[]).sampled, None);
    }

    #[test]
    fn a_trace_id_alone_is_a_trace_without_a_parent() {
        for lines in [&IDS[..1], &[IDS[0], ("x-datadog-parent-id", "0")]] {
            let incoming = extract(Format::Datadog, lines);
            assert_eq!((incoming.trace_id, incoming.parent), (Some(TraceId::from(255_u128)), None));
        }
    }

    #[test]
    fn a_priority_that_says_the_same_is_left() {
        for (before, sampled, after) in
            [("2", true, "2"), ("-1", false, "-1"), ("2", false, "0"), ("-1", true, "1"), ("x", true, "1")]
        {
            let mut headers =
                headers(&[("x-datadog-sampling-priority", before), ("x-datadog-origin", "rum")]);
            inject(Format::Datadog, &mut headers, &Context { flags: u8::from(sampled), ..context() });
            assert_eq!(headers["x-datadog-sampling-priority"], after);
            assert_eq!(headers["x-datadog-origin"], "rum");
            assert_eq!(headers["x-datadog-parent-id"], "144680345676153346");
        }
    }

    #[test]
    fn only_the_tag_of_the_high_half_is_changed() {
        let ab = "_dd.p.tid=00000000000000ab";
        assert_eq!(tags_after(&[], 0), None);
        assert_eq!(tags_after(&[], 0xab).as_deref(), Some(ab));
        assert_eq!(tags_after(&["_dd.p.dm=-0"], 0).as_deref(), Some("_dd.p.dm=-0"));
        let kept = format!("_dd.p.dm=-0,{ab}");
        assert_eq!(tags_after(&[&kept], 0xab), Some(kept), "left in its place");
        let stale = "_dd.p.dm=-0,_dd.p.tid=00000000000000cd,_dd.p.ts=02";
        assert_eq!(tags_after(&[stale], 0xab), Some(format!("{ab},_dd.p.dm=-0,_dd.p.ts=02")));
        assert_eq!(tags_after(&[stale], 0).as_deref(), Some("_dd.p.dm=-0,_dd.p.ts=02"));
        assert_eq!(tags_after(&[ab], 0), None);
        assert_eq!(tags_after(&["a=1", "b=2"], 0xab), Some(format!("{ab},a=1,b=2")));
    }

    #[test]
    fn tags_that_nobody_would_read_give_way() {
        let long = format!("_dd.p.x={}", "x".repeat(500));
        assert_eq!(tags_after(&[&long], 0xab).as_deref(), Some("_dd.p.tid=00000000000000ab"));
        assert_eq!(tags_after(&[&long], 0), Some(long));
    }
}
