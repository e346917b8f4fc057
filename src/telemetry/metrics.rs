//! Metrics of traffic, read from the records, and the page that shows them together with all other counters.
//!
//! * `http_server_request_duration_seconds`: the conventions' one histogram of requests (MET-1, MET-9, MET-11).
//!   Streams stay out of it: how long a caller stays subscribed says nothing about latency.
//! * `tracecar_…`: what the conventions have no name for.
//!
//! Nothing a caller sends becomes a label as it is: methods are normalised (MET-12), paths and hosts are left out
//! (MET-10), and where the number of label sets is not bounded by our own words, it is capped.

use std::borrow::Cow;
use std::fmt;
use std::hash::Hash;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Method;
use opentelemetry::trace::{SpanId, TraceId};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeLabel, EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::{ConstCounter, Counter};
use prometheus_client::metrics::exemplar::HistogramWithExemplars;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::ConstGauge;
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};

use super::exposition::{Exposition, text_from_openmetrics};
use crate::config::Service;
use crate::exchange::{Outcome, Record, RequestFacts, Sink, Stream, semconv};
use crate::stats::{Kind, Row};

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
    registry: Registry,
    traffic: Traffic,
}

/// What the sink writes to; the registry holds the same metrics for reading.
#[derive(Debug)]
struct Traffic {
    requests: Capped<RequestLabels>,
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
        registry.register("target", "What the metrics are about", Info::new(target_labels(service)));

