//! Who caused a call: the tiers in their order, and what each call teaches.
//!
//! The tiers that read what the call says come first ([`State::evidence`]); those that conclude from who is there
//! come after. Wherever two things contradict each other there is no decision.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::Instant;

use super::habits::{Came, Habit, Habits, Process};
use super::live::{Carriers, Connection, Few, Live, MAX_CALLS};
use super::sightings::{Generations, Sighting, Sightings};
use super::tokens::{Gathered, Source};
use super::{CallToken, Candidate, HandedOver, LineageRules, Method, Owner, SentCall, Tier, Verdict, Whose};

/// Links of an undecided call.
const MAX_LINKS: usize = 3;

/// Exchanges looked through for one call, with all workers waiting: where more are open, `process` is not asked. A prefork
/// server, which it is for, does not serve as many.
pub(super) const MAX_WALK: usize = 256;

/// Room of one generation of processes that are known to serve.
const PROCESSES: usize = 1024;

/// Confidences. They are priors, from thinking about what else could be true; none is a measured probability.
mod confidence {
    /// The app passed on an id that one exchange carries. What is left: an app that mixes up its requests.
    pub const CORRELATION: f64 = 0.99;
    /// A value of high entropy that was in no other's call. What is left: a background job that works on the very
    /// thing that a request asks about.
    pub const TOKEN: f64 = 0.97;
    /// The owning process serves one exchange. What is left: background work of that process that was never seen
    /// while it had nothing to serve.
    pub const PROCESS: f64 = 0.95;
    /// One exchange is open. What is left: background calls that were never seen while none was open.
    pub const SOLE: f64 = 0.9;
    /// The same, where such calls had little chance to be seen: a new destination, or a service that is never idle.
    pub const SOLE_UNKNOWN: f64 = 0.6;
    /// Of a parent that has already ended: there is no open exchange to contradict it, but more can have happened.
    pub const OF_THE_TAIL: f64 = 0.96;
    /// Of a lone open exchange while others ended a moment ago: a first late call would look the same.
    pub const BESIDE_A_TAIL: f64 = 0.95;

    /// Two decimals: it is shown to people, and means no more than that.
    pub fn lowered(confidence: f64, by: f64) -> f64 {
        (confidence * by * 100.0).round() / 100.0
    }
}

/// Everything that is behind the lock.
#[derive(Debug, Default)]
pub(super) struct State {
    pub live: Live,
    pub sightings: Sightings,
    pub habits: Habits,
    /// Processes that were seen to own a connection on which an exchange was handed over.
    pub served: Generations<()>,
    /// Processes that wait for answers, and for how many.
    awaiting: HashMap<u32, u32>,
    /// Exchanges that are open and had no room: while there are any, nobody is known to be the only one.
    pub untracked: usize,
    pub counts: Counts,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Counts {
    pub decided: [u64; Method::ALL.len()],
    pub unknown: u64,
    pub untracked: u64,
    pub values_dropped: u64,
    pub calls_not_kept: u64,
    pub correlation_forwarded: u64,
    pub forwarded: Vec<(http::HeaderName, u64)>,
}

/// One call, hashed.
#[derive(Debug)]
pub(super) struct Question<'a> {
    pub gathered: Gathered,
    pub destination: u64,
    pub owner: Option<&'a Owner>,
    /// When the call came. What opened later cannot have caused it, what closed later was open.
    pub arrived: Instant,
}

/// A parent, or none.
#[derive(Clone, Copy, Debug)]
pub(super) enum Decision {
    Parent {
        slot: u32,
        method: Method,
        confidence: f64,
        candidates: usize,
    },
    /// `only`: if there is a parent, it is one of the likely ones.
    Unknown {
        candidates: usize,
        likely: Few,
        only: bool,
    },
}

/// What the call itself says.
enum Evidence {
    Parent(Decision),
    /// It says two things.
    Conflict(Few),
    /// It says nothing that decides. `narrowed`: it must be one of these. `likely`: it may be.
    Open {
        narrowed: Option<Few>,
        likely: Few,
    },
}

