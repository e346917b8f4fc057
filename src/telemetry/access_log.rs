//! One line per finished exchange, as JSON or as text.
//!
//! Lines are made on the telemetry thread and handed over once per batch; [`Lines`] writes them.

use std::fmt::Write as _;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;

use super::lines::Lines;
use super::words;
use crate::config::{self, LogFormat};
use crate::exchange::{Outcome, Record, Side, Sink, Text};
use crate::stats::{Kind, Row};

/// Bytes that are gathered before they are handed over in the middle of a batch.
const CHUNK: usize = 64 * 1024;

/// The access log, open for writing.
#[derive(Debug)]
pub struct AccessLog {
    format: LogFormat,
    lines: Lines,
}

impl AccessLog {
    /// Opens the file, or standard output.
    ///
    /// # Errors
    /// Names the file that cannot be opened.
    pub fn open(settings: &config::AccessLog) -> io::Result<Self> {
        let lines = match &settings.path {
            Some(path) => Lines::append(path)?,
            None => Lines::stdout()?,
        };
        Ok(Self::new(settings.format, lines))
    }

    /// A log that goes where others write too, such as the console's standard output.
    pub fn new(format: LogFormat, lines: Lines) -> Self {
        Self { format, lines }
    }

    /// A reader of records that writes to this log. Any number of them may exist.
    pub fn sink(&self) -> AccessLogSink {
        AccessLogSink { format: self.format, lines: self.lines.clone(), gathered: Vec::new() }
    }

    /// Whether all that was gathered is written, or lost.
    pub fn is_idle(&self) -> bool {
        self.lines.is_idle()
    }

    /// Lines that went missing.
    pub fn dropped(&self) -> u64 {
        self.lines.dropped()
    }

    /// What went missing, of this log and others before it, for the metrics page.
    pub fn row(dropped: u64) -> Row {
        Row {
            name: "tracecar_access_log_lines_dropped",
            help: "Access log lines lost: the output was slow or failed.",
            kind: Kind::Counter,
            label: None,
            value: dropped,
        }
    }

    /// Writes what was gathered, for at most `bound`. Returns whether everything is written.
    pub fn finish(&self, bound: Duration) -> bool {
        self.lines.finish(bound)
    }
}

/// Writes a line per record.
#[derive(Debug)]
pub struct AccessLogSink {
    format: LogFormat,
    lines: Lines,
    gathered: Vec<u8>,
}

impl Sink for AccessLogSink {
    fn record(&mut self, record: &Arc<Record>) {
        match self.format {
            LogFormat::Json => words::push_json_line(&mut self.gathered, &Line::of(record)),
            LogFormat::Text => self.gathered.extend_from_slice(text_line(&Line::of(record)).as_bytes()),
        }
        if self.gathered.len() >= CHUNK {
            self.batch_end();
        }
    }

    fn batch_end(&mut self) {
        if self.gathered.is_empty() {
            return;
        }
        self.lines.offer(&self.gathered);
        self.gathered.clear();
    }
}

/// What a line says. Durations are in milliseconds; what is absent is left out.
#[derive(Debug, Serialize)]
struct Line<'r> {
    time: String,
    side: &'static str,
    trace_id: String,
    span_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    parent_span_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lineage: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    lineage_confidence: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    destination: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    correlation_id: Option<&'r str>,
    sampled: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    method: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    scheme: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    authority: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    path: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    query: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    route: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    protocol: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    status: Option<u16>,
    #[serde(skip_serializing_if = "Option::is_none")]
    grpc_status: Option<&'static str>,
    outcome: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    error_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fault: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<&'r str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    note: Option<&'r str>,
    duration_ms: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    dns_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    connect_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    tls_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    upstream_first_byte_ms: Option<f64>,
    #[serde(skip_serializing_if = "Option::is_none")]
    proxy_ms: Option<f64>,
    request_bytes: u64,
    response_bytes: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    stream: Option<&'static str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    client: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peer: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    user_agent: Option<&'r str>,
    #[serde(skip_serializing_if = "std::ops::Not::not")]
    excluded: bool,
}

