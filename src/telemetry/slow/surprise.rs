//! How surprising it is that something happens more often than before.

/// How far two shares are from being the same one, in nats: the logarithm of the likelihood ratio of "`hits` of `of`
/// and `hits_before` of `of_before` have shares of their own" to "they have one in common". Zero where the share did
/// not grow.
///
/// It takes into account how well the past is known: nothing is surprising after a past of nothing. As long as one
/// request says nothing about the next, chance alone reaches `x` nats with a probability of about `exp(-x)`: 16 nats
/// are one in 10⁷.
pub fn surprise(hits: f64, of: f64, hits_before: f64, of_before: f64) -> f64 {
    if of <= 0.0 || of_before <= 0.0 || hits / of <= hits_before / of_before {
        return 0.0;
    }
    let common = (hits + hits_before) / (of + of_before);
    gain(hits, of, common) + gain(hits_before, of_before, common)
}

/// How much better a share of its own explains `hits` of `of` than `share` does, in nats.
fn gain(hits: f64, of: f64, share: f64) -> f64 {
    // The limit of x ln x at zero is zero.
    let term = |part: f64, expected: f64| if part > 0.0 { part * (part / expected).ln() } else { 0.0 };
    term(hits, of * share) + term(of - hits, of * (1.0 - share))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_share_and_a_smaller_one_are_no_surprise() {
        assert!(surprise(5.0, 100.0, 50.0, 1000.0) < 1e-9);
        assert_eq!(surprise(1.0, 100.0, 50.0, 1000.0), 0.0);
        assert_eq!(surprise(0.0, 0.0, 50.0, 1000.0), 0.0);
    }

    #[test]
    fn without_a_past_nothing_is_surprising() {
        assert_eq!(surprise(100.0, 100.0, 0.0, 0.0), 0.0);
        assert!(surprise(5.0, 5.0, 0.0, 5.0) < 10.0);
    }

    #[test]
    fn it_grows_with_the_number_of_requests_and_the_difference() {
        let few = surprise(5.0, 50.0, 10.0, 1000.0);
        let more = surprise(50.0, 500.0, 10.0, 1000.0);
        let clearer = surprise(250.0, 500.0, 10.0, 1000.0);
        assert!(few < more && more < clearer, "{few} {more} {clearer}");
    }

    // 10 of 10 after a long past of one half: the odds are 2^-10.
    #[test]
    fn it_is_the_logarithm_of_the_odds() {
        let nats = surprise(10.0, 10.0, 5e8, 1e9);
        assert!((nats - 10.0 * 2_f64.ln()).abs() < 1e-3, "{nats}");
    }
}
