//! Whose call is it, with real processes.

use std::net::SocketAddr;
use std::process::Stdio;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::HeaderMap;
use opentelemetry::trace::{SpanId, TraceId};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::process::{Child, Command};
use tracecar::exchange::{
    Call, HandedOver, Lineage, LineageRules, Method, OpenExchange, Seen, Verdict, Whose,
};
use tracecar::net::process::{Lookups, ProcessSockets, Processes};

/// A prefork server: it listens on one port (on [::] for both families, where there is IPv6) and forks two workers. A worker
/// accepts one connection; for each byte on it, it connects to the given port and says its process id there. For an `f` it
/// then forks, and says so: from then on two processes hold its sockets. For each line that it is told it forks another worker. All
/// leave when their connection, or the input, ends.
const PREFORK: &str = r#"
import os, select, socket, sys
try:
    listener = socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True)
except OSError:
    listener = socket.create_server(("127.0.0.1", 0))
print(listener.getsockname()[1], flush=True)
def work():
    if os.fork() == 0:
        if listener not in select.select([listener, sys.stdin], [], [])[0]:
            os._exit(0)
        connection, _ = listener.accept()
        listener.close()
        connection.sendall(b"a")
        calls = []
        while asked := connection.recv(1):
            call = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
            calls.append(call)
            if asked == b"f" and os.fork() == 0:
                connection.recv(1)
                os._exit(0)
            call.sendall(b"%d\n" % os.getpid())
        os._exit(0)
work()
work()
while sys.stdin.readline():
    work()
"#;

struct Prefork {
    calls: TcpListener,
    port: u16,
    server: Child,
}

impl Prefork {
    /// `None`, loudly, where it cannot run.
    async fn start() -> Option<Self> {
        if !std::path::Path::new("/proc/net/tcp").exists() {
            eprintln!("SKIPPED: there is no /proc/net/tcp here");
            return None;
        }
        let calls = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let mut command = Command::new("python3");
        command.arg("-c").arg(PREFORK).arg(calls.local_addr().unwrap().port().to_string());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null()).kill_on_drop(true);
        let Ok(mut server) = command.spawn() else {
            eprintln!("SKIPPED: there is no python3 here");
            return None;
        };
        let mut line = String::new();
        BufReader::new(server.stdout.take().unwrap()).read_line(&mut line).await.unwrap();
        Some(Self { calls, port: line.trim().parse().unwrap(), server })
    }

    /// Starts another worker. To be asked for while all others are busy.
    async fn fork(&mut self) {
        self.server.stdin.as_mut().unwrap().write_all(b"another\n").await.unwrap();
    }

    /// A connection that a worker has accepted.
    async fn connect(&self) -> TcpStream {
        let mut stream = self.connect_in_the_queue().await;
        assert_eq!(stream.read_u8().await.unwrap(), b'a');
        stream
    }

    async fn connect_in_the_queue(&self) -> TcpStream {
        TcpStream::connect(("127.0.0.1", self.port)).await.unwrap()
    }

    /// Lets the worker at the other end make a call; returns its two ends, and the worker's process id.
    async fn call(&self, worker: &mut TcpStream, how: u8) -> (TcpStream, SocketAddr, u32) {
        worker.write_all(&[how]).await.unwrap();
        let (mut stream, peer) = self.calls.accept().await.unwrap();
        let mut line = String::new();
        BufReader::new(&mut stream).read_line(&mut line).await.unwrap();
        (stream, peer, line.trim().parse().unwrap())
    }
}

