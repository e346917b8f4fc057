//! Where spans go: whether the collector takes them, and if not, what to change.

use std::time::{Duration, SystemTime};

use http::{StatusCode, Uri};

use super::Check;
use crate::config::{Otlp, OtlpProtocol, Service, Startup};
use crate::telemetry::export::{Heard, Reply, probe};

const NAME: &str = "collector";

/// A little more than the exporter waits for a connection.
const FIRST: Duration = Duration::from_millis(3200);

/// For the attempts to find out what the collector speaks instead, which run side by side.
const SECOND: Duration = Duration::from_millis(1500);

/// Clocks that differ by less than this do no harm to traces.
const CLOCK: Duration = Duration::from_secs(2);

/// Asks the collector.
pub(super) async fn check(startup: &Startup) -> Vec<Check> {
    let Some(otlp) = &startup.export.otlp else {
        if startup.export.console.is_some() {
            return vec![Check::ok(NAME, "none is named: spans go to standard output")];
        }
        let advice =
            "name one in OTEL_EXPORTER_OTLP_ENDPOINT or export.otlp.endpoint; a terminal has them printed";
        return vec![Check::warning(NAME, "none is named, so spans go nowhere", advice)];
    };
    let heard = match probe(otlp, &startup.service, FIRST).await {
        Ok(heard) => heard,
        Err(error) => {
            return vec![Check::problem(NAME, error.to_string(), "tracecar would not start with this")];
        }
    };
    let now = SystemTime::now();
    let mut checks = vec![judge(&heard, otlp, &startup.service).await];
    checks.extend(heard.date.map(|date| clock(date, now)));
    checks
}

async fn judge(heard: &Heard, otlp: &Otlp, service: &Service) -> Check {
    let Heard { endpoint, reply, took, .. } = heard;
    let spoken = spoken(otlp.protocol);
    let problem = |reason: &str, advice: &str| Check::problem(NAME, format!("{endpoint}: {reason}"), advice);
    match reply {
        Reply::Taken(warning) if warning.is_empty() => {
            Check::ok(NAME, format!("{endpoint} takes spans ({spoken}, {} ms)", took.as_millis()))
        }
        Reply::Taken(warning) => {
            let words = format!("{endpoint} takes spans ({spoken}), and warns: {warning}");
            Check::warning(NAME, words, "see the documentation of the collector")
        }
        Reply::Refused { later: true, reason, .. } => {
            let advice = "tracecar tries again by itself; if this stays so, look at the collector's load and its quotas";
            Check::warning(NAME, format!("{endpoint} does not take spans at the moment: {reason}"), advice)
        }
        Reply::Refused { status, grpc, reason, .. } => match refused(*status, *grpc, otlp) {
            Some(advice) => problem(reason, advice),
            None => match instead(otlp, service).await {
                Some((words, advice)) => problem(&format!("{words} ({reason})"), &advice),
                None => problem(reason, unclear(*status)),
            },
        },
        Reply::Unresolved(reason) => problem(
            reason,
            "is the name right, and does this network know it? In Kubernetes: NAME.NAMESPACE, and a network policy that lets DNS through",
        ),
        Reply::Unreachable(reason) => problem(
            reason,
            "start the collector, or correct host and port (4318 is HTTP's by convention, 4317 gRPC's); a firewall may be in between",
        ),
        Reply::Tls(reason) => match instead(otlp, service).await {
            Some((words, advice)) => problem(&words, &advice),
            None => problem(
                &format!("the TLS handshake failed: {reason}"),
                "its certificate has to be valid for that name: name its CA in export.otlp.certificate (OTEL_EXPORTER_OTLP_CERTIFICATE)",
            ),
        },
        Reply::NoAnswer(reason) => match instead(otlp, service).await {
            Some((words, advice)) => problem(&words, &advice),
            None => problem(
                &format!("connected, but there is no answer to {spoken}: {reason}"),
                "is this a collector's port? 4318 is HTTP's by convention, 4317 gRPC's",
            ),
        },
    }
}

/// What helps against refusals that mean the same everywhere.
fn refused(status: StatusCode, grpc: Option<u16>, otlp: &Otlp) -> Option<&'static str> {
    match (grpc, status.as_u16()) {
        (Some(16), _) | (None, 401) if otlp.headers.is_empty() => Some(
            "it wants to know who we are: put the token into export.otlp.headers (OTEL_EXPORTER_OTLP_HEADERS)",
        ),
        (Some(16), _) | (None, 401) => Some(
            "it does not believe the credentials in export.otlp.headers: are they complete, current, and for this endpoint?",
        ),
        (Some(7), _) | (None, 403) => Some(
            "it knows who we are, and does not want our spans: the token needs the right to write traces",
        ),
        (None, 407) => Some("a proxy stands before it and wants a password; tracecar exports directly"),
        (None, 413) => Some("it takes no requests of any size: look at the limits of what stands before it"),
        (Some(8), _) => {
            Some("a quota is used up: look at the account with the vendor, or keep fewer traces (sampling)")
        }
        _ => None,
    }
}

