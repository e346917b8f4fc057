//! `tracecar demo`: three small services, each behind a tracecar of its own, and their traces on the terminal.
//!
//! Everything is real but the shop: sockets, HTTP, sidecars, export. The services know nothing of tracing and forward
//! nothing: each calls the next through a mapped listener of its own sidecar, which finds out what caused the call. The
//! tree says beside each call how.

use std::convert::Infallible;
use std::future::Future;
use std::io::IsTerminal;
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use anyhow::Context;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty, Full};
use hyper::body::Incoming;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use crate::app::{App, Parts};
use crate::config::{self, Flags, Sources};
use crate::exchange::random_bytes;
use crate::telemetry::console::Console;

/// Between two visitors of the shop.
const PACE: Duration = Duration::from_millis(400);

/// The first visitors, until tracecar has watched the services at rest for two seconds, have a number of their order each.
const WITH_ORDER: u32 = 6;

/// Visitors before two come at once: by then each service has called the next often enough to be known.
const ALONE: u32 = 20;

/// How a service works: how long it takes, and whom it asks.
#[derive(Clone, Copy)]
struct Service {
    name: &'static str,
    routes: &'static str,
    work: Duration,
}

const SERVICES: [Service; 3] = [
    Service {
        name: "stock",
        routes: "['/stock/{item}', '/stock/{item}/{order}']",
        work: Duration::from_millis(6),
    },
    Service {
        name: "orders",
        routes: "['/orders/{item}', '/orders/{item}/{order}']",
        work: Duration::from_millis(14),
    },
    Service {
        name: "shop",
        routes: "['/buy/{item}', '/buy/{item}/{order}']",
        work: Duration::from_millis(4),
    },
];

/// Where a service finds the next one: a mapped listener of its own sidecar, which is there a moment after itself.
type Next = Arc<OnceLock<SocketAddr>>;

