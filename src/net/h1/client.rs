//! Asks a service over HTTP/1.
//!
//! A request is sent and its answer read by whoever waits for that, and the content of the answer by whoever passes it on:
//! then the connection is part of that content, and goes back to its pool with the last byte. Only where the answer comes
//! before the request's content is through does a task send the rest.

use std::future::{Future, poll_fn};
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{Method, Request, Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use tokio::task::AbortHandle;
use tokio::time::{Instant, timeout};

use super::coding::Coding;
use super::encoder::{Encoder, Stuck};
use super::io::Io;
use crate::net::acks::Acks;
use crate::net::room::Seat;
use crate::net::stream::Stream;
use crate::net::upstream::SendError;
use crate::wire::h1::head::{self, ResponseHead};
use crate::wire::h1::{Framing, Layout, Limits, write};
use crate::wire::{Broken, Laid, Received};

/// Informational responses before the final one. More are a mistake, or an attack.
const MOST_INTERIM: u32 = 100;

/// A service that has answered, and takes nothing of the rest of the request for so long, or twice as long, wants none of it.
const NOT_TAKEN: Duration = Duration::from_secs(60);

/// The addresses of a connection.
#[derive(Clone, Copy, Debug)]
pub(in crate::net) struct Ends {
    pub(in crate::net) local: SocketAddr,
    pub(in crate::net) peer: SocketAddr,
}

/// A connection to a service that is ready for a request.
#[derive(Debug)]
pub(in crate::net) struct Conn {
    io: Io,
    pub(in crate::net) ends: Ends,
    /// The service takes no more.
    deaf: bool,
    seat: Seat,
}

/// Takes a connection back when its answer has been read.
pub(in crate::net) trait Home: Send + Sync + 'static {
    /// `conn` is ready for the next request; from the head of its last answer to its end it `took` so long.
    fn welcome(self: &Arc<Self>, conn: Box<Conn>, took: Duration);
}

/// What is asked along with a request.
pub(in crate::net) struct Terms<'a> {
    /// How much of an answer's head is read.
    pub(in crate::net) limits: &'a Limits,
    /// The request needs a length though it has no content.
    pub(in crate::net) say_empty: bool,
}

/// What came of a request.
pub(in crate::net) struct Answer {
    pub(in crate::net) response: Response<Received>,
    /// What the connection has become, after a 101.
    pub(in crate::net) upgraded: Option<(Stream, Bytes, Seat)>,
}

/// Why there is none.
pub(in crate::net) struct Failed {
    pub(in crate::net) error: SendError,
    /// Not a byte of the request was sent, nor anything of its content taken.
    pub(in crate::net) unsent: bool,
}

impl Conn {
    /// A new connection.
    pub(in crate::net) fn new(stream: Stream, ends: Ends, acks: Arc<Acks>, seat: Seat) -> Box<Self> {
        Box::new(Self { io: Io::new(stream, Bytes::new(), Some(acks)), ends, deaf: false, seat })
    }

    /// Whether the service has neither closed it nor said anything unasked (SMG-19).
    pub(in crate::net) fn is_usable(&mut self) -> bool {
        self.io.is_quiet()
    }

    /// The connection, if it is usable.
    pub(in crate::net) fn if_usable(mut self: Box<Self>) -> Option<Box<Self>> {
        self.is_usable().then_some(self)
    }

    /// Sends a request, and waits for the head of the answer. `interim` is given what comes before that. The request keeps its
    /// content where `Failed::unsent` says that none of it was taken.
    pub(in crate::net) async fn send<B, H>(
        mut self: Box<Self>,
        request: &mut Request<B>,
        terms: Terms<'_>,
        mut interim: impl FnMut(Response<()>, &Layout),
        home: &Arc<H>,
    ) -> Result<Answer, Failed>
    where
        B: Body<Data = Bytes> + Laid + Default + Send + Unpin + 'static,
        B::Error: Send,
        H: Home,
    {
        let before = self.io.written();
        let framing = self.write_head(request, terms.say_empty);
        let mut upload = Some(Encoder::new(framing));
        let method = request.method().clone();
        let (mut scanned, mut heads) = (0, 0);
        let head = poll_fn(|cx| {
            if let Some(encoder) = &mut upload {
                let sent = encoder.poll(&mut self.io, Pin::new(request.body_mut()), cx);
                match sent {
                    // Whether the beginning gets there is not worth a wait.
                    _ if encoder.is_broken() => {
                        let error = SendError::Reset("the request's content broke off".to_owned());
                        return Poll::Ready(Err(error));
                    }
                    Poll::Ready(Err(Stuck::Connection(error))) if !is_deaf(&error) => {
                        return Poll::Ready(Err(SendError::Reset(error.to_string())));
                    }
                    // A service may refuse a request before all of its content has come, and close. Then a write fails while
                    // the answer waits to be read (RFC 9112 section 9.5); the rest is for nobody.
                    Poll::Ready(Err(_)) => {
                        self.deaf = true;
                        *request.body_mut() = B::default();
                        upload = None;
                    }
                    Poll::Ready(Ok(())) => upload = None,
                    Poll::Pending => {}
                }
            }
            loop {
                match ready!(self.poll_head(&mut scanned, &terms, &method, cx)) {
                    Ok(head) if is_interim(head.response.status()) => {
                        heads += 1;
                        if heads > MOST_INTERIM {
                            let error = "too many informational responses".to_owned();
                            return Poll::Ready(Err(SendError::Invalid(error)));
                        }
                        interim(head.response, &head.layout);
                    }
                    result => return Poll::Ready(result),
                }
            }
        })
        .await;
        match head {
            Ok(head) => Ok(self.answer(head, upload, request, terms.limits, home)),
            Err(error) => {
                Err(Failed { error, unsent: framing == Framing::None && self.io.written() == before })
            }
        }
    }

