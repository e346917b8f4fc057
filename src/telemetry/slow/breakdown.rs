//! Where the time of one exchange went.

use std::sync::Arc;
use std::time::Duration;

use super::places::destination;
use crate::exchange::Record;

/// Destinations that a route tells apart; further ones share one part.
pub const MAX_DEPENDENCIES: usize = 16;

/// Parts that every exchange has; those of its destinations follow.
pub const FIXED: usize = 5;
/// Between reading the head and sending it on, without all that belongs to connecting.
pub const TRACECAR: usize = 0;
/// Name resolution, connecting and TLS.
pub const CONNECT: usize = 1;
/// From sending the head to the response's head, while no call was open.
pub const OWN: usize = 2;
/// From the response's head to its end, while no call was open.
pub const TRANSFER: usize = 3;
/// While calls were open to destinations for which there is no part.
pub const OTHERS: usize = 4;

/// Seconds for each part.
pub type Parts = [f64; FIXED + MAX_DEPENDENCIES];

/// A call within its request, in nanoseconds since the request began.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: u64,
    to: u64,
    part: usize,
}

/// Takes exchanges apart; keeps its working space from one to the next.
#[derive(Debug, Default)]
pub struct Breakdown {
    spans: Vec<Span>,
}

impl Breakdown {
    /// Adds the time of `record` to `parts`. `names` are the destinations that have a part, in their order; those of
    /// `calls` are added while there is room. `None` where it never got as far as being sent on.
    ///
    /// Calls to one destination that overlap count once, as do all calls together where they are taken from the
    /// service's own time. Calls to two destinations at once count for both: the parts may add up to more than the
    /// whole.
    pub fn add(
        &mut self,
        record: &Record,
        calls: &[Arc<Record>],
        names: &mut Vec<Arc<str>>,
        parts: &mut Parts,
    ) -> Option<()> {
        let timings = &record.timings;
        let sent = nanos(timings.sent?);
        let total = nanos(timings.total);
        let head = timings.first_byte.map_or(total, nanos).clamp(sent.min(total), total);
        let sent = sent.min(head);
        parts[TRACECAR] += timings.proxy().unwrap_or_default().as_secs_f64();
        parts[CONNECT] += timings.connecting().as_secs_f64();

        let (mut own, mut transfer) = (head - sent, total - head);
        self.gather(record, total, calls, names);
        // Of the calls so far, when the last one ended: of all together, and of each part.
        let mut until = 0;
        let mut until_of = [0; FIXED + MAX_DEPENDENCIES];
        for span in &self.spans {
            let from = span.from.max(until);
            own -= overlap(from, span.to, sent, head);
            transfer -= overlap(from, span.to, head, total);
            until = until.max(span.to);
            let of_part = &mut until_of[span.part];
            parts[span.part] += seconds(span.to.saturating_sub(span.from.max(*of_part)));
            *of_part = span.to.max(*of_part);
        }
        parts[OWN] += seconds(own);
        parts[TRANSFER] += seconds(transfer);
        Some(())
    }

    /// The calls as spans, clipped to the request, in the order in which they began.
    fn gather(&mut self, record: &Record, total: u64, calls: &[Arc<Record>], names: &mut Vec<Arc<str>>) {
        self.spans.clear();
        for call in calls {
            // Wall clocks of two records; both are of this machine.
            let (from, skipped) = match call.started_at.duration_since(record.started_at) {
                Ok(after) => (nanos(after), 0),
                Err(before) => (0, nanos(before.duration())),
            };
            let to = from.saturating_add(nanos(call.timings.total).saturating_sub(skipped)).min(total);
            if from < to {
                self.spans.push(Span { from, to, part: part(call, names) });
            }
        }
        self.spans.sort_unstable_by_key(|span| span.from);
    }
}

/// The part of the destination of `call`.
fn part(call: &Record, names: &mut Vec<Arc<str>>) -> usize {
    let name = destination(call);
    if let Some(number) = names.iter().position(|known| **known == *name) {
        return FIXED + number;
    }
    if names.len() >= MAX_DEPENDENCIES {
        return OTHERS;
    }
    names.push(name.into());
    FIXED + names.len() - 1
}

