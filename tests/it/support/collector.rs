//! An OTLP collector in the test's own process.
//!
//! Decodes and keeps what it is sent, and answers as it is told. gRPC is spoken by tonic's generated server, a peer
//! that knows nothing of our framing; HTTP by hyper. Both sit on sockets of 127.0.0.1, with or without TLS.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::io::Read;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use bytes::Bytes;
use flate2::read::GzDecoder;
use http::{HeaderMap, Request, Response};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTracePartialSuccess, ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore, mpsc};
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::timeout;
use tokio_rustls::TlsAcceptor;
use tonic::codec::CompressionEncoding;
use tonic::codegen::Service;

use super::PATIENCE;

/// What a collector speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    Grpc,
    Http,
}

/// What a collector does with one request. Without a script, or [`Collector::always`], it takes everything.
pub enum Reply {
    /// Takes the spans.
    Take,
    /// Takes them but for some.
    Partial { rejected: i64, message: &'static str },
    /// Answers with this HTTP status, header and text; over gRPC, as something between would.
    Http { status: u16, header: Option<(&'static str, &'static str)>, body: &'static str },
    /// Answers with this gRPC status.
    Grpc(tonic::Status),
    /// Answers with this many bytes.
    Long(usize),
    /// Takes the spans once [`Collector::release`] is called.
    Held,
    /// Never answers.
    Silence,
    /// Closes the connection instead of answering.
    Close,
}

/// One request, as it arrived.
pub struct Received {
    pub at: Instant,
    pub path: String,
    pub headers: HeaderMap,
    /// Which connection it came on, counted from 1.
    pub connection: usize,
    pub content: ExportTraceServiceRequest,
}

impl Received {
    /// All spans of the request.
    pub fn spans(&self) -> Vec<&Span> {
        self.content
            .resource_spans
            .iter()
            .flat_map(|resource| &resource.scope_spans)
            .flat_map(|scope| &scope.spans)
            .collect()
    }

    /// The header's value as text, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map(|value| value.to_str().unwrap()).unwrap_or_default()
    }
}

/// A running collector; dropping it closes its socket and all its connections.
pub struct Collector {
    pub address: SocketAddr,
    shared: Arc<Shared>,
    received: mpsc::UnboundedReceiver<Received>,
    task: JoinHandle<()>,
}

struct Shared {
    protocol: Protocol,
    script: Mutex<VecDeque<Reply>>,
    /// What comes after the script.
    otherwise: Mutex<fn() -> Reply>,
    released: Semaphore,
    received: mpsc::UnboundedSender<Received>,
}

impl Collector {
    /// A collector on any free port.
    pub async fn start(protocol: Protocol) -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), protocol, None).await
    }

    /// A collector that may be stopped, and started again at the same address. Its port is below those that Linux gives to
    /// outgoing connections, so that none of the other tests takes it meanwhile.
    pub async fn lasting(protocol: Protocol) -> Self {
        let free = |port: &u16| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok();
        let ports = std::iter::repeat_with(|| rand::random_range(18_000..32_000)).find(free);
        let port: u16 = ports.expect("it goes on until there is one");
        Self::start_at(([127, 0, 0, 1], port).into(), protocol, None).await
    }

    /// A collector at `address`, with TLS where `tls` is given.
    pub async fn start_at(address: SocketAddr, protocol: Protocol, tls: Option<ServerConfig>) -> Self {
        let listener = TcpListener::bind(address).await.unwrap();
        let (sender, received) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            protocol,
            script: Mutex::default(),
            otherwise: Mutex::new(|| Reply::Take),
            released: Semaphore::new(0),
            received: sender,
        });
        let address = listener.local_addr().unwrap();
        let task = tokio::spawn(serve(
            listener,
            Arc::clone(&shared),
            tls.map(|tls| TlsAcceptor::from(Arc::new(tls))),
        ));
        Self { address, shared, received, task }
    }

    /// Closes the socket and all connections, and waits until that is done.
    pub async fn stop(mut self) {
        self.close().await;
    }

    /// The same, and what has been received can still be read.
    pub async fn close(&mut self) {
        self.task.abort();
        // That it was aborted is no news.
        let _ = (&mut self.task).await;
    }

    /// What to do with the next requests, one reply each.
    pub fn script(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.script.lock().unwrap().extend(replies);
    }

    /// What to do with every request from now on, once the script is over.
    #[allow(dead_code, reason = "the long suite uses it")]
    pub fn always(&self, reply: fn() -> Reply) {
        *self.shared.otherwise.lock().unwrap() = reply;
    }

    /// Lets one [`Reply::Held`] go on.
    pub fn release(&self) {
        self.shared.released.add_permits(1);
    }

    /// The next request, whatever was answered to it.
    pub async fn next(&mut self) -> Received {
        timeout(PATIENCE, self.received.recv())
            .await
            .expect("the exporter sends a request")
            .expect("still running")
    }

    /// The next request, if it is here already.
    pub fn next_now(&mut self) -> Option<Received> {
        self.received.try_recv().ok()
    }
}

