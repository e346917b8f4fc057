//! What tracecar says about a configuration, word by word.
//!
//! Each file of `tests/corpus/config-messages` is a mistake, or some that can be reported together, and beside it stands
//! the report. Comments at its top give what the file cannot: `# flag: --to=URL` and `# variable: NAME=value`, where
//! `value * 1000` repeats it.
//!
//! With `TRACECAR_BLESS=1` the reports are written anew; read the difference before you commit it.

use std::fs;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

use tracecar::config::{self, Flags, Sources};

use crate::documents::{assert_holds, name, yaml_files};
use crate::support::program::Start;

/// The report about a file: its problems, or else its warnings.
fn report(name: &str, text: &str) -> String {
    let given = |kind: &str| -> Vec<(&str, &str)> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(kind));
        lines.map(|line| line.split_once('=').expect("a name, an equals sign and a value")).collect()
    };
    let (flags, variables) = (given("# flag: --"), given("# variable: "));
    let flag = |name| flags.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned());
    let flags = Flags {
        to: flag("to"),
        listen: flag("listen"),
        proxy: flag("proxy"),
        admin: flag("admin"),
        service: flag("service"),
    };
    let env = |name: &str| match variables.iter().find(|(given, _)| *given == name)?.1.split_once(" * ") {
        None => variables.iter().find(|(given, _)| *given == name).map(|(_, value)| (*value).to_owned()),
        Some((unit, times)) => Some(unit.repeat(times.parse().expect("a number"))),
    };
    let read = |path: &Path| match path.file_name().and_then(|name| name.to_str()) {
        Some("missing") => Err(io::Error::new(io::ErrorKind::NotFound, "No such file or directory")),
        Some("empty") => Ok("\n".to_owned()),
        Some("two-words") => Ok("hunter 2".to_owned()),
        Some("two-lines") => Ok("hunter2\nhunter2".to_owned()),
        _ => Ok("hunter2\n".to_owned()),
    };
    let sources =
        Sources { file: Some((name, text)), env: &env, read: &read, flags: &flags, terminal: false };
    match config::load(&sources) {
        Err(problems) => format!("{problems}\n"),
        Ok(loaded) => loaded.warnings.iter().map(|warning| format!("warning: {warning}\n")).collect(),
    }
}

#[test]
fn every_mistake_gets_exactly_its_report() {
    for path in yaml_files("tests/corpus/config-messages") {
        let text = fs::read_to_string(&path).expect("a mistake can be read");
        let report = report(name(&path), &text);
        assert!(!report.is_empty(), "{} holds no mistake", path.display());
        assert!(!report.contains("hunter"), "secrets are not shown: {report}");
        assert_holds(&path.with_extension("txt"), &report);
    }
}

#[test]
fn every_report_of_a_mistake_says_where_it_is_and_what_to_do() {
    for path in yaml_files("tests/corpus/config-messages") {
        let report =
            fs::read_to_string(path.with_extension("txt")).expect("a report stands beside each mistake");
        for part in report.split("\n\n").filter(|part| part.starts_with("error: ")) {
            let place = part.lines().find_map(|line| line.trim_start().strip_prefix("--> "));
            let last = part.lines().last().unwrap_or_default();
            let remedy = last.trim_start_matches([' ', '|', '^', '=']);
            assert!(remedy.len() > 5, "{}: no remedy in\n{part}", path.display());
            // Flags stand nowhere, and neither does what is missing altogether.
            assert!(place.is_some() || last.starts_with("  = "), "{}: no place in\n{part}", path.display());
        }
    }
}

