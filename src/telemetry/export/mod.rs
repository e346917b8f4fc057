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
//! * `pace`: when a collector that failed is asked again
//! * `queue`: what waits, and when a batch is due
//! * `connection`: how a server is connected to; Sentry is connected to in the same way
//! * `transport`: one connection, one attempt
//! * `answer`: what a collector's answer means
//! * `account`: what became of every span
//! * `probe`: a request without spans, for people who want to know what a collector says

mod account;
mod answer;
pub(super) mod connection;
mod encode;
mod pace;
mod pack;
mod probe;
mod queue;
mod resource;
mod transport;

use std::ops::ControlFlow;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::{JoinHandle, yield_now};
use tokio::time::{Instant, sleep, sleep_until, timeout};
use tracing::{info, warn};

pub use account::{Account, Dropped, Snapshot};
pub(super) use pace::Backoff;
pub use pace::Pace;
pub use probe::{Heard, Reply, probe};

use crate::config::{self, Otlp, OtlpProtocol, Service};
use crate::exchange::{Record, Sink};
use crate::net::tls::TlsError;
use answer::Answer;
pub(super) use answer::quote;
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

/// How long an attempt that has begun may still take when there is another receiver: most need less, and a receiver that is
/// left because it hangs should not be waited for. If it did get the spans, it has them, and so has the other.
const LAST_ATTEMPT: Duration = Duration::from_millis(500);

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
    let receiver = Receiver::new(otlp, service, &pace)?;
    let exporter = begin(receiver, &otlp.queue, runtime, pace);
    Ok((exporter.sink(), exporter))
}

/// A receiver to begin with, or to [`Exporter::turn`] to. Connects to nobody yet.
///
/// # Errors
/// As [`start`].
pub fn receiver(otlp: &Otlp, service: &Service) -> Result<Receiver, StartError> {
    Receiver::new(otlp, service, &Pace::default())
}

/// Starts an exporter to a receiver that is known to work, as far as that can be known.
pub fn start_with(receiver: Receiver, queue: &config::Queue, runtime: &Handle) -> Exporter {
    begin(receiver, queue, runtime, Pace::default())
}

