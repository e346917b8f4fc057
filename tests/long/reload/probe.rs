//! One request of each kind after every reload. What callers and services see is compared at once, what spans and logs
//! say when the run is over.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::collectors::{Collectors, Seen};
use super::eras::Eras;
use super::http::{Answer, Connection, Failure, headers};
use super::model::{Model, Places, Side, members};

/// A header for each format.
const TRACE_HEADERS: [(&str, &str); 7] = [
    ("tracecontext", "traceparent"),
    ("b3", "b3"),
    ("b3multi", "x-b3-traceid"),
    ("jaeger", "uber-trace-id"),
    ("xray", "x-amzn-trace-id"),
    ("datadog", "x-datadog-trace-id"),
    ("sentry-trace", "sentry-trace"),
];

/// Where the prober calls from: `outbound.clients` can tell it from the rest of the traffic.
const CALLS_FROM: [u8; 4] = [127, 0, 0, 2];

#[derive(Clone, Copy, Debug, PartialEq)]
enum Shape {
    /// Brings nothing, on a connection that is older than the configuration.
    Plain,
    /// Brings a trace and an address, on a new connection.
    Context,
    /// Asks for a path that rules may exclude.
    Excluded,
    /// The same, and is answered with 500.
    Failing,
    /// Has a method that is not among the known ones.
    Purge,
    /// A call by the forward proxy.
    Call,
    /// A call by the mapped listener that comes and goes.
    MappedCall,
}

/// Sends the probes, and keeps what is expected of them.
#[derive(Default)]
pub struct Prober {
    number: u64,
    kept: Option<Connection>,
    pub probes: Vec<Probe>,
}

/// A probe that was answered.
pub struct Probe {
    /// After what.
    after: String,
    shape: Shape,
    pub path: String,
    trace: String,
    model: Arc<Model>,
    pub sent: Instant,
}

impl Prober {
    /// Sends one of each shape, and says what is not as `model` has it.
    pub fn probe(&mut self, after: &str, model: &Arc<Model>, places: &Places) -> Vec<String> {
        let mut shapes =
            vec![Shape::Plain, Shape::Context, Shape::Excluded, Shape::Failing, Shape::Purge, Shape::Call];
        if !model.is("outbound.mapped~more", "") {
            shapes.push(Shape::MappedCall);
        }
        let mut complaints = Vec::new();
        for shape in shapes {
            self.number += 1;
            let probe = Probe {
                after: after.to_owned(),
                shape,
                path: shape.path(self.number),
                trace: format!("{:032x}", (1_u128 << 96) + u128::from(self.number)),
                model: model.clone(),
                sent: Instant::now(),
            };
            match self.ask(&probe, places) {
                Ok(answer) => complaints.extend(probe.compare(&answer, places)),
                Err(failure) => complaints.push(format!("{shape:?}: {failure}")),
            }
            self.probes.push(probe);
        }
        complaints
    }

    fn ask(&mut self, probe: &Probe, places: &Places) -> Result<Answer, Failure> {
        let Probe { model, path, trace, .. } = probe;
        let main = places.address("main");
        let proxy = model.value("outbound.proxy").parse().expect("an address");
        let (callee, mapped) = (places.name("delta"), places.address("mapped-more"));
        let head = |what: &str| format!("{what} HTTP/1.1\r\nHost: shop\r\nUser-Agent: prober/1\r\n");
        let new = |to: SocketAddr, what: &str| Connection::to(to)?.ask(&head(what));
        match probe.shape {
            Shape::Plain => self.ask_again(main, &head(&format!("GET {path}?page=2&sig=x"))),
            Shape::Context => Connection::to(main)?.ask(&format!(
                "{}traceparent: 00-{trace}-00f067aa0ba902b7-01\r\nX-Forwarded-For: 203.0.113.7\r\n",
                head(&format!("GET {path}?page=2&sig=x"))
            )),
            Shape::Excluded | Shape::Failing => new(main, &format!("GET {path}")),
            Shape::Purge => new(main, &format!("PURGE {path}?page=2&sig=x")),
            Shape::Call => {
                Connection::from(CALLS_FROM, proxy)?.ask(&head(&format!("GET http://{callee}{path}")))
            }
            Shape::MappedCall => new(mapped, &format!("GET {path}")),
        }
    }

