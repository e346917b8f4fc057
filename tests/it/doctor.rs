//! `tracecar doctor`, from outside: what it says of peers that work, and of those that do not.

mod sentry;

use std::time::{Duration, SystemTime};

use serde_json::Value;
use tokio::runtime::Runtime;
use tracecar::net::intercept::Authority;

use crate::support::collector::{Collector, Protocol, Reply};
use crate::support::origin::{Nowhere, Origin, Peer};
use crate::support::program::{Ended, File, Start};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A configuration before `origin`, on free ports, with more of it.
fn config(origin: &Origin, more: &str) -> File {
    File::new(&format!(
        "service: {{ name: shop }}\ninbound: [{{ listen: '127.0.0.1:0', to: '{}' }}]\n\
         admin: {{ listen: '127.0.0.1:0' }}\n{more}\n",
        origin.url()
    ))
}

fn ask(file: &File, more: &[&str]) -> Ended {
    Start::new(["doctor", "--config", file.name()].into_iter().chain(more.iter().copied())).end()
}

/// The checks of that name: state, words and advice.
fn checks(ended: &Ended, name: &str) -> Vec<(String, String, String)> {
    let report: Value = serde_json::from_str(&ended.stdout.join("\n")).expect("JSON");
    let text = |check: &Value, key: &str| check[key].as_str().expect("a text").to_owned();
    let all = report["checks"].as_array().expect("a list").iter();
    let named = all.filter(|check| check["name"] == name);
    named.map(|check| (text(check, "state"), text(check, "words"), text(check, "advice"))).collect()
}

/// What it says of one thing in a configuration with `more`.
fn about(name: &str, more: &str) -> (String, String, String) {
    let origin = Origin::answering(OK);
    let ended = ask(&config(&origin, more), &["--json"]);
    let mut found = checks(&ended, name);
    assert_eq!(found.len(), 1, "one check of {name} in {ended:?}");
    let found = found.remove(0);
    assert_eq!(ended.code(), Some(i32::from(found.0 == "problem")), "{ended:?}");
    found
}

/// Whether a check has this state and all these words.
#[track_caller]
fn assert_says((state, words, advice): &(String, String, String), expected: &str, parts: &[&str]) {
    assert_eq!(state, expected, "{words} -> {advice}");
    for part in parts {
        assert!(format!("{words} -> {advice}").contains(part), "{part:?} is in {words:?} -> {advice:?}");
    }
}

fn collector(endpoint: &str, more: &str) -> (String, String, String) {
    about("collector", &format!("export: {{ otlp: {{ endpoint: '{endpoint}' {more} }} }}"))
}

#[test]
fn where_all_is_well_it_says_so_and_ends_with_0() {
    let origin = Origin::answering(OK);
    let runtime = Runtime::new().unwrap();
    let mut taker = runtime.block_on(Collector::start(Protocol::Http));
    let file = config(&origin, &format!("export: {{ otlp: {{ endpoint: 'http://{}' }} }}", taker.address));
    let program = Start::new(["run", "--config", file.name()]).run();
    let mut caller = Peer::connect(program.address);
    // The first is counted once the second is answered.
    for _ in 0..2 {
        caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n");
        assert_eq!(caller.response().status(), 200);
    }
    let admin = format!("http://{}", program.admin);
    let ended = ask(&file, &["--admin", &admin]);
    assert_eq!((ended.code(), ended.stderr.len()), (Some(0), 0), "{ended:?}");
    let text = ended.stdout.join("\n");
    let text = text.replace(&origin.address.to_string(), "ORIGIN").replace(&admin, "ADMIN");
    let text = text.replace(&taker.address.to_string(), "COLLECTOR").replace(file.name(), "FILE");
    // How long it took, and what has passed, differ.
    let lines: Vec<_> = text.lines().map(|line| line.split(['0', '1', '2']).next().unwrap()).collect();
    let expected = [
        "ok       config     FILE can be used",
        "ok       tracecar   runs, and is ready (admin pages at ADMIN)",
        "ok       service    ORIGIN accepts connections",
        "ok       collector  http://COLLECTOR/v",
        "ok       clock      agrees with the collector's",
        "ok       way out    none is configured",
        "                      -> calls of the service are not seen: see outbound in the configuration if they should be",
        "ok       traffic    ",
        "ok       export     ",
        "",
        "all is well",
    ];
    assert_eq!(lines, expected, "{text}");
    let empty = runtime.block_on(taker.next());
    assert!(empty.path == "/v1/traces" && empty.spans().is_empty(), "an export without spans");
}

