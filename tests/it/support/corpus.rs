//! Files of `tests/corpus` that hold bytes: lines of `key: value`, a line `---`, and the bytes with escapes.

use std::path::{Path, PathBuf};

/// A file of a corpus.
pub struct Entry {
    /// `length/plus`: the file without its ending.
    pub name: String,
    about: Vec<(String, String)>,
    pub bytes: Vec<u8>,
}

/// Every file of a folder of `tests/corpus`, by name. A key that is not of `keys` is a mistake.
pub fn entries(folder: &str, keys: &[&str]) -> Vec<Entry> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let mut files = Vec::new();
    collect(&root, &mut files);
    files.sort();
    assert!(!files.is_empty(), "{folder} is empty");
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(&root).expect("it is below").with_extension("");
        let text = std::fs::read_to_string(path).expect("a case can be read");
        Entry::parse(name.to_str().expect("a plain name"), &text, keys)
    };
    files.iter().map(read).collect()
}

fn collect(folder: &Path, files: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the corpus is there") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            collect(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "txt") {
            files.push(path);
        }
    }
}

impl Entry {
    fn parse(name: &str, text: &str, keys: &[&str]) -> Self {
        let (about, bytes) = text.split_once("\n---\n").unwrap_or_else(|| panic!("{name} has no ---"));
        let pair = |line: &str| {
            let (key, value) = line.split_once(':').unwrap_or_else(|| panic!("{name}: {line} is no pair"));
            assert!(keys.contains(&key), "{name}: {key} is no key");
            (key.to_owned(), value.trim().to_owned())
        };
        Self { name: name.to_owned(), about: about.lines().map(pair).collect(), bytes: unescape(bytes) }
    }

    /// The value of a key; the first, where there are several.
    pub fn value(&self, key: &str) -> Option<&str> {
        self.about.iter().find(|(given, _)| given == key).map(|(_, value)| value.as_str())
    }

    /// The value of a key that may not be missing.
    pub fn required(&self, key: &str) -> &str {
        self.value(key).unwrap_or_else(|| panic!("{} says nothing of {key}", self.name))
    }

    /// The values of a key, as the bytes that they stand for.
    pub fn texts(&self, key: &str) -> Vec<Vec<u8>> {
        self.about.iter().filter(|(given, _)| given == key).map(|(_, value)| unescape(value)).collect()
    }
}

/// The bytes that a text stands for: `\r`, `\n`, `\t`, `\\`, `\xHH` and `\{N*TEXT}`; line ends of the file are none.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some(next) = rest.chars().next() {
        rest = &rest[next.len_utf8()..];
        if next == '\n' {
            continue;
        }
        if next != '\\' {
            bytes.extend_from_slice(next.encode_utf8(&mut [0; 4]).as_bytes());
            continue;
        }
        let kind = rest.chars().next().expect("something is behind a backslash");
        rest = &rest[1..];
        match kind {
            'r' => bytes.push(b'\r'),
            'n' => bytes.push(b'\n'),
            't' => bytes.push(b'\t'),
            '\\' => bytes.push(b'\\'),
            'x' => {
                bytes.push(u8::from_str_radix(&rest[..2], 16).expect("two digits"));
                rest = &rest[2..];
            }
            '{' => {
                let (inside, behind) = rest.split_once('}').expect("a repetition ends");
                let (times, what) = inside.split_once('*').expect("a repetition has a number");
                bytes.extend(unescape(what).repeat(times.parse().expect("a number")));
                rest = behind;
            }
            other => panic!("\\{other} is no escape"),
        }
    }
    bytes
}

/// Runs the cases of a rule, a few at a time, and tells all that is wrong with them.
///
/// # Panics
/// If something is wrong, or there is no such case.
pub fn hold<C: Send + Sync>(
    rule: &str,
    cases: Vec<C>,
    rule_of: impl Fn(&C) -> &str,
    problems: impl Fn(&C) -> Vec<String> + Sync,
) {
    let cases: Vec<C> = cases.into_iter().filter(|case| rule_of(case) == rule).collect();
    assert!(!cases.is_empty(), "{rule} has no case");
    let threads = std::thread::available_parallelism().map_or(2, usize::from);
    let share = cases.len().div_ceil(threads);
    let told: Vec<String> = std::thread::scope(|scope| {
        let run = |cases: &[C]| cases.iter().flat_map(&problems).collect::<Vec<_>>();
        let shares: Vec<_> = cases.chunks(share).map(|cases| scope.spawn(move || run(cases))).collect();
        shares.into_iter().flat_map(|share| share.join().expect("a share does not panic")).collect()
    });
    assert!(told.is_empty(), "{rule}: {} problems\n{}", told.len(), told.join("\n"));
}
