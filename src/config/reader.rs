//! From nodes to values: the walk over a tree.
//!
//! Reading never stops at a finding: it notes it, goes on with the default, and so finds all of them. Variables are
//! put in here, on the way; what the values mean is theirs to say (`value`).

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::ops::Range;
use std::rc::Rc;

use super::excerpt::{self, Seen};
use super::origin::Origins;
use super::problem::{Findings, Place, Problem, quote};
use super::substitute::{self, Invalid, substitute};
use super::tree::{self, Content, Node};
use super::value::{Field, Kind, Section, Value};

/// How variables are referred to.
const REFERENCES: &str = "write ${NAME}, ${env:NAME} or ${NAME:-default}; a dollar sign itself is $$";

/// A node after substitution.
pub(super) struct Given<'n> {
    pub place: Place,
    pub what: What<'n>,
}

/// What a node holds after substitution. Only now is it decided whether a scalar is empty (CFG-3).
pub(super) enum What<'n> {
    /// Nothing, `null`, `~`, or a text of no characters: as if the key were not there.
    Empty,
    /// A scalar; `plain` without quotes.
    Text { text: Cow<'n, str>, plain: bool },
    /// A sequence.
    List(&'n [Rc<Node>]),
    /// A mapping.
    Map(&'n [(Rc<Node>, Rc<Node>)]),
}

impl What<'_> {
    pub fn name(&self) -> &'static str {
        match self {
            What::Empty => "is empty",
            What::Text { .. } => "is a single value",
            What::List(_) => "is a list",
            What::Map(_) => "is a mapping",
        }
    }
}

/// Walks a tree and notes what it finds.
pub(super) struct Reader<'a> {
    /// Variables for `${…}`.
    env: &'a dyn Fn(&str) -> Option<String>,
    /// Where unknown keys are looked for.
    root: &'static Section,
    path: String,
    substituted: usize,
    /// What is wrong.
    pub findings: Findings,
    /// What works, but hardly as meant.
    pub warnings: Vec<(String, Place)>,
    /// Where values are written.
    pub origins: Origins,
    /// What excerpts of the file show. What nobody read is not among it.
    pub seen: Vec<(Place, Seen)>,
}

impl<'a> Reader<'a> {
    pub fn new(root: &'static Section, env: &'a dyn Fn(&str) -> Option<String>) -> Self {
        Self {
            env,
            root,
            path: String::new(),
            substituted: 0,
            findings: Findings::default(),
            warnings: Vec::new(),
            origins: Origins::default(),
            seen: Vec::new(),
        }
    }

    /// Notes a finding about the value that is being read.
    pub fn wrong(&mut self, place: Place, message: impl Into<String>, instead: impl Into<String>) {
        let (message, instead) = (message.into(), instead.into());
        let subject = if self.path().is_empty() { "the file" } else { self.path() };
        self.findings.add(Problem { subject: subject.to_owned(), message, place: Some(place), instead });
    }

    /// Notes that the value that is being read is written at `place`.
    pub fn written(&mut self, place: Place) {
        let path = self.path.trim_start_matches('.');
        self.origins.written(path, place);
    }

    /// The YAML path of the value that is being read.
    pub fn path(&self) -> &str {
        self.path.trim_start_matches('.')
    }

    /// The value of the tree, and what stands in its place where it has none.
    pub fn read<T: Value>(&mut self, node: &Node) -> Option<T> {
        let given = self.resolve::<T>(node)?;
        T::read(self, &given)
    }

    /// Reads with `step` added to the path.
    pub fn below<T>(&mut self, step: &str, read: impl FnOnce(&mut Self) -> T) -> T {
        let length = self.path.len();
        self.path.push_str(step);
        let value = read(self);
        self.path.truncate(length);
        value
    }

