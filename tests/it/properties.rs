//! The header parsers, by their properties and by example.
//!
//! The properties are the checks of the fuzz targets, here over bytes that a caller might send: arbitrary ones, and
//! valid headers with something wrong. The examples are the files of `tests/corpus/<parser>/{accept,reject}`: the
//! values of one header, one line each, under a name that says what is special about them. They seed the fuzzers.

use std::path::Path;

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use tracecar::propagation::{CorrelationRules, w3c};

#[path = "../fuzz/checks.rs"]
mod checks;

/// Calls `case` with name and content of each file of one corpus folder; there must be some.
fn each_case(folder: &str, case: impl Fn(&str, &[HeaderValue])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let mut cases = 0;
    for entry in folder.read_dir().unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()))
    {
        let path = entry.unwrap().path();
        let lines = checks::lines(&std::fs::read(&path).unwrap());
        case(&path.display().to_string(), &lines.expect("a case is made of legal header values"));
        cases += 1;
    }
    assert!(cases > 0, "{} has no cases", folder.display());
}

/// Each file of both folders of one parser goes through the check of that parser.
fn each_case_holds(parser: &str, check: fn(&[u8])) {
    for verdict in ["accept", "reject"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(parser).join(verdict);
        folder.read_dir().unwrap().for_each(|entry| check(&std::fs::read(entry.unwrap().path()).unwrap()));
    }
}

#[test]
fn accepted_traceparents_give_a_parent_and_rejected_ones_do_not() {
    each_case("w3c/accept", |case, lines| {
        let incoming = checks::extract(&checks::headers("traceparent", lines));
        assert!(incoming.parent.is_some() && !incoming.malformed.traceparent, "{case}");
    });
    each_case("w3c/reject", |case, lines| {
        let incoming = checks::extract(&checks::headers("traceparent", lines));
        assert!(incoming.parent.is_none() && incoming.malformed.traceparent, "{case}");
    });
    each_case_holds("w3c", checks::traceparent);
}

#[test]
fn accepted_tracestates_are_sent_on_and_rejected_ones_leave_only_the_parent() {
    each_case("tracestate/accept", |case, lines| {
        let incoming = checks::extract_tracestate(lines);
        assert!(!incoming.malformed.tracestate, "{case}");
        let empty = case.contains("empty-header");
        assert_eq!(incoming.parent.unwrap().tracestate.is_none(), empty, "{case}");
    });
    each_case("tracestate/reject", |case, lines| {
        let incoming = checks::extract_tracestate(lines);
        assert!(incoming.malformed.tracestate, "{case}");
        assert_eq!(incoming.parent.unwrap().tracestate, None, "{case}");
    });
    each_case_holds("tracestate", checks::tracestate);
}

#[test]
fn rejected_baggage_is_told_and_accepted_is_not() {
    each_case("baggage/accept", |case, lines| {
        assert!(!checks::extract(&checks::headers("baggage", lines)).malformed.baggage, "{case}");
    });
    each_case("baggage/reject", |case, lines| {
        assert!(checks::extract(&checks::headers("baggage", lines)).malformed.baggage, "{case}");
    });
    each_case_holds("baggage", checks::baggage);
}

#[test]
fn accepted_correlation_ids_are_taken_as_they_are_and_rejected_ones_are_told() {
    let rules = CorrelationRules::default();
    each_case("correlation/accept", |case, lines| {
        let accepted = rules.accept(&checks::headers("x-correlation-id", lines));
        assert_eq!(accepted.id.unwrap().1, lines[0], "{case}");
    });
    each_case("correlation/reject", |case, lines| {
        let accepted = rules.accept(&checks::headers("x-correlation-id", lines));
        assert!(accepted.id.is_none() && accepted.malformed, "{case}");
    });
    each_case_holds("correlation", checks::correlation);
}

