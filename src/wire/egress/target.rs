//! Entries of the lists of targets, as the configuration has them.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::{IpNet, Ipv4Net};

use super::host::{Host, split};

/// One entry of `allow` or `deny`: hosts, and the ports of them that it is about.
///
/// `example.com` (this name only), `*.example.com` (all below it, and not itself), `10.0.0.0/8`, `2001:db8::/32`,
/// `169.254.169.254`, `*` (everything); each also with a port or several, `example.com:443`, `*:25`, `[::1]:80`,
/// `[2001:db8::/32]:8000-8999`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    hosts: Hosts,
    ports: Option<PortRange>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Hosts {
    All,
    /// Lower case, without a dot at the end.
    Name(String),
    /// The same; what is below this name.
    Below(String),
    Network(IpNet),
}

/// Ports from one to another, both included; never 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

/// Why a text is no [`Target`] or no [`PortRange`], and what to write instead.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct TargetError {
    reason: String,
}

impl Target {
    /// Whether `host`, a name or address literal without brackets, and `port` are meant.
    pub fn matches(&self, host: &str, port: u16) -> bool {
        match host.parse::<IpAddr>() {
            Ok(address) => self.covers_address(address.to_canonical(), port),
            Err(_) => self.covers_name(host, port),
        }
    }

    /// Whether this is about the host of that name, which has no dot at the end, and that port.
    pub(super) fn covers_name(&self, name: &str, port: u16) -> bool {
        let covered = match &self.hosts {
            Hosts::All => true,
            Hosts::Name(own) => own.eq_ignore_ascii_case(name),
            Hosts::Below(above) => {
                // What was read as a name is ASCII, so bytes may be split anywhere.
                let bytes = name.as_bytes();
                bytes.len() > above.len() + 1
                    && bytes[bytes.len() - above.len() - 1] == b'.'
                    && bytes[bytes.len() - above.len()..].eq_ignore_ascii_case(above.as_bytes())
            }
            Hosts::Network(_) => false,
        };
        covered && self.covers_port(port)
    }

    /// Whether this is about that address and port.
    pub(super) fn covers_address(&self, address: IpAddr, port: u16) -> bool {
        let covered = match &self.hosts {
            Hosts::All => true,
            Hosts::Network(net) => net.contains(&address),
            Hosts::Name(_) | Hosts::Below(_) => false,
        };
        covered && self.covers_port(port)
    }

    pub(super) fn covers_port(&self, port: u16) -> bool {
        self.ports.is_none_or(|ports| ports.contains(port))
    }

    /// Whether this is about that name and no other.
    pub(super) fn is_name(&self, name: &str) -> bool {
        matches!(&self.hosts, Hosts::Name(own) if own.eq_ignore_ascii_case(name))
    }

    pub(super) fn is_network(&self) -> bool {
        matches!(self.hosts, Hosts::Network(_))
    }

    pub(super) fn network(&self) -> Option<IpNet> {
        match self.hosts {
            Hosts::Network(net) => Some(net),
            _ => None,
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        if text.contains("://") {
            return Err(because("a target is no URL; write only its host, or `host:port`"));
        }
        let bare_ipv6 = !text.starts_with('[') && text.bytes().filter(|byte| *byte == b':').count() > 1;
        let (hosts, ports) = if bare_ipv6 { (text, None) } else { split(text).map_err(because)? };
        let ports = ports.map(PortRange::from_str).transpose()?;
        let hosts = if hosts == "*" {
            Hosts::All
        } else if let Some(above) = hosts.strip_prefix("*.") {
            match read(above)? {
                Host::Name(above) => Hosts::Below(above.to_ascii_lowercase()),
                Host::Address(_) => {
                    return Err(because("there is nothing below an address; write a network, `10.0.0.0/8`"));
                }
            }
        } else if hosts.contains('*') {
            return Err(because("a star stands alone or before a dot: `*`, `*.example.com`"));
        } else if let Some((address, length)) = unbracketed(hosts).split_once('/') {
            Hosts::Network(network(address, length)?)
        } else {
            match read(hosts)? {
                Host::Name(name) => Hosts::Name(name.to_ascii_lowercase()),
                Host::Address(address) => Hosts::Network(IpNet::from(address.to_canonical())),
            }
        };
        Ok(Self { hosts, ports })
    }
}

fn read(host: &str) -> Result<Host<'_>, TargetError> {
    Host::read(host).map_err(because)
}

