//! The built program, from outside: its command line, its pages, its signals, its exit status.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::Runtime;

use crate::support::PATIENCE;
use crate::support::collector::{Collector, Protocol};
use crate::support::origin::{Nowhere, Origin, Peer};
use crate::support::program::{File, Program, Start};

const GET: &str = "GET /a HTTP/1.1\r\nHost: shop\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What `sysexits` calls a wrong use.
const BAD_CONFIG: i32 = 64;

/// The time that is promised to telemetry at the end, and some for a busy machine.
const FLUSH: Duration = Duration::from_secs(4 + 4);

#[test]
fn version_and_help_say_what_it_is_and_end_well() {
    let version = Start::new(["--version"]).end();
    assert_eq!(
        (version.code(), version.stdout.concat()),
        (Some(0), format!("tracecar {}", env!("CARGO_PKG_VERSION")))
    );
    let help = Start::new(["--help"]).end();
    let text = help.stdout.join("\n");
    assert_eq!(help.code(), Some(0));
    const COMMANDS: [&str; 7] = ["run", "check", "diff", "schema", "doctor", "ca", "demo"];
    for command in COMMANDS {
        assert!(text.contains(&format!("\n  {command} ")), "{command} is in {text}");
    }
    for command in COMMANDS {
        let help = Start::new([command, "--help"]).end();
        let text = help.stdout.join("\n");
        assert_eq!(help.code(), Some(0));
        assert!(text.contains(&format!("tracecar {command}")) && text.contains("Example"), "{text}");
    }
}

#[test]
fn the_demo_shows_whole_traces_however_the_causes_were_found() {
    // Until two visitors have come at once.
    let demo = Start::new(["demo", "--for", "15s"]).end();
    assert_eq!(demo.code(), Some(0), "{demo:?}");
    let (traces, shown): (Vec<_>, Vec<_>) = demo.stdout.iter().partition(|line| line.starts_with("trace "));
    assert!(traces.len() > 20, "{demo:?}");
    assert!(traces.iter().all(|trace| trace.contains("  5 spans  ")), "{traces:#?}");
    for how in ["← token", "← sole"] {
        assert!(shown.iter().any(|line| line.contains(how)), "nothing was found by {how}");
    }
    let shared = |line: &&String| line.starts_with("shop ") && line.contains("/buy/{item}/{order}");
    assert!(shown.iter().filter(|line| shared(line)).count() > 6, "nobody came together with another");
}

#[test]
fn an_address_that_is_taken_is_named_and_ends_with_1() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port is free");
    let address = taken.local_addr().expect("it is bound").to_string();
    let run = Start::new(["run", "--to", "http://127.0.0.1:1", "--listen", &address, "--service", "s"]).end();
    assert_eq!(run.code(), Some(1), "{run:?}");
    let last = run.stderr.last().expect("it says why");
    assert!(last.starts_with(&format!("tracecar: cannot listen on {address}: ")), "{last}");
}

#[test]
fn a_configuration_that_cannot_be_used_ends_with_64_and_names_every_problem() {
    let file = File::new("inbound: [{ to: 'ftp://x', lissten: '127.0.0.1:0' }]\ndrain: 1\n");
    for arguments in [["check", file.name()].as_slice(), &["run", "--config", file.name()]] {
        let ended = Start::new(arguments.iter().copied()).end();
        assert_eq!(ended.code(), Some(BAD_CONFIG), "{ended:?}");
        let text = ended.stderr.join("\n");
        for part in
            ["lissten", "ftp", "drain", &format!("{}:1:", file.name()), &format!("{}:2:", file.name())]
        {
            assert!(text.contains(part), "{part} is in {text}");
        }
    }
    let flag = Start::new(["run", "--to", "http://127.0.0.1:1", "--listen", "nonsense"]).end();
    assert_eq!(flag.code(), Some(BAD_CONFIG), "{flag:?}");
    assert!(flag.stderr.join("\n").contains("--listen"), "{flag:?}");
    let nothing = Start::new(["run"]).end();
    assert_eq!(nothing.code(), Some(BAD_CONFIG), "{nothing:?}");
}

