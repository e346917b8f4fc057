//! From bytes as they came to text: content coding, media type and charset.

use std::borrow::Cow;
use std::io::Read;

use flate2::read::{DeflateDecoder, MultiGzDecoder, ZlibDecoder};

/// What is decoded at most. A page compresses to a tenth; what would be more is for nobody to read, or a bomb.
const MAX_DECODED: usize = 128 * 1024;

/// What the content says it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Media {
    /// RFC 9457.
    Problem,
    Json,
    Html,
    /// Text, or nothing is said.
    Text,
    /// Nothing that can be read.
    Binary,
}

impl Media {
    pub(super) fn of(content_type: Option<&str>) -> Media {
        let Some(content_type) = content_type else { return Media::Text };
        let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
        match essence.as_str() {
            "application/problem+json" => Media::Problem,
            "text/html" | "application/xhtml+xml" => Media::Html,
            "" | "application/xml" | "application/problem+xml" => Media::Text,
            json if json == "application/json" || json.ends_with("+json") || json.ends_with("/json") => {
                Media::Json
            }
            text if text.starts_with("text/") => Media::Text,
            _ => Media::Binary,
        }
    }
}

/// Content without its coding.
pub(super) struct Decoded<'a> {
    pub(super) bytes: Cow<'a, [u8]>,
    /// Not all of it could be had.
    pub(super) cut: bool,
}

/// Undoes `coding`. `None` for a coding that we do not know; a stream that breaks off gives what there was before.
pub(super) fn decode<'a>(coding: Option<&str>, content: &'a [u8]) -> Option<Decoded<'a>> {
    match coding.unwrap_or_default().trim().to_ascii_lowercase().as_str() {
        "" | "identity" => {
            let kept = content.get(..MAX_DECODED).unwrap_or(content);
            Some(Decoded { bytes: Cow::Borrowed(kept), cut: kept.len() < content.len() })
        }
        "gzip" | "x-gzip" => Some(inflated(MultiGzDecoder::new(content))),
        // RFC 9110 means zlib's format; some senders leave its frame away. Its first two bytes are a multiple of 31.
        "deflate" => match content {
            [first, second, ..] if first & 0x0f == 8 && u16::from_be_bytes([*first, *second]) % 31 == 0 => {
                Some(inflated(ZlibDecoder::new(content)))
            }
            _ => Some(inflated(DeflateDecoder::new(content))),
        },
        _ => None,
    }
}

fn inflated(decoder: impl Read) -> Decoded<'static> {
    let mut bytes = Vec::new();
    // One byte more than is kept tells whether that was all. What was read before an error stays in `bytes`.
    let end = decoder.take(MAX_DECODED as u64 + 1).read_to_end(&mut bytes);
    let cut = end.is_err() || bytes.len() > MAX_DECODED;
    bytes.truncate(MAX_DECODED);
    Decoded { bytes: Cow::Owned(bytes), cut }
}

/// The text of `bytes`. What is not UTF-8 is read as Latin-1 where it says to be that, and else with replacements.
pub(super) fn text<'a>(content_type: Option<&str>, bytes: &'a [u8]) -> Cow<'a, str> {
    match std::str::from_utf8(bytes) {
        Ok(text) => Cow::Borrowed(text),
        Err(_) if is_latin1(content_type) => Cow::Owned(bytes.iter().map(|byte| char::from(*byte)).collect()),
        Err(_) => String::from_utf8_lossy(bytes),
    }
}

fn is_latin1(content_type: Option<&str>) -> bool {
    let lower = content_type.unwrap_or_default().to_ascii_lowercase();
    ["iso-8859-1", "latin1", "windows-1252"].iter().any(|name| lower.contains(name))
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use flate2::Compression;
    use flate2::write::{DeflateEncoder, GzEncoder, ZlibEncoder};

    use super::*;

    fn gzip(content: &[u8]) -> Vec<u8> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn each_known_coding_is_undone() {
        let mut zlib = ZlibEncoder::new(Vec::new(), Compression::default());
        let mut raw = DeflateEncoder::new(Vec::new(), Compression::default());
        zlib.write_all(b"out of stock").unwrap();
        raw.write_all(b"out of stock").unwrap();
        for (coding, content) in [
            ("identity", b"out of stock".to_vec()),
            (" GZip ", gzip(b"out of stock")),
            ("deflate", zlib.finish().unwrap()),
            ("deflate", raw.finish().unwrap()),
        ] {
            let decoded = decode(Some(coding), &content).expect(coding);
            assert_eq!((&*decoded.bytes, decoded.cut), (&b"out of stock"[..], false), "{coding}");
        }
        assert!(decode(Some("br"), b"x").is_none() && decode(Some("zstd"), b"x").is_none());
    }

    #[test]
    fn a_cut_stream_gives_what_came_before_the_cut() {
        let lines: String = (0..20_000).map(|line| format!("line {line}, and {}\n", line * 7919)).collect();
        let compressed = gzip(lines.as_bytes());
        let decoded = decode(Some("gzip"), &compressed[..compressed.len() / 4]).unwrap();
        assert!(decoded.cut && decoded.bytes.len() > 1000, "{} bytes", decoded.bytes.len());
        assert!(lines.as_bytes().starts_with(&decoded.bytes), "what is there is right");
    }

    #[test]
    fn a_bomb_is_decoded_to_the_limit_and_no_further() {
        let bomb = gzip(&vec![b'a'; 50 << 20]);
        assert!(bomb.len() < 64 * 1024, "it fits into what is read of an answer: {}", bomb.len());
        let decoded = decode(Some("gzip"), &bomb).unwrap();
        assert_eq!((decoded.bytes.len(), decoded.cut), (MAX_DECODED, true));
    }

    #[test]
    fn latin1_is_read_where_it_is_named() {
        let bytes = b"stra\xdfe";
        assert_eq!(text(Some("text/html;charset=ISO-8859-1"), bytes), "straße");
        assert_eq!(text(None, bytes), "stra\u{fffd}e");
    }
}
