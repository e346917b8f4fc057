//! Spans on their way to a collector: what arrives, what is tried again, what is lost and how it is counted.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use http::{HeaderName, HeaderValue};
use opentelemetry_proto::tonic::common::v1::KeyValue;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use rustls::ServerConfig;
use rustls::pki_types::PrivateKeyDer;
use tokio::runtime::Handle;
use tracecar::config::{Otlp, OtlpProtocol, OtlpTls, Queue, Service};
use tracecar::exchange::Sink;
use tracecar::telemetry::export::{self, Account, Dropped, Exporter, OtlpSink, Pace, StartError};

use crate::support::collector::{Collector, Protocol, Reply};
use crate::support::log::Log;
use crate::support::{eventually, record};

const BOTH: [Protocol; 2] = [Protocol::Grpc, Protocol::Http];

/// Patience in milliseconds, so that what takes minutes in life takes none here.
const QUICK: Pace = Pace {
    first_wait: Duration::from_millis(5),
    longest_wait: Duration::from_millis(20),
    give_up: Duration::from_secs(60),
    max_request: 64 << 20,
};

fn otlp(address: SocketAddr, protocol: Protocol) -> Otlp {
    let (protocol, path) = match protocol {
        Protocol::Grpc => (OtlpProtocol::Grpc, ""),
        Protocol::Http => (OtlpProtocol::HttpProtobuf, "/base/v1/traces?tenant=7"),
    };
    Otlp {
        endpoint: format!("http://{address}{path}").parse().unwrap(),
        protocol,
        headers: Vec::new(),
        gzip: false,
        timeout: Duration::from_secs(10),
        tls: OtlpTls::default(),
        queue: Queue {
            max_spans: 2048,
            max_bytes: 16 << 20,
            max_batch: 512,
            schedule_delay: Duration::from_secs(600),
            export_timeout: Duration::from_secs(30),
        },
    }
}

fn service() -> Service {
    let attributes = vec![("deployment.environment.name".to_owned(), "test".to_owned())];
    Service { name: "shop".to_owned(), named: true, attributes }
}

fn start(otlp: &Otlp, pace: Pace) -> (OtlpSink, Exporter) {
    export::start_at_pace(otlp, &service(), &Handle::current(), pace).unwrap()
}

/// Hands over spans with these ids as one batch, and has it sent at once.
fn send(sink: &mut OtlpSink, exporter: &Exporter, ids: impl IntoIterator<Item = u64>) {
    for id in ids {
        sink.record(&Arc::new(record(id)));
    }
    sink.batch_end();
    exporter.flush();
}

async fn settled(account: &Account) {
    eventually("the queue is empty", || account.snapshot().queued == 0).await;
}

fn text(attributes: &[KeyValue], key: &str) -> String {
    let found = attributes.iter().find(|pair| pair.key == key).and_then(|pair| pair.value.clone()?.value);
    match found {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => format!("{other:?}"),
    }
}

