//! Rules of HTTP that take more than a request and an answer to see; and the page that lists them all.

use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::mpsc::channel;

use tracecar::exchange::Outcome;

use crate::support::PATIENCE;
use crate::support::car::TestCar;
use crate::support::origin::{Origin, Peer};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const EXPECTING: &str = "POST / HTTP/1.1\r\nHost: shop\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n";

#[test]
fn a_service_that_refuses_before_the_content_is_heard_before_the_content() {
    for refusal in ["401 Unauthorized", "413 Content Too Large", "417 Expectation Failed"] {
        let origin = Origin::new(move |peer| {
            let head = peer.head().unwrap_or_default().to_lowercase();
            assert!(head.contains("expect: 100-continue\r\n"), "HX-2: {head}");
            peer.send(format!("HTTP/1.1 {refusal}\r\nContent-Length: 2\r\n\r\nno"));
            let _ = peer.rest();
        });
        let car = TestCar::before(&origin.url());
        let mut caller = Peer::connect(car.address());
        caller.send(EXPECTING);
        // HX-2: no 100 comes first, so no content is sent for nothing.
        assert!(caller.response().head.starts_with(&format!("HTTP/1.1 {refusal}\r\n")));
        drop(caller);
        assert_eq!(car.record().outcome, Outcome::Complete);
    }
}

