//! What a key can hold, and how it describes itself.
//!
//! A [`Value`] can be read from a node, written back, and described. A section is a mapping with known keys, declared
//! with `section!` in `file`; a leaf is a scalar with a meaning of its own (`leaf`, `web`). Here are the trait and
//! the containers: optional values, lists, and mappings with the user's own keys.

use std::collections::HashSet;

use super::excerpt::{self, Seen};
use super::leaf::{Leaf, Wrong};
use super::problem::{Place, quote};
use super::reader::{Given, Reader, What, step};
use super::tree::Content;
use super::write::Written;

/// Something that a key can hold.
pub(super) trait Value: Sized {
    /// What excerpts of the file show of a scalar in its place. Nothing where it should not be a scalar.
    const SEEN: Seen = Seen::Never;

    /// What it is, for people, references and schemas.
    fn kind() -> Kind;
    /// The value of a node. `None` means that a finding was noted.
    fn read(reader: &mut Reader<'_>, given: &Given<'_>) -> Option<Self>;
    /// The value as the file would hold it, without secrets; `None` where there is nothing to write.
    fn write(&self) -> Option<Written>;
}

/// The description of a [`Value`].
pub(super) enum Kind {
    /// A scalar.
    Leaf(Shape),
    /// A sequence.
    List(Box<Kind>),
    /// A mapping with keys that the user chooses.
    Map(Box<Kind>),
    /// A mapping with known keys.
    Section(&'static Section),
}

/// What a scalar looks like.
pub(super) struct Shape {
    /// All texts that it can be, where they are few.
    pub names: Vec<&'static str>,
    /// What YAML takes it for.
    pub form: Form,
}

/// What YAML takes a scalar for.
pub(super) enum Form {
    /// Text, and an expression that matches all of it that can be used, and little else.
    Text(Option<&'static str>),
    /// `true` or `false`.
    Truth,
    /// A whole number.
    Whole { min: usize, max: usize },
    /// A number from 0 to 1.
    Share,
}

/// A mapping with known keys.
pub(super) struct Section {
    /// In the order in which the reference shows them.
    pub fields: &'static [Field],
}

/// One key of a section: the one place that says everything about it.
pub(super) struct Field {
    /// The key.
    pub name: &'static str,
    /// Its unit and one line of why.
    pub doc: &'static str,
    /// What it is where it is not written, as YAML; `None` where it must be.
    pub default: Option<&'static str>,
    /// A value to show where the default shows little.
    pub example: Option<&'static str>,
    /// What a change of it does, and when; `None` where the section above says it.
    pub applies: Option<&'static str>,
    /// Why it is read at start only, where it is.
    pub fixed: Option<&'static str>,
    /// What it holds.
    pub kind: fn() -> Kind,
}

/// A type that `section!` declared.
pub(super) trait Keys {
    const SECTION: &'static Section;
}

impl<T: Leaf> Value for T {
    const SEEN: Seen = <T as Leaf>::SEEN;

    fn kind() -> Kind {
        Kind::Leaf(Shape { names: T::names(), form: T::FORM })
    }

    fn read(reader: &mut Reader<'_>, given: &Given<'_>) -> Option<Self> {
        reader.written(given.place);
        // Brackets by mistake change nothing about what is in them.
        if let What::List(items) = given.what {
            let scalars = items.iter().filter(|item| matches!(item.content, Content::Scalar { .. }));
            reader.seen.extend(scalars.map(|item| (item.place, <T as Leaf>::SEEN)));
        }
        let What::Text { text, plain } = &given.what else {
            let instead = format!("write {}", T::WHAT);
            reader.wrong(given.place, format!("{}, but must be {}", given.what.name(), T::WHAT), instead);
            return None;
        };
        if T::BARE && !plain {
            let message = format!("is the text {}, but must be {}", quote(text), T::WHAT);
            reader.wrong(given.place, message, "leave the quotes out");
            return None;
        }
        T::parse(text).map_err(|Wrong { message, instead }| reader.wrong(given.place, message, instead)).ok()
    }

    fn write(&self) -> Option<Written> {
        Some(Written::Scalar { text: self.show(), bare: T::BARE, hidden: self.hidden() })
    }
}

impl<T: Value> Value for Option<T> {
    const SEEN: Seen = T::SEEN;

    fn kind() -> Kind {
        T::kind()
    }

    fn read(reader: &mut Reader<'_>, given: &Given<'_>) -> Option<Self> {
        match given.what {
            What::Empty => Some(None),
            _ => T::read(reader, given).map(Some),
        }
    }