#[tokio::test]
async fn spans_arrive_as_the_conventions_want_them() {
    for protocol in BOTH {
        let mut collector = Collector::start(protocol).await;
        let (mut sink, exporter) = start(&otlp(collector.address, protocol), QUICK);
        sink.record(&Arc::new(record(0x1111)));
        let mut root = record(0x2222);
        root.identity.parent = None;
        root.identity.remote = false;
        sink.record(&Arc::new(root));
        let mut unsampled = record(0x3333);
        unsampled.identity.flags = 2;
        sink.record(&Arc::new(unsampled));
        sink.batch_end();
        exporter.flush();

        let received = collector.next().await;
        let resource = &received.content.resource_spans[0];
        let about = &resource.resource.as_ref().unwrap().attributes;
        assert_eq!(text(about, "service.name"), "shop");
        assert_eq!(text(about, "deployment.environment.name"), "test");
        assert_eq!(text(about, "telemetry.sdk.name"), "tracecar");
        assert_eq!(text(about, "telemetry.sdk.language"), "rust");
        assert_eq!(text(about, "service.instance.id").len(), 36);
        let scope = &resource.scope_spans[0];
        assert_eq!(scope.scope.as_ref().unwrap().name, "tracecar");
        assert_eq!(scope.scope.as_ref().unwrap().version, env!("CARGO_PKG_VERSION"));
        assert_eq!(scope.schema_url, "https://opentelemetry.io/schemas/1.44.0");

        let spans = received.spans();
        assert_eq!(spans.len(), 2, "the unsampled one stays here");
        let span = spans[0];
        assert_eq!(span.name, "GET /items/{id}");
        assert_eq!(span.kind, 2, "SERVER");
        assert_eq!(span.trace_id, [0xab; 16]);
        assert_eq!(span.span_id, 0x1111_u64.to_be_bytes());
        assert_eq!(span.parent_span_id, 0xcafe_u64.to_be_bytes());
        assert_eq!(span.flags, 0x303, "the parent is remote, and the W3C flags are kept (OTLP-43)");
        assert_eq!(span.trace_state, "vendor=a,other=b");
        assert_eq!(span.end_time_unix_nano - span.start_time_unix_nano, 5_000_000);
        assert_eq!(span.status.as_ref().map(|status| status.code), Some(0));
        let keys: std::collections::BTreeSet<_> = span.attributes.iter().map(|pair| &pair.key).collect();
        assert_eq!(keys.len(), span.attributes.len(), "each key once (OTLP-42)");
        for (key, value) in [
            ("http.request.method", "GET"),
            ("http.route", "/items/{id}"),
            ("http.response.status_code", "200"),
            ("url.path", "/items/42"),
            ("url.query", "page=REDACTED"),
            ("url.scheme", "https"),
            ("server.address", "2001:db8::1"),
            ("server.port", "8443"),
            ("client.address", "203.0.113.9"),
            ("network.peer.address", "127.0.0.1"),
            ("network.peer.port", "50000"),
            ("network.protocol.version", "2"),
            ("user_agent.original", "curl/8"),
            ("tracecar.outcome", "complete"),
            ("tracecar.response.bytes", "198"),
        ] {
            assert_eq!(text(&span.attributes, key), value, "{key}");
        }
        assert_eq!(spans[1].parent_span_id, [0; 0], "a root has no parent");
        assert_eq!(spans[1].flags, 0x103);
        settled(&exporter.account()).await;
        assert_eq!(exporter.account().snapshot().exported, 2);
    }
}

#[tokio::test]
async fn requests_look_as_each_protocol_has_them() {
    for (protocol, gzip) in BOTH.into_iter().flat_map(|protocol| [(protocol, false), (protocol, true)]) {
        let mut collector = Collector::start(protocol).await;
        let mut otlp = otlp(collector.address, protocol);
        otlp.gzip = gzip;
        otlp.headers = vec![(HeaderName::from_static("x-token"), HeaderValue::from_static("s3cret"))];
        let (mut sink, exporter) = start(&otlp, QUICK);
        send(&mut sink, &exporter, 1..=300);
        let received = collector.next().await;
        assert_eq!(received.spans().len(), 300, "{protocol:?}, gzip {gzip}");
        assert_eq!(received.header("x-token"), "s3cret");
        assert!(received.header("user-agent").starts_with("tracecar/"));
        assert!(received.header("user-agent").contains(" OTel-OTLP-Exporter-Rust/"));
        let coding = if gzip { "gzip" } else { "" };
        match protocol {
            Protocol::Grpc => {
                assert_eq!(received.path, "/opentelemetry.proto.collector.trace.v1.TraceService/Export");
                assert_eq!(received.header("content-type"), "application/grpc");
                assert_eq!(received.header("te"), "trailers");
                assert_eq!(received.header("grpc-encoding"), coding);
            }
            Protocol::Http => {
                assert_eq!(received.path, "/base/v1/traces?tenant=7", "the URL is not changed (OTLP-10)");
                assert_eq!(received.header("content-type"), "application/x-protobuf");
                assert_eq!(received.header("content-encoding"), coding);
                assert_eq!(received.header("host"), collector.address.to_string());
            }
        }
        assert_eq!(received.header("x-leak"), "", "nothing comes from the environment");
    }
}

