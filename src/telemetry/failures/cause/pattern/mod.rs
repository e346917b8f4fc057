//! Messages and paths without what changes from one failure to the next.
//!
//! What is replaced leaves a word in braces: `order {number} of {email}`. No digit is left over, and apart from
//! digits only e-mail addresses, URLs and the names of days and months are looked at. That is why a pattern is its
//! own pattern: what is left has nothing that could be replaced.

mod path;
mod shape;

use self::shape::{is_address, is_duration, is_email, is_mixed, is_time, starts_uuid};

pub use self::path::path_shape;

/// Bytes of a pattern. A group needs no more, and Sentry shows less.
const MAX_PATTERN: usize = 500;

/// A word that is longer is cut: nobody reads it.
const MAX_WORD: usize = 64;

/// Characters between two quotes that are taken for one value.
const MAX_QUOTED: usize = 64;

/// Days and months, as log lines and HTTP dates have them.
const CALENDAR: [&str; 19] = [
    "Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun", "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug",
    "Sep", "Oct", "Nov", "Dec",
];

/// What ends a word, apart from white space.
const BETWEEN: [char; 18] =
    ['\'', '"', '`', '“', '”', '‘', '’', '<', '>', '(', ')', '{', '}', '[', ']', ',', ';', '|'];

/// `message` with ids, numbers, addresses, times and values replaced by placeholders. The pattern of a pattern is
/// itself.
pub fn pattern(message: &str) -> String {
    let mut made = Pattern::default();
    let mut rest = message.trim();
    let mut previous = ' ';
    while let Some(first) = rest.chars().next() {
        if made.full {
            break;
        }
        let length = if first.is_whitespace() || first.is_control() {
            made.space();
            first.len_utf8()
        } else if let Some((inner, close)) = quoted(rest, first, previous) {
            made.push(first.encode_utf8(&mut [0; 4]));
            made.push("{value}");
            made.push(close.encode_utf8(&mut [0; 4]));
            first.len_utf8().saturating_add(inner).saturating_add(close.len_utf8())
        } else if ends_word(first) {
            made.push(first.encode_utf8(&mut [0; 4]));
            first.len_utf8()
        } else {
            made.words(rest)
        };
        previous = rest.get(..length).and_then(|read| read.chars().next_back()).unwrap_or(' ');
        rest = rest.get(length..).unwrap_or_default();
    }
    made.text.truncate(made.text.trim_end().len());
    made.text
}

fn ends_word(c: char) -> bool {
    c.is_whitespace() || c.is_control() || c == '=' || BETWEEN.contains(&c)
}

/// The length of what `rest` has between two quotes, if it begins with one, and the quote that closes it. Only a
/// value with digits in it is one that changes: in `KeyError: 'user'` the word is the point.
fn quoted(rest: &str, open: char, previous: char) -> Option<(usize, char)> {
    let close = match open {
        '\'' | '"' | '`' => open,
        '“' => '”',
        '‘' => '’',
        _ => return None,
    };
    // The apostrophe in a word opens nothing.
    if previous.is_alphanumeric() {
        return None;
    }
    let inner = rest.get(open.len_utf8()..)?;
    let (end, _) = inner.char_indices().take(MAX_QUOTED).find(|(_, c)| *c == close)?;
    let after = inner.get(end..)?.chars().nth(1);
    let has_digit = inner.get(..end)?.contains(|c: char| c.is_ascii_digit());
    (has_digit && !after.is_some_and(char::is_alphanumeric)).then_some((end, close))
}

/// A pattern while it is made.
#[derive(Default)]
struct Pattern {
    text: String,
    /// There was more than there is room for.
    full: bool,
}

impl Pattern {
    /// Adds a part whole or not at all: a part of a part could be something else.
    fn push(&mut self, part: &str) {
        self.full |= self.text.len().saturating_add(part.len()) > MAX_PATTERN;
        if !self.full {
            self.text.push_str(part);
        }
    }

    fn space(&mut self) {
        if !self.text.is_empty() && !self.text.ends_with(' ') {
            self.push(" ");
        }
    }

    /// Adds the word, or the URL, that `rest` begins with; how long it is.
    fn words(&mut self, rest: &str) -> usize {
        let end = rest.find(ends_word).unwrap_or(rest.len());
        let word = rest.get(..end).unwrap_or_default();
        let Some((before, _)) = word.split_once("://") else {
            self.word(word);
            return end;
        };
        // The query of a URL has what would end a word, and so may its path.
        let scheme = before.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let from = scheme.len();
        self.word(scheme);
        let ends_url = |c: char| c.is_whitespace() || c.is_control() || "'\"`<>“”‘’".contains(c);
        let url = rest.get(from..).unwrap_or_default();
        let url = url.get(..url.find(ends_url).unwrap_or(url.len())).unwrap_or_default();
        let url = url.trim_end_matches(['.', ',', ';', ':', ')', ']', '!', '?', '|']);
        self.push(&path::url(url));
        from.saturating_add(url.len())
    }

    fn word(&mut self, word: &str) {
        let bare = word.trim_end_matches(['.', ':', '!', '?']);
        let whole = match bare {
            _ if is_email(bare) => Some("{email}"),
            _ if !bare.contains(|c: char| c.is_ascii_digit()) => None,
            _ if is_time(bare) => Some("{time}"),
            _ if is_duration(bare) => Some("{duration}"),
            _ if is_address(bare) => Some("{address}"),
            _ if bare.len() >= 20 && is_mixed(bare) => Some("{id}"),
            _ => None,
        };
        let rest = match whole {
            Some(placeholder) => {
                self.push(placeholder);
                word.get(bare.len()..).unwrap_or_default()
            }
            None => word,
        };
        self.atoms(rest);
    }

