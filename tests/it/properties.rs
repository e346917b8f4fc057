//! The parsers, by their properties and by example.
//!
//! The properties are the checks of the fuzz targets, here over bytes that a caller might send: arbitrary ones, and
//! valid headers with something wrong. The examples are the files of `tests/corpus/<parser>/{accept,reject}`: the
//! values of one header, one line each, under a name that says what is special about them. They seed the fuzzers.

use std::path::Path;

use http::{HeaderMap, HeaderValue};
use proptest::prelude::*;
use tracecar::propagation::{CorrelationRules, Format, Incoming, Malformed, Propagation, w3c};
use tracecar::wire::proxy_protocol::{self, Header, Parsed};

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
fn each_case_holds(parser: &str, check: impl Fn(&[u8])) {
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
fn accepted_proxy_headers_are_read_whole_and_rejected_ones_are_not() {
    for verdict in ["accept", "reject"] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus/proxy-protocol").join(verdict);
        for entry in folder.read_dir().unwrap() {
            let path = entry.unwrap().path();
            let data = std::fs::read(&path).unwrap();
            let case = path.file_stem().unwrap().to_str().unwrap();
            let parsed = proxy_protocol::parse(&data);
            checks::proxy_protocol(&data);
            if verdict == "reject" {
                assert!(parsed.is_err(), "{case}: {parsed:?}");
                continue;
            }
            let Ok(Parsed::Whole(header, length)) = parsed else { panic!("{case}: {parsed:?}") };
            // The name of a case says what it is about.
            assert_eq!(length < data.len(), case.contains("request-behind"), "{case}");
            let addresses = ["tcp4", "tcp6"].iter().any(|family| case.contains(family));
            assert_eq!(header != Header::Unknown, addresses, "{case}: {header:?}");
        }
    }
}

#[test]
fn accepted_forwarded_lines_have_elements_that_can_be_read_and_rejected_ones_some_that_cannot() {
    use tracecar::wire::forwarded::elements::elements;
    each_case("forwarded/accept", |case, lines| {
        assert!(lines.iter().flat_map(|line| elements(line.as_bytes())).all(|one| one.is_some()), "{case}");
    });
    each_case("forwarded/reject", |case, lines| {
        assert!(lines.iter().flat_map(|line| elements(line.as_bytes())).any(|one| one.is_none()), "{case}");
    });
    each_case_holds("forwarded", checks::forwarded);
}

/// The formats beside W3C's, with the folder of their examples.
const FOREIGN: [(Format, &str); 6] = [
    (Format::B3, "b3"),
    (Format::B3Multi, "b3multi"),
    (Format::Jaeger, "jaeger"),
    (Format::XRay, "xray"),
    (Format::Datadog, "datadog"),
    (Format::SentryTrace, "sentry-trace"),
];

fn check_foreign(format: Format, data: &[u8]) {
    match format {
        Format::B3Multi | Format::Datadog => checks::several_headers(format, data),
        _ => checks::one_header(format, data),
    }
}

/// Calls `case` with what the one format in use finds in each file of a folder.
fn each_foreign_case(format: Format, folder: &str, case: impl Fn(&str, Incoming)) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/corpus").join(folder);
    let mut cases = 0;
    for entry in folder.read_dir().unwrap_or_else(|error| panic!("cannot read {}: {error}", folder.display()))
    {
        let path = entry.unwrap().path();
        let data = std::fs::read(&path).unwrap();
        let headers = match format {
            Format::B3Multi | Format::Datadog => checks::named_headers(&data),
            _ => checks::lines(&data).map(|lines| checks::headers(checks::header_of(format), &lines)),
        };
        let headers = headers.unwrap_or_else(|| panic!("{} is not made of legal headers", path.display()));
        case(&path.display().to_string(), Propagation::both(vec![format]).extract(&headers));
        cases += 1;
    }
    assert!(cases > 0, "{} has no cases", folder.display());
}

