//! Why an exchange happens: the trace it belongs to, its parent, and how that is known.
//!
//! What comes in says so itself, as far as its sender is trusted. What the service sends may say so, too, if it forwards
//! a context; if not, the open inbound exchanges are searched for the one that caused it ([`Lineage`]). A parent that is
//! not certain is not made one: the call then begins a trace of its own, linked to those that it may belong to.

use std::net::SocketAddr;
use std::sync::Arc;

use http::{HeaderMap, HeaderValue, Request};
use tokio::sync::OnceCell;

use super::{Job, Outgoing, Proxy};
use crate::config::{Live, Trust};
use crate::exchange::{
    Ancestry, Call, CallToken, Destination, Lineage, Link, Method, Owner, Seen, Side, Start, Verdict, Whose,
};
use crate::net::process::ProcessSockets;
use crate::net::server::Connection;
use crate::propagation::{Context, Incoming};
use crate::wire::Received;
use crate::wire::body::Ahead;

/// The origin of an exchange.
pub(super) struct Cause {
    pub(super) start: Start,
    /// What goes on with the trace.
    pub(super) tracestate: Option<HeaderValue>,
    pub(super) debug: bool,
    /// Spans to link to.
    pub(super) links: Vec<Link>,
    /// How the parent of a call was found.
    pub(super) ancestry: Option<Ancestry>,
    /// The correlation id of the exchange that caused a call.
    pub(super) correlation: Option<HeaderValue>,
    /// The call, as that of its parent or of whom its process serves; to be dropped with the head of the answer.
    pub(super) call: Option<Waiting>,
}

impl Cause {
    fn new(start: Start) -> Self {
        let (tracestate, debug, links) = (None, false, Vec::new());
        Self { start, tracestate, debug, links, ancestry: None, correlation: None, call: None }
    }

    /// Goes on with what `incoming` says. `remote` says that its span is somebody else's.
    fn of(incoming: Incoming, start: Start, remote: bool) -> Self {
        let start = match (&incoming.parent, incoming.trace_id) {
            (Some(parent), _) => start.child_of(parent, remote),
            (None, Some(trace_id)) => start.within(trace_id, 0),
            (None, None) => start,
        };
        let mut cause = Self::new(start.follow(incoming.sampled));
        cause.debug = incoming.debug;
        cause.tracestate = incoming.parent.and_then(|parent| parent.tracestate);
        cause
    }
}

/// A call whose parent waits for the answer, until this is dropped: it came, it failed, or the service went away.
pub(super) struct Waiting {
    lineage: Arc<Lineage>,
    call: CallToken,
}

impl Drop for Waiting {
    fn drop(&mut self) {
        self.lineage.call_answered(self.call);
    }
}

/// The origin of a request from the network.
pub(super) fn of_request(mut incoming: Incoming, connection: &Connection, trust: Trust) -> Cause {
    let start = Start::new(Side::Inbound, Some(connection.peer));
    match trust {
        Trust::Continue => {}
        Trust::Sample => (incoming.sampled, incoming.debug) = (None, false),
        Trust::Restart => {
            let mut cause = Cause::new(start);
            cause.links.extend(incoming.parent.as_ref().map(|parent| Link {
                trace_id: parent.trace_id,
                span_id: parent.span_id,
                flags: parent.flags,
                remote: true,
            }));
            return cause;
        }
    }
    Cause::of(incoming, start, true)
}

/// Both ends of the connection that a call came on.
#[derive(Clone, Copy)]
pub(super) struct Sides {
    /// The service's.
    pub(super) peer: SocketAddr,
    /// Ours.
    pub(super) local: SocketAddr,
}

