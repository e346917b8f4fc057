//! Builds everything from the settings, binds it, runs it, changes it when they change, drains it, and flushes.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::sync::{Notify, oneshot};
use tracing::{error, info};

use crate::admin::{Admin, ConfigPage, Readiness};
use crate::config::{LiveHandle, Settings};
use crate::exchange::{Outbox, Recorder, Sink};
use crate::net::Drain;
use crate::proxy::{Front, Proxy};
use crate::stats::{Kind, Row, Stats};
use crate::telemetry::Telemetry;
use crate::telemetry::console::Console;
use crate::worker::{Peers, Worker};

mod control;
mod listeners;
mod reload;
mod watch;
mod way_in;
mod way_out;

use self::control::{Bindings, Control, Running, Versions};
use self::reload::Reloads;
pub use self::reload::{Again, Load, Refused};
use self::way_out::WayOut;

/// How long telemetry may take to get out after the last connection is closed. With the default drain time it
/// fits into the 30 s that Kubernetes gives a pod to end.
const FLUSH: Duration = Duration::from_secs(4);

/// What a sidecar is made of.
pub struct Parts {
    /// What it does.
    pub settings: Settings,
    /// The settings as text for `/config`, secrets masked.
    pub effective: String,
    /// How the settings are read again; `None` where they stay as they are.
    pub again: Option<Again>,
    /// Sets the level of our own log.
    pub log: Option<SetLevel>,
    /// A console to share with others in this process, in place of one that the settings ask for.
    pub console: Option<Console>,
    /// More readers of its records.
    pub sinks: Vec<Box<dyn Sink>>,
}

/// Sets the level of our own log, as `log` in the file has it.
pub type SetLevel = Box<dyn Fn(&str) + Send>;

impl Parts {
    /// Nothing but the settings.
    pub fn new(settings: Settings) -> Self {
        let (again, log, console) = (None, None, None);
        Self { settings, effective: String::new(), again, log, console, sinks: Vec::new() }
    }
}

/// A sidecar with its sockets bound, ready to run.
pub struct App {
    parts: Parts,
    stats: Arc<Stats>,
    sockets: Bindings,
    bound: Bound,
}

/// Where a sidecar listens.
#[derive(Clone, Debug)]
pub struct Bound {
    /// The inbound listeners, in the order of the settings.
    pub inbound: Vec<SocketAddr>,
    /// The forward proxy, where there is one.
    pub proxy: Option<SocketAddr>,
    /// The mapped listeners, in the order of the settings.
    pub mapped: Vec<SocketAddr>,
    /// The listener for redirected connections, where there is one.
    pub transparent: Option<SocketAddr>,
    /// The admin pages, where they are on.
    pub admin: Option<SocketAddr>,
}

/// Looks at the PEM files that `settings` name, as [`App::run`] would. Returns what works with them, but hardly as meant.
///
/// # Errors
/// Names a file that cannot be used.
pub fn look_at_files(settings: &Settings) -> anyhow::Result<Vec<String>> {
    let way_out = WayOut::new(LiveHandle::new(settings.live.clone()));
    way_out.prepare(settings)?;
    let ways_in = way_in::prepare(&settings.startup.inbound, &way_out.inwards, &[])?;
    Ok(way_in::remarks(&ways_in))
}

impl App {
    /// Binds every socket. Nothing is accepted before [`App::run`].
    ///
    /// # Errors
    /// Names the address that cannot be bound.
    pub fn bind(parts: Parts) -> anyhow::Result<Self> {
        let sockets = Bindings::bind(&parts.settings.startup)?;
        let admin = sockets.admin.as_ref().map(std::net::TcpListener::local_addr).transpose()?;
        let bound = Bound::of(&sockets.listeners, admin);
        Ok(Self { parts, stats: Arc::default(), sockets, bound })
    }

    /// Where it listens.
    pub fn bound(&self) -> &Bound {
        &self.bound
    }

    /// Its counters.
    pub fn stats(&self) -> &Arc<Stats> {
        &self.stats
    }

    /// Serves until `stop` is ready, then drains and flushes, and returns. `cut` ends waiting early.
    ///
    /// # Errors
    /// If it cannot start. Nothing that happens later ends it.
    pub fn run(self, stop: impl Future<Output = ()>, cut: impl Future<Output = ()>) -> anyhow::Result<()> {
        // Everything but the data path runs on this thread: nothing here can delay a request.
        let runtime =
            tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
        let ended = runtime.block_on(self.serve(stop, cut));
        // Whoever reads a file from a disk that does not answer is not waited for.
        runtime.shutdown_background();
        ended
    }

