//! The way out is no open relay: a list of attempts, each against the running proxy.
//!
//! Where an attempt must come to nothing, a socket listens where it would have arrived, and must hear nothing of it: a
//! connection that was made and given up would still be there to be accepted.

use std::io::ErrorKind;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::sync::Arc;

use socket2::{Domain, Socket, Type};
use tracecar::exchange::{Outcome, Record};

use crate::support::PATIENCE;
use crate::support::car::TestCar;
use crate::support::origin::{Message, Origin, Peer};
use crate::support::service::{call, destination};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// What nobody should get to.
struct Trap(TcpListener);

impl Trap {
    fn new() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port is free");
        listener.set_nonblocking(true).expect("a TCP socket");
        Self(listener)
    }

    fn port(&self) -> u16 {
        self.0.local_addr().expect("it is bound").port()
    }

    /// Nobody has been here since the last time.
    fn assert_untouched(&self, attempt: &str) {
        match self.0.accept() {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            other => panic!("{attempt}: a connection was made: {other:?}"),
        }
    }
}

/// A sidecar with a forward proxy and whatever `outbound` adds to it.
fn proxy(outbound: &str) -> TestCar {
    let yaml = format!("outbound: {{ proxy: '127.0.0.1:0' {outbound} }}");
    TestCar::with("http://127.0.0.1:1", &yaml, |_| {})
}

/// How an attempt is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Get,
    Connect,
}

impl By {
    const BOTH: [By; 2] = [By::Get, By::Connect];

    fn attempt(self, proxy: SocketAddr, authority: &str) -> Message {
        let mut caller = Peer::connect(proxy);
        caller.send(match self {
            By::Get => format!("GET http://{authority}/x HTTP/1.1\r\nHost: allowed.example\r\n\r\n"),
            By::Connect => format!("CONNECT {authority} HTTP/1.1\r\nHost: allowed.example\r\n\r\n"),
        });
        caller.response_head_or_all()
    }
}

impl Peer {
    /// A response; of one without length, the head.
    fn response_head_or_all(&mut self) -> Message {
        let mut message = self.response_head();
        if let Some(length) = message.header("content-length").map(|length| length.parse().expect("a length"))
        {
            message.body = self.exactly(length);
        }
        message
    }
}

/// Everything that a refusal owes: the status, whose it is, a reason, and a record without a server.
fn assert_refused(answer: &Message, record: &Record, status: u16, words: &str, attempt: &str) {
    assert_told(answer, status, words, attempt);
    assert_recorded(record, words, attempt);
}

fn assert_told(answer: &Message, status: u16, words: &str, attempt: &str) {
    assert_eq!(answer.status(), status, "{attempt}: {}", answer.text());
    let proxy_status = answer.header("proxy-status").expect("who refused is said");
    assert!(proxy_status.starts_with("tracecar; error="), "{attempt}: {proxy_status}");
    assert!(answer.text().contains(words), "{attempt}: {}", answer.text());
}

fn assert_recorded(record: &Record, words: &str, attempt: &str) {
    assert_eq!((record.outcome, record.status), (Outcome::Rejected, None), "{attempt}");
    assert_eq!(record.error_type().as_deref(), Some("rejected"), "{attempt}");
    assert!(record.peer.is_none() && record.timings.sent.is_none(), "{attempt}");
    assert!(record.text(record.detail).contains(words), "{attempt}: {}", record.text(record.detail));
}

