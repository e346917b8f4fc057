//! What lineage costs: opening and closing an exchange on the way in, finding a parent on the way out.
//!
//! Run with `cargo bench --bench lineage`. Both are on the request's path.

use std::hint::black_box;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use http::HeaderMap;
use opentelemetry::trace::{SpanId, TraceId};
use tracecar::exchange::{Call, Lineage, LineageRules, Method, OpenExchange, Seen, Whose};

/// Eight headers, as a browser's client library sends them.
fn headers() -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("host", "shop.internal"),
        ("user-agent", "python-requests/2.32"),
        ("accept", "application/json"),
        ("accept-encoding", "gzip, deflate"),
        ("connection", "keep-alive"),
        ("content-type", "application/json"),
        ("authorization", "Bearer k3J9x2Lm7Qp4wV8sT1zR"),
        ("x-request-id", "7f3c0d6e-2b1a-4c58-9e4f-0a1b2c3d4e5f"),
    ] {
        headers.insert(name, value.parse().expect("a header"));
    }
    headers
}

fn whose(number: u64) -> Whose {
    Whose {
        trace_id: TraceId::from((u128::from(number) << 64) | 1),
        span_id: SpanId::from(number),
        flags: 1,
        tracestate: None,
        route: None,
        correlation: None,
    }
}

fn path(number: u64) -> String {
    let id = u128::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
    format!("/orders/{}/items", uuid::Uuid::from_u128(id).hyphenated())
}

fn open(lineage: &Arc<Lineage>, rules: &LineageRules, headers: &HeaderMap, number: u64) -> OpenExchange {
    let path = path(number);
    let id = format!("request-{number}");
    let seen = Seen { path: &path, query: None, headers, correlation: Some(id.as_bytes()) };
    lineage.open(rules, whose(number), &seen)
}

fn opening(criterion: &mut Criterion) {
    let headers = headers();
    for (name, tail) in
        [("open and close, no tail", Duration::ZERO), ("open and close, tail full", Duration::from_secs(60))]
    {
        let rules = LineageRules { tail, ..LineageRules::default() };
        let lineage = Arc::new(Lineage::new());
        (0..5000).for_each(|number| drop(open(&lineage, &rules, &headers, number)));
        let path = path(1);
        let seen = Seen { path: &path, query: None, headers: &headers, correlation: Some(b"request-1") };
        criterion.bench_function(name, |bencher| {
            bencher.iter(|| drop(black_box(lineage.open(&rules, whose(1), &seen))));
        });
    }
}

fn finding(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("find");
    let headers = HeaderMap::new();
    let rules = LineageRules::default();
    for open_now in [1, 16, 64, 1024, 4096] {
        let lineage = Arc::new(Lineage::new());
        let held: Vec<_> = (1..=open_now).map(|number| open(&lineage, &rules, &headers, number)).collect();
        let by_token = path(1);
        for (name, path, correlation) in [
            ("correlation", "/stock/all/items", Some(&b"request-1"[..])),
            ("token", &*by_token, None),
            ("nothing said", "/stock/all/items", None),
        ] {
            let seen = Seen { path, query: None, headers: &headers, correlation };
            let call = Call { seen, destination: "stock:80", arrived_at: None, owner: None, body: None };
            group.bench_function(BenchmarkId::new(name, open_now), |bencher| {
                bencher.iter(|| black_box(lineage.find(&rules, &call)));
            });
        }
        assert!(lineage.figures().decided[Method::Correlation as usize] > 0);
        // What is asked before that, where the app's processes can be seen.
        for (port, exchange) in held.iter().enumerate() {
            let peer = SocketAddr::from(([127, 0, 0, 1], 10_000 + port as u16));
            exchange.handed_over(SocketAddr::from(([127, 0, 0, 1], 1)), peer);
        }
        let seen = Seen { path: "/stock/all/items", query: None, headers: &headers, correlation: None };
        let call = Call { seen, destination: "stock:80", arrived_at: None, owner: None, body: None };
        group.bench_function(BenchmarkId::new("connections to ask for", open_now), |bencher| {
            bencher.iter(|| black_box(lineage.undecided_connections(&rules, &call)));
        });
        drop(held);
    }
}

criterion_group!(benches, opening, finding);
criterion_main!(benches);