#[test]
fn a_configuration_that_cannot_be_used_ends_with_64_and_the_report_of_check() {
    let file = File::new("inbound: [{ to: 'ftp://x' }]\n");
    let doctor = ask(&file, &[]);
    let check = Start::new(["check", file.name()]).end();
    assert_eq!((doctor.code(), doctor.stderr), (Some(64), check.stderr));
    assert_eq!(ask(&file, &["--json"]).code(), Some(64));
}

#[test]
fn a_service_that_is_not_there_is_a_problem_and_nothing_is_sent_to_one_that_is() {
    let nowhere = Nowhere::new();
    let file = File::new(&format!(
        "inbound: [{{ listen: '127.0.0.1:0', to: 'http://{}' }}]\nadmin: {{ enabled: false }}",
        nowhere.address
    ));
    let ended = ask(&file, &["--json"]);
    assert_eq!(ended.code(), Some(1), "{ended:?}");
    assert_says(&checks(&ended, "service")[0], "problem", &["connection refused", "start the service"]);

    let (sender, heard) = std::sync::mpsc::channel();
    let origin = Origin::new(move |peer| sender.send(peer.rest().unwrap_or_default()).unwrap());
    ask(&config(&origin, ""), &[]);
    assert_eq!(heard.recv_timeout(crate::support::PATIENCE).unwrap(), b"");
}

#[test]
fn an_address_that_somebody_else_has_is_a_problem() {
    let origin = Origin::answering(OK);
    let other = Origin::answering(OK);
    let file = File::new(&format!(
        "inbound: [{{ listen: '{}', to: '{}' }}]\nadmin: {{ enabled: false }}",
        other.address,
        origin.url()
    ));
    let found = checks(&ask(&file, &["--json"]), "inbound");
    let taken = if cfg!(target_os = "linux") { "is taken by process" } else { "is taken" };
    assert_says(&found[0], "problem", &[taken, "ss -ltnp"]);
}

