//! What must hold whatever a caller sends, or a user writes, as functions over bytes.
//!
//! The fuzz targets and the property tests call the same checks with the same input: the values of one header,
//! one line each, without its name; where a format has several headers, lines of `name: value`. A line break at the very end is not a further, empty line. Input that no
//! server would hand us (control characters in a value) is passed over. [`config`] takes a whole file.

#![allow(dead_code, reason = "each fuzz target calls one of the checks; only the property tests call all")]

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanId, TraceId};
use tracecar::config::{self, Flags, Sources};
use tracecar::exchange::{Call, Lineage, LineageRules, Seen, Verdict, Whose};
use tracecar::propagation::{
    Context, CorrelationRules, Format, Generate, Incoming, Malformed, Propagation, w3c,
};
use tracecar::telemetry::failures::cause;
use tracecar::wire::egress::{self, EgressRules, Target};
use tracecar::wire::forwarded::tell::{Hop, Policy, Telling};
use tracecar::wire::forwarded::{Family, Origin, elements};
use tracecar::wire::proxy_protocol::{self, Header, Parsed};

const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

/// The values that `data` stands for; `None` where a header cannot hold them.
pub fn lines(data: &[u8]) -> Option<Vec<HeaderValue>> {
    let data = data.strip_suffix(b"\n").unwrap_or(data);
    data.split(|byte| *byte == b'\n').map(|line| HeaderValue::from_bytes(line).ok()).collect()
}

/// A request with one line of `name` for each value.
pub fn headers(name: &'static str, values: &[HeaderValue]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(name, value.clone());
    }
    headers
}

/// A request with the lines of `name: value` that `data` stands for; `None` where there can be no such headers.
pub fn named_headers(data: &[u8]) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for line in data.strip_suffix(b"\n").unwrap_or(data).split(|byte| *byte == b'\n') {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let value = line[colon + 1..].strip_prefix(b" ").unwrap_or(&line[colon + 1..]);
        headers.append(HeaderName::from_bytes(&line[..colon]).ok()?, HeaderValue::from_bytes(value).ok()?);
    }
    Some(headers)
}

/// What W3C Trace Context and Baggage, in this order, find in `headers`.
pub fn extract(headers: &HeaderMap) -> Incoming {
    Propagation::both(vec![Format::TraceContext, Format::Baggage]).extract(headers)
}

/// What `tracestate` lines bring to a request that has a good `traceparent`.
pub fn extract_tracestate(values: &[HeaderValue]) -> Incoming {
    let mut headers = headers("tracestate", values);
    headers.insert("traceparent", HeaderValue::from_static(GOOD));
    extract(&headers)
}

/// A verdict on the beginning of a connection holds whatever comes behind, and all that is before one asks for more. What
/// is read of addresses can be written in the first version, and read again.
pub fn proxy_protocol(data: &[u8]) {
    let verdict = proxy_protocol::parse(data);
    let longer = [data, b"GET / HTTP/1.1\r\n"].concat();
    match verdict {
        Ok(Parsed::More) => assert!(data.len() < proxy_protocol::MAX, "it ends somewhere"),
        Ok(Parsed::Whole(header, length)) => {
            assert!(length <= data.len() && length <= proxy_protocol::MAX, "only what is there");
            assert_eq!(proxy_protocol::parse(&data[..length]), verdict, "what is behind it is not looked at");
            assert_eq!(proxy_protocol::parse(&longer), verdict);
            for part in [0, 1, 5, 12, 13, 15, 16, 17, length / 2, length - 1] {
                if part < length {
                    assert_eq!(proxy_protocol::parse(&data[..part]), Ok(Parsed::More), "{part}");
                }
            }
            if let Header::Proxied { source, destination } = header {
                let family = if source.is_ipv4() { "TCP4" } else { "TCP6" };
                let [from, to] = [source, destination].map(|end| end.ip());
                let line = format!("PROXY {family} {from} {to} {} {}\r\n", source.port(), destination.port());
                assert!(line.len() <= proxy_protocol::MAX_V1);
                let again = Ok(Parsed::Whole(header, line.len()));
                assert_eq!(proxy_protocol::parse(line.as_bytes()), again, "{line}");
            }
        }
        Err(error) => assert_eq!(proxy_protocol::parse(&longer), Err(error), "more makes it no better"),
    }
}

