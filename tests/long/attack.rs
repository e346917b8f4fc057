//! Callers that mean harm, and very many that mean none: others do not notice, and memory stays where it should.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;

use crate::alone;
use crate::load::Load;
use crate::support::frames::{self, Frames, frame, head};
use crate::support::program::{File, Program, Start};

const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &[u8] = b"GET /items/1?page=2 HTTP/1.1\r\nHost: shop\r\nUser-Agent: load/1\r\n\r\n";

/// How long the attack lasts.
const ATTACK: Duration = Duration::from_secs(10);

const SLOW_CALLERS: usize = 1000;
const IDLE: usize = 10_000;
const BUSY: usize = 2_000;

/// A service for as many connections as there are.
async fn service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut read = Vec::with_capacity(1024);
                while stream.read_buf(&mut read).await.is_ok_and(|n| n > 0) {
                    if read.ends_with(b"\r\n\r\n") {
                        read.clear();
                        if stream.write_all(ANSWER).await.is_err() {
                            return;
                        }
                    }
                }
            });
        }
    });
    address
}

fn program(service: SocketAddr, more: &str) -> (Program, File) {
    let file = File::new(&format!(
        "service: {{ name: attacked }}\ninbound: [{{ listen: '127.0.0.1:0', to: 'http://{service}' }}]\n\
         admin: {{ listen: '127.0.0.1:0' }}\nexport: {{ console: off }}\n{more}"
    ));
    (Start::new(["run", "--config", file.name()]).run(), file)
}

/// Memory of a process in KiB, as the kernel says it; 0 where it does not.
fn memory(process: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or_default();
    line.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or_default()
}

/// The most memory that the program had since this was begun.
struct Most {
    stop: Arc<AtomicBool>,
    watching: std::thread::JoinHandle<u64>,
}

impl Most {
    fn of(process: u32) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let watching = std::thread::spawn(move || {
            let mut most = 0;
            while !stopped.load(Ordering::Relaxed) {
                most = most.max(memory(process));
                std::thread::sleep(Duration::from_millis(100));
            }
            most
        });
        Self { stop, watching }
    }

    fn end(self) -> u64 {
        self.stop.store(true, Ordering::Relaxed);
        self.watching.join().expect("it only looks")
    }
}

/// Opens streams and resets them, 2,000 per second, on connection after connection. Returns how many streams it opened, and how
/// often it was told to go.
fn rapid_reset(address: SocketAddr) -> (u64, u64) {
    let request = head("GET", "/attack", &[]);
    let begun = Instant::now();
    let (mut opened, mut cut_off) = (0, 0);
    while begun.elapsed() < ATTACK {
        let mut attacker = Frames::connect(address);
        for stream in (1..).step_by(2) {
            let due = begun + Duration::from_micros(500) * u32::try_from(opened).unwrap_or(u32::MAX);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            let open = frame(frames::HEADERS, frames::WHOLE, stream, &request);
            let reset = frame(frames::RST_STREAM, 0, stream, &frames::CANCEL.to_be_bytes());
            if !attacker.write(&[open, reset].concat()) {
                cut_off += 1;
                break;
            }
            opened += 1;
            if begun.elapsed() >= ATTACK {
                break;
            }
        }
    }
    (opened, cut_off)
}

/// Sends a head so slowly that it would never be complete. Whether it was cut off.
async fn slow_head(address: SocketAddr) -> bool {
    let Ok(mut stream) = TcpStream::connect(address).await else { return true };
    if stream.write_all(b"GET / HTTP/1.1\r\nHost: shop\r\nX-Slow: ").await.is_err() {
        return true;
    }
    let begun = Instant::now();
    while begun.elapsed() < ATTACK {
        let mut byte = [0];
        let end = tokio::time::timeout(Duration::from_secs(1), stream.read(&mut byte)).await;
        match end {
            Err(_) => {
                if stream.write_all(b"a").await.is_err() {
                    return true;
                }
            }
            // An answer such as 408 is one, too.
            Ok(_) => return true,
        }
    }
    false
}

/// Sends 200 requests per second on one HTTP/2 connection. Returns how many were answered with 200, and how many were not.
async fn http2_load(address: SocketAddr, stop: Arc<AtomicBool>) -> (u64, u64) {
    let stream = TcpStream::connect(address).await.expect("it listens");
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream))
            .await
            .expect("it speaks HTTP/2");
    tokio::spawn(connection);
    let (good, bad) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let mut ticks = tokio::time::interval(Duration::from_millis(5));
    let mut requests = tokio::task::JoinSet::new();
    while !stop.load(Ordering::Relaxed) {
        ticks.tick().await;
        let (mut sender, good, bad) = (sender.clone(), good.clone(), bad.clone());
        requests.spawn(async move {
            let request =
                http::Request::get("http://shop/items/2").body(Empty::<Bytes>::new()).expect("valid");
            let answered = async {
                let response = sender.send_request(request).await.ok()?;
                let status = response.status().as_u16();
                (status == 200).then_some(response.into_body().collect().await.ok()?.to_bytes())
            };
            match answered.await.as_deref() {
                Some(b"ok") => good.fetch_add(1, Ordering::Relaxed),
                _ => bad.fetch_add(1, Ordering::Relaxed),
            };
        });
    }
    while requests.join_next().await.is_some() {}
    (good.load(Ordering::Relaxed), bad.load(Ordering::Relaxed))
}

