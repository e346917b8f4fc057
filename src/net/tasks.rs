//! Runs what the codec for HTTP/2 wants to have run, and keeps hold of what sends on a stream that becomes a tunnel.
//!
//! The codec has a task for that, which takes the loss of its stream's other half for an orderly end. A tunnel that breaks
//! off should not end its stream but reset it (RFC 8441 section 5), so it drives that task itself, and drops it where it
//! should not finish. Which task it is says where it comes from: nothing else is executed from within a stream's own task.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::task::Context;

use hyper::rt::Executor;

use crate::stats::Stats;

tokio::task_local! {
    /// In the task of a stream that a caller has begun: asked for by the tunnel that it becomes, else empty.
    static SERVED: OnceLock<Sends>;
    /// In a task of a connection to a service that is for one tunnel.
    static ASKED: ();
}

/// The task of a stream that a caller has begun, to be run; `None` where it was what sends on the tunnel that such a stream
/// has become, which the tunnel has now.
pub(super) fn of_a_stream<F>(task: F) -> Option<impl Future<Output = ()> + Send + 'static>
where
    F: Future<Output = ()> + Send + 'static,
{
    match SERVED.try_with(|sends| sends.get().cloned()).ok().flatten() {
        Some(sends) => {
            sends.begin(task);
            None
        }
        None => Some(SERVED.scope(OnceLock::new(), task)),
    }
}

/// Runs a task; if it panics, that is counted.
pub(super) fn spawn_counted(stats: &Arc<Stats>, task: impl Future<Output = ()> + Send + 'static) {
    let counted = CountPanic(stats.clone());
    tokio::spawn(async move {
        let _counted = counted;
        task.await;
    });
}

struct CountPanic(Arc<Stats>);

impl Drop for CountPanic {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.0.panics.increment();
        }
    }
}

/// Runs the tasks of a connection to a service of which one stream becomes a tunnel.
#[derive(Clone, Debug)]
pub(super) struct TunnelTasks(pub(super) Sends);

impl<F> Executor<F> for TunnelTasks
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        match ASKED.try_with(|()| ()) {
            Ok(()) => self.0.begin(task),
            Err(_) => drop(tokio::spawn(ASKED.scope((), task))),
        }
    }
}

/// What sends on the stream of a tunnel. Moves while somebody asks it to.
#[derive(Clone, Default)]
pub(super) struct Sends(Arc<Mutex<State>>);

#[derive(Default)]
enum State {
    #[default]
    Awaited,
    Sending(Pin<Box<dyn Future<Output = ()> + Send>>),
    /// All is sent, or nothing can be any more.
    Finished,
    /// Nothing is to be sent any more.
    Dropped,
}

impl Sends {
    /// That of the stream whose task this is, from now on; `None` in other tasks.
    pub(super) fn of_this_stream() -> Option<Self> {
        SERVED.try_with(|sends| sends.get_or_init(Self::default).clone()).ok()
    }

    fn begin(&self, task: impl Future<Output = ()> + Send + 'static) {
        self.with(|state| {
            if matches!(state, State::Awaited) {
                *state = State::Sending(Box::pin(task));
            }
        });
    }

    /// Sends what can be sent. All who do so have to be parts of one task, which is the one that is woken.
    pub(super) fn poll(&self, cx: &mut Context<'_>) {
        self.with(|state| {
            if let State::Sending(sending) = state
                && sending.as_mut().poll(cx).is_ready()
            {
                *state = State::Finished;
            }
        });
    }

    /// Whether it has come to its end by itself.
    pub(super) fn is_finished(&self) -> bool {
        self.with(|state| matches!(state, State::Finished))
    }

    /// Sends no more. A stream whose end was not sent is reset when its other half goes, too.
    pub(super) fn stop(&self) {
        self.with(|state| *state = State::Dropped);
    }

    fn with<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        action(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl std::fmt::Debug for Sends {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Sends")
    }
}
