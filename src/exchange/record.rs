//! Every fact of a finished exchange, as plain data.
//!
//! A [`Record`] is written once, on the request path, and read by all sinks; that they agree is a matter of
//! construction. It holds copies, never a `Uri` or `HeaderValue` of the request: those would keep the
//! connection's 8 KiB read buffer alive for as long as the record waits in a queue. All its strings share one
//! allocation ([`Record::text`]).

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{Method, Version};
use opentelemetry::trace::{SpanId, TraceId};

use super::outcome::{Fault, Outcome};

/// A string of a [`Record`]; read it with [`Record::text`]. The default is the empty string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text {
    start: u32,
    end: u32,
}

/// Where an exchange stands in its trace.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Trace id, never zero.
    pub trace_id: TraceId,
    /// Id of this exchange's span, never zero.
    pub span_id: SpanId,
    /// The caller's span, where it sent one.
    pub parent: Option<SpanId>,
    /// W3C flags as sent on: bit 0 sampled, bit 1 random (CTX-9).
    pub flags: u8,
}

impl Identity {
    /// Whether the span is exported (SMP-5).
    pub fn sampled(&self) -> bool {
        self.flags & 1 != 0
    }
}

/// What the request said. Absent where no request could be read ([`Outcome::MalformedRequest`]).
#[derive(Clone, Debug)]
pub struct RequestFacts {
    /// The method as sent, never changed (SEM-90).
    pub method: Method,
    /// Whether the method is one of the known ones; otherwise the span says `_OTHER`.
    pub known_method: bool,
    /// Path, without the query.
    pub path: Text,
    /// Query without its `?`, already redacted; `None` where none was sent.
    pub query: Option<Text>,
    /// `http` or `https`: that of the original caller where a trusted proxy told (SEM-22).
    pub scheme: &'static str,
    /// The authority the caller asked for, `host` or `host:port`; empty where none was sent (SEM-50).
    pub authority: Text,
    /// `User-Agent`, where sent.
    pub user_agent: Option<Text>,
    /// The configured template that the path matched.
    pub route: Option<Arc<str>>,
    /// The HTTP version of the request.
    pub version: Version,
    /// The original caller behind trusted proxies, else the peer (SEM-30).
    pub client: IpAddr,
}

/// A response that has no end in sight when it begins; kept out of latency histograms.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Stream {
    /// `text/event-stream`.
    ServerSentEvents,
    /// 101 to `Upgrade: websocket`.
    WebSocket,
    /// 101 to any other protocol.
    Upgrade,
}

impl Stream {
    /// The word on the span and in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Stream::ServerSentEvents => "sse",
            Stream::WebSocket => "websocket",
            Stream::Upgrade => "upgrade",
        }
    }
}

/// When things happened, each measured from the moment the request head had been read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Time that name resolution took; `None` where no name was resolved for this exchange.
    pub dns: Option<Duration>,
    /// Time that connecting to the service took; `None` on a kept-alive connection.
    pub connect: Option<Duration>,
    /// Until the request head was handed to the connection to the service.
    pub sent: Option<Duration>,
    /// Until the service's response head had arrived.
    pub first_byte: Option<Duration>,
    /// Until the last byte, or the failure. The one duration of span, metric and log (SEM-10).
    pub total: Duration,
}

impl Timings {
    /// Time from the sent request head to the service's response head.
    pub fn upstream_first_byte(&self) -> Option<Duration> {
        Some(self.first_byte?.saturating_sub(self.sent?))
    }

    /// Time that the request head spent in tracecar before it went out, without name resolution and connecting.
    /// `None` where it never went out.
    pub fn proxy(&self) -> Option<Duration> {
        let before = self.sent?;
        Some(before.saturating_sub(self.dns.unwrap_or_default() + self.connect.unwrap_or_default()))
    }
}

/// Every fact of a finished exchange.
#[derive(Clone, Debug)]
pub struct Record {
    /// Ids and flags.
    pub identity: Identity,
    /// `tracestate` as sent on; empty where there is none.
    pub tracestate: Text,
    /// The correlation id; empty where correlation is off or no request could be read.
    pub correlation: Text,
    /// Wall-clock time at which the request head had been read.
    pub started_at: SystemTime,
    /// Phases and total duration.
    pub timings: Timings,
    /// The TCP peer (SEM-31), never taken from a header.
    pub peer: SocketAddr,
    /// What the request said, if one could be read.
    pub request: Option<RequestFacts>,
    /// The status that was sent to the caller; `None` where none was (SEM-25).
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
    /// One sentence on what went wrong; empty where nothing did.
    pub detail: Text,
    /// A stream, where the response is one.
    pub stream: Option<Stream>,
    /// Bytes of the request's content that were passed on.
    pub request_bytes: u64,
    /// Bytes of the response's content that were passed back.
    pub response_bytes: u64,
    /// A rule excludes this request; it is recorded only because it failed.
    pub excluded: bool,
    pub(super) texts: String,
}

