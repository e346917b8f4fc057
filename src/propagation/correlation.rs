//! Correlation ids: the name a request carries through logs, beside or without a trace.
//!
//! An id that came is never changed, only accepted or passed over; one is made only where none was accepted.

use std::time::{Duration, SystemTime};

use http::{HeaderMap, HeaderName, HeaderValue};
use opentelemetry::trace::TraceId;

use super::hex::write_hex;

/// Longest id that is accepted, in bytes: a UUID twice over with room to spare, and little enough for a log line.
const MAX_ID_BYTES: usize = 128;

/// How correlation ids are accepted and made.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CorrelationRules {
    /// Headers that may carry an id, the most trusted first. The first is the one that a made id is sent under.
    pub headers: Vec<HeaderName>,
    /// What becomes the id of a request that brings none.
    pub generate: Generate,
}

/// What becomes the correlation id of a request that brings none.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Generate {
    /// The trace id, 32 lowercase hex digits: one id to search for in logs and in traces.
    TraceId,
    /// A UUID of version 7 (RFC 9562), which sorts by time.
    UuidV7,
}

/// What a request brought.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Accepted {
    /// The id, and the header it came in.
    pub id: Option<(HeaderName, HeaderValue)>,
    /// A configured header was there and could not be accepted. Headers after the accepted one are not looked at.
    pub malformed: bool,
}

impl Default for CorrelationRules {
    /// `x-correlation-id`, then `x-request-id`; the trace id where neither came.
    fn default() -> Self {
        let headers = ["x-correlation-id", "x-request-id"].map(HeaderName::from_static).to_vec();
        Self { headers, generate: Generate::TraceId }
    }
}

impl CorrelationRules {
    /// Finds the id of a request: the first configured header that came once, with a valid value.
    ///
    /// Valid are 1 to 128 bytes of visible ASCII, 0x21 to 0x7E: what fits into a log line, a span attribute and
    /// another header without quoting or cutting.
    pub fn accept(&self, headers: &HeaderMap) -> Accepted {
        let mut malformed = false;
        for name in &self.headers {
            let mut lines = headers.get_all(name).iter();
            let Some(line) = lines.next() else { continue };
            if lines.next().is_none() && is_id(line.as_bytes()) {
                return Accepted { id: Some((name.clone(), line.clone())), malformed };
            }
            malformed = true;
        }
        Accepted { id: None, malformed }
    }

    /// Makes the id of a request that brings none. `now` and `random` are used for [`Generate::UuidV7`] only; the
    /// version takes 6 of the random bits. A `now` before 1970 counts as 1970.
    pub fn make(&self, trace_id: TraceId, now: SystemTime, random: [u8; 10]) -> HeaderValue {
        match self.generate {
            Generate::TraceId => {
                let mut text = [0; 32];
                write_hex(&trace_id.to_bytes(), &mut text);
                HeaderValue::from_bytes(&text).expect("hex digits are legal in a header")
            }
            Generate::UuidV7 => {
                let since = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or(Duration::ZERO);
                // 48 bits of milliseconds last until the year 10889.
                let uuid =
                    uuid::Builder::from_unix_timestamp_millis(since.as_millis() as u64, &random).into_uuid();
                let mut text = uuid::Uuid::encode_buffer();
                let text: &str = uuid.hyphenated().encode_lower(&mut text);
                HeaderValue::from_str(text).expect("hex digits and dashes are legal in a header")
            }
        }
    }
}

fn is_id(value: &[u8]) -> bool {
    (1..=MAX_ID_BYTES).contains(&value.len()) && value.iter().all(u8::is_ascii_graphic)
}

#[cfg(test)]
mod tests {
    use super::super::tests::headers;
    use super::*;

    fn accept(lines: &[(&'static str, &str)]) -> Accepted {
        CorrelationRules::default().accept(&headers(lines))
    }

    fn id(name: &'static str, value: &'static str) -> Option<(HeaderName, HeaderValue)> {
        Some((HeaderName::from_static(name), HeaderValue::from_static(value)))
    }

    #[test]
    fn the_first_configured_header_wins_whatever_the_order_of_the_request() {
        let accepted = accept(&[("x-request-id", "second"), ("x-correlation-id", "first")]);
        assert_eq!(accepted, Accepted { id: id("x-correlation-id", "first"), malformed: false });
    }

    #[test]
    fn an_unacceptable_header_gives_way_to_the_next_and_is_told() {
        for lines in [
            &[("x-correlation-id", "two words"), ("x-request-id", "good")][..],
            &[("x-correlation-id", ""), ("x-request-id", "good")],
            &[("x-correlation-id", "a"), ("x-correlation-id", "a"), ("x-request-id", "good")],
        ] {
            assert_eq!(
                accept(lines),
                Accepted { id: id("x-request-id", "good"), malformed: true },
                "{lines:?}"
            );
        }
    }

    #[test]
    fn nothing_is_accepted_where_nothing_came() {
        assert_eq!(accept(&[("x-other-id", "a")]), Accepted::default());
    }

    #[test]
    fn ids_have_at_most_128_bytes() {
        assert!(accept(&[("x-request-id", &"a".repeat(128))]).id.is_some());
        let accepted = accept(&[("x-request-id", &"a".repeat(129))]);
        assert_eq!(accepted, Accepted { id: None, malformed: true });
    }

    #[test]
    fn the_trace_id_is_made_into_32_digits() {
        let rules = CorrelationRules::default();
        let trace_id = TraceId::from_hex("0af7651916cd43dd8448eb211c80319c").unwrap();
        let made = rules.make(trace_id, SystemTime::UNIX_EPOCH, [0; 10]);
        assert_eq!(made, "0af7651916cd43dd8448eb211c80319c");
    }

    #[test]
    fn the_uuid_is_the_example_of_rfc_9562() {
        let rules = CorrelationRules { generate: Generate::UuidV7, ..CorrelationRules::default() };
        let now = SystemTime::UNIX_EPOCH + Duration::from_millis(0x017F_22E2_79B0);
        let random = [0x0C, 0xC3, 0x18, 0xC4, 0xDC, 0x0C, 0x0C, 0x07, 0x39, 0x8F];
        assert_eq!(rules.make(TraceId::INVALID, now, random), "017f22e2-79b0-7cc3-98c4-dc0c0c07398f");
    }

    #[test]
    fn a_clock_before_1970_counts_as_1970() {
        let rules = CorrelationRules { generate: Generate::UuidV7, ..CorrelationRules::default() };
        let now = SystemTime::UNIX_EPOCH - Duration::from_secs(1);
        assert_eq!(rules.make(TraceId::INVALID, now, [0; 10]), "00000000-0000-7000-8000-000000000000");
    }

    #[test]
    fn a_made_id_would_be_accepted() {
        for generate in [Generate::TraceId, Generate::UuidV7] {
            let rules = CorrelationRules { generate, ..CorrelationRules::default() };
            let made = rules.make(TraceId::INVALID, SystemTime::UNIX_EPOCH, [0xff; 10]);
            let mut headers = HeaderMap::new();
            headers.insert(&rules.headers[0], made);
            assert!(rules.accept(&headers).id.is_some());
        }
    }
}