/// Ways to write an address of this machine, the status of an attempt with it where loopback is denied, and a word of
/// the reason. What a name leads to is known only when it is resolved.
const LOOPBACK: [(&str, u16, &str); 33] = [
    ("127.0.0.1", 403, "outbound.deny"),
    ("127.0.0.2", 403, "outbound.deny"),
    ("localhost", 403, "outbound.deny"),
    ("LOCALHOST", 403, "outbound.deny"),
    ("LocalHost", 403, "outbound.deny"),
    // Those that getaddrinfo reads as 127.0.0.1, and others do not.
    ("127.1", 400, "four decimal numbers"),
    ("127.0.1", 400, "four decimal numbers"),
    ("2130706433", 400, "four decimal numbers"),
    ("0x7f000001", 400, "four decimal numbers"),
    ("0X7F.1", 400, "four decimal numbers"),
    ("0x7f.0x0.0x0.0x1", 400, "four decimal numbers"),
    ("017700000001", 400, "four decimal numbers"),
    ("0177.0.0.1", 400, "four decimal numbers"),
    ("127.0.0.01", 400, "four decimal numbers"),
    ("127.000.000.001", 400, "four decimal numbers"),
    ("127.0.0.1.", 400, "four decimal numbers"),
    ("0", 400, "four decimal numbers"),
    // Forms of IPv6, and IPv4 in them.
    ("[::1]", 403, "outbound.deny"),
    ("[0:0:0:0:0:0:0:1]", 403, "outbound.deny"),
    ("[::ffff:127.0.0.1]", 403, "outbound.deny"),
    ("[::ffff:7f00:1]", 403, "outbound.deny"),
    ("[0:0:0:0:0:FFFF:127.0.0.1]", 403, "outbound.deny"),
    ("[::127.0.0.1]", 403, "outbound.deny"),
    ("[::ffff:0:127.0.0.1]", 403, "outbound.deny"),
    ("[64:ff9b::127.0.0.1]", 403, "outbound.deny"),
    ("[64:ff9b:1::7f00:1]", 403, "outbound.deny"),
    ("[2002:7f00:1::]", 403, "outbound.deny"),
    ("[2001:0:0:0:0:0:80ff:fffe]", 403, "outbound.deny"),
    ("[2001:db8::5efe:127.0.0.1]", 403, "outbound.deny"),
    // Linux connects these to loopback.
    ("0.0.0.0", 403, "unspecified"),
    ("0.1.2.3", 403, "unspecified"),
    ("[::]", 403, "unspecified"),
    ("[::ffff:0.0.0.0]", 403, "unspecified"),
];

#[test]
fn no_way_of_writing_a_denied_address_leads_there() {
    let trap = Trap::new();
    let car = proxy(", deny: [127.0.0.0/8, '::1']");
    let attempts = LOOPBACK.iter().flat_map(|row| By::BOTH.map(|by| (by, row)));
    for (by, (host, status, words)) in attempts.clone() {
        let attempt = format!("{by:?} {host}");
        let answer = by.attempt(car.proxy(), &format!("{host}:{}", trap.port()));
        assert_told(&answer, *status, words, &attempt);
        trap.assert_untouched(&attempt);
    }
    let records = car.ended();
    assert_eq!(records.len(), attempts.clone().count(), "one for each");
    for (record, (by, (host, _, words))) in records.iter().zip(attempts) {
        assert_recorded(record, words, &format!("{by:?} {host}"));
    }
}

/// The forms that do lead to this machine where nothing is denied, so that the test above means something.
#[test]
fn what_is_not_denied_is_reached() {
    let (origin, _asked) = destination(OK);
    let car = proxy("");
    for host in ["127.0.0.1", "localhost", "LOCALHOST", "[::ffff:127.0.0.1]"] {
        for by in By::BOTH {
            let answer = by.attempt(car.proxy(), &format!("{host}:{}", origin.address.port()));
            assert_eq!(answer.status(), 200, "{by:?} {host}: {}", answer.text());
        }
    }
}

