//! Which values were seen in which exchange's calls: finds the ones that do not name a request.
//!
//! A value serves one parent only. One that was in a call of nobody known, or in calls of two parents, is shared by
//! requests (a key of the service, a user's session, a tenant) and is *hot*: it decides no more.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::ExchangeId;

/// Room of one generation of values that were in the calls of one parent, or in one call of nobody known.
const ONCE: usize = 16 * 1024;

/// Room of one generation of hot values. They are kept at least until this many further values turned hot: for more than ten
/// minutes, unless 27 values a second do.
const HOT: usize = 16 * 1024;

/// What is known about values that were in calls.
#[derive(Debug, Default)]
pub(super) struct Sightings {
    /// Apart from [`Sightings::hot`], so that ids that an app makes for every call, which are seen once and never again, do
    /// not push out the ones that matter.
    once: Generations<Option<ExchangeId>>,
    hot: Generations<()>,
}

/// What a call says about one of its values.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Sighting {
    /// The call's parent is known by exact evidence, and carries the value.
    Of(ExchangeId),
    /// No live exchange carries the value.
    OfNobody,
    /// The value is shared: several live exchanges carry it, or another one than the parent.
    Shared,
}

impl Sightings {
    /// Whether the value may say that `exchange` is the parent: it was never in a call, or in calls of that parent only.
    pub(super) fn may_name(&self, value: u64, exchange: ExchangeId) -> bool {
        !self.hot.contains(value) && self.once.look(value).is_none_or(|parent| *parent == Some(exchange))
    }

    /// Takes note of a value in a call.
    pub(super) fn saw(&mut self, value: u64, sighting: Sighting) {
        if self.hot.refresh(value, HOT).is_some() {
            return;
        }
        let parent = match sighting {
            Sighting::Shared => return self.hot.insert(value, (), HOT),
            Sighting::Of(parent) => Some(parent),
            Sighting::OfNobody => None,
        };
        match self.once.refresh(value, ONCE) {
            None => self.once.insert(value, parent, ONCE),
            Some(before) if *before == parent && parent.is_some() => {}
            Some(_) => self.hot.insert(value, (), HOT),
        }
    }

    /// How many values are hot and remembered.
    pub(super) fn hot(&self) -> usize {
        self.hot.len()
    }

    #[cfg(test)]
    pub(super) fn remembered(&self) -> usize {
        self.hot() + self.once.len()
    }
}

/// A bounded memory that forgets what was not asked for longest: two maps, of which the older is thrown away when the younger
/// is full. What is found in the older moves to the younger.
#[derive(Debug)]
pub(super) struct Generations<V> {
    young: HashMap<u64, V, AsIs>,
    old: HashMap<u64, V, AsIs>,
}

/// The keys are keyed hashes already.
pub(super) type AsIs = BuildHasherDefault<Identity>;

#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Identity(u64);

impl Hasher for Identity {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

impl<V> Default for Generations<V> {
    fn default() -> Self {
        Self { young: HashMap::default(), old: HashMap::default() }
    }
}

impl<V> Generations<V> {
    pub(super) fn contains(&self, key: u64) -> bool {
        self.look(key).is_some()
    }

    pub(super) fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }

    /// Looks without keeping it any longer.
    pub(super) fn look(&self, key: u64) -> Option<&V> {
        self.young.get(&key).or_else(|| self.old.get(&key))
    }

    /// Finds an entry and makes it young.
    pub(super) fn refresh(&mut self, key: u64, room: usize) -> Option<&mut V> {
        if !self.young.contains_key(&key) {
            let value = self.old.remove(&key)?;
            self.insert(key, value, room);
        }
        self.young.get_mut(&key)
    }

    /// Puts an entry in, as young.
    pub(super) fn insert(&mut self, key: u64, value: V, room: usize) {
        self.make_room(room, |_| ());
        self.young.insert(key, value);
    }

    /// Throws the old generation away if the young one has `room` entries; each of the old is shown first.
    pub(super) fn make_room(&mut self, room: usize, mut forgotten: impl FnMut(&V)) {
        if self.young.len() < room {
            return;
        }
        self.old.values().for_each(&mut forgotten);
        self.old.clear();
        std::mem::swap(&mut self.young, &mut self.old);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: ExchangeId = ExchangeId { slot: 1, generation: 1 };
    const B: ExchangeId = ExchangeId { slot: 2, generation: 1 };

    #[test]
    fn a_value_serves_the_parent_it_served_first() {
        let mut sightings = Sightings::default();
        assert!(sightings.may_name(7, A), "never seen");
        sightings.saw(7, Sighting::Of(A));
        sightings.saw(7, Sighting::Of(A));
        assert!(sightings.may_name(7, A));
        assert!(!sightings.may_name(7, B));
    }

    #[test]
    fn a_value_of_two_parents_or_of_nobody_names_none() {
        for bad in [Sighting::Of(B), Sighting::OfNobody, Sighting::Shared] {
            let mut sightings = Sightings::default();
            sightings.saw(7, Sighting::Of(A));
            sightings.saw(7, bad);
            assert!(!sightings.may_name(7, A), "{bad:?}");
        }
        let mut sightings = Sightings::default();
        sightings.saw(7, Sighting::OfNobody);
        assert!(!sightings.may_name(7, A));
        assert_eq!(sightings.hot(), 0, "perhaps it is never seen again");
        sightings.saw(7, Sighting::OfNobody);
        assert_eq!(sightings.hot(), 1, "it is");
    }

    #[test]
    fn hot_values_outlive_any_number_of_values_seen_once() {
        let mut sightings = Sightings::default();
        sightings.saw(7, Sighting::Shared);
        for value in 0..10 * ONCE as u64 {
            sightings.saw(1000 + value, Sighting::OfNobody);
        }
        assert!(!sightings.may_name(7, A));
        assert!(sightings.remembered() <= 2 * ONCE + 2 * HOT);
    }

    #[test]
    fn a_hot_value_that_is_seen_again_is_kept_among_any_number_of_others() {
        let mut sightings = Sightings::default();
        for value in 0..5 * HOT as u64 {
            if value % 1000 == 0 {
                sightings.saw(7, Sighting::Shared);
            }
            sightings.saw(1000 + value, Sighting::Shared);
        }
        assert!(!sightings.may_name(7, A));
        assert!(sightings.hot() <= 2 * HOT);
    }
}