#[test]
fn check_tells_good_files_from_bad_and_from_missing_ones() {
    let good = File::new("service: { name: shop }\ninbound: [{ to: 'http://127.0.0.1:3000' }]\n");
    let ended = Start::new(["check", good.name()]).end();
    assert_eq!((ended.code(), ended.stderr.len()), (Some(0), 0), "{ended:?}");
    assert_eq!(ended.stdout, [format!("{}: can be used", good.name())]);
    let missing = Start::new(["check", "/nonexistent/tracecar.yaml"]).end();
    assert_eq!(missing.code(), Some(1), "{missing:?}");
}

#[test]
fn check_prints_what_would_run_and_takes_warnings_for_problems_where_told_to() {
    let good = File::new("service: { name: shop }\ninbound: [{ to: 'http://127.0.0.1:3000' }]\n");
    let start = |file: &File, flag| Start::new(["check", flag, file.name()]);
    let effective = start(&good, "--effective").env("OTEL_PROPAGATORS", "b3").end();
    assert_eq!((effective.code(), effective.stderr.len()), (Some(0), 0), "{effective:?}");
    for line in ["  name: shop  # file line 1", "  formats: [b3]  # OTEL_PROPAGATORS", "log: info  # default"]
    {
        assert!(effective.stdout.iter().any(|found| found == line), "{line} is in {effective:?}");
    }
    assert_eq!(start(&good, "--deny-warnings").end().code(), Some(0));
    let nameless = File::new("inbound: [{ to: 'http://127.0.0.1:3000' }]\n");
    let denied = start(&nameless, "--deny-warnings").end();
    assert_eq!((denied.code(), denied.stdout.len()), (Some(BAD_CONFIG), 0), "{denied:?}");
    assert_eq!(Start::new(["check", nameless.name(), "--service", "s"]).end().stderr, Vec::<String>::new());
}

#[test]
fn a_file_that_is_too_large_is_refused_before_it_fills_the_memory() {
    let ended = Start::new(["check", "/dev/zero"]).end();
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert!(ended.stderr.concat().contains("cannot read /dev/zero: it is larger than 1 MiB"), "{ended:?}");
}

#[test]
fn diff_says_what_changed_and_with_its_status_whether_anything_did() {
    let text = "service: { name: shop }\ninbound: [{ to: 'http://127.0.0.1:3000' }]\n";
    let (old, new) =
        (File::new(text), File::new(&format!("{text}runtime: {{ workers: 2 }}\nroutes: [/a]\n")));
    let changed = Start::new(["diff", old.name(), new.name()]).end();
    assert_eq!(changed.code(), Some(1), "{changed:?}");
    assert_eq!(changed.stdout[0], "routes: added /a (from the next request on)");
    assert!(changed.stdout[1].starts_with("runtime.workers: 1 -> 2 (at the next start: "), "{changed:?}");
    let same = Start::new(["diff", old.name(), old.name()]).end();
    assert_eq!((same.code(), same.stdout.len()), (Some(0), 0), "{same:?}");
    let broken = File::new("inbuond: []");
    for other in [broken.name(), "/nonexistent/tracecar.yaml"] {
        let ended = Start::new(["diff", old.name(), other]).end();
        assert_eq!((ended.code(), ended.stderr.is_empty()), (Some(BAD_CONFIG), false), "{ended:?}");
    }
}

