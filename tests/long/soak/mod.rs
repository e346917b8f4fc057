//! Traffic of every kind, much of it broken, for a while; and then everything is where it began, and every request has
//! one span.
//!
//! Callers make one visit after the other. A visit is of a kind (`visits`), and of each kind it is known which requests it
//! makes, in which ways they may end, and which counters it raises: so all that the program tells can be foretold from how
//! often each visit was made. The number of its kind is in the path of every request, by which its span is known.

mod account;
mod footprint;
mod framed;
mod grpc;
mod http1;
mod place;
mod secured;
mod service;
mod slow;
mod visits;

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tokio::runtime::Runtime;

use self::account::Account;
use self::footprint::Footprint;
use self::place::{Clients, Doors, Place};
use self::service::{Arrived, Dying};
use self::visits::{QUICK, SLOW};
use crate::support::PATIENCE;
use crate::support::collector::{Collector, Protocol};
use crate::support::origin::{Nowhere, Origin};
use crate::support::page::Page;
use crate::support::pki::Pki;
use crate::support::program::{File, Program, Start};
use crate::{alone, length};

/// Some times what a connection has on its way at once.
const BIG: usize = 4 << 20;

/// Callers that make quick visits; each slow visit has one of its own.
const CALLERS: usize = 8;

/// In seconds.
const LENGTH: u64 = 600;

/// Where caches are still being filled, growth says nothing.
const LONG_ENOUGH: Duration = Duration::from_secs(300);

/// What resident memory may grow by from half time to the end, in KiB.
const GROWTH: u64 = 1024;

#[test]
fn after_traffic_of_every_kind_everything_is_where_it_began() {
    let _alone = alone();
    let length = length(LENGTH);
    let mut scene = Scene::new();
    let settling = (length / 20).clamp(Duration::from_secs(2), Duration::from_secs(15));

    // One of each goes first, so that what is opened once is open.
    scene.rehearse();
    scene.idle();
    let beginning = Footprint::settled(&scene.program, settling);
    println!("soak: at the beginning {beginning}");

    let begun = Instant::now();
    scene.traffic(begun, length / 2);
    scene.idle();
    let half = Footprint::settled(&scene.program, settling);
    println!("soak: at half time, at rest: {half}");
    scene.traffic(begun, length / 2);
    let page = scene.idle();
    let end = Footprint::settled(&scene.program, settling);
    println!("soak: at the end, at rest: {end}");

    let made = scene.made.iter().map(|made| made.load(Ordering::Relaxed)).collect();
    scene.account.gather(&mut scene.collector);
    scene.account.balance(made, &page, length);
    // Threads for what may block stay for ten seconds.
    let mut now = end;
    eventually_or(
        || {
            now = Footprint::of(&scene.program);
            now.descriptors <= beginning.descriptors
                && now.threads <= beginning.threads
                && now.asking <= footprint::ASKING
        },
        || {
            let (descriptors, threads) =
                (footprint::descriptors(&scene.program), footprint::threads(&scene.program));
            format!("all is as at the beginning, {beginning}: {descriptors:#?} {threads:#?}")
        },
    );
    println!("soak: then {now}");
    println!(
        "soak: from half time to the end {} KiB more resident, {} KiB more allocated",
        end.resident as i64 - half.resident as i64,
        end.allocated as i64 - half.allocated as i64,
    );
    if length >= LONG_ENOUGH {
        assert!(
            end.resident < half.resident + GROWTH,
            "memory does not grow: {half} at half time, {end} at the end"
        );
    }
    scene.program.terminate();
    assert_eq!(scene.program.ended().code(), Some(0));
}

/// The program, and all that is around it.
struct Scene {
    program: Program,
    _file: File,
    _dying: Dying,
    collector: Collector,
    account: Account,
    doors: Arc<Doors>,
    /// One for each caller, while it is not calling.
    arrives: Vec<Receiver<()>>,
    /// How often each visit was made.
    made: Arc<Vec<AtomicU64>>,
    // Goes last, for all of the above runs on it.
    _runtime: Runtime,
}

