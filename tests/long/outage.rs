//! A collector that fails under load: stopped, silent, throttling. No request is lost, and every span is accounted
//! for at every look.

use std::collections::HashSet;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::load::Load;
use crate::support::collector::{Collector, Protocol, Reply};
use crate::support::origin::Origin;
use crate::support::page::Page;
use crate::support::program::{Program, Start};
use crate::{alone, phase};

const RATE: u32 = 500;

/// The default of `export.otlp.queue.max_spans`.
const QUEUE: u64 = 16_384;

const RETRY_AFTER: Option<(&str, &str)> = Some(("retry-after", "1"));

/// How often the account is looked at.
const LOOK: Duration = Duration::from_millis(100);

/// How long a collector that is back may go unnoticed: the longest wait, one attempt into silence, and sending all
/// that waits.
const RECOVERY: Duration = Duration::from_secs(20);

/// What is promised to telemetry at the end, and some for a busy machine.
const END: Duration = Duration::from_secs(4 + 2);

#[derive(Clone, Copy, Debug, PartialEq)]
enum Fault {
    /// Nothing listens any more.
    Stopped,
    /// Connections are taken, and never an answer comes.
    Silent,
    /// Every request is answered with 429 and `Retry-After`.
    Throttling,
}

#[test]
fn a_stopped_collector_costs_no_request_and_no_span_that_fits_the_queue() {
    outage(Fault::Stopped, Protocol::Http, phase());
}

#[test]
fn a_silent_collector_costs_no_request_and_no_span_that_fits_the_queue() {
    outage(Fault::Silent, Protocol::Grpc, phase() / 2);
}

#[test]
fn a_throttling_collector_costs_no_request_and_no_span_that_fits_the_queue() {
    outage(Fault::Throttling, Protocol::Http, phase() / 2);
}

fn outage(fault: Fault, protocol: Protocol, phase: Duration) {
    let _alone = alone();
    let runtime = Runtime::new().expect("threads can be started");
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let mut there =
        There { collector: Some(runtime.block_on(Collector::start(protocol))), ids: HashSet::new() };
    let address = there.address();
    let program = Start::before(&origin.url())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{address}"))
        .env("OTEL_EXPORTER_OTLP_PROTOCOL", if protocol == Protocol::Grpc { "grpc" } else { "http/protobuf" })
        .env("OTEL_EXPORTER_OTLP_TIMEOUT", "2000")
        .env("OTEL_BSP_SCHEDULE_DELAY", "500")
        .run();

    let load = Load::start(program.address, RATE);
    let begun = Instant::now();
    let before = look(&program, &mut there, phase);
    assert!(before.exported > 0 && before.dropped == 0, "all is well at first: {before:?}");

    let failing_from = begun.elapsed();
    there.fail(&runtime, fault);
    let during = look(&program, &mut there, phase);
    let failing_to = begun.elapsed();
    there.recover(&runtime, fault, protocol, address);
    let back = Instant::now();
    let exported_before = during.exported;
    let returned =
        look_until(&program, &mut there, RECOVERY, |now| now.exported > exported_before + QUEUE / 64);
    println!("{fault:?}: noticed {:?} after it was back", back.elapsed());
    look(&program, &mut there, phase / 4);

    let samples = load.stop();
    let after = look_until(&program, &mut there, RECOVERY, |now| now.queued == 0);
    assert_eq!(after.accepted, samples.count(), "every request was answered and has a span");
    assert_eq!(after.dropped, after.dropped_queue_full, "nothing is lost for any other reason: {after:?}");
    // Between the last look at the outage and the return a little more may be turned away.
    let outage_spans = during.accepted - before.accepted;
    if outage_spans + u64::from(RATE) * 10 < QUEUE {
        assert_eq!(after.dropped, 0, "what fits the queue is kept");
    }
    assert!(
        during.queued * 10 >= outage_spans.min(QUEUE) * 9,
        "the queue is used up to its bound: {during:?}"
    );
    assert!(after.exported >= during.exported + during.queued, "what was queued arrives: {after:?}");
    there.gather();
    assert_eq!(there.ids.len() as u64, after.exported, "what counts as exported has arrived");

    let (warm, end) = (Duration::from_secs(1).min(failing_from / 2), failing_to);
    let (p50, p99) = samples.percentiles(warm, failing_from);
    let (p50_failing, p99_failing) = samples.percentiles(failing_from, end);
    println!(
        "{fault:?} for {phase:?} at {RATE}/s: {} requests, {} spans exported, {} turned away, p50 {p50:?} before and \
         {p50_failing:?} during, p99 {p99:?} before and {p99_failing:?} during ({:.2} times)",
        samples.count(),
        after.exported,
        after.dropped,
        p99_failing.as_secs_f64() / p99.as_secs_f64(),
    );
    println!("{fault:?}: {} failed attempts, memory {}", returned.failures, memory(&program));

    // Once more, and now it is told to stop while nobody takes its spans.
    there.fail(&runtime, fault);
    let load = Load::start(program.address, RATE);
    look(&program, &mut there, Duration::from_secs(2));
    load.stop();
    program.terminate();
    let told = Instant::now();
    let ended = program.ended_within(END);
    println!("{fault:?}: ended {:?} after it was told to", told.elapsed());
    assert_eq!(ended.code(), Some(0));
    let log = ended.stderr.iter().filter(|line| line.contains("cannot export spans")).count();
    assert!((1..=2).contains(&log), "one line per outage: {:?}", ended.stderr);
}

