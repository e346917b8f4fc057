//! Ruby's backtraces.

use super::super::{Cause, StackFrame, phrase};
use super::leading_number;

/// The longest run of frames: Rails shows a trace of the service's own, one of the framework's, and all of it.
pub(super) fn find(lines: &[&str]) -> Option<Cause> {
    let mut cause = Cause::of("ruby");
    let mut run = Vec::new();
    let mut first = None;
    for (index, line) in lines.iter().enumerate() {
        match frame(line.trim()) {
            Some((frame, rest)) => {
                first = first.or(Some((index, rest)));
                run.push(frame);
            }
            // An HTML page has blank lines between them.
            None if line.trim().is_empty() => {}
            None => keep_longer(&mut cause.frames, &mut run),
        }
    }
    keep_longer(&mut cause.frames, &mut run);
    let (index, rest) = first?;
    // `shop.rb:7:in 'read': order 42 (OrderError)`, or the exception stands on a line above.
    let inside =
        rest.trim_start_matches(':').trim().strip_suffix(')').and_then(|rest| rest.rsplit_once(" ("));
    let above = || lines.get(..index)?.iter().rev().take(3).find_map(|line| phrase::capital_exception(line));
    if let Some((kind, message)) = inside.map(|(message, kind)| (kind, message)).or_else(above) {
        cause.kind = Some(kind.to_owned());
        cause.message = Some(message.to_owned()).filter(|message| !message.is_empty());
    }
    cause.frames.reverse();
    Some(cause)
}

fn keep_longer(kept: &mut Vec<StackFrame>, run: &mut Vec<StackFrame>) {
    if run.len() > kept.len() {
        *kept = std::mem::take(run);
    }
    run.clear();
}

/// `/srv/app/shop.rb:7:in 'read'`, and what follows it. Before Ruby 3.4 the first quote was another.
fn frame(text: &str) -> Option<(StackFrame, &str)> {
    let text = text.strip_prefix("from ").unwrap_or(text);
    let (place, rest) = text.split_once(":in `").or_else(|| text.split_once(":in '"))?;
    let (file, line) = place.rsplit_once(':')?;
    let (line, _) = leading_number(line).filter(|(_, rest)| rest.is_empty())?;
    let (function, rest) = rest.split_once('\'')?;
    Some((StackFrame::new(file, Some(line), Some(function)), rest))
}
