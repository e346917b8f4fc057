//! The chunked coding.

use bytes::BytesMut;

use super::{LIMITS, lines};
use crate::wire::h1::Limits;
use crate::wire::h1::chunked::{Decoded as Piece, Decoder};

/// Content, trailers, and what is left behind them.
type Decoded = (Vec<u8>, Vec<String>, Vec<u8>);

/// What comes out of bytes that come `piece` at a time; the status if they are refused.
fn decode(bytes: &[u8], piece: usize, limits: &Limits) -> Result<Option<Decoded>, u16> {
    let (mut decoder, mut read, mut content) = (Decoder::default(), BytesMut::new(), Vec::new());
    let mut pieces = bytes.chunks(piece);
    loop {
        match decoder.decode(&mut read, limits).map_err(|refused| refused.status.as_u16())? {
            Piece::More => match pieces.next() {
                Some(piece) => read.extend_from_slice(piece),
                None => return Ok(None),
            },
            Piece::Data(data) => {
                assert!(!data.is_empty());
                content.extend_from_slice(&data);
            }
            Piece::End(trailers) => {
                let trailers = trailers.as_ref().map(lines).unwrap_or_default();
                let rest = [&read[..], &pieces.collect::<Vec<_>>().concat()].concat();
                return Ok(Some((content, trailers, rest)));
            }
        }
    }
}

/// Both at once and byte by byte.
fn both(bytes: &[u8], limits: &Limits) -> Result<Option<Decoded>, u16> {
    let once = decode(bytes, bytes.len().max(1), limits);
    assert_eq!(once, decode(bytes, 1, limits), "{}", bytes.escape_ascii());
    once
}

#[test]
fn chunks_are_put_together() {
    let long_size = format!("{}5\r\nhello\r\n0\r\n\r\n", "0".repeat(15));
    for (bytes, content, trailers) in [
        (&b"0\r\n\r\n"[..], &b""[..], &[][..]),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello", &[]),
        (b"1\r\n\n\r\n0a\r\n0123456789\r\n000\r\n\r\n", b"\n0123456789", &[]),
        (long_size.as_bytes(), b"hello", &[]),
        // SMG-17.
        (b"5;a=b;c=\"d\"\r\nhello\r\n0;x\r\n\r\n", b"hello", &[]),
        (b"0\r\nA: b\r\nC: d\r\nA: e\r\n\r\n", b"", &["a: b", "a: e", "c: d"]),
        // SMG-25.
        (
            b"0\r\nContent-Length: 5\r\nHost: x\r\nA: b\r\nIf-Match: x\r\nTransfer-Encoding: chunked\r\nA: c\r\n\r\n",
            b"",
            &["a: b", "a: c"],
        ),
        (b"0\r\nTrailer: x\r\nAuthorization: y\r\n\r\n", b"", &[]),
    ] {
        let rest = [bytes, b"GET /"].concat();
        let (read, got, left) = both(&rest, &LIMITS).unwrap().unwrap();
        assert_eq!(read, content, "{}", bytes.escape_ascii());
        assert_eq!(got, trailers, "{}", bytes.escape_ascii());
        assert_eq!(left, b"GET /", "what is behind the end stays");
    }
}

#[test]
fn what_is_no_chunk_is_refused() {
    for bytes in [
        // SMG-16.
        &b"0x5\r\nhello\r\n"[..],
        b"5 \r\nhello\r\n",
        b"5 ;a\r\nhello\r\n",
        b" 5\r\nhello\r\n",
        b"\t5\r\nhello\r\n",
        b"5\nhello\r\n",
        b"5;a\nhello\r\n",
        b"-1\r\n",
        b"+5\r\nhello\r\n",
        b";\r\n",
        b";a\r\n",
        b"\r\n",
        b"g\r\n",
        b"5\rhello\r\n",
        b"5;a\rb\r\nhello\r\n",
        b"5;\0\r\nhello\r\n",
        b"5\r\nhelloo\r\n",
        b"5\r\nhelloo",
        b"5\r\nhell\r\n0\r\n\r\n",
        b"5\r\nhello\n0\r\n\r\n",
        b"5\r\nhello0\r\n\r\n",
        // SMG-15.
        b"8000000000000000\r\n",
        b"ffffffffffffffff\r\n",
        b"00000000000000005\r\n",
        b"10000000000000005\r\n",
        // Trailers.
        b"0\r\n\n",
        b"0\r\nA: b\n\r\n",
        b"0\r\nA : b\r\n\r\n",
        b"0\r\nA: b\r\n c\r\n\r\n",
        b"0\r\n A: b\r\n\r\n",
        b"0\r\nA\r\n\r\n",
        b"0\r\nGET / HTTP/1.1\r\n\r\n",
        b"0\r\nA: \0\r\n\r\n",
    ] {
        assert_eq!(both(bytes, &LIMITS), Err(400), "{}", bytes.escape_ascii());
    }
}

#[test]
fn what_is_not_there_yet_is_waited_for() {
    let whole = b"5;a\r\nhello\r\n0\r\nA: b\r\n\r\n";
    for length in 0..whole.len() {
        assert_eq!(both(&whole[..length], &LIMITS), Ok(None), "{length} bytes");
    }
}

#[test]
fn extensions_and_trailers_have_limits() {
    let line = |length: usize| format!("1;{}\r\nx\r\n", "a".repeat(length));
    assert!(both(line(4094).as_bytes(), &LIMITS).is_ok());
    assert_eq!(both(line(4095).as_bytes(), &LIMITS), Err(400));
    assert_eq!(both(&line(5000).as_bytes()[..5000], &LIMITS), Err(400), "before the line ends");
    assert!(both(line(4000).repeat(4).as_bytes(), &LIMITS).is_ok());
    assert_eq!(both(line(4000).repeat(5).as_bytes(), &LIMITS), Err(400), "of the whole message");

    let limits = Limits { head_bytes: 20, lines: 2, target_bytes: 0 };
    let trailers = |length: usize| format!("0\r\nA: {}\r\n\r\n", "a".repeat(length));
    assert!(both(trailers(13).as_bytes(), &limits).is_ok());
    assert_eq!(both(trailers(14).as_bytes(), &limits), Err(431));
    assert_eq!(both(&trailers(30).as_bytes()[..25], &limits), Err(431), "before they end");
    assert_eq!(both(b"0\r\nA:\r\nB:\r\nC:\r\n\r\n", &limits), Err(431));
}