    /// Asks on the connection that is kept. As any client has to, it asks again if that was closed meanwhile.
    fn ask_again(&mut self, to: SocketAddr, request: &str) -> Result<Answer, Failure> {
        let kept = self.kept.take().filter(|connection| !connection.ended());
        let (mut connection, old) = match kept {
            Some(connection) => (connection, true),
            None => (Connection::to(to)?, false),
        };
        let answer = match connection.ask(request) {
            Err(failure) if old && failure == "closed before the answer" => {
                connection = Connection::to(to)?;
                connection.ask(request)?
            }
            answer => answer?,
        };
        if !answer.closes() {
            self.kept = Some(connection);
        }
        Ok(answer)
    }
}

impl Shape {
    fn path(self, number: u64) -> String {
        match self {
            Shape::Plain | Shape::Context | Shape::Purge => format!("/probe/items/{number}"),
            Shape::Excluded => format!("/probe/excluded/{number}"),
            Shape::Failing => format!("/probe/excluded/fail-{number}"),
            Shape::Call => format!("/probe/call/{number}"),
            Shape::MappedCall => format!("/probe/mapped/{number}"),
        }
    }

    fn side(self) -> Side {
        if matches!(self, Shape::Call | Shape::MappedCall) { Side::Outbound } else { Side::Inbound }
    }

    fn method(self) -> &'static str {
        if self == Shape::Purge { "PURGE" } else { "GET" }
    }
}

/// What was expected, where it is not so.
#[derive(Default)]
struct Differences(Vec<String>);

impl Differences {
    fn expect<T: PartialEq<U> + std::fmt::Debug, U: std::fmt::Debug>(
        &mut self,
        what: &str,
        is: T,
        wanted: U,
    ) {
        if is != wanted {
            self.0.push(format!("{what}: {wanted:?} was expected, and is {is:?}"));
        }
    }
}

impl Probe {
    fn excluded(&self) -> bool {
        self.shape.side() == Side::Inbound && self.model.excludes(self.shape.method(), &self.path)
    }

    /// Whether a call is let through.
    fn permitted(&self, places: &Places) -> bool {
        let callee = places.name("delta");
        let listed = |key| self.model.value(key).contains(callee);
        let allowed = self.model.is("outbound.allow", "") || listed("outbound.allow");
        let of_callers = self.model.is("outbound.clients", "") || self.shape == Shape::MappedCall;
        // Who wrote the mapping allows its name; its address is looked at all the same.
        allowed && !listed("outbound.deny") && of_callers
    }

    fn compare(&self, answer: &Answer, places: &Places) -> Vec<String> {
        let mut differences = Differences::default();
        let Self { model, shape, .. } = self;
        if shape.side() == Side::Outbound && !self.permitted(places) {
            differences.expect("status of a forbidden call", answer.status, 403);
            return self.named(differences);
        }
        let there = headers(&answer.body);
        differences.expect("status", answer.status, if *shape == Shape::Failing { 500 } else { 200 });
        differences.expect("service", answer.header("x-origin"), self.service(places));
        match shape.side() {
            Side::Inbound => self.compare_request(answer, &there, &mut differences),
            Side::Outbound => {}
        }
        if self.excluded() {
            return self.named(differences);
        }
        let formats = self.formats(places);
        for (format, header) in TRACE_HEADERS {
            // What the caller has sent goes through where nothing of ours is in its place.
            if !(*shape == Shape::Context && header == "traceparent") {
                differences.expect(header, there.contains_key(header), formats.contains(&format));
            }
        }
        if let (true, Some(sampled)) =
            (formats.contains(&"tracecontext"), model.samples(shape.side(), self.brings()))
        {
            let flags =
                there.get("traceparent").and_then(|value| value.rsplit('-').next()).unwrap_or_default();
            let flagged = u8::from_str_radix(flags, 16).is_ok_and(|flags| flags & 1 == 1);
            if shape.side() == Side::Inbound {
                differences.expect("sampled flag", flagged, sampled);
            }
        }
        self.named(differences)
    }

