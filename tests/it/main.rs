//! The tests that see tracecar from outside, in one binary that links once.
//!
//! Each module is about one promise of the program.

/// One run, seen in spans, metrics and log.
mod agreement;
/// The built program, from its command line to its exit status.
mod binary;
/// `tracecar ca`: the files it makes, and leaves alone.
mod ca;
/// Values in content that name the parent of a call.
mod content;
/// Trace context, correlation ids, exclusion.
mod context;
/// `tracecar doctor`: what it says of peers that do not work.
mod doctor;
/// The reference configuration, and the texts of what is wrong with others.
mod documents;
/// Every way in which an exchange ends.
mod endings;
/// Spans on their way to a collector.
mod export;
/// What went wrong, as Sentry and the pages are told of it.
mod failures;
/// The service graph that a backend draws of our spans.
mod graph;
/// Peers that break the rules.
mod hostile;
/// HTTP/2 and gRPC.
mod http2;
/// TLS that is looked into, with clients that agree and others.
mod intercept;
/// Every key of the configuration does something, and does it without a restart.
mod keys;
/// Who may import whom.
mod layering;
/// Connections over time: kept, parked, stale, drained.
mod life;
/// Whose call is it, with real processes.
mod lineage;
/// Messages of every shape pass as they were.
mod messages;
/// The way out: calls through the forward proxy and mapped listeners.
mod outbound;
mod passing;
/// Parsers of headers against arbitrary input and against `tests/corpus`.
mod properties;
/// Attempts to get by the way out to where nobody should.
mod relay;
/// The configuration changes while it is in use.
mod reload;
/// Peers: sidecar, origin, collector.
mod support;
/// TLS to services, tunnels, interception.
mod tls;
/// Connections that are redirected to tracecar without the service's knowledge.
#[cfg(target_os = "linux")]
mod transparent;
/// The same with tracecar where they arrive.
#[cfg(target_os = "linux")]
mod transparent_calls;
/// Connections that change their protocol.
mod upgrade;
