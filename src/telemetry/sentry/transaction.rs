//! Requests as Sentry's transactions, their calls as spans (SEN-30).

use std::borrow::Cow;
use std::sync::Arc;

use opentelemetry::trace::TraceId;
use sentry::protocol::{DynamicSamplingContext, SampleRand, Span, SpanId, Transaction};
use serde::Serialize;

use super::facts::{self, cut};
use super::{Scope, envelope};
use crate::exchange::Record;
use crate::telemetry::failures::{cause, scrub};

/// Spans that Sentry keeps of a transaction.
const SPANS: usize = 1000;

/// The range of the part of a trace id that is random in all of them: its last 56 bits.
const RANGE: u64 = 1 << 56;

/// A transaction as it is sent. Sentry's type has no place for where the name comes from, without which names are taken apart.
#[derive(Serialize)]
struct Sent<'t> {
    #[serde(flatten)]
    transaction: &'t Transaction<'static>,
    #[serde(rename = "type")]
    kind: &'static str,
    platform: &'static str,
    transaction_info: Info,
}

#[derive(Serialize)]
struct Info {
    source: &'static str,
}

/// Where in the line of all traces this one stands, from 0 to 1: it is in the share when that is below the rate (SEN-42).
///
/// From the trace id, so that every service keeps the same traces at the same rate. It counts down where OpenTelemetry's
/// samplers count up (SMP-8): a trace that they keep at some ratio is one that is kept here at that rate.
pub(super) fn sample_rand(trace_id: TraceId) -> f64 {
    let bytes = trace_id.to_bytes();
    let low = u64::from_be_bytes(bytes[8..].try_into().expect("8 of 16 bytes")) & (RANGE - 1);
    let rand = (RANGE - 1 - low) as f64 / RANGE as f64;
    // As it is written, with six decimals: who reads it has to come to the same end. Above 0.999999 there is nothing.
    (rand * 1e6).floor().min(999_999.0) / 1e6
}

/// What began the trace, where it is this request. Where it came with one, that is not ours to say (SEN-41).
pub(super) fn beginning(record: &Record, scope: &Scope) -> Option<Box<DynamicSamplingContext>> {
    if record.identity.parent.is_some() {
        return None;
    }
    let id = record.identity.trace_id;
    let mut trace = DynamicSamplingContext::new()
        .with_trace_id(id.to_bytes().into())
        .with_public_key(scope.public_key.clone())
        .with_sample_rate(scope.traces_sample_rate as f32)
        .with_sample_rand(SampleRand::try_from(sample_rand(id)).ok()?)
        .with_sampled(true)
        .with_environment(scope.environment.clone());
    if let Some(release) = &scope.release {
        trace = trace.with_release(release.clone());
    }
    if let Some(organization) = scope.organization {
        trace = trace.with_org_id(organization);
    }
    // A raw URL is no name for anybody else (SEN-42).
    let (name, source) = name(record);
    if source == "route" {
        trace = trace.with_transaction(name);
    }
    Some(Box::new(trace))
}

/// The transaction of a request, and its id. `None` if it cannot be written, for which there is no known reason.
pub(super) fn json(record: &Record, calls: &[Arc<Record>], scope: &Scope) -> Option<(uuid::Uuid, Vec<u8>)> {
    let (name, source) = name(record);
    let response = facts::response(record, None).map(|response| ("response", response));
    let contexts = [("trace", facts::trace_of(record).into())].into_iter().chain(response);
    let mut spans: Vec<&Record> = calls.iter().map(|call| &**call).collect();
    // A span of another trace is none of this one's.
    spans.retain(|call| call.identity.trace_id == record.identity.trace_id);
    spans.truncate(SPANS);
    let transaction = Transaction {
        name: Some(name),
        release: scope.release.clone().map(Cow::Owned),
        environment: Some(scope.environment.clone().into()),
        server_name: scope.server_name.clone().map(Cow::Owned),
        sdk: Some(Cow::Owned(envelope::sdk())),
        start_timestamp: facts::moment(record.started_at),
        timestamp: Some(facts::ended_at(record)),
        spans: spans.into_iter().map(|call| span(call, record)).collect(),
        contexts: contexts.map(|(name, context)| (name.to_owned(), context)).collect(),
        request: facts::request(record, None),
        tags: facts::tags(record, &scope.service),
        ..Transaction::default()
    };
    let sent = Sent {
        transaction: &transaction,
        kind: "transaction",
        platform: "other",
        transaction_info: Info { source },
    };
    Some((transaction.event_id, serde_json::to_vec(&sent).ok()?))
}

/// The name, and where it comes from.
fn name(record: &Record) -> (String, &'static str) {
    let Some(request) = &record.request else { return (record.outcome.as_str().to_owned(), "custom") };
    let method = facts::method(request);
    match &request.route {
        Some(route) => (cut(&format!("{method} {route}"), 200), "route"),
        // Raw paths hold ids and worse, so this is none (SEN-30).
        None => {
            let shape = cause::path_shape(&scrub::path(record.text(request.path)));
            (cut(&format!("{method} {shape}"), 200), "custom")
        }
    }
}

fn span(call: &Record, record: &Record) -> Span {
    let parent = call.identity.parent.unwrap_or(record.identity.span_id);
    let description = call.request.as_ref().map(|request| {
        let place =
            format!("{} {}://{}", facts::method(request), request.scheme, call.text(request.authority));
        let path =
            request.route.as_deref().map_or_else(|| scrub::path(call.text(request.path)), Cow::Borrowed);
        cut(&format!("{}{path}", scrub::text(&place)), 1024)
    });
    let mut data = facts::data(call);
    data.insert("sentry.origin".to_owned(), facts::ORIGIN.into());
    Span {
        trace_id: call.identity.trace_id.to_bytes().into(),
        span_id: call.identity.span_id.to_bytes().into(),
        parent_span_id: Some(SpanId::from(parent.to_bytes())),
        op: Some(facts::op(call.side).to_owned()),
        description,
        start_timestamp: facts::moment(call.started_at),
        timestamp: Some(facts::ended_at(call)),
        status: Some(facts::status(call)),
        data,
        ..Span::default()
    }
}