#[test]
fn otel_variables_do_not_reach_the_exporter() {
    // A process of its own: variables of this one are seen by all its threads.
    let mut tests = std::process::Command::new(std::env::current_exe().unwrap());
    tests.args(["--exact", "export::requests_look_as_each_protocol_has_them"]);
    for signal in ["", "TRACES_"] {
        for (name, value) in [
            ("HEADERS", "x-leak=1,content-type=text/plain"),
            ("ENDPOINT", "http://192.0.2.1:1"),
            ("PROTOCOL", "http/json"),
            ("COMPRESSION", "zstd"),
            ("TIMEOUT", "0"),
        ] {
            tests.env(format!("OTEL_EXPORTER_OTLP_{signal}{name}"), value);
        }
    }
    let output = tests.output().unwrap();
    let told = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && told.contains("1 passed"), "{told}");
}

#[tokio::test]
async fn one_connection_serves_all_requests_and_a_closed_one_is_replaced_without_a_failure() {
    for protocol in BOTH {
        let mut collector = Collector::lasting(protocol).await;
        let (mut sink, exporter) = start(&otlp(collector.address, protocol), QUICK);
        let account = exporter.account();
        for id in 1..=3 {
            send(&mut sink, &exporter, [id]);
            assert_eq!(collector.next().await.connection, 1);
            settled(&account).await;
        }
        let address = collector.address;
        collector.stop().await;
        let mut collector = Collector::start_at(address, protocol, None).await;
        send(&mut sink, &exporter, [4]);
        collector.next().await;
        settled(&account).await;
        let now = account.snapshot();
        assert_eq!((now.exported, now.failures), (4, 0), "{protocol:?}");
    }
}

#[tokio::test]
async fn transient_answers_are_tried_again_until_the_spans_are_taken() {
    let unavailable = || Reply::Grpc(tonic::Status::unavailable("starting"));
    let busy = |status| Reply::Http { status, header: None, body: "busy" };
    let scripts = [
        (Protocol::Grpc, vec![Reply::Close, unavailable(), busy(503), unavailable()]),
        (Protocol::Http, vec![Reply::Close, busy(503), busy(429), busy(502), busy(504)]),
    ];
    for (protocol, script) in scripts {
        let mut collector = Collector::start(protocol).await;
        let failures = script.len() as u64;
        collector.script(script);
        let (mut sink, exporter) = start(&otlp(collector.address, protocol), QUICK);
        send(&mut sink, &exporter, [7]);
        for _ in 0..=failures {
            collector.next().await;
        }
        settled(&exporter.account()).await;
        let now = exporter.account().snapshot();
        assert_eq!((now.exported, now.failures, now.consecutive_failures), (1, failures, 0), "{protocol:?}");
        assert!(now.last_success.is_some());
        assert!(collector.next_now().is_none(), "taken spans are not sent again");
    }
}

#[tokio::test]
async fn final_answers_cost_their_batch_and_nothing_else() {
    let http = |status| Reply::Http { status, header: None, body: "no" };
    let grpc = |code| Reply::Grpc(tonic::Status::new(code, "no"));
    let scripts = [
        (Protocol::Http, vec![http(400), http(401), http(500), http(408), http(302), Reply::Long(5 << 20)]),
        (
            Protocol::Grpc,
            vec![
                grpc(tonic::Code::InvalidArgument),
                grpc(tonic::Code::Unauthenticated),
                grpc(tonic::Code::Internal),
                grpc(tonic::Code::ResourceExhausted),
                http(404),
                Reply::Long(5 << 20),
            ],
        ),
    ];
    for (protocol, script) in scripts {
        let mut collector = Collector::start(protocol).await;
        let refusals = script.len() as u64;
        collector.script(script);
        let (mut sink, exporter) = start(&otlp(collector.address, protocol), QUICK);
        let account = exporter.account();
        for id in 1..=refusals + 1 {
            send(&mut sink, &exporter, [id]);
            collector.next().await;
            settled(&account).await;
        }
        let now = account.snapshot();
        assert_eq!((now.dropped(Dropped::Rejected), now.exported), (refusals, 1), "{protocol:?}");
        assert!(now.adds_up());
        assert!(collector.next_now().is_none(), "refused spans are not sent again");
    }
}

