//! The protocol's gRPC form: messages to requests, responses to messages, and what is said about models.
//!
//! Owns the messages (made from `proto/` when this crate is built), their descriptors for reflection, and the conversions.
//! Requests and responses of inference are read and written by hand, in one pass over the bytes: [`decode`] takes no memory
//! beyond a small multiple of the message, however it is made, and leaves raw tensors where they are. The other messages are
//! small, and what they say is also the JSON of the HTTP form: [`config`] and [`statistics`] are for both.
//!
//! Knows no socket and no gRPC library. Invariants: as for the whole crate.

mod config;
mod contents;
mod decode;
mod encode;
pub(crate) mod fields;
mod names;
mod statistics;

#[cfg(test)]
mod tests;

pub use config::{ConfigOf, model_config};
pub use decode::{decode_message, decode_stream_message, id_of_message};
pub use encode::{StreamReply, write_message, write_stream_message};
pub use statistics::{StatisticsOf, model_statistics};

/// The messages, as the protocol names them.
#[expect(
    missing_docs,
    reason = "the protocol's names say what each is, and proto/ what is not obvious"
)]
pub mod messages {
    include!(concat!(env!("OUT_DIR"), "/inference.rs"));
}

/// A `FileDescriptorSet` of the protocol, for reflection.
pub const DESCRIPTORS: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/inference.bin"));

/// The service's full name.
pub const SERVICE: &str = "inference.GRPCInferenceService";
