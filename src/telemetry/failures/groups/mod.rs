//! Failures that belong together, for `/errors`, and places that fail more often than they used to.
//!
//! [`Groups`] sorts failures by their fingerprint, and compares each route, and each destination of calls, with its own
//! past ([`jumps`]). It is bounded: of more than 512 groups the one that was not seen for the longest time leaves, and what
//! left is counted and shown.
//!
//! A place with fewer than five failures a minute never jumps, however seldom it failed before; nor does one whose past
//! is shorter than a minute. Its failures are in their groups all the same.
//!
//! # The page
//!
//! Times are RFC 3339 in UTC, shares are from 0 to 1.
//!
//! | field | what it is |
//! |---|---|
//! | `since` | since when failures are counted |
//! | `failures` | all that were counted, those of groups that left among them |
//! | `groups[]` | the worst severity first, among equals the one with most failures lately |
//! | `jumps[]` | places that fail more often than they used to: those that do so now, then the last 50 that are over |
//! | `routes[]` | every place, most failures of the last minute first |
//! | `dropped` | `unread`: failures in no group, for there was no time to read them; `groups` that left for want of room, the `failures` in them and when the `latest_at` left; `overflowed`: exchanges that share the place `(others)` because there are too many places |
//!
//! Of a group:
//!
//! | field | what it is |
//! |---|---|
//! | `id` | the same for the same failure, also after a restart |
//! | `title`, `message`, `pattern`, `class` | what went wrong, of the latest failure: class and message; the message; the message without what changes; see [`Failure`] |
//! | `place`, `side` | where: `GET /orders/{id}`, `inbound` |
//! | `status`, `outcome`, `fault`, `category`, `severity` | of the latest failure; null where there is none |
//! | `dependency` | what failed, where the category is `dependency` and it is known |
//! | `count`, `per_minute` | failures so far; failures per minute over the last five minutes, or since the first one if that is later |
//! | `first_seen`, `last_seen` | when |
//! | `examples[]` | up to five: the first two, the latest two that were sampled, the latest one. Each with `trace_id`, `span_id`, `at`, and `sampled`: where that is false, no tracing backend has it |
//!
//! Of a jump: `side`, `place`, `began_at`, `ended_at` and `end` (`recovered`, `lasting`, `no_traffic`; null while it goes
//! on), `failed_share_before`, `failed_share_after`, `requests` and `failures` during it, and `groups[]` with `id`, `title` and
//! their `count` in it. Of a place: `side`, `place`, `jump`, `requests_last_minute`, `failures_last_minute`,
//! `failed_share_last_minute` (null without requests), `failed_share_before` (null without a past).

mod group;
pub mod jumps;

use std::collections::{HashMap, VecDeque};
use std::time::{Instant, SystemTime};

use serde_json::{Value, json};

use self::group::{Fingerprint, Group};
pub use self::jumps::Jump;
use self::jumps::{INTERVAL, Rate};
use super::Failure;
use crate::exchange::{Record, Side};
use crate::stats::{Kind, Row};
use crate::telemetry::slow::places::{Place, Places};
use crate::telemetry::words::rfc3339;

/// Groups that are known at a time; they take at most 1.5 MB.
const MAX_GROUPS: usize = 512;

/// Jumps that are over and still shown.
const MAX_ENDED: usize = 50;

/// Groups of failures, and how often each place fails. At most some 3 MB, if everything fails at once.
#[derive(Debug)]
pub struct Groups {
    since: SystemTime,
    groups: HashMap<u64, Group>,
    failures: u64,
    dropped: Dropped,
    routes: Places<Rate>,
    destinations: Places<Rate>,
    ended: VecDeque<Jump>,
    jumps: u64,
    next: Instant,
}

#[derive(Debug, Default)]
struct Dropped {
    groups: u64,
    failures: u64,
    latest_at: Option<SystemTime>,
}

impl Groups {
    /// Counts from now on.
    pub fn new(now: Instant, wall: SystemTime) -> Self {
        Self {
            since: wall,
            groups: HashMap::new(),
            failures: 0,
            dropped: Dropped::default(),
            routes: Places::new(Side::Inbound),
            destinations: Places::new(Side::Outbound),
            ended: VecDeque::new(),
            jumps: 0,
            next: now + INTERVAL,
        }
    }

    /// Sorts a failure into its group.
    pub fn failed(&mut self, failure: &Failure, now: SystemTime) {
        self.failures += 1;
        let id = self.id_of(failure, now);
        let Some(group) = self.groups.get_mut(&id) else { return };
        group.count(failure, self.failures, now);
        let places = match failure.record.side {
            Side::Inbound => &mut self.routes,
            Side::Outbound => &mut self.destinations,
        };
        let Some((place, rate)) = places.known(&failure.record) else { return };
        rate.blame(id, 1, || group.title.clone());
        if group.counted_at.as_ref() != Some(place) {
            group.counted_at = Some(place.clone());
        }
    }

