//! The keys of failures and of Sentry.

use std::path::PathBuf;

use crate::config::leaf::{Count, Ratio};
use crate::config::reader::{Given, Reader};
use crate::config::sentry::{Dsn, StatusRange, Traces};
use crate::config::value::{Field, Keys, Kind, Section, Value};
use crate::config::web::Template;
use crate::config::write::Written;

section! {
    /// What is looked for in requests that fail. /errors and /slow on the admin port show what was found.
    Failures {
        /// Reads the first 64 KiB of failed answers, for the message and the exception's type that they show. Off, a failure
        /// is called by its method, route and status.
        read_content: bool = "true",
        /// Statuses of the service that count as failures beside 5xx.
        statuses: Vec<StatusRule> = "[]",
    }
}

section! {
    /// Statuses that count as failures.
    StatusRule {
        /// One of `routes`; all where it is not given.
        route: Option<Template> = "null" like "/login",
        /// Statuses, or ranges of them.
        status: Vec<StatusRange> = required like "[401, 409, 420-499]",
    }
}

section! {
    /// Sentry.
    Sentry {
        /// Where events go (`SENTRY_DSN`); without one Sentry is off.
        dsn: Option<Dsn> = "null" like "https://public@o1.ingest.sentry.io/42",
        /// `environment` of events (`SENTRY_ENVIRONMENT`, `ENVIRONMENT`); `service.environment` if not given, or else
        /// production.
        environment: Option<String> = "null" like "staging",
        /// `release` of events (`SENTRY_RELEASE`, `APP_VERSION`); `service.version` if not given.
        release: Option<String> = "null" like "shop@1.4.2",
        /// Share of failures that become events (`SENTRY_SAMPLE_RATE`).
        sample_rate: Ratio = "1.0",
        /// How requests get there as performance data: transactions, or spans by otlp at Sentry's own endpoint. auto sends
        /// transactions where spans are exported nowhere else.
        traces: Traces = "auto",
        /// Share of traces whose requests become transactions (`SENTRY_TRACES_SAMPLE_RATE`). One in ten, for Sentry counts
        /// and charges them.
        traces_sample_rate: Ratio = "0.1",
        /// Whether a failed call is an event if no request is known to have made it. Others are told of with their request.
        calls: bool = "true",
        /// Whether a route that got slower is an event.
        slow: bool = "false",
        /// Events per minute of one group. What is above is counted, and the next event says how many there were.
        max_per_group: Count<100_000> = "10",
        /// Events per minute of all groups.
        max_events: Count<100_000> = "300",
        /// PEM file with the certificates to trust in place of the system's.
        certificate: Option<PathBuf> = "null" like "/etc/tracecar/sentry-ca.pem",
    }
}
