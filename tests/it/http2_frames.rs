//! HTTP/2 of peers that break the rules, and of those that keep to them too well: floods, stalls, malformed messages.
//!
//! Callers and services are made of frames, byte by byte.

use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use tracecar::exchange::{Outcome, Record};

use crate::support::PATIENCE;
use crate::support::car::TestCar;
use crate::support::frames::*;
use crate::support::origin::{Message, Origin, Peer};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A service that answers with 200, and what it is asked.
fn service() -> (Origin, Receiver<Message>) {
    let (asks, asked) = channel();
    let asks = Mutex::new(asks);
    let origin = Origin::new(move |peer| {
        while let Some(request) = peer.request() {
            let _ = asks.lock().unwrap().send(request);
            peer.send(OK);
        }
    });
    (origin, asked)
}

/// A caller that means no harm is served.
fn all_is_well(car: &TestCar) {
    let mut caller = Frames::connect(car.address());
    caller.get(1, "/well");
    assert_eq!(caller.answer(1), 200);
    let mut caller = Peer::connect(car.address());
    caller.send("GET /well HTTP/1.1\r\nHost: shop\r\n\r\n");
    assert_eq!(caller.response().status(), 200);
}

/// The next record of this outcome.
fn record_of(car: &TestCar, outcome: Outcome) -> Arc<Record> {
    loop {
        let record = car.record();
        if record.outcome == outcome {
            return record;
        }
    }
}

#[test]
fn streams_that_are_opened_and_reset_end_their_connection_and_no_other() {
    let (origin, _asked) = service();
    let car = TestCar::with(&origin.url(), "limits: { http2_resets: 200 }", |_| {});
    let mut good = Frames::connect(car.address());
    good.get(1, "/");
    assert_eq!(good.answer(1), 200);
    let mut attacker = Frames::connect(car.address());
    let request = head("GET", "/attack", &[]);
    for stream in (1..).step_by(2).take(2000) {
        let both =
            [frame(HEADERS, WHOLE, stream, &request), frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())];
        if !attacker.write(&both.concat()) {
            break;
        }
    }
    assert_eq!(attacker.goaway().1, ENHANCE_YOUR_CALM, "CVE-2023-44487");
    while attacker.next().is_some() {}
    good.get(3, "/");
    assert_eq!(good.answer(3), 200);
    assert_eq!(car.stats().http2_ended_resets.value(), 1);
    let record = record_of(&car, Outcome::MalformedRequest);
    assert_eq!(record.text(record.detail), "HTTP/2: too many requests were cancelled");
    all_is_well(&car);
}

#[test]
fn streams_that_are_reset_once_they_are_answered_are_nobodys_fault() {
    let origin = Origin::new(|peer| {
        while peer.request().is_some() {
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        }
    });
    let car = TestCar::with(&origin.url(), "limits: { http2_resets: 5 }", |_| {});
    let mut caller = Frames::connect(car.address());
    for stream in (1..).step_by(2).take(30) {
        caller.get(stream, "/events");
        assert_eq!(caller.on(HEADERS, stream).status(), 200);
        caller.reset(stream);
    }
    caller.send(PING, 0, 0, b"are you?");
    assert_eq!(caller.find(|frame| frame.kind == PING && frame.flags == ACK).payload, b"are you?");
}

#[test]
fn a_head_of_more_continuations_than_anybody_needs_ends_the_connection() {
    let (origin, asked) = service();
    let car = TestCar::before(&origin.url());
    let mut attacker = Frames::connect(car.address());
    attacker.send(HEADERS, END_STREAM, 1, &head("GET", "/", &[]));
    let filler = block([("x-filler", &*"x".repeat(1000))]);
    for _ in 0..10_000 {
        if !attacker.send(CONTINUATION, 0, 1, &filler) {
            break;
        }
    }
    let code = attacker.goaway().1;
    assert!(matches!(code, ENHANCE_YOUR_CALM | PROTOCOL_ERROR), "{code}");
    let record = car.record();
    assert_eq!(record.outcome, Outcome::MalformedRequest, "{}", record.text(record.detail));
    let counted = car.stats().http2_ended_excess.value() + car.stats().http2_ended_protocol.value();
    assert_eq!(counted, 1);
    assert!(asked.try_recv().is_err(), "nobody was asked");
    all_is_well(&car);
}

