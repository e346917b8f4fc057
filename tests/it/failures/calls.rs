//! The calls of a failed request, and failed calls.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};

use tracecar::exchange::Side;

use super::{answer, ask, car};
use crate::support::car::TestCar;
use crate::support::origin::{Origin, Peer};
use crate::support::sentry::Sentry;
use crate::support::service::call;

const YAML: &str = "outbound: { proxy: '127.0.0.1:0' }\nlineage: { process_budget: 0s }";

/// A destination that answers with the status in the path: `/503/prices`.
fn destination() -> Origin {
    Origin::new(|peer| {
        while let Some(request) = peer.request() {
            let status = request.head.split(['/', ' ']).nth(2).unwrap_or_default().to_owned();
            peer.send(answer(&format!("{status} Said"), "", r#"{"message":"prices are not there"}"#));
        }
    })
}

/// A service that forwards nothing: it calls what is in the header, one after the other, with the last part of its own
/// path. Then it answers with the status in its path.
fn service() -> (Origin, Sender<SocketAddr>) {
    let (way_out, leads) = channel::<SocketAddr>();
    let leads = Mutex::new(leads);
    let origin = Origin::new(move |peer| {
        let Ok(proxy) = leads.lock().unwrap().recv() else { return };
        while let Some(request) = peer.request() {
            let path = request.head.split(' ').nth(1).unwrap_or_default();
            let (status, order) = path.trim_start_matches('/').split_once('/').unwrap_or_default();
            for url in request.header("x-calls").unwrap_or_default().split_whitespace() {
                call(proxy, &format!("{url}/{order}"), "");
            }
            peer.send(answer(&format!("{status} Said"), "", ""));
        }
    });
    (origin, way_out)
}

fn scene(sentry: &Sentry, yaml: &str) -> TestCar {
    let (origin, way_out) = service();
    let car = car(&origin, sentry, &format!("{YAML}\n{yaml}"));
    // For each connection to the service.
    for _ in 0..8 {
        way_out.send(car.proxy()).unwrap();
    }
    car
}

#[test]
fn the_calls_of_a_request_are_its_breadcrumbs_in_their_order() {
    has_its_calls("");
}

#[test]
fn so_they_are_where_several_workers_tell_of_them_in_any_order() {
    has_its_calls("runtime: { workers: 3 }");
}

fn has_its_calls(yaml: &str) {
    let (sentry, destination) = (Sentry::new(), destination());
    let car = scene(&sentry, yaml);
    let url = destination.url();
    let calls = ["/200/stock", "/404/coupons", "/503/prices"].map(|path| format!("{url}{path}"));
    ask(&car, "/500/0d9c1f7a-2a3b-4c5d-8e6f-7a8b9c0d1e2f", &format!("X-Calls: {}\r\n", calls.join(" ")));
    let records: Vec<_> = (0..4).map(|_| car.record()).collect();
    for record in records.iter().filter(|record| record.side == Side::Outbound) {
        assert_eq!(record.ancestry.map(|found| found.method), Some("token"));
    }
    let event = sentry.event();
    let crumbs = event.json["breadcrumbs"].as_array().or(event.json["breadcrumbs"]["values"].as_array());
    let crumbs: Vec<_> = crumbs
        .expect("a list")
        .iter()
        .map(|crumb| {
            let text = |value: &serde_json::Value| value.as_str().unwrap_or_default().to_owned();
            let status = crumb["data"]["http.response.status_code"].as_u64();
            // Sentry's type leaves out the level that it takes for a default.
            (text(&crumb["data"]["url"]), status, text(&crumb["level"]))
        })
        .collect();
    let levels = ["", "warning", "error"];
    let expected: Vec<_> = calls
        .iter()
        .zip([200, 404, 503])
        .zip(levels)
        .map(|((url, status), level)| {
            (format!("{url}/0d9c1f7a-2a3b-4c5d-8e6f-7a8b9c0d1e2f"), Some(status), level.to_owned())
        })
        .collect();
    assert_eq!(crumbs, expected);
    assert_eq!(event.tag("category"), "dependency");
    assert_eq!(event.tag("destination"), destination.address.to_string());
}

#[test]
fn a_failed_call_of_a_known_request_is_no_event_of_its_own() {
    let (sentry, destination) = (Sentry::new(), destination());
    let car = scene(&sentry, "");
    // The service copes with it.
    ask(
        &car,
        "/200/0d9c1f7a-2a3b-4c5d-8e6f-7a8b9c0d1e2f",
        &format!("X-Calls: {}/503/prices\r\n", destination.url()),
    );
    ask(&car, "/500/6b3f0f5e-8c57-4d0e-9d6c-0b6f6f3a2b11", "");
    let event = sentry.event();
    assert_eq!((event.tag("side"), event.tag("category")), ("inbound", "service"), "{:#}", event.json);
    assert!(event.json.get("breadcrumbs").is_none(), "the call was another's");
    let groups: serde_json::Value =
        serde_json::from_str(&crate::support::page::read(car.bound.admin.unwrap(), "/errors").text())
            .unwrap();
    let sides: Vec<_> = groups["groups"].as_array().unwrap().iter().map(|group| &group["side"]).collect();
    assert_eq!(sides.len(), 2, "the page has both");
    car.ended();
    assert!(sentry.come().is_none(), "and no other came");
}

#[test]
fn a_failed_call_that_nobody_is_known_to_have_made_is_an_event() {
    let (sentry, destination) = (Sentry::new(), destination());
    let (origin, _way_out) = service();
    let car = car(&origin, &sentry, YAML);
    let mut peer = Peer::connect(car.proxy());
    peer.send(format!("GET {}/503/prices HTTP/1.1\r\nHost: claimed\r\n\r\n", destination.url()));
    assert_eq!(peer.response().status(), 503);
    let (event, record) = (sentry.event(), car.record());
    assert_eq!(event.tag("side"), "outbound");
    let address = destination.address.to_string();
    assert_eq!(event.title(), (format!("GET {address}/{{id}}/prices").as_str(), "prices are not there"));
    assert_eq!((event.tag("category"), event.tag("destination")), ("capacity", address.as_str()));
    let trace = &event.json["contexts"]["trace"];
    assert_eq!(
        (&trace["op"], &trace["span_id"]),
        (&"http.client".into(), &record.identity.span_id.to_string().into())
    );
}

#[test]
fn a_call_of_nobody_is_a_transaction_whether_it_fails_or_not() {
    let (sentry, destination) = (Sentry::new(), destination());
    let (origin, _way_out) = service();
    let yaml = format!(
        "sentry: {{ dsn: '{}', traces: transactions, traces_sample_rate: 1.0 }}\n{YAML}",
        sentry.dsn()
    );
    let car = TestCar::with(&origin.url(), &yaml, |_| {});
    for status in [200, 503] {
        call(car.proxy(), &format!("{}/{status}/prices", destination.url()), "");
    }
    car.ended();
    let mut transactions = 0;
    while let Some(item) = sentry.come() {
        transactions += usize::from(item.kind == "transaction");
    }
    assert_eq!(transactions, 2);
}
