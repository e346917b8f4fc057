//! What spans say, and which there are.

use opentelemetry_proto::tonic::common::v1::any_value::Value;

use super::car::{Car, Key, attribute};
use super::exporting::Exported;

keys! {
    "service.name" => the_name_of_the_service_is_in_the_resource,
    "service.namespace" => the_namespace_is_in_the_resource,
    "service.version" => the_version_is_in_the_resource,
    "service.environment" => the_environment_is_in_the_resource,
    "service.attributes" => further_attributes_are_in_the_resource,
    "routes" => a_template_names_spans,
    "url_query.redact" => values_of_a_query_are_hidden,
    "url_query.allow" => values_of_some_keys_may_be_seen,
    "known_methods" => a_method_is_named_if_it_is_known,
    "grpc.methods" => a_method_of_grpc_is_named_if_it_is_known,
    "sampling.sampler" => the_sampler_decides_which_traces_are_kept,
    "sampling.ratio" => the_ratio_says_how_many_traces_are_kept,
}

/// An attribute of the resource, as a collector sees it with each value.
fn in_the_resource(key: Key, yaml: &str, values: [&str; 2], attribute: &str, expected: [Option<&str>; 2]) {
    let mut collector = Exported::new();
    let key = key.word("COLLECTOR", collector.url());
    let yaml =
        format!("{yaml}\nexport: {{ otlp: {{ endpoint: COLLECTOR, queue: {{ schedule_delay: 10ms }} }} }}\n");
    let see = |car: &mut Car| {
        let received = collector.request_about(car);
        let resource = received.content.resource_spans[0].resource.clone().expect("RES-1");
        let pair = resource.attributes.into_iter().find(|pair| pair.key == attribute)?;
        match pair.value?.value? {
            Value::StringValue(text) => Some(text),
            other => panic!("{other:?} is no text"),
        }
    };
    key.live(&yaml, values, see, expected.map(|text| text.map(str::to_owned)));
}

fn the_name_of_the_service_is_in_the_resource(key: Key) {
    let expected = [Some("shop"), Some("store")];
    in_the_resource(key, "service: { name: <> }", ["shop", "store"], "service.name", expected);
}

fn the_namespace_is_in_the_resource(key: Key) {
    let yaml = "service: { name: shop, namespace: <> }";
    in_the_resource(key, yaml, ["null", "payments"], "service.namespace", [None, Some("payments")]);
}

fn the_version_is_in_the_resource(key: Key) {
    let yaml = "service: { name: shop, version: <> }";
    in_the_resource(key, yaml, ["1.9", "1.10"], "service.version", [Some("1.9"), Some("1.10")]);
}

fn the_environment_is_in_the_resource(key: Key) {
    let yaml = "service: { name: shop, environment: <> }";
    let expected = [None, Some("staging")];
    in_the_resource(key, yaml, ["null", "staging"], "deployment.environment.name", expected);
}

fn further_attributes_are_in_the_resource(key: Key) {
    let yaml = "service: { name: shop, attributes: <> }";
    in_the_resource(key, yaml, ["{}", "{ team: risk }"], "team", [None, Some("risk")]);
}

fn a_template_names_spans(key: Key) {
    let see = |car: &mut Car| {
        car.ask("/items/7", "");
        car.span()["name"].to_string()
    };
    let expected = ["\"GET\"", "\"GET /items/{id}\""].map(str::to_owned);
    key.live("routes: <>", ["[]", "['/items/{id}']"], see, expected);
}

/// The query of `/?page=2&token=secret` in its span.
fn query(car: &mut Car) -> String {
    car.ask("/?page=2&token=secret", "");
    attribute(&car.span(), "url.query")
}

fn values_of_a_query_are_hidden(key: Key) {
    let expected = ["page=REDACTED&token=REDACTED", "page=2&token=secret"].map(str::to_owned);
    key.live("url_query: { redact: <> }", ["all", "off"], query, expected);
}

fn values_of_some_keys_may_be_seen(key: Key) {
    let expected = ["page=REDACTED&token=REDACTED", "page=2&token=REDACTED"].map(str::to_owned);
    key.live("url_query: { allow: <> }", ["[]", "[page]"], query, expected);
}

fn a_method_is_named_if_it_is_known(key: Key) {
    let see = |car: &mut Car| {
        super::peers::ask(car.place.listen, "PURGE", "/", "");
        attribute(&car.span(), "http.request.method")
    };
    key.live("known_methods: <>", ["[GET]", "[GET, PURGE]"], see, ["_OTHER".to_owned(), "PURGE".to_owned()]);
}

fn a_method_of_grpc_is_named_if_it_is_known(key: Key) {
    let see = |car: &mut Car| {
        super::peers::ask(car.place.listen, "POST", "/shop.Stock/Get", "Content-Type: application/grpc\r\n");
        car.span()["name"].to_string()
    };
    let expected = ["\"grpc\"", "\"shop.Stock/Get\""].map(str::to_owned);
    key.live("grpc: { methods: <> }", ["[shop.Cart/Add]", "['shop.Stock/*']"], see, expected);
}

/// Whether the trace of a request that comes without one is kept, as its service is told.
fn kept(car: &mut Car) -> bool {
    let sent = car.sends("/", "");
    let flags = sent.header("traceparent").expect("it is sent").rsplit('-').next();
    u8::from_str_radix(flags.expect("it has flags"), 16).expect("in hex") & 1 == 1
}

fn the_sampler_decides_which_traces_are_kept(key: Key) {
    key.live("sampling: { sampler: <> }", ["always_off", "always_on"], kept, [false, true]);
}

fn the_ratio_says_how_many_traces_are_kept(key: Key) {
    key.live("sampling: { sampler: traceidratio, ratio: <> }", ["0.0", "1.0"], kept, [false, true]);
}
