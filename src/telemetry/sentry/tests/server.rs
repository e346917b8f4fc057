//! A Sentry in the test's own process: a socket that answers as it is told, and keeps what it is sent.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::task::{JoinHandle, JoinSet};

/// What to do with one request. Without a script all are taken.
pub(super) enum Reply {
    /// This status, these headers and this text.
    Http(u16, Vec<(&'static str, &'static str)>, &'static str),
    /// The connection is closed once it is answered with 200.
    TakeAndClose,
    /// Nothing, for ever.
    Silence,
    /// The connection is closed instead.
    Close,
}

/// One request, as it arrived.
pub(super) struct Received {
    pub(super) path: String,
    pub(super) headers: HeaderMap,
    /// Which connection it came on, counted from 1.
    pub(super) connection: usize,
    /// The three lines of the envelope.
    pub(super) head: Value,
    pub(super) item: Value,
    pub(super) payload: Value,
}

/// A running server; dropping it closes its socket and all its connections.
pub(super) struct Server {
    pub(super) address: SocketAddr,
    script: Arc<Mutex<VecDeque<Reply>>>,
    received: mpsc::UnboundedReceiver<Received>,
    task: JoinHandle<()>,
}

impl Server {
    pub(super) async fn start(script: impl IntoIterator<Item = Reply>) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let script = Arc::new(Mutex::new(script.into_iter().collect::<VecDeque<_>>()));
        let (sender, received) = mpsc::unbounded_channel();
        let task = tokio::spawn(serve(listener, Arc::clone(&script), sender));
        Self { address, script, received, task }
    }

    /// What to do with the next requests.
    pub(super) fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.script.lock().unwrap().extend(replies);
    }

    /// The next request, whatever was answered to it. It is looked for without a rest: where time is paused, it passes as
    /// soon as nobody is busy, and sockets do not count.
    pub(super) async fn next(&mut self) -> Received {
        loop {
            match self.next_now() {
                Some(received) => return received,
                None => tokio::task::yield_now().await,
            }
        }
    }

    /// The next request, if it is here already.
    pub(super) fn next_now(&mut self) -> Option<Received> {
        self.received.try_recv().ok()
    }

    /// Closes the socket and all connections, and waits until that is done.
    pub(super) async fn stop(mut self) {
        self.task.abort();
        // That it was aborted is no news.
        let _ = (&mut self.task).await;
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.task.abort();
    }
}

/// Answers with the head of 200, and never with the rest.
pub(super) async fn head_only() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        let mut open = Vec::new();
        while let Ok((mut stream, _)) = listener.accept().await {
            let _ = stream.read(&mut [0; 1024]).await;
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n").await;
            open.push(stream);
        }
    });
    address
}

/// Answers the first connection with bytes that are no HTTP.
pub(super) async fn garbage() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            // The client may leave before it has read all of it.
            let _ = stream.write_all(b"\x16\x03\x01 I am no HTTP server\r\n\r\n").await;
        }
    });
    address
}

async fn serve(
    listener: TcpListener,
    script: Arc<Mutex<VecDeque<Reply>>>,
    received: mpsc::UnboundedSender<Received>,
) {
    // Goes down with this task, and so do the connections.
    let mut connections = JoinSet::new();
    for connection in 1.. {
        let (stream, _) = listener.accept().await.unwrap();
        connections.spawn(converse(stream, connection, Arc::clone(&script), received.clone()));
    }
}

async fn converse(
    stream: TcpStream,
    connection: usize,
    script: Arc<Mutex<VecDeque<Reply>>>,
    received: mpsc::UnboundedSender<Received>,
) {
    let (hang_up, mut hung_up) = mpsc::unbounded_channel::<()>();
    let service = service_fn(move |request: Request<Incoming>| {
        let (script, received, hang_up) = (Arc::clone(&script), received.clone(), hang_up.clone());
        async move {
            let seen = read(request, connection).await;
            let reply = script.lock().unwrap().pop_front();
            // A test that is over does not listen any more.
            let _ = received.send(seen);
            let response = |status, headers: Vec<_>, body: &'static str| {
                let response = Response::builder().status(status);
                let response = headers
                    .into_iter()
                    .fold(response, |response, (name, value): (&str, &str)| response.header(name, value));
                Ok::<_, Infallible>(response.body(Full::new(Bytes::from_static(body.as_bytes()))).unwrap())
            };
            match reply.unwrap_or(Reply::Http(200, Vec::new(), "{\"id\":\"x\"}")) {
                Reply::Http(status, headers, body) => response(status, headers, body),
                Reply::TakeAndClose => response(200, vec![("connection", "close")], ""),
                Reply::Silence => std::future::pending().await,
                Reply::Close => {
                    let _ = hang_up.send(());
                    std::future::pending().await
                }
            }
        }
    });
    tokio::select! {
        // How it ended is the client's story.
        _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service) => {}
        _ = hung_up.recv() => {}
    }
}

async fn read(request: Request<Incoming>, connection: usize) -> Received {
    let (parts, body) = request.into_parts();
    let mut body = body.collect().await.map(|body| body.to_bytes().to_vec()).unwrap_or_default();
    if parts.headers.get("content-encoding").is_some_and(|coding| coding == "gzip") {
        let mut plain = Vec::new();
        GzDecoder::new(&body[..]).read_to_end(&mut plain).unwrap();
        body = plain;
    }
    let text = String::from_utf8(body).expect("envelopes are UTF-8 (SEN-3)");
    let mut lines = text.lines();
    let payload = text.lines().nth(2).unwrap_or_default();
    let mut json = || serde_json::from_str::<Value>(lines.next().expect("a line")).expect("JSON");
    let (head, item) = (json(), json());
    assert_eq!(item["length"], payload.len(), "the item's length is right");
    Received { path: parts.uri.to_string(), headers: parts.headers, connection, head, item, payload: json() }
}
