//! Secrets that are known by the name before them.

use std::ops::Range;

use super::{Scan, contains_any, denied, is_nothing, is_quote, is_space};

/// How far back a name is read, in bytes.
const NAME: usize = 128;

/// Words before the secret proper. It may be more than one word with them.
const SCHEMES: [&str; 8] =
    ["basic", "bearer", "digest", "negotiate", "token", "apikey", "hawk", "aws4-hmac-sha256"];

/// Names of headers whose value is the rest of the line.
const LINES: [&str; 3] = ["authorization", "authenticate", "cookie"];

/// What names of classes end with: `KeyError: 'quantity'` is no key.
const CLASSES: [&str; 6] = ["Error", "Exception", "Failure", "Fault", "Violation", "Warning"];

/// How a name and its value are written.
struct Style {
    quoted: bool,
    /// `:` and not `=`.
    colon: bool,
    /// `%3D`, or `%253D`: the pair is itself a value of a query.
    encoded: bool,
}

impl Scan<'_> {
    /// The value after the separator at `at`, where the name before it is one whose values are secrets.
    pub(super) fn value(&self, at: usize) -> Option<Range<usize>> {
        let encoded = self.bytes[at] == b'%';
        let equals = [&b"%3D"[..], b"%3d", b"%253D", b"%253d"].into_iter().find(|sign| self.starts(at, sign));
        let separator = match encoded {
            true => equals.is_some(),
            // `a::b` is a path.
            false => !self.starts(at, b"::") && !self.starts(at.saturating_sub(1), b"::"),
        };
        let (name, quoted) = self.name_before(at);
        if !separator || !denied(name) && !self.named_elsewhere(at, name) {
            return None;
        }
        let separator_end = match equals {
            Some(sign) => at + sign.len(),
            None => self.run(at, |byte| matches!(byte, b'=' | b'>' | b':')),
        };
        let style = Style { quoted, colon: self.bytes[at] == b':', encoded };
        let start = self.run(separator_end, |byte| matches!(byte, b' ' | b'\t'));
        let class = CLASSES.iter().any(|end| name.ends_with(end));
        if class && style.colon && !quoted && start > separator_end {
            return None;
        }
        let secret = match style.colon && !quoted && contains_any(name, &LINES) {
            true => start..self.run(start, |byte| !matches!(byte, b'\n' | b'\r')),
            false => self.one_value(start, &style),
        };
        let value = std::str::from_utf8(&self.bytes[secret.clone()]).unwrap_or_default();
        (!is_nothing(value)).then_some(secret)
    }

    /// Whether the value at `at` is a secret by a name that stands apart from it: `<add name="password" value="…"/>`,
    /// `Digest response="…"`, `Key (token)=(…)`.
    fn named_elsewhere(&self, at: usize, name: &str) -> bool {
        if self.bytes[at] != b'=' {
            return false;
        }
        let before = &self.bytes[at.saturating_sub(NAME)..at];
        let after = &self.bytes[at..self.bytes.len().min(at + NAME)];
        if name.eq_ignore_ascii_case("value") {
            let Some(open) = before.iter().rposition(|byte| *byte == b'<') else { return false };
            let close = after.iter().position(|byte| *byte == b'>').unwrap_or(after.len());
            return denied(ascii(&before[open..])) || denied(&String::from_utf8_lossy(&after[..close]));
        }
        if name.eq_ignore_ascii_case("response") {
            return contains_any(ascii(before), &["digest"]);
        }
        let column = before.strip_suffix(b")").filter(|_| after.starts_with(b"=("));
        column.is_some_and(|column| {
            let open = column.iter().rposition(|byte| *byte == b'(');
            open.is_some_and(|open| denied(ascii(&column[open + 1..])))
        })
    }

    /// The second of two strings in brackets of which the first is a name, with the comma at `at`: `("password", "…")`.
    pub(super) fn listed(&self, at: usize) -> Option<Range<usize>> {
        let before = self.bytes[at.saturating_sub(NAME)..at].trim_ascii_end();
        let (mark, inside) = before.split_last().filter(|(mark, _)| is_quote(**mark))?;
        let open = inside.iter().rposition(|byte| byte == mark)?;
        let bracket = inside[..open].trim_ascii_end().last().copied();
        if !matches!(bracket, Some(b'(' | b'[' | b'{')) || !denied(ascii(&inside[open + 1..])) {
            return None;
        }
        let start = self.run(at + 1, is_space);
        let quote = self.run(start, |byte| byte.is_ascii_alphabetic() || byte == b'\\').min(start + 4);
        self.bytes.get(quote).copied().filter(|byte| is_quote(*byte))?;
        Some(self.quoted(quote, quote).0)
    }

    /// The text of an XML element that begins at `at`.
    pub(super) fn element(&self, at: usize) -> Option<Range<usize>> {
        let name_end = self.run(at + 1, |byte| is_of_name(byte) || byte == b':').min(at + 1 + NAME);
        let name = std::str::from_utf8(&self.bytes[at + 1..name_end]).unwrap_or_default();
        if !denied(name) {
            return None;
        }
        let tag_end = self.run(name_end, |byte| !matches!(byte, b'<' | b'>'));
        if !self.starts(tag_end, b">") {
            return None;
        }
        Some(tag_end + 1..self.run(tag_end + 1, |byte| byte != b'<'))
    }

    /// The name that ends before `at`, and whether it is in quotes.
    fn name_before(&self, at: usize) -> (&str, bool) {
        let before = &self.bytes[at.saturating_sub(NAME)..at];
        let trimmed = before.trim_ascii_end();
        // `password != x`, `config["password"] = x`.
        let trimmed = trimmed.strip_suffix(b"!").unwrap_or(trimmed).trim_ascii_end();
        let trimmed = match trimmed.strip_suffix(b"]") {
            Some(index) if index.last().copied().is_some_and(is_quote) => index,
            _ => trimmed,
        };
        let name = match trimmed.split_last() {
            Some((quote, inside)) if is_quote(*quote) => {
                let inside = match inside.iter().rposition(|byte| byte == quote) {
                    Some(begin) => &inside[begin + 1..],
                    None => inside,
                };
                return (ascii(inside), true);
            }
            _ => {
                let begin = trimmed.iter().rposition(|byte| !is_of_name(*byte));
                &trimmed[begin.map_or(0, |begin| begin + 1)..]
            }
        };
        (ascii(name), false)
    }

    /// One value that begins at `start`: in quotes, in brackets, or up to where a next one may begin. It may be all three, as in
    /// `Some("x")` or `b'x'`.
    fn one_value(&self, start: usize, style: &Style) -> Range<usize> {
        let (mut at, mut begin) = (start, start);
        let mut end = start;
        // A scheme was before this word.
        let mut schemed = false;
        while let Some(&byte) = self.bytes.get(at) {
            let quote = self.run(at, |byte| byte == b'\\');
            if self.bytes.get(quote).copied().is_some_and(is_quote) {
                if !self.opens_quote(start, at, end) {
                    break;
                }
                let (inside, after) = self.quoted(at, quote);
                if at == start {
                    begin = inside.start;
                }
                (end, at) = (inside.end, after);
                if begin != start && !self.bytes.get(at).copied().is_some_and(is_quote) {
                    break;
                }
                continue;
            }
            match byte {
                b'\\' => at = quote,
                b'{' | b'[' | b'(' => at = self.brackets(at),
                b'}' | b']' if style.quoted => break,
                b'&' | b'\n' | b'\r' => break,
                b'%' if style.encoded
                    && [&b"%26"[..], b"%20", b"%2526", b"%2520"].iter().any(|end| self.starts(at, end)) =>
                {
                    break;
                }
                b',' | b';' if self.another_begins(at + 1) => break,
                b' ' | b'\t' => {
                    let word = std::str::from_utf8(&self.bytes[start..at]).unwrap_or_default();
                    if schemed || !SCHEMES.iter().any(|known| word.eq_ignore_ascii_case(known)) {
                        break;
                    }
                    schemed = true;
                    at = self.run(at, |byte| matches!(byte, b' ' | b'\t'));
                    continue;
                }
                _ => at += 1,
            }
            end = at;
        }
        begin..end
    }

    /// Whether a quote at `at` begins a part of the value, and does not end what is around the pair.
    fn opens_quote(&self, start: usize, at: usize, end: usize) -> bool {
        let prefix = &self.bytes[start..at];
        // `b'x'`, `r"x"`, and what follows a scheme, or a quoted part.
        let opened = at == start
            || at > end
            || prefix.len() <= 2
                && prefix.iter().all(|byte| byte.is_ascii_alphabetic() || matches!(byte, b'@' | b'$'));
        opened || matches!(self.bytes[at - 1], b'=' | b':' | b'>') || is_quote(self.bytes[at - 1])
    }

    /// What is in quotes, and where it goes on behind them. They open at `at` with backslashes, if any, and end with the quote
    /// at `quote`. Quotes in quotes have backslashes before them, as many as it takes.
    pub(super) fn quoted(&self, at: usize, quote: usize) -> (Range<usize>, usize) {
        let (level, inside, mark) = (quote - at, quote + 1, self.bytes[quote]);
        let mut backslashes = 0;
        for (index, byte) in self.bytes.iter().enumerate().skip(inside) {
            match *byte {
                b'\\' => backslashes += 1,
                byte if byte == mark && backslashes % (2 * (level + 1)) == level => {
                    return (inside..index - level, index + 1);
                }
                _ => backslashes = 0,
            }
        }
        // It does not end, so nobody knows how much of it is secret.
        (inside..self.bytes.len(), self.bytes.len())
    }

    /// Where the bracket that opens at `at` is closed; the end, if nowhere.
    fn brackets(&self, at: usize) -> usize {
        let mut depth = 0_usize;
        let mut index = at;
        while let Some(byte) = self.bytes.get(index) {
            match byte {
                b'{' | b'[' | b'(' => depth += 1,
                b'}' | b']' | b')' => depth -= 1,
                b'"' | b'\\' => {
                    let quote = self.run(index, |byte| byte == b'\\');
                    index = match self.bytes.get(quote) {
                        Some(b'"') => self.quoted(index, quote).1,
                        _ => quote,
                    };
                    continue;
                }
                _ => {}
            }
            index += 1;
            if depth == 0 {
                return index;
            }
        }
        self.bytes.len()
    }

    /// Whether what comes at `at` is not the rest of a value: a space, a quote, the end, or another name.
    fn another_begins(&self, at: usize) -> bool {
        let Some(&byte) = self.bytes.get(at) else { return true };
        let window = &self.bytes[at..self.bytes.len().min(at + 64)];
        let name_end = window.iter().position(|byte| !is_of_name(*byte)).unwrap_or(window.len());
        let named = name_end > 0 && matches!(window.get(name_end), Some(b'=' | b':'));
        is_space(byte) || is_quote(byte) || named
    }
}

/// What names are made of, where they are not in quotes. Other scripts are among it.
fn is_of_name(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(byte, b'_' | b'-' | b'.' | b'$' | b'[' | b']' | b'@')
        || !byte.is_ascii()
}

/// The name as text. It may have been cut within a character; the words that are looked for are of ASCII.
fn ascii(name: &[u8]) -> &str {
    let begin = name.iter().position(|byte| byte & 0b1100_0000 != 0b1000_0000).unwrap_or(name.len());
    std::str::from_utf8(&name[begin..]).unwrap_or_default()
}