    /// What is said of requests to the service, and not of calls.
    fn compare_request(
        &self,
        answer: &Answer,
        there: &BTreeMap<String, String>,
        differences: &mut Differences,
    ) {
        let model = &self.model;
        let added = !self.excluded();
        let via = model.is("propagation.via", "true");
        differences.expect("via on the way in", there.contains_key("via"), via);
        differences.expect("via on the way back", answer.headers.contains_key("via"), via);
        let timed = answer.header("server-timing").contains("trace;desc=");
        differences.expect("server-timing", timed, added && !model.is("propagation.server_timing", "false"));
        let traced = answer.headers.contains_key("traceresponse");
        differences.expect("traceresponse", traced, added && model.is("propagation.traceresponse", "true"));
        let enabled = added && !model.is("propagation.correlation.enabled", "false");
        let listed = members(model.value("propagation.correlation.headers"));
        let first = listed.first().copied().unwrap_or("x-correlation-id");
        for name in ["x-correlation-id", "x-tracked"] {
            let id = answer.header(name);
            differences.expect(name, !id.is_empty(), enabled && name == first);
            differences.expect(
                &format!("{name} on the way in"),
                there.get(name).map_or("", String::as_str),
                id,
            );
            let length = if model.is("propagation.correlation.generate", "uuidv7") { 36 } else { 32 };
            if !id.is_empty() {
                differences.expect(&format!("length of {name}"), id.len(), length);
            }
        }
    }

