//! What is said of a place that got slow.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::exchange::Side;
use crate::telemetry::failures::Severity;
use crate::telemetry::words::rfc3339;

/// A place that takes longer than it used to.
#[derive(Clone, Debug)]
pub struct Shift {
    /// Requests of a route, or calls to a destination.
    pub side: Side,
    /// `GET /orders/{id}`; of calls the destination: `stock:8080`.
    pub place: String,
    /// The quantile in which it was found: 50 or 90.
    pub quantile: u8,
    /// The quantile as it used to be, in milliseconds: the median of the past intervals.
    pub before_ms: f64,
    /// The quantile over about the latest minute of the shift, in milliseconds.
    pub after_ms: f64,
    /// How bad it is; it only grows. Never [`Severity::Fatal`]: what is slow is there.
    pub severity: Severity,
    /// When the first slow interval began.
    pub began_at: SystemTime,
    /// When the first interval began that was no longer slow; `None` while it goes on.
    pub ended_at: Option<SystemTime>,
    /// What is new about it.
    pub stage: Stage,
    /// Exchanges since it began.
    pub requests: u64,
    /// Where the time goes, what grew most first. All are means per exchange, and those of destinations that were
    /// called at the same time may add up to more than the whole.
    pub parts: Vec<Part>,
    /// How much the mean of the whole grew, in milliseconds.
    pub grown_ms: f64,
    /// What may be behind it, where that cannot be known: destinations that got slow at about the same time, and of
    /// whose calls some belong to requests that we do not know. Only where the service's own time is the cause.
    pub likely: Vec<Likely>,
}

/// What is new about a shift.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    /// It was found.
    Began,
    /// Its severity has grown.
    Worse,
    /// It is over.
    Ended(End),
}

/// Why a shift is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// It is as fast as before.
    Recovered,
    /// It has been like this for half an hour, and is compared with that from now on.
    Lasting,
    /// Nobody asked for five minutes: how fast it is now, nobody knows.
    NoTraffic,
}

impl End {
    /// The word on pages and events.
    pub fn as_str(self) -> &'static str {
        match self {
            End::Recovered => "recovered",
            End::Lasting => "lasting",
            End::NoTraffic => "no_traffic",
        }
    }
}

/// A share of the time.
#[derive(Clone, Debug)]
pub struct Part {
    /// The destination, or the word of the kind.
    pub name: Arc<str>,
    /// What the time is spent on.
    pub kind: PartKind,
    /// Mean per exchange before, in milliseconds.
    pub before_ms: f64,
    /// Mean per exchange in about the latest minute of the shift, in milliseconds.
    pub after_ms: f64,
}

impl Part {
    /// How much it grew, in milliseconds.
    pub fn delta_ms(&self) -> f64 {
        self.after_ms - self.before_ms
    }

    pub(super) fn json(&self) -> Value {
        json!({
            "name": &*self.name,
            "kind": self.kind.as_str(),
            "before_ms": rounded(self.before_ms),
            "after_ms": rounded(self.after_ms),
            "delta_ms": rounded(self.delta_ms()),
        })
    }
}

/// What time is spent on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PartKind {
    /// In tracecar, before the head was sent on.
    Tracecar,
    /// Resolving, connecting, TLS.
    Connect,
    /// From the sent head to the response's head, without the calls that are known to belong to the request.
    Service,
    /// From the response's head to its end, without such calls.
    Transfer,
    /// Calls to one destination. Of calls: from the sent head to the response's head.
    Dependency,
}

impl PartKind {
    /// The word on pages and events.
    pub fn as_str(self) -> &'static str {
        match self {
            PartKind::Tracecar => "tracecar",
            PartKind::Connect => "connect",
            PartKind::Service => "service",
            PartKind::Transfer => "transfer",
            PartKind::Dependency => "dependency",
        }
    }
}

/// A destination that may be the cause of a shift.
#[derive(Clone, Debug)]
pub struct Likely {
    /// The destination.
    pub destination: String,
    /// When its own shift began.
    pub began_at: SystemTime,
    /// The quantile of its own shift as it used to be, in milliseconds.
    pub before_ms: f64,
    /// The quantile of its own shift now, in milliseconds.
    pub after_ms: f64,
    /// The share of its calls of which nobody knows for which request they were made, from 0 to 1.
    pub unattributed: f64,
}

/// From this factor on a shift is an error at once.
const ERROR_FACTOR: f64 = 4.0;

/// From this factor on it becomes one when it lasts for [`ERROR_AFTER`].
const ERROR_FACTOR_IF_LASTING: f64 = 2.0;

const ERROR_AFTER: Duration = Duration::from_secs(10 * 60);

/// How bad it is to take `factor` times as long for that long: four times as long is an error at once, twice as long
/// after ten minutes; all else is a warning.
pub fn severity(factor: f64, lasted: Duration) -> Severity {
    let least = if lasted >= ERROR_AFTER { ERROR_FACTOR_IF_LASTING } else { ERROR_FACTOR };
    if factor >= least { Severity::Error } else { Severity::Warning }
}

impl Shift {
    /// How many times as long it takes.
    pub fn factor(&self) -> f64 {
        // The quantile of no duration at all would be zero.
        self.after_ms / self.before_ms.max(0.001)
    }

    /// The part that grew most, if that is at least half of what the whole grew; `None` where there are several causes
    /// or none that we see.
    pub fn cause(&self) -> Option<&Part> {
        let first = self.parts.first()?;
        (self.grown_ms > 0.0 && first.delta_ms() >= self.grown_ms / 2.0).then_some(first)
    }

    /// The shift as the page has it.
    pub fn json(&self) -> Value {
        let cause = self.cause();
        let end = match self.stage {
            Stage::Ended(end) => Some(end.as_str()),
            Stage::Began | Stage::Worse => None,
        };
        json!({
            "side": self.side.as_str(),
            "place": self.place,
            "severity": self.severity.as_str(),
            "quantile": format!("p{}", self.quantile),
            "before_ms": rounded(self.before_ms),
            "after_ms": rounded(self.after_ms),
            "factor": rounded(self.factor()),
            "cause": cause.map_or("several", |part| &part.name),
            "cause_kind": cause.map(|part| part.kind.as_str()),
            "likely": self.likely.iter().map(Likely::json).collect::<Vec<_>>(),
            "began_at": rfc3339(self.began_at, 3),
            "ended_at": self.ended_at.map(|at| rfc3339(at, 3)),
            "end": end,
            "requests": self.requests,
            "grown_ms": rounded(self.grown_ms),
            "parts": self.parts.iter().map(Part::json).collect::<Vec<_>>(),
        })
    }
}

impl Likely {
    fn json(&self) -> Value {
        json!({
            "destination": self.destination,
            "began_at": rfc3339(self.began_at, 3),
            "before_ms": rounded(self.before_ms),
            "after_ms": rounded(self.after_ms),
            "unattributed_share": rounded(self.unattributed),
        })
    }
}

/// Three decimals: nobody reads more. What is added makes a zero of `-0.0`.
pub(super) fn rounded(value: f64) -> f64 {
    (value * 1e3).round() / 1e3 + 0.0
}
