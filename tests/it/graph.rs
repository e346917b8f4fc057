//! The service graph that a backend draws of our spans: three services that forward nothing, each behind its sidecar,
//! and what they call beside each other.
//!
//! The edges are made as Tempo's metrics generator makes them (SG-1 to SG-6), by rules that know nothing of ours.

use std::collections::{BTreeMap, BTreeSet};
use std::net::SocketAddr;
use std::sync::{Arc, OnceLock};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;
use opentelemetry_proto::tonic::trace::v1::status::StatusCode;

use crate::support::car::TestCar;
use crate::support::exports::{Exported, Exports};
use crate::support::origin::{Nowhere, Origin, Peer};
use crate::support::service::{call, destination};
use crate::support::spans::{Attributes, check, check_call};

/// Two services, and what lies between them.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Edge {
    client: String,
    server: String,
    /// Who is at one end is not known by a span of its own.
    is_virtual: bool,
}

/// How often, and how often of these in vain.
type Graph = BTreeMap<Edge, (u32, u32)>;

/// SG-5: where Tempo looks for the name of a peer, by default.
const PEER_ATTRIBUTES: [&str; 4] = ["peer.service", "db.name", "db.system", "db.system.name"];

/// The graph, and the spans of calls that have no place in it: nobody can tell whom they went to.
fn graph(spans: &[Exported]) -> (Graph, Vec<&Exported>) {
    let mut graph = Graph::new();
    let mut unpaired = Vec::new();
    let mut add = |client: &str, server: &str, is_virtual: bool, failed: bool| {
        let edge = Edge { client: client.to_owned(), server: server.to_owned(), is_virtual };
        let count = graph.entry(edge).or_default();
        *count = (count.0 + 1, count.1 + u32::from(failed));
    };
    let of_kind = |kind| spans.iter().filter(move |exported| exported.span.kind == kind as i32);
    // SG-2: the trace and the span of the client, the trace and the parent of the server.
    let mut servers: BTreeMap<(&[u8], &[u8]), &Exported> = BTreeMap::new();
    for server in of_kind(SpanKind::Server) {
        if server.span.parent_span_id.is_empty() {
            // SG-4.
            add("user", &server.service, true, failed(server));
            continue;
        }
        let twice = servers.insert((&server.span.trace_id, &server.span.parent_span_id), server);
        assert!(twice.is_none(), "one call arrives once: {server:#?}");
    }
    for client in of_kind(SpanKind::Client) {
        match servers.remove(&(&client.span.trace_id[..], &client.span.span_id[..])) {
            // SG-3: either side can say that it failed.
            Some(server) => add(&client.service, &server.service, false, failed(client) || failed(server)),
            None => {
                let attributes = Attributes::of(&client.span);
                match PEER_ATTRIBUTES.iter().find_map(|key| attributes.text(key)) {
                    Some(peer) => add(&client.service, peer, true, failed(client)),
                    None => unpaired.push(client),
                }
            }
        }
    }
    assert!(servers.is_empty(), "a request whose caller left no span: {servers:#?}");
    (graph, unpaired)
}

fn failed(exported: &Exported) -> bool {
    exported.span.status.as_ref().is_some_and(|status| status.code() == StatusCode::Error)
}

/// The ways out of a service.
struct Doors {
    proxy: SocketAddr,
    mapped: Option<SocketAddr>,
}

/// A service that calls what `calls` does for a path, and answers with the status that it returns; its sidecar.
fn service(
    name: &str,
    exports: &Exports,
    outbound: &str,
    calls: impl Fn(&str, &Doors) -> u16 + Send + Sync + 'static,
) -> TestCar {
    let doors: Arc<OnceLock<Doors>> = Arc::default();
    let known = doors.clone();
    let origin = Origin::new(move |peer| {
        while let Some(asked) = peer.request() {
            let path = asked.head.split(' ').nth(1).unwrap_or_default();
            let status = calls(path, known.get().expect("it is asked by its sidecar"));
            peer.send(format!("HTTP/1.1 {status} Said\r\nContent-Length: 0\r\n\r\n"));
        }
    });
    let yaml = format!("outbound: {{ proxy: '127.0.0.1:0' {outbound} }}\n{}", exports.yaml());
    let car =
        TestCar::with(&origin.url(), &yaml, |settings| name.clone_into(&mut settings.startup.service.name));
    let mapped = car.bound.mapped.first().copied();
    assert!(doors.set(Doors { proxy: car.proxy(), mapped }).is_ok(), "once");
    car
}

