//! The trace that a call goes on with: what the service forwards, what is found for one that forwards nothing, and what
//! a destination gets to see of it.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use tracecar::exchange::{Record, Side};

use super::OK;
use crate::support::PATIENCE;
use crate::support::car::TestCar;
use crate::support::origin::{Message, Origin, Peer};
use crate::support::service::{Service, call, destination};

const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
const PARENT: &str = "b7ad6b7169203331";

/// Every header of trace context and baggage that any format knows.
const CONTEXT: &str = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\ntracestate: a=1\r\n\
                       baggage: a=1\r\nb3: 0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1\r\n\
                       x-b3-traceid: 0af7651916cd43dd8448eb211c80319c\r\nx-b3-spanid: b7ad6b7169203331\r\n\
                       x-b3-sampled: 1\r\nuber-trace-id: 0af7651916cd43dd8448eb211c80319c:b7ad6b7169203331:0:1\r\n\
                       uberctx-a: 1\r\nx-amzn-trace-id: Root=1-0af76519-16cd43dd8448eb211c80319c\r\n\
                       x-datadog-trace-id: 1\r\nx-datadog-parent-id: 2\r\nx-datadog-sampling-priority: 1\r\n\
                       sentry-trace: 0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-1\r\n";

/// A service that forwards nothing, its sidecar, and a destination.
struct Scene {
    service: Service,
    origin: Origin,
    asked: Receiver<Message>,
    car: TestCar,
}

impl Scene {
    /// `yaml` is what the way out has beside its proxy, then whole sections. `HOST` in it is the destination.
    fn new(outbound: &str, sections: &str) -> Self {
        let service = Service::new();
        let (origin, asked) = destination(OK);
        let outbound = outbound.replace("HOST", &origin.address.to_string());
        let yaml = format!(
            "outbound: {{ proxy: '127.0.0.1:0' {outbound} }}\nlineage: {{ process_budget: 0s }}\n{sections}"
        );
        let car = TestCar::with(&service.url(), &yaml, |_| {});
        Self { service, origin, asked, car }
    }

    /// A call to the destination, as it arrives there.
    fn call(&self, headers: &str) -> Message {
        self.call_for("/x", headers)
    }

    fn call_for(&self, target: &str, headers: &str) -> Message {
        assert_eq!(call(self.car.proxy(), &format!("{}{target}", self.origin.url()), headers).status(), 200);
        self.asked.recv_timeout(PATIENCE).unwrap()
    }
}

fn method(record: &Record) -> (&'static str, bool) {
    let ancestry = record.ancestry.expect("it was looked for");
    (ancestry.method, ancestry.confidence > 0.0)
}

/// What the destination was told of the record's span.
fn assert_told(asked: &Message, record: &Record) {
    let identity = record.identity;
    let expected = format!("00-{}-{}-{:02x}", identity.trace_id, identity.span_id, identity.flags);
    assert_eq!(asked.headers("traceparent").collect::<Vec<_>>(), [expected]);
}

#[test]
fn a_forwarded_context_is_believed() {
    let scene = Scene::new("", "");
    let work = scene.service.work(&scene.car, "/", "tracestate: a=1\r\n");
    let forwarded = work.asked.header("traceparent").unwrap().to_owned();
    let asked = scene.call(&format!("traceparent: {forwarded}\r\ntracestate: b=2\r\nbaggage: k=v\r\n"));
    let called = scene.car.record();
    work.done();
    let served = scene.car.record();
    assert_eq!((called.side, served.side), (Side::Outbound, Side::Inbound));
    assert_told(&asked, &called);
    assert_eq!((asked.header("tracestate"), asked.header("baggage")), (Some("b=2"), Some("k=v")));
    assert_eq!(called.identity.trace_id, served.identity.trace_id);
    assert_eq!((called.identity.parent, called.identity.remote), (Some(served.identity.span_id), false));
    assert_eq!(method(&called), ("header", true));

    // Of a trace that we know nothing of, and while another request is open: still the service's word.
    let work = scene.service.work(&scene.car, "/", "");
    scene.call(&format!("traceparent: 00-{TRACE}-{PARENT}-01\r\n"));
    let called = scene.car.record();
    assert_eq!(called.identity.trace_id.to_string(), TRACE);
    assert_eq!(
        (called.identity.parent.unwrap().to_string().as_str(), called.identity.remote),
        (PARENT, true)
    );
    work.done();
}

