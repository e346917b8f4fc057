//! Records as the protobuf of an OTLP request, written by hand.
//!
//! opentelemetry-otlp could do it: a record becomes a `SpanData`, that a tree of messages, and those become bytes. It
//! did at first, and was the dearest part of tracing a request. A prototype with 12 attributes took 1.7 µs and 25
//! allocations per span that way, 0.15 µs and none by hand. `cargo bench --bench exchange` has both side by side for
//! spans of 18 attributes: 4.5 µs and 44 allocations against 0.46 µs and none (one core of a shared AMD EPYC, the
//! system's allocator). The wire format is small and will not change, so that the price is this file. What it writes
//! is held against opentelemetry-otlp, byte for byte, in this file's tests.
//!
//! Only what a record has is here. Fields come in the order of their numbers and lengths as short as they can be:
//! both are for the comparison, and cost nothing.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::exchange::semconv::{self, Status, Value};
use crate::exchange::{Record, Side};

#[cfg(test)]
mod oracle;
#[cfg(test)]
mod tests;

/// Wire types, the lower three bits of a field's key.
const VARINT: u8 = 0;
const FIXED64: u8 = 1;
const LENGTH_DELIMITED: u8 = 2;
const FIXED32: u8 = 5;

/// `SpanKind::Server` (SEM-1), `SpanKind::Client` (SEM-2) and `StatusCode::Error`, on the wire.
const SERVER: u8 = 2;
const CLIENT: u8 = 3;
const ERROR: u8 = 2;

/// Flags above those of W3C: that it is known whether the parent is remote, and that it is (OTLP-43).
const HAS_IS_REMOTE: u32 = 0x100;
const IS_REMOTE: u32 = 0x200;

/// The length of a span has as many bytes, for spans of 128 to 16,383 bytes. Others are moved when their length is
/// known.
const SPAN_LENGTH: usize = 2;

/// The same for messages of many spans.
const SPANS_LENGTH: usize = 3;

/// Writes spans of one service.
#[derive(Debug)]
pub(super) struct Encoder {
    /// `ResourceSpans.resource`, key and all.
    resource: Vec<u8>,
    /// `ScopeSpans.scope` and, though it comes last, `ScopeSpans.schema_url`.
    scope: Vec<u8>,
    schema_url: Vec<u8>,
}

impl Encoder {
    /// An encoder of spans of the resource with these attributes.
    pub(super) fn new<'a>(resource: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let mut this = Self { resource: Vec::new(), scope: Vec::new(), schema_url: Vec::new() };
        message::<SPAN_LENGTH>(&mut this.resource, 1, |out| {
            for (key, value) in resource {
                attribute(out, 1, key, Value::Str(value));
            }
        });
        message::<SPAN_LENGTH>(&mut this.scope, 1, |out| {
            string(out, 1, &["tracecar"]);
            string(out, 2, &[env!("CARGO_PKG_VERSION")]);
        });
        string(&mut this.schema_url, 3, &[semconv::SCHEMA_URL]);
        this
    }

    /// Appends the spans of `records` to `out`, as a field `resource_spans` of `ExportTraceServiceRequest`. That is a
    /// whole request; and several in a row are one, since the field is repeated.
    pub(super) fn append<'r>(&self, records: impl IntoIterator<Item = &'r Record>, out: &mut Vec<u8>) {
        message::<SPANS_LENGTH>(out, 1, |out| {
            out.extend_from_slice(&self.resource);
            message::<SPANS_LENGTH>(out, 2, |out| {
                out.extend_from_slice(&self.scope);
                for record in records {
                    message::<SPAN_LENGTH>(out, 2, |out| span(out, record));
                }
                out.extend_from_slice(&self.schema_url);
            });
        });
    }
}

/// The span of a record.
fn span(out: &mut Vec<u8>, record: &Record) {
    let identity = &record.identity;
    bytes(out, 1, &identity.trace_id.to_bytes());
    bytes(out, 2, &identity.span_id.to_bytes());
    let tracestate = record.text(record.tracestate);
    if !tracestate.is_empty() {
        string(out, 3, &[tracestate]);
    }
    if let Some(parent) = identity.parent {
        bytes(out, 4, &parent.to_bytes());
    }
    match semconv::span_name_parts(record) {
        (method, Some(route)) => string(out, 5, &[method, " ", route]),
        (method, None) => string(out, 5, &[method]),
    }
    key(out, 6, VARINT);
    out.push(match record.side {
        Side::Inbound => SERVER,
        Side::Outbound => CLIENT,
    });
    // A clock that is set to the end of time gets a span without a duration.
    let ended_at = record.started_at.checked_add(record.timings.total).unwrap_or(record.started_at);
    for (field, moment) in [(7, record.started_at), (8, ended_at)] {
        key(out, field, FIXED64);
        out.extend_from_slice(&nanoseconds(moment).to_le_bytes());
    }
    semconv::attributes(record, &mut |key, value| attribute(out, 9, key, value));
    for link in &record.links {
        message::<1>(out, 13, |out| {
            bytes(out, 1, &link.trace_id.to_bytes());
            bytes(out, 2, &link.span_id.to_bytes());
            flags(out, 6, link.flags, link.remote);
        });
    }
    status(out, semconv::span_status(record));
    flags(out, 16, identity.flags, identity.remote);
}

