//! Metrics of traffic, read from the records, and the page that shows them together with all other counters.
//!
//! * `http_server_request_duration_seconds`: the conventions' one histogram of requests (MET-1, MET-9, MET-11).
//!   Streams stay out of it: how long a caller stays subscribed says nothing about latency.
//! * `http_client_request_duration_seconds`: the same of calls (MET-2). Tunnels stay out of it, too.
//! * `rpc_server_call_duration_seconds`, `rpc_client_call_duration_seconds`: gRPC calls, which are in these in place of those
//!   above, as their spans are spans of RPC (RPC-10, RPC-15). How long a call streams is nobody's to know beforehand, so
//!   streaming ones are in, too.
//! * `tracecar_…`: what the conventions have no name for.
//!
//! Nothing a caller sends becomes a label as it is: methods are normalised (MET-12), paths and hosts are left out
//! (MET-10), and where the number of label sets is not bounded by our own words, it is capped.

use std::hash::Hash;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

mod labels;
mod rows;

use self::labels::{CallLabels, Ids, RequestLabels, RpcLabels};
use self::rows::Rows;
use super::exposition::{Exposition, text_from_openmetrics};
use crate::config::Service;
use crate::exchange::{Outcome, Record, Side, Sink, Stream};
use crate::stats::Row;

/// Seconds; what the conventions recommend (MET-9).
const REQUEST_BUCKETS: [f64; 14] =
    [0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0];

/// Seconds. A request is in tracecar for some ten microseconds; what takes milliseconds waited for a processor.
const PROXY_BUCKETS: [f64; 11] =
    [0.00001, 0.000025, 0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.025, 0.1];

/// Label sets of one family; further ones share one. Each costs up to 3 KiB here and 17 lines on every page.
/// Ten methods, ten statuses and ten routes are 1000, and no service uses all combinations.
const MAX_LABEL_SETS: usize = 1000;

/// The page's numbers. A handle: clones show and count the same.
#[derive(Clone, Debug)]
pub struct Metrics(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    /// `target_info`, which changes with the settings.
    target: Mutex<Registry>,
    registry: Registry,
    traffic: Traffic,
}

/// What the sink writes to; the registry holds the same metrics for reading.
#[derive(Debug)]
struct Traffic {
    requests: Capped<RequestLabels>,
    calls: Capped<CallLabels>,
    rpcs_served: Capped<RpcLabels>,
    rpcs_called: Capped<RpcLabels>,
    lineage: Family<Word, Counter>,
    stream_first_byte: Family<Word, HistogramWithExemplars<Ids>, fn() -> HistogramWithExemplars<Ids>>,
    streams: Family<Word, Counter>,
    unreadable: Family<Word, Counter>,
    exchanges: Family<Word, Counter>,
    proxy: Histogram,
}

/// One label whose values are words of our own.
type Word = [(&'static str, &'static str); 1];

impl Metrics {
    /// Metrics of `service`, whose attributes are shown once, as `target_info` (PRM-5).
    pub fn new(service: &Service) -> Self {
        Self::with_cap(service, MAX_LABEL_SETS)
    }

    fn with_cap(service: &Service, max_label_sets: usize) -> Self {
        let mut registry = Registry::default();
        let overflow = Family::<Word, Counter>::default();
        let name = "http_server_request_duration";
        let overflowed = |metric| overflow.get_or_create_owned(&[("metric", metric)]);
        let traffic = Traffic {
            requests: Capped::new(max_label_sets, overflowed("http_server_request_duration_seconds")),
            calls: Capped::new(max_label_sets, overflowed("http_client_request_duration_seconds")),
            rpcs_served: Capped::new(max_label_sets, overflowed("rpc_server_call_duration_seconds")),
            rpcs_called: Capped::new(max_label_sets, overflowed("rpc_client_call_duration_seconds")),
            lineage: Family::default(),
            stream_first_byte: Family::new_with_constructor(request_histogram as fn() -> _),
            streams: Family::default(),
            unreadable: Family::default(),
            exchanges: Family::default(),
            proxy: Histogram::new(PROXY_BUCKETS),
        };
        // A counter that is there from the start shows its first increase; these words are few.
        for outcome in Outcome::ALL {
            drop(traffic.exchanges.get_or_create(&[("outcome", outcome.as_str())]));
        }

        let help = "Duration of HTTP server requests, streams left out";
        registry.register_with_unit(name, help, Unit::Seconds, traffic.requests.family.clone());
        let help = "Duration of HTTP client requests, streams and tunnels left out";
        let name = "http_client_request_duration";
        registry.register_with_unit(name, help, Unit::Seconds, traffic.calls.family.clone());
        let help = "Duration of gRPC calls that were served";
        let served = traffic.rpcs_served.family.clone();
        registry.register_with_unit("rpc_server_call_duration", help, Unit::Seconds, served);
        let help = "Duration of gRPC calls that were made";
        let called = traffic.rpcs_called.family.clone();
        registry.register_with_unit("rpc_client_call_duration", help, Unit::Seconds, called);
        let help = "Calls of the service, by how their parent was found";
        registry.register("tracecar_lineage_calls", help, traffic.lineage.clone());
        let help = "Time until the response head of a response that has no end in sight";
        let name = "tracecar_stream_first_byte";
        registry.register_with_unit(name, help, Unit::Seconds, traffic.stream_first_byte.clone());
        registry.register("tracecar_streams", "Streams that ended", traffic.streams.clone());
        let help = "Requests that could not be read";
        registry.register("tracecar_requests_unreadable", help, traffic.unreadable.clone());
        let help = "Finished exchanges of any kind, by how they ended";
        registry.register("tracecar_exchanges", help, traffic.exchanges.clone());
        let help = "Time a request head spent in tracecar, without resolving and connecting";
        registry.register_with_unit("tracecar_proxy_duration", help, Unit::Seconds, traffic.proxy.clone());
        let help = "Measurements whose labels were dropped because their metric has too many label sets";
        registry.register("tracecar_metric_overflow", help, overflow);
        Self(Arc::new(Inner { target: Mutex::new(target(service)), registry, traffic }))
    }

