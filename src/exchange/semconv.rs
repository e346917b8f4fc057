//! What a [`Record`] is called in OpenTelemetry: span name, status, attributes, metric labels.
//!
//! The only file with attribute names. HTTP attributes follow the stable semantic conventions 1.44, for SERVER spans
//! of what comes in and CLIENT spans of what goes out; spans of gRPC calls follow those of RPC instead (RPC-15); what they have no name for is under `tracecar.`. Metrics and logs take their words from here, so that a
//! search that works in one works in the others.
//!
//! Attributes are shown to a visitor and never gathered: what a span is made into differs from reader to reader, and
//! a list of 20 owned pairs for each would cost more than all the rest of exporting it.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::IpAddr;

use http::{StatusCode, Version};

use super::outcome::Outcome;
use super::record::{Ancestry, Record, RequestFacts, Side, Tunneled};
use super::tls::ClientCertificate;

/// The version of the conventions that the names are taken from, as the scope states it (SEM-11).
pub const SCHEMA_URL: &str = "https://opentelemetry.io/schemas/1.44.0";

/// Method of the request, or [`OTHER`] (SEM-20).
pub const HTTP_REQUEST_METHOD: &str = "http.request.method";
/// The method as sent, where [`HTTP_REQUEST_METHOD`] is [`OTHER`] (SEM-24).
pub const HTTP_REQUEST_METHOD_ORIGINAL: &str = "http.request.method_original";
/// Status that was sent (SEM-25).
pub const HTTP_RESPONSE_STATUS_CODE: &str = "http.response.status_code";
/// Configured template of the path (SEM-26).
pub const HTTP_ROUTE: &str = "http.route";
/// [`GRPC`], of spans of calls (RPC-1).
pub const RPC_SYSTEM_NAME: &str = "rpc.system.name";
/// Method of the call, `pkg.Service/Method`, or [`OTHER`] (RPC-2, RPC-3).
pub const RPC_METHOD: &str = "rpc.method";
/// The method as asked for, where [`RPC_METHOD`] is [`OTHER`] (RPC-3).
pub const RPC_METHOD_ORIGINAL: &str = "rpc.method_original";
/// Name of the gRPC status: `OK`, `DEADLINE_EXCEEDED` (RPC-5).
pub const RPC_RESPONSE_STATUS_CODE: &str = "rpc.response.status_code";
/// The one system for remote procedure calls that is known here.
pub const GRPC: &str = "grpc";
/// What kind of error ended the exchange (SEM-67).
pub const ERROR_TYPE: &str = "error.type";
/// The whole URL of a call, without credentials, its query redacted (SEM-41).
pub const URL_FULL: &str = "url.full";
/// Configured template of the path of a call (SEM-47).
pub const URL_TEMPLATE: &str = "url.template";
/// How often a call was sent again (SEM-45).
pub const HTTP_REQUEST_RESEND_COUNT: &str = "http.request.resend_count";
/// What people call the destination of a call. Deprecated, and the only name by which service graphs know it (SG-5).
pub const PEER_SERVICE: &str = "peer.service";
/// The same under its present name (SEM-102).
pub const SERVICE_PEER_NAME: &str = "service.peer.name";
/// Scheme of the original request (SEM-22).
pub const URL_SCHEME: &str = "url.scheme";
/// Path without query (SEM-21).
pub const URL_PATH: &str = "url.path";
/// Redacted query without `?` (SEM-29).
pub const URL_QUERY: &str = "url.query";
/// Host that the caller asked for (SEM-50).
pub const SERVER_ADDRESS: &str = "server.address";
/// Port that the caller asked for, where it named one (SEM-28).
pub const SERVER_PORT: &str = "server.port";
/// The original caller (SEM-30).
pub const CLIENT_ADDRESS: &str = "client.address";
/// Address of the TCP peer (SEM-31).
pub const NETWORK_PEER_ADDRESS: &str = "network.peer.address";
/// Port of the TCP peer (SEM-31).
pub const NETWORK_PEER_PORT: &str = "network.peer.port";
/// HTTP version: `1.1`, `2` (SEM-32).
pub const NETWORK_PROTOCOL_VERSION: &str = "network.protocol.version";
/// Version of the TLS that a request came by: `1.2`, `1.3`.
pub const TLS_PROTOCOL_VERSION: &str = "tls.protocol.version";
/// Subject of the certificate that a caller has shown and that was verified, as RFC 4514 writes names.
pub const TLS_CLIENT_SUBJECT: &str = "tls.client.subject";
/// Who has signed that certificate, in the same way.
pub const TLS_CLIENT_ISSUER: &str = "tls.client.issuer";
/// `User-Agent` (SEM-34).
pub const USER_AGENT_ORIGINAL: &str = "user_agent.original";

