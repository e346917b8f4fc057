//! HTTP/2 on either side, with gRPC as the peer that needs all of it. The gRPC service is the OTLP receiver of
//! tonic: streams of one message, metadata, trailers, and errors that are nothing but trailers.

use std::net::SocketAddr;

use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_server::{
    TraceService, TraceServiceServer,
};
use opentelemetry_proto::tonic::collector::trace::v1::{
    ExportTraceServiceRequest, ExportTraceServiceResponse,
};
use tokio::net::TcpListener;
use tonic::{Request, Response, Status};
use tracecar::exchange::Outcome;

use crate::support::car::TestCar;
use crate::support::origin::Origin;

struct Service;

#[tonic::async_trait]
impl TraceService for Service {
    async fn export(
        &self,
        request: Request<ExportTraceServiceRequest>,
    ) -> Result<Response<ExportTraceServiceResponse>, Status> {
        assert!(request.metadata().contains_key("traceparent"));
        match request.metadata().contains_key("fail") {
            true => Err(Status::resource_exhausted("too much")),
            false => Ok(Response::new(ExportTraceServiceResponse::default())),
        }
    }
}

async fn grpc() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let incoming = tokio_stream::wrappers::TcpListenerStream::new(listener);
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(TraceServiceServer::new(Service))
            .serve_with_incoming(incoming),
    );
    address
}

#[tokio::test(flavor = "multi_thread")]
async fn grpc_passes_with_its_trailers() {
    let car = TestCar::before(&format!("h2c://{}", grpc().await));
    let mut client = TraceServiceClient::connect(format!("http://{}", car.address())).await.unwrap();
    client.export(ExportTraceServiceRequest::default()).await.expect("the message and its trailers");
    let record = car.record();
    assert_eq!((record.outcome, record.status), (Outcome::Complete, Some(200)));
    assert_eq!(record.request.as_ref().unwrap().version, http::Version::HTTP_2);

    let mut failing = Request::new(ExportTraceServiceRequest::default());
    failing.metadata_mut().insert("fail", "1".parse().unwrap());
    let status = client.export(failing).await.unwrap_err();
    assert_eq!((status.code(), status.message()), (tonic::Code::ResourceExhausted, "too much"));
    assert_eq!(car.record().outcome, Outcome::Complete);
    // A client that is gone lets its connection end, and the sidecar with it.
    drop(client);
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_callers_reach_a_service_of_http1() {
    let (asked, asks) = std::sync::mpsc::channel();
    let origin = Origin::new(move |peer| {
        while let Some(request) = peer.request() {
            let _ = asked.send(request);
            peer.send("HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n");
        }
    });
    let car = TestCar::before(&origin.url());
    let stream = tokio::net::TcpStream::connect(car.address()).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request = http::Request::get("http://shop.example:81/a?b=c")
        .header("cookie", "a=1")
        .header("cookie", "b=2")
        .body(http_body_util::Empty::<bytes::Bytes>::new())
        .unwrap();
    let response = sender.send_request(request).await.unwrap();
    assert_eq!((response.status().as_u16(), response.version()), (200, http::Version::HTTP_2));
    assert!(!response.headers().contains_key("connection"), "SMG-28");
    let body = http_body_util::BodyExt::collect(response.into_body()).await.unwrap().to_bytes();
    assert_eq!(&body[..], b"ok");
    let asked = asks.recv().unwrap();
    assert!(asked.head.starts_with("GET /a?b=c HTTP/1.1\r\n"), "{}", asked.head);
    assert_eq!(asked.header("host"), Some("shop.example:81"), "H2-1");
    assert_eq!(asked.header("cookie"), Some("a=1; b=2"), "H2-2");
    let record = car.record();
    let authority = record.request.as_ref().unwrap().authority;
    assert_eq!(record.text(authority), "shop.example:81");
    drop(sender);
}

#[tokio::test(flavor = "multi_thread")]
async fn http2_streams_that_are_reset_are_callers_gone() {
    let origin = Origin::new(|peer| {
        peer.request();
        let _ = peer.rest();
    });
    let car = TestCar::before(&origin.url());
    let stream = tokio::net::TcpStream::connect(car.address()).await.unwrap();
    let executor = hyper_util::rt::TokioExecutor::new();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(executor, hyper_util::rt::TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let request =
        http::Request::get("http://shop/").body(http_body_util::Empty::<bytes::Bytes>::new()).unwrap();
    let waiting = sender.send_request(request);
    tokio::select! {
        _ = waiting => panic!("nobody answers"),
        () = async { while car.stats().requests_active.value() == 0 { tokio::task::yield_now().await } } => {}
    }
    let record = car.record();
    assert_eq!((record.outcome, record.status), (Outcome::ClientGoneBeforeResponse, None));
    drop(sender);
}