    fn service(&self, places: &Places) -> &'static str {
        let beta = format!("http://{}", places.name("beta"));
        match self.shape.side() {
            Side::Outbound => "delta",
            Side::Inbound if self.model.value("inbound~to") == beta => "beta",
            Side::Inbound => "alpha",
        }
    }

    /// What is said of the destination of a call.
    fn destination(&self, places: &Places) -> &str {
        let entry = self.model.value("outbound.destinations");
        if entry.contains(places.name("delta")) && self.shape.side() == Side::Outbound { entry } else { "" }
    }

    fn formats(&self, places: &Places) -> Vec<&str> {
        let destination = self.destination(places);
        if destination.contains("strip: true") || destination.contains("trace: false") {
            return Vec::new();
        }
        match destination.split("inject: ").nth(1) {
            Some(list) => members(list.split_inclusive(']').next().unwrap_or_default()),
            None => self.model.formats(self.shape.side(), "inject"),
        }
    }

    fn brings(&self) -> bool {
        self.shape == Shape::Context
    }

    /// What its span has to say, and does not.
    pub fn judge(&self, collectors: &Collectors, eras: &Eras, places: &Places) -> Vec<String> {
        let mut differences = Differences::default();
        let Self { model, shape, .. } = self;
        let side = shape.side();
        let kept = match side {
            Side::Inbound if self.excluded() => {
                *shape == Shape::Failing && !model.is("exclude.keep_failures", "false")
            }
            Side::Inbound => true,
            Side::Outbound if !self.permitted(places) => return Vec::new(),
            Side::Outbound => !self.destination(places).contains("trace: false"),
        };
        // An excluded request has no context of ours: it is a trace of its own.
        let sampled = model.samples(side, self.brings());
        let wanted = match (kept, sampled) {
            (true, None) => return Vec::new(),
            (true, Some(sampled)) => usize::from(sampled),
            (false, _) => 0,
        };
        let kind = if side == Side::Inbound { SpanKind::Server } else { SpanKind::Client };
        let all = collectors.probes.get(&self.path).into_iter().flatten();
        let spans: Vec<&Seen> = all.filter(|seen| seen.kind == kind).collect();
        differences.expect("number of spans", spans.len(), wanted);
        for seen in spans {
            match side {
                Side::Inbound => self.judge_server(seen, &mut differences),
                Side::Outbound => self.judge_client(seen, places, &mut differences),
            }
            self.judge_batch(seen, eras, &mut differences);
        }
        self.named(differences)
    }

    fn judge_server(&self, seen: &Seen, differences: &mut Differences) {
        let Self { model, shape, .. } = self;
        let known = *shape != Shape::Purge || model.value("known_methods").contains("PURGE");
        let name = if known { shape.method() } else { "HTTP" };
        let routed =
            model.value("routes").contains("/probe/items/{id}") && self.path.starts_with("/probe/items/");
        let name = if routed { format!("{name} /probe/items/{{id}}") } else { name.to_owned() };
        differences.expect("name", seen.span.name.as_str(), name.as_str());
        let method = if known { shape.method() } else { "_OTHER" };
        differences.expect("http.request.method", seen.attribute("http.request.method"), method);
        if self.path.starts_with("/probe/items/") {
            differences.expect("url.query", seen.attribute("url.query"), model.query());
        }
        let believed = *shape == Shape::Context && !model.is("client.trusted_proxies", "");
        let client = if believed { "203.0.113.7" } else { "127.0.0.1" };
        differences.expect("client.address", seen.attribute("client.address"), client);
        differences.expect(
            "tracecar.excluded",
            seen.attribute("tracecar.excluded") == "true",
            self.excluded(),
        );
        if *shape == Shape::Context {
            let trace: String = seen.span.trace_id.iter().map(|byte| format!("{byte:02x}")).collect();
            let goes_on = model.reads_traceparent(Side::Inbound) && model.trust() != "restart";
            differences.expect("the caller's trace", trace == self.trace, goes_on);
        }
    }

    fn judge_client(&self, seen: &Seen, places: &Places, differences: &mut Differences) {
        let templated = self.shape == Shape::Call
            && self.model.value("outbound.url_templates").contains("/probe/call/{id}");
        let name = if templated { "GET /probe/call/{id}" } else { "GET" };
        differences.expect("name", seen.span.name.as_str(), name);
        let mapped = self.model.value("outbound.mapped~more").contains("name: mapped-shop");
        let peer = match self.shape {
            Shape::MappedCall if mapped => "mapped-shop",
            _ if self.destination(places).contains("name: delta-shop") => "delta-shop",
            _ => "",
        };
        differences.expect("peer.service", seen.attribute("peer.service"), peer);
    }

    /// How the span came. Between the probe and its batch the configuration may have changed once more.
    fn judge_batch(&self, seen: &Seen, eras: &Eras, differences: &mut Differences) {
        let models: Vec<_> = eras.between(self.sent, seen.at).collect();
        if !models.iter().any(|model| model.export() == seen.export) {
            let wanted = models.first().map(|model| model.export());
            differences.expect("way of export", Some(seen.export.clone()), wanted);
        }
        let resource = model_resource(seen);
        if !models.iter().any(|model| model.resource() == resource) {
            differences.expect("resource", Some(resource), models.first().map(|model| model.resource()));
        }
    }

    /// Where this probe has to have left a line: in the file of the access log, and on standard output. `None` where the
    /// configuration changed before that was decided for sure.
    pub fn lines(&self, eras: &Eras) -> Option<(bool, bool)> {
        // Records wait for a tenth of a second before they are written; a busy machine gets more.
        let until = self.sent + std::time::Duration::from_secs(1);
        let plain = matches!(self.shape, Shape::Plain | Shape::Context);
        let mut all = eras.between(self.sent, until).map(|model| {
            let enabled = model.is("access_log.enabled", "true");
            let in_file = enabled && !model.is("access_log.path", "");
            let sampled = self.model.samples(Side::Inbound, self.brings()) == Some(true);
            let console = model.is("export.console", "on") && sampled;
            (in_file, console || enabled && !in_file)
        });
        let first = all.next()?;
        (plain && !self.excluded() && all.all(|other| other == first)).then_some(first)
    }

    /// Whether lines of the access log are JSON.
    pub fn json(&self) -> bool {
        !self.model.is("access_log.format", "text")
    }

    pub fn after(&self) -> &str {
        &self.after
    }

    fn named(&self, differences: Differences) -> Vec<String> {
        differences.0.into_iter().map(|text| format!("{:?} {}: {text}", self.shape, self.path)).collect()
    }
}

/// The attributes of a resource that the configuration decides about, as [`Model::resource`] has them.
fn model_resource(seen: &Seen) -> [(&'static str, &str); 5] {
    let name =
        ["service.name", "service.namespace", "service.version", "deployment.environment.name", "team"];
    name.map(|key| (key, seen.resource.get(key).map_or("", String::as_str)))
}
