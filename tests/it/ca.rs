//! `tracecar ca`, from outside.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use tracecar::config::{self, Flags, Sources};
use tracecar::net::intercept::Authority;

use crate::support::program::{Ended, Start};

/// Runs it for a folder, with more arguments.
fn make(folder: &Path, more: &[&str]) -> Ended {
    let folder = folder.to_str().expect("a plain name");
    Start::new(["ca", "--out", folder].into_iter().chain(more.iter().copied())).end()
}

fn read(folder: &Path, name: &str) -> String {
    fs::read_to_string(folder.join(name)).expect("it was written")
}

fn mode(folder: &Path, name: &str) -> u32 {
    fs::metadata(folder.join(name)).expect("it was written").permissions().mode() & 0o777
}

#[test]
fn a_ca_can_be_used_and_its_key_is_for_its_owner_only() {
    let folder = tempfile::tempdir().unwrap();
    let ended = make(folder.path(), &[]);
    assert_eq!(ended.code(), Some(0), "{ended:?}");
    assert_eq!((mode(folder.path(), "local-ca.key"), mode(folder.path(), "local-ca.pem")), (0o600, 0o644));
    let authority =
        Authority::load(&read(folder.path(), "local-ca.pem"), &read(folder.path(), "local-ca.key")).unwrap();
    assert!(authority.acceptor("shop.example", true).is_ok());
    let text = ended.stdout.join("\n");
    for part in [
        "NODE_EXTRA_CA_CERTS",
        "SSL_CERT_FILE",
        "REQUESTS_CA_BUNDLE",
        "CURL_CA_BUNDLE",
        "PIP_CERT",
        "npm_config_cafile",
        "GIT_SSL_CAINFO",
        "keytool",
        "javax.net.ssl.trustStore=",
        "The danger",
    ] {
        assert!(text.contains(part), "{part} is in {text}");
    }
    assert!(!text.contains("PRIVATE KEY"), "the key is not for terminals");
}

#[test]
fn the_lines_that_it_prints_are_a_configuration() {
    let folder = tempfile::tempdir().unwrap();
    let printed = make(folder.path(), &[]).stdout;
    let lines = printed.iter().skip_while(|line| *line != "outbound:").take_while(|line| !line.is_empty());
    let yaml: String = lines.map(|line| format!("{line}\n")).collect();
    let text = format!("inbound: [{{ to: 'http://127.0.0.1:3000' }}]\n{yaml}");
    let sources = Sources {
        file: Some(("printed", &text)),
        env: &|_| None,
        read: &config::read_file,
        flags: &Flags::default(),
        terminal: false,
    };
    let settings = config::load(&sources).unwrap_or_else(|problems| panic!("{problems}")).settings;
    let (certificate, key) = settings.startup.outbound.unwrap().authority.expect("interception is on");
    assert_eq!((certificate, key), (folder.path().join("local-ca.pem"), folder.path().join("local-ca.key")));
}

#[test]
fn files_that_are_there_are_left_alone_unless_force_says_otherwise() {
    let folder = tempfile::tempdir().unwrap();
    make(folder.path(), &[]);
    let both = || ["local-ca.pem", "local-ca.key"].map(|name| read(folder.path(), name));
    let before = both();
    let again = make(folder.path(), &[]);
    assert_eq!(again.code(), Some(1), "{again:?}");
    assert!(again.stderr.join("\n").contains("is there already"), "{again:?}");
    assert_eq!(both(), before);

    // What others could read before must not hold the new key even for a moment: it is a new file.
    let key = folder.path().join("local-ca.key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    let open = fs::File::open(&key).unwrap();
    assert_eq!(make(folder.path(), &["--force"]).code(), Some(0));
    let [certificate, key] = both();
    assert!(certificate != before[0] && key != before[1]);
    Authority::load(&certificate, &key).expect("they belong together");
    assert_eq!(mode(folder.path(), "local-ca.key"), 0o600);
    assert_eq!(std::io::read_to_string(open).unwrap(), before[1]);
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 2, "nothing else is left there");
}

#[test]
fn a_ca_that_cannot_be_written_whole_is_not_written_at_all() {
    let folder = tempfile::tempdir().unwrap();
    let certificate = folder.path().join("nowhere/ca.pem");
    let ended = make(folder.path(), &["--certificate", certificate.to_str().unwrap()]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.join("\n").contains("there is no folder"), "{ended:?}");
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 0, "no key without its certificate");

    fs::write(folder.path().join("local-ca.pem"), "mine").unwrap();
    assert_eq!(make(folder.path(), &[]).code(), Some(1));
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 1, "no key beside another certificate");
}
