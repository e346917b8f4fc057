//! Sentries that hang, are gone, or are others after a reload; and traces of others.

use std::net::TcpListener;
use std::time::Duration;

use tokio::runtime::Runtime;

use super::{answer, ask};
use crate::support::car::TestCar;
use crate::support::eventually;
use crate::support::origin::{Nowhere, Origin, Peer};
use crate::support::program::{File, Program, Start};
use crate::support::sentry::Sentry;

/// The time that is promised to telemetry at the end, and some for a busy machine.
const FLUSH: Duration = Duration::from_secs(4 + 4);

/// A service that fails in a way of its own for each path.
fn failing() -> Origin {
    Origin::new(|peer| {
        while let Some(request) = peer.request() {
            let path = request.head.split(' ').nth(1).unwrap_or_default();
            peer.send(answer("500 No", "", format!("cannot do {path}")));
        }
    })
}

fn fails(program: &Program, path: &str) {
    let mut peer = Peer::connect(program.address);
    peer.send(format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n"));
    assert_eq!(peer.response().status(), 500);
}

/// Events that were sent, that wait, and that were dropped.
fn account(program: &Program) -> (u64, u64, u64) {
    let metrics = program.metrics();
    let count = |name: &str| metrics.count(name);
    (
        count("tracecar_sentry_sent_total"),
        count("tracecar_sentry_queued"),
        count("tracecar_sentry_dropped_total"),
    )
}

/// What a request leaves is counted a moment after its answer.
fn wait(what: &str, done: impl FnMut() -> bool) {
    Runtime::new().expect("threads can be started").block_on(eventually(what, done));
}

#[test]
fn a_sentry_that_hangs_or_is_gone_costs_events_and_nothing_else() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let nowhere = Nowhere::new();
    for address in [silent.local_addr().unwrap(), nowhere.address] {
        let origin = failing();
        let start = Start::before(&origin.url())
            .env("SENTRY_DSN", format!("http://public@{address}/7"))
            .env("SENTRY_TRACES_SAMPLE_RATE", "0");
        let program = start.run();
        for path in ["/a", "/b", "/c", "/d"] {
            fails(&program, path);
        }
        wait("all are accounted for", || {
            let (sent, queued, dropped) = account(&program);
            sent == 0 && queued + dropped == 4
        });
        program.terminate();
        let ended = program.ended_within(FLUSH);
        assert_eq!(ended.code(), Some(0), "{:#?}", ended.stderr);
    }
}

#[test]
fn what_waits_goes_to_the_sentry_before_a_reload_and_what_comes_then_to_the_other() {
    let (first, release) = Sentry::held();
    let second = Sentry::new();
    let origin = failing();
    let text = |sentry: &Sentry| {
        format!(
            "service: {{ name: shop }}\ninbound: [{{ listen: '127.0.0.1:0', to: '{}' }}]\n\
             admin: {{ listen: '127.0.0.1:0' }}\nsentry: {{ dsn: '{}', traces: off }}\n",
            origin.url(),
            sentry.dsn()
        )
    };
    let file = File::new(&text(&first));
    let program = Start::new(["run", "--config", file.name()]).run();
    for path in ["/a", "/b", "/c"] {
        fails(&program, path);
    }
    assert_eq!(first.event().title().1, "cannot do /a");
    wait("one is on its way, two wait", || account(&program) == (0, 3, 0));

    std::fs::write(&file.path, text(&second)).unwrap();
    let mut peer = Peer::connect(program.admin);
    peer.send("POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    let said = peer.response();
    assert_eq!(said.status(), 200, "{}", said.text());
    fails(&program, "/d");
    assert_eq!(second.event().title().1, "cannot do /d");
    drop(release);
    assert_eq!(
        [first.event(), first.event()].each_ref().map(|event| event.title().1),
        ["cannot do /b", "cannot do /c"]
    );
    wait("all are settled", || account(&program) == (4, 0, 0));
    assert!(first.come().is_none() && second.come().is_none(), "none came twice");
}

#[test]
fn a_trace_of_another_organization_is_not_gone_on_with() {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let origin = failing();
    let yaml =
        "sentry: { dsn: 'http://public@o42.sentry.invalid/7' }\npropagation: { formats: [sentry-trace] }";
    let car = TestCar::with(&origin.url(), yaml, |_| {});
    let continued = |baggage: &str| {
        ask(&car, "/", &format!("sentry-trace: {TRACE}-b7ad6b7169203331-1\r\nbaggage: {baggage}\r\n"));
        let identity = car.record().identity;
        let same = identity.trace_id.to_string() == TRACE;
        assert_eq!(same, identity.parent.is_some());
        same
    };
    assert!(continued("sentry-org_id=42,sentry-environment=production"));
    assert!(continued("other=1"), "whoever says nothing is believed");
    assert!(!continued("other=1,sentry-org_id=43"), "SEN-44");
}
