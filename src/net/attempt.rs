//! One attempt at sending a request: how long to wait for the answer, what an error means, and whether there may be
//! another attempt.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use http::header::UPGRADE;
use http::{Method, Request};
use http_body::Body;
use thiserror::Error;
use tokio::time::timeout;

use crate::wire::body::describe;

/// What happened on the way to the service, also when it failed.
#[derive(Clone, Copy, Debug, Default)]
pub struct Phases {
    /// Time for name resolution, where a name was resolved.
    pub dns: Option<Duration>,
    /// Time for connecting, where a connection was opened.
    pub connect: Option<Duration>,
    /// Time for the TLS handshake, where there was one.
    pub tls: Option<Duration>,
    /// When the request head was handed to the connection.
    pub sent: Option<std::time::Instant>,
    /// The code with which the service reset the stream of the request, where it did (HTTP/2).
    pub reset: Option<u32>,
    /// How often the request was sent again, after it had been sent in vain.
    pub resends: u32,
    /// Our end of the connection that was used last, new or kept.
    pub local: Option<SocketAddr>,
    /// Its far end.
    pub peer: Option<SocketAddr>,
}

/// Why there is no response.
#[derive(Debug, Error)]
pub enum SendError {
    /// The name could not be resolved.
    #[error("cannot resolve {0}: {1}")]
    Unresolved(String, io::Error),
    /// Nothing listens there.
    #[error("connection refused")]
    Refused,
    /// The host or its network cannot be reached.
    #[error("cannot connect: {0}")]
    Unreachable(io::Error),
    /// A rule of ours is against every address that the name has; says which.
    #[error("{0}")]
    Denied(String),
    /// The service's certificate is not valid for its name, or not by anybody whom we trust.
    #[error("invalid certificate: {0}")]
    Certificate(String),
    /// The TLS handshake failed for another reason.
    #[error("no TLS: {0}")]
    Tls(String),
    /// Connecting took too long, the TLS handshake included.
    #[error("no connection within {0:?}")]
    ConnectTimeout(Duration),
    /// As many connections as may be were busy for that long.
    #[error("all connections that limits.upstream_connections lets were busy for {0:?}")]
    Busy(Duration),
    /// The response head took too long.
    #[error("no response within {0:?}")]
    HeaderTimeout(Duration),
    /// The connection was closed or reset before the response head.
    #[error("connection closed before a response: {0}")]
    Reset(String),
    /// What came back is not HTTP.
    #[error("invalid response: {0}")]
    Invalid(String),
}

/// Waits for `answer` until `limit` has passed in which the request's content did not move either: a long upload is no
/// slow service. From its last byte, the service has between one and two times the limit; without content, exactly one.
pub(super) async fn while_it_moves<T>(
    limit: Duration,
    progress: impl Fn() -> u64,
    answer: impl Future<Output = T>,
) -> Option<T> {
    let mut answer = std::pin::pin!(answer);
    let mut before = progress();
    loop {
        if let Ok(answered) = timeout(limit, answer.as_mut()).await {
            return Some(answered);
        }
        let now = progress();
        if now == before {
            return None;
        }
        before = now;
    }
}

/// What an error of the codec means.
pub(super) fn classify(error: &hyper::Error) -> SendError {
    if error.is_parse() {
        return SendError::Invalid(describe(error));
    }
    SendError::Reset(describe(error))
}

/// Whether a request may be sent again: it means the same however often it arrives, and has no content that would
/// have to be kept (HOP-15).
pub(super) fn is_repeatable<B: Body>(request: &Request<B>) -> bool {
    let idempotent = matches!(
        *request.method(),
        Method::GET | Method::HEAD | Method::OPTIONS | Method::TRACE | Method::PUT | Method::DELETE
    );
    // Asking for an upgrade ties a request to its connection.
    idempotent && request.body().is_end_stream() && !request.headers().contains_key(UPGRADE)
}
