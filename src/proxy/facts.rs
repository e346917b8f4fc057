//! What a request and its way say of themselves, noted on the exchange.

use std::net::{IpAddr, SocketAddr};

use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Version};

use super::body::Said;
use super::{Job, Outgoing, Way};
use crate::config::Live;
use crate::exchange::{Exchange, Keeping, Record, RequestFacts, Side, Stream, Text};
use crate::net::upstream::Phases;
use crate::wire::forwarded::Origin;
use crate::wire::{Received, target};

const EVENT_STREAM: &[u8] = b"text/event-stream";

const GRPC: &[u8] = b"application/grpc";

/// `UNKNOWN`.
const GRPC_UNKNOWN: u8 = 2;

/// Bytes of `grpc-message` that are kept.
const MAX_GRPC_MESSAGE: usize = 1024;

/// Notes what the request says. `peer` is who sent it.
pub(super) fn note_request(
    exchange: &mut Exchange,
    request: &Request<Received>,
    job: &Job,
    peer: SocketAddr,
) {
    let live = &job.live;
    exchange.note_request(|record| {
        let user_agent = request.headers().get(USER_AGENT).map(|value| record.put_bytes(value.as_bytes()));
        let facts = RequestFacts {
            known_method: live.known_methods.iter().any(|known| known == request.method().as_str()),
            method: request.method().clone(),
            url: None,
            path: Text::default(),
            query: None,
            scheme: "http",
            authority: Text::default(),
            user_agent,
            route: job.route.clone(),
            version: request.version(),
            client: peer.ip(),
        };
        match &job.way {
            Way::Inbound(_) => of_served(record, request, live, facts),
            Way::Outbound(outgoing) => of_called(record, request, live, outgoing, facts),
        }
    });
}

fn of_served(
    record: &mut Record,
    request: &Request<Received>,
    live: &Live,
    facts: RequestFacts,
) -> RequestFacts {
    let path = record.put(request.uri().path());
    let query = request.uri().query().map(|query| record.put(&live.query.apply(query)));
    let authority = record.put(target::authority(request));
    let origin = Origin::of(request.headers(), facts.client, &live.trusted_proxies);
    RequestFacts {
        path,
        query,
        scheme: origin.scheme.unwrap_or("http"),
        authority: origin.host.map_or(authority, |host| record.put(&host)),
        client: origin.client,
        ..facts
    }
}

/// The URL of a call is written once, and its parts are parts of it. The authority is what the front made of the target:
/// it holds no credentials (SEM-80).
fn of_called(
    record: &mut Record,
    request: &Request<Received>,
    live: &Live,
    outgoing: &Outgoing,
    facts: RequestFacts,
) -> RequestFacts {
    let Outgoing { scheme, authority, tunnel, .. } = outgoing;
    if *tunnel {
        return RequestFacts { scheme, authority: record.put(authority), ..facts };
    }
    // The asterisk stands for the server itself (RFC 9110 section 7.1), whose URL has no path.
    let path = Some(request.uri().path()).filter(|path| *path != "*").unwrap_or_default();
    let query = request.uri().query().map(|query| live.query.apply(query));
    let url = match &query {
        Some(query) => record.put_pieces(&[scheme, "://", authority, path, "?", query]),
        None => record.put_pieces(&[scheme, "://", authority, path]),
    };
    let host_at = scheme.len() + 3;
    let path_at = host_at + authority.len();
    let query_at = path_at + path.len() + 1;
    RequestFacts {
        url: Some(url),
        authority: url.part(host_at, path_at),
        path: url.part(path_at, path_at + path.len()),
        query: query.map(|query| url.part(query_at, query_at + query.len())),
        scheme,
        ..facts
    }
}

/// Notes where a connection goes of which no request was read.
pub(super) fn note_connection(exchange: &mut Exchange, authority: &str, version: Version, client: IpAddr) {
    exchange.note_request(|record| RequestFacts {
        method: Method::CONNECT,
        known_method: true,
        url: None,
        path: Text::default(),
        query: None,
        scheme: "https",
        authority: record.put(authority),
        user_agent: None,
        route: None,
        version,
        client,
    });
}

/// Notes how far the request came, and how long each step took.
pub(super) fn note_phases(exchange: &mut Exchange, phases: &Phases, answered: bool) {
    let now = exchange.elapsed();
    let begun = exchange.begun();
    let record = exchange.record();
    record.resends = phases.resends;
    if record.side == Side::Outbound {
        record.peer = phases.peer;
    }
    let timings = &mut record.timings;
    timings.dns = phases.dns;
    timings.connect = phases.connect;
    timings.tls = phases.tls;
    timings.sent = phases.sent.map(|sent| sent.saturating_duration_since(begun));
    timings.first_byte = answered.then_some(now);
}

/// Notes what a response says of a failure, and what is to be read of the rest of it.
pub(super) fn note_failure(record: &mut Record, response: &Response<Received>, keeping: &Keeping) -> Said {
    let headers = response.headers();
    let kind = headers.get(CONTENT_TYPE).map_or(&b""[..], HeaderValue::as_bytes);
    let grpc = kind.get(..GRPC.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(GRPC));
    let status = response.status().as_u16();
    let route = record.request.as_ref().and_then(|request| request.route.as_deref());
    let chosen = record.side == Side::Inbound && status < 500 && keeping.chooses(route, status);
    if !chosen && status < 500 && !grpc {
        return Said::default();
    }
    if grpc {
        // Where there is no content, the trailers are in the head (RPC-12).
        note_grpc(record, headers);
    }
    record.chosen = chosen;
    let failed = chosen || status >= 500;
    if failed && (keeping.content || keeping.headers) {
        let evidence = record.evidence.get_or_insert_default();
        evidence.response_headers = keeping.response(headers);
    }
    Said { content: failed && keeping.content, grpc }
}

/// Notes the status of a gRPC call (RPC-12) and its message, if they are here.
pub(super) fn note_grpc(record: &mut Record, headers: &HeaderMap) {
    let Some(status) = headers.get("grpc-status") else { return };
    // Clients take what they cannot read for a failure, and so do we.
    let status = status.to_str().ok().and_then(|status| status.parse().ok()).unwrap_or(GRPC_UNKNOWN);
    record.grpc_status = Some(status);
    if status != 0
        && let Some(message) = headers.get("grpc-message")
    {
        let message = &message.as_bytes()[..message.len().min(MAX_GRPC_MESSAGE)];
        let evidence = record.evidence.get_or_insert_default();
        evidence.grpc_message = Some(String::from_utf8_lossy(message).into_owned());
    }
}

/// What kind of stream a response is, if it is one. `protocol` is what the connection changes to.
pub(super) fn stream_of(response: &Response<Received>, protocol: Option<&HeaderValue>) -> Option<Stream> {
    if let Some(protocol) = protocol {
        let websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
        return Some(if websocket { Stream::WebSocket } else { Stream::Upgrade });
    }
    let kind = response.headers().get(CONTENT_TYPE)?.as_bytes();
    let event_stream =
        kind.get(..EVENT_STREAM.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(EVENT_STREAM));
    event_stream.then_some(Stream::ServerSentEvents)
}
