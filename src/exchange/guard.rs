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

use super::lineage::{BodyReader, OpenExchange};
use super::outbox::Outbox;
use super::outcome::Outcome;
use super::record::{Identity, Record, RequestFacts, Side, Stream};
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

    /// Opens an exchange: its clock starts when the request came, which is now unless `start` says otherwise. A trace is continued with a new span id and the sampler's decision
    /// (CTX-11, SMP-4), or begins with random ids (CTX-10, SMP-13).
    pub fn begin(self: &Arc<Self>, start: Start, sampler: &Sampler) -> Exchange {
        self.stats.requests_active.increment();
        let (fresh_trace, span_id) = random_ids();
        let Start { side, peer, trace, parent, remote, sampled, arrived } = start;
        if side == Side::Outbound {
            self.stats.calls_active.increment();
        }
        let (trace_id, random) = trace.unwrap_or((fresh_trace, Context::RANDOM));
        let sampled = sampler.samples(trace_id, sampled);
        let identity = Identity { trace_id, span_id, parent, remote, flags: random | u8::from(sampled) };
        let (started_at, begun) = arrived.unwrap_or_else(|| (SystemTime::now(), Instant::now()));
        let mut record = Box::new(Record::new(side, identity, started_at, peer));
        record.texts.reserve(TEXT_BYTES);
        let open = Open { record, begun, keep: Keep::Always, searched: None };
        Exchange { open: Some(open), recorder: self.clone() }
    }
}

/// How an exchange begins: which way it goes, and what is known of its trace.
#[derive(Clone, Copy, Debug)]
pub struct Start {
    side: Side,
    peer: Option<SocketAddr>,
    /// The trace that is continued, and the random bit that belongs to its id: kept as it came, set on ids that we
    /// draw (CTX-10).
    trace: Option<(TraceId, u8)>,
    parent: Option<SpanId>,
    remote: bool,
    sampled: Option<bool>,
    /// When the request came, where that was not just now.
    arrived: Option<(SystemTime, Instant)>,
}

impl Start {
    /// A new trace.
    pub fn new(side: Side, peer: Option<SocketAddr>) -> Self {
        Self { side, peer, trace: None, parent: None, remote: false, sampled: None, arrived: None }
    }

    /// The request came then: whatever was waited for since is part of its time.
    pub fn arrived(self, at: SystemTime, instant: Instant) -> Self {
        Self { arrived: Some((at, instant)), ..self }
    }

    /// Goes on with the trace of `context`, whose span is the parent. `remote` says that the span is somebody else's.
    pub fn child_of(self, context: &Context, remote: bool) -> Self {
        Self { parent: Some(context.span_id), remote, ..self.within(context.trace_id, context.flags) }
            .follow(Some(context.sampled()))
    }

    /// Goes on with a trace of which no span is known.
    pub fn within(self, trace_id: TraceId, flags: u8) -> Self {
        Self { trace: Some((trace_id, flags & Context::RANDOM)), ..self }
    }

    /// The decision that a parent-based sampler follows; `None` leaves it to our own.
    pub fn follow(self, sampled: Option<bool>) -> Self {
        Self { sampled, ..self }
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
    /// Keeps the exchange among those that calls of the service may belong to.
    searched: Option<OpenExchange>,
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
        Context { trace_id, span_id, flags, tracestate, debug: false }
    }

    /// Notes what the request says. `facts` copies its strings into the record.
    pub fn note_request(&mut self, facts: impl FnOnce(&mut Record) -> RequestFacts) {
        let record = self.record();
        let facts = facts(record);
        record.request = Some(facts);
    }

    /// Notes that a status is on its way to the caller.
    pub fn note_status(&mut self, status: u16, stream: Option<Stream>) {
        let open = self.open_mut();
        open.record.status = Some(status);
        open.record.stream = stream;
        if let (Some(_), Some(searched)) = (stream, &open.searched) {
            // Whoever listens for hours is not the cause of all that happens meanwhile.
            searched.streams();
        }
    }

    /// Notes the version in which a destination answered. That of a request from the network was its caller's to choose.
    pub fn note_spoken(&mut self, version: http::Version) {
        let record = self.record();
        if record.side == Side::Outbound
            && let Some(request) = &mut record.request
        {
            request.version = version;
        }
    }

    /// No byte of the response has left for the caller. A status that was not sent is none (SEM-25); but one that was
    /// received from a destination was, whoever listens.
    pub fn not_answered(&mut self) {
        let record = self.record();
        if record.side == Side::Inbound {
            record.status = None;
        }
    }

    /// Says whether this exchange leaves a record.
    pub fn keep(&mut self, keep: Keep) {
        let open = self.open_mut();
        open.keep = keep;
        open.record.excluded = keep != Keep::Always;
    }

    /// Calls of the service may belong to this exchange for as long as it is open, and a while longer.
    pub fn searched(&mut self, open: OpenExchange) {
        self.open_mut().searched = Some(open);
    }

    /// Whom to tell what is in the request's body; `None` where calls are not searched for.
    pub fn reader(&self) -> Option<BodyReader> {
        self.open().searched.as_ref()?.reader()
    }

    /// The request is handed to the service on the connection between these two addresses, ours first.
    pub fn handed_over(&self, local: SocketAddr, peer: SocketAddr) {
        if let Some(searched) = &self.open().searched {
            searched.handed_over(local, peer);
        }
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
        let Some(Open { mut record, begun, keep, .. }) = self.open.take() else {
            return;
        };
        self.recorder.stats.requests_active.decrement();
        if record.side == Side::Outbound {
            self.recorder.stats.calls_active.decrement();
        }
        record.outcome = outcome;
        record.timings.total = begun.elapsed();
        // It is gathered before anybody knows how the exchange ends.
        if !record.chosen && !record.failed() {
            record.evidence = None;
        }
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
mod tests;
