//! The visits: what each does, and what it leaves.

use super::place::Place;
use super::{framed, grpc, http1, secured, slow};

/// One kind of visit, and all that one of it leaves.
pub struct Visit {
    pub what: &'static str,
    /// Requests whose spans name the visit.
    pub requests: u64,
    /// In which ways these may end.
    pub ends: &'static [&'static str],
    /// How what was no request ended, one span each.
    pub unread: &'static [&'static str],
    /// Connections to the program.
    pub connections: u64,
    /// Counters of the metrics page that go up by one: name, label, value.
    pub counts: &'static [(&'static str, &'static str, &'static str)],
    pub go: fn(&Place),
}

/// A visit of one connection.
const fn visit(what: &'static str, requests: u64, ends: &'static [&'static str], go: fn(&Place)) -> Visit {
    Visit { what, requests, ends, unread: &[], connections: 1, counts: &[], go }
}

impl Visit {
    const fn unread(mut self, outcomes: &'static [&'static str]) -> Self {
        self.unread = outcomes;
        self
    }

    const fn counts(mut self, counts: &'static [(&'static str, &'static str, &'static str)]) -> Self {
        self.counts = counts;
        self
    }
}

const COMPLETE: &[&str] = &["complete"];
const GONE_BEFORE: &[&str] = &["client_gone_before_response"];
const GONE_DURING: &[&str] = &["client_gone_during_response"];
const MALFORMED: &[&str] = &["malformed_request"];
const BROKEN: &[&str] = &["upstream_broken"];
const NONE: &[&str] = &[];

const HANDSHAKES: &str = "tracecar_tls_handshakes_total";
const SECURED: &[(&str, &str, &str)] = &[(HANDSHAKES, "result", "complete")];
const REFUSED: &str = "tracecar_http2_requests_refused_total";
const ENDED: &str = "tracecar_http2_connections_ended_total";
const PROXIED: &str = "tracecar_proxy_protocol_refused_total";
const QUIET: &str = "tracecar_connections_timed_out_total";
const STALLED: &str = "tracecar_requests_timed_out_total";

