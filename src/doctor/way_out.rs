//! The service's way to others: destinations, the environment that leads there, the kernel's rules, interception.

use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use http::Uri;

use super::{CONNECT, Check, side_by_side};
use crate::config::{Live, LiveHandle, Mapped, Outbound, Startup, Timeouts};
use crate::net::connector::Connector;
use crate::net::intercept::Authority;
use crate::net::tls::ServiceTls;
use crate::net::upstream::SendError;
use crate::proxy::outbound::Rules;

/// When a CA is so old that somebody should think of the next.
const SOON: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Looks at all ways out that are configured.
pub(super) async fn check(
    startup: &Startup,
    live: &Live,
    env: &(dyn Fn(&str) -> Option<String> + Sync),
) -> Vec<Check> {
    let Some(outbound) = &startup.outbound else {
        let advice = "calls of the service are not seen: see outbound in the configuration if they should be";
        return vec![Check { advice: advice.to_owned(), ..Check::ok("way out", "none is configured") }];
    };
    let mut checks = Vec::new();
    checks.extend(outbound.proxy.map(|listen| environment(listen, env)));
    match outbound.certificate.as_deref().map(ServiceTls::trusting).transpose() {
        Err(error) => {
            let advice = "tracecar does not start with this; see outbound.certificate";
            checks.push(Check::problem("certificates", error.to_string(), advice));
        }
        Ok(tls) => checks.extend(destinations(outbound, tls.unwrap_or_default(), live).await),
    }
    if let Some(listen) = outbound.transparent {
        let rules = tokio::task::spawn_blocking(move || redirection(listen.port())).await;
        checks.extend(rules);
    }
    checks.extend(interception(outbound, live));
    checks
}

async fn destinations(outbound: &Outbound, tls: ServiceTls, live: &Live) -> Vec<Check> {
    let connector = Connector {
        tls: Arc::new(tls),
        permits: Some(Arc::new(Rules(LiveHandle::new(live.clone())))),
        ..Connector::default()
    };
    let timeouts = Timeouts { connect: live.timeouts.connect.min(CONNECT * 2), ..live.timeouts };
    let asked = outbound.mapped.iter().cloned().map(|mapped| {
        let connector = connector.clone();
        async move { destination(&mapped, &connector, &timeouts).await }
    });
    side_by_side(asked.collect()).await
}

/// A mapped destination is reached as a call would reach it, by the same rules and certificates.
async fn destination(mapped: &Mapped, connector: &Connector, timeouts: &Timeouts) -> Check {
    let name = "destination";
    let to = &mapped.to.to;
    let called = match &mapped.name {
        Some(name) => format!("{name} ({to})"),
        None => to.to_string(),
    };
    let error = match connector.reach(to, timeouts).await {
        Ok(peer) => return Check::ok(name, format!("{called} can be reached, at {}", peer.ip())),
        Err(error) => error,
    };
    let advice = match &error {
        SendError::Denied(_) => "tracecar answers calls to it with 403",
        SendError::Unresolved(..) => "is the name right, and does this network know it?",
        SendError::Refused => "nothing listens there: is the port right, and does it run?",
        SendError::Certificate(_) => {
            "certificates are always verified: name the CA that signed it in outbound.certificate"
        }
        SendError::Tls(_) => "it does not speak TLS: is it http:// that should stand in `to`?",
        _ => "a firewall or a network policy may be in between",
    };
    let words = match error {
        // It names the target itself.
        SendError::Denied(reason) => reason,
        error => format!("{called}: {error}"),
    };
    Check::problem(name, words, advice)
}

/// Whether programs that are started from here would use the forward proxy.
fn environment(listen: SocketAddr, env: &(dyn Fn(&str) -> Option<String> + Sync)) -> Check {
    let name = "HTTP_PROXY";
    let port = listen.port();
    let wanted = format!("http://127.0.0.1:{port}");
    let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"];
    let set: Vec<_> = names
        .into_iter()
        .filter_map(|name| Some((name, env(name).filter(|value| !value.is_empty())?)))
        .collect();
    if set.is_empty() {
        let words = "not set in this shell; whether the service has it cannot be seen from here";
        let advice = format!("the service needs {} = {wanted} in its own environment", names.join(", "));
        return Check { advice, ..Check::ok(name, words) };
    }
    for (variable, value) in &set {
        // Some write it without a scheme, and most programs take that.
        let uri = if value.contains("://") { value.clone() } else { format!("http://{value}") };
        let uri: Option<Uri> = uri.parse().ok();
        let leads_here = uri.as_ref().is_some_and(|uri| {
            let local = uri.host().is_some_and(|host| {
                let address = host.trim_matches(['[', ']']).parse::<IpAddr>();
                host == "localhost" || address.is_ok_and(|ip| ip.is_loopback() || ip == listen.ip())
            });
            local && uri.port_u16() == Some(port)
        });
        if !leads_here {
            let elsewhere =
                uri.and_then(|uri| Some(format!("{}:{}", uri.host()?, uri.port_u16().unwrap_or(80))));
            let elsewhere = elsewhere.unwrap_or_else(|| "something that is no URL".to_owned());
            let words =
                format!("in this shell {variable} leads to {elsewhere}, and not to tracecar's {listen}");
            return Check::warning(name, words, format!("{variable}={wanted}, if the service has the same"));
        }
        if uri.is_some_and(|uri| uri.scheme_str() == Some("https")) {
            let words =
                format!("in this shell {variable} begins with https://, and tracecar listens without TLS");
            return Check::warning(
                name,
                words,
                format!("{variable}={wanted}; it is about the way to the proxy"),
            );
        }
    }
    let missing: Vec<_> = names.into_iter().filter(|name| set.iter().all(|(is, _)| is != name)).collect();
    if missing.is_empty() {
        return Check::ok(name, format!("in this shell it leads to {listen}"));
    }
    let words = format!("in this shell {} is not set", missing.join(", "));
    Check::warning(name, words, format!("programs differ in which they read: set all to {wanted}"))
}

