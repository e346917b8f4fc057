//! Calls of the service: where they are taken, where they may lead, and what is special about some destinations.

use std::net::TcpStream;

use super::car::{Car, Key, attribute};
use super::peers::{FAR, ask, echoed, serves};
use super::propagation::{CONTEXT, TRACE};
use crate::support::origin::Peer;

keys! {
    "outbound.proxy" => a_forward_proxy_listens_where_it_says,
    "outbound.mapped[].listen" => a_mapped_listener_listens_where_it_says,
    "outbound.mapped[].to" => a_mapped_listener_leads_where_it_says,
    "outbound.mapped[].name" => the_destination_of_a_mapped_listener_has_a_name,
    "outbound.transparent" => redirected_connections_are_taken_where_it_says,
    "outbound.clients" => some_networks_may_call,
    "outbound.allow" => some_destinations_may_be_called,
    "outbound.deny" => some_destinations_may_not_be_called,
    "outbound.connect_ports" => some_ports_may_be_connected_to,
    "outbound.destinations[].host" => a_destination_is_special_that_matches,
    "outbound.destinations[].name" => a_destination_has_a_name,
    "outbound.destinations[].extract" => formats_are_read_of_calls_to_a_destination,
    "outbound.destinations[].inject" => formats_are_written_for_a_destination,
    "outbound.destinations[].strip" => a_destination_is_told_nothing_of_traces,
    "outbound.destinations[].trace" => calls_to_a_destination_leave_spans,
    "outbound.url_templates" => a_template_names_spans_of_calls,
}

const HERE_THEN_THERE: [[bool; 2]; 2] = [[true, false], [false, true]];

fn a_forward_proxy_listens_where_it_says(key: Key) {
    let url = format!("http://{}/", FAR.address);
    let see = |car: &mut Car| [car.place.proxy, car.place.other].map(|address| serves(address, &url));
    key.live("outbound: { proxy: <> }", ["'PROXY'", "'OTHER'"], see, HERE_THEN_THERE);
}

fn a_mapped_listener_listens_where_it_says(key: Key) {
    let see = |car: &mut Car| [car.place.proxy, car.place.other].map(|address| serves(address, "/"));
    let yaml = "outbound: { mapped: [{ listen: <>, to: 'http://FAR' }] }";
    key.live(yaml, ["'PROXY'", "'OTHER'"], see, HERE_THEN_THERE);
}

fn a_mapped_listener_leads_where_it_says(key: Key) {
    let see = |car: &mut Car| {
        let sent = echoed(&ask(car.place.proxy, "GET", "/x", ""));
        sent.head.lines().next().map(str::to_owned)
    };
    let expected = ["GET /base/x HTTP/1.1", "GET /other/x HTTP/1.1"].map(|line| Some(line.to_owned()));
    let yaml = "outbound: { mapped: [{ listen: 'PROXY', to: <> }] }";
    key.live(yaml, ["'http://FAR/base'", "'http://FAR/other'"], see, expected);
}

fn the_destination_of_a_mapped_listener_has_a_name(key: Key) {
    let see = |car: &mut Car| {
        ask(car.place.proxy, "GET", "/", "");
        attribute(&car.span(), "peer.service")
    };
    let yaml = "outbound: { mapped: [{ listen: 'PROXY', to: 'http://FAR', name: <> }] }";
    key.live(yaml, ["payments", "billing"], see, ["payments".to_owned(), "billing".to_owned()]);
}

/// That what was redirected is passed on takes a kernel that redirects; `transparent_calls` is about that.
fn redirected_connections_are_taken_where_it_says(key: Key) {
    let see =
        |car: &mut Car| [car.place.proxy, car.place.other].map(|address| TcpStream::connect(address).is_ok());
    key.live("outbound: { transparent: <> }", ["'PROXY'", "'OTHER'"], see, HERE_THEN_THERE);
}

/// Whether a call gets through, by its status.
fn status(car: &mut Car) -> u16 {
    car.call("/", "").status()
}

fn some_networks_may_call(key: Key) {
    let url = format!("http://{}/", FAR.address);
    let see = |car: &mut Car| serves(car.place.proxy, &url);
    let yaml = "outbound: { proxy: 'PROXY', clients: <> }";
    key.live(yaml, ["[127.0.0.0/8]", "[192.0.2.0/24]"], see, [true, false]);
}

