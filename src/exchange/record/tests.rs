use super::*;

/// A finished exchange: `GET /items/42?sig=REDACTED` answered 200 in 5 ms.
pub(crate) fn sample() -> Record {
    let identity = Identity {
        trace_id: TraceId::from_bytes([0xab; 16]),
        span_id: SpanId::from_bytes([0xcd; 8]),
        parent: None,
        remote: false,
        flags: 3,
    };
    let started_at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let peer = SocketAddr::from(([127, 0, 0, 1], 50_000));
    let mut record = Record::new(Side::Inbound, identity, started_at, Some(peer));
    record.timings = Timings {
        sent: Some(Duration::from_micros(40)),
        first_byte: Some(Duration::from_millis(4)),
        total: Duration::from_millis(5),
        ..Timings::default()
    };
    (record.status, record.response_bytes) = (Some(200), 198);
    record.correlation = record.put("abc-1");
    let path = record.put("/items/42");
    let query = record.put("sig=REDACTED");
    let authority = record.put("shop.example:8080");
    let user_agent = record.put("curl/8");
    record.request = Some(RequestFacts {
        method: Method::GET,
        known_method: true,
        url: None,
        path,
        query: Some(query),
        scheme: "http",
        authority,
        user_agent: Some(user_agent),
        route: Some("/items/{id}".into()),
        version: Version::HTTP_11,
        client: [203, 0, 113, 9].into(),
    });
    record
}

/// A finished call: `GET https://stock.example/items/42?sig=REDACTED`, answered 404 in 5 ms; a child of a span of
/// ours.
pub(crate) fn sample_call() -> Record {
    let mut record = sample();
    record.side = Side::Outbound;
    record.identity.parent = Some(SpanId::from_bytes([0xef; 8]));
    record.peer = Some(SocketAddr::from(([192, 0, 2, 1], 443)));
    record.destination = Some("stock".into());
    record.ancestry = Some(Ancestry { method: "token", confidence: 0.98, candidates: 2 });
    record.status = Some(404);
    let url = record.put("https://stock.example/items/42?sig=REDACTED");
    let request = record.request.as_mut().unwrap();
    request.url = Some(url);
    (request.scheme, request.authority) = ("https", url.part(8, 21));
    (request.path, request.query) = (url.part(21, 30), Some(url.part(31, 43)));
    record
}

#[test]
fn a_part_of_a_text_is_a_text() {
    let record = sample_call();
    let request = record.request.as_ref().unwrap();
    assert_eq!(record.text(request.authority), "stock.example");
    assert_eq!(record.text(request.path), "/items/42");
    assert_eq!(record.text(request.query.unwrap()), "sig=REDACTED");
    assert_eq!(record.text(request.url.unwrap().part(40, 50)), "");
}

#[test]
fn a_4xx_is_an_error_of_the_side_that_asked() {
    let mut record = sample_call();
    assert_eq!((record.error_type().as_deref(), record.fault()), (Some("404"), Some(Fault::Client)));
    record.side = Side::Inbound;
    assert_eq!((record.error_type(), record.fault()), (None, None));
}

#[test]
fn a_call_that_was_not_allowed_failed() {
    let mut record = sample_call();
    (record.status, record.outcome) = (None, Outcome::Rejected);
    assert_eq!(record.error_type().as_deref(), Some("rejected"));
    record.side = Side::Inbound;
    assert!(!record.failed());
}

#[test]
fn texts_come_back_as_they_were_put() {
    let record = sample();
    let request = record.request.as_ref().unwrap();
    assert_eq!(record.text(request.path), "/items/42");
    assert_eq!(record.text(record.correlation), "abc-1");
    assert_eq!(record.text(Text::default()), "");
}

#[test]
fn a_whole_5xx_answer_is_a_failure_of_the_upstream() {
    let mut record = sample();
    assert!(!record.failed());
    record.status = Some(503);
    assert_eq!(record.error_type().as_deref(), Some("503"));
    assert_eq!(record.fault(), Some(Fault::Upstream));
}