#[test]
fn the_100_that_a_caller_waits_for_is_that_of_the_service() {
    let (ready, readies) = channel::<()>();
    let readies = Mutex::new(readies);
    let origin = Origin::new(move |peer| {
        peer.head();
        let _ = readies.lock().unwrap().recv_timeout(PATIENCE);
        peer.send("HTTP/1.1 100 Continue\r\nX-From: service\r\n\r\n");
        assert_eq!(peer.exactly(5), b"hello");
        peer.send(OK);
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(EXPECTING);
    // It is not ours: before the service says so nothing comes.
    caller.stream.set_read_timeout(Some(std::time::Duration::from_millis(200))).unwrap();
    assert!(caller.stream.peek(&mut [0; 1]).is_err(), "HX-2: the service has said nothing so far");
    caller.stream.set_read_timeout(Some(PATIENCE)).unwrap();
    ready.send(()).unwrap();
    let interim = caller.response_head();
    assert_eq!((interim.status(), interim.header("x-from")), (100, Some("service")));
    caller.send("hello");
    assert_eq!(caller.response().text(), "ok");
}

#[test]
fn what_comes_right_behind_a_101_is_not_lost_and_each_side_ends_by_itself() {
    let origin = Origin::new(|peer| {
        peer.head();
        // In one piece with the head, as a service does that speaks first.
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\nhello");
        let heard = peer.rest().unwrap_or_default();
        // The caller has ended its side, and still hears.
        peer.send([b"heard ", &heard[..]].concat());
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send("GET / HTTP/1.1\r\nHost: shop\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
    assert_eq!(caller.response_head().status(), 101);
    assert_eq!(caller.exactly(5), b"hello", "HX-3");
    caller.send("goodbye");
    caller.finish_sending();
    assert_eq!(caller.rest().unwrap(), b"heard goodbye", "HX-3: half-close is not the end");
}

#[test]
fn what_may_do_something_twice_is_sent_once() {
    let (asked, asks) = channel();
    let origin = Origin::new(move |peer| {
        let mut first = true;
        while let Some(request) = peer.request() {
            let _ = asked.send(request.head.split(' ').next().unwrap_or_default().to_owned());
            // Every connection is closed in place of its second answer.
            if !std::mem::take(&mut first) {
                return;
            }
            peer.send(OK);
        }
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    for (method, status, times) in [("POST", 502, 1), ("PATCH", 502, 1)] {
        caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n");
        assert_eq!(caller.response().status(), 200);
        assert_eq!(asks.recv_timeout(PATIENCE).unwrap(), "GET");
        caller.send(format!("{method} / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1\r\n\r\nx"));
        let answer = caller.response();
        // A connection of its own that answers is as good: then nothing went wrong.
        assert!([200, status].contains(&answer.status()), "{}", answer.head);
        let seen = asks.try_iter().filter(|given| given == method).count();
        assert_eq!(seen, times, "HOP-15: {method}");
    }
}

#[test]
fn an_expectation_and_an_upgrade_come_in_their_order() {
    let origin = Origin::new(|peer| {
        peer.head();
        peer.send("HTTP/1.1 100 Continue\r\n\r\n");
        assert_eq!(peer.exactly(5), b"hello");
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n");
        let mut rest = Vec::new();
        let _ = peer.stream.read_to_end(&mut rest);
    });
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(
        "POST / HTTP/1.1\r\nHost: shop\r\nConnection: upgrade\r\nUpgrade: x\r\nExpect: 100-continue\r\n\
         Content-Length: 5\r\n\r\n",
    );
    assert_eq!(caller.response_head().status(), 100, "HX-3: 100 before 101");
    caller.send("hello");
    assert_eq!(caller.response_head().status(), 101);
}

#[test]
fn no_answer_of_ours_is_misdirected() {
    // GW-4: a proxy may not generate 421. All that we generate is made in two files.
    for file in ["src/proxy/error.rs", "src/proxy/outbound.rs"] {
        let text = std::fs::read_to_string(here(file)).expect("it is there");
        assert!(!text.contains("421") && !text.contains("MISDIRECTED"), "{file}");
    }
}

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// How many rules each group has.
const GROUPS: [(&str, usize); 7] =
    [("HOP", 16), ("FWD", 6), ("HX", 6), ("FRM", 8), ("SMG", 33), ("H2", 7), ("GW", 6)];

#[test]
fn the_page_lists_every_rule_once_with_tests_that_there_are() {
    let page = std::fs::read_to_string(here("src/guide/conformance.md")).expect("the page is there");
    let rows: Vec<Vec<&str>> = page
        .lines()
        .filter(|line| line.starts_with("| ") && !line.starts_with("| rule"))
        .map(|line| line.trim_matches('|').split(" | ").map(str::trim).collect())
        .collect();
    let listed: Vec<&str> = rows.iter().map(|row| row[0]).collect();
    let all: Vec<String> = GROUPS
        .iter()
        .flat_map(|(group, count)| (1..=*count).map(move |number| format!("{group}-{number}")))
        .collect();
    assert_eq!(listed, all, "each rule once, in order");
    let mut problems = Vec::new();
    for row in &rows {
        let [rule, source, text, tests, verdict] = row[..] else {
            panic!("{row:?} has not five columns");
        };
        if source.is_empty() || text.is_empty() {
            problems.push(format!("{rule} says nothing"));
        }
        if verdict != "holds" && !verdict.starts_with("deviation: ") {
            problems.push(format!("{rule}: {verdict:?} is no verdict"));
        }
        let named: Vec<&str> = tests.split('`').skip(1).step_by(2).collect();
        if named.is_empty() && verdict == "holds" {
            problems.push(format!("{rule} holds, and no test says so"));
        }
        for name in named.into_iter().filter(|name| !is_test(name)) {
            problems.push(format!("{rule}: there is no test {name}"));
        }
    }
    assert!(problems.is_empty(), "{}", problems.join("\n"));
}

/// Whether there is a test of this path, as `cargo test` prints it.
fn is_test(path: &str) -> bool {
    let parts: Vec<&str> = path.split("::").collect();
    let Some((name, modules)) = parts.split_last() else { return false };
    // A unit test stands in a module `tests`, at the foot of its file or in a file of its own.
    let inner = modules.strip_suffix(&["tests"]);
    let (folder, modules) = if let Some(inner) = inner { ("src", inner) } else { ("tests/it", modules) };
    let module = format!("{folder}/{}", modules.join("/"));
    let files = [format!("{module}.rs"), format!("{module}/mod.rs"), format!("{module}/tests.rs")];
    let texts: Vec<String> =
        files.iter().filter_map(|file| std::fs::read_to_string(here(file)).ok()).collect();
    // Those that a macro makes of a corpus have their rule behind their name.
    texts.iter().any(|text| text.contains(&format!("fn {name}(")) || text.contains(&format!(" {name} \"")))
}
