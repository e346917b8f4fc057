//! What lines for people and machines are made of: times, durations, and text that stays on its line.
//!
//! Paths, user agents and headers come from strangers. Whatever they hold, a line of ours must stay one line and
//! must not talk to the reader's terminal.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use http::Version;
use serde::Serialize;
use serde_json::ser::{Formatter, Serializer};

/// Name and version of the protocol, as people write them.
pub(super) fn protocol(version: Version) -> &'static str {
    match version {
        Version::HTTP_09 => "HTTP/0.9",
        Version::HTTP_10 => "HTTP/1.0",
        Version::HTTP_2 => "HTTP/2",
        Version::HTTP_3 => "HTTP/3",
        _ => "HTTP/1.1",
    }
}

/// The moment as RFC 3339 writes it, in UTC with `digits` (3 or 9) decimals. Moments before 1970 are 1970: they
/// come from a clock that was never set.
pub(super) fn rfc3339(moment: SystemTime, digits: usize) -> String {
    let since = moment.duration_since(UNIX_EPOCH).unwrap_or_default();
    let seconds = since.as_secs();
    let (year, month, day) = civil(seconds / 86_400);
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let fraction = match digits {
        9 => u64::from(since.subsec_nanos()),
        _ => u64::from(since.subsec_millis()),
    };
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{fraction:0digits$}Z")
}

