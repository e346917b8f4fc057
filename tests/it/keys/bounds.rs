//! Bounds on how much there is at once, and on waits for content.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use super::car::{Car, Key, takes};
use crate::support::PATIENCE;
use crate::support::frames::{self, Frames};
use crate::support::origin::{Origin, Peer};

keys! {
    "timeouts.request_body" => a_caller_that_does_not_go_on_is_told_so,
    "timeouts.response_body" => a_service_that_does_not_go_on_is_given_up,
    "timeouts.response_send" => a_caller_that_does_not_read_is_left,
    "timeouts.stream" => a_request_that_lasts_is_ended,
    "timeouts.tunnel" => a_quiet_tunnel_is_closed,
    "limits.connections" => callers_wait_for_room,
    "limits.requests" => requests_are_refused_when_there_are_too_many,
    "limits.header_bytes" => large_heads_are_refused,
    "limits.headers" => heads_of_many_lines_are_refused,
    "limits.target_bytes" => long_targets_are_refused,
    "limits.http2_streams" => streams_are_refused_when_there_are_too_many,
    "limits.http2_resets" => who_cancels_again_and_again_is_told_to_go,
    "limits.upstream_connections" => requests_wait_for_a_connection,
}

/// Bounds of this kind are looked at once per second: even a moment lasts for up to two.
const A_MOMENT_THEN_LONGER: [&str; 2] = ["50ms", "4s"];

fn lasts(ends: impl FnOnce()) -> bool {
    takes(ends) >= Duration::from_secs(4)
}

fn a_caller_that_does_not_go_on_is_told_so(key: Key) {
    let origin = Origin::new(|peer| {
        peer.head();
        let _ = peer.rest();
    });
    let key = key.word("SLOW", origin.address);
    let see = |car: &mut Car| {
        lasts(|| {
            let mut caller = Peer::connect(car.place.listen);
            caller.send("POST / HTTP/1.1\r\nHost: shop\r\nContent-Length: 9\r\n\r\n");
            assert_eq!(caller.response().status(), 408);
        })
    };
    let yaml = "inbound: [{ listen: 'LISTEN', to: 'http://SLOW' }]\ntimeouts: { request_body: <> }";
    key.live(yaml, A_MOMENT_THEN_LONGER, see, [false, true]);
}

fn a_service_that_does_not_go_on_is_given_up(key: Key) {
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send("HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\npart");
        let _ = peer.rest();
    });
    let key = key.word("SLOW", origin.address);
    let see = |car: &mut Car| {
        lasts(|| {
            let mut caller = Peer::connect(car.place.listen);
            caller.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n");
            caller.head().expect("a head");
            let _ = caller.rest();
        })
    };
    let yaml = "inbound: [{ listen: 'LISTEN', to: 'http://SLOW' }]\ntimeouts: { response_body: <> }";
    key.live(yaml, A_MOMENT_THEN_LONGER, see, [false, true]);
}

fn a_caller_that_does_not_read_is_left(key: Key) {
    let origin =
        Origin::answering(format!("HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n{}", "x".repeat(99)));
    let key = key.word("LARGE", origin.address);
    const INITIAL_WINDOW_SIZE: u16 = 4;
    let see = |car: &mut Car| {
        lasts(|| {
            let mut caller = Frames::connect_with(car.place.listen, &[(INITIAL_WINDOW_SIZE, 0)]);
            caller.get(1, "/");
            caller.on(frames::RST_STREAM, 1);
        })
    };
    let yaml = "inbound: [{ listen: 'LISTEN', to: 'http://LARGE' }]\ntimeouts: { response_send: <> }";
    key.live(yaml, A_MOMENT_THEN_LONGER, see, [false, true]);
}

fn a_request_that_lasts_is_ended(key: Key) {
    let origin = Origin::new(|peer| {
        peer.request();
        let _ = peer.rest();
    });
    let key = key.word("SLOW", origin.address);
    let see = |car: &mut Car| takes(|| assert_eq!(car.ask("/", "").status(), 504)) >= Duration::from_secs(1);
    let yaml = "inbound: [{ listen: 'LISTEN', to: 'http://SLOW' }]\ntimeouts: { stream: <> }";
    key.live(yaml, ["50ms", "1s"], see, [false, true]);
}

fn a_quiet_tunnel_is_closed(key: Key) {
    let origin = Origin::new(|peer| {
        peer.request();
        peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n");
        let _ = peer.rest();
    });
    let key = key.word("CHAT", origin.address);
    let see = |car: &mut Car| {
        let mut caller = Peer::connect(car.place.listen);
        caller.send("GET / HTTP/1.1\r\nHost: shop\r\nConnection: upgrade\r\nUpgrade: chat\r\n\r\n");
        caller.head().expect("a head");
        takes(|| drop(caller.rest())) >= Duration::from_millis(900)
    };
    let yaml = "inbound: [{ listen: 'LISTEN', to: 'http://CHAT' }]\ntimeouts: { tunnel: <> }";
    key.live(yaml, ["50ms", "1s"], see, [false, true]);
}

