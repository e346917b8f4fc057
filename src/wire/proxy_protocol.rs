//! The PROXY protocol: a header with which a load balancer begins a connection, and says whose it is.
//!
//! Both versions, as HAProxy's `proxy-protocol.txt` has them (2.4 of 2020/03/05). What may stand behind the addresses in
//! version 2 (TLVs) is skipped. The header proves nothing: who may send one is for the settings to say.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

/// What a header of version 1 begins with.
const V1: &[u8] = b"PROXY ";

/// What a header of version 2 begins with. No request of HTTP and no handshake of TLS does.
const V2: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// Longest header of version 1, its line end included: that of `UNKNOWN` with two whole IPv6 addresses.
pub const MAX_V1: usize = 107;

/// Bytes of version 2 before its addresses.
const V2_FIXED: usize = 16;

/// Longest header of either version.
pub const MAX: usize = V2_FIXED + u16::MAX as usize;

/// What a header says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Header {
    /// A connection between these two, passed on.
    Proxied {
        /// Who has opened it.
        source: SocketAddr,
        /// What was connected to.
        destination: SocketAddr,
    },
    /// Nothing about addresses: the sender's own connection (`LOCAL`), such as a health check, or one of a kind that has
    /// none (`UNKNOWN`, Unix sockets). That of the connection itself counts.
    Unknown,
}

/// What bytes begin with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Parsed {
    /// A header of so many bytes; what follows is what the caller has sent.
    Whole(Header, usize),
    /// The beginning of a header. It takes more bytes to tell.
    More,
}

/// Why there is no header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Malformed {
    /// It begins like neither version.
    #[error("it does not begin with a PROXY protocol header")]
    Absent,
    /// A header of version 1 with no end where there has to be one.
    #[error("its PROXY line is longer than {MAX_V1} bytes")]
    TooLong,
    /// A header of version 1 that says something else than the specification knows.
    #[error("its PROXY line cannot be read")]
    Line,
    /// A header of version 2 with another version, command, or kind of address than there are.
    #[error("its PROXY header has a version, command or family that is not known")]
    Kind,
    /// A header of version 2 that ends before its addresses do.
    #[error("its PROXY header is shorter than its addresses")]
    TooShort,
}

/// Reads the header that `bytes` begin with.
///
/// # Errors
/// As soon as it is certain that there is none, or none that can be used.
pub fn parse(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let begins = |with: &[u8]| {
        let n = with.len().min(bytes.len());
        bytes[..n] == with[..n]
    };
    match bytes {
        _ if begins(V2) => parse_v2(bytes),
        _ if begins(V1) => parse_v1(bytes),
        _ => Err(Malformed::Absent),
    }
}

fn parse_v1(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let Some(end) = bytes.iter().take(MAX_V1).position(|byte| *byte == b'\n') else {
        return if bytes.len() < MAX_V1 { Ok(Parsed::More) } else { Err(Malformed::TooLong) };
    };
    let line = bytes[..end].strip_suffix(b"\r").ok_or(Malformed::Line)?;
    let line = line.strip_prefix(V1).ok_or(Malformed::Line)?;
    // Whatever stands behind it is to be ignored (section 2.1).
    let unknown = line.strip_prefix(b"UNKNOWN").is_some_and(|rest| rest.is_empty() || rest[0] == b' ');
    if unknown {
        return Ok(Parsed::Whole(Header::Unknown, end + 1));
    }
    let line = std::str::from_utf8(line).map_err(|_| Malformed::Line)?;
    let words: Vec<&str> = line.split(' ').collect();
    let [family, source, destination, from, to] = words[..] else { return Err(Malformed::Line) };
    let address = |text: &str| -> Option<IpAddr> {
        match family {
            "TCP4" => text.parse::<Ipv4Addr>().ok().map(IpAddr::V4),
            "TCP6" => text.parse::<Ipv6Addr>().ok().map(IpAddr::V6),
            _ => None,
        }
    };
    let read = || {
        let source = SocketAddr::new(address(source)?, port(from)?);
        let destination = SocketAddr::new(address(destination)?, port(to)?);
        Some(Header::Proxied { source, destination })
    };
    Ok(Parsed::Whole(read().ok_or(Malformed::Line)?, end + 1))
}

/// A number from 0 to 65535, in digits only and without a zero before it.
fn port(text: &str) -> Option<u16> {
    let digits = text.bytes().all(|byte| byte.is_ascii_digit());
    (digits && (text == "0" || !text.starts_with('0'))).then(|| text.parse().ok()).flatten()
}

