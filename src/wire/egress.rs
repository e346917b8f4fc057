//! Who may use the way out of the service, and which targets it may reach.
//!
//! A forward proxy that takes anybody anywhere is an open relay, and one that stands in a cloud hands out the
//! credentials of its machine to whoever can make the service fetch a URL. [`EgressRules`] say no by default to
//! strangers, to addresses that mean the machine and not the network, and to CONNECT on ports that are not for it
//! (HX-4). They are asked twice: before a name is resolved, and for the very address that is about to be connected to,
//! since a name may lead elsewhere on second thought (DNS rebinding).
//!
//! Nothing here resolves, connects or knows our own listeners: loops (HOP-6) are for the caller to see.

mod built_in;
mod disguise;
mod host;
#[cfg(test)]
mod properties;
mod target;
#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

use self::host::Host;
pub use self::target::{PortRange, Target, TargetError};

/// How much of a refused target is told, in characters: a name has at most 253, and nobody reads more than this.
const TOLD_CHARACTERS: usize = 100;

/// Who may use the way out, and where it leads.
///
/// `deny` beats `allow`, and `allow` beats the built-in denials for what it names. "Names" is meant narrowly: an entry
/// excepts an address from a built-in denial only if it lies within the denied range. `*`, `0.0.0.0/0` or a host name
/// do not: who writes them does not think of metadata services, and who answers for a name in DNS did not write the
/// configuration.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EgressRules {
    /// If this is not empty, only these may be reached.
    pub allow: Vec<Target>,
    /// These may not be reached, whatever else is said.
    pub deny: Vec<Target>,
    /// Ports that CONNECT may lead to.
    pub connect_ports: Vec<PortRange>,
    /// Networks whose peers may use the way out.
    pub clients: Vec<IpNet>,
}

impl Default for EgressRules {
    /// Loopback may use it; it leads everywhere but to what is denied for everybody. CONNECT leads to 80, 443 and the
    /// ports from 1024 on: below are the protocols that relays are abused for, such as SMTP, and services are run above.
    fn default() -> Self {
        Self {
            allow: Vec::new(),
            deny: Vec::new(),
            connect_ports: vec![PortRange::only(80), PortRange::only(443), PortRange::at_least(1024)],
            clients: vec![
                IpNet::V4(Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8)),
                IpNet::V6(Ipv6Net::new_assert(Ipv6Addr::LOCALHOST, 128)),
            ],
        }
    }
}

impl EgressRules {
    /// Whether `peer` may use the way out. An IPv4 address that arrives mapped into IPv6, as it does on listeners for
    /// both, counts as what it is.
    ///
    /// Not to be asked of connections that were redirected to us: they keep the source address that the service had
    /// for its real target, which is hardly ever loopback.
    pub fn permits_client(&self, peer: IpAddr) -> bool {
        let peer = peer.to_canonical();
        self.clients.iter().any(|net| net.contains(&peer))
    }

    /// Judges a target before its name is resolved. `host` is a name or a literal address, with or without brackets.
    ///
    /// Passing here is not enough for a name: what it resolves to goes through [`EgressRules::permits_address`].
    ///
    /// # Errors
    /// If the target makes no sense, is denied, or could not be allowed whatever its name resolves to.
    pub fn permits_name(&self, host: &str, port: u16) -> Result<(), Denied> {
        match read(host, port)? {
            Host::Address(address) => self.judge_address(host, None, SocketAddr::new(address, port)),
            Host::Name(name) => self.judge_name(host, name, port),
        }
    }

    /// Judges a port that is asked for by CONNECT.
    ///
    /// # Errors
    /// If tunnels may not lead there.
    pub fn permits_connect_port(&self, port: u16) -> Result<(), Denied> {
        if self.connect_ports.iter().any(|range| range.contains(port)) {
            return Ok(());
        }
        let ports: Vec<String> = self.connect_ports.iter().map(PortRange::to_string).collect();
        Err(Denied { target: format!("port {port}"), rule: Rule::ConnectPort { allowed: ports.join(", ") } })
    }

