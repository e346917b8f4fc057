//! Words: what is a type's name, what is one line, and what is only the status again in words.

use super::MAX_KIND;

/// What answers say that have nothing to say, in small letters and without all else.
const EMPTY_TALK: [&str; 46] = [
    "",
    "anerrorhasoccurred",
    "anerroroccurred",
    "aninternalservererroroccurred",
    "applicationerror",
    "badgateway",
    "badrequest",
    "conflict",
    "err",
    "error",
    "errorresponse",
    "exception",
    "fail",
    "failed",
    "failure",
    "false",
    "forbidden",
    "gatewaytimeout",
    "gone",
    "httpversionnotsupported",
    "insufficientstorage",
    "internal",
    "internalerror",
    "internalserver",
    "internalservererror",
    "methodnotallowed",
    "nomessageavailable",
    "none",
    "notfound",
    "notimplemented",
    "null",
    "ok",
    "oopsanerroroccurred",
    "requesttimeout",
    "server",
    "servererror",
    "servergotitselfintrouble",
    "servicetemporarilyunavailable",
    "serviceunavailable",
    "somethingwentwrong",
    "toomanyrequests",
    "true",
    "unauthorized",
    "undefined",
    "unknownerror",
    "unprocessableentity",
];

/// How sentences begin that frameworks put there whatever happened.
const STOCK_SENTENCES: [&str; 9] = [
    "The server encountered",
    "The application encountered an unexpected error",
    "The server is temporarily unable",
    "Server got itself in trouble",
    "An error occurred while processing your request",
    "An internal server error occurred",
    "An unhandled lowlevel error occurred",
    "We're sorry, but something went wrong",
    "Whoops, looks like something went wrong",
];

/// Whether `text` says nothing beyond the status: `Internal Server Error`, `502: Bad Gateway`, `HTTP Status 500 – …`.
pub(super) fn is_empty_talk(text: &str) -> bool {
    let text = text.trim();
    if STOCK_SENTENCES.iter().any(|start| text.starts_with(start)) {
        return true;
    }
    // The longest entry has fewer letters than this; a long text is no reason phrase.
    let letters: String =
        text.chars().filter(char::is_ascii_alphabetic).map(|c| c.to_ascii_lowercase()).take(64).collect();
    let all_ascii = text.chars().filter(|c| c.is_alphabetic()).all(|c| c.is_ascii());
    let rest = ["httpstatus", "httperror", "http", "error", "status"]
        .iter()
        .find_map(|start| letters.strip_prefix(start))
        .unwrap_or(&letters);
    all_ascii && (EMPTY_TALK.contains(&letters.as_str()) || EMPTY_TALK.contains(&rest))
}

/// The first line that is not blank, its white space and control characters made single spaces.
pub(super) fn one_line(text: &str) -> Option<String> {
    let line = text.lines().map(str::trim).find(|line| !line.is_empty())?;
    let mut clean = String::new();
    for word in line.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
        if !clean.is_empty() {
            clean.push(' ');
        }
        clean.push_str(word);
    }
    (!clean.is_empty()).then_some(clean)
}

/// At most `limit` characters of `text`, the last of which says that there was more.
pub(super) fn shortened(text: &str, limit: usize) -> String {
    match text.char_indices().nth(limit) {
        None => text.to_owned(),
        Some(_) => text.chars().take(limit.saturating_sub(1)).chain(['…']).collect(),
    }
}

/// Whether `text` can be the name of a type, or an error code: one word of letters, digits, and what joins such words.
pub(super) fn is_type_name(text: &str) -> bool {
    text.len() <= MAX_KIND
        && text.starts_with(|c: char| c.is_alphabetic() || matches!(c, '_' | '\\' | '*'))
        && text
            .chars()
            .skip(1)
            .all(|c| c.is_alphanumeric() || matches!(c, '_' | '.' | '$' | ':' | '\\' | '-' | '/' | '@'))
        && !text.ends_with([':', '.', '/'])
        && !is_empty_talk_of_type(text)
}

