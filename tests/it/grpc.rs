//! gRPC: what clients and services of it notice, and what is told of their calls.
//!
//! The service is written by hand, so that it can end a stream in every way; the client is that of tonic, which says what a client
//! makes of each end.

use std::net::SocketAddr;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Duration;

use bytes::{Buf, BufMut, Bytes};
use h2::Reason;
use h2::server::SendResponse;
use http::{HeaderMap, Response};
use http_body_util::{BodyExt, Empty};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::{TcpListener, TcpStream};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Status};
use tracecar::exchange::{Outcome, Record};

use crate::support::PATIENCE;
use crate::support::car::TestCar;
use crate::support::exports::Exports;
use crate::support::origin::Nowhere;
use crate::support::page::Page;
use crate::support::spans::{check, check_call};

/// Messages as they are.
#[derive(Default)]
struct Raw;

impl Codec for Raw {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, item: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// What a service says of a call that it does not answer.
#[derive(Debug, PartialEq)]
enum Said {
    Begun,
    Reset(Reason),
}

/// A service whose methods say how they end: `/it.End/Ok`, `/it.End/Status7`, `/it.End/Http503`, `/it.End/ResetBefore8`,
/// `/it.End/ResetAfter8`, `/it.End/Lose` with the connection; `/it.End/Wait` says nothing, `/it.End/WaitAfter` nothing after a head. It tells with which code each of
/// those two was reset, and before that, that it has begun.
async fn service() -> (SocketAddr, Receiver<Said>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let (tells, told) = channel();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let tells = tells.clone();
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.unwrap();
                while let Some(Ok((request, respond))) = connection.accept().await {
                    if request.uri().path() == "/it.End/Lose" {
                        return;
                    }
                    tokio::spawn(end(request, respond, tells.clone()));
                }
            });
        }
    });
    (address, told)
}

async fn end(request: http::Request<h2::RecvStream>, mut respond: SendResponse<Bytes>, tells: Sender<Said>) {
    let path = request.uri().path().strip_prefix("/it.End/").unwrap_or_default().to_owned();
    // Kept, for a body that is dropped is a reset.
    let _body = request.into_body();
    let letters = path.trim_end_matches(|digit: char| digit.is_ascii_digit());
    let number: u32 = path[letters.len()..].parse().unwrap_or_default();
    let head = |status: u16| {
        let head = Response::builder().status(status).header("content-type", "application/grpc");
        head.body(()).unwrap()
    };
    match letters {
        "Ok" | "Status" => {
            let mut stream = respond.send_response(head(200), false).unwrap();
            stream.send_data(Bytes::from_static(b"\0\0\0\0\x02hi"), false).unwrap();
            let mut trailers = HeaderMap::new();
            trailers.insert("grpc-status", number.into());
            stream.send_trailers(trailers).unwrap();
        }
        "Http" => drop(respond.send_response(head(number as u16), true).unwrap()),
        "ResetBefore" => respond.send_reset(number.into()),
        "ResetAfter" => respond.send_response(head(200), false).unwrap().send_reset(number.into()),
        "Wait" => {
            let _ = tells.send(Said::Begun);
            let _ = tells.send(Said::Reset(std::future::poll_fn(|cx| respond.poll_reset(cx)).await.unwrap()));
        }
        "WaitAfter" => {
            let _ = tells.send(Said::Begun);
            let mut stream = respond.send_response(head(200), false).unwrap();
            stream.send_data(Bytes::from_static(b"\0\0\0\0\x02hi"), false).unwrap();
            let _ = tells.send(Said::Reset(std::future::poll_fn(|cx| stream.poll_reset(cx)).await.unwrap()));
        }
        other => panic!("{other} is no method"),
    }
}

async fn client(listener: SocketAddr) -> tonic::client::Grpc<Channel> {
    let channel = Channel::from_shared(format!("http://{listener}")).unwrap().connect().await.unwrap();
    let mut client = tonic::client::Grpc::new(channel);
    client.ready().await.unwrap();
    client
}

/// What the client makes of a call.
async fn call(client: &mut tonic::client::Grpc<Channel>, method: &str) -> Result<Bytes, Status> {
    let path = format!("/it.End/{method}").parse().unwrap();
    client.ready().await.unwrap();
    let request = tonic::Request::new(Bytes::from_static(b"ask"));
    client.unary(request, path, Raw).await.map(tonic::Response::into_inner)
}

