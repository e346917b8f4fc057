//! Pages for orchestrators, scrapers and people: health, readiness, metrics, the settings in effect; and the way to have
//! those read again.
//!
//! A small HTTP/1 server. What changes something, or tells more than health and metrics, needs a token, unless only this host
//! can ask (`guard`). One request per connection, few connections, and a
//! bound on each: whoever can reach this port can make it busy, but not the data path.

mod guard;
mod readiness;

use std::convert::Infallible;
use std::future::Future;
use std::io::Write;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use flate2::Compression;
use flate2::write::GzEncoder;
use http::header::{self, HeaderName, HeaderValue};
use http::{HeaderMap, Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio::time::timeout;
use tracing::{debug, warn};

pub use readiness::Readiness;

use self::guard::OpenTo;
use crate::config::AdminToken;
use crate::stats::Row;
use crate::telemetry::{Exposition, metrics::Metrics, quality, watch::Watch};

/// Pages below this size are not worth compressing: they fit in one packet.
const MIN_GZIP: usize = 1200;

/// What the pages show.
pub struct Admin {
    /// Metrics of traffic.
    pub metrics: Metrics,
    /// Counters about tracecar itself, read anew for each page.
    pub rows: Box<dyn Fn() -> Vec<Row> + Send + Sync>,
    /// What `/readyz` answers from.
    pub readiness: Arc<Readiness>,
    /// What `/errors` and `/slow` show.
    pub watch: Watch,
    /// The settings in effect, and how to have them read again.
    pub config: ConfigPage,
    /// Makes records that wait in buffers be read. Called before the metrics page, so that it shows a request
    /// that has just been answered; it is given one second.
    pub refresh: Refresh,
}

/// How `/config` begins where a newer configuration was refused.
pub const REFUSED: &str = "# The configuration was read again and could not be used";

/// What `/config` and `/-/reload` work on.
#[derive(Default)]
pub struct ConfigPage {
    shown: Mutex<Shown>,
    /// Has the configuration read again, and says what came of it; `None` where that cannot be done.
    pub reload: Option<Reload>,
}

#[derive(Default)]
struct Shown {
    /// Secrets already masked.
    effective: String,
    token: Option<AdminToken>,
    /// What is wrong with a configuration that was read since, and is not in effect.
    refused: Option<String>,
}

/// Says what was changed, or why nothing was.
pub type Reload = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Result<String, String>> + Send>> + Send + Sync>;

/// See [`Admin::refresh`].
pub type Refresh = Arc<dyn Fn() -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync>;

/// Serves the pages on `listener` until `shutdown` is done, then lets open connections finish for a second.
///
/// Stopping early would make a pod's probes fail during its drain: end this last.
pub async fn serve(listener: TcpListener, admin: Arc<Admin>, shutdown: impl Future<Output = ()>) {
    serve_within(listener, admin, shutdown, Bounds::default()).await;
}

/// Bounds on what callers can take up.
#[derive(Clone, Copy)]
struct Bounds {
    connections: usize,
    header: Duration,
    connection: Duration,
    /// How long the metrics page waits for records that are still on their way to it.
    refresh: Duration,
    farewell: Duration,
}

impl Default for Bounds {
    fn default() -> Self {
        Self {
            connections: 64,
            header: Duration::from_secs(5),
            // The page may be megabytes, and the scraper far away.
            connection: Duration::from_secs(30),
            refresh: Duration::from_secs(1),
            farewell: Duration::from_secs(1),
        }
    }
}

async fn serve_within(
    listener: TcpListener,
    admin: Arc<Admin>,
    shutdown: impl Future<Output = ()>,
    bounds: Bounds,
) {
    let open_to = match listener.local_addr() {
        Ok(address) if address.ip().to_canonical().is_loopback() => OpenTo::ThisHost,
        _ => OpenTo::Others,
    };
    let mut connections = JoinSet::new();
    let mut shutdown = pin!(shutdown);
    let mut failing = false;
    loop {
        tokio::select! {
            () = &mut shutdown => break,
            Some(ended) = connections.join_next() => {
                if let Err(error) = ended {
                    warn!(%error, "an admin page panicked");
                }
            }
            // Further callers wait in the listener's backlog.
            accepted = listener.accept(), if connections.len() < bounds.connections => match accepted {
                Ok((stream, _)) => {
                    failing = false;
                    connections.spawn(connection(stream, admin.clone(), open_to, bounds));
                }
                Err(error) => {
                    // Said once: it may fail ten times a second for as long as it likes.
                    if !std::mem::replace(&mut failing, true) {
                        warn!(%error, "cannot accept connections to the admin pages");
                    }
                    // Out of descriptors, most likely: trying again at once would only burn the processor.
                    tokio::time::sleep(Duration::from_millis(100)).await;
                }
            },
        }
    }
    drop(listener);
    // What is still open after that is aborted when the set is dropped.
    let _ = timeout(bounds.farewell, async { while connections.join_next().await.is_some() {} }).await;
}

/// Serves one request. Pages are small, probes and scrapes seldom: a connection kept for the next one would only
/// take a place.
async fn connection(stream: TcpStream, admin: Arc<Admin>, open_to: OpenTo, bounds: Bounds) {
    let answer = |request: Request<Incoming>| {
        let admin = admin.clone();
        async move { Ok::<_, Infallible>(admin.answer(&request, open_to, bounds.refresh).await) }
    };
    let serving = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(bounds.header)
        .keep_alive(false)
        .max_buf_size(16 * 1024)
        .serve_connection(TokioIo::new(stream), service_fn(answer));
    match timeout(bounds.connection, serving).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => debug!(%error, "an admin connection failed"),
        Err(_) => debug!("an admin connection took too long"),
    }
}

