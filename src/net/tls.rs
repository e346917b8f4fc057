//! TLS towards OTLP collectors and services, and what all TLS of ours has in common: which certificates are trusted, and which one we show.
//!
//! The cryptography is named explicitly (ring); the process-wide default of rustls is never asked, because any
//! library may set it.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::sign::{CertifiedKey, SingleCertAndKey};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::sync::OnceCell;
use tokio_rustls::TlsAcceptor;

use super::pem_files::PemFiles;
use super::stream::{Rewound, Stream};
use crate::config::{OtlpTls, ToTls};

/// What has to be true of ring.
pub(super) const VERSIONS: &str = "ring has cipher suites for TLS 1.2 and 1.3";

/// Why no TLS configuration could be made.
#[derive(Debug, thiserror::Error)]
pub enum TlsError {
    /// A PEM file cannot be read, or holds something else.
    #[error("cannot read {what} {}: {reason}", path.display())]
    Unreadable {
        /// What the file should hold.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// rustls refuses what the files hold.
    #[error("cannot use {what} {}: {error}", path.display())]
    Unusable {
        /// What the file holds.
        what: &'static str,
        /// The file.
        path: PathBuf,
        /// What rustls says.
        error: rustls::Error,
    },
    /// Two files that are no pair.
    #[error("the key in {} does not belong to the certificate in {}", key.display(), certificate.display())]
    Unpaired {
        /// The file with the certificate.
        certificate: PathBuf,
        /// The file with the key.
        key: PathBuf,
    },
    /// No certificate can be for that name.
    #[error("{0} is no name that a certificate could have")]
    Name(String),
}

/// Configuration of a TLS client that offers the protocols `alpn`.
///
/// Trusts the certificates of `files.certificate` and no others where it is given (OTLP-7); else those of the
/// system; else, in an image without any, Mozilla's as compiled in.
///
/// # Errors
/// Names the file that cannot be read or used.
pub fn client(files: &OtlpTls, alpn: &[&str]) -> Result<ClientConfig, TlsError> {
    let roots = match &files.certificate {
        Some(path) => given_roots(path)?,
        None => system_roots(),
    };
    let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect(VERSIONS)
        .with_root_certificates(roots);
    let mut config = match &files.client {
        None => builder.with_no_client_auth(),
        Some((certificate, key)) => {
            let chain = certificates("client certificate", certificate)?;
            let secret = PrivateKeyDer::from_pem_file(key)
                .map_err(|error| unreadable("client key", key, &error, "no private key in it"))?;
            builder
                .with_client_auth_cert(chain, secret)
                .map_err(|error| unusable("client certificate", certificate, error))?
        }
    };
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    Ok(config)
}

/// TLS towards services. Their certificates are always verified, by the system's roots and those given, or by those given
/// alone.
#[derive(Debug, Default)]
pub struct ServiceTls {
    roots: Roots,
    /// What is shown to them.
    client: Option<Arc<CertifiedKey>>,
    /// The name that their certificates have to have, in place of the host's.
    server_name: Option<String>,
    /// Loaded for the first connection that needs it: most sidecars have none.
    configs: OnceCell<Configs>,
}

/// Whose signatures count.
#[derive(Clone, Debug)]
enum Roots {
    /// Those of the system's, and these.
    Beside(Vec<CertificateDer<'static>>),
    /// These.
    Only(Arc<RootCertStore>),
}

impl Default for Roots {
    fn default() -> Self {
        Self::Beside(Vec::new())
    }
}

/// Two offers to services that are otherwise alike.
#[derive(Debug)]
pub(super) struct Configs {
    /// HTTP/2 or HTTP/1.1.
    pub(super) either: Arc<ClientConfig>,
    /// HTTP/1.1 only.
    pub(super) http1: Arc<ClientConfig>,
}

impl ServiceTls {
    /// Trusts the certificates in the PEM file at `path` beside those of the system.
    ///
    /// # Errors
    /// Names a file that cannot be read or used.
    pub fn trusting(path: &Path) -> Result<Self, TlsError> {
        // Looked at now, so that a bad file is heard of at start.
        given_roots(path)?;
        let roots = Roots::Beside(certificates("trusted certificate", path)?);
        Ok(Self { roots, ..Self::default() })
    }

    /// TLS towards the one service of a listener. `files` are those that `to_tls` names.
    ///
    /// # Errors
    /// Names a file or a name that cannot be used.
    pub fn to(to_tls: &ToTls, files: &PemFiles) -> Result<Self, TlsError> {
        let ToTls { ca, client, server_name } = to_tls;
        let roots = match ca {
            Some(path) => Roots::Only(Arc::new(files.roots("CA certificate", path)?)),
            None => Roots::default(),
        };
        let client = client.as_ref().map(|pair| files.pair(pair)).transpose()?.map(Arc::new);
        if let Some(name) = server_name
            && ServerName::try_from(name.as_str()).is_err()
        {
            return Err(TlsError::Name(name.clone()));
        }
        Ok(Self { roots, client, server_name: server_name.clone(), configs: OnceCell::new() })
    }

