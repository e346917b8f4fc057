//! The program stops, or one of its listeners goes away: what is under way finishes, and who comes next is told.

use std::sync::Mutex;
use std::sync::mpsc::{Sender, channel};
use std::time::{Duration, Instant};

use crate::support::PATIENCE;
use crate::support::frames::{ACK, DATA, Frame, Frames, HEADERS, PING};
use crate::support::origin::{Origin, Peer};
use crate::support::program::{File, Program, Start};

const UPGRADE: &str = "GET /chat HTTP/1.1\r\nHost: s\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n";

/// A service with a chat that says again what it hears, and a stream whose end comes when the test says so.
fn service() -> (Origin, Sender<()>) {
    let (end, ends) = channel::<()>();
    let ends = Mutex::new(ends);
    let origin = Origin::new(move |peer| {
        while let Some(asked) = peer.request() {
            if asked.head.starts_with("GET /chat ") {
                peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: chat\r\n\r\n");
                while let Some(line) = peer.line() {
                    peer.send(line);
                }
                return;
            }
            peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\npart\r\n");
            let _ = ends.lock().unwrap().recv_timeout(PATIENCE);
            peer.send("3\r\nend\r\n0\r\n\r\n");
        }
    });
    (origin, end)
}

/// A file for a sidecar with these listeners.
fn text(listen: &[&str], upstream: &str, more: &str) -> String {
    let inbound: Vec<_> =
        listen.iter().map(|address| format!("{{ listen: '{address}:0', to: '{upstream}' }}")).collect();
    let inbound = inbound.join(", ");
    format!(
        "service: {{ name: under-test }}\ninbound: [{inbound}]\nadmin: {{ listen: '127.0.0.1:0' }}\n{more}\n"
    )
}

fn start(file: &File) -> Program {
    Start::new(["run", "--config", file.name()]).run()
}

/// One of each at `address`: a stream over HTTP/2 and over HTTP/1, and a chat.
fn under_way(address: std::net::SocketAddr) -> (Frames, Peer, Peer) {
    let mut http2 = Frames::connect(address);
    http2.get(1, "/stream");
    assert_eq!(http2.on(HEADERS, 1).status(), 200);
    assert_eq!(http2.on(DATA, 1).payload, b"part");
    let mut http1 = Peer::connect(address);
    http1.send("GET /stream HTTP/1.1\r\nHost: s\r\n\r\n");
    http1.head().expect("a head");
    assert_eq!(http1.exactly(9), b"4\r\npart\r\n");
    let mut chat = Peer::connect(address);
    chat.send(UPGRADE);
    assert!(chat.head().expect("a head").starts_with("HTTP/1.1 101 "));
    (http2, http1, chat)
}

/// RFC 9113 section 6.8: first nobody is turned away, then the real last stream is named.
fn is_told_twice(http2: &mut Frames) {
    assert_eq!(http2.goaway(), (0x7fff_ffff, 0));
    let ping = http2.find(|frame| frame.kind == PING && frame.flags & ACK == 0);
    http2.send(PING, ACK, 0, &ping.payload);
    assert_eq!(http2.goaway(), (1, 0));
}

fn finish((http2, http1): (&mut Frames, &mut Peer), end: &Sender<()>) {
    for _ in 0..2 {
        end.send(()).expect("the service waits");
    }
    assert_eq!(http2.on(DATA, 1).payload, b"end");
    if let Some(last) = http2.next() {
        assert!(last.ends_stream(), "{last:?}");
        assert_eq!(http2.next(), None, "the connection ends");
    }
    assert_eq!(http1.chunks().as_deref(), Some(&b"end"[..]));
    assert_eq!(http1.rest().unwrap_or_default(), b"", "the connection ends");
}

fn echoes(chat: &mut Peer) {
    chat.send("still there?\n");
    assert_eq!(chat.line().as_deref(), Some("still there?\n"));
}

#[test]
fn on_sigterm_streams_finish_and_tunnels_live_until_the_deadline() {
    let (origin, end) = service();
    let file = File::new(&text(&["127.0.0.1"], &origin.url(), "runtime: { drain: 3s }"));
    let program = start(&file);
    let (mut http2, mut http1, mut chat) = under_way(program.address);
    let begun = Instant::now();
    program.terminate();
    is_told_twice(&mut http2);
    finish((&mut http2, &mut http1), &end);
    echoes(&mut chat);
    assert!(begun.elapsed() < Duration::from_secs(3), "none of that has waited for the deadline");
    let _ = chat.rest();
    assert!(begun.elapsed() >= Duration::from_secs(3), "{:?}", begun.elapsed());
    assert_eq!(program.ended().code(), Some(0));
}

#[test]
fn where_a_listener_goes_away_streams_finish_and_tunnels_live_on() {
    let (origin, end) = service();
    let file = File::new(&text(&["127.0.0.1", "127.0.0.2"], &origin.url(), "runtime: { drain: 1s }"));
    let program = start(&file);
    let (mut http2, mut http1, mut chat) = under_way(program.address);
    std::fs::write(&file.path, text(&["127.0.0.2"], &origin.url(), "runtime: { drain: 1s }")).unwrap();
    let mut admin = Peer::connect(program.admin);
    admin.send("POST /-/reload HTTP/1.1\r\nHost: localhost\r\nContent-Length: 0\r\n\r\n");
    assert_eq!(admin.response().status(), 200);
    is_told_twice(&mut http2);
    finish((&mut http2, &mut http1), &end);
    // Nobody is in a hurry: the time of a drain is for the end of the program.
    std::thread::sleep(Duration::from_millis(1500));
    echoes(&mut chat);
}

#[test]
fn a_caller_that_never_answers_the_first_goaway_does_not_hold_the_program_up() {
    let (origin, end) = service();
    drop(end);
    let file = File::new(&text(&["127.0.0.1"], &origin.url(), "runtime: { drain: 1m }"));
    let program = start(&file);
    let mut http2 = Frames::connect(program.address);
    http2.get(1, "/stream");
    http2.find(Frame::ends_stream);
    program.terminate();
    // No PING is answered from now on.
    assert_eq!(program.ended().code(), Some(0));
}
