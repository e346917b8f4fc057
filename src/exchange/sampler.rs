//! Which traces begin sampled (SMP-1 to SMP-13).

use opentelemetry::trace::TraceId;

/// The low 56 bits of a trace id, and the range of thresholds over them (SMP-8).
const RANGE: u64 = 1 << 56;

/// A head sampler, as `OTEL_TRACES_SAMPLER` names them (SMP-1).
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sampler {
    /// Whether a caller's decision is followed (SMP-3).
    pub parent_based: bool,
    /// What decides otherwise.
    pub root: Root,
}

/// The sampler of traces that begin here.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Root {
    /// Every trace.
    AlwaysOn,
    /// No trace.
    AlwaysOff,
    /// A share of traces, from 0 to 1, the same for everybody who sees the trace id (SMP-7).
    Ratio(f64),
}

impl Default for Sampler {
    /// `parentbased_always_on` (SMP-1).
    fn default() -> Self {
        Self { parent_based: true, root: Root::AlwaysOn }
    }
}

impl Sampler {
    /// Decides for one exchange. `parent` is the caller's sampled flag, where it sent a context.
    pub fn samples(&self, trace_id: TraceId, parent: Option<bool>) -> bool {
        if let (true, Some(sampled)) = (self.parent_based, parent) {
            return sampled;
        }
        match self.root {
            Root::AlwaysOn => true,
            Root::AlwaysOff => false,
            // R >= T samples (SMP-8, SMP-12): the rule of the coming ProbabilitySampler, so that trace ids
            // sampled here are sampled by others at the same ratio.
            Root::Ratio(ratio) => {
                let threshold = ((1.0 - ratio.clamp(0.0, 1.0)) * RANGE as f64) as u64;
                let bytes = trace_id.to_bytes();
                let low = u64::from_be_bytes(bytes[8..].try_into().expect("8 of 16 bytes"));
                low & (RANGE - 1) >= threshold
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn id(low: u64) -> TraceId {
        TraceId::from((0x1234_u128 << 64) | u128::from(low))
    }

    #[test]
    fn a_parent_decides_only_where_the_sampler_asks_it() {
        let follow = Sampler { parent_based: true, root: Root::AlwaysOff };
        assert!(follow.samples(id(1), Some(true)));
        assert!(!follow.samples(id(1), None));
        let own = Sampler { parent_based: false, root: Root::AlwaysOff };
        assert!(!own.samples(id(1), Some(true)));
    }

    #[test]
    fn a_ratio_samples_ids_at_or_above_its_threshold() {
        let quarter = Sampler { parent_based: false, root: Root::Ratio(0.25) };
        assert!(!quarter.samples(id(RANGE / 4 * 3 - 1), None));
        assert!(quarter.samples(id(RANGE / 4 * 3), None));
        let none = Sampler { parent_based: false, root: Root::Ratio(0.0) };
        assert!(!none.samples(id(RANGE - 1), None));
        let all = Sampler { parent_based: false, root: Root::Ratio(1.0) };
        assert!(all.samples(id(0), None));
    }
}
