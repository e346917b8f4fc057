//! What a failed answer says of its cause, as the event has it.

use std::io::Write;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::json;
use tracecar::exchange::Outcome;

use super::{answer, ask, car};
use crate::support::origin::{Origin, Peer};
use crate::support::sentry::{Item, Sentry};

const JSON: &str = "Content-Type: application/json\r\n";
const ROUTES: &str = "routes: ['/items/{id}']";

/// What a Sentry is told of a request that is answered with that.
fn told(response: Vec<u8>) -> Item {
    let (origin, sentry) = (Origin::answering(response), Sentry::new());
    let car = car(&origin, &sentry, ROUTES);
    ask(&car, "/items/4711", "");
    sentry.event()
}

#[test]
fn a_failed_request_is_an_event_with_the_message_of_its_answer_and_the_ids_of_its_span() {
    let (origin, sentry) =
        (Origin::answering(answer("500 No", JSON, r#"{"error":{"message":"out of stock"}}"#)), Sentry::new());
    let car = car(&origin, &sentry, ROUTES);
    assert_eq!(ask(&car, "/items/4711", "").status(), 500);
    let (event, identity) = (sentry.event(), car.record().identity);
    assert_eq!(event.title(), ("GET /items/{id}", "out of stock"));
    assert_eq!(event.path, "/api/7/envelope/");
    for part in ["Sentry ", "sentry_version=7", "sentry_key=public", "sentry_client=tracecar/"] {
        assert!(event.auth.contains(part), "{part} is in {}", event.auth);
    }
    let trace = &event.json["contexts"]["trace"];
    assert_eq!(trace["trace_id"], identity.trace_id.to_string());
    assert_eq!(trace["span_id"], identity.span_id.to_string());
    let tags = ["service", "side", "status", "route", "category"].map(|name| event.tag(name));
    assert_eq!(tags, ["under-test", "inbound", "500", "/items/{id}", "service"]);
    assert_eq!(event.json["contexts"]["response"]["status_code"], 500);
}

#[test]
fn a_traceback_names_the_exception_and_the_services_own_frames() {
    let event = told(answer(
        "500 No",
        "Content-Type: text/plain\r\n",
        "Traceback (most recent call last):\n  \
           File \"/usr/lib/python3/site-packages/flask/app.py\", line 1473, in wsgi_app\n    \
             response = self.full_dispatch_request()\n  \
           File \"/srv/shop/stock.py\", line 41, in take\n    \
             raise LookupError(name)\n\
         shop.errors.OutOfStock: no bolts are left\n",
    ));
    assert_eq!(event.title(), ("OutOfStock", "no bolts are left"));
    let frames = event.json["exception"]["values"][0]["stacktrace"]["frames"].as_array().expect("a stack");
    let own: Vec<_> = frames.iter().filter(|frame| frame["in_app"] == true).collect();
    assert_eq!((frames.len(), own.len()), (2, 1), "{frames:#?}");
    assert_eq!((&own[0]["function"], &own[0]["lineno"]), (&json!("take"), &json!(41)));
    assert_eq!(frames[1], *own[0], "the innermost is the last");
}

#[test]
fn compressed_content_passes_as_it_is_and_is_read() {
    let mut packer = GzEncoder::new(Vec::new(), Compression::default());
    packer.write_all(br#"{"message":"the disk is full"}"#).unwrap();
    let packed = packer.finish().unwrap();
    let response = answer("500 No", &format!("{JSON}Content-Encoding: gzip\r\n"), &packed);
    let (origin, sentry) = (Origin::answering(response), Sentry::new());
    let car = car(&origin, &sentry, ROUTES);
    assert_eq!(ask(&car, "/items/4711", "").body, packed);
    assert_eq!(sentry.event().title().1, "the disk is full");
}

#[test]
fn of_long_content_the_beginning_is_read_and_all_of_it_passes() {
    let padding = "x".repeat(200_000);
    let early = format!(r#"{{"message":"the disk is full","padding":"{padding}"}}"#);
    let late = format!(r#"{{"padding":"{padding}","message":"the disk is full"}}"#);
    for (content, message) in [(early, "the disk is full"), (late, "500 Internal Server Error")] {
        let (origin, sentry) = (Origin::answering(answer("500 No", JSON, &content)), Sentry::new());
        let car = car(&origin, &sentry, ROUTES);
        assert!(ask(&car, "/items/4711", "").body == content.as_bytes(), "all of it passes");
        assert_eq!(sentry.event().title().1, message);
    }
}

#[test]
fn content_that_breaks_off_is_not_passed_off_as_what_was_to_be_said() {
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send("HTTP/1.1 500 No\r\nContent-Length: 100\r\n\r\nno stock of bolts is left to se");
    });
    let sentry = Sentry::new();
    let car = car(&origin, &sentry, ROUTES);
    let mut peer = Peer::connect(car.address());
    peer.send("GET /items/4711 HTTP/1.1\r\nHost: shop\r\n\r\n");
    let _ = peer.rest();
    let event = sentry.event();
    assert_eq!((event.tag("outcome"), event.tag("status")), ("upstream_broken", "500"));
    let (place, message) = event.title();
    assert_eq!(place, "GET /items/{id}");
    assert!(!message.is_empty() && !message.contains("bolts"), "{message}");
}

#[test]
fn a_caller_that_leaves_in_the_middle_of_the_answer_makes_no_half_message() {
    let (hold, held) = channel::<()>();
    let held = Mutex::new(held);
    let origin = Origin::new(move |peer| {
        peer.request();
        peer.send("HTTP/1.1 500 No\r\nTransfer-Encoding: chunked\r\n\r\n10\r\nno stock of bolt\r\n");
        let _ = held.lock().unwrap().recv();
    });
    let sentry = Sentry::new();
    let car = car(&origin, &sentry, ROUTES);
    let mut peer = Peer::connect(car.address());
    peer.send("GET /items/4711 HTTP/1.1\r\nHost: shop\r\n\r\n");
    peer.head().expect("it is answered");
    peer.exactly("10\r\nno stock of bolt\r\n".len());
    peer.reset();
    assert_eq!(car.record().outcome, Outcome::ClientGoneDuringResponse);
    assert_eq!(sentry.event().title(), ("GET /items/{id}", "500 Internal Server Error"));
    drop(hold);
}

#[test]
fn an_answer_to_head_has_no_content_and_is_a_failure_all_the_same() {
    let origin =
        Origin::answering("HTTP/1.1 500 No\r\nContent-Type: application/json\r\nContent-Length: 40\r\n\r\n");
    let sentry = Sentry::new();
    let car = car(&origin, &sentry, ROUTES);
    let mut peer = Peer::connect(car.address());
    peer.send("HEAD /items/4711 HTTP/1.1\r\nHost: shop\r\n\r\n");
    let head = peer.response_head();
    assert_eq!((head.status(), head.header("content-length")), (500, Some("40")));
    let event = sentry.event();
    assert_eq!(event.title(), ("HEAD /items/{id}", "500 Internal Server Error"));
    assert_eq!(event.tag("outcome"), "complete");
}

#[test]
fn a_streamed_answer_passes_byte_for_byte_and_is_read() {
    let pieces: Vec<String> = (0..200).map(|number| format!("line {number}\n")).collect();
    let streamed = format!("the disk is full\n{}", pieces.concat());
    let origin = Origin::new(move |peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 500 No\r\nContent-Type: text/plain\r\nTransfer-Encoding: chunked\r\n\r\n");
            // The message comes in pieces, too.
            for piece in ["the di", "sk is ", "full\n"].into_iter().chain(pieces.iter().map(String::as_str)) {
                peer.send(format!("{:x}\r\n{piece}\r\n", piece.len()));
            }
            peer.send("0\r\n\r\n");
        }
    });
    let sentry = Sentry::new();
    let car = car(&origin, &sentry, ROUTES);
    assert_eq!(ask(&car, "/items/4711", "").text(), streamed);
    assert_eq!(sentry.event().title().1, "the disk is full");
}

#[test]
fn what_does_not_fail_is_not_told_of() {
    let origin = Origin::new(|peer| {
        while let Some(request) = peer.request() {
            let status = request.head.split(['/', ' ']).nth(2).unwrap_or_default().to_owned();
            peer.send(answer(&format!("{status} Said"), JSON, r#"{"message":"it is so"}"#));
        }
    });
    let sentry = Sentry::new();
    let car = car(&origin, &sentry, "exclude: { rules: [ { path: /500/excluded } ] }");
    for status in [200, 302, 404, 499] {
        assert_eq!(ask(&car, &format!("/{status}"), "").status(), status);
        car.record();
    }
    ask(&car, "/500/excluded", "");
    assert!(car.record().excluded);
    let event = sentry.event();
    assert_eq!(
        event.title(),
        ("GET /{id}/excluded", "it is so"),
        "what is excluded is a failure where it fails"
    );
    car.ended();
    assert!(sentry.come().is_none(), "and the others were none");
}

#[test]
fn an_excluded_request_that_does_not_fail_is_nothing_at_all() {
    let (origin, sentry) = (Origin::answering(answer("404 No", "", "no")), Sentry::new());
    let yaml = "exclude: { rules: [ { path: /healthz } ] }\nfailures: { statuses: [ { status: [404] } ] }";
    let car = car(&origin, &sentry, yaml);
    ask(&car, "/healthz", "");
    ask(&car, "/items/4711", "");
    assert_eq!(sentry.event().title().0, "GET /items/{id}");
    assert!(!car.record().excluded);
    assert_eq!(car.ended().len(), 0);
}
