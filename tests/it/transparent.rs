//! The redirect script of `docker/`, between network namespaces: an app that knows of no proxy calls the world, and its
//! connections arrive where tracecar would be listening.
//!
//! Needs root, `ip`, `setpriv`, `curl`, and `nft` or `iptables`; without them each test says that it was skipped.

use std::io::{Read, Write};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::Output;
use std::sync::mpsc::{Receiver, Sender, channel};

use socket2::SockRef;

use crate::support::PATIENCE;
use crate::support::namespaces::{APP_V4, APP_V6, Namespaces, Side, WORLD_V4, WORLD_V6, is_there, skipped};

/// The user that an app runs as, and that which tracecar does.
pub const APP: u32 = 1000;
pub const TRACECAR: u32 = 65532;

/// A connection, as the listener saw it.
#[derive(Debug, PartialEq, Eq)]
struct Arrival {
    /// Where it was going, if it was redirected.
    meant_for: Option<SocketAddr>,
    /// Where it came from, without the port.
    from: IpAddr,
}

/// Answers each request with its own name, until it is dropped.
struct Answering {
    listener: TcpListener,
    arrivals: Receiver<Arrival>,
}

impl Answering {
    fn new(namespaces: &Namespaces, side: Side, address: &str, name: &'static str) -> Self {
        let listener = namespaces.inside(side, || TcpListener::bind(address).expect(address));
        let (arrived, arrivals) = channel();
        let accepting = listener.try_clone().expect("a descriptor");
        std::thread::spawn(move || {
            while let Ok((stream, _)) = accepting.accept() {
                // Whoever leaves early, such as a connection that only looks, is no arrival.
                let _ = answer(stream, name, &arrived);
            }
        });
        Self { listener, arrivals }
    }

    fn arrival(&self) -> Arrival {
        self.arrivals.recv_timeout(PATIENCE).expect("a connection arrives")
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        // On Linux this ends the waiting for connections.
        let _ = SockRef::from(&self.listener).shutdown(std::net::Shutdown::Both);
    }
}

fn answer(mut stream: TcpStream, name: &str, arrived: &Sender<Arrival>) -> std::io::Result<()> {
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut head = Vec::new();
    let mut buffer = [0; 1024];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buffer)? {
            0 => return Ok(()),
            count => head.extend_from_slice(&buffer[..count]),
        }
    }
    let socket = SockRef::from(&stream);
    let local = stream.local_addr()?;
    let original = if local.is_ipv4() { socket.original_dst_v4() } else { socket.original_dst_v6() };
    // Without an entry in the table of connections there is no original destination; with one that was not
    // redirected it is the destination.
    let meant_for = original.ok().and_then(|address| address.as_socket()).filter(|address| *address != local);
    let _ = arrived.send(Arrival { meant_for, from: stream.peer_addr()?.ip() });
    let length = name.len();
    write!(stream, "HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: {length}\r\n\r\n{name}")
}

/// Both namespaces, somebody who listens where tracecar would, and the world.
struct Pod {
    namespaces: Namespaces,
    backend: &'static str,
    tracecar: [Answering; 2],
    world: [Answering; 2],
}