    /// The node of a `T` with its variables put in. `None` where that found something wrong.
    pub fn resolve<'n, T: Value>(&mut self, node: &'n Node) -> Option<Given<'n>> {
        let place = node.place;
        let (text, plain) = match &node.content {
            Content::List(items) => return Some(Given { place, what: What::List(items) }),
            Content::Map(entries) => return Some(Given { place, what: What::Map(entries) }),
            Content::Scalar { text, plain } => (text, *plain),
        };
        if !text.is_empty() {
            self.seen.push((place, T::SEEN));
        }
        let text = match substitute(text, self.env) {
            Ok(text) => text,
            Err(Invalid::Reference(bytes)) => {
                match T::SEEN {
                    Seen::All => self.invalid_reference(place, text, plain, bytes),
                    Seen::Url if excerpt::url(text) == *text => {
                        self.invalid_reference(place, text, plain, bytes)
                    }
                    _ => self.wrong(place, "holds ${, but no reference to a variable", REFERENCES),
                }
                return None;
            }
            Err(Invalid::TooLong) => return self.too_long(place),
        };
        if let Cow::Owned(text) = &text {
            self.substituted += text.len();
            if self.substituted > substitute::MAX_BYTES {
                return self.too_long(place);
            }
        }
        let null = plain && matches!(&*text, "~" | "null" | "Null" | "NULL");
        let what = if text.is_empty() || null { What::Empty } else { What::Text { text, plain } };
        Some(Given { place, what })
    }

    fn too_long<T>(&mut self, place: Place) -> Option<T> {
        self.wrong(place, "all variables together hold more than 1 MiB", "shorten their values");
        None
    }

    fn invalid_reference(&mut self, place: Place, text: &str, plain: bool, bytes: Range<usize>) {
        let reference = &text[bytes.clone()];
        // Escapes and folded lines move characters about, so only a plain scalar tells where in it we are.
        let exact = plain && text.chars().count() == place.width;
        let place = match exact {
            true => Place {
                column: place.column + text[..bytes.start].chars().count(),
                width: reference.chars().count(),
                ..place
            },
            false => place,
        };
        self.wrong(place, format!("{} is not a reference to a variable", quote(reference)), REFERENCES);
    }

    /// The entries of a mapping by their keys. Keys are never substituted (CFG-3).
    pub fn entries<'n>(&mut self, given: &Given<'n>, known: &str) -> Option<Vec<(&'n str, Place, &'n Node)>> {
        let entries = match given.what {
            What::Map(entries) => entries,
            What::Empty => &[],
            _ => {
                let message = format!("{}, but must be a mapping", given.what.name());
                let instead = match &given.what {
                    What::Text { text, plain: true } if text.contains(':') => "put a space behind the colon",
                    What::List(_) => "write `key: value` without dashes or brackets",
                    _ => "write each `key: value` on a line of its own below it, indented",
                };
                self.wrong(given.place, message, format!("{instead}{known}"));
                return None;
            }
        };
        let mut first: HashMap<&str, usize> = HashMap::new();
        let mut read = Vec::with_capacity(entries.len());
        for (key, value) in entries {
            let Content::Scalar { text, .. } = &key.content else {
                self.wrong(key.place, "a list or mapping cannot be a key", "write a word before the colon");
                continue;
            };
            match first.get(text.as_str()) {
                None => {
                    first.insert(text, key.place.line);
                    read.push((text.as_str(), key.place, &**value));
                }
                Some(line) => {
                    let instead = format!("remove one of the two; the first is on line {line}");
                    self.seen.push((key.place, Seen::Key));
                    let step = step(&excerpt::key(text));
                    self.below(&step, |reader| reader.wrong(key.place, "is given twice", instead));
                }
            }
        }
        Some(read)
    }

    /// The entries of a mapping with known keys; unknown ones are noted.
    pub fn section<'n>(&mut self, given: &Given<'n>, section: &Section) -> Option<Entries<'n>> {
        let known = format!("; known here: {}", names(section));
        let mut nodes = BTreeMap::new();
        for (key, place, node) in self.entries(given, &known)? {
            if section.fields.iter().any(|field| field.name == key) {
                self.seen.push((place, Seen::All));
                nodes.insert(key, node);
                continue;
            }
            let instead = match self.findings.is_full() {
                true => String::new(),
                false => suggest(key, section, self.root),
            };
            self.seen.push((place, Seen::Key));
            let step = step(&excerpt::key(key));
            self.below(&step, |reader| reader.wrong(place, "is not a known key", instead));
        }
        Some(Entries { place: given.place, nodes })
    }

    /// The value of one key, or its default. `None` only where it has none and was not written, or wrongly.
    pub fn field<T: Value>(&mut self, entries: &Entries<'_>, field: &Field) -> Option<T> {
        let read = self.below(&step(field.name), |reader| {
            let node = *entries.nodes.get(field.name)?;
            let given = reader.resolve::<T>(node)?;
            if !matches!(given.what, What::Empty) {
                return T::read(reader, &given);
            }
            if field.default.is_none() {
                let instead =
                    format!("write {}, or set the variable in it", field.example.unwrap_or_default());
                reader.wrong(given.place, "is empty", instead);
            }
            None
        });
        if read.is_some() {
            return read;
        }
        if let Some(default) = field.default {
            return Some(default_value(default, self.root));
        }
        self.below(&step(field.name), |reader| {
            // It may be missing only because what is written was found wrong.
            if !reader.findings.touch(reader.path()) {
                let instead = format!("write {}: {}", field.name, field.example.unwrap_or_default());
                reader.wrong(entries.place, "is missing", instead);
            }
        });
        None
    }
}

