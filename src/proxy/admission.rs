//! Which requests are let in, as far as their number and size go.

use http::{Request, StatusCode, Version};

use super::error::Error;
use super::{Job, Proxy, Way};
use crate::exchange::Keep;
use crate::wire::Received;

/// Why a request that has just come is not let in, if so.
pub(super) fn refused(proxy: &Proxy, job: &Job, request: &Request<Received>) -> Option<Error> {
    unfit(job, request).or_else(|| too_many(proxy, job))
}

/// What the HTTP/1 codec does not even read, and the HTTP/2 codec has no objection to (SMG-21, SMG-22, SMG-32).
fn unfit(job: &Job, request: &Request<Received>) -> Option<Error> {
    if request.version() != Version::HTTP_2 {
        return None;
    }
    if request.uri().authority().is_some_and(|authority| authority.as_str().contains('@')) {
        // A name and password would go on in `Host`, which has no place for them (SMG-32).
        return Some(Error::rejected(StatusCode::BAD_REQUEST, "user information in :authority"));
    }
    let limits = &job.live.limits;
    let target = request.uri().path_and_query().map_or(0, |target| target.as_str().len());
    let (status, detail) = match () {
        () if target > limits.target_bytes => {
            (StatusCode::URI_TOO_LONG, "the request's target is longer than limits.target_bytes")
        }
        () if request.headers().len() > limits.headers => (
            StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "the request has more header lines than limits.headers",
        ),
        () => return None,
    };
    Some(Error::rejected(status, detail))
}

fn too_many(proxy: &Proxy, job: &Job) -> Option<Error> {
    let limit = job.live.limits.requests?.get() as u64;
    if job.keep != Keep::Always {
        // Whoever asks whether the service is alive should not be told that it is not because it has much to do.
        return None;
    }
    let calls = proxy.stats.calls_active.value();
    let active = match job.way {
        Way::Inbound(_) => proxy.stats.requests_active.value().saturating_sub(calls),
        Way::Outbound(_) => calls,
    };
    if active < limit {
        return None;
    }
    proxy.stats.requests_limited.increment();
    Some(Error::overloaded("as many requests are under way as limits.requests lets"))
}
