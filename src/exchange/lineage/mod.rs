//! Which open inbound exchange caused this outbound call?
//!
//! Apps that may not be changed forward no context. [`Lineage`] knows all open inbound exchanges of this sidecar, and
//! those that ended a moment ago (the *tail*: apps make calls after their answer), and is asked when a call passes,
//! since the header goes out with it. **A wrong parent is worse than none**: wherever two things contradict each other, or
//! could, the answer is [`Verdict::Unknown`].
//!
//! # The tiers, in their order
//!
//! | method | decides if | confidence |
//! |---|---|---|
//! | [`Header`](Method::Header) | the app forwarded a trace context. Decided before we are asked ([`Lineage::note_header`]) | 1.0 |
//! | [`Correlation`](Method::Correlation) | exactly one live exchange carries the call's correlation id or identity headers. If several do, no tier after this one looks at others | 0.99 |
//! | [`Token`](Method::Token) | a value of high entropy in the call is carried by exactly one live exchange, and was in no other call before | 0.97 |
//! | [`Process`](Method::Process) | the process that owns the caller's socket serves exactly one exchange of several (prefork servers), and nothing speaks against it: see below | 0.95 |
//! | [`Sole`](Method::Sole) | exactly one exchange is open, and nothing speaks against it: see below | 0.9 or 0.6 |
//! | a further [`Tier`] | it says so | its own |
//!
//! **The confidences are priors, not measured probabilities**: each says how much else could be true, by
//! thinking; the reasons are beside the numbers in `decide.rs`. They are lowered for a parent that has ended, and, for `sole`, where others
//! ended a moment ago (0.95 of it), where the destination has been called less than 16 times, and where the service was idle for
//! less than a second of late: a background call that never had a chance to be seen alone is not known not to exist.
//!
//! `process` is silent where more than 256 exchanges are open besides streams, since every worker would wait for the walk.
//! Against it speak, each for the window: a call to the destination that nobody could have caused (none was open, or the
//! process served none); a process of the service that served several exchanges at once, by threads or an event loop; and
//! a call made while another of the same exchange was not answered: a worker that does one thing after another waits, so one of the two was
//! made by somebody else in it; a call known to have come after the end of its exchange, while there is a tail. (A worker that makes calls at once is not told from that.) So does the habit of
//! such calls to show their parent, which this one does not. Where nobody else is open, the process says no more than that,
//! and `sole` is asked.
//!
//! A service is *quiet* as long as no call has met two open exchanges, and no background call, late call or overlap was
//! seen, to any destination, in the window; and once it was seen at rest for two seconds ([`LineageRules::guess_after`]), from the
//! start on: who calls by himself has had time to show it. Where it is not, `sole` decides only for a destination that it knows, and for an exchange that
//! waits for no other call.
//!
//! Against `sole` speak: a call to the destination with no exchange open, in the window; a call known to have come after the end
//! of its exchange, in the window, while there is a tail; a value in the call that another live exchange carries, even a shared
//! one; a process that serves at other times and has nothing to serve now; and the habit of such calls (same destination,
//! same shape of the path) to show their parent, which this one does not.
//!
//! A *stream* ([`OpenExchange::streams`]: server-sent events, WebSockets) is found by `correlation` and `token` only. For the rest it
//! is not there: it is no candidate, a process that holds it besides is not kept busy by it, and a call that comes with nothing
//! else open is one of nobody. For `sole`, and for what counts as a call of nobody, the same goes for an exchange that has been
//! open for more than 30 s. While either is open, a service is not quiet; and where one of them carries the id of
//! a call as others do, neither gets it.
//!
//! # Values that do not name a request
//!
//! A value serves one parent only. Once it was in a call of nobody known, in calls of different parents, or in the
//! call of one parent while another carried it, it decides no more (`sightings.rs`).
//!
//! # What is kept
//!
//! Values only as 64-bit SipHash, with a key drawn at the start that never leaves the process; they go with
//! their exchange when its tail is over. Bounds: 4096 live exchanges (the oldest of the tail leave first; where all are
//! open, the next is counted and, while it lasts, nothing is decided), 32 tokens and 32 identities each, 16 calls each;
//! 32 Ki values seen once, 32 Ki hot ones, 2 Ki destinations and shapes of calls. All that is about 10 MB when
//! full, and less than a megabyte for a service with 100 requests a second.
//!
//! # How it is wired
//!
//! 1. Inbound: [`Lineage::open`] with what the app will be sent (also the correlation id that we make), and keep the
//!    guard as long as the exchange. [`OpenExchange::handed_over`] as soon as the connection to the app is known, **for each
//!    attempt**: an exchange without it cannot be found by `process`, and does not count against others.
//!    [`OpenExchange::streams`] once the response turns out to have no end in sight.
//! 2. Outbound: [`Lineage::find`], on the worker; it takes microseconds and never blocks on anything but one mutex.
//!    If the app forwarded a context, [`Lineage::note_header`] instead.
//! 3. For `process`: once per accepted connection `net::process::Processes::owner_of`. Per call,
//!    [`Lineage::undecided_connections`]: `None` means that the owner is not needed; else ask
//!    `net::process::Processes::serves` with them, and put the result into [`Call::owner`]. Take [`Call::arrived_at`] before that.
//! 4. [`Lineage::call_answered`] when the answer's head has come or the call has failed, with the [`CallToken`] of the verdict.