#[tokio::test]
async fn retry_after_is_kept_to() {
    let mut collector = Collector::start(Protocol::Http).await;
    collector.script([Reply::Http { status: 429, header: Some(("retry-after", "1")), body: "" }]);
    let (mut sink, exporter) = start(&otlp(collector.address, Protocol::Http), QUICK);
    send(&mut sink, &exporter, [1]);
    let first = collector.next().await.at;
    let second = collector.next().await.at;
    assert!(second - first >= Duration::from_secs(1), "{:?}", second - first);
}

#[tokio::test]
async fn retry_info_is_kept_to_and_makes_an_exhausted_resource_worth_asking_again() {
    let mut collector = Collector::start(Protocol::Grpc).await;
    let details = retry_info(Duration::from_millis(400));
    collector.script([Reply::Grpc(tonic::Status::with_details(
        tonic::Code::ResourceExhausted,
        "slow down",
        details.into(),
    ))]);
    let (mut sink, exporter) = start(&otlp(collector.address, Protocol::Grpc), QUICK);
    send(&mut sink, &exporter, [1]);
    let first = collector.next().await.at;
    let second = collector.next().await.at;
    assert!(second - first >= Duration::from_millis(400), "{:?}", second - first);
    settled(&exporter.account()).await;
    assert_eq!(exporter.account().snapshot().exported, 1);
}

/// `google.rpc.Status` with a `RetryInfo`, written field by field: the exporter's own types would agree with
/// themselves.
fn retry_info(delay: Duration) -> Vec<u8> {
    let field = |tag: u8, content: &[u8]| {
        let mut out = vec![tag << 3 | 2];
        content.len().encode_varint(&mut out);
        out.extend_from_slice(content);
        out
    };
    let mut nanos = vec![2 << 3];
    (delay.subsec_nanos() as usize).encode_varint(&mut nanos);
    let info = field(1, &nanos);
    let any = [field(1, b"type.googleapis.com/google.rpc.RetryInfo"), field(2, &info)].concat();
    [vec![1 << 3, 8], field(2, b"slow down"), field(3, &any)].concat()
}

trait Varint {
    fn encode_varint(self, out: &mut Vec<u8>);
}

impl Varint for usize {
    fn encode_varint(self, out: &mut Vec<u8>) {
        prost::encoding::encode_varint(self as u64, out);
    }
}

#[tokio::test]
async fn partial_success_is_counted_said_once_and_not_sent_again() {
    for protocol in BOTH {
        let log = Log::start();
        let mut collector = Collector::start(protocol).await;
        let partial = || Reply::Partial { rejected: 2, message: "two are too old" };
        collector.script([partial(), partial()]);
        let (mut sink, exporter) = start(&otlp(collector.address, protocol), QUICK);
        let account = exporter.account();
        for first in [1, 11] {
            send(&mut sink, &exporter, first..first + 5);
            collector.next().await;
            settled(&account).await;
        }
        let now = account.snapshot();
        assert_eq!((now.exported, now.dropped(Dropped::Partial)), (6, 4), "{protocol:?}");
        assert!(collector.next_now().is_none());
        let lines = log.lines();
        assert_eq!(lines.iter().filter(|line| line.contains("two are too old")).count(), 1, "{lines:#?}");
    }
}

#[tokio::test]
async fn a_full_queue_drops_the_newest_and_counts_them() {
    for (max_spans, max_bytes) in [(8, usize::MAX), (usize::MAX, 8 * record(1).size_bytes())] {
        let mut collector = Collector::start(Protocol::Http).await;
        collector.script([Reply::Held]);
        let mut otlp = otlp(collector.address, Protocol::Http);
        otlp.queue = Queue { max_spans, max_bytes, max_batch: 4, ..otlp.queue };
        let (mut sink, exporter) = start(&otlp, QUICK);
        send(&mut sink, &exporter, 1..=4);
        assert_eq!(collector.next().await.spans().len(), 4);
        // Four are on their way and still count; four more fit, two do not.
        send(&mut sink, &exporter, 5..=10);
        let now = exporter.account().snapshot();
        assert_eq!((now.accepted, now.queued, now.dropped(Dropped::QueueFull)), (10, 8, 2));
        collector.release();
        let second = collector.next().await;
        let ids: Vec<_> = second.spans().iter().map(|span| span.span_id[7]).collect();
        assert_eq!(ids, [5, 6, 7, 8], "the newest were dropped");
        settled(&exporter.account()).await;
        assert_eq!(exporter.account().snapshot().queued_bytes, 0);
    }
}

