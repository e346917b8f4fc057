//! What the user writes, and what the program uses.
//!
//! * `file` is the file as written: every key with its default, unit and one line of why. `value`, `leaf`
//!   and `web` are what keys hold, `reader` walks a `tree` of YAML by them, and `write` is the way back.
//! * [`load`] turns text, environment (`env`) and flags into [`Settings`], and reports all [`Problems`] at once, each
//!   with its place and what to write instead.
//!   Secrets come from `files`, too; `origin` remembers where each value came from, `warnings` has what hardly works.
//! * `changes` compares two versions in the words of the file, and `schema` describes the file to editors.
//! * [`Settings`] is what the rest of the program sees: parsed, complete, and split into what is fixed at start
//!   ([`Startup`]) and what each request reads once ([`Live`]).
//!
//! Nobody but this module knows YAML or environment variables.

mod changes;
mod check;
mod env;
mod excerpt;
mod file;
mod files;
mod inbound;
mod leaf;
mod origin;
mod problem;
mod reader;
mod schema;
mod sentry;
mod settings;
mod substitute;
mod tree;
mod value;
mod warnings;
mod web;
mod write;

use std::net::{IpAddr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::sync::{Arc, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;
use ipnet::IpNet;

pub use self::changes::{Change, changes};
pub use self::check::{Flags, Loaded, Sources, load};
pub use self::file::reference;
pub use self::files::{AdminToken, read_bytes, read_file, read_once};
pub use self::inbound::{ClientAuth, Inbound, Pair, Tls, TlsVersion, ToTls};
pub use self::leaf::parse_duration;
pub use self::problem::Problems;
pub use self::schema::schema;
use crate::exchange::{Destinations, Keeping, LineageRules, QueryRedaction, Routes, RpcMethods, Sampler};
use crate::propagation::{CorrelationRules, Propagation};
use crate::wire::egress::{EgressRules, Target};
use crate::wire::forwarded::Family;
use crate::wire::forwarded::tell::Telling;

/// Everything the program needs to run.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Fixed when the program starts.
    pub startup: Startup,
    /// Read once per request.
    pub live: Live,
}

/// What is fixed when the program starts.
#[derive(Clone, Debug)]
pub struct Startup {
    /// Who the spans say they come from.
    pub service: Service,
    /// Listeners for requests to the service; at least one.
    pub inbound: Vec<Inbound>,
    /// Listeners for the service's own calls; `None` where there are none.
    pub outbound: Option<Outbound>,
    /// Where the admin pages listen; `None` switches them off.
    pub admin: Option<SocketAddr>,
    /// What `/config` and `POST /-/reload` ask for; `None` where nobody gave one.
    pub admin_token: Option<AdminToken>,
    /// Whether `/readyz` asks for the service's port to accept connections.
    pub ready_needs_upstream: bool,
    /// Data-path threads, at least 1.
    pub workers: usize,
    /// How long requests in flight may take to finish after SIGTERM.
    pub drain: Duration,
    /// Where spans go.
    pub export: Export,
    /// The access log, where it is on.
    pub access_log: Option<AccessLog>,
    /// Sentry, where it is on.
    pub sentry: Option<Sentry>,
    /// Level of our own log, as `tracing` writes it: `info`, `warn,tracecar::net=debug`.
    pub log: String,
}

/// Where failures are told of, beside `/errors`.
#[derive(Clone, Debug, PartialEq)]
pub struct Sentry {
    /// `{scheme}://{public key}[:{secret}]@{host}{path}/{project}` (SEN-1); its parts are there, checked.
    pub dsn: http::Uri,
    /// `environment` of events; `production` where nobody says (SEN-21).
    pub environment: String,
    /// `release` of events.
    pub release: Option<String>,
    /// Share of failures that become events, from 0 to 1.
    pub sample_rate: f64,
    /// Share of traces whose requests become transactions, from 0 to 1; 0 sends none.
    pub traces_sample_rate: f64,
    /// Whether a failed call that no request is known to have made is an event.
    pub calls: bool,
    /// Whether a route that got slow is an event.
    pub slow: bool,
    /// Events per minute, of one group and of all; what is above is counted and not sent.
    pub max_per_group: usize,
    /// See `max_per_group`.
    pub max_events: usize,
    /// PEM file with the certificates to trust in place of the system's.
    pub certificate: Option<PathBuf>,
}

/// Resource attributes of everything that is exported.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// `service.name`; `unknown_service` where nobody gave one (RES-1).
    pub name: String,
    /// Whether `name` was given by somebody.
    pub named: bool,
    /// `service.version`, `service.namespace`, `deployment.environment.name` and any others, in order of their keys.
    pub attributes: Vec<(String, String)>,
}

