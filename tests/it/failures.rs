//! Requests that fail, from outside: what a Sentry is told of them, and what the pages show.

/// What answers say of their causes.
mod answers;
/// Calls as part of a failure, and as failures of their own.
mod calls;
/// Statuses of gRPC.
mod grpc;
/// Services that are not there.
mod outages;
/// `/errors` and `/slow`.
mod pages;
/// What must not come through.
mod secrets;
/// Sentries that hang, are gone, or change; and whose traces go on.
mod sending;

use crate::support::car::TestCar;
use crate::support::origin::{Message, Origin, Peer};
use crate::support::sentry::Sentry;

/// A sidecar before that service, which tells that Sentry of failures. `yaml` has further sections.
fn car(origin: &Origin, sentry: &Sentry, yaml: &str) -> TestCar {
    let yaml = format!("sentry: {{ dsn: '{}', traces: off }}\n{yaml}", sentry.dsn());
    TestCar::with(&origin.url(), &yaml, |_| {})
}

/// An answer with that status line, whole lines of further headers, and content.
fn answer(status: &str, headers: &str, content: impl AsRef<[u8]>) -> Vec<u8> {
    let content = content.as_ref();
    let head = format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n{headers}\r\n", content.len());
    [head.as_bytes(), content].concat()
}

/// Asks for `target`, with whole lines of further headers.
fn ask(car: &TestCar, target: &str, headers: &str) -> Message {
    let mut peer = Peer::connect(car.address());
    peer.send(format!("GET {target} HTTP/1.1\r\nHost: shop\r\n{headers}\r\n"));
    peer.response()
}
