//! Spans on their way out: where to, in which form, and how many may wait.

use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};

use super::car::{Car, Key, unique, until};
use super::peers::RUNTIME;
use crate::support::PATIENCE;
use crate::support::collector::{Collector, Protocol, Received};
use crate::support::origin::Origin;
use crate::support::spans::Attributes;

keys! {
    "export.otlp.endpoint" => spans_go_where_the_endpoint_is,
    "export.otlp.traces_endpoint" => spans_go_to_the_full_url,
    "export.otlp.protocol" => a_protocol_is_spoken,
    "export.otlp.headers" => headers_are_sent_along,
    "export.otlp.headers_file" => headers_come_out_of_files,
    "export.otlp.compression" => requests_are_compressed,
    "export.otlp.queue.max_spans" => so_many_spans_wait,
    "export.otlp.queue.max_bytes" => so_much_memory_is_taken,
    "export.otlp.queue.max_batch" => so_many_spans_are_sent_at_once,
    "export.console" => spans_go_to_standard_output,
}

/// A collector, read by tests that are no asynchronous ones.
pub struct Exported(Collector);

impl Exported {
    pub fn new() -> Self {
        Self(RUNTIME.block_on(Collector::start(Protocol::Http)))
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    pub fn next(&mut self) -> Received {
        RUNTIME.block_on(self.0.next())
    }

    /// Has a request made, and returns what comes with its span; what is left of others is passed over.
    pub fn request_about(&mut self, car: &mut Car) -> Received {
        let path = asked(car);
        loop {
            let received = self.next();
            if is_about(&received, &path) {
                return received;
            }
        }
    }
}

/// Has a request made for a path of its own.
fn asked(car: &Car) -> String {
    let path = format!("/{}", unique());
    assert_eq!(car.ask(&path, "").status(), 200);
    path
}

fn is_about(received: &Received, path: &str) -> bool {
    received.spans().iter().any(|span| Attributes::of(span).text("url.path") == Some(path))
}

fn spans_go_where_the_endpoint_is(key: Key) {
    let mut collectors = [Exported::new(), Exported::new()];
    let [one, other] = &collectors;
    let key = key.word("ONE", one.url()).word("ANOTHER", other.url());
    let see = |car: &mut Car| {
        let path = asked(car);
        let mut seen = None;
        until("the span is somewhere", || {
            seen = collectors.iter_mut().position(|collector| {
                std::iter::from_fn(|| collector.0.next_now()).any(|received| is_about(&received, &path))
            });
            seen.is_some()
        });
        seen
    };
    let yaml = "export: { otlp: { endpoint: <>, queue: { schedule_delay: 10ms } } }";
    key.live(yaml, ["ONE", "ANOTHER"], see, [Some(0), Some(1)]);
}

/// What a collector is sent with the span of a request. `otlp` is what is configured beside it.
fn received<T: PartialEq + std::fmt::Debug>(
    key: Key,
    otlp: &str,
    values: [&str; 2],
    see: impl Fn(&Received) -> T,
    expected: [T; 2],
) {
    let mut collector = Exported::new();
    let key = key.word("COLLECTOR", collector.url());
    let yaml =
        format!("export: {{ otlp: {{ endpoint: COLLECTOR, {otlp}, queue: {{ schedule_delay: 10ms }} }} }}");
    key.live(&yaml, values, |car| see(&collector.request_about(car)), expected);
}

fn spans_go_to_the_full_url(key: Key) {
    let see = |received: &Received| received.path.clone();
    let expected = ["/v1/traces".to_owned(), "/of/its/own".to_owned()];
    received(key, "traces_endpoint: <>", ["null", "COLLECTOR/of/its/own"], see, expected);
}

fn headers_are_sent_along(key: Key) {
    let see = |received: &Received| received.header("x-api-key").to_owned();
    let values = ["{ x-api-key: one }", "{ x-api-key: other }"];
    received(key, "headers: <>", values, see, ["one".to_owned(), "other".to_owned()]);
}

fn headers_come_out_of_files(key: Key) {
    let folder = tempfile::tempdir().expect("a folder for temporary files");
    let key = ["one", "other"].into_iter().zip(["ONE", "ANOTHER"]).fold(key, |key, (value, word)| {
        let path = folder.path().join(value);
        std::fs::write(&path, value).expect("it is writable");
        key.word(word, path.display())
    });
    let see = |received: &Received| received.header("x-api-key").to_owned();
    let values = ["{ x-api-key: ONE }", "{ x-api-key: ANOTHER }"];
    received(key, "headers_file: <>", values, see, ["one".to_owned(), "other".to_owned()]);
}

fn requests_are_compressed(key: Key) {
    let see = |received: &Received| received.header("content-encoding").to_owned();
    received(key, "compression: <>", ["gzip", "none"], see, ["gzip".to_owned(), String::new()]);
}

/// A collector that never answers, and the first word of each connection.
pub fn silent() -> (Origin, Receiver<String>) {
    let (spoke, speaks) = channel();
    let spoke = Mutex::new(spoke);
    let origin = Origin::new(move |peer| {
        let line = peer.line().unwrap_or_default();
        let word = line.split(' ').next().unwrap_or_default().to_owned();
        // The test may be over.
        let _ = spoke.lock().unwrap().send(word);
        let _ = peer.rest();
    });
    (origin, speaks)
}

fn a_protocol_is_spoken(key: Key) {
    let (collector, speaks) = silent();
    let key = key.word("COLLECTOR", collector.url());
    let see = |car: &mut Car| {
        asked(car);
        speaks.recv_timeout(PATIENCE).expect("it is connected to")
    };
    // HTTP/2 begins with PRI, and gRPC with HTTP/2. An attempt that goes on is given up soon.
    let yaml = "export: { otlp: { endpoint: COLLECTOR, protocol: <>, timeout: 100ms, queue: { schedule_delay: 10ms } } }";
    key.live_in_time(yaml, ["http/protobuf", "grpc"], see, ["POST".to_owned(), "PRI".to_owned()]);
}

/// Whether ten spans are too many, with a collector that never answers.
fn too_many(key: Key, queue: &str, values: [&str; 2]) {
    let (collector, _speaks) = silent();
    let key = key.word("COLLECTOR", collector.url());
    let see = |car: &mut Car| {
        let full = [("reason", "queue_full")];
        let dropped = |car: &Car| car.metrics().sum("tracecar_export_spans_dropped_total", &full);
        let before = dropped(car);
        for _ in 0..10 {
            car.ask("/", "");
        }
        dropped(car) > before
    };
    let yaml = format!("export: {{ otlp: {{ endpoint: COLLECTOR, queue: {{ {queue} }} }} }}");
    key.live(&yaml, values, see, [true, false]);
}

fn so_many_spans_wait(key: Key) {
    too_many(key, "max_batch: 1, max_spans: <>", ["2", "1000"]);
}

fn so_much_memory_is_taken(key: Key) {
    too_many(key, "max_bytes: <>", ["1KiB", "16MiB"]);
}

fn so_many_spans_are_sent_at_once(key: Key) {
    let mut collector = Exported::new();
    let key = key.word("COLLECTOR", collector.url());
    let see = |car: &mut Car| {
        for _ in 0..6 {
            car.ask("/", "");
        }
        let mut batches: Vec<usize> = Vec::new();
        while batches.iter().sum::<usize>() < 6 {
            batches.push(collector.next().spans().len());
        }
        batches
    };
    let yaml = "export: { otlp: { endpoint: COLLECTOR, queue: { schedule_delay: 1h, max_batch: <> } } }";
    key.live(yaml, ["2", "3"], see, [vec![2, 2, 2], vec![3, 3]]);
}

fn spans_go_to_standard_output(key: Key) {
    let mut car = key.car("export: { console: <> }", "off");
    car.ask("/before", "");
    car.apply("on");
    car.ask("/after", "");
    // The first there is: none was written before.
    assert_eq!(super::car::attribute(&car.span(), "url.path"), "/after");
}
