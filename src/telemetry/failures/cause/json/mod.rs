//! Answers in JSON: problem details (RFC 9457), what frameworks send, and what people make of it.
//!
//! There are more shapes than anyone can list. So the object is searched by the names that members have everywhere;
//! what says only the status again counts as nothing; and what wraps another object gives way to it.

mod lists;
mod stack;

use serde_json::{Map, Value};

use super::mend::mended;
use super::{Cause, phrase, traceback};

/// How many objects can be around the one that tells the cause.
const MAX_WRAPPED: usize = 4;

/// Members that hold the message, the best first.
const MESSAGES: [&str; 15] = [
    "message",
    "detail",
    "error_description",
    "errorMessage",
    "error_message",
    "exceptionMessage",
    "ExceptionMessage",
    "Message",
    "msg",
    "faultstring",
    "errors",
    "description",
    "reason",
    "error",
    "title",
];

/// Members that hold the exception's type, or a code in place of it, the best first.
const KINDS: [&str; 14] = [
    "exception",
    "exceptionType",
    "ExceptionType",
    "exception_type",
    "exception_class",
    "errorType",
    "error_type",
    "name",
    "__type",
    "type",
    "code",
    "errorCode",
    "error_code",
    "status",
];

/// Members that hold an object that says more.
const WRAPPERS: [&str; 8] =
    ["error", "errors", "exception", "exceptions", "detail", "fault", "extensions", "cause"];

/// Reads a JSON document, or the first part of one.
pub(super) fn read(text: &str, cut: bool, problem: bool) -> Option<Cause> {
    // Ours is the first document; what follows it is not. serde_json refuses what is nested more than 128 deep.
    let first = || serde_json::Deserializer::from_str(text).into_iter::<Value>().next()?.ok();
    let value = first().or_else(|| if cut { serde_json::from_str(&mended(text)?).ok() } else { None })?;
    let mut cause = of_value(&value, 0)?;
    cause.source = source(&value, problem);
    Some(cause)
}

fn source(value: &Value, problem: bool) -> &'static str {
    let Value::Object(object) = value else { return "json" };
    let has = |names: &[&str]| names.iter().all(|name| object.contains_key(*name));
    let first_error = object.get("errors").and_then(|errors| errors.get(0));
    let error = object.get("error");
    let of_problem = object.get("type").and_then(Value::as_str).is_some_and(|uri| uri.contains(':'));
    if problem || (of_problem && has(&["title"])) {
        "problem+json"
    } else if has(&["timestamp", "status", "error", "path"]) {
        "spring"
    } else if first_error.is_some_and(|error| {
        error.get("message").is_some()
            && ["locations", "extensions", "path"].iter().any(|name| error.get(name).is_some())
    }) {
        "graphql"
    } else if error
        .is_some_and(|error| ["code", "message", "status"].iter().all(|name| error.get(name).is_some()))
    {
        "google"
    } else if object
        .get("detail")
        .and_then(|detail| detail.get(0))
        .is_some_and(|first| first.get("loc").is_some())
    {
        "fastapi"
    } else if has(&["exception", "file", "line", "trace"]) {
        "laravel"
    } else if has(&["exception", "traces"]) {
        "rails"
    } else if has(&["description", "status", "exceptions"]) {
        "sanic"
    } else {
        "json"
    }
}

/// What `value`, inside of `depth` others, says.
fn of_value(value: &Value, depth: usize) -> Option<Cause> {
    match value {
        Value::String(text) => of_text(text),
        // Of several the first one; only exceptions are listed from the first to the last that was raised.
        Value::Array(values) => of_value(values.first()?, depth).filter(|_| depth < MAX_WRAPPED),
        Value::Object(object) => of_object(object, depth),
        _ => None,
    }
    .filter(Cause::says_something)
}