mod decide;
mod habits;
mod json;
mod live;
mod sightings;
mod tokens;

#[cfg(test)]
mod scorer;
#[cfg(test)]
mod tests;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use http::header::{AUTHORIZATION, COOKIE};
use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::{SpanId, TraceId};

use decide::{Decision, MAX_WALK, Question, State};
use live::Connection;
use tokens::{Gathered, Keys, Kind, Values};

/// What decides: live settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LineageRules {
    /// The tiers in use. They are asked in their fixed order, whatever the order here.
    pub methods: Vec<Method>,
    /// Headers, beside the correlation headers, whose value names a request. Compared with the same header only.
    pub identity_headers: Vec<HeaderName>,
    /// Headers whose values are tokens where they are of high entropy: each cookie's value, a credential
    /// without its scheme, any other value as a whole.
    pub token_headers: Vec<HeaderName>,
    /// How long a finished exchange can still be a parent. An exchange keeps the value it was opened with.
    pub tail: Duration,
    /// For how long a call with no exchange open speaks against conclusions from who is there.
    pub background_window: Duration,
    /// How long the service has to have been watched at rest, with no exchange open, before `sole` decides with nothing else
    /// known of it.
    pub guess_after: Duration,
    /// Names of JSON fields whose strings and numbers are tokens where they are of high entropy.
    pub json_fields: Vec<String>,
}

impl Default for LineageRules {
    /// All methods; `authorization` and `cookie`; no identity headers or JSON fields, which need knowledge of the app; a tail of 5 s,
    /// which is long for a late call and short for memory; a window of 60 s, the commonest period of background jobs; two seconds at
    /// rest before the first guess: a service that calls by itself, and more often than that, has shown it by then.
    fn default() -> Self {
        Self {
            methods: Method::ALL.to_vec(),
            identity_headers: Vec::new(),
            token_headers: vec![AUTHORIZATION, COOKIE],
            tail: Duration::from_secs(5),
            background_window: Duration::from_secs(60),
            guess_after: Duration::from_secs(2),
            json_fields: Vec::new(),
        }
    }
}

impl LineageRules {
    /// Whether a tier is in use.
    pub fn uses(&self, method: Method) -> bool {
        self.methods.contains(&method)
    }
}

/// How a parent was found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Method {
    /// The app forwarded a trace context.
    Header,
    /// The app forwarded a correlation id or an identity header.
    Correlation,
    /// A value of high entropy is in both.
    Token,
    /// The caller's process serves one exchange.
    Process,
    /// One exchange is open.
    Sole,
}

