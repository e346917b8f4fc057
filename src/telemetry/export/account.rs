//! What became of every span, in numbers that add up at every moment.
//!
//! `accepted = exported + queued + dropped`, where queued includes what is on its way. Each change is one step
//! under one lock, and counts only what the collector has answered: a span that was sent and not acknowledged is
//! still queued.

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use crate::stats::{Kind, Row};

/// Why a span was not exported.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// It arrived when the queue held as many spans or bytes as it may (ENV-22).
    QueueFull,
    /// The collector refused its batch, and repeating would not help (OTLP-26).
    Rejected,
    /// The collector took its batch but for some spans, of which this is one (OTLP-25).
    Partial,
    /// It is larger than a request may be (OTLP-8).
    TooLarge,
    /// Its batch was tried for as long as batches are tried.
    RetryExpired,
    /// tracecar stopped before the collector had acknowledged it.
    Shutdown,
}

impl Dropped {
    /// Every reason, for tables and tests.
    pub const ALL: [Dropped; 6] = [
        Dropped::QueueFull,
        Dropped::Rejected,
        Dropped::Partial,
        Dropped::TooLarge,
        Dropped::RetryExpired,
        Dropped::Shutdown,
    ];

    /// The word in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Dropped::QueueFull => "queue_full",
            Dropped::Rejected => "rejected",
            Dropped::Partial => "partial",
            Dropped::TooLarge => "too_large",
            Dropped::RetryExpired => "retry_expired",
            Dropped::Shutdown => "shutdown",
        }
    }
}

/// The account at one moment. All numbers are of spans, unless they say otherwise.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Sampled spans that were handed to the exporter, whatever became of them.
    pub accepted: u64,
    /// Acknowledged by the collector.
    pub exported: u64,
    /// Waiting, or on their way.
    pub queued: u64,
    /// Memory that queued spans hold, in bytes.
    pub queued_bytes: u64,
    /// When a batch was last acknowledged.
    pub last_success: Option<SystemTime>,
    /// Attempts that failed.
    pub failures: u64,
    /// Attempts that failed since the last that did not.
    pub consecutive_failures: u64,
    dropped: [u64; Dropped::ALL.len()],
}

impl Snapshot {
    /// Dropped for this reason.
    pub fn dropped(&self, reason: Dropped) -> u64 {
        self.dropped[reason as usize]
    }

    /// Dropped for any reason.
    pub fn lost(&self) -> u64 {
        self.dropped.iter().sum()
    }

    /// Whether every accepted span is accounted for. Always true.
    pub fn adds_up(&self) -> bool {
        self.accepted == self.exported + self.queued + self.lost()
    }

    fn drop(&mut self, reason: Dropped, spans: u64) {
        self.dropped[reason as usize] += spans;
    }

    fn leave_queue(&mut self, spans: u64, bytes: u64) {
        self.queued -= spans;
        self.queued_bytes -= bytes;
    }
}

/// What became of every span of one exporter.
#[derive(Debug)]
pub struct Account {
    totals: Mutex<Totals>,
}

#[derive(Debug)]
struct Totals {
    now: Snapshot,
    max_spans: u64,
    max_bytes: u64,
    closed: bool,
}

impl Account {
    pub(super) fn new(max_spans: usize, max_bytes: usize) -> Self {
        let (max_spans, max_bytes) = (max_spans as u64, max_bytes as u64);
        let totals = Totals { now: Snapshot::default(), max_spans, max_bytes, closed: false };
        Self { totals: Mutex::new(totals) }
    }

    /// Bounds the queue anew. What is in it stays in it.
    pub(super) fn bound(&self, max_spans: usize, max_bytes: usize) {
        let mut totals = self.totals();
        (totals.max_spans, totals.max_bytes) = (max_spans as u64, max_bytes as u64);
    }

    /// The account now.
    pub fn snapshot(&self) -> Snapshot {
        self.totals().now
    }

    /// The account as rows of the metrics page, those of one name next to each other.
    pub fn rows(&self) -> Vec<Row> {
        let now = self.snapshot();
        let row = |name, kind, help, value| Row { name, help, kind, label: None, value };
        let seconds = |time: SystemTime| time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        let mut rows = vec![
            row(
                "tracecar_export_spans_accepted",
                Kind::Counter,
                "Sampled spans handed to the exporter.",
                now.accepted,
            ),
            row(
                "tracecar_export_spans_exported",
                Kind::Counter,
                "Spans that the collector acknowledged.",
                now.exported,
            ),
            row("tracecar_export_spans_queued", Kind::Gauge, "Spans waiting, or on their way.", now.queued),
        ];
        rows.extend(Dropped::ALL.map(|reason| Row {
            label: Some(("reason", reason.as_str().into())),
            ..row(
                "tracecar_export_spans_dropped",
                Kind::Counter,
                "Spans that were not exported.",
                now.dropped(reason),
            )
        }));
        rows.extend([
            row(
                "tracecar_export_queue_bytes",
                Kind::Gauge,
                "Memory that queued spans hold.",
                now.queued_bytes,
            ),
            row("tracecar_export_failures", Kind::Counter, "Attempts to export that failed.", now.failures),
            row(
                "tracecar_export_consecutive_failures",
                Kind::Gauge,
                "Attempts to export that failed since the last that did not.",
                now.consecutive_failures,
            ),
            row(
                "tracecar_export_last_success_timestamp_seconds",
                Kind::Gauge,
                "When the collector last acknowledged spans; 0 for never.",
                now.last_success.map_or(0, seconds),
            ),
        ]);
        rows
    }

