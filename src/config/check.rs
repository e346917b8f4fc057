//! From the file, the environment and the command line to [`Settings`].
//!
//! Here is what needs more than one value to be judged; what a single value may be is said by its type. All
//! problems are gathered before any is reported.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::rc::Rc;

use http::Uri;

use super::file::{self, File};
use super::leaf::{Compression, ConsoleMode, Count, Leaf, Redact, SamplerName, Wrong};
use super::problem::{Findings, Problem, Problems, quote};
use super::reader::Reader;
use super::settings::settings;
use super::tree::{self, Node};
use super::value::{At, Keys, Map, Value};
use super::web::Template;
use super::{Console, Export, Otlp, OtlpProtocol, OtlpTls, Queue, Settings, Upstream, env, write};
use crate::exchange::{Exclusion, RouteError, Routes};

/// Routes that contradict others, of which a report names this many.
const MAX_CONTRADICTIONS: usize = 5;

/// What the command line says. An empty text is as if it were not given: flags come from variables, too.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--to`: where the service is. Replaces all of the file's `inbound`.
    pub to: Option<String>,
    /// `--listen`: where callers are listened to; needs `--to`.
    pub listen: Option<String>,
    /// `--proxy`: where the service's calls are listened to; in place of the file's `outbound.proxy`.
    pub proxy: Option<String>,
    /// `--admin`: where the admin pages listen, or `off`.
    pub admin: Option<String>,
    /// `--service`: `service.name`.
    pub service: Option<String>,
}

/// Everything that settings are made from, strongest last: file, environment, flags.
#[derive(Clone, Copy)]
pub struct Sources<'a> {
    /// Name of the file, for messages, and its text.
    pub file: Option<(&'a str, &'a str)>,
    /// Environment variables.
    pub env: &'a dyn Fn(&str) -> Option<String>,
    /// The command line.
    pub flags: &'a Flags,
    /// Whether standard output is a terminal.
    pub terminal: bool,
}

/// Settings, and what to say about them.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What the program runs on.
    pub settings: Settings,
    /// The same as a YAML file that says everything: values of headers, passwords and queries of URLs are masked.
    pub effective: String,
    /// What works, but hardly as meant; one line each.
    pub warnings: Vec<String>,
}

/// Settings from all sources.
///
/// # Errors
/// All problems of the file and the flags. A file that is not YAML has only that one. Variables of the environment
/// that cannot be read are warned of and ignored (ENV-20).
pub fn load(sources: &Sources<'_>) -> Result<Loaded, Problems> {
    let mut reader = Reader::new(File::SECTION, sources.env);
    let tree = match sources.file {
        Some((_, text)) => tree::parse(text),
        None => Ok(Rc::new(Node::empty())),
    };
    let file: Option<File> = match tree {
        Ok(tree) => reader.read(&tree),
        Err(problem) => {
            reader.findings.add(problem);
            None
        }
    };
    let Reader { mut findings, mut warnings, secrets, .. } = reader;
    let Some(mut file) = file else { return Err(findings.report(sources.file, &secrets)) };

    env::overlay(&mut file, sources.env, &mut warnings);
    flags(&mut file, sources.flags, &mut findings);
    check(&file, &mut findings);
    let routes = routes(&file, &mut findings);
    let templates =
        templates("outbound.url_templates", &file.outbound.url_templates, Vec::new(), &mut findings);
    let export = export(&mut file, sources, &mut findings, &mut warnings);
    if !findings.is_empty() {
        return Err(findings.report(sources.file, &secrets));
    }
    warn(&file, &mut warnings);
    let effective = file.write().map(|written| write::document(&written)).unwrap_or_default();
    Ok(Loaded { settings: settings(file, routes, templates, export), effective, warnings })
}

/// Notes a finding about a value that may come from anywhere; `path` is where the file would have it.
fn wrong<T>(findings: &mut Findings, at: &At<T>, path: &str, message: String, instead: &str) {
    let subject = if at.path.is_empty() { path } else { &at.path };
    findings.add(Problem {
        subject: subject.to_owned(),
        message,
        place: at.place,
        instead: instead.to_owned(),
    });
}

