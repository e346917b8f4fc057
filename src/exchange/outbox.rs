//! Hands finished records from a worker to the telemetry thread.
//!
//! Waking another thread costs more than all the rest of tracing a request, so it is done once per batch: when
//! [`WAKE_AT`] records wait, or when the worker's own timer says that the first of them has waited long enough.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;

use super::record::Record;
use crate::stats::Stats;

/// Records that wait before the telemetry thread is woken at once.
const WAKE_AT: usize = 256;

/// The longest that a record waits for others.
const LINGER: Duration = Duration::from_millis(100);

/// Memory that records may take while the telemetry thread does not come for them. About 0.2 s of one busy core.
const MAX_BYTES: usize = 8 * 1024 * 1024;

/// Memory from which on what failed exchanges said is left out, so that a storm of errors costs no records.
const MAX_WITH_EVIDENCE: usize = MAX_BYTES / 2;

/// Memory at which the telemetry thread is woken at once.
const WAKE_AT_BYTES: usize = MAX_BYTES / 8;

/// One worker's finished records, bounded in bytes.
#[derive(Debug)]
pub struct Outbox {
    waiting: Mutex<Waiting>,
    /// Wakes this worker's own [`Outbox::linger`] task: cheap, since no other thread is involved.
    first: Notify,
    /// Wakes the telemetry thread; shared by all workers.
    reader: Arc<Notify>,
    stats: Arc<Stats>,
}

#[derive(Debug, Default)]
struct Waiting {
    records: Vec<Arc<Record>>,
    bytes: usize,
}

impl Outbox {
    /// An empty outbox that wakes `reader`.
    pub fn new(reader: Arc<Notify>, stats: Arc<Stats>) -> Self {
        Self { waiting: Mutex::default(), first: Notify::new(), reader, stats }
    }

    /// Puts a record in, or drops and counts it where there is no room.
    pub fn push(&self, mut record: Record) {
        self.stats.records.increment();
        let mut size = record.size_bytes();
        let (waiting, wakes) = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.bytes + size > MAX_WITH_EVIDENCE && record.evidence.take().is_some() {
                self.stats.evidence_dropped.increment();
                size = record.size_bytes();
            }
            if waiting.bytes + size > MAX_BYTES {
                self.stats.records_dropped.increment();
                return;
            }
            let before = waiting.bytes;
            waiting.bytes += size;
            waiting.records.push(Arc::new(record));
            (waiting.records.len(), before < WAKE_AT_BYTES && waiting.bytes >= WAKE_AT_BYTES)
        };
        if waiting == 1 {
            self.first.notify_one();
        }
        if wakes || waiting == WAKE_AT {
            self.reader.notify_one();
        }
    }

    /// Takes everything that waits, in order, leaving `empty` (cleared) in its place.
    pub fn take(&self, mut empty: Vec<Arc<Record>>) -> Vec<Arc<Record>> {
        empty.clear();
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.bytes = 0;
        std::mem::replace(&mut waiting.records, empty)
    }

    /// Runs on the worker for as long as it lives: wakes the reader when the first record has waited long enough.
    pub async fn linger(&self) {
        loop {
            self.first.notified().await;
            tokio::time::sleep(LINGER).await;
            self.reader.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::Evidence;
    use crate::exchange::record::tests::sample;

    #[test]
    fn a_full_outbox_drops_and_counts() {
        let stats = Arc::new(Stats::default());
        let outbox = Outbox::new(Arc::new(Notify::new()), stats.clone());
        let fits = MAX_BYTES / sample().size_bytes();
        for _ in 0..fits + 3 {
            outbox.push(sample());
        }
        assert_eq!(stats.records_dropped.value(), 3);
        assert_eq!(outbox.take(Vec::new()).len(), fits);
        outbox.push(sample());
        assert_eq!(outbox.take(Vec::new()).len(), 1, "room again after the reader came");
    }

    #[test]
    fn a_storm_of_errors_costs_what_they_said_and_no_record() {
        let stats = Arc::new(Stats::default());
        let outbox = Outbox::new(Arc::new(Notify::new()), stats.clone());
        let failed = || {
            let mut record = sample();
            record.evidence =
                Some(Box::new(Evidence { content: vec![b'x'; 64 * 1024], ..Evidence::default() }));
            record
        };
        for _ in 0..500 {
            outbox.push(failed());
        }
        assert_eq!((stats.records_dropped.value(), outbox.take(Vec::new()).len()), (0, 500));
        assert!((430..440).contains(&stats.evidence_dropped.value()), "{}", stats.evidence_dropped.value());
    }

    #[tokio::test(start_paused = true)]
    async fn a_lone_record_reaches_the_reader_after_the_linger() {
        let reader = Arc::new(Notify::new());
        let outbox = Outbox::new(reader.clone(), Arc::new(Stats::default()));
        outbox.push(sample());
        let begun = tokio::time::Instant::now();
        tokio::select! {
            () = outbox.linger() => unreachable!("it never ends"),
            () = reader.notified() => {}
        }
        assert_eq!(begun.elapsed(), LINGER);
    }
}
