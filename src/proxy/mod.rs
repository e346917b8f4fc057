//! The path of a request.
//!
//! A front ([`inbound`] or [`outbound`]) decides where a request goes and what is known of it; `forward` acts. Everything
//! that both need is here.

mod admission;
mod body;
mod cause;
mod connect;
mod error;
mod facts;
pub mod forward;
mod front;
mod grpc;
pub mod inbound;
mod inside;
pub mod outbound;
mod pools;
mod recipient;
mod transparent;
mod vigil;

pub use body::{RequestBody, ResponseBody};
pub use front::{Front, Role, bounds};
pub use inside::Interception;

use std::sync::Arc;
use std::time::{Instant, SystemTime};

use self::error::Error;
use self::vigil::Watch;
use crate::config::{Live, Trust};
use crate::exchange::{Destination, Keep, Lineage, Recorder};
use crate::net::process::Processes;
use crate::net::server::Caller;
use crate::net::upstream::Pool;
use crate::stats::Stats;

/// What a worker needs to pass requests on. One per worker; nothing in it is shared with another but counters and the
/// open exchanges that calls may belong to.
#[derive(Debug)]
pub struct Proxy {
    recorder: Arc<Recorder>,
    stats: Arc<Stats>,
    /// The open exchanges of all workers, to which the calls of the service may belong.
    lineage: Arc<Lineage>,
    /// Looks into the process table, where that is wanted.
    processes: Arc<Processes>,
    /// Whoever waits for content.
    watch: Arc<Watch>,
}

impl Proxy {
    /// Passes requests on, and records them with `recorder`.
    pub fn new(
        recorder: Arc<Recorder>,
        stats: Arc<Stats>,
        lineage: Arc<Lineage>,
        processes: Arc<Processes>,
    ) -> Arc<Self> {
        Arc::new(Self { recorder, stats, lineage, processes, watch: Arc::default() })
    }
}

/// What a front has decided about one request.
struct Job {
    /// The settings that this request sees, from its first byte to its last.
    live: Arc<Live>,
    /// Where it goes, or why it goes nowhere.
    to: Result<Arc<Pool<RequestBody>>, Error>,
    /// The template that its path matches.
    route: Option<Arc<str>>,
    /// Whether it leaves a record.
    keep: Keep,
    /// Who waits for the response.
    caller: Caller,
    /// Which way it goes.
    way: Way,
}

/// Which way a request goes, with what is special about that.
enum Way {
    /// From the network to the service, by a caller whose trace context is worth so much.
    Inbound(Trust),
    /// From the service to the network.
    Outbound(Outgoing),
}

/// What is special about a call of the service.
struct Outgoing {
    /// What the settings say of the destination.
    destination: Arc<Destination>,
    /// `http` or `https`, as spoken with the destination.
    scheme: &'static str,
    /// The host and port that are asked for, as they belong into a URL.
    authority: String,
    /// When the call came. Its cause may take a moment to find, and that is part of its time.
    arrived: (SystemTime, Instant),
    /// A tunnel is asked for, of whose inside nothing will be seen.
    tunnel: bool,
}
