//! What is changed, and what is wrong with the files that cannot be used.

use super::looks;
pub use super::looks::Look;

/// One key, or a few that belong together, and the values that they take in turn. No value is the default.
pub struct Row {
    pub name: &'static str,
    pub states: Vec<State>,
    /// What only this change can be seen by.
    pub look: Look,
    /// How many times in a row it is changed: what would hide other changes, or slow everything down, is soon over.
    pub times: usize,
}

pub type State = Vec<(&'static str, &'static str)>;

/// A key that takes these values.
fn key(name: &'static str, values: &[&'static str]) -> Row {
    let states = values.iter().map(|value| vec![(name, *value)]).collect();
    Row { name, states, look: looks::nothing, times: 1 }
}

/// Several keys that are changed together.
fn keys(name: &'static str, states: Vec<State>) -> Row {
    Row { name, states, look: looks::nothing, times: 1 }
}

impl Row {
    fn look(self, look: Look) -> Self {
        Self { look, ..self }
    }

    /// Is taken back by the next change.
    fn brief(self) -> Self {
        Self { times: self.states.len(), ..self }
    }
}

/// Every key that can change while tracecar runs, in the order in which they do. A row that stands here several times
/// goes on where it was.
pub fn rows() -> Vec<Row> {
    let endpoint = || {
        keys(
            "export.otlp.endpoint",
            vec![
                vec![("export.otlp.endpoint", "'http://{south-http}'")],
                vec![("export.otlp.endpoint", "'http://{north-grpc}'"), ("export.otlp.protocol", "grpc")],
                vec![("export.otlp.endpoint", "'http://{south-grpc}'")],
                vec![
                    ("export.otlp.endpoint", "'http://{north-http}'"),
                    ("export.otlp.protocol", "http/protobuf"),
                ],
            ],
        )
    };
    let to = || key("inbound~to", &["'http://{beta}'", "'http://{alpha}'"]);
    let destinations = || {
        key(
            "outbound.destinations",
            &[
                "[{ host: '{delta}', name: delta-shop }]",
                "[{ host: '{delta}', trace: false }]",
                "[{ host: '{delta}', strip: true }]",
                "[{ host: '{delta}', inject: [b3, jaeger], extract: [b3] }]",
                "",
            ],
        )
    };
    vec![
        key("propagation.server_timing", &["false", ""]),
        key("routes", &["['/other', '/probe/items/{id}']", ""]),
        to(),
        key("service.version", &["1.2.3", "1.2.4"]),
        endpoint(),
        key(
            "exclude.rules",
            &["[{ path: /probe/excluded/** }]", "[{ method: PURGE }, { user_agent: scanner/* }]"],
        ),
        key("propagation.correlation.headers", &["[x-tracked, x-correlation-id]", ""]),
        key("propagation.via", &["true", ""]),
        key("propagation.date", &["true", ""]),
        keys(
            "sampling.ratio",
            vec![
                vec![("sampling.sampler", "parentbased_traceidratio"), ("sampling.ratio", "0")],
                vec![("sampling.ratio", "1.0")],
            ],
        )
        .brief(),
        keys(
            "access_log",
            vec![
                vec![("access_log.enabled", "true"), ("access_log.path", "'{access-log}'")],
                vec![("access_log.format", "text")],
                vec![("access_log.path", "")],
                vec![("access_log.enabled", ""), ("access_log.format", "")],
            ],
        )
        .brief(),
        destinations(),
        key("export.console", &["on", ""]).brief(),
        key("url_query.redact", &["known", "off", ""]),
        key("client.trusted_proxies", &["[127.0.0.0/8]", ""]),
        endpoint(),
        key("inbound~more", &["{ listen: '{main-more}', to: 'http://{beta}' }", ""])
            .look(looks::more_listener)
            .brief(),
        key(
            "outbound.mapped~more",
            &[
                "{ listen: '{mapped-more}', to: 'http://{delta}', name: mapped-shop }",
                "{ listen: '{mapped-more}', to: 'http://{delta}' }",
                "",
            ],
        )
        .look(looks::mapped_listener),
        key("timeouts.response_header", &["700ms", ""]).look(looks::slow_response).brief(),
        key("outbound.deny", &["['{delta}']", ""]).brief(),
        key("propagation.inbound.inject", &["[tracecontext, b3]", "[b3multi, xray]", ""]),
        to(),
        key("export.otlp.headers", &["{ x-run: one }", "{ x-run: two, x-key: secret }", ""]),
        key("export.otlp.headers_file", &["{ x-other: '{header}' }", ""]),
        key("export.otlp.compression", &["none", ""]),
        key("log", &["'info,tracecar::admin=debug'", ""]).look(looks::log_line).brief(),
        keys(
            "admin.ready_needs_upstream",
            vec![
                vec![("inbound~dead", "{ listen: '{main-dead}', to: 'http://{nobody}' }")],
                vec![("admin.ready_needs_upstream", "false")],
                vec![("admin.ready_needs_upstream", ""), ("inbound~dead", "")],
            ],
        )
        .look(looks::ready)
        .brief(),
        key("known_methods", &["[GET, POST, PURGE]", ""]),
        key("grpc.methods", &["['shop.Stock/*', shop.Cart/Add]", ""]),
        destinations(),
        key("inbound~trust", &["restart", ""]),
        key(
            "propagation.trust",
            &["[{ from: [10.0.0.0/8], policy: restart }, { from: [127.0.0.0/8], policy: sample }]", ""],
        ),
        endpoint(),
        key("timeouts.detection", &["700ms", ""]).look(looks::silent_caller),
        key("client.half_close", &["cancel", ""]).look(looks::half_closed),
        key("client.trusted_headers", &["[x_forwarded]", ""]),
        key("client.headers.x_forwarded", &["append", "set", ""]),
        key("client.headers.forwarded", &["append", "strip", ""]),
        key("exclude.keep_failures", &["false", ""]),
        key("outbound.proxy", &["'{proxy-moved}'", "'{proxy}'"]),
        key("admin.listen", &["'{admin-moved}'", "'{admin}'"]),
        to(),
        key("sampling.sampler", &["always_off", "always_on"]).brief(),
        key("propagation.outbound.inject", &["[b3]", ""]),
        key("outbound.url_templates", &["['/probe/call/{id}']", ""]),
        key("outbound.clients", &["[127.0.0.1/32]", ""]).brief(),
        key("outbound.connect_ports", &["[443]", ""]).look(looks::tunnel).brief(),
        key("propagation.traceresponse", &["true", ""]),
        key("propagation.correlation.generate", &["uuidv7", ""]),
        endpoint(),
        key("service.namespace", &["shops", ""]),
        key("service.environment", &["staging", ""]),
        key("service.attributes", &["{ team: risk }", "{ team: shop }"]),
        key("service.name", &["renamed", "reloaded"]),
        destinations(),
        key("propagation.correlation.enabled", &["false", ""]),
        key("url_query.allow", &["[page]", ""]),
        to(),
        key("outbound.allow", &["['{gamma}']", "['127.0.0.0/8', '{delta}']", ""]).brief(),
        key(
            "propagation.formats",
            &["[jaeger, tracecontext]", "[b3]", "[datadog, sentry-trace]", "[none]", ""],
        )
        .brief(),
        key("propagation.outbound.extract", &["[b3, tracecontext]", ""]),
        key("propagation.inbound.extract", &["[b3]", ""]).brief(),
        key("timeouts.idle", &["1500ms", ""]).look(looks::idle_caller),
        key("timeouts.tls_handshake", &["3s", ""]),
        key(
            "inbound~secure",
            &[
                "{ listen: '{main-secure}', to: 'http://{beta}', tls: { certificates: [{ certificate: '{ca}', key: '{ca-key}' }] } }",
                "{ listen: '{main-secure}', to: 'http://{beta}', tls: { certificates: [{ certificate: '{ca}', key: '{ca-key}' }], \
                 min_version: TLSv1.3, client_auth: required, client_ca: '{ca}' } }",
                "{ listen: '{main-secure}', to: 'https://{beta}', proxy_protocol: { from: [10.0.0.0/8] }, \
                 to_tls: { ca: '{ca}', server_name: beta.example, client_certificate: '{ca}', client_key: '{ca-key}' } }",
                "",
            ],
        ),
        key("timeouts.request_header", &["1s", ""]).look(looks::half_a_head),
        key("timeouts.connect", &["2s", ""]),
        key("timeouts.request_body", &["30s", ""]),
        key("timeouts.response_body", &["30s", ""]),
        key("timeouts.response_send", &["30s", ""]),
        key("timeouts.stream", &["1h", ""]),
        key("timeouts.tunnel", &["1h", ""]),
        key("limits.connections", &["5000", ""]),
        key("limits.requests", &["5000", ""]),
        key("limits.header_bytes", &["32KiB", ""]),
        key("limits.headers", &["100", ""]),
        key("limits.target_bytes", &["8KiB", ""]),
        key("limits.http2_streams", &["100", ""]),
        key("limits.http2_resets", &["500", ""]),
        key("limits.upstream_connections", &["1000", ""]),
        key("timeouts.upstream_idle", &["5s", ""]),
        key("export.otlp.traces_endpoint", &["'http://{south-http}/intake/traces'", ""]).brief(),
        key("export.otlp.timeout", &["4s", ""]),
        key("export.otlp.queue.max_spans", &["20000", ""]),
        key("export.otlp.queue.max_bytes", &["24MiB", ""]),
        key("export.otlp.queue.max_batch", &["128", ""]),
        key("export.otlp.queue.schedule_delay", &["100ms", "200ms"]),
        key("export.otlp.queue.export_timeout", &["5s", ""]),
        key("export.otlp.certificate", &["'{ca}'", ""]),
        keys(
            "export.otlp.client_certificate",
            vec![
                vec![("export.otlp.client_certificate", "'{ca}'"), ("export.otlp.client_key", "'{ca-key}'")],
                vec![("export.otlp.client_certificate", ""), ("export.otlp.client_key", "")],
            ],
        ),
        key("outbound.certificate", &["'{ca}'", ""]),
        keys(
            "outbound.intercept",
            vec![
                vec![
                    ("outbound.intercept.hosts", "[api.example.com]"),
                    ("outbound.intercept.ca_certificate", "'{ca}'"),
                    ("outbound.intercept.ca_key", "'{ca-key}'"),
                ],
                vec![
                    ("outbound.intercept.hosts", ""),
                    ("outbound.intercept.ca_certificate", ""),
                    ("outbound.intercept.ca_key", ""),
                ],
            ],
        ),
        key("outbound.transparent", &["'{transparent}'", ""]).look(looks::transparent_listener).brief(),
        key("lineage.methods", &["[correlation, token]", ""]),
        key("lineage.identity_headers", &["[x-tenant-request]", ""]),
        key("lineage.token_headers", &["[authorization]", ""]),
        key("lineage.json_fields", &["[order_id]", ""]),
        key("lineage.tail", &["7s", ""]),
        key("lineage.background_window", &["30s", ""]),
        key("lineage.guess_after", &["1s", ""]),
        key("lineage.process_budget", &["4ms", "0s", ""]),
        key("failures.read_content", &["false", ""]),
        key("failures.statuses", &["[{ status: [404] }]", ""]),
        // Nobody listens there: whether Sentry is there is nothing to the traffic.
        key("sentry.dsn", &["'http://key@127.0.0.1:9/1'", "'http://key@127.0.0.1:9/2'"]),
        key("sentry.environment", &["staging", ""]),
        key("sentry.release", &["shop@2", ""]),
        key("sentry.sample_rate", &["0.5", ""]),
        key("sentry.traces", &["transactions", ""]),
        key("sentry.traces_sample_rate", &["1.0", ""]),
        key("sentry.calls", &["false", ""]),
        key("sentry.slow", &["true", ""]),
        key("sentry.max_per_group", &["5", ""]),
        key("sentry.max_events", &["50", ""]),
        key("admin.enabled", &["false", ""]).brief(),
        key("runtime.drain", &["20s", ""]),
    ]
}

