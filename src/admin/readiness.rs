//! Whether new requests are wanted here (K8S-3).
//!
//! Never a matter of the collector: traces that cannot be sent are no reason to refuse requests.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::net::TcpStream;

use crate::config::Upstream;

/// Bound on asking all services together; a kubelet gives a probe one second.
const PROBE: Duration = Duration::from_millis(500);

/// How long an answer holds: probes of several kinds come together.
const HOLDS: Duration = Duration::from_secs(1);

/// What `/readyz` answers from. Begins as not listening.
#[derive(Debug, Default)]
pub struct Readiness {
    listening: AtomicBool,
    draining: AtomicBool,
    probes: Mutex<Vec<Arc<Probe>>>,
}

/// One service, and what it answered last.
#[derive(Debug)]
struct Probe {
    upstream: Upstream,
    last: Mutex<Option<(Instant, Result<(), String>)>>,
}

impl Readiness {
    /// Readiness that asks each of `upstreams` to accept a connection; none where the services are not to be
    /// asked.
    pub fn new(upstreams: Vec<Upstream>) -> Self {
        let readiness = Self::default();
        readiness.ask(upstreams);
        readiness
    }

    /// Asks these from now on.
    pub fn ask(&self, upstreams: Vec<Upstream>) {
        let probe = |upstream| Arc::new(Probe { upstream, last: Mutex::default() });
        *self.probes() = upstreams.into_iter().map(probe).collect();
    }

    fn probes(&self) -> MutexGuard<'_, Vec<Arc<Probe>>> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All listeners are open.
    pub fn set_listening(&self) {
        self.listening.store(true, Ordering::Relaxed);
    }

    /// tracecar was told to stop; there is no way back.
    pub fn set_draining(&self) {
        self.draining.store(true, Ordering::Relaxed);
    }

    /// Why no requests are wanted; empty where they are. Takes at most half a second.
    pub async fn obstacles(&self) -> Vec<String> {
        self.obstacles_at(Instant::now()).await
    }

    async fn obstacles_at(&self, now: Instant) -> Vec<String> {
        if self.draining.load(Ordering::Relaxed) {
            return vec!["draining: tracecar was told to stop".to_owned()];
        }
        if !self.listening.load(Ordering::Relaxed) {
            return vec!["not listening yet".to_owned()];
        }
        let deadline = tokio::time::Instant::now() + PROBE;
        let mut obstacles = Vec::new();
        let probes = self.probes().clone();
        for probe in probes {
            obstacles.extend(probe.answer(now, deadline).await.err());
        }
        obstacles
    }
}

impl Probe {
    async fn answer(&self, now: Instant, deadline: tokio::time::Instant) -> Result<(), String> {
        if let Some((at, answer)) = &*self.last.lock().unwrap_or_else(PoisonError::into_inner)
            && now.saturating_duration_since(*at) < HOLDS
        {
            return answer.clone();
        }
        // No lock is held meanwhile: callers that come at the same moment each ask. The connection limit of the
        // admin pages bounds how many.
        let answer = self.ask(deadline).await;
        *self.last.lock().unwrap_or_else(PoisonError::into_inner) = Some((now, answer.clone()));
        answer
    }

    async fn ask(&self, deadline: tokio::time::Instant) -> Result<(), String> {
        let Upstream { host, port, .. } = &self.upstream;
        let connecting = TcpStream::connect((host.as_str(), *port));
        let reason = match tokio::time::timeout_at(deadline, connecting).await {
            Ok(Ok(_connection)) => return Ok(()),
            Ok(Err(error)) => error.to_string(),
            Err(_) => format!("no answer within {} ms", PROBE.as_millis()),
        };
        Err(format!("the service at {} does not accept connections: {reason}", self.upstream))
    }
}

#[cfg(test)]
mod tests {
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::UpstreamProtocol;

    async fn service() -> (TcpListener, Upstream) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let host = "127.0.0.1".to_owned();
        (listener, Upstream { protocol: UpstreamProtocol::Http1, host, port, address: None })
    }

    #[tokio::test]
    async fn it_is_ready_between_listening_and_draining() {
        let readiness = Readiness::new(Vec::new());
        assert_eq!(readiness.obstacles().await, ["not listening yet"]);
        readiness.set_listening();
        assert!(readiness.obstacles().await.is_empty());
        readiness.set_draining();
        assert_eq!(readiness.obstacles().await, ["draining: tracecar was told to stop"]);
    }

    #[tokio::test]
    async fn an_answer_of_the_service_holds_for_a_second() {
        let (listener, upstream) = service().await;
        let readiness = Readiness::new(vec![upstream.clone()]);
        readiness.set_listening();
        let now = Instant::now();
        assert!(readiness.obstacles_at(now).await.is_empty());
        drop(listener);
        assert!(readiness.obstacles_at(now + HOLDS / 2).await.is_empty());
        let obstacles = readiness.obstacles_at(now + HOLDS).await;
        assert_eq!(obstacles.len(), 1);
        let expected = format!("the service at {upstream} does not accept connections: Connection refused");
        assert!(obstacles[0].starts_with(&expected), "{obstacles:?}");
    }

    #[tokio::test]
    async fn a_service_that_does_not_answer_in_time_is_an_obstacle() {
        let (_listener, upstream) = service().await;
        let probe = Probe { upstream, last: Mutex::default() };
        let late = tokio::time::Instant::now() - Duration::from_secs(1);
        let error = probe.ask(late).await.unwrap_err();
        assert!(error.ends_with("no answer within 500 ms"), "{error}");
    }
}
