//! Spans to an OTLP collector.
//!
//! [`OtlpSink`] takes sampled records into a bounded queue; a task of its own turns them into spans and sends them,
//! one batch at a time (ENV-22). A collector that is slow, dead or silent costs spans when the queue is full, and
//! never anything else: every lost span is counted with its reason in the [`Account`], and one line in the log
//! says when exporting stops working and when it works again.
//!
//! * `encode`: records as protobuf
//! * `resource`: what all spans have in common
//! * `pack`: batches as contents of requests
//! * `queue`: what waits, and when a batch is due
//! * `transport`: one connection, one attempt
//! * `answer`: what a collector's answer means
//! * `account`: what became of every span
//! * `probe`: a request without spans, for people who want to know what a collector says

mod account;
mod answer;
mod encode;
mod pack;
mod probe;
mod queue;
mod resource;
mod transport;

use std::ops::ControlFlow;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{info, warn};

pub use account::{Account, Dropped, Snapshot};
pub use probe::{Heard, Reply, probe};

use crate::config::{Otlp, OtlpProtocol, Service};
use crate::exchange::{Record, Sink};
use crate::net::tls::TlsError;
use answer::Answer;
use pack::Packer;
use queue::Queue;
use transport::Transport;

/// Why no exporter could be made. What goes wrong later is retried, counted and logged.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The endpoint is not the URL of a collector.
    #[error("cannot export to {endpoint}: {reason}")]
    Endpoint {
        /// The endpoint, without credentials.
        endpoint: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The TLS files cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Spans in the queue above which the exporter no longer steps aside between slices of a batch.
const BACKLOG: u64 = 2048;

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

/// Starts an exporter on `runtime`: the sink to feed it, and the handle to stop it.
///
/// # Errors
/// Where the settings cannot work. A collector that cannot be reached is no error here.
pub fn start(otlp: &Otlp, service: &Service, runtime: &Handle) -> Result<(OtlpSink, Exporter), StartError> {
    start_at_pace(otlp, service, runtime, Pace::default())
}

/// As [`start`], with a patience of its own.
///
/// # Errors
/// As [`start`].
pub fn start_at_pace(
    otlp: &Otlp,
    service: &Service,
    runtime: &Handle,
    pace: Pace,
) -> Result<(OtlpSink, Exporter), StartError> {
    let transport = Transport::new(otlp)?;
    let packer = Packer::new(service, otlp.protocol, otlp.gzip, pace.max_request);
    let bounds = &otlp.queue;
    let account = Arc::new(Account::new(bounds.max_spans, bounds.max_bytes));
    let queue = Arc::new(Queue::new(Arc::clone(&account), bounds.max_batch, bounds.schedule_delay));
    let (stop, stopping) = watch::channel(None);
    let worker = Worker {
        queue: Arc::clone(&queue),
        account: Arc::clone(&account),
        packer,
        transport,
        pace,
        backoff: Backoff::default(),
        health: Health::Working,
        lost_before: 0,
        endpoint: transport::shown(&otlp.endpoint),
        stopping,
    };
    let task = runtime.spawn(worker.run());
    let sink = OtlpSink { queue: Arc::clone(&queue) };
    Ok((sink, Exporter { queue, account, stop, task }))
}

/// Makes the contents of OTLP/HTTP requests without sending them: for the benchmark.
#[doc(hidden)]
pub fn packer(service: &Service, gzip: bool) -> impl FnMut(&[Arc<Record>]) -> Option<Bytes> {
    let mut packer = Packer::new(service, OtlpProtocol::HttpProtobuf, gzip, Pace::default().max_request);
    move |records| packer.pack(records, true)
}

/// Takes sampled records into the export queue. Never waits.
#[derive(Debug)]
pub struct OtlpSink {
    queue: Arc<Queue>,
}

impl Sink for OtlpSink {
    fn record(&mut self, record: &Arc<Record>) {
        // Unsampled spans are not the collector's business (SMP-5).
        if record.identity.sampled() {
            self.queue.push(record);
        }
    }

    fn batch_end(&mut self) {
        self.queue.tell();
    }
}

/// A running exporter. Dropped without [`Exporter::shutdown`], it runs on until its runtime ends.
#[derive(Debug)]
pub struct Exporter {
    queue: Arc<Queue>,
    account: Arc<Account>,
    stop: watch::Sender<Option<Instant>>,
    task: JoinHandle<()>,
}

impl Exporter {
    /// What became of every span, now and later.
    pub fn account(&self) -> Arc<Account> {
        Arc::clone(&self.account)
    }

    /// Has what waits sent now, without waiting for a full batch. Returns at once.
    pub fn flush(&self) {
        self.queue.flush();
    }

    /// Sends what is queued, for `deadline` at most, and stops. What the collector has not acknowledged by then is
    /// counted as [`Dropped::Shutdown`]; so is what the sink takes afterwards. Returns earlier where nothing is
    /// left, or where the next attempt would come too late.
    pub async fn shutdown(mut self, deadline: Duration) {
        self.stop.send_replace(Some(Instant::now() + deadline));
        self.queue.close();
        if timeout(deadline, &mut self.task).await.is_err() {
            self.task.abort();
            // Only to have it gone before the account is closed; that it was cancelled is no news.
            let _ = self.task.await;
        }
        let lost = self.account.close();
        if lost > 0 {
            warn!(lost, "stopped before all spans were exported");
        }
    }
}

/// The exporter's task.
struct Worker {
    queue: Arc<Queue>,
    account: Arc<Account>,
    packer: Packer,
    transport: Transport,
    pace: Pace,
    backoff: Backoff,
    health: Health,
    /// Spans lost up to the moment when exporting stopped working.
    lost_before: u64,
    endpoint: String,
    /// When to be gone, once that is known.
    stopping: watch::Receiver<Option<Instant>>,
}

/// What the log last said about exporting.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Health {
    Working,
    /// Batches are taken, with a complaint.
    Partial,
    Failing,
}

