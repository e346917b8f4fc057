use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use http::Method;

use super::super::record::tests::{sample, sample_call};
use super::*;
use crate::exchange::Stream;

/// A value that outlives its record. Strings read as they are, for comparison.
#[derive(Debug, PartialEq)]
enum Kept {
    Str(String),
    Other(Value<'static>),
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Kept::Str(text) => f.write_str(text),
            Kept::Other(value) => panic!("{value:?} is no string"),
        }
    }
}

fn map(record: &Record) -> BTreeMap<&'static str, Kept> {
    let mut map = BTreeMap::new();
    attributes(record, &mut |key, value| {
        let value = match value {
            Value::Str(text) => Kept::Str(text.to_owned()),
            Value::Int(number) => Kept::Other(Value::Int(number)),
            Value::Double(number) => Kept::Other(Value::Double(number)),
            Value::Bool(truth) => Kept::Other(Value::Bool(truth)),
        };
        assert!(map.insert(key, value).is_none(), "{key} appears twice");
    });
    map
}

#[test]
fn a_call_has_the_attributes_of_the_side_that_asks() {
    let record = sample_call();
    let map = map(&record);
    let text = |key: &str| map.get(key).map(|value| value.to_string()).unwrap_or_default();
    assert_eq!(text(URL_FULL), "https://stock.example/items/42?sig=REDACTED");
    assert_eq!(
        (text(SERVER_ADDRESS), &map[SERVER_PORT]),
        ("stock.example".into(), &Kept::Other(Value::Int(443)))
    );
    assert_eq!((text(URL_TEMPLATE), text(ERROR_TYPE)), ("/items/{id}".to_owned(), "404".to_owned()));
    assert_eq!((text(PEER_SERVICE), text(SERVICE_PEER_NAME)), ("stock".to_owned(), "stock".to_owned()));
    assert_eq!(
        (text(LINEAGE_METHOD), &map[LINEAGE_CANDIDATES]),
        ("token".into(), &Kept::Other(Value::Int(2)))
    );
    assert_eq!(text(NETWORK_PEER_ADDRESS), "192.0.2.1");
    for key in [URL_PATH, URL_QUERY, URL_SCHEME, HTTP_ROUTE, CLIENT_ADDRESS, USER_AGENT_ORIGINAL] {
        assert!(!map.contains_key(key), "{key} is for those who serve");
    }
    assert!(!map.contains_key(HTTP_REQUEST_RESEND_COUNT), "SEM-45: absent on the first try");
    assert_eq!(span_status(&record), Status::Error(""));
    assert_eq!(span_name(&record), "GET /items/{id}");
}

#[test]
fn of_a_tunnel_only_what_was_seen_is_told() {
    let mut record = sample_call();
    record.status = None;
    record.tunnel = Some(Tunneled::Connect);
    let request = record.request.as_mut().unwrap();
    (request.url, request.route, request.method) = (None, None, Method::CONNECT);
    let asked_for = map(&record);
    assert!(!asked_for.contains_key(NETWORK_PROTOCOL_VERSION) && !asked_for.contains_key(URL_FULL));
    assert_eq!(asked_for[TUNNEL_UNSEEN], Kept::Other(Value::Bool(true)));
    assert_eq!(span_name(&record), "CONNECT");
    record.tunnel = Some(Tunneled::Redirected);
    assert!(!map(&record).contains_key(HTTP_REQUEST_METHOD), "nobody sent one");
    assert_eq!(span_name(&record), "tunnel");
}

#[test]
fn a_call_that_reached_nobody_has_no_peer_and_no_status() {
    let mut record = sample_call();
    (record.status, record.peer, record.outcome) = (None, None, Outcome::UpstreamRefused);
    let map = map(&record);
    let text = |key: &str| map.get(key).map(|value| value.to_string()).unwrap_or_default();
    assert_eq!(text(ERROR_TYPE), "connection_refused");
    for key in [NETWORK_PEER_ADDRESS, NETWORK_PROTOCOL_VERSION, HTTP_RESPONSE_STATUS_CODE] {
        assert!(!map.contains_key(key), "{key} would be made up");
    }
}

