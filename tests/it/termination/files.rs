//! Certificates change while callers are served: however the files change, nobody is disturbed, and who comes later is
//! shown the new one.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustls::ClientConfig;
use tokio::task::JoinHandle;

use super::{HTTP1, HTTP2, OK};
use crate::support::eventually;
use crate::support::origin::Origin;
use crate::support::pki::{Pki, Secure, Signed, get};
use crate::support::program::{File, Program, Start};

/// How a pair of files becomes another.
type Write = fn(&Path, &Signed);

fn in_place(folder: &Path, pair: &Signed) {
    // Between the two the key is that of another certificate, and that is refused.
    std::fs::write(folder.join("tls.crt"), &pair.certificate).unwrap();
    std::fs::write(folder.join("tls.key"), &pair.key).unwrap();
}

fn renamed(folder: &Path, pair: &Signed) {
    for (name, text) in [("tls.crt", &pair.certificate), ("tls.key", &pair.key)] {
        std::fs::write(folder.join("new"), text).unwrap();
        std::fs::rename(folder.join("new"), folder.join(name)).unwrap();
    }
}

/// As the kubelet changes a Secret: the files are links into a link to a directory, and that is turned.
fn turned(folder: &Path, pair: &Signed) {
    let version = format!("..{}", uuid::Uuid::from_u128(rand::random()));
    std::fs::create_dir(folder.join(&version)).unwrap();
    in_place(&folder.join(&version), pair);
    std::os::unix::fs::symlink(&version, folder.join("..data_tmp")).unwrap();
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key"] {
        if !folder.join(name).is_symlink() {
            let _ = std::fs::remove_file(folder.join(name));
            std::os::unix::fs::symlink(Path::new("..data").join(name), folder.join(name)).unwrap();
        }
    }
}

/// The program before a service, with the pair in a folder of its own.
struct Scene {
    pki: Pki,
    folder: PathBuf,
    program: Program,
    _file: File,
}

impl Scene {
    fn new(write: Write) -> Self {
        let pki = Pki::new("ca");
        let folder = pki.path("secret");
        std::fs::create_dir(&folder).unwrap();
        write(&folder, &named(&pki, 0));
        let file = File::new(&format!(
            "service: {{ name: under-test }}\nadmin: {{ listen: '127.0.0.1:0' }}\n\
             inbound:\n  - listen: 127.0.0.1:0\n    to: {}\n    \
             tls: {{ certificates: [{{ certificate: '{folder}/tls.crt', key: '{folder}/tls.key' }}] }}\n",
            Origin::answering(OK).url(),
            folder = folder.display(),
        ));
        let program = Start::new(["run", "--config", file.name()]).run();
        Self { pki, folder, program, _file: file }
    }

    /// Which certificate a new caller is shown.
    async fn shown(&self) -> String {
        let client = self.pki.client(HTTP1, None);
        let caller = Secure::connect(self.program.address, b"", "shop.example", client).await;
        caller.expect("there is always one").common_name()
    }

    async fn is_shown(&self, number: usize, how: &str) {
        let expected = format!("shop {number}");
        let until = std::time::Instant::now() + crate::support::PATIENCE;
        while self.shown().await != expected {
            assert!(std::time::Instant::now() < until, "{how}: {expected} is never shown");
            tokio::task::yield_now().await;
        }
    }

    fn sum(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.program.metrics().sum(name, labels)
    }
}

/// A certificate for the shop, with a number in its common name.
fn named(pki: &Pki, number: usize) -> Signed {
    pki.sign_with("shop.example", |params| {
        params.distinguished_name.push(rcgen::DnType::CommonName, format!("shop {number}"));
    })
}

