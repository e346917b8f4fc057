//! AWS X-Ray: `x-amzn-trace-id: Root=1-…;Parent=…;Sampled=1`.
//!
//! The header carries more than a context: load balancers add `Self`, Lambda adds `Lineage`, and users what they like.
//! Those fields are kept in their order; only `Root`, `Parent` and `Sampled` are ours to write (XR-1).

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanId, TraceId};

use super::hex::{read_number, write_hex};
use super::incoming::Found;
use super::{Context, Format, Incoming, set, trim};

static TRACE_HEADER: HeaderName = HeaderName::from_static("x-amzn-trace-id");

/// Reads the header. Two of them are none: we cannot know which is meant.
pub(super) fn extract(headers: &HeaderMap, incoming: &mut Incoming) {
    let mut lines = headers.get_all(&TRACE_HEADER).iter();
    let Some(line) = lines.next() else { return };
    let found = if lines.next().is_some() { Err(Unreadable) } else { parse(line.as_bytes()) };
    match found {
        Ok(Some(found)) => incoming.believe(Format::XRay, found),
        Ok(None) => {}
        Err(Unreadable) => incoming.malformed.xray = true,
    }
}

/// Leaves exactly one header: the fields of all that were there, with ours in their places or at the end.
pub(super) fn inject(headers: &mut HeaderMap, context: &Context) {
    let mut root = *b"Root=1-00000000-000000000000000000000000";
    let trace_id = context.trace_id.to_bytes();
    write_hex(&trace_id[..4], &mut root[7..15]);
    write_hex(&trace_id[4..], &mut root[16..]);
    let mut parent = *b"Parent=0000000000000000";
    write_hex(&context.span_id.to_bytes(), &mut parent[7..]);
    let sampled: &[u8] = if context.sampled() { b"Sampled=1" } else { b"Sampled=0" };
    let mut ours = [(&b"Root"[..], Some(&root[..])), (b"Parent", Some(&parent)), (b"Sampled", Some(sampled))];

    let mut text = Vec::with_capacity(root.len() + parent.len() + sampled.len() + 2);
    let mut add = |field: &[u8]| {
        if !text.is_empty() {
            text.push(b';');
        }
        text.extend_from_slice(field);
    };
    for line in headers.get_all(&TRACE_HEADER) {
        // What is no field would make some receivers give up on the whole header.
        for (field, key, _) in fields(line.as_bytes()) {
            match ours.iter_mut().find(|(name, _)| *name == key) {
                // Only where it stands first; once written it is gone.
                Some((_, mine)) => mine.take().into_iter().for_each(&mut add),
                None => add(field),
            }
        }
    }
    ours.into_iter().filter_map(|(_, mine)| mine).for_each(add);
    match HeaderValue::from_maybe_shared(bytes::Bytes::from(text)) {
        Ok(value) => set(headers, &TRACE_HEADER, value),
        // Cannot be: it is made of hex digits and parts of a header value.
        Err(_) => drop(headers.remove(&TRACE_HEADER)),
    }
}

/// A header with a field of ours that cannot be read.
struct Unreadable;

/// The last of several fields of one name counts, as in AWS's own code. Without `Root` there may be a decision; fields
/// that are not ours are nothing to us.
fn parse(value: &[u8]) -> Result<Option<Found>, Unreadable> {
    let (mut root, mut parent, mut sampled) = (None, None, None);
    let mut any = false;
    for (_, key, value) in fields(value) {
        any = true;
        match key {
            b"Root" => root = Some(read_root(value).ok_or(Unreadable)?),
            b"Parent" => parent = Some(read_parent(value).ok_or(Unreadable)?),
            b"Sampled" => {
                sampled = match value {
                    b"1" => Some(true),
                    b"0" => Some(false),
                    // The caller asks us to decide.
                    b"?" => None,
                    _ => return Err(Unreadable),
                }
            }
            _ => {}
        }
    }
    match (root, parent) {
        (Some(trace_id), Some(span_id)) => {
            let context = Context { trace_id, span_id, flags: 0, tracestate: None, debug: false };
            Ok(Some(Found::Parent(context, sampled)))
        }
        // A load balancer begins traces like this, and is in none of them itself.
        (Some(trace_id), None) => Ok(Some(Found::Trace(trace_id, sampled))),
        (None, None) if any => Ok(sampled.map(|sampled| Found::Decision { sampled, debug: false })),
        _ => Err(Unreadable),
    }
}

