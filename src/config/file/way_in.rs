//! The keys of listeners for requests to the service: where they go, and what comes before HTTP on their connections.

use std::net::SocketAddr;
use std::path::PathBuf;

use ipnet::IpNet;

use crate::config::reader::{Given, Reader};
use crate::config::value::{At, Field, Keys, Kind, Section, Value};
use crate::config::web::HostName;
use crate::config::write::Written;
use crate::config::{ClientAuth, TlsVersion, Trust, Upstream};

section! {
    /// One listener and where its requests go.
    Inbound {
        /// Address and port to listen on. 0.0.0.0 takes callers from anywhere; port 0 takes any free port.
        listen: At<SocketAddr> = "0.0.0.0:8080",
        /// The service: http://host:port, h2c://host:port for HTTP/2 without TLS, or https://host:port.
        to: At<Upstream> = required like "http://127.0.0.1:3000" applies "from the next request on",
        /// What callers' trace contexts are worth here, in place of `propagation.trust`.
        trust: Option<Trust> = "null" like "restart" applies "from the next request on",
        /// Takes callers by TLS, and no others. Files are read again when they change.
        tls: Option<Tls> = "null" applies "for new connections",
        /// Load balancers that begin each connection with the PROXY protocol (version 1 or 2), which says whose it is.
        proxy_protocol: Option<ProxyProtocol> = "null" applies "for new connections",
        /// How the service at `to` is spoken to where that is https://. Files are read again when they change.
        to_tls: Option<ToTls> = "null" applies "for new connections to the service",
    }
}

section! {
    /// TLS with callers.
    Tls {
        /// Certificates, chosen by the name that a caller asks for (SNI) among the names in them; `*.example.com` counts.
        /// Who asks for none of them, or for no name, gets the first.
        certificates: At<Vec<Pair>> = required
            like "[{ certificate: /etc/tracecar/tls/tls.crt, key: /etc/tracecar/tls/tls.key }]",
        /// Versions before this one are refused.
        min_version: TlsVersion = "TLSv1.2" like "TLSv1.3",
        /// Whether callers have to show a certificate that `client_ca` has signed: none asks for nothing, optional takes
        /// who shows nothing, required refuses them. A wrong one is refused by both.
        client_auth: At<ClientAuth> = "none" like "required",
        /// PEM file with the CAs whose signatures on callers' certificates count.
        client_ca: Option<At<PathBuf>> = "null" like "/etc/tracecar/clients-ca.pem",
    }
}

section! {
    /// A certificate and its key.
    Pair {
        /// PEM file with the certificate, and behind it those that lead to its CA.
        certificate: PathBuf = required like "/etc/tracecar/tls/tls.crt",
        /// PEM file with its key.
        key: PathBuf = required like "/etc/tracecar/tls/tls.key",
    }
}

section! {
    /// Who speaks the PROXY protocol.
    ProxyProtocol {
        /// Networks of the load balancers. From these every connection has to begin with the header, or is closed; from all
        /// others it is no header, for anybody could send one.
        from: At<Vec<IpNet>> = required like "[10.0.0.0/8]",
    }
}

section! {
    /// TLS with the service.
    ToTls {
        /// PEM file with the certificates to trust in place of the system's.
        ca: Option<PathBuf> = "null" like "/etc/tracecar/service-ca.pem",
        /// PEM file with the certificate to show to the service; needs `client_key`.
        client_certificate: Option<At<PathBuf>> = "null" like "/etc/tracecar/client.pem",
        /// PEM file with the key of `client_certificate`.
        client_key: Option<At<PathBuf>> = "null" like "/etc/tracecar/client.key",
        /// The name that the service's certificate has to have, in place of the host in `to`.
        server_name: Option<HostName> = "null" like "shop.internal",
    }
}
