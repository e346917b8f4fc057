//! Which process owns a socket: what `lineage` asks about prefork servers.
//!
//! Works on Linux where the app's processes are visible to us: on one host, or in a pod that shares its process namespace, with
//! the same user or the right to look at others (the owner of each `/proc/<pid>/fd`). Elsewhere nothing is found, which costs
//! nothing but the method.
//!
//! Two questions, since they age differently. [`Processes::owner_of`] is asked once per accepted connection: a socket does
//! not change its process. [`Processes::serves`] is asked per call, always afresh: workers open and close
//! connections all the time, and an answer from a moment ago could name the wrong one. All that is remembered is which socket a
//! connection is, once it was accepted, and which processes to look at first (`process/family.rs`).
//!
//! A socket that several processes hold (it was open when one forked the other) is owned by none. Among the server's own processes, and
//! those that began since the last question, that is checked for each question; a holder among all others is noticed with the next look at
//! all processes, which is up to ten seconds later.
//!
//! All reading is on tokio's threads for blocking work, two at a time, within a time budget that includes the wait for
//! one of them (`benches/process.rs`). Most of the time goes to reading the workers' file descriptors; which socket a
//! connection is takes a microsecond.

#[cfg(target_os = "linux")]
mod connections;
#[cfg(target_os = "linux")]
mod family;

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use crate::exchange::{HandedOver, Owner};

/// Lookups at a time: they only compete with each other for the same kernel locks, and with the app for its cores.
const AT_A_TIME: usize = 2;

/// Looks sockets up, within a budget.
#[derive(Debug)]
pub struct Processes {
    permits: Arc<Semaphore>,
    table: Arc<Table>,
    found: AtomicU64,
    not_found: AtomicU64,
    shared: AtomicU64,
    over_budget: AtomicU64,
}

/// The process at the other end of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ProcessSockets {
    /// Its id, as we see it.
    pub process: u32,
    /// Its end of the connection. Asked for again with each question: who holds it cannot be another of the same id.
    inode: u64,
}

/// Who listens on a port of this host, as far as we can see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Listens {
    /// Nobody in our network namespace.
    Nobody,
    /// A process that we cannot see, or may not look at.
    Unseen,
    /// The process with this id; one of them, where several share the socket.
    Process(u32),
}

/// Looks for who listens on `port`, by all there is in `/proc`. For people who ask once: it blocks, and has no budget.
#[cfg(target_os = "linux")]
pub fn who_listens(port: u16) -> Listens {
    let inodes = connections::listening(port);
    if inodes.is_empty() {
        return Listens::Nobody;
    }
    let holds = |process: &u32| family::sockets_of(*process).any(|inode| inodes.contains(&inode));
    family::all().find(holds).map_or(Listens::Unseen, Listens::Process)
}

/// The same where nothing can be seen.
#[cfg(not(target_os = "linux"))]
pub fn who_listens(_: u16) -> Listens {
    Listens::Unseen
}

/// How lookups ended.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Lookups {
    /// One process owns the socket; or the question what it serves was answered.
    pub found: u64,
    /// No visible process does.
    pub not_found: u64,
    /// Several do.
    pub shared: u64,
    /// There was no time.
    pub over_budget: u64,
}

/// Why a lookup has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Failure {
    NotFound,
    Shared,
    OverBudget,
}

impl Default for Processes {
    fn default() -> Self {
        Self {
            permits: Arc::new(Semaphore::new(AT_A_TIME)),
            table: Arc::default(),
            found: AtomicU64::new(0),
            not_found: AtomicU64::new(0),
            shared: AtomicU64::new(0),
            over_budget: AtomicU64::new(0),
        }
    }
}

impl Processes {
    /// The process that owns `app_side`, the other end of a connection that we accepted on `our_side`, if that is found
    /// within `budget`. For once per connection.
    pub async fn owner_of(
        &self,
        app_side: SocketAddr,
        our_side: SocketAddr,
        budget: Duration,
    ) -> Option<Arc<ProcessSockets>> {
        let look = move |table: &Table, until| table.owner_of(app_side, our_side, until);
        let found = self.within(budget, look).await?;
        Some(Arc::new(found))
    }

    /// Which of `connections` the process owns now, and which another. `None` where that cannot be said: no time, the
    /// caller's own connection is no more, or one of its own is shared with another process. For each call that needs it.
    pub async fn serves(
        &self,
        caller: &ProcessSockets,
        connections: Vec<HandedOver>,
        budget: Duration,
    ) -> Option<Owner> {
        let caller = *caller;
        self.within(budget, move |table, until| table.serves(caller, connections, until)).await
    }

