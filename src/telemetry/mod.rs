//! Readers of the record.
//!
//! [`Telemetry`] takes finished records from the workers' outboxes and shows each to every sink, on a thread of
//! its own: no sink can delay a request, and none can see another. Add a sink in [`Telemetry::switch`].

pub mod access_log;
pub mod console;
pub mod export;
mod exposition;
pub mod lines;
pub mod metrics;
mod words;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use anyhow::Context;
use tokio::sync::Notify;

use self::access_log::AccessLog;
use self::console::Console;
use self::export::{Exporter, Receiver};
use self::lines::Lines;
use self::metrics::Metrics;
use crate::config::{self, Otlp, OtlpTls, Service, Startup};
use crate::exchange::{Outbox, Record, Sink};
use crate::stats::{Row, Stats};

pub use exposition::{Exposition, quality};

/// How often the console looks for traces that are complete.
const CONSOLE_TICK: Duration = Duration::from_millis(100);

/// What the last lines get to be written in, however much of a hurry there is: only an output that stalls takes it.
const LAST_LINES: Duration = Duration::from_millis(500);

/// Access logs that may still have something to write when another takes their place: each may hold some megabytes.
const MAX_LEAVING: usize = 4;

/// The way from the workers' outboxes to the sinks.
pub struct Telemetry {
    stats: Arc<Stats>,
    outboxes: Vec<Arc<Outbox>>,
    wake: Arc<Notify>,
    metrics: Metrics,
    /// Where console and access log write, unless told otherwise.
    stdout: Lines,
    /// A console that is somebody else's, in place of one that the settings ask for.
    shared: Option<Console>,
    outputs: Mutex<Outputs>,
    readers: Mutex<Readers>,
}

/// What the settings ask for, and can ask for differently while it runs.
#[derive(Default)]
struct Outputs {
    console: Option<Console>,
    mode: Option<config::Console>,
    access_log: Option<AccessLog>,
    log_has_file: bool,
    /// Access logs in files before this one, which still have lines to write.
    leaving: Vec<AccessLog>,
    /// Lines that those before them have lost.
    lines_lost: u64,
    /// Once there is one it stays, for the sake of what it has still to send.
    exporter: Option<Exporter>,
    /// What it was told last; `None` where no spans are to be exported.
    exports: Option<Exports>,
}

/// All that an exporter is made from, to see whether it has changed. Keys are among it, so nothing prints it.
#[derive(Clone, PartialEq)]
struct Exports {
    otlp: Otlp,
    service: Service,
    /// What the files of `otlp.tls` hold.
    files: Vec<Vec<u8>>,
}

struct Readers {
    /// The metrics, and what was given by whoever started us.
    lasting: Vec<Box<dyn Sink>>,
    /// Those of [`Outputs`].
    switched: Vec<Box<dyn Sink>>,
    /// Reused from batch to batch.
    spare: Vec<Arc<Record>>,
}

/// Outputs that can be switched to: whatever could fail has been done.
pub struct Prepared {
    service: Service,
    mode: Option<config::Console>,
    access_log: Option<AccessLog>,
    log_has_file: bool,
    exports: Option<Exports>,
    /// `None` where it stays as it is.
    receiver: Option<Receiver>,
}

impl Telemetry {
    /// Shows what arrives in `outboxes`, whenever `wake` says so, to the metrics and to `sinks`; and to what is
    /// [switched](Telemetry::switch) to. `shared` is a console in place of one that the settings ask for.
    ///
    /// # Errors
    /// Where standard output cannot be written to.
    pub fn new(
        service: &Service,
        stats: Arc<Stats>,
        outboxes: Vec<Arc<Outbox>>,
        wake: Arc<Notify>,
        shared: Option<Console>,
        sinks: Vec<Box<dyn Sink>>,
    ) -> anyhow::Result<Arc<Self>> {
        let metrics = Metrics::new(service);
        let mut lasting: Vec<Box<dyn Sink>> = vec![Box::new(metrics.sink())];
        lasting.extend(sinks);
        // One writer, so that the lines of both stay whole; and a terminal that nobody reads holds nothing up.
        let stdout = Lines::stdout().context("cannot write to standard output")?;
        let readers = Mutex::new(Readers { lasting, switched: Vec::new(), spare: Vec::new() });
        let outputs = Mutex::default();
        Ok(Arc::new(Self { stats, outboxes, wake, metrics, stdout, shared, outputs, readers }))
    }

    /// Does all that can fail of switching to the outputs that the settings ask for.
    ///
    /// # Errors
    /// Where a file cannot be opened or used, or the export settings cannot work.
    pub fn prepare(&self, startup: &Startup) -> anyhow::Result<Prepared> {
        let exports =
            startup.export.otlp.as_ref().map(|otlp| Exports::new(otlp, &startup.service)).transpose()?;
        let same = self.outputs().exports == exports;
        let receiver = match &exports {
            Some(Exports { otlp, service, .. }) if !same => {
                Some(export::receiver(otlp, service).context("cannot export")?)
            }
            _ => None,
        };
        let (service, mode) = (startup.service.clone(), startup.export.console);
        // Opened anew in any case: who has moved the file away wants that. Last, for it may make the file.
        let access_log = startup.access_log.as_ref().map(|log| open(log, &self.stdout)).transpose()?;
        let log_has_file = startup.access_log.as_ref().is_some_and(|log| log.path.is_some());
        Ok(Prepared { service, mode, access_log, log_has_file, exports, receiver })
    }

