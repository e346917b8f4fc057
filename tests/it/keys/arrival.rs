//! What comes before HTTP on a listener, and TLS on the way to its service.

use std::sync::Arc;

use rustls::version::TLS12;
use rustls::{ClientConfig, RootCertStore};

use super::car::{Car, Key, attribute};
use super::peers::RUNTIME;
use crate::support::origin::Peer;
use crate::support::pki::{Pki, Secure, get};
use crate::support::secure::service;
use crate::termination::onwards;

keys! {
    "inbound[].tls.certificates[].certificate" => a_caller_is_shown_a_certificate,
    "inbound[].tls.certificates[].key" => a_certificate_has_a_key,
    "inbound[].tls.min_version" => an_older_version_is_refused,
    "inbound[].tls.client_auth" => a_caller_has_to_show_a_certificate,
    "inbound[].tls.client_ca" => callers_certificates_are_believed,
    "inbound[].proxy_protocol.from" => a_load_balancer_says_whose_a_connection_is,
    "inbound[].to_tls.ca" => the_service_is_believed,
    "inbound[].to_tls.server_name" => the_service_has_a_name,
    "inbound[].to_tls.client_certificate" => the_service_is_shown_a_certificate,
    "inbound[].to_tls.client_key" => the_service_is_shown_that_it_is_ours,
}

