//! Each key of the configuration does something, and does it without a restart.
//!
//! Each module names the keys that it is about, and for each a fact: the program is started with one value, observed
//! from outside, given a file that differs in that key only, and observed again. Which keys there are is read from the
//! reference configuration, so that a key without a fact is noticed.

/// Names keys, each with the fact that shows what it does, and makes a test of each.
macro_rules! keys {
    ($($key:literal => $fact:ident),+ $(,)?) => {
        pub(super) const KEYS: &[&str] = &[$($key),+];

        mod seen {
            $(
                #[test]
                fn $fact() {
                    super::$fact(crate::keys::car::Key::of($key));
                }
            )+
        }
    };
}

mod arrival;
mod bounds;
mod car;
mod exporting;
mod inwards;
mod lineage;
mod outwards;
mod peers;
mod process;
mod propagation;
mod spans;
mod telling;
mod tls;
mod waits;

use std::collections::BTreeSet;

use crate::support::origin::Peer;

#[test]
fn every_key_has_a_fact() {
    let modules = [
        arrival::KEYS,
        bounds::KEYS,
        exporting::KEYS,
        inwards::KEYS,
        lineage::KEYS,
        outwards::KEYS,
        process::KEYS,
        propagation::KEYS,
        spans::KEYS,
        telling::KEYS,
        tls::KEYS,
        waits::KEYS,
    ];
    let facts: Vec<&str> = modules.concat();
    let mut once = BTreeSet::new();
    let twice: Vec<_> = facts.iter().filter(|key| !once.insert(key.to_string())).collect();
    assert!(twice.is_empty(), "keys with two facts: {twice:?}");
    let keys = keys_of(&tracecar::config::reference());
    let without: Vec<_> = keys.difference(&once).collect();
    assert!(without.is_empty(), "keys that nobody has seen do anything: {without:#?}");
    let unknown: Vec<_> = once.difference(&keys).collect();
    assert!(unknown.is_empty(), "facts about keys that there are not: {unknown:#?}");
}

/// Facts are seen over new connections, but whoever stays connected is no exception.
#[test]
fn a_caller_that_stays_connected_has_the_new_settings() {
    let key = car::Key::of("propagation.via");
    let mut car = key.car("propagation: { via: <> }", "false");
    let mut caller = Peer::connect(car.place.listen);
    let mut sent = || {
        caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n");
        peers::echoed(&caller.response()).header("via").map(str::to_owned)
    };
    assert_eq!(sent(), None);
    car.apply("true");
    assert_eq!(sent().as_deref(), Some("1.1 tracecar"));
}

/// The keys that have a value, as paths: `inbound[].to`. Commented keys are keys; prose is not.
fn keys_of(reference: &str) -> BTreeSet<String> {
    let mut keys = BTreeSet::new();
    let mut above: Vec<(usize, String)> = Vec::new();
    for line in reference.lines() {
        let Some((depth, in_list, name)) = key_of(line) else { continue };
        // The first key of an item stands behind its dash; the others stand below it.
        above.retain(|(other, _)| *other < depth);
        if in_list && let Some((_, list)) = above.last_mut() {
            *list = format!("{}[]", list.trim_end_matches("[]"));
        }
        let parents = above.iter().map(|(_, name)| name.as_str());
        keys.insert(parents.chain([name]).collect::<Vec<_>>().join("."));
        above.push((depth, name.to_owned()));
    }
    let sections: Vec<String> = keys
        .iter()
        .filter(|key| {
            let inside = |other: &String| {
                other
                    .strip_prefix(key.as_str())
                    .is_some_and(|rest| rest.starts_with('.') || rest.starts_with("[]"))
            };
            keys.iter().any(inside)
        })
        .cloned()
        .collect();
    keys.retain(|key| !sections.contains(key));
    keys
}

/// The column, whether it is the first of an item, and the name of the key on a line, if there is one.
fn key_of(line: &str) -> Option<(usize, bool, &str)> {
    let mut rest = line.trim_start();
    let mut depth = line.len() - rest.len();
    if let Some(comment) = rest.strip_prefix("# ") {
        rest = comment.trim_start();
        depth += comment.len() - rest.len();
    }
    let item = rest.strip_prefix("- ");
    let (name, value) = item.unwrap_or(rest).split_once(':')?;
    let plain = |char: char| char.is_ascii_lowercase() || char.is_ascii_digit() || char == '_';
    let is_key = !name.is_empty() && name.chars().all(plain) && (value.is_empty() || value.starts_with(' '));
    is_key.then_some((depth + if item.is_some() { 2 } else { 0 }, item.is_some(), name))
}

#[test]
fn keys_are_told_from_sections_lists_and_prose() {
    let reference = "\
# Prose, and more: of it.
a:
  # Prose.
  # b: 1
  c: []
  # c: [x]
  d: []
  # d:
  #   # Prose: a lot.
  #   - e: 1
  #     # Prose.
  #     f: [2]
  g: {}
# h://x
i:
  - j: 1
    # k: 2
l: info
";
    let keys: Vec<_> = keys_of(reference).into_iter().collect();
    assert_eq!(keys, ["a.b", "a.c", "a.d[].e", "a.d[].f", "a.g", "i[].j", "i[].k", "l"]);
}
