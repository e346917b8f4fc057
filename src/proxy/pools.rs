//! The connections of one worker to all destinations that its service calls.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::RequestBody;
use crate::config::Upstream;
use crate::net::connector::Connector;
use crate::net::upstream::Pool;
use crate::stats::Stats;

/// Destinations that are remembered. Beyond this many, those to which no connection is open are forgotten: a service that
/// crawls the web should not fill the memory with the names that it has seen.
const MAX_POOLS: usize = 256;

/// Connections by destination.
#[derive(Debug)]
pub(super) struct Pools {
    connector: Arc<Connector>,
    stats: Arc<Stats>,
    pools: Mutex<Known>,
}

#[derive(Debug)]
struct Known {
    pools: HashMap<Upstream, Arc<Pool<RequestBody>>>,
    /// How long connections are kept without use.
    keep: Duration,
    /// How many connections there may be to one destination.
    limit: Option<NonZeroUsize>,
}

impl Pools {
    pub(super) fn new(connector: Arc<Connector>, keep: Duration, stats: Arc<Stats>) -> Arc<Self> {
        let known = Known { pools: HashMap::new(), keep, limit: None };
        Arc::new(Self { connector, stats, pools: Mutex::new(known) })
    }

    /// Keeps connections without use for that long from now on.
    pub(super) fn keep_for(&self, keep: Duration) {
        let mut known = self.lock();
        known.keep = keep;
        known.pools.values().for_each(|pool| pool.keep_for(keep));
    }

    /// Opens no more connections than that to one destination from now on.
    pub(super) fn allow(&self, limit: Option<NonZeroUsize>) {
        let mut known = self.lock();
        known.limit = limit;
        known.pools.values().for_each(|pool| pool.allow(limit));
    }

    /// What opens connections.
    pub(super) fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }

    /// The connections to `upstream`.
    pub(super) fn of(&self, upstream: Upstream) -> Arc<Pool<RequestBody>> {
        let mut known = self.lock();
        let Known { pools, keep, limit } = &mut *known;
        if let Some(known) = pools.get(&upstream) {
            return known.clone();
        }
        if pools.len() >= MAX_POOLS {
            pools.retain(|_, pool| Arc::strong_count(pool) > 1 || pool.keeps_any());
        }
        let pool = Pool::new(upstream.clone(), self.connector.clone(), *keep, self.stats.clone());
        pool.allow(*limit);
        // Where all are busy, one more is not remembered; it works all the same.
        if pools.len() < MAX_POOLS {
            pools.insert(upstream, pool.clone());
        }
        pool
    }

    fn lock(&self) -> MutexGuard<'_, Known> {
        self.pools.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
