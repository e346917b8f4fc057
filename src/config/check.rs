//! From the file, the environment and the command line to [`Settings`].
//!
//! Here is what needs more than one value to be judged; what a single value may be is said by its type. All
//! problems are gathered before any is reported.

use std::collections::{BTreeMap, HashMap};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use http::{HeaderName, HeaderValue, Uri};

use super::excerpt::Excerpts;
use super::file::{self, File};
use super::leaf::{Bytes, Compression, ConsoleMode, Count, Leaf, Wrong};
use super::origin::{Origin, Origins};
use super::problem::{Findings, Problem, Problems, quote};
use super::reader::Reader;
use super::sentry;
use super::settings::settings;
use super::tree::{self, Node};
use super::value::{At, Keys, Map, Value};
use super::warnings::{Warnings, warn};
use super::web::Template;
use super::write::Written;
use super::{Console, Export, Otlp, OtlpProtocol, OtlpTls, Queue, Settings, Upstream, env, files, write};
use crate::exchange::{Exclusion, RouteError, Routes};

mod way_in;

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
    /// Reads the files that keys name: [`read_file`](super::read_file), but for tests.
    pub read: &'a dyn Fn(&Path) -> io::Result<String>,
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
    /// Files that keys name: those with secrets and PEM files. Not the file of the settings itself.
    pub files: Vec<PathBuf>,
    /// What the settings come to, for comparisons.
    pub(super) written: Written,
    /// Keyed hashes of what `files` hold, by the keys that name them; `None` for those that cannot be read.
    pub(super) contents: BTreeMap<String, Option<u64>>,
    origins: Origins,
}

impl Loaded {
    /// What [`effective`](Self::effective) is, with a comment on each line that says where its value came from.
    pub fn explained(&self) -> String {
        write::document(&self.written, Some(&self.origins))
    }
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
    let is_yaml = tree.is_ok();
    let file: Option<File> = match tree {
        Ok(tree) => reader.read(&tree),
        Err(problem) => {
            reader.findings.add(problem);
            None
        }
    };
    let Reader { mut findings, warnings, mut origins, seen, .. } = reader;
    // Read once more only where there is something to show.
    let excerpts = || {
        let (name, text) = sources.file?;
        let scalars = is_yaml.then(|| tree::scalars(text));
        Some((name, Excerpts::new(text, scalars, &seen, File::SECTION)))
    };
    let mut warnings = Warnings {
        file: sources.file.map(|(name, _)| name),
        texts: warnings.into_iter().map(|(text, place)| (text, Some(place))).collect(),
    };
    let Some(mut file) = file else { return Err(findings.report(excerpts())) };

