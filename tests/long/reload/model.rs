//! The configuration as the test sees it: what is written into the file, and what is to be expected of it.

use std::collections::BTreeMap;
use std::net::{SocketAddr, TcpListener};

use tracecar::config::{Flags, Sources, load};

/// Names for addresses and files, which stand in braces where keys have them.
#[derive(Default)]
pub struct Places(BTreeMap<&'static str, String>);

impl Places {
    pub fn put(&mut self, name: &'static str, place: impl ToString) {
        self.0.insert(name, place.to_string());
    }

    /// A port that was free a moment ago. It is none of those that the system hands out by itself, so that no
    /// connection takes it before it is listened on.
    pub fn put_port(&mut self, name: &'static str) {
        let taken: Vec<u16> =
            self.0.values().filter_map(|place| place.rsplit(':').next()?.parse().ok()).collect();
        let first = 12_000 + (std::process::id() % 10_000) as u16;
        let mut ports = (first..32_000).filter(|port| !taken.contains(port));
        let port = ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok());
        self.put(name, SocketAddr::from(([127, 0, 0, 1], port.expect("a port is free"))));
    }

    pub fn name(&self, name: &str) -> &str {
        self.0.get(name).unwrap_or_else(|| panic!("there is a place called {name}"))
    }

    pub fn address(&self, name: &str) -> SocketAddr {
        self.name(name).parse().expect("an address")
    }

    /// `text` with places in place of their names.
    pub fn fill(&self, text: &str) -> String {
        let fill =
            |text: String, (name, place): (&&str, &String)| text.replace(&format!("{{{name}}}"), place);
        self.0.iter().fold(text.to_owned(), fill)
    }
}

/// The keys that differ from their defaults, with what is written for each.
///
/// A `~` begins what is a part of a list: `inbound~to` is the destination of its first entry, `inbound~more` another
/// entry.
#[derive(Clone, PartialEq)]
pub struct Model(BTreeMap<&'static str, String>);

/// Which way a request goes.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Side {
    Inbound,
    Outbound,
}

/// Where spans go.
#[derive(Clone, Debug, PartialEq)]
pub struct Export {
    pub collector: String,
    pub path: String,
    pub header: String,
    pub gzip: bool,
}

impl Model {
    /// What the run begins and ends with.
    pub fn base(places: &Places) -> Self {
        let mut base = Self(BTreeMap::new());
        for (key, value) in [
            ("service.name", "reloaded"),
            ("inbound~listen", "'{main}'"),
            ("inbound~to", "'http://{alpha}'"),
            ("outbound.proxy", "'{proxy}'"),
            ("outbound.mapped~listen", "'{mapped}'"),
            ("outbound.mapped~to", "'http://{gamma}'"),
            ("admin.listen", "'{admin}'"),
            ("export.otlp.endpoint", "'http://{north-http}'"),
            ("export.otlp.queue.schedule_delay", "200ms"),
        ] {
            base.set(key, &places.fill(value));
        }
        base
    }

    /// Sets a key, or gives it its default where `value` is nothing.
    pub fn set(&mut self, key: &'static str, value: &str) {
        match value {
            "" => drop(self.0.remove(key)),
            _ => drop(self.0.insert(key, value.to_owned())),
        }
    }

    /// What is written for the key; nothing where it has its default.
    pub fn value(&self, key: &str) -> &str {
        self.0.get(key).map_or("", |value| value.trim_matches('\''))
    }

    pub fn is(&self, key: &str, value: &str) -> bool {
        self.value(key) == value
    }

    /// The file.
    pub fn yaml(&self) -> String {
        let part = |key: &str| self.0.get(key).map(String::as_str);
        let entry = |list: &str, keys: &[&str]| {
            let parts =
                keys.iter().filter_map(|key| Some(format!("{key}: {}", part(&format!("{list}~{key}"))?)));
            Some(format!("{{ {} }}", parts.collect::<Vec<_>>().join(", ")))
        };
        let list = |entries: &[Option<String>]| {
            let entries: Vec<_> = entries.iter().flatten().cloned().collect();
            format!("[{}]", entries.join(", "))
        };
        let more = |key: &str| part(key).map(str::to_owned);
        let mut keys: BTreeMap<&str, String> = self
            .0
            .iter()
            .filter(|(key, _)| !key.contains('~'))
            .map(|(key, value)| (*key, value.clone()))
            .collect();
        let inbound = entry("inbound", &["listen", "to", "trust"]);
        keys.insert(
            "inbound",
            list(&[inbound, more("inbound~more"), more("inbound~dead"), more("inbound~secure")]),
        );
        let mapped = entry("outbound.mapped", &["listen", "to", "name"]);
        keys.insert("outbound.mapped", list(&[mapped, more("outbound.mapped~more")]));

        let mut text = String::new();
        let mut open: Vec<&str> = Vec::new();
        for (key, value) in &keys {
            let (sections, name) = key.rsplit_once('.').unwrap_or(("", key));
            let sections: Vec<&str> = sections.split('.').filter(|section| !section.is_empty()).collect();
            let same = open.iter().zip(&sections).take_while(|(open, section)| open == section).count();
            for (depth, section) in sections.iter().enumerate().skip(same) {
                text += &format!("{}{section}:\n", "  ".repeat(depth));
            }
            text += &format!("{}{name}: {value}\n", "  ".repeat(sections.len()));
            open = sections;
        }
        text
    }

