//! Each rule as a fact.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName};
use opentelemetry::trace::{SpanId, TraceId};

use super::*;

/// A clock that stands still until it is moved.
#[derive(Clone, Debug)]
pub(super) struct Moved {
    begun: Instant,
    nanoseconds: Arc<AtomicU64>,
}

impl Moved {
    pub(super) fn new() -> Self {
        Self { begun: Instant::now(), nanoseconds: Arc::new(AtomicU64::new(0)) }
    }

    pub(super) fn now(&self) -> Instant {
        self.begun + Duration::from_nanos(self.nanoseconds.load(Ordering::Relaxed))
    }

    /// Sets the time since the beginning; it never goes back.
    pub(super) fn set(&self, since: Duration) {
        self.nanoseconds.fetch_max(since.as_nanos() as u64, Ordering::Relaxed);
    }

    fn pass(&self, time: Duration) {
        self.nanoseconds.fetch_add(time.as_nanos() as u64, Ordering::Relaxed);
    }
}

/// A lineage whose time stands still.
pub(super) fn lineage(clock: &Moved, further: Option<Box<dyn Tier>>) -> Arc<Lineage> {
    Arc::new(Lineage::with_clock(Clock { moved: Some(clock.clone()) }, further))
}

pub(super) fn whose(number: u64) -> Whose {
    Whose {
        trace_id: TraceId::from(u128::from(number) << 64 | 1),
        span_id: SpanId::from(number),
        flags: 1,
        tracestate: None,
        route: Some("/r/{id}".into()),
        correlation: None,
    }
}

/// An id that nothing else has.
pub(super) fn uuid(number: u64) -> String {
    let scattered =
        u128::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835) ^ (0x5bd1_e995_u128 << 64);
    uuid::Uuid::from_u128(scattered).hyphenated().to_string()
}

/// One of everything, and what a test says of it.
struct Bench {
    clock: Moved,
    lineage: Arc<Lineage>,
    rules: LineageRules,
}

#[derive(Clone, Default)]
struct Says<'a> {
    path: &'a str,
    query: Option<&'a str>,
    headers: HeaderMap,
    correlation: Option<&'a str>,
    destination: &'a str,
    owner: Option<Owner>,
    arrived_at: Option<Instant>,
    body: Option<&'a str>,
}

impl<'a> Says<'a> {
    fn path(path: &'a str) -> Self {
        Self { path, destination: "other:80", ..Self::default() }
    }

    fn correlation(id: &'a str) -> Self {
        Self { correlation: Some(id), ..Self::path("/") }
    }

    fn header(mut self, name: &'static str, value: &str) -> Self {
        self.headers.append(name, value.parse().expect("a header"));
        self
    }

    fn seen(&self) -> Seen<'_> {
        Seen {
            path: self.path,
            query: self.query,
            headers: &self.headers,
            correlation: self.correlation.map(str::as_bytes),
        }
    }

    fn call(&self) -> Call<'_> {
        Call {
            seen: self.seen(),
            destination: self.destination,
            arrived_at: self.arrived_at,
            owner: self.owner.as_ref(),
            body: self.body.map(str::as_bytes),
        }
    }
}

impl Bench {
    fn new() -> Self {
        let clock = Moved::new();
        let rules = LineageRules { guess_after: Duration::ZERO, ..LineageRules::default() };
        Self { lineage: lineage(&clock, None), clock, rules }
    }

    /// With the settings of nobody who cannot wait.
    fn patient() -> Self {
        Self { rules: LineageRules::default(), ..Self::new() }
    }

    /// Without the guesses from who is there.
    fn exact() -> Self {
        let mut bench = Self::new();
        bench.rules.methods = vec![Method::Token, Method::Correlation];
        bench
    }

    fn open(&self, number: u64, says: &Says<'_>) -> OpenExchange {
        let open = self.lineage.open(&self.rules, whose(number), &says.seen());
        self.clock.pass(Duration::from_micros(1));
        open
    }

    fn verdict(&self, says: &Says<'_>) -> Verdict {
        self.clock.pass(Duration::from_micros(1));
        let verdict = self.lineage.find(&self.rules, &says.call());
        self.clock.pass(Duration::from_micros(1));
        verdict
    }

    /// Lets enough calls to that destination and enough time pass for it to be known.
    fn know(&self, destination: &str) {
        let call = Says { destination, ..Says::path("/x") };
        for _ in 0..16 {
            let _open = self.open(99, &Says::path("/"));
            assert_eq!(self.find(&call), Some((99, Method::Sole)));
        }
        self.pass(12 * SECOND);
    }

    /// The same while a stream is open, beside which no call is given away until then.
    fn know_beside(&self, _stream: &OpenExchange) {
        for _ in 0..16 {
            let _open = self.open(99, &Says::path("/"));
            self.find(&Says::path("/x"));
        }
        self.pass(12 * SECOND);
    }

    /// Lets enough calls to that destination be seen of a process that makes none by itself.
    fn watch(&self, destination: &str) {
        let _open = hand_over(self, 98);
        let call = Says { owner: owner(self, 98, &[98]), destination, ..Says::path("/watched/for/long") };
        for _ in 0..habits::WATCHED_ENOUGH {
            assert_eq!(self.find(&call), Some((98, Method::Sole)));
        }
        self.pass(12 * SECOND);
    }

    /// As many of these calls are given to nobody.
    fn unknown(&self, times: u32, says: &Says<'_>) {
        for _ in 0..times {
            assert_eq!(self.find(says), None);
        }
    }

    /// The number of the parent, and how it was found. The call is answered at once.
    fn find(&self, says: &Says<'_>) -> Option<(u64, Method)> {
        match self.verdict(says) {
            Verdict::Parent { whose, method, call, .. } => {
                self.lineage.call_answered(call);
                Some((number(&whose), method))
            }
            Verdict::Unknown { call, .. } => {
                call.into_iter().for_each(|call| self.lineage.call_answered(call));
                None
            }
        }
    }

    fn confidence(&self, says: &Says<'_>) -> f64 {
        match self.verdict(says) {
            Verdict::Parent { confidence, .. } => confidence,
            Verdict::Unknown { .. } => 0.0,
        }
    }

    fn pass(&self, time: Duration) {
        self.clock.pass(time);
    }
}

