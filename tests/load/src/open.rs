//! The open loop: each request begins when it is due, however slowly the earlier ones are answered.
//!
//! Owns the pacing and what is counted. A latency runs from the moment at which its request was due, so that a server that
//! stalls is charged for all who would have called meanwhile (no coordinated omission). Times come from a thread of their
//! own, since the runtime's timers are as coarse as a millisecond. A request whose turn comes while every connection is taken
//! waits for one, and that wait counts; at most [`MAX_DUE`] wait, and one more ends the run: then the client is too small for
//! the load and no figure of it says anything of the server.

use std::{
    cell::RefCell,
    net::SocketAddr,
    sync::mpsc::{Receiver as Stop, RecvTimeoutError, channel as stop_channel},
    thread::Builder,
    time::{Duration, Instant},
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::sync::{Mutex, mpsc};

use crate::{
    arrivals::Arrivals,
    connection::Connection,
    run::{MAX_BREAKS, MAX_CONCURRENCY},
    tally::{OpenOutcome, Timing},
};

/// The most requests that wait for a connection.
pub const MAX_DUE: usize = 16_384;

/// What is sent, where, how often and for how long.
#[derive(Debug, Clone)]
pub struct OpenLoad {
    /// The server.
    pub address: SocketAddr,
    /// Requests, sent in turn.
    pub requests: Vec<Bytes>,
    /// When they are due.
    pub arrivals: Arrivals,
    /// Connections: the most requests on their way at a time.
    pub connections: usize,
    /// Time before anything is counted.
    pub warm_up: Duration,
    /// Time that is counted.
    pub duration: Duration,
    /// An answer with status 200 that comes later than this after its request was due is worthless.
    pub within: Duration,
}

/// A request whose time has come.
struct Due {
    index: usize,
    at: Instant,
}

/// Runs the load on the current thread; returns once everything that was due has been answered.
pub async fn run_open(load: &OpenLoad) -> anyhow::Result<OpenOutcome> {
    ensure!(
        (1..=MAX_CONCURRENCY).contains(&load.connections),
        "connections are 1 to {MAX_CONCURRENCY}, got {}",
        load.connections
    );
    ensure!(!load.requests.is_empty(), "there is no request to send");
    let outcome = RefCell::new(OpenOutcome::empty(load.duration)?);
    let mut opened = Vec::with_capacity(load.connections);
    for _ in 0..load.connections {
        opened.push(Connection::open(load.address).await?);
    }
    let (sender, receiver) = mpsc::channel(MAX_DUE);
    let queue = Mutex::new(receiver);
    let begin = Instant::now();
    let (end, arrivals) = (load.warm_up + load.duration, load.arrivals.clone());
    // Held until the connections are done: dropped early, it stops the pacer.
    let (_going, stop) = stop_channel();
    let pacer = Builder::new()
        .name("pacer".into())
        .spawn(move || pace(arrivals, begin, end, &sender, &stop))?;
    let counted_from = begin + load.warm_up;
    let mut connections: FuturesUnordered<_> = opened
        .into_iter()
        .map(|connection| one_connection(load, connection, &queue, counted_from, &outcome))
        .collect();
    while let Some(one) = connections.next().await {
        one?;
    }
    let kept_up = pacer.join().unwrap_or(false);
    ensure!(
        kept_up,
        "more than {MAX_DUE} requests waited for a connection: more connections, or a lower rate"
    );
    drop(connections);
    Ok(outcome.into_inner())
}

/// Hands out what is due, until the end or until nobody wants it; whether everything found room.
fn pace(arrivals: Arrivals, begin: Instant, end: Duration, sender: &mpsc::Sender<Due>, stop: &Stop<()>) -> bool {
    for (index, after) in arrivals.take_while(|after| *after < end).enumerate() {
        let at = begin + after;
        let left = at.saturating_duration_since(Instant::now());
        if !left.is_zero() && !matches!(stop.recv_timeout(left), Err(RecvTimeoutError::Timeout)) {
            return true;
        }
        match sender.try_send(Due { index, at }) {
            Ok(()) => {}
            Err(mpsc::error::TrySendError::Full(_)) => return false,
            Err(mpsc::error::TrySendError::Closed(_)) => return true,
        }
    }
    true
}

async fn one_connection(
    load: &OpenLoad,
    mut connection: Connection,
    queue: &Mutex<mpsc::Receiver<Due>>,
    counted_from: Instant,
    outcome: &RefCell<OpenOutcome>,
) -> anyhow::Result<()> {
    loop {
        // In a statement of its own: the lock is let go before anything is sent.
        let due = queue.lock().await.recv().await;
        let Some(Due { index, at }) = due else { return Ok(()) };
        let Some(request) = load.requests.get(index % load.requests.len()) else {
            return Ok(());
        };
        let sent = Instant::now();
        match connection.exchange(request).await {
            Ok((status, bytes)) => {
                let timing = Timing {
                    due: at,
                    sent,
                    answered: Instant::now(),
                };
                if at >= counted_from {
                    outcome.borrow_mut().record(status, bytes, timing, load.within);
                }
            }
            Err(error) => {
                let broken = {
                    let mut outcome = outcome.borrow_mut();
                    outcome.broken += 1;
                    outcome.broken
                };
                if broken > MAX_BREAKS {
                    bail!(error.context(format!("connections broke more than {MAX_BREAKS} times")));
                }
                connection = Connection::open(load.address)
                    .await
                    .context("after a connection broke")?;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::arrivals::Spread;

    /// Paces so many requests that are all due already, with nobody to take them.
    fn pace_at_once(requests: usize) -> (bool, usize) {
        let arrivals = Arrivals::new(Spread::Even, 1_000.0, 1).unwrap();
        let end = Duration::from_secs_f64((requests as f64 + 0.5) / 1_000.0);
        let begin = Instant::now().checked_sub(end).unwrap();
        let (sender, receiver) = mpsc::channel(MAX_DUE);
        let (_going, stop) = stop_channel();
        (pace(arrivals, begin, end, &sender, &stop), receiver.len())
    }

    #[test]
    fn so_many_wait_for_a_connection_and_one_more_ends_the_run() {
        assert_eq!(pace_at_once(MAX_DUE), (true, MAX_DUE));
        assert_eq!(pace_at_once(MAX_DUE + 1), (false, MAX_DUE));
    }

    #[test]
    fn a_run_that_is_given_up_stops_its_pacer() {
        let arrivals = Arrivals::new(Spread::Even, 0.001, 1).unwrap();
        let (sender, _receiver) = mpsc::channel(MAX_DUE);
        let (going, stop) = stop_channel();
        drop(going);
        // Due in a thousand seconds: it returns at once nevertheless.
        assert!(pace(
            arrivals,
            Instant::now(),
            Duration::from_secs(2_000),
            &sender,
            &stop
        ));
        assert_eq!(sender.capacity(), MAX_DUE);
    }
}
