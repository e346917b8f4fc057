//! Our own addresses, the service's port, and who is there.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;

use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::sidecar::{in_words, reachable};
use super::{CONNECT, Check, side_by_side};
use crate::config::{Inbound, Live, Startup, Timeouts, Upstream};
use crate::exchange::Method;
use crate::net::connector::Connector;
use crate::net::pem_files::PemFiles;
use crate::net::process::{Listens, who_listens};
use crate::net::tls::ServiceTls;
use crate::net::upstream::SendError;

/// Whether each address is free, or taken by the tracecar that runs.
pub(super) async fn listeners(startup: &Startup, running: bool) -> Vec<Check> {
    let mut addresses: Vec<(&'static str, SocketAddr)> =
        startup.inbound.iter().map(|inbound| ("inbound", inbound.listen)).collect();
    if let Some(outbound) = &startup.outbound {
        addresses.extend(outbound.proxy.map(|address| ("outbound.proxy", address)));
        addresses.extend(outbound.mapped.iter().map(|mapped| ("outbound.mapped", mapped.listen)));
        addresses.extend(outbound.transparent.map(|address| ("outbound.transparent", address)));
    }
    // Who answers at the admin address was asked already; whether it is free matters where nobody does.
    addresses.extend(startup.admin.filter(|_| !running).map(|address| ("admin", address)));
    let known = addresses.into_iter().filter(|(_, address)| address.port() != 0);
    side_by_side(known.map(|(name, address)| listener(name, address, running)).collect()).await
}

async fn listener(name: &'static str, address: SocketAddr, running: bool) -> Check {
    let taken = match try_to_bind(address) {
        Ok(()) => false,
        Err(error) if error.kind() == ErrorKind::AddrInUse => true,
        Err(error) => {
            let words = format!("cannot listen on {address}: {}", in_words(&error));
            let advice = match error.kind() {
                ErrorKind::PermissionDenied => {
                    "ports below 1024 need a right: take one above, or NET_BIND_SERVICE"
                }
                ErrorKind::AddrNotAvailable => {
                    "this machine does not have the address; 0.0.0.0 means all that it has"
                }
                _ => "choose another address",
            };
            return Check::problem(name, words, advice);
        }
    };
    match (taken, running) {
        (false, false) => Check::ok(name, format!("{address} is free")),
        (false, true) => {
            let words = format!("tracecar runs, and nobody listens on {address}");
            Check::problem(name, words, "does it run with other settings? --admin says which one is asked")
        }
        (true, true) => match timeout(CONNECT, TcpStream::connect(reachable(address))).await {
            Ok(Ok(_)) => Check::ok(name, format!("listens on {address}")),
            _ => {
                let words = format!("{address} is taken, and accepts no connections");
                Check::problem(
                    name,
                    words,
                    "it is overloaded, out of descriptors, or a firewall is in between",
                )
            }
        },
        (true, false) => {
            let port = address.port();
            let by = match listens(port).await {
                Listens::Process(process) => format!(" by process {process}"),
                _ => String::new(),
            };
            let words = format!("{address} is taken{by}, and no tracecar answers at the admin pages");
            let advice = format!("see who it is with: ss -ltnp 'sport = :{port}'");
            Check::problem(name, words, advice)
        }
    }
}

/// Binds and does not listen: a tracecar that starts at this moment is not disturbed.
fn try_to_bind(address: SocketAddr) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() && address.ip().is_unspecified() {
        socket.set_only_v6(false)?;
    }
    socket.bind(&address.into())
}

/// Whether each service accepts connections, and whether its process can be seen.
pub(super) async fn services(startup: &Startup, live: &Live) -> Vec<Check> {
    let timeouts = Timeouts { connect: live.timeouts.connect.min(CONNECT), ..live.timeouts };
    let asked = startup.inbound.iter().map(|inbound| service(inbound.clone(), timeouts));
    let mut checks = side_by_side(asked.collect()).await;
    if startup.outbound.is_some() && !live.process_budget.is_zero() && live.lineage.uses(Method::Process) {
        for inbound in &startup.inbound {
            checks.push(process(&inbound.to).await);
        }
    }
    checks
}

async fn service(Inbound { to, to_tls, .. }: Inbound, timeouts: Timeouts) -> Check {
    let name = "service";
    let tls = PemFiles::read(to_tls.files()).and_then(|files| ServiceTls::to(&to_tls, &files));
    let connector = match tls {
        Ok(tls) => Connector { tls: Arc::new(tls), ..Connector::default() },
        Err(error) => {
            let advice = "tracecar does not start with this; see to_tls of the listener";
            return Check::problem(name, error.to_string(), advice);
        }
    };
    let error = match connector.reach(&to, &timeouts).await {
        Ok(_) => return Check::ok(name, format!("{to} accepts connections")),
        Err(error) => error,
    };
    let advice = match &error {
        SendError::Unresolved(..) => "is the name right, and does this network know it?",
        SendError::Refused => {
            "start the service; if it runs, it listens on another port or address (in a pod: on 127.0.0.1 or 0.0.0.0)"
        }
        SendError::Certificate(_) => {
            "its certificate is always verified: name the CA that signed it in to_tls.ca, and its name in to_tls.server_name"
        }
        SendError::Tls(_) => "it does not speak TLS as we do: is it http:// that should stand in `to`?",
        _ => "a firewall or a network policy may be in between, or the service hangs",
    };
    Check::problem(name, format!("{to}: {error}"), advice)
}

/// Whether the process of the service can be seen, which `lineage` may ask for.
async fn process(to: &Upstream) -> Check {
    let name = "process table";
    let leave = "or leave process out of lineage.methods";
    match listens(to.port).await {
        Listens::Process(process) => {
            Check::ok(name, format!("the service on port {} is process {process}", to.port))
        }
        Listens::Unseen => {
            let words = format!("the process that listens on port {} cannot be seen", to.port);
            let advice = format!(
                "run tracecar as the same user (or with SYS_PTRACE), in a pod with shareProcessNamespace: true; {leave}"
            );
            Check::warning(name, words, advice)
        }
        Listens::Nobody => {
            let words =
                format!("nobody on this host listens on port {}, so no process can be found", to.port);
            Check::warning(name, words, format!("start the service, if it is here; {leave}"))
        }
    }
}

async fn listens(port: u16) -> Listens {
    tokio::task::spawn_blocking(move || who_listens(port)).await.unwrap_or(Listens::Unseen)
}
