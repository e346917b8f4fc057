//! Where a caller is, and all that it can knock at.

use std::cell::Cell;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::Receiver;

use rustls::ClientConfig;
use tokio::runtime::Handle;

use crate::support::PATIENCE;
use crate::support::frames::Frames;
use crate::support::origin::{Nowhere, Peer};
use crate::support::pki::{Pki, Signed};

/// The listeners of the program, and what callers need for them.
pub struct Doors {
    pub plain: SocketAddr,
    pub tls: SocketAddr,
    /// TLS for those who show a certificate.
    pub certified: SocketAddr,
    /// With the PROXY protocol before each connection.
    pub proxied: SocketAddr,
    /// Before the service that dies.
    pub dying: SocketAddr,
    pub grpc: SocketAddr,
    /// Before a service that loses its connections.
    pub losing: SocketAddr,
    /// The way out.
    pub proxy: SocketAddr,
    /// The service, for calls.
    pub origin: SocketAddr,
    pub nowhere: Nowhere,
    pub clients: Clients,
    pub runtime: Handle,
}

/// What callers bring to TLS.
pub struct Clients {
    pub http1: Arc<ClientConfig>,
    pub http2: Arc<ClientConfig>,
    pub certified: Arc<ClientConfig>,
    pub wrongly_certified: Arc<ClientConfig>,
    pub distrusting: Arc<ClientConfig>,
    pub incompatible: Arc<ClientConfig>,
}

impl Clients {
    /// `ours` has signed what the program shows, `others` have not.
    pub fn new(ours: &Pki, others: &Pki) -> Self {
        let (right, wrong): (Signed, Signed) = (ours.sign("caller"), others.sign("caller"));
        Self {
            http1: ours.client(&["http/1.1"], None),
            http2: ours.client(&["h2"], None),
            certified: ours.client(&["http/1.1"], Some(&right)),
            wrongly_certified: ours.client(&["http/1.1"], Some(&wrong)),
            distrusting: others.client(&["http/1.1"], None),
            incompatible: ours.client(&["smtp"], None),
        }
    }
}

/// Where a caller is.
pub struct Place {
    pub doors: Arc<Doors>,
    pub number: usize,
    /// The number of the visit that goes on.
    pub visit: Cell<usize>,
    /// Says when a request of this caller has come through to the service.
    pub arrives: Receiver<()>,
}

impl Place {
    /// A path that says what the service is to do, and whose request it is.
    pub fn path(&self, what: &str) -> String {
        format!("/{what}/{}/{}", self.number, self.visit.get())
    }

    /// A whole request.
    pub fn get(&self, what: &str) -> String {
        self.request("GET", what, "")
    }

    /// The head of a request with further lines.
    pub fn request(&self, method: &str, what: &str, lines: &str) -> String {
        format!("{method} {} HTTP/1.1\r\nHost: shop\r\n{lines}\r\n", self.path(what))
    }

    pub fn connect(&self) -> Peer {
        Peer::connect(self.doors.plain)
    }

    /// Asks the service on a connection of its own.
    pub fn ask(&self, what: &str) -> Peer {
        let mut peer = self.connect();
        peer.send(self.get(what));
        peer
    }

    pub fn frames(&self) -> Frames {
        Frames::connect(self.doors.plain)
    }

    /// Waits until the request is at the service.
    pub fn arrived(&self) {
        self.arrives.recv_timeout(PATIENCE).expect("the request arrives");
    }
}
