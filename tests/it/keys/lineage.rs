//! How the request that caused a call is found. The service forwards nothing but what a fact is about.

use super::car::{Car, Key, attribute, unique};
use super::peers::echoed;

keys! {
    "lineage.methods" => methods_are_used_that_are_listed,
    "lineage.identity_headers" => a_header_names_a_request,
    "lineage.token_headers" => values_of_headers_are_compared,
    "lineage.json_fields" => values_in_content_are_compared,
    "lineage.tail" => a_request_causes_calls_after_its_answer,
    "lineage.background_window" => calls_of_nobody_are_held_against_a_destination,
    "lineage.guess_after" => a_service_is_watched_at_rest_first,
    "lineage.process_budget" => the_process_table_is_looked_into,
}

/// How the parent of a call was found.
fn method(span: &serde_json::Value) -> String {
    attribute(span, "tracecar.lineage.method")
}

fn methods_are_used_that_are_listed(key: Key) {
    let see = |car: &mut Car| method(&car.causes("", "X-Of: nobody", ""));
    let yaml = "outbound: { proxy: 'PROXY' }\nlineage: { methods: <>, guess_after: 0s }";
    key.live(yaml, ["[sole]", "[token]"], see, ["sole".to_owned(), "none".to_owned()]);
}

/// How the parent of a call is found that has the same value in this header as its request.
fn by_header(header: &'static str) -> impl FnMut(&mut Car) -> String {
    move |car| {
        let shared = format!("{header}: {}", unique());
        method(&car.causes(&format!("{shared}\r\n"), &shared, ""))
    }
}

fn a_header_names_a_request(key: Key) {
    let yaml = "outbound: { proxy: 'PROXY' }\nlineage: { methods: [correlation], identity_headers: <> }";
    let expected = ["none".to_owned(), "correlation".to_owned()];
    key.live(yaml, ["[]", "[x-tenant-request]"], by_header("x-tenant-request"), expected);
}

fn values_of_headers_are_compared(key: Key) {
    let yaml = "outbound: { proxy: 'PROXY' }\nlineage: { methods: [token], token_headers: <> }";
    let expected = ["none".to_owned(), "token".to_owned()];
    key.live(yaml, ["[authorization]", "[x-session]"], by_header("x-session"), expected);
}

fn values_in_content_are_compared(key: Key) {
    let see = |car: &mut Car| {
        let content = format!("{{\"order_id\":\"{}\"}}", unique());
        method(&car.causes("", "X-Of: nobody", &content))
    };
    let yaml = "outbound: { proxy: 'PROXY' }\nlineage: { methods: [token], json_fields: <> }";
    key.live(yaml, ["[]", "[order_id]"], see, ["none".to_owned(), "token".to_owned()]);
}

fn a_request_causes_calls_after_its_answer(key: Key) {
    let see = |car: &mut Car| {
        let sent = echoed(&car.ask("/", ""));
        car.span();
        let id = sent.header("x-correlation-id").expect("it is sent");
        car.call("/", &format!("X-Correlation-Id: {id}\r\n"));
        method(&car.span_of_call())
    };
    let yaml = "outbound: { proxy: 'PROXY' }\nlineage: { methods: [correlation], tail: <> }";
    key.live(yaml, ["0s", "1h"], see, ["none".to_owned(), "correlation".to_owned()]);
}

fn calls_of_nobody_are_held_against_a_destination(key: Key) {
    let see = |car: &mut Car| {
        car.call("/in-the-background", "");
        car.span_of_call();
        method(&car.causes("", "X-Of: nobody", ""))
    };
    let yaml =
        "outbound: { proxy: 'PROXY' }\nlineage: { methods: [sole], guess_after: 0s, background_window: <> }";
    key.live(yaml, ["1h", "0s"], see, ["none".to_owned(), "sole".to_owned()]);
}

fn a_service_is_watched_at_rest_first(key: Key) {
    let see = |car: &mut Car| method(&car.causes("", "X-Of: nobody", ""));
    let yaml = "outbound: { proxy: 'PROXY' }\nlineage: { methods: [sole], guess_after: <> }";
    key.live(yaml, ["1h", "0s"], see, ["none".to_owned(), "sole".to_owned()]);
}

fn the_process_table_is_looked_into(key: Key) {
    let see = |car: &mut Car| {
        let looks = |car: &Car| {
            let page = car.metrics();
            let all = page.sum("tracecar_process_lookups_total", &[]);
            all - page.sum("tracecar_process_lookups_total", &[("result", "over_budget")])
        };
        let before = looks(car);
        car.causes("", "X-Of: nobody", "");
        looks(car) > before
    };
    let yaml = "outbound: { proxy: 'PROXY' }\nlineage: { methods: [process], process_budget: <> }";
    key.live(yaml, ["0s", "20s"], see, [false, true]);
}