/// Words for the files of a pair, under a name in capitals.
fn pair(key: Key, pki: &Pki, words: [&'static str; 2], stem: &str) -> Key {
    let [certificate, secret] = ["pem", "key"].map(|end| pki.path(&format!("{stem}.{end}")));
    key.word(words[0], certificate.display()).word(words[1], secret.display())
}

const TLS: &str = "inbound: [{ listen: 'LISTEN', to: 'http://SERVICE', tls: { certificates: [{ certificate: CERT, key: SECRET }]";

fn a_caller_is_shown_a_certificate(key: Key) {
    let pki = Pki::new("ca");
    let secret = rcgen::KeyPair::generate().unwrap();
    // The same key, so that either certificate goes with it.
    for stem in ["one", "other"] {
        let named = |params: &mut rcgen::CertificateParams| {
            params.distinguished_name.push(rcgen::DnType::CommonName, stem);
        };
        pki.put(stem, &pki.sign_for(&secret, "shop.example", named));
    }
    let key = pair(key, &pki, ["ONE", "SECRET"], "one").word("ANOTHER", pki.path("other.pem").display());
    let client = pki.client(&[], None);
    let see = |car: &mut Car| {
        let caller = Secure::connect(car.place.listen, b"", "shop.example", client.clone());
        RUNTIME.block_on(caller).expect("it is taken").common_name()
    };
    let yaml = TLS.replace("CERT", "<>") + " } }]";
    key.live(&yaml, ["ONE", "ANOTHER"], see, ["one".to_owned(), "other".to_owned()]);
}

/// One certificate goes with one key only, so what can be seen of another is that it is refused.
fn a_certificate_has_a_key(key: Key) {
    let pki = Pki::new("ca");
    pki.pair("shop", "shop.example");
    pki.pair("other", "other.example");
    let key = pair(key, &pki, ["CERT", "SECRET"], "shop").word("WRONG", pki.path("other.key").display());
    let yaml = TLS.replace("SECRET", "<>") + " } }]";
    let mut car = key.car(&yaml, "SECRET");
    let client = pki.client(&[], None);
    let status = |car: &Car| {
        RUNTIME
            .block_on(get(car.place.listen, b"", "shop.example", client.clone()))
            .expect("it is taken")
            .status
    };
    assert_eq!(status(&car), 200);
    let said = car.refuses("WRONG");
    assert!(said.contains("other.key does not belong to the certificate in"), "{said}");
    assert_eq!(status(&car), 200);
}

fn an_older_version_is_refused(key: Key) {
    let pki = Pki::new("ca");
    pki.pair("shop", "shop.example");
    let key = pair(key, &pki, ["CERT", "SECRET"], "shop");
    let mut roots = RootCertStore::empty();
    roots.add(rustls::pki_types::pem::PemObject::from_pem_file(pki.ca()).unwrap()).unwrap();
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(&[&TLS12]).unwrap();
    let client = Arc::new(builder.with_root_certificates(roots).with_no_client_auth());
    let see = |car: &mut Car| {
        RUNTIME.block_on(Secure::connect(car.place.listen, b"", "shop.example", client.clone())).is_ok()
    };
    let yaml = format!("{TLS}, min_version: <> }} }}]");
    key.live(&yaml, ["TLSv1.2", "TLSv1.3"], see, [true, false]);
}

fn a_caller_has_to_show_a_certificate(key: Key) {
    let pki = Pki::new("ca");
    pki.pair("shop", "shop.example");
    let key = pair(key, &pki, ["CERT", "SECRET"], "shop").word("CA", pki.ca().display());
    let client = pki.client(&[], None);
    let see =
        |car: &mut Car| RUNTIME.block_on(get(car.place.listen, b"", "shop.example", client.clone())).is_ok();
    let yaml = format!("{TLS}, client_ca: CA, client_auth: <> }} }}]");
    key.live(&yaml, ["optional", "required"], see, [true, false]);
}

fn callers_certificates_are_believed(key: Key) {
    let (pki, other) = (Pki::new("ca"), Pki::new("clients"));
    pki.pair("shop", "shop.example");
    let key = pair(key, &pki, ["CERT", "SECRET"], "shop");
    let key = key.word("ONE", pki.ca().display()).word("ANOTHER", other.ca().display());
    let client = pki.client(&[], Some(&other.sign("cart.example")));
    let see =
        |car: &mut Car| RUNTIME.block_on(get(car.place.listen, b"", "shop.example", client.clone())).is_ok();
    let yaml = format!("{TLS}, client_auth: required, client_ca: <> }} }}]");
    key.live(&yaml, ["ONE", "ANOTHER"], see, [false, true]);
}

fn a_load_balancer_says_whose_a_connection_is(key: Key) {
    let see = |car: &mut Car| {
        let mut caller = Peer::connect(car.place.listen);
        caller.send("PROXY TCP4 203.0.113.9 192.0.2.1 50000 443\r\nGET / HTTP/1.1\r\nHost: shop\r\n\r\n");
        caller.response();
        attribute(&car.span(), "client.address")
    };
    let yaml = "inbound: [{ listen: 'LISTEN', to: 'http://SERVICE', proxy_protocol: { from: <> } }]";
    let expected = ["null".to_owned(), "203.0.113.9".to_owned()];
    key.live(yaml, ["[10.0.0.0/8]", "[127.0.0.0/8]"], see, expected);
}

/// The status that a request gets, by a connection to the service that is not kept from before.
fn status(car: &mut Car) -> u16 {
    car.ask("/", "").status()
}

fn the_service_is_believed(key: Key) {
    let (pki, other) = (Pki::new("services"), Pki::new("services"));
    let (port, _sees) = RUNTIME.block_on(service(onwards::config(&pki, "localhost", None)));
    let key = key.word("PORT", port).word("ONE", other.ca().display()).word("ANOTHER", pki.ca().display());
    let yaml = "inbound: [{ listen: 'LISTEN', to: 'https://localhost:PORT', to_tls: { ca: <> } }]";
    key.live(yaml, ["ONE", "ANOTHER"], status, [502, 200]);
}

fn the_service_has_a_name(key: Key) {
    let pki = Pki::new("services");
    let (port, _sees) = RUNTIME.block_on(service(onwards::config(&pki, "shop.internal", None)));
    let key = key.word("PORT", port).word("CA", pki.ca().display());
    let yaml =
        "inbound: [{ listen: 'LISTEN', to: 'https://localhost:PORT', to_tls: { ca: CA, server_name: <> } }]";
    key.live(yaml, ["localhost", "shop.internal"], status, [502, 200]);
}

/// A service that asks for a certificate of the second CA. Its PORT and CA, and the SECRET key of what is shown to it.
fn asking(key: Key) -> (Pki, Pki, Key) {
    let (pki, clients) = (Pki::new("services"), Pki::new("clients"));
    let (port, _sees) = RUNTIME.block_on(service(onwards::config(&pki, "localhost", Some(&clients))));
    let secret = rcgen::KeyPair::generate().unwrap();
    clients.put("good", &clients.sign_for(&secret, "car.example", |_| {}));
    let strangers = Pki::new("clients");
    clients.put("foreign", &strangers.sign_for(&secret, "car.example", |_| {}));
    clients.pair("other", "car.example");
    let key = key
        .word("PORT", port)
        .word("CA", pki.ca().display())
        .word("ONE", clients.path("foreign.pem").display())
        .word("ANOTHER", clients.path("good.pem").display())
        .word("SECRET", clients.path("good.key").display())
        .word("WRONG", clients.path("other.key").display());
    (pki, clients, key)
}

const SHOWN: &str = "inbound: [{ listen: 'LISTEN', to: 'https://localhost:PORT', to_tls: { ca: CA, ";

fn the_service_is_shown_a_certificate(key: Key) {
    let (_pki, _clients, key) = asking(key);
    let yaml = format!("{SHOWN} client_certificate: <>, client_key: SECRET }} }}]");
    key.live(&yaml, ["ONE", "ANOTHER"], status, [502, 200]);
}

/// One certificate goes with one key only, so what can be seen of another is that it is refused.
fn the_service_is_shown_that_it_is_ours(key: Key) {
    let (_pki, _clients, key) = asking(key);
    let yaml = format!("{SHOWN} client_certificate: ANOTHER, client_key: <> }} }}]");
    let mut car = key.car(&yaml, "SECRET");
    assert_eq!(status(&mut car), 200);
    let said = car.refuses("WRONG");
    assert!(said.contains("other.key does not belong to the certificate in"), "{said}");
    assert_eq!(status(&mut car), 200);
}
