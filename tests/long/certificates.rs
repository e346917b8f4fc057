//! Certificates are replaced again and again while callers come at an even pace, by new connections and by kept ones, in
//! both versions of HTTP: no request fails, and who comes later is shown the newest.
//!
//! The files change in every way that people and programs have, and some of what is written is no pair.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use rcgen::DnType;
use rustls::ClientConfig;
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;
use tokio::time::MissedTickBehavior;

use crate::support::origin::Origin;
use crate::support::pki::{Pki, Secure, Signed};
use crate::support::program::{File, Program, Start};
use crate::{alone, phase};

const RATE: u32 = 300;

/// Callers of each kind.
const CALLERS: u32 = 3;

/// How soon another pair is shown. A second is promised; a busy machine gets more.
const NOTICED: Duration = Duration::from_secs(5);

/// One in so many is no pair.
const BROKEN: usize = 5;

type Write = fn(&Path, &Signed, usize);

const WAYS: [(&str, Write); 3] = [("in place", in_place), ("renamed", renamed), ("turned", turned)];

fn in_place(folder: &Path, pair: &Signed, _: usize) {
    std::fs::write(folder.join("tls.crt"), &pair.certificate).expect("it is ours");
    std::fs::write(folder.join("tls.key"), &pair.key).expect("it is ours");
}

fn renamed(folder: &Path, pair: &Signed, _: usize) {
    for (name, text) in [("tls.crt", &pair.certificate), ("tls.key", &pair.key)] {
        std::fs::write(folder.join("new"), text).expect("it is ours");
        std::fs::rename(folder.join("new"), folder.join(name)).expect("it is ours");
    }
}

/// As the kubelet does it: the files are links into a link to a directory, and that is turned.
fn turned(folder: &Path, pair: &Signed, number: usize) {
    let version = folder.join(format!("..{number}"));
    std::fs::create_dir(&version).expect("it is new");
    in_place(&version, pair, number);
    std::os::unix::fs::symlink(&version, folder.join("..data_tmp")).expect("it is new");
    std::fs::rename(folder.join("..data_tmp"), folder.join("..data")).expect("it is ours");
    for name in ["tls.crt", "tls.key"] {
        if !folder.join(name).is_symlink() {
            let _ = std::fs::remove_file(folder.join(name));
            std::os::unix::fs::symlink(Path::new("..data").join(name), folder.join(name))
                .expect("it is free");
        }
    }
}

/// What became of the requests of one caller.
#[derive(Default)]
struct Served {
    /// From the moment at which each was due.
    took: Vec<Duration>,
    handshakes: usize,
    failures: Vec<String>,
}

#[test]
fn certificates_replaced_under_load_fail_no_request() {
    let _alone = alone();
    let runtime = Runtime::new().expect("threads can be started");
    for (how, write) in WAYS {
        replaced(&runtime, how, write, phase() / 3);
    }
}

fn replaced(runtime: &Runtime, how: &str, write: Write, time: Duration) {
    let pki = Pki::new("ca");
    let folder = pki.path("secret");
    std::fs::create_dir(&folder).expect("it is new");
    write(&folder, &signed(&pki, 0), 0);
    let (program, _file) = start(&folder);
    let stop = Arc::new(AtomicBool::new(false));
    let mut callers = Vec::new();
    for (alpn, kept) in [("http/1.1", true), ("http/1.1", false), ("h2", true), ("h2", false)] {
        let client = pki.client(&[alpn], None);
        for _ in 0..CALLERS {
            callers.push(runtime.spawn(call(program.address, client.clone(), kept, stop.clone())));
        }
    }

    let probe = pki.client(&[], None);
    let shown = || {
        let caller = Secure::connect(program.address, b"", "shop.example", probe.clone());
        runtime.block_on(caller).expect("there is always one").common_name()
    };
    let (begun, mut number, mut latest) = (Instant::now(), 0, Duration::ZERO);
    let mut broken = 0;
    while begun.elapsed() < time {
        number += 1;
        let pair = signed(&pki, number);
        if number % BROKEN == 0 {
            broken += 1;
            let none = Signed { key: signed(&pki, number).key, ..pair };
            write(&folder, &none, number);
            // It is seen and refused meanwhile, or not: whoever comes is shown the one before.
            assert_eq!(shown(), format!("shop {}", number - 1));
            continue_with(&program, broken);
            number += 1;
        }
        let pair = signed(&pki, number);
        write(&folder, &pair, number);
        let written = Instant::now();
        while shown() != format!("shop {number}") {
            assert!(written.elapsed() < NOTICED, "{how}: number {number} is not shown");
        }
        latest = latest.max(written.elapsed());
    }
    stop.store(true, Ordering::Relaxed);
    report(runtime, how, callers, number, broken, latest, begun.elapsed());
    let panics = program.metrics().count("tracecar_panics_total");
    assert_eq!(panics, 0);
}

