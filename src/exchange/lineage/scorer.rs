//! How often is it right? Simulated apps that forward nothing, with the truth known.
//!
//! Clients keep N requests in flight, with hardly a pause between them (the hardest case: a service that is never idle shows no
//! background calls). Each request has a unique id in its path and makes three calls, in turn or all at once, with the
//! id in the path of the call or without any. *Mixed* adds calls that no request caused (a twentieth of all; half of them to a
//! destination that requests also call, half of them by a thread of a worker) and, for a twentieth of the requests, a call up to two
//! seconds after the answer. A parent given to a call of nobody is wrong.
//!
//! `cargo test --lib lineage::scorer -- --nocapture` prints the table.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap};
use std::fmt::Write as _;
use std::time::Duration;

use http::HeaderMap;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::tests::{Moved, lineage, uuid, whose};
use super::*;

const REQUESTS: u64 = 4000;
const MICROSECOND: u64 = 1_000;
const MILLISECOND: u64 = 1_000_000;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum App {
    /// One process, a thread per request.
    Threads,
    /// A process per request in flight.
    Prefork,
    /// One process; the calls of a request go out at once.
    Async,
}

#[derive(Clone, Copy, Debug)]
struct Run {
    app: App,
    in_flight: u64,
    ids: bool,
    mixed: bool,
}

#[derive(Clone, Debug, Default)]
struct Score {
    calls: u64,
    right: [u64; Method::ALL.len()],
    wrong: [u64; Method::ALL.len()],
    unknown: u64,
    nobodys: u64,
}

impl Score {
    fn right(&self) -> u64 {
        self.right.iter().sum()
    }

    fn wrong(&self) -> u64 {
        self.wrong.iter().sum()
    }

    fn share(&self, part: u64) -> f64 {
        part as f64 / self.calls as f64
    }

    /// Whether less than 0.5 % of what each method has decided is wrong.
    fn seldom_wrong(&self) -> bool {
        let mut tallies = self.right.iter().zip(&self.wrong);
        tallies.all(|(right, wrong)| *wrong == 0 || wrong * 200 < right + wrong)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Answered { number: usize },
    Arrives { client: u64 },
    Calls { request: u64, left: u64 },
    Ends { request: u64 },
    CallsLate { request: u64 },
    Background,
}

struct Simulation {
    run: Run,
    random: SmallRng,
    clock: Moved,
    lineage: Arc<Lineage>,
    rules: LineageRules,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    scheduled: u64,
    begun: u64,
    now: u64,
    /// The open ones and their clients, by the number of the request.
    open: HashMap<u64, (u64, OpenExchange)>,
    /// The calls that will be answered.
    answers: Vec<CallToken>,
    score: Score,
}

impl Simulation {
    fn new(run: Run) -> Self {
        let clock = Moved::new();
        Self {
            run,
            random: SmallRng::seed_from_u64(run.in_flight),
            lineage: lineage(&clock, None),
            clock,
            rules: LineageRules::default(),
            events: BinaryHeap::new(),
            scheduled: 0,
            begun: 0,
            // The service is at rest before the first request.
            now: 2000 * MILLISECOND,
            open: HashMap::new(),
            answers: Vec::new(),
            score: Score::default(),
        }
    }

    fn after(&mut self, nanoseconds: u64, event: Event) {
        self.scheduled += 1;
        self.events.push(Reverse((self.now + nanoseconds, self.scheduled, event)));
    }

    fn between(&mut self, least: u64, most: u64) -> u64 {
        self.random.random_range(least..most)
    }

    fn score(mut self) -> Score {
        for client in 0..self.run.in_flight {
            let first = self.between(0, 20 * MILLISECOND);
            self.after(first, Event::Arrives { client });
        }
        if self.run.mixed {
            self.after(0, Event::Background);
        }
        while let Some(Reverse((at, _, event))) = self.events.pop() {
            self.now = at;
            self.clock.set(Duration::from_nanos(at));
            self.happens(event);
        }
        self.score
    }

