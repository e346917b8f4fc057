//! Request targets (RFC 9112 section 3.2) and `Host`.

use std::fmt::Write as _;

use bytes::Bytes;
use http::header::HOST;
use http::uri::{PathAndQuery, Uri};
use http::{HeaderMap, Method, StatusCode, Version};
use memchr::memchr;

use super::Refused;

/// What `http::Uri` takes.
pub(super) const MAX_LENGTH: usize = 65_534;

const NO_TARGET: Refused = Refused::bad("the request target is none");

/// A target as a `Uri`, and what that does not say.
type Read = (Uri, Option<(PathAndQuery, Bytes)>);

/// Reads a target, which has no white space in it. What is read as a target is what servers read in practice: any visible
/// character but `#`, and any byte above ASCII, for callers send raw UTF-8 (curl does).
pub(super) fn read(method: &Method, target: Bytes) -> Result<Read, Refused> {
    let bad = target.iter().fold(false, |bad, byte| bad | matches!(byte, 0..=b' ' | b'#' | 0x7f));
    if bad {
        return Err(NO_TARGET);
    }
    if *method == Method::CONNECT {
        return authority(target);
    }
    match target.first() {
        Some(b'/') => match Uri::from_maybe_shared(target.clone()) {
            Ok(uri) => Ok((uri, None)),
            Err(_) => soft(target, 0),
        },
        Some(b'*') if *method == Method::OPTIONS && target.len() == 1 => Ok((Uri::from_static("*"), None)),
        _ => absolute(method, target),
    }
}

/// A host and its port, which is not optional (SMG-24).
fn authority(target: Bytes) -> Result<Read, Refused> {
    let port = host_and_port(&target).ok_or(NO_TARGET)?;
    let number = port.and_then(|digits| std::str::from_utf8(digits).ok()?.parse::<u16>().ok());
    if number.is_none_or(|number| number == 0) {
        return Err(Refused::bad("CONNECT without a valid port"));
    }
    Ok((Uri::from_maybe_shared(target).map_err(|_| NO_TARGET)?, None))
}

fn absolute(method: &Method, target: Bytes) -> Result<Read, Refused> {
    let colon = memchr(b':', &target).ok_or(NO_TARGET)?;
    let scheme = target[..colon].first().is_some_and(u8::is_ascii_alphabetic)
        && target[..colon].iter().all(|byte| byte.is_ascii_alphanumeric() || b"+-.".contains(byte));
    if !scheme || !target[colon..].starts_with(b"://") {
        return Err(NO_TARGET);
    }
    let start = colon + 3;
    let length = target[start..].iter().position(|byte| matches!(byte, b'/' | b'?'));
    let end = length.map_or(target.len(), |length| start + length);
    let mut host = &target[start..end];
    if let Some(at) = memchr(b'@', host) {
        // A name and a password; a second `@` fails below.
        host = &host[at + 1..];
    }
    host_and_port(host).ok_or(NO_TARGET)?;
    // Without a path it is the root that is asked for (HOP-11), and `?b` alone is no path for anybody.
    let target = match target.get(end) {
        Some(b'?') => Bytes::from([&target[..end], b"/", &target[end..]].concat()),
        _ => target,
    };
    let (uri, mut unsaid) = match Uri::from_maybe_shared(target.clone()) {
        Ok(uri) => (uri, None),
        Err(_) => soft(target.clone(), end)?,
    };
    if *method == Method::OPTIONS && end == target.len() {
        // FWD-2.
        unsaid = Some((PathAndQuery::from_static("/"), Bytes::from_static(b"*")));
    }
    Ok((uri, unsaid))
}

/// What `http::Uri` does not hold from `path` on is percent-encoded there.
fn soft(target: Bytes, path: usize) -> Result<Read, Refused> {
    let mut encoded = String::with_capacity(target.len() + 32);
    encoded.push_str(std::str::from_utf8(&target[..path]).map_err(|_| NO_TARGET)?);
    for byte in &target[path..] {
        if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=:@/?%".contains(byte) {
            encoded.push(char::from(*byte));
        } else {
            // Writing to a string cannot fail.
            let _ = write!(encoded, "%{byte:02X}");
        }
    }
    if encoded.len() > MAX_LENGTH {
        return Err(Refused::new(StatusCode::URI_TOO_LONG, "the request target is too long"));
    }
    let uri = Uri::try_from(encoded).map_err(|_| NO_TARGET)?;
    let stands = uri.path_and_query().ok_or(NO_TARGET)?.clone();
    Ok((uri, Some((stands, target.slice(path..)))))
}

/// Whether there is the `Host` that has to be there (SMG-1, SMG-2). With a target in absolute form too, though it is ignored
/// then (FWD-1).
pub(super) fn check_host(version: Version, headers: &HeaderMap) -> Result<(), Refused> {
    let mut lines = headers.get_all(HOST).iter();
    match (lines.next(), lines.next()) {
        (None, _) if version == Version::HTTP_10 => Ok(()),
        (None, _) => Err(Refused::bad("no Host")),
        (Some(_), Some(_)) => Err(Refused::bad("several Host lines")),
        // Empty is what is sent where the target has no authority (RFC 9112 section 3.2).
        (Some(host), None) if host.is_empty() || host_and_port(host.as_bytes()).is_some() => Ok(()),
        (Some(_), None) => Err(Refused::bad("an invalid Host")),
    }
}

/// The port of a host that is not empty, if there is one, by the grammar of RFC 3986 section 3.2; `None` if it is none.
fn host_and_port(text: &[u8]) -> Option<Option<&[u8]>> {
    let rest = if text.first() == Some(&b'[') {
        let end = memchr(b']', text)?;
        is_literal(&text[1..end]).then_some(())?;
        &text[end + 1..]
    } else {
        let end = memchr(b':', text).unwrap_or(text.len());
        is_name(&text[..end]).then_some(())?;
        &text[end..]
    };
    match rest {
        [] => Some(None),
        [b':', port @ ..] if port.iter().all(u8::is_ascii_digit) => Some(Some(port)),
        _ => None,
    }
}

/// A registered name or an IPv4 address: not empty, and not shorter by what is percent-encoded wrongly.
fn is_name(text: &[u8]) -> bool {
    let mut rest = text;
    loop {
        rest = match rest {
            [] => return !text.is_empty(),
            [b'%', high, low, rest @ ..] if high.is_ascii_hexdigit() && low.is_ascii_hexdigit() => rest,
            [byte, rest @ ..] if byte.is_ascii_alphanumeric() || b"-._~!$&'()*+,;=".contains(byte) => rest,
            _ => return false,
        }
    }
}

/// What is between brackets: an IPv6 address, perhaps with a zone (RFC 6874), or one of a version to come.
fn is_literal(text: &[u8]) -> bool {
    let zone = memchr(b'%', text).unwrap_or(text.len());
    let (address, zone) = text.split_at(zone);
    match address {
        [b'v' | b'V', rest @ ..] => {
            let dot = memchr(b'.', rest).unwrap_or(0);
            let (version, rest) = rest.split_at(dot);
            !version.is_empty()
                && version.iter().all(u8::is_ascii_hexdigit)
                && rest.len() > 1
                && rest.iter().all(|byte| *byte == b':' || is_name(&[*byte]))
                && zone.is_empty()
        }
        _ => {
            std::str::from_utf8(address).is_ok_and(|address| address.parse::<std::net::Ipv6Addr>().is_ok())
                && (zone.is_empty()
                    || zone.len() > 1 && is_name(&zone[1..])
                    || zone.len() > 3 && is_name(zone))
        }
    }
}
