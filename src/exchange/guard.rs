//! Opens exchanges, and closes each exactly once.
//!
//! [`Exchange`] is a guard: whatever way the request path ends, by an answer, an error, a dropped future or a
//! panic, one [`Record`] comes out. Dropping alone cannot tell who left; the [`Recorder`] knows whether tracecar
//! is being stopped, and otherwise it was the caller.

use std::cell::RefCell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant, SystemTime};

use opentelemetry::trace::{SpanId, TraceId};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::outbox::Outbox;
use super::outcome::Outcome;
use super::record::{Identity, Record, RequestFacts, Stream};
use super::sampler::Sampler;
use crate::propagation::Context;
use crate::stats::Stats;

/// Room for the strings of an ordinary request, in bytes.
const TEXT_BYTES: usize = 192;

/// Opens exchanges on one worker.
#[derive(Debug)]
pub struct Recorder {
    outbox: Arc<Outbox>,
    stats: Arc<Stats>,
    draining: Arc<AtomicBool>,
}

/// Whether an exchange leaves a record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Keep {
    /// It does.
    Always,
    /// Only if it fails: it is excluded, and `keep_failures` is on.
    IfFailed,
    /// It does not: it is excluded.
    Never,
}

impl Recorder {
    /// A recorder that puts records into `outbox`. `draining` is set when requests in flight are cut off because
    /// tracecar stops.
    pub fn new(outbox: Arc<Outbox>, stats: Arc<Stats>, draining: Arc<AtomicBool>) -> Arc<Self> {
        Arc::new(Self { outbox, stats, draining })
    }

    /// Opens an exchange: its clock starts now. A caller's context is continued, with a new span id and the
    /// sampler's decision (CTX-11, SMP-4); without one a trace begins, with random ids (CTX-10, SMP-13).
    pub fn begin(
        self: &Arc<Self>,
        peer: SocketAddr,
        parent: Option<&Context>,
        sampler: &Sampler,
    ) -> Exchange {
        self.stats.requests_active.increment();
        let (fresh_trace, span_id) = random_ids();
        let trace_id = parent.map_or(fresh_trace, |context| context.trace_id);
        // The random flag belongs to the trace id: kept as it came, set on ids that we drew (CTX-10).
        let random = parent.map_or(Context::RANDOM, |context| context.flags & Context::RANDOM);
        let sampled = sampler.samples(trace_id, parent.map(Context::sampled));
        let identity = Identity {
            trace_id,
            span_id,
            parent: parent.map(|context| context.span_id),
            flags: random | u8::from(sampled),
        };
        let mut record = Box::new(Record::new(identity, SystemTime::now(), peer));
        record.texts.reserve(TEXT_BYTES);
        let open = Open { record, begun: Instant::now(), keep: Keep::Always };
        Exchange { open: Some(open), recorder: self.clone() }
    }
}

/// A trace id and a span id: drawn from a generator per thread, seeded by the operating system.
fn random_ids() -> (TraceId, SpanId) {
    with_random(|random| {
        // An all-zero id is invalid (CTX-3).
        (TraceId::from(random.random::<u128>().max(1)), SpanId::from(random.random::<u64>().max(1)))
    })
}

/// Random bytes for ids that are not secrets.
pub(crate) fn random_bytes<const N: usize>() -> [u8; N] {
    with_random(|random| {
        let mut bytes = [0; N];
        random.fill(&mut bytes[..]);
        bytes
    })
}

fn with_random<T>(draw: impl FnOnce(&mut SmallRng) -> T) -> T {
    thread_local! {
        static RANDOM_SOURCE: RefCell<SmallRng> = RefCell::new(SmallRng::from_os_rng());
    }
    RANDOM_SOURCE.with_borrow_mut(draw)
}

/// One request and its response, open until it is finished or dropped.
#[derive(Debug)]
pub struct Exchange {
    open: Option<Open>,
    recorder: Arc<Recorder>,
}

#[derive(Debug)]
struct Open {
    record: Box<Record>,
    begun: Instant,
    keep: Keep,
}

impl Exchange {
    /// The record in the making, for the path to note facts on.
    pub fn record(&mut self) -> &mut Record {
        &mut self.open_mut().record
    }

    /// Where this exchange stands in its trace.
    pub fn identity(&self) -> Identity {
        self.open().record.identity
    }

    /// The context to send on, as the parent of what comes next.
    pub fn context(&self, tracestate: Option<http::HeaderValue>) -> Context {
        let Identity { trace_id, span_id, flags, .. } = self.identity();
        Context { trace_id, span_id, flags, tracestate }
    }

    /// Notes what the request says. `facts` copies its strings into the record.
    pub fn note_request(&mut self, facts: impl FnOnce(&mut Record) -> RequestFacts) {
        let record = self.record();
        let facts = facts(record);
        record.request = Some(facts);
    }