fn flags(out: &mut Vec<u8>, field: u32, w3c: u8, remote: bool) {
    let remote = if remote { IS_REMOTE } else { 0 };
    key(out, field, FIXED32);
    out.extend_from_slice(&(HAS_IS_REMOTE | remote | u32::from(w3c)).to_le_bytes());
}

/// `Status`. An unset one is there, and empty.
fn status(out: &mut Vec<u8>, status: Status<'_>) {
    message::<1>(out, 15, |out| {
        let Status::Error(description) = status else { return };
        if !description.is_empty() {
            string(out, 2, &[description]);
        }
        key(out, 3, VARINT);
        out.push(ERROR);
    });
}

/// A `KeyValue` with the `AnyValue` in it. It is short, and there are 20 per span: its lengths are computed before
/// it is written.
fn attribute(out: &mut Vec<u8>, field: u32, name: &str, value: Value<'_>) {
    let inner = match value {
        Value::Str(text) => 1 + width(text.len() as u64) + text.len(),
        Value::Int(number) => 1 + width(number.cast_unsigned()),
        Value::Double(_) => 1 + size_of::<f64>(),
        Value::Bool(_) => 2,
    };
    let outer = 1 + width(name.len() as u64) + name.len() + 1 + width(inner as u64) + inner;
    key(out, field, LENGTH_DELIMITED);
    varint(out, outer as u64);
    string(out, 1, &[name]);
    key(out, 2, LENGTH_DELIMITED);
    varint(out, inner as u64);
    match value {
        Value::Str(text) => string(out, 1, &[text]),
        Value::Bool(truth) => {
            key(out, 2, VARINT);
            out.push(truth.into());
        }
        Value::Int(number) => {
            key(out, 3, VARINT);
            varint(out, number.cast_unsigned());
        }
        Value::Double(number) => {
            key(out, 4, FIXED64);
            out.extend_from_slice(&number.to_le_bytes());
        }
    }
}

/// Nanoseconds since 1970; moments before are 1970, moments after 2554 its end.
fn nanoseconds(moment: SystemTime) -> u64 {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    since.as_nanos().try_into().unwrap_or(u64::MAX)
}

/// A message whose length is known when it is written. `GUESS` bytes are kept for that length.
fn message<const GUESS: usize>(out: &mut Vec<u8>, field: u32, write: impl FnOnce(&mut Vec<u8>)) {
    key(out, field, LENGTH_DELIMITED);
    let length_at = out.len();
    out.extend_from_slice(&[0; GUESS]);
    let from = out.len();
    write(out);
    let length = out.len() - from;
    let into = length_at + width(length as u64);
    if into != from {
        out.resize(out.len().max(into + length), 0);
        out.copy_within(from..from + length, into);
        out.truncate(into + length);
    }
    let mut rest = length as u64;
    for byte in &mut out[length_at..into] {
        *byte = rest as u8 | 0x80;
        rest >>= 7;
    }
    out[into - 1] &= 0x7f;
}

/// A string, in pieces.
fn string(out: &mut Vec<u8>, field: u32, pieces: &[&str]) {
    key(out, field, LENGTH_DELIMITED);
    varint(out, pieces.iter().map(|piece| piece.len() as u64).sum());
    for piece in pieces {
        out.extend_from_slice(piece.as_bytes());
    }
}

fn bytes(out: &mut Vec<u8>, field: u32, value: &[u8]) {
    key(out, field, LENGTH_DELIMITED);
    varint(out, value.len() as u64);
    out.extend_from_slice(value);
}

fn key(out: &mut Vec<u8>, field: u32, wire_type: u8) {
    varint(out, u64::from(field << 3 | u32::from(wire_type)));
}

/// Seven bits per byte, the lowest first; all bytes but the last have the highest bit set.
fn varint(out: &mut Vec<u8>, mut number: u64) {
    while number >= 0x80 {
        out.push(number as u8 | 0x80);
        number >>= 7;
    }
    out.push(number as u8);
}

/// How many bytes [`varint`] writes.
fn width(number: u64) -> usize {
    let bits = u64::BITS - (number | 1).leading_zeros();
    bits.div_ceil(7) as usize
}