/// Mistakes in lines that hold the secret `S`, each below a line with an inbound that can be used.
const MISTAKES_BESIDE_SECRETS: &[&str] = &[
    // Not YAML.
    "export:\n  otlp:\n    headers:\n      a: Bearer: S\n",
    "export:\n  otlp:\n    headers:\n      a: S: x\n",
    "export:\n  otlp:\n    headers:\n\t      a: S\n",
    "export:\n  otlp:\n    headers:\n      a: `S`\n",
    "export:\n  otlp:\n    headers:\n      a: @S\n",
    "export:\n  otlp:\n    headers:\n      a: !S\n",
    "export:\n  otlp:\n    headers:\n      a: *S\n",
    "export:\n  otlp:\n    headers:\n      a: \"S\\q\"\n",
    "export:\n  otlp:\n    headers:\n      a: \"S\\x01\n",
    "export:\n  otlp:\n    headers: {a: 1}\n      b: S\n",
    "export:\n  otlp:\n    headers:\n      a: 1\n     b: S\n",
    "export:\n  otlp:\n    headers:\n      a: 1\n      - S\n",
    "export:\n  otlp:\n    headers:\n      a: 1\n      S\n",
    "export: { otlp: { headers: { a: 'S } } }",
    "export: { otlp: { headers: { a: S\u{1} } } }",
    "export: { otlp: { headers: { a: S, b: [ } } }",
    "export: { otlp: { headers: { a: \"S\\x01\" }, nonsense: 1 } }",
    "{\"export\": {\"otlp\": {\"headers\": {\"authorization\": \"S\"}}}, }, ",
    // Keys that are misspelt, misplaced or given twice.
    "export: { otlp: { endpoint: 'https://c', header: { a: S } } }",
    "otlp: { headers: { a: S } }",
    "admin: { token: S }",
    "headers:\n  authorization: Bearer S\n",
    "export:\n  otlp:\n    Headers: { a: S }\n",
    "export:\n  otlp:\n    api_key: S\n",
    "export:\n  otlp: { api_key: S, timeout: 5 }\n",
    "export: { otlp: { api_key=S } }",
    "export: { otlp: { api_key:S } }",
    "export:\n  otlp:\n    <<: { headers: { a: S } }\n",
    "export: { otlp: { headers: { a: S, a: S2 } } }",
    "export: { otlp: { headers: { a: S, A: S2 } } }",
    "export: { otlp: { headers: { a: S } }, otlp: { headers: { a: S } } }",
    "export: { otlp: { headers: { 'ä S': b } } }",
    "export: { otlp: { headers: { authorization Bearer S } } }",
    "export: { otlp: { headers: { a=S } } }",
    "? { headers: S }\n: 1",
    // Values of another shape.
    "export: { otlp: { endpoint: 'https://c', headers: 'x-api-key=S' } }",
    "export: { otlp: { endpoint: 'https://c', headers: ['x-api-key=S'] } }",
    "export:\n  otlp:\n    headers:\n      - x-api-key: S\n",
    "export:\n  otlp:\n    headers:\n      authorization S\n",
    "export:\n  otlp:\n    headers:\n      authorization:S\n",
    "export:\n  otlp:\n    'headers':\n      a: [S]\n",
    "export:\n  otlp:\n    headers:\n      a: { b: S }\n",
    "export:\n  otlp: 'headers: S'\n",
    "export: { otlp: { endpoint: { headers: { a: S } } } }",
    "export: { otlp: { headers: { a: '${S x}' } } }",
    "export: { otlp: { headers: { a: 'p${S' } } }",
    "export: { otlp: { headers: { a: '${S}' } } }\nnonsense: 1",
    "service: { name: &n S }\nexport: { otlp: { endpoint: 'https://c', headers: { a: *n } } }\nfoo: *n",
    "x: &k S\nexport: { otlp: { endpoint: 'https://c', headers: { a: *k } } }",
    "export:\n  otlp:\n    headers: { a: &S }\n    nonsense: &S 1\n",
    // Values of several lines.
    "export:\n  otlp:\n    headers:\n      a: |\n        S\n        S\n",
    "export:\n  otlp:\n    headers: { a: \"x\n        S\", a: 1 }\n",
    "export:\n  otlp:\n    headers:\n      a: foo\n        S\n    nonsense: 1\n",
    "export: { otlp: { headers: { a:\n  S,\n  b: c } , nonsense: 1 } }",
    "export:\n  otlp:\n    nonsense: 1 # a: S\n",
    // Secrets where the name of a file belongs.
    "admin: { token_file: S }",
    "admin: { token_file: Bearer S/S+S= }",
    "export: { otlp: { endpoint: 'https://c', headers_file: { a: S } } }",
    "export: { otlp: { headers_file: { a: S, a: S } } }",
    "export: { otlp: { headers_file: S } }",
    "export: { otlp: { client_key: \"S\\nS\" } }",
    // Users, passwords and queries of URLs.
    "export: { otlp: { endpoint: 'htp://me:S@c' } }",
    "export: { otlp: { endpoint: 'https://me:S@' } }",
    "export: { otlp: { endpoint: 'me:S@c:4318' } }",
    "export: { otlp: { endpoint: 'c:4318/?key=S' } }",
    "export: { otlp: { endpoint: 'c:4318/?key=me@S' } }",
    "export: { otlp: { endpoint: \"me:S\\x40c:4318\" } }",
    "export: { otlp: { endpoint: 'https://c/?key=S x' } }",
    "export: { otlp: { endpoint: 'https://me:S/x@c d' } }",
    "export: { otlp: { endpoint: 'https://me:S/x@c', timeout: 5 } }",
    "export: { otlp: { endpoint: 'https://c/?key=S', timeout: 5 } }",
    "outbound: { mapped: [{ listen: '127.0.0.1:1', to: 'http://me:S@h/' }] }",
    "outbound: { mapped: [{ listen: '127.0.0.1:1', to: 'me:S@h/' }] }",
    "outbound: { mapped: [{ listen: '127.0.0.1:1', to: 'http://h/?key=S' }] }",
    "outbound: { mapped: 'http://me:S@h/' }",
    "outbound: { allow: ['https://me:S@h'] }",
    "outbound: { clients: ['https://me:S@h'] }",
    "routes: ['https://me:S@h']",
    "admin: { listen: 'https://me:S@h:80' }",
    "inbound: [{ to: 'http://me:S@h/path' }]",
    "inbound: [{ to: 'http://me:S/x@h' }]",
];