impl<'r> Line<'r> {
    fn of(record: &'r Record) -> Self {
        let said = |text: Text| Some(record.text(text)).filter(|text| !text.is_empty());
        let request = record.request.as_ref();
        let milliseconds = |duration: Option<Duration>| duration.map(words::milliseconds);
        Self {
            time: words::rfc3339(record.started_at, 3),
            side: record.side.as_str(),
            trace_id: record.identity.trace_id.to_string(),
            span_id: record.identity.span_id.to_string(),
            parent_span_id: record.identity.parent.map(|parent| parent.to_string()),
            lineage: record.ancestry.map(|ancestry| ancestry.method),
            lineage_confidence: record.ancestry.map(|ancestry| ancestry.confidence),
            destination: record.destination.as_deref(),
            correlation_id: said(record.correlation),
            sampled: record.identity.sampled(),
            method: request.map(|request| request.method.as_str()),
            scheme: request.map(|request| request.scheme),
            // Credentials before an @ have no business in a log (SEM-80).
            authority: request
                .and_then(|request| said(request.authority))
                .map(|authority| authority.rsplit_once('@').map_or(authority, |(_, host)| host)),
            path: request.map(|request| record.text(request.path)),
            query: request.and_then(|request| request.query).map(|query| record.text(query)),
            route: request.and_then(|request| request.route.as_deref()),
            protocol: request.map(|request| words::protocol(request.version)),
            status: record.status,
            grpc_status: record.grpc_status_name(),
            outcome: record.outcome.as_str(),
            error_type: record.error_type().map(Into::into),
            fault: record.fault().map(|fault| fault.as_str()),
            detail: said(record.detail),
            note: said(record.note),
            duration_ms: words::milliseconds(record.timings.total),
            dns_ms: milliseconds(record.timings.dns),
            connect_ms: milliseconds(record.timings.connect),
            tls_ms: milliseconds(record.timings.tls),
            upstream_first_byte_ms: milliseconds(record.timings.upstream_first_byte()),
            proxy_ms: milliseconds(record.timings.proxy()),
            request_bytes: record.request_bytes,
            response_bytes: record.response_bytes,
            stream: record.stream.map(|stream| stream.as_str()),
            client: request.map(|request| request.client.to_string()),
            peer: record.peer.map(|peer| peer.to_string()),
            user_agent: request.and_then(|request| request.user_agent).map(|agent| record.text(agent)),
            excluded: record.excluded,
        }
    }
}

/// Time, status, duration, method and target in front, the rest as `name=value` behind. `-` stands for what is
/// absent.
fn text_line(line: &Line<'_>) -> String {
    let mut out = String::with_capacity(384);
    out.push_str(&line.time);
    match line.status {
        Some(status) => push(&mut out, format_args!(" {status}")),
        None => out.push_str(" -"),
    }
    push(&mut out, format_args!(" {}ms {}", line.duration_ms, line.method.unwrap_or("-")));
    match line.path {
        Some(path) => out.extend([" ", &words::escaped(path, false)]),
        None => out.push_str(" -"),
    }
    if let Some(query) = line.query {
        out.extend(["?", &words::escaped(query, false)]);
    }

    let mut word = |name: &str, value: Option<&str>| {
        if let Some(value) = value {
            out.extend([" ", name, "=", &words::escaped(value, false)]);
        }
    };
    word("side", Some(line.side).filter(|side| *side != Side::Inbound.as_str()));
    word("protocol", line.protocol);
    word("grpc", line.grpc_status);
    word("outcome", Some(line.outcome).filter(|outcome| *outcome != Outcome::Complete.as_str()));
    word("error", line.error_type.as_deref());
    word("fault", line.fault);
    word("stream", line.stream);
    word("route", line.route);
    word("authority", line.authority);
    word("client", line.client.as_deref());
    word("destination", line.destination);
    word("peer", line.peer.as_deref());
    word("trace", Some(&line.trace_id));
    word("span", Some(&line.span_id));
    word("parent", line.parent_span_id.as_deref());
    word("lineage", line.lineage);
    word("correlation", line.correlation_id);
    word("sampled", (!line.sampled).then_some("no"));
    word("excluded", line.excluded.then_some("yes"));

    push(&mut out, format_args!(" in={} out={}", line.request_bytes, line.response_bytes));
    for (name, value) in [
        ("dns", line.dns_ms),
        ("connect", line.connect_ms),
        ("tls", line.tls_ms),
        ("upstream", line.upstream_first_byte_ms),
        ("proxy", line.proxy_ms),
    ] {
        if let Some(value) = value {
            push(&mut out, format_args!(" {name}={value}ms"));
        }
    }
    for (name, value) in [("agent", line.user_agent), ("detail", line.detail), ("note", line.note)] {
        if let Some(value) = value {
            out.extend([" ", name, "=\"", &words::escaped(value, true), "\""]);
        }
    }
    out.push('\n');
    out
}