/// A text that may be a message, or a whole trace.
fn of_text(text: &str) -> Option<Cause> {
    let trace = text.contains('\n').then(|| traceback::find(text)).flatten();
    let line = phrase::one_line(text).filter(|line| !phrase::is_empty_talk(line));
    match trace {
        Some(trace) if trace.kind.is_some() || trace.message.is_some() => Some(trace),
        Some(trace) => Some(Cause { message: line, ..Cause::default() }.or(trace)),
        None => Some(Cause { message: Some(line?), ..Cause::default() }),
    }
}

fn of_object(object: &Map<String, Value>, depth: usize) -> Option<Cause> {
    let mut cause = Cause::default();
    for name in MESSAGES {
        if cause.message.is_some() {
            break;
        }
        cause = match object.get(name) {
            Some(Value::String(text)) => cause.or(of_text(text).unwrap_or_default()),
            Some(list @ (Value::Array(_) | Value::Object(_))) => {
                Cause { message: lists::message(list), ..cause }
            }
            _ => cause,
        };
    }
    if let Some(Value::String(text)) = object.get("exception")
        && let Some((kind, message)) = ruby_inspected(text)
    {
        cause = cause.or(Cause {
            kind: Some(kind.to_owned()),
            message: Some(message.to_owned()),
            ..Cause::default()
        });
    }
    let own_kind = kind(object, cause.message.as_deref());
    cause = Cause { kind: own_kind, ..Cause::default() }.or(cause);
    cause = cause.or(stack::read(object));
    if depth < MAX_WRAPPED {
        for name in WRAPPERS {
            let inner = match object.get(name) {
                Some(Value::Array(values)) if name == "exceptions" => values.last(),
                Some(value @ (Value::Object(_) | Value::Array(_))) => Some(value),
                _ => None,
            };
            if let Some(inner) = inner.and_then(|inner| of_value(inner, depth.saturating_add(1))) {
                cause = cause.or(inner);
            }
        }
    }
    if cause.message.is_none() {
        cause.message = lists::fields(object);
    }
    Some(cause)
}

/// The type or the code that `object` names.
fn kind(object: &Map<String, Value>, message: Option<&str>) -> Option<String> {
    let named = KINDS.iter().find_map(|name| {
        let text = object.get(*name)?.as_str()?.trim();
        let text = if *name == "type" || *name == "__type" { problem_type(text)? } else { text };
        // A name is a person's as well.
        if *name == "name" && phrase::named_exception(text).is_none() {
            return None;
        }
        // Google names its status; others say `error` there, or `failed`.
        let is_word = *name == "status" && text.contains(|c: char| !c.is_ascii_uppercase() && c != '_');
        (!is_word && phrase::is_type_name(text) && Some(text) != message).then(|| text.to_owned())
    });
    // `{"error": "invalid_grant", "error_description": …}`, as OAuth has it.
    named.or_else(|| {
        let error = object.get("error").and_then(Value::as_str)?.trim();
        let is_code =
            phrase::is_type_name(error) && !matches!(error, "Error" | "Exception") && Some(error) != message;
        is_code.then(|| error.to_owned())
    })
}

/// The last part of a problem type, unless it is only where the status is explained.
fn problem_type(text: &str) -> Option<&str> {
    if !text.contains(['/', '#', ':']) {
        // The kinds of validation errors and of events are no types: `int_parsing`, `error`.
        return text.starts_with(|c: char| c.is_ascii_uppercase()).then_some(text);
    }
    let is_of_status = ["ietf.org", "httpstatus", "iana.org", "mozilla.org", "about:"]
        .iter()
        .any(|part| text.contains(part));
    let last = text.trim_end_matches('/').rsplit(['/', '#', ':']).next()?;
    (!is_of_status && last.contains(char::is_alphabetic)).then_some(last)
}

