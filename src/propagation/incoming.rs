//! What a request brought, and which of several formats is believed.

use opentelemetry::trace::TraceId;

use super::{Context, Format};

/// What a request brought.
///
/// There are three things to find, each worth more than the next: a whole context, a trace without a parent, and a
/// decision about sampling by itself. What is worth more wins; among equals the last format in the list (PROP-3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Incoming {
    /// The caller's context. `None` where it sent none that could be read: then a new trace begins, unless
    /// [`trace_id`](Self::trace_id) says otherwise.
    pub parent: Option<Context>,
    /// The format that everything here but `malformed` came in.
    pub format: Option<Format>,
    /// A trace that has no parent to name, as a load balancer of AWS begins it (XR-1): the new span is its root.
    /// Never zero, and `None` beside a [`parent`](Self::parent).
    pub trace_id: Option<TraceId>,
    /// The caller's decision. `None` where it left that to us (B3-3). Where there is a `parent`, its flag says the
    /// same, and is not set for `None`; `b3: 0` says it without ids.
    pub sampled: Option<bool>,
    /// Whether the caller asks for debugging, with or without ids (B3-4); then `sampled` is `Some(true)`.
    pub debug: bool,
    /// What was there and could not be read.
    pub malformed: Malformed,
}

/// Which headers were there but could not be read. They are counted and otherwise treated as absent; no request
/// is refused for them (PROP-2, BAG-5).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Malformed {
    /// `traceparent`, also where it came twice (CTX-7).
    pub traceparent: bool,
    /// `tracestate` beside a good `traceparent`. Without one it is not even read (CTX-8).
    pub tracestate: bool,
    /// `baggage`, also where it exceeds the limits of BAG-3.
    pub baggage: bool,
    /// `b3`.
    pub b3: bool,
    /// One of `x-b3-…`.
    pub b3multi: bool,
    /// `uber-trace-id`.
    pub jaeger: bool,
    /// `x-amzn-trace-id`, also where it came twice.
    pub xray: bool,
    /// One of `x-datadog-…`; those about sampling and the high half of the trace id do not spoil the rest.
    pub datadog: bool,
    /// `sentry-trace`.
    pub sentry_trace: bool,
}

/// What one format says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// A whole context and the decision. Flag and decision are made to agree by [`Incoming::believe`].
    Parent(Context, Option<bool>),
    /// A trace id without a span id, and the decision.
    Trace(TraceId, Option<bool>),
    /// A decision alone.
    Decision { sampled: bool, debug: bool },
}

impl Incoming {
    /// Takes what the next format in the list says, if it is worth no less than what is there.
    pub(super) fn believe(&mut self, format: Format, found: Found) {
        let before = std::mem::take(self);
        *self = match found {
            Found::Parent(context, sampled) => before.replaced_by(context, sampled),
            Found::Trace(trace_id, sampled) if before.parent.is_none() => {
                Incoming { trace_id: Some(trace_id), sampled, ..Incoming::default() }
            }
            Found::Decision { sampled, debug } if before.parent.is_none() && before.trace_id.is_none() => {
                Incoming { sampled: Some(sampled), debug, ..Incoming::default() }
            }
            _ => return *self = before,
        };
        self.format = Some(format);
        self.malformed = before.malformed;
    }

    /// The later of two contexts wins, but where both are about one trace it takes from the earlier one what its own
    /// format has no words for: `tracestate`, the random flag, debugging, and a decision that it leaves to others.
    fn replaced_by(&self, mut context: Context, mut sampled: Option<bool>) -> Incoming {
        if let Some(before) = self.parent.as_ref().filter(|before| before.trace_id == context.trace_id) {
            sampled = sampled.or(self.sampled);
            context.flags |= before.flags & Context::RANDOM;
            context.tracestate = context.tracestate.or_else(|| before.tracestate.clone());
            context.debug |= before.debug && sampled == Some(true);
        }
        if sampled == Some(true) {
            context.flags |= Context::SAMPLED;
        }
        Incoming { debug: context.debug, sampled, parent: Some(context), ..Incoming::default() }
    }
}
