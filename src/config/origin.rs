//! Where each value came from: a line of the file, a variable, a flag, or nowhere.

use std::collections::BTreeMap;
use std::fmt;

use super::problem::Place;

/// Where a value came from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Origin {
    /// Written in the file.
    File(Place),
    /// A variable of the environment that is laid over the file.
    Variable(String),
    /// The command line.
    Flag(&'static str),
    /// Nobody said anything.
    Default,
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::File(place) => write!(f, "file line {}", place.line),
            Origin::Variable(name) => f.write_str(name),
            Origin::Flag(name) => write!(f, "flag {name}"),
            Origin::Default => f.write_str("default"),
        }
    }
}

/// Origins by the paths of their values.
#[derive(Clone, Debug, Default)]
pub(super) struct Origins(BTreeMap<String, Origin>);

impl Origins {
    /// Notes where the value at `path` is written in the file.
    pub fn written(&mut self, path: &str, place: Place) {
        self.0.insert(path.to_owned(), Origin::File(place));
    }

    /// Notes that the value at `path`, and all below it, is from somewhere else now.
    pub fn replace(&mut self, path: &str, origin: Origin) {
        self.0.retain(|other, _| !is_below(other, path));
        self.0.insert(path.to_owned(), origin);
    }

    /// Where the value at `path` came from: what replaced a value as a whole gave its parts, too.
    pub fn of(&self, path: &str) -> &Origin {
        if let Some(origin) = self.0.get(path) {
            return origin;
        }
        let mut above = path;
        while let Some(end) = above.rfind(['.', '[']) {
            above = &above[..end];
            if let Some(origin @ (Origin::Variable(_) | Origin::Flag(_))) = self.0.get(above) {
                return origin;
            }
        }
        &Origin::Default
    }

    /// Where the value at `path` is written, if the file is where it came from.
    pub fn place(&self, path: &str) -> Option<Place> {
        match self.of(path) {
            Origin::File(place) => Some(*place),
            _ => None,
        }
    }
}

fn is_below(path: &str, above: &str) -> bool {
    path.strip_prefix(above).is_some_and(|rest| rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_replaces_a_value_replaces_its_parts() {
        let place = Place { line: 3, column: 1, width: 1 };
        let mut origins = Origins::default();
        origins.written("a.b", place);
        origins.written("a.b[0]", place);
        origins.written("a.bc", place);
        assert_eq!(
            origins.of("a.b[0].c"),
            &Origin::Default,
            "a list that is written does not write its items"
        );
        origins.replace("a.b", Origin::Flag("--b"));
        assert_eq!(origins.of("a.b[0].c"), &Origin::Flag("--b"));
        assert_eq!(origins.of("a.b[0]"), &Origin::Flag("--b"));
        assert_eq!(origins.of("a.bc"), &Origin::File(place));
    }
}
