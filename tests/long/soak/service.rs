//! The services of the soak: each does what the path of a request says.
//!
//! One speaks HTTP/1 and keeps to no rule, one speaks gRPC over HTTP/2, and one dies and comes back all the time.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use bytes::Bytes;
use h2::Reason;
use h2::server::SendResponse;
use http::{HeaderMap, Request, Response};
use socket2::{Domain, SockRef, Socket, Type};

use super::BIG;
use crate::support::origin::{Nowhere, Peer};

/// For how long the service that dies is there, and for how long it is not.
const THERE: Duration = Duration::from_millis(700);
const AWAY: Duration = Duration::from_millis(300);

/// Tells a caller that its request has come through.
pub type Arrived = Arc<dyn Fn(usize) + Send + Sync>;

/// The service of HTTP/1. A path is what to do, whose request it is, and which visit it belongs to.
pub fn serve(peer: &mut Peer, arrived: &Arrived) {
    while let Some(head) = peer.head() {
        let mut words = head.split(' ').nth(1).unwrap_or_default().split('/').skip(1);
        let (what, caller) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        let caller = caller.parse().unwrap_or_default();
        match what {
            "upload" => {
                if head.to_ascii_lowercase().contains("expect: 100-continue") {
                    peer.send("HTTP/1.1 100 Continue\r\n\r\n");
                }
                match head.to_ascii_lowercase().contains("transfer-encoding: chunked") {
                    true => drop(peer.chunks()),
                    false => drop(peer.exactly(length(&head))),
                }
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
            }
            "download" => {
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {BIG}\r\n\r\n"));
                peer.send(vec![b'x'; BIG]);
            }
            "flood" => {
                peer.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 16 * BIG));
                (0..16).for_each(|_| peer.send(vec![b'x'; BIG]));
            }
            "events" => {
                peer.send(
                    "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n",
                );
                (0..10).for_each(|_| peer.send("9\r\ndata: 1\n\n\r\n"));
                peer.send("0\r\n\r\n");
            }
            "hints" => {
                peer.send("HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\n\r\n");
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
            }
            "trailers" => {
                peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: x-sum\r\n\r\n");
                peer.send("2\r\nok\r\n0\r\nx-sum: 7\r\n\r\n");
            }
            "failure" => {
                let text = "{\"error\": \"out of stock\"}";
                let head =
                    "HTTP/1.1 500 Internal Server Error\r\nContent-Type: application/json\r\nContent-Length";
                peer.send(format!("{head}: {}\r\n\r\n{text}", text.len()));
            }
            "upgrade" => {
                peer.send("HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: echo\r\n\r\n");
                while let Some(line) = peer.line() {
                    peer.send(line);
                }
                return;
            }
            "websocket" => {
                peer.send(
                    "HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
                );
                // One message is one line here.
                while peer.line().is_some() {
                    peer.send(b"\x81\x03hi\n");
                }
                return;
            }
            "silence" => {
                arrived(caller);
                let _ = peer.rest();
                return;
            }
            "quiet" => {
                let _ = peer.rest();
                return;
            }
            "half" => {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
                let _ = peer.rest();
                return;
            }
            "reset" => {
                SockRef::from(&peer.stream).set_linger(Some(Duration::ZERO)).expect("a TCP socket");
                return;
            }
            "break" => {
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf");
                return;
            }
            "truncated" => {
                peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhe");
                return;
            }
            "mangled" => {
                peer.send("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\nzz\r\n");
                let _ = peer.rest();
                return;
            }
            "garbage" => {
                peer.send("\u{7}\u{7} is no status line\r\n\r\n");
                let _ = peer.rest();
                return;
            }
            _ => peer.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"),
        }
    }
}

fn length(head: &str) -> usize {
    let head = head.to_ascii_lowercase();
    let value = head.lines().find_map(|line| line.strip_prefix("content-length:"));
    value.and_then(|value| value.trim().parse().ok()).unwrap_or_default()
}

/// A service of gRPC, on the runtime around this. `/soak.Stream/…` answers with ten messages; the other names are in
/// [`call`].
pub async fn grpc(arrived: Arrived) -> SocketAddr {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
    let address = listener.local_addr().expect("it is bound");
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let arrived = arrived.clone();
            tokio::spawn(async move {
                // How a connection ends is the proxy's story.
                let Ok(mut connection) = h2::server::handshake(stream).await else { return };
                while let Some(Ok((request, respond))) = connection.accept().await {
                    if request.uri().path().starts_with("/soak.Lose/") {
                        return;
                    }
                    tokio::spawn(call(request, respond, arrived.clone()));
                }
            });
        }
    });
    address
}

