//! Values in the content of messages that say which request caused a call (`lineage.json_fields`).

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Barrier, Mutex, OnceLock};

use tracecar::exchange::{Record, Side};

use super::support::PATIENCE;
use super::support::car::TestCar;
use super::support::origin::{Message, Origin, Peer};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n";

fn post(path: &str, kind: &str, content: &str) -> String {
    let length = content.len();
    format!(
        "POST {path} HTTP/1.1\r\nHost: a\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n{content}"
    )
}

/// A service that has two requests at a time, and makes a call with the content of each.
fn shop(way_out: Arc<OnceLock<SocketAddr>>) -> Origin {
    let both = Barrier::new(2);
    Origin::new(move |peer| {
        while let Some(request) = peer.request() {
            both.wait();
            let mut call = Peer::connect(*way_out.get().expect("the sidecar runs"));
            let kind = request.header("content-type").unwrap_or("none");
            call.send(post("/reserve", kind, &request.text()));
            assert_eq!(call.response().status(), 200);
            both.wait();
            peer.send(OK);
        }
    })
}

/// What is called, and what it is sent.
fn stock() -> (Origin, Receiver<Message>) {
    let (sent, sees) = channel();
    let sent = Mutex::new(sent);
    let origin = Origin::new(move |peer| {
        while let Some(request) = peer.request() {
            let _ = sent.lock().unwrap().send(request);
            peer.send(OK);
        }
    });
    (origin, sees)
}

/// The calls of two requests that are open at once, with these contents.
fn calls(kind: &str, contents: [&str; 2]) -> (Vec<Arc<Record>>, Vec<Arc<Record>>, Vec<Message>) {
    let (stock, sees) = stock();
    let way_out = Arc::new(OnceLock::new());
    let shop = shop(way_out.clone());
    let yaml = format!(
        "outbound: {{ mapped: [{{ listen: 127.0.0.1:0, to: '{}' }}] }}\n\
         lineage: {{ json_fields: [order_id], methods: [token] }}\n",
        stock.url()
    );
    let car = TestCar::with(&shop.url(), &yaml, |_| {});
    way_out.set(car.bound.mapped[0]).expect("set once");
    let mut callers = contents.map(|content| {
        let mut caller = Peer::connect(car.address());
        caller.send(post("/order", kind, content));
        caller
    });
    callers.iter_mut().for_each(|caller| assert_eq!(caller.response().status(), 200));
    let seen = (0..2).map(|_| sees.recv_timeout(PATIENCE).expect("a call comes")).collect();
    let (requests, calls) = car.ended().into_iter().partition(|record| record.side == Side::Inbound);
    (requests, calls, seen)
}

#[test]
fn a_value_of_a_chosen_field_names_the_parent_and_the_content_passes_whole() {
    let padding = "p".repeat(40_000);
    let contents = ["4e6b2f0c-9d3a-4f17-8c55-1b2e3d4f5a60", "7b9d1e22-0c4f-4a6e-9f31-6d5c4b3a2f10"]
        .map(|order| format!("{{\"order_id\": \"{order}\", \"padding\": \"{padding}\"}}"));
    let (requests, calls, seen) = calls("application/json; charset=utf-8", [&contents[0], &contents[1]]);
    assert_eq!((requests.len(), calls.len()), (2, 2));
    for call in &calls {
        assert_eq!(call.ancestry.unwrap().method, "token");
        let parent = requests.iter().find(|request| Some(request.identity.span_id) == call.identity.parent);
        assert_eq!(parent.unwrap().identity.trace_id, call.identity.trace_id);
        assert_eq!(call.request_bytes, contents[0].len() as u64);
    }
    assert_ne!(calls[0].identity.trace_id, calls[1].identity.trace_id);
    for content in &contents {
        assert!(seen.iter().any(|call| call.text() == *content), "every byte, once");
    }
}

#[test]
fn content_that_is_not_json_is_not_looked_at() {
    let contents =
        ["order_id=4e6b2f0c-9d3a-4f17-8c55-1b2e3d4f5a60", "order_id=7b9d1e22-0c4f-4a6e-9f31-6d5c4b3a2f10"];
    let (_, calls, _) = calls("application/x-www-form-urlencoded", contents);
    assert!(calls.iter().all(|call| call.identity.parent.is_none() && call.links.len() == 2), "{calls:?}");
}

#[test]
fn a_stream_that_has_no_end_is_not_the_cause_of_what_happens_beside_it() {
    let (stock, _sees) = stock();
    let events = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\r\ndata: 1\n\n";
    let service = Origin::new(move |peer| {
        while peer.request().is_some() {
            peer.send(events);
        }
    });
    let yaml = format!(
        "outbound: {{ mapped: [{{ listen: 127.0.0.1:0, to: '{}' }}] }}\nlineage: {{ process_budget: 0s }}\n",
        stock.url()
    );
    let car = TestCar::with(&service.url(), &yaml, |_| {});
    let mut listener = Peer::connect(car.address());
    listener.send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(listener.response_head().status(), 200);
    for _ in 0..3 {
        let mut call = Peer::connect(car.bound.mapped[0]);
        call.send("GET /refill HTTP/1.1\r\nHost: a\r\n\r\n");
        assert_eq!(call.response().status(), 200);
        let ancestry = car.record().ancestry.unwrap();
        assert_eq!((ancestry.method, ancestry.confidence), ("none", 0.0));
    }
}