#[test]
fn a_head_that_is_not_completed_in_time_ends_the_connection() {
    let (origin, _asked) = service();
    let car = TestCar::with(&origin.url(), "timeouts: { request_header: 1s }", |_| {});
    let mut attacker = Frames::connect(car.address());
    attacker.send(HEADERS, END_STREAM, 1, &head("GET", "/", &[]));
    while attacker.next().is_some() {}
    assert_eq!(car.record().outcome, Outcome::RequestTimeout);
    assert_eq!(car.stats().closed_request_header.value(), 1);
}

#[test]
fn frames_that_carry_nothing_end_the_connection_when_there_is_nothing_else() {
    let (origin, _asked) = service();
    let floods = [
        ("PING", frame(PING, 0, 0, &[0; 8])),
        ("SETTINGS", frame(SETTINGS, 0, 0, &[])),
        ("PRIORITY", frame(2, 0, 1, &[0; 5])),
        ("an unknown kind", frame(0x77, 0, 0, &[])),
    ];
    for (number, (what, flood)) in (1..).zip(floods) {
        let car = TestCar::before(&origin.url());
        let mut attacker = Frames::connect(car.address());
        for _ in 0..20_000 / 100 {
            if !attacker.write(&flood.repeat(100)) {
                break;
            }
        }
        assert_eq!(attacker.goaway().1, ENHANCE_YOUR_CALM, "{what}");
        assert_eq!(car.stats().http2_ended_idle_talk.value(), 1, "{what}, {number}");
        all_is_well(&car);
    }
}

#[test]
fn a_small_head_that_unpacks_to_a_large_one_ends_the_connection() {
    let (origin, asked) = service();
    let car = TestCar::before(&origin.url());
    let mut attacker = Frames::connect(car.address());
    // One field of 4000 bytes goes into the table, and is then named by one byte, again and again.
    let mut bomb = head("GET", "/", &[]);
    bomb.extend([0x40, 1, b'x', 127]);
    bomb.extend([0xa1, 0x1e]);
    bomb.extend(vec![b'y'; 4000]);
    bomb.extend(vec![0xbe; 10_000]);
    attacker.send(HEADERS, WHOLE, 1, &bomb);
    assert_eq!(attacker.goaway().1, ENHANCE_YOUR_CALM);
    assert_eq!(car.record().outcome, Outcome::MalformedRequest);
    assert_eq!(car.stats().http2_ended_excess.value(), 1);
    assert!(asked.try_recv().is_err(), "nobody was asked");
}

/// H2-7: the table of header fields is kept right, so the connection goes on.
#[test]
fn h2_7_a_header_section_that_is_too_large_is_answered_with_431() {
    let (origin, asked) = service();
    let car = TestCar::with(&origin.url(), "limits: { header_bytes: 8KiB }", |_| {});
    let mut caller = Frames::connect(car.address());
    caller.send(HEADERS, WHOLE, 1, &head("GET", "/", &[("x-large", &"x".repeat(9000))]));
    assert_eq!(caller.on(HEADERS, 1).status(), 431);
    caller.get(3, "/small");
    assert_eq!(caller.answer(3), 200);
    assert!(asked.recv().unwrap().head.starts_with("GET /small "));
    let record = record_of(&car, Outcome::Rejected);
    assert_eq!(record.status, Some(431));
    assert_eq!(car.stats().http2_too_large.value(), 1);
}

#[test]
fn more_header_lines_than_may_be_are_answered_with_431_and_a_longer_target_with_414() {
    let (origin, asked) = service();
    let car = TestCar::with(&origin.url(), "limits: { headers: 10, target_bytes: 256B }", |_| {});
    let mut caller = Frames::connect(car.address());
    let many: Vec<_> = (0..11).map(|_| ("x-more", "1")).collect();
    caller.send(HEADERS, WHOLE, 1, &head("GET", "/", &many));
    assert_eq!(caller.answer(1), 431);
    caller.get(3, &format!("/{}", "a".repeat(256)));
    assert_eq!(caller.answer(3), 414);
    assert!(asked.try_recv().is_err(), "nobody was asked");
    for status in [431, 414] {
        let record = car.record();
        assert_eq!((record.outcome, record.status), (Outcome::Rejected, Some(status)));
    }
    caller.send(HEADERS, WHOLE, 5, &head("GET", &format!("/{}", "a".repeat(255)), &many[..10]));
    assert_eq!(caller.answer(5), 200, "up to the bound all is well");
}