/// How the exchange ended: [`Outcome::as_str`].
pub const OUTCOME: &str = "tracecar.outcome";
/// Whose doing it was, where something went wrong: `client`, `upstream`, `proxy`.
pub const FAULT: &str = "tracecar.fault";
/// One sentence on what went wrong.
pub const DETAIL: &str = "tracecar.detail";
/// The correlation id of the request.
pub const CORRELATION_ID: &str = "tracecar.correlation_id";
/// Kind of stream, where the response is one: `sse`, `websocket`, `upgrade`.
pub const STREAM: &str = "tracecar.stream";
/// Seconds the request head spent in tracecar.
pub const TIME_PROXY: &str = "tracecar.time.proxy";
/// Seconds that resolving the service's name took.
pub const TIME_DNS: &str = "tracecar.time.dns";
/// Seconds that connecting to the service took.
pub const TIME_CONNECT: &str = "tracecar.time.connect";
/// Seconds from the sent request head to the service's response head.
pub const TIME_FIRST_BYTE: &str = "tracecar.time.first_byte";
/// Bytes of the request's content that were passed on.
pub const REQUEST_BYTES: &str = "tracecar.request.bytes";
/// Bytes of the response's content that were passed back.
pub const RESPONSE_BYTES: &str = "tracecar.response.bytes";
/// A remark on how the exchange was carried.
pub const NOTE: &str = "tracecar.note";
/// How the parent of a call was found: `header`, `correlation`, `token`, `process`, `sole`, or `none`.
pub const LINEAGE_METHOD: &str = "tracecar.lineage.method";
/// How far that can be relied on, from 0 to 1.
pub const LINEAGE_CONFIDENCE: &str = "tracecar.lineage.confidence";
/// How many inbound exchanges could have been the parent before the method decided: those that carry the id or the value, open
/// or ended a moment ago; else those that were open and accepted. Never less than there are links.
pub const LINEAGE_CANDIDATES: &str = "tracecar.lineage.candidates";
/// `true` where only the bytes of a tunnel were seen, and nothing of what was said in it.
pub const TUNNEL_UNSEEN: &str = "tracecar.tunnel.unseen";
/// Seconds that the TLS handshake with the destination took.
pub const TIME_TLS: &str = "tracecar.time.tls";
/// The first URI of the certificate that a caller has shown, such as a SPIFFE id, or else the first host name in it.
pub const TLS_CLIENT_NAME: &str = "tracecar.tls.client.name";
/// `true` where a rule excludes the request and only its failure is recorded.
pub const EXCLUDED: &str = "tracecar.excluded";

/// Resource: name of the service (RES-1).
pub const SERVICE_NAME: &str = "service.name";
/// Resource: this one process (RES-2).
pub const SERVICE_INSTANCE_ID: &str = "service.instance.id";
/// Resource: what made the spans (RES-3).
pub const TELEMETRY_SDK_NAME: &str = "telemetry.sdk.name";
/// Resource: language of what made the spans (RES-3).
pub const TELEMETRY_SDK_LANGUAGE: &str = "telemetry.sdk.language";
/// Resource: version of what made the spans (RES-3).
pub const TELEMETRY_SDK_VERSION: &str = "telemetry.sdk.version";

/// The method of requests whose own is not among the known ones, or could not be read (SEM-20).
pub const OTHER: &str = "_OTHER";

/// Value of an attribute.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value<'r> {
    /// A string.
    Str(&'r str),
    /// A signed integer.
    Int(i64),
    /// A number.
    Double(f64),
    /// True or false.
    Bool(bool),
}

/// Status of a span. There is no `Ok`: that is for the service's own code to say (SEM-69).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status<'r> {
    /// Nothing failed on the server's side.
    Unset,
    /// It failed; the description may be empty.
    Error(&'r str),
}

