//! The open loop: each request begins when it is due, however slowly the earlier ones are answered.
//!
//! Owns the pacing and what is counted. A latency runs from the moment at which its request was due, so that a server that
//! stalls is charged for all who would have called meanwhile (no coordinated omission). Times come from a thread of their
//! own, since the runtime's timers are as coarse as a millisecond. A request whose turn comes while every connection is taken
//! waits for one, and that wait counts; at most [`MAX_DUE`] wait, and one more ends the run: then the client is too small for
//! the load and no figure of it says anything of the server.

use std::{
    net::SocketAddr,
    sync::mpsc::{Receiver as Stop, RecvTimeoutError, channel as stop_channel},
    thread::Builder,
    time::{Duration, Instant},
};

use anyhow::{Context, ensure};
use bytes::Bytes;
use futures::{StreamExt, stream::FuturesUnordered};
use tokio::sync::mpsc;

use crate::{
    arrivals::Arrivals,
    connection::Connection,
    run::{MAX_BREAKS, MAX_CONCURRENCY},
    tally::{OpenOutcome, Timing},
};

/// The most requests that wait for a connection.
pub const MAX_DUE: usize = 16_384;
/// A connection that was idle for so long is not used again.
const MAX_IDLE: Duration = Duration::from_secs(1);

/// What is sent, where, how often and for how long.
#[derive(Debug, Clone)]
pub struct OpenLoad {
    /// The server.
    pub address: SocketAddr,
    /// Requests, sent in turn.
    pub requests: Vec<Bytes>,
    /// When they are due.
    pub arrivals: Arrivals,
    /// The most connections, and so the most requests on their way at a time; made as they are needed.
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

/// A connection that is not in use, and since when.
struct Idle {
    connection: Connection,
    since: Instant,
}

/// Runs the load on the current thread; returns once everything that was due has been answered.
pub async fn run_open(load: &OpenLoad) -> anyhow::Result<OpenOutcome> {
    ensure!(
        (1..=MAX_CONCURRENCY).contains(&load.connections),
        "connections are 1 to {MAX_CONCURRENCY}, got {}",
        load.connections
    );
    ensure!(!load.requests.is_empty(), "there is no request to send");
    let mut state = State {
        load,
        // Fails early where nobody listens.
        idle: vec![Idle::since_now(Connection::open(load.address).await?)],
        counted_from: Instant::now() + load.warm_up,
        outcome: OpenOutcome::empty(load.duration)?,
    };
    let (sender, mut receiver) = mpsc::channel(MAX_DUE);
    let (begin, end, arrivals) = (Instant::now(), load.warm_up + load.duration, load.arrivals.clone());
    // Held until all is answered: dropped early, it stops the pacer.
    let (_going, stop) = stop_channel();
    let pacer = Builder::new()
        .name("pacer".into())
        .spawn(move || pace(arrivals, begin, end, &sender, &stop))?;
    let (mut under_way, mut is_over) = (FuturesUnordered::new(), false);
    while !is_over || !under_way.is_empty() {
        tokio::select! {
            biased;
            Some((at, answer)) = under_way.next(), if !under_way.is_empty() => state.settle(at, answer)?,
            due = receiver.recv(), if !is_over && under_way.len() < load.connections => match due {
                Some(due) => under_way.push(exchange(load, state.usable(), due)),
                None => is_over = true,
            },
        }
    }
    let kept_up = pacer.join().unwrap_or(false);
    ensure!(
        kept_up,
        "more than {MAX_DUE} requests waited for a connection: more connections, or a lower rate"
    );
    Ok(state.outcome)
}

struct State<'a> {
    load: &'a OpenLoad,
    /// Those used last are at the end.
    idle: Vec<Idle>,
    counted_from: Instant,
    outcome: OpenOutcome,
}

impl Idle {
    fn since_now(connection: Connection) -> Self {
        Self {
            connection,
            since: Instant::now(),
        }
    }
}

impl State<'_> {
    /// The connection used last, if the server cannot have closed it yet: servers close those that are idle for some seconds.
    fn usable(&mut self) -> Option<Connection> {
        let Idle { connection, since } = self.idle.pop()?;
        if since.elapsed() < MAX_IDLE {
            return Some(connection);
        }
        // The others have been idle for longer.
        self.idle.clear();
        None
    }

    fn settle(&mut self, at: Instant, answer: anyhow::Result<Answered>) -> anyhow::Result<()> {
        match answer {
            Ok(answered) => {
                if at >= self.counted_from {
                    let Answered {
                        status, bytes, timing, ..
                    } = answered;
                    self.outcome.record(status, bytes, timing, self.load.within);
                }
                self.idle.push(Idle::since_now(answered.connection));
                Ok(())
            }
            Err(error) => {
                self.outcome.broken += 1;
                if self.outcome.broken > MAX_BREAKS {
                    return Err(error.context(format!("connections broke more than {MAX_BREAKS} times")));
                }
                Ok(())
            }
        }
    }
}

struct Answered {
    connection: Connection,
    status: u16,
    bytes: usize,
    timing: Timing,
}

/// Sends what is due, and when that was.
async fn exchange(load: &OpenLoad, connection: Option<Connection>, due: Due) -> (Instant, anyhow::Result<Answered>) {
    let at = due.at;
    (at, answer(load, connection, due).await)
}

async fn answer(load: &OpenLoad, connection: Option<Connection>, due: Due) -> anyhow::Result<Answered> {
    let request = load.requests.get(due.index % load.requests.len());
    let request = request.context("there is no request to send")?;
    let mut connection = match connection {
        Some(connection) => connection,
        None => Connection::open(load.address).await?,
    };
    let sent = Instant::now();
    let (status, bytes) = connection.exchange(request).await?;
    let timing = Timing {
        due: due.at,
        sent,
        answered: Instant::now(),
    };
    Ok(Answered {
        connection,
        status,
        bytes,
        timing,
    })
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

    #[tokio::test]
    async fn a_connection_that_was_idle_for_long_is_not_used_again() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let load = OpenLoad {
            address: listener.local_addr().unwrap(),
            requests: Vec::new(),
            arrivals: Arrivals::new(Spread::Even, 1.0, 1).unwrap(),
            connections: 1,
            warm_up: Duration::ZERO,
            duration: Duration::ZERO,
            within: Duration::ZERO,
        };
        let mut idle = Vec::new();
        for since in [Instant::now().checked_sub(MAX_IDLE), Some(Instant::now())] {
            let connection = Connection::open(load.address).await.unwrap();
            let since = since.unwrap();
            idle.push(Idle { connection, since });
        }
        let mut state = State {
            load: &load,
            idle,
            counted_from: Instant::now(),
            outcome: OpenOutcome::empty(Duration::ZERO).unwrap(),
        };
        assert!(state.usable().is_some());
        assert!(state.usable().is_none() && state.idle.is_empty());
    }
}
