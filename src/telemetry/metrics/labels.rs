//! What the metrics of traffic are told apart by.

use std::borrow::Cow;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;

use http::Method;
use opentelemetry::trace::{SpanId, TraceId};
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};

use super::Series;
use crate::exchange::{Record, RequestFacts, Side, semconv};

/// The labels of a request (MET-1). What is absent is left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RequestLabels {
    /// `None` is `_OTHER` (MET-12).
    method: Option<Method>,
    scheme: &'static str,
    route: Option<Arc<str>>,
    status: Option<u16>,
    error_type: Option<Cow<'static, str>>,
    version: Option<&'static str>,
}

impl RequestLabels {
    pub(super) fn of(record: &Record, request: &RequestFacts) -> Self {
        Self {
            method: request.known_method.then(|| request.method.clone()),
            scheme: request.scheme,
            route: request.route.clone(),
            status: record.status,
            error_type: record.error_type(),
            version: semconv::spoken_version(record, request),
        }
    }
}

/// The labels of a call (MET-2). The destination's name is required; there may be any number of them, and so they are
/// what the cap is for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct CallLabels {
    common: RequestLabels,
    address: Option<Arc<str>>,
    port: Option<u16>,
}

impl CallLabels {
    pub(super) fn of(record: &Record, request: &RequestFacts) -> Self {
        let server = semconv::server(record, request);
        Self {
            common: RequestLabels::of(record, request),
            address: server.map(|(host, _)| host.into()),
            port: server.and_then(|(_, port)| port),
        }
    }
}

/// The labels of a gRPC call (RPC-10). That of its destination is required of those who call, and for those who serve it
/// would be whatever callers make up (MET-10).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct RpcLabels {
    /// The path; `None` is `_OTHER` (RPC-3).
    path: Option<Arc<str>>,
    status: Option<&'static str>,
    error_type: Option<Cow<'static, str>>,
    address: Option<Arc<str>>,
    port: Option<u16>,
}

impl RpcLabels {
    pub(super) fn of(record: &Record, request: &RequestFacts) -> Self {
        let server = semconv::server(record, request).filter(|_| record.side == Side::Outbound);
        Self {
            path: request.route.clone().filter(|_| record.known_rpc_method().is_some()),
            status: record.grpc_status_name(),
            error_type: record.error_type(),
            address: server.map(|(host, _)| host.into()),
            port: server.and_then(|(_, port)| port),
        }
    }
}

impl<L: EncodeLabels + Clone + fmt::Debug + Eq + Hash> EncodeLabelSet for Series<L> {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> fmt::Result {
        match self {
            Series::Of(labels) => labels.encode(encoder),
            Series::Overflow => ("otel_metric_overflow", "true").encode(encoder.encode_label()),
        }
    }
}

trait EncodeLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> fmt::Result;
}

fn label(encoder: &mut LabelSetEncoder, attribute: &str, value: Option<&str>) -> fmt::Result {
    match value {
        Some(value) => (attribute.replace('.', "_").as_str(), value).encode(encoder.encode_label()),
        None => Ok(()),
    }
}

impl RequestLabels {
    fn encode_under(&self, route: &str, encoder: &mut LabelSetEncoder) -> fmt::Result {
        let method = self.method.as_ref().map_or(semconv::OTHER, Method::as_str);
        let status = self.status.map(|status| status.to_string());
        label(encoder, semconv::HTTP_REQUEST_METHOD, Some(method))?;
        label(encoder, semconv::URL_SCHEME, Some(self.scheme))?;
        label(encoder, route, self.route.as_deref())?;
        label(encoder, semconv::HTTP_RESPONSE_STATUS_CODE, status.as_deref())?;
        label(encoder, semconv::ERROR_TYPE, self.error_type.as_deref())?;
        label(encoder, semconv::NETWORK_PROTOCOL_VERSION, self.version)
    }
}

impl EncodeLabels for RequestLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> fmt::Result {
        self.encode_under(semconv::HTTP_ROUTE, encoder)
    }
}

impl EncodeLabels for CallLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> fmt::Result {
        self.common.encode_under(semconv::URL_TEMPLATE, encoder)?;
        let port = self.port.map(|port| port.to_string());
        label(encoder, semconv::SERVER_ADDRESS, self.address.as_deref())?;
        label(encoder, semconv::SERVER_PORT, port.as_deref())
    }
}

impl EncodeLabels for RpcLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> fmt::Result {
        let method = self.path.as_deref().map_or(semconv::OTHER, |path| path.trim_start_matches('/'));
        let port = self.port.map(|port| port.to_string());
        label(encoder, semconv::RPC_SYSTEM_NAME, Some(semconv::GRPC))?;
        label(encoder, semconv::RPC_METHOD, Some(method))?;
        label(encoder, semconv::RPC_RESPONSE_STATUS_CODE, self.status)?;
        label(encoder, semconv::ERROR_TYPE, self.error_type.as_deref())?;
        label(encoder, semconv::SERVER_ADDRESS, self.address.as_deref())?;
        label(encoder, semconv::SERVER_PORT, port.as_deref())
    }
}

/// The labels of an exemplar: 63 characters of the 128 allowed (PRM-2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Ids {
    trace_id: TraceId,
    span_id: SpanId,
}

impl Ids {
    pub(super) fn of(record: &Record) -> Self {
        Self { trace_id: record.identity.trace_id, span_id: record.identity.span_id }
    }
}

impl EncodeLabelSet for Ids {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> fmt::Result {
        ("trace_id", self.trace_id.to_string()).encode(encoder.encode_label())?;
        ("span_id", self.span_id.to_string()).encode(encoder.encode_label())
    }
}
