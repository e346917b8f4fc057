//! The path of a request.
//!
//! A front ([`inbound`]) decides where a request goes and what is known of it; `forward` acts. Everything that
//! both need is here.

mod body;
mod error;
pub mod forward;
pub mod inbound;

pub use body::{RequestBody, ResponseBody};

use std::sync::Arc;

use crate::config::Live;
use crate::exchange::{Match, Recorder};
use crate::net::server::Caller;
use crate::net::upstream::Pool;
use crate::stats::Stats;

/// What a worker needs to pass requests on. One per worker; nothing in it is shared with another but counters.
#[derive(Debug)]
pub struct Proxy {
    recorder: Arc<Recorder>,
    stats: Arc<Stats>,
}

impl Proxy {
    /// Passes requests on, and records them with `recorder`.
    pub fn new(recorder: Arc<Recorder>, stats: Arc<Stats>) -> Arc<Self> {
        Arc::new(Self { recorder, stats })
    }
}

/// What a front has decided about one request.
struct Job {
    /// The settings that this request sees, from its first byte to its last.
    live: Arc<Live>,
    /// Where it goes.
    to: Arc<Pool<RequestBody>>,
    /// Its route, and whether it is excluded.
    matched: Match,
    /// Who waits for the response.
    caller: Caller,
}
