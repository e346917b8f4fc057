//! Jaeger's `uber-trace-id: {trace}:{span}:{parent}:{flags}`.
//!
//! Its baggage, `uberctx-…`, is neither read nor written: it passes as it is (JAE-2).

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanId, TraceId};

use super::hex::{read_number, write_hex};
use super::incoming::Found;
use super::{Context, Format, Incoming, set, trim};

static UBER_TRACE_ID: HeaderName = HeaderName::from_static("uber-trace-id");

const SAMPLED: u128 = 0x01;
const DEBUG: u128 = 0x02;

/// Reads `uber-trace-id`, the first one where there are several.
pub(super) fn extract(headers: &HeaderMap, incoming: &mut Incoming) {
    let Some(value) = headers.get(&UBER_TRACE_ID) else { return };
    match parse(trim(value.as_bytes())) {
        Some(found) => incoming.believe(Format::Jaeger, found),
        None => incoming.malformed.jaeger = true,
    }
}

/// Leaves exactly one `uber-trace-id`, with ids in full length and the parent, which nobody should read, as `0`
/// (JAE-1).
pub(super) fn inject(headers: &mut HeaderMap, context: &Context) {
    let mut text = *b"00000000000000000000000000000000:0000000000000000:0:00";
    write_hex(&context.trace_id.to_bytes(), &mut text[..32]);
    write_hex(&context.span_id.to_bytes(), &mut text[33..49]);
    text[53] = match (context.debug, context.sampled()) {
        // Debug stands only beside sampled (JAE-1).
        (true, _) => b'3',
        (false, true) => b'1',
        (false, false) => b'0',
    };
    set(
        headers,
        &UBER_TRACE_ID,
        HeaderValue::from_bytes(&text).expect("hex digits and colons are legal in a header"),
    );
}

/// Ids may lack their leading zeros, and have digits of either case. The parent is deprecated and may be anything, as
/// OpenTelemetry has it.
fn parse(value: &[u8]) -> Option<Found> {
    let (trace, rest) = split_at_colon(value)?;
    let (span, rest) = split_at_colon(rest)?;
    let (_parent, flags) = split_at_colon(rest)?;
    let trace_id = TraceId::from(read_number(trace, 32)?);
    let span_id = SpanId::from(u64::try_from(read_number(span, 16)?).ok()?);
    let flags = read_number(flags, 2)?;
    if trace_id == TraceId::INVALID || span_id == SpanId::INVALID {
        return None;
    }
    let sampled = flags & SAMPLED != 0;
    let debug = sampled && flags & DEBUG != 0;
    Some(Found::Parent(Context { trace_id, span_id, flags: 0, tracestate: None, debug }, Some(sampled)))
}

/// What stands before and after the first colon, which some clients send as `%3A` (JAE-1).
fn split_at_colon(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = text.iter().position(|byte| matches!(byte, b':' | b'%'))?;
    let (before, after) = text.split_at(at);
    let after = match after {
        [b':', after @ ..] | [b'%', b'3', b'A' | b'a', after @ ..] => after,
        _ => return None,
    };
    Some((before, after))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{context, extract, headers, inject};
    use super::*;

    fn read(value: &str) -> Incoming {
        extract(Format::Jaeger, &[("uber-trace-id", value)])
    }

    #[test]
    fn short_ids_and_encoded_colons_are_read() {
        for value in ["ff:A:0:1", "ff%3AA%3a0%3A01", "00ff:00A:not read:1"] {
            let incoming = read(value);
            let parent = incoming.parent.expect(value);
            assert_eq!((parent.trace_id, parent.span_id), (TraceId::from(255_u128), SpanId::from(10_u64)));
            assert_eq!((parent.flags, incoming.sampled), (Context::SAMPLED, Some(true)));
        }
    }

    #[test]
    fn debug_needs_sampled() {
        for (flags, sampled, debug) in
            [("0", false, false), ("2", false, false), ("3", true, true), ("b", true, true)]
        {
            let incoming = read(&format!("ff:a:0:{flags}"));
            assert_eq!((incoming.sampled, incoming.debug), (Some(sampled), debug), "{flags}");
        }
    }

    #[test]
    fn one_header_is_written_and_the_baggage_stays() {
        let mut headers = headers(&[("uber-trace-id", "a"), ("uber-trace-id", "b"), ("uberctx-a", "%zz")]);
        inject(Format::Jaeger, &mut headers, &Context { debug: true, ..context() });
        let lines: Vec<_> = headers.get_all("uber-trace-id").iter().collect();
        assert_eq!(lines, ["01010101010101010101010101010101:0202020202020202:0:03"]);
        assert_eq!(headers["uberctx-a"], "%zz");
    }
}
