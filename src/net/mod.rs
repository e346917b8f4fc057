//! Sockets: accepting callers, speaking HTTP with them, and connections to the service.
//!
//! This is where hyper is: [`server`] and [`upstream`] are the codec interface that everything above speaks to, so
//! that the HTTP/1 side of either can be replaced without touching the request path.

pub mod listener;
pub mod server;
pub mod tls;
pub mod upstream;

mod acks;
mod client_io;
mod drain;
mod http2;
mod tunnel;
mod upstream_io;

pub use drain::Drain;
