//! What people read and copy is true: the reference configuration, the recipes, and the snippets, keys,
//! metrics, links and command lines of the documents.
//!
//! With `TRACECAR_BLESS=1` the reference and the expected texts are written anew; read the difference before you
//! commit it.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use tracecar::config::{self, Flags, Loaded, Problems, Sources};

use crate::support::origin::{Origin, Peer};
use crate::support::program::Start;

fn load(name: &str, text: &str) -> Result<Loaded, Problems> {
    let env = |name: &str| match name {
        "PORT" => Some("3000".to_owned()),
        "API_KEY" => Some("a key".to_owned()),
        "NOT_YAML" => Some("x, y: [".to_owned()),
        _ => None,
    };
    let read = |_: &Path| Ok("s3cret\n".to_owned());
    let flags = Flags::default();
    config::load(&Sources {
        file: Some((name, text)),
        env: &env,
        read: &read,
        flags: &flags,
        terminal: false,
    })
}

pub fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// Compares a file with what it should hold, or writes it where that is asked for.
pub fn assert_holds(path: &Path, expected: &str) {
    if std::env::var_os("TRACECAR_BLESS").is_some() {
        fs::write(path, expected).expect("the file can be written");
    }
    let found = fs::read_to_string(path).unwrap_or_default();
    assert!(
        found == expected,
        "{} should hold (TRACECAR_BLESS=1 writes it):\n{expected}\nbut holds:\n{found}",
        path.display()
    );
}

/// The YAML files of a folder, by name.
pub fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(here(folder)).expect("the folder is there");
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "yaml"));
    files.sort();
    assert!(!files.is_empty(), "{folder} holds no YAML files");
    files
}

pub fn name(path: &Path) -> &str {
    path.file_name().and_then(|name| name.to_str()).expect("fixtures have readable names")
}

#[test]
fn the_reference_configuration_is_what_the_keys_say() {
    assert_holds(&here("config/tracecar.yaml"), &config::reference());
}

#[test]
fn the_schema_is_what_the_keys_say_and_what_the_program_prints() {
    assert_holds(&here("config/tracecar.schema.json"), &config::schema());
    assert_eq!(Start::new(["schema"]).end().stdout.join("\n") + "\n", config::schema());
}

#[test]
fn the_reference_configuration_holds_the_defaults() {
    let text = fs::read_to_string(here("config/tracecar.yaml")).expect("the reference is there");
    let reference = load("tracecar.yaml", &text).unwrap_or_else(|problems| panic!("{problems}"));
    let defaults = load("defaults", "inbound: [{ to: \"http://127.0.0.1:3000\" }]").expect("this is enough");
    assert_eq!(reference.effective, defaults.effective);
    assert_eq!(format!("{:?}", reference.settings), format!("{:?}", defaults.settings));
}