/// The way out of the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Outbound {
    /// Listens as a forward proxy.
    pub proxy: Option<SocketAddr>,
    /// Listeners that stand for one destination each.
    pub mapped: Vec<Mapped>,
    /// Listens for redirected connections.
    pub transparent: Option<SocketAddr>,
    /// PEM file with certificates that destinations may be verified with, beside the system's.
    pub certificate: Option<PathBuf>,
    /// PEM files with certificate and key of the local CA, where TLS is looked into.
    pub authority: Option<(PathBuf, PathBuf)>,
}

/// A listener that stands for one destination.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mapped {
    /// Address to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The destination.
    pub to: BaseUrl,
    /// What people call it.
    pub name: Option<Arc<str>>,
}

/// A destination, and what goes before the path of each request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BaseUrl {
    /// Where it is.
    pub to: Upstream,
    /// Begins with a slash and does not end with one; empty where there is none.
    pub path: String,
}

impl std::fmt::Display for BaseUrl {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}{}", self.to, self.path)
    }
}

/// What the trace context of a caller is worth (CTX-14).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Trust {
    /// Its trace goes on, and its decision to sample is followed.
    #[default]
    Continue,
    /// Its trace goes on, and we decide which to sample: a stranger cannot run up the bill.
    Sample,
    /// A new trace begins, with a link to the caller's.
    Restart,
}

/// Where a service listens.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Upstream {
    /// How to speak to it.
    pub protocol: UpstreamProtocol,
    /// Host name or address literal, without brackets.
    pub host: String,
    /// Port.
    pub port: u16,
    /// Where to connect instead of resolving `host`, which stays the name that a certificate has to have.
    pub address: Option<IpAddr>,
}

impl std::fmt::Display for Upstream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

/// The protocol that a service is spoken to with.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum UpstreamProtocol {
    /// HTTP/1.1 without TLS (`http://`).
    Http1,
    /// HTTP/2 without TLS, by prior knowledge (`h2c://`).
    H2c,
    /// HTTP/2 or HTTP/1.1 with TLS, whichever the service chooses (`https://`).
    Https,
}

/// What each request reads. A request sees one version of it, from first byte to last.
#[derive(Clone, Debug)]
pub struct Live {
    /// Path templates and exclusion rules.
    pub routes: Routes,
    /// Whether an excluded request that fails is recorded after all.
    pub keep_failures: bool,
    /// Trace context formats, between callers and the service.
    pub propagation: Propagation,
    /// What callers' contexts are worth, by network; the first match counts.
    pub trust: Vec<(Vec<IpNet>, Trust)>,
    /// Whom the service may call, and who may call through us.
    pub egress: Arc<EgressRules>,
    /// What is special about destinations.
    pub destinations: Destinations,
    /// Destinations whose TLS is looked into.
    pub intercept: Vec<Target>,
    /// Whether there is a way out: where no call is seen, no parent of one is searched for.
    pub way_out: bool,
    /// How the parents of calls are found.
    pub lineage: LineageRules,
    /// How long a look into the process table may take; zero never looks.
    pub process_budget: Duration,
    /// Correlation ids; `None` where they are off.
    pub correlation: Option<CorrelationRules>,
    /// Whether the trace id goes back in `Server-Timing` (CTX-40).
    pub server_timing: bool,
    /// Whether the trace context goes back in `traceresponse` (CTX-40).
    pub traceresponse: bool,
    /// Whether `Via` is added (HOP-8).
    pub via: bool,
    /// Whether responses get a `Date` that have none.
    pub date: bool,
    /// Which traces begin sampled.
    pub sampler: Sampler,
    /// What of a query may be seen.
    pub query: QueryRedaction,
    /// Proxies whose `Forwarded` and `X-Forwarded-*` are believed (SEM-53).
    pub trusted_proxies: Vec<IpNet>,
    /// Which of these headers are believed of them.
    pub trusted_headers: Vec<Family>,
    /// What the service is told of its callers.
    pub telling: Telling,
    /// Methods that spans name; others are `_OTHER` (SEM-90).
    pub known_methods: Vec<String>,
    /// Methods of gRPC that spans name; others are `_OTHER` (RPC-3).
    pub rpc_methods: RpcMethods,
    /// What is kept of exchanges that fail.
    pub keeping: Keeping,
    /// What a caller's closed sending side means.
    pub half_close: HalfClose,
    /// Bounds on every wait.
    pub timeouts: Timeouts,
    /// Bounds on how much there is at once.
    pub limits: Limits,
}

