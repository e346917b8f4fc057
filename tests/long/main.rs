//! What only shows over time: load while the collector fails, and faults of all kinds until everything is back where
//! it began.
//!
//! `cargo test --release --test long -- --nocapture` takes some twenty minutes, half of them for the soak.
//! `TRACECAR_LONG_SECONDS` sets the length of a phase (60 without it) and of the soak (600 without it); 5 is enough to
//! see that nothing is broken.

mod attack;
mod certificates;
mod load;
mod outage;
mod reload;
mod soak;
#[path = "../it/support/mod.rs"]
#[expect(dead_code, reason = "shared with the quick tests, which use more of it")]
mod support;

use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// Length of a phase.
fn phase() -> Duration {
    length(60)
}

/// What the environment says, or else so many seconds.
fn length(otherwise: u64) -> Duration {
    let seconds =
        std::env::var("TRACECAR_LONG_SECONDS").ok().map(|text| text.parse().expect("whole seconds"));
    Duration::from_secs(seconds.unwrap_or(otherwise))
}

/// Lets one test run at a time: each of them measures the machine.
fn alone() -> MutexGuard<'static, ()> {
    static ONE: Mutex<()> = Mutex::new(());
    ONE.lock().unwrap_or_else(PoisonError::into_inner)
}
