//! HTTP mechanics that an intermediary owes the RFCs.
//!
//! No configuration, no telemetry, no sockets: [`headers`] removes what concerns one hop only, [`target`] turns
//! request targets from one form into another, [`forwarded`] reads who asked first, [`body`] watches a body until it
//! ends, [`tunnel`] copies an upgraded connection both ways, [`egress`] says where the way out may lead, and
//! [`proxy_protocol`] reads what a load balancer says before a connection.

pub mod body;
pub mod egress;
pub mod forwarded;
pub mod h1;
pub mod headers;
pub mod proxy_protocol;
pub mod received;
pub mod target;
pub mod tunnel;

pub use received::{Broken, Laid, Received};
