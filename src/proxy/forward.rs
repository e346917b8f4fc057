//! The story of one request: extract → begin → rewrite → send → watch → finish.
//!
//! This is the only place where these verbs meet. Whatever ends the story early (the caller leaves, the task
//! panics, a drain is over) drops the [`Exchange`], and that writes the record.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::header::{ACCEPT, CONTENT_TYPE, HeaderName};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, Version};
use http_body::Body;
use tokio::time::timeout_at;

use super::body::{LOOKED_AT, Reading, RequestBody, ResponseBody, ResponseWatcher, Upload};
use super::cause::{self, Cause, Waiting};
use super::error::Error;
use super::vigil::Patience;
use super::{Job, Proxy, Way, admission, facts, grpc, recipient};
use crate::config::Live;
use crate::exchange::{self, Exchange, Keep, Outcome, Seen, Side, Start, Whose, random_bytes};
use crate::net::server::{Caller, Tunnel, Unreadable};
use crate::net::upstream::{Observer, Phases, SendError};
use crate::net::websocket::Opening;
use crate::propagation::w3c::traceparent_bytes;
use crate::propagation::{Context, Malformed, Propagation};
use crate::wire::body::Ahead;
use crate::wire::h1::Layout;
use crate::wire::{Received, headers};

const SERVER_TIMING: HeaderName = HeaderName::from_static("server-timing");
const TRACERESPONSE: HeaderName = HeaderName::from_static("traceresponse");

/// How long a call is held back at most to see the first part of its content.
const READ_AHEAD: Duration = Duration::from_millis(50);

