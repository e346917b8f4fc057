//! One scripted run, seen by a collector, in the access log and on the metrics page: all three tell the same story.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::mpsc::channel;

use opentelemetry_proto::tonic::trace::v1::Span;
use serde_json::Value;
use tokio::runtime::Runtime;
use tracecar::config::{Inbound, Upstream, UpstreamProtocol};

use crate::support::PATIENCE;
use crate::support::car::TestCar;
use crate::support::collector::{Collector, Protocol};
use crate::support::origin::{Nowhere, Origin, Peer};
use crate::support::page::{self, Labels, Page};
use crate::support::spans::{self, Attributes};

/// What the run leaves behind, in its order: outcome, status, `error.type`.
const STORY: [(&str, Option<i64>, Option<&str>); 13] = [
    ("complete", Some(200), None),
    ("complete", Some(404), None),
    ("complete", Some(302), None),
    ("complete", Some(204), None),
    ("complete", Some(503), Some("503")),
    ("complete", Some(200), None),
    ("complete", Some(500), Some("500")),
    ("upstream_refused", Some(502), Some("connection_refused")),
    ("upstream_broken", Some(200), Some("body_incomplete")),
    ("client_gone_before_response", None, None),
    ("client_gone_during_response", Some(200), None),
    ("malformed_request", Some(400), None),
    ("complete", Some(200), None),
];

#[test]
fn spans_log_and_metrics_tell_the_same_story() {
    for protocol in [Protocol::Http, Protocol::Grpc] {
        let told = run(protocol);
        let spans: Vec<_> = told.spans.iter().map(|span| (span, spans::check(span))).collect();
        let story: Vec<_> = spans.iter().map(|(_, attributes)| ending(attributes)).collect();
        assert_eq!(story, STORY, "{protocol:?}");

        assert_eq!(told.lines.len(), spans.len(), "one line per span");
        for (span, attributes) in &spans {
            let id = hex(&span.span_id);
            let lines: Vec<_> = told.lines.iter().filter(|line| line["span_id"] == id.as_str()).collect();
            assert_eq!(lines.len(), 1, "the lines of span {id}");
            line_agrees(lines[0], span, attributes);
        }
        metrics_agree(&told.page, &spans);
        exemplars_lead_to_spans(&told.openmetrics, &told.spans);
    }
}

/// Everything that the run left behind.
struct Told {
    spans: Vec<Span>,
    lines: Vec<Value>,
    page: Page,
    openmetrics: String,
}

