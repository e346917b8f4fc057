//! What differs between two versions of the settings, in the words of the file.
//!
//! Compares what both come to, so that a default written out, a reordered section or a variable in place of a value
//! is no change. Secrets are compared by keyed hashes, and shown as `***`.

use std::collections::{HashMap, HashSet};
use std::fmt;

use super::check::Loaded;
use super::file::File;
use super::reader::step;
use super::value::{Field, Keys, Kind, Section};
use super::write::{Written, flow};

/// What most changes do.
const NEXT_REQUEST: &str = "from the next request on";

/// One difference between two versions of the settings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key, as `timeouts.idle`. Listeners are named by their addresses and destinations by their hosts:
    /// `inbound[0.0.0.0:8080].to`.
    pub path: String,
    /// What it was; `None` for something that was added.
    pub from: Option<String>,
    /// What it is now; `None` for something that was removed. The same as `from` where that is a secret, or a file
    /// that holds something else now.
    pub to: Option<String>,
    /// Why it has no effect before a restart, for the few keys that need one.
    pub start_only: Option<&'static str>,
    /// What it does, and when.
    pub effect: &'static str,
}

impl Change {
    fn new(path: &str, from: Option<String>, to: Option<String>) -> Self {
        let path = path.trim_start_matches('.');
        let (start_only, effect) = rules(path);
        Self { path: path.to_owned(), from, to, start_only, effect }
    }
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { path, from, to, .. } = self;
        match (from, to) {
            (Some(from), Some(to)) if from != to => write!(f, "{path}: {from} -> {to}"),
            (None, Some(added)) => write!(f, "{path}: added {added}"),
            (Some(removed), None) => write!(f, "{path}: removed {removed}"),
            _ => write!(f, "{path}: changed"),
        }
    }
}

/// What `new` changes of `old`, in the order of the reference, but what was removed of a section first;
/// nothing where both come to the same.
pub fn changes(old: &Loaded, new: &Loaded) -> Vec<Change> {
    let mut changes = Vec::new();
    compare("", &old.written, &new.written, &mut changes);
    for (path, content) in &new.contents {
        let named = changes.iter().any(|change| change.path == *path);
        let same = old.contents.get(path).is_none_or(|before| before == content);
        if !named && !same {
            let mask = || Some("***".to_owned());
            changes.push(Change::new(path, mask(), mask()));
        }
    }
    changes
}

fn compare(path: &str, old: &Written, new: &Written, changes: &mut Vec<Change>) {
    match (old, new) {
        (Written::Map(old), Written::Map(new)) => {
            let (before, now) = (by_key(old), by_key(new));
            let removed = old.iter().filter(|(key, _)| !now.contains_key(key.as_str()));
            for (key, _) in removed.chain(new) {
                let path = format!("{path}{}", step(key));
                match (before.get(key.as_str()), now.get(key.as_str())) {
                    (Some(old), Some(new)) => compare(&path, old, new, changes),
                    (before, now) => {
                        changes.push(Change::new(
                            &path,
                            before.map(|old| flow(old)),
                            now.map(|new| flow(new)),
                        ));
                    }
                }
            }
        }
        (Written::List(old), Written::List(new)) => lists(path, old, new, changes),
        _ if old == new => {}
        _ => changes.push(Change::new(path, Some(flow(old)), Some(flow(new)))),
    }
}

fn by_key(entries: &[(String, Written)]) -> HashMap<&str, &Written> {
    entries.iter().map(|(key, value)| (key.as_str(), value)).collect()
}

/// Lists by what their items are rather than by where they stand.
fn lists(path: &str, old: &[Written], new: &[Written], changes: &mut Vec<Change>) {
    let (old, new) = (named(old), named(new));
    let find = |items: &[(Name, &Written)]| -> HashSet<Name> {
        items.iter().map(|(name, _)| name.clone()).collect()
    };
    let (before, now) = (find(&old), find(&new));
    for (_, item) in old.iter().filter(|(name, _)| !now.contains(name)) {
        changes.push(Change::new(path, Some(flow(item)), None));
    }
    for (_, item) in new.iter().filter(|(name, _)| !before.contains(name)) {
        changes.push(Change::new(path, None, Some(flow(item))));
    }
    let kept: Vec<_> = old.iter().filter(|(name, _)| now.contains(name)).collect();
    let kept_now: Vec<_> = new.iter().filter(|(name, _)| before.contains(name)).collect();
    let new: HashMap<&Name, &Written> = new.iter().map(|(name, item)| (name, *item)).collect();
    for (name, item) in &kept {
        compare(&format!("{path}[{}]", name.text), item, new[name], changes);
    }
    let order = |items: &[&(Name, &Written)]| {
        let texts: Vec<&str> = items.iter().map(|(name, _)| name.text.as_str()).collect();
        format!("[{}]", texts.join(", "))
    };
    let (from, to) = (order(&kept), order(&kept_now));
    // Of listeners none comes before another.
    if from != to && !kept.iter().any(|(name, _)| name.is_listener) {
        changes.push(Change::new(path, Some(from), Some(to)));
    }
}