/// Passes one request on, and its response back.
pub(super) async fn forward(
    proxy: Arc<Proxy>,
    job: Job,
    mut request: Request<Received>,
) -> Response<ResponseBody> {
    let received = request.version();
    let accept = request.headers().get(ACCEPT).cloned();
    // Whether it will fail is not known yet.
    let wanted = (job.keep == Keep::Always).then_some(&job.live.keeping);
    let evidence = wanted.and_then(|keeping| keeping.request(request.headers()));
    let refused = admission::refused(&proxy, &job, &request);
    let ahead = read_ahead(&job, &mut request).await;
    let Begun { mut exchange, upgrade, echo, call } = begin(&proxy, &job, &mut request, &ahead).await;
    exchange.record().evidence = evidence;
    let Job { live, to, caller, .. } = job;
    let to = match refused.map_or(to, Err) {
        Ok(to) => to,
        Err(error) => return answer_ourselves(exchange, caller, &error, accept.as_ref(), echo),
    };

    // rewrite
    if recipient::ends_here(&mut request) {
        let response = recipient::answer(&request);
        return own(exchange, caller, response, Outcome::Complete, echo);
    }
    if live.via {
        headers::add_via(request.headers_mut(), received);
    }
    if let Some(protocol) = &upgrade {
        headers::request_upgrade(request.headers_mut(), protocol.clone());
    }
    let opening = request.extensions_mut().remove::<Opening>();
    let head_only = request.method() == Method::HEAD;
    let (parts, body) = request.into_parts();
    let reading = reading(&exchange, &live, &parts.headers);
    let deadline = exchange.record().rpc.and_then(|_| grpc::deadline(&parts.headers));
    let timeouts = grpc::patience(&live.timeouts, deadline);
    let until = live.timeouts.stream.map(|limit| exchange.begun() + limit);
    let patience = Patience::new(proxy.watch.clone(), live.timeouts.request_body, None);
    let (body, upload) = RequestBody::new(ahead, body, reading, patience);

    // send
    let mut phases = Phases::default();
    let watch = Watch { upload: upload.as_deref(), exchange: &exchange, caller: &caller };
    // In one place, and polled there: it is large, and each move of it is paid by every request.
    let sent = {
        let mut sending =
            std::pin::pin!(to.send(Request::from_parts(parts, body), &timeouts, &watch, &mut phases));
        match until {
            None => Some(sending.await),
            Some(until) => Box::pin(timeout_at(until.into(), sending.as_mut())).await.ok(),
        }
    };
    let uploaded = watch.progress();
    drop(call);
    facts::note_phases(&mut exchange, &phases, matches!(sent, Some(Ok(_))));
    let (mut response, far) = match sent {
        Some(Ok(answered)) => answered,
        failed => {
            exchange.record().request_bytes = uploaded;
            let error = match (upload.as_deref(), failed) {
                (Some(upload), _) if upload.late() => {
                    proxy.stats.closed_request_body.increment();
                    Error::request_timeout()
                }
                (Some(upload), _) if upload.broken() => Error::incomplete_request(),
                (_, Some(Err(error))) => {
                    let overdue = deadline.is_some_and(|deadline| exchange.elapsed() >= deadline);
                    Error::upstream(&error, to.upstream()).of_call(phases.reset, overdue)
                }
                _ => {
                    proxy.stats.closed_stream.increment();
                    Error::stream_timeout()
                }
            };
            return answer_ourselves(exchange, caller, &error, accept.as_ref(), echo);
        }
    };

    // watch
    if let Some(upload) = &upload {
        upload.answered();
    }
    let protocol = headers::strip_hop_by_hop(response.headers_mut());
    let asked = upgrade.is_some() && far.is_some();
    let switching = match switches(&response, asked, opening.as_ref(), protocol.as_ref()) {
        Ok(switching) => switching,
        Err(reason) => {
            exchange.record().request_bytes = uploaded;
            let error = Error::upstream(&SendError::Invalid(reason), to.upstream());
            return answer_ourselves(exchange, caller, &error, accept.as_ref(), echo);
        }
    };
    let stream = facts::stream_of(&response, protocol.as_ref().filter(|_| switching));
    let status = facts::status_of(&response, switching, exchange.record().side, received);
    exchange.note_status(status.as_u16(), stream);
    exchange.note_spoken(response.version());
    let said = facts::note_failure(exchange.record(), &response, &live.keeping);
    if live.via {
        let answered = response.version();
        headers::add_via(response.headers_mut(), answered);
    }
    if live.date {
        headers::add_date(response.headers_mut());
    }
    echo.add_to(response.headers_mut());
    if let Some(far) = far {
        let (idle, stats) = (live.timeouts.tunnel, proxy.stats.clone());
        let tunnel = Tunnel { upstream: far, exchange, idle, stats };
        return switch_protocols(response, protocol, tunnel, opening, caller);
    }
    if received == Version::HTTP_2 {
        headers::fit_for_http2(response.headers_mut());
    }
    *response.version_mut() = received;
    let bodiless = head_only || headers::never_has_content(response.status());
    let patience = Patience::new(proxy.watch.clone(), live.timeouts.response_body, until);
    let call = exchange.record().rpc.is_some();
    let watcher = ResponseWatcher::new(exchange, caller, upload, bodiless, said, proxy.stats.clone());
    // Only HTTP/2 has trailers for everybody.
    let call = received == Version::HTTP_2 && call;
    response.map(|body| ResponseBody::passing(body, watcher, patience, call))
}

/// What is noted while a request is on its way.
struct Watch<'a> {
    upload: Option<&'a Upload>,
    exchange: &'a Exchange,
    caller: &'a Caller,
}

impl Observer for Watch<'_> {
    fn progress(&self) -> u64 {
        self.upload.map_or(0, Upload::bytes)
    }

    fn connected(&self, local: SocketAddr, peer: SocketAddr) {
        self.exchange.handed_over(local, peer);
    }

    fn interim(&self, mut response: Response<()>, layout: Option<&Layout>) {
        headers::strip_hop_by_hop(response.headers_mut());
        self.caller.inform(&response, layout);
    }
}

