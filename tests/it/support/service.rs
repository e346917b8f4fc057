//! The service beside the sidecar, whose part the test plays: requests to it wait, and the test makes its calls.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex};

use super::PATIENCE;
use super::car::TestCar;
use super::origin::{Message, Origin, Peer};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// A service that answers each request when the test says so.
pub struct Service {
    origin: Origin,
    asked: Receiver<(Message, Sender<()>)>,
}

/// A request that the service works on.
pub struct Work {
    /// What the service was sent.
    pub asked: Message,
    caller: Peer,
    answer: Sender<()>,
}

impl Service {
    pub fn new() -> Self {
        let (asks, asked) = channel();
        let asks = Mutex::new(asks);
        let origin = Origin::new(move |peer| {
            while let Some(request) = peer.request() {
                let (answer, told) = channel();
                // The test may be over.
                let _ = asks.lock().unwrap().send((request, answer));
                let _ = told.recv();
                peer.send(OK);
            }
        });
        Self { origin, asked }
    }

    pub fn url(&self) -> String {
        self.origin.url()
    }

    /// A request to the service, which works on it from now on. `headers` are whole lines.
    pub fn work(&self, car: &TestCar, path: &str, headers: &str) -> Work {
        let mut caller = Peer::connect(car.address());
        caller.send(format!("GET {path} HTTP/1.1\r\nHost: under-test\r\n{headers}\r\n"));
        let (asked, answer) = self.asked.recv_timeout(PATIENCE).expect("the request arrives");
        Work { asked, caller, answer }
    }
}

impl Work {
    /// The service answers. Returns what the caller got.
    pub fn done(mut self) -> Message {
        self.answer.send(()).expect("the service waits");
        self.caller.response()
    }
}

/// A destination that answers every request with `response`, and what it is asked.
pub fn destination(response: impl Into<Vec<u8>>) -> (Origin, Receiver<Message>) {
    let response = response.into();
    let (asks, asked) = channel();
    let asks = Arc::new(Mutex::new(asks));
    let origin = Origin::new(move |peer| {
        while let Some(request) = peer.request() {
            let _ = asks.lock().unwrap().send(request);
            peer.send(&response);
        }
    });
    (origin, asked)
}

/// A call of the service through the forward proxy: `GET` of a full URL, with whole lines of further headers.
pub fn call(proxy: SocketAddr, url: &str, headers: &str) -> Message {
    let mut service = Peer::connect(proxy);
    service.send(format!("GET {url} HTTP/1.1\r\nHost: claimed\r\n{headers}\r\n"));
    service.response()
}