fn status(record: &Record) -> Option<&'static str> {
    record.grpc_status_name()
}

/// `DEADLINE_EXCEEDED`, as the conventions write what tonic calls `DeadlineExceeded`.
fn name(code: Code) -> &'static str {
    tracecar::exchange::GRPC_STATUS[code as usize]
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_down_is_unavailable_and_the_client_reads_why() {
    let nowhere = Nowhere::new();
    let yaml =
        format!("outbound: {{ mapped: [ {{ listen: '127.0.0.1:0', to: 'h2c://{}' }} ] }}", nowhere.address);
    let car = TestCar::with(&format!("h2c://{}", nowhere.address), &yaml, |_| {});
    let detail = format!("no answer from the service at {}: connection refused", nowhere.address);
    for (listener, sent) in [(car.address(), Some(200)), (car.mapped(0), None)] {
        let refused = call(&mut client(listener).await, "Ok").await.unwrap_err();
        let told = format!("tracecar: {detail}");
        assert_eq!((refused.code(), refused.message()), (Code::Unavailable, told.as_str()), "RPC-14");
        assert!(refused.metadata().get("proxy-status").is_some(), "it is ours");
        let record = car.record();
        assert_eq!(
            (record.outcome, record.status),
            (Outcome::UpstreamRefused, sent),
            "what was sent, or received"
        );
        assert_eq!((status(&record), record.text(record.detail)), (Some("UNAVAILABLE"), detail.as_str()));
        assert_eq!(record.error_type().as_deref(), Some("connection_refused"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_error_of_ours_is_a_head_and_nothing_else_and_only_to_calls() {
    let nowhere = Nowhere::new();
    let car = TestCar::before(&format!("h2c://{}", nowhere.address));
    let stream = TcpStream::connect(car.address()).await.unwrap();
    let (mut sender, connection) =
        hyper::client::conn::http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    for (kind, expected) in [
        ("application/grpc", (200, "application/grpc", Some("14"))),
        ("application/grpc+json", (200, "application/grpc", Some("14"))),
        ("application/grpc-web", (502, "text/plain; charset=utf-8", None)),
        ("text/plain", (502, "text/plain; charset=utf-8", None)),
    ] {
        let request = http::Request::post("http://shop/it.End/Ok").header("content-type", kind);
        let response = sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap();
        let text = |name: &str| response.headers().get(name).map(|value| value.to_str().unwrap().to_owned());
        let found = (response.status().as_u16(), text("content-type").unwrap(), text("grpc-status"));
        assert_eq!((found.0, &*found.1, found.2.as_deref()), expected, "RPC-14: {kind}");
        assert!(text("proxy-status").unwrap().starts_with("tracecar; error=connection_refused"));
        assert!(text("x-correlation-id").is_some());
        let is_call = found.0 == 200;
        let body = response.into_body().collect().await.unwrap();
        assert!(body.trailers().is_none());
        assert_eq!(body.to_bytes().is_empty(), is_call);
        assert_eq!(car.record().rpc.is_some(), is_call);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_is_silent_for_too_long_is_no_reason_to_try_again() {
    let (service, _told) = service().await;
    let car = TestCar::with(&format!("h2c://{service}"), "timeouts: { response_header: 100ms }", |_| {});
    let late = call(&mut client(car.address()).await, "Wait").await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    let record = car.record();
    assert_eq!((record.outcome, status(&record)), (Outcome::UpstreamTimeout, Some("DEADLINE_EXCEEDED")));
}

/// The caller, too, says so with a reset when its deadline is over.
#[tokio::test(flavor = "multi_thread")]
async fn a_deadline_is_the_callers_to_watch_and_reaches_the_service_as_a_cancel() {
    let (service, told) = service().await;
    // Shorter than the deadline: what counts is the caller's.
    let car = TestCar::with(&format!("h2c://{service}"), "timeouts: { response_header: 20ms }", |_| {});
    let mut client = client(car.address()).await;
    let mut request = tonic::Request::new(Bytes::new());
    request.set_timeout(Duration::from_millis(400));
    let path = "/it.End/Wait".parse().unwrap();
    let over = client.unary(request, path, Raw).await.unwrap_err();
    assert!([Code::DeadlineExceeded, Code::Cancelled].contains(&over.code()), "{over:?}");
    assert!(!over.message().contains("tracecar"), "the client was first: {over:?}");
    assert_eq!(told.recv_timeout(PATIENCE), Ok(Said::Begun));
    assert_eq!(told.recv_timeout(PATIENCE), Ok(Said::Reset(Reason::CANCEL)));
    let record = car.record();
    assert_eq!((record.outcome, status(&record)), (Outcome::ClientGoneBeforeResponse, None));
    assert!(record.timings.total >= Duration::from_millis(300), "{:?}", record.timings.total);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_callers_cancel_reaches_the_service_as_a_cancel() {
    let (service, told) = service().await;
    let car = TestCar::before(&format!("h2c://{service}"));
    let stream = TcpStream::connect(car.address()).await.unwrap();
    let (client, connection) = h2::client::handshake(stream).await.unwrap();
    tokio::spawn(connection);
    let mut client = client.ready().await.unwrap();
    // A call of one message, and a stream both ways that is given up in the middle.
    for (method, all_sent) in [("Wait", true), ("Wait", false), ("WaitAfter", true), ("WaitAfter", false)] {
        let request = http::Request::post(format!("http://shop/it.End/{method}"));
        let request = request.header("content-type", "application/grpc").body(()).unwrap();
        let (answer, mut content) = client.send_request(request, false).unwrap();
        content.send_data(Bytes::from_static(b"\0\0\0\0\x03ask"), all_sent).unwrap();
        assert_eq!(told.recv_timeout(PATIENCE), Ok(Said::Begun));
        let outcome = match method {
            "Wait" => Outcome::ClientGoneBeforeResponse,
            _ => {
                let mut body = answer.await.unwrap().into_body();
                assert!(body.data().await.unwrap().is_ok());
                Outcome::ClientGoneDuringResponse
            }
        };
        content.send_reset(Reason::CANCEL);
        assert_eq!(
            told.recv_timeout(PATIENCE),
            Ok(Said::Reset(Reason::CANCEL)),
            "{method}, all sent: {all_sent}"
        );
        let record = car.record();
        assert_eq!((record.outcome, status(&record)), (outcome, None), "{method}");
        assert!(!record.failed(), "a caller that leaves is no error of the service");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stream_that_the_service_resets_is_to_us_what_it_is_to_the_client() {
    let (service, _told) = service().await;
    let car = TestCar::before(&format!("h2c://{service}"));
    let mut client = client(car.address()).await;
    for when in ["ResetBefore", "ResetAfter"] {
        for code in [1, 2, 3, 7, 8, 11, 12] {
            let method = format!("{when}{code}");
            let said = call(&mut client, &method).await.unwrap_err();
            let record = car.record();
            assert_eq!(status(&record), Some(name(said.code())), "RPC-13: {method}: {said:?}");
            let expected = match code {
                7 => "UNAVAILABLE",
                8 => "CANCELLED",
                11 => "RESOURCE_EXHAUSTED",
                12 => "PERMISSION_DENIED",
                _ => "INTERNAL",
            };
            assert_eq!(status(&record), Some(expected), "RPC-13: {method}");
            assert_ne!(record.outcome, Outcome::Complete, "{method}");
        }
    }
}

/// Clients come again to those who are unavailable, and give up on others.
#[tokio::test(flavor = "multi_thread")]
async fn a_service_that_dies_in_the_middle_is_unavailable() {
    let (service, _told) = service().await;
    let car = TestCar::before(&format!("h2c://{service}"));
    let mut client = client(car.address()).await;
    let path = "/it.End/WaitAfter".parse().unwrap();
    client.ready().await.unwrap();
    let request = tonic::Request::new(Bytes::from_static(b"ask"));
    let mut answers = client.server_streaming(request, path, Raw).await.unwrap().into_inner();
    assert_eq!(answers.message().await.unwrap().as_deref(), Some(&b"hi"[..]));
    let lost = call(&mut client, "Lose").await.unwrap_err();
    assert_eq!(lost.code(), Code::Unavailable, "{lost:?}");
    let broken = answers.message().await.unwrap_err();
    assert_eq!(broken.code(), Code::Unavailable, "{broken:?}");
    assert!(broken.message().starts_with("tracecar: the service broke off its answer"), "{broken:?}");
    let mut ended = [car.record(), car.record()].map(|record| (record.outcome, status(&record)));
    ended.sort_by_key(|(outcome, _)| outcome.as_str());
    let expected =
        [Outcome::UpstreamBroken, Outcome::UpstreamReset].map(|outcome| (outcome, Some("UNAVAILABLE")));
    assert_eq!(ended, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_response_without_status_is_to_us_what_it_is_to_the_client() {
    let (service, _told) = service().await;
    let car = TestCar::before(&format!("h2c://{service}"));
    let mut client = client(car.address()).await;
    for http in [400, 401, 403, 404, 429, 500, 502, 503, 504] {
        let said = call(&mut client, &format!("Http{http}")).await.unwrap_err();
        let record = car.record();
        assert_eq!((status(&record), record.status), (Some(name(said.code())), Some(http)), "RPC-12");
    }
    // Neither message nor status: clients differ in the words, and none of them calls it a success.
    assert!(call(&mut client, "Http200").await.is_err());
    let record = car.record();
    assert_eq!(
        (record.outcome, status(&record), record.failed()),
        (Outcome::Complete, Some("UNKNOWN"), true),
        "RPC-12"
    );
    let said = call(&mut client, "Status5").await.unwrap_err();
    assert_eq!((said.code(), status(&car.record())), (Code::NotFound, Some("NOT_FOUND")));
}

/// One call of each kind, from outside and by the service; with what its spans are called and say of the method.
#[test]
fn a_method_is_named_if_it_is_known_to_be_one() {
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let (service, _told) = runtime.block_on(service());
    for inbound in [true, false] {
        let mut exports = Exports::new();
        let yaml = format!(
            "{}grpc: {{ methods: [ it.End/Ok, 'shop.Stock/*' ] }}\nroutes: [ '/{{*all}}' ]\n\
             outbound: {{ mapped: [ {{ listen: '127.0.0.1:0', to: 'h2c://{service}', name: far }} ] }}",
            exports.yaml()
        );
        let car = TestCar::with(&format!("h2c://{service}"), &yaml, |_| {});
        let listener = if inbound { car.address() } else { car.mapped(0) };
        let methods = ["Ok", "Status12", "Http503"];
        runtime.block_on(async {
            let mut client = client(listener).await;
            for method in methods {
                let _ = call(&mut client, method).await;
                car.record();
            }
        });
        let page = Page::of(car.bound.admin.unwrap());
        car.ended();
        let spans = exports.spans(methods.len());
        let expected = [("it.End/Ok", "OK"), ("_OTHER", "UNIMPLEMENTED"), ("_OTHER", "UNAVAILABLE")];
        for ((method, (known, status)), exported) in methods.iter().zip(expected).zip(&spans) {
            let attributes = if inbound { check(&exported.span) } else { check_call(&exported.span) };
            assert_eq!(attributes.text("rpc.method"), Some(known), "RPC-3");
            let original = format!("it.End/{method}");
            let original = Some(original.as_str()).filter(|_| known == "_OTHER");
            assert_eq!(attributes.text("rpc.method_original"), original, "RPC-3");
            assert_eq!(attributes.text("rpc.response.status_code"), Some(status), "RPC-5");
            let http = (*method == "Http503").then_some(503);
            assert_eq!(attributes.integer("http.response.status_code"), http, "who answered was no gRPC");
            let metric = if inbound {
                "rpc_server_call_duration_seconds_count"
            } else {
                "rpc_client_call_duration_seconds_count"
            };
            let labels =
                [("rpc_system_name", "grpc"), ("rpc_method", known), ("rpc_response_status_code", status)];
            assert_eq!(page.sum(metric, &labels), 1.0, "RPC-10");
        }
        assert_eq!(page.sum("http_server_request_duration_seconds_count", &[]), 0.0, "RPC-15");
        assert_eq!(page.sum("http_client_request_duration_seconds_count", &[]), 0.0, "RPC-15");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_method_that_its_service_does_not_know_is_nobodys_name() {
    let (service, _told) = service().await;
    let yaml = "grpc: { methods: [ 'it.End/*' ] }";
    let car = TestCar::with(&format!("h2c://{service}"), yaml, |_| {});
    let mut client = client(car.address()).await;
    for (method, known) in [("Status5", Some("it.End/Status5")), ("Status12", None)] {
        let _ = call(&mut client, method).await;
        let record = car.record();
        let route = record.request.as_ref().unwrap().route.as_deref();
        let asked = format!("it.End/{method}");
        assert_eq!((record.known_rpc_method(), record.rpc_method()), (known, Some(asked.as_str())), "RPC-3");
        assert_eq!(route, known.map(|known| format!("/{known}")).as_deref());
    }
}