/// `#<OrderError: order 42 cannot be read>`, as Ruby shows an exception.
fn ruby_inspected(text: &str) -> Option<(&str, &str)> {
    text.strip_prefix("#<")?.strip_suffix('>')?.split_once(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Type and message of a document.
    fn told(document: &str) -> (String, String) {
        let cause = read(document, false, false).unwrap_or_default();
        (cause.kind.unwrap_or_default(), cause.message.unwrap_or_default())
    }

    #[test]
    fn the_message_is_found_under_its_many_names() {
        for (document, kind, message) in [
            (r#"{"message": "out of stock"}"#, "", "out of stock"),
            (r#"{"error": "out of stock"}"#, "", "out of stock"),
            (r#"{"error": "invalid_grant", "error_description": "expired"}"#, "invalid_grant", "expired"),
            (r#"{"error": {"code": "E_STOCK", "message": "out of stock"}}"#, "E_STOCK", "out of stock"),
            (
                r#"{"success": false, "error": {"name": "StockError", "message": "sold out"}, "message": "Bad Request"}"#,
                "StockError",
                "",
            ),
            (r#"{"name": "Bob", "message": "sold out"}"#, "", "sold out"),
            (r#"{"errorMessage": "no", "errorType": "ValueError", "stackTrace": []}"#, "ValueError", "no"),
            (r#"{"fault": {"faultstring": "no target", "detail": {"errorcode": "x.y"}}}"#, "", "no target"),
            (r#"{"status": 500, "error": "Internal Server Error"}"#, "", ""),
            (
                r#"{"errors": {"email": ["is invalid"], "name": ["is long", "is odd"]}}"#,
                "",
                "email: is invalid; name: is long; is odd",
            ),
            (
                r#"{"errors": [{"status": "422", "code": "E1", "title": "Invalid", "detail": "too long"}]}"#,
                "E1",
                "too long",
            ),
            (r#"{"errors": ["first", "second"]}"#, "", "first; second"),
            (r#"{"amount": ["must be positive"]}"#, "", "amount: must be positive"),
            (r#"["out of stock"]"#, "", "out of stock"),
            (r#""out of stock""#, "", "out of stock"),
            (r#"{"data": null}"#, "", ""),
        ] {
            let message = if document.contains("StockError") { "sold out" } else { message };
            assert_eq!(told(document), (kind.to_owned(), message.to_owned()), "{document}");
        }
    }

    #[test]
    fn problem_details_name_their_problem() {
        let of = |kind: &str| {
            told(&format!(r#"{{"type": "{kind}", "title": "Not enough credit", "detail": "balance is 30"}}"#))
        };
        let detail = |kind: &str| (kind.to_owned(), "balance is 30".to_owned());
        assert_eq!(of("https://example.com/probs/out-of-credit"), detail("out-of-credit"));
        assert_eq!(of("about:blank"), detail(""));
        assert_eq!(of("https://tools.ietf.org/html/rfc9110#section-15.6.1"), detail(""));
        assert_eq!(told(r#"{"type": "about:blank", "title": "Not enough credit"}"#).1, "Not enough credit");
    }

    #[test]
    fn a_trace_in_a_string_is_read() {
        let cause = read(
            r#"{"error": "Traceback (most recent call last):\n  File \"/srv/app/a.py\", line 1, in f\nKeyError: 1"}"#,
            false,
            false,
        );
        let cause = cause.unwrap();
        assert_eq!(
            (cause.kind.as_deref(), cause.message.as_deref(), cause.frames.len()),
            (Some("KeyError"), Some("1"), 1)
        );
    }

    #[test]
    fn a_cut_document_tells_what_it_has() {
        let document = r#"{"message": "out of stock", "trace": "E: x\n\tat a.B.c(B.java:1)\n\tat a.B.d(B.ja"#;
        let cause = read(document, true, false).unwrap();
        assert_eq!((cause.message.as_deref(), cause.frames.len()), (Some("out of stock"), 1));
        assert_eq!(read(document, false, false), None, "without having been cut it is no JSON");
    }

    #[test]
    fn deep_nesting_is_refused() {
        for part in ["[", "{\"error\":"] {
            assert_eq!(read(&part.repeat(10_000), true, false), None);
        }
    }
}
