//! From a checked file to [`Settings`]: a translation that cannot fail.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::Duration;

use super::file::{self, File};
use super::leaf::{Propagator, Redact, SamplerName};
use super::sentry;
use super::value::Map;
use super::{
    AccessLog, AdminToken, Export, Inbound, Limits, Live, Mapped, Outbound, Pair, Service, Settings, Startup,
    Timeouts, Tls, ToTls,
};
use crate::exchange::{
    Destination, Destinations, LineageRules, QueryRedaction, Root, Routes, RpcMethods, Sampler,
};
use crate::propagation::{CorrelationRules, Format, Propagation};
use crate::wire::egress::EgressRules;
use crate::wire::forwarded::tell::Telling;

/// What the program runs on. All but `file` was made from it when it was checked.
pub(super) fn settings(
    file: File,
    routes: Routes,
    templates: Routes,
    export: Export,
    admin_token: Option<AdminToken>,
) -> Settings {
    let organization = sentry::organization(&file);
    let keeping = sentry::keeping(&file);
    let sentry = sentry::sentry(&file, export.otlp.is_some());
    let propagation = |direction| propagation(&file.propagation, direction).within(organization.clone());
    let inwards = propagation(&file.propagation.inbound);
    let outwards = propagation(&file.propagation.outbound);
    let destinations = destinations(&file.outbound, &outwards, &organization, templates);
    let trust = file.propagation.trust.iter().map(|rule| (rule.from.clone(), rule.policy)).collect();
    let startup_outbound = outbound(&file.outbound);
    let correlation = file.propagation.correlation;
    let correlation = correlation
        .enabled
        .then_some(CorrelationRules { headers: correlation.headers, generate: correlation.generate });
    let live = Live {
        routes,
        keep_failures: file.exclude.keep_failures,
        propagation: inwards,
        trust,
        egress: Arc::new(EgressRules {
            allow: file.outbound.allow,
            deny: file.outbound.deny,
            connect_ports: file.outbound.connect_ports,
            clients: file.outbound.clients,
        }),
        destinations,
        intercept: file.outbound.intercept.hosts,
        process_budget: file.lineage.process_budget,
        way_out: startup_outbound.is_some(),
        lineage: lineage(file.lineage),
        correlation,
        server_timing: file.propagation.server_timing,
        traceresponse: file.propagation.traceresponse,
        via: file.propagation.via,
        date: file.propagation.date,
        sampler: sampler(&file.sampling),
        query: match file.url_query.redact {
            Redact::All => QueryRedaction::All { allow: file.url_query.allow.into_iter().collect() },
            Redact::Known => QueryRedaction::Known,
            Redact::Off => QueryRedaction::Off,
        },
        trusted_proxies: file.client.trusted_proxies,
        trusted_headers: file.client.trusted_headers,
        telling: Telling {
            x_forwarded: file.client.headers.x_forwarded,
            forwarded: file.client.headers.forwarded,
        },
        known_methods: file.known_methods.into_iter().map(|method| method.0).collect(),
        rpc_methods: RpcMethods::new(file.grpc.methods.iter().map(|method| &*method.0)),
        keeping,
        half_close: file.client.half_close,
        timeouts: timeouts(&file.timeouts),
        limits: limits(&file.limits),
    };
    let inbound = file.inbound.into_iter();
    let file::AccessLog { enabled, format, path } = file.access_log;
    let startup = Startup {
        service: service(file.service),
        inbound: inbound.map(self::inbound).collect(),
        outbound: startup_outbound,
        admin: file.admin.enabled.then_some(file.admin.listen.value),
        admin_token,
        ready_needs_upstream: file.admin.ready_needs_upstream,
        workers: file.runtime.workers.0,
        drain: file.runtime.drain,
        export,
        access_log: enabled.then_some(AccessLog { format, path }),
        sentry,
        log: file.log.0,
    };
    Settings { startup, live }
}

fn timeouts(timeouts: &file::Timeouts) -> Timeouts {
    let bounded = |bound: Duration| Some(bound).filter(|bound| !bound.is_zero());
    Timeouts {
        detection: timeouts.detection.0,
        tls_handshake: timeouts.tls_handshake.0,
        request_header: timeouts.request_header.0,
        request_body: timeouts.request_body.0,
        idle: timeouts.idle.0,
        connect: timeouts.connect.0,
        response_header: timeouts.response_header.0,
        response_body: timeouts.response_body.0,
        response_send: timeouts.response_send.0,
        stream: bounded(timeouts.stream),
        tunnel: bounded(timeouts.tunnel),
        upstream_idle: timeouts.upstream_idle.0,
    }
}

