//! Takes secrets out of what services say, before anybody sees it.
//!
//! Free text has no grammar, so this errs on the side of hiding: a value goes by the name it has (`password=…`), and by its
//! looks where it has none (`eyJ…`). Names are those of Sentry's list (SEN-51); it goes by substrings and without regard to
//! case, so `monkey: banana` is hidden, too. The redaction of queries in spans is another one, with other rules (SEN-52).
//!
//! Everything here is total, and looks at each byte a bounded number of times.

mod header;
mod looks;
mod pair;
mod path;
mod prose;
#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::ops::Range;

pub use self::header::{header, id};
pub use self::path::path;
use crate::telemetry::words::percent_decoded;

/// What stands in place of a secret.
pub const FILTERED: &str = "[Filtered]";

/// SEN-51, what signs and unlocks, and cookies, whose values are never sent as they are.
const DENIED: [&str; 20] = [
    "auth",
    "token",
    "secret",
    "password",
    "passwd",
    "passphrase",
    "pwd",
    "key",
    "jwt",
    "bearer",
    "sso",
    "saml",
    "csrf",
    "xsrf",
    "credential",
    "signature",
    "session",
    "sid",
    "identity",
    "cookie",
];

/// Denied only as whole words of a name: they are parts of too many others, as of `design` and `shipping`.
const DENIED_WORDS: [&str; 6] = ["sig", "pass", "pin", "otp", "cvv", "ssn"];

/// Values that are nobody's secret, and tell that there is none; the last is what a query in a record has in place of one.
const NOTHING: [&str; 7] = ["null", "none", "nil", "undefined", "true", "false", "REDACTED"];

/// The text without secrets.
pub fn text(text: &str) -> Cow<'_, str> {
    let shown = plain(text);
    if shown.contains('%') { without_encoded(&shown).map_or(shown, Cow::Owned) } else { shown }
}

/// The text without the secrets that stand in it as they are.
fn plain(text: &str) -> Cow<'_, str> {
    let mut scan = Scan::of(text);
    let bytes = scan.bytes;
    let mut out = String::new();
    let (mut at, mut copied) = (0, 0);
    while at < bytes.len() {
        let Some(secret) = scan.secret_at(at) else {
            at += 1;
            continue;
        };
        // Secrets begin and end beside ASCII characters; should one not, nothing of the rest is shown.
        out.push_str(text.get(copied..secret.start).unwrap_or_default());
        out.push_str(FILTERED);
        copied = secret.end;
        // A secret is never empty, so there is progress.
        at = secret.end;
    }
    match copied {
        0 => text.into(),
        copied => {
            out.push_str(text.get(copied..).unwrap_or_default());
            out.into()
        }
    }
}

/// The text with each word in plain that has a secret behind percent signs. `None` where none has.
fn without_encoded(text: &str) -> Option<String> {
    let ends = |c: char| c.is_ascii_whitespace() || matches!(c, '"' | '\'' | '`' | '<' | '>');
    let mut out = String::new();
    let mut changed = false;
    for part in text.split_inclusive(ends) {
        let word = part.trim_end_matches(ends);
        let meant = decoded(word);
        match plain(&meant) {
            Cow::Owned(clean) if *meant != *word && clean != *meant => {
                out.extend(clean.chars().map(|c| if c.is_control() { ' ' } else { c }));
                out.push_str(&part[word.len()..]);
                changed = true;
            }
            _ => out.push_str(part),
        }
    }
    changed.then_some(out)
}

/// A line of source. There is no end of ways to write a name beside a value, so where there is such a name, no string is shown.
pub fn code(line: &str) -> Cow<'_, str> {
    if !denied(line) {
        return text(line);
    }
    let mut out = String::new();
    let mut rest = line;
    while let Some(at) = rest.find(['"', '\'', '`']) {
        let mark = &rest[at..=at];
        let triple = mark.repeat(3);
        let mark = if rest[at..].starts_with(&triple) { &*triple } else { mark };
        // A backslash is nothing special in `r"…"` and `@"…"`.
        let raw = rest[..at].ends_with(['r', 'R', '@']);
        let inside = &rest[at + mark.len()..];
        let end = string_end(inside, mark, raw);
        out.push_str(&rest[..at]);
        out.push_str(mark);
        if end > 0 {
            out.push_str(FILTERED);
        }
        rest = &inside[end..];
        if let Some(after) = rest.strip_prefix(mark) {
            out.push_str(mark);
            rest = after;
        }
    }
    out.push_str(rest);
    text(&out).into_owned().into()
}

