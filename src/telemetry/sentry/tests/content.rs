use std::collections::BTreeSet;

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::exchange::{Evidence, HeaderCopy, Side};
use crate::telemetry::sentry::{event, transaction};

fn scope() -> Scope {
    Receiver::new(&settings(([127, 0, 0, 1], 9).into()), &service()).unwrap().scope
}

fn event_of(failure: &Failure) -> Value {
    let event = event::of_failure(failure, &failure.fingerprint("shop"), 0, &scope());
    serde_json::from_slice(&event::json(&event).unwrap()).unwrap()
}

fn transaction_of(record: &Record, calls: &[Arc<Record>]) -> Value {
    let (_, json) = transaction::json(record, calls, &scope()).unwrap();
    serde_json::from_slice(&json).unwrap()
}

fn evidence(
    request: &[(&'static str, &'static str)],
    response: &[(&'static str, &'static str)],
) -> Box<Evidence> {
    let copy = |list: &[(&'static str, &'static str)]| {
        let map: HeaderMap = list
            .iter()
            .map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)))
            .collect();
        HeaderCopy::of(&map, 8000)
    };
    Box::new(Evidence {
        request_headers: copy(request),
        response_headers: copy(response),
        ..Evidence::default()
    })
}

fn caused() -> Failure {
    let frame = |function: &str, line, in_app| StackFrame {
        file: "/app/shop/orders.py".into(),
        line: Some(line),
        function: Some(function.into()),
        code: Some("charge(api_key=\"hush\")".into()),
        in_app,
    };
    let cause = Cause {
        kind: Some("ValueError".into()),
        message: Some("bad quantity".into()),
        frames: vec![frame("handle", 3, false), frame("order", 42, true)],
        source: "django",
    };
    Failure {
        cause: Some(cause),
        class: "ValueError".into(),
        message: "bad quantity".into(),
        ..failure(failed())
    }
}

/// How Sentry and bugsink make a title: bugsink's `get_title_for_exception_type_and_value`.
fn title(event: &Value) -> String {
    let exception = &event["exception"]["values"][0];
    let part = |name: &str| exception[name].as_str().unwrap().lines().next().unwrap().to_owned();
    format!("{}: {}", part("type"), part("value"))
}

#[test]
fn the_title_names_the_exception_else_the_place() {
    assert_eq!(title(&event_of(&caused())), "ValueError: bad quantity");
    assert_eq!(title(&event_of(&failure(failed()))), "GET /items/{id}: 500 Internal Server Error");
    let silent = Failure { message: String::new(), ..failure(failed()) };
    assert_eq!(title(&event_of(&silent)), "GET /items/{id}: 500");
}

