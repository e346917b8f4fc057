//! From one version of the settings to the next, and from none to the first.
//!
//! A change has two halves. [`Control::prepare`] does all that can fail: it binds sockets, reads files, opens logs. [`Control::apply`]
//! cannot fail: it stores pointers and hands sockets over. So a change happens as a whole or not at all, and those who are
//! served notice nothing: who has begun goes on with what it has, who begins now has the new.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::timeout;
use tracing::{error, info};

use super::SetLevel;
use super::listeners::{self, Open, Purpose, Sockets, Wanted};
use super::way_in::{self, WayIn};
use super::way_out::{Outwards, WayOut};
use crate::admin::{self, Admin};
use crate::config::{Live, LiveHandle, Settings, Startup};
use crate::net::Drain;
use crate::proxy::inbound::Inbound;
use crate::proxy::outbound::Doors;
use crate::proxy::{Front, Proxy, Role};
use crate::telemetry::{Prepared, Telemetry};
use crate::worker::{ListenerId, Peers};

/// How long is waited for workers to close a listener. They are busy with requests, each of which takes microseconds.
const SETTLED: Duration = Duration::from_secs(1);

/// All that settings change while tracecar runs.
pub(super) struct Control {
    parts: Running,
    /// How long requests in flight may take to finish, for whoever asks when that begins.
    pub(super) drain_time: Arc<Mutex<Duration>>,
    doors: Vec<Doors>,
    /// One for each inbound listener, in the order of the settings.
    ways_in: Vec<WayIn>,
    listeners: Vec<Open>,
    /// Those that were told to close.
    closing: Vec<oneshot::Receiver<()>>,
    admin: Option<OpenAdmin>,
    next: ListenerId,
}

/// What is there for as long as tracecar runs.
pub(super) struct Running {
    pub(super) live: LiveHandle,
    pub(super) way_out: Arc<WayOut>,
    pub(super) telemetry: Arc<Telemetry>,
    pub(super) pages: Arc<Admin>,
    pub(super) peers: Arc<Peers<Front>>,
    /// One for each worker.
    pub(super) proxies: Vec<Arc<Proxy>>,
    pub(super) versions: Versions,
    pub(super) log: Option<SetLevel>,
}

/// The versions of the settings that somebody still uses, the one in force among them.
#[derive(Clone, Debug, Default)]
pub(super) struct Versions(Arc<Mutex<Vec<Weak<Live>>>>);

impl Versions {
    /// How many there are.
    pub(super) fn count(&self) -> usize {
        let mut versions = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        versions.retain(|version| version.strong_count() > 0);
        versions.len()
    }

    fn add(&self, live: &Arc<Live>) {
        self.count();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::downgrade(live));
    }
}

/// Admin pages that are being served.
struct OpenAdmin {
    configured: SocketAddr,
    at: SocketAddr,
    /// Dropped, it ends them.
    _stop: oneshot::Sender<()>,
}

/// Sockets that were bound, or are open already.
pub(super) struct Bindings {
    pub(super) listeners: Vec<Wanted>,
    pub(super) admin: Option<std::net::TcpListener>,
}

/// A change that can be applied.
pub(super) struct Change {
    settings: Settings,
    effective: String,
    sockets: Bindings,
    outwards: Outwards,
    ways_in: Vec<WayIn>,
    outputs: Prepared,
}

impl Bindings {
    /// Binds all that `startup` asks for, where nothing is open yet.
    ///
    /// # Errors
    /// Names the address that cannot be bound.
    pub(super) fn bind(startup: &Startup) -> anyhow::Result<Self> {
        let listeners = listeners::bind(startup, &[], startup.workers)?;
        let admin = startup.admin.map(|address| listeners::bind_one(address, false)).transpose()?;
        Ok(Self { listeners, admin })
    }
}

impl Control {
    /// Nothing is open yet.
    pub(super) fn new(parts: Running) -> Self {
        let (doors, ways_in, listeners, closing) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
        Self { parts, drain_time: Arc::default(), doors, ways_in, listeners, closing, admin: None, next: 0 }
    }

    /// The admin pages.
    pub(super) fn pages(&self) -> &Admin {
        &self.parts.pages
    }

