//! Zipkin's B3, in its two encodings: the one header `b3`, and the several headers `x-b3-…`.
//!
//! Whichever of the two is in use, both are read, and `b3` wins (B3-1). The one in use is written; the other one only
//! where the request has it already: left as it is, it would name the caller's span as the parent of what comes next,
//! and removed, a service that reads nothing else would lose its trace.
//!
//! The caller's parent is never sent on (B3-5): it is not the parent of our span.

use http::{HeaderMap, HeaderName, HeaderValue};

use super::hex::{read_span_id, read_trace_id, write_hex};
use super::incoming::Found;
use super::{Context, Format, Incoming, set, trim};

static SINGLE: HeaderName = HeaderName::from_static("b3");
static TRACE_ID: HeaderName = HeaderName::from_static("x-b3-traceid");
static SPAN_ID: HeaderName = HeaderName::from_static("x-b3-spanid");
static PARENT_SPAN_ID: HeaderName = HeaderName::from_static("x-b3-parentspanid");
static SAMPLED: HeaderName = HeaderName::from_static("x-b3-sampled");
static FLAGS: HeaderName = HeaderName::from_static("x-b3-flags");

/// Bytes of `b3` as we write it: both ids, the state, and two dashes.
const SINGLE_BYTES: usize = 32 + 1 + 16 + 1 + 1;

/// Headers that are there but cannot be read.
struct Unreadable;

/// What a caller says about sampling; nothing, where it leaves that to us (B3-3).
#[derive(Clone, Copy, Default)]
struct State {
    sampled: Option<bool>,
    debug: bool,
}

/// Reads `b3`, and if that brings nothing the other encoding. `format` is the one in use.
pub(super) fn extract(headers: &HeaderMap, format: Format, incoming: &mut Incoming) {
    // The first value counts where there are several (B3-6).
    if let Some(value) = headers.get(&SINGLE) {
        match single(trim(value.as_bytes())) {
            Ok(found) => return incoming.believe(format, found),
            Err(Unreadable) => incoming.malformed.b3 = true,
        }
    }
    match multi(headers) {
        Ok(Some(found)) => incoming.believe(format, found),
        Ok(None) => {}
        Err(Unreadable) => incoming.malformed.b3multi = true,
    }
}

/// Writes `format`, and brings the other encoding up to date where it is there.
pub(super) fn inject(headers: &mut HeaderMap, format: Format, context: &Context) {
    if format == Format::B3 || headers.contains_key(&SINGLE) {
        inject_single(headers, context);
    }
    let any = [&TRACE_ID, &SPAN_ID, &PARENT_SPAN_ID, &SAMPLED, &FLAGS];
    if format == Format::B3Multi || any.into_iter().any(|name| headers.contains_key(name)) {
        inject_multi(headers, context);
    }
}

/// `{trace}-{span}`, `{trace}-{span}-{state}`, `{trace}-{span}-{state}-{parent}`, or `{state}` alone (B3-2).
fn single(value: &[u8]) -> Result<Found, Unreadable> {
    let mut parts = value.splitn(5, |byte| *byte == b'-');
    let first = parts.next().unwrap_or_default();
    let Some(span) = parts.next() else {
        let state = state(first)?;
        let sampled = state.sampled.ok_or(Unreadable)?;
        return Ok(Found::Decision { sampled, debug: state.debug });
    };
    let state = parts.next().map_or(Ok(State::default()), state)?;
    if let Some(parent) = parts.next() {
        read_span_id(parent).ok_or(Unreadable)?;
    }
    if parts.next().is_some() {
        return Err(Unreadable);
    }
    parent(first, span, state)
}

/// The state of `b3`: `1`, `0`, or `d` for debug.
fn state(text: &[u8]) -> Result<State, Unreadable> {
    match text {
        b"1" => Ok(State { sampled: Some(true), debug: false }),
        b"0" => Ok(State { sampled: Some(false), debug: false }),
        b"d" => Ok(State { sampled: Some(true), debug: true }),
        _ => Err(Unreadable),
    }
}

/// The headers `x-b3-…`: both ids or neither, and a state or none. A parent is checked and not used (B3-8).
fn multi(headers: &HeaderMap) -> Result<Option<Found>, Unreadable> {
    let value = |name: &HeaderName| headers.get(name).map(|value| trim(value.as_bytes()));
    let mut state = State::default();
    if let Some(sampled) = value(&SAMPLED) {
        // The words are what old senders wrote; nobody should any more (B3-2).
        state.sampled = match sampled {
            b"1" => Some(true),
            b"0" => Some(false),
            word if word.eq_ignore_ascii_case(b"true") => Some(true),
            word if word.eq_ignore_ascii_case(b"false") => Some(false),
            _ => return Err(Unreadable),
        };
    }
    // A set of flags of which the others were never defined.
    if value(&FLAGS) == Some(b"1") {
        state = State { sampled: Some(true), debug: true };
    }
    if let Some(parent) = value(&PARENT_SPAN_ID) {
        read_span_id(parent).ok_or(Unreadable)?;
    }
    match (value(&TRACE_ID), value(&SPAN_ID), state.sampled) {
        (Some(trace), Some(span), _) => parent(trace, span, state).map(Some),
        (None, None, Some(sampled)) => Ok(Some(Found::Decision { sampled, debug: state.debug })),
        (None, None, None) => Ok(None),
        _ => Err(Unreadable),
    }
}

fn parent(trace: &[u8], span: &[u8], state: State) -> Result<Found, Unreadable> {
    let trace_id = read_trace_id(trace).ok_or(Unreadable)?;
    let span_id = read_span_id(span).ok_or(Unreadable)?;
    let context = Context { trace_id, span_id, flags: 0, tracestate: None, debug: state.debug };
    Ok(Found::Parent(context, state.sampled))
}

