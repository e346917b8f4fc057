//! A caller's connection, shared by whoever answers it and by the content of its latest request.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};

use super::coding::Coding;
use super::io::Io;
use crate::wire::Broken;
use crate::wire::h1::Limits;

pub(super) type SharedMutex = Arc<Mutex<Shared>>;

/// What a connection and the content of its latest request have in common.
#[derive(Debug)]
pub(super) struct Shared {
    /// `None` once the connection is over.
    pub(super) io: Option<Io>,
    pub(super) content: Coding,
    pub(super) limits: Limits,
    /// Nobody wants the rest of the content.
    pub(super) given_up: bool,
    /// Whoever waits for the end of the content.
    pub(super) owner: Option<Waker>,
    /// Whoever waits for more of the content.
    pub(super) reader: Option<Waker>,
}

impl Shared {
    pub(super) fn skip_content(&mut self) -> bool {
        let Self { io: Some(io), content, limits, .. } = self else {
            return false;
        };
        content.skip(io, limits)
    }
}

/// The content of a request. It is read from the connection by whoever takes it.
pub(super) struct RequestContent {
    pub(super) shared: SharedMutex,
    /// All of it was read. From then on the connection may be at its next request, which is none of its business.
    pub(super) over: bool,
}

impl Body for RequestContent {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        if self.over {
            return Poll::Ready(None);
        }
        let Self { shared, over } = &mut *self;
        let mut shared = lock(shared);
        let Shared { io: Some(io), content, limits, .. } = &mut *shared else {
            return Poll::Ready(Some(Err(Broken::Incomplete)));
        };
        let polled = content.poll(io, limits, cx);
        *over = content.is_done();
        if polled.is_pending() {
            shared.reader = Some(cx.waker().clone());
        }
        if polled.is_ready() && matches!(shared.content, Coding::Done | Coding::Broken) {
            shared.owner.take().into_iter().for_each(Waker::wake);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.over
    }

    fn size_hint(&self) -> SizeHint {
        if self.over { SizeHint::with_exact(0) } else { lock(&self.shared).content.size_hint() }
    }
}

impl Drop for RequestContent {
    fn drop(&mut self) {
        if self.over {
            return;
        }
        let mut shared = lock(&self.shared);
        shared.given_up = true;
        shared.owner.take().into_iter().for_each(Waker::wake);
    }
}

/// The connection is over, as far as requests go. A socket that is closed wakes nobody, so whoever waits for content is told.
pub(super) fn take(shared: &SharedMutex) -> Option<Io> {
    let mut shared = lock(shared);
    shared.reader.take().into_iter().for_each(Waker::wake);
    shared.io.take()
}

pub(super) fn lock(shared: &SharedMutex) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn content_that_was_read_has_no_say_in_the_next_request() {
        let limits = Limits { head_bytes: 1024, lines: 100, target_bytes: 1024 };
        let shared = Shared {
            io: None,
            content: Coding::UntilClose,
            limits,
            given_up: false,
            owner: None,
            reader: None,
        };
        let shared = Arc::new(Mutex::new(shared));
        let content = RequestContent { shared: shared.clone(), over: true };
        assert!(content.is_end_stream() && content.size_hint().exact() == Some(0));
        drop(content);
        assert!(!lock(&shared).given_up);
        drop(RequestContent { shared: shared.clone(), over: false });
        assert!(lock(&shared).given_up);
    }
}
