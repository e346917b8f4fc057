//! What is said on a connection that was not addressed to us: in a tunnel, or redirected here.
//!
//! Its first bytes tell. Plain HTTP is served like any other call, for some clients (fetch of Node.js 22 and 24) ask for
//! a tunnel even for that. TLS is looked into where the settings say so, and the client agrees. Everything else passes
//! unseen, and is counted.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use tracing::info;

use super::cause::Sides;
use super::error::Error;
use super::outbound::{self, Fixed, Inner, Outbound};
use super::{facts, transparent};
use crate::config::{Live, Upstream, UpstreamProtocol};
use crate::exchange::{Exchange, Keep, Outcome};
use crate::net::first_bytes::{self, FirstBytes, Hello};
use crate::net::intercept::{self, Authority, InterceptError, Pinned};
use crate::net::server::{self, Surroundings, Tunnel};
use crate::net::stream::Stream;
use crate::net::upstream::{Phases, SendError};
use crate::wire::egress::Denied;

const REFUSED: &str =
    "the client refused our certificate; connections to this host are not looked into for a while";
const LEFT_ALONE: &str = "a client refused our certificate lately, so this was not looked into";
const LEFT: &str = "the client left right after the TLS handshake, without a request";
const SILENT: &str = "the client said nothing inside TLS";
const NO_HTTP: &str =
    "what the client speaks inside TLS is not HTTP; connections to this host are not looked into for a while";

/// What looking into TLS takes.
#[derive(Debug)]
pub struct Interception {
    /// Makes certificates that clients trust.
    pub authority: Authority,
    /// Hosts whose clients do not.
    pub pinned: Pinned,
}

/// A connection whose far side is known.
pub(super) struct Inside {
    front: Outbound,
    live: Arc<Live>,
    to: Upstream,
    peer: SocketAddr,
    whole: Whole,
    /// The far side, where it is open already.
    far: Option<Far>,
    /// Whom the client says that it wants (SNI), in lower case.
    server_name: Option<String>,
    /// A remark for the record of the whole; empty for none.
    note: &'static str,
}

/// The record of the connection as a whole. There is none if its requests are seen: then each of them has its own.
pub(super) enum Whole {
    /// It began with a `CONNECT`.
    Begun(Exchange),
    /// It begins when it is certain that there are no requests to be seen.
    Redirected(Sides),
}

/// The other end of a tunnel.
pub(super) struct Far {
    pub(super) stream: Stream,
    /// How it was opened, where the record does not know that yet.
    pub(super) phases: Option<Phases>,
}

/// Why nobody knows what a connection speaks.
enum Unheard {
    /// The client is gone.
    Client,
    /// We are stopping, and nothing was said so far.
    Stopping,
    /// The far side was to be asked, and could not be reached.
    Far(Unreached),
}

/// Why the far side is not open, and how far we came.
struct Unreached {
    error: SendError,
    phases: Phases,
}

impl From<io::Error> for Unheard {
    fn from(_: io::Error) -> Self {
        Self::Client
    }
}

impl Inside {
    /// A connection of the client at `peer` to `to`.
    pub(super) fn new(
        front: Outbound,
        live: Arc<Live>,
        to: Upstream,
        peer: SocketAddr,
        whole: Whole,
        far: Option<Far>,
    ) -> Self {
        Self { front, live, to, peer, whole, far, server_name: None, note: "" }
    }

    /// Carries the connection until it ends. `early` are bytes that were read from it already.
    pub(super) async fn run(mut self, mut client: Stream, early: Bytes, surroundings: Surroundings) {
        let mut read = BytesMut::from(&early[..]);
        drop(early);
        let mut heard = tokio::select! {
            biased;
            heard = self.first_bytes(&mut client, &mut read) => heard,
            () = server::last_words(&surroundings.drain) => Err(Unheard::Stopping),
        };
        if matches!(heard, Err(Unheard::Stopping)) && !read.is_empty() {
            heard = self.first_bytes(&mut client, &mut read).await;
        }
        let first = match heard {
            Ok(first) => first,
            // Dropping the record of a `CONNECT` says that the client left; of others there is nothing to tell.
            Err(Unheard::Client) => return,
            Err(Unheard::Stopping) => {
                if let Whole::Begun(exchange) = self.whole {
                    exchange.finish(Outcome::Complete);
                }
                return;
            }
            Err(Unheard::Far(Unreached { error, phases })) => {
                let to = self.to.clone();
                return not_reached(self.begun().await, &client, &error, &phases, &to);
            }
        };
        // Asked once more, since what is noted of a connection when it is open may come later than its first look here;
        // but not later than its first bytes.
        if let (Whole::Redirected(_), Some(address)) = (&self.whole, self.to.address)
            && transparent::is_ours(&self.front, &client, self.peer, (address, self.to.port).into())
        {
            return;
        }
        let early = read.freeze();
        match first {
            FirstBytes::Http1 => self.serve(UpstreamProtocol::Http1, client, early, surroundings).await,
            FirstBytes::Http2 => self.serve(UpstreamProtocol::H2c, client, early, surroundings).await,
            FirstBytes::Tls(hello) => self.tls(hello, client, early, surroundings).await,
            FirstBytes::Other | FirstBytes::Silent | FirstBytes::Ended => self.tunnel(client, early).await,
        }
    }