    /// Writes the head of a request, and says how its content will be delimited: as its caller did (FRM-3).
    fn write_head<B: Body + Laid>(&mut self, request: &Request<B>, say_empty: bool) -> Framing {
        let (headers, body) = (request.headers(), request.body());
        let length = headers.get(CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
        let framing = match length {
            _ if body.is_end_stream() => Framing::None,
            Some(length) => Framing::Length(length),
            None => Framing::Chunked,
        };
        let out = self.io.text();
        write::request_line(out, request.method(), request.uri(), body.layout());
        write::fields(out, headers, body.layout());
        match framing {
            Framing::Chunked => out.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            Framing::None if say_empty && length.is_none() => out.extend_from_slice(b"Content-Length: 0\r\n"),
            _ => {}
        }
        out.extend_from_slice(b"\r\n");
        framing
    }

    fn poll_head(
        &mut self,
        scanned: &mut usize,
        terms: &Terms<'_>,
        method: &Method,
        cx: &mut Context<'_>,
    ) -> Poll<Result<ResponseHead, SendError>> {
        loop {
            if !self.io.read.is_empty() {
                match head::response(&mut self.io.read, scanned, terms.limits, method) {
                    Ok(Some(head)) => return Poll::Ready(Ok(head)),
                    Ok(None) => {}
                    Err(refused) => return Poll::Ready(Err(SendError::Invalid(refused.reason.to_owned()))),
                }
            }
            match ready!(self.io.poll_fill(cx)) {
                Ok(0) if self.io.read.is_empty() => {
                    let error = "connection closed before message completed".to_owned();
                    return Poll::Ready(Err(SendError::Reset(error)));
                }
                Ok(0) => {
                    let error = "connection closed in the middle of the response's head".to_owned();
                    return Poll::Ready(Err(SendError::Reset(error)));
                }
                Ok(_) => {}
                Err(error) => return Poll::Ready(Err(SendError::Reset(error.to_string()))),
            }
        }
    }

    /// The answer, with the connection in it for as long as its content has not been read.
    fn answer<B, H>(
        mut self: Box<Self>,
        head: ResponseHead,
        upload: Option<Encoder>,
        request: &mut Request<B>,
        limits: &Limits,
        home: &Arc<H>,
    ) -> Answer
    where
        B: Body<Data = Bytes> + Default + Send + Unpin + 'static,
        B::Error: Send,
        H: Home,
    {
        let ResponseHead { response, layout, framing, keep_alive } = head;
        if response.status() == StatusCode::SWITCHING_PROTOCOLS {
            // In the middle of a request nobody could say where the new protocol begins. Without `upgraded` it is refused.
            let upgraded = upload.is_none().then(|| {
                let (stream, early) = self.io.into_parts();
                (stream, early, self.seat)
            });
            return Answer { response: response.map(|()| Received::empty(layout)), upgraded };
        }
        // A server whose handler threw an exception answers 500, and often closes without having said so. The next request
        // must not run into that.
        let keep = keep_alive && !self.deaf && response.status() != StatusCode::INTERNAL_SERVER_ERROR;
        let coding = Coding::from(framing);
        if coding.is_done() && upload.is_none() {
            self.io.message_read();
            if keep && self.io.read.is_empty() {
                home.welcome(self, Duration::ZERO);
            }
            return Answer { response: response.map(|()| Received::empty(layout)), upgraded: None };
        }
        let held = match upload {
            None => Held::Alone(self),
            Some(encoder) => Held::send_the_rest(self, encoder, std::mem::take(request.body_mut())),
        };
        let answered = Instant::now();
        let content =
            Content { held: Some(held), coding, keep, limits: *limits, home: home.clone(), answered };
        let response = response.map(|()| Received::http1(Box::new(content), layout));
        Answer { response, upgraded: None }
    }
}

/// The far side takes no more. It may have said why.
fn is_deaf(error: &std::io::Error) -> bool {
    matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset)
}

fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

/// The content of an answer.
struct Content<H: Home> {
    held: Option<Held>,
    coding: Coding,
    /// The connection may serve another request.
    keep: bool,
    limits: Limits,
    home: Arc<H>,
    /// When the head had come.
    answered: Instant,
}

