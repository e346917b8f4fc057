//! JSON that was cut off, closed where it broke off.

/// Containers that are open at most; serde_json refuses more than that anyway.
const MAX_DEPTH: usize = 128;

/// `text`, the first part of a JSON document, made a whole document of what it has. A string that was cut stays, as
/// far as it goes: it may be the trace. A member of which there is only the name goes. `None` where it cannot be
/// mended.
pub(super) fn mended(text: &str) -> Option<String> {
    // What has to be closed, the innermost last.
    let mut open: Vec<char> = Vec::new();
    // Where it can be closed, and how many containers are open there.
    let mut whole = (0, 0);
    let mut in_string = false;
    let mut escaped = false;
    // Whether the next string is the name of a member.
    let mut name = false;
    // Where the open string or its last escape begins.
    let mut escape = 0;
    for (index, character) in text.char_indices() {
        if in_string {
            match character {
                _ if escaped => escaped = false,
                '\\' => (escaped, escape) = (true, index),
                '"' => {
                    in_string = false;
                    if !name {
                        whole = (index.saturating_add(1), open.len());
                    }
                }
                _ => {}
            }
            continue;
        }
        match character {
            '"' => (in_string, escape) = (true, index),
            '{' | '[' => {
                open.push(if character == '{' { '}' } else { ']' });
                if open.len() > MAX_DEPTH {
                    return None;
                }
                name = character == '{';
                whole = (index.saturating_add(1), open.len());
            }
            '}' | ']' => {
                if open.pop() != Some(character) {
                    return None;
                }
                name = false;
                whole = (index.saturating_add(1), open.len());
            }
            ',' => {
                // A number or a word is whole once something follows it.
                whole = (index, open.len());
                name = open.last() == Some(&'}');
            }
            ':' => name = false,
            _ => {}
        }
    }
    let mut mended = if in_string && !name {
        whole.1 = open.len();
        let mut kept = text.get(..string_end(text, escape))?.to_owned();
        kept.push('"');
        kept
    } else {
        text.get(..whole.0)?.to_owned()
    };
    mended.extend(open.get(..whole.1)?.iter().rev());
    (!mended.is_empty()).then_some(mended)
}

/// Where the last whole character of an open string ends, whose last escape begins at `escape`.
fn string_end(text: &str, escape: usize) -> usize {
    let is_whole = match text.as_bytes().get(escape..) {
        Some([b'\\']) => false,
        Some([b'\\', b'u', digits @ ..]) => digits.len() >= 4,
        _ => true,
    };
    let end = if is_whole { text.len() } else { escape };
    // The first half of a pair of surrogates is no character either.
    let half = text.get(..end).and_then(|kept| kept.get(kept.len().checked_sub(6)?..));
    match half.map(str::as_bytes) {
        Some([b'\\', b'u', b'd' | b'D', b'8' | b'9' | b'a' | b'b' | b'A' | b'B', _, _]) => {
            end.saturating_sub(6)
        }
        _ => end,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_beginning_of_a_document_is_made_a_document() {
        let document = r#"{"a": {"b": ["x", 1, true, {"c": "d\"e\u00e9\ud83d\ude00f"}]}, "trace": "at x\n", "n": -1.5e3}"#;
        assert!(serde_json::from_str::<serde_json::Value>(document).is_ok());
        for end in (1..document.len()).filter(|end| document.is_char_boundary(*end)) {
            let part = &document[..end];
            let mended = mended(part).unwrap_or_else(|| panic!("{part} can be mended"));
            serde_json::from_str::<serde_json::Value>(&mended)
                .unwrap_or_else(|error| panic!("{part}: {mended}: {error}"));
        }
    }

    #[test]
    fn a_string_that_was_cut_is_kept() {
        assert_eq!(mended(r#"{"a": 1, "trace": "at x\n"#).as_deref(), Some(r#"{"a": 1, "trace": "at x\n"}"#));
        assert_eq!(mended(r#"{"a": "b\u00"#).as_deref(), Some(r#"{"a": "b"}"#));
        assert_eq!(mended(r#"{"a": 1, "tra"#).as_deref(), Some(r#"{"a": 1}"#));
        assert_eq!(mended(r#"["a", tr"#).as_deref(), Some(r#"["a"]"#));
    }

    #[test]
    fn what_is_too_deep_or_wrong_is_not_mended() {
        assert_eq!(mended(&"[".repeat(10_000)), None);
        assert_eq!(mended("{]"), None);
    }
}