    /// They are about `service` from now on.
    pub fn describe(&self, service: &Service) {
        *self.0.target.lock().unwrap_or_else(PoisonError::into_inner) = target(service);
    }

    /// A reader of records that counts into these metrics.
    pub fn sink(&self) -> MetricsSink {
        MetricsSink { metrics: self.clone(), latest: None }
    }

    /// The page, with `rows` below the metrics of traffic. Rows of one name are shown together; rows that agree
    /// in name and label are added up; a name used for both kinds keeps its first (PRM-5).
    pub fn render(&self, exposition: Exposition, rows: &[Row]) -> String {
        let mut page = String::with_capacity(16 * 1024);
        let mut counters = Registry::default();
        counters.register_collector(Box::new(Rows::new(rows)));
        encode_registry(&mut page, &self.0.target.lock().unwrap_or_else(PoisonError::into_inner))
            .and_then(|()| encode_registry(&mut page, &self.0.registry))
            .and_then(|()| encode_registry(&mut page, &counters))
            .and_then(|()| encode_eof(&mut page))
            .expect("writing to a String never fails");
        match exposition {
            Exposition::OpenMetrics => page,
            Exposition::Text => text_from_openmetrics(&page),
        }
    }
}

/// Reads records into [`Metrics`]. Any number of them may exist.
#[derive(Debug)]
pub struct MetricsSink {
    metrics: Metrics,
    /// What the record before was counted in. Most records are like the one before, and looking the same labels up again
    /// costs more than all the rest.
    latest: Option<Latest>,
}

#[derive(Debug)]
struct Latest {
    outcome: Outcome,
    exchanges: Counter,
    request: Option<(RequestLabels, HistogramWithExemplars<Ids>)>,
    call: Option<(CallLabels, HistogramWithExemplars<Ids>)>,
    rpc_served: Option<(RpcLabels, HistogramWithExemplars<Ids>)>,
    rpc_called: Option<(RpcLabels, HistogramWithExemplars<Ids>)>,
}

impl Sink for MetricsSink {
    fn record(&mut self, record: &Arc<Record>) {
        let traffic = &self.metrics.0.traffic;
        let latest = match &mut self.latest {
            Some(latest) if latest.outcome == record.outcome => latest,
            other => {
                let exchanges =
                    traffic.exchanges.get_or_create(&[("outcome", record.outcome.as_str())]).clone();
                let (request, call, rpc_served, rpc_called) = (None, None, None, None);
                let outcome = record.outcome;
                other.insert(Latest { outcome, exchanges, request, call, rpc_served, rpc_called })
            }
        };
        latest.exchanges.inc();
        if let Some(duration) = record.timings.proxy() {
            traffic.proxy.observe(duration.as_secs_f64());
        }
        match (&record.request, record.stream) {
            (None, _) => {
                traffic.unreadable.get_or_create(&[("reason", record.outcome.as_str())]).inc();
            }
            (Some(_), Some(stream)) => traffic.stream(record, stream),
            (Some(_), None) if record.tunnel.is_some() => {}
            (Some(request), None) if record.rpc.is_some() => match record.side {
                Side::Inbound => {
                    let labels = RpcLabels::of(record, request);
                    traffic.rpcs_served.observe(labels, &mut latest.rpc_served, record);
                }
                Side::Outbound => {
                    let labels = RpcLabels::of(record, request);
                    traffic.rpcs_called.observe(labels, &mut latest.rpc_called, record);
                }
            },
            (Some(request), None) => match record.side {
                Side::Inbound => {
                    traffic.requests.observe(RequestLabels::of(record, request), &mut latest.request, record)
                }
                Side::Outbound => {
                    traffic.calls.observe(CallLabels::of(record, request), &mut latest.call, record)
                }
            },
        }
        if let Some(ancestry) = record.ancestry {
            traffic.lineage.get_or_create(&[("method", ancestry.method)]).inc();
        }
    }
}

