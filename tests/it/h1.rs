//! HTTP/1 as bytes, by its properties and by example.
//!
//! The properties are the checks of the fuzz targets. The examples are the files of
//! `tests/corpus/h1/{request,response,chunked}/{accept,reject}`, one or more for each rule: whole heads, or whole chunked
//! content. The name of what is to be refused begins with the status. They seed the fuzzers.

use std::path::Path;

use bytes::BytesMut;
use http::Method;
use proptest::prelude::*;
use tracecar::wire::h1::chunked::{Decoded, Decoder};
use tracecar::wire::h1::head;

#[path = "../fuzz/h1.rs"]
mod checks;

/// Each file of both folders of one parser is accepted, or refused with the status in its name, and goes through the check.
fn each_case(parser: &str, read: impl Fn(&mut BytesMut) -> Result<bool, u16>, check: impl Fn(&[u8])) {
    for verdict in ["accept", "reject"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/h1").join(parser).join(verdict);
        let mut cases = 0;
        for entry in folder.read_dir().expect("the corpus is there") {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            let bytes = std::fs::read(&path).unwrap();
            let expected = match verdict {
                "accept" => Ok(true),
                _ => Err(name[..3].parse().expect("a name that begins with a status")),
            };
            assert_eq!(read(&mut BytesMut::from(&*bytes)), expected, "{parser}/{verdict}/{name}");
            check(&bytes);
            cases += 1;
        }
        assert!(cases > 0, "{} has no cases", folder.display());
    }
}

#[test]
fn request_heads_are_accepted_and_refused_as_their_examples_say() {
    let read = |bytes: &mut BytesMut| {
        let head = head::request(bytes, &mut 0, &checks::ROOMY);
        head.map(|head| head.is_some() && bytes.is_empty()).map_err(|refused| refused.status.as_u16())
    };
    each_case("request", read, checks::request);
}

#[test]
fn response_heads_are_accepted_and_refused_as_their_examples_say() {
    let read = |bytes: &mut BytesMut| {
        let head = head::response(bytes, &mut 0, &checks::ROOMY, &Method::GET);
        head.map(|head| head.is_some() && bytes.is_empty()).map_err(|refused| refused.status.as_u16())
    };
    each_case("response", read, checks::response);
}

#[test]
fn chunked_content_is_accepted_and_refused_as_its_examples_say() {
    let read = |bytes: &mut BytesMut| {
        let mut decoder = Decoder::default();
        loop {
            match decoder.decode(bytes, &checks::ROOMY).map_err(|refused| refused.status.as_u16())? {
                Decoded::More => return Ok(false),
                Decoded::Data(_) => {}
                Decoded::End(_) => return Ok(bytes.is_empty()),
            }
        }
    };
    each_case("chunked", read, checks::chunked);
}

/// Heads in any disorder: words that mean something, between them anything.
fn heads(first: &'static [&'static str]) -> impl Strategy<Value = Vec<u8>> {
    const WORDS: &[&str] = &[
        "\r\n",
        "\r\n",
        "\r\n",
        "\n",
        "\r",
        " ",
        "\t",
        ":",
        ": ",
        ",",
        "\0",
        "close",
        "keep-alive",
        "chunked",
        "Host: shop",
        "Host: [::1]:80",
        "Content-Length: 5",
        "content-length: 0",
        "Transfer-Encoding: chunked",
        "transfer-encoding: ",
        "Connection: ",
        "X-A: b",
        "x-a:",
        "Set-Cookie : c",
        "\r\n  folded",
        "\u{e4}",
        "GET / HTTP/1.1",
        "\r\n\r\n",
        "\n\n",
        "5, 5",
        "#",
        "?a=<b>",
        "%",
        "http://",
        "shop:80",
    ];
    let word = prop_oneof![
        8 => prop::sample::select(WORDS).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    let line = prop_oneof![
        8 => prop::sample::select(first).prop_map(|line| line.as_bytes().to_vec()),
        1 => Just(Vec::new()),
    ];
    let good = prop::sample::select(&["Host: shop\r\n", "Host: a\nX: y \r\n", ""][..]);
    let end = prop::sample::select(&["\r\n\r\n", "\r\n", "\n\n", "\r\n\r\nrest", ""][..]);
    (line, good, prop::collection::vec(word, 0..10), end)
        .prop_map(|(line, good, words, end)| [line, good.into(), words.concat(), end.into()].concat())
}

const REQUESTS: &[&str] = &[
    "GET / HTTP/1.1\r\n",
    "POST /a?b HTTP/1.1\n",
    "GET /a<b HTTP/1.0\r\n",
    "OPTIONS * HTTP/1.1\r\n",
    "OPTIONS http://shop HTTP/1.1\r\n",
    "GET http://shop?a<b HTTP/1.1\r\n",
    "CONNECT shop:443 HTTP/1.1\r\n",
    "\r\n\nPUT /\u{e4} HTTP/1.7\r\n",
    "GET / ",
    "GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaa",
];

const RESPONSES: &[&str] = &[
    "HTTP/1.1 200 OK\r\n",
    "HTTP/1.0 404\n",
    "HTTP/1.1 204 \r\n",
    "HTTP/1.1 304 Not  Modified \r\n",
    "HTTP/1.1 101 Switching Protocols\r\n",
    "HTTP/1.1 200",
    "HTTP/1.1 999 \u{e4}\r\n",
];

fn chunks() -> impl Strategy<Value = Vec<u8>> {
    const WORDS: &[&str] = &[
        "\r\n",
        "\r\n",
        "\n",
        "\r",
        "0\r\n",
        "0\r\n\r\n",
        "1\r\nx\r\n",
        "5\r\nhello\r\n",
        "a\r\n0123456789\r\n",
        ";a=b",
        "00",
        "f",
        "A: b\r\n",
        "Host: x\r\n",
        "ffffffffffffffff",
        " ",
        "\0",
    ];
    let word = prop_oneof![
        12 => prop::sample::select(WORDS).prop_map(|word| word.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..4),
    ];
    prop::collection::vec(word, 0..10).prop_map(|words| words.concat())
}

proptest! {
    // What fails becomes a case in tests/corpus, not a seed that only this crate can read.
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 1024, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_a_head_or_chunked_content_or_are_refused(data in prop::collection::vec(any::<u8>(), 0..300)) {
        checks::request(&data);
        checks::response(&data);
        checks::chunked(&data);
    }

    #[test]
    fn a_request_head_is_read_in_one_way_and_written_as_it_came(data in heads(REQUESTS)) {
        checks::request(&data);
    }

    #[test]
    fn a_response_head_is_read_in_one_way_and_written_as_it_came(data in heads(RESPONSES)) {
        checks::response(&data);
    }

    #[test]
    fn chunked_content_is_what_the_grammar_says(data in chunks()) {
        checks::chunked(&data);
    }
}
