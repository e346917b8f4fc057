//! PEM files, read once: what is compared to know whether they have changed is what is used of them.

use std::collections::BTreeMap;
use std::fmt;
use std::path::{Path, PathBuf};

use rustls::RootCertStore;
use rustls::crypto::ring;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::sign::CertifiedKey;

use super::tls::{TlsError, unreadable, unusable};
use crate::config::{Pair, read_bytes};

/// What some files hold. Secret, and so never shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct PemFiles(BTreeMap<PathBuf, Vec<u8>>);

impl fmt::Debug for PemFiles {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl PemFiles {
    /// Reads them.
    ///
    /// # Errors
    /// Names the first that cannot be read.
    pub fn read<'a>(paths: impl IntoIterator<Item = &'a Path>) -> Result<Self, TlsError> {
        let mut files = BTreeMap::new();
        for path in paths {
            let content =
                read_bytes(path).map_err(|error| unreadable("PEM file", path, &pem::Error::Io(error), ""))?;
            files.insert(path.to_owned(), content);
        }
        Ok(Self(files))
    }

    /// The certificates in the file at `path`; at least one.
    fn certificates(
        &self,
        what: &'static str,
        path: &Path,
    ) -> Result<Vec<CertificateDer<'static>>, TlsError> {
        let none = "no certificate in it";
        let list: Vec<_> = CertificateDer::pem_slice_iter(self.content(path))
            .collect::<Result<_, _>>()
            .map_err(|error| unreadable(what, path, &error, none))?;
        match list.is_empty() {
            true => Err(unreadable(what, path, &pem::Error::NoItemsFound, none)),
            false => Ok(list),
        }
    }

    /// The certificates in the file at `path`, as those of CAs.
    pub(super) fn roots(&self, what: &'static str, path: &Path) -> Result<RootCertStore, TlsError> {
        let mut roots = RootCertStore::empty();
        for certificate in self.certificates(what, path)? {
            roots.add(certificate).map_err(|error| unusable(what, path, error))?;
        }
        Ok(roots)
    }

    /// A certificate with those that lead to its CA, and its key.
    pub(super) fn pair(&self, Pair { certificate, key }: &Pair) -> Result<CertifiedKey, TlsError> {
        let chain = self.certificates("certificate", certificate)?;
        let secret = PrivateKeyDer::from_pem_slice(self.content(key))
            .map_err(|error| unreadable("key", key, &error, "no private key in it"))?;
        let paired = CertifiedKey::from_der(chain, secret, &ring::default_provider());
        paired.map_err(|error| match error {
            rustls::Error::InconsistentKeys(_) => {
                TlsError::Unpaired { certificate: certificate.clone(), key: key.clone() }
            }
            rustls::Error::InvalidCertificate(_) => unusable("certificate", certificate, error),
            error => unusable("key", key, error),
        })
    }

    fn content(&self, path: &Path) -> &[u8] {
        self.0.get(path).map_or(&[], Vec::as_slice)
    }
}