    fn happens(&mut self, event: Event) {
        match event {
            Event::Arrives { client } => self.arrives(client),
            Event::Answered { number } => self.lineage.call_answered(self.answers[number]),
            Event::Calls { request, left } => {
                let path =
                    if self.run.ids { format!("/items/{}", uuid(request)) } else { "/items".to_owned() };
                let client = self.open.get(&request).map(|(client, _)| *client);
                let pause = self.between(MILLISECOND, 10 * MILLISECOND);
                let destination = if left % 2 == 0 { "items:80" } else { "prices:80" };
                // Whoever makes one call after another waits for each, most of the time.
                self.asks(Some(request), client, &path, destination, pause / 10 * 8);
                if self.run.app == App::Async {
                    return;
                }
                let next =
                    if left > 1 { Event::Calls { request, left: left - 1 } } else { Event::Ends { request } };
                self.after(pause, next);
            }
            Event::Ends { request } => {
                let Some((client, exchange)) = self.open.remove(&request) else { return };
                drop(exchange);
                let pause = self.between(100 * MICROSECOND, 4 * MILLISECOND);
                self.after(pause, Event::Arrives { client });
                if self.run.mixed && self.random.random_ratio(1, 20) {
                    let late = self.between(MILLISECOND, 2000 * MILLISECOND);
                    self.after(late, Event::CallsLate { request });
                }
            }
            Event::CallsLate { request } => {
                let path =
                    if self.run.ids { format!("/items/{}", uuid(request)) } else { "/items".to_owned() };
                let client = self.between(0, self.run.in_flight);
                let answered = self.between(MILLISECOND, 10 * MILLISECOND);
                self.asks(Some(request), Some(client), &path, "items:80", answered);
            }
            Event::Background => {
                if self.begun >= REQUESTS {
                    return;
                }
                let job = self.between(1 << 40, 1 << 41);
                let path = if self.run.ids { format!("/items/{}", uuid(job)) } else { "/items".to_owned() };
                let destination = if self.random.random() { "items:80" } else { "jobs:80" };
                let in_a_worker: bool = self.random.random();
                let client = in_a_worker.then(|| self.random.random_range(0..self.run.in_flight));
                let answered = self.between(MILLISECOND, 10 * MILLISECOND);
                self.asks(None, client, &path, destination, answered);
                // A request takes about 20 ms and makes three calls.
                let mean = 20 * MILLISECOND * 20 / 3 / self.run.in_flight;
                let pause = self.between(mean / 10, mean * 2);
                self.after(pause, Event::Background);
            }
        }
    }

    fn arrives(&mut self, client: u64) {
        if self.begun == REQUESTS {
            return;
        }
        self.begun += 1;
        let request = self.begun;
        let path = format!("/orders/{}", uuid(request));
        let headers = HeaderMap::new();
        let seen = Seen { path: &path, query: None, headers: &headers, correlation: None };
        let exchange = self.lineage.open(&self.rules, whose(request), &seen);
        exchange.handed_over(address(1), address(10_000 + request as u16));
        self.open.insert(request, (client, exchange));
        let first = self.between(MILLISECOND, 10 * MILLISECOND);
        if self.run.app == App::Async {
            for left in 1..=3 {
                let jitter = self.between(0, MILLISECOND);
                self.after(first + jitter, Event::Calls { request, left });
            }
            let rest = self.between(5 * MILLISECOND, 15 * MILLISECOND);
            self.after(first + rest, Event::Ends { request });
        } else {
            self.after(first, Event::Calls { request, left: 3 });
        }
    }

