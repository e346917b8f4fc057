//! The process itself: its logs, its pages, its threads.

use std::net::TcpStream;

use super::car::{Car, Key, unique, until};
use crate::support::origin::{Nowhere, Peer};

keys! {
    "access_log.enabled" => requests_are_logged,
    "access_log.format" => lines_have_a_form,
    "access_log.path" => lines_go_into_a_file,
    "admin.enabled" => there_are_pages,
    "admin.listen" => pages_are_where_it_says,
    "admin.ready_needs_upstream" => it_is_ready_when_its_service_is,
    "admin.token_file" => pages_that_tell_more_ask_for_a_token,
    "runtime.workers" => threads_carry_requests,
    "log" => the_log_says_as_much_as_it_should,
}

fn requests_are_logged(key: Key) {
    let mut car = key.car("export: { console: off }\naccess_log: { enabled: <> }", "false");
    car.ask("/before", "");
    car.apply("true");
    car.ask("/after", "");
    let line = car.line();
    assert!(line.contains("/after"), "the first there is: none was written before: {line}");
}

fn lines_have_a_form(key: Key) {
    let see = |car: &mut Car| {
        car.ask("/", "");
        car.line().starts_with('{')
    };
    let yaml = "export: { console: off }\naccess_log: { enabled: true, format: <> }";
    key.live(yaml, ["json", "text"], see, [true, false]);
}

fn lines_go_into_a_file(key: Key) {
    let see = |car: &mut Car| {
        let (path, folder) = (format!("/{}", unique()), car.folder());
        car.ask(&path, "");
        let holds = |file| std::fs::read_to_string(folder.join(file)).is_ok_and(|text| text.contains(&path));
        let mut seen = [false; 2];
        until("the line is somewhere", || {
            seen = ["one.log", "other.log"].map(holds);
            seen.contains(&true)
        });
        seen
    };
    let yaml = "access_log: { enabled: true, path: <> }";
    let values = ["FOLDER/one.log", "FOLDER/other.log"];
    key.live(yaml, values, see, [[true, false], [false, true]]);
}

fn there_are_pages(key: Key) {
    let mut car = key.car("admin: { enabled: <>, listen: 'ADMIN' }", "true");
    assert_eq!(car.page("/healthz").status(), 200);
    // There is no way back: nobody is there to be told.
    car.apply("false");
    until("there are none", || TcpStream::connect(car.place.admin).is_err());
    assert_eq!(car.ask("/", "").status(), 200);
}

fn pages_are_where_it_says(key: Key) {
    let see =
        |car: &mut Car| [car.place.admin, car.place.other].map(|address| TcpStream::connect(address).is_ok());
    let values = ["'ADMIN'", "'OTHER'"];
    key.live_in_time("admin: { listen: <> }", values, see, [[true, false], [false, true]]);
}

fn it_is_ready_when_its_service_is(key: Key) {
    let nowhere = Nowhere::new();
    let key = key.word("NOWHERE", nowhere.address);
    let see = |car: &mut Car| car.page("/readyz").status();
    let yaml = "inbound: [{ listen: 'LISTEN', to: 'http://NOWHERE' }]\n\
                admin: { listen: 'ADMIN', ready_needs_upstream: <> }";
    key.live_in_time(yaml, ["true", "false"], see, [503, 200]);
}

fn pages_that_tell_more_ask_for_a_token(key: Key) {
    let file = tempfile::NamedTempFile::new().expect("a folder for temporary files");
    std::fs::write(file.path(), "let-me-in").expect("it is ours");
    let key = key.word("TOKEN", file.path().display());
    let see = |car: &mut Car| {
        car.authorization = "Authorization: Bearer let-me-in\r\n";
        ["", "Authorization: Bearer wrong\r\n", car.authorization].map(|header| {
            let mut peer = Peer::connect(car.place.admin);
            peer.send(format!("GET /config HTTP/1.1\r\nHost: localhost\r\n{header}\r\n"));
            peer.response().status() == 200
        })
    };
    let yaml = "admin: { listen: 'ADMIN', token_file: <> }";
    key.live(yaml, ["null", "TOKEN"], see, [[true; 3], [false, false, true]]);
}

/// Threads are there from the start, or not at all: a reload says so, and a restart does it.
fn threads_carry_requests(key: Key) {
    let mut car = key.car("runtime: { workers: <> }", "1");
    // What is served has a thread that serves it.
    assert_eq!(car.ask("/", "").status(), 200);
    assert_eq!(workers(&car), ["worker-0"]);
    car.apply("2");
    let said = car.page("/config").text();
    assert!(said.starts_with("# runtime.workers: 1 -> 2 (only after a restart"), "{said}");
    assert_eq!(workers(&car), ["worker-0"], "it goes on as it was");
    car.restart();
    until("there are two", || workers(&car) == ["worker-0", "worker-1"]);
}

/// The names of the threads that carry requests.
fn workers(car: &Car) -> Vec<String> {
    let tasks = std::fs::read_dir(format!("/proc/{}/task", car.program().id())).expect("it runs");
    // A thread may end meanwhile.
    let names =
        tasks.filter_map(|task| std::fs::read_to_string(task.expect("an entry").path().join("comm")).ok());
    let mut workers: Vec<String> =
        names.map(|name| name.trim().to_owned()).filter(|name| name.starts_with("worker-")).collect();
    workers.sort();
    workers
}

fn the_log_says_as_much_as_it_should(key: Key) {
    // A line of the level `debug`, for a caller that leaves before it has said anything.
    let connection = |car: &Car| {
        let caller = Peer::connect(car.place.listen);
        let port = caller.stream.local_addr().expect("it is connected").port();
        caller.reset();
        port
    };
    let mut car = key.car("log: <>", "off");
    connection(&car);
    // That one is over when another is served.
    assert_eq!(car.ask("/", "").status(), 200);
    car.apply("debug");
    let port = connection(&car);
    let line = car.program().logs("connection ended before a request");
    assert!(line.contains(&format!(":{port}")), "the first there is: none was written before: {line}");
}
