//! OpenTelemetry's environment variables, laid over the file.
//!
//! A variable beats the file and never stops the program: one that cannot be read is warned of and ignored, and an
//! empty one is as if it were not set (ENV-20). Names are matched without regard to case, durations are milliseconds.

use std::time::Duration;

use http::HeaderName;

use super::OtlpProtocol;
use super::file::{File, Otlp, Service};
use super::leaf::{Compression, ConsoleMode, Count, Leaf, Propagator, Ratio, SamplerName, Wrong};
use super::origin::{Origin, Origins};
use super::problem::quote;
use super::reader::step;
use super::sentry::Dsn;
use super::value::{At, Map};
use super::warnings::Warnings;
use super::web::{AttributeName, Endpoint, MethodName, Secret};

/// Lays the variables over `file`, and notes in `warnings` those that are ignored.
pub(super) fn overlay(
    file: &mut File,
    lookup: &dyn Fn(&str) -> Option<String>,
    origins: &mut Origins,
    warnings: &mut Warnings<'_>,
) {
    let mut env = Environment { lookup, origins, warnings };
    service(&mut file.service, &mut env);
    sampling(file, &mut env);
    if let Some(formats) = env.list("OTEL_PROPAGATORS", name::<Propagator>) {
        file.propagation.formats = formats;
        env.gave("propagation.formats", "OTEL_PROPAGATORS");
    }
    if let Some(methods) = env.list("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", leaf::<MethodName>) {
        file.known_methods = methods;
        env.gave("known_methods", "OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS");
    }
    otlp(&mut file.export.otlp, &mut env);
    queue(&mut file.export.otlp, &mut env);
    exporters(file, &mut env);
    sentry(file, &mut env);
}

/// Whether `NO_COLOR` asks for output without colour.
pub(super) fn no_color(lookup: &dyn Fn(&str) -> Option<String>) -> bool {
    lookup("NO_COLOR").is_some_and(|value| !value.is_empty())
}

struct Environment<'a, 'w> {
    lookup: &'a dyn Fn(&str) -> Option<String>,
    /// Where values came from.
    origins: &'a mut Origins,
    warnings: &'a mut Warnings<'w>,
}

impl Environment<'_, '_> {
    /// The variable, unless it is empty.
    fn text(&self, name: &str) -> Option<String> {
        let text = (self.lookup)(name)?;
        let text = text.trim();
        (!text.is_empty()).then(|| text.to_owned())
    }

    fn ignored(&mut self, name: &str, why: &str) {
        self.warnings.add(None, format!("{name} is ignored: {why}"));
    }

    /// Notes that the value at `path` is from the variable.
    fn gave(&mut self, path: &str, name: &str) {
        self.origins.replace(path, Origin::Variable(name.to_owned()));
    }

    /// As [`parsed`](Self::parsed), for the key at `path`.
    fn value<T>(&mut self, path: &str, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let value = self.parsed(name, parse)?;
        self.gave(path, name);
        Some(value)
    }

    /// What the variable stands for, or a warning.
    fn parsed<T>(&mut self, name: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        parse(&self.text(name)?).map_err(|why| self.ignored(name, &why)).ok()
    }

    /// A value of the key at `export.otlp.{key}`, for traces only or else for all signals.
    fn otlp<T>(&mut self, key: &str, option: &str, parse: impl Fn(&str) -> Result<T, String>) -> Option<T> {
        let path = format!("export.otlp.{key}");
        let specific = self.value(&path, &format!("OTEL_EXPORTER_OTLP_TRACES_{option}"), &parse);
        specific.or_else(|| self.value(&path, &format!("OTEL_EXPORTER_OTLP_{option}"), &parse))
    }