impl Method {
    /// All, in the order in which they are asked.
    pub const ALL: [Self; 5] = [Self::Header, Self::Correlation, Self::Token, Self::Process, Self::Sole];

    /// As in settings, on spans and in metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Header => "header",
            Self::Correlation => "correlation",
            Self::Token => "token",
            Self::Process => "process",
            Self::Sole => "sole",
        }
    }

    /// Its place in [`Method::ALL`].
    fn place(self) -> usize {
        self as usize
    }
}

/// What a call's span needs of its parent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Whose {
    /// Trace id of the inbound exchange.
    pub trace_id: TraceId,
    /// Its span.
    pub span_id: SpanId,
    /// Its W3C flags.
    pub flags: u8,
    /// Its `tracestate`.
    pub tracestate: Option<HeaderValue>,
    /// Its route, where it has one.
    pub route: Option<Arc<str>>,
    /// Its correlation id, for its calls.
    pub correlation: Option<HeaderValue>,
}

/// What is seen of a request, in or out.
#[derive(Clone, Copy, Debug)]
pub struct Seen<'a> {
    /// The path, as sent.
    pub path: &'a str,
    /// The query, as sent, without its question mark.
    pub query: Option<&'a str>,
    /// The headers.
    pub headers: &'a HeaderMap,
    /// The correlation id: inbound as sent to the app, also when we made it; outbound as found in the call.
    pub correlation: Option<&'a [u8]>,
}

/// A call that looks for its parent.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// What it carries.
    pub seen: Seen<'a>,
    /// Where it goes: host and port, or the name of a mapping.
    pub destination: &'a str,
    /// When it came; `None` is now. Worth giving where something was awaited since.
    pub arrived_at: Option<Instant>,
    /// Who owns the caller's socket, if that was looked up.
    pub owner: Option<&'a Owner>,
    /// The first part of its body, if that was read.
    pub body: Option<&'a [u8]>,
}

/// The process that made a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Owner {
    /// Its id.
    pub process: u32,
    /// Of the connections asked about, those that this process owns, and no other.
    pub serves: Vec<HandedOver>,
    /// Those that others own. What is in neither waits to be accepted.
    pub elsewhere: Vec<HandedOver>,
}

/// A connection on which an open exchange was handed to the app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HandedOver {
    /// The exchange.
    pub exchange: ExchangeId,
    /// Our side.
    pub local: SocketAddr,
    /// The app's side.
    pub peer: SocketAddr,
    /// The inode of the app's socket, if it was found before; it has none until it is accepted.
    pub socket: Option<u64>,
}

/// Names an exchange within a [`Lineage`], also when it is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ExchangeId {
    slot: u32,
    generation: u32,
}

/// Names a call of an exchange.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CallToken {
    exchange: ExchangeId,
    /// Among the calls that are kept of it.
    place: Option<usize>,
    /// That has made it, where that was looked up.
    process: Option<u32>,
}

/// A context that an app forwarded, where its trace is that of a live exchange.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// For [`Lineage::call_answered`].
    pub call: CallToken,
    /// Whether the span is the exchange's. If not, only the trace is: an instrumented app forwards a span that it made itself
    /// under ours, and of which only its own exporter tells.
    pub own_span: bool,
    /// The exchange.
    pub whose: Whose,
}

/// What was found.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict {
    /// The parent.
    Parent {
        /// Whose child the call is.
        whose: Whose,
        /// How that was found.
        method: Method,
        /// From 0 to 1; see the module's documentation.
        confidence: f64,
        /// How many were possible before this method decided: carriers of the id, or open exchanges.
        candidates: usize,
        /// For [`Lineage::call_answered`].
        call: CallToken,
    },
    /// There is none that is certain.
    Unknown {
        /// How many were possible; never less than there are links.
        candidates: usize,
        /// Up to three likely ones: those that something in the call points at, then those that its process serves, then the
        /// other open ones but for those that wait to be accepted; in each part the newest first, for calls are made early.
        links: Vec<Whose>,
        /// For [`Lineage::call_answered`], where its process serves one exchange: this is how it is seen that a process does
        /// several things at a time.
        call: Option<CallToken>,
    },
}

