//! Asks a Sentry what it thinks of us: one envelope that reports nothing, over a connection of its own.
//!
//! It goes by the same code as real events, to the same place and with the same key and certificates. What is in it is a report
//! of what clients have left out, and an empty one: it makes no issue and counts for no quota, but the key is looked at. Of an
//! envelope without any item it is not: Sentry's own Relay answers 200 to that before it has looked. (It may do so to the first
//! request of a project that it has not heard of for a while in any case.)

use std::time::{Duration, SystemTime};

use http::header::DATE;
use sentry::protocol::EnvelopeHeaders;
use tokio::time::{Instant, timeout};

use super::account::Kind;
use super::envelope::sdk;
use super::limits::Limits;
use super::{Receiver, StartError};
use crate::config::{self, Service};
use crate::telemetry::export::{Heard, Reply};

const REPORT: &str = "\n{\"type\":\"client_report\",\"length\":23}\n{\"discarded_events\":[]}\n";

/// Reports nothing to the Sentry of `settings`, once, and waits no longer than `limit`.
///
/// # Errors
/// Where the settings cannot work, whatever Sentry does.
pub async fn probe(
    settings: &config::Sentry,
    service: &Service,
    limit: Duration,
) -> Result<Heard, StartError> {
    let Receiver { mut transport, .. } = Receiver::new(settings, service)?;
    let headers = EnvelopeHeaders::new().with_sent_at(SystemTime::now()).with_sdk(sdk());
    // There is no known reason why it could not be written; without it the report is still one.
    let head = serde_json::to_string(&headers).unwrap_or_else(|_| "{}".to_owned());
    let begun = Instant::now();
    let outcome = timeout(limit, transport.attempt((head + REPORT).into(), false)).await;
    let took = begun.elapsed();
    let mut date = None;
    let reply = match outcome {
        Err(_) => Reply::NoAnswer(format!("no answer within {limit:?}")),
        Ok(Err(failure)) => failure.into(),
        Ok(Ok(answer)) => {
            let said = answer.headers.get(DATE).and_then(|date| date.to_str().ok());
            date = said.and_then(|date| httpdate::parse_http_date(date).ok());
            let now = Instant::now();
            let mut limits = Limits::default();
            limits.note(answer.status, &answer.headers, now);
            let closed = limits.closed(Kind::Event, now);
            match answer.status {
                status if status.is_success() && !closed => {
                    let sends = settings.traces_sample_rate > 0.0;
                    let closed = sends && limits.closed(Kind::Transaction, now);
                    Reply::Taken(if closed { "it wants no transactions".to_owned() } else { String::new() })
                }
                status => {
                    let later = closed || status.is_server_error();
                    Reply::Refused { status, grpc: None, later, reason: answer.words }
                }
            }
        }
    };
    Ok(Heard { endpoint: transport.endpoint, reply, date, took })
}
