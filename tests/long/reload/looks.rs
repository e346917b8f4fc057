//! What the probes cannot see: listeners that come and go, bounds on waits, readiness, lines of the log.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::http::{Answer, Connection, Failure};
use super::model::{Model, Places};
use crate::support::program::Program;

/// Looks at one thing after a change.
pub type Look = fn(&mut Scene<'_>);

/// How long something may take that is not there at once: the bounds on callers are looked at once per second.
const SOON: Duration = Duration::from_secs(5);

/// Where one looks, and what is found.
pub struct Scene<'s> {
    pub model: &'s Model,
    pub places: &'s Places,
    pub program: &'s Program,
    /// What takes its time; each says what was wrong.
    pub late: &'s mut Vec<JoinHandle<Result<(), String>>>,
    pub complaints: &'s mut Vec<String>,
    /// How often the log had to say something.
    pub log_lines: &'s mut usize,
}

impl Scene<'_> {
    fn expect(&mut self, what: &str, is: bool) {
        if !is {
            self.complaints.push(format!("not so: {what}"));
        }
    }

    fn main(&self) -> Result<Connection, Failure> {
        Connection::to(self.places.address("main"))
    }

    fn later(&mut self, look: impl FnOnce() -> Result<(), String> + Send + 'static) {
        self.late.push(std::thread::spawn(look));
    }
}

