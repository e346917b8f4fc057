//! What the settings say of the places that the service calls.

use std::sync::Arc;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, Method};

use super::route::Routes;
use crate::propagation::Propagation;
use crate::wire::egress::Target;

/// How calls to one destination are treated.
#[derive(Clone, Debug)]
pub struct Destination {
    /// What people call it: `peer.service` and `service.peer.name` of its spans.
    pub name: Option<Arc<str>>,
    /// What is read from the service's headers, and what is written for the destination.
    pub propagation: Propagation,
    /// Whether all trace context and baggage is removed: a third party has no business with either (BAG-7).
    pub strip: bool,
    /// Whether calls leave spans.
    pub traced: bool,
}

/// All destinations.
#[derive(Clone, Debug)]
pub struct Destinations {
    /// In the order of the settings; the first that matches counts.
    pub listed: Vec<(Target, Arc<Destination>)>,
    /// All others.
    pub other: Arc<Destination>,
    /// Path templates that name spans of calls.
    pub templates: Routes,
}

impl Destinations {
    /// What the settings say of `host`, a name or address literal without brackets, and `port`.
    pub fn find(&self, host: &str, port: u16) -> &Arc<Destination> {
        let listed = self.listed.iter().find(|(target, _)| target.matches(host, port));
        listed.map_or(&self.other, |(_, destination)| destination)
    }
}

/// Whether a call is telemetry on its way out: spans, metrics, logs or errors that the service sends by itself. To
/// trace it would make telemetry of telemetry (B3-9, SEN-7).
///
/// OTLP, Zipkin, Jaeger and Sentry are known by their paths, together with what is sent there.
pub fn is_telemetry(method: &Method, path: &str, headers: &HeaderMap) -> bool {
    if method != Method::POST {
        return false;
    }
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], |kind| kind.as_bytes());
    let is = |wanted: &str| {
        kind.get(..wanted.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(wanted.as_bytes()))
    };
    let otlp = ["/v1/traces", "/v1/metrics", "/v1/logs", "/v1development/profiles"];
    if otlp.iter().any(|end| path.ends_with(end)) {
        return is("application/x-protobuf") || is("application/json");
    }
    if path.starts_with("/opentelemetry.proto.collector.") {
        return is("application/grpc");
    }
    if ["/api/v1/spans", "/api/v2/spans"].iter().any(|end| path.ends_with(end)) {
        return true;
    }
    if path.ends_with("/api/traces") {
        return is("application/x-thrift") || is("application/vnd.apache.thrift.binary");
    }
    // Sentry: `/api/<project>/envelope/` and, of old, `/store/` (SEN-1).
    let mut segments = path.trim_end_matches('/').rsplit('/');
    let (last, project, api) = (segments.next(), segments.next(), segments.next());
    matches!(last, Some("envelope" | "store"))
        && project.is_some_and(|project| !project.is_empty() && project.bytes().all(|b| b.is_ascii_digit()))
        && api == Some("api")
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    fn sent(path: &str, kind: &'static str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(kind));
        is_telemetry(&Method::POST, path, &headers)
    }

    #[test]
    fn telemetry_is_known_by_where_it_goes_and_what_it_is() {
        assert!(sent("/v1/traces", "application/x-protobuf"));
        assert!(sent("/otlp/v1/metrics", "application/json; charset=utf-8"));
        assert!(sent(
            "/opentelemetry.proto.collector.trace.v1.TraceService/Export",
            "application/grpc+proto"
        ));
        assert!(sent("/api/v2/spans", "application/json"));
        assert!(sent("/api/traces", "application/x-thrift"));
        assert!(sent("/api/42/envelope/", "application/x-sentry-envelope"));
        assert!(sent("/sentry/api/42/store", "application/json"));
    }

    #[test]
    fn ordinary_calls_are_no_telemetry() {
        assert!(!sent("/v1/traces", "text/html"));
        assert!(!sent("/api/traces", "application/json"));
        assert!(!sent("/api/shop/envelope/", "application/json"));
        assert!(!sent("/envelope", "application/json"));
        assert!(!is_telemetry(&Method::GET, "/api/v2/spans", &HeaderMap::new()));
    }
}
