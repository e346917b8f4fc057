//! Pages that frameworks really send, and what nobody should.
//!
//! A case is a file of `tests/corpus/error-pages/<framework>`, and beside it what is to be read from it. A new case
//! begins with an empty `.expected`: the failed test shows what was read.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use super::*;

/// What is read of an answer's content.
const SEEN: usize = 64 * 1024;

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/error-pages")
}

fn files(folder: &Path) -> Vec<PathBuf> {
    let mut files: Vec<PathBuf> = folder.read_dir().unwrap().map(|entry| entry.unwrap().path()).collect();
    files.sort();
    files
}

/// The type that a file's name stands for.
fn content_type(file: &Path) -> Option<&'static str> {
    match file.extension()?.to_str()? {
        "html" => Some("text/html; charset=utf-8"),
        "txt" => Some("text/plain; charset=utf-8"),
        "json" => Some("application/json"),
        _ => None,
    }
}

/// What was read, in the form of the files.
fn told(cause: Option<&Cause>) -> String {
    let Some(cause) = cause else { return "nothing\n".to_owned() };
    let mut text = String::new();
    let mut line = |name: &str, value: &str| writeln!(text, "{name}: {value}").unwrap();
    line("source", cause.source);
    line("kind", cause.kind.as_deref().unwrap_or("-"));
    line("message", cause.message.as_deref().unwrap_or("-"));
    let own = cause.frames.iter().filter(|frame| frame.in_app).count();
    line("frames", &format!("{}, of the service {own}", cause.frames.len()));
    if let Some(frame) = cause.frames.iter().rfind(|frame| frame.in_app) {
        let place = frame.line.map_or_else(|| frame.file.clone(), |line| format!("{}:{line}", frame.file));
        line("innermost", &format!("{place} in {}", frame.function.as_deref().unwrap_or("-")));
        line("code", frame.code.as_deref().unwrap_or("-"));
    }
    text
}

#[test]
fn each_page_of_the_corpus_says_what_it_is_expected_to_say() {
    let mut cases = 0;
    let mut wrong = String::new();
    for folder in files(&corpus()).into_iter().filter(|path| path.is_dir() && !path.ends_with("reject")) {
        for file in files(&folder) {
            let Some(content_type) = content_type(&file) else { continue };
            let content = std::fs::read(&file).unwrap();
            assert!(content.len() <= SEEN, "{} is longer than what is seen", file.display());
            let cut = content.len() == SEEN || file.file_stem().unwrap().to_str().unwrap().ends_with("-cut");
            let cause = read(Some(content_type), None, &content, cut);
            let expected = std::fs::read_to_string(
                file.with_extension(format!("{}.expected", file.extension().unwrap().to_str().unwrap())),
            );
            let told = told(cause.as_ref());
            if expected.as_ref().ok() != Some(&told) {
                writeln!(wrong, "{}\n{told}", file.display()).unwrap();
            }
            cases += 1;
        }
    }
    assert!(cases > 90, "there are {cases} cases");
    assert!(wrong.is_empty(), "what was read, where it is not what is expected:\n{wrong}");
}

#[test]
fn what_is_no_error_page_says_nothing() {
    for file in files(&corpus().join("reject")) {
        let content = std::fs::read(&file).unwrap();
        let coding = file.extension().is_some_and(|end| end == "gz").then_some("gzip");
        for content_type in [None, Some("text/html"), Some("application/json"), Some("text/plain")] {
            let cause = read(content_type, coding, &content, false);
            assert_eq!(cause, None, "{} as {content_type:?}", file.display());
        }
    }
}

#[test]
fn hostile_content_ends_soon() {
    let contents = [
        "<".repeat(1 << 20),
        "<!--".repeat(1 << 18),
        "<pre><h1>".repeat(1 << 16),
        "<script>".repeat(1 << 17),
        "</".repeat(1 << 18) + "<script>",
        "&".repeat(1 << 20),
        "[".repeat(1 << 20),
        "{\"error\":".repeat(1 << 17),
        "\"\\".repeat(1 << 19),
        "at a.b(".repeat(1 << 17),
        "\nat a.b.C(D.java:1)".repeat(1 << 15),
        "File \"x\", line ".repeat(1 << 16),
        "\n  File \"x\", line 1, in f\n    |".repeat(1 << 14),
        "| ".repeat(1 << 19),
        ", line 1, in ".repeat(1 << 16),
        "class=\"exception_value\"<pre>".repeat(1 << 15),
    ];
    for content in &contents {
        let begin = std::time::Instant::now();
        for content_type in [None, Some("text/html"), Some("application/json")] {
            let cause = read(content_type, None, content.as_bytes(), true);
            assert!(cause.is_none_or(|cause| cause.frames.len() <= MAX_FRAMES));
        }
        // Without optimisation, on a busy machine, it is some tens of milliseconds.
        let name: String = content.chars().take(12).collect();
        assert!(begin.elapsed().as_secs() < 5, "{name} took {:?}", begin.elapsed());
    }
}

