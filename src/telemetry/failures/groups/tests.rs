use std::sync::Arc;
use std::time::Duration;

use opentelemetry::trace::SpanId;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::jumps::End;
use super::*;
use crate::exchange::{sample, sample_call};
use crate::telemetry::failures::cause::Cause;
use crate::telemetry::failures::{Category, Severity};

fn wall(second: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000 + second)
}

fn groups() -> Groups {
    Groups::new(Instant::now(), wall(0))
}

fn record(number: u64) -> Record {
    let mut record = sample();
    record.status = Some(500);
    record.identity.span_id = SpanId::from(number + 1);
    record
}

fn failure(class: &str) -> Failure {
    failure_of(record(0), class)
}

fn failure_of(record: Record, class: &str) -> Failure {
    Failure {
        record: Arc::new(record),
        calls: Vec::new(),
        evidence: None,
        cause: Some(Cause { kind: Some("KeyError".to_owned()), ..Cause::default() }),
        place: "GET /items/{id}".into(),
        class: class.into(),
        message: "no item 42".into(),
        pattern: "no item {n}".into(),
        category: Category::Service,
        severity: Severity::Error,
    }
}

fn classes(page: &Value) -> Vec<&str> {
    page["groups"].as_array().unwrap().iter().map(|group| group["class"].as_str().unwrap()).collect()
}

#[test]
fn failures_of_one_kind_are_one_group_that_says_what_the_latest_said() {
    let mut groups = groups();
    groups.failed(&failure("KeyError"), wall(0));
    groups.failed(&Failure { message: "no item 43".into(), ..failure("KeyError") }, wall(30));
    let page = groups.page(wall(60));
    let group = &page["groups"][0];
    assert_eq!(page["groups"].as_array().unwrap().len(), 1);
    assert_eq!((&group["title"], &group["count"]), (&"KeyError: no item 43".into(), &2.into()));
    assert_eq!(group["first_seen"], "2027-01-15T08:00:00.000Z");
    assert_eq!(group["last_seen"], "2027-01-15T08:00:30.000Z");
    assert_eq!((&group["status"], &group["fault"]), (&500.into(), &"upstream".into()));
    assert_eq!((&page["failures"], &page["since"]), (&2.into(), &"2027-01-15T08:00:00.000Z".into()));
}

#[test]
fn whatever_is_in_the_fingerprint_tells_groups_apart() {
    let mut groups = groups();
    let mut other_status = record(0);
    other_status.status = Some(503);
    for failure in [
        failure("KeyError"),
        failure("ValueError"),
        Failure { place: "GET /".into(), ..failure("KeyError") },
        Failure { pattern: "another".into(), ..failure("KeyError") },
        failure_of(other_status, "KeyError"),
        failure_of(sample_call(), "KeyError"),
    ] {
        groups.failed(&failure, wall(0));
    }
    assert_eq!(groups.page(wall(0))["groups"].as_array().unwrap().len(), 6);
}

#[test]
fn groups_whose_ids_collide_stay_apart() {
    let (a, b) = (failure("A"), failure("B"));
    let mut known = HashMap::new();
    known.insert(7, Group::new(7, &a, wall(0)));
    assert_eq!(free_or_same(&known, &Fingerprint::of(&a), 7), 7);
    assert_eq!(free_or_same(&known, &Fingerprint::of(&b), 7), 8);
}

#[test]
fn the_group_not_seen_for_longest_leaves_and_is_counted() {
    let mut groups = groups();
    for number in 0..MAX_GROUPS {
        groups.failed(&failure(&number.to_string()), wall(number as u64));
    }
    groups.failed(&failure("0"), wall(600));
    groups.failed(&failure("new"), wall(601));
    let page = groups.page(wall(601));
    let classes = classes(&page);
    assert_eq!(classes.len(), MAX_GROUPS);
    assert!(classes.contains(&"0") && classes.contains(&"new") && !classes.contains(&"1"));
    let dropped = &page["dropped"];
    assert_eq!((&dropped["groups"], &dropped["failures"]), (&1.into(), &1.into()));
    assert_eq!(dropped["latest_at"], "2027-01-15T08:10:01.000Z");
    assert_eq!(page["failures"], MAX_GROUPS as u64 + 2);
}

#[test]
fn the_worst_come_first_and_then_those_that_happen_most() {
    let mut groups = groups();
    groups.failed(&Failure { severity: Severity::Warning, ..failure("warning") }, wall(0));
    (0..50).for_each(|_| groups.failed(&failure("past"), wall(0)));
    (0..5).for_each(|second| groups.failed(&failure("now"), wall(1000 + second)));
    groups.failed(&Failure { severity: Severity::Fatal, ..failure("fatal") }, wall(1000));
    let page = groups.page(wall(1010));
    assert_eq!(classes(&page), ["fatal", "now", "past", "warning"]);
    assert_eq!(page["groups"][1]["per_minute"], 5.0);
    assert_eq!(page["groups"][2]["per_minute"], 0.0);
}

