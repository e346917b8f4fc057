//! What went wrong, in words that a person understands: failures, their causes and their groups.

pub mod calls;
pub mod cause;
pub mod groups;
pub mod outage;
pub mod scrub;
mod understand;

use std::sync::Arc;

use self::cause::Cause;
use crate::exchange::{Evidence, Record};

/// A failed exchange, understood.
#[derive(Clone, Debug)]
pub struct Failure {
    /// The exchange.
    pub record: Arc<Record>,
    /// Calls that were found to belong to it, in the order in which they began. Of an outbound exchange there are none.
    pub calls: Vec<Arc<Record>>,
    /// What it said, where that was kept.
    pub evidence: Option<Box<Evidence>>,
    /// What its answer says of the cause, where it says something.
    pub cause: Option<Cause>,
    /// Method and route, or where there is no route the path with its ids replaced: `GET /orders/{id}`. It is the same for all
    /// failures of a group.
    pub place: String,
    /// The error class: an exception's type (`ValueError`), else `error.type`: what kind of error the outcome is
    /// (`connection_refused`), the gRPC status (`UNAVAILABLE`) or the HTTP status (`500`).
    pub class: String,
    /// One line on what went wrong, cleaned of secrets.
    pub message: String,
    /// The message without what changes from one failure to the next: numbers, ids, addresses.
    pub pattern: String,
    /// Whose business it is.
    pub category: Category,
    /// How bad it is.
    pub severity: Severity,
}

/// Whose business a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Category {
    /// The caller's.
    Client,
    /// The service's own.
    Service,
    /// That of something that the service called.
    Dependency,
    /// The connection's.
    Network,
    /// Something took longer than it may.
    Timeout,
    /// There was more to do than could be done.
    Capacity,
}

impl Category {
    /// The word on pages and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Category::Client => "client",
            Category::Service => "service",
            Category::Dependency => "dependency",
            Category::Network => "network",
            Category::Timeout => "timeout",
            Category::Capacity => "capacity",
        }
    }
}

/// How bad a failure is; the words are Sentry's levels.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Somebody should look at it some day.
    Warning,
    /// Somebody should look at it.
    Error,
    /// The service is not there.
    Fatal,
}

impl Severity {
    /// The word on pages and events.
    pub fn as_str(self) -> &'static str {
        match self {
            Severity::Warning => "warning",
            Severity::Error => "error",
            Severity::Fatal => "fatal",
        }
    }
}

impl Failure {
    /// What it is called, in two parts that belong before and behind a colon: the exception's type, or where there is none the place,
    /// which says more than a second `500` would; and the message.
    pub fn title(&self) -> (&str, &str) {
        let named = self.cause.as_ref().is_some_and(|cause| cause.kind.is_some());
        let what = if named { &self.class } else { &self.place };
        (what, if self.message.is_empty() { &self.class } else { &self.message })
    }

    /// What makes it one of a group: the same cause is the same group, and another is another. The service comes first.
    pub fn fingerprint(&self, service: &str) -> Vec<String> {
        let status = self.record.status.map_or_else(String::new, |status| status.to_string());
        [service, &self.place, &status, &self.class, &self.pattern].map(str::to_owned).into()
    }
}