    /// The members of a comma list that can be read; `None` where that is none of them. No member is taken twice.
    fn list<T: PartialEq>(
        &mut self,
        name: &str,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Option<Vec<T>> {
        let text = self.text(name)?;
        let mut members = Vec::new();
        for member in text.split(',').map(str::trim).filter(|member| !member.is_empty()) {
            match parse(member) {
                Ok(member) if members.contains(&member) => {}
                Ok(member) => members.push(member),
                Err(why) => self.warnings.add(None, format!("a part of {name} is ignored: {why}")),
            }
        }
        (!members.is_empty()).then_some(members)
    }
}

fn leaf<T: Leaf>(text: &str) -> Result<T, String> {
    T::parse(text).map_err(|Wrong { message, instead }| format!("{message}; {instead}"))
}

fn name<T: Leaf>(text: &str) -> Result<T, String> {
    leaf(&text.to_lowercase())
}

fn milliseconds(text: &str) -> Result<Duration, String> {
    match text.parse::<u64>() {
        // The same bound as in the file.
        Ok(number) => leaf::<Duration>(&format!("{number}ms")),
        Err(_) => Err(format!("{} is not a number of milliseconds", quote(text))),
    }
}

fn truth(text: &str) -> Result<bool, String> {
    match text.to_ascii_lowercase().as_str() {
        "true" => Ok(true),
        "false" => Ok(false),
        _ => Err(format!("{} is neither true nor false", quote(text))),
    }
}

/// ENV-2, RES-1, RES-7.
fn service(service: &mut Service, env: &mut Environment<'_, '_>) {
    let variable = "OTEL_RESOURCE_ATTRIBUTES";
    for (key, value) in env.parsed(variable, resource_attributes).unwrap_or_default() {
        let own = match key.as_str() {
            "service.name" => Some(("name", &mut service.name)),
            "service.namespace" => Some(("namespace", &mut service.namespace)),
            "service.version" => Some(("version", &mut service.version)),
            "deployment.environment.name" => Some(("environment", &mut service.environment)),
            _ => None,
        };
        if let Some((own, slot)) = own {
            *slot = Some(value);
            env.gave(&format!("service.{own}"), variable);
            continue;
        }
        env.gave(&format!("service.attributes{}", step(&key)), variable);
        let Map(attributes) = &mut service.attributes;
        attributes.retain(|(existing, _)| existing.0 != key);
        attributes.push((AttributeName(key), value));
    }
    let variable = "OTEL_SERVICE_NAME";
    if let Some(name) = env.text(variable) {
        service.name = Some(name);
        env.gave("service.name", variable);
    }
}

/// `key=value,key=value`; one mistake discards all (RES-7).
fn resource_attributes(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut attributes = Vec::new();
    for (index, member) in text.split(',').enumerate().filter(|(_, member)| !member.trim().is_empty()) {
        let decoded = member.split_once('=').and_then(|(key, value)| {
            let (key, value) = (percent_decoded(key.trim())?, percent_decoded(value.trim())?);
            (!key.is_empty()).then_some((key, value))
        });
        match decoded {
            // An empty value says nothing, as an empty variable does.
            Some((_, value)) if value.is_empty() => {}
            Some(attribute) => attributes.push(attribute),
            None => {
                let what = "is not key=value with `,`, `=` and `%` percent-encoded";
                return Err(format!("member {} ({}) {what}", index + 1, quote(member)));
            }
        }
    }
    Ok(attributes)
}

fn percent_decoded(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, after @ ..] = rest {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let [high, low, after @ ..] = rest else { return None };
        let digit = |byte: u8| char::from(byte).to_digit(16);
        bytes.push(u8::try_from(digit(*high)? * 16 + digit(*low)?).ok()?);
        rest = after;
    }
    String::from_utf8(bytes).ok()
}

/// SMP-1, SMP-2, ENV-5.
fn sampling(file: &mut File, env: &mut Environment<'_, '_>) {
    let Some(sampler) = env.value("sampling.sampler", "OTEL_TRACES_SAMPLER", name::<SamplerName>) else {
        return;
    };
    file.sampling.sampler = sampler;
    if !matches!(sampler, SamplerName::Ratio | SamplerName::ParentRatio) {
        // Whatever the file says of a share was for another sampler.
        file.sampling.ratio = Ratio(1.0);
        env.origins.replace("sampling.ratio", Origin::Default);
        return;
    }
    if let Some(ratio) = env.value("sampling.ratio", "OTEL_TRACES_SAMPLER_ARG", leaf::<Ratio>) {
        file.sampling.ratio = ratio;
    }
}

