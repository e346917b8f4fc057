//! The connections of one worker to all destinations that its service calls.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

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
    pools: Mutex<HashMap<Upstream, Arc<Pool<RequestBody>>>>,
}

impl Pools {
    pub(super) fn new(connector: Arc<Connector>, stats: Arc<Stats>) -> Arc<Self> {
        Arc::new(Self { connector, stats, pools: Mutex::default() })
    }

    /// What opens connections.
    pub(super) fn connector(&self) -> &Arc<Connector> {
        &self.connector
    }

    /// The connections to `upstream`.
    pub(super) fn of(&self, upstream: Upstream) -> Arc<Pool<RequestBody>> {
        let mut pools = self.pools.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = pools.get(&upstream) {
            return known.clone();
        }
        if pools.len() >= MAX_POOLS {
            pools.retain(|_, pool| Arc::strong_count(pool) > 1 || pool.keeps_any());
        }
        let pool = Pool::new(upstream.clone(), self.connector.clone(), self.stats.clone());
        // Where all are busy, one more is not remembered; it works all the same.
        if pools.len() < MAX_POOLS {
            pools.insert(upstream, pool.clone());
        }
        pool
    }
}
