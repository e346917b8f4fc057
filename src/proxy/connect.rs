//! `CONNECT`: a tunnel to where the service wants to go.
//!
//! What is said in it is not seen, so there is no header to write a context into, and the span says so. Its bytes are
//! counted, and its end is recorded like that of any other exchange.

use http::header::ACCEPT;
use http::{Request, Response, StatusCode, Version};

use super::body::ResponseBody;
use super::error::Error;
use super::forward::{Begun, Echo, answer_ourselves, begin};
use super::inside::{Far, Inside, Whole};
use super::outbound::Outbound;
use super::{Job, admission, facts};
use crate::exchange::Tunneled;
use crate::net::server::{Continuation, Next};
use crate::net::upstream::Phases;
use crate::wire::Received;
use crate::wire::body::Ahead;

/// Opens a tunnel.
pub(super) async fn connect(
    front: Outbound,
    job: Job,
    mut request: Request<Received>,
) -> Response<ResponseBody> {
    let refused = admission::refused(&front.proxy, &job, &request);
    let Begun { mut exchange, .. } = begin(&front.proxy, &job, &mut request, &Ahead::default()).await;
    exchange.record().tunnel = Some(Tunneled::Connect);
    let Job { live, to, caller, .. } = job;
    let accept = request.headers().get(ACCEPT);
    let to = match refused.map_or(to, Err) {
        Ok(to) => to,
        Err(error) => return answer_ourselves(exchange, caller, &error, accept, Echo::default()),
    };
    if request.version() == Version::HTTP_2 {
        // There a stream would have to become the tunnel, which no client asks of a proxy without TLS.
        let detail = "CONNECT is served over HTTP/1.1 only";
        let error = Error::rejected(StatusCode::NOT_IMPLEMENTED, detail);
        return answer_ourselves(exchange, caller, &error, accept, Echo::default());
    }
    let mut phases = Phases::default();
    let opened = front.pools.connector().open(to.upstream(), &live.timeouts, &mut phases).await;
    facts::note_phases(&mut exchange, &phases, false);
    match opened {
        Ok(far) => {
            front.proxy.stats.upstream_connects.increment();
            let (to, peer) = (to.upstream().clone(), caller.connection().peer);
            let (whole, far) = (Whole::Begun(exchange), Some(Far { stream: far, phases: None }));
            let inside = Inside::new(front, live, to, peer, whole, far);
            let go_on: Continuation = Box::new(move |client, early, surroundings| {
                Box::pin(inside.run(client, early, surroundings))
            });
            caller.upgrade(Next::Serve(go_on));
            established()
        }
        Err(error) => {
            let error = Error::upstream(&error, to.upstream());
            answer_ourselves(exchange, caller, &error, accept, Echo::default())
        }
    }
}

/// The answer to a `CONNECT` that has no content, and says nothing of any (HX-4, FRM-2).
fn established() -> Response<ResponseBody> {
    let mut response = Response::new(ResponseBody::Own(None));
    *response.status_mut() = StatusCode::OK;
    response
}
