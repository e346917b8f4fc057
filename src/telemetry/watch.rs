//! Watches what went wrong and what got slow: one reader of records for `/errors`, `/slow` and Sentry.
//!
//! It puts requests and their calls together, for a failure is understood by both. Calls end before the request that made
//! them; but records of several workers come in no order, so where there are such, requests wait a moment for their calls.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::SpanId;
use serde_json::{Value, json};
use tracing::{info, warn};

use super::failures::calls::Calls;
use super::failures::groups::{Groups, Jump};
use super::failures::outage::{Outage, Outages};
use super::failures::{Failure, Severity};
use super::sentry::{Notice, Sentry};
use super::slow::{Shift, Slow, Stage};
use super::words::rfc3339;
use crate::exchange::{Evidence, Record, Side, Sink};
use crate::stats::{Kind, Row};

/// How long a request waits for its calls, where several workers write records: longer than a worker keeps them back.
const PATIENCE: Duration = Duration::from_millis(250);

/// Requests that wait; the next one comes at once then.
const MAX_WAITING: usize = 8192;

/// Memory that what failed exchanges said may take until it is looked at.
const MAX_EVIDENCE: usize = 16 * 1024 * 1024;

/// Time per second that failures may take to be understood. Spans and metrics are made on the same thread, and long error pages
/// take some tenths of a millisecond each.
const MAX_SPENT: Duration = Duration::from_millis(100);

/// What is told of outages, of those before the one that goes on.
const MAX_OUTAGES: usize = 20;

/// Watches records. A handle: clones are one and the same.
#[derive(Clone)]
pub struct Watch(Arc<Mutex<State>>);

struct State {
    calls: Calls,
    groups: Groups,
    slow: Slow,
    outages: Outages,
    past_outages: VecDeque<Outage>,
    sentry: Option<To>,
    /// What failed exchanges said, until they are looked at.
    evidence: HashMap<SpanId, Box<Evidence>>,
    evidence_bytes: usize,
    /// Time that failures took since the last tick.
    spent: Duration,
    /// Failures that were not read for lack of time.
    unread: u64,
    /// Whether records come in no order.
    unordered: bool,
    waiting: VecDeque<(Instant, Arc<Record>)>,
}

/// Where failures are told of.
struct To {
    sentry: Sentry,
    service: String,
    calls: bool,
    slow: bool,
}

impl Watch {
    /// Watches from now on. `unordered`: records of a request may come before those of its calls.
    pub fn new(unordered: bool) -> Self {
        let (now, wall) = (Instant::now(), SystemTime::now());
        Self(Arc::new(Mutex::new(State {
            calls: Calls::default(),
            groups: Groups::new(now, wall),
            slow: Slow::new(now, wall),
            outages: Outages::default(),
            past_outages: VecDeque::new(),
            sentry: None,
            evidence: HashMap::new(),
            evidence_bytes: 0,
            spent: Duration::ZERO,
            unread: 0,
            unordered,
            waiting: VecDeque::new(),
        })))
    }

    /// Keeps what an exchange said whose record comes next, or soon. Returns whether there was room.
    pub fn keep(&self, span: SpanId, evidence: Box<Evidence>) -> bool {
        let mut state = self.lock();
        let bytes = state.evidence_bytes + evidence.size_bytes();
        if bytes > MAX_EVIDENCE {
            return false;
        }
        state.evidence_bytes = bytes;
        state.evidence.insert(span, evidence);
        true
    }

    /// A reader of records.
    pub fn sink(&self) -> impl Sink + use<> {
        WatchSink(self.clone())
    }

    /// Tells `sentry` from now on; `calls` and `slow` are [`config::Sentry`](crate::config::Sentry)'s. Returns the one before.
    pub fn tell(&self, sentry: Option<Sentry>, service: &str, calls: bool, slow: bool) -> Option<Sentry> {
        let to = sentry.map(|sentry| To { sentry, service: service.to_owned(), calls, slow });
        std::mem::replace(&mut self.lock().sentry, to).map(|before| before.sentry)
    }