impl Scene {
    fn new() -> Self {
        let (arrived, arrives): (Vec<Sender<()>>, Vec<_>) =
            (0..CALLERS + SLOW.len()).map(|_| channel()).unzip();
        let arrived = Mutex::new(arrived);
        let arrived: Arrived = Arc::new(move |caller| {
            // A caller that has left does not listen.
            let _ = arrived.lock().expect("nobody panics with it")[caller].send(());
        });
        let told = arrived.clone();
        let origin = Origin::new(move |peer| service::serve(peer, &told));
        let dying = Dying::new();
        let runtime = Runtime::new().expect("threads can be started");
        let grpc = runtime.block_on(service::grpc(arrived.clone()));
        // By itself, for what it does ends all streams of its connection.
        let losing = runtime.block_on(service::grpc(arrived));
        let collector = runtime.block_on(Collector::start(Protocol::Http));
        let (ours, others) = (Pki::new("ours"), Pki::new("others"));
        let tls = format!("certificates: [{}]", ours.pair("shop", "shop.example"));
        let clients = format!("client_auth: required, client_ca: '{}'", ours.ca().display());
        let file = File::new(&format!(
            "service: {{ name: soaked }}\n\
             inbound:\n\
             - {{ listen: '127.0.0.1:0', to: '{to}' }}\n\
             - {{ listen: '127.0.0.1:0', to: '{to}', tls: {{ {tls} }} }}\n\
             - {{ listen: '127.0.0.1:0', to: '{to}', tls: {{ {tls}, {clients} }} }}\n\
             - {{ listen: '127.0.0.1:0', to: '{to}', proxy_protocol: {{ from: [127.0.0.0/8] }} }}\n\
             - {{ listen: '127.0.0.1:0', to: 'http://{dying}' }}\n\
             - {{ listen: '127.0.0.1:0', to: 'h2c://{grpc}' }}\n\
             - {{ listen: '127.0.0.1:0', to: 'h2c://{losing}' }}\n\
             outbound: {{ proxy: '127.0.0.1:0' }}\n\
             admin: {{ listen: '127.0.0.1:0' }}\n\
             exclude: {{ rules: [{{ path: /healthz }}] }}\n\
             timeouts: {{ detection: 2s, tls_handshake: 2s, request_header: 2s, request_body: 2s, idle: 3s,\n\
             \x20 response_header: 3s, response_body: 2s, response_send: 2s, tunnel: 2s, upstream_idle: 1s }}\n\
             export: {{ otlp: {{ endpoint: 'http://{}', queue: {{ schedule_delay: 500ms }} }} }}",
            collector.address,
            to = origin.url(),
            dying = dying.address,
        ));
        let mut program = Start::new(["run", "--config", file.name()]).begin();
        // Each listener is announced, in the order of the file.
        let next = || program.announced("passing requests on", "listen=");
        let [plain, tls, certified, proxied, dies, streams, loses] = std::array::from_fn(|_| next());
        program.admin = program.announced("metrics and health", "admin=");
        let doors = Doors {
            plain,
            tls,
            certified,
            proxied,
            dying: dies,
            grpc: streams,
            losing: loses,
            proxy: program.announced("as a forward proxy", "listen="),
            origin: origin.address,
            nowhere: Nowhere::new(),
            clients: Clients::new(&ours, &others),
            runtime: runtime.handle().clone(),
        };
        Self {
            program,
            _file: file,
            _dying: dying,
            collector,
            account: Account::default(),
            doors: Arc::new(doors),
            arrives,
            made: Arc::new(visits::all().map(|_| AtomicU64::new(0)).collect()),
            _runtime: runtime,
        }
    }