/// One call. What cannot be sent has nobody who waits for it.
async fn call(
    request: Request<h2::RecvStream>,
    mut respond: SendResponse<Bytes>,
    arrived: Arrived,
) -> Option<()> {
    let mut words = request.uri().path().split('/').skip(1);
    let what = words.next()?.to_owned();
    let caller = request.headers().get("x-caller").and_then(|value| value.to_str().ok()?.parse().ok())?;
    let mut content = request.into_body();
    let head = Response::builder().header("content-type", "application/grpc").body(()).ok()?;
    let message = || Bytes::from_static(b"\0\0\0\0\x02hi");
    let trailers =
        |status: u32| HeaderMap::from_iter([("grpc-status".parse().expect("a name"), status.into())]);
    match what.as_str() {
        "soak.Refuse" => {
            let (mut head, ()) = head.into_parts();
            head.headers.extend(trailers(7));
            respond.send_response(Response::from_parts(head, ()), true).ok()?;
        }
        "soak.Stream" | "soak.Fail" => {
            let mut stream = respond.send_response(head, false).ok()?;
            for _ in 0..10 {
                stream.send_data(message(), false).ok()?;
            }
            stream.send_trailers(trailers(if what == "soak.Fail" { 13 } else { 0 })).ok()?;
        }
        "soak.Talk" => {
            // Each message is answered as it comes.
            let mut stream = respond.send_response(head, false).ok()?;
            while let Some(Ok(data)) = content.data().await {
                content.flow_control().release_capacity(data.len()).ok()?;
                // The last is empty. h2 ends a connection on which a hundred such came, and there is one for all calls.
                if !data.is_empty() {
                    stream.send_data(data, false).ok()?;
                }
            }
            stream.send_trailers(trailers(0)).ok()?;
        }
        "soak.Reset" => {
            let mut stream = respond.send_response(head, false).ok()?;
            stream.send_data(message(), false).ok()?;
            // It may overtake all of that.
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        "soak.Wait" => {
            let mut stream = respond.send_response(head, false).ok()?;
            stream.send_data(message(), false).ok()?;
            arrived(caller);
            std::future::poll_fn(|cx| stream.poll_reset(cx)).await.ok()?;
        }
        other => panic!("{other} is no method"),
    }
    Some(())
}

/// A service that answers slowly, dies with all of its connections, and comes back at the same place.
pub struct Dying {
    pub address: SocketAddr,
    stop: Arc<AtomicBool>,
    life: Option<JoinHandle<()>>,
}

impl Dying {
    pub fn new() -> Self {
        // A port that was asked for by its number stays bound while nobody listens; one that was any is lost.
        let address = Nowhere::new().address;
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor is free");
        // Connections of an earlier life do not keep the next from listening.
        socket.set_reuse_address(true).expect("a TCP socket");
        socket.bind(&address.into()).expect("nobody took the port in this moment");
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let life = std::thread::spawn(move || {
            while !stopped.load(Ordering::Relaxed) {
                live(&socket);
                std::thread::sleep(AWAY);
            }
        });
        Self { address, stop, life: Some(life) }
    }
}

impl Drop for Dying {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        self.life.take().map(JoinHandle::join);
    }
}

/// One life. The port stays bound between two, so that nobody else gets it.
fn live(socket: &Socket) {
    let open = Arc::new(Mutex::new(Vec::<TcpStream>::new()));
    socket.listen(128).expect("it is bound");
    let listener: TcpListener = socket.try_clone().expect("a descriptor is free").into();
    let accepted = open.clone();
    let accepting = std::thread::spawn(move || {
        while let Ok((stream, _)) = listener.accept() {
            let known = stream.try_clone().expect("a descriptor is free");
            accepted.lock().expect("nobody panics with it").push(known);
            std::thread::spawn(move || {
                let mut peer = Peer::new(stream);
                while peer.head().is_some() {
                    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nsl");
                    std::thread::sleep(Duration::from_millis(5));
                    peer.send("ow");
                }
            });
        }
    });
    std::thread::sleep(THERE);
    // A socket that listens no more refuses, and ends whoever waits to accept.
    let _ = socket.shutdown(std::net::Shutdown::Both);
    accepting.join().expect("it only accepts");
    for stream in open.lock().expect("nobody panics with it").drain(..) {
        let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
        let _ = stream.shutdown(std::net::Shutdown::Both);
    }
}
