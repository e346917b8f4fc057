//! Spans as a collector sees them, and the rules that every one of ours keeps.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

/// Attributes a SERVER span of ours may have besides `tracecar.…`. Everything else is opt-in (SEM-35), for another
/// kind of span (SEM-41), or of conventions that are over (SEM-101).
const KNOWN: [&str; 19] = [
    "http.request.method",
    "http.request.method_original",
    "http.response.status_code",
    "http.route",
    "error.type",
    // Of the other conventions, those of RPC; without it a failed gRPC call looks like one that went well.
    "rpc.response.status_code",
    "url.scheme",
    "url.path",
    "url.query",
    "server.address",
    "server.port",
    "client.address",
    "network.peer.address",
    "network.peer.port",
    "network.protocol.version",
    "user_agent.original",
    // Ours without which a span says too little.
    "tracecar.outcome",
    "tracecar.request.bytes",
    "tracecar.response.bytes",
];

/// Attributes a CLIENT span of ours may have besides `tracecar.…`. The user agent is opt-in there, and path, scheme and
/// route are those of another kind of span (SEM-47).
const KNOWN_OF_CALLS: [&str; 15] = [
    "http.request.method",
    "http.request.method_original",
    "http.request.resend_count",
    "http.response.status_code",
    "error.type",
    "rpc.response.status_code",
    "url.full",
    "url.template",
    "server.address",
    "server.port",
    "network.peer.address",
    "network.peer.port",
    "network.protocol.version",
    "peer.service",
    "service.peer.name",
];

/// Attributes that a span of a gRPC call may have besides `tracecar.…`, on either side: those of RPC, and none of HTTP but a
/// status that is not gRPC's (RPC-15).
const KNOWN_OF_RPC: [&str; 15] = [
    "rpc.system.name",
    "rpc.method",
    "rpc.method_original",
    "rpc.response.status_code",
    "error.type",
    "http.response.status_code",
    "http.request.resend_count",
    "server.address",
    "server.port",
    "client.address",
    "user_agent.original",
    "network.peer.address",
    "network.peer.port",
    "network.protocol.version",
    "peer.service",
];

/// gRPC statuses that are errors of those who answer (RPC-6).
const SERVER_ERRORS: [&str; 6] =
    ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];

/// The words of `tracecar.lineage.method` that name a parent.
const METHODS: [&str; 5] = ["header", "correlation", "token", "process", "sole"];

/// The attributes of one span, each key once.
#[derive(Debug)]
pub struct Attributes(BTreeMap<String, Value>);

impl Attributes {
    /// # Panics
    /// If a key appears twice, or a value is missing.
    pub fn of(span: &Span) -> Self {
        let mut attributes = BTreeMap::new();
        for pair in &span.attributes {
            let value = pair.value.clone().and_then(|any| any.value);
            let value = value.unwrap_or_else(|| panic!("{} has no value", pair.key));
            let twice = attributes.insert(pair.key.clone(), value).is_some();
            assert!(!twice, "{} appears twice", pair.key);
        }
        Self(attributes)
    }

    pub fn has(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }

    /// A string attribute.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.0.get(key)? {
            Value::StringValue(text) => Some(text),
            other => panic!("{key} is no string: {other:?}"),
        }
    }

    /// An integer attribute.
    pub fn integer(&self, key: &str) -> Option<i64> {
        match self.0.get(key)? {
            Value::IntValue(number) => Some(*number),
            other => panic!("{key} is no integer: {other:?}"),
        }
    }

    /// An attribute in seconds.
    pub fn seconds(&self, key: &str) -> Option<f64> {
        match self.0.get(key)? {
            Value::DoubleValue(number) => Some(*number),
            other => panic!("{key} is no number of seconds: {other:?}"),
        }
    }

    /// A true or false attribute.
    pub fn truth(&self, key: &str) -> Option<bool> {
        match self.0.get(key)? {
            Value::BoolValue(truth) => Some(*truth),
            other => panic!("{key} is neither true nor false: {other:?}"),
        }
    }
}

