//! The live exchanges: those that are open, and those that ended a moment ago (the tail).
//!
//! A slab whose slots are used again, with what they own, so that nothing is allocated per exchange once it has grown; a list of
//! the open ones that are no streams, the newest first; a queue of the tail, the oldest first; and an index from a value's hash to the few
//! exchanges that carry it.

use std::collections::{HashMap, VecDeque};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use super::sightings::AsIs;
use super::tokens::MAX_VALUES;
use super::{ExchangeId, SentCall, Whose};

/// Exchanges that are live at most. With 32 values each and their calls that is about 6 MB.
pub(super) const MAX_LIVE: usize = 4096;

/// Values that one exchange carries at most: its tokens, and its identities and trace id beside them.
pub(super) const MAX_CARRIED: usize = 2 * MAX_VALUES + 1;

/// Calls remembered per exchange; later ones are counted and not kept.
pub(super) const MAX_CALLS: usize = 16;

/// Exchanges carrying one value that are told apart. A value that more of them carry at once says nothing until the last
/// of them is gone.
pub(super) const FEW: usize = 5;

/// Exchanges taken off the tail at a time, so that no request pays for a burst that ended long ago.
const SWEPT_AT_ONCE: usize = 64;

/// An exchange that has been open for longer is no candidate of those who conclude from who is there: what takes longer than
/// clients, gateways and application servers commonly wait (30 s is the default of many) is a long poll or a stream more often
/// than a request that is being worked on.
pub(super) const LONG: Duration = Duration::from_secs(30);

const NONE: u32 = u32::MAX;

/// All live exchanges.
#[derive(Debug)]
pub(super) struct Live {
    slots: Vec<Slot>,
    free: Vec<u32>,
    index: HashMap<u64, Few, AsIs>,
    /// The ends of the list of those that are open and no streams.
    newest: u32,
    oldest: u32,
    /// All that are open.
    open: usize,
    /// Those of them that are streams.
    streams: usize,
    tail: VecDeque<u32>,
    carried: usize,
    /// Exchanges that left the tail early, for lack of room.
    pub cut_short: u64,
}

/// One live exchange, or the room of one.
#[derive(Debug)]
pub(super) struct Slot {
    generation: u32,
    pub whose: Option<Whose>,
    pub opened_at: Instant,
    pub closed_at: Option<Instant>,
    tail: Duration,
    values: Vec<u64>,
    pub connection: Option<Connection>,
    pub calls: Vec<SentCall>,
    /// Calls of it that wait for their answer, also of those that were not kept.
    pub waiting: u32,
    /// Its response has no end in sight. It can still be found by what a call says.
    pub streams: bool,
    newer: u32,
    older: u32,
}

/// The connection on which an exchange was handed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Connection {
    pub local: SocketAddr,
    pub peer: SocketAddr,
    /// The inode of the app's socket, once that was found.
    pub socket: Option<u64>,
}

impl Slot {
    /// Whether the exchange was open at `then`.
    pub(super) fn open_at(&self, then: Instant) -> bool {
        self.opened_at <= then && self.closed_at.is_none_or(|closed| closed >= then)
    }

    /// Whether the exchange is a stream, or had been open for long at `then`.
    pub(super) fn long_at(&self, then: Instant) -> bool {
        self.streams || then.saturating_duration_since(self.opened_at) > LONG
    }

    fn live_at(&self, now: Instant) -> bool {
        self.whose.is_some() && self.closed_at.is_none_or(|closed| now.duration_since(closed) < self.tail)
    }
}

/// A few exchanges.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Few {
    slots: [u32; FEW],
    length: u8,
    /// More carried it than there is room for; not told apart until the last is gone.
    crowd: u32,
}

impl Few {
    pub(super) fn as_slice(&self) -> &[u32] {
        &self.slots[..self.length.into()]
    }

    pub(super) fn contains(&self, slot: u32) -> bool {
        self.as_slice().contains(&slot)
    }

    pub(super) fn only(&self) -> Option<u32> {
        if let [one] = self.as_slice() { Some(*one) } else { None }
    }

    pub(super) fn is_empty(&self) -> bool {
        self.length == 0
    }

    /// Adds an exchange where there is room.
    pub(super) fn push(&mut self, slot: u32) {
        if usize::from(self.length) < FEW && !self.contains(slot) {
            self.slots[usize::from(self.length)] = slot;
            self.length += 1;
        }
    }

    pub(super) fn retain(&mut self, mut keep: impl FnMut(u32) -> bool) {
        let before = *self;
        self.length = 0;
        for slot in before.as_slice().iter().copied().filter(|slot| keep(*slot)) {
            self.push(slot);
        }
    }
}

