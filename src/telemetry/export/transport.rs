//! Sends requests to the collector: one connection, kept alive, HTTP/1.1 or HTTP/2, with or without TLS.
//!
//! Both protocols carry the same protobuf. OTLP/HTTP posts it; OTLP/gRPC puts 5 bytes before it and posts it over
//! HTTP/2, which needs no gRPC library. What answers mean is said in `answer`; when to try again is decided by the
//! caller.

use std::error::Error;
use std::io;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout, timeout_at};
use tokio_rustls::TlsConnector;

use super::StartError;
use super::answer::{self, Answer};
use crate::config::{Otlp, OtlpProtocol};
use crate::net::tls;

/// Largest answer that is read, in bytes; a larger one is a final error (OTLP-8).
const MAX_RESPONSE: usize = 4 << 20;

/// Bound on connecting to one address. Below the bound on an attempt, so that a host with an address that swallows
/// everything (IPv6 that leads nowhere) is reached by its next.
const CONNECT: Duration = Duration::from_secs(3);

/// OTLP-11. The second product is the one that OTLP asks exporters in Rust to name; the version is that of the library
/// whose encoding ours is tested to equal.
const PRODUCT: &str = concat!("tracecar/", env!("CARGO_PKG_VERSION"), " OTel-OTLP-Exporter-Rust/0.33.1");

const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// Why there is no answer, by how far it came. Each holds the whole sentence.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
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

/// The way to one collector.
pub(super) struct Transport {
    protocol: OtlpProtocol,
    host: String,
    port: u16,
    tls: Option<(TlsConnector, ServerName<'static>)>,
    /// What every request looks like, but for its body.
    head: Request<()>,
    /// Bound on one attempt.
    limit: Option<Duration>,
    kept: Option<Connection>,
}

impl Transport {
    /// The way to the collector of `otlp`. Nothing is connected yet.
    ///
    /// # Errors
    /// Where the endpoint is no URL of a collector, or the TLS files cannot be used.
    pub(super) fn new(otlp: &Otlp) -> Result<Self, StartError> {
        let endpoint = |reason| StartError::Endpoint { endpoint: shown(&otlp.endpoint), reason };
        let host = otlp.endpoint.host().filter(|host| !host.is_empty()).ok_or(endpoint("it has no host"))?;
        let secure = match otlp.endpoint.scheme_str() {
            Some("http") => false,
            Some("https") => true,
            _ => return Err(endpoint("it must begin with http:// or https://")),
        };
        let host = host.trim_start_matches('[').trim_end_matches(']').to_owned();
        let alpn = match otlp.protocol {
            OtlpProtocol::Grpc => "h2",
            OtlpProtocol::HttpProtobuf => "http/1.1",
        };
        let tls = match secure {
            false => None,
            true => {
                let name = ServerName::try_from(host.clone())
                    .map_err(|_| endpoint("its host cannot be the name on a certificate"))?;
                Some((TlsConnector::from(Arc::new(tls::client(&otlp.tls, &[alpn])?)), name))
            }
        };
        let bounds = [otlp.timeout, otlp.queue.export_timeout];
        Ok(Self {
            protocol: otlp.protocol,
            host,
            // Not 4317 or 4318: the URL means what URLs mean (OTLP-10).
            port: otlp.endpoint.port_u16().unwrap_or(if secure { 443 } else { 80 }),
            tls,
            head: head(otlp).map_err(|_| endpoint("no request can be made of it"))?,
            limit: bounds.into_iter().filter(|bound| !bound.is_zero()).min(),
            kept: None,
        })
    }

    /// Sends `content` once, and waits for the answer no longer than the configured bound and `until`.
    pub(super) async fn send(&mut self, content: Bytes, until: Instant) -> Answer {
        let started = Instant::now();
        let until = self.limit.map_or(until, |limit| until.min(started + limit));
        let outcome = match timeout_at(until, self.attempt(content)).await {
            Ok(outcome) => outcome,
            // The connection went down with the attempt.
            Err(_) => Err(Failure::NoAnswer(format!("no answer within {:?}", until - started))),
        };
        outcome.unwrap_or_else(|failure| Answer::Later { reason: failure.to_string(), after: None })
    }

    /// Sends `content` once over a new connection, and returns the answer with its head, trailers included.
    pub(super) async fn probe(&mut self, content: Bytes) -> Result<(Answer, response::Parts), Failure> {
        let connection = self.connect().await?;
        let (response, connection) = connection.send(self.request(content)).await?;
        self.read(response, connection).await
    }

    async fn attempt(&mut self, content: Bytes) -> Result<Answer, Failure> {
        let request = self.request(content);
        if let Some(kept) = self.kept.take() {
            // It may have been closed while nobody needed it, even in this moment. That is no failure of the
            // collector's, so a new connection is tried at once. Spans that arrive twice have the same ids.
            if let Ok((response, kept)) = kept.send(request.clone()).await {
                return self.read(response, kept).await.map(|(answer, _)| answer);
            }
        }
        let connection = self.connect().await?;
        let (response, connection) = connection.send(request).await?;
        self.read(response, connection).await.map(|(answer, _)| answer)
    }

