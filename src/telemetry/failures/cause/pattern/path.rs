//! Paths and URLs.

use super::shape::{is_address, is_email, is_time, placeholder, starts_uuid};

/// Segments of a path that are kept, and its bytes.
const MAX_SEGMENTS: usize = 8;
const MAX_PATH: usize = 200;

/// A longer segment is nobody's name for anything.
const MAX_SEGMENT: usize = 64;

/// The path of a URL with `{id}` in place of the segments that are ids, so that `/orders/123/items` and
/// `/orders/124/items` are one place. Its query is left out.
pub fn path_shape(path: &str) -> String {
    let path = path.split(['?', '#']).next().unwrap_or_default();
    let path = path.strip_prefix('/').unwrap_or(path);
    let mut shape = String::new();
    for segment in path.split('/').take(MAX_SEGMENTS) {
        let segment = if is_id(segment) { with_extension(segment) } else { segment.to_owned() };
        if shape.len().saturating_add(segment.len()).saturating_add(1) > MAX_PATH {
            break;
        }
        shape.push('/');
        shape.push_str(&segment);
    }
    shape
}

/// `{id}`, and the extension where the segment has one: `{id}.json`.
fn with_extension(segment: &str) -> String {
    match segment.rsplit_once('.') {
        Some((_, extension)) if is_extension(extension) && !is_email(segment) => {
            format!("{{id}}.{extension}")
        }
        _ => "{id}".to_owned(),
    }
}

fn is_extension(text: &str) -> bool {
    (1..=5).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphabetic())
}

fn is_id(segment: &str) -> bool {
    if segment.contains('{') {
        return segment.len() > MAX_SEGMENT;
    }
    let stem = match segment.rsplit_once('.') {
        Some((stem, extension)) if is_extension(extension) => stem,
        _ => segment,
    };
    segment.len() > MAX_SEGMENT
        || is_email(segment)
        || is_time(stem)
        || is_address(segment)
        || starts_uuid(stem)
        || stem
            .split(|c: char| !c.is_ascii_alphanumeric())
            .any(|atom| !atom.is_empty() && is_id_atom(atom, stem))
}

/// `v1` and `oauth2` are words; what has more digits than a word is an id: `order-123`.
fn is_id_atom(atom: &str, stem: &str) -> bool {
    let digits = atom.bytes().filter(u8::is_ascii_digit).count();
    let alone = atom.len() == stem.len() && digits == atom.len();
    alone || digits >= 3 || (digits > 0 && placeholder(atom).is_some_and(|word| word != "{number}"))
}

/// A URL without user, ids and query.
pub(super) fn url(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return String::new() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    let (authority, rest) = rest.split_at_checked(end).unwrap_or_default();
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    let host = if is_address(host) { "{address}".to_owned() } else { without_digits(host) };
    let (path, query) = match rest.split_once('?') {
        Some((path, _)) => (path, "?{query}"),
        None => (rest.split('#').next().unwrap_or_default(), ""),
    };
    let path: Vec<String> = path.split('/').take(MAX_SEGMENTS.saturating_add(1)).map(bare_segment).collect();
    let path = path.join("/");
    format!("{scheme}://{host}{path}{query}")
}

/// A segment without digits. One that has a placeholder was looked at before.
fn bare_segment(segment: &str) -> String {
    let is_new = !segment.contains('{') && is_id(segment);
    if is_new { without_digits(&with_extension(segment)) } else { without_digits(segment) }
}

fn without_digits(text: &str) -> String {
    let mut plain = String::new();
    let mut inside = false;
    for c in text.chars() {
        if !c.is_ascii_digit() {
            plain.push(c);
        } else if !inside {
            plain.push_str("{number}");
        }
        inside = c.is_ascii_digit();
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_in_a_path_are_replaced_and_words_stay() {
        for (path, expected) in [
            ("/orders/123/items/abc", "/orders/{id}/items/abc"),
            ("/", "/"),
            ("", "/"),
            ("/api/v1/oauth2/token?x=1#y", "/api/v1/oauth2/token"),
            ("/users/0d5cb8c2-25a1-4d04-9d0b-8f2b9bc62a1c", "/users/{id}"),
            ("/commits/9fceb02d0ae598e9.json", "/commits/{id}.json"),
            ("/days/2026-11-21/order-123", "/days/{id}/{id}"),
            ("/mail/bob@example.com/k3j9x8q2z1", "/mail/{id}/{id}"),
            ("/hosts/10.0.0.1/größe", "/hosts/{id}/größe"),
            ("/a/b/c/d/e/f/g/h/i/j", "/a/b/c/d/e/f/g/h"),
        ] {
            assert_eq!(path_shape(path), expected, "{path}");
            assert_eq!(path_shape(expected), expected, "{path}");
        }
        let long = path_shape(&format!("/{}/{}", "x".repeat(65), "y".repeat(64)));
        assert_eq!(long, format!("/{{id}}/{}", "y".repeat(64)));
        assert!(
            path_shape(&"/abcdefghijklmnopqrstuvwxyz-abcdefghijklmnopqrstuvwxyz".repeat(9)).len() <= MAX_PATH
        );
    }
}
