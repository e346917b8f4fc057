//! W3C Trace Context, level 2: `traceparent` and `tracestate`.
//!
//! `traceparent` is read strictly and written anew. `tracestate` belongs to others: it is checked, its lines are
//! joined, and it is sent on whole or not at all. We write no entry of our own, so nothing is ever moved, counted
//! out or cut (CTX-26 to CTX-28 leave nothing to do).

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanId, TraceId};

use super::hex::{read_hex, write_hex};
use super::incoming::Found;
use super::{Context, Format, Incoming, set, trim};

static TRACEPARENT: HeaderName = HeaderName::from_static("traceparent");
static TRACESTATE: HeaderName = HeaderName::from_static("tracestate");

/// Bytes of a `traceparent` of version 00, and of what is known of any later one.
const TRACEPARENT_BYTES: usize = 55;
/// Flags we know; others are not passed on (CTX-9).
const KNOWN_FLAGS: u8 = Context::SAMPLED | Context::RANDOM;
/// List members of a `tracestate`, over all its lines (CTX-21).
const MAX_MEMBERS: usize = 32;
/// Bytes of a key, and of a value, of `tracestate` (CTX-22, CTX-23).
const MAX_PART_BYTES: usize = 256;

/// Reads `traceparent`, and `tracestate` only if that succeeds (CTX-8).
pub(super) fn extract(headers: &HeaderMap, incoming: &mut Incoming) {
    let mut lines = headers.get_all(&TRACEPARENT).iter();
    let Some(line) = lines.next() else { return };
    // Two lines: we cannot know which is meant, so neither is used, even where they are the same (CTX-7).
    let parent = if lines.next().is_some() { None } else { parse_traceparent(line.as_bytes()) };
    let Some(mut parent) = parent else {
        incoming.malformed.traceparent = true;
        return;
    };
    match tracestate(headers) {
        Ok(tracestate) => parent.tracestate = tracestate,
        Err(Unreadable) => incoming.malformed.tracestate = true,
    }
    let sampled = Some(parent.sampled());
    incoming.believe(Format::TraceContext, Found::Parent(parent, sampled));
}

/// Leaves exactly one `traceparent`, and one `tracestate` if the context has one that is not empty (CTX-21).
pub(super) fn inject(headers: &mut HeaderMap, context: &Context) {
    set(headers, &TRACEPARENT, render_traceparent(context));
    match &context.tracestate {
        Some(tracestate) if !tracestate.is_empty() => set(headers, &TRACESTATE, tracestate.clone()),
        // Also what stood beside an unreadable `traceparent`: it describes a trace that ends here (CTX-8).
        _ => drop(headers.remove(&TRACESTATE)),
    }
}

/// The value of a `traceparent` line for `context`, always of version 00 (CTX-5).
pub fn render_traceparent(context: &Context) -> HeaderValue {
    HeaderValue::from_bytes(&traceparent_bytes(context)).expect("hex digits and dashes are legal in a header")
}

/// The 55 ASCII bytes of [`render_traceparent`], for those who build a header around them (CTX-40).
pub fn traceparent_bytes(context: &Context) -> [u8; TRACEPARENT_BYTES] {
    let mut text = *b"00-00000000000000000000000000000000-0000000000000000-00";
    write_hex(&context.trace_id.to_bytes(), &mut text[3..35]);
    write_hex(&context.span_id.to_bytes(), &mut text[36..52]);
    let flags = context.flags & KNOWN_FLAGS | u8::from(context.sampled());
    write_hex(&[flags], &mut text[53..55]);
    text
}

/// Reads one `traceparent` value, with or without white space around it. The context has no `tracestate`.
///
/// `None` for anything but `version-traceid-parentid-flags` in lowercase hex with ids that are not zero (CTX-2,
/// CTX-3). Version 00 must end there (CTX-4); a later one may go on after a dash, and `ff` is none (CTX-5).
pub fn parse_traceparent(value: &[u8]) -> Option<Context> {
    let (known, rest) = trim(value).split_first_chunk::<TRACEPARENT_BYTES>()?;
    let [version] = read_hex(&known[0..2])?;
    let ends_well = match version {
        0x00 => rest.is_empty(),
        0xff => false,
        _ => rest.is_empty() || rest[0] == b'-',
    };
    if !ends_well || known[2] != b'-' || known[35] != b'-' || known[52] != b'-' {
        return None;
    }
    let trace_id = TraceId::from_bytes(read_hex(&known[3..35])?);
    let span_id = SpanId::from_bytes(read_hex(&known[36..52])?);
    let [flags] = read_hex(&known[53..55])?;
    if trace_id == TraceId::INVALID || span_id == SpanId::INVALID {
        return None;
    }
    Some(Context { trace_id, span_id, flags: flags & KNOWN_FLAGS, tracestate: None, debug: false })
}

/// A `tracestate` that breaks a rule somewhere: the whole of it is dropped (CTX-24).
struct Unreadable;

