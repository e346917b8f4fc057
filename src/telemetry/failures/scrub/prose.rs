//! Secrets that sentences, commands and statements name.

use std::ops::Range;

use super::{Scan, denied, is_quote, is_space};

/// Words before which a value in quotes is taken for a secret. `key 'quantity'` is none, and so are sessions.
const NAMES: [&str; 16] = [
    "bearer",
    "credential",
    "credentials",
    "cvv",
    "jwt",
    "otp",
    "pass",
    "passphrase",
    "passwd",
    "password",
    "pin",
    "pwd",
    "secret",
    "signature",
    "ssn",
    "token",
];

/// Words before which only what looks random is taken for one.
const LOOSE_NAMES: [&str; 7] = ["apikey", "auth", "authorization", "key", "session", "sid", "sig"];

/// Characters of a user's name, and of a word.
const WORD: usize = 64;

impl Scan<'_> {
    /// What a sentence calls a secret, where the word for it begins at `at`: `invalid token …`, `Password for bob: …`,
    /// `--password …`.
    pub(super) fn said(&self, at: usize) -> Option<Range<usize>> {
        let before = &self.bytes[..at];
        if before.last().is_some_and(|byte| byte.is_ascii_alphanumeric() || *byte == b'_') {
            return None;
        }
        let option = before.ends_with(b"--");
        let word_end = self
            .run(at, |byte| byte.is_ascii_alphanumeric() || byte == b'_' || option && byte == b'-')
            .min(at + WORD);
        let word = std::str::from_utf8(&self.bytes[at..word_end]).unwrap_or_default();
        let space = self.run(word_end, is_space);
        if space == word_end {
            return None;
        }
        if option {
            return Some(self.word(space)).filter(|_| denied(word) && !self.starts(space, b"-"));
        }
        let last = word.rsplit('_').next().unwrap_or_default();
        let is_one_of = |names: &[&str]| names.iter().any(|name| last.eq_ignore_ascii_case(name));
        // Parsers call tokens what is not secret at all.
        let of_parser = before.trim_ascii_end().ends_with(b"nexpected") || self.starts(space, b"`JsonToken.");
        let strict = is_one_of(&NAMES) && !of_parser;
        if !strict && !is_one_of(&LOOSE_NAMES) {
            return None;
        }
        let start = self.after_fillers(space);
        let value = self.word(start);
        let in_quotes = value.start > start;
        let shown = self.bytes[value.clone()].trim_ascii_end();
        let shown = shown.strip_suffix(b".").unwrap_or(shown);
        (in_quotes && strict || is_random(shown)).then_some(value.start..value.start + shown.len())
    }

    /// Where a sentence goes on behind `for bob`, `is`, `was` and `:`.
    fn after_fillers(&self, at: usize) -> usize {
        let mut at = at;
        if self.starts(at, b"for ") {
            let who = self.run(at + 4, is_space);
            at = self.run(who, |byte| !is_space(byte) && byte != b':').min(who + WORD);
            at = self.run(at, is_space);
        }
        for filler in [&b"is "[..], b"was ", b":"] {
            if self.starts(at, filler) {
                at = self.run(at + filler.len(), is_space);
            }
        }
        at
    }

    /// The word at `at`; where it is in quotes, what is in them.
    fn word(&self, at: usize) -> Range<usize> {
        match self.bytes.get(at) {
            Some(quote) if is_quote(*quote) => self.quoted(at, at).0,
            _ => {
                let ends = |byte| is_space(byte) || is_quote(byte) || b",;()<>".contains(&byte);
                at..self.run(at, |byte| !ends(byte))
            }
        }
    }

    /// The password of `-u bob:…`, as curl has it.
    pub(super) fn user_option(&self, at: usize) -> Option<Range<usize>> {
        let options = [&b"-u "[..], b"--user ", b"--proxy-user ", b"-U "];
        let option = options.iter().find(|option| self.starts(at, option))?;
        if at > 0 && !is_space(self.bytes[at - 1]) && !is_quote(self.bytes[at - 1]) {
            return None;
        }
        let user = self.word(self.run(at + option.len(), is_space));
        let colon = self.bytes[user.clone()].iter().position(|byte| *byte == b':')?;
        Some(user.start + colon + 1..user.end)
    }

    /// The password of `scott/…@//host` and `scott/…@host:1521`, as Oracle has it. The slash is at `at`.
    pub(super) fn of_oracle(&self, at: usize) -> Option<Range<usize>> {
        let before = &self.bytes[at.saturating_sub(WORD)..at];
        let name =
            before.iter().rev().take_while(|byte| byte.is_ascii_alphanumeric() || **byte == b'_').count();
        let outside = before.len().checked_sub(name + 1).map(|index| before[index]);
        if name == 0
            || outside.is_some_and(|byte| !is_space(byte) && !is_quote(byte) && !b":=(".contains(&byte))
        {
            return None;
        }
        let window = &self.bytes[at + 1..self.bytes.len().min(at + 1 + 2 * WORD)];
        let end = window.iter().position(|byte| is_space(*byte) || is_quote(*byte)).unwrap_or(window.len());
        let word = &window[..end];
        let sign = word.iter().position(|byte| *byte == b'@')?;
        let host = &word[sign + 1..];
        let port = host.iter().position(|byte| *byte == b':').and_then(|colon| host.get(colon + 1));
        let is_one = host.starts_with(b"//") || port.is_some_and(u8::is_ascii_digit);
        is_one.then_some(at + 1..at + 1 + sign)
    }

    /// What a statement puts into a table: `VALUES (…)`. Which of the values is secret nobody can tell, so it is all of them,
    /// where anything in the text has a name that says so.
    pub(super) fn row(&mut self, at: usize) -> Option<Range<usize>> {
        let word = self.bytes.get(at..at + 6)?;
        if !word.eq_ignore_ascii_case(b"values") {
            return None;
        }
        let open = self.run(at + 6, is_space);
        let bytes = self.bytes;
        let is_denied = || denied(std::str::from_utf8(bytes).unwrap_or_default());
        if !self.starts(open, b"(") || !*self.denied.get_or_insert_with(is_denied) {
            return None;
        }
        let line_end = self.run(open + 1, |byte| byte != b'\n');
        let close = self.bytes[open + 1..line_end].iter().rposition(|byte| *byte == b')');
        Some(open + 1..close.map_or(line_end, |close| open + 1 + close))
    }
}

/// No word of a sentence: letters and digits.
fn is_random(word: &[u8]) -> bool {
    word.len() >= 6 && word.iter().any(u8::is_ascii_digit) && word.iter().any(u8::is_ascii_alphabetic)
}
