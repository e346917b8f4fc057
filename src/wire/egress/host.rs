//! Hosts as they are written, and the ways of writing them that are refused.
//!
//! A host is refused where two readers could disagree about it, since then the one that judges and the one that
//! connects are not speaking of the same thing.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// RFC 1035 2.3.4, without the dot at the end.
const NAME_BYTES: usize = 253;
const LABEL_BYTES: usize = 63;

/// A host that means one thing only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Host<'t> {
    Address(IpAddr),
    /// As it was written, but for the dot at the end.
    Name(&'t str),
}

impl<'t> Host<'t> {
    /// Reads a name, an IPv4 address, or an IPv6 address with or without brackets; else says why it is none.
    pub(super) fn read(text: &'t str) -> Result<Self, &'static str> {
        if text.is_empty() {
            return Err("it has no host");
        }
        if text.contains('@') {
            return Err("it has a name and password; leave them out");
        }
        if text.contains('%') {
            // A zone (RFC 6874) chooses an interface of this machine, and percent-encoding hides what is asked for.
            return Err("it has a percent sign; leave out zones and percent-encoding");
        }
        if !text.is_ascii() {
            // Two libraries may map it to two names, or to an address: some take ① for 1 and 。 for a dot.
            return Err("it is not ASCII; write names in punycode (xn--…)");
        }
        if let Some(inside) = text.strip_prefix('[') {
            let address = inside.strip_suffix(']').and_then(|inside| inside.parse::<Ipv6Addr>().ok());
            return address.map(|a| Self::Address(a.into())).ok_or("its brackets hold no IPv6 address");
        }
        if text.contains(':') {
            let address = text.parse::<Ipv6Addr>().ok();
            return address.map(|a| Self::Address(a.into())).ok_or("it is no IPv6 address");
        }
        if let Ok(address) = text.parse::<Ipv4Addr>() {
            return Ok(Self::Address(address.into()));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        check_name(name)?;
        Ok(Self::Name(name))
    }
}

fn check_name(name: &str) -> Result<(), &'static str> {
    if name.len() > NAME_BYTES {
        return Err("its name is longer than 253 bytes");
    }
    for label in name.split('.') {
        if label.is_empty() || label.len() > LABEL_BYTES {
            return Err("its name has a part that is empty or longer than 63 bytes");
        }
        // The underscore is no part of host names, but of the names of many containers.
        if !label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_') {
            return Err("its name has characters that no name has");
        }
    }
    if name.rsplit('.').next().is_some_and(is_number) {
        return Err(
            "some would read it as an IPv4 address; write that as four decimal numbers, without zeros before \
                    and without a dot after",
        );
    }
    Ok(())
}

/// getaddrinfo reads `2130706433`, `0x7f.1`, `017700000001` and `127.1` as 127.0.0.1, and so do URLs in browsers. All of
/// them end in a number, and no name of the Internet does: there is no top-level domain of digits.
fn is_number(label: &str) -> bool {
    let hex = label.strip_prefix("0x").or_else(|| label.strip_prefix("0X"));
    match hex {
        Some(digits) => digits.bytes().all(|byte| byte.is_ascii_hexdigit()),
        None => label.bytes().all(|byte| byte.is_ascii_digit()),
    }
}

/// Splits `host:port`; the host keeps its brackets, the port may be missing or empty.
pub(super) fn split(authority: &str) -> Result<(&str, Option<&str>), &'static str> {
    if authority.contains('@') {
        return Err("it has a name and password; leave them out");
    }
    if authority.starts_with('[') {
        let end = authority.find(']').ok_or("its brackets hold no IPv6 address")?;
        let (host, rest) = authority.split_at(end + 1);
        return match rest.strip_prefix(':') {
            Some(port) => Ok((host, Some(port))),
            None if rest.is_empty() => Ok((host, None)),
            None => Err("its brackets are followed by something else than a port"),
        };
    }
    match authority.split_once(':') {
        None => Ok((authority, None)),
        Some((_, port)) if port.contains(':') => Err("it has several colons; put IPv6 addresses in brackets"),
        Some((host, port)) => Ok((host, Some(port))),
    }
}