#[test]
fn what_is_long_is_shortened_and_stays_one_line() {
    let long = "é".repeat(2000);
    let frames: String = (1..200)
        .map(|line| format!("  File \"/srv/{long}\", line {line}, in {long}\n    {long}\n"))
        .collect();
    let text = format!("Traceback (most recent call last):\n{frames}ValueError: {long}\tx\n");
    let cause = Cause { kind: Some("x".repeat(201)), ..text::read(&text).unwrap() }.bounded();
    let message = cause.message.unwrap();
    assert_eq!((message.chars().count(), message.ends_with('…')), (MAX_MESSAGE, true));
    assert_eq!(cause.kind, None, "that is too long for a type's name");
    assert_eq!(cause.frames.len(), MAX_FRAMES);
    let last = cause.frames.last().unwrap();
    assert_eq!(last.line, Some(199), "the innermost are kept");
    for part in [&last.file, last.function.as_ref().unwrap(), last.code.as_ref().unwrap()] {
        assert_eq!(part.chars().count(), MAX_PART);
    }
}

#[test]
fn secrets_are_hidden_before_anything_is_cut() {
    for limit in [MAX_MESSAGE, MAX_PART, 200, MAX_RAW] {
        for before in limit - 40..limit {
            let secret = format!("{} postgres://bob:hunTerhunTer@db/shop", "x".repeat(before));
            let trace = format!(
                "Traceback (most recent call last):\n  File \"/srv/a.py\", line 1, in f\n    {secret}\nValueError: {secret}\n"
            );
            for text in [&trace, &secret, &format!("{{\"error\": \"{secret}\"}}")] {
                let cause = read(None, None, text.as_bytes(), false).unwrap();
                assert!(!format!("{cause:?}").contains("hun"), "{cause:?}");
            }
        }
    }
}

#[test]
fn a_type_that_looks_random_is_none() {
    let kind = |code: &str| {
        read(None, None, format!("{{\"code\": \"{code}\", \"message\": \"no\"}}").as_bytes(), false)
            .unwrap()
            .kind
    };
    for code in [
        "aB3dE5fG7hI9jK1lM3nO5",
        "f0e1d2c3b4a5968778695a4b",
        "ghp_16C7e42F292c6912E7710c838347Ae178B4a",
        "AKIAIOSFODNN7EXAMPLE",
    ] {
        assert_eq!(kind(code), None, "{code}");
    }
    for code in [
        "ORDER_LOST",
        "E0308",
        "Http2StreamErrorException",
        "java.util.Base64DecodingException",
        "ERR_HTTP2_INVALID_X509_V3",
    ] {
        assert_eq!(kind(code).as_deref(), Some(code));
    }
}

#[test]
fn what_is_not_text_is_not_read() {
    let json = b"{\"error\": \"out of stock\"}";
    for content_type in ["image/png", "application/grpc", "application/octet-stream"] {
        assert_eq!(read(Some(content_type), None, json, false), None, "{content_type}");
    }
    assert_eq!(read(None, Some("br"), json, false), None);
    assert!(read(None, None, json, false).is_some(), "without a type, it is what it looks like");
    assert!(read(Some("text/html"), None, json, false).is_some());
}

#[test]
fn a_page_that_was_compressed_and_cut_is_read() {
    use std::io::Write;
    let trace =
        "Traceback (most recent call last):\n  File \"/srv/app/a.py\", line 1, in f\n    f()\nKeyError: 1\n";
    let noise: String = (0..9000).map(|line| format!("{}\n", line * 7919)).collect();
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::default());
    encoder.write_all(format!("{trace}{noise}").as_bytes()).unwrap();
    let compressed = encoder.finish().unwrap();
    let cause = read(Some("text/plain"), Some("gzip"), &compressed[..compressed.len() / 2], true).unwrap();
    assert_eq!((cause.kind.as_deref(), cause.frames.len()), (Some("KeyError"), 1));
}
