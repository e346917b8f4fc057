//! Paths of URLs: tokens in them have no names, but often a word before them.

use std::borrow::Cow;

use super::{FILTERED, contains_any, decoded, denied, text};

/// What is often done with a secret that is the next segment.
const ACTIONS: [&str; 10] = [
    "reset",
    "verify",
    "confirm",
    "activate",
    "invite",
    "invitation",
    "unsubscribe",
    "magic",
    "login",
    "share",
];

/// Characters of what can be neither a secret nor anything that looks like one; and of the longest word.
const SHORT: usize = 5;
const LONGEST_WORD: usize = 20;

/// A path without the segments that are secrets.
pub fn path(path: &str) -> Cow<'_, str> {
    let mut before = String::new();
    let mut changed = false;
    let segments: Vec<&str> = path
        .split('/')
        .map(|segment| {
            let meant = decoded(segment).into_owned();
            // An encoded slash is one to whoever reads the path behind us.
            let is_secret = segment != FILTERED
                && meant.split('/').any(|part| {
                    let secret = is_secret(part, &before);
                    part.clone_into(&mut before);
                    secret
                });
            changed |= is_secret;
            meant.rsplit('/').next().unwrap_or_default().clone_into(&mut before);
            if is_secret { FILTERED } else { segment }
        })
        .collect();
    if changed { segments.join("/").into() } else { path.into() }
}

fn is_secret(segment: &str, before: &str) -> bool {
    let is_named = denied(before) || contains_any(before, &ACTIONS);
    let is_word = segment.len() <= LONGEST_WORD && segment.bytes().all(|byte| byte.is_ascii_lowercase());
    let is_template = segment.starts_with('{') && segment.ends_with('}');
    let may_be_one = segment.chars().count() > SHORT && !is_word && !is_template;
    is_named && may_be_one || is_email(segment) || text(segment) != segment
}

fn is_email(segment: &str) -> bool {
    segment.split_once('@').is_some_and(|(name, host)| !name.is_empty() && host.contains('.'))
}
