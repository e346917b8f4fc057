//! Traces on standard output: trees for people, or one JSON object per span.
//!
//! [`Console`] gathers the spans of all its sinks, so that several sidecars in one process show one tree per
//! trace. A span is written when its exchange ends, and callers end after those they called: a trace is printed
//! when nothing new has come for a moment. What comes later makes a tree of its own.

use std::borrow::Cow;
use std::io::Write;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use opentelemetry::trace::TraceId;
use serde::Serialize;
use serde_json::{Map, Value};

use super::words;
use crate::config;
use crate::exchange::{Link, Record, Side, Sink, semconv};

mod tree;

/// Silence after which a trace is printed whose first span is there.
const SETTLED: Duration = Duration::from_millis(250);

/// The same for a trace that began elsewhere: the span that called ours may still be open in this process.
const SETTLED_INSIDE: Duration = Duration::from_secs(2);

/// How long a trace may gather spans at all: somebody may send all requests with one trace id.
const OLDEST: Duration = Duration::from_secs(30);

/// Traces and spans that are held; beyond either, the oldest trace is printed first.
const MAX_TRACES: usize = 256;
const MAX_SPANS: usize = 2048;

/// A place where spans of this process are shown. A handle: clones show in the same place.
#[derive(Clone)]
pub struct Console(Arc<Mutex<State>>);

struct State {
    mode: config::Console,
    output: Box<dyn Write + Send>,
    /// In the order of their first span's arrival.
    traces: Vec<Trace>,
    spans: usize,
}

/// The spans of one trace so far.
struct Trace {
    id: TraceId,
    spans: Vec<Span>,
    /// Whether a span has come since the last tick.
    fresh: bool,
    /// The first tick that saw the trace, and the first since its last span.
    first_seen: Option<Instant>,
    quiet_since: Option<Instant>,
}

/// One finished exchange and the service it was recorded for.
#[derive(Clone)]
struct Span {
    service: Arc<str>,
    record: Arc<Record>,
}

impl Console {
    /// Shows spans on `output`. It is written to by sinks, which may not wait: give it a
    /// [`Lines`](super::lines::Lines) where the output can stall. Whole lines are written, several at once.
    pub fn new(mode: config::Console, output: impl Write + Send + 'static) -> Self {
        let output = Box::new(output);
        Self(Arc::new(Mutex::new(State { mode, output, traces: Vec::new(), spans: 0 })))
    }

    /// A reader of the records of the service called `service`. Spans that are not sampled are not shown (SMP-5).
    pub fn sink(&self, service: &str) -> ConsoleSink {
        ConsoleSink { console: self.clone(), service: service.into(), lines: Vec::new() }
    }

    /// Prints the traces that nothing more is expected of. To be called a few times per second.
    pub fn tick(&self, now: Instant) {
        let mut state = self.lock();
        let mut index = 0;
        while index < state.traces.len() {
            match state.traces[index].due(now) {
                true => state.print(index),
                false => index += 1,
            }
        }
    }

    /// Prints all that is left, and flushes: nothing more will come.
    pub fn finish(&self) {
        let mut state = self.lock();
        while !state.traces.is_empty() {
            state.print(0);
        }
        // An output that fails is not ours to repair, and a reader of the console sees that it ended.
        let _ = state.output.flush();
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // A trace that was being printed when somebody panicked is lost; the others are whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Console {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Console").field("traces", &self.lock().traces.len()).finish()
    }
}

/// Shows the records of one service on its [`Console`].
#[derive(Debug)]
pub struct ConsoleSink {
    console: Console,
    service: Arc<str>,
    lines: Vec<u8>,
}

impl Sink for ConsoleSink {
    fn record(&mut self, record: &Arc<Record>) {
        if !record.identity.sampled() {
            return;
        }
        let mut state = self.console.lock();
        match state.mode {
            config::Console::Json => {
                drop(state);
                words::push_json_line(&mut self.lines, &JsonSpan::of(&self.service, record));
            }
            config::Console::Tree { .. } => {
                state.add(Span { service: self.service.clone(), record: record.clone() });
            }
        }
    }

    fn batch_end(&mut self) {
        if self.lines.is_empty() {
            return;
        }
        let _ = self.console.lock().output.write_all(&self.lines);
        self.lines.clear();
    }
}

impl State {
    fn add(&mut self, span: Span) {
        let id = span.record.identity.trace_id;
        // The newest are the likeliest, and there are few.
        match self.traces.iter_mut().rev().find(|trace| trace.id == id) {
            Some(trace) => {
                trace.spans.push(span);
                trace.fresh = true;
            }
            None => {
                let (first_seen, quiet_since) = (None, None);
                self.traces.push(Trace { id, spans: vec![span], fresh: true, first_seen, quiet_since });
            }
        }
        self.spans += 1;
        while self.traces.len() > MAX_TRACES || self.spans > MAX_SPANS {
            self.print(0);
        }
    }

