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

use super::evidence::Evidence;
use super::grpc::{GRPC_STATUS, RpcMethod};
use super::outcome::{Fault, Outcome};
use super::tls::TlsFacts;

/// A string of a [`Record`]; read it with [`Record::text`]. The default is the empty string.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Text {
    start: u32,
    end: u32,
}

impl Text {
    /// The part of this text from byte `from` to byte `to` of it; both lie within it, or the part is empty.
    pub fn part(self, from: usize, to: usize) -> Self {
        let length = (self.end - self.start) as usize;
        if from > to || to > length {
            return Self::default();
        }
        Self { start: self.start + from as u32, end: self.start + to as u32 }
    }
}

/// Which way a request goes through tracecar.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// From the network to the service: a SERVER span (SEM-1).
    Inbound,
    /// From the service to the network: a CLIENT span (SEM-2).
    Outbound,
}

impl Side {
    /// The word in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Side::Inbound => "inbound",
            Side::Outbound => "outbound",
        }
    }
}

/// A span that this one has to do with, though it is not its parent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Link {
    /// Its trace.
    pub trace_id: TraceId,
    /// The span.
    pub span_id: SpanId,
    /// W3C flags of its trace.
    pub flags: u8,
    /// Whether it is a span of somebody else (OTLP-43).
    pub remote: bool,
}

/// How the parent of an outbound exchange was found.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ancestry {
    /// The tier that decided, or `none`.
    pub method: &'static str,
    /// How far it can be relied on, from 0 to 1.
    pub confidence: f64,
    /// How many inbound exchanges it could have been; see [`semconv::LINEAGE_CANDIDATES`](super::semconv::LINEAGE_CANDIDATES).
    pub candidates: u32,
}

impl Ancestry {
    /// The method of a parent that was not found.
    pub const NONE: &str = "none";
}

/// Where an exchange stands in its trace.
#[derive(Clone, Copy, Debug)]
pub struct Identity {
    /// Trace id, never zero.
    pub trace_id: TraceId,
    /// Id of this exchange's span, never zero.
    pub span_id: SpanId,
    /// The span that caused this one, where it is known: that of the caller, or of the inbound exchange that an
    /// outbound one belongs to.
    pub parent: Option<SpanId>,
    /// Whether the parent is a span of somebody else, as far as we know (OTLP-43).
    pub remote: bool,
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
    /// The whole URL, for outbound requests that have one: redacted, and without credentials (SEM-41, SEM-80).
    pub url: Option<Text>,
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
    /// The HTTP version of the request; of an outbound one, that which was spoken with the destination.
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

/// A connection that is passed on without a look at what is said on it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Tunneled {
    /// The service asked for it by `CONNECT`.
    Connect,
    /// It was redirected to us: the service asked nobody, and no request was read.
    Redirected,
}

/// When things happened, each measured from the moment the request head had been read.
#[derive(Clone, Copy, Debug, Default)]
pub struct Timings {
    /// Time that name resolution took; `None` where no name was resolved for this exchange.
    pub dns: Option<Duration>,
    /// Time that connecting to the service took; `None` on a kept-alive connection.
    pub connect: Option<Duration>,
    /// Time that the TLS handshake took; `None` where there was none for this exchange.
    pub tls: Option<Duration>,
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

    /// Time that the request head spent in tracecar before it went out, without name resolution, connecting and TLS.
    /// `None` where it never went out.
    pub fn proxy(&self) -> Option<Duration> {
        Some(self.sent?.saturating_sub(self.connecting()))
    }

    /// Time that name resolution, connecting and TLS took; none on a kept-alive connection.
    pub fn connecting(&self) -> Duration {
        [self.dns, self.connect, self.tls].into_iter().flatten().sum()
    }
}

