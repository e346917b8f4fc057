//! What goes on while the configuration changes: requests at an even pace, streams, and calls out.
//!
//! Each of them has a thread, and none waits for another or for the test. Whatever is asked has a number in its path,
//! so that its span can be found.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, RwLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::http::{Connection, Failure, frame};

/// Requests per second.
pub const RATE: u32 = 1000;

/// Connections that the requests share.
const CONNECTIONS: u32 = 10;

/// Calls per second of each of the two ways out.
const CALLS: u32 = 20;

pub const WEBSOCKETS: u32 = 50;
pub const EVENT_STREAMS: u32 = 20;

/// Time between two messages of a WebSocket.
const MESSAGE: Duration = Duration::from_secs(1);

/// Traffic that goes on until it is stopped.
pub struct Traffic {
    stop: Arc<AtomicBool>,
    hub: Arc<Hub>,
    requests: Vec<JoinHandle<Vec<Sent>>>,
    calls: Vec<JoinHandle<Vec<Sent>>>,
    streams: Vec<JoinHandle<()>>,
}

/// What the callers share.
#[derive(Default)]
struct Hub {
    failures: Mutex<Vec<(Instant, String)>>,
    /// How often a connection was closed between two requests, which is no failure.
    reconnects: AtomicU64,
    messages: AtomicU64,
    events: AtomicU64,
    /// In microseconds.
    longest_echo: AtomicU64,
    longest_gap: AtomicU64,
}

/// One request or call that was answered.
#[derive(Clone, Debug)]
pub struct Sent {
    pub path: String,
    pub from: Instant,
    pub to: Instant,
    /// From when it was due.
    pub took: Duration,
}

/// All that became of it.
pub struct Outcome {
    pub requests: Vec<Sent>,
    pub calls: Vec<Sent>,
    pub failures: Vec<(Instant, String)>,
    pub reconnects: u64,
    pub messages: u64,
    pub events: u64,
    pub longest_echo: Duration,
    pub longest_gap: Duration,
}

/// Where the forward proxy is. Calls through it hold the lock, so that it can be moved between two of them.
pub type Moving = Arc<RwLock<SocketAddr>>;

impl Traffic {
    pub fn start(main: SocketAddr, proxy: &Moving, mapped: SocketAddr, callee: SocketAddr) -> Self {
        let (stop, hub) = (Arc::new(AtomicBool::new(false)), Arc::<Hub>::default());
        let spawn = |caller: Caller, pace: Pace| {
            let (stop, hub) = (stop.clone(), hub.clone());
            std::thread::spawn(move || caller.run(pace, &hub, &stop))
        };
        let begun = Instant::now();
        let interval = Duration::from_secs(1) * CONNECTIONS / RATE;
        let requests = (0..CONNECTIONS).map(|number| {
            let pace = Pace { first: begun + interval * number / CONNECTIONS, interval };
            let caller = Caller {
                to: Arc::new(RwLock::new(main)),
                target: String::new(),
                path: "/load",
                number: number.into(),
                step: CONNECTIONS.into(),
            };
            spawn(caller, pace)
        });
        let requests = requests.collect();
        let pace = || Pace { first: begun, interval: Duration::from_secs(1) / CALLS };
        let by_proxy = Caller {
            to: proxy.clone(),
            target: format!("http://{callee}"),
            path: "/call",
            number: 0,
            step: 1,
        };
        let by_mapping = Caller {
            to: Arc::new(RwLock::new(mapped)),
            target: String::new(),
            path: "/mapped",
            number: 0,
            step: 1,
        };
        let calls = vec![spawn(by_proxy, pace()), spawn(by_mapping, pace())];
        let mut streams = Vec::new();
        for number in 0..WEBSOCKETS {
            let (stop, hub) = (stop.clone(), hub.clone());
            streams.push(std::thread::spawn(move || {
                hub.note(websocket(main, number, &hub, &stop), || format!("WebSocket {number}"));
            }));
        }
        for number in 0..EVENT_STREAMS {
            let hub = hub.clone();
            streams.push(std::thread::spawn(move || {
                hub.note(events(main, number, &hub), || format!("event stream {number}"));
            }));
        }
        Self { stop, hub, requests, calls, streams }
    }

    /// Ends requests, calls and WebSockets; the services have to end the event streams.
    pub fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        let all = |callers: Vec<JoinHandle<Vec<Sent>>>| -> Vec<Sent> {
            callers.into_iter().flat_map(|caller| caller.join().expect("callers do not panic")).collect()
        };
        let (requests, calls) = (all(self.requests), all(self.calls));
        self.streams.into_iter().for_each(|stream| stream.join().expect("callers do not panic"));
        let hub = &*self.hub;
        let count = |number: &AtomicU64| number.load(Ordering::Relaxed);
        Outcome {
            requests,
            calls,
            failures: std::mem::take(&mut hub.failures.lock().expect("nobody panics with it")),
            reconnects: count(&hub.reconnects),
            messages: count(&hub.messages),
            events: count(&hub.events),
            longest_echo: Duration::from_micros(count(&hub.longest_echo)),
            longest_gap: Duration::from_micros(count(&hub.longest_gap)),
        }
    }
}

impl Hub {
    fn note<T>(&self, outcome: Result<T, Failure>, what: impl Fn() -> String) -> Option<T> {
        let told = |failure| {
            let text = format!("{}: {failure}", what());
            self.failures.lock().expect("nobody panics with it").push((Instant::now(), text));
        };
        outcome.map_err(told).ok()
    }
}

