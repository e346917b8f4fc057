//! What went wrong: what counts as that, and what a Sentry is told of it.

use std::sync::Mutex;
use std::time::{Duration, Instant, SystemTime};

use serde_json::Value;

use super::car::{Car, Key, unique, until};
use super::peers::RUNTIME;
use crate::support::secure::{Trust, service};
use crate::support::sentry::{Item, Sentry};

keys! {
    "failures.read_content" => content_is_read_for_what_went_wrong,
    "failures.statuses[].route" => statuses_count_as_failures_on_a_route,
    "failures.statuses[].status" => statuses_count_as_failures,
    "sentry.dsn" => events_go_to_the_dsn,
    "sentry.environment" => events_name_their_environment,
    "sentry.release" => events_name_their_release,
    "sentry.sample_rate" => a_share_of_failures_is_told,
    "sentry.traces" => requests_are_transactions,
    "sentry.traces_sample_rate" => a_share_of_traces_is_told,
    "sentry.calls" => calls_of_nobody_are_told,
    "sentry.slow" => what_got_slow_is_told,
    "sentry.max_per_group" => a_group_is_told_so_often,
    "sentry.max_events" => all_is_told_so_often,
    "sentry.certificate" => a_sentry_is_believed,
}

/// What a Sentry is told next of a request that fails. `yaml` has what is configured beside the DSN.
fn told<T: PartialEq + std::fmt::Debug>(
    key: Key,
    yaml: &str,
    values: [&str; 2],
    mut see: impl FnMut(&mut Car, &Sentry) -> T,
    expected: [T; 2],
) {
    let sentry = Sentry::new();
    let key = key.word("DSN", sentry.dsn());
    key.live(yaml, values, |car| see(car, &sentry), expected);
}

/// Has a request fail that nobody can take for another, and returns its event and what came before that.
fn fails(car: &Car, sentry: &Sentry) -> (Vec<Item>, Item) {
    let mark = unique();
    assert_eq!(car.ask("/status/500", &format!("User-Agent: {mark}\r\n")).status(), 500);
    let mut before = Vec::new();
    loop {
        let item = sentry.next();
        if item.kind == "event" && item.json["request"]["headers"]["user-agent"] == *mark {
            return (before, item);
        }
        before.push(item);
    }
}

fn content_is_read_for_what_went_wrong(key: Key) {
    let see = |car: &mut Car, sentry: &Sentry| {
        let (_, event) = fails(car, sentry);
        // The service answers with what it is asked.
        event.title().1.starts_with("GET /status/500")
    };
    told(key, "failures: { read_content: <> }\nsentry: { dsn: DSN }", ["true", "false"], see, [true, false]);
}

/// Whether a request that is answered with 404 is a failure.
fn not_found_is_told(car: &mut Car, sentry: &Sentry) -> bool {
    assert_eq!(car.ask("/status/404", "").status(), 404);
    let (before, _) = fails(car, sentry);
    before.iter().any(|item| item.json["contexts"]["response"]["status_code"] == 404)
}

fn statuses_count_as_failures_on_a_route(key: Key) {
    let yaml = "routes: ['/status/{code}', '/other/{code}']\nsentry: { dsn: DSN, traces: off }\n\
        failures: { statuses: [{ route: <>, status: [404] }] }";
    told(key, yaml, ["'/status/{code}'", "'/other/{code}'"], not_found_is_told, [true, false]);
}

fn statuses_count_as_failures(key: Key) {
    let yaml = "sentry: { dsn: DSN, traces: off }\nfailures: { statuses: [{ status: <> }] }";
    told(key, yaml, ["[400-499]", "[409, 500]"], not_found_is_told, [true, false]);
}

fn events_go_to_the_dsn(key: Key) {
    let sentries = [Sentry::new(), Sentry::new()];
    let key = key.word("ONE", sentries[0].dsn()).word("ANOTHER", sentries[1].dsn());
    let see = |car: &mut Car| {
        assert_eq!(car.ask("/status/500", "").status(), 500);
        let mut seen = None;
        until("the event is somewhere", || {
            seen = sentries.iter().position(|sentry| sentry.come().is_some());
            seen.is_some()
        });
        seen
    };
    key.live("sentry: { dsn: <>, traces: off }", ["ONE", "ANOTHER"], see, [Some(0), Some(1)]);
}

/// A text of an event.
fn of_event(name: &'static str) -> impl FnMut(&mut Car, &Sentry) -> String {
    move |car, sentry| fails(car, sentry).1.json[name].as_str().unwrap_or_default().to_owned()
}

fn events_name_their_environment(key: Key) {
    let expected = ["production", "staging"].map(str::to_owned);
    let yaml = "sentry: { dsn: DSN, environment: <> }";
    told(key, yaml, ["null", "staging"], of_event("environment"), expected);
}

fn events_name_their_release(key: Key) {
    let expected = ["shop@1", "shop@2"].map(str::to_owned);
    told(key, "sentry: { dsn: DSN, release: <> }", ["shop@1", "shop@2"], of_event("release"), expected);
}

/// Has `count` requests fail, each in a way of its own, and returns how many were dropped for that reason.
fn dropped(car: &Car, reason: &str, paths: &[&str]) -> u64 {
    let sum = |car: &Car, name, labels: &[(&str, &str)]| car.metrics().sum(name, labels) as u64;
    let settled = |car: &Car| {
        sum(car, "tracecar_sentry_sent_total", &[]) + sum(car, "tracecar_sentry_dropped_total", &[])
    };
    let (before, settled_before) =
        (sum(car, "tracecar_sentry_dropped_total", &[("reason", reason)]), settled(car));
    for path in paths {
        assert!(car.ask(path, "").status() >= 500);
    }
    until("all are settled", || settled(car) == settled_before + paths.len() as u64);
    sum(car, "tracecar_sentry_dropped_total", &[("reason", reason)]) - before
}

