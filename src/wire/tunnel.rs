//! Upgraded connections: bytes copied both ways, and counted.
//!
//! After a 101 a connection is a blind tunnel (HX-3). A side that closes its sending half has that passed on; the
//! other direction goes on until it closes too.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Bytes read at once. A tunnel holds two such buffers for as long as it is open.
const BUFFER_BYTES: usize = 8 * 1024;

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
    let upwards = async {
        let mut upstream_write = upstream_write;
        upstream_write.write_all(&early).await.map_err(End::UpstreamBroken)?;
        *sent += early.len() as u64;
        drop(early);
        copy(client_read, upstream_write, sent, End::ClientBroken, End::UpstreamBroken).await
    };
    let downwards = copy(upstream_read, client_write, received, End::UpstreamBroken, End::ClientBroken);
    match tokio::try_join!(upwards, downwards) {
        Ok(_) => End::Closed,
        Err(end) => end,
    }
}

async fn copy(
    mut from: impl AsyncRead + Unpin,
    mut to: impl AsyncWrite + Unpin,
    bytes: &mut u64,
    read_failed: fn(io::Error) -> End,
    write_failed: fn(io::Error) -> End,
) -> Result<(), End> {
    let mut buffer = Vec::with_capacity(BUFFER_BYTES);
    loop {
        buffer.clear();
        if from.read_buf(&mut buffer).await.map_err(read_failed)? == 0 {
            // A side that is gone already cannot be told so.
            let _ = to.shutdown().await;
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