impl State {
    /// Tiers `correlation` and `token`.
    fn evidence(&self, question: &Question<'_>, now: Instant) -> Evidence {
        let mut narrowed: Option<Few> = None;
        for id in question.gathered.identities.as_slice() {
            let Carriers::Few(few) = self.live.carriers(*id, question.arrived, now) else { continue };
            let mut both = few;
            if let Some(before) = narrowed {
                both.retain(|slot| before.contains(slot));
                if both.is_empty() {
                    let mut either = before;
                    few.as_slice().iter().for_each(|slot| either.push(*slot));
                    return Evidence::Conflict(either);
                }
            }
            narrowed = Some(both);
        }
        if let Some(slot) = narrowed.and_then(|few| few.only()) {
            return Evidence::Parent(self.parent(slot, Method::Correlation, confidence::CORRELATION, 1));
        }

        let mut named: Option<u32> = None;
        let mut likely = Few::default();
        for token in question.gathered.tokens.as_slice() {
            let Carriers::Few(mut few) = self.live.carriers(*token, question.arrived, now) else { continue };
            if let Some(narrowed) = narrowed {
                let outside = few.only().filter(|slot| !narrowed.contains(*slot));
                if let Some(slot) = outside
                    && self.sightings.may_name(*token, self.live.id(slot))
                {
                    let mut either = narrowed;
                    either.push(slot);
                    return Evidence::Conflict(either);
                }
                few.retain(|slot| narrowed.contains(slot));
            }
            few.as_slice().iter().for_each(|slot| likely.push(*slot));
            // A value that is carried only by exchanges that it cannot be is shared; it is not a contradiction yet.
            let Some(slot) = few.only() else { continue };
            if !self.sightings.may_name(*token, self.live.id(slot)) {
                continue;
            }
            if named.is_some_and(|other| other != slot) {
                return Evidence::Conflict(likely);
            }
            named = Some(slot);
        }
        match named {
            Some(slot) => {
                let candidates = narrowed.map_or(1, |few| few.as_slice().len());
                Evidence::Parent(self.parent(slot, Method::Token, confidence::TOKEN, candidates))
            }
            None => Evidence::Open { narrowed, likely },
        }
    }

    fn parent(&self, slot: u32, method: Method, confidence: f64, candidates: usize) -> Decision {
        let ended = self.live.slot(slot).closed_at.is_some();
        let confidence =
            if ended { confidence::lowered(confidence, confidence::OF_THE_TAIL) } else { confidence };
        Decision::Parent { slot, method, confidence, candidates }
    }

    /// Whether the owner of the caller's socket could decide where nothing before it does.
    pub(super) fn undecided(&self, question: &Question<'_>, now: Instant) -> bool {
        self.untracked == 0 && matches!(self.evidence(question, now), Evidence::Open { .. })
    }

    /// Asks each tier in its order.
    pub(super) fn decide(
        &self,
        question: &Question<'_>,
        rules: &LineageRules,
        further: Option<&dyn Tier>,
        now: Instant,
    ) -> Decision {
        if self.untracked > 0 {
            let candidates = self.live.open_count() + self.untracked;
            return Decision::Unknown { candidates, likely: Few::default(), only: false };
        }
        let (narrowed, likely) = match self.evidence(question, now) {
            Evidence::Parent(decision) => return decision,
            Evidence::Conflict(likely) => {
                return Decision::Unknown { candidates: likely.as_slice().len(), likely, only: true };
            }
            Evidence::Open { narrowed, likely } => (narrowed, likely),
        };
        let candidates = match narrowed {
            Some(few) => few.as_slice().len(),
            None => self.candidates(question, now),
        };
        let habit = self.habits.habit(question.destination, question.gathered.shape, rules, now);
        if rules.uses(Method::Process)
            && let Some(owner) = question.owner
            && let Some(slot) = self.process(question, owner, narrowed, habit, candidates, now)
        {
            return self.parent(slot, Method::Process, confidence::PROCESS, candidates);
        }
        if rules.uses(Method::Sole)
            && let Some((slot, confidence)) = self.sole(question, narrowed, habit, now)
        {
            return Decision::Parent { slot, method: Method::Sole, confidence, candidates };
        }
        if let Some(tier) = further
            && let Some((slot, confidence)) = self.further(tier, question, narrowed, now)
        {
            return Decision::Parent { slot, method: tier.method(), confidence, candidates };
        }
        Decision::Unknown { candidates, likely: narrowed.unwrap_or(likely), only: narrowed.is_some() }
    }