/// The collector, as far as it is there, and the ids of all spans that it took.
struct There {
    collector: Option<Collector>,
    ids: HashSet<Vec<u8>>,
}

impl There {
    fn address(&self) -> SocketAddr {
        self.collector.as_ref().expect("it runs").address
    }

    fn gather(&mut self) {
        let Some(collector) = &mut self.collector else { return };
        while let Some(request) = collector.next_now() {
            // What was not acknowledged comes again.
            self.ids.extend(request.spans().into_iter().map(|span| span.span_id.clone()));
        }
    }

    fn fail(&mut self, runtime: &Runtime, fault: Fault) {
        self.gather();
        let collector = self.collector.as_mut().expect("it runs");
        match fault {
            Fault::Silent => collector.always(|| Reply::Silence),
            Fault::Throttling => {
                collector.always(|| Reply::Http { status: 429, header: RETRY_AFTER, body: "not so fast" });
            }
            Fault::Stopped => {
                runtime.block_on(collector.close());
                self.gather();
                self.collector = None;
            }
        }
    }

    fn recover(&mut self, runtime: &Runtime, fault: Fault, protocol: Protocol, address: SocketAddr) {
        match (fault, &self.collector) {
            (Fault::Silent | Fault::Throttling, Some(collector)) => collector.always(|| Reply::Take),
            _ => self.collector = Some(runtime.block_on(Collector::start_at(address, protocol, None))),
        }
    }
}

/// The account, as the metrics page has it.
#[derive(Debug)]
struct Account {
    accepted: u64,
    exported: u64,
    queued: u64,
    dropped: u64,
    dropped_queue_full: u64,
    failures: u64,
}

impl Account {
    /// # Panics
    /// If the numbers do not add up.
    fn of(page: &Page) -> Self {
        let count = |name: &str| page.count(&format!("tracecar_export_{name}"));
        let full = page.sum("tracecar_export_spans_dropped_total", &[("reason", "queue_full")]) as u64;
        let account = Self {
            accepted: count("spans_accepted_total"),
            exported: count("spans_exported_total"),
            queued: count("spans_queued"),
            dropped: count("spans_dropped_total"),
            dropped_queue_full: full,
            failures: count("failures_total"),
        };
        let Self { accepted, exported, queued, dropped, .. } = account;
        assert_eq!(accepted, exported + queued + dropped, "it adds up at every look: {account:?}");
        assert!(queued <= QUEUE, "the queue is bounded: {account:?}");
        assert_eq!(page.count("tracecar_records_dropped_total"), 0, "no record is lost on the way");
        account
    }
}

/// Looks at the account for so long.
fn look(program: &Program, there: &mut There, time: Duration) -> Account {
    let begun = Instant::now();
    look_until_or(program, there, |_| begun.elapsed() >= time, || false)
}

/// Looks at the account until it is as wanted.
///
/// # Panics
/// If that takes longer than `bound`.
fn look_until(
    program: &Program,
    there: &mut There,
    bound: Duration,
    done: impl Fn(&Account) -> bool,
) -> Account {
    let begun = Instant::now();
    look_until_or(program, there, done, || begun.elapsed() > bound)
}

fn look_until_or(
    program: &Program,
    there: &mut There,
    done: impl Fn(&Account) -> bool,
    late: impl Fn() -> bool,
) -> Account {
    loop {
        let account = Account::of(&program.metrics());
        there.gather();
        if done(&account) {
            return account;
        }
        assert!(!late(), "the account is not as it should be: {account:?}");
        std::thread::sleep(LOOK);
    }
}

/// Memory of the program, as the kernel says it.
fn memory(program: &Program) -> String {
    let status = std::fs::read_to_string(format!("/proc/{}/status", program.id())).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.map_or_else(|| "unknown here".to_owned(), |line| line.trim().to_owned())
}
