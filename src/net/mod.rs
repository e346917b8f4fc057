//! Sockets: accepting callers, speaking HTTP with them, and connections to the service.
//!
//! Every connection is a [`Stream`], bare or with TLS. [`connector`] opens those to services, and [`own`] knows them;
//! [`arrival`] is what comes before HTTP on those of callers: the PROXY protocol, and TLS by [`termination`];
//! [`original`] and [`first_bytes`] say where a redirected one wanted to go and what it speaks, and [`intercept`] accepts
//! TLS in the place of its destination.
//!
//! [`server`] and [`upstream`] are what everything above speaks to. Behind them HTTP/1 is our own (`h1`), and HTTP/2 is
//! hyper's. A connection that stops being HTTP is a tunnel between two sides ([`side`]), and so is a stream of HTTP/2 that
//! becomes a [`websocket`].

pub mod arrival;
pub mod connector;
pub mod first_bytes;
pub mod intercept;
pub mod listener;
pub mod original;
pub mod own;
pub mod pem_files;
pub mod process;
pub mod reset;
pub mod room;
pub mod server;
pub mod side;
pub mod stream;
pub mod termination;
pub mod tls;
pub mod upstream;
pub mod websocket;

mod acks;
mod attempt;
mod caller;
mod certificate;
mod drain;
mod h1;
mod http2;
mod tasks;
mod tunnel;

pub use drain::Drain;
pub use stream::Stream;