fn a_share_of_failures_is_told(key: Key) {
    let see = |car: &mut Car, _: &Sentry| dropped(car, "sampled", &["/status/500"; 2]);
    told(key, "sentry: { dsn: DSN, traces: off, sample_rate: <> }", ["1.0", "0.0"], see, [0, 2]);
}

/// Whether a transaction comes with an event, before or after it.
fn a_transaction_comes(car: &mut Car, sentry: &Sentry) -> bool {
    let sent = |car: &Car| car.metrics().sum("tracecar_sentry_sent_total", &[("kind", "transaction")]);
    let before = sent(car);
    fails(car, sentry);
    until("all is sent", || car.metrics().sum("tracecar_sentry_queued", &[]) == 0.0);
    sent(car) > before
}

fn requests_are_transactions(key: Key) {
    let yaml = "sentry: { dsn: DSN, traces_sample_rate: 1.0, traces: <> }";
    told(key, yaml, ["transactions", "off"], a_transaction_comes, [true, false]);
}

fn a_share_of_traces_is_told(key: Key) {
    let yaml = "sentry: { dsn: DSN, traces: transactions, traces_sample_rate: <> }";
    told(key, yaml, ["1.0", "0.0"], a_transaction_comes, [true, false]);
}

fn calls_of_nobody_are_told(key: Key) {
    let see = |car: &mut Car, sentry: &Sentry| {
        assert_eq!(car.call("/status/500", "").status(), 500);
        let (before, _) = fails(car, sentry);
        before.iter().any(|item| item.json["contexts"]["trace"]["op"] == "http.client")
    };
    let yaml = "outbound: { proxy: 'PROXY' }\nsentry: { dsn: DSN, traces: off, calls: <> }";
    told(key, yaml, ["true", "false"], see, [true, false]);
}

/// It takes minutes until something counts as slow, so time is made to pass here.
fn what_got_slow_is_told(key: Key) {
    use tracecar::telemetry::sentry::{Account, Receiver, start};
    use tracecar::telemetry::watch::Watch;
    let told = Mutex::new(Sentry::new());
    let dsn = told.lock().expect("nobody panics").dsn();
    let key = key.word("DSN", &dsn);
    let see = |car: &mut Car| {
        let shown = car.page("/config").text().contains("slow: true");
        let yaml = format!("sentry: {{ dsn: '{dsn}', traces: off, slow: {shown} }}");
        let startup = crate::support::car::settings("http://127.0.0.1:1", &yaml).startup;
        let settings = startup.sentry.expect("there is a DSN");
        let receiver = Receiver::new(&settings, &startup.service).expect("it can work");
        let account = std::sync::Arc::<Account>::default();
        let _guard = RUNTIME.enter();
        let sentry = start(receiver, RUNTIME.handle(), account.clone(), None);
        let watch = Watch::new(false);
        watch.tell(Some(sentry.clone()), "shop", settings.calls, settings.slow);
        let mut sink = watch.sink();
        let (begun, wall) = (Instant::now(), SystemTime::now());
        for second in 1..240_u32 {
            let took = if second < 120 { 20 } else { 400 };
            for _ in 0..20 {
                tracecar::exchange::Sink::record(
                    &mut sink,
                    &crate::support::took(Duration::from_millis(took)),
                );
            }
            let passed = Duration::from_secs(second.into());
            watch.tick(begun + passed, wall + passed);
        }
        RUNTIME.block_on(sentry.shutdown(Duration::from_secs(20)));
        let page: Value = watch.slow();
        assert_eq!(page["now"].as_array().map(Vec::len), Some(1), "{page:#}");
        let sent = account
            .rows()
            .iter()
            .filter(|row| row.name == "tracecar_sentry_sent")
            .map(|row| row.value)
            .sum::<u64>();
        sent > 0
    };
    key.live("sentry: { dsn: DSN, slow: <> }", ["true", "false"], see, [true, false]);
}

fn a_group_is_told_so_often(key: Key) {
    let see = |car: &mut Car, _: &Sentry| dropped(car, "burst_group", &["/status/500"; 3]);
    let yaml = "failures: { read_content: false }\nsentry: { dsn: DSN, traces: off, max_per_group: <> }";
    told(key, yaml, ["1", "100"], see, [2, 0]);
}

fn all_is_told_so_often(key: Key) {
    let see =
        |car: &mut Car, _: &Sentry| dropped(car, "burst", &["/status/500", "/status/501", "/status/502"]);
    told(key, "sentry: { dsn: DSN, traces: off, max_events: <> }", ["1", "100"], see, [2, 0]);
}

fn a_sentry_is_believed(key: Key) {
    let trust = Trust::new();
    let (port, _sees) = RUNTIME.block_on(service(trust.server("localhost", &["http/1.1"])));
    let key = key
        .word("DSN", format!("https://public@localhost:{port}/7"))
        .word("CA", trust.folder.path().join("ca.pem").display());
    let see = |car: &mut Car| dropped(car, "failed", &["/status/500"]);
    key.live("sentry: { dsn: DSN, traces: off, certificate: <> }", ["null", "CA"], see, [1, 0]);
}