/// Lays the command line over the file.
fn flags(file: &mut File, flags: &Flags, findings: &mut Findings) {
    fn text(flag: &Option<String>) -> Option<&str> {
        flag.as_deref().map(str::trim).filter(|text| !text.is_empty())
    }
    fn parsed<T: Leaf>(name: &str, text: &str, findings: &mut Findings) -> Option<At<T>> {
        T::parse(text)
            .map_err(|Wrong { message, instead }| {
                findings.add(Problem { subject: name.to_owned(), message, place: None, instead });
            })
            .ok()
            .map(|value| At::elsewhere(name, value))
    }
    if let Some(name) = text(&flags.service) {
        file.service.name = Some(name.to_owned());
    }
    match text(&flags.admin) {
        None => {}
        Some("off") => file.admin.enabled = false,
        Some(address) => {
            if let Some(listen) = parsed("--admin", address, findings) {
                (file.admin.enabled, file.admin.listen) = (true, listen);
            }
        }
    }
    if let Some(address) = text(&flags.proxy)
        && let Some(listen) = parsed("--proxy", address, findings)
    {
        file.outbound.proxy = Some(listen);
    }
    let listen = text(&flags.listen).map(|address| parsed("--listen", address, findings));
    let to = text(&flags.to).map(|url| parsed("--to", url, findings));
    match (listen, to) {
        (None, None) => {}
        (Some(_), None) => findings.add(Problem {
            subject: "--listen".to_owned(),
            message: "says where to listen, but not where the service is".to_owned(),
            place: None,
            instead: "give --to, too: the two replace the file's inbound together".to_owned(),
        }),
        (listen, Some(to)) => {
            let default = || At::elsewhere("--listen", SocketAddr::from(([0, 0, 0, 0], 8080)));
            let listen = listen.unwrap_or_else(|| Some(default()));
            if let (Some(listen), Some(to)) = (listen, to) {
                file.inbound = vec![file::Inbound { listen, to, trust: None }];
            }
        }
    }
}

/// Checks that need several values.
fn check(file: &File, findings: &mut Findings) {
    // What is missing may be missing only because it was found wrong, and then enough is said.
    if file.inbound.is_empty()
        && !findings.touch("inbound")
        && !findings.touch("--to")
        && !findings.touch("--listen")
    {
        findings.add(Problem {
            subject: "inbound".to_owned(),
            message: "nobody said where the service is".to_owned(),
            place: None,
            instead: "write inbound: [{ to: \"http://127.0.0.1:3000\" }] in the file, or give --to http://127.0.0.1:3000"
                .to_owned(),
        });
    }
    addresses(file, findings);
    for (index, rule) in file.exclude.rules.iter().enumerate() {
        let file::Rule { path, method, user_agent } = &rule.value;
        if path.is_none() && method.is_none() && user_agent.is_none() {
            let path = format!("exclude.rules[{index}]");
            // A key of it that was found wrong is missing here, too.
            if !findings.touch(&path) {
                let message = "names nothing, so it would exclude every request".to_owned();
                wrong(findings, rule, &path, message, "write path, method or user_agent, or remove it");
            }
        }
    }
    let correlation = &file.propagation.correlation;
    let path = "propagation.correlation.headers";
    if correlation.enabled && correlation.headers.is_empty() && !findings.touch(path) {
        findings.add(Problem {
            subject: path.to_owned(),
            message: "there is no header to carry the correlation id".to_owned(),
            place: None,
            instead: "write one such as x-request-id, or propagation.correlation.enabled: false".to_owned(),
        });
    }
}

