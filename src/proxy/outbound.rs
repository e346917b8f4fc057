//! The front for calls of the service to the network.
//!
//! A call comes in by one of three doors: the forward proxy, which is told where to go by each request; a mapped
//! listener, which stands for one destination; or a connection that was redirected here, which says by its original
//! address. Whatever the door, the rules of the way out are asked before anything is sent ([`EgressRules`]), and what
//! comes of it is the same job for `forward`.

use std::future::Future;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use http::header::{HOST, PROXY_AUTHORIZATION};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Response, StatusCode, Uri};

use super::body::ResponseBody;
use super::error::Error;
use super::front::{Role, bounds};
use super::inside::Interception;
use super::pools::Pools;
use super::{Job, Outgoing, Proxy, Way, connect, forward};
use crate::config::{self, Live, LiveHandle, Swap, Upstream, UpstreamProtocol, WeakSwap};
use crate::exchange::{Destination, Keep, Side, is_telemetry};
use crate::net::connector::{Connector, Permits};
use crate::net::own::OwnSockets;
use crate::net::server::{Bounds, Caller, Handler, Unreadable};
use crate::wire::egress::{self, EgressRules};
use crate::wire::{Received, target};

/// Calls that come in by one door, on one worker, as the settings have it.
#[derive(Clone, Debug)]
pub struct Outbound {
    pub(super) proxy: Arc<Proxy>,
    pub(super) live: Arc<Live>,
    pub(super) pools: Arc<Pools>,
    pub(super) interception: Option<Arc<Interception>>,
    /// The connections to the service.
    pub(super) inwards: Arc<OwnSockets>,
    pub(super) door: Door,
    /// Where the door is now, for connections that live longer than this.
    pub(super) front: Option<WeakSwap<Role>>,
}

/// How a call says where it goes.
#[derive(Clone, Debug)]
pub(super) enum Door {
    /// By its target.
    Proxy,
    /// It need not: this listener stands for one destination.
    Mapped(Arc<config::Mapped>),
    /// It did when it connected.
    Fixed(Arc<Fixed>),
    /// It did when it was redirected here.
    Transparent,
}

/// Where all requests of a connection go, whatever they say.
#[derive(Debug)]
pub(super) struct Fixed {
    pub(super) to: Upstream,
}

/// Where one call goes.
struct Going {
    to: Upstream,
    scheme: &'static str,
    /// As it belongs into a URL.
    authority: String,
    destination: Arc<Destination>,
}

/// What the doors of one worker have in common.
#[derive(Clone, Debug)]
pub struct Doors {
    proxy: Arc<Proxy>,
    live: Arc<Live>,
    pools: Arc<Pools>,
    interception: Option<Arc<Interception>>,
    inwards: Arc<OwnSockets>,
}

impl Doors {
    /// Doors to destinations that are reached by `connector`. `inwards` are the connections to the service. Kept
    /// connections of `before` are used on where it had the same connector.
    pub fn new(
        proxy: Arc<Proxy>,
        live: Arc<Live>,
        connector: Arc<Connector>,
        interception: Option<Arc<Interception>>,
        inwards: Arc<OwnSockets>,
        before: Option<&Self>,
    ) -> Self {
        let same = before.filter(|before| Arc::ptr_eq(before.pools.connector(), &connector));
        let keep = live.timeouts.upstream_idle;
        let pools = match same {
            Some(before) => before.pools.clone(),
            None => Pools::new(connector, keep, proxy.stats.clone()),
        };
        pools.keep_for(keep);
        pools.allow(live.limits.upstream_connections);
        Self { proxy, live, pools, interception, inwards }
    }

    /// The forward proxy.
    pub fn proxy(&self) -> Outbound {
        self.through(Door::Proxy)
    }

    /// A mapped listener.
    pub fn mapped(&self, mapped: config::Mapped) -> Outbound {
        self.through(Door::Mapped(Arc::new(mapped)))
    }

    /// The listener for redirected connections.
    pub fn transparent(&self) -> Outbound {
        self.through(Door::Transparent)
    }

    fn through(&self, door: Door) -> Outbound {
        let Self { proxy, live, pools, interception, inwards } = self.clone();
        Outbound { proxy, live, pools, interception, inwards, door, front: None }
    }
}