/// Both namespaces for each way of redirecting that this machine has, one after the other.
pub fn each_backend(fact: impl Fn(Namespaces, &'static str)) {
    let mut done = 0;
    for (backend, probe) in
        [("nft", &["nft", "list", "ruleset"][..]), ("iptables", &["iptables", "-t", "nat", "-L", "-n"])]
    {
        let Some(namespaces) = Namespaces::or_skip(&["ip", "setpriv", "curl"]) else { return };
        if !is_there(backend) || !namespaces.run_in(Side::App, probe).status.success() {
            continue;
        }
        fact(namespaces, backend);
        done += 1;
    }
    if done == 0 {
        skipped("neither nft nor iptables works in a network namespace of this machine");
    }
}

impl Pod {
    fn each(fact: impl Fn(&Self)) {
        each_backend(|namespaces, backend| fact(&Self::new(namespaces, backend)));
    }

    fn new(namespaces: Namespaces, backend: &'static str) -> Self {
        let tracecar = ["127.0.0.1:15001", "[::1]:15001"];
        let tracecar = tracecar.map(|address| Answering::new(&namespaces, Side::App, address, "tracecar"));
        let world = [format!("{WORLD_V4}:80"), format!("[{WORLD_V6}]:80")];
        let world = world.map(|address| Answering::new(&namespaces, Side::World, &address, "world"));
        Self { namespaces, backend, tracecar, world }
    }

    fn redirect(&self, arguments: &[&str], environment: &[(&str, &str)]) -> Output {
        redirect(&self.namespaces, self.backend, arguments, environment)
    }

    fn redirected(&self, environment: &[(&str, &str)]) {
        let output = self.redirect(&[], environment);
        assert!(output.status.success(), "{}: {}", self.backend, told(&output));
    }

    /// Who answers a user that asks with nothing in its environment; else what curl says.
    fn who_answers(&self, user: u32, url: &str) -> String {
        let mut command = self.namespaces.command(Side::App, user, "curl");
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.args(["--silent", "--show-error", "--max-time", "20", "--globoff", url]);
        told(&command.output().expect("ip is there"))
    }

    /// All rules of the kind that this is about, without counters.
    fn rules(&self) -> String {
        let tools = match self.backend {
            "nft" => &[&["nft", "--stateless", "list", "ruleset"][..]][..],
            // Each of these shows a rule or the lack of one; nft would show the chains in the order of their making.
            _ => &[&["iptables-save"][..], &["ip6tables-save"]],
        };
        let rules: String = tools.iter().map(|tool| told(&self.namespaces.run_in(Side::App, tool))).collect();
        // iptables-save tells the time, and how much has passed.
        let telling = |line: &&str| !line.starts_with('#') && !line.starts_with(':');
        rules.lines().filter(telling).collect::<Vec<_>>().join("\n")
    }
}

/// Runs the script as root in the app's namespace.
pub fn redirect(
    namespaces: &Namespaces,
    backend: &str,
    arguments: &[&str],
    environment: &[(&str, &str)],
) -> Output {
    let mut command = namespaces.command(Side::App, 0, "sh");
    command.arg(script()).args(arguments).env("TRACECAR_BACKEND", backend);
    command.envs(environment.iter().copied()).output().expect("ip is there")
}

fn script() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docker/redirect.sh")
}