/// A caller that never opens its window holds an answer of the service.
#[test]
fn a_caller_that_does_not_read_is_left_and_its_connection_is_not() {
    let content = "x".repeat(1024 * 1024);
    let origin =
        Origin::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{content}", content.len()));
    let car = TestCar::with(&origin.url(), "timeouts: { response_send: 1s }", |_| {});
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let mut caller = Frames::connect_with(car.address(), &[(INITIAL_WINDOW_SIZE, 0)]);
    caller.get(1, "/large");
    assert_eq!(caller.on(HEADERS, 1).status(), 200);
    let begun = Instant::now();
    assert_eq!(caller.on(RST_STREAM, 1).error(), CANCEL);
    assert!(begun.elapsed() >= Duration::from_millis(900), "{:?}", begun.elapsed());
    let record = car.record();
    assert_eq!((record.outcome, record.status), (Outcome::ClientNotReading, Some(200)));
    assert_eq!(car.stats().closed_response_send.value(), 1);
    // It reads another.
    caller.get(3, "/other");
    caller.send(WINDOW_UPDATE, 0, 3, &(2u32 << 20).to_be_bytes());
    caller.send(WINDOW_UPDATE, 0, 0, &(2u32 << 20).to_be_bytes());
    assert_eq!(caller.answer(3), 200);
}

/// The same with a caller that reads, however slowly.
#[test]
fn a_caller_that_reads_slowly_is_served() {
    let content = "x".repeat(256 * 1024);
    let origin =
        Origin::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{content}", content.len()));
    let car = TestCar::with(&origin.url(), "timeouts: { response_send: 2s }", |_| {});
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let mut caller = Frames::connect_with(car.address(), &[(INITIAL_WINDOW_SIZE, 0)]);
    caller.get(1, "/large");
    assert_eq!(caller.on(HEADERS, 1).status(), 200);
    caller.send(WINDOW_UPDATE, 0, 0, &(1u32 << 20).to_be_bytes());
    let mut read = 0;
    while read < content.len() {
        caller.send(WINDOW_UPDATE, 0, 1, &65_536u32.to_be_bytes());
        let mut part = 0;
        while part < 65_536 {
            part += caller.on(DATA, 1).payload.len();
        }
        read += part;
        // This is how slow it is, not a wait for something to happen.
        std::thread::sleep(Duration::from_millis(700));
    }
    assert_eq!(car.record().outcome, Outcome::Complete);
}

#[test]
fn streams_that_rest_are_bounded_and_get_a_408_in_the_end() {
    let (origin, _asked) = service();
    let yaml = "limits: { http2_streams: 10 }\ntimeouts: { request_body: 1s }";
    let car = TestCar::with(&origin.url(), yaml, |_| {});
    let mut caller = Frames::connect(car.address());
    // Whoever has not acknowledged the bound need not keep to it.
    caller.on(SETTINGS, 0);
    caller.send(SETTINGS, ACK, 0, &[]);
    for stream in (1..).step_by(2).take(11) {
        caller.send(HEADERS, END_HEADERS, stream, &head("POST", "/", &[("content-length", "10")]));
    }
    assert_eq!(caller.on(RST_STREAM, 21).error(), REFUSED_STREAM);
    assert_eq!(caller.find(|frame| frame.kind == HEADERS).status(), 408);
    for _ in 0..10 {
        let record = car.record();
        assert_eq!((record.outcome, record.status), (Outcome::ClientNotSending, Some(408)));
    }
    assert_eq!(car.stats().closed_request_body.value(), 10);
}

/// A request that is malformed, under the name of the rule that says so.
struct Malformed {
    rule: &'static str,
    block: Vec<u8>,
    /// Content behind it.
    data: Option<&'static str>,
}

