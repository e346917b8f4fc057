//! Connections to the servers that telemetry is sent to: a name, TLS where the URL asks for it, and one connection that
//! is kept.
//!
//! What is sent over them, and what answers mean, is said elsewhere.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, Uri};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::config::OtlpTls;
use crate::net::tls::{self, TlsError};

/// Bound on connecting to one address. Below the bound on an attempt, so that a host with an address that swallows
/// everything (IPv6 that leads nowhere) is reached by its next.
const CONNECT: Duration = Duration::from_secs(3);

/// Why no server can be reached by a URL and TLS files, whatever the server does.
pub(in crate::telemetry) enum Unusable {
    /// What is wrong with the URL.
    Url(&'static str),
    /// The TLS files.
    Tls(TlsError),
}

/// Why there is no answer, by how far it came. Each holds the whole sentence.
#[derive(Debug, thiserror::Error)]
pub(in crate::telemetry) enum Failure {
    #[error("{0}")]
    Unresolved(String),
    #[error("{0}")]
    Unreachable(String),
    #[error("TLS: {0}")]
    Tls(io::Error),
    #[error("{0}")]
    NoAnswer(String),
}

impl From<hyper::Error> for Failure {
    fn from(error: hyper::Error) -> Self {
        Self::NoAnswer(said(&error))
    }
}

/// What is spoken on a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::telemetry) enum Speech {
    Http1,
    Http2,
}

/// A server, and how it is spoken to.
pub(in crate::telemetry) struct Server {
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    speech: Speech,
}

impl Server {
    /// The server that `url` names. Nothing is connected yet.
    ///
    /// # Errors
    /// Where the URL names none, or the TLS files cannot be used.
    pub(in crate::telemetry) fn new(url: &Uri, files: &OtlpTls, speech: Speech) -> Result<Self, Unusable> {
        let host = url.host().filter(|host| !host.is_empty()).ok_or(Unusable::Url("it has no host"))?;
        let secure = match url.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(Unusable::Url("it must begin with http:// or https://")),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let alpn = match speech {
            Speech::Http1 => "http/1.1",
            Speech::Http2 => "h2",
        };
        let tls = match secure {
            false => None,
            true => {
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| Unusable::Url("its host cannot be the name on a certificate"))?;
                let config = tls::client(files, &[alpn]).map_err(Unusable::Tls)?;
                Some((TlsConnector::from(Arc::new(config)), name))
            }
        };
        // Not 4317 or 4318: the URL means what URLs mean (OTLP-10).
        let port = url.port_u16().unwrap_or(if secure { 443 } else { 80 });
        Ok(Self { host, port, tls, speech })
    }

    /// Opens a connection.
    pub(in crate::telemetry) async fn connect(&self) -> Result<Connection, Failure> {
        let addresses = lookup_host((self.host.as_str(), self.port)).await.map_err(|error| {
            Failure::Unresolved(format!("cannot resolve {}: {}", self.host, said(&error)))
        })?;
        let mut reason = format!("{} has no address", self.host);
        for address in addresses {
            match timeout(CONNECT, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => return self.secured(stream).await,
                Ok(Err(error)) => reason = format!("cannot connect to {address}: {}", plain(&error)),
                Err(_) => reason = format!("cannot connect to {address}: nobody answers within {CONNECT:?}"),
            }
        }
        Err(Failure::Unreachable(reason))
    }

    async fn secured(&self, stream: TcpStream) -> Result<Connection, Failure> {
        // Not worth a failure: without it small requests only take longer.
        let _ = stream.set_nodelay(true);
        let Some((connector, name)) = &self.tls else { return self.handshake(stream).await };
        let stream = connector.connect(name.clone(), stream).await.map_err(Failure::Tls)?;
        self.handshake(stream).await
    }

    async fn handshake<I>(&self, io: I) -> Result<Connection, Failure>
    where
        I: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let io = TokioIo::new(io);
        // How a connection ends is seen by the request on it.
        match self.speech {
            Speech::Http1 => {
                let (sender, driver) = http1::handshake(io).await?;
                let driver = tokio::spawn(async move { drop(driver.await) }).abort_handle();
                Ok(Connection { sender: Sender::Http1(sender), _driver: Driver(driver) })
            }
            Speech::Http2 => {
                let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await?;
                let driver = tokio::spawn(async move { drop(driver.await) }).abort_handle();
                Ok(Connection { sender: Sender::Http2(sender), _driver: Driver(driver) })
            }
        }
    }
}

/// An open connection. Dropping it closes it, whatever is still going on there.
pub(in crate::telemetry) struct Connection {
    sender: Sender,
    _driver: Driver,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

struct Driver(AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl Connection {
    /// Sends a request, and gives the connection back with the answer's head.
    pub(in crate::telemetry) async fn send(
        mut self,
        request: Request<Full<Bytes>>,
    ) -> hyper::Result<(Response<Incoming>, Self)> {
        let response = match &mut self.sender {
            Sender::Http1(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
            Sender::Http2(sender) => {
                sender.ready().await?;
                sender.send_request(request).await?
            }
        };
        Ok((response, self))
    }
}

/// The endpoint as it may be shown: credentials and query stay out of logs.
pub(in crate::telemetry) fn shown(endpoint: &Uri) -> String {
    format!("{}://{}{}", endpoint.scheme_str().unwrap_or_default(), authority(endpoint), endpoint.path())
}

/// Host and port of a URL, as `Host` has them: without credentials.
pub(in crate::telemetry) fn authority(url: &Uri) -> &str {
    let authority = url.authority().map_or("", |authority| authority.as_str());
    authority.rsplit_once('@').map_or(authority, |(_, rest)| rest)
}

/// An I/O error without `(os error 111)`.
fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) => error.kind().to_string(),
        None => error.to_string(),
    }
}

/// An error with its causes, which is where hyper keeps what happened.
pub(in crate::telemetry) fn said(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let more = error.to_string();
        if !text.contains(&more) {
            text = format!("{text}: {more}");
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_endpoint_is_shown_without_its_secrets() {
        let endpoint = "https://me:secret@otlp.example:4318/v1/traces?key=secret".parse().unwrap();
        assert_eq!(shown(&endpoint), "https://otlp.example:4318/v1/traces");
    }
}
