use proptest::prelude::*;

use super::super::Inbound;
use super::*;

pub fn minimal() -> &'static str {
    "inbound: [{ to: \"http://127.0.0.1:3000\" }]\n"
}

/// Loads with these variables and without flags, where standard output is no terminal.
pub fn load(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, Problems> {
    load_with(text, variables, &Flags::default(), false)
}

fn load_with(
    text: &str,
    variables: &[(&str, &str)],
    flags: &Flags,
    terminal: bool,
) -> Result<Loaded, Problems> {
    let read = |_: &Path| Ok("s3cret".to_owned());
    let env = |name: &str| variable(variables, name);
    super::load(&Sources { file: Some(("t.yaml", text)), env: &env, read: &read, flags, terminal })
}

/// Loads with these variables, and files as `read` has them.
pub fn load_reading(
    text: &str,
    variables: &[(&str, &str)],
    read: &dyn Fn(&Path) -> io::Result<String>,
) -> Result<Loaded, Problems> {
    let env = |name: &str| variable(variables, name);
    let flags = Flags::default();
    super::load(&Sources { file: Some(("t.yaml", text)), env: &env, read, flags: &flags, terminal: false })
}

fn variable(variables: &[(&str, &str)], name: &str) -> Option<String> {
    variables.iter().find(|(key, _)| *key == name).map(|(_, value)| (*value).to_owned())
}

fn flags(to: &str, listen: &str) -> Flags {
    Flags { to: Some(to.to_owned()), listen: Some(listen.to_owned()), ..Flags::default() }
}

#[test]
fn a_flag_beats_the_environment_beats_the_file_beats_the_default() {
    let file = format!("{}service: {{ name: file }}\n", minimal());
    let env = [("OTEL_SERVICE_NAME", "env")];
    let flag = Flags { service: Some("flag".to_owned()), ..Flags::default() };
    let name = |loaded: Result<Loaded, Problems>| loaded.unwrap().settings.startup.service.name;
    assert_eq!(name(load_with(&file, &env, &flag, false)), "flag");
    assert_eq!(name(load(&file, &env)), "env");
    assert_eq!(name(load(&file, &[("OTEL_SERVICE_NAME", "")])), "file");
    assert_eq!(name(load(minimal(), &[])), "unknown_service");
}

#[test]
fn a_service_without_a_name_is_warned_of_once() {
    assert_eq!(load(minimal(), &[]).unwrap().warnings.len(), 1);
    assert!(load(&format!("{}service: {{ name: a }}", minimal()), &[]).unwrap().warnings.is_empty());
}

#[test]
fn to_and_listen_replace_the_whole_of_inbound() {
    let file = "inbound: [{ to: \"http://a:1\" }, { to: \"http://b:1\", listen: \"0.0.0.0:1\" }]";
    let inbound =
        |flags: &Flags| load_with(file, &[], flags, false).map(|loaded| loaded.settings.startup.inbound);
    let listen: SocketAddr = "127.0.0.1:7000".parse().unwrap();
    let given = inbound(&flags("http://c:3", "127.0.0.1:7000")).unwrap();
    assert_eq!(given, [Inbound::plain(listen, Upstream::parse("http://c:3").unwrap())]);
    let default = inbound(&flags("http://c:3", "")).unwrap();
    assert_eq!((default.len(), default[0].listen), (1, "0.0.0.0:8080".parse().unwrap()));
    let problems = inbound(&flags("", "127.0.0.1:7000")).unwrap_err().to_string();
    assert!(problems.contains("--listen: ") && problems.contains("give --to"), "{problems}");
    let problems = load_with("", &[], &flags("127.0.0.1:3000", ""), false).unwrap_err();
    assert_eq!(problems.count(), 1, "{problems}");
    assert!(problems.to_string().contains("--to: \"127.0.0.1:3000\" has no scheme\n  = write http://"));
}

#[test]
fn the_admin_pages_can_be_moved_and_switched_off() {
    let admin = |text: &str| {
        let flags = Flags { admin: Some(text.to_owned()), ..Flags::default() };
        load_with(minimal(), &[], &flags, false).map(|loaded| loaded.settings.startup.admin)
    };
    assert_eq!(admin("0.0.0.0:9000").unwrap(), Some("0.0.0.0:9000".parse().unwrap()));
    assert_eq!(admin("off").unwrap(), None);
    assert!(admin("9000").is_err());
}

#[test]
fn without_otlp_traces_go_to_a_terminal_and_nowhere_else() {
    let console = |text: &str, variables: &[(&str, &str)], terminal| {
        let text = format!("{}{text}", minimal());
        let loaded = load_with(&text, variables, &Flags::default(), terminal).unwrap();
        loaded.settings.startup.export.console
    };
    let otlp = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c")];
    assert_eq!(console("", &[], true), Some(Console::Tree { color: true }));
    assert_eq!(console("", &[("NO_COLOR", "1")], true), Some(Console::Tree { color: false }));
    assert_eq!(console("", &[], false), None);
    assert_eq!(console("", &otlp, true), None);
    assert_eq!(console("export: { console: on }", &otlp, false), Some(Console::Json));
    assert_eq!(console("export: { console: off }", &[], true), None);
    assert_eq!(console("", &[("OTEL_TRACES_EXPORTER", "console")], false), Some(Console::Json));
}

#[test]
fn what_hardly_works_as_meant_is_warned_of() {
    let warned = |text: &str, part: &str| {
        let text = format!("{}service: {{ name: a }}\n{text}", minimal());
        let warnings = load(&text, &[]).unwrap().warnings;
        assert!(warnings.len() == 1 && warnings[0].contains(part), "{text}: {warnings:?}");
    };
    warned("sampling: { ratio: 0.1 }", "sampling.ratio");
    warned("url_query: { redact: known, allow: [a] }", "url_query.allow");
    warned("export: { otlp: { endpoint: \"http://c:4318/v1/traces\" } }", "added once more");
    warned("export: { otlp: { endpoint: \"http://c:4317\" } }", "grpc");
    warned("export: { otlp: { headers: { x-key: \"${NONE}\" } } }", "x-key is empty");
    warned("export: { otlp: { queue: { max_spans: 100 } } }", "100 spans");
}

#[test]
fn what_is_in_effect_shows_no_secrets() {
    let text = format!(
        "{}export: {{ otlp: {{ endpoint: \"https://me:hunter2@c/p?k=hunter2\", headers: {{ a: hunter2 }} }} }}",
        minimal()
    );
    let loaded = load(&text, &[]).unwrap();
    assert!(!loaded.effective.contains("hunter2"), "{}", loaded.effective);
    assert!(!format!("{:?}", loaded.settings.startup.export.otlp.unwrap().headers).contains("hunter2"));
}

#[test]
fn every_line_of_what_is_in_effect_tells_where_its_value_came_from() {
    let text = "inbound: [{ to: \"http://a\" }]\nroutes: [/a]\ntimeouts:\n  idle: 10s\npropagation: { formats: [b3] }\n\
                export: { otlp: { headers: { x: hunter2 } } }\n";
    let variables = [
        ("OTEL_PROPAGATORS", "baggage"),
        ("OTEL_RESOURCE_ATTRIBUTES", "team=risk"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c"),
    ];
    let flags = Flags { service: Some("shop".to_owned()), ..flags("http://b", "") };
    let loaded = load_with(text, &variables, &flags, false).unwrap_or_else(|problems| panic!("{problems}"));
    let explained = loaded.explained();
    for line in [
        "name: shop  # flag --service",
        "team: risk  # OTEL_RESOURCE_ATTRIBUTES",
        "- listen: 0.0.0.0:8080  # default",
        "to: http://b:80  # flag --to",
        "routes: [/a]  # file line 2",
        "idle: 10s  # file line 4",
        "connect: 5s  # default",
        "formats: [baggage]  # OTEL_PROPAGATORS",
        "endpoint: http://c  # OTEL_EXPORTER_OTLP_ENDPOINT",
        "x: \"***\"  # file line 6",
    ] {
        assert!(explained.lines().any(|found| found.trim_start() == line), "{line} is in\n{explained}");
    }
    assert_eq!(load(&explained, &[]).unwrap().effective, loaded.effective, "comments change nothing");
    let valued = |line: &&str| !line.ends_with(':');
    let unexplained: Vec<_> =
        explained.lines().filter(valued).filter(|line| !line.contains("  # ")).collect();
    assert_eq!(unexplained, Vec::<&str>::new());
}

#[test]
fn a_warning_about_a_written_value_says_where_it_is_written() {
    let text = format!("service: {{ name: a }}\nsampling:\n  ratio: 0.1\n{}", minimal());
    let warnings = load(&text, &[]).unwrap().warnings;
    assert!(warnings[0].ends_with("(t.yaml:3:10)"), "{warnings:?}");
    let variables = [("OTEL_EXPORTER_OTLP_ENDPOINT", "http://c:4317")];
    let warnings = load(&format!("service: {{ name: a }}\n{}", minimal()), &variables).unwrap().warnings;
    assert!(!warnings[0].contains("t.yaml"), "{warnings:?}");
}

#[test]
fn a_hostile_file_ends_quickly_with_a_short_report() {
    let unknown: String = (0..40_000).map(|index| format!("k{index}: 1\n")).collect();
    let routes = format!("routes:\n{}", "  - /a/{x}\n".repeat(20_000));
    let values = format!("{}routes: [{}]", minimal(), "no, ".repeat(40_000));
    let variables = format!("log: \"{}\"", "${BIG}".repeat(100_000));
    let big = "x".repeat(100_000);
    for text in [unknown, routes, values, variables] {
        let started = std::time::Instant::now();
        let problems = load(&text, &[("BIG", &big)]).unwrap_err();
        let (length, took) = (problems.to_string().len(), started.elapsed());
        // Far more than it takes, so that a busy machine does not fail it; far less than what it guards against.
        assert!(length < 100_000 && took.as_secs() < 20, "{length} bytes, {took:?}: {}", &text[..20]);
    }
}

/// Text made of pieces of configuration, which gets further than arbitrary characters do.
fn pieces() -> impl Strategy<Value = String> {
    let reference = file::reference();
    let mut pieces: Vec<String> =
        reference.split_inclusive([' ', '\n', ',', '{', '[']).map(str::to_owned).collect();
    let marks = [
        "\n", "\n  ", "\n    ", ": ", "- ", "[", "]", "{", "}", "&a ", "*a", "!!str ", "\"", "'", "${", "}",
        "|\n", "\t", "🚗", "~", "? ", "\r", "\u{85}", "<<",
    ];
    pieces.extend(marks.map(str::to_owned));
    prop::collection::vec(prop::sample::select(pieces), 0..60).prop_map(|pieces| pieces.concat())
}

/// The reference with one line changed, which gets furthest.
fn mutated() -> impl Strategy<Value = String> {
    let lines: Vec<String> = file::reference().lines().map(str::to_owned).collect();
    (0..lines.len(), any::<String>(), any::<bool>()).prop_map(move |(at, text, append)| {
        let mut lines = lines.clone();
        match append {
            true => lines[at].push_str(&text),
            false => {
                lines[at] = lines[at].split_inclusive(": ").next().unwrap_or_default().to_owned() + &text
            }
        }
        lines.join("\n")
    })
}

proptest! {
    #[test]
    fn no_text_panics(text in prop_oneof![any::<String>(), pieces(), mutated()], value in any::<String>()) {
        let variable = |_: &str| Some(value.clone());
        let flags = Flags { to: Some(text.clone()), admin: Some(value.clone()), ..Flags::default() };
        for flags in [&Flags::default(), &flags] {
            let read = |_: &Path| Ok("s3cret".to_owned());
            let sources =
                Sources { file: Some(("t.yaml", &text)), env: &variable, read: &read, flags, terminal: true };
            match super::load(&sources) {
                Ok(loaded) => {
                    let again = load(&loaded.effective, &[]);
                    prop_assert!(again.is_ok(), "{}\n{}", again.unwrap_err(), loaded.effective);
                    let explained = load(&loaded.explained(), &[]).map(|loaded| loaded.effective);
                    prop_assert_eq!(explained, again.map(|again| again.effective));
                    prop_assert_eq!(super::super::changes(&loaded, &loaded), []);
                }
                Err(problems) => prop_assert!(problems.count() > 0),
            }
        }
    }
}
