//! What waits to be sent.
//!
//! Fed from the telemetry thread, emptied by one task. Events and transactions have room of their own, so that a flood of
//! requests leaves that of failures alone, and events go first. Nothing in here grows old: a full queue turns away what
//! comes, since what waits is where the trouble began.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::account::{Account, Dropped, Kind};
use super::envelope::Item;

/// Most items of one kind that wait or are on their way.
pub(super) const MAX_ITEMS: usize = 500;

/// Most memory that the items of one kind hold, in bytes.
pub(super) const MAX_BYTES: usize = 4 << 20;

#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Notify,
    account: Arc<Account>,
}

#[derive(Debug, Default)]
struct State {
    /// By kind.
    lines: [Line; Kind::ALL.len()],
    /// The kind of the one that is on its way, and the memory it holds.
    underway: Option<(Kind, usize)>,
    closed: bool,
}

#[derive(Debug, Default)]
struct Line {
    waiting: VecDeque<Item>,
    /// With that which is on its way.
    count: usize,
    bytes: usize,
}

impl Queue {
    pub(super) fn new(account: Arc<Account>) -> Self {
        Self { state: Mutex::default(), wake: Notify::new(), account }
    }

    /// Lets an item in where there is room for it; else it is counted and dropped. Says whether it is in.
    pub(super) fn push(&self, item: Item) -> bool {
        let mut state = self.state();
        let closed = state.closed;
        let line = &mut state.lines[item.kind as usize];
        let size = item.size_bytes();
        if closed || line.count >= MAX_ITEMS || line.bytes + size > MAX_BYTES {
            self.account.turned_away(if closed { Dropped::Shutdown } else { Dropped::QueueFull });
            return false;
        }
        (line.count, line.bytes) = (line.count + 1, line.bytes + size);
        line.waiting.push_back(item);
        self.account.queued();
        drop(state);
        self.wake.notify_one();
        true
    }

    /// Whether an item of this kind would be turned away, whatever its size: who asks first need not make it.
    pub(super) fn is_full(&self, kind: Kind) -> bool {
        let state = self.state();
        let line = &state.lines[kind as usize];
        !state.closed && (line.count >= MAX_ITEMS || line.bytes >= MAX_BYTES)
    }

    /// Waits for the next item. `None` after [`Queue::close`], when nothing waits any more. The item counts as queued until
    /// [`Queue::settled`].
    pub(super) async fn next(&self) -> Option<Item> {
        loop {
            {
                let mut state = self.state();
                if let Some(item) = state.lines.iter_mut().find_map(|line| line.waiting.pop_front()) {
                    state.underway = Some((item.kind, item.size_bytes()));
                    return Some(item);
                }
                if state.closed {
                    return None;
                }
            }
            // `Notify` keeps a wake-up that comes before we wait for it.
            self.wake.notified().await;
        }
    }

    /// What became of the item that [`Queue::next`] gave last.
    pub(super) fn settled(&self, fate: Result<(), Dropped>) {
        let mut state = self.state();
        let Some((kind, size)) = state.underway.take() else { return };
        let line = &mut state.lines[kind as usize];
        (line.count, line.bytes) = (line.count - 1, line.bytes - size);
        match fate {
            Ok(()) => self.account.sent(kind),
            Err(reason) => self.account.dropped(reason, 1),
        }
    }

    /// Lets nothing in any more; [`Queue::next`] gives what waits, and then `None`.
    pub(super) fn close(&self) {
        self.state().closed = true;
        self.wake.notify_one();
    }

    /// Nobody sends any more: what waits, or was on its way, is lost. Returns how many.
    pub(super) fn abandon(&self) -> u64 {
        let mut state = self.state();
        let lost: usize = state.lines.iter().map(|line| line.count).sum();
        *state = State { closed: true, ..State::default() };
        self.account.dropped(Dropped::Shutdown, lost as u64);
        lost as u64
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue() -> Queue {
        Queue::new(Arc::new(Account::default()))
    }

    fn item(kind: Kind, bytes: usize) -> Item {
        Item::new(kind, uuid::Uuid::nil(), vec![b'x'; bytes], None)
    }

    #[tokio::test]
    async fn events_go_first() {
        let queue = queue();
        for kind in [Kind::Transaction, Kind::Event, Kind::Transaction] {
            queue.push(item(kind, 1));
        }
        queue.close();
        let mut kinds = Vec::new();
        while let Some(item) = queue.next().await {
            kinds.push(item.kind);
            queue.settled(Ok(()));
        }
        assert_eq!(kinds, [Kind::Event, Kind::Transaction, Kind::Transaction]);
        assert_eq!(queue.account.snapshot().queued, 0);
    }

    #[tokio::test]
    async fn a_queue_full_of_transactions_has_room_for_events() {
        let queue = queue();
        for _ in 0..MAX_ITEMS + 1 {
            queue.push(item(Kind::Transaction, 1));
        }
        assert_eq!(queue.account.snapshot().dropped(Dropped::QueueFull), 1);
        assert!(queue.push(item(Kind::Event, 1)), "events have room of their own");
    }

    #[tokio::test]
    async fn the_queue_is_bounded_in_bytes_and_what_is_on_its_way_counts() {
        let queue = queue();
        assert!(queue.push(item(Kind::Event, MAX_BYTES / 2)));
        assert!(!queue.push(item(Kind::Event, MAX_BYTES / 2 + 1)), "that is more than fits");
        queue.next().await;
        assert!(!queue.push(item(Kind::Event, MAX_BYTES / 2 + 1)), "what is on its way still holds memory");
        queue.settled(Err(Dropped::Failed));
        assert!(queue.push(item(Kind::Event, MAX_BYTES / 2 + 1)));
        assert!(queue.account.snapshot().adds_up());
    }

    #[tokio::test]
    async fn what_is_abandoned_is_counted_with_what_was_on_its_way() {
        let queue = queue();
        for _ in 0..3 {
            queue.push(item(Kind::Event, 1));
        }
        queue.next().await;
        assert_eq!(queue.abandon(), 3);
        assert!(!queue.push(item(Kind::Event, 1)), "nothing enters a closed queue");
        queue.settled(Ok(()));
        let now = queue.account.snapshot();
        assert_eq!((now.dropped(Dropped::Shutdown), now.queued), (4, 0));
        assert!(now.adds_up());
    }
}
