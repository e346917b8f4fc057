//! Content that does not come: an end to waiting for it.
//!
//! A timer for each body would cost every request something. So bodies say when they begin to wait and when they go on, which
//! is a store or two, and one task for each worker looks at those who wait, once a second, while there are any.

use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use tokio::time::sleep;

/// How often is looked. Bounds are kept to within twice this.
const LOOK: Duration = Duration::from_secs(1);

/// Whoever waits on one worker.
#[derive(Debug, Default)]
pub(super) struct Watch(Mutex<Watched>);

#[derive(Debug, Default)]
struct Watched {
    /// All seats, taken or not.
    all: Vec<Arc<Seat>>,
    free: Vec<Arc<Seat>>,
    looking: bool,
}

/// One body's place among those that are looked at. It is used again by others: nothing is allocated for a request.
#[derive(Debug, Default)]
struct Seat {
    waits: AtomicBool,
    /// How often it was seen to wait in a row.
    looks: AtomicU32,
    /// After how many that is too long.
    enough: AtomicU32,
    overdue: AtomicBool,
    waker: Mutex<Option<Waker>>,
}

/// How long a body may wait for more.
#[derive(Debug)]
pub(super) struct Patience {
    watch: Arc<Watch>,
    limit: Duration,
    /// When all has to be over.
    until: Option<Instant>,
    /// Since it has waited for the first time.
    seat: Option<Arc<Seat>>,
}

/// What is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Overdue {
    /// Nothing came for too long.
    Quiet,
    /// All of it took too long.
    Late,
}

impl Patience {
    /// Waits that long for each piece, and not beyond `until`.
    pub(super) fn new(watch: Arc<Watch>, limit: Duration, until: Option<Instant>) -> Self {
        Self { watch, limit, until, seat: None }
    }

    /// Whether all of it takes too long.
    pub(super) fn is_late(&self) -> bool {
        self.until.is_some_and(|until| until <= Instant::now())
    }

    /// A piece has come.
    pub(super) fn go_on(&self) {
        if let Some(seat) = &self.seat {
            seat.waits.store(false, Ordering::Relaxed);
            seat.looks.store(0, Ordering::Relaxed);
            // It may have come at the last moment.
            seat.overdue.store(false, Ordering::Relaxed);
        }
    }

    /// Nothing is there: whoever polls is woken when that has been so for too long.
    ///
    /// # Errors
    /// Says that it has.
    pub(super) fn wait(&mut self, cx: &Context<'_>) -> Result<(), Overdue> {
        let Self { watch, limit, until, .. } = self;
        let seat = self.seat.get_or_insert_with(|| {
            // By then it is late, and whoever waits is woken to see that.
            let left = until.map(|until| until.saturating_duration_since(Instant::now()));
            watch.seat(left.map_or(*limit, |left| left.min(*limit)))
        });
        seat.waits.store(true, Ordering::Relaxed);
        {
            let mut waker = lock(&seat.waker);
            if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                *waker = Some(cx.waker().clone());
            }
        }
        match seat.overdue.load(Ordering::Relaxed) {
            true => Err(Overdue::Quiet),
            false => Ok(()),
        }
    }
}

impl Drop for Patience {
    fn drop(&mut self) {
        if let Some(seat) = self.seat.take() {
            self.watch.leave(seat);
        }
    }
}

impl Watch {
    fn seat(self: &Arc<Self>, limit: Duration) -> Arc<Seat> {
        let mut watched = self.lock();
        let seat = watched.free.pop().unwrap_or_else(|| {
            let seat = Arc::<Seat>::default();
            watched.all.push(seat.clone());
            seat
        });
        // The first look may come at once.
        let enough = limit.as_secs_f64() / LOOK.as_secs_f64();
        seat.enough.store(enough.ceil() as u32 + 1, Ordering::Relaxed);
        if !std::mem::replace(&mut watched.looking, true) {
            tokio::spawn(look(self.clone()));
        }
        seat
    }

    fn leave(&self, seat: Arc<Seat>) {
        seat.waits.store(false, Ordering::Relaxed);
        seat.looks.store(0, Ordering::Relaxed);
        seat.overdue.store(false, Ordering::Relaxed);
        lock(&seat.waker).take();
        self.lock().free.push(seat);
    }

    /// Wakes those who wait for too long, and those who have to see whether it is late. Whether anybody is left.
    fn look(&self) -> bool {
        let mut watched = self.lock();
        if watched.free.len() == watched.all.len() {
            // A burst should not be paid for long.
            *watched = Watched::default();
            return false;
        }
        for seat in watched.all.iter().filter(|seat| seat.waits.load(Ordering::Relaxed)) {
            let looks = seat.looks.fetch_add(1, Ordering::Relaxed) + 1;
            if looks >= seat.enough.load(Ordering::Relaxed) {
                seat.overdue.store(true, Ordering::Relaxed);
                if let Some(waker) = lock(&seat.waker).take() {
                    waker.wake();
                }
            }
        }
        true
    }

    fn lock(&self) -> MutexGuard<'_, Watched> {
        lock(&self.0)
    }
}

async fn look(watch: Arc<Watch>) {
    loop {
        sleep(LOOK).await;
        if !watch.look() {
            return;
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn who_waits_for_too_long_is_woken_and_who_goes_on_is_not() {
        let watch = Arc::<Watch>::default();
        let mut patience = Patience::new(watch.clone(), Duration::from_secs(3), None);
        let mut waits = async || {
            let begun = tokio::time::Instant::now();
            let overdue = std::future::poll_fn(|cx| match patience.wait(cx) {
                Err(overdue) => std::task::Poll::Ready(overdue),
                Ok(()) => std::task::Poll::Pending,
            });
            (overdue.await, begun.elapsed())
        };
        let (overdue, after) = waits().await;
        assert_eq!(overdue, Overdue::Quiet);
        assert!(after >= Duration::from_secs(3) && after <= Duration::from_secs(5), "{after:?}");
        patience.go_on();
        let at_once = std::future::poll_fn(|cx| std::task::Poll::Ready(patience.wait(cx))).await;
        assert_eq!(at_once, Ok(()), "what came at the last moment came");
        drop(patience);

        let mut steady = Patience::new(watch.clone(), Duration::from_secs(3), None);
        for _ in 0..10 {
            let none = std::future::poll_fn(|cx| std::task::Poll::Ready(steady.wait(cx))).await;
            assert_eq!(none, Ok(()), "another one's place is as good as new");
            sleep(Duration::from_secs(2)).await;
            steady.go_on();
        }
        drop(steady);
        sleep(LOOK * 2).await;
        assert!(watch.lock().all.is_empty(), "nobody is looked at any more");
    }
}