#[test]
fn a_call_of_the_only_open_request_is_its_child_and_carries_its_ids() {
    let scene = Scene::new("", "");
    let context = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: a=1\r\nX-Request-Id: r-1\r\n");
    let work = scene.service.work(&scene.car, "/", &context);
    let asked = scene.call("");
    let called = scene.car.record();
    assert_told(&asked, &called);
    assert_eq!(asked.header("tracestate"), Some("a=1"), "it belongs to the trace");
    assert_eq!(asked.header("x-correlation-id"), Some("r-1"), "the correlation id of the parent");
    assert_eq!(called.text(called.correlation), "r-1");
    work.done();
    let served = scene.car.record();
    assert_eq!(called.identity.trace_id.to_string(), TRACE);
    assert_eq!((called.identity.parent, called.identity.remote), (Some(served.identity.span_id), false));
    assert_eq!(method(&called), ("sole", true));
    assert!(called.links.is_empty());
}

#[test]
fn a_value_that_only_one_open_request_has_names_it() {
    let scene = Scene::new("", "");
    let ids = ["6b1f8c1e-2d7a-4b0f-9c3e-1a2b3c4d5e6f", "f2d9a7c4-8e3b-4f6a-b1c0-9d8e7f6a5b4c"];
    let works = ids.map(|id| scene.service.work(&scene.car, &format!("/orders/{id}"), ""));
    let parents = works.each_ref().map(|work| work.asked.header("traceparent").unwrap()[3..35].to_owned());
    for (id, parent) in ids.iter().zip(&parents) {
        let asked = scene.call_for(&format!("/stock?order={id}"), "");
        assert_eq!(&asked.header("traceparent").unwrap()[3..35], parent);
        let called = scene.car.record();
        assert_eq!(method(&called), ("token", true));
        assert!(called.identity.parent.is_some());
    }
    // So does a correlation id that the service forwards.
    let correlation = works[1].asked.header("x-correlation-id").unwrap().to_owned();
    let asked = scene.call(&format!("X-Correlation-Id: {correlation}\r\n"));
    assert_eq!(asked.header("traceparent").unwrap()[3..35], parents[1]);
    assert_eq!(asked.headers("x-correlation-id").collect::<Vec<_>>(), [correlation]);
    assert_eq!(method(&scene.car.record()), ("correlation", true));
    works.into_iter().for_each(|work| drop(work.done()));
}

#[test]
fn a_call_that_may_be_of_several_begins_a_trace_that_is_linked_to_them() {
    let scene = Scene::new("", "");
    let works: Vec<_> = (0..5).map(|_| scene.service.work(&scene.car, "/", "")).collect();
    let asked = scene.call("");
    let called = scene.car.record();
    assert_told(&asked, &called);
    assert_eq!((called.identity.parent, method(&called)), (None, ("none", false)));
    assert_eq!(called.ancestry.unwrap().candidates, 5);
    assert_eq!(called.links.len(), 3);
    let open: Vec<_> = works.iter().map(|work| &work.asked.header("traceparent").unwrap()[3..52]).collect();
    for link in &called.links {
        let named = format!("{}-{}", link.trace_id, link.span_id);
        assert!(open.contains(&named.as_str()) && !link.remote, "{named}");
        assert_ne!(link.trace_id, called.identity.trace_id);
    }
    assert_eq!(asked.header("x-correlation-id"), None, "nobody knows whose");
    works.into_iter().for_each(|work| drop(work.done()));
}

#[test]
fn a_call_with_no_request_open_is_a_trace_of_its_own() {
    let scene = Scene::new("", "");
    let asked = scene.call("");
    let called = scene.car.record();
    assert_told(&asked, &called);
    assert_eq!((called.identity.parent, method(&called)), (None, ("none", false)));
    assert!(called.links.is_empty());
}

/// Names of headers of trace context and baggage that arrived.
fn contexts(asked: &Message) -> Vec<String> {
    let known: Vec<String> = CONTEXT.lines().map(|line| line.split(':').next().unwrap().to_owned()).collect();
    let names = asked.head.lines().skip(1).filter_map(|line| Some(line.split_once(':')?.0.to_lowercase()));
    names.filter(|name| known.contains(name)).collect()
}

#[test]
fn a_third_party_sees_no_context_of_any_kind() {
    let scene = Scene::new(", destinations: [ { host: 'HOST', strip: true, name: partner } ]", "");
    let work = scene.service.work(&scene.car, "/", "");
    for headers in [CONTEXT, ""] {
        let asked = scene.call(headers);
        assert_eq!(contexts(&asked), [""; 0], "BAG-7");
        assert_eq!(asked.header("x-correlation-id"), None, "nor ours");
        let record = scene.car.record();
        assert_eq!(record.destination.as_deref(), Some("partner"));
        assert!(record.identity.parent.is_some(), "the span itself is as good as any");
    }
    work.done();
}

