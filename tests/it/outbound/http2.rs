//! Calls over HTTP/2, which gRPC clients make: through a mapped listener and inside a tunnel.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, channel};

use bytes::Bytes;
use http::{Request, Response, Version};
use http_body_util::{BodyExt, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::SendRequest;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tracecar::exchange::Outcome;

use super::{car, url_of};
use crate::support::PATIENCE;

/// A destination that speaks HTTP/2 without TLS, answers with the content it was sent, and tells what it was asked.
async fn echo() -> (SocketAddr, Receiver<Request<()>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (asks, asked) = channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let asks = asks.clone();
            let service = service_fn(move |request: Request<Incoming>| {
                let (parts, body) = request.into_parts();
                let asks = asks.clone();
                async move {
                    let content = body.collect().await?.to_bytes();
                    let _ = asks.send(Request::from_parts(parts, ()));
                    Ok::<_, hyper::Error>(Response::new(Full::new(content)))
                }
            });
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service));
        }
    });
    (address, asked)
}

/// A caller of HTTP/2 with prior knowledge on `stream`.
async fn caller(stream: TcpStream) -> SendRequest<Full<Bytes>> {
    let (sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

async fn answer(sender: &mut SendRequest<Full<Bytes>>, url: &str) -> (u16, Bytes) {
    let request = Request::post(url).header("te", "trailers").body(Full::from("ping")).unwrap();
    let response = sender.send_request(request).await.unwrap();
    (response.status().as_u16(), response.into_body().collect().await.unwrap().to_bytes())
}

#[tokio::test(flavor = "multi_thread")]
async fn a_mapped_listener_passes_http2_on_under_the_name_of_its_destination() {
    let (address, asked) = echo().await;
    let car = car(&format!(
        "outbound: {{ mapped: [ {{ listen: '127.0.0.1:0', to: 'h2c://{address}', name: ledger }} ] }}"
    ));
    let listener = car.mapped(0);
    let mut sender = caller(TcpStream::connect(listener).await.unwrap()).await;
    for path in ["/ledger.v1.Ledger/Post", "/x?y=1"] {
        let answered = answer(&mut sender, &format!("http://{listener}{path}")).await;
        assert_eq!(answered, (200, Bytes::from("ping")));
        let request = asked.recv_timeout(PATIENCE).unwrap();
        assert_eq!(
            request.uri().to_string(),
            format!("http://{address}{path}"),
            "not the name of our listener"
        );
        assert_eq!(request.headers()["te"], "trailers", "HOP-14");
        let record = car.record();
        let context = format!("00-{}-{}-03", record.identity.trace_id, record.identity.span_id);
        assert_eq!(request.headers()["traceparent"], context);
        assert_eq!(url_of(&record), format!("http://{address}{}", path.replace("=1", "=REDACTED")));
        assert_eq!(record.request.as_ref().unwrap().version, Version::HTTP_2);
        assert_eq!((record.outcome, record.destination.as_deref()), (Outcome::Complete, Some("ledger")));
        assert_eq!((record.request_bytes, record.response_bytes), (4, 4));
    }
    // A client that is gone lets its connection end, and the sidecar with it.
    drop(sender);
}

#[tokio::test(flavor = "multi_thread")]
async fn plain_http2_inside_a_tunnel_is_seen_request_by_request() {
    let (address, asked) = echo().await;
    let car = car("outbound: { proxy: '127.0.0.1:0' }");
    let mut stream = TcpStream::connect(car.proxy()).await.unwrap();
    stream
        .write_all(format!("CONNECT {address} HTTP/1.1\r\nHost: {address}\r\n\r\n").as_bytes())
        .await
        .unwrap();
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.unwrap());
    }
    assert!(head.starts_with(b"HTTP/1.1 200 "), "{}", head.escape_ascii());
    let mut sender = caller(stream).await;
    for path in ["/a", "/b"] {
        let answered = answer(&mut sender, &format!("http://{address}{path}")).await;
        assert_eq!(answered, (200, Bytes::from("ping")));
        let request = asked.recv_timeout(PATIENCE).unwrap();
        let record = car.record();
        let span = record.identity.span_id.to_string();
        assert!(request.headers()["traceparent"].to_str().unwrap().contains(&span));
        assert_eq!((record.tunnel, record.status), (None, Some(200)));
        assert_eq!(url_of(&record), format!("http://{address}{path}"));
    }
    drop(sender);
    assert_eq!(car.ended().len(), 0, "the tunnel itself is no call");
}