fn begin(receiver: Receiver, bounds: &config::Queue, runtime: &Handle, pace: Pace) -> Exporter {
    let account = Arc::new(Account::new(bounds.max_spans, bounds.max_bytes));
    let queue = Arc::new(Queue::new(Arc::clone(&account), bounds.max_batch, bounds.schedule_delay));
    let (stop, stopping) = watch::channel(None);
    let (turn, turned) = watch::channel(());
    let next = Arc::new(Mutex::new(None));
    let worker = Worker {
        queue: Arc::clone(&queue),
        account: Arc::clone(&account),
        receiver,
        next: Arc::clone(&next),
        turned,
        pace,
        backoff: Backoff::default(),
        health: Health::Working,
        lost_before: 0,
        stopping,
    };
    let task = runtime.spawn(worker.run());
    Exporter { queue, account, turn, next, stop, task }
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

/// Whom spans are sent to, and how.
pub struct Receiver {
    packer: Packer,
    transport: Transport,
    /// Without credentials.
    endpoint: String,
}

impl Receiver {
    fn new(otlp: &Otlp, service: &Service, pace: &Pace) -> Result<Self, StartError> {
        Ok(Self {
            packer: Packer::new(service, otlp.protocol, otlp.gzip, pace.max_request),
            transport: Transport::new(otlp)?,
            endpoint: connection::shown(&otlp.endpoint),
        })
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("endpoint", &self.endpoint).finish_non_exhaustive()
    }
}

/// A running exporter. Dropped without [`Exporter::shutdown`], it runs on until its runtime ends.
#[derive(Debug)]
pub struct Exporter {
    queue: Arc<Queue>,
    account: Arc<Account>,
    turn: watch::Sender<()>,
    /// Whom to send to from now on, until the task has taken note.
    next: Arc<Mutex<Option<Receiver>>>,
    stop: watch::Sender<Option<Instant>>,
    task: JoinHandle<()>,
}

impl Exporter {
    /// What became of every span, now and later.
    pub fn account(&self) -> Arc<Account> {
        Arc::clone(&self.account)
    }

    /// A reader of records that feeds this exporter.
    pub fn sink(&self) -> OtlpSink {
        OtlpSink { queue: Arc::clone(&self.queue) }
    }

    /// Sends to another receiver from now on, also what waits already. An attempt that is being made is waited for, for
    /// half a second at most.
    pub fn turn(&self, receiver: Receiver, queue: &config::Queue) {
        self.account.bound(queue.max_spans, queue.max_bytes);
        self.queue.form(queue.max_batch, queue.schedule_delay);
        *lock(&self.next) = Some(receiver);
        self.turn.send_replace(());
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
    receiver: Receiver,
    /// Another one, when `turned` says so.
    next: Arc<Mutex<Option<Receiver>>>,
    turned: watch::Receiver<()>,
    pace: Pace,
    backoff: Backoff,
    health: Health,
    /// Spans lost up to the moment when exporting stopped working.
    lost_before: u64,
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

/// What became of a request.
enum Settled {
    Yes,
    /// There is another receiver, who has to have it in its own form.
    Elsewhere,
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
        let mut give_up_at = Instant::now() + self.pace.give_up;
        let mut pieces = vec![batch];
        while let Some(mut piece) = pieces.pop() {
            self.turn();
            let bytes = piece.iter().map(|record| record.size_bytes() as u64).sum();
            let share = Share { spans: piece.len() as u64, bytes };
            let hurry = self.account.snapshot().queued > BACKLOG;
            match self.receiver.packer.pack(&piece, hurry) {
                Some(content) => {
                    // Kept until it is settled: another receiver may want it in another form.
                    match self.deliver(content, share, give_up_at).await? {
                        Settled::Yes => {}
                        Settled::Elsewhere => {
                            pieces.push(piece);
                            // It has not failed with the other one.
                            give_up_at = Instant::now() + self.pace.give_up;
                        }
                    }
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

    /// Turns to the next receiver, if there is one.
    fn turn(&mut self) {
        self.turned.mark_unchanged();
        if let Some(next) = lock(&self.next).take() {
            info!(endpoint = next.endpoint, "exporting spans as newly configured");
            (self.receiver, self.backoff, self.health) = (next, Backoff::default(), Health::Working);
        }
    }

    /// Sends one request until it is settled, one way or the other, or there is another receiver.
    async fn deliver(
        &mut self,
        content: Bytes,
        share: Share,
        give_up_at: Instant,
    ) -> ControlFlow<(), Settled> {
        loop {
            self.pause(give_up_at).await?;
            if Instant::now() >= give_up_at {
                self.account.dropped(Dropped::RetryExpired, share.spans, share.bytes);
                return ControlFlow::Continue(Settled::Yes);
            }
            if self.turned.has_changed().unwrap_or(false) {
                return ControlFlow::Continue(Settled::Elsewhere);
            }
            let mut turned = self.turned.clone();
            let impatient = async {
                match turned.changed().await {
                    Ok(()) => sleep(LAST_ATTEMPT).await,
                    // Nobody can turn it any more.
                    Err(_) => std::future::pending().await,
                }
            };
            let answer = tokio::select! {
                answer = self.receiver.transport.send(content.clone(), give_up_at) => answer,
                () = impatient => return ControlFlow::Continue(Settled::Elsewhere),
            };
            match answer {
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
                    return ControlFlow::Continue(Settled::Yes);
                }
                Answer::Refused(reason) => {
                    self.account.failed();
                    self.account.dropped(Dropped::Rejected, share.spans, share.bytes);
                    self.backoff.reset();
                    self.say(Health::Failing, &reason);
                    return ControlFlow::Continue(Settled::Yes);
                }
                Answer::Later { reason, after } => {
                    self.account.failed();
                    self.backoff.failed(&self.pace, after);
                    self.say(Health::Failing, &reason);
                }
            }
        }
    }

    /// Waits until the collector may be asked again, until `give_up_at`, or until there is another. Breaks where tracecar
    /// will be gone by then.
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
                Ok(()) = self.turned.changed() => {
                    // Whoever asks next hears of it, too.
                    self.turned.mark_changed();
                    return ControlFlow::Continue(());
                }
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
        let endpoint = self.receiver.endpoint.as_str();
        match health {
            Health::Working => info!(endpoint, lost = lost - self.lost_before, "spans are exported again"),
            Health::Partial => warn!(endpoint, reason, "the collector takes spans with a complaint"),
            Health::Failing => warn!(endpoint, reason, "cannot export spans"),
        }
    }
}

fn lock(next: &Mutex<Option<Receiver>>) -> MutexGuard<'_, Option<Receiver>> {
    next.lock().unwrap_or_else(PoisonError::into_inner)
}