/// A call that an exchange has made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SentCall {
    /// A keyed hash of the destination.
    pub destination: u64,
    /// When it came to us.
    pub sent_at: Instant,
    /// When its answer came.
    pub answered_at: Option<Instant>,
}

/// What a further tier sees of an exchange.
#[derive(Clone, Copy, Debug)]
pub struct Candidate<'a> {
    /// Its name.
    pub exchange: ExchangeId,
    /// Its route.
    pub route: Option<&'a str>,
    /// When it opened.
    pub opened_at: Instant,
    /// When it ended; `None` while it is open.
    pub closed_at: Option<Instant>,
    /// Its first 16 calls, in order.
    pub calls: &'a [SentCall],
}

/// A tier that is asked where all the exact ones are silent. It runs under the lock: it may neither block nor take long.
pub trait Tier: Send + Sync + std::fmt::Debug {
    /// What its decisions are called.
    fn method(&self) -> Method;

    /// Chooses one of `candidates` (the newest 256 open ones but for streams, then the latest 256 of the tail; only those that the call's correlation id allows), with its
    /// confidence, or none. `destination` is hashed as in [`SentCall`].
    fn choose(
        &self,
        destination: u64,
        candidates: &mut dyn Iterator<Item = Candidate<'_>>,
        arrived_at: Instant,
    ) -> Option<(ExchangeId, f64)>;
}

/// Numbers for `/metrics`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Figures {
    /// Exchanges that are open.
    pub open: usize,
    /// Exchanges that ended and can still be parents.
    pub tail: usize,
    /// Hashes of values that live exchanges carry.
    pub values: usize,
    /// Values that are remembered as shared.
    pub hot: usize,
    /// Parents found, by [`Method::ALL`].
    pub decided: [u64; Method::ALL.len()],
    /// Calls without a certain parent.
    pub unknown: u64,
    /// Exchanges that were not tracked for lack of room.
    pub exchanges_dropped: u64,
    /// Exchanges that left the tail early for lack of room.
    pub tails_cut_short: u64,
    /// Values that were not kept for lack of room.
    pub values_dropped: u64,
    /// Calls that were not kept for lack of room.
    pub calls_not_kept: u64,
    /// Calls that had their parent's correlation id.
    pub correlation_forwarded: u64,
    /// Calls that had their parent's value in an identity or token header, by header.
    pub forwarded: Vec<(HeaderName, u64)>,
}

/// All open inbound exchanges of this sidecar, for all workers.
#[derive(Debug)]
pub struct Lineage {
    keys: Keys,
    clock: Clock,
    further: Option<Box<dyn Tier>>,
    state: Mutex<State>,
}

impl Default for Lineage {
    fn default() -> Self {
        Self::new()
    }
}

impl Lineage {
    /// Nothing is open yet. Draws the key of its hashes.
    pub fn new() -> Self {
        Self::with_clock(Clock::default(), None)
    }

    /// The same, with a further tier behind `sole`.
    pub fn with_tier(tier: Box<dyn Tier>) -> Self {
        Self::with_clock(Clock::default(), Some(tier))
    }

    fn with_clock(clock: Clock, further: Option<Box<dyn Tier>>) -> Self {
        let mut state = State::default();
        state.habits.idle_begins(clock.now());
        Self { keys: Keys::default(), clock, further, state: Mutex::new(state) }
    }