    /// Takes note of a span that arrives, and says whether it may enter the queue. What is on its way still
    /// counts: it still holds memory.
    pub(super) fn admit(&self, bytes: u64) -> bool {
        let mut totals = self.totals();
        let Totals { now, max_spans, max_bytes, closed } = &mut *totals;
        now.accepted += 1;
        if *closed {
            now.drop(Dropped::Shutdown, 1);
            return false;
        }
        if now.queued >= *max_spans || now.queued_bytes + bytes > *max_bytes {
            now.drop(Dropped::QueueFull, 1);
            return false;
        }
        now.queued += 1;
        now.queued_bytes += bytes;
        true
    }

    /// The collector took a batch, but for `rejected` of its spans.
    pub(super) fn exported(&self, spans: u64, rejected: u64, bytes: u64) {
        let mut totals = self.totals();
        let now = &mut totals.now;
        let rejected = rejected.min(spans);
        now.leave_queue(spans, bytes);
        now.exported += spans - rejected;
        now.drop(Dropped::Partial, rejected);
        now.last_success = Some(SystemTime::now());
        now.consecutive_failures = 0;
    }

    /// A batch was given up.
    pub(super) fn dropped(&self, reason: Dropped, spans: u64, bytes: u64) {
        let mut totals = self.totals();
        totals.now.leave_queue(spans, bytes);
        totals.now.drop(reason, spans);
    }

    /// An attempt failed.
    pub(super) fn failed(&self) {
        let mut totals = self.totals();
        totals.now.failures += 1;
        totals.now.consecutive_failures += 1;
    }

    /// Nobody exports any more: what is queued, and what still arrives, is lost. Returns how many were queued.
    pub(super) fn close(&self) -> u64 {
        let mut totals = self.totals();
        totals.closed = true;
        let (spans, bytes) = (totals.now.queued, totals.now.queued_bytes);
        totals.now.leave_queue(spans, bytes);
        totals.now.drop(Dropped::Shutdown, spans);
        spans
    }

    fn totals(&self) -> MutexGuard<'_, Totals> {
        // No step can panic between its two halves, so that the numbers behind a poisoned lock still add up.
        self.totals.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_adds_up_after_every_step() {
        let account = Account::new(4, 1000);
        let check = || assert!(account.snapshot().adds_up(), "{:?}", account.snapshot());
        for _ in 0..6 {
            account.admit(100);
            check();
        }
        account.exported(2, 1, 200);
        check();
        account.failed();
        account.dropped(Dropped::RetryExpired, 1, 100);
        check();
        assert_eq!(account.close(), 1);
        check();
        assert!(!account.admit(1), "nothing enters a closed queue");
        check();
        let now = account.snapshot();
        assert_eq!((now.accepted, now.exported, now.queued, now.queued_bytes), (7, 1, 0, 0));
        assert_eq!(Dropped::ALL.map(|reason| now.dropped(reason)), [2, 0, 1, 0, 1, 2]);
    }

    #[test]
    fn the_queue_is_bounded_in_bytes_too() {
        let account = Account::new(100, 250);
        assert_eq!([100, 100, 100, 50].map(|bytes| account.admit(bytes)), [true, true, false, true]);
        assert_eq!(account.snapshot().dropped(Dropped::QueueFull), 1);
    }

    #[test]
    fn a_collector_cannot_reject_more_than_it_was_sent() {
        let account = Account::new(10, 1000);
        account.admit(1);
        account.exported(1, u64::MAX, 1);
        assert_eq!(account.snapshot().dropped(Dropped::Partial), 1);
        assert!(account.snapshot().adds_up());
    }

    #[test]
    fn every_reason_has_its_row_next_to_the_others() {
        let rows = Account::new(1, 1).rows();
        let places: Vec<_> =
            (0..rows.len()).filter(|row| rows[*row].name == "tracecar_export_spans_dropped").collect();
        assert_eq!(places.len(), Dropped::ALL.len());
        assert_eq!(places[places.len() - 1] - places[0], Dropped::ALL.len() - 1);
    }
}