/// Waits until what was written was looked at and refused.
fn continue_with(program: &Program, broken: usize) {
    let until = Instant::now() + NOTICED;
    let refused =
        || program.metrics().sum("tracecar_config_reloads_total", &[("result", "refused")]) as usize;
    while refused() < broken {
        assert!(Instant::now() < until, "what is no pair is noticed");
    }
}

fn start(folder: &Path) -> (Program, File) {
    let origin = Origin::answering("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
    let at = |name: &str| -> PathBuf { folder.join(name) };
    let file = File::new(&format!(
        "service: {{ name: under-test }}\nadmin: {{ listen: '127.0.0.1:0' }}\ninbound:\n  - listen: 127.0.0.1:0\n    \
         to: {}\n    tls: {{ certificates: [{{ certificate: '{}', key: '{}' }}] }}\n",
        origin.url(),
        at("tls.crt").display(),
        at("tls.key").display(),
    ));
    (Start::new(["run", "--config", file.name()]).run(), file)
}

fn signed(pki: &Pki, number: usize) -> Signed {
    pki.sign_with("shop.example", |params| {
        params.distinguished_name.push(DnType::CommonName, format!("shop {number}"));
    })
}

/// Sends requests at its share of the pace.
async fn call(address: SocketAddr, client: Arc<ClientConfig>, kept: bool, stop: Arc<AtomicBool>) -> Served {
    let mut served = Served::default();
    let mut pace = tokio::time::interval(Duration::from_secs(1) * 4 * CALLERS / RATE);
    pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
    let mut connection = None;
    while !stop.load(Ordering::Relaxed) {
        let due = pace.tick().await;
        let asked = async {
            let mut caller = match connection.take().filter(|_| kept) {
                Some(caller) => caller,
                None => {
                    served.handshakes += 1;
                    Secure::connect(address, b"", "shop.example", client.clone()).await?
                }
            };
            let answer = caller.get("/").await?;
            connection = Some(caller);
            std::io::Result::Ok(answer.status)
        };
        match asked.await {
            Ok(200) => served.took.push(due.elapsed()),
            other => served.failures.push(format!("{other:?}")),
        }
    }
    served
}

fn report(
    runtime: &Runtime,
    how: &str,
    callers: Vec<JoinHandle<Served>>,
    replaced: usize,
    broken: usize,
    latest: Duration,
    time: Duration,
) {
    let all: Vec<Served> =
        callers.into_iter().map(|caller| runtime.block_on(caller).expect("it does not panic")).collect();
    let failures: Vec<&String> = all.iter().flat_map(|one| &one.failures).collect();
    let mut took: Vec<Duration> = all.iter().flat_map(|one| one.took.clone()).collect();
    took.sort_unstable();
    let at = |share: f64| took[((took.len() - 1) as f64 * share) as usize];
    println!(
        "certificates {how}: {} requests in {time:.0?} ({:.0}/s), {} handshakes, {replaced} times replaced ({broken} of them no \
         pair), shown after {latest:.0?} at most; median {:.1?}, 99th percentile {:.1?}, longest {:.1?}; {} failed",
        took.len(),
        took.len() as f64 / time.as_secs_f64(),
        all.iter().map(|one| one.handshakes).sum::<usize>(),
        at(0.5),
        at(0.99),
        at(1.0),
        failures.len()
    );
    assert!(failures.is_empty(), "{how}: {failures:#?}");
    assert!(took.len() as f64 > 0.9 * f64::from(RATE) * time.as_secs_f64(), "{} requests only", took.len());
}