    /// To be called once a second.
    pub fn tick(&self, now: Instant, wall: SystemTime) {
        let mut state = self.lock();
        state.spent = Duration::ZERO;
        state.let_in(now);
        if let Some(outage) = state.outages.tick(wall) {
            state.tell_outage(outage);
        }
        for jump in state.groups.tick(now, wall) {
            say_jump(&jump);
        }
        for shift in state.slow.tick(now, wall) {
            state.tell_shift(&shift);
        }
    }

    /// Nothing waits any more: tracecar stops.
    pub fn finish(&self) {
        let mut state = self.lock();
        while let Some((_, record)) = state.waiting.pop_front() {
            state.request(&record);
        }
        if let Some(outage) = state.outages.now().cloned() {
            state.tell_outage(outage);
        }
    }

    /// What went wrong: [`Groups::page`], and when the service was not there.
    pub fn errors(&self) -> Value {
        let state = self.lock();
        let mut page = state.groups.page(SystemTime::now());
        let outages = state.outages.now().into_iter().chain(&state.past_outages);
        page["dropped"]["unread"] = state.unread.into();
        page["outages"] = outages.map(outage_json).collect();
        page
    }

    /// What got slow: [`Slow::page`].
    pub fn slow(&self) -> Value {
        self.lock().slow.page()
    }