/// Who made a call. Whoever is not found among the processes that are known is found when all are looked at again, no more
/// often than once a second: on a machine where anything can come between two looks, that is what is promised.
async fn owner_of(processes: &Processes, (stream, peer): (&TcpStream, SocketAddr)) -> Arc<ProcessSockets> {
    let until = Instant::now() + Duration::from_secs(10);
    loop {
        if let Some(owner) = processes.owner_of(peer, stream.local_addr().unwrap(), PATIENT).await {
            return owner;
        }
        assert!(Instant::now() < until, "it is visible: {processes:?}");
        eprintln!("not found at once: {processes:?}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

fn open(lineage: &Arc<Lineage>, number: u64, connection: &TcpStream) -> OpenExchange {
    let headers = HeaderMap::new();
    let seen = Seen { path: "/", query: None, headers: &headers, correlation: None };
    let whose = Whose {
        trace_id: TraceId::from(u128::from(number)),
        span_id: SpanId::from(number),
        flags: 1,
        tracestate: None,
        route: None,
        correlation: None,
    };
    let open = lineage.open(&LineageRules::default(), whose, &seen);
    open.handed_over(connection.local_addr().unwrap(), connection.peer_addr().unwrap());
    open
}

fn with_call<T>(ask: impl FnOnce(Call<'_>) -> T) -> T {
    let headers = HeaderMap::new();
    let seen = Seen { path: "/", query: None, headers: &headers, correlation: None };
    ask(Call { seen, destination: "other:80", arrived_at: None, owner: None, body: None })
}

fn connections(lineage: &Lineage) -> Vec<HandedOver> {
    with_call(|call| lineage.undecided_connections(&LineageRules::default(), &call)).unwrap()
}

/// Time enough for any machine.
const PATIENT: Duration = Duration::from_secs(30);

#[tokio::test]
async fn the_worker_that_calls_is_found_and_so_is_what_it_serves() {
    let Some(app) = Prefork::start().await else { return };
    let lineage = Arc::new(Lineage::new());
    let (mut first, mut second) = (app.connect().await, app.connect().await);
    // Nobody is left to accept this one.
    let waiting = app.connect_in_the_queue().await;
    let _open = [open(&lineage, 1, &first), open(&lineage, 2, &second), open(&lineage, 3, &waiting)];
    let processes = Processes::default();
    for (worker, number) in [(&mut first, 1_u64), (&mut second, 2)] {
        let (stream, peer, id) = app.call(worker, b'c').await;
        let caller = owner_of(&processes, (&stream, peer)).await;
        assert_eq!(caller.process, id);
        let owner =
            processes.serves(&caller, connections(&lineage), PATIENT).await.expect("nothing is shared");
        let find = || {
            with_call(|call| lineage.find(&LineageRules::default(), &Call { owner: Some(&owner), ..call }))
        };
        let mut verdict = find();
        // It is watched before it decides.
        while let Verdict::Unknown { call: Some(call), .. } = verdict {
            lineage.call_answered(call);
            verdict = find();
        }
        let Verdict::Parent { whose, method, .. } = verdict else { panic!("{verdict:?}") };
        assert_eq!((whose.span_id, method), (SpanId::from(number), Method::Process));
    }
    let Lookups { found, shared, over_budget, .. } = processes.lookups();
    assert_eq!((found, shared, over_budget), (4, 0, 0));
}

#[tokio::test]
async fn a_worker_that_began_after_all_were_looked_at_is_found() {
    let Some(mut app) = Prefork::start().await else { return };
    let processes = Processes::default();
    let mut workers = vec![app.connect().await, app.connect().await];
    for _ in 0..3 {
        let (stream, peer, id) = app.call(workers.last_mut().unwrap(), b'c').await;
        // All are looked at for the first of them; the next such look is a second away.
        let caller = owner_of(&processes, (&stream, peer)).await;
        assert_eq!(caller.process, id);
        app.fork().await;
        workers.push(app.connect().await);
    }
}

#[tokio::test]
async fn a_caller_whose_connection_is_no_more_serves_nothing() {
    let Some(app) = Prefork::start().await else { return };
    let lineage = Arc::new(Lineage::new());
    let (mut first, mut second) = (app.connect().await, app.connect().await);
    let _open = [open(&lineage, 1, &first), open(&lineage, 2, &second)];
    let processes = Processes::default();
    let (stream, peer, _) = app.call(&mut first, b'c').await;
    let gone = owner_of(&processes, (&stream, peer)).await;
    let (other, _, _) = app.call(&mut second, b'c').await;
    drop(first);
    // The worker leaves, and its end of the call's connection closes with it.
    let mut stream = stream;
    assert_eq!(stream.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(processes.serves(&gone, connections(&lineage), PATIENT).await, None);
    drop(other);
}

#[tokio::test]
async fn a_socket_that_two_processes_hold_is_owned_by_none() {
    let Some(app) = Prefork::start().await else { return };
    let lineage = Arc::new(Lineage::new());
    let mut worker = app.connect().await;
    let _open = open(&lineage, 1, &worker);
    let processes = Processes::default();
    let (before, peer, _) = app.call(&mut worker, b'c').await;
    let caller = owner_of(&processes, (&before, peer)).await;
    let (forked, peer, _) = app.call(&mut worker, b'f').await;
    assert_eq!(processes.owner_of(peer, forked.local_addr().unwrap(), PATIENT).await, None);
    assert_eq!(processes.serves(&caller, connections(&lineage), PATIENT).await, None);
    let Lookups { found, shared, over_budget, .. } = processes.lookups();
    assert_eq!((found, shared, over_budget), (1, 2, 0));
}

#[tokio::test]
async fn without_time_there_is_no_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let stream = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    let processes = Processes::default();
    let ends = (stream.local_addr().unwrap(), stream.peer_addr().unwrap());
    assert_eq!(processes.owner_of(ends.0, ends.1, Duration::ZERO).await, None);
    assert_eq!(processes.lookups(), Lookups { over_budget: 1, ..Lookups::default() });
}

#[tokio::test]
async fn a_connection_that_does_not_exist_has_no_owner() {
    let processes = Processes::default();
    let nowhere = SocketAddr::from(([127, 0, 0, 1], 1));
    assert_eq!(processes.owner_of(nowhere, nowhere, PATIENT).await, None);
    assert_eq!(processes.lookups(), Lookups { not_found: 1, ..Lookups::default() });
}
