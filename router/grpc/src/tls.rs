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
    let shaken = shaken(acceptor, socket).await;
    shaken
        .inspect_err(|why| tracing::debug!(why, "a TLS handshake came to nothing"))
        .ok()
}

async fn shaken(acceptor: &TlsAcceptor, socket: TcpStream) -> Result<TlsStream<TcpStream>, String> {
    let accepted = timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await;
    let secured = accepted
        .map_err(|_| "it took too long".to_owned())?
        .map_err(|error| error.to_string())?;
    let agreed = secured.get_ref().1.alpn_protocol() == Some(HTTP2);
    agreed
        .then_some(secured)
        .ok_or_else(|| "the client did not ask for HTTP/2".to_owned())
}