    /// Switches to other outputs. What was recorded so far goes to those before, and spans that wait for their export
    /// to the new receiver. Has to be called on the runtime that the exporter is to run on.
    pub fn switch(&self, prepared: Prepared) {
        let Prepared { service, mode, access_log, log_has_file, exports, receiver } = prepared;
        self.drain();
        let mut outputs = self.outputs();
        self.metrics.describe(&service);
        if let Some(shared) = &self.shared {
            outputs.console = Some(shared.clone());
        } else if outputs.mode != mode {
            if let Some(console) = outputs.console.take() {
                console.finish();
            }
            outputs.console = mode.map(|mode| Console::new(mode, self.stdout.clone()));
            outputs.mode = mode;
        }
        let before = std::mem::replace(&mut outputs.access_log, access_log);
        // Standard output stays, and what it has lost is counted there, for all who write to it.
        if std::mem::replace(&mut outputs.log_has_file, log_has_file) {
            outputs.leaving.extend(before);
        }
        outputs.let_go(MAX_LEAVING);
        if let (Some(receiver), Some(exports)) = (receiver, &exports) {
            let queue = &exports.otlp.queue;
            match &outputs.exporter {
                Some(exporter) => exporter.turn(receiver, queue),
                None => {
                    let runtime = tokio::runtime::Handle::current();
                    outputs.exporter = Some(export::start_with(receiver, queue, &runtime));
                }
            }
        }
        let mut sinks: Vec<Box<dyn Sink>> = Vec::new();
        if let Some(console) = &outputs.console {
            sinks.push(Box::new(console.sink(&service.name)));
        }
        if let Some(log) = &outputs.access_log {
            sinks.push(Box::new(log.sink()));
        }
        if let (Some(exporter), Some(_)) = (&outputs.exporter, &exports) {
            sinks.push(Box::new(exporter.sink()));
        }
        outputs.exports = exports;
        drop(outputs);
        self.readers().switched = sinks;
        // Whoever waits without a console may have to look after one now.
        self.wake.notify_one();
    }

    /// The metrics of the traffic.
    pub fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// The metrics of tracecar itself.
    pub fn rows(&self) -> Vec<Row> {
        let mut rows = self.stats.rows();
        let outputs = self.outputs();
        rows.extend(outputs.exporter.iter().flat_map(|exporter| exporter.account().rows()));
        let logs = outputs.leaving.iter().chain(&outputs.access_log);
        let lost = outputs.lines_lost + logs.map(AccessLog::dropped).sum::<u64>();
        if outputs.access_log.is_some() || lost > 0 {
            rows.push(AccessLog::row(lost));
        }
        rows
    }

    /// Reads records until the end of time.
    pub async fn run(&self) {
        loop {
            let console = self.outputs().console.clone();
            let Some(console) = console else {
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
        let mut readers = self.readers();
        let Readers { lasting, switched, spare } = &mut *readers;
        for outbox in &self.outboxes {
            let batch = outbox.take(std::mem::take(spare));
            for sink in lasting.iter_mut().chain(&mut *switched) {
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
        let (console, logs, exporter) = {
            let mut outputs = self.outputs();
            let mut logs = std::mem::take(&mut outputs.leaving);
            logs.extend(outputs.access_log.take());
            (outputs.console.clone(), logs, outputs.exporter.take())
        };
        if let (Some(console), None) = (&console, &self.shared) {
            console.finish();
        }
        // Lines go first: they depend on nobody far away, and whoever cuts the flush short has them all the same.
        let until = Instant::now() + LAST_LINES;
        for log in logs {
            log.finish(until.saturating_duration_since(Instant::now()));
        }
        self.stdout.finish(LAST_LINES);
        if let Some(exporter) = exporter {
            exporter.shutdown(bound.saturating_sub(begun.elapsed())).await;
        }
    }

    fn outputs(&self) -> MutexGuard<'_, Outputs> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Outputs {
    /// Lets go of access logs that have written all they had, and of the oldest of more than `most` that have not.
    fn let_go(&mut self, most: usize) {
        let mut surplus = self.leaving.iter().filter(|log| !log.is_idle()).count().saturating_sub(most);
        let lost = &mut self.lines_lost;
        self.leaving.retain(|log| {
            let mut stays = !log.is_idle();
            if stays && surplus > 0 {
                (stays, surplus) = (false, surplus - 1);
                log.finish(Duration::ZERO);
            }
            if !stays {
                *lost += log.dropped();
            }
            stays
        });
    }
}

impl Exports {
    fn new(otlp: &Otlp, service: &Service) -> anyhow::Result<Self> {
        let OtlpTls { certificate, client } = &otlp.tls;
        let client = client.iter().flat_map(|(certificate, key)| [certificate, key]);
        let mut files = Vec::new();
        for path in certificate.iter().chain(client) {
            let content = config::read_bytes(path).with_context(|| format!("cannot read {}", path.display()));
            // Without TLS nobody needs them.
            let needed = otlp.endpoint.scheme_str() == Some("https");
            files.push(if needed { content? } else { content.unwrap_or_default() });
        }
        Ok(Self { otlp: otlp.clone(), service: service.clone(), files })
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
