//! Secrets that are known by their looks.

use std::ops::Range;

use super::{Scan, is_quote, is_space};

/// How tokens begin that say whose they are, and how many characters have to follow at least.
const PREFIXES: [(&[u8], usize); 31] = [
    (b"AKIA", 16),
    (b"ASIA", 16),
    (b"AIza", 30),
    (b"sk_live_", 8),
    (b"sk_test_", 8),
    (b"rk_live_", 8),
    (b"rk_test_", 8),
    (b"whsec_", 8),
    (b"sk-", 20),
    (b"ghp_", 16),
    (b"gho_", 16),
    (b"ghu_", 16),
    (b"ghs_", 16),
    (b"ghr_", 16),
    (b"github_pat_", 16),
    (b"glpat-", 16),
    (b"xoxa-", 8),
    (b"xoxb-", 8),
    (b"xoxe-", 8),
    (b"xoxo-", 8),
    (b"xoxp-", 8),
    (b"xoxr-", 8),
    (b"xoxs-", 8),
    (b"xapp-", 8),
    (b"npm_", 30),
    (b"shpat_", 16),
    (b"dop_v1_", 16),
    (b"hf_", 30),
    (b"SG.", 30),
    (b"ya29.", 16),
    (b"pypi-", 30),
];

/// What follows `Bearer` in sentences.
const WORDS: [&str; 16] = [
    "auth",
    "authentication",
    "authorization",
    "authorizations",
    "credential",
    "credentials",
    "error",
    "header",
    "missing",
    "not",
    "realm",
    "required",
    "scheme",
    "schemes",
    "token",
    "tokens",
];

