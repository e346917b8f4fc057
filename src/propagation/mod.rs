//! Headers ↔ trace context.
//!
//! [`Propagation`] holds the formats in use and reads ([`extract`](Propagation::extract)) or writes
//! ([`inject`](Propagation::inject)) a [`Context`]. [`CorrelationRules`] does the same for correlation ids.
//! Everything here is pure: headers in, values out, no settings, no clock, no counters. What strangers send
//! arrives here first, so every parser is total: it answers for any bytes a header can hold, in time linear in
//! their number, and never panics.
//!
//! A new format is a file beside [`w3c`], an arm in [`Format`], in [`Propagation::extract`] and in
//! [`Propagation::inject`], and a folder of accepted and rejected examples in `tests/corpus`.
//!
//! Headers of formats that are not configured are not looked at and pass unchanged (PROP-6).

mod baggage;
mod correlation;
pub mod w3c;

use std::str::FromStr;

use http::{HeaderMap, HeaderValue};
use opentelemetry::trace::{SpanId, TraceId};

pub use correlation::{Accepted, CorrelationRules, Generate};

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
}

impl Context {
    /// The flag that says the span is recorded.
    pub const SAMPLED: u8 = 0x01;
    /// The flag that says the low 56 bits of the trace id are random. It belongs to the trace id, so a trace
    /// that is continued keeps it as it came, set or not (CTX-10).
    pub const RANDOM: u8 = 0x02;

    /// Whether the span that speaks is recorded.
    pub fn sampled(&self) -> bool {
        self.flags & Self::SAMPLED != 0
    }
}

/// One way to write a context into headers, named as in `OTEL_PROPAGATORS` (PROP-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// `tracecontext`: the headers `traceparent` and `tracestate` of W3C Trace Context, level 2.
    TraceContext,
    /// `baggage`: the W3C header of that name, which we check and count but pass on byte for byte (BAG-6).
    Baggage,
}

impl Format {
    /// The names that [`Format::from_str`] knows.
    pub const NAMES: [&'static str; 2] = [Format::TraceContext.as_str(), Format::Baggage.as_str()];

    /// The name in `OTEL_PROPAGATORS`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Format::TraceContext => "tracecontext",
            Format::Baggage => "baggage",
        }
    }
}

impl FromStr for Format {
    type Err = UnknownFormat;

    /// Finds a format by its name, in any case (ENV-20). The caller removes white space, and treats `none`.
    fn from_str(name: &str) -> Result<Self, UnknownFormat> {
        [Format::TraceContext, Format::Baggage]
            .into_iter()
            .find(|format| format.as_str().eq_ignore_ascii_case(name))
            .ok_or_else(|| UnknownFormat(name.to_owned()))
    }
}

/// A name that no [`Format`] has.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown propagation format {0:?}: use {names}", names = Format::NAMES.join(" or "))]
pub struct UnknownFormat(pub String);

/// What a request brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incoming {
    /// The caller's context. `None` where it sent none that could be read: then a new trace begins.
    pub parent: Option<Context>,
    /// What was there and could not be read.
    pub malformed: Malformed,
}

/// Which headers were there but could not be read. They are counted and otherwise treated as absent; no request
/// is refused for them (PROP-2, BAG-5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Malformed {
    /// `traceparent`, also where it came twice (CTX-7).
    pub traceparent: bool,
    /// `tracestate` beside a good `traceparent`. Without one it is not even read (CTX-8).
    pub tracestate: bool,
    /// `baggage`, also where it exceeds the limits of BAG-3.
    pub baggage: bool,
}

/// The formats in use, in order.
///
/// The default has none: headers pass unchanged.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Propagation {
    formats: Vec<Format>,
}

impl Propagation {
    /// Uses `formats` in the order given, each once: a repeated one keeps its first place (PROP-1).
    pub fn new(formats: Vec<Format>) -> Self {
        let mut once = Vec::with_capacity(formats.len());
        for format in formats {
            if !once.contains(&format) {
                once.push(format);
            }
        }
        Self { formats: once }
    }

    /// The formats in use, each once.
    pub fn formats(&self) -> &[Format] {
        &self.formats
    }