/// Checks a SERVER span of ours against SEM-1 to SEM-103, and returns its attributes.
///
/// # Panics
/// Names the rule.
pub fn check(span: &Span) -> Attributes {
    let attributes = Attributes::of(span);
    let has = |key: &str| attributes.has(key);
    assert_eq!(span.kind, i32::from(SpanKind::Server as i16), "SEM-1");
    check_ids(span);
    assert_eq!(span.links.len(), 0);
    check_flags(span);
    let parent = !span.parent_span_id.is_empty();
    assert_eq!(span.flags & 0x200 != 0, parent, "a parent is remote, and without one there is none to be");
    check_status(span, &attributes, 500);
    if has("rpc.system.name") {
        check_rpc(span, &attributes);
        return attributes;
    }
    check_name(span, &attributes, "http.route");

    for key in attributes.0.keys() {
        assert!(KNOWN.contains(&key.as_str()) || key.starts_with("tracecar."), "{key} has no business here");
    }
    let method = attributes.text("http.request.method").expect("SEM-20");
    if has("url.path") {
        assert!(has("url.scheme"), "SEM-22");
        assert!(attributes.text("url.path").is_some_and(|path| !path.contains('?')), "SEM-21");
        assert!(has("client.address") && has("network.protocol.version"), "SEM-30, SEM-32");
        assert_eq!(method == "_OTHER", has("http.request.method_original"), "SEM-24");
    } else {
        assert_eq!(method, "_OTHER", "nothing is known of a request that could not be read");
        for absent in ["url.scheme", "url.query", "http.route", "http.request.method_original"] {
            assert!(!has(absent), "{absent} of a request that could not be read");
        }
    }
    if let Some(query) = attributes.text("url.query") {
        assert!(!query.starts_with('?'), "SEM-29");
    }
    if let Some(version) = attributes.text("network.protocol.version") {
        assert!(["1.0", "1.1", "2", "3"].contains(&version), "SEM-32: {version}");
    }
    assert!(has("network.peer.address") && has("network.peer.port"), "SEM-31");
    check_ports(&attributes);
    assert!(has("tracecar.outcome") && has("tracecar.request.bytes") && has("tracecar.response.bytes"));
    attributes
}

/// Checks a CLIENT span of ours against SEM-2 to SEM-103, and returns its attributes.
///
/// # Panics
/// Names the rule.
pub fn check_call(span: &Span) -> Attributes {
    let attributes = Attributes::of(span);
    let has = |key: &str| attributes.has(key);
    assert_eq!(span.kind, i32::from(SpanKind::Client as i16), "SEM-2");
    check_ids(span);
    check_flags(span);
    check_status(span, &attributes, 400);
    if has("rpc.system.name") {
        check_rpc(span, &attributes);
        assert!(has("server.address"), "RPC-7");
        check_lineage(span, &attributes);
        return attributes;
    }
    check_name(span, &attributes, "url.template");
    for key in attributes.0.keys() {
        assert!(
            KNOWN_OF_CALLS.contains(&key.as_str()) || key.starts_with("tracecar."),
            "{key} has no business here"
        );
    }
    let method = attributes.text("http.request.method").expect("SEM-40");
    assert!(method == "_OTHER" || !has("http.request.method_original"), "SEM-24");
    let address = attributes.text("server.address").expect("SEM-42");
    let port = attributes.integer("server.port").expect("SEM-43");
    if method == "CONNECT" {
        assert!(!has("url.full"), "a tunnel has no URL");
        assert_eq!(attributes.truth("tracecar.tunnel.unseen"), Some(true));
    } else {
        check_url(attributes.text("url.full").expect("SEM-41"), address, port);
        assert!(!has("tracecar.tunnel.unseen"));
    }
    if has("http.response.status_code") {
        assert!(has("network.peer.address"), "SEM-46: who answered is known");
        assert!(has("network.protocol.version"), "SEM-46: and what it spoke");
    }
    assert_eq!(has("network.peer.address"), has("network.peer.port"), "SEM-46");
    assert!(attributes.integer("http.request.resend_count").is_none_or(|count| count > 0), "SEM-45");
    assert_eq!(attributes.text("peer.service"), attributes.text("service.peer.name"), "SEM-102, SG-5");
    check_ports(&attributes);
    check_lineage(span, &attributes);
    assert!(has("tracecar.outcome") && has("tracecar.request.bytes") && has("tracecar.response.bytes"));
    attributes
}

/// RPC-1 to RPC-15, as far as both sides have them in common.
fn check_rpc(span: &Span, attributes: &Attributes) {
    for key in attributes.0.keys() {
        let known = KNOWN_OF_RPC.contains(&key.as_str()) || key == "service.peer.name";
        assert!(known || key.starts_with("tracecar."), "{key} has no business here");
    }
    assert_eq!(attributes.text("rpc.system.name"), Some("grpc"), "RPC-1");
    let method = attributes.text("rpc.method").expect("RPC-2");
    assert!(!method.starts_with('/'), "RPC-2: {method}");
    assert_eq!(method == "_OTHER", attributes.has("rpc.method_original"), "RPC-3");
    assert_eq!(span.name, if method == "_OTHER" { "grpc" } else { method }, "RPC-4");
    assert_ne!(attributes.integer("http.response.status_code"), Some(200), "it says nothing of a call");
    check_ports(attributes);
    assert!(attributes.has("tracecar.outcome"));
}

