//! Visits of gRPC, made of frames.

use std::net::SocketAddr;

use super::place::Place;
use crate::support::frames::*;

const MESSAGE: &[u8] = b"\0\0\0\0\x02hi";

/// Begins a call, and says `flags` with its first message.
fn begin(place: &Place, service: &str, flags: u8) -> Frames {
    begin_at(place.doors.grpc, place, service, flags)
}

fn begin_at(to: SocketAddr, place: &Place, service: &str, flags: u8) -> Frames {
    let mut frames = Frames::connect(to);
    let path = format!("/soak.{service}/{}", place.visit.get());
    let caller = place.number.to_string();
    let fields = [("content-type", "application/grpc"), ("te", "trailers"), ("x-caller", &caller)];
    frames.send(HEADERS, END_HEADERS, 1, &head("POST", &path, &fields));
    frames.send(DATA, flags, 1, MESSAGE);
    frames
}

pub fn stream(place: &Place) {
    assert_eq!(begin(place, "Stream", END_STREAM).answer(1), 200);
}

pub fn talk(place: &Place) {
    let mut frames = begin(place, "Talk", 0);
    frames.on(HEADERS, 1);
    for _ in 0..9 {
        assert_eq!(frames.on(DATA, 1).payload, MESSAGE);
        frames.send(DATA, 0, 1, MESSAGE);
    }
    frames.send(DATA, END_STREAM, 1, b"");
    frames.find(|frame| frame.stream == 1 && frame.kind == HEADERS && frame.ends_stream());
}

pub fn fail(place: &Place) {
    assert_eq!(begin(place, "Fail", END_STREAM).answer(1), 200);
}

pub fn refuse(place: &Place) {
    assert_eq!(begin(place, "Refuse", END_STREAM).answer(1), 200);
}

pub fn reset(place: &Place) {
    let mut frames = begin(place, "Reset", END_STREAM);
    frames.find(|frame| frame.stream == 1 && (frame.kind == RST_STREAM || frame.ends_stream()));
}

pub fn cancel(place: &Place) {
    let mut frames = begin(place, "Wait", 0);
    frames.on(DATA, 1);
    place.arrived();
    frames.reset(1);
}

pub fn lose(place: &Place) {
    assert_eq!(begin_at(place.doors.losing, place, "Lose", END_STREAM).answer(1), 200);
}
