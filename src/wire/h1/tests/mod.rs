//! The rules, by tables. What must hold for any bytes is in tests/fuzz/h1.rs, and an example of each rule in
//! tests/corpus/h1.

mod chunks;
mod requests;
mod responses;
mod written;

use bytes::BytesMut;
use http::{HeaderMap, Method};

use super::head::{self, RequestHead, ResponseHead};
use super::{Limits, Refused};

const LIMITS: Limits = Limits { head_bytes: 65_536, lines: 256, target_bytes: 8192 };

/// Reads bytes that are one request head.
fn request(bytes: impl AsRef<[u8]>) -> Result<RequestHead, Refused> {
    let mut read = BytesMut::from(bytes.as_ref());
    let head = head::request(&mut read, &mut 0, &LIMITS)?;
    assert!(read.is_empty(), "the whole head is taken");
    Ok(head.expect("the head is complete"))
}

/// Reads bytes that are one head of a response to a request of that method.
fn answer(method: &Method, bytes: impl AsRef<[u8]>) -> Result<ResponseHead, Refused> {
    let mut read = BytesMut::from(bytes.as_ref());
    let head = head::response(&mut read, &mut 0, &LIMITS, method)?;
    assert!(read.is_empty(), "the whole head is taken");
    Ok(head.expect("the head is complete"))
}

fn response(bytes: impl AsRef<[u8]>) -> Result<ResponseHead, Refused> {
    answer(&Method::GET, bytes)
}

/// The lines of a map, as `name: value`.
fn lines(headers: &HeaderMap) -> Vec<String> {
    headers.iter().map(|(name, value)| format!("{name}: {}", value.as_bytes().escape_ascii())).collect()
}