impl Live {
    /// What the context of a caller at `peer` is worth.
    pub fn trust_of(&self, peer: std::net::IpAddr) -> Trust {
        let peer = peer.to_canonical();
        let within = |(nets, _): &&(Vec<IpNet>, Trust)| nets.iter().any(|net| net.contains(&peer));
        self.trust.iter().find(within).map_or(Trust::Continue, |(_, trust)| *trust)
    }
}

/// What a caller means by closing its sending side while it waits for a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HalfClose {
    /// It has nothing more to send, and is served (RFC 9112 section 9.6).
    Serve,
    /// It has left: the request is cancelled.
    Cancel,
}

/// Bounds on every wait of the data path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// From accepting a connection until its protocol is known.
    pub detection: Duration,
    /// From accepting a connection to a listener with TLS until its handshake is complete.
    pub tls_handshake: Duration,
    /// From the first byte of a request head until its last.
    pub request_header: Duration,
    /// For the caller's next bytes of content.
    pub request_body: Duration,
    /// Between requests of one connection.
    pub idle: Duration,
    /// Resolving and connecting to the service.
    pub connect: Duration,
    /// From the sent request until the service's response head.
    pub response_header: Duration,
    /// For the service's next bytes of content.
    pub response_body: Duration,
    /// For the caller to take any more of a response.
    pub response_send: Duration,
    /// A whole request with its response, but for what it becomes when it is upgraded; `None` is no bound.
    pub stream: Option<Duration>,
    /// A tunnel on which both sides are quiet; `None` is no bound.
    pub tunnel: Option<Duration>,
    /// How long a connection to the service is kept without use.
    pub upstream_idle: Duration,
}

/// Bounds on how much there is at once; `None` is no bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Connections from callers, on each listener.
    pub connections: Option<NonZeroUsize>,
    /// Requests to the service that are under way; its calls are counted by themselves.
    pub requests: Option<NonZeroUsize>,
    /// Bytes of a request's head; they fit into 32 bits.
    pub header_bytes: usize,
    /// Lines of a request's header section.
    pub headers: usize,
    /// Bytes of a request's target, at most 65,534.
    pub target_bytes: usize,
    /// Requests that one HTTP/2 connection may have under way.
    pub http2_streams: usize,
    /// Requests that one HTTP/2 connection may cancel before they are answered, in 30 seconds.
    pub http2_resets: Option<NonZeroUsize>,
    /// Connections to one destination, for each worker.
    pub upstream_connections: Option<NonZeroUsize>,
}

/// Where spans go.
#[derive(Clone, Debug)]
pub struct Export {
    /// OTLP, where it is on.
    pub otlp: Option<Otlp>,
    /// The console, where it is on.
    pub console: Option<Console>,
}

/// How spans are written to standard output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Console {
    /// Trace trees for people, in colour or not.
    Tree {
        /// Whether to use colour.
        color: bool,
    },
    /// One JSON object per span.
    Json,
}