/// All rows in a few changes of many keys each: what is opened once, is open after them. The file is as it was between two of
/// them.
pub fn at_once(rows: &[Row], changes: usize) -> Vec<State> {
    let mut visits = std::collections::BTreeMap::<&str, usize>::new();
    // Nobody could look at what comes after the admin pages are gone.
    let rows: Vec<&Row> = rows.iter().filter(|row| row.name != "admin.enabled").collect();
    let mut first_or_second = |row: &&Row| {
        let visit = visits.entry(row.name).or_default();
        *visit += 1;
        row.states[(*visit - 1).min(1)].clone()
    };
    rows.chunks(rows.len().div_ceil(changes))
        .map(|rows| rows.iter().flat_map(&mut first_or_second).collect())
        .collect()
}

/// The same rows in the order in which they are visited, each with the state that it takes, for `steps` changes.
pub fn walk(rows: &[Row], steps: usize) -> Vec<(usize, State)> {
    let mut visits = std::collections::BTreeMap::<&str, usize>::new();
    let mut all = Vec::new();
    let pass: usize = rows.iter().map(|row| row.times).sum();
    // A short run sees some of all, and not all of some.
    let every = (pass / steps.max(1)).max(1);
    for row in (0..rows.len()).cycle().step_by(every) {
        let Row { name, states, times, .. } = &rows[row];
        let visit = visits.entry(name).or_default();
        for _ in 0..*times {
            all.push((row, states[*visit % states.len()].clone()));
            *visit += 1;
        }
        if all.len() >= steps {
            return all;
        }
    }
    unreachable!("the cycle has no end")
}

