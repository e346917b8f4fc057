//! Visits of HTTP/2 without TLS, made of frames.

use super::place::Place;
use crate::support::frames::*;

pub fn ordinary(place: &Place) {
    let mut frames = place.frames();
    for stream in [1, 3, 5] {
        frames.get(stream, &place.path("ok"));
    }
    // They are answered in any order.
    for _ in 0..3 {
        frames.find(|frame| frame.ends_stream() && matches!(frame.kind, HEADERS | DATA));
    }
}

pub fn reset(place: &Place) {
    let mut frames = place.frames();
    frames.get(1, &place.path("silence"));
    place.arrived();
    frames.reset(1);
    frames.get(3, &place.path("ok"));
    assert_eq!(frames.answer(3), 200);
}

pub fn resets(place: &Place) {
    let mut frames = place.frames();
    let request = head("GET", &place.path("quiet"), &[]);
    let cancelled = (1..).step_by(2).take(40).flat_map(|stream| {
        [frame(HEADERS, WHOLE, stream, &request), frame(RST_STREAM, 0, stream, &CANCEL.to_be_bytes())]
    });
    let all: Vec<u8> = cancelled.flatten().collect();
    frames.write(&all);
    frames.get(81, &place.path("ok"));
    assert_eq!(frames.answer(81), 200);
}

pub fn leaves(place: &Place) {
    let mut frames = place.frames();
    let request = head("POST", &place.path("silence"), &[("content-length", "100")]);
    frames.send(HEADERS, END_HEADERS, 1, &request);
    frames.send(DATA, 0, 1, b"half");
    place.arrived();
}

pub fn pings(place: &Place) {
    let mut frames = place.frames();
    for _ in 0..500 {
        frames.send(PING, 0, 0, &[0; 8]);
    }
    frames.get(1, &place.path("ok"));
    assert_eq!(frames.answer(1), 200);
}

pub fn ping_flood(place: &Place) {
    let mut frames = place.frames();
    frames.get(1, &place.path("ok"));
    assert_eq!(frames.answer(1), 200);
    let pings = frame(PING, 0, 0, &[0; 8]).repeat(2000);
    frames.write(&pings);
    while frames.next().is_some() {}
}

pub fn malformed(place: &Place) {
    let mut frames = place.frames();
    frames.send(HEADERS, WHOLE, 1, &head("GET", &place.path("ok"), &[("connection", "close")]));
    assert_eq!(frames.on(RST_STREAM, 1).error(), PROTOCOL_ERROR);
    frames.get(3, &place.path("ok"));
    assert_eq!(frames.answer(3), 200);
}

pub fn garbage(place: &Place) {
    let mut frames = place.frames();
    // There is no content on the connection itself (RFC 9113 section 6.1).
    frames.send(DATA, 0, 0, b"garbage");
    assert_eq!(frames.goaway().1, PROTOCOL_ERROR);
    while frames.next().is_some() {}
}
