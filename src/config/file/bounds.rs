//! Bounds: how long is waited for what, and how much of what there may be at once.

use std::time::Duration;

use super::super::leaf::{Bytes, Count, Limit, Wait};
use super::super::reader::{Given, Reader};
use super::super::value::{At, Field, Keys, Kind, Section, Value};
use super::super::write::Written;

section! {
    /// Bounds on every wait. Each is longer than nothing.
    Timeouts {
        /// From accepting a connection until its first bytes show its protocol.
        detection: Wait = "10s" applies "for new connections",
        /// From accepting a connection to a listener with TLS until its handshake is complete.
        tls_handshake: Wait = "10s" applies "for new connections",
        /// From the first byte of a request's head until its last: slower callers are attackers. Kept to within two
        /// seconds.
        request_header: Wait = "30s" applies "for new connections",
        /// For the caller's next bytes of content, until the service begins to answer. Long, for an upload may rest; 30s
        /// is a good value where strangers call. Waits for content are kept to within two seconds.
        request_body: Wait = "10m" applies "for new connections",
        /// Between requests of one connection. Longer than the 60s of common load balancers, so that they close
        /// first.
        idle: Wait = "75s" applies "for new connections",
        /// Resolving and connecting to the service, which stands beside us.
        connect: Wait = "5s",
        /// From the sent request until the head of the response. Long, for some services think for minutes.
        response_header: Wait = "10m",
        /// For the service's next bytes of content. Long, for event streams may be quiet.
        response_body: Wait = "1h",
        /// For the caller to take any more of a response. A caller that takes nothing holds memory of the service, too.
        response_send: Wait = "5m" applies "for new connections",
        /// A whole request with its response, streams included; 0s is no bound. Upgraded connections are not meant.
        stream: Duration = "0s",
        /// An upgraded connection or tunnel on which both sides are quiet; 0s is no bound, for TCP finds out by itself
        /// whether anybody is there.
        tunnel: Duration = "0s",
        /// How long a connection to the service is kept without use.
        upstream_idle: Wait = "30s",
    }
}

section! {
    /// Bounds on how much there is at once.
    Limits {
        /// Connections from callers, on each listener: who floods one does not close another, so the service can still
        /// call out. At the bound no more are accepted, and callers wait in the kernel. 0 is no bound but that of
        /// descriptors.
        connections: Limit<1_000_000> = "0" applies "from the next connection on",
        /// Requests that are under way to the service, upgraded connections among them; 0 is no bound. One more gets a
        /// 503 with `Retry-After`, unless it is excluded: a service that has much to do is not dead. Calls of the
        /// service are bounded alike, and counted by themselves, for they are made by requests that are under way.
        requests: Limit<1_000_000> = "0",
        /// A request's head. Beyond it a request gets a 431.
        header_bytes: At<Bytes> = "64KiB" applies "for new connections",
        /// Lines of a request's header section. Beyond it a request gets a 431.
        headers: Count<10_000> = "200" applies "for new connections",
        /// A request's target. Beyond it a request gets a 414. At most 65534B.
        target_bytes: At<Bytes> = "32KiB" applies "for new connections",
        /// Requests that one HTTP/2 connection may have under way.
        http2_streams: Count<100_000> = "256" applies "for new connections",
        /// Requests that one HTTP/2 connection may cancel before they are answered, in 30s, if those are most of all that
        /// it sent: beyond it the connection is ended. 0 is no bound.
        http2_resets: Limit<1_000_000> = "1000" applies "for new connections",
        /// Connections to one destination, for each of `runtime.workers`; 0 is no bound. At the bound requests wait for
        /// as long as `timeouts.connect`, and get a 503 then.
        upstream_connections: Limit<100_000> = "0",
    }
}
