//! Until when Sentry wants no events, or no transactions (SEN-5).

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{HeaderMap, StatusCode};
use sentry::transports::{RateLimiter, RateLimitingCategory};
use tokio::time::Instant;
use tracing::warn;

use super::account::Kind;

/// The longest that a word of Sentry's holds: a typing error there should not silence us until we are restarted.
const LONGEST: Duration = Duration::from_secs(24 * 3600);

/// Until when nothing of a kind is to be sent.
#[derive(Debug, Default)]
pub(super) struct Limits([Limit; Kind::ALL.len()]);

#[derive(Debug, Default)]
struct Limit {
    until: Option<Instant>,
    /// The log has heard of it.
    told: bool,
}

impl Limits {
    /// Whether nothing of this kind is to be sent now. The log hears of it when the first is not sent: bugsink closes
    /// transactions with each of its answers, which is no news to who sends none.
    pub(super) fn closed(&mut self, kind: Kind, now: Instant) -> bool {
        let limit = &mut self.0[kind as usize];
        let left =
            limit.until.map(|until| until.saturating_duration_since(now)).filter(|left| !left.is_zero());
        match left {
            Some(left) if !limit.told => {
                warn!(
                    kind = kind.as_str(),
                    seconds = left.as_secs(),
                    "Sentry wants none of these for a while"
                );
            }
            _ => {}
        }
        limit.told = left.is_some();
        limit.told
    }

    /// Takes note of what an answer says, whatever its status.
    pub(super) fn note(&mut self, status: StatusCode, headers: &HeaderMap, now: Instant) {
        let mut lists = headers.get_all("x-sentry-rate-limits").iter().peekable();
        if lists.peek().is_some() {
            for group in lists.filter_map(|list| list.to_str().ok()).flat_map(|list| list.split(',')) {
                self.read(now, |reader| reader.update_from_sentry_header(group));
            }
        } else if status == StatusCode::TOO_MANY_REQUESTS {
            self.read(now, |reader| match headers.get(RETRY_AFTER).and_then(|after| after.to_str().ok()) {
                Some(after) => reader.update_from_retry_after(after.trim()),
                None => reader.update_from_429(),
            });
        }
    }

    /// Takes note of one limit, as Sentry's own code reads it. That would let the shorter of two stand where the longer has to,
    /// so each has a reader of its own, and here the later moment stays.
    fn read(&mut self, now: Instant, update: impl FnOnce(&mut RateLimiter)) {
        let mut reader = RateLimiter::new();
        update(&mut reader);
        for kind in Kind::ALL {
            let category = match kind {
                Kind::Event => RateLimitingCategory::Error,
                Kind::Transaction => RateLimitingCategory::Transaction,
            };
            let Some(left) = reader.is_disabled(category) else { continue };
            // Sentry counts in seconds, and some microseconds have passed since the reader looked at the clock.
            let left = Duration::from_secs_f64(left.min(LONGEST).as_secs_f64().ceil());
            let until = &mut self.0[kind as usize].until;
            *until = (*until).max(Some(now + left));
        }
    }
}

#[cfg(test)]
mod tests {
    use http::HeaderValue;

    use super::*;

    const LIMITS: &str = "x-sentry-rate-limits";

    /// For how many seconds events and transactions are closed after these answers.
    fn after(answers: &[(u16, &[(&'static str, &str)])]) -> [u64; 2] {
        let now = Instant::now();
        let mut limits = Limits::default();
        for (status, list) in answers {
            let mut headers = HeaderMap::new();
            for (name, value) in *list {
                headers.append(*name, HeaderValue::from_str(value).unwrap());
            }
            limits.note(StatusCode::from_u16(*status).unwrap(), &headers, now);
        }
        Kind::ALL.map(|kind| limits.0[kind as usize].until.map_or(0, |until| (until - now).as_secs()))
    }

    #[test]
    fn limits_are_per_category_and_hold_on_any_status() {
        assert_eq!(after(&[(200, &[(LIMITS, "60:error:organization")])]), [60, 0]);
        assert_eq!(after(&[(429, &[(LIMITS, "60:transaction;span:key:quota")])]), [0, 60]);
        assert_eq!(after(&[(200, &[(LIMITS, "10::organization, 60:transaction:key")])]), [10, 60]);
        assert_eq!(after(&[(200, &[(LIMITS, "5:error:key"), (LIMITS, "7:transaction:key")])]), [5, 7]);
    }

    #[test]
    fn the_longer_limit_stays() {
        let long: (u16, &[_]) = (200, &[(LIMITS, "120:error:key")]);
        assert_eq!(after(&[long, (200, &[(LIMITS, "30:error:key")])]), [120, 0]);
        assert_eq!(after(&[long, (429, &[])]), [120, 60]);
    }

    #[test]
    fn categories_that_nobody_knows_limit_nothing() {
        assert_eq!(after(&[(429, &[(LIMITS, "60:profile;replay:key"), ("retry-after", "9")])]), [0, 0]);
    }

    #[test]
    fn a_429_without_categories_closes_all() {
        assert_eq!(after(&[(429, &[("retry-after", "9")])]), [9, 9]);
        assert_eq!(after(&[(429, &[])]), [60, 60]);
        assert_eq!(after(&[(429, &[("retry-after", "soon")])]), [60, 60]);
        assert_eq!(after(&[(503, &[("retry-after", "9")])]), [0, 0], "only 429 limits without saying so");
    }

    #[test]
    fn no_word_holds_longer_than_a_day() {
        for long in
            ["1000000000:error:key", "1e300:error:key", "inf:error:key", "99999999999999999999:error:key"]
        {
            assert!(after(&[(200, &[(LIMITS, long)])])[0] <= LONGEST.as_secs(), "{long}");
        }
        assert_eq!(after(&[(200, &[(LIMITS, "NaN:error:key,-5:error:key,:::,,60")])]), [0, 0]);
    }

    #[test]
    fn a_limit_is_over_when_its_time_is() {
        let now = Instant::now();
        let mut limits = Limits::default();
        limits.note(StatusCode::TOO_MANY_REQUESTS, &HeaderMap::new(), now);
        assert!(limits.closed(Kind::Event, now + Duration::from_secs(59)));
        assert!(!limits.closed(Kind::Event, now + Duration::from_secs(60)));
    }
}