#[test]
fn the_rate_is_that_of_the_last_five_minutes() {
    let mut groups = groups();
    for second in 0..1200 {
        groups.failed(&failure("steady"), wall(second));
    }
    let rate = |second| groups.page(wall(second))["groups"][0]["per_minute"].as_f64().unwrap();
    assert!((58.0..=60.0).contains(&rate(1199)), "{}", rate(1199));
    assert!((28.0..=32.0).contains(&rate(1350)), "{}", rate(1350));
    assert_eq!(rate(1600), 0.0);
}

#[test]
fn a_clock_that_is_set_back_loses_nothing() {
    let mut groups = groups();
    groups.failed(&failure("A"), wall(5000));
    groups.failed(&failure("A"), wall(100));
    let page = groups.page(wall(100));
    assert_eq!((&page["groups"][0]["count"], &page["groups"][0]["per_minute"]), (&2.into(), &2.0.into()));
}

#[test]
fn examples_are_the_first_and_the_latest_and_say_which_were_sampled() {
    let mut groups = groups();
    for number in 0..100 {
        let mut record = record(number);
        record.identity.flags = u8::from(number % 20 == 10);
        groups.failed(&failure_of(record, "A"), wall(number));
    }
    let page = groups.page(wall(100));
    let examples: Vec<(u64, bool)> = page["groups"][0]["examples"]
        .as_array()
        .unwrap()
        .iter()
        .map(|example| {
            let span = u64::from_str_radix(example["span_id"].as_str().unwrap(), 16).unwrap();
            (span - 1, example["sampled"].as_bool().unwrap())
        })
        .collect();
    assert_eq!(examples, [(0, false), (1, false), (70, true), (90, true), (99, false)]);
}

#[test]
fn a_dependency_is_named_where_it_is_one() {
    let mut groups = groups();
    let mut call = sample_call();
    call.status = Some(503);
    let dependency = Failure { calls: vec![Arc::new(call)], category: Category::Dependency, ..failure("A") };
    groups.failed(&dependency, wall(0));
    let page = groups.page(wall(0));
    assert_eq!(page["groups"][0]["dependency"], "stock");
    groups.failed(&Failure { category: Category::Service, ..dependency }, wall(1));
    assert_eq!(groups.page(wall(1))["groups"][0]["dependency"], Value::Null);
}

#[test]
fn long_texts_are_cut_and_still_one_group() {
    let mut groups = groups();
    let long = |tail: &str| Failure { pattern: "ü".repeat(10_000) + tail, ..failure("A") };
    groups.failed(&long("a"), wall(0));
    groups.failed(&long("b"), wall(0));
    assert_eq!(groups.page(wall(0))["groups"][0]["count"], 2);
}

/// Traffic of one route that fails by chance, on a clock of its own.
struct Simulation {
    groups: Groups,
    random: SmallRng,
    begun: Instant,
    second: u64,
    /// Requests that are owed, where there is less than one a second.
    owed: f64,
    record: Record,
    news: Vec<(u64, Jump)>,
}

impl Simulation {
    fn new(seed: u64) -> Self {
        let begun = Instant::now();
        let groups = Groups::new(begun, wall(0));
        let random = SmallRng::seed_from_u64(seed);
        Self { groups, random, begun, second: 0, owed: 0.0, record: record(0), news: Vec::new() }
    }

    fn run(&mut self, seconds: u64, rate: f64, share: f64) {
        for _ in 0..seconds {
            self.owed += rate * self.random.random_range(0.0..2.0);
            while self.owed >= 1.0 {
                self.owed -= 1.0;
                let failed = self.random.random_bool(share);
                if failed {
                    self.groups.failed(&failure("KeyError"), wall(self.second));
                }
                self.groups.finished(&self.record, failed);
            }
            self.second += 1;
            let now = self.begun + Duration::from_secs(self.second);
            let news = self.groups.tick(now, wall(self.second));
            self.news.extend(news.into_iter().map(|jump| (self.second, jump)));
        }
    }
}

#[test]
fn a_constant_share_of_failures_raises_nothing() {
    let more = std::env::var("TRACECAR_SEEDS").map_or(1, |text| text.parse().expect("a number"));
    for seed in 0..more {
        // Fewer hours where there is more traffic; what is looked at is the same every ten seconds.
        for (rate, hours) in [(0.1, 12), (1.0, 12), (5.0, 6), (20.0, 3), (200.0, 1)] {
            for share in [0.05, 0.001] {
                let mut simulation = Simulation::new(seed);
                simulation.run(hours * 3600, rate, share);
                assert!(simulation.news.is_empty(), "{rate}/s, seed {seed}: {:?}", simulation.news);
            }
        }
        let mut simulation = Simulation::new(seed);
        simulation.run(600, 2000.0, 0.05);
        assert!(simulation.news.is_empty(), "2000/s, seed {seed}: {:?}", simulation.news);
    }
}