#[test]
fn targets_that_can_be_read_in_two_ways_are_not_read_at_all() {
    let trap = Trap::new();
    let port = trap.port();
    let car = proxy(", deny: [127.0.0.0/8, '::1']");
    let odd = [
        "[::1%25lo]",
        "[::1%lo]",
        "[fe80::1%25eth0]",
        "127.0.0.1%00",
        "127.0.0.1%2e",
        "%6c%6f%63%61%6c%68%6f%73%74",
        "127.0.0.1\u{3002}",
        "\u{2460}\u{2461}\u{2466}.0.0.1",
        "127.0.0.1\\@allowed.example",
        "allowed.example\t127.0.0.1",
        "[127.0.0.1]",
        "::1",
        "a..b",
        "[::1",
    ];
    for host in odd {
        for by in By::BOTH {
            let attempt = format!("{by:?} {host}");
            let answer = by.attempt(car.proxy(), &format!("{host}:{port}"));
            assert_eq!(answer.status(), 400, "{attempt}");
            trap.assert_untouched(&attempt);
        }
    }
    // A password in a URL is left out, and hides nothing; for CONNECT there is no such thing.
    for (by, status) in [(By::Get, 403), (By::Connect, 400)] {
        for user in ["user:secret", "allowed.example", "allowed.example:80"] {
            let answer = by.attempt(car.proxy(), &format!("{user}@127.0.0.1:{port}"));
            assert_eq!(answer.status(), status, "{by:?} {user}");
            trap.assert_untouched(user);
        }
    }
    let records = car.ended();
    assert_eq!(records.len(), 2 * odd.len() + 6, "one for each");
    for record in records {
        // Some of them are no request for our codec already.
        assert!(matches!(record.outcome, Outcome::Rejected | Outcome::MalformedRequest), "{record:?}");
        assert_eq!((record.status, record.peer), (None, None));
        assert!(!format!("{record:?}").contains("secret"), "{record:?}");
    }
}

#[test]
fn metadata_services_and_link_local_addresses_are_not_even_looked_for() {
    let literal = [
        "169.254.169.254",
        "169.254.170.2",
        "169.254.170.23",
        "169.254.0.1",
        "[::ffff:169.254.169.254]",
        "[::ffff:a9fe:a9fe]",
        "[::169.254.169.254]",
        "[64:ff9b::a9fe:a9fe]",
        "[2002:a9fe:a9fe::]",
        "[fd00:ec2::254]",
        "[fd00:ec2::23]",
        "[fd20:ce::254]",
        "[fe80::1]",
        "[febf::1]",
        "100.100.100.200",
        "168.63.129.16",
        "192.0.0.192",
        "224.0.0.1",
        "255.255.255.255",
        "[ff02::1]",
        "metadata.google.internal",
        "METADATA.google.INTERNAL",
        "metadata.google.internal.",
        "metadata.goog",
        "instance-data.ec2.internal",
    ];
    // Neither is meant by somebody who allows "everything".
    let everything = ", allow: ['*', '*:80', 0.0.0.0/0, '::/0']";
    let odd = ["0xa9fea9fe", "2852039166", "0251.0376.0251.0376", "169.254.43518", "169.16689662"];
    let rows = literal.map(|host| (host, 403, "allow it with outbound.allow: ["));
    let rows = rows.into_iter().chain(odd.map(|host| (host, 400, "four decimal numbers")));
    let attempts = rows.flat_map(|row| By::BOTH.map(|by| (by, row)));
    for outbound in ["", everything] {
        let car = proxy(outbound);
        for (by, (host, status, words)) in attempts.clone() {
            let answer = by.attempt(car.proxy(), &format!("{host}:80"));
            assert_told(&answer, status, words, &format!("{by:?} {host}"));
        }
        let records = car.ended();
        assert_eq!(records.len(), attempts.clone().count(), "one for each");
        for (record, (by, (host, _, words))) in records.iter().zip(attempts.clone()) {
            assert_recorded(record, words, &format!("{by:?} {host}"));
            let timings = record.timings;
            assert!(timings.dns.is_none() && timings.connect.is_none(), "{host}: {timings:?}");
        }
    }
}

#[test]
fn a_mapping_leads_to_no_metadata_service() {
    let car = proxy(", mapped: [ { listen: '127.0.0.1:0', to: 'http://169.254.169.254' } ]");
    let mut caller = Peer::connect(car.mapped(0));
    caller.send("GET /latest/meta-data HTTP/1.1\r\nHost: s\r\n\r\n");
    let answer = caller.response();
    assert_refused(&answer, &car.record(), 403, "link-local", "mapped");
    assert!(answer.header("proxy-status").unwrap().contains("destination_ip_prohibited"));
}

