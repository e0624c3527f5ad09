//! What becomes of an accepted connection: which protocol it speaks, and who serves it.
//!
//! Without TLS its first bytes are looked at, once and without taking them; with TLS it was agreed on in the handshake (ALPN).
//! HTTP/1.1 is served by actix, HTTP/2 by [`crate::http2`], both by the same handlers.

use std::{io, net::SocketAddr, rc::Rc, sync::Arc};

use actix_http::{Extensions, Request, error::DispatchError};
use actix_server::GracefulShutdownSignal;
use actix_service::{ServiceFactory, fn_factory, fn_service, map_config};
use actix_web::{
    App, HttpRequest,
    body::BoxBody,
    dev::{AppConfig, Service as _, ServiceResponse},
    web,
};
use mesh_router::PeerCertificate;
use mesh_tls::peer_of;
use mesh_wire::{Bounds, Paced, Pulse, peer, told};
use rustix::net::{RecvFlags, recv};
use tokio::{
    io::{AsyncRead, AsyncWrite, Interest},
    net::TcpStream,
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use crate::{
    config::HttpDoorConfig,
    http2::{self, Far, Limits},
    service::Service,
    tls,
};

/// What an HTTP/2 connection begins with, and no request of HTTP/1.1 (RFC 9113, section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Spoken {
    Http1,
    Http2,
}

/// What the connections of a thread are served with.
pub(crate) struct Serving {
    pub(crate) service: Rc<Service>,
    pub(crate) config: HttpDoorConfig,
    pub(crate) ending: GracefulShutdownSignal,
}

/// Serves connections as they are.
pub(crate) fn plain(serving: Rc<Serving>) -> impl ServiceFactory<TcpStream, Config = ()> {
    fn_factory(move || {
        let serving = serving.clone();
        async move {
            let http1 = Rc::new(serving.http1::<TcpStream>(|_, _| ()).new_service(()).await?);
            let http2 = Rc::new(serving.http2(serving.app().new_service(()).await?));
            Ok::<_, ()>(fn_service::<_, _, TcpStream, _, _, ()>(move |socket: TcpStream| {
                let (serving, http1, http2) = (serving.clone(), http1.clone(), http2.clone());
                async move {
                    let peer = peer(&socket);
                    match serving.unless_ending(serving.spoken(&socket)).await.flatten() {
                        Some(Spoken::Http1) => told(http1.call((serving.paced(socket), peer)).await),
                        Some(Spoken::Http2) => {
                            let far = Far {
                                address: peer,
                                certificate: None,
                            };
                            Box::pin(http2::serve(socket, far, http2, serving.ending.notified())).await;
                        }
                        None => {}
                    }
                    Ok::<_, ()>(())
                }
            }))
        }
    })
}

/// Serves connections behind TLS.
pub(crate) fn secured(serving: Rc<Serving>, acceptor: TlsAcceptor) -> impl ServiceFactory<TcpStream, Config = ()> {
    fn_factory(move || {
        let (serving, acceptor) = (serving.clone(), acceptor.clone());
        async move {
            let http1 = Rc::new(serving.http1(noted).new_service(()).await?);
            let http2 = Rc::new(serving.http2(serving.app().new_service(()).await?));
            Ok::<_, ()>(fn_service::<_, _, TcpStream, _, _, ()>(move |socket: TcpStream| {
                let (serving, http1, http2) = (serving.clone(), http1.clone(), http2.clone());
                let acceptor = acceptor.clone();
                async move {
                    let peer = peer(&socket);
                    let shaken = Box::pin(tls::shake_hands(&acceptor, socket));
                    match serving.unless_ending(shaken).await.flatten() {
                        Some((secured, Spoken::Http1)) => told(http1.call((serving.paced(secured), peer)).await),
                        Some((secured, Spoken::Http2)) => {
                            let far = Far {
                                address: peer,
                                certificate: certificate(&secured),
                            };
                            Box::pin(http2::serve(secured, far, http2, serving.ending.notified())).await;
                        }
                        None => {}
                    }
                    Ok::<_, ()>(())
                }
            }))
        }
    })
}

/// What the client has shown in the handshake.
fn certificate(secured: &TlsStream<TcpStream>) -> Option<Arc<PeerCertificate>> {
    peer_of(secured.get_ref().1).map(Arc::new)
}

/// Notes it on the connection.
fn noted(secured: &TlsStream<TcpStream>, data: &mut Extensions) {
    if let Some(certificate) = certificate(secured) {
        data.insert(certificate);
    }
}