#[test]
fn a_flag_beats_the_environment_which_beats_the_file() {
    let file = File::new(
        "service: { name: of-the-file }\ninbound: [{ listen: '127.0.0.1:0', to: 'http://127.0.0.1:1' }]\n\
         admin: { listen: '127.0.0.1:0' }\n",
    );
    let run = || Start::new(["run", "--config", file.name()]);
    assert_eq!(service_of(&run().run()), "of-the-file");
    let otel = "OTEL_SERVICE_NAME";
    assert_eq!(service_of(&run().env(otel, "of-otel").run()), "of-otel");
    let own = "TRACECAR_SERVICE";
    assert_eq!(service_of(&run().env(otel, "of-otel").env(own, "of-tracecar").run()), "of-tracecar");
    let flagged = Start::new(["run", "--config", file.name(), "--service", "of-the-flag"]);
    assert_eq!(service_of(&flagged.env(own, "of-tracecar").env(otel, "of-otel").run()), "of-the-flag");

    let origin = Origin::answering(OK);
    let to = origin.url();
    let replaced = Start::new(["run", "--config", file.name(), "--to", &to, "--listen", "127.0.0.1:0"]).run();
    let mut caller = Peer::connect(replaced.address);
    caller.send(GET);
    assert_eq!(caller.response().text(), "ok", "--to replaces the inbound of the file");
}

fn service_of(program: &Program) -> String {
    let target = program.metrics();
    let (labels, _) = target.named("target_info").next().expect("what the metrics are about");
    let name = labels["service_name"].clone();
    let config = program.page("/config").text();
    assert!(config.contains(&name), "{name} is in {config}");
    name
}

#[test]
fn no_service_name_is_worth_one_warning() {
    let here = "127.0.0.1:0";
    let arguments = ["run", "--to", "http://127.0.0.1:1", "--listen", here, "--admin", here];
    let nameless = Start::new(arguments).run();
    nameless.terminate();
    let ended = nameless.ended();
    let warnings: Vec<_> = ended.stderr.iter().filter(|line| line.contains("WARN")).collect();
    assert_eq!(warnings.len(), 1, "{:?}", ended.stderr);
    assert!(warnings[0].contains("--service") && warnings[0].contains("OTEL_SERVICE_NAME"), "{warnings:?}");
}

#[test]
fn without_a_terminal_and_a_collector_it_is_quiet() {
    let origin = Origin::answering(OK);
    let program = Start::before(&origin.url()).run();
    let mut caller = Peer::connect(program.address);
    caller.send(GET);
    assert_eq!(caller.response().status(), 200);
    program.terminate();
    let ended = program.ended();
    assert_eq!(ended.code(), Some(0));
    assert!(ended.stdout.is_empty(), "{:?}", ended.stdout);
    assert!(ended.stderr.iter().all(|line| line.contains("INFO")), "{:?}", ended.stderr);
}

#[test]
fn the_console_writes_json_lines_into_a_pipe_where_it_is_switched_on() {
    let origin = Origin::answering(OK);
    let program = with_file(&origin, "export: { console: on }").run();
    let mut caller = Peer::connect(program.address);
    caller.send("GET /a?token=secret HTTP/1.1\r\nHost: shop\r\n\r\n");
    caller.response();
    let span: Value = serde_json::from_str(&program.line()).expect("a line of JSON");
    assert_eq!((&span["name"], &span["kind"]), (&"GET".into(), &"SERVER".into()));
    assert_eq!(span["attributes"]["url.query"], "token=REDACTED");
}

/// What was recorded last must not be lost because the program ends.
#[test]
fn the_last_spans_are_on_the_console_when_it_ends() {
    let origin = Origin::answering(OK);
    let program = with_file(&origin, "export: { console: on }").run();
    let count = 50;
    for _ in 0..count {
        let mut caller = Peer::connect(program.address);
        caller.send(GET);
        caller.response();
    }
    program.terminate();
    let ended = program.ended();
    assert_eq!((ended.code(), ended.stdout.len()), (Some(0), count));
}

#[test]
fn the_access_log_goes_to_standard_output_and_is_whole_at_the_end() {
    let origin = Origin::answering(OK);
    let program = with_file(&origin, "access_log: { enabled: true }").run();
    let mut caller = Peer::connect(program.address);
    caller.send(GET);
    caller.response();
    let line: Value = serde_json::from_str(&program.line()).expect("a line of JSON");
    assert_eq!((&line["path"], &line["status"]), (&"/a".into(), &200.into()));
    caller.send(GET);
    caller.response();
    program.terminate();
    let ended = program.ended();
    assert_eq!((ended.code(), ended.stdout.len()), (Some(0), 1), "{:?}", ended.stdout);
}

