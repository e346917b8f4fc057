//! Stacks in JSON: as one string, as a list of lines, as a list of frames, and under the names that they have.

use serde_json::{Map, Value};

use super::super::{Cause, StackFrame, traceback};

/// Members that hold a stack.
const STACKS: [&str; 12] = [
    "stack",
    "stacktrace",
    "stackTrace",
    "stack_trace",
    "StackTrace",
    "StackTraceString",
    "trace",
    "traceback",
    "backtrace",
    "frames",
    "traces",
    "details",
];

/// The stack of `object`, with the type and the message that stand in it.
pub(super) fn read(object: &Map<String, Value>) -> Cause {
    let mut cause = STACKS.iter().find_map(|name| stack(object.get(*name)?)).unwrap_or_default();
    // Laravel tells the place of the exception beside its trace.
    if let (Some(file), Some(line)) = (object.get("file").and_then(Value::as_str), object.get("line"))
        && object.contains_key("trace")
    {
        cause.frames.push(StackFrame::new(file, number(line), None));
    }
    cause
}

fn stack(value: &Value) -> Option<Cause> {
    match value {
        Value::String(text) => traceback::find(text),
        Value::Array(values) if values.first()?.is_string() => {
            let lines: Vec<&str> = values.iter().filter_map(Value::as_str).collect();
            traceback::find(&lines.join("\n"))
        }
        Value::Array(values) => {
            let mut frames: Vec<StackFrame> = values.iter().filter_map(frame).collect();
            // Python alone lists the outermost first; Sanic, whose shape this is, has `src` and `name`.
            let innermost_first = !values.first()?.get("src").is_some_and(Value::is_string);
            if innermost_first {
                frames.reverse();
            }
            (!frames.is_empty()).then(|| Cause { frames, ..Cause::default() })
        }
        // Rails has three of them, and the last one is the whole.
        Value::Object(traces) => {
            let full = traces.get("Full Trace")?.as_array()?;
            let lines: Vec<&str> = full.iter().filter_map(|frame| frame.get("trace")?.as_str()).collect();
            traceback::find(&lines.join("\n")).map(|cause| Cause { kind: None, message: None, ..cause })
        }
        _ => None,
    }
}

fn frame(value: &Value) -> Option<StackFrame> {
    let text = |names: &[&str]| names.iter().find_map(|name| value.get(name)?.as_str());
    let file = text(&["file", "fileName", "filename", "path"]);
    let function = text(&["function", "methodName", "method", "name"]);
    let class = text(&["class", "className", "declaringClass"]);
    let line = ["line", "lineNumber", "lineno"].iter().find_map(|name| number(value.get(name)?));
    let joined = match (class, function) {
        (Some(class), Some(function)) => Some(format!("{class}{}{function}", text(&["type"]).unwrap_or("."))),
        (None, function) => function.map(str::to_owned),
        (class, None) => class.map(str::to_owned),
    };
    if file.is_none() && joined.is_none() {
        return None;
    }
    let mut frame = StackFrame::new(file.unwrap_or_default(), line, joined.as_deref());
    frame.code = text(&["src", "code", "context_line"]).map(str::to_owned);
    Some(frame)
}

fn number(value: &Value) -> Option<u32> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok()).and_then(|line| u32::try_from(line).ok())
}
