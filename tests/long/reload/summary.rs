//! What the run comes to: spans and lines are judged, and everything is said in one table.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::time::{Duration, Instant};

use opentelemetry_proto::tonic::trace::v1::span::SpanKind;

use super::model::Side;
use super::traffic::{EVENT_STREAMS, Outcome, Sent, WEBSOCKETS};
use super::{GROWTH, GROWTH_IF_SHORT, How, Run, Way, looks};
use crate::phase;
use crate::support::page::Page;

/// How many complaints are shown; the first ones say most.
const SHOWN: usize = 40;

/// How often was reloaded, and how long that took.
#[derive(Default)]
pub struct Tally {
    reloads: BTreeMap<(Way, bool), Vec<Duration>>,
    pub rests: Vec<Rest>,
    /// Requests and calls of which nobody can say whether they had to have a span: sampling changed meanwhile.
    pub unsure: usize,
    /// The rows of the table that were visited.
    pub rows: BTreeSet<&'static str>,
}

impl Tally {
    pub fn reloaded(&mut self, way: Way, valid: bool, took: Duration) {
        self.reloads.entry((way, valid)).or_default().push(took);
    }

    pub fn all(&self) -> usize {
        self.reloads.values().map(Vec::len).sum()
    }
}

/// The process at one time.
#[derive(Debug)]
pub struct Rest {
    when: String,
    /// In kB, the median of several readings; 0 where the system does not tell.
    memory: u64,
    readings: Vec<u64>,
    threads: u64,
    descriptors: usize,
}

impl Rest {
    pub fn of(process: u32, when: &str) -> Self {
        let status = || std::fs::read_to_string(format!("/proc/{process}/status")).unwrap_or_default();
        let number = |name: &str| {
            let text = status();
            let line = text.lines().find_map(|line| line.strip_prefix(name)).unwrap_or_default();
            line.trim_start_matches(':')
                .split_whitespace()
                .next()
                .and_then(|word| word.parse().ok())
                .unwrap_or(0)
        };
        // Unused memory goes back after a second. Readings are apart from each other, so that they differ.
        std::thread::sleep(Duration::from_millis(1500));
        let read = |_| {
            std::thread::sleep(Duration::from_millis(200));
            number("VmRSS")
        };
        let readings: Vec<u64> = (0..9).map(read).collect();
        let mut sorted = readings.clone();
        sorted.sort_unstable();
        Self {
            when: when.to_owned(),
            memory: sorted[sorted.len() / 2],
            readings,
            threads: number("Threads"),
            descriptors: std::fs::read_dir(format!("/proc/{process}/fd")).map_or(0, Iterator::count),
        }
    }
}

/// Compares what has come out with what went in.
pub fn judge(run: &mut Run, outcome: Option<&Outcome>) {
    let mut complaints = Vec::new();
    for probe in &run.prober.probes {
        let wrong = probe.judge(&run.collectors, &run.eras, &run.places);
        complaints.extend(wrong.into_iter().map(|text| format!("after {}: {text}", probe.after())));
    }
    if run.how != How::Nothing {
        lines(run, &mut complaints);
    }
    if let Some(outcome) = outcome {
        run.tally.unsure = traffic(run, outcome, &mut complaints);
    }
    memory(run, &mut complaints);
    run.complaints.extend(complaints);
}

/// Whether access log, console and log have said what they had to, and nothing else.
fn lines(run: &Run, complaints: &mut Vec<String>) {
    let file = std::fs::read_to_string(run.places.name("access-log")).unwrap_or_default();
    let found = |line: &str| {
        let path: String =
            line.split("/probe/items/").nth(1)?.chars().take_while(char::is_ascii_digit).collect();
        Some((format!("/probe/items/{path}"), line.starts_with('{')))
    };
    let in_file: HashSet<(String, bool)> = file.lines().filter_map(found).collect();
    let on_stdout: HashSet<String> =
        run.said.0.iter().filter_map(|line| found(line)).map(|(path, _)| path).collect();
    let mut sure = 0;
    for probe in &run.prober.probes {
        let Some((wanted_in_file, wanted_on_stdout)) = probe.lines(&run.eras) else { continue };
        sure += 1;
        let is = |json| in_file.contains(&(probe.path.clone(), json));
        let so = if wanted_in_file { is(probe.json()) } else { !is(true) && !is(false) };
        if !so {
            complaints.push(format!(
                "after {}: a line about {} in the file of the access log: {wanted_in_file} was expected",
                probe.after(),
                probe.path
            ));
        }
        if on_stdout.contains(&probe.path) != wanted_on_stdout {
            complaints.push(format!(
                "after {}: a line about {} on standard output: {wanted_on_stdout} was expected",
                probe.after(),
                probe.path
            ));
        }
    }
    if sure == 0 {
        complaints.push("no probe was sure to leave a line, or none".to_owned());
    }
    let logged = run.said.1.iter().filter(|line| line.contains(looks::LOG_LINE)).count();
    if logged != run.log_lines {
        complaints.push(format!("{} lines of the log were expected, and there are {logged}", run.log_lines));
    }
}

