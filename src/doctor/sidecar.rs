//! The admin pages of the running tracecar.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, HOST};
use http::{Request, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::{CONNECT, Check};
use crate::admin::REFUSED;
use crate::config::AdminToken;

/// Largest page that is read, in bytes.
const MAX_PAGE: usize = 32 << 20;

/// A metrics page waits a second for records; a busy machine gets some more.
const PAGE: Duration = Duration::from_secs(4);

const NAME: &str = "tracecar";

/// What is known of the running tracecar.
pub(super) struct Sidecar {
    /// Its pages, where it answers as tracecar does.
    pub(super) page: Option<Pages>,
    /// What to say if it does not.
    silent: Option<Check>,
}

/// Where its pages are.
#[derive(Clone, Debug)]
pub(super) struct Pages {
    authority: String,
    /// What it asks for before it shows its settings.
    token: Option<AdminToken>,
}

/// Asks the admin pages whether they are there: those that are told, or those configured.
pub(super) async fn find(
    configured: Option<SocketAddr>,
    told: Option<&str>,
    token: Option<&AdminToken>,
) -> Sidecar {
    let silent = |check| Sidecar { page: None, silent: Some(check) };
    let authority = match (told, configured) {
        (Some(told), _) => match authority_of(told) {
            Some(authority) => authority,
            None => {
                let words = format!("--admin {told} is no place of admin pages");
                return silent(Check::problem(NAME, words, "write it as http://127.0.0.1:9464"));
            }
        },
        (None, None) => {
            let advice = "switch admin.enabled on: a running tracecar cannot be asked without it";
            return silent(Check::warning(NAME, "it has no admin pages", advice));
        }
        (None, Some(address)) if address.port() == 0 => {
            let words = "its admin pages are on a port that is only known once it runs";
            return silent(Check::warning(NAME, words, "take it from tracecar's log, and say --admin"));
        }
        (None, Some(address)) => reachable(address).to_string(),
    };
    let pages = Pages { authority, token: token.cloned() };
    let at = format!("http://{}", pages.authority);
    let start = "if it should run, look at its own log; if its admin pages are elsewhere, say --admin URL";
    match timeout(CONNECT, pages.read("/healthz")).await {
        Ok(Ok((StatusCode::OK, body))) if body == "ok\n" => Sidecar { page: Some(pages), silent: None },
        Ok(Ok((status, _))) => {
            let words = format!("what answers at {at} is not tracecar: {status} to /healthz");
            silent(Check::problem(NAME, words, "give admin.listen another port, or say --admin URL"))
        }
        // Whether it should is not known here: people look at a configuration before they use it, too.
        Ok(Err(reason)) => silent(Check::warning(NAME, format!("none is running at {at}: {reason}"), start)),
        Err(_) => {
            let words = format!("{at} does not answer within {CONNECT:?}");
            silent(Check::problem(NAME, words, "tracecar hangs, or a firewall swallows what is sent there"))
        }
    }
}

/// What the running tracecar says of itself.
pub(super) async fn check(sidecar: &Sidecar, effective: &str) -> Vec<Check> {
    let Some(pages) = &sidecar.page else { return sidecar.silent.iter().cloned().collect() };
    let at = format!("http://{}", pages.authority);
    let (ready, config) = tokio::join!(pages.read("/readyz"), pages.read("/config"));
    let mut checks = vec![match ready {
        Ok((StatusCode::OK, _)) => Check::ok(NAME, format!("runs, and is ready (admin pages at {at})")),
        Ok((_, obstacles)) => {
            let obstacles = obstacles.trim().replace('\n', "; ");
            let advice = "while this is so, Kubernetes and load balancers send it nothing";
            Check::problem(NAME, format!("runs, and is not ready: {obstacles}"), advice)
        }
        Err(reason) => {
            let words = format!("runs, and does not say whether it is ready: {reason}");
            Check::problem(NAME, words, "look at its log")
        }
    }];
    if let Ok((StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN, why)) = &config {
        let words = format!("its settings cannot be compared with these: {}", why.trim());
        let advice = "run doctor with the configuration that it runs with, whose token it asks for";
        checks.push(Check::warning(NAME, words, advice));
    }
    if let Ok((StatusCode::OK, theirs)) = &config
        && let Some(why) = theirs.strip_prefix(REFUSED)
    {
        let why = why.lines().nth(1).unwrap_or_default().trim_start_matches("# ");
        let words = format!("the configuration that it read last is not in effect: {why}");
        let advice = format!("mend it: `tracecar check` and {at}/config say all that is wrong");
        checks.push(Check::problem(NAME, words, advice));
        return checks;
    }
    // Tests and programs that embed it have nothing to show.
    if let Ok((StatusCode::OK, theirs)) = config
        && !theirs.is_empty()
        && let Some((mine, theirs)) = difference(effective, &theirs)
    {
        let words = format!("it runs with other settings: it has \"{theirs}\" where \"{mine}\" is expected");
        let advice =
            format!("start it again, or compare with {at}/config; variables may differ between shells");
        checks.push(Check::warning(NAME, words, advice));
    }
    checks
}

/// The first lines that differ; comments and spaces are not what anybody is woken for.
fn difference(mine: &str, theirs: &str) -> Option<(String, String)> {
    let mut theirs = theirs.lines().filter(|line| !line.starts_with('#'));
    let mut mine = mine.lines();
    loop {
        let (one, other) = (mine.next(), theirs.next());
        if one == other {
            one?;
            continue;
        }
        let shown = |line: Option<&str>| line.map_or("nothing", str::trim).to_owned();
        return Some((shown(one), shown(other)));
    }
}

/// Where to connect to somebody who listens there.
pub(super) fn reachable(listen: SocketAddr) -> SocketAddr {
    let ip = match listen.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
        IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
        ip => ip,
    };
    SocketAddr::new(ip, listen.port())
}

