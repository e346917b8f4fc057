//! Routes and calls that got slow, and where their time goes: slow is an error, too.
//!
//! [`Slow`] compares each route, and each destination of calls, with its own past. What takes longer than it used to, for
//! half a minute and by more than chance explains, is a [`Shift`]. It says what grew: the time in tracecar, connecting,
//! the service itself, a destination, the transfer. How it is found is told in `series`, and what is measured in
//! `breakdown`.
//!
//! What stays out: streams and tunnels, which last as long as somebody likes; excluded requests, of which only failures
//! are recorded; exchanges that were never sent on.
//!
//! # What it does not see
//!
//! * What gets slower bit by bit, over more than ten minutes: each step is past before the next one comes.
//! * A service that was slow before tracecar began.
//! * A share of requests below one in ten.
//! * That something comes back: what is slow for half a minute every few minutes is a new shift each time.
//! * The cause in a dependency whose calls do not come through tracecar: that is time of the service.
//!
//! # The page
//!
//! Times are RFC 3339 in UTC, shares are from 0 to 1, and durations are milliseconds. All parts are means per exchange.
//!
//! | field | what it is |
//! |---|---|
//! | `since` | since when it watches |
//! | `calls_without_parent_share` | share of the calls of about the last ten minutes of which nobody knows for which request they were made; their time is in `service` of whichever request it was |
//! | `now[]` | the shifts that go on, the worst first |
//! | `ended[]` | the last 50 that are over, the latest first |
//! | `routes[]`, `destinations[]` | every place, the busiest first |
//! | `overflowed` | exchanges that share the row `(others)` because there are too many places |
//!
//! Of a shift:
//!
//! | field | what it is |
//! |---|---|
//! | `side`, `place` | `inbound` and `GET /orders/{id}`, or `outbound` and the destination |
//! | `severity` | `warning`, or `error` from four times as long, or from twice as long after ten minutes |
//! | `quantile`, `before_ms`, `after_ms`, `factor` | what was compared: the past, and about the last minute of it |
//! | `cause`, `cause_kind` | the part that grew most, if that is at least half of `grown_ms`; else `several` and null. `service` is all that is no call known to belong to the request: the service computed, or waited for something that we do not see, or whose calls are nobody's (`likely`) |
//! | `likely[]` | destinations that may be what `service` waits for; see [`Shift::likely`] |
//! | `began_at`, `ended_at`, `end` | `recovered`, `lasting` (half an hour: it is the new past), `no_traffic`; null while it goes on |
//! | `requests` | exchanges since it began |
//! | `grown_ms`, `parts[]` | growth of the mean, and of each part: `name`, `kind`, `before_ms`, `after_ms`, `delta_ms` |
//!
//! Of a place: `place`, `slow`, `p50_ms` and `p90_ms` and `requests_per_second` of the latest ten seconds (null where nobody
//! asked, longer where it takes longer to see ten requests), `usual_p50_ms` and `usual_p90_ms` (null before there is a
//! past of six intervals), and `parts[]`, as above.

mod breakdown;
mod histogram;
mod past;
pub(super) mod places;
mod series;
mod shift;
pub(super) mod surprise;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use serde_json::{Value, json};

use self::breakdown::Breakdown;
use self::places::{Place, Places};
use self::series::{INTERVAL, Series};
use self::shift::rounded;
pub use self::shift::{End, Likely, Part, PartKind, Shift, Stage};
use super::words::rfc3339;
use crate::exchange::{Ancestry, Record, Side};
use crate::stats::{Kind, Row};

/// Shifts that are over and still shown.
const MAX_ENDED: usize = 50;

/// Shifts that began within that time of each other began at about the same time. They are found in intervals, which may
/// be longer on the side with fewer requests.
const SAME_TIME: Duration = Duration::from_secs(60);

/// Share of calls without a parent from which the service's own time may be theirs.
const UNATTRIBUTED: f64 = 0.05;

/// Share of the counted calls that is kept with each interval: they are of about the last ten minutes.
const KEPT: f64 = 59.0 / 60.0;

/// Watches how long requests and calls take. At most some 2.2 MB: 257 routes and as many destinations.
#[derive(Debug)]
pub struct Slow {
    since: SystemTime,
    routes: Places<Series>,
    destinations: Places<Destination>,
    breakdown: Breakdown,
    calls: Attributed,
    ended: VecDeque<Shift>,
    next: Instant,
    began: [u64; 2],
}

