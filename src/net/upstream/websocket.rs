//! WebSockets of a service that speaks HTTP/2 without TLS (RFC 8441).
//!
//! Each has a connection of its own, as over HTTP/1. On the shared one a few that are not read would take the window
//! from all requests, and many would take the streams that the service allows.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::{Request, StatusCode};
use http_body::Body;
use hyper::client::conn::http2;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::{HTTP2_HEADER_BYTES, Observer, Pool, SendError, Sending, Shared, Tried, ends_of, lock};
use crate::net::attempt::{classify, while_it_moves};
use crate::net::side::{Http2Stream, Side};
use crate::net::stream::Stream;
use crate::net::tasks::{Sends, TunnelTasks};
use crate::net::websocket;
use crate::wire::body::describe;
use crate::wire::{Broken, Laid, Received};

impl<B> Pool<B>
where
    B: Body<Data = Bytes, Error = Broken> + Laid + Default + Send + Unpin + 'static,
{
    /// Sends a request that asks for an upgrade as one for a stream that becomes a WebSocket. It is to be sent as any other
    /// where it is not for a WebSocket, or the service does not do that over HTTP/2; then it is as it was.
    pub(super) async fn over_stream(
        self: &Arc<Self>,
        mut request: Request<B>,
        sending: &mut Sending<'_, impl Observer>,
    ) -> Result<Tried<B>, SendError> {
        let key = match websocket::key_of(&request) {
            Some(key) if !self.is_refused_streams() => key,
            _ => return Ok(Tried::Again(request)),
        };
        let seat = self.room.seat();
        let (stream, _) = self.connect(true, sending.timeouts, sending.phases).await?;
        let ends = ends_of(&stream)?;
        let (settings, allows) = Settings::of(stream);
        let sends = Sends::default();
        let (mut sender, connection) = http2::Builder::new(TunnelTasks(sends.clone()))
            .max_header_list_size(HTTP2_HEADER_BYTES)
            .handshake(TokioIo::new(settings))
            .await
            .map_err(|error| SendError::Reset(describe(&error)))?;
        tokio::spawn(async move {
            let _ = connection.await;
            drop(seat);
        });
        match timeout(sending.timeouts.connect, allows).await {
            Ok(Ok(true)) => {}
            // What the service says of itself holds for as long as the connection, so that is kept: who comes next need not ask
            // again.
            Ok(Ok(false)) => {
                let shared = Shared { sender, ends };
                self.share(shared, true);
                return Ok(Tried::Again(request));
            }
            Ok(Err(_)) => {
                let error = "connection closed before the settings of HTTP/2 came".to_owned();
                return Err(SendError::Reset(error));
            }
            Err(_) => return Ok(Tried::Again(request)),
        }
        websocket::into_connect(&mut request);
        self.fit_for_http2(&mut request);
        sending.begins_on(ends);
        let limit = sending.timeouts.response_header;
        let mut response = match while_it_moves(limit, || 0, sender.send_request(request)).await {
            Some(answered) => answered.map_err(|error| classify(&error))?,
            None => return Err(SendError::HeaderTimeout(limit)),
        };
        if response.status() != StatusCode::OK {
            if response.status().is_success() {
                let error = format!("{} to a request for a WebSocket", response.status().as_u16());
                return Err(SendError::Invalid(error));
            }
            return Ok(Tried::Answered((response.map(Received::from), None)));
        }
        let stream = hyper::upgrade::on(&mut response).await.map_err(|error| classify(&error))?;
        websocket::into_switching(&mut response, &key);
        // The codec closes the connection when nobody can send requests on it any more
        // (https://github.com/hyperium/hyper/issues/3652).
        let far = Http2Stream::new(stream, Some(sends), Some(Box::new(sender)));
        Ok(Tried::Answered((response.map(|_| Received::default()), Some(Side::Http2(far)))))
    }

    /// Whether the service is known not to open WebSockets over HTTP/2.
    fn is_refused_streams(&self) -> bool {
        let held = lock(&self.shared);
        held.as_ref().is_some_and(|held| held.refuses_streams && !held.shared.sender.is_closed())
    }
}