/// Whether each request, call and stream has the one span that it has to have.
fn traffic(run: &Run, outcome: &Outcome, complaints: &mut Vec<String>) -> usize {
    let mut unsure = 0;
    let counted = |kind, path: &str| run.collectors.paths.get(&(kind, path.to_owned())).copied().unwrap_or(0);
    let mut wrong: BTreeMap<String, Vec<&str>> = BTreeMap::new();
    let all = |sent: &[Sent], side, kind| -> Vec<(usize, u32, Option<bool>)> {
        let of = |(number, one): (usize, &Sent)| {
            (number, counted(kind, &one.path), run.eras.sampled(side, one.from, one.to))
        };
        sent.iter().enumerate().map(of).collect()
    };
    for (sent, side, kind) in [
        (&outcome.requests, Side::Inbound, SpanKind::Server),
        (&outcome.calls, Side::Outbound, SpanKind::Client),
    ] {
        for (number, spans, sampled) in all(sent, side, kind) {
            unsure += usize::from(sampled.is_none());
            let what = match (spans, sampled) {
                (0, Some(true)) => "without a span",
                (1.., Some(false)) => "with a span, though not sampled",
                (2.., _) => "with more than one span",
                _ => continue,
            };
            wrong.entry(format!("{side:?} {what}")).or_default().push(&sent[number].path);
        }
    }
    let streams = (0..WEBSOCKETS)
        .map(|number| format!("/websocket/{number}"))
        .chain((0..EVENT_STREAMS).map(|number| format!("/events/{number}")));
    for path in streams {
        let spans = counted(SpanKind::Server, &path);
        if spans != 1 {
            complaints.push(format!("{path} has {spans} spans"));
        }
    }
    for (what, paths) in wrong {
        complaints.push(format!(
            "{} {what}, the first of them {:?}",
            paths.len(),
            &paths[..paths.len().min(5)]
        ));
    }
    if run.collectors.duplicates > 0 {
        complaints.push(format!("{} spans came more than once", run.collectors.duplicates));
    }
    let failed = |(when, text): &(Instant, String)| format!("during {}: {text}", run.eras.at(*when));
    complaints.extend(outcome.failures.iter().map(failed).take(SHOWN));
    unsure
}

fn memory(run: &Run, complaints: &mut Vec<String>) {
    if run.how == How::Restart {
        return;
    }
    let [first, .., last] = run.tally.rests.as_slice() else { return };
    let growth = if phase() < Duration::from_secs(60) { GROWTH_IF_SHORT } else { GROWTH };
    if last.memory as f64 > first.memory as f64 * (1.0 + growth / 100.0) {
        complaints.push(format!("memory grows from {} kB to {} kB", first.memory, last.memory));
    }
}

/// Prints the table.
pub fn print(run: &Run, outcome: Option<&Outcome>, page: &Page) {
    println!("\n{:?}: {} reloads, {} rows of the table", run.how, run.tally.all(), run.tally.rows.len());
    for ((way, valid), took) in &run.tally.reloads {
        let kind = if *valid { "applied" } else { "refused" };
        let (median, longest) = (percentile(took, 0.5), percentile(took, 1.0));
        println!(
            "  {:<28}{:>8}   median {median:?}, longest {longest:?}",
            format!("{way:?} {kind}"),
            took.len()
        );
    }
    if let Some(outcome) = outcome {
        let times = |sent: &[Sent]| sent.iter().map(|sent| sent.took).collect::<Vec<_>>();
        for (what, sent) in [("requests", &outcome.requests), ("calls", &outcome.calls)] {
            let times = times(sent);
            println!(
                "{what:<30}{:>8}   p50 {:?}, p99 {:?}, p99.9 {:?}, longest {:?}",
                sent.len(),
                percentile(&times, 0.5),
                percentile(&times, 0.99),
                percentile(&times, 0.999),
                percentile(&times, 1.0),
            );
        }
        println!("{:<30}{:>8}   of them while sampling changed", "", run.tally.unsure);
        println!(
            "{:<30}{:>8}   longest echo {:?} on {WEBSOCKETS} WebSockets",
            "messages", outcome.messages, outcome.longest_echo
        );
        println!(
            "{:<30}{:>8}   longest gap {:?} on {EVENT_STREAMS} streams",
            "events", outcome.events, outcome.longest_gap
        );
        println!("{:<30}{:>8}   closed between two requests", "connections", outcome.reconnects);
        println!("{:<30}{:>8}", "failures", outcome.failures.len());
        let mut reasons = BTreeMap::<&str, usize>::new();
        for (_, reason) in &outcome.failures {
            *reasons.entry(reason).or_default() += 1;
        }
        reasons.iter().for_each(|(reason, count)| println!("  {reason:<60}{count:>8}"));
    }
    println!("{:<30}{:>8}", "probes", run.prober.probes.len());
    for (name, (spans, batches)) in &run.collectors.counts {
        println!("{:<30}{spans:>8}   in {batches} batches", format!("spans to {name}"));
    }
    println!("{:<30}{:>8}   of them more than once", "", run.collectors.duplicates);
    let of = |name: &str| page.count(&format!("tracecar_export_spans_{name}"));
    let (accepted, exported, dropped) = (of("accepted_total"), of("exported_total"), of("dropped_total"));
    println!(
        "{:<30}{accepted:>8}   accepted, {exported} exported, {dropped} dropped",
        "spans by its own account"
    );
    for Rest { when, memory, readings, threads, descriptors } in &run.tally.rests {
        println!("{when:<30}{memory:>8} kB, {threads} threads, {descriptors} descriptors; {readings:?}");
    }
    println!("{:<30}{:>8}", "complaints", run.complaints.len());
    run.complaints.iter().take(SHOWN).for_each(|complaint| println!("  {complaint}"));
}

fn percentile(times: &[Duration], share: f64) -> Duration {
    let mut times = times.to_vec();
    times.sort_unstable();
    times.get((times.len().saturating_sub(1) as f64 * share) as usize).copied().unwrap_or_default()
}
