//! What Go prints of a goroutine that panicked.

use super::super::{Cause, StackFrame};
use super::leading_number;

/// The stack of the first goroutine, from where it panicked; what recovered it and printed this is left out.
pub(super) fn find(lines: &[&str]) -> Option<Cause> {
    let start =
        lines.iter().position(|line| line.starts_with("goroutine ") && line.trim_end().ends_with("]:"))?;
    let mut cause = Cause::of("go");
    cause.message = lines.get(..start)?.iter().find_map(|line| {
        let (_, message) = line.split_once("panic: ").or_else(|| line.split_once("panic serving "))?;
        Some(message.trim_end_matches(" [recovered]").to_owned())
    });
    cause.kind = cause.message.is_some().then(|| "panic".to_owned());
    let mut function = None;
    for line in lines.get(start.saturating_add(1)..)? {
        if line.starts_with("goroutine ") {
            break;
        }
        match (line.strip_prefix('\t'), function.take()) {
            (Some(place), Some(name)) => match frame(name, place) {
                Some(_) if name.starts_with("panic(") => cause.frames.clear(),
                Some(frame) => cause.frames.push(frame),
                None => {}
            },
            (Some(_), None) => {}
            (None, _) => function = Some(*line),
        }
    }
    cause.frames.reverse();
    Some(cause)
}

/// `main.(*Shop).load(0x1, {0x2?})` over `/srv/app/main.go:16 +0x6e`.
fn frame(name: &str, place: &str) -> Option<StackFrame> {
    let (file, line) = place.rsplit_once(':')?;
    let (line, _) = leading_number(line)?;
    let name = name.strip_prefix("created by ").unwrap_or(name);
    let name = name.split_once(" in goroutine ").map_or(name, |(name, _)| name);
    // The last parenthesis that opens is that of the arguments, unless there are none.
    let name = name.strip_suffix(')').and_then(|name| name.rsplit_once('(')).map_or(name, |(name, _)| name);
    Some(StackFrame::new(file, Some(line), Some(name)))
}