    /// Waits for the client's first bytes, or until the far side says something: then it is a protocol in which the
    /// server begins. Where both are silent nobody knows better than to wait: a client may well open a connection long
    /// before it needs it.
    async fn first_bytes(&mut self, client: &mut Stream, read: &mut BytesMut) -> Result<FirstBytes, Unheard> {
        let limit = self.live.timeouts.detection;
        let far = match &self.far {
            Some(far) => far,
            None => {
                // Most clients speak first, and at once. For one whose requests are seen no tunnel is needed.
                let found = first_bytes::detect(client, read, Some(first_bytes::SILENCE), limit).await?;
                if found != FirstBytes::Silent {
                    return Ok(found);
                }
                let opened = open(&self.front, &self.live, &self.to).await.map_err(Unheard::Far)?;
                self.far.insert(opened)
            }
        };
        let mut detecting = std::pin::pin!(first_bytes::detect(client, read, None, limit));
        tokio::select! {
            biased;
            found = &mut detecting => return Ok(found?),
            settings = begins_with_settings(&far.stream) => if !settings {
                return Ok(FirstBytes::Other);
            },
        }
        Ok(detecting.await?)
    }

    /// Serves HTTP: each request has a record of its own, and the connection has none.
    async fn serve(
        self,
        protocol: UpstreamProtocol,
        client: Stream,
        early: Bytes,
        surroundings: Surroundings,
    ) {
        let Self { front, live, to, peer, whole, far, .. } = self;
        // It may go on for long, and by other settings.
        drop((far, live));
        if let Whole::Begun(mut exchange) = whole {
            exchange.keep(Keep::Never);
            exchange.finish(Outcome::Complete);
        }
        let front = Arc::new(Inner::new(front, Fixed { to: Upstream { protocol, ..to } }));
        server::serve(client, early, peer, front, surroundings, ()).await;
    }

    /// Looks into TLS, or passes it on.
    async fn tls(mut self, hello: Hello, client: Stream, early: Bytes, surroundings: Surroundings) {
        self.server_name = hello.server_name.map(|name| name.to_ascii_lowercase());
        // The name by which the client verifies whom it talks to, and so the one by which we do.
        let host = self.server_name.as_ref().unwrap_or(&self.to.host).clone();
        let wanted = self.live.intercept.iter().any(|target| target.matches(&host, self.to.port));
        let Some(interception) = self.front.interception.clone().filter(|_| wanted) else {
            return self.tunnel(client, early).await;
        };
        let Interception { authority, pinned } = &*interception;
        if pinned.contains(&host) {
            self.note = LEFT_ALONE;
            return self.tunnel(client, early).await;
        }
        let http = |name: &Vec<u8>| name == b"h2" || name == b"http/1.1" || name == b"http/1.0";
        if !hello.alpn.is_empty() && !hello.alpn.iter().any(http) {
            // It says that it will speak something else (MQTT, say), so there is nothing to be seen for us.
            self.note = NO_HTTP;
            return self.tunnel(client, early).await;
        }
        if !host.eq_ignore_ascii_case(&self.to.host) {
            // Whom the client talks to is its business; where it may connect to was decided by the name or address that
            // it asked to be connected to. So the other name leads nowhere else.
            let connected = self.far.as_ref().and_then(|far| far.stream.peer_addr().ok());
            self.to.address = self.to.address.or(connected.map(|address| address.ip()));
        }
        let limit = self.live.timeouts.detection;
        let mut stream = match intercept::accept(client, early, authority, &host, true, limit).await {
            Ok(stream) => stream,
            Err(error) => {
                if matches!(error, InterceptError::Refused(_)) {
                    self.note = REFUSED;
                    info!(host, "a client refused our certificate: its connections pass unseen for a while");
                }
                // Whatever did not work with us may work with the destination: the next connection passes unseen.
                pinned.note(&host);
                return self.ended(&error.to_string(), Outcome::ClientGoneDuringResponse).await;
            }
        };
        let mut read = BytesMut::new();
        match first_bytes::detect(&mut stream, &mut read, Some(limit), limit).await {
            Ok(FirstBytes::Http1 | FirstBytes::Http2) => {
                pinned.spoke(&host);
                drop(interception);
                self.to.host = host;
                self.serve(UpstreamProtocol::Https, stream, read.freeze(), surroundings).await;
            }
            Ok(FirstBytes::Silent) => {
                // It may wait for the server to speak first, which it would do for ever.
                pinned.note(&host);
                self.front.proxy.stats.closed_detection.increment();
                self.ended(SILENT, Outcome::RequestTimeout).await;
            }
            Ok(FirstBytes::Ended) | Err(_) => {
                if pinned.left(&host) {
                    self.note = REFUSED;
                    info!(host, "clients leave when they see our certificate: they pass unseen for a while");
                }
                self.ended(LEFT, Outcome::ClientGoneBeforeResponse).await;
            }
            Ok(FirstBytes::Other | FirstBytes::Tls(_)) => {
                pinned.note(&host);
                self.note = NO_HTTP;
                info!(host, "what is spoken inside TLS is not HTTP: it passes unseen for a while");
                let _ = stream.set_zero_linger();
                self.ended("what came first is no request", Outcome::MalformedRequest).await;
            }
        }
    }

