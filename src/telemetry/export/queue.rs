//! Where sampled records wait for their export, and when a batch of them is ready.
//!
//! Fed by one thread, emptied by one task. The task sleeps through single records: it is woken when the first of
//! a batch arrives and when a batch is full, never in between.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::{Instant, timeout_at};

use super::account::Account;
use crate::exchange::Record;

/// The queue before the exporter.
#[derive(Debug)]
pub(super) struct Queue {
    state: Mutex<State>,
    wake: Notify,
    account: Arc<Account>,
}

#[derive(Debug)]
struct State {
    max_batch: usize,
    delay: Duration,
    waiting: VecDeque<Arc<Record>>,
    told: Fill,
    /// A record was turned away since the last batch was taken.
    crowded: bool,
    /// What waits is to be sent without waiting for more.
    flush: bool,
    /// No more batches are formed once nothing waits.
    closing: bool,
}

/// How full the exporter last heard the queue was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
enum Fill {
    #[default]
    Empty,
    Some,
    Batch,
}

impl Queue {
    /// An empty queue that forms batches of `max_batch` spans, or of fewer that waited for `delay`.
    pub(super) fn new(account: Arc<Account>, max_batch: usize, delay: Duration) -> Self {
        let state = State {
            max_batch: max_batch.max(1),
            delay,
            waiting: VecDeque::new(),
            told: Fill::Empty,
            crowded: false,
            flush: false,
            closing: false,
        };
        Self { state: Mutex::new(state), wake: Notify::new(), account }
    }

    /// Forms other batches from now on.
    pub(super) fn form(&self, max_batch: usize, delay: Duration) {
        let mut state = self.state();
        (state.max_batch, state.delay) = (max_batch.max(1), delay);
        // What was a full batch may be none any more, and is to be told of when it is one again.
        state.told = fill(&state);
        drop(state);
        self.wake.notify_one();
    }

    /// Lets a record in where there is room for it; else it is counted and dropped (ENV-22).
    pub(super) fn push(&self, record: &Arc<Record>) {
        let admitted = self.account.admit(record.size_bytes() as u64);
        let mut state = self.state();
        match admitted {
            true => state.waiting.push_back(Arc::clone(record)),
            // Waiting for a fuller batch would only turn away more.
            false => state.crowded = true,
        }
    }

    /// Wakes the exporter where it does not know yet how full the queue is.
    pub(super) fn tell(&self) {
        let mut state = self.state();
        let fill = fill(&state);
        if fill > state.told {
            state.told = fill;
            drop(state);
            self.wake.notify_one();
        }
    }

    /// Makes all that waits due now.
    pub(super) fn flush(&self) {
        self.state().flush = true;
        self.wake.notify_one();
    }

    /// Makes [`Queue::next`] return what waits without delay, and then `None`.
    pub(super) fn close(&self) {
        self.state().closing = true;
        self.wake.notify_one();
    }

    /// Waits for the next batch. `None` after [`Queue::close`], when nothing waits any more.
    pub(super) async fn next(&self) -> Option<Vec<Arc<Record>>> {
        let mut waits_since = None;
        loop {
            let due = {
                let mut state = self.state();
                // The delay counts from when we learn of the first record: at most one batch of the feeder late.
                let delay = state.delay;
                let due = waits_since.is_some_and(|since: Instant| since.elapsed() >= delay);
                let hurry = due || state.flush || state.closing;
                if fill(&state) == Fill::Batch || (hurry && !state.waiting.is_empty()) {
                    return Some(self.take(&mut state));
                }
                if state.closing {
                    return None;
                }
                state.flush = false;
                match state.waiting.is_empty() {
                    true => None,
                    false => Some(*waits_since.get_or_insert_with(Instant::now) + delay),
                }
            };
            // `Notify` keeps a wake-up that comes before we wait for it.
            let Some(due) = due else {
                waits_since = None;
                self.wake.notified().await;
                continue;
            };
            // Which of the two it was is seen from the state.
            let _ = timeout_at(due, self.wake.notified()).await;
        }
    }

