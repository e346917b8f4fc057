//! Places that fail more often than they used to.
//!
//! Each place counts its exchanges and failures in intervals of 10 s. The last minute is compared with what was before
//! it, up to an hour that fades. A jump is far above in every sense: at least five failures, three times the share and two
//! percentage points more, in two intervals at least, and more than chance explains (`surprise`). Its intervals do not
//! become the past, so that it does not hide itself.

use std::collections::VecDeque;
use std::time::{Duration, SystemTime};

use serde_json::{Value, json};

use crate::exchange::Side;
use crate::telemetry::slow::places::{Place, cut};
use crate::telemetry::slow::surprise::surprise;
use crate::telemetry::words::rfc3339;

/// How often the counts are looked at.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// Intervals of the recent minute.
const RECENT: usize = 6;

/// Intervals of which at least this many have to be bad.
const MIN_INTERVALS: usize = 2;

/// Share of the past that is kept with each interval: an hour ago counts a third.
const KEPT: f64 = 359.0 / 360.0;

/// What has to be known of the past before anything is compared with it.
const MIN_PAST_INTERVALS: u32 = 6;
const MIN_PAST_REQUESTS: f64 = 30.0;

/// What makes a jump; all of these.
const MIN_FAILURES: f64 = 5.0;
const TIMES: f64 = 3.0;
const POINTS: f64 = 0.02;
/// Nats; see [`surprise`]. Fewer than one in 10⁷ by chance.
const SURPRISE: f64 = 16.0;

/// Intervals without an exchange after which a jump is over.
const SILENT: u32 = 30;

/// Intervals after which it is how things are.
const LASTING: u32 = 360;

/// Intervals without an exchange after which a place is forgotten.
const FORGOTTEN: u32 = 360;

/// Groups that are counted during a jump, and bytes of their titles.
const MAX_GROUPS: usize = 16;
const MAX_TITLE: usize = 160;

/// A place that fails more often than it used to.
#[derive(Clone, Debug)]
pub struct Jump {
    /// Requests of a route, or calls to a destination.
    pub side: Side,
    /// `GET /orders/{id}`; of calls the destination: `stock:8080`.
    pub place: String,
    /// When the first bad interval began, to 10 s.
    pub began_at: SystemTime,
    /// When it was seen to be over; `None` while it goes on.
    pub ended_at: Option<SystemTime>,
    /// Why it is over.
    pub end: Option<End>,
    /// Share of failures before, from 0 to 1.
    pub share_before: f64,
    /// Share of failures from its beginning on, without the good minute at its end; from 0 to 1.
    pub share_after: f64,
    /// Exchanges that `share_after` is of.
    pub requests: u64,
    /// Failures among them.
    pub failures: u64,
    /// What failed during it, most failures first.
    pub groups: Vec<Culprit>,
}

/// A group of failures during a jump.
#[derive(Clone, Debug)]
pub struct Culprit {
    /// The group's id on the page.
    pub id: u64,
    /// Its title when it was first seen in this jump.
    pub title: String,
    /// Failures of it during the jump.
    pub count: u64,
}

/// Why a jump is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// For a minute it failed about as seldom as before.
    Recovered,
    /// It has been like this for an hour, and is compared with that from now on.
    Lasting,
    /// Nobody asked for five minutes: whether it would fail, nobody knows.
    NoTraffic,
}

impl End {
    /// The word on pages and events.
    pub fn as_str(self) -> &'static str {
        match self {
            End::Recovered => "recovered",
            End::Lasting => "lasting",
            End::NoTraffic => "no_traffic",
        }
    }
}

impl Jump {
    fn of(self, counts: Counts) -> Self {
        let (requests, failures) = (counts.all as u64, counts.failed as u64);
        Self { share_after: counts.share(), requests, failures, ..self }
    }