fn run(protocol: Protocol) -> Told {
    let runtime = Runtime::new().expect("threads can be started");
    let mut collector = runtime.block_on(Collector::start(protocol));
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let log = folder.path().join("access.log");
    let (arrived, arrives) = channel();
    let origin = Origin::new(move |peer| serve(peer, || arrived.send(()).expect("the run goes on")));
    let nowhere = Nowhere::new();
    let yaml = format!(
        "routes: ['/items/{{id}}', /broken]\n\
         exclude: {{ rules: [{{ path: '/health/**' }}] }}\n\
         url_query: {{ allow: [page] }}\n\
         access_log: {{ enabled: true, path: '{}' }}\n\
         export: {{ otlp: {{ endpoint: 'http://{}', protocol: '{}' }} }}",
        log.display(),
        collector.address,
        if protocol == Protocol::Grpc { "grpc" } else { "http/protobuf" },
    );
    let car = TestCar::with(&origin.url(), &yaml, |settings| {
        let (host, port) = (nowhere.address.ip().to_string(), nowhere.address.port());
        let to = Upstream { protocol: UpstreamProtocol::Http1, host, port, address: None };
        settings.startup.inbound.push(Inbound::plain(([127, 0, 0, 1], 0).into(), to));
    });
    let admin = car.bound.admin.expect("it is on");

    // A record is waited for where there is one, so that the order of the story is that of the run.
    let recorded = |caller: Peer| {
        car.record();
        drop(caller);
    };
    for target in ["/items/1?page=2&token=secret", "/items/unknown", "/moved", "/nothing", "/items/busy"] {
        let mut caller = connect(car.address(), target);
        match target {
            "/nothing" => drop(caller.response_head()),
            _ => drop(caller.response()),
        }
        recorded(caller);
    }
    recorded({
        let mut caller = Peer::connect(car.address());
        caller.send(
            "POST /items/2 HTTP/1.1\r\nHost: shop.example:8080\r\nContent-Length: 5\r\nUser-Agent: agent/1\r\n\
             X-Request-Id: r-1\r\nbaggage: a=b\r\n\
             traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n\r\nhello",
        );
        assert_eq!(caller.response().status(), 200);
        caller
    });
    // Excluded and fine: no trace of it anywhere.
    assert_eq!(connect(car.address(), "/health/live").response().status(), 200);
    recorded({
        let mut caller = connect(car.address(), "/health/ready");
        assert_eq!(caller.response().status(), 500);
        caller
    });
    recorded({
        let mut caller = connect(car.bound.inbound[1], "/items/3");
        assert_eq!(caller.response().status(), 502);
        caller
    });
    recorded({
        let mut caller = connect(car.address(), "/broken");
        caller.head().expect("a response head");
        let _ = caller.rest();
        caller
    });
    let caller = connect(car.address(), "/silence");
    arrives.recv_timeout(PATIENCE).expect("the request arrives");
    caller.reset();
    car.record();
    let mut caller = connect(car.address(), "/half");
    caller.head().expect("a response head");
    assert_eq!(caller.exactly(4), b"half");
    caller.reset();
    car.record();
    recorded({
        let mut caller = Peer::connect(car.address());
        caller.send("GARBAGE\r\n\r\n");
        assert!(caller.head().expect("an answer").starts_with("HTTP/1.1 400"));
        caller
    });
    recorded({
        let mut caller = connect(car.address(), "/events");
        caller.head().expect("a response head");
        assert_eq!(caller.chunks().expect("a whole body"), b"data: 1\n\ndata: 2\n\n");
        caller
    });

    let page = Page::of(admin);
    let openmetrics = page::read_as(admin, "/metrics", "application/openmetrics-text").text();
    assert_eq!(car.ended().len(), 0, "every record has been seen");
    let mut spans = Vec::new();
    while spans.len() < STORY.len() {
        let request = runtime.block_on(collector.next());
        spans.extend(request.spans().into_iter().cloned());
    }
    assert!(collector.next_now().is_none(), "no more spans than records");
    let text = std::fs::read_to_string(log).expect("the log is there");
    let lines = text.lines().map(|line| serde_json::from_str(line).expect("a line of JSON")).collect();
    Told { spans, lines, page, openmetrics }
}

fn connect(address: SocketAddr, target: &str) -> Peer {
    let mut caller = Peer::connect(address);
    caller.send(format!("GET {target} HTTP/1.1\r\nHost: shop.example\r\n\r\n"));
    caller
}

/// The service: answers by path.
fn serve(peer: &mut Peer, arrived: impl Fn()) {
    while let Some(request) = peer.request() {
        let target = request.head.split(' ').nth(1).unwrap_or_default();
        match target.split('?').next().unwrap_or_default() {
            "/items/unknown" => peer.send("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nwhat"),
            "/moved" => peer.send("HTTP/1.1 302 Found\r\nLocation: /items/1\r\nContent-Length: 0\r\n\r\n"),
            "/nothing" => peer.send("HTTP/1.1 204 No Content\r\n\r\n"),
            "/items/busy" => peer.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"),
            "/health/ready" => peer.send("HTTP/1.1 500 Internal Server Error\r\nContent-Length: 0\r\n\r\n"),
            "/broken" => {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
                return;
            }
            "/silence" => {
                arrived();
                let _ = peer.rest();
                return;
            }
            "/half" => {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
                let _ = peer.rest();
                return;
            }
            "/events" => {
                peer.send(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
                );
                peer.send("9\r\ndata: 1\n\n\r\n");
                peer.send("9\r\ndata: 2\n\n\r\n0\r\n\r\n");
            }
            _ => peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        }
    }
}