/// Serves what is inside a connection whose far side is known. That may live for long, so it keeps nothing of the settings
/// that it began with.
#[derive(Debug)]
pub(super) struct Inner {
    door: Door,
    front: Swap<Role>,
}

impl Inner {
    /// Serves requests that all go there, in the name of `outer`.
    pub(super) fn new(outer: Outbound, fixed: Fixed) -> Self {
        // Without a front the settings stay as they are: its listener has just gone.
        let front = outer.front.as_ref().and_then(WeakSwap::upgrade);
        let front = front.unwrap_or_else(|| Swap::new(Role::Outbound(outer)));
        Self { door: Door::Fixed(Arc::new(fixed)), front }
    }

    fn now(&self) -> Option<Outbound> {
        match &*self.front.load() {
            Role::Outbound(now) => Some(Outbound { door: self.door.clone(), ..now.clone() }),
            // A front that is to lead the other way is another one.
            Role::Inbound(_) => None,
        }
    }
}

impl Handler for Inner {
    type Body = ResponseBody;

    fn bounds(&self) -> Bounds {
        bounds(self.front.load().live())
    }

    fn handle(
        &self,
        request: Request<Received>,
        caller: Caller,
    ) -> impl Future<Output = Response<ResponseBody>> + Send + use<> {
        let now = self.now();
        async move {
            match now {
                Some(now) => now.answer(request, caller).await,
                None => std::future::pending().await,
            }
        }
    }

    fn refusal(&self, problem: &Unreadable) -> Response<ResponseBody> {
        Error::unreadable(problem).reply(None, "", "")
    }

    fn unreadable(&self, peer: SocketAddr, problem: Unreadable) {
        if let Some(now) = self.now() {
            now.note_unreadable(peer, &problem);
        }
    }
}

impl Outbound {
    /// Answers a call, as the settings have it here.
    pub(super) fn answer(
        &self,
        mut request: Request<Received>,
        caller: Caller,
    ) -> impl Future<Output = Response<ResponseBody>> + Send + use<> {
        let front = self.clone();
        let arrived = (SystemTime::now(), Instant::now());
        async move {
            let live = front.live.clone();
            if !matches!(front.door, Door::Fixed(_)) {
                // It is for us, whom nobody asked for a password (HOP-3), and no business of the destination. On a
                // connection that leads elsewhere it is for whoever is there.
                request.headers_mut().remove(PROXY_AUTHORIZATION);
            }
            let tunnel = request.method() == Method::CONNECT;
            let going = front.permit(&live, &caller).and_then(|()| front.going(&live, &mut request));
            let keep = match &going {
                Ok(going) if !going.destination.traced => Keep::Never,
                Ok(_) if is_telemetry(request.method(), request.uri().path(), request.headers()) => {
                    Keep::Never
                }
                _ => Keep::Always,
            };
            let (to, outgoing) = match going {
                Ok(Going { to, scheme, authority, destination }) => {
                    (Ok(front.pools.of(to)), Outgoing { destination, scheme, authority, arrived, tunnel })
                }
                Err(error) => {
                    let destination = live.destinations.other.clone();
                    let (scheme, authority) = front.asked(&request);
                    (Err(error), Outgoing { destination, scheme, authority, arrived, tunnel })
                }
            };
            let route = match tunnel {
                true => None,
                false => live.destinations.templates.find(request.method(), request.uri().path(), None).route,
            };
            let job = Job { live, to, route, keep, caller, way: Way::Outbound(outgoing) };
            if tunnel {
                return Box::pin(connect::connect(front, job, request)).await;
            }
            forward::forward(front.proxy.clone(), job, request).await
        }
    }

    /// Itself, where connections are redirected here and their destination is theirs to say.
    pub(super) fn redirected(&self) -> Option<Self> {
        matches!(self.door, Door::Transparent).then(|| self.clone())
    }

    pub(super) fn note_unreadable(&self, peer: SocketAddr, problem: &Unreadable) {
        forward::record_unreadable(&self.proxy, &self.live, Side::Outbound, peer, problem);
    }

    /// Whether tracecar has opened the connection from `peer` to `reached` itself, to its service or to what that calls.
    pub(super) fn is_own(&self, peer: SocketAddr, reached: SocketAddr) -> bool {
        self.inwards.contains(peer, reached) || self.pools.connector().own.contains(peer, reached)
    }

