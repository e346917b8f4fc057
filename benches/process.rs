//! What it costs to ask which process makes a call, and what it serves: beside a server of eight workers, on a machine with
//! ten thousand connections in TIME_WAIT.
//!
//!     cargo bench --bench process

use std::io::Read as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use tracecar::net::process::Processes;

const WORKERS: usize = 8;
const TIME_WAIT: usize = 10_000;

/// Forks workers; each accepts one connection, calls back, and says on the connection that it has.
const PREFORK: &str = r#"
import os, socket, sys
listener = socket.create_server(("127.0.0.1", 0))
for worker in range(int(sys.argv[2])):
    if os.fork() == 0:
        connection, _ = listener.accept()
        call = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
        connection.sendall(b"a")
        connection.recv(1)
        os._exit(0)
print(listener.getsockname()[1], flush=True)
sys.stdin.read()
"#;

/// Time enough for any machine.
const PATIENT: Duration = Duration::from_secs(5);

/// Fills the kernel's table with connections that are over.
fn leave_behind(connections: usize) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    for _ in 0..connections {
        let near = TcpStream::connect(address).unwrap();
        let (mut far, _) = listener.accept().unwrap();
        drop(near);
        // The side that closes first keeps the memory of it.
        let _ = far.read(&mut [0; 1]);
    }
}

fn start(calls: &TcpListener) -> (Child, u16) {
    let port = calls.local_addr().unwrap().port().to_string();
    let mut command = Command::new("python3");
    command.args(["-c", PREFORK, &port, &WORKERS.to_string()]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut server = command.spawn().expect("python3 is there");
    let mut line = String::new();
    let mut said = std::io::BufReader::new(server.stdout.take().unwrap());
    std::io::BufRead::read_line(&mut said, &mut line).unwrap();
    (server, line.trim().parse().unwrap())
}

fn processes(criterion: &mut Criterion) {
    if !std::path::Path::new("/proc/net/tcp").exists() {
        return eprintln!("SKIPPED: there is no /proc/net/tcp here");
    }
    let calls = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut server, port) = start(&calls);
    let mut workers = Vec::new();
    let mut called: Vec<(TcpStream, SocketAddr)> = Vec::new();
    for _ in 0..WORKERS {
        let mut worker = TcpStream::connect(("127.0.0.1", port)).unwrap();
        worker.read_exact(&mut [0]).unwrap();
        workers.push(worker);
        called.push(calls.accept().unwrap());
    }
    leave_behind(TIME_WAIT);
    let lineage = std::sync::Arc::new(tracecar::exchange::Lineage::new());
    let rules = tracecar::exchange::LineageRules::default();
    let headers = http::HeaderMap::new();
    let seen = tracecar::exchange::Seen { path: "/", query: None, headers: &headers, correlation: None };
    let open: Vec<_> = (1_u64..)
        .zip(&workers)
        .map(|(number, worker)| {
            let whose = tracecar::exchange::Whose {
                trace_id: u128::from(number).into(),
                span_id: number.into(),
                flags: 1,
                tracestate: None,
                route: None,
                correlation: None,
            };
            let open = lineage.open(&rules, whose, &seen);
            open.handed_over(worker.local_addr().unwrap(), worker.peer_addr().unwrap());
            open
        })
        .collect();
    let call =
        tracecar::exchange::Call { seen, destination: "other:80", arrived_at: None, owner: None, body: None };
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let processes = Processes::default();
    let (stream, peer) = &called[3];
    let ends = (*peer, stream.local_addr().unwrap());
    let mut group = criterion.benchmark_group("process");
    group.bench_function("owner_of", |bencher| {
        bencher
            .iter(|| runtime.block_on(processes.owner_of(ends.0, ends.1, PATIENT)).expect("it is visible"));
    });
    let caller = runtime.block_on(processes.owner_of(ends.0, ends.1, PATIENT)).expect("it is visible");
    let mut asked = lineage.undecided_connections(&rules, &call).expect("all were handed over");
    group.bench_function("serves, the first time", |bencher| {
        bencher.iter(|| {
            runtime.block_on(processes.serves(&caller, asked.clone(), PATIENT)).expect("nothing is shared")
        });
    });
    let owner =
        runtime.block_on(processes.serves(&caller, asked.clone(), PATIENT)).expect("nothing is shared");
    asked = owner.serves.into_iter().chain(owner.elsewhere).collect();
    assert_eq!(asked.len(), WORKERS);
    group.bench_function("serves, of known sockets", |bencher| {
        bencher.iter(|| {
            runtime.block_on(processes.serves(&caller, asked.clone(), PATIENT)).expect("nothing is shared")
        });
    });
    group.finish();
    drop(open);
    let _ = server.kill();
    let _ = server.wait();
}

criterion_group!(benches, processes);
criterion_main!(benches);