/// The connection that content comes on.
enum Held {
    /// Nobody else uses it.
    Alone(Box<Conn>),
    /// The rest of the request's content is still being sent.
    Shared { both: Arc<Mutex<Both>>, sending: AbortHandle },
}

/// A connection on which a request is still sent while its answer is read already.
struct Both {
    conn: Box<Conn>,
    upload: Rest,
    /// All of the answer was read.
    answered: bool,
    /// Whoever waits for more of the answer.
    reader: Option<Waker>,
}

/// What has become of the rest of a request's content.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Rest {
    /// It is on its way.
    Sending,
    /// All of it has left.
    Sent,
    /// The service takes no more.
    Refused,
    /// Its caller broke off.
    Broken,
}

impl Held {
    /// Has a task send the rest. It locks this connection and then the caller's, whose content it reads, and whoever writes the
    /// answer locks them the other way round: both run on one thread, and neither waits while it holds a lock.
    fn send_the_rest<B>(conn: Box<Conn>, mut encoder: Encoder, mut body: B) -> Self
    where
        B: Body<Data = Bytes> + Send + Unpin + 'static,
        B::Error: Send,
    {
        let both = Arc::new(Mutex::new(Both { conn, upload: Rest::Sending, answered: false, reader: None }));
        let task = {
            let both = both.clone();
            async move {
                let sending = poll_fn(|cx| encoder.poll(&mut lock(&both).conn.io, Pin::new(&mut body), cx));
                let upload = match while_taken(&both, sending).await {
                    Some(Ok(())) => Rest::Sent,
                    Some(Err(Stuck::Content)) => Rest::Broken,
                    Some(Err(Stuck::Connection(_))) | None => Rest::Refused,
                };
                let mut both = lock(&both);
                both.upload = upload;
                both.reader.take().into_iter().for_each(Waker::wake);
            }
        };
        Self::Shared { both, sending: tokio::spawn(task).abort_handle() }
    }

    fn poll(
        &mut self,
        coding: &mut Coding,
        limits: &Limits,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self {
            Self::Alone(conn) => coding.poll(&mut conn.io, limits, cx),
            Self::Shared { both, .. } => {
                let mut both = lock(both);
                if both.upload == Rest::Broken {
                    // The service may wait for the rest for ever, and its answer with it.
                    return Poll::Ready(Some(Err(Broken::Incomplete)));
                }
                both.reader = Some(cx.waker().clone());
                coding.poll(&mut both.conn.io, limits, cx)
            }
        }
    }

    /// The connection, if it is free for another request.
    fn free(self) -> Option<Box<Conn>> {
        match self {
            Self::Alone(conn) => Some(conn),
            Self::Shared { both, .. } => {
                // Its task has one for as long as it sends.
                let both = Arc::into_inner(both)?.into_inner().unwrap_or_else(PoisonError::into_inner);
                (both.upload == Rest::Sent).then_some(both.conn)
            }
        }
    }
}

/// Sends for as long as the service takes anything, or is not through with its answer. `None` if it has stopped to: then the
/// caller may be gone, too, and nobody would notice.
async fn while_taken<T>(both: &Mutex<Both>, sending: impl Future<Output = T>) -> Option<T> {
    let mut sending = pin!(sending);
    let mut before = None;
    loop {
        if let Ok(sent) = timeout(NOT_TAKEN, sending.as_mut()).await {
            return Some(sent);
        }
        let both = lock(both);
        let waits = !both.conn.io.is_flushed() && both.answered;
        let now = waits.then(|| both.conn.io.written());
        if now.is_some() && now == before {
            return None;
        }
        before = now;
    }
}

impl<H: Home> Content<H> {
    fn ended(&mut self) {
        // What is left of the request's content is sent on by its task, whatever becomes of the connection.
        if let Some(Held::Shared { both, .. }) = &self.held {
            lock(both).answered = true;
        }
        let free = self.held.take().and_then(Held::free);
        if let Some(mut conn) = free.filter(|_| self.keep) {
            conn.io.message_read();
            if conn.io.read.is_empty() && !conn.io.ended {
                self.home.welcome(conn, self.answered.elapsed());
            }
        }
    }
}

impl<H: Home> Body for Content<H> {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let this = self.get_mut();
        let Some(held) = &mut this.held else {
            return Poll::Ready(None);
        };
        let frame = ready!(held.poll(&mut this.coding, &this.limits, cx));
        if this.coding.is_done() {
            this.ended();
        }
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        self.coding.is_done()
    }

    fn size_hint(&self) -> SizeHint {
        self.coding.size_hint()
    }
}

impl<H: Home> Drop for Content<H> {
    fn drop(&mut self) {
        // Nobody wants the answer any more, so nobody wants the request to go on. Of an answer without content there was no
        // more to want: its service may well read on.
        match &self.held {
            Some(Held::Shared { both, .. }) if self.coding.is_done() => lock(both).answered = true,
            Some(Held::Shared { sending, .. }) => sending.abort(),
            _ => {}
        }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
