//! What all spans of a sidecar have in common (RES-1 to RES-3).

use rand::TryRngCore;
use rand::rngs::OsRng;

use crate::config::Service;
use crate::exchange::semconv;

/// The attributes of the resource of `service`, each key once.
pub(super) fn attributes(service: &Service) -> Vec<(String, String)> {
    let mut out: Vec<(String, String)> = Vec::with_capacity(service.attributes.len() + 5);
    // Of two values for a key the later stays. An instance id that somebody gave is better than ours; the name of
    // the SDK is not for anybody to change, since `opentelemetry` is taken (RES-3).
    let mut put = |key: &str, value: &str| match out.iter_mut().find(|(known, _)| known == key) {
        Some((_, known)) => value.clone_into(known),
        None => out.push((key.to_owned(), value.to_owned())),
    };
    put(semconv::SERVICE_INSTANCE_ID, &instance_id());
    for (key, value) in &service.attributes {
        put(key, value);
    }
    put(semconv::SERVICE_NAME, &service.name);
    put(semconv::TELEMETRY_SDK_NAME, "tracecar");
    put(semconv::TELEMETRY_SDK_LANGUAGE, "rust");
    put(semconv::TELEMETRY_SDK_VERSION, env!("CARGO_PKG_VERSION"));
    out
}

/// A UUID of version 4, made once per process (RES-2).
fn instance_id() -> String {
    let mut random = [0; 16];
    OsRng.try_fill_bytes(&mut random).expect("the operating system has random bytes");
    uuid::Builder::from_random_bytes(random).into_uuid().to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(given: &[(&str, &str)]) -> Vec<(String, String)> {
        let own = |(key, value): &(&str, &str)| ((*key).to_owned(), (*value).to_owned());
        attributes(&Service { name: "shop".into(), named: true, attributes: given.iter().map(own).collect() })
    }

    /// The one value for a key.
    fn text<'a>(attributes: &'a [(String, String)], key: &str) -> &'a str {
        let mut values = attributes.iter().filter(|(known, _)| known == key).map(|(_, value)| value);
        let value = values.next().expect("it is there");
        assert_eq!(values.next(), None, "{key} appears twice");
        value
    }

    #[test]
    fn an_instance_id_is_made_only_where_none_was_given() {
        let made = of(&[]);
        let uuid = uuid::Uuid::parse_str(text(&made, "service.instance.id")).unwrap();
        assert_eq!(uuid.get_version_num(), 4);
        assert_eq!(text(&of(&[("service.instance.id", "pod-1")]), "service.instance.id"), "pod-1");
    }

    #[test]
    fn nobody_can_claim_the_name_of_another_sdk() {
        let attributes = of(&[("telemetry.sdk.name", "opentelemetry"), ("team", "blue")]);
        assert_eq!(text(&attributes, "telemetry.sdk.name"), "tracecar");
        assert_eq!(text(&attributes, "team"), "blue");
    }

    #[test]
    fn of_two_values_for_a_key_the_later_stays() {
        let attributes = of(&[("team", "blue"), ("team", "red"), ("service.name", "other")]);
        assert_eq!(text(&attributes, "team"), "red");
        assert_eq!(text(&attributes, "service.name"), "shop");
    }
}