    fn print(&mut self, index: usize) {
        let trace = self.traces.remove(index);
        self.spans -= trace.spans.len();
        let color = matches!(self.mode, config::Console::Tree { color: true });
        let _ = self.output.write_all(tree::render(trace.id, &trace.spans, color).as_bytes());
    }
}

impl Trace {
    fn due(&mut self, now: Instant) -> bool {
        let first_seen = *self.first_seen.get_or_insert(now);
        if std::mem::take(&mut self.fresh) {
            self.quiet_since = Some(now);
        }
        let complete = self.spans.iter().any(|span| span.record.identity.parent.is_none());
        let patience = if complete { SETTLED } else { SETTLED_INSIDE };
        let quiet_since = self.quiet_since.unwrap_or(first_seen);
        now.duration_since(quiet_since) >= patience || now.duration_since(first_seen) >= OLDEST
    }
}

/// A span as one JSON object.
#[derive(Serialize)]
struct JsonSpan<'r> {
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    name: Cow<'r, str>,
    kind: &'static str,
    service: &'r str,
    start: String,
    duration_ns: u64,
    status: &'static str,
    attributes: Map<String, Value>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    links: Vec<JsonLink>,
}

/// A link of a span.
#[derive(Serialize)]
struct JsonLink {
    trace_id: String,
    span_id: String,
}

impl<'r> JsonSpan<'r> {
    fn of(service: &'r str, record: &'r Record) -> Self {
        Self {
            trace_id: record.identity.trace_id.to_string(),
            span_id: record.identity.span_id.to_string(),
            parent_span_id: record.identity.parent.map(|parent| parent.to_string()),
            name: semconv::span_name(record),
            kind: match record.side {
                Side::Inbound => "SERVER",
                Side::Outbound => "CLIENT",
            },
            service,
            start: words::rfc3339(record.started_at, 9),
            duration_ns: record.timings.total.as_nanos().try_into().unwrap_or(u64::MAX),
            status: if record.failed() { "ERROR" } else { "UNSET" },
            attributes: attributes(record),
            links: record.links.iter().map(JsonLink::of).collect(),
        }
    }
}

impl JsonLink {
    fn of(link: &Link) -> Self {
        Self { trace_id: link.trace_id.to_string(), span_id: link.span_id.to_string() }
    }
}

/// The span's attributes, those of the exported span.
fn attributes(record: &Record) -> Map<String, Value> {
    let mut map = Map::new();
    semconv::attributes(record, &mut |key, value| {
        let value = match value {
            semconv::Value::Bool(value) => value.into(),
            semconv::Value::Int(value) => value.into(),
            semconv::Value::Double(value) => value.into(),
            semconv::Value::Str(value) => Value::from(value),
        };
        map.insert(key.to_owned(), value);
    });
    map
}

#[cfg(test)]
mod tests {
    use opentelemetry::trace::SpanId;

    use super::*;
    use crate::exchange::{Outcome, Stream, sample, sample_call};

    /// What was written so far.
    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl Page {
        fn take(&self) -> String {
            String::from_utf8(std::mem::take(&mut self.0.lock().unwrap())).unwrap()
        }
    }

    impl Write for Page {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    fn console(color: bool) -> (Console, Page) {
        let page = Page::default();
        (Console::new(config::Console::Tree { color }, page.clone()), page)
    }

    /// A span of the sample's trace that begins `offset` and lasts `total` milliseconds.
    fn span(id: u8, parent: u8, offset: u64, total: u64) -> Record {
        let mut record = sample();
        record.identity.span_id = SpanId::from_bytes([id; 8]);
        record.identity.parent = (parent != 0).then(|| SpanId::from_bytes([parent; 8]));
        record.started_at += Duration::from_millis(offset);
        record.timings.total = Duration::from_millis(total);
        record
    }

    fn of_trace(mut record: Record, trace: u128) -> Record {
        record.identity.trace_id = TraceId::from(trace);
        record
    }

    fn show(console: &Console, service: &str, record: Record) {
        let mut sink = console.sink(service);
        sink.record(&Arc::new(record));
        sink.batch_end();
    }

