//! The whole transparent path: the redirect script, tracecar as the user that it spares, an app that knows of neither, and
//! servers in the world. What they see, and what the spans say.
//!
//! Needs what the tests of the script need; without it each test says that it was skipped.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use serde_json::Value;

use crate::intercept::LocalCa;
use crate::support::PATIENCE;
use crate::support::namespaces::{APP_V4, Namespaces, Side, WORLD_V4, WORLD_V6};
use crate::support::origin::{Message, Origin, Peer};
use crate::support::page::Page;
use crate::support::program::{self, Program, Start};
use crate::support::secure::{Trust, service_on};
use crate::transparent::{APP, TRACECAR, each_backend, redirect, told};

/// Where the listener for redirected connections is, as the script expects it: for both families.
const TRANSPARENT: u16 = 15001;

/// Both namespaces, rules that redirect, and tracecar where they lead.
struct Pod {
    namespaces: Namespaces,
    backend: &'static str,
    car: Program,
    _file: program::File,
}

impl Pod {
    /// One for each way of redirecting, with that much more configuration, and the script run in that environment.
    fn each(yaml: &str, environment: &[(&str, &str)], fact: impl Fn(&Self)) {
        Self::each_with("", yaml, environment, fact);
    }

    /// The same with more settings of the way out.
    fn each_with(outbound: &str, yaml: &str, environment: &[(&str, &str)], fact: impl Fn(&Self)) {
        each_backend(|namespaces, backend| {
            let text = format!(
                "service: {{ name: shop }}\ninbound: [{{ listen: '0.0.0.0:8080', to: 'http://127.0.0.1:3000' }}]\n\
                 outbound: {{ transparent: '[::]:{TRANSPARENT}', {outbound} }}\nexport: {{ console: on }}\n{yaml}\n"
            );
            let file = program::File::new(&text);
            open_to_all(&file.path);
            let mut command = namespaces.command(Side::App, TRACECAR, env!("CARGO_BIN_EXE_tracecar"));
            command.args(["run", "--config", file.name()]);
            let car = Start::by(command).run();
            let output = redirect(&namespaces, backend, &[], environment);
            assert!(output.status.success(), "{backend}: {}", told(&output));
            fact(&Self { namespaces, backend, car, _file: file });
        });
    }

    /// A server in the world that does as it is told.
    fn world(&self, address: &str, script: impl Fn(&mut Peer) + Send + Sync + 'static) -> Origin {
        Origin::on(self.bound(Side::World, address), script)
    }

    /// One that answers each request with 200, and shows what it was asked.
    fn web(&self, address: &str) -> (Origin, Receiver<Message>) {
        let (asked, asks) = channel();
        let asked = Mutex::new(asked);
        let script = move |peer: &mut Peer| {
            while let Some(request) = peer.request() {
                let _ = asked.lock().unwrap().send(request);
                peer.send("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nworld");
            }
        };
        (self.world(address, script), asks)
    }

    fn bound(&self, side: Side, address: &str) -> TcpListener {
        self.namespaces.inside(side, || TcpListener::bind(address).expect(address))
    }

    /// What curl prints for the app's user, with nothing in its environment.
    fn curl(&self, arguments: &[&str]) -> String {
        let mut command = self.namespaces.command(Side::App, APP, "curl");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.args(["--silent", "--show-error", "--max-time", "20", "--globoff"]).args(arguments);
        told(&command.output().expect("ip is there"))
    }

    /// A connection of an app, which is root this time.
    fn connect(&self, address: &str) -> Peer {
        let address: SocketAddr = address.parse().expect("an address");
        self.namespaces
            .inside(Side::App, || Peer::new(TcpStream::connect(address).expect("it is redirected")))
    }

    fn span(&self) -> Value {
        serde_json::from_str(&self.car.line()).expect("a line of JSON")
    }

    fn metrics(&self) -> Page {
        let admin = self.car.admin;
        self.namespaces.inside(Side::App, || Page::of(admin))
    }
}

/// The folders and files of tests are for their owner alone, and here are others.
fn open_to_all(path: &Path) {
    for (path, mode) in [(path.parent().expect("a folder"), 0o755), (path, 0o644)] {
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).expect("it is ours");
    }
}

