//! W3C Baggage: whether it can be read.
//!
//! We add nothing to baggage and take nothing from it, so it is passed on byte for byte and never built anew: that
//! would lose duplicates and encodings (BAG-6). It is only checked, to count what the service could not read.

use http::{HeaderMap, HeaderName};

use super::trim;

static BAGGAGE: HeaderName = HeaderName::from_static("baggage");

/// Members that everybody must pass on, over all lines (BAG-3).
const MAX_MEMBERS: usize = 64;
/// Bytes that everybody must pass on, over all lines and the commas that join them (BAG-3).
const MAX_BYTES: usize = 8192;

/// Whether there is baggage that breaks the grammar (BAG-1), or more than others need accept (BAG-3).
///
/// Empty members and empty lines are nothing, not errors (RFC 9110 section 5.6.1). A `%` that begins no escape is
/// let through: the grammar allows it, and decoding is for those who decode (BAG-2).
pub(super) fn malformed(headers: &HeaderMap) -> bool {
    let (mut bytes, mut members) = (0, 0);
    for line in headers.get_all(&BAGGAGE) {
        bytes += line.len() + usize::from(bytes > 0);
        if bytes > MAX_BYTES {
            return true;
        }
        for member in
            line.as_bytes().split(|byte| *byte == b',').map(trim).filter(|member| !member.is_empty())
        {
            members += 1;
            if members > MAX_MEMBERS || !is_member(member) {
                return true;
            }
        }
    }
    false
}

/// `key = value`, then properties, each `; key` or `; key = value`.
fn is_member(member: &[u8]) -> bool {
    let mut parts = member.split(|byte| *byte == b';').map(trim);
    // There is always a first part, if an empty one.
    let has_value = parts.next().is_some_and(is_pair);
    has_value && parts.all(|property| is_token(property) || is_pair(property))
}

/// `key = value`, where the value may be empty and may hold more `=`.
fn is_pair(part: &[u8]) -> bool {
    let Some(equals) = part.iter().position(|byte| *byte == b'=') else { return false };
    is_token(trim(&part[..equals])) && trim(&part[equals + 1..]).iter().all(|byte| is_value_byte(*byte))
}

/// A token of HTTP (RFC 9110 section 5.6.2); not percent-decoded (BAG-2).
fn is_token(text: &[u8]) -> bool {
    !text.is_empty()
        && text.iter().all(|byte| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(byte))
}

/// Visible ASCII without `"`, `,`, `;` and `\`.
fn is_value_byte(byte: u8) -> bool {
    matches!(byte, 0x21 | 0x23..=0x2b | 0x2d..=0x3a | 0x3c..=0x5b | 0x5d..=0x7e)
}

#[cfg(test)]
mod tests {
    use super::super::tests::headers;

    fn malformed(lines: &[&str]) -> bool {
        let lines: Vec<_> = lines.iter().map(|line| ("baggage", *line)).collect();
        super::malformed(&headers(&lines))
    }

    #[test]
    fn no_baggage_is_no_error() {
        assert!(!malformed(&[]));
        assert!(!malformed(&["", " ,, "]));
    }

    #[test]
    fn sixty_four_members_are_read_and_one_more_is_not() {
        let line = |count: usize| vec!["a=1"; count].join(",");
        assert!(!malformed(&[&line(32), &line(32)]));
        assert!(malformed(&[&line(65)]));
        assert!(malformed(&[&line(32), &line(33)]));
    }

    #[test]
    fn eight_kibibytes_are_read_and_one_byte_more_is_not() {
        let line = |bytes: usize| format!("a={}", "x".repeat(bytes - 2));
        assert!(!malformed(&[&line(8192)]));
        assert!(malformed(&[&line(8193)]));
        assert!(!malformed(&[&line(4000), &line(4191)]), "8191 bytes and a comma");
        assert!(malformed(&[&line(4000), &line(4192)]), "8192 bytes and a comma");
    }

    #[test]
    fn every_value_byte_of_the_grammar_is_read_and_no_other() {
        for byte in 0x20..=0x7eu8 {
            let allowed = !matches!(byte, b'"' | b',' | b';' | b'\\' | b' ');
            let text = format!("a=x{}x", byte as char);
            let readable = !malformed(&[&text]);
            // A comma or semicolon ends the value: then `x` is a member without value, or a property.
            assert_eq!(readable, allowed || byte == b';', "{text:?}");
        }
    }

    #[test]
    fn values_may_be_empty_and_hold_equals_signs() {
        assert!(!malformed(&["a=,b==1=,c=%zz"]));
    }
}