#[test]
fn an_admin_page_of_somebody_else_is_not_taken_for_tracecar() {
    let origin = Origin::answering("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
    let ended = ask(&config(&origin, ""), &["--json", "--admin", &origin.url()]);
    assert_says(&checks(&ended, "tracecar")[0], "problem", &["is not tracecar", "404"]);
}

#[test]
fn a_configuration_that_was_refused_is_told_of_to_whoever_has_the_token() {
    let origin = Origin::answering(OK);
    let token = File::new("t0ken\n");
    let with_token = |more: &str| {
        let text = std::fs::read_to_string(&config(&origin, more).path).unwrap();
        text.replace("admin: {", &format!("admin: {{ token_file: '{}',", token.name()))
    };
    let running = File::new(&with_token(""));
    let program = Start::new(["run", "--config", running.name()]).run();
    let admin = format!("http://{}", program.admin);
    let look = |file: &File| checks(&ask(file, &["--json", "--admin", &admin]), "tracecar");
    assert_says(&look(&config(&origin, ""))[1], "warning", &["cannot be compared", "token"]);
    let same = File::new(&with_token(""));
    assert_eq!(look(&same).len(), 1);
    std::fs::write(&running.path, with_token("timeouts: { idle: 77 }")).unwrap();
    program.logs("cannot be used");
    assert_says(&look(&same)[1], "problem", &["not in effect", "timeouts.idle", "tracecar check"]);
}

#[test]
fn a_tracecar_with_other_settings_is_noticed() {
    let origin = Origin::answering(OK);
    // It stays: where it is gone, that is told of in place of the difference.
    let running = config(&origin, "");
    let program = Start::new(["run", "--config", running.name()]).run();
    let file = config(&origin, "timeouts: { idle: 77s }");
    let ended = ask(&file, &["--json", "--admin", &format!("http://{}", program.admin)]);
    let found = checks(&ended, "tracecar");
    assert_says(&found[1], "warning", &["other settings", "idle: 77s"]);
}

#[test]
fn a_collector_that_cannot_be_reached_is_told_from_one_that_does_not_answer() {
    let nowhere = Nowhere::new();
    let closed = collector(&format!("http://{}", nowhere.address), "");
    assert_says(&closed, "problem", &["cannot connect to", "connection refused", "start the collector"]);
    let unknown = collector("http://collector.invalid:4318", "");
    assert_says(&unknown, "problem", &["cannot resolve collector.invalid"]);
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let silent = collector(&format!("http://{}", silent.local_addr().unwrap()), "");
    assert_says(&silent, "problem", &["no answer within", "4318"]);
}

#[test]
fn what_a_collector_refuses_is_said_in_words() {
    let runtime = Runtime::new().unwrap();
    let http = |status, body| Reply::Http { status, header: None, body };
    let grpc = |code| Reply::Grpc(tonic::Status::new(code, "no"));
    let cases: Vec<(Protocol, Reply, &str, &str, &[&str])> = vec![
        (Protocol::Http, http(401, "who?"), "", "problem", &["401", "who?", "put the token into"]),
        (Protocol::Http, http(401, ""), ", headers: { x-api-key: old }", "problem", &["does not believe"]),
        (Protocol::Http, http(403, ""), "", "problem", &["403", "right to write"]),
        (Protocol::Http, http(404, ""), "", "problem", &["404", "/v1/traces"]),
        (Protocol::Http, http(415, ""), "", "problem", &["415", "compression: none"]),
        (Protocol::Http, http(503, ""), "", "warning", &["503", "at the moment"]),
        (Protocol::Grpc, grpc(tonic::Code::Unauthenticated), "", "problem", &["put the token into"]),
        (Protocol::Grpc, grpc(tonic::Code::PermissionDenied), "", "problem", &["right to write"]),
        (Protocol::Grpc, Reply::Take, "", "ok", &["takes spans (OTLP over gRPC"]),
    ];
    for (protocol, reply, more, state, parts) in cases {
        let running = runtime.block_on(Collector::start(protocol));
        running.script([reply]);
        // Whoever asks once more is refused, too.
        running.always(|| Reply::Http { status: 404, header: None, body: "" });
        let name = if protocol == Protocol::Grpc { "grpc" } else { "http/protobuf" };
        let found = collector(&format!("http://{}", running.address), &format!(", protocol: {name}{more}"));
        assert_says(&found, state, parts);
        assert!(!found.1.contains("old"), "headers are secret");
    }
}

#[test]
fn the_wrong_protocol_on_a_port_is_recognised() {
    let runtime = Runtime::new().unwrap();
    let http = runtime.block_on(Collector::start(Protocol::Http));
    let grpc = runtime.block_on(Collector::start(Protocol::Grpc));
    let found = collector(&format!("http://{}", grpc.address), ", protocol: http/protobuf");
    assert_says(
        &found,
        "problem",
        &["speaks OTLP over gRPC, and we send OTLP over HTTP", "protocol: grpc", "4318"],
    );
    let found = collector(&format!("http://{}", http.address), ", protocol: grpc");
    assert_says(
        &found,
        "problem",
        &["speaks OTLP over HTTP, and we send OTLP over gRPC", "http/protobuf", "4317"],
    );
}

#[test]
fn tls_on_one_side_only_is_recognised() {
    let runtime = Runtime::new().unwrap();
    let (certificate, key) = Authority::make().unwrap();
    let authority = Authority::load(&certificate, &key).unwrap();
    let tls = rustls::ServerConfig::clone(&authority.acceptor("127.0.0.1", false).unwrap());
    let secured =
        runtime.block_on(Collector::start_at(([127, 0, 0, 1], 0).into(), Protocol::Http, Some(tls)));
    let found = collector(&format!("http://{}", secured.address), "");
    assert_says(&found, "problem", &["speaks TLS, and we speak none", "https://"]);
    let found = collector(&format!("https://{}", secured.address), "");
    assert_says(&found, "problem", &["the TLS handshake failed", "UnknownIssuer", "export.otlp.certificate"]);

    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("ca.pem");
    std::fs::write(&ca, certificate).unwrap();
    let trusted = format!(", certificate: '{}'", ca.display());
    assert_says(&collector(&format!("https://{}", secured.address), &trusted), "ok", &["takes spans"]);

    let plain = runtime.block_on(Collector::start(Protocol::Http));
    let found = collector(&format!("https://{}", plain.address), "");
    assert_says(&found, "problem", &["speaks no TLS, and we speak TLS", "http://"]);
}

#[test]
fn a_clock_that_is_off_is_a_warning() {
    for (ago, state, words) in [(0, "ok", "agrees"), (60, "warning", "ahead of the collector's")] {
        let date = httpdate::fmt_http_date(SystemTime::now() - Duration::from_secs(ago));
        let taker =
            Origin::answering(format!("HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Length: 0\r\n\r\n"));
        let found = about("clock", &format!("export: {{ otlp: {{ endpoint: '{}' }} }}", taker.url()));
        assert_says(&found, state, &[words]);
    }
}

#[test]
fn destinations_are_reached_as_calls_would_reach_them() {
    let (there, nowhere) = (Origin::answering(OK), Nowhere::new());
    let mapped = |to: &str, more: &str| {
        about(
            "destination",
            &format!("outbound: {{ mapped: [{{ listen: '127.0.0.1:0', to: '{to}', name: stock }}] {more} }}"),
        )
    };
    assert_says(&mapped(&there.url(), ""), "ok", &["stock (127.0.0.1:", "can be reached"]);
    assert_says(&mapped(&there.url(), ", deny: ['127.0.0.0/8']"), "problem", &["outbound.deny", "403"]);
    assert_says(&mapped(&format!("http://{}", nowhere.address), ""), "problem", &["connection refused"]);
    assert_says(&mapped("http://169.254.169.254", ""), "problem", &["metadata service", "outbound.allow"]);
    let (certificate, key) = Authority::make().unwrap();
    let authority = Authority::load(&certificate, &key).unwrap();
    let tls = rustls::ServerConfig::clone(&authority.acceptor("127.0.0.1", false).unwrap());
    let runtime = Runtime::new().unwrap();
    let secured =
        runtime.block_on(Collector::start_at(([127, 0, 0, 1], 0).into(), Protocol::Http, Some(tls)));
    let found = mapped(&format!("https://{}", secured.address), "");
    assert_says(&found, "problem", &["invalid certificate", "outbound.certificate"]);
}

#[test]
fn the_environment_of_this_shell_is_compared_with_the_forward_proxy() {
    let origin = Origin::answering(OK);
    let file = config(&origin, "outbound: { proxy: '127.0.0.1:18081' }");
    let with = |value: &str| {
        let start = Start::new(["doctor", "--json", "--config", file.name()]);
        let names = ["HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"];
        let ended = names.into_iter().fold(start, |start, name| start.env(name, value)).end();
        checks(&ended, "HTTP_PROXY").remove(0)
    };
    assert_says(&with("http://localhost:18081"), "ok", &["leads to 127.0.0.1:18081"]);
    assert_says(&with(""), "ok", &["not set in this shell"]);
    let elsewhere = with("http://me:secret@proxy.example:3128");
    assert_says(&elsewhere, "warning", &["leads to proxy.example:3128"]);
    assert!(!format!("{elsewhere:?}").contains("secret"));
    assert_says(&with("https://127.0.0.1:18081"), "warning", &["listens without TLS"]);
}

#[test]
fn a_ca_is_looked_at_before_it_expires_and_after() {
    let folder = tempfile::tempdir().unwrap();
    let (certificate, key) = (folder.path().join("ca.pem"), folder.path().join("ca.key"));
    let about_it = || {
        about(
            "interception",
            &format!(
                "outbound: {{ proxy: '127.0.0.1:0', intercept: {{ hosts: [a.example], ca_certificate: '{}', ca_key: '{}' }} }}",
                certificate.display(),
                key.display()
            ),
        )
    };
    let private = std::os::unix::fs::PermissionsExt::from_mode;
    let put = |days: i64| {
        let pair = rcgen::KeyPair::generate().unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let until = SystemTime::now() - Duration::from_secs(86_400 * 90);
        params.not_before = until.into();
        params.not_after = (until + Duration::from_secs((86_400 * (90 + days)) as u64)).into();
        std::fs::write(&certificate, params.self_signed(&pair).unwrap().pem()).unwrap();
        std::fs::write(&key, pair.serialize_pem()).unwrap();
        std::fs::set_permissions(&key, private(0o600)).unwrap();
    };
    assert_says(&about_it(), "problem", &["cannot read", "entity not found", "tracecar ca"]);
    for (days, state, words) in [
        (-1, "problem", "has expired on"),
        (10, "warning", "expires soon"),
        (300, "ok", "looks into a.example"),
    ] {
        put(days);
        assert_says(&about_it(), state, &[words]);
    }
    std::fs::set_permissions(&key, private(0o644)).unwrap();
    assert_says(&about_it(), "warning", &["can be read by other users", "chmod go= "]);
    std::fs::write(&key, rcgen::KeyPair::generate().unwrap().serialize_pem()).unwrap();
    assert_says(&about_it(), "problem", &["do not belong together"]);
}

/// The admin pages of a tracecar that has counted this; each page of metrics that is read is the next.
fn counted(pages: &'static [&'static str]) -> Origin {
    let next = std::sync::atomic::AtomicUsize::new(0);
    Origin::new(move |peer| {
        let Some(request) = peer.request() else { return };
        let body = match request.head.split(' ').nth(1) {
            Some("/healthz") => "ok\n",
            Some("/metrics") => {
                let page = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                pages[page.min(pages.len() - 1)]
            }
            _ => "",
        };
        peer.send(format!(
            "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        ));
    })
}

fn lineage(pages: &'static [&'static str], more: &[&str]) -> (String, String, String) {
    let (origin, admin) = (Origin::answering(OK), counted(pages));
    let file = config(&origin, "outbound: { proxy: '127.0.0.1:0' }");
    let admin = admin.url();
    let arguments: Vec<_> = ["--json", "--admin", &admin].into_iter().chain(more.iter().copied()).collect();
    checks(&ask(&file, &arguments), "lineage").remove(0)
}

#[test]
fn what_the_service_forwards_is_said_in_words() {
    let found = lineage(
        &["# TYPE tracecar_lineage_calls counter\ntracecar_lineage_calls_total{method=\"token\"} 62\n\
           tracecar_lineage_calls_total{method=\"sole\"} 30\ntracecar_lineage_calls_total{method=\"none\"} 8\n"],
        &[],
    );
    assert_says(&found, "ok", &[]);
    let expected = "nothing is forwarded: parents are found by token in 62 %, sole in 30 %, unknown in 8 % \
                    (100 calls since it started)";
    assert_eq!(found.1, expected);

    let found = lineage(
        &["tracecar_lineage_calls_total{method=\"correlation\"} 4\n\
           tracecar_lineage_forwarded_total{header=\"correlation\"} 4\n\
           tracecar_lineage_forwarded_total{header=\"x-tenant\"} 1\n"],
        &[],
    );
    let expected = "your app forwards the correlation id (x-correlation-id or x-request-id) and x-tenant (in 25 % of \
                    its calls): parents are exact (4 calls since it started)";
    assert_eq!(found.1, expected);

    let found = lineage(
        &["tracecar_lineage_calls_total{method=\"header\"} 3\n\
           tracecar_lineage_calls_total{method=\"process\"} 1\n"],
        &[],
    );
    let expected = "your app forwards its trace context (traceparent or the like) (in 75 % of its calls): parents are found \
                    by header in 75 %, process in 25 % (4 calls since it started)";
    assert_eq!(found.1, expected);

    let found = lineage(&["tracecar_lineage_calls_total{method=\"none\"} 20\n"], &[]);
    assert_says(&found, "warning", &["no parent was found", "lineage.identity_headers"]);
    assert_says(&lineage(&[""], &[]), "warning", &["no call of the service has passed", "HTTP_PROXY"]);
}

#[test]
fn listening_says_what_passed_in_between() {
    const FIRST: &str = "tracecar_lineage_calls_total{method=\"token\"} 5\n";
    const SECOND: &str = "tracecar_lineage_calls_total{method=\"token\"} 5\n\
                          tracecar_lineage_calls_total{method=\"header\"} 2\n\
                          tracecar_lineage_forwarded_total{header=\"traceparent\"} 2\n";
    let found = lineage(&[FIRST, SECOND], &["--listen-for", "10ms"]);
    let expected = "your app forwards traceparent: parents are exact (2 calls in 10ms)";
    assert_eq!(found.1, expected);
    let found = lineage(&[FIRST, FIRST], &["--listen-for", "10ms"]);
    assert_says(&found, "warning", &["no call of the service has passed in 10ms"]);
}

/// A service that calls another for each request, by the forward proxy, and passes one header on.
#[test]
fn a_running_tracecar_tells_what_the_service_forwards() {
    let other = Origin::answering(OK);
    let asked = other.address;
    let (way_out, leads) = std::sync::mpsc::channel::<std::net::SocketAddr>();
    let leads = std::sync::Mutex::new(leads);
    let service = Origin::new(move |peer| {
        let proxy = leads.lock().unwrap().recv().unwrap();
        while let Some(request) = peer.request() {
            let id = request.header("x-correlation-id").unwrap_or_default();
            let mut call = Peer::connect(proxy);
            call.send(format!(
                "GET http://{asked}/ HTTP/1.1\r\nHost: {asked}\r\nx-correlation-id: {id}\r\n\r\n"
            ));
            assert_eq!(call.response().status(), 200);
            peer.send(OK);
        }
    });
    let file = config(&service, "outbound: { proxy: '127.0.0.1:0' }");
    let program = Start::new(["run", "--config", file.name()]).run();
    let line = program.logs("forward proxy");
    let address = line.split("listen=").nth(1).and_then(|rest| rest.split_whitespace().next()).unwrap();
    way_out.send(address.parse().unwrap()).unwrap();
    let mut caller = Peer::connect(program.address);
    for _ in 0..3 {
        caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n");
        assert_eq!(caller.response().status(), 200);
    }
    let ended = ask(&file, &["--json", "--admin", &format!("http://{}", program.admin)]);
    let found = checks(&ended, "lineage").remove(0);
    assert_says(&found, "ok", &["your app forwards the correlation id", "parents are exact"]);
}

/// The tools are stand-ins: what the kernel says takes rights that a test seldom has.
#[test]
fn rules_of_the_kernel_are_found_missed_or_out_of_sight() {
    let origin = Origin::answering(OK);
    let file = config(&origin, "outbound: { transparent: '127.0.0.1:15001' }");
    let with = |script: &str| {
        let folder = tempfile::tempdir().unwrap();
        let tool = folder.path().join("nft");
        std::fs::write(&tool, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&tool, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
        let start = Start::new(["doctor", "--json", "--config", file.name()]);
        let ended = start.env("PATH", folder.path().to_str().unwrap()).end();
        checks(&ended, "redirection").remove(0)
    };
    assert_says(&with("echo 'tcp dport { 80, 443 } redirect to :15001'"), "ok", &["nft shows rules"]);
    assert_says(&with("echo 'tcp dport 80 redirect to :150011'"), "problem", &["docker/redirect.sh"]);
    assert_says(&with("exit 1"), "warning", &["nft may not read them", "there is no iptables-save"]);
}