fn some_destinations_may_be_called(key: Key) {
    let yaml = "outbound: { proxy: 'PROXY', allow: <> }";
    key.live(yaml, ["[]", "[elsewhere.example]"], status, [200, 403]);
}

fn some_destinations_may_not_be_called(key: Key) {
    key.live("outbound: { proxy: 'PROXY', deny: <> }", ["[]", "['FAR']"], status, [200, 403]);
}

fn some_ports_may_be_connected_to(key: Key) {
    let see = |car: &mut Car| {
        let (mut peer, far) = (Peer::connect(car.place.proxy), FAR.address);
        peer.send(format!("CONNECT {far} HTTP/1.1\r\nHost: {far}\r\n\r\n"));
        peer.response_head().status()
    };
    let yaml = "outbound: { proxy: 'PROXY', connect_ports: <> }";
    key.live(yaml, ["[1024-65535]", "[443]"], see, [200, 403]);
}

/// The name of the destination in the span of a call.
fn name(car: &mut Car) -> String {
    car.call("/", "");
    attribute(&car.span(), "peer.service")
}

fn a_destination_is_special_that_matches(key: Key) {
    let yaml = "outbound: { proxy: 'PROXY', destinations: [{ host: <>, name: payments }] }";
    let expected = ["null".to_owned(), "payments".to_owned()];
    key.live(yaml, ["elsewhere.example", "'FAR'"], name, expected);
}

fn a_destination_has_a_name(key: Key) {
    let yaml = "outbound: { proxy: 'PROXY', destinations: [{ host: 'FAR', name: <> }] }";
    key.live(yaml, ["payments", "billing"], name, ["payments".to_owned(), "billing".to_owned()]);
}

fn formats_are_read_of_calls_to_a_destination(key: Key) {
    let see = |car: &mut Car| {
        car.call("/", CONTEXT);
        car.span()["trace_id"] == TRACE
    };
    let yaml = "outbound: { proxy: 'PROXY', destinations: [{ host: 'FAR', extract: <> }] }";
    key.live(yaml, ["[tracecontext]", "[b3]"], see, [true, false]);
}

fn formats_are_written_for_a_destination(key: Key) {
    let see = |car: &mut Car| {
        let sent = car.calls("/", "");
        ["traceparent", "b3"].map(|name| sent.header(name).is_some())
    };
    let yaml = "outbound: { proxy: 'PROXY', destinations: [{ host: 'FAR', inject: <> }] }";
    key.live(yaml, ["[tracecontext]", "[b3]"], see, HERE_THEN_THERE);
}

fn a_destination_is_told_nothing_of_traces(key: Key) {
    let see = |car: &mut Car| {
        let sent = car.calls("/", &format!("{CONTEXT}baggage: a=b\r\n"));
        ["traceparent", "baggage"].map(|name| sent.header(name).is_some())
    };
    let yaml = "outbound: { proxy: 'PROXY', destinations: [{ host: 'FAR', strip: <> }] }";
    key.live(yaml, ["false", "true"], see, [[true; 2], [false; 2]]);
}

fn calls_to_a_destination_leave_spans(key: Key) {
    let see = |car: &mut Car| {
        assert_eq!(car.call("/", "").status(), 200);
        car.ask("/", "");
        // Spans are in the order of their ends.
        let first = car.span()["kind"] == "CLIENT";
        if first {
            assert_eq!(car.span()["kind"], "SERVER");
        }
        first
    };
    let yaml = "outbound: { proxy: 'PROXY', destinations: [{ host: 'FAR', trace: <> }] }";
    key.live(yaml, ["true", "false"], see, [true, false]);
}

fn a_template_names_spans_of_calls(key: Key) {
    let see = |car: &mut Car| {
        car.call("/items/7", "");
        attribute(&car.span(), "url.template")
    };
    let expected = ["null".to_owned(), "/items/{id}".to_owned()];
    let yaml = "outbound: { proxy: 'PROXY', url_templates: <> }";
    key.live(yaml, ["[]", "['/items/{id}']"], see, expected);
}
