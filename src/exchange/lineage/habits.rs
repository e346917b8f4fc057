//! What destinations are called like: whether calls come with no exchange open, after the end of theirs, and whether they
//! usually show their parent.
//!
//! This is what `process` and `sole`, which conclude from who is there and not from what the call says, need to know about
//! calls that nobody caused.

use std::time::{Duration, Instant};

use super::LineageRules;
use super::sightings::Generations;

/// Room of one generation of destinations, and of shapes of calls.
const ROOM: usize = 1024;

/// Calls to a destination after which it is no longer new.
const KNOWN_AFTER: u32 = 16;

/// Calls of processes that were looked at, with no sign of work that no request causes, after which a process may decide.
/// Where such work is more than one call in a hundred, it nearly always shows within as many. Where it is less, the first of it may
/// be taken for that of a request, and is then one wrong parent among more than two hundred that are right.
pub(super) const WATCHED_ENOUGH: u32 = 512;

/// The part of the window in which no exchange was open, of late, where a background call would have shown itself.
pub(super) const IDLE_ENOUGH: u32 = 20;

/// Calls of a shape that showed their parent before it counts as their habit; the habit holds while they are four times as many as those that did not.
const SHOWN_ENOUGH: u16 = 4;

#[derive(Debug, Default)]
pub(super) struct Habits {
    destinations: Generations<Destination>,
    shapes: Generations<Shape>,
    /// The latest such calls of destinations that were forgotten for lack of room: held against all.
    forgotten: Destination,
    /// The latest call that met two open exchanges, or that none of those who were open had made.
    disturbed_at: Option<Instant>,
    /// The latest call of a process that served several exchanges at once.
    several_at: Option<Instant>,
    /// The latest call of a process that served one, while others served others.
    apart_at: Option<Instant>,
    /// The latest call of a process that waited for the answer to another.
    overlapped_at: Option<Instant>,
    /// Calls of processes that were looked at, since the last of these two.
    watched: u32,
    /// Time with no exchange open, from the start on.
    rested: Duration,
    /// The same of late, and only from the first exchange on: a service that nobody has used yet may call nobody either.
    idle: Duration,
    used: bool,
    idle_since: Option<Instant>,
    idle_halved_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Destination {
    calls: u32,
    /// Calls of processes that were looked at, since the last in the background.
    watched: u32,
    background_at: Option<Instant>,
    late_at: Option<Instant>,
}

#[derive(Clone, Copy, Debug, Default)]
struct Shape {
    shown: u16,
    bare: u16,
}

/// What is held for and against a guess for one call.
#[derive(Clone, Copy, Debug)]
pub(super) struct Habit {
    /// A call with no exchange open was made in the window.
    pub background: bool,
    /// A call after the end of its exchange was made in the window.
    pub late: bool,
    /// Calls of this shape usually show their parent.
    pub shows_parent: bool,
    /// No call to any destination was made in the window while several exchanges were open, or by none of them; and the service
    /// was watched at rest for long enough.
    pub quiet: bool,
    /// In the window, each process served one exchange at a time, and made one call at a time.
    pub one_at_a_time: bool,
    /// Enough calls of processes were seen, to this destination and to all, since the last sign of calls that no request
    /// causes.
    pub watched: bool,
    /// In the window, processes were seen to serve beside each other.
    pub apart: bool,
    /// The destination has been called often, and there was time in which background calls would have been seen.
    pub known: bool,
}

/// What a call says of the process that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Process {
    /// It serves several exchanges at once.
    ServesSeveral,
    /// It serves one, while others serve others.
    ServesOneOfSeveral,
    /// It makes a call while another of the same exchange waits for its answer, and while others are open: with nobody else
    /// there, there is nobody to mistake for its parent but those who have ended.
    Overlaps,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Came {
    /// Its parent was shown by exact evidence, and was open.
    Shown,
    /// Its parent was shown by exact evidence, and had ended.
    Late,
    /// Nobody could have caused it.
    Background,
    /// It showed no parent.
    Bare,
}

impl Habits {
    pub(super) fn habit(&self, destination: u64, shape: u64, rules: &LineageRules, now: Instant) -> Habit {
        let window = rules.background_window;
        let known = self.destinations.look(destination).copied().unwrap_or_default();
        let lately = |at: Option<Instant>| at.is_some_and(|at| now.saturating_duration_since(at) < window);
        let shape = self.shapes.look(shape ^ destination).copied().unwrap_or_default();
        Habit {
            background: lately(known.background_at) || lately(self.forgotten.background_at),
            late: lately(known.late_at) || lately(self.forgotten.late_at),
            quiet: self.rested >= rules.guess_after && !lately(self.disturbed_at),
            one_at_a_time: !lately(self.several_at) && !lately(self.overlapped_at),
            watched: self.watched >= WATCHED_ENOUGH && known.watched >= KNOWN_AFTER,
            apart: lately(self.apart_at),
            shows_parent: shape.shown >= SHOWN_ENOUGH && shape.shown / 4 >= shape.bare,
            known: known.calls >= KNOWN_AFTER && self.idle >= window / IDLE_ENOUGH,
        }
    }

