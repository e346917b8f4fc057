//! One file of `tests/corpus/responses`, whose README says what stands in it.

use crate::support::corpus::{Entry, entries};

/// A response of a service, and what has to become of it.
#[derive(Debug)]
pub struct Case {
    /// `length/plus`: the file without its ending.
    pub name: String,
    /// The rule of the guide's page on conformance that decides.
    pub rule: String,
    pub verdict: Verdict,
    /// The final status that the caller gets.
    pub status: u16,
    /// What the caller asks with.
    pub method: String,
    pub http_1_0: bool,
    /// Further header lines of the request.
    pub asks: Vec<Vec<u8>>,
    /// Whether it makes a difference that the bytes come in one piece.
    pub at_once: bool,
    /// Whether the service closes the connection behind its bytes.
    pub closes: bool,
    /// The statuses before the final one.
    pub interim: Vec<u16>,
    /// Lines that the head has which the caller gets.
    pub sees: Vec<Vec<u8>>,
    /// The same byte for byte.
    pub exactly: Vec<Vec<u8>>,
    pub never: Vec<Vec<u8>>,
    pub content: Option<Vec<u8>>,
    pub trailer: Option<Vec<u8>>,
    pub bytes: Vec<u8>,
}

/// What has to become of a response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The caller gets it.
    Pass,
    /// The caller gets an answer of ours, and nothing of it.
    Refuse,
    /// One of the two.
    Either,
    /// The caller gets its head and sees that the content broke off.
    Cut,
}

const KEYS: &[&str] = &[
    "rule", "expect", "why", "method", "http", "asks", "then", "sent", "interim", "sees", "exactly", "never",
    "content", "trailer",
];

/// Every case, in the order of their names.
pub fn all() -> Vec<Case> {
    entries("responses", KEYS).into_iter().map(Case::from).collect()
}

impl From<Entry> for Case {
    fn from(entry: Entry) -> Self {
        let (verdict, status) = entry.required("expect").split_once(' ').expect("a verdict and a status");
        let interim = entry.value("interim").unwrap_or_default().split_whitespace();
        Self {
            rule: entry.required("rule").to_owned(),
            verdict: match verdict {
                "pass" => Verdict::Pass,
                "refuse" => Verdict::Refuse,
                "either" => Verdict::Either,
                "cut" => Verdict::Cut,
                other => panic!("{}: {other} is nothing to expect", entry.name),
            },
            status: status.parse().expect("a status"),
            method: entry.value("method").unwrap_or("GET").to_owned(),
            http_1_0: entry.value("http") == Some("1.0"),
            asks: entry.texts("asks"),
            at_once: entry.value("sent") == Some("at once"),
            closes: entry.value("then") == Some("close"),
            interim: interim.map(|status| status.parse().expect("a status")).collect(),
            sees: entry.texts("sees"),
            exactly: entry.texts("exactly"),
            never: entry.texts("never"),
            content: entry.texts("content").pop(),
            trailer: entry.texts("trailer").pop(),
            name: entry.name,
            bytes: entry.bytes,
        }
    }
}
