//! Upgraded connections: bytes copied both ways, and counted.
//!
//! After a 101 a connection is a blind tunnel (HX-3). A side that closes its sending half has that passed on; the
//! other direction goes on until it closes too.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::time::timeout;

/// Bytes read at once. A tunnel holds two such buffers for as long as it is open.
const BUFFER_BYTES: usize = 8 * 1024;

/// How long one direction may be silent once the other has ended. Whoever has closed its side has nothing more to say, and
/// most that do have left; but an answer that goes on is let through, however long it takes.
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
/// its request; they go first.
pub async fn run<C, U>(client: C, early: Bytes, upstream: U, passed: &mut Passed) -> End
where
    C: AsyncRead + AsyncWrite,
    U: AsyncRead + AsyncWrite,
{
    let (client_read, client_write) = tokio::io::split(client);
    let (upstream_read, upstream_write) = tokio::io::split(upstream);
    let Passed { sent, received } = passed;
    let (up_ended, down_ended) = (AtomicBool::new(false), AtomicBool::new(false));
    let upwards = async {
        let mut upstream_write = upstream_write;
        upstream_write.write_all(&early).await.map_err(End::UpstreamBroken)?;
        *sent += early.len() as u64;
        drop(early);
        let ends = Ends { own: &up_ended, other: &down_ended };
        copy(client_read, upstream_write, sent, ends, End::ClientBroken, End::UpstreamBroken).await
    };
    let ends = Ends { own: &down_ended, other: &up_ended };
    let downwards = copy(upstream_read, client_write, received, ends, End::UpstreamBroken, End::ClientBroken);
    match tokio::try_join!(upwards, downwards) {
        Ok(_) => End::Closed,
        Err(end) => end,
    }
}

/// Whether a direction has ended, and the other.
#[derive(Clone, Copy)]
struct Ends<'t> {
    own: &'t AtomicBool,
    other: &'t AtomicBool,
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    bytes: &mut u64,
    ends: Ends<'_>,
    read_failed: fn(io::Error) -> End,
    write_failed: fn(io::Error) -> End,
) -> Result<(), End> {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        buffer.clear();
        let Ok(read) = timeout(FAREWELL, from.read_buf(&mut buffer)).await else {
            if ends.other.load(Ordering::Relaxed) {
                return Ok(());
            }
            continue;
        };
        let read = match read {
            // Many close TLS without saying so first. What is said in a tunnel has ends of its own, so nobody is fooled.
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => 0,
            read => read.map_err(read_failed)?,
        };
        if read == 0 {
            // A side that is gone already cannot be told so.
            let _ = to.shutdown().await;
            ends.own.store(true, Ordering::Relaxed);
            return Ok(());
        }
        to.write_all(&buffer).await.map_err(write_failed)?;
        to.flush().await.map_err(write_failed)?;
        *bytes += buffer.len() as u64;
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
            tokio::join!(run(client, Bytes::new(), upstream, &mut passed), speaks_for_a_while);
        assert!(matches!(end, End::Closed | End::ClientBroken(_)), "{end:?}");
        let (mut caller, client) = tokio::io::duplex(64);
        let (upstream, _service) = tokio::io::duplex(64);
        caller.shutdown().await.unwrap();
        assert!(matches!(run(client, Bytes::new(), upstream, &mut passed).await, End::Closed));
        assert!(begun.elapsed() < FAREWELL * 6, "{:?}", begun.elapsed());
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
            tokio::join!(run(client, Bytes::from_static(b"early "), upstream, &mut passed), peers);
        assert!(matches!(end, End::Closed));
        assert_eq!((&heard[..], &answer[..]), (&b"early ping"[..], &b"still here"[..]));
        assert_eq!((passed.sent, passed.received), (10, 10));
    }
}
