//! What a connection speaks that was never addressed to us: found out from its first bytes, which are kept.
//!
//! Only what is certain is named. Many protocols begin with a word in capitals, so a word is not enough for HTTP/1.

use std::io;
use std::time::Duration;

use bytes::BytesMut;
use tokio::io::AsyncReadExt;
use tokio::time::{Instant, timeout, timeout_at};

use super::server::PREFACE;
use super::stream::Stream;

/// How long to wait for a first byte, where nobody says otherwise. A client that says nothing for that long waits for
/// the server to speak first.
pub const SILENCE: Duration = Duration::from_millis(300);

/// The first byte of a TLS connection: a handshake record.
const HANDSHAKE: u8 = 0x16;

/// Room for the first read: an ordinary request head fits, and a TLS client's first message.
const FIRST_READ: usize = 2048;

/// Longest method that is taken for one.
const METHOD_BYTES: usize = 24;

/// A request target that is longer is not read to its end, and believed.
const TARGET_BYTES: usize = 16 * 1024;

/// What a connection begins with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum FirstBytes {
    /// A request of HTTP/1.
    Http1,
    /// HTTP/2 without TLS.
    Http2,
    /// TLS.
    Tls(Hello),
    /// Something else.
    Other,
    /// Nothing so far.
    Silent,
    /// Nothing, and nothing will come: its end.
    Ended,
}

/// What a TLS client says that it wants.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hello {
    /// The host (SNI).
    pub server_name: Option<String>,
    /// The protocols it would speak (ALPN), best first; empty where it says nothing of them.
    pub alpn: Vec<Vec<u8>>,
}

/// Finds out what `stream` speaks. Waits for the first byte no longer than `silence`, or for as long as it takes; and from
/// then on for the rest no longer than `limit`. `read` is what has been read of it already, and is all that has been read
/// afterwards, whatever the result, and also if this is given up.
///
/// # Errors
/// Of a connection that breaks.
pub async fn detect(
    stream: &mut Stream,
    read: &mut BytesMut,
    silence: Option<Duration>,
    limit: Duration,
) -> io::Result<FirstBytes> {
    if read.is_empty() {
        let first = async {
            // Who says nothing for long should not hold a buffer meanwhile. That there is something to read may be a
            // false alarm, so the bound is on reading it.
            stream.readable().await?;
            read.reserve(FIRST_READ);
            stream.read_buf(read).await
        };
        let came = match silence {
            Some(silence) => timeout(silence, first).await,
            None => Ok(first.await),
        };
        match came {
            Ok(Ok(0)) => return Ok(FirstBytes::Ended),
            Ok(came) => drop(came?),
            Err(_) => return Ok(FirstBytes::Silent),
        }
    }
    let until = Instant::now() + limit;
    loop {
        match guess(read) {
            Guess::Certain(found) => return Ok(found),
            Guess::Tls => {
                let hello = match timeout_at(until, peek(stream, read)).await {
                    Ok(hello) => hello?,
                    Err(_) => None,
                };
                return Ok(hello.map_or(FirstBytes::Other, FirstBytes::Tls));
            }
            Guess::More(otherwise) => match timeout_at(until, stream.read_buf(read)).await {
                Ok(Ok(n)) if n > 0 => {}
                Ok(Err(error)) => return Err(error),
                Ok(Ok(_)) | Err(_) => return Ok(otherwise),
            },
        }
    }
}

/// Whether these are, or begin, the first bytes of a TLS client.
pub(super) fn begins_tls(bytes: &[u8]) -> bool {
    bytes.first() == Some(&HANDSHAKE)
}

