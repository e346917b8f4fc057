//! The service is not there: thousands of refused connections, and one thing to say about them.

use std::time::{Duration, SystemTime};

use crate::exchange::{Identity, Outcome, Record, Side};

/// How long nobody may be refused before it is over: a service that comes back may be gone again at once.
const STEADY: Duration = Duration::from_secs(1);

/// When an outage that goes on is worth telling.
const LASTING: Duration = Duration::from_secs(30);

/// How long ago somebody may have been refused last for it to be said that it goes on: where nobody asks, nobody knows.
const RECENT: Duration = Duration::from_secs(10);

/// A time in which connections to the service were refused.
#[derive(Clone, Debug)]
pub struct Outage {
    /// When the first request was refused.
    pub began_at: SystemTime,
    /// When the first request came that was answered again; `None` while it goes on.
    pub ended_at: Option<SystemTime>,
    /// When the latest request was refused.
    pub last_at: SystemTime,
    /// Requests that were refused so far.
    pub requests: u64,
    /// The first of them.
    pub first: Identity,
}

/// Notices outages.
#[derive(Debug, Default)]
pub struct Outages {
    now: Option<Open>,
    seen: u64,
}

#[derive(Debug)]
struct Open {
    outage: Outage,
    told: bool,
}

impl Outages {
    /// Whether the exchange belongs to an outage: the service refused it.
    pub fn is_refusal(record: &Record) -> bool {
        record.side == Side::Inbound && record.outcome == Outcome::UpstreamRefused
    }

    /// Takes note of a request. Excluded ones leave records only where they fail, and so could begin an outage that none of them
    /// would end.
    pub fn finished(&mut self, record: &Record) {
        if record.excluded {
            return;
        }
        if Self::is_refusal(record) {
            let at = record.started_at;
            let open = self.now.get_or_insert_with(|| {
                self.seen += 1;
                let outage =
                    Outage { began_at: at, ended_at: None, last_at: at, requests: 0, first: record.identity };
                Open { outage, told: false }
            });
            open.outage.requests += 1;
            // Records of several workers come in no order: this may have been refused before the first was answered again.
            open.outage.ended_at = open.outage.ended_at.filter(|ended| at < *ended);
            open.outage.began_at = open.outage.began_at.min(at);
            open.outage.last_at = open.outage.last_at.max(at);
        } else if let Some(open) = &mut self.now
            && record.side == Side::Inbound
            && record.timings.first_byte.is_some()
            && record.started_at > open.outage.last_at
        {
            let answered = open.outage.ended_at.unwrap_or(record.started_at);
            open.outage.ended_at = Some(answered.min(record.started_at));
        }
    }

    /// What is to be told now: an outage that is over, or one that lasts.
    pub fn tick(&mut self, now: SystemTime) -> Option<Outage> {
        let since = |at: SystemTime| now.duration_since(at).unwrap_or_default();
        let open = self.now.as_mut()?;
        if open.outage.ended_at.is_some_and(|ended| since(ended) >= STEADY) {
            return self.now.take().map(|open| open.outage);
        }
        let Outage { began_at, ended_at, last_at, requests, .. } = open.outage;
        let goes_on = ended_at.is_none() && requests > 1 && since(last_at) < RECENT;
        if goes_on && !open.told && since(began_at) >= LASTING {
            open.told = true;
            return Some(open.outage.clone());
        }
        None
    }

    /// The one that goes on.
    pub fn now(&self) -> Option<&Outage> {
        self.now.as_ref().map(|open| &open.outage)
    }

    /// How many there were.
    pub fn seen(&self) -> u64 {
        self.seen
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exchange::{sample, sample_call};

    fn wall(milliseconds: u64) -> SystemTime {
        SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000) + Duration::from_millis(milliseconds)
    }

    fn refused(at: u64) -> Record {
        let mut record = sample();
        (record.outcome, record.status, record.started_at) = (Outcome::UpstreamRefused, Some(502), wall(at));
        record.timings.first_byte = None;
        record
    }