fn malformed() -> Vec<Malformed> {
    let whole = |rule, block| Malformed { rule, block, data: None };
    let with = |rule, name, value| whole(rule, head("GET", "/", &[(name, value)]));
    let pseudo = |rule, fields: &[(&'static str, &'static str)]| whole(rule, block(fields.iter().copied()));
    let get = [(":method", "GET"), (":scheme", "http"), (":authority", "shop"), (":path", "/")];
    let but = |index: usize, value| {
        let mut fields = get;
        fields[index].1 = value;
        block(fields)
    };
    vec![
        with("SMG-27: an uppercase name", "X-Upper", "1"),
        with("SMG-27: a space in a name", "x y", "1"),
        with("SMG-27: a colon in a name", "x:y", "1"),
        with("SMG-27: a control character in a name", "x\u{7f}", "1"),
        with("SMG-27: an empty name", "", "1"),
        with("SMG-27: NUL in a value", "x-nul", "a\0b"),
        with("SMG-27: CR and LF in a value", "x-line", "a\r\nx-smuggled: 1"),
        with("SMG-27: LF in a value", "x-line", "a\nb"),
        with("SMG-28: connection", "connection", "close"),
        with("SMG-28: proxy-connection", "proxy-connection", "close"),
        with("SMG-28: keep-alive", "keep-alive", "timeout=5"),
        with("SMG-28: transfer-encoding", "transfer-encoding", "chunked"),
        with("SMG-28: upgrade", "upgrade", "h2c"),
        with("SMG-28: te", "te", "gzip"),
        pseudo("SMG-29: no method", &get[1..]),
        pseudo("SMG-29: no scheme", &[get[0], get[2], get[3]]),
        pseudo("SMG-29: no path", &get[..3]),
        whole("SMG-29: an empty path", but(3, "")),
        pseudo("SMG-29: two paths", &[get[0], get[1], get[2], get[3], (":path", "/other")]),
        pseudo("SMG-29: an unknown pseudo-header", &[get[0], get[1], get[2], get[3], (":unknown", "1")]),
        pseudo("SMG-29: that of a response", &[get[0], get[1], get[2], get[3], (":status", "200")]),
        pseudo("SMG-29: one behind a field", &[get[0], get[1], get[2], ("x-field", "1"), get[3]]),
        with("SMG-30: length without content", "content-length", "5"),
        whole("SMG-32: a space in the path", but(3, "/a b HTTP/1.1")),
        whole("SMG-32: CR and LF in the path", but(3, "/ HTTP/1.1\r\nx-smuggled: 1")),
        whole("SMG-32: a path that is none", but(3, "a/b")),
        whole("SMG-32: CR and LF in the method", but(0, "GET / HTTP/1.1\r\nx: y")),
        whole("SMG-32: a space in the method", but(0, "GET /")),
        whole("SMG-32: a space in the scheme", but(1, "http ://x")),
        whole("SMG-32: user information", but(2, "admin:secret@shop")),
        whole("SMG-32: a space in the authority", but(2, "shop\r\nx-smuggled: 1")),
        Malformed {
            rule: "SMG-30: more content than its length",
            block: head("POST", "/", &[("content-length", "1")]),
            data: Some("22"),
        },
    ]
}

/// SMG-27 to 30, SMG-32, H2-5: nobody but us has to know what is wrong with it.
#[test]
fn malformed_requests_reach_nobody_and_leave_a_record() {
    let (origin, asked) = service();
    for Malformed { rule, block, data } in malformed() {
        let car = TestCar::before(&origin.url());
        let mut caller = Frames::connect(car.address());
        caller.send(HEADERS, if data.is_some() { END_HEADERS } else { WHOLE }, 1, &block);
        if let Some(data) = data {
            caller.send(DATA, END_STREAM, 1, data.as_bytes());
        }
        let refused = caller.find(|frame| matches!(frame.kind, HEADERS | RST_STREAM | GOAWAY));
        match refused.kind {
            HEADERS => assert!((400..600).contains(&refused.status()), "{rule}: {}", refused.status()),
            _ => assert_eq!(refused.error(), PROTOCOL_ERROR, "{rule}"),
        }
        if refused.kind == GOAWAY {
            caller = Frames::connect(car.address());
        }
        caller.get(3, "/next");
        assert_eq!(caller.answer(3), 200, "{rule}: the next request is none of its business");
        let next = asked.recv_timeout(PATIENCE).expect("it arrives");
        if data.is_none() {
            assert!(next.head.starts_with("GET /next "), "{rule}: {}", next.head);
        }
        let records = [car.record(), car.record()];
        let refused = records.iter().filter(|record| record.outcome != Outcome::Complete).count();
        assert_eq!(refused, 1, "{rule}");
        drop(caller);
        assert_eq!(car.ended().len(), 0, "{rule}: one record each");
    }
}

/// SMG-31, H2-1: of two names that disagree, the service is told the one that we go by.
#[test]
fn smg_31_a_host_beside_the_authority_is_not_passed_on() {
    let (origin, asked) = service();
    let car = TestCar::before(&origin.url());
    let mut caller = Frames::connect(car.address());
    caller.send(HEADERS, WHOLE, 1, &head("GET", "/", &[("host", "other")]));
    let answer = caller.find(|frame| matches!(frame.kind, HEADERS | RST_STREAM));
    if answer.kind == HEADERS && answer.status() == 200 {
        let asked = asked.recv().unwrap();
        assert_eq!(asked.headers("host").collect::<Vec<_>>(), ["shop"]);
    } else {
        assert!(asked.try_recv().is_err(), "nobody was asked");
    }
}

