//! Responses of every shape and misshape, from `tests/corpus/responses`: what the caller gets of them.
//!
//! One test is one rule, and runs the cases of that rule.

mod case;
mod judge;

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
    the_version_of_an_answer_is_our_own "HOP-7"
    a_date_stays "HOP-13"
    trailers_go_on_as_trailers "HOP-14"
    interim_answers_go_on "HX-1"
    a_protocol_that_nobody_asked_for_is_no_answer "HX-3"
    answers_without_content_keep_their_headers "FRM-1"
    http_1_0_gets_no_chunks "FRM-2"
    content_keeps_its_framing "FRM-3"
    what_ends_early_is_never_whole "FRM-4"
    the_end_of_a_connection_may_be_the_end_of_an_answer "FRM-5"
    a_space_before_the_colon_goes_no_further "SMG-3"
    a_folded_line_goes_no_further "SMG-4"
    a_bare_cr_is_no_answer "SMG-6"
    nul_is_no_answer "SMG-7"
    a_length_beside_chunks_goes_no_further "SMG-8"
    a_coding_of_http_1_0_is_no_answer "SMG-9"
    a_coding_that_is_not_chunked_is_no_answer "SMG-10"
    chunked_twice_is_no_answer "SMG-11"
    two_lengths_are_no_answer "SMG-12"
    equal_lengths_are_one_or_no_answer "SMG-13"
    a_length_that_is_no_number_is_no_answer "SMG-14"
    a_length_that_is_too_large_does_not_wrap "SMG-15"
    broken_chunks_break_off "SMG-16"
    extensions_of_chunks_go_no_further "SMG-17"
    what_is_behind_an_answer_is_none "SMG-19"
    a_head_that_is_too_large_is_no_answer "SMG-22"
    trailers_never_become_headers "SMG-25"
    content_that_may_not_be_is_no_answer "SMG-26"
    what_is_no_response_is_a_bad_gateway "GW-1"
}

#[test]
fn every_case_is_of_a_rule_that_is_tested() {
    for case in case::all() {
        assert!(RULES.contains(&case.rule.as_str()), "{} is of {}, which no test runs", case.name, case.rule);
    }
}
