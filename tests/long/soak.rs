//! Traffic of every kind, much of it broken, for a while; and then everything is where it began, and every request
//! has one record.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use crate::outage::memory;
use crate::support::PATIENCE;
use crate::support::collector::{Collector, Protocol};
use crate::support::origin::{Origin, Peer};
use crate::support::program::{File, Program, Start};
use crate::{alone, phase};

/// More than the buffers of both sockets hold.
const BIG: usize = 4 << 20;

const CALLERS: usize = 8;

/// One visit of a caller: what it does, and how many records that leaves.
type Visit = (&'static str, u64, fn(&Place));

/// Where a caller is.
struct Place {
    address: SocketAddr,
    number: usize,
    /// Says when a request of this caller has come through to the origin.
    arrives: Receiver<()>,
}

const VISITS: [Visit; 16] = [
    ("ordinary requests on one connection", 3, ordinary),
    ("two requests at once", 2, pipelined),
    ("a big upload", 1, upload),
    ("a big download", 1, download),
    ("a slow reader", 1, slow_reader),
    ("a stream of events", 1, events),
    ("an upgrade", 1, upgrade),
    ("an upgrade that ends with a reset", 1, upgrade_reset),
    ("half-close after the request", 1, half_close),
    ("a reset before the response", 1, reset_before),
    ("a reset in the middle of the response", 1, reset_during),
    ("a reset in the middle of an upload", 1, reset_upload),
    ("garbage", 1, garbage),
    ("an origin that resets", 1, origin_resets),
    ("an origin that breaks off", 1, origin_breaks),
    ("a connection without a word", 0, silence),
];

#[test]
fn after_traffic_of_every_kind_everything_is_where_it_began() {
    let _alone = alone();
    let (arrived, arrives): (Vec<Sender<()>>, Vec<_>) = (0..CALLERS).map(|_| channel()).unzip();
    let arrived = Mutex::new(arrived);
    let arrived = move |caller: usize| {
        // A caller that has left does not listen.
        let _ = arrived.lock().expect("nobody panics with it")[caller].send(());
    };
    let origin = Origin::new(move |peer| serve(peer, &arrived));
    let runtime = Runtime::new().expect("threads can be started");
    let mut collector = runtime.block_on(Collector::start(Protocol::Http));
    let file = File::new(&format!(
        "service: {{ name: soaked }}\ninbound: [{{ listen: '127.0.0.1:0', to: '{}' }}]\n\
         admin: {{ listen: '127.0.0.1:0' }}\ntimeouts: {{ upstream_idle: 1s }}\n\
         export: {{ otlp: {{ endpoint: 'http://{}', queue: {{ schedule_delay: 500ms }} }} }}",
        origin.url(),
        collector.address,
    ));
    let program = Start::new(["run", "--config", file.name()]).run();

    // One request goes first, so that what is opened once is open.
    let (_, nobody) = channel();
    ordinary(&Place { address: program.address, number: 0, arrives: nobody });
    runtime.block_on(collector.next());
    idle(&program);
    let (descriptors, memory_before) = (descriptors(&program), memory(&program));

    let (expected, visits) = (Arc::new(AtomicU64::new(3)), Arc::new(AtomicU64::new(0)));
    let begun = Instant::now();
    let length = phase();
    let callers: Vec<_> = arrives
        .into_iter()
        .enumerate()
        .map(|(number, arrives)| {
            let place = Place { address: program.address, number, arrives };
            let (expected, visits) = (expected.clone(), visits.clone());
            std::thread::spawn(move || {
                for (what, records, visit) in VISITS.iter().cycle().skip(number) {
                    if begun.elapsed() >= length {
                        return;
                    }
                    let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| visit(&place)));
                    assert!(outcome.is_ok(), "{what} went wrong");
                    expected.fetch_add(*records, Ordering::Relaxed);
                    visits.fetch_add(1, Ordering::Relaxed);
                }
            })
        })
        .collect();
    for caller in callers {
        caller.join().expect("every visit goes as it should");
    }

    let expected = expected.load(Ordering::Relaxed);
    let page = idle(&program);
    println!(
        "soak of {length:?}: {} visits, {expected} records, memory {memory_before} before and {} after",
        visits.load(Ordering::Relaxed),
        memory(&program)
    );
    let outcomes: Vec<_> = page
        .named("tracecar_exchanges_total")
        .filter(|(_, count)| *count > 0.0)
        .map(|(labels, count)| format!("{} {count}", labels["outcome"]))
        .collect();
    println!("soak: {}", outcomes.join(", "));
    assert_eq!(page.count("tracecar_records_total"), expected, "one record per request: {outcomes:?}");
    assert_eq!(page.count("tracecar_exchanges_total"), expected, "and every record was read");
    assert_eq!(page.count("tracecar_panics_total"), 0);
    assert_eq!(page.count("tracecar_records_dropped_total"), 0);
    eventually("the spans are exported", || {
        while collector.next_now().is_some() {}
        program.metrics().count("tracecar_export_spans_exported_total") == expected
    });
    eventually("descriptors are as at the beginning", || self::descriptors(&program) <= descriptors);
    program.terminate();
    assert_eq!(program.ended().code(), Some(0));
}

/// Waits until nothing is going on any more, and returns the page that says so.
fn idle(program: &Program) -> crate::support::page::Page {
    let still = |page: &crate::support::page::Page| {
        page.count("tracecar_connections_open") == 0 && page.count("tracecar_requests_active") == 0
    };
    eventually("no connection and no request is open", || still(&program.metrics()));
    program.metrics()
}