    fn answered(at: u64) -> Record {
        let mut record = sample();
        (record.status, record.started_at) = (Some(500), wall(at));
        record
    }

    #[test]
    fn all_that_is_refused_is_one_outage_until_nobody_is_for_a_second() {
        let mut outages = Outages::default();
        assert!(outages.tick(wall(0)).is_none() && outages.now().is_none());
        for at in [0, 10, 700] {
            outages.finished(&refused(at));
        }
        assert!(outages.tick(wall(900)).is_none(), "it goes on");
        outages.finished(&answered(2000));
        outages.finished(&answered(2100));
        assert!(outages.tick(wall(2999)).is_none(), "it may be gone again");
        let outage = outages.tick(wall(3000)).expect("it is over");
        assert_eq!((outage.began_at, outage.ended_at), (wall(0), Some(wall(2000))));
        assert_eq!((outage.requests, outages.seen()), (3, 1));
        assert!(outages.tick(wall(9000)).is_none() && outages.now().is_none(), "it is told once");
        outages.finished(&refused(10_000));
        assert_eq!(outages.seen(), 2);
    }

    #[test]
    fn a_service_that_comes_and_goes_is_not_there_all_the_while() {
        let mut outages = Outages::default();
        for at in (0..10_000).step_by(1000) {
            outages.finished(&refused(at));
            outages.finished(&answered(at + 100));
            assert!(outages.tick(wall(at + 900)).is_none(), "{at}");
        }
        let outage = outages.tick(wall(10_100)).expect("nobody was refused any more");
        assert_eq!((outage.began_at, outage.ended_at), (wall(0), Some(wall(9100))));
        assert_eq!((outage.requests, outages.seen()), (10, 1));
    }

    #[test]
    fn one_that_lasts_is_told_once_before_it_is_over() {
        let mut outages = Outages::default();
        outages.finished(&refused(0));
        assert!(outages.tick(wall(30_000)).is_none(), "nobody has asked since, so nobody knows");
        outages.finished(&refused(29_000));
        assert!(outages.tick(wall(29_999)).is_none());
        assert_eq!(outages.tick(wall(30_000)).expect("it lasts").ended_at, None);
        outages.finished(&refused(31_000));
        assert!(outages.tick(wall(90_000)).is_none(), "that is known");
        outages.finished(&answered(91_000));
        assert_eq!(outages.tick(wall(92_000)).expect("it is over").requests, 3);
    }

    #[test]
    fn a_probe_that_leaves_a_record_only_if_it_fails_begins_no_outage() {
        let mut outages = Outages::default();
        let mut probe = refused(0);
        probe.excluded = true;
        outages.finished(&probe);
        assert!(outages.now().is_none());
    }

    #[test]
    fn only_an_answer_of_the_service_to_a_later_request_ends_it() {
        let mut outages = Outages::default();
        outages.finished(&refused(1000));
        outages.finished(&answered(900));
        let mut call = sample_call();
        call.started_at = wall(2000);
        outages.finished(&call);
        let mut unanswered = answered(2000);
        unanswered.timings.first_byte = None;
        outages.finished(&unanswered);
        assert_eq!(outages.now().expect("it goes on").ended_at, None);
        let mut refused_call = call.clone();
        refused_call.outcome = Outcome::UpstreamRefused;
        outages.finished(&refused_call);
        assert_eq!(outages.now().expect("it goes on").requests, 1, "a dependency is not the service");
    }

    #[test]
    fn records_may_come_in_any_order() {
        let mut outages = Outages::default();
        for record in [refused(500), refused(0), answered(2000), answered(1000), refused(700)] {
            outages.finished(&record);
        }
        let outage =
            outages.tick(wall(2000)).expect("what was refused before the answer does not go on after it");
        assert_eq!((outage.began_at, outage.ended_at, outage.requests), (wall(0), Some(wall(1000)), 3));
    }
}
