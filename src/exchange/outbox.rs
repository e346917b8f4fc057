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
    pub fn push(&self, record: Record) {
        self.stats.records.increment();
        let size = record.size_bytes();
        let waiting = {
            let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
            if waiting.bytes + size > MAX_BYTES {
                self.stats.records_dropped.increment();
                return;
            }
            waiting.bytes += size;
            waiting.records.push(Arc::new(record));
            waiting.records.len()
        };
        match waiting {
            1 => self.first.notify_one(),
            WAKE_AT => self.reader.notify_one(),
            _ => {}
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
