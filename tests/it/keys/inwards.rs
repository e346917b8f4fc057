//! Requests to the service: where they come in, which of them are traced, and what is believed of their callers.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use super::car::{Car, Key, attribute};
use super::peers::{ask, echoed, serves};
use super::propagation::{CONTEXT, TRACE};
use crate::support::PATIENCE;
use crate::support::origin::{Origin, Peer};

keys! {
    "inbound[].listen" => callers_are_listened_to_where_it_says,
    "inbound[].to" => requests_go_where_it_says,
    "inbound[].trust" => a_listener_has_a_trust_of_its_own,
    "exclude.keep_failures" => an_excluded_request_that_fails_is_kept,
    "exclude.rules[].path" => a_path_is_excluded,
    "exclude.rules[].method" => a_method_is_excluded,
    "exclude.rules[].user_agent" => a_user_agent_is_excluded,
    "client.trusted_proxies" => a_trusted_proxy_says_who_the_client_is,
    "client.trusted_headers" => one_kind_of_header_is_believed,
    "client.headers.x_forwarded" => x_forwarded_headers_are_passed_on_or_written,
    "client.headers.forwarded" => forwarded_is_passed_on_or_written,
    "client.half_close" => a_caller_that_ends_its_side_is_served_or_gone,
}

fn callers_are_listened_to_where_it_says(key: Key) {
    let see = |car: &mut Car| [car.place.listen, car.place.other].map(|address| serves(address, "/"));
    let yaml = "inbound: [{ listen: <>, to: 'http://SERVICE' }]";
    key.live(yaml, ["'LISTEN'", "'OTHER'"], see, [[true, false], [false, true]]);
}

fn requests_go_where_it_says(key: Key) {
    let [one, other] = ["one", "other"].map(|text| {
        Origin::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{text}", text.len()))
    });
    let key = key.word("ONE", one.url()).word("ANOTHER", other.url());
    let see = |car: &mut Car| car.ask("/", "").text();
    let yaml = "inbound: [{ listen: 'LISTEN', to: <> }]";
    key.live(yaml, ["ONE", "ANOTHER"], see, ["one".to_owned(), "other".to_owned()]);
}

fn a_listener_has_a_trust_of_its_own(key: Key) {
    let see = |car: &mut Car| {
        let sent = car.sends("/", CONTEXT);
        sent.header("traceparent").expect("it is sent").contains(TRACE)
    };
    let yaml = "inbound: [{ listen: 'LISTEN', to: 'http://SERVICE', trust: <> }]";
    key.live(yaml, ["continue", "restart"], see, [true, false]);
}

/// Whether a request is traced, as its service is told.
fn traced(car: &mut Car) -> bool {
    let answer = ask(car.place.listen, "GET", "/health", "User-Agent: probe/1\r\n");
    echoed(&answer).header("traceparent").is_some()
}

fn a_path_is_excluded(key: Key) {
    key.live("exclude: { rules: [{ path: <> }] }", ["/elsewhere", "/health"], traced, [true, false]);
}

fn a_method_is_excluded(key: Key) {
    let yaml = "exclude: { rules: [{ path: /health, method: <> }] }";
    key.live(yaml, ["POST", "GET"], traced, [true, false]);
}

fn a_user_agent_is_excluded(key: Key) {
    key.live("exclude: { rules: [{ user_agent: <> }] }", ["curl/*", "probe/*"], traced, [true, false]);
}

fn an_excluded_request_that_fails_is_kept(key: Key) {
    let see = |car: &mut Car| {
        assert_eq!(car.ask("/status/500", "").status(), 500);
        car.ask("/last", "");
        // Spans are in the order of their ends, so what is kept comes first.
        let path = attribute(&car.span(), "url.path");
        if path == "/status/500" {
            assert_eq!(attribute(&car.span(), "url.path"), "/last");
        }
        path
    };
    let yaml = "exclude: { keep_failures: <>, rules: [{ path: /status/* }] }";
    key.live(yaml, ["false", "true"], see, ["/last".to_owned(), "/status/500".to_owned()]);
}

fn a_trusted_proxy_says_who_the_client_is(key: Key) {
    let see = |car: &mut Car| {
        car.ask("/", "X-Forwarded-For: 203.0.113.9\r\n");
        attribute(&car.span(), "client.address")
    };
    let expected = ["127.0.0.1".to_owned(), "203.0.113.9".to_owned()];
    key.live("client: { trusted_proxies: <> }", ["[]", "[127.0.0.0/8]"], see, expected);
}

fn one_kind_of_header_is_believed(key: Key) {
    let see = |car: &mut Car| {
        car.ask("/", "X-Forwarded-For: 203.0.113.9\r\nForwarded: for=203.0.113.8\r\n");
        attribute(&car.span(), "client.address")
    };
    let yaml = "client: { trusted_proxies: [127.0.0.0/8], trusted_headers: <> }";
    let expected = ["203.0.113.9".to_owned(), "203.0.113.8".to_owned()];
    key.live(yaml, ["[x_forwarded]", "[forwarded]"], see, expected);
}

fn x_forwarded_headers_are_passed_on_or_written(key: Key) {
    let see = |car: &mut Car| {
        let sent = car.sends("/", "X-Forwarded-For: 203.0.113.9\r\n");
        sent.header("x-forwarded-for").expect("it is sent").to_owned()
    };
    let expected = ["203.0.113.9".to_owned(), "203.0.113.9, 127.0.0.1".to_owned()];
    key.live("client: { headers: { x_forwarded: <> } }", ["pass", "append"], see, expected);
}

fn forwarded_is_passed_on_or_written(key: Key) {
    let see = |car: &mut Car| {
        car.sends("/", "Forwarded: for=203.0.113.9\r\n").header("forwarded").map(str::to_owned)
    };
    let expected = [Some("for=127.0.0.1;host=shop;proto=http".to_owned()), None];
    key.live("client: { headers: { forwarded: <> } }", ["set", "strip"], see, expected);
}

fn a_caller_that_ends_its_side_is_served_or_gone(key: Key) {
    let (arrived, arrives) = channel();
    let (answer, answers) = channel::<()>();
    let answers = Mutex::new(answers);
    let origin = Origin::new(move |peer| {
        while let Some(request) = peer.request() {
            if request.head.starts_with("GET /slow ") {
                arrived.send(()).expect("the test goes on");
                answers.lock().unwrap().recv_timeout(PATIENCE).expect("the test goes on");
            }
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        }
    });
    let see = |car: &mut Car| {
        let mut caller = Peer::connect(car.place.listen);
        caller.send("GET /slow HTTP/1.1\r\nHost: shop\r\n\r\n");
        arrives.recv_timeout(PATIENCE).expect("it arrives");
        caller.finish_sending();
        // The program is on one thread: once it has served others it knows of the end.
        for _ in 0..3 {
            car.ask("/", "");
        }
        answer.send(()).expect("the service waits");
        String::from_utf8_lossy(&caller.rest().unwrap_or_default()).ends_with("ok")
    };
    let key = key.word("SLOW", origin.address);
    let yaml = "inbound: [{ listen: 'LISTEN', to: 'http://SLOW' }]\nclient: { half_close: <> }";
    key.live(yaml, ["serve", "cancel"], see, [true, false]);
}
