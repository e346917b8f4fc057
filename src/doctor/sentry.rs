//! Where events go: whether Sentry takes them, and if not, what to change.

use std::time::Duration;

use http::Uri;
use http::uri::PathAndQuery;

use super::Check;
use crate::config::{self, Service, Startup};
use crate::telemetry::export::{Heard, Reply};
use crate::telemetry::sentry::probe;

const NAME: &str = "sentry";

/// A little more than is waited for a connection.
const FIRST: Duration = Duration::from_millis(3200);

/// For the attempt with TLS where there was none, or without.
const SECOND: Duration = Duration::from_millis(1500);

/// Asks Sentry, where there is a DSN.
pub(super) async fn check(startup: &Startup) -> Vec<Check> {
    let Some(sentry) = &startup.sentry else { return Vec::new() };
    match probe(sentry, &startup.service, FIRST).await {
        Ok(heard) => vec![judge(&heard, sentry, &startup.service).await],
        Err(error) => vec![Check::problem(NAME, error.to_string(), "tracecar would not start with this")],
    }
}

async fn judge(heard: &Heard, sentry: &config::Sentry, service: &Service) -> Check {
    let Heard { endpoint, reply, took, .. } = heard;
    let problem = |reason: &str, advice: &str| Check::problem(NAME, format!("{endpoint}: {reason}"), advice);
    match reply {
        Reply::Taken(warning) if warning.is_empty() => {
            Check::ok(NAME, format!("{endpoint} takes events ({} ms)", took.as_millis()))
        }
        Reply::Taken(warning) => Check::warning(
            NAME,
            format!("{endpoint} takes events; {warning}"),
            "if this stays so, there is no quota for them or this server does not know them: sentry.traces: off sends none",
        ),
        Reply::Refused { status, reason, .. } if status.as_u16() == 429 => Check::warning(
            NAME,
            format!("{endpoint} takes no events at the moment: {reason}"),
            "a quota is used up, or a limit of the key is: look at the project's settings and the organization's usage",
        ),
        Reply::Refused { later: true, reason, .. } => Check::warning(
            NAME,
            format!("{endpoint} takes no events at the moment: {reason}"),
            "what is lost meanwhile is counted in tracecar_sentry_dropped_total; if this stays so, look at the server",
        ),
        Reply::Refused { status, reason, .. } => problem(reason, refused(status.as_u16())),
        Reply::Unresolved(reason) => problem(
            reason,
            "is the host of the DSN right, and does this network know it? A network policy has to let DNS through",
        ),
        Reply::Unreachable(reason) => problem(
            reason,
            "is the host of the DSN right, and its port? A firewall may be in between: tracecar connects directly, by no proxy",
        ),
        Reply::Tls(reason) => match other_scheme(sentry, service).await {
            Some((words, advice)) => problem(words, advice),
            None => problem(
                &format!("the TLS handshake failed: {reason}"),
                "its certificate has to be valid for that name: name its CA in sentry.certificate",
            ),
        },
        Reply::NoAnswer(reason) => match other_scheme(sentry, service).await {
            Some((words, advice)) => problem(words, advice),
            None => problem(
                &format!("connected, but there is no answer: {reason}"),
                "is this the address of a Sentry? The DSN has its scheme, host and port",
            ),
        },
    }
}

/// What helps against an answer that says no.
fn refused(status: u16) -> &'static str {
    match status {
        300..400 => "redirects are not followed: write the DSN with the scheme and the host that it leads to",
        // Some tell a key that is none of theirs from one that cannot be one.
        400 | 401 | 403 => {
            "it does not know the key, or not for this project: copy the DSN anew from Settings > Client Keys (DSN) of the project"
        }
        404 | 405 => {
            "there is no such project, or Sentry is not under this path: the DSN is SCHEME://KEY@HOST/PROJECT, or \
             SCHEME://KEY@HOST/PATH/PROJECT"
        }
        407 => "a proxy stands before it and wants a password; tracecar connects directly",
        413 => "it takes no requests of any size: look at the limits of what stands before it",
        _ => "is this the address of a Sentry? Its own log may say more",
    }
}

/// Looks whether the port speaks TLS where we do not, or the other way round. In words, and what to write.
async fn other_scheme(sentry: &config::Sentry, service: &Service) -> Option<(&'static str, &'static str)> {
    let secure = sentry.dsn.scheme_str() == Some("https");
    let dsn = changed(&sentry.dsn, !secure)?;
    let heard = probe(&config::Sentry { dsn, ..sentry.clone() }, service, SECOND).await.ok()?;
    let speaks = match heard.reply {
        Reply::Taken(_) | Reply::Refused { .. } => true,
        // A certificate that is not trusted proves it, too.
        Reply::Tls(reason) => !secure && reason.contains("certificate"),
        _ => false,
    };
    let found = match secure {
        true => ("this port speaks no TLS, and we speak TLS", "write the DSN with http://"),
        false => ("this port speaks TLS, and we speak none", "write the DSN with https://"),
    };
    speaks.then_some(found)
}

fn changed(dsn: &Uri, secure: bool) -> Option<Uri> {
    let authority = dsn.authority()?;
    // The port stays what it was, also where only the scheme named it.
    let authority = match authority.port() {
        Some(_) => authority.to_string(),
        None => format!("{authority}:{}", if secure { 80 } else { 443 }),
    };
    let scheme = if secure { "https" } else { "http" };
    let path = dsn.path_and_query().map_or("/", PathAndQuery::as_str);
    Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().ok()
}