/// A context or an error, never both; what is read can be written and read again.
pub fn traceparent(data: &[u8]) {
    // The parser itself takes any bytes, not only those of a header.
    if let Some(context) = w3c::parse_traceparent(data) {
        let written = w3c::traceparent_bytes(&context);
        assert_eq!(w3c::parse_traceparent(&written), Some(context), "written and read again");
    }
    let Some(lines) = lines(data) else { return };
    let headers = headers("traceparent", &lines);
    let incoming = extract(&headers);
    let expected = match &lines[..] {
        [line] => w3c::parse_traceparent(line.as_bytes()),
        _ => None,
    };
    assert_eq!(incoming.malformed.traceparent, expected.is_none());
    assert_eq!(incoming.parent, expected);
    if let Some(parent) = &incoming.parent {
        assert!(parent.trace_id != TraceId::INVALID && parent.span_id != SpanId::INVALID, "ids are not zero");
        assert_eq!(parent.flags & !3, 0, "only known flags");
    }
    sent_on(headers, incoming);
}

/// Readable lines are sent on as one, member for member; they are readable exactly if each member is by itself and
/// there are not too many.
pub fn tracestate(data: &[u8]) {
    let Some(lines) = lines(data) else { return };
    let incoming = extract_tracestate(&lines);
    let parent = incoming.parent.as_ref().expect("tracestate takes nothing from a good traceparent");
    let all: Vec<&[u8]> = lines.iter().flat_map(|line| members(line.as_bytes())).collect();

    let readable = all.len() <= 32 && all.iter().all(|member| !is_unreadable("tracestate", member));
    assert_eq!(incoming.malformed.tracestate, !readable);
    let sent = parent.tracestate.as_ref().map(HeaderValue::as_bytes);
    if readable {
        assert_eq!(sent.map(members).unwrap_or_default(), all, "all members, in order");
    } else {
        assert_eq!(sent, None, "all or nothing");
    }
    let mut headers = headers("tracestate", &lines);
    headers.insert("traceparent", HeaderValue::from_static(GOOD));
    sent_on(headers, incoming);
}

/// Baggage is readable exactly if each member is by itself and there is not too much of it; it is never changed.
pub fn baggage(data: &[u8]) {
    let Some(lines) = lines(data) else { return };
    let mut headers = headers("baggage", &lines);
    let incoming = extract(&headers);
    assert_eq!(incoming.parent, None);
    // With its line breaks the input is as long as the lines joined by commas, so it is not over the limit.
    if data.len() <= 8192 {
        let all: Vec<&[u8]> = lines.iter().flat_map(|line| members(line.as_bytes())).collect();
        let readable = all.len() <= 64 && all.iter().all(|member| !is_unreadable("baggage", member));
        assert_eq!(incoming.malformed.baggage, !readable);
    }
    sent_on(headers.clone(), incoming);
    headers.insert("traceparent", HeaderValue::from_static(GOOD));
    let incoming = extract(&headers);
    assert!(incoming.parent.is_some(), "baggage takes nothing from a good traceparent");
    sent_on(headers, incoming);
}

/// An id is accepted as it is or not at all, and gives way to a good one; made ids are acceptable.
pub fn correlation(data: &[u8]) {
    let mut rules = CorrelationRules::default();
    if let Some(lines) = lines(data) {
        let mut headers = headers("x-correlation-id", &lines);
        let accepted = rules.accept(&headers);
        match &accepted.id {
            Some((name, value)) => {
                assert_eq!(name, "x-correlation-id");
                assert_eq!(lines, [value], "the only line, unchanged");
                assert!(
                    (1..=128).contains(&value.len()) && value.as_bytes().iter().all(u8::is_ascii_graphic)
                );
                assert!(!accepted.malformed);
            }
            None => assert!(accepted.malformed, "a line that is not accepted is told"),
        }
        headers.insert("x-request-id", HeaderValue::from_static("good"));
        assert!(rules.accept(&headers).id.is_some());
    }
    let mut seed = [0; 34];
    let length = data.len().min(seed.len());
    seed[..length].copy_from_slice(&data[..length]);
    let trace_id = TraceId::from_bytes(seed[..16].try_into().expect("16 bytes"));
    let random: [u8; 10] = seed[16..26].try_into().expect("10 bytes");
    let milliseconds = u64::from_be_bytes(seed[26..].try_into().expect("8 bytes"));
    let now = SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds);
    for generate in [Generate::TraceId, Generate::UuidV7] {
        rules.generate = generate;
        let mut headers = HeaderMap::new();
        headers.insert(&rules.headers[0], rules.make(trace_id, now, random));
        assert!(!rules.accept(&headers).malformed, "a made id is acceptable");
    }
}

