//! CLIENT spans, the metric beside them, and their lines in the access log: one story, told three times.

use std::collections::BTreeMap;
use std::time::Duration;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use serde_json::Value;

use crate::support::car::TestCar;
use crate::support::exports::{Exported, Exports};
use crate::support::origin::{Nowhere, Origin, Peer};
use crate::support::page::Page;
use crate::support::service::{Service, call};
use crate::support::spans::{Attributes, check, check_call};

/// What one call leaves: its span with its attributes.
struct Told {
    exported: Exported,
    attributes: Attributes,
}

impl Told {
    fn text(&self, key: &str) -> Option<&str> {
        self.attributes.text(key)
    }

    /// Name, `error.type`, status code, `server.address`, `server.port`.
    fn row(&self) -> (&str, Option<&str>, Option<i64>, &str, i64) {
        (
            &self.exported.span.name,
            self.text("error.type"),
            self.attributes.integer("http.response.status_code"),
            self.text("server.address").unwrap(),
            self.attributes.integer("server.port").unwrap(),
        )
    }
}

/// Answers by path. `/resent` is answered by the first request of a connection only; on a kept one it is closed.
fn serve(peer: &mut Peer) {
    let mut kept = false;
    while let Some(request) = peer.request() {
        let target = request.head.split(' ').nth(1).unwrap_or_default();
        match target.split('?').next().unwrap_or_default() {
            "/missing" => peer.send("HTTP/1.1 404 Not Found\r\nContent-Length: 4\r\n\r\nwhat"),
            "/busy" => peer.send("HTTP/1.1 503 Service Unavailable\r\nContent-Length: 0\r\n\r\n"),
            "/resent" if kept => return,
            "/silent" => drop(peer.rest()),
            _ => peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        }
        kept = true;
    }
}

#[test]
fn every_kind_of_call_is_told_by_span_metric_and_log() {
    let mut exports = Exports::new();
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let (origin, nowhere, service) = (Origin::new(serve), Nowhere::new(), Service::new());
    let yaml = format!(
        "outbound:\n  proxy: '127.0.0.1:0'\n  url_templates: ['/models/{{id}}', '/base/models/{{id}}']\n\
         \x20 mapped: [ {{ listen: '127.0.0.1:0', to: '{}/base', name: models }} ]\n\
         lineage: {{ process_budget: 0s }}\n\
         access_log: {{ enabled: true, path: '{}' }}\n{}",
        origin.url(),
        log.display(),
        exports.yaml(),
    );
    let car = TestCar::with(&service.url(), &yaml, |_| {});
    let (proxy, address) = (car.proxy(), origin.address);
    let (here, there) = (i64::from(address.port()), i64::from(nowhere.address.port()));
    let call = |url: &str| {
        let answer = call(proxy, url, "User-Agent: client/1\r\n");
        car.record();
        answer
    };
    // In the order of the story.
    call(&format!("http://user:secret@{address}/models/7?token=secret&sig=x"));
    call(&format!("http://{address}/missing"));
    call(&format!("http://{address}/busy"));
    let mut odd = Peer::connect(proxy);
    odd.send(format!("brew http://{address}/models/8 HTTP/1.1\r\nHost: s\r\n\r\n"));
    assert_eq!(odd.response().status(), 200);
    car.record();
    assert_eq!(call(&format!("http://{address}/resent")).status(), 200);
    call(&format!("http://{}/x", nowhere.address));
    call("http://no-such-host.invalid:81/x");
    call("http://127.77.0.1/x");
    call("https://127.77.0.1/x");
    call("http://[::1]:1/x");
    call("http://169.254.169.254/latest");
    let mut mapped = Peer::connect(car.mapped(0));
    mapped.send("GET /models/9 HTTP/1.1\r\nHost: s\r\n\r\n");
    assert_eq!(mapped.response().status(), 200);
    car.record();
    let mut tunnel = Peer::connect(proxy);
    tunnel.send(format!("CONNECT {address} HTTP/1.1\r\nHost: s\r\n\r\n"));
    tunnel.response_head();
    tunnel.send("\0");
    drop(tunnel);
    car.record();
    let page = Page::of(car.bound.admin.unwrap());
    assert_eq!(car.ended().len(), 0);

    let told: Vec<Told> = exports.spans(13).into_iter().map(told).collect();
    let rows: Vec<_> = told.iter().map(Told::row).collect();
    let ip = "127.0.0.1";
    assert_eq!(
        rows,
        [
            ("GET /models/{id}", None, Some(200), ip, here),
            ("GET", Some("404"), Some(404), ip, here),
            ("GET", Some("503"), Some(503), ip, here),
            ("HTTP /models/{id}", None, Some(200), ip, here),
            ("GET", None, Some(200), ip, here),
            ("GET", Some("connection_refused"), None, ip, there),
            ("GET", Some("dns_error"), None, "no-such-host.invalid", 81),
            ("GET", Some("connection_refused"), None, "127.77.0.1", 80),
            ("GET", Some("connection_refused"), None, "127.77.0.1", 443),
            ("GET", told[9].text("error.type"), None, "::1", 1),
            ("GET", Some("rejected"), None, "169.254.169.254", 80),
            ("GET /base/models/{id}", None, Some(200), ip, here),
            ("CONNECT", None, None, ip, here),
        ]
    );
    let url = format!("http://{address}/models/7?token=REDACTED&sig=REDACTED");
    assert_eq!(told[0].text("url.full"), Some(url.as_str()), "SEM-41, SEM-80, SEM-81");
    assert_eq!(told[3].text("http.request.method_original"), Some("brew"), "SEM-24, SEM-90");
    assert_eq!(told[4].attributes.integer("http.request.resend_count"), Some(1), "SEM-45");
    assert!(told[5].attributes.text("network.peer.address").is_none(), "SEM-46: nobody was reached");
    assert_eq!(told[8].text("url.full"), Some("https://127.77.0.1/x"));
    assert_eq!(told[10].text("tracecar.outcome"), Some("rejected"));
    assert_eq!(told[11].text("peer.service"), Some("models"), "SG-5");
    assert_eq!(told[11].text("url.full"), Some(format!("http://{address}/base/models/9").as_str()));
    for (index, told) in told.iter().enumerate() {
        let resent = told.attributes.has("http.request.resend_count");
        assert_eq!(resent, index == 4, "absent on a first try");
        let status = told.exported.span.status.clone().unwrap_or_default();
        let described = told.text("tracecar.outcome") != Some("complete");
        assert_eq!(!status.message.is_empty(), described, "SEM-66: {}", status.message);
    }
    log_agrees(&std::fs::read_to_string(log).unwrap(), &told);
    metrics_agree(&page, &told);
}