    /// Judges an address that is about to be connected to; `host` is what was asked for and resolved to it.
    ///
    /// Where nothing was resolved, because the connection was redirected to us, `host` has to be the address itself: a
    /// `Host` header or a server name in TLS is the caller's claim, and must not choose the rule.
    ///
    /// # Errors
    /// If the host or the address is denied, or neither is allowed.
    pub fn permits_address(&self, host: &str, address: SocketAddr) -> Result<(), Denied> {
        match read(host, address.port())? {
            Host::Address(_) => self.judge_address(host, None, address),
            Host::Name(name) => self.judge_address(host, Some(name), address),
        }
    }

    fn judge_name(&self, asked: &str, name: &str, port: u16) -> Result<(), Denied> {
        let denied = |rule| Err(Denied { target: told(asked, port), rule });
        if let Some(target) = self.deny.iter().find(|target| target.covers_name(name, port)) {
            return denied(Rule::DenyList(target.clone()));
        }
        if let Some(what) = built_in::name(name)
            && !self.allow.iter().any(|target| target.is_name(name) && target.covers_port(port))
        {
            return denied(self.built_in(String::new(), what, &name.to_ascii_lowercase()));
        }
        // A name that no entry covers may resolve to an address that one does. If there is no such entry it is refused
        // here, before the question for it goes out: questions to DNS can carry secrets as well.
        let may_be_allowed = self.allow.is_empty()
            || self.allow.iter().any(|target| {
                target.covers_name(name, port) || (target.is_network() && target.covers_port(port))
            });
        if may_be_allowed { Ok(()) } else { denied(Rule::NotAllowed { write: name.to_ascii_lowercase() }) }
    }

    fn judge_address(&self, asked: &str, name: Option<&str>, address: SocketAddr) -> Result<(), Denied> {
        let (ip, port) = (address.ip().to_canonical(), address.port());
        let denied = |rule| Err(Denied { target: told(asked, port), rule });
        if let Some(name) = name {
            self.judge_name(asked, name, port)?;
        }
        let faces = || std::iter::once(ip).chain(disguise::behind(ip));
        for face in faces() {
            if let Some(target) = self.deny.iter().find(|target| target.covers_address(face, port)) {
                return denied(Rule::DenyList(target.clone()));
            }
            let Some(what) = built_in::address(face) else { continue };
            let excepted = |target: &Target| {
                target.covers_address(face, port)
                    && target.network().is_some_and(|net| built_in::has_room_for(face, &net))
            };
            if !self.allow.iter().any(excepted) {
                let leads = match name {
                    None if face == ip => String::new(),
                    None => format!("stands for {face}, which "),
                    Some(_) => format!("leads to {face}, which "),
                };
                return denied(self.built_in(leads, what, &face.to_string()));
            }
        }
        if self.allow.is_empty() || name.is_some_and(|name| self.allows(|t| t.covers_name(name, port))) {
            return Ok(());
        }
        // What is behind a disguise may be several, as some can be read in more than one way; then all must be allowed.
        let mut behind = disguise::behind(ip).peekable();
        if self.allows(|target| target.covers_address(ip, port))
            || (behind.peek().is_some() && behind.all(|ip| self.allows(|t| t.covers_address(ip, port))))
        {
            return Ok(());
        }
        denied(Rule::NotAllowed { write: name.map_or_else(|| ip.to_string(), str::to_ascii_lowercase) })
    }

    fn allows(&self, covers: impl Fn(&Target) -> bool) -> bool {
        self.allow.iter().any(covers)
    }

    /// What to write depends on what is there: a first entry would turn the list into the only targets.
    fn built_in(&self, leads: String, what: &'static str, write: &str) -> Rule {
        let write = if self.allow.is_empty() {
            format!("[\"*\", \"{write}\"]")
        } else {
            format!("[…, \"{write}\"]")
        };
        Rule::BuiltIn { leads, what, write }
    }
}

