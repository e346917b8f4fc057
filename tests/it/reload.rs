//! The configuration changes while requests, tunnels and streams go on.

mod exporting;
mod listeners;

use std::path::Path;
use std::sync::mpsc::channel;

use rustix::process::{Pid, Signal, kill_process};

use crate::support::eventually;
use crate::support::origin::{Message, Origin, Peer};
use crate::support::program::{File, Program, Start};

const HELLO: &str = "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";
const ASK: &str = "GET / HTTP/1.1\r\nHost: s\r\n\r\n";
const UPGRADE: &str = "GET /ws HTTP/1.1\r\nHost: s\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
const UPGRADED: &str =
    "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";

/// A file for a sidecar before `upstream` on free ports, with more in it.
fn text(upstream: &str, more: &str) -> String {
    format!(
        "service: {{ name: under-test }}\ninbound: [{{ listen: '127.0.0.1:0', to: '{upstream}' }}]\n\
         admin: {{ listen: '127.0.0.1:0' }}\n{more}\n"
    )
}

fn start(file: &File) -> Program {
    Start::new(["run", "--config", file.name()]).run()
}

fn reload(program: &Program) -> Message {
    let mut peer = Peer::connect(program.admin);
    peer.send("POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    peer.response()
}

/// Writes the file in place, and has it read.
fn change(program: &Program, file: &File, text: &str) -> String {
    std::fs::write(&file.path, text).unwrap();
    let said = reload(program);
    assert_eq!(said.status(), 200, "{}", said.text());
    said.text()
}

/// Whether an answer says which trace it belongs to, which `propagation.server_timing` decides.
fn tells_its_trace(program: &Program) -> bool {
    let mut peer = Peer::connect(program.address);
    peer.send(ASK);
    peer.response().header("server-timing").is_some()
}

const TELLS: &str = "";
const TELLS_NOT: &str = "propagation: { server_timing: false }";

#[test]
fn what_has_changed_is_said_and_done() {
    let origin = Origin::answering(HELLO);
    let file = File::new(&text(&origin.url(), TELLS));
    let program = start(&file);
    assert!(tells_its_trace(&program));
    let said = change(&program, &file, &text(&origin.url(), TELLS_NOT));
    assert_eq!(said, "propagation.server_timing: true -> false (from the next request on)\n");
    assert!(!tells_its_trace(&program));
    assert!(program.page("/config").text().contains("server_timing: false"));
    assert_eq!(reload(&program).text(), "nothing has changed\n");
    program.logs("the configuration was read again changes=1");
    program.logs("propagation.server_timing: true -> false");
    let metrics = program.metrics();
    assert_eq!(metrics.sum("tracecar_config_reloads_total", &[("result", "applied")]), 1.0);
    assert_eq!(metrics.sum("tracecar_config_last_reload_successful", &[]), 1.0);
    assert!(metrics.sum("tracecar_config_last_reload_timestamp_seconds", &[]) > 1.7e9);
}

#[test]
fn a_mistake_changes_nothing_and_is_told_once_where_people_look() {
    let origin = Origin::answering(HELLO);
    let file = File::new(&text(&origin.url(), TELLS));
    let program = start(&file);
    std::fs::write(&file.path, text(&origin.url(), "propagation: { server_timming: false }")).unwrap();
    for _ in 0..3 {
        let said = reload(&program);
        assert_eq!(said.status(), 422);
        assert!(said.text().contains("propagation.server_timming: is not a known key"), "{}", said.text());
    }
    assert!(tells_its_trace(&program));
    assert_eq!(program.metrics().sum("tracecar_config_last_reload_successful", &[]), 0.0);
    let page = program.page("/config").text();
    assert!(page.starts_with("# The configuration was read again and could not be used"), "{page}");
    assert!(page.contains("#   --> ") && page.contains("\nservice:\n  name: under-test\n"), "{page}");
    change(&program, &file, &text(&origin.url(), TELLS));
    assert_eq!(program.metrics().sum("tracecar_config_last_reload_successful", &[]), 1.0);
    assert!(program.page("/config").text().starts_with("service:"));
    program.terminate();
    let log = program.ended().stderr;
    assert_eq!(log.iter().filter(|line| line.contains("cannot be used")).count(), 1, "{log:#?}");
}

#[test]
fn what_can_be_read_and_not_be_done_changes_nothing_either() {
    let origin = Origin::answering(HELLO);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let file = File::new(&text(&origin.url(), TELLS));
    let program = start(&file);
    let cases = [
        (format!("outbound: {{ proxy: '{}' }}", taken.local_addr().unwrap()), "cannot listen on "),
        ("access_log: { enabled: true, path: /nowhere/access.log }".to_owned(), "/nowhere/access.log"),
        (
            format!(
                "outbound: {{ proxy: '{}' }}",
                program.address.to_string().replace("127.0.0.1", "0.0.0.0")
            ),
            "overlaps with",
        ),
    ];
    for (more, why) in cases {
        std::fs::write(&file.path, text(&origin.url(), &format!("{TELLS_NOT}\n{more}"))).unwrap();
        let said = reload(&program);
        assert_eq!(said.status(), 422);
        assert!(said.text().contains(why), "{}", said.text());
        assert!(tells_its_trace(&program), "as a whole or not at all");
    }
}

/// Turns the file to something else, in one of the ways that people and programs have.
type Write = fn(&Path, &str);

#[tokio::test]
async fn however_a_file_changes_it_is_seen_each_time() {
    let in_place: Write = |path, text| std::fs::write(path, text).unwrap();
    let renamed: Write = |path, text| {
        let new = path.with_extension("new");
        std::fs::write(&new, text).unwrap();
        std::fs::rename(new, path).unwrap();
    };
    // As the kubelet does it: the file is a link into a link to a directory, and that is turned.
    let turned: Write = |path, text| {
        let folder = path.parent().unwrap();
        let version = format!("..{}", uuid::Uuid::from_u128(rand::random()));
        std::fs::create_dir(folder.join(&version)).unwrap();
        std::fs::write(folder.join(&version).join("tracecar.yaml"), text).unwrap();
        std::os::unix::fs::symlink(&version, folder.join("..data_tmp")).unwrap();
        std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).unwrap();
        if !path.is_symlink() {
            std::fs::remove_file(path).unwrap();
            std::os::unix::fs::symlink("..data/tracecar.yaml", path).unwrap();
        }
    };
    let origin = Origin::answering(HELLO);
    for (how, write) in [("in place", in_place), ("renamed", renamed), ("turned", turned)] {
        let file = File::new("");
        write(&file.path, &text(&origin.url(), TELLS));
        let program = start(&file);
        for round in 0..4 {
            let (more, tells) = if round % 2 == 0 { (TELLS_NOT, false) } else { (TELLS, true) };
            write(&file.path, &text(&origin.url(), more));
            let what = format!("{how}, for the {round}. time");
            eventually(&what, || tells_its_trace(&program) == tells).await;
        }
    }
}

