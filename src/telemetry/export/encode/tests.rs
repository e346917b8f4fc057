//! Ours against opentelemetry-otlp, for records of all kinds; and where the two differ on purpose.

use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use http::{Method, Version};
use opentelemetry::trace::{SpanId, TraceId};
use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::trace::v1::Span;
use proptest::prelude::*;
use prost::Message;

use super::oracle::Oracle;
use super::*;
use crate::exchange::{Ancestry, Identity, Link, Outcome, RequestFacts, Stream, Timings, Tunneled, sample};

const RESOURCE: [(&str, &str); 1] = [("service.name", "shop")];

fn encoded<'r>(records: impl IntoIterator<Item = &'r Record>) -> Vec<u8> {
    let mut out = Vec::new();
    Encoder::new(RESOURCE).append(records, &mut out);
    out
}

fn expected<'a>(
    resource: impl IntoIterator<Item = (&'a str, &'a str)>,
    records: impl IntoIterator<Item = &'a Record>,
) -> Vec<u8> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(Oracle::new(resource).encode(records)).into()
}

fn decoded(bytes: &[u8]) -> ExportTraceServiceRequest {
    ExportTraceServiceRequest::decode(bytes).expect("it is what its name says")
}

/// The only span of a request.
fn only(bytes: &[u8]) -> Span {
    let mut request = decoded(bytes);
    request.resource_spans.remove(0).scope_spans.remove(0).spans.remove(0)
}

/// A finished exchange of any kind. `texts` are long now and then, so that lengths of all widths occur.
fn any_record() -> impl Strategy<Value = Record> {
    let duration = || (0..100_000_u64, 0..1_000_000_000_u32).prop_map(|(s, n)| Duration::new(s, n));
    let maybe = |strategy| prop::option::of(strategy);
    let text = || prop_oneof![8 => "\\PC{0,40}", 1 => "[ -~é]{100,200}", 1 => "x{16000,17000}"];
    let identity = (1..=u128::MAX, 1..=u64::MAX, prop::option::of(1..=u64::MAX), any::<u8>()).prop_map(
        |(trace_id, span_id, parent, flags)| Identity {
            trace_id: TraceId::from(trace_id),
            span_id: SpanId::from(span_id),
            parent: parent.map(SpanId::from),
            remote: parent.is_some_and(|parent| parent % 2 == 0),
            flags,
        },
    );
    let timings = (maybe(duration()), maybe(duration()), maybe(duration()), maybe(duration()), duration())
        .prop_map(|(dns, connect, sent, first_byte, total)| Timings {
            dns,
            connect,
            tls: dns,
            sent,
            first_byte,
            total,
        });
    let link = (1..=u128::MAX, 1..=u64::MAX, any::<u8>(), any::<bool>()).prop_map(
        |(trace_id, span_id, flags, remote)| Link {
            trace_id: TraceId::from(trace_id),
            span_id: SpanId::from(span_id),
            flags,
            remote,
        },
    );
    let way = (any::<bool>(), prop::collection::vec(link, 0..4), prop::option::of("[a-z]{1,9}"), 0..3_u32);
    let request = (
        prop::sample::select(vec!["GET", "POST", "QUERY", "get", "PURGE"]),
        any::<bool>(),
        (text(), prop::option::of(text()), text(), prop::option::of(text())),
        prop::sample::select(vec!["http", "https"]),
        prop::option::of("/[a-z]{0,20}/\\{id\\}"),
        prop::sample::select(vec![Version::HTTP_10, Version::HTTP_11, Version::HTTP_2]),
        any::<IpAddr>(),
    );
    let ending = (
        prop::option::of(100..=999_u16),
        prop::sample::select(Outcome::ALL.to_vec()),
        prop::option::of(prop::sample::select(vec![Stream::ServerSentEvents, Stream::WebSocket])),
        any::<(u64, u64)>(),
        any::<bool>(),
    );
    let texts = (text(), text(), "([a-z]{1,8}=[a-z]{1,8}(,[0-9]{2}@x=[!-+]{1,9})?)?");
    let begun = (any::<(IpAddr, u16)>(), duration().prop_map(|since| since + Duration::from_nanos(1)));
    (identity, timings, prop::option::of(request), ending, texts, begun, way).prop_map(
        |(identity, timings, request, ending, (detail, correlation, tracestate), (peer, since), way)| {
            let (outbound, links, destination, resends) = way;
            let side = if outbound { Side::Outbound } else { Side::Inbound };
            let mut record = Record::new(side, identity, UNIX_EPOCH + since, Some(SocketAddr::from(peer)));
            (record.timings, record.links, record.resends) = (timings, links, resends);
            record.destination = destination.map(Into::into);
            record.ancestry =
                outbound.then_some(Ancestry { method: "token", confidence: 0.5, candidates: 3 });
            record.tunnel = (resends == 2).then_some(Tunneled::Redirected);
            (record.status, record.outcome, record.stream, _, record.excluded) = ending;
            (record.request_bytes, record.response_bytes) = ending.3;
            record.detail = record.put(&detail);
            record.correlation = record.put(&correlation);
            record.tracestate = record.put(&tracestate);
            record.request = request.map(
                |(
                    method,
                    known_method,
                    (path, query, authority, user_agent),
                    scheme,
                    route,
                    version,
                    client,
                )| {
                    RequestFacts {
                        method: Method::from_bytes(method.as_bytes()).unwrap(),
                        known_method,
                        url: outbound.then(|| record.put(&authority)),
                        path: record.put(&path),
                        query: query.map(|query| record.put(&query)),
                        scheme,
                        authority: record.put(&authority),
                        user_agent: user_agent.map(|user_agent| record.put(&user_agent)),
                        route: route.map(Into::into),
                        version,
                        client,
                    }
                },
            );
            record
        },
    )
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(200) })]

    #[test]
    fn all_records_are_encoded_as_the_official_exporter_does_it(
        records in prop::collection::vec(any_record(), 1..12),
    ) {
        let (ours, theirs) = (encoded(&records), expected(RESOURCE, &records));
        prop_assert_eq!(decoded(&ours), decoded(&theirs));
        prop_assert_eq!(ours, theirs, "the same message, in other bytes");
    }

    #[test]
    fn a_resource_of_any_size_is_encoded_as_the_official_exporter_does_it(
        resource in prop::collection::btree_map("[a-z.]{1,40}", "\\PC{0,400}", 0..60),
    ) {
        let resource: Vec<_> = resource.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let mut ours = Vec::new();
        let record = sample();
        Encoder::new(resource.iter().copied()).append([&record], &mut ours);
        let (mut ours, mut theirs) = (decoded(&ours), decoded(&expected(resource, [&record])));
        // The SDK keeps them in no order.
        for request in [&mut ours, &mut theirs] {
            let resource = request.resource_spans[0].resource.as_mut().expect("each has one");
            resource.attributes.sort_by(|a, b| a.key.cmp(&b.key));
        }
        prop_assert_eq!(ours, theirs);
    }

    #[test]
    fn the_width_of_a_number_is_what_is_written(number in any::<u64>(), shift in 0..64_u32) {
        let mut out = Vec::new();
        varint(&mut out, number >> shift);
        prop_assert_eq!(out.len(), width(number >> shift));
        prop_assert_eq!(prost::encoding::decode_varint(&mut out.as_slice()).unwrap(), number >> shift);
    }
}