fn ending(attributes: &Attributes) -> (&str, Option<i64>, Option<&str>) {
    let outcome = attributes.text("tracecar.outcome").expect("every span has one");
    (outcome, attributes.integer("http.response.status_code"), attributes.text("error.type"))
}

/// A line of the log says what its span says.
fn line_agrees(line: &Value, span: &Span, attributes: &Attributes) {
    let text = |key: &str| line.get(key).map(|value| value.as_str().expect("a string"));
    assert_eq!(text("trace_id"), Some(hex(&span.trace_id).as_str()), "{line}");
    let parent = (!span.parent_span_id.is_empty()).then(|| hex(&span.parent_span_id));
    assert_eq!(text("parent_span_id"), parent.as_deref(), "{line}");
    assert_eq!(line["sampled"], true);
    let words = [
        ("route", "http.route"),
        ("scheme", "url.scheme"),
        ("path", "url.path"),
        ("query", "url.query"),
        ("client", "client.address"),
        ("user_agent", "user_agent.original"),
        ("error_type", "error.type"),
        ("outcome", "tracecar.outcome"),
        ("fault", "tracecar.fault"),
        ("detail", "tracecar.detail"),
        ("correlation_id", "tracecar.correlation_id"),
        ("stream", "tracecar.stream"),
    ];
    for (key, attribute) in words {
        assert_eq!(text(key), attributes.text(attribute), "{key} and {attribute} of {line}");
    }
    // The span says `_OTHER` of a request that could not be read; the log has nothing to say.
    let method = attributes.text("http.request.method").filter(|method| *method != "_OTHER");
    assert_eq!(text("method"), method, "{line}");
    let numbers = [
        ("status", "http.response.status_code"),
        ("request_bytes", "tracecar.request.bytes"),
        ("response_bytes", "tracecar.response.bytes"),
    ];
    for (key, attribute) in numbers {
        let number = line.get(key).map(|value| value.as_i64().expect("an integer"));
        assert_eq!(number, attributes.integer(attribute), "{key} and {attribute} of {line}");
    }
    let excluded = line.get("excluded").map(|value| value.as_bool().expect("true or false"));
    assert_eq!(excluded, attributes.truth("tracecar.excluded"), "{line}");
    let peer = (attributes.text("network.peer.address"), attributes.integer("network.peer.port"));
    assert_eq!(text("peer"), Some(format!("{}:{}", peer.0.unwrap(), peer.1.unwrap()).as_str()));

    // SEM-10: one duration, to the nanosecond.
    assert_eq!(nanoseconds(&line["duration_ms"], 1e6), nanos_of(span), "{line}");
    let phases = [
        ("proxy_ms", "tracecar.time.proxy"),
        ("dns_ms", "tracecar.time.dns"),
        ("connect_ms", "tracecar.time.connect"),
        ("upstream_first_byte_ms", "tracecar.time.first_byte"),
    ];
    for (key, attribute) in phases {
        let logged = line.get(key).map(|value| nanoseconds(value, 1e6));
        let spanned = attributes.seconds(attribute).map(|seconds| (seconds * 1e9).round() as u64);
        assert_eq!(logged, spanned, "{key} and {attribute} of {line}");
    }
    let moment = text("time").and_then(|time| time.strip_suffix('Z')).expect("a time in UTC");
    let millis = format!("{:03}", span.start_time_unix_nano / 1_000_000 % 1000);
    assert_eq!(moment.rsplit('.').next(), Some(millis.as_str()), "the start, to the millisecond");
}

