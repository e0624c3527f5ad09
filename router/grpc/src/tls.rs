//! The handshake of a connection, on the connection's own thread and in its own place: a slow one keeps nobody waiting.

use std::sync::Arc;

use mesh_tls::{HANDSHAKE_TIMEOUT, ServerConfig};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// The one protocol of this door, as handshakes call it.
const HTTP2: &[u8] = b"h2";

/// Makes handshakes that agree on HTTP/2.
pub(crate) fn acceptor(mut config: ServerConfig) -> TlsAcceptor {
    config.alpn_protocols = vec![HTTP2.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// A connection that speaks HTTP/2 behind TLS; none where the client is too slow, is refused, or wants another protocol.
pub(crate) async fn shake_hands(acceptor: &TlsAcceptor, socket: TcpStream) -> Option<TlsStream<TcpStream>> {
    match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await {
        Ok(Ok(secured)) if secured.get_ref().1.alpn_protocol() == Some(HTTP2) => Some(secured),
        Ok(Ok(_)) => {
            tracing::debug!("a client did not ask for HTTP/2 in its TLS handshake");
            None
        }
        Ok(Err(error)) => {
            tracing::debug!(%error, "a TLS handshake failed");
            None
        }
        Err(_) => {
            tracing::debug!("a TLS handshake took too long");
            None
        }
    }
}