/// Runs the demo until `stop` is ready. `env` finds environment variables.
///
/// # Errors
/// If a socket cannot be bound, or the environment asks for what cannot be had.
pub fn run(stop: impl Future<Output = ()>, env: &dyn Fn(&str) -> Option<String>) -> anyhow::Result<()> {
    let color = std::io::stdout().is_terminal() && env("NO_COLOR").is_none_or(|value| value.is_empty());
    let console = Console::new(config::Console::Tree { color }, std::io::stdout());
    println!("Three services, each beside its own tracecar: shop -> orders -> stock. Ctrl-C ends it.");
    println!("They forward no header; an arrow says how the cause of a call was found.\n");
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().context("cannot start")?;
    runtime.block_on(async {
        let mut sidecars = Vec::new();
        let mut next = None;
        for service in SERVICES {
            let egress = Next::default();
            let address = start(service, egress.clone()).await?;
            let sidecar = sidecar(service, address, next.take(), &console, env)?;
            if let Some(mapped) = sidecar.mapped {
                let _ = egress.set(mapped);
            }
            next = Some((service.name, sidecar.address));
            sidecars.push(sidecar);
        }
        let (_, shop) = next.context("there is a shop")?;
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
    /// Where the service reaches the next one, if there is one.
    mapped: Option<SocketAddr>,
    stop: oneshot::Sender<()>,
    thread: std::thread::JoinHandle<anyhow::Result<()>>,
}

fn sidecar(
    service: Service,
    to: SocketAddr,
    next: Option<(&'static str, SocketAddr)>,
    console: &Console,
    env: &dyn Fn(&str) -> Option<String>,
) -> anyhow::Result<Sidecar> {
    let Service { name, routes, .. } = service;
    let mapped = next.map_or(String::new(), |(next, address)| {
        format!("{{ listen: 127.0.0.1:0, to: 'http://{address}', name: {next} }}")
    });
    let text = format!(
        "inbound: [{{ listen: 127.0.0.1:0, to: 'http://{to}' }}]\noutbound: {{ mapped: [{mapped}] }}\n\
         routes: {routes}\nadmin: {{ enabled: false }}\nexport: {{ console: off }}\n"
    );
    let flags = Flags { service: Some(name.to_owned()), ..Flags::default() };
    let loaded = config::load(&Sources {
        file: Some(("demo", &text)),
        env,
        read: &config::read_file,
        flags: &flags,
        terminal: false,
    })?;
    let app = App::bind(Parts { console: Some(console.clone()), ..Parts::new(loaded.settings) })?;
    let (address, mapped) = (app.bound().inbound[0], app.bound().mapped.first().copied());
    let (stop, stopped) = oneshot::channel::<()>();
    let thread = std::thread::Builder::new()
        .name(format!("{name}-sidecar"))
        .spawn(move || app.run(async move { drop(stopped.await) }, std::future::pending()))?;
    Ok(Sidecar { address, mapped, stop, thread })
}

/// Starts a service; `next` is whom it asks.
async fn start(service: Service, next: Next) -> anyhow::Result<SocketAddr> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let address = listener.local_addr()?;
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let next = next.clone();
            let answer = service_fn(move |request| {
                let next = next.get().copied();
                async move { Ok::<_, Infallible>(answer(service, next, request).await) }
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
    // What is wanted, and for some visitors the number of their order: `/buy/apple/7d3f…`.
    let wanted = request.uri().path().trim_start_matches('/').split_once('/').map_or("", |(_, rest)| rest);
    let item = wanted.split('/').next().unwrap_or_default();
    let status = match (service.name, item) {
        ("stock", "unicorn") => StatusCode::INTERNAL_SERVER_ERROR,
        _ => StatusCode::OK,
    };
    // The heavy thing has to be looked for.
    let slow = if service.name == "stock" && item == "anvil" { 20 } else { 1 };
    tokio::time::sleep(service.work * slow).await;
    let status = match (service.name, next) {
        (_, None) => status,
        (name, Some(next)) => {
            let path = if name == "shop" { format!("/orders/{wanted}") } else { format!("/stock/{wanted}") };
            ask(next, &path).await.unwrap_or(StatusCode::BAD_GATEWAY)
        }
    };
    let body =
        format!("{{\"service\":\"{}\",\"item\":\"{item}\",\"ok\":{}}}\n", service.name, status.is_success());
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = match next {
        None => status,
        Some(_) if status.is_success() => StatusCode::OK,
        Some(_) => StatusCode::BAD_GATEWAY,
    };
    response
}

async fn ask(address: SocketAddr, path: &str) -> anyhow::Result<StatusCode> {
    let stream = TcpStream::connect(address).await?;
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    tokio::spawn(connection);
    let request = Request::get(path).header("host", address.to_string()).body(Empty::<Bytes>::new())?;
    let response = sender.send_request(request).await?;
    let status = response.status();
    response.into_body().collect().await?;
    Ok(status)
}

/// Visitors of the shop: most want something ordinary, some something heavy, a few something that does not exist. Who
/// comes alone needs no order number to be told from others, once the services are known; two at once have one each.
async fn visit(shop: SocketAddr) -> anyhow::Result<()> {
    for visit in 0_u32.. {
        let item = match visit % 6 {
            2 => "anvil",
            4 => "unicorn",
            _ => "apple",
        };
        if visit < WITH_ORDER {
            ask(shop, &format!("/buy/{item}/{}", order())).await?;
        } else if visit >= ALONE && visit % 3 == 1 {
            let [one, other] = [order(), order()].map(|order| format!("/buy/{item}/{order}"));
            let (one, other) = tokio::join!(ask(shop, &one), ask(shop, &other));
            one.and(other)?;
        } else {
            ask(shop, &format!("/buy/{item}")).await?;
        }
        tokio::time::sleep(PACE).await;
    }
    Ok(())
}

/// The number of an order.
fn order() -> uuid::Uuid {
    uuid::Builder::from_random_bytes(random_bytes()).into_uuid()
}
