//! The handshake of a connection, on the connection's own thread and in its own place: a slow one keeps nobody waiting.

use std::sync::Arc;

use mesh_tls::{HANDSHAKE_TIMEOUT, ServerConfig};
use tokio::{net::TcpStream, time::timeout};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::connection::Spoken;

/// The protocols of this door, as handshakes call them.
const HTTP2: &[u8] = b"h2";
const HTTP1: &[u8] = b"http/1.1";

/// Makes handshakes that agree on HTTP/2, or HTTP/1.1.
pub(crate) fn acceptor(mut config: ServerConfig) -> TlsAcceptor {
    config.alpn_protocols = vec![HTTP2.to_vec(), HTTP1.to_vec()];
    TlsAcceptor::from(Arc::new(config))
}

/// A connection behind TLS and what it speaks; none where the client is too slow, is refused, or wants another protocol. Who
/// says nothing of protocols means HTTP/1.1.
pub(crate) async fn shake_hands(acceptor: &TlsAcceptor, socket: TcpStream) -> Option<(TlsStream<TcpStream>, Spoken)> {
    let shaken = match timeout(HANDSHAKE_TIMEOUT, acceptor.accept(socket)).await {
        Ok(shaken) => shaken.map_err(|error| error.to_string()),
        Err(_) => Err("it took too long".to_owned()),
    };
    let secured = shaken.inspect_err(|why| tracing::debug!(why, "a TLS handshake came to nothing"));
    let secured = secured.ok()?;
    let is_http2 = secured.get_ref().1.alpn_protocol() == Some(HTTP2);
    Some((secured, if is_http2 { Spoken::Http2 } else { Spoken::Http1 }))
}