    /// Whether the caller may use this way at all.
    fn permit(&self, live: &Live, caller: &Caller) -> Result<(), Error> {
        let connection = caller.connection();
        let peer = connection.peer;
        if self.is_own(peer, connection.local) {
            let detail = "this call comes from tracecar itself, and would go round in circles: the service should reach \
                          tracecar's own listeners directly (NO_PROXY)";
            return Err(Error::rejected(StatusCode::LOOP_DETECTED, detail));
        }
        // Who is redirected here is of this host, whatever its address.
        let fixed = matches!(self.door, Door::Fixed(_));
        match fixed || live.egress.permits_client(peer.ip()) {
            true => Ok(()),
            false => {
                let detail =
                    format!("calls from {} are not passed on; allow them with outbound.clients", peer.ip());
                Err(Error::rejected(StatusCode::FORBIDDEN, &detail))
            }
        }
    }

    /// What a call that goes nowhere asked for: scheme and authority.
    fn asked(&self, request: &Request<Received>) -> (&'static str, String) {
        let named = target::authority(request).to_owned();
        let by_door = |to: &Upstream| {
            let authority = if named.is_empty() { without_default_port(to) } else { named.clone() };
            (scheme_of(to.protocol), authority)
        };
        match &self.door {
            Door::Mapped(mapped) => (scheme_of(mapped.to.to.protocol), without_default_port(&mapped.to.to)),
            Door::Fixed(fixed) => by_door(&fixed.to),
            Door::Proxy | Door::Transparent => {
                let secure =
                    request.uri().scheme_str() == Some("https") || request.method() == Method::CONNECT;
                (if secure { "https" } else { "http" }, named)
            }
        }
    }

    /// Where a call goes. Its target is made to say so in full, as `scheme://host:port/path`.
    fn going(&self, live: &Live, request: &mut Request<Received>) -> Result<Going, Error> {
        let connect = request.method() == Method::CONNECT;
        match &self.door {
            Door::Proxy => told_by_target(live, request),
            Door::Mapped(_) | Door::Fixed(_) | Door::Transparent if connect => Err(Error::rejected(
                StatusCode::NOT_IMPLEMENTED,
                "CONNECT is for the forward proxy (outbound.proxy)",
            )),
            Door::Mapped(mapped) => told_by_mapping(live, mapped, request),
            Door::Fixed(fixed) => told_by_connection(live, fixed, request),
            Door::Transparent => {
                Err(Error::rejected(StatusCode::BAD_REQUEST, "only redirected connections are served here"))
            }
        }
    }
}

/// A forward proxy is told where to go by absolute-form and authority-form (RFC 9112 section 3.2).
fn told_by_target(live: &Live, request: &mut Request<Received>) -> Result<Going, Error> {
    let uri = request.uri();
    let connect = request.method() == Method::CONNECT;
    let Some(asked) = uri.authority() else {
        let detail = "this is a forward proxy: it needs a full URL or CONNECT, as clients send that know of it by \
                      HTTP_PROXY; an application that takes a base URL needs an entry of outbound.mapped";
        return Err(Error::rejected(StatusCode::BAD_REQUEST, detail));
    };
    let (protocol, scheme) = match uri.scheme_str() {
        None if connect => (UpstreamProtocol::Http1, "https"),
        Some("http") => (UpstreamProtocol::Http1, "http"),
        Some("https") => (UpstreamProtocol::Https, "https"),
        other => {
            let detail = format!("this proxy does not know the scheme {:?}", other.unwrap_or_default());
            return Err(Error::rejected(StatusCode::BAD_REQUEST, &detail));
        }
    };
    let default = match (connect, scheme) {
        // The port of a tunnel must be named (HX-4).
        (true, _) => None,
        (false, "https") => Some(443),
        (false, _) => Some(80),
    };
    let asked = asked.as_str();
    // Names and passwords in URLs are for the client to turn into a header; some leave them in.
    let asked = if connect { asked } else { asked.rsplit_once('@').map_or(asked, |(_, host)| host) };
    let (host, port) = egress::destination(asked, default).map_err(denied)?;
    if connect {
        live.egress.permits_connect_port(port).map_err(denied)?;
    }
    live.egress.permits_name(host, port).map_err(denied)?;
    let destination = live.destinations.find(host, port).clone();
    let to = Upstream { protocol, host: host.to_owned(), port, address: None };
    Ok(Going { to, scheme, authority: asked.to_owned(), destination })
}