#[test]
fn header_names_are_read_in_any_case() {
    for name in ["traceparent", "TraceParent", "TRACEPARENT", "TrAcEpArEnT"] {
        let mut headers = HeaderMap::new();
        let name = http::HeaderName::from_bytes(name.as_bytes()).unwrap();
        headers.insert(
            name,
            HeaderValue::from_static("00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"),
        );
        assert!(checks::extract(&headers).parent.is_some());
    }
}

/// Header values, one line each, of any bytes that a header can hold.
fn arbitrary_lines() -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![8 => 0x20..=0x7eu8, 1 => 0x80..=0xffu8, 1 => Just(b'\t'), 1 => Just(b'\n')];
    prop::collection::vec(byte, 0..200)
}

/// `valid` with up to three bytes replaced, removed or added.
fn almost(valid: impl Strategy<Value = String>) -> impl Strategy<Value = Vec<u8>> {
    let byte = prop_oneof![0x20..=0x7eu8, prop::sample::select(b" \t\n-,=;@%0agAF".to_vec())];
    let changes = prop::collection::vec((any::<prop::sample::Index>(), 0..3, byte), 0..=3);
    (valid, changes).prop_map(|(valid, changes)| {
        let mut bytes = valid.into_bytes();
        for (place, change, byte) in changes {
            let at = place.index(bytes.len().max(1));
            match change {
                0 => bytes.insert(at.min(bytes.len()), byte),
                _ if bytes.is_empty() => {}
                1 => bytes[at] = byte,
                _ => drop(bytes.remove(at)),
            }
        }
        bytes
    })
}

fn cases() -> ProptestConfig {
    // What fails becomes a case in tests/corpus, not a seed that only this crate can read.
    ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(1000) }
}

proptest! {
    #![proptest_config(cases())]

    #[test]
    fn no_bytes_break_a_check(data in arbitrary_lines()) {
        checks::traceparent(&data);
        checks::tracestate(&data);
        checks::baggage(&data);
        checks::correlation(&data);
    }

    #[test]
    fn the_parser_of_traceparent_takes_any_bytes(data in prop::collection::vec(any::<u8>(), 0..80)) {
        checks::traceparent(&data);
    }

    #[test]
    fn a_valid_traceparent_is_written_as_it_was_read(text in "00-[0-9a-f]{31}[1-9a-f]-[0-9a-f]{15}[1-9a-f]-0[0-3]") {
        let context = w3c::parse_traceparent(text.as_bytes()).expect("valid");
        prop_assert_eq!(w3c::render_traceparent(&context), text);
    }

    #[test]
    fn a_later_version_keeps_ids_and_known_flags(
        version in 1..=0xfeu8,
        ids in "[0-9a-f]{31}[1-9a-f]-[0-9a-f]{15}[1-9a-f]",
        flags in any::<u8>(),
        more in "(-[ -~]{0,20}[!-~])?",
    ) {
        let context = w3c::parse_traceparent(format!("{version:02x}-{ids}-{flags:02x}{more}").as_bytes()).expect("valid");
        prop_assert_eq!(w3c::render_traceparent(&context), format!("00-{ids}-{:02x}", flags & 3));
    }

    #[test]
    fn almost_valid_traceparents_hold(data in almost("(00|cc)-[0-9a-f]{32}-[0-9a-f]{16}-0[0-3](-x)?")) {
        checks::traceparent(&data);
    }

    #[test]
    fn almost_valid_tracestates_hold(data in almost("([a-c0-9@]{1,4}=[ -+x]{0,4}x[ ,\n\t]{1,2}){0,34}")) {
        checks::tracestate(&data);
    }

    #[test]
    fn almost_valid_baggage_holds(data in almost("([!a-z]{1,3} ?= ?[!-+x=]{0,4}(;p(=1)?)?[,\n]){0,66}")) {
        checks::baggage(&data);
    }

    #[test]
    fn almost_valid_correlation_ids_hold(data in almost("[!-~]{1,130}")) {
        checks::correlation(&data);
    }
}
