//! The tests that see tracecar from outside, in one binary that links once.
//!
//! Each module is about one promise of the program.

/// One run, seen in spans, metrics and log.
mod agreement;
/// The built program, from its command line to its exit status.
mod binary;
/// Trace context, correlation ids, exclusion.
mod context;
/// The reference configuration, and the texts of what is wrong with others.
mod documents;
/// Every way in which an exchange ends.
mod endings;
/// Spans on their way to a collector.
mod export;
/// Peers that break the rules.
mod hostile;
/// HTTP/2 and gRPC.
mod http2;
/// Who may import whom.
mod layering;
/// Connections over time: kept, parked, stale, drained.
mod life;
/// Messages of every shape pass as they were.
mod passing;
/// Parsers of headers against arbitrary input and against `tests/corpus`.
mod properties;
/// Peers: sidecar, origin, collector.
mod support;
/// Connections that change their protocol.
mod upgrade;
