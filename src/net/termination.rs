//! TLS with callers: which certificate they are shown, what they have to show, and what came of it.

use std::io;
use std::sync::Arc;
use std::time::SystemTime;

use bytes::Bytes;
use rustls::crypto::ring;
use rustls::server::{
    ClientHello, NoServerSessionStorage, ResolvesServerCert, ServerSessionMemoryCache, WebPkiClientVerifier,
};
use rustls::sign::CertifiedKey;
use rustls::{ProtocolVersion, ServerConfig, SupportedProtocolVersion, version};

use super::certificate::Certificate;
use super::pem_files::PemFiles;
use super::stream::Stream;
use super::tls::{self, TlsError, VERSIONS};
use crate::config::{ClientAuth, Pair, Tls, TlsVersion};
use crate::exchange::{ClientCertificate, TlsFacts};
use crate::stats::{Count, Stats};

/// Sessions that may be resumed.
const KEPT_SESSIONS: usize = 4096;

/// What we speak inside, best first. A client that offers other protocols only is refused by TLS itself; who offers none
/// is served by its first bytes, as without TLS.
const ALPN: [&[u8]; 3] = [b"h2", b"http/1.1", b"http/1.0"];

const ALL: &[&SupportedProtocolVersion] = &[&version::TLS13, &version::TLS12];
const NEWEST: &[&SupportedProtocolVersion] = &[&version::TLS13];

/// TLS with the callers of one listener.
#[derive(Debug)]
pub struct Termination {
    config: Arc<ServerConfig>,
    remarks: Vec<String>,
}

impl Termination {
    /// As `tls` has it. `files` are those that it names.
    ///
    /// # Errors
    /// Names a file that cannot be used, and a key that is of another certificate.
    pub fn new(tls: &Tls, files: &PemFiles) -> Result<Self, TlsError> {
        let provider = Arc::new(ring::default_provider());
        let mut shown = Vec::new();
        let mut remarks = Vec::new();
        for pair in &tls.certificates {
            let key = files.pair(pair)?;
            let read = key.cert.first().and_then(|der| Certificate::read(der, SystemTime::now()));
            let Pair { certificate: path, .. } = pair;
            let Some(certificate) = read else {
                let error = rustls::CertificateError::BadEncoding.into();
                return Err(tls::unusable("certificate", path, error));
            };
            let path = path.display();
            remarks.extend(certificate.untimely.map(|why| format!("the certificate in {path} {why}")));
            if certificate.hosts.is_empty() {
                remarks.push(format!(
                    "the certificate in {path} has no host name (subjectAltName), without which clients refuse it"
                ));
            }
            shown.push(Shown { key: Arc::new(key), hosts: certificate.hosts });
        }
        let versions = match tls.min_version {
            TlsVersion::Tls12 => ALL,
            TlsVersion::Tls13 => NEWEST,
        };
        let builder = ServerConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(versions)
            .expect(VERSIONS);
        let verifier = match (tls.client_auth, &tls.client_ca) {
            (ClientAuth::None, _) | (_, None) => None,
            (auth, Some(path)) => {
                let roots = Arc::new(files.roots("CA certificate", path)?);
                let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider);
                let verifier = match auth {
                    ClientAuth::Optional => verifier.allow_unauthenticated(),
                    ClientAuth::None | ClientAuth::Required => verifier,
                };
                let error = |error: rustls::server::VerifierBuilderError| {
                    tls::unusable("CA certificate", path, rustls::Error::General(error.to_string()))
                };
                Some(verifier.build().map_err(error)?)
            }
        };
        let mut config = match &verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier.clone()),
            None => builder.with_no_client_auth(),
        }
        .with_cert_resolver(Arc::new(ByName(shown)));
        config.alpn_protocols = ALPN.map(<[u8]>::to_vec).to_vec();
        config.session_storage = match verifier {
            // Whoever resumes a session is not asked for a certificate again, and it may have expired meanwhile.
            Some(_) => Arc::new(NoServerSessionStorage {}),
            None => ServerSessionMemoryCache::new(KEPT_SESSIONS),
        };
        Ok(Self { config: Arc::new(config), remarks })
    }

    /// What works, but hardly as meant: certificates that have expired, or that nobody will take.
    pub fn remarks(&self) -> &[String] {
        &self.remarks
    }

    /// Accepts TLS on a connection from which `early` has been read already.
    ///
    /// # Errors
    /// What went wrong, of which [`count`] knows more.
    pub(super) async fn accept(&self, stream: Stream, early: Bytes) -> io::Result<Stream> {
        tls::accept(self.config.clone(), stream, early).await
    }
}