fn number(whose: &Whose) -> u64 {
    u64::from_be_bytes(whose.span_id.to_bytes())
}

const SECOND: Duration = Duration::from_secs(1);

// Correlation.

#[test]
fn a_forwarded_correlation_id_names_the_one_that_carries_it() {
    let bench = Bench::exact();
    let _a = bench.open(1, &Says::correlation("a"));
    let _b = bench.open(2, &Says::correlation("b"));
    assert_eq!(bench.find(&Says::correlation("b")), Some((2, Method::Correlation)));
    assert_eq!(bench.find(&Says::correlation("c")), None);
    assert_eq!(bench.find(&Says::path("/")), None);
}

#[test]
fn an_identity_header_is_compared_with_the_same_header_only() {
    let mut bench = Bench::exact();
    bench.rules.identity_headers = ["x-user", "x-tenant"].map(HeaderName::from_static).to_vec();
    let _a = bench.open(1, &Says::path("/").header("x-user", "7"));
    let _b = bench.open(2, &Says::path("/").header("x-user", "8"));
    assert_eq!(bench.find(&Says::path("/").header("x-user", "7")), Some((1, Method::Correlation)));
    assert_eq!(bench.find(&Says::path("/").header("x-tenant", "7")), None);
}

#[test]
fn ids_that_contradict_each_other_decide_nothing() {
    let mut bench = Bench::new();
    bench.rules.identity_headers = vec![HeaderName::from_static("x-user")];
    let _a = bench.open(1, &Says::correlation("a"));
    let _b = bench.open(2, &Says::path("/").header("x-user", "8"));
    let verdict = bench.verdict(&Says::correlation("a").header("x-user", "8"));
    let Verdict::Unknown { links, .. } = verdict else { panic!("{verdict:?}") };
    assert_eq!(links.iter().map(number).collect::<Vec<_>>(), [2, 1]);
}

#[test]
fn two_carriers_of_an_id_are_the_only_candidates_afterwards() {
    let bench = Bench::new();
    let id = uuid(1);
    let path = format!("/x/{id}");
    let _other = bench.open(1, &Says::path("/"));
    let _a = bench.open(2, &Says::correlation("same"));
    let _b = bench.open(3, &Says { path: &path, ..Says::correlation("same") });
    let _newest = bench.open(4, &Says::path("/"));
    let Verdict::Unknown { candidates, links, .. } = bench.verdict(&Says::correlation("same")) else {
        panic!("two carry it")
    };
    assert_eq!((candidates, links.iter().map(number).collect::<Vec<_>>()), (2, vec![3, 2]));
    let both = Says { path: &path, ..Says::correlation("same") };
    assert_eq!(bench.find(&both), Some((3, Method::Token)), "a token decides between them");
}

#[test]
fn an_exchange_that_ended_does_not_keep_an_open_one_with_its_id_from_being_found() {
    let bench = Bench::new();
    drop(bench.open(1, &Says::correlation("same")));
    let _b = bench.open(2, &Says::correlation("same"));
    let _other = bench.open(3, &Says::path("/"));
    assert_eq!(bench.find(&Says::correlation("same")), Some((2, Method::Sole)));
}

#[test]
fn an_id_that_a_crowd_carries_narrows_nothing_until_all_are_gone() {
    let bench = Bench::exact();
    let crowd: Vec<_> = (1..10).map(|number| bench.open(number, &Says::correlation("same"))).collect();
    assert_eq!(bench.find(&Says::correlation("same")), None);
    drop(crowd);
    bench.pass(6 * SECOND);
    let _one = bench.open(20, &Says::correlation("same"));
    assert_eq!(bench.find(&Says::correlation("same")), Some((20, Method::Correlation)));
}

#[test]
fn a_crowd_that_shrinks_and_grows_again_is_still_forgotten_when_it_is_gone() {
    let bench = Bench::exact();
    let mut crowd: Vec<_> = (1..8).map(|number| bench.open(number, &Says::correlation("same"))).collect();
    crowd.drain(..5);
    bench.pass(6 * SECOND);
    crowd.push(bench.open(9, &Says::correlation("same")));
    drop(crowd);
    bench.pass(6 * SECOND);
    assert_eq!(bench.lineage.figures().values, 0);
    assert_eq!(bench.lineage.lock().live.indexed_count(), 0);
}

// The tail.

#[test]
fn a_finished_exchange_is_found_for_the_tail_and_no_longer() {
    let bench = Bench::exact();
    drop(bench.open(1, &Says::correlation("a")));
    bench.pass(4 * SECOND);
    assert_eq!(bench.find(&Says::correlation("a")), Some((1, Method::Correlation)));
    assert!(bench.confidence(&Says::correlation("a")) < 0.99, "a parent that has ended is less certain");
    bench.pass(SECOND);
    assert_eq!(bench.find(&Says::correlation("a")), None);
}

#[test]
fn memory_is_given_back_when_the_tail_is_over_without_a_further_call() {
    let bench = Bench::new();
    drop(bench.open(1, &Says::path(&format!("/{}", uuid(1)))));
    assert_eq!((bench.lineage.figures().tail, bench.lineage.figures().values), (1, 2));
    bench.pass(5 * SECOND);
    assert_eq!((bench.lineage.figures().tail, bench.lineage.figures().values), (0, 0));
}

// Tokens.

#[test]
fn a_value_of_high_entropy_names_the_one_that_carries_it() {
    let bench = Bench::exact();
    let (a, b) = (uuid(1), uuid(2));
    let _a = bench.open(1, &Says::path(&format!("/orders/{a}")));
    let _b = bench.open(2, &Says::path(&format!("/orders/{b}")));
    assert_eq!(bench.find(&Says::path(&format!("/stock/{a}"))), Some((1, Method::Token)));
    let query = format!("of={b}");
    assert_eq!(bench.find(&Says { query: Some(&query), ..Says::path("/stock") }), Some((2, Method::Token)));
    assert_eq!(bench.find(&Says::path(&format!("/stock/{a}/again"))), Some((1, Method::Token)));
}