/// Name of the span: `GET /items/{id}`, `GET`, `HTTP`; of a gRPC call `pkg.Service/Method`, `grpc`. Never holds a path that
/// anybody may have made up (SEM-3 to SEM-6, RPC-4).
pub fn span_name(record: &Record) -> Cow<'_, str> {
    match span_name_parts(record) {
        (method, Some(route)) => format!("{method} {route}").into(),
        (method, None) => method.into(),
    }
}

/// Name of the span as the one or two words that it is made of, with a space between them.
pub fn span_name_parts(record: &Record) -> (&str, Option<&str>) {
    if record.tunnel == Some(Tunneled::Redirected) {
        return ("tunnel", None);
    }
    if record.rpc.is_some() {
        return (record.known_rpc_method().unwrap_or(GRPC), None);
    }
    let Some(request) = &record.request else { return ("HTTP", None) };
    (known_method(request).unwrap_or("HTTP"), request.route.as_deref())
}

/// Status of the span: Error exactly where the record failed, else Unset (SEM-60 to SEM-65, SEM-69).
pub fn span_status(record: &Record) -> Status<'_> {
    if !record.failed() {
        return Status::Unset;
    }
    // A plain 5xx answer says all there is to say by its status code (SEM-66).
    Status::Error(match record.outcome {
        Outcome::Complete => "",
        _ => record.text(record.detail),
    })
}

/// Shows each attribute of the span to `visit`, each key once. Allocates nothing.
pub fn attributes(record: &Record, visit: &mut impl FnMut(&'static str, Value<'_>)) {
    match record.rpc_method() {
        Some(method) => of_rpc(record, method, visit),
        // On a connection that was redirected nobody sent a method.
        None if record.tunnel == Some(Tunneled::Redirected) => {}
        None => visit(HTTP_REQUEST_METHOD, Value::Str(method(record))),
    }
    if let Some(request) = &record.request {
        of_request(record, request, visit);
    }
    // What gRPC has to say is not said by HTTP's status, unless it is not gRPC that answered.
    if let Some(status) = record.status.filter(|status| record.rpc.is_none() || *status != 200) {
        visit(HTTP_RESPONSE_STATUS_CODE, Value::Int(status.into()));
    }
    if let Some(name) = record.grpc_status_name() {
        visit(RPC_RESPONSE_STATUS_CODE, Value::Str(name));
    }
    if record.failed() {
        // What `Record::error_type` says; its digits are borrowed here.
        let status = record.error_status().and_then(|status| StatusCode::from_u16(status).ok());
        let word = record.error_of_outcome().or_else(|| record.error_of_grpc());
        let word = word.or(status.as_ref().map(StatusCode::as_str));
        visit(ERROR_TYPE, Value::Str(word.unwrap_or(OTHER)));
    }
    if let Some(peer) = record.peer {
        visit(NETWORK_PEER_ADDRESS, Value::Str(Address::new(peer.ip()).as_str()));
        visit(NETWORK_PEER_PORT, Value::Int(peer.port().into()));
    }
    if let Some(tls) = &record.tls {
        visit(TLS_PROTOCOL_VERSION, Value::Str(tls.version));
        if let Some(ClientCertificate { subject, issuer, name }) = &tls.client {
            visit(TLS_CLIENT_SUBJECT, Value::Str(subject));
            visit(TLS_CLIENT_ISSUER, Value::Str(issuer));
            if let Some(name) = name {
                visit(TLS_CLIENT_NAME, Value::Str(name));
            }
        }
    }
    of_ours(record, visit);
}

/// The span of a gRPC call is one of RPC, and none of HTTP (RPC-15).
fn of_rpc(record: &Record, method: &str, visit: &mut impl FnMut(&'static str, Value<'_>)) {
    visit(RPC_SYSTEM_NAME, Value::Str(GRPC));
    visit(RPC_METHOD, Value::Str(record.known_rpc_method().unwrap_or(OTHER)));
    if record.known_rpc_method().is_none() {
        visit(RPC_METHOD_ORIGINAL, Value::Str(method));
    }
}

