//! Counters about tracecar itself: what it accepted, refused, could not read, and dropped.
//!
//! Plain atomics, written from anywhere and read by the metrics page. They cost one relaxed addition, so
//! nothing that goes wrong has an excuse not to be counted. Counts of traffic are not here: those are read
//! from the [`Record`](crate::exchange::Record)s.

use std::borrow::Cow;
use std::sync::atomic::{AtomicU64, Ordering};

/// One number that only grows, or (for [`Stats::connections_open`] and the like) goes up and down.
#[derive(Debug, Default)]
pub struct Count(AtomicU64);

impl Count {
    /// Adds one.
    pub fn increment(&self) {
        self.add(1);
    }

    /// Adds `n`.
    pub fn add(&self, n: u64) {
        self.0.fetch_add(n, Ordering::Relaxed);
    }

    /// Takes one away; only for numbers that say how many there are now.
    pub fn decrement(&self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }

    /// The number now.
    pub fn value(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}

/// Whether a [`Row`] only grows or says how much there is now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows, until the process ends.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One line of the metrics page about tracecar itself.
#[derive(Clone, Debug)]
pub struct Row {
    /// Metric name without `_total`, which the text format adds to counters (PRM-3).
    pub name: &'static str,
    /// What it counts, for people.
    pub help: &'static str,
    /// Counter or gauge.
    pub kind: Kind,
    /// At most one label: its name and value.
    pub label: Option<(&'static str, Cow<'static, str>)>,
    /// The number now.
    pub value: u64,
}

macro_rules! stats {
    ($( $(#[doc = $doc:literal])+ $field:ident: $kind:ident $name:literal $([$label:literal = $value:literal])? ),+ $(,)?) => {
        /// Every counter about tracecar itself. One instance per process part, shared by `Arc`.
        #[derive(Debug, Default)]
        pub struct Stats { $( $(#[doc = $doc])+ pub $field: Count, )+ }

        impl Stats {
            /// All counters as rows of the metrics page, those of one name next to each other.
            pub fn rows(&self) -> Vec<Row> {
                vec![ $( Row {
                    name: $name,
                    help: concat!($($doc),+).trim_ascii(),
                    kind: Kind::$kind,
                    label: { let label: Option<(&'static str, Cow<'static, str>)> = None; $( let label = label.or(Some(($label, $value.into()))); )? label },
                    value: self.$field.value(),
                }, )+ ]
            }
        }
    };
}

stats! {
    /// Connections accepted from callers.
    connections_accepted: Counter "tracecar_connections_accepted",
    /// Connections from callers that are open now.
    connections_open: Gauge "tracecar_connections_open",
    /// Accepting failed and was tried again a little later.
    accept_errors_descriptors: Counter "tracecar_accept_errors" ["reason" = "descriptors"],
    /// Accepting failed and was tried again a little later.
    accept_errors_other: Counter "tracecar_accept_errors" ["reason" = "other"],
    /// Connections closed because nothing, or not enough, was sent in time.
    closed_detection: Counter "tracecar_connections_timed_out" ["phase" = "detection"],
    /// Connections closed because nothing, or not enough, was sent in time.
    closed_request_header: Counter "tracecar_connections_timed_out" ["phase" = "request_header"],
    /// Connections closed because nothing, or not enough, was sent in time.
    closed_idle: Counter "tracecar_connections_timed_out" ["phase" = "idle"],
    /// HTTP/2 connections ended because of what their callers did.
    http2_ended_resets: Counter "tracecar_http2_connections_ended" ["reason" = "resets"],
    /// HTTP/2 connections ended because of what their callers did.
    http2_ended_idle_talk: Counter "tracecar_http2_connections_ended" ["reason" = "no_content"],
    /// HTTP/2 connections ended because of what their callers did.
    http2_ended_excess: Counter "tracecar_http2_connections_ended" ["reason" = "excess"],
    /// HTTP/2 connections ended because of what their callers did.
    http2_ended_protocol: Counter "tracecar_http2_connections_ended" ["reason" = "protocol_error"],
    /// HTTP/2 connections ended because of what their callers did.
    http2_ended_unresponsive: Counter "tracecar_http2_connections_ended" ["reason" = "unresponsive"],
    /// HTTP/2 requests that reached nobody.
    http2_malformed: Counter "tracecar_http2_requests_refused" ["reason" = "malformed"],
    /// HTTP/2 requests that reached nobody.
    http2_too_large: Counter "tracecar_http2_requests_refused" ["reason" = "too_large"],
    /// Times that accepting paused, since as many connections were open as limits.connections lets; callers waited.
    connections_full: Counter "tracecar_connections_limited",
    /// Requests that were refused since as many were under way as may be.
    requests_limited: Counter "tracecar_requests_limited",
    /// Requests and tunnels ended because one side was quiet, or all took too long.
    closed_request_body: Counter "tracecar_requests_timed_out" ["phase" = "request_body"],
    /// Requests and tunnels ended because one side was quiet, or all took too long.
    closed_response_body: Counter "tracecar_requests_timed_out" ["phase" = "response_body"],
    /// Requests and tunnels ended because one side was quiet, or all took too long.
    closed_response_send: Counter "tracecar_requests_timed_out" ["phase" = "response_send"],
    /// Requests and tunnels ended because one side was quiet, or all took too long.
    closed_stream: Counter "tracecar_requests_timed_out" ["phase" = "stream"],
    /// Requests and tunnels ended because one side was quiet, or all took too long.
    closed_tunnel: Counter "tracecar_requests_timed_out" ["phase" = "tunnel"],
    /// TLS handshakes with callers, by how they ended.
    tls_complete: Counter "tracecar_tls_handshakes" ["result" = "complete"],
    /// TLS handshakes with callers, by how they ended.
    tls_timed_out: Counter "tracecar_tls_handshakes" ["result" = "timeout"],
    /// TLS handshakes with callers, by how they ended.
    tls_plain_http: Counter "tracecar_tls_handshakes" ["result" = "plain_http"],
    /// TLS handshakes with callers, by how they ended.
    tls_absent: Counter "tracecar_tls_handshakes" ["result" = "not_tls"],
    /// TLS handshakes with callers, by how they ended.
    tls_client_certificate: Counter "tracecar_tls_handshakes" ["result" = "client_certificate"],
    /// TLS handshakes with callers, by how they ended.
    tls_incompatible: Counter "tracecar_tls_handshakes" ["result" = "incompatible"],
    /// TLS handshakes with callers, by how they ended.
    tls_refused: Counter "tracecar_tls_handshakes" ["result" = "refused_by_client"],
    /// TLS handshakes with callers, by how they ended.
    tls_malformed: Counter "tracecar_tls_handshakes" ["result" = "malformed"],
    /// TLS handshakes with callers, by how they ended.
    tls_closed: Counter "tracecar_tls_handshakes" ["result" = "closed"],
    /// Connections closed for the PROXY protocol's header that they should have begun with.
    proxy_absent: Counter "tracecar_proxy_protocol_refused" ["reason" = "absent"],
    /// Connections closed for the PROXY protocol's header that they should have begun with.
    proxy_malformed: Counter "tracecar_proxy_protocol_refused" ["reason" = "malformed"],
    /// Connections closed for the PROXY protocol's header that they should have begun with.
    proxy_ended: Counter "tracecar_proxy_protocol_refused" ["reason" = "ended"],
    /// Tasks of one connection that panicked; the others went on.
    panics: Counter "tracecar_panics",
    /// Requests that are in tracecar now.
    requests_active: Gauge "tracecar_requests_active",
    /// Those of them that are calls of the service.
    calls_active: Gauge "tracecar_calls_active",
    /// Requests passed on without a trace because a rule excludes them.
    requests_excluded: Counter "tracecar_requests_excluded",
    /// Connections on the listener for redirected ones that were refused: nobody had redirected them, or they were ours.
    refused_direct: Counter "tracecar_redirected_refused" ["reason" = "not_redirected"],
    /// Connections on the listener for redirected ones that were refused: nobody had redirected them, or they were ours.
    refused_loop: Counter "tracecar_redirected_refused" ["reason" = "loop"],
    /// Connections opened to the service.
    upstream_connects: Counter "tracecar_upstream_connections",
    /// Requests sent once more because a kept-alive connection had gone stale.
    upstream_retries: Counter "tracecar_upstream_retries",
    /// Context headers that could not be read and were passed over.
    malformed_traceparent: Counter "tracecar_malformed_headers" ["header" = "traceparent"],
    /// Context headers that could not be read and were passed over.
    malformed_tracestate: Counter "tracecar_malformed_headers" ["header" = "tracestate"],
    /// Context headers that could not be read and were passed over.
    malformed_baggage: Counter "tracecar_malformed_headers" ["header" = "baggage"],
    /// Context headers that could not be read and were passed over.
    malformed_b3: Counter "tracecar_malformed_headers" ["header" = "b3"],
    /// Context headers that could not be read and were passed over.
    malformed_b3multi: Counter "tracecar_malformed_headers" ["header" = "x-b3"],
    /// Context headers that could not be read and were passed over.
    malformed_jaeger: Counter "tracecar_malformed_headers" ["header" = "uber-trace-id"],
    /// Context headers that could not be read and were passed over.
    malformed_xray: Counter "tracecar_malformed_headers" ["header" = "x-amzn-trace-id"],
    /// Context headers that could not be read and were passed over.
    malformed_datadog: Counter "tracecar_malformed_headers" ["header" = "x-datadog"],
    /// Context headers that could not be read and were passed over.
    malformed_sentry_trace: Counter "tracecar_malformed_headers" ["header" = "sentry-trace"],
    /// Context headers that could not be read and were passed over.
    malformed_correlation: Counter "tracecar_malformed_headers" ["header" = "correlation"],
    /// Records of finished exchanges.
    records: Counter "tracecar_records",
    /// Records lost before any reader saw them: the hand-over was full.
    records_dropped: Counter "tracecar_records_dropped" ["reason" = "buffer_full"],
    /// Failed answers of which only the status was kept: there were too many at once.
    evidence_dropped: Counter "tracecar_failure_content_dropped",
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_of_one_name_are_next_to_each_other() {
        let rows = Stats::default().rows();
        let mut seen: Vec<&str> = Vec::new();
        for row in &rows {
            if seen.last() != Some(&row.name) {
                assert!(!seen.contains(&row.name), "{} appears in two places", row.name);
                seen.push(row.name);
            }
        }
    }
}
