//! The same spans as opentelemetry-otlp writes them: what our encoder is tested and measured against.
//!
//! Its exporter is given an HTTP client that keeps the body. This file is part of the benchmark, too.

use std::borrow::Cow;
use std::mem;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::{Request, Response};
use opentelemetry::trace::{self, SpanContext, SpanId, SpanKind, TraceFlags, TraceState};
use opentelemetry::{InstrumentationScope, KeyValue};
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, RetryPolicy, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks};

use super::{Record, Side, Status, Value, semconv};

/// Writes spans of one service.
pub struct Oracle {
    exporter: SpanExporter,
    body: Body,
    scope: InstrumentationScope,
}

impl Oracle {
    /// An encoder of spans of the resource with these attributes.
    pub fn new<'a>(resource: impl IntoIterator<Item = (&'a str, &'a str)>) -> Self {
        let body = Body::default();
        let mut exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(body.clone())
            .with_endpoint("http://localhost/")
            .with_protocol(Protocol::HttpBinary)
            .with_timeout(Duration::MAX)
            .with_retry_policy(RetryPolicy::disabled())
            .build()
            .unwrap();
        let resource =
            resource.into_iter().map(|(key, value)| KeyValue::new(key.to_owned(), value.to_owned()));
        exporter.set_resource(&Resource::builder_empty().with_attributes(resource).build());
        let scope = InstrumentationScope::builder("tracecar")
            .with_version(env!("CARGO_PKG_VERSION"))
            .with_schema_url(semconv::SCHEMA_URL)
            .build();
        Self { exporter, body, scope }
    }

    /// The protobuf of one request with all `records`.
    pub async fn encode<'r>(&self, records: impl IntoIterator<Item = &'r Record>) -> Bytes {
        let spans = records.into_iter().map(|record| span(record, &self.scope)).collect();
        self.exporter.export(spans).await.unwrap();
        mem::take(&mut self.body.0.lock().unwrap())
    }
}

/// The "HTTP client" that keeps the body of the last request.
#[derive(Clone, Debug, Default)]
struct Body(Arc<Mutex<Bytes>>);

#[async_trait]
impl HttpClient for Body {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        *self.0.lock().unwrap() = request.into_body();
        Ok(Response::new(Bytes::new()))
    }
}

fn span(record: &Record, scope: &InstrumentationScope) -> SpanData {
    let identity = &record.identity;
    SpanData {
        span_context: SpanContext::new(
            identity.trace_id,
            identity.span_id,
            TraceFlags::new(identity.flags),
            false,
            record.text(record.tracestate).parse().unwrap(),
        ),
        parent_span_id: identity.parent.unwrap_or(SpanId::INVALID),
        parent_span_is_remote: identity.remote,
        span_kind: match record.side {
            Side::Inbound => SpanKind::Server,
            Side::Outbound => SpanKind::Client,
        },
        name: Cow::Owned(semconv::span_name(record).into_owned()),
        start_time: record.started_at,
        end_time: record.started_at + record.timings.total,
        attributes: attributes(record),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: links(record),
        status: match semconv::span_status(record) {
            Status::Unset => trace::Status::Unset,
            Status::Error(description) => trace::Status::error(description.to_owned()),
        },
        instrumentation_scope: scope.clone(),
    }
}

fn links(record: &Record) -> SpanLinks {
    let mut links = SpanLinks::default();
    links.links = record
        .links
        .iter()
        .map(|link| {
            let flags = TraceFlags::new(link.flags);
            let state = TraceState::default();
            let context = SpanContext::new(link.trace_id, link.span_id, flags, link.remote, state);
            trace::Link::with_context(context)
        })
        .collect();
    links
}

fn attributes(record: &Record) -> Vec<KeyValue> {
    let mut out = Vec::with_capacity(27);
    semconv::attributes(record, &mut |key, value| {
        out.push(match value {
            Value::Str(text) => KeyValue::new(key, text.to_owned()),
            Value::Int(number) => KeyValue::new(key, number),
            Value::Double(number) => KeyValue::new(key, number),
            Value::Bool(truth) => KeyValue::new(key, truth),
        });
    });
    out
}