/// All `tracestate` lines as the one value to send on; `None` where there is no member in them.
fn tracestate(headers: &HeaderMap) -> Result<Option<HeaderValue>, Unreadable> {
    let mut lines = headers.get_all(&TRACESTATE).iter();
    let Some(first) = lines.next() else { return Ok(None) };
    let mut members = check_members(first.as_bytes(), 0)?;
    let Some(second) = lines.next() else {
        let tidy = trim(first.as_bytes());
        return match members {
            0 => Ok(None),
            // The ordinary case shares the request's bytes.
            _ if tidy.len() == first.len() => Ok(Some(first.clone())),
            _ => join(&[tidy]).map(Some),
        };
    };
    let mut filled = Vec::with_capacity(4);
    if members > 0 {
        filled.push(trim(first.as_bytes()));
    }
    for line in std::iter::once(second).chain(lines) {
        let before = members;
        members = check_members(line.as_bytes(), before)?;
        if members > before {
            filled.push(trim(line.as_bytes()));
        }
    }
    if filled.is_empty() { Ok(None) } else { join(&filled).map(Some) }
}

/// Lines as one (RFC 9110 section 5.3). They come from header values, so the result is one too.
fn join(lines: &[&[u8]]) -> Result<HeaderValue, Unreadable> {
    HeaderValue::from_maybe_shared(bytes::Bytes::from(lines.join(&b','))).map_err(|_| Unreadable)
}

/// Checks one line of list members and returns their number together with the `before` of earlier lines.
/// Empty members are allowed and not counted; duplicate keys are allowed (CTX-21, CTX-25).
fn check_members(line: &[u8], before: usize) -> Result<usize, Unreadable> {
    let mut members = before;
    for member in line.split(|byte| *byte == b',').map(trim).filter(|member| !member.is_empty()) {
        members += 1;
        if members > MAX_MEMBERS || !is_member(member) {
            return Err(Unreadable);
        }
    }
    Ok(members)
}

/// `key=value`, without white space around it. Spaces after the `=` belong to the value (CTX-23).
fn is_member(member: &[u8]) -> bool {
    let Some(equals) = member.iter().position(|byte| *byte == b'=') else { return false };
    let (key, value) = (&member[..equals], &member[equals + 1..]);
    is_key(key) && is_value(value)
}

/// The grammar of level 2, which knows no tenants: `a@`, `a@@b` are keys, `@a` is none (CTX-22).
fn is_key(key: &[u8]) -> bool {
    let Some(first) = key.first() else { return false };
    key.len() <= MAX_PART_BYTES
        && matches!(first, b'a'..=b'z' | b'0'..=b'9')
        && key.iter().all(|byte| matches!(byte, b'a'..=b'z' | b'0'..=b'9' | b'_' | b'-' | b'*' | b'/' | b'@'))
}

/// That it does not end with a space is seen to by trimming the member.
fn is_value(value: &[u8]) -> bool {
    (1..=MAX_PART_BYTES).contains(&value.len())
        && value.iter().all(|byte| matches!(byte, 0x20..=0x7e) && *byte != b'=')
}