    /// The jump as the page has it.
    pub fn json(&self) -> Value {
        let group = |culprit: &Culprit| json!({ "id": format!("{:016x}", culprit.id), "title": culprit.title, "count": culprit.count });
        json!({
            "side": self.side.as_str(),
            "place": self.place,
            "began_at": rfc3339(self.began_at, 3),
            "ended_at": self.ended_at.map(|at| rfc3339(at, 3)),
            "end": self.end.map(End::as_str),
            "failed_share_before": rounded(self.share_before),
            "failed_share_after": rounded(self.share_after),
            "requests": self.requests,
            "failures": self.failures,
            "groups": self.groups.iter().map(group).collect::<Vec<_>>(),
        })
    }
}

/// Exchanges, and how many of them failed.
#[derive(Clone, Copy, Debug, Default)]
struct Counts {
    all: f64,
    failed: f64,
}

impl Counts {
    fn share(self) -> f64 {
        if self.all > 0.0 { self.failed / self.all } else { 0.0 }
    }

    fn add(&mut self, other: Counts) {
        self.all += other.all;
        self.failed += other.failed;
    }

    fn sum<'c>(counts: impl Iterator<Item = &'c Counts>) -> Self {
        counts.fold(Self::default(), |mut sum, counts| {
            sum.add(*counts);
            sum
        })
    }
}

/// How often one place fails.
#[derive(Debug, Default)]
pub struct Rate {
    current: Counts,
    recent: VecDeque<Counts>,
    before: Counts,
    /// Intervals of the past in which there was any traffic.
    known: u32,
    /// Intervals in a row without any.
    silent: u32,
    jump: Option<Ongoing>,
}

/// A jump that goes on.
#[derive(Debug)]
struct Ongoing {
    began_at: SystemTime,
    intervals: u32,
    /// Without the recent minute.
    counts: Counts,
    groups: Vec<Culprit>,
}

impl Rate {
    /// Counts one exchange.
    pub fn count(&mut self, failed: bool) {
        self.current.all += 1.0;
        self.current.failed += f64::from(u8::from(failed));
    }

    /// Ends the interval. Returns a jump that began or ended with it; one that began has no groups yet.
    pub fn close(&mut self, place: &Place, now: SystemTime) -> Option<Jump> {
        let counts = std::mem::take(&mut self.current);
        self.silent = if counts.all == 0.0 { self.silent.saturating_add(1) } else { 0 };
        if self.recent.len() >= RECENT
            && let Some(oldest) = self.recent.pop_front()
        {
            match &mut self.jump {
                Some(jump) => jump.counts.add(oldest),
                None => self.learn(oldest),
            }
        }
        self.recent.push_back(counts);
        if self.jump.is_some() { self.follow(place, now) } else { self.judge(place, now) }
    }

    fn learn(&mut self, counts: Counts) {
        if counts.all == 0.0 {
            return;
        }
        self.known = self.known.saturating_add(1);
        self.before = Counts { all: self.before.all * KEPT, failed: self.before.failed * KEPT };
        self.before.add(counts);
    }

    fn judge(&mut self, place: &Place, now: SystemTime) -> Option<Jump> {
        if self.known < MIN_PAST_INTERVALS || self.before.all < MIN_PAST_REQUESTS {
            return None;
        }
        if ![MIN_INTERVALS, RECENT].into_iter().any(|intervals| self.is_far_above(intervals)) {
            return None;
        }
        // It began with the first of the bad intervals. What was before is past.
        let is_bad = |counts: &&Counts| counts.all == 0.0 || self.is_bad(counts);
        let bad = self.recent.iter().rev().take_while(is_bad).count().max(MIN_INTERVALS);
        while self.recent.len() > bad
            && let Some(fine) = self.recent.pop_front()
        {
            self.learn(fine);
        }
        let began_at = now.checked_sub(INTERVAL * self.recent.len() as u32).unwrap_or(now);
        self.jump = Some(Ongoing { began_at, intervals: 0, counts: Counts::default(), groups: Vec::new() });
        self.jump(place)
    }