/// A mapped listener puts its destination in front of what it is asked for.
fn told_by_mapping(
    live: &Live,
    mapped: &config::Mapped,
    request: &mut Request<Received>,
) -> Result<Going, Error> {
    let to = mapped.to.to.clone();
    let scheme = scheme_of(to.protocol);
    // Who wrote the mapping allows it; whether its address may be connected to is asked all the same.
    let authority = without_default_port(&to);
    let asked = request.uri().path_and_query().map_or("/", PathAndQuery::as_str);
    let path = match (mapped.to.path.as_str(), asked) {
        ("", asked) => asked.to_owned(),
        (base, "*") => base.to_owned(),
        (base, asked) => format!("{base}{asked}"),
    };
    set_target(request, scheme, &authority, &path)?;
    let mut destination = live.destinations.find(&to.host, to.port).clone();
    if let Some(name) = &mapped.name {
        destination = Arc::new(Destination { name: Some(name.clone()), ..Destination::clone(&destination) });
    }
    Ok(Going { to, scheme, authority, destination })
}

/// A redirected connection goes where it was going. `Host` says what that is called.
fn told_by_connection(live: &Live, fixed: &Fixed, request: &mut Request<Received>) -> Result<Going, Error> {
    if request.headers().get_all(HOST).iter().nth(1).is_some() {
        // One would be judged, and the other might be served (SMG-2).
        return Err(Error::rejected(StatusCode::BAD_REQUEST, "the request has several Host lines"));
    }
    let scheme = scheme_of(fixed.to.protocol);
    let default = Some(if scheme == "https" { 443 } else { 80 });
    let named = target::authority(request).to_owned();
    let authority = if named.is_empty() { without_default_port(&fixed.to) } else { named };
    let (host, _) = egress::destination(&authority, default).map_err(denied)?;
    live.egress.permits_name(host, fixed.to.port).map_err(denied)?;
    let destination = live.destinations.find(host, fixed.to.port).clone();
    Ok(Going { to: fixed.to.clone(), scheme, authority, destination })
}

fn set_target(
    request: &mut Request<Received>,
    scheme: &str,
    authority: &str,
    path: &str,
) -> Result<(), Error> {
    let malformed = || {
        Error::rejected(
            StatusCode::BAD_REQUEST,
            "the target of the request cannot be joined to its destination",
        )
    };
    let mut parts = http::uri::Parts::default();
    parts.scheme = Some(scheme.parse::<Scheme>().map_err(|_| malformed())?);
    parts.authority = Some(authority.parse::<Authority>().map_err(|_| malformed())?);
    parts.path_and_query = Some(path.parse::<PathAndQuery>().map_err(|_| malformed())?);
    *request.uri_mut() = Uri::from_parts(parts).map_err(|_| malformed())?;
    Ok(())
}

fn scheme_of(protocol: UpstreamProtocol) -> &'static str {
    match protocol {
        UpstreamProtocol::Http1 | UpstreamProtocol::H2c => "http",
        UpstreamProtocol::Https => "https",
    }
}

/// The authority of a URL: a port that the scheme has anyway is not named.
fn without_default_port(to: &Upstream) -> String {
    let text = to.to_string();
    let default = match scheme_of(to.protocol) {
        "https" => ":443",
        _ => ":80",
    };
    text.strip_suffix(default).map_or(text.clone(), str::to_owned)
}

/// What the rules say of a target is told to whoever asked for it.
pub(super) fn denied(denied: egress::Denied) -> Error {
    let status = match denied.is_malformed() {
        true => StatusCode::BAD_REQUEST,
        false => StatusCode::FORBIDDEN,
    };
    Error::rejected(status, &denied.to_string())
}

/// Asks the rules that are in force when a connection is opened.
#[derive(Debug)]
pub struct Rules(pub LiveHandle);

impl Permits for Rules {
    fn permits(&self, host: &str, address: SocketAddr) -> Result<(), String> {
        let rules: Arc<EgressRules> = self.0.load().egress.clone();
        rules.permits_address(host, address).map_err(|denied| denied.to_string())
    }
}
