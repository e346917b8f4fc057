//! One file of `tests/corpus/requests`, whose README says what stands in it.

use crate::support::corpus::{Entry, entries};

/// A request, or several, and what has to become of them.
#[derive(Debug)]
pub struct Case {
    /// `length/plus`: the file without its ending.
    pub name: String,
    /// The rule of the guide's page on conformance that decides.
    pub rule: String,
    pub verdict: Verdict,
    /// Statuses of which a refusal has one.
    pub refusals: Vec<u16>,
    /// How many requests the service has to get.
    pub requests: usize,
    pub behind: Behind,
    /// Whether the sending side is closed behind the bytes.
    pub ends: bool,
    /// Whether nothing is said about the answers.
    pub any_answer: bool,
    /// Lines that the head has which the service gets.
    pub sees: Vec<Vec<u8>>,
    /// The same byte for byte.
    pub exactly: Vec<Vec<u8>>,
    /// Text that nothing has which the service gets.
    pub never: Vec<Vec<u8>>,
    /// Text that the head has not.
    pub not_in_head: Vec<Vec<u8>>,
    /// The content that the service gets, without its framing.
    pub content: Option<Vec<u8>>,
    /// A line that the trailers have, if they go on.
    pub trailer: Option<Vec<u8>>,
    pub bytes: Vec<u8>,
}

/// What has to become of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It reaches the service.
    Accept,
    /// It is refused, and no byte of it reaches the service.
    Reject,
    /// One of the two.
    Either,
    /// It is found out within the content: the service never gets the end of it.
    Abort,
    /// That, or it reaches the service.
    EitherAbort,
    /// It is answered by us.
    Answered,
}

/// Whether what is sent behind is served.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Behind {
    Yes,
    No,
    Maybe,
}

/// `peers` and `why` are for people and for the comparison with other proxies.
const KEYS: &[&str] = &[
    "rule",
    "expect",
    "why",
    "peers",
    "requests",
    "behind",
    "then",
    "statuses",
    "sees",
    "exactly",
    "never",
    "not-in-head",
    "content",
    "trailer",
];

/// Every case, in the order of their names.
pub fn all() -> Vec<Case> {
    entries("requests", KEYS).into_iter().map(Case::from).collect()
}

impl From<Entry> for Case {
    fn from(entry: Entry) -> Self {
        let mut expect = entry.required("expect").split(' ');
        let verdict = match expect.next() {
            Some("accept") => Verdict::Accept,
            Some("reject") => Verdict::Reject,
            Some("either") => Verdict::Either,
            Some("abort") => Verdict::Abort,
            Some("either-abort") => Verdict::EitherAbort,
            Some("answered") => Verdict::Answered,
            other => panic!("{}: {other:?} is nothing to expect", entry.name),
        };
        let passes = matches!(verdict, Verdict::Accept | Verdict::Either | Verdict::EitherAbort);
        let requests = entry.value("requests").map(|number| number.parse().expect("a number"));
        Self {
            rule: entry.required("rule").to_owned(),
            verdict,
            refusals: expect.map(|status| status.parse().expect("a status")).collect(),
            requests: requests.unwrap_or(usize::from(passes)),
            behind: match entry.value("behind") {
                None => Behind::Yes,
                Some("no") => Behind::No,
                Some("maybe") => Behind::Maybe,
                Some(other) => panic!("{}: behind: {other}", entry.name),
            },
            ends: entry.value("then") == Some("end"),
            any_answer: entry.value("statuses") == Some("any"),
            sees: entry.texts("sees"),
            exactly: entry.texts("exactly"),
            never: entry.texts("never"),
            not_in_head: entry.texts("not-in-head"),
            content: entry.texts("content").pop(),
            trailer: entry.texts("trailer").pop(),
            name: entry.name,
            bytes: entry.bytes,
        }
    }
}