    /// Whether the latest `intervals` are what a jump is.
    fn is_far_above(&self, intervals: usize) -> bool {
        let latest = || self.recent.iter().rev().take(intervals);
        let Counts { all, failed } = Counts::sum(latest());
        let share = failed / all.max(1.0);
        failed >= MIN_FAILURES
            && share >= TIMES * self.before.share()
            && share >= POINTS + self.before.share()
            // One outburst is not a jump: its failures are not independent of each other.
            && latest().filter(|counts| self.is_bad(counts)).count() >= MIN_INTERVALS
            && surprise(failed, all, self.before.failed, self.before.all) >= SURPRISE
    }

    /// Whether an interval may be part of a jump.
    fn is_bad(&self, counts: &Counts) -> bool {
        counts.failed > 0.0 && counts.share() > self.calm()
    }

    /// The share up to which a minute is about as good as the past.
    fn calm(&self) -> f64 {
        let before = self.before.share();
        (before * 1.5).max(before + POINTS / 2.0)
    }

    fn follow(&mut self, place: &Place, now: SystemTime) -> Option<Jump> {
        let jump = self.jump.as_mut()?;
        jump.intervals += 1;
        let lasting = jump.intervals >= LASTING;
        let minute = Counts::sum(self.recent.iter());
        let calm = self.recent.len() >= RECENT && minute.all > 0.0 && minute.share() <= self.calm();
        let end = match () {
            () if self.silent >= SILENT => End::NoTraffic,
            () if calm => End::Recovered,
            () if lasting => End::Lasting,
            () => return None,
        };
        let ended = self.jump(place)?;
        let Ongoing { counts, .. } = self.jump.take()?;
        let ended = Jump { ended_at: Some(now), end: Some(end), ..ended };
        match end {
            // The minute that ended it is not part of it.
            End::Recovered => Some(ended.of(counts)),
            End::NoTraffic => Some(ended),
            End::Lasting => {
                self.before = counts;
                Some(ended)
            }
        }
    }

    /// Counts a failure of the group during a jump.
    pub fn blame(&mut self, id: u64, count: u64, title: impl FnOnce() -> String) {
        let Some(jump) = &mut self.jump else { return };
        if let Some(culprit) = jump.groups.iter_mut().find(|culprit| culprit.id == id) {
            culprit.count += count;
        } else if jump.groups.len() < MAX_GROUPS {
            jump.groups.push(Culprit { id, title: cut(&title(), MAX_TITLE).to_owned(), count });
        }
    }

    /// The jump that goes on, if there is one.
    pub fn jump(&self, place: &Place) -> Option<Jump> {
        let jump = self.jump.as_ref()?;
        let mut counts = jump.counts;
        counts.add(Counts::sum(self.recent.iter()));
        let mut groups = jump.groups.clone();
        groups.sort_by_key(|culprit| std::cmp::Reverse(culprit.count));
        let jump = Jump {
            side: place.side,
            place: place.to_string(),
            began_at: jump.began_at,
            ended_at: None,
            end: None,
            share_before: self.before.share(),
            share_after: 0.0,
            requests: 0,
            failures: 0,
            groups,
        };
        Some(jump.of(counts))
    }

    /// The place as the page has it.
    pub fn json(&self, place: &Place) -> Value {
        let minute = Counts::sum(self.recent.iter());
        let known = self.before.all >= MIN_PAST_REQUESTS;
        json!({
            "side": place.side.as_str(),
            "place": place.to_string(),
            "jump": self.jump.is_some(),
            "requests_last_minute": minute.all as u64,
            "failures_last_minute": minute.failed as u64,
            "failed_share_last_minute": (minute.all > 0.0).then(|| rounded(minute.share())),
            "failed_share_before": known.then(|| rounded(self.before.share())),
        })
    }

    /// Failures of the recent minute, for sorting.
    pub fn recent_failures(&self) -> f64 {
        Counts::sum(self.recent.iter()).failed
    }

    /// Whether nobody has asked for so long that the past says nothing any more.
    pub fn is_forgotten(&self) -> bool {
        self.silent >= FORGOTTEN
    }
}

/// Hundredths of a percent.
fn rounded(share: f64) -> f64 {
    (share * 1e4).round() / 1e4
}