/// Writes the record of bytes from which no request could be read.
pub(super) fn record_unreadable(
    proxy: &Arc<Proxy>,
    live: &Live,
    side: Side,
    peer: SocketAddr,
    problem: &Unreadable,
) {
    let inbound = side == Side::Inbound;
    let start = Start::new(side, inbound.then_some(peer));
    let mut exchange = proxy.recorder.begin(start, &live.sampler);
    let record = exchange.record();
    record.status = problem.status.filter(|_| inbound).map(|status| status.as_u16());
    record.detail = record.put(&problem.detail);
    exchange.finish(problem.outcome);
}

/// Reads the first part of a call's content, if values in it may say what caused the call. That is a choice of the
/// settings, since it holds the call back.
async fn read_ahead(job: &Job, request: &mut Request<Received>) -> Ahead {
    let mut ahead = Ahead::default();
    let Way::Outbound(outgoing) = &job.way else {
        return ahead;
    };
    // Only where it can help: nothing else is worth a wait.
    let searched = job.to.is_ok()
        && job.keep == Keep::Always
        && job.live.lineage.uses(exchange::Method::Token)
        && looks_at(&job.live, request.headers())
        && outgoing.destination.propagation.extract(request.headers()).parent.is_none();
    if searched && !request.body().is_end_stream() {
        let reading = ahead.read(request.body_mut(), LOOKED_AT);
        // What has not come by then is not waited for.
        let _ = tokio::time::timeout(READ_AHEAD, reading).await;
    }
    ahead
}

/// Looks at the content of a request as it passes, for values that may come back in calls.
fn reading(exchange: &Exchange, live: &Arc<Live>, headers: &HeaderMap) -> Option<Box<Reading>> {
    if !looks_at(live, headers) {
        return None;
    }
    let of = exchange.reader()?;
    Some(Box::new(Reading { live: live.clone(), of, seen: Vec::new() }))
}

