//! What works, but hardly as meant.

use super::file::{self, File};
use super::leaf::{Leaf, Redact, SamplerName};
use super::origin::Origins;
use super::problem::Place;
use super::{OtlpProtocol, UpstreamProtocol};

/// Warnings of one load, as they are gathered.
pub(super) struct Warnings<'a> {
    /// Name of the file, where there is one.
    pub file: Option<&'a str>,
    pub texts: Vec<(String, Option<Place>)>,
}

impl Warnings<'_> {
    /// Notes one; `place` is where the value is written, where that is in the file.
    pub fn add(&mut self, place: Option<Place>, text: String) {
        self.texts.push((text, place));
    }

    /// One line each, with the place at its end.
    pub fn report(self) -> Vec<String> {
        let name = self.file.unwrap_or_default();
        let line = |(text, place): (String, Option<Place>)| match place {
            Some(Place { line, column, .. }) => format!("{text} ({name}:{line}:{column})"),
            None => text,
        };
        self.texts.into_iter().map(line).collect()
    }
}

/// What works in `file`, but hardly as meant.
pub(super) fn warn(file: &File, origins: &Origins, warnings: &mut Warnings<'_>) {
    let mut warn = |path: &str, text: String| warnings.add(origins.place(path), text);
    let file::Outbound { proxy, mapped, transparent, clients, .. } = &file.outbound;
    let listens = proxy.is_some() || !mapped.is_empty() || transparent.is_some();
    if let Some(all) = clients.iter().find(|net| net.prefix_len() == 0).filter(|_| listens) {
        warn(
            "outbound.clients",
            format!(
                "outbound.clients has {all}: anybody who reaches the listener can use it as a relay to wherever outbound.allow \
             and outbound.deny let them"
            ),
        );
    }
    if file.service.name.is_none() {
        warn("service.name",
            "the service has no name, so its spans say unknown_service: give --service, OTEL_SERVICE_NAME or \
             service.name in the file"
                .to_owned(),
        );
    }
    for (index, inbound) in file.inbound.iter().enumerate() {
        if inbound.to_tls.is_some() && inbound.to.value.protocol != UpstreamProtocol::Https {
            let text = format!(
                "inbound[{index}].to_tls is not read where the service is spoken to without TLS: write https:// in `to`"
            );
            warn(&format!("inbound[{index}].to"), text);
        }
    }
    let sampler = file.sampling.sampler;
    if !matches!(sampler, SamplerName::Ratio | SamplerName::ParentRatio) && file.sampling.ratio.0 != 1.0 {
        warn(
            "sampling.ratio",
            format!(
                "sampling.ratio is not read by the sampler {}: write parentbased_traceidratio or traceidratio",
                sampler.show()
            ),
        );
    }
    let file::UrlQuery { redact, allow } = &file.url_query;
    if *redact != Redact::All && !allow.is_empty() {
        warn(
            "url_query.allow",
            format!(
                "url_query.allow is not read where url_query.redact is {}: write redact: all",
                redact.show()
            ),
        );
    }
    let otlp = &file.export.otlp;
    if let (Some(endpoint), None) = (&otlp.endpoint, &otlp.traces_endpoint)
        && otlp.protocol == OtlpProtocol::HttpProtobuf
        && endpoint.0.path().trim_end_matches('/').ends_with("/v1/traces")
    {
        warn(
            "export.otlp.endpoint",
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
        let key = if otlp.traces_endpoint.is_some() { "traces_endpoint" } else { "endpoint" };
        warn(
            &format!("export.otlp.{key}"),
            format!(
                "the OTLP endpoint's port {port} is usually spoken to with {usual}, but the protocol is {}",
                otlp.protocol.show()
            ),
        );
    }
}
