//! The story of one request: extract → begin → rewrite → send → watch → finish.
//!
//! This is the only place where these verbs meet. Whatever ends the story early (the caller leaves, the task
//! panics, a drain is over) drops the [`Exchange`], and that writes the record.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::SystemTime;

use http::header::{ACCEPT, HeaderName, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;

use super::body::{RequestBody, ResponseBody, ResponseWatcher, Upload};
use super::error::Error;
use super::{Job, Proxy};
use crate::config::{Live, UpstreamProtocol};
use crate::exchange::{Exchange, Keep, RequestFacts, Stream, random_bytes};
use crate::net::server::{Caller, Tunnel, Unreadable};
use crate::net::upstream::{Phases, SendError};
use crate::propagation::Malformed;
use crate::propagation::w3c::traceparent_bytes;
use crate::wire::body::Watched;
use crate::wire::forwarded::Origin;
use crate::wire::{Received, headers, target};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");
const EVENT_STREAM: &[u8] = b"text/event-stream";

/// Passes one request on, and its response back.
pub(super) async fn forward(
    proxy: Arc<Proxy>,
    job: Job,
    mut request: Request<Received>,
) -> Response<ResponseBody> {
    let received = request.version();
    let Begun { mut exchange, upgrade, echo } = begin(&proxy, &job, &mut request);
    let Job { live, to, caller, .. } = job;
    if request.method() == Method::CONNECT {
        // A service behind a gateway is no way out of it (HX-4).
        let refusal = "CONNECT is not for the service behind this address";
        let error = Error::rejected(StatusCode::NOT_IMPLEMENTED, refusal);
        return answer_ourselves(exchange, caller, &error, request.headers().get(ACCEPT), echo);
    }

    // rewrite
    if live.via {
        headers::add_via(request.headers_mut(), received);
    }
    match to.upstream().protocol {
        UpstreamProtocol::Http1 => {
            target::to_origin_form(&mut request, || to.upstream().to_string());
            if let Some(protocol) = &upgrade {
                headers::request_upgrade(request.headers_mut(), protocol.clone());
            }
            headers::fit_for_http1(request.headers_mut(), received);
            *request.version_mut() = Version::HTTP_11;
        }
        UpstreamProtocol::H2c => target::to_http2_form(&mut request, &to.upstream().to_string()),
    }
    let accept = request.headers().get(ACCEPT).cloned();
    let head_only = request.method() == Method::HEAD;
    let (parts, body) = request.into_parts();
    let (body, upload) = RequestBody::new(body, caller.connection());

    // send
    let mut phases = Phases::default();
    let progress = || upload.as_deref().map_or(0, Upload::bytes);
    let sent = to.send(Request::from_parts(parts, body), &live.timeouts, progress, &mut phases).await;
    note_phases(&mut exchange, &phases, sent.is_ok());
    let (mut response, lease) = match sent {
        Ok(answered) => answered,
        Err(error) => {
            exchange.record().request_bytes = progress();
            let error = match upload.is_some_and(|upload| upload.broken()) {
                true => Error::incomplete_request(),
                false => Error::upstream(&error, to.upstream()),
            };
            return answer_ourselves(exchange, caller, &error, accept.as_ref(), echo);
        }
    };

    // watch
    let protocol = headers::strip_hop_by_hop(response.headers_mut());
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if switching && upgrade.is_none() {
        // The caller would read the new protocol's bytes as HTTP (RFC 9110 section 15.2.2).
        exchange.record().request_bytes = progress();
        let error = SendError::Invalid("101 to a request that asked for no upgrade".to_owned());
        let error = Error::upstream(&error, to.upstream());
        return answer_ourselves(exchange, caller, &error, accept.as_ref(), echo);
    }
    let stream = stream_of(&response, protocol.as_ref().filter(|_| switching));
    exchange.note_status(response.status().as_u16(), stream);
    if live.via {
        let answered = response.version();
        headers::add_via(response.headers_mut(), answered);
    }
    echo.add_to(response.headers_mut());
    if switching {
        return switch_protocols(response, protocol, exchange, caller);
    }
    if received == Version::HTTP_2 {
        headers::fit_for_http2(response.headers_mut());
    }
    *response.version_mut() = received;
    // A server whose handler threw an exception answers 500, and often closes without having said so. The next request
    // must not run into that.
    let lease = lease.filter(|_| response.status() != StatusCode::INTERNAL_SERVER_ERROR);
    let bodiless = head_only || headers::never_has_content(response.status());
    let watcher = ResponseWatcher::new(exchange, caller, lease, upload, bodiless);
    response.map(|body| ResponseBody::Passing(Watched::new(body, watcher)))
}

/// Writes the record of bytes from which no request could be read.
pub(super) fn record_unreadable(proxy: &Arc<Proxy>, live: &Live, peer: SocketAddr, problem: Unreadable) {
    let mut exchange = proxy.recorder.begin(peer, None, &live.sampler);
    let record = exchange.record();
    record.status = problem.status;
    record.detail = record.put(&problem.detail);
    exchange.finish(problem.outcome);
}

/// An exchange that has begun.
struct Begun {
    exchange: Exchange,
    /// The protocol that the caller asks to change to.
    upgrade: Option<HeaderValue>,
    echo: Echo,
}

/// Extracts what the caller says of the trace, begins the exchange, and puts the context to send on into the
/// request, rid of what concerned the last hop. An excluded request is passed on as it came.
fn begin(proxy: &Arc<Proxy>, job: &Job, request: &mut Request<Received>) -> Begun {
    let live = &job.live;
    let incoming = live.propagation.extract(request.headers());
    count_malformed(proxy, incoming.malformed);
    let peer = job.caller.connection().peer;
    let mut exchange = proxy.recorder.begin(peer, incoming.parent.as_ref(), &live.sampler);
    note_request(&mut exchange, request, job, peer.ip());
    // After the caller's context was read and before ours is put in: `Connection` may name either (HOP-1).
    let upgrade = headers::strip_hop_by_hop(request.headers_mut());
    // HTTP/1.0 knows no upgrade (RFC 9110 section 7.8).
    let upgrade = upgrade.filter(|_| request.version() == Version::HTTP_11);

    if job.matched.excluded {
        proxy.stats.requests_excluded.increment();
        exchange.keep(if live.keep_failures { Keep::IfFailed } else { Keep::Never });
        return Begun { exchange, upgrade, echo: Echo::default() };
    }
    let mut echo = Echo::default();
    let tracestate = incoming.parent.and_then(|parent| parent.tracestate);
    if let Some(state) = &tracestate {
        let record = exchange.record();
        record.tracestate = record.put_bytes(state.as_bytes());
    }
    let context = exchange.context(tracestate);
    live.propagation.inject(request.headers_mut(), &context);
    if live.server_timing {
        let mut value = *b"trace;desc=00-00000000000000000000000000000000-0000000000000000-00";
        value[11..].copy_from_slice(&traceparent_bytes(&context));
        echo.server_timing = HeaderValue::from_bytes(&value).ok();
    }
    if live.traceresponse {
        echo.traceresponse = HeaderValue::from_bytes(&traceparent_bytes(&context)).ok();
    }
    if let Some(rules) = &live.correlation {
        let accepted = rules.accept(request.headers());
        if accepted.malformed {
            proxy.stats.malformed_correlation.increment();
        }
        let id = accepted.id.or_else(|| {
            let name = rules.headers.first()?.clone();
            let id = rules.make(context.trace_id, SystemTime::now(), random_bytes());
            request.headers_mut().insert(name.clone(), id.clone());
            Some((name, id))
        });
        if let Some((_, id)) = &id {
            let record = exchange.record();
            record.correlation = record.put_bytes(id.as_bytes());
        }
        echo.correlation = id;
    }
    Begun { exchange, upgrade, echo }
}

/// Headers that go back to the caller with any response.
#[derive(Debug, Default)]
struct Echo {
    correlation: Option<(HeaderName, HeaderValue)>,
    server_timing: Option<HeaderValue>,
    traceresponse: Option<HeaderValue>,
}

impl Echo {
    fn add_to(self, headers: &mut HeaderMap) {
        if let Some((name, id)) = self.correlation {
            // A service that answers with an id of its own knows better.
            headers.entry(name).or_insert(id);
        }
        if let Some(value) = self.server_timing {
            headers.append(SERVER_TIMING, value);
        }
        if let Some(value) = self.traceresponse {
            headers.insert(TRACERESPONSE, value);
        }
    }
}

fn note_request(exchange: &mut Exchange, request: &Request<Received>, job: &Job, peer: IpAddr) {
    let live = &job.live;
    let headers = request.headers();
    exchange.note_request(|record| {
        let path = record.put(request.uri().path());
        let query = request.uri().query().map(|query| record.put(&live.query.apply(query)));
        let authority = record.put(target::authority(request));
        let user_agent = headers.get(USER_AGENT).map(|value| record.put_bytes(value.as_bytes()));
        let origin = Origin::of(headers, peer, &live.trusted_proxies);
        RequestFacts {
            known_method: live.known_methods.iter().any(|known| known == request.method().as_str()),
            method: request.method().clone(),
            path,
            query,
            scheme: origin.scheme.unwrap_or("http"),
            authority: origin.host.map_or(authority, |host| record.put(&host)),
            user_agent,
            route: job.matched.route.clone(),
            version: request.version(),
            client: origin.client,
        }
    });
}

fn note_phases(exchange: &mut Exchange, phases: &Phases, answered: bool) {
    let now = exchange.elapsed();
    let begun = exchange.begun();
    let timings = &mut exchange.record().timings;
    timings.dns = phases.dns;
    timings.connect = phases.connect;
    timings.sent = phases.sent.map(|sent| sent.saturating_duration_since(begun));
    timings.first_byte = answered.then_some(now);
}

/// Answers with an error of our own, and finishes with the exchange.
fn answer_ourselves(
    mut exchange: Exchange,
    caller: Caller,
    error: &Error,
    accept: Option<&HeaderValue>,
    echo: Echo,
) -> Response<ResponseBody> {
    let trace = exchange.identity().trace_id.to_string();
    let record = exchange.record();
    let correlation = record.text(record.correlation).to_owned();
    record.detail = record.put(&error.detail);
    let mut response = error.reply(accept, &correlation, &trace);
    record.response_bytes = response.body().size_hint().exact().unwrap_or_default();
    echo.add_to(response.headers_mut());
    exchange.note_status(error.status.as_u16(), None);
    caller.settle(exchange, error.outcome);
    response
}

/// Hands both sides to a tunnel, which carries the exchange until both have closed.
fn switch_protocols(
    mut response: Response<Received>,
    protocol: Option<HeaderValue>,
    exchange: Exchange,
    caller: Caller,
) -> Response<ResponseBody> {
    if let Some(protocol) = protocol {
        headers::request_upgrade(response.headers_mut(), protocol);
    }
    let upstream = hyper::upgrade::on(&mut response);
    caller.upgrade(Tunnel { upstream, exchange });
    response.map(|_| ResponseBody::Own(None))
}

fn stream_of(response: &Response<Received>, protocol: Option<&HeaderValue>) -> Option<Stream> {
    if let Some(protocol) = protocol {
        let websocket = protocol.as_bytes().eq_ignore_ascii_case(b"websocket");
        return Some(if websocket { Stream::WebSocket } else { Stream::Upgrade });
    }
    let kind = response.headers().get(http::header::CONTENT_TYPE)?.as_bytes();
    let event_stream =
        kind.get(..EVENT_STREAM.len()).is_some_and(|kind| kind.eq_ignore_ascii_case(EVENT_STREAM));
    event_stream.then_some(Stream::ServerSentEvents)
}

fn count_malformed(proxy: &Proxy, malformed: Malformed) {
    if malformed.traceparent {
        proxy.stats.malformed_traceparent.increment();
    }
    if malformed.tracestate {
        proxy.stats.malformed_tracestate.increment();
    }
    if malformed.baggage {
        proxy.stats.malformed_baggage.increment();
    }
}