#[test]
fn the_pages_are_there() {
    let origin = Origin::answering(OK);
    let program = with_file(
        &origin,
        "export: { otlp: { endpoint: 'http://127.0.0.1:1', headers: { x-api-key: hush } } }",
    )
    .run();
    assert_eq!((program.page("/healthz").status(), program.page("/readyz").status()), (200, 200));
    let config = program.page("/config").text();
    assert!(config.contains("x-api-key") && !config.contains("hush"), "{config}");
    let page = program.metrics();
    assert!(page.named("tracecar_export_spans_accepted_total").next().is_some());
    assert_eq!(program.page("/nonsense").status(), 404);
}

#[test]
fn it_is_not_ready_before_its_service_is() {
    let nowhere = Nowhere::new();
    let program = Start::before(&format!("http://{}", nowhere.address)).run();
    assert_eq!((program.page("/healthz").status(), program.page("/readyz").status()), (200, 503));
}

/// An origin that says when a request has arrived, and answers when it is told to.
struct Gate {
    origin: Origin,
    arrives: Receiver<()>,
    open: Sender<()>,
}

impl Gate {
    fn new() -> Self {
        let (arrived, arrives) = channel();
        let (open, opens) = channel::<()>();
        let opens = Mutex::new(opens);
        let origin = Origin::new(move |peer| {
            if peer.request().is_none() {
                return;
            }
            let _ = arrived.send(());
            if opens.lock().unwrap().recv_timeout(2 * PATIENCE).is_ok() {
                peer.send(OK);
            }
        });
        Self { origin, arrives, open }
    }

    /// A request that has come through to the origin.
    fn request(&self, address: SocketAddr) -> Peer {
        let mut caller = Peer::connect(address);
        caller.send(GET);
        self.arrives.recv_timeout(PATIENCE).expect("the request arrives");
        caller
    }
}

#[test]
fn a_signal_to_stop_lets_what_is_in_flight_finish() {
    let gate = Gate::new();
    let program = with_file(&gate.origin, "access_log: { enabled: true }").run();
    let mut caller = gate.request(program.address);
    assert_eq!(program.page("/readyz").status(), 200);
    program.terminate();
    program.logs("stopping");
    let page = program.page("/readyz");
    assert_eq!((page.status(), program.page("/healthz").status()), (503, 200), "{}", page.text());
    let begun = Instant::now();
    while TcpStream::connect_timeout(&program.address, PATIENCE).is_ok() {
        assert!(begun.elapsed() < PATIENCE, "nobody new is let in");
    }
    gate.open.send(()).unwrap();
    let last = caller.response();
    assert_eq!((last.status(), last.header("connection")), (200, Some("close")));
    let ended = program.ended();
    assert_eq!(ended.code(), Some(0));
    let line: Value = serde_json::from_str(&ended.stdout[0]).expect("a line of JSON");
    assert_eq!((ended.stdout.len(), &line["outcome"]), (1, &"complete".into()));
}

#[test]
fn a_drain_of_several_seconds_harms_no_request() {
    let gate = Gate::new();
    let program = Start::before(&gate.origin.url()).run();
    let mut caller = gate.request(program.address);
    program.terminate();
    program.logs("stopping");
    // Connections look after themselves once per second; this is about the looks during a drain.
    std::thread::sleep(Duration::from_secs(3));
    gate.open.send(()).unwrap();
    assert_eq!(caller.response().text(), "ok");
    let ended = program.ended();
    assert_eq!(ended.code(), Some(0));
    assert!(!ended.stderr.iter().any(|line| line.contains("ERROR")), "{:#?}", ended.stderr);
}