/// SEM-41, SEM-43, SEM-80: an absolute URL of the server that the span names, and without credentials.
fn check_url(url: &str, address: &str, port: i64) {
    let parsed: http::Uri = url.parse().unwrap_or_else(|error| panic!("SEM-41: {url}: {error}"));
    let authority = parsed.authority().expect("SEM-41: an absolute URL");
    assert!(!authority.as_str().contains('@'), "SEM-80: {url}");
    assert_eq!(authority.host().trim_matches(['[', ']']), address, "SEM-42: {url}");
    let default = if url.starts_with("https:") { 443 } else { 80 };
    assert_eq!(i64::from(authority.port_u16().unwrap_or(default)), port, "SEM-43: {url}");
}

/// A parent is named with the way it was found; where none was found there are links at most.
fn check_lineage(span: &Span, attributes: &Attributes) {
    let method =
        attributes.text("tracecar.lineage.method").expect("every call says how its parent was found");
    let confidence = attributes.seconds("tracecar.lineage.confidence").expect("and how sure that is");
    let candidates = attributes.integer("tracecar.lineage.candidates").expect("and of how many");
    let parent = !span.parent_span_id.is_empty();
    assert_eq!(METHODS.contains(&method), parent, "{method}");
    assert!(parent || method == "none", "{method}");
    assert_eq!(confidence > 0.0, parent, "{confidence}");
    assert!(confidence <= 1.0 && candidates >= i64::from(parent), "{confidence} of {candidates}");
    assert!(span.links.is_empty() || !parent, "a known parent needs no links");
    assert!(span.links.len() <= 3 && span.links.len() as i64 <= candidates);
    for link in &span.links {
        assert!(link.trace_id.len() == 16 && link.span_id.len() == 8 && link.trace_id != span.trace_id);
    }
    let forwarded = method == "header";
    assert!(span.flags & 0x200 == 0 || forwarded, "a parent that we found ourselves is not remote (OTLP-43)");
}

fn check_ids(span: &Span) {
    assert!(span.trace_id.len() == 16 && span.trace_id != [0; 16], "a trace id");
    assert!(span.span_id.len() == 8 && span.span_id != [0; 8], "a span id");
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano, "time goes forward");
    assert_eq!((span.events.len(), span.dropped_attributes_count), (0, 0));
}

fn check_ports(attributes: &Attributes) {
    for (port, address) in [("server.port", "server.address"), ("network.peer.port", "network.peer.address")]
    {
        assert!(!attributes.has(port) || attributes.has(address), "{port} without {address}");
        assert!(attributes.integer(port).is_none_or(|port| (1..=65_535).contains(&port)), "{port}");
    }
}

/// OTLP's flags: those of W3C below, and above them whether the parent is remote (OTLP-43).
fn check_flags(span: &Span) {
    assert_eq!(span.flags & 1, 1, "only sampled spans are exported (SMP-5)");
    assert_eq!(span.flags & 0x100, 0x100, "whether the parent is remote is known");
    let parent = !span.parent_span_id.is_empty();
    assert!(parent || span.flags & 0x200 == 0, "without a parent there is none to be remote");
    assert!(!parent || span.parent_span_id.len() == 8 && span.parent_span_id != [0; 8]);
}

/// SEM-3 to SEM-6.
fn check_name(span: &Span, attributes: &Attributes, target: &str) {
    let method = match attributes.text("http.request.method") {
        Some("_OTHER") | None => "HTTP",
        Some(method) => method,
    };
    let expected = match attributes.text(target) {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    };
    assert_eq!(span.name, expected, "SEM-3 to SEM-6");
}

/// SEM-60 to SEM-71. Statuses from `errors` on are errors of this side.
fn check_status(span: &Span, attributes: &Attributes, errors: i64) {
    let status = span.status.clone().unwrap_or_default();
    let code = attributes.integer("http.response.status_code");
    assert!(code.is_none_or(|code| (100..=599).contains(&code)), "SEM-25: {code:?}");
    let error = attributes.text("error.type");
    assert_ne!(status.code(), StatusCode::Ok, "SEM-69");
    assert_eq!(status.code() == StatusCode::Error, error.is_some(), "SEM-23, SEM-67");
    if code.is_some_and(|code| code >= errors) {
        assert!(error.is_some(), "SEM-62, SEM-63");
    }
    let outcome = attributes.text("tracecar.outcome");
    if outcome == Some("complete") {
        let own = code.filter(|code| *code >= errors).map(|code| code.to_string());
        let grpc = attributes
            .text("rpc.response.status_code")
            .filter(|name| errors == 400 && *name != "OK" || SERVER_ERRORS.contains(name));
        assert_eq!(error, grpc.or(own.as_deref()), "SEM-62, SEM-63, RPC-6");
        assert_eq!(status.message, "", "SEM-66");
    }
    if status.code() != StatusCode::Error {
        assert_eq!(status.message, "", "SEM-69");
    }
    let faultless = outcome == Some("complete") && error.is_none();
    assert_eq!(attributes.has("tracecar.fault"), !faultless, "whose doing it was");
}
