//! What it costs to watch: one finished request with two calls, counted for `/errors` and for `/slow`.
//!
//! Run with `cargo bench --bench watching`. It is spent on the telemetry thread, for each request.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use criterion::{Criterion, criterion_group, criterion_main};
use opentelemetry::trace::{SpanId, TraceId};
use tracecar::exchange::{Identity, Outcome, Record, RequestFacts, Side};
use tracecar::telemetry::failures::groups::Groups;
use tracecar::telemetry::failures::{Category, Failure, Severity};
use tracecar::telemetry::slow::Slow;

/// Routes of a service of some size.
const ROUTES: usize = 30;

fn record(side: Side, name: &str, millis: u64) -> Record {
    let identity = Identity {
        trace_id: TraceId::from(1),
        span_id: SpanId::from(2),
        parent: Some(SpanId::from(3)),
        remote: false,
        flags: 1,
    };
    let mut record = Record::new(side, identity, SystemTime::now(), None);
    record.status = Some(200);
    record.timings.sent = Some(Duration::from_micros(40));
    record.timings.first_byte = Some(Duration::from_millis(millis));
    record.timings.total = Duration::from_millis(millis) + Duration::from_micros(30);
    record.destination = (side == Side::Outbound).then(|| name.into());
    let (path, authority) = (record.put("/orders/42"), record.put("shop.example"));
    record.request = Some(RequestFacts {
        method: http::Method::GET,
        known_method: true,
        url: None,
        path,
        query: None,
        scheme: "http",
        authority,
        user_agent: None,
        route: (side == Side::Inbound).then(|| name.into()),
        version: http::Version::HTTP_11,
        client: SocketAddr::from(([127, 0, 0, 1], 1)).ip(),
    });
    record
}

fn requests() -> Vec<Record> {
    (0..ROUTES)
        .map(|number| record(Side::Inbound, &format!("/shops/{{shop}}/orders/{number}"), 10 + number as u64))
        .collect()
}

fn calls() -> [Arc<Record>; 2] {
    ["stock", "prices"].map(|name| Arc::new(record(Side::Outbound, name, 5)))
}

fn counting(criterion: &mut Criterion) {
    let (requests, calls) = (requests(), calls());
    let (begun, wall) = (Instant::now(), SystemTime::now());
    let mut next = requests.iter().cycle();

    let mut groups = Groups::new(begun, wall);
    criterion.bench_function("errors: a request and two calls", |bencher| {
        bencher.iter(|| {
            let request = next.next().expect("it goes on for ever");
            groups.finished(black_box(request), false);
            calls.iter().for_each(|call| groups.finished(black_box(call), false));
        });
    });

    let mut slow = Slow::new(begun, wall);
    criterion.bench_function("slow: a request and two calls", |bencher| {
        bencher.iter(|| {
            let request = next.next().expect("it goes on for ever");
            calls.iter().for_each(|call| slow.called(black_box(call)));
            slow.finished(black_box(request), &calls);
        });
    });
}

fn failing(criterion: &mut Criterion) {
    let (begun, wall) = (Instant::now(), SystemTime::now());
    let mut record = record(Side::Inbound, "/orders/{id}", 10);
    (record.status, record.outcome) = (Some(500), Outcome::Complete);
    let failure = Failure {
        record: Arc::new(record),
        calls: Vec::new(),
        evidence: None,
        cause: None,
        place: "GET /orders/{id}".to_owned(),
        class: "ValueError".to_owned(),
        message: "invalid literal for int() with base 10: '42x'".to_owned(),
        pattern: "invalid literal for int() with base {n}: '{n}x'".to_owned(),
        category: Category::Service,
        severity: Severity::Error,
    };
    let mut groups = Groups::new(begun, wall);
    criterion.bench_function("errors: a failure", |bencher| {
        bencher.iter(|| groups.failed(black_box(&failure), wall));
    });
}

/// Every ten seconds: all intervals end at once.
fn ending_an_interval(criterion: &mut Criterion) {
    let (mut now, mut wall) = (Instant::now(), SystemTime::now());
    let calls = calls();
    let requests: Vec<_> = (0..256).map(|number| record(Side::Inbound, &format!("/{number}"), 10)).collect();
    let mut slow = Slow::new(now, wall);
    criterion.bench_function("slow: an interval of 256 routes ends", |bencher| {
        bencher.iter_custom(|times| {
            let mut taken = Duration::ZERO;
            for _ in 0..times {
                for request in &requests {
                    (0..10).for_each(|_| slow.finished(request, &calls));
                }
                (now, wall) = (now + Duration::from_secs(10), wall + Duration::from_secs(10));
                let begun = Instant::now();
                black_box(slow.tick(now, wall));
                taken += begun.elapsed();
            }
            taken
        });
    });
}

criterion_group!(benches, counting, failing, ending_an_interval);
criterion_main!(benches);
