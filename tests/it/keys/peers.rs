//! Whom the program stands between: the service, another that is called, and those who ask them.

use std::net::{SocketAddr, TcpStream};
use std::sync::LazyLock;

use tokio::runtime::Runtime;

use crate::support::origin::{Message, Origin, Peer};

/// Where the asynchronous peers of these tests live.
pub static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("threads can be started"));

/// The service beside the program: answers with the head of what it is asked. `/status/503` is answered so; for `/cause` it
/// makes a call to [`FAR`] first, through the proxy that `X-Through` names, with the header `X-With` and the same content.
pub static SERVICE: LazyLock<Origin> = LazyLock::new(|| {
    Origin::new(|peer| {
        while let Some(request) = peer.request() {
            if request.head.starts_with("POST /cause ") {
                cause(&request);
            }
            echo(peer, &request);
        }
    })
});

/// A service that is called, and does the same.
pub static FAR: LazyLock<Origin> = LazyLock::new(|| {
    Origin::new(|peer| {
        while let Some(request) = peer.request() {
            echo(peer, &request);
        }
    })
});

/// Sends a request to whoever listens there.
pub fn ask(address: SocketAddr, method: &str, path: &str, headers: &str) -> Message {
    let mut peer = Peer::connect(address);
    peer.send(format!("{method} {path} HTTP/1.1\r\nHost: shop\r\n{headers}\r\n"));
    peer.response()
}

/// Whether a request is answered there. A listener that is about to close may leave it without an answer.
pub fn serves(address: SocketAddr, target: &str) -> bool {
    let Ok(stream) = TcpStream::connect(address) else { return false };
    let mut peer = Peer::new(stream);
    peer.send(format!("GET {target} HTTP/1.1\r\nHost: shop\r\n\r\n"));
    peer.head().is_some_and(|head| head.starts_with("HTTP/1.1 200 "))
}

/// The request that [`SERVICE`] or [`FAR`] has answered.
pub fn echoed(answer: &Message) -> Message {
    Message { head: answer.text(), body: Vec::new() }
}

fn echo(peer: &mut Peer, request: &Message) {
    let path = request.head.split(' ').nth(1).unwrap_or_default();
    let status = path.strip_prefix("/status/").unwrap_or("200");
    let head = &request.head;
    peer.send(format!("HTTP/1.1 {status} Said\r\nContent-Length: {}\r\n\r\n{head}", head.len()));
}

fn cause(request: &Message) {
    let said = |name| request.header(name).expect("it is told");
    let mut peer = Peer::connect(said("x-through").parse().expect("an address"));
    let far = FAR.address;
    peer.send(format!(
        "POST http://{far}/caused HTTP/1.1\r\nHost: {far}\r\n{}\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n",
        said("x-with"),
        request.body.len()
    ));
    peer.send(&request.body);
    assert_eq!(peer.response().status(), 200);
}