#[tokio::test]
async fn a_collector_that_comes_back_gets_everything_and_the_log_has_two_lines() {
    for protocol in BOTH {
        let log = Log::start();
        let collector = Collector::lasting(protocol).await;
        let address = collector.address;
        collector.stop().await;
        let mut otlp = otlp(address, protocol);
        otlp.headers = vec![(HeaderName::from_static("authorization"), HeaderValue::from_static("s3cret"))];
        otlp.queue.max_batch = 16;
        otlp.queue.max_spans = 100;
        let (mut sink, exporter) = start(&otlp, QUICK);
        let account = exporter.account();
        let watcher = Watcher::of(&account);

        send(&mut sink, &exporter, 1..=50);
        eventually("some attempts fail", || account.snapshot().consecutive_failures >= 3).await;
        send(&mut sink, &exporter, 51..=110);
        assert_eq!(account.snapshot().exported, 0);

        let mut collector = Collector::start_at(address, protocol, None).await;
        let mut ids = Vec::new();
        while ids.len() < 100 {
            ids.extend(collector.next().await.spans().iter().map(|span| span.span_id[7]));
        }
        settled(&account).await;
        assert_eq!(ids, (1..=100).collect::<Vec<u8>>(), "all that fit the queue, in their order");
        let now = account.snapshot();
        assert_eq!((now.accepted, now.exported, now.dropped(Dropped::QueueFull)), (110, 100, 10));
        watcher.stop();

        let lines = log.lines();
        assert_eq!(lines.len(), 2, "{lines:#?}");
        assert!(
            lines[0].contains("cannot export spans") && lines[0].contains("connection refused"),
            "{lines:#?}"
        );
        assert!(lines[0].contains(&address.to_string()), "{lines:#?}");
        assert!(lines[1].contains("exported again") && lines[1].contains("lost=10"), "{lines:#?}");
        assert!(!lines.concat().contains("s3cret"), "{lines:#?}");
    }
}

/// Looks at an account all the time, from a thread of its own.
struct Watcher {
    stop: Arc<AtomicBool>,
    thread: std::thread::JoinHandle<()>,
}

impl Watcher {
    fn of(account: &Arc<Account>) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let (account, stopped) = (Arc::clone(account), Arc::clone(&stop));
        let thread = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                let now = account.snapshot();
                assert!(now.adds_up(), "{now:?}");
                std::thread::yield_now();
            }
        });
        Self { stop, thread }
    }

    fn stop(self) {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().expect("the account adds up at every look");
    }
}

#[tokio::test]
async fn a_batch_that_is_too_old_is_given_up_and_the_next_has_its_own_time() {
    let mut collector = Collector::start(Protocol::Http).await;
    // Asks for more than is left, so that the first batch runs out while it waits.
    collector.script([Reply::Http { status: 503, header: Some(("retry-after", "3600")), body: "" }]);
    let pace = Pace { give_up: Duration::from_millis(50), ..QUICK };
    let (mut sink, exporter) = start(&otlp(collector.address, Protocol::Http), pace);
    send(&mut sink, &exporter, [1, 2]);
    collector.next().await;
    let account = exporter.account();
    settled(&account).await;
    assert_eq!(account.snapshot().dropped(Dropped::RetryExpired), 2);
    send(&mut sink, &exporter, [3]);
    collector.next().await;
    settled(&account).await;
    assert_eq!(account.snapshot().exported, 1);
}

