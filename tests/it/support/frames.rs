//! HTTP/2 by hand: frames as bytes, for peers that do what no library lets them do.

use std::io::{BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};

use super::PATIENCE;
use super::origin::Peer;

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 0x1;
pub const ACK: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;
/// A message that is nothing but its head.
pub const WHOLE: u8 = END_STREAM | END_HEADERS;

pub const PROTOCOL_ERROR: u32 = 1;
pub const REFUSED_STREAM: u32 = 7;
pub const CANCEL: u32 = 8;
pub const ENHANCE_YOUR_CALM: u32 = 11;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A frame that has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

impl Frame {
    pub fn ends_stream(&self) -> bool {
        self.flags & END_STREAM != 0
    }

    /// The error code of RST_STREAM, or GOAWAY.
    pub fn error(&self) -> u32 {
        number(&self.payload[if self.kind == GOAWAY { 4 } else { 0 }..])
    }

    /// The last stream that a GOAWAY names.
    pub fn last(&self) -> u32 {
        number(&self.payload)
    }

    /// The status of a response's HEADERS, which comes first in them.
    pub fn status(&self) -> u16 {
        match self.payload[..] {
            [indexed @ 0x88..=0x8e, ..] => [200, 204, 206, 304, 400, 404, 500][usize::from(indexed - 0x88)],
            [0x48 | 0x08, 3, a, b, c, ..] => String::from_utf8_lossy(&[a, b, c]).parse().expect("a status"),
            [0x48 | 0x08, length, ..] if length & 0x80 != 0 => {
                digits(&self.payload[2..2 + usize::from(length & 0x7f)])
            }
            _ => panic!("no status first: {:?}", self.payload),
        }
    }
}

fn number(bytes: &[u8]) -> u32 {
    u32::from_be_bytes(bytes[..4].try_into().expect("four bytes"))
}

/// Three digits in Huffman's code (RFC 7541 appendix B): 0 to 2 have five bits, the others six.
fn digits(bytes: &[u8]) -> u16 {
    let mut bits = bytes.iter().flat_map(|byte| (0..8).rev().map(move |bit| u16::from(byte >> bit & 1)));
    let mut take = |count: usize| (0..count).fold(0, |all, _| all << 1 | bits.next().expect("a digit"));
    (0..3).fold(0, |status, _| {
        let first = take(5);
        status * 10 + if first <= 2 { first } else { (first << 1 | take(1)) - 0x19 + 3 }
    })
}

/// One end of an HTTP/2 connection.
pub struct Frames {
    pub stream: TcpStream,
    reader: BufReader<TcpStream>,
}

impl Frames {
    /// A caller that has said what it has to at first.
    pub fn connect(address: SocketAddr) -> Self {
        Self::connect_with(address, &[])
    }

    /// The same with these settings.
    pub fn connect_with(address: SocketAddr, settings: &[(u16, u32)]) -> Self {
        let mut frames = Self::over(TcpStream::connect(address).expect("it listens"));
        frames.write(PREFACE);
        frames.send(SETTINGS, 0, 0, &payload(settings));
        frames
    }

    /// A service that has been called, and has answered the preface.
    pub fn accept(peer: &mut Peer) -> Self {
        let mut frames = Self::over(peer.stream.try_clone().expect("a descriptor is free"));
        let mut preface = [0; PREFACE.len()];
        frames.reader.read_exact(&mut preface).expect("a preface");
        frames.send(SETTINGS, 0, 0, &[]);
        frames
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_nodelay(true).expect("a TCP socket");
        stream.set_read_timeout(Some(PATIENCE)).expect("a TCP socket");
        stream.set_write_timeout(Some(PATIENCE)).expect("a TCP socket");
        let reader = BufReader::new(stream.try_clone().expect("a descriptor is free"));
        Self { stream, reader }
    }