    /// An inbound exchange is open. What identifies it is hashed, not kept. Dropping the guard closes it, after which
    /// it can still be found for `rules.tail`.
    pub fn open(self: &Arc<Self>, rules: &LineageRules, whose: Whose, seen: &Seen<'_>) -> OpenExchange {
        let gathered = Gathered::of(&self.keys, rules, seen, None, true);
        let trace = self.keys.hash(Kind::Trace, &whose.trace_id.to_bytes());
        let now = self.clock.now();
        let mut state = self.lock();
        state.live.sweep(now);
        if state.live.requests() + state.untracked == 0 {
            state.habits.idle_ends(rules.background_window, now);
        }
        let exchange = state.live.open(whose, rules.tail, now);
        let mut dropped = gathered.identities.dropped + gathered.tokens.dropped;
        match exchange {
            Some(id) => {
                dropped += state.live.carry(id, &[trace]);
                dropped += state.live.carry(id, gathered.identities.as_slice());
                dropped += state.live.carry(id, gathered.tokens.as_slice());
            }
            None => {
                state.untracked += 1;
                state.counts.untracked += 1;
            }
        }
        state.counts.values_dropped += dropped;
        drop(state);
        OpenExchange { lineage: self.clone(), exchange }
    }

    /// Finds the parent of a call that brings no trace context.
    pub fn find(&self, rules: &LineageRules, call: &Call<'_>) -> Verdict {
        let now = self.clock.now();
        let question = self.question(rules, call, now);
        let mut state = self.lock();
        state.live.sweep(now);
        let decision = state.decide(&question, rules, self.further.as_deref(), now);
        state.learn(&question, rules, &decision, now);
        state.learn_process(&question, now);
        state.verdict(&question, decision, now)
    }

    /// The app has forwarded a context of its own accord, `span`: nothing to decide, but something to learn. `None` if its
    /// trace is that of no live exchange, or of several none of which has that span.
    pub fn note_header(
        &self,
        rules: &LineageRules,
        call: &Call<'_>,
        span: (TraceId, SpanId),
    ) -> Option<Forwarded> {
        let trace = self.keys.hash(Kind::Trace, &span.0.to_bytes());
        let now = self.clock.now();
        let question = self.question(rules, call, now);
        let mut state = self.lock();
        state.live.sweep(now);
        state.counts.decided[Method::Header.place()] += 1;
        let Some((slot, own_span)) = state.of_context(trace, span.1, question.arrived, now) else {
            // Somebody else is the parent: what the call carries is not a name of ours.
            state.learn_tokens(&question, None, now);
            return None;
        };
        let decision = Decision::Parent { slot, method: Method::Header, confidence: 1.0, candidates: 1 };
        state.learn(&question, rules, &decision, now);
        let whose = state.live.slot(slot).whose.clone()?;
        Some(Forwarded { call: state.sent(slot, &question), own_span, whose })
    }

    /// The connections on which open exchanges were handed over, if the owner of the caller's socket could help to decide.
    /// Streams are not among them. `None` if the call names its parent itself, `process` is not in use, nothing was handed over,
    /// or more than 256 exchanges are open besides streams: all workers wait while they are looked through. Learns nothing.
    pub fn undecided_connections(&self, rules: &LineageRules, call: &Call<'_>) -> Option<Vec<HandedOver>> {
        if !rules.uses(Method::Process) {
            return None;
        }
        let now = self.clock.now();
        let question = self.question(rules, call, now);
        let state = self.lock();
        if state.live.requests() > MAX_WALK || !state.undecided(&question, now) {
            return None;
        }
        let connections: Vec<_> = state
            .live
            .open_ones()
            .filter_map(|slot| {
                let Connection { local, peer, socket } = state.live.slot(slot).connection?;
                Some(HandedOver { exchange: state.live.id(slot), local, peer, socket })
            })
            .collect();
        (!connections.is_empty()).then_some(connections)
    }

    /// The answer to a call has come, or will not come any more. To be said once, **of each call**: a parent with a call
    /// that is not answered is taken to wait for it, and so is the one that its process serves.
    pub fn call_answered(&self, call: CallToken) {
        let now = self.clock.now();
        let mut state = self.lock();
        state.answered(call, now);
    }

