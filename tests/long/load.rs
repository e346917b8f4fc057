//! Requests at an even pace.
//!
//! A request's time counts from the moment at which it was due, not from when its connection came to it: a sidecar
//! that stalls must not be spared by callers that wait for it.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use crate::support::origin::Peer;

const CONNECTIONS: u32 = 10;

/// Load that goes on until it is stopped.
pub struct Load {
    stop: Arc<AtomicBool>,
    callers: Vec<JoinHandle<Vec<Sample>>>,
}

/// What became of the requests of a time.
#[derive(Debug, Default)]
pub struct Sample {
    due: Duration,
    took: Duration,
}

/// All samples of a load, in the order of their times.
pub struct Samples(Vec<Sample>);

impl Load {
    /// Sends `rate` requests per second to `address`.
    ///
    /// # Panics
    /// The callers do, when a request is not answered with 200.
    pub fn start(address: SocketAddr, rate: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let begun = Instant::now();
        let interval = Duration::from_secs(1) * CONNECTIONS / rate;
        let caller = |number: u32| {
            let stop = stop.clone();
            let first = interval * number / CONNECTIONS;
            std::thread::spawn(move || call(address, begun, first, interval, &stop))
        };
        let callers = (0..CONNECTIONS).map(caller).collect();
        Self { stop, callers }
    }

    /// Ends the load, and returns when every request has been answered.
    pub fn stop(self) -> Samples {
        self.stop.store(true, Ordering::Relaxed);
        let samples = self.callers.into_iter().map(|caller| caller.join().expect("no request is lost"));
        Samples(samples.flatten().collect())
    }
}

fn call(
    address: SocketAddr,
    begun: Instant,
    first: Duration,
    interval: Duration,
    stop: &AtomicBool,
) -> Vec<Sample> {
    let mut peer = Peer::connect(address);
    let mut samples = Vec::new();
    let mut due = first;
    while !stop.load(Ordering::Relaxed) {
        // This is the pace, not a wait for something to happen.
        std::thread::sleep((begun + due).saturating_duration_since(Instant::now()));
        peer.send("GET /items/1?page=2 HTTP/1.1\r\nHost: shop\r\nUser-Agent: load/1\r\n\r\n");
        let answer = peer.response();
        assert_eq!((answer.status(), answer.text().as_str()), (200, "ok"));
        samples.push(Sample { due, took: begun.elapsed().saturating_sub(due) });
        due += interval;
    }
    samples
}

impl Samples {
    pub fn count(&self) -> u64 {
        self.0.len() as u64
    }

    /// Median and 99th percentile of the requests that were due in this time.
    pub fn percentiles(&self, from: Duration, to: Duration) -> (Duration, Duration) {
        let within = self.0.iter().filter(|sample| (from..to).contains(&sample.due));
        let mut times: Vec<_> = within.map(|sample| sample.took).collect();
        times.sort_unstable();
        let at = |share: f64| times[((times.len() - 1) as f64 * share) as usize];
        (at(0.5), at(0.99))
    }
}