/// What is wrong with a file.
pub enum Fault {
    /// This line is added at the end.
    Added(&'static str),
    /// These keys have these values.
    Keys(&'static [(&'static str, &'static str)]),
    /// The file is not there.
    Gone,
}

/// Files that cannot be used, and a word that the report has to have.
pub const FAULTS: [(&str, Fault, &str); 12] = [
    ("a misspelt key", Fault::Added("propagtion: { via: true }"), "propagtion"),
    ("a bad unit", Fault::Keys(&[("timeouts.connect", "5parsecs")]), "5parsecs"),
    ("no YAML", Fault::Added("lineage: [unclosed"), "line"),
    (
        "a port that is taken",
        Fault::Keys(&[("inbound~more", "{ listen: '{taken}', to: 'http://{beta}' }")]),
        "{taken}",
    ),
    ("a missing PEM file", Fault::Keys(&[("outbound.certificate", "/nowhere/ca.pem")]), "/nowhere/ca.pem"),
    (
        "a missing PEM file for export",
        Fault::Keys(&[
            ("export.otlp.endpoint", "'https://{south-http}'"),
            ("export.otlp.certificate", "/nowhere/otlp.pem"),
        ]),
        "/nowhere/otlp.pem",
    ),
    (
        "a mapped port that is taken",
        Fault::Keys(&[("outbound.mapped~more", "{ listen: '{taken}', to: 'http://{delta}' }")]),
        "{taken}",
    ),
    ("a ratio above 1", Fault::Keys(&[("sampling.ratio", "1.5")]), "ratio"),
    ("no destination", Fault::Keys(&[("inbound~to", "")]), "inbound"),
    (
        "a folder as the access log",
        Fault::Keys(&[("access_log.enabled", "true"), ("access_log.path", "/proc")]),
        "/proc",
    ),
    ("a route that is none", Fault::Keys(&[("routes", "['/{a}/{a']")]), "routes"),
    ("no file", Fault::Gone, "tracecar.yaml"),
];

/// Keys that are as the program was started, and those that say nothing without others.
const NOT_CHANGED: [&str; 1] = ["runtime.workers"];

#[test]
fn the_table_has_every_key_that_has_a_default() {
    let yaml = "inbound: [{ listen: '127.0.0.1:1', to: 'http://127.0.0.1:2' }]";
    let effective = super::model::effective(yaml);
    let mut known: Vec<String> =
        rows().iter().flat_map(|row| row.states.concat()).map(|(key, _)| key.into()).collect();
    known.extend(NOT_CHANGED.map(str::to_owned));
    let mut open: Vec<&str> = Vec::new();
    let mut missing = Vec::new();
    for line in effective.lines().filter(|line| !line.trim_start().starts_with(['-', '#'])) {
        let text = line.trim_start();
        let Some((name, value)) = text.split_once(':') else { continue };
        open.truncate((line.len() - text.len()) / 2);
        open.push(name);
        let key = open.join(".");
        let changed = |known: &String| {
            *known == key || [".", "~"].iter().any(|part| known.starts_with(&format!("{key}{part}")))
        };
        if !value.is_empty() && !known.iter().any(changed) && !key.starts_with("inbound.") {
            missing.push(key);
        }
    }
    assert!(missing.is_empty(), "no row changes {missing:?}");
}