impl Scan<'_> {
    /// Credentials of a URL whose authority begins at `start`.
    pub(super) fn credentials(&mut self, start: usize) -> Option<Range<usize>> {
        let ends = |byte| is_space(byte) || is_quote(byte) || matches!(byte, b'<' | b'>');
        let authority_end = self.run(start, |byte| !ends(byte) && !matches!(byte, b'/' | b'?' | b'#'));
        let authority = &self.bytes[start..authority_end];
        if let Some(at) = authority.iter().rposition(|byte| *byte == b'@') {
            return Some(start..start + at);
        }
        // A password may hold a `/`. What looks like a port, and is none, is the beginning of one.
        let colon = authority.iter().position(|byte| *byte == b':')?;
        let port = &authority[colon + 1..];
        if authority.starts_with(b"[") || port.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let word_end = self.run(start, |byte| !ends(byte));
        let cut = word_end == self.bytes.len() || self.bytes[start..word_end].ends_with("…".as_bytes());
        // Where the text breaks off, the `@` may have come behind.
        let rest = cut.then_some(start..word_end);
        self.before_at(start, ends).or(rest)
    }

    /// The password of `user:password@host`, which has no scheme: the colon is at `at`.
    pub(super) fn password(&mut self, at: usize) -> Option<Range<usize>> {
        let named = at > 0 && self.bytes[at - 1].is_ascii_alphanumeric();
        if self.bytes[at] != b':' || !named {
            return None;
        }
        let ends =
            |byte| is_space(byte) || is_quote(byte) || matches!(byte, b'<' | b'>' | b'/' | b',' | b';');
        self.before_at(at + 1, ends)
    }

    /// From `start` to the last `@` of the word.
    fn before_at(&mut self, start: usize, ends: impl Fn(u8) -> bool) -> Option<Range<usize>> {
        if start < self.no_at {
            return None;
        }
        let end = self.run(start, |byte| !ends(byte));
        match self.bytes[start..end].iter().rposition(|byte| *byte == b'@') {
            Some(at) => Some(start..start + at),
            None => {
                self.no_at = end;
                None
            }
        }
    }

    /// A token that begins at `at`.
    pub(super) fn token(&mut self, at: usize) -> Option<Range<usize>> {
        if self.starts(at, b"eyJ") {
            return self.jwt(at);
        }
        // Only where a word begins: `task_live_` is none.
        if at > 0 && self.bytes[at - 1].is_ascii_alphanumeric() {
            return None;
        }
        if let Some((prefix, least)) = PREFIXES.iter().find(|(prefix, _)| self.starts(at, prefix)) {
            let end = self.run(at + prefix.len(), |byte| {
                byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'.')
            });
            return (end - at - prefix.len() >= *least).then_some(at..end);
        }
        self.authorization(at)
    }

    /// A JSON Web Token. They have no business anywhere, so it may begin within a word.
    fn jwt(&mut self, at: usize) -> Option<Range<usize>> {
        if at < self.no_jwt {
            return None;
        }
        let part = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-' | b'=');
        let head_end = self.run(at, part);
        let claims = self.run(head_end + 1, part).saturating_sub(head_end + 1);
        if head_end - at > 4 && claims > 1 && self.starts(head_end, b".") {
            return Some(at..self.run(at, |byte| part(byte) || byte == b'.'));
        }
        // None that ends here begins later.
        self.no_jwt = head_end;
        None
    }

    /// What comes after `Bearer` or `Basic`.
    fn authorization(&mut self, at: usize) -> Option<Range<usize>> {
        let word_end = self.run(at, |byte| byte.is_ascii_alphabetic());
        let word = &self.bytes[at..word_end];
        let (bearer, basic) = (word.eq_ignore_ascii_case(b"bearer"), word.eq_ignore_ascii_case(b"basic"));
        if !bearer && !basic {
            return None;
        }
        let start = self.run(word_end, |byte| matches!(byte, b' ' | b'\t' | b'+'));
        if start == word_end || basic && start < self.no_basic {
            return None;
        }
        let credential = |byte: u8| byte.is_ascii_alphanumeric() || b"._~+/=:-|".contains(&byte);
        let end = self.run(start, credential);
        let value = &self.bytes[start..end];
        let prose = WORDS.iter().any(|known| value.eq_ignore_ascii_case(known.as_bytes()));
        let secret = if bearer { value.len() >= 4 && !prose } else { value.len() >= 6 && is_mixed(value) };
        if basic && !secret {
            // Of a run that is nothing, no part is anything.
            self.no_basic = end;
        }
        secret.then_some(start..end)
    }

    /// A block that holds a private key, in full.
    pub(super) fn private_key(&self, at: usize) -> Option<Range<usize>> {
        let begin = b"-----BEGIN ";
        if !self.starts(at, begin) {
            return None;
        }
        let label = &self.bytes[at + begin.len()..self.bytes.len().min(at + begin.len() + 64)];
        let label = &label[..find(label, b"-----").unwrap_or(label.len())];
        find(label, b"PRIVATE KEY")?;
        let rest = &self.bytes[at..];
        let end =
            find(rest, b"-----END").and_then(|end| Some(end + 8 + find(&rest[end + 8..], b"-----")? + 5));
        Some(at..at + end.unwrap_or(rest.len()))
    }

    /// The number of a payment card that begins at `at`: 13 to 19 digits, in groups or not, with a valid last one.
    pub(super) fn card(&self, at: usize) -> Option<Range<usize>> {
        if at > 0 && self.bytes[at - 1].is_ascii_alphanumeric() {
            return None;
        }
        let mut digits = Vec::with_capacity(19);
        // The longest that could be one, since other numbers may come behind it.
        let mut card_end = None;
        for (end, byte) in self.bytes.iter().enumerate().skip(at) {
            let next = self.bytes.get(end + 1);
            match byte {
                b'0'..=b'9' if digits.len() < 19 => digits.push(byte - b'0'),
                b' ' | b'-' if next.is_some_and(u8::is_ascii_digit) => continue,
                _ => break,
            }
            if next.is_none_or(|byte| !byte.is_ascii_alphanumeric()) && is_card(&digits) {
                card_end = Some(end + 1);
            }
        }
        Some(at..card_end?)
    }
}

/// Times and counters begin with 1; cards do with 3 to 6, and some with 22 to 27.
fn is_card(digits: &[u8]) -> bool {
    let known = match digits {
        [3..=6, ..] => (13..=19).contains(&digits.len()),
        [2, 2..=7, ..] => digits.len() == 16,
        _ => false,
    };
    known && luhn(digits)
}

/// Not a word of a sentence: digits, or capitals within.
fn is_mixed(word: &[u8]) -> bool {
    let lower = word.iter().any(u8::is_ascii_lowercase);
    word.iter().any(|byte| byte.is_ascii_digit() || *byte == b'=')
        || lower && word.iter().skip(1).any(u8::is_ascii_uppercase)
}

/// Whether the last of the digits is the check digit of the others.
fn luhn(digits: &[u8]) -> bool {
    let sum: u32 = digits
        .iter()
        .rev()
        .enumerate()
        .map(|(index, digit)| match (index % 2, u32::from(*digit)) {
            (0, digit) => digit,
            (_, digit) if digit > 4 => digit * 2 - 9,
            (_, digit) => digit * 2,
        })
        .sum();
    sum.is_multiple_of(10)
}

fn find(bytes: &[u8], what: &[u8]) -> Option<usize> {
    bytes.windows(what.len()).position(|part| part == what)
}