#[test]
fn a_plain_request_has_the_required_and_recommended_attributes() {
    let map = map(&sample());
    let text = |key: &str| map.get(key).map(|value| value.to_string()).unwrap_or_default();
    assert_eq!(text(HTTP_REQUEST_METHOD), "GET");
    assert_eq!(text(URL_PATH), "/items/42");
    assert_eq!(text(URL_QUERY), "sig=REDACTED");
    assert_eq!(text(URL_SCHEME), "http");
    assert_eq!(text(HTTP_ROUTE), "/items/{id}");
    assert_eq!(text(SERVER_ADDRESS), "shop.example");
    assert_eq!(map[SERVER_PORT], Kept::Other(Value::Int(8080)));
    assert_eq!(text(CLIENT_ADDRESS), "203.0.113.9");
    assert_eq!(text(NETWORK_PEER_ADDRESS), "127.0.0.1");
    assert_eq!(map[NETWORK_PEER_PORT], Kept::Other(Value::Int(50_000)));
    assert_eq!(text(NETWORK_PROTOCOL_VERSION), "1.1");
    assert_eq!(text(USER_AGENT_ORIGINAL), "curl/8");
    assert_eq!(map[HTTP_RESPONSE_STATUS_CODE], Kept::Other(Value::Int(200)));
    assert_eq!(text(CORRELATION_ID), "abc-1");
    assert_eq!(map[RESPONSE_BYTES], Kept::Other(Value::Int(198)));
    assert_eq!(map[TIME_PROXY], Kept::Other(Value::Double(0.000_04)));
    assert_eq!(map[TIME_FIRST_BYTE], Kept::Other(Value::Double(0.003_96)));
    for absent in
        [ERROR_TYPE, FAULT, DETAIL, HTTP_REQUEST_METHOD_ORIGINAL, EXCLUDED, STREAM, TIME_DNS, TIME_CONNECT]
    {
        assert!(!map.contains_key(absent), "{absent} should be absent");
    }
    assert!(!map.contains_key("network.protocol.name"), "http is the default (SEM-27)");
}

#[test]
fn a_name_never_holds_the_path() {
    let mut record = sample();
    assert_eq!(span_name(&record), "GET /items/{id}");
    record.request.as_mut().unwrap().route = None;
    assert_eq!(span_name(&record), "GET");
    let request = record.request.as_mut().unwrap();
    request.method = Method::from_bytes(b"get").unwrap();
    request.known_method = false;
    assert_eq!(span_name(&record), "HTTP");
    record.request.as_mut().unwrap().route = Some("/items/{id}".into());
    assert_eq!(span_name(&record), "HTTP /items/{id}");
    record.request = None;
    assert_eq!(span_name(&record), "HTTP");
}

#[test]
fn an_unknown_method_is_kept_as_sent_beside_other() {
    let mut record = sample();
    let request = record.request.as_mut().unwrap();
    request.method = Method::from_bytes(b"get").unwrap();
    request.known_method = false;
    let map = map(&record);
    assert_eq!(map[HTTP_REQUEST_METHOD].to_string(), OTHER);
    assert_eq!(map[HTTP_REQUEST_METHOD_ORIGINAL].to_string(), "get");
    assert_eq!(method(&record), OTHER);
}

#[test]
fn a_method_that_was_made_known_keeps_its_word() {
    let mut record = sample();
    record.request.as_mut().unwrap().method = Method::from_bytes(b"PURGE").unwrap();
    assert_eq!(map(&record)[HTTP_REQUEST_METHOD].to_string(), "PURGE");
}

#[test]
fn only_failures_have_status_error_and_plain_5xx_no_description() {
    let mut record = sample();
    record.status = Some(404);
    assert_eq!(span_status(&record), Status::Unset);
    assert!(!map(&record).contains_key(ERROR_TYPE), "4xx is not a server's error (SEM-62)");

    record.status = Some(503);
    record.detail = record.put("the service said so");
    assert_eq!(span_status(&record), Status::Error(""));
    assert_eq!(map(&record)[ERROR_TYPE].to_string(), "503");

    record.outcome = Outcome::UpstreamRefused;
    record.status = Some(502);
    assert_eq!(span_status(&record), Status::Error("the service said so"));
    let map = map(&record);
    assert_eq!(map[ERROR_TYPE].to_string(), "connection_refused");
    assert_eq!(map[FAULT].to_string(), "upstream");
    assert_eq!(map[DETAIL].to_string(), "the service said so");
}

#[test]
fn a_caller_that_leaves_is_unset_and_says_so() {
    let mut record = sample();
    record.outcome = Outcome::ClientGoneBeforeResponse;
    record.status = None;
    assert_eq!(span_status(&record), Status::Unset);
    let map = map(&record);
    assert_eq!(map[OUTCOME].to_string(), "client_gone_before_response");
    assert!(!map.contains_key(HTTP_RESPONSE_STATUS_CODE), "nothing was sent (SEM-25)");
    assert!(!map.contains_key(ERROR_TYPE));
}

