use std::collections::BTreeSet;

use http::Method;

use super::*;
use crate::exchange::{sample, sample_call};
use crate::stats::Kind;

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
        row("tracecar_a", Kind::Counter, Some(("reason", "x".into())), 1),
        row("tracecar_b", Kind::Gauge, None, 2),
        row("tracecar_a", Kind::Counter, Some(("reason", "y".into())), 4),
        row("tracecar_a", Kind::Counter, Some(("reason", "x".into())), 8),
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
    let page = counted([changed(|record| record.identity.flags = 2)]).render(Exposition::OpenMetrics, &[]);
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
        page.contains("tracecar_metric_overflow_total{metric=\"http_server_request_duration_seconds\"} 3\n")
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
fn a_call_is_one_observation_of_its_destination() {
    let metrics = Metrics::new(&service());
    let mut sink = metrics.sink();
    let mut tunnel = sample_call();
    tunnel.tunnel = Some(crate::exchange::Tunneled::Connect);
    for record in [sample_call(), tunnel] {
        sink.record(&Arc::new(record));
    }
    let page = metrics.render(Exposition::Text, &[]);
    let labels = "http_request_method=\"GET\",url_scheme=\"https\",url_template=\"/items/{id}\",\
                  http_response_status_code=\"404\",error_type=\"404\",network_protocol_version=\"1.1\",\
                  server_address=\"stock.example\",server_port=\"443\"";
    let line = format!("http_client_request_duration_seconds_count{{{labels}}} 1\n");
    assert!(page.contains(&line), "a tunnel is none: {page}");
    assert!(page.contains("tracecar_lineage_calls_total{method=\"token\"} 2\n"), "{page}");
    assert!(!page.contains("http_server_request_duration_seconds_count"), "{page}");
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
            assert!(open && rest == format!("{family} seconds") && family.ends_with("_seconds"), "{line}");
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
                let upper = labels.iter().find(|(key, _)| key == "le").expect("le").1.replace("+Inf", "inf");
                let upper: f64 = upper.parse().unwrap();
                let others =
                    format!("{family}{:?}", labels.iter().filter(|(key, _)| key != "le").collect::<Vec<_>>());
                let lower = if bucket.0 == others { bucket.1 } else { f64::NEG_INFINITY };
                assert!(lower < upper && (bucket.0 != others || bucket.2 <= value as u64), "{line}");
                assert!(bucket.0 == others || bucket.1.is_infinite() || bucket.0.is_empty(), "no +Inf");
                if let Some(exemplar) = exemplar {
                    let (_, labels, rest) = sample_parts(exemplar);
                    let (seen, at) = rest.split_once(' ').expect("value and time");
                    let seen: f64 = seen.parse().unwrap();
                    assert!(open && seen > lower && seen <= upper, "{line}");
                    assert!(at.parse::<f64>().unwrap() >= 0.0);
                    assert!(labels.iter().map(|(key, value)| key.len() + value.len()).sum::<usize>() <= 128);
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