    /// Three services: the third is asked by the second, and cannot be reached.
    fn shop(console: &Console) {
        let mut stock = span(3, 2, 30, 5);
        stock.status = Some(502);
        stock.outcome = Outcome::UpstreamRefused;
        stock.detail = stock.put("cannot connect to 127.0.0.1:3000\u{1b}[2J");
        let path = stock.put("/stock");
        let request = stock.request.as_mut().unwrap();
        (request.route, request.query, request.path) = (None, None, path);
        show(console, "stock", stock);
        let mut events = span(4, 1, 50, 40);
        events.stream = Some(Stream::ServerSentEvents);
        show(console, "events", events);
        let mut catalog = span(2, 1, 10, 30);
        catalog.status = Some(404);
        show(console, "catalog", catalog);
        show(console, "gateway", span(1, 0, 0, 100));
    }

    #[test]
    fn a_trace_of_three_services_is_one_tree() {
        let (console, page) = console(false);
        shop(&console);
        console.finish();
        let expected = "\
trace abababababababababababababababab  100 ms  4 spans  2027-01-15T08:00:00.000Z  correlation abc-1
gateway      GET /items/{id}  /items/42?sig=REDACTED  200   100 ms  ━━━━━━━━━━━━━━━━━━━━━━━━
├─ catalog   GET /items/{id}  /items/42?sig=REDACTED  404  30.0 ms    ━━━━━━━
│  └─ stock  GET              /stock                  502  5.00 ms         ━                  \
upstream_refused: cannot connect to 127.0.0.1:3000\\u{1b}[2J
└─ events    GET /items/{id}  /items/42?sig=REDACTED  200  40.0 ms              ━━━━━━━━━━    sse

";
        let shown = page.take();
        assert_eq!(shown, expected, "\n{shown}");
    }

    #[test]
    fn a_call_shows_whom_it_asked_and_how_its_cause_was_found() {
        let (console, page) = console(false);
        let mut call = sample_call();
        call.identity.parent = Some(sample().identity.span_id);
        call.identity.span_id = SpanId::from_bytes([9; 8]);
        show(&console, "shop", sample());
        show(&console, "shop", call);
        console.finish();
        let shown = page.take();
        let line = shown.lines().find(|line| line.starts_with("└─ shop")).unwrap();
        assert!(line.contains("stock/items/42?sig=REDACTED  404") && line.ends_with("← token"), "{shown}");
    }

    #[test]
    fn colour_changes_nothing_but_colour() {
        let (plain, page) = console(false);
        shop(&plain);
        plain.finish();
        let (coloured, coloured_page) = console(true);
        shop(&coloured);
        coloured.finish();
        let shown = coloured_page.take();
        assert!(
            shown.contains("\u{1b}[32m200\u{1b}[0m") && shown.contains("\u{1b}[33m404\u{1b}[0m"),
            "{shown}"
        );
        assert!(shown.contains("\u{1b}[31m502\u{1b}[0m") && shown.contains("\u{1b}[1mgateway"), "{shown}");
        let mut bare = String::new();
        for (index, piece) in shown.split("\u{1b}[").enumerate() {
            bare.push_str(if index == 0 { piece } else { piece.split_once('m').unwrap().1 });
        }
        assert_eq!(bare, page.take());
    }

    #[test]
    fn a_trace_is_printed_when_nothing_new_has_come_for_a_moment() {
        let (console, page) = console(false);
        let start = Instant::now();
        show(&console, "a", span(1, 0, 0, 10));
        console.tick(start);
        console.tick(start + SETTLED / 2);
        show(&console, "b", span(2, 1, 1, 5));
        console.tick(start + SETTLED);
        assert_eq!(page.take(), "", "a span has just come");
        console.tick(start + SETTLED * 2);
        assert!(page.take().contains("2 spans"));
        console.tick(start + SETTLED * 9);
        assert_eq!(page.take(), "", "once is enough");
    }

    #[test]
    fn a_trace_that_began_elsewhere_waits_longer() {
        let (console, page) = console(false);
        let start = Instant::now();
        show(&console, "a", span(1, 9, 0, 10));
        console.tick(start);
        console.tick(start + SETTLED * 2);
        assert_eq!(page.take(), "");
        console.tick(start + SETTLED_INSIDE);
        let shown = page.take();
        assert!(shown.starts_with("trace") && shown.contains("  began elsewhere\na  GET"), "{shown}");
    }

    #[test]
    fn a_trace_that_never_ends_is_printed_in_pieces() {
        let (console, page) = console(false);
        let start = Instant::now();
        let mut at = start;
        while at < start + OLDEST {
            show(&console, "a", span(1, 0, 0, 10));
            console.tick(at);
            at += SETTLED / 2;
        }
        assert_eq!(page.take(), "");
        console.tick(start + OLDEST);
        assert!(page.take().contains("spans"));
    }

    #[test]
    fn memory_is_bounded_and_the_oldest_goes_first() {
        let (console, page) = console(false);
        for trace in 1..=MAX_TRACES as u128 {
            show(&console, "a", of_trace(span(1, 0, 0, 1), trace));
        }
        assert_eq!(page.take(), "");
        show(&console, "a", of_trace(span(1, 0, 0, 1), 9999));
        assert!(page.take().starts_with(&format!("trace {:032x} ", 1)));
        for _ in 0..=MAX_SPANS {
            show(&console, "a", of_trace(span(1, 0, 0, 1), 7777));
        }
        let state = console.lock();
        assert!(state.spans <= MAX_SPANS);
        assert_eq!(state.spans, state.traces.iter().map(|trace| trace.spans.len()).sum::<usize>());
    }

    #[test]
    fn parents_in_a_circle_are_shown_once_each() {
        let (console, page) = console(false);
        show(&console, "a", span(1, 2, 0, 10));
        show(&console, "b", span(2, 1, 1, 5));
        show(&console, "c", span(3, 3, 2, 5));
        show(&console, "d", span(3, 0, 3, 5));
        console.finish();
        let shown = page.take();
        let services: Vec<_> =
            shown.lines().skip(1).filter_map(|line| line.split("GET").next().map(str::trim_end)).collect();
        assert_eq!(services, ["d", "a", "└─ b", "c", ""], "{shown}");
    }

    #[test]
    fn a_chain_of_any_length_is_drawn() {
        let spans: Vec<_> = (0..2000_u64)
            .map(|number| {
                let mut record = span(0, 0, number, 2000);
                record.identity.span_id = SpanId::from(number + 1);
                record.identity.parent = (number > 0).then(|| SpanId::from(number));
                Span { service: "a".into(), record: Arc::new(record) }
            })
            .collect();
        let shown = tree::render(TraceId::from(1), &spans, false);
        assert_eq!(shown.lines().count(), 2002);
        let last = shown.lines().nth(2000).unwrap();
        assert!(last.contains("─ a  GET") && last.chars().count() < 160, "{last}");
    }

    #[test]
    fn an_unreadable_request_and_a_long_path_fit_in() {
        let (console, page) = console(false);
        let mut long = span(1, 0, 0, 10);
        let path = long.put(&format!("/{}", "é".repeat(200)));
        long.request.as_mut().unwrap().path = path;
        show(&console, "a", long);
        let mut unreadable = of_trace(span(2, 0, 0, 0), 2);
        (unreadable.request, unreadable.status) = (None, None);
        unreadable.outcome = Outcome::MalformedRequest;
        show(&console, "b", unreadable);
        console.finish();
        let shown = page.take();
        let lines: Vec<_> = shown.lines().collect();
        assert!(lines[1].contains("éé…  200  10.0 ms  ━━"), "{shown}");
        assert_eq!(lines[4], format!("b  HTTP    -  0.00 µs  {}  malformed_request", "━".repeat(24)));
    }

    #[test]
    fn what_is_not_sampled_is_not_shown() {
        let (console, page) = console(false);
        let mut record = span(1, 0, 0, 1);
        record.identity.flags = 0;
        show(&console, "a", record);
        console.finish();
        assert_eq!(page.take(), "");
    }

    #[test]
    fn json_lines_hold_one_span_each() {
        let page = Page::default();
        let console = Console::new(config::Console::Json, page.clone());
        shop(&console);
        let shown = page.take();
        assert_eq!(shown.lines().count(), 4, "{shown}");
        let stock: Value = serde_json::from_str(shown.lines().next().unwrap()).unwrap();
        let expected = serde_json::json!({
            "trace_id": "ab".repeat(16), "span_id": "03".repeat(8), "parent_span_id": "02".repeat(8),
            "name": "GET", "kind": "SERVER", "service": "stock",
            "start": "2027-01-15T08:00:00.030000000Z", "duration_ns": 5_000_000, "status": "ERROR",
            "attributes": {
                "http.request.method": "GET", "url.scheme": "http", "url.path": "/stock",
                "http.response.status_code": 502, "error.type": "connection_refused",
                "server.address": "shop.example", "server.port": 8080,
                "client.address": "203.0.113.9", "network.peer.address": "127.0.0.1", "network.peer.port": 50_000,
                "network.protocol.version": "1.1", "user_agent.original": "curl/8",
                "tracecar.outcome": "upstream_refused", "tracecar.fault": "upstream",
                "tracecar.detail": "cannot connect to 127.0.0.1:3000\u{1b}[2J",
                "tracecar.correlation_id": "abc-1", "tracecar.request.bytes": 0, "tracecar.response.bytes": 198,
                "tracecar.time.proxy": 0.00004, "tracecar.time.first_byte": 0.00396,
            },
        });
        assert_eq!(stock, expected);
    }
}
