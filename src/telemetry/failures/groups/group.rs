//! Failures of one kind: how many, since when, how many lately, and where to look.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::exchange::{Identity, Record, Side};
use crate::telemetry::failures::{Category, Failure, Severity};
use crate::telemetry::slow::places::{Place, cut, destination};
use crate::telemetry::words::rfc3339;

/// Bytes of each text that is kept. With all else a group takes at most 3 KB.
const MAX_TEXT: usize = 512;

/// Seconds of a slot of [`Lately`], and how many there are: five minutes.
const SLOT: u64 = 10;
const SLOTS: usize = 30;

/// What tells groups apart, without copying it: that of [`Failure::fingerprint`] but for the service, which is the same for
/// all. The side is part of it: the same place can fail for those who ask and for us.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Fingerprint<'f> {
    side: Side,
    status: Option<u16>,
    place: &'f str,
    class: &'f str,
    pattern: &'f str,
}

impl<'f> Fingerprint<'f> {
    pub fn of(failure: &'f Failure) -> Self {
        Self {
            side: failure.record.side,
            status: failure.record.status,
            place: cut(&failure.place, MAX_TEXT),
            class: cut(&failure.class, MAX_TEXT),
            pattern: cut(&failure.pattern, MAX_TEXT),
        }
    }

    /// The same for the same failure in every run of a build, so that a page can be linked to.
    pub fn hash(&self) -> u64 {
        let mut hasher = DefaultHasher::new();
        Hash::hash(self, &mut hasher);
        hasher.finish()
    }
}

/// Failures of one kind.
#[derive(Debug)]
pub struct Group {
    /// Names it on pages; another group never has the same while this one is known.
    pub id: u64,
    /// Where its exchanges are counted; `None` where no request could be read.
    pub counted_at: Option<Place>,
    /// The number of the latest failure, of all groups: who has the lowest was not seen for the longest time.
    pub latest: u64,
    /// Failures.
    pub count: u64,
    /// How bad the latest is.
    pub severity: Severity,
    side: Side,
    status: Option<u16>,
    place: String,
    class: String,
    pattern: String,
    message: String,
    /// `ValueError: invalid literal`, of the latest, for people.
    pub title: String,
    outcome: &'static str,
    fault: Option<&'static str>,
    category: Category,
    dependency: Option<Arc<str>>,
    first_seen: SystemTime,
    last_seen: SystemTime,
    lately: Lately,
    examples: Examples,
}

impl Group {
    pub fn new(id: u64, failure: &Failure, now: SystemTime) -> Self {
        let of = Fingerprint::of(failure);
        Self {
            id,
            counted_at: None,
            latest: 0,
            count: 0,
            severity: failure.severity,
            side: of.side,
            status: of.status,
            place: of.place.to_owned(),
            class: of.class.to_owned(),
            pattern: of.pattern.to_owned(),
            message: String::new(),
            title: String::new(),
            outcome: "",
            fault: None,
            category: failure.category,
            dependency: None,
            first_seen: now,
            last_seen: now,
            lately: Lately::default(),
            examples: Examples::default(),
        }
    }