/// What an item of a list is known by.
#[derive(Clone, PartialEq, Eq, Hash)]
struct Name {
    text: String,
    /// Equal items are told apart by their order.
    nth: usize,
    is_listener: bool,
}

fn named(items: &[Written]) -> Vec<(Name, &Written)> {
    let mut seen: HashMap<String, usize> = HashMap::new();
    let mut name = |item: &Written| {
        let of = |key: &str| match item {
            Written::Map(entries) => {
                entries.iter().find(|(name, _)| name == key).map(|(_, value)| flow(value))
            }
            _ => None,
        };
        let listen = of("listen");
        let is_listener = listen.is_some();
        let text = listen.or_else(|| of("host")).unwrap_or_else(|| flow(item));
        let count = seen.entry(text.clone()).or_default();
        *count += 1;
        Name { text, nth: *count, is_listener }
    };
    items.iter().map(|item| (name(item), item)).collect()
}

/// Why the key at `path` is read at start only, if it is, and what a change of it does: what is said nearest to it.
fn rules(path: &str) -> (Option<&'static str>, &'static str) {
    let (mut start_only, mut effect) = (None, NEXT_REQUEST);
    let mut section: &'static Section = File::SECTION;
    let keys = keys(path);
    for key in keys.split('.') {
        let Some(field) = section.fields.iter().find(|field| field.name == key) else { break };
        start_only = field.fixed.or(start_only);
        effect = field.applies.unwrap_or(effect);
        match below(field) {
            Some(below) => section = below,
            None => break,
        }
    }
    (start_only, effect)
}

/// A path without what stands in brackets: that names items, which may be called anything.
fn keys(path: &str) -> String {
    let mut depth = 0;
    let mut outside = |char: char| {
        depth += i32::from(char == '[');
        let outside = depth == 0;
        depth -= i32::from(char == ']');
        outside
    };
    path.chars().filter(|char| outside(*char)).collect()
}

