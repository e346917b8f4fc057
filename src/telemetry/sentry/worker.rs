//! The task that sends.
//!
//! One item at a time, each tried once: Sentry asks that what failed is dropped and not repeated (SEN-6). After a failure to
//! reach it, or a 5xx, there is a pause before the next, of a second at first and of a minute at most, so that a dead server
//! costs one event per pause; the others wait in their bounded queue, however long that takes.

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until};
use tracing::{info, warn};

use super::account::{Account, Dropped};
use super::envelope::Item;
use super::limits::Limits;
use super::lock;
use super::queue::Queue;
use super::transport::Transport;
use crate::telemetry::export::{Backoff, Pace};

/// How long to leave a server alone that failed: these at first and at most, less a random half.
pub(super) const FIRST_PAUSE: Duration = Duration::from_secs(1);
pub(super) const LONGEST_PAUSE: Duration = Duration::from_secs(60);

/// How often it is said at most that an item was refused. Others may be taken in between, so it is no change of state.
const COMPLAINT: Duration = Duration::from_secs(60);

pub(super) struct Worker {
    queue: Arc<Queue>,
    account: Arc<Account>,
    transport: Transport,
    limits: Arc<Mutex<Limits>>,
    pace: Pace,
    backoff: Backoff,
    health: Health,
    complained: Option<Instant>,
    /// What was lost up to the moment when sending stopped working.
    lost_before: u64,
    /// When to be gone, once that is known.
    stopping: watch::Receiver<Option<Instant>>,
}

/// What the log last said about sending.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Working,
    Failing,
}

impl Worker {
    pub(super) fn new(
        queue: Arc<Queue>,
        account: Arc<Account>,
        transport: Transport,
        limits: Arc<Mutex<Limits>>,
        stopping: watch::Receiver<Option<Instant>>,
    ) -> Self {
        Self {
            queue,
            account,
            transport,
            limits,
            pace: Pace { first_wait: FIRST_PAUSE, longest_wait: LONGEST_PAUSE, ..Pace::default() },
            backoff: Backoff::default(),
            health: Health::Working,
            complained: None,
            lost_before: 0,
            stopping,
        }
    }

    pub(super) async fn run(mut self) {
        while let Some(item) = self.queue.next().await {
            if self.pause().await.is_break() {
                // What is left is counted by whoever stopped us.
                return;
            }
            let limited = lock(&self.limits).closed(item.kind, Instant::now());
            let fate = match limited {
                true => Err(Dropped::RateLimited),
                false => self.deliver(&item).await,
            };
            self.queue.settled(fate);
        }
    }

    /// Sends an item, once.
    async fn deliver(&mut self, item: &Item) -> Result<(), Dropped> {
        let answer = match self.transport.send(item).await {
            Ok(answer) => answer,
            Err(reason) => {
                self.backoff.failed(&self.pace, None);
                self.say(Health::Failing, &reason);
                return Err(Dropped::Failed);
            }
        };
        lock(&self.limits).note(answer.status, &answer.headers, Instant::now());
        if answer.status.is_server_error() {
            self.backoff.failed(&self.pace, None);
            self.say(Health::Failing, &answer.words);
            return Err(Dropped::Failed);
        }
        self.backoff.reset();
        let fate = match answer.status {
            status if status.is_success() => Ok(()),
            StatusCode::TOO_MANY_REQUESTS => Err(Dropped::RateLimited),
            StatusCode::PAYLOAD_TOO_LARGE => Err(Dropped::TooLarge),
            _ => Err(Dropped::Refused),
        };
        // It answers, at least.
        self.say(Health::Working, "");
        if matches!(fate, Err(Dropped::Refused | Dropped::TooLarge)) {
            self.complain(&answer.words);
        }
        fate
    }

    /// Waits until Sentry may be asked again. Breaks where tracecar will be gone by then.
    async fn pause(&mut self) -> ControlFlow<()> {
        let Some(resume_at) = self.backoff.resume_at else { return ControlFlow::Continue(()) };
        loop {
            if self.stopping.borrow_and_update().is_some_and(|stop_at| resume_at >= stop_at) {
                return ControlFlow::Break(());
            }
            tokio::select! {
                () = sleep_until(resume_at) => return ControlFlow::Continue(()),
                Ok(()) = self.stopping.changed() => {}
            }
        }
    }

    /// Logs a change of state, and nothing while the state stays.
    fn say(&mut self, health: Health, reason: &str) {
        if health == self.health {
            return;
        }
        let lost = self.account.snapshot().lost();
        if self.health == Health::Working {
            self.lost_before = lost;
        }
        self.health = health;
        let endpoint = self.transport.endpoint.as_str();
        match health {
            Health::Working => info!(endpoint, lost = lost - self.lost_before, "Sentry answers again"),
            Health::Failing => warn!(endpoint, reason, "cannot send to Sentry"),
        }
    }

    fn complain(&mut self, reason: &str) {
        if self.complained.is_none_or(|at| at.elapsed() >= COMPLAINT) {
            self.complained = Some(Instant::now());
            warn!(endpoint = self.transport.endpoint, reason, "Sentry refuses what it is sent");
        }
    }
}
