//! tracecar is a sidecar reverse proxy that traces services nobody may change.
//!
//! It stands beside one service; all HTTP to the service and from it goes through it. Each request in becomes an
//! OpenTelemetry SERVER span, each call out a CLIENT span, and each a metric and, where wanted, a log line; trace context
//! and a correlation id go on with them. No line of the service changes: it need not even forward a header, since
//! [`exchange::Lineage`] finds out which request caused which call.
//!
//! This page is the map. The [`guide`] has the longer texts for users; the README says how to begin.
//!
//! # Layout
//!
//! *Fronts decide, one path acts, one record is written, sinks only read.*
//!
//! | level | module | what lives there | may use |
//! |---|---|---|---|
//! | 7 | [`demo`] | three services beside three sidecars, in one process | app, config, exchange, telemetry |
//! | 6 | [`doctor`] | looks for what is wrong, beside a running tracecar | proxy, telemetry, net, exchange, config |
//! | 6 | [`app`] | builds everything from the settings, binds, runs, drains, flushes | all below |
//! | 5 | [`proxy`] | the path: a front (`inbound`, `outbound`) decides, `forward` acts | net, exchange, config, propagation, wire, stats |
//! | 5 | [`admin`] | health, readiness, metrics, settings over HTTP | telemetry, net, exchange, config, stats |
//! | 5 | [`worker`] | data-path threads | net, exchange, stats |
//! | 4 | [`telemetry`] | the sinks: OTLP, metrics, access log, console, failures and slowness, Sentry | net, exchange, config, wire, stats |
//! | 3 | [`net`] | sockets: accepting, serving, connections to the service | config, exchange, wire, stats |
//! | 2 | [`config`] | what the user writes, and what the program uses | exchange, propagation, wire |
//! | 1 | [`exchange`] | one request and its response: the core vocabulary | propagation, wire, stats |
//! | 0 | [`wire`] | HTTP mechanics that an intermediary owes the RFCs | nothing of ours |
//! | 0 | [`propagation`] | headers ↔ trace context | nothing of ours |
//! | 0 | [`stats`] | counters about tracecar itself | nothing of ours |
//!
//! A module uses lower levels only; those of one level do not know each other. `tests/it/layering.rs` has the same list
//! and compares it with the source. The command line, the signals and the allocator are above all this, in
//! `src/main.rs` and `src/commands`. [`exchange`] defines [`Sink`](exchange::Sink), [`telemetry`] implements it, and [`app`] introduces the
//! two: that is why the path needs to know nothing of OTLP, and OTLP nothing of the path.
//!
//! # Life of a request
//!
//! 1. A [`worker`] **accepts** a connection ([`net::listener`]). If another worker has at least two fewer, the connection
//!    is handed over; after that nothing of it ever changes threads. Where the settings say so it begins with the PROXY
//!    protocol's header ([`wire::proxy_protocol`]) or with TLS ([`net::termination`]): [`net::arrival`] takes both.
//! 2. [`net::server::serve`] **detects** HTTP/1 or HTTP/2 from the first bytes, and reads requests:
//!    HTTP/1 by [`wire::h1`], HTTP/2 by hyper. An HTTP/1 connection that has nothing to do is *parked*: a bare socket without buffers.
//! 3. The front, here [`proxy::inbound`], **decides**: it is loaded once ([`proxy::Front`]), with the settings and all that
//!    was made from them, finds the route and whether the request is excluded ([`exchange::Routes`]), and makes a `Job` of it.
//! 4. [`proxy::forward`] **acts**. It *extracts* the caller's context ([`propagation::Propagation::extract`]),
//!    *begins* an exchange ([`exchange::Recorder::begin`]: ids, sampling, the clock), notes what the request says
//!    (queries are redacted before they are noted, by [`exchange::QueryRedaction`]), *rewrites* the headers
//!    ([`wire::headers`], [`wire::target`], [`propagation::Propagation::inject`], the correlation id of
//!    [`propagation::CorrelationRules`]), and *sends* the request over a kept or new connection
//!    ([`net::upstream::Pool`]).
//! 5. The response's head goes back at once. Its body is *watched* on its way ([`wire::body::Watched`]), never
//!    buffered; an upgraded connection becomes a [`wire::tunnel`].
//! 6. When the last byte has left for the kernel (on HTTP/2: for the connection, which many responses share), the
//!    exchange *finishes* with an [`exchange::Outcome`] and closes into a [`exchange::Record`]. If anything cuts this
//!    story short (the caller resets, a task panics, a drain is over), dropping the [`exchange::Exchange`] closes it,
//!    and says why. There is no way to leave without a record unless a rule excludes the request, and none to leave two.
//! 7. Records gather in the worker's [`exchange::Outbox`]. Once per batch the telemetry thread is woken, takes them
//!    and shows each to every sink ([`telemetry::Telemetry`]): the span exporter ([`telemetry::export`], which turns
//!    records into spans by [`exchange::semconv`]), the metrics ([`telemetry::metrics`]), the access log
//!    ([`telemetry::access_log`]) and the console ([`telemetry::console`]). They read the same record, so they agree.
//!    [`telemetry::watch`] puts requests and their calls together: what failed ([`telemetry::failures`]) and what got slow
//!    ([`telemetry::slow`]) is shown on the admin port and told to Sentry ([`telemetry::sentry`]).
//!
//! # Life of a configuration
//!
//! [`config::load`] makes [`config::Settings`] of text, variables and flags. `app::control` takes tracecar from one version of them to
//! the next, and from none to the first: what can fail is done before anything changes, and then nothing can. `app::reload` reads
//! them again when somebody asks for it, `app::watch` sees that a file has changed. Nothing that is served holds a lock or waits:
//! what it goes by is behind one pointer ([`config::Swap`]), and freed with the last request that loaded it.
//!
//! # Life of a call
//!
//! A call of the service takes the same path; it differs where the two fronts differ.
//!
//! 1. It comes in by one of three doors of [`proxy::outbound`]: the forward proxy, a mapped listener, or a connection that was
//!    redirected here ([`net::original`]). A tunnel ([`net::server::Next`]) and a redirected connection are looked at first
//!    ([`net::first_bytes`]): plain HTTP is served, TLS is looked into only where the settings say so
//!    ([`net::intercept`]), and all else passes unseen and is counted.
//! 2. The front asks the rules of the way out ([`wire::egress::EgressRules`]) about the name, and the connector asks them
//!    again about each address right before it connects to it ([`net::connector`]). Who turns out to be tracecar
//!    itself is refused ([`net::own`]).
//! 3. Its **cause** is found: what the service forwards is believed; else the open inbound exchanges are searched
//!    ([`exchange::Lineage`], and [`net::process`] for what the process table says). Each inbound exchange is in there from
//!    the moment it begins until a while after it ends. What is not certain becomes a link, and no parent.
//! 4. From there on it is [`proxy::forward`] as above, with what the settings say of the destination
//!    ([`exchange::Destination`]).
//!
//! # Invariants
//!
//! Things that are absent on purpose:
//!
//! * **Nothing below a front loads settings.** One request sees one version of them.
//! * **Sinks cannot reach a request.** They get finished records, on a thread of their own, return nothing and may
//!   not block; what is slow owns a bounded queue and counts what it drops.
//! * **No parent is guessed.** A wrong one is worse than none.
//! * **Every exchange closes once.** [`exchange::Exchange::finish`] consumes it; `Drop` closes it if nobody did.
//! * **No thread is woken per request.** Records wait for each other; that wake-up would cost more than tracing.
//! * **Nothing from the network may panic.** Parsers are total functions, with examples in `tests/corpus`,
//!   properties in `tests/it/properties.rs` and fuzz targets in `tests/fuzz`.

pub mod admin;
pub mod app;
pub mod config;
pub mod demo;
pub mod doctor;
pub mod exchange;
pub mod guide;
pub mod net;
pub mod propagation;
pub mod proxy;
pub mod stats;
pub mod telemetry;
pub mod wire;
pub mod worker;
