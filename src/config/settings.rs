//! From a checked file to [`Settings`]: a translation that cannot fail.

use std::collections::BTreeMap;

use super::file::{self, File};
use super::leaf::{Redact, SamplerName};
use super::value::Map;
use super::{AccessLog, Export, Inbound, Live, Service, Settings, Startup, Timeouts};
use crate::exchange::{QueryRedaction, Root, Routes, Sampler};
use crate::propagation::{CorrelationRules, Propagation};

/// What the program runs on. `routes` and `export` were made from the file when they were checked.
pub(super) fn settings(file: File, routes: Routes, export: Export) -> Settings {
    let timeouts = Timeouts {
        detection: file.timeouts.detection.0,
        request_header: file.timeouts.request_header.0,
        idle: file.timeouts.idle.0,
        connect: file.timeouts.connect.0,
        response_header: file.timeouts.response_header.0,
        upstream_idle: file.timeouts.upstream_idle.0,
    };
    let correlation = file.propagation.correlation;
    let correlation = correlation
        .enabled
        .then_some(CorrelationRules { headers: correlation.headers, generate: correlation.generate });
    let live = Live {
        routes,
        keep_failures: file.exclude.keep_failures,
        propagation: Propagation::new(file.propagation.formats),
        correlation,
        server_timing: file.propagation.server_timing,
        traceresponse: file.propagation.traceresponse,
        via: file.propagation.via,
        sampler: sampler(&file.sampling),
        query: match file.url_query.redact {
            Redact::All => QueryRedaction::All { allow: file.url_query.allow.into_iter().collect() },
            Redact::Known => QueryRedaction::Known,
            Redact::Off => QueryRedaction::Off,
        },
        trusted_proxies: file.client.trusted_proxies,
        known_methods: file.known_methods.into_iter().map(|method| method.0).collect(),
        half_close: file.client.half_close,
        timeouts,
    };
    let inbound = file.inbound.into_iter();
    let file::AccessLog { enabled, format, path } = file.access_log;
    let startup = Startup {
        service: service(file.service),
        inbound: inbound.map(|one| Inbound { listen: one.listen.value, to: one.to.value }).collect(),
        admin: file.admin.enabled.then_some(file.admin.listen.value),
        ready_needs_upstream: file.admin.ready_needs_upstream,
        workers: file.runtime.workers.0,
        drain: file.runtime.drain,
        export,
        access_log: enabled.then_some(AccessLog { format, path }),
        log: file.log.0,
    };
    Settings { startup, live }
}

fn sampler(sampling: &file::Sampling) -> Sampler {
    let ratio = Root::Ratio(sampling.ratio.0);
    let (parent_based, root) = match sampling.sampler {
        SamplerName::AlwaysOn => (false, Root::AlwaysOn),
        SamplerName::AlwaysOff => (false, Root::AlwaysOff),
        SamplerName::Ratio => (false, ratio),
        SamplerName::ParentAlwaysOn => (true, Root::AlwaysOn),
        SamplerName::ParentAlwaysOff => (true, Root::AlwaysOff),
        SamplerName::ParentRatio => (true, ratio),
    };
    Sampler { parent_based, root }
}

fn service(service: file::Service) -> Service {
    let Map(attributes) = service.attributes;
    let mut attributes: BTreeMap<String, String> =
        attributes.into_iter().map(|(name, value)| (name.0, value)).collect();
    let own = [
        ("service.namespace", service.namespace),
        ("service.version", service.version),
        ("deployment.environment.name", service.environment),
    ];
    for (name, value) in own {
        attributes.extend(value.map(|value| (name.to_owned(), value)));
    }
    Service {
        named: service.name.is_some(),
        name: service.name.unwrap_or_else(|| "unknown_service".to_owned()),
        attributes: attributes.into_iter().collect(),
    }
}
