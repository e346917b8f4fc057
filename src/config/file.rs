//! The file as written: every key in one place, with its type, default, unit and one line of why.
//!
//! Parsing, defaults, suggestions for unknown keys and the commented reference all come from these declarations.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use http::HeaderName;
use ipnet::IpNet;

use super::leaf::{Bytes, Compression, ConsoleMode, Count, Propagator, Ratio, Redact, SamplerName};
use super::reader::{Given, Reader};
use super::value::{At, Field, Keys, Kind, Map, Section, Value};
use super::web::{
    AgentGlob, AttributeName, Endpoint, LogLevels, MethodName, PathGlob, RpcPattern, Secret, Template,
};
use super::write::{self, Written};
use super::{HalfClose, LogFormat, OtlpProtocol, Trust};
use crate::propagation::Generate;
use crate::wire::forwarded::Family;
use crate::wire::forwarded::tell::Policy;

/// Declares a mapping with known keys. A key is `name: type = default`, where the default is YAML, `null` for a key
/// that may be absent, or `required`; `like` adds an example for the reference, `applies` says what a change does and
/// when (it counts for the keys below, too), and `fixed` says why a key is read at start only.
macro_rules! section {
    ($(#[doc = $about:literal])+ $section:ident {
        $( $(#[doc = $doc:literal])+ $key:ident: $type:ty = $default:tt $(like $example:literal)?
            $(applies $applies:literal)? $(fixed $fixed:literal)? ),+ $(,)?
    }) => {
        $(#[doc = $about])+
        #[derive(Clone, Debug, PartialEq)]
        pub(in crate::config) struct $section { $( $(#[doc = $doc])+ pub $key: $type, )+ }

        impl Keys for $section {
            const SECTION: &'static Section = &Section {
                fields: &[ $( Field {
                    name: stringify!($key),
                    doc: concat!($($doc),+),
                    default: section!(@default $default),
                    example: section!(@optional $($example)?),
                    applies: section!(@optional $($applies)?),
                    fixed: section!(@optional $($fixed)?),
                    kind: <$type as Value>::kind,
                }, )+ ],
            };
        }

        impl Value for $section {
            fn kind() -> Kind {
                Kind::Section(Self::SECTION)
            }

            fn read(reader: &mut Reader<'_>, given: &Given<'_>) -> Option<Self> {
                let entries = reader.section(given, Self::SECTION)?;
                let mut fields = Self::SECTION.fields.iter();
                // All keys are read before any that is missing ends it.
                $( let $key = reader.field::<$type>(&entries, fields.next()?); )+
                Some(Self { $( $key: $key?, )+ })
            }

            fn write(&self) -> Option<Written> {
                let entries = [ $( (stringify!($key), self.$key.write()), )+ ];
                let given = entries.into_iter().filter_map(|(key, value)| Some((key.to_owned(), value?)));
                Some(Written::Map(given.collect()))
            }
        }
    };
    (@default required) => { None };
    (@default $text:literal) => { Some($text) };
    (@optional) => { None };
    (@optional $text:literal) => { Some($text) };
}

mod bounds;
mod failures;
mod way_in;
mod way_out;

pub(super) use self::bounds::{Limits, Timeouts};
pub(super) use self::failures::{Failures, Sentry, StatusRule};
pub(super) use self::way_in::{Inbound, ToTls};
pub(super) use self::way_out::{Lineage, Outbound};

section! {
    /// The whole file.
    File {
        /// Who the spans say they come from. `${NAME}` and `${NAME:-default}` stand for environment variables in any
        /// value of this file, and `$$` for a dollar sign.
        service: Service = "{}" applies "in spans that are sent from now on",
        /// Where callers are listened to, and where the service is. `--to` and `--listen` replace all of it.
        inbound: Vec<Inbound> = "[]" applies "a new listener opens, an old one takes no more connections and drains",
        /// The way out: what the service calls.
        outbound: Outbound = "{}" applies "from the next call on",
        /// How the request that caused a call is found, for services that forward nothing.
        lineage: Lineage = "{}",
        /// What is passed on without a trace: requests that nobody wants to find again.
        exclude: Exclude = "{}",
        /// Path templates that name spans, such as `/models/{id}` and `/files/{*rest}`. Without one a span is named
        /// by its method alone, for a path would make a new name for every id.
        routes: Vec<At<Template>> = "[]" like "[/predict, \"/models/{id}\"]",
        /// Which headers carry a trace from service to service.
        propagation: Propagation = "{}",
        /// Which traces begin here sampled.
        sampling: Sampling = "{}",
        /// What of a query string spans and logs may show.
        url_query: UrlQuery = "{}",
        /// What is believed of callers.
        client: Client = "{}",
        /// Methods that spans name; any other becomes `_OTHER`, so that a scanner cannot fill a dashboard
        /// (`OTEL_INSTRUMENTATION_HTTP_KNOWN_METHODS`).
        known_methods: Vec<MethodName> = "[GET, HEAD, POST, PUT, DELETE, CONNECT, OPTIONS, TRACE, PATCH, QUERY]",
        /// What is known of the gRPC calls of this service and to others.
        grpc: Grpc = "{}",
        /// Bounds on every wait. Durations are written 500ms, 10s, 5m or 1h.
        timeouts: Timeouts = "{}",
        /// Bounds on how much of everything there is at once. What is above them waits or is refused, and is counted.
        limits: Limits = "{}",
        /// Where spans go.
        export: Export = "{}",
        /// What went wrong, for people: /errors and /slow on the admin port, and Sentry.
        failures: Failures = "{}",
        /// Sentry, or what speaks its protocol: failed requests become events. On as soon as there is a DSN.
        sentry: Sentry = "{}" applies "from the next event on",
        /// One line per request.
        access_log: AccessLog = "{}" applies "from the next line on",
        /// Pages for people and orchestrators: /metrics, /healthz, /readyz.
        admin: Admin = "{}",
        /// The process itself.
        runtime: Runtime = "{}",
        /// Level of tracecar's own log: off, error, warn, info, debug or trace, also by module as in
        /// `warn,tracecar::net=debug`.
        log: LogLevels = "info" applies "from the next line on",
    }
}

section! {
    /// Who the spans say they come from.
    Service {
        /// `service.name`. Every backend groups by it, so it should be the name people use (`--service`,
        /// `OTEL_SERVICE_NAME`).
        name: Option<String> = "null" like "fraud-api",
        /// `service.namespace`: tells services of one name apart.
        namespace: Option<String> = "null" like "payments",
        /// `service.version`: shows which release made things slower.
        version: Option<String> = "null" like "${APP_VERSION:-}",
        /// `deployment.environment.name`: keeps staging out of production's dashboards.
        environment: Option<String> = "null" like "${ENVIRONMENT:-production}",
        /// Further resource attributes (`OTEL_RESOURCE_ATTRIBUTES` adds to them).
        attributes: Map<AttributeName, String> = "{}" like "{ team: risk }",
    }
}

section! {
    /// What is passed on without a trace.
    Exclude {
        /// Records an excluded request after all if it fails: a failing health check is worth a span.
        keep_failures: bool = "true",
        /// Rules; a request is excluded if all that one rule names matches.
        rules: Vec<At<Rule>> = "[]",
    }
}

section! {
    /// One exclusion rule.
    Rule {
        /// A path, in which `*` stays within a segment and `**` crosses them.
        path: Option<PathGlob> = "null" like "/healthz",
        /// A method, whose case matters.
        method: Option<MethodName> = "null" like "GET",
        /// A user agent, in which `*` matches anything.
        user_agent: Option<AgentGlob> = "null" like "kube-probe/*",
    }
}

section! {
    /// Which headers carry a trace.
    Propagation {
        /// Formats that are read and written, in order; where several are sent the last one wins
        /// (`OTEL_PROPAGATORS`). There are tracecontext, baggage, b3, b3multi, jaeger, xray, datadog, sentry-trace, and
        /// none.
        formats: Vec<Propagator> = "[tracecontext, baggage]",
        /// Other formats for requests to the service.
        inbound: Directed = "{}",
        /// Other formats for the service's calls.
        outbound: Directed = "{}",
        /// What callers' trace contexts are worth; the first entry with the caller's network counts. Any is continued
        /// where none does.
        trust: Vec<TrustRule> = "[]",
        /// Ids that people and logs pass around beside the trace id.
        correlation: Correlation = "{}",
        /// Sends the trace id back in `Server-Timing`, where browsers' tools show it.
        server_timing: bool = "true",
        /// Sends the trace context back in `traceresponse`. Off, for it never left its draft.
        traceresponse: bool = "false",
        /// Adds `Via: 1.1 tracecar` to requests. RFC 9110 asks it of a proxy, but nginx stops compressing for requests
        /// that carry it, so it is off.
        via: bool = "false",
        /// Adds `Date` to responses that have none. RFC 9110 asks it of whoever passes one on; off, for a service that sends
        /// none may have its reasons.
        date: bool = "false",
    }
}

section! {
    /// Formats of one direction.
    Directed {
        /// Formats that are read, in order; the last one that was sent wins. `formats` if not given.
        extract: Option<Vec<Propagator>> = "null" like "[b3, tracecontext]",
        /// Formats that are written, all of them. `formats` if not given.
        inject: Option<Vec<Propagator>> = "null" like "[tracecontext, b3]",
    }
}

section! {
    /// What the trace contexts of some callers are worth.
    TrustRule {
        /// The callers' networks.
        from: Vec<IpNet> = required like "[0.0.0.0/0, \"::/0\"]",
        /// continue goes on with their traces; sample does so, but decides by itself which to keep; restart begins a new
        /// trace that is linked to theirs.
        policy: Trust = "continue",
    }
}

section! {
    /// Correlation ids.
    Correlation {
        /// Accepts, makes and sends back a correlation id.
        enabled: bool = "true",
        /// Headers to look for it in, in order; the first is the one that is written.
        headers: Vec<HeaderName> = "[x-correlation-id, x-request-id]",
        /// What a request without one gets: its trace id, so that one id finds both, or an id of its own.
        generate: Generate = "trace_id",
    }
}

section! {
    /// Which traces begin here sampled.
    Sampling {
        /// The names of `OTEL_TRACES_SAMPLER`. `parentbased_` follows the caller's decision, so that no trace has
        /// holes.
        sampler: SamplerName = "parentbased_always_on",
        /// Share of traces from 0 to 1, read by the two traceidratio samplers only (`OTEL_TRACES_SAMPLER_ARG`).
        ratio: Ratio = "1.0",
    }
}

section! {
    /// What of a query string may be seen.
    UrlQuery {
        /// Which values are replaced by REDACTED: all of them, for nobody knows where a service puts its secrets; those
        /// of the keys that OpenTelemetry lists as secret; or none (off).
        redact: Redact = "all",
        /// Keys whose values may be seen all the same.
        allow: Vec<String> = "[]" like "[page, sort]",
    }
}

section! {
    /// What is believed of callers.
    Client {
        /// Networks of proxies whose `Forwarded` and `X-Forwarded-*` are believed. None, for anybody can send those
        /// headers.
        trusted_proxies: Vec<IpNet> = "[]" like "[10.0.0.0/8]",
        /// Which of the two kinds these proxies write: x_forwarded, forwarded. Most write one and pass the other on as
        /// anybody sent it, so where a request has both, only what they agree on is believed. Name the one, if you know.
        trusted_headers: Vec<Family> = "[x_forwarded, forwarded]",
        /// What the service is told of its caller.
        headers: ClientHeaders = "{}",
        /// What a caller means that closes its sending side and waits: it has nothing more to send and is served, as
        /// RFC 9112 has it, or it has left and its request is cancelled.
        half_close: HalfClose = "serve" applies "for new connections",
    }
}

section! {
    /// What becomes of the headers that tell the service of its caller. pass leaves them as they came, append adds the peer to
    /// them, set makes them say what spans say, strip removes them.
    ClientHeaders {
        /// `X-Forwarded-For`, `-Proto`, `-Host` and `-Port`. pass, for whatever stands before the service has written them
        /// already, and services count the hops. Where nothing does, and the service believes these headers of 127.0.0.1,
        /// it believes anybody now: choose append or set. Both replace scheme, host and port of peers that are not
        /// among `trusted_proxies`.
        x_forwarded: Policy = "pass",
        /// `Forwarded` (RFC 7239).
        forwarded: Policy = "pass",
    }
}

section! {
    /// What is known of gRPC calls.
    Grpc {
        /// Methods that name spans: `pkg.Service/Method`, or `pkg.Service/*` for all that a service has. Any other is
        /// `_OTHER`, since callers can ask for methods that there are not, and a new name for each would fill a dashboard.
        methods: Vec<RpcPattern> = "[]" like "[shop.Cart/Add, \"shop.Stock/*\"]",
    }
}

section! {
    /// Where spans go.
    Export {
        /// OTLP, to a collector or backend. On as soon as an endpoint is given here or by an `OTEL_` variable.
        otlp: Otlp = "{}" applies "queued spans go to the new receiver",
        /// Spans on standard output: trees on a terminal, JSON lines elsewhere. auto is on where there is a terminal
        /// and no OTLP.
        console: ConsoleMode = "auto" applies "from the next span on",
    }
}

section! {
    /// An OTLP receiver.
    Otlp {
        /// Where the receiver is; `/v1/traces` is added for http/protobuf (`OTEL_EXPORTER_OTLP_ENDPOINT`).
        endpoint: Option<Endpoint> = "null" like "http://collector:4318",
        /// The full URL for traces, used as it is, in place of `endpoint` (`OTEL_EXPORTER_OTLP_TRACES_ENDPOINT`).
        traces_endpoint: Option<Endpoint> = "null" like "http://collector:4318/v1/traces",
        /// http/protobuf passes through any proxy and listens on 4318; grpc listens on 4317.
        protocol: OtlpProtocol = "http/protobuf",
        /// Headers to send along, such as an API key. Their values are never shown.
        headers: Map<HeaderName, Secret> = "{}" like "{ x-api-key: \"${API_KEY}\" }",
        /// Files that hold values of headers, one each, by the headers' names.
        headers_file: Map<HeaderName, At<PathBuf>> = "{}" like "{ authorization: /run/secrets/otlp-authorization }",
        /// Spans repeat themselves: gzip makes them about ten times smaller.
        compression: Compression = "gzip",
        /// Bound on one attempt to send a batch; 0s is no bound.
        timeout: Duration = "10s",
        /// PEM file with the certificates to trust in place of the system's.
        certificate: Option<PathBuf> = "null" like "/etc/tracecar/ca.pem",
        /// PEM file with the certificate to show to the receiver; needs `client_key`.
        client_certificate: Option<At<PathBuf>> = "null" like "/etc/tracecar/client.pem",
        /// PEM file with the key of `client_certificate`.
        client_key: Option<At<PathBuf>> = "null" like "/etc/tracecar/client.key",
        /// What waits to be sent. What does not fit is dropped and counted, and no request waits for it.
        queue: Queue = "{}" applies "from the next span on; what waits is kept",
    }
}

section! {
    /// Bounds of the export queue.
    Queue {
        /// Spans that may wait. OpenTelemetry's 2048 are 2 seconds of 1000 requests per second, which a restarting
        /// collector takes longer than (`OTEL_BSP_MAX_QUEUE_SIZE`).
        max_spans: Count<10_000_000> = "16384",
        /// Memory that waiting spans may take: the bound that a container's limit cares for.
        max_bytes: Bytes = "16MiB",
        /// Spans in one request (`OTEL_BSP_MAX_EXPORT_BATCH_SIZE`).
        max_batch: At<Count<10_000_000>> = "512",
        /// Longest wait before a smaller batch is sent (`OTEL_BSP_SCHEDULE_DELAY`).
        schedule_delay: Duration = "5s",
        /// Bound on one attempt; 0s is no bound (`OTEL_BSP_EXPORT_TIMEOUT`). The shorter of this and `timeout` counts.
        export_timeout: Duration = "30s",
    }
}

section! {
    /// One line per request.
    AccessLog {
        /// Off, for spans say the same and more.
        enabled: bool = "false",
        /// One JSON object, or one readable line.
        format: LogFormat = "json",
        /// A file to append to, in place of standard output.
        path: Option<PathBuf> = "null" like "/var/log/tracecar/access.log",
    }
}

section! {
    /// Pages for people and orchestrators.
    Admin {
        /// Whether there are any.
        enabled: bool = "true" applies "the pages open or close",
        /// Address and port to listen on. Only this host, for the pages tell about callers; write 0.0.0.0:9464 for
        /// Kubernetes' probes and Prometheus (`--admin`).
        listen: At<SocketAddr> = "127.0.0.1:9464" applies "the pages move to the new address",
        /// File with the token that /config and POST /-/reload ask for where the pages are not on loopback only.
        token_file: Option<At<PathBuf>> = "null" like "/run/secrets/tracecar-token"
            applies "from the next request for a page on",
        /// Whether /readyz waits until the service accepts connections: ready means that requests are answered.
        ready_needs_upstream: bool = "true" applies "from the next request for a page on",
    }
}

section! {
    /// The process itself.
    Runtime {
        /// Threads that carry requests. One is plenty for one service, and leaves it the other cores.
        workers: Count<256> = "1" fixed "connections live on their threads, which are made when the process starts",
        /// How long requests in flight may take to finish after SIGTERM. Leaves 5 of Kubernetes' 30 seconds to send the
        /// last spans.
        drain: Duration = "25s" applies "at the next stop",
    }
}

/// The commented reference: a file that holds every key with its default and its reason.
///
/// `config/tracecar.yaml` is this text; a test compares them.
pub fn reference() -> String {
    const OPENING: &str = "\
# yaml-language-server: $schema=tracecar.schema.json\n\
# The configuration of tracecar: every key with its default. A file needs only what differs, and most need only\n\
# `inbound`. `tracecar check FILE` finds what is wrong with one.\n\
#\n\
# What is given in several places is taken from the first of: command line, environment, file, default.\n\n";
    OPENING.to_owned() + &write::reference(File::SECTION)
}