fn attribute<'s>(span: &'s Value, key: &str) -> &'s Value {
    &span["attributes"][key]
}

/// Where a span says that it went: name and port that were asked for, and the address.
fn went_to(span: &Value) -> [String; 4] {
    ["server.address", "server.port", "network.peer.address", "network.peer.port"].map(|key| match attribute(
        span, key,
    ) {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    })
}

/// How a connection that nobody serves ends for an app that says `words`. The first to hear of a reset, be it the writer
/// or the reader, takes the news away.
fn ends_with(mut peer: Peer, words: &[u8]) -> ErrorKind {
    let mut rest = Vec::new();
    match peer.stream.write_all(words).and_then(|()| peer.stream.read_to_end(&mut rest)) {
        Ok(_) => panic!("it looks as if {:?} were the answer", String::from_utf8_lossy(&rest)),
        Err(error) => error.kind(),
    }
}

#[test]
fn plain_http_is_seen_though_nobody_was_asked() {
    Pod::each("", &[], |pod| {
        let (_v4, asks) = pod.web(&format!("{WORLD_V4}:80"));
        let (_v6, asks_v6) = pod.web(&format!("[{WORLD_V6}]:80"));
        let resolve = format!("shop.example:80:{WORLD_V4}");
        let urls = ["http://shop.example/a?token=secret", "http://shop.example/b"];
        assert_eq!(pod.curl(&["--resolve", &resolve, urls[0], urls[1]]), "worldworld", "{}", pod.backend);
        let mut traces = Vec::new();
        for url in ["http://shop.example/a?token=REDACTED", "http://shop.example/b"] {
            let span = pod.span();
            assert_eq!((&span["name"], &span["kind"]), (&"GET".into(), &"CLIENT".into()));
            assert_eq!(attribute(&span, "url.full"), url);
            assert_eq!(attribute(&span, "http.response.status_code"), 200);
            assert_eq!(went_to(&span), ["shop.example", "80", WORLD_V4, "80"]);
            let asked = asks.recv_timeout(PATIENCE).unwrap();
            assert_eq!(asked.header("host"), Some("shop.example"));
            let (trace, id) = (span["trace_id"].as_str().unwrap(), span["span_id"].as_str().unwrap());
            assert_eq!(asked.header("traceparent"), Some(&*format!("00-{trace}-{id}-03")));
            traces.push(trace.to_owned());
        }
        assert_ne!(traces[0], traces[1], "one connection, two calls");
        assert_eq!(pod.metrics().count("tracecar_connections_accepted_total"), 1, "curl kept it");
        assert_eq!(pod.metrics().count("tracecar_upstream_connections_total"), 1, "so did tracecar");

        assert_eq!(pod.curl(&[&format!("http://[{WORLD_V6}]/")]), "world", "{}", pod.backend);
        let span = pod.span();
        assert_eq!(attribute(&span, "url.full"), &*format!("http://[{WORLD_V6}]/"));
        assert_eq!(went_to(&span), [WORLD_V6, "80", WORLD_V6, "80"]);
        assert!(asks_v6.recv_timeout(PATIENCE).unwrap().header("traceparent").is_some());
    });
}

