//! TLS interception: a local CA, certificates made for the hosts that callers ask for, and what callers say to them.
//!
//! Who is intercepted is decided elsewhere, and verifying the service beyond is the connector's business. Whoever holds
//! the CA's key can pose as any host towards those who trust the CA.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256,
};
use rustls::crypto::ring;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::server::{ServerSessionMemoryCache, StoresServerSessions};
use rustls::sign::CertifiedKey;
use rustls::{AlertDescription, ServerConfig};
use thiserror::Error;

use super::stream::Stream;
use super::tls::{self, VERSIONS, alert};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// How long a CA is valid: it is made by hand and its key lies on a disk.
const AUTHORITY_VALID: Duration = Duration::from_secs(2 * 365 * 24 * 60 * 60);

/// How long the certificate of a host is valid. A new one is made a day before that is over.
const LEAF_VALID: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// Certificates begin to be valid this much before they are made: clocks of containers differ.
const BACKDATED: Duration = DAY;

/// Hosts whose certificates are kept.
const KEPT_HOSTS: usize = 1024;

/// TLS sessions that may be resumed, of all hosts together.
const KEPT_SESSIONS: usize = 1024;

/// Hosts whose clients refused us, that are remembered.
const PINNED_HOSTS: usize = 1024;

/// How long they are remembered.
const PINNED_FOR: Duration = Duration::from_secs(10 * 60);

/// Why TLS was not intercepted.
#[derive(Debug, Error)]
pub enum InterceptError {
    /// The files of the CA cannot be used.
    #[error("cannot use the CA: {0}")]
    Authority(String),
    /// No certificate can be made for that host.
    #[error("cannot make a certificate for {0}: {1}")]
    Host(String, String),
    /// The caller does not take our certificate: it does not know the CA, or expects the service's own.
    #[error("the client refused our certificate: {0}")]
    Refused(String),
    /// The handshake failed for another reason.
    #[error("the TLS handshake failed: {0}")]
    Handshake(String),
    /// The handshake was not complete in time.
    #[error("no TLS handshake within {0:?}")]
    TooSlow(Duration),
}

/// A local CA that is trusted by the callers whose TLS is to be seen.
pub struct Authority {
    valid: Range<SystemTime>,
    issuer: Issuer<'static, KeyPair>,
    /// One for all hosts: making a key takes longer than signing with it.
    leaf_key: KeyPair,
    sessions: Arc<dyn StoresServerSessions>,
    kept: Mutex<HashMap<(String, bool), Kept>>,
}

struct Kept {
    config: Arc<ServerConfig>,
    until: SystemTime,
    used: Instant,
}

impl std::fmt::Debug for Authority {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        // Not the keys.
        f.debug_struct("Authority").finish_non_exhaustive()
    }
}