#[test]
fn credentials_and_cookies_are_tokens() {
    let bench = Bench::exact();
    let _a = bench.open(1, &Says::path("/").header("authorization", &format!("Bearer {}", uuid(1))));
    let _b = bench.open(2, &Says::path("/").header("cookie", &format!("a=b; session={}", uuid(2))));
    let basic = Says::path("/").header("authorization", &format!("Token {}", uuid(1)));
    assert_eq!(bench.find(&basic), Some((1, Method::Token)));
    assert_eq!(
        bench.find(&Says::path("/").header("cookie", &format!("s={}", uuid(2)))),
        Some((2, Method::Token))
    );
}

#[test]
fn chosen_fields_of_bodies_are_tokens() {
    let mut bench = Bench::exact();
    let body = format!(r#"{{"order": {{"id": "{}"}}}}"#, uuid(1));
    let open = bench.open(1, &Says::path("/"));
    open.reader().unwrap().read(&bench.rules, body.as_bytes());
    let call = format!("/{}", uuid(1));
    assert_eq!(bench.find(&Says::path(&call)), None, "no field is chosen");
    bench.rules.json_fields = vec!["id".to_owned()];
    let body = body.replace(&uuid(1), &uuid(2));
    open.reader().unwrap().read(&bench.rules, body.as_bytes());
    assert_eq!(bench.find(&Says { body: Some(&body), ..Says::path("/") }), Some((1, Method::Token)));
}

#[test]
fn two_tokens_of_different_exchanges_decide_nothing_then_or_later() {
    let bench = Bench::new();
    let _a = bench.open(1, &Says::path(&format!("/{}", uuid(1))));
    let _b = bench.open(2, &Says::path(&format!("/{}", uuid(2))));
    assert_eq!(bench.find(&Says::path(&format!("/{}/{}", uuid(1), uuid(2)))), None);
    assert_eq!(bench.find(&Says::path(&format!("/{}", uuid(1)))), None, "both are suspect now");
}

#[test]
fn a_token_of_one_outside_of_those_that_carry_the_id_decides_nothing() {
    let bench = Bench::new();
    let _a = bench.open(1, &Says::correlation("same"));
    let _b = bench.open(2, &Says::correlation("same"));
    let path = format!("/{}", uuid(3));
    let _c = bench.open(3, &Says::path(&path));
    assert_eq!(bench.find(&Says { path: &path, ..Says::correlation("same") }), None);
}

#[test]
fn a_value_that_two_live_exchanges_carry_decides_nothing_then_or_later() {
    let bench = Bench::exact();
    let path = format!("/{}", uuid(1));
    let a = bench.open(1, &Says::path(&path));
    let _b = bench.open(2, &Says::path(&path));
    assert_eq!(bench.find(&Says::path(&path)), None);
    drop(a);
    bench.pass(6 * SECOND);
    assert_eq!(bench.find(&Says::path(&path)), None, "it is known to be shared");
    assert_eq!(bench.lineage.figures().hot, 1);
}

#[test]
fn a_value_that_was_in_a_call_of_nobody_is_hot() {
    let bench = Bench::exact();
    let path = format!("/{}", uuid(1));
    assert_eq!(bench.find(&Says::path(&path)), None);
    let _a = bench.open(1, &Says::path(&path));
    assert_eq!(bench.find(&Says::path(&path)), None, "it was in a call before its exchange opened");
    bench.pass(Duration::from_secs(600));
    assert_eq!(bench.find(&Says::path(&path)), None, "for ten minutes at least");
}

#[test]
fn a_value_that_served_one_parent_serves_no_other() {
    let bench = Bench::exact();
    let path = format!("/{}", uuid(1));
    let a = bench.open(1, &Says::path(&path));
    assert_eq!(bench.find(&Says::path(&path)), Some((1, Method::Token)));
    drop(a);
    bench.pass(6 * SECOND);
    let _b = bench.open(2, &Says::path(&path));
    assert_eq!(bench.find(&Says::path(&path)), None);
}

#[test]
fn a_value_in_the_call_of_another_exact_parent_is_hot() {
    let bench = Bench::exact();
    let path = format!("/{}", uuid(1));
    let _a = bench.open(1, &Says::path(&path));
    let _b = bench.open(2, &Says::correlation("b"));
    let call = Says { path: &path, ..Says::correlation("b") };
    assert_eq!(bench.find(&call), Some((2, Method::Correlation)));
    assert_eq!(bench.find(&Says::path(&path)), None);
}

#[test]
fn a_forwarded_context_teaches_which_values_are_shared() {
    let bench = Bench::exact();
    let path = format!("/{}", uuid(1));
    let _a = bench.open(1, &Says::path(&path));
    let _b = bench.open(2, &Says::path("/"));
    let parent = whose(2);
    let noted =
        bench.lineage.note_header(&bench.rules, &Says::path(&path).call(), (parent.trace_id, parent.span_id));
    assert!(noted.is_some());
    assert_eq!(bench.find(&Says::path(&path)), None);
    assert_eq!(bench.lineage.figures().decided, [1, 0, 0, 0, 0]);
}

#[test]
fn a_forwarded_context_of_nobody_here_is_noted_too() {
    let bench = Bench::exact();
    let path = format!("/{}", uuid(1));
    let _a = bench.open(1, &Says::path(&path));
    let parent = whose(9);
    let noted =
        bench.lineage.note_header(&bench.rules, &Says::path(&path).call(), (parent.trace_id, parent.span_id));
    assert_eq!(noted, None);
    assert_eq!(bench.find(&Says::path(&path)), None);
}

#[test]
fn a_forwarded_context_is_told_from_a_span_that_the_app_made_in_the_same_trace() {
    let bench = Bench::exact();
    let mut ours = whose(1);
    ours.correlation = Some("a".parse().expect("a header"));
    let _a = bench.lineage.open(&bench.rules, ours.clone(), &Says::path("/").seen());
    let note = |span| bench.lineage.note_header(&bench.rules, &Says::path("/").call(), (ours.trace_id, span));
    let own = note(ours.span_id).expect("it is open");
    assert!(own.own_span);
    assert_eq!(own.whose, ours);
    let made = note(SpanId::from(77)).expect("its trace is");
    assert!(!made.own_span, "only the trace is ours");
    assert_eq!((made.whose, made.call.exchange), (ours.clone(), own.call.exchange));
}

#[test]
fn tokens_do_not_decide_where_the_method_is_off() {
    let mut bench = Bench::new();
    bench.rules.methods = vec![Method::Correlation];
    let path = format!("/{}", uuid(1));
    let _a = bench.open(1, &Says { correlation: Some("a"), ..Says::path(&path) });
    assert_eq!(bench.find(&Says::path(&path)), None);
    bench.rules.methods = vec![Method::Token];
    let _b = bench.open(2, &Says::path(&format!("/{}", uuid(2))));
    assert_eq!(bench.find(&Says::correlation("a")), None);
    assert_eq!(bench.find(&Says::path(&format!("/{}", uuid(2)))), Some((2, Method::Token)));
}

// Processes.

fn address(port: u16) -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], port))
}