    /// Passes bytes on, and counts them.
    async fn tunnel(mut self, client: Stream, early: Bytes) {
        let claimed = self.server_name.as_deref().filter(|_| matches!(self.whole, Whole::Redirected(_)));
        let denied = claimed.and_then(|name| self.live.egress.permits_name(name, self.to.port).err());
        let far = self.far.take();
        let (front, live, to) = (self.front.clone(), self.live.clone(), self.to.clone());
        let mut exchange = self.begun().await;
        if let Some(denied) = denied {
            return refuse(exchange, &client, denied);
        }
        let far = match far {
            Some(far) => Ok(far),
            None => open(&front, &live, &to).await,
        };
        match far {
            Ok(Far { stream, phases }) => {
                if let Some(phases) = phases {
                    facts::note_phases(&mut exchange, &phases, false);
                }
                let (idle, stats) = (live.timeouts.tunnel, front.proxy.stats.clone());
                Tunnel { upstream: stream.into(), exchange, idle, stats }.run(client, early).await;
            }
            Err(Unreached { error, phases }) => not_reached(exchange, &client, &error, &phases, &to),
        }
    }

    /// The record of the connection as a whole, which begins now if there was none.
    async fn begun(self) -> Exchange {
        let Self { front, live, to, whole, server_name, note, .. } = self;
        let mut exchange = match whole {
            Whole::Begun(exchange) => exchange,
            Whole::Redirected(sides) => {
                transparent::begin(&front, &live, &to, sides, server_name.as_deref()).await
            }
        };
        let record = exchange.record();
        record.note = record.put(note);
        exchange
    }

    async fn ended(self, detail: &str, outcome: Outcome) {
        let mut exchange = self.begun().await;
        let record = exchange.record();
        record.detail = record.put(detail);
        exchange.finish(outcome);
    }
}

async fn open(front: &Outbound, live: &Live, to: &Upstream) -> Result<Far, Unreached> {
    let mut phases = Phases::default();
    match front.pools.connector().open(to, &live.timeouts, &mut phases).await {
        Ok(stream) => {
            front.proxy.stats.upstream_connects.increment();
            Ok(Far { stream, phases: Some(phases) })
        }
        Err(error) => Err(Unreached { error, phases }),
    }
}

/// Waits for a server's first bytes, and says whether they are SETTINGS. A server of HTTP/2 may send those before it has
/// heard anything (RFC 9113 section 3.4), and its client speaks first all the same.
async fn begins_with_settings(far: &Stream) -> bool {
    let mut head = [0; 9];
    let read = far.tcp().peek(&mut head).await.unwrap_or_default();
    let [a, b, c, kind_flags_and_stream @ ..] = head;
    read == head.len()
        && u32::from_be_bytes([0, a, b, c]).is_multiple_of(6)
        && kind_flags_and_stream == [4, 0, 0, 0, 0, 0]
}

/// The client thinks that it is connected to where we could not get: all that can be said to it is a reset.
fn not_reached(mut exchange: Exchange, client: &Stream, error: &SendError, phases: &Phases, to: &Upstream) {
    let _ = client.set_zero_linger();
    facts::note_phases(&mut exchange, phases, false);
    let Error { outcome, detail, .. } = Error::upstream(error, to);
    let record = exchange.record();
    record.detail = record.put(&detail);
    exchange.finish(outcome);
}

/// A rule is against where a connection goes. All that can be said to the client is a reset.
pub(super) fn refuse(mut exchange: Exchange, client: &Stream, denied: Denied) {
    let _ = client.set_zero_linger();
    let Error { outcome, detail, .. } = outbound::denied(denied);
    let record = exchange.record();
    record.detail = record.put(&detail);
    exchange.finish(outcome);
}