#[test]
fn a_jump_is_marked_within_a_minute_with_what_failed_in_it() {
    for seed in 0..20 {
        let mut simulation = Simulation::new(seed);
        simulation.run(900 + seed, 20.0, 0.001);
        assert!(simulation.news.is_empty());
        // Up to the end of an interval.
        simulation.run(60 - seed % 10, 20.0, 0.1);
        let [(second, jump)] = &*simulation.news else { panic!("one jump: {:?}", simulation.news) };
        assert!(*second - 900 - seed <= 60 && jump.ended_at.is_none());
        assert_eq!((jump.place.as_str(), jump.side), ("GET /items/{id}", Side::Inbound));
        let began =
            wall(900 + seed).duration_since(jump.began_at).unwrap_or_else(|negative| negative.duration());
        assert!(began <= Duration::from_secs(20), "{began:?} off");
        assert!(jump.share_before < 0.005 && (0.05..0.2).contains(&jump.share_after), "{jump:?}");
        assert_eq!(jump.groups.len(), 1);
        assert_eq!(jump.groups[0].title, "KeyError: no item 42");
        let page = simulation.groups.page(wall(simulation.second));
        let counted = page["jumps"][0]["groups"][0]["count"].as_u64().unwrap();
        assert_eq!(counted, page["jumps"][0]["failures"].as_u64().unwrap(), "from the beginning on");
    }
}

#[test]
fn a_jump_ends_when_a_minute_was_like_before() {
    let mut simulation = Simulation::new(1);
    simulation.run(900, 20.0, 0.01);
    simulation.run(120, 20.0, 0.2);
    simulation.run(120, 20.0, 0.01);
    let [_, (second, jump)] = &*simulation.news else { panic!("began and ended: {:?}", simulation.news) };
    assert_eq!(jump.end, Some(End::Recovered));
    assert!((1070..=1110).contains(second), "in second {second}");
    assert!((0.15..0.25).contains(&jump.share_after), "{jump:?}");
    let page = simulation.groups.page(wall(simulation.second));
    assert_eq!((&page["jumps"][0]["end"], &page["routes"][0]["jump"]), (&"recovered".into(), &false.into()));
    let jumps = simulation.groups.rows().into_iter().find(|row| row.name == "tracecar_error_rate_jumps");
    assert_eq!(jumps.unwrap().value, 1);
}

#[test]
fn a_jump_does_not_become_its_own_past() {
    let mut simulation = Simulation::new(2);
    simulation.run(900, 20.0, 0.001);
    simulation.run(1800, 20.0, 0.1);
    let page = simulation.groups.page(wall(simulation.second));
    assert!(page["jumps"][0]["failed_share_before"].as_f64().unwrap() < 0.005);
    assert_eq!(page["jumps"][0]["ended_at"], Value::Null);
    // After an hour it does.
    simulation.run(1900, 20.0, 0.1);
    assert_eq!(simulation.news.last().unwrap().1.end, Some(End::Lasting));
    assert_eq!(simulation.news.len(), 2, "and then it is no jump any more");
}

#[test]
fn one_outburst_is_not_a_jump() {
    let mut simulation = Simulation::new(3);
    simulation.run(900, 20.0, 0.001);
    simulation.run(5, 20.0, 1.0);
    simulation.run(300, 20.0, 0.001);
    // The outburst may lie on both sides of the end of an interval; it is aligned here.
    assert!(simulation.news.is_empty(), "{:?}", simulation.news);
}

#[test]
fn a_few_good_seconds_are_no_past() {
    let mut simulation = Simulation::new(4);
    simulation.run(20, 20.0, 0.0);
    simulation.run(600, 20.0, 0.5);
    assert!(simulation.news.is_empty(), "{:?}", simulation.news);
}

#[test]
fn without_traffic_a_jump_does_not_recover() {
    let mut simulation = Simulation::new(5);
    simulation.run(900, 20.0, 0.001);
    simulation.run(60, 20.0, 1.0);
    simulation.run(400, 0.0, 0.0);
    assert_eq!(simulation.news.last().unwrap().1.end, Some(End::NoTraffic));
}

#[test]
fn excluded_requests_say_nothing_of_how_often_they_fail() {
    let mut groups = groups();
    let mut excluded = record(0);
    excluded.excluded = true;
    groups.finished(&excluded, true);
    assert_eq!(groups.page(wall(0))["routes"].as_array().unwrap().len(), 0);
}