    /// The letters and digits of a word, and what stands between them.
    fn atoms(&mut self, word: &str) {
        let mut rest = word;
        while let Some(first) = rest.chars().next() {
            let length = if starts_uuid(rest) {
                self.push("{id}");
                36
            } else if first.is_ascii_alphanumeric() {
                let end = rest.find(|c: char| !c.is_ascii_alphanumeric()).unwrap_or(rest.len());
                let atom = rest.get(..end).unwrap_or_default();
                match shape::placeholder(atom) {
                    Some(placeholder) => self.push(placeholder),
                    None => self.digits(atom),
                }
                end.saturating_add(self.decimals(atom, rest.get(end..).unwrap_or_default()))
            } else {
                self.push(first.encode_utf8(&mut [0; 4]));
                first.len_utf8()
            };
            rest = rest.get(length..).unwrap_or_default();
        }
    }

    /// `42`, `item42`, `4xx`: each run of digits is a number, and the letters stay.
    fn digits(&mut self, atom: &str) {
        let mut rest = atom;
        while let Some(first) = rest.chars().next() {
            let is_digit = first.is_ascii_digit();
            let end = rest.find(|c: char| c.is_ascii_digit() != is_digit).unwrap_or(rest.len());
            let run = rest.get(..end).unwrap_or_default();
            match run {
                _ if is_digit => self.push("{number}"),
                _ if CALENDAR.contains(&run) => self.push("{time}"),
                _ => self.push(run.get(..MAX_WORD).unwrap_or(run)),
            }
            rest = rest.get(end..).unwrap_or_default();
        }
    }

    /// How much of `rest` is the fraction of the number that `atom` is.
    fn decimals(&self, atom: &str, rest: &str) -> usize {
        let digits = |text: &str| text.bytes().take_while(u8::is_ascii_digit).count();
        let fraction = rest.strip_prefix('.').map_or(0, digits);
        let is_number = digits(atom) == atom.len() && fraction > 0;
        if is_number { fraction.saturating_add(1) } else { 0 }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_changes_is_replaced_and_words_stay() {
        for (message, expected) in [
            ("order 42 of 1.5 kg", "order {number} of {number} kg"),
            ("order-123 and item42 failed", "order-{number} and item{number} failed"),
            ("no row 0d5cb8c2-25a1-4d04-9d0b-8f2b9bc62a1c.", "no row {id}."),
            ("commit 9fceb02d0ae598e9 is gone", "commit {id} is gone"),
            ("req_8f3a9c1b2d failed", "req_{id} failed"),
            ("connect ECONNREFUSED 10.0.3.17:5432", "connect ECONNREFUSED {address}"),
            ("dial tcp [::1]:5432: refused", "dial tcp [{address}]:{number}: refused"),
            ("db.internal:5432 is down", "db.internal:{number} is down"),
            ("mail to bob.smith+x@example.co.uk, twice", "mail to {email}, twice"),
            ("at 2026-11-21T17:03:42.193+00:00 and 17:03:42", "at {time} and {time}"),
            ("Sat, 21 Nov 2026 17:03:42 GMT", "{time}, {number} {time} {number} {time} GMT"),
            ("timed out after 30s (1m30s, 1.5ms)", "timed out after {duration} ({duration}, {duration})"),
            ("<Foo object at 0x7f8a1c2b3d40>", "<Foo object at {address}>"),
            ("KeyError: 'user'", "KeyError: 'user'"),
            ("KeyError: 'user-42'", "KeyError: '{value}'"),
            ("bad “a 1” and `b2`, not \"c\"", "bad “{value}” and `{value}`, not \"c\""),
            ("it's 5 o'clock", "it's {number} o'clock"),
            (
                "GET https://bob:x@api.example.com:8443/orders/123/items?page=2&x=y failed",
                "GET https://api.example.com:{number}/orders/{id}/items?{query} failed",
            ),
            ("see http://10.1.2.3/a/V1StGXR8Z5jdHi6Bmy7T.", "see http://{address}/a/{id}."),
            ("token eyJhbGciOiJIUzI1NiJ9x0 used", "token {id} used"),
            ("key AbC3dE5fG7-hI9jK1_lM3nO5 used", "key {id} used"),
            ("  two\n lines\t", "two lines"),
            ("große Größe 5 €", "große Größe {number} €"),
        ] {
            assert_eq!(pattern(message), expected, "{message}");
        }
    }

    #[test]
    fn a_pattern_is_its_own_pattern() {
        for message in [
            "5'abc 1' 'Jan5 x' é5b@example.com h2c://x/v1?a=1 {id} {x1}",
            "a@5.b@c.d",
            "x://",
            "http://?",
            "://5",
            "Jan5Feb",
            "http://a/b?c=d'1'",
            "'http://a/v1'",
            "1'http://x/v1 '",
            "https://h/order{number}.,;",
            "http://1:2@3/4",
            "h://a//b/",
            "5http://a",
            "a.5b@c.d",
            "1.2.3.4.",
            "Nov.5",
            "http://a/b@c.d/e?x",
        ] {
            let once = pattern(message);
            assert_eq!(pattern(&once), once, "{message}");
            assert!(!once.contains(|c: char| c.is_ascii_digit()), "{message}: {once}");
        }
    }

    #[test]
    fn a_pattern_is_short() {
        for part in ["a", "a1 ", "'1' ", "é", "http://a/b ", "{id}", "x@y.z "] {
            let made = pattern(&part.repeat(20_000));
            assert!(made.len() <= MAX_PATTERN && !made.is_empty(), "{part}: {}", made.len());
            assert_eq!(pattern(&made), made, "{part}");
        }
    }
}
