//! `tracecar demo`: three small services, each behind a tracecar of its own, and their traces on the terminal.
//!
//! Everything is real but the shop: sockets, HTTP, sidecars, export. The services know nothing of tracing; they
//! only send on the `traceparent` that they were called with.

use std::convert::Infallible;
use std::future::Future;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{HeaderValue, Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::app::{App, Parts};
use crate::config::{self, Flags, Sources};
use crate::telemetry::console::Console;

/// Between two visitors of the shop.
const PACE: Duration = Duration::from_millis(700);

/// How a service works: how long it takes, and whom it asks.
#[derive(Clone, Copy)]
struct Service {
    name: &'static str,
    routes: &'static str,
    work: Duration,
}

const SERVICES: [Service; 3] = [
    Service { name: "stock", routes: "['/stock/{item}']", work: Duration::from_millis(6) },
    Service { name: "orders", routes: "['/orders/{item}']", work: Duration::from_millis(14) },
    Service { name: "shop", routes: "['/buy/{item}']", work: Duration::from_millis(4) },
];

/// Runs the demo until `stop` is ready. `env` finds environment variables.
///
/// # Errors
/// If a socket cannot be bound, or the environment asks for what cannot be had.
pub fn run(stop: impl Future<Output = ()>, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    let color = std::io::stdout().is_terminal() && env("NO_COLOR").is_none_or(|value| value.is_empty());
    let console = Console::new(config::Console::Tree { color }, std::io::stdout());
    println!("Three services, each behind its own tracecar: shop -> orders -> stock. Ctrl-C ends it.\n");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let mut sidecars = Vec::new();
        let mut next = None;
        for service in SERVICES {
            let address = start(service, next).await?;
            let sidecar = sidecar(service, address, &console, env)?;
            next = Some(sidecar.address);
            sidecars.push(sidecar);
        }
        let shop = next.context("there is a shop")?;
        tokio::select! {
            () = stop => {}
            result = visit(shop) => result?,
        }
        // Front to back, so that no one is asked for what it can no longer get.
        while let Some(Sidecar { stop, thread, .. }) = sidecars.pop() {
            drop(stop);
            tokio::task::spawn_blocking(|| thread.join())
                .await?
                .map_err(|_| anyhow::anyhow!("a sidecar panicked"))??;
        }
        console.finish();
        anyhow::Ok(())
    })
}

struct Sidecar {
    address: SocketAddr,
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<anyhow::Result<()>>,
}

fn sidecar(
    service: Service,
    to: SocketAddr,
    console: &Console,
    env: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<Sidecar> {
    let Service { name, routes, .. } = service;
    let text = format!(
        "inbound: [{{ listen: 127.0.0.1:0, to: 'http://{to}' }}]\nroutes: {routes}\nadmin: {{ enabled: false }}\n\
         export: {{ console: off }}\n"
    );
    let flags = Flags { service: Some(name.to_owned()), ..Flags::default() };
    let loaded = config::load(&Sources { file: Some(("demo", &text)), env, flags: &flags, terminal: false })?;
    let app = App::bind(Parts { console: Some(console.clone()), ..Parts::new(loaded.settings) })?;
    let address = app.bound().inbound[0];
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new()
        .name(format!("{name}-sidecar"))
        .spawn(move || app.run(async move { drop(stopped.await) }, std::future::pending()))?;
    Ok(Sidecar { address, stop, thread })
}

/// Starts a service; `next` is whom it asks.
async fn start(service: Service, next: Option<SocketAddr>) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let answer = service_fn(move |request| async move {
                Ok::<_, Infallible>(answer(service, next, request).await)
            });
            tokio::spawn(
                hyper::server::conn::http1::Builder::new().serve_connection(TokioIo::new(stream), answer),
            );
        }
    });
    Ok(address)
}

async fn answer(
    service: Service,
    next: Option<SocketAddr>,
    request: Request<Incoming>,
) -> Response<Full<Bytes>> {
    let item = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
    let status = match (service.name, item.as_str()) {
        ("stock", "unicorn") => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::OK,
    };
    // The heavy thing has to be looked for.
    let slow = if service.name == "stock" && item == "anvil" { 20 } else { 1 };
    tokio::time::sleep(service.work * slow).await;
    let status = match (service.name, next) {
        (_, None) => status,
        (name, Some(next)) => {
            let path = if name == "shop" { format!("/orders/{item}") } else { format!("/stock/{item}") };
            let context = request.headers().get("traceparent").cloned();
            ask(next, &path, context).await.unwrap_or(StatusCode::BAD_GATEWAY)
        }
    };
    let body =
        format!("{{\"service\":\"{}\",\"item\":\"{item}\",\"ok\":{}}}\n", service.name, status.is_success());
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = if status.is_success() { StatusCode::OK } else { StatusCode::BAD_GATEWAY };
    if next.is_none() {
        *response.status_mut() = status;
    }
    response
}

async fn ask(address: SocketAddr, path: &str, context: Option<HeaderValue>) -> anyhow::Result<StatusCode> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let mut request = Request::get(path).header("host", address.to_string()).body(Empty::<Bytes>::new())?;
    if let Some(context) = context {
        request.headers_mut().insert("traceparent", context);
    }
    let response = sender.send_request(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status)
}

/// Visitors of the shop: most want something ordinary, some something heavy, a few something that does not exist.
async fn visit(shop: SocketAddr) -> anyhow::Result<()> {
    static VISITORS: AtomicU32 = AtomicU32::new(0);
    loop {
        let item = match VISITORS.fetch_add(1, Ordering::Relaxed) % 6 {
            2 => "anvil",
            4 => "unicorn",
            _ => "apple",
        };
        ask(shop, &format!("/buy/{item}"), None).await?;
        tokio::time::sleep(PACE).await;
    }
}