fn edge(client: &str, server: &str) -> Edge {
    Edge { client: client.to_owned(), server: server.to_owned(), is_virtual: false }
}

fn to_virtual(client: &str, server: &str) -> Edge {
    Edge { is_virtual: true, ..edge(client, server) }
}

#[test]
fn the_graph_of_the_spans_is_that_of_the_services() {
    const REQUESTS: u32 = 3;
    let mut exports = Exports::new();
    let (rates, _) = destination("HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n1");
    let (partner, seen) = destination("HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n");
    let (nameless, _) = destination("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let nowhere = Nowhere::new();

    let to_rates = format!("{}/eur", rates.url());
    let named = format!(", destinations: [ {{ host: '{}', name: rates }} ]", rates.address);
    let pricing = service("pricing", &exports, &named, move |path, doors| match path {
        "/price" => call(doors.proxy, &to_rates, "").status(),
        _ => 404,
    });
    let to_pricing = format!("http://{}", pricing.address());
    let gone = format!("http://{}/", nowhere.address);
    let named = format!(", destinations: [ {{ host: '{}', name: gone }} ]", nowhere.address);
    let catalog = service("catalog", &exports, &named, move |_, doors| {
        assert_eq!(call(doors.proxy, &format!("{to_pricing}/price"), "").status(), 200);
        assert_eq!(call(doors.proxy, &format!("{to_pricing}/unknown"), "").status(), 404);
        assert_eq!(call(doors.proxy, &gone, "").status(), 502);
        200
    });
    let to_catalog = format!("http://{}/items", catalog.address());
    let to_nameless = format!("{}/x", nameless.url());
    let outbound = format!(
        ", mapped: [ {{ listen: '127.0.0.1:0', to: '{}', name: partner }} ],\n\
         destinations: [ {{ host: '{}', strip: true }} ]",
        partner.url(),
        partner.address
    );
    let front = service("front", &exports, &outbound, move |_, doors| {
        assert_eq!(call(doors.proxy, &to_catalog, "").status(), 200);
        assert_eq!(call(doors.proxy, &to_nameless, "").status(), 200);
        let mut partner = Peer::connect(doors.mapped.expect("it has one"));
        partner.send("GET /offer HTTP/1.1\r\nHost: s\r\n\r\n");
        partner.response().status()
    });
    for _ in 0..REQUESTS {
        let mut user = Peer::connect(front.address());
        user.send("GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        assert_eq!(user.response().status(), 503);
        assert!(seen.recv().unwrap().header("traceparent").is_none());
    }
    // Callers first, so that nobody is called who has left.
    for car in [front, catalog, pricing] {
        car.ended();
    }

    // front, catalog, pricing twice; seven calls.
    let spans = exports.spans(11 * REQUESTS as usize);
    for Exported { span, .. } in &spans {
        match span.kind == SpanKind::Server as i32 {
            true => drop(check(span)),
            false => drop(check_call(span)),
        }
    }
    let traces: BTreeSet<_> = spans.iter().map(|exported| &exported.span.trace_id).collect();
    assert_eq!(traces.len(), REQUESTS as usize, "each request is one whole trace");

    let (graph, unpaired) = graph(&spans);
    let expected = Graph::from([
        (to_virtual("user", "front"), (REQUESTS, REQUESTS)),
        (edge("front", "catalog"), (REQUESTS, 0)),
        (to_virtual("front", "partner"), (REQUESTS, REQUESTS)),
        // A 404 is the caller's error, and so an edge that failed (SG-3).
        (edge("catalog", "pricing"), (2 * REQUESTS, REQUESTS)),
        (to_virtual("catalog", "gone"), (REQUESTS, REQUESTS)),
        (to_virtual("pricing", "rates"), (REQUESTS, 0)),
    ]);
    assert_eq!(graph, expected);
    assert!(graph.keys().all(|edge| edge.client != edge.server), "SG-6: nobody calls itself");
    // A destination without a name and without spans is not in the graph: only settings could name it.
    assert_eq!(unpaired.len(), REQUESTS as usize);
    for Exported { service, span, .. } in unpaired {
        let port = Attributes::of(span).integer("server.port");
        assert_eq!((&**service, port), ("front", Some(i64::from(nameless.address.port()))));
    }
}