/// Who carries a value.
#[derive(Clone, Copy, Debug)]
pub(super) enum Carriers {
    /// Nobody who is live.
    Nobody,
    /// These, at least one.
    Few(Few),
    /// Too many to tell.
    Crowd,
}

impl Default for Live {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            free: Vec::new(),
            index: HashMap::default(),
            newest: NONE,
            oldest: NONE,
            open: 0,
            streams: 0,
            tail: VecDeque::new(),
            carried: 0,
            cut_short: 0,
        }
    }
}

impl Live {
    /// Takes off the tail what has been there long enough; a bounded number at a time.
    pub(super) fn sweep(&mut self, now: Instant) {
        for _ in 0..SWEPT_AT_ONCE {
            let Some(&oldest) = self.tail.front() else { return };
            if self.slots[oldest as usize].live_at(now) {
                return;
            }
            self.release_oldest();
        }
    }

    fn release_oldest(&mut self) {
        let Some(slot) = self.tail.pop_front() else { return };
        let at = slot as usize;
        let values = std::mem::take(&mut self.slots[at].values);
        for value in &values {
            self.unlink(*value, slot);
        }
        self.carried -= values.len();
        let released = &mut self.slots[at];
        released.values = values;
        released.values.clear();
        released.calls.clear();
        released.waiting = 0;
        released.whose = None;
        released.connection = None;
        released.generation = released.generation.wrapping_add(1);
        self.free.push(slot);
    }

    fn unlink(&mut self, value: u64, slot: u32) {
        let Some(carriers) = self.index.get_mut(&value) else { return };
        if carriers.crowd > 0 {
            carriers.crowd -= 1;
            if carriers.crowd > 0 {
                return;
            }
        } else {
            carriers.retain(|other| other != slot);
            if !carriers.is_empty() {
                return;
            }
        }
        self.index.remove(&value);
    }

    /// Opens an exchange, at the price of the oldest of the tail where there is no room. `None` where all are open.
    pub(super) fn open(&mut self, whose: Whose, tail: Duration, now: Instant) -> Option<ExchangeId> {
        if self.free.is_empty() && self.slots.len() == MAX_LIVE {
            self.tail.front()?;
            self.cut_short += 1;
            self.release_oldest();
        }
        let slot = self.free.pop().unwrap_or_else(|| {
            self.slots.push(Slot {
                generation: 0,
                whose: None,
                opened_at: now,
                closed_at: None,
                tail,
                values: Vec::new(),
                connection: None,
                calls: Vec::new(),
                waiting: 0,
                streams: false,
                newer: NONE,
                older: NONE,
            });
            self.slots.len() as u32 - 1
        });
        let older = std::mem::replace(&mut self.newest, slot);
        match self.slots.get_mut(older as usize) {
            Some(older) => older.newer = slot,
            None => self.oldest = slot,
        }
        self.open += 1;
        let opened = &mut self.slots[slot as usize];
        opened.whose = Some(whose);
        opened.opened_at = now;
        opened.closed_at = None;
        opened.streams = false;
        opened.tail = tail;
        opened.newer = NONE;
        opened.older = older;
        Some(ExchangeId { slot, generation: opened.generation })
    }

    /// Notes values that an exchange carries; returns how many had no room.
    pub(super) fn carry(&mut self, id: ExchangeId, values: &[u64]) -> u64 {
        let Some(slot) = self.at(id) else { return 0 };
        let mut dropped = 0;
        for value in values {
            let carried = &mut self.slots[slot as usize].values;
            if carried.contains(value) {
                continue;
            }
            if carried.len() == MAX_CARRIED {
                dropped += 1;
                continue;
            }
            carried.push(*value);
            self.carried += 1;
            let carriers = self.index.entry(*value).or_default();
            if carriers.crowd > 0 {
                carriers.crowd += 1;
            } else if usize::from(carriers.length) == FEW {
                carriers.crowd = FEW as u32 + 1;
                carriers.length = 0;
            } else {
                carriers.push(slot);
            }
        }
        dropped
    }

    /// Ends an exchange: it moves from the open ones to the tail.
    pub(super) fn close(&mut self, id: ExchangeId, now: Instant) {
        let Some(slot) = self.at(id) else { return };
        let closed = &mut self.slots[slot as usize];
        if closed.closed_at.replace(now).is_some() {
            return;
        }
        if closed.streams {
            self.streams -= 1;
        } else {
            self.take_from_list(slot);
        }
        self.open -= 1;
        self.tail.push_back(slot);
    }

    /// From now on an open exchange is a stream. Says whether it was none.
    pub(super) fn streams(&mut self, id: ExchangeId) -> bool {
        let Some(slot) = self.at(id) else { return false };
        let stream = &mut self.slots[slot as usize];
        if stream.streams || stream.closed_at.is_some() {
            return false;
        }
        stream.streams = true;
        self.streams += 1;
        self.take_from_list(slot);
        true
    }

