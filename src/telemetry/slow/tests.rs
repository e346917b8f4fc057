//! Simulated traffic: seeded, and on a clock of its own.

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::exchange::{sample, sample_call};
use crate::telemetry::failures::Severity;

mod health;

/// Milliseconds of one request: its parts one after the other.
#[derive(Clone, Copy, Default)]
struct Times {
    connect: f64,
    own: f64,
    stock: f64,
    prices: f64,
    transfer: f64,
}

impl Times {
    fn total(&self) -> f64 {
        self.connect + self.own + self.stock + self.prices + self.transfer
    }
}

/// A service that calls `stock`, and then perhaps `prices`, for each request.
struct Simulation {
    slow: Slow,
    random: SmallRng,
    begun: Instant,
    second: u64,
    request: Record,
    calls: [Arc<Record>; 2],
    /// Share of the calls of which nobody knows for which request they were made.
    orphans: f64,
    /// What was reported, and in which second.
    news: Vec<(u64, Shift)>,
}

fn wall(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + second)
}

fn ms(millis: f64) -> Duration {
    Duration::from_secs_f64(millis / 1e3)
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let begun = Instant::now();
        let call = |name: &str| {
            let mut call = sample_call();
            call.destination = Some(name.into());
            Arc::new(call)
        };
        Self {
            slow: Slow::new(begun, wall(0)),
            random: SmallRng::seed_from_u64(seed),
            begun,
            second: 0,
            request: sample(),
            calls: [call("stock"), call("prices")],
            orphans: 0.0,
            news: Vec::new(),
        }
    }

    fn run(&mut self, seconds: u64, rate: impl Fn(u64) -> f64, times: impl Fn(&mut SmallRng, u64) -> Times) {
        for _ in 0..seconds {
            for _ in 0..poisson(&mut self.random, rate(self.second)) {
                let times = times(&mut self.random, self.second);
                self.request(times);
            }
            self.second += 1;
            let now = self.begun + Duration::from_secs(self.second);
            let news = self.slow.tick(now, wall(self.second));
            self.news.extend(news.into_iter().map(|shift| (self.second, shift)));
        }
    }

    fn request(&mut self, times: Times) {
        let known = self.random.random::<f64>() >= self.orphans;
        let request = &mut self.request;
        request.timings.connect = (times.connect > 0.0).then(|| ms(times.connect));
        request.timings.sent = Some(ms(times.connect) + Duration::from_micros(40));
        request.timings.total = ms(times.total()) + Duration::from_micros(40);
        request.timings.first_byte = Some(request.timings.total - ms(times.transfer));
        let mut at = request.started_at + ms(times.connect + times.own);
        let mut calls = 0;
        for (call, millis) in self.calls.iter_mut().zip([times.stock, times.prices]) {
            if millis == 0.0 {
                continue;
            }
            let record = Arc::get_mut(call).expect("nobody else holds it");
            record.started_at = at;
            record.timings.total = ms(millis);
            record.timings.first_byte = Some(ms(millis));
            record.timings.sent = Some(Duration::from_micros(40).min(ms(millis)));
            record.ancestry.as_mut().unwrap().method = if known { "token" } else { Ancestry::NONE };
            at += ms(millis);
            calls += 1;
            self.slow.called(record);
        }
        self.slow.finished(&self.request, &self.calls[..if known { calls } else { 0 }]);
    }

    /// What was reported of requests.
    fn of_requests(&self) -> impl Iterator<Item = &(u64, Shift)> {
        self.news.iter().filter(|(_, shift)| shift.side == Side::Inbound)
    }

    /// The first report of requests after `second`, and how many seconds later it came.
    fn found(&self, second: u64) -> (u64, &Shift) {
        let (found, shift) = self.of_requests().next().expect("a shift is found");
        assert_eq!(shift.stage, Stage::Began);
        assert!(*found > second, "a shift was seen in second {found}, where there was none");
        (found - second, shift)
    }
}

fn normal(random: &mut SmallRng) -> f64 {
    let (u, v): (f64, f64) = (1.0 - random.random::<f64>(), random.random());
    (-2.0 * u.ln()).sqrt() * (std::f64::consts::TAU * v).cos()
}

fn around(random: &mut SmallRng, median: f64, sigma: f64) -> f64 {
    median * (sigma * normal(random)).exp()
}

fn poisson(random: &mut SmallRng, mean: f64) -> u64 {
    if mean > 50.0 {
        return (mean + mean.sqrt() * normal(random)).round().max(0.0) as u64;
    }
    let (least, mut product, mut count) = ((-mean).exp(), random.random::<f64>(), 0);
    while product > least {
        product *= random.random::<f64>();
        count += 1;
    }
    count
}

