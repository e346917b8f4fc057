//! Upgraded connections: bytes copied both ways, and counted.
//!
//! After a 101 a connection is a blind tunnel (HX-3). A side that closes its sending half has that passed on; the
//! other direction goes on until it closes too.

use std::future::Future;
use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, sleep, timeout};

/// Bytes read at once. A tunnel holds two such buffers for as long as it is open.
const BUFFER_BYTES: usize = 8 * 1024;

/// How long one direction may be silent once the other has ended; it may come to twice that. Whoever has closed its side has
/// nothing more to say, and most that do have left; but an answer that goes on is let through, however long it takes.
const FAREWELL: Duration = Duration::from_secs(60);

/// How a tunnel ended.
#[derive(Debug)]
pub enum End {
    /// Both sides closed.
    Closed,
    /// The caller's side failed.
    ClientBroken(io::Error),
    /// The service's side failed.
    UpstreamBroken(io::Error),
    /// Both sides were quiet for too long.
    Idle,
}

/// Bytes that passed through a tunnel, kept where they can be read even if the tunnel is dropped.
#[derive(Debug, Default)]
pub struct Passed {
    /// From the caller to the service.
    pub sent: u64,
    /// From the service to the caller.
    pub received: u64,
}

/// Copies both ways until both sides have closed or one fails. `early` are bytes that the caller sent right behind
/// its request; they go first. With `idle`, ends when nothing has passed for that long, which is kept to within a quarter.
pub async fn run<C, U>(
    client: C,
    early: Bytes,
    upstream: U,
    passed: &mut Passed,
    idle: Option<Duration>,
) -> End
where
    C: AsyncRead + AsyncWrite,
    U: AsyncRead + AsyncWrite,
{
    let (client_read, client_write) = tokio::io::split(client);
    let (upstream_read, upstream_write) = tokio::io::split(upstream);
    let Passed { sent, received } = passed;
    let (went_up, went_down) = (AtomicU64::new(0), AtomicU64::new(0));
    let upwards = async {
        let mut upstream_write = upstream_write;
        upstream_write.write_all(&early).await.map_err(End::UpstreamBroken)?;
        *sent += early.len() as u64;
        drop(early);
        let passed = (sent, &went_up);
        copy(client_read, upstream_write, passed, End::ClientBroken, End::UpstreamBroken).await
    };
    let passed = (received, &went_down);
    let downwards = copy(upstream_read, client_write, passed, End::UpstreamBroken, End::ClientBroken);
    let (mut upwards, mut downwards) = (std::pin::pin!(upwards), std::pin::pin!(downwards));
    let ended = tokio::select! {
        ended = &mut upwards => match ended {
            Ok(()) => while_it_moves(downwards, &went_down).await,
            failed => failed,
        },
        ended = &mut downwards => match ended {
            Ok(()) => while_it_moves(upwards, &went_up).await,
            failed => failed,
        },
        () = both_quiet(idle, || went_up.load(Ordering::Relaxed) + went_down.load(Ordering::Relaxed)) => {
            return End::Idle;
        }
    };
    ended.err().unwrap_or(End::Closed)
}

/// Is ready when nothing has `moved` for as long as `idle`; never without such a bound.
async fn both_quiet(idle: Option<Duration>, moved: impl Fn() -> u64) {
    let Some(idle) = idle else { return std::future::pending().await };
    let (mut before, mut since) = (moved(), Instant::now());
    while since.elapsed() < idle {
        sleep(idle / 4).await;
        let now = moved();
        if now != before {
            (before, since) = (now, Instant::now());
        }
    }
}

