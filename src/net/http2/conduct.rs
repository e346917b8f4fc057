//! How the caller of an HTTP/2 connection behaves, as its frames tell.
//!
//! The codec answers each frame as it should be answered. What nobody could say anything against, one by one, may be an
//! attack all the same: streams that are opened and reset at once (CVE-2023-44487), frames that ask for an answer and say
//! nothing (CVE-2019-9512, 9515, 9518), heads that never end. So frames are counted as they pass, both ways.

use std::num::NonZeroUsize;
use std::time::Duration;

use tokio::time::Instant;

use super::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frame, GOAWAY, HEADERS, NO_ERROR, PROTOCOL_ERROR, RST_STREAM,
};

/// How long resets, and frames that carry nothing, are counted together.
const WINDOW: Duration = Duration::from_secs(30);

/// Frames in a row that carry nothing: no request, no content, in either direction. Whoever measures the connection with
/// PINGs does so while content passes; 1000 are 16 KiB of nothing, and no client that means something comes near.
const IDLE_TALK: u32 = 1000;

/// Streams beyond those that may be open, which the codec refuses as soon as it can write.
const REFUSED: usize = 1024;

/// On a stream whose only frames so far were its HEADERS (and CONTINUATIONs).
const ONLY_HEAD: u32 = 1 << 31;

/// Why a connection is ended by us.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Offence {
    /// Requests were cancelled, or were none, again and again.
    Resets,
    /// Too many frames in a row that carry nothing.
    IdleTalk,
}

impl Offence {
    /// What the caller is told.
    pub(super) fn why(self) -> &'static str {
        match self {
            Offence::Resets => "too many requests were cancelled",
            Offence::IdleTalk => "too many frames without content",
        }
    }
}

/// A request that reached nobody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stillborn {
    /// It is malformed: the codec reset its stream (RFC 9113 section 8.1.1).
    Malformed,
    /// Its header section is too large: the codec answered 431 (H2-7).
    TooLarge,
}

/// What the frames of one connection tell.
#[derive(Debug)]
pub(super) struct Conduct {
    resets_allowed: Option<NonZeroUsize>,
    /// Streams that may be open without an answer, those that the codec has yet to refuse among them.
    unanswered_allowed: usize,
    /// The highest stream that the caller has opened.
    pub(super) latest: u32,
    /// Streams of which no answer has begun, with [`ONLY_HEAD`]. As many as may be open at once, so it is short.
    unanswered: Vec<u32>,
    /// When the head began that is not complete.
    head_since: Option<Instant>,
    window_since: Instant,
    opened: usize,
    reset: usize,
    idle_talk: u32,
    idle_talk_since: Instant,
    /// Answers that were given to the codec, and whose heads it has not sent yet.
    answers: usize,
    /// Requests that reached nobody, and that nobody was told of yet.
    pub(super) stillborn: Vec<Stillborn>,
    /// The error code of the GOAWAY that the codec has sent.
    pub(super) gone_away: Option<u32>,
    pub(super) offence: Option<Offence>,
}

impl Conduct {
    pub(super) fn new(streams: u32, resets_allowed: Option<NonZeroUsize>) -> Self {
        Self {
            resets_allowed,
            unanswered_allowed: REFUSED + streams as usize,
            latest: 0,
            unanswered: Vec::new(),
            head_since: None,
            window_since: Instant::now(),
            opened: 0,
            reset: 0,
            idle_talk: 0,
            idle_talk_since: Instant::now(),
            answers: 0,
            stillborn: Vec::new(),
            gone_away: None,
            offence: None,
        }
    }

    /// How long a head has been incomplete.
    pub(super) fn head_incomplete_for(&self) -> Option<Duration> {
        self.head_since.map(|since| since.elapsed())
    }

    /// The caller has sent a frame.
    pub(super) fn received(&mut self, frame: Frame) {
        let Frame { kind, flags, stream, length, .. } = frame;
        let opens = kind == HEADERS && stream > self.latest;
        if opens {
            self.latest = stream;
            self.opened += 1;
            self.unanswered.push(stream | ONLY_HEAD);
            if self.unanswered.len() > self.unanswered_allowed {
                self.offence.get_or_insert(Offence::Resets);
            }
        } else if let Some(known) = self.find(stream)
            && kind != CONTINUATION
        {
            self.unanswered[known] = stream;
        }
        match kind {
            HEADERS | CONTINUATION => {
                self.head_since = match flags & END_HEADERS {
                    0 => self.head_since.or_else(|| Some(Instant::now())),
                    _ => None,
                };
            }
            RST_STREAM => {
                if let Some(known) = self.find(stream) {
                    self.unanswered.swap_remove(known);
                    self.note_reset();
                }
            }
            _ => {}
        }
        if opens || kind == DATA && length > 0 || kind == RST_STREAM {
            self.idle_talk = 0;
        } else if !(kind == DATA && flags & END_STREAM != 0) {
            self.note_idle_talk();
        }
    }

    fn note_idle_talk(&mut self) {
        if self.idle_talk == 0 {
            self.idle_talk_since = Instant::now();
        }
        self.idle_talk += 1;
        if self.idle_talk > IDLE_TALK {
            // Whoever asks every few seconds whether we are still there, may do so for hours.
            if self.idle_talk_since.elapsed() < WINDOW {
                self.offence.get_or_insert(Offence::IdleTalk);
            }
            self.idle_talk = 0;
        }
    }

