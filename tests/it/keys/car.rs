//! The program with a configuration of which one key changes.

use std::collections::VecDeque;
use std::fmt::Debug;
use std::hash::{BuildHasher, RandomState};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use serde_json::Value;

use super::peers::{self, FAR, SERVICE, echoed};
use crate::support::PATIENCE;
use crate::support::origin::{Message, Peer};
use crate::support::page::{self, Page};
use crate::support::program::{File, Program, Start};
use crate::support::service::call;

/// How often it is looked whether something has happened.
const TICK: Duration = Duration::from_millis(2);

/// What is said of a file that was read again already, by a program that watches it.
const NOTHING: &str = "nothing has changed";

/// What stands for the value of the key in a configuration.
const HOLE: &str = "<>";

/// What is said where a configuration says nothing else. Spans go to standard output, for that is soonest there.
const REST: [&str; 4] = [
    "service: { name: shop }",
    "inbound: [{ listen: 'LISTEN', to: 'http://SERVICE' }]",
    "admin: { listen: 'ADMIN' }",
    "export: { console: on }",
];

/// One key of the configuration.
#[derive(Clone)]
pub struct Key {
    path: &'static str,
    words: Vec<(&'static str, String)>,
}

impl Key {
    pub fn of(path: &'static str) -> Self {
        Self { path, words: Vec::new() }
    }

    /// Lets `word` stand for `meaning` in the configuration.
    pub fn word(mut self, word: &'static str, meaning: impl ToString) -> Self {
        self.words.push((word, meaning.to_string()));
        self
    }

    /// The program with this configuration, in which the key has that value. `<>` is where the value goes; LISTEN, ADMIN,
    /// PROXY and OTHER are addresses to listen on, SERVICE and FAR services that answer with what they are asked, and FOLDER
    /// is a folder that is empty at first.
    pub fn car(self, yaml: &str, value: &str) -> Car {
        let name = self.path.rsplit('.').next().expect("a path has an end");
        assert_eq!(yaml.matches(HOLE).count(), 1, "one value changes");
        assert!(yaml.contains(&format!("{name}: {HOLE}")), "{name} is what changes in {yaml}");
        let given = |line: &&str| {
            let section = line.split(':').next().expect("a line has a beginning");
            yaml.lines().any(|other| other.starts_with(&format!("{section}:")))
        };
        let mut template: String =
            REST.iter().filter(|line| !given(line)).map(|line| format!("{line}\n")).collect();
        template += yaml;
        template += "\n";
        let place = Place::new();
        let file = File::new("");
        let folder = file.path.parent().expect("a file is in a folder").join("folder");
        std::fs::create_dir(&folder).expect("it is new");
        let words = [
            ("LISTEN", place.listen.to_string()),
            ("ADMIN", place.admin.to_string()),
            ("PROXY", place.proxy.to_string()),
            ("OTHER", place.other.to_string()),
            ("SERVICE", SERVICE.address.to_string()),
            ("FAR", FAR.address.to_string()),
            ("FOLDER", folder.to_str().expect("a plain name").to_owned()),
        ];
        let words: Vec<_> = words.into_iter().chain(self.words).collect();
        let program = Start::new(["run", "--config", file.name()]);
        let write = |value: &str| write(&file.path, &template, &words, value);
        write(value);
        let car = Car {
            name,
            place,
            authorization: "",
            running: Some(program.begin()),
            unread: VecDeque::new(),
            template,
            words,
            file,
        };
        car.wait_until_it_listens();
        car
    }

    /// Sees, with the same eyes, the first of both with the first value, the second once the other value is applied, and the first
    /// again once that is taken back: what goes only one way is not live.
    pub fn live<T: PartialEq + Debug>(
        self,
        yaml: &str,
        values: [&str; 2],
        see: impl FnMut(&mut Car) -> T,
        expected: [T; 2],
    ) {
        self.seen(yaml, values, see, &expected, Duration::ZERO);
    }

    /// The same where it takes its time: where a listener closes, or something is tried again or remembered for a moment.
    pub fn live_in_time<T: PartialEq + Debug>(
        self,
        yaml: &str,
        values: [&str; 2],
        see: impl FnMut(&mut Car) -> T,
        expected: [T; 2],
    ) {
        self.seen(yaml, values, see, &expected, PATIENCE);
    }

