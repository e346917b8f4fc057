//! What reading and writing one head of HTTP/1 costs: time by criterion, and allocations counted once.
//!
//! `cargo bench --bench h1`

use std::alloc::{GlobalAlloc, Layout, System};
use std::hint::black_box;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::BytesMut;
use criterion::{Criterion, Throughput, criterion_group};
use http::header::CONNECTION;
use http::{HeaderValue, Method};
use tracecar::wire::h1::head::{self, RequestHead, ResponseHead};
use tracecar::wire::h1::{Limits, write};

/// The system's allocator, counting.
struct Counting;

static ALLOCATIONS: AtomicU64 = AtomicU64::new(0);

// SAFETY: everything is left to the system's allocator; a counter is added beside it. There is no way to count
// allocations without implementing this unsafe trait, and the product itself does not contain it.
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        ALLOCATIONS.fetch_add(1, Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, pointer: *mut u8, layout: Layout) {
        unsafe { System.dealloc(pointer, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const LIMITS: Limits = Limits { head_bytes: 65_536, lines: 200, target_bytes: 8192 };

/// A request as browsers send it through another proxy.
const REQUEST: &str = "POST /orders/42?x=1 HTTP/1.1\r\nHost: shop.example:8080\r\n\
    User-Agent: Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0\r\n\
    Accept: application/json\r\nAccept-Encoding: gzip, br\r\nAccept-Language: en-GB,en;q=0.8\r\n\
    Content-Type: application/json\r\nContent-Length: 198\r\nConnection: keep-alive\r\n\
    Cookie: session=0123456789abcdef0123456789abcdef\r\nX-Tenant-Id: blue\r\n\
    X-Forwarded-For: 203.0.113.9\r\n\r\n";

const RESPONSE: &str = "HTTP/1.1 200 OK\r\nServer: nginx/1.27\r\nDate: Sat, 21 Nov 2026 20:00:00 GMT\r\n\
    Content-Type: application/json\r\nContent-Length: 1234\r\nConnection: keep-alive\r\n\
    X-Request-Id: 0123456789abcdef\r\nCache-Control: no-store\r\n\r\n";

/// Puts bytes into a buffer as a socket does, which has its memory already.
fn fill(buffer: &mut BytesMut, bytes: &str) {
    buffer.clear();
    buffer.reserve(8192);
    buffer.extend_from_slice(bytes.as_bytes());
}

fn read_request(buffer: &mut BytesMut) -> RequestHead {
    fill(buffer, REQUEST);
    head::request(buffer, &mut 0, &LIMITS).expect("a good request").expect("a whole request")
}

fn read_response(buffer: &mut BytesMut) -> ResponseHead {
    fill(buffer, RESPONSE);
    head::response(buffer, &mut 0, &LIMITS, &Method::GET).expect("a good response").expect("a whole response")
}

fn write_request(out: &mut Vec<u8>, head: &RequestHead) {
    out.clear();
    write::request_line(out, head.request.method(), head.request.uri(), Some(&head.layout));
    write::fields(out, head.request.headers(), Some(&head.layout));
}

fn write_response(out: &mut Vec<u8>, head: &ResponseHead) {
    out.clear();
    write::status_line(out, head.response.status(), Some(&head.layout));
    write::fields(out, head.response.headers(), Some(&head.layout));
}

/// What a proxy makes of a request: one line less, five more.
fn rewrite(head: &mut RequestHead) {
    let headers = head.request.headers_mut();
    headers.remove(CONNECTION);
    headers.append("x-forwarded-for", HeaderValue::from_static("10.0.0.1"));
    for (name, value) in [
        ("x-forwarded-proto", "http"),
        ("via", "1.1 tracecar"),
        ("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-03"),
        ("x-correlation-id", "0af7651916cd43dd8448eb211c80319c"),
    ] {
        headers.insert(name, HeaderValue::from_static(value));
    }
}

/// Allocations of one call.
fn allocations<T>(call: impl FnOnce() -> T) -> u64 {
    let before = ALLOCATIONS.load(Ordering::Relaxed);
    let result = black_box(call());
    let after = ALLOCATIONS.load(Ordering::Relaxed);
    drop(result);
    after - before
}

/// One line for each case; nothing else runs yet, so the count is exact.
fn print_allocations() {
    let (mut buffer, mut out) = (BytesMut::with_capacity(8192), Vec::with_capacity(4096));
    // The first one makes the buffer one that can be shared.
    let mut request = read_request(&mut buffer);
    println!("read/request: {} allocations", allocations(|| read_request(&mut buffer)));
    println!("read/response: {} allocations", allocations(|| read_response(&mut buffer)));
    rewrite(&mut request);
    println!("write/request, rewritten: {} allocations", allocations(|| write_request(&mut out, &request)));
}

fn time(criterion: &mut Criterion) {
    let (mut buffer, mut out) = (BytesMut::with_capacity(8192), Vec::with_capacity(4096));
    let mut group = criterion.benchmark_group("read");
    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    group.bench_function("request", |bencher| bencher.iter(|| read_request(&mut buffer)));
    group.throughput(Throughput::Bytes(RESPONSE.len() as u64));
    group.bench_function("response", |bencher| bencher.iter(|| read_response(&mut buffer)));
    group.finish();

    let mut group = criterion.benchmark_group("write");
    let mut request = read_request(&mut buffer);
    group.throughput(Throughput::Bytes(REQUEST.len() as u64));
    group.bench_function("request, as it came", |bencher| bencher.iter(|| write_request(&mut out, &request)));
    rewrite(&mut request);
    write_request(&mut out, &request);
    group.throughput(Throughput::Bytes(out.len() as u64));
    group.bench_function("request, rewritten", |bencher| bencher.iter(|| write_request(&mut out, &request)));
    let mut response = read_response(&mut buffer);
    response.response.headers_mut().remove(CONNECTION);
    write_response(&mut out, &response);
    group.throughput(Throughput::Bytes(out.len() as u64));
    group.bench_function("response", |bencher| bencher.iter(|| write_response(&mut out, &response)));
    group.finish();
}

criterion_group!(benches, time);

fn main() {
    print_allocations();
    benches();
    Criterion::default().configure_from_args().final_summary();
}
