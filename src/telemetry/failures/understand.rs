//! From a record to a [`Failure`].

use std::borrow::Cow;
use std::sync::Arc;

use super::cause::{self, Cause};
use super::{Category, Failure, Severity, scrub};
use crate::exchange::{Evidence, Outcome, Record, Side};
use crate::telemetry::words::percent_decoded;

/// Bytes of a message.
const MAX_MESSAGE: usize = 500;

impl Failure {
    /// Whether the exchange counts as a failure: by itself, or by the choice of the settings.
    pub fn is_one(record: &Record) -> bool {
        record.failed() || record.chosen
    }

    /// The call that is to blame, where that is a dependency: of a request the latest that came to nothing, of a call itself.
    pub fn dependency(&self) -> Option<&Record> {
        if self.category != Category::Dependency {
            return None;
        }
        match self.record.side {
            Side::Outbound => Some(&self.record),
            Side::Inbound => self.calls.iter().rev().find(|call| broke(call)).map(|call| &**call),
        }
    }

    /// What is to be understood of a failed exchange. `calls` are those that were found to belong to it.
    pub fn of(record: Arc<Record>, calls: Vec<Arc<Record>>, evidence: Option<Box<Evidence>>) -> Self {
        let cause = evidence.as_deref().and_then(|evidence| cause_of(&record, evidence));
        let class = class(&record, cause.as_ref());
        let message = match cause.as_ref().and_then(|cause| cause.message.as_deref()) {
            Some(message) => message.to_owned(),
            None => plain(&record),
        };
        let message = shortened(message);
        let category = category(&record, &calls);
        Self {
            place: place(&record),
            // How a connection broke is told in many words, and is one cause.
            pattern: if record.error_of_outcome().is_some() {
                String::new()
            } else {
                cause::pattern(&message)
            },
            severity: severity(&record, category),
            class,
            message,
            category,
            cause,
            calls,
            evidence,
            record,
        }
    }
}

fn cause_of(record: &Record, evidence: &Evidence) -> Option<Cause> {
    if let Some(message) = &evidence.grpc_message {
        let message = scrub::text(&percent_decoded(message)).into_owned();
        return Some(Cause { message: Some(message), source: "grpc", ..Cause::default() });
    }
    // What broke off in the middle, whoever broke it off, may have been about to say something else.
    if evidence.content.is_empty() || record.outcome != Outcome::Complete {
        return None;
    }
    let header = |name| evidence.response_headers.text(name);
    cause::read(header("content-type"), header("content-encoding"), &evidence.content, evidence.cut)
}

fn class(record: &Record, cause: Option<&Cause>) -> String {
    let kind = cause.and_then(|cause| cause.kind.as_deref()).map(short);
    let word = || record.error_type().map(|word| word.into_owned());
    let status = || record.status.map(|status| status.to_string());
    kind.or_else(word).or_else(status).unwrap_or_else(|| record.outcome.as_str().to_owned())
}

/// The name of a type without its module or package: some pages of a framework show it, and others do not.
fn short(kind: &str) -> String {
    let last = kind.rsplit(['.', ':', '\\']).next().unwrap_or_default();
    if last.is_empty() { kind.to_owned() } else { last.to_owned() }
}

/// What is said where the answer says nothing: our own sentence, else the status.
fn plain(record: &Record) -> String {
    let detail = record.text(record.detail);
    if !detail.is_empty() {
        return scrub::text(detail).into_owned();
    }
    if let Some(word) = record.error_of_outcome().or_else(|| record.error_of_grpc()) {
        return word.to_owned();
    }
    let Some(status) = record.status else { return record.outcome.as_str().to_owned() };
    let reason = http::StatusCode::from_u16(status).ok().and_then(|status| status.canonical_reason());
    reason.map_or_else(|| status.to_string(), |reason| format!("{status} {reason}"))
}

/// One line, and not too long.
fn shortened(message: String) -> String {
    let line = message.split(['\n', '\r']).find(|line| !line.trim().is_empty()).unwrap_or_default().trim();
    if line.len() <= MAX_MESSAGE {
        return line.to_owned();
    }
    format!("{}…", &line[..line.floor_char_boundary(MAX_MESSAGE)])
}

