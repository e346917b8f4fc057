//! Accepts connections, and survives it when the system has no descriptor left.

use std::io;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpStream};
use tracing::{error, info};

use super::Drain;
use super::room::Room;
use crate::stats::Stats;

/// Connections that the kernel may hold for us while we are busy.
const BACKLOG: i32 = 4096;

/// Pause after a failed accept, doubled up to the maximum while it goes on failing.
const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);

/// Binds `address`, so that each of several workers can have a socket of its own on it.
///
/// # Errors
/// Those of the operating system; the caller knows the address.
pub fn bind(address: SocketAddr, shared: bool) -> io::Result<std::net::TcpListener> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if shared {
        socket.set_reuse_port(true)?;
    }
    if address.is_ipv6() && address.ip().is_unspecified() {
        // `[::]` means every address, of both families, whatever the system's default is.
        socket.set_only_v6(false)?;
    }
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Accepts until the drain begins, handing each connection to `take`. While `room` has as many as `limit` lets, callers wait
/// in the kernel.
pub async fn accept(
    listener: TcpListener,
    drain: Drain,
    stats: &Stats,
    room: &Room,
    limit: impl Fn() -> Option<NonZeroUsize>,
    mut take: impl FnMut(TcpStream, SocketAddr),
) {
    let mut pause = FIRST_PAUSE;
    let mut failing = false;
    loop {
        if room.is_full(limit()) {
            stats.connections_full.increment();
            tokio::select! {
                () = room.wait(&limit) => {}
                () = drain.wait() => return accept_rest(listener, stats, take),
            }
        }
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.wait() => return accept_rest(listener, stats, take),
        };
        match accepted {
            Ok(accepted) => {
                if std::mem::take(&mut failing) {
                    info!("accepting connections again");
                    pause = FIRST_PAUSE;
                }
                welcome(accepted, stats, &mut take);
                // Requests that have begun go on before the next connection is taken: a burst of callers then waits in
                // the kernel, which has room, and not in buffers of ours.
                tokio::task::yield_now().await;
            }
            // The caller was gone before we came to it: nothing is wrong with us.
            Err(error) if is_about_the_peer(&error) => {}
            Err(error) => {
                count(&error, stats);
                // One line when it begins and one when it is over, not one per attempt.
                if !std::mem::replace(&mut failing, true) {
                    error!(%error, "cannot accept connections; trying again");
                }
                tokio::select! {
                    () = tokio::time::sleep(pause) => {}
                    () = drain.wait() => {}
                }
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// Accepts whoever is waiting already: closing the listener would reset them, and they may have asked something.
/// The socket itself is asked, since the runtime may not have heard of them yet.
fn accept_rest(listener: TcpListener, stats: &Stats, mut take: impl FnMut(TcpStream, SocketAddr)) {
    let Ok(listener) = listener.into_std() else {
        return;
    };
    for _ in 0..BACKLOG {
        let accepted = listener.accept().and_then(|(stream, peer)| {
            stream.set_nonblocking(true)?;
            Ok((TcpStream::from_std(stream)?, peer))
        });
        match accepted {
            Ok(accepted) => welcome(accepted, stats, &mut take),
            Err(error) if is_about_the_peer(&error) => {}
            // Nobody is left, or nothing can be done for them.
            Err(_) => return,
        }
    }
}

fn welcome(
    (stream, peer): (TcpStream, SocketAddr),
    stats: &Stats,
    take: &mut impl FnMut(TcpStream, SocketAddr),
) {
    stats.connections_accepted.increment();
    // Small writes must not wait for acknowledgements: we add no delay of our own.
    let _ = stream.set_nodelay(true);
    keep_alive(&stream);
    take(stream, peer);
}

/// A peer that vanishes without a word is noticed within some minutes, though nothing is said: otherwise an idle tunnel
/// would hold two descriptors for ever. The probes carry no content, and whoever is there does not notice them.
pub(super) fn keep_alive(stream: &TcpStream) {
    let every = TcpKeepalive::new().with_time(Duration::from_secs(60)).with_interval(Duration::from_secs(15));
    // What a system does not let us set stays as it is.
    let _ = SockRef::from(stream).set_tcp_keepalive(&every);
}

fn is_about_the_peer(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::ConnectionReset | io::ErrorKind::Interrupted
    )
}

fn count(error: &io::Error, stats: &Stats) {
    // EMFILE and ENFILE have no stable `ErrorKind`.
    const ENFILE: i32 = 23;
    const EMFILE: i32 = 24;
    match error.raw_os_error() {
        Some(ENFILE | EMFILE) => stats.accept_errors_descriptors.increment(),
        _ => stats.accept_errors_other.increment(),
    }
}