/// Sentry's own variables, and what others set for the same purpose where nobody else says.
fn sentry(file: &mut File, env: &mut Environment<'_, '_>) {
    let text = |text: &str| Ok(text.to_owned());
    if let Some(dsn) = env.value("sentry.dsn", "SENTRY_DSN", leaf::<Dsn>) {
        file.sentry.dsn = Some(dsn);
    }
    if let Some(rate) = env.value("sentry.sample_rate", "SENTRY_SAMPLE_RATE", leaf::<Ratio>) {
        file.sentry.sample_rate = rate;
    }
    if let Some(rate) = env.value("sentry.traces_sample_rate", "SENTRY_TRACES_SAMPLE_RATE", leaf::<Ratio>) {
        file.sentry.traces_sample_rate = rate;
    }
    let own = [
        (
            &mut file.sentry.environment,
            "environment",
            "SENTRY_ENVIRONMENT",
            "ENVIRONMENT",
            &file.service.environment,
        ),
        (&mut file.sentry.release, "release", "SENTRY_RELEASE", "APP_VERSION", &file.service.version),
    ];
    for (slot, key, variable, common, of_service) in own {
        let path = format!("sentry.{key}");
        if let Some(value) = env.value(&path, variable, text) {
            *slot = Some(value);
        } else if slot.is_none() && of_service.is_none() && file.sentry.dsn.is_some() {
            *slot = env.value(&path, common, text);
        }
    }
}

/// OTLP-1 to OTLP-7.
fn otlp(otlp: &mut Otlp, env: &mut Environment<'_, '_>) {
    if let Some(protocol) = env.otlp("protocol", "PROTOCOL", name) {
        otlp.protocol = protocol;
    }
    // A key of its own it has not: the scheme says it.
    let insecure = env.otlp("insecure", "INSECURE", truth).unwrap_or(false);
    let protocol = otlp.protocol;
    let endpoint = |text: &str| match protocol {
        OtlpProtocol::Grpc if !text.contains("://") => {
            let scheme = if insecure { "http" } else { "https" };
            leaf::<Endpoint>(&format!("{scheme}://{text}"))
        }
        _ => leaf::<Endpoint>(text),
    };
    if let Some(endpoint) = env.value("export.otlp.endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT", endpoint) {
        otlp.endpoint = Some(endpoint);
        otlp.traces_endpoint = None;
    }
    let variable = "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT";
    if let Some(endpoint) = env.value("export.otlp.traces_endpoint", variable, endpoint) {
        otlp.traces_endpoint = Some(endpoint);
    }
    if let Some(headers) = env.otlp("headers", "HEADERS", headers) {
        let Map(files) = &mut otlp.headers_file;
        files.retain(|(name, _)| !headers.iter().any(|(other, _)| other == name));
        otlp.headers = Map(headers);
    }
    if let Some(compression) = env.otlp("compression", "COMPRESSION", name::<Compression>) {
        otlp.compression = compression;
    }
    if let Some(timeout) = env.otlp("timeout", "TIMEOUT", milliseconds) {
        otlp.timeout = timeout;
    }
    if let Some(path) = env.otlp("certificate", "CERTIFICATE", leaf) {
        otlp.certificate = Some(path);
    }
    if let Some(path) = env.otlp("client_certificate", "CLIENT_CERTIFICATE", leaf) {
        otlp.client_certificate = Some(At::elsewhere("", path));
    }
    if let Some(path) = env.otlp("client_key", "CLIENT_KEY", leaf) {
        otlp.client_key = Some(At::elsewhere("", path));
    }
}

/// `name=value,name=value`, values percent-encoded (OTLP-3). Says nothing of values: they are secrets.
fn headers(text: &str) -> Result<Vec<(HeaderName, Secret)>, String> {
    let mut headers = Vec::new();
    for (index, member) in text.split(',').enumerate().filter(|(_, member)| !member.trim().is_empty()) {
        let header = member.split_once('=').and_then(|(name, value)| {
            let name = HeaderName::parse(name.trim()).ok()?;
            let value = Secret::parse(&percent_decoded(value.trim())?).ok()?;
            Some((name, value))
        });
        headers.push(header.ok_or_else(|| {
            format!("member {} is not name=value with `,`, `;` and `%` percent-encoded", index + 1)
        })?);
    }
    Ok(headers)
}