/// Opens an exchange that is handed over to a port of its own.
fn hand_over(bench: &Bench, number: u64) -> OpenExchange {
    let open = bench.open(number, &Says::path("/"));
    open.handed_over(address(1), address(1000 + number as u16));
    open
}

/// A process that serves the exchanges that were handed over to these ports; others serve the others.
fn owner(bench: &Bench, process: u32, numbers: &[u64]) -> Option<Owner> {
    owner_beside(bench, process, numbers, |_| true)
}

/// The same, but others serve only those of `accepted`.
fn owner_beside(
    bench: &Bench,
    process: u32,
    numbers: &[u64],
    accepted: impl Fn(u64) -> bool,
) -> Option<Owner> {
    let number = |connection: &HandedOver| u64::from(connection.peer.port()) - 1000;
    let mut all =
        bench.lineage.undecided_connections(&bench.rules, &Says::path("/").call()).unwrap_or_default();
    all.iter_mut().for_each(|connection| connection.socket = Some(number(connection)));
    let (serves, mut elsewhere): (Vec<_>, Vec<_>) =
        all.into_iter().partition(|connection| numbers.contains(&number(connection)));
    elsewhere.retain(|connection| accepted(number(connection)));
    Some(Owner { process, serves, elsewhere })
}

#[test]
fn a_process_that_serves_one_exchange_calls_for_it() {
    let bench = Bench::new();
    bench.watch("other:80");
    let _open: Vec<_> = (1..4).map(|number| hand_over(&bench, number)).collect();
    let call = Says { owner: owner(&bench, 7, &[2]), ..Says::path("/") };
    assert_eq!(bench.find(&call), Some((2, Method::Process)));
    let several = Says { owner: owner(&bench, 8, &[2, 3]), ..Says::path("/") };
    assert_eq!(bench.find(&several), None, "threads of one process are not told apart");
    assert_eq!(bench.find(&call), None, "a service with such processes may serve some that are not seen");
    bench.pass(Duration::from_secs(60));
    bench.unknown(habits::WATCHED_ENOUGH - 1, &call);
    assert_eq!(bench.find(&call), Some((2, Method::Process)), "it was watched anew");
}

#[test]
fn a_worker_that_seems_to_do_two_things_at_once_speaks_against_the_process() {
    let bench = Bench::new();
    bench.watch("other:80");
    let _open = [hand_over(&bench, 1), hand_over(&bench, 2)];
    let first = Says { owner: owner(&bench, 7, &[1]), ..Says::path("/") };
    let Verdict::Parent { call, .. } = bench.verdict(&first) else { panic!("it serves one") };
    assert_eq!(bench.find(&first), None, "the worker waits for its answer, or the first was not its own");
    bench.lineage.call_answered(call);
    let second = Says { owner: owner(&bench, 8, &[2]), ..Says::path("/") };
    assert_eq!(bench.find(&second), None, "others do the same");
    bench.pass(Duration::from_secs(60));
    bench.unknown(habits::WATCHED_ENOUGH - 1, &second);
    assert_eq!(bench.find(&second), Some((2, Method::Process)), "they were watched anew");
}

#[test]
fn a_process_decides_only_after_many_calls_of_its_kind_were_watched() {
    let bench = Bench::new();
    let _open = [hand_over(&bench, 1), hand_over(&bench, 2)];
    let call = Says { owner: owner(&bench, 7, &[1]), ..Says::path("/") };
    bench.unknown(habits::WATCHED_ENOUGH, &call);
    assert_eq!(bench.find(&call), Some((1, Method::Process)));
    let elsewhere = Says { destination: "elsewhere:80", ..call };
    bench.unknown(16, &elsewhere);
    assert_eq!(bench.find(&elsewhere), Some((1, Method::Process)));
}

#[test]
fn that_a_worker_does_two_things_at_once_is_seen_also_while_it_is_only_watched() {
    let bench = Bench::new();
    let _open = [hand_over(&bench, 1), hand_over(&bench, 2)];
    let call = Says { owner: owner(&bench, 7, &[1]), ..Says::path("/") };
    bench.unknown(habits::WATCHED_ENOUGH - 1, &call);
    let Verdict::Unknown { call: Some(waits), .. } = bench.verdict(&call) else { panic!("it serves one") };
    assert_eq!(bench.find(&call), None, "it makes another before the answer to the first");
    bench.lineage.call_answered(waits);
    bench.pass(Duration::from_secs(59));
    assert_eq!(bench.find(&call), None, "within the window");
    bench.pass(SECOND);
    bench.unknown(habits::WATCHED_ENOUGH - 1, &call);
    assert_eq!(bench.find(&call), Some((1, Method::Process)));
}

#[test]
fn a_call_that_a_worker_still_waits_for_is_not_over_with_the_exchange_that_it_seemed_to_be_of() {
    let bench = Bench::new();
    bench.watch("other:80");
    let (first, _other) = (hand_over(&bench, 1), hand_over(&bench, 2));
    let of_a_thread = Says { owner: owner(&bench, 7, &[1]), ..Says::path("/") };
    let Verdict::Parent { call, .. } = bench.verdict(&of_a_thread) else { panic!("it serves one") };
    drop(first);
    let _next = hand_over(&bench, 3);
    let own = Says { owner: owner(&bench, 7, &[3]), ..Says::path("/") };
    assert_eq!(bench.find(&own), None, "one of both is not the request's");
    bench.lineage.call_answered(call);
    assert_eq!(bench.find(&own), None, "now it is known that there are such");
}

