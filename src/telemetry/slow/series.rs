//! The latency of one place, compared with its own past.
//!
//! Time is cut into intervals; one that saw fewer than [`MIN_REQUESTS`] goes on until it has them. An interval that is
//! not slow becomes part of the past. One that is slow is *held back*, so that a shift does not become its own past
//! while it is being looked at: three in a row, and it is a shift; a healthy one before that, and they were noise, which
//! is past as well.
//!
//! Slow is a matter of size: a quantile lies above a threshold made from the quantiles of past intervals. Whether it is
//! chance is another question, and it is asked of the requests: how many more of them lie above the threshold than used
//! to. Ten requests that happen to be slow are not a shift, and a hundred are not either if as many always were.

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use super::breakdown::{Breakdown, CONNECT, FIXED, MAX_DEPENDENCIES, OTHERS, OWN, Parts, TRACECAR, TRANSFER};
use super::histogram::Histogram;
use super::past::{INTERVALS, Past, Values};
use super::places::Place;
use super::shift::{End, Part, PartKind, Shift, Stage, severity};
use super::surprise::surprise;
use crate::exchange::{Record, Side};
use crate::telemetry::failures::Severity;

/// An interval. Three of them, and one that had begun, are 40 s; and 8 s are never three.
pub const INTERVAL: Duration = Duration::from_secs(10);

/// Requests of an interval that is looked at.
const MIN_REQUESTS: f64 = 10.0;

/// The quantiles that are compared.
const QUANTILES: [f64; 2] = [0.5, 0.9];

/// Share of the past's requests that is kept with each interval that joins them.
const KEPT: f32 = 1.0 - 1.0 / INTERVALS as f32;

/// Intervals in a row that make a shift, or its end.
const IN_A_ROW: usize = 3;

/// Slow intervals after which it is noise if it still may be chance.
const MAX_HELD: usize = 18;

/// Share of a shift's requests that is kept with each of its intervals: what it says is of about the latest minute.
const KEPT_OF_SHIFT: f32 = 0.8;

/// How often as many requests as before have to lie above the threshold. A tenth of all is few enough to come and go by
/// itself where a service has a fast and a slow kind of request, and so more is asked of it than of the half.
const GROWTH: [f64; 2] = [1.5, 2.0];

/// Nats; see [`surprise`]. Fewer than one in 10⁷ by chance.
const SURPRISE: f64 = 16.0;

/// After that long it is how things are.
const LASTING: Duration = Duration::from_secs(30 * 60);

/// Intervals without a request after which a shift is over, and a place forgotten.
const SILENT: u32 = 30;
const FORGOTTEN: u32 = 360;

/// Latencies, and where the time went.
#[derive(Clone, Debug, Default)]
pub struct Level {
    latency: Histogram,
    /// Of all requests together.
    seconds: f64,
    parts: Parts,
}

impl Level {
    fn fold(&mut self, kept: f32, other: &Level) {
        self.latency.fold(kept, &other.latency);
        let kept = f64::from(kept);
        self.seconds = self.seconds * kept + other.seconds;
        for (part, new) in self.parts.iter_mut().zip(&other.parts) {
            *part = *part * kept + new;
        }
    }

    fn mean_ms(&self, seconds: f64) -> f64 {
        seconds * 1e3 / self.latency.total().max(1.0)
    }
}

/// The latency of one place.
#[derive(Debug, Default)]
pub struct Series {
    /// Destinations in the order of their parts.
    names: Vec<Arc<str>>,
    current: Level,
    /// Since when the current interval runs.
    opened: Option<(Instant, SystemTime)>,
    /// Exchanges since the series was last looked at.
    fresh: u32,
    /// How often in a row there were none.
    silent: u32,
    /// Quantiles of the past intervals, in seconds.
    past: Past,
    /// Requests of the past.
    before: Level,
    /// Quantiles of the intervals that are held back.
    held: Vec<Values>,
    /// Since when there are any.
    held_since: Option<(Instant, SystemTime)>,
    /// Requests of the held intervals; those of the shift when there is one.
    suspect: Level,
    /// Intervals in a row that were slow, for each quantile.
    slow: [usize; 2],
    shift: Option<Ongoing>,
    latest: Option<Latest>,
}

/// A shift that goes on.
#[derive(Clone, Copy, Debug)]
struct Ongoing {
    /// Which of [`QUANTILES`].
    quantile: usize,
    /// In seconds; fixed while the shift lasts.
    threshold: f64,
    before: f64,
    began: (Instant, SystemTime),
    severity: Severity,
    requests: f64,
    /// Intervals in a row that were not slow.
    back: usize,
    /// When the first of those began.
    back_since: SystemTime,
}

/// What the page shows of the latest interval.
#[derive(Clone, Copy, Debug)]
pub struct Latest {
    /// Milliseconds.
    pub p50_ms: f64,
    /// Milliseconds.
    pub p90_ms: f64,
    /// Requests.
    pub per_second: f64,
}