#[test]
fn requests_in_a_row_are_one_request() {
    let record = sample();
    let mut both = encoded([&record, &record]);
    both.extend(encoded([&record]));
    let spans: Vec<_> = decoded(&both)
        .resource_spans
        .iter()
        .map(|resource| (resource.resource.is_some(), resource.scope_spans[0].spans.len()))
        .collect();
    assert_eq!(spans, [(true, 2), (true, 1)]);
}

#[test]
fn a_message_of_any_length_is_put_in_its_place() {
    for length in [0, 1, 127, 128, 129, 16_383, 16_384, 2_097_151, 2_097_152] {
        let mut out = b"before".to_vec();
        message::<2>(&mut out, 1, |out| out.extend((0..length).map(|n| n as u8)));
        let mut rest = out.strip_prefix(b"before\x0a").expect("a key");
        assert_eq!(prost::encoding::decode_varint(&mut rest).unwrap(), length as u64);
        assert!(
            rest.iter().copied().eq((0..length).map(|n| n as u8)),
            "{length} bytes, as they were written"
        );
    }
}

#[test]
fn clocks_that_cannot_be_right_cost_no_span() {
    let mut record = sample();
    record.started_at = UNIX_EPOCH - Duration::from_secs(5);
    record.timings.total = Duration::from_secs(7);
    let span = only(&encoded([&record]));
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (0, 2_000_000_000));
    record.started_at = UNIX_EPOCH + Duration::from_secs(i64::MAX as u64);
    let span = only(&encoded([&record]));
    assert_eq!((span.start_time_unix_nano, span.end_time_unix_nano), (u64::MAX, u64::MAX));
}

#[test]
fn a_tracestate_is_exported_as_it_is_sent_on() {
    // Opentelemetry would rewrite it or refuse it.
    let mut record = sample();
    record.tracestate = record.put("a=1 , b=2,,C=3");
    assert_eq!(only(&encoded([&record])).trace_state, "a=1 , b=2,,C=3");
}
