//! What became of every event and transaction, in numbers that add up at every moment.
//!
//! `accepted = sent + queued + dropped`, where queued includes what is on its way. An account outlives the settings: whoever
//! sends next goes on with it.

use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::stats::{Kind as RowKind, Row};

/// What is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A failure, or a notice.
    Event,
    /// A request and its calls.
    Transaction,
}

impl Kind {
    /// Both, for tables.
    pub const ALL: [Kind; 2] = [Kind::Event, Kind::Transaction];

    /// The word in the metrics, and Sentry's name of the item.
    pub fn as_str(self) -> &'static str {
        match self {
            Kind::Event => "event",
            Kind::Transaction => "transaction",
        }
    }
}

/// Why something was not sent, or not taken.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Dropped {
    /// Its group had its share of this minute.
    BurstGroup,
    /// All groups together had theirs.
    Burst,
    /// Only a share is sent, and it is not in it.
    Sampled,
    /// Sentry asked for none for a while (SEN-5).
    RateLimited,
    /// It came when as many were waiting as may wait.
    QueueFull,
    /// It is larger than Sentry takes, by our limit or by Sentry's word (413).
    TooLarge,
    /// Sentry answered that it is not acceptable (4xx).
    Refused,
    /// It was sent, or tried to, and no answer came, or 5xx. That is not tried again (SEN-6).
    Failed,
    /// tracecar stopped sending before its turn came.
    Shutdown,
}

impl Dropped {
    /// Every reason, for tables and tests.
    pub const ALL: [Dropped; 9] = [
        Dropped::BurstGroup,
        Dropped::Burst,
        Dropped::Sampled,
        Dropped::RateLimited,
        Dropped::QueueFull,
        Dropped::TooLarge,
        Dropped::Refused,
        Dropped::Failed,
        Dropped::Shutdown,
    ];

    /// The word in the metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Dropped::BurstGroup => "burst_group",
            Dropped::Burst => "burst",
            Dropped::Sampled => "sampled",
            Dropped::RateLimited => "rate_limited",
            Dropped::QueueFull => "queue_full",
            Dropped::TooLarge => "too_large",
            Dropped::Refused => "refused",
            Dropped::Failed => "failed",
            Dropped::Shutdown => "shutdown",
        }
    }
}

/// The account at one moment, in events and transactions.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// Handed in, whatever became of them.
    pub accepted: u64,
    /// Waiting, or on their way.
    pub queued: u64,
    sent: [u64; Kind::ALL.len()],
    dropped: [u64; Dropped::ALL.len()],
}

impl Snapshot {
    /// Of this kind, taken by Sentry.
    pub fn sent(&self, kind: Kind) -> u64 {
        self.sent[kind as usize]
    }

    /// Dropped for this reason.
    pub fn dropped(&self, reason: Dropped) -> u64 {
        self.dropped[reason as usize]
    }

    /// Dropped, though somebody would have wanted it: for any reason but that of being left out on purpose.
    pub fn lost(&self) -> u64 {
        self.dropped.iter().sum::<u64>() - self.dropped(Dropped::Sampled)
    }

    /// Whether all that was accepted is accounted for. Always true.
    pub fn adds_up(&self) -> bool {
        let dropped: u64 = self.dropped.iter().sum();
        self.accepted == self.sent.iter().sum::<u64>() + self.queued + dropped
    }
}

/// What became of everything that was to be sent to Sentry.
#[derive(Debug, Default)]
pub struct Account(Mutex<Snapshot>);

impl Account {
    /// The account now.
    pub fn snapshot(&self) -> Snapshot {
        *self.now()
    }

    /// The account as rows of the metrics page, those of one name next to each other.
    pub fn rows(&self) -> Vec<Row> {
        let now = self.snapshot();
        let sent = Kind::ALL.map(|kind| Row {
            name: "tracecar_sentry_sent",
            help: "Events and transactions that Sentry took.",
            kind: RowKind::Counter,
            label: Some(("kind", kind.as_str().into())),
            value: now.sent(kind),
        });
        let dropped = Dropped::ALL.map(|reason| Row {
            name: "tracecar_sentry_dropped",
            help: "Events and transactions that Sentry did not get.",
            kind: RowKind::Counter,
            label: Some(("reason", reason.as_str().into())),
            value: now.dropped(reason),
        });
        let queued = Row {
            name: "tracecar_sentry_queued",
            help: "Events and transactions waiting, or on their way.",
            kind: RowKind::Gauge,
            label: None,
            value: now.queued,
        };
        sent.into_iter().chain(dropped).chain([queued]).collect()
    }

    /// Something was handed in, and does not even wait.
    pub(super) fn turned_away(&self, reason: Dropped) {
        let mut now = self.now();
        now.accepted += 1;
        now.dropped[reason as usize] += 1;
    }

    /// Something was handed in, and waits.
    pub(super) fn queued(&self) {
        let mut now = self.now();
        now.accepted += 1;
        now.queued += 1;
    }

    /// One of those that waited was taken by Sentry.
    pub(super) fn sent(&self, kind: Kind) {
        let mut now = self.now();
        now.queued -= 1;
        now.sent[kind as usize] += 1;
    }

    /// So many of those that waited are lost.
    pub(super) fn dropped(&self, reason: Dropped, count: u64) {
        let mut now = self.now();
        now.queued -= count;
        now.dropped[reason as usize] += count;
    }

    fn now(&self) -> MutexGuard<'_, Snapshot> {
        // No step can panic between its two halves, so that the numbers behind a poisoned lock still add up.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_account_adds_up_after_every_step() {
        let account = Account::default();
        let check = || assert!(account.snapshot().adds_up(), "{:?}", account.snapshot());
        account.turned_away(Dropped::Burst);
        check();
        (0..4).for_each(|_| account.queued());
        check();
        account.sent(Kind::Event);
        account.sent(Kind::Transaction);
        check();
        account.dropped(Dropped::Shutdown, 2);
        check();
        let now = account.snapshot();
        assert_eq!((now.accepted, now.queued, now.lost()), (5, 0, 3));
        assert_eq!(Kind::ALL.map(|kind| now.sent(kind)), [1, 1]);
    }

    #[test]
    fn every_reason_and_kind_has_its_row() {
        let account = Account::default();
        account.turned_away(Dropped::TooLarge);
        account.queued();
        let rows = account.rows();
        let value =
            |name, label| rows.iter().find(|row| row.name == name && row.label == label).unwrap().value;
        for reason in Dropped::ALL {
            let expected = u64::from(reason == Dropped::TooLarge);
            assert_eq!(value("tracecar_sentry_dropped", Some(("reason", reason.as_str().into()))), expected);
        }
        assert_eq!(value("tracecar_sentry_sent", Some(("kind", "transaction".into()))), 0);
        assert_eq!(value("tracecar_sentry_queued", None), 1);
    }
}