    /// Binds what `startup` asks for and is not open yet.
    ///
    /// # Errors
    /// Names the address that cannot be bound.
    pub(super) fn bind(&self, startup: &Startup) -> anyhow::Result<Bindings> {
        let listeners = listeners::bind(startup, &self.listeners, self.parts.peers.count())?;
        let open = self.admin.as_ref().map(|admin| admin.configured);
        let moved = startup.admin.filter(|address| open != Some(*address));
        let others =
            self.listeners.iter().map(|open| open.at).chain(self.admin.as_ref().map(|admin| admin.at));
        moved.map(|address| listeners::refuse_overlap(address, others)).transpose()?;
        let admin = moved.map(|address| listeners::bind_one(address, false)).transpose()?;
        Ok(Bindings { listeners, admin })
    }

    /// Does all that can fail of a change.
    ///
    /// # Errors
    /// Names the file that cannot be used.
    pub(super) fn prepare(
        &self,
        settings: Settings,
        effective: String,
        sockets: Bindings,
    ) -> anyhow::Result<Change> {
        let outwards = self.parts.way_out.prepare(&settings)?;
        let inwards = &self.parts.way_out.inwards;
        let ways_in = way_in::prepare(&settings.startup.inbound, inwards, &self.ways_in)?;
        let outputs = self.parts.telemetry.prepare(&settings.startup)?;
        Ok(Change { settings, effective, sockets, outwards, ways_in, outputs })
    }

    /// Makes the change. Has to be called on the runtime that exporter and pages run on.
    pub(super) fn apply(&mut self, change: Change) {
        let Change { settings, effective, sockets, outwards, ways_in, outputs } = change;
        let Settings { startup, live } = settings;
        if let Some(set) = &self.parts.log {
            set(&startup.log);
        }
        *self.drain_time.lock().unwrap_or_else(PoisonError::into_inner) = startup.drain;
        self.parts.telemetry.switch(outputs);
        self.parts.way_out.switch(outwards);
        way_in::warn_of(&ways_in, &self.ways_in);
        self.ways_in = ways_in;
        self.parts.live.store(live);
        let opened = self.listen(&startup, sockets.listeners);
        let upstreams = if startup.ready_needs_upstream { startup.inbound.iter() } else { [].iter() };
        self.parts.pages.readiness.ask(upstreams.map(|inbound| inbound.to.clone()).collect());
        self.parts.pages.show(effective, startup.admin_token.clone());
        let admin = self.serve_pages(startup.admin, sockets.admin);
        announce(&startup, &opened, admin);
    }

    /// Has the listeners do what is wanted, and returns those that were not open before.
    fn listen(&mut self, startup: &Startup, wanted: Vec<Wanted>) -> Vec<(Purpose, SocketAddr)> {
        let live = self.parts.live.load();
        self.parts.versions.add(&live);
        self.open_doors(&live);
        let mut before = std::mem::take(&mut self.listeners);
        let mut opened = Vec::new();
        for Wanted { asked, purpose, at, sockets } in wanted {
            let (open, sockets) = match sockets {
                Sockets::Bound(sockets) => (None, sockets),
                Sockets::Open(id) => {
                    let place = before.iter().position(|open| open.id == id);
                    (place.map(|place| before.swap_remove(place)), Vec::new())
                }
            };
            let turns = open.as_ref().filter(|open| open.purpose.goes_the_way_of(purpose));
            let roles: Vec<Role> = (0..self.parts.proxies.len())
                .map(|worker| {
                    let now = turns.and_then(|open| open.fronts.get(worker)).map(|front| front.now());
                    self.role(startup, &live, purpose, worker, now.as_deref())
                })
                .collect();
            let open = match open {
                Some(open) if open.purpose.goes_the_way_of(purpose) => {
                    for (front, role) in open.fronts.iter().zip(roles) {
                        front.turn(role);
                    }
                    Open { asked, purpose, ..open }
                }
                Some(open) => {
                    // It leads the other way from now on. Who came in by it before is served to the end as before.
                    open.connections.begin();
                    let (fronts, connections) = (fronts(roles), Drain::default());
                    self.parts.peers.serve(open.id, &fronts, &connections);
                    Open { asked, purpose, fronts, connections, ..open }
                }
                None => {
                    let (id, fronts) = (self.next, fronts(roles));
                    let (drain, connections) = (Drain::default(), Drain::default());
                    let closed = self.parts.peers.listen(id, sockets, &fronts, &drain, &connections);
                    self.next += 1;
                    opened.push((purpose, at));
                    Open { asked, purpose, id, at, fronts, drain, connections, closed }
                }
            };
            self.listeners.push(open);
        }
        // Who has come in by them is served to the end.
        for open in before {
            info!(listen = %open.at, "no longer listening; who is there is served to the end");
            open.drain.begin();
            open.connections.begin();
            self.closing.push(open.closed);
        }
        opened
    }

