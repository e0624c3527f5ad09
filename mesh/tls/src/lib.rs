//! TLS of the doors: certificates from files, their renewal without a restart, and the verification of clients.
//!
//! Owns what a door's handshake needs, read from files and checked before it is used. A door asks for a configuration once and
//! keeps it; a renewal is put behind it, so that the next handshake sees the new pair and connections under way go on. Says of a
//! connection what its client's certificate names ([`peer_of`]); whom that stands for is not decided here. Knows neither sockets nor
//! HTTP, and no runtime: whoever runs it says when to look at the files again.
//!
//! Invariants: what was read together serves together, and only if it fits together; a renewal that does not fit leaves what
//! was there; files are read up to a bound; where clients are verified no session is resumed, so that every handshake asks the
//! authority that is trusted now.

mod error;
mod handshake;
mod material;
mod peer;
mod server;
mod shown;

pub use error::{Role, TlsError};
pub use material::{MAX_FILE_BYTES, Warning};
pub use peer::{MAX_NAMES, key_digest, peer_of};
pub use rustls::{ServerConfig, ServerConnection};
pub use server::{ClientAuth, HANDSHAKE_TIMEOUT, Renewal, ServerTls, TlsSettings, TlsVersion};
pub use shown::{Asks, CertificateFacts, MAX_SHOWN_AUTHORITIES, MAX_SHOWN_NAMES, MAX_SHOWN_TEXT, Shown};

#[cfg(test)]
mod tests;
