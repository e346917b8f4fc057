//! Counts of durations in buckets that grow with them.

use std::time::Duration;

/// Buckets per doubling: one is at most an eighth wide, so that a quantile is off by 6 % at most.
const PER_OCTAVE: usize = 8;

/// log₂ of the nanoseconds below which all is one bucket: 65 µs.
const FIRST: u32 = 16;

/// Doublings above that: durations from 275 s are one bucket.
const OCTAVES: usize = 22;

const BUCKETS: usize = 1 + OCTAVES * PER_OCTAVE;

/// Counts of durations; 708 bytes. Counts may decay, and so are no whole numbers.
#[derive(Clone, Debug)]
pub struct Histogram {
    counts: [f32; BUCKETS],
    total: f32,
}

impl Default for Histogram {
    fn default() -> Self {
        Self { counts: [0.0; BUCKETS], total: 0.0 }
    }
}

impl Histogram {
    /// Counts one duration.
    pub fn add(&mut self, duration: Duration) {
        self.counts[bucket(duration.as_nanos() as u64)] += 1.0;
        self.total += 1.0;
    }

    /// How many were counted.
    pub fn total(&self) -> f64 {
        self.total.into()
    }

    /// Keeps `share` of what was counted, and adds `other`.
    pub fn fold(&mut self, share: f32, other: &Self) {
        for (count, new) in self.counts.iter_mut().zip(&other.counts) {
            *count = *count * share + new;
        }
        self.total = self.total * share + other.total;
    }

    /// The duration in seconds that a `share` of all stays below. Zero where nothing was counted.
    pub fn quantile(&self, share: f64) -> f64 {
        let wanted = self.total() * share;
        let mut below = 0.0;
        for (bucket, count) in self.counts.iter().enumerate() {
            let count = f64::from(*count);
            if count > 0.0 && below + count >= wanted {
                let (from, to) = bounds(bucket);
                return from + (to - from) * ((wanted - below) / count).clamp(0.0, 1.0);
            }
            below += count;
        }
        0.0
    }

    /// How many took longer than `seconds`. Those of its own bucket are taken to lie evenly in it.
    pub fn above(&self, seconds: f64) -> f64 {
        let own = bucket((seconds * 1e9) as u64);
        let (from, to) = bounds(own);
        let part = f64::from(self.counts[own]) * ((to - seconds) / (to - from)).clamp(0.0, 1.0);
        part + self.counts[own + 1..].iter().map(|count| f64::from(*count)).sum::<f64>()
    }
}

fn bucket(nanos: u64) -> usize {
    let octave = nanos.max(1).ilog2();
    if octave < FIRST {
        return 0;
    }
    // The three bits behind the first one.
    let eighth = (nanos >> (octave - 3)) as usize & (PER_OCTAVE - 1);
    (1 + (octave - FIRST) as usize * PER_OCTAVE + eighth).min(BUCKETS - 1)
}

/// From where to where a bucket reaches, in seconds.
fn bounds(bucket: usize) -> (f64, f64) {
    let Some(above) = bucket.checked_sub(1) else { return (0.0, (1_u64 << FIRST) as f64 / 1e9) };
    let octave = (1_u64 << (FIRST as usize + above / PER_OCTAVE)) as f64 / 1e9;
    let eighth = octave / PER_OCTAVE as f64;
    let from = octave + eighth * (above % PER_OCTAVE) as f64;
    (from, from + eighth)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_duration_lies_within_the_bounds_of_its_bucket() {
        let mut nanos = 1_u64;
        while nanos < 200_000_000_000 {
            let (from, to) = bounds(bucket(nanos));
            let seconds = nanos as f64 / 1e9;
            assert!(from <= seconds && seconds < to, "{nanos} in {from}..{to}");
            nanos += nanos / 50 + 1;
        }
        assert_eq!(bucket(u64::MAX), BUCKETS - 1);
        assert_eq!(bucket(0), 0);
    }

    #[test]
    fn quantiles_are_those_of_what_was_counted() {
        let mut histogram = Histogram::default();
        (1..=1000).for_each(|millis| histogram.add(Duration::from_millis(millis)));
        for (share, wanted) in [(0.5, 0.5), (0.9, 0.9), (0.99, 0.99)] {
            let found = histogram.quantile(share);
            assert!((found / wanted - 1.0).abs() < 0.03, "{found} for {wanted}");
            assert!((histogram.above(wanted) / 1000.0 - (1.0 - share)).abs() < 0.02, "above {wanted}");
        }
        assert_eq!(Histogram::default().quantile(0.5), 0.0);
    }

    #[test]
    fn what_is_folded_in_counts_in_full_and_the_past_in_part() {
        let (mut past, mut now) = (Histogram::default(), Histogram::default());
        (0..100).for_each(|_| past.add(Duration::from_millis(10)));
        (0..100).for_each(|_| now.add(Duration::from_millis(100)));
        past.fold(0.25, &now);
        assert_eq!(past.total(), 125.0);
        assert_eq!(past.above(0.05).round(), 100.0);
        assert_eq!(past.above(0.001).round(), 125.0);
    }
}