/// The section that a key holds, or that the items of its list are.
fn below(field: &Field) -> Option<&'static Section> {
    match (field.kind)() {
        Kind::Section(section) => Some(section),
        Kind::List(item) => match *item {
            Kind::Section(section) => Some(section),
            _ => None,
        },
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::super::check::tests::{load, load_reading, minimal};
    use super::*;

    fn between(old: &str, new: &str) -> Vec<Change> {
        let load = |text: &str| {
            load(&format!("{}{text}", minimal()), &[]).unwrap_or_else(|problems| panic!("{problems}"))
        };
        changes(&load(old), &load(new))
    }

    fn texts(old: &str, new: &str) -> Vec<String> {
        between(old, new).iter().map(Change::to_string).collect()
    }

    #[test]
    fn what_comes_to_the_same_is_no_change() {
        assert!(between("", "timeouts: { idle: 75s }\nroutes: []\nlog: info\n").is_empty());
        let reference = load(&super::super::reference(), &[]).unwrap();
        assert_eq!(changes(&reference, &load(minimal(), &[]).unwrap()), []);
    }

    #[test]
    fn values_change_and_items_come_and_go() {
        assert_eq!(texts("", "timeouts: { idle: 30s }"), ["timeouts.idle: 75s -> 30s"]);
        assert_eq!(texts("service: { version: '1' }", ""), ["service.version: removed 1"]);
        let added = "service: { version: '1', attributes: { a: b } }";
        assert_eq!(texts("", added), ["service.version: added 1", "service.attributes.a: added b"]);
        let routes = |list: &str| format!("routes: [{list}]");
        assert_eq!(
            texts(&routes("/a, /b"), &routes("/b, '/models/{id}'")),
            ["routes: removed /a", "routes: added /models/{id}"]
        );
        assert_eq!(
            texts("", "propagation: { formats: [baggage, tracecontext] }"),
            ["propagation.formats: [tracecontext, baggage] -> [baggage, tracecontext]"]
        );
        assert_eq!(
            texts("", "exclude: { rules: [{ path: /healthz }] }"),
            ["exclude.rules: added { path: /healthz }"]
        );
        assert_eq!(
            texts("service: { attributes: { team.a: x } }", "service: { attributes: { team.a: y, b: z } }"),
            ["service.attributes[\"team.a\"]: x -> y", "service.attributes.b: added z"]
        );
    }

    #[test]
    fn listeners_are_known_by_their_addresses_and_destinations_by_their_hosts() {
        let mapped = |items: &str| format!("outbound: {{ mapped: [{items}] }}");
        let (one, two) =
            ("{ listen: '127.0.0.1:1', to: 'http://a' }", "{ listen: '127.0.0.1:2', to: 'http://b' }");
        let other = "{ listen: '127.0.0.1:2', to: 'http://c' }";
        assert_eq!(
            texts(&mapped(&format!("{one}, {two}")), &mapped(other)),
            [
                "outbound.mapped: removed { listen: 127.0.0.1:1, to: http://a:80 }",
                "outbound.mapped[127.0.0.1:2].to: http://b:80 -> http://c:80",
            ]
        );
        assert!(texts(&mapped(&format!("{one}, {two}")), &mapped(&format!("{two}, {one}"))).is_empty());
        let destinations = |items: &str| format!("outbound: {{ destinations: [{items}] }}");
        assert_eq!(
            texts(
                &destinations("{ host: a }, { host: b }"),
                &destinations("{ host: b, strip: true }, { host: a }")
            ),
            ["outbound.destinations[b].strip: false -> true", "outbound.destinations: [a, b] -> [b, a]",]
        );
    }

    #[test]
    fn a_secret_that_changed_is_said_to_have_changed_and_no_more() {
        let otlp = |endpoint: &str, key: &str| {
            format!(
                "export: {{ otlp: {{ endpoint: 'https://{endpoint}', headers: {{ x-api-key: '{key}' }} }} }}"
            )
        };
        let changed = between(&otlp("me:old@c", "hunter2"), &otlp("me:new@c", "hunter3"));
        let shown: Vec<_> = changed.iter().map(Change::to_string).collect();
        assert_eq!(shown, ["export.otlp.endpoint: changed", "export.otlp.headers.x-api-key: changed"]);
        assert!(!format!("{changed:?}").contains("hunter"), "{changed:?}");
        assert!(between(&otlp("me:old@c", "hunter2"), &otlp("me:old@c", "hunter2")).is_empty());
    }

    #[test]
    fn a_file_that_holds_something_else_is_a_change() {
        let text = format!(
            "{}admin: {{ token_file: /t }}\nexport: {{ otlp: {{ endpoint: 'https://c', certificate: /ca.pem }} }}",
            minimal()
        );
        let load = |token: &str, pem: &str| {
            let read = |path: &Path| Ok(if path == Path::new("/t") { token } else { pem }.to_owned());
            load_reading(&text, &[], &read).unwrap()
        };
        let texts = |old, new| -> Vec<String> { changes(&old, &new).iter().map(Change::to_string).collect() };
        assert_eq!(
            texts(load("a", "pem"), load("b", "mep")),
            ["admin.token_file: changed", "export.otlp.certificate: changed"]
        );
        assert!(texts(load("a", "pem"), load("a", "pem")).is_empty());
        let missing = load_reading(&text, &[], &|path| match path == Path::new("/t") {
            true => Ok("a".to_owned()),
            false => Err(std::io::ErrorKind::NotFound.into()),
        });
        assert_eq!(texts(missing.unwrap(), load("a", "pem")), ["export.otlp.certificate: changed"]);
    }

    #[test]
    fn a_change_says_when_it_counts_and_whether_it_needs_a_restart() {
        let only = |text: &str| between("", text).remove(0);
        assert!(only("runtime: { workers: 2 }").start_only.is_some());
        let drain = only("runtime: { drain: 2s }");
        assert_eq!((drain.start_only, drain.effect), (None, "at the next stop"));
        assert_eq!(only("timeouts: { idle: 2s }").effect, "for new connections");
        assert_eq!(only("timeouts: { connect: 2s }").effect, NEXT_REQUEST);
        assert_eq!(only("routes: [/a]").effect, NEXT_REQUEST);
        assert!(rules("outbound.mapped[[::1]:8031].listen").1.starts_with("a new listener opens"));
        assert_eq!(rules("outbound.mapped[[::1]:8031].to").1, "from the next call on");
        assert_eq!(rules("outbound.destinations[trace.certificate].strip").1, "from the next call on");
        assert_eq!(
            only("export: { otlp: { endpoint: 'http://c' } }").effect,
            "queued spans go to the new receiver"
        );
    }
}
