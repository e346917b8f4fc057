//! Headers ↔ trace context.
//!
//! [`Propagation`] holds the formats in use and reads ([`extract`](Propagation::extract)) or writes
//! ([`inject`](Propagation::inject)) a [`Context`]. [`CorrelationRules`] does the same for correlation ids.
//! Everything here is pure: headers in, values out, no settings, no clock, no counters. What strangers send
//! arrives here first, so every parser is total: it answers for any bytes a header can hold, in time linear in
//! their number, and never panics.
//!
//! A new format is a file beside [`w3c`], a name in [`Format`], a field in [`Malformed`], an arm in
//! [`Propagation::extract`] and in [`Propagation::inject`], its headers in [`Propagation::strip`], and a folder of
//! accepted and rejected examples in `tests/corpus`.
//!
//! Headers of formats that are not configured are not looked at and pass unchanged (PROP-6). Flags that only W3C has
//! are not invented for others: a context from elsewhere has the random flag unset, also because its trace id may be
//! half zeros (CTX-16).

mod b3;
mod baggage;
mod correlation;
mod datadog;
mod format;
mod hex;
mod incoming;
mod jaeger;
mod sentry;
pub mod w3c;
mod xray;

use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanId, TraceId};

pub use correlation::{Accepted, CorrelationRules, Generate};
pub use format::{Format, UnknownFormat};
pub use incoming::{Incoming, Malformed};

/// A place in a trace: what one service tells the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// Trace id, never zero when extracted.
    pub trace_id: TraceId,
    /// Id of the span that speaks: the caller's when extracted, ours when injected. Never zero when extracted.
    pub span_id: SpanId,
    /// W3C flags, [`Context::SAMPLED`] and [`Context::RANDOM`]; other bits are neither extracted nor sent (CTX-9).
    pub flags: u8,
    /// `tracestate` as sent on: the lines joined in order, otherwise untouched (CTX-20, CTX-26). `None` where
    /// there was none, or none that could be read.
    pub tracestate: Option<HeaderValue>,
    /// Whether somebody debugs this trace: B3's `d`, Jaeger's second flag. It stays set downstream and implies
    /// sampled, whatever `flags` say (B3-4). W3C has no word for it.
    pub debug: bool,
}

impl Context {
    /// The flag that says the span is recorded.
    pub const SAMPLED: u8 = 0x01;
    /// The flag that says the low 56 bits of the trace id are random. It belongs to the trace id, so a trace
    /// that is continued keeps it as it came, set or not (CTX-10).
    pub const RANDOM: u8 = 0x02;

    /// Whether the span that speaks is recorded.
    pub fn sampled(&self) -> bool {
        self.debug || self.flags & Self::SAMPLED != 0
    }
}

/// The formats in use, in order.
///
/// The default has none: headers pass unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Propagation {
    extract: Vec<Format>,
    inject: Vec<Format>,
    organization: Option<Arc<str>>,
}

impl Propagation {
    /// Reads `extract` and writes `inject`, in the order given, each once: a repeated one keeps its first place
    /// (PROP-1).
    pub fn new(extract: Vec<Format>, inject: Vec<Format>) -> Self {
        Self { extract: once(extract), inject: once(inject), organization: None }
    }

    /// Traces of other organizations of Sentry's are not continued (SEN-44); `None` continues those of any.
    pub fn within(self, organization: Option<Arc<str>>) -> Self {
        Self { organization, ..self }
    }

    /// Reads and writes `formats`.
    pub fn both(formats: Vec<Format>) -> Self {
        Self::new(formats.clone(), formats)
    }

    /// The formats that are read, each once.
    pub fn extracted(&self) -> &[Format] {
        &self.extract
    }

    /// The formats that are written, each once.
    pub fn injected(&self) -> &[Format] {
        &self.inject
    }

    /// Reads what the caller says. Where several formats bring a context, the last in the list wins (PROP-3); one
    /// that cannot be read takes nothing away from the others (PROP-2).
    ///
    /// Allocates only to join several `tracestate` lines.
    pub fn extract(&self, headers: &HeaderMap) -> Incoming {
        let mut incoming = Incoming::default();
        for format in &self.extract {
            match format {
                Format::TraceContext => w3c::extract(headers, &mut incoming),
                Format::Baggage => incoming.malformed.baggage = baggage::malformed(headers),
                Format::B3 | Format::B3Multi => b3::extract(headers, *format, &mut incoming),
                Format::Jaeger => jaeger::extract(headers, &mut incoming),
                Format::XRay => xray::extract(headers, &mut incoming),
                Format::Datadog => datadog::extract(headers, &mut incoming),
                Format::SentryTrace => sentry::extract(headers, self.organization.as_deref(), &mut incoming),
            }
        }
        incoming
    }