/// Descriptors of the program; 0 where the system does not tell.
fn descriptors(program: &Program) -> usize {
    std::fs::read_dir(format!("/proc/{}/fd", program.id())).map_or(0, Iterator::count)
}

fn eventually(what: &str, mut done: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// The service: does what the path says.
fn serve(peer: &mut Peer, arrived: &dyn Fn(usize)) {
    while let Some(head) = peer.head() {
        let mut words = head.split(' ').nth(1).unwrap_or_default().split('/').skip(1);
        let (what, caller) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let caller = caller.parse().unwrap_or_default();
        match what {
            "upload" => {
                peer.exactly(BIG);
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
            "download" => {
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n"));
                peer.send(vec![b'x'; BIG]);
            }
            "events" => {
                peer.send(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
                );
                (0..10).for_each(|_| peer.send("9\r\ndata: 1\n\n\r\n"));
                peer.send("0\r\n\r\n");
            }
            "upgrade" => {
                peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
                while let Some(line) = peer.line() {
                    peer.send(line);
                }
                return;
            }
            "silence" => {
                arrived(caller);
                let _ = peer.rest();
                return;
            }
            "half" => {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
                let _ = peer.rest();
                return;
            }
            "reset" => {
                socket2::SockRef::from(&peer.stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
                return;
            }
            "break" => {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
                return;
            }
            _ => peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        }
    }
}

impl Place {
    fn connect(&self) -> Peer {
        Peer::connect(self.address)
    }

    fn ask(&self, what: &str) -> Peer {
        let mut peer = self.connect();
        peer.send(format!("GET /{what}/{} HTTP/1.1\r\nHost: shop\r\n\r\n", self.number));
        peer
    }
}

fn ordinary(place: &Place) {
    let mut peer = place.connect();
    for _ in 0..3 {
        peer.send("GET /ok HTTP/1.1\r\nHost: shop\r\n\r\n");
        assert_eq!(peer.response().text(), "ok");
    }
}

fn pipelined(place: &Place) {
    let mut peer = place.connect();
    peer.send("GET /ok HTTP/1.1\r\nHost: shop\r\n\r\nGET /ok HTTP/1.1\r\nHost: shop\r\n\r\n");
    assert_eq!((peer.response().text(), peer.response().text()), ("ok".to_owned(), "ok".to_owned()));
}

fn upload(place: &Place) {
    let mut peer = place.connect();
    peer.send(format!("POST /upload HTTP/1.1\r\nHost: shop\r\nContent-Length: {BIG}\r\n\r\n"));
    peer.send(vec![b'x'; BIG]);
    assert_eq!(peer.response().status(), 200);
}

fn download(place: &Place) {
    assert_eq!(place.ask("download").response().body.len(), BIG);
}

fn slow_reader(place: &Place) {
    let mut peer = place.ask("download");
    peer.head().expect("a response head");
    for _ in 0..16 {
        peer.exactly(BIG / 16);
        // Slower than the origin is what this caller is about.
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn events(place: &Place) {
    let mut peer = place.ask("events");
    peer.head().expect("a response head");
    assert_eq!(peer.chunks().expect("a whole body").len(), 90);
}

fn upgraded(place: &Place) -> Peer {
    let mut peer = place.connect();
    peer.send("GET /upgrade HTTP/1.1\r\nHost: shop\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
    assert!(peer.head().expect("a response head").starts_with("HTTP/1.1 101"));
    peer.send("hello\n");
    assert_eq!(peer.line().as_deref(), Some("hello\n"));
    peer
}

fn upgrade(place: &Place) {
    let mut peer = upgraded(place);
    peer.finish_sending();
    assert_eq!(peer.rest().expect("the other side closes too"), b"");
}

fn upgrade_reset(place: &Place) {
    upgraded(place).reset();
}

fn half_close(place: &Place) {
    let mut peer = place.ask("ok");
    peer.finish_sending();
    assert_eq!(peer.response().text(), "ok");
}

fn reset_before(place: &Place) {
    let peer = place.ask("silence");
    place.arrives.recv_timeout(PATIENCE).expect("the request arrives");
    peer.reset();
}

fn reset_during(place: &Place) {
    let mut peer = place.ask("half");
    peer.head().expect("a response head");
    assert_eq!(peer.exactly(4), b"half");
    peer.reset();
}

fn reset_upload(place: &Place) {
    let mut peer = place.connect();
    peer.send(format!(
        "POST /silence/{} HTTP/1.1\r\nHost: shop\r\nContent-Length: 100\r\n\r\nhalf",
        place.number
    ));
    place.arrives.recv_timeout(PATIENCE).expect("the request arrives");
    peer.reset();
}

fn garbage(place: &Place) {
    let mut peer = place.connect();
    peer.send("\u{16}\u{3}\u{1} garbage\r\n\r\n");
    assert!(peer.head().expect("an answer").starts_with("HTTP/1.1 400"));
}

fn origin_resets(place: &Place) {
    let mut peer = place.connect();
    peer.send("POST /reset HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(peer.response().status(), 502);
}

fn origin_breaks(place: &Place) {
    let mut peer = place.ask("break");
    peer.head().expect("a response head");
    let _ = peer.rest();
}

fn silence(place: &Place) {
    drop(place.connect());
}
