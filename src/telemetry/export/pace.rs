//! How patient the exporter is, and when a collector that failed is asked again.

use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

/// How patient the exporter is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Longest wait after the first failure; it doubles with each further one, and a random half of it is taken
    /// off, so that sidecars that lost their collector together do not come back together (OTLP-20).
    pub first_wait: Duration,
    /// What the wait grows to.
    pub longest_wait: Duration,
    /// Age at which a batch is given up, from its first attempt. What waits behind it does not age.
    pub give_up: Duration,
    /// Largest request before compression, in bytes (OTLP-8). A batch above it is halved.
    pub max_request: usize,
}

impl Default for Pace {
    /// 1 second up to 5, and 5 minutes: a collector that restarts is found again within seconds, and one that is
    /// away for some minutes costs nothing that fits the queue.
    fn default() -> Self {
        Self {
            first_wait: Duration::from_secs(1),
            longest_wait: Duration::from_secs(5),
            give_up: Duration::from_secs(300),
            max_request: 64 << 20,
        }
    }
}

/// When the collector may be asked again. It outlives a batch: a collector that is down or asked for peace is not
/// spared by giving up one batch and beginning with the next.
#[derive(Debug, Default)]
pub(in crate::telemetry) struct Backoff {
    failures: u32,
    pub(in crate::telemetry) resume_at: Option<Instant>,
}

impl Backoff {
    pub(in crate::telemetry) fn reset(&mut self) {
        *self = Self::default();
    }

    pub(in crate::telemetry) fn failed(&mut self, pace: &Pace, asked: Option<Duration>) {
        let ceiling = pace.first_wait.saturating_mul(1 << self.failures.min(20)).min(pace.longest_wait);
        let wait = ceiling.mul_f64(SmallRng::from_os_rng().random_range(0.5..=1.0));
        // A collector that asks for a day is asked again when the batch would be given up anyway.
        let asked = asked.unwrap_or_default().min(pace.give_up);
        self.failures += 1;
        self.resume_at = Some(Instant::now() + wait.max(asked));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn waits_double_up_to_the_longest_and_lose_up_to_half_by_chance() {
        let mut backoff = Backoff::default();
        let now = Instant::now();
        for ceiling in [1000, 2000, 4000, 5000, 5000] {
            backoff.failed(&Pace::default(), None);
            let wait = (backoff.resume_at.unwrap() - now).as_millis();
            assert!((ceiling / 2..=ceiling).contains(&wait), "{wait} ms of {ceiling}");
        }
        backoff.reset();
        backoff.failed(&Pace::default(), None);
        assert!(backoff.resume_at.unwrap() <= now + Duration::from_secs(1));
    }

    #[tokio::test(start_paused = true)]
    async fn what_the_collector_asks_for_is_the_least_wait_within_reason() {
        let wait = |asked| {
            let mut backoff = Backoff::default();
            backoff.failed(&Pace::default(), Some(Duration::from_secs(asked)));
            backoff.resume_at.unwrap() - Instant::now()
        };
        assert_eq!(wait(30), Duration::from_secs(30));
        assert!(wait(0) >= Duration::from_millis(500));
        assert_eq!(wait(86_400), Pace::default().give_up);
    }
}
