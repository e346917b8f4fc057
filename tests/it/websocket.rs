//! WebSockets over HTTP/2 (RFC 8441) on either side, and on both.

use std::sync::Arc;
use std::sync::mpsc::channel;

use bytes::Bytes;
use h2::Reason;
use http::Method;
use tokio::sync::Notify;
use tracecar::exchange::{Outcome, Record, Stream};

use crate::support::PATIENCE;
use crate::support::car::TestCar;
use crate::support::origin::{Message, Origin, Peer};
use crate::support::streams::{
    Dialog, StreamOrigin, agree, answer, ask, connect, connect_and_watch, get, open, told_to_leave,
};

const URI: &str = "http://shop.example/ws?room=1";
const KEY: &str = "dGhlIHNhbXBsZSBub25jZQ==";
const ASK: &str = "GET /ws?room=1 HTTP/1.1\r\nHost: shop.example\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\
                   Sec-WebSocket-Protocol: chat, other\r\n\r\n";

/// A 101 as a server makes it that has computed the proof for that key.
fn agreed(asked: &Message) -> String {
    let key = asked.header("sec-websocket-key").expect("HX-5: the proxy makes a key");
    let guid = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11";
    let hash = ring::digest::digest(&ring::digest::SHA1_FOR_LEGACY_USE_ONLY, [key, guid].concat().as_bytes());
    let proof = base64::Engine::encode(&base64::engine::general_purpose::STANDARD, hash);
    format!(
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         Sec-WebSocket-Accept: {proof}\r\nSec-WebSocket-Protocol: chat\r\n\r\n"
    )
}

/// A service over HTTP/1 that sends back what it hears, and the end of it.
fn echo() -> Origin {
    Origin::new(|peer| {
        while let Some(asked) = peer.request() {
            if asked.header("upgrade").is_none() {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 8\r\n\r\nordinary");
                continue;
            }
            peer.send(agreed(&asked));
            let mut from = peer.stream.try_clone().unwrap();
            let _ = std::io::copy(&mut from, &mut peer.stream);
            return peer.finish_sending();
        }
    })
}

/// The same over HTTP/2.
async fn stream_echo() -> StreamOrigin {
    StreamOrigin::new(true, |request, respond| async move {
        if request.method() != Method::CONNECT {
            return answer(respond, 200, "ordinary");
        }
        let mut dialog = agree(request, respond);
        while let Some(Ok(data)) = dialog.receive.data().await {
            let _ = dialog.receive.flow_control().release_capacity(data.len());
            dialog.say(data);
        }
        dialog.end();
    })
    .await
}

