//! The part of tracecar that is fuzzed, compiled by itself.
//!
//! `propagation` uses nothing of ours, and `config` only what stands below it, so the fuzzers need not build the servers,
//! TLS and exporters above: coverage counts only what can be reached, and the build is short.

#![allow(dead_code, unused_imports, reason = "some of it is there for the parts that are left out")]

#[path = "../../src/config/mod.rs"]
pub mod config;
#[path = "../../src/exchange/mod.rs"]
pub mod exchange;
#[path = "../../src/propagation/mod.rs"]
pub mod propagation;
#[path = "../../src/stats.rs"]
pub mod stats;
#[path = "../../src/wire/mod.rs"]
pub mod wire;
