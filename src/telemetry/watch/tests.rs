use opentelemetry::trace::SpanId;

use super::*;
use crate::exchange::{Outcome, sample, sample_call};

/// A request that failed, with a span of that number.
fn request(number: u64) -> Arc<Record> {
    let mut record = sample();
    (record.status, record.identity.span_id) = (Some(500), SpanId::from(number));
    Arc::new(record)
}

/// A failed call of that request.
fn call_of(number: u64) -> Arc<Record> {
    let mut record = sample_call();
    (record.status, record.identity.parent) = (Some(503), Some(SpanId::from(number)));
    Arc::new(record)
}

/// How many requests failed, and whose business the latest was.
fn seen(watch: &Watch) -> (usize, Option<String>) {
    let page = watch.errors();
    let groups = page["groups"].as_array().expect("a list");
    let served: Vec<_> = groups.iter().filter(|group| group["side"] == "inbound").collect();
    let count = served.iter().filter_map(|group| group["count"].as_u64()).sum::<u64>();
    let category = served.first().map(|group| group["category"].as_str().expect("a word").to_owned());
    (count as usize, category)
}

fn dependency(count: usize) -> (usize, Option<String>) {
    (count, Some("dependency".to_owned()))
}

#[test]
fn a_request_is_understood_by_the_calls_that_ended_before_it() {
    let watch = Watch::new(false);
    let mut sink = watch.sink();
    sink.record(&call_of(1));
    sink.record(&request(1));
    assert_eq!(seen(&watch), dependency(1));
    sink.record(&request(2));
    assert_eq!(seen(&watch), (2, Some("service".to_owned())), "that call was another's");
}

#[test]
fn a_span_of_the_services_own_is_no_request_of_ours() {
    let watch = Watch::new(false);
    let mut sink = watch.sink();
    let mut call = Record::clone(&call_of(1));
    call.identity.remote = true;
    sink.record(&Arc::new(call));
    sink.record(&request(1));
    assert_eq!(seen(&watch), (1, Some("service".to_owned())));
}

#[test]
fn where_records_come_in_no_order_requests_wait_for_their_calls() {
    let watch = Watch::new(true);
    let mut sink = watch.sink();
    let begun = Instant::now();
    sink.record(&request(1));
    watch.tick(begun + PATIENCE / 2, SystemTime::now());
    assert_eq!(seen(&watch), (0, None));
    sink.record(&call_of(1));
    watch.tick(Instant::now() + PATIENCE, SystemTime::now());
    assert_eq!(seen(&watch), dependency(1));
}

#[test]
fn a_batch_lets_in_those_that_have_waited() {
    let watch = Watch::new(true);
    watch.lock().waiting.push_back((Instant::now() - PATIENCE, request(1)));
    watch.sink().batch_end();
    assert_eq!(seen(&watch).0, 1);
}

#[test]
fn no_more_wait_than_there_is_room_for_and_at_the_end_nobody_does() {
    let watch = Watch::new(true);
    let mut sink = watch.sink();
    for number in 1..=MAX_WAITING as u64 + 1 {
        sink.record(&request(number));
    }
    assert_eq!(seen(&watch).0, 1, "the one more comes at once");
    watch.finish();
    assert_eq!(seen(&watch).0, MAX_WAITING + 1);
}

#[test]
fn outages_are_on_the_page_while_they_go_on_and_after() {
    let watch = Watch::new(false);
    let mut sink = watch.sink();
    let mut refused = sample();
    (refused.outcome, refused.status, refused.timings.first_byte) =
        (Outcome::UpstreamRefused, Some(502), None);
    let outages = |watch: &Watch| watch.errors()["outages"].as_array().cloned().expect("a list");
    for number in 1..=MAX_OUTAGES as u64 + 2 {
        refused.started_at += Duration::from_secs(10);
        sink.record(&Arc::new(refused.clone()));
        assert_eq!(outages(&watch)[0]["ended_at"], Value::Null, "it goes on");
        let mut answered = sample();
        answered.started_at = refused.started_at + Duration::from_secs(2);
        sink.record(&Arc::new(answered));
        watch.tick(Instant::now(), refused.started_at + Duration::from_secs(4));
        let now = outages(&watch);
        assert_eq!((&now[0]["lasted_s"], &now[0]["requests_refused"]), (&2.0.into(), &1.into()));
        assert_eq!(now.len(), MAX_OUTAGES.min(number as usize));
    }
    let rows = watch.rows();
    let row = rows.iter().find(|row| row.name == "tracecar_outages").expect("it is counted");
    assert_eq!(row.value, MAX_OUTAGES as u64 + 2);
}

/// What a failed exchange said, in plain text.
fn saying(message: &str) -> Box<Evidence> {
    Box::new(Evidence { content: message.into(), ..Evidence::default() })
}

fn titles(watch: &Watch) -> Vec<String> {
    let page = watch.errors();
    let groups = page["groups"].as_array().expect("a list");
    groups.iter().map(|group| group["message"].as_str().expect("a text").to_owned()).collect()
}

#[test]
fn what_an_exchange_said_is_read_with_its_record_however_late_that_comes() {
    for unordered in [false, true] {
        let watch = Watch::new(unordered);
        assert!(watch.keep(SpanId::from(1), saying("no stock")));
        assert!(watch.keep(SpanId::from(2), saying("no prices")));
        watch.sink().record(&request(2));
        watch.tick(Instant::now() + PATIENCE, SystemTime::now());
        assert_eq!(titles(&watch), ["no prices"]);
    }
}

#[test]
fn what_was_said_is_kept_while_there_is_room_and_leaves_with_its_record() {
    let watch = Watch::new(false);
    let evidence = || saying(&"x".repeat(MAX_EVIDENCE / 10));
    let kept = (1..=20).filter(|number| watch.keep(SpanId::from(*number as u64), evidence())).count();
    assert_eq!(kept, 9, "each takes a little more than a tenth");
    watch.sink().record(&request(1));
    assert!(watch.keep(SpanId::from(21), evidence()));
    assert!(!watch.keep(SpanId::from(22), evidence()));
}

#[test]
fn what_there_is_no_time_to_read_is_counted_until_the_next_second() {
    let watch = Watch::new(false);
    let mut sink = watch.sink();
    watch.lock().spent = MAX_SPENT;
    watch.keep(SpanId::from(1), saying("no stock"));
    sink.record(&request(1));
    assert_eq!(seen(&watch).0, 0);
    assert_eq!(watch.errors()["dropped"]["unread"], 1);
    sink.record(&request(2));
    assert_eq!(seen(&watch).0, 1, "what said nothing takes no time");
    watch.tick(Instant::now(), SystemTime::now());
    watch.keep(SpanId::from(3), saying("no stock"));
    sink.record(&request(3));
    assert_eq!(seen(&watch).0, 2);
}