/// 10 ms of its own, 20 ms of `stock`, each with a spread; a tenth of the requests needs a connection.
fn healthy(random: &mut SmallRng) -> Times {
    Times {
        connect: if random.random_bool(0.1) { around(random, 1.0, 0.3) } else { 0.0 },
        own: around(random, 10.0, 0.3),
        stock: around(random, 20.0, 0.3),
        prices: 0.0,
        transfer: around(random, 0.5, 0.3),
    }
}

/// Three minutes of health, then as `sick` says.
fn fall_ill(rate: f64, seed: u64, sick: impl Fn(&mut SmallRng, Times) -> Times) -> Simulation {
    let mut simulation = Simulation::new(seed);
    simulation.run(180, |_| rate, |random, _| healthy(random));
    simulation.run(
        90,
        |_| rate,
        |random, _| {
            let times = healthy(random);
            sick(random, times)
        },
    );
    simulation
}

#[test]
fn a_slow_dependency_is_named_within_a_minute() {
    for (rate, seed) in [(5.0, 1), (50.0, 2), (1000.0, 3)] {
        let simulation = fall_ill(rate, seed, |_, times| Times { stock: times.stock * 15.0, ..times });
        let (after, shift) = simulation.found(180);
        let cause = shift.cause().expect("one cause");
        assert_eq!((&*cause.name, cause.kind), ("stock", PartKind::Dependency), "at {rate}/s");
        assert!(after <= 60, "{after} s at {rate}/s");
        assert!((15.0..27.0).contains(&cause.before_ms), "{cause:?}");
        assert!(shift.likely.is_empty());
        // The destination has a shift of its own.
        let own = simulation.news.iter().find(|(_, shift)| shift.side == Side::Outbound).unwrap();
        assert_eq!((own.1.place.as_str(), own.1.stage), ("stock", Stage::Began));
    }
}

#[test]
fn a_dependency_that_is_slow_for_a_fifth_of_the_calls_is_named() {
    let simulation =
        fall_ill(
            50.0,
            4,
            |random, times| {
                if random.random_bool(0.2) { Times { stock: 300.0, ..times } } else { times }
            },
        );
    let (after, shift) = simulation.found(180);
    assert_eq!((&*shift.cause().expect("one cause").name, shift.quantile), ("stock", 90));
    assert!(after <= 60, "{after} s");
}

#[test]
fn slow_connecting_is_named() {
    let simulation = fall_ill(50.0, 5, |_, times| Times { connect: 200.0, ..times });
    let (after, shift) = simulation.found(180);
    assert_eq!(shift.cause().expect("one cause").kind, PartKind::Connect);
    assert!(after <= 60, "{after} s");
}

#[test]
fn the_service_itself_is_named() {
    let simulation = fall_ill(20.0, 6, |_, times| Times { own: times.own * 10.0, ..times });
    let (after, shift) = simulation.found(180);
    assert_eq!(shift.cause().expect("one cause").kind, PartKind::Service);
    assert!(after <= 60 && shift.likely.is_empty(), "{after} s, {:?}", shift.likely);
}

#[test]
fn a_slow_reader_is_not_blamed_on_the_service() {
    let simulation = fall_ill(20.0, 7, |_, times| Times { transfer: 150.0, ..times });
    assert_eq!(simulation.found(180).1.cause().expect("one cause").kind, PartKind::Transfer);
}

#[test]
fn two_causes_of_the_same_size_are_several() {
    let simulation = fall_ill(50.0, 8, |_, times| Times {
        own: times.own + 100.0,
        stock: times.stock + 100.0,
        prices: 100.0,
        ..times
    });
    let (_, shift) = simulation.found(180);
    assert!(shift.cause().is_none(), "{:?}", shift.cause());
    assert_eq!(shift.json()["cause"], "several");
}

#[test]
fn a_dependency_whose_calls_are_nobodys_is_likely_and_not_the_cause() {
    let mut simulation = Simulation::new(9);
    simulation.orphans = 0.6;
    simulation.run(180, |_| 50.0, |random, _| healthy(random));
    simulation.run(
        90,
        |_| 50.0,
        |random, _| {
            let times = healthy(random);
            Times { stock: times.stock * 15.0, ..times }
        },
    );
    let (_, shift) = simulation.found(180);
    assert_eq!(shift.cause().expect("one cause").kind, PartKind::Service);
    let [likely] = &*shift.likely else { panic!("one is likely: {:?}", shift.likely) };
    assert_eq!(likely.destination, "stock");
    assert!((0.5..0.7).contains(&likely.unattributed), "{}", likely.unattributed);
    let page = simulation.slow.page();
    let of_route = page["now"].as_array().unwrap().iter().find(|shift| shift["side"] == "inbound").unwrap();
    assert_eq!(of_route["likely"][0]["destination"], "stock");
}

