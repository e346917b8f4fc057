//! gRPC statuses, in trailers and in heads, to those who answer and to those who ask.

use std::convert::Infallible;
use std::net::SocketAddr;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request, Response};
use http_body::Frame;
use http_body_util::{BodyExt, Full, StreamBody};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Runtime;
use tracecar::exchange::Side;

use crate::support::car::TestCar;
use crate::support::exports::Exports;
use crate::support::page::Page;
use crate::support::sentry::Sentry;
use crate::support::spans::{check, check_call};

const MESSAGE: &str = "no%20stock%20of%20%E2%82%AC%20bolts";

/// A gRPC service that ends with the status in the path, in its trailers (`/trailers/13`) or with nothing but a head (`/head/13`).
async fn service() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let http = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            tokio::spawn(http.serve_connection(TokioIo::new(stream), service_fn(said)));
        }
    });
    address
}

async fn said(
    request: Request<Incoming>,
) -> Result<Response<impl http_body::Body<Data = Bytes, Error = Infallible>>, Infallible> {
    let (place, status) = request.uri().path().trim_start_matches('/').split_once('/').unwrap_or_default();
    let mut ending = HeaderMap::new();
    ending.insert("grpc-status", HeaderValue::from_str(status).unwrap());
    ending.insert("grpc-message", HeaderValue::from_static(MESSAGE));
    let response = Response::builder().header("content-type", "application/grpc+proto");
    let in_head = place == "head";
    let frames = match in_head {
        true => Vec::new(),
        false => {
            vec![Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\0"))), Ok(Frame::trailers(ending.clone()))]
        }
    };
    let mut response = response.body(StreamBody::new(tokio_stream::iter(frames))).unwrap();
    if in_head {
        response.headers_mut().extend(ending);
    }
    Ok(response)
}

/// Asks the listener for each of those, and gives the `grpc-status` that arrives.
async fn ask(listener: SocketAddr, paths: &[String]) -> Vec<String> {
    let stream = TcpStream::connect(listener).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    let mut statuses = Vec::new();
    for path in paths {
        let request = Request::post(format!("http://{listener}{path}"))
            .header("te", "trailers")
            .header("content-type", "application/grpc");
        let response = sender.send_request(request.body(Full::<Bytes>::default()).unwrap()).await.unwrap();
        let mut ending = response.headers().clone();
        let body = response.into_body().collect().await.unwrap();
        ending.extend(body.trailers().cloned().unwrap_or_default());
        statuses.push(ending["grpc-status"].to_str().unwrap().to_owned());
    }
    statuses
}

/// Every status, in either place, as the span, the metric and Sentry have it. `error` says what is one for that side (RPC-6).
fn told(side: Side, error: impl Fn(u8) -> bool) {
    let runtime = Runtime::new().unwrap();
    let service = runtime.block_on(service());
    let (sentry, mut exports) = (Sentry::new(), Exports::new());
    let yaml = format!(
        "sentry: {{ dsn: '{}', traces: off }}\n{}outbound: {{ mapped: [ {{ listen: '127.0.0.1:0', to: 'h2c://{service}' }} ] }}",
        sentry.dsn(),
        exports.yaml()
    );
    let car = TestCar::with(&format!("h2c://{service}"), &yaml, |_| {});
    let listener = if side == Side::Inbound { car.address() } else { car.mapped(0) };
    let cases: Vec<(&str, u8)> = ["trailers", "head"]
        .into_iter()
        .flat_map(|place| (0..=17).map(move |status| (place, status)))
        .collect();
    let paths: Vec<String> = cases.iter().map(|(place, status)| format!("/{place}/{status}")).collect();
    let arrived = runtime.block_on(ask(listener, &paths));
    assert_eq!(arrived, cases.iter().map(|(_, status)| status.to_string()).collect::<Vec<_>>());
    cases.iter().for_each(|_| drop(car.record()));
    let page = Page::of(car.bound.admin.unwrap());
    drop(runtime);
    car.ended();

    let metric = match side {
        Side::Inbound => "rpc_server_call_duration_seconds_count",
        Side::Outbound => "rpc_client_call_duration_seconds_count",
    };
    let spans = exports.spans(cases.len());
    let mut failed = 0.0;
    for ((place, status), exported) in cases.iter().zip(&spans) {
        let span = &exported.span;
        let name = name_of(*status);
        let attributes = if side == Side::Inbound { check(span) } else { check_call(span) };
        assert_eq!(span.kind == SpanKind::Server as i32, side == Side::Inbound);
        assert_eq!(attributes.text("rpc.response.status_code"), Some(name), "RPC-5: {place} {status}");
        let word = error(*status).then_some(name);
        assert_eq!(attributes.text("error.type"), word, "RPC-6: {place} {status}");
        let is_error = span.status.clone().unwrap_or_default().code() == StatusCode::Error;
        assert_eq!(is_error, word.is_some(), "{place} {status}");
        let Some(word) = word else { continue };
        failed += 1.0;
        let same = cases.iter().filter(|(_, other)| error(*other) && name_of(*other) == word).count();
        assert_eq!(page.sum(metric, &[("error_type", word)]), same as f64, "{word}");
        let event = sentry.event();
        assert_eq!((event.title().1, event.tag("grpc_status")), ("no stock of € bolts", word));
        assert_eq!(event.json["contexts"]["trace"]["span_id"], hex(&span.span_id));
    }
    assert!(sentry.come().is_none(), "what is no error is no event");
    assert_eq!(page.sum(metric, &[]), cases.len() as f64);
    let with_type: f64 = page
        .named(metric)
        .filter(|(labels, _)| labels.contains_key("error_type"))
        .map(|(_, count)| count)
        .sum();
    assert_eq!(with_type, failed);
}

fn name_of(status: u8) -> &'static str {
    tracecar::exchange::GRPC_STATUS.get(usize::from(status)).copied().unwrap_or("UNKNOWN")
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

#[test]
fn to_those_who_answer_what_is_their_own_doing_is_an_error() {
    // What nobody knows is UNKNOWN.
    told(Side::Inbound, |status| [2, 4, 12, 13, 14, 15, 17].contains(&status));
}

#[test]
fn to_those_who_ask_all_but_ok_is_an_error() {
    told(Side::Outbound, |status| status != 0);
}

#[test]
fn a_status_that_nobody_can_read_is_unknown() {
    let runtime = Runtime::new().unwrap();
    let service = runtime.block_on(service());
    let car = TestCar::before(&format!("h2c://{service}"));
    let paths = ["/head/300", "/trailers/-1", "/trailers/what"].map(str::to_owned);
    runtime.block_on(ask(car.address(), &paths));
    drop(runtime);
    for path in paths {
        let record = car.record();
        assert_eq!((record.grpc_status, record.failed()), (Some(2), true), "{path}");
    }
}
