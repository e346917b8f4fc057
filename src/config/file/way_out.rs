//! The keys of the way out, and of how the causes of calls are found.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use crate::config::BaseUrl;
use crate::config::leaf::Propagator;
use crate::config::reader::{Given, Reader};
use crate::config::value::{At, Field, Keys, Kind, Section, Value};
use crate::config::web::Template;
use crate::config::write::Written;
use crate::exchange::Method;
use crate::wire::egress::{PortRange, Target};

section! {
    /// The way out. tracecar passes calls on for the service beside it, and for nobody else.
    Outbound {
        /// Listens as a forward proxy, for HTTP_PROXY and HTTPS_PROXY (`--proxy`).
        proxy: Option<At<SocketAddr>> = "null" like "127.0.0.1:8081"
            applies "a new listener opens, an old one takes no more connections and drains",
        /// Listeners that stand for one destination each, for services that take a base URL.
        mapped: Vec<Mapped> = "[]"
            applies "a new listener opens, an old one takes no more connections and drains",
        /// Listens for connections that iptables or nftables redirect here; see docker/redirect.sh.
        transparent: Option<At<SocketAddr>> = "null" like "127.0.0.1:15001"
            applies "a new listener opens, an old one takes no more connections and drains",
        /// Networks that may call through here. Only this host, for a proxy that anybody may use is an open relay.
        clients: Vec<IpNet> = "[127.0.0.0/8, \"::1\"]",
        /// Destinations that may be called, if not any: names, *.names, addresses, networks, each with or without :port.
        allow: Vec<Target> = "[]" like "[api.example.com, \"*.internal\", 10.0.0.0/8]",
        /// Destinations that may not be called, whatever `allow` says. Link-local and metadata addresses need not be
        /// listed: they must be allowed.
        deny: Vec<Target> = "[]" like "[\"*:25\"]",
        /// Ports that CONNECT may ask for: those of the web, and those of services.
        connect_ports: Vec<PortRange> = "[80, 443, 1024-65535]",
        /// What is special about some destinations; the first that matches counts.
        destinations: Vec<Destination> = "[]",
        /// Path templates that name spans of calls (`url.template`).
        url_templates: Vec<At<Template>> = "[]" like "[\"/models/{model_id}\"]",
        /// PEM file with certificates that https:// destinations may be verified with, beside the system's.
        certificate: Option<PathBuf> = "null" like "/etc/tracecar/ca.pem" applies "for new connections",
        /// Looks into TLS. Off: see the guide for what it means before you switch it on.
        intercept: Intercept = "{}" applies "for new connections",
    }
}

section! {
    /// One listener that stands for one destination.
    Mapped {
        /// Address and port to listen on.
        listen: At<SocketAddr> = required like "127.0.0.1:8031",
        /// The destination, with or without a path that goes before each request's: http://, https:// or h2c://.
        to: At<BaseUrl> = required like "https://preprocessing.internal/base" applies "from the next call on",
        /// What people call it: `peer.service` and `service.peer.name` of its spans.
        name: Option<String> = "null" like "preprocessing" applies "from the next call on",
    }
}

section! {
    /// What is special about a destination.
    Destination {
        /// A name, *.name, address or network, with or without :port.
        host: Target = required like "api.example.com",
        /// What people call it: `peer.service` and `service.peer.name` of its spans.
        name: Option<String> = "null" like "payments",
        /// Formats that are read of the service's calls to it, in place of `propagation.outbound.extract`.
        extract: Option<Vec<Propagator>> = "null" like "[b3]",
        /// Formats that are written for it, in place of `propagation.outbound.inject`; none writes nothing.
        inject: Option<Vec<Propagator>> = "null" like "[none]",
        /// Removes all trace context and baggage, the service's own too: a third party has no business with either.
        strip: bool = "false",
        /// Whether calls to it leave spans.
        trace: bool = "true",
    }
}

section! {
    /// Looks into TLS, for clients that trust the local CA that `tracecar ca` makes. Whoever holds its key can read all
    /// that those clients say.
    Intercept {
        /// Names whose TLS is looked into; empty is off. What a client refuses is passed on unseen.
        hosts: Vec<Target> = "[]" like "[api.example.com, \"*.internal\"]",
        /// PEM file with the certificate of the local CA.
        ca_certificate: Option<At<PathBuf>> = "null" like "/etc/tracecar/local-ca.pem",
        /// PEM file with its key.
        ca_key: Option<At<PathBuf>> = "null" like "/etc/tracecar/local-ca.key",
    }
}

section! {
    /// How the request that caused a call is found. The guide says what each method can know.
    Lineage {
        /// Methods in use. What a service forwards itself (header) is always believed.
        methods: Vec<Method> = "[correlation, token, process, sole]",
        /// Headers whose values name a request, beside those of `propagation.correlation`.
        identity_headers: Vec<HeaderName> = "[]" like "[x-tenant-request]",
        /// Headers whose values may go from a request into the calls that it causes. Kept as keyed hashes only.
        token_headers: Vec<HeaderName> = "[authorization, cookie]",
        /// Fields of JSON bodies whose values may do so, too. None, for it means to look into bodies, and to hold back
        /// the first part of a call's.
        json_fields: Vec<String> = "[]" like "[order_id, request_id]",
        /// How long after its response a request may still cause calls.
        tail: Duration = "5s",
        /// For how long after a call that no request caused calls to the same destination are not given to the only
        /// request that is open.
        background_window: Duration = "60s",
        /// How long the service is watched with no request open, from the start on, before the only request that is open
        /// gets a call while nothing else is known.
        guess_after: Duration = "2s",
        /// How long one look into the process table may take; 0s never looks.
        process_budget: Duration = "5ms",
    }
}
