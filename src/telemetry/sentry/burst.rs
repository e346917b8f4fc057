//! How many events of one group, and of all, are sent in a minute.
//!
//! A failure that happens a thousand times a second is one issue, and the first few events tell all of it. Each group has a
//! bucket that fills in a minute, and so have all together.

use std::collections::HashMap;
use std::time::Duration;

use tokio::time::Instant;

/// Groups that are remembered. Of one that is forgotten, what was held back is not told any more.
const MAX_GROUPS: usize = 1024;

/// How long an empty bucket takes to fill.
const MINUTE: Duration = Duration::from_secs(60);

/// Holds back what comes too often.
#[derive(Debug)]
pub(super) struct Burst {
    per_group: f64,
    all: Bucket,
    max: f64,
    /// By what is the same for all events of a group. The standard hasher is keyed: no service can aim at a bucket.
    groups: HashMap<Vec<String>, Group>,
}

#[derive(Debug)]
struct Group {
    bucket: Bucket,
    /// Held back, or lost before they were queued, since the last that was not.
    held: u64,
}

#[derive(Debug)]
struct Bucket {
    /// As of `at`.
    tokens: f64,
    at: Instant,
}

/// What is to become of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It may pass. So many of its group were held back since the last that passed.
    Pass { held: u64 },
    /// Its group had enough of this minute.
    Group,
    /// All had.
    All,
}

impl Bucket {
    fn full(capacity: f64, now: Instant) -> Self {
        Self { tokens: capacity, at: now }
    }

    fn fill(&mut self, capacity: f64, now: Instant) {
        let passed = now.saturating_duration_since(self.at).as_secs_f64();
        self.tokens = (self.tokens + capacity * passed / MINUTE.as_secs_f64()).min(capacity);
        self.at = now;
    }
}

impl Burst {
    /// Lets `per_group` events of each group pass in a minute, and `max` of all.
    pub(super) fn new(per_group: usize, max: usize, now: Instant) -> Self {
        let (per_group, max) = (per_group as f64, max as f64);
        Self { per_group, all: Bucket::full(max, now), max, groups: HashMap::new() }
    }

    /// Asks for an event of `group`.
    pub(super) fn ask(&mut self, group: &[String], now: Instant) -> Verdict {
        self.all.fill(self.max, now);
        if !self.groups.contains_key(group) {
            self.make_room(now);
            let bucket = Bucket::full(self.per_group, now);
            self.groups.insert(group.to_vec(), Group { bucket, held: 0 });
        }
        let known = self.groups.get_mut(group).expect("it is there, if only since now");
        known.bucket.fill(self.per_group, now);
        let verdict = match () {
            () if known.bucket.tokens < 1.0 => Verdict::Group,
            () if self.all.tokens < 1.0 => Verdict::All,
            () => Verdict::Pass { held: known.held },
        };
        match verdict {
            Verdict::Pass { .. } => {
                known.bucket.tokens -= 1.0;
                self.all.tokens -= 1.0;
                known.held = 0;
            }
            Verdict::Group | Verdict::All => known.held += 1,
        }
        verdict
    }

    /// An event that was let pass was lost all the same, and with it the word of `held` others.
    pub(super) fn lost(&mut self, group: &[String], held: u64) {
        if let Some(known) = self.groups.get_mut(group) {
            known.held += held + 1;
        }
    }

    fn make_room(&mut self, now: Instant) {
        if self.groups.len() < MAX_GROUPS {
            return;
        }
        // Those that are as good as new say nothing that a new one would not.
        let per_group = self.per_group;
        self.groups.retain(|_, group| {
            group.bucket.fill(per_group, now);
            group.held > 0 || group.bucket.tokens < per_group
        });
        if self.groups.len() >= MAX_GROUPS {
            // Still a flood of different ones. The quarter that could soonest send again goes, so that not every newcomer
            // has to look through them all.
            let mut tokens: Vec<f64> = self.groups.values().map(|group| group.bucket.tokens).collect();
            let (_, bound, _) = tokens.select_nth_unstable_by(MAX_GROUPS * 3 / 4, f64::total_cmp);
            let (bound, mut surplus) = (*bound, MAX_GROUPS / 4);
            self.groups.retain(|_, group| {
                let goes = surplus > 0 && group.bucket.tokens >= bound;
                surplus -= usize::from(goes);
                !goes
            });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn group(name: impl ToString) -> Vec<String> {
        vec!["shop".to_owned(), name.to_string()]
    }

    #[test]
    fn a_group_gets_its_share_and_then_says_how_many_it_held_back() {
        let now = Instant::now();
        let mut burst = Burst::new(2, 100, now);
        let mut ask = |seconds| burst.ask(&group("a"), now + Duration::from_secs(seconds));
        assert_eq!([ask(0), ask(0)], [Verdict::Pass { held: 0 }; 2]);
        assert_eq!([ask(1), ask(2), ask(29)], [Verdict::Group; 3]);
        assert_eq!(ask(30), Verdict::Pass { held: 3 });
        assert_eq!(ask(31), Verdict::Group);
        assert_eq!(ask(300), Verdict::Pass { held: 1 });
        assert_eq!(ask(300), Verdict::Pass { held: 0 }, "a bucket holds no more than a minute's share");
        assert_eq!(ask(300), Verdict::Group);
    }

    #[test]
    fn all_groups_together_have_a_share_too() {
        let now = Instant::now();
        let mut burst = Burst::new(10, 3, now);
        let verdicts: Vec<_> = (0..4).map(|name| burst.ask(&group(name), now)).collect();
        assert_eq!(verdicts[2..], [Verdict::Pass { held: 0 }, Verdict::All]);
        assert_eq!(burst.ask(&group(3), now + MINUTE), Verdict::Pass { held: 1 });
    }

    #[test]
    fn an_event_that_was_lost_is_told_of_by_the_next() {
        let now = Instant::now();
        let mut burst = Burst::new(10, 10, now);
        burst.ask(&group("a"), now);
        burst.lost(&group("a"), 4);
        assert_eq!(burst.ask(&group("a"), now), Verdict::Pass { held: 5 });
    }

    #[test]
    fn a_flood_of_groups_holds_bounded_memory() {
        let now = Instant::now();
        let mut burst = Burst::new(1, 1_000_000, now);
        for name in 0..10_000 {
            burst.ask(&group(name), now + Duration::from_millis(name));
            assert!(burst.groups.len() <= MAX_GROUPS);
        }
        let later = now + Duration::from_secs(61);
        for name in 20_000..30_000 {
            burst.ask(&group(name), later);
        }
        assert!(burst.groups.len() <= MAX_GROUPS);
    }

    #[test]
    fn a_share_of_nothing_lets_nothing_pass() {
        let now = Instant::now();
        assert_eq!(Burst::new(0, 10, now).ask(&group("a"), now + MINUTE), Verdict::Group);
        assert_eq!(Burst::new(10, 0, now).ask(&group("a"), now + MINUTE), Verdict::All);
    }
}