    /// What `/config` is to show.
    pub fn effective(&self) -> String {
        effective(&self.yaml())
    }

    /// The formats of one side; `way` is `extract` or `inject`.
    pub fn formats(&self, side: Side, way: &str) -> Vec<&str> {
        let side = if side == Side::Inbound { "inbound" } else { "outbound" };
        let own = self.value(&format!("propagation.{side}.{way}"));
        let all = self.value("propagation.formats");
        let given = [own, all, "[tracecontext, baggage]"].into_iter().find(|list| !list.is_empty());
        members(given.unwrap_or_default())
    }

    /// What the context of a caller on this host is worth.
    pub fn trust(&self) -> &str {
        // This host is in the last entry, where there are several.
        let listed = self.value("propagation.trust").rsplit_once("policy: ").map(|(_, policy)| policy);
        let listed = listed.and_then(|policy| policy.split([' ', '}']).next());
        match self.value("inbound~trust") {
            "" => listed.unwrap_or("continue"),
            own => own,
        }
    }

    /// Whether a trace goes on that came with `traceparent`.
    pub fn reads_traceparent(&self, side: Side) -> bool {
        self.formats(side, "extract").contains(&"tracecontext")
    }

    /// Whether a request is sampled, which came with a sampled `traceparent` or with none; `None` where that depends on
    /// something else.
    pub fn samples(&self, side: Side, context: bool) -> Option<bool> {
        let sampler = match self.value("sampling.sampler") {
            "" => "parentbased_always_on",
            given => given,
        };
        let ratio = self.value("sampling.ratio");
        let (parent_based, root) =
            sampler.strip_prefix("parentbased_").map_or((false, sampler), |root| (true, root));
        let followed = match side {
            Side::Inbound => context && self.reads_traceparent(side) && self.trust() == "continue",
            Side::Outbound => context && self.reads_traceparent(side),
        };
        let root = match root {
            "always_on" => true,
            "always_off" => false,
            _ => ratio != "0",
        };
        match (parent_based, side) {
            (true, _) if followed => Some(true),
            // It may be found to belong to a request that is sampled.
            (true, Side::Outbound) if !root => None,
            _ => Some(root),
        }
    }

    pub fn excludes(&self, method: &str, path: &str) -> bool {
        let rules = self.value("exclude.rules");
        rules.contains("path: /probe/excluded/**") && path.starts_with("/probe/excluded/")
            || rules.contains("method: PURGE") && method == "PURGE"
    }

    pub fn export(&self) -> Export {
        let own = self.value("export.otlp.traces_endpoint");
        let url = if own.is_empty() { self.value("export.otlp.endpoint") } else { own };
        let (address, rest) = url.trim_start_matches("http://").split_once('/').unwrap_or((url, ""));
        let path = match (self.is("export.otlp.protocol", "grpc"), own) {
            (true, _) => "/opentelemetry.proto.collector.trace.v1.TraceService/Export".to_owned(),
            (false, "") => "/v1/traces".to_owned(),
            (false, _) => format!("/{rest}"),
        };
        let header = self.value("export.otlp.headers").split("x-run: ").nth(1);
        let header = header.and_then(|rest| rest.split([' ', ',', '}']).next());
        Export {
            collector: address.trim_start_matches("http://").to_owned(),
            path,
            header: header.unwrap_or_default().to_owned(),
            gzip: !self.is("export.otlp.compression", "none"),
        }
    }

    /// Resource attributes of its spans, absent ones as nothing.
    pub fn resource(&self) -> [(&'static str, &str); 5] {
        let team = self.value("service.attributes").split("team: ").nth(1);
        [
            ("service.name", self.value("service.name")),
            ("service.namespace", self.value("service.namespace")),
            ("service.version", self.value("service.version")),
            ("deployment.environment.name", self.value("service.environment")),
            ("team", team.map_or("", |team| team.trim_end_matches([' ', '}']))),
        ]
    }

    /// What a span shows of `page=2&sig=x`.
    pub fn query(&self) -> &'static str {
        match (self.value("url_query.redact"), self.value("url_query.allow")) {
            ("off", _) => "page=2&sig=x",
            ("known", _) | (_, "[page]") => "page=2&sig=REDACTED",
            _ => "page=REDACTED&sig=REDACTED",
        }
    }
}

/// The members of a YAML list of words.
pub fn members(list: &str) -> Vec<&str> {
    list.trim_matches(['[', ']']).split(", ").filter(|member| !member.is_empty()).collect()
}

/// The settings of a file, all of them.
///
/// # Panics
/// If it cannot be used.
pub fn effective(yaml: &str) -> String {
    let flags = Flags::default();
    let sources = Sources {
        file: Some(("tracecar.yaml", yaml)),
        env: &|_| None,
        read: &tracecar::config::read_file,
        flags: &flags,
        terminal: false,
    };
    load(&sources).unwrap_or_else(|problems| panic!("a file to be used:\n{yaml}\n{problems}")).effective
}
