//! Failures and notices as Sentry's events (SEN-20 to SEN-26).

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::time::{Duration, SystemTime};

use sentry::protocol::{
    Breadcrumb, Context, Event, Exception, Frame, Level, LogEntry, Map, Mechanism, Stacktrace, TraceContext,
    Value,
};
use serde::Serialize;

use super::facts::{self, cut};
use super::{Notice, Scope, envelope};
use crate::exchange::{Evidence, Record, Side};
use crate::telemetry::failures::cause::StackFrame;
use crate::telemetry::failures::{Failure, Severity, scrub};

/// Limits of SEN-4: characters of a message, and frames of a stack.
const MESSAGE: usize = 8192;
const FRAMES: usize = 50;

/// Characters of an exception's type, a file, a function; what Sentry keeps of them.
const NAME: usize = 256;

/// Characters of a line of source, or of a detail.
const LINE: usize = 1024;

/// Breadcrumbs that Sentry keeps.
const BREADCRUMBS: usize = 100;

/// An event as it is sent. Sentry's type leaves out what it takes for a default: the platform `other`, which has to be there
/// (SEN-20), and the level `error`, which bugsink would show as none.
#[derive(Serialize)]
struct Sent<'e> {
    #[serde(flatten)]
    event: &'e Event<'static>,
    platform: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    level: Option<Level>,
}

/// The JSON of an event. `None` if it cannot be written, for which there is no known reason.
pub(super) fn json(event: &Event<'static>) -> Option<Vec<u8>> {
    let level = Some(event.level).filter(|level| level.is_error());
    serde_json::to_vec(&Sent { event, platform: "other", level }).ok()
}

/// The event of a failure. So many of its group were held back since the last that was sent.
pub(super) fn of_failure(
    failure: &Failure,
    fingerprint: &[String],
    held: u64,
    scope: &Scope,
) -> Event<'static> {
    let record = &*failure.record;
    let evidence = failure.evidence.as_deref();
    let mut tags = facts::tags(record, &scope.service);
    facts::tag(&mut tags, "category", failure.category.as_str());
    // A call has the tag already.
    if let Some(call) = failure.dependency().filter(|_| record.side == Side::Inbound) {
        facts::tag(&mut tags, "destination", facts::destination(call));
    }
    let mut contexts = Map::new();
    contexts.insert("trace".to_owned(), facts::trace_of(record).into());
    contexts.insert("tracecar".to_owned(), Context::Other(particulars(record)));
    let response = facts::response(record, evidence).map(|response| ("response".to_owned(), response));
    contexts.extend(response.into_iter().chain(outgoing(record, evidence)));
    Event {
        timestamp: facts::ended_at(record),
        transaction: Some(cut(&scrub::text(&failure.place), 200)),
        request: facts::request(record, evidence),
        exception: vec![exception(failure)].into(),
        breadcrumbs: breadcrumbs(&failure.calls).into(),
        contexts,
        tags,
        ..event(failure.severity, fingerprint, held, scope)
    }
}

/// The event of a notice.
pub(super) fn of_notice(notice: &Notice, held: u64, scope: &Scope) -> Event<'static> {
    let mut tags = Map::new();
    facts::tag(&mut tags, "service", &scope.service);
    notice.tags.iter().for_each(|(name, value)| facts::tag(&mut tags, &cut(name, 200), value));
    let cleaned = |text: &str| Value::from(cut(&scrub::text(text), LINE));
    let mut details: Map<String, Value> =
        notice.details.iter().map(|(name, value)| (cut(name, 200), cleaned(value))).collect();
    let written = |at: SystemTime| crate::telemetry::words::rfc3339(at, 3);
    details.insert("began_at".to_owned(), written(notice.began_at).into());
    if let Some(ended_at) = notice.ended_at {
        details.insert("ended_at".to_owned(), written(ended_at).into());
    }
    let trace = match &notice.trace {
        Some(identity) => facts::trace(identity, "http.server"),
        // Each event has to have one (SEN-22), if only for itself.
        None => TraceContext { origin: Some(facts::ORIGIN.to_owned()), ..TraceContext::default() },
    };
    let contexts: [(&str, Context); 2] = [("trace", trace.into()), ("tracecar", Context::Other(details))];
    Event {
        timestamp: facts::moment(notice.ended_at.unwrap_or(notice.began_at)),
        logentry: Some(LogEntry { message: cut(&scrub::text(&notice.title), MESSAGE), params: Vec::new() }),
        contexts: contexts.map(|(name, context)| (name.to_owned(), context)).into(),
        tags,
        ..event(notice.level, &notice.group, held, scope)
    }
}