    /// Makes a call, which is answered after some time, and scores the verdict. `client` is whose worker makes it; `None` is a process that serves nobody.
    fn asks(
        &mut self,
        truth: Option<u64>,
        client: Option<u64>,
        path: &str,
        destination: &str,
        answered: u64,
    ) {
        let headers = HeaderMap::new();
        let seen = Seen { path, query: None, headers: &headers, correlation: None };
        let mut call = Call { seen, destination, arrived_at: None, owner: None, body: None };
        let (process, serves): (_, Vec<u64>) = match (client, self.run.app) {
            (None, _) => (1, Vec::new()),
            (Some(client), App::Prefork) => {
                let served = self.open.iter().filter(|(_, (of, _))| *of == client);
                (2 + client as u32, served.map(|(request, _)| *request).collect())
            }
            (Some(_), App::Threads | App::Async) => (2, self.open.keys().copied().collect()),
        };
        let owner = self.lineage.undecided_connections(&self.rules, &call).map(|mut connections| {
            connections
                .iter_mut()
                .for_each(|connection| connection.socket = Some(connection.peer.port().into()));
            let (serves, elsewhere) = connections.into_iter().partition(|connection: &HandedOver| {
                serves.iter().any(|request| address(10_000 + *request as u16) == connection.peer)
            });
            Owner { process, serves, elsewhere }
        });
        call.owner = owner.as_ref();
        let verdict = self.lineage.find(&self.rules, &call);
        self.score.calls += 1;
        match (verdict, truth) {
            (Verdict::Unknown { call, .. }, truth) => {
                self.score.unknown += 1;
                self.score.nobodys += u64::from(truth.is_none());
                call.into_iter().for_each(|call| self.will_be_answered(call, answered));
            }
            (Verdict::Parent { whose: found, method, call, .. }, truth) => {
                self.will_be_answered(call, answered);
                let right = truth.is_some_and(|truth| found.span_id == whose(truth).span_id);
                let tally = if right { &mut self.score.right } else { &mut self.score.wrong };
                tally[method.place()] += 1;
            }
        }
    }
}

impl Simulation {
    fn will_be_answered(&mut self, call: CallToken, after: u64) {
        self.answers.push(call);
        self.after(after, Event::Answered { number: self.answers.len() - 1 });
    }
}

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

#[test]
fn unique_ids_are_always_right_and_with_all_else_mixed_in_few_are_wrong() {
    let mut table = String::from(
        "app      in flight  ids  mixed   calls   right  unknown (of nobody)   wrong   right by token/process/sole   wrong by token/process/sole\n",
    );
    let mut failures = Vec::new();
    for ids in [true, false] {
        for mixed in [false, true] {
            for app in [App::Threads, App::Prefork, App::Async] {
                for in_flight in [1, 4, 16, 64] {
                    let run = Run { app, in_flight, ids, mixed };
                    let score = Simulation::new(run).score();
                    let by = |tally: &[u64; 5]| format!("{}/{}/{}", tally[2], tally[3], tally[4]);
                    let _ = writeln!(
                        table,
                        "{:8} {in_flight:9}  {:3}  {:5}  {:6}  {:5.2}%  {:6.2}% {:11}  {:5.2}%   {:29}  {}",
                        format!("{app:?}"),
                        if ids { "yes" } else { "no" },
                        if mixed { "yes" } else { "no" },
                        score.calls,
                        100.0 * score.share(score.right()),
                        100.0 * score.share(score.unknown),
                        score.nobodys,
                        100.0 * score.share(score.wrong()),
                        by(&score.right),
                        by(&score.wrong),
                    );
                    let found_by_other_means = in_flight == 1 || app == App::Prefork;
                    if !mixed && score.wrong() > 0 {
                        failures.push(format!("{run:?}: nothing may be wrong"));
                    }
                    // Processes are watched before they decide.
                    let watched = if app == App::Prefork { habits::WATCHED_ENOUGH.into() } else { 0 };
                    let enough = score.right() + watched >= score.calls * 99 / 100;
                    if !mixed && (ids || found_by_other_means) && !enough {
                        failures.push(format!("{run:?}: 99 % must be right"));
                    }
                    if mixed && !score.seldom_wrong() {
                        failures.push(format!("{run:?}: less than 0.5 % of each method may be wrong"));
                    }
                }
            }
        }
    }
    println!("{table}");
    assert!(failures.is_empty(), "{}\n{table}", failures.join("\n"));
}