/// The header of a format that has one, or whose first one can stand alone.
pub fn header_of(format: Format) -> &'static str {
    match format {
        Format::B3 => "b3",
        Format::Jaeger => "uber-trace-id",
        Format::XRay => "x-amzn-trace-id",
        Format::SentryTrace => "sentry-trace",
        other => panic!("{} has several headers", other.as_str()),
    }
}

/// Whether something of `format` could not be read.
pub fn is_malformed(format: Format, malformed: Malformed) -> bool {
    match format {
        Format::TraceContext => malformed.traceparent,
        Format::Baggage => malformed.baggage,
        Format::B3 => malformed.b3,
        Format::B3Multi => malformed.b3multi,
        Format::Jaeger => malformed.jaeger,
        Format::XRay => malformed.xray,
        Format::Datadog => malformed.datadog,
        Format::SentryTrace => malformed.sentry_trace,
    }
}

/// The values of the header of a format that has one.
pub fn one_header(format: Format, data: &[u8]) {
    let Some(lines) = lines(data) else { return };
    foreign(format, &headers(header_of(format), &lines));
}

/// The lines of a format that has several headers.
pub fn several_headers(format: Format, data: &[u8]) {
    let Some(headers) = named_headers(data) else { return };
    foreign(format, &headers);
}

/// A format that is not W3C's: what is read agrees with itself; what is written is read again as we meant it, writing
/// it twice changes nothing more, and nothing is removed or added that belongs to others.
fn foreign(format: Format, headers: &HeaderMap) {
    let propagation = Propagation::both(vec![format]);
    let incoming = propagation.extract(headers);
    let Incoming { parent, trace_id, sampled, debug, .. } = &incoming;
    let anything = parent.is_some() || trace_id.is_some() || sampled.is_some();
    assert_eq!(incoming.format, anything.then_some(format));
    assert!(parent.is_none() || trace_id.is_none(), "a trace id that is with a span id is in the context");
    assert!(!debug || *sampled == Some(true), "who debugs wants it sampled");
    assert_ne!(*trace_id, Some(TraceId::INVALID));
    if let Some(parent) = parent {
        assert!(parent.trace_id != TraceId::INVALID && parent.span_id != SpanId::INVALID, "ids are not zero");
        assert_eq!(
            parent.flags,
            u8::from(*sampled == Some(true)),
            "the flag says the decision, and no other is set"
        );
        assert_eq!((parent.debug, &parent.tracestate), (*debug, &None));
    }

    let fresh = TraceId::from_bytes([0x5a; 16]);
    let continued = parent.as_ref().map(|parent| parent.trace_id).or(*trace_id);
    for keep in [sampled.unwrap_or(true), false, true] {
        let debug = *debug && keep && matches!(format, Format::B3 | Format::B3Multi | Format::Jaeger);
        let meant = Context {
            trace_id: continued.unwrap_or(fresh),
            span_id: SpanId::from_bytes([7; 8]),
            flags: u8::from(keep),
            tracestate: None,
            debug,
        };
        let mut written = headers.clone();
        propagation.inject(&mut written, &meant);
        let read = propagation.extract(&written);
        assert_eq!((read.sampled, read.trace_id, read.debug), (Some(keep), None, debug), "{written:?}");
        assert_eq!(read.parent.as_ref(), Some(&meant), "the next hop reads what we meant");
        // Too many tags of others are not ours to cut where we have none of our own among them.
        let unreadable = read.malformed != Malformed::default() && format != Format::Datadog;
        assert!(!unreadable, "what is written can be read: {written:?}");
        let mut again = written.clone();
        propagation.inject(&mut again, &meant);
        assert_eq!(again, written, "written twice is written once");
        for name in headers.keys().filter(|name| !is_of(format, name)) {
            assert!(headers.get_all(name).iter().eq(written.get_all(name)), "{name} is of others");
        }
        assert!(written.keys().all(|name| headers.contains_key(name) || is_of(format, name)));
        Propagation::strip(&mut written);
        assert!(!written.keys().any(|name| is_of(format, name)), "nothing is left of it: {written:?}");
    }
}

/// Whether a format may write a header of this name.
fn is_of(format: Format, name: &HeaderName) -> bool {
    let name = name.as_str();
    match format {
        Format::B3 | Format::B3Multi => {
            let several = ["x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid", "x-b3-sampled", "x-b3-flags"];
            name == "b3" || several.contains(&name)
        }
        Format::Datadog => ["trace-id", "parent-id", "sampling-priority", "tags"]
            .iter()
            .any(|end| name.strip_prefix("x-datadog-") == Some(*end)),
        other => name == header_of(other),
    }
}