    /// What there is and what was decided.
    pub fn figures(&self) -> Figures {
        let now = self.clock.now();
        let mut state = self.lock();
        state.live.sweep(now);
        let counts = state.counts.clone();
        Figures {
            open: state.live.open_count() + state.untracked,
            tail: state.live.tail_count(),
            values: state.live.carried_count(),
            hot: state.sightings.hot(),
            decided: counts.decided,
            unknown: counts.unknown,
            exchanges_dropped: counts.untracked,
            tails_cut_short: state.live.cut_short,
            values_dropped: counts.values_dropped,
            calls_not_kept: counts.calls_not_kept,
            correlation_forwarded: counts.correlation_forwarded,
            forwarded: counts.forwarded,
        }
    }

    fn question<'a>(&self, rules: &LineageRules, call: &Call<'a>, now: Instant) -> Question<'a> {
        Question {
            gathered: Gathered::of(&self.keys, rules, &call.seen, call.body, false),
            destination: self.keys.hash(Kind::Destination, call.destination.as_bytes()),
            owner: call.owner,
            arrived: call.arrived_at.unwrap_or(now).min(now),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An inbound exchange that is open until this is dropped.
#[derive(Debug)]
#[must_use = "dropping it closes the exchange"]
pub struct OpenExchange {
    lineage: Arc<Lineage>,
    /// `None`: it had no room.
    exchange: Option<ExchangeId>,
}

impl OpenExchange {
    /// The request is about to be sent to the app on this connection: `local` is our side, `peer` the app's. A second attempt
    /// on another connection replaces the first.
    pub fn handed_over(&self, local: SocketAddr, peer: SocketAddr) {
        let Some(exchange) = self.exchange else { return };
        let mut state = self.lineage.lock();
        if let Some(slot) = state.live.at(exchange) {
            state.live.slot_mut(slot).connection = Some(Connection { local, peer, socket: None });
        }
    }

    /// The response has no end in sight: server-sent events, a protocol that was switched to, a tunnel. From now on only what
    /// a call says can make it a child of this exchange, and for the others it is as if this one was not there: calls that come
    /// beside it alone are seen as the calls of nobody that they may be. Saying it twice does nothing.
    pub fn streams(&self) {
        let Some(exchange) = self.exchange else { return };
        let now = self.lineage.clock.now();
        let mut state = self.lineage.lock();
        if state.live.streams(exchange) && state.live.requests() + state.untracked == 0 {
            state.habits.idle_begins(now);
        }
    }

    /// Reads the body of the request, for whoever sees it pass. `None` where the exchange had no room.
    pub fn reader(&self) -> Option<BodyReader> {
        Some(BodyReader { lineage: self.lineage.clone(), exchange: self.exchange? })
    }
}

/// Tells an open exchange what is in the body of its request, which passes when the exchange is open already.
#[derive(Clone, Debug)]
pub struct BodyReader {
    lineage: Arc<Lineage>,
    exchange: ExchangeId,
}

impl BodyReader {
    /// Adds the values of the chosen JSON fields in the first part of the body; no more than 64 KiB of it are looked at.
    pub fn read(&self, rules: &LineageRules, prefix: &[u8]) {
        let mut values = Values::default();
        tokens::body_tokens(&self.lineage.keys, rules, prefix, &mut values);
        let mut state = self.lineage.lock();
        let dropped = state.live.carry(self.exchange, values.as_slice());
        state.counts.values_dropped += dropped + values.dropped;
    }
}

impl Drop for OpenExchange {
    fn drop(&mut self) {
        let now = self.lineage.clock.now();
        let mut state = self.lineage.lock();
        let before = state.live.requests() + state.untracked;
        match self.exchange {
            Some(exchange) => state.live.close(exchange, now),
            None => state.untracked = state.untracked.saturating_sub(1),
        }
        // The end of a stream is not the beginning of anything.
        if before > 0 && state.live.requests() + state.untracked == 0 {
            state.habits.idle_begins(now);
        }
    }
}

/// The time; in tests it stands still until it is moved.
#[derive(Debug, Default)]
struct Clock {
    #[cfg(test)]
    moved: Option<tests::Moved>,
}

impl Clock {
    fn now(&self) -> Instant {
        #[cfg(test)]
        if let Some(moved) = &self.moved {
            return moved.now();
        }
        Instant::now()
    }
}
