//! Certificates, keys, and who is believed.

use std::net::TcpListener;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, KeyUsagePurpose};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::server::WebPkiClientVerifier;
use rustls::{RootCertStore, ServerConfig, ServerConnection};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

use super::car::{Car, Key};
use super::peers::RUNTIME;
use crate::intercept::LocalCa;
use crate::support::PATIENCE;
use crate::support::secure::{Trust, client_trusting, service};
use crate::support::service::call;

keys! {
    "outbound.certificate" => a_destination_is_believed,
    "outbound.intercept.hosts" => some_hosts_are_looked_into,
    "outbound.intercept.ca_certificate" => the_local_ca_has_a_certificate,
    "outbound.intercept.ca_key" => the_local_ca_has_a_key,
    "export.otlp.certificate" => a_collector_is_believed,
    "export.otlp.client_certificate" => a_collector_is_shown_a_certificate,
    "export.otlp.client_key" => a_collector_is_shown_that_the_certificate_is_ours,
}

fn a_destination_is_believed(key: Key) {
    let trust = Trust::new();
    let (port, _sees) = RUNTIME.block_on(service(trust.server("localhost", &["http/1.1"])));
    let key = key.word("CA", trust.folder.path().join("ca.pem").display());
    let see = |car: &mut Car| call(car.place.proxy, &format!("https://localhost:{port}/"), "").status();
    key.live("outbound: { proxy: 'PROXY', certificate: <> }", ["null", "CA"], see, [502, 200]);
}

/// What the certificate of a CA of that name says.
fn ca(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn new_key() -> KeyPair {
    KeyPair::generate().expect("there are random numbers")
}

fn put(folder: &Path, name: &str, text: &str) -> String {
    let path = folder.join(name);
    std::fs::write(&path, text).expect("it is ours");
    path.to_str().expect("a plain name").to_owned()
}

/// Who has signed what a client is shown that connects to `shop.example`, and believes these.
fn issuer(car: &Car, port: u16, roots: &RootCertStore) -> String {
    RUNTIME.block_on(async {
        let mut stream = TcpStream::connect(car.place.proxy).await.unwrap();
        let target = format!("127.0.0.1:{port}");
        let ask = format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n\r\n");
        stream.write_all(ask.as_bytes()).await.unwrap();
        let mut head = Vec::new();
        while !head.ends_with(b"\r\n\r\n") {
            head.push(stream.read_u8().await.unwrap());
        }
        let name = ServerName::try_from("shop.example").unwrap();
        let connector = TlsConnector::from(client_trusting(roots.clone()));
        let stream = connector.connect(name, stream).await.expect("it believes whoever it is");
        let certificate = stream.get_ref().1.peer_certificates().expect("there is one")[0].clone();
        named(&certificate, |certificate| certificate.issuer().to_string())
    })
}

fn named(
    der: &CertificateDer<'_>,
    name: impl FnOnce(&x509_parser::certificate::X509Certificate<'_>) -> String,
) -> String {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).expect("a certificate");
    name(&certificate)
}

fn roots<'a>(certificates: impl IntoIterator<Item = &'a str>) -> RootCertStore {
    let mut roots = RootCertStore::empty();
    for certificate in certificates {
        roots.add(CertificateDer::from_pem_slice(certificate.as_bytes()).unwrap()).unwrap();
    }
    roots
}

