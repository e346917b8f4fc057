//! Data-path threads.
//!
//! Each worker is one thread with a runtime, listening sockets, upstream connections and an outbox of its own: no
//! request crosses a thread. Only whole connections do, once, when one worker has more of them than another: the
//! kernel spreads connections by hash, and a sidecar has few and long-lived ones.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tracing::debug;

use crate::exchange::Outbox;
use crate::net::server::Handler;
use crate::net::{Drain, listener};
use crate::stats::Stats;

/// What all workers know of each other.
#[derive(Debug)]
pub(crate) struct Peers(Vec<Peer>);

#[derive(Debug)]
struct Peer {
    open: AtomicUsize,
    inbox: mpsc::UnboundedSender<Handed>,
}

/// A new connection, with the number of the listener that it came in on. On its way to another worker it is a
/// standard library stream, which belongs to no runtime.
#[derive(Debug)]
pub(crate) struct Incoming<S> {
    listener: usize,
    stream: S,
    peer: SocketAddr,
}

type Handed = Incoming<std::net::TcpStream>;

/// Where a worker gets connections from the others.
pub(crate) type Inbox = mpsc::UnboundedReceiver<Handed>;

/// How many connections one worker may have more than another before it hands new ones over.
const UNEVENNESS: usize = 1;

impl Peers {
    /// Makes `count` workers known to each other; the receivers are theirs, in order.
    pub(crate) fn new(count: usize) -> (Arc<Self>, Vec<Inbox>) {
        let (peers, inboxes) = (0..count)
            .map(|_| {
                let (inbox, receiver) = mpsc::unbounded_channel();
                (Peer { open: AtomicUsize::new(0), inbox }, receiver)
            })
            .unzip();
        (Arc::new(Self(peers)), inboxes)
    }

    /// Hands a connection that worker `me` has accepted to one with less to do, or gives it back to be served. It is
    /// counted where it goes at once, so that a burst is spread and not sent to one.
    fn place(&self, me: usize, incoming: Incoming<TcpStream>) -> Option<Incoming<TcpStream>> {
        let worker = self.least_busy(me);
        self.0[worker].open.fetch_add(1, Ordering::Relaxed);
        if worker == me {
            return Some(incoming);
        }
        let Incoming { listener, stream, peer } = incoming;
        let handed = match stream.into_std() {
            Ok(stream) => {
                self.0[worker].inbox.send(Incoming { listener, stream, peer }).map_err(|back| back.0)
            }
            Err(error) => {
                debug!(%error, "cannot hand a connection over");
                self.left(worker);
                return None;
            }
        };
        // The other worker has seen the drain begin before us.
        let Err(Incoming { listener, stream, peer }) = handed else {
            return None;
        };
        self.left(worker);
        let stream = TcpStream::from_std(stream).ok()?;
        self.0[me].open.fetch_add(1, Ordering::Relaxed);
        Some(Incoming { listener, stream, peer })
    }

    /// Takes a connection from another worker, which has counted it as ours.
    fn take_over(&self, me: usize, handed: Handed, serve: impl Fn(Incoming<TcpStream>)) {
        let Incoming { listener, stream, peer } = handed;
        match TcpStream::from_std(stream) {
            Ok(stream) => serve(Incoming { listener, stream, peer }),
            Err(error) => {
                debug!(%error, "cannot take a connection over");
                self.left(me);
            }
        }
    }

    /// A connection counted for `worker` is no longer open.
    fn left(&self, worker: usize) {
        self.0[worker].open.fetch_sub(1, Ordering::Relaxed);
    }

    /// The worker that a new connection at worker `me` should go to.
    fn least_busy(&self, me: usize) -> usize {
        let open = |worker: usize| self.0[worker].open.load(Ordering::Relaxed);
        let least = (0..self.0.len()).min_by_key(|worker| open(*worker)).unwrap_or(me);
        if open(me) <= open(least) + UNEVENNESS { me } else { least }
    }
}

/// One worker, ready to run.
pub(crate) struct Worker<H> {
    pub(crate) number: usize,
    pub(crate) listeners: Vec<(std::net::TcpListener, Arc<H>)>,
    pub(crate) peers: Arc<Peers>,
    pub(crate) inbox: Inbox,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) stats: Arc<Stats>,
    /// Begins when no new connections are wanted and those there are should finish.
    pub(crate) drain: Drain,
    /// Begins when nobody wants to wait any longer.
    pub(crate) cut: Drain,
    /// How long connections may take to finish.
    pub(crate) drain_time: Duration,
    /// Called when the connections that are left are about to be cut off.
    pub(crate) cutting: Box<dyn FnOnce() + Send>,
}

impl<H: Handler> Worker<H> {
    /// Accepts and serves until drained.
    pub(crate) async fn run(self) -> std::io::Result<()> {
        let Self { number, listeners, peers, mut inbox, outbox, stats, drain, cut, drain_time, cutting } =
            self;
        // Closed when the last connection has dropped its end.
        let (alive, mut all_gone) = mpsc::channel::<()>(1);
        let handlers: Vec<Arc<H>> = listeners.iter().map(|(_, handler)| handler.clone()).collect();
        let serve = {
            let (peers, drain, stats) = (peers.clone(), drain.clone(), stats.clone());
            move |Incoming { listener, stream, peer }: Incoming<TcpStream>| {
                let open = Open {
                    peers: peers.clone(),
                    worker: number,
                    stats: stats.clone(),
                    _alive: alive.clone(),
                };
                stats.connections_open.increment();
                let handler = handlers[listener].clone();
                tokio::spawn(handler.accept(stream, peer, drain.clone(), stats.clone(), open));
            }
        };

        tokio::spawn(async move { outbox.linger().await });
        for (index, (listener, _)) in listeners.into_iter().enumerate() {
            let listener = TcpListener::from_std(listener)?;
            let (serve, peers, drain, stats) = (serve.clone(), peers.clone(), drain.clone(), stats.clone());
            tokio::spawn(async move {
                let take = |stream, peer| {
                    let incoming = Incoming { listener: index, stream, peer };
                    if let Some(ours) = peers.place(number, incoming) {
                        serve(ours);
                    }
                };
                listener::accept(listener, drain, &stats, take).await;
            });
        }
        loop {
            tokio::select! {
                handed = inbox.recv() => match handed {
                    Some(handed) => peers.take_over(number, handed, &serve),
                    None => break,
                },
                () = drain.wait() => break,
            }
        }
        // What is handed over from now on goes back to its sender; what is here already is served.
        inbox.close();
        while let Some(handed) = inbox.recv().await {
            peers.take_over(number, handed, &serve);
        }
        drop(serve);
        tokio::select! {
            _ = all_gone.recv() => {}
            () = tokio::time::sleep(drain_time) => cutting(),
            () = cut.wait() => cutting(),
        }
        // Whatever is left is dropped with the runtime, and its exchanges say so.
        Ok(())
    }
}

/// Counts a connection for as long as it is open, and notices if its task panics.
struct Open {
    peers: Arc<Peers>,
    worker: usize,
    stats: Arc<Stats>,
    _alive: mpsc::Sender<()>,
}

impl Drop for Open {
    fn drop(&mut self) {
        self.peers.left(self.worker);
        self.stats.connections_open.decrement();
        if std::thread::panicking() {
            self.stats.panics.increment();
        }
    }
}