#[test]
fn a_destination_gets_the_formats_that_it_understands() {
    let scene = Scene::new(", destinations: [ { host: '127.0.0.1', inject: [b3] } ]", "");
    let asked = scene.call("");
    let record = scene.car.record();
    let identity = record.identity;
    let single = format!("{}-{}-1", identity.trace_id, identity.span_id);
    assert_eq!((asked.header("b3"), asked.header("traceparent")), (Some(single.as_str()), None));

    let none = Scene::new(", destinations: [ { host: '127.0.0.1', inject: [none] } ]", "");
    let forwarded = format!("00-{TRACE}-{PARENT}-01");
    let asked = none.call(&format!("traceparent: {forwarded}\r\n"));
    assert_eq!(asked.header("traceparent"), Some(&*forwarded), "what the service says is its own");
    assert_eq!(none.car.record().identity.trace_id.to_string(), TRACE);
}

#[test]
fn each_direction_has_its_formats() {
    let sections = "propagation: { inbound: { extract: [b3], inject: [b3multi] }, \
                    outbound: { extract: [b3multi], inject: [jaeger, tracecontext] } }";
    let scene = Scene::new("", sections);
    let work = scene.service.work(&scene.car, "/", &format!("b3: {TRACE}-{PARENT}-1\r\n"));
    let (trace, span) =
        (work.asked.header("x-b3-traceid").unwrap(), work.asked.header("x-b3-spanid").unwrap());
    assert_eq!((trace, work.asked.header("traceparent")), (TRACE, None));
    let asked = scene.call(&format!("x-b3-traceid: {trace}\r\nx-b3-spanid: {span}\r\nx-b3-sampled: 1\r\n"));
    let called = scene.car.record();
    assert_told(&asked, &called);
    assert!(
        asked.header("uber-trace-id").unwrap().starts_with(&format!("{TRACE}:{}:", called.identity.span_id))
    );
    assert_eq!(called.identity.parent.unwrap().to_string(), span);
    assert_eq!(method(&called), ("header", true));
    work.done();
}

#[test]
fn a_destination_that_is_not_to_be_traced_leaves_no_span_and_gets_what_the_service_sent() {
    let scene = Scene::new(", destinations: [ { host: 'HOST', trace: false } ]", "");
    let work = scene.service.work(&scene.car, "/", "");
    let asked = scene.call(CONTEXT);
    for line in CONTEXT.lines() {
        let (name, value) = line.split_once(": ").unwrap();
        assert_eq!(asked.headers(name).collect::<Vec<_>>(), [value]);
    }
    assert_eq!(contexts(&scene.call("")), [""; 0]);
    let mut tunnel = Peer::connect(scene.car.proxy());
    tunnel.send(format!("CONNECT {} HTTP/1.1\r\nHost: s\r\n\r\n", scene.origin.address));
    assert_eq!(tunnel.response_head().status(), 200);
    tunnel.send("GET / HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n");
    drop(tunnel);
    work.done();
    assert_eq!(scene.car.record().side, Side::Inbound);
    assert_eq!(sides(scene.car), [""; 0]);
}

/// What nobody has asked for.
fn sides(car: TestCar) -> Vec<&'static str> {
    car.ended().iter().map(|record: &Arc<Record>| record.side.as_str()).collect()
}

#[test]
fn telemetry_on_its_way_out_is_left_alone() {
    let scene = Scene::new("", "");
    let work = scene.service.work(&scene.car, "/", "");
    for (path, kind) in [
        ("/v1/traces", "application/x-protobuf"),
        ("/v1/logs", "application/json"),
        ("/api/v2/spans", "application/json"),
        ("/api/42/envelope/", "application/x-sentry-envelope"),
    ] {
        let mut service = Peer::connect(scene.car.proxy());
        let url = format!("{}{path}", scene.origin.url());
        service.send(format!(
            "POST {url} HTTP/1.1\r\nHost: s\r\nContent-Type: {kind}\r\nbaggage: a=1\r\nContent-Length: 2\r\n\r\nhi"
        ));
        assert_eq!(service.response().status(), 200);
        let asked = scene.asked.recv_timeout(PATIENCE).unwrap();
        assert_eq!((asked.text().as_str(), contexts(&asked)), ("hi", vec!["baggage".to_owned()]), "{path}");
        assert_eq!(asked.header("x-correlation-id"), None, "{path}");
    }
    // The same path, and no telemetry.
    let asked = scene.call_for("/v1/traces", "");
    assert_told(&asked, &scene.car.record());
    work.done();
    assert_eq!(scene.car.record().side, Side::Inbound);
    assert_eq!(sides(scene.car), [""; 0]);
}