/// Whether the kernel redirects connections to the transparent listener.
fn redirection(port: u16) -> Check {
    let name = "redirection";
    let mut refused = Vec::new();
    let mut read = Vec::new();
    let (nft, iptables) = (format!("redirect to :{port}"), format!("--to-ports {port}"));
    let ways: [(&str, &[&str], &str); 3] = [
        ("nft", &["list", "ruleset"], &nft),
        ("iptables-save", &["-t", "nat"], &iptables),
        ("ip6tables-save", &["-t", "nat"], &iptables),
    ];
    for (tool, arguments, sign) in ways {
        match Command::new(tool).args(arguments).output() {
            Ok(output) if output.status.success() => {
                let rules = String::from_utf8_lossy(&output.stdout);
                if rules.lines().any(|line| line.trim_end().ends_with(sign)) {
                    return Check::ok(name, format!("{tool} shows rules that redirect to port {port}"));
                }
                read.push(tool);
            }
            Ok(_) => refused.push(format!("{tool} may not read them")),
            Err(_) => refused.push(format!("there is no {tool}")),
        }
    }
    if !read.is_empty() {
        let words = format!("no rule that {} can see redirects to port {port}", read.join(" or "));
        return Check::problem(name, words, "run docker/redirect.sh in this network namespace, as root");
    }
    let words = format!("the kernel's rules cannot be read: {}", refused.join(", "));
    Check::warning(name, words, format!("as root in this network namespace: nft list ruleset | grep {port}"))
}

/// Whether the CA can be used, and for how long.
fn interception(outbound: &Outbound, live: &Live) -> Option<Check> {
    let name = "interception";
    let (certificate, key) = outbound.authority.as_ref()?;
    let hosts: Vec<_> = live.intercept.iter().map(ToString::to_string).collect();
    let read = |path: &Path| {
        std::fs::read_to_string(path)
            .map_err(|error| format!("cannot read {}: {}", path.display(), error.kind()))
    };
    let loaded = read(certificate).and_then(|certificate| {
        Authority::load(&certificate, &read(key)?).map_err(|error| error.to_string())
    });
    let authority = match loaded {
        Ok(authority) => authority,
        Err(reason) => {
            let advice = "tracecar does not start with this; `tracecar ca --out DIR` makes a new CA";
            return Some(Check::problem(name, reason, advice));
        }
    };
    let (valid, now) = (authority.valid(), SystemTime::now());
    let day = |time: SystemTime| httpdate::fmt_http_date(time)[5..16].to_owned();
    let again = "make a new one with `tracecar ca`, and have the service trust it";
    if now >= valid.end {
        let words = format!("the CA in {} has expired on {}", certificate.display(), day(valid.end));
        return Some(Check::problem(name, words, again));
    }
    if now < valid.start {
        let words = format!("the CA in {} is not valid before {}", certificate.display(), day(valid.start));
        return Some(Check::problem(name, words, "is the clock right?"));
    }
    if read_by_others(key) {
        let words = format!("{} can be read by other users, who can pose as any site with it", key.display());
        return Some(Check::warning(name, words, format!("chmod go= {}", key.display())));
    }
    if now + SOON > valid.end {
        let words = format!("the CA expires soon, on {}", day(valid.end));
        return Some(Check::warning(name, words, again));
    }
    Some(Check::ok(
        name,
        format!("the CA is valid until {}; looks into {}", day(valid.end), hosts.join(", ")),
    ))
}

#[cfg(unix)]
fn read_by_others(path: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    // A mounted secret is often readable by a group, which Kubernetes makes for the pod.
    path.metadata().is_ok_and(|file| file.permissions().mode() & 0o004 != 0)
}

#[cfg(not(unix))]
fn read_by_others(_: &Path) -> bool {
    false
}