/// No address is listened on twice, and no listener is its own service.
fn addresses(file: &File, findings: &mut Findings) {
    let mut taken: HashMap<SocketAddr, String> = HashMap::new();
    if file.admin.enabled && !findings.touch("admin") {
        taken.insert(file.admin.listen.value, "admin.listen".to_owned());
    }
    for (index, inbound) in file.inbound.iter().enumerate() {
        let path = format!("inbound[{index}].listen");
        let (address, to) = (inbound.listen.value, &inbound.to.value);
        if address.port() == 0 || findings.touch(&path) {
            continue;
        }
        if let Some(other) = taken.get(&address) {
            let message = format!("{address} is already taken by {other}");
            // A default is written nowhere; the other key of the listener stands beside where it would be.
            let place = inbound.listen.place.or(inbound.to.place);
            let at = At { place, ..inbound.listen.clone() };
            wrong(findings, &at, &path, message, "listen on another port");
        }
        if calls_itself(address, to) {
            let message = format!("{} is this very listener: requests would go round in circles", to.show());
            let path = format!("inbound[{index}].to");
            wrong(findings, &inbound.to, &path, message, "write the port that the service listens on");
        }
        taken.insert(address, path);
    }
    outbound(file, &mut taken, findings);
}

/// The listeners for the way out: no address twice, and none that stands for itself.
fn outbound(file: &File, taken: &mut HashMap<SocketAddr, String>, findings: &mut Findings) {
    let file::Outbound { proxy, mapped, transparent, intercept, .. } = &file.outbound;
    let one = |path: &str, at: &Option<At<SocketAddr>>| at.clone().map(|at| (path.to_owned(), at));
    let listeners = one("outbound.proxy", proxy).into_iter().chain(one("outbound.transparent", transparent));
    let of_mapped = mapped
        .iter()
        .enumerate()
        .map(|(index, mapped)| (format!("outbound.mapped[{index}].listen"), mapped.listen.clone()));
    for (path, listen) in listeners.chain(of_mapped) {
        if listen.value.port() == 0 || findings.touch(&path) {
            continue;
        }
        if let Some(other) = taken.insert(listen.value, path.clone()) {
            let message = format!("{} is already taken by {other}", listen.value);
            wrong(findings, &listen, &path, message, "listen on another port");
        }
    }
    for (index, mapped) in mapped.iter().enumerate() {
        if calls_itself(mapped.listen.value, &mapped.to.value.to) {
            let path = format!("outbound.mapped[{index}].to");
            let message = format!("{} is this very listener", mapped.to.value.show());
            wrong(findings, &mapped.to, &path, message, "write where the destination is");
        }
    }
    let path = "outbound.intercept";
    if !intercept.hosts.is_empty()
        && (intercept.ca_certificate.is_none() || intercept.ca_key.is_none())
        && !findings.touch(path)
    {
        findings.add(Problem {
            subject: path.to_owned(),
            message: "looks into TLS with no certificate authority to do it with".to_owned(),
            place: None,
            instead: "make one with `tracecar ca`, and write ca_certificate and ca_key".to_owned(),
        });
    }
}

fn calls_itself(listen: SocketAddr, to: &Upstream) -> bool {
    if listen.port() != to.port {
        return false;
    }
    let host: Option<IpAddr> = match to.host.as_str() {
        "localhost" => Some(IpAddr::from([127, 0, 0, 1])),
        host => host.parse().ok(),
    };
    host.is_some_and(|host| host == listen.ip() || listen.ip().is_unspecified() && host.is_loopback())
}

fn routes(file: &File, findings: &mut Findings) -> Routes {
    let mut exclusions = Vec::new();
    for rule in &file.exclude.rules {
        let file::Rule { path, method, user_agent } = &rule.value;
        let path = path.as_ref().map(|glob| glob.0.as_str());
        let method = method.as_ref().map(|method| method.0.as_str());
        let user_agent = user_agent.as_ref().map(|glob| glob.0.as_str());
        match Exclusion::new(path, method, user_agent) {
            Ok(exclusion) => exclusions.push(exclusion),
            Err(error) => wrong(findings, rule, "exclude.rules", error.to_string(), "write another pattern"),
        }
    }
    templates("routes", &file.routes, exclusions, findings)
}