#[derive(Debug, Default)]
struct Destination {
    series: Series,
    calls: Attributed,
}

/// Calls, and those of which nobody knows for which request they were made.
#[derive(Clone, Copy, Debug, Default)]
struct Attributed {
    calls: f64,
    without_parent: f64,
}

impl Attributed {
    fn count(&mut self, known: bool) {
        self.calls += 1.0;
        self.without_parent += f64::from(u8::from(!known));
    }

    fn fade(&mut self) {
        self.calls *= KEPT;
        self.without_parent *= KEPT;
    }

    fn share(&self) -> f64 {
        if self.calls > 0.0 { self.without_parent / self.calls } else { 0.0 }
    }
}

impl Slow {
    /// Watches from now on.
    pub fn new(now: Instant, wall: SystemTime) -> Self {
        Self {
            since: wall,
            routes: Places::new(Side::Inbound),
            destinations: Places::new(Side::Outbound),
            breakdown: Breakdown::default(),
            calls: Attributed::default(),
            ended: VecDeque::new(),
            next: now + INTERVAL,
            began: [0; 2],
        }
    }

    /// Counts a finished request and the calls that were found to belong to it.
    pub fn finished(&mut self, record: &Record, calls: &[Arc<Record>]) {
        if !counts(record) {
            return;
        }
        if let Some((_, series)) = self.routes.of(record) {
            series.add(record, calls, &mut self.breakdown);
        }
    }

    /// Counts a finished call, whether or not anybody knows for which request it was made.
    pub fn called(&mut self, record: &Record) {
        if !counts(record) {
            return;
        }
        let known = record.identity.parent.is_some()
            && record.ancestry.is_none_or(|ancestry| ancestry.method != Ancestry::NONE);
        self.calls.count(known);
        if let Some((_, destination)) = self.destinations.of(record) {
            destination.calls.count(known);
            destination.series.add(record, &[], &mut self.breakdown);
        }
    }

    /// To be called about once a second. Returns shifts that were found, got worse or ended, each once.
    pub fn tick(&mut self, now: Instant, wall: SystemTime) -> Vec<Shift> {
        if now < self.next {
            return Vec::new();
        }
        // After a pause, as of a suspended machine, there is nothing to catch up with.
        self.next = (self.next + INTERVAL).max(now + INTERVAL / 2);
        let mut news = Vec::new();
        self.calls.fade();
        for (place, destination) in self.destinations.iter_mut() {
            destination.calls.fade();
            news.extend(destination.series.close(place, now, wall));
        }
        for (place, series) in self.routes.iter_mut() {
            news.extend(series.close(place, now, wall));
        }
        self.routes.retain(|series| !series.is_forgotten());
        self.destinations.retain(|destination| !destination.series.is_forgotten());
        for shift in &mut news {
            shift.likely = self.likely(shift);
            match shift.stage {
                Stage::Began => self.began[shift.side as usize] += 1,
                Stage::Worse => {}
                Stage::Ended(_) => {
                    self.ended.truncate(MAX_ENDED - 1);
                    self.ended.push_front(shift.clone());
                }
            }
        }
        news
    }

    /// What may be behind a shift of the service's own time: what else got slow at about the same time, if some of its
    /// calls may have been made for this route without anybody knowing.
    fn likely(&self, shift: &Shift) -> Vec<Likely> {
        if shift.cause().is_none_or(|part| part.kind != PartKind::Service) {
            return Vec::new();
        }
        let same_time = |own: &Shift| apart(own.began_at, shift.began_at) <= SAME_TIME;
        let over = |place: &Place| {
            let place = place.to_string();
            let mut ended = self.ended.iter().filter(|ended| ended.side == Side::Outbound);
            ended.find(|ended| ended.place == place && same_time(ended)).cloned()
        };
        let mut likely: Vec<Likely> = self
            .destinations
            .iter()
            .filter(|(_, destination)| destination.calls.share() > UNATTRIBUTED)
            .filter_map(|(place, destination)| {
                let own = destination.series.shift(place).filter(same_time).or_else(|| over(place))?;
                Some((own, destination.calls.share()))
            })
            .map(|(own, unattributed)| Likely {
                destination: own.place,
                began_at: own.began_at,
                before_ms: own.before_ms,
                after_ms: own.after_ms,
                unattributed,
            })
            .collect();
        likely.sort_by(|a, b| (b.after_ms - b.before_ms).total_cmp(&(a.after_ms - a.before_ms)));
        likely
    }

