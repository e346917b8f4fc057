//! A service that is not there: one event, and not one for each request.

use std::time::{SystemTime, UNIX_EPOCH};

use super::{answer, ask};
use crate::support::car::TestCar;
use crate::support::origin::Nowhere;
use crate::support::page::{Page, read};
use crate::support::sentry::Sentry;

#[test]
fn all_that_is_refused_while_the_service_is_gone_is_one_event_once_it_is_back() {
    let (sentry, nowhere) = (Sentry::new(), Nowhere::new());
    let yaml = format!("sentry: {{ dsn: '{}', traces: off }}", sentry.dsn());
    let car = TestCar::with(&format!("http://{}", nowhere.address), &yaml, |_| {});
    for number in 0..50 {
        assert_eq!(ask(&car, &format!("/{number}"), "").status(), 502);
    }
    let first = car.record();
    for _ in 1..50 {
        car.record();
    }
    let _back = nowhere.becomes(|peer| {
        while let Some(request) = peer.request() {
            let status = if request.head.starts_with("GET /fails") { "500 No" } else { "200 OK" };
            peer.send(answer(status, "", ""));
        }
    });
    assert_eq!(ask(&car, "/", "").status(), 200);
    let back = car.record();

    let event = sentry.event();
    let details = &event.json["contexts"]["tracecar"];
    assert_eq!(event.json["logentry"]["message"], "under-test refuses connections");
    assert_eq!(event.json["level"], "fatal");
    assert_eq!(details["requests_refused"], "50");
    for (name, at) in [("began_at", first.started_at), ("ended_at", back.started_at)] {
        let written = details[name].as_str().expect("a time");
        assert!(written.ends_with(&second(at)), "{name}: {written} is {}", second(at));
    }
    assert_eq!(event.json["contexts"]["trace"]["trace_id"], first.identity.trace_id.to_string());

    assert_eq!(ask(&car, "/fails", "").status(), 500);
    assert_eq!(sentry.event().tag("status"), "500", "no other came in between");
    let admin = car.bound.admin.unwrap();
    assert_eq!(Page::of(admin).count("tracecar_outages_total"), 1);
    let page: serde_json::Value = serde_json::from_str(&read(admin, "/errors").text()).unwrap();
    assert_eq!(page["outages"].as_array().map(Vec::len), Some(1), "{page:#}");
    assert_eq!(page["outages"][0]["requests_refused"], 50);
    assert_eq!(page["outages"][0]["ended_at"], details["ended_at"]);
}

#[test]
fn an_outage_that_goes_on_at_the_end_is_told_of() {
    let (sentry, nowhere) = (Sentry::new(), Nowhere::new());
    let yaml = format!("sentry: {{ dsn: '{}', traces: off }}", sentry.dsn());
    let car = TestCar::with(&format!("http://{}", nowhere.address), &yaml, |_| {});
    assert_eq!(ask(&car, "/", "").status(), 502);
    car.ended();
    let event = sentry.event();
    let details = &event.json["contexts"]["tracecar"];
    assert_eq!((&details["requests_refused"], details.get("ended_at")), (&"1".into(), None));
    assert!(sentry.come().is_none());
}

/// How a moment ends where it is written: the second of its minute, to the millisecond.
fn second(at: SystemTime) -> String {
    let since = at.duration_since(UNIX_EPOCH).expect("after 1970");
    format!(":{:02}.{:03}Z", since.as_secs() % 60, since.subsec_millis())
}
