//! One trace as a tree for people.
//!
//! A header line with the trace's ids, then a line per span: who, what, status, duration, when within the trace,
//! and what went wrong. Parent ids come from callers: they may lead nowhere, or in circles.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::time::{Duration, SystemTime};

use opentelemetry::trace::{SpanId, TraceId};

use super::Span;
use crate::exchange::{Ancestry, GRPC_STATUS, Outcome, Side, semconv};
use crate::telemetry::words;

/// Characters of the bar that shows when a span ran.
const BAR: usize = 24;

/// Characters up to which services stand in one column, and span names behind them; longer ones stick out.
const MAX_SERVICE: usize = 32;
const MAX_NAME: usize = 72;

/// Characters of all that together with the path; the rest is cut.
const MAX_WIDTH: usize = 96;

/// Depth to which the tree is indented; deeper spans stay at that depth.
const MAX_DEPTH: usize = 16;

/// How a piece of text looks in colour.
#[derive(Clone, Copy)]
enum Look {
    Plain,
    Bold,
    Dim,
    Green,
    Yellow,
    Red,
}

/// A span and the glyphs before it.
struct Branch {
    span: usize,
    glyphs: String,
}

/// The tree of `spans`, which are one trace's, in any order. Ends with an empty line.
pub(super) fn render(id: TraceId, spans: &[Span], color: bool) -> String {
    let mut out = Pen { text: String::with_capacity(160 * (spans.len() + 1)), color };
    let start = spans.iter().map(|span| span.record.started_at).min().unwrap_or(SystemTime::UNIX_EPOCH);
    let total = spans.iter().map(|span| ending(span, start)).max().unwrap_or_default();
    header(&mut out, id, spans, start, total);

    let branches = branches(spans);
    let labels = labels(&branches, spans);
    let width = labels.iter().map(|label| columns(label)).max().unwrap_or(0).min(MAX_WIDTH);
    let duration_of = |branch: &Branch| words::brief(spans[branch.span].record.timings.total);
    let durations: Vec<_> = branches.iter().map(duration_of).collect();
    let duration_width = durations.iter().map(|text| text.chars().count()).max().unwrap_or(0);

    for ((branch, label), duration) in branches.iter().zip(&labels).zip(&durations) {
        let span = &spans[branch.span];
        out.padded(label, width);
        let (status, look) = status(span);
        out.put(Look::Plain, "  ");
        out.put(look, &format!("{status:>3}"));
        out.put(Look::Plain, &format!("  {duration:>duration_width$}  "));
        let bar = bar(span, start, total);
        out.put(if span.record.failed() { Look::Red } else { Look::Dim }, bar.trim_end());
        if let Some(remark) = remark(span) {
            out.put(Look::Plain, &" ".repeat(BAR + 2 - bar.trim_end().chars().count()));
            out.put(look, &remark);
        }
        out.put(Look::Plain, "\n");
    }
    out.put(Look::Plain, "\n");
    out.text
}

fn header(out: &mut Pen, id: TraceId, spans: &[Span], start: SystemTime, total: Duration) {
    out.put(Look::Dim, "trace ");
    out.put(Look::Bold, &id.to_string());
    let plural = if spans.len() == 1 { "" } else { "s" };
    out.put(Look::Plain, &format!("  {}  {} span{plural}", words::brief(total), spans.len()));
    out.put(Look::Dim, &format!("  {}", words::rfc3339(start, 3)));
    let correlation = |span: &Span| !span.record.text(span.record.correlation).is_empty();
    if let Some(span) = spans.iter().find(|span| correlation(span)) {
        out.put(Look::Dim, "  correlation ");
        out.put(Look::Plain, &words::escaped(span.record.text(span.record.correlation), false));
    }
    if spans.iter().all(|span| span.record.identity.parent.is_some()) {
        out.put(Look::Dim, "  began elsewhere");
    }
    out.put(Look::Plain, "\n");
}

/// The spans from top to bottom, each once, whatever their parent ids say.
fn branches(spans: &[Span]) -> Vec<Branch> {
    let mut by_id: HashMap<SpanId, usize> = HashMap::with_capacity(spans.len());
    for (index, span) in spans.iter().enumerate() {
        by_id.entry(span.record.identity.span_id).or_insert(index);
    }
    let mut order: Vec<usize> = (0..spans.len()).collect();
    order.sort_by_key(|index| spans[*index].record.started_at);

    let mut children: Vec<Vec<usize>> = vec![Vec::new(); spans.len()];
    let mut tops = Vec::new();
    for index in &order {
        let parent = spans[*index].record.identity.parent.and_then(|parent| by_id.get(&parent));
        match parent {
            Some(parent) => children[*parent].push(*index),
            None => tops.push(*index),
        }
    }

    let mut branches = Vec::with_capacity(spans.len());
    let mut seen = vec![false; spans.len()];
    // After the real tops come spans that call each other in a circle: each circle begins with its first.
    for top in tops.into_iter().chain(order) {
        // A stack in place of recursion: a chain may be as long as there are spans.
        let mut stack = vec![(top, String::new(), String::new(), 0)];
        while let Some((index, glyphs, indent, depth)) = stack.pop() {
            if std::mem::replace(&mut seen[index], true) {
                continue;
            }
            for (place, child) in children[index].iter().enumerate().rev() {
                let last = place + 1 == children[index].len();
                let (glyph, below) = if last { ("└─ ", "   ") } else { ("├─ ", "│  ") };
                let deeper = if depth < MAX_DEPTH { format!("{indent}{below}") } else { indent.clone() };
                stack.push((*child, format!("{indent}{glyph}"), deeper, depth + 1));
            }
            branches.push(Branch { span: index, glyphs });
        }
    }
    branches
}