#[test]
fn that_a_process_serves_the_only_open_exchange_is_no_more_than_that_it_is_the_only_one() {
    let bench = Bench::new();
    bench.watch("other:80");
    let first = hand_over(&bench, 1);
    let call = Says { owner: owner(&bench, 7, &[1]), ..Says::path("/") };
    assert_eq!(bench.find(&call), Some((1, Method::Sole)));
    let second = hand_over(&bench, 2);
    let call = Says { owner: owner(&bench, 7, &[1]), ..Says::path("/") };
    assert_eq!(bench.find(&call), Some((1, Method::Process)));
    drop(second);
    assert_eq!(bench.find(&call), Some((1, Method::Process)), "processes have served beside each other");
    drop(first);
}

#[test]
fn exchanges_that_wait_to_be_accepted_are_neither_candidates_nor_linked() {
    let bench = Bench::new();
    let _open: Vec<_> = (1..6).map(|number| hand_over(&bench, number)).collect();
    let call = Says { owner: owner_beside(&bench, 7, &[1, 2], |number| number < 4), ..Says::path("/") };
    let Verdict::Unknown { candidates, links, .. } = bench.verdict(&call) else { panic!("it serves two") };
    assert_eq!((candidates, links.iter().map(number).collect::<Vec<_>>()), (3, vec![2, 1, 3]));
}

#[test]
fn what_was_accepted_once_is_not_asked_for_again_until_the_exchange_has_another_connection() {
    let bench = Bench::new();
    let open = hand_over(&bench, 1);
    let sockets = |bench: &Bench| -> Vec<_> {
        let asked = bench.lineage.undecided_connections(&bench.rules, &Says::path("/").call()).unwrap();
        asked.into_iter().map(|connection| connection.socket).collect()
    };
    assert_eq!(sockets(&bench), [None]);
    bench.find(&Says { owner: owner(&bench, 7, &[1]), ..Says::path("/") });
    assert_eq!(sockets(&bench), [Some(1)]);
    let before = owner(&bench, 7, &[1]);
    open.handed_over(address(1), address(1007));
    bench.find(&Says { owner: before, ..Says::path("/") });
    assert_eq!(sockets(&bench), [None], "the answer was about the first");
}

#[test]
fn an_exchange_that_opened_on_the_same_connection_since_is_not_meant() {
    let bench = Bench::new();
    bench.watch("other:80");
    let first = hand_over(&bench, 1);
    let _other = hand_over(&bench, 2);
    let call = Says { owner: owner(&bench, 7, &[1]), arrived_at: Some(bench.clock.now()), ..Says::path("/") };
    drop(first);
    let second = bench.open(3, &Says::path("/"));
    second.handed_over(address(1), address(1001));
    assert_eq!(bench.find(&call), Some((1, Method::Process)));
}

#[test]
fn a_worker_that_calls_while_it_serves_nothing_speaks_against_all_conclusions() {
    let bench = Bench::new();
    bench.watch("other:80");
    let _open = [hand_over(&bench, 1), hand_over(&bench, 2)];
    let served = Says { owner: owner(&bench, 7, &[1]), ..Says::path("/") };
    assert_eq!(bench.find(&served), Some((1, Method::Process)));
    let idle = Says {
        owner: Some(Owner { process: 7, serves: Vec::new(), elsewhere: Vec::new() }),
        ..Says::path("/")
    };
    assert_eq!(bench.find(&idle), None);
    assert_eq!(bench.find(&served), None, "within the window");
    bench.pass(Duration::from_secs(60));
    bench.unknown(15, &served);
    assert_eq!(bench.find(&served), Some((1, Method::Process)), "it was watched anew");
}

#[test]
fn a_known_late_call_speaks_against_the_process_while_there_is_a_tail() {
    let bench = Bench::new();
    bench.watch("other:80");
    let _other = hand_over(&bench, 9);
    let late = Says { owner: owner(&bench, 7, &[]), ..Says::correlation("a") };
    drop(bench.open(1, &Says::correlation("a")));
    assert_eq!(bench.find(&late), Some((1, Method::Correlation)));
    let _next = hand_over(&bench, 2);
    let call = Says { owner: owner(&bench, 7, &[2]), ..Says::path("/x") };
    assert_eq!(bench.find(&call), None, "it could be another late one of the worker's last request");
    bench.pass(6 * SECOND);
    assert_eq!(bench.find(&call), Some((2, Method::Process)), "the tail is over");
}

#[test]
fn a_call_of_a_worker_that_lacks_what_its_kind_usually_shows_is_of_nobody() {
    let bench = Bench::new();
    bench.watch("other:80");
    for number in 1..6 {
        let id = number.to_string();
        let _open = bench.open(number, &Says::correlation(&id));
        assert_eq!(bench.find(&Says::correlation(&id)), Some((number, Method::Correlation)));
    }
    let _open = [hand_over(&bench, 9), hand_over(&bench, 10)];
    let call = Says { owner: owner(&bench, 7, &[9]), ..Says::path("/") };
    assert_eq!(bench.find(&call), None);
    let other = Says { path: "/health", ..call };
    assert_eq!(bench.find(&other), Some((9, Method::Process)));
}

#[test]
fn a_process_behind_the_one_that_serves_may_call_for_a_sole_exchange() {
    let bench = Bench::new();
    let _a = hand_over(&bench, 1);
    let behind = Says {
        owner: Some(Owner { process: 8, serves: Vec::new(), elsewhere: Vec::new() }),
        ..Says::path("/")
    };
    assert_eq!(bench.find(&behind), Some((1, Method::Sole)));
}

#[test]
fn the_owner_is_asked_for_only_where_it_could_help() {
    let mut bench = Bench::new();
    let call = Says::correlation("a");
    let ask = |bench: &Bench, call: &Says<'_>| {
        bench.lineage.undecided_connections(&bench.rules, &call.call()).map(|connections| connections.len())
    };
    assert_eq!(ask(&bench, &Says::path("/")), None, "nothing is open");
    let _a = bench.open(1, &call);
    assert_eq!(ask(&bench, &Says::path("/")), None, "nothing was handed over");
    let _b = hand_over(&bench, 2);
    assert_eq!(ask(&bench, &Says::path("/")), Some(1));
    assert_eq!(ask(&bench, &call), None, "the call names its parent itself");
    bench.rules.methods = vec![Method::Sole];
    assert_eq!(ask(&bench, &Says::path("/")), None, "the method is off");
}

