//! What a certificate says, in words: whose it is, who has signed it, for which names, until when.

use std::time::SystemTime;

use x509_parser::extensions::GeneralName;
use x509_parser::objects::{oid_registry, oid2abbrev};
use x509_parser::prelude::{ASN1Time, X509Certificate};
use x509_parser::x509::{AttributeTypeAndValue, X509Name};

/// Bytes that one of its texts may have on a span. A certificate is as long as whoever signed it let it be.
const MAX_TEXT: usize = 1024;

/// What a certificate says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Certificate {
    /// Whose it is, as RFC 4514 writes names: `CN=shop,O=Example`.
    pub(super) subject: String,
    /// Who has signed it, in the same way.
    pub(super) issuer: String,
    /// The host names that it is for, in lower case; `*` as the first part of one stands for any.
    pub(super) hosts: Vec<String>,
    /// The first of its URIs, such as a SPIFFE id, or else of its host names.
    pub(super) name: Option<String>,
    /// Why it is of no use now, if it is not.
    pub(super) untimely: Option<String>,
}

impl Certificate {
    /// Reads a certificate; `None` where it is none.
    pub(super) fn read(der: &[u8], now: SystemTime) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let (mut uri, mut hosts) = (None, Vec::new());
        let names = certificate.subject_alternative_name().ok().flatten();
        for name in names.iter().flat_map(|extension| &extension.value.general_names) {
            match name {
                GeneralName::DNSName(host) => hosts.push(host.to_ascii_lowercase()),
                GeneralName::URI(text) if uri.is_none() => uri = Some((*text).to_owned()),
                _ => {}
            }
        }
        let name = uri.or_else(|| hosts.first().cloned()).map(bounded);
        Some(Self {
            subject: bounded(in_words(certificate.subject())),
            issuer: bounded(in_words(certificate.issuer())),
            hosts,
            name,
            untimely: untimely(&certificate, now),
        })
    }
}

fn untimely(certificate: &X509Certificate<'_>, now: SystemTime) -> Option<String> {
    let now = now.duration_since(SystemTime::UNIX_EPOCH).ok()?.as_secs();
    let now = ASN1Time::from_timestamp(i64::try_from(now).ok()?).ok()?;
    let valid = certificate.validity();
    match now {
        _ if now > valid.not_after => Some(format!("has expired at {}", valid.not_after)),
        _ if now < valid.not_before => Some(format!("is not valid before {}", valid.not_before)),
        _ => None,
    }
}

/// A name as RFC 4514 writes it: its last part first, and what could be taken for the end of a part escaped.
fn in_words(name: &X509Name<'_>) -> String {
    let parts: Vec<_> = name.iter_rdn().collect();
    let mut text = String::new();
    for (nth, part) in parts.into_iter().rev().enumerate() {
        for (place, one) in part.iter().enumerate() {
            match (nth, place) {
                (0, 0) => {}
                (_, 0) => text.push(','),
                _ => text.push('+'),
            }
            put_attribute(one, &mut text);
        }
    }
    text
}

fn put_attribute(one: &AttributeTypeAndValue<'_>, text: &mut String) {
    let kind = one.attr_type();
    let Ok(value) = one.as_str() else {
        // What is no text is shown as its bytes (section 2.4).
        text.push_str(&kind.to_id_string());
        text.push_str("=#");
        one.as_slice().iter().for_each(|byte| text.push_str(&format!("{byte:02x}")));
        return;
    };
    match oid2abbrev(kind, oid_registry()) {
        Ok(known) => text.push_str(known),
        Err(_) => text.push_str(&kind.to_id_string()),
    }
    text.push('=');
    let last = value.chars().count().saturating_sub(1);
    for (place, char) in value.chars().enumerate() {
        let at_an_end = char == ' ' && (place == 0 || place == last) || char == '#' && place == 0;
        match char {
            // Line breaks and their like would end a line of a log.
            char if char.is_control() => text.push_str(&format!("\\{:02X}", u32::from(char))),
            ',' | '+' | '"' | '\\' | '<' | '>' | ';' => text.extend(['\\', char]),
            char if at_an_end => text.extend(['\\', char]),
            char => text.push(char),
        }
    }
}

fn bounded(mut text: String) -> String {
    let end = (0..=MAX_TEXT.min(text.len())).rev().find(|end| text.is_char_boundary(*end));
    text.truncate(end.unwrap_or_default());
    text
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use rcgen::{CertificateParams, DnType, KeyPair, SanType};

    use super::*;

    fn read(change: impl FnOnce(&mut CertificateParams)) -> Certificate {
        let mut params = CertificateParams::new(["Shop.example".to_owned()]).unwrap();
        change(&mut params);
        let signed = params.self_signed(&KeyPair::generate().unwrap()).unwrap();
        Certificate::read(signed.der(), SystemTime::now()).unwrap()
    }

    #[test]
    fn a_name_cannot_pretend_to_be_two() {
        let certificate = read(|params| {
            params.distinguished_name.push(DnType::OrganizationName, "Example");
            params.distinguished_name.push(DnType::CommonName, " a, CN=admin\n");
        });
        // The common name comes before: the kind that was pushed first by `new` is replaced in its place.
        let parts = ["CN=\\ a\\, CN=admin\\0A", "O=Example"];
        assert!(parts.iter().all(|part| certificate.subject.contains(part)), "{}", certificate.subject);
        assert_eq!(certificate.subject, certificate.issuer);
        assert_eq!((certificate.hosts, certificate.untimely), (vec!["shop.example".to_owned()], None));
    }

    #[test]
    fn a_uri_names_more_than_a_host() {
        let uri = "spiffe://example/shop";
        let certificate = read(|params| params.subject_alt_names.push(SanType::URI(uri.try_into().unwrap())));
        assert_eq!(certificate.name.as_deref(), Some(uri));
        assert_eq!(read(|_| {}).name.as_deref(), Some("shop.example"));
    }

    #[test]
    fn a_certificate_has_its_time() {
        let now = SystemTime::now();
        let day = Duration::from_secs(24 * 60 * 60);
        let expired = read(|params| params.not_after = (now - day).into());
        assert!(expired.untimely.unwrap().starts_with("has expired at "));
        let early = read(|params| params.not_before = (now + day).into());
        assert!(early.untimely.unwrap().starts_with("is not valid before "));
        assert!(Certificate::read(b"no certificate", now).is_none());
    }

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(bounded("é".repeat(MAX_TEXT)).len(), MAX_TEXT);
        assert_eq!(bounded(format!("a{}", "é".repeat(MAX_TEXT))).len(), MAX_TEXT - 1);
        assert_eq!(bounded("short".to_owned()), "short");
    }
}