fn parse_v2(bytes: &[u8]) -> Result<Parsed, Malformed> {
    let Some([command, kind, high, low]) = bytes.get(V2.len()..V2_FIXED) else { return Ok(Parsed::More) };
    let length = usize::from(u16::from_be_bytes([*high, *low]));
    // What is wrong with the fixed part is wrong whatever follows.
    let local = match command {
        0x20 => true,
        0x21 => false,
        _ => return Err(Malformed::Kind),
    };
    let (family, transport) = (kind >> 4, kind & 0xf);
    let addresses = match (local, family, transport) {
        // The receiver ignores the family of a LOCAL one (section 2.2).
        (true, ..) => 0,
        (false, 0, 0..=2) => 0,
        (false, 1, 0..=2) => 12,
        (false, 2, 0..=2) => 36,
        (false, 3, 0..=2) => 216,
        _ => return Err(Malformed::Kind),
    };
    if length < addresses {
        return Err(Malformed::TooShort);
    }
    let Some(block) = bytes.get(V2_FIXED..V2_FIXED + length) else { return Ok(Parsed::More) };
    let proxied = |[source, destination]: [SocketAddr; 2]| Header::Proxied { source, destination };
    // TCP only: an address of anything else is none of a connection that we serve.
    let header = match (local, family, transport) {
        (false, 1, 1) => four(block).map(proxied),
        (false, 2, 1) => six(block).map(proxied),
        _ => None,
    };
    Ok(Parsed::Whole(header.unwrap_or(Header::Unknown), V2_FIXED + length))
}

/// Both ends over IPv4: addresses, then ports.
fn four(block: &[u8]) -> Option<[SocketAddr; 2]> {
    let (addresses, ports) = (block.get(..8)?, block.get(8..12)?);
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 4] = addresses.get(at..at + 4)?.try_into().ok()?;
        Some(Ipv4Addr::from(octets).into())
    };
    Some([SocketAddr::new(address(0)?, number(ports, 0)?), SocketAddr::new(address(4)?, number(ports, 2)?)])
}

/// Both ends over IPv6: addresses, then ports.
fn six(block: &[u8]) -> Option<[SocketAddr; 2]> {
    let (addresses, ports) = (block.get(..32)?, block.get(32..36)?);
    let address = |at: usize| -> Option<IpAddr> {
        let octets: [u8; 16] = addresses.get(at..at + 16)?.try_into().ok()?;
        Some(Ipv6Addr::from(octets).into())
    };
    Some([SocketAddr::new(address(0)?, number(ports, 0)?), SocketAddr::new(address(16)?, number(ports, 2)?)])
}

fn number(bytes: &[u8], at: usize) -> Option<u16> {
    bytes.get(at..at + 2)?.try_into().ok().map(u16::from_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn proxied(source: &str, destination: &str) -> Header {
        Header::Proxied { source: source.parse().unwrap(), destination: destination.parse().unwrap() }
    }

    #[test]
    fn both_versions_say_who_is_there() {
        let line = b"PROXY TCP4 203.0.113.9 192.0.2.1 50000 443\r\nGET /";
        let expected = proxied("203.0.113.9:50000", "192.0.2.1:443");
        assert_eq!(parse(line), Ok(Parsed::Whole(expected, line.len() - 5)));
        let line = b"PROXY TCP6 2001:db8::9 2001:db8::1 1 0\r\n";
        let expected = proxied("[2001:db8::9]:1", "[2001:db8::1]:0");
        assert_eq!(parse(line), Ok(Parsed::Whole(expected, line.len())));
        let mut block = V2.to_vec();
        block.extend([0x21, 0x11, 0, 15, 203, 0, 113, 9, 192, 0, 2, 1, 0xc3, 0x50, 1, 0xbb, 4, 0, 0]);
        block.extend(b"GET /");
        let expected = proxied("203.0.113.9:50000", "192.0.2.1:443");
        assert_eq!(parse(&block), Ok(Parsed::Whole(expected, block.len() - 5)));
    }

    #[test]
    fn a_part_of_a_header_waits_for_the_rest() {
        let mut block = V2.to_vec();
        block.extend([0x20, 0, 0, 2, 0, 0]);
        for whole in [&b"PROXY UNKNOWN ffff::1 and more\r\n"[..], &block] {
            for part in 0..whole.len() {
                assert_eq!(parse(&whole[..part]), Ok(Parsed::More), "{part}");
            }
            assert_eq!(parse(whole), Ok(Parsed::Whole(Header::Unknown, whole.len())));
        }
    }

    #[test]
    fn a_line_without_an_end_is_given_up_after_107_bytes() {
        let line = [b"PROXY UNKNOWN ".to_vec(), vec![b'x'; 200]].concat();
        assert_eq!(parse(&line[..MAX_V1 - 1]), Ok(Parsed::More));
        assert_eq!(parse(&line[..MAX_V1]), Err(Malformed::TooLong));
        let longest = [&line[..MAX_V1 - 2], b"\r\n"].concat();
        assert_eq!(parse(&longest), Ok(Parsed::Whole(Header::Unknown, MAX_V1)));
    }
}
