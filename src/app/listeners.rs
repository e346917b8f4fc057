//! The sockets that callers come in by: which are wanted, which are open, what is done with those who come.

use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use anyhow::Context;
use tokio::sync::oneshot;

use super::Bound;
use crate::config::{Outbound, Startup};
use crate::net::{Drain, listener};
use crate::proxy::Front;
use crate::worker::ListenerId;

/// What is done with those who come; the numbers are places in the settings.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Purpose {
    Inbound(usize),
    Proxy,
    Mapped(usize),
    Transparent,
}

/// A listener that the settings ask for.
pub(super) struct Wanted {
    pub(super) asked: Asked,
    pub(super) purpose: Purpose,
    /// Where it listens.
    pub(super) at: SocketAddr,
    pub(super) sockets: Sockets,
}

/// What the settings say of a listener, by which it is found again in others.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Asked {
    /// Port 0 may be asked for several times.
    pub(super) address: SocketAddr,
    /// Where it leads.
    to: String,
}

/// Where the sockets of a listener are.
pub(super) enum Sockets {
    /// One for each worker, which is bound and accepts nothing yet.
    Bound(Vec<TcpListener>),
    /// This one's, among those that are open.
    Open(ListenerId),
}

/// A listener that is open.
pub(super) struct Open {
    pub(super) asked: Asked,
    pub(super) purpose: Purpose,
    pub(super) id: ListenerId,
    pub(super) at: SocketAddr,
    /// One for each worker.
    pub(super) fronts: Vec<Arc<Front>>,
    /// Ends this listener and no other.
    pub(super) drain: Drain,
    /// Ends its connections.
    pub(super) connections: Drain,
    /// Ready when nobody accepts on it any more.
    pub(super) closed: oneshot::Receiver<()>,
}

/// Binds what `startup` asks for and is not `open` yet, for that many workers.
///
/// # Errors
/// Names the address that cannot be bound. Nothing is bound then.
pub(super) fn bind(startup: &Startup, open: &[Open], workers: usize) -> anyhow::Result<Vec<Wanted>> {
    let asked = asked(startup);
    let mut left: Vec<&Open> = open.iter().collect();
    let mut take = |is: &dyn Fn(&Open) -> bool| {
        let place = left.iter().position(|open| is(open))?;
        Some(left.remove(place))
    };
    // Of several with port 0 each finds its own first, and what is left is shared out.
    let same: Vec<_> = asked.iter().map(|(_, asked)| take(&|open| open.asked == *asked)).collect();
    let found: Vec<_> = asked
        .iter()
        .zip(same)
        .map(|((_, asked), same)| same.or_else(|| take(&|open| open.asked.address == asked.address)))
        .collect();
    let mut wanted = Vec::new();
    for ((purpose, asked), found) in asked.into_iter().zip(found) {
        let (at, sockets) = match found {
            Some(open) => (open.at, Sockets::Open(open.id)),
            None => {
                refuse_overlap(asked.address, open.iter().map(|open| open.at))?;
                let (at, sockets) = bind_for_all(asked.address, workers)?;
                (at, Sockets::Bound(sockets))
            }
        };
        wanted.push(Wanted { asked, purpose, at, sockets });
    }
    Ok(wanted)
}

/// Refuses an address that one that is open overlaps with. Most systems would; where workers have sockets of their own, both would be
/// open, and who comes by which is anybody's guess.
///
/// # Errors
/// Names both.
pub(super) fn refuse_overlap(
    address: SocketAddr,
    mut open: impl Iterator<Item = SocketAddr>,
) -> anyhow::Result<()> {
    let overlaps = |open: &SocketAddr| {
        let (ours, theirs) = (open.ip(), address.ip());
        open.port() == address.port() && (ours == theirs || ours.is_unspecified() || theirs.is_unspecified())
    };
    match open.find(overlaps) {
        Some(open) => anyhow::bail!(
            "{address} overlaps with {open}, which is open: take another port for a while, or restart tracecar"
        ),
        None => Ok(()),
    }
}

fn asked(startup: &Startup) -> Vec<(Purpose, Asked)> {
    let asked = |address, to: String| Asked { address, to };
    let inbound = startup.inbound.iter().enumerate();
    let mut all: Vec<_> = inbound
        .map(|(place, one)| (Purpose::Inbound(place), asked(one.listen, one.to.to_string())))
        .collect();
    if let Some(Outbound { proxy, mapped, transparent, .. }) = &startup.outbound {
        all.extend(proxy.map(|listen| (Purpose::Proxy, asked(listen, "proxy".to_owned()))));
        let mapped = mapped.iter().enumerate();
        all.extend(
            mapped.map(|(place, one)| (Purpose::Mapped(place), asked(one.listen, one.to.to_string()))),
        );
        all.extend(transparent.map(|listen| (Purpose::Transparent, asked(listen, "transparent".to_owned()))));
    }
    all
}

fn bind_for_all(mut address: SocketAddr, workers: usize) -> anyhow::Result<(SocketAddr, Vec<TcpListener>)> {
    let mut sockets = Vec::new();
    for _ in 0..workers {
        let socket = bind_one(address, workers > 1)?;
        // The first worker's socket decides which port a port of 0 is.
        address = socket.local_addr()?;
        sockets.push(socket);
    }
    Ok((address, sockets))
}

/// # Errors
/// Names the address that cannot be bound.
pub(super) fn bind_one(address: SocketAddr, shared: bool) -> anyhow::Result<TcpListener> {
    listener::bind(address, shared).with_context(|| format!("cannot listen on {address}"))
}

impl Purpose {
    /// Whether both lead from the service, or both to it.
    pub(super) fn goes_the_way_of(self, other: Self) -> bool {
        let inbound = |purpose| matches!(purpose, Purpose::Inbound(_));
        inbound(self) == inbound(other)
    }
}

impl Bound {
    pub(super) fn of(wanted: &[Wanted], admin: Option<SocketAddr>) -> Self {
        let of = |is: fn(&Purpose) -> bool| -> Vec<_> {
            wanted.iter().filter(|one| is(&one.purpose)).map(|one| one.at).collect()
        };
        Self {
            inbound: of(|purpose| matches!(purpose, Purpose::Inbound(_))),
            proxy: of(|purpose| *purpose == Purpose::Proxy).first().copied(),
            mapped: of(|purpose| matches!(purpose, Purpose::Mapped(_))),
            transparent: of(|purpose| *purpose == Purpose::Transparent).first().copied(),
            admin,
        }
    }
}
