//! Values of chosen fields in the beginning of a JSON text.
//!
//! Not a parser: a walk over the strings of a text that may be cut off anywhere, or not be JSON at all. A field counts at
//! any depth, and an array of plain values counts as its values.

use std::borrow::Cow;

/// Most bytes of a body that are looked at.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;

/// Shows every string (unescaped) and number that a field in `fields` has. What the text ends in the middle of is not shown.
pub(super) fn each_value(fields: &[String], text: &[u8], show: &mut impl FnMut(&[u8])) {
    let mut rest = &text[..text.len().min(MAX_BODY_BYTES)];
    while let Some(quote) = rest.iter().position(|byte| *byte == b'"') {
        let Some((name, after)) = string(&rest[quote..]) else { return };
        rest = after;
        let after = after.trim_ascii_start();
        let Some((b':', after)) = after.split_first() else { continue };
        // The quotes are part of what is compared, so that an escaped name can only fail to match.
        let chosen = fields
            .iter()
            .any(|field| name.len() == field.len() + 2 && name[1..name.len() - 1] == *field.as_bytes());
        rest = if chosen { values(after.trim_ascii_start(), show) } else { after };
    }
}

/// Shows the value, or plain values of the array, that `text` begins with; returns what comes after.
fn values<'a>(text: &'a [u8], show: &mut impl FnMut(&[u8])) -> &'a [u8] {
    let Some(mut rest) = text.strip_prefix(b"[") else { return value(text, show).unwrap_or(text) };
    loop {
        let Some(after) = value(rest.trim_ascii_start(), show) else { return rest };
        let Some(after) = after.trim_ascii_start().strip_prefix(b",") else { return after };
        rest = after;
    }
}

fn value<'a>(text: &'a [u8], show: &mut impl FnMut(&[u8])) -> Option<&'a [u8]> {
    if text.first() == Some(&b'"') {
        let (quoted, rest) = string(text)?;
        let inside = &quoted[1..quoted.len() - 1];
        if !inside.contains(&b'\\') {
            show(inside);
        } else if let Ok(plain) = serde_json::from_slice::<Cow<'_, str>>(quoted) {
            show(plain.as_bytes());
        }
        return Some(rest);
    }
    let number = |byte: &u8| byte.is_ascii_digit() || matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E');
    let length = text.iter().position(|byte| !number(byte))?;
    if length == 0 {
        return None;
    }
    show(&text[..length]);
    Some(&text[length..])
}

/// The string that `text` begins with, in its quotes, and what comes after it.
fn string(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let mut escaped = false;
    let end = text.iter().skip(1).position(|byte| {
        let ends = *byte == b'"' && !escaped;
        escaped = *byte == b'\\' && !escaped;
        ends
    })?;
    Some(text.split_at(end + 2))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn found(text: &str) -> Vec<String> {
        let mut found = Vec::new();
        let fields = ["id".to_owned(), "order_ids".to_owned()];
        each_value(&fields, text.as_bytes(), &mut |value| {
            found.push(String::from_utf8_lossy(value).into_owned());
        });
        found
    }

    #[test]
    fn chosen_fields_are_found_at_any_depth() {
        assert_eq!(found(r#"{"id": "a", "other": "b", "deep": [{"id":12345678}]}"#), ["a", "12345678"]);
        assert_eq!(found(r#"{"order_ids": ["a" , 2,"c"], "id": null}"#), ["a", "2", "c"]);
        assert_eq!(found(r#"{"order_ids": [["a"]], "id": {"id": "inner"}}"#), ["inner"]);
    }

    #[test]
    fn names_in_values_are_no_fields() {
        assert_eq!(found(r#"{"text": "\"id\": \"x\"", "id": "y"}"#), ["y"]);
        assert_eq!(found(r#"["id", "x"]"#), Vec::<String>::new());
    }

    #[test]
    fn escapes_are_undone() {
        assert_eq!(found(r#"{"id":"a\/b\u0041"}"#), ["a/bA"]);
    }

    #[test]
    fn what_is_cut_off_is_not_shown() {
        assert_eq!(found(r#"{"id":"whole","id":"cut o"#), ["whole"]);
        assert_eq!(found(r#"{"id":1234"#), Vec::<String>::new());
        assert_eq!(found(r#"{"id"#), Vec::<String>::new());
    }

    proptest! {
        #[test]
        fn any_text_can_be_walked(text in proptest::collection::vec(prop_oneof![Just(b'"'), Just(b'\\'), Just(b':'), Just(b'['), Just(b','), any::<u8>()], 0..300)) {
            each_value(&["id".to_owned(), String::new()], &text, &mut |_| ());
        }

        #[test]
        fn fields_written_by_serde_are_found(value in ".{0,40}") {
            let text = serde_json::json!({ "id": value }).to_string();
            prop_assert_eq!(found(&text), vec![value]);
        }
    }
}
