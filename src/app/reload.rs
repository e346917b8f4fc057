//! Reading the configuration again: who asks for it, what comes of it, and who is told.

use std::convert::Infallible;
use std::future::Future;
use std::path::PathBuf;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Context;
use tokio::sync::{mpsc, oneshot, watch};
use tokio::time::timeout;
use tracing::{debug, info, warn};

use super::control::Control;
use super::watch::watch;
use crate::config::{Change, Loaded, changes};
use crate::stats::{Kind, Row};

/// How the settings are read again.
pub struct Again {
    /// What they were when tracecar started.
    pub start: Loaded,
    /// What they are now.
    pub now: Loaded,
    /// The file, if there is one; it is watched.
    pub file: Option<PathBuf>,
    /// Reads them, or says why they cannot be used. It may take its time.
    pub load: Load,
}

/// Reads the settings.
pub type Load = Arc<dyn Fn() -> Result<Loaded, Refused> + Send + Sync>;

/// Settings that cannot be used.
#[derive(Debug)]
pub struct Refused {
    /// Why, for people.
    pub why: String,
    /// Files that they name: another content of one of these may be all that is missing.
    pub files: Vec<PathBuf>,
    /// What is missing is something else, such as a port that somebody else has: worth another try.
    pub retry: bool,
}

/// How long reading the configuration may take: a disk that does not answer should not keep everybody waiting who asks later.
const LOAD: Duration = Duration::from_secs(10);

/// Until what may be right in a moment is tried again.
const RETRY: Duration = Duration::from_secs(5);

impl Again {
    /// Comments about what `loaded` says and tracecar does not do before its next start.
    fn wait_for_restart(&self, loaded: &Loaded) -> String {
        let changes = changes(&self.start, loaded);
        let waiting = changes.iter().filter(|change| change.start_only.is_some());
        waiting.map(|change| format!("# {}\n", told(change))).collect()
    }
}

/// A change as a line: what, and what it does.
fn told(change: &Change) -> String {
    match change.start_only {
        Some(why) => format!("{change} (only after a restart: {why})"),
        None => format!("{change} ({})", change.effect),
    }
}

/// Who wants the configuration to be read again.
#[derive(Debug)]
pub(super) enum Asked {
    /// Its file, or one that it names, has changed.
    File,
    /// SIGHUP.
    Signal,
    /// Nobody: it could not be used, for a reason that may be gone.
    Again,
    /// `POST /-/reload`, who waits for what comes of it.
    Request(oneshot::Sender<Result<String, String>>),
}

/// What came of it, for the metrics page.
#[derive(Debug)]
struct Results {
    applied: AtomicU64,
    unchanged: AtomicU64,
    refused: AtomicU64,
    /// Of the last one.
    successful: AtomicU64,
    /// When settings were last read that could be used, in seconds since 1970.
    at: AtomicU64,
}

/// Waits for those who ask.
pub(super) struct Reloads {
    again: Option<Again>,
    asked: mpsc::UnboundedReceiver<Asked>,
    ask: mpsc::UnboundedSender<Asked>,
    files: watch::Sender<Vec<PathBuf>>,
    results: Arc<Results>,
    /// What was wrong the last time, so that it is said once.
    refused: Option<String>,
    /// It may be right in a moment, though no file changes.
    retry: bool,
    loader: Loader,
}

type Answer = Pin<Box<dyn Future<Output = Result<String, String>> + Send>>;

impl Reloads {
    /// Listens to SIGHUP and to the files, where there is something to be read again.
    ///
    /// # Errors
    /// The signal cannot be listened to.
    pub(super) fn new(again: Option<Again>) -> anyhow::Result<Self> {
        let (ask, asked) = mpsc::unbounded_channel();
        let (files, to_watch) = watch::channel(Vec::new());
        let results = Arc::new(Results {
            applied: AtomicU64::new(0),
            unchanged: AtomicU64::new(0),
            refused: AtomicU64::new(0),
            successful: AtomicU64::new(1),
            at: AtomicU64::new(now()),
        });
        let reloads = Self {
            again,
            asked,
            ask,
            files,
            results,
            refused: None,
            retry: false,
            loader: Loader::default(),
        };
        if reloads.again.is_some() {
            reloads.watch(&[]);
            let ask = reloads.ask.clone();
            tokio::spawn(watch(to_watch, move || ask.send(Asked::File).is_ok()));
            reloads.listen_to_signals()?;
        }
        Ok(reloads)
    }