fn looks_at(live: &Live, headers: &HeaderMap) -> bool {
    let json = || {
        let kind = headers.get(CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        kind == "application/json" || kind.ends_with("+json")
    };
    !live.lineage.json_fields.is_empty() && json()
}

/// An exchange that has begun.
pub(super) struct Begun {
    pub(super) exchange: Exchange,
    /// The protocol that the caller asks to change to.
    upgrade: Option<HeaderValue>,
    pub(super) echo: Echo,
    /// The call, where its parent is known.
    call: Option<Waiting>,
}

/// Extracts what is said of the trace, begins the exchange, and puts the context to send on into the request, rid of
/// what concerned the last hop. An excluded request is passed on as it came.
pub(super) async fn begin(
    proxy: &Arc<Proxy>,
    job: &Job,
    request: &mut Request<Received>,
    ahead: &Ahead,
) -> Begun {
    let live = &job.live;
    let propagation = match &job.way {
        Way::Inbound(_) => &live.propagation,
        Way::Outbound(outgoing) => &outgoing.destination.propagation,
    };
    let incoming = propagation.extract(request.headers());
    count_malformed(proxy, incoming.malformed);
    let connection = job.caller.connection();
    let Cause { start, tracestate, debug, links, ancestry, correlation, call } = match &job.way {
        Way::Inbound(trust) => cause::of_request(incoming, connection, *trust),
        Way::Outbound(outgoing) => {
            Box::pin(cause::of_call(proxy, job, outgoing, request, incoming, ahead)).await
        }
    };
    let mut exchange = proxy.recorder.begin(start, &live.sampler);
    let record = exchange.record();
    (record.links, record.ancestry) = (links, ancestry);
    facts::note_request(&mut exchange, request, job, connection);
    // After the caller's context was read and before ours is put in: `Connection` may name either (HOP-1).
    let upgrade = headers::strip_hop_by_hop(request.headers_mut());
    if matches!(job.way, Way::Inbound(_)) && !live.telling.passes() {
        facts::tell_of_caller(request, live, connection);
    }
    // HTTP/1.0 knows no upgrade (RFC 9110 section 7.8).
    let upgrade = upgrade.filter(|_| request.version() != Version::HTTP_10);

    let third_party = matches!(&job.way, Way::Outbound(outgoing) if outgoing.destination.strip);
    if third_party {
        // Whether the call leaves a record has nothing to do with what the destination may see (BAG-7).
        Propagation::strip(request.headers_mut());
    }
    let mut context = exchange.context(tracestate);
    // Who debugs a trace is asking for it to be sampled; a sampler that does not ask the caller overrules both (B3-4).
    context.debug = debug && context.sampled();
    if job.keep != Keep::Always {
        proxy.stats.requests_excluded.increment();
        exchange.keep(job.keep);
        // What an excluded request causes is no more wanted than itself.
        (context.flags, context.debug) = (context.flags & !Context::SAMPLED, false);
        search_for_calls_of(proxy, job, &mut exchange, context, None, request);
        return Begun { exchange, upgrade, echo: Echo::default(), call };
    }
    if let Some(state) = &context.tracestate {
        let record = exchange.record();
        record.tracestate = record.put_bytes(state.as_bytes());
    }
    if let Way::Outbound(outgoing) = &job.way {
        exchange.record().destination = outgoing.destination.name.clone();
        if third_party {
            return Begun { exchange, upgrade, echo: Echo::default(), call };
        }
    }
    propagation.inject(request.headers_mut(), &context);
    let correlation = correlate(proxy, job, request, &context, correlation);
    if let Some((_, id)) = &correlation {
        let record = exchange.record();
        record.correlation = record.put_bytes(id.as_bytes());
    }
    if matches!(job.way, Way::Outbound(_)) {
        // What the destination sends back is all that the service gets: it did not ask us anything.
        return Begun { exchange, upgrade, echo: Echo::default(), call };
    }
    let id = correlation.as_ref().map(|(_, id)| id);
    let echo = Echo::traced(live, &context);
    search_for_calls_of(proxy, job, &mut exchange, context, id, request);
    Begun { exchange, upgrade, echo: Echo { correlation, ..echo }, call }
}

/// Finds or makes the correlation id of a request, and puts it in. A call has that of the exchange that caused it; one
/// that nobody knows the cause of gets none.
fn correlate(
    proxy: &Proxy,
    job: &Job,
    request: &mut Request<Received>,
    context: &Context,
    of_cause: Option<HeaderValue>,
) -> Option<(HeaderName, HeaderValue)> {
    let rules = job.live.correlation.as_ref()?;
    let accepted = rules.accept(request.headers());
    if accepted.malformed {
        proxy.stats.malformed_correlation.increment();
    }
    if accepted.id.is_some() {
        return accepted.id;
    }
    let id = match &job.way {
        Way::Inbound(_) => rules.make(context.trace_id, SystemTime::now(), random_bytes()),
        Way::Outbound(_) => of_cause?,
    };
    let name = rules.headers.first()?.clone();
    request.headers_mut().insert(name.clone(), id.clone());
    Some((name, id))
}

/// From now on, calls of the service may belong to this exchange.
fn search_for_calls_of(
    proxy: &Proxy,
    job: &Job,
    exchange: &mut Exchange,
    context: Context,
    correlation: Option<&HeaderValue>,
    request: &Request<Received>,
) {
    let (Way::Inbound(_), true) = (&job.way, job.live.way_out) else {
        return;
    };
    let seen = Seen {
        path: request.uri().path(),
        query: request.uri().query(),
        headers: request.headers(),
        correlation: correlation.map(HeaderValue::as_bytes),
    };
    let Context { trace_id, span_id, flags, tracestate, .. } = context;
    // Copied, for they would keep the buffer alive that the request was read into.
    let copy = |value: &HeaderValue| HeaderValue::from_bytes(value.as_bytes()).ok();
    let (tracestate, correlation) = (tracestate.as_ref().and_then(copy), correlation.and_then(copy));
    let route = job.route.clone();
    let whose = Whose { trace_id, span_id, flags, tracestate, route, correlation };
    exchange.searched(proxy.lineage.open(&job.live.lineage, whose, &seen));
}

/// Headers that go back to the caller with any response.
#[derive(Debug, Default)]
pub(super) struct Echo {
    correlation: Option<(HeaderName, HeaderValue)>,
    server_timing: Option<HeaderValue>,
    traceresponse: Option<HeaderValue>,
}

impl Echo {
    /// What goes back to a caller beside the correlation id.
    fn traced(live: &Live, context: &Context) -> Self {
        let mut echo = Self::default();
        if live.server_timing {
            let mut value = *b"trace;desc=00-00000000000000000000000000000000-0000000000000000-00";
            value[11..].copy_from_slice(&traceparent_bytes(context));
            echo.server_timing = HeaderValue::from_bytes(&value).ok();
        }
        if live.traceresponse {
            echo.traceresponse = HeaderValue::from_bytes(&traceparent_bytes(context)).ok();
        }
        echo
    }

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

/// Answers with an error of our own, and finishes with the exchange.
pub(super) fn answer_ourselves(
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
    record.grpc_status = record.rpc.map(|_| error.grpc_status());
    let response = match record.grpc_status {
        Some(status) => error.reply_to_call(status),
        None => error.reply(accept, &correlation, &trace),
    };
    own(exchange, caller, response, error.outcome, echo)
}

/// Finishes with a response that is none of the service.
fn own(
    mut exchange: Exchange,
    caller: Caller,
    mut response: Response<ResponseBody>,
    outcome: Outcome,
    echo: Echo,
) -> Response<ResponseBody> {
    let record = exchange.record();
    record.response_bytes = response.body().size_hint().exact().unwrap_or_default();
    echo.add_to(response.headers_mut());
    // What the service is told of a call that came to nothing is no answer of its destination.
    if record.side == Side::Inbound {
        exchange.note_status(response.status().as_u16(), None);
    }
    caller.settle(exchange, outcome);
    response
}

/// Whether an answer changes the protocol, to one that was `asked` for and whose far side is there.
///
/// # Errors
/// Says why the caller must not get it.
fn switches(
    response: &Response<Received>,
    asked: bool,
    opening: Option<&Opening>,
    protocol: Option<&HeaderValue>,
) -> Result<bool, String> {
    let switching = response.status() == StatusCode::SWITCHING_PROTOCOLS;
    if switching && !asked {
        // The caller would read the new protocol's bytes as HTTP (RFC 9110 section 15.2.2).
        return Err("101 to a request that asked for no upgrade".to_owned());
    }
    match opening {
        Some(opening) => opening.agreed(response, protocol),
        None => Ok(switching),
    }
}

/// Hands both sides to a tunnel, which carries the exchange until both have closed.
fn switch_protocols(
    mut response: Response<Received>,
    protocol: Option<HeaderValue>,
    tunnel: Tunnel,
    opening: Option<Opening>,
    caller: Caller,
) -> Response<ResponseBody> {
    match opening {
        Some(opening) => {
            Opening::accept(&mut response);
            opening.open(tunnel, caller);
        }
        None => {
            if let Some(protocol) = protocol {
                headers::request_upgrade(response.headers_mut(), protocol);
            }
            caller.upgrade(tunnel);
        }
    }
    response.map(|mut nothing| ResponseBody::Switching(nothing.take_layout()))
}

fn count_malformed(proxy: &Proxy, malformed: Malformed) {
    if malformed == Malformed::default() {
        return;
    }
    let stats = &proxy.stats;
    let counted = [
        (malformed.traceparent, &stats.malformed_traceparent),
        (malformed.tracestate, &stats.malformed_tracestate),
        (malformed.baggage, &stats.malformed_baggage),
        (malformed.b3, &stats.malformed_b3),
        (malformed.b3multi, &stats.malformed_b3multi),
        (malformed.jaeger, &stats.malformed_jaeger),
        (malformed.xray, &stats.malformed_xray),
        (malformed.datadog, &stats.malformed_datadog),
        (malformed.sentry_trace, &stats.malformed_sentry_trace),
    ];
    counted.into_iter().filter(|(there, _)| *there).for_each(|(_, count)| count.increment());
}
