//! A service that keeps what it gets, and takes only what cannot be understood in two ways.

use std::io::{BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, OnceLock};
use std::thread::JoinHandle;

use socket2::{Domain, Socket, Type};

use crate::support::strict::{Strict, Whole, is_token};

/// A request as it came.
#[derive(Debug, Default)]
pub struct Seen {
    pub message: Strict,
    /// Whether all of it came.
    pub complete: bool,
    /// What no sender may send.
    pub fault: Option<String>,
}

impl Seen {
    pub fn target(&self) -> String {
        let line = self.message.lines().next().unwrap_or_default();
        String::from_utf8_lossy(line.split(|byte| *byte == b' ').nth(1).unwrap_or_default()).into_owned()
    }
}

/// Listens until it is told to stop.
pub struct Recorder {
    pub address: SocketAddr,
    /// Whoever connects from there says that nobody else will.
    last: Arc<OnceLock<SocketAddr>>,
    thread: JoinHandle<Vec<Seen>>,
}

impl Recorder {
    pub fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let last = Arc::new(OnceLock::new());
        let until = last.clone();
        let thread = std::thread::spawn(move || {
            let mut connections = Vec::new();
            while let Ok((stream, peer)) = listener.accept() {
                if until.get() == Some(&peer) {
                    break;
                }
                connections.push(std::thread::spawn(move || record(stream)));
            }
            connections.into_iter().flat_map(|thread| thread.join().expect("it does not panic")).collect()
        });
        Self { address, last, thread }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// All that has come. Whoever sends has to have closed its connections.
    pub fn seen(self) -> Vec<Seen> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor is free");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port is free");
        let own = socket.local_addr().ok().and_then(|address| address.as_socket()).expect("it is bound");
        self.last.set(own).expect("it is told once");
        // Connections are taken in the order in which they came.
        socket.connect(&self.address.into()).expect("it listens");
        self.thread.join().expect("it does not panic")
    }
}

fn record(stream: TcpStream) -> Vec<Seen> {
    let _ = stream.set_nodelay(true);
    let mut writer = stream.try_clone().expect("a descriptor is free");
    let mut reader = BufReader::new(stream);
    let mut all = Vec::new();
    loop {
        let mut message = Strict::default();
        let whole = take(&mut reader, &mut message);
        let complete = whole == Ok(true);
        if complete {
            let content: &[u8] = if message.head.starts_with(b"HEAD ") { b"" } else { b"ok" };
            let head: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n";
            let _ = writer.write_all(&[head, content].concat());
        }
        let fault = whole.err();
        if !message.head.is_empty() || fault.is_some() {
            all.push(Seen { message, complete, fault });
        }
        if !complete {
            return all;
        }
    }
}

/// Reads one request.
fn take(reader: &mut BufReader<TcpStream>, message: &mut Strict) -> Whole {
    if !message.read_head(reader)? {
        return Ok(false);
    }
    request_line(message.lines().next().unwrap_or_default())?;
    match &message.all("host")[..] {
        [_] => message.read_content(reader).unwrap_or(Ok(true)),
        hosts => Err(format!("Host is {hosts:?}")),
    }
}

fn request_line(line: &[u8]) -> Result<(), String> {
    let parts: Vec<&[u8]> = line.split(|byte| *byte == b' ').collect();
    match parts[..] {
        [method, target, b"HTTP/1.1"]
            if is_token(method)
                && !target.is_empty()
                && target.iter().all(|byte| *byte > b' ' && *byte != 0x7f) =>
        {
            Ok(())
        }
        _ => Err(format!("request line \"{}\"", line.escape_ascii())),
    }
}
