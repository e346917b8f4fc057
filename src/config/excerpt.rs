//! What an excerpt of the file may show.
//!
//! Known keys, punctuation, and values that a key took for what is no secret. All else is covered: nobody can tell
//! what a text is that stands where it was not expected. A file that is not YAML shows no more than its structure.

use std::collections::HashSet;
use std::ops::Range;

use super::problem::{Place, mask_userinfo};
use super::value::{Kind, Section};

/// What may be seen of a text in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Seen {
    /// Nothing, wherever else the same text stands for something.
    Never,
    /// A key that is not known, up to the end of its first word: see [`key`].
    Key,
    /// What looks like the path of a file.
    Path,
    /// A URL without its user, password and query.
    Url,
    /// All of it.
    All,
}

/// A stretch of the file, from a line and column up to another, all from 1.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stretch {
    pub start: (usize, usize),
    pub end: (usize, usize),
}

/// The lines of a file as excerpts may show them.
pub(super) struct Excerpts<'a> {
    lines: Vec<&'a str>,
    /// Where its scalars are; `None` for what is not YAML.
    scalars: Option<Vec<Stretch>>,
    seen: &'a [(Place, Seen)],
    keys: HashSet<&'static str>,
    /// The last line that was asked for: one line can hold many problems, and be long.
    last: Option<(usize, Vec<char>)>,
}

impl<'a> Excerpts<'a> {
    pub fn new(
        text: &'a str,
        scalars: Option<Vec<Stretch>>,
        seen: &'a [(Place, Seen)],
        root: &Section,
    ) -> Self {
        let mut keys = HashSet::new();
        names(root, &mut keys);
        Self { lines: text.lines().collect(), scalars, seen, keys, last: None }
    }

    /// A line, from 1, with `*` for each character that may not be seen.
    pub fn line(&mut self, number: usize) -> &[char] {
        if self.last.as_ref().is_none_or(|(last, _)| *last != number) {
            self.last = Some((number, self.covered(number)));
        }
        self.last.as_ref().map_or(&[], |(_, line)| line)
    }

    fn covered(&self, number: usize) -> Vec<char> {
        // The end of the file is a place on a line that is not there.
        let text = self.lines.get(number - 1).copied().unwrap_or_default();
        let text: Vec<char> = text.chars().map(|char| if char.is_control() { ' ' } else { char }).collect();
        let mut shown = match &self.scalars {
            Some(scalars) => self.values(number, &text, scalars),
            None => structure(&text),
        };
        for key in words(&text) {
            let name: String = text[key.clone()].iter().collect();
            let has_colon = is_key(&text, key.end);
            if (has_colon || is_alone(&text, &key)) && self.keys.contains(name.as_str()) {
                let with_colon = key.start..key.end + usize::from(has_colon);
                shown[with_colon.clone()].copy_from_slice(&text[with_colon]);
            }
        }
        // A URL may stand where none belongs.
        mask_userinfo(&mut shown);
        shown
    }

    /// A line of YAML.
    fn values(&self, number: usize, text: &[char], scalars: &[Stretch]) -> Vec<char> {
        let mut inside = vec![false; text.len()];
        for Stretch { start, end } in
            scalars.iter().filter(|scalar| (scalar.start.0..=scalar.end.0).contains(&number))
        {
            let from = if start.0 == number { start.1 - 1 } else { 0 };
            let to = if end.0 == number { end.1 - 1 } else { text.len() };
            let to = to.min(text.len());
            inside[from.min(to)..to].fill(true);
        }
        let mut shown = vec!['*'; text.len()];
        for (index, &char) in text.iter().enumerate().filter(|(index, _)| !inside[*index]) {
            if char == '#' && (index == 0 || text[index - 1].is_whitespace()) {
                // A comment, which may well be an old value.
                shown[index] = char;
                break;
            }
            // Letters outside of scalars are anchors, aliases and tags: `&` and `!` begin passwords, too.
            if char.is_whitespace() || char.is_ascii_punctuation() {
                shown[index] = char;
            }
        }
        let here = || {
            self.seen.iter().filter(|(place, _)| place.line == number).map(|(place, seen)| {
                let start = (place.column - 1).min(text.len());
                (start..(start + place.width).min(text.len()), *seen)
            })
        };
        for (range, seen) in here() {
            let part = &text[range.clone()];
            match seen {
                Seen::Never => {}
                Seen::All => shown[range].copy_from_slice(part),
                Seen::Key => shown[range].copy_from_slice(&key_chars(part)),
                Seen::Url => shown[range].copy_from_slice(&url_chars(part)),
                Seen::Path if is_path(&part.iter().collect::<String>()) => {
                    shown[range].copy_from_slice(part);
                }
                Seen::Path => {}
            }
        }
        // An alias may give one text to several keys.
        here().filter(|(_, seen)| *seen == Seen::Never).for_each(|(range, _)| shown[range].fill('*'));
        shown
    }
}