impl Traffic {
    fn stream(&self, record: &Record, stream: Stream) {
        let word = [("stream", stream.as_str())];
        self.streams.get_or_create(&word).inc();
        if let Some(first_byte) = record.timings.first_byte {
            observe(&self.stream_first_byte.get_or_create(&word), record, first_byte);
        }
    }
}

fn request_histogram() -> HistogramWithExemplars<Ids> {
    HistogramWithExemplars::new(REQUEST_BUCKETS.into_iter())
}

/// Counts one duration, with the span as exemplar where it is exported (PRM-2): a link that leads nowhere would
/// be worse than none.
fn observe(histogram: &HistogramWithExemplars<Ids>, record: &Record, duration: Duration) {
    let Some(exemplar) = record.identity.sampled().then(|| Ids::of(record)) else {
        return histogram.observe(duration.as_secs_f64(), None, None);
    };
    // A clock before 1970 has no number in the format, and the encoder would panic on it.
    let at = record.started_at.checked_add(duration).unwrap_or(SystemTime::now()).max(UNIX_EPOCH);
    histogram.observe(duration.as_secs_f64(), Some(exemplar), Some(at));
}

/// A family of histograms with a bound on its label sets.
#[derive(Debug)]
struct Capped<L: Clone + Eq + Hash> {
    family: Histograms<L>,
    taken: AtomicUsize,
    cap: usize,
    overflowed: Counter,
}

type Histograms<L> = Family<Series<L>, HistogramWithExemplars<Ids>, fn() -> HistogramWithExemplars<Ids>>;

/// A label set, or the one that stands for all that found no room.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Series<L> {
    Of(L),
    Overflow,
}

impl<L: Clone + Eq + Hash> Capped<L> {
    fn new(cap: usize, overflowed: Counter) -> Self {
        let family = Family::new_with_constructor(request_histogram as fn() -> _);
        Self { family, taken: AtomicUsize::new(0), cap, overflowed }
    }

    /// Counts the duration of `record`. `latest` is what the one before was counted in.
    fn observe(&self, labels: L, latest: &mut Option<(L, HistogramWithExemplars<Ids>)>, record: &Record) {
        if let Some((same, histogram)) = latest
            && *same == labels
        {
            return observe(histogram, record, record.timings.total);
        }
        let (histogram, own) = self.of(labels.clone());
        observe(&histogram, record, record.timings.total);
        *latest = own.then_some((labels, histogram));
    }

    /// The histogram of `labels`, and whether it is theirs alone.
    fn of(&self, labels: L) -> (HistogramWithExemplars<Ids>, bool) {
        let series = Series::Of(labels);
        if let Some(known) = self.family.get(&series) {
            return (known.clone(), true);
        }
        // Two sinks that meet the same new labels at once both count them: the cap comes one set early then.
        if self.taken.fetch_add(1, Ordering::Relaxed) < self.cap {
            return (self.family.get_or_create(&series).clone(), true);
        }
        self.taken.fetch_sub(1, Ordering::Relaxed);
        self.overflowed.inc();
        (self.family.get_or_create(&Series::Overflow).clone(), false)
    }
}

/// The resource's attributes as labels. Names that become equal share one label: their values, in the order of
/// the original names, joined with `;` (PRM-4).
fn target(service: &Service) -> Registry {
    let mut registry = Registry::default();
    registry.register("target", "What the metrics are about", Info::new(target_labels(service)));
    registry
}

fn target_labels(service: &Service) -> Vec<(String, String)> {
    let mut attributes: Vec<(&str, &str)> =
        service.attributes.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
    attributes.push(("service.name", &service.name));
    attributes.sort_by_key(|(key, _)| *key);

    let mut labels: Vec<(String, String)> = Vec::with_capacity(attributes.len());
    for (key, value) in attributes {
        let name = label_name(key);
        match labels.iter_mut().find(|(known, _)| *known == name) {
            Some((_, values)) => values.extend([";", value]),
            None => labels.push((name, value.to_owned())),
        }
    }
    labels
}

/// An attribute's name as a label's: what may not stand in one becomes a single `_` (PRM-3).
fn label_name(key: &str) -> String {
    let mut name = String::with_capacity(key.len());
    for character in key.chars() {
        match character {
            c if c.is_ascii_alphanumeric() => name.push(c),
            _ if name.ends_with('_') => {}
            _ => name.push('_'),
        }
    }
    if name.is_empty() || name.starts_with(|first: char| first.is_ascii_digit()) {
        name.insert_str(0, "key_");
    }
    name
}

#[cfg(test)]
mod tests;