    /// How many could have made the call, as far as who is there tells.
    fn candidates(&self, question: &Question<'_>, now: Instant) -> usize {
        let count = self.live.count_at(question.arrived);
        match count {
            Some(count) if question.owner.is_none() => count,
            _ if self.live.requests() > MAX_WALK => self.live.requests(),
            _ => self.possible(question, now).count(),
        }
    }

    /// The exchanges that were open when the call came, but for streams and those that wait to be accepted; of no
    /// more than [`MAX_WALK`].
    fn possible<'a>(&'a self, question: &'a Question<'_>, now: Instant) -> impl Iterator<Item = u32> + 'a {
        self.live.open_at(question.arrived, now).take(MAX_WALK).filter(|slot| {
            // Whoever calls has looked at all that were open; who has no socket then is still in the listener's queue.
            let connection = self.live.slot(*slot).connection;
            let waits = |connection: &Connection| match question.owner {
                Some(_) => connection.socket.is_none() && !self.is_owned(question, *slot),
                None => false,
            };
            !connection.as_ref().is_some_and(waits)
        })
    }

    fn is_owned(&self, question: &Question<'_>, slot: u32) -> bool {
        let id = self.live.id(slot);
        let owned = |owner: &Owner| {
            owner.serves.iter().chain(&owner.elsewhere).any(|connection| connection.exchange == id)
        };
        question.owner.is_some_and(owned)
    }

    /// Those of the exchanges that the process serves which had begun when the call came.
    fn served<'a>(&'a self, question: &'a Question<'_>) -> impl Iterator<Item = u32> + 'a {
        let serves = question.owner.map_or(&[][..], |owner| &owner.serves);
        let slots = serves.iter().filter_map(|served| self.live.at(served.exchange));
        slots.filter(|slot| {
            let served = self.live.slot(*slot);
            served.opened_at <= question.arrived && !served.streams
        })
    }

    /// The exchanges that a process was found to serve; but streams, which may have become such since, do not keep it busy.
    fn busy_with<'a>(&'a self, owner: &'a Owner) -> impl Iterator<Item = &'a HandedOver> {
        let streams = |served: &HandedOver| {
            self.live.at(served.exchange).is_some_and(|slot| self.live.slot(slot).streams)
        };
        owner.serves.iter().filter(move |served| !streams(served))
    }

    /// The one exchange that the process serves. `candidates`: how many could have made the call without that.
    fn process(
        &self,
        question: &Question<'_>,
        owner: &Owner,
        narrowed: Option<Few>,
        habit: Habit,
        candidates: usize,
        now: Instant,
    ) -> Option<u32> {
        // Workers do the same things: what one calls while it has nothing to serve, another calls while it has.
        if habit.background {
            return None;
        }
        // One of them is gone: things have changed since they were looked at.
        if owner.serves.iter().any(|served| self.live.at(served.exchange).is_none()) {
            return None;
        }
        // The call carries the id of a stream and of others: what the stream causes is not told from what they do.
        if narrowed.is_some_and(|few| few.as_slice().iter().any(|slot| self.live.slot(*slot).streams)) {
            return None;
        }
        let mut served = self.served(question).filter(|slot| narrowed.is_none_or(|few| few.contains(*slot)));
        let slot = served.next()?;
        if served.next().is_some() {
            return None;
        }
        // A thread that the worker left behind with its last request calls while the worker serves the next.
        if habit.late && self.ended_beside(slot, narrowed, now) {
            return None;
        }
        if narrowed.is_none() {
            // The worker waits for an answer, so somebody else in it calls: or the other call was not its own.
            if !habit.watched
                || !habit.one_at_a_time
                || self.busy_with(owner).nth(1).is_some()
                || self.awaits(owner, slot)
            {
                return None;
            }
            // That this process serves the only one there is says nothing that `sole` does not know.
            if candidates < 2 && !habit.apart {
                return None;
            }
        }
        // A background thread of a worker calls without what the worker's other calls show.
        let shares = narrowed.is_some()
            || question.gathered.tokens.as_slice().iter().any(|token| self.live.carries(slot, *token));
        (!habit.shows_parent || shares).then_some(slot)
    }

    /// Whether the process, or the exchange that it serves, waits for the answer to a call; also to one of an exchange before it, which
    /// somebody has made who does not end with it.
    fn awaits(&self, owner: &Owner, slot: u32) -> bool {
        self.live.slot(slot).waiting > 0 || self.awaiting.contains_key(&owner.process)
    }

    /// Whether another exchange that could be the parent ended a moment ago.
    fn ended_beside(&self, slot: u32, narrowed: Option<Few>, now: Instant) -> bool {
        match narrowed {
            Some(few) => {
                few.as_slice().iter().any(|at| *at != slot && self.live.slot(*at).closed_at.is_some())
            }
            None => self.live.tail(now).any(|ended| ended != slot),
        }
    }

    /// The one exchange that was open, unless something speaks against it.
    fn sole(
        &self,
        question: &Question<'_>,
        narrowed: Option<Few>,
        habit: Habit,
        now: Instant,
    ) -> Option<(u32, f64)> {
        let slot = match narrowed {
            Some(few) => {
                let open = |slot: &u32| self.live.slot(*slot).open_at(question.arrived);
                let mut open = few.as_slice().iter().copied().filter(open);
                // One that has been open for long is no candidate; but if it has the id, too, the call may well be its own.
                open.next().filter(|slot| {
                    open.next().is_none() && !self.live.slot(*slot).long_at(question.arrived)
                })?
            }
            None => {
                let mut open = self.live.recent_at(question.arrived, now);
                open.next().filter(|_| open.next().is_none())?
            }
        };
        // A call that carries the id of these is no background call.
        if narrowed.is_none() {
            if habit.background {
                return None;
            }
            // While nothing has ever got in the way, one request and one call belong together from the first on. After that
            // there has to have been time in which calls of nobody would have been seen as such.
            // What a long poll or a stream causes has to have had that time, too.
            let quiet = habit.quiet && !self.live.any_long_at(question.arrived);
            if !quiet && (!habit.known || self.live.slot(slot).waiting > 0) {
                return None;
            }
        }
        let tail = self.ended_beside(slot, narrowed, now);
        if tail && habit.late {
            return None;
        }
        if let Some(owner) = question.owner {
            let elsewhere = self.busy_with(owner).any(|served| self.live.at(served.exchange) != Some(slot));
            // A process that serves at other times, and does not now, has made this call for itself. One that
            // never serves may stand behind the one that does, as PHP does behind its web server.
            if elsewhere || self.idles(owner) {
                return None;
            }
        }
        let mut shares = narrowed.is_some();
        for token in question.gathered.tokens.as_slice() {
            match self.live.carriers(*token, question.arrived, now) {
                Carriers::Few(few) if few.contains(slot) => shares = true,
                // It may not decide, but it does speak against us.
                Carriers::Few(_) => return None,
                Carriers::Nobody | Carriers::Crowd => {}
            }
        }
        if habit.shows_parent && !shares {
            return None;
        }
        let confidence = if habit.known { confidence::SOLE } else { confidence::SOLE_UNKNOWN };
        Some((
            slot,
            if tail { confidence::lowered(confidence, confidence::BESIDE_A_TAIL) } else { confidence },
        ))
    }

    /// Whether a process that serves at other times has nothing to serve.
    fn idles(&self, owner: &Owner) -> bool {
        self.busy_with(owner).next().is_none() && self.served.contains(owner.process.into())
    }

    fn further(
        &self,
        tier: &dyn Tier,
        question: &Question<'_>,
        narrowed: Option<Few>,
        now: Instant,
    ) -> Option<(u32, f64)> {
        let mut candidates = self
            .live
            .open_ones()
            .take(MAX_WALK)
            .chain(self.live.tail(now).take(MAX_WALK))
            .filter(|slot| self.live.slot(*slot).opened_at <= question.arrived)
            .filter(|slot| narrowed.is_none_or(|few| few.contains(*slot)))
            .map(|at| {
                let slot = self.live.slot(at);
                Candidate {
                    exchange: self.live.id(at),
                    route: slot.whose.as_ref().and_then(|whose| whose.route.as_deref()),
                    opened_at: slot.opened_at,
                    closed_at: slot.closed_at,
                    calls: &slot.calls,
                }
            });
        let (exchange, confidence) = tier.choose(question.destination, &mut candidates, question.arrived)?;
        Some((self.live.at(exchange)?, confidence))
    }

    /// Finds the exchange whose context an app has forwarded, and whether the span is its own: the one with that span, or
    /// the only one of that trace.
    pub(super) fn of_context(
        &self,
        trace: u64,
        span_id: opentelemetry::trace::SpanId,
        arrived: Instant,
        now: Instant,
    ) -> Option<(u32, bool)> {
        let Carriers::Few(few) = self.live.carriers(trace, arrived, now) else { return None };
        let spans =
            |slot: &&u32| self.live.slot(**slot).whose.as_ref().is_some_and(|whose| whose.span_id == span_id);
        let own = few.as_slice().iter().find(spans).map(|slot| (*slot, true));
        own.or_else(|| Some((few.only()?, false)))
    }

    /// Learns from a call and its decision.
    pub(super) fn learn(
        &mut self,
        question: &Question<'_>,
        rules: &LineageRules,
        decision: &Decision,
        now: Instant,
    ) {
        let (parent, exact) = match decision {
            Decision::Parent { slot, method, .. } => {
                let exact = matches!(method, Method::Header | Method::Correlation | Method::Token);
                (Some(*slot), exact)
            }
            Decision::Unknown { .. } => (None, false),
        };
        self.learn_tokens(question, parent.filter(|_| exact), now);
        if let Some(parent) = parent {
            self.learn_forwarded(question, rules, parent);
        }
        let came = match parent.filter(|_| exact) {
            Some(parent) if self.live.slot(parent).open_at(question.arrived) => Came::Shown,
            Some(_) => Came::Late,
            None if self.untracked == 0 && self.nobody_could(question, now) => Came::Background,
            None => Came::Bare,
        };
        self.habits.came(question.destination, question.gathered.shape, came, now);
        if let Some(owner) = question.owner.filter(|owner| !owner.serves.is_empty()) {
            let process = u64::from(owner.process);
            if self.served.refresh(process, PROCESSES).is_none() {
                self.served.insert(process, (), PROCESSES);
            }
        }
    }

    /// Learns what a call says of its process, and of how many things the service does at once.
    pub(super) fn learn_process(&mut self, question: &Question<'_>, now: Instant) {
        let crowded = self.live.open_at(question.arrived, now).nth(1).is_some();
        if crowded {
            self.habits.crowded(now);
        }
        let Some(owner) = question.owner else { return };
        for accepted in owner.serves.iter().chain(&owner.elsewhere) {
            let Some(slot) = self.live.at(accepted.exchange) else { continue };
            if let Some(connection) = &mut self.live.slot_mut(slot).connection
                && (connection.local, connection.peer) == (accepted.local, accepted.peer)
            {
                connection.socket = accepted.socket;
            }
        }
        let mut busy_with = self.busy_with(owner);
        let (served, more) = (busy_with.next().copied(), busy_with.next().is_some());
        drop(busy_with);
        let Some(served) = served else { return };
        if more {
            self.habits.process(Process::ServesSeveral, now);
            return;
        }
        self.habits.watched(question.destination);
        if !owner.elsewhere.is_empty() {
            self.habits.process(Process::ServesOneOfSeveral, now);
        }
        if crowded && self.live.at(served.exchange).is_some_and(|slot| self.awaits(owner, slot)) {
            self.habits.process(Process::Overlaps, now);
        }
    }

    /// Whether no exchange was open that could be a parent by being there, or none in a process that serves at other times.
    fn nobody_could(&self, question: &Question<'_>, now: Instant) -> bool {
        let busy = question.owner.is_some_and(|owner| self.busy_with(owner).next().is_some());
        let idle = question.owner.is_some_and(|owner| self.idles(owner));
        idle || (!busy && self.live.recent_at(question.arrived, now).next().is_none())
    }

    pub(super) fn learn_tokens(&mut self, question: &Question<'_>, exact: Option<u32>, now: Instant) {
        for token in question.gathered.tokens.as_slice() {
            let sighting = match (exact, self.live.carriers(*token, question.arrived, now)) {
                (Some(parent), _) if self.live.carries(parent, *token) => Sighting::Of(self.live.id(parent)),
                (_, Carriers::Nobody) => Sighting::OfNobody,
                (_, Carriers::Few(_) | Carriers::Crowd) => Sighting::Shared,
            };
            self.sightings.saw(*token, sighting);
        }
    }

    fn learn_forwarded(&mut self, question: &Question<'_>, rules: &LineageRules, parent: u32) {
        let gathered = &question.gathered;
        for (value, source) in gathered.identities.with_sources().chain(gathered.tokens.with_sources()) {
            if source == Source::Elsewhere || !self.live.carries(parent, value) {
                continue;
            }
            let name = match source {
                Source::Elsewhere => continue,
                Source::Correlation => {
                    self.counts.correlation_forwarded += 1;
                    continue;
                }
                Source::Identity(at) => rules.identity_headers.get(usize::from(at)),
                Source::Header(at) => rules.token_headers.get(usize::from(at)),
            };
            let Some(name) = name else { continue };
            let forwarded = &mut self.counts.forwarded;
            if let Some((_, calls)) = forwarded.iter_mut().find(|(known, _)| known == name) {
                *calls += 1;
            } else if forwarded.len() < 64 {
                // Names come from the settings, so this bound is only met by reloading again and again.
                forwarded.push((name.clone(), 1));
            }
        }
    }

    /// Notes that a call waits for its answer, which an exchange has made, or the process that serves it.
    fn waits(&mut self, slot: u32, question: &Question<'_>) -> CallToken {
        self.live.slot_mut(slot).waiting += 1;
        let process = question.owner.map(|owner| owner.process);
        if let Some(process) = process {
            *self.awaiting.entry(process).or_default() += 1;
        }
        CallToken { exchange: self.live.id(slot), place: None, process }
    }

    /// Undoes [`State::waits`].
    pub(super) fn answered(&mut self, call: CallToken, now: Instant) {
        if let Some(process) = call.process
            && let Entry::Occupied(mut calls) = self.awaiting.entry(process)
        {
            *calls.get_mut() -= 1;
            if *calls.get() == 0 {
                calls.remove();
            }
        }
        let Some(slot) = self.live.at(call.exchange) else { return };
        let parent = self.live.slot_mut(slot);
        parent.waiting = parent.waiting.saturating_sub(1);
        if let Some(sent) = call.place.and_then(|place| parent.calls.get_mut(place)) {
            sent.answered_at = Some(now);
        }
    }

    /// Notes on the parent that it has sent a call.
    pub(super) fn sent(&mut self, parent: u32, question: &Question<'_>) -> CallToken {
        let token = self.waits(parent, question);
        let calls = &mut self.live.slot_mut(parent).calls;
        let place = calls.len();
        if place < MAX_CALLS {
            let (destination, sent_at) = (question.destination, question.arrived);
            calls.push(SentCall { destination, sent_at, answered_at: None });
        } else {
            self.counts.calls_not_kept += 1;
        }
        CallToken { place: Some(place), ..token }
    }

    /// The verdict on a decision that has been learnt from.
    pub(super) fn verdict(&mut self, question: &Question<'_>, decision: Decision, now: Instant) -> Verdict {
        match decision {
            Decision::Parent { slot, method, confidence, candidates } => {
                // A slot that was found among the live is one.
                let Some(whose) = self.live.slot(slot).whose.clone() else {
                    return Verdict::Unknown { candidates, links: Vec::new(), call: None };
                };
                self.counts.decided[method.place()] += 1;
                let call = self.sent(slot, question);
                Verdict::Parent { whose, method, confidence, candidates, call }
            }
            Decision::Unknown { candidates, likely, only } => {
                self.counts.unknown += 1;
                let links = self.links(likely, only, question, now);
                // A process that makes another call meanwhile does more than one thing at a time.
                let mut served = self.served(question);
                let only = served.next().filter(|_| served.next().is_none());
                drop(served);
                let call = only.map(|slot| self.waits(slot, question));
                Verdict::Unknown { candidates: candidates.max(links.len()), links, call }
            }
        }
    }

    /// The likely ones, then those that the process serves, then others that were open; each part the newest first.
    fn links(&self, likely: Few, only: bool, question: &Question<'_>, now: Instant) -> Vec<Whose> {
        let newest_first = |slots: &mut Vec<u32>| {
            slots.sort_by_key(|slot| std::cmp::Reverse(self.live.slot(*slot).opened_at));
        };
        let mut slots = likely.as_slice().to_vec();
        newest_first(&mut slots);
        if !only {
            let mut served: Vec<u32> = self.served(question).filter(|slot| !slots.contains(slot)).collect();
            newest_first(&mut served);
            slots.extend(served);
            slots.truncate(MAX_LINKS);
            let others = self.possible(question, now).filter(|slot| !slots.contains(slot));
            let others: Vec<u32> = others.take(MAX_LINKS - slots.len()).collect();
            slots.extend(others);
        }
        slots.iter().filter_map(|slot| self.live.slot(*slot).whose.clone()).take(MAX_LINKS).collect()
    }
}
