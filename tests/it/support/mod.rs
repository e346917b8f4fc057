//! Peers for the tests: real sockets, scripted behaviour, and ways to wait without sleeping.

pub mod car;
pub mod collector;
pub mod corpus;
pub mod exports;
pub mod frames;
pub mod log;
#[cfg(target_os = "linux")]
pub mod namespaces;
pub mod origin;
pub mod page;
pub mod pki;
pub mod program;
pub mod secure;
pub mod sentry;
pub mod service;
pub mod spans;
pub mod streams;
pub mod strict;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Method, Version};
use opentelemetry::trace::{SpanId, TraceId};
use tracecar::exchange::{Identity, Record, RequestFacts, Side, Timings};

/// How long a test waits for something that should happen at once.
pub const PATIENCE: Duration = Duration::from_secs(20);

/// Waits until `done` says so.
///
/// # Panics
/// After [`PATIENCE`], with `what`.
pub async fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let waiting = async {
        let mut ticks = tokio::time::interval(Duration::from_millis(2));
        while !done() {
            ticks.tick().await;
        }
    };
    assert!(tokio::time::timeout(PATIENCE, waiting).await.is_ok(), "not within {PATIENCE:?}: {what}");
}

/// A sampled record of `GET /items/42?page=REDACTED`, answered 200 in 5 ms. `span` becomes its span id.
pub fn record(span: u64) -> Record {
    let identity = Identity {
        trace_id: TraceId::from_bytes([0xab; 16]),
        span_id: SpanId::from(span),
        parent: Some(SpanId::from(0xcafe_u64)),
        remote: true,
        flags: 3,
    };
    let started_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let mut record = Record::new(Side::Inbound, identity, started_at, Some(([127, 0, 0, 1], 50_000).into()));
    record.status = Some(200);
    record.response_bytes = 198;
    record.timings = Timings { total: Duration::from_millis(5), ..Timings::default() };
    record.tracestate = record.put("vendor=a,other=b");
    let path = record.put("/items/42");
    let query = record.put("page=REDACTED");
    let authority = record.put("[2001:db8::1]:8443");
    let user_agent = record.put("curl/8");
    record.request = Some(RequestFacts {
        method: Method::GET,
        known_method: true,
        url: None,
        path,
        query: Some(query),
        scheme: "https",
        authority,
        user_agent: Some(user_agent),
        route: Some(Arc::from("/items/{id}")),
        version: Version::HTTP_2,
        client: [203, 0, 113, 9].into(),
    });
    record
}

/// A finished request of `GET /items/{id}` that took so long.
pub fn took(total: Duration) -> Arc<Record> {
    let mut record = record(1);
    let first_byte = total.saturating_sub(Duration::from_micros(100));
    record.timings = Timings {
        sent: Some(Duration::from_micros(50)),
        first_byte: Some(first_byte),
        total,
        ..record.timings
    };
    Arc::new(record)
}