    fn take_from_list(&mut self, slot: u32) {
        let Slot { newer, older, .. } = self.slots[slot as usize];
        match self.slots.get_mut(newer as usize) {
            Some(newer) => newer.older = older,
            None => self.newest = older,
        }
        match self.slots.get_mut(older as usize) {
            Some(older) => older.newer = newer,
            None => self.oldest = newer,
        }
    }

    /// The slot of an exchange, unless it is long gone.
    pub(super) fn at(&self, id: ExchangeId) -> Option<u32> {
        let slot = self.slots.get(id.slot as usize)?;
        (slot.generation == id.generation && slot.whose.is_some()).then_some(id.slot)
    }

    pub(super) fn id(&self, slot: u32) -> ExchangeId {
        ExchangeId { slot, generation: self.slots[slot as usize].generation }
    }

    pub(super) fn slot(&self, slot: u32) -> &Slot {
        &self.slots[slot as usize]
    }

    pub(super) fn slot_mut(&mut self, slot: u32) -> &mut Slot {
        &mut self.slots[slot as usize]
    }

    /// The live exchanges that carry `value` and had begun at `then`.
    pub(super) fn carriers(&self, value: u64, then: Instant, now: Instant) -> Carriers {
        let Some(carriers) = self.index.get(&value) else { return Carriers::Nobody };
        if carriers.crowd > 0 {
            return Carriers::Crowd;
        }
        let mut few = *carriers;
        few.retain(|slot| self.slot(slot).live_at(now) && self.slot(slot).opened_at <= then);
        if few.is_empty() { Carriers::Nobody } else { Carriers::Few(few) }
    }

    pub(super) fn carries(&self, slot: u32, value: u64) -> bool {
        self.slot(slot).values.contains(&value)
    }

    /// The exchanges that are open and no streams, the newest first.
    pub(super) fn open_ones(&self) -> impl Iterator<Item = u32> + '_ {
        let some = |slot: u32| (slot != NONE).then_some(slot);
        std::iter::successors(some(self.newest), move |slot| some(self.slot(*slot).older))
    }

    /// The exchanges of the tail, the one that closed last first.
    pub(super) fn tail(&self, now: Instant) -> impl Iterator<Item = u32> + '_ {
        self.tail.iter().rev().copied().take_while(move |slot| self.slot(*slot).live_at(now))
    }

    /// The exchanges, but for streams, that were open at `then`, which is not long ago.
    pub(super) fn open_at(&self, then: Instant, now: Instant) -> impl Iterator<Item = u32> + '_ {
        let closed_since = self
            .tail(now)
            .take_while(move |slot| self.slot(*slot).closed_at.is_some_and(|closed| closed >= then));
        let open_then = move |slot: &u32| self.slot(*slot).open_at(then) && !self.slot(*slot).streams;
        self.open_ones().chain(closed_since).filter(open_then)
    }

    /// Those of them that had not been open for long: a short walk, however many have.
    pub(super) fn recent_at(&self, then: Instant, now: Instant) -> impl Iterator<Item = u32> + '_ {
        let recent = move |slot: &u32| !self.slot(*slot).long_at(then);
        let closed_since = self
            .tail(now)
            .take_while(move |slot| self.slot(*slot).closed_at.is_some_and(|closed| closed >= then))
            .filter(recent);
        // The list is in the order of opening.
        let open_then = move |slot: &u32| self.slot(*slot).open_at(then) && !self.slot(*slot).streams;
        self.open_ones().take_while(recent).chain(closed_since).filter(open_then)
    }

    /// Whether a stream is open, or an exchange that had been open for long at `then`.
    pub(super) fn any_long_at(&self, then: Instant) -> bool {
        self.streams > 0 || self.slots.get(self.oldest as usize).is_some_and(|oldest| oldest.long_at(then))
    }

    /// How many [`Live::open_at`] has, where nothing has changed since `then`.
    pub(super) fn count_at(&self, then: Instant) -> Option<usize> {
        let opened_since = self.slots.get(self.newest as usize).is_some_and(|newest| newest.opened_at > then);
        let closed = self.tail.back().and_then(|last| self.slot(*last).closed_at);
        (!opened_since && closed.is_none_or(|closed| closed < then)).then_some(self.requests())
    }

    /// Those that are open, streams too.
    pub(super) fn open_count(&self) -> usize {
        self.open
    }

    /// Those that are open and no streams.
    pub(super) fn requests(&self) -> usize {
        self.open - self.streams
    }

    pub(super) fn tail_count(&self) -> usize {
        self.tail.len()
    }

    pub(super) fn carried_count(&self) -> usize {
        self.carried
    }

    #[cfg(test)]
    pub(super) fn indexed_count(&self) -> usize {
        self.index.len()
    }
}
