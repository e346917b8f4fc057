use super::*;
use crate::exchange::{HeaderCopy, sample, sample_call};

fn failure(record: Record) -> Failure {
    with_calls(record, Vec::new())
}

fn with_calls(mut record: Record, calls: Vec<Arc<Record>>) -> Failure {
    let evidence = record.evidence.take();
    Failure::of(Arc::new(record), calls, evidence)
}

/// A request that was answered with that.
fn answered(status: u16, content: &str) -> Record {
    let mut record = sample();
    record.status = Some(status);
    record.evidence = Some(Box::new(Evidence { content: content.into(), ..Evidence::default() }));
    record
}

#[test]
fn whose_business_it_is_follows_from_how_it_ended() {
    use Category::{Capacity, Client, Dependency, Network, Service, Timeout};
    // Of a request, and of a call.
    let table = [
        (Outcome::Complete, Service, Dependency),
        (Outcome::UpstreamRefused, Service, Network),
        (Outcome::UpstreamUnresolved, Network, Network),
        (Outcome::UpstreamUnreachable, Network, Network),
        (Outcome::UpstreamConnectTimeout, Timeout, Timeout),
        (Outcome::UpstreamCertificate, Network, Network),
        (Outcome::UpstreamTls, Network, Network),
        (Outcome::UpstreamTimeout, Timeout, Timeout),
        (Outcome::UpstreamReset, Service, Network),
        (Outcome::UpstreamInvalid, Service, Network),
        (Outcome::UpstreamBroken, Service, Network),
        (Outcome::ClientGoneBeforeResponse, Client, Client),
        (Outcome::ClientGoneDuringResponse, Client, Client),
        (Outcome::RequestTimeout, Timeout, Timeout),
        (Outcome::UpstreamNotSending, Timeout, Timeout),
        (Outcome::ClientNotSending, Timeout, Timeout),
        (Outcome::ClientNotReading, Client, Client),
        (Outcome::Overloaded, Capacity, Capacity),
        (Outcome::StreamTimeout, Timeout, Timeout),
        (Outcome::TunnelIdle, Service, Dependency),
        (Outcome::MalformedRequest, Client, Service),
        (Outcome::Rejected, Client, Service),
        (Outcome::Drained, Service, Dependency),
        (Outcome::Panicked, Service, Dependency),
    ];
    assert_eq!(table.len(), Outcome::ALL.len());
    for (outcome, of_request, of_call) in table {
        for (mut record, expected) in [(sample(), of_request), (sample_call(), of_call)] {
            (record.outcome, record.status) = (outcome, Some(500));
            assert_eq!(failure(record).category, expected, "{outcome:?}");
        }
    }
}

#[test]
fn of_a_whole_answer_the_status_says_whose_business_it_is() {
    use Category::{Capacity, Client, Dependency, Service, Timeout};
    let table = [
        (400, None, Client, Service),
        (404, None, Client, Service),
        (408, None, Timeout, Timeout),
        (429, None, Capacity, Capacity),
        (500, None, Service, Dependency),
        (503, None, Capacity, Capacity),
        (504, None, Timeout, Timeout),
        (200, Some(4), Timeout, Timeout),
        (200, Some(8), Service, Capacity),
        (200, Some(13), Service, Dependency),
        (200, Some(14), Capacity, Capacity),
    ];
    for (status, grpc, of_request, of_call) in table {
        for (mut record, expected) in [(sample(), of_request), (sample_call(), of_call)] {
            (record.status, record.grpc_status) = (Some(status), grpc);
            assert_eq!(failure(record).category, expected, "{status} {grpc:?}");
        }
    }
}

#[test]
fn a_request_whose_last_call_failed_is_the_business_of_what_it_called() {
    let answered_with = |answer, statuses: &[u16]| {
        let call = |status: &u16| {
            let mut call = sample_call();
            call.status = Some(*status);
            Arc::new(call)
        };
        with_calls(answered(answer, ""), statuses.iter().map(call).collect()).category
    };
    let with = |statuses: &[u16]| answered_with(500, statuses);
    assert_eq!(with(&[200, 503]), Category::Dependency);
    assert_eq!(with(&[503, 200]), Category::Service, "it went on after that");
    assert_eq!(with(&[404]), Category::Service, "that something is not there may be all it wanted to know");
    assert_eq!(answered_with(502, &[503, 200]), Category::Dependency, "the service says so");
    assert_eq!(with(&[]), Category::Service);
}