    fn seen<T: PartialEq + Debug>(
        self,
        yaml: &str,
        values: [&str; 2],
        mut see: impl FnMut(&mut Car) -> T,
        expected: &[T; 2],
        patience: Duration,
    ) {
        assert_ne!(expected[0], expected[1], "what does not differ shows nothing");
        let path = self.path;
        let mut car = self.car(yaml, values[0]);
        for (turn, index) in [0, 1, 0].into_iter().enumerate() {
            if turn > 0 {
                car.apply(values[index]);
            }
            let until = Instant::now() + patience;
            let mut seen = see(&mut car);
            while seen != expected[index] && Instant::now() < until {
                std::thread::sleep(TICK);
                seen = see(&mut car);
            }
            assert_eq!(seen, expected[index], "turn {turn}, {path}: {}", values[index]);
        }
    }
}

/// Where a program listens. Each has a loopback address of its own, so that ports need not be found: nobody else has them.
#[derive(Clone, Copy)]
pub struct Place {
    pub listen: SocketAddr,
    pub admin: SocketAddr,
    pub proxy: SocketAddr,
    /// For whoever wants to be somewhere else.
    pub other: SocketAddr,
}

impl Place {
    fn new() -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let count = COUNT.fetch_add(1, Ordering::Relaxed);
        let process = std::process::id();
        // 127.0.0.0/16 is for everybody else.
        let parts = [1 + process / 250 % 250, process % 250, 1 + count % 250];
        let [b, c, d] = parts.map(|part| u8::try_from(part).expect("below 256"));
        let at = |port| SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, b, c, d)), port);
        Self { listen: at(8080), admin: at(9464), proxy: at(8081), other: at(8090) }
    }
}

/// The program, and what was not read of its output before it was started anew.
pub struct Car {
    /// The last part of the key's path.
    name: &'static str,
    pub place: Place,
    /// What whoever asks for a reload says of itself: nothing, or a whole line.
    pub authorization: &'static str,
    /// Always, but for the moment between two.
    running: Option<Program>,
    unread: VecDeque<String>,
    template: String,
    words: Vec<(&'static str, String)>,
    file: File,
}

impl Car {
    /// Gives the key another value. Returns what is said about it.
    pub fn apply(&mut self, value: &str) -> String {
        let before = std::fs::read_to_string(&self.file.path).expect("it is ours");
        write(&self.file.path, &self.template, &self.words, value);
        let after = std::fs::read_to_string(&self.file.path).expect("it is ours");
        assert_ne!(before, after, "something changes");
        let Some(answer) = self.reload() else {
            // The pages were to close, and it has seen for itself that the file is another.
            return String::new();
        };
        let said = answer.text();
        match answer.status() {
            200 => {
                let named = said.contains(self.name);
                assert!(named || said.contains(NOTHING), "{} is not in what has changed: {said}", self.name);
                said
            }
            _ => panic!("{value} is not applied: {} {said}", answer.head),
        }
    }

    /// Gives the key a value that cannot be used. Returns what is said about it; the value before stays in effect.
    pub fn refuses(&mut self, value: &str) -> String {
        write(&self.file.path, &self.template, &self.words, value);
        let answer = self.reload().expect("there are pages");
        match answer.status() {
            422 => answer.text(),
            _ => panic!("{value} is not refused: {} {}", answer.head, answer.text()),
        }
    }

    /// What is answered to the request to read the configuration again, if anybody is there to answer.
    fn reload(&self) -> Option<Message> {
        // The pages may be what has moved.
        let places = [self.place.admin, self.place.other];
        let mut peer = Peer::new(places.into_iter().find_map(|place| TcpStream::connect(place).ok())?);
        let token = self.authorization;
        peer.send(format!("POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n{token}\r\n"));
        Some(peer.response())
    }

    /// Ends it, and starts it with the file as it is.
    pub fn restart(&mut self) {
        self.stop();
        self.begin();
    }

    fn stop(&mut self) {
        let program = self.running.take().expect("it runs");
        program.terminate();
        let ended = program.ended();
        self.unread.extend(ended.stdout);
        assert_eq!(ended.status.code(), Some(0), "{:#?}", ended.stderr);
    }

    fn begin(&mut self) {
        self.running = Some(self.start().begin());
        self.wait_until_it_listens();
    }

    fn start(&self) -> Start {
        Start::new(["run", "--config", self.file.name()])
    }

