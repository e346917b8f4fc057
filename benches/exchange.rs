//! What recording a request costs: from beginning an exchange to its finished record, and each reader after that.
//!
//! Run with `cargo bench --bench exchange`. Allocations are counted and printed first: on the request's path there
//! should be few, and none that grows with the number of sinks. Exporting is measured beside opentelemetry-otlp.

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use criterion::{Criterion, criterion_group, criterion_main};
use http::{Method, Version};
use tokio::sync::Notify;
use tracecar::config::{LogFormat, Service};
use tracecar::exchange::semconv::{Status, Value};
use tracecar::exchange::{
    Outbox, Outcome, Record, Recorder, RequestFacts, Sampler, Side, Sink, Start, semconv,
};
use tracecar::stats::Stats;
use tracecar::telemetry::access_log::AccessLog;
use tracecar::telemetry::export;
use tracecar::telemetry::lines::Lines;
use tracecar::telemetry::metrics::Metrics;

#[path = "../src/telemetry/export/encode/oracle.rs"]
mod oracle;

/// Counts what the system's allocator is asked for.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// An allocator cannot be written without `unsafe`; this one only counts and passes on.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static COUNTING: Counting = Counting;

struct Path {
    recorder: Arc<Recorder>,
    outbox: Arc<Outbox>,
    route: Arc<str>,
}

impl Path {
    fn new() -> Self {
        let stats = Arc::new(Stats::default());
        let outbox = Arc::new(Outbox::new(Arc::new(Notify::new()), stats.clone()));
        let recorder = Recorder::new(outbox.clone(), stats, Arc::new(AtomicBool::new(false)));
        Self { recorder, outbox, route: "/items/{id}".into() }
    }

    /// What `forward` does around an ordinary request, without the request.
    fn exchange(&self) {
        let peer = SocketAddr::from(([127, 0, 0, 1], 50_000));
        let mut exchange = self.recorder.begin(Start::new(Side::Inbound, Some(peer)), &Sampler::default());
        exchange.note_request(|record| RequestFacts {
            method: Method::GET,
            known_method: true,
            url: None,
            path: record.put("/items/42"),
            query: Some(record.put("page=REDACTED")),
            scheme: "http",
            authority: record.put("shop.example:8080"),
            user_agent: Some(record.put("curl/8.5.0")),
            route: Some(self.route.clone()),
            version: Version::HTTP_11,
            client: peer.ip(),
        });
        exchange.record().timings.first_byte = Some(exchange.elapsed());
        exchange.note_status(200, None);
        exchange.finish(Outcome::Complete);
    }
}

fn bench(c: &mut Criterion) {
    let path = Path::new();
    path.exchange();
    let mut spare = path.outbox.take(Vec::with_capacity(1024));
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    for _ in 0..100 {
        path.exchange();
    }
    let allocations = (ALLOCATIONS.load(Ordering::Relaxed) - before) as f64 / 100.0;
    println!("allocations from begin to finish: {allocations:.2}");

    c.bench_function("begin to finish, and the record taken", |b| {
        b.iter(|| {
            path.exchange();
            spare = path.outbox.take(std::mem::take(&mut spare));
        });
    });

    let service = Service { name: "bench".to_owned(), named: true, attributes: Vec::new() };
    let log = AccessLog::new(LogFormat::Json, Lines::to(std::io::sink(), 1 << 20).expect("a thread starts"));
    let metrics: Box<dyn Sink> = Box::new(Metrics::new(&service).sink());
    let sinks = [("metrics", metrics), ("access log", Box::new(log.sink()) as Box<dyn Sink>)];
    path.exchange();
    let record = path.outbox.take(Vec::new()).remove(0);
    for (name, mut sink) in sinks {
        c.bench_function(&format!("one record read by: {name}"), |b| {
            b.iter(|| {
                sink.record(black_box(&record));
                sink.batch_end();
            });
        });
    }
    c.bench_function("one record read as: span attributes", |b| {
        b.iter(|| {
            semconv::attributes(black_box(&record), &mut |key, value| {
                black_box((key, value));
            });
        });
    });
    export(c, &path, &service);
}

/// One slice of a batch on its way to a collector. The last line is what another encoder would take.
fn export(c: &mut Criterion, path: &Path, service: &Service) {
    (0..64).for_each(|_| path.exchange());
    let records = path.outbox.take(Vec::new());
    for (name, gzip) in [("64 records encoded", false), ("64 records encoded and compressed", true)] {
        let mut packer = export::packer(service, gzip);
        let mut pack = || packer(black_box(&records)).expect("it is below the limit");
        let bytes = pack().len();
        let before = ALLOCATIONS.load(Ordering::Relaxed);
        pack();
        let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
        println!("{name}: {bytes} bytes, {allocations} allocations");
        c.bench_function(name, |b| b.iter(&mut pack));
    }
    let oracle = oracle::Oracle::new([(semconv::SERVICE_NAME, service.name.as_str())]);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    let encode = || runtime.block_on(oracle.encode(black_box(&records).iter().map(|record| &**record)));
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let bytes = encode().len();
    let allocations = ALLOCATIONS.load(Ordering::Relaxed) - before;
    println!("64 records encoded by opentelemetry-otlp: {bytes} bytes, {allocations} allocations");
    c.bench_function("64 records encoded by opentelemetry-otlp", |b| b.iter(encode));
}

criterion_group!(benches, bench);
criterion_main!(benches);
