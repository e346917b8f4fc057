//! The pages over real sockets.

use std::io::Read;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;
use tokio::task::JoinHandle;

use super::*;
use crate::config::Service;
use crate::exchange::{Sink, sample};
use crate::stats::Kind;

/// Longer than any test may take; reached only where one would hang.
const PATIENCE: Duration = Duration::from_secs(20);

struct Server {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    done: JoinHandle<()>,
}

fn admin() -> Admin {
    let metrics = Metrics::new(&Service { name: "shop".to_owned(), named: true, attributes: Vec::new() });
    metrics.sink().record(&Arc::new(sample()));
    let admin = Admin {
        metrics,
        rows: Box::new(Vec::new),
        readiness: Arc::default(),
        watch: Watch::new(false),
        config: ConfigPage::default(),
        refresh: Arc::new(|| Box::pin(async {})),
    };
    admin.show("service: { name: shop }\n".to_owned(), None);
    admin
}

async fn server(admin: Admin, bounds: Bounds) -> Server {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (stop, stopped) = oneshot::channel::<()>();
    let shutdown = async move { drop(stopped.await) };
    let done = tokio::spawn(serve_within(listener, Arc::new(admin), shutdown, bounds));
    Server { address, stop, done }
}

/// The answer to a request: its head in lower case, and its body.
async fn ask(address: SocketAddr, request: &str) -> (String, Vec<u8>) {
    let exchange = async {
        let mut stream = TcpStream::connect(address).await.unwrap();
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        stream.read_to_end(&mut answer).await.unwrap();
        answer
    };
    let answer = timeout(PATIENCE, exchange).await.expect("an answer");
    let end = answer.windows(4).position(|window| window == b"\r\n\r\n").expect("a response head");
    let head = String::from_utf8(answer[..end].to_vec()).unwrap().to_lowercase();
    (head, answer[end + 4..].to_vec())
}

async fn get(address: SocketAddr, path: &str, headers: &str) -> (String, String) {
    let (head, body) =
        ask(address, &format!("GET {path} HTTP/1.1\r\nhost: localhost\r\n{headers}\r\n")).await;
    (head, String::from_utf8(body).unwrap())
}

#[tokio::test]
async fn pages_are_where_the_index_says() {
    let server = server(admin(), Bounds::default()).await;
    let (head, index) = get(server.address, "/", "").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert!(head.contains("cache-control: no-store") && head.contains("connection: close"), "{head}");
    for path in index.lines().filter_map(|line| line.split("  ").next()).filter(|word| word.starts_with('/'))
    {
        let (head, _) = get(server.address, path, "").await;
        assert!(!head.starts_with("http/1.1 404"), "{path}: {head}");
    }
    let (_, config) = get(server.address, "/config?x=1", "").await;
    assert_eq!(config, "service: { name: shop }\n");
}

#[tokio::test]
async fn other_paths_and_methods_get_an_honest_no() {
    let server = server(admin(), Bounds::default()).await;
    let (head, _) = get(server.address, "/metrics/", "").await;
    assert!(head.starts_with("http/1.1 404"), "{head}");
    let (head, _) =
        ask(server.address, "POST /config HTTP/1.1\r\nhost: x\r\ncontent-length: 2\r\n\r\nhi").await;
    assert!(head.starts_with("http/1.1 405") && head.contains("allow: get, head"), "{head}");
}

#[tokio::test]
async fn head_says_what_get_would() {
    let server = server(admin(), Bounds::default()).await;
    let (got, body) = get(server.address, "/healthz", "").await;
    let (head, nothing) = ask(server.address, "HEAD /healthz HTTP/1.1\r\nhost: x\r\n\r\n").await;
    assert_eq!((body.as_str(), nothing.len()), ("ok\n", 0));
    for line in got.lines().filter(|line| !line.starts_with("date:")) {
        assert!(head.contains(line), "{line} is missing in {head}");
    }
}

#[tokio::test]
async fn readiness_gives_its_reasons_and_health_needs_none() {
    let admin = admin();
    let readiness = admin.readiness.clone();
    let server = server(admin, Bounds::default()).await;
    let (head, body) = get(server.address, "/readyz", "accept: */*\r\n").await;
    assert!(head.starts_with("http/1.1 503"), "{head}");
    assert_eq!(body, "not listening yet\n");

    readiness.set_listening();
    let (head, body) = get(server.address, "/readyz", "").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
    assert_eq!(body, "ready\n");

    readiness.set_draining();
    let (head, body) = get(server.address, "/readyz", "accept: application/json\r\n").await;
    assert!(head.starts_with("http/1.1 503") && head.contains("content-type: application/json"), "{head}");
    assert_eq!(body, "{\"obstacles\":[\"draining: tracecar was told to stop\"],\"ready\":false}\n");
    let (head, _) = get(server.address, "/healthz", "").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
}

