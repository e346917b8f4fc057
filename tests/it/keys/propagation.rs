//! Headers that carry a trace, and ids beside it: what is read, written and answered.

use super::car::{Car, Key};
use super::peers::echoed;

keys! {
    "propagation.formats" => formats_are_written,
    "propagation.inbound.extract" => formats_are_read_of_requests,
    "propagation.inbound.inject" => formats_are_written_for_the_service,
    "propagation.outbound.extract" => formats_are_read_of_calls,
    "propagation.outbound.inject" => formats_are_written_for_destinations,
    "propagation.trust[].from" => some_callers_are_trusted_less,
    "propagation.trust[].policy" => callers_are_trusted_as_it_says,
    "propagation.correlation.enabled" => a_correlation_id_is_made,
    "propagation.correlation.headers" => a_correlation_id_is_written_into_the_first_header,
    "propagation.correlation.generate" => a_correlation_id_has_a_form,
    "propagation.server_timing" => the_trace_is_shown_to_browsers,
    "propagation.traceresponse" => the_trace_is_answered,
    "propagation.via" => the_program_names_itself,
    "propagation.date" => a_response_gets_the_time_that_it_lacks,
}

/// The trace of [`CONTEXT`].
pub const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";

/// The trace context of a caller, as a line.
pub const CONTEXT: &str = "traceparent: 00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01\r\n";

const FORMATS: [&str; 2] = ["[tracecontext]", "[b3]"];

/// Which formats the service is sent: W3C's, B3.
fn written(car: &mut Car) -> [bool; 2] {
    let sent = car.sends("/", "");
    ["traceparent", "b3"].map(|name| sent.header(name).is_some())
}

/// Which formats a destination is sent.
fn written_outwards(car: &mut Car) -> [bool; 2] {
    let sent = car.calls("/", "");
    ["traceparent", "b3"].map(|name| sent.header(name).is_some())
}

/// Whether the trace that a caller brings goes on.
fn goes_on(car: &mut Car) -> bool {
    car.ask("/", CONTEXT);
    car.span()["trace_id"] == TRACE
}

fn formats_are_written(key: Key) {
    key.live("propagation: { formats: <> }", FORMATS, written, [[true, false], [false, true]]);
}

fn formats_are_read_of_requests(key: Key) {
    key.live("propagation: { inbound: { extract: <> } }", FORMATS, goes_on, [true, false]);
}

fn formats_are_written_for_the_service(key: Key) {
    let yaml = "propagation: { inbound: { inject: <> } }";
    key.live(yaml, FORMATS, written, [[true, false], [false, true]]);
}

fn formats_are_read_of_calls(key: Key) {
    let see = |car: &mut Car| {
        car.call("/", CONTEXT);
        car.span()["trace_id"] == TRACE
    };
    let yaml = "outbound: { proxy: 'PROXY' }\npropagation: { outbound: { extract: <> } }";
    key.live(yaml, FORMATS, see, [true, false]);
}

fn formats_are_written_for_destinations(key: Key) {
    let yaml = "outbound: { proxy: 'PROXY' }\npropagation: { outbound: { inject: <> } }";
    key.live(yaml, FORMATS, written_outwards, [[true, false], [false, true]]);
}

fn some_callers_are_trusted_less(key: Key) {
    let yaml = "propagation: { trust: [{ from: <>, policy: restart }] }";
    key.live(yaml, ["[192.0.2.0/24]", "[127.0.0.0/8]"], goes_on, [true, false]);
}

fn callers_are_trusted_as_it_says(key: Key) {
    let yaml = "propagation: { trust: [{ from: [127.0.0.0/8], policy: <> }] }";
    key.live(yaml, ["continue", "restart"], goes_on, [true, false]);
}

fn a_correlation_id_is_made(key: Key) {
    let see = |car: &mut Car| {
        let answer = car.ask("/", "");
        let sent = echoed(&answer);
        [&answer, &sent].map(|message| message.header("x-correlation-id").is_some())
    };
    let yaml = "propagation: { correlation: { enabled: <> } }";
    key.live(yaml, ["true", "false"], see, [[true; 2], [false; 2]]);
}

fn a_correlation_id_is_written_into_the_first_header(key: Key) {
    let see = |car: &mut Car| {
        let sent = car.sends("/", "");
        ["x-correlation-id", "x-ticket"].map(|name| sent.header(name).is_some())
    };
    let yaml = "propagation: { correlation: { headers: <> } }";
    key.live(yaml, ["[x-correlation-id]", "[x-ticket]"], see, [[true, false], [false, true]]);
}

fn a_correlation_id_has_a_form(key: Key) {
    let see = |car: &mut Car| {
        let sent = car.sends("/", "");
        sent.header("x-correlation-id").expect("it is sent").len()
    };
    let yaml = "propagation: { correlation: { generate: <> } }";
    key.live(yaml, ["trace_id", "uuidv7"], see, [32, 36]);
}

/// Whether a header is answered.
fn answered(name: &'static str) -> impl FnMut(&mut Car) -> bool {
    move |car| car.ask("/", "").header(name).is_some()
}

fn the_trace_is_shown_to_browsers(key: Key) {
    let see = answered("server-timing");
    key.live("propagation: { server_timing: <> }", ["true", "false"], see, [true, false]);
}

fn the_trace_is_answered(key: Key) {
    let see = answered("traceresponse");
    key.live("propagation: { traceresponse: <> }", ["false", "true"], see, [false, true]);
}

fn a_response_gets_the_time_that_it_lacks(key: Key) {
    let see = answered("date");
    key.live("propagation: { date: <> }", ["false", "true"], see, [false, true]);
}

fn the_program_names_itself(key: Key) {
    let see = |car: &mut Car| car.sends("/", "").header("via").map(str::to_owned);
    let expected = [None, Some("1.1 tracecar".to_owned())];
    key.live("propagation: { via: <> }", ["false", "true"], see, expected);
}
