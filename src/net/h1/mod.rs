//! HTTP/1 connections: [`wire::h1`](crate::wire::h1) on sockets.
//!
//! [`Io`](io::Io) holds what was read and what is to be written; [`Coding`](coding::Coding) takes content out of the one, and
//! [`Encoder`](encoder::Encoder) puts it into the other. [`server`] answers a caller with them, and [`client`] asks a service. No
//! task of their own drives them, and nothing is handed from one to another: whoever wants the content reads the socket.

mod asked;
mod bell;
pub(super) mod client;
mod coding;
mod encoder;
mod io;
pub(super) mod server;
mod shared;
