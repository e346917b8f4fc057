//! Answers in plain text: traces, the text pages of frameworks, and messages.

use super::{Cause, bounded, phrase, scrub, traceback};

/// Characters of a line that is taken for a message because nothing better is there.
const MAX_LINE: usize = 200;

/// Frameworks and proxies by what only they write.
const SOURCES: [(&str, &str); 9] = [
    ("Django Version:", "django"),
    ("Rails.root:", "rails"),
    ("\nHEADERS\n=======", "aspnet"),
    ("HTTP ERROR ", "jetty"),
    ("⚠️ ", "sanic"),
    ("upstream connect error or disconnect/reset before headers", "envoy"),
    ("upstream request timeout", "envoy"),
    ("no healthy upstream", "envoy"),
    ("An unhandled lowlevel error occurred", "puma"),
];

pub(super) fn read(text: &str) -> Option<Cause> {
    let source = SOURCES.iter().find(|(mark, _)| text.contains(mark)).map(|(_, source)| *source);
    let trace = traceback::find(text);
    let said = match source {
        Some("django") => django(text),
        Some("rails") => rails(text),
        Some("sanic") => sanic(text),
        Some("jetty") => member(text, "MESSAGE: ").map(|said| match phrase::exception(said) {
            Some((kind, said)) => Cause { kind: Some(kind.to_owned()), ..message(said) },
            None => message(said),
        }),
        _ => None,
    };
    let mut cause = match (said, trace) {
        // Rails writes types and messages around its traces; a line above a trace is then none.
        (Some(said), Some(trace)) => Cause { source: trace.source, ..said.or(trace) },
        (Some(said), None) => said,
        (None, Some(trace)) => trace,
        (None, None) => message(&first_line(text).unwrap_or_default()),
    };
    if cause.source.is_empty() {
        cause.source = "text";
    }
    cause.source = source.unwrap_or(cause.source);
    (cause.says_something() || source.is_some()).then_some(cause)
}

fn message(text: &str) -> Cause {
    Cause { message: Some(text.to_owned()).filter(|text| !text.is_empty()), ..Cause::default() }
}

/// The first line that says more than the status.
fn first_line(text: &str) -> Option<String> {
    let line = text.lines().filter_map(phrase::one_line).find(|line| {
        // A rule under a heading is a line as well.
        line.contains(char::is_alphanumeric) && !phrase::is_empty_talk(line)
    })?;
    Some(phrase::shortened(&scrub::text(bounded(&line)), MAX_LINE))
}

/// What follows `name` on the first line that begins with it.
fn member<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .find_map(|line| line.trim_start().strip_prefix(name))
        .map(str::trim)
        .filter(|value| !value.is_empty())
}

/// Its debug page for those who do not ask for HTML: `OrderError at /orders/42`, and the message below.
fn django(text: &str) -> Option<Cause> {
    let (kind, _) = text.lines().next()?.split_once(" at ")?;
    let kind = member(text, "Exception Type: ").and_then(|line| line.split(" at ").next()).unwrap_or(kind);
    let value = member(text, "Exception Value: ").or_else(|| text.lines().nth(1));
    Some(Cause { kind: Some(kind.to_owned()), ..message(value.unwrap_or_default()) })
}

/// Its debug page for XMLHttpRequests: `OrderError in OrdersController#show`, and the message below.
fn rails(text: &str) -> Option<Cause> {
    let (kind, _) = text.lines().next()?.split_once(" in ")?;
    let value = text.lines().skip(1).find(|line| !line.trim().is_empty());
    Some(Cause { kind: Some(kind.to_owned()), ..message(value.unwrap_or_default()) })
}

/// Three lines of heading; in debug mode a line with type, message and path.
fn sanic(text: &str) -> Option<Cause> {
    let value = text.lines().nth(2)?;
    let kind = text.lines().find_map(|line| line.split_once(" while handling path ")?.0.split_once(": "));
    let Some((kind, _)) = kind else {
        return Some(message(if phrase::is_empty_talk(value) { "" } else { value }));
    };
    // The last of the exceptions is the one; what it was raised from comes before it.
    let last = text.rfind(&format!("\n  {kind}: ")).and_then(|at| text.get(at..)).unwrap_or(text);
    let frames = traceback::find(last).unwrap_or_default().frames;
    Some(Cause { kind: Some(kind.to_owned()), frames, ..message(value) })
}