    /// Writes `context` in every format in use, in place of what those formats' headers said: there is exactly
    /// one `traceparent` afterwards, and at most one `tracestate` (PROP-4). `baggage` of any kind stays as it is
    /// (BAG-6, JAE-2, SEN-41), but for what another organization of Sentry's said of a trace that is not continued (SEN-44), and so does what a format lets others put beside the context (XR-1, DD-1).
    ///
    /// A header that is replaced keeps its place among the others, a new one goes last. Removing `tracestate`
    /// moves the last header into its place: the map knows no other way, and the order of different names
    /// means nothing (RFC 9110 section 5.3).
    pub fn inject(&self, headers: &mut HeaderMap, context: &Context) {
        for format in &self.inject {
            match format {
                Format::TraceContext => w3c::inject(headers, context),
                Format::Baggage => {}
                Format::B3 | Format::B3Multi => b3::inject(headers, *format, context),
                Format::Jaeger => jaeger::inject(headers, context),
                Format::XRay => xray::inject(headers, context),
                Format::Datadog => datadog::inject(headers, context),
                Format::SentryTrace => sentry::inject(headers, self.organization.as_deref(), context),
            }
        }
    }

    /// Removes every header of trace context and of baggage that any format here knows, in use or not, for third
    /// parties that must not see them (BAG-7).
    pub fn strip(headers: &mut HeaderMap) {
        let ours = |name: &&HeaderName| {
            let name = name.as_str();
            STRIPPED.contains(&name) || STRIPPED_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
        };
        let names: Vec<HeaderName> = headers.keys().filter(ours).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

/// Whole names of headers that [`Propagation::strip`] removes.
const STRIPPED: [&str; 8] = [
    "traceparent",
    "tracestate",
    "baggage",
    "b3",
    "uber-trace-id",
    // Baggage that people send to Jaeger by hand (JAE-2).
    "jaeger-baggage",
    "x-amzn-trace-id",
    "sentry-trace",
];
/// Beginnings of names that it removes.
const STRIPPED_PREFIXES: [&str; 3] = ["x-b3-", "uberctx-", "x-datadog-"];

fn once(formats: Vec<Format>) -> Vec<Format> {
    let mut once = Vec::with_capacity(formats.len());
    for format in formats {
        if !once.contains(&format) {
            once.push(format);
        }
    }
    once
}

/// Replaces all lines of `name` by one, in the place of the first. A map that is full (over twenty thousand
/// headers, which no server of ours lets in) goes without rather than with a line that is no longer true.
fn set(headers: &mut HeaderMap, name: &HeaderName, value: HeaderValue) {
    if headers.try_insert(name, value).is_err() {
        headers.remove(name);
    }
}

/// `bytes` without the optional white space around a header value or a list member (RFC 9110 section 5.6.3).
/// HTTP/1 readers have removed the outer one, HTTP/2 readers have not.
fn trim(bytes: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let Some(start) = bytes.iter().position(|byte| !is_space(byte)) else { return &[] };
    let end = bytes.iter().rposition(|byte| !is_space(byte)).map_or(start, |last| last + 1);
    &bytes[start..end]
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The headers, in order.
    pub(super) fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            headers.append(*name, HeaderValue::from_str(value).unwrap());
        }
        headers
    }

    /// A sampled context to write.
    pub(super) fn context() -> Context {
        Context {
            trace_id: TraceId::from_bytes([1; 16]),
            span_id: SpanId::from_bytes([2; 8]),
            flags: Context::SAMPLED,
            tracestate: None,
            debug: false,
        }
    }

