//! Services that are well, each in its own way. None of them may raise anything.

use super::*;

/// How many of the seeds raise anything. `TRACECAR_SEEDS` asks for more of them than fit into
/// a test run.
fn alarms(name: &str, run: impl Fn(&mut Simulation)) -> usize {
    let seeds = std::env::var("TRACECAR_SEEDS").map_or(20, |text| text.parse().expect("a number"));
    let mut alarms = 0;
    for seed in 0..seeds {
        let mut simulation = Simulation::new(1000 + seed);
        run(&mut simulation);
        if let Some((second, shift)) = simulation.news.first() {
            alarms += 1;
            println!("{name}, seed {seed}, second {second}: {shift:?}");
        }
    }
    println!("{name}: {alarms} of {seeds} seeds raise something");
    alarms
}

/// Between 1 and 200 requests a second, another number every 15 s.
fn bursts(seed: u64) -> impl Fn(u64) -> f64 {
    move |second| 200_f64.powf(SmallRng::seed_from_u64(seed ^ (second / 15)).random())
}

#[test]
fn a_noisy_service_raises_nothing() {
    let found = alarms("noisy", |simulation| {
        let rate = bursts(simulation.random.random());
        let phase: f64 = simulation.random.random();
        simulation.run(600, rate, |random, second| {
            let drift = 1.0 + 0.2 * (std::f64::consts::TAU * (second as f64 / 600.0 + phase)).sin();
            let pause = if random.random_bool(0.01) { 500.0 } else { 0.0 };
            Times {
                own: around(random, 10.0, 0.8) * drift + pause,
                stock: around(random, 20.0, 0.8) * drift,
                ..Times::default()
            }
        });
    });
    assert_eq!(found, 0);
}

#[test]
fn a_service_with_a_fast_and_a_slow_kind_of_request_raises_nothing() {
    let found = alarms("bimodal", |simulation| {
        let rate = bursts(simulation.random.random());
        let phase: f64 = simulation.random.random();
        simulation.run(600, rate, |random, second| {
            let wander = (std::f64::consts::TAU * (second as f64 / 240.0 + phase)).sin();
            let slow = random.random_bool(0.125 + 0.025 * wander);
            let own = if slow { around(random, 200.0, 0.3) } else { around(random, 10.0, 0.3) };
            Times { own, stock: around(random, 5.0, 0.3), ..Times::default() }
        });
    });
    assert_eq!(found, 0);
}

#[test]
fn a_route_that_is_seldom_asked_for_raises_nothing() {
    let found = alarms("sparse", |simulation| {
        simulation.run(
            3600,
            |_| 0.5,
            |random, _| Times {
                own: around(random, 10.0, 0.8),
                stock: around(random, 20.0, 0.8),
                ..Times::default()
            },
        );
    });
    assert_eq!(found, 0);
}
