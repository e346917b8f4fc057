//! Asks a collector what it thinks of us: one export without spans, over a connection of its own.
//!
//! It goes by the same code as real exports, with the same headers, compression and certificates.

use std::time::{Duration, SystemTime};

use http::StatusCode;
use http::header::DATE;
use tokio::time::{Instant, timeout};

use super::answer::Answer;
use super::connection::{Failure, shown};
use super::pack::Packer;
use super::transport::Transport;
use super::{Pace, StartError};
use crate::config::{Otlp, Service};

/// What a collector said, or whoever else telemetry is sent to.
#[derive(Clone, Debug)]
pub struct Heard {
    /// Where it is, without credentials.
    pub endpoint: String,
    /// Its words.
    pub reply: Reply,
    /// What time it is there, where it says so.
    pub date: Option<SystemTime>,
    /// How long all of it took.
    pub took: Duration,
}

/// What came of the request, in the words of the exporter's log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// It takes what it is sent. The text is a warning of its own, or empty.
    Taken(String),
    /// It answered, and does not take it: never (`later` is false), or not now.
    Refused {
        /// The HTTP status.
        status: StatusCode,
        /// The number of the gRPC status, where there was one.
        grpc: Option<u16>,
        /// Whether it may take it another time.
        later: bool,
        /// What it said.
        reason: String,
    },
    /// Its name leads to no address.
    Unresolved(String),
    /// Nothing can be connected to.
    Unreachable(String),
    /// The TLS handshake failed.
    Tls(String),
    /// It was connected to, and no answer came that could be read.
    NoAnswer(String),
}

/// Exports nothing to the collector of `otlp`, once, and waits no longer than `limit`.
///
/// # Errors
/// Where the settings cannot work, whatever the collector does.
pub async fn probe(otlp: &Otlp, service: &Service, limit: Duration) -> Result<Heard, StartError> {
    let mut transport = Transport::new(otlp)?;
    let mut packer = Packer::new(service, otlp.protocol, otlp.gzip, Pace::default().max_request);
    let content = packer.pack(&[], true).unwrap_or_default();
    let begun = Instant::now();
    let outcome = timeout(limit, transport.probe(content)).await;
    let mut date = None;
    let reply = match outcome {
        Err(_) => Reply::NoAnswer(format!("no answer within {limit:?}")),
        Ok(Err(failure)) => failure.into(),
        Ok(Ok((answer, head))) => {
            let text = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
            date = text(DATE).and_then(|date| httpdate::parse_http_date(date).ok());
            let grpc = head.headers.get("grpc-status").and_then(|code| code.to_str().ok()?.parse().ok());
            let refused = |later, reason| Reply::Refused { status: head.status, grpc, later, reason };
            match answer {
                Answer::Taken { message, .. } => Reply::Taken(message),
                Answer::Refused(reason) => refused(false, reason),
                Answer::Later { reason, .. } => refused(true, reason),
            }
        }
    };
    Ok(Heard { endpoint: shown(&otlp.endpoint), reply, date, took: begun.elapsed() })
}

impl From<Failure> for Reply {
    fn from(failure: Failure) -> Self {
        match failure {
            Failure::Unresolved(reason) => Self::Unresolved(reason),
            Failure::Unreachable(reason) => Self::Unreachable(reason),
            Failure::Tls(error) => Self::Tls(error.to_string()),
            Failure::NoAnswer(reason) => Self::NoAnswer(reason),
        }
    }
}