    /// Whether the other side still listens is what some tests are about.
    pub fn write(&mut self, bytes: &[u8]) -> bool {
        self.stream.write_all(bytes).is_ok()
    }

    pub fn send(&mut self, kind: u8, flags: u8, stream: u32, payload: &[u8]) -> bool {
        self.write(&frame(kind, flags, stream, payload))
    }

    /// A whole `GET` without content.
    pub fn get(&mut self, stream: u32, path: &str) {
        self.send(HEADERS, WHOLE, stream, &head("GET", path, &[]));
    }

    pub fn reset(&mut self, stream: u32) -> bool {
        self.send(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())
    }

    /// The next frame; `None` at the end of the connection, in whatever way.
    pub fn next(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.reader.read_exact(&mut head).ok()?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]) as usize;
        let mut payload = vec![0; length];
        self.reader.read_exact(&mut payload).ok()?;
        let stream = number(&head[5..]) & 0x7fff_ffff;
        Some(Frame { kind: head[3], flags: head[4], stream, payload })
    }

    /// The next frame that `is` wanted; others are passed over, but SETTINGS and PINGs are acknowledged.
    pub fn find(&mut self, is: impl Fn(&Frame) -> bool) -> Frame {
        let mut passed = Vec::new();
        loop {
            let Some(next) = self.next() else { panic!("the connection ended after {passed:?}") };
            if is(&next) {
                return next;
            }
            if next.flags & ACK == 0 && matches!(next.kind, SETTINGS | PING) {
                let payload = if next.kind == PING { &next.payload[..] } else { &[] };
                self.send(next.kind, ACK, 0, payload);
            }
            passed.push((next.kind, next.flags, next.stream, next.payload.len()));
        }
    }

    /// The next frame of one kind on one stream.
    pub fn on(&mut self, kind: u8, stream: u32) -> Frame {
        self.find(|frame| frame.kind == kind && frame.stream == stream)
    }

    /// The status, and then the end, of the response on a stream.
    pub fn answer(&mut self, stream: u32) -> u16 {
        let head = self.on(HEADERS, stream);
        if !head.ends_stream() {
            self.find(|frame| frame.stream == stream && frame.kind != WINDOW_UPDATE && frame.ends_stream());
        }
        head.status()
    }

    /// The GOAWAY before the end of the connection: the last stream and the error code of it.
    pub fn goaway(&mut self) -> (u32, u32) {
        let frame = self.on(GOAWAY, 0);
        (frame.last(), frame.error())
    }
}

/// The bytes of a frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("it is short").to_be_bytes();
    let mut bytes = vec![length[1], length[2], length[3], kind, flags];
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// Header fields as they are: none is indexed (RFC 7541 section 6.2.2).
pub fn block<'a>(fields: impl IntoIterator<Item = (&'a str, &'a str)>) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, value) in fields {
        bytes.push(0);
        for text in [name, value] {
            length(&mut bytes, text.len());
            bytes.extend(text.as_bytes());
        }
    }
    bytes
}

/// The same of a request, with whatever further fields.
pub fn head(method: &str, path: &str, further: &[(&str, &str)]) -> Vec<u8> {
    let pseudo = [(":method", method), (":scheme", "http"), (":authority", "shop"), (":path", path)];
    block(pseudo.into_iter().chain(further.iter().copied()))
}

/// A length with a prefix of seven bits (RFC 7541 section 5.1).
fn length(bytes: &mut Vec<u8>, length: usize) {
    if length < 127 {
        return bytes.push(length as u8);
    }
    bytes.push(127);
    let mut rest = length - 127;
    while rest >= 128 {
        bytes.push((rest % 128) as u8 | 128);
        rest /= 128;
    }
    bytes.push(rest as u8);
}

fn payload(settings: &[(u16, u32)]) -> Vec<u8> {
    settings.iter().flat_map(|(id, value)| [&id.to_be_bytes()[..], &value.to_be_bytes()].concat()).collect()
}