/// Whether a name is more likely a token: one of its parts goes from letters to digits and back more often than words do.
pub(super) fn is_random(text: &str) -> bool {
    let turns = |part: &str| {
        let kinds = part.chars().map(|c| c.is_ascii_digit());
        kinds.clone().zip(kinds.skip(1)).filter(|(one, next)| one != next).count()
    };
    text.len() >= 16
        && text.split(|c: char| !c.is_alphanumeric()).any(|part| part.len() >= 6 && turns(part) >= 3)
}

/// `Exception` is a type and `Error` is another; `INTERNAL_SERVER_ERROR` is the status again.
fn is_empty_talk_of_type(text: &str) -> bool {
    !matches!(text, "Error" | "Exception" | "InternalServerError" | "InternalError" | "INTERNAL")
        && is_empty_talk(text)
}

/// `Type: message` or `Type` alone, where nothing but the line itself says that it is one.
pub(super) fn named_exception(line: &str) -> Option<(&str, &str)> {
    let (kind, message) = exception(line)?;
    let last = kind.rsplit(['.', ':', '\\', '$', '/']).next().unwrap_or(kind);
    let is_name = last.starts_with(|c: char| c.is_ascii_uppercase());
    let ends_as_one =
        ["Error", "Exception", "Failure", "Fault", "Interrupt"].iter().any(|end| last.ends_with(end));
    (is_name && ends_as_one).then_some((kind, message))
}

/// `Type: message` or `Type` alone, where the place says that it may be one, and it is written as types are.
pub(super) fn capital_exception(line: &str) -> Option<(&str, &str)> {
    let (kind, message) = exception(line)?;
    let last = kind.rsplit(['.', ':', '$', '+']).next().unwrap_or(kind);
    last.starts_with(|c: char| c.is_ascii_uppercase()).then_some((kind, message))
}

/// `Type: message` or `Type` alone, where the place says that it is one.
pub(super) fn exception(line: &str) -> Option<(&str, &str)> {
    let line = line.trim();
    let (kind, message) = match line.split_once(": ") {
        Some((kind, message)) => (kind, message.trim()),
        None => (line.trim_end_matches(':'), ""),
    };
    // Node writes the code behind the type: `TypeError [ERR_INVALID_ARG_TYPE]: …`.
    let kind = match kind.split_once(" [") {
        Some((kind, code)) if code.ends_with(']') => kind,
        _ => kind,
    };
    is_type_name(kind).then_some((kind, message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_in_words_is_empty_talk_and_a_sentence_is_not() {
        for text in [
            "Internal Server Error",
            "502: Bad Gateway",
            "HTTP Status 500 – Internal Server Error",
            "504 Gateway Time-out",
            "INTERNAL_SERVER_ERROR",
            "Error: 500 Internal Server Error",
            "Server Error (500)",
            "500",
            "",
        ] {
            assert!(is_empty_talk(text), "{text:?}");
        }
        for text in ["order not found", "Warehouse Asleep", "Нет такого заказа", "error in the error handler"]
        {
            assert!(!is_empty_talk(text), "{text:?}");
        }
    }

    #[test]
    fn names_of_types_are_told_from_words() {
        for name in [
            "ValueError",
            "java.lang.IllegalStateException",
            "App\\Order\\Lost",
            "*url.Error",
            "ORDER_LOST",
            "Error",
        ] {
            assert!(is_type_name(name), "{name}");
        }
        for name in ["order not found", "", "500", "Bad Gateway", "x".repeat(201).as_str(), "a:"] {
            assert!(!is_type_name(name), "{name}");
        }
        assert_eq!(named_exception("KeyError: 'user'"), Some(("KeyError", "'user'")));
        assert_eq!(named_exception("Note: it is late"), None);
        assert_eq!(exception("TypeError [ERR_X]: no"), Some(("TypeError", "no")));
    }

    #[test]
    fn a_long_text_is_cut_between_characters() {
        assert_eq!(shortened("größe", 5), "größe");
        assert_eq!(shortened("größer", 5), "größ…");
        assert_eq!(one_line("\n\n  a\tb\u{1b}c \nd"), Some("a b c".to_owned()));
    }
}