#[tokio::test]
async fn the_metrics_page_waits_for_records_and_is_what_was_asked_for() {
    let mut admin = admin();
    let refreshed = Arc::new(AtomicU64::new(0));
    let read = refreshed.clone();
    admin.rows = Box::new(move || {
        let value = read.load(Ordering::Relaxed);
        vec![Row { name: "tracecar_refreshed", help: "Times.", kind: Kind::Counter, label: None, value }]
    });
    admin.refresh = Arc::new(move || {
        let refreshed = refreshed.clone();
        Box::pin(async move {
            tokio::task::yield_now().await;
            refreshed.fetch_add(1, Ordering::Relaxed);
        })
    });
    let server = server(admin, Bounds::default()).await;

    let (head, text) = get(server.address, "/metrics", "").await;
    assert!(head.contains("content-type: text/plain; version=0.0.4; charset=utf-8"), "{head}");
    assert!(head.contains("vary: accept, accept-encoding"), "{head}");
    assert!(text.contains("tracecar_refreshed_total 1\n") && !text.contains("# EOF"), "{text}");

    // Two header lines are one list.
    let accept = "accept: text/plain;q=0.5\r\naccept: application/openmetrics-text;version=1.0.0\r\n";
    let (head, open) = get(server.address, "/metrics", accept).await;
    assert!(
        head.contains("content-type: application/openmetrics-text; version=1.0.0; charset=utf-8"),
        "{head}"
    );
    assert!(open.contains("trace_id=") && open.ends_with("# EOF\n"), "{open}");

    let request = "GET /metrics HTTP/1.1\r\nhost: x\r\naccept-encoding: deflate, gzip;q=0.5\r\n\r\n";
    let (head, packed) = ask(server.address, request).await;
    assert!(head.contains("content-encoding: gzip"), "{head}");
    let mut unpacked = String::new();
    flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut unpacked).unwrap();
    assert!(unpacked.contains("tracecar_refreshed_total 3\n"), "{unpacked}");

    let (head, _) = get(server.address, "/metrics", "accept-encoding: gzip;q=0\r\n").await;
    assert!(!head.contains("content-encoding"), "{head}");
}

#[tokio::test]
async fn a_caller_that_sends_nothing_is_let_go() {
    let bounds = Bounds { header: Duration::from_millis(20), ..Bounds::default() };
    let server = server(admin(), bounds).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /healthz HTTP/1.1\r\nhost").await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection is closed").unwrap();
}

#[tokio::test]
async fn a_request_that_takes_too_long_is_cut_off() {
    let mut admin = admin();
    admin.refresh = Arc::new(|| Box::pin(std::future::pending()));
    let bounds = Bounds { connection: Duration::from_millis(20), ..Bounds::default() };
    let server = server(admin, bounds).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let mut answer = Vec::new();
    timeout(PATIENCE, stream.read_to_end(&mut answer)).await.expect("the connection is closed").unwrap();
    assert!(answer.is_empty());
}

#[tokio::test]
async fn connections_beyond_the_limit_wait_for_their_turn() {
    let mut admin = admin();
    let (inside, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let seen = most.clone();
    admin.refresh = Arc::new(move || {
        let (inside, most) = (inside.clone(), most.clone());
        Box::pin(async move {
            most.fetch_max(inside.fetch_add(1, Ordering::Relaxed) + 1, Ordering::Relaxed);
            for _ in 0..200 {
                tokio::task::yield_now().await;
            }
            inside.fetch_sub(1, Ordering::Relaxed);
        })
    });
    let server = server(admin, Bounds { connections: 2, ..Bounds::default() }).await;
    let mut callers = JoinSet::new();
    for _ in 0..8 {
        callers.spawn(async move { get(server.address, "/metrics", "").await.0 });
    }
    let heads = callers.join_all().await;
    assert!(heads.iter().all(|head| head.starts_with("http/1.1 200")), "{heads:?}");
    assert_eq!(seen.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn a_page_that_panics_harms_no_other() {
    let mut admin = admin();
    admin.rows = Box::new(|| panic!("as the test wants"));
    let server = server(admin, Bounds::default()).await;
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    let _ = stream.read_to_end(&mut Vec::new()).await;
    let (head, _) = get(server.address, "/healthz", "").await;
    assert!(head.starts_with("http/1.1 200"), "{head}");
}

#[tokio::test]
async fn shutdown_lets_a_request_finish_and_takes_no_more() {
    let mut admin = admin();
    let (arrived, mut arrival) = tokio::sync::mpsc::unbounded_channel();
    let release = Arc::new(tokio::sync::Notify::new());
    let released = release.clone();
    admin.refresh = Arc::new(move || {
        let (arrived, released) = (arrived.clone(), released.clone());
        Box::pin(async move {
            let _ = arrived.send(());
            released.notified().await;
        })
    });
    let Server { address, stop, done } =
        server(admin, Bounds { refresh: PATIENCE, farewell: PATIENCE, ..Bounds::default() }).await;
    let asking = tokio::spawn(async move { get(address, "/metrics", "").await.0 });
    arrival.recv().await.unwrap();
    stop.send(()).unwrap();
    // The listener is gone as soon as the server has seen the signal.
    let refused = async { while TcpStream::connect(address).await.is_ok() {} };
    timeout(PATIENCE, refused).await.expect("no more connections are taken");
    assert!(!done.is_finished());
    release.notify_one();
    assert!(asking.await.unwrap().starts_with("http/1.1 200"));
    timeout(PATIENCE, done).await.expect("the server ends").unwrap();
}

#[tokio::test]
async fn shutdown_does_not_wait_for_a_request_that_hangs() {
    let mut admin = admin();
    let (arrived, mut arrival) = tokio::sync::mpsc::unbounded_channel();
    admin.refresh = Arc::new(move || {
        let _ = arrived.send(());
        Box::pin(std::future::pending())
    });
    let bounds = Bounds { refresh: PATIENCE * 2, farewell: Duration::ZERO, ..Bounds::default() };
    let Server { address, stop, done } = server(admin, bounds).await;
    let mut stream = TcpStream::connect(address).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
    arrival.recv().await.unwrap();
    stop.send(()).unwrap();
    timeout(PATIENCE, done).await.expect("the server ends").unwrap();
}