/// An OTLP receiver and the queue before it.
#[derive(Clone, Debug, PartialEq)]
pub struct Otlp {
    /// The full URL that traces are sent to: for gRPC its authority only matters (OTLP-1, OTLP-10).
    pub endpoint: http::Uri,
    /// gRPC or HTTP/protobuf.
    pub protocol: OtlpProtocol,
    /// Headers (metadata for gRPC) sent along.
    pub headers: Vec<(http::HeaderName, http::HeaderValue)>,
    /// Whether requests are compressed with gzip.
    pub gzip: bool,
    /// Bound on one attempt to send a batch; zero means none. Unlike OTLP-5 has it, a batch whose attempts fail for
    /// the moment is tried for longer: a collector that restarts should cost no spans.
    pub timeout: Duration,
    /// TLS files, used where the endpoint is `https`.
    pub tls: OtlpTls,
    /// `OTEL_BSP_*` (ENV-6) and our bound in bytes.
    pub queue: Queue,
}

/// OTLP's two binary protocols (OTLP-2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OtlpProtocol {
    /// `grpc`.
    Grpc,
    /// `http/protobuf`.
    HttpProtobuf,
}

/// PEM files for the connection to the OTLP receiver (OTLP-7).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OtlpTls {
    /// Certificates to trust in place of the system's.
    pub certificate: Option<PathBuf>,
    /// Client certificate, with its key.
    pub client: Option<(PathBuf, PathBuf)>,
}

/// Bounds of the export queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Queue {
    /// Spans that may wait (`OTEL_BSP_MAX_QUEUE_SIZE`).
    pub max_spans: usize,
    /// Memory that waiting spans may take, in bytes.
    pub max_bytes: usize,
    /// Spans in one request (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`).
    pub max_batch: usize,
    /// Longest wait before a smaller batch is sent (`OTEL_BSP_SCHEDULE_DELAY`).
    pub schedule_delay: Duration,
    /// Bound on one attempt; zero means none (`OTEL_BSP_EXPORT_TIMEOUT`, ENV-20).
    pub export_timeout: Duration,
}

/// Where the access log goes and what its lines look like.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLog {
    /// The form of a line.
    pub format: LogFormat,
    /// A file to append to; `None` writes to standard output.
    pub path: Option<PathBuf>,
}

/// The form of an access log line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LogFormat {
    /// One JSON object per line.
    Json,
    /// One readable line.
    Text,
}

/// A value that is exchanged as a whole while it is read. Clones of the handle are one and the same.
#[derive(Debug)]
pub struct Swap<T>(Arc<ArcSwap<T>>);

/// The settings in force, for whoever is no front: a request sees those that its front had when it began.
pub type LiveHandle = Swap<Live>;

/// A [`Swap`] that is not kept alive by whoever holds this.
#[derive(Debug)]
pub struct WeakSwap<T>(Weak<ArcSwap<T>>);

impl<T> Swap<T> {
    /// Begins with `value`.
    pub fn new(value: T) -> Self {
        Self(Arc::new(ArcSwap::from_pointee(value)))
    }

    /// Begins with the value that `make` makes, which may keep the handle.
    pub fn new_cyclic(make: impl FnOnce(WeakSwap<T>) -> T) -> Self {
        Self(Arc::new_cyclic(|weak| ArcSwap::from_pointee(make(WeakSwap(weak.clone())))))
    }

    /// The value now. One atomic step; whoever has it keeps it, whatever is stored meanwhile.
    pub fn load(&self) -> Arc<T> {
        self.0.load_full()
    }

    /// Whoever loads from now on gets `value`.
    pub fn store(&self, value: T) {
        self.0.store(Arc::new(value));
    }

    /// A handle that does not keep the value.
    pub fn downgrade(&self) -> WeakSwap<T> {
        WeakSwap(Arc::downgrade(&self.0))
    }
}

impl<T> WeakSwap<T> {
    /// A handle that keeps the value; `None` when nobody does any more.
    pub fn upgrade(&self) -> Option<Swap<T>> {
        self.0.upgrade().map(Swap)
    }
}

impl<T> Clone for Swap<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Clone for WeakSwap<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}
