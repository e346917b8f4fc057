//! Requests of every shape and misshape, from `tests/corpus/requests`: what reaches the service, and what does not.
//!
//! One test is one rule, and runs the cases of that rule: in one piece, byte for byte, and with another request behind.

mod case;
mod judge;
mod recorder;

use case::Case;

use crate::support::corpus::hold;

macro_rules! rules {
    ($($fact:ident $rule:literal)+) => {
        const RULES: &[&str] = &[$($rule),+];
        $(#[test]
        fn $fact() {
            hold($rule, case::all(), |case: &Case| &case.rule, judge::problems);
        })+
    };
}

rules! {
    what_connection_names_goes_no_further "HOP-1"
    what_is_for_one_hop_goes_no_further "HOP-2"
    what_is_not_known_goes_on "HOP-4"
    lines_of_one_name_keep_their_order "HOP-5"
    the_version_that_goes_on_is_our_own "HOP-7"
    max_forwards_counts_down_for_trace_and_options "HOP-9"
    trace_has_no_content "HOP-10"
    targets_are_not_changed "HOP-11"
    content_is_not_transformed "HOP-12"
    trailers_go_on_as_trailers "HOP-14"
    requests_in_a_row_are_answered_in_a_row "HOP-16"
    an_absolute_target_decides_about_host "FWD-1"
    options_of_the_whole_server_keep_their_asterisk "FWD-2"
    host_goes_on_as_it_is "FWD-3"
    a_forwarded_host_is_no_host "FWD-6"
    an_expectation_stops_nobody_who_does_not_wait "HX-2"
    an_upgrade_that_is_declined_is_an_ordinary_request "HX-3"
    a_service_is_no_way_out_for_connect "HX-4"
    an_upgrade_to_h2c_goes_no_further "HX-6"
    content_keeps_its_framing "FRM-3"
    connections_end_where_they_have_to "FRM-6"
    long_targets_pass "FRM-7"
    a_request_without_host_is_refused "SMG-1"
    a_request_with_two_hosts_or_a_broken_one_is_refused "SMG-2"
    a_name_that_is_no_token_is_refused "SMG-3"
    a_folded_line_is_refused "SMG-4"
    whitespace_before_the_first_header_is_refused "SMG-5"
    a_bare_cr_is_refused "SMG-6"
    nul_is_refused "SMG-7"
    a_length_beside_a_coding_is_refused "SMG-8"
    a_coding_of_http_1_0_is_refused "SMG-9"
    a_coding_that_does_not_end_in_chunked_is_refused "SMG-10"
    chunked_twice_is_refused "SMG-11"
    two_lengths_are_refused "SMG-12"
    equal_lengths_are_one_or_refused "SMG-13"
    a_length_that_is_no_number_is_refused "SMG-14"
    a_length_that_is_too_large_does_not_wrap "SMG-15"
    broken_chunks_end_the_request "SMG-16"
    extensions_of_chunks_go_no_further "SMG-17"
    what_ends_early_is_never_whole "SMG-18"
    a_request_line_has_two_spaces_and_no_more "SMG-20"
    a_target_or_method_that_is_too_long_is_refused "SMG-21"
    a_head_that_is_too_large_is_refused "SMG-22"
    a_version_that_is_none_is_refused "SMG-23"
    connect_without_a_port_is_refused "SMG-24"
    trailers_never_become_headers "SMG-25"
}

#[test]
fn every_case_is_of_a_rule_that_is_tested() {
    let cases = case::all();
    for case in &cases {
        assert!(RULES.contains(&case.rule.as_str()), "{} is of {}, which no test runs", case.name, case.rule);
    }
    assert!(cases.len() >= 200, "there are {} cases", cases.len());
}
