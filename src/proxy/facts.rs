//! What a request and its way say of themselves, noted on the exchange.

use std::net::IpAddr;

use http::header::{CONTENT_TYPE, USER_AGENT};
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};

use super::body::Said;
use super::{Job, Outgoing, Way, grpc};
use crate::config::Live;
use crate::exchange::{Exchange, Keeping, Record, RequestFacts, Side, Stream, Text};
use crate::net::server::Connection;
use crate::net::upstream::Phases;
use crate::wire::forwarded::tell::Hop;
use crate::wire::forwarded::{Origin, is_trusted};
use crate::wire::{Received, target};

const EVENT_STREAM: &[u8] = b"text/event-stream";

/// Notes what the request says that came on `connection`.
pub(super) fn note_request(
    exchange: &mut Exchange,
    request: &Request<Received>,
    job: &Job,
    connection: &Connection,
) {
    let live = &job.live;
    exchange.note_request(|record| {
        let user_agent = request.headers().get(USER_AGENT).map(|value| record.put_bytes(value.as_bytes()));
        let mut route = job.route.clone();
        if grpc::has_call(request.headers()) {
            let (method, path) = live.rpc_methods.find(request.uri().path());
            record.rpc = Some(method);
            // Calls are told apart by their methods wherever requests are by their routes.
            route = path.or(route);
        }
        let facts = RequestFacts {
            known_method: live.known_methods.iter().any(|known| known == request.method().as_str()),
            method: request.method().clone(),
            url: None,
            path: Text::default(),
            query: None,
            scheme: scheme(connection),
            authority: Text::default(),
            user_agent,
            route,
            version: request.version(),
            client: connection.caller().ip(),
        };
        record.tls = connection.tls().cloned();
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
    let origin = Origin::of(request.headers(), facts.client, &live.trusted_proxies, &live.trusted_headers);
    RequestFacts {
        path,
        query,
        scheme: origin.scheme.unwrap_or(facts.scheme),
        authority: origin.host.map_or(authority, |host| record.put(&host)),
        client: origin.client,
        ..facts
    }
}

/// Tells the service of its caller what the settings say (FWD-6). What is known of the original request is read again, since
/// `Connection` may have named what it was read from.
pub(super) fn tell_of_caller(request: &mut Request<Received>, live: &Live, connection: &Connection) {
    let peer = connection.caller().ip();
    let origin = Origin::of(request.headers(), peer, &live.trusted_proxies, &live.trusted_headers);
    let authority = target::authority(request).to_owned();
    let trusted = is_trusted(peer, &live.trusted_proxies);
    let hop = Hop { peer, trusted, scheme: scheme(connection), authority: &authority };
    live.telling.apply(request.headers_mut(), &hop, &origin);
}

/// The scheme that a caller used on its connection.
fn scheme(connection: &Connection) -> &'static str {
    if connection.tls().is_some() { "https" } else { "http" }
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
    // A call may be answered by somebody who knows nothing of gRPC.
    let grpc = record.rpc.is_some() || grpc::has_call(headers);
    let status = response.status().as_u16();
    let route = record.request.as_ref().and_then(|request| request.route.as_deref());
    let chosen = record.side == Side::Inbound && status < 500 && keeping.chooses(route, status);
    if !chosen && status < 500 && !grpc {
        return Said::default();
    }
    if grpc {
        // Where there is no content, the trailers are in the head (RPC-12).
        grpc::note_status(record, headers);
    }
    record.chosen = chosen;
    let failed = chosen || status >= 500;
    if failed && (keeping.content || keeping.headers) {
        let evidence = record.evidence.get_or_insert_default();
        evidence.response_headers = keeping.response(headers);
    }
    Said { content: failed && keeping.content, grpc }
}

/// The status of a response as it stands on the wire of the side that the record is about: what the caller from the network is
/// sent, or what the destination sent. Inside, a change of protocol is a 101; to whoever speaks HTTP/2, it is a 200 (HX-5).
pub(super) fn status_of(
    response: &Response<Received>,
    switching: bool,
    side: Side,
    received: Version,
) -> StatusCode {
    let version = match side {
        Side::Inbound => received,
        Side::Outbound => response.version(),
    };
    match switching && version == Version::HTTP_2 {
        true => StatusCode::OK,
        false => response.status(),
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
