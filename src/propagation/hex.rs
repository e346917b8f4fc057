//! Ids as text: hex digits, which nearly all formats use.

use opentelemetry::trace::{SpanId, TraceId};

/// The value of each lowercase hex digit; [`NOT_HEX`] for every other byte.
const DIGITS: [u8; 256] = {
    let mut digits = [NOT_HEX; 256];
    let mut value = 0;
    while value < 16 {
        digits[b"0123456789abcdef"[value] as usize] = value as u8;
        value += 1;
    }
    digits
};
const NOT_HEX: u8 = 0xff;

/// `N` bytes from `2 * N` lowercase hex digits; `text` has that length.
pub(super) fn read_hex<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    let mut bytes = [0; N];
    // One check at the end instead of one for each digit: all digits are below 16, NOT_HEX is not.
    let mut seen = 0;
    for (byte, pair) in bytes.iter_mut().zip(text.chunks_exact(2)) {
        let (high, low) = (DIGITS[usize::from(pair[0])], DIGITS[usize::from(pair[1])]);
        seen |= high | low;
        *byte = high << 4 | low;
    }
    (seen < 16).then_some(bytes)
}

/// The number that 1 to `most` hex digits of either case are, `most` being 32 or less.
pub(super) fn read_number(text: &[u8], most: usize) -> Option<u128> {
    if text.is_empty() || text.len() > most.min(32) {
        return None;
    }
    let digit = |byte: &u8| match DIGITS[usize::from(byte.to_ascii_lowercase())] {
        NOT_HEX => None,
        digit => Some(u128::from(digit)),
    };
    text.iter().try_fold(0, |number, byte| Some(number << 4 | digit(byte)?))
}

/// A trace id of 16 or 32 lowercase digits, the shorter one padded on the left (CTX-16); not zero.
pub(super) fn read_trace_id(text: &[u8]) -> Option<TraceId> {
    let id = match text.len() {
        32 => TraceId::from_bytes(read_hex(text)?),
        16 => TraceId::from(u128::from(u64::from_be_bytes(read_hex(text)?))),
        _ => return None,
    };
    (id != TraceId::INVALID).then_some(id)
}

/// A span id of 16 lowercase digits; not zero.
pub(super) fn read_span_id(text: &[u8]) -> Option<SpanId> {
    if text.len() != 16 {
        return None;
    }
    let id = SpanId::from_bytes(read_hex(text)?);
    (id != SpanId::INVALID).then_some(id)
}

/// Writes `bytes` as lowercase hex; `text` has twice their length.
pub(super) fn write_hex(bytes: &[u8], text: &mut [u8]) {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    for (byte, pair) in bytes.iter().zip(text.chunks_exact_mut(2)) {
        pair[0] = DIGITS[usize::from(byte >> 4)];
        pair[1] = DIGITS[usize::from(byte & 0x0f)];
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_trace_ids_are_padded_on_the_left() {
        assert_eq!(read_trace_id(b"00000000000000ff"), Some(TraceId::from(255_u128)));
        assert_eq!(read_trace_id(b"0000000000000000"), None);
        assert_eq!(read_trace_id(b"00000000000000000"), None);
    }

    #[test]
    fn numbers_have_digits_of_either_case_and_no_more_than_allowed() {
        assert_eq!(read_number(b"fF", 2), Some(255));
        assert_eq!(read_number(&[b'f'; 32], 32), Some(u128::MAX));
        for text in [&b""[..], b"123", b"0x", b"+1", b" 1"] {
            assert_eq!(read_number(text, 2), None);
        }
    }
}
