//! tracecar itself, in this process, on ports of its own.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::sync::oneshot;
use tracecar::app::{App, Bound, Parts};
use tracecar::config::{self, Flags, Settings, Sources};
use tracecar::exchange::{Record, Sink};
use tracecar::stats::Stats;

use super::PATIENCE;

/// A running sidecar. Stops when dropped.
pub struct TestCar {
    pub bound: Bound,
    stats: Arc<Stats>,
    records: Receiver<Arc<Record>>,
    stop: Option<oneshot::Sender<()>>,
    cut: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl TestCar {
    /// A sidecar before `upstream` (`http://…` or `h2c://…`), with the default settings.
    pub fn before(upstream: &str) -> Self {
        Self::with(upstream, "", |_| {})
    }

    /// The same with more configuration, as YAML, and changes that the file cannot express.
    pub fn with(upstream: &str, yaml: &str, change: impl FnOnce(&mut Settings)) -> Self {
        let mut settings = settings(upstream, yaml);
        change(&mut settings);
        Self::start(settings)
    }

    pub fn start(settings: Settings) -> Self {
        let (sender, records) = channel();
        let parts = Parts { sinks: vec![Box::new(Tap(sender))], ..Parts::new(settings) };
        let app = App::bind(parts).expect("every port is free");
        let (bound, stats) = (app.bound().clone(), app.stats().clone());
        let (stop, stopped) = oneshot::channel::<()>();
        let (cut, cut_short) = oneshot::channel::<()>();
        let thread = std::thread::spawn(move || {
            let stop = async move { drop(stopped.await) };
            let cut = async move {
                if cut_short.await.is_err() {
                    std::future::pending::<()>().await;
                }
            };
            app.run(stop, cut).expect("it runs");
        });
        Self { bound, stats, records, stop: Some(stop), cut: Some(cut), thread: Some(thread) }
    }

    pub fn address(&self) -> SocketAddr {
        self.bound.inbound[0]
    }

    /// The forward proxy.
    pub fn proxy(&self) -> SocketAddr {
        self.bound.proxy.expect("outbound.proxy is configured")
    }

    /// A mapped listener, by its place in the settings.
    pub fn mapped(&self, index: usize) -> SocketAddr {
        self.bound.mapped[index]
    }

    pub fn stats(&self) -> &Stats {
        &self.stats
    }

    /// The next record.
    pub fn record(&self) -> Arc<Record> {
        self.records.recv_timeout(PATIENCE).expect("a record comes")
    }

    /// Begins to stop; returns at once.
    pub fn stop(&mut self) {
        drop(self.stop.take());
    }

    /// Cuts the stop short.
    pub fn cut(&mut self) {
        if let Some(cut) = self.cut.take() {
            let _ = cut.send(());
        }
    }

    /// Stops, waits until it has, and returns the records that nobody asked for.
    pub fn ended(mut self) -> Vec<Arc<Record>> {
        self.stop();
        self.thread.take().expect("it runs").join().expect("it ends well");
        self.records.try_iter().collect()
    }
}

impl Drop for TestCar {
    fn drop(&mut self) {
        self.stop();
        self.cut();
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// The settings of a sidecar before `upstream`: what the file and its defaults say, on free ports.
pub fn settings(upstream: &str, yaml: &str) -> Settings {
    let text = format!(
        "service: {{ name: under-test }}\ninbound: [{{ listen: '127.0.0.1:0', to: '{upstream}' }}]\n\
         admin: {{ listen: '127.0.0.1:0' }}\n{yaml}\n"
    );
    loaded(&text)
}

/// The settings that a whole file comes to.
pub fn loaded(text: &str) -> Settings {
    let sources = Sources {
        file: Some(("test.yaml", text)),
        env: &|_| None,
        read: &config::read_file,
        flags: &Flags::default(),
        terminal: false,
    };
    let mut settings = config::load(&sources).unwrap_or_else(|problems| panic!("{problems}")).settings;
    // Nothing calls in the background here, and no test waits to see that.
    if !text.contains("guess_after") {
        settings.live.lineage.guess_after = Duration::ZERO;
    }
    settings
}

struct Tap(Sender<Arc<Record>>);

impl Sink for Tap {
    fn record(&mut self, record: &Arc<Record>) {
        let _ = self.0.send(record.clone());
    }
}