#[tokio::test]
async fn files_that_the_configuration_names_are_watched_too() {
    let origin = Origin::answering(HELLO);
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    std::fs::write(&token, "first\n").unwrap();
    let admin = format!("admin: {{ listen: '127.0.0.1:0', token_file: '{}' }}", token.display());
    let file = File::new(&text(&origin.url(), "").replace("admin: { listen: '127.0.0.1:0' }", &admin));
    let program = start(&file);
    assert_eq!(config_by(&program, Some("first")).status(), 200);
    std::fs::write(&token, "second\n").unwrap();
    eventually("the token changes", || config_by(&program, Some("second")).status() == 200).await;
    assert_eq!(config_by(&program, Some("first")).status(), 401);
}

#[tokio::test]
async fn a_file_that_was_missing_is_enough_for_what_was_refused() {
    let origin = Origin::answering(HELLO);
    let folder = tempfile::tempdir().unwrap();
    let token = folder.path().join("token");
    let file = File::new(&text(&origin.url(), ""));
    let program = start(&file);
    let admin = format!("admin: {{ listen: '127.0.0.1:0', token_file: '{}' }}", token.display());
    std::fs::write(&file.path, text(&origin.url(), "").replace("admin: { listen: '127.0.0.1:0' }", &admin))
        .unwrap();
    assert_eq!(reload(&program).status(), 422);
    std::fs::write(&token, "first\n").unwrap();
    eventually("the token counts", || config_by(&program, None).status() == 401).await;
}