/// Waits for the end of a direction for as long as anything moves in it. The time begins now, however long it has been silent
/// before: the answer to a long upload comes when that is over. A side that does not take what it is sent is silent, too.
async fn while_it_moves(
    mut direction: impl Future<Output = Result<(), End>> + Unpin,
    moved: &AtomicU64,
) -> Result<(), End> {
    loop {
        let before = moved.load(Ordering::Relaxed);
        if let Ok(ended) = timeout(FAREWELL, &mut direction).await {
            return ended;
        }
        if moved.load(Ordering::Relaxed) == before {
            return Ok(());
        }
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    (bytes, moved): (&mut u64, &AtomicU64),
    read_failed: fn(io::Error) -> End,
    write_failed: fn(io::Error) -> End,
) -> Result<(), End> {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        buffer.clear();
        let read = match from.read_buf(&mut buffer).await {
            // Many close TLS without saying so first. What is said in a tunnel has ends of its own, so nobody is fooled.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            read => read.map_err(read_failed)?,
        };
        if read == 0 {
            // A side that is gone already cannot be told so.
            let _ = to.shutdown().await;
            return Ok(());
        }
        to.write_all(&buffer).await.map_err(write_failed)?;
        to.flush().await.map_err(write_failed)?;
        *bytes += buffer.len() as u64;
        moved.store(*bytes, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_whose_one_end_has_left_does_not_wait_for_the_other_for_ever() {
        let (caller, client) = tokio::io::duplex(64);
        let (upstream, mut service) = tokio::io::duplex(64);
        let mut passed = Passed::default();
        let begun = tokio::time::Instant::now();
        let speaks_for_a_while = async {
            drop(caller);
            for _ in 0..5 {
                tokio::time::sleep(FAREWELL / 2).await;
                let _ = service.write_all(b".").await;
            }
            service
        };
        // What the caller cannot take any more ends it as soon as it is tried; silence, after a while.
        let (end, _service) =
            tokio::join!(run(client, Bytes::new(), upstream, &mut passed, None), speaks_for_a_while);
        assert!(matches!(end, End::Closed | End::ClientBroken(_)), "{end:?}");
        let (mut caller, client) = tokio::io::duplex(64);
        let (upstream, _service) = tokio::io::duplex(64);
        caller.shutdown().await.unwrap();
        assert!(matches!(run(client, Bytes::new(), upstream, &mut passed, None).await, End::Closed));
        assert!(begun.elapsed() < FAREWELL * 6, "{:?}", begun.elapsed());
    }

    #[tokio::test(start_paused = true)]
    async fn who_has_closed_is_waited_for_from_then_on_and_while_the_other_side_speaks() {
        let (mut caller, client) = tokio::io::duplex(64);
        let (upstream, mut service) = tokio::io::duplex(64);
        let mut passed = Passed::default();
        let peers = async {
            // A long silence of one direction before the other ends does not count.
            tokio::time::sleep(FAREWELL * 3 - Duration::from_secs(1)).await;
            caller.shutdown().await.unwrap();
            for _ in 0..10 {
                tokio::time::sleep(FAREWELL - Duration::from_secs(10)).await;
                service.write_all(b".").await.unwrap();
            }
            let spoken = tokio::time::Instant::now();
            let mut heard = Vec::new();
            caller.read_to_end(&mut heard).await.unwrap();
            assert_eq!(heard, b"..........");
            spoken.elapsed()
        };
        let (end, silence) = tokio::join!(run(client, Bytes::new(), upstream, &mut passed, None), peers);
        assert!(matches!(end, End::Closed), "{end:?}");
        assert!(silence >= FAREWELL && silence <= FAREWELL * 2, "{silence:?}");
    }

    #[tokio::test]
    async fn each_direction_ends_on_its_own() {
        let (mut caller, client) = tokio::io::duplex(64);
        let (upstream, mut service) = tokio::io::duplex(64);
        let mut passed = Passed::default();
        let peers = async {
            caller.write_all(b"ping").await.unwrap();
            caller.shutdown().await.unwrap();
            let mut heard = Vec::new();
            service.read_to_end(&mut heard).await.unwrap();
            service.write_all(b"still here").await.unwrap();
            drop(service);
            let mut answer = Vec::new();
            caller.read_to_end(&mut answer).await.unwrap();
            (heard, answer)
        };
        let (end, (heard, answer)) =
            tokio::join!(run(client, Bytes::from_static(b"early "), upstream, &mut passed, None), peers);
        assert!(matches!(end, End::Closed));
        assert_eq!((&heard[..], &answer[..]), (&b"early ping"[..], &b"still here"[..]));
        assert_eq!((passed.sent, passed.received), (10, 10));
    }
}
