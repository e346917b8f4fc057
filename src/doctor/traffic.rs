//! What passes, by the metrics of the running tracecar: traffic, where parents come from, what is lost.

use std::collections::BTreeMap;
use std::time::Duration;

use http::StatusCode;

use super::Check;
use super::sidecar::Pages;
use crate::config::{Live, Startup};
use crate::exchange::Ancestry;

/// Calls from which on a share says something.
const ENOUGH: u64 = 10;

/// Reads the metrics, twice where there is a time to wait in between, and says what they mean.
pub(super) async fn check(
    startup: &Startup,
    live: &Live,
    pages: Option<&Pages>,
    listen_for: Option<Duration>,
) -> Vec<Check> {
    let name = "traffic";
    let Some(pages) = pages else {
        let advice = "what the service forwards is seen only while tracecar runs: see the line `tracecar`";
        return vec![Check { advice: advice.to_owned(), ..Check::ok(name, "cannot be seen") }];
    };
    let figures = match listen_for {
        None => figures(pages).await,
        Some(time) => match figures(pages).await {
            Ok(before) => {
                tokio::time::sleep(time).await;
                figures(pages).await.map(|after| after.since(&before))
            }
            Err(reason) => Err(reason),
        },
    };
    let figures = match figures {
        Ok(figures) => figures,
        Err(reason) => {
            let words = format!("the metrics of the running tracecar cannot be read: {reason}");
            return vec![Check::problem(name, words, "look at its log")];
        }
    };
    let when = match listen_for {
        None => "since it started".to_owned(),
        Some(time) => format!("in {time:?}"),
    };
    let mut checks = vec![figures.requests(&when)];
    if startup.outbound.is_some() {
        checks.push(figures.lineage(live, &when));
    }
    if startup.export.otlp.is_some() {
        checks.push(figures.export(&when));
    }
    if figures.panics > 0 {
        let words = format!("{} tasks panicked {when}", figures.panics);
        checks.push(Check::problem(
            "panics",
            words,
            "this is a bug in tracecar; please report it, with its log",
        ));
    }
    checks
}

async fn figures(pages: &Pages) -> Result<Figures, String> {
    match pages.read("/metrics").await? {
        (StatusCode::OK, text) => Ok(Figures::read(&text)),
        (status, _) => Err(format!("{status} to /metrics")),
    }
}

/// Counts, by the value of a label.
type Counts = BTreeMap<String, u64>;

#[derive(Debug, Default)]
struct Figures {
    /// Finished requests to the service.
    requests: u64,
    /// Calls, by how their parent was found.
    calls: Counts,
    /// Calls that carried what their request had in a header, by its name.
    forwarded: Counts,
    /// Lost spans by reason.
    dropped: Counts,
    exported: u64,
    failures: u64,
    /// Failures since the last success: not a count that grows, so it is as it is now.
    failing: u64,
    panics: u64,
}

impl Figures {
    /// Reads what matters here of a page in Prometheus' text format.
    fn read(page: &str) -> Self {
        let mut figures = Self::default();
        for line in page.lines().filter(|line| !line.starts_with('#')) {
            let Some((series, value)) = line.rsplit_once(' ') else { continue };
            // Counters are whole numbers; some exporters write them as 3.0.
            let Some(value) = value.parse::<f64>().ok().filter(|value| *value >= 0.0) else { continue };
            let value = value as u64;
            let (name, labels) = series.split_once('{').unwrap_or((series, ""));
            let label = |label: &str| label_of(labels, label);
            let mut count = |counts: fn(&mut Self) -> &mut Counts, by: &str| {
                *counts(&mut figures).entry(label(by)).or_default() += value;
            };
            match name {
                "tracecar_lineage_calls_total" => count(|all| &mut all.calls, "method"),
                "tracecar_lineage_forwarded_total" => count(|all| &mut all.forwarded, "header"),
                "tracecar_export_spans_dropped_total" => count(|all| &mut all.dropped, "reason"),
                "http_server_request_duration_seconds_count" | "rpc_server_call_duration_seconds_count" => {
                    figures.requests += value
                }
                "tracecar_streams_total" => figures.requests += value,
                "tracecar_export_spans_exported_total" => figures.exported += value,
                "tracecar_export_failures_total" => figures.failures += value,
                "tracecar_export_consecutive_failures" => figures.failing = value,
                "tracecar_panics_total" => figures.panics += value,
                _ => {}
            }
        }
        figures
    }

    /// What happened in between. A tracecar that was started again in the meantime begins at zero.
    fn since(self, before: &Self) -> Self {
        let less = |mut now: Counts, before: &Counts| {
            for (by, count) in &mut now {
                *count = count.saturating_sub(before.get(by).copied().unwrap_or_default());
            }
            now
        };
        Self {
            requests: self.requests.saturating_sub(before.requests),
            calls: less(self.calls, &before.calls),
            forwarded: less(self.forwarded, &before.forwarded),
            dropped: less(self.dropped, &before.dropped),
            exported: self.exported.saturating_sub(before.exported),
            failures: self.failures.saturating_sub(before.failures),
            failing: self.failing,
            panics: self.panics.saturating_sub(before.panics),
        }
    }