impl Record {
    /// A record of an exchange of which nothing is known yet but where it stands and who called; it reads as
    /// complete.
    pub fn new(identity: Identity, started_at: SystemTime, peer: SocketAddr) -> Self {
        Self {
            identity,
            tracestate: Text::default(),
            correlation: Text::default(),
            started_at,
            timings: Timings::default(),
            peer,
            request: None,
            status: None,
            outcome: Outcome::Complete,
            detail: Text::default(),
            stream: None,
            request_bytes: 0,
            response_bytes: 0,
            excluded: false,
            texts: String::new(),
        }
    }

    /// The string behind a [`Text`] of this record.
    pub fn text(&self, text: Text) -> &str {
        self.texts.get(text.start as usize..text.end as usize).unwrap_or_default()
    }

    /// Copies `value` into the record.
    pub fn put(&mut self, value: &str) -> Text {
        let start = self.texts.len() as u32;
        self.texts.push_str(value);
        Text { start, end: self.texts.len() as u32 }
    }

    /// Copies bytes that need not be UTF-8 into the record; what is not becomes U+FFFD.
    pub fn put_bytes(&mut self, value: &[u8]) -> Text {
        self.put(&String::from_utf8_lossy(value))
    }

    /// `error.type` of the span and of the metric, from this one place (SEM-67, SEM-68): the outcome's own where
    /// it is an error, else the status where it is 5xx (SEM-63).
    pub fn error_type(&self) -> Option<std::borrow::Cow<'static, str>> {
        if let Some(word) = self.outcome.error_type() {
            return Some(word.into());
        }
        self.status.filter(|status| *status >= 500).map(|status| status.to_string().into())
    }

    /// Whether the exchange failed on the server's side of it: its span has status Error.
    pub fn failed(&self) -> bool {
        self.outcome.error_type().is_some() || self.status.is_some_and(|status| status >= 500)
    }

    /// Whose doing a failure was. A whole 5xx answer is the service's.
    pub fn fault(&self) -> Option<Fault> {
        self.outcome.fault().or_else(|| self.failed().then_some(Fault::Upstream))
    }

    /// Memory this record holds, for queues bounded in bytes.
    pub fn size_bytes(&self) -> usize {
        size_of::<Self>() + self.texts.capacity()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A finished exchange: `GET /items/42?sig=REDACTED` answered 200 in 5 ms.
    pub(crate) fn sample() -> Record {
        let mut record = Record {
            identity: Identity {
                trace_id: TraceId::from_bytes([0xab; 16]),
                span_id: SpanId::from_bytes([0xcd; 8]),
                parent: None,
                flags: 3,
            },
            tracestate: Text::default(),
            correlation: Text::default(),
            started_at: SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000),
            timings: Timings {
                sent: Some(Duration::from_micros(40)),
                first_byte: Some(Duration::from_millis(4)),
                total: Duration::from_millis(5),
                ..Timings::default()
            },
            peer: SocketAddr::from(([127, 0, 0, 1], 50_000)),
            request: None,
            status: Some(200),
            outcome: Outcome::Complete,
            detail: Text::default(),
            stream: None,
            request_bytes: 0,
            response_bytes: 198,
            excluded: false,
            texts: String::new(),
        };
        record.correlation = record.put("abc-1");
        let path = record.put("/items/42");
        let query = record.put("sig=REDACTED");
        let authority = record.put("shop.example:8080");
        let user_agent = record.put("curl/8");
        record.request = Some(RequestFacts {
            method: Method::GET,
            known_method: true,
            path,
            query: Some(query),
            scheme: "http",
            authority,
            user_agent: Some(user_agent),
            route: Some("/items/{id}".into()),
            version: Version::HTTP_11,
            client: [203, 0, 113, 9].into(),
        });
        record
    }

    #[test]
    fn texts_come_back_as_they_were_put() {
        let record = sample();
        let request = record.request.as_ref().unwrap();
        assert_eq!(record.text(request.path), "/items/42");
        assert_eq!(record.text(record.correlation), "abc-1");
        assert_eq!(record.text(Text::default()), "");
    }

    #[test]
    fn a_whole_5xx_answer_is_a_failure_of_the_upstream() {
        let mut record = sample();
        assert!(!record.failed());
        record.status = Some(503);
        assert_eq!(record.error_type().as_deref(), Some("503"));
        assert_eq!(record.fault(), Some(Fault::Upstream));
    }
}