/// Reads a TLS client's first message, and leaves it and all else that came in `read`. `None` where it is no such
/// message, or ends before it is whole. Nothing but that end bounds it.
///
/// # Errors
/// Of a connection that breaks.
pub async fn peek(stream: &mut Stream, read: &mut BytesMut) -> io::Result<Option<Hello>> {
    let mut acceptor = rustls::server::Acceptor::default();
    let mut seen = 0;
    loop {
        if read.first().is_some_and(|first| *first != HANDSHAKE) {
            return Ok(None);
        }
        while seen < read.len() {
            let Ok(taken @ 1..) = acceptor.read_tls(&mut &read[seen..]) else {
                return Ok(None);
            };
            seen += taken;
            match acceptor.accept() {
                Ok(Some(accepted)) => {
                    let hello = accepted.client_hello();
                    let alpn = hello.alpn().into_iter().flatten().map(<[u8]>::to_vec).collect();
                    return Ok(Some(Hello { server_name: hello.server_name().map(str::to_owned), alpn }));
                }
                Ok(None) => {}
                Err(_) => return Ok(None),
            }
        }
        if stream.read_buf(read).await? == 0 {
            return Ok(None);
        }
    }
}

#[derive(Debug, PartialEq, Eq)]
enum Guess {
    Certain(FirstBytes),
    Tls,
    /// More bytes may tell; if none come, it is this.
    More(FirstBytes),
}

fn guess(bytes: &[u8]) -> Guess {
    if bytes.starts_with(PREFACE) {
        return Guess::Certain(FirstBytes::Http2);
    }
    if PREFACE.starts_with(bytes) {
        return Guess::More(FirstBytes::Other);
    }
    if begins_tls(bytes) {
        return Guess::Tls;
    }
    guess_http1(bytes)
}

/// Follows a request line to a server: a method, a path or an asterisk, the version.
fn guess_http1(bytes: &[u8]) -> Guess {
    const OTHER: Guess = Guess::Certain(FirstBytes::Other);
    let space = bytes.iter().position(|byte| *byte == b' ');
    let method = &bytes[..space.unwrap_or(bytes.len())];
    if method.is_empty() || method.len() > METHOD_BYTES || !method.iter().all(|byte| is_token(*byte)) {
        return OTHER;
    }
    let Some(space) = space else {
        return Guess::More(FirstBytes::Other);
    };
    let rest = &bytes[space + 1..];
    let end = rest.iter().position(|byte| *byte == b' ');
    let target = &rest[..end.unwrap_or(rest.len())];
    if target.iter().any(|byte| byte.is_ascii_control()) {
        return OTHER;
    }
    let begins = |form: &[u8]| {
        let n = form.len().min(target.len());
        target[..n].eq_ignore_ascii_case(&form[..n])
    };
    // A full URL or CONNECT is said to a proxy. Whoever says it here means another one than us, and is not ours to serve.
    if !(begins(b"/") || begins(b"*")) || method == b"CONNECT" {
        return OTHER;
    }
    let Some(end) = end else {
        return match target {
            // Other protocols have no paths behind their first word.
            [b'/', ..] if target.len() > TARGET_BYTES => Guess::Certain(FirstBytes::Http1),
            [b'/', ..] => Guess::More(FirstBytes::Http1),
            _ if target.len() > TARGET_BYTES => OTHER,
            _ => Guess::More(FirstBytes::Other),
        };
    };
    const VERSION: &[u8] = b"HTTP/1.";
    let version = &rest[end + 1..];
    match version {
        _ if target.is_empty() => OTHER,
        _ if version.starts_with(VERSION) => Guess::Certain(FirstBytes::Http1),
        _ if VERSION.starts_with(version) => Guess::More(FirstBytes::Other),
        _ => OTHER,
    }
}