fn overlap(from: u64, to: u64, begin: u64, end: u64) -> u64 {
    to.min(end).saturating_sub(from.max(begin))
}

/// Enough for 584 years.
fn nanos(duration: Duration) -> u64 {
    duration.as_nanos() as u64
}

fn seconds(nanos: u64) -> f64 {
    nanos as f64 / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{sample, sample_call};

    const fn ms(millis: u64) -> Duration {
        Duration::from_millis(millis)
    }

    /// A request of 100 ms: 10 before it is sent, of these 6 for connecting; the head after 80.
    fn request() -> Record {
        let mut record = sample();
        record.timings.dns = Some(ms(1));
        record.timings.connect = Some(ms(3));
        record.timings.tls = Some(ms(2));
        record.timings.sent = Some(ms(10));
        record.timings.first_byte = Some(ms(80));
        record.timings.total = ms(100);
        record
    }

    fn call(name: &str, from: i64, to: i64) -> Arc<Record> {
        let mut record = sample_call();
        record.destination = Some(name.into());
        match u64::try_from(from) {
            Ok(after) => record.started_at += ms(after),
            Err(_) => record.started_at -= ms(from.unsigned_abs()),
        }
        record.timings.total = ms((to - from) as u64);
        Arc::new(record)
    }

    /// Milliseconds of tracecar, connecting, own time, transfer and others; then of the destinations by name.
    fn taken(record: &Record, calls: &[Arc<Record>]) -> (Vec<u64>, Vec<(String, u64)>) {
        let (mut names, mut parts) = (Vec::new(), Parts::default());
        Breakdown::default().add(record, calls, &mut names, &mut parts).expect("it was sent");
        let millis = |seconds: &f64| (seconds * 1e3).round() as u64;
        let of_names = names.iter().map(ToString::to_string).zip(parts[FIXED..].iter().map(millis)).collect();
        (parts[..FIXED].iter().map(millis).collect(), of_names)
    }

    #[test]
    fn without_calls_the_parts_are_the_whole() {
        assert_eq!(taken(&request(), &[]).0, [4, 6, 70, 20, 0]);
    }

    #[test]
    fn calls_that_overlap_are_taken_from_the_service_once() {
        let calls = [call("a", 20, 50), call("a", 30, 60), call("b", 40, 70)];
        let (fixed, names) = taken(&request(), &calls);
        assert_eq!(fixed, [4, 6, 20, 20, 0]);
        assert_eq!(names, [("a".to_owned(), 40), ("b".to_owned(), 30)]);
    }

    #[test]
    fn the_order_in_which_calls_are_given_does_not_matter() {
        let calls = [call("b", 40, 70), call("a", 30, 60), call("a", 20, 50)];
        assert_eq!(taken(&request(), &calls).0, [4, 6, 20, 20, 0]);
    }

    #[test]
    fn a_call_counts_only_while_its_request_lasts() {
        let (fixed, names) = taken(&request(), &[call("a", 70, 500)]);
        assert_eq!(fixed, [4, 6, 60, 0, 0]);
        assert_eq!(names, [("a".to_owned(), 30)]);
        let (_, names) = taken(&request(), &[call("a", -30, 20), call("b", 200, 300), call("c", -30, -10)]);
        assert_eq!(names, [("a".to_owned(), 20)]);
    }

    #[test]
    fn a_request_without_an_answer_waited_for_the_service() {
        let mut record = request();
        record.timings.first_byte = None;
        assert_eq!(taken(&record, &[]).0, [4, 6, 90, 0, 0]);
        record.timings.sent = None;
        assert!(Breakdown::default().add(&record, &[], &mut Vec::new(), &mut Parts::default()).is_none());
    }

    #[test]
    fn destinations_beyond_the_bound_share_a_part() {
        let calls: Vec<_> =
            (0..18).map(|number| call(&number.to_string(), 20 + number, 21 + number)).collect();
        let (fixed, names) = taken(&request(), &calls);
        assert_eq!((names.len(), fixed[OTHERS]), (MAX_DEPENDENCIES, 2));
    }
}