#[test]
fn an_unreadable_request_has_only_what_is_known() {
    let mut record = sample();
    record.request = None;
    record.outcome = Outcome::MalformedRequest;
    record.status = Some(400);
    let map = map(&record);
    assert_eq!(map[HTTP_REQUEST_METHOD].to_string(), OTHER);
    assert!(map.contains_key(NETWORK_PEER_ADDRESS));
    for absent in [URL_PATH, URL_SCHEME, SERVER_ADDRESS, CLIENT_ADDRESS, HTTP_REQUEST_METHOD_ORIGINAL] {
        assert!(!map.contains_key(absent), "{absent} should be absent");
    }
}

#[test]
fn all_attributes_at_once_have_keys_of_their_own() {
    let mut record = sample();
    record.outcome = Outcome::UpstreamBroken;
    record.detail = record.put("connection reset");
    record.stream = Some(Stream::ServerSentEvents);
    record.excluded = true;
    record.timings.dns = Some(Duration::from_millis(1));
    record.timings.connect = Some(Duration::from_millis(2));
    record.request.as_mut().unwrap().known_method = false;
    assert_eq!(map(&record).len(), 27);
}

#[test]
fn host_and_port_come_apart() {
    let cases = [
        ("shop.example", Some(("shop.example", None))),
        ("shop.example:8080", Some(("shop.example", Some(8080)))),
        ("[2001:db8::1]:443", Some(("2001:db8::1", Some(443)))),
        ("[2001:db8::1]", Some(("2001:db8::1", None))),
        ("user:secret@shop.example:80", Some(("shop.example", Some(80)))),
        ("shop.example:", Some(("shop.example", None))),
        ("shop.example:99999", Some(("shop.example", None))),
        ("", None),
        (":80", None),
        ("[2001:db8::1", None),
    ];
    for (authority, expected) in cases {
        assert_eq!(host_and_port(authority), expected, "{authority}");
    }
}

#[test]
fn the_error_type_is_that_of_the_metrics() {
    let statuses = [None, Some(101), Some(404), Some(499), Some(500), Some(599), Some(999)];
    let grpc_statuses = [None, Some(0), Some(5), Some(13), Some(200)];
    for mut record in [sample(), sample_call()] {
        for (outcome, status) in
            Outcome::ALL.iter().flat_map(|outcome| statuses.map(|status| (*outcome, status)))
        {
            for grpc_status in grpc_statuses {
                (record.outcome, record.status, record.grpc_status) = (outcome, status, grpc_status);
                let shown = map(&record).remove(ERROR_TYPE).map(|word| word.to_string());
                let expected = record.error_type();
                assert_eq!(shown.as_deref(), expected.as_deref(), "{outcome:?} {status:?} {grpc_status:?}");
            }
        }
    }
}

#[test]
fn a_grpc_status_has_its_name_and_is_an_error_to_whoever_it_is_one_for() {
    let shown = |mut record: Record, status| {
        record.status = Some(200);
        record.grpc_status = Some(status);
        let mut map = map(&record);
        let word = map.remove(ERROR_TYPE).map(|word| word.to_string());
        (map[RPC_RESPONSE_STATUS_CODE].to_string(), word, span_status(&record) != Status::Unset)
    };
    let ours = [2, 4, 12, 13, 14, 15];
    for status in 0..=16 {
        let name = crate::exchange::GRPC_STATUS[usize::from(status)];
        let said = |failed: bool| (name.to_owned(), failed.then(|| name.to_owned()), failed);
        assert_eq!(shown(sample(), status), said(ours.contains(&status)), "RPC-6 of a server: {name}");
        assert_eq!(shown(sample_call(), status), said(status != 0), "RPC-6 of a client: {name}");
    }
    let unknown = ("UNKNOWN".to_owned(), Some("UNKNOWN".to_owned()), true);
    assert_eq!(shown(sample(), 99), unknown, "what nobody knows");
    assert!(!map(&sample()).contains_key(RPC_RESPONSE_STATUS_CODE));
}

#[test]
fn addresses_read_as_the_standard_library_writes_them() {
    for octet in 0..=255 {
        let address = Ipv4Addr::new(octet, 255 - octet, octet / 2, octet / 3);
        assert_eq!(Address::new(address.into()).as_str(), address.to_string());
    }
    for text in ["::1", "2001:db8::1", "1111:2222:3333:4444:5555:6666:7777:8888", "::ffff:0:1.2.3.4"] {
        let address: IpAddr = text.parse().unwrap();
        assert_eq!(Address::new(address).as_str(), address.to_string());
    }
}

#[test]
fn an_ipv4_caller_on_a_dual_stack_socket_reads_as_ipv4() {
    let mut record = sample();
    record.peer = "[::ffff:192.0.2.7]:4000".parse().ok();
    assert_eq!(map(&record)[NETWORK_PEER_ADDRESS].to_string(), "192.0.2.7");
}