    fn take(&self, state: &mut State) -> Vec<Arc<Record>> {
        let count = state.waiting.len().min(state.max_batch);
        let batch = state.waiting.drain(..count).collect();
        state.flush &= !state.waiting.is_empty();
        state.crowded = false;
        state.told = fill(state);
        batch
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn fill(state: &State) -> Fill {
    match state.waiting.len() {
        0 => Fill::Empty,
        n if n >= state.max_batch || state.crowded => Fill::Batch,
        _ => Fill::Some,
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::pin::{Pin, pin};
    use std::task::{Context, Poll, Waker};

    use super::*;
    use crate::exchange;

    const DELAY: Duration = Duration::from_secs(5);

    fn queue(max_spans: usize, max_batch: usize) -> Queue {
        Queue::new(Arc::new(Account::new(max_spans, usize::MAX)), max_batch, DELAY)
    }

    fn push(queue: &Queue, count: usize) {
        let record = Arc::new(exchange::sample());
        (0..count).for_each(|_| queue.push(&record));
        queue.tell();
    }

    /// What `next` says without being waited for.
    fn look(next: Pin<&mut impl Future<Output = Option<Vec<Arc<Record>>>>>) -> Poll<Option<usize>> {
        next.poll(&mut Context::from_waker(Waker::noop())).map(|batch| batch.map(|batch| batch.len()))
    }

    #[tokio::test(start_paused = true)]
    async fn a_full_batch_goes_at_once_and_a_smaller_one_after_the_delay() {
        let queue = queue(100, 3);
        push(&queue, 4);
        assert_eq!(look(pin!(queue.next())), Poll::Ready(Some(3)));
        let started = Instant::now();
        assert_eq!(queue.next().await.unwrap().len(), 1);
        assert_eq!(started.elapsed(), DELAY);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_fills_up_meanwhile_does_not_wait_for_the_delay() {
        let queue = queue(100, 3);
        push(&queue, 1);
        let mut next = pin!(queue.next());
        assert_eq!(look(next.as_mut()), Poll::Pending);
        push(&queue, 2);
        assert_eq!(look(next.as_mut()), Poll::Ready(Some(3)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_flush_sends_what_waits_and_is_over_then() {
        let queue = queue(100, 3);
        push(&queue, 1);
        queue.flush();
        assert_eq!(look(pin!(queue.next())), Poll::Ready(Some(1)));
        push(&queue, 1);
        assert_eq!(look(pin!(queue.next())), Poll::Pending);
    }

    #[tokio::test(start_paused = true)]
    async fn a_queue_that_turns_spans_away_is_emptied_at_once() {
        let queue = queue(2, 3);
        push(&queue, 3);
        assert_eq!(look(pin!(queue.next())), Poll::Ready(Some(2)));
        assert_eq!(queue.account.snapshot().lost(), 1);
    }

    #[tokio::test(start_paused = true)]
    async fn a_batch_that_became_larger_is_told_of_when_it_is_full() {
        let queue = queue(100, 2);
        push(&queue, 2);
        queue.tell();
        queue.form(4, Duration::from_secs(60));
        let mut next = pin!(queue.next());
        assert_eq!(look(next.as_mut()), Poll::Pending);
        push(&queue, 2);
        queue.tell();
        assert_eq!(look(next.as_mut()), Poll::Ready(Some(4)));
    }

    #[tokio::test(start_paused = true)]
    async fn the_exporter_is_woken_once_for_the_first_span_and_once_for_a_full_batch() {
        let queue = queue(100, 3);
        let mut wakes = 0;
        for _ in 0..8 {
            push(&queue, 1);
            wakes += u32::from(look_for_wake(&queue));
        }
        assert_eq!(wakes, 2);
    }

    fn look_for_wake(queue: &Queue) -> bool {
        pin!(queue.wake.notified()).poll(&mut Context::from_waker(Waker::noop())).is_ready()
    }

    #[tokio::test(start_paused = true)]
    async fn a_closed_queue_gives_what_it_has_and_ends() {
        let queue = queue(100, 2);
        push(&queue, 3);
        queue.close();
        assert_eq!(look(pin!(queue.next())), Poll::Ready(Some(2)));
        assert_eq!(look(pin!(queue.next())), Poll::Ready(Some(1)));
        assert_eq!(look(pin!(queue.next())), Poll::Ready(None));
    }
}