#[test]
fn connect_leads_to_its_ports_only() {
    let trap = Trap::new();
    let port = trap.port();
    let car = proxy(", connect_ports: [443, 8000-8001]");
    let answer = By::Connect.attempt(car.proxy(), &format!("127.0.0.1:{port}"));
    assert_refused(&answer, &car.record(), 403, "outbound.connect_ports has 443, 8000-8001", "another port");
    trap.assert_untouched("another port");
    let car = proxy("");
    for (authority, status, words) in [
        ("127.0.0.1:25", 403, "outbound.connect_ports"),
        ("mail.example:25", 403, "outbound.connect_ports"),
        ("127.0.0.1:22", 403, "outbound.connect_ports"),
    ] {
        let answer = By::Connect.attempt(car.proxy(), authority);
        assert_refused(&answer, &car.record(), status, words, authority);
    }
    for authority in [
        "127.0.0.1",
        "127.0.0.1:",
        "127.0.0.1:0",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "127.0.0.1:4294967376",
        "127.0.0.1:80:81",
    ] {
        assert_eq!(By::Connect.attempt(car.proxy(), authority).status(), 400, "SMG-24: {authority}");
        assert_eq!(car.record().outcome, Outcome::MalformedRequest);
    }
}

#[test]
fn with_a_list_of_what_is_allowed_nothing_else_is() {
    let (origin, asked) = destination(OK);
    let trap = Trap::new();
    let here = origin.address.port();
    let car = proxy(&format!(", allow: ['127.0.0.1:{here}', 'shop.example', '*.internal:1']"));
    for by in By::BOTH {
        assert_eq!(by.attempt(car.proxy(), &format!("127.0.0.1:{here}")).status(), 200);
        car.record();
        for host in ["127.0.0.1", "127.0.0.2", "[::1]", "elsewhere.example", "internal", "shop.example.evil"]
        {
            let attempt = format!("{by:?} {host}");
            let answer = by.attempt(car.proxy(), &format!("{host}:{}", trap.port()));
            assert_refused(&answer, &car.record(), 403, "outbound.allow", &attempt);
            trap.assert_untouched(&attempt);
        }
    }
    drop(asked);
    let both = proxy(&format!(", allow: ['127.0.0.1:{0}'], deny: ['*:{0}']", trap.port()));
    for by in By::BOTH {
        let answer = by.attempt(both.proxy(), &format!("127.0.0.1:{}", trap.port()));
        assert_refused(&answer, &both.record(), 403, "outbound.deny", "deny beats allow");
        trap.assert_untouched("deny beats allow");
    }
}

#[test]
fn a_name_that_is_allowed_leads_to_no_address_that_is_not() {
    // DNS rebinding: whoever answers for a name decides where it leads, and may do so between two questions.
    let trap = Trap::new();
    let port = trap.port();
    // Where it can be had, `localhost` has a second address, which may be reached.
    let second = TcpListener::bind(("::1", port)).ok();
    if let Some(listener) = &second {
        listener.set_nonblocking(true).unwrap();
    }
    for outbound in [
        ", allow: [localhost], deny: [127.0.0.0/8, '::1']",
        ", allow: [localhost], deny: [127.0.0.1]",
        // A name is no exception from an entry for its address, and an allowed network none from one for the name.
        ", allow: ['127.0.0.0/8', '::1'], deny: [localhost]",
    ] {
        let car = proxy(outbound);
        for by in By::BOTH {
            let mut caller = Peer::connect(car.proxy());
            caller.send(match by {
                By::Get => format!("GET http://localhost:{port}/ HTTP/1.1\r\nHost: s\r\n\r\n"),
                By::Connect => format!("CONNECT localhost:{port} HTTP/1.1\r\nHost: s\r\n\r\n"),
            });
            let reached = second.as_ref().filter(|_| outbound.contains("[127.0.0.1]"));
            if let Some(second) = reached
                && let Some((stream, _)) = accepted(second, &mut caller)
            {
                drop(stream);
            } else {
                let answer = caller.response_head_or_all();
                assert_refused(&answer, &car.record(), 403, "outbound.deny", outbound);
            }
            trap.assert_untouched(outbound);
        }
    }
}

