//! What a [`Record`] is called in OpenTelemetry: span name, status, attributes, metric labels.
//!
//! The only file with attribute names. HTTP attributes follow the stable semantic conventions 1.44 for SERVER
//! spans; what they have no name for is under `tracecar.`. Metrics and logs take their words from here, so that a
//! search that works in one works in the others.
//!
//! Attributes are shown to a visitor and never gathered: what a span is made into differs from reader to reader, and
//! a list of 20 owned pairs for each would cost more than all the rest of exporting it.

use std::borrow::Cow;
use std::fmt::{self, Write as _};
use std::net::IpAddr;

use http::{StatusCode, Version};

use super::outcome::Outcome;
use super::record::{Record, RequestFacts};

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
/// What kind of error ended the exchange (SEM-67).
pub const ERROR_TYPE: &str = "error.type";
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

/// Name of the span: `GET /items/{id}`, `GET`, `HTTP`. Never holds the path itself (SEM-3 to SEM-6).
pub fn span_name(record: &Record) -> Cow<'_, str> {
    match span_name_parts(record) {
        (method, Some(route)) => format!("{method} {route}").into(),
        (method, None) => method.into(),
    }
}

/// Name of the span as the one or two words that it is made of, with a space between them.
pub fn span_name_parts(record: &Record) -> (&str, Option<&str>) {
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
    visit(HTTP_REQUEST_METHOD, Value::Str(method(record)));
    if let Some(request) = &record.request {
        of_request(record, request, visit);
    }
    if let Some(status) = record.status {
        visit(HTTP_RESPONSE_STATUS_CODE, Value::Int(status.into()));
    }
    if record.failed() {
        // What `Record::error_type` says; its digits are borrowed here.
        let status = record.status.and_then(|status| StatusCode::from_u16(status).ok());
        let word = record.outcome.error_type().or(status.as_ref().map(StatusCode::as_str));
        visit(ERROR_TYPE, Value::Str(word.unwrap_or(OTHER)));
    }
    visit(NETWORK_PEER_ADDRESS, Value::Str(Address::new(record.peer.ip()).as_str()));
    visit(NETWORK_PEER_PORT, Value::Int(record.peer.port().into()));
    of_ours(record, visit);
}

fn of_request(record: &Record, request: &RequestFacts, visit: &mut impl FnMut(&'static str, Value<'_>)) {
    if !request.known_method {
        visit(HTTP_REQUEST_METHOD_ORIGINAL, Value::Str(request.method.as_str()));
    }
    visit(URL_SCHEME, Value::Str(request.scheme));
    visit(URL_PATH, Value::Str(record.text(request.path)));
    if let Some(query) = request.query {
        visit(URL_QUERY, Value::Str(record.text(query)));
    }
    if let Some(route) = &request.route {
        visit(HTTP_ROUTE, Value::Str(route));
    }
    if let Some((host, port)) = host_and_port(record.text(request.authority)) {
        visit(SERVER_ADDRESS, Value::Str(host));
        if let Some(port) = port {
            visit(SERVER_PORT, Value::Int(port.into()));
        }
    }
    visit(CLIENT_ADDRESS, Value::Str(Address::new(request.client).as_str()));
    if let Some(version) = protocol_version(request.version) {
        visit(NETWORK_PROTOCOL_VERSION, Value::Str(version));
    }
    if let Some(user_agent) = request.user_agent {
        visit(USER_AGENT_ORIGINAL, Value::Str(record.text(user_agent)));
    }
}

fn of_ours(record: &Record, visit: &mut impl FnMut(&'static str, Value<'_>)) {
    visit(OUTCOME, Value::Str(record.outcome.as_str()));
    if let Some(fault) = record.fault() {
        visit(FAULT, Value::Str(fault.as_str()));
    }
    for (key, text) in [(DETAIL, record.detail), (CORRELATION_ID, record.correlation)] {
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
        (TIME_FIRST_BYTE, timings.upstream_first_byte()),
    ];
    for (key, time) in phases {
        if let Some(time) = time {
            visit(key, Value::Double(time.as_secs_f64()));
        }
    }
    visit(REQUEST_BYTES, Value::Int(integer(record.request_bytes)));
    visit(RESPONSE_BYTES, Value::Int(integer(record.response_bytes)));
    if record.excluded {
        visit(EXCLUDED, Value::Bool(true));
    }
}

