//! A service that does as it is told: a plain socket, answered by a script.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::time::Duration;

use socket2::SockRef;

use super::PATIENCE;

/// Listens for as long as the process lives; each connection runs the script on a thread of its own.
pub struct Origin {
    pub address: SocketAddr,
}

impl Origin {
    pub fn new(script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        Self::on(TcpListener::bind("127.0.0.1:0").expect("a port is free"), script)
    }

    /// The same where somebody else has bound a socket.
    pub fn on(listener: TcpListener, script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Self {
        let address = listener.local_addr().expect("it is bound");
        let script = Arc::new(script);
        std::thread::spawn(move || {
            while let Ok((stream, _)) = listener.accept() {
                let script = script.clone();
                std::thread::spawn(move || script(&mut Peer::new(stream)));
            }
        });
        Self { address }
    }

    /// Answers every request on a connection with the same bytes.
    pub fn answering(response: impl Into<Vec<u8>>) -> Self {
        let response = response.into();
        Self::new(move |peer| {
            while peer.request().is_some() {
                peer.send(&response);
            }
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }
}

/// An address at which nothing listens, kept so that nobody else begins to.
pub struct Nowhere {
    pub address: SocketAddr,
    socket: socket2::Socket,
}

impl Nowhere {
    pub fn new() -> Self {
        let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
        let socket = socket.expect("a descriptor is free");
        socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a port is free");
        let address = socket.local_addr().ok().and_then(|address| address.as_socket());
        Self { address: address.expect("it is bound"), socket }
    }

    /// From now on somebody listens there.
    pub fn becomes(self, script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Origin {
        self.socket.listen(128).expect("it is bound");
        Origin::on(self.socket.into(), script)
    }
}

/// One end of a connection.
pub struct Peer {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
}

/// A message as it came.
#[derive(Debug, Clone)]
pub struct Message {
    /// Start line and header lines, each with its line end, without the empty line.
    pub head: String,
    pub body: Vec<u8>,
}

impl Message {
    pub fn header<'m>(&'m self, name: &'m str) -> Option<&'m str> {
        self.headers(name).next()
    }

    pub fn headers<'m>(&'m self, name: &'m str) -> impl Iterator<Item = &'m str> {
        self.head.lines().skip(1).filter_map(move |line| {
            let (key, value) = line.split_once(':')?;
            key.eq_ignore_ascii_case(name).then(|| value.trim())
        })
    }

    pub fn status(&self) -> u16 {
        self.head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("a status line")
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

impl Peer {
    pub fn new(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
        let reader = BufReader::new(stream.try_clone().expect("a descriptor is free"));
        Self { stream, reader }
    }

    pub fn connect(address: SocketAddr) -> Self {
        Self::new(TcpStream::connect_timeout(&address, Duration::from_secs(5)).expect("it listens"))
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // Whether the other side still listens is what some tests are about.
        let _ = self.stream.write_all(bytes.as_ref());
    }

    /// Reads a request; `None` at the end of the connection.
    pub fn request(&mut self) -> Option<Message> {
        self.message(true)
    }

    /// Reads a response; one without length is read to the end of the connection.
    pub fn response(&mut self) -> Message {
        self.message(false).expect("a response comes")
    }

    /// Reads a response to HEAD, or of a status without content.
    pub fn response_head(&mut self) -> Message {
        Message { head: self.head().expect("a response comes"), body: Vec::new() }
    }

    fn message(&mut self, request: bool) -> Option<Message> {
        let mut message = Message { head: self.head()?, body: Vec::new() };
        let length = message.header("content-length").map(|value| value.parse::<usize>().expect("a length"));
        let chunked = message.header("transfer-encoding").is_some_and(|value| value.contains("chunked"));
        match length {
            _ if chunked => message.body = self.chunks()?,
            Some(length) => {
                message.body.resize(length, 0);
                self.reader.read_exact(&mut message.body).ok()?;
            }
            None if request => {}
            None => drop(self.reader.read_to_end(&mut message.body).ok()?),
        }
        Some(message)
    }

    pub fn head(&mut self) -> Option<String> {
        let mut head = String::new();
        loop {
            let line = self.line()?;
            if line == "\r\n" {
                return Some(head);
            }
            head.push_str(&line);
        }
    }

    pub fn line(&mut self) -> Option<String> {
        let mut line = Vec::new();
        match self.reader.read_until(b'\n', &mut line) {
            Ok(0) | Err(_) => None,
            Ok(_) => Some(String::from_utf8_lossy(&line).into_owned()),
        }
    }

    /// Reads a chunked body to its end; `None` where it ends without its last chunk.
    pub fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size =
                usize::from_str_radix(self.line()?.trim().split(';').next()?, 16).expect("a chunk size");
            let mut chunk = vec![0; size + 2];
            if size == 0 {
                while self.line()? != "\r\n" {}
                return Some(body);
            }
            self.reader.read_exact(&mut chunk).ok()?;
            body.extend_from_slice(&chunk[..size]);
        }
    }

    pub fn exactly(&mut self, bytes: usize) -> Vec<u8> {
        let mut buffer = vec![0; bytes];
        self.reader.read_exact(&mut buffer).expect("that much comes");
        buffer
    }

    /// Reads to the end; an error is one, too.
    pub fn rest(&mut self) -> std::io::Result<Vec<u8>> {
        let mut rest = Vec::new();
        self.reader.read_to_end(&mut rest).map(|_| rest)
    }

    /// Closes the sending side.
    pub fn finish_sending(&mut self) {
        self.stream.shutdown(std::net::Shutdown::Write).expect("it is open");
    }

    /// Closes with a reset.
    pub fn reset(self) {
        SockRef::from(&self.stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
        // Both handles have to go for the socket to close.
        drop(self.reader);
        drop(self.stream);
    }
}