/// The origin of a call of the service.
pub(super) async fn of_call(
    proxy: &Proxy,
    job: &Job,
    outgoing: &Outgoing,
    request: &Request<Received>,
    incoming: Incoming,
    ahead: &Ahead,
) -> Cause {
    let live = &job.live;
    let content = ahead.content();
    let (at, arrived_at) = outgoing.arrived;
    let start = Start::new(Side::Outbound, None).arrived(at, arrived_at);
    let lineage = &proxy.lineage;
    let accepted = live.correlation.as_ref().and_then(|rules| rules.accept(request.headers()).id);
    let seen = Seen {
        path: if outgoing.tunnel { "" } else { request.uri().path() },
        query: request.uri().query(),
        headers: request.headers(),
        correlation: accepted.as_ref().map(|(_, id)| id.as_bytes()),
    };
    let call = Call {
        seen,
        destination: name_of(&outgoing.destination, &outgoing.authority),
        arrived_at: Some(arrived_at),
        owner: None,
        body: Some(&content[..]).filter(|content| !content.is_empty()),
    };
    if let Some(parent) = &incoming.parent {
        // The service forwards it: nobody knows better.
        let known = lineage.note_header(&live.lineage, &call, (parent.trace_id, parent.span_id));
        let remote = !known.as_ref().is_some_and(|forwarded| forwarded.own_span);
        let mut cause = Cause::of(incoming, start, remote);
        cause.ancestry = Some(Ancestry { method: Method::Header.as_str(), confidence: 1.0, candidates: 1 });
        if let Some(forwarded) = known {
            cause.correlation = forwarded.whose.correlation;
            cause.call = Some(Waiting { lineage: lineage.clone(), call: forwarded.call });
        }
        return cause;
    }
    let connection = job.caller.connection();
    let sides = Sides { peer: connection.peer, local: connection.local };
    let mut cause = search(proxy, lineage, live, start, call, sides, Some(&connection.process)).await;
    cause.debug = incoming.debug;
    if cause.ancestry.is_some_and(|ancestry| ancestry.method == Ancestry::NONE) {
        // A trace without a span (XR-1) and a decision without a context, such as `b3: 0`, are the service's; but they are
        // no reason to leave a trace that is known.
        if let Some(trace_id) = incoming.trace_id {
            cause.start = cause.start.within(trace_id, 0);
        }
        if incoming.sampled.is_some() {
            cause.start = cause.start.follow(incoming.sampled);
        }
    }
    cause
}

/// The origin of a connection of which no request was read.
pub(super) async fn of_connection(
    proxy: &Proxy,
    live: &Live,
    destination: &Destination,
    authority: &str,
    sides: Sides,
) -> Cause {
    let lineage = &proxy.lineage;
    let headers = HeaderMap::new();
    let seen = Seen { path: "", query: None, headers: &headers, correlation: None };
    let destination = name_of(destination, authority);
    let call = Call { seen, destination, arrived_at: None, owner: None, body: None };
    search(proxy, lineage, live, Start::new(Side::Outbound, None), call, sides, None).await
}

fn name_of<'a>(destination: &'a Destination, authority: &'a str) -> &'a str {
    destination.name.as_deref().unwrap_or(authority)
}

/// Searches the open inbound exchanges for the one that caused a call.
async fn search(
    proxy: &Proxy,
    lineage: &Arc<Lineage>,
    live: &Live,
    start: Start,
    mut call: Call<'_>,
    sides: Sides,
    known: Option<&OnceCell<Option<Arc<ProcessSockets>>>>,
) -> Cause {
    let owner = owner(proxy, lineage, live, &call, sides, known).await;
    call.owner = owner.as_ref();
    match lineage.find(&live.lineage, &call) {
        Verdict::Parent { whose, method, confidence, candidates, call } => {
            let mut cause = Cause::new(start.child_of(&context_of(&whose), false));
            cause.ancestry =
                Some(Ancestry { method: method.as_str(), confidence, candidates: candidates as u32 });
            (cause.tracestate, cause.correlation) = (whose.tracestate, whose.correlation);
            cause.call = Some(Waiting { lineage: lineage.clone(), call });
            cause
        }
        Verdict::Unknown { candidates, links, call } => {
            // A trace that may belong to a kept one is kept, or its part of the story would be missing.
            let sampled = links.iter().map(|whose| whose.flags & Context::SAMPLED != 0).reduce(|a, b| a || b);
            let mut cause = Cause::new(start.follow(sampled));
            cause.ancestry =
                Some(Ancestry { method: Ancestry::NONE, confidence: 0.0, candidates: candidates as u32 });
            cause.links = links.iter().map(link_to).collect();
            cause.call = call.map(|call| Waiting { lineage: lineage.clone(), call });
            cause
        }
    }
}

/// The process that made a call, where that can help and be seen. It is looked up until it is found, once per connection; what
/// it serves, for each call.
async fn owner(
    proxy: &Proxy,
    lineage: &Lineage,
    live: &Live,
    call: &Call<'_>,
    sides: Sides,
    known: Option<&OnceCell<Option<Arc<ProcessSockets>>>>,
) -> Option<Owner> {
    let (processes, budget) = (&proxy.processes, live.process_budget);
    if budget.is_zero() {
        return None;
    }
    let connections = lineage.undecided_connections(&live.lineage, call)?;
    let look_up = || processes.owner_of(sides.peer, sides.local, budget);
    let process = match known {
        Some(known) => {
            let found = known.get_or_try_init(|| async { look_up().await.map(Some).ok_or(()) }).await;
            found.ok()?.clone()?
        }
        None => look_up().await?,
    };
    processes.serves(&process, connections, budget).await
}

fn context_of(whose: &Whose) -> Context {
    let Whose { trace_id, span_id, flags, .. } = *whose;
    Context { trace_id, span_id, flags, tracestate: None, debug: false }
}

fn link_to(whose: &Whose) -> Link {
    let Whose { trace_id, span_id, flags, .. } = *whose;
    Link { trace_id, span_id, flags, remote: false }
}