#[test]
fn https_passes_unseen_and_leaves_one_span_of_a_tunnel() {
    Pod::each("", &[], |pod| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _entered = runtime.enter();
        let trust = Trust::new();
        let ca = trust.folder.path().join("ca.pem");
        open_to_all(&ca);
        let listener = pod.bound(Side::World, &format!("{WORLD_V4}:443"));
        let (_, sees) = service_on(listener, trust.server("shop.example", &["h2", "http/1.1"]));
        let resolve = format!("shop.example:443:{WORLD_V4}");
        let asked = ["--cacert", ca.to_str().unwrap(), "--resolve", &resolve, "--data", "hello"];
        assert_eq!(pod.curl(&[&asked[..], &["https://shop.example/secret"]].concat()), "hello");
        let request = sees.recv_timeout(PATIENCE).unwrap().request;
        assert!(request.headers().get("traceparent").is_none());
        let span = pod.span();
        assert_eq!((&span["name"], &span["kind"]), (&"tunnel".into(), &"CLIENT".into()), "{}", pod.backend);
        // The name is the app's claim; the address is where it went.
        assert_eq!(went_to(&span), ["shop.example", "443", WORLD_V4, "443"]);
        assert_eq!(attribute(&span, "tracecar.tunnel.unseen"), true);
        assert_eq!(attribute(&span, "tracecar.outcome"), "complete");
        assert!(attribute(&span, "tracecar.request.bytes").as_u64() > Some(200), "{span}");
        assert!(attribute(&span, "tracecar.response.bytes").as_u64() > Some(500), "{span}");
        let text = span.to_string();
        assert!(!text.contains("http.") && !text.contains("url.") && !text.contains("secret"), "{text}");
        assert_eq!(pod.metrics().count("tracecar_records_total"), 1);
        assert_eq!(pod.metrics().count("tracecar_upstream_connections_total"), 1);
    });
}

#[test]
fn tls_that_is_looked_into_is_seen_and_goes_to_its_real_address() {
    let (local, services) = (LocalCa::new(), Trust::new());
    let ca = services.folder.path().join("ca.pem");
    for file in [ca.clone(), local.path("local.pem").into(), local.path("local.key").into()] {
        open_to_all(&file);
    }
    let outbound = format!("certificate: '{}', {}", ca.display(), local.setting("'*.example'"));
    Pod::each_with(&outbound, "", &[], |pod| {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let _entered = runtime.enter();
        let listener = pod.bound(Side::World, &format!("[{WORLD_V6}]:443"));
        let (_, sees) = service_on(listener, services.server("shop.example", &["h2", "http/1.1"]));
        let resolve = format!("shop.example:443:[{WORLD_V6}]");
        let url = "https://shop.example/seen";
        let asked = |ca: &str, more: &str| {
            pod.curl(&["--cacert", ca, "--resolve", &resolve, "--data", "hello", more, url])
        };
        for version in ["--http1.1", "--http2"] {
            assert_eq!(asked(&local.path("local.pem"), version), "hello", "{}", pod.backend);
            let span = pod.span();
            assert_eq!((attribute(&span, "url.full"), &span["name"]), (&url.into(), &"POST".into()));
            assert_eq!(went_to(&span), ["shop.example", "443", WORLD_V6, "443"]);
            let request = sees.recv_timeout(PATIENCE).unwrap().request;
            assert!(request.headers().contains_key("traceparent"));
        }
        // An app that does not trust the CA fails once, and is left alone then.
        let ca = ca.to_str().unwrap();
        assert!(asked(ca, "--http1.1").starts_with("curl: (60) "), "{}", pod.backend);
        let span = pod.span();
        let note = attribute(&span, "tracecar.note").as_str().unwrap();
        assert!(note.starts_with("the client refused our certificate"), "{span}");
        assert_eq!(attribute(&span, "server.address"), "shop.example");
        assert_eq!(asked(ca, "--http1.1"), "hello");
        let span = pod.span();
        assert_eq!(
            (&span["name"], attribute(&span, "tracecar.tunnel.unseen")),
            (&"tunnel".into(), &true.into())
        );
        assert!(attribute(&span, "tracecar.note").is_string(), "{span}");
    });
}

