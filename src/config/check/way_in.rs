//! What the keys of a listener for requests have to say together.

use super::wrong;
use crate::config::ClientAuth;
use crate::config::file::{File, ToTls};
use crate::config::problem::Findings;

/// TLS that has no certificate to show, or no CA to believe; keys of which one needs the other.
pub(super) fn check(file: &File, findings: &mut Findings) {
    for (index, inbound) in file.inbound.iter().enumerate() {
        if let Some(tls) = &inbound.tls {
            if tls.certificates.value.is_empty() {
                let path = format!("inbound[{index}].tls.certificates");
                let message = "has no certificate, without which there is no TLS".to_owned();
                let instead = "write { certificate: FILE, key: FILE } into it, or remove tls";
                wrong(findings, &tls.certificates, &path, message, instead);
            }
            match (tls.client_auth.value, &tls.client_ca) {
                (ClientAuth::Optional | ClientAuth::Required, None) => {
                    let path = format!("inbound[{index}].tls.client_auth");
                    let message = "asks for certificates, and nobody says whose count".to_owned();
                    let instead = "write client_ca, a PEM file with the CAs that sign callers' certificates";
                    wrong(findings, &tls.client_auth, &path, message, instead);
                }
                (ClientAuth::None, Some(at)) => {
                    // Whoever wrote it may think that callers are asked.
                    let path = format!("inbound[{index}].tls.client_ca");
                    let message = "is of no use where callers are asked for no certificate".to_owned();
                    wrong(findings, at, &path, message, "write client_auth: required, or optional");
                }
                _ => {}
            }
        }
        if let Some(one) = &inbound.proxy_protocol
            && one.from.value.is_empty()
        {
            let path = format!("inbound[{index}].proxy_protocol.from");
            let instead = "write the networks of the load balancers, or remove proxy_protocol";
            wrong(findings, &one.from, &path, "names nobody".to_owned(), instead);
        }
        if let Some(to_tls) = &inbound.to_tls {
            pair(&format!("inbound[{index}].to_tls"), to_tls, findings);
        }
    }
}

/// Certificate and key come together.
fn pair(path: &str, to_tls: &ToTls, findings: &mut Findings) {
    let (alone, name, other) = match (&to_tls.client_certificate, &to_tls.client_key) {
        (Some(certificate), None) => (certificate, "client_certificate", "client_key"),
        (None, Some(key)) => (key, "client_key", "client_certificate"),
        _ => return,
    };
    let message = format!("is of no use without {other}");
    wrong(findings, alone, &format!("{path}.{name}"), message, &format!("write {path}.{other}, too"));
}
