//! Sends envelopes: one connection, kept alive, one attempt. What its outcome means for those that wait is decided by the
//! caller.

use std::str::FromStr;
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use http::header::{CONTENT_ENCODING, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Incoming;
use sentry::types::Dsn;
use tokio::time::timeout;

use super::StartError;
use super::envelope::Item;
use crate::config::{self, OtlpTls};
use crate::telemetry::export::connection::{Connection, Failure, Server, Speech, Unusable, authority, shown};
use crate::telemetry::export::quote;

/// Bound on one attempt, from looking up the name to the answer's last byte.
pub(super) const ATTEMPT: Duration = Duration::from_secs(10);

/// How long the rest of an answer is waited for: its head has said what became of the item.
const REST: Duration = Duration::from_secs(1);

/// How much of an answer is read, in bytes. The connection of a longer one is not used again.
const MAX_RESPONSE: usize = 64 << 10;

const AGENT: &str = concat!("tracecar/", env!("CARGO_PKG_VERSION"));

/// What Sentry said.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) status: StatusCode,
    pub(super) headers: HeaderMap,
    /// The status and the first words, on one line.
    pub(super) words: String,
}

/// The way to one project.
pub(super) struct Transport {
    server: Server,
    /// What every request looks like, but for its body.
    head: Request<()>,
    kept: Option<Connection>,
    /// Those of the DSN, which some servers repeat when they do not know them.
    keys: Vec<String>,
    /// Without keys.
    pub(super) endpoint: String,
}

impl Transport {
    /// The way to the project of `settings`. Nothing is connected yet.
    ///
    /// # Errors
    /// Where the DSN is none, or the TLS files cannot be used.
    pub(super) fn new(settings: &config::Sentry, dsn: &Dsn) -> Result<Self, StartError> {
        let url = &settings.dsn;
        let unusable = |reason| StartError::Dsn { endpoint: shown(url), reason };
        let files = OtlpTls { certificate: settings.certificate.clone(), ..OtlpTls::default() };
        let server = Server::new(url, &files, Speech::Http1).map_err(|error| match error {
            Unusable::Url(reason) => unusable(reason),
            Unusable::Tls(error) => error.into(),
        })?;
        let head = head(dsn, authority(url)).map_err(|_| unusable("no request can be made of it"))?;
        let keys = [dsn.public_key()].into_iter().chain(dsn.secret_key()).map(str::to_owned).collect();
        Ok(Self { server, head, kept: None, keys, endpoint: shown(url) })
    }

    /// Sends an item once, and waits for the answer no longer than [`ATTEMPT`]. `Err` says why there is none.
    pub(super) async fn send(&mut self, item: &Item) -> Result<Answer, String> {
        let (content, compressed) = item.pack(SystemTime::now()).ok_or("it cannot be written")?;
        match timeout(ATTEMPT, self.attempt(content, compressed)).await {
            Ok(outcome) => outcome.map_err(|failure| failure.to_string()),
            // The connection went down with the attempt.
            Err(_) => Err(format!("no answer within {ATTEMPT:?}")),
        }
    }

    /// Sends `content` once, however long that takes.
    pub(super) async fn attempt(&mut self, content: Bytes, compressed: bool) -> Result<Answer, Failure> {
        if let Some(kept) = self.kept.take() {
            // It may have been closed while nobody needed it, even in this moment. That is no failure of Sentry's, so a new
            // connection is tried at once. Should the event arrive twice, it has the same id.
            if let Ok((response, kept)) = kept.send(self.request(content.clone(), compressed)).await {
                return Ok(self.read(response, kept).await);
            }
        }
        let connection = self.server.connect().await?;
        let (response, connection) = connection.send(self.request(content, compressed)).await?;
        Ok(self.read(response, connection).await)
    }

    fn request(&self, content: Bytes, compressed: bool) -> Request<Full<Bytes>> {
        let mut request = Request::new(Full::new(content));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.head.uri().clone();
        *request.headers_mut() = self.head.headers().clone();
        if compressed {
            request.headers_mut().insert(CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        request
    }

    /// Reads the answer, and keeps the connection for the next request. The head has said what became of the item; where
    /// the rest does not come as it should, only the connection is lost.
    async fn read(&mut self, response: Response<Incoming>, connection: Connection) -> Answer {
        let (parts, body) = response.into_parts();
        let mut words = format!("HTTP {}", parts.status);
        if let Ok(Ok(body)) = timeout(REST, Limited::new(body, MAX_RESPONSE).collect()).await {
            self.kept = Some(connection);
            let said = String::from_utf8_lossy(&body.to_bytes()).into_owned();
            let said = self.keys.iter().fold(said, |said, key| said.replace(key, "***"));
            let said = quote(&said);
            if !said.is_empty() {
                words = format!("{words}: {said}");
            }
        }
        Answer { status: parts.status, headers: parts.headers, words }
    }
}

/// SEN-1 and SEN-2.
fn head(dsn: &Dsn, authority: &str) -> Result<Request<()>, http::Error> {
    let secret = dsn.secret_key().map_or_else(String::new, |secret| format!(", sentry_secret={secret}"));
    let key = dsn.public_key();
    let auth = format!("Sentry sentry_version=7, sentry_client={AGENT}, sentry_key={key}{secret}");
    let mut auth = HeaderValue::from_str(&auth)?;
    // Kept out of `Debug` output.
    auth.set_sensitive(true);
    let uri = Uri::from_str(dsn.envelope_api_url().path())?;
    let mut request = Request::builder().method(Method::POST).uri(uri).body(())?;
    let headers = request.headers_mut();
    headers.insert(HOST, HeaderValue::from_str(authority)?);
    headers.insert(USER_AGENT, HeaderValue::from_static(AGENT));
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-sentry-envelope"));
    headers.insert(HeaderName::from_static("x-sentry-auth"), auth);
    Ok(request)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(dsn: &str) -> Request<()> {
        head(&dsn.parse().unwrap(), authority(&dsn.parse().unwrap())).unwrap()
    }

    #[test]
    fn a_request_goes_where_the_dsn_says_and_shows_its_key() {
        let request = of("https://abc@o1.ingest.example/base/42");
        assert_eq!(request.uri(), "/base/api/42/envelope/");
        assert_eq!(request.headers()["host"], "o1.ingest.example");
        let version = env!("CARGO_PKG_VERSION");
        let expected = format!("Sentry sentry_version=7, sentry_client=tracecar/{version}, sentry_key=abc");
        assert_eq!(request.headers()["x-sentry-auth"], expected);
        assert_eq!(of("http://abc@localhost:9000/1").headers()["host"], "localhost:9000");
    }

    #[test]
    fn a_secret_is_sent_where_there_is_one_and_never_printed() {
        let request = of("https://abc:hush@sentry.example/1");
        assert!(request.headers()["x-sentry-auth"].to_str().unwrap().ends_with(", sentry_secret=hush"));
        assert!(!format!("{request:?}").contains("hush"));
    }
}
