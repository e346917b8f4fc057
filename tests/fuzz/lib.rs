//! The part of tracecar that is fuzzed, compiled by itself.
//!
//! `propagation` uses nothing of ours, `config` only what stands below it, and of `telemetry` there is what reads error pages. So the fuzzers need not build the servers,
//! TLS and exporters above: coverage counts only what can be reached, and the build is short.

#![allow(dead_code, unused_imports, reason = "some of it is there for the parts that are left out")]

#[path = "../../src/telemetry/failures/cause/mod.rs"]
pub mod cause;
#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/exchange/mod.rs"]
pub mod exchange;
#[path = "../../src/propagation/mod.rs"]
pub mod propagation;
#[path = "../../src/telemetry/failures/scrub/mod.rs"]
pub mod scrub;
#[path = "../../src/stats.rs"]
pub mod stats;
#[path = "../../src/wire/mod.rs"]
pub mod wire;
#[path = "../../src/telemetry/words.rs"]
pub mod words;

/// Where `cause` is in tracecar.
pub mod telemetry {
    pub use crate::words;

    pub mod failures {
        pub use crate::{cause, scrub};
    }
}