    /// The codec has sent a frame.
    pub(super) fn sent(&mut self, frame: Frame) {
        let Frame { kind, stream, length, error, .. } = frame;
        match kind {
            HEADERS => {
                self.idle_talk = 0;
                if let Some(known) = self.find(stream) {
                    self.unanswered.swap_remove(known);
                    self.note_answer();
                }
            }
            DATA if length > 0 => self.idle_talk = 0,
            RST_STREAM => self.codec_reset(stream, error),
            GOAWAY if error != NO_ERROR => self.gone_away = Some(error),
            _ => {}
        }
    }

    fn codec_reset(&mut self, stream: u32, error: u32) {
        let known = self.find(stream).map(|known| self.unanswered.swap_remove(known));
        if error != PROTOCOL_ERROR {
            return;
        }
        // What the caller got wrong later is told by the exchange, which has begun.
        if known.is_some_and(|known| known & ONLY_HEAD != 0) {
            self.stillborn.push(Stillborn::Malformed);
            self.note_reset();
        }
    }

    /// The codec is about to send the head of an answer that it was given.
    pub(super) fn answers(&mut self) {
        self.answers += 1;
    }

    /// An answer that the codec was not given is its own: the one to a header section that is too large.
    fn note_answer(&mut self) {
        match self.answers.checked_sub(1) {
            Some(answers) => self.answers = answers,
            None => self.stillborn.push(Stillborn::TooLarge),
        }
        if self.unanswered.is_empty() {
            // Answers to streams that were reset meanwhile are never sent.
            self.answers = 0;
        }
    }

    fn find(&self, stream: u32) -> Option<usize> {
        self.unanswered.iter().position(|known| known & !ONLY_HEAD == stream)
    }

    fn note_reset(&mut self) {
        if self.window_since.elapsed() >= WINDOW {
            (self.window_since, self.opened, self.reset) = (Instant::now(), 0, 0);
        }
        self.reset += 1;
        // A client whose requests time out in an outage cancels many, too; but not most of all that it has sent while the
        // service still answers.
        if self.resets_allowed.is_some_and(|allowed| self.reset > allowed.get())
            && self.reset * 2 > self.opened
        {
            self.offence.get_or_insert(Offence::Resets);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn frame(kind: u8, flags: u8, stream: u32, length: u32, error: u32) -> Frame {
        Frame { kind, flags, stream, length, error }
    }

    fn opened(stream: u32) -> Frame {
        frame(HEADERS, END_HEADERS | END_STREAM, stream, 10, 0)
    }

    fn cancelled(stream: u32) -> Frame {
        frame(RST_STREAM, 0, stream, 4, 8)
    }

    fn watched(resets: usize) -> Conduct {
        Conduct::new(100, NonZeroUsize::new(resets))
    }

    #[test]
    fn requests_that_are_cancelled_before_an_answer_are_counted_and_others_are_not() {
        let mut conduct = watched(10);
        for stream in (1..).step_by(2).take(10) {
            conduct.received(opened(stream));
            conduct.received(cancelled(stream));
        }
        assert_eq!(conduct.offence, None, "so many are allowed");
        for stream in (101..).step_by(2).take(100) {
            conduct.received(opened(stream));
            conduct.answers();
            conduct.sent(frame(HEADERS, END_HEADERS, stream, 10, 0));
            conduct.received(cancelled(stream));
        }
        assert_eq!(conduct.offence, None, "whoever has an answer may have enough of it");
        for stream in (1001..).step_by(2).take(200) {
            conduct.received(opened(stream));
            conduct.received(cancelled(stream));
        }
        assert_eq!(conduct.offence, Some(Offence::Resets));
    }

    #[test]
    fn a_client_that_cancels_some_of_many_is_let_alone() {
        let mut conduct = watched(10);
        for stream in (1..).step_by(2).take(10_000) {
            conduct.received(opened(stream));
            match stream % 3 {
                0 => conduct.received(cancelled(stream)),
                _ => conduct.sent(frame(HEADERS, END_HEADERS | END_STREAM, stream, 10, 0)),
            }
        }
        assert_eq!(conduct.offence, None);
        assert!(conduct.unanswered.is_empty());
    }

    #[test]
    fn a_malformed_request_is_told_from_one_that_went_wrong_later() {
        let mut conduct = watched(10);
        conduct.received(opened(1));
        conduct.sent(frame(RST_STREAM, 0, 1, 4, PROTOCOL_ERROR));
        assert_eq!(conduct.stillborn, [Stillborn::Malformed]);
        conduct.received(frame(HEADERS, END_HEADERS, 3, 10, 0));
        conduct.received(frame(DATA, 0, 3, 10, 0));
        conduct.sent(frame(RST_STREAM, 0, 3, 4, PROTOCOL_ERROR));
        assert_eq!(conduct.stillborn.len(), 1, "its exchange tells of it");
        for stream in [5, 7] {
            conduct.received(opened(stream));
        }
        conduct.answers();
        for stream in [5, 7] {
            conduct.sent(frame(HEADERS, END_HEADERS | END_STREAM, stream, 10, 0));
        }
        assert_eq!(conduct.stillborn[1..], [Stillborn::TooLarge], "one of the answers is the codec's own");
    }

    #[test]
    fn frames_that_carry_nothing_are_too_many_in_a_row_only() {
        const PING: Frame = frame(6, 0, 0, 8, 0);
        let mut conduct = watched(10);
        for stream in (1..).step_by(2).take(10) {
            (0..IDLE_TALK).for_each(|_| conduct.received(PING));
            conduct.received(opened(stream));
        }
        assert_eq!(conduct.offence, None);
        (0..=IDLE_TALK).for_each(|_| conduct.received(PING));
        assert_eq!(conduct.offence, Some(Offence::IdleTalk));
    }
}
