//! Sockets: accepting callers, speaking HTTP with them, and connections to the service.
//!
//! Every connection is a [`Stream`], bare or with TLS. [`connector`] opens those to services, and [`own`] knows them;
//! [`original`] and [`first_bytes`] say where a redirected one wanted to go and what it speaks, and [`intercept`] accepts
//! TLS in the place of its destination.
//!
//! This is where hyper is: [`server`] and [`upstream`] are the codec interface that everything above speaks to, so
//! that the HTTP/1 side of either can be replaced without touching the request path.

pub mod connector;
pub mod first_bytes;
pub mod intercept;
pub mod listener;
pub mod original;
pub mod own;
pub mod process;
pub mod server;
pub mod stream;
pub mod tls;
pub mod upstream;

mod acks;
mod attempt;
mod client_io;
mod drain;
mod http2;
mod tunnel;
mod upstream_io;

pub use drain::Drain;
pub use stream::Stream;