fn limits(limits: &file::Limits) -> Limits {
    let bounded = |bound: usize| NonZeroUsize::new(bound);
    Limits {
        connections: bounded(limits.connections.0),
        requests: bounded(limits.requests.0),
        header_bytes: limits.header_bytes.value.0,
        headers: limits.headers.0,
        target_bytes: limits.target_bytes.value.0,
        http2_streams: limits.http2_streams.0,
        http2_resets: bounded(limits.http2_resets.0),
        upstream_connections: bounded(limits.upstream_connections.0),
    }
}

fn inbound(one: file::Inbound) -> Inbound {
    let file::Inbound { listen, to, trust, tls, proxy_protocol, to_tls } = one;
    let tls = tls.map(|tls| Tls {
        certificates: tls
            .certificates
            .value
            .into_iter()
            .map(|pair| Pair { certificate: pair.certificate, key: pair.key })
            .collect(),
        min_version: tls.min_version,
        client_auth: tls.client_auth.value,
        client_ca: tls.client_ca.map(|at| at.value),
    });
    let to_tls = to_tls.map(|file::ToTls { ca, client_certificate, client_key, server_name }| ToTls {
        ca,
        client: client_certificate
            .zip(client_key)
            .map(|(certificate, key)| Pair { certificate: certificate.value, key: key.value }),
        server_name: server_name.map(|name| name.0),
    });
    Inbound {
        listen: listen.value,
        to: to.value,
        trust,
        tls,
        proxy_protocol: proxy_protocol.map(|one| one.from.value).unwrap_or_default(),
        to_tls: to_tls.unwrap_or_default(),
    }
}

fn propagation(all: &file::Propagation, direction: &file::Directed) -> Propagation {
    let or_all = |given: &Option<Vec<_>>| formats(given.as_ref().unwrap_or(&all.formats));
    Propagation::new(or_all(&direction.extract), or_all(&direction.inject))
}

fn formats(given: &[Propagator]) -> Vec<Format> {
    given.iter().filter_map(|one| one.0).collect()
}

fn outbound(outbound: &file::Outbound) -> Option<Outbound> {
    let file::Outbound { proxy, mapped, transparent, certificate, intercept, .. } = outbound;
    if proxy.is_none() && mapped.is_empty() && transparent.is_none() {
        return None;
    }
    let authority = match (&intercept.ca_certificate, &intercept.ca_key) {
        (Some(certificate), Some(key)) if !intercept.hosts.is_empty() => {
            Some((certificate.value.clone(), key.value.clone()))
        }
        _ => None,
    };
    let mapped = mapped.iter().map(|mapped| Mapped {
        listen: mapped.listen.value,
        to: mapped.to.value.clone(),
        name: mapped.name.as_deref().map(Into::into),
    });
    Some(Outbound {
        proxy: proxy.as_ref().map(|at| at.value),
        mapped: mapped.collect(),
        transparent: transparent.as_ref().map(|at| at.value),
        certificate: certificate.clone(),
        authority,
    })
}

fn destinations(
    outbound: &file::Outbound,
    propagation: &Propagation,
    organization: &Option<Arc<str>>,
    templates: Routes,
) -> Destinations {
    let listed = outbound.destinations.iter().map(|one| {
        let or = |given: &Option<Vec<_>>, all: &[Format]| given.as_deref().map_or(all.to_vec(), formats);
        let propagation = Propagation::new(
            or(&one.extract, propagation.extracted()),
            or(&one.inject, propagation.injected()),
        )
        .within(organization.clone());
        let name = one.name.as_deref().map(Into::into);
        let destination = Destination { name, propagation, strip: one.strip, traced: one.trace };
        (one.host.clone(), Arc::new(destination))
    });
    let other = Destination { name: None, propagation: propagation.clone(), strip: false, traced: true };
    Destinations { listed: listed.collect(), other: Arc::new(other), templates }
}

fn lineage(lineage: file::Lineage) -> LineageRules {
    LineageRules {
        methods: lineage.methods,
        identity_headers: lineage.identity_headers,
        token_headers: lineage.token_headers,
        tail: lineage.tail,
        background_window: lineage.background_window,
        guess_after: lineage.guess_after,
        json_fields: lineage.json_fields,
    }
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
