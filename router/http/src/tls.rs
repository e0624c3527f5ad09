//! The handshake of a connection, and what was agreed on in it.

use mesh_tls::ServerConfig;
use mesh_wire::{HTTP1, HTTP2};
use tokio::net::TcpStream;
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::connection::Spoken;

/// Makes handshakes that agree on HTTP/2, or HTTP/1.1.
pub(crate) fn acceptor(config: ServerConfig) -> TlsAcceptor {
    mesh_wire::acceptor(config, &[HTTP2, HTTP1])
}

/// A connection behind TLS and what it speaks; none where there is none. Who says nothing of protocols means HTTP/1.1.
pub(crate) async fn shake_hands(acceptor: &TlsAcceptor, socket: TcpStream) -> Option<(TlsStream<TcpStream>, Spoken)> {
    let secured = mesh_wire::shake_hands(acceptor, socket).await?;
    let is_http2 = secured.get_ref().1.alpn_protocol() == Some(HTTP2);
    Some((secured, if is_http2 { Spoken::Http2 } else { Spoken::Http1 }))
}