    /// The id of its group, which exists then.
    fn id_of(&mut self, failure: &Failure, now: SystemTime) -> u64 {
        let fingerprint = Fingerprint::of(failure);
        let id = free_or_same(&self.groups, &fingerprint, fingerprint.hash());
        if self.groups.contains_key(&id) {
            return id;
        }
        if self.groups.len() >= MAX_GROUPS
            && let Some(oldest) = self.groups.values().min_by_key(|group| group.latest).map(|group| group.id)
            && let Some(left) = self.groups.remove(&oldest)
        {
            self.dropped.groups += 1;
            self.dropped.failures += left.count;
            self.dropped.latest_at = Some(now);
        }
        self.groups.insert(id, Group::new(id, failure, now));
        id
    }

    /// Counts a finished exchange. Requests that are excluded are recorded only where they fail, so they say nothing
    /// about how often that happens.
    pub fn finished(&mut self, record: &Record, failed: bool) {
        if record.excluded {
            return;
        }
        let places = match record.side {
            Side::Inbound => &mut self.routes,
            Side::Outbound => &mut self.destinations,
        };
        if let Some((_, rate)) = places.of(record) {
            rate.count(failed);
        }
    }

    /// To be called about once a second. Returns jumps that began or ended, each once.
    pub fn tick(&mut self, now: Instant, wall: SystemTime) -> Vec<Jump> {
        if now < self.next {
            return Vec::new();
        }
        // After a pause, as of a suspended machine, there is nothing to catch up with.
        self.next = (self.next + INTERVAL).max(now + INTERVAL / 2);
        let mut news = Vec::new();
        for (place, rate) in self.routes.iter_mut().chain(self.destinations.iter_mut()) {
            let Some(mut jump) = rate.close(place, wall) else { continue };
            if jump.ended_at.is_none() {
                self.jumps += 1;
                blame_known(&self.groups, place, rate, jump.began_at, wall);
                jump = rate.jump(place).unwrap_or(jump);
            } else {
                self.ended.truncate(MAX_ENDED - 1);
                self.ended.push_front(jump.clone());
            }
            news.push(jump);
        }
        self.routes.retain(|rate| !rate.is_forgotten());
        self.destinations.retain(|rate| !rate.is_forgotten());
        news
    }

    /// The page; see the module's documentation.
    pub fn page(&self, now: SystemTime) -> Value {
        let mut groups: Vec<(f64, &Group)> =
            self.groups.values().map(|group| (group.per_minute(now), group)).collect();
        groups.sort_by(|(rate_a, a), (rate_b, b)| {
            let by_severity = b.severity.cmp(&a.severity);
            by_severity.then(rate_b.total_cmp(rate_a)).then(b.latest.cmp(&a.latest))
        });
        let mut places: Vec<&(Place, Rate)> = self.routes.iter().chain(self.destinations.iter()).collect();
        places.sort_by(|(_, a), (_, b)| b.recent_failures().total_cmp(&a.recent_failures()));
        let going_on: Vec<Jump> = places.iter().filter_map(|(place, rate)| rate.jump(place)).collect();
        json!({
            "since": rfc3339(self.since, 3),
            "failures": self.failures,
            "groups": groups.iter().map(|(_, group)| group.json(now)).collect::<Vec<_>>(),
            "jumps": going_on.iter().chain(&self.ended).map(Jump::json).collect::<Vec<_>>(),
            "routes": places.iter().map(|(place, rate)| rate.json(place)).collect::<Vec<_>>(),
            "dropped": {
                "groups": self.dropped.groups,
                "failures": self.dropped.failures,
                "latest_at": self.dropped.latest_at.map(|at| rfc3339(at, 3)),
                "overflowed": self.routes.overflowed() + self.destinations.overflowed(),
            },
        })
    }

    /// The counts for the metrics page.
    pub fn rows(&self) -> Vec<Row> {
        let row = |name, help, kind, value| Row { name, help, kind, label: None, value };
        vec![
            row(
                "tracecar_error_rate_jumps",
                "Times that a route or destination began to fail more often than it used to.",
                Kind::Counter,
                self.jumps,
            ),
            row("tracecar_error_groups", "Groups of failures known.", Kind::Gauge, self.groups.len() as u64),
            row(
                "tracecar_error_groups_dropped",
                "Groups of failures that left the errors page for want of room.",
                Kind::Counter,
                self.dropped.groups,
            ),
        ]
    }
}

/// The first id from `id` on that is free, or that of the group with this fingerprint.
fn free_or_same(groups: &HashMap<u64, Group>, fingerprint: &Fingerprint<'_>, mut id: u64) -> u64 {
    while groups.get(&id).is_some_and(|group| group.fingerprint() != *fingerprint) {
        id = id.wrapping_add(1);
    }
    id
}

/// Counts what had failed at `place` before the jump was seen, since it began.
fn blame_known(
    groups: &HashMap<u64, Group>,
    place: &Place,
    rate: &mut Rate,
    began_at: SystemTime,
    now: SystemTime,
) {
    let mut known: Vec<(u64, &Group)> = groups
        .values()
        .filter(|group| group.counted_at.as_ref() == Some(place))
        .map(|group| (group.since(began_at, now), group))
        .filter(|(count, _)| *count > 0)
        .collect();
    known.sort_by_key(|(count, _)| std::cmp::Reverse(*count));
    for (count, group) in known {
        rate.blame(group.id, count, || group.title.clone());
    }
}

#[cfg(test)]
mod tests;