    fn request(&self, content: Bytes) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(content));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.head.uri().clone();
        *request.version_mut() = self.head.version();
        *request.headers_mut() = self.head.headers().clone();
        request
    }

    /// Reads the answer, and keeps the connection for the next request.
    async fn read(
        &mut self,
        response: Response<Incoming>,
        connection: Connection,
    ) -> Result<(Answer, response::Parts), Failure> {
        let (mut parts, body) = response.into_parts();
        let body = match Limited::new(body, MAX_RESPONSE).collect().await {
            Ok(body) => body,
            Err(error) if error.is::<LengthLimitError>() => {
                let reason = format!("the answer is longer than {MAX_RESPONSE} bytes");
                return Ok((Answer::Refused(reason), parts));
            }
            Err(error) => {
                return Err(Failure::NoAnswer(format!("the answer broke off: {}", said(error.as_ref()))));
            }
        };
        self.kept = Some(connection);
        let trailers = body.trailers().cloned();
        let body = body.to_bytes();
        let answer = match self.protocol {
            OtlpProtocol::Grpc => answer::of_grpc(parts.status, &parts.headers, trailers.as_ref(), body),
            OtlpProtocol::HttpProtobuf => {
                answer::of_http(parts.status, &parts.headers, body, SystemTime::now())
            }
        };
        parts.headers.extend(trailers.into_iter().flatten());
        Ok((answer, parts))
    }

    async fn connect(&self) -> Result<Connection, Failure> {
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
        match self.protocol {
            OtlpProtocol::HttpProtobuf => {
                let (sender, driver) = http1::handshake(io).await?;
                let driver = tokio::spawn(async move { drop(driver.await) }).abort_handle();
                Ok(Connection { sender: Sender::Http1(sender), _driver: Driver(driver) })
            }
            OtlpProtocol::Grpc => {
                let (sender, driver) = http2::handshake(TokioExecutor::new(), io).await?;
                let driver = tokio::spawn(async move { drop(driver.await) }).abort_handle();
                Ok(Connection { sender: Sender::Http2(sender), _driver: Driver(driver) })
            }
        }
    }
}

/// An open connection. Dropping it closes it, whatever is still going on there.
struct Connection {
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
    async fn send(mut self, request: Request<Full<Bytes>>) -> hyper::Result<(Response<Incoming>, Self)> {
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
pub(super) fn shown(endpoint: &Uri) -> String {
    let authority = endpoint.authority().map_or("", |authority| authority.as_str());
    let authority = authority.rsplit_once('@').map_or(authority, |(_, rest)| rest);
    format!("{}://{authority}{}", endpoint.scheme_str().unwrap_or_default(), endpoint.path())
}

fn head(otlp: &Otlp) -> Result<Request<()>, http::Error> {
    let mut headers = HeaderMap::new();
    headers.insert(USER_AGENT, HeaderValue::from_static(PRODUCT));
    for (name, value) in &otlp.headers {
        let mut value = value.clone();
        // Kept out of `Debug` output and of HTTP/2's table of repeated headers.
        value.set_sensitive(true);
        headers.insert(name, value);
    }
    let authority = otlp.endpoint.authority().map_or("", |authority| authority.as_str());
    let authority = authority.rsplit_once('@').map_or(authority, |(_, rest)| rest);
    let path = otlp.endpoint.path_and_query().map_or("/", |path| path.as_str());
    let (version, uri) = match otlp.protocol {
        OtlpProtocol::Grpc => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            headers.insert(TE, HeaderValue::from_static("trailers"));
            if otlp.gzip {
                headers.insert("grpc-encoding", HeaderValue::from_static("gzip"));
            }
            let scheme = otlp.endpoint.scheme_str().unwrap_or("http");
            (
                Version::HTTP_2,
                Uri::builder().scheme(scheme).authority(authority).path_and_query(GRPC_PATH).build()?,
            )
        }
        OtlpProtocol::HttpProtobuf => {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-protobuf"));
            headers.insert(HOST, HeaderValue::from_str(authority)?);
            if otlp.gzip {
                headers.insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
            }
            (Version::HTTP_11, Uri::builder().path_and_query(path).build()?)
        }
    };
    let mut request = Request::builder().method(Method::POST).version(version).uri(uri).body(())?;
    *request.headers_mut() = headers;
    Ok(request)
}

/// An I/O error without `(os error 111)`.
fn plain(error: &io::Error) -> String {
    match error.raw_os_error() {
        Some(_) => error.kind().to_string(),
        None => error.to_string(),
    }
}

/// An error with its causes, which is where hyper keeps what happened.
fn said(error: &(dyn Error + 'static)) -> String {
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
    fn the_user_agent_names_the_version_that_the_encoder_is_tested_against() {
        let lock = include_str!("../../../Cargo.lock");
        let version = PRODUCT.rsplit('/').next().unwrap();
        assert!(
            lock.contains(&format!("name = \"opentelemetry-otlp\"\nversion = \"{version}\"")),
            "PRODUCT should follow Cargo.lock"
        );
    }

    #[test]
    fn an_endpoint_is_shown_without_its_secrets() {
        let endpoint = "https://me:secret@otlp.example:4318/v1/traces?key=secret".parse().unwrap();
        assert_eq!(shown(&endpoint), "https://otlp.example:4318/v1/traces");
    }
}