/// H2-4: what has no length in HTTP/2 is chunked in HTTP/1, and what has no content is nothing of the kind.
#[test]
fn h2_4_content_without_length_becomes_chunked_and_no_content_stays_none() {
    let (origin, asked) = service();
    let car = TestCar::before(&origin.url());
    let mut caller = Frames::connect(car.address());
    caller.send(HEADERS, END_HEADERS, 1, &head("POST", "/", &[]));
    caller.send(DATA, END_STREAM, 1, b"content");
    assert_eq!(caller.answer(1), 200);
    let chunked = asked.recv().unwrap();
    assert_eq!((chunked.header("transfer-encoding"), &chunked.body[..]), (Some("chunked"), &b"content"[..]));
    caller.get(3, "/");
    assert_eq!(caller.answer(3), 200);
    let bare = asked.recv().unwrap();
    assert_eq!((bare.header("transfer-encoding"), bare.header("content-length")), (None, None));
}

/// A service that answers the first request on each connection with these frames.
fn frames(answer: impl Fn(&mut Frames, u32) + Send + Sync + 'static) -> Origin {
    Origin::new(move |peer| {
        let mut frames = Frames::accept(peer);
        let asked = frames.find(|frame| frame.kind == HEADERS);
        answer(&mut frames, asked.stream);
        while frames.next().is_some() {}
    })
}

fn ok() -> Vec<u8> {
    block([(":status", "200")])
}

/// SMG-33 and their like: answers of an HTTP/2 service that are none.
#[test]
fn smg_33_malformed_responses_become_a_502_or_break_off() {
    type Answer = fn(&mut Frames, u32);
    let answers: [(&str, Answer); 7] = [
        ("SMG-33: an interim response that ends the stream", |service, stream| {
            service.send(HEADERS, WHOLE, stream, &block([(":status", "103")]));
        }),
        ("SMG-29: no status", |service, stream| {
            service.send(HEADERS, WHOLE, stream, &block([("x-field", "1")]));
        }),
        ("SMG-27: CR and LF in a value", |service, stream| {
            service.send(HEADERS, WHOLE, stream, &block([(":status", "200"), ("x", "a\r\nb: c")]));
        }),
        ("SMG-27: an uppercase name", |service, stream| {
            service.send(HEADERS, WHOLE, stream, &block([(":status", "200"), ("X-Upper", "1")]));
        }),
        ("SMG-28: connection", |service, stream| {
            service.send(
                HEADERS,
                WHOLE,
                stream,
                &block([(":status", "200"), ("transfer-encoding", "chunked")]),
            );
        }),
        ("SMG-30: length without content", |service, stream| {
            service.send(HEADERS, WHOLE, stream, &block([(":status", "200"), ("content-length", "5")]));
        }),
        ("a reset before the answer", |service, stream| {
            service.send(RST_STREAM, 0, stream, &2u32.to_be_bytes());
        }),
    ];
    for (what, answer) in answers {
        let origin = frames(answer);
        let car = TestCar::before(&format!("h2c://{}", origin.address));
        let mut caller = Peer::connect(car.address());
        caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n");
        assert_eq!(caller.response().status(), 502, "{what}");
        let record = car.record();
        assert!(
            matches!(record.outcome, Outcome::UpstreamInvalid | Outcome::UpstreamReset),
            "{what}: {:?}",
            record.outcome
        );
    }
}