    async fn serve(
        self,
        stop: impl Future<Output = ()>,
        cut: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let Self { parts, stats, sockets, .. } = self;
        let Parts { settings, effective, again, log, console, sinks } = parts;
        let live = LiveHandle::new(settings.live.clone());
        let wake = Arc::new(Notify::new());
        let (peers, inboxes) = Peers::new(settings.startup.workers);
        let outboxes: Vec<_> =
            inboxes.iter().map(|_| Arc::new(Outbox::new(wake.clone(), stats.clone()))).collect();
        let service = &settings.startup.service;
        let telemetry = Telemetry::new(service, stats.clone(), outboxes.clone(), wake, console, sinks)?;
        tokio::spawn({
            let telemetry = telemetry.clone();
            async move { telemetry.run().await }
        });

        let way_out = Arc::new(WayOut::new(live.clone()));
        let readiness = Arc::new(Readiness::default());
        let mut reloads = Reloads::new(again)?;
        let versions = Versions::default();
        let pages = Arc::new(pages(&telemetry, &way_out, &readiness, &reloads, versions.clone()));
        let (drain, cut_off) = (Drain::default(), Drain::default());
        let draining = Arc::new(AtomicBool::new(false));
        let proxies: Vec<_> = outboxes
            .iter()
            .map(|outbox| {
                let recorder = Recorder::new(outbox.clone(), stats.clone(), draining.clone());
                Proxy::new(recorder, stats.clone(), way_out.lineage.clone(), way_out.processes.clone())
            })
            .collect();
        let parts = Running {
            live,
            way_out,
            telemetry: telemetry.clone(),
            pages,
            peers: peers.clone(),
            proxies,
            versions,
            log,
        };
        let mut control = Control::new(parts);
        let first = control.prepare(settings, effective, sockets)?;
        control.apply(first);

        let mut running = Vec::new();
        for (number, (inbox, outbox)) in inboxes.into_iter().zip(outboxes).enumerate() {
            let draining = draining.clone();
            let drain_time = control.drain_time.clone();
            let worker = Worker {
                number,
                peers: peers.clone(),
                inbox,
                outbox,
                stats: stats.clone(),
                drain: drain.clone(),
                cut: cut_off.clone(),
                drain_time: Box::new(move || *drain_time.lock().unwrap_or_else(PoisonError::into_inner)),
                cutting: Box::new(move || draining.store(true, Ordering::Relaxed)),
            };
            running.push(start(worker)?);
        }
        readiness.set_listening();

        tokio::select! {
            () = stop => {}
            // What is being read may never come to an end.
            never = control.follow(&mut reloads) => match never {},
        }
        // Whoever waits for a reload is told that there will be none.
        drop(reloads);
        let time = *control.drain_time.lock().unwrap_or_else(PoisonError::into_inner);
        info!(drain = ?time, "stopping: finishing what is in flight");
        readiness.set_draining();
        control.drain();
        drain.begin();
        let mut cut = std::pin::pin!(cut);
        tokio::select! {
            () = all(&mut running) => {}
            () = &mut cut => {
                cut_off.begin();
                all(&mut running).await;
                // Whoever is in a hurry twice gets what can be had at once.
                telemetry.finish(Duration::ZERO).await;
                return Ok(());
            }
        }
        tokio::select! {
            () = telemetry.finish(FLUSH) => {}
            () = cut => {}
        }
        info!("stopped");
        Ok(())
    }
}

fn pages(
    telemetry: &Arc<Telemetry>,
    way_out: &Arc<WayOut>,
    readiness: &Arc<Readiness>,
    reloads: &Reloads,
    versions: Versions,
) -> Admin {
    let (for_rows, for_refresh, way_out) = (telemetry.clone(), telemetry.clone(), way_out.clone());
    let reloaded = reloads.rows();
    Admin {
        metrics: telemetry.metrics().clone(),
        rows: Box::new(move || {
            let mut rows = for_rows.rows();
            rows.extend(way_out.rows());
            rows.extend(reloaded());
            rows.push(Row {
                name: "tracecar_config_versions",
                help: "Versions of the configuration that requests or streams still go by, the one in effect among them.",
                kind: Kind::Gauge,
                label: None,
                value: versions.count() as u64,
            });
            rows
        }),
        readiness: readiness.clone(),
        watch: telemetry.watch().clone(),
        config: ConfigPage::new(reloads.by_request()),
        refresh: Arc::new(move || {
            for_refresh.drain();
            Box::pin(std::future::ready(()))
        }),
    }
}

/// Waits until every worker has ended. What it has waited for is taken out, so it can be called again.
async fn all(running: &mut Vec<oneshot::Receiver<()>>) {
    while let Some(worker) = running.last_mut() {
        // An error says that the worker is gone, which is what we wait for.
        let _ = worker.await;
        running.pop();
    }
}

/// Runs a worker on a thread of its own. The receiver is ready when that has ended.
fn start(worker: Worker<Front>) -> anyhow::Result<oneshot::Receiver<()>> {
    let (ended, receiver) = oneshot::channel();
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()
        .context("cannot start a worker")?;
    std::thread::Builder::new()
        .name(format!("worker-{}", worker.number))
        .spawn(move || {
            if let Err(error) = runtime.block_on(worker.run()) {
                error!(%error, "a worker cannot run");
            }
            // Drops whatever connections are left; their exchanges are recorded before anybody is told. A name that is
            // still being resolved is not waited for.
            runtime.shutdown_background();
            let _ = ended.send(());
        })
        .context("cannot start a worker")?;
    Ok(receiver)
}
