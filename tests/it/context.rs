//! Trace context, correlation ids and exclusion, as the service and the caller see them.

use std::sync::mpsc::{Receiver, channel};

use tracecar::exchange::Outcome;

use crate::support::PATIENCE;
use crate::support::car::TestCar;
use crate::support::origin::{Message, Origin, Peer};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// A service that answers with `response`, and what it is asked.
fn service(response: &'static str) -> (Origin, Receiver<Message>) {
    let (asked, asks) = channel();
    let origin = Origin::new(move |peer| {
        while let Some(request) = peer.request() {
            let _ = asked.send(request);
            peer.send(response);
        }
    });
    (origin, asks)
}

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn ask(car: &TestCar, headers: &str) -> Message {
    let mut caller = Peer::connect(car.address());
    caller.send(format!("GET /items/42?sig=secret HTTP/1.1\r\nHost: shop\r\n{headers}\r\n"));
    caller.response()
}

fn one<'m>(message: &'m Message, name: &'m str) -> &'m str {
    let all: Vec<_> = message.headers(name).collect();
    assert_eq!(all.len(), 1, "exactly one {name}: {all:?}");
    all[0]
}

#[test]
fn a_trace_begins_where_none_came_and_everybody_hears_of_it() {
    let (origin, asks) = service(OK);
    let car = TestCar::before(&origin.url());
    let answer = ask(&car, "");
    let asked = asks.recv_timeout(PATIENCE).unwrap();
    let record = car.record();
    let identity = record.identity;
    let expected = format!("00-{}-{}-03", identity.trace_id, identity.span_id);
    assert_eq!(one(&asked, "traceparent"), expected);
    assert_eq!(identity.parent, None);
    assert_eq!(one(&answer, "server-timing"), format!("trace;desc={expected}"), "CTX-40");
    assert_eq!(answer.header("traceresponse"), None);
    let id = identity.trace_id.to_string();
    assert_eq!((one(&asked, "x-correlation-id"), one(&answer, "x-correlation-id")), (&id[..], &id[..]));
    assert_eq!(record.text(record.correlation), id);
}

#[test]
fn a_trace_that_came_is_continued() {
    let (origin, asks) = service(OK);
    let car = TestCar::before(&origin.url());
    ask(
        &car,
        &format!(
            "traceparent: 00-{TRACE}-b7ad6b7169203331-01\r\ntracestate: a=1\r\ntracestate: b=2\r\nbaggage: k = v;p\r\n"
        ),
    );
    let asked = asks.recv_timeout(PATIENCE).unwrap();
    let record = car.record();
    assert_eq!(one(&asked, "traceparent"), format!("00-{TRACE}-{}-01", record.identity.span_id));
    assert_eq!(one(&asked, "tracestate"), "a=1,b=2", "CTX-20");
    assert_eq!(one(&asked, "baggage"), "k = v;p", "BAG-6");
    assert_eq!(record.identity.parent.unwrap().to_string(), "b7ad6b7169203331");
    assert_eq!(record.text(record.tracestate), "a=1,b=2");
}

#[test]
fn whatever_context_comes_one_valid_traceparent_goes_on_and_no_request_is_refused() {
    let (origin, asks) = service(OK);
    let car = TestCar::before(&origin.url());
    let good = format!("00-{TRACE}-b7ad6b7169203331-01");
    for bad in [
        format!("traceparent: {good}\r\ntraceparent: {good}\r\n"),
        "traceparent: 00-00000000000000000000000000000000-b7ad6b7169203331-01\r\ntracestate: a=1\r\n"
            .to_owned(),
        format!("traceparent: {}\r\n", good.to_uppercase()),
        format!("traceparent: ff{}\r\n", &good[2..]),
        format!("traceparent: {good}-\r\n"),
        "traceparent: \u{e9}\r\ntracestate: \r\nbaggage: ,,,=\r\nx-correlation-id: a b\r\n".to_owned(),
    ] {
        assert_eq!(ask(&car, &bad).status(), 200, "{bad}");
        let asked = asks.recv_timeout(PATIENCE).unwrap();
        let record = car.record();
        let Some(sent) = one(&asked, "traceparent").strip_prefix("00-") else { panic!("version 00") };
        assert!(sent.starts_with(&record.identity.trace_id.to_string()));
        assert!(!sent.starts_with(TRACE), "CTX-7: restarted, {bad}");
        assert_eq!(asked.header("tracestate"), None, "CTX-8");
    }
    assert_eq!(car.stats().malformed_traceparent.value(), 6);
    assert_eq!(car.stats().malformed_correlation.value(), 1);
}