fn some_hosts_are_looked_into(key: Key) {
    let (trust, local) = (Trust::new(), LocalCa::new());
    let (port, _sees) = RUNTIME.block_on(service(trust.server("shop.example", &["http/1.1"])));
    let read = |path: &Path| std::fs::read_to_string(path).expect("it is there");
    let texts = [read(&trust.folder.path().join("ca.pem")), read(local.path("local.pem").as_ref())];
    let roots = roots(texts.iter().map(String::as_str));
    let [of_service, of_local] = texts.map(|text| {
        let der = CertificateDer::from_pem_slice(text.as_bytes()).unwrap();
        named(&der, |certificate| certificate.subject().to_string())
    });
    let key = key
        .word("TRUSTED", trust.folder.path().join("ca.pem").display())
        .word("CERT", local.path("local.pem"))
        .word("SECRET", local.path("local.key"));
    let yaml = "outbound: { proxy: 'PROXY', certificate: TRUSTED, \
                intercept: { hosts: <>, ca_certificate: CERT, ca_key: SECRET } }";
    let see = |car: &mut Car| issuer(car, port, &roots);
    key.live(yaml, ["[]", "[shop.example]"], see, [of_service, of_local]);
}

fn the_local_ca_has_a_certificate(key: Key) {
    let (trust, secret) = (Trust::new(), new_key());
    let (port, _sees) = RUNTIME.block_on(service(trust.server("shop.example", &["http/1.1"])));
    let folder = trust.folder.path();
    // The same key, so that either certificate goes with it.
    let texts = ["one", "other"].map(|name| ca(name).self_signed(&secret).unwrap().pem());
    let roots = roots(texts.iter().map(String::as_str));
    let key = key
        .word("TRUSTED", folder.join("ca.pem").display())
        .word("ONE", put(folder, "one.pem", &texts[0]))
        .word("ANOTHER", put(folder, "other.pem", &texts[1]))
        .word("SECRET", put(folder, "secret.key", &secret.serialize_pem()));
    let yaml = "outbound: { proxy: 'PROXY', certificate: TRUSTED, \
                intercept: { hosts: [shop.example], ca_certificate: <>, ca_key: SECRET } }";
    let see = |car: &mut Car| issuer(car, port, &roots);
    key.live(yaml, ["ONE", "ANOTHER"], see, ["CN=one".to_owned(), "CN=other".to_owned()]);
}

/// One certificate goes with one key only, so what can be seen of another is that it is refused.
fn the_local_ca_has_a_key(key: Key) {
    let (trust, secret) = (Trust::new(), new_key());
    let (port, _sees) = RUNTIME.block_on(service(trust.server("shop.example", &["http/1.1"])));
    let folder = trust.folder.path();
    let certificate = ca("one").self_signed(&secret).unwrap().pem();
    let roots = roots([certificate.as_str()]);
    let key = key
        .word("TRUSTED", folder.join("ca.pem").display())
        .word("ONE", put(folder, "one.pem", &certificate))
        .word("SECRET", put(folder, "secret.key", &secret.serialize_pem()))
        .word("WRONG", put(folder, "wrong.key", &new_key().serialize_pem()));
    let yaml = "outbound: { proxy: 'PROXY', certificate: TRUSTED, \
                intercept: { hosts: [shop.example], ca_certificate: ONE, ca_key: <> } }";
    let mut car = key.car(yaml, "SECRET");
    assert_eq!(issuer(&car, port, &roots), "CN=one");
    let said = car.refuses("WRONG");
    assert!(said.contains("its key and its certificate do not belong together"), "{said}");
    assert_eq!(issuer(&car, port, &roots), "CN=one");
}

/// A collector with TLS that is heard of only as far as its handshakes go: the subject of what it is shown, nothing of somebody
/// who shows nothing, and none where there was no handshake.
fn handshakes(config: ServerConfig) -> (u16, Receiver<Option<String>>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let port = listener.local_addr().expect("it is bound").port();
    let (shook, shakes) = channel();
    let config = Arc::new(config);
    std::thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
            let mut tls = ServerConnection::new(config.clone()).expect("it is a configuration");
            let mut complete = true;
            while complete && tls.is_handshaking() {
                complete = tls.complete_io(&mut stream).is_ok();
            }
            let shown = tls.peer_certificates().and_then(|shown| shown.first());
            let shown = shown.map(|shown| named(shown, |certificate| certificate.subject().to_string()));
            // The test may be over.
            let _ = shook.send(complete.then(|| shown.unwrap_or_default()));
        }
    });
    (port, shakes)
}

