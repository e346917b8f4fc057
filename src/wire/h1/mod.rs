//! HTTP/1 messages as bytes (RFC 9112): read strictly, and written as they were read.
//!
//! No sockets, no time: [`head`] turns the bytes of a head into a message and says how its content is delimited,
//! [`chunked`] takes the chunked coding off, and [`mod@write`] puts heads and chunks together again. What cannot be read with
//! one meaning only is refused ([`Refused`]), for two readers who disagree about where a message ends are how requests are
//! smuggled. What was read keeps its bytes ([`Layout`]): names in their case, lines in their order, the target untouched.

//!
//! [`head`] finds where a head ends and reads its start line, `fields` the header lines, `target` the request target and
//! `Host`, and `framing` decides where the content ends.

pub mod chunked;
mod fields;
mod framing;
pub mod head;
mod target;
#[cfg(test)]
mod tests;
pub mod write;

use bytes::Bytes;
use http::StatusCode;
use http::uri::PathAndQuery;

/// How much of a head is read.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Bytes of a head, its start line and all separators included. More is 431 (SMG-22).
    pub head_bytes: usize,
    /// Lines of a header section, or of a trailer section. More is 431.
    pub lines: usize,
    /// Bytes of a request target, at most 65,534. More is 414 (SMG-21).
    pub target_bytes: usize,
}

/// Why no message could be read, and the status that says so: of a request, what the caller is answered; of a response,
/// always 502.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refused {
    /// What the table of malformed input names (rules SMG-1 to SMG-24).
    pub status: StatusCode,
    /// For people: what is wrong with the bytes, in a few words, without the bytes.
    pub reason: &'static str,
}

impl Refused {
    const fn new(status: StatusCode, reason: &'static str) -> Self {
        Self { status, reason }
    }

    /// What is no HTTP, or may be read in two ways.
    const fn bad(reason: &'static str) -> Self {
        Self::new(StatusCode::BAD_REQUEST, reason)
    }

    const fn too_large(reason: &'static str) -> Self {
        Self::new(StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE, reason)
    }

    /// The same of a response: it is the service that is at fault.
    const fn of_response(self) -> Self {
        Self::new(StatusCode::BAD_GATEWAY, self.reason)
    }
}

/// How the content of a message is delimited.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// By its length, which is not 0.
    Length(u64),
    /// By the chunked coding.
    Chunked,
    /// By the end of the connection: of responses only.
    UntilClose,
}

/// The bytes that a head was read from, so that it can be written as it came.
#[derive(Clone, Debug)]
pub struct Layout {
    /// The head, start line included. Values of the header map are slices of it, which is how their lines are found again.
    head: Bytes,
    /// Of a response: its reason phrase.
    reason: Bytes,
    /// A target that `http::Uri` does not hold as it is: what stands for it there, and what it was. Mostly it is none by the
    /// grammar (`/a<b`); `*` is what `OPTIONS http://shop` asks for (FWD-2), where the `Uri` says `/`.
    soft_target: Option<(PathAndQuery, Bytes)>,
}
