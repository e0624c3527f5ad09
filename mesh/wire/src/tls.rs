//! The handshake of a connection, on the connection's own thread and in its own place: a slow one keeps nobody waiting.

use std::sync::Arc;

use mesh_tls::{HANDSHAKE_TIMEOUT, ServerConfig};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// HTTP/2, as handshakes call it.
pub const HTTP2: &[u8] = b"h2";
/// And HTTP/1.1.
pub const HTTP1: &[u8] = b"http/1.1";

/// Makes handshakes that agree on one of these protocols, the first that the client knows.
pub fn acceptor(mut config: ServerConfig, protocols: &[&[u8]]) -> TlsAcceptor {
    config.alpn_protocols = protocols.iter().map(|protocol| protocol.to_vec()).collect();
    TlsAcceptor::from(Arc::new(config))
}

/// A connection behind TLS; none where the client is too slow, is refused, or wants another protocol. One that says nothing of protocols
/// is let in.
pub async fn shake_hands(acceptor: &TlsAcceptor, socket: TcpStream) -> Option<TlsStream<TcpStream>> {
    let shaken = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await {
        Ok(shaken) => shaken.map_err(|error| error.to_string()),
        Err(_) => Err("it took too long".to_owned()),
    };
    let secured = shaken.inspect_err(|why| tracing::debug!(why, "a TLS handshake came to nothing"));
    secured.ok()
}