fn callers_wait_for_room(key: Key) {
    let see = |car: &mut Car| {
        // Whoever was there before may not be gone yet, so it takes its time.
        let mut first = Peer::connect(car.place.listen);
        first.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n");
        first.response();
        let mut second = Peer::connect(car.place.listen);
        second.send("GET / HTTP/1.1\r\nHost: shop\r\n\r\n");
        second.stream.set_read_timeout(Some(Duration::from_millis(300))).expect("a TCP socket");
        second.head().is_some()
    };
    key.live_in_time("limits: { connections: <> }", ["2", "1"], see, [true, false]);
}

fn requests_are_refused_when_there_are_too_many(key: Key) {
    let (arrived, arrives) = channel();
    let arrived = Mutex::new(arrived);
    let origin = Origin::new(move |peer| {
        while peer.request().is_some_and(|asked| asked.head.starts_with("GET /ask")) {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
        let _ = arrived.lock().unwrap().send(());
        let _ = peer.rest();
    });
    let key = key.word("SLOW", origin.address);
    let see = |car: &mut Car| {
        let mut under_way = Peer::connect(car.place.listen);
        under_way.send("GET /rests HTTP/1.1\r\nHost: shop\r\n\r\n");
        arrives.recv_timeout(PATIENCE).expect("it arrives");
        let status = car.ask("/ask", "").status();
        under_way.reset();
        // The next look should not find it under way.
        super::car::until("it has ended", || car.metrics().count("tracecar_requests_active") == 0);
        status
    };
    let yaml = "inbound: [{ listen: 'LISTEN', to: 'http://SLOW' }]\nlimits: { requests: <> }";
    key.live(yaml, ["0", "1"], see, [200, 503]);
}

/// The status of the answer to a request with these further fields.
fn asked(car: &Car, path: &str, further: &[(&str, &str)]) -> u16 {
    let mut caller = Frames::connect(car.place.listen);
    caller.send(frames::HEADERS, frames::WHOLE, 1, &frames::head("GET", path, further));
    caller.on(frames::HEADERS, 1).status()
}

fn large_heads_are_refused(key: Key) {
    let see = |car: &mut Car| asked(car, "/", &[("x-large", &"x".repeat(3000))]);
    key.live("limits: { header_bytes: <> }", ["4KiB", "2KiB"], see, [200, 431]);
}

fn heads_of_many_lines_are_refused(key: Key) {
    let see = |car: &mut Car| asked(car, "/", &[("x-many", "1"); 20]);
    key.live("limits: { headers: <> }", ["20", "19"], see, [200, 431]);
}

fn long_targets_are_refused(key: Key) {
    let see = |car: &mut Car| asked(car, &format!("/{}", "a".repeat(511)), &[]);
    key.live("limits: { target_bytes: <> }", ["512B", "511B"], see, [200, 414]);
}

fn streams_are_refused_when_there_are_too_many(key: Key) {
    let see = |car: &mut Car| {
        let mut caller = Frames::connect(car.place.listen);
        const MAX_CONCURRENT_STREAMS: [u8; 2] = [0, 3];
        let settings = caller.on(frames::SETTINGS, 0).payload;
        let bound = settings.chunks(6).find(|setting| setting[..2] == MAX_CONCURRENT_STREAMS);
        bound.map(|setting| setting[5])
    };
    key.live("limits: { http2_streams: <> }", ["100", "10"], see, [Some(100), Some(10)]);
}

fn who_cancels_again_and_again_is_told_to_go(key: Key) {
    let origin = Origin::new(|peer| {
        peer.request();
        let _ = peer.rest();
    });
    let key = key.word("SLOW", origin.address);
    let see = |car: &mut Car| {
        let mut caller = Frames::connect(car.place.listen);
        for stream in [1, 3, 5] {
            caller.get(stream, "/");
            caller.reset(stream);
        }
        caller.send(frames::PING, 0, 0, b"are you?");
        let ping = |frame: &frames::Frame| frame.kind == frames::PING && frame.flags == frames::ACK;
        caller.find(|frame| frame.kind == frames::GOAWAY || ping(frame)).kind == frames::GOAWAY
    };
    let yaml = "inbound: [{ listen: 'LISTEN', to: 'http://SLOW' }]\nlimits: { http2_resets: <> }";
    key.live(yaml, ["0", "2"], see, [false, true]);
}

fn requests_wait_for_a_connection(key: Key) {
    let (arrived, arrives) = channel();
    let arrived = Mutex::new(arrived);
    let origin = Origin::new(move |peer| {
        while peer.request().is_some_and(|asked| asked.head.starts_with("GET /ask")) {
            peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
        }
        let _ = arrived.lock().unwrap().send(());
        let _ = peer.rest();
    });
    let key = key.word("SLOW", origin.address);
    let see = |car: &mut Car| {
        let mut under_way = Peer::connect(car.place.listen);
        under_way.send("GET /rests HTTP/1.1\r\nHost: shop\r\n\r\n");
        arrives.recv_timeout(PATIENCE).expect("it arrives");
        let status = car.ask("/ask", "").status();
        under_way.reset();
        super::car::until("it has ended", || car.metrics().count("tracecar_requests_active") == 0);
        status
    };
    let yaml = "inbound: [{ listen: 'LISTEN', to: 'http://SLOW' }]\ntimeouts: { connect: 300ms }\n\
                limits: { upstream_connections: <> }";
    key.live(yaml, ["2", "1"], see, [200, 503]);
}