    /// Numbers for the metrics page.
    pub fn rows(&self) -> Vec<Row> {
        let state = self.lock();
        let mut rows = state.groups.rows();
        rows.extend(state.slow.rows());
        rows.push(Row {
            name: "tracecar_failures_unread",
            help: "Failures that are in no group, for there was no time to read what they said",
            kind: Kind::Counter,
            label: None,
            value: state.unread,
        });
        rows.push(Row {
            name: "tracecar_outages",
            help: "Times in which connections to the service were refused",
            kind: Kind::Counter,
            label: None,
            value: state.outages.seen(),
        });
        rows
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct WatchSink(Watch);

impl Sink for WatchSink {
    fn record(&mut self, record: &Arc<Record>) {
        let mut state = self.0.lock();
        match record.side {
            Side::Outbound => state.call(record),
            Side::Inbound if state.unordered && state.waiting.len() < MAX_WAITING => {
                state.waiting.push_back((Instant::now(), Arc::clone(record)));
            }
            Side::Inbound => state.request(record),
        }
    }

    fn batch_end(&mut self) {
        let mut state = self.0.lock();
        if !state.waiting.is_empty() {
            state.let_in(Instant::now());
        }
    }
}

impl State {
    fn evidence_of(&mut self, record: &Record) -> Option<Box<Evidence>> {
        if self.evidence.is_empty() {
            return None;
        }
        let evidence = self.evidence.remove(&record.identity.span_id)?;
        self.evidence_bytes -= evidence.size_bytes();
        Some(evidence)
    }

    fn let_in(&mut self, now: Instant) {
        while let Some((since, _)) = self.waiting.front()
            && now.saturating_duration_since(*since) >= PATIENCE
            && let Some((_, record)) = self.waiting.pop_front()
        {
            self.request(&record);
        }
    }

    fn call(&mut self, record: &Arc<Record>) {
        self.slow.called(record);
        let evidence = self.evidence_of(record);
        let failed = record.failed();
        self.groups.finished(record, failed);
        // A remote parent is a span that the service made itself: whose it is, nobody here knows.
        let parent = record.identity.parent.filter(|_| !record.identity.remote);
        if let Some(parent) = parent {
            self.calls.keep(parent, record);
        }
        if failed {
            // With a request, it is told of with the request.
            let told = self.sentry.as_ref().is_some_and(|to| to.calls) && parent.is_none();
            self.failed(record, Vec::new(), evidence, told);
        }
        if let Some(to) = self.sentry.as_ref().filter(|_| parent.is_none()) {
            to.sentry.transaction(record, &[]);
        }
    }

    fn request(&mut self, record: &Arc<Record>) {
        let calls = self.calls.take(record.identity.span_id);
        let evidence = self.evidence_of(record);
        self.slow.finished(record, &calls);
        self.outages.finished(record);
        let failed = Failure::is_one(record);
        self.groups.finished(record, failed);
        if let Some(to) = &self.sentry {
            to.sentry.transaction(record, &calls);
        }
        if failed {
            // All that an outage refuses is one event.
            self.failed(record, calls, evidence, !Outages::is_refusal(record));
        }
    }

    /// Counts a failure in its group, and tells of it where that is wanted.
    fn failed(
        &mut self,
        record: &Arc<Record>,
        calls: Vec<Arc<Record>>,
        evidence: Option<Box<Evidence>>,
        told: bool,
    ) {
        let to = self.sentry.as_ref().filter(|_| told);
        if evidence.is_some() && self.spent >= MAX_SPENT {
            self.unread += 1;
            if let Some(to) = to {
                to.sentry.leave_out();
            }
            return;
        }
        let begun = Instant::now();
        let failure = Failure::of(Arc::clone(record), calls, evidence);
        self.groups.failed(&failure, SystemTime::now());
        if let Some(to) = to {
            to.sentry.event(&failure);
        }
        self.spent += begun.elapsed();
    }

    fn tell_outage(&mut self, outage: Outage) {
        let Outage { began_at, ended_at, last_at, requests, first } = outage;
        match ended_at {
            Some(ended_at) => {
                let lasted = ended_at.duration_since(began_at).unwrap_or_default();
                warn!(requests, ?lasted, "the service is there again; it had refused connections");
                self.past_outages.push_front(outage);
                self.past_outages.truncate(MAX_OUTAGES);
            }
            None => warn!(requests, since = rfc3339(began_at, 3), "the service refuses connections"),
        }
        let Some(to) = &self.sentry else { return };
        to.sentry.notice(&Notice {
            title: format!("{} refuses connections", to.service),
            level: Severity::Fatal,
            group: vec![to.service.clone(), "outage".to_owned()],
            began_at,
            ended_at,
            details: BTreeMap::from([
                ("requests_refused".to_owned(), requests.to_string()),
                ("last_refused_at".to_owned(), rfc3339(last_at, 3)),
            ]),
            tags: BTreeMap::new(),
            trace: Some(first),
        });
    }

    fn tell_shift(&self, shift: &Shift) {
        let place = &*shift.place;
        let (before_ms, after_ms) = (shift.before_ms, shift.after_ms);
        let cause = shift.cause().map_or("several", |part| &part.name);
        match shift.stage {
            Stage::Ended(end) => info!(place, why = end.as_str(), "no longer slower than before"),
            Stage::Began | Stage::Worse => {
                warn!(place, quantile = shift.quantile, before_ms, after_ms, cause, "slower than before");
            }
        }
        let Some(to) = self.sentry.as_ref().filter(|to| to.slow) else { return };
        // That it is over is told with the same event: whoever was woken wants to know.
        let part = |part: &super::slow::Part| {
            (
                format!("{} {}", part.kind.as_str(), part.name),
                format!("{:.1} -> {:.1} ms", part.before_ms, part.after_ms),
            )
        };
        let mut details: BTreeMap<String, String> = shift.parts.iter().map(part).collect();
        details.insert("cause".to_owned(), cause.to_owned());
        to.sentry.notice(&Notice {
            title: format!("{place} is slower: p{} {before_ms:.0} -> {after_ms:.0} ms", shift.quantile),
            level: shift.severity,
            group: vec![to.service.clone(), "slow".to_owned(), place.to_owned()],
            began_at: shift.began_at,
            ended_at: shift.ended_at,
            details,
            tags: BTreeMap::new(),
            trace: None,
        });
    }
}

fn say_jump(jump: &Jump) {
    let place = &*jump.place;
    let (before, after) = (jump.share_before, jump.share_after);
    match jump.end {
        Some(end) => info!(place, why = end.as_str(), "fails no more often than before"),
        None => warn!(place, before, after, "fails more often than before"),
    }
}

fn outage_json(outage: &Outage) -> Value {
    let lasted = outage.ended_at.map(|ended| ended.duration_since(outage.began_at).unwrap_or_default());
    json!({
        "began_at": rfc3339(outage.began_at, 3),
        "ended_at": outage.ended_at.map(|at| rfc3339(at, 3)),
        "lasted_s": lasted.map(|lasted| lasted.as_secs_f64()),
        "last_refused_at": rfc3339(outage.last_at, 3),
        "requests_refused": outage.requests,
        "first_trace_id": outage.first.trace_id.to_string(),
    })
}

#[cfg(test)]
mod tests;
