//! Messages that are lists: validation errors, by field or one after the other.

use serde_json::{Map, Value};

use super::super::phrase;

/// How many of them are put into a message.
const MAX_LISTED: usize = 5;

/// The entries of a list or an object of strings as one message: `email: is invalid; name: is long`. What is an
/// object of another kind has members of its own to look for, and gives none.
pub(super) fn message(value: &Value) -> Option<String> {
    match value {
        Value::Array(values) => joined(values.iter().map_while(entry)),
        Value::Object(object) => fields(object),
        _ => None,
    }
}

/// An object of which every member is a list of strings, as Rails, Laravel, ASP.NET and Django's REST framework answer.
pub(super) fn fields(object: &Map<String, Value>) -> Option<String> {
    let mut parts = Vec::new();
    for (name, value) in object.iter().take(MAX_LISTED) {
        let Value::Array(values) = value else { return None };
        let listed = joined(values.iter().map_while(|value| value.as_str().map(str::to_owned)))?;
        parts.push(format!("{name}: {listed}"));
    }
    joined(parts.into_iter())
}

/// One entry: a string, or a validation error that says where (FastAPI's `loc` and `msg`).
fn entry(value: &Value) -> Option<String> {
    if let Some(text) = value.as_str() {
        return phrase::one_line(text);
    }
    let said = value.get("msg")?.as_str()?;
    let place: Vec<String> = value.get("loc").and_then(Value::as_array).map_or_else(Vec::new, |parts| {
        parts.iter().map(|part| part.as_str().map_or_else(|| part.to_string(), str::to_owned)).collect()
    });
    Some(if place.is_empty() { said.to_owned() } else { format!("{}: {said}", place.join(".")) })
}

fn joined(parts: impl Iterator<Item = String>) -> Option<String> {
    let parts: Vec<String> = parts.take(MAX_LISTED).collect();
    (!parts.is_empty()).then(|| parts.join("; "))
}