fn unbracketed(host: &str) -> &str {
    host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host)
}

fn network(address: &str, length: &str) -> Result<IpNet, TargetError> {
    let form = "a network is an address and the length of its prefix, `10.0.0.0/8` or `2001:db8::/32`";
    let Ok(Host::Address(ip)) = Host::read(address) else {
        return Err(because(form));
    };
    let length = decimal(length).and_then(|length| u8::try_from(length).ok()).ok_or_else(|| because(form))?;
    let net = IpNet::new(ip, length).map_err(|_| because(form))?;
    if net.addr() != net.network() {
        return Err(because(format!("`{net}` has bits after its prefix; write `{}`", net.trunc())));
    }
    // Addresses are judged as IPv4 where they are mapped, so networks of such are made the same.
    match (ip.to_canonical(), length.checked_sub(96)) {
        (IpAddr::V4(address), Some(length)) if ip.is_ipv6() => {
            Ok(IpNet::V4(Ipv4Net::new(address, length).map_err(|_| because(form))?))
        }
        _ => Ok(net),
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.hosts, self.ports) {
            (Hosts::All, _) => f.write_str("*")?,
            (Hosts::Name(name), _) => f.write_str(name)?,
            (Hosts::Below(name), _) => write!(f, "*.{name}")?,
            (Hosts::Network(net), ports) => {
                let bracketed = ports.is_some() && net.addr().is_ipv6();
                f.write_str(if bracketed { "[" } else { "" })?;
                if net.prefix_len() == net.max_prefix_len() {
                    write!(f, "{}", net.addr())?;
                } else {
                    write!(f, "{net}")?;
                }
                f.write_str(if bracketed { "]" } else { "" })?;
            }
        }
        self.ports.map_or(Ok(()), |ports| write!(f, ":{ports}"))
    }
}

impl PortRange {
    /// One port, or none at all if it is 0.
    pub fn only(port: u16) -> Self {
        Self { first: port, last: port }
    }

    /// All ports from `first` on.
    pub fn at_least(first: u16) -> Self {
        Self { first, last: u16::MAX }
    }

    /// Whether `port` is one of them. 0 never is: nothing can be connected to there.
    pub fn contains(&self, port: u16) -> bool {
        port != 0 && (self.first..=self.last).contains(&port)
    }
}

impl FromStr for PortRange {
    type Err = TargetError;

    fn from_str(text: &str) -> Result<Self, TargetError> {
        let form = || because("ports are numbers from 1 to 65535: `443`, `8000-8999`");
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (first, last) = (port(first).ok_or_else(form)?, port(last).ok_or_else(form)?);
        if first > last {
            return Err(because(format!("the smaller port comes first: `{last}-{first}`")));
        }
        Ok(Self { first, last })
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.first == self.last {
            write!(f, "{}", self.first)
        } else {
            write!(f, "{}-{}", self.first, self.last)
        }
    }
}

/// A port that can be connected to. Leading zeros are taken as what they are, since nobody reads ports as octal.
pub(super) fn port(digits: &str) -> Option<u16> {
    decimal(digits).filter(|port| *port != 0)
}

/// Digits only: `u16::from_str` takes a plus sign as well.
fn decimal(digits: &str) -> Option<u16> {
    digits.bytes().all(|byte| byte.is_ascii_digit()).then(|| digits.parse().ok())?
}

fn because(reason: impl Into<String>) -> TargetError {
    TargetError { reason: reason.into() }
}