/// When requests are due.
struct Pace {
    first: Instant,
    interval: Duration,
}

/// Asks one question after the other.
struct Caller {
    to: Moving,
    /// What stands before the path in a request: nothing, unless it is for a proxy.
    target: String,
    path: &'static str,
    number: u64,
    step: u64,
}

impl Caller {
    fn run(mut self, pace: Pace, hub: &Hub, stop: &AtomicBool) -> Vec<Sent> {
        let mut kept: Option<(SocketAddr, Connection)> = None;
        let mut sent = Vec::new();
        let mut due = pace.first;
        while !stop.load(Ordering::Relaxed) {
            // This is the pace, not a wait for something to happen.
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let to = self.to.clone();
            let to = to.read().expect("nobody panics with it");
            let path = format!("{}/{}", self.path, self.number);
            let from = Instant::now();
            if hub.note(self.ask(*to, &mut kept, &path, hub), || self.path.to_owned()).is_some() {
                let now = Instant::now();
                sent.push(Sent { path, from, to: now, took: now.saturating_duration_since(due) });
            } else {
                kept = None;
            }
            self.number += self.step;
            due += pace.interval;
        }
        sent
    }

    fn ask(
        &self,
        to: SocketAddr,
        kept: &mut Option<(SocketAddr, Connection)>,
        path: &str,
        hub: &Hub,
    ) -> Result<(), Failure> {
        let mut connection = match kept.take() {
            Some((same, connection)) if same == to && !connection.ended() => connection,
            before => {
                hub.reconnects.fetch_add(u64::from(before.is_some()), Ordering::Relaxed);
                Connection::to(to)?
            }
        };
        let (target, number) = (&self.target, self.number + 1);
        let answer = connection.ask(&format!(
            "GET {target}{path} HTTP/1.1\r\nHost: shop\r\nUser-Agent: load/1\r\n\
             traceparent: 00-{number:032x}-{number:016x}-01\r\n"
        ))?;
        if answer.status != 200 {
            return Err(format!("answered with {}: {}", answer.status, answer.body.trim()));
        }
        if answer.body != answer.header("x-origin") || answer.body.is_empty() {
            return Err(format!("answered with another body: {:?}", answer.body));
        }
        if !answer.closes() {
            *kept = Some((to, connection));
        }
        Ok(())
    }
}

/// Says something every second, and hears the same.
fn websocket(to: SocketAddr, number: u32, hub: &Hub, stop: &AtomicBool) -> Result<(), Failure> {
    let mut connection = Connection::to(to)?;
    connection.send(format!(
        "GET /websocket/{number} HTTP/1.1\r\nHost: shop\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         traceparent: 00-{0:032x}-{0:016x}-01\r\n\r\n",
        number + 1
    ))?;
    let (status, _) = connection.response_head()?;
    if status != 101 {
        return Err(format!("answered with {status}"));
    }
    let mask = number.to_be_bytes();
    let mut due = Instant::now() + MESSAGE * number / WEBSOCKETS;
    for message in 0.. {
        // This is the pace of the messages.
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        due += MESSAGE;
        if stop.load(Ordering::Relaxed) {
            break;
        }
        let text = format!("message {message} of {number}");
        let sent = Instant::now();
        connection.send(frame(1, text.as_bytes(), Some(mask)))?;
        let (opcode, echo) = connection.frame()?;
        if (opcode, echo.as_slice()) != (1, text.as_bytes()) {
            return Err(format!("said {text:?}, heard {:?}", String::from_utf8_lossy(&echo)));
        }
        hub.messages.fetch_add(1, Ordering::Relaxed);
        hub.longest_echo.fetch_max(sent.elapsed().as_micros() as u64, Ordering::Relaxed);
    }
    connection.send(frame(8, &[3, 232], Some(mask)))?;
    let (opcode, _) = connection.frame()?;
    if opcode == 8 { Ok(()) } else { Err("no farewell".to_owned()) }
}

/// Listens until the service has no more to say, and misses nothing of it.
fn events(to: SocketAddr, number: u32, hub: &Hub) -> Result<(), Failure> {
    let mut connection = Connection::to(to)?;
    connection.send(format!(
        "GET /events/{number} HTTP/1.1\r\nHost: shop\r\ntraceparent: 00-{0:032x}-{0:016x}-01\r\n\r\n",
        number + 1
    ))?;
    let (status, _) = connection.response_head()?;
    if status != 200 {
        return Err(format!("answered with {status}"));
    }
    let mut last = Instant::now();
    let mut text = String::new();
    let mut expected = 0;
    loop {
        let size = usize::from_str_radix(connection.line()?.trim(), 16).map_err(|_| "no chunk size")?;
        let chunk = connection.exactly(size + 2)?;
        if size == 0 {
            return Ok(());
        }
        hub.longest_gap.fetch_max(last.elapsed().as_micros() as u64, Ordering::Relaxed);
        last = Instant::now();
        // One event may come in several chunks, and several in one.
        text += &String::from_utf8_lossy(&chunk[..size]);
        while let Some((event, rest)) = text.split_once("\n\n") {
            if event != format!("data: {expected}") {
                return Err(format!("event {expected} was expected, and {event:?} came"));
            }
            expected += 1;
            hub.events.fetch_add(1, Ordering::Relaxed);
            text = rest.to_owned();
        }
    }
}
