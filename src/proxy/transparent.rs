//! The front for connections that iptables or nftables redirected here: the service knows nothing of us.
//!
//! Where such a connection was going is read from the socket. What the service calls its destination (`Host`, SNI) is
//! its own claim: it names the destination on the span, and a rule may deny it, but what the rules allow is asked about
//! the address.

use std::net::SocketAddr;

use bytes::Bytes;
use http::Version;
use tokio::net::TcpStream;
use tracing::debug;

use super::cause::{self, Cause, Sides};
use super::facts;
use super::inside::{Inside, Whole, refuse};
use super::outbound::Outbound;
use crate::config::{Live, Upstream, UpstreamProtocol};
use crate::exchange::{Exchange, Keep, Tunneled};
use crate::net::original;
use crate::net::server::Surroundings;
use crate::net::stream::Stream;

/// Carries one redirected connection until it ends, and drops `held` then.
pub(super) async fn accept<G: Send>(
    front: Outbound,
    stream: TcpStream,
    peer: SocketAddr,
    surroundings: Surroundings,
    held: G,
) {
    let _held = held;
    let asked = original::destination(&stream);
    let client = Stream::from(stream);
    let asked = match asked {
        Ok(Some(asked)) => asked,
        Ok(None) => {
            // Who connects here by itself would get a relay to wherever the kernel's table says nothing of.
            front.proxy.stats.refused_direct.increment();
            let _ = client.set_zero_linger();
            return debug!(%peer, "a connection that nobody redirected was refused");
        }
        Err(error) => return debug!(%peer, %error, "connection ended before it was served"),
    };
    if is_ours(&front, &client, peer, asked) {
        return;
    }
    let live = front.live.clone();
    let host = asked.ip().to_canonical().to_string();
    let to = Upstream {
        protocol: UpstreamProtocol::Http1,
        host: host.clone(),
        port: asked.port(),
        address: Some(asked.ip()),
    };
    // As the caller sees it, whose socket is looked for: it knows nothing of our own address.
    let sides = Sides { peer, local: asked };
    if let Err(denied) = live.egress.permits_address(&host, asked) {
        let exchange = begin(&front, &live, &to, sides, None).await;
        return refuse(exchange, &client, denied);
    }
    let inside = Inside::new(front, live, to, peer, Whole::Redirected(sides), None);
    Box::pin(inside.run(client, Bytes::new(), surroundings)).await;
}

/// Whether the redirected connection from `peer` to `asked` is one that tracecar has opened itself. If so, it is counted, and ended
/// by a reset: whoever opened it should not take its end for an answer.
pub(super) fn is_ours(front: &Outbound, client: &Stream, peer: SocketAddr, asked: SocketAddr) -> bool {
    if !front.is_own(peer, asked) {
        return false;
    }
    front.proxy.stats.refused_loop.increment();
    let _ = client.set_zero_linger();
    debug!(%peer, "a connection of our own was redirected to us, and refused: is tracecar another user than TRACECAR_UID?");
    true
}

/// Begins the record of a redirected connection to `to`, on which the service says that it wants `server_name`.
///
/// This asks which request caused the connection, and that is remembered. So it is not done for one whose requests are
/// asked about one by one.
pub(super) async fn begin(
    front: &Outbound,
    live: &Live,
    to: &Upstream,
    sides: Sides,
    server_name: Option<&str>,
) -> Exchange {
    let host = server_name.unwrap_or(&to.host);
    let authority = match server_name {
        Some(name) => format!("{name}:{}", to.port),
        None => to.to_string(),
    };
    let destination = live.destinations.find(host, to.port).clone();
    let Cause { start, links, ancestry, .. } =
        cause::of_connection(&front.proxy, live, &destination, &authority, sides).await;
    let mut exchange = front.proxy.recorder.begin(start, &live.sampler);
    facts::note_connection(&mut exchange, &authority, Version::HTTP_11, sides.peer.ip());
    let record = exchange.record();
    (record.links, record.ancestry) = (links, ancestry);
    (record.tunnel, record.destination) = (Some(Tunneled::Redirected), destination.name.clone());
    if !destination.traced {
        exchange.keep(Keep::Never);
    }
    exchange
}