#[test]
fn no_report_shows_a_secret_that_stands_on_its_line() {
    let mut shown = String::new();
    for mistake in MISTAKES_BESIDE_SECRETS {
        let text = mistake.replace('S', "hunter2hunter2");
        let inbound = match text.starts_with("inbound") {
            true => "",
            false => "inbound: [{ to: 'http://127.0.0.1:1' }]\n",
        };
        let text = inbound.to_owned() + &text;
        let flags = Flags::default();
        let read = |_: &Path| Err(io::ErrorKind::NotFound.into());
        let sources = Sources {
            file: Some(("t.yaml", &text)),
            env: &|_| None,
            read: &read,
            flags: &flags,
            terminal: false,
        };
        let report = match config::load(&sources) {
            Err(problems) => problems.to_string(),
            Ok(loaded) => loaded.warnings.join("\n"),
        };
        if report.contains("hunter") {
            shown += &format!("{text}\n{report}\n\n");
        }
    }
    assert!(shown.is_empty(), "secrets are shown:\n{shown}");
}

/// A megabyte of each thing that could take a parser of files too long, too deep or too far.
fn hostile() -> Vec<(&'static str, String)> {
    const SIZE: usize = 1_000_000;
    let filled = |unit: &str| unit.repeat(SIZE / unit.len());
    let mut laughs = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
    for level in 1..1_000 {
        laughs += &format!("a{level}: &a{level} [{}]\n", format!("*a{}, ", level - 1).repeat(10));
    }
    let numbered = |count: usize, line: &str| -> String {
        (0..count).map(|index| line.replace('N', &index.to_string())).collect()
    };
    vec![
        ("aliases that multiply", laughs),
        ("aliases that nest", "a0: &a0 x\n".to_owned() + &numbered(40_000, "b: &aN [*a0]\n")),
        ("100 000 levels of brackets", "[".repeat(100_000) + &"]".repeat(100_000)),
        ("100 000 levels of mappings", "{a: ".repeat(100_000)),
        ("100 000 levels of dashes", "- ".repeat(100_000)),
        ("levels of indentation", (0..1_300).map(|depth| " ".repeat(depth) + "a:\n").collect()),
        ("levels of question marks", filled("? ")),
        ("one scalar", format!("log: {}", filled("x"))),
        ("one quoted scalar", format!("log: \"{}\"", filled("x"))),
        ("one quote that is not closed", format!("log: \"{}", filled("x "))),
        ("one key", format!("{}: x", filled("x"))),
        ("one line of a block scalar", format!("log: |\n  {}", filled("x"))),
        ("100 000 unknown keys", numbered(70_000, "keyN: 1\n")),
        ("100 000 unknown keys in one line", format!("{{{}}}", numbered(70_000, "keyN: 1, "))),
        ("a million entries", format!("routes: [{}]", "x,".repeat(500_000))),
        ("a million empty entries", format!("routes:\n{}", "-\n".repeat(490_000))),
        ("one key over and over", filled("log: info\n")),
        ("a huge number", format!("runtime: {{ workers: {} }}", filled("9"))),
        ("a huge fraction", format!("sampling: {{ ratio: 0.{} }}", filled("9"))),
        ("a huge duration", format!("timeouts: {{ idle: {}s }}", filled("9"))),
        ("a huge address", format!("admin: {{ listen: \"{}\" }}", filled("1."))),
        ("a huge path template", format!("routes: [\"{}\"]", filled("/{a}"))),
        ("templates that contradict each other", format!("routes:\n{}", numbered(24_000, "  - /a/{xN}\n"))),
        ("a huge glob", format!("exclude: {{ rules: [{{ path: \"/{}\" }}] }}", filled("*a"))),
        ("alternatives in a glob", format!("exclude: {{ rules: [{{ path: \"/{}\" }}] }}", filled("{a,b}"))),
        ("references to variables", format!("log: {}", filled("${A}"))),
        ("references that are none", format!("log: {}", filled("${"))),
        ("anchors", numbered(60_000, "- &aN x\n")),
        ("tags", filled("- !x y\n")),
        ("comments", filled("# x\n")),
        ("tabs", filled("\t")),
        ("more than a megabyte", "# x\n".repeat(300_000)),
    ]
}

#[test]
fn a_megabyte_of_anything_is_refused_soon_and_in_few_words() {
    for (what, text) in hostile() {
        let file = tempfile::NamedTempFile::new().expect("a file can be made");
        fs::write(file.path(), &text).expect("it can be written");
        let started = Instant::now();
        let ended = Start::new(["check", file.path().to_str().expect("a plain name")]).end();
        let (took, words) = (started.elapsed(), ended.stderr.concat());
        // A program that overflows its stack ends by a signal.
        assert!(
            matches!(ended.code(), Some(1 | 64)),
            "{what}: {:?}, {}",
            ended.status,
            &words[..words.len().min(500)]
        );
        // On a machine of its own all take less than a second; a busy one is not to fail this.
        assert!(took < Duration::from_secs(10), "{what} took {took:?}");
        assert!(words.len() < 50_000, "{what}: {} bytes are said about it", words.len());
    }
}
