//! Time on a connection: a bell that rings once in a while, and what has not moved since it rang last.

use std::future::Future;
use std::pin::Pin;
use std::task::Context;
use std::time::Duration;

use pin_project_lite::pin_project;
use tokio::time::{Instant, Sleep, sleep};

use crate::net::server::TICK;

pin_project! {
    /// Rings once in a while, so that bounds are looked at; and wakes its connection when a drain begins. Each is asked once, to be
    /// woken by it, and later only looked at.
    pub(super) struct Bell<D> {
        #[pin]
        tick: Sleep,
        #[pin]
        drain: D,
        armed: bool,
        drain_pending: bool,
    }
}

impl<D: Future<Output = ()>> Bell<D> {
    pub(super) fn new(drain: D) -> Self {
        Self { tick: sleep(TICK), drain, armed: false, drain_pending: true }
    }

    /// Whether a tick has passed.
    pub(super) fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> bool {
        let mut this = self.project();
        if *this.armed && !this.tick.is_elapsed() {
            return false;
        }
        *this.armed = true;
        // Once it is ready it must not be polled again.
        *this.drain_pending = *this.drain_pending && this.drain.as_mut().poll(cx).is_pending();
        let mut rang = false;
        while this.tick.as_mut().poll(cx).is_ready() {
            rang = true;
            this.tick.as_mut().reset(Instant::now() + TICK);
        }
        rang
    }
}

/// Notices what does not move from one tick to the next.
#[derive(Default)]
pub(super) struct Stall {
    before: u64,
    ticks: u32,
}

impl Stall {
    /// Whether `now` has been what it is for `limit`, asked once a tick.
    pub(super) fn lasts(&mut self, now: u64, limit: Duration) -> bool {
        self.ticks = if self.before == now { self.ticks + 1 } else { 0 };
        self.before = now;
        TICK * self.ticks >= limit
    }
}