#[test]
fn the_reference_configuration_loads_with_every_example_in_place() {
    // A commented line that looks like a key is an example of it: without its comment sign it must load, in place
    // of the default that stands above it.
    let text = fs::read_to_string(here("config/tracecar.yaml")).expect("the reference is there");
    let mut lines: Vec<String> = Vec::new();
    // `h2c://` in the middle of a sentence is no key.
    let key = |line: &str| {
        let (key, rest) = line.trim_start().split_once(':')?;
        (!rest.starts_with("//")).then(|| key.to_owned())
    };
    for line in text.lines() {
        let uncommented = line.trim_start().strip_prefix("# ").unwrap_or_default();
        let indent = " ".repeat(line.len() - line.trim_start().len());
        let is_key = |key: &str| {
            let key = key.trim_start().trim_start_matches("- ");
            !key.is_empty()
                && key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        };
        if !key(uncommented).is_some_and(|key| is_key(&key)) {
            lines.push(line.to_owned());
            continue;
        }
        let example = indent + uncommented;
        // The example stands right below its default.
        if lines
            .last()
            .is_some_and(|above| !above.trim_start().starts_with('#') && key(above) == key(&example))
        {
            lines.pop();
        }
        lines.push(example);
    }
    let text = lines.join("\n");
    let loaded = load("examples", &text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    for part in ["kube-probe/*", "/models/{id}", "x-api-key", "fraud-api", "client.pem"] {
        assert!(loaded.effective.contains(part), "{part} is missing in\n{}", loaded.effective);
    }
}

#[test]
fn every_valid_file_loads_and_so_does_what_it_comes_to() {
    for path in yaml_files("tests/fixtures/config/valid") {
        let text = fs::read_to_string(&path).expect("a fixture can be read");
        let loaded = load(name(&path), &text).unwrap_or_else(|problems| panic!("{problems}"));
        let again = load("effective", &loaded.effective).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(loaded.effective, again.effective, "{}", path.display());
    }
}

#[test]
fn every_recipe_loads_without_a_warning_and_is_listed_in_the_guide() {
    let guide = fs::read_to_string(here("src/guide/config.md")).expect("the guide is there");
    for path in yaml_files("config/recipes") {
        let text = fs::read_to_string(&path).expect("a recipe can be read");
        let loaded = load(name(&path), &text).unwrap_or_else(|problems| panic!("{problems}"));
        assert_eq!(loaded.warnings, Vec::<String>::new(), "{}", path.display());
        let mut lines = text.lines();
        let schema = lines.next().and_then(|line| line.strip_prefix("# yaml-language-server: $schema="));
        let schema = path.with_file_name(schema.expect("the first line names the schema"));
        assert!(schema.exists(), "{} is there", schema.display());
        assert!(lines.next().is_some_and(|line| line.starts_with("# ")), "{} says what for", path.display());
        let link = format!("(../../config/recipes/{})", name(&path));
        assert!(guide.contains(&link), "src/guide/config.md has {link}");
    }
}

#[test]
fn the_guide_tells_every_ending_as_it_is() {
    use tracecar::exchange::{Fault, Outcome};
    let guide = include_str!("../../src/guide/endings.md");
    let rows: Vec<Vec<&str>> = guide
        .lines()
        .filter(|line| line.starts_with("| `"))
        .map(|line| line.trim_matches('|').split('|').map(str::trim).collect())
        .collect();
    // The first is the heading.
    assert_eq!(rows.len(), Outcome::ALL.len() + 1);
    for (outcome, row) in Outcome::ALL.iter().zip(&rows[1..]) {
        let word = outcome.as_str();
        assert_eq!(row[0], format!("`{word}`"), "in the order of the code");
        if *outcome != Outcome::Complete {
            // We reject with a 501, and any 5xx is an error by its status.
            let by_status = if *outcome == Outcome::Rejected { "501" } else { "" };
            assert_eq!(row[3].trim_matches('`'), outcome.error_type().unwrap_or(by_status), "{word}");
            assert_eq!(row[4], outcome.fault().map_or("", Fault::as_str), "{word}");
        }
    }
}

/// The texts for users, by their paths.
fn documents() -> Vec<(String, String)> {
    let guide = fs::read_dir(here("src/guide")).expect("the guide is there");
    let guide = guide.map(|entry| entry.expect("an entry").file_name().into_string().expect("a plain name"));
    let pages = guide.filter(|name| name.ends_with(".md")).map(|name| format!("src/guide/{name}"));
    let others = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md", "examples/README.md"].map(str::to_owned);
    let mut paths: Vec<String> = others.into_iter().chain(pages).collect();
    paths.sort();
    assert!(paths.len() > 4, "the guide has no pages");
    let read = |path: &String| fs::read_to_string(here(path)).expect("a document can be read");
    paths.iter().map(|path| (path.clone(), read(path))).collect()
}

/// The fenced blocks of one kind, each with its path and line.
fn blocks(kind: &str) -> Vec<(String, String)> {
    let mut blocks = Vec::new();
    for (path, text) in documents() {
        let mut open: Option<(String, &str, String)> = None;
        for (index, line) in text.lines().enumerate() {
            open = match (open, line.trim_start().strip_prefix("```")) {
                (None, None) => None,
                (None, Some(word)) => Some((format!("{path}:{}", index + 1), word.trim(), String::new())),
                (Some((place, word, block)), None) => Some((place, word, block + line + "\n")),
                (Some((place, word, block)), Some(_)) => {
                    if word == kind {
                        blocks.push((place, block));
                    }
                    None
                }
            };
        }
        assert!(open.is_none(), "{path} has a block without end");
    }
    blocks
}

/// What stands between single backticks outside of fenced blocks, each with its path.
fn code_spans() -> Vec<(String, String)> {
    let mut spans = Vec::new();
    for (path, text) in documents() {
        let prose: String = text.split("```").step_by(2).collect();
        let words = prose.split('`').skip(1).step_by(2);
        spans.extend(words.map(|span| (path.clone(), span.split_whitespace().collect::<Vec<_>>().join(" "))));
    }
    spans
}

/// Every key of the configuration with its path, examples included: `inbound.listen`, `timeouts.idle`.
fn keys() -> BTreeSet<String> {
    let mut above: Vec<(usize, String)> = Vec::new();
    let mut keys = BTreeSet::new();
    for line in config::reference().lines() {
        let text = line.trim_start();
        let text = text.strip_prefix("# ").unwrap_or(text);
        let marks = text.len() - text.trim_start_matches("- ").len();
        let Some((key, _)) = text[marks..].trim_start().split_once(':') else { continue };
        if key.is_empty()
            || !key.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_')
        {
            continue;
        }
        let depth = line.len() - line.trim_start().len() + marks;
        above.retain(|(other, _)| *other < depth);
        above.push((depth, key.to_owned()));
        keys.insert(above.iter().map(|(_, key)| key.as_str()).collect::<Vec<_>>().join("."));
    }
    assert!(keys.contains("timeouts.idle") && keys.contains("export.otlp.endpoint"), "{keys:?}");
    keys
}

/// Loads a part of a file together with a service to stand before.
fn load_part(place: &str, part: &str) {
    let inbound =
        if part.contains("inbound:") { "" } else { "inbound: [{ to: \"http://127.0.0.1:3000\" }]\n" };
    let text = format!("{part}\n{inbound}");
    let loaded = load(place, &text).unwrap_or_else(|problems| panic!("{problems}\n{text}"));
    let about_the_name = |warning: &String| warning.contains("service");
    let others: Vec<_> = loaded.warnings.iter().filter(|warning| !about_the_name(warning)).collect();
    assert!(others.is_empty(), "{place}: {others:?}");
}

#[test]
fn every_snippet_of_configuration_in_the_documents_loads() {
    let snippets = blocks("yaml");
    let of_the_readme = snippets.iter().filter(|(place, _)| place.starts_with("README.md")).count();
    assert!(of_the_readme >= 5, "the README shows configuration: {snippets:?}");
    for (place, snippet) in &snippets {
        load_part(place, snippet);
    }
    // All of one text at once, as somebody would paste them below each other.
    let readme: String = snippets
        .iter()
        .filter(|(place, _)| place.starts_with("README.md"))
        .map(|(_, block)| block.as_str())
        .collect();
    load_part("README.md", &readme);
}

#[test]
fn every_key_that_the_documents_name_exists() {
    let keys = keys();
    let sections: BTreeSet<&str> = keys.iter().filter_map(|key| key.split('.').next()).collect();
    let mut named = 0;
    for (path, span) in code_spans() {
        let key = span.split(':').next().unwrap_or_default();
        let section = key.split('.').next().unwrap_or_default();
        // `client.address` and the like are attributes of spans.
        let attribute = ["client.address", "service.name"].contains(&key) || key.contains("service.");
        if !sections.contains(section) || attribute || !(key.contains('.') || span.contains(": ")) {
            continue;
        }
        named += 1;
        assert!(keys.contains(key), "{path} names `{key}`, which is no key of the configuration");
        let Some((_, value)) = span.split_once(": ") else { continue };
        let inner = key.split('.').skip(1).collect::<Vec<_>>();
        let value = inner.iter().rev().fold(value.to_owned(), |value, part| format!("{{ {part}: {value} }}"));
        load_part(&path, &format!("{section}: {value}"));
    }
    assert!(named > 10, "the documents name keys; only {named} were found");
}

#[test]
fn every_metric_that_the_documents_name_is_on_the_page() {
    // With a collector and a Sentry, an ordinary answer and a stream: what has nothing to show may be left out of the page.
    let origin = Origin::new(|peer| {
        while let Some(head) = peer.head() {
            let kind = if head.starts_with("GET /events ") { "text/event-stream" } else { "text/plain" };
            peer.send(format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    let nowhere = "http://127.0.0.1:9";
    let file = tempfile::NamedTempFile::new().expect("a file can be made");
    let text = format!(
        "service: {{ name: shop }}\ninbound: [{{ listen: 127.0.0.1:0, to: '{url}' }}]\n\
         outbound: {{ mapped: [{{ listen: 127.0.0.1:0, to: '{url}' }}] }}\nadmin: {{ listen: 127.0.0.1:0 }}\n\
         sentry: {{ dsn: 'http://key@127.0.0.1:9/1' }}\n",
        url = origin.url()
    );
    fs::write(file.path(), text).expect("it can be written");
    let path = file.path().to_str().expect("a plain name");
    let program = Start::new(["run", "--config", path]).env("OTEL_EXPORTER_OTLP_ENDPOINT", nowhere).run();
    // A call, too: its metrics are there once there is one.
    let mut service = Peer::connect(program.announced("passing calls on", "listen="));
    for _ in 0..2 {
        service.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n");
        assert_eq!(service.response().status(), 200);
    }
    let mut caller = Peer::connect(program.address);
    // The record of a request is there when the next one on its connection has been answered.
    for path in ["/events", "/", "/"] {
        caller.send(format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n"));
        assert_eq!(caller.response().status(), 200);
    }
    let page = program.page("/metrics").text();
    let mut named = 0;
    for (path, span) in code_spans() {
        let name: String =
            span.chars().take_while(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || *c == '_').collect();
        if !name.starts_with("tracecar_") && !name.starts_with("http_server_") {
            continue;
        }
        named += 1;
        let head = format!("\n# TYPE {name} ");
        assert!(page.contains(&head), "{path} names {name}, which is not on the page:\n{page}");
    }
    assert!(named >= 5, "the documents name metrics; only {named} were found");
}

#[test]
fn every_link_of_the_documents_leads_to_a_file() {
    let mut links = 0;
    for (path, text) in documents() {
        let folder = here(&path).parent().expect("a file is in a folder").to_owned();
        for rest in text.split("](").skip(1) {
            let target = rest.split([')', '#']).next().unwrap_or_default();
            // rustdoc checks paths of items, and nobody goes on the network for a test.
            if target.is_empty() || target.contains("::") || target.contains("://") {
                continue;
            }
            links += 1;
            assert!(folder.join(target).exists(), "{path} links to {target}, which is not there");
        }
    }
    assert!(links >= 5, "the README has links; only {links} were found");
}

#[test]
fn every_option_of_the_command_lines_in_the_documents_is_known() {
    let mut lines = 0;
    for (place, block) in blocks("sh") {
        for line in block.lines() {
            let line = line.split(" #").next().unwrap_or_default();
            let mut words = line.split_whitespace().skip_while(|word| !word.ends_with("tracecar")).skip(1);
            let Some(command) = words.next() else { continue };
            lines += 1;
            let help = Start::new([command, "--help"]).end();
            assert_eq!(help.code(), Some(0), "{place}: there is no command {command}");
            let help = help.stdout.join("\n");
            for option in words.filter(|word| word.starts_with("--")) {
                assert!(help.contains(&format!("{option} ")), "{place}: {command} has no option {option}");
            }
        }
    }
    assert!(lines >= 3, "the README has command lines; only {lines} were found");
}