impl Series {
    /// Counts one exchange.
    pub fn add(&mut self, record: &Record, calls: &[Arc<Record>], breakdown: &mut Breakdown) {
        let parts = &mut self.current.parts;
        if breakdown.add(record, calls, &mut self.names, parts).is_none() {
            return;
        }
        self.current.latency.add(record.timings.total);
        self.current.seconds += record.timings.total.as_secs_f64();
        self.fresh += 1;
    }

    /// Looks at the interval that is over, if it has seen enough. Returns what is new about a shift.
    pub fn close(&mut self, place: &Place, now: Instant, wall: SystemTime) -> Option<Shift> {
        self.silent = if self.fresh == 0 { self.silent.saturating_add(1) } else { 0 };
        self.fresh = 0;
        let before = (now.checked_sub(INTERVAL).unwrap_or(now), wall.checked_sub(INTERVAL).unwrap_or(wall));
        let opened = *self.opened.get_or_insert(before);
        if self.current.latency.total() < MIN_REQUESTS {
            if self.current.latency.total() == 0.0 {
                self.opened = Some((now, wall));
            }
            let silent = self.shift.is_some() && self.silent >= SILENT;
            return if silent { self.end(place, End::NoTraffic, wall) } else { None };
        }
        let values = QUANTILES.map(|quantile| self.current.latency.quantile(quantile));
        let seconds = now.saturating_duration_since(opened.0).max(Duration::from_secs(1)).as_secs_f64();
        self.latest = Some(Latest {
            p50_ms: values[0] * 1e3,
            p90_ms: values[1] * 1e3,
            per_second: self.current.latency.total() / seconds,
        });
        let news = match self.shift {
            Some(shift) => self.follow(shift, values, opened, (now, wall), place),
            None => self.judge(values, opened, now, place),
        };
        self.current = Level::default();
        self.opened = Some((now, wall));
        news
    }

    /// Looks at an interval while there is no shift.
    fn judge(
        &mut self,
        values: [f64; 2],
        opened: (Instant, SystemTime),
        now: Instant,
        place: &Place,
    ) -> Option<Shift> {
        let usual = self.past.usual();
        let Some(usual) = usual.filter(|usual| values.iter().zip(usual).any(|(v, u)| *v > u.threshold))
        else {
            self.release();
            self.learn(values);
            return None;
        };
        for (quantile, row) in self.slow.iter_mut().enumerate() {
            *row = if values[quantile] > usual[quantile].threshold { *row + 1 } else { 0 };
        }
        self.suspect.fold(1.0, &self.current);
        self.held.push(values.map(|value| value as f32));
        let began = *self.held_since.get_or_insert(opened);
        let found = (0..QUANTILES.len()).find(|quantile| {
            self.slow[*quantile] >= IN_A_ROW && self.is_no_chance(*quantile, usual[*quantile].threshold)
        });
        let Some(quantile) = found else {
            if self.held.len() >= MAX_HELD {
                self.release();
            }
            return None;
        };
        let before = usual[quantile].median;
        let factor = self.suspect.latency.quantile(QUANTILES[quantile]) / before.max(1e-6);
        self.shift = Some(Ongoing {
            quantile,
            threshold: usual[quantile].threshold,
            before,
            began,
            severity: severity(factor, now.saturating_duration_since(began.0)),
            requests: self.suspect.latency.total(),
            back: 0,
            back_since: opened.1,
        });
        self.shift(place)
    }

    /// Looks at an interval of a shift.
    fn follow(
        &mut self,
        mut shift: Ongoing,
        values: [f64; 2],
        opened: (Instant, SystemTime),
        (now, wall): (Instant, SystemTime),
        place: &Place,
    ) -> Option<Shift> {
        shift.requests += self.current.latency.total();
        if values[shift.quantile] <= shift.threshold {
            if shift.back == 0 {
                shift.back_since = opened.1;
            }
            shift.back += 1;
            self.shift = Some(shift);
            let over = shift.back >= IN_A_ROW;
            return if over { self.end(place, End::Recovered, shift.back_since) } else { None };
        }
        shift.back = 0;
        self.suspect.fold(KEPT_OF_SHIFT, &self.current);
        let lasted = now.saturating_duration_since(shift.began.0);
        let factor = self.suspect.latency.quantile(QUANTILES[shift.quantile]) / shift.before.max(1e-6);
        let was = shift.severity;
        shift.severity = was.max(severity(factor, lasted));
        self.shift = Some(shift);
        if lasted >= LASTING {
            let ended = self.end(place, End::Lasting, wall);
            self.past = Past::default();
            self.before = Level::default();
            return ended;
        }
        if shift.severity == was {
            return None;
        }
        let worse = self.shift(place)?;
        Some(Shift { stage: Stage::Worse, ..worse })
    }

    fn end(&mut self, place: &Place, end: End, at: SystemTime) -> Option<Shift> {
        let ended = self.shift(place)?;
        self.shift = None;
        self.held.clear();
        self.held_since = None;
        self.suspect = Level::default();
        self.slow = [0; 2];
        Some(Shift { ended_at: Some(at), stage: Stage::Ended(end), ..ended })
    }

