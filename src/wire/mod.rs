//! HTTP mechanics that an intermediary owes the RFCs.
//!
//! No configuration, no telemetry, no sockets: [`headers`] removes what concerns one hop only, [`target`] turns
//! request targets from one form into another, [`forwarded`] reads who asked first, [`body`] watches a body until it
//! ends, [`tunnel`] copies an upgraded connection both ways, and [`egress`] says where the way out may lead.

pub mod body;
pub mod egress;
pub mod forwarded;
pub mod headers;
pub mod target;
pub mod tunnel;

/// Content as it arrives from either side. Everything above `wire` and `net` names it by this alias, so that the
/// HTTP/1 codec behind it can be replaced.
pub type Received = hyper::body::Incoming;