#[test]
fn what_is_no_http_passes_whoever_speaks_first() {
    Pod::each("", &[("TRACECAR_PORTS", "all")], |pod| {
        let _mail = pod.world(&format!("{WORLD_V4}:25"), |peer| {
            peer.send("220 mail\r\n");
            let heard = peer.rest().unwrap_or_default();
            peer.send([b"heard ", &heard[..]].concat());
        });
        let _store = pod.world(&format!("[{WORLD_V6}]:6379"), |peer| {
            let heard = peer.exactly(4);
            peer.send(heard);
        });
        // The server begins.
        let mut mail = pod.connect(&format!("{WORLD_V4}:25"));
        assert_eq!(mail.line().as_deref(), Some("220 mail\r\n"));
        mail.send("QUIT\r\n");
        mail.finish_sending();
        assert_eq!(mail.rest().unwrap(), b"heard QUIT\r\n", "a closed half is passed on");
        let span = pod.span();
        assert_eq!(went_to(&span), [WORLD_V4, "25", WORLD_V4, "25"], "{}", pod.backend);
        let bytes = |span: &Value| {
            ["request", "response"].map(|way| attribute(span, &format!("tracecar.{way}.bytes")).as_u64())
        };
        assert_eq!((bytes(&span), &span["name"]), ([Some(6), Some(22)], &"tunnel".into()));
        // The client begins, with no text.
        let mut store = pod.connect(&format!("[{WORLD_V6}]:6379"));
        store.send([0, 0xff, b'\r', b'\n']);
        assert_eq!(store.rest().unwrap(), [0, 0xff, b'\r', b'\n']);
        drop(store);
        let span = pod.span();
        assert_eq!(
            (went_to(&span), bytes(&span)),
            ([WORLD_V6, "6379", WORLD_V6, "6379"].map(String::from), [Some(4), Some(4)])
        );
        // The client has nothing to say from the beginning.
        let mut mail = pod.connect(&format!("{WORLD_V4}:25"));
        mail.finish_sending();
        assert_eq!(mail.rest().unwrap(), b"220 mail\r\nheard ");
        assert_eq!(bytes(&pod.span()), [Some(0), Some(16)]);
    });
}

#[test]
fn a_client_that_takes_its_time_is_seen_all_the_same() {
    Pod::each("", &[], |pod| {
        let (_web, asks) = pod.web(&format!("{WORLD_V4}:80"));
        let mut slow = pod.connect(&format!("{WORLD_V4}:80"));
        // It was silent for so long that tracecar has asked the far side whether it would begin.
        let connects = || pod.metrics().count("tracecar_upstream_connections_total");
        let deadline = std::time::Instant::now() + PATIENCE;
        while connects() == 0 {
            assert!(std::time::Instant::now() < deadline, "nobody asked the far side");
            std::thread::yield_now();
        }
        slow.send("GET /late HTTP/1.1\r\nHost: shop.example\r\n\r\n");
        assert_eq!(slow.response().text(), "world");
        assert!(asks.recv_timeout(PATIENCE).unwrap().header("traceparent").is_some());
        assert_eq!(attribute(&pod.span(), "url.full"), "http://shop.example/late");
    });
}

#[test]
fn where_nobody_listens_the_app_sees_a_reset_and_the_span_says_why() {
    Pod::each("timeouts: { connect: 300ms }", &[("TRACECAR_PORTS", "all")], |pod| {
        // One that refuses, one that never answers, and one that a rule is against.
        for (address, outcome) in [
            (format!("{WORLD_V4}:81"), "upstream_refused"),
            ("198.51.100.99:443".to_owned(), "upstream_connect_timeout"),
            ("169.254.169.254:443".to_owned(), "rejected"),
        ] {
            let ended = ends_with(pod.connect(&address), b"\0binary");
            assert_eq!(ended, ErrorKind::ConnectionReset, "{address} {}", pod.backend);
            let span = pod.span();
            assert_eq!(attribute(&span, "tracecar.outcome"), outcome, "{span}");
            assert!(attribute(&span, "tracecar.detail").is_string(), "{span}");
            assert_eq!(attribute(&span, "server.address"), address.split(':').next().unwrap());
        }
        // To HTTP an answer can be given.
        let url = format!("http://{WORLD_V4}:81/a");
        assert!(pod.curl(&[&url]).starts_with("502 Bad Gateway\n"), "{}", pod.backend);
        let span = pod.span();
        assert_eq!(
            (attribute(&span, "url.full"), attribute(&span, "error.type")),
            (&url.into(), &"connection_refused".into())
        );
    });
}

