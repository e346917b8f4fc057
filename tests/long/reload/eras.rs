//! Which configuration was in force when.

use std::sync::Arc;
use std::time::Instant;

use super::model::{Model, Side};

/// All configurations that were in force, in order.
#[derive(Default)]
pub struct Eras(Vec<Era>);

struct Era {
    /// The change that brought it.
    after: String,
    model: Arc<Model>,
    /// It was not in force before its file was written.
    earliest: Instant,
    /// From here on it was, and the one before was not.
    surely: Instant,
}

impl Eras {
    /// `model` came into force after `earliest`, and before now.
    pub fn add(&mut self, after: &str, model: Arc<Model>, earliest: Instant) {
        self.0.push(Era { after: after.to_owned(), model, earliest, surely: Instant::now() });
    }

    /// All that may have been in force at some moment of this time.
    pub fn between(&self, from: Instant, to: Instant) -> impl Iterator<Item = &Model> {
        // Those from `first` on may have been in force at `from` or later.
        let first = self.0.partition_point(|era| era.surely <= from).saturating_sub(1);
        self.0[first..].iter().take_while(move |era| era.earliest <= to).map(|era| &*era.model)
    }

    /// The last change that had begun.
    pub fn at(&self, when: Instant) -> &str {
        let begun = self.0.partition_point(|era| era.earliest <= when);
        self.0.get(begun.saturating_sub(1)).map_or("", |era| &era.after)
    }

    /// Whether a request of the traffic, which came with a sampled context, has a span; `None` where that is not sure.
    pub fn sampled(&self, side: Side, from: Instant, to: Instant) -> Option<bool> {
        let mut all = self.between(from, to).map(|model| model.samples(side, true));
        let first = all.next()??;
        all.all(|other| other == Some(first)).then_some(first)
    }
}