/// What all events have.
fn event(severity: Severity, fingerprint: &[String], held: u64, scope: &Scope) -> Event<'static> {
    let mut extra = Map::new();
    if held > 0 {
        extra.insert("tracecar.not_sent_before".to_owned(), held.into());
    }
    Event {
        level: match severity {
            Severity::Warning => Level::Warning,
            Severity::Error => Level::Error,
            Severity::Fatal => Level::Fatal,
        },
        // Its own grouping would make an issue of each URL, or one of all (SEN-23).
        fingerprint: fingerprint.iter().map(|part| Cow::Owned(cut(&scrub::text(part), LINE))).collect(),
        logger: Some("tracecar".to_owned()),
        server_name: scope.server_name.clone().map(Cow::Owned),
        release: scope.release.clone().map(Cow::Owned),
        environment: Some(scope.environment.clone().into()),
        sdk: Some(Cow::Owned(envelope::sdk())),
        extra,
        ..Event::default()
    }
}

/// Sentry and its kin make the title of an issue of type and value, with a colon between.
fn exception(failure: &Failure) -> Exception {
    let cause = failure.cause.as_ref();
    let (ty, value) = failure.title();
    let frames = cause.map_or(&[][..], |cause| &cause.frames);
    let innermost = &frames[frames.len().saturating_sub(FRAMES)..];
    Exception {
        ty: cut(&scrub::text(ty), NAME),
        value: Some(cut(&scrub::text(value), MESSAGE)),
        stacktrace: (!innermost.is_empty())
            .then(|| Stacktrace { frames: innermost.iter().map(frame).collect(), ..Stacktrace::default() }),
        mechanism: Some(Mechanism {
            ty: facts::ORIGIN.to_owned(),
            handled: Some(false),
            ..Mechanism::default()
        }),
        ..Exception::default()
    }
}

fn frame(frame: &StackFrame) -> Frame {
    let file = Some(&frame.file).filter(|file| !file.is_empty());
    Frame {
        filename: file.map(|file| cut(&scrub::text(file), NAME)),
        function: frame.function.as_ref().map(|function| cut(&scrub::text(function), NAME)),
        lineno: frame.line.map(u64::from),
        context_line: frame.code.as_ref().map(|code| cut(&scrub::code(code), LINE)),
        in_app: Some(frame.in_app),
        ..Frame::default()
    }
}

/// A breadcrumb for each call, by when they ended (SEN-25).
fn breadcrumbs(calls: &[std::sync::Arc<Record>]) -> Vec<Breadcrumb> {
    let mut ended: Vec<&Record> = calls.iter().map(|call| &**call).collect();
    ended.sort_by_key(|call| facts::ended_at(call));
    let last = ended.len().saturating_sub(BREADCRUMBS);
    ended[last..].iter().map(|call| breadcrumb(call)).collect()
}

fn breadcrumb(call: &Record) -> Breadcrumb {
    let mut data = facts::data(call);
    data.insert("duration_ms".to_owned(), milliseconds(call.timings.total));
    let detail = call.text(call.detail);
    Breadcrumb {
        timestamp: facts::ended_at(call),
        ty: "http".to_owned(),
        category: Some("http".to_owned()),
        level: match call.status {
            Some(..400) if !call.failed() => Level::Info,
            Some(400..500) => Level::Warning,
            _ => Level::Error,
        },
        message: (!detail.is_empty()).then(|| cut(&scrub::text(detail), LINE)),
        data,
    }
}

/// The request of a call. Sentry's own place for requests is that of requests that came in (SEN-24).
fn outgoing(record: &Record, evidence: Option<&Evidence>) -> Option<(String, Context)> {
    let request = record.request.as_ref().filter(|_| record.side == Side::Outbound)?;
    let mut out = Map::new();
    out.insert("url".to_owned(), facts::url(record, request).into());
    out.insert("method".to_owned(), facts::method(request).into());
    if let Some(evidence) = evidence {
        let headers = facts::shown(&evidence.request_headers);
        out.insert("headers".to_owned(), headers.into_iter().collect());
    }
    Some(("outgoing_request".to_owned(), Context::Other(out)))
}

/// What tracecar knows beside: where the time went, and what it made of it all.
fn particulars(record: &Record) -> BTreeMap<String, Value> {
    let timings = &record.timings;
    let phases = [
        ("dns_ms", timings.dns),
        ("connect_ms", timings.connect),
        ("tls_ms", timings.tls),
        ("sent_ms", timings.sent),
        ("first_byte_ms", timings.first_byte),
        ("service_first_byte_ms", timings.upstream_first_byte()),
        ("total_ms", Some(timings.total)),
    ];
    let mut out: BTreeMap<String, Value> = phases
        .into_iter()
        .filter_map(|(name, duration)| Some((name.to_owned(), milliseconds(duration?))))
        .collect();
    for (name, text) in [("detail", record.detail), ("note", record.note)] {
        let text = record.text(text);
        if !text.is_empty() {
            out.insert(name.to_owned(), cut(&scrub::text(text), LINE).into());
        }
    }
    if record.resends > 0 {
        out.insert("resends".to_owned(), record.resends.into());
    }
    if let Some(stream) = record.stream {
        out.insert("stream".to_owned(), stream.as_str().into());
    }
    out
}

fn milliseconds(duration: Duration) -> Value {
    // To the microsecond; more digits are noise to a reader.
    (duration.as_micros() as f64 / 1e3).into()
}