    fn write(&self) -> Option<Written> {
        self.as_ref().and_then(T::write)
    }
}

impl<T: Value> Value for Vec<T> {
    const SEEN: Seen = T::SEEN;

    fn kind() -> Kind {
        Kind::List(Box::new(T::kind()))
    }

    fn read(reader: &mut Reader<'_>, given: &Given<'_>) -> Option<Self> {
        let items = match &given.what {
            What::List(items) => {
                reader.written(given.place);
                *items
            }
            What::Empty => &[],
            What::Text { text, plain: true } if text.starts_with('-') => {
                reader.wrong(
                    given.place,
                    "is a single value, but must be a list",
                    "put a space behind each dash",
                );
                return None;
            }
            What::Text { text, .. } => {
                let instead = match T::SEEN {
                    Seen::All => {
                        format!("write [{}]", text.chars().take(60).collect::<String>().replace('\n', " "))
                    }
                    _ => "begin each item with `- `".to_owned(),
                };
                reader.wrong(given.place, "is a single value, but must be a list", instead);
                return None;
            }
            What::Map(_) => {
                reader.wrong(given.place, "is a mapping, but must be a list", "begin each item with `- `");
                return None;
            }
        };
        let mut read = Vec::new();
        for (index, node) in items.iter().enumerate() {
            reader.below(&format!("[{index}]"), |reader| {
                let Some(given) = reader.resolve::<T>(node) else { return };
                match given.what {
                    What::Empty => reader.wrong(given.place, "is empty", "write a value, or remove the item"),
                    _ => read.extend(T::read(reader, &given)),
                }
            });
        }
        Some(read)
    }

    fn write(&self) -> Option<Written> {
        Some(Written::List(self.iter().filter_map(T::write).collect()))
    }
}

/// A mapping with keys that the user chooses, in the order of the file.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Map<K, V>(pub Vec<(K, V)>);

impl<K: Leaf, V: Value> Value for Map<K, V> {
    fn kind() -> Kind {
        Kind::Map(Box::new(V::kind()))
    }

    fn read(reader: &mut Reader<'_>, given: &Given<'_>) -> Option<Self> {
        let mut read = Vec::new();
        let mut seen = HashSet::new();
        reader.written(given.place);
        for (key, place, node) in reader.entries(given, "")? {
            // Beside secrets, what cannot be a key may be one with its value.
            let hides = V::SEEN != Seen::All && K::parse(key).is_err();
            let key = if hides { excerpt::key(key) } else { key.to_owned() };
            reader.seen.push((place, if hides { Seen::Key } else { Seen::All }));
            reader.below(&step(&key), |reader| {
                let parsed = K::parse(&key)
                    .map_err(|Wrong { message, instead }| reader.wrong(place, message, instead));
                let Some(given) = reader.resolve::<V>(node) else { return };
                if matches!(given.what, What::Empty) {
                    // `${TOKEN}` of a variable that is not set: worth a word, but no reason not to start.
                    let warning = format!("{} is empty and left out", reader.path());
                    reader.warnings.push((warning, given.place));
                    return;
                }
                let value = V::read(reader, &given);
                if let (Ok(key), Some(value)) = (parsed, value) {
                    // Header names that differ in case only are one header.
                    match seen.insert(key.show()) {
                        true => read.push((key, value)),
                        false => reader.wrong(place, "is given twice", "remove one of the two"),
                    }
                }
            });
        }
        Some(Self(read))
    }

    fn write(&self) -> Option<Written> {
        let entry = |(key, value): &(K, V)| value.write().map(|value| (key.show(), value));
        Some(Written::Map(self.0.iter().filter_map(entry).collect()))
    }
}

/// A value that remembers where it was written, for checks that need several values.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct At<T> {
    pub value: T,
    /// Its YAML path, or the flag that gave it; empty for a default, and for what the environment gave.
    pub path: String,
    /// Its place, where it is written in the file.
    pub place: Option<Place>,
}

impl<T> At<T> {
    /// A value that was not written in the file.
    pub fn elsewhere(path: &str, value: T) -> Self {
        Self { value, path: path.to_owned(), place: None }
    }
}

impl<T: Value> Value for At<T> {
    const SEEN: Seen = T::SEEN;

    fn kind() -> Kind {
        T::kind()
    }

    fn read(reader: &mut Reader<'_>, given: &Given<'_>) -> Option<Self> {
        let path = reader.path().to_owned();
        // Defaults are read with an empty path, and from a text that nobody wrote.
        let place = (!path.is_empty()).then_some(given.place);
        T::read(reader, given).map(|value| Self { value, path, place })
    }

    fn write(&self) -> Option<Written> {
        self.value.write()
    }
}