/// FRM-4, SMG-30, SMG-33: what breaks off in HTTP/2 never ends well in HTTP/1, and the other way round.
#[test]
fn frm_4_a_response_that_breaks_off_is_not_ended_well_in_either_version() {
    type Break = fn(&mut Frames, u32);
    let breaks: [(&str, Break); 3] = [
        ("a reset", |service, stream| {
            service.send(RST_STREAM, 0, stream, &2u32.to_be_bytes());
        }),
        ("SMG-33: a second final head", |service, stream| {
            service.send(HEADERS, END_HEADERS, stream, &ok());
        }),
        ("the end of the connection", |service, _| {
            let _ = service.stream.shutdown(std::net::Shutdown::Both);
        }),
    ];
    for (what, breaks_off) in breaks {
        let origin = frames(move |service, stream| {
            service.send(HEADERS, END_HEADERS, stream, &ok());
            service.send(DATA, 0, stream, b"part");
            // It has passed before it breaks off.
            service.find(|frame| frame.kind == PING || frame.kind == DATA && frame.payload == b"go on");
            breaks_off(service, stream);
        });
        let car = TestCar::before(&format!("h2c://{}", origin.address));
        let mut caller = Peer::connect(car.address());
        caller.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\n");
        assert!(caller.head().expect("a head").starts_with("HTTP/1.1 200 "), "{what}");
        assert_eq!(caller.line().as_deref(), Some("4\r\n"), "{what}");
        caller.send("go on");
        let rest = caller.rest().unwrap_or_default();
        assert!(!rest.ends_with(b"0\r\n\r\n"), "{what}: {rest:?}");
        assert_eq!(car.record().outcome, Outcome::UpstreamBroken, "{what}");

        // The service answers once on each connection.
        let car = TestCar::before(&format!("h2c://{}", origin.address));
        let mut caller = Frames::connect(car.address());
        caller.send(HEADERS, END_HEADERS, 1, &head("POST", "/", &[]));
        assert_eq!(caller.on(DATA, 1).payload, b"part", "{what}");
        caller.send(DATA, 0, 1, b"go on");
        let end = caller.find(|frame| frame.stream == 1 && (frame.kind == RST_STREAM || frame.ends_stream()));
        assert_eq!(end.kind, RST_STREAM, "{what}");
        assert_eq!(car.record().outcome, Outcome::UpstreamBroken, "{what}");
    }
}

/// H2-6: a service that has answered may say that it does not need the rest of the request.
#[test]
fn h2_6_an_early_answer_is_passed_on_though_the_service_takes_no_more() {
    let origin = frames(|service, stream| {
        service.send(HEADERS, WHOLE, stream, &block([(":status", "413")]));
        service.send(RST_STREAM, 0, stream, &0u32.to_be_bytes());
    });
    let car = TestCar::before(&format!("h2c://{}", origin.address));
    let mut caller = Frames::connect(car.address());
    caller.send(HEADERS, END_HEADERS, 1, &head("POST", "/", &[("content-length", "1000000")]));
    assert_eq!(caller.on(HEADERS, 1).status(), 413);
    let car = TestCar::before(&format!("h2c://{}", origin.address));
    let mut caller = Peer::connect(car.address());
    caller.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 1000000\r\n\r\n");
    assert_eq!(caller.response().status(), 413);
}

/// RFC 9113 section 6.8: first all that is on its way already is let in, then the real last stream is named.
#[test]
fn a_drain_says_goaway_twice_and_finishes_what_is_under_way() {
    let (answer, answers) = channel::<()>();
    let answers = Mutex::new(answers);
    let (arrived, arrives) = channel();
    let arrived = Mutex::new(arrived);
    let origin = Origin::new(move |peer| {
        while peer.request().is_some() {
            let _ = arrived.lock().unwrap().send(());
            let _ = answers.lock().unwrap().recv_timeout(PATIENCE);
            peer.send(OK);
        }
    });
    let mut car = TestCar::before(&origin.url());
    let mut caller = Frames::connect(car.address());
    caller.get(1, "/under-way");
    arrives.recv_timeout(PATIENCE).expect("it arrives");
    car.stop();
    assert_eq!(caller.goaway(), (0x7fff_ffff, 0), "nobody is turned away yet");
    // It has not heard of that when it sends another.
    caller.get(3, "/on-its-way");
    arrives.recv_timeout(PATIENCE).expect("it arrives");
    let ping = caller.find(|frame| frame.kind == PING && frame.flags & ACK == 0);
    caller.send(PING, ACK, 0, &ping.payload);
    assert_eq!(caller.goaway(), (3, 0), "the last that is let in");
    for _ in 0..2 {
        answer.send(()).expect("the service waits");
    }
    let mut ended = [caller.find(Frame::ends_stream).stream, caller.find(Frame::ends_stream).stream];
    ended.sort_unstable();
    assert_eq!(ended, [1, 3]);
    assert_eq!(caller.next(), None, "then the connection ends");
    let records = car.ended();
    assert_eq!(records.len(), 2);
    assert!(records.iter().all(|record| record.outcome == Outcome::Complete));
}
