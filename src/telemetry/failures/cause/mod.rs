//! What a failed answer says of its cause.
//!
//! [`read`] takes the first part of an answer's content and finds the exception's type, its message and its stack,
//! where the content tells them: in JSON, on the error page of a framework, or in plain text. [`pattern`] and
//! [`path_shape`] take from a message and a path what changes from one failure to the next, so that equal failures
//! look equal.
//!
//! All of it is a total function of what came from the network: whatever the bytes are, it ends, in time that grows
//! with their number, and with a result of limited size. The examples are in `tests/corpus/error-pages`.

mod content;
mod frame;
mod html;
mod json;
mod mend;
mod pages;
mod pattern;
mod phrase;
mod text;
mod traceback;

#[cfg(test)]
mod tests;

pub use self::pattern::{path_shape, pattern};
use super::scrub;

/// Frames that are kept, the innermost ones: what Sentry takes (SEN-4).
const MAX_FRAMES: usize = 50;

/// Characters of a message, and of the name of a type.
const MAX_MESSAGE: usize = 500;
const MAX_KIND: usize = 200;

/// Characters of a frame's file, function and code.
const MAX_PART: usize = 300;

/// Bytes of a text that are cleaned of secrets before it is cut to what is kept: half a secret looks like none.
const MAX_RAW: usize = 4096;

/// What went wrong, as the answer says it, cleaned of secrets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cause {
    /// The exception's type, where the answer names one: `ValueError`, `java.lang.IllegalStateException`.
    pub kind: Option<String>,
    /// The message, one line.
    pub message: Option<String>,
    /// Stack frames, the innermost last (as Sentry has them); those of the service and those of libraries.
    pub frames: Vec<StackFrame>,
    /// What the answer was: `problem+json`, `json`, `django`, `werkzeug`, `express`, `text`, …
    pub source: &'static str,
}

/// One stack frame.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StackFrame {
    /// The file, as the page has it.
    pub file: String,
    /// The line, where known.
    pub line: Option<u32>,
    /// The function, where known.
    pub function: Option<String>,
    /// The line of source, where shown.
    pub code: Option<String>,
    /// Whether it is the service's own code, and not a library's.
    pub in_app: bool,
}

/// Reads `content`, the first part of a failed answer's content as it came, for what it says of the cause. `cut` says
/// that there was more of it. `None` where it says nothing, or nothing that can be read.
pub fn read(
    content_type: Option<&str>,
    content_encoding: Option<&str>,
    content: &[u8],
    cut: bool,
) -> Option<Cause> {
    let media = content::Media::of(content_type);
    if media == content::Media::Binary {
        return None;
    }
    let decoded = content::decode(content_encoding, content)?;
    let cut = cut || decoded.cut;
    let text = content::text(content_type, &decoded.bytes);
    let text = text.trim_start_matches('\u{feff}').trim_start();
    if !is_text(text) {
        return None;
    }
    // What it looks like counts for more than what it is called: frameworks send JSON as text, and HTML as JSON.
    let cause = match text.as_bytes() {
        [b'{', ..] | [b'[', b'{' | b'[' | b'"', ..] => {
            // A member can be called right and hold nothing that could be kept.
            let read = json::read(text, cut, media == content::Media::Problem).map(Cause::bounded);
            read.filter(Cause::says_something)
                .or_else(|| text::read(text).filter(|cause| !cause.frames.is_empty()))
        }
        [b'"', ..] if media == content::Media::Json => json::read(text, cut, false),
        [b'<', ..] => pages::read(text),
        _ if media == content::Media::Html => pages::read(text),
        _ => text::read(text),
    };
    cause.map(Cause::bounded)
}

/// What has other characters than a text has is something else, whatever it says of itself.
fn is_text(text: &str) -> bool {
    let unreadable = text.chars().filter(|c| *c == '\u{fffd}').count();
    !text.is_empty() && !text.contains('\0') && unreadable.saturating_mul(8) < text.len()
}

impl Cause {
    /// Nothing but where it came from.
    fn of(source: &'static str) -> Cause {
        Cause { source, ..Cause::default() }
    }

    /// Fills what is missing with what `other` has. A stack belongs to the message that it came with, so it is taken
    /// whole.
    fn or(mut self, other: Cause) -> Cause {
        self.kind = self.kind.or(other.kind);
        self.message = self.message.or(other.message);
        if self.frames.is_empty() {
            self.frames = other.frames;
        }
        self
    }

    fn says_something(&self) -> bool {
        self.kind.is_some() || self.message.is_some() || !self.frames.is_empty()
    }

    /// Within the limits, whoever made it: one line, a type that can be one, the innermost frames.
    fn bounded(mut self) -> Cause {
        self.message =
            self.message.as_deref().and_then(phrase::one_line).filter(|line| !phrase::is_empty_talk(line));
        // `java.lang.IllegalStateException: …` as a message names the type as well.
        if self.kind.is_none()
            && let Some((kind, rest)) = self.message.as_deref().and_then(phrase::named_exception)
        {
            (self.kind, self.message) =
                (Some(kind.to_owned()), Some(rest.to_owned()).filter(|rest| !rest.is_empty()));
        }
        self.message =
            self.message.map(|message| phrase::shortened(&scrub::text(bounded(&message)), MAX_MESSAGE));
        // In titles and groups a token would be as bad as it is useless.
        self.kind = self.kind.filter(|kind| {
            phrase::is_type_name(kind) && !phrase::is_random(kind) && scrub::text(kind) == **kind
        });
        self.frames.drain(..self.frames.len().saturating_sub(MAX_FRAMES));
        for frame in &mut self.frames {
            frame.bound();
        }
        self
    }
}

/// As much of a text as is looked at, in whole words: the last one may have been about to say whose it is.
fn bounded(text: &str) -> &str {
    if text.len() <= MAX_RAW {
        return text;
    }
    let begin = &text[..text.floor_char_boundary(MAX_RAW)];
    begin.rfind(char::is_whitespace).map_or(begin, |end| &begin[..end])
}
