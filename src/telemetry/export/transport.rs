//! Sends requests to the collector: one connection, kept alive, HTTP/1.1 or HTTP/2, with or without TLS.
//!
//! Both protocols carry the same protobuf. OTLP/HTTP posts it; OTLP/gRPC puts 5 bytes before it and posts it over
//! HTTP/2, which needs no gRPC library. What answers mean is said in `answer`; when to try again is decided by the
//! caller.

use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, TE, USER_AGENT};
use http::{HeaderMap, HeaderValue, Method, Request, Response, Uri, Version, response};
use http_body_util::{BodyExt, Full, LengthLimitError, Limited};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout_at};

use super::StartError;
use super::answer::{self, Answer};
use super::connection::{Connection, Failure, Server, Speech, Unusable, authority, said, shown};
use crate::config::{Otlp, OtlpProtocol};

/// Largest answer that is read, in bytes; a larger one is a final error (OTLP-8).
const MAX_RESPONSE: usize = 4 << 20;

/// OTLP-11. The second product is the one that OTLP asks exporters in Rust to name; the version is that of the library
/// whose encoding ours is tested to equal.
const PRODUCT: &str = concat!("tracecar/", env!("CARGO_PKG_VERSION"), " OTel-OTLP-Exporter-Rust/0.33.1");

const GRPC_PATH: &str = "/opentelemetry.proto.collector.trace.v1.TraceService/Export";

/// The way to one collector.
pub(super) struct Transport {
    protocol: OtlpProtocol,
    server: Server,
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
        let speech = match otlp.protocol {
            OtlpProtocol::Grpc => Speech::Http2,
            OtlpProtocol::HttpProtobuf => Speech::Http1,
        };
        let server = Server::new(&otlp.endpoint, &otlp.tls, speech).map_err(|unusable| match unusable {
            Unusable::Url(reason) => endpoint(reason),
            Unusable::Tls(error) => error.into(),
        })?;
        let bounds = [otlp.timeout, otlp.queue.export_timeout];
        Ok(Self {
            protocol: otlp.protocol,
            server,
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
        let connection = self.server.connect().await?;
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
        let connection = self.server.connect().await?;
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
    let authority = authority(&otlp.endpoint);
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
}
