//! Whose turn it is to change a model of the repository.
//!
//! Invariants: at most [`MAX_CHANGES`] changes are under way or wait, whatever they have come to, and a change that nobody waits for
//! any more counts until the last part of it is over; of a model one change goes on at a time, in the order they came; a model that
//! nobody changes takes no memory.

use std::{collections::HashMap, sync::Arc};

use mesh_actors::{Permit, Permits};
use mesh_types::{Fault, FaultSource};
use parking_lot::Mutex;

/// The most changes of models that are under way or wait.
pub(crate) const MAX_CHANGES: usize = 32;

/// A change that is under way; its place is given back when the last part of it is over.
pub(crate) type Held = Arc<Permit>;

/// The turns.
pub(crate) struct Turns {
    permits: Permits,
    /// A lock for each model that is being changed.
    models: Mutex<HashMap<String, Arc<tokio::sync::Mutex<()>>>>,
}

impl Default for Turns {
    fn default() -> Self {
        Self {
            permits: Permits::new(MAX_CHANGES),
            models: Mutex::default(),
        }
    }
}

impl Turns {
    /// A place for a change, if one is free.
    pub(crate) fn enter(&self) -> Result<Held, Fault> {
        self.permits.try_acquire().map(Arc::new).ok_or_else(|| {
            let text = format!("{MAX_CHANGES} models are being loaded or unloaded: try again");
            Fault::unavailable(FaultSource::Mesh, text)
        })
    }

    /// Carries out a change once those of the same model that came before are over.
    pub(crate) async fn take<T>(&self, model: &str, held: Held, change: impl Future<Output = T>) -> T {
        let turn = Some(self.models.lock().entry(model.to_owned()).or_default().clone());
        let left = Left { turns: self, turn };
        let _turn = match &left.turn {
            Some(turn) => Some(turn.lock().await),
            None => None,
        };
        let changed = change.await;
        drop(held);
        changed
    }
}

/// Forgets what nobody waits for, also where the change was given up.
struct Left<'a> {
    turns: &'a Turns,
    turn: Option<Arc<tokio::sync::Mutex<()>>>,
}

impl Drop for Left<'_> {
    fn drop(&mut self) {
        self.turn = None;
        // Nobody can have taken it up meanwhile: that is done under the same lock.
        self.turns.models.lock().retain(|_, turn| Arc::strong_count(turn) > 1);
    }
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt as _, future::pending};
    use tokio::sync::oneshot;

    use super::*;

    #[tokio::test]
    async fn as_many_changes_as_the_bound_go_on_or_wait_and_one_more_is_refused() {
        let turns = Arc::new(Turns::default());
        let mut ends = Vec::new();
        for number in 0..MAX_CHANGES {
            // Half of them wait for the other half.
            let (model, held) = ((number / 2).to_string(), turns.enter().unwrap());
            let (end, ended) = oneshot::channel::<()>();
            let turns = turns.clone();
            let mut change = Box::pin(async move {
                let part = held.clone();
                turns
                    .take(&model, held, async move {
                        // As reading does, a part of it ends before the whole.
                        drop(part);
                        let _ = ended.await;
                    })
                    .await;
            });
            assert!((&mut change).now_or_never().is_none());
            ends.push((end, change));
        }
        for _ in 0..2 {
            let refused = turns.enter().unwrap_err();
            assert_eq!(refused.class, mesh_types::FaultClass::Unavailable);
            assert_eq!(refused.message, "32 models are being loaded or unloaded: try again");
        }
        let (end, change) = ends.swap_remove(0);
        end.send(()).unwrap();
        change.await;
        let place = turns.enter().unwrap();
        assert!(turns.enter().is_err());
        drop(place);
        let (ends, changes): (Vec<_>, Vec<_>) = ends.into_iter().unzip();
        ends.into_iter().for_each(|end| end.send(()).unwrap());
        futures::future::join_all(changes).await;
        assert!(turns.models.lock().is_empty());
    }

    #[tokio::test]
    async fn what_is_given_up_counts_until_its_last_part_is_over() {
        let turns = Turns::default();
        let held = turns.enter().unwrap();
        let part = held.clone();
        let mut given_up = Box::pin(turns.take("m", held, pending::<()>()));
        assert!((&mut given_up).now_or_never().is_none());
        assert_eq!(turns.models.lock().len(), 1);
        drop(given_up);
        assert!(turns.models.lock().is_empty());
        let others: Vec<Held> = (1..MAX_CHANGES).map(|_| turns.enter().unwrap()).collect();
        assert!(turns.enter().is_err());
        drop(part);
        assert!(turns.enter().is_ok());
        drop(others);
    }

    #[tokio::test]
    async fn changes_of_a_model_go_one_after_another_and_of_others_beside_them() {
        let turns = Turns::default();
        let (end, ended) = oneshot::channel::<()>();
        let mut first = Box::pin(turns.take("m", turns.enter().unwrap(), ended));
        assert!((&mut first).now_or_never().is_none());
        let mut second = Box::pin(turns.take("m", turns.enter().unwrap(), async {}));
        assert!((&mut second).now_or_never().is_none());
        let other = turns.take("n", turns.enter().unwrap(), async {});
        assert!(other.now_or_never().is_some());
        end.send(()).unwrap();
        first.await.unwrap();
        second.await;
        assert!(turns.models.lock().is_empty());
    }
}