/// Every fact of a finished exchange.
#[derive(Clone, Debug)]
pub struct Record {
    /// Which way the request went.
    pub side: Side,
    /// Ids and flags.
    pub identity: Identity,
    /// How the parent was found, where we looked for it: outbound exchanges only.
    pub ancestry: Option<Ancestry>,
    /// Spans that may be the cause, where the parent is not known, and the caller's where its trace was left.
    pub links: Vec<Link>,
    /// What people call the destination of an outbound exchange, where the settings name it.
    pub destination: Option<Arc<str>>,
    /// `tracestate` as sent on; empty where there is none.
    pub tracestate: Text,
    /// The correlation id; empty where correlation is off or no request could be read.
    pub correlation: Text,
    /// Wall-clock time at which the request head had been read.
    pub started_at: SystemTime,
    /// Phases and total duration.
    pub timings: Timings,
    /// The TCP peer, never taken from a header: the caller of an inbound exchange (SEM-31), the server that an
    /// outbound one reached (SEM-46). `None` where no server was reached.
    pub peer: Option<SocketAddr>,
    /// The TLS that an inbound request came by.
    pub tls: Option<Arc<TlsFacts>>,
    /// What the request said, if one could be read.
    pub request: Option<RequestFacts>,
    /// The status that was sent to the caller; of an outbound exchange, the one that was received from the
    /// destination. `None` where there was none (SEM-25): an error of our own is not invented an answer.
    pub status: Option<u16>,
    /// How it ended.
    pub outcome: Outcome,
    /// One sentence on what went wrong; empty where nothing did.
    pub detail: Text,
    /// A remark on how the exchange was carried; empty where there is none.
    pub note: Text,
    /// How often the request was sent again after a connection had failed (SEM-45).
    pub resends: u32,
    /// A tunnel, of whose inside only the bytes were counted.
    pub tunnel: Option<Tunneled>,
    /// A stream, where the response is one.
    pub stream: Option<Stream>,
    /// Bytes of the request's content that were passed on.
    pub request_bytes: u64,
    /// Bytes of the response's content that were passed back.
    pub response_bytes: u64,
    /// A rule excludes this request; it is recorded only because it failed.
    pub excluded: bool,
    /// What is known of the method of a gRPC call; `None` where the request is none. The method's name is the path.
    pub rpc: Option<RpcMethod>,
    /// The gRPC status of the response, or that which the caller gives to a response without one (RPC-12, RPC-13). Of a call
    /// that we had to answer in the service's or destination's place, it is that of our answer.
    pub grpc_status: Option<u8>,
    /// It counts as a failure by its route and status, though it would not elsewhere.
    pub chosen: bool,
    /// What a failed exchange said, where somebody wants to read it. It is taken out before sinks see the record: whoever keeps
    /// records for long should not keep that, too.
    pub evidence: Option<Box<Evidence>>,
    pub(super) texts: String,
}

impl Record {
    /// A record of an exchange of which nothing is known yet but where it stands and who called; it reads as
    /// complete.
    pub fn new(side: Side, identity: Identity, started_at: SystemTime, peer: Option<SocketAddr>) -> Self {
        Self {
            side,
            identity,
            ancestry: None,
            links: Vec::new(),
            destination: None,
            tracestate: Text::default(),
            correlation: Text::default(),
            started_at,
            timings: Timings::default(),
            peer,
            tls: None,
            request: None,
            status: None,
            outcome: Outcome::Complete,
            detail: Text::default(),
            note: Text::default(),
            resends: 0,
            tunnel: None,
            stream: None,
            request_bytes: 0,
            response_bytes: 0,
            excluded: false,
            rpc: None,
            grpc_status: None,
            chosen: false,
            evidence: None,
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

    /// Copies `pieces` into the record, as one text.
    pub fn put_pieces(&mut self, pieces: &[&str]) -> Text {
        let start = self.texts.len() as u32;
        pieces.iter().for_each(|piece| self.texts.push_str(piece));
        Text { start, end: self.texts.len() as u32 }
    }

    /// Copies bytes that need not be UTF-8 into the record; what is not becomes U+FFFD.
    pub fn put_bytes(&mut self, value: &[u8]) -> Text {
        self.put(&String::from_utf8_lossy(value))
    }

    /// `error.type` of the span and of the metric, from this one place (SEM-67, SEM-68): the outcome's own where
    /// it is an error, else the status where that is one (SEM-62, SEM-63).
    pub fn error_type(&self) -> Option<std::borrow::Cow<'static, str>> {
        if let Some(word) = self.error_of_outcome().or_else(|| self.error_of_grpc()) {
            return Some(word.into());
        }
        self.error_status().map(|status| status.to_string().into())
    }

    /// What kind of error the outcome itself is. To ask for a destination that is not allowed, or in a way that nobody
    /// understands, is an error of the call, where a server would only shrug.
    pub fn error_of_outcome(&self) -> Option<&'static str> {
        match (self.side, self.outcome) {
            (Side::Outbound, Outcome::Rejected | Outcome::RequestTimeout | Outcome::MalformedRequest) => {
                Some(self.outcome.as_str())
            }
            (_, outcome) => outcome.error_type(),
        }
    }