fn is_websocket(record: &Record, status: u16, sent: u64, received: u64) {
    assert_eq!((record.outcome, record.status), (Outcome::Complete, Some(status)));
    assert_eq!(record.stream, Some(Stream::WebSocket));
    assert_eq!((record.request_bytes, record.response_bytes), (sent, received));
    let request = record.request.as_ref().unwrap();
    assert_eq!((&request.method, record.text(request.path)), (&Method::GET, "/ws"));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_of_an_http2_caller_reaches_a_service_of_http1() {
    let (asked, asks) = channel();
    let origin = Origin::new(move |peer| {
        let request = peer.request().unwrap();
        // Bytes right behind the head must not be lost.
        peer.send([&agreed(&request), "hello"].concat());
        asked.send(request).unwrap();
        let heard = peer.exactly(9);
        peer.send(heard);
        assert_eq!(peer.rest().unwrap(), b"", "half-close is passed on");
        peer.send("last words");
    });
    let car = TestCar::before(&origin.url());
    let sender = connect(car.address()).await;
    // So must those right behind the request.
    let (answer, mut dialog) = ask(&sender, open("websocket", URI), "early").await;
    assert_eq!(answer.status(), 200, "HX-5");
    let headers = answer.headers();
    for name in ["connection", "upgrade", "sec-websocket-accept", "content-length"] {
        assert!(!headers.contains_key(name), "{name}");
    }
    assert_eq!(headers["sec-websocket-protocol"], "chat");
    let request = asks.recv().unwrap();
    assert!(request.head.starts_with("GET /ws?room=1 HTTP/1.1\r\n"), "{}", request.head);
    assert_eq!(request.header("host"), Some("shop.example"));
    assert_eq!(
        (request.header("upgrade"), request.header("connection")),
        (Some("websocket"), Some("Upgrade"))
    );
    assert_eq!(request.header("sec-websocket-version"), Some("13"));
    assert_eq!(request.header("sec-websocket-protocol"), Some("chat, other"));
    assert!(request.header("traceparent").is_some());
    assert_eq!(dialog.hear(5).await, b"hello");
    dialog.say("late");
    assert_eq!(dialog.hear(9).await, b"earlylate");
    dialog.end();
    assert_eq!(dialog.rest().await.unwrap(), b"last words");
    let record = car.record();
    is_websocket(&record, 200, 9, 24);
    assert_eq!(record.request.as_ref().unwrap().version, http::Version::HTTP_2);
    drop((sender, dialog));
    assert_eq!(car.ended().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_of_an_http1_caller_reaches_a_service_of_http2() {
    let (asked, asks) = channel();
    let origin = StreamOrigin::new(true, move |request, respond| {
        let asked = asked.clone();
        async move {
            asked.send((request.method().clone(), request.uri().clone(), request.headers().clone())).unwrap();
            let protocol = request.extensions().get::<h2::ext::Protocol>();
            assert_eq!(protocol.map(h2::ext::Protocol::as_str), Some("websocket"));
            let mut dialog = agree(request, respond);
            dialog.say("hello");
            let heard = dialog.hear(9).await;
            dialog.say(heard);
            assert_eq!(dialog.rest().await.unwrap(), b"", "half-close is passed on");
            dialog.say("last words");
            dialog.end();
        }
    })
    .await;
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send([ASK, "early"].concat());
    let answer = caller.response_head();
    assert_eq!((answer.status(), answer.header("upgrade")), (101, Some("websocket")));
    assert_eq!(answer.header("connection"), Some("Upgrade"));
    assert_eq!(answer.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="), "HX-5");
    assert_eq!(answer.header("sec-websocket-protocol"), Some("chat"));
    let (method, uri, headers) = asks.recv().unwrap();
    assert_eq!((method, uri.to_string()), (Method::CONNECT, URI.to_owned()));
    assert!(!headers.contains_key("sec-websocket-key") && !headers.contains_key("upgrade"));
    assert_eq!(
        (&headers["sec-websocket-version"], &headers["sec-websocket-protocol"]),
        (&"13".parse().unwrap(), &"chat, other".parse().unwrap())
    );
    assert!(headers.contains_key("traceparent"));
    assert_eq!(caller.exactly(5), b"hello");
    caller.send("late");
    assert_eq!(caller.exactly(9), b"earlylate");
    caller.finish_sending();
    assert_eq!(caller.rest().unwrap(), b"last words");
    is_websocket(&car.record(), 101, 9, 24);
    assert_eq!(car.ended().len(), 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_passes_from_http2_to_http2() {
    let origin = stream_echo().await;
    let car = TestCar::before(&origin.url());
    let sender = connect(car.address()).await;
    let (answer, mut dialog) = ask(&sender, open("websocket", URI), "early").await;
    assert_eq!(
        (answer.status().as_u16(), &answer.headers()["sec-websocket-protocol"]),
        (200, &"chat".parse().unwrap())
    );
    assert!(!answer.headers().contains_key("sec-websocket-accept"));
    dialog.say(" bird");
    dialog.end();
    assert_eq!(dialog.rest().await.unwrap(), b"early bird");
    is_websocket(&car.record(), 200, 10, 10);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_call_has_the_status_that_its_destination_sent() {
    let origin = echo();
    let outbound = format!("outbound: {{ mapped: [{{ listen: '127.0.0.1:0', to: '{}' }}] }}", origin.url());
    let car = TestCar::with("http://127.0.0.1:9", &outbound, |_| {});
    let sender = connect(car.mapped(0)).await;
    let (answer, mut dialog) = ask(&sender, open("websocket", URI), "x").await;
    assert_eq!(answer.status(), 200);
    dialog.end();
    assert_eq!(dialog.rest().await.unwrap(), b"x");
    is_websocket(&car.record(), 101, 1, 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_opens_no_websockets_over_http2_is_asked_without() {
    let origin = StreamOrigin::new(false, |request, respond| async move {
        assert_eq!(request.method(), Method::GET);
        assert!(!request.headers().contains_key("upgrade"), "SMG-28");
        answer(respond, 426, "not here");
    })
    .await;
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    for _ in 0..3 {
        caller.send(ASK);
        let answer = caller.response();
        assert_eq!((answer.status(), answer.text()), (426, "not here".to_owned()));
        assert_eq!(car.record().stream, None);
    }
    assert_eq!(origin.connections(), 1, "what the service has said of itself holds");
    let sender = connect(car.address()).await;
    let (answer, mut dialog) = ask(&sender, open("websocket", URI), "").await;
    assert_eq!(answer.status(), 426);
    assert_eq!(dialog.rest().await.unwrap(), b"not here");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_websocket_has_its_connection_and_requests_have_theirs() {
    let origin = stream_echo().await;
    let car = TestCar::before(&origin.url());
    let mut callers: Vec<_> = (0..3).map(|_| Peer::connect(car.address())).collect();
    for caller in &mut callers {
        caller.send(ASK);
        assert_eq!(caller.response_head().status(), 101);
    }
    let sender = connect(car.address()).await;
    for _ in 0..3 {
        assert_eq!(get(&sender, "http://shop/").await.1, b"ordinary");
    }
    assert_eq!(origin.connections(), 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_key_that_is_none_opens_nothing() {
    let origin = StreamOrigin::new(true, |request, respond| async move {
        assert_eq!(request.method(), Method::GET);
        answer(respond, 400, "what?");
    })
    .await;
    let car = TestCar::before(&origin.url());
    for key in ["", "short", "dGhlIHNhbXBsZSBub25jZQ"] {
        let mut caller = Peer::connect(car.address());
        caller.send(ASK.replace(KEY, key));
        assert_eq!(caller.response().text(), "what?", "RFC 6455 section 4.2.1");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_refusal_passes_as_it_is() {
    let origin =
        Origin::answering("HTTP/1.1 403 Forbidden\r\nContent-Length: 8\r\nX-Why: none\r\n\r\nnot you!");
    let car = TestCar::before(&origin.url());
    let sender = connect(car.address()).await;
    let (answer_, mut dialog) = ask(&sender, open("websocket", URI), "").await;
    assert_eq!((answer_.status().as_u16(), &answer_.headers()["x-why"]), (403, &"none".parse().unwrap()));
    assert_eq!(dialog.rest().await.unwrap(), b"not you!");
    let record = car.record();
    assert_eq!((record.outcome, record.status, record.stream), (Outcome::Complete, Some(403), None));

    let origin = StreamOrigin::new(true, |_, respond| async { answer(respond, 403, "nor you!") }).await;
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    for _ in 0..2 {
        caller.send(ASK);
        let message = caller.response();
        assert_eq!((message.status(), message.text()), (403, "nor you!".to_owned()));
        assert_eq!((message.header("upgrade"), message.header("sec-websocket-accept")), (None, None));
        let record = car.record();
        assert_eq!((record.outcome, record.status, record.stream), (Outcome::Complete, Some(403), None));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_answer_that_proves_nothing_opens_nothing() {
    let head = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n";
    let wrong = "Upgrade: websocket\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
    let other = "Upgrade: chat\r\n\r\n";
    for (answer, why) in [
        ([head, wrong].concat(), "does not belong to the key"),
        ([head, "Upgrade: websocket\r\n\r\n"].concat(), "without Sec-WebSocket-Accept"),
        ([head, other].concat(), "another protocol"),
        // The caller would take it for an open WebSocket.
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi".to_owned(), "200 to a request for a WebSocket"),
        ("HTTP/1.1 204 No Content\r\n\r\n".to_owned(), "204 to a request for a WebSocket"),
    ] {
        let origin = Origin::answering(answer);
        let car = TestCar::before(&origin.url());
        let sender = connect(car.address()).await;
        let (answer, mut dialog) = ask(&sender, open("websocket", URI), "").await;
        assert_eq!(answer.status(), 502, "{why}");
        dialog.rest().await.unwrap();
        let record = car.record();
        assert_eq!((record.outcome, record.status), (Outcome::UpstreamInvalid, Some(502)), "{why}");
        assert!(record.text(record.detail).contains(why), "{}", record.text(record.detail));
    }
    let origin = StreamOrigin::new(true, |_, respond| async { answer(respond, 202, "later") }).await;
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(ASK);
    assert_eq!(caller.response().status(), 502);
    assert_eq!(car.record().outcome, Outcome::UpstreamInvalid);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_protocols_are_not_opened_and_recorded() {
    let origin = echo();
    let car = TestCar::before(&origin.url());
    let sender = connect(car.address()).await;
    let (answer, _dialog) = ask(&sender, open("connect-udp", URI), "").await;
    assert_eq!(answer.status(), 501, "HX-5");
    let record = car.record();
    assert_eq!((record.status, &record.request.as_ref().unwrap().method), (Some(501), &Method::CONNECT));
    assert_eq!(get(&sender, "http://shop/").await.1, b"ordinary", "the connection goes on");
}

/// Sends 2 MiB and takes them back, a part after the other.
async fn much(mut dialog: Dialog, number: u8) {
    let part = Bytes::from(vec![number; 64 * 1024]);
    for _ in 0..32 {
        dialog.say(part.clone());
        assert_eq!(dialog.hear(part.len()).await, part);
    }
    dialog.end();
    assert_eq!(dialog.rest().await.unwrap(), b"");
}

#[tokio::test(flavor = "multi_thread")]
async fn many_websockets_share_a_connection_with_requests() {
    let services = (echo(), stream_echo().await);
    for url in [services.0.url(), services.1.url()] {
        let car = TestCar::before(&url);
        let sender = connect(car.address()).await;
        let mut dialogs = tokio::task::JoinSet::new();
        for number in 0..20 {
            let (answer, dialog) = ask(&sender, open("websocket", URI), "").await;
            assert_eq!(answer.status(), 200);
            dialogs.spawn(much(dialog, number));
        }
        for _ in 0..50 {
            assert_eq!(get(&sender, "http://shop/").await.1, b"ordinary");
        }
        assert_eq!(dialogs.join_all().await.len(), 20);
        let records: Vec<_> = (0..70).map(|_| car.record()).collect();
        assert!(records.iter().all(|record| record.outcome == Outcome::Complete));
        let tunnels = records.iter().filter(|record| record.stream.is_some());
        assert_eq!(tunnels.filter(|record| record.response_bytes == 2 * 1024 * 1024).count(), 20);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn one_side_that_does_not_listen_holds_nobody_else_up() {
    let origin = stream_echo().await;
    let car = TestCar::before(&origin.url());
    let sender = connect(car.address()).await;
    // Far more than any window, and nobody takes what comes back.
    let mut deaf = Vec::new();
    for _ in 0..4 {
        let (_, mut dialog) = ask(&sender, open("websocket", URI), "").await;
        dialog.say(vec![0; 16 * 1024 * 1024]);
        deaf.push(dialog);
    }
    let other = connect(car.address()).await;
    for _ in 0..10 {
        assert_eq!(get(&other, "http://shop/").await.1, b"ordinary");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_resets_its_stream_is_gone() {
    let (ended, end) = channel();
    let origin = Origin::new(move |peer| {
        let asked = peer.request().unwrap();
        peer.send(agreed(&asked));
        ended.send(peer.rest()).unwrap();
    });
    let car = TestCar::before(&origin.url());
    let sender = connect(car.address()).await;
    for reason in [Reason::CANCEL, Reason::INTERNAL_ERROR] {
        let (_, mut dialog) = ask(&sender, open("websocket", URI), "").await;
        dialog.send.send_reset(reason);
        assert_eq!(car.record().outcome, Outcome::ClientGoneDuringResponse, "{reason:?}");
        assert!(end.recv().unwrap().is_err(), "it is passed on as what it is, and not as an end (FRM-4)");
    }
    // A connection that is lost takes its streams along.
    let (_, dialog) = ask(&sender, open("websocket", URI), "").await;
    drop((sender, dialog));
    assert_eq!(car.record().outcome, Outcome::ClientGoneDuringResponse);
    assert!(end.recv().unwrap().is_err());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_resets_the_connection_resets_the_stream() {
    let origin = Origin::new(|peer| {
        let asked = peer.request().unwrap();
        peer.send(agreed(&asked));
        peer.exactly(1);
        socket2::SockRef::from(&peer.stream).set_linger(Some(std::time::Duration::ZERO)).unwrap();
    });
    let car = TestCar::before(&origin.url());
    let sender = connect(car.address()).await;
    let (_, mut dialog) = ask(&sender, open("websocket", URI), "x").await;
    assert_eq!(dialog.rest().await.unwrap_err(), Some(Reason::CANCEL), "FRM-4, RFC 8441 section 5");
    assert_eq!(car.record().outcome, Outcome::UpstreamBroken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_resets_its_stream_broke_it() {
    let origin = StreamOrigin::new(true, |request, respond| async move {
        let mut dialog = agree(request, respond);
        dialog.say("half a me");
        dialog.hear(1).await;
        dialog.send.send_reset(Reason::CANCEL);
    })
    .await;
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(ASK);
    assert_eq!(caller.response_head().status(), 101);
    assert_eq!(caller.exactly(9), b"half a me");
    caller.send("x");
    assert!(caller.rest().is_err(), "FRM-4");
    assert_eq!(car.record().outcome, Outcome::UpstreamBroken);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_caller_that_resets_its_connection_resets_the_stream_of_the_service() {
    let (ended, end) = channel();
    let origin = StreamOrigin::new(true, move |request, respond| {
        let ended = ended.clone();
        async move {
            let mut dialog = agree(request, respond);
            dialog.say("x");
            ended.send(dialog.reset().await).unwrap();
        }
    })
    .await;
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(ASK);
    caller.response_head();
    caller.exactly(1);
    caller.reset();
    assert_eq!(car.record().outcome, Outcome::ClientGoneDuringResponse);
    assert_eq!(end.recv().unwrap(), Reason::CANCEL, "FRM-4, RFC 8441 section 5");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_has_said_all_is_no_failure() {
    let origin = StreamOrigin::new(true, |request, respond| async move {
        let mut dialog = agree(request, respond);
        dialog.say("bye");
        dialog.end();
        // Dropped with the caller's direction open: the library says NO_ERROR.
    })
    .await;
    let car = TestCar::before(&origin.url());
    let mut caller = Peer::connect(car.address());
    caller.send(ASK);
    caller.response_head();
    assert_eq!(caller.rest().unwrap(), b"bye");
    caller.finish_sending();
    is_websocket(&car.record(), 101, 0, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_lets_a_stream_end_in_its_own_time() {
    let origin = echo();
    let mut car = TestCar::before(&origin.url());
    let sender = connect(car.address()).await;
    let (_, mut dialog) = ask(&sender, open("websocket", URI), "before ").await;
    assert_eq!(dialog.hear(7).await, b"before ");
    car.stop();
    told_to_leave(sender).await;
    dialog.say("after");
    dialog.end();
    assert_eq!(dialog.rest().await.unwrap(), b"after");
    let records = tokio::task::spawn_blocking(|| car.ended()).await.unwrap();
    assert_eq!(records.len(), 1);
    is_websocket(&records[0], 200, 12, 12);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_caller_left_behind_is_delivered_during_a_drain() {
    let release = Arc::new(Notify::new());
    let (released, (heard, hears)) = (release.clone(), channel());
    let origin = StreamOrigin::new(true, move |request, respond| {
        let (released, heard) = (released.clone(), heard.clone());
        async move {
            let mut dialog = agree(request, respond);
            dialog.end();
            released.notified().await;
            heard.send(dialog.rest().await).unwrap();
        }
    })
    .await;
    let mut car = TestCar::before(&origin.url());
    let sender = connect(car.address()).await;
    let (_, mut dialog) = ask(&sender, open("websocket", URI), "").await;
    // More than the service takes before it looks at it, and not so much that its caller is told to go on: it would leave
    // with that unread, which is a reset.
    dialog.say(vec![7; 100_000]);
    dialog.end();
    assert_eq!(dialog.rest().await.unwrap(), b"");
    car.stop();
    told_to_leave(sender).await;
    release.notify_one();
    assert_eq!(hears.recv_timeout(PATIENCE).unwrap().unwrap().len(), 100_000);
    let records = tokio::task::spawn_blocking(|| car.ended()).await.unwrap();
    is_websocket(&records[0], 200, 100_000, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_drain_cuts_a_stream_off_at_its_deadline() {
    let origin = stream_echo().await;
    let mut car = TestCar::before(&origin.url());
    let sender = connect(car.address()).await;
    let (_, mut dialog) = ask(&sender, open("websocket", URI), "hi").await;
    assert_eq!(dialog.hear(2).await, b"hi");
    car.stop();
    told_to_leave(sender).await;
    car.cut();
    let record = car.record();
    assert_eq!((record.outcome, record.response_bytes), (Outcome::Drained, 2));
    assert!(dialog.rest().await.is_err(), "FRM-4");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_websocket_keeps_its_connection_from_being_idle() {
    let origin = echo();
    let car = TestCar::with(&origin.url(), "timeouts: { idle: 1s }", |_| {});
    let sender = connect(car.address()).await;
    let (_, mut dialog) = ask(&sender, open("websocket", URI), "").await;
    let (idle, ended) = connect_and_watch(car.address()).await;
    assert_eq!(get(&idle, "http://shop/").await.1, b"ordinary");
    ended.await;
    dialog.say("x");
    assert_eq!(dialog.hear(1).await, b"x");
    assert_eq!(get(&sender, "http://shop/").await.1, b"ordinary");
}