/// How long the content of a string is that ends with `mark`, or not at all.
fn string_end(inside: &str, mark: &str, raw: bool) -> usize {
    let mut escaped = false;
    for (at, c) in inside.char_indices() {
        if !escaped && inside[at..].starts_with(mark) {
            return at;
        }
        escaped = c == '\\' && !escaped && !raw;
    }
    inside.len()
}

/// A query string, without its `?`: values of denied keys are hidden, the others cleaned as text.
pub fn query(query: &str) -> Cow<'_, str> {
    let clean = |pair: &str| match pair.split_once('=') {
        Some((key, value)) if !value.is_empty() && denied(&decoded(key)) && !is_nothing(value) => {
            format!("{key}={FILTERED}")
        }
        _ => text(pair).into_owned(),
    };
    let cleaned: Vec<String> = query.split('&').map(clean).collect();
    let cleaned = cleaned.join("&");
    if cleaned == query { query.into() } else { cleaned.into() }
}

/// Whether a name is one of those whose values are secrets.
fn denied(name: &str) -> bool {
    contains_any(name, &DENIED) || has_denied_word(name)
}

fn contains_any(name: &str, words: &[&str]) -> bool {
    let name = name.as_bytes();
    words.iter().any(|word| name.windows(word.len()).any(|part| part.eq_ignore_ascii_case(word.as_bytes())))
}

/// Words are those between what is no letter, and those that capitals begin: `user_pin`, `smsOtp`.
fn has_denied_word(name: &str) -> bool {
    name.split(|c: char| !c.is_ascii_alphabetic()).any(|part| {
        DENIED_WORDS.iter().any(|word| {
            let last = part.len().checked_sub(word.len()).map(|at| part.split_at(at));
            last.is_some_and(|(before, last)| {
                let begins = before.is_empty()
                    || before.ends_with(|c: char| c.is_ascii_lowercase())
                        && last.starts_with(|c: char| c.is_ascii_uppercase());
                begins && last.eq_ignore_ascii_case(word)
            })
        })
    })
}

fn is_nothing(value: &str) -> bool {
    NOTHING.iter().any(|word| value.eq_ignore_ascii_case(word))
}

/// What is meant by a text that may be percent-encoded, once or twice. What is not valid stays.
fn decoded(text: &str) -> Cow<'_, str> {
    if !text.contains('%') {
        return text.into();
    }
    let once = percent_decoded(text);
    if once.contains('%') { percent_decoded(&once).into() } else { once.into() }
}

/// A walk through a text, with what was learned of the parts ahead, so that none is searched twice in vain.
#[derive(Default)]
struct Scan<'t> {
    bytes: &'t [u8],
    /// From before here no `@` follows before the word ends.
    no_at: usize,
    /// Up to here no JSON Web Token begins.
    no_jwt: usize,
    /// Up to here no credentials follow `Basic`.
    no_basic: usize,
    /// Whether there is a denied name anywhere, once somebody asked.
    denied: Option<bool>,
    /// How many bytes runs were looked for in.
    #[cfg(test)]
    looked: std::cell::Cell<usize>,
}

impl<'t> Scan<'t> {
    fn of(text: &'t str) -> Self {
        Scan { bytes: text.as_bytes(), ..Scan::default() }
    }
    /// The secret that is recognised by what is at `at`: it begins there or later, and is not empty.
    fn secret_at(&mut self, at: usize) -> Option<Range<usize>> {
        let found = match self.bytes[at] {
            b':' if self.starts(at, b"://") => self.credentials(at + 3),
            b':' | b'=' | b'%' => self.value(at).or_else(|| self.password(at)),
            b',' => self.listed(at),
            b'<' => self.element(at),
            b'-' => self.private_key(at).or_else(|| self.user_option(at)),
            b'/' => self.of_oracle(at),
            b'0'..=b'9' => self.card(at).or_else(|| self.token(at)),
            byte if byte.is_ascii_alphabetic() => {
                self.token(at).or_else(|| self.said(at)).or_else(|| self.row(at))
            }
            _ => None,
        };
        found.filter(|range| !range.is_empty())
    }

    fn starts(&self, at: usize, with: &[u8]) -> bool {
        self.bytes[at..].starts_with(with)
    }

    /// Where a run of bytes ends that all are such.
    fn run(&self, at: usize, such: impl Fn(u8) -> bool) -> usize {
        let rest = self.bytes.get(at..).unwrap_or_default();
        let length = rest.iter().position(|byte| !such(*byte)).unwrap_or(rest.len());
        #[cfg(test)]
        self.looked.set(self.looked.get() + length);
        at + length
    }
}

fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | b'\n' | b'\r')
}

fn is_quote(byte: u8) -> bool {
    matches!(byte, b'"' | b'\'' | b'`')
}