impl Authority {
    /// Makes a CA, valid for two years, and returns its certificate and its key as PEM.
    ///
    /// # Errors
    /// When the system gives no random numbers.
    pub fn make() -> Result<(String, String), InterceptError> {
        let key = new_key()?;
        let mut params = CertificateParams::default();
        let random = u32::from_ne_bytes(crate::exchange::random_bytes());
        params.distinguished_name = named(&format!("tracecar local CA {random:08x}"));
        // It signs hosts and no other CAs.
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(0));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let now = SystemTime::now();
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + AUTHORITY_VALID).into();
        let certificate = params.self_signed(&key).map_err(unusable)?;
        Ok((certificate.pem(), key.serialize_pem()))
    }

    /// The CA with that certificate and key, as PEM.
    ///
    /// # Errors
    /// When either is no PEM, or they do not belong together. Never quotes them.
    pub fn load(certificate: &str, key: &str) -> Result<Self, InterceptError> {
        let no_key = |_| unusable("its key file has no private key for ECDSA, Ed25519 or RSA in it");
        let secret =
            PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(|_| unusable("its key is not PEM"))?;
        let der = CertificateDer::from_pem_slice(certificate.as_bytes())
            .map_err(|_| unusable("its certificate is not PEM"))?;
        CertifiedKey::from_der(vec![der.clone()], secret, &ring::default_provider())
            .map_err(|_| unusable("its key and its certificate do not belong together"))?;
        let key = KeyPair::from_pem(key).map_err(no_key)?;
        let issuer = Issuer::from_ca_cert_der(&der, key).map_err(unusable)?;
        if !issuer.key_usages().is_empty() && !issuer.key_usages().contains(&KeyUsagePurpose::KeyCertSign) {
            return Err(unusable("its certificate is not one of a CA"));
        }
        let sessions = ServerSessionMemoryCache::new(KEPT_SESSIONS);
        Ok(Self { valid: validity(&der)?, issuer, leaf_key: new_key()?, sessions, kept: Mutex::default() })
    }

    /// From when until when its certificate is valid. It signs all the same; clients refuse what it signs.
    pub fn valid(&self) -> Range<SystemTime> {
        self.valid.clone()
    }

    /// The TLS of `host`, a name or an address literal without brackets, by a certificate of ours. Agrees to HTTP/2
    /// only with `http2`.
    ///
    /// # Errors
    /// When `host` cannot stand in a certificate.
    pub fn acceptor(&self, host: &str, http2: bool) -> Result<Arc<ServerConfig>, InterceptError> {
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        let now = SystemTime::now();
        let asked = (host, http2);
        if let Some(kept) = lock(&self.kept).get_mut(&asked)
            && kept.until > now
        {
            kept.used = Instant::now();
            return Ok(kept.config.clone());
        }
        // Signed without the lock: two who come at once each sign one, and either serves.
        let config = self.sign(&asked.0, http2, now)?;
        let mut kept = lock(&self.kept);
        if kept.len() >= KEPT_HOSTS && !kept.contains_key(&asked) {
            let oldest = kept.iter().min_by_key(|(_, kept)| kept.used).map(|(host, _)| host.clone());
            oldest.and_then(|oldest| kept.remove(&oldest));
        }
        let until = now + LEAF_VALID - DAY;
        kept.insert(asked, Kept { config: config.clone(), until, used: Instant::now() });
        Ok(config)
    }

    fn sign(&self, host: &str, http2: bool, now: SystemTime) -> Result<Arc<ServerConfig>, InterceptError> {
        let refused = |error: rcgen::Error| InterceptError::Host(host.to_owned(), error.to_string());
        let mut params = CertificateParams::new([host.to_owned()]).map_err(refused)?;
        // A common name has no room for a long host; nobody reads it beside the alternative names.
        let name =
            if host.len() <= 64 && host.parse::<IpAddr>().is_err() { host } else { "intercepted host" };
        params.distinguished_name = named(name);
        params.is_ca = IsCa::ExplicitNoCa;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        // OpenSSL in its strict mode, which Python uses, insists on it.
        params.use_authority_key_identifier_extension = true;
        params.not_before = (now - BACKDATED).into();
        params.not_after = (now + LEAF_VALID).into();
        let leaf = params.signed_by(&self.leaf_key, &self.issuer).map_err(refused)?;
        let key = PrivatePkcs8KeyDer::from(self.leaf_key.serialize_der());
        let mut config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .expect(VERSIONS)
            .with_no_client_auth()
            .with_single_cert(vec![leaf.der().clone()], key.into())
            .map_err(|error| InterceptError::Host(host.to_owned(), error.to_string()))?;
        // A session remembers its host and protocol, so one store is right for all.
        config.session_storage = self.sessions.clone();
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        if http2 {
            config.alpn_protocols.insert(0, b"h2".to_vec());
        }
        Ok(Arc::new(config))
    }
}

fn validity(der: &[u8]) -> Result<Range<SystemTime>, InterceptError> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(unusable)?;
    // Dates before 1970 are as good as 1970.
    let time = |seconds: i64| UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or_default());
    let valid = certificate.validity();
    Ok(time(valid.not_before.timestamp())..time(valid.not_after.timestamp()))
}

fn new_key() -> Result<KeyPair, InterceptError> {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).map_err(unusable)
}

fn named(name: &str) -> DistinguishedName {
    let mut names = DistinguishedName::new();
    names.push(DnType::CommonName, name);
    names
}

fn unusable(reason: impl ToString) -> InterceptError {
    InterceptError::Authority(reason.to_string())
}

/// Accepts TLS as `host` on a connection from which `early` has been read already, which takes no longer than `limit`.
///
/// # Errors
/// [`InterceptError::Refused`] where it looks as if the caller did not want our certificate. A client that compares
/// certificates only after the handshake goes unnoticed here: it closes a connection that looked well ([`Pinned::left`]).
pub async fn accept(
    stream: Stream,
    early: Bytes,
    authority: &Authority,
    host: &str,
    http2: bool,
    limit: Duration,
) -> Result<Stream, InterceptError> {
    let config = authority.acceptor(host, http2)?;
    match tokio::time::timeout(limit, tls::accept(config, stream, early)).await {
        Ok(Ok(stream)) => Ok(stream),
        Ok(Err(error)) => Err(what_failed(&error)),
        Err(_) => Err(InterceptError::TooSlow(limit)),
    }
}

fn what_failed(error: &io::Error) -> InterceptError {
    use AlertDescription as Alert;
    use io::ErrorKind;
    let refused = match (alert(error), error.kind()) {
        (Some(rustls::Error::AlertReceived(said)), _) => matches!(
            said,
            Alert::UnknownCA
                | Alert::BadCertificate
                | Alert::CertificateUnknown
                | Alert::UnsupportedCertificate
                | Alert::CertificateExpired
                | Alert::CertificateRevoked
                | Alert::AccessDenied
        ),
        (Some(_), _) => false,
        // Some say nothing and leave.
        (
            None,
            ErrorKind::UnexpectedEof
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionAborted
            | ErrorKind::BrokenPipe,
        ) => true,
        (None, _) => false,
    };
    match refused {
        true => InterceptError::Refused(error.to_string()),
        false => InterceptError::Handshake(error.to_string()),
    }
}