pub fn nothing(_: &mut Scene<'_>) {}

/// It answers, and what it has begun to answer it finishes, even if it is taken away meanwhile. Then nobody is there.
pub fn more_listener(scene: &mut Scene<'_>) {
    let address = scene.places.address("main-more");
    if scene.model.is("inbound~more", "") {
        return scene.expect("the listener is gone", eventually(|| Connection::to(address).is_err()));
    }
    let answer = Connection::to(address).and_then(|mut connection| connection.ask(&head("/more")));
    scene.expect(
        "the new listener leads to beta",
        answer.is_ok_and(|answer| answer.header("x-origin") == "beta"),
    );
    let asked = Connection::to(address).and_then(|mut connection| {
        connection.send(head("/slow/1500") + "\r\n")?;
        Ok(connection)
    });
    scene.later(move || match rest(asked)? {
        answer if answer.status == 200 => Ok(()),
        answer => Err(format!("a listener that goes finishes its answers: {}", answer.status)),
    });
}

/// What it does while it is there the probes see.
pub fn mapped_listener(scene: &mut Scene<'_>) {
    let address = scene.places.address("mapped-more");
    if scene.model.is("outbound.mapped~more", "") {
        scene.expect("the mapped listener is gone", eventually(|| Connection::to(address).is_err()));
    }
}

pub fn transparent_listener(scene: &mut Scene<'_>) {
    let address = scene.places.address("transparent");
    let there = !scene.model.is("outbound.transparent", "");
    scene.expect(
        "the listener for redirected connections comes and goes",
        eventually(|| Connection::to(address).is_ok() == there),
    );
}

pub fn slow_response(scene: &mut Scene<'_>) {
    let wanted = if scene.model.is("timeouts.response_header", "") { 200 } else { 504 };
    let connection = scene.main();
    scene.later(move || {
        let answer = connection.and_then(|mut connection| connection.ask(&head("/slow/1400")))?;
        said(answer.status == wanted, || {
            format!("a slow response becomes {wanted}, and is {}", answer.status)
        })
    });
}

/// Says nothing at all, and is sent away before long.
pub fn silent_caller(scene: &mut Scene<'_>) {
    if !scene.model.is("timeouts.detection", "") {
        let connection = scene.main();
        scene.later(move || sent_away(connection, "a silent caller"));
    }
}

pub fn idle_caller(scene: &mut Scene<'_>) {
    if !scene.model.is("timeouts.idle", "") {
        let asked = scene.main().and_then(|mut connection| {
            connection.ask(&head("/idle"))?;
            Ok(connection)
        });
        scene.later(move || sent_away(asked, "an idle caller"));
    }
}

pub fn half_a_head(scene: &mut Scene<'_>) {
    if !scene.model.is("timeouts.request_header", "") {
        let begun = scene.main().and_then(|mut connection| {
            connection.send("GET /half HTTP/1.1\r\nHost: sh")?;
            Ok(connection)
        });
        scene.later(move || sent_away(begun, "a caller in the middle of its head"));
    }
}

/// Asks, and closes its sending side.
pub fn half_closed(scene: &mut Scene<'_>) {
    let cancelled = scene.model.is("client.half_close", "cancel");
    let asked = scene.main().and_then(|mut connection| {
        connection.send(head("/slow/1000") + "\r\n")?;
        connection.finish_sending();
        Ok(connection)
    });
    scene.later(move || {
        let answered = rest(asked).is_ok_and(|answer| answer.status == 200);
        said(answered != cancelled, || {
            format!("half-close cancels: {cancelled}, and was answered: {answered}")
        })
    });
}

/// The admin pages take note of callers that speak no HTTP, but only if the level is low.
pub fn log_line(scene: &mut Scene<'_>) {
    let address = scene.model.value("admin.listen").parse().expect("an address");
    let told = Connection::to(address).and_then(|mut connection| {
        connection.send("\u{1}\r\n\r\n")?;
        // Whatever it answers.
        let _ = connection.head();
        Ok(())
    });
    scene.expect("the admin port is there", told.is_ok());
    if scene.model.value("log").contains("tracecar::admin=debug") {
        scene.program.logs(LOG_LINE);
        *scene.log_lines += 1;
    }
}

/// What [`log_line`] provokes.
pub const LOG_LINE: &str = "an admin connection failed";

pub fn ready(scene: &mut Scene<'_>) {
    let model = scene.model;
    let hindered = !model.is("inbound~dead", "") && !model.is("admin.ready_needs_upstream", "false");
    let address = model.value("admin.listen").parse().expect("an address");
    let wanted = if hindered { 503 } else { 200 };
    let status = || {
        let answer = Connection::to(address).and_then(|mut connection| connection.ask(&head("/readyz")));
        answer.map_or(0, |answer| answer.status)
    };
    scene.expect(&format!("/readyz answers {wanted}"), eventually(|| status() == wanted));
}

pub fn tunnel(scene: &mut Scene<'_>) {
    let proxy = scene.model.value("outbound.proxy").parse().expect("an address");
    let wanted = if scene.model.is("outbound.connect_ports", "") { 200 } else { 403 };
    let callee = scene.places.name("delta");
    let status = Connection::to(proxy).and_then(|mut connection| {
        connection.send(format!("CONNECT {callee} HTTP/1.1\r\nHost: {callee}\r\n\r\n"))?;
        Ok(connection.response_head()?.0)
    });
    scene.expect(&format!("CONNECT is answered with {wanted}: {status:?}"), status == Ok(wanted));
}

fn head(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nHost: shop\r\n")
}

/// The answer to what was asked already.
fn rest(asked: Result<Connection, Failure>) -> Result<Answer, Failure> {
    let mut connection = asked?;
    let (status, headers) = connection.response_head()?;
    Ok(Answer { status, headers, body: String::new() })
}

fn sent_away(connection: Result<Connection, Failure>, who: &str) -> Result<(), String> {
    let begun = Instant::now();
    let mut connection = connection?;
    // It may be told why.
    while let Ok(Some(_)) = connection.head() {}
    let took = begun.elapsed();
    said(took < SOON, || format!("{who} is sent away within {SOON:?}, and was after {took:?}"))
}

fn said(so: bool, otherwise: impl Fn() -> String) -> Result<(), String> {
    if so { Ok(()) } else { Err(otherwise()) }
}

/// Whether it comes to be so before long.
pub fn eventually(mut so: impl FnMut() -> bool) -> bool {
    let begun = Instant::now();
    loop {
        if so() {
            return true;
        }
        if begun.elapsed() > SOON {
            return false;
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}