    #[cfg(unix)]
    fn listen_to_signals(&self) -> anyhow::Result<()> {
        use tokio::signal::unix::{SignalKind, signal};
        let mut hangup = signal(SignalKind::hangup()).context("cannot listen for SIGHUP")?;
        let ask = self.ask.clone();
        tokio::spawn(
            async move { while hangup.recv().await.is_some() && ask.send(Asked::Signal).is_ok() {} },
        );
        Ok(())
    }

    #[cfg(not(unix))]
    fn listen_to_signals(&self) -> anyhow::Result<()> {
        Ok(())
    }

    /// The next who asks. After what may work a moment later, that is ourselves.
    async fn next(&mut self) -> Asked {
        let pause = if self.retry { RETRY } else { Duration::MAX };
        match timeout(pause, self.asked.recv()).await {
            Ok(Some(asked)) => asked,
            // We hold a sender ourselves.
            Ok(None) => std::future::pending().await,
            Err(_) => Asked::Again,
        }
    }

    /// What `POST /-/reload` does; `None` where there is nothing to be read again.
    pub(super) fn by_request(&self) -> Option<crate::admin::Reload> {
        self.again.as_ref()?;
        let ask = self.ask.clone();
        Some(Arc::new(move || -> Answer {
            let (told, answer) = oneshot::channel();
            let asked = ask.send(Asked::Request(told)).is_ok();
            Box::pin(async move {
                let stopping = || Err("tracecar is about to stop\n".to_owned());
                if !asked {
                    return stopping();
                }
                answer.await.unwrap_or_else(|_| stopping())
            })
        }))
    }

    /// What has come of it so far.
    pub(super) fn rows(&self) -> impl Fn() -> Vec<Row> + Send + Sync + use<> {
        let results = self.results.clone();
        move || {
            let value = |number: &AtomicU64| number.load(Ordering::Relaxed);
            let gauge = |name, help, value| Row { name, help, kind: Kind::Gauge, label: None, value };
            let mut rows = vec![
                gauge(
                    "tracecar_config_last_reload_successful",
                    "Whether the configuration that was read last is in effect.",
                    value(&results.successful),
                ),
                gauge(
                    "tracecar_config_last_reload_timestamp_seconds",
                    "When the configuration in effect was read.",
                    value(&results.at),
                ),
            ];
            for (result, count) in [
                ("applied", &results.applied),
                ("unchanged", &results.unchanged),
                ("refused", &results.refused),
            ] {
                rows.push(Row {
                    name: "tracecar_config_reloads",
                    help: "Times that the configuration was read again, by what came of it.",
                    kind: Kind::Counter,
                    label: Some(("result", result.into())),
                    value: value(count),
                });
            }
            rows
        }
    }

    /// Has the files watched that the settings in effect name, their own, and these.
    fn watch(&self, more: &[PathBuf]) {
        let Some(again) = &self.again else { return };
        let mut files: Vec<_> = again.file.iter().chain(&again.now.files).chain(more).cloned().collect();
        files.sort();
        files.dedup();
        self.files.send_replace(files);
    }
}

impl Control {
    /// Follows those who ask. To be dropped when tracecar is to stop.
    pub(super) async fn follow(&mut self, reloads: &mut Reloads) -> Infallible {
        loop {
            let asked = reloads.next().await;
            self.reload(reloads, asked).await;
        }
    }