    /// Reads the caller's context. Where several formats bring one, the last in the list wins (PROP-3); one that
    /// cannot be read takes nothing away from the others (PROP-2).
    ///
    /// Allocates only to join several `tracestate` lines.
    pub fn extract(&self, headers: &HeaderMap) -> Incoming {
        let mut incoming = Incoming::default();
        for format in &self.formats {
            match format {
                Format::TraceContext => w3c::extract(headers, &mut incoming),
                Format::Baggage => incoming.malformed.baggage = baggage::malformed(headers),
            }
        }
        incoming
    }

    /// Writes `context` in every format in use, in place of what those formats' headers said: there is exactly
    /// one `traceparent` afterwards, and at most one `tracestate` (PROP-4). `baggage` stays as it is (BAG-6).
    ///
    /// A header that is replaced keeps its place among the others, a new one goes last. Removing `tracestate`
    /// moves the last header into its place: the map knows no other way, and the order of different names
    /// means nothing (RFC 9110 section 5.3).
    pub fn inject(&self, headers: &mut HeaderMap, context: &Context) {
        for format in &self.formats {
            match format {
                Format::TraceContext => w3c::inject(headers, context),
                Format::Baggage => {}
            }
        }
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

    const BOTH: [Format; 2] = [Format::TraceContext, Format::Baggage];

    #[test]
    fn every_name_is_read_back_in_any_case() {
        for name in Format::NAMES {
            assert_eq!(name.parse::<Format>().unwrap().as_str(), name);
            assert_eq!(name.to_uppercase().parse::<Format>().unwrap().as_str(), name);
        }
    }

    #[test]
    fn an_unknown_name_is_told_with_those_that_exist() {
        let error = "zipkin".parse::<Format>().unwrap_err();
        assert_eq!(error.to_string(), r#"unknown propagation format "zipkin": use tracecontext or baggage"#);
    }

    #[test]
    fn a_repeated_format_keeps_its_first_place() {
        let propagation = Propagation::new(vec![
            Format::Baggage,
            Format::TraceContext,
            Format::Baggage,
            Format::TraceContext,
        ]);
        assert_eq!(propagation.formats(), [Format::Baggage, Format::TraceContext]);
    }

    #[test]
    fn formats_that_are_not_in_use_are_neither_read_nor_written() {
        let before =
            headers(&[("traceparent", "nonsense"), ("tracestate", "foo=1"), ("baggage", "nonsense")]);
        let context = Context {
            trace_id: TraceId::from_bytes([1; 16]),
            span_id: SpanId::from_bytes([2; 8]),
            flags: 1,
            tracestate: None,
        };
        let none = Propagation::default();
        assert_eq!(none.extract(&before), Incoming::default());
        let mut after = before.clone();
        none.inject(&mut after, &context);
        assert_eq!(after, before);
    }

    #[test]
    fn an_unreadable_baggage_leaves_the_parent_alone() {
        let headers = headers(&[
            ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
            ("baggage", "no equals sign"),
        ]);
        let incoming = Propagation::new(BOTH.to_vec()).extract(&headers);
        assert!(incoming.parent.is_some());
        assert_eq!(incoming.malformed, Malformed { baggage: true, ..Malformed::default() });
    }

    #[test]
    fn baggage_is_sent_on_byte_for_byte() {
        let lines = [("baggage", "a=1;p , b = %zz"), ("baggage", "no equals sign"), ("baggage", "a=2")];
        let mut headers = headers(&lines);
        let propagation = Propagation::new(BOTH.to_vec());
        let context = Context {
            trace_id: TraceId::from_bytes([1; 16]),
            span_id: SpanId::from_bytes([2; 8]),
            flags: 1,
            tracestate: None,
        };
        propagation.inject(&mut headers, &context);
        let after: Vec<_> = headers.get_all("baggage").iter().collect();
        assert_eq!(after, lines.map(|(_, value)| value));
    }

    #[test]
    fn white_space_is_removed_at_both_ends_only() {
        assert_eq!(trim(b" \t a b\t "), b"a b");
        assert_eq!(trim(b"a"), b"a");
        assert_eq!(trim(b" \t"), b"");
        assert_eq!(trim(b""), b"");
    }
}
