//! What a word looks like.

use std::net::{IpAddr, SocketAddr};

/// The placeholder for one run of letters and digits, where it stands for a whole.
pub(super) fn placeholder(atom: &str) -> Option<&'static str> {
    if atom.bytes().all(|byte| byte.is_ascii_digit()) {
        return Some("{number}");
    }
    let is_pointer = atom.strip_prefix("0x").is_some_and(|hex| !hex.is_empty() && is_hex(hex));
    match atom {
        _ if is_pointer => Some("{address}"),
        _ if atom.len() >= 8 && is_hex(atom) && has_digit(atom) => Some("{id}"),
        _ if atom.len() >= 10 && is_mixed(atom) => Some("{id}"),
        _ => None,
    }
}

fn is_hex(text: &str) -> bool {
    text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn has_digit(text: &str) -> bool {
    text.bytes().any(|byte| byte.is_ascii_digit())
}

/// Letters and digits in no order that a word or a name has them in.
pub(super) fn is_mixed(text: &str) -> bool {
    if !text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"+-_=~".contains(&byte)) {
        return false;
    }
    let kinds = text.bytes().filter(u8::is_ascii_alphanumeric).map(|byte| byte.is_ascii_digit());
    let changes = kinds.clone().zip(kinds.skip(1)).filter(|(one, next)| one != next).count();
    changes >= 4
}

/// Whether `text` begins with a UUID that ends there.
pub(super) fn starts_uuid(text: &str) -> bool {
    let Some((uuid, after)) = text.split_at_checked(36) else { return false };
    let dashes = [8, 13, 18, 23];
    let is_one = uuid
        .bytes()
        .enumerate()
        .all(|(at, byte)| if dashes.contains(&at) { byte == b'-' } else { byte.is_ascii_hexdigit() });
    is_one && has_digit(uuid) && !after.starts_with(|c: char| c.is_ascii_alphanumeric())
}

/// Something, an `@`, and something with a dot in it. It is asked loosely, so that no part of what is none is one.
pub(super) fn is_email(word: &str) -> bool {
    let Some((before, after)) = word.split_once('@') else { return false };
    let (before, after) =
        if before.is_empty() { after.split_once('@').unwrap_or((before, after)) } else { (before, after) };
    let mut dots = after.match_indices('.');
    !before.is_empty()
        && dots.any(|(at, _)| {
            after.get(at.saturating_add(1)..).is_some_and(|rest| rest.starts_with(char::is_alphanumeric))
        })
}

/// `10.0.3.17`, `10.0.3.17:5432`, `fe80::1`.
pub(super) fn is_address(word: &str) -> bool {
    word.parse::<IpAddr>().is_ok() || word.parse::<SocketAddr>().is_ok()
}

/// `2026-11-21`, `2026-11-21T17:03:42.193Z`, `21/Nov/2026:17:03:42`, `17:03:42`.
pub(super) fn is_time(word: &str) -> bool {
    begins_like(word, "dddd-dd-dd")
        || begins_like(word, "dddd/dd/dd")
        || begins_like(word, "dd/aaa/dddd")
        || begins_like(word, "dd:dd:dd")
        || begins_like(word, "dddddddd'T'dddddd")
}

/// Whether `word` begins with what `form` shows: `d` is a digit, `a` a letter, all else itself.
fn begins_like(word: &str, form: &str) -> bool {
    let mut bytes = word.bytes();
    let fits = form.bytes().filter(|shown| *shown != b'\'').all(|shown| {
        bytes.next().is_some_and(|byte| match shown {
            b'd' => byte.is_ascii_digit(),
            b'a' => byte.is_ascii_alphabetic(),
            _ => byte == shown,
        })
    });
    // `2026-11-215` is no date, and `10:20:30:40` is no time of the day.
    fits && !bytes
        .next()
        .is_some_and(|byte| byte.is_ascii_digit() || (byte == b':' && form.starts_with("dd:")))
}

/// `30s`, `1.5ms`, `1m30s`.
pub(super) fn is_duration(word: &str) -> bool {
    let mut rest = word;
    while !rest.is_empty() {
        let digits = rest.trim_start_matches(|c: char| c.is_ascii_digit() || c == '.');
        if digits.len() == rest.len() || rest.starts_with('.') {
            return false;
        }
        let end = digits.find(|c: char| c.is_ascii_digit()).unwrap_or(digits.len());
        let Some((unit, after)) = digits.split_at_checked(end) else { return false };
        if !["ns", "us", "µs", "μs", "ms", "s", "sec", "m", "min", "h", "d"].contains(&unit) {
            return false;
        }
        rest = after;
    }
    !word.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_words_with_digits() {
        for id in ["9fceb02d0ae598e9", "V1StGXR8Z5jdHi6B", "01ARZ3NDEKTSV4RRFFQ69G5FAV", "k3j9x8q2z1"] {
            assert_eq!(placeholder(id), Some("{id}"), "{id}");
        }
        for word in ["utf8", "sha256", "IPv4", "deadbeef", "base64encoded", "OrderV2Controller"] {
            assert_eq!(placeholder(word), None, "{word}");
        }
    }

    #[test]
    fn times_and_durations_are_told_from_other_numbers() {
        assert!(
            ["2026-11-21", "17:03:42.1", "21/Nov/2026:17:03:42", "20261121T170342Z"]
                .iter()
                .all(|word| is_time(word))
        );
        assert!(!["2026-11-215", "10:20:30:40", "12:30", "2026"].iter().any(|word| is_time(word)));
        assert!(["30s", "1.5ms", "1m30s", "20µs"].iter().all(|word| is_duration(word)));
        assert!(!["30", "s", "", "30x", ".s", "3km"].iter().any(|word| is_duration(word)));
    }
}
