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
    let export = export(&mut file, sources, &mut findings, &mut warnings);
    if !findings.is_empty() {
        return Err(findings.report(sources.file, &secrets));
    }
    warn(&file, &mut warnings);
    let effective = file.write().map(|written| write::document(&written)).unwrap_or_default();
    Ok(Loaded { settings: settings(file, routes, export), effective, warnings })
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
                file.inbound = vec![file::Inbound { listen, to }];
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
    let mut templates: Vec<_> = file.routes.iter().collect();
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
        wrong(findings, route, "routes", message, "remove one of the two, or give their parameters one name");
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
pub(super) mod tests {
    use proptest::prelude::*;

    use super::super::Inbound;
    use super::*;

    pub fn minimal() -> &'static str {
        "inbound: [{ to: \"http://127.0.0.1:3000\" }]\n"
    }

    /// Loads with these variables and without flags, where standard output is no terminal.
    pub fn load(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Problems> {
        load_with(text, variables, &Flags::default(), false)
    }

    fn load_with(
        text: &str,
        variables: &[(&str, &str)],
        flags: &Flags,
        terminal: bool,
    ) -> Result<Loaded, Problems> {
        let variable =
            |name: &str| variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned());
        super::load(&Sources { file: Some(("t.yaml", text)), env: &variable, flags, terminal })
    }

    fn flags(to: &str, listen: &str) -> Flags {
        Flags { to: Some(to.to_owned()), listen: Some(listen.to_owned()), ..Flags::default() }
    }

    #[test]
    fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
        let file = format!("{}service: {{ name: file }}\n", minimal());
        let env = [("OTEL_SERVICE_NAME", "env")];
        let flag = Flags { service: Some("flag".to_owned()), ..Flags::default() };
        let name = |loaded: Result<Loaded, Problems>| loaded.unwrap().settings.startup.service.name;
        assert_eq!(name(load_with(&file, &env, &flag, false)), "flag");
        assert_eq!(name(load(&file, &env)), "env");
        assert_eq!(name(load(&file, &[("OTEL_SERVICE_NAME", "")])), "file");
        assert_eq!(name(load(minimal(), &[])), "unknown_service");
    }

    #[test]
    fn a_service_without_a_name_is_warned_of_once() {
        assert_eq!(load(minimal(), &[]).unwrap().warnings.len(), 1);
        assert!(load(&format!("{}service: {{ name: a }}", minimal()), &[]).unwrap().warnings.is_empty());
    }

    #[test]
    fn to_and_listen_replace_the_whole_of_inbound() {
        let file = "inbound: [{ to: \"http://a:1\" }, { to: \"http://b:1\", listen: \"0.0.0.0:1\" }]";
        let inbound =
            |flags: &Flags| load_with(file, &[], flags, false).map(|loaded| loaded.settings.startup.inbound);
        let listen: SocketAddr = "127.0.0.1:7000".parse().unwrap();
        let given = inbound(&flags("http://c:3", "127.0.0.1:7000")).unwrap();
        assert_eq!(given, [Inbound { listen, to: Upstream::parse("http://c:3").unwrap() }]);
        let default = inbound(&flags("http://c:3", "")).unwrap();
        assert_eq!((default.len(), default[0].listen), (1, "0.0.0.0:8080".parse().unwrap()));
        let problems = inbound(&flags("", "127.0.0.1:7000")).unwrap_err().to_string();
        assert!(problems.contains("--listen: ") && problems.contains("give --to"), "{problems}");
        let problems = load_with("", &[], &flags("127.0.0.1:3000", ""), false).unwrap_err();
        assert_eq!(problems.count(), 1, "{problems}");
        assert!(problems.to_string().contains("--to: \"127.0.0.1:3000\" has no scheme\n  = write http://"));
    }

    #[test]
    fn the_admin_pages_can_be_moved_and_switched_off() {
        let admin = |text: &str| {
            let flags = Flags { admin: Some(text.to_owned()), ..Flags::default() };
            load_with(minimal(), &[], &flags, false).map(|loaded| loaded.settings.startup.admin)
        };
        assert_eq!(admin("0.0.0.0:9000").unwrap(), Some("0.0.0.0:9000".parse().unwrap()));
        assert_eq!(admin("off").unwrap(), None);
        assert!(admin("9000").is_err());
    }

    #[test]
    fn without_otlp_traces_go_to_a_terminal_and_nowhere_else() {
        let console = |text: &str, variables: &[(&str, &str)], terminal| {
            let text = format!("{}{text}", minimal());
            let loaded = load_with(&text, variables, &Flags::default(), terminal).unwrap();
            loaded.settings.startup.export.console
        };
        let otlp = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c")];
        assert_eq!(console("", &[], true), Some(Console::Tree { color: true }));
        assert_eq!(console("", &[("NO_COLOR", "1")], true), Some(Console::Tree { color: false }));
        assert_eq!(console("", &[], false), None);
        assert_eq!(console("", &otlp, true), None);
        assert_eq!(console("export: { console: on }", &otlp, false), Some(Console::Json));
        assert_eq!(console("export: { console: off }", &[], true), None);
        assert_eq!(console("", &[("OTEL_TRACES_EXPORTER", "console")], false), Some(Console::Json));
    }

    #[test]
    fn what_hardly_works_as_meant_is_warned_of() {
        let warned = |text: &str, part: &str| {
            let text = format!("{}service: {{ name: a }}\n{text}", minimal());
            let warnings = load(&text, &[]).unwrap().warnings;
            assert!(warnings.len() == 1 && warnings[0].contains(part), "{text}: {warnings:?}");
        };
        warned("sampling: { ratio: 0.1 }", "sampling.ratio");
        warned("url_query: { redact: known, allow: [a] }", "url_query.allow");
        warned("export: { otlp: { endpoint: \"http://c:4318/v1/traces\" } }", "added once more");
        warned("export: { otlp: { endpoint: \"http://c:4317\" } }", "grpc");
        warned("export: { otlp: { headers: { x-key: \"${NONE}\" } } }", "x-key is empty");
        warned("export: { otlp: { queue: { max_spans: 100 } } }", "100 spans");
    }

    #[test]
    fn what_is_in_effect_shows_no_secrets() {
        let text = format!(
            "{}export: {{ otlp: {{ endpoint: \"https://me:hunter2@c/p?k=hunter2\", headers: {{ a: hunter2 }} }} }}",
            minimal()
        );
        let loaded = load(&text, &[]).unwrap();
        assert!(!loaded.effective.contains("hunter2"), "{}", loaded.effective);
        assert!(!format!("{:?}", loaded.settings.startup.export.otlp.unwrap().headers).contains("hunter2"));
    }

    #[test]
    fn a_hostile_file_ends_quickly_with_a_short_report() {
        let unknown: String = (0..40_000).map(|index| format!("k{index}: 1\n")).collect();
        let routes = format!("routes:\n{}", "  - /a/{x}\n".repeat(20_000));
        let values = format!("{}routes: [{}]", minimal(), "no, ".repeat(40_000));
        let variables = format!("log: \"{}\"", "${BIG}".repeat(100_000));
        let big = "x".repeat(100_000);
        for text in [unknown, routes, values, variables] {
            let started = std::time::Instant::now();
            let problems = load(&text, &[("BIG", &big)]).unwrap_err();
            let (length, took) = (problems.to_string().len(), started.elapsed());
            // Far more than it takes, so that a busy machine does not fail it; far less than what it guards against.
            assert!(length < 100_000 && took.as_secs() < 20, "{length} bytes, {took:?}: {}", &text[..20]);
        }
    }

    /// Text made of pieces of configuration, which gets further than arbitrary characters do.
    fn pieces() -> impl Strategy<Value = String> {
        let reference = file::reference();
        let mut pieces: Vec<String> =
            reference.split_inclusive([' ', '\n', ',', '{', '[']).map(str::to_owned).collect();
        let marks = [
            "\n", "\n  ", "\n    ", ": ", "- ", "[", "]", "{", "}", "&a ", "*a", "!!str ", "\"", "'", "${",
            "}", "|\n", "\t", "🚗", "~", "? ", "\r", "\u{85}", "<<",
        ];
        pieces.extend(marks.map(str::to_owned));
        prop::collection::vec(prop::sample::select(pieces), 0..60).prop_map(|pieces| pieces.concat())
    }

    /// The reference with one line changed, which gets furthest.
    fn mutated() -> impl Strategy<Value = String> {
        let lines: Vec<String> = file::reference().lines().map(str::to_owned).collect();
        (0..lines.len(), any::<String>(), any::<bool>()).prop_map(move |(at, text, append)| {
            let mut lines = lines.clone();
            match append {
                true => lines[at].push_str(&text),
                false => {
                    lines[at] = lines[at].split_inclusive(": ").next().unwrap_or_default().to_owned() + &text
                }
            }
            lines.join("\n")
        })
    }

    proptest! {
        #[test]
        fn no_text_panics(text in prop_oneof![any::<String>(), pieces(), mutated()], value in any::<String>()) {
            let variable = |_: &str| Some(value.clone());
            let flags = Flags { to: Some(text.clone()), admin: Some(value.clone()), ..Flags::default() };
            for flags in [&Flags::default(), &flags] {
                let sources = Sources { file: Some(("t.yaml", &text)), env: &variable, flags, terminal: true };
                match super::load(&sources) {
                    Ok(loaded) => {
                        let again = load(&loaded.effective, &[]);
                        prop_assert!(again.is_ok(), "{}\n{}", again.unwrap_err(), loaded.effective);
                    }
                    Err(problems) => prop_assert!(problems.count() > 0),
                }
            }
        }
    }
}