    pub(super) fn extract(format: Format, lines: &[(&'static str, &str)]) -> Incoming {
        Propagation::both(vec![format]).extract(&headers(lines))
    }

    pub(super) fn inject(format: Format, headers: &mut HeaderMap, context: &Context) {
        Propagation::both(vec![format]).inject(headers, context);
    }

    const BOTH: [Format; 2] = [Format::TraceContext, Format::Baggage];

    #[test]
    fn a_repeated_format_keeps_its_first_place() {
        use Format::{B3, Baggage, TraceContext};
        let propagation =
            Propagation::new(vec![Baggage, TraceContext, Baggage, TraceContext], vec![TraceContext, B3, B3]);
        assert_eq!(propagation.extracted(), [Baggage, TraceContext]);
        assert_eq!(propagation.injected(), [TraceContext, B3]);
    }

    #[test]
    fn formats_that_are_not_in_use_are_neither_read_nor_written() {
        let before =
            headers(&[("traceparent", "nonsense"), ("tracestate", "foo=1"), ("baggage", "nonsense")]);
        let none = Propagation::default();
        assert_eq!(none.extract(&before), Incoming::default());
        let mut after = before.clone();
        none.inject(&mut after, &context());
        assert_eq!(after, before);
    }

    #[test]
    fn an_unreadable_baggage_leaves_the_parent_alone() {
        let headers = headers(&[
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("baggage", "no equals sign"),
        ]);
        let incoming = Propagation::both(BOTH.to_vec()).extract(&headers);
        assert!(incoming.parent.is_some());
        assert_eq!(incoming.malformed, Malformed { baggage: true, ..Malformed::default() });
    }

    #[test]
    fn baggage_is_sent_on_byte_for_byte() {
        let lines = [("baggage", "a=1;p , b = %zz"), ("baggage", "no equals sign"), ("baggage", "a=2")];
        let mut headers = headers(&lines);
        let propagation = Propagation::both(BOTH.to_vec());
        propagation.inject(&mut headers, &context());
        let after: Vec<_> = headers.get_all("baggage").iter().collect();
        assert_eq!(after, lines.map(|(_, value)| value));
    }

    const W3C: (&str, &str) = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03");
    const OTHER: (&str, &str) = ("b3", "00000000000000ff-000000000000000a-0");

    fn read(formats: &[Format], lines: &[(&'static str, &str)]) -> Incoming {
        Propagation::both(formats.to_vec()).extract(&headers(lines))
    }

    #[test]
    fn the_last_format_with_a_context_wins() {
        use Format::{B3, TraceContext};
        for (formats, winner) in [([TraceContext, B3], B3), ([B3, TraceContext], TraceContext)] {
            let incoming = read(&formats, &[W3C, OTHER]);
            assert_eq!(incoming.format, Some(winner));
            assert_eq!(incoming.parent, read(&[winner], &[W3C, OTHER]).parent);
            assert_eq!(incoming.sampled, Some(winner == TraceContext));
        }
    }

    #[test]
    fn a_format_that_cannot_be_read_takes_nothing_away() {
        let incoming = read(&[Format::TraceContext, Format::B3], &[W3C, ("b3", "nonsense")]);
        assert_eq!(incoming.format, Some(Format::TraceContext));
        assert!(incoming.parent.is_some() && incoming.malformed.b3);
    }

    #[test]
    fn a_context_is_worth_more_than_a_trace_and_that_more_than_a_decision() {
        use Format::{B3, TraceContext, XRay};
        let root = ("x-amzn-trace-id", "Root=1-01010101-010101010101010101010101");
        let lines = [W3C, root, ("b3", "0")];
        for formats in [[TraceContext, XRay, B3], [B3, XRay, TraceContext]] {
            assert_eq!(read(&formats, &lines).format, Some(TraceContext));
            assert_eq!(read(&formats, &lines[1..]).format, Some(XRay));
            assert_eq!(read(&formats, &lines[2..]).format, Some(B3));
        }
    }

    #[test]
    fn one_trace_told_twice_keeps_what_only_one_format_can_say() {
        use Format::{B3, SentryTrace, TraceContext};
        let again = "0af7651916cd43dd8448eb211c80319c-00f067aa0ba902b7";
        let lines = [W3C, ("tracestate", "foo=1"), ("sentry-trace", again), ("b3", &format!("{again}-d"))];
        let incoming = read(&[TraceContext, SentryTrace], &lines);
        let parent = incoming.parent.unwrap();
        assert_eq!(parent.span_id.to_string(), "00f067aa0ba902b7");
        assert_eq!((parent.flags, parent.tracestate.unwrap().as_bytes()), (3, &b"foo=1"[..]));
        assert_eq!(incoming.sampled, Some(true));
        assert!(read(&[B3, TraceContext], &lines).parent.unwrap().debug);
        let denied = (W3C.0, "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-00");
        let incoming = read(&[B3, TraceContext], &[denied, lines[3]]);
        assert!(!incoming.parent.unwrap().sampled() && !incoming.debug, "the later decision holds");
    }

    #[test]
    fn a_read_random_flag_is_not_passed_to_another_trace() {
        let incoming = read(&[Format::TraceContext, Format::B3], &[W3C, OTHER]);
        assert_eq!(incoming.parent.unwrap().flags, 0);
    }

    #[test]
    fn what_is_read_and_what_is_written_may_differ() {
        let mut headers = headers(&[W3C, ("tracestate", "old=1"), OTHER]);
        let propagation = Propagation::new(vec![Format::B3], vec![Format::TraceContext, Format::Jaeger]);
        let parent = propagation.extract(&headers).parent.unwrap();
        propagation.inject(&mut headers, &parent);
        assert_eq!(headers["traceparent"], "00-000000000000000000000000000000ff-000000000000000a-00");
        assert_eq!(headers["uber-trace-id"], "000000000000000000000000000000ff:000000000000000a:0:00");
        assert!(!headers.contains_key("tracestate"));
        assert_eq!(headers["b3"], OTHER.1);
    }

    #[test]
    fn everything_is_stripped_and_nothing_else() {
        let mut headers = HeaderMap::new();
        Propagation::both(Format::ALL.to_vec()).inject(&mut headers, &context());
        let more = ["tracestate", "baggage", "x-b3-flags", "uberctx-a", "x-datadog-origin", "x-datadog-tags"];
        for name in more {
            headers.append(name, HeaderValue::from_static("a"));
            headers.append(name, HeaderValue::from_static("b"));
        }
        for name in ["host", "x-b3", "b3-x", "x-request-id"] {
            headers.insert(name, HeaderValue::from_static("a"));
        }
        Propagation::strip(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["b3-x", "host", "x-b3", "x-request-id"]);
    }

    #[test]
    fn white_space_is_removed_at_both_ends_only() {
        assert_eq!(trim(b" \t a b\t "), b"a b");
        assert_eq!(trim(b"a"), b"a");
        assert_eq!(trim(b" \t"), b"");
        assert_eq!(trim(b""), b"");
    }
}
