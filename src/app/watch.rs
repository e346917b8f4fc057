//! Notices when files change, however that is done: written in place, replaced by another, or by a symlink's turn to another
//! directory, as Kubernetes changes a ConfigMap.
//!
//! Watched are the directories, since whoever watches a file watches what was there; and what counts is the content. The
//! kernel's word makes it quick. It is not relied on: not every file system gives it, so the files are also looked at once a
//! second.

use std::collections::{HashMap, HashSet};
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::{Notify, watch};
use tokio::time::{sleep, timeout};
use tracing::debug;

use crate::config::read_bytes;

/// Between two looks that nobody has asked for.
const LOOK: Duration = Duration::from_secs(1);

/// Between two looks, however often the kernel says something.
const REST: Duration = Duration::from_millis(100);

/// Editors write in several steps. They are over when nothing has changed for so long.
const SETTLED: Duration = Duration::from_millis(50);

/// Calls `changed` each time when the content of one of `files` has changed, until it returns `false` or nobody says any more which
/// they are.
pub(super) async fn watch(mut files: watch::Receiver<Vec<PathBuf>>, changed: impl Fn() -> bool) {
    let told = Arc::new(Notify::new());
    let mut eye = Eye::new(told.clone());
    let look = Look::default();
    let mut known: Option<Seen> = None;
    loop {
        let watched = files.borrow_and_update().clone();
        let (seen, directories) = look.at(watched.clone()).await;
        eye.turn_to(directories);
        // The first time it is not known what was read: a change since the start would be missed.
        let differs =
            |known: &Seen| seen.iter().any(|(file, is)| known.get(file).is_some_and(|was| was != is));
        if known.as_ref().is_none_or(differs) {
            // What is being written is looked at again until it stands.
            sleep(SETTLED).await;
            if look.at(watched).await.0 != seen {
                continue;
            }
            // What was watched may be somewhere else now.
            eye.forget();
            if !changed() {
                return;
            }
        }
        known = Some(seen);
        tokio::select! {
            // Whatever else happens in the directory (a log that grows, say) is no reason to look all the time.
            told = timeout(LOOK, told.notified()) => if told.is_ok() { sleep(REST).await },
            told = files.changed() => if told.is_err() { return },
        }
    }
}

/// What files hold, as far as that matters: whether it is something else.
type Seen = HashMap<PathBuf, Option<u64>>;

/// Looks at files.
#[derive(Clone, Default)]
struct Look(Arc<RandomState>);

impl Look {
    /// What the files hold, and the directories in which that may change: theirs, and those that links lead to.
    async fn at(&self, files: Vec<PathBuf>) -> (Seen, HashSet<PathBuf>) {
        let hasher = self.0.clone();
        let looking = tokio::task::spawn_blocking(move || {
            let real = files.iter().filter_map(|file| std::fs::canonicalize(file).ok());
            let real: Vec<_> = real.map(|file| directory(&file)).collect();
            let directories = files.iter().map(|file| directory(file)).chain(real).collect();
            let hash = |file: &PathBuf| Some(hasher.hash_one(read_bytes(file).ok()?));
            (
                files.into_iter().map(|file| (hash(&file), file)).map(|(is, file)| (file, is)).collect(),
                directories,
            )
        });
        looking.await.unwrap_or_default()
    }
}

/// The kernel's word, where it gives it.
struct Eye {
    watcher: Option<RecommendedWatcher>,
    directories: HashSet<PathBuf>,
}

impl Eye {
    fn new(told: Arc<Notify>) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading a file is an event, too, and we do that after each.
            if !event.is_ok_and(|event| event.kind.is_access()) {
                told.notify_one();
            }
        });
        let watcher = watcher.map_err(|error| debug!(%error, "files are looked at every {LOOK:?} only")).ok();
        Self { watcher, directories: HashSet::new() }
    }

    /// Watches nothing, until it is told anew.
    fn forget(&mut self) {
        if let Some(watcher) = &mut self.watcher {
            for directory in self.directories.drain() {
                let _ = watcher.unwatch(&directory);
            }
        }
    }

    fn turn_to(&mut self, directories: HashSet<PathBuf>) {
        let Some(watcher) = &mut self.watcher else { return };
        for gone in self.directories.difference(&directories) {
            let _ = watcher.unwatch(gone);
        }
        let mut watched = HashSet::new();
        for directory in directories {
            let known = self.directories.contains(&directory);
            // One that is not there yet is tried again with the next look.
            if known || watcher.watch(&directory, RecursiveMode::NonRecursive).is_ok() {
                watched.insert(directory);
            }
        }
        self.directories = watched;
    }
}

fn directory(file: &Path) -> PathBuf {
    match file.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    }
}
