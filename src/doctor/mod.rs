//! Looks for what is wrong, for a person who was woken by it.
//!
//! [`examine`] asks everything that tracecar depends on (the service, the collector, Sentry, destinations, the kernel, its own
//! files) and a running tracecar, if there is one. It comes to a list of [`Check`]s, each with what to do about it.
//! Nothing is changed, and no request is sent to the service or to a destination: they are connected to, and left.
//!
//! * `sidecar`: the admin pages of the running tracecar
//! * `listening`: our own addresses, and the service's
//! * `collector`: where spans go, and whether clocks agree
//! * `sentry`: where events go
//! * `way_out`: the service's way to others
//! * `traffic`: what passes, by the metrics of the running tracecar

mod collector;
mod listening;
mod sentry;
mod sidecar;
mod traffic;
mod way_out;

use std::fmt::Write as _;
use std::future::Future;
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::timeout;

use crate::config::{Loaded, Settings};

/// Bound on one check. They run side by side, so all of them take hardly longer.
const LIMIT: Duration = Duration::from_secs(5);

/// Bound on one connection, so that two may be tried within [`LIMIT`].
const CONNECT: Duration = Duration::from_secs(2);

/// How something is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// As it should be.
    Ok,
    /// Worth knowing, and nothing is lost.
    Warning,
    /// Something does not work.
    Problem,
}

impl State {
    fn as_str(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Warning => "warning",
            Self::Problem => "problem",
        }
    }
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Check {
    /// What it is about, in a word or two.
    pub name: String,
    /// How it is.
    pub state: State,
    /// What was seen, in one line.
    pub words: String,
    /// What to do; empty where there is nothing to do.
    pub advice: String,
}

impl Check {
    /// It is as it should be.
    pub fn ok(name: &str, words: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state: State::Ok, words: words.into(), advice: String::new() }
    }

    /// It is worth knowing.
    pub fn warning(name: &str, words: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state: State::Warning, words: words.into(), advice: advice.into() }
    }

    /// It does not work.
    pub fn problem(name: &str, words: impl Into<String>, advice: impl Into<String>) -> Self {
        Self { name: name.to_owned(), state: State::Problem, words: words.into(), advice: advice.into() }
    }
}

/// What to look at.
pub struct Subject<'a> {
    /// The settings, as `run` would have them here.
    pub loaded: &'a Loaded,
    /// Where they come from, for people.
    pub source: &'a str,
    /// The admin pages of a running tracecar, `HOST:PORT` or `http://HOST:PORT`, in place of the configured.
    pub admin: Option<&'a str>,
    /// How long to watch traffic; without it there is what was counted since tracecar started.
    pub listen_for: Option<Duration>,
    /// Variables of the environment that we were called in.
    pub env: &'a (dyn Fn(&str) -> Option<String> + Sync),
}

/// Looks at everything. Takes a few seconds more than [`Subject::listen_for`] at most. The caller should not wait for
/// what its runtime has blocking threads for: names may still be resolved there.
pub async fn examine(subject: &Subject<'_>) -> Vec<Check> {
    let Settings { startup, live } = &subject.loaded.settings;
    let sidecar = sidecar::find(startup.admin, subject.admin, startup.admin_token.as_ref()).await;
    let running = sidecar.page.as_ref();
    let (about_sidecar, listeners, services, collector, sentry, way_out, traffic) = tokio::join!(
        within("tracecar", sidecar::check(&sidecar, &subject.loaded.effective)),
        within("listeners", listening::listeners(startup, running.is_some())),
        within("service", listening::services(startup, live)),
        within("collector", collector::check(startup)),
        within("sentry", sentry::check(startup)),
        within("way out", way_out::check(startup, live, subject.env)),
        // Bounds itself, since it may have been told to wait.
        traffic::check(startup, live, running, subject.listen_for),
    );
    let mut checks = config(subject);
    for part in [about_sidecar, listeners, services, collector, sentry, way_out, traffic] {
        checks.extend(part);
    }
    checks
}

async fn within(name: &str, checks: impl Future<Output = Vec<Check>>) -> Vec<Check> {
    timeout(LIMIT, checks).await.unwrap_or_else(|_| {
        let advice = "something that is asked does not answer: the name server, most likely";
        vec![Check::problem(name, format!("nothing was found out within {LIMIT:?}"), advice)]
    })
}

/// All of them at once, for each may have to time out; the answers in their order.
async fn side_by_side(checks: Vec<impl Future<Output = Check> + Send + 'static>) -> Vec<Check> {
    let mut asked = JoinSet::new();
    for (place, check) in checks.into_iter().enumerate() {
        asked.spawn(async move { (place, check.await) });
    }
    let mut answers = asked.join_all().await;
    answers.sort_by_key(|(place, _)| *place);
    answers.into_iter().map(|(_, check)| check).collect()
}

fn config(subject: &Subject<'_>) -> Vec<Check> {
    let Loaded { warnings, .. } = subject.loaded;
    let mut checks = vec![Check::ok("config", format!("{} can be used", subject.source))];
    checks.extend(warnings.iter().map(|warning| Check::warning("config", warning.clone(), "")));
    checks
}

/// The worst of them; [`State::Ok`] of none.
pub fn worst(checks: &[Check]) -> State {
    checks.iter().map(|check| check.state).max().unwrap_or(State::Ok)
}

/// The checks as lines for people, and a summary.
pub fn text(checks: &[Check]) -> String {
    let width = checks.iter().map(|check| check.name.chars().count()).max().unwrap_or_default();
    let mut text = String::new();
    for Check { name, state, words, advice } in checks {
        // Writing to a string cannot fail.
        let _ = writeln!(text, "{:7}  {name:width$}  {words}", state.as_str());
        if !advice.is_empty() {
            let _ = writeln!(text, "{:7}  {:width$}    -> {advice}", "", "");
        }
    }
    let count = |state| checks.iter().filter(|check| check.state == state).count();
    let many = |count: usize, what: &str| match count {
        1 => format!("1 {what}"),
        _ => format!("{count} {what}s"),
    };
    let (problems, warnings) = (count(State::Problem), count(State::Warning));
    let _ = match (problems, warnings) {
        (0, 0) => writeln!(text, "\nall is well"),
        _ => writeln!(text, "\n{}, {}", many(problems, "problem"), many(warnings, "warning")),
    };
    text
}

/// The same as JSON: `state` is the worst, `checks` has all.
pub fn json(checks: &[Check]) -> String {
    let report = serde_json::json!({ "state": worst(checks), "checks": checks });
    format!("{report:#}\n")
}