    /// The page; see the module's documentation.
    pub fn page(&self) -> Value {
        let mut now: Vec<Shift> = self.shifts().collect();
        for shift in &mut now {
            shift.likely = self.likely(shift);
        }
        let severity_and_factor = |shift: &Shift| (shift.severity, shift.factor());
        now.sort_by(|a, b| {
            let ((a, of_a), (b, of_b)) = (severity_and_factor(a), severity_and_factor(b));
            b.cmp(&a).then(of_b.total_cmp(&of_a))
        });
        let destinations = self.destinations.iter().map(|(place, destination)| (place, &destination.series));
        json!({
            "since": rfc3339(self.since, 3),
            "calls_without_parent_share": rounded(self.calls.share()),
            "now": now.iter().map(Shift::json).collect::<Vec<_>>(),
            "ended": self.ended.iter().map(Shift::json).collect::<Vec<_>>(),
            "routes": table(self.routes.iter().map(|(place, series)| (place, series))),
            "destinations": table(destinations),
            "overflowed": {
                "routes": self.routes.overflowed(),
                "destinations": self.destinations.overflowed(),
            },
        })
    }

    fn shifts(&self) -> impl Iterator<Item = Shift> {
        let routes = self.routes.iter().filter_map(|(place, series)| series.shift(place));
        let destinations = self.destinations.iter();
        routes.chain(destinations.filter_map(|(place, destination)| destination.series.shift(place)))
    }

    /// The counts for the metrics page.
    pub fn rows(&self) -> Vec<Row> {
        let routes = self.routes.iter().filter(|(_, series)| series.is_slow()).count();
        let destinations =
            self.destinations.iter().filter(|(_, destination)| destination.series.is_slow()).count();
        let sides = [Side::Inbound, Side::Outbound];
        let row = |name, help, kind, side: Side, value| Row {
            name,
            help,
            kind,
            label: Some(("side", side.as_str().into())),
            value,
        };
        let shifts = "Routes and destinations that were found to have got slow.";
        let slow = "Routes and destinations that are slow now, compared with their own past.";
        let overflowed = "Exchanges watched together with others: there are too many routes or destinations.";
        let began = sides.map(|side| {
            row("tracecar_latency_shifts", shifts, Kind::Counter, side, self.began[side as usize])
        });
        let now = sides
            .into_iter()
            .zip([routes, destinations])
            .map(|(side, count)| row("tracecar_slow_routes", slow, Kind::Gauge, side, count as u64));
        let shared = sides
            .into_iter()
            .zip([self.routes.overflowed(), self.destinations.overflowed()])
            .map(|(side, count)| row("tracecar_latency_overflow", overflowed, Kind::Counter, side, count));
        began.into_iter().chain(now).chain(shared).collect()
    }
}

/// Whether how long it took says anything about how fast its place is.
fn counts(record: &Record) -> bool {
    record.stream.is_none() && record.tunnel.is_none() && !record.excluded
}

fn apart(a: SystemTime, b: SystemTime) -> Duration {
    a.duration_since(b).unwrap_or_else(|negative| negative.duration())
}

fn table<'s>(places: impl Iterator<Item = (&'s Place, &'s Series)>) -> Vec<Value> {
    let mut rows: Vec<_> = places.map(|(place, series)| (place, series, series.latest())).collect();
    let rate = |latest: &Option<series::Latest>| latest.map_or(0.0, |latest| latest.per_second);
    rows.sort_by(|(.., a), (.., b)| rate(b).total_cmp(&rate(a)));
    let row = |(place, series, latest): (&Place, &Series, Option<series::Latest>)| {
        let usual = series.usual_ms();
        json!({
            "place": place.to_string(),
            "slow": series.is_slow(),
            "requests_per_second": rounded(rate(&latest)),
            "p50_ms": latest.map(|latest| rounded(latest.p50_ms)),
            "p90_ms": latest.map(|latest| rounded(latest.p90_ms)),
            "usual_p50_ms": usual.map(|usual| rounded(usual[0])),
            "usual_p90_ms": usual.map(|usual| rounded(usual[1])),
            "parts": series.usual_parts(place).iter().map(Part::json).collect::<Vec<_>>(),
        })
    };
    rows.into_iter().map(row).collect()
}

#[cfg(test)]
mod tests;
