//! The tests that see tracecar from outside, in one binary that links once.
//!
//! Each module is about one promise of the program.

/// One run, seen in spans, metrics and log.
mod agreement;
/// What comes before HTTP: the PROXY protocol.
mod arrival;
/// The built program, from its command line to its exit status.
mod binary;
/// `tracecar ca`: the files it makes, and leaves alone.
mod ca;
/// HTTP/1 on sockets where both directions are busy at once.
mod codec;
/// Rules of HTTP, and the page that lists them.
mod conformance;
/// Values in content that name the parent of a call.
mod content;
/// Trace context, correlation ids, exclusion.
mod context;
/// `tracecar doctor`: what it says of peers that do not work.
mod doctor;
/// The reference configuration, and the texts of what is wrong with others.
mod documents;
/// The program stops, and listeners go away, while requests are under way.
mod drain;
/// Every way in which an exchange ends.
mod endings;
/// Spans on their way to a collector.
mod export;
/// What went wrong, as Sentry and the pages are told of it.
mod failures;
/// The service graph that a backend draws of our spans.
mod graph;
/// gRPC: what clients and services of it notice, and what is told of their calls.
mod grpc;
/// HTTP/1 as bytes, against arbitrary input and against `tests/corpus/h1`.
mod h1;
/// Peers that break the rules.
mod hostile;
/// HTTP/2 and gRPC.
mod http2;
/// HTTP/2 of peers that break the rules, and of those that keep to them too well.
mod http2_frames;
/// What the service is told of its caller.
mod identity;
/// TLS that is looked into, with clients that agree and others.
mod intercept;
/// Every key of the configuration does something, and does it without a restart.
mod keys;
/// Who may import whom.
mod layering;
/// Connections over time: kept, parked, stale, drained.
mod life;
/// Bounds on how much there is at once, and on how long anything lasts.
mod limits;
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
/// Requests of every shape and misshape.
mod requests;
/// Responses of every shape and misshape.
mod responses;
/// Peers: sidecar, origin, collector.
mod support;
/// TLS with callers: certificates, and what callers have to show.
mod termination;
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
/// The same where a stream of HTTP/2 becomes one.
mod websocket;
