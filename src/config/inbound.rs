//! Listeners for requests to the service, as the program sees them.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};

use ipnet::IpNet;

use super::{Trust, Upstream};

/// One listener and where its requests go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Inbound {
    /// Address to listen on; port 0 takes any free one.
    pub listen: SocketAddr,
    /// The service.
    pub to: Upstream,
    /// What callers' contexts are worth here; `None` asks [`Live::trust`](super::Live::trust).
    pub trust: Option<Trust>,
    /// TLS with callers; `None` where they speak HTTP at once.
    pub tls: Option<Tls>,
    /// Networks from which each connection has to begin with the PROXY protocol's header.
    pub proxy_protocol: Vec<IpNet>,
    /// TLS with the service, where `to` has it.
    pub to_tls: ToTls,
}

impl Inbound {
    /// Passes plain HTTP on to `to`.
    pub fn plain(listen: SocketAddr, to: Upstream) -> Self {
        let (trust, tls, proxy_protocol) = (None, None, Vec::new());
        Self { listen, to, trust, tls, proxy_protocol, to_tls: ToTls::default() }
    }
}

/// TLS with callers.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tls {
    /// At least one; the first is for those who ask for none of them.
    pub certificates: Vec<Pair>,
    /// Versions before this one are refused.
    pub min_version: TlsVersion,
    /// Whether callers have to show certificates.
    pub client_auth: ClientAuth,
    /// PEM file with the CAs of those; there wherever they are asked for.
    pub client_ca: Option<PathBuf>,
}

impl Tls {
    /// The files that it names.
    pub fn files(&self) -> Vec<&Path> {
        let pairs = self.certificates.iter().flat_map(Pair::files);
        pairs.chain(self.client_ca.as_deref()).collect()
    }
}

/// PEM files of a certificate and its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pair {
    /// The certificate, and behind it those that lead to its CA.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
}

impl Pair {
    fn files(&self) -> [&Path; 2] {
        [&self.certificate, &self.key]
    }
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TlsVersion {
    /// TLS 1.2.
    Tls12,
    /// TLS 1.3.
    Tls13,
}

/// Whether callers have to show certificates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClientAuth {
    /// They are not asked.
    None,
    /// They are asked, and may show none.
    Optional,
    /// Who shows none is refused.
    Required,
}

/// TLS with the service.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ToTls {
    /// PEM file with the certificates to trust in place of the system's.
    pub ca: Option<PathBuf>,
    /// What is shown to the service.
    pub client: Option<Pair>,
    /// The name that its certificate has to have, in place of the host that is connected to.
    pub server_name: Option<String>,
}

impl ToTls {
    /// The files that it names.
    pub fn files(&self) -> Vec<&Path> {
        self.ca.as_deref().into_iter().chain(self.client.iter().flat_map(Pair::files)).collect()
    }
}