/// [`HTTP_REQUEST_METHOD`] of a record.
pub fn method(record: &Record) -> &str {
    record.request.as_ref().and_then(known_method).unwrap_or(OTHER)
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
mod tests {
    use std::collections::BTreeMap;
    use std::net::Ipv4Addr;
    use std::time::Duration;

    use http::Method;

    use super::super::record::tests::sample;
    use super::*;
    use crate::exchange::Stream;

    /// A value that outlives its record. Strings read as they are, for comparison.
    #[derive(Debug, PartialEq)]
    enum Kept {
        Str(String),
        Other(Value<'static>),
    }

    impl std::fmt::Display for Kept {
        fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
            match self {
                Kept::Str(text) => f.write_str(text),
                Kept::Other(value) => panic!("{value:?} is no string"),
            }
        }
    }

    fn map(record: &Record) -> BTreeMap<&'static str, Kept> {
        let mut map = BTreeMap::new();
        attributes(record, &mut |key, value| {
            let value = match value {
                Value::Str(text) => Kept::Str(text.to_owned()),
                Value::Int(number) => Kept::Other(Value::Int(number)),
                Value::Double(number) => Kept::Other(Value::Double(number)),
                Value::Bool(truth) => Kept::Other(Value::Bool(truth)),
            };
            assert!(map.insert(key, value).is_none(), "{key} appears twice");
        });
        map
    }

    #[test]
    fn a_plain_request_has_the_required_and_recommended_attributes() {
        let map = map(&sample());
        let text = |key: &str| map.get(key).map(|value| value.to_string()).unwrap_or_default();
        assert_eq!(text(HTTP_REQUEST_METHOD), "GET");
        assert_eq!(text(URL_PATH), "/items/42");
        assert_eq!(text(URL_QUERY), "sig=REDACTED");
        assert_eq!(text(URL_SCHEME), "http");
        assert_eq!(text(HTTP_ROUTE), "/items/{id}");
        assert_eq!(text(SERVER_ADDRESS), "shop.example");
        assert_eq!(map[SERVER_PORT], Kept::Other(Value::Int(8080)));
        assert_eq!(text(CLIENT_ADDRESS), "203.0.113.9");
        assert_eq!(text(NETWORK_PEER_ADDRESS), "127.0.0.1");
        assert_eq!(map[NETWORK_PEER_PORT], Kept::Other(Value::Int(50_000)));
        assert_eq!(text(NETWORK_PROTOCOL_VERSION), "1.1");
        assert_eq!(text(USER_AGENT_ORIGINAL), "curl/8");
        assert_eq!(map[HTTP_RESPONSE_STATUS_CODE], Kept::Other(Value::Int(200)));
        assert_eq!(text(CORRELATION_ID), "abc-1");
        assert_eq!(map[RESPONSE_BYTES], Kept::Other(Value::Int(198)));
        assert_eq!(map[TIME_PROXY], Kept::Other(Value::Double(0.000_04)));
        assert_eq!(map[TIME_FIRST_BYTE], Kept::Other(Value::Double(0.003_96)));
        for absent in [
            ERROR_TYPE,
            FAULT,
            DETAIL,
            HTTP_REQUEST_METHOD_ORIGINAL,
            EXCLUDED,
            STREAM,
            TIME_DNS,
            TIME_CONNECT,
        ] {
            assert!(!map.contains_key(absent), "{absent} should be absent");
        }
        assert!(!map.contains_key("network.protocol.name"), "http is the default (SEM-27)");
    }

    #[test]
    fn a_name_never_holds_the_path() {
        let mut record = sample();
        assert_eq!(span_name(&record), "GET /items/{id}");
        record.request.as_mut().unwrap().route = None;
        assert_eq!(span_name(&record), "GET");
        let request = record.request.as_mut().unwrap();
        request.method = Method::from_bytes(b"get").unwrap();
        request.known_method = false;
        assert_eq!(span_name(&record), "HTTP");
        record.request.as_mut().unwrap().route = Some("/items/{id}".into());
        assert_eq!(span_name(&record), "HTTP /items/{id}");
        record.request = None;
        assert_eq!(span_name(&record), "HTTP");
    }

    #[test]
    fn an_unknown_method_is_kept_as_sent_beside_other() {
        let mut record = sample();
        let request = record.request.as_mut().unwrap();
        request.method = Method::from_bytes(b"get").unwrap();
        request.known_method = false;
        let map = map(&record);
        assert_eq!(map[HTTP_REQUEST_METHOD].to_string(), OTHER);
        assert_eq!(map[HTTP_REQUEST_METHOD_ORIGINAL].to_string(), "get");
        assert_eq!(method(&record), OTHER);
    }

    #[test]
    fn a_method_that_was_made_known_keeps_its_word() {
        let mut record = sample();
        record.request.as_mut().unwrap().method = Method::from_bytes(b"PURGE").unwrap();
        assert_eq!(map(&record)[HTTP_REQUEST_METHOD].to_string(), "PURGE");
    }

    #[test]
    fn only_failures_have_status_error_and_plain_5xx_no_description() {
        let mut record = sample();
        record.status = Some(404);
        assert_eq!(span_status(&record), Status::Unset);
        assert!(!map(&record).contains_key(ERROR_TYPE), "4xx is not a server's error (SEM-62)");

        record.status = Some(503);
        record.detail = record.put("the service said so");
        assert_eq!(span_status(&record), Status::Error(""));
        assert_eq!(map(&record)[ERROR_TYPE].to_string(), "503");

        record.outcome = Outcome::UpstreamRefused;
        record.status = Some(502);
        assert_eq!(span_status(&record), Status::Error("the service said so"));
        let map = map(&record);
        assert_eq!(map[ERROR_TYPE].to_string(), "connection_refused");
        assert_eq!(map[FAULT].to_string(), "upstream");
        assert_eq!(map[DETAIL].to_string(), "the service said so");
    }

    #[test]
    fn a_caller_that_leaves_is_unset_and_says_so() {
        let mut record = sample();
        record.outcome = Outcome::ClientGoneBeforeResponse;
        record.status = None;
        assert_eq!(span_status(&record), Status::Unset);
        let map = map(&record);
        assert_eq!(map[OUTCOME].to_string(), "client_gone_before_response");
        assert!(!map.contains_key(HTTP_RESPONSE_STATUS_CODE), "nothing was sent (SEM-25)");
        assert!(!map.contains_key(ERROR_TYPE));
    }

    #[test]
    fn an_unreadable_request_has_only_what_is_known() {
        let mut record = sample();
        record.request = None;
        record.outcome = Outcome::MalformedRequest;
        record.status = Some(400);
        let map = map(&record);
        assert_eq!(map[HTTP_REQUEST_METHOD].to_string(), OTHER);
        assert!(map.contains_key(NETWORK_PEER_ADDRESS));
        for absent in [URL_PATH, URL_SCHEME, SERVER_ADDRESS, CLIENT_ADDRESS, HTTP_REQUEST_METHOD_ORIGINAL] {
            assert!(!map.contains_key(absent), "{absent} should be absent");
        }
    }

    #[test]
    fn all_attributes_at_once_have_keys_of_their_own() {
        let mut record = sample();
        record.outcome = Outcome::UpstreamBroken;
        record.detail = record.put("connection reset");
        record.stream = Some(Stream::ServerSentEvents);
        record.excluded = true;
        record.timings.dns = Some(Duration::from_millis(1));
        record.timings.connect = Some(Duration::from_millis(2));
        record.request.as_mut().unwrap().known_method = false;
        assert_eq!(map(&record).len(), 27);
    }

    #[test]
    fn host_and_port_come_apart() {
        let cases = [
            ("shop.example", Some(("shop.example", None))),
            ("shop.example:8080", Some(("shop.example", Some(8080)))),
            ("[2001:db8::1]:443", Some(("2001:db8::1", Some(443)))),
            ("[2001:db8::1]", Some(("2001:db8::1", None))),
            ("user:secret@shop.example:80", Some(("shop.example", Some(80)))),
            ("shop.example:", Some(("shop.example", None))),
            ("shop.example:99999", Some(("shop.example", None))),
            ("", None),
            (":80", None),
            ("[2001:db8::1", None),
        ];
        for (authority, expected) in cases {
            assert_eq!(host_and_port(authority), expected, "{authority}");
        }
    }

    #[test]
    fn the_error_type_is_that_of_the_metrics() {
        let mut record = sample();
        for (outcome, status) in Outcome::ALL.into_iter().flat_map(|outcome| {
            [None, Some(101), Some(404), Some(499), Some(500), Some(599), Some(999)]
                .map(|status| (outcome, status))
        }) {
            (record.outcome, record.status) = (outcome, status);
            let shown = map(&record).remove(ERROR_TYPE).map(|word| word.to_string());
            assert_eq!(shown.as_deref(), record.error_type().as_deref(), "{outcome:?} {status:?}");
        }
    }

    #[test]
    fn addresses_read_as_the_standard_library_writes_them() {
        for octet in 0..=255 {
            let address = Ipv4Addr::new(octet, 255 - octet, octet / 2, octet / 3);
            assert_eq!(Address::new(address.into()).as_str(), address.to_string());
        }
        for text in ["::1", "2001:db8::1", "1111:2222:3333:4444:5555:6666:7777:8888", "::ffff:0:1.2.3.4"] {
            let address: IpAddr = text.parse().unwrap();
            assert_eq!(Address::new(address).as_str(), address.to_string());
        }
    }

    #[test]
    fn an_ipv4_caller_on_a_dual_stack_socket_reads_as_ipv4() {
        let mut record = sample();
        record.peer = "[::ffff:192.0.2.7]:4000".parse().unwrap();
        assert_eq!(map(&record)[NETWORK_PEER_ADDRESS].to_string(), "192.0.2.7");
    }
}
