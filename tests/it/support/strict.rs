//! Reads HTTP/1 as only the grammar has it, and takes nothing that could be understood in two ways.
//!
//! It is stricter than any peer: what it calls a fault is nothing that we may ever send.

use std::io::{BufRead, Read};

/// A message as it came.
#[derive(Debug, Default)]
pub struct Strict {
    /// Start line and header lines as they came, with the empty line where that came.
    pub head: Vec<u8>,
    pub content: Vec<u8>,
    pub trailers: Vec<u8>,
}

/// Whether a message, or a part of it, came to its end.
pub type Whole = Result<bool, String>;

impl Strict {
    /// The lines of the head, without the empty one.
    pub fn lines(&self) -> impl Iterator<Item = &[u8]> {
        let lines =
            self.head.split(|byte| *byte == b'\n').map(|line| line.strip_suffix(b"\r").unwrap_or(line));
        lines.filter(|line| !line.is_empty())
    }

    /// Whether a line is there: the start line byte for byte, a header whatever the case of its name and the
    /// whitespace around its value.
    pub fn says(&self, line: &[u8]) -> bool {
        let normal = |line: &[u8]| match line.iter().position(|byte| *byte == b':') {
            Some(colon) if is_token(&line[..colon]) => {
                [&line[..colon].to_ascii_lowercase(), &b":"[..], line[colon + 1..].trim_ascii()].concat()
            }
            _ => line.to_vec(),
        };
        self.lines().any(|given| normal(given) == normal(line))
    }

    /// The values of a header.
    pub fn all(&self, name: &str) -> Vec<String> {
        let value = |field: &[u8]| {
            let colon = field.iter().position(|byte| *byte == b':')?;
            let (key, value) = field.split_at(colon);
            let named = key.eq_ignore_ascii_case(name.as_bytes());
            named.then(|| String::from_utf8_lossy(&value[1..]).trim().to_owned())
        };
        self.lines().skip(1).filter_map(value).collect()
    }

    /// Reads the head, and checks all of it but the start line.
    pub fn read_head(&mut self, reader: &mut impl BufRead) -> Whole {
        loop {
            match line(reader, &mut self.head)? {
                None => return Ok(false),
                Some(line) if line.is_empty() => break,
                Some(_) => {}
            }
        }
        let mut lines = self.lines();
        lines.next().ok_or("a head of nothing")?;
        lines.try_for_each(header)?;
        Ok(true)
    }

    /// Reads content that has a length or comes in chunks; `None` where there is neither.
    pub fn read_content(&mut self, reader: &mut impl BufRead) -> Option<Whole> {
        let (lengths, codings) = (self.all("content-length"), self.all("transfer-encoding"));
        let is_number = |length: &str| {
            (1..=19).contains(&length.len()) && length.bytes().all(|byte| byte.is_ascii_digit())
        };
        match (&lengths[..], &codings[..]) {
            ([], []) => None,
            ([length], []) if is_number(length) => {
                let length = length.parse().expect("19 digits are no overflow");
                Some(self.exactly(reader, length))
            }
            ([], [coding]) if coding.eq_ignore_ascii_case("chunked") => Some(self.chunks(reader)),
            other => Some(Err(format!("framing {other:?}"))),
        }
    }

    fn chunks(&mut self, reader: &mut impl BufRead) -> Whole {
        loop {
            let Some(size) = line(reader, &mut Vec::new())? else { return Ok(false) };
            let text = String::from_utf8_lossy(&size).into_owned();
            let size = match u64::from_str_radix(&text, 16) {
                Ok(size) if text.len() <= 16 && text.bytes().all(|byte| byte.is_ascii_hexdigit()) => size,
                _ => return Err(format!("chunk size {text:?}")),
            };
            if size == 0 {
                break;
            }
            if !self.exactly(reader, size)? {
                return Ok(false);
            }
            match line(reader, &mut Vec::new())? {
                None => return Ok(false),
                Some(rest) if rest.is_empty() => {}
                Some(_) => return Err("no CRLF behind a chunk".to_owned()),
            }
        }
        loop {
            match line(reader, &mut self.trailers)? {
                None => return Ok(false),
                Some(end) if end.is_empty() => return Ok(true),
                Some(trailer) => header(&trailer)?,
            }
        }
    }

    fn exactly(&mut self, reader: &mut impl BufRead, length: u64) -> Whole {
        let before = self.content.len() as u64;
        // A reset is an end, too.
        let _ = reader.take(length).read_to_end(&mut self.content);
        Ok(self.content.len() as u64 - before == length)
    }
}

/// Reads a line that ends in CRLF, and keeps it; `None` where there is no whole one.
fn line(reader: &mut impl BufRead, kept: &mut Vec<u8>) -> Result<Option<Vec<u8>>, String> {
    let mut line = Vec::new();
    // A reset is an end, too.
    let _ = reader.read_until(b'\n', &mut line);
    kept.extend_from_slice(&line);
    if !line.ends_with(b"\n") {
        return Ok(None);
    }
    match line.strip_suffix(b"\r\n") {
        Some(text) if !text.contains(&b'\r') && !text.contains(&0) => Ok(Some(text.to_vec())),
        _ => Err(format!("a bare CR, a bare LF or NUL in \"{}\"", line.escape_ascii())),
    }
}

fn header(line: &[u8]) -> Result<(), String> {
    match line.iter().position(|byte| *byte == b':') {
        Some(colon) if is_token(&line[..colon]) => Ok(()),
        _ => Err(format!("header line \"{}\"", line.escape_ascii())),
    }
}

/// Whether a text is a name of RFC 9110 section 5.6.2.
pub fn is_token(text: &[u8]) -> bool {
    let of_token = |byte: &u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte);
    !text.is_empty() && text.iter().all(of_token)
}

/// Whether a text stands in another; letters have no case.
pub fn holds(text: &[u8], part: &[u8]) -> bool {
    let (text, part) = (text.to_ascii_lowercase(), part.to_ascii_lowercase());
    text.windows(part.len()).any(|window| window == part)
}

/// Enough of some bytes to see what they are.
pub fn brief(bytes: &[u8]) -> String {
    const ENOUGH: usize = 300;
    let more = if bytes.len() > ENOUGH { format!("… {} bytes", bytes.len()) } else { String::new() };
    format!("\"{}\"{more}", bytes[..bytes.len().min(ENOUGH)].escape_ascii())
}