/// Per branch: glyphs and service, span name, and beside it the path, which the name never holds; as columns.
fn labels(branches: &[Branch], spans: &[Span]) -> Vec<Vec<(Look, String)>> {
    let mut labels: Vec<_> = branches.iter().map(|branch| label(branch, &spans[branch.span])).collect();
    for (column, bound) in [(1, MAX_SERVICE), (2, MAX_NAME)] {
        let upto = |label: &Vec<(Look, String)>| columns(&label[..=column]);
        let width = labels.iter().map(upto).filter(|width| *width <= bound).max().unwrap_or(0);
        for label in &mut labels {
            let missing = width.saturating_sub(upto(label)) + 2;
            label[column].1.push_str(&" ".repeat(missing));
        }
    }
    for label in &mut labels {
        // Without a path nothing stands behind the name.
        if let [.., (_, name), (_, target)] = &mut label[..]
            && target.is_empty()
        {
            name.truncate(name.trim_end().len());
        }
    }
    labels
}

fn label(branch: &Branch, span: &Span) -> Vec<(Look, String)> {
    let record = &span.record;
    let mut target = String::new();
    if let Some(request) = &record.request {
        if record.side == Side::Outbound {
            // Who was asked says more than the path alone.
            let name = record.destination.as_deref().unwrap_or(record.text(request.authority));
            target.push_str(&words::escaped(name, false));
        }
        target.push_str(&words::escaped(record.text(request.path), false));
        if let Some(query) = request.query {
            target.extend(["?", &words::escaped(record.text(query), false)]);
        }
    }
    vec![
        (Look::Dim, branch.glyphs.clone()),
        (Look::Bold, words::escaped(&span.service, true).into_owned()),
        (Look::Plain, words::escaped(&semconv::span_name(record), true).into_owned()),
        (Look::Dim, target),
    ]
}

fn status(span: &Span) -> (String, Look) {
    let record = &span.record;
    let look = match record.status {
        _ if record.failed() => Look::Red,
        Some(400..) => Look::Yellow,
        Some(_) if record.outcome == Outcome::Complete => Look::Green,
        _ => Look::Yellow,
    };
    (record.status.map_or_else(|| "-".to_owned(), |status| status.to_string()), look)
}

/// What is to be said of a span that is not an ordinary, complete exchange.
fn remark(span: &Span) -> Option<String> {
    let record = &span.record;
    let mut remark = String::new();
    if let Some(Ancestry { method, .. }) = record.ancestry {
        // Each edge shows how it was found.
        remark.push_str("← ");
        remark.push_str(method);
    }
    if let Some(stream) = record.stream {
        let gap = if remark.is_empty() { "" } else { "  " };
        remark.extend([gap, stream.as_str()]);
    }
    if let Some(name) = record.grpc_status_name().filter(|name| *name != GRPC_STATUS[0]) {
        let gap = if remark.is_empty() { "" } else { "  " };
        remark.extend([gap, name]);
    }
    if record.outcome != Outcome::Complete {
        let gap = if remark.is_empty() { "" } else { "  " };
        remark.extend([gap, record.outcome.as_str()]);
    }
    let detail = record.text(record.detail);
    if !detail.is_empty() {
        let gap = if remark.is_empty() { "" } else { ": " };
        remark.extend([gap, &words::escaped(detail, true)]);
    }
    Some(remark).filter(|remark| !remark.is_empty())
}

/// When the span ran, within the trace.
fn bar(span: &Span, start: SystemTime, total: Duration) -> String {
    let share = |time: Duration| match total.is_zero() {
        true => 1.0,
        false => time.as_secs_f64() / total.as_secs_f64(),
    };
    let length = ((share(span.record.timings.total) * BAR as f64).round() as usize).clamp(1, BAR);
    let offset = span.record.started_at.duration_since(start).unwrap_or_default();
    let before = ((share(offset) * BAR as f64).floor() as usize).min(BAR - length);
    format!("{}{}", " ".repeat(before), "━".repeat(length))
}

/// When the span ended, measured from `start`.
fn ending(span: &Span, start: SystemTime) -> Duration {
    let offset = span.record.started_at.duration_since(start).unwrap_or_default();
    offset.saturating_add(span.record.timings.total)
}

fn columns(parts: &[(Look, String)]) -> usize {
    parts.iter().map(|(_, text)| text.chars().count()).sum()
}

/// Text that grows, in colour or not.
struct Pen {
    text: String,
    color: bool,
}

impl Pen {
    fn put(&mut self, look: Look, text: &str) {
        let code = match look {
            Look::Plain => "",
            _ if !self.color || text.is_empty() => "",
            Look::Bold => "1",
            Look::Dim => "2",
            Look::Green => "32",
            Look::Yellow => "33",
            Look::Red => "31",
        };
        if code.is_empty() {
            return self.text.push_str(text);
        }
        // Writing to a String cannot fail.
        let _ = write!(self.text, "\x1b[{code}m{text}\x1b[0m");
    }

    /// The parts, cut or filled up to `width` characters.
    fn padded(&mut self, parts: &[(Look, String)], width: usize) {
        let cut = columns(parts) > width;
        let mut room = if cut { width - 1 } else { width };
        for (look, text) in parts {
            let end = text.char_indices().nth(room).map_or(text.len(), |(end, _)| end);
            self.put(*look, &text[..end]);
            room -= text[..end].chars().count();
        }
        self.put(Look::Dim, if cut { "…" } else { "" });
        self.put(Look::Plain, &" ".repeat(room));
    }
}