/// The metrics page counts what the spans show.
fn metrics_agree(page: &Page, spans: &[(&Span, Attributes)]) {
    let total = spans.len() as u64;
    assert_eq!(page.count("tracecar_records_total"), total);
    assert_eq!(page.count("tracecar_export_spans_accepted_total"), total);
    assert_eq!(page.count("tracecar_exchanges_total"), total);
    assert_eq!(page.count("tracecar_requests_excluded_total"), 2, "one of them failed");
    assert_eq!(page.count("tracecar_requests_active"), 0);

    let mut outcomes = BTreeMap::<&str, f64>::new();
    let mut streams = 0.0;
    let mut unreadable = BTreeMap::<&str, f64>::new();
    let mut proxied = (0.0, 0.0);
    let mut requests = BTreeMap::<Labels, (f64, f64)>::new();
    for (span, attributes) in spans {
        let outcome = attributes.text("tracecar.outcome").expect("every span has one");
        *outcomes.entry(outcome).or_default() += 1.0;
        if let Some(seconds) = attributes.seconds("tracecar.time.proxy") {
            proxied = (proxied.0 + 1.0, proxied.1 + seconds);
        }
        if attributes.has("tracecar.stream") {
            streams += 1.0;
        } else if attributes.has("url.path") {
            let sum = requests.entry(labels_of(attributes)).or_default();
            *sum = (sum.0 + 1.0, sum.1 + nanos_of(span) as f64 / 1e9);
        } else {
            *unreadable.entry(outcome).or_default() += 1.0;
        }
    }
    for (labels, count) in page.named("tracecar_exchanges_total") {
        assert_eq!(
            count,
            outcomes.get(labels["outcome"].as_str()).copied().unwrap_or_default(),
            "{labels:?}"
        );
    }
    for (reason, count) in unreadable {
        assert_eq!(page.sum("tracecar_requests_unreadable_total", &[("reason", reason)]), count);
    }
    assert_eq!(page.sum("tracecar_streams_total", &[("stream", "sse")]), streams);
    assert_eq!(page.sum("tracecar_stream_first_byte_seconds_count", &[("stream", "sse")]), streams);
    assert_eq!(page.sum("tracecar_proxy_duration_seconds_count", &[]), proxied.0);
    assert_close(page.sum("tracecar_proxy_duration_seconds_sum", &[]), proxied.1);

    let name = "http_server_request_duration_seconds";
    let (counts, sums) = (format!("{name}_count"), format!("{name}_sum"));
    assert_eq!(page.named(&counts).count(), requests.len(), "no label set but those of the spans");
    for (labels, count) in page.named(&counts) {
        let (expected, seconds) = requests.get(labels).unwrap_or_else(|| panic!("no span has {labels:?}"));
        assert_eq!(count, *expected, "{labels:?}");
        let sum = page.named(&sums).find(|(of, _)| *of == labels).expect("a sum beside the count").1;
        assert_close(sum, *seconds);
    }
}

/// MET-1: the labels of a request are attributes of its span.
fn labels_of(attributes: &Attributes) -> Labels {
    let texts = ["http.request.method", "url.scheme", "http.route", "error.type", "network.protocol.version"];
    let mut labels: Labels = texts
        .iter()
        .filter_map(|key| Some((key.replace('.', "_"), attributes.text(key)?.to_owned())))
        .collect();
    let status = attributes.integer("http.response.status_code").map(|status| status.to_string());
    labels.extend(status.map(|status| ("http_response_status_code".to_owned(), status)));
    labels
}

/// PRM-2: an exemplar names a span that was exported.
fn exemplars_lead_to_spans(openmetrics: &str, spans: &[Span]) {
    let exemplars: Vec<_> = openmetrics.lines().filter_map(|line| line.split_once(" # {")).collect();
    assert!(!exemplars.is_empty(), "there are exemplars");
    for (_, exemplar) in exemplars {
        let named =
            |span: &&Span| exemplar.contains(&hex(&span.trace_id)) && exemplar.contains(&hex(&span.span_id));
        assert!(spans.iter().any(|span| named(&span)), "no span for {exemplar}");
    }
}

fn nanos_of(span: &Span) -> u64 {
    span.end_time_unix_nano - span.start_time_unix_nano
}

fn nanoseconds(value: &Value, scale: f64) -> u64 {
    (value.as_f64().expect("a number") * scale).round() as u64
}

/// Sums of the same numbers in another order differ by rounding.
fn assert_close(one: f64, other: f64) {
    assert!((one - other).abs() <= 1e-9 * one.abs().max(1e-3), "{one} and {other}");
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}