#[test]
fn a_stream_that_the_process_holds_besides_is_neither_served_nor_given_calls() {
    let bench = Bench::new();
    bench.watch("other:80");
    let stream = hand_over(&bench, 1);
    let _open = [hand_over(&bench, 2), hand_over(&bench, 3)];
    let seen_before = Says { owner: owner(&bench, 7, &[1, 2]), ..Says::path("/") };
    stream.streams();
    assert_eq!(bench.find(&seen_before), Some((2, Method::Process)), "it became one since it was looked at");
    let asked = bench.lineage.undecided_connections(&bench.rules, &Says::path("/").call()).unwrap();
    assert_eq!(asked.len(), 2, "nobody is asked for the stream");
    let of_the_stream = Says { owner: owner(&bench, 7, &[1]), ..Says::path("/") };
    assert_eq!(bench.find(&of_the_stream), None);
    assert_eq!(bench.find(&seen_before), None, "such calls are now known to come with nothing to serve");
}

#[test]
fn a_process_that_holds_only_a_stream_is_not_given_its_calls() {
    let bench = Bench::new();
    let stream = hand_over(&bench, 1);
    let _other = hand_over(&bench, 2);
    let call = Says { owner: owner(&bench, 7, &[1]), ..Says::path("/") };
    stream.streams();
    assert_eq!(bench.find(&call), None);
}

#[test]
fn the_process_is_not_asked_for_where_too_many_are_open_and_streams_do_not_count() {
    let bench = Bench::new();
    let mut open: Vec<_> = (1..=257).map(|number| hand_over(&bench, number)).collect();
    let ask = || bench.lineage.undecided_connections(&bench.rules, &Says::path("/").call());
    assert_eq!(ask(), None);
    let Verdict::Unknown { candidates, links, .. } = bench.verdict(&Says::path("/")) else {
        panic!("many are")
    };
    assert_eq!((candidates, links.len()), (257, 3), "all are counted, none is walked to");
    open[0].streams();
    assert_eq!(ask().map(|asked| asked.len()), Some(256));
    open.pop();
    assert_eq!(ask().map(|asked| asked.len()), Some(255));
}

// The only one.

#[test]
fn calls_beside_an_open_stream_are_of_nobody() {
    let bench = Bench::new();
    let stream = bench.open(1, &Says::correlation("a"));
    stream.streams();
    assert_eq!(bench.find(&Says::path("/x")), None, "it is not given to the stream");
    assert_eq!(
        bench.find(&Says::correlation("a")),
        Some((1, Method::Correlation)),
        "which can still be found"
    );
    let _request = bench.open(2, &Says::path("/"));
    assert_eq!(bench.find(&Says::path("/x")), None, "a call of nobody was seen");
    assert_eq!(bench.lineage.figures().open, 2);
}

#[test]
fn a_stream_is_not_in_the_way_of_the_only_request_at_a_known_destination() {
    let bench = Bench::new();
    let stream = bench.open(1, &Says::path("/"));
    stream.streams();
    {
        let _request = bench.open(2, &Says::path("/"));
        assert_eq!(bench.find(&Says::path("/x")), None, "what the stream calls is not known yet");
    }
    bench.know_beside(&stream);
    let request = bench.open(3, &Says::path("/"));
    assert_eq!(bench.find(&Says::path("/x")), Some((3, Method::Sole)));
    drop(request);
    drop(stream);
    let _request = bench.open(4, &Says::path("/"));
    assert_eq!(bench.find(&Says::path("/x")), Some((4, Method::Sole)));
}

#[test]
fn an_id_of_a_stream_and_of_a_request_leaves_the_call_to_neither() {
    let bench = Bench::new();
    bench.know("other:80");
    let stream = bench.open(1, &Says::correlation("same"));
    let _request = bench.open(2, &Says::correlation("same"));
    stream.streams();
    assert_eq!(bench.find(&Says::correlation("same")), None);
}

#[test]
fn what_has_been_open_for_long_is_no_candidate_and_not_in_the_way() {
    let bench = Bench::new();
    bench.know("other:80");
    let _poll = bench.open(1, &Says::path("/"));
    bench.pass(30 * SECOND);
    assert_eq!(bench.find(&Says::path("/x")), None);
    bench.pass(60 * SECOND);
    let request = bench.open(2, &Says::path("/"));
    assert_eq!(bench.find(&Says::path("/x")), Some((2, Method::Sole)));
    assert_eq!(bench.find(&Says { destination: "new:80", ..Says::path("/x") }), None, "it may be the poll's");
    drop(request);
}

#[test]
fn the_only_open_exchange_is_the_parent() {
    let bench = Bench::new();
    let a = bench.open(1, &Says::path("/"));
    assert_eq!(bench.find(&Says::path("/x")), Some((1, Method::Sole)));
    let b = bench.open(2, &Says::path("/"));
    assert_eq!(bench.find(&Says::path("/x")), None);
    drop(a);
    assert_eq!(
        bench.find(&Says::path("/x")),
        None,
        "a service that does several things at once is looked at more closely"
    );
    drop(b);
    bench.pass(Duration::from_secs(61));
    let _c = bench.open(3, &Says::path("/"));
    assert_eq!(bench.find(&Says::path("/x")), Some((3, Method::Sole)), "that was long ago");
}

#[test]
fn a_known_destination_of_a_busy_service_is_called_by_the_only_one_that_waits_for_no_other() {
    let bench = Bench::new();
    bench.know("other:80");
    let a = bench.open(1, &Says::path("/"));
    let _b = bench.open(2, &Says::path("/"));
    assert_eq!(bench.find(&Says::path("/x")), None);
    drop(a);
    let Verdict::Parent { call, .. } = bench.verdict(&Says::path("/x")) else { panic!("it is known") };
    assert_eq!(bench.find(&Says::path("/x")), None, "the first call is not answered");
    bench.lineage.call_answered(call);
    assert_eq!(bench.find(&Says::path("/x")), Some((2, Method::Sole)));
}

