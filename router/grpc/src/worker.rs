//! One thread's share of the door: its router, and the connections that were handed to it.

use std::{
    net::TcpStream,
    panic::AssertUnwindSafe,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use futures::{FutureExt, StreamExt, stream::FuturesUnordered};
use mesh_router::LocalTenant;
use mesh_tls::peer_of;
use tokio::sync::mpsc;

use crate::{
    connection::{self, Caller},
    service::Service,
    tls,
};

/// A connection on its way to a thread, or on it; counted until it is gone.
#[derive(Debug)]
pub(crate) struct Arrived {
    pub(crate) socket: TcpStream,
    pub(crate) place: Place,
}

/// A connection's place on a thread, given back when dropped.
#[derive(Debug)]
pub(crate) struct Place(Arc<AtomicUsize>);

impl Place {
    /// A place of the thread that counts here, if it has one.
    pub(crate) fn take(taken: &Arc<AtomicUsize>, bound: usize) -> Option<Self> {
        let one_more = |count: usize| (count < bound).then_some(count + 1);
        let took = taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more);
        took.ok().map(|_| Self(taken.clone()))
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}

/// Serves what arrives, until nothing can arrive any more and all connections are gone.
pub(crate) async fn run(mut arriving: mpsc::Receiver<Arrived>, service: Rc<Service>) {
    let mut connections = FuturesUnordered::new();
    let mut open = true;
    while open || !connections.is_empty() {
        tokio::select! {
            arrived = arriving.recv(), if open => match arrived {
                Some(arrived) => {
                    let serving = serve(arrived, service.clone());
                    // A connection that panics is gone, and no other.
                    connections.push(AssertUnwindSafe(serving).catch_unwind());
                }
                None => open = false,
            },
            Some(ended) = connections.next(), if !connections.is_empty() => if ended.is_err() {
                tracing::error!("a gRPC connection panicked");
            },
        }
    }
}

async fn serve(arrived: Arrived, service: Rc<Service>) {
    let Arrived { socket, place } = arrived;
    let address = socket.peer_addr().ok().map(|peer| peer.ip());
    let here = address.is_some_and(LocalTenant::is_here);
    let local = service.config.local_tenant.clone().filter(|_| here);
    match (tokio::net::TcpStream::from_std(socket), service.tls.clone()) {
        (Ok(socket), None) => {
            let caller = Caller {
                local,
                certificate: None,
                address,
            };
            connection::serve(socket, caller, service).await;
        }
        (Ok(socket), Some(acceptor)) => {
            if let Some(secured) = tls::shake_hands(&acceptor, socket).await {
                let certificate = peer_of(secured.get_ref().1).map(Arc::new);
                let caller = Caller {
                    local,
                    certificate,
                    address,
                };
                connection::serve(secured, caller, service).await;
            }
        }
        (Err(error), _) => tracing::debug!(%error, "a connection could not be taken over"),
    }
    drop(place);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_given_and_one_more_is_not_until_one_is_given_back() {
        let taken = Arc::default();
        let (first, second) = (Place::take(&taken, 2), Place::take(&taken, 2));
        assert!(first.is_some() && second.is_some());
        assert!(Place::take(&taken, 2).is_none());
        drop(first);
        assert!(Place::take(&taken, 2).is_some());
    }
}