fn names(section: &Section, keys: &mut HashSet<&'static str>) {
    for field in section.fields {
        keys.insert(field.name);
        let mut kind = (field.kind)();
        while let Kind::List(inner) = kind {
            kind = *inner;
        }
        if let Kind::Section(section) = kind {
            names(section, keys);
        }
    }
}

/// A line that is not YAML: white space, brackets, quotes, colons, and the key that it begins with.
fn structure(text: &[char]) -> Vec<char> {
    if matches!(text, ['-', '-', '-'] | ['.', '.', '.']) {
        return text.to_vec();
    }
    let blank = |at: Option<&char>| at.is_none_or(|char| char.is_whitespace());
    let mut shown: Vec<char> = text
        .iter()
        .enumerate()
        .map(|(index, &char)| {
            let before = index.checked_sub(1).and_then(|before| text.get(before));
            let keeps = match char {
                '{' | '}' | '[' | ']' | ',' | '"' | '\'' => true,
                ':' => blank(text.get(index + 1)),
                '-' => blank(before) && blank(text.get(index + 1)),
                char => char.is_whitespace(),
            };
            if keeps { char } else { '*' }
        })
        .collect();
    if let Some(first) = words(text).next()
        && text[..first.start].iter().all(|char| char.is_whitespace() || "-{[\"'".contains(*char))
        && is_key(text, first.end)
    {
        shown[first.clone()].copy_from_slice(&text[first]);
    }
    shown
}

/// The words of a line, in the letters that keys and names of headers have.
fn words(text: &[char]) -> impl Iterator<Item = Range<usize>> {
    let word = |char: &char| char.is_ascii_alphanumeric() || "_-".contains(*char);
    let mut from = 0;
    std::iter::from_fn(move || {
        let start = from + text[from..].iter().position(|char| word(char) && *char != '-')?;
        let end =
            text[start..].iter().position(|char| !word(char)).map_or(text.len(), |length| start + length);
        from = end;
        Some(start..end)
    })
}

/// Whether a colon follows, maybe behind a quote.
fn is_key(text: &[char], end: usize) -> bool {
    matches!(text[end..], [':', ..] | ['"' | '\'', ':', ..])
}

/// Whether a word is all that its line holds: a key whose colon is missing, if it is one.
fn is_alone(text: &[char], word: &Range<usize>) -> bool {
    let blank = |char: &char| char.is_whitespace() || *char == '-';
    text[..word.start].iter().all(blank) && text[word.end..].iter().all(blank)
}

/// A key that is not known, or cannot be one, for a path or message. A missing colon makes its value a part of it, so
/// it is shown up to the end of its first word.
pub(super) fn key(text: &str) -> String {
    key_chars(&text.chars().collect::<Vec<_>>()).into_iter().collect()
}

fn key_chars(text: &[char]) -> Vec<char> {
    let (mut began, mut ended) = (false, false);
    let shown = |&char: &char| {
        let char = if ended && !char.is_whitespace() && !"\"'".contains(char) { '*' } else { char };
        ended |= began && (char.is_whitespace() || ":=".contains(char));
        began |= char.is_alphanumeric();
        char
    };
    text.iter().map(shown).collect()
}

