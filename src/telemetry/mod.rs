//! Readers of the record.
//!
//! [`Telemetry`] takes finished records from the workers' outboxes and shows each to every sink, on a thread of
//! its own: no sink can delay a request, and none can see another. Add a sink in [`Telemetry::start`].

pub mod access_log;
pub mod console;
pub mod export;
mod exposition;
pub mod lines;
pub mod metrics;
mod words;

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::Notify;

use self::access_log::AccessLog;
use self::console::Console;
use self::export::Exporter;
use self::lines::Lines;
use self::metrics::Metrics;
use crate::config::{self, Startup};
use crate::exchange::{Outbox, Record, Sink};
use crate::stats::{Row, Stats};

pub use exposition::{Exposition, quality};

/// How often the console looks for traces that are complete.
const CONSOLE_TICK: Duration = Duration::from_millis(100);

/// What the last lines get to be written in, however much of a hurry there is: only an output that stalls takes it.
const LAST_LINES: Duration = Duration::from_millis(500);

/// The way from the workers' outboxes to the sinks.
pub struct Telemetry {
    stats: Arc<Stats>,
    outboxes: Vec<Arc<Outbox>>,
    wake: Arc<Notify>,
    metrics: Metrics,
    /// Where console and access log write, unless told otherwise.
    stdout: Lines,
    console: Option<Console>,
    /// The console is ours, and not somebody else's who has it still.
    owns_console: bool,
    access_log: Option<AccessLog>,
    exporter: Mutex<Option<Exporter>>,
    account: Option<Arc<export::Account>>,
    readers: Mutex<Readers>,
}

struct Readers {
    sinks: Vec<Box<dyn Sink>>,
    /// Reused from batch to batch.
    spare: Vec<Arc<Record>>,
}

impl Telemetry {
    /// Builds the sinks that the settings ask for, and shows them (and `sinks`) what arrives in `outboxes`, whenever
    /// `wake` says so. `console` is one to share, in place of one that the settings ask for. Has to be called on
    /// the runtime that the exporter is to run on.
    ///
    /// # Errors
    /// Where a file cannot be opened, or the export settings cannot work.
    pub fn start(
        startup: &Startup,
        stats: Arc<Stats>,
        outboxes: Vec<Arc<Outbox>>,
        wake: Arc<Notify>,
        console: Option<Console>,
        mut sinks: Vec<Box<dyn Sink>>,
    ) -> anyhow::Result<Arc<Self>> {
        let metrics = Metrics::new(&startup.service);
        sinks.push(Box::new(metrics.sink()));

        // One writer, so that the lines of both stay whole; and a terminal that nobody reads holds nothing up.
        let stdout = Lines::stdout().context("cannot write to standard output")?;
        let owns_console = console.is_none();
        let console = console.or(startup.export.console.map(|mode| Console::new(mode, stdout.clone())));
        if let Some(console) = &console {
            sinks.push(Box::new(console.sink(&startup.service.name)));
        }

        let access_log = startup.access_log.as_ref().map(|log| open(log, &stdout)).transpose()?;
        if let Some(log) = &access_log {
            sinks.push(Box::new(log.sink()));
        }

        let mut exporter = None;
        if let Some(otlp) = &startup.export.otlp {
            let runtime = tokio::runtime::Handle::current();
            let (sink, running) = export::start(otlp, &startup.service, &runtime).context("cannot export")?;
            sinks.push(Box::new(sink));
            exporter = Some(running);
        }
        let account = exporter.as_ref().map(Exporter::account);
        Ok(Arc::new(Self {
            stats,
            outboxes,
            wake,
            metrics,
            stdout,
            console,
            owns_console,
            access_log,
            exporter: Mutex::new(exporter),
            account,
            readers: Mutex::new(Readers { sinks, spare: Vec::new() }),
        }))
    }

    /// The metrics of the traffic.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The metrics of tracecar itself.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = self.stats.rows();
        rows.extend(self.account.iter().flat_map(|account| account.rows()));
        rows.extend(self.access_log.iter().flat_map(AccessLog::rows));
        rows
    }

    /// Reads records until the end of time.
    pub async fn run(&self) {
        loop {
            let Some(console) = &self.console else {
                self.wake.notified().await;
                self.drain();
                continue;
            };
            tokio::select! {
                () = self.wake.notified() => self.drain(),
                () = tokio::time::sleep(CONSOLE_TICK) => console.tick(Instant::now()),
            }
        }
    }

    /// Shows everything that waits to the sinks, now. Whoever is about to read what a sink has gathered calls this
    /// first.
    pub fn drain(&self) {
        let mut readers = self.readers.lock().unwrap_or_else(PoisonError::into_inner);
        let Readers { sinks, spare } = &mut *readers;
        for outbox in &self.outboxes {
            let batch = outbox.take(std::mem::take(spare));
            for sink in &mut *sinks {
                for record in &batch {
                    sink.record(record);
                }
                sink.batch_end();
            }
            *spare = batch;
            // Records are freed here, on this thread, and not while a worker waits for its outbox.
            spare.clear();
        }
    }

    /// Shows what is left, and gives the sinks that long to get it out.
    pub async fn finish(&self, bound: Duration) {
        let begun = Instant::now();
        self.drain();
        if let (Some(console), true) = (&self.console, self.owns_console) {
            console.finish();
        }
        // Lines go first: they depend on nobody far away, and whoever cuts the flush short has them all the same.
        if let Some(log) = &self.access_log {
            log.finish(LAST_LINES);
        }
        self.stdout.finish(LAST_LINES);
        let exporter = self.exporter.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(exporter) = exporter {
            exporter.shutdown(bound.saturating_sub(begun.elapsed())).await;
        }
    }
}

fn open(log: &config::AccessLog, stdout: &Lines) -> anyhow::Result<AccessLog> {
    let lines = match &log.path {
        Some(path) => {
            Lines::append(path).with_context(|| format!("cannot open the access log {}", path.display()))?
        }
        None => stdout.clone(),
    };
    Ok(AccessLog::new(log.format, lines))
}