    env::overlay(&mut file, sources.env, &mut origins, &mut warnings);
    flags(&mut file, sources.flags, &mut origins, &mut findings);
    check(&file, &mut findings);
    let routes = routes(&file, &mut findings);
    let templates =
        templates("outbound.url_templates", &file.outbound.url_templates, Vec::new(), &mut findings);
    let read = files::read(&file, sources.read, &mut findings);
    let export = export(&mut file, sources, read.headers, &mut findings, &origins, &mut warnings);
    let mut files: Vec<PathBuf> = Vec::new();
    let mut contents = BTreeMap::new();
    for (key, (path, content)) in read.files {
        contents.insert(key, content);
        if !files.contains(&path) {
            files.push(path);
        }
    }
    if !findings.is_empty() {
        findings.locate(&origins);
        let mut problems = findings.report(excerpts());
        problems.files = files;
        return Err(problems);
    }
    warn(&file, &origins, &mut warnings);
    let written = file.write().unwrap_or(Written::Map(Vec::new()));
    let effective = write::document(&written, None);
    let settings = settings(file, routes, templates, export, read.admin_token);
    Ok(Loaded { settings, effective, warnings: warnings.report(), files, written, contents, origins })
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
fn flags(file: &mut File, flags: &Flags, origins: &mut Origins, findings: &mut Findings) {
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
        origins.replace("service.name", Origin::Flag("--service"));
    }
    match text(&flags.admin) {
        None => {}
        Some("off") => {
            file.admin.enabled = false;
            origins.replace("admin.enabled", Origin::Flag("--admin"));
        }
        Some(address) => {
            if let Some(listen) = parsed("--admin", address, findings) {
                (file.admin.enabled, file.admin.listen) = (true, listen);
                origins.replace("admin.enabled", Origin::Flag("--admin"));
                origins.replace("admin.listen", Origin::Flag("--admin"));
            }
        }
    }
    if let Some(address) = text(&flags.proxy)
        && let Some(listen) = parsed("--proxy", address, findings)
    {
        file.outbound.proxy = Some(listen);
        origins.replace("outbound.proxy", Origin::Flag("--proxy"));
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
            origins.replace("inbound", Origin::Flag("--to"));
            let origin = if listen.is_some() { Origin::Flag("--listen") } else { Origin::Default };
            origins.replace("inbound[0].listen", origin);
            let default = || At::elsewhere("--listen", SocketAddr::from(([0, 0, 0, 0], 8080)));
            let listen = listen.unwrap_or_else(|| Some(default()));
            if let (Some(listen), Some(to)) = (listen, to) {
                let (tls, proxy_protocol, to_tls) = (None, None, None);
                file.inbound = vec![file::Inbound { listen, to, trust: None, tls, proxy_protocol, to_tls }];
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
    sizes(&file.limits, findings);
    way_in::check(file, findings);
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

/// Sizes that some header, or the codec, could not hold.
fn sizes(limits: &file::Limits, findings: &mut Findings) {
    let file::Limits { header_bytes, target_bytes, .. } = limits;
    for (size, path, least, most, why) in [
        (
            header_bytes,
            "limits.header_bytes",
            1 << 10,
            1 << 20,
            "the heads of honest requests have 1KiB to 1MiB",
        ),
        (
            target_bytes,
            "limits.target_bytes",
            256,
            65_534,
            "a target has at most 65534B, and honest ones need 256B",
        ),
    ] {
        if !(least..=most).contains(&size.value.0) && !findings.touch(path) {
            let how = if size.value.0 < least { "small" } else { "large" };
            let message = format!("{} is too {how}: {why}", size.value.show());
            wrong(
                findings,
                size,
                path,
                message,
                &format!("write {} to {}", Bytes(least).show(), Bytes(most).show()),
            );
        }
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
    from_files: Vec<(HeaderName, HeaderValue)>,
    findings: &mut Findings,
    origins: &Origins,
    warnings: &mut Warnings<'_>,
) -> Export {
    let client = client_certificate(&mut file.export.otlp, findings, warnings);
    bound_batch(&mut file.export.otlp.queue, findings, origins, warnings);
    let file::Export { otlp, console } = &file.export;
    let endpoint = endpoint(otlp, findings);
    let to_sentry = sentry::otlp(file);
    if to_sentry.is_some() && endpoint.is_some() {
        findings.add(Problem {
            subject: "sentry.traces".to_owned(),
            message: "spans already go to an OTLP endpoint, and go to one place only".to_owned(),
            place: origins.place("sentry.traces"),
            instead: "write transactions or off, or leave the endpoint out and have Sentry get the spans"
                .to_owned(),
        });
    }
    let console = match console {
        ConsoleMode::Off => false,
        ConsoleMode::On => true,
        ConsoleMode::Auto => endpoint.is_none() && to_sentry.is_none() && sources.terminal,
    };
    let color = !env::no_color(sources.env);
    let console = console.then_some(match sources.terminal {
        true => Console::Tree { color },
        false => Console::Json,
    });
    let Map(headers) = &otlp.headers;
    let headers = headers.iter().map(|(name, value)| (name.clone(), value.0.clone()));
    let otlp = endpoint.map(|endpoint| Otlp {
        endpoint,
        protocol: otlp.protocol,
        headers: headers.chain(from_files).collect(),
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
    Export { otlp: otlp.or(to_sentry), console }
}

/// Certificate and key come together (OTLP-7). One alone is a problem of the file, but no more than a warning where
/// the environment gave it.
fn client_certificate(
    otlp: &mut file::Otlp,
    findings: &mut Findings,
    warnings: &mut Warnings<'_>,
) -> Option<(PathBuf, PathBuf)> {
    let (alone, path, other) = match (&otlp.client_certificate, &otlp.client_key) {
        (None, None) => return None,
        (Some(certificate), Some(key)) => return Some((certificate.value.clone(), key.value.clone())),
        (Some(certificate), None) => (certificate, "export.otlp.client_certificate", "client_key"),
        (None, Some(key)) => (key, "export.otlp.client_key", "client_certificate"),
    };
    if alone.path.is_empty() {
        let variables = "OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE and OTEL_EXPORTER_OTLP_CLIENT_KEY";
        warnings.add(None, format!("{variables} work together only: the one that is set is ignored"));
        (otlp.client_certificate, otlp.client_key) = (None, None);
    } else if !findings.touch(&format!("export.otlp.{other}")) {
        let message = format!("is of no use without {other}");
        wrong(findings, alone, path, message, &format!("write export.otlp.{other}, too"));
    }
    None
}

/// A batch is no larger than the queue.
fn bound_batch(
    queue: &mut file::Queue,
    findings: &mut Findings,
    origins: &Origins,
    warnings: &mut Warnings<'_>,
) {
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
    let place = origins.place("export.otlp.queue.max_spans");
    warnings.add(place, format!("batches are bounded to {spans} spans, all that the export queue holds"));
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

#[cfg(test)]
pub(super) mod tests;