/// ENV-6.
fn queue(otlp: &mut Otlp, env: &mut Environment<'_, '_>) {
    let queue = &mut otlp.queue;
    if let Some(delay) =
        env.value("export.otlp.queue.schedule_delay", "OTEL_BSP_SCHEDULE_DELAY", milliseconds)
    {
        queue.schedule_delay = delay;
    }
    if let Some(timeout) =
        env.value("export.otlp.queue.export_timeout", "OTEL_BSP_EXPORT_TIMEOUT", milliseconds)
    {
        queue.export_timeout = timeout;
    }
    if let Some(spans) = env.value("export.otlp.queue.max_spans", "OTEL_BSP_MAX_QUEUE_SIZE", leaf) {
        queue.max_spans = spans;
    }
    if let Some(spans) =
        env.value("export.otlp.queue.max_batch", "OTEL_BSP_MAX_EXPORT_BATCH_SIZE", leaf::<Count<_>>)
    {
        queue.max_batch = At::elsewhere("", spans);
    }
}

/// An exporter that `OTEL_TRACES_EXPORTER` can name (ENV-11).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Exporter {
    Otlp,
    Console,
    None,
}

/// ENV-1 and ENV-11: both say what is exported at all. Propagation stays as it is (PROP-5).
fn exporters(file: &mut File, env: &mut Environment<'_, '_>) {
    let exporter = |text: &str| match text.to_ascii_lowercase().as_str() {
        "otlp" => Ok(Exporter::Otlp),
        "console" => Ok(Exporter::Console),
        "none" => Ok(Exporter::None),
        _ => Err(format!("{} is not one of otlp, console, none", quote(text))),
    };
    let mut variable = "OTEL_TRACES_EXPORTER";
    let mut exporters = env.list(variable, exporter);
    if env.parsed("OTEL_SDK_DISABLED", truth) == Some(true) {
        variable = "OTEL_SDK_DISABLED";
        exporters = Some(vec![Exporter::None]);
    }
    let Some(exporters) = exporters else { return };
    let otlp = &mut file.export.otlp;
    match exporters.contains(&Exporter::Otlp) {
        false => (otlp.endpoint, otlp.traces_endpoint) = (None, None),
        true if otlp.endpoint.is_some() || otlp.traces_endpoint.is_some() => {}
        true => {
            let default = match otlp.protocol {
                OtlpProtocol::HttpProtobuf => "http://localhost:4318",
                OtlpProtocol::Grpc => "http://localhost:4317",
            };
            otlp.endpoint = Endpoint::parse(default).ok();
            env.gave("export.otlp.endpoint", variable);
        }
    }
    file.export.console = match exporters.contains(&Exporter::Console) {
        true => ConsoleMode::On,
        false => ConsoleMode::Off,
    };
    env.gave("export.console", variable);
}

#[cfg(test)]
mod tests {
    use super::super::check::tests::{load, minimal};
    use super::*;

    /// Loads a minimal file with these variables.
    fn with(variables: &[(&str, &str)]) -> super::super::Loaded {
        load(minimal(), variables).expect("variables never stop the program")
    }

    fn endpoint(variables: &[(&str, &str)]) -> Option<String> {
        with(variables).settings.startup.export.otlp.map(|otlp| otlp.endpoint.to_string())
    }