/// Bytes that a method may have (RFC 9110 section 5.6.2).
fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    async fn connected() -> (TcpStream, Stream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let caller = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        (caller, listener.accept().await.unwrap().0.into())
    }

    #[test]
    fn only_a_request_line_is_http1() {
        for bytes in ["GET / HTTP/1.1\r\n", "PROPFIND /a?b HTTP/1.0", "OPTIONS * HTTP/1.1"] {
            assert_eq!(guess(bytes.as_bytes()), Guess::Certain(FirstBytes::Http1), "{bytes}");
        }
        let others: [&[u8]; 14] = [
            b"GET http://a/ HTTP/1.1\r\n",
            b"CONNECT a:443 HTTP/1.1\r\n",
            b"SSH-2.0-OpenSSH_9.6\r\n",
            b"EHLO me.example\r\n",
            b"PING\r\n",
            b"CONNECT {\"verbose\":false}\r\n",
            b"GET key\r\n",
            b"get /key\r\n",
            b"USER anonymous\r\n",
            b"GET / RTSP/1.0\r\n",
            b"*1\r\n$4\r\nPING\r\n",
            b"\0\0\0\x08\x04\xd2\x16\x2f",
            b" / HTTP/1.1\r\n",
            b"PRI * HTTP/2.0\r\n\r\nXX\r\n\r\n",
        ];
        for bytes in others {
            assert_eq!(guess(bytes), Guess::Certain(FirstBytes::Other), "{}", bytes.escape_ascii());
        }
        assert_eq!(guess(b"GE"), Guess::More(FirstBytes::Other));
        assert_eq!(guess(b"GET /a"), Guess::More(FirstBytes::Http1));
        assert_eq!(guess(b"GET /a HTT"), Guess::More(FirstBytes::Other));
        assert_eq!(guess(b"PRI * HT"), Guess::More(FirstBytes::Other));
    }

    #[tokio::test]
    async fn bytes_are_kept_however_they_come() {
        let (mut caller, mut stream) = connected().await;
        let mut read = BytesMut::from("PRI * HTTP/2.0\r\n".as_bytes());
        caller.write_all(&PREFACE[read.len()..]).await.unwrap();
        assert_eq!(detect(&mut stream, &mut read, None, LONG).await.unwrap(), FirstBytes::Http2);
        assert_eq!(read, PREFACE);
    }

    #[tokio::test]
    async fn a_client_that_waits_is_silent_and_one_that_stops_in_the_middle_something_else() {
        let (mut caller, mut stream) = connected().await;
        let mut read = BytesMut::new();
        let moment = Duration::from_millis(1);
        assert_eq!(detect(&mut stream, &mut read, Some(moment), LONG).await.unwrap(), FirstBytes::Silent);
        caller.write_all(b"NICK").await.unwrap();
        caller.shutdown().await.unwrap();
        assert_eq!(detect(&mut stream, &mut read, None, LONG).await.unwrap(), FirstBytes::Other);
        assert_eq!(read, b"NICK"[..]);
        let mut rest = BytesMut::new();
        assert_eq!(detect(&mut stream, &mut rest, None, LONG).await.unwrap(), FirstBytes::Ended);
    }

    #[tokio::test]
    async fn a_hello_is_read_and_kept_though_it_comes_in_pieces() {
        let mut config =
            rustls::ClientConfig::builder_with_provider(rustls::crypto::ring::default_provider().into())
                .with_safe_default_protocol_versions()
                .unwrap()
                .with_root_certificates(rustls::RootCertStore::empty())
                .with_no_client_auth();
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        let name = "shop.example".try_into().unwrap();
        let mut client = rustls::ClientConnection::new(config.into(), name).unwrap();
        let mut hello = Vec::new();
        client.write_tls(&mut hello).unwrap();

        let (mut caller, mut stream) = connected().await;
        let mut read = BytesMut::from(&hello[..7]);
        caller.write_all(&hello[7..]).await.unwrap();
        caller.write_all(b"more").await.unwrap();
        caller.shutdown().await.unwrap();
        let FirstBytes::Tls(found) = detect(&mut stream, &mut read, None, LONG).await.unwrap() else {
            panic!("it is TLS");
        };
        assert_eq!(found.server_name.as_deref(), Some("shop.example"));
        assert_eq!(found.alpn, [b"h2".to_vec(), b"http/1.1".to_vec()]);
        stream.read_buf(&mut read).await.unwrap();
        assert!(read.starts_with(&hello));

        let (mut caller, mut stream) = connected().await;
        caller.write_all(b"\x16\x03\x01 no hello").await.unwrap();
        caller.shutdown().await.unwrap();
        let mut read = BytesMut::new();
        assert_eq!(peek(&mut stream, &mut read).await.unwrap(), None);
        assert_eq!(read, b"\x16\x03\x01 no hello"[..]);
    }
}
