//! Calls that wait for the end of the request that made them.

use std::collections::HashMap;
use std::sync::Arc;

use opentelemetry::trace::SpanId;

use crate::exchange::Record;

/// Requests whose calls are kept, of each generation.
const MAX_REQUESTS: usize = 2048;

/// Calls that are kept of one request.
const MAX_CALLS: usize = 32;

/// Memory of the calls that are kept, of each generation.
const MAX_BYTES: usize = 4 * 1024 * 1024;

/// Finished calls by the span of the request that made them. What nobody asks for, for the request has no record or has been
/// answered before, leaves with its generation.
#[derive(Debug, Default)]
pub struct Calls {
    young: HashMap<SpanId, Vec<Arc<Record>>>,
    young_bytes: usize,
    old: HashMap<SpanId, Vec<Arc<Record>>>,
}

impl Calls {
    /// Keeps a finished call of the request with that span.
    pub fn keep(&mut self, parent: SpanId, call: &Arc<Record>) {
        if self.young.len() >= MAX_REQUESTS || self.young_bytes >= MAX_BYTES {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        let calls = match self.old.get_mut(&parent) {
            Some(calls) => calls,
            None => self.young.entry(parent).or_default(),
        };
        if calls.len() < MAX_CALLS {
            calls.push(Arc::clone(call));
            // Too much where they are among the old, and where somebody takes them: that only makes them leave earlier.
            self.young_bytes += call.size_bytes();
        }
    }

    /// The calls of a request that has ended, in the order in which they began.
    pub fn take(&mut self, of: SpanId) -> Vec<Arc<Record>> {
        if self.young.is_empty() && self.old.is_empty() {
            return Vec::new();
        }
        let mut calls = self.young.remove(&of).or_else(|| self.old.remove(&of)).unwrap_or_default();
        calls.sort_by_key(|call| call.started_at);
        calls
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::exchange::sample_call;

    fn span(number: usize) -> SpanId {
        SpanId::from(number as u64 + 1)
    }

    fn call_after(milliseconds: u64) -> Arc<Record> {
        let mut call = sample_call();
        call.started_at += Duration::from_millis(milliseconds);
        Arc::new(call)
    }

    #[test]
    fn calls_are_in_the_order_in_which_they_began_and_taken_once() {
        let mut calls = Calls::default();
        for after in [30, 10, 20] {
            calls.keep(span(0), &call_after(after));
        }
        calls.keep(span(1), &call_after(0));
        let taken = calls.take(span(0));
        assert_eq!(taken.len(), 3);
        assert!(taken.is_sorted_by_key(|call| call.started_at));
        assert_eq!(
            (calls.take(span(0)).len(), calls.take(span(1)).len(), calls.take(span(2)).len()),
            (0, 1, 0)
        );
    }

    #[test]
    fn a_request_with_many_calls_keeps_the_first() {
        let mut calls = Calls::default();
        for after in 0..100 {
            calls.keep(span(0), &call_after(after));
        }
        let taken = calls.take(span(0));
        assert_eq!(taken.len(), MAX_CALLS);
        assert_eq!(taken.last().map(|call| call.started_at), Some(call_after(31).started_at));
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes() {
        let mut calls = Calls::default();
        let mut call = sample_call();
        call.put(&"x".repeat(60 * 1024));
        let call = Arc::new(call);
        for number in 0..1000 {
            calls.keep(span(number), &call);
            let kept = calls.young.values().chain(calls.old.values()).flatten().count();
            assert!(kept * call.size_bytes() <= 2 * (MAX_BYTES + call.size_bytes()), "{number}: {kept}");
        }
        assert_eq!((calls.take(span(0)).len(), calls.take(span(999)).len()), (0, 1));
    }

    #[test]
    fn what_nobody_asks_for_leaves_and_what_is_asked_for_soon_is_there() {
        let mut calls = Calls::default();
        let call = call_after(0);
        let many = 5 * MAX_REQUESTS;
        for number in 0..many {
            calls.keep(span(number), &call);
            assert!(calls.young.len() <= MAX_REQUESTS && calls.old.len() <= MAX_REQUESTS);
        }
        assert_eq!(calls.take(span(0)).len(), 0);
        // One whose generation is the old one by now is still the same request.
        calls.keep(span(many - MAX_REQUESTS), &call);
        for (number, count) in [(many - MAX_REQUESTS, 2), (many - 1, 1)] {
            assert_eq!(calls.take(span(number)).len(), count, "{number} of {many}");
        }
    }
}