#[tokio::test]
async fn a_batch_too_large_for_one_request_goes_in_several() {
    let mut collector = Collector::start(Protocol::Http).await;
    let pace = Pace { max_request: 4000, ..QUICK };
    let (mut sink, exporter) = start(&otlp(collector.address, Protocol::Http), pace);
    let mut huge = record(5);
    huge.detail = huge.put(&"x".repeat(5000));
    for record in (1..=4).map(record).chain([huge]).chain((6..=16).map(record)) {
        sink.record(&Arc::new(record));
    }
    sink.batch_end();
    exporter.flush();
    let mut ids = Vec::new();
    while ids.len() < 15 {
        ids.extend(collector.next().await.spans().iter().map(|span| span.span_id[7]));
    }
    assert_eq!(ids, [1, 2, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16]);
    settled(&exporter.account()).await;
    let now = exporter.account().snapshot();
    assert_eq!((now.exported, now.dropped(Dropped::TooLarge), now.queued_bytes), (15, 1, 0));
}

#[tokio::test]
async fn an_attempt_without_an_answer_ends_with_its_time_and_is_tried_again() {
    for protocol in BOTH {
        let mut collector = Collector::start(protocol).await;
        collector.script([Reply::Silence]);
        let mut otlp = otlp(collector.address, protocol);
        otlp.timeout = Duration::from_millis(100);
        let (mut sink, exporter) = start(&otlp, QUICK);
        send(&mut sink, &exporter, [1]);
        assert_eq!(collector.next().await.connection, 1);
        assert_eq!(collector.next().await.connection, 2, "a connection that fell silent is not used again");
        settled(&exporter.account()).await;
        assert_eq!(exporter.account().snapshot().exported, 1);
    }
}

#[tokio::test]
async fn shutdown_sends_what_is_queued() {
    for protocol in BOTH {
        let mut collector = Collector::start(protocol).await;
        let (mut sink, exporter) = start(&otlp(collector.address, protocol), QUICK);
        (1..=700).for_each(|id| sink.record(&Arc::new(record(id))));
        sink.batch_end();
        let account = exporter.account();
        exporter.shutdown(Duration::from_secs(60)).await;
        assert_eq!(account.snapshot().exported, 700, "{protocol:?}");
        assert_eq!(collector.next().await.spans().len() + collector.next().await.spans().len(), 700);
        sink.record(&Arc::new(record(701)));
        sink.batch_end();
        assert_eq!(account.snapshot().dropped(Dropped::Shutdown), 1, "what comes later is counted");
        assert!(account.snapshot().adds_up());
    }
}

#[tokio::test]
async fn a_collector_that_never_answers_does_not_hold_up_a_shutdown() {
    // One accepts the request and falls silent, one does not even accept the connection.
    for protocol in BOTH {
        let silent = Collector::start(protocol).await;
        silent.script([Reply::Silence]);
        let deaf = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        for address in [silent.address, deaf.local_addr().unwrap()] {
            let (mut sink, exporter) = start(&otlp(address, protocol), QUICK);
            send(&mut sink, &exporter, 1..=3);
            let account = exporter.account();
            let started = Instant::now();
            exporter.shutdown(Duration::from_millis(200)).await;
            assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
            let now = account.snapshot();
            assert_eq!((now.dropped(Dropped::Shutdown), now.queued, now.queued_bytes), (3, 0, 0));
            assert!(now.adds_up());
        }
    }
}

#[tokio::test]
async fn a_shutdown_does_not_wait_for_an_attempt_that_would_come_too_late() {
    let mut collector = Collector::start(Protocol::Http).await;
    collector.script([Reply::Http { status: 503, header: Some(("retry-after", "50")), body: "" }]);
    let (mut sink, exporter) = start(&otlp(collector.address, Protocol::Http), QUICK);
    send(&mut sink, &exporter, [1]);
    collector.next().await;
    let account = exporter.account();
    eventually("the answer is in", || account.snapshot().failures == 1).await;
    let started = Instant::now();
    exporter.shutdown(Duration::from_secs(40)).await;
    assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
    assert_eq!(account.snapshot().dropped(Dropped::Shutdown), 1);
}

/// PEM files of a server on 127.0.0.1, as its own authority, and of a client.
struct Certificates {
    folder: tempfile::TempDir,
    server: rcgen::CertifiedKey<rcgen::KeyPair>,
    client: rcgen::CertifiedKey<rcgen::KeyPair>,
}