#[test]
fn a_call_with_none_open_speaks_against_sole_for_its_destination_and_the_window() {
    let bench = Bench::new();
    bench.know("elsewhere:80");
    assert_eq!(bench.find(&Says::path("/x")), None);
    let first = bench.open(1, &Says::path("/"));
    assert_eq!(bench.find(&Says::path("/x")), None);
    let elsewhere = Says { destination: "elsewhere:80", ..Says::path("/x") };
    assert_eq!(bench.find(&elsewhere), Some((1, Method::Sole)));
    let new = Says { destination: "new:80", ..Says::path("/x") };
    assert_eq!(bench.find(&new), None, "it may be called in the background, too");
    bench.pass(Duration::from_secs(60));
    drop(first);
    let _b = bench.open(2, &Says::path("/"));
    assert_eq!(bench.find(&Says::path("/x")), Some((2, Method::Sole)));
}

#[test]
fn sole_waits_until_the_service_was_watched_at_rest() {
    let bench = Bench::patient();
    let call = Says::path("/x");
    bench.clock.pass(SECOND);
    let early = bench.open(1, &Says::path("/"));
    bench.clock.pass(5 * SECOND);
    assert_eq!(bench.find(&call), None, "what passes while one is open is no rest");
    drop(early);
    bench.clock.pass(SECOND);
    let _later = bench.open(2, &Says::path("/"));
    assert_eq!(bench.find(&call), Some((2, Method::Sole)));
}

#[test]
fn a_known_late_call_speaks_against_sole_while_there_is_a_tail() {
    let bench = Bench::new();
    bench.know("other:80");
    drop(bench.open(1, &Says::correlation("a")));
    assert_eq!(bench.find(&Says::correlation("a")), Some((1, Method::Correlation)));
    let _b = bench.open(2, &Says::path("/"));
    assert_eq!(bench.find(&Says::path("/x")), None, "it could be another late one of the first");
    bench.pass(6 * SECOND);
    assert_eq!(bench.find(&Says::path("/x")), Some((2, Method::Sole)), "the tail is over");
}

#[test]
fn a_value_of_one_that_has_ended_speaks_against_sole_even_if_it_is_shared() {
    let bench = Bench::new();
    bench.know("other:80");
    let path = format!("/{}", uuid(1));
    assert_eq!(bench.find(&Says { destination: "elsewhere:80", ..Says::path(&path) }), None);
    drop(bench.open(1, &Says::path(&path)));
    let _b = bench.open(2, &Says::path("/"));
    assert_eq!(bench.find(&Says::path(&path)), None);
    assert_eq!(bench.find(&Says::path("/")), Some((2, Method::Sole)));
}

#[test]
fn a_call_that_lacks_what_its_kind_usually_shows_is_not_given_to_the_only_one() {
    let bench = Bench::new();
    for number in 1..6 {
        let path = format!("/{}", uuid(number));
        let _open = bench.open(number, &Says::path(&path));
        assert_eq!(bench.find(&Says::path(&path)), Some((number, Method::Token)));
    }
    let _open = bench.open(9, &Says::path(&format!("/{}", uuid(9))));
    assert_eq!(bench.find(&Says::path(&format!("/{}", uuid(10)))), None);
    assert_eq!(
        bench.find(&Says::path("/health")),
        Some((9, Method::Sole)),
        "calls of another shape may lack it"
    );
}

#[test]
fn sole_is_judged_as_things_were_when_the_call_came() {
    let bench = Bench::new();
    bench.know("other:80");
    let a = bench.open(1, &Says::path("/"));
    let _b = bench.open(2, &Says::path("/"));
    let came = Says { arrived_at: Some(bench.clock.now()), ..Says::path("/") };
    bench.pass(Duration::from_millis(1));
    drop(a);
    assert_eq!(bench.find(&came), None, "both were open");
    let came = Says { arrived_at: Some(bench.clock.now()), ..Says::path("/") };
    bench.pass(Duration::from_millis(1));
    let _c = bench.open(3, &Says::path("/"));
    assert_eq!(bench.find(&came), Some((2, Method::Sole)), "the third opened too late to be its cause");
}

#[test]
fn sole_is_less_certain_where_background_calls_had_no_chance_to_be_seen() {
    let bench = Bench::new();
    let open = bench.open(1, &Says::path("/"));
    for _ in 0..20 {
        assert!(bench.confidence(&Says::path("/")) < 0.7, "the service was never idle");
    }
    drop(open);
    bench.pass(6 * SECOND);
    let _open = bench.open(2, &Says::path("/"));
    assert!(bench.confidence(&Says::path("/")) > 0.8);
    let new = Says { destination: "new:80", ..Says::path("/") };
    assert!(bench.confidence(&new) < 0.7, "a new destination");
}

// What else there is.

#[test]
fn an_undecided_call_gets_links_to_the_newest_open_ones() {
    let bench = Bench::new();
    let mut open: Vec<_> = (1..6).map(|number| bench.open(number, &Says::path("/"))).collect();
    drop(open.remove(4));
    let Verdict::Unknown { candidates, links, .. } = bench.verdict(&Says::path("/")) else {
        panic!("four are open")
    };
    assert_eq!((candidates, links.iter().map(number).collect::<Vec<_>>()), (4, vec![4, 3, 2]));
}

#[test]
fn more_than_can_be_kept_is_counted_and_nothing_is_decided_meanwhile() {
    let bench = Bench::new();
    let all: Vec<_> =
        (1..=live::MAX_LIVE as u64).map(|number| bench.open(number, &Says::path("/"))).collect();
    let id = Says::correlation("a");
    let more = bench.open(9999, &id);
    more.handed_over(address(1), address(2));
    assert!(more.reader().is_none(), "it had no room");
    assert_eq!(bench.lineage.figures().exchanges_dropped, 1);
    drop(all);
    bench.pass(6 * SECOND);
    let found = bench.open(1, &id);
    assert_eq!(bench.find(&id), None, "the one that had no room carries it too");
    drop(more);
    assert_eq!(bench.find(&id), Some((1, Method::Correlation)));
    drop(found);
}

#[test]
fn the_oldest_of_the_tail_leaves_where_room_is_needed() {
    let bench = Bench::exact();
    drop(bench.open(1, &Says::correlation("first")));
    for number in 2..=live::MAX_LIVE as u64 {
        drop(bench.open(number, &Says::path("/")));
    }
    assert_eq!(bench.find(&Says::correlation("first")), Some((1, Method::Correlation)));
    drop(bench.open(9999, &Says::path("/")));
    assert_eq!(bench.find(&Says::correlation("first")), None);
    assert_eq!(bench.lineage.figures().tails_cut_short, 1);
}