#[test]
fn accepted_contexts_of_every_format_are_found_and_rejected_ones_are_told() {
    for (format, folder) in FOREIGN {
        each_foreign_case(format, &format!("{folder}/accept"), |case, incoming| {
            let text = format!("{case}: {incoming:?}");
            assert_eq!(incoming.malformed, Malformed::default(), "{text}");
            // The name of a case says where it brings less than a whole context.
            match case {
                _ if case.contains("only-fields-of-others") => assert_eq!(incoming.format, None, "{text}"),
                _ if case.contains("decision-alone") => {
                    assert!(incoming.parent.is_none() && incoming.sampled.is_some(), "{text}");
                }
                _ if case.contains("without-parent") => assert!(incoming.trace_id.is_some(), "{text}"),
                _ => assert!(incoming.parent.is_some(), "{text}"),
            }
            if case.contains("decision-left-to-us") {
                assert_eq!(incoming.sampled, None, "{text}");
            }
        });
        each_foreign_case(format, &format!("{folder}/reject"), |case, incoming| {
            let text = format!("{case}: {incoming:?}");
            assert!(checks::is_malformed(format, incoming.malformed), "{text}");
            // Datadog's priority and tags do not spoil the ids.
            let partly = case.contains("ids-are-kept");
            assert_eq!(incoming.format.is_some(), partly, "{text}");
        });
        each_case_holds(folder, |data| check_foreign(format, data));
    }
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
        checks::forwarded(&data);
        for (format, _) in FOREIGN {
            check_foreign(format, &data);
        }
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
    fn almost_valid_b3_holds(data in almost("[0-9a-f]{32}-[0-9a-f]{16}(-[01d](-[0-9a-f]{16})?)?|[01d]")) {
        checks::one_header(Format::B3, &data);
    }

    #[test]
    fn almost_valid_b3_over_several_headers_holds(data in almost(
        "(b3: [01d]\n)?(x-b3-traceid: ([0-9a-f]{16}){1,2}\n)?(x-b3-spanid: [0-9a-f]{16}\n)?\
         (x-b3-sampled: (0|1|true|False)\n)?(x-b3-flags: [01]\n)?(x-b3-parentspanid: [0-9a-f]{16}\n)?host: a",
    )) {
        checks::several_headers(Format::B3Multi, &data);
        checks::several_headers(Format::B3, &data);
    }

    #[test]
    fn almost_valid_jaeger_holds(data in almost("[0-9a-fA-F]{1,32}(:|%3A)[0-9a-f]{1,16}:[0-9a-f]{1,16}(:|%3a)[0-9a-f]{1,2}")) {
        checks::one_header(Format::Jaeger, &data);
    }

    #[test]
    fn almost_valid_xray_holds(data in almost(
        "(Self=1-2; ?)?(Root=1-[0-9a-f]{8}-[0-9a-f]{24};?)?(a=b=c;)?(Parent=[0-9a-f]{16};?)?(Sampled=[01?];?)?(Lineage=x)?",
    )) {
        checks::one_header(Format::XRay, &data);
    }

    #[test]
    fn almost_valid_datadog_holds(data in almost(
        "x-datadog-trace-id: [1-9][0-9]{0,19}\n(x-datadog-parent-id: [0-9]{1,20}\n)?\
         (x-datadog-sampling-priority: (-1|0|1|2)\n)?(x-datadog-tags: (_dd.p.dm=-0,)?(_dd.p.tid=[0-9a-f]{16})?(,b=1){0,200}\n){0,2}x-datadog-origin: rum",
    )) {
        checks::several_headers(Format::Datadog, &data);
    }

    #[test]
    fn almost_valid_sentry_traces_hold(data in almost("[0-9a-f]{32}-[0-9a-f]{16}(-[01])?")) {
        checks::one_header(Format::SentryTrace, &data);
    }

    #[test]
    fn any_two_formats_agree_on_who_wins(first in 0..FOREIGN.len(), second in 0..FOREIGN.len(), ids in any::<(u128, u64)>()) {
        // Both carry a context of their own; the later one in the list is the one that is found.
        let write = |headers: &mut HeaderMap, format, salt: u8| {
            let context = tracecar::propagation::Context {
                trace_id: (ids.0 ^ u128::from(salt)).max(1).into(),
                span_id: ids.1.max(1).into(),
                flags: salt & 1,
                tracestate: None,
                debug: false,
            };
            Propagation::both(vec![format]).inject(headers, &context);
            context
        };
        let (first, second) = (FOREIGN[first].0, FOREIGN[second].0);
        let mut headers = HeaderMap::new();
        write(&mut headers, first, 2);
        let context = write(&mut headers, second, 1);
        let incoming = Propagation::both(vec![first, second]).extract(&headers);
        prop_assert_eq!(incoming.sampled, Some(true));
        prop_assert_eq!(incoming.parent, Some(context));
    }

    #[test]
    fn almost_valid_forwarded_holds(data in almost(
        "((for|By|proto|host|x)=(\"(\\[[0-9a-f:]{2,9}\\](:[0-9]{1,5})?|[a-z:,;]{0,4}(\\\\.)?)\"|10\\.0\\.0\\.[0-9]{1,3}|unknown|_[a-z]|https?)(;|, |,|\n)){0,12}",
    )) {
        checks::forwarded(&data);
    }

    #[test]
    fn any_authority_is_judged(data in almost("([a-z]{1,8}\\.){0,3}[a-z]{1,4}(:[0-9]{1,5})?|\\[[0-9a-f:]{2,30}\\]:80|([0-9]{1,3}\\.){3}[0-9]{1,3}:443")) {
        checks::egress(&data);
    }

    #[test]
    fn any_request_and_any_call_can_be_compared(data in almost("(/[a-z0-9%-]{0,40}){0,4}\n([a-z]=[!-~]{0,40}&?){0,4}\n\\{\"id\": ?\"[ -~]{0,40}\"\\}")) {
        checks::lineage(&data);
    }

    #[test]
    fn any_beginning_of_a_connection_is_judged(data in prop::collection::vec(any::<u8>(), 0..80), signed in any::<bool>()) {
        let signature = if signed { &b"\r\n\r\n\0\r\nQUIT\n"[..] } else { b"" };
        checks::proxy_protocol(&[signature, &data].concat());
    }

    #[test]
    fn almost_valid_proxy_lines_hold(data in almost(
        "PROXY (TCP4 ([0-9]{1,3}\\.){3}[0-9]{1,3} ([0-9]{1,3}\\.){3}[0-9]{1,3}|TCP6 [0-9a-f:]{2,39} [0-9a-f:]{2,39}|UNKNOWN)( [0-9]{1,5}){0,2}\r\nGET",
    )) {
        checks::proxy_protocol(&data);
    }

    #[test]
    fn almost_valid_proxy_blocks_hold(
        command in prop_oneof![Just(0x20u8), Just(0x21u8), any::<u8>()],
        kind in prop_oneof![Just(0x11u8), Just(0x21u8), any::<u8>()],
        length in 0..60u16,
        block in prop::collection::vec(any::<u8>(), 0..70),
    ) {
        let [high, low] = length.to_be_bytes();
        checks::proxy_protocol(&[&b"\r\n\r\n\0\r\nQUIT\n"[..], &[command, kind, high, low], &block].concat());
    }

    #[test]
    fn almost_valid_correlation_ids_hold(data in almost("[!-~]{1,130}")) {
        checks::correlation(&data);
    }

    #[test]
    fn any_content_of_a_failed_answer_is_read(data in prop::collection::vec(any::<u8>(), 0..400)) {
        checks::error_page(&data);
    }

    #[test]
    fn almost_valid_error_pages_hold(data in almost(
        "((Traceback \\(most recent call last\\):|  File \"/a/b\\.py\", line 1, in f|    x = 1|E\\.Error: a 1|\tat a\\.B\\.c\\(D\\.java:1\\)|\
         Caused by: a\\.B|    at f \\(/a/b\\.js:1:2\\)|#0 /a/b\\.php\\(1\\): f\\(\\)|E: m in /a/b\\.php:1|/a/b\\.rb:1:in 'f'|goroutine 1 \\[running\\]:|\
         <(/?(p|pre|h1|title|!--|script))>|&(lt|#39|x);?|\\{\"error\": ?\"|\"trace\":|[\\[\\]{}\",])\n?){0,20}",
    )) {
        checks::error_page(&data);
    }

    #[test]
    fn any_message_has_a_pattern_of_its_own(text in "([ '\"“”:/.@?={}()-]|[a-z]{1,4}|[0-9]{1,3}|é|Jan|://|\\{id\\}|[0-9a-f]{8}){0,30}") {
        checks::error_page(text.as_bytes());
    }

    #[test]
    fn messages_that_differ_in_numbers_and_ids_have_one_pattern(
        words in prop::collection::vec("[a-z]{1,8}", 4),
        numbers in any::<([u32; 2], [u64; 2], [u128; 2], [[u8; 4]; 2])>(),
        decimals in [0..1000_u32, 0..1000],
    ) {
        let message = |at: usize| {
            let uuid = uuid::Uuid::from_u128(numbers.2[at] | 1 << 64);
            let address = std::net::Ipv4Addr::from(numbers.3[at]);
            format!(
                "{} {} {}-{} at '{}{}' of {uuid} from {address}:{} {}.{}",
                words[0], numbers.0[at], words[1], numbers.1[at], words[2], numbers.0[at], numbers.0[at] % 65536, decimals[at], numbers.0[at],
            )
        };
        let of = |at| tracecar::telemetry::failures::cause::pattern(&message(at));
        // A UUID without a single digit would be a word; there is one in a thousand million.
        prop_assert_eq!(of(0), of(1), "{} and {}", message(0), message(1));
    }
}