/// The pages, for the index.
const INDEX: &str = "tracecar

/healthz  the process runs
/readyz   requests are wanted here, or why not
/metrics  metrics, as OpenMetrics or Prometheus text
/errors   what went wrong: failures by their causes, as JSON
/slow     what got slow, and where the time goes, as JSON
/config   the settings in effect, secrets masked

POST /-/reload  reads the configuration again, and says what that changes
";

type Page = Response<Full<Bytes>>;

impl Admin {
    /// Shows these settings from now on, to whoever has the token.
    pub(crate) fn show(&self, effective: String, token: Option<AdminToken>) {
        *self.config.shown() = Shown { effective, token, refused: None };
    }

    /// Shows why settings that were read since are not in effect.
    pub(crate) fn show_refused(&self, why: String) {
        self.config.shown().refused = Some(why);
    }

    async fn answer<B>(&self, request: &Request<B>, open_to: OpenTo, refresh: Duration) -> Page {
        let path = request.uri().path();
        if !matches!(
            path,
            "/" | "/healthz" | "/readyz" | "/metrics" | "/errors" | "/slow" | "/config" | "/-/reload"
        ) {
            return plain(StatusCode::NOT_FOUND, "no such page; / lists them\n");
        }
        if path == "/-/reload" && *request.method() != Method::POST {
            let page = plain(StatusCode::METHOD_NOT_ALLOWED, "this is asked for with POST\n");
            return with(page, header::ALLOW, "POST");
        }
        if path != "/-/reload" && !matches!(*request.method(), Method::GET | Method::HEAD) {
            let page = plain(StatusCode::METHOD_NOT_ALLOWED, "pages are read with GET or HEAD\n");
            return with(page, header::ALLOW, "GET, HEAD");
        }
        let headers = request.headers();
        // What callers were told is not for everybody.
        if matches!(path, "/errors" | "/slow" | "/config" | "/-/reload")
            && let Some(refused) = guard::refuse(self.config.shown().token.as_ref(), open_to, headers)
        {
            return refused;
        }
        match path {
            "/healthz" => plain(StatusCode::OK, "ok\n"),
            "/readyz" => self.readyz(headers).await,
            "/metrics" => self.metrics(headers, refresh).await,
            "/errors" => self.watched(refresh, Watch::errors).await,
            "/slow" => self.watched(refresh, Watch::slow).await,
            "/config" => plain(StatusCode::OK, self.config.page()),
            "/-/reload" => self.config.reload().await,
            _ => plain(StatusCode::OK, INDEX),
        }
    }