/// What comes of the attempt to export the span of a request.
fn shaken(car: &Car, shakes: &Receiver<Option<String>>) -> Option<String> {
    car.ask("/", "");
    shakes.recv_timeout(PATIENCE).expect("it is connected to")
}

fn a_collector_is_believed(key: Key) {
    let trust = Trust::new();
    let config = Arc::unwrap_or_clone(trust.server("localhost", &["http/1.1"]));
    let (port, shakes) = handshakes(config);
    let key = key.word("CA", trust.folder.path().join("ca.pem").display()).word("PORT", port);
    let yaml = "export: { otlp: { endpoint: 'https://localhost:PORT', certificate: <>, \
                queue: { schedule_delay: 10ms } } }";
    let see = |car: &mut Car| shaken(car, &shakes).is_some();
    key.live_in_time(yaml, ["null", "CA"], see, [false, true]);
}

/// A collector that wants to be shown a certificate. Adds to the key what it takes: its PORT and CA, ONE and ANOTHER certificate
/// of a SECRET key, and a WRONG key; all in a folder that goes away with the first.
fn asking(key: Key) -> (tempfile::TempDir, Receiver<Option<String>>, Key) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let ca = CertifiedIssuer::self_signed(ca("everybody"), new_key()).unwrap();
    let (server, secret) = (new_key(), new_key());
    let shown = ["one", "other"].map(|name| {
        let mut params = CertificateParams::default();
        params.distinguished_name.push(DnType::CommonName, name);
        params.signed_by(&secret, &ca).unwrap().pem()
    });
    let own = CertificateParams::new(["localhost".to_owned()]).unwrap().signed_by(&server, &ca).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let clients = Arc::new(roots([ca.pem().as_str()]));
    let verifier = WebPkiClientVerifier::builder_with_provider(clients, provider.clone());
    let config = ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier.build().unwrap())
        .with_single_cert(vec![own.der().clone()], PrivateKeyDer::try_from(server.serialize_der()).unwrap())
        .unwrap();
    let (port, shakes) = handshakes(config);
    let at = folder.path();
    let key = key
        .word("PORT", port)
        .word("CA", put(at, "ca.pem", &ca.pem()))
        .word("ONE", put(at, "one.pem", &shown[0]))
        .word("ANOTHER", put(at, "other.pem", &shown[1]))
        .word("SECRET", put(at, "secret.key", &secret.serialize_pem()))
        .word("WRONG", put(at, "wrong.key", &new_key().serialize_pem()));
    (folder, shakes, key)
}

fn a_collector_is_shown_a_certificate(key: Key) {
    let (_folder, shakes, key) = asking(key);
    let yaml = "export: { otlp: { endpoint: 'https://localhost:PORT', certificate: CA, client_certificate: <>, \
                client_key: SECRET, queue: { schedule_delay: 10ms } } }";
    let see = |car: &mut Car| shaken(car, &shakes);
    let expected = ["CN=one", "CN=other"].map(|name| Some(name.to_owned()));
    key.live_in_time(yaml, ["ONE", "ANOTHER"], see, expected);
}

/// One certificate goes with one key only, so what can be seen of another is that it is refused.
fn a_collector_is_shown_that_the_certificate_is_ours(key: Key) {
    let (_folder, shakes, key) = asking(key);
    let yaml = "export: { otlp: { endpoint: 'https://localhost:PORT', certificate: CA, client_certificate: ONE, \
                client_key: <>, queue: { schedule_delay: 10ms } } }";
    let mut car = key.car(yaml, "SECRET");
    assert_eq!(shaken(&car, &shakes).as_deref(), Some("CN=one"));
    let said = car.refuses("WRONG");
    assert!(said.contains("wrong.key") || said.contains("one.pem"), "{said}");
    assert_eq!(shaken(&car, &shakes).as_deref(), Some("CN=one"));
}