#[test]
fn who_connects_directly_is_refused_and_counted() {
    Pod::each("", &[], |pod| {
        for (count, host) in ["127.0.0.1", "[::1]", APP_V4].into_iter().enumerate() {
            let peer = pod.connect(&format!("{host}:{TRANSPARENT}"));
            let ended = ends_with(peer, b"GET / HTTP/1.1\r\nHost: shop.example\r\n\r\n");
            assert_eq!(ended, ErrorKind::ConnectionReset, "{host}");
            let direct = [("reason", "not_redirected")];
            assert_eq!(pod.metrics().sum("tracecar_redirected_refused_total", &direct), (count + 1) as f64);
        }
        assert_eq!(pod.metrics().count("tracecar_records_total"), 0);
    });
}

#[test]
fn a_loop_ends_at_its_first_turn() {
    // Somebody has tracecar run as another user than the rules spare.
    Pod::each("", &[("TRACECAR_UID", "4242")], |pod| {
        let (_web, asks) = pod.web(&format!("{WORLD_V4}:80"));
        assert!(pod.curl(&[&format!("http://{WORLD_V4}/")]).starts_with("502 "), "{}", pod.backend);
        assert_eq!(attribute(&pod.span(), "tracecar.outcome"), "upstream_reset");
        let ended = ends_with(pod.connect(&format!("{WORLD_V4}:443")), b"\0binary");
        assert_eq!(ended, ErrorKind::ConnectionReset);
        let span = pod.span();
        assert_eq!(
            (&span["name"], attribute(&span, "tracecar.outcome")),
            (&"tunnel".into(), &"upstream_broken".into())
        );
        let metrics = pod.metrics();
        assert_eq!(metrics.sum("tracecar_redirected_refused_total", &[("reason", "loop")]), 2.0);
        assert_eq!(metrics.count("tracecar_connections_accepted_total"), 4, "two of the app, two of our own");
        assert!(asks.recv_timeout(Duration::ZERO).is_err(), "nobody in the world heard of it");
    });
}

#[test]
fn a_request_and_the_redirected_calls_that_it_causes_are_one_trace() {
    Pod::each("lineage: { guess_after: 0s }", &[], |pod| {
        let (_web, asks) = pod.web(&format!("{WORLD_V4}:80"));
        // The app asks the world for what it is asked for, and forwards nothing.
        let app = pod.bound(Side::App, "127.0.0.1:3000");
        let _app = pod.namespaces.inside(Side::App, || {
            Origin::on(app, |peer| {
                while let Some(request) = peer.request() {
                    let path = request.head.split(' ').nth(1).unwrap().to_owned();
                    for _ in 0..2 {
                        let mut call = Peer::new(TcpStream::connect((WORLD_V4, 80)).unwrap());
                        call.send(format!("GET {path} HTTP/1.1\r\nHost: stock.example\r\n\r\n"));
                        assert_eq!(call.response().text(), "world");
                    }
                    peer.send("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nshop");
                }
            })
        });
        let order = "/orders/3f2b8c1e-9d47-4a60-8e15-0c7d2a9b6f34";
        for (path, method) in [("/", "sole"), (order, "token")] {
            let address: SocketAddr = format!("{APP_V4}:8080").parse().unwrap();
            let mut caller = pod.namespaces.inside(Side::World, || Peer::connect(address));
            caller.send(format!("GET {path} HTTP/1.1\r\nHost: shop\r\n\r\n"));
            assert_eq!(caller.response().text(), "shop", "{}", pod.backend);
            let spans = [pod.span(), pod.span(), pod.span()];
            let (server, calls): (Vec<_>, Vec<_>) = spans.iter().partition(|span| span["kind"] == "SERVER");
            let server = server[0];
            assert_eq!(calls.len(), 2);
            for call in calls {
                assert_eq!(call["trace_id"], server["trace_id"], "{method}");
                assert_eq!(call["parent_span_id"], server["span_id"], "{method}");
                assert_eq!(attribute(call, "tracecar.lineage.method"), method);
                assert_eq!(attribute(call, "url.full"), &*format!("http://stock.example{path}"));
                let asked = asks.recv_timeout(PATIENCE).unwrap();
                let forwarded = asked.header("traceparent").unwrap().to_owned();
                assert!(forwarded.contains(server["trace_id"].as_str().unwrap()), "{forwarded}");
                assert!(asked.header("x-correlation-id").is_some(), "{}", asked.head);
            }
        }
    });
}