/// A connection, unless the caller is answered first.
fn accepted(listener: &TcpListener, caller: &mut Peer) -> Option<(std::net::TcpStream, SocketAddr)> {
    caller.stream.set_nonblocking(true).unwrap();
    let until = std::time::Instant::now() + PATIENCE;
    let found = loop {
        if let Ok(connection) = listener.accept() {
            break Some(connection);
        }
        if caller.stream.peek(&mut [0]).is_ok() {
            break None;
        }
        assert!(std::time::Instant::now() < until, "neither a connection nor an answer");
        std::thread::yield_now();
    };
    caller.stream.set_nonblocking(false).unwrap();
    found
}

#[test]
fn what_is_said_in_a_tunnel_chooses_no_other_way() {
    let (origin, asked) = destination(OK);
    let trap = Trap::new();
    let here = origin.address;
    let car = proxy(&format!(", allow: ['{here}', ok.example], deny: [elsewhere.example]"));
    let open = || {
        let mut tunnel = Peer::connect(car.proxy());
        tunnel.send(format!("CONNECT {here} HTTP/1.1\r\nHost: s\r\n\r\n"));
        assert_eq!(tunnel.response_head().status(), 200);
        tunnel
    };
    // What is for another proxy reaches where the tunnel goes, as it is, and nothing else.
    for inner in [
        format!("GET http://127.0.0.1:{}/x HTTP/1.1", trap.port()),
        format!("CONNECT 127.0.0.1:{} HTTP/1.1", trap.port()),
    ] {
        let mut tunnel = open();
        tunnel.send(format!("{inner}\r\nHost: ok.example\r\n\r\n"));
        assert_eq!(tunnel.response().status(), 200);
        assert!(asked.recv_timeout(PATIENCE).unwrap().head.starts_with(&inner));
        trap.assert_untouched(&inner);
    }
    let mut tunnel = open();
    tunnel.send("GET /y HTTP/1.1\r\nHost: elsewhere.example\r\n\r\n");
    let answer = tunnel.response();
    // The tunnels before it may leave their records first.
    let record = std::iter::repeat_with(|| car.record()).find(|record| record.tunnel.is_none()).unwrap();
    assert_refused(&answer, &record, 403, "outbound.deny", "Host in a tunnel");
}

/// A connection from one address of this machine to another.
fn from(address: IpAddr, to: SocketAddr) -> Peer {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(address, 0).into()).unwrap();
    socket.connect(&to.into()).unwrap();
    Peer::new(socket.into())
}

#[test]
fn who_is_no_client_is_served_by_no_door() {
    let trap = Trap::new();
    let port = trap.port();
    let car = TestCar::with(
        "http://127.0.0.1:1",
        &format!(
            "outbound: {{ proxy: '127.0.0.1:0', clients: [127.0.0.1/32],\n\
             mapped: [ {{ listen: '127.0.0.1:0', to: 'http://127.0.0.1:{port}' }} ] }}\n\
             client: {{ trusted_proxies: [ 127.0.0.0/8 ] }}"
        ),
        |_| {},
    );
    let requests = [
        (car.proxy(), format!("GET http://127.0.0.1:{port}/ HTTP/1.1")),
        (car.proxy(), format!("CONNECT 127.0.0.1:{port} HTTP/1.1")),
        (car.mapped(0), "GET / HTTP/1.1".to_owned()),
    ];
    for (door, line) in requests {
        let mut stranger = from([127, 0, 0, 2].into(), door);
        // What it says of itself changes nothing.
        stranger.send(format!(
            "{line}\r\nHost: s\r\nX-Forwarded-For: 127.0.0.1\r\nForwarded: for=127.0.0.1\r\n\r\n"
        ));
        let answer = stranger.response_head_or_all();
        assert_refused(
            &answer,
            &car.record(),
            403,
            "127.0.0.2 are not passed on; allow them with outbound.clients",
            &line,
        );
        trap.assert_untouched(&line);
    }
}