/// Year, month and day of the day that many days after 1970-01-01, in the Gregorian calendar.
fn civil(days: u64) -> (u64, u64, u64) {
    // Years are counted from March: the leap day is then a year's last, and months have a fixed pattern of
    // lengths. 719 468 days lie between 0000-03-01 and 1970-01-01; 146 097 days are 400 years.
    let days = days + 719_468;
    let (era, day_of_era) = (days / 146_097, days % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let march_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * march_month + 2) / 5 + 1;
    let month = if march_month < 10 { march_month + 3 } else { march_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Milliseconds to the nanosecond: the value reads back as exactly the duration, for any up to ten days.
pub(super) fn milliseconds(duration: Duration) -> f64 {
    duration.as_nanos() as f64 / 1e6
}

/// A duration for people: three digits and a unit.
pub(super) fn brief(duration: Duration) -> String {
    let nanos = duration.as_nanos() as f64;
    // 999.5 of a unit would be written as 1000: that is the next unit's 1.00.
    let (value, unit) = match nanos {
        n if n < 999_500.0 => (n / 1e3, "µs"),
        n if n < 999_500_000.0 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    let decimals = match value {
        v if v < 9.995 => 2,
        v if v < 99.95 => 1,
        _ => 0,
    };
    format!("{value:.decimals$} {unit}")
}

/// Whether a character may end a line for some reader, move a terminal's cursor, or turn the reading direction.
fn unruly(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{2028}' | '\u{2029}' | '\u{200e}' | '\u{200f}' | '\u{061c}')
        || matches!(character, '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// The text with all that could break its line, or its word, written as escapes. In quotes spaces stay.
pub(super) fn escaped(text: &str, quoted: bool) -> Cow<'_, str> {
    let bad = |c: char| unruly(c) || c == '\\' || if quoted { c == '"' } else { c.is_whitespace() };
    if !text.contains(bad) {
        return text.into();
    }
    let mut out = String::with_capacity(text.len() + 8);
    for character in text.chars() {
        match character {
            '\\' | '"' if bad(character) => out.extend(['\\', character]),
            _ if bad(character) => {
                // Writing to a String cannot fail.
                let _ = write!(out, "\\u{{{:x}}}", u32::from(character));
            }
            _ => out.push(character),
        }
    }
    out.into()
}

/// Appends `value` to `out` as one JSON line.
pub(super) fn push_json_line(out: &mut Vec<u8>, value: &impl Serialize) {
    let start = out.len();
    match value.serialize(&mut Serializer::with_formatter(&mut *out, OneLine)) {
        Ok(()) => out.push(b'\n'),
        // Plain structs of strings and numbers always serialize; should one not, half a line helps nobody.
        Err(_) => out.truncate(start),
    }
}

/// Compact JSON that escapes everything [`unruly`]: JSON itself lets U+2028 and the C1 controls stand, and some
/// readers split lines there.
struct OneLine;

impl Formatter for OneLine {
    fn write_string_fragment<W: ?Sized + io::Write>(
        &mut self,
        writer: &mut W,
        fragment: &str,
    ) -> io::Result<()> {
        let mut rest = fragment;
        while let Some((index, character)) = rest.char_indices().find(|(_, c)| unruly(*c)) {
            writer.write_all(&rest.as_bytes()[..index])?;
            // All unruly characters are below U+10000, so one escape holds each.
            write!(writer, "\\u{:04x}", u32::from(character))?;
            rest = &rest[index + character.len_utf8()..];
        }
        writer.write_all(rest.as_bytes())
    }
}

/// What is percent-encoded, as text, as in `grpc-message`. What is not valid stays as it is (RPC-14).
pub(super) fn percent_decoded(text: &str) -> String {
    let mut out = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((&byte, tail)) = rest.split_first() {
        let digit = |at: usize| char::from(*tail.get(at)?).to_digit(16);
        match digit(0).zip(digit(1)).filter(|_| byte == b'%') {
            Some((high, low)) => {
                out.push((high * 16 + low) as u8);
                rest = &tail[2..];
            }
            None => {
                out.push(byte);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_those_of_the_calendar() {
        let at = |seconds, millis| {
            rfc3339(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis), 3)
        };
        assert_eq!(at(0, 0), "1970-01-01T00:00:00.000Z");
        assert_eq!(at(951_782_399, 999), "2000-02-28T23:59:59.999Z");
        assert_eq!(at(951_782_400, 7), "2000-02-29T00:00:00.007Z");
        assert_eq!(at(1_709_251_199, 0), "2024-02-29T23:59:59.000Z");
        assert_eq!(at(4_107_542_400, 0), "2100-03-01T00:00:00.000Z");
        assert_eq!(rfc3339(UNIX_EPOCH - Duration::from_secs(1), 3), "1970-01-01T00:00:00.000Z");
        assert_eq!(rfc3339(UNIX_EPOCH + Duration::from_nanos(5), 9), "1970-01-01T00:00:00.000000005Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = civil(0);
        for days in 1..80_000 {
            let now = civil(days);
            let next_day = (last.0, last.1, last.2 + 1) == now;
            let next_month = now.2 == 1 && last.2 >= 28 && (now.0, now.1) == next(last);
            assert!(next_day || next_month, "{last:?} then {now:?}");
            last = now;
        }
        fn next((year, month, _): (u64, u64, u64)) -> (u64, u64) {
            if month == 12 { (year + 1, 1) } else { (year, month + 1) }
        }
    }

    #[test]
    fn milliseconds_read_back_exactly() {
        for nanos in [1, 40_123, 5_000_000, 86_399_999_999_999, 864_000_000_000_001] {
            let written = serde_json::to_string(&milliseconds(Duration::from_nanos(nanos))).unwrap();
            let read = (written.parse::<f64>().unwrap() * 1e6).round() as u64;
            assert_eq!(read, nanos, "{written}");
            let decimals = written.split_once('.').map_or(0, |(_, decimals)| decimals.len());
            assert!(decimals <= 6 || written.contains('e'), "{written}");
        }
    }

    #[test]
    fn durations_have_three_digits() {
        let of = |nanos| brief(Duration::from_nanos(nanos));
        assert_eq!(of(0), "0.00 µs");
        assert_eq!(of(840_400), "840 µs");
        assert_eq!(of(999_600), "1.00 ms");
        assert_eq!(of(12_345_678), "12.3 ms");
        assert_eq!(of(1_240_000_000), "1.24 s");
        assert_eq!(of(90_000_000_000), "90.0 s");
    }

    #[test]
    fn escaped_text_stays_on_its_line_and_in_its_word() {
        assert_eq!(escaped("/plain", false), "/plain");
        assert_eq!(escaped("a b\n\u{1b}[31m", false), "a\\u{20}b\\u{a}\\u{1b}[31m");
        assert_eq!(escaped("say \"hi\" \\ \u{202e}", true), "say \\\"hi\\\" \\\\ \\u{202e}");
        assert_eq!(escaped("\u{85}\u{2028}", true), "\\u{85}\\u{2028}");
    }

    #[test]
    fn json_lines_hold_no_character_that_ends_a_line() {
        let hostile = "a\nb\r\u{85}\u{2028}\u{2029}\u{1b}[2J\u{7f}\"\\\u{202e}ü";
        let mut out = Vec::new();
        push_json_line(&mut out, &hostile);
        let line = String::from_utf8(out).unwrap();
        let tame = |c: char| !c.is_control() && !matches!(c, '\u{2028}' | '\u{2029}' | '\u{202e}');
        assert!(line.trim_end_matches('\n').chars().all(tame), "{line:?}");
        assert_eq!(serde_json::from_str::<String>(&line).unwrap(), hostile);
    }
}