/// A URL, or what should be one, for a message: without its user, password and query.
pub(super) fn url(text: &str) -> String {
    url_chars(&text.chars().collect::<Vec<_>>()).into_iter().collect()
}

fn url_chars(text: &[char]) -> Vec<char> {
    let mut shown = text.to_vec();
    let start = text.windows(3).position(|window| window == [':', '/', '/']).map_or(0, |at| at + 3);
    // Passwords hold slashes and question marks that should have been escaped, so the last `@` counts.
    if let Some(at) = text.iter().rposition(|&char| char == '@') {
        shown[start.min(at)..at].fill('*');
    }
    if let Some(query) = query(text) {
        let quote = text.last().filter(|last| text.first() == Some(last) && "\"'".contains(**last));
        let end = text.len() - usize::from(quote.is_some());
        shown[(query + 1).min(end)..end].fill('*');
    }
    // An escape in quotes may be any of these.
    if text.contains(&'\\') {
        shown.fill('*');
    }
    shown
}

/// Where the query of a URL begins. What stands in the braces of `${NAME:?text}` does not begin one.
fn query(text: &[char]) -> Option<usize> {
    let mut from = 0;
    while let Some(found) = text[from..].iter().position(|char| "?#$".contains(*char)) {
        let at = from + found;
        if text[at] != '$' {
            return Some(at);
        }
        let closed = match text[at + 1..] {
            ['{', ..] => text[at..].iter().position(|&char| char == '}'),
            _ => None,
        };
        from = at + closed.unwrap_or(1);
    }
    None
}

/// Whether a text looks like the path of a file, rather than like what belongs into that file.
pub(super) fn is_path(text: &str) -> bool {
    let text = text.trim_matches(['"', '\'']);
    if text.contains(|char: char| char.is_whitespace() || "+=".contains(char)) {
        return false;
    }
    let drive = text.get(1..3).is_some_and(|rest| matches!(rest, ":\\" | ":/"));
    let anchored = ["/", "./", "../", "~/"].iter().any(|start| text.starts_with(start));
    let variable = text.starts_with("${") && (text.ends_with('}') || text.contains("}/"));
    let extension = text.rsplit_once('.').is_some_and(|(name, extension)| {
        !name.is_empty()
            && (1..=5).contains(&extension.len())
            && extension.bytes().all(|byte| byte.is_ascii_alphanumeric())
    });
    drive || anchored || variable || extension
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_what_may_be_secret() {
        let cases = [
            ("http://c:4318/p", "http://c:4318/p"),
            ("https://me:pw@c/p", "https://*****@c/p"),
            ("me:pw@c:4318", "*****@c:4318"),
            ("https://me:p/w@c", "https://******@c"),
            ("me:p?w@c", "********"),
            ("c/?key=s x", "c/?*******"),
            ("'c/?key=s'", "'c/?*****'"),
            ("http://c:${PORT:?no port}", "http://c:${PORT:?no port}"),
            ("c/?key=a@b", "**********"),
            ("me:pw\\x40c", "**********"),
        ];
        for (text, expected) in cases {
            assert_eq!(url(text), expected);
        }
    }

    #[test]
    fn a_key_is_shown_up_to_what_may_be_its_value() {
        assert_eq!(key("max-spans"), "max-spans");
        assert_eq!(key("// the service"), "// the *******");
        assert_eq!(key("x-api-key=s3cret"), "x-api-key=******");
        assert_eq!(key("authorization:s3cret"), "authorization:******");
    }

    #[test]
    fn a_path_is_told_from_a_secret() {
        for path in ["/run/token", "./token", "token.txt", "C:\\token", "${DIR}/token", "'/run/token'"] {
            assert!(is_path(path), "{path}");
        }
        for secret in ["hunter2", "Bearer a/b", "/abc+d/ef==", "eyJhbGciOi.eyJzdWIi.SflKxwRJSM"] {
            assert!(!is_path(secret), "{secret}");
        }
    }
}
