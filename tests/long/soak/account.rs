//! What was asked, what the collector has of it, and what the program says of itself: the three have to agree.

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;

use super::visits;
use crate::support::collector::Collector;
use crate::support::page::Page;

/// How many spans ended in which way.
type Ends = BTreeMap<String, u64>;

/// The spans that the collector has got.
#[derive(Default)]
pub struct Account {
    ids: HashSet<Vec<u8>>,
    /// Spans that came again.
    again: u64,
    /// By the number of their visit; `None` for those of what was no request.
    spans: BTreeMap<Option<usize>, Ends>,
    /// The first spans that ended as they should not have.
    strange: Vec<String>,
}

/// How many of them are told.
const TOLD: usize = 5;

impl Account {
    /// Takes what the collector has got by now.
    pub fn gather(&mut self, collector: &mut Collector) {
        while let Some(request) = collector.next_now() {
            request.spans().into_iter().for_each(|span| self.note(span));
        }
    }

    fn note(&mut self, span: &Span) {
        if !self.ids.insert(span.span_id.clone()) {
            self.again += 1;
            return;
        }
        let text = |name: &str| {
            let attribute = span.attributes.iter().find(|attribute| attribute.key == name)?;
            match attribute.value.as_ref()?.value.as_ref()? {
                Value::StringValue(text) => Some(text.as_str()),
                _ => None,
            }
        };
        let path = ["url.path", "url.full", "rpc.method_original"].into_iter().find_map(text);
        let visit = path.and_then(|path| path.rsplit('/').next()?.parse().ok());
        let end = text("tracecar.outcome").unwrap_or("no outcome").to_owned();
        let known = visit.and_then(|visit| visits::all().nth(visit));
        if known.is_some_and(|visit| !visit.ends.contains(&end.as_str())) && self.strange.len() < TOLD {
            self.strange.push(format!("{span:?}"));
        }
        *self.spans.entry(visit).or_default().entry(end).or_default() += 1;
    }

    /// Spans that ended as they should not have, a few of them.
    pub fn strange(&self) -> String {
        self.strange.join("\n")
    }

    /// Compares it with the visits that were made, and with the program's own page, when nothing goes on any more.
    ///
    /// # Panics
    /// With all that does not agree.
    pub fn balance(&self, made: Vec<u64>, page: &Page, length: Duration) {
        let mut faults = Vec::new();
        let mut unread = Ends::new();
        let (mut requests, mut connections) = (0, 0);
        let mut counts = BTreeMap::<_, u64>::new();
        println!("\nsoak of {length:?}: visit, how often, requests, spans by how they ended");
        for (number, (visit, made)) in visits::all().zip(made).enumerate() {
            let none = Ends::new();
            let ends = self.spans.get(&Some(number)).unwrap_or(&none);
            let sent = made * visit.requests;
            println!("{:45} {made:>8} {sent:>8}  {}", visit.what, told(ends));
            if ends.values().sum::<u64>() != sent {
                faults.push(format!("{}: {sent} requests, but {}", visit.what, told(ends)));
            }
            if let Some(other) = ends.keys().find(|end| !visit.ends.contains(&end.as_str())) {
                faults.push(format!("{}: {other}", visit.what));
            }
            requests += sent;
            connections += made * visit.connections;
            for outcome in visit.unread {
                *unread.entry((*outcome).to_owned()).or_default() += made;
            }
            for count in visit.counts {
                *counts.entry(*count).or_default() += made;
            }
        }
        let none = Ends::new();
        let without = self.spans.get(&None).unwrap_or(&none);
        println!("{:45} {:>8} {:>8}  {}\n", "what was no request", "", "", told(without));
        if *without != unread {
            faults.push(format!("what was no request: {}, expected {}", told(without), told(&unread)));
        }
        let spans = requests + unread.values().sum::<u64>();

        let mut equal = |what: &str, is: u64, expected: u64| {
            println!("{what:75} {is:>8} of {expected}");
            if is != expected {
                faults.push(format!("{what}: {is}, expected {expected}"));
            }
        };
        equal("spans received", self.ids.len() as u64, spans);
        equal("spans received again", self.again, 0);
        for name in ["records", "exchanges", "export_spans_accepted", "export_spans_exported"] {
            let name = format!("tracecar_{name}_total");
            equal(&name, page.count(&name), spans);
        }
        let of = |end: &str| self.spans.values().filter_map(|ends| ends.get(end)).sum();
        for (labels, count) in page.named("tracecar_exchanges_total") {
            let outcome = &labels["outcome"];
            equal(&format!("tracecar_exchanges_total {outcome}"), count as u64, of(outcome));
        }
        equal(
            "tracecar_connections_accepted_total",
            page.count("tracecar_connections_accepted_total"),
            connections,
        );
        let mut names: Vec<&str> = counts.keys().map(|(name, ..)| *name).collect();
        names.dedup();
        for name in names {
            for (labels, count) in page.named(name) {
                let foretold = counts.iter().filter(|((is, label, value), _)| {
                    *is == name && (label.is_empty() || labels.get(*label).is_some_and(|is| is == value))
                });
                let label = labels.values().next().map_or("", String::as_str);
                equal(&format!("{name} {label}"), count as u64, foretold.map(|(_, count)| count).sum());
            }
        }
        const NEVER: [&str; 8] = [
            "panics_total",
            "records_dropped_total",
            "export_spans_dropped_total",
            "export_failures_total",
            "accept_errors_total",
            "connections_limited_total",
            "requests_limited_total",
            "requests_active",
        ];
        for name in NEVER {
            let name = format!("tracecar_{name}");
            equal(&name, page.count(&name), 0);
        }
        let strange = self.strange();
        assert!(faults.is_empty(), "the account does not balance:\n{}\n{strange}", faults.join("\n"));
    }
}

fn told(ends: &Ends) -> String {
    let each: Vec<_> = ends.iter().map(|(end, count)| format!("{end} {count}")).collect();
    each.join(", ")
}
