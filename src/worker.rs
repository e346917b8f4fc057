//! Data-path threads.
//!
//! Each worker is one thread with a runtime, listening sockets, upstream connections and an outbox of its own: no
//! request crosses a thread. Only whole connections do, once, when one worker has more of them than another: the
//! kernel spreads connections by hash, and a sidecar has few and long-lived ones.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, oneshot};
use tracing::{debug, error};

use crate::exchange::Outbox;
use crate::net::room::{Room, Seat};
use crate::net::server::Handler;
use crate::net::{Drain, listener};
use crate::stats::Stats;

/// What all workers know of each other.
#[derive(Debug)]
pub(crate) struct Peers<H>(Vec<Peer<H>>);

#[derive(Debug)]
struct Peer<H> {
    open: AtomicUsize,
    inbox: mpsc::UnboundedSender<Message<H>>,
}

/// Names a listener among all that a sidecar has had.
pub(crate) type ListenerId = u64;

/// What a worker is told, in the order in which it was said.
#[derive(Debug)]
enum Message<H> {
    /// A connection that another worker has accepted.
    Handed(Handed),
    /// Whose connections may come from now on.
    Know(ListenerId, Arc<Served<H>>),
    /// Accept from now on, until this begins.
    Listen(ListenerId, std::net::TcpListener, Drain, Arc<Room>, Accepting),
    /// No connection of this one will come any more.
    Forget(ListenerId),
}

/// A listener as its connections see it.
#[derive(Debug)]
struct Served<H> {
    handler: Arc<H>,
    drain: Drain,
}

/// Dropped when a worker no longer accepts on a listener.
type Accepting = mpsc::Sender<()>;

/// A new connection, with the listener that it came in on. On its way to another worker it is a standard library
/// stream, which belongs to no runtime.
#[derive(Debug)]
pub(crate) struct Incoming<S> {
    listener: ListenerId,
    stream: S,
    peer: SocketAddr,
    seat: Seat,
}

type Handed = Incoming<std::net::TcpStream>;

/// Where a worker gets connections from the others, and word of listeners.
#[derive(Debug)]
pub(crate) struct Inbox<H>(mpsc::UnboundedReceiver<Message<H>>);

/// How many connections one worker may have more than another before it hands new ones over.
const UNEVENNESS: usize = 1;

