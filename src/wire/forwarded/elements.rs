//! `Forwarded` (RFC 7239), taken apart.
//!
//! Commas, semicolons and escapes within quotes are text (FWD-4). The parser is total: what cannot be read is an
//! element of which nothing is known, for the elements beside it may have been written by somebody else.

use std::borrow::Cow;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use http::uri::Authority;

/// What one proxy says of the request that it was sent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Element {
    /// Who sent it; `None` where the proxy does not know or does not tell (`unknown`, `_hidden`).
    pub client: Option<IpAddr>,
    /// The scheme it was sent with, where that is HTTP's.
    pub scheme: Option<&'static str>,
    /// The authority it was sent to.
    pub host: Option<String>,
}

/// The elements of one line, in order. `None` stands for one that cannot be read, and for a whole line of which nobody can say
/// where its elements end. Takes time in proportion to the length.
pub fn elements(line: &[u8]) -> Vec<Option<Element>> {
    match parts(line, b',') {
        Some(parts) => parts.into_iter().filter(|part| !part.is_empty()).map(element).collect(),
        None => vec![None],
    }
}

/// Whether each quote of a line is closed. What comes after one that is not is part of it.
pub(super) fn is_closed(line: &[u8]) -> bool {
    parts(line, b',').is_some()
}

/// What stands between separators, those in quotes left out, without white space around; `None` where a quote is not closed.
fn parts(text: &[u8], separator: u8) -> Option<Vec<&[u8]>> {
    let mut parts = Vec::new();
    let (mut begin, mut quoted, mut escaped) = (0, false, false);
    for (at, byte) in text.iter().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' if quoted => escaped = true,
            b'"' => quoted = !quoted,
            _ if *byte == separator && !quoted => {
                parts.push(text[begin..at].trim_ascii());
                begin = at + 1;
            }
            _ => {}
        }
    }
    parts.push(text[begin..].trim_ascii());
    (!quoted).then_some(parts)
}

fn element(text: &[u8]) -> Option<Element> {
    let mut element = Element::default();
    let mut seen = [false; KNOWN.len()];
    for pair in parts(text, b';')?.into_iter().filter(|pair| !pair.is_empty()) {
        let equals = pair.iter().position(|byte| *byte == b'=')?;
        let (name, value) = (&pair[..equals], value(&pair[equals + 1..])?);
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return None;
        }
        let Some(known) = KNOWN.iter().position(|known| name.eq_ignore_ascii_case(known)) else { continue };
        // Two readers may take different ones of two, so neither is worth anything.
        if std::mem::replace(&mut seen[known], true) {
            return None;
        }
        let value = std::str::from_utf8(&value).ok()?;
        match KNOWN[known] {
            b"for" => element.client = node(value)?,
            b"proto" => element.scheme = scheme(value),
            b"host" => element.host = host(value),
            _ => {}
        }
    }
    Some(element)
}

const KNOWN: [&[u8]; 4] = [b"for", b"by", b"host", b"proto"];

/// A token or a quoted string, without quotes and escapes. Addresses belong into quotes where they have colons or brackets, but
/// not every proxy knows that, and without quotes they are just as clear.
fn value(text: &[u8]) -> Option<Cow<'_, [u8]>> {
    let Some(inside) = text.strip_prefix(b"\"") else {
        let plain = |byte: &u8| is_token(*byte) || b":[]".contains(byte);
        return (!text.is_empty() && text.iter().all(plain)).then_some(text.into());
    };
    let mut value = Vec::with_capacity(inside.len());
    let mut bytes = inside.iter();
    while let Some(byte) = bytes.next() {
        match byte {
            b'"' => return bytes.as_slice().is_empty().then_some(value.into()),
            b'\\' => value.push(*bytes.next()?),
            byte => value.push(*byte),
        }
    }
    None
}

