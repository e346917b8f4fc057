//! Peers that speak HTTP/2 frame by frame: a caller and a service that see each end and each reset.

use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::ext::Protocol;
use h2::server::SendResponse;
use h2::{Reason, RecvStream, SendStream};
use http::{Method, Request, Response, StatusCode};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;

use super::PATIENCE;

/// A connection to `address`.
pub async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    connect_and_watch(address).await.0
}

/// The same, and its end.
pub async fn connect_and_watch(address: SocketAddr) -> (SendRequest<Bytes>, impl Future<Output = ()>) {
    let stream = TcpStream::connect(address).await.expect("it listens");
    let (sender, connection) = h2::client::handshake(stream).await.expect("HTTP/2 is spoken");
    let running = tokio::spawn(connection);
    (sender, async { drop(timeout(PATIENCE, running).await.expect("it ends")) })
}

/// A request to open `protocol` on a stream, as a browser would.
pub fn open(protocol: &'static str, uri: &str) -> Request<()> {
    let mut request = Request::builder().method(Method::CONNECT).uri(uri);
    request = request.header("sec-websocket-version", "13").header("sec-websocket-protocol", "chat, other");
    request.extension(Protocol::from_static(protocol)).body(()).expect("a request")
}

/// A stream that is a tunnel, or may become one.
pub struct Dialog {
    pub send: SendStream<Bytes>,
    pub receive: RecvStream,
}

/// Sends a request whose stream stays open, and what is to come right behind it.
pub async fn ask(
    sender: &SendRequest<Bytes>,
    request: Request<()>,
    early: &'static str,
) -> (Response<()>, Dialog) {
    let mut sender = sender.clone().ready().await.expect("the connection is open");
    let (response, mut send) = sender.send_request(request, false).expect("a request");
    if !early.is_empty() {
        send.send_data(early.into(), false).expect("the stream is open");
    }
    let response = timeout(PATIENCE, response).await.expect("an answer comes").expect("an answer");
    let (head, receive) = response.into_parts();
    (Response::from_parts(head, ()), Dialog { send, receive })
}

impl Dialog {
    pub fn say(&mut self, data: impl Into<Bytes>) {
        self.send.send_data(data.into(), false).expect("the stream is open");
    }

    pub fn end(&mut self) {
        self.send.send_data(Bytes::new(), true).expect("the stream is open");
    }

    /// Waits for exactly that many bytes.
    pub async fn hear(&mut self, bytes: usize) -> Vec<u8> {
        let mut heard = Vec::new();
        while heard.len() < bytes {
            let data = timeout(PATIENCE, self.receive.data()).await.expect("that much comes");
            let data = data.expect("no end before").expect("no reset before");
            self.receive.flow_control().release_capacity(data.len()).expect("it was taken");
            heard.extend_from_slice(&data);
        }
        assert_eq!(heard.len(), bytes, "{:?}", String::from_utf8_lossy(&heard));
        heard
    }

    /// What comes until the stream ends, or why it does not.
    pub async fn rest(&mut self) -> Result<Vec<u8>, Option<Reason>> {
        let mut heard = Vec::new();
        while let Some(data) = timeout(PATIENCE, self.receive.data()).await.expect("it ends") {
            let data = data.map_err(|error| error.reason())?;
            self.receive.flow_control().release_capacity(data.len()).expect("it was taken");
            heard.extend_from_slice(&data);
        }
        Ok(heard)
    }

    /// Waits for the reset of the stream.
    pub async fn reset(&mut self) -> Reason {
        let reset = poll_fn(|cx| self.send.poll_reset(cx));
        timeout(PATIENCE, reset).await.expect("a reset comes").expect("of the stream")
    }
}

/// A service at `h2c://`. Its connections live as long as the test.
pub struct StreamOrigin {
    address: SocketAddr,
    connections: Arc<AtomicUsize>,
}

impl StreamOrigin {
    /// Runs the script for each request. `websockets` says that it opens them.
    pub async fn new<F>(
        websockets: bool,
        script: impl Fn(Request<RecvStream>, SendResponse<Bytes>) -> F + Clone + Send + 'static,
    ) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port is free");
        let address = listener.local_addr().expect("it is bound");
        let connections = Arc::new(AtomicUsize::new(0));
        let counted = connections.clone();
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                counted.fetch_add(1, Ordering::Relaxed);
                let script = script.clone();
                tokio::spawn(async move {
                    let mut builder = h2::server::Builder::new();
                    if websockets {
                        builder.enable_connect_protocol();
                    }
                    let Ok(mut connection) = builder.handshake(stream).await else { return };
                    while let Some(Ok((request, respond))) = connection.accept().await {
                        tokio::spawn(script(request, respond));
                    }
                });
            }
        });
        Self { address, connections }
    }

    pub fn url(&self) -> String {
        format!("h2c://{}", self.address)
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// Agrees to open a tunnel.
pub fn agree(request: Request<RecvStream>, mut respond: SendResponse<Bytes>) -> Dialog {
    let response = Response::builder().header("sec-websocket-protocol", "chat").body(()).expect("a response");
    let send = respond.send_response(response, false).expect("the caller is there");
    Dialog { send, receive: request.into_body() }
}

/// Answers with a status and a text.
pub fn answer(mut respond: SendResponse<Bytes>, status: u16, text: &'static str) {
    let mut response = Response::new(());
    *response.status_mut() = StatusCode::from_u16(status).expect("a status");
    let mut send = respond.send_response(response, false).expect("the caller is there");
    send.send_data(text.into(), true).expect("the stream is open");
}

/// Sends a GET and waits for the answer, content included.
pub async fn get(sender: &SendRequest<Bytes>, uri: &str) -> (StatusCode, Vec<u8>) {
    let mut sender = sender.clone().ready().await.expect("the connection is open");
    let request = Request::get(uri).body(()).expect("a request");
    let (response, send) = sender.send_request(request, true).expect("a request");
    let response = timeout(PATIENCE, response).await.expect("an answer comes").expect("an answer");
    let status = response.status();
    let mut dialog = Dialog { send, receive: response.into_body() };
    (status, dialog.rest().await.expect("all of the content"))
}

/// Waits until the far end says that it takes no more requests.
pub async fn told_to_leave(sender: SendRequest<Bytes>) {
    let mut sender = sender;
    let gone = async {
        while let Ok(ready) = sender.clone().ready().await {
            sender = ready;
            tokio::task::yield_now().await;
        }
    };
    timeout(PATIENCE, gone).await.expect("the connection ends");
}
