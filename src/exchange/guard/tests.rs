use tokio::sync::Notify;

use super::*;

fn recorder() -> (Arc<Recorder>, Arc<Outbox>, Arc<AtomicBool>) {
    let stats = Arc::new(Stats::default());
    let outbox = Arc::new(Outbox::new(Arc::new(Notify::new()), stats.clone()));
    let draining = Arc::new(AtomicBool::new(false));
    (Recorder::new(outbox.clone(), stats, draining.clone()), outbox, draining)
}

fn begin(recorder: &Arc<Recorder>) -> Exchange {
    recorder.begin(Start::new(Side::Inbound, None), &Sampler::default())
}

#[test]
fn a_dropped_exchange_leaves_one_record_that_says_when_the_caller_left() {
    let (recorder, outbox, draining) = recorder();
    drop(begin(&recorder));
    let mut answered = begin(&recorder);
    answered.note_status(200, None);
    drop(answered);
    draining.store(true, Ordering::Relaxed);
    drop(begin(&recorder));
    let outcomes: Vec<_> = outbox.take(Vec::new()).iter().map(|record| record.outcome).collect();
    assert_eq!(
        outcomes,
        [Outcome::ClientGoneBeforeResponse, Outcome::ClientGoneDuringResponse, Outcome::Drained]
    );
    assert_eq!(recorder.stats.requests_active.value(), 0);
}

#[test]
fn a_panic_is_recorded_as_ours() {
    let (recorder, outbox, _) = recorder();
    let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let _exchange = begin(&recorder);
        panic!("on purpose");
    }));
    assert!(result.is_err());
    assert_eq!(outbox.take(Vec::new())[0].outcome, Outcome::Panicked);
}

#[test]
fn an_excluded_exchange_is_kept_only_if_it_fails() {
    let (recorder, outbox, _) = recorder();
    for (keep, status) in [(Keep::IfFailed, 200), (Keep::IfFailed, 503), (Keep::Never, 503)] {
        let mut exchange = begin(&recorder);
        exchange.keep(keep);
        exchange.note_status(status, None);
        exchange.finish(Outcome::Complete);
    }
    let records = outbox.take(Vec::new());
    assert_eq!(records.len(), 1);
    assert!(records[0].excluded && records[0].status == Some(503));
}

#[test]
fn only_what_failed_or_was_chosen_keeps_what_it_said() {
    let (recorder, outbox, _) = recorder();
    for (side, status, chosen) in [
        (Side::Inbound, 200, false),
        (Side::Inbound, 404, false),
        (Side::Inbound, 404, true),
        (Side::Inbound, 500, false),
        (Side::Outbound, 200, false),
        (Side::Outbound, 404, false),
    ] {
        let mut exchange = recorder.begin(Start::new(side, None), &Sampler::default());
        exchange.note_status(status, None);
        let record = exchange.record();
        record.chosen = chosen;
        record.evidence = Some(Box::default());
        exchange.finish(Outcome::Complete);
    }
    let kept: Vec<_> = outbox.take(Vec::new()).iter().map(|record| record.evidence.is_some()).collect();
    assert_eq!(kept, [false, false, true, true, false, true]);
}

#[test]
fn a_new_trace_has_the_random_flag_and_a_continued_one_keeps_its_own() {
    let (recorder, _outbox, _) = recorder();
    assert_eq!(begin(&recorder).identity().flags, 3);
    let parent = Context {
        trace_id: TraceId::from(7_u128),
        span_id: SpanId::from(8_u64),
        flags: 1,
        tracestate: None,
        debug: false,
    };
    let start = Start::new(Side::Inbound, None).child_of(&parent, true);
    let continued = recorder.begin(start, &Sampler::default()).identity();
    assert_eq!(continued.flags, 1);
    assert_eq!((continued.trace_id, continued.parent), (parent.trace_id, Some(parent.span_id)));
    assert_ne!(continued.span_id, parent.span_id);
}

#[test]
fn a_trace_id_that_came_alone_is_continued_by_a_root() {
    let (recorder, _outbox, _) = recorder();
    let start = Start::new(Side::Inbound, None).within(TraceId::from(7_u128), 0);
    let identity = recorder.begin(start, &Sampler::default()).identity();
    assert_eq!((identity.trace_id, identity.parent, identity.flags), (TraceId::from(7_u128), None, 1));
}

#[test]
fn a_decision_left_to_us_is_ours_also_beside_a_parent() {
    let (recorder, _outbox, _) = recorder();
    let parent = Context {
        trace_id: TraceId::from(7_u128),
        span_id: SpanId::from(8_u64),
        flags: 0,
        tracestate: None,
        debug: false,
    };
    for (sampled, flags) in [(None, 1), (Some(false), 0)] {
        let start = Start::new(Side::Inbound, None).child_of(&parent, true).follow(sampled);
        assert_eq!(recorder.begin(start, &Sampler::default()).identity().flags, flags);
    }
}