#[cfg(test)]
mod tests {
    use super::super::Propagation;
    use super::super::tests::headers;
    use super::*;

    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    const SPAN: &str = "b7ad6b7169203331";
    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn extract(lines: &[(&'static str, &str)]) -> Incoming {
        Propagation::both(vec![Format::TraceContext]).extract(&headers(lines))
    }

    fn inject(headers: &mut HeaderMap, context: &Context) {
        Propagation::both(vec![Format::TraceContext]).inject(headers, context);
    }

    fn context(flags: u8, tracestate: Option<&'static str>) -> Context {
        Context {
            trace_id: TraceId::from_hex(TRACE).unwrap(),
            span_id: SpanId::from_hex(SPAN).unwrap(),
            flags,
            tracestate: tracestate.map(HeaderValue::from_static),
            debug: false,
        }
    }

    /// What is sent on of these `tracestate` lines.
    fn sent_on(lines: &[&str]) -> Option<String> {
        let mut all = vec![("traceparent", GOOD)];
        all.extend(lines.iter().map(|line| ("tracestate", *line)));
        let incoming = extract(&all);
        assert!(!incoming.malformed.tracestate, "{lines:?} is readable");
        let tracestate = incoming.parent.expect("the traceparent is good").tracestate?;
        Some(tracestate.to_str().unwrap().to_owned())
    }

    #[test]
    fn ids_and_flags_are_read() {
        assert_eq!(extract(&[("traceparent", GOOD)]).parent, Some(context(1, None)));
    }

    #[test]
    fn unknown_flags_are_neither_read_nor_sent() {
        let parsed = parse_traceparent(b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-fd").unwrap();
        assert_eq!(parsed.flags, 0x01);
        assert!(traceparent_bytes(&context(0xfe, None)).ends_with(b"-02"));
    }

    #[test]
    fn the_random_flag_stays_as_it_came() {
        for flags in 0..=3 {
            let text = traceparent_bytes(&context(flags, None));
            assert_eq!(parse_traceparent(&text).unwrap().flags, flags);
        }
    }

    #[test]
    fn a_later_version_is_sent_on_as_version_00() {
        let parsed = parse_traceparent(format!("cc-{TRACE}-{SPAN}-ff-what-comes-later").as_bytes()).unwrap();
        assert_eq!(render_traceparent(&parsed), format!("00-{TRACE}-{SPAN}-03"));
    }

    #[test]
    fn two_traceparents_are_none_even_if_equal() {
        let incoming = extract(&[("traceparent", GOOD), ("traceparent", GOOD), ("tracestate", "foo=1")]);
        assert_eq!(incoming.parent, None);
        assert!(incoming.malformed.traceparent);
    }

    #[test]
    fn similar_names_are_other_headers() {
        let incoming = extract(&[("trace-parent", GOOD), ("trace.parent", GOOD), ("trace-state", "foo=1")]);
        assert_eq!(incoming, Incoming::default());
    }

    #[test]
    fn a_tracestate_is_not_read_without_a_good_traceparent() {
        assert_eq!(extract(&[("tracestate", "FOO")]), Incoming::default());
        let incoming = extract(&[("traceparent", "00"), ("tracestate", "FOO")]);
        assert!(incoming.malformed.traceparent && !incoming.malformed.tracestate);
    }

    #[test]
    fn an_unreadable_tracestate_leaves_the_parent_alone() {
        let incoming = extract(&[("traceparent", GOOD), ("tracestate", "foo=,bar=3")]);
        assert_eq!(incoming.parent, Some(context(1, None)));
        assert!(incoming.malformed.tracestate);
    }

    #[test]
    fn lines_are_joined_in_order_and_empty_ones_left_out() {
        let joined = sent_on(&["foo=1,bar=2", "", " \t", "rojo=1 , congo=2\t", "baz=3"]);
        assert_eq!(joined.as_deref(), Some("foo=1,bar=2,rojo=1 , congo=2,baz=3"));
        assert_eq!(sent_on(&["", "foo=1"]).as_deref(), Some("foo=1"));
        assert_eq!(sent_on(&["", " "]), None);
        assert_eq!(sent_on(&[" , "]), None);
    }

    #[test]
    fn one_line_is_sent_on_as_it_is() {
        for line in ["foo=1", "foo=  1;2", "foo=1,foo=1,foo=2", "a=1\t ,\t,b=2"] {
            assert_eq!(sent_on(&[line]).as_deref(), Some(line));
        }
        assert_eq!(sent_on(&["\t foo=1 \t"]).as_deref(), Some("foo=1"));
    }

    #[test]
    fn the_thirty_third_member_is_one_too_many_over_all_lines() {
        let members = |range: std::ops::Range<u32>| {
            range.map(|number| format!("k{number}={number}")).collect::<Vec<_>>().join(",")
        };
        assert!(sent_on(&[&members(0..20), &members(20..32)]).is_some());
        for lines in [vec![members(0..33)], vec![members(0..20), members(20..33)]] {
            let mut all = vec![("traceparent", GOOD)];
            all.extend(lines.iter().map(|line| ("tracestate", line.as_str())));
            assert!(extract(&all).malformed.tracestate);
        }
    }

    #[test]
    fn an_app_set_traceparent_is_replaced_in_its_place() {
        let mut headers = headers(&[
            ("host", "a"),
            ("traceparent", "stale"),
            ("accept", "b"),
            ("traceparent", "staler"),
            ("tracestate", "old=1"),
            ("tracestate", "old=2"),
        ]);
        inject(&mut headers, &context(1, Some("foo=1")));
        let names: Vec<_> = headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["host", "traceparent", "accept", "tracestate"]);
        assert_eq!(headers["traceparent"], GOOD);
        assert_eq!(headers["tracestate"], "foo=1");
    }

    #[test]
    fn the_tracestate_of_another_trace_is_not_sent_on() {
        for tracestate in [None, Some("")] {
            let mut headers = headers(&[("tracestate", "old=1"), ("tracestate", "old=2")]);
            inject(&mut headers, &context(1, tracestate));
            assert!(!headers.contains_key("tracestate"));
        }
    }

    #[test]
    fn a_full_map_goes_without_rather_than_with_a_stale_traceparent() {
        let mut headers = headers(&[("traceparent", "stale")]);
        let filler = (0..).map(|number| HeaderName::try_from(format!("x-{number}")).unwrap());
        for name in filler {
            if headers.try_append(name, HeaderValue::from_static("")).is_err() {
                break;
            }
        }
        inject(&mut headers, &context(1, Some("foo=1")));
        assert!(headers.get_all("traceparent").iter().all(|value| value == GOOD));
    }
}
