//! Sending to a Sentry on a real socket, and what it is sent.

mod content;
mod sending;
mod server;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::*;
use crate::exchange::{Outcome, Record, sample, sample_call};
use crate::telemetry::failures::cause::{Cause, StackFrame};
use crate::telemetry::failures::{Category, Failure};

/// Settings that send everything.
fn settings(address: SocketAddr) -> config::Sentry {
    config::Sentry {
        dsn: format!("http://abc@{address}/42").parse().unwrap(),
        environment: "staging".into(),
        release: Some("shop@1.2".into()),
        sample_rate: 1.0,
        traces_sample_rate: 1.0,
        calls: true,
        slow: true,
        max_per_group: 1000,
        max_events: 1000,
        certificate: None,
    }
}

fn service() -> Service {
    Service { name: "shop".into(), named: true, attributes: vec![("host.name".into(), "pod-7".into())] }
}

/// Sends as `settings` say, on this runtime.
fn begin(settings: &config::Sentry) -> Sentry {
    start(Receiver::new(settings, &service()).unwrap(), &Handle::current(), Arc::default(), None)
}

/// `GET /items/{id}` that was answered 500.
fn failed() -> Record {
    let mut record = sample();
    record.status = Some(500);
    record
}

/// The failure of a record, without a cause that is known.
fn failure(record: Record) -> Failure {
    Failure {
        record: Arc::new(record),
        calls: Vec::new(),
        evidence: None,
        cause: None,
        place: "GET /items/{id}".into(),
        class: "500".into(),
        message: "500 Internal Server Error".into(),
        pattern: "500 Internal Server Error".into(),
        category: Category::Service,
        severity: Severity::Error,
    }
}

/// A failure of a group of its own.
fn failure_of(group: usize) -> Failure {
    Failure { pattern: format!("group {group}"), ..failure(failed()) }
}

/// Waits until nothing is queued any more.
async fn settled(sentry: &Sentry) -> Snapshot {
    loop {
        let now = sentry.account().snapshot();
        assert!(now.adds_up(), "{now:?}");
        if now.queued == 0 {
            return now;
        }
        tokio::task::yield_now().await;
    }
}

/// All that was dropped, by reason.
fn dropped(now: &Snapshot) -> Vec<(&'static str, u64)> {
    let all = Dropped::ALL.map(|reason| (reason.as_str(), now.dropped(reason)));
    all.into_iter().filter(|(_, count)| *count > 0).collect()
}