    fn requests(&self, when: &str) -> Check {
        match self.requests {
            0 => {
                let advice =
                    "send requests to tracecar and not to the service; --listen-for 30s waits for them";
                Check::warning("traffic", format!("no request has passed {when}"), advice)
            }
            1 => Check::ok("traffic", format!("1 request {when}")),
            count => Check::ok("traffic", format!("{count} requests {when}")),
        }
    }

    fn lineage(&self, live: &Live, when: &str) -> Check {
        let name = "lineage";
        let calls: u64 = self.calls.values().sum();
        if calls == 0 {
            let advice = "does the service use the way out? Its environment needs HTTP_PROXY, or a mapped listener as base URL";
            return Check::warning(name, format!("no call of the service has passed {when}"), advice);
        }
        let of = match calls {
            1 => "1 call".to_owned(),
            _ => format!("{calls} calls"),
        };
        let exact = self.by("header") + self.by("correlation") >= calls;
        let found = if exact { "parents are exact".to_owned() } else { self.ways(calls) };
        let words = format!("{}: {found} ({of} {when})", self.forwards(live, calls));
        let unknown = self.by(Ancestry::NONE);
        // Few calls say little, and a background job has no parent to be found.
        match calls >= ENOUGH && unknown * 5 > calls {
            true => {
                let advice = "if these are no background calls, name headers or JSON fields that go from requests into calls: \
                              lineage.identity_headers, lineage.token_headers, lineage.json_fields";
                Check::warning(name, words, advice)
            }
            false => Check::ok(name, words),
        }
    }

    /// Calls whose parent was found that way.
    fn by(&self, method: &str) -> u64 {
        self.calls.get(method).copied().unwrap_or_default()
    }

    /// How parents are found, the commonest way first.
    fn ways(&self, calls: u64) -> String {
        let known = by_count(&self.calls).into_iter().filter(|(method, _)| *method != Ancestry::NONE);
        let ways: Vec<_> =
            known.map(|(method, count)| format!("{method} in {}", share(count, calls))).collect();
        let found = ways.join(", ");
        match self.by(Ancestry::NONE) {
            0 => format!("parents are found by {found}"),
            _ if ways.is_empty() => "no parent was found".to_owned(),
            unknown => format!("parents are found by {found}, unknown in {}", share(unknown, calls)),
        }
    }

    /// What the service forwards, as the beginning of a sentence.
    fn forwards(&self, live: &Live, calls: u64) -> String {
        let told = |header: String, count| match count >= calls {
            true => header,
            false => format!("{header} (in {} of its calls)", share(count, calls)),
        };
        let headers = by_count(&self.forwarded).into_iter().map(|(header, count)| {
            let header = match (header, &live.correlation) {
                ("correlation", Some(rules)) => {
                    let names: Vec<_> = rules.headers.iter().map(|name| name.as_str()).collect();
                    format!("the correlation id ({})", names.join(" or "))
                }
                ("correlation", None) => "the correlation id".to_owned(),
                (header, _) => header.to_owned(),
            };
            told(header, count)
        });
        let mut headers: Vec<_> = headers.collect();
        // Contexts are counted by what they decided, whichever header they were in.
        let contexts = self.by("header");
        if contexts > 0 && !self.forwarded.contains_key("traceparent") {
            headers.insert(0, told("its trace context (traceparent or the like)".to_owned(), contexts));
        }
        if self.by("correlation") > 0 && headers.is_empty() {
            headers.push(told("a correlation id".to_owned(), self.by("correlation")));
        }
        match headers.is_empty() {
            true => "nothing is forwarded".to_owned(),
            false => format!("your app forwards {}", headers.join(" and ")),
        }
    }

    fn export(&self, when: &str) -> Check {
        let name = "export";
        let lost: u64 = self.dropped.values().sum();
        if self.failing > 0 {
            let words = format!(
                "the last {} attempts to export have failed; {lost} spans were lost {when}",
                self.failing
            );
            return Check::problem(name, words, "see the line `collector`, and the log of tracecar");
        }
        if lost > 0 {
            let reasons: Vec<_> = by_count(&self.dropped)
                .into_iter()
                .map(|(reason, count)| format!("{reason} {count}"))
                .collect();
            let words = format!("{lost} spans were lost {when}: {}", reasons.join(", "));
            return Check::warning(name, words, "the guide on export says what each reason means");
        }
        match self.failures {
            0 => Check::ok(name, format!("{} spans were exported {when}, and none lost", self.exported)),
            failures => {
                let words = format!(
                    "{} spans were exported {when}, and none lost; {failures} attempts had to be repeated",
                    self.exported
                );
                Check::ok(name, words)
            }
        }
    }
}

/// The counts above zero, largest first.
fn by_count(counts: &Counts) -> Vec<(&str, u64)> {
    let mut list: Vec<_> =
        counts.iter().filter(|(_, count)| **count > 0).map(|(by, count)| (by.as_str(), *count)).collect();
    list.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    list
}

/// `count` of `all` in whole per cent; what is there is never nothing.
fn share(count: u64, all: u64) -> String {
    match (count * 100 + all / 2) / all.max(1) {
        0 if count > 0 => "less than 1 %".to_owned(),
        percent => format!("{percent} %"),
    }
}

/// The value of a label. Those that matter here are names of our own and of headers, in which nothing is escaped.
fn label_of(labels: &str, label: &str) -> String {
    let value = labels.split(&format!("{label}=\"")).nth(1).and_then(|rest| rest.split('"').next());
    value.unwrap_or("other").to_owned()
}