/// Method and route, or where there is no route the shape of the path.
fn place(record: &Record) -> String {
    let Some(request) = &record.request else { return "(unreadable)".to_owned() };
    let method = if request.known_method { request.method.as_str() } else { "_OTHER" };
    let path = match &request.route {
        Some(route) => route.to_string(),
        None => cause::path_shape(&scrub::path(record.text(request.path))),
    };
    match record.side {
        Side::Inbound => format!("{method} {path}"),
        Side::Outbound => {
            let to = record.destination.as_deref();
            let to = to.map_or_else(|| scrub::text(record.text(request.authority)), Cow::Borrowed);
            format!("{method} {to}{path}")
        }
    }
}

/// Whether a call came to nothing, by no fault of the service: an answer such as 404 may be all that it wanted to know.
fn broke(call: &Record) -> bool {
    let status = call.status.is_some_and(|status| status >= 500);
    status || call.error_of_outcome().is_some() || call.error_of_grpc().is_some()
}

/// Whether a call that came to nothing is what the request failed of: the service says so by its status, or did nothing after it.
/// One that went on may have failed of something else.
fn of_dependency(record: &Record, calls: &[Arc<Record>]) -> bool {
    let passed_on = matches!(record.status, Some(502..=504));
    calls.last().is_some_and(|call| broke(call)) || passed_on && calls.iter().any(|call| broke(call))
}

fn category(record: &Record, calls: &[Arc<Record>]) -> Category {
    let inbound = record.side == Side::Inbound;
    match record.outcome {
        Outcome::UpstreamTimeout
        | Outcome::UpstreamConnectTimeout
        | Outcome::UpstreamNotSending
        | Outcome::RequestTimeout
        | Outcome::ClientNotSending
        | Outcome::StreamTimeout => return Category::Timeout,
        Outcome::Overloaded => return Category::Capacity,
        Outcome::UpstreamUnresolved
        | Outcome::UpstreamUnreachable
        | Outcome::UpstreamCertificate
        | Outcome::UpstreamTls => return Category::Network,
        // The service stands beside us: there is no network between that could be at fault.
        Outcome::UpstreamRefused
        | Outcome::UpstreamReset
        | Outcome::UpstreamInvalid
        | Outcome::UpstreamBroken => {
            return if inbound { Category::Service } else { Category::Network };
        }
        Outcome::ClientGoneBeforeResponse | Outcome::ClientGoneDuringResponse | Outcome::ClientNotReading => {
            return Category::Client;
        }
        // Calls that the rules refuse or nobody understands are the service's doing.
        Outcome::MalformedRequest | Outcome::Rejected => {
            return if inbound { Category::Client } else { Category::Service };
        }
        Outcome::Complete | Outcome::TunnelIdle | Outcome::Drained | Outcome::Panicked => {}
    }
    let late =
        matches!((record.error_of_grpc(), record.status), (Some("DEADLINE_EXCEEDED"), _) | (_, Some(504)));
    if record.failed() && !late && of_dependency(record, calls) {
        return Category::Dependency;
    }
    match (record.error_of_grpc(), record.status) {
        (Some("DEADLINE_EXCEEDED"), _) | (_, Some(408 | 504)) => Category::Timeout,
        (Some("RESOURCE_EXHAUSTED" | "UNAVAILABLE"), _) | (_, Some(429 | 503)) => Category::Capacity,
        (_, Some(400..500)) => {
            if inbound {
                Category::Client
            } else {
                Category::Service
            }
        }
        _ if !inbound => Category::Dependency,
        _ => Category::Service,
    }
}

fn severity(record: &Record, category: Category) -> Severity {
    match record.outcome {
        Outcome::UpstreamRefused if record.side == Side::Inbound => Severity::Fatal,
        _ if category == Category::Client => Severity::Warning,
        // Chosen by the settings; nobody else calls it a failure.
        _ if !record.failed() => Severity::Warning,
        _ => Severity::Error,
    }
}

#[cfg(test)]
mod tests;