impl Serving {
    /// The handlers, as actix calls them.
    fn app(
        &self,
    ) -> impl ServiceFactory<
        Request,
        Config = (),
        Response = ServiceResponse<BoxBody>,
        Error = actix_web::Error,
        InitError = (),
    > + use<> {
        let service = self.service.clone();
        let answer = move |request: HttpRequest, payload: web::Payload| {
            let service = service.clone();
            async move {
                let Some(under_way) = Pulse::begin(&request) else {
                    return service.answer(request, payload).await;
                };
                let answer = match under_way.too_long(&request) {
                    Some(refusal) => refusal,
                    None => service.answer(request, payload).await,
                };
                under_way.end_with(answer)
            }
        };
        let app = App::new()
            // `credential` looks it up, which is called with a request and nothing else.
            .app_data(self.config.local_tenant.clone())
            .default_service(web::to(answer));
        // What it says is for addresses that an application makes of its own, and here none are.
        map_config(app, |()| AppConfig::default())
    }

    fn http1<IO: AsyncRead + AsyncWrite + Unpin + 'static>(
        &self,
        knows: fn(&IO, &mut Extensions),
    ) -> impl ServiceFactory<
        (Paced<IO>, Option<SocketAddr>),
        Config = (),
        Response = (),
        Error = DispatchError,
        InitError = (),
    > + use<IO> {
        // A caller that leaves must not keep a place: its call is dropped with the connection.
        mesh_wire::http1(self.app(), self.ending.clone(), true, knows)
    }

    fn paced<IO>(&self, socket: IO) -> Paced<IO> {
        let bounds = Bounds {
            head: self.config.head_timeout,
            still: self.config.keep_alive,
        };
        Paced::new(socket, bounds, self.service.telemetry.clone())
    }

    fn http2<S>(&self, app: S) -> http2::Thread<S> {
        let (clock, telemetry) = (self.service.clock.clone(), self.service.telemetry.clone());
        http2::Thread::new(app, Limits::of(&self.config), clock, telemetry)
    }

    /// What comes of this, unless the door ends first.
    async fn unless_ending<T>(&self, of: impl Future<Output = T>) -> Option<T> {
        tokio::select! {
            done = of => Some(done),
            () = self.ending.notified() => None,
        }
    }

    /// What a connection speaks; none where it is gone, or says too little for too long.
    async fn spoken(&self, socket: &TcpStream) -> Option<Spoken> {
        tokio::time::timeout(self.config.head_timeout, first_words(socket))
            .await
            .ok()?
    }
}

/// Looks at what has come until it is enough. The socket stays ready for good once its other end has closed, so who has then said
/// too little is gone: waiting for more would never pause.
async fn first_words(socket: &TcpStream) -> Option<Spoken> {
    loop {
        let ready = socket.ready(Interest::READABLE).await.ok()?;
        let seen = socket.try_io(Interest::READABLE, || {
            let mut first = [0; PREFACE.len()];
            let (read, _) = recv(socket, &mut first[..], RecvFlags::PEEK)?;
            // Where it can still become either, the socket is not ready until more is there.
            said(first.get(..read).unwrap_or_default()).ok_or_else(|| io::ErrorKind::WouldBlock.into())
        });
        match seen {
            Ok(spoken) => return Some(spoken),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && !ready.is_read_closed() => {}
            Err(_) => return None,
        }
    }
}

/// What begins like this; none where more must be seen.
fn said(first: &[u8]) -> Option<Spoken> {
    if first == PREFACE {
        Some(Spoken::Http2)
    } else if !first.is_empty() && PREFACE.starts_with(first) {
        None
    } else {
        Some(Spoken::Http1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_preface_alone_is_http_2_and_its_beginnings_are_not_yet_anything() {
        assert_eq!(said(PREFACE), Some(Spoken::Http2));
        for length in 1..PREFACE.len() {
            assert_eq!(said(&PREFACE[..length]), None, "{length} bytes");
        }
        for other in [
            "",
            "GET /v2 HTTP/1.1\r\nhost: me",
            "POST",
            "PUT",
            "PRIX",
            "PRI * HTTP/2.0\r\n\r\nSM\r\n\rx",
            "\r\n",
            "\x16\x03",
        ] {
            assert_eq!(said(other.as_bytes()), Some(Spoken::Http1), "{other:?}");
        }
    }
}