    async fn readyz(&self, headers: &HeaderMap) -> Page {
        let obstacles = self.readiness.obstacles().await;
        let ready = obstacles.is_empty();
        let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let accept = list(headers, header::ACCEPT);
        let json = quality(&accept, "application/json", &[]);
        let page = if json > 0.0 && json >= quality(&accept, "text/plain", &[]) {
            let body = serde_json::json!({ "ready": ready, "obstacles": obstacles });
            page(status, "application/json", format!("{body}\n"))
        } else if ready {
            plain(status, "ready\n")
        } else {
            plain(status, obstacles.join("\n") + "\n")
        };
        with(page, header::VARY, "Accept")
    }

    async fn watched(&self, refresh: Duration, read: fn(&Watch) -> serde_json::Value) -> Page {
        self.refreshed(refresh).await;
        let body = serde_json::to_string_pretty(&read(&self.watch)).unwrap_or_default();
        page(StatusCode::OK, "application/json", body + "\n")
    }

    /// Has records read that are on their way. A page that is a moment old is better than none.
    async fn refreshed(&self, refresh: Duration) {
        if timeout(refresh, (self.refresh)()).await.is_err() {
            debug!("a page did not wait longer for records");
        }
    }

    async fn metrics(&self, headers: &HeaderMap, refresh: Duration) -> Page {
        self.refreshed(refresh).await;
        let accept = list(headers, header::ACCEPT);
        let exposition = Exposition::from_accept(Some(accept.as_str()));
        let text = self.metrics.render(exposition, &(self.rows)());
        let pack = text.len() >= MIN_GZIP && wants_gzip(headers);
        let (body, encoding) = match pack.then(|| gzip(&text)).flatten() {
            Some(packed) => (packed, Some("gzip")),
            None => (text.into_bytes(), None),
        };
        let mut page = page(StatusCode::OK, exposition.content_type(), body);
        if let Some(encoding) = encoding {
            page = with(page, header::CONTENT_ENCODING, encoding);
        }
        with(page, header::VARY, "Accept, Accept-Encoding")
    }
}

impl ConfigPage {
    /// Without a way to read it again.
    pub fn new(reload: Option<Reload>) -> Self {
        Self { shown: Mutex::default(), reload }
    }

    fn shown(&self) -> MutexGuard<'_, Shown> {
        self.shown.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The settings in effect. What is not in effect stands above, as a comment: the page stays a configuration.
    fn page(&self) -> String {
        let shown = self.shown();
        let refused = shown.refused.iter().flat_map(|why| {
            [format!("{REFUSED}; this one is still in effect:")]
                .into_iter()
                .chain(why.lines().map(|line| format!("# {line}")))
        });
        let comment: String = refused.map(|line| line + "\n").collect();
        comment + &shown.effective
    }

    async fn reload(&self) -> Page {
        let Some(reload) = &self.reload else {
            return plain(StatusCode::NOT_IMPLEMENTED, "there is nothing to read again\n");
        };
        match reload().await {
            Ok(said) => plain(StatusCode::OK, said),
            Err(why) => plain(StatusCode::UNPROCESSABLE_ENTITY, why),
        }
    }
}

fn wants_gzip(headers: &HeaderMap) -> bool {
    quality(&list(headers, header::ACCEPT_ENCODING), "gzip", &[]) > 0.0
}

fn gzip(text: &str) -> Option<Vec<u8>> {
    let mut packer = GzEncoder::new(Vec::with_capacity(text.len() / 8), Compression::fast());
    packer.write_all(text.as_bytes()).ok()?;
    packer.finish().ok()
}

/// A list header, its lines joined; lines that are not text are left out.
fn list(headers: &HeaderMap, name: HeaderName) -> String {
    let lines: Vec<_> = headers.get_all(name).iter().filter_map(|line| line.to_str().ok()).collect();
    lines.join(",")
}

fn plain(status: StatusCode, text: impl Into<Bytes>) -> Page {
    page(status, "text/plain; charset=utf-8", text)
}

fn page(status: StatusCode, content_type: &'static str, body: impl Into<Bytes>) -> Page {
    let mut page = Response::new(Full::new(body.into()));
    *page.status_mut() = status;
    let page = with(page, header::CONTENT_TYPE, content_type);
    let page = with(page, header::CACHE_CONTROL, "no-store");
    with(page, header::X_CONTENT_TYPE_OPTIONS, "nosniff")
}

fn with(mut page: Page, name: HeaderName, value: &'static str) -> Page {
    page.headers_mut().insert(name, HeaderValue::from_static(value));
    page
}

#[cfg(test)]
mod tests;