impl<H: Send + Sync + 'static> Peers<H> {
    /// Makes `count` workers known to each other; the receivers are theirs, in order.
    pub(crate) fn new(count: usize) -> (Arc<Self>, Vec<Inbox<H>>) {
        let (peers, inboxes) = (0..count)
            .map(|_| {
                let (inbox, receiver) = mpsc::unbounded_channel();
                (Peer { open: AtomicUsize::new(0), inbox }, Inbox(receiver))
            })
            .unzip();
        (Arc::new(Self(peers)), inboxes)
    }

    /// How many workers there are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// Has all workers accept connections on a listener until `drain` begins, and [serve](Peers::serve) them until
    /// `connections` does: each has a socket and a handler of its own, in their order. When the last of them has accepted its last, and it was served, they forget it, and the result is ready. Has
    /// to be called in a runtime.
    pub(crate) fn listen(
        self: &Arc<Self>,
        id: ListenerId,
        sockets: Vec<std::net::TcpListener>,
        handlers: &[Arc<H>],
        drain: &Drain,
        connections: &Drain,
    ) -> oneshot::Receiver<()> {
        // First all know it, then the first accepts: a connection that it hands over comes to one who knows.
        self.serve(id, handlers, connections);
        let (accepting, mut accepted) = mpsc::channel(1);
        let room = Arc::<Room>::default();
        for (peer, socket) in self.0.iter().zip(sockets) {
            let _ =
                peer.inbox.send(Message::Listen(id, socket, drain.clone(), room.clone(), accepting.clone()));
        }
        drop(accepting);
        let (closed, when_closed) = oneshot::channel();
        let peers = self.clone();
        tokio::spawn(async move {
            let _ = accepted.recv().await;
            for peer in &peers.0 {
                let _ = peer.inbox.send(Message::Forget(id));
            }
            // Whether anybody waits for that is not known.
            let _ = closed.send(());
        });
        when_closed
    }

    /// Has all workers serve the connections of a listener by these handlers, those that come from now on, until `drain` begins.
    pub(crate) fn serve(&self, id: ListenerId, handlers: &[Arc<H>], drain: &Drain) {
        for (peer, handler) in self.0.iter().zip(handlers) {
            let served = Arc::new(Served { handler: handler.clone(), drain: drain.clone() });
            let _ = peer.inbox.send(Message::Know(id, served));
        }
    }

    /// Hands a connection that worker `me` has accepted to one with less to do, or gives it back to be served. It is
    /// counted where it goes at once, so that a burst is spread and not sent to one.
    fn place(&self, me: usize, incoming: Incoming<TcpStream>) -> Option<Incoming<TcpStream>> {
        let worker = self.least_busy(me);
        self.0[worker].open.fetch_add(1, Ordering::Relaxed);
        if worker == me {
            return Some(incoming);
        }
        let Incoming { listener, stream, peer, seat } = incoming;
        let handed = match stream.into_std() {
            Ok(stream) => {
                let handed = Message::Handed(Incoming { listener, stream, peer, seat });
                self.0[worker].inbox.send(handed).map_err(|back| back.0)
            }
            Err(error) => {
                debug!(%error, "cannot hand a connection over");
                self.left(worker);
                return None;
            }
        };
        // The other worker has seen the drain begin before us.
        let Err(Message::Handed(Incoming { listener, stream, peer, seat })) = handed else {
            return None;
        };
        self.left(worker);
        let stream = TcpStream::from_std(stream).ok()?;
        self.0[me].open.fetch_add(1, Ordering::Relaxed);
        Some(Incoming { listener, stream, peer, seat })
    }

    /// Takes a connection from another worker, which has counted it as ours.
    fn take_over(&self, me: usize, handed: Handed, serve: impl Fn(Incoming<TcpStream>)) {
        let Incoming { listener, stream, peer, seat } = handed;
        match TcpStream::from_std(stream) {
            Ok(stream) => serve(Incoming { listener, stream, peer, seat }),
            Err(error) => {
                debug!(%error, "cannot take a connection over");
                self.left(me);
            }
        }
    }

    /// The worker that a new connection at worker `me` should go to.
    fn least_busy(&self, me: usize) -> usize {
        let open = |worker: usize| self.0[worker].open.load(Ordering::Relaxed);
        let least = (0..self.0.len()).min_by_key(|worker| open(*worker)).unwrap_or(me);
        if open(me) <= open(least) + UNEVENNESS { me } else { least }
    }

    /// A connection counted for `worker` is no longer open.
    fn left(&self, worker: usize) {
        self.0[worker].open.fetch_sub(1, Ordering::Relaxed);
    }
}

/// One worker, ready to run.
pub(crate) struct Worker<H> {
    pub(crate) number: usize,
    pub(crate) peers: Arc<Peers<H>>,
    pub(crate) inbox: Inbox<H>,
    pub(crate) outbox: Arc<Outbox>,
    pub(crate) stats: Arc<Stats>,
    /// Begins when no new connections are wanted and those there are should finish; those of the listeners have begun
    /// before.
    pub(crate) drain: Drain,
    /// Begins when nobody wants to wait any longer.
    pub(crate) cut: Drain,
    /// How long connections may take to finish, asked when the drain begins.
    pub(crate) drain_time: Box<dyn FnOnce() -> Duration + Send>,
    /// Called when the connections that are left are about to be cut off.
    pub(crate) cutting: Box<dyn FnOnce() + Send>,
}

