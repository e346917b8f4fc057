//! A caller that says what went wrong, in place of panicking: what fails under load is to be counted.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

/// How long an answer, or the next piece of a stream, may take. Much longer than anything should.
const BOUND: Duration = Duration::from_secs(10);

/// Why there is no answer, or no more of a stream. The word is what the summary counts by.
pub type Failure = String;

/// One connection that is kept.
pub struct Connection {
    stream: TcpStream,
    pub reader: BufReader<TcpStream>,
}

/// A response.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// By lowercase name; lines of one name are joined.
    pub headers: BTreeMap<String, String>,
    pub body: String,
}

impl Answer {
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }

    /// Whether the other side will close this connection.
    pub fn closes(&self) -> bool {
        self.header("connection").eq_ignore_ascii_case("close")
    }
}

impl Connection {
    pub fn to(address: SocketAddr) -> Result<Self, Failure> {
        let stream = TcpStream::connect_timeout(&address, BOUND);
        Self::of(stream.map_err(|error| format!("cannot connect: {}", error.kind()))?)
    }

    /// A connection from an address of this host that is not the usual one.
    pub fn from(source: [u8; 4], address: SocketAddr) -> Result<Self, Failure> {
        let connect = || {
            let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
            socket.bind(&SocketAddr::from((source, 0)).into())?;
            socket.connect(&address.into())?;
            Ok::<TcpStream, std::io::Error>(socket.into())
        };
        Self::of(connect().map_err(|error| format!("cannot connect: {}", error.kind()))?)
    }

    pub fn of(stream: TcpStream) -> Result<Self, Failure> {
        let prepare = || {
            stream.set_nodelay(true)?;
            stream.set_read_timeout(Some(BOUND))?;
            stream.try_clone()
        };
        let clone: std::io::Result<TcpStream> = prepare();
        let reader = BufReader::new(clone.map_err(|error| error.kind().to_string())?);
        Ok(Self { stream, reader })
    }

    /// Waits for as long as it takes: a service is not to close connections that it might be asked on.
    pub fn patient(self) -> Self {
        self.stream.set_read_timeout(None).expect("a TCP socket");
        self
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<(), Failure> {
        self.stream.write_all(bytes.as_ref()).map_err(|error| format!("cannot send: {}", error.kind()))
    }

    pub fn finish_sending(&self) {
        // It may be closed already, which the next read says.
        let _ = self.stream.shutdown(std::net::Shutdown::Write);
    }

    /// Whether the other side has closed it while nothing was asked.
    pub fn ended(&self) -> bool {
        let mut byte = [0];
        let looked = self
            .stream
            .set_nonblocking(true)
            .and_then(|()| self.stream.peek(&mut byte))
            .map_err(|error| error.kind());
        self.stream.set_nonblocking(false).expect("a TCP socket");
        looked != Err(ErrorKind::WouldBlock)
    }

    /// Asks, and reads the whole answer. `request` is the head without its empty line.
    pub fn ask(&mut self, request: &str) -> Result<Answer, Failure> {
        self.send(format!("{request}\r\n"))?;
        let (status, headers) = self.response_head()?;
        let length = headers.get("content-length").and_then(|length| length.parse().ok());
        let body = self.exactly(length.ok_or("answered without a length")?)?;
        Ok(Answer { status, headers, body: String::from_utf8_lossy(&body).into_owned() })
    }

    pub fn response_head(&mut self) -> Result<(u16, BTreeMap<String, String>), Failure> {
        let head = self.head()?.ok_or("closed before the answer")?;
        let status = head.split(' ').nth(1).and_then(|status| status.parse().ok());
        Ok((status.ok_or("answered with what is no HTTP")?, headers(&head)))
    }

    /// The next head; `None` at the end of the connection.
    pub fn head(&mut self) -> Result<Option<String>, Failure> {
        let mut head = String::new();
        loop {
            let before = head.len();
            let read = self.reader.read_line(&mut head).map_err(|error| unread(&error))?;
            match &head[before..] {
                "\r\n" => {
                    head.truncate(before);
                    return Ok(Some(head));
                }
                _ if read == 0 && before == 0 => return Ok(None),
                _ if read == 0 => return Err("closed within a head".to_owned()),
                _ => {}
            }
        }
    }

    pub fn line(&mut self) -> Result<String, Failure> {
        let mut line = String::new();
        match self.reader.read_line(&mut line).map_err(|error| unread(&error))? {
            0 => Err("closed within a stream".to_owned()),
            _ => Ok(line),
        }
    }

    pub fn exactly(&mut self, bytes: usize) -> Result<Vec<u8>, Failure> {
        let mut buffer = vec![0; bytes];
        self.reader.read_exact(&mut buffer).map_err(|error| unread(&error))?;
        Ok(buffer)
    }

    /// One WebSocket frame: its opcode and what it holds, at most 125 bytes.
    pub fn frame(&mut self) -> Result<(u8, Vec<u8>), Failure> {
        let head = self.exactly(2)?;
        let (opcode, masked, length) = (head[0] & 0x0f, head[1] & 0x80 != 0, usize::from(head[1] & 0x7f));
        let mask = self.exactly(if masked { 4 } else { 0 })?;
        let mut content = self.exactly(length)?;
        if masked {
            content.iter_mut().zip(mask.iter().cycle()).for_each(|(byte, mask)| *byte ^= mask);
        }
        Ok((opcode, content))
    }
}

/// A WebSocket frame with less than 126 bytes; callers mask theirs (RFC 6455 section 5.3).
pub fn frame(opcode: u8, content: &[u8], mask: Option<[u8; 4]>) -> Vec<u8> {
    let length = u8::try_from(content.len()).expect("a short frame");
    let mut frame = vec![0x80 | opcode, length | if mask.is_some() { 0x80 } else { 0 }];
    frame.extend(mask.iter().flatten());
    let mask = mask.unwrap_or_default();
    frame.extend(content.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
    frame
}

/// The header lines of a head.
pub fn headers(head: &str) -> BTreeMap<String, String> {
    let mut headers = BTreeMap::new();
    for (name, value) in head.lines().skip(1).filter_map(|line| line.split_once(':')) {
        let all: &mut String = headers.entry(name.to_ascii_lowercase()).or_default();
        if !all.is_empty() {
            all.push_str(", ");
        }
        all.push_str(value.trim());
    }
    headers
}

fn unread(error: &std::io::Error) -> Failure {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut => format!("no answer within {BOUND:?}"),
        ErrorKind::UnexpectedEof => "closed within an answer".to_owned(),
        kind => format!("cannot read: {kind}"),
    }
}