#[test]
fn an_unsampled_trace_stays_unsampled_and_still_goes_on() {
    let (origin, asks) = service(OK);
    let car = TestCar::before(&origin.url());
    ask(&car, &format!("traceparent: 00-{TRACE}-b7ad6b7169203331-02\r\n"));
    assert!(one(&asks.recv_timeout(PATIENCE).unwrap(), "traceparent").ends_with("-02"), "CTX-10, CTX-17");
    assert!(!car.record().identity.sampled());
}

#[test]
fn a_valid_correlation_id_is_never_altered() {
    let (origin, asks) = service(OK);
    let car = TestCar::before(&origin.url());
    let answer = ask(&car, "X-Request-Id: {Req}-1/ä?\r\nX-Request-ID: ok\r\n");
    let asked = asks.recv_timeout(PATIENCE).unwrap();
    assert!(asked.header("x-correlation-id").is_some(), "two values are none: {}", asked.head);
    drop(answer);
    let answer = ask(&car, "X-Request-Id: {Req}-1/=?\r\n");
    let asked = asks.recv_timeout(PATIENCE).unwrap();
    assert_eq!((one(&asked, "x-request-id"), one(&answer, "x-request-id")), ("{Req}-1/=?", "{Req}-1/=?"));
    assert_eq!((asked.header("x-correlation-id"), answer.header("x-correlation-id")), (None, None));
}

#[test]
fn correlation_ids_can_be_uuids_or_off() {
    let (origin, asks) = service(OK);
    let car = TestCar::with(&origin.url(), "propagation: { correlation: { generate: uuidv7 } }", |_| {});
    let answer = ask(&car, "");
    let id = one(&answer, "x-correlation-id").to_owned();
    assert_eq!((id.len(), &id[14..15]), (36, "7"));
    assert_eq!(one(&asks.recv_timeout(PATIENCE).unwrap(), "x-correlation-id"), id);
    let car = TestCar::with(
        &origin.url(),
        "propagation: { correlation: { enabled: false }, server_timing: false, traceresponse: true }",
        |_| {},
    );
    let answer = ask(&car, "");
    assert_eq!((answer.header("x-correlation-id"), answer.header("server-timing")), (None, None));
    assert!(one(&answer, "traceresponse").starts_with("00-"));
}

#[test]
fn a_correlation_id_that_the_service_answers_with_is_left_alone() {
    let (origin, _asks) = service("HTTP/1.1 200 OK\r\nX-Correlation-Id: mine\r\nContent-Length: 0\r\n\r\n");
    let car = TestCar::before(&origin.url());
    assert_eq!(one(&ask(&car, ""), "x-correlation-id"), "mine");
}

#[test]
fn a_server_timing_of_the_service_is_kept_beside_ours() {
    let (origin, _asks) = service("HTTP/1.1 200 OK\r\nServer-Timing: db;dur=5\r\nContent-Length: 0\r\n\r\n");
    let car = TestCar::before(&origin.url());
    let answer = ask(&car, "");
    assert_eq!(answer.headers("server-timing").next(), Some("db;dur=5"));
    assert_eq!(answer.headers("server-timing").count(), 2);
}

#[test]
fn an_excluded_request_passes_untouched_and_leaves_nothing() {
    let (origin, asks) = service(OK);
    let yaml = "exclude: { rules: [ { path: /items/*, user_agent: 'kube-probe/*' } ] }";
    let car = TestCar::with(&origin.url(), yaml, |_| {});
    let answer = ask(&car, "User-Agent: kube-probe/1.31\r\ntraceparent: rubbish\r\n");
    let asked = asks.recv_timeout(PATIENCE).unwrap();
    assert_eq!(one(&asked, "traceparent"), "rubbish");
    assert_eq!((asked.header("x-correlation-id"), answer.header("server-timing")), (None, None));
    ask(&car, "User-Agent: curl/8\r\n");
    let record = car.record();
    let agent = record.request.as_ref().unwrap().user_agent.unwrap();
    assert_eq!(record.text(agent), "curl/8", "only the other one left a record");
    assert_eq!(car.stats().requests_excluded.value(), 1);
}

#[test]
fn an_excluded_request_that_fails_is_recorded_unless_told_otherwise() {
    let (origin, _asks) = service("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n");
    let rules = "rules: [ { path: '/**' } ]";
    let car = TestCar::with(&origin.url(), &format!("exclude: {{ {rules} }}"), |_| {});
    ask(&car, "");
    let record = car.record();
    assert!(record.excluded && record.status == Some(500));
    let car = TestCar::with(&origin.url(), &format!("exclude: {{ keep_failures: false, {rules} }}"), |_| {});
    ask(&car, "");
    assert_eq!(car.ended().len(), 0);
}