impl<H: Handler> Worker<H> {
    /// Accepts and serves until drained.
    pub(crate) async fn run(self) -> std::io::Result<()> {
        let Self { number, peers, inbox: Inbox(mut inbox), outbox, stats, drain, cut, drain_time, cutting } =
            self;
        // Closed when the last connection has dropped its end.
        let (alive, mut all_gone) = mpsc::channel::<()>(1);
        tokio::spawn(async move { outbox.linger().await });
        let listeners = Arc::default();
        let desk = Desk { number, peers, stats, listeners, alive };
        loop {
            tokio::select! {
                message = inbox.recv() => match message {
                    Some(message) => desk.hear(message),
                    None => break,
                },
                () = drain.wait() => break,
            }
        }
        // What is handed over from now on goes back to its sender; what is here already is served.
        inbox.close();
        while let Some(message) = inbox.recv().await {
            desk.hear(message);
        }
        drop(desk);
        tokio::select! {
            _ = all_gone.recv() => {}
            () = tokio::time::sleep(drain_time()) => cutting(),
            () = cut.wait() => cutting(),
        }
        // Whatever is left is dropped with the runtime, and its exchanges say so.
        Ok(())
    }
}

/// Where a worker's connections begin.
struct Desk<H> {
    number: usize,
    peers: Arc<Peers<H>>,
    stats: Arc<Stats>,
    /// All that connections may come from. Only this worker looks, so nobody ever waits for the lock.
    listeners: Arc<Mutex<HashMap<ListenerId, Arc<Served<H>>>>>,
    alive: mpsc::Sender<()>,
}

impl<H> Clone for Desk<H> {
    fn clone(&self) -> Self {
        let Self { number, peers, stats, listeners, alive } = self;
        Self {
            number: *number,
            peers: peers.clone(),
            stats: stats.clone(),
            listeners: listeners.clone(),
            alive: alive.clone(),
        }
    }
}

impl<H: Handler> Desk<H> {
    fn hear(&self, message: Message<H>) {
        match message {
            Message::Handed(handed) => self.peers.take_over(self.number, handed, |ours| self.serve(ours)),
            Message::Know(id, served) => drop(self.listeners().insert(id, served)),
            Message::Forget(id) => drop(self.listeners().remove(&id)),
            Message::Listen(id, socket, drain, room, accepting) => {
                let listener = match TcpListener::from_std(socket) {
                    Ok(listener) => listener,
                    Err(error) => return error!(%error, "a worker cannot listen"),
                };
                let desk = self.clone();
                tokio::spawn(async move {
                    let take = |stream, peer| {
                        let incoming = Incoming { listener: id, stream, peer, seat: room.seat() };
                        if let Some(ours) = desk.peers.place(desk.number, incoming) {
                            desk.serve(ours);
                        }
                    };
                    let limit = || desk.listeners().get(&id)?.handler.bounds().connections;
                    listener::accept(listener, drain, &desk.stats, &room, limit, take).await;
                    drop(accepting);
                });
            }
        }
    }

    fn serve(&self, Incoming { listener, stream, peer, seat }: Incoming<TcpStream>) {
        let open = Open {
            peers: self.peers.clone(),
            worker: self.number,
            stats: self.stats.clone(),
            _alive: self.alive.clone(),
            _seat: seat,
        };
        self.stats.connections_open.increment();
        // It is there for as long as anybody accepts.
        let Some(served) = self.listeners().get(&listener).cloned() else { return };
        let Served { handler, drain } = &*served;
        tokio::spawn(handler.clone().accept(stream, peer, drain.clone(), self.stats.clone(), open));
    }

    fn listeners(&self) -> MutexGuard<'_, HashMap<ListenerId, Arc<Served<H>>>> {
        self.listeners.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts a connection for as long as it is open, and notices if its task panics.
struct Open<H> {
    peers: Arc<Peers<H>>,
    worker: usize,
    stats: Arc<Stats>,
    _alive: mpsc::Sender<()>,
    _seat: Seat,
}

impl<H> Drop for Open<H> {
    fn drop(&mut self) {
        self.peers.0[self.worker].open.fetch_sub(1, Ordering::Relaxed);
        self.stats.connections_open.decrement();
        if std::thread::panicking() {
            self.stats.panics.increment();
        }
    }
}