#[test]
fn a_dependency_all_of_whose_calls_are_known_is_not_likely() {
    // Its calls are accounted for: that it got slow at the same time explains nothing of the service's own time.
    let simulation =
        fall_ill(50.0, 10, |_, times| Times { own: times.own + 500.0, stock: times.stock * 3.0, ..times });
    let (_, shift) = simulation.found(180);
    assert_eq!(shift.cause().expect("one cause").kind, PartKind::Service);
    assert!(simulation.news.iter().any(|(_, shift)| shift.place == "stock"), "stock has a shift");
    assert!(shift.likely.is_empty(), "{:?}", shift.likely);
}

/// A job that nobody asked for calls `ledger`, which gets slow in that second; the service's own time does in second 420.
fn with_a_slow_ledger(from: u64) -> Vec<Likely> {
    let mut simulation = Simulation::new(20);
    let mut call = sample_call();
    (call.destination, call.identity.parent) = (Some("ledger".into()), None);
    call.ancestry.as_mut().unwrap().method = Ancestry::NONE;
    for second in 0..500 {
        call.timings.total = ms(if second < from { 20.0 } else { 300.0 });
        call.timings.first_byte = Some(call.timings.total);
        (0..10).for_each(|_| simulation.slow.called(&call));
        let own = if second < 420 { 10.0 } else { 300.0 };
        simulation.run(1, |_| 20.0, |random, _| Times { own, ..healthy(random) });
    }
    let (_, shift) = simulation.found(420);
    assert_eq!(shift.cause().expect("one cause").kind, PartKind::Service);
    assert!(simulation.news.iter().any(|(_, shift)| shift.place == "ledger"), "ledger has a shift");
    shift.likely.clone()
}

#[test]
fn what_got_slow_at_another_time_is_not_likely() {
    assert_eq!(with_a_slow_ledger(410).len(), 1);
    assert!(with_a_slow_ledger(180).is_empty());
}

#[test]
fn nothing_is_likely_where_the_cause_is_known() {
    // A tenth of the calls is nobody's, and the others already tell.
    let mut simulation = Simulation::new(21);
    simulation.orphans = 0.1;
    simulation.run(180, |_| 50.0, |random, _| healthy(random));
    simulation.run(60, |_| 50.0, |random, _| Times { stock: 300.0, ..healthy(random) });
    let (_, shift) = simulation.found(180);
    assert_eq!(&*shift.cause().expect("one cause").name, "stock");
    assert!(shift.likely.is_empty(), "{:?}", shift.likely);
}

#[test]
fn a_shift_that_is_over_is_said_to_be_over_and_since_when() {
    let mut simulation = fall_ill(50.0, 11, |_, times| Times { own: 300.0, ..times });
    simulation.run(60, |_| 50.0, |random, _| healthy(random));
    let (found, ended) = simulation.of_requests().last().unwrap();
    assert_eq!(ended.stage, Stage::Ended(End::Recovered));
    assert_eq!(ended.ended_at, Some(wall(270)));
    assert_eq!(ended.began_at, wall(180));
    assert!(*found <= 270 + 40 && ended.after_ms > 250.0, "in second {found}, {ended:?}");
    let page = simulation.slow.page();
    assert_eq!((page["now"].as_array().unwrap().len(), &page["ended"][0]["end"]), (0, &"recovered".into()));
}

#[test]
fn a_shift_is_reported_once_and_once_more_when_it_is_an_error() {
    let mut simulation = fall_ill(20.0, 12, |_, times| Times { own: times.own + 45.0, ..times });
    simulation.run(15 * 60, |_| 20.0, |random, _| Times { own: 55.0, ..healthy(random) });
    let of_requests: Vec<_> =
        simulation.of_requests().map(|(second, shift)| (*second, shift.stage, shift.severity)).collect();
    let [(_, Stage::Began, Severity::Warning), (second, Stage::Worse, Severity::Error)] = of_requests[..]
    else {
        panic!("began, and worse: {of_requests:?}")
    };
    assert_eq!(second, 180 + 600);
}

#[test]
fn what_has_been_so_for_half_an_hour_is_how_it_is() {
    let mut simulation = Simulation::new(13);
    simulation.run(120, |_| 10.0, |random, _| healthy(random));
    simulation.run(50 * 60, |_| 10.0, |random, _| Times { own: 100.0, ..healthy(random) });
    let (second, last) = simulation.of_requests().last().unwrap();
    assert_eq!((last.stage, *second), (Stage::Ended(End::Lasting), 120 + 1800));
    let usual = simulation.slow.page()["routes"][0]["usual_p50_ms"].as_f64().unwrap();
    assert!((110.0..140.0).contains(&usual), "{usual}");
}

