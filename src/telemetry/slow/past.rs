//! The quantiles of past intervals, and what is usual by them.

use std::collections::VecDeque;

/// Intervals that are remembered: ten minutes, where there is traffic.
pub const INTERVALS: usize = 60;

/// Intervals without which nothing is usual.
const LEAST: usize = 6;

/// Two quantiles of one interval, in seconds.
pub type Values = [f32; 2];

/// Past intervals.
#[derive(Debug, Default)]
pub struct Past {
    values: VecDeque<Values>,
}

impl Past {
    /// Remembers one more.
    pub fn add(&mut self, values: Values) {
        if self.values.len() >= INTERVALS {
            self.values.pop_front();
        }
        self.values.push_back(values);
    }

    /// What is usual, for each of the two; `None` while too few intervals are known.
    pub fn usual(&self) -> Option<[Usual; 2]> {
        let of = |quantile: usize| Usual::of(self.values.iter().map(|values| f64::from(values[quantile])));
        (self.values.len() >= LEAST).then(|| [of(0), of(1)])
    }
}

/// What a quantile usually is.
#[derive(Clone, Copy, Debug)]
pub struct Usual {
    /// Median of the past intervals, in seconds.
    pub median: f64,
    /// Above it an interval is slow, in seconds.
    pub threshold: f64,
}

impl Usual {
    /// Half as much again, and 5 ms: less is nobody's trouble. Also a fifth above what was ever seen, and six standard
    /// deviations, where one outlier is no measure of what is usual.
    fn of(past: impl Iterator<Item = f64>) -> Self {
        let mut values = [0.0; INTERVALS];
        let mut length = 0;
        for (slot, value) in values.iter_mut().zip(past) {
            *slot = value;
            length += 1;
        }
        let values = &mut values[..length];
        values.sort_unstable_by(f64::total_cmp);
        let median = values[length / 2];
        let mut distances = [0.0; INTERVALS];
        let distances = &mut distances[..length];
        for (distance, value) in distances.iter_mut().zip(&*values) {
            *distance = (value - median).abs();
        }
        distances.sort_unstable_by(f64::total_cmp);
        // 1.4826 times the median distance is the standard deviation, for what is spread normally.
        let far = median + 6.0 * 1.4826 * distances[length / 2];
        let highest = values.iter().rev().find(|value| **value <= far).copied().unwrap_or(median);
        let threshold = (1.5 * median).max(median + 0.005).max(1.2 * highest).max(far);
        Self { median, threshold }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threshold in milliseconds after intervals of so many milliseconds.
    fn threshold(millis: &[f32]) -> Option<f64> {
        let mut past = Past::default();
        millis.iter().for_each(|millis| past.add([millis / 1e3; 2]));
        past.usual().map(|[usual, _]| (usual.threshold * 1e4).round() / 10.0)
    }

    #[test]
    fn half_as_much_again_is_slow() {
        assert_eq!(threshold(&[100.0; 20]), Some(150.0));
    }

    #[test]
    fn what_is_fast_may_become_five_milliseconds_slower() {
        assert_eq!(threshold(&[1.0; 20]), Some(6.0));
    }

    #[test]
    fn what_was_seen_before_is_not_slow_unless_it_was_an_outlier() {
        // Two levels, the higher one for a good third of the time.
        let mut millis = vec![100.0, 160.0, 140.0, 100.0, 180.0, 100.0, 160.0, 120.0, 100.0];
        let spread = threshold(&millis).expect("a past");
        assert!(spread >= 1.2 * 180.0, "{spread}");
        millis = vec![100.0; 20];
        millis.push(1000.0);
        assert_eq!(threshold(&millis), Some(150.0));
    }

    #[test]
    fn a_short_past_is_none() {
        assert_eq!(threshold(&[1.0; 5]), None);
    }

    #[test]
    fn what_is_long_past_is_forgotten() {
        let mut millis = vec![1000.0; 60];
        millis.extend([100.0; 60]);
        assert_eq!(threshold(&millis), Some(150.0));
    }
}
