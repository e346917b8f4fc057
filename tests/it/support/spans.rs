//! Spans as a collector sees them, and the rules that every one of ours keeps.

use std::collections::BTreeMap;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

/// Attributes a SERVER span of ours may have besides `tracecar.…`. Everything else is opt-in (SEM-35), for another
/// kind of span (SEM-41), or of conventions that are over (SEM-101).
const KNOWN: [&str; 18] = [
    "http.request.method",
    "http.request.method_original",
    "http.response.status_code",
    "http.route",
    "error.type",
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

/// Checks a span of ours against SEM-1 to SEM-103, and returns its attributes.
///
/// # Panics
/// Names the rule.
pub fn check(span: &Span) -> Attributes {
    let attributes = Attributes::of(span);
    let has = |key: &str| attributes.has(key);
    assert_eq!(span.kind, i32::from(SpanKind::Server as i16), "SEM-1");
    assert!(span.trace_id.len() == 16 && span.trace_id != [0; 16], "a trace id");
    assert!(span.span_id.len() == 8 && span.span_id != [0; 8], "a span id");
    assert!(span.end_time_unix_nano >= span.start_time_unix_nano, "time goes forward");
    assert_eq!((span.events.len(), span.links.len(), span.dropped_attributes_count), (0, 0, 0));
    check_flags(span);
    check_name(span, &attributes);
    check_status(span, &attributes);

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
    for (port, address) in [("server.port", "server.address"), ("network.peer.port", "network.peer.address")]
    {
        assert!(!has(port) || has(address), "{port} without {address}");
        assert!(attributes.integer(port).is_none_or(|port| (1..=65_535).contains(&port)), "{port}");
    }
    assert!(has("tracecar.outcome") && has("tracecar.request.bytes") && has("tracecar.response.bytes"));
    attributes
}

/// OTLP's flags: those of W3C below, and above them whether the parent is remote, which it always is (OTLP-43).
fn check_flags(span: &Span) {
    assert_eq!(span.flags & 1, 1, "only sampled spans are exported (SMP-5)");
    assert_eq!(span.flags & 0x100, 0x100, "whether the parent is remote is known");
    let parent = !span.parent_span_id.is_empty();
    assert_eq!(span.flags & 0x200 != 0, parent, "a parent is remote, and without one there is none to be");
    assert!(!parent || span.parent_span_id.len() == 8 && span.parent_span_id != [0; 8]);
}

/// SEM-3 to SEM-6.
fn check_name(span: &Span, attributes: &Attributes) {
    let method = match attributes.text("http.request.method") {
        Some("_OTHER") | None => "HTTP",
        Some(method) => method,
    };
    let expected = match attributes.text("http.route") {
        Some(route) => format!("{method} {route}"),
        None => method.to_owned(),
    };
    assert_eq!(span.name, expected, "SEM-3 to SEM-6");
}

/// SEM-60 to SEM-71.
fn check_status(span: &Span, attributes: &Attributes) {
    let status = span.status.clone().unwrap_or_default();
    let code = attributes.integer("http.response.status_code");
    assert!(code.is_none_or(|code| (100..=599).contains(&code)), "SEM-25: {code:?}");
    let error = attributes.text("error.type");
    assert_ne!(status.code(), StatusCode::Ok, "SEM-69");
    assert_eq!(status.code() == StatusCode::Error, error.is_some(), "SEM-23, SEM-67");
    if code.is_some_and(|code| code >= 500) {
        assert!(error.is_some(), "SEM-63");
    }
    let outcome = attributes.text("tracecar.outcome");
    if outcome == Some("complete") {
        let own = code.filter(|code| *code >= 500).map(|code| code.to_string());
        assert_eq!(error, own.as_deref(), "SEM-62, SEM-63");
        assert_eq!(status.message, "", "SEM-66");
    }
    if status.code() != StatusCode::Error {
        assert_eq!(status.message, "", "SEM-69");
    }
    let faultless = outcome == Some("complete") && error.is_none();
    assert_eq!(attributes.has("tracecar.fault"), !faultless, "whose doing it was");
}