#[test]
fn without_traffic_nothing_is_said_and_a_shift_does_not_recover() {
    let mut simulation = Simulation::new(14);
    simulation.run(180, |_| 50.0, |random, _| healthy(random));
    simulation.run(600, |_| 0.0, |random, _| healthy(random));
    assert!(simulation.news.is_empty(), "{:?}", simulation.news);
    assert_eq!(simulation.slow.page()["routes"][0]["p50_ms"], Value::Null);

    let mut simulation = fall_ill(50.0, 15, |_, times| Times { own: 300.0, ..times });
    simulation.run(400, |_| 0.0, |random, _| healthy(random));
    assert_eq!(simulation.of_requests().last().unwrap().1.stage, Stage::Ended(End::NoTraffic));
}

#[test]
fn eight_slow_seconds_are_no_shift() {
    for offset in 0..10 {
        let mut simulation = Simulation::new(100 + offset);
        simulation.run(180 + offset, |_| 50.0, |random, _| healthy(random));
        simulation.run(8, |_| 50.0, |random, _| Times { stock: 400.0, ..healthy(random) });
        simulation.run(120, |_| 50.0, |random, _| healthy(random));
        assert!(simulation.news.is_empty(), "{:?}", simulation.news);
    }
}

#[test]
fn a_slow_start_is_no_shift() {
    for seed in 200..210 {
        let mut simulation = Simulation::new(seed);
        let cold = |second: u64| if second < 30 { 10.0 - second as f64 * 0.3 } else { 1.0 };
        simulation.run(
            600,
            |_| 50.0,
            |random, second| {
                let times = healthy(random);
                Times { own: times.own * cold(second), stock: times.stock * cold(second), ..times }
            },
        );
        assert!(simulation.news.is_empty(), "{:?}", simulation.news);
    }
}

#[test]
fn a_place_that_nobody_asks_for_any_more_is_forgotten() {
    let mut simulation = Simulation::new(16);
    simulation.run(60, |_| 5.0, |random, _| healthy(random));
    simulation.run(3700, |_| 0.0, |random, _| healthy(random));
    assert_eq!(simulation.slow.page()["routes"].as_array().unwrap().len(), 0);
}

#[test]
fn streams_tunnels_and_excluded_requests_stay_out() {
    let mut simulation = Simulation::new(17);
    for change in [
        |record: &mut Record| record.stream = Some(crate::exchange::Stream::ServerSentEvents),
        |record: &mut Record| record.tunnel = Some(crate::exchange::Tunneled::Connect),
        |record: &mut Record| record.excluded = true,
    ] {
        let (mut request, mut call) = (sample(), sample_call());
        change(&mut request);
        change(&mut call);
        simulation.slow.finished(&request, &[]);
        simulation.slow.called(&call);
    }
    assert_eq!(simulation.slow.page()["routes"].as_array().unwrap().len(), 0);
    assert_eq!(simulation.slow.page()["destinations"].as_array().unwrap().len(), 0);
}

#[test]
fn addresses_that_are_not_called_any_more_make_room() {
    let mut simulation = Simulation::new(18);
    for hour in 0..4 {
        for instance in 0..10 {
            Arc::get_mut(&mut simulation.calls[0]).unwrap().destination =
                Some(format!("10.0.{hour}.{instance}:80").into());
            simulation.run(720, |_| 5.0, |random, _| healthy(random));
        }
    }
    let page = simulation.slow.page();
    let names: Vec<_> =
        page["routes"][0]["parts"].as_array().unwrap().iter().map(|part| &part["name"]).collect();
    assert!(names.iter().any(|name| *name == "10.0.3.9:80"), "{names:?}");
}

#[test]
fn a_place_takes_little_memory() {
    // With what it points to, some 4 KB at most; there are up to 514 of them.
    assert!(size_of::<Destination>() <= 3072, "{}", size_of::<Destination>());
}

#[test]
fn the_metrics_page_counts_shifts() {
    let simulation = fall_ill(50.0, 19, |_, times| Times { own: 300.0, ..times });
    let value = |name| {
        let rows = simulation.slow.rows();
        rows.into_iter()
            .find(|row| row.name == name && row.label == Some(("side", "inbound".into())))
            .unwrap()
            .value
    };
    assert_eq!((value("tracecar_latency_shifts"), value("tracecar_slow_routes")), (1, 1));
}