#[test]
fn the_record_says_what_was_asked() {
    let (origin, _asks) = service(OK);
    let yaml = "routes: [ '/items/{id}' ]\nclient: { trusted_proxies: [ 127.0.0.0/8 ] }";
    let car = TestCar::with(&origin.url(), yaml, |_| {});
    ask(
        &car,
        "X-Forwarded-For: 203.0.113.9\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: shop.example:444\r\n",
    );
    let record = car.record();
    let request = record.request.as_ref().unwrap();
    assert_eq!(request.route.as_deref(), Some("/items/{id}"));
    assert_eq!(record.text(request.path), "/items/42");
    assert_eq!(record.text(request.query.unwrap()), "sig=REDACTED");
    assert_eq!((request.scheme, record.text(request.authority)), ("https", "shop.example:444"));
    assert_eq!(request.client.to_string(), "203.0.113.9");
    assert!(record.peer.unwrap().ip().is_loopback(), "SEM-31: never from a header");
    assert_eq!(record.outcome, Outcome::Complete);
}

#[test]
fn debugging_goes_on_to_the_service_with_or_without_ids() {
    let (origin, asks) = service(OK);
    let car = TestCar::with(&origin.url(), "propagation: { formats: [b3] }", |_| {});
    for sent in [format!("{TRACE}-b7ad6b7169203331-d"), "d".to_owned()] {
        ask(&car, &format!("b3: {sent}\r\n"));
        let asked = asks.recv_timeout(PATIENCE).unwrap();
        let identity = car.record().identity;
        assert_eq!(one(&asked, "b3"), format!("{}-{}-d", identity.trace_id, identity.span_id), "B3-4");
    }
    let never = "propagation: { formats: [b3] }\nsampling: { sampler: always_off }";
    let car = TestCar::with(&origin.url(), never, |_| {});
    ask(&car, "b3: d\r\n");
    assert!(one(&asks.recv_timeout(PATIENCE).unwrap(), "b3").ends_with("-0"), "a sampler that asks nobody");
}

#[test]
fn a_load_balancers_trace_gets_its_first_span_from_us() {
    let (origin, asks) = service(OK);
    let car = TestCar::with(&origin.url(), "propagation: { formats: [xray] }", |_| {});
    ask(&car, "X-Amzn-Trace-Id: Self=1-2;Root=1-0af76519-16cd43dd8448eb211c80319c\r\n");
    let asked = asks.recv_timeout(PATIENCE).unwrap();
    let identity = car.record().identity;
    assert_eq!((identity.trace_id.to_string().as_str(), identity.parent), (TRACE, None), "XR-1");
    let expected =
        format!("Self=1-2;Root=1-0af76519-16cd43dd8448eb211c80319c;Parent={};Sampled=1", identity.span_id);
    assert_eq!(one(&asked, "x-amzn-trace-id"), expected);
}

#[test]
fn what_cannot_be_read_is_counted_by_its_header() {
    let (origin, _asks) = service(OK);
    let formats = "propagation: { formats: [b3, jaeger, xray, datadog, sentry-trace] }";
    let car = TestCar::with(&origin.url(), formats, |_| {});
    let malformed = || -> Vec<_> {
        let rows = car.stats().rows().into_iter().filter(|row| row.name == "tracecar_malformed_headers");
        rows.filter(|row| row.value > 0).map(|row| (row.label.unwrap().1.into_owned(), row.value)).collect()
    };
    let mut counted = Vec::new();
    for (header, label) in [
        ("b3", "b3"),
        ("x-b3-traceid", "x-b3"),
        ("uber-trace-id", "uber-trace-id"),
        ("x-amzn-trace-id", "x-amzn-trace-id"),
        ("x-datadog-trace-id", "x-datadog"),
        ("sentry-trace", "sentry-trace"),
    ] {
        assert_eq!(ask(&car, &format!("{header}: nonsense\r\n")).status(), 200);
        counted.push((label.to_owned(), 1));
        assert_eq!(malformed(), counted, "{header}");
    }
}

#[test]
fn none_passes_every_header_as_it_is() {
    let (origin, asks) = service(OK);
    let car = TestCar::with(&origin.url(), "propagation: { formats: [none] }", |_| {});
    ask(&car, "traceparent: nonsense\r\nb3: 0\r\n");
    let asked = asks.recv_timeout(PATIENCE).unwrap();
    assert_eq!((one(&asked, "traceparent"), one(&asked, "b3")), ("nonsense", "0"));
}