#[test]
fn calls_of_an_excluded_request_are_no_more_wanted_than_itself() {
    let scene = Scene::new("", "exclude: { rules: [ { path: /healthz } ] }");
    let work = scene.service.work(&scene.car, "/healthz", "");
    assert_eq!(work.asked.header("traceparent"), None);
    let asked = scene.call("");
    assert!(asked.header("traceparent").unwrap().ends_with("-02"), "{}", asked.head);
    work.done();
    let records = scene.car.ended();
    assert!(records.iter().all(|record| !record.identity.sampled()), "no span is exported (SMP-5)");
}

#[test]
fn what_a_stranger_says_of_its_trace_is_worth_what_the_settings_say() {
    let forwarded = format!("traceparent: 00-{TRACE}-{PARENT}-01\r\ntracestate: a=1\r\n");
    let ask = |sections: &str, listener: &str| {
        let service = Service::new();
        let yaml = format!("{sections}\nsampling: {{ sampler: parentbased_always_off }}");
        let car = TestCar::with(&service.url(), &yaml, |settings| {
            if !listener.is_empty() {
                let trust = tracecar::config::Trust::Restart;
                settings.startup.inbound[0].trust = Some(trust);
            }
        });
        let work = service.work(&car, "/", &forwarded);
        let asked = work.asked.clone();
        work.done();
        (asked, car.record())
    };
    let (asked, goes_on) = ask("", "");
    assert_eq!(goes_on.identity.trace_id.to_string(), TRACE);
    assert!(goes_on.identity.sampled(), "the caller decides");
    assert_eq!(asked.header("tracestate"), Some("a=1"));

    let rule = |policy| {
        format!(
            "propagation: {{ trust: [ {{ from: [10.0.0.0/8], policy: continue }}, {{ from: [127.0.0.0/8], policy: {policy} }} ] }}"
        )
    };
    let (asked, sampled) = ask(&rule("sample"), "");
    assert_eq!(sampled.identity.trace_id.to_string(), TRACE);
    assert!(sampled.identity.parent.is_some() && !sampled.identity.sampled(), "we decide");
    assert!(asked.header("traceparent").unwrap().ends_with("-00"), "{}", asked.head);

    for (asked, restarted) in [ask(&rule("restart"), ""), ask(&rule("continue"), "restart")] {
        assert_ne!(restarted.identity.trace_id.to_string(), TRACE);
        assert_eq!((restarted.identity.parent, restarted.identity.sampled()), (None, false));
        let [link] = restarted.links[..] else { panic!("one link: {:?}", restarted.links) };
        assert_eq!((link.trace_id.to_string(), link.span_id.to_string()), (TRACE.into(), PARENT.into()));
        assert!(link.remote);
        assert_eq!(asked.header("tracestate"), None, "CTX-14");
        assert_told(&asked, &restarted);
    }
}

#[test]
fn a_third_party_sees_no_context_whether_or_not_the_call_leaves_a_span() {
    let scene = Scene::new(", destinations: [ { host: 'HOST', strip: true, trace: false } ]", "");
    assert_eq!(contexts(&scene.call(CONTEXT)), [""; 0], "not traced");
    let scene = Scene::new(", destinations: [ { host: 'HOST', strip: true } ]", "");
    let mut service = Peer::connect(scene.car.proxy());
    let target = format!("{}/v1/traces", scene.origin.url());
    let kind = "Content-Type: application/x-protobuf\r\nContent-Length: 0\r\n";
    service.send(format!("POST {target} HTTP/1.1\r\nHost: a\r\n{kind}{CONTEXT}\r\n"));
    assert_eq!(service.response().status(), 200);
    assert_eq!(contexts(&scene.asked.recv_timeout(PATIENCE).unwrap()), [""; 0], "taken for telemetry");
}

#[test]
fn a_trace_that_came_without_a_span_is_gone_on_with_where_nothing_better_is_known() {
    let scene = Scene::new("", "propagation: { formats: [xray] }");
    scene.call("x-amzn-trace-id: Root=1-0af76519-16cd43dd8448eb211c80319c\r\n");
    let record = scene.car.record();
    assert_eq!(
        (record.identity.trace_id.to_string().as_str(), record.identity.parent),
        (TRACE, None),
        "XR-1"
    );
}

#[test]
fn a_wish_to_debug_goes_on_with_a_call() {
    let scene = Scene::new("", "propagation: { formats: [b3multi] }");
    let asked = scene.call("x-b3-flags: 1\r\n");
    assert_eq!((asked.header("x-b3-flags"), asked.header("x-b3-sampled")), (Some("1"), None), "B3-4");
}