/// Reads `host:port` as CONNECT and absolute-form have it, into a host without brackets and a port.
/// `default_port` is for schemes that have one; CONNECT has not (HX-4).
///
/// # Errors
/// If there is a name and password, no host, no port and no default, port 0, or a host that cannot be one.
/// [`Denied::is_malformed`] is true of all of these.
pub fn destination(authority: &str, default_port: Option<u16>) -> Result<(&str, u16), Denied> {
    // What is refused is told and logged, and a password should be neither (SEM-80).
    let public = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let malformed = |reason| Denied { target: shown(public), rule: Rule::Malformed(reason) };
    let (host, port) = host::split(authority).map_err(malformed)?;
    let port = match (port, default_port) {
        (None | Some(""), Some(port)) => port,
        (None | Some(""), None) => return Err(malformed("it names no port")),
        (Some(digits), _) => {
            target::port(digits).ok_or_else(|| malformed("its port is no number from 1 to 65535"))?
        }
    };
    Host::read(host).map_err(malformed)?;
    Ok((host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host), port))
}

fn read(host: &str, port: u16) -> Result<Host<'_>, Denied> {
    let malformed = |reason| Denied { target: told(host, port), rule: Rule::Malformed(reason) };
    if port == 0 {
        return Err(malformed("nothing can be connected to on port 0"));
    }
    Host::read(host).map_err(malformed)
}

/// A refusal: which target, by which rule, and what to write to allow it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{target} {rule}")]
pub struct Denied {
    target: String,
    rule: Rule,
}

impl Denied {
    /// Whether the target makes no sense (a 400), rather than being forbidden (a 403).
    pub fn is_malformed(&self) -> bool {
        matches!(self.rule, Rule::Malformed(_))
    }

    /// The rule that refused.
    pub fn rule(&self) -> &Rule {
        &self.rule
    }
}

/// Why something was refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Rule {
    /// The target makes no sense, for this reason.
    Malformed(&'static str),
    /// CONNECT may not lead to this port.
    ConnectPort {
        /// The ports that it may lead to.
        allowed: String,
    },
    /// This entry of the configured `deny` covers it.
    DenyList(Target),
    /// There is a configured `allow`, and no entry of it covers it.
    NotAllowed {
        /// The entry that would.
        write: String,
    },
    /// It is denied unless it is allowed by name.
    BuiltIn {
        /// What lies between the target and the denied address, if they differ.
        leads: String,
        /// What it is.
        what: &'static str,
        /// The value of `allow` that would except it.
        write: String,
    },
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Malformed(reason) => write!(f, "is no target: {reason}"),
            Self::ConnectPort { allowed } => {
                write!(f, "is not for CONNECT; outbound.connect_ports has {allowed}")
            }
            Self::DenyList(target) => write!(f, "is denied by \"{target}\" in outbound.deny"),
            Self::NotAllowed { write } => {
                write!(f, "is not in outbound.allow; allow it with outbound.allow: […, \"{write}\"]")
            }
            Self::BuiltIn { leads, what, write } => {
                write!(f, "{leads}is {what}; allow it with outbound.allow: {write}")
            }
        }
    }
}

fn told(host: &str, port: u16) -> String {
    let bracketed = host.contains(':') && !host.starts_with('[');
    if bracketed { format!("[{}]:{port}", shown(host)) } else { format!("{}:{port}", shown(host)) }
}

/// A stranger's text, fit for a log: no control characters, and an end.
fn shown(text: &str) -> String {
    let mut shown: String = text.chars().take(TOLD_CHARACTERS).flat_map(char::escape_debug).collect();
    if text.chars().nth(TOLD_CHARACTERS).is_some() {
        shown.push('…');
    }
    if shown.is_empty() { "\"\"".to_owned() } else { shown }
}
