//! PHP's fatal errors and traces, in text and in the text of a page.

use super::super::{Cause, StackFrame, phrase};
use super::leading_number;

/// The exception that is printed last: PHP prints the previous ones before it.
pub(super) fn find(lines: &[&str]) -> Option<Cause> {
    let mut cause = None;
    for line in lines {
        let text = line.trim();
        if let Some(thrown) = thrown(text) {
            cause = Some(thrown);
        } else if let Some(frame) = frame(text)
            && let Some(cause) = &mut cause
        {
            // Whoops counts the place of the exception among the calls.
            if let [thrown] = cause.frames.as_slice()
                && (&thrown.file, thrown.line) == (&frame.file, frame.line)
            {
                continue;
            }
            cause.frames.push(frame);
        }
    }
    let mut cause = cause?;
    cause.frames.reverse();
    Some(cause)
}

/// The line that names exception, message and place: `Uncaught OrderError: order 42 in /srv/app/shop.php:5`.
fn thrown(text: &str) -> Option<Cause> {
    // The place once more, under the trace.
    if text.starts_with("thrown in ") {
        return None;
    }
    let unprefixed = text.strip_prefix("PHP ").unwrap_or(text);
    let error = ["Fatal error:", "Parse error:", "Recoverable fatal error:"]
        .iter()
        .find_map(|start| unprefixed.strip_prefix(start));
    let said = error.unwrap_or(text).trim();
    let uncaught = said.strip_prefix("Uncaught ").or_else(|| text.strip_prefix("Next "));
    let (message, file, line) = place(uncaught.unwrap_or(said))?;
    let named = phrase::exception(message);
    // Whoops and Ignition leave `Uncaught` away; the place must then make up for it.
    if error.is_none() && uncaught.is_none() && (named.is_none() || !file.ends_with(".php")) {
        return None;
    }
    let mut cause = Cause::of("php");
    cause.frames.push(StackFrame::new(file, Some(line), None));
    match named.filter(|_| uncaught.is_some() || error.is_none()) {
        Some((kind, message)) => {
            cause.kind = Some(kind.to_owned());
            cause.message = Some(message.to_owned()).filter(|message| !message.is_empty());
        }
        None => cause.message = Some(message.to_owned()),
    }
    Some(cause)
}

/// Message, file and line of `… in /srv/app/shop.php:5` or `… in /srv/app/shop.php on line 5`.
fn place(text: &str) -> Option<(&str, &str, u32)> {
    let (message, place) = text.rsplit_once(" in ")?;
    let place = place.strip_prefix("file ").unwrap_or(place);
    let (file, line) = place.split_once(" on line ").or_else(|| place.rsplit_once(':'))?;
    let (line, rest) = leading_number(line.trim())?;
    (rest.trim().is_empty() && file.contains(['/', '\\'])).then_some((message, file, line))
}

/// `#0 /srv/app/shop.php(5): App\Shop->read(42)`, or Whoops's `  1. App\Shop->read() /srv/app/shop.php:5`.
fn frame(text: &str) -> Option<StackFrame> {
    if let Some(rest) = text.strip_prefix('#') {
        let (_, rest) = leading_number(rest)?;
        let (place, call) = rest.trim_start().split_once(": ")?;
        let function = call.split('(').next();
        let (file, line) = match place.strip_suffix(')').and_then(|place| place.rsplit_once('(')) {
            Some((file, line)) => (file, line.parse().ok()),
            None => (place, None),
        };
        return Some(StackFrame::new(file, line, function));
    }
    let (_, rest) = leading_number(text)?;
    let (call, place) = rest.strip_prefix(". ")?.rsplit_once(' ')?;
    let (file, line) = place.rsplit_once(':')?;
    Some(StackFrame::new(file, Some(line.parse().ok()?), call.split('(').next()))
}
