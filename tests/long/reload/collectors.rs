//! The collectors, and what they were sent.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Instant;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::common::v1::{AnyValue, KeyValue};
use opentelemetry_proto::tonic::trace::v1::Span;
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use tokio::runtime::Runtime;

use super::model::{Export, Places};
use crate::support::collector::{Collector, Protocol, Received};

/// Two collectors, each of which speaks both protocols.
pub struct Collectors {
    _runtime: Runtime,
    all: Vec<(&'static str, Collector)>,
    /// Spans and batches by collector.
    pub counts: BTreeMap<&'static str, (u64, u64)>,
    /// Spans by kind and path.
    pub paths: HashMap<(SpanKind, String), u32>,
    /// The spans of probes, by their paths.
    pub probes: HashMap<String, Vec<Seen>>,
    ids: HashSet<Vec<u8>>,
    pub duplicates: u64,
}

/// A span, and how it came.
#[derive(Clone)]
pub struct Seen {
    pub kind: SpanKind,
    pub span: Span,
    pub resource: BTreeMap<String, String>,
    pub export: Export,
    pub at: Instant,
}

impl Seen {
    pub fn attribute(&self, key: &str) -> String {
        self.span
            .attributes
            .iter()
            .find(|one| one.key == key)
            .map_or_else(String::new, |one| text(&one.value))
    }
}

impl Collectors {
    pub fn start(places: &mut Places) -> Self {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = runtime.expect("threads can be started");
        let mut all = Vec::new();
        for (name, protocol) in [
            ("north-http", Protocol::Http),
            ("north-grpc", Protocol::Grpc),
            ("south-http", Protocol::Http),
            ("south-grpc", Protocol::Grpc),
        ] {
            let collector = runtime.block_on(Collector::start(protocol));
            places.put(name, collector.address);
            all.push((name, collector));
        }
        Self {
            _runtime: runtime,
            all,
            counts: BTreeMap::new(),
            paths: HashMap::new(),
            probes: HashMap::new(),
            ids: HashSet::new(),
            duplicates: 0,
        }
    }

    /// How many spans have come, each counted once.
    pub fn distinct(&self) -> u64 {
        self.ids.len() as u64
    }

    /// Takes in what has come.
    pub fn gather(&mut self) {
        let mut come = Vec::new();
        for (name, collector) in &mut self.all {
            let address = collector.address.to_string();
            come.extend(
                std::iter::from_fn(|| collector.next_now()).map(|batch| (*name, address.clone(), batch)),
            );
        }
        for (name, address, batch) in come {
            self.take(name, address, batch);
        }
    }

    fn take(&mut self, name: &'static str, collector: String, batch: Received) {
        let export = Export {
            collector,
            path: batch.path.clone(),
            header: batch.header("x-run").to_owned(),
            gzip: ["content-encoding", "grpc-encoding"].iter().any(|name| batch.header(name) == "gzip"),
        };
        let (spans, batches) = self.counts.entry(name).or_default();
        *spans += batch.spans().len() as u64;
        *batches += 1;
        for of_resource in batch.content.resource_spans {
            let resource =
                of_resource.resource.map(|resource| words(&resource.attributes)).unwrap_or_default();
            for span in of_resource.scope_spans.into_iter().flat_map(|scope| scope.spans) {
                // What is sent once more must not be counted as one of two requests.
                if !self.ids.insert(span.span_id.clone()) {
                    self.duplicates += 1;
                    continue;
                }
                let path = path_of(&span);
                let kind = span.kind();
                if path.starts_with("/probe/") {
                    let seen =
                        Seen { kind, span, resource: resource.clone(), export: export.clone(), at: batch.at };
                    self.probes.entry(path).or_default().push(seen);
                } else {
                    *self.paths.entry((kind, path)).or_default() += 1;
                }
            }
        }
    }
}

/// The path that was asked for, without what a mapped listener puts before it.
fn path_of(span: &Span) -> String {
    let value = |key: &str| {
        span.attributes
            .iter()
            .find(|one| one.key == key)
            .map(|one| text(&one.value))
            .filter(|text| !text.is_empty())
    };
    let url =
        || value("url.full").map(|url| url.splitn(4, '/').skip(3).map(|path| format!("/{path}")).collect());
    value("url.path").or_else(url).unwrap_or_default()
}

fn words(attributes: &[KeyValue]) -> BTreeMap<String, String> {
    attributes.iter().map(|one| (one.key.clone(), text(&one.value))).collect()
}

fn text(value: &Option<AnyValue>) -> String {
    match value.as_ref().and_then(|value| value.value.as_ref()) {
        Some(Value::StringValue(text)) => text.clone(),
        Some(Value::IntValue(number)) => number.to_string(),
        Some(Value::BoolValue(is)) => is.to_string(),
        _ => String::new(),
    }
}
