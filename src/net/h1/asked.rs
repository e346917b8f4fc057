//! What an answer has to know of its request, and its head as it is written.

use http::header::{CONTENT_LENGTH, EXPECT};
use http::{Method, Request, StatusCode, Version};
use http_body::Body;

use crate::wire::h1::{Framing, Layout, write};
use crate::wire::headers;

/// What an answer has to know of its request.
pub(super) struct Asked {
    pub(super) http_1_0: bool,
    pub(super) head: bool,
    pub(super) connect: bool,
    pub(super) keep_alive: bool,
    /// It waits for a 100 before it sends its content.
    pub(super) expects: bool,
    /// What follows may be no request.
    pub(super) more_may_come: bool,
}

impl Asked {
    pub(super) fn of(request: &Request<()>, keep_alive: bool) -> Self {
        let connect = request.method() == Method::CONNECT;
        Self {
            http_1_0: request.version() == Version::HTTP_10,
            head: request.method() == Method::HEAD,
            connect,
            keep_alive,
            expects: request.headers().contains_key(EXPECT),
            // Some send the first bytes of what they would tunnel behind a `CONNECT`.
            more_may_come: connect,
        }
    }

    /// Of bytes that are no request.
    pub(super) fn nothing() -> Self {
        Self {
            http_1_0: false,
            head: false,
            connect: false,
            keep_alive: false,
            expects: false,
            more_may_come: true,
        }
    }

    /// Whether the connection stops being HTTP.
    pub(super) fn switches(&self, status: StatusCode) -> bool {
        status == StatusCode::SWITCHING_PROTOCOLS || self.connect && status.is_success()
    }

    /// Whether the connection ends with the answer: nobody may keep one with HTTP/1.0 that it only passes on (FRM-6).
    pub(super) fn ends_with(&self, framing: Framing, status: StatusCode) -> bool {
        !self.keep_alive
            || self.http_1_0
            || framing == Framing::UntilClose
            || self.connect && !status.is_success()
    }

    /// How the content of an answer is delimited; takes out of its head what may not be there (FRM-1, FRM-2).
    pub(super) fn framing(
        &self,
        parts: &mut http::response::Parts,
        body: &impl Body,
        switching: bool,
    ) -> Framing {
        if switching || parts.status == StatusCode::NO_CONTENT {
            parts.headers.remove(CONTENT_LENGTH);
            return Framing::None;
        }
        if self.head || headers::never_has_content(parts.status) {
            return Framing::None;
        }
        let length = parts.headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        match length {
            Some(0) => Framing::None,
            Some(length) => Framing::Length(length),
            None => match body.size_hint().exact() {
                Some(length) => {
                    parts.headers.insert(CONTENT_LENGTH, length.into());
                    if length == 0 { Framing::None } else { Framing::Length(length) }
                }
                None if self.http_1_0 => Framing::UntilClose,
                None => Framing::Chunked,
            },
        }
    }
}

/// Writes the head of an answer.
pub(super) fn write_head(
    out: &mut Vec<u8>,
    parts: &http::response::Parts,
    layout: Option<&Layout>,
    framing: Framing,
    close: bool,
) {
    write::status_line(out, parts.status, layout);
    write::fields(out, &parts.headers, layout);
    if framing == Framing::Chunked {
        out.extend_from_slice(b"Transfer-Encoding: chunked\r\n");
    }
    if close {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    out.extend_from_slice(b"\r\n");
}