#[test]
fn how_bad_it_is() {
    let severity = |side, outcome, status| {
        let mut record = sample();
        (record.side, record.outcome, record.status) = (side, outcome, Some(status));
        failure(record).severity
    };
    assert_eq!(severity(Side::Inbound, Outcome::UpstreamRefused, 502), Severity::Fatal);
    assert_eq!(severity(Side::Outbound, Outcome::UpstreamRefused, 502), Severity::Error);
    assert_eq!(severity(Side::Inbound, Outcome::Complete, 500), Severity::Error);
    assert_eq!(severity(Side::Inbound, Outcome::ClientGoneDuringResponse, 500), Severity::Warning);
    assert_eq!(severity(Side::Inbound, Outcome::Complete, 409), Severity::Warning, "chosen by the settings");
    assert_eq!(severity(Side::Inbound, Outcome::Complete, 302), Severity::Warning, "chosen by the settings");
}

#[test]
fn what_is_chosen_is_a_failure_and_else_what_failed() {
    let mut record = answered(409, "");
    assert!(!Failure::is_one(&record));
    record.chosen = true;
    assert!(Failure::is_one(&record));
    assert!(Failure::is_one(&answered(500, "")));
}

#[test]
fn a_place_is_a_method_and_a_route_and_without_one_the_shape_of_the_path() {
    let mut record = sample();
    assert_eq!(place(&record), "GET /items/{id}");
    let path = record.put("/orders/4711/lines/0af7651916cd43dd8448eb211c80319c");
    let request = record.request.as_mut().unwrap();
    (request.route, request.path) = (None, path);
    let shape = place(&record);
    assert!(
        shape.starts_with("GET /orders/{") && !shape.contains("4711") && !shape.contains("0af7"),
        "{shape}"
    );
    record.request.as_mut().unwrap().known_method = false;
    assert!(place(&record).starts_with("_OTHER /orders/"), "a stranger's word is in no name");
    record.request = None;
    assert_eq!(place(&record), "(unreadable)");
}

#[test]
fn the_place_of_a_call_says_where_to() {
    let mut record = sample_call();
    assert_eq!(place(&record), "GET stock/items/{id}");
    record.destination = None;
    assert_eq!(place(&record), "GET stock.example/items/{id}");
}