/// A file is used or refused with reasons. What it comes to is a file as well, and comes to the same.
pub fn config(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let env = |name: &str| match name {
        "PORT" => Some("3000".to_owned()),
        "NOT_YAML" => Some("x, y: [".to_owned()),
        _ => None,
    };
    let load = |text: &str| {
        let sources = Sources {
            file: Some(("file", text)),
            env: &env,
            // A fuzzer that guesses paths is not to read what they lead to.
            read: &|_| Ok("secret".to_owned()),
            flags: &Flags::default(),
            terminal: false,
        };
        config::load(&sources)
    };
    let loaded = match load(text) {
        Ok(loaded) => loaded,
        Err(problems) => return assert!(!problems.to_string().is_empty(), "a refusal says why"),
    };
    let again = load(&loaded.effective)
        .unwrap_or_else(|problems| panic!("{problems}\nin what it came to:\n{}", loaded.effective));
    assert_eq!(loaded.effective, again.effective);
}

/// Whatever came, one context goes out, and the next hop reads it as we meant it. Baggage stays as it was.
fn sent_on(mut headers: HeaderMap, incoming: Incoming) {
    let fresh = Context {
        trace_id: TraceId::from_bytes([0x5a; 16]),
        span_id: SpanId::INVALID,
        flags: Context::SAMPLED | Context::RANDOM,
        tracestate: None,
        debug: false,
    };
    let context = Context { span_id: SpanId::from_bytes([7; 8]), ..incoming.parent.unwrap_or(fresh) };
    let baggage: Vec<_> = headers.get_all("baggage").iter().cloned().collect();

    Propagation::both(vec![Format::TraceContext, Format::Baggage]).inject(&mut headers, &context);
    assert_eq!(headers.get_all("traceparent").iter().count(), 1);
    assert_eq!(headers.get_all("tracestate").iter().count(), usize::from(context.tracestate.is_some()));
    assert!(headers.get_all("baggage").iter().eq(&baggage), "baggage is not touched");
    assert_eq!(extract(&headers).parent, Some(context), "the next hop reads what we meant");
}

/// Whether this one member makes its header unreadable.
fn is_unreadable(name: &'static str, member: &[u8]) -> bool {
    let value = HeaderValue::from_bytes(member).expect("part of a header value");
    let mut headers = headers(name, &[value]);
    headers.insert("traceparent", HeaderValue::from_static(GOOD));
    let malformed = extract(&headers).malformed;
    malformed.tracestate || malformed.baggage
}

/// The members of a list that are not empty, without white space around them.
fn members(list: &[u8]) -> Vec<&[u8]> {
    list.split(|byte| *byte == b',')
        .map(|member| {
            let blank = |byte: &u8| *byte == b' ' || *byte == b'\t';
            let start = member.iter().take_while(|byte| blank(byte)).count();
            let end = member.len() - member[start..].iter().rev().take_while(|byte| blank(byte)).count();
            &member[start..end]
        })
        .filter(|member| !member.is_empty())
        .collect()
}

/// Whatever a stranger says in `Forwarded` or `X-Forwarded-For`, it is the client, to us and to whoever believes us; and
/// what we write can be read, behind all of it.
pub fn forwarded(data: &[u8]) {
    let Some(lines) = lines(data) else { return };
    let read: Vec<_> = lines.iter().flat_map(|line| elements::elements(line.as_bytes())).collect();
    for element in read.iter().flatten() {
        let host = element.host.as_deref().unwrap_or("x");
        assert!(!host.is_empty() && host.is_ascii() && !host.contains(['@', ' ', '"']), "{element:?}");
    }
    let (stranger, us) = ([203, 0, 113, 9].into(), [10, 0, 0, 1].into());
    let trusted = ["10.0.0.0/8".parse().expect("a network")];
    for (name, family) in [("forwarded", Family::Forwarded), ("x-forwarded-for", Family::XForwarded)] {
        let mut headers = headers(name, &lines);
        headers.append("x-forwarded-proto", HeaderValue::from_static("https"));
        let origin = Origin::of(&headers, stranger, &trusted, &[Family::Forwarded, Family::XForwarded]);
        assert_eq!(origin, Origin { client: stranger, scheme: None, host: None });
        // Of a proxy that is trusted anything may come, but it comes.
        let _ = Origin::of(&headers, us, &trusted, &[family]);

        let telling = Telling { x_forwarded: Policy::Append, forwarded: Policy::Append };
        let hop = Hop { peer: stranger, trusted: false, scheme: "http", authority: "shop:81" };
        telling.apply(&mut headers, &hop, &origin);
        assert_eq!(headers.get_all(name).iter().count(), 1);
        let told = Origin::of(&headers, us, &trusted, &[family]);
        let host = Some("shop:81".to_owned());
        assert_eq!(told, Origin { client: stranger, scheme: Some("http"), host });
    }
}

