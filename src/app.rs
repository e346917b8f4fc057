//! Builds everything from the settings, binds it, runs it, drains it, and flushes.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::{Notify, oneshot};
use tracing::{error, info};

use crate::admin::{self, Admin, Readiness};
use crate::config::{LiveHandle, Outbound, Settings, Startup};
use crate::exchange::{Outbox, Recorder, Sink};
use crate::net::{Drain, listener};
use crate::proxy::{Front, Proxy};
use crate::stats::Stats;
use crate::telemetry::Telemetry;
use crate::telemetry::console::Console;
use crate::worker::{Peers, Worker};

mod way_out;

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
    /// A console to share with others in this process, in place of one that the settings ask for.
    pub console: Option<Console>,
    /// More readers of its records.
    pub sinks: Vec<Box<dyn Sink>>,
}

impl Parts {
    /// Nothing but the settings.
    pub fn new(settings: Settings) -> Self {
        Self { settings, effective: String::new(), console: None, sinks: Vec::new() }
    }
}

/// A sidecar with its sockets bound, ready to run.
pub struct App {
    parts: Parts,
    stats: Arc<Stats>,
    listeners: Vec<Vec<std::net::TcpListener>>,
    admin: Option<std::net::TcpListener>,
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

impl App {
    /// Binds every socket. Nothing is accepted before [`App::run`].
    ///
    /// # Errors
    /// Names the address that cannot be bound.
    pub fn bind(parts: Parts) -> anyhow::Result<Self> {
        let Startup { workers, inbound, outbound, admin, .. } = &parts.settings.startup;
        let mut listeners: Vec<Vec<_>> = (0..*workers).map(|_| Vec::new()).collect();
        let mut bind_for_all = |mut address: SocketAddr| {
            for of_worker in &mut listeners {
                let socket = bind(address, *workers > 1)?;
                // The first worker's socket decides which port a port of 0 is.
                address = socket.local_addr()?;
                of_worker.push(socket);
            }
            anyhow::Ok(address)
        };
        let inbound = inbound.iter().map(|one| bind_for_all(one.listen)).collect::<anyhow::Result<_>>()?;
        let Outbound { proxy, mapped, transparent, .. } = outbound.clone().unwrap_or_default();
        let mut bound = Bound {
            inbound,
            proxy: proxy.map(&mut bind_for_all).transpose()?,
            mapped: mapped.iter().map(|one| bind_for_all(one.listen)).collect::<anyhow::Result<_>>()?,
            transparent: transparent.map(&mut bind_for_all).transpose()?,
            admin: None,
        };
        let admin = admin.map(|address| bind(address, false)).transpose()?;
        bound.admin = admin.as_ref().map(std::net::TcpListener::local_addr).transpose()?;
        Ok(Self { parts, stats: Arc::default(), listeners, admin, bound })
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
        runtime.block_on(self.serve(stop, cut))
    }

    async fn serve(
        self,
        stop: impl Future<Output = ()>,
        cut: impl Future<Output = ()>,
    ) -> anyhow::Result<()> {
        let Self { parts, stats, listeners, admin, .. } = self;
        let Parts { settings: Settings { startup, live }, effective, console, sinks } = parts;
        let live = LiveHandle::new(live);
        let wake = Arc::new(Notify::new());
        let outboxes: Vec<_> =
            listeners.iter().map(|_| Arc::new(Outbox::new(wake.clone(), stats.clone()))).collect();
        let telemetry = Telemetry::start(&startup, stats.clone(), outboxes.clone(), wake, console, sinks)?;
        tokio::spawn({
            let telemetry = telemetry.clone();
            async move { telemetry.run().await }
        });

        let way_out = Arc::new(WayOut::new(&startup, &live)?);
        let upstreams = if startup.ready_needs_upstream { startup.inbound.iter() } else { [].iter() };
        let readiness = Arc::new(Readiness::new(upstreams.map(|inbound| inbound.to.clone()).collect()));
        if let Some(listener) = admin {
            let pages = pages(&telemetry, &way_out, &readiness, effective);
            tokio::spawn(admin::serve(TcpListener::from_std(listener)?, pages, std::future::pending()));
        }

        let (drain, cut_off) = (Drain::default(), Drain::default());
        let draining = Arc::new(AtomicBool::new(false));
        let (peers, inboxes) = Peers::new(listeners.len());
        let mut running = Vec::new();
        for (number, ((sockets, inbox), outbox)) in
            listeners.into_iter().zip(inboxes).zip(outboxes).enumerate()
        {
            let recorder = Recorder::new(outbox.clone(), stats.clone(), draining.clone());
            let way_out = &way_out;
            let proxy =
                Proxy::new(recorder, stats.clone(), way_out.lineage.clone(), way_out.processes.clone());
            let fronts = way_out.fronts(&startup, &proxy, &live);
            let draining = draining.clone();
            let worker = Worker {
                number,
                listeners: sockets.into_iter().zip(fronts).collect(),
                peers: peers.clone(),
                inbox,
                outbox,
                stats: stats.clone(),
                drain: drain.clone(),
                cut: cut_off.clone(),
                drain_time: startup.drain,
                cutting: Box::new(move || draining.store(true, Ordering::Relaxed)),
            };
            running.push(start(worker)?);
        }
        readiness.set_listening();

        stop.await;
        info!(drain = ?startup.drain, "stopping: finishing what is in flight");
        readiness.set_draining();
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

fn bind(address: SocketAddr, shared: bool) -> anyhow::Result<std::net::TcpListener> {
    listener::bind(address, shared).with_context(|| format!("cannot listen on {address}"))
}

fn pages(
    telemetry: &Arc<Telemetry>,
    way_out: &Arc<WayOut>,
    readiness: &Arc<Readiness>,
    effective: String,
) -> Admin {
    let (for_rows, for_refresh, way_out) = (telemetry.clone(), telemetry.clone(), way_out.clone());
    Admin {
        metrics: telemetry.metrics().clone(),
        rows: Box::new(move || {
            let mut rows = for_rows.rows();
            rows.extend(way_out.rows());
            rows
        }),
        readiness: readiness.clone(),
        effective,
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
