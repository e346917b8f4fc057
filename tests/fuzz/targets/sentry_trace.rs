#![no_main]

use tracecar::propagation::Format;

#[path = "../checks.rs"]
mod checks;

libfuzzer_sys::fuzz_target!(|data: &[u8]| checks::one_header(Format::SentryTrace, data));
