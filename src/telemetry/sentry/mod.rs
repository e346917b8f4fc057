//! Failures as Sentry events, and requests as transactions.
//!
//! [`Sentry`] is handed failures, requests and notices; it builds, cleans and queues them, and never waits. A task of its own
//! sends them, one at a time, by our own client and none of Sentry's: that would be global, and tell of tracecar where the
//! service is meant. A Sentry that is slow, dead or sated costs events, each counted with its reason in the [`Account`],
//! and never anything else.
//!
//! * `event`, `transaction`: what is said; `facts`: what both say in the same words
//! * `burst`: how many events of a group are worth sending
//! * `limits`: when Sentry wants nothing
//! * `queue`, `envelope`: what waits, and how it looks on the wire
//! * `worker`, `transport`: sending
//! * `account`: what became of everything
//! * `probe`: a request that makes no issue, for people who want to know what Sentry says

mod account;
mod burst;
mod envelope;
mod event;
mod facts;
mod limits;
mod probe;
mod queue;
#[cfg(test)]
mod tests;
mod transaction;
mod transport;
mod worker;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use http::Uri;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use sentry::protocol::OrganizationId;
use sentry::types::Dsn;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::{Instant, timeout};
use tracing::warn;

pub use account::{Account, Dropped, Kind, Snapshot};
pub use probe::probe;

use crate::config::{self, Service};
use crate::exchange::{Identity, Record};
use crate::net::tls::TlsError;
use crate::telemetry::export::connection::shown;
use crate::telemetry::failures::{Failure, Severity};
use burst::{Burst, Verdict};
use envelope::{Item, MAX_ITEM};
use limits::Limits;
use queue::Queue;
use transport::Transport;
use worker::Worker;

/// Why nothing can be sent to Sentry, whatever Sentry does.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The DSN is none.
    #[error("cannot send to Sentry at {endpoint}: {reason}")]
    Dsn {
        /// The DSN, without its keys.
        endpoint: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The TLS files cannot be used.
    #[error(transparent)]
    Tls(#[from] TlsError),
}

/// Something that is worth an event, though it is no failed exchange: an outage, a route that got slow.
#[derive(Clone, Debug)]
pub struct Notice {
    /// The title of the issue.
    pub title: String,
    /// How bad it is.
    pub level: Severity,
    /// What makes it one of a group.
    pub group: Vec<String>,
    /// Since when.
    pub began_at: SystemTime,
    /// Until when, where it is over; that is the time of the event then.
    pub ended_at: Option<SystemTime>,
    /// What else there is to say.
    pub details: BTreeMap<String, String>,
    /// What can be searched for.
    pub tags: BTreeMap<String, String>,
    /// A trace in which it was seen.
    pub trace: Option<Identity>,
}

/// A project of Sentry's to send to: whatever could fail has been done. Connects to nobody yet.
pub struct Receiver {
    dsn: Uri,
    transport: Transport,
    scope: Scope,
    sample_rate: f64,
    max_per_group: usize,
    max_events: usize,
}

/// What all events have in common.
struct Scope {
    service: String,
    environment: String,
    release: Option<String>,
    server_name: Option<String>,
    traces_sample_rate: f64,
    public_key: String,
    organization: Option<OrganizationId>,
}

impl Receiver {
    /// The project of `settings`, for failures of `service`.
    ///
    /// # Errors
    /// Where the DSN is none, or the TLS files cannot be used. A Sentry that cannot be reached is no error here.
    pub fn new(settings: &config::Sentry, service: &Service) -> Result<Self, StartError> {
        // Its own error would quote the DSN, keys and all.
        let dsn: Dsn = settings.dsn.to_string().parse().map_err(|_| StartError::Dsn {
            endpoint: shown(&settings.dsn),
            reason: "it must look like https://key@host/project",
        })?;
        let scope = Scope {
            service: service.name.clone(),
            environment: settings.environment.clone(),
            release: settings.release.clone(),
            server_name: server_name(service),
            traces_sample_rate: settings.traces_sample_rate,
            public_key: dsn.public_key().to_owned(),
            organization: dsn.org_id(),
        };
        Ok(Self {
            dsn: settings.dsn.clone(),
            transport: Transport::new(settings, &dsn)?,
            scope,
            sample_rate: settings.sample_rate,
            max_per_group: settings.max_per_group,
            max_events: settings.max_events,
        })
    }
}

impl std::fmt::Debug for Receiver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Receiver").field("endpoint", &self.transport.endpoint).finish_non_exhaustive()
    }
}

/// Begins to send to `receiver`, by a task on `runtime`. What becomes of everything is added to `account`: who turns to other
/// settings starts another with the same account, and [shuts down](Sentry::shutdown) the one before. What `before` was asked not to
/// send for a while still holds, if it is the same project.
pub fn start(receiver: Receiver, runtime: &Handle, account: Arc<Account>, before: Option<&Sentry>) -> Sentry {
    let Receiver { dsn, transport, scope, sample_rate, max_per_group, max_events } = receiver;
    let queue = Arc::new(Queue::new(Arc::clone(&account)));
    let same = before.filter(|before| before.inner.dsn == dsn);
    let limits = same.map_or_else(Arc::default, |before| Arc::clone(&before.inner.limits));
    let (stop, stopping) = watch::channel(None);
    let worker =
        Worker::new(Arc::clone(&queue), Arc::clone(&account), transport, Arc::clone(&limits), stopping);
    let task = Mutex::new(Some(runtime.spawn(worker.run())));
    let burst = Mutex::new(Burst::new(max_per_group, max_events, Instant::now()));
    Sentry { inner: Arc::new(Inner { dsn, scope, sample_rate, account, queue, limits, burst, stop, task }) }
}

