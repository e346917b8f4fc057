//! Opens connections to services: name, address, permission, socket, TLS; each step timed.

use std::future::Future;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use rustls::ClientConfig;
use rustls::pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};
use tokio_rustls::TlsConnector;

use super::listener::keep_alive;
use super::own::OwnSockets;
use super::stream::Stream;
use super::tls::ServiceTls;
use super::upstream::{Phases, SendError};
use crate::config::{Timeouts, Upstream, UpstreamProtocol};

/// Decides which addresses may be connected to.
pub trait Permits: Send + Sync + std::fmt::Debug {
    /// Asked right before connecting to exactly `address`, which `host` was resolved to: a name that resolves
    /// differently a moment later has no chance to slip between the check and its use.
    ///
    /// # Errors
    /// Why not, for people.
    fn permits(&self, host: &str, address: SocketAddr) -> Result<(), String>;
}

/// How connections are opened. Shared by the pools of one front.
#[derive(Clone, Debug, Default)]
pub struct Connector {
    /// Whom to trust.
    pub tls: Arc<ServiceTls>,
    /// Who may be connected to; everybody where nobody decides.
    pub permits: Option<Arc<dyn Permits>>,
    /// Where our connections are noted.
    pub own: Arc<OwnSockets>,
}

/// What a TLS connection may speak.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offer {
    /// HTTP/1.1 only: a request that asks for an upgrade needs it.
    Http1,
    /// HTTP/2, or else HTTP/1.1.
    Either,
}

impl Connector {
    /// Opens a connection without TLS, whatever the protocol of `upstream`: a tunnel's. It takes no longer than
    /// `timeouts.connect`.
    ///
    /// # Errors
    /// Says what went wrong on the way.
    pub async fn open(
        &self,
        upstream: &Upstream,
        timeouts: &Timeouts,
        phases: &mut Phases,
    ) -> Result<Stream, SendError> {
        let step = Step::default();
        let opened = within(timeouts.connect, self.socket(upstream, timeouts, phases, &step)).await;
        step.interrupted(phases);
        let stream = opened?;
        (phases.local, phases.peer) = (stream.local_addr().ok(), stream.peer_addr().ok());
        Ok(stream)
    }

    /// Opens a connection as a request to `upstream` would, with TLS where that is its protocol, and returns what is at
    /// its far end. Nothing is sent on it.
    ///
    /// # Errors
    /// Says what went wrong on the way.
    pub async fn reach(&self, upstream: &Upstream, timeouts: &Timeouts) -> Result<SocketAddr, SendError> {
        let mut phases = Phases::default();
        let stream = match upstream.protocol {
            UpstreamProtocol::Https => self.open_tls(upstream, Offer::Either, timeouts, &mut phases).await?,
            UpstreamProtocol::Http1 | UpstreamProtocol::H2c => {
                self.open(upstream, timeouts, &mut phases).await?
            }
        };
        stream.peer_addr().map_err(SendError::Unreachable)
    }

    /// The same with TLS on it, for the name that `upstream` has. All of it takes no longer than `timeouts.connect`.
    pub(super) async fn open_tls(
        &self,
        upstream: &Upstream,
        offer: Offer,
        timeouts: &Timeouts,
        phases: &mut Phases,
    ) -> Result<Stream, SendError> {
        let step = Step::default();
        let opening = async {
            let configs = self.tls.configs().await.map_err(|error| SendError::Tls(error.to_string()))?;
            let config = match offer {
                Offer::Http1 => &configs.http1,
                Offer::Either => &configs.either,
            };
            let stream = self.socket(upstream, timeouts, phases, &step).await?;
            (phases.local, phases.peer) = (stream.local_addr().ok(), stream.peer_addr().ok());
            let begun = step.begin(|phases| &mut phases.tls);
            let secured = secure(stream, self.tls.name_of(&upstream.host), config.clone()).await;
            phases.tls = Some(begun.elapsed());
            step.end();
            secured
        };
        let opened = within(timeouts.connect, opening).await;
        step.interrupted(phases);
        opened
    }