fn told(exported: Exported) -> Told {
    assert_eq!(exported.schema, "https://opentelemetry.io/schemas/1.44.0", "SEM-11");
    let attributes = check_call(&exported.span);
    Told { exported, attributes }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn nanoseconds(told: &Told) -> u64 {
    told.exported.span.end_time_unix_nano - told.exported.span.start_time_unix_nano
}

fn log_agrees(text: &str, told: &[Told]) {
    let lines: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    assert_eq!(lines.len(), told.len(), "a line for each");
    for (line, told) in lines.iter().zip(told) {
        assert_eq!(line["side"], "outbound");
        assert_eq!(line["trace_id"], hex(&told.exported.span.trace_id).as_str());
        assert_eq!(line["span_id"], hex(&told.exported.span.span_id).as_str());
        let words = [
            ("error_type", "error.type"),
            ("outcome", "tracecar.outcome"),
            ("fault", "tracecar.fault"),
            ("detail", "tracecar.detail"),
            ("destination", "peer.service"),
            ("route", "url.template"),
            ("lineage", "tracecar.lineage.method"),
        ];
        for (key, attribute) in words {
            let word = line.get(key).map(|value| value.as_str().expect("a string"));
            assert_eq!(word, told.text(attribute), "{key} and {attribute} of {line}");
        }
        let status = line.get("status").map(|status| status.as_i64().unwrap());
        assert_eq!(status, told.attributes.integer("http.response.status_code"), "{line}");
        let shown = (line["duration_ms"].as_f64().unwrap() * 1e6).round() as u64;
        assert_eq!(shown, nanoseconds(told), "SEM-10");
        assert!(!line.to_string().contains("secret"), "{line}");
    }
}

/// MET-2: method, address and port are required; the rest where there is such a thing. Tunnels are left out.
fn metrics_agree(page: &Page, told: &[Told]) {
    let mut expected = BTreeMap::<BTreeMap<String, String>, (f64, f64)>::new();
    for told in told.iter().filter(|told| !told.attributes.has("tracecar.tunnel.unseen")) {
        let mut labels = BTreeMap::new();
        let url = told.text("url.full").unwrap();
        labels.insert("url_scheme".to_owned(), url.split(':').next().unwrap().to_owned());
        for key in [
            "http.request.method",
            "server.address",
            "error.type",
            "network.protocol.version",
            "url.template",
        ] {
            labels.extend(told.text(key).map(|value| (key.replace('.', "_"), value.to_owned())));
        }
        for key in ["server.port", "http.response.status_code"] {
            let number = told.attributes.integer(key);
            labels.extend(number.map(|value| (key.replace('.', "_"), value.to_string())));
        }
        let sum = expected.entry(labels).or_default();
        *sum = (sum.0 + 1.0, sum.1 + nanoseconds(told) as f64 / 1e9);
    }
    let counts: BTreeMap<_, _> = page
        .named("http_client_request_duration_seconds_count")
        .map(|(labels, count)| (labels.clone(), count))
        .collect();
    let wanted: BTreeMap<_, _> = expected.iter().map(|(labels, sum)| (labels.clone(), sum.0)).collect();
    assert_eq!(counts, wanted);
    for (labels, sum) in page.named("http_client_request_duration_seconds_sum") {
        assert!((sum - expected[labels].1).abs() < 1e-6, "SEM-10: {sum} of {labels:?}");
    }
    assert_eq!(page.named("http_server_request_duration_seconds_count").count(), 0);
}

#[test]
fn a_destination_that_says_nothing_in_time_is_a_timeout() {
    let mut exports = Exports::new();
    let origin = Origin::new(serve);
    let yaml = format!("outbound: {{ proxy: '127.0.0.1:0' }}\n{}", exports.yaml());
    let car = TestCar::with("http://127.0.0.1:1", &yaml, |settings| {
        settings.live.timeouts.response_header = Duration::from_millis(50);
    });
    let answer = call(car.proxy(), &format!("{}/silent", origin.url()), "");
    assert_eq!(answer.status(), 504);
    assert!(answer.header("proxy-status").unwrap().contains("error=http_response_timeout"));
    car.ended();
    let told = told(exports.spans(1).remove(0));
    assert_eq!(told.row().1, Some("timeout"));
    assert!(!told.attributes.has("http.response.status_code"), "SEM-44: it was not received");
    assert!(told.attributes.has("network.peer.address"), "SEM-46: but somebody was reached");
}

#[test]
fn a_call_is_the_child_of_the_request_that_caused_it() {
    let mut exports = Exports::new();
    let (origin, service) = (Origin::new(serve), Service::new());
    let yaml = format!(
        "outbound: {{ proxy: '127.0.0.1:0' }}\nlineage: {{ process_budget: 0s }}\n{}",
        exports.yaml()
    );
    let car = TestCar::with(&service.url(), &yaml, |_| {});
    let work = service.work(&car, "/", "");
    let forwarded = work.asked.header("traceparent").unwrap().to_owned();
    call(car.proxy(), &format!("{}/x", origin.url()), "");
    call(car.proxy(), &format!("{}/x", origin.url()), &format!("traceparent: {forwarded}\r\n"));
    // A service with an SDK of its own has spans of its own.
    let (own, foreign) = (&forwarded[..36], "00f067aa0ba902b7");
    call(car.proxy(), &format!("{}/x", origin.url()), &format!("traceparent: {own}{foreign}-03\r\n"));
    work.done();
    car.ended();
    let spans = exports.spans(4);
    let server = spans.iter().find(|exported| exported.span.kind == SpanKind::Server as i32).unwrap();
    check(&server.span);
    let calls: Vec<Told> = spans_of_calls(&spans);
    let expected = [
        ("sole", hex(&server.span.span_id), Some(false)),
        ("header", hex(&server.span.span_id), Some(false)),
        // Whether a span of the service's own is remote is a matter of taste.
        ("header", foreign.to_owned(), None),
    ];
    for (told, (method, parent, remote)) in calls.iter().zip(expected) {
        let span = &told.exported.span;
        assert_eq!(told.text("tracecar.lineage.method"), Some(method));
        assert_eq!((&span.trace_id, hex(&span.parent_span_id)), (&server.span.trace_id, parent));
        assert!(remote.is_none_or(|remote| remote == (span.flags & 0x200 != 0)), "OTLP-43: {method}");
        assert_eq!(span.status.clone().unwrap_or_default().code(), StatusCode::Unset, "SEM-60");
    }
}

fn spans_of_calls(spans: &[Exported]) -> Vec<Told> {
    let calls = spans.iter().filter(|exported| exported.span.kind == SpanKind::Client as i32);
    calls
        .map(|Exported { service, schema, span }| {
            told(Exported { service: service.clone(), schema: schema.clone(), span: span.clone() })
        })
        .collect()
}