fn inject_single(headers: &mut HeaderMap, context: &Context) {
    let mut text = [b'-'; SINGLE_BYTES];
    write_hex(&context.trace_id.to_bytes(), &mut text[..32]);
    write_hex(&context.span_id.to_bytes(), &mut text[33..49]);
    text[50] = match (context.debug, context.sampled()) {
        (true, _) => b'd',
        (false, true) => b'1',
        (false, false) => b'0',
    };
    set(
        headers,
        &SINGLE,
        HeaderValue::from_bytes(&text).expect("hex digits and dashes are legal in a header"),
    );
}

fn inject_multi(headers: &mut HeaderMap, context: &Context) {
    set(headers, &TRACE_ID, hex(context.trace_id.to_bytes()));
    set(headers, &SPAN_ID, hex(context.span_id.to_bytes()));
    headers.remove(&PARENT_SPAN_ID);
    // Never both: debug says sampled (B3-4).
    if context.debug {
        headers.remove(&SAMPLED);
        set(headers, &FLAGS, HeaderValue::from_static("1"));
    } else {
        headers.remove(&FLAGS);
        set(headers, &SAMPLED, HeaderValue::from_static(if context.sampled() { "1" } else { "0" }));
    }
}

fn hex<const N: usize>(id: [u8; N]) -> HeaderValue {
    let mut text = [0; 32];
    write_hex(&id, &mut text[..2 * N]);
    HeaderValue::from_bytes(&text[..2 * N]).expect("hex digits are legal in a header")
}

#[cfg(test)]
mod tests {
    use super::super::tests::{context, extract, headers, inject};
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";
    const IDS: &str = "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";

    #[test]
    fn a_missing_state_leaves_the_decision_to_us_and_deny_does_not() {
        for (more, sampled) in [("", None), ("-0", Some(false)), ("-1", Some(true)), ("-d", Some(true))] {
            let incoming = extract(Format::B3, &[("b3", &format!("{IDS}{more}"))]);
            let parent = incoming.parent.expect(more);
            assert_eq!(incoming.sampled, sampled, "{more:?}");
            assert_eq!(parent.sampled(), sampled == Some(true), "{more:?}");
            assert_eq!((parent.debug, incoming.debug), (more == "-d", more == "-d"), "{more:?}");
        }
    }

    #[test]
    fn a_decision_without_ids_is_a_decision() {
        for format in [Format::B3, Format::B3Multi] {
            for (lines, sampled, debug) in [
                ([("b3", "0")], false, false),
                ([("b3", "1")], true, false),
                ([("b3", "d")], true, true),
                ([("x-b3-sampled", "0")], false, false),
                ([("x-b3-sampled", "True")], true, false),
                ([("x-b3-flags", "1")], true, true),
            ] {
                let incoming = extract(format, &lines);
                assert_eq!((incoming.sampled, incoming.debug), (Some(sampled), debug), "{lines:?}");
                assert_eq!((incoming.parent, incoming.format), (None, Some(format)), "{lines:?}");
            }
        }
    }

    #[test]
    fn the_single_header_wins_unless_it_cannot_be_read() {
        let multi = [("x-b3-traceid", "00000000000000ff"), ("x-b3-spanid", SPAN), ("x-b3-sampled", "0")];
        let with = |value| [&[("b3", value)], &multi[..]].concat();
        assert_eq!(extract(Format::B3Multi, &with(IDS)).sampled, None);
        let incoming = extract(Format::B3, &with("nonsense"));
        assert_eq!(incoming.parent.unwrap().trace_id.to_string(), format!("{:032x}", 255));
        assert!(incoming.malformed.b3 && !incoming.malformed.b3multi);
    }

    #[test]
    fn an_unreadable_part_spoils_the_context() {
        for odd in [
            ("x-b3-parentspanid", "-"),
            ("x-b3-sampled", ""),
            ("x-b3-spanid", "0000000000000000"),
            ("x-b3-traceid", "1"),
        ] {
            let mut headers = headers(&[("x-b3-traceid", TRACE), ("x-b3-spanid", SPAN)]);
            headers.insert(odd.0, HeaderValue::from_static(odd.1));
            let incoming = super::super::Propagation::both(vec![Format::B3Multi]).extract(&headers);
            assert!(incoming.parent.is_none() && incoming.malformed.b3multi, "{odd:?}");
        }
    }

    #[test]
    fn debug_is_written_and_sampled_is_not() {
        let mut headers = headers(&[("x-b3-sampled", "1"), ("x-b3-parentspanid", SPAN)]);
        inject(Format::B3Multi, &mut headers, &Context { debug: true, ..context() });
        assert_eq!(headers["x-b3-flags"], "1");
        assert!(!headers.contains_key("x-b3-sampled") && !headers.contains_key("x-b3-parentspanid"));
        inject(Format::B3Multi, &mut headers, &context());
        assert_eq!(headers["x-b3-sampled"], "1");
        assert!(!headers.contains_key("x-b3-flags") && !headers.contains_key("b3"));
    }

    #[test]
    fn the_other_encoding_is_brought_up_to_date_where_it_is_there() {
        let mut both = headers(&[("b3", "0"), ("x-b3-traceid", TRACE)]);
        for format in [Format::B3, Format::B3Multi] {
            inject(format, &mut both, &context());
            assert_eq!(both["b3"], "01010101010101010101010101010101-0202020202020202-1");
            assert_eq!(both["x-b3-spanid"], "0202020202020202");
        }
        let mut none = HeaderMap::new();
        inject(Format::B3, &mut none, &context());
        assert_eq!(none.len(), 1, "and only there");
    }
}