#[test]
fn sighup_has_it_read_again() {
    let origin = Origin::answering(HELLO);
    let file = File::new(&text(&origin.url(), TELLS));
    let program = start(&file);
    // The file is as it was, so nobody but the signal can be the reason.
    program.metrics();
    let id = i32::try_from(program.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(id, Signal::HUP).unwrap();
    let unchanged =
        || program.metrics().sum("tracecar_config_reloads_total", &[("result", "unchanged")]) == 1.0;
    tokio::runtime::Runtime::new().unwrap().block_on(eventually("it is read", unchanged));
}

fn config_by(program: &Program, token: Option<&str>) -> Message {
    let mut peer = Peer::connect(program.admin);
    let token = token.map(|token| format!("Authorization: Bearer {token}\r\n")).unwrap_or_default();
    peer.send(format!("GET /config HTTP/1.1\r\nHost: localhost\r\n{token}\r\n"));
    peer.response()
}

#[test]
fn other_hosts_need_a_token_for_what_is_not_health_or_metrics() {
    let origin = Origin::answering(HELLO);
    let open = |more: &str| {
        let admin = format!("admin: {{ listen: '0.0.0.0:0'{more} }}");
        let file = File::new(&text(&origin.url(), "").replace("admin: { listen: '127.0.0.1:0' }", &admin));
        let mut program = start(&file);
        program.admin.set_ip([127, 0, 0, 1].into());
        (program, file)
    };
    let (program, _file) = open("");
    let said = config_by(&program, Some("anything"));
    assert_eq!(said.status(), 403);
    assert!(said.text().contains("admin.token_file"), "{}", said.text());
    assert_eq!(reload(&program).status(), 403);
    assert_eq!(program.page("/metrics").status(), 200);
    assert_eq!(program.page("/readyz").status(), 200);

    let token = File::new("s3cret\n");
    let (program, _file) = open(&format!(", token_file: '{}'", token.name()));
    assert_eq!(config_by(&program, None).status(), 401);
    assert_eq!(config_by(&program, Some("s3cre")).status(), 401);
    let told = config_by(&program, Some("s3cret"));
    assert_eq!(told.status(), 200);
    assert!(!told.text().contains("s3cret"));
    assert_eq!(reload(&program).status(), 401);
}

#[test]
fn a_page_in_a_browser_cannot_have_it_read_again() {
    let origin = Origin::answering(HELLO);
    let file = File::new(&text(&origin.url(), ""));
    let program = start(&file);
    let mut peer = Peer::connect(program.admin);
    peer.send("POST /-/reload HTTP/1.1\r\nHost: 127.0.0.1\r\nOrigin: https://evil.example\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(peer.response().status(), 403);
    assert_eq!(program.page("/-/reload").status(), 405);
}

#[test]
fn a_request_sees_one_version_from_first_byte_to_last() {
    let (release, released) = channel::<()>();
    let (arrives, arrived) = channel::<()>();
    let held = std::sync::Mutex::new((arrives, released));
    let origin = Origin::new(move |peer| {
        while let Some(asked) = peer.request() {
            if asked.head.starts_with("GET /slow") {
                let (arrives, released) = &*held.lock().unwrap();
                arrives.send(()).unwrap();
                released.recv().unwrap();
            }
            peer.send(HELLO);
        }
    });
    let other = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nother");
    let file = File::new(&text(&origin.url(), TELLS));
    let program = start(&file);
    let mut begun = Peer::connect(program.address);
    begun.send("GET /slow HTTP/1.1\r\nHost: s\r\n\r\n");
    arrived.recv().unwrap();
    change(&program, &file, &text(&other.url(), TELLS_NOT));
    // One that begins later, on another connection, sees the new one.
    let mut later = Peer::connect(program.address);
    later.send(ASK);
    let answer = later.response();
    assert_eq!((answer.text().as_str(), answer.header("server-timing")), ("other", None));
    release.send(()).unwrap();
    let answer = begun.response();
    assert_eq!(answer.text(), "hello");
    assert!(answer.header("server-timing").is_some());
    // And so does the next on the same connection.
    begun.send(ASK);
    let answer = begun.response();
    assert_eq!((answer.text().as_str(), answer.header("server-timing")), ("other", None));
}

#[test]
fn tunnels_and_streams_live_through_changes_of_everything_about_them() {
    let origin = Origin::new(|peer| {
        let asked = peer.request().unwrap();
        if asked.header("upgrade").is_some() {
            peer.send(UPGRADED);
            loop {
                let heard = peer.exactly(1);
                peer.send(heard);
            }
        }
        peer.send("HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n");
        // One event for each connection that is made to say so.
        for number in 0..4 {
            let event = format!("data: {number}\n\n");
            peer.send(format!("{:x}\r\n{event}\r\n", event.len()));
            std::thread::park_timeout(std::time::Duration::from_millis(20));
        }
        peer.send("0\r\n\r\n");
    });
    let other = Origin::answering(HELLO);
    let file = File::new(&text(&origin.url(), TELLS));
    let program = start(&file);
    let mut tunnel = Peer::connect(program.address);
    tunnel.send(UPGRADE);
    assert_eq!(tunnel.response_head().status(), 101);
    let mut stream = Peer::connect(program.address);
    stream.send(ASK);
    assert_eq!(stream.response_head().status(), 200);
    // Another service, another listener: theirs goes away.
    let moved = text(&other.url(), TELLS_NOT).replacen("127.0.0.1:0", "127.0.0.2:0", 1);
    for text in [text(&other.url(), TELLS_NOT), moved] {
        change(&program, &file, &text);
        tunnel.send("x");
        assert_eq!(tunnel.exactly(1), b"x");
    }
    let events: Vec<u8> = stream.chunks().unwrap();
    assert_eq!(events, b"data: 0\n\ndata: 1\n\ndata: 2\n\ndata: 3\n\n");
    tunnel.send("y");
    assert_eq!(tunnel.exactly(1), b"y");
    program.logs("no longer listening");
    let address = program.announced("passing requests on", "listen=");
    assert_eq!(address.ip().to_string(), "127.0.0.2");
}

#[test]
fn versions_that_nobody_goes_by_are_freed() {
    let origin = Origin::new(|peer| {
        let asked = peer.request().unwrap();
        if asked.header("upgrade").is_some() {
            peer.send(UPGRADED);
            let _ = peer.rest();
            return;
        }
        peer.send(HELLO);
    });
    let out = "outbound: { proxy: '127.0.0.1:0' }";
    let file = File::new(&text(&origin.url(), out));
    let program = start(&file);
    let mut stream = Peer::connect(program.address);
    stream.send(UPGRADE);
    assert_eq!(stream.response_head().status(), 101);
    for round in 0..10 {
        let more = if round % 2 == 0 { TELLS_NOT } else { TELLS };
        change(&program, &file, &text(&origin.url(), &format!("{out}\n{more}")));
    }
    let versions = || program.metrics().sum("tracecar_config_versions", &[]);
    assert!(versions() <= 2.0, "the one in effect, and that of the stream: {}", versions());
    drop(stream);
    let waits = tokio::runtime::Runtime::new().unwrap();
    waits.block_on(eventually("that is freed, too", || versions() == 1.0));
}

#[test]
fn what_is_inside_a_connect_goes_by_the_settings_of_each_request_and_keeps_no_others() {
    let origin = Origin::answering(HELLO);
    let out = "outbound: { proxy: '127.0.0.1:0' }";
    let file = File::new(&text(&origin.url(), out));
    let program = start(&file);
    let proxy = program.announced("as a forward proxy", "listen=");
    let mut inside: Vec<Peer> = Vec::new();
    for round in 0..4 {
        let mut client = Peer::connect(proxy);
        client.send(format!("CONNECT {} HTTP/1.1\r\nHost: s\r\n\r\n", origin.address));
        assert_eq!(client.response_head().status(), 200);
        client.send(ASK);
        assert_eq!(client.response().text(), "hello");
        inside.push(client);
        let more = if round % 2 == 0 { TELLS_NOT } else { TELLS };
        change(&program, &file, &text(&origin.url(), &format!("{out}\n{more}")));
    }
    let versions = || program.metrics().sum("tracecar_config_versions", &[]);
    let waits = tokio::runtime::Runtime::new().unwrap();
    waits.block_on(eventually("only the one in effect is kept", || versions() == 1.0));
    let denied = "outbound: { proxy: '127.0.0.1:0', deny: [127.0.0.1] }";
    change(&program, &file, &text(&origin.url(), denied));
    for client in &mut inside {
        client.send(ASK);
        assert_eq!(client.response().status(), 403);
    }
}

#[tokio::test]
async fn what_may_work_a_moment_later_is_tried_again() {
    let origin = Origin::answering(HELLO);
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap();
    let file = File::new(&text(&origin.url(), ""));
    let program = start(&file);
    std::fs::write(&file.path, text(&origin.url(), &format!("outbound: {{ proxy: '{port}' }}"))).unwrap();
    assert_eq!(reload(&program).status(), 422);
    // Whoever watches the file has seen it, too: only the second try is left.
    let refused = || program.metrics().sum("tracecar_config_reloads_total", &[("result", "refused")]);
    eventually("both have read it", || refused() >= 2.0).await;
    drop(taken);
    eventually("it listens", || std::net::TcpStream::connect(port).is_ok()).await;
}

#[test]
fn a_file_that_never_answers_holds_up_nobody() {
    let origin = Origin::answering(HELLO);
    let folder = tempfile::tempdir().unwrap();
    let pipe = folder.path().join("pipe");
    let made = std::process::Command::new("mkfifo").arg(&pipe).status();
    assert!(made.is_ok_and(|made| made.success()), "mkfifo is part of every system");
    let file = File::new(&text(&origin.url(), TELLS));
    let program = start(&file);
    let token = format!("admin: {{ listen: '127.0.0.1:0', token_file: '{}' }}", pipe.display());
    let log = format!("access_log: {{ enabled: true, path: '{}' }}", pipe.display());
    let with_token = text(&origin.url(), TELLS_NOT).replace("admin: { listen: '127.0.0.1:0' }", &token);
    for (text, why) in [(with_token, "not a regular file"), (text(&origin.url(), &log), "cannot open")] {
        std::fs::write(&file.path, text).unwrap();
        let said = reload(&program);
        assert_eq!(said.status(), 422);
        assert!(said.text().contains(why), "{}", said.text());
        assert!(tells_its_trace(&program));
    }
    program.terminate();
    assert_eq!(program.ended().code(), Some(0));
}

#[test]
fn a_file_that_became_empty_or_too_large_changes_nothing() {
    let origin = Origin::answering(HELLO);
    let file = File::new(&text(&origin.url(), TELLS_NOT));
    let program = start(&file);
    for (content, why) in [(String::new(), "is empty"), ("#".repeat(1 << 21), "is larger than 1 MiB")] {
        std::fs::write(&file.path, content).unwrap();
        let said = reload(&program);
        assert_eq!(said.status(), 422);
        assert!(said.text().trim_end().ends_with(why), "{}", said.text());
        assert!(!tells_its_trace(&program));
    }
}

#[test]
fn a_name_that_others_answer_for_does_not_lead_to_the_pages() {
    let origin = Origin::answering(HELLO);
    let file = File::new(&text(&origin.url(), ""));
    let program = start(&file);
    let ask = |host: &str| {
        let mut peer = Peer::connect(program.admin);
        peer.send(format!("GET /config HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        peer.response().status()
    };
    assert_eq!(ask("evil.example:9464"), 403);
    for host in ["localhost:9464", "127.0.0.1", "[::1]:9464", "LOCALHOST"] {
        assert_eq!(ask(host), 200, "{host}");
    }
}

#[test]
fn what_needs_a_restart_says_so_until_it_is_done() {
    let origin = Origin::answering(HELLO);
    let file = File::new(&text(&origin.url(), ""));
    let program = start(&file);
    let said = change(&program, &file, &text(&origin.url(), "runtime: { workers: 2 }"));
    assert!(said.starts_with("runtime.workers: 1 -> 2 (only after a restart: "), "{said}");
    change(&program, &file, &text(&origin.url(), &format!("runtime: {{ workers: 2 }}\n{TELLS_NOT}")));
    let shown = program.page("/config").text();
    assert!(shown.starts_with("# runtime.workers: 1 -> 2 (only after a restart"), "{shown}");
}
