//! The languages whose frames begin with `at`: Java and its kin, JavaScript, and .NET.

use super::super::{Cause, StackFrame, phrase};
use super::leading_number;

/// Lines above the first frame among which the exception is named; a message can have several.
const LINES_BEFORE: usize = 12;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Language {
    Java,
    JavaScript,
    DotNet,
}

/// What containers wrap an exception in that they did not expect: it says nothing that the cause does not.
const WRAPPERS: [&str; 6] = [
    "ServletException",
    "NestedServletException",
    "InvocationTargetException",
    "UndeclaredThrowableException",
    "ExecutionException",
    "CompletionException",
];

/// The trace that comes first, which is the outermost exception's, unless that is a mere wrapper.
pub(super) fn find(lines: &[&str]) -> Option<Cause> {
    let (mut cause, mut rest) = first(lines)?;
    while is_wrapper(&cause)
        && let Some((inner, after)) = first(rest)
    {
        (cause, rest) = (inner, after);
    }
    if cause.message.is_none() {
        cause.message = root_cause(rest);
    }
    Some(cause)
}

fn is_wrapper(cause: &Cause) -> bool {
    let last = cause.kind.as_deref().and_then(|kind| kind.rsplit('.').next());
    last.is_some_and(|last| WRAPPERS.contains(&last))
}

/// The first trace, and the lines from its end.
fn first<'a, 'b>(lines: &'b [&'a str]) -> Option<(Cause, &'b [&'a str])> {
    let (start, language) = lines
        .iter()
        .enumerate()
        .find_map(|(index, line)| frame(line).map(|(language, _)| (index, language)))?;
    let mut cause = Cause::of(match language {
        Language::Java => "java",
        Language::JavaScript => "javascript",
        Language::DotNet => "dotnet",
    });
    let before = lines.get(start.saturating_sub(LINES_BEFORE)..start).unwrap_or_default();
    let header = before
        .iter()
        .rev()
        .filter(|line| !line.trim_start().starts_with("--->"))
        .find_map(|line| header(line));
    if let Some((kind, message)) = header {
        cause.kind = Some(kind.to_owned());
        cause.message = Some(message.to_owned()).filter(|message| !message.is_empty());
    }
    let after = lines.get(start..).unwrap_or_default();
    let mut read = 0_usize;
    for line in after {
        let text = line.trim();
        if let Some((_, frame)) = frame(line) {
            cause.frames.push(frame);
        } else if text.starts_with("--- End of inner") {
            // What .NET prints first is what was thrown first; the frames of the outer exception follow.
            cause.frames.clear();
        } else if !text.is_empty() && !text.starts_with("---") && !text.starts_with("...") {
            break;
        }
        read = read.saturating_add(1);
    }
    cause.frames.reverse();
    Some((cause, after.get(read..).unwrap_or_default()))
}

/// The last `Caused by:`, type and message.
fn root_cause(lines: &[&str]) -> Option<String> {
    let root = lines.iter().rev().find_map(|line| line.trim().strip_prefix("Caused by: "))?;
    phrase::exception(root).filter(|(_, message)| !message.is_empty()).map(|_| root.to_owned())
}

/// The line that names the exception.
fn header(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let line = line
        .strip_prefix("Exception in thread \"")
        .and_then(|rest| rest.split_once("\" "))
        .map_or(line, |(_, rest)| rest);
    let line =
        line.strip_prefix("Unhandled exception. ").or_else(|| line.strip_prefix("Uncaught ")).unwrap_or(line);
    let line = line.strip_prefix("Caused by: ").unwrap_or(line);
    phrase::capital_exception(line)
}

fn frame(line: &str) -> Option<(Language, StackFrame)> {
    let text = line.trim();
    let Some(text) = text.strip_prefix("at ") else {
        // Tomcat's pages leave `at` away.
        return java(text, false).map(|frame| (Language::Java, frame));
    };
    let text = text.trim_start();
    None.or_else(|| javascript(text).map(|frame| (Language::JavaScript, frame)))
        .or_else(|| java(text, true).map(|frame| (Language::Java, frame)))
        .or_else(|| dotnet(text).map(|frame| (Language::DotNet, frame)))
}

/// `read (/srv/app/shop.js:4:53)`, `/srv/app/shop.js:4:53`, `Array.map (<anonymous>)`.
fn javascript(text: &str) -> Option<StackFrame> {
    let text = text.strip_prefix("async ").unwrap_or(text);
    let (function, place) = match text.strip_suffix(')').and_then(|text| text.split_once(" (")) {
        Some((function, place)) => (Some(function), place),
        None => (None, text),
    };
    if place == "<anonymous>" || place == "native" {
        return Some(StackFrame::new(place, None, function));
    }
    // From the right, since a file can have colons: `node:internal/…`, `C:\…`.
    let (rest, column) = place.rsplit_once(':')?;
    let (file, line) = rest.rsplit_once(':')?;
    column.parse::<u32>().ok()?;
    Some(StackFrame::new(file, Some(line.parse().ok()?), function))
}

/// `com.example.Shop.order(Shop.java:22)`.
fn java(text: &str, marked: bool) -> Option<StackFrame> {
    // Logback says behind it which archive a class came from: `~[spring-web-6.jar:6.1]`.
    let text = text
        .split_once(") ~[")
        .or_else(|| text.split_once(") ["))
        .map_or(text, |(text, _)| text)
        .trim_end_matches(')');
    let (function, place) = text.split_once('(')?;
    let is_name = function.contains('.') && !function.contains(char::is_whitespace);
    let (file, line) = match place.split_once(':') {
        Some((file, line)) => (file, Some(line.parse().ok()?)),
        None => (place, None),
    };
    let is_source = [".java", ".kt", ".scala", ".groovy", ".clj"].iter().any(|end| file.ends_with(end));
    let is_word = matches!(file, "Native Method" | "Unknown Source" | "<generated>") && line.is_none();
    let is_generated = marked && file.starts_with('<') && line.is_some();
    (is_name && (is_source || is_word || is_generated)).then(|| StackFrame::new(file, line, Some(function)))
}

/// `Shop.Orders.Read(Int32 id) in /srv/app/Orders.cs:line 22`; the file only where there are symbols.
fn dotnet(text: &str) -> Option<StackFrame> {
    let (function, file, line) = match text.rsplit_once(") in ").and_then(|(function, place)| {
        let (file, line) = place.rsplit_once(":line ")?;
        Some((function, file, leading_number(line)?.0))
    }) {
        Some((function, file, line)) => (function, file, Some(line)),
        None => (text.strip_suffix(')')?, "", None),
    };
    let (name, parameters) = function.split_once('(')?;
    let is_name = name.contains('.') && !name.contains(char::is_whitespace);
    is_name.then(|| StackFrame::new(file, line, Some(&format!("{name}({parameters})"))))
}