/// Visits that take a moment. Callers make them one after the other, each of them beginning at another place.
pub const QUICK: &[Visit] = &[
    visit("ordinary requests on one connection", 3, COMPLETE, http1::ordinary),
    visit("two requests at once", 2, COMPLETE, http1::pipelined),
    visit("a big upload", 1, COMPLETE, http1::upload),
    visit("a big download", 1, COMPLETE, http1::download),
    visit("a slow reader", 1, COMPLETE, http1::slow_reader),
    visit("a stream of events", 1, COMPLETE, http1::events),
    visit("a head in small pieces", 1, COMPLETE, http1::pieces),
    visit("Expect: 100-continue", 1, COMPLETE, http1::expect),
    visit("103 before the answer", 1, COMPLETE, http1::hints),
    visit("trailers in the answer", 1, COMPLETE, http1::trailers),
    visit("trailers in the request", 1, COMPLETE, http1::trailers_sent),
    visit("a failure of the service", 1, COMPLETE, http1::failure),
    visit("an excluded request", 0, NONE, http1::excluded).counts(&[(
        "tracecar_requests_excluded_total",
        "",
        "",
    )]),
    visit("an upgrade", 1, COMPLETE, http1::upgrade),
    visit("an upgrade that ends with a reset", 1, GONE_DURING, http1::upgrade_reset),
    visit("a WebSocket", 1, COMPLETE, http1::websocket),
    visit("half-close after the request", 1, COMPLETE, http1::half_close),
    visit("half-close within the content", 1, GONE_BEFORE, http1::half_close_within),
    visit("a reset before the response", 1, GONE_BEFORE, http1::reset_before),
    visit("a reset in the middle of the response", 1, GONE_DURING, http1::reset_during),
    visit("a reset in the middle of an upload", 1, GONE_BEFORE, http1::reset_upload),
    visit("garbage", 0, NONE, http1::garbage).unread(MALFORMED),
    visit("garbage for a chunk", 1, GONE_BEFORE, http1::chunked_garbage),
    visit("a connection without a word", 0, NONE, http1::silence),
    visit("a service that resets", 1, &["upstream_reset"], http1::origin_resets),
    visit("a service that breaks off", 1, BROKEN, http1::origin_breaks),
    visit("a service that breaks off in a chunk", 1, BROKEN, http1::origin_truncates),
    visit("a service that sends garbage for a chunk", 1, BROKEN, http1::origin_mangles),
    visit("a service that speaks no HTTP", 1, &["upstream_invalid_response"], http1::origin_babbles),
    visit(
        "a service that dies and comes back",
        1,
        &["complete", "upstream_refused", "upstream_reset", "upstream_broken"],
        http1::dying,
    ),
    visit("a call out", 1, COMPLETE, http1::call_out),
    visit("a call to nobody", 1, &["upstream_refused"], http1::call_nobody),
    visit("HTTP/2", 3, COMPLETE, framed::ordinary),
    visit(
        "HTTP/2: a request that is cancelled",
        2,
        &["complete", "client_gone_before_response"],
        framed::reset,
    ),
    visit(
        "HTTP/2: 40 requests cancelled at once",
        41,
        &["complete", "client_gone_before_response"],
        framed::resets,
    ),
    visit("HTTP/2: a caller that leaves in an upload", 1, GONE_BEFORE, framed::leaves),
    visit("HTTP/2: 500 PINGs", 1, COMPLETE, framed::pings),
    visit("HTTP/2: a flood of PINGs", 1, COMPLETE, framed::ping_flood).unread(MALFORMED).counts(&[(
        ENDED,
        "reason",
        "no_content",
    )]),
    visit("HTTP/2: a malformed request", 1, COMPLETE, framed::malformed).unread(MALFORMED).counts(&[(
        REFUSED,
        "reason",
        "malformed",
    )]),
    visit("HTTP/2: frames that may not be", 0, NONE, framed::garbage).unread(MALFORMED).counts(&[(
        ENDED,
        "reason",
        "protocol_error",
    )]),
    visit("gRPC: a stream", 1, COMPLETE, grpc::stream),
    visit("gRPC: a talk", 1, COMPLETE, grpc::talk),
    visit("gRPC: an error behind a stream", 1, COMPLETE, grpc::fail),
    visit("gRPC: an error without content", 1, COMPLETE, grpc::refuse),
    visit("gRPC: the service resets the stream", 1, &["upstream_broken", "upstream_reset"], grpc::reset),
    visit("gRPC: the caller cancels the stream", 1, GONE_DURING, grpc::cancel),
    visit("gRPC: the service loses the connection", 1, &["upstream_reset"], grpc::lose),
    visit("TLS", 2, COMPLETE, secured::ordinary).counts(SECURED),
    visit("TLS: HTTP/2", 2, COMPLETE, secured::http2).counts(SECURED),
    visit("TLS: a caller that leaves", 1, GONE_BEFORE, secured::leaves).counts(SECURED),
    visit("TLS: HTTP/2: a caller that leaves", 1, GONE_BEFORE, secured::http2_leaves).counts(SECURED),
    visit("TLS: a caller with a certificate", 1, COMPLETE, secured::certified).counts(SECURED),
    visit("TLS: the wrong certificate", 0, NONE, secured::wrong_certificate).counts(&[(
        HANDSHAKES,
        "result",
        "client_certificate",
    )]),
    visit("TLS: no certificate", 0, NONE, secured::no_certificate).counts(&[(
        HANDSHAKES,
        "result",
        "client_certificate",
    )]),
    visit("TLS: a caller that does not trust us", 0, NONE, secured::distrust).counts(&[(
        HANDSHAKES,
        "result",
        "refused_by_client",
    )]),
    visit("TLS: another protocol inside", 0, NONE, secured::incompatible).counts(&[(
        HANDSHAKES,
        "result",
        "incompatible",
    )]),
    visit("TLS: garbage in place of it", 0, NONE, secured::garbage)
        .counts(&[(HANDSHAKES, "result", "not_tls")]),
    visit("TLS: garbage in a record", 0, NONE, secured::malformed).counts(&[(
        HANDSHAKES,
        "result",
        "malformed",
    )]),
    visit("TLS: a handshake that is left", 0, NONE, secured::aborted)
        .counts(&[(HANDSHAKES, "result", "closed")]),
    visit("TLS: plain HTTP in place of it", 0, NONE, secured::plain).unread(MALFORMED).counts(&[(
        HANDSHAKES,
        "result",
        "plain_http",
    )]),
    visit("PROXY protocol", 1, COMPLETE, secured::proxied),
    visit("PROXY protocol: not there", 0, NONE, secured::unproxied).counts(&[(PROXIED, "reason", "absent")]),
    visit("PROXY protocol: malformed", 0, NONE, secured::misproxied).counts(&[(
        PROXIED,
        "reason",
        "malformed",
    )]),
    visit("PROXY protocol: cut off", 0, NONE, secured::half_proxied).counts(&[(PROXIED, "reason", "ended")]),
];

/// Visits that wait for the program to lose its patience. Each has a caller of its own.
pub const SLOW: &[Visit] = &[
    visit("a head that does not end", 0, NONE, slow::head).unread(&["request_timeout"]).counts(&[(
        QUIET,
        "phase",
        "request_header",
    )]),
    visit("nothing at all", 0, NONE, slow::nothing).counts(&[(QUIET, "phase", "detection")]),
    visit("a connection at rest", 1, COMPLETE, slow::idle).counts(&[(QUIET, "phase", "idle")]),
    visit("content that stalls", 1, &["client_not_sending"], slow::content).counts(&[(
        STALLED,
        "phase",
        "request_body",
    )]),
    visit("a service that does not answer", 1, &["upstream_timeout"], slow::answer),
    visit("a service that stalls", 1, &["upstream_not_sending"], slow::response).counts(&[(
        STALLED,
        "phase",
        "response_body",
    )]),
    visit("a caller that takes nothing", 1, &["client_not_reading"], slow::reader).counts(&[(
        STALLED,
        "phase",
        "response_send",
    )]),
    visit("a tunnel at rest", 1, &["tunnel_idle"], slow::tunnel).counts(&[(STALLED, "phase", "tunnel")]),
    visit("TLS: a handshake that stalls", 0, NONE, slow::handshake)
        .counts(&[(HANDSHAKES, "result", "timeout")]),
];

/// All of them; their places here are their numbers.
pub fn all() -> impl Iterator<Item = &'static Visit> {
    QUICK.iter().chain(SLOW)
}
