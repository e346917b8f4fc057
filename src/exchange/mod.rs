//! One request and its response, from first byte to last: the core vocabulary.
//!
//! A [`Recorder`] opens an [`Exchange`], the request path notes facts on it, and it closes once, by
//! [`Exchange::finish`] or by being dropped, into a [`Record`]. Records gather in the worker's [`Outbox`]; the
//! telemetry thread takes them from there and shows each to every [`Sink`].

mod destination;
mod evidence;
pub mod grpc;
mod guard;
mod lineage;
mod outbox;
mod outcome;
mod record;
mod redact;
mod route;
mod sampler;
pub mod semconv;
mod tls;

use std::sync::Arc;

pub use destination::{Destination, Destinations, is_telemetry};
pub use evidence::{Chosen, Evidence, HeaderCopy, Keeping, MAX_CONTENT};
pub use grpc::{GRPC_STATUS, RpcMethod, RpcMethods};
pub(crate) use guard::random_bytes;
pub use guard::{Exchange, Keep, Recorder, Start};
pub use lineage::{
    BodyReader, Call, CallToken, Candidate, ExchangeId, Figures, Forwarded, HandedOver, Lineage,
    LineageRules, Method, OpenExchange, Owner, Seen, SentCall, Tier, Verdict, Whose,
};
pub use outbox::Outbox;
pub use outcome::{Fault, Outcome};
pub use record::{Ancestry, Identity, Link, Record, RequestFacts, Side, Stream, Text, Timings, Tunneled};
pub use redact::QueryRedaction;
pub use route::{Exclusion, Match, RouteError, Routes};
pub use sampler::{Root, Sampler};
pub use tls::{ClientCertificate, TlsFacts};

#[cfg(test)]
pub(crate) use record::tests::{sample, sample_call};

/// A reader of records: the span exporter, the metrics, the access log, the console.
///
/// A sink cannot reach a request: it gets finished records, on the telemetry thread, a batch at a time. It may
/// not block; one that waits for something owns a bounded queue and counts what it drops.
pub trait Sink: Send {
    /// Takes note of one finished exchange.
    fn record(&mut self, record: &Arc<Record>);

    /// The batch is over: what was gathered can be written in one go.
    fn batch_end(&mut self) {}
}
