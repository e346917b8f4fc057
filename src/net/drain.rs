//! Says to every connection of a worker that tracecar is about to stop.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tokio::sync::Notify;

/// A flag that can be awaited. Cloned handles are one and the same.
#[derive(Clone, Debug, Default)]
pub struct Drain(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    begun: AtomicBool,
    wake: Notify,
}

impl Drain {
    /// Begins the drain; everyone who waits is woken.
    pub fn begin(&self) {
        self.0.begun.store(true, Ordering::Release);
        self.0.wake.notify_waiters();
    }

    /// Whether it has begun: one load, for the request path.
    pub fn begun(&self) -> bool {
        self.0.begun.load(Ordering::Acquire)
    }

    /// Waits until it begins.
    pub async fn wait(&self) {
        // Registered before the flag is read, so that a beginning in between is not missed.
        let woken = self.0.wake.notified();
        tokio::pin!(woken);
        woken.as_mut().enable();
        if !self.begun() {
            woken.await;
        }
    }
}
