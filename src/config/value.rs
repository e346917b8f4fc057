//! What a key can hold, and how it describes itself.
//!
//! A [`Value`] can be read from a node, written back, and described. A section is a mapping with known keys, declared
//! with `section!` in `file`; a leaf is a scalar with a meaning of its own (`leaf`, `web`). Here are the trait and
//! the containers: optional values, lists, and mappings with the user's own keys.

use std::collections::HashSet;

use super::leaf::{Leaf, Wrong};
use super::problem::{Place, quote};
use super::reader::{Given, Reader, What, step};
use super::write::Written;

/// Something that a key can hold.
pub(super) trait Value: Sized {
    /// What it is, for people, references and schemas.
    fn kind() -> Kind;
    /// The value of a node. `None` means that a finding was noted.
    fn read(reader: &mut Reader<'_>, given: &Given<'_>) -> Option<Self>;
    /// The value as the file would hold it, without secrets; `None` where there is nothing to write.
    fn write(&self) -> Option<Written>;
}

/// The description of a [`Value`].
pub(super) enum Kind {
    /// A scalar, and all texts that it can be, where they are few.
    Leaf { names: Vec<&'static str> },
    /// A sequence.
    List(Box<Kind>),
    /// A mapping with keys that the user chooses.
    Map,
    /// A mapping with known keys.
    Section(&'static Section),
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
    /// What it holds.
    pub kind: fn() -> Kind,
}

/// A type that `section!` declared.
pub(super) trait Keys {
    const SECTION: &'static Section;
}

impl<T: Leaf> Value for T {
    fn kind() -> Kind {
        Kind::Leaf { names: T::names() }
    }

    fn read(reader: &mut Reader<'_>, given: &Given<'_>) -> Option<Self> {
        if T::SECRET {
            reader.secrets.push(given.place);
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
        Some(Written::Scalar { text: self.show(), bare: T::BARE })
    }
}

impl<T: Value> Value for Option<T> {
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
    fn kind() -> Kind {
        Kind::List(Box::new(T::kind()))
    }

    fn read(reader: &mut Reader<'_>, given: &Given<'_>) -> Option<Self> {
        let items = match &given.what {
            What::List(items) => *items,
            What::Empty => &[],
            What::Text { text, .. } => {
                let instead =
                    format!("write [{}]", text.chars().take(60).collect::<String>().replace('\n', " "));
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
                let Some(given) = reader.resolve(node) else { return };
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

impl<K: Leaf, V: Leaf> Value for Map<K, V> {
    fn kind() -> Kind {
        Kind::Map
    }

    fn read(reader: &mut Reader<'_>, given: &Given<'_>) -> Option<Self> {
        let mut read = Vec::new();
        let mut seen = HashSet::new();
        for (key, place, node) in reader.entries(given, "")? {
            reader.below(&step(key), |reader| {
                let parsed =
                    K::parse(key).map_err(|Wrong { message, instead }| reader.wrong(place, message, instead));
                let Some(given) = reader.resolve(node) else { return };
                if matches!(given.what, What::Empty) {
                    // `${TOKEN}` of a variable that is not set: worth a word, but no reason not to start.
                    let warning = format!("{} is empty and left out", reader.path());
                    reader.warnings.push(warning);
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