        let overflow = Family::<Word, Counter>::default();
        let name = "http_server_request_duration";
        let traffic = Traffic {
            requests: Capped::new(
                max_label_sets,
                overflow.get_or_create_owned(&[("metric", "http_server_request_duration_seconds")]),
            ),
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
        Self(Arc::new(Inner { registry, traffic }))
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
        encode_registry(&mut page, &self.0.registry)
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
}

impl Sink for MetricsSink {
    fn record(&mut self, record: &Arc<Record>) {
        let traffic = &self.metrics.0.traffic;
        let latest = match &mut self.latest {
            Some(latest) if latest.outcome == record.outcome => latest,
            other => {
                let exchanges =
                    traffic.exchanges.get_or_create(&[("outcome", record.outcome.as_str())]).clone();
                other.insert(Latest { outcome: record.outcome, exchanges, request: None })
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
            (Some(request), None) => {
                let labels = RequestLabels::of(record, request);
                if let Some((same, histogram)) = &latest.request
                    && *same == labels
                {
                    return observe(histogram, record, record.timings.total);
                }
                let (histogram, own) = traffic.requests.of(labels.clone());
                observe(&histogram, record, record.timings.total);
                latest.request = own.then_some((labels, histogram));
            }
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

/// The labels of a request (MET-1). What is absent is left out.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct RequestLabels {
    /// `None` is `_OTHER` (MET-12).
    method: Option<Method>,
    scheme: &'static str,
    route: Option<Arc<str>>,
    status: Option<u16>,
    error_type: Option<Cow<'static, str>>,
    version: Option<&'static str>,
}

impl RequestLabels {
    fn of(record: &Record, request: &RequestFacts) -> Self {
        Self {
            method: request.known_method.then(|| request.method.clone()),
            scheme: request.scheme,
            route: request.route.clone(),
            status: record.status,
            error_type: record.error_type(),
            version: semconv::protocol_version(request.version),
        }
    }
}

impl EncodeLabelSet for Series<RequestLabels> {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> fmt::Result {
        let Series::Of(labels) = self else {
            return ("otel_metric_overflow", "true").encode(encoder.encode_label());
        };
        let mut label = |attribute: &str, value: Option<&str>| match value {
            Some(value) => (attribute.replace('.', "_").as_str(), value).encode(encoder.encode_label()),
            None => Ok(()),
        };
        let method = labels.method.as_ref().map_or(semconv::OTHER, Method::as_str);
        let status = labels.status.map(|status| status.to_string());
        label(semconv::HTTP_REQUEST_METHOD, Some(method))?;
        label(semconv::URL_SCHEME, Some(labels.scheme))?;
        label(semconv::HTTP_ROUTE, labels.route.as_deref())?;
        label(semconv::HTTP_RESPONSE_STATUS_CODE, status.as_deref())?;
        label(semconv::ERROR_TYPE, labels.error_type.as_deref())?;
        label(semconv::NETWORK_PROTOCOL_VERSION, labels.version)
    }
}

/// The labels of an exemplar: 63 characters of the 128 allowed (PRM-2).
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Ids {
    trace_id: TraceId,
    span_id: SpanId,
}

impl Ids {
    fn of(record: &Record) -> Self {
        Self { trace_id: record.identity.trace_id, span_id: record.identity.span_id }
    }
}

impl EncodeLabelSet for Ids {
    fn encode(&self, encoder: &mut LabelSetEncoder) -> fmt::Result {
        ("trace_id", self.trace_id.to_string()).encode(encoder.encode_label())?;
        ("span_id", self.span_id.to_string()).encode(encoder.encode_label())
    }
}

/// The resource's attributes as labels. Names that become equal share one label: their values, in the order of
/// the original names, joined with `;` (PRM-4).
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

/// Counters about tracecar itself, grouped by name as the formats demand.
#[derive(Debug)]
struct Rows(Vec<Vec<Row>>);

impl Rows {
    fn new(rows: &[Row]) -> Self {
        let mut groups: Vec<Vec<Row>> = Vec::new();
        for row in rows {
            let Some(group) = groups.iter_mut().find(|group| group[0].name == row.name) else {
                groups.push(vec![*row]);
                continue;
            };
            if group[0].kind != row.kind {
                continue;
            }
            match group.iter_mut().find(|known| known.label == row.label) {
                Some(known) => known.value += row.value,
                None => group.push(*row),
            }
        }
        Self(groups)
    }
}

impl Collector for Rows {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        for group in &self.0 {
            let kind = match group[0].kind {
                Kind::Counter => MetricType::Counter,
                Kind::Gauge => MetricType::Gauge,
            };
            let mut metric = encoder.encode_descriptor(group[0].name, group[0].help, None, kind)?;
            if let ([row], None) = (&group[..], group[0].label) {
                encode_value(row, metric)?;
                continue;
            }
            for row in group {
                // One without a label among labelled ones is legal, if odd: its braces are empty.
                let labels = row.label.as_slice();
                encode_value(row, metric.encode_family(&labels)?)?;
            }
        }
        Ok(())
    }
}

fn encode_value(row: &Row, sample: MetricEncoder) -> fmt::Result {
    match row.kind {
        Kind::Counter => ConstCounter::new(row.value).encode(sample),
        Kind::Gauge => ConstGauge::new(row.value).encode(sample),
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use http::Method;

    use super::*;
    use crate::exchange::sample;

    fn service() -> Service {
        Service {
            name: "shop".to_owned(),
            named: true,
            attributes: vec![
                ("deployment.environment.name".to_owned(), "a \"b\" \\ c\nd".to_owned()),
                ("service_name".to_owned(), "other".to_owned()),
                ("7.of-9".to_owned(), String::new()),
            ],
        }
    }

    fn counted(records: impl IntoIterator<Item = Record>) -> Metrics {
        let metrics = Metrics::new(&service());
        let mut sink = metrics.sink();
        records.into_iter().for_each(|record| sink.record(&Arc::new(record)));
        metrics
    }

    fn changed(change: impl FnOnce(&mut Record)) -> Record {
        let mut record = sample();
        change(&mut record);
        record
    }

    /// One of everything that looks different on the page.
    fn assorted() -> Vec<Record> {
        vec![
            sample(),
            changed(|record| record.status = Some(503)),
            changed(|record| record.timings.total = Duration::from_secs(60)),
            changed(|record| record.stream = Some(Stream::ServerSentEvents)),
            changed(|record| {
                record.outcome = Outcome::UpstreamRefused;
                record.timings.sent = None;
                record.status = None;
            }),
            changed(|record| {
                record.request = None;
                record.outcome = Outcome::MalformedRequest;
            }),
            changed(|record| {
                let request = record.request.as_mut().unwrap();
                request.method = Method::from_bytes(b"BREW").unwrap();
                request.known_method = false;
                request.route = Some("/a # {b=\"c\"}\\".into());
            }),
        ]
    }

    fn rows() -> Vec<Row> {
        let row = |name, kind, label, value| Row { name, help: "For the test.", kind, label, value };
        vec![
            row("tracecar_a", Kind::Counter, Some(("reason", "x")), 1),
            row("tracecar_b", Kind::Gauge, None, 2),
            row("tracecar_a", Kind::Counter, Some(("reason", "y")), 4),
            row("tracecar_a", Kind::Counter, Some(("reason", "x")), 8),
            row("tracecar_b", Kind::Counter, None, 16),
        ]
    }

    #[test]
    fn a_request_is_one_observation_with_its_labels_and_its_span() {
        let page = counted([sample()]).render(Exposition::OpenMetrics, &[]);
        let labels = "http_request_method=\"GET\",url_scheme=\"http\",http_route=\"/items/{id}\",\
            http_response_status_code=\"200\",network_protocol_version=\"1.1\"";
        let ids = format!("trace_id=\"{}\",span_id=\"{}\"", "ab".repeat(16), "cd".repeat(8));
        let bucket = format!(
            "http_server_request_duration_seconds_bucket{{le=\"0.005\",{labels}}} 1 \
             # {{{ids}}} 0.005 1800000000.005\n"
        );
        assert!(page.contains(&bucket), "{page}");
        assert!(page.contains(&format!("http_server_request_duration_seconds_sum{{{labels}}} 0.005\n")));
        assert!(page.contains("tracecar_exchanges_total{outcome=\"complete\"} 1\n"));
        assert!(page.contains("tracecar_proxy_duration_seconds_bucket{le=\"0.00005\"} 1\n"));
    }

    #[test]
    fn an_unsampled_request_leaves_no_exemplar() {
        let page =
            counted([changed(|record| record.identity.flags = 2)]).render(Exposition::OpenMetrics, &[]);
        assert!(page.contains("_count"));
        assert!(!page.contains("trace_id"), "{page}");
    }

    #[test]
    fn a_stream_and_an_unreadable_request_stay_out_of_the_request_histogram() {
        let page = counted([
            changed(|record| record.stream = Some(Stream::WebSocket)),
            changed(|record| {
                record.request = None;
                record.outcome = Outcome::RequestTimeout;
            }),
        ])
        .render(Exposition::Text, &[]);
        assert!(!page.contains("http_server_request_duration_seconds_count"), "{page}");
        assert!(page.contains("tracecar_streams_total{stream=\"websocket\"} 1\n"));
        assert!(page.contains("tracecar_stream_first_byte_seconds_count{stream=\"websocket\"} 1\n"));
        assert!(page.contains("tracecar_requests_unreadable_total{reason=\"request_timeout\"} 1\n"));
        assert!(page.contains("tracecar_exchanges_total{outcome=\"complete\"} 1\n"));
    }

    #[test]
    fn an_unknown_method_and_an_error_are_labelled_by_words_of_the_conventions() {
        let page = counted(assorted()).render(Exposition::Text, &[]);
        assert!(page.contains("http_request_method=\"_OTHER\""), "{page}");
        assert!(!page.contains("BREW"));
        assert!(page.contains("error_type=\"503\""));
        let refused = "_count{http_request_method=\"GET\",url_scheme=\"http\",http_route=\"/items/{id}\",\
            error_type=\"connection_refused\",network_protocol_version=\"1.1\"} 1\n";
        assert!(page.contains(refused), "no status label where no status was sent");
    }

    #[test]
    fn label_sets_beyond_the_cap_share_one_and_are_counted() {
        let metrics = Metrics::with_cap(&service(), 2);
        let mut sink = metrics.sink();
        for status in [200, 201, 202, 203, 200, 202] {
            sink.record(&Arc::new(changed(|record| record.status = Some(status))));
        }
        let page = metrics.render(Exposition::Text, &[]);
        let count = "http_server_request_duration_seconds_count";
        assert!(page.contains(&format!("{count}{{otel_metric_overflow=\"true\"}} 3\n")), "{page}");
        assert!(
            page.contains(
                "tracecar_metric_overflow_total{metric=\"http_server_request_duration_seconds\"} 3\n"
            )
        );
        assert_eq!(page.matches(count).count(), 3);
        assert!(page.contains("code=\"200\",network_protocol_version=\"1.1\"} 2\n"));
    }

    #[test]
    fn target_labels_that_collide_are_joined_in_the_order_of_their_names() {
        let page = counted([]).render(Exposition::OpenMetrics, &[]);
        let target = "target_info{key_7_of_9=\"\",deployment_environment_name=\"a \\\"b\\\" \\\\ c\\nd\",\
            service_name=\"shop;other\"} 1\n";
        assert!(page.contains(target), "{page}");
        assert_eq!(label_name("k8s..pod-_name"), "k8s_pod_name");
    }

    #[test]
    fn rows_of_one_name_stand_together_and_equal_ones_are_added() {
        let page = counted([]).render(Exposition::Text, &rows());
        let expected = "# HELP tracecar_a_total For the test.\n# TYPE tracecar_a_total counter\n\
            tracecar_a_total{reason=\"x\"} 9\ntracecar_a_total{reason=\"y\"} 4\n\
            # HELP tracecar_b For the test.\n# TYPE tracecar_b gauge\ntracecar_b 2\n";
        assert!(page.ends_with(expected), "{page}");
    }

    #[test]
    fn a_clock_before_1970_harms_nothing() {
        let early = changed(|record| record.started_at = UNIX_EPOCH - Duration::from_secs(9));
        check(&counted([early]).render(Exposition::OpenMetrics, &[]), Exposition::OpenMetrics);
    }

    #[test]
    fn both_forms_are_what_their_specifications_say() {
        let metrics = counted(assorted());
        let mut rows = rows();
        rows.extend(crate::stats::Stats::default().rows());
        for exposition in [Exposition::OpenMetrics, Exposition::Text] {
            let page = metrics.render(exposition, &rows);
            let series = check(&page, exposition);
            assert_eq!(page.contains(" # {trace_id"), exposition == Exposition::OpenMetrics);
            assert!(series > 100, "{series} series");
        }
    }

    /// A strict reader of both forms: panics at the first line that a scraper might refuse. Returns the number
    /// of series.
    fn check(page: &str, exposition: Exposition) -> usize {
        let open = exposition == Exposition::OpenMetrics;
        let body = match open {
            true => page.strip_suffix("# EOF\n").expect("ends with # EOF"),
            false => page,
        };
        assert!(body.ends_with('\n') && !body.contains("EOF") && !body.contains('\r'));
        let (mut families, mut series) = (BTreeSet::new(), BTreeSet::new());
        let (mut family, mut kind) = ("", "");
        let mut bucket: (String, f64, u64) = Default::default();
        for line in body.lines() {
            if let Some(rest) = line.strip_prefix("# HELP ") {
                family = rest.split_once(' ').expect("help has text").0;
                assert!(families.insert(family), "{family} appears twice");
                kind = "";
            } else if let Some(rest) = line.strip_prefix("# TYPE ") {
                assert_eq!((rest.split_once(' ').unwrap().0, kind), (family, ""), "{line}");
                kind = rest.split_once(' ').unwrap().1;
            } else if let Some(rest) = line.strip_prefix("# UNIT ") {
                assert!(
                    open && rest == format!("{family} seconds") && family.ends_with("_seconds"),
                    "{line}"
                );
            } else {
                let (name, labels, rest) = sample_parts(line);
                assert!(series.insert((name, labels.clone())), "{line} appears twice");
                let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{line} is not of {family}"));
                let suffixes: &[&str] = match (kind, open) {
                    ("counter", true) => &["_total"],
                    ("info", true) => &["_info"],
                    ("counter" | "gauge", false) | ("gauge", true) => &[""],
                    ("histogram", _) => &["_sum", "_count", "_bucket"],
                    other => panic!("{line}: unexpected type {other:?}"),
                };
                assert!(suffixes.contains(&suffix), "{line}");
                assert!(kind != "counter" || !open || !family.ends_with("_total"));
                let (value, exemplar) = match rest.split_once(" # ") {
                    Some((value, exemplar)) => (value, Some(exemplar)),
                    None => (rest, None),
                };
                let value: f64 = value.parse().unwrap_or_else(|_| panic!("{line}: value"));
                if suffix == "_bucket" {
                    let upper =
                        labels.iter().find(|(key, _)| key == "le").expect("le").1.replace("+Inf", "inf");
                    let upper: f64 = upper.parse().unwrap();
                    let others = format!(
                        "{family}{:?}",
                        labels.iter().filter(|(key, _)| key != "le").collect::<Vec<_>>()
                    );
                    let lower = if bucket.0 == others { bucket.1 } else { f64::NEG_INFINITY };
                    assert!(lower < upper && (bucket.0 != others || bucket.2 <= value as u64), "{line}");
                    assert!(bucket.0 == others || bucket.1.is_infinite() || bucket.0.is_empty(), "no +Inf");
                    if let Some(exemplar) = exemplar {
                        let (_, labels, rest) = sample_parts(exemplar);
                        let (seen, at) = rest.split_once(' ').expect("value and time");
                        let seen: f64 = seen.parse().unwrap();
                        assert!(open && seen > lower && seen <= upper, "{line}");
                        assert!(at.parse::<f64>().unwrap() >= 0.0);
                        assert!(
                            labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() <= 128
                        );
                    }
                    bucket = (others, upper, value as u64);
                } else {
                    assert!(exemplar.is_none(), "{line}");
                }
            }
        }
        series.len()
    }

    /// Name, labels and what follows of a sample or an exemplar.
    fn sample_parts(line: &str) -> (&str, Vec<(String, String)>, &str) {
        let end = line.find(['{', ' ']).expect("a value");
        let (name, mut rest) = line.split_at(end);
        let legal = |c: char| c.is_ascii_alphanumeric() || c == '_';
        assert!(name.chars().all(legal) && !name.starts_with(|c: char| c.is_ascii_digit()), "{line}");
        let mut labels = Vec::new();
        if let Some(inside) = rest.strip_prefix('{') {
            rest = inside;
            while !rest.starts_with('}') {
                let (key, after) = rest.split_once("=\"").unwrap_or_else(|| panic!("{line}: label"));
                assert!(!key.is_empty() && key.chars().all(legal), "{line}");
                let mut value = String::new();
                let mut characters = after.char_indices();
                let end = loop {
                    match characters.next().expect("a closing quote") {
                        (index, '"') => break index,
                        (_, '\\') => match characters.next().unwrap().1 {
                            'n' => value.push('\n'),
                            c @ ('\\' | '"') => value.push(c),
                            other => panic!("{line}: escape {other:?}"),
                        },
                        (_, character) => value.push(character),
                    }
                };
                assert!(!labels.iter().any(|(known, _)| known == key), "{line}: {key} twice");
                labels.push((key.to_owned(), value));
                rest = &after[end + 1..];
                rest = rest.strip_prefix(',').unwrap_or(rest);
            }
            rest = &rest[1..];
        }
        (name, labels, rest.strip_prefix(' ').unwrap_or_else(|| panic!("{line}: no value")))
    }
}