fn of_request(record: &Record, request: &RequestFacts, visit: &mut impl FnMut(&'static str, Value<'_>)) {
    if !request.known_method && record.rpc.is_none() {
        visit(HTTP_REQUEST_METHOD_ORIGINAL, Value::Str(request.method.as_str()));
    }
    if let Some((host, port)) = server(record, request) {
        visit(SERVER_ADDRESS, Value::Str(host));
        if let Some(port) = port {
            visit(SERVER_PORT, Value::Int(port.into()));
        }
    }
    if let Some(version) = spoken_version(record, request) {
        visit(NETWORK_PROTOCOL_VERSION, Value::Str(version));
    }
    match record.side {
        Side::Inbound => of_served(record, request, visit),
        Side::Outbound => of_called(record, request, visit),
    }
}

/// What only a SERVER span has (SEM-20 to SEM-35).
fn of_served(record: &Record, request: &RequestFacts, visit: &mut impl FnMut(&'static str, Value<'_>)) {
    if record.rpc.is_none() {
        visit(URL_SCHEME, Value::Str(request.scheme));
        visit(URL_PATH, Value::Str(record.text(request.path)));
        if let Some(query) = request.query {
            visit(URL_QUERY, Value::Str(record.text(query)));
        }
        if let Some(route) = &request.route {
            visit(HTTP_ROUTE, Value::Str(route));
        }
    }
    // The conventions of RPC have no place for these two any more (RPC-11), but who called is no less worth knowing.
    visit(CLIENT_ADDRESS, Value::Str(Address::new(request.client).as_str()));
    if let Some(user_agent) = request.user_agent {
        visit(USER_AGENT_ORIGINAL, Value::Str(record.text(user_agent)));
    }
}

/// What only a CLIENT span has (SEM-40 to SEM-47). Its user agent is our own service, and so left out.
fn of_called(record: &Record, request: &RequestFacts, visit: &mut impl FnMut(&'static str, Value<'_>)) {
    // A tunnel has no URL: its target is a host and a port.
    if let Some(url) = request.url.filter(|_| record.rpc.is_none()) {
        visit(URL_FULL, Value::Str(record.text(url)));
    }
    if let Some(template) = request.route.as_ref().filter(|_| record.rpc.is_none()) {
        visit(URL_TEMPLATE, Value::Str(template));
    }
    if record.resends > 0 {
        visit(HTTP_REQUEST_RESEND_COUNT, Value::Int(record.resends.into()));
    }
}

fn of_ours(record: &Record, visit: &mut impl FnMut(&'static str, Value<'_>)) {
    visit(OUTCOME, Value::Str(record.outcome.as_str()));
    if let Some(fault) = record.fault() {
        visit(FAULT, Value::Str(fault.as_str()));
    }
    if let Some(name) = &record.destination {
        // Two names for one thing: the conventions have moved on, and the service graphs have not (SG-5).
        visit(PEER_SERVICE, Value::Str(name));
        visit(SERVICE_PEER_NAME, Value::Str(name));
    }
    if let Some(Ancestry { method, confidence, candidates }) = record.ancestry {
        visit(LINEAGE_METHOD, Value::Str(method));
        visit(LINEAGE_CONFIDENCE, Value::Double(confidence));
        visit(LINEAGE_CANDIDATES, Value::Int(candidates.into()));
    }
    for (key, text) in [(DETAIL, record.detail), (NOTE, record.note), (CORRELATION_ID, record.correlation)] {
        let text = record.text(text);
        if !text.is_empty() {
            visit(key, Value::Str(text));
        }
    }
    if let Some(stream) = record.stream {
        visit(STREAM, Value::Str(stream.as_str()));
    }
    let timings = &record.timings;
    let phases = [
        (TIME_PROXY, timings.proxy()),
        (TIME_DNS, timings.dns),
        (TIME_CONNECT, timings.connect),
        (TIME_TLS, timings.tls),
        (TIME_FIRST_BYTE, timings.upstream_first_byte()),
    ];
    for (key, time) in phases {
        if let Some(time) = time {
            visit(key, Value::Double(time.as_secs_f64()));
        }
    }
    visit(REQUEST_BYTES, Value::Int(integer(record.request_bytes)));
    visit(RESPONSE_BYTES, Value::Int(integer(record.response_bytes)));
    if record.tunnel.is_some() {
        visit(TUNNEL_UNSEEN, Value::Bool(true));
    }
    if record.excluded {
        visit(EXCLUDED, Value::Bool(true));
    }
}

/// [`HTTP_REQUEST_METHOD`] of a record.
pub fn method(record: &Record) -> &str {
    record.request.as_ref().and_then(known_method).unwrap_or(OTHER)
}