#[test]
fn what_an_app_forwards_is_counted() {
    let mut bench = Bench::exact();
    bench.rules.identity_headers = vec![HeaderName::from_static("x-user")];
    let bearer = format!("Bearer {}", uuid(1));
    let says = Says::correlation("a").header("x-user", "7").header("authorization", &bearer);
    let _a = bench.open(1, &says);
    for _ in 0..2 {
        assert!(bench.find(&says).is_some());
    }
    let figures = bench.lineage.figures();
    assert_eq!(figures.correlation_forwarded, 2);
    assert_eq!(figures.forwarded, [(HeaderName::from_static("x-user"), 2), (AUTHORIZATION, 2)]);
}

/// Chooses the candidate that has made the most calls.
#[derive(Debug)]
struct Busiest;

impl Tier for Busiest {
    fn method(&self) -> Method {
        Method::Sole
    }

    fn choose(
        &self,
        destination: u64,
        candidates: &mut dyn Iterator<Item = Candidate<'_>>,
        _: Instant,
    ) -> Option<(ExchangeId, f64)> {
        let answered = |call: &&SentCall| call.destination == destination && call.answered_at.is_some();
        let calls = |candidate: &Candidate<'_>| candidate.calls.iter().filter(answered).count();
        let busiest = candidates.filter(|candidate| candidate.closed_at.is_none()).max_by_key(calls)?;
        assert_eq!(busiest.route, Some("/r/{id}"));
        Some((busiest.exchange, 0.5))
    }
}

#[test]
fn a_further_tier_is_asked_after_sole_and_sees_the_calls() {
    let clock = Moved::new();
    let bench =
        Bench { lineage: lineage(&clock, Some(Box::new(Busiest))), clock, rules: LineageRules::default() };
    let _a = bench.open(1, &Says::correlation("a"));
    let _b = bench.open(2, &Says::path("/"));
    let Verdict::Parent { call, .. } = bench.verdict(&Says::correlation("a")) else { panic!("it has an id") };
    bench.lineage.call_answered(call);
    assert_eq!(bench.find(&Says::path("/")), Some((1, Method::Sole)));
}

#[test]
fn calls_beyond_those_kept_are_counted() {
    let bench = Bench::exact();
    let a = bench.open(1, &Says::correlation("a"));
    let mut last = None;
    for _ in 0..live::MAX_CALLS + 2 {
        let Verdict::Parent { call, .. } = bench.verdict(&Says::correlation("a")) else {
            panic!("it has an id")
        };
        last = Some(call);
    }
    assert_eq!(bench.lineage.figures().calls_not_kept, 2);
    drop(a);
    bench.pass(6 * SECOND);
    let _other = bench.open(2, &Says::path("/"));
    // Neither one that was not kept nor one of an exchange that is gone is an error.
    last.into_iter().for_each(|call| bench.lineage.call_answered(call));
}

mod sequences {
    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug)]
    enum Step {
        Open { id: u64, correlation: u8 },
        Close(prop::sample::Index),
        Find { id: u64, correlation: u8, owner: Option<u64> },
        Header(u64),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0..12_u64, 0..6_u8).prop_map(|(id, correlation)| Step::Open { id, correlation }),
            3 => any::<prop::sample::Index>().prop_map(Step::Close),
            6 => (0..12_u64, 0..6_u8, proptest::option::of(0..40_u64))
                .prop_map(|(id, correlation, owner)| Step::Find { id, correlation, owner }),
            1 => (0..40_u64).prop_map(Step::Header),
            2 => (0..3000_u64).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn a_parent_is_always_live_and_memory_is_given_back(steps in proptest::collection::vec(step(), 0..120)) {
            let bench = Bench::new();
            let mut open: Vec<(u64, OpenExchange)> = Vec::new();
            let mut ended: Vec<(u64, Instant)> = Vec::new();
            let mut next = 1;
            for step in steps {
                match step {
                    Step::Open { id, correlation } => {
                        let path = format!("/{}", uuid(id));
                        let correlation = correlation.to_string();
                        let exchange = bench.open(next, &Says { path: &path, ..Says::correlation(&correlation) });
                        exchange.handed_over(address(1), address(1000 + next as u16));
                        open.push((next, exchange));
                        next += 1;
                    }
                    Step::Close(which) if !open.is_empty() => {
                        let (number, exchange) = open.swap_remove(which.index(open.len()));
                        ended.push((number, bench.clock.now()));
                        drop(exchange);
                    }
                    Step::Close(_) => {}
                    Step::Find { id, correlation, owner: process } => {
                        let path = format!("/{}", uuid(id));
                        let correlation = correlation.to_string();
                        let mut says = Says::path(&path);
                        // The highest is no id of any exchange's.
                        says.correlation = (correlation != "5").then_some(&*correlation);
                        says.owner = process.and_then(|number| owner(&bench, number as u32, &[number]));
                        let now = bench.clock.now();
                        match bench.verdict(&says) {
                            Verdict::Parent { whose, confidence, candidates, call, .. } => {
                                let parent = number(&whose);
                                let live = open.iter().any(|(number, _)| *number == parent)
                                    || ended.iter().any(|(number, at)| *number == parent && now - *at < 5 * SECOND);
                                prop_assert!(live, "{} is not live", parent);
                                prop_assert!(confidence > 0.0 && confidence <= 1.0 && candidates > 0);
                                bench.lineage.call_answered(call);
                            }
                            Verdict::Unknown { links, .. } => prop_assert!(links.len() <= 3),
                        }
                    }
                    Step::Header(number) => {
                        let parent = whose(number + 1);
                        bench.lineage.note_header(
                            &bench.rules,
                            &Says::path("/").call(),
                            (parent.trace_id, parent.span_id),
                        );
                    }
                    Step::Pass(milliseconds) => bench.pass(Duration::from_millis(milliseconds)),
                }
                prop_assert_eq!(bench.lineage.figures().open, open.len());
            }
            drop(open);
            bench.pass(6 * SECOND);
            // A sweep takes a bounded number at a time.
            for _ in 0..4 {
                bench.lineage.figures();
            }
            let figures = bench.lineage.figures();
            prop_assert_eq!((figures.open, figures.tail, figures.values), (0, 0, 0));
            prop_assert_eq!(bench.lineage.lock().live.indexed_count(), 0);
        }
    }
}