/// A certificate, and for whom it is.
#[derive(Debug)]
struct Shown {
    key: Arc<CertifiedKey>,
    hosts: Vec<String>,
}

/// Chooses by the name that a client asks for, and among those of one name by what it can verify.
#[derive(Debug)]
struct ByName(Vec<Shown>);

impl ResolvesServerCert for ByName {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let name = hello.server_name().map(|name| name.trim_end_matches('.').to_ascii_lowercase());
        let usable = |shown: &&Shown| shown.key.key.choose_scheme(hello.signature_schemes()).is_some();
        let best = |matches: &dyn Fn(&Shown) -> bool| {
            let all = || self.0.iter().filter(|shown| matches(shown));
            all().find(usable).or_else(|| all().next())
        };
        let exact = |shown: &Shown| name.as_ref().is_some_and(|name| shown.hosts.contains(name));
        let wild = |shown: &Shown| {
            name.as_ref().is_some_and(|name| shown.hosts.iter().any(|host| covers(host, name)))
        };
        let first = |shown: &Shown| self.0.first().is_some_and(|first| first.hosts == shown.hosts);
        let found = best(&exact).or_else(|| best(&wild)).or_else(|| best(&first));
        found.map(|shown| shown.key.clone())
    }
}

/// Whether `*.example.com` is for `name`: for one more part, and no more (RFC 6125 section 6.4.3).
fn covers(host: &str, name: &str) -> bool {
    let rest = host.strip_prefix("*.");
    rest.is_some_and(|rest| name.split_once('.').is_some_and(|(part, of)| !part.is_empty() && of == rest))
}

/// What was agreed on with a caller; `None` where there is no TLS.
pub(super) fn facts(stream: &Stream) -> Option<TlsFacts> {
    let Stream::Accepted(tls) = stream else { return None };
    let (_, session) = tls.get_ref();
    let version = match session.protocol_version()? {
        ProtocolVersion::TLSv1_2 => "1.2",
        ProtocolVersion::TLSv1_3 => "1.3",
        _ => return None,
    };
    let shown = session.peer_certificates().and_then(<[_]>::first);
    let client = shown.and_then(|der| Certificate::read(der, SystemTime::now()));
    let client =
        client.map(|Certificate { subject, issuer, name, .. }| ClientCertificate { subject, issuer, name });
    Some(TlsFacts { version, client })
}

/// The counter of what ended a handshake.
pub(super) fn count<'s>(error: &io::Error, stats: &'s Stats) -> &'s Count {
    use rustls::Error as Tls;
    match tls::alert(error) {
        Some(Tls::AlertReceived(_)) => &stats.tls_refused,
        Some(Tls::NoCertificatesPresented | Tls::InvalidCertificate(_)) => &stats.tls_client_certificate,
        Some(Tls::PeerIncompatible(_) | Tls::NoApplicationProtocol) => &stats.tls_incompatible,
        Some(_) => &stats.tls_malformed,
        None => &stats.tls_closed,
    }
}

#[cfg(test)]
mod tests {
    use super::covers;

    #[test]
    fn a_star_stands_for_one_part() {
        assert!(covers("*.example.com", "shop.example.com"));
        for name in ["example.com", ".example.com", "a.shop.example.com", "shop.example.org", ""] {
            assert!(!covers("*.example.com", name), "{name}");
        }
        assert!(!covers("shop.example.com", "shop.example.com"), "that is another rule");
    }
}