fn authority_of(told: &str) -> Option<String> {
    let uri: Uri = told.trim_end_matches('/').parse().ok()?;
    let plain = uri.scheme_str().is_none_or(|scheme| scheme == "http");
    let authority = uri.authority().filter(|authority| plain && !authority.as_str().contains('@'))?;
    match authority.port_u16() {
        Some(_) => Some(authority.to_string()),
        None => Some(format!("{authority}:80")),
    }
}

impl Pages {
    /// One page: its status and its text.
    pub(super) async fn read(&self, path: &str) -> Result<(StatusCode, String), String> {
        timeout(PAGE, self.read_patiently(path))
            .await
            .unwrap_or_else(|_| Err(format!("no page within {PAGE:?}")))
    }

    async fn read_patiently(&self, path: &str) -> Result<(StatusCode, String), String> {
        let stream = TcpStream::connect(&self.authority).await.map_err(|error| in_words(&error))?;
        let told = |error: hyper::Error| format!("it does not speak HTTP ({error})");
        let (mut sender, driver) = http1::handshake(TokioIo::new(stream)).await.map_err(told)?;
        let driver = tokio::spawn(async move { drop(driver.await) });
        let mut request = Request::get(path).header(HOST, &self.authority).header(ACCEPT, "text/plain");
        // Nothing else asks for it, and who is told of as tracecar may be somebody else.
        if let Some(token) = self.token.as_ref().filter(|_| path == "/config") {
            request = request.header(AUTHORIZATION, [b"Bearer ", token.as_bytes()].concat());
        }
        let request = request.body(Empty::<Bytes>::new()).map_err(|error| error.to_string())?;
        let response = sender.send_request(request).await.map_err(told)?;
        let status = response.status();
        let body = Limited::new(response.into_body(), MAX_PAGE)
            .collect()
            .await
            .map_err(|error| error.to_string())?;
        driver.abort();
        Ok((status, String::from_utf8_lossy(&body.to_bytes()).into_owned()))
    }
}

/// An error of the system without its number.
pub(super) fn in_words(error: &std::io::Error) -> String {
    match error.raw_os_error() {
        Some(_) => error.kind().to_string(),
        None => error.to_string(),
    }
}