/// The fields of a header: each as a whole, its key, and its value, all without white space around them.
fn fields(header: &[u8]) -> impl Iterator<Item = (&[u8], &[u8], &[u8])> {
    header.split(|byte| *byte == b';').map(trim).filter_map(|field| {
        let equals = field.iter().position(|byte| *byte == b'=')?;
        let key = trim(&field[..equals]);
        (!key.is_empty()).then(|| (field, key, trim(&field[equals + 1..])))
    })
}

/// `1-{8 digits}-{24 digits}`, not all zero. The first eight are seconds where AWS made them, which does not concern us
/// (XR-2).
fn read_root(text: &[u8]) -> Option<TraceId> {
    let [b'1', b'-', digits @ ..] = text else { return None };
    if digits.len() != 33 || digits[8] != b'-' {
        return None;
    }
    let number = read_number(&digits[..8], 8)? << 96 | read_number(&digits[9..], 24)?;
    (number != 0).then(|| TraceId::from(number))
}

fn read_parent(text: &[u8]) -> Option<SpanId> {
    if text.len() != 16 {
        return None;
    }
    let number = u64::try_from(read_number(text, 16)?).ok()?;
    (number != 0).then(|| SpanId::from(number))
}

#[cfg(test)]
mod tests {
    use super::super::tests::{context, extract, headers, inject};
    use super::*;

    const ROOT: &str = "Root=1-0af76519-16cd43dd8448eb211c80319c";
    const OURS: &str = "Root=1-01010101-010101010101010101010101";

    fn read(value: &str) -> Incoming {
        extract(Format::XRay, &[("x-amzn-trace-id", value)])
    }

    fn written(lines: &[&str]) -> String {
        let lines: Vec<_> = lines.iter().map(|line| ("x-amzn-trace-id", *line)).collect();
        let mut headers = headers(&lines);
        inject(Format::XRay, &mut headers, &context());
        assert_eq!(headers.get_all("x-amzn-trace-id").iter().count(), 1);
        headers["x-amzn-trace-id"].to_str().unwrap().to_owned()
    }

    #[test]
    fn the_decision_may_be_left_to_us() {
        for (more, sampled) in
            [("", None), (";Sampled=?", None), ("; Sampled=0", Some(false)), (";Sampled=1", Some(true))]
        {
            let incoming = read(&format!("Parent=b7ad6b7169203331;{ROOT}{more}"));
            assert_eq!(incoming.sampled, sampled, "{more:?}");
            assert_eq!(incoming.parent.unwrap().sampled(), sampled == Some(true), "{more:?}");
        }
    }

    #[test]
    fn a_root_without_a_parent_is_a_trace_without_one() {
        let incoming = read(&format!("Self=1-67891234-12456789abcdef012345678;{ROOT}"));
        assert_eq!(incoming.trace_id.unwrap().to_string(), "0af7651916cd43dd8448eb211c80319c");
        assert_eq!((incoming.parent, incoming.sampled, incoming.format), (None, None, Some(Format::XRay)));
    }

    #[test]
    fn fields_of_others_are_no_context_and_no_error() {
        assert_eq!(read("CalledFrom=app"), Incoming::default());
        assert_eq!(read("Sampled=0").sampled, Some(false));
        assert!(read("Parent=b7ad6b7169203331").malformed.xray);
    }

    #[test]
    fn fields_of_others_are_kept_in_their_order() {
        let parent = "Parent=0202020202020202";
        assert_eq!(written(&[]), format!("{OURS};{parent};Sampled=1"));
        assert_eq!(
            written(&[&format!("Self=1-2; {ROOT};a=b=c;Sampled=0;nonsense;Root=x;Lineage=1:a:0")]),
            format!("Self=1-2;{OURS};a=b=c;Sampled=1;Lineage=1:a:0;{parent}")
        );
        assert_eq!(written(&["a=1", "Parent=x;b=2"]), format!("a=1;{parent};b=2;{OURS};Sampled=1"));
    }

    #[test]
    fn two_headers_are_none() {
        let lines = [("x-amzn-trace-id", ROOT), ("x-amzn-trace-id", ROOT)];
        let incoming = extract(Format::XRay, &lines);
        assert!(incoming.trace_id.is_none() && incoming.malformed.xray);
    }
}
