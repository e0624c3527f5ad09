//! What the doors have in common below their protocols: how long connections and heads of requests may take, how they end, and how
//! handshakes are made.
//!
//! Owns the bounds of HTTP/1.1 that its library leaves open ([`Paced`]), those of HTTP/2 ([`Flood`]), and the serving of a door that
//! speaks HTTP/1.1 and nothing else ([`Http1Door`]). Knows no path, no credential and no tenant: what is answered is the doors' own.
//!
//! Invariant: whoever is at the other end of a connection gets a place for a bounded time, unless a request of its is under way.

mod flood;
pub mod fuzz;
mod http1;
mod lines;
mod linger;
mod pace;
mod pulse;
mod tls;

pub use flood::{ALLOWANCE, Counted, Flood};
pub use http1::{Http1Door, http1, peer, serve, told};
pub use linger::Linger;
pub use pace::{Bounds, MAX_HEAD_BYTES, Paced};
pub use pulse::{Pulse, UnderWay, keep};
pub use tls::{HTTP1, HTTP2, acceptor, shake_hands};