    fn wait_until_it_listens(&self) {
        if self.template.contains("\nlog: ") {
            // It may say nothing. The pages come last.
            return until("it listens", || TcpStream::connect(self.place.admin).is_ok());
        }
        // All sockets are bound by then.
        self.program().logs("passing requests on");
    }

    /// The program that runs.
    pub fn program(&self) -> &Program {
        self.running.as_ref().expect("it runs")
    }

    pub fn metrics(&self) -> Page {
        Page::of(self.place.admin)
    }

    pub fn page(&self, path: &str) -> Message {
        page::read(self.place.admin, path)
    }

    /// The folder that FOLDER stands for.
    pub fn folder(&self) -> std::path::PathBuf {
        self.file.path.with_file_name("folder")
    }

    /// The next line of standard output.
    pub fn line(&mut self) -> String {
        self.unread.pop_front().unwrap_or_else(|| self.program().line())
    }

    /// The next span on standard output.
    pub fn span(&mut self) -> Value {
        let line = self.line();
        serde_json::from_str(&line).unwrap_or_else(|error| panic!("{error} in {line}"))
    }

    /// The next span of a call.
    pub fn span_of_call(&mut self) -> Value {
        loop {
            let span = self.span();
            if span["kind"] == "CLIENT" {
                return span;
            }
        }
    }

    /// Sends a request, with whole lines of further headers, and returns the answer.
    pub fn ask(&self, path: &str, headers: &str) -> Message {
        peers::ask(self.place.listen, "GET", path, headers)
    }

    /// Sends a request, and returns what the service was sent.
    pub fn sends(&self, path: &str, headers: &str) -> Message {
        echoed(&self.ask(path, headers))
    }

    /// A call through the forward proxy to `path` of the far service, and the answer.
    pub fn call(&self, path: &str, headers: &str) -> Message {
        call(self.place.proxy, &format!("http://{}{path}", FAR.address), headers)
    }

    /// The same, and what the far service was sent.
    pub fn calls(&self, path: &str, headers: &str) -> Message {
        let answer = self.call(path, headers);
        assert_eq!(answer.status(), 200, "{}", answer.text());
        echoed(&answer)
    }

    /// A request which causes a call: of the service itself, which forwards nothing but `header` and the content. Returns the span of
    /// the call.
    pub fn causes(&mut self, request: &str, header: &str, content: &str) -> Value {
        let headers = format!(
            "X-Through: {}\r\nX-With: {header}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n{request}",
            self.place.proxy,
            content.len()
        );
        let mut peer = Peer::connect(self.place.listen);
        peer.send(format!("POST /cause HTTP/1.1\r\nHost: shop\r\n{headers}\r\n{content}"));
        assert_eq!(peer.response().status(), 200);
        self.span_of_call()
    }
}

/// Writes the configuration with that value.
fn write(path: &Path, template: &str, words: &[(&str, String)], value: &str) {
    let template = template.replace(HOLE, value);
    let (mut text, mut rest) = (String::new(), template.as_str());
    // Once from left to right: what a word stands for is not looked at again.
    while let Some(begin) = rest.find(|char: char| char.is_ascii_uppercase()) {
        let end = rest[begin..].find(|char: char| !char.is_ascii_uppercase());
        let end = end.map_or(rest.len(), |length| begin + length);
        let known = words.iter().find(|(word, _)| *word == &rest[begin..end]);
        text += &rest[..begin];
        text += known.map_or(&rest[begin..end], |(_, meaning)| meaning);
        rest = &rest[end..];
    }
    text += rest;
    // At once: whoever watches the file must not see half of it.
    let new = path.with_extension("new");
    std::fs::write(&new, text).expect("it is ours");
    std::fs::rename(new, path).expect("it is ours");
}

/// An attribute of a span on standard output.
pub fn attribute(span: &Value, key: &str) -> String {
    match &span["attributes"][key] {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// Waits until `done` says so.
pub fn until(what: &str, mut done: impl FnMut() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !done() {
        assert!(Instant::now() < until, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(TICK);
    }
}

/// A value that nobody else has, in the form of a UUID.
pub fn unique() -> String {
    let half = || u128::from(RandomState::new().hash_one(0));
    uuid::Uuid::from_u128(half() << 64 | half()).to_string()
}

/// How long something takes that `ends` returns at the end of.
pub fn takes(ends: impl FnOnce()) -> Duration {
    let begun = Instant::now();
    ends();
    begun.elapsed()
}
