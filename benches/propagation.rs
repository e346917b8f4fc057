//! What reading and writing the context of one request costs: time by criterion, and allocations counted once.
//!
//! `cargo bench --bench propagation`

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use criterion::{BatchSize, Criterion, criterion_group};
use http::{HeaderMap, HeaderValue};
use opentelemetry::trace::SpanId;
use tracecar::propagation::{Context, CorrelationRules, Format, Propagation};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is left to the system's allocator; a counter is added beside it. There is no way to count
// allocations without implementing this unsafe trait, and the product itself does not contain it.
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
static ALLOCATOR: Counting = Counting;

const TRACEPARENT: (&str, &str) = ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03");

/// A request as browsers and services send it, ten headers, and the given ones.
fn request(more: &[(&'static str, &'static str)]) -> HeaderMap {
    let usual = [
        ("host", "shop.example:8080"),
        ("user-agent", "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, br"),
        ("accept-language", "en-GB,en;q=0.8"),
        ("content-type", "application/json"),
        ("content-length", "198"),
        ("cookie", "session=0123456789abcdef0123456789abcdef"),
        ("x-tenant-id", "blue"),
        ("x-forwarded-for", "203.0.113.9"),
    ];
    let mut headers = HeaderMap::with_capacity(32);
    for (name, value) in usual.iter().chain(more) {
        // As a server makes them: parts of a shared read buffer. A `Bytes` becomes shared with its first clone.
        let value = HeaderValue::from_maybe_shared(bytes::Bytes::from(value.as_bytes().to_vec())).unwrap();
        headers.append(*name, value.clone());
    }
    headers
}

fn propagation() -> Propagation {
    Propagation::both(vec![Format::TraceContext, Format::Baggage])
}

/// Requests of other formats: what each is read from and written into.
fn other_formats() -> [(&'static str, Format, HeaderMap); 2] {
    [
        ("b3", Format::B3, request(&[("b3", "0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1")])),
        (
            "datadog",
            Format::Datadog,
            request(&[
                ("x-datadog-trace-id", "9532127138774266268"),
                ("x-datadog-parent-id", "13235353014750950193"),
                ("x-datadog-sampling-priority", "1"),
                ("x-datadog-tags", "_dd.p.dm=-0,_dd.p.tid=0af7651916cd43dd"),
            ]),
        ),
    ]
}

/// The requests whose context is read.
fn incoming() -> [(&'static str, HeaderMap); 6] {
    let state = ("tracestate", "dd=s:2;o:rum;p:0123456789abcdef,congo=t61rcWkgMzE");
    [
        ("nothing", request(&[])),
        ("traceparent", request(&[TRACEPARENT])),
        ("traceparent, tracestate", request(&[TRACEPARENT, state])),
        ("traceparent, 3 lines of tracestate", request(&[TRACEPARENT, state, state, state])),
        ("traceparent, baggage", request(&[TRACEPARENT, ("baggage", "tenant=blue,user=42;p=1,cart=7")])),
        (
            "malformed traceparent",
            request(&[("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b71"), state]),
        ),
    ]
}

/// The context that is written, and the requests it is written into.
fn outgoing() -> (Context, [(&'static str, HeaderMap); 3]) {
    let [_, _, (_, with_state), ..] = incoming();
    let parent = propagation().extract(&with_state).parent.expect("a good traceparent");
    let context = Context { span_id: SpanId::from_bytes([7; 8]), ..parent };
    let state = ("tracestate", "old=1");
    let requests = [
        ("into none", request(&[])),
        ("in place of one", request(&[TRACEPARENT, state])),
        ("in place of two", request(&[TRACEPARENT, TRACEPARENT, state, state])),
    ];
    (context, requests)
}

/// Allocations of one call.
fn allocations<T>(call: impl FnOnce() -> T) -> u64 {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let result = black_box(call());
    let after = ALLOCATIONS.load(Ordering::Relaxed);
    drop(result);
    after - before
}

/// One line for each case; nothing else runs yet, so the count is exact.
fn print_allocations() {
    let propagation = propagation();
    for (name, headers) in incoming() {
        println!("extract/{name}: {} allocations", allocations(|| propagation.extract(&headers)));
    }
    let (context, requests) = outgoing();
    for (name, mut headers) in requests {
        println!("inject/{name}: {} allocations", allocations(|| propagation.inject(&mut headers, &context)));
    }
    for (name, format, mut headers) in other_formats() {
        let propagation = Propagation::both(vec![format]);
        println!("extract/{name}: {} allocations", allocations(|| propagation.extract(&headers)));
        let written = allocations(|| propagation.inject(&mut headers, &context));
        println!("inject/{name}: {written} allocations");
    }
    let rules = CorrelationRules::default();
    let headers = request(&[("x-request-id", "550e8400-e29b-41d4-a716-446655440000")]);
    println!("correlation/accept: {} allocations", allocations(|| rules.accept(&headers)));
}

fn time(criterion: &mut Criterion) {
    let propagation = propagation();
    let mut group = criterion.benchmark_group("extract");
    for (name, headers) in incoming() {
        group.bench_function(name, |bencher| bencher.iter(|| propagation.extract(black_box(&headers))));
    }
    for (name, format, headers) in other_formats() {
        let propagation = Propagation::both(vec![format]);
        group.bench_function(name, |bencher| bencher.iter(|| propagation.extract(black_box(&headers))));
    }
    group.finish();

    let (context, requests) = outgoing();
    let mut group = criterion.benchmark_group("inject");
    for (name, headers) in requests {
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || headers.clone(),
                |headers| propagation.inject(headers, black_box(&context)),
                BatchSize::SmallInput,
            )
        });
    }
    for (name, format, headers) in other_formats() {
        let propagation = Propagation::both(vec![format]);
        group.bench_function(name, |bencher| {
            bencher.iter_batched_ref(
                || headers.clone(),
                |headers| propagation.inject(headers, black_box(&context)),
                BatchSize::SmallInput,
            )
        });
    }
    group.finish();

    let rules = CorrelationRules::default();
    let headers = request(&[("x-request-id", "550e8400-e29b-41d4-a716-446655440000")]);
    criterion
        .bench_function("correlation/accept", |bencher| bencher.iter(|| rules.accept(black_box(&headers))));
}

criterion_group!(benches, time);

fn main() {
    print_allocations();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