impl Drop for Collector {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn serve(listener: TcpListener, shared: Arc<Shared>, tls: Option<TlsAcceptor>) {
    // Goes down with this task, and so do the connections.
    let mut connections = JoinSet::new();
    let mut count = 0;
    loop {
        let (stream, _) = listener.accept().await.unwrap();
        count += 1;
        let peer = Peer { shared: Arc::clone(&shared), connection: count, hang_up: Arc::default() };
        match tls.clone() {
            None => drop(connections.spawn(peer.serve(stream))),
            Some(tls) => drop(connections.spawn(async move {
                // A client that does not trust us is a test of its own.
                if let Ok(stream) = tls.accept(stream).await {
                    peer.serve(stream).await;
                }
            })),
        }
    }
}

/// One connection.
#[derive(Clone)]
struct Peer {
    shared: Arc<Shared>,
    connection: usize,
    hang_up: Arc<Notify>,
}

impl Peer {
    async fn serve<I: AsyncRead + AsyncWrite + Unpin + Send + 'static>(self, io: I) {
        let io = TokioIo::new(io);
        let hang_up = Arc::clone(&self.hang_up);
        let protocol = self.shared.protocol;
        let service = service_fn(move |request| self.clone().answer(request));
        let serving = async {
            match protocol {
                Protocol::Http => http1::Builder::new().serve_connection(io, service).await,
                Protocol::Grpc => {
                    http2::Builder::new(TokioExecutor::new()).serve_connection(io, service).await
                }
            }
        };
        tokio::select! {
            // How it ended is the exporter's story.
            _ = serving => {}
            () = hang_up.notified() => {}
        }
    }

    async fn answer(self, request: Request<Incoming>) -> Result<Response<tonic::body::Body>, Infallible> {
        let scripted = self.shared.script.lock().unwrap().pop_front();
        let reply = scripted.unwrap_or_else(|| self.shared.otherwise.lock().unwrap()());
        if self.shared.protocol == Protocol::Grpc && !matches!(reply, Reply::Http { .. }) {
            let (parts, body) = request.into_parts();
            let call = Call {
                peer: self,
                path: parts.uri.path().to_owned(),
                headers: parts.headers.clone(),
                reply: Mutex::new(Some(reply)),
            };
            let mut server = TraceServiceServer::new(call).accept_compressed(CompressionEncoding::Gzip);
            return server.call(Request::from_parts(parts, body)).await;
        }
        let (parts, body) = request.into_parts();
        let mut body = body.collect().await.map(|body| body.to_bytes()).unwrap_or_default();
        if self.shared.protocol == Protocol::Http {
            if parts.headers.get("content-encoding").is_some_and(|coding| coding == "gzip") {
                let mut plain = Vec::new();
                GzDecoder::new(body.as_ref()).read_to_end(&mut plain).unwrap();
                body = plain.into();
            }
            let content = ExportTraceServiceRequest::decode(body).unwrap();
            self.keep(parts.uri.to_string(), parts.headers, content);
        } else {
            self.keep(parts.uri.path().to_owned(), parts.headers, ExportTraceServiceRequest::default());
        }
        let full = |bytes: Bytes| tonic::body::Body::new(Full::new(bytes));
        let answer = match reply {
            Reply::Http { status, header, body } => {
                let mut answer = Response::new(full(Bytes::from_static(body.as_bytes())));
                *answer.status_mut() = status.try_into().unwrap();
                if let Some((name, value)) = header {
                    answer.headers_mut().insert(name, value.parse().unwrap());
                }
                return Ok(answer);
            }
            Reply::Long(length) => return Ok(Response::new(full(vec![b'x'; length].into()))),
            Reply::Grpc(status) => panic!("this collector speaks HTTP, not {status}"),
            other => self.decide(other).await.unwrap(),
        };
        let mut answer = Response::new(full(answer.encode_to_vec().into()));
        answer.headers_mut().insert("content-type", "application/x-protobuf".parse().unwrap());
        Ok(answer)
    }

    fn keep(&self, path: String, headers: HeaderMap, content: ExportTraceServiceRequest) {
        let received = Received { at: Instant::now(), path, headers, connection: self.connection, content };
        // Nobody listens to a collector that is being dropped.
        let _ = self.shared.received.send(received);
    }

    async fn decide(&self, reply: Reply) -> Result<ExportTraceServiceResponse, tonic::Status> {
        match reply {
            Reply::Take | Reply::Http { .. } => {}
            Reply::Partial { rejected, message } => {
                return Ok(ExportTraceServiceResponse {
                    partial_success: Some(ExportTracePartialSuccess {
                        rejected_spans: rejected,
                        error_message: message.to_owned(),
                    }),
                });
            }
            Reply::Grpc(status) => return Err(status),
            Reply::Long(length) => {
                return Ok(ExportTraceServiceResponse {
                    partial_success: Some(ExportTracePartialSuccess {
                        rejected_spans: 0,
                        error_message: "x".repeat(length),
                    }),
                });
            }
            Reply::Held => self.shared.released.acquire().await.unwrap().forget(),
            Reply::Silence => std::future::pending().await,
            Reply::Close => {
                self.hang_up.notify_one();
                std::future::pending().await
            }
        }
        Ok(ExportTraceServiceResponse::default())
    }
}

/// One gRPC call.
struct Call {
    peer: Peer,
    path: String,
    headers: HeaderMap,
    reply: Mutex<Option<Reply>>,
}

#[tonic::async_trait]
impl TraceService for Call {
    async fn export(
        &self,
        request: tonic::Request<ExportTraceServiceRequest>,
    ) -> Result<tonic::Response<ExportTraceServiceResponse>, tonic::Status> {
        self.peer.keep(self.path.clone(), self.headers.clone(), request.into_inner());
        let reply = self.reply.lock().unwrap().take().expect("one reply for one call");
        self.peer.decide(reply).await.map(tonic::Response::new)
    }
}