    #[test]
    fn a_generic_endpoint_gets_the_path_of_traces_and_one_for_traces_is_used_as_it_is() {
        let generic = |url| endpoint(&[("OTEL_EXPORTER_OTLP_ENDPOINT", url)]).unwrap();
        assert_eq!(generic("http://c:4318"), "http://c:4318/v1/traces");
        assert_eq!(generic("https://c/otlp/"), "https://c/otlp/v1/traces");
        assert_eq!(generic("https://c/otlp?k=v"), "https://c/otlp/v1/traces?k=v");
        let own = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:9/x");
        assert_eq!(endpoint(&[own, ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c")]).unwrap(), "http://t:9/x");
        assert_eq!(endpoint(&[("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://t:9")]).unwrap(), "http://t:9/");
    }

    #[test]
    fn a_grpc_endpoint_may_lack_its_scheme() {
        let grpc = |endpoint_text, insecure| {
            endpoint(&[
                ("OTEL_EXPORTER_OTLP_PROTOCOL", "gRPC"),
                ("OTEL_EXPORTER_OTLP_ENDPOINT", endpoint_text),
                ("OTEL_EXPORTER_OTLP_INSECURE", insecure),
            ])
            .unwrap()
        };
        assert_eq!(grpc("c:4317", ""), "https://c:4317/");
        assert_eq!(grpc("c:4317", "True"), "http://c:4317/");
        assert_eq!(grpc("https://c:4317", "true"), "https://c:4317/");
        let http = with(&[("OTEL_EXPORTER_OTLP_ENDPOINT", "c:4318")]);
        assert!(http.settings.startup.export.otlp.is_none());
        assert!(http.warnings.iter().any(|warning| warning.contains("http://c:4318")), "{:?}", http.warnings);
    }

    #[test]
    fn naming_the_otlp_exporter_turns_it_on_with_the_default_endpoint_of_its_protocol() {
        let otlp = ("OTEL_TRACES_EXPORTER", "otlp");
        assert_eq!(endpoint(&[otlp]).unwrap(), "http://localhost:4318/v1/traces");
        let grpc = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "grpc");
        assert_eq!(endpoint(&[otlp, grpc]).unwrap(), "http://localhost:4317/");
    }

    #[test]
    fn none_and_disabled_stop_export_and_leave_propagation() {
        let endpoint = ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4318");
        for off in [("OTEL_TRACES_EXPORTER", "none"), ("OTEL_SDK_DISABLED", "TRUE")] {
            let loaded = with(&[endpoint, off]);
            let export = loaded.settings.startup.export;
            assert!(export.otlp.is_none() && export.console.is_none(), "{off:?}");
            assert!(loaded.effective.contains("[tracecontext, baggage]"), "{}", loaded.effective);
        }
        assert!(with(&[endpoint, ("OTEL_SDK_DISABLED", "1")]).settings.startup.export.otlp.is_some());
    }

    #[test]
    fn headers_are_decoded_and_never_shown() {
        let loaded = with(&[
            ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c"),
            ("OTEL_EXPORTER_OTLP_HEADERS", "x-key=s%3Dcret, Authorization=Basic%20abc="),
        ]);
        let headers = loaded.settings.startup.export.otlp.unwrap().headers;
        let texts: Vec<_> =
            headers.iter().map(|(name, value)| (name.as_str(), value.to_str().unwrap())).collect();
        assert_eq!(texts, [("x-key", "s=cret"), ("authorization", "Basic abc=")]);
        assert!(!loaded.effective.contains("cret"), "{}", loaded.effective);
        let broken = with(&[("OTEL_EXPORTER_OTLP_HEADERS", "x-key=good,hunter2")]);
        assert!(broken.warnings.iter().any(|warning| warning.contains("HEADERS")));
        assert!(!broken.warnings.iter().any(|warning| warning.contains("hunter2")), "{:?}", broken.warnings);
    }

    #[test]
    fn resource_attributes_are_all_or_nothing_and_yield_to_the_service_name() {
        let variables = ("OTEL_RESOURCE_ATTRIBUTES", "service.name=a,service.version=1%2C2,team=risk");
        let service = with(&[variables]).settings.startup.service;
        assert_eq!(service.name, "a");
        let attributes: Vec<_> =
            service.attributes.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(attributes, [("service.version", "1,2"), ("team", "risk")]);
        assert_eq!(with(&[variables, ("OTEL_SERVICE_NAME", "b")]).settings.startup.service.name, "b");
        for broken in ["service.name=a,team", "service.name=a,b=%zz", "service.name=a,=b", "a=%ff"] {
            let loaded = with(&[("OTEL_RESOURCE_ATTRIBUTES", broken)]);
            assert!(!loaded.settings.startup.service.named, "{broken}");
            assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
        }
    }

    #[test]
    fn samplers_are_named_in_any_case_and_a_bad_share_is_ignored() {
        let sampler = |name, share| {
            let loaded = with(&[("OTEL_TRACES_SAMPLER", name), ("OTEL_TRACES_SAMPLER_ARG", share)]);
            (loaded.settings.live.sampler, loaded.warnings.len())
        };
        let ratio = |share| crate::exchange::Root::Ratio(share);
        let parent = |root| crate::exchange::Sampler { parent_based: true, root };
        assert_eq!(sampler("ParentBased_TraceIdRatio", "0.25"), (parent(ratio(0.25)), 1));
        assert_eq!(sampler("parentbased_traceidratio", "a lot"), (parent(ratio(1.0)), 2));
        assert_eq!(sampler("", "0.25"), (crate::exchange::Sampler::default(), 1));
        assert_eq!(sampler("jaeger_remote", ""), (crate::exchange::Sampler::default(), 2));
    }

    #[test]
    fn propagators_are_taken_once_and_those_we_lack_are_warned_of() {
        let formats = |text| {
            let loaded = with(&[("OTEL_PROPAGATORS", text)]);
            let line =
                loaded.effective.lines().find(|line| line.contains("formats:")).unwrap().trim().to_owned();
            (line, loaded.warnings.len())
        };
        assert_eq!(formats("baggage, baggage,ot"), ("formats: [baggage]".to_owned(), 2));
        assert_eq!(formats("XRay,sentry-trace"), ("formats: [xray, sentry-trace]".to_owned(), 1));
        assert_eq!(formats("none"), ("formats: [none]".to_owned(), 1));
        assert_eq!(formats("ottrace"), ("formats: [tracecontext, baggage]".to_owned(), 2));
    }

    #[test]
    fn queue_variables_are_milliseconds_and_counts() {
        let queue = |variables: &[(&str, &str)]| {
            let on = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c")];
            let loaded = with(&[&on, variables].concat());
            (loaded.settings.startup.export.otlp.unwrap().queue, loaded.warnings)
        };
        let (set, _) = queue(&[
            ("OTEL_BSP_SCHEDULE_DELAY", "100"),
            ("OTEL_BSP_EXPORT_TIMEOUT", "0"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "50"),
        ]);
        assert_eq!(set.schedule_delay, Duration::from_millis(100));
        assert_eq!(set.export_timeout, Duration::ZERO);
        assert_eq!((set.max_spans, set.max_batch), (50, 50), "a batch is no larger than the queue");
        let (unset, warnings) = queue(&[
            ("OTEL_BSP_SCHEDULE_DELAY", "-1"),
            ("OTEL_BSP_MAX_QUEUE_SIZE", "0"),
            ("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", "many"),
        ]);
        assert_eq!(unset, queue(&[]).0);
        assert_eq!(warnings.len(), 4, "{warnings:?}");
    }

    #[test]
    fn a_client_certificate_without_its_key_is_ignored() {
        let on = ("OTEL_EXPORTER_OTLP_ENDPOINT", "https://c");
        let certificate = ("OTEL_EXPORTER_OTLP_CLIENT_CERTIFICATE", "/c.pem");
        let tls = |loaded: super::super::Loaded| loaded.settings.startup.export.otlp.unwrap().tls;
        assert_eq!(tls(with(&[on, certificate])).client, None);
        let key = ("OTEL_EXPORTER_OTLP_TRACES_CLIENT_KEY", "/c.key");
        assert_eq!(tls(with(&[on, certificate, key])).client, Some(("/c.pem".into(), "/c.key".into())));
    }

    #[test]
    fn known_methods_are_replaced_as_a_whole() {
        let loaded = with(&[("OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS", "GET,PURGE,G T")]);
        assert_eq!(loaded.settings.live.known_methods, ["GET", "PURGE"]);
        assert_eq!(loaded.warnings.len(), 2, "{:?}", loaded.warnings);
    }
}