#[test]
fn clients_are_those_of_this_host_unless_told_otherwise() {
    let (origin, _asked) = destination(OK);
    let Some(address) = address_of_this_machine() else {
        return eprintln!("skipped: this machine has no address but loopback");
    };
    for (clients, status) in [("", 403), (", clients: [0.0.0.0/0]", 200)] {
        let yaml = format!("outbound: {{ proxy: '0.0.0.0:0' {clients} }}");
        let car = TestCar::with("http://127.0.0.1:1", &yaml, |_| {});
        let door = SocketAddr::new(address, car.proxy().port());
        assert_eq!(call(door, &origin.url(), "").status(), status, "{clients}");
    }
}

/// The address by which this machine would reach others. Nothing is sent.
fn address_of_this_machine() -> Option<IpAddr> {
    let socket = std::net::UdpSocket::bind("0.0.0.0:0").ok()?;
    socket.connect("192.0.2.1:9").ok()?;
    let address = socket.local_addr().ok()?.ip();
    (!address.is_loopback() && !address.is_unspecified()).then_some(address)
}

/// A port that is kept until a listener of ours takes it: both say that they can share it, and only one listens.
fn reserved() -> (Socket, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_reuse_address(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    let address = socket.local_addr().unwrap().as_socket().unwrap();
    (socket, address)
}

/// The end of a loop: the answer to whoever began it, and that of all records one says that it was seen.
fn assert_loop(answer: &Message, car: TestCar, hops: usize, attempt: &str) {
    assert_eq!(answer.status(), 508, "{attempt}: {}", answer.text());
    assert!(answer.text().contains("circles"), "{attempt}: {}", answer.text());
    let records: Vec<Arc<Record>> = car.ended();
    let outcomes: Vec<_> = records.iter().map(|record| record.outcome).collect();
    assert_eq!(outcomes.len(), hops, "{attempt}: it goes round once: {outcomes:?}");
    assert_eq!(outcomes[0], Outcome::Rejected, "{attempt}: the last hop ends first");
    assert!(outcomes[1..].iter().all(|outcome| *outcome == Outcome::Complete), "{attempt}: {outcomes:?}");
}

#[test]
fn a_proxy_that_is_sent_to_itself_says_so() {
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]"] {
        let car = proxy("");
        let answer = call(car.proxy(), &format!("http://{host}:{}/x", car.proxy().port()), "");
        assert!(answer.header("proxy-status").unwrap().contains("error=http_request_denied"));
        assert_loop(&answer, car, 2, host);
    }
}

#[test]
fn a_tunnel_to_the_proxy_itself_goes_round_once() {
    let car = proxy("");
    let mut caller = Peer::connect(car.proxy());
    let address = car.proxy();
    caller.send(format!("CONNECT {address} HTTP/1.1\r\nHost: s\r\n\r\n"));
    assert_eq!(caller.response_head().status(), 200);
    caller.send(format!("GET /x HTTP/1.1\r\nHost: {address}\r\n\r\n"));
    let answer = caller.response();
    assert_loop(&answer, car, 2, "CONNECT");
}

#[test]
fn loops_through_mapped_listeners_are_seen() {
    // To a mapped listener that stands for the proxy, which has no way back but by us.
    let (_held, address) = reserved();
    let yaml = format!(
        "outbound: {{ proxy: '{address}', mapped: [ {{ listen: '127.0.0.1:0', to: 'http://{address}' }} ] }}"
    );
    let car = TestCar::with("http://127.0.0.1:1", &yaml, |_| {});
    let answer = call(car.proxy(), &format!("http://{}/x", car.mapped(0)), "");
    assert_loop(&answer, car, 2, "proxy, mapped");

    let car =
        TestCar::with("http://127.0.0.1:1", &yaml.replace(&address.to_string(), &reserve_again()), |_| {});
    let mut caller = Peer::connect(car.mapped(0));
    caller.send("GET /x HTTP/1.1\r\nHost: s\r\n\r\n");
    let answer = caller.response();
    assert_loop(&answer, car, 2, "mapped, proxy");

    // To itself, by a name that the check of the settings cannot see through.
    let (_held, address) = reserved();
    let yaml = format!(
        "outbound: {{ mapped: [ {{ listen: '{address}', to: 'http://LOCALHOST:{}' }} ] }}",
        address.port()
    );
    let car = TestCar::with("http://127.0.0.1:1", &yaml, |_| {});
    let mut caller = Peer::connect(address);
    caller.send("GET /x HTTP/1.1\r\nHost: s\r\n\r\n");
    let answer = caller.response();
    assert_loop(&answer, car, 2, "mapped, mapped");
}

