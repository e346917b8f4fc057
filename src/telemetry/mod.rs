//! Readers of the record.
//!
//! [`Telemetry`] takes finished records from the workers' outboxes and shows each to every sink, on a thread of
//! its own: no sink can delay a request, and none can see another. Add a sink in [`Telemetry::switch`].

pub mod access_log;
pub mod console;
pub mod export;
mod exposition;
pub mod failures;
pub mod lines;
pub mod metrics;
mod outputs;
pub mod sentry;
pub mod slow;
pub mod watch;
mod words;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use anyhow::Context;
use tokio::sync::Notify;
use tokio::time::MissedTickBehavior;

use self::access_log::AccessLog;
use self::console::Console;
use self::export::Receiver;
use self::lines::Lines;
use self::metrics::Metrics;
use self::outputs::{Exports, MAX_LEAVING, Outputs, Tells, open};
use self::watch::Watch;
use crate::config::{self, Service, Startup};
use crate::exchange::{Outbox, Record, Sink};
use crate::stats::{Row, Stats};

pub use exposition::{Exposition, quality};

/// How often the console looks for traces that are complete.
const CONSOLE_TICK: Duration = Duration::from_millis(100);

/// What the last lines get to be written in, however much of a hurry there is: only an output that stalls takes it.
const LAST_LINES: Duration = Duration::from_millis(500);

/// How often what is watched is looked through.
const WATCH_TICK: Duration = Duration::from_secs(1);

/// What a Sentry that is left gets to send the last events in.
const LAST_EVENTS: Duration = Duration::from_secs(2);