/// Hosts whose clients refused our certificate lately: they are better left alone.
///
/// Some clients compare certificates only when the handshake is over, and leave then. One that leaves without a word may
/// also have opened a connection in advance, so only the second in a row, without a request to that host in between, is
/// taken for a refusal.
#[derive(Debug, Default)]
pub struct Pinned {
    refused: Mutex<HashMap<String, Instant>>,
    left: Mutex<HashMap<String, Instant>>,
}

impl Pinned {
    /// A client of `host` has refused us.
    pub fn note(&self, host: &str) {
        note_at(&self.refused, host, Instant::now());
    }

    /// A client of `host` left right after the handshake. Says whether that is a refusal, and notes it if it is.
    pub fn left(&self, host: &str) -> bool {
        let now = Instant::now();
        let again = contains_at(&self.left, host, now);
        note_at(if again { &self.refused } else { &self.left }, host, now);
        again
    }

    /// A client of `host` asked something after the handshake: it is content.
    pub fn spoke(&self, host: &str) {
        lock(&self.left).remove(host);
    }

    /// Whether a client of `host` has refused us in the last ten minutes.
    pub fn contains(&self, host: &str) -> bool {
        contains_at(&self.refused, host, Instant::now())
    }
}

fn note_at(hosts: &Mutex<HashMap<String, Instant>>, host: &str, now: Instant) {
    let mut hosts = lock(hosts);
    if hosts.len() >= PINNED_HOSTS && !hosts.contains_key(host) {
        let oldest = hosts.iter().min_by_key(|(_, at)| **at).map(|(host, _)| host.clone());
        oldest.and_then(|oldest| hosts.remove(&oldest));
    }
    hosts.insert(host.to_owned(), now);
}

fn contains_at(hosts: &Mutex<HashMap<String, Instant>>, host: &str, now: Instant) -> bool {
    let mut hosts = lock(hosts);
    let Some(at) = hosts.get(host) else {
        return false;
    };
    let recent = now.saturating_duration_since(*at) < PINNED_FOR;
    if !recent {
        hosts.remove(host);
    }
    recent
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn authority() -> Authority {
        let (certificate, key) = Authority::make().unwrap();
        Authority::load(&certificate, &key).unwrap()
    }

    #[test]
    fn a_host_has_one_certificate_for_each_protocol_and_not_more_than_fit() {
        let authority = authority();
        let first = authority.acceptor("Shop.example.", true).unwrap();
        assert!(Arc::ptr_eq(&first, &authority.acceptor("shop.example", true).unwrap()));
        assert!(!Arc::ptr_eq(&first, &authority.acceptor("shop.example", false).unwrap()));
        assert!(authority.acceptor("::1", false).is_ok());
        assert!(authority.acceptor("sh\u{f6}p", false).is_err());
        for number in 0..KEPT_HOSTS {
            authority.acceptor(&format!("h{number}.example"), true).unwrap();
        }
        assert_eq!(lock(&authority.kept).len(), KEPT_HOSTS);
        assert!(!Arc::ptr_eq(&first, &authority.acceptor("shop.example", true).unwrap()), "the oldest goes");
    }

    #[test]
    fn a_certificate_is_made_again_before_it_expires() {
        let authority = authority();
        let first = authority.acceptor("shop.example", true).unwrap();
        for kept in lock(&authority.kept).values_mut() {
            kept.until = SystemTime::now();
        }
        assert!(!Arc::ptr_eq(&first, &authority.acceptor("shop.example", true).unwrap()));
    }

    #[test]
    fn a_ca_whose_parts_do_not_belong_together_is_refused_and_not_quoted() {
        let ((certificate, key), (_, other)) = (Authority::make().unwrap(), Authority::make().unwrap());
        for (certificate, key) in [(&*certificate, &*other), (&*certificate, "none"), ("none", &*key)] {
            let message = Authority::load(certificate, key).unwrap_err().to_string();
            assert!(message.starts_with("cannot use the CA: its "), "{message}");
        }
    }

    #[test]
    fn a_refusal_is_remembered_for_ten_minutes() {
        let pinned = Mutex::default();
        let now = Instant::now();
        note_at(&pinned, "shop.example", now);
        assert!(contains_at(&pinned, "shop.example", now + PINNED_FOR - DAY / 86_400));
        assert!(!contains_at(&pinned, "other.example", now));
        assert!(!contains_at(&pinned, "shop.example", now + PINNED_FOR));
        for number in 0..=PINNED_HOSTS {
            note_at(&pinned, &format!("h{number}"), now + Duration::from_millis(number as u64));
        }
        assert_eq!(lock(&pinned).len(), PINNED_HOSTS);
        assert!(!contains_at(&pinned, "h0", now));
    }

    #[test]
    fn leaving_twice_without_a_word_is_a_refusal_and_once_is_not() {
        let pinned = Pinned::default();
        assert!(!pinned.left("shop.example") && !pinned.contains("shop.example"));
        pinned.spoke("shop.example");
        assert!(!pinned.left("shop.example"), "it was content in between");
        assert!(!pinned.left("other.example"));
        assert!(pinned.left("shop.example") && pinned.contains("shop.example"));
        assert!(!pinned.contains("other.example"));
    }
}
