//! The sockets: binds, starts a thread per worker with a router of its own, hands connections to them, stops gracefully.

use std::{
    io,
    net::SocketAddr,
    rc::Rc,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use actix::Arbiter;
use mesh_actors::{Readiness, ShutdownSignal, Tasks};
use mesh_router::{Budget, RouterParts};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{mpsc, watch},
};

use crate::{
    config::GrpcDoorConfig,
    service::{Service, ServiceParts, Shared},
    tls,
    worker::{self, Arrived, Place},
};

/// Connections on their way to a thread.
const MAX_ARRIVING: usize = 64;
/// How long the door rests where a connection cannot be accepted: the system has run out of something.
const ACCEPT_REST: Duration = Duration::from_millis(100);

/// Why a door does not open.
#[derive(Debug, thiserror::Error)]
pub enum DoorError {
    /// The address cannot be listened on.
    #[error("cannot listen on {address}: {source}")]
    Bind {
        /// The address.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// The protocol's descriptors cannot be read.
    #[error("cannot offer reflection: {0}")]
    Reflection(String),
}

/// The open gRPC door.
#[derive(Debug)]
pub struct GrpcDoor {
    address: SocketAddr,
    ending: watch::Sender<bool>,
    running: watch::Receiver<usize>,
    arbiters: Vec<Arbiter>,
}

/// A thread as the one who hands connections out sees it.
#[derive(Debug, Clone)]
struct Thread {
    arriving: mpsc::Sender<Arrived>,
    taken: Arc<AtomicUsize>,
}

/// One of the threads that run; it counts as long as it is held.
struct Runs(watch::Sender<usize>);

impl Runs {
    fn begin(count: &watch::Sender<usize>) -> Self {
        count.send_modify(|running| *running += 1);
        Self(count.clone())
    }
}

impl Drop for Runs {
    fn drop(&mut self) {
        self.0.send_modify(|running| *running -= 1);
    }
}

impl GrpcDoor {
    /// Opens the door. Must be called within an actix system.
    pub fn start(
        config: &GrpcDoorConfig,
        parts: &RouterParts,
        readiness: Readiness,
        tasks: &Tasks,
    ) -> Result<Self, DoorError> {
        let (listener, address) = listen(config.listen).map_err(|source| DoorError::Bind {
            address: config.listen,
            source,
        })?;
        let service = ServiceParts {
            shared: Shared::new(readiness)?,
            config: config.clone(),
            tls: config.tls.clone().map(tls::acceptor),
            parts: parts.clone(),
            budget: Budget::new(config.max_buffered_bytes),
            ending: watch::Sender::new(false),
        };
        let (count, running) = watch::channel(0);
        let workers = 0..config.workers.max(1);
        let (arbiters, threads): (Vec<_>, Vec<_>) = workers.map(|_| begin(&service, Runs::begin(&count))).unzip();
        let (bound, ending) = (config.max_connections_per_worker, service.ending);
        let ended = ending.clone();
        tasks.spawn("gRPC door", move |signal| async move {
            hand_out(&listener, &threads, bound, ended.subscribe(), signal).await;
            // The group's end is the door's, and what is under way is finished.
            ended.send_replace(true);
        });
        tracing::info!(door = "gRPC door", %address, "listening");
        Ok(Self {
            address,
            ending,
            running,
            arbiters,
        })
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.address
    }

    /// Takes no more calls and waits for those under way; false if some were still there after `grace`.
    pub async fn stop(&self, grace: Duration) -> bool {
        self.ending.send_replace(true);
        let mut running = self.running.clone();
        let all_gone = tokio::time::timeout(grace, running.wait_for(|running| *running == 0)).await;
        for arbiter in &self.arbiters {
            arbiter.stop();
        }
        all_gone.is_ok()
    }
}

/// Starts a thread with a router of its own.
fn begin(service: &ServiceParts, runs: Runs) -> (Arbiter, Thread) {
    let (arriving, arrived) = mpsc::channel(MAX_ARRIVING);
    let arbiter = Arbiter::new();
    let service = service.clone();
    arbiter.spawn_fn(move || {
        let service = Rc::new(Service::new(service));
        #[expect(
            clippy::disallowed_methods,
            reason = "a task that stays on this thread, which `Tasks` has none of; `stop` waits for it"
        )]
        actix::spawn(async move {
            worker::run(arrived, service).await;
            drop(runs);
        });
    });
    let thread = Thread {
        arriving,
        taken: Arc::default(),
    };
    (arbiter, thread)
}

fn listen(address: SocketAddr) -> io::Result<(TcpListener, SocketAddr)> {
    let listener = std::net::TcpListener::bind(address)?;
    listener.set_nonblocking(true)?;
    let address = listener.local_addr()?;
    Ok((TcpListener::from_std(listener)?, address))
}

/// Accepts connections until the door or its group ends.
async fn hand_out(
    listener: &TcpListener,
    threads: &[Thread],
    bound: usize,
    mut ending: watch::Receiver<bool>,
    mut signal: ShutdownSignal,
) {
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = signal.ended() => return,
            _ = ending.wait_for(|ending| *ending) => return,
        };
        if let Err(error) = accepted.and_then(|(socket, _)| take_in(socket, threads, bound)) {
            tracing::warn!(%error, "a gRPC connection could not be accepted");
            tokio::time::sleep(ACCEPT_REST).await;
        }
    }
}

fn take_in(socket: TcpStream, threads: &[Thread], bound: usize) -> io::Result<()> {
    socket.set_nodelay(true)?;
    if !hand_over(socket.into_std()?, threads, bound) {
        tracing::debug!("a gRPC connection was refused: every thread has as many as it takes");
    }
    Ok(())
}

/// Hands a connection to the thread that has the fewest; false, and the connection closed, where none has a place.
fn hand_over(socket: std::net::TcpStream, threads: &[Thread], bound: usize) -> bool {
    let least = threads.iter().min_by_key(|thread| thread.taken.load(Ordering::Acquire));
    let place = least.and_then(|thread| Some((thread, Place::take(&thread.taken, bound)?)));
    place.is_some_and(|(thread, place)| thread.arriving.try_send(Arrived { socket, place }).is_ok())
}