/// An address for one more sidecar. Nobody holds it until that takes it, which it does at once.
fn reserve_again() -> String {
    reserved().1.to_string()
}

#[test]
fn an_inbound_listener_that_leads_to_our_own_way_out_is_a_loop() {
    let (_held, address) = reserved();
    let yaml = format!("outbound: {{ proxy: '{address}' }}");
    let car = TestCar::with(&format!("http://{address}"), &yaml, |_| {});
    let mut caller = Peer::connect(car.address());
    caller.send("GET /x HTTP/1.1\r\nHost: s\r\n\r\n");
    let answer = caller.response();
    assert_loop(&answer, car, 2, "inbound, proxy");

    // By a full URL, which the proxy would understand.
    let (_held, address) = reserved();
    let trap = Trap::new();
    let car =
        TestCar::with(&format!("http://{address}"), &format!("outbound: {{ proxy: '{address}' }}"), |_| {});
    let mut caller = Peer::connect(car.address());
    caller.send(format!("GET http://127.0.0.1:{}/x HTTP/1.1\r\nHost: s\r\n\r\n", trap.port()));
    let answer = caller.response();
    trap.assert_untouched("through inbound");
    assert_loop(&answer, car, 2, "inbound, proxy, a URL");

    // There and back: each is sent to the other.
    let (_held, address) = reserved();
    let (_also_held, inbound) = reserved();
    let yaml = format!("outbound: {{ mapped: [ {{ listen: '{address}', to: 'http://{inbound}' }} ] }}");
    let car = TestCar::with(&format!("http://{address}"), &yaml, |settings| {
        settings.startup.inbound[0].listen = inbound;
    });
    let mut caller = Peer::connect(car.mapped(0));
    caller.send("GET /x HTTP/1.1\r\nHost: s\r\n\r\n");
    let answer = caller.response();
    assert_loop(&answer, car, 3, "mapped, inbound, mapped");
}

#[test]
fn a_service_may_call_itself_by_its_sidecar() {
    // That looks like a loop and is none: the service decides whether it goes on.
    let (origin, asked) = destination(OK);
    let car = TestCar::with(&origin.url(), "outbound: { proxy: '127.0.0.1:0' }", |_| {});
    assert_eq!(call(car.proxy(), &format!("http://{}/x", car.address()), "").status(), 200);
    assert!(asked.recv_timeout(PATIENCE).is_ok());
    assert_eq!(car.ended().len(), 2);
}

#[test]
fn a_service_that_is_tracecar_itself_is_seen_and_no_call_of_the_service_to_itself() {
    // `to` is not known to be the listener: that it is one shows when somebody asks.
    let car = TestCar::with("http://127.0.0.1:1", "outbound: { proxy: 127.0.0.1:0 }", |settings| {
        let free = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free").local_addr().unwrap();
        settings.startup.inbound[0].listen = free;
        settings.startup.inbound[0].to.port = free.port();
    });
    let mut caller = Peer::connect(car.address());
    caller.send("GET / HTTP/1.1\r\nHost: a\r\n\r\n");
    let answer = caller.response();
    assert_eq!(answer.status(), 508, "{}", answer.text());
    assert!(answer.text().contains("tracecar itself"), "{}", answer.text());
    assert_eq!(car.ended().len(), 2, "once round, and no more");

    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    let car = TestCar::with(&origin.url(), "outbound: { proxy: 127.0.0.1:0 }", |_| {});
    let mut service = Peer::connect(car.proxy());
    service.send(format!("GET http://{}/ HTTP/1.1\r\nHost: a\r\n\r\n", car.address()));
    assert_eq!(service.response().status(), 200, "a service may call itself by its public name");
}
