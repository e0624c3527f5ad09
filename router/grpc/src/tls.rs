//! The handshake of a connection, which agrees on the one protocol of this door.

use mesh_tls::ServerConfig;
use mesh_wire::HTTP2;
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

/// Makes handshakes that agree on HTTP/2.
pub(crate) fn acceptor(config: ServerConfig) -> TlsAcceptor {
    mesh_wire::acceptor(config, &[HTTP2])
}

/// A connection that speaks HTTP/2 behind TLS; none where there is none.
pub(crate) async fn shake_hands(acceptor: &TlsAcceptor, socket: TcpStream) -> Option<TlsStream<TcpStream>> {
    let secured = mesh_wire::shake_hands(acceptor, socket).await?;
    if secured.get_ref().1.alpn_protocol() == Some(HTTP2) {
        return Some(secured);
    }
    tracing::debug!("a TLS handshake came to nothing: the client did not ask for HTTP/2");
    None
}