    pub fn fingerprint(&self) -> Fingerprint<'_> {
        let Self { side, status, place, class, pattern, .. } = self;
        Fingerprint { side: *side, status: *status, place, class, pattern }
    }

    /// Counts one more.
    pub fn count(&mut self, failure: &Failure, number: u64, now: SystemTime) {
        let record = &failure.record;
        self.latest = number;
        self.count += 1;
        self.last_seen = self.last_seen.max(now);
        self.lately.count(now);
        self.severity = failure.severity;
        self.category = failure.category;
        self.outcome = record.outcome.as_str();
        self.fault = record.fault().map(|fault| fault.as_str());
        self.message.clear();
        self.message.push_str(cut(&failure.message, MAX_TEXT));
        let (what, message) = failure.title();
        self.title.clear();
        self.title.extend([cut(what, MAX_TEXT), ": ", cut(message, MAX_TEXT)]);
        let dependency = failure.dependency().map(destination);
        if self.dependency.as_deref() != dependency {
            self.dependency = dependency.map(Into::into);
        }
        self.examples.add(record, now);
    }

    /// Failures since `since`, which is at most five minutes ago; to ten seconds, so that none is missing.
    pub fn since(&self, since: SystemTime, now: SystemTime) -> u64 {
        self.lately.sum(now, slot(now).saturating_sub(slot(since)) as usize + 1)
    }

    /// Failures per minute over the last five minutes, or since the first one where that is later; over one minute at
    /// least, so that one failure is not sixty a minute.
    pub fn per_minute(&self, now: SystemTime) -> f64 {
        let known = now.duration_since(self.first_seen).unwrap_or_default().as_secs_f64();
        let seconds = known.clamp(60.0, (SLOT * SLOTS as u64) as f64);
        self.lately.sum(now, SLOTS) as f64 / seconds * 60.0
    }

    pub fn json(&self, now: SystemTime) -> Value {
        json!({
            "id": format!("{:016x}", self.id),
            "title": self.title,
            "place": self.place,
            "side": self.side.as_str(),
            "class": self.class,
            "message": self.message,
            "pattern": self.pattern,
            "status": self.status,
            "outcome": self.outcome,
            "fault": self.fault,
            "category": self.category.as_str(),
            "dependency": self.dependency.as_deref(),
            "severity": self.severity.as_str(),
            "count": self.count,
            "per_minute": (self.per_minute(now) * 100.0).round() / 100.0,
            "first_seen": rfc3339(self.first_seen, 3),
            "last_seen": rfc3339(self.last_seen, 3),
            "examples": self.examples.json(),
        })
    }
}

/// Counts of the last five minutes.
#[derive(Debug, Default)]
struct Lately {
    counts: [u32; SLOTS],
    /// Slots since 1970 up to the latest one that counted.
    latest: u64,
}

impl Lately {
    fn count(&mut self, now: SystemTime) {
        // A clock that was set back goes on in the latest slot.
        let slot = slot(now).max(self.latest);
        let passed = (slot - self.latest).min(SLOTS as u64);
        for gone in 0..passed {
            self.counts[(slot - gone) as usize % SLOTS] = 0;
        }
        self.latest = slot;
        let count = &mut self.counts[slot as usize % SLOTS];
        *count = count.saturating_add(1);
    }

    /// Those of the last `slots` slots.
    fn sum(&self, now: SystemTime, slots: usize) -> u64 {
        let now = slot(now).max(self.latest);
        let from = (now + 1)
            .saturating_sub(slots.min(SLOTS) as u64)
            .max((self.latest + 1).saturating_sub(SLOTS as u64));
        (from..=self.latest).map(|slot| u64::from(self.counts[slot as usize % SLOTS])).sum()
    }
}

fn slot(now: SystemTime) -> u64 {
    now.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO).as_secs() / SLOT
}

/// A span to look at.
#[derive(Clone, Copy, Debug)]
struct Example {
    identity: Identity,
    at: SystemTime,
}

/// Up to five: the first two, the latest two that were sampled, and the latest one. Where one in a hundred is sampled,
/// the latest three would be no help to anybody.
#[derive(Debug, Default)]
struct Examples {
    first: [Option<Example>; 2],
    sampled: [Option<Example>; 2],
    latest: Option<Example>,
}

impl Examples {
    fn add(&mut self, record: &Record, at: SystemTime) {
        let example = Some(Example { identity: record.identity, at });
        if let Some(free) = self.first.iter_mut().find(|first| first.is_none()) {
            *free = example;
            return;
        }
        self.latest = example;
        if record.identity.sampled() {
            self.sampled = [self.sampled[1], example];
        }
    }

    fn json(&self) -> Vec<Value> {
        let latest = self.latest.filter(|latest| !latest.identity.sampled());
        let examples = self.first.into_iter().chain(self.sampled).chain([latest]).flatten();
        let json = |Example { identity, at }: Example| {
            json!({
                "trace_id": identity.trace_id.to_string(),
                "span_id": identity.span_id.to_string(),
                "sampled": identity.sampled(),
                "at": rfc3339(at, 3),
            })
        };
        examples.map(json).collect()
    }
}
