//! Supervision that rebuilds: an actor that dies, by a panic too, is made anew by its factory.
//!
//! actix's own supervisor keeps the same value and does not notice a panic. Here the actor owns a [`Lifeline`]; when it is
//! dropped, for whatever reason, the supervisor waits out a backoff and starts another from the factory, at most
//! [`RestartPolicy::max_restarts`] times within [`RestartPolicy::window`]. After that the actor stays down and says so.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use actix::{Actor, Addr, ArbiterHandle, Context};
use arc_swap::ArcSwapOption;
use tokio::{
    sync::{oneshot, watch},
    time::Instant,
};

use crate::Tasks;

/// How often and how fast an actor is rebuilt.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RestartPolicy {
    /// The most restarts within the window.
    pub max_restarts: usize,
    /// The window.
    pub window: Duration,
    /// The wait before the first restart; doubled for each further one in the window.
    pub backoff: Duration,
}

impl Default for RestartPolicy {
    fn default() -> Self {
        Self {
            max_restarts: 10,
            window: Duration::from_secs(60),
            backoff: Duration::from_millis(10),
        }
    }
}

/// Whether an actor is there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ActorState {
    /// Started so many times before.
    Running {
        /// How often it was rebuilt.
        restarts: u64,
    },
    /// Dead, to be rebuilt after a backoff.
    Restarting,
    /// Dead for good: the restart budget is used up.
    Failed,
}

/// Held by an actor; its drop is the actor's death.
#[derive(Debug)]
pub struct Lifeline {
    _alive: oneshot::Sender<()>,
}

/// A supervised actor: its current address and state.
#[derive(Debug)]
pub struct Supervised<A: Actor> {
    current: Arc<ArcSwapOption<Addr<A>>>,
    state: watch::Receiver<ActorState>,
}

impl<A: Actor> Clone for Supervised<A> {
    fn clone(&self) -> Self {
        Self {
            current: self.current.clone(),
            state: self.state.clone(),
        }
    }
}

impl<A: Actor> Supervised<A> {
    /// The address, if the actor is there. Do not clone it per message: a clone has a mailbox bound of its own.
    pub fn address(&self) -> arc_swap::Guard<Option<Arc<Addr<A>>>> {
        self.current.load()
    }

    /// Whether it is there.
    pub fn state(&self) -> ActorState {
        *self.state.borrow()
    }

    /// Told of each change.
    pub fn watch(&self) -> watch::Receiver<ActorState> {
        self.state.clone()
    }
}

/// Starts an actor on an arbiter and keeps it there until the tasks end.
pub fn supervise<A, F>(
    name: &'static str,
    policy: RestartPolicy,
    arbiter: ArbiterHandle,
    tasks: &Tasks,
    factory: F,
) -> Supervised<A>
where
    A: Actor<Context = Context<A>>,
    F: Fn(Lifeline) -> A + Send + Sync + 'static,
{
    let current = Arc::new(ArcSwapOption::empty());
    let (state, observed) = watch::channel(ActorState::Restarting);
    let supervised = Supervised {
        current: current.clone(),
        state: observed,
    };
    let factory = Arc::new(factory);
    tasks.spawn(name, move |mut signal| async move {
        let mut restarts = Restarts {
            policy,
            at: VecDeque::new(),
            total: 0,
        };
        loop {
            let (alive, death) = oneshot::channel();
            let (slot, make) = (current.clone(), factory.clone());
            let started = arbiter.spawn_fn(move || {
                slot.store(Some(Arc::new(make(Lifeline { _alive: alive }).start())));
            });
            if !started {
                break;
            }
            state.send_replace(ActorState::Running {
                restarts: restarts.total,
            });
            tokio::select! {
                () = signal.ended() => break,
                _ = death => {}
            }
            current.store(None);
            let Some(backoff) = restarts.next(Instant::now()) else {
                tracing::error!(actor = name, "actor keeps dying: restart budget used up");
                state.send_replace(ActorState::Failed);
                break;
            };
            tracing::warn!(actor = name, restarts = restarts.total, "actor died, rebuilding it");
            state.send_replace(ActorState::Restarting);
            tokio::time::sleep(backoff).await;
        }
        current.store(None);
    });
    supervised
}

struct Restarts {
    policy: RestartPolicy,
    at: VecDeque<Instant>,
    total: u64,
}

impl Restarts {
    /// The wait before the next restart, or none if the budget is used up.
    fn next(&mut self, now: Instant) -> Option<Duration> {
        while self
            .at
            .front()
            .is_some_and(|at| now.duration_since(*at) > self.policy.window)
        {
            self.at.pop_front();
        }
        if self.at.len() >= self.policy.max_restarts {
            return None;
        }
        let doublings = u32::try_from(self.at.len()).unwrap_or(u32::MAX).min(10);
        self.at.push_back(now);
        self.total += 1;
        Some(self.policy.backoff * 2u32.pow(doublings))
    }
}

#[cfg(test)]
mod tests {
    use actix::{Handler, Message, System};

    use super::*;

    struct Counter {
        value: u32,
        _lifeline: Lifeline,
    }

    impl Actor for Counter {
        type Context = Context<Self>;
    }

    #[derive(Message)]
    #[rtype(result = "u32")]
    struct Add;

    #[derive(Message)]
    #[rtype(result = "()")]
    struct Die;

    impl Handler<Add> for Counter {
        type Result = u32;
        fn handle(&mut self, _: Add, _: &mut Context<Self>) -> u32 {
            self.value += 1;
            self.value
        }
    }

    impl Handler<Die> for Counter {
        type Result = ();
        fn handle(&mut self, _: Die, _: &mut Context<Self>) {
            panic!("told to");
        }
    }

    async fn until(supervised: &Supervised<Counter>, wanted: impl FnMut(&ActorState) -> bool) {
        supervised.watch().wait_for(wanted).await.unwrap();
    }

    #[test]
    fn an_actor_that_panics_is_rebuilt_from_its_factory_until_the_budget_is_used_up() {
        System::new().block_on(async {
            let tasks = Tasks::new();
            let policy = RestartPolicy {
                max_restarts: 2,
                backoff: Duration::from_millis(1),
                ..RestartPolicy::default()
            };
            let arbiter = actix::Arbiter::new();
            let make = |lifeline| Counter {
                value: 0,
                _lifeline: lifeline,
            };
            let supervised = supervise("counter", policy, arbiter.handle(), &tasks, make);
            for restarts in 0..=2 {
                until(&supervised, |state| *state == ActorState::Running { restarts }).await;
                let address = loop {
                    if let Some(address) = supervised.address().as_deref() {
                        break address.clone();
                    }
                    tokio::task::yield_now().await;
                };
                assert_eq!(address.send(Add).await.unwrap(), 1, "a new value each time");
                assert!(address.send(Die).await.is_err());
            }
            until(&supervised, |state| *state == ActorState::Failed).await;
            assert!(supervised.address().is_none());
            arbiter.stop();
        });
    }

    #[test]
    fn the_budget_is_for_a_window() {
        let policy = RestartPolicy {
            max_restarts: 2,
            window: Duration::from_secs(60),
            backoff: Duration::from_millis(10),
        };
        let mut restarts = Restarts {
            policy,
            at: VecDeque::new(),
            total: 0,
        };
        let now = Instant::now();
        assert_eq!(restarts.next(now), Some(Duration::from_millis(10)));
        assert_eq!(restarts.next(now), Some(Duration::from_millis(20)));
        assert_eq!(restarts.next(now), None);
        assert_eq!(
            restarts.next(now + Duration::from_secs(61)),
            Some(Duration::from_millis(10))
        );
    }
}