/// Advice where nobody was found who would take it.
fn unclear(status: StatusCode) -> &'static str {
    match status.as_u16() {
        404 | 405 => {
            "OTLP/HTTP wants the path /v1/traces: it is added to export.otlp.endpoint and OTEL_EXPORTER_OTLP_ENDPOINT, \
             and not to OTEL_EXPORTER_OTLP_TRACES_ENDPOINT"
        }
        415 => {
            "it does not take protobuf, or not with gzip: try export.otlp.compression: none (OTEL_EXPORTER_OTLP_COMPRESSION)"
        }
        _ => {
            "is this a collector's port? 4318 is HTTP's by convention, 4317 gRPC's; its own log may say more"
        }
    }
}

/// Looks for what this port speaks instead: the other protocol, or the same with or without TLS. In words, and what to
/// write.
async fn instead(otlp: &Otlp, service: &Service) -> Option<(String, String)> {
    let other = match otlp.protocol {
        OtlpProtocol::Grpc => OtlpProtocol::HttpProtobuf,
        OtlpProtocol::HttpProtobuf => OtlpProtocol::Grpc,
    };
    let secure = otlp.endpoint.scheme_str() == Some("https");
    let ask = |protocol, secure| {
        let otlp = Otlp { protocol, ..otlp.clone() };
        async move {
            let endpoint = changed(&otlp.endpoint, protocol, secure)?;
            probe(&Otlp { endpoint, ..otlp }, service, SECOND).await.ok()
        }
    };
    let (protocol, tls, both) =
        tokio::join!(ask(other, secure), ask(otlp.protocol, !secure), ask(other, !secure));
    let write_protocol = match other {
        OtlpProtocol::Grpc => "export.otlp.protocol: grpc (OTEL_EXPORTER_OTLP_PROTOCOL=grpc)",
        OtlpProtocol::HttpProtobuf => {
            "export.otlp.protocol: http/protobuf (OTEL_EXPORTER_OTLP_PROTOCOL=http/protobuf)"
        }
    };
    let conventional = match otlp.protocol {
        OtlpProtocol::HttpProtobuf => "4318",
        OtlpProtocol::Grpc => "4317",
    };
    let scheme = if secure { "http://" } else { "https://" };
    let (mine, theirs) = (spoken(otlp.protocol), spoken(other));
    let speaks = |heard: Option<Heard>, tls: bool| heard.is_some_and(|heard| answers(&heard.reply, tls));
    if speaks(protocol, false) {
        let words = format!("this port speaks {theirs}, and we send {mine}");
        return Some((
            words,
            format!("write {write_protocol}, or use the port for {mine}, by convention {conventional}"),
        ));
    }
    let (with, without) = if secure { ("no TLS", "TLS") } else { ("TLS", "none") };
    let words = format!("this port speaks {with}, and we speak {without}");
    if speaks(tls, !secure) {
        return Some((words, format!("write the endpoint with {scheme}")));
    }
    if speaks(both, !secure) {
        let words = format!("{words}; and it speaks {theirs}, where we send {mine}");
        return Some((words, format!("write the endpoint with {scheme}, and {write_protocol}")));
    }
    None
}

/// Whether that was an answer of somebody who speaks the protocol that was tried. `tls` is whether TLS was what was new
/// about it: then a certificate that is not trusted proves it, too.
fn answers(reply: &Reply, tls: bool) -> bool {
    match reply {
        Reply::Taken(_) => true,
        Reply::Refused { grpc: Some(_), .. } => true,
        Reply::Refused { status, .. } => matches!(status.as_u16(), 401 | 403 | 429),
        Reply::Tls(reason) => tls && reason.contains("certificate"),
        _ => false,
    }
}

fn changed(endpoint: &Uri, protocol: OtlpProtocol, secure: bool) -> Option<Uri> {
    let path = match (protocol, endpoint.path()) {
        (OtlpProtocol::HttpProtobuf, "" | "/") => "/v1/traces",
        _ => endpoint.path_and_query().map_or("/", |path| path.as_str()),
    };
    // The port stays what it was, also where only the scheme named it.
    let port = endpoint.port_u16().unwrap_or(match endpoint.scheme_str() {
        Some("https") => 443,
        _ => 80,
    });
    let authority = format!("{}:{port}", endpoint.host()?);
    let scheme = if secure { "https" } else { "http" };
    Uri::builder().scheme(scheme).authority(authority).path_and_query(path).build().ok()
}

fn spoken(protocol: OtlpProtocol) -> &'static str {
    match protocol {
        OtlpProtocol::Grpc => "OTLP over gRPC",
        OtlpProtocol::HttpProtobuf => "OTLP over HTTP",
    }
}

/// Compares our clock with the collector's `Date`, which has whole seconds only.
fn clock(date: SystemTime, now: SystemTime) -> Check {
    let name = "clock";
    let (off, which) = match now.duration_since(date) {
        Ok(ahead) => (ahead.saturating_sub(Duration::from_secs(1)), "ahead of"),
        Err(behind) => (behind.duration(), "behind"),
    };
    if off <= CLOCK {
        return Check::ok(name, "agrees with the collector's");
    }
    let words = format!("is {} s {which} the collector's", off.as_secs());
    let advice =
        "spans of different hosts will not line up: synchronise the clocks (NTP), ours or the collector's";
    Check::warning(name, words, advice)
}
