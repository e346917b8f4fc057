//! Commands that are more than a call into the library.

pub mod ca;
pub mod check;
pub mod diff;
pub mod doctor;