#[test]
fn attackers_are_cut_off_and_others_do_not_notice() {
    let _alone = alone();
    let runtime = Runtime::new().expect("threads can be started");
    let service = runtime.block_on(service());
    let (program, _file) = program(service, "timeouts: { request_header: 3s }");
    let address = program.address;
    let (stop, load) = (Arc::new(AtomicBool::new(false)), Load::start(address, 200));
    let http2 = runtime.spawn(http2_load(address, stop.clone()));
    std::thread::sleep(Duration::from_secs(2));
    let before = memory(program.id());
    let most = Most::of(program.id());
    let slow: Vec<_> = (0..SLOW_CALLERS).map(|_| runtime.spawn(slow_head(address))).collect();
    let (opened, cut_off) = rapid_reset(address);
    let slow = runtime.block_on(async {
        let mut left = 0;
        for one in slow {
            left += usize::from(one.await.expect("it does not panic"));
        }
        left
    });
    let most = most.end();
    stop.store(true, Ordering::Relaxed);
    let samples = load.stop();
    let (good, bad) = runtime.block_on(http2).expect("it does not panic");
    let (median, tail) = samples.percentiles(Duration::from_secs(2), Duration::from_secs(12));
    std::thread::sleep(Duration::from_secs(3));
    let after = memory(program.id());
    println!(
        "attack: {opened} streams opened and reset, {cut_off} connections cut off; {slow} of {SLOW_CALLERS} slow heads cut off"
    );
    println!(
        "attack: {} requests over HTTP/1 (median {median:?}, 99% {tail:?}), {good} over HTTP/2, {bad} failed; \
         memory {before} KiB before, {most} at most, {after} after",
        samples.count()
    );
    let page = program.metrics();
    let ended = page.sum("tracecar_http2_connections_ended_total", &[("reason", "resets")]) as u64;
    println!("attack: {ended} connections ended for their resets");
    assert_eq!(bad, 0, "no request of others fails");
    assert!(cut_off > 0 && ended > 0, "the attacker is told to go");
    assert_eq!(slow, SLOW_CALLERS, "slow heads are cut off");
    assert!(most < before + (64 << 10), "memory is bounded");
    assert_eq!(page.count("tracecar_panics_total"), 0);
}

#[test]
fn very_many_connections_are_served_and_take_little() {
    let _alone = alone();
    let limit = getrlimit(Resource::Nofile);
    setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit }).expect("up to the hard limit");
    let runtime = Runtime::new().expect("threads can be started");
    let service = runtime.block_on(service());
    let (program, _file) = program(service, "timeouts: { idle: 10m }");
    let address = program.address;
    let before = memory(program.id());
    runtime.block_on(async {
        let mut idle = Vec::with_capacity(IDLE);
        for _ in 0..IDLE {
            let mut stream = TcpStream::connect(address).await.expect("it listens");
            ask(&mut stream).await.expect("it is answered");
            idle.push(stream);
        }
        // What was busy for a moment is parked when it has been quiet for a second.
        tokio::time::sleep(Duration::from_secs(4)).await;
        let resting = memory(program.id());
        let errors = Arc::new(AtomicU64::new(0));
        let asked = Arc::new(AtomicU64::new(0));
        let busy: Vec<_> = (0..BUSY)
            .map(|number| {
                let (errors, asked) = (errors.clone(), asked.clone());
                tokio::spawn(async move {
                    // Spread over a second, at one request per second each.
                    tokio::time::sleep(Duration::from_micros(500) * u32::try_from(number).expect("small")).await;
                    let mut stream = TcpStream::connect(address).await.expect("it listens");
                    for _ in 0..10 {
                        let next = tokio::time::Instant::now() + Duration::from_secs(1);
                        match ask(&mut stream).await {
                            Some(()) => asked.fetch_add(1, Ordering::Relaxed),
                            None => errors.fetch_add(1, Ordering::Relaxed),
                        };
                        tokio::time::sleep_until(next).await;
                    }
                })
            })
            .collect();
        tokio::time::sleep(Duration::from_secs(6)).await;
        let both = memory(program.id());
        for one in busy {
            one.await.expect("it is served");
        }
        for stream in &mut idle {
            ask(stream).await.expect("whoever was idle is still served");
        }
        println!(
            "many: {} requests on {BUSY} connections beside {IDLE} idle ones, {} failed; memory {before} KiB before, {resting} \
             with those that rest ({} bytes each), {both} with both",
            asked.load(Ordering::Relaxed),
            errors.load(Ordering::Relaxed),
            resting.saturating_sub(before) * 1024 / IDLE as u64,
        );
        assert_eq!(errors.load(Ordering::Relaxed), 0);
        assert_eq!(program.metrics().count("tracecar_connections_open"), IDLE as u64);
    });
    assert_eq!(program.metrics().sum("tracecar_accept_errors_total", &[]), 0.0);
}

async fn ask(stream: &mut TcpStream) -> Option<()> {
    stream.write_all(GET).await.ok()?;
    let mut read = Vec::with_capacity(512);
    while !read.ends_with(b"\r\n\r\nok") {
        if stream.read_buf(&mut read).await.ok()? == 0 {
            return None;
        }
    }
    Some(())
}
