//! TLS with the service: whom it has to be signed by, what its name is, and what it is shown.

use std::sync::Arc;

use rustls::RootCertStore;
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::WebPkiClientVerifier;
use tracecar::exchange::Outcome;

use super::{OK, car_before};
use crate::support::origin::{Origin, Peer};
use crate::support::pki::{Pki, Signed};
use crate::support::program::{File, Start};
use crate::support::secure::service;

/// A service of this name, which wants to be shown a certificate of `clients`.
pub fn config(pki: &Pki, name: &str, clients: Option<&Pki>) -> Arc<ServerConfig> {
    let Signed { certificate, key } = pki.sign(name);
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let builder = match clients {
        None => builder.with_no_client_auth(),
        Some(clients) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_file(clients.ca()).unwrap()).unwrap();
            let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider);
            builder.with_client_cert_verifier(verifier.build().unwrap())
        }
    };
    let chain = vec![CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()];
    let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
    let mut config = builder.with_single_cert(chain, key).unwrap();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Arc::new(config)
}

/// The status that a caller gets.
fn status(car: std::net::SocketAddr) -> u16 {
    let mut caller = Peer::connect(car);
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n");
    caller.response().status()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_service_is_believed_and_shown_what_the_listener_says() {
    let (pki, clients) = (Pki::new("services"), Pki::new("clients"));
    clients.pair("car", "car.example");
    let (port, _sees) = service(config(&pki, "shop.internal", Some(&clients))).await;
    let ca = format!("ca: '{}'", pki.ca().display());
    let name = "server_name: shop.internal";
    let [certificate, key] = ["pem", "key"].map(|end| clients.path(&format!("car.{end}")));
    let shown = format!("client_certificate: '{}', client_key: '{}'", certificate.display(), key.display());
    let cases = [
        (format!("{ca}, {name}, {shown}"), 200, Outcome::Complete),
        // What is wrong with what we show is told by the service, and after the handshake in TLS 1.3.
        (format!("{ca}, {name}"), 502, Outcome::UpstreamReset),
        (format!("{ca}, {shown}"), 502, Outcome::UpstreamCertificate),
        (format!("{name}, {shown}"), 502, Outcome::UpstreamCertificate),
    ];
    for (to_tls, expected, outcome) in cases {
        let car = car_before(&format!("https://127.0.0.1:{port}"), &format!("to_tls: {{ {to_tls} }}"), "");
        let address = car.address();
        let got = tokio::task::spawn_blocking(move || status(address)).await.unwrap();
        let record = car.record();
        assert_eq!(got, expected, "{to_tls}: {}", record.text(record.detail));
        assert!(
            record.outcome == outcome
                || outcome == Outcome::UpstreamReset && record.outcome == Outcome::UpstreamTls,
            "{to_tls}: {:?}",
            record.outcome
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn its_files_are_read_again_too() {
    let (before, after) = (Pki::new("services"), Pki::new("services"));
    let (port, _sees) = service(config(&after, "127.0.0.1", None)).await;
    let ca = before.path("trusted.pem");
    std::fs::copy(before.ca(), &ca).unwrap();
    let file = File::new(&format!(
        "service: {{ name: under-test }}\nadmin: {{ listen: '127.0.0.1:0' }}\ninbound:\n  - {{ listen: '127.0.0.1:0', \
         to: 'https://127.0.0.1:{port}', to_tls: {{ ca: '{}' }} }}\n  - {{ listen: '127.0.0.1:0', to: '{}' }}\n",
        ca.display(),
        Origin::answering(OK).url()
    ));
    let program = Start::new(["run", "--config", file.name()]).run();
    let address = program.address;
    let is = move |expected| {
        tokio::task::spawn_blocking(move || {
            let until = std::time::Instant::now() + crate::support::PATIENCE;
            while status(address) != expected {
                assert!(std::time::Instant::now() < until, "never {expected}");
            }
        })
    };
    is(502).await.unwrap();
    std::fs::copy(after.ca(), &ca).unwrap();
    is(200).await.unwrap();
}