/// The entries of a section.
pub(super) struct Entries<'n> {
    place: Place,
    nodes: BTreeMap<&'n str, &'n Node>,
}

/// The value that `text`, a default of ours, stands for.
fn default_value<T: Value>(text: &str, root: &'static Section) -> T {
    let nothing = |_: &str| None;
    let tree = tree::parse(text).expect("the defaults of `file` are YAML");
    let mut reader = Reader::new(root, &nothing);
    // A test reads the default of every key.
    reader.read(&tree).expect("the defaults of `file` are values of their keys")
}

/// A key as a part of a path.
pub(super) fn step(key: &str) -> String {
    let word = |char: char| char.is_ascii_alphanumeric() || "_-".contains(char);
    match key.chars().all(word) && !key.is_empty() {
        true => format!(".{key}"),
        false => format!("[{}]", quote(key)),
    }
}

fn names(section: &Section) -> String {
    section.fields.iter().map(|field| field.name).collect::<Vec<_>>().join(", ")
}

/// What somebody who wrote `key` probably meant.
fn suggest(key: &str, section: &Section, root: &'static Section) -> String {
    if key == "<<" {
        return "YAML 1.2 has no merge keys: write the keys out, or use an alias for the whole value"
            .to_owned();
    }
    let meant = normal(key);
    // The distance costs the product of both lengths, and nobody meant a key of a thousand characters.
    if meant.len() <= 64 {
        let near = section.fields.iter().map(|field| (distance(&meant, field.name), field.name)).min();
        if let Some((distance, name)) = near
            && distance <= (meant.chars().count() / 3).max(1)
        {
            return format!("write {name}");
        }
        if let Some(path) = elsewhere(&meant, root, "") {
            return format!("write it as {path}");
        }
    }
    format!("known here: {}", names(section))
}

/// `maxSpans` and `max-spans` as `max_spans`.
fn normal(key: &str) -> String {
    let mut out = String::new();
    for char in key.chars() {
        if char.is_uppercase() && !out.is_empty() && !out.ends_with('_') {
            out.push('_');
        }
        out.extend(char.to_lowercase());
    }
    out.replace('-', "_")
}

fn distance(meant: &str, name: &str) -> usize {
    strsim::damerau_levenshtein(meant, name)
}

fn elsewhere(name: &str, section: &Section, path: &str) -> Option<String> {
    let below = |field: &Field| match (field.kind)() {
        Kind::Section(section) => elsewhere(name, section, &format!("{path}{}.", field.name)),
        _ => None,
    };
    let here = section.fields.iter().find(|field| field.name == name);
    here.map(|field| format!("{path}{}", field.name)).or_else(|| section.fields.iter().find_map(below))
}