    fn open_doors(&mut self, live: &Arc<Live>) {
        let Outwards { connector, interception, .. } = self.parts.way_out.outwards().clone();
        let inwards = &self.parts.way_out.inwards.own;
        let doors = self.parts.proxies.iter().enumerate().map(|(worker, proxy)| {
            let (connector, interception) = (connector.clone(), interception.clone());
            let before = self.doors.get(worker);
            Doors::new(proxy.clone(), live.clone(), connector, interception, inwards.clone(), before)
        });
        self.doors = doors.collect();
    }

    fn role(
        &self,
        startup: &Startup,
        live: &Arc<Live>,
        purpose: Purpose,
        worker: usize,
        before: Option<&Role>,
    ) -> Role {
        let doors = &self.doors[worker];
        let mapped = || startup.outbound.iter().flat_map(|outbound| &outbound.mapped);
        match purpose {
            Purpose::Inbound(place) => {
                let before = match before {
                    Some(Role::Inbound(before)) => Some(before),
                    _ => None,
                };
                let proxy = self.parts.proxies[worker].clone();
                let WayIn { entrance, connector, .. } = self.ways_in[place].clone();
                let inbound = &startup.inbound[place];
                Role::Inbound(Inbound::new(proxy, live.clone(), inbound, connector, entrance, before))
            }
            Purpose::Proxy => Role::Outbound(doors.proxy()),
            Purpose::Mapped(place) => {
                let mapped = mapped().nth(place).expect("it is the place of one of them");
                Role::Outbound(doors.mapped(mapped.clone()))
            }
            Purpose::Transparent => Role::Outbound(doors.transparent()),
        }
    }

    /// Serves the admin pages on a socket that has just been bound, whose address it returns, or goes on where they are.
    fn serve_pages(
        &mut self,
        configured: Option<SocketAddr>,
        socket: Option<std::net::TcpListener>,
    ) -> Option<SocketAddr> {
        let Some(configured) = configured else {
            self.admin = None;
            return None;
        };
        match tokio::net::TcpListener::from_std(socket?) {
            Ok(listener) => {
                let at = listener.local_addr().unwrap_or(configured);
                let (stop, stopped) = oneshot::channel::<()>();
                let stopped = async move { drop(stopped.await) };
                tokio::spawn(admin::serve(listener, self.parts.pages.clone(), stopped));
                // Those before end with the requests that they have.
                self.admin = Some(OpenAdmin { configured, at, _stop: stop });
                Some(at)
            }
            Err(error) => {
                error!(%error, "cannot serve the admin pages");
                None
            }
        }
    }

    /// Waits until nobody accepts on the listeners that the change has closed: a moment, for they only have to hear of it.
    pub(super) async fn settle(&mut self) {
        let closing = std::mem::take(&mut self.closing);
        let all = async {
            for closed in closing {
                let _ = closed.await;
            }
        };
        let _ = timeout(SETTLED, all).await;
    }

    /// No listener accepts from now on, and no connection begins another request.
    pub(super) fn drain(&self) {
        for open in &self.listeners {
            open.drain.begin();
            open.connections.begin();
        }
    }
}

fn fronts(roles: Vec<Role>) -> Vec<Arc<Front>> {
    roles.into_iter().map(|role| Arc::new(Front::new(role))).collect()
}

/// Says where callers are listened to from now on.
fn announce(startup: &Startup, opened: &[(Purpose, SocketAddr)], admin: Option<SocketAddr>) {
    for (purpose, listen) in opened {
        if let Purpose::Inbound(place) = purpose {
            info!(%listen, to = %startup.inbound[*place].to, "passing requests on");
        }
    }
    if let Some(admin) = admin {
        info!(%admin, "metrics and health");
    }
    let mapped: Vec<_> = startup.outbound.iter().flat_map(|outbound| &outbound.mapped).collect();
    for (purpose, listen) in opened {
        match purpose {
            Purpose::Inbound(_) => {}
            Purpose::Proxy => info!(%listen, "passing calls on as a forward proxy (HTTP_PROXY, HTTPS_PROXY)"),
            Purpose::Mapped(place) => info!(%listen, to = %mapped[*place].to, "passing calls on"),
            Purpose::Transparent => info!(%listen, "passing redirected connections on"),
        }
    }
}