/// What a program wrote, on both ways.
pub fn told(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

const URLS: [&str; 2] = ["http://198.51.100.10/", "http://[2001:db8::10]/"];

#[test]
fn connections_of_an_app_arrive_with_their_real_destination() {
    Pod::each(|pod| {
        assert_eq!(
            URLS.map(|url| pod.who_answers(APP, url)),
            ["world", "world"],
            "as long as nothing is done"
        );
        pod.redirected(&[]);
        let destinations = [format!("{WORLD_V4}:80"), format!("[{WORLD_V6}]:80")];
        for (index, url) in URLS.into_iter().enumerate() {
            for user in [APP, 0] {
                assert_eq!(pod.who_answers(user, url), "tracecar", "{} {url} as {user}", pod.backend);
                // The source is what the app had for its real target, not loopback.
                let arrival = Arrival {
                    meant_for: Some(destinations[index].parse().unwrap()),
                    from: [APP_V4, APP_V6][index].parse().unwrap(),
                };
                assert_eq!(pod.tracecar[index].arrival(), arrival, "{}", pod.backend);
            }
        }
    });
}

#[test]
fn what_tracecar_sends_is_not_sent_back_to_it() {
    Pod::each(|pod| {
        pod.redirected(&[]);
        for (index, url) in URLS.into_iter().enumerate() {
            assert_eq!(pod.who_answers(TRACECAR, url), "world", "{} {url}", pod.backend);
            let arrival = Arrival { meant_for: None, from: [APP_V4, APP_V6][index].parse().unwrap() };
            assert_eq!(pod.world[index].arrival(), arrival, "{}", pod.backend);
        }
        pod.redirected(&[("TRACECAR_UID", "1000")]);
        assert_eq!(pod.who_answers(APP, URLS[0]), "world", "the user can be chosen");
        assert_eq!(pod.who_answers(TRACECAR, URLS[0]), "tracecar", "the user can be chosen");
    });
}

#[test]
fn neighbours_and_what_is_excluded_are_left_alone() {
    Pod::each(|pod| {
        let neighbours = ["127.0.0.1:80", "[::1]:80", "10.213.0.2:81"];
        let neighbours = neighbours.map(|at| Answering::new(&pod.namespaces, Side::App, at, "neighbour"));
        let other = format!("{WORLD_V4}:8080");
        let _other = Answering::new(&pod.namespaces, Side::World, &other, "other port");
        pod.redirected(&[("TRACECAR_PORTS", "all")]);
        for neighbour in &neighbours {
            let address = neighbour.listener.local_addr().unwrap();
            assert_eq!(pod.who_answers(APP, &format!("http://{address}/")), "neighbour", "{address}");
        }
        assert_eq!(pod.who_answers(APP, &format!("http://{other}/")), "tracecar", "all means all");
        pod.redirected(&[("TRACECAR_PORTS", "all"), ("TRACECAR_EXCLUDE_PORTS", "8000-8999")]);
        assert_eq!(pod.who_answers(APP, &format!("http://{other}/")), "other port");
        assert_eq!(pod.who_answers(APP, URLS[0]), "tracecar");
        pod.redirected(&[("TRACECAR_EXCLUDE_CIDRS", "192.0.2.0/24,198.51.100.0/24,2001:db8::/32")]);
        assert_eq!(URLS.map(|url| pod.who_answers(APP, url)), ["world", "world"]);
        pod.redirected(&[("TRACECAR_PORTS", "81-90,8080")]);
        assert_eq!(pod.who_answers(APP, URLS[0]), "world", "only what is listed");
        assert_eq!(pod.who_answers(APP, &format!("http://{other}/")), "tracecar");
    });
}

#[test]
fn a_second_run_changes_nothing_and_removal_everything() {
    Pod::each(|pod| {
        // Somebody else's rule, which has to survive.
        let other =
            "add table inet other; add chain inet other output { type filter hook output priority 0; }";
        if is_there("nft") {
            pod.namespaces.run_in(Side::App, &["nft", other]);
        }
        // A table that iptables has made stays there, so it is made before.
        for tool in ["iptables", "ip6tables"] {
            if is_there(tool) {
                let theirs = [tool, "-t", "nat", "-A", "OUTPUT", "-p", "udp", "-j", "ACCEPT"];
                pod.namespaces.run_in(Side::App, &theirs);
            }
        }
        let before = pod.rules();
        pod.redirected(&[]);
        let once = pod.rules();
        assert_ne!(once, before, "{}", pod.backend);
        pod.redirected(&[]);
        assert_eq!(pod.rules(), once, "{}", pod.backend);
        // Whoever removes need not know how it was done.
        for _ in 0..2 {
            let output = pod.redirect(&["--remove"], &[("TRACECAR_BACKEND", "auto")]);
            assert!(output.status.success(), "{}: {}", pod.backend, told(&output));
            assert_eq!(pod.rules(), before, "{}", pod.backend);
        }
        assert_eq!(URLS.map(|url| pod.who_answers(APP, url)), ["world", "world"], "{}", pod.backend);
    });
}

#[test]
fn a_dry_run_prints_what_would_be_done_and_does_nothing() {
    Pod::each(|pod| {
        let before = pod.rules();
        let output = pod.redirect(&["--dry-run"], &[("TRACECAR_PORT", "15002"), ("TRACECAR_UID", "4242")]);
        assert!(output.status.success(), "{}", told(&output));
        assert_eq!(pod.rules(), before, "{}", pod.backend);
        let commands = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(commands.contains("15002") && commands.contains("4242"), "{commands}");
        // What it prints is what it does.
        let done = pod.namespaces.run_in(Side::App, &["sh", "-ec", &commands]);
        assert!(done.status.success(), "{}", told(&done));
        let printed = pod.rules();
        pod.redirected(&[("TRACECAR_PORT", "15002"), ("TRACECAR_UID", "4242")]);
        assert_eq!(pod.rules(), printed, "{}", pod.backend);
    });
}

#[test]
fn without_the_right_to_change_rules_it_names_net_admin() {
    Pod::each(|pod| {
        for drop in [&["--reuid=1000"][..], &["--bounding-set=-net_admin", "--inh-caps=-net_admin"]] {
            let mut command = pod.namespaces.command(Side::App, 0, "setpriv");
            let run = command.args(drop).arg("sh").arg(script()).env("TRACECAR_BACKEND", pod.backend);
            let output = run.output().expect("ip is there");
            assert_eq!(output.status.code(), Some(1), "{}", told(&output));
            assert!(told(&output).contains("NET_ADMIN"), "{}: {}", pod.backend, told(&output));
        }
    });
}

#[test]
fn nft_needs_net_admin_and_nothing_else() {
    Pod::each(|pod| {
        if pod.backend != "nft" {
            return;
        }
        let mut command = pod.namespaces.command(Side::App, 0, "setpriv");
        command.args(["--bounding-set=-all,+net_admin", "--inh-caps=-all", "sh"]).arg(script());
        let output = command.env("TRACECAR_BACKEND", "nft").output().expect("ip is there");
        assert!(output.status.success(), "{}", told(&output));
        assert_eq!(URLS.map(|url| pod.who_answers(APP, url)), ["tracecar", "tracecar"]);
    });
}

/// Runs the script where nothing can go wrong, since nothing can be done: there is no tool in its PATH.
fn without_tools(environment: &[(&str, &str)]) -> Output {
    // The shell and what the script reads its lists with.
    let folder = tempfile::tempdir().expect("a folder");
    for tool in ["sh", "tr", "sed"] {
        let paths = std::env::var_os("PATH").unwrap_or_default();
        let found = std::env::split_paths(&paths).map(|path| path.join(tool)).find(|path| path.is_file());
        std::os::unix::fs::symlink(found.expect(tool), folder.path().join(tool)).expect("a link");
    }
    let mut command = std::process::Command::new(folder.path().join("sh"));
    command.arg(script()).env_clear().env("PATH", folder.path()).envs(environment.iter().copied());
    command.output().expect("a shell")
}

#[test]
fn without_a_tool_it_says_which_to_install() {
    let output = without_tools(&[]);
    assert_eq!(output.status.code(), Some(1));
    assert!(told(&output).contains("install nftables or iptables"), "{}", told(&output));
    let output = without_tools(&[("TRACECAR_BACKEND", "nft")]);
    assert!(told(&output).contains("no nft in PATH"), "{}", told(&output));
}

#[test]
fn nonsense_is_refused_before_anything_is_done() {
    for (name, value) in [
        ("TRACECAR_PORT", "http"),
        ("TRACECAR_PORT", "0"),
        ("TRACECAR_PORT", "65536"),
        ("TRACECAR_UID", "nobody"),
        ("TRACECAR_UID", "0"),
        ("TRACECAR_PORTS", "80;443"),
        ("TRACECAR_PORTS", "80,"),
        ("TRACECAR_PORTS", "90-80"),
        ("TRACECAR_PORTS", "80 } accept"),
        ("TRACECAR_PORTS", "99999999999999999999"),
        ("TRACECAR_EXCLUDE_PORTS", "a"),
        ("TRACECAR_EXCLUDE_CIDRS", "example.com"),
        ("TRACECAR_EXCLUDE_CIDRS", "10.0.0.0/8; flush ruleset"),
        ("TRACECAR_EXCLUDE_CIDRS", "10"),
        ("TRACECAR_BACKEND", "ebtables"),
    ] {
        let output = without_tools(&[(name, value)]);
        assert_eq!(output.status.code(), Some(2), "{name}={value}: {}", told(&output));
        assert!(told(&output).contains(name), "{name}={value}: {}", told(&output));
    }
}