#[test]
fn an_event_says_all_that_it_should() {
    let mut record = failed();
    record.identity.parent = Some(opentelemetry::trace::SpanId::from_bytes([0xee; 8]));
    let said = evidence(
        &[
            ("accept", "*/*"),
            ("authorization", "Bearer hush"),
            ("cookie", "sid=hush"),
            ("x-real-ip", "203.0.113.9"),
        ],
        &[("content-type", "text/html"), ("set-cookie", "sid=hush; Path=/")],
    );
    let event = event_of(&Failure { record: Arc::new(record), evidence: Some(said), ..caused() });
    let id = event["event_id"].as_str().unwrap();
    assert!(id.len() == 32 && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f')), "{id}");
    let expected = json!({
        "platform": "other",
        "level": "error",
        // The end of the exchange: it began at 1 800 000 000 and took 5 ms.
        "timestamp": 1_800_000_000.005_f64,
        "logger": "tracecar",
        "transaction": "GET /items/{id}",
        "server_name": "pod-7",
        "release": "shop@1.2",
        "environment": "staging",
        "fingerprint": ["shop", "GET /items/{id}", "500", "ValueError", "500 Internal Server Error"],
        "sdk": {"name": "tracecar", "version": env!("CARGO_PKG_VERSION")},
        "tags": {
            "service": "shop", "side": "inbound", "outcome": "complete", "fault": "upstream", "status": "500",
            "correlation": "abc-1", "method": "GET", "route": "/items/{id}", "category": "service",
        },
        "exception": {"values": [{
            "type": "ValueError",
            "value": "bad quantity",
            "mechanism": {"type": "auto.http.tracecar", "handled": false},
            "stacktrace": {"frames": [
                {"filename": "/app/shop/orders.py", "function": "handle", "lineno": 3, "in_app": false,
                 "context_line": "charge(api_key=\"[Filtered]\")"},
                {"filename": "/app/shop/orders.py", "function": "order", "lineno": 42, "in_app": true,
                 "context_line": "charge(api_key=\"[Filtered]\")"},
            ]},
        }]},
        "request": {
            "url": "http://shop.example:8080/items/42",
            "query_string": "sig=REDACTED",
            "method": "GET",
            "cookies": "sid=[Filtered]",
            "headers": {"accept": "*/*", "authorization": "[Filtered]", "x-real-ip": "[Filtered]"},
        },
    });
    for (name, value) in expected.as_object().unwrap() {
        assert_eq!(&event[name], value, "{name}");
    }
    let trace = &event["contexts"]["trace"];
    assert_eq!(trace["trace_id"], "ab".repeat(16));
    assert_eq!(trace["span_id"], "cd".repeat(8));
    assert_eq!(trace["parent_span_id"], "ee".repeat(8));
    assert_eq!(
        [&trace["op"], &trace["status"], &trace["origin"]],
        ["http.server", "internal_error", "auto.http.tracecar"]
    );
    assert_eq!(trace["data"]["http.route"], "/items/{id}");
    let response = &event["contexts"]["response"];
    assert_eq!((&response["status_code"], &response["body_size"]), (&json!(500), &json!(198)));
    assert_eq!(
        response["headers"],
        json!({"content-type": "text/html", "set-cookie": "sid=[Filtered]; Path=/"})
    );
    let particulars = &event["contexts"]["tracecar"];
    assert_eq!((&particulars["total_ms"], &particulars["first_byte_ms"]), (&json!(5.0), &json!(4.0)));
    let all = event.to_string();
    assert!(!all.contains("hush"), "no secret is sent");
    assert!(!all.contains("203.0.113"), "no address of a caller is sent (SEN-50)");
}

#[test]
fn a_call_that_failed_is_an_outgoing_request() {
    let mut record = sample_call();
    (record.status, record.outcome) = (None, Outcome::UpstreamRefused);
    let event = event_of(&failure(record));
    assert_eq!(event["contexts"]["trace"]["op"], "http.client");
    assert_eq!(event["contexts"]["outgoing_request"]["url"], "https://stock.example/items/42");
    assert_eq!(event["tags"]["destination"], "stock");
    assert!(event.get("request").is_none(), "that is for requests that came in (SEN-24)");
    assert!(event["contexts"].get("response").is_none(), "there was none");
}

#[test]
fn a_grpc_status_is_a_tag() {
    let mut record = sample();
    record.grpc_status = Some(14);
    let event = event_of(&failure(record));
    assert_eq!(event["tags"]["grpc_status"], "UNAVAILABLE");
    assert_eq!(event["contexts"]["trace"]["status"], "unavailable");
}

#[test]
fn calls_are_breadcrumbs_and_the_one_that_failed_is_the_destination() {
    let call = |millis, status: Option<u16>| {
        let mut call = sample_call();
        call.started_at += Duration::from_millis(millis);
        call.status = status;
        if status.is_none() {
            call.outcome = Outcome::UpstreamReset;
            call.detail = call.put("reset; token=hush");
        }
        Arc::new(call)
    };
    let calls = vec![call(20, None), call(0, Some(200)), call(10, Some(404)), call(30, Some(503))];
    let failure = Failure { calls, category: Category::Dependency, ..failure(failed()) };
    let event = event_of(&failure);
    let crumbs = event["breadcrumbs"]["values"].as_array().unwrap();
    let level = |crumb: &Value| {
        crumb.get("level").map_or("info".to_owned(), |level| level.as_str().unwrap().to_owned())
    };
    assert_eq!(crumbs.iter().map(level).collect::<Vec<_>>(), ["info", "warning", "error", "error"]);
    let times: Vec<_> = crumbs.iter().map(|crumb| crumb["timestamp"].as_f64().unwrap()).collect();
    assert!(times.is_sorted(), "{times:?}");
    assert_eq!((&crumbs[0]["type"], &crumbs[0]["category"]), (&json!("http"), &json!("http")));
    let data = &crumbs[0]["data"];
    assert_eq!(data["url"], "https://stock.example/items/42");
    assert_eq!(data["http.request.method"], "GET");
    assert_eq!(data["http.response.status_code"], 200);
    assert_eq!(data["http.query"], "sig=REDACTED");
    assert_eq!(data["http.response.body.size"], 198);
    assert_eq!(crumbs[2]["message"], "reset; token=[Filtered]");
    assert_eq!(event["tags"]["destination"], "stock");
}

#[test]
fn an_event_keeps_sentrys_limits() {
    let long = "x y ".repeat(10_000);
    let mut failure = caused();
    let frame = failure.cause.as_ref().unwrap().frames[1].clone();
    failure.cause.as_mut().unwrap().frames =
        (0..80).map(|line| StackFrame { line: Some(line), ..frame.clone() }).collect();
    failure.message = long.clone();
    failure.place = long.clone();
    let mut record = failed();
    record.correlation = record.put(&long);
    record.detail = record.put(&long);
    let text = record.put(&long);
    let request = record.request.as_mut().unwrap();
    (request.path, request.query) = (text, Some(text));
    failure.record = Arc::new(record);
    failure.calls = (0..300).map(|_| Arc::new(sample_call())).collect();
    let event = event_of(&failure);
    let characters = |value: &Value| value.as_str().unwrap().chars().count();
    assert!(event["tags"].as_object().unwrap().values().all(|tag| characters(tag) <= 200));
    assert_eq!(characters(&event["exception"]["values"][0]["value"]), 8192);
    let frames = event["exception"]["values"][0]["stacktrace"]["frames"].as_array().unwrap();
    assert_eq!((frames.len(), &frames[49]["lineno"]), (50, &json!(79)), "the innermost are kept");
    assert_eq!(event["breadcrumbs"]["values"].as_array().unwrap().len(), 100);
    for context in event["contexts"].as_object().unwrap().values() {
        assert!(context.to_string().len() <= 8000, "{context}");
    }
}

#[test]
fn a_notice_is_an_event_with_a_title_and_a_trace() {
    let began_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let notice = Notice {
        title: "shop does not answer".into(),
        level: Severity::Fatal,
        group: vec!["shop".into(), "outage".into()],
        began_at,
        ended_at: Some(began_at + Duration::from_secs(90)),
        details: [("failures".to_owned(), "12".to_owned()), ("said".to_owned(), "password=hush".to_owned())]
            .into(),
        tags: [("outage".to_owned(), "yes".to_owned())].into(),
        trace: None,
    };
    let of = |notice: &Notice| -> Value {
        serde_json::from_slice(&event::json(&event::of_notice(notice, 3, &scope())).unwrap()).unwrap()
    };
    let event = of(&notice);
    assert_eq!(event["logentry"]["message"], "shop does not answer");
    assert_eq!((&event["level"], &event["timestamp"]), (&json!("fatal"), &json!(1_800_000_090)));
    assert_eq!(event["fingerprint"], json!(["shop", "outage"]));
    assert_eq!(event["tags"], json!({"service": "shop", "outage": "yes"}));
    assert_eq!(event["extra"]["tracecar.not_sent_before"], 3);
    let details = &event["contexts"]["tracecar"];
    assert_eq!((&details["failures"], &details["said"]), (&json!("12"), &json!("password=[Filtered]")));
    assert_eq!(details["began_at"], "2027-01-15T08:00:00.000Z");
    assert_eq!(event["contexts"]["trace"]["trace_id"].as_str().unwrap().len(), 32, "each has one (SEN-22)");
    let within = of(&Notice { trace: Some(sample().identity), ..notice });
    assert_eq!(within["contexts"]["trace"]["trace_id"], "ab".repeat(16));
}

/// What SEN-4, SEN-20 and SEN-30 ask of a transaction, beside what a single test looks at.
fn valid_transaction(sent: &Value) -> Result<(), String> {
    let check = |is: bool, what: &str| if is { Ok(()) } else { Err(format!("{what}: {sent}")) };
    let hex = |value: &Value, length: usize| {
        value.as_str().is_some_and(|id| {
            id.len() == length
                && id.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
                && id.bytes().any(|byte| byte != b'0')
        })
    };
    check(sent["type"] == "transaction", "type")?;
    check(hex(&sent["event_id"], 32), "event_id")?;
    check(sent["platform"] == "other", "platform")?;
    check(
        sent["transaction"].as_str().is_some_and(|name| !name.is_empty() && name.chars().count() <= 200),
        "name",
    )?;
    check(
        ["route", "url", "custom"].map(|source| json!(source)).contains(&sent["transaction_info"]["source"]),
        "source",
    )?;
    let status: BTreeSet<&str> = [
        "ok",
        "cancelled",
        "unknown_error",
        "invalid_argument",
        "deadline_exceeded",
        "not_found",
        "already_exists",
        "permission_denied",
        "resource_exhausted",
        "failed_precondition",
        "aborted",
        "out_of_range",
        "unimplemented",
        "internal_error",
        "unavailable",
        "data_loss",
        "unauthenticated",
    ]
    .into();
    let known = |value: &Value| value.as_str().is_some_and(|word| status.contains(word));
    let trace = &sent["contexts"]["trace"];
    check(hex(&trace["trace_id"], 32) && hex(&trace["span_id"], 16), "ids of the trace")?;
    check(known(&trace["status"]) && trace["op"] == "http.server", "status and op")?;
    let (start, end) = (micros(&sent["start_timestamp"]), micros(&sent["timestamp"]));
    check(start <= end, "it ends before it begins")?;
    let spans = sent["spans"].as_array().ok_or("no spans")?;
    check(spans.len() <= 1000, "too many spans")?;
    for span in spans {
        check(span["trace_id"] == trace["trace_id"], "a span of another trace")?;
        check(hex(&span["span_id"], 16) && hex(&span["parent_span_id"], 16), "ids of a span")?;
        check(span["span_id"] != span["parent_span_id"], "a span that is its own parent")?;
        check(
            micros(&span["start_timestamp"]) <= micros(&span["timestamp"]),
            "a span ends before it begins",
        )?;
        check(known(&span["status"]) && span["op"] == "http.client", "status and op of a span")?;
    }
    Ok(())
}

/// A time in microseconds, as Sentry reads both of its ways to write one.
fn micros(value: &Value) -> u128 {
    if let Some(seconds) = value.as_f64() {
        return (seconds * 1e6).round() as u128;
    }
    let text = value.as_str().expect("a number or a text");
    let (whole, fraction) =
        text.trim_end_matches('Z').split_once('.').unwrap_or((text.trim_end_matches('Z'), "0"));
    let fraction: u128 = format!("{fraction:0<6}")[..6].parse().unwrap();
    let date = seconds_of(whole);
    date * 1_000_000 + fraction
}

/// Seconds since 1970 of `2027-01-15T08:00:00`.
fn seconds_of(text: &str) -> u128 {
    let number = |range: std::ops::Range<usize>| text[range].parse::<i64>().unwrap();
    let (year, month, day) = (number(0..4), number(5..7), number(8..10));
    // The days of the civil calendar, by Howard Hinnant's count.
    let shifted = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (shifted.div_euclid(400), shifted.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let days = era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468;
    (days * 86_400 + number(11..13) * 3600 + number(14..16) * 60 + number(17..19)) as u128
}

#[test]
fn a_transaction_is_a_request_with_its_calls_as_spans() {
    let mut call = sample_call();
    call.identity.parent = Some(sample().identity.span_id);
    call.identity.span_id = opentelemetry::trace::SpanId::from_bytes([0x11; 8]);
    let mut elsewhere = call.clone();
    elsewhere.identity.trace_id = opentelemetry::trace::TraceId::from_bytes([0x22; 16]);
    let sent = transaction_of(&sample(), &[Arc::new(call), Arc::new(elsewhere)]);
    valid_transaction(&sent).unwrap();
    assert_eq!(sent["transaction"], "GET /items/{id}");
    assert_eq!(sent["transaction_info"]["source"], "route");
    assert_eq!(sent["environment"], "staging");
    assert_eq!(sent["contexts"]["trace"]["status"], "ok");
    let [span] = &sent["spans"].as_array().unwrap()[..] else { panic!("one span is of this trace") };
    assert_eq!(span["description"], "GET https://stock.example/items/{id}");
    assert_eq!(span["parent_span_id"], "cd".repeat(8));
    assert_eq!(
        (&span["status"], &span["data"]["http.response.status_code"]),
        (&json!("not_found"), &json!(404))
    );
}

#[test]
fn a_name_that_is_no_template_says_so() {
    let mut record = sample();
    record.request.as_mut().unwrap().route = None;
    let sent = transaction_of(&record, &[]);
    assert_eq!(
        (&sent["transaction"], &sent["transaction_info"]["source"]),
        (&json!("GET /items/{id}"), &json!("custom"))
    );
    valid_transaction(&sent).unwrap();
    (record.request, record.outcome) = (None, Outcome::MalformedRequest);
    valid_transaction(&transaction_of(&record, &[])).unwrap();
}

#[test]
fn secrets_in_paths_and_ids_are_not_sent() {
    let mut record = failed();
    record.correlation = record.put("Bearer hush");
    let path = record.put("/reset/s3cr3thush/x");
    let authority = record.put("bob:hush@shop.example");
    let request = record.request.as_mut().unwrap();
    (request.path, request.authority, request.route) = (path, authority, None);
    let mut call = record.clone();
    call.side = Side::Outbound;
    let outgoing = event_of(&failure(call.clone()));
    assert_eq!(
        outgoing["contexts"]["outgoing_request"]["url"],
        "http://[Filtered]@shop.example/reset/[Filtered]/x"
    );
    let inbound = Failure { calls: vec![Arc::new(call.clone())], ..failure(record.clone()) };
    let sent = [outgoing, event_of(&inbound), transaction_of(&record, &[Arc::new(call)])];
    assert_eq!(sent[2]["transaction"], "GET /reset/[Filtered]/x");
    for sent in sent {
        assert!(!sent.to_string().contains("hush"), "{sent}");
    }
}

#[test]
fn only_who_begins_a_trace_says_how_it_was_sampled() {
    let header = |record: &Record| {
        transaction::beginning(record, &scope()).map(|trace| serde_json::to_value(trace).unwrap())
    };
    let said = header(&sample()).unwrap();
    let id = sample().identity.trace_id;
    assert_eq!(said["trace_id"], id.to_string());
    assert_eq!(
        (&said["public_key"], &said["environment"], &said["release"]),
        (&json!("abc"), &json!("staging"), &json!("shop@1.2"))
    );
    assert_eq!((&said["sampled"], &said["transaction"]), (&json!("true"), &json!("GET /items/{id}")));
    assert_eq!(said["sample_rand"], format!("{:.6}", transaction::sample_rand(id)));
    let mut record = sample();
    record.request.as_mut().unwrap().route = None;
    assert_eq!(header(&record).unwrap().get("transaction"), None, "a URL is no name (SEN-42)");
    record.identity.parent = Some(record.identity.span_id);
    assert_eq!(header(&record), None, "another began it (SEN-41)");
}

proptest! {
    #[test]
    fn a_trace_is_kept_where_opentelemetry_keeps_it(low in any::<u64>(), rate in 0..=100_u32) {
        let rate = f64::from(rate) / 100.0;
        let id = opentelemetry::trace::TraceId::from((7_u128 << 64) | u128::from(low));
        let rand = transaction::sample_rand(id);
        prop_assert!((0.0..1.0).contains(&rand));
        prop_assert_eq!((rand * 1e6).round() / 1e6, rand, "six decimals");
        let sampler = crate::exchange::Sampler { parent_based: false, root: crate::exchange::Root::Ratio(rate) };
        // But for the millionth at the edge, which six decimals cannot tell.
        if (rand - rate).abs() > 2e-6 {
            prop_assert_eq!(rand < rate, sampler.samples(id, None));
        }
    }

    #[test]
    fn any_record_makes_a_valid_transaction(
        start in 0..4_000_000_000_000_000_000_u64, nanos in prop_oneof![0..2000_u64, 0..10_000_000_000_u64], status in proptest::option::of(100..1000_u16),
        grpc in proptest::option::of(any::<u8>()), outcome in 0..Outcome::ALL.len(), path in "\\PC{0,300}",
    ) {
        let mut record = sample();
        record.started_at = SystemTime::UNIX_EPOCH + Duration::from_nanos(start);
        record.timings.total = Duration::from_nanos(nanos);
        (record.status, record.grpc_status, record.outcome) = (status, grpc, Outcome::ALL[outcome]);
        let text = record.put(&path);
        let request = record.request.as_mut().unwrap();
        (request.path, request.route) = (text, None);
        let mut call = record.clone();
        call.side = Side::Outbound;
        call.identity.parent = Some(record.identity.span_id);
        call.identity.span_id = opentelemetry::trace::SpanId::from_bytes([0x11; 8]);
        let sent = transaction_of(&record, &[Arc::new(call.clone())]);
        prop_assert_eq!(valid_transaction(&sent), Ok(()));
        let failure = Failure { calls: vec![Arc::new(call)], place: path, ..failure(record) };
        prop_assert!(event_of(&failure)["event_id"].is_string());
    }
}