/// The router of path templates, and what contradicts what.
fn templates(
    path: &str,
    templates: &[At<Template>],
    exclusions: Vec<Exclusion>,
    findings: &mut Findings,
) -> Routes {
    let mut templates: Vec<_> = templates.iter().collect();
    for _ in 0..MAX_CONTRADICTIONS {
        let texts: Vec<&str> = templates.iter().map(|route| route.value.0.as_str()).collect();
        let (template, reason) = match Routes::new(&texts, exclusions.clone()) {
            Ok(routes) => return routes,
            Err(
                RouteError::Template { template, reason } | RouteError::Pattern { pattern: template, reason },
            ) => (template, reason),
        };
        let Some(index) = texts.iter().rposition(|text| **text == template) else { break };
        let route = templates.remove(index);
        // The router names the other one at the end of its sentence.
        let message = match reason.split_once("registered route: ") {
            Some((_, other)) if other == template => format!("{} is given twice", quote(&template)),
            Some((_, other)) => format!("{} contradicts {}", quote(&template), quote(other)),
            None => format!("{} contradicts another route: {reason}", quote(&template)),
        };
        wrong(findings, route, path, message, "remove one of the two, or give their parameters one name");
    }
    Routes::default()
}

fn export(
    file: &mut File,
    sources: &Sources<'_>,
    findings: &mut Findings,
    warnings: &mut Vec<String>,
) -> Export {
    let client = client_certificate(&mut file.export.otlp, findings, warnings);
    bound_batch(&mut file.export.otlp.queue, findings, warnings);
    let file::Export { otlp, console } = &file.export;
    let endpoint = endpoint(otlp, findings);
    let console = match console {
        ConsoleMode::Off => false,
        ConsoleMode::On => true,
        ConsoleMode::Auto => endpoint.is_none() && sources.terminal,
    };
    let color = !env::no_color(sources.env);
    let console = console.then_some(match sources.terminal {
        true => Console::Tree { color },
        false => Console::Json,
    });
    let Map(headers) = &otlp.headers;
    let otlp = endpoint.map(|endpoint| Otlp {
        endpoint,
        protocol: otlp.protocol,
        headers: headers.iter().map(|(name, value)| (name.clone(), value.0.clone())).collect(),
        gzip: otlp.compression == Compression::Gzip,
        timeout: otlp.timeout,
        tls: OtlpTls { certificate: otlp.certificate.clone(), client },
        queue: Queue {
            max_spans: otlp.queue.max_spans.0,
            max_bytes: otlp.queue.max_bytes.0,
            max_batch: otlp.queue.max_batch.value.0,
            schedule_delay: otlp.queue.schedule_delay,
            export_timeout: otlp.queue.export_timeout,
        },
    });
    Export { otlp, console }
}

/// Certificate and key come together (OTLP-7). One alone is a problem of the file, but no more than a warning where
/// the environment gave it.
fn client_certificate(
    otlp: &mut file::Otlp,
    findings: &mut Findings,
    warnings: &mut Vec<String>,
) -> Option<(PathBuf, PathBuf)> {
    let (alone, path, other) = match (&otlp.client_certificate, &otlp.client_key) {
        (None, None) => return None,
        (Some(certificate), Some(key)) => return Some((certificate.value.clone(), key.value.clone())),
        (Some(certificate), None) => (certificate, "export.otlp.client_certificate", "client_key"),
        (None, Some(key)) => (key, "export.otlp.client_key", "client_certificate"),
    };
    if alone.path.is_empty() {
        let variables = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY";
        warnings.push(format!("{variables} work together only: the one that is set is ignored"));
        (otlp.client_certificate, otlp.client_key) = (None, None);
    } else if !findings.touch(&format!("export.otlp.{other}")) {
        let message = format!("is of no use without {other}");
        wrong(findings, alone, path, message, &format!("write export.otlp.{other}, too"));
    }
    None
}