/// The way from the workers' outboxes to the sinks.
pub struct Telemetry {
    stats: Arc<Stats>,
    outboxes: Vec<Arc<Outbox>>,
    wake: Arc<Notify>,
    metrics: Metrics,
    watch: Watch,
    /// What became of events, whoever they were sent to.
    events: Arc<sentry::Account>,
    /// Where console and access log write, unless told otherwise.
    stdout: Lines,
    /// A console that is somebody else's, in place of one that the settings ask for.
    shared: Option<Console>,
    outputs: Mutex<Outputs>,
    readers: Mutex<Readers>,
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
    tells: Option<Tells>,
    /// `None` where it stays as it is.
    sentry: Option<sentry::Receiver>,
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
        // With one worker the calls of a request come before it.
        let watch = Watch::new(outboxes.len() > 1);
        let mut lasting: Vec<Box<dyn Sink>> = vec![Box::new(metrics.sink()), Box::new(watch.sink())];
        lasting.extend(sinks);
        // One writer, so that the lines of both stay whole; and a terminal that nobody reads holds nothing up.
        let stdout = Lines::stdout().context("cannot write to standard output")?;
        let readers = Mutex::new(Readers { lasting, switched: Vec::new(), spare: Vec::new() });
        let outputs = Mutex::default();
        let events = Arc::default();
        Ok(Arc::new(Self { stats, outboxes, wake, metrics, watch, events, stdout, shared, outputs, readers }))
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
        let tells = startup.sentry.as_ref().map(|sentry| Tells::new(sentry, &startup.service)).transpose()?;
        let same = self.outputs().tells == tells;
        let sentry = match &tells {
            Some(Tells { sentry, service, .. }) if !same => {
                Some(sentry::Receiver::new(sentry, service).context("cannot send to Sentry")?)
            }
            _ => None,
        };
        let (service, mode) = (startup.service.clone(), startup.export.console);
        // Opened anew in any case: who has moved the file away wants that. Last, for it may make the file.
        let access_log = startup.access_log.as_ref().map(|log| open(log, &self.stdout)).transpose()?;
        let log_has_file = startup.access_log.as_ref().is_some_and(|log| log.path.is_some());
        Ok(Prepared { service, mode, access_log, log_has_file, exports, receiver, tells, sentry })
    }

    /// Switches to other outputs. What was recorded so far goes to those before, and spans that wait for their export
    /// to the new receiver. Has to be called on the runtime that the exporter is to run on.
    pub fn switch(&self, prepared: Prepared) {
        let Prepared { service, mode, access_log, log_has_file, exports, receiver, tells, sentry } = prepared;
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
        self.tell(&mut outputs, tells, sentry);
        drop(outputs);
        self.readers().switched = sinks;
        // Whoever waits without a console may have to look after one now.
        self.wake.notify_one();
    }

    /// Turns to another Sentry, or to none; the one before sends what it has.
    fn tell(&self, outputs: &mut Outputs, tells: Option<Tells>, receiver: Option<sentry::Receiver>) {
        if outputs.tells == tells {
            return;
        }
        let runtime = tokio::runtime::Handle::current();
        let before = outputs.sentry.as_ref();
        let start = |receiver| sentry::start(receiver, &runtime, Arc::clone(&self.events), before);
        let sentry = receiver.map(start);
        let (calls, slow) = tells.as_ref().map_or((false, false), |to| (to.sentry.calls, to.sentry.slow));
        let service = tells.as_ref().map_or("", |to| &to.service.name);
        self.watch.tell(sentry.clone(), service, calls, slow);
        outputs.tells = tells;
        if let Some(before) = std::mem::replace(&mut outputs.sentry, sentry) {
            runtime.spawn(async move { before.shutdown(LAST_EVENTS).await });
        }
    }

    /// What went wrong and what got slow.
    pub fn watch(&self) -> &Watch {
        &self.watch
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
        if outputs.tells.is_some() || self.events.snapshot() != sentry::Snapshot::default() {
            rows.extend(self.events.rows());
        }
        rows.extend(self.watch.rows());
        let logs = outputs.leaving.iter().chain(&outputs.access_log);
        let lost = outputs.lines_lost + logs.map(AccessLog::dropped).sum::<u64>();
        if outputs.access_log.is_some() || lost > 0 {
            rows.push(AccessLog::row(lost));
        }
        rows
    }

    /// Reads records until the end of time.
    pub async fn run(&self) {
        let mut looks = tokio::time::interval(WATCH_TICK);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let console = self.outputs().console.clone();
            let shows = async {
                match &console {
                    Some(_) => tokio::time::sleep(CONSOLE_TICK).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = self.wake.notified() => self.drain(),
                _ = looks.tick() => self.watch.tick(Instant::now(), SystemTime::now()),
                () = shows => console.iter().for_each(|console| console.tick(Instant::now())),
            }
        }
    }

    /// Shows everything that waits to the sinks, now. Whoever is about to read what a sink has gathered calls this
    /// first.
    pub fn drain(&self) {
        let mut readers = self.readers();
        let Readers { lasting, switched, spare } = &mut *readers;
        for outbox in &self.outboxes {
            let mut batch = outbox.take(std::mem::take(spare));
            for record in &mut batch {
                // Nobody else has it yet.
                if let Some(record) = Arc::get_mut(record)
                    && let Some(evidence) = record.evidence.take()
                    && !self.watch.keep(record.identity.span_id, evidence)
                {
                    self.stats.evidence_dropped.increment();
                }
            }
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
        self.watch.finish();
        let (console, logs, exporter, sentry) = {
            let mut outputs = self.outputs();
            let mut logs = std::mem::take(&mut outputs.leaving);
            logs.extend(outputs.access_log.take());
            (outputs.console.clone(), logs, outputs.exporter.take(), outputs.sentry.take())
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
        let left = bound.saturating_sub(begun.elapsed());
        let spans = async {
            if let Some(exporter) = exporter {
                exporter.shutdown(left).await;
            }
        };
        let events = async {
            if let Some(sentry) = sentry {
                sentry.shutdown(left).await;
            }
        };
        tokio::join!(spans, events);
    }

    fn outputs(&self) -> MutexGuard<'_, Outputs> {
        self.outputs.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn readers(&self) -> MutexGuard<'_, Readers> {
        self.readers.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