/// An authority is refused or judged; what is allowed is a host and a port that another program reads the same way.
pub fn egress(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let rules = EgressRules::default();
    if let Ok((host, port)) = egress::destination(text, Some(443))
        && rules.permits_name(host, port).is_ok()
    {
        assert!(port > 0 && !host.is_empty(), "{text:?}");
        assert!(host.is_ascii() && !host.contains(['@', '%', '/', ' ']), "{text:?} leads to {host:?}");
        let metadata = "169.254.169.254:80".parse().unwrap();
        assert!(rules.permits_address(host, metadata).is_err(), "{text:?} leads to the metadata service");
    }
    if let Ok(target) = text.parse::<Target>() {
        assert_eq!(target.to_string().parse::<Target>().as_ref(), Ok(&target), "{text:?}");
    }
}

/// Whatever a request and a call hold, looking for one's parent in the other ends, and finds nobody who is not there. The
/// first line is a path, the second a query; the rest is a body.
pub fn lineage(data: &[u8]) {
    let mut parts = data.splitn(3, |byte| *byte == b'\n');
    let mut text = || String::from_utf8_lossy(parts.next().unwrap_or_default()).into_owned();
    let (path, query) = (text(), text());
    let body = parts.next().unwrap_or_default();
    let rules =
        LineageRules { json_fields: vec!["id".to_owned(), "a.b".to_owned()], ..LineageRules::default() };
    let headers = HeaderMap::new();
    let seen = Seen { path: &path, query: Some(&query), headers: &headers, correlation: None };
    let whose = Whose {
        trace_id: TraceId::from(7_u128),
        span_id: SpanId::from(8_u64),
        flags: 1,
        tracestate: None,
        route: None,
        correlation: None,
    };
    let call = Call { seen, destination: "shop", arrived_at: None, owner: None, body: Some(body) };
    let lineage = Arc::new(Lineage::new());
    assert!(matches!(lineage.find(&rules, &call), Verdict::Unknown { candidates: 0, .. }));
    let open = lineage.open(&rules, whose.clone(), &seen);
    if let Some(reader) = open.reader() {
        reader.read(&rules, body);
    }
    if let Verdict::Parent { whose: found, confidence, .. } = lineage.find(&rules, &call) {
        assert_eq!(found, whose);
        assert!((0.0..=1.0).contains(&confidence));
    }
}

/// Whatever a failed answer has for content, what is read of it is short, and a message is one line. Of any text there is a
/// pattern, which has no digits and is its own pattern; the same goes for the shape of a path.
pub fn error_page(data: &[u8]) {
    for content_type in
        [None, Some("text/html; charset=iso-8859-1"), Some("application/json"), Some("text/plain")]
    {
        for (coding, cut) in [(None, false), (None, true), (Some("gzip"), true), (Some("deflate"), false)] {
            if let Some(read) = cause::read(content_type, coding, data, cut) {
                short(&read);
            }
        }
    }
    let text = String::from_utf8_lossy(data);
    for text in [&*text, text.lines().next().unwrap_or_default()] {
        let pattern = cause::pattern(text);
        assert!(pattern.len() <= 500 && !pattern.contains(|c: char| c.is_ascii_digit()), "{pattern:?}");
        assert_eq!(cause::pattern(&pattern), pattern, "of {text:?}");
        let shape = cause::path_shape(text);
        assert!(shape.len() <= 200 && shape.starts_with('/') && shape.matches('/').count() <= 8, "{shape:?}");
        assert_eq!(cause::path_shape(&shape), shape, "of {text:?}");
    }
}

fn short(cause: &cause::Cause) {
    assert!(!cause.source.is_empty());
    if let Some(message) = &cause.message {
        assert!((1..=500).contains(&message.chars().count()), "{message:?}");
        assert!(!message.contains(char::is_control), "{message:?}");
    }
    if let Some(kind) = &cause.kind {
        assert!((1..=200).contains(&kind.len()) && !kind.contains(char::is_whitespace), "{kind:?}");
    }
    assert!(cause.frames.len() <= 50);
    for frame in &cause.frames {
        let parts = [Some(&frame.file), frame.function.as_ref(), frame.code.as_ref()];
        assert!(parts.into_iter().flatten().all(|part| part.chars().count() <= 300), "{frame:?}");
    }
}