    fn place(&mut self, number: usize) -> Place {
        let (_, nobody) = channel();
        let arrives = std::mem::replace(&mut self.arrives[number], nobody);
        Place { doors: self.doors.clone(), number, visit: Cell::new(0), arrives }
    }

    /// Makes one visit of each quick kind.
    fn rehearse(&mut self) {
        let place = self.place(0);
        for (number, visit) in QUICK.iter().enumerate() {
            place.visit.set(number);
            (visit.go)(&place);
            self.made[number].fetch_add(1, Ordering::Relaxed);
        }
        self.arrives[0] = place.arrives;
    }

    /// All callers, for so long; `begun` is when the first of them came.
    fn traffic(&mut self, begun: Instant, time: Duration) {
        let (until, stop) = (Instant::now() + time, Arc::new(AtomicBool::new(false)));
        let mut callers = Vec::new();
        for number in 0..CALLERS + SLOW.len() {
            let place = self.place(number);
            let (made, stop) = (self.made.clone(), stop.clone());
            callers.push(std::thread::spawn(move || {
                call(&place, &made, || stop.load(Ordering::Relaxed) || Instant::now() >= until, &stop);
                place.arrives
            }));
        }
        let every = (time / 5).clamp(Duration::from_secs(1), Duration::from_secs(60));
        let mut look = Instant::now() + every;
        while !callers.iter().all(std::thread::JoinHandle::is_finished) {
            self.account.gather(&mut self.collector);
            if Instant::now() >= look {
                look += every;
                println!("soak: after {:>3} s {}", begun.elapsed().as_secs(), Footprint::of(&self.program));
            }
            std::thread::sleep(Duration::from_millis(100));
        }
        let ended: Vec<_> = callers.into_iter().map(std::thread::JoinHandle::join).collect();
        if stop.load(Ordering::Relaxed) {
            std::thread::sleep(Duration::from_secs(1));
            self.account.gather(&mut self.collector);
            panic!("a visit went wrong; spans that ended as none should:\n{}", self.account.strange());
        }
        self.arrives = ended.into_iter().map(|caller| caller.expect("nothing went wrong")).collect();
    }

    /// Waits until nothing is going on any more and all spans are exported, and returns the page that says so.
    fn idle(&mut self) -> Page {
        let still = |page: &Page| {
            let open = [
                "connections_open",
                "requests_active",
                "calls_active",
                "export_spans_queued",
                "sentry_queued",
            ];
            open.iter().all(|name| page.count(&format!("tracecar_{name}")) == 0)
                && page.count("tracecar_records_total") == page.count("tracecar_export_spans_exported_total")
        };
        eventually("nothing is open, and every record is exported", || still(&self.program.metrics()));
        self.account.gather(&mut self.collector);
        self.program.metrics()
    }
}

/// Makes visits until it is over. One that goes wrong ends it for all.
fn call(place: &Place, made: &[AtomicU64], over: impl Fn() -> bool, stop: &AtomicBool) {
    let numbers: Vec<usize> = match place.number.checked_sub(CALLERS) {
        Some(slow) => vec![QUICK.len() + slow],
        None => {
            let first = QUICK.len() * place.number / CALLERS;
            (first..QUICK.len()).chain(0..first).collect()
        }
    };
    for number in numbers.into_iter().cycle() {
        if over() {
            return;
        }
        let visit = visits::all().nth(number).expect("it is one of them");
        place.visit.set(number);
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| (visit.go)(place)));
        if outcome.is_err() {
            stop.store(true, Ordering::Relaxed);
            panic!("{} went wrong", visit.what);
        }
        made[number].fetch_add(1, Ordering::Relaxed);
    }
}

fn eventually(what: &str, done: impl FnMut() -> bool) {
    eventually_or(done, || what.to_owned());
}

fn eventually_or(mut done: impl FnMut() -> bool, what: impl Fn() -> String) {
    let begun = Instant::now();
    while !done() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {}", what());
        std::thread::sleep(Duration::from_millis(50));
    }
}