fn push(out: &mut String, arguments: std::fmt::Arguments<'_>) {
    // Writing to a String cannot fail.
    let _ = out.write_fmt(arguments);
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use serde_json::Value;

    use super::*;
    use crate::exchange::{sample, sample_call};

    /// Longer than any test may take.
    const PATIENCE: Duration = Duration::from_secs(20);

    #[derive(Clone, Default)]
    struct Page(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Page {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn logged(format: LogFormat, records: impl IntoIterator<Item = Record>) -> String {
        let page = Page::default();
        let log = AccessLog::new(format, Lines::to(page.clone(), 1 << 20).unwrap());
        let mut sink = log.sink();
        records.into_iter().for_each(|record| sink.record(&Arc::new(record)));
        sink.batch_end();
        assert!(log.finish(PATIENCE));
        assert_eq!(log.dropped(), 0);
        String::from_utf8(std::mem::take(&mut page.0.lock().unwrap())).unwrap()
    }

    /// A record whose every text is as hostile as a stranger can make it.
    fn hostile() -> Record {
        let evil = "/a b\r\n{\"x\":1}\u{1b}[2J\u{85}\u{2028}\u{7f}\\\"";
        let mut record = sample();
        record.correlation = record.put(evil);
        record.detail = record.put(evil);
        let path = record.put(evil);
        let bytes = record.put_bytes(b"\xff\xfe\0\n");
        let request = record.request.as_mut().unwrap();
        (request.path, request.query) = (path, Some(path));
        (request.user_agent, request.authority) = (Some(bytes), path);
        record
    }

    #[test]
    fn a_json_line_says_everything_of_the_record() {
        let line = logged(LogFormat::Json, [sample()]);
        let value: Value = serde_json::from_str(&line).unwrap();
        let expected = serde_json::json!({
            "time": "2027-01-15T08:00:00.000Z", "side": "inbound",
            "trace_id": "ab".repeat(16), "span_id": "cd".repeat(8), "correlation_id": "abc-1", "sampled": true,
            "method": "GET", "scheme": "http", "authority": "shop.example:8080",
            "path": "/items/42", "query": "sig=REDACTED", "route": "/items/{id}", "protocol": "HTTP/1.1",
            "status": 200, "outcome": "complete",
            "duration_ms": 5.0, "upstream_first_byte_ms": 3.96, "proxy_ms": 0.04,
            "request_bytes": 0, "response_bytes": 198,
            "client": "203.0.113.9", "peer": "127.0.0.1:50000", "user_agent": "curl/8",
        });
        assert_eq!(value, expected);
    }

    #[test]
    fn a_line_about_a_call_says_where_it_went_and_how_its_cause_was_found() {
        let line = logged(LogFormat::Json, [sample_call()]);
        let value: Value = serde_json::from_str(&line).unwrap();
        for (key, expected) in [
            ("side", "outbound"),
            ("destination", "stock"),
            ("lineage", "token"),
            ("authority", "stock.example"),
            ("peer", "192.0.2.1:443"),
            ("error_type", "404"),
            ("fault", "client"),
        ] {
            assert_eq!(value[key], expected, "{key}");
        }
        let text = logged(LogFormat::Text, [sample_call()]);
        assert!(text.contains(" side=outbound ") && text.contains(" lineage=token "), "{text}");
    }

    #[test]
    fn a_text_line_reads_well() {
        let mut failed = sample();
        failed.status = Some(502);
        failed.outcome = Outcome::UpstreamRefused;
        failed.identity.flags = 0;
        failed.detail = failed.put("cannot connect to 127.0.0.1:3000");
        let mut unreadable = sample();
        unreadable.request = None;
        unreadable.status = None;
        unreadable.outcome = Outcome::MalformedRequest;
        unreadable.timings = Default::default();
        let ids = format!("trace={} span={}", "ab".repeat(16), "cd".repeat(8));
        let expected = format!(
            "2027-01-15T08:00:00.000Z 200 5ms GET /items/42?sig=REDACTED protocol=HTTP/1.1 route=/items/{{id}} \
             authority=shop.example:8080 client=203.0.113.9 peer=127.0.0.1:50000 {ids} correlation=abc-1 \
             in=0 out=198 upstream=3.96ms proxy=0.04ms agent=\"curl/8\"\n\
             2027-01-15T08:00:00.000Z 502 5ms GET /items/42?sig=REDACTED protocol=HTTP/1.1 \
             outcome=upstream_refused error=connection_refused fault=upstream route=/items/{{id}} \
             authority=shop.example:8080 client=203.0.113.9 peer=127.0.0.1:50000 {ids} correlation=abc-1 \
             sampled=no in=0 out=198 upstream=3.96ms proxy=0.04ms agent=\"curl/8\" \
             detail=\"cannot connect to 127.0.0.1:3000\"\n\
             2027-01-15T08:00:00.000Z - 0ms - - outcome=malformed_request fault=client peer=127.0.0.1:50000 \
             {ids} correlation=abc-1 in=0 out=198\n"
        );
        assert_eq!(logged(LogFormat::Text, [sample(), failed, unreadable]), expected);
    }

    #[test]
    fn a_hostile_request_stays_on_its_line() {
        for format in [LogFormat::Json, LogFormat::Text] {
            let lines = logged(format, [hostile(), sample()]);
            assert_eq!(lines.matches('\n').count(), 2, "{lines:?}");
            let tame = |c: char| c == '\n' || !c.is_control() && c != '\u{2028}';
            assert!(lines.chars().all(tame), "{lines:?}");
        }
        let line = logged(LogFormat::Json, [hostile()]);
        let value: Value = serde_json::from_str(&line).unwrap();
        let record = hostile();
        assert_eq!(value["path"], record.text(record.detail), "nothing is lost by escaping");
        let text = logged(LogFormat::Text, [hostile()]);
        assert!(text.contains(" GET /a\\u{20}b\\u{d}\\u{a}{\"x\":1}\\u{1b}[2J"), "{text}");
    }

    #[test]
    fn credentials_in_an_authority_are_left_out() {
        let mut record = sample();
        record.request.as_mut().unwrap().authority = record.put("user:p@ss@shop.example");
        let line = logged(LogFormat::Json, [record]);
        assert!(line.contains("\"authority\":\"shop.example\""), "{line}");
    }

    #[test]
    fn the_duration_is_that_of_the_record_to_the_nanosecond() {
        let mut record = sample();
        record.timings.total = Duration::from_nanos(12_345_678_901);
        let line = logged(LogFormat::Json, [record]);
        assert!(line.contains("\"duration_ms\":12345.678901,"), "{line}");
    }

    #[test]
    fn a_long_batch_is_handed_over_in_pieces() {
        let lines = logged(LogFormat::Json, std::iter::repeat_with(sample).take(500));
        assert_eq!(lines.lines().count(), 500);
        assert!(lines.len() > 3 * CHUNK);
    }
}