    /// The name that the certificate of `host` has to have.
    pub(super) fn name_of<'a>(&'a self, host: &'a str) -> &'a str {
        self.server_name.as_deref().unwrap_or(host)
    }

    pub(super) async fn configs(&self) -> Result<&Configs, tokio::task::JoinError> {
        self.configs
            .get_or_try_init(|| async {
                let (roots, client) = (self.roots.clone(), self.client.clone());
                // There may be hundreds of files to read; requests should not wait for that.
                tokio::task::spawn_blocking(move || Configs::load(roots, client)).await
            })
            .await
    }
}

impl Configs {
    fn load(roots: Roots, client: Option<Arc<CertifiedKey>>) -> Self {
        let roots = match roots {
            Roots::Beside(more) => {
                let mut roots = system_roots();
                roots.add_parsable_certificates(more);
                Arc::new(roots)
            }
            Roots::Only(roots) => roots,
        };
        let builder = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect(VERSIONS)
            .with_root_certificates(roots);
        let mut http1 = match client {
            Some(pair) => builder.with_client_cert_resolver(Arc::new(SingleCertAndKey::from(pair))),
            None => builder.with_no_client_auth(),
        };
        http1.alpn_protocols = vec![b"http/1.1".to_vec()];
        let mut either = http1.clone();
        either.alpn_protocols.insert(0, b"h2".to_vec());
        Self { either: Arc::new(either), http1: Arc::new(http1) }
    }
}

/// Accepts TLS on a connection from which `early` has been read already.
///
/// # Errors
/// What went wrong in the handshake, see [`alert`]. The client has been told, where TLS has a word for it.
pub(super) async fn accept(
    config: Arc<ServerConfig>,
    stream: Stream,
    early: bytes::Bytes,
) -> std::io::Result<Stream> {
    let tls = TlsAcceptor::from(config).accept(Rewound::new(early, stream)).await?;
    Ok(Stream::Accepted(Box::new(tls)))
}

/// What rustls found wrong, where it is what `error` is about.
pub(super) fn alert(error: &std::io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

fn given_roots(path: &Path) -> Result<RootCertStore, TlsError> {
    let what = "trusted certificate";
    let mut roots = RootCertStore::empty();
    for certificate in certificates(what, path)? {
        roots.add(certificate).map_err(|error| unusable(what, path, error))?;
    }
    Ok(roots)
}

fn system_roots() -> RootCertStore {
    let mut roots = RootCertStore::empty();
    // Systems carry certificates that rustls cannot use. One of them must not cost us the others.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        roots.extend(webpki_roots::TLS_SERVER_ROOTS.iter().cloned());
    }
    roots
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, TlsError> {
    let none = "no certificate in it";
    let list: Vec<_> = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect)
        .map_err(|error| unreadable(what, path, &error, none))?;
    match list.is_empty() {
        true => Err(unreadable(what, path, &pem::Error::NoItemsFound, none)),
        false => Ok(list),
    }
}

pub(super) fn unreadable(what: &'static str, path: &Path, error: &pem::Error, none: &str) -> TlsError {
    let reason = match error {
        pem::Error::NoItemsFound => none.to_owned(),
        pem::Error::Io(error) => error.kind().to_string(),
        // The others quote what they found, which in a key file is the key.
        _ => "it is not valid PEM".to_owned(),
    };
    TlsError::Unreadable { what, path: path.to_owned(), reason }
}

pub(super) fn unusable(what: &'static str, path: &Path, error: rustls::Error) -> TlsError {
    TlsError::Unusable { what, path: path.to_owned(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_files_some_certificates_are_trusted() {
        assert!(!system_roots().is_empty());
        let config = client(&OtlpTls::default(), &["h2"]).unwrap();
        assert_eq!(config.alpn_protocols, [b"h2"]);
    }

    #[test]
    fn a_file_that_cannot_be_used_is_named_with_the_reason() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ca.pem");
        let files = OtlpTls { certificate: Some(path.clone()), client: None };
        let message = || client(&files, &[]).unwrap_err().to_string();
        assert!(message().contains("ca.pem: entity not found"), "{}", message());
        std::fs::write(&path, "not a certificate").unwrap();
        assert!(message().contains("ca.pem: no certificate in it"), "{}", message());
    }

    #[test]
    fn an_error_never_quotes_a_key() {
        let folder = tempfile::tempdir().unwrap();
        let certificate = folder.path().join("client.pem");
        let key = folder.path().join("client.key");
        let pair = rcgen::generate_simple_self_signed(["localhost".to_owned()]).unwrap();
        std::fs::write(&certificate, pair.cert.pem()).unwrap();
        std::fs::write(&key, "-----BEGIN PRIVATE KEY-----\n!!!c2VjcmV0\n-----END PRIVATE KEY-----\n")
            .unwrap();
        let files = OtlpTls { certificate: None, client: Some((certificate, key)) };
        let message = client(&files, &[]).unwrap_err().to_string();
        assert!(message.contains("client.key: it is not valid PEM"), "{message}");
        assert!(!message.contains("c2VjcmV0"), "{message}");
    }
}