#[test]
fn the_class_is_the_exception_or_the_type_of_the_error() {
    let thrown = answered(500, r#"{"exception":"java.lang.IllegalStateException","message":"no stock"}"#);
    let thrown = failure(thrown);
    assert_eq!((thrown.class.as_str(), thrown.message.as_str()), ("IllegalStateException", "no stock"));
    assert_eq!(thrown.title(), ("IllegalStateException", "no stock"));
    let plain = failure(answered(500, r#"{"message":"no stock"}"#));
    assert_eq!((plain.class.as_str(), plain.title()), ("500", ("GET /items/{id}", "no stock")));
    for (kind, name) in [("app::Error", "Error"), ("App\\Errors\\Gone", "Gone"), ("odd.", "odd."), ("E", "E")]
    {
        assert_eq!(short(kind), name);
    }
    let mut refused = sample();
    (refused.outcome, refused.status) = (Outcome::UpstreamRefused, Some(502));
    assert_eq!(failure(refused).class, "connection_refused");
    let mut left = sample();
    (left.outcome, left.status) = (Outcome::ClientGoneBeforeResponse, None);
    assert_eq!(failure(left).class, "client_gone_before_response");
}

#[test]
fn where_the_answer_says_nothing_the_status_does() {
    let message = |status, content| failure(answered(status, content)).message;
    assert_eq!(message(500, ""), "500 Internal Server Error");
    assert_eq!(message(599, ""), "599");
    assert_eq!(message(503, "\u{0}\u{1}"), "503 Service Unavailable");
}

#[test]
fn our_own_sentence_comes_before_the_status_and_connections_that_break_are_one_cause() {
    let mut record = sample();
    (record.outcome, record.status) = (Outcome::UpstreamReset, Some(502));
    record.detail = record.put("connection to 10.0.0.7:8080 closed after 12 bytes, password=hunter2");
    let failure = failure(record);
    assert!(failure.message.starts_with("connection to 10.0.0.7:8080 closed"), "{}", failure.message);
    assert!(!failure.message.contains("hunter2"), "{}", failure.message);
    assert_eq!((failure.class.as_str(), failure.pattern.as_str()), ("connection_reset", ""));
}

#[test]
fn what_broke_off_is_not_taken_for_what_was_to_be_said() {
    for outcome in [Outcome::UpstreamBroken, Outcome::ClientGoneDuringResponse, Outcome::Drained] {
        let mut record = answered(500, "no stock of bolts is left to se");
        record.outcome = outcome;
        let failure = failure(record);
        assert!(
            failure.cause.is_none() && !failure.message.contains("stock"),
            "{outcome:?}: {}",
            failure.message
        );
    }
    assert_eq!(failure(answered(500, "no stock")).message, "no stock");
}

#[test]
fn content_is_read_by_what_its_headers_say() {
    let mut record = answered(500, "no stock");
    let headers = [(http::header::CONTENT_TYPE, http::HeaderValue::from_static("image/png"))];
    record.evidence.as_mut().unwrap().response_headers = HeaderCopy::of(&headers.into_iter().collect(), 100);
    assert_eq!(failure(record).message, "500 Internal Server Error");
}

#[test]
fn the_message_of_grpc_is_read_without_its_escapes() {
    for (escaped, read) in [
        ("no%20stock%3A %E2%82%AC5", "no stock: €5"),
        ("100%", "100%"),
        ("100%2", "100%2"),
        ("100%zz%20left", "100%zz left"),
        ("%ff", "\u{fffd}"),
        ("%+1", "%+1"),
        ("", ""),
    ] {
        assert_eq!(percent_decoded(escaped), read, "{escaped}");
    }
    let mut record = answered(200, "");
    record.grpc_status = Some(14);
    record.evidence.as_mut().unwrap().grpc_message = Some("no%20stock".to_owned());
    let failure = failure(record);
    assert_eq!((failure.class.as_str(), failure.message.as_str()), ("UNAVAILABLE", "no stock"));
}

#[test]
fn a_message_is_one_line_of_bounded_length() {
    assert_eq!(shortened("\n \r\n no stock \nof bolts".to_owned()), "no stock");
    assert_eq!(shortened(String::new()), "");
    let long = shortened("ü".repeat(MAX_MESSAGE));
    assert!(long.len() <= MAX_MESSAGE + '…'.len_utf8() && long.ends_with("ü…"), "{}", long.len());
}

#[test]
fn the_fingerprint_is_the_same_for_the_same_cause_and_begins_with_the_service() {
    let of = |content: &str| failure(answered(500, content)).fingerprint("shop");
    let first = of("no stock for order 4711");
    assert_eq!(first[0], "shop");
    assert_eq!(first, of("no stock for order 4712"));
    assert_ne!(first, of("payment refused for order 4711"));
}

#[test]
fn a_place_shows_no_secret_of_a_path() {
    let place_of = |mut record: Record, path: &str| {
        let path = record.put(path);
        let request = record.request.as_mut().unwrap();
        (request.path, request.route) = (path, None);
        place(&record)
    };
    assert_eq!(place_of(sample(), "/x/eyJhbGci.eyJzdWIi.c2ln"), "GET /x/[Filtered]");
    assert_eq!(place_of(sample(), "/reset/hunTer/42"), "GET /reset/[Filtered]/{id}");
    assert_eq!(place_of(sample_call(), "/token%2FhunTer"), "GET stock/[Filtered]");
}