#[test]
fn a_second_signal_cuts_it_short_and_the_log_says_so() {
    let gate = Gate::new();
    let program = with_file(&gate.origin, "access_log: { enabled: true }").run();
    let mut caller = gate.request(program.address);
    program.terminate();
    program.logs("stopping");
    let begun = Instant::now();
    program.terminate();
    assert_eq!(caller.rest().unwrap_or_default(), b"");
    let ended = program.ended();
    assert!(begun.elapsed() < Duration::from_secs(5), "a drain would have taken 25 s");
    assert_eq!(ended.code(), Some(0));
    assert_eq!(ended.stdout.len(), 1, "the cut request is logged: {:?}", ended.stderr);
    let line: Value = serde_json::from_str(&ended.stdout[0]).expect("a line of JSON");
    let outcome = (&line["outcome"], line.get("status"));
    assert_eq!(outcome, (&"drained".into(), None), "{:#?}", ended.stderr);
}

#[test]
fn a_dead_or_silent_collector_does_not_keep_it_from_ending() {
    let origin = Origin::answering(OK);
    let nowhere = Nowhere::new();
    // Takes connections, and never a word.
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    for collector in [nowhere.address, silent.local_addr().unwrap()] {
        for protocol in ["http/protobuf", "grpc"] {
            let program = Start::before(&origin.url())
                .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{collector}"))
                .env("OTEL_EXPORTER_OTLP_PROTOCOL", protocol)
                .env("OTEL_BSP_SCHEDULE_DELAY", "10")
                .run();
            let mut caller = Peer::connect(program.address);
            caller.send(GET);
            assert_eq!(caller.response().status(), 200);
            drop(caller);
            program.terminate();
            let ended = program.ended_within(FLUSH);
            assert_eq!(ended.code(), Some(0));
            let said = ended.stderr.join("\n");
            assert!(said.contains("stopped before all spans were exported lost=1"), "{said}");
        }
    }
}

#[test]
fn spans_are_flushed_to_a_collector_that_listens() {
    let origin = Origin::answering(OK);
    let runtime = Runtime::new().expect("threads can be started");
    let mut collector = runtime.block_on(Collector::start(Protocol::Http));
    let program = Start::before(&origin.url())
        .env("OTEL_EXPORTER_OTLP_ENDPOINT", format!("http://{}", collector.address))
        .env("OTEL_BSP_SCHEDULE_DELAY", "600000")
        .run();
    let mut caller = Peer::connect(program.address);
    caller.send(GET);
    caller.response();
    program.terminate();
    let ended = program.ended_within(FLUSH);
    assert_eq!(ended.code(), Some(0));
    assert_eq!(runtime.block_on(collector.next()).spans().len(), 1);
}

/// Without descriptors nothing can be accepted; with them again, everything goes on.
#[cfg(target_os = "linux")]
#[test]
fn it_survives_running_out_of_descriptors() {
    let origin = Origin::answering(OK);
    let program = Start::cramped(&origin.url(), 40).run();
    let mut first = Peer::connect(program.address);
    first.send(GET);
    assert_eq!(first.response().status(), 200);
    // The kernel takes these on the program's behalf, which cannot open all of them.
    let crowd: Vec<_> = (0..60).map(|_| Peer::connect(program.address)).collect();
    program.logs("cannot accept connections; trying again");
    first.send(GET);
    assert_eq!(first.response().status(), 200, "who is in is served");
    drop(crowd);
    program.logs("accepting connections again");
    let mut last = Peer::connect(program.address);
    last.send(GET);
    assert_eq!(last.response().status(), 200);
    let page = program.metrics();
    let counted = page.sum("tracecar_accept_errors_total", &[("reason", "descriptors")]);
    assert!((1.0..1000.0).contains(&counted), "it backs off: {counted} attempts failed");
    program.terminate();
    assert_eq!(program.ended().code(), Some(0));
}

/// `run` with more configuration than there are flags for.
fn with_file(origin: &Origin, yaml: &str) -> Configured {
    let file = File::new(&format!(
        "service: {{ name: under-test }}\ninbound: [{{ listen: '127.0.0.1:0', to: '{}' }}]\n\
         admin: {{ listen: '127.0.0.1:0' }}\n{yaml}\n",
        origin.url()
    ));
    Configured { file }
}

struct Configured {
    file: File,
}

impl Configured {
    /// The file is read before the program listens, so it need not stay.
    fn run(self) -> Program {
        Start::new(["run", "--config", self.file.name()]).run()
    }
}