/// How much of the queue a request stands for.
#[derive(Clone, Copy)]
struct Share {
    spans: u64,
    bytes: u64,
}

impl Worker {
    async fn run(mut self) {
        while let Some(batch) = self.queue.next().await {
            if self.export(batch).await.is_break() {
                return;
            }
            // The runtime is shared with the admin pages.
            yield_now().await;
        }
    }

    /// Exports a batch in as few requests as it fits. Breaks where there is no time left for it.
    async fn export(&mut self, batch: Vec<Arc<Record>>) -> ControlFlow<()> {
        let give_up_at = Instant::now() + self.pace.give_up;
        let mut pieces = vec![batch];
        while let Some(mut piece) = pieces.pop() {
            let bytes = piece.iter().map(|record| record.size_bytes() as u64).sum();
            let share = Share { spans: piece.len() as u64, bytes };
            let hurry = self.account.snapshot().queued > BACKLOG;
            match self.packer.pack(&piece, hurry) {
                Some(content) => {
                    drop(piece);
                    self.deliver(content, share, give_up_at).await?;
                }
                None if piece.len() > 1 => {
                    pieces.push(piece.split_off(piece.len() / 2));
                    pieces.push(piece);
                }
                None => {
                    self.account.dropped(Dropped::TooLarge, share.spans, share.bytes);
                    warn!("a span is larger than a request may be, and was dropped");
                }
            }
        }
        ControlFlow::Continue(())
    }

    /// Sends one request until it is settled, one way or the other.
    async fn deliver(&mut self, content: Bytes, share: Share, give_up_at: Instant) -> ControlFlow<()> {
        loop {
            self.pause(give_up_at).await?;
            if Instant::now() >= give_up_at {
                self.account.dropped(Dropped::RetryExpired, share.spans, share.bytes);
                return ControlFlow::Continue(());
            }
            match self.transport.send(content.clone(), give_up_at).await {
                Answer::Taken { rejected, message } => {
                    self.account.exported(share.spans, rejected, share.bytes);
                    self.backoff.reset();
                    self.say(
                        match rejected == 0 && message.is_empty() {
                            true => Health::Working,
                            false => Health::Partial,
                        },
                        &message,
                    );
                    return ControlFlow::Continue(());
                }
                Answer::Refused(reason) => {
                    self.account.failed();
                    self.account.dropped(Dropped::Rejected, share.spans, share.bytes);
                    self.backoff.reset();
                    self.say(Health::Failing, &reason);
                    return ControlFlow::Continue(());
                }
                Answer::Later { reason, after } => {
                    self.account.failed();
                    self.backoff.failed(&self.pace, after);
                    self.say(Health::Failing, &reason);
                }
            }
        }
    }

    /// Waits until the collector may be asked again, or until `give_up_at`. Breaks where tracecar will be gone by
    /// then.
    async fn pause(&mut self, give_up_at: Instant) -> ControlFlow<()> {
        let Some(resume_at) = self.backoff.resume_at else { return ControlFlow::Continue(()) };
        let resume_at = resume_at.min(give_up_at);
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

    /// Logs a change of state, and nothing while the state stays (istio/istio#53012 is a log full of the other way).
    fn say(&mut self, health: Health, reason: &str) {
        if health == self.health {
            return;
        }
        let lost = self.account.snapshot().lost();
        if self.health == Health::Working {
            self.lost_before = lost;
        }
        self.health = health;
        let endpoint = self.endpoint.as_str();
        match health {
            Health::Working => info!(endpoint, lost = lost - self.lost_before, "spans are exported again"),
            Health::Partial => warn!(endpoint, reason, "the collector takes spans with a complaint"),
            Health::Failing => warn!(endpoint, reason, "cannot export spans"),
        }
    }
}

/// When the collector may be asked again. It outlives a batch: a collector that is down or asked for peace is not
/// spared by giving up one batch and beginning with the next.
#[derive(Debug, Default)]
struct Backoff {
    failures: u32,
    resume_at: Option<Instant>,
}

impl Backoff {
    fn reset(&mut self) {
        *self = Self::default();
    }

    fn failed(&mut self, pace: &Pace, asked: Option<Duration>) {
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