/// Requests without a pause, each on a connection of its own or all on one.
fn load(
    scene: &Scene,
    client: &Arc<ClientConfig>,
    kept: bool,
    stop: &Arc<AtomicBool>,
    served: &Arc<AtomicUsize>,
) -> JoinHandle<()> {
    let (address, client) = (scene.program.address, client.clone());
    let (stop, served) = (stop.clone(), served.clone());
    tokio::spawn(async move {
        let connect = || Secure::connect(address, b"", "shop.example", client.clone());
        let mut caller = connect().await.expect("it is taken");
        while !stop.load(Ordering::Relaxed) {
            if !kept {
                caller = connect().await.expect("it is taken");
            }
            assert_eq!(caller.get("/").await.expect("it is answered").status, 200);
            served.fetch_add(1, Ordering::Relaxed);
        }
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn certificates_change_under_load_and_no_request_fails() {
    for (how, write) in [("in place", in_place as Write), ("renamed", renamed), ("turned", turned)] {
        let scene = Scene::new(write);
        let (stop, served) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let mut callers = Vec::new();
        for alpn in [HTTP1, HTTP2] {
            let client = scene.pki.client(alpn, None);
            callers.extend([true, false].map(|kept| load(&scene, &client, kept, &stop, &served)));
        }
        for number in 1..=3 {
            write(&scene.folder, &named(&scene.pki, number));
            scene.is_shown(number, how).await;
        }
        stop.store(true, Ordering::Relaxed);
        for caller in callers {
            caller.await.unwrap_or_else(|error| panic!("{how}: {error}"));
        }
        assert!(served.load(Ordering::Relaxed) > 0);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_pair_that_is_none_is_refused_and_told_and_the_one_before_is_shown() {
    let scene = Scene::new(renamed);
    let other = named(&scene.pki, 1);
    let page = || scene.program.page("/config").text();
    let refused = || scene.sum("tracecar_config_last_reload_successful", &[]) == 0.0;
    let mismatched = Signed { certificate: named(&scene.pki, 2).certificate, key: other.key.clone() };
    let broken = Signed { certificate: "nothing".to_owned(), key: other.key.clone() };
    for (pair, why) in [
        (mismatched, "tls.key does not belong to the certificate in"),
        (broken, "tls.crt: no certificate in it"),
    ] {
        renamed(&scene.folder, &pair);
        eventually(why, || page().contains(why)).await;
        assert!(refused() && page().contains("inbound[0].tls"), "{}", page());
        assert_eq!(scene.shown().await, "shop 0");
    }
    scene.program.logs("no certificate in it");
    std::fs::remove_file(scene.folder.join("tls.key")).unwrap();
    eventually("it is missed", || page().contains("tls.key: entity not found")).await;
    renamed(&scene.folder, &other);
    scene.is_shown(1, "it is whole again").await;
    eventually("all is well", || !refused()).await;
    assert!(page().starts_with("service:"), "{}", page());
}

#[tokio::test(flavor = "multi_thread")]
async fn what_changed_is_said_by_the_name_of_its_key() {
    let scene = Scene::new(turned);
    turned(&scene.folder, &named(&scene.pki, 1));
    scene.is_shown(1, "turned").await;
    let said = scene.program.logs("tls.certificates[0].certificate: changed");
    assert!(said.contains("(for new connections)"), "{said}");
    assert_eq!(scene.sum("tracecar_config_reloads_total", &[("result", "applied")]), 1.0);
}

/// A file for `tracecar check`, and what that says of it.
fn checked(tls: &str) -> (Option<i32>, String) {
    let file = File::new(&format!(
        "service: {{ name: shop }}\ninbound: [{{ to: 'http://127.0.0.1:3000', tls: {{ {tls} }} }}]\n"
    ));
    let ended = Start::new(["check", file.name()]).end();
    (ended.code(), ended.stderr.join("\n"))
}

#[test]
fn check_looks_into_the_files() {
    let pki = Pki::new("ca");
    let good = pki.pair("good", "shop.example");
    assert_eq!(checked(&format!("certificates: [{good}]")), (Some(0), String::new()));
    let missing = good.replace("good.pem", "missing.pem");
    let mixed = format!(
        "{{ certificate: '{}', key: '{}' }}",
        pki.path("good.pem").display(),
        pki.path("other.key").display()
    );
    pki.pair("other", "shop.example");
    let no_ca = format!("certificates: [{good}], client_auth: required, client_ca: '/nowhere/ca.pem'");
    for (tls, why) in [
        (format!("certificates: [{missing}]"), "missing.pem: entity not found"),
        (format!("certificates: [{mixed}]"), "does not belong to the certificate in"),
        (no_ca, "/nowhere/ca.pem: entity not found"),
    ] {
        let (code, said) = checked(&tls);
        assert!(said.contains(why) && said.contains("cannot use inbound[0].tls"), "{said}");
        assert_eq!(code, Some(64), "{said}");
    }
    let old = pki.sign_with("shop.example", |params| {
        params.not_after = (std::time::SystemTime::now() - std::time::Duration::from_secs(60)).into();
    });
    pki.put("old", &old);
    let (code, said) = checked(&format!("certificates: [{}]", pki.named("old")));
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("warning: the certificate in ") && said.contains("has expired at "), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_believed_changes_with_the_file() {
    let (pki, one, other) = (Pki::new("ca"), Pki::new("clients"), Pki::new("clients"));
    let ca = pki.path("clients.pem");
    std::fs::copy(one.ca(), &ca).unwrap();
    let file = File::new(&format!(
        "service: {{ name: under-test }}\nadmin: {{ listen: '127.0.0.1:0' }}\ninbound: [{{ listen: '127.0.0.1:0', \
         to: '{}', tls: {{ certificates: [{}], client_auth: required, client_ca: '{}' }} }}]\n",
        Origin::answering(OK).url(),
        pki.pair("shop", "shop.example"),
        ca.display()
    ));
    let program = Start::new(["run", "--config", file.name()]).run();
    let is_taken = async |shows: &Signed| {
        let answer = get(program.address, b"", "shop.example", pki.client(HTTP2, Some(shows))).await;
        // Refused is refused at once.
        assert!(
            !answer.as_ref().is_err_and(|error| error.kind() == std::io::ErrorKind::TimedOut),
            "{answer:?}"
        );
        answer.is_ok()
    };
    let shows = [one.sign("one.example"), other.sign("other.example")];
    assert!(is_taken(&shows[0]).await && !is_taken(&shows[1]).await);
    std::fs::copy(other.ca(), &ca).unwrap();
    let until = std::time::Instant::now() + crate::support::PATIENCE;
    while !is_taken(&shows[1]).await {
        assert!(std::time::Instant::now() < until, "the new CA counts");
    }
    assert!(!is_taken(&shows[0]).await, "and the old one does not");
}
