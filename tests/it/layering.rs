//! Who may import whom: the table in the crate's documentation, checked against the source.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Each module and those of ours that it may use. A module uses lower levels only, and modules of one level do not
/// know each other.
const MAY_USE: [(&str, &[&str]); 14] = [
    ("stats", &[]),
    ("wire", &[]),
    ("propagation", &[]),
    ("exchange", &["propagation", "stats", "wire"]),
    ("config", &["exchange", "propagation", "wire"]),
    ("net", &["config", "exchange", "stats", "wire"]),
    ("worker", &["exchange", "net", "stats"]),
    ("telemetry", &["config", "exchange", "net", "stats", "wire"]),
    ("proxy", &["config", "exchange", "net", "propagation", "stats", "wire"]),
    ("admin", &["config", "exchange", "net", "stats", "telemetry"]),
    ("app", &["admin", "config", "exchange", "net", "proxy", "stats", "telemetry", "wire", "worker"]),
    ("demo", &["app", "config", "exchange", "telemetry"]),
    ("doctor", &["admin", "config", "exchange", "net", "proxy", "telemetry"]),
    ("guide", &[]),
];

#[test]
fn modules_use_only_what_the_table_says() {
    let table: BTreeMap<&str, &[&str]> = MAY_USE.into_iter().collect();
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut wrong = Vec::new();
    for file in files(&source) {
        let relative = file.strip_prefix(&source).expect("it is below").with_extension("");
        let module = relative.components().next().expect("a name").as_os_str().to_string_lossy().into_owned();
        // `commands` is part of the program, above the library.
        if ["main", "lib", "commands"].contains(&&*module) {
            continue;
        }
        let allowed = table.get(&*module).unwrap_or_else(|| panic!("{module} is not in the table"));
        let text = std::fs::read_to_string(&file).expect("it can be read");
        let code = text.lines().map(|line| line.split("//").next().unwrap_or_default());
        for line in code {
            for used in line.split("crate::").skip(1) {
                let used: String = used.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if !used.is_empty() && used != module && !allowed.contains(&&*used) {
                    wrong.push(format!("{}: {module} uses {used}", file.display()));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn version_sensitive_crates_stay_in_their_rooms() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    for file in files(&source) {
        let text = std::fs::read_to_string(&file).expect("it can be read");
        let room = file.strip_prefix(&source).expect("it is below").to_string_lossy().into_owned();
        for (name, rooms) in [
            // What the encoder of spans is tested against, and no part of the program.
            ("opentelemetry_sdk", &["telemetry/export/encode/oracle.rs"][..]),
            ("opentelemetry_otlp", &["telemetry/export/encode/oracle.rs"]),
            ("opentelemetry_http", &["telemetry/export/encode/oracle.rs"]),
            ("arc_swap", &["config/"]),
            ("prometheus_client", &["telemetry/"]),
            ("rustls", &["net/", "telemetry/export/"]),
            ("use sentry::", &["telemetry/sentry/"]),
        ] {
            let used = text.lines().any(|line| !line.trim_start().starts_with("//") && line.contains(name));
            assert!(!used || rooms.iter().any(|allowed| room.starts_with(allowed)), "{room} uses {name}");
        }
    }
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}