/// A new connection to a service, of which the first frame is looked at as it passes: the settings, which say whether the
/// service opens tunnels on streams. The codec knows it as well, but does not say when.
struct Settings {
    stream: Stream,
    first: Option<First>,
}

/// The first frame, as far as it has come.
struct First {
    bytes: Vec<u8>,
    allows: oneshot::Sender<bool>,
}

/// Bytes of the first frame that are read. Ten settings are known, and one that comes later than this is not seen.
const MOST_SETTINGS: usize = 1024;

impl Settings {
    fn of(stream: Stream) -> (Self, oneshot::Receiver<bool>) {
        let (allows, allowed) = oneshot::channel();
        (Self { stream, first: Some(First { bytes: Vec::new(), allows }) }, allowed)
    }
}

/// Whether a service whose first frame begins like that opens tunnels on streams (RFC 8441 section 3); `None` where more
/// has to come.
fn allows_tunnels(bytes: &[u8]) -> Option<bool> {
    const ENABLE_CONNECT_PROTOCOL: [u8; 2] = [0, 8];
    let (head, rest) = bytes.split_first_chunk::<9>()?;
    let [a, b, c, kind_flags_and_stream @ ..] = *head;
    if kind_flags_and_stream != [4, 0, 0, 0, 0, 0] {
        // No server begins like that, and the codec will say so.
        return Some(false);
    }
    let length = u32::from_be_bytes([0, a, b, c]) as usize;
    let settings = rest.get(..length.min(MOST_SETTINGS))?;
    let value =
        settings.chunks_exact(6).rev().find_map(|setting| setting.strip_prefix(&ENABLE_CONNECT_PROTOCOL));
    Some(value == Some(&[0, 0, 0, 1]))
}

impl AsyncRead for Settings {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        ready!(Pin::new(&mut this.stream).poll_read(cx, buffer))?;
        if let Some(mut first) = this.first.take() {
            first.bytes.extend_from_slice(&buffer.filled()[before..]);
            match allows_tunnels(&first.bytes) {
                // Whoever asked may have stopped waiting.
                Some(allows) => drop(first.allows.send(allows)),
                None => this.first = Some(first),
            }
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Settings {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_frame_says_whether_streams_become_tunnels() {
        let frame = |settings: &[u8]| {
            let length = u8::try_from(settings.len()).unwrap();
            [&[0, 0, length, 4, 0, 0, 0, 0, 0], settings].concat()
        };
        let allows = frame(&[0, 3, 0, 0, 0, 100, 0, 8, 0, 0, 0, 1]);
        for cut in 0..allows.len() {
            assert_eq!(allows_tunnels(&allows[..cut]), None, "{cut}");
        }
        assert_eq!(allows_tunnels(&allows), Some(true));
        assert_eq!(allows_tunnels(&[&allows[..], b"more"].concat()), Some(true));
        assert_eq!(allows_tunnels(&frame(&[])), Some(false));
        assert_eq!(
            allows_tunnels(&frame(&[0, 8, 0, 0, 0, 1, 0, 8, 0, 0, 0, 0])),
            Some(false),
            "the last counts"
        );
        assert_eq!(allows_tunnels(&frame(&[0, 3, 0, 8, 0, 0, 0, 1])), Some(false), "a setting has six bytes");
        assert_eq!(allows_tunnels(b"HTTP/1.1 400 Bad Request\r\n"), Some(false));
        let huge = [&[0xff, 0xff, 0xff, 4, 0, 0, 0, 0, 0][..], &[0; MOST_SETTINGS]].concat();
        assert_eq!(allows_tunnels(&huge), Some(false));
    }
}