    /// Notes that a status is on its way to the caller.
    pub fn note_status(&mut self, status: u16, stream: Option<Stream>) {
        let record = self.record();
        record.status = Some(status);
        record.stream = stream;
    }

    /// Says whether this exchange leaves a record.
    pub fn keep(&mut self, keep: Keep) {
        let open = self.open_mut();
        open.keep = keep;
        open.record.excluded = keep != Keep::Always;
    }

    /// When the exchange began.
    pub fn begun(&self) -> Instant {
        self.open().begun
    }

    /// Time since the exchange began.
    pub fn elapsed(&self) -> Duration {
        self.open().begun.elapsed()
    }

    /// Closes the exchange.
    pub fn finish(mut self, outcome: Outcome) {
        self.close(outcome);
    }

    fn close(&mut self, outcome: Outcome) {
        let Some(Open { mut record, begun, keep }) = self.open.take() else {
            return;
        };
        self.recorder.stats.requests_active.decrement();
        record.outcome = outcome;
        record.timings.total = begun.elapsed();
        let kept = match keep {
            Keep::Always => true,
            Keep::IfFailed => record.failed(),
            Keep::Never => false,
        };
        if kept {
            self.recorder.outbox.push(*record);
        }
    }

    fn open(&self) -> &Open {
        self.open.as_ref().expect("only finish and drop take it, and both end the exchange")
    }

    fn open_mut(&mut self) -> &mut Open {
        self.open.as_mut().expect("only finish and drop take it, and both end the exchange")
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        let Some(open) = &self.open else {
            return;
        };
        let outcome = if std::thread::panicking() {
            Outcome::Panicked
        } else if self.recorder.draining.load(Ordering::Relaxed) {
            Outcome::Drained
        } else if open.record.status.is_some() {
            Outcome::ClientGoneDuringResponse
        } else {
            Outcome::ClientGoneBeforeResponse
        };
        self.close(outcome);
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::Notify;

    use super::*;

    fn recorder() -> (Arc<Recorder>, Arc<Outbox>, Arc<AtomicBool>) {
        let stats = Arc::new(Stats::default());
        let outbox = Arc::new(Outbox::new(Arc::new(Notify::new()), stats.clone()));
        let draining = Arc::new(AtomicBool::new(false));
        (Recorder::new(outbox.clone(), stats, draining.clone()), outbox, draining)
    }

    fn begin(recorder: &Arc<Recorder>) -> Exchange {
        recorder.begin(SocketAddr::from(([127, 0, 0, 1], 1)), None, &Sampler::default())
    }

    #[test]
    fn a_dropped_exchange_leaves_one_record_that_says_when_the_caller_left() {
        let (recorder, outbox, draining) = recorder();
        drop(begin(&recorder));
        let mut answered = begin(&recorder);
        answered.note_status(200, None);
        drop(answered);
        draining.store(true, Ordering::Relaxed);
        drop(begin(&recorder));
        let outcomes: Vec<_> = outbox.take(Vec::new()).iter().map(|record| record.outcome).collect();
        assert_eq!(
            outcomes,
            [Outcome::ClientGoneBeforeResponse, Outcome::ClientGoneDuringResponse, Outcome::Drained]
        );
        assert_eq!(recorder.stats.requests_active.value(), 0);
    }

    #[test]
    fn a_panic_is_recorded_as_ours() {
        let (recorder, outbox, _) = recorder();
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
            let _exchange = begin(&recorder);
            panic!("on purpose");
        }));
        assert!(result.is_err());
        assert_eq!(outbox.take(Vec::new())[0].outcome, Outcome::Panicked);
    }

    #[test]
    fn an_excluded_exchange_is_kept_only_if_it_fails() {
        let (recorder, outbox, _) = recorder();
        for (keep, status) in [(Keep::IfFailed, 200), (Keep::IfFailed, 503), (Keep::Never, 503)] {
            let mut exchange = begin(&recorder);
            exchange.keep(keep);
            exchange.note_status(status, None);
            exchange.finish(Outcome::Complete);
        }
        let records = outbox.take(Vec::new());
        assert_eq!(records.len(), 1);
        assert!(records[0].excluded && records[0].status == Some(503));
    }

    #[test]
    fn a_new_trace_has_the_random_flag_and_a_continued_one_keeps_its_own() {
        let (recorder, _outbox, _) = recorder();
        assert_eq!(begin(&recorder).identity().flags, 3);
        let parent = Context {
            trace_id: TraceId::from(7_u128),
            span_id: SpanId::from(8_u64),
            flags: 1,
            tracestate: None,
        };
        let peer = SocketAddr::from(([127, 0, 0, 1], 1));
        let continued = recorder.begin(peer, Some(&parent), &Sampler::default()).identity();
        assert_eq!(continued.flags, 1);
        assert_eq!((continued.trace_id, continued.parent), (parent.trace_id, Some(parent.span_id)));
        assert_ne!(continued.span_id, parent.span_id);
    }
}
