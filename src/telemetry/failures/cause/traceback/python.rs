//! Python's tracebacks, and the frames of the debug pages of its frameworks.

use super::super::{Cause, StackFrame, phrase};
use super::leading_number;

/// The traceback of the exception that was raised last.
pub(super) fn find(lines: &[&str]) -> Option<Cause> {
    let mut cause = Cause::of("python");
    let mut seen = false;
    // Frames as the interpreter prints them are followed by source and, when they end, by the exception.
    let mut plain = false;
    for line in lines {
        let line = without_group(line);
        let text = line.trim();
        if is_start(text) {
            // What came before is the cause of what comes now, or the same once more.
            cause.frames.clear();
            plain = false;
        } else if let Some(frame) = frame(text) {
            plain = line.starts_with("  File \"");
            seen = true;
            cause.frames.push(frame);
        } else if plain && !line.starts_with(' ') && !text.is_empty() {
            if let Some((kind, message)) = phrase::exception(text) {
                cause.kind = Some(kind.to_owned());
                cause.message = Some(message.to_owned()).filter(|message| !message.is_empty());
            }
            plain = false;
        } else if plain
            && line.starts_with("    ")
            && let Some(last) = cause.frames.last_mut()
            && last.code.is_none()
        {
            last.code = Some(text.to_owned());
        }
    }
    seen.then_some(cause)
}

/// Where the frames of another exception begin.
fn is_start(text: &str) -> bool {
    text.contains("Traceback (most recent call last)")
        || text.ends_with("of the following exception:")
        || text.ends_with("another exception occurred:")
}

/// `line` without the bars that an exception group draws before it.
fn without_group(mut line: &str) -> &str {
    while let Some(rest) = line.trim_start().strip_prefix('|') {
        line = rest.strip_prefix(' ').unwrap_or(rest);
    }
    line
}

/// `File "/srv/app/shop.py", line 15, in read`; debug pages leave `File` or the quotes away.
fn frame(text: &str) -> Option<StackFrame> {
    let (place, rest) = text.split_once(", line ")?;
    let quoted = place.strip_prefix("File \"").and_then(|file| file.strip_suffix('"'));
    let file = quoted.unwrap_or_else(|| place.strip_prefix("File ").unwrap_or(place).trim_matches('"'));
    let (number, rest) = leading_number(rest)?;
    let function = rest.strip_prefix(", in ");
    let is_path = file.contains(['/', '\\', '<']) || file.ends_with(".py");
    // Without its quotes it could be a sentence, so it has to have all of its parts.
    let whole = quoted.is_some() || (function.is_some() && is_path && !file.contains(' '));
    whole.then(|| StackFrame::new(file, Some(number), function))
}