    /// A call met several open exchanges.
    pub(super) fn crowded(&mut self, now: Instant) {
        self.disturbed_at = Some(now);
    }

    pub(super) fn process(&mut self, process: Process, now: Instant) {
        match process {
            Process::ServesSeveral => (self.several_at, self.watched) = (Some(now), 0),
            Process::ServesOneOfSeveral => self.apart_at = Some(now),
            Process::Overlaps => (self.overlapped_at, self.watched) = (Some(now), 0),
        }
    }

    /// The process that made a call was looked at; it was busy with one exchange.
    pub(super) fn watched(&mut self, destination: u64) {
        self.watched = self.watched.saturating_add(1);
        if let Some(known) = self.destinations.refresh(destination, ROOM) {
            known.watched = known.watched.saturating_add(1);
        }
    }

    pub(super) fn came(&mut self, destination: u64, shape: u64, came: Came, now: Instant) {
        if matches!(came, Came::Background | Came::Late) {
            self.disturbed_at = Some(now);
        }
        let forgotten = &mut self.forgotten;
        self.destinations.make_room(ROOM, |old| {
            forgotten.background_at = forgotten.background_at.max(old.background_at);
            forgotten.late_at = forgotten.late_at.max(old.late_at);
        });
        if self.destinations.refresh(destination, ROOM).is_none() {
            self.destinations.insert(destination, Destination::default(), ROOM);
        }
        if let Some(known) = self.destinations.refresh(destination, ROOM) {
            known.calls = known.calls.saturating_add(1);
            match came {
                Came::Background => (known.background_at, known.watched) = (Some(now), 0),
                Came::Late => known.late_at = Some(now),
                Came::Shown | Came::Bare => {}
            }
        }
        let key = shape ^ destination;
        if self.shapes.refresh(key, ROOM).is_none() {
            self.shapes.insert(key, Shape::default(), ROOM);
        }
        if let Some(shape) = self.shapes.refresh(key, ROOM) {
            match came {
                Came::Shown | Came::Late => shape.shown += 1,
                Came::Background | Came::Bare => shape.bare += 1,
            }
            // Habits change with the next deployment of the app: what is old counts less and less.
            if shape.shown + shape.bare >= 64 {
                shape.shown /= 2;
                shape.bare /= 2;
            }
        }
    }

    /// No exchange is open from now on.
    pub(super) fn idle_begins(&mut self, now: Instant) {
        self.idle_since = Some(now);
    }

    /// An exchange is open from now on.
    pub(super) fn idle_ends(&mut self, window: Duration, now: Instant) {
        if let Some(since) = self.idle_since.take() {
            let rest = now.saturating_duration_since(since);
            self.rested = self.rested.saturating_add(rest);
            if std::mem::replace(&mut self.used, true) {
                self.idle += rest;
            }
        }
        let halved = *self.idle_halved_at.get_or_insert(now);
        if now.saturating_duration_since(halved) > window {
            self.idle /= 2;
            self.idle_halved_at = Some(now);
        }
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.destinations.len() + self.shapes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    fn rules() -> LineageRules {
        LineageRules { background_window: WINDOW, ..LineageRules::default() }
    }

    #[test]
    fn a_background_call_is_held_against_its_destination_for_the_window() {
        let mut habits = Habits::default();
        let now = Instant::now();
        habits.came(1, 0, Came::Background, now);
        assert!(habits.habit(1, 0, &rules(), now).background);
        assert!(!habits.habit(2, 0, &rules(), now).background);
        assert!(!habits.habit(1, 0, &rules(), now + WINDOW).background);
    }

    #[test]
    fn what_is_forgotten_for_lack_of_room_is_held_against_all() {
        let mut habits = Habits::default();
        let now = Instant::now();
        habits.came(1, 0, Came::Background, now);
        for other in 10..10 + 3 * ROOM as u64 {
            habits.came(other, 0, Came::Bare, now);
        }
        assert!(habits.habit(1, 0, &rules(), now).background);
        assert!(habits.remembered() <= 4 * ROOM);
    }

    #[test]
    fn a_shape_has_the_habit_of_showing_its_parent_while_most_calls_do() {
        let mut habits = Habits::default();
        let now = Instant::now();
        for _ in 0..SHOWN_ENOUGH {
            assert!(!habits.habit(1, 2, &rules(), now).shows_parent);
            habits.came(1, 2, Came::Shown, now);
        }
        assert!(habits.habit(1, 2, &rules(), now).shows_parent);
        habits.came(1, 2, Came::Bare, now);
        habits.came(1, 2, Came::Bare, now);
        assert!(!habits.habit(1, 2, &rules(), now).shows_parent);
    }
}