    async fn socket(
        &self,
        upstream: &Upstream,
        timeouts: &Timeouts,
        phases: &mut Phases,
        step: &Step,
    ) -> Result<Stream, SendError> {
        let addresses = resolve(upstream, phases, step).await?;
        let begun = step.begin(|phases| &mut phases.connect);
        let connected = self.connect_any(&upstream.host, &addresses, timeouts.connect).await;
        phases.connect = Some(begun.elapsed());
        step.end();
        let stream = connected?;
        // Small requests must not wait for acknowledgements.
        let _ = stream.set_nodelay(true);
        keep_alive(&stream);
        let local = stream.local_addr().map_err(SendError::Unreachable)?;
        let remote = stream.peer_addr().map_err(SendError::Unreachable)?;
        Ok(Stream::Opened(stream, Box::new(self.own.insert(local, remote))))
    }

    /// Tries one address after the other. Each has its share of `limit`, so that a first one that is never heard of
    /// leaves time for the next.
    async fn connect_any(
        &self,
        host: &str,
        addresses: &[SocketAddr],
        limit: Duration,
    ) -> Result<TcpStream, SendError> {
        let share = limit / u32::try_from(addresses.len()).unwrap_or(u32::MAX).max(1);
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        let mut denied = None;
        let mut tried = false;
        for address in addresses {
            if let Some(reason) = self.permits.as_ref().and_then(|all| all.permits(host, *address).err()) {
                denied = Some(reason);
                continue;
            }
            tried = true;
            match timeout(share, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return Ok(stream),
                Ok(Err(error)) => last = error,
                Err(_) => last = io::ErrorKind::TimedOut.into(),
            }
        }
        match (denied, last.kind()) {
            (Some(reason), _) if !tried => Err(SendError::Denied(reason)),
            (_, io::ErrorKind::ConnectionRefused) => Err(SendError::Refused),
            (_, io::ErrorKind::TimedOut) => Err(SendError::ConnectTimeout(limit)),
            _ => Err(SendError::Unreachable(last)),
        }
    }
}

async fn within<T>(
    limit: Duration,
    opening: impl Future<Output = Result<T, SendError>>,
) -> Result<T, SendError> {
    timeout(limit, opening).await.unwrap_or(Err(SendError::ConnectTimeout(limit)))
}

/// What is being waited for, so that its time is known also if nobody waits until its end.
#[derive(Default)]
struct Step(Mutex<Option<(Field, Instant)>>);

type Field = fn(&mut Phases) -> &mut Option<Duration>;

impl Step {
    fn begin(&self, field: Field) -> Instant {
        let now = Instant::now();
        *self.now() = Some((field, now));
        now
    }

    fn end(&self) {
        *self.now() = None;
    }

    fn now(&self) -> MutexGuard<'_, Option<(Field, Instant)>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Notes the time of a step that did not end.
    fn interrupted(&self, phases: &mut Phases) {
        if let Some((field, begun)) = self.now().take() {
            *field(phases) = Some(begun.elapsed());
        }
    }
}

async fn resolve(
    upstream: &Upstream,
    phases: &mut Phases,
    step: &Step,
) -> Result<Vec<SocketAddr>, SendError> {
    let Upstream { host, port, address, .. } = upstream;
    if let Some(address) = address.or_else(|| host.parse::<IpAddr>().ok()) {
        return Ok(vec![(address, *port).into()]);
    }
    let begun = step.begin(|phases| &mut phases.dns);
    let found = tokio::net::lookup_host((host.as_str(), *port)).await;
    phases.dns = Some(begun.elapsed());
    step.end();
    found.map(Iterator::collect).map_err(|error| SendError::Unresolved(host.clone(), error))
}

async fn secure(stream: Stream, host: &str, config: Arc<ClientConfig>) -> Result<Stream, SendError> {
    let Ok(name) = ServerName::try_from(host.to_owned()) else {
        return Err(SendError::Tls(format!("{host} is no name that a certificate could have")));
    };
    match TlsConnector::from(config).connect(name, stream).await {
        Ok(tls) => Ok(Stream::Secured(Box::new(tls))),
        Err(error) => Err(match super::tls::alert(&error) {
            Some(rustls::Error::InvalidCertificate(reason)) => SendError::Certificate(reason.to_string()),
            _ => SendError::Tls(error.to_string()),
        }),
    }
}
