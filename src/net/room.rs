//! How many connections there are of a kind, and who waits for one of them to end.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::timeout;

/// How long it takes at most until a bound that was raised is noticed by whoever waits.
const LOOK: Duration = Duration::from_secs(1);

/// The connections of one listener, on all workers, or those of one worker to one destination.
#[derive(Debug, Default)]
pub struct Room {
    taken: AtomicUsize,
    left: Notify,
}

/// One connection in a [`Room`], until it is dropped.
#[derive(Debug)]
pub struct Seat(Arc<Room>);

impl Room {
    /// Takes a seat, whether or not there should be one.
    pub fn seat(self: &Arc<Self>) -> Seat {
        self.taken.fetch_add(1, Ordering::Relaxed);
        Seat(self.clone())
    }

    /// Whether as many are there as `limit` lets.
    pub fn is_full(&self, limit: Option<NonZeroUsize>) -> bool {
        limit.is_some_and(|limit| self.taken.load(Ordering::Relaxed) >= limit.get())
    }

    /// Something else has changed for whoever waits.
    pub(super) fn stir(&self) {
        self.left.notify_waiters();
    }

    /// Waits until somebody leaves, or something else has changed; a bound may have, so not for long.
    pub(super) async fn change(&self) {
        let _ = timeout(LOOK, self.left.notified()).await;
    }

    /// Waits until there is room, as `limit` has it from time to time.
    pub async fn wait(&self, limit: impl Fn() -> Option<NonZeroUsize>) {
        loop {
            // Registered before the count is read, so that whoever leaves in between is not missed.
            let mut left = std::pin::pin!(self.left.notified());
            left.as_mut().enable();
            if !self.is_full(limit()) {
                return;
            }
            let _ = timeout(LOOK, left).await;
        }
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::Relaxed);
        self.0.left.notify_waiters();
    }
}