/// A running connection to Sentry; clones are the same one. When the last is dropped without [`Sentry::shutdown`], what
/// waits is still sent while the runtime lasts.
#[derive(Clone)]
pub struct Sentry {
    inner: Arc<Inner>,
}

struct Inner {
    dsn: Uri,
    scope: Scope,
    sample_rate: f64,
    account: Arc<Account>,
    queue: Arc<Queue>,
    limits: Arc<Mutex<Limits>>,
    burst: Mutex<Burst>,
    stop: watch::Sender<Option<Instant>>,
    task: Mutex<Option<JoinHandle<()>>>,
}

impl Sentry {
    /// Queues the event of a failure, unless there were enough of them.
    pub fn event(&self, failure: &Failure) {
        let Inner { scope, sample_rate, account, .. } = &*self.inner;
        if *sample_rate < 1.0 && SmallRng::from_os_rng().random::<f64>() >= *sample_rate {
            account.turned_away(Dropped::Sampled);
            return;
        }
        let group = failure.fingerprint(&scope.service);
        self.queue_event(&group, |held| event::of_failure(failure, &group, held, scope));
    }

    /// Counts a failure of which there were so many that nobody had time to make an event of it.
    pub fn leave_out(&self) {
        self.inner.account.turned_away(Dropped::Burst);
    }

    /// Queues the event of a notice, unless there were enough of them. None is left out by sampling.
    pub fn notice(&self, notice: &Notice) {
        self.queue_event(&notice.group, |held| event::of_notice(notice, held, &self.inner.scope));
    }

    /// Queues the transaction of a request and its calls, where its trace is in the share that is wanted. Where none are, it
    /// is not even counted.
    pub fn transaction(&self, record: &Arc<Record>, calls: &[Arc<Record>]) {
        let Inner { scope, account, queue, .. } = &*self.inner;
        if scope.traces_sample_rate <= 0.0 {
            return;
        }
        if transaction::sample_rand(record.identity.trace_id) >= scope.traces_sample_rate {
            account.turned_away(Dropped::Sampled);
            return;
        }
        if self.limited(Kind::Transaction) {
            account.turned_away(Dropped::RateLimited);
            return;
        }
        if queue.is_full(Kind::Transaction) {
            account.turned_away(Dropped::QueueFull);
            return;
        }
        match transaction::json(record, calls, scope) {
            Some((id, json)) if json.len() <= MAX_ITEM => {
                queue.push(Item::new(Kind::Transaction, id, json, transaction::beginning(record, scope)));
            }
            _ => account.turned_away(Dropped::TooLarge),
        }
    }

    /// What became of everything, now and later.
    pub fn account(&self) -> Arc<Account> {
        Arc::clone(&self.inner.account)
    }

    /// Sends what is queued, for `deadline` at most, and stops. What Sentry has not taken by then is counted as
    /// [`Dropped::Shutdown`]; so is what comes afterwards. Returns earlier where nothing is left, or where the next attempt
    /// would come too late.
    pub async fn shutdown(&self, deadline: Duration) {
        let Inner { queue, stop, task, .. } = &*self.inner;
        stop.send_replace(Some(Instant::now() + deadline));
        queue.close();
        let task = lock(task).take();
        if let Some(mut task) = task
            && timeout(deadline, &mut task).await.is_err()
        {
            task.abort();
            // Only to have it gone before the account is closed; that it was cancelled is no news.
            let _ = task.await;
        }
        let lost = queue.abandon();
        if lost > 0 {
            warn!(lost, "stopped before Sentry had taken everything");
        }
    }

    /// Queues the event that `build` makes of how many were held back before it.
    fn queue_event(&self, group: &[String], build: impl FnOnce(u64) -> sentry::protocol::Event<'static>) {
        let Inner { account, queue, burst, .. } = &*self.inner;
        if self.limited(Kind::Event) {
            account.turned_away(Dropped::RateLimited);
            return;
        }
        let held = match lock(burst).ask(group, Instant::now()) {
            Verdict::Pass { held } => held,
            Verdict::Group => return account.turned_away(Dropped::BurstGroup),
            Verdict::All => return account.turned_away(Dropped::Burst),
        };
        let event = build(held);
        let queued = match event::json(&event) {
            Some(json) if json.len() <= MAX_ITEM => {
                queue.push(Item::new(Kind::Event, event.event_id, json, None))
            }
            _ => {
                account.turned_away(Dropped::TooLarge);
                false
            }
        };
        if !queued {
            lock(burst).lost(group, held);
        }
    }

    fn limited(&self, kind: Kind) -> bool {
        lock(&self.inner.limits).closed(kind, Instant::now())
    }
}

impl std::fmt::Debug for Sentry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Sentry").field("account", &self.inner.account.snapshot()).finish_non_exhaustive()
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        // The task would wait for more until the end of time.
        self.queue.close();
    }
}

/// The name of the machine, or of the pod: what the settings say of it, else what the system calls it.
fn server_name(service: &Service) -> Option<String> {
    let given =
        |name: &str| service.attributes.iter().find(|(key, _)| key == name).map(|(_, value)| value.clone());
    let named = || std::env::var("HOSTNAME").ok();
    let kernel = || std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
    let name = given("host.name").or_else(|| given("k8s.pod.name")).or_else(named).or_else(kernel)?;
    Some(name.trim().to_owned()).filter(|name| !name.is_empty())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