    /// What was held back was noise.
    fn release(&mut self) {
        if self.held.is_empty() {
            return;
        }
        self.before.fold(KEPT.powi(self.held.len() as i32), &self.suspect);
        for values in std::mem::take(&mut self.held) {
            self.past.add(values);
        }
        self.held_since = None;
        self.suspect = Level::default();
        self.slow = [0; 2];
    }

    /// The current interval is like those before.
    fn learn(&mut self, values: [f64; 2]) {
        self.before.fold(KEPT, &self.current);
        self.past.add(values.map(|value| value as f32));
        if self.names.len() >= MAX_DEPENDENCIES && self.before.parts[OTHERS] > 0.0 {
            self.forget_unused();
        }
    }

    /// Makes room where a destination is not called any more: addresses of instances come and go.
    fn forget_unused(&mut self) {
        let least = self.before.seconds * 1e-4;
        for number in (0..self.names.len()).rev() {
            let part = FIXED + number;
            if self.before.parts[part] >= least || self.current.parts[part] > 0.0 {
                continue;
            }
            self.names.remove(number);
            for level in [&mut self.current, &mut self.before, &mut self.suspect] {
                level.parts[OTHERS] += level.parts[part];
                level.parts.copy_within(part + 1.., part);
                *level.parts.last_mut().expect("there are parts") = 0.0;
            }
        }
    }

    /// Whether so many requests lie above the threshold that it cannot well be chance.
    fn is_no_chance(&self, quantile: usize, threshold: f64) -> bool {
        let (now, before) = (&self.suspect.latency, &self.before.latency);
        let (hits, hits_before) = (now.above(threshold), before.above(threshold));
        let share = hits / now.total();
        let share_before = hits_before / before.total();
        share >= 1.0 - QUANTILES[quantile]
            && share >= share_before * GROWTH[quantile]
            && surprise(hits, now.total(), hits_before, before.total()) >= SURPRISE
    }

    /// The shift that goes on, if there is one; without what may be behind it.
    pub fn shift(&self, place: &Place) -> Option<Shift> {
        let shift = self.shift.as_ref()?;
        Some(Shift {
            side: place.side,
            place: place.to_string(),
            quantile: (QUANTILES[shift.quantile] * 100.0) as u8,
            before_ms: shift.before * 1e3,
            after_ms: self.suspect.latency.quantile(QUANTILES[shift.quantile]) * 1e3,
            severity: shift.severity,
            began_at: shift.began.1,
            ended_at: None,
            stage: Stage::Began,
            requests: shift.requests as u64,
            parts: self.parts(place, &self.suspect),
            grown_ms: self.suspect.mean_ms(self.suspect.seconds) - self.before.mean_ms(self.before.seconds),
            likely: Vec::new(),
        })
    }

    /// The parts of the past and of `now`, what grew most first; those that are nothing are left out.
    fn parts(&self, place: &Place, now: &Level) -> Vec<Part> {
        let own = match place.side {
            Side::Inbound => ("service".into(), PartKind::Service),
            Side::Outbound => (place.name.clone(), PartKind::Dependency),
        };
        let fixed = |number: usize| -> (Arc<str>, PartKind) {
            match number {
                TRACECAR => ("tracecar".into(), PartKind::Tracecar),
                CONNECT => ("connect".into(), PartKind::Connect),
                OWN => own.clone(),
                TRANSFER => ("transfer".into(), PartKind::Transfer),
                _ => ("other destinations".into(), PartKind::Dependency),
            }
        };
        let names = self.names.iter().map(|name| (name.clone(), PartKind::Dependency));
        let mut parts: Vec<Part> = (0..FIXED)
            .map(fixed)
            .chain(names)
            .enumerate()
            .map(|(number, (name, kind))| Part {
                name,
                kind,
                before_ms: self.before.mean_ms(self.before.parts[number]),
                after_ms: now.mean_ms(now.parts[number]),
            })
            .filter(|part| part.before_ms > 0.0 || part.after_ms > 0.0)
            .collect();
        parts.sort_by(|a, b| b.delta_ms().total_cmp(&a.delta_ms()));
        parts
    }

    /// The parts of a place that is not slow, in milliseconds: those of the past.
    pub fn usual_parts(&self, place: &Place) -> Vec<Part> {
        self.parts(place, if self.shift.is_some() { &self.suspect } else { &self.before })
    }

    /// p50 and p90 of the past in milliseconds; `None` while there is too little of it.
    pub fn usual_ms(&self) -> Option<[f64; 2]> {
        self.past.usual().map(|usual| usual.map(|usual| usual.median * 1e3))
    }

    /// The latest interval; `None` where nobody has asked lately.
    pub fn latest(&self) -> Option<Latest> {
        self.latest.filter(|_| self.silent == 0)
    }

    /// Whether it is slow now.
    pub fn is_slow(&self) -> bool {
        self.shift.is_some()
    }

    /// Whether nobody has asked for so long that the past says nothing any more.
    pub fn is_forgotten(&self) -> bool {
        self.silent >= FORGOTTEN
    }
}
