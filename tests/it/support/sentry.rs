//! A Sentry that takes what it is sent, and tells a test.

use std::io::Read;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use flate2::read::GzDecoder;
use serde_json::Value;

use super::PATIENCE;
use super::origin::{Message, Origin};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}";

/// Listens for as long as the process lives.
pub struct Sentry {
    origin: Origin,
    items: Receiver<Item>,
}

/// What was in an envelope.
#[derive(Debug)]
pub struct Item {
    /// `event` or `transaction`.
    pub kind: String,
    pub json: Value,
    /// The request that brought it.
    pub path: String,
    pub auth: String,
}

impl Item {
    /// Type and value of the exception: what the title is made of.
    pub fn title(&self) -> (&str, &str) {
        let exception = &self.json["exception"]["values"][0];
        let text = |name: &str| exception[name].as_str().unwrap_or_default();
        (text("type"), text("value"))
    }

    /// A tag; empty where there is none.
    pub fn tag(&self, name: &str) -> &str {
        self.json["tags"][name].as_str().unwrap_or_default()
    }
}

impl Sentry {
    pub fn new() -> Self {
        Self::answering(OK)
    }

    /// The same, which says something else to each envelope.
    pub fn answering(answer: &'static str) -> Self {
        let (sender, items) = channel();
        let origin = Origin::new(move |peer| {
            while let Some(request) = peer.request() {
                let item = read(&request);
                peer.send(answer);
                let _ = sender.send(item);
            }
        });
        Self { origin, items }
    }

    /// The same, which answers an envelope when the test says so. Once nobody can say so any more, it answers at once.
    pub fn held() -> (Self, Sender<()>) {
        let (sender, items) = channel();
        let (release, released) = channel();
        let released = Mutex::new(released);
        let origin = Origin::new(move |peer| {
            while let Some(request) = peer.request() {
                let _ = sender.send(read(&request));
                let _ = released.lock().expect("nobody panics").recv();
                peer.send(OK);
            }
        });
        (Self { origin, items }, release)
    }

    pub fn dsn(&self) -> String {
        format!("http://public@{}/7", self.origin.address)
    }

    /// The next event or transaction.
    pub fn next(&self) -> Item {
        self.items.recv_timeout(PATIENCE).expect("something is told")
    }

    /// The next event.
    pub fn event(&self) -> Item {
        loop {
            let item = self.next();
            if item.kind == "event" {
                return item;
            }
        }
    }

    /// What has come already.
    pub fn come(&self) -> Option<Item> {
        self.items.try_recv().ok()
    }
}

fn read(request: &Message) -> Item {
    let mut text = String::new();
    match request.header("content-encoding") {
        Some("gzip") => {
            GzDecoder::new(&*request.body).read_to_string(&mut text).expect("it is packed well");
        }
        _ => text = request.text(),
    }
    let mut lines = text.lines();
    let _envelope = lines.next().expect("an envelope has a head");
    let head: Value = serde_json::from_str(lines.next().expect("there is an item")).expect("it is JSON");
    let json = serde_json::from_str(lines.next().expect("it has content")).expect("it is JSON");
    Item {
        kind: head["type"].as_str().expect("an item has a type").to_owned(),
        json,
        path: request.head.split(' ').nth(1).unwrap_or_default().to_owned(),
        auth: request.header("x-sentry-auth").unwrap_or_default().to_owned(),
    }
}