impl Certificates {
    fn new() -> Self {
        let made = || rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
        let this = Self { folder: tempfile::tempdir().unwrap(), server: made(), client: made() };
        std::fs::write(this.path("server.pem"), this.server.cert.pem()).unwrap();
        std::fs::write(this.path("client.pem"), this.client.cert.pem()).unwrap();
        std::fs::write(this.path("client.key"), this.client.signing_key.serialize_pem()).unwrap();
        this
    }

    fn path(&self, name: &str) -> std::path::PathBuf {
        self.folder.path().join(name)
    }

    /// The server's configuration: it asks for the client's certificate, and takes no other.
    fn server(&self, protocol: Protocol) -> ServerConfig {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let mut clients = rustls::RootCertStore::empty();
        clients.add(self.client.cert.der().clone()).unwrap();
        let verifier =
            rustls::server::WebPkiClientVerifier::builder_with_provider(Arc::new(clients), provider.clone());
        let key = PrivateKeyDer::try_from(self.server.signing_key.serialize_der()).unwrap();
        let mut config = ServerConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_client_cert_verifier(verifier.build().unwrap())
            .with_single_cert(vec![self.server.cert.der().clone()], key)
            .unwrap();
        let alpn: &[u8] = if protocol == Protocol::Grpc { b"h2" } else { b"http/1.1" };
        config.alpn_protocols = vec![alpn.to_vec()];
        config
    }
}

#[tokio::test]
async fn tls_works_with_certificates_of_ones_own_on_both_sides() {
    let certificates = Certificates::new();
    for protocol in BOTH {
        let any = ([127, 0, 0, 1], 0).into();
        let mut collector = Collector::start_at(any, protocol, Some(certificates.server(protocol))).await;
        let mut otlp = otlp(collector.address, protocol);
        otlp.endpoint = otlp.endpoint.to_string().replace("http://", "https://").parse().unwrap();
        otlp.tls = OtlpTls {
            certificate: Some(certificates.path("server.pem")),
            client: Some((certificates.path("client.pem"), certificates.path("client.key"))),
        };
        let (mut sink, exporter) = start(&otlp, QUICK);
        send(&mut sink, &exporter, [1]);
        assert_eq!(collector.next().await.spans().len(), 1);
        settled(&exporter.account()).await;
        assert_eq!(exporter.account().snapshot().exported, 1, "{protocol:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_trusted_gets_nothing_and_the_log_says_why() {
    let certificates = Certificates::new();
    let log = Log::start();
    let any = ([127, 0, 0, 1], 0).into();
    let mut collector =
        Collector::start_at(any, Protocol::Http, Some(certificates.server(Protocol::Http))).await;
    let mut otlp = otlp(collector.address, Protocol::Http);
    otlp.endpoint = otlp.endpoint.to_string().replace("http://", "https://").parse().unwrap();
    otlp.tls.certificate = Some(certificates.path("client.pem"));
    let (mut sink, exporter) = start(&otlp, QUICK);
    send(&mut sink, &exporter, [1]);
    let account = exporter.account();
    eventually("attempts fail", || account.snapshot().failures >= 2).await;
    assert!(collector.next_now().is_none());
    assert!(log.lines().concat().contains("TLS: invalid peer certificate"), "{:#?}", log.lines());
}

#[tokio::test]
async fn settings_that_cannot_work_are_refused_at_the_start() {
    let start = |endpoint: &str| {
        let mut otlp = otlp(([127, 0, 0, 1], 1).into(), Protocol::Http);
        otlp.endpoint = endpoint.parse().unwrap();
        otlp.tls.certificate = Some("/nowhere/ca.pem".into());
        export::start(&otlp, &service(), &Handle::current()).map(drop)
    };
    let error = start("ftp://me:secret@otlp.example/").unwrap_err();
    assert!(matches!(error, StartError::Endpoint { .. }));
    assert_eq!(
        error.to_string(),
        "cannot export to ftp://otlp.example/: it must begin with http:// or https://"
    );
    let error = start("https://otlp.example/").unwrap_err().to_string();
    assert!(error.contains("/nowhere/ca.pem"), "{error}");
    assert!(start("http://otlp.example/").is_ok(), "TLS files do not matter without TLS");
}