/// [`SERVER_ADDRESS`] and [`SERVER_PORT`] of a request. The port of a call is always known, for its scheme has one
/// (SEM-43); the port that a caller used behind all proxies is not, where it named none (SEM-28).
pub fn server<'r>(record: &'r Record, request: &RequestFacts) -> Option<(&'r str, Option<u16>)> {
    let (host, port) = host_and_port(record.text(request.authority))?;
    let default = match (record.side, request.scheme) {
        (Side::Inbound, _) => None,
        (Side::Outbound, "https") => Some(443),
        (Side::Outbound, _) => Some(80),
    };
    Some((host, port.or(default)))
}

/// [`NETWORK_PROTOCOL_VERSION`] of a request. Of a call it is known only where a server was reached, and what was said to
/// it was seen (SEM-32).
pub fn spoken_version(record: &Record, request: &RequestFacts) -> Option<&'static str> {
    let known = match record.side {
        Side::Inbound => true,
        Side::Outbound => record.peer.is_some() && record.tunnel.is_none(),
    };
    protocol_version(request.version).filter(|_| known)
}

/// [`NETWORK_PROTOCOL_VERSION`] of an HTTP version; `None` for one that has no name yet.
pub fn protocol_version(version: Version) -> Option<&'static str> {
    match version {
        Version::HTTP_09 => Some("0.9"),
        Version::HTTP_10 => Some("1.0"),
        Version::HTTP_11 => Some("1.1"),
        Version::HTTP_2 => Some("2"),
        Version::HTTP_3 => Some("3"),
        _ => None,
    }
}

/// [`SERVER_ADDRESS`] and [`SERVER_PORT`] out of an authority (SEM-50). An address literal loses its brackets; a
/// port that was not named is not made up: behind a sidecar the scheme's default would often be wrong.
pub fn host_and_port(authority: &str) -> Option<(&str, Option<u16>)> {
    // Credentials have no business in an authority that is sent, and none in a span (SEM-80).
    let authority = authority.rsplit_once('@').map_or(authority, |(_, rest)| rest);
    let (host, port) = match authority.strip_prefix('[') {
        Some(literal) => {
            let (host, rest) = literal.split_once(']')?;
            (host, rest.strip_prefix(':'))
        }
        None => match authority.split_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        },
    };
    if host.is_empty() {
        return None;
    }
    Some((host, port.and_then(|port| port.parse().ok()).filter(|port| *port != 0)))
}

fn known_method(request: &RequestFacts) -> Option<&str> {
    request.known_method.then(|| request.method.as_str())
}

/// An IP address as text, without an allocation.
struct Address {
    text: [u8; Self::LONGEST],
    length: usize,
}

impl Address {
    /// An IPv6 address with an IPv4 address in its last 32 bits.
    const LONGEST: usize = 45;

    /// An IPv4 caller on a dual-stack socket is an IPv4 caller.
    fn new(address: IpAddr) -> Self {
        let mut out = Self { text: [0; Self::LONGEST], length: 0 };
        // No address is longer than that; were one, it would be cut short.
        let _ = match address.to_canonical() {
            IpAddr::V4(address) => out.put_v4(address.octets()),
            IpAddr::V6(address) => write!(out, "{address}"),
        };
        out
    }

    /// The common kind by hand: `Display` takes four times as long, and this is done twice per span.
    fn put_v4(&mut self, octets: [u8; 4]) -> fmt::Result {
        for (index, octet) in octets.into_iter().enumerate() {
            let digits = [b'0' + octet / 100, b'0' + octet / 10 % 10, b'0' + octet % 10];
            let leading = usize::from(octet < 100) + usize::from(octet < 10);
            if index > 0 {
                self.put(b".")?;
            }
            self.put(&digits[leading..])?;
        }
        Ok(())
    }

    fn put(&mut self, piece: &[u8]) -> fmt::Result {
        let room = self.text.get_mut(self.length..self.length + piece.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(piece);
        self.length += piece.len();
        Ok(())
    }

    fn as_str(&self) -> &str {
        std::str::from_utf8(&self.text[..self.length]).unwrap_or_default()
    }
}

impl fmt::Write for Address {
    fn write_str(&mut self, piece: &str) -> fmt::Result {
        self.put(piece.as_bytes())
    }
}

fn integer(n: u64) -> i64 {
    i64::try_from(n).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