    /// Reads the configuration again, and applies it as a whole or not at all.
    async fn reload(&mut self, reloads: &mut Reloads, asked: Asked) {
        let result = self.reloaded(reloads).await;
        reloads.watch(result.as_ref().err().map_or(&[], |refused| &refused.files));
        reloads.retry = result.as_ref().is_err_and(|refused| refused.retry);
        let result = result.map_err(|refused| refused.why);
        let Reloads { results, refused, .. } = reloads;
        match &result {
            Ok(changed) => {
                match (changed.is_empty(), &asked) {
                    (false, _) => results.applied.fetch_add(1, Ordering::Relaxed),
                    // Files are also looked at without anybody's having changed them.
                    (true, Asked::File | Asked::Again) => 0,
                    (true, _) => results.unchanged.fetch_add(1, Ordering::Relaxed),
                };
                results.successful.store(1, Ordering::Relaxed);
                results.at.store(now(), Ordering::Relaxed);
                if refused.take().is_some() && changed.is_empty() {
                    info!("the configuration can be used again, and is the one in effect");
                }
                match changed.is_empty() {
                    true => debug!("the configuration was read again, and nothing has changed"),
                    false => info!(changes = changed.len(), "the configuration was read again"),
                }
                changed.iter().for_each(|change| info!("{change}"));
            }
            Err(why) => {
                if !matches!(asked, Asked::Again) {
                    results.refused.fetch_add(1, Ordering::Relaxed);
                }
                results.successful.store(0, Ordering::Relaxed);
                if refused.as_ref() != Some(why) {
                    warn!(
                        "the configuration was read again and cannot be used, the one before stays in effect:\n{why}"
                    );
                    self.pages().show_refused(why.clone());
                    *refused = Some(why.clone());
                }
            }
        }
        if let Asked::Request(told) = asked {
            let said = result.map(|changed| match changed.is_empty() {
                true => "nothing has changed\n".to_owned(),
                false => changed.join("\n") + "\n",
            });
            // Whoever has asked may be gone.
            let _ = told.send(said.map_err(|why| why + "\n"));
        }
    }

    /// What has changed, a line each.
    async fn reloaded(&mut self, reloads: &mut Reloads) -> Result<Vec<String>, Refused> {
        let Some(again) = &mut reloads.again else { return Ok(Vec::new()) };
        let load = again.load.clone();
        let loaded = reloads.loader.load(load).await?;
        let changed = changes(&again.now, &loaded);
        let said = |error: anyhow::Error| Refused {
            why: format!("{error:#}"),
            files: loaded.files.clone(),
            retry: true,
        };
        let sockets = self.bind(&loaded.settings.startup).map_err(said)?;
        let changed: Vec<String> = changed.iter().map(told).collect();
        let waiting = again.wait_for_restart(&loaded);
        let (settings, effective) = (loaded.settings.clone(), waiting + &loaded.effective);
        let change = self.prepare(settings, effective, sockets).map_err(said)?;
        self.apply(change);
        self.settle().await;
        for warning in loaded.warnings.iter().filter(|warning| !again.now.warnings.contains(warning)) {
            warn!("{warning}");
        }
        again.now = loaded;
        Ok(changed)
    }
}

/// Reads the configuration on a thread of its own: disks can be slow, and the exporter shares ours; and one that never comes back
/// should hold up nobody, not even the end of the process.
#[derive(Default)]
struct Loader {
    /// To the thread that waits for the next; kept, for the memory that each new one would take. `None` after one that has not come
    /// back.
    thread: Option<std::sync::mpsc::Sender<Errand>>,
}

type Errand = (Load, oneshot::Sender<Result<Loaded, Refused>>);

impl Loader {
    /// What `load` returns, if that is in time.
    async fn load(&mut self, load: Load) -> Result<Loaded, Refused> {
        let refused = |why: String| Err(Refused { why, files: Vec::new(), retry: true });
        let (told, answer) = oneshot::channel();
        let thread = match self.thread.take().map_or_else(start, Ok) {
            Ok(thread) => thread,
            Err(error) => return refused(format!("cannot start a thread to read it: {error}")),
        };
        let sent = thread.send((load, told)).is_ok();
        match timeout(LOAD, answer).await {
            Ok(Ok(loaded)) if sent => {
                self.thread = Some(thread);
                loaded
            }
            Ok(_) => refused("reading it panicked; this is a bug in tracecar".to_owned()),
            Err(_) => refused(format!("reading it takes longer than {LOAD:?}")),
        }
    }
}

fn start() -> std::io::Result<std::sync::mpsc::Sender<Errand>> {
    let (thread, errands) = std::sync::mpsc::channel::<Errand>();
    std::thread::Builder::new().name("reload".to_owned()).spawn(move || {
        for (load, told) in errands {
            // Whoever has asked may have stopped waiting.
            let _ = told.send(load());
        }
    })?;
    Ok(thread)
}

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}