    /// How lookups have ended so far.
    pub fn lookups(&self) -> Lookups {
        let value = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Lookups {
            found: value(&self.found),
            not_found: value(&self.not_found),
            shared: value(&self.shared),
            over_budget: value(&self.over_budget),
        }
    }

    async fn within<T: Send + 'static>(
        &self,
        budget: Duration,
        look: impl FnOnce(&Table, Instant) -> Result<T, Failure> + Send + 'static,
    ) -> Option<T> {
        let until = Instant::now() + budget;
        let (permits, table) = (self.permits.clone(), self.table.clone());
        let looking = async move {
            // The permit goes with the work: a lookup that is no longer waited for still occupies its thread.
            let permit = permits.acquire_owned().await.map_err(|_| Failure::OverBudget)?;
            let work = tokio::task::spawn_blocking(move || {
                let answer = look(&table, until);
                if table.is_old() {
                    // Nobody waits for this, so it may take its time.
                    tokio::task::spawn_blocking(move || table.refresh());
                }
                drop(permit);
                answer
            });
            work.await.unwrap_or(Err(Failure::NotFound))
        };
        let answer = tokio::time::timeout(budget, looking).await.unwrap_or(Err(Failure::OverBudget));
        let counter = match &answer {
            Ok(_) => &self.found,
            Err(Failure::NotFound) => &self.not_found,
            Err(Failure::Shared) => &self.shared,
            Err(Failure::OverBudget) => &self.over_budget,
        };
        counter.fetch_add(1, Ordering::Relaxed);
        answer.ok()
    }
}

fn in_time(until: Instant) -> Result<(), Failure> {
    if Instant::now() < until { Ok(()) } else { Err(Failure::OverBudget) }
}

/// What is known of sockets and processes.
#[cfg(target_os = "linux")]
#[derive(Debug, Default)]
struct Table {
    connections: connections::Connections,
    family: family::Family,
}

#[cfg(target_os = "linux")]
impl Table {
    fn owner_of(
        &self,
        app_side: SocketAddr,
        our_side: SocketAddr,
        until: Instant,
    ) -> Result<ProcessSockets, Failure> {
        in_time(until)?;
        let inode = self.connections.inode(app_side, our_side, until)?.ok_or(Failure::NotFound)?;
        Ok(ProcessSockets { process: self.family.owner(inode, until)?, inode })
    }

    fn serves(
        &self,
        caller: ProcessSockets,
        mut connections: Vec<HandedOver>,
        until: Instant,
    ) -> Result<Owner, Failure> {
        let ProcessSockets { process, inode } = caller;
        for connection in &mut connections {
            in_time(until)?;
            if connection.socket.is_none() {
                connection.socket = self.connections.inode(connection.peer, connection.local, until)?;
            }
        }
        // One without a socket waits to be accepted: nobody serves it, so it has caused nothing.
        connections.retain(|connection| connection.socket.is_some());
        // Read last: whoever accepted one of them has it by now.
        let held: Vec<u64> = family::sockets_of(process).collect();
        if !held.contains(&inode) {
            return Err(Failure::NotFound);
        }
        let (serves, elsewhere): (Vec<_>, Vec<_>) = connections
            .into_iter()
            .partition(|connection| connection.socket.is_some_and(|socket| held.contains(&socket)));
        let mut own: Vec<u64> = serves.iter().filter_map(|connection| connection.socket).collect();
        own.push(inode);
        if self.family.shares(process, &own, until)? {
            return Err(Failure::Shared);
        }
        Ok(Owner { process, serves, elsewhere })
    }

    fn is_old(&self) -> bool {
        self.family.is_old()
    }

    fn refresh(&self) {
        self.family.refresh();
    }
}

/// Elsewhere than on Linux nothing can be seen.
#[cfg(not(target_os = "linux"))]
#[derive(Debug, Default)]
struct Table;

#[cfg(not(target_os = "linux"))]
impl Table {
    fn owner_of(&self, _: SocketAddr, _: SocketAddr, until: Instant) -> Result<ProcessSockets, Failure> {
        in_time(until)?;
        Err(Failure::NotFound)
    }

    fn serves(&self, _: ProcessSockets, _: Vec<HandedOver>, until: Instant) -> Result<Owner, Failure> {
        in_time(until)?;
        Err(Failure::NotFound)
    }

    fn is_old(&self) -> bool {
        false
    }

    fn refresh(&self) {}
}