    /// The status, where it is an error: from 500 to those who answer, from 400 to those who ask (SEM-62).
    pub fn error_status(&self) -> Option<u16> {
        let first = match self.side {
            Side::Inbound => 500,
            Side::Outbound => 400,
        };
        self.status.filter(|status| *status >= first)
    }

    /// The method of a gRPC call as it was asked for, `pkg.Service/Method` (RPC-2); `None` where the request is none.
    pub fn rpc_method(&self) -> Option<&str> {
        let path = self.text(self.request.as_ref().filter(|_| self.rpc.is_some())?.path);
        Some(path.strip_prefix('/').unwrap_or(path))
    }

    /// The same where it is known to be one.
    pub fn known_rpc_method(&self) -> Option<&str> {
        self.rpc_method().filter(|_| self.rpc != Some(RpcMethod::Other))
    }

    /// The name of the gRPC status, where there is one. Numbers that nobody has given a meaning are `UNKNOWN`.
    pub fn grpc_status_name(&self) -> Option<&'static str> {
        let status = usize::from(self.grpc_status?);
        Some(GRPC_STATUS.get(status).copied().unwrap_or("UNKNOWN"))
    }

    /// The name of the gRPC status, where it is an error: to those who ask all are but `OK`, to those who answer what is their own
    /// doing (RPC-6).
    pub fn error_of_grpc(&self) -> Option<&'static str> {
        let name = self.grpc_status_name().filter(|name| *name != GRPC_STATUS[0])?;
        let ours = ["UNKNOWN", "DEADLINE_EXCEEDED", "UNIMPLEMENTED", "INTERNAL", "UNAVAILABLE", "DATA_LOSS"];
        (self.side == Side::Outbound || ours.contains(&name)).then_some(name)
    }

    /// Whether the exchange failed, seen from the side that its span is of: the span has status Error.
    pub fn failed(&self) -> bool {
        self.error_of_outcome().is_some() || self.error_status().is_some() || self.error_of_grpc().is_some()
    }

    /// Whose doing a failure was. A whole 5xx answer is the doing of whoever answered; a 4xx that of whoever asked.
    pub fn fault(&self) -> Option<Fault> {
        let of_status = || match self.error_status()? {
            ..500 => Some(Fault::Client),
            _ => Some(Fault::Upstream),
        };
        let of_grpc = || self.error_of_grpc().map(|_| Fault::Upstream);
        self.outcome.fault().or_else(of_status).or_else(of_grpc)
    }

    /// Memory this record holds, for queues bounded in bytes.
    pub fn size_bytes(&self) -> usize {
        let evidence = self.evidence.as_deref().map_or(0, Evidence::size_bytes);
        size_of::<Self>() + self.texts.capacity() + self.links.capacity() * size_of::<Link>() + evidence
    }
}

#[cfg(test)]
pub(crate) mod tests;
