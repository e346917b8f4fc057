//! What sidecars export, read by a test that is no asynchronous one.

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use tokio::runtime::Runtime;

use super::collector::{Collector, Protocol};

/// A collector for any number of sidecars.
pub struct Exports {
    runtime: Runtime,
    collector: Collector,
}

/// A span, and what its batch says of where it comes from.
#[derive(Debug)]
pub struct Exported {
    /// `service.name` of its resource.
    pub service: String,
    /// `schema_url` of its scope.
    pub schema: String,
    pub span: Span,
}

impl Exports {
    pub fn new() -> Self {
        let runtime = Runtime::new().expect("threads can be started");
        let collector = runtime.block_on(Collector::start(Protocol::Http));
        Self { runtime, collector }
    }

    /// What a sidecar has to be configured with, as YAML.
    pub fn yaml(&self) -> String {
        format!("export: {{ otlp: {{ endpoint: 'http://{}' }} }}\n", self.collector.address)
    }

    /// So many spans and no more. The sidecars have ended by now, or they keep what they have for a while.
    pub fn spans(&mut self, count: usize) -> Vec<Exported> {
        let mut spans = Vec::new();
        while spans.len() < count {
            let request = self.runtime.block_on(self.collector.next());
            spans.extend(exported(&request.content.resource_spans));
        }
        while let Some(request) = self.collector.next_now() {
            spans.extend(exported(&request.content.resource_spans));
        }
        assert_eq!(spans.len(), count, "so many spans and no more: {spans:#?}");
        spans
    }
}

fn exported(resources: &[opentelemetry_proto::tonic::trace::v1::ResourceSpans]) -> Vec<Exported> {
    let mut spans = Vec::new();
    for of_service in resources {
        let attributes = of_service.resource.iter().flat_map(|resource| &resource.attributes);
        let service = attributes
            .filter(|pair| pair.key == "service.name")
            .find_map(|pair| match pair.value.as_ref()?.value.as_ref()? {
                Value::StringValue(name) => Some(name.clone()),
                _ => None,
            })
            .expect("RES-1");
        for scope in &of_service.scope_spans {
            spans.extend(scope.spans.iter().map(|span| Exported {
                service: service.clone(),
                schema: scope.schema_url.clone(),
                span: span.clone(),
            }));
        }
    }
    spans
}