/// The address of a node; `Some(None)` for one that has none to tell, and `None` for what is no node (RFC 7239 section 6).
fn node(text: &str) -> Option<Option<IpAddr>> {
    let (name, port) = match text.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map(|(name, port)| (name, port.strip_prefix(':').ok_or(port)))?,
        None => text.split_once(':').map_or((text, Err("")), |(name, port)| (name, Ok(port))),
    };
    match port {
        Ok(port) if is_port(port) || is_obfuscated(port) => {}
        Err("") => {}
        _ => return None,
    }
    if text.starts_with('[') {
        return name.parse().ok().map(|address: Ipv6Addr| Some(IpAddr::V6(address).to_canonical()));
    }
    if name.eq_ignore_ascii_case("unknown") || is_obfuscated(name) {
        return Some(None);
    }
    name.parse().ok().map(|address: Ipv4Addr| Some(address.into()))
}

pub(super) fn is_port(text: &str) -> bool {
    text.len() <= 5 && text.bytes().all(|byte| byte.is_ascii_digit()) && text.parse::<u16>().is_ok()
}

fn is_obfuscated(text: &str) -> bool {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    text.strip_prefix('_').is_some_and(|rest| !rest.is_empty() && rest.bytes().all(plain))
}

pub(super) fn scheme(text: &str) -> Option<&'static str> {
    ["http", "https"].into_iter().find(|known| text.eq_ignore_ascii_case(known))
}

/// An authority without credentials.
pub(super) fn host(text: &str) -> Option<String> {
    let authority = Authority::try_from(text).ok()?;
    (!text.contains('@') && !authority.host().is_empty()).then(|| text.to_owned())
}

/// RFC 9110 section 5.6.2.
pub(super) fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clients(line: &str) -> Vec<Option<String>> {
        let client = |element: Option<Element>| element?.client.map(|client| client.to_string());
        elements(line.as_bytes()).into_iter().map(client).collect()
    }

    #[test]
    fn separators_in_quotes_separate_nothing() {
        let read = elements(
            br#"for=_x;by="a,b;for=6.6.6.6\", for=7.7.7.7";proto=https , ,For="[2001:db8::1]:4711""#,
        );
        let hidden = Element { scheme: Some("https"), ..Element::default() };
        let known = Element { client: Some("2001:db8::1".parse().unwrap()), ..Element::default() };
        assert_eq!(read, [Some(hidden), Some(known)]);
    }

    #[test]
    fn a_quote_that_is_not_closed_swallows_what_follows() {
        assert_eq!(elements(br#"for=6.6.6.6;by=", for=192.0.2.1"#), [None]);
        assert_eq!(elements(br#"for="6.6.6.6\", for=192.0.2.1"#), [None]);
    }

    #[test]
    fn an_element_that_cannot_be_read_takes_nothing_from_the_others() {
        let one = Some("192.0.2.1".to_owned());
        for bad in [
            "for",
            "=x",
            "for=",
            "for=1.2.3.4;FOR=1.2.3.5",
            "for=1.2.3.4 5",
            r#"for="1.2.3.4"x"#,
            "for=1.2.3",
            "for=[fe80::1%25eth0]",
            "for=2001:db8::1",
            "for=[::1",
            r#"for="[::1]x""#,
            "for=1.2.3.4:",
            "for=1.2.3.4:65536",
            "for=1.2.3.4:_",
            "for=01.2.3.4",
            "f(r=1.2.3.4",
        ] {
            assert_eq!(clients(&format!("{bad}, for=192.0.2.1")), [None, one.clone()], "{bad}");
        }
    }

    #[test]
    fn nodes_have_ports_or_names_that_hide_them() {
        for (text, expected) in [
            ("192.0.2.1:80", Some("192.0.2.1")),
            ("192.0.2.1:_x", Some("192.0.2.1")),
            ("[::ffff:10.0.0.1]", Some("10.0.0.1")),
            ("unknown", None),
            ("Unknown:1", None),
            ("_a.b-c", None),
        ] {
            let expected = expected.map(|address| address.parse().unwrap());
            assert_eq!(node(text), Some(expected), "{text}");
        }
        assert_eq!(node("_"), None);
    }
}
