//! The sockets that tracecar has opened itself, by which a front sees that its caller is tracecar: a loop.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

/// Both ends of the connections that tracecar holds in one direction: to its service, or to what that calls. One for all
/// workers of a sidecar, and not one for the process: two sidecars may well share one, and call each other. Asked once
/// per request at most, so one lock does.
#[derive(Debug, Default)]
pub struct OwnSockets(Mutex<HashMap<Ends, u32>>);

/// Our end and the far one. Our end alone does not do: the kernel gives one port to several connections at a time, as
/// long as they lead to different places, and to those of the service, too.
type Ends = ((IpAddr, u16), (IpAddr, u16));

impl OwnSockets {
    /// Whether the connection from `peer` to `reached` was opened by us. `reached` is where the caller wanted to go, if
    /// its connection was redirected.
    pub fn contains(&self, peer: SocketAddr, reached: SocketAddr) -> bool {
        self.lock().contains_key(&(plain(peer), plain(reached)))
    }

    /// Notes a connection that we have opened from `local` to `remote`, until the result is dropped.
    pub(super) fn insert(self: &Arc<Self>, local: SocketAddr, remote: SocketAddr) -> OwnSocket {
        let ends = (plain(local), plain(remote));
        // Counted, for a pair may be in use again before the note of its last use is gone.
        *self.lock().entry(ends).or_default() += 1;
        OwnSocket { of: self.clone(), ends }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Ends, u32>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// An address without what differs between the two ends of a connection: a socket for both families sees `127.0.0.1`
/// as `::ffff:127.0.0.1`, and scope and flow are each end's own.
fn plain(address: SocketAddr) -> (IpAddr, u16) {
    (address.ip().to_canonical(), address.port())
}

/// A connection of our own, for as long as it is open.
#[derive(Debug)]
pub struct OwnSocket {
    of: Arc<OwnSockets>,
    ends: Ends,
}

impl Drop for OwnSocket {
    fn drop(&mut self) {
        if let Entry::Occupied(mut uses) = self.of.lock().entry(self.ends) {
            *uses.get_mut() -= 1;
            if *uses.get() == 0 {
                uses.remove();
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_socket_is_known_in_both_families_and_until_it_is_closed() {
        let own = Arc::new(OwnSockets::default());
        let address = |text: &str| text.parse().unwrap();
        let (ours, theirs) = (address("127.0.0.1:4000"), address("127.0.0.1:80"));
        let held = own.insert(ours, theirs);
        assert!(own.contains(ours, theirs));
        let (six, far) = (address("[::ffff:127.0.0.1]:4000"), address("[::ffff:127.0.0.1]:80"));
        assert!(own.contains(six, far), "as a listener on [::] sees it");
        assert!(!own.contains(ours, address("127.0.0.1:81")), "a port of ours may be somebody else's, too");
        drop(held);
        assert!(!own.contains(ours, theirs));
    }
}