/// A batch is no larger than the queue.
fn bound_batch(queue: &mut file::Queue, findings: &mut Findings, warnings: &mut Vec<String>) {
    let (batch, Count(spans)) = (&queue.max_batch, queue.max_spans);
    let Count(size) = batch.value;
    if size <= spans {
        return;
    }
    if batch.place.is_some() {
        let message = format!("{size} spans never wait: the queue holds {spans}");
        wrong(findings, batch, "", message, &format!("write {spans} or less, or raise max_spans"));
        return;
    }
    warnings.push(format!("batches are bounded to {spans} spans, all that the export queue holds"));
    queue.max_batch.value = Count(spans);
}

/// The full URL that traces are sent to (OTLP-1, OTLP-10).
fn endpoint(otlp: &file::Otlp, findings: &mut Findings) -> Option<Uri> {
    if let Some(endpoint) = &otlp.traces_endpoint {
        return Some(endpoint.0.clone());
    }
    let base = &otlp.endpoint.as_ref()?.0;
    if otlp.protocol == OtlpProtocol::Grpc {
        return Some(base.clone());
    }
    let query = base.query().map(|query| format!("?{query}")).unwrap_or_default();
    let path = format!("{}/v1/traces{query}", base.path().trim_end_matches('/'));
    let mut parts = base.clone().into_parts();
    parts.path_and_query = path.parse().ok();
    let full = Uri::from_parts(parts).ok().filter(|full| full.path().ends_with("/v1/traces"));
    if full.is_none() {
        findings.add(Problem {
            subject: "export.otlp.endpoint".to_owned(),
            message: "has no room for /v1/traces".to_owned(),
            place: None,
            instead: "write a shorter URL".to_owned(),
        });
    }
    full
}

/// What works, but hardly as meant.
fn warn(file: &File, warnings: &mut Vec<String>) {
    let file::Outbound { proxy, mapped, transparent, clients, .. } = &file.outbound;
    let listens = proxy.is_some() || !mapped.is_empty() || transparent.is_some();
    if let Some(all) = clients.iter().find(|net| net.prefix_len() == 0).filter(|_| listens) {
        warnings.push(format!(
            "outbound.clients has {all}: anybody who reaches the listener can use it as a relay to wherever outbound.allow \
             and outbound.deny let them"
        ));
    }
    if file.service.name.is_none() {
        warnings.push(
            "the service has no name, so its spans say unknown_service: give --service, OTEL_SERVICE_NAME or \
             service.name in the file"
                .to_owned(),
        );
    }
    let sampler = file.sampling.sampler;
    if !matches!(sampler, SamplerName::Ratio | SamplerName::ParentRatio) && file.sampling.ratio.0 != 1.0 {
        warnings.push(format!(
            "sampling.ratio is not read by the sampler {}: write parentbased_traceidratio or traceidratio",
            sampler.show()
        ));
    }
    let file::UrlQuery { redact, allow } = &file.url_query;
    if *redact != Redact::All && !allow.is_empty() {
        warnings.push(format!(
            "url_query.allow is not read where url_query.redact is {}: write redact: all",
            redact.show()
        ));
    }
    let otlp = &file.export.otlp;
    if let (Some(endpoint), None) = (&otlp.endpoint, &otlp.traces_endpoint)
        && otlp.protocol == OtlpProtocol::HttpProtobuf
        && endpoint.0.path().trim_end_matches('/').ends_with("/v1/traces")
    {
        warnings.push(
            "the OTLP endpoint ends in /v1/traces, which is added once more: leave it out, or write it as \
             traces_endpoint"
                .to_owned(),
        );
    }
    let port =
        otlp.traces_endpoint.as_ref().or(otlp.endpoint.as_ref()).and_then(|endpoint| endpoint.0.port_u16());
    let usual = match (otlp.protocol, port) {
        (OtlpProtocol::HttpProtobuf, Some(4317)) => Some("grpc"),
        (OtlpProtocol::Grpc, Some(4318)) => Some("http/protobuf"),
        _ => None,
    };
    if let (Some(usual), Some(port)) = (usual, port) {
        warnings.push(format!(
            "the OTLP endpoint's port {port} is usually spoken to with {usual}, but the protocol is {}",
            otlp.protocol.show()
        ));
    }
}

#[cfg(test)]
pub(super) mod tests;
