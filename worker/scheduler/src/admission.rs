//! Admission: whether a request that arrives now will be finished by its deadline.
//!
//! Predicts from what is known when it comes: how long the device is busy, the tenant's own backlog at its share of the device
//! (or everybody's, where that is less: the device never idles), and the batch that the request itself will be in. A request
//! that cannot make it is refused at once, with the time after which another try is worth it, instead of wasting the device
//! and the caller's time. While nothing is known of a model's latency, everything is admitted.

use std::{
    hash::Hash,
    time::{Duration, Instant},
};

use crate::{
    item::{Item, RefusedFor},
    models::{Model, Sizing},
    scheduler::Scheduler,
    tenants::{BATCH, TenantIx},
    waiting::ModelIx,
};

/// What interactive requests have of the device while the batch class waits as well.
const INTERACTIVE_PART: f64 = 0.9;
/// While a request waits behind everything that is there now, others come that go before it: so much more than what is there.
const OTHERS_COME: f64 = 1.25;
/// How many in a hundred of those admitted may be dropped later, before admission becomes more careful.
const DROPS_PER_HUNDRED: f64 = 2.0;
/// What one drop adds to the caution, and the most that there is of it.
const STEP: f64 = 0.02;
const MOST_CAUTION: f64 = 3.0;
/// No refusal says to come back sooner.
const MIN_RETRY: Duration = Duration::from_millis(1);

/// How much longer than predicted a wait is taken for: what is admitted and then dropped shows that predictions are too hopeful,
/// on a machine that others use as well. Each drop adds to it, and each request that runs takes a little of it away, so that
/// about two in a hundred are dropped.
#[derive(Debug)]
pub(crate) struct Caution(f64);

impl Default for Caution {
    fn default() -> Self {
        Self(1.0)
    }
}

impl Caution {
    /// An admitted request has been dropped.
    pub(crate) fn late(&mut self) {
        self.0 = (self.0 + STEP).min(MOST_CAUTION);
    }

    /// So many run.
    pub(crate) fn in_time(&mut self, requests: usize) {
        self.0 = (self.0 - STEP * DROPS_PER_HUNDRED / 100.0 * requests as f64).max(1.0);
    }
}

/// A request and what is known of it on arrival.
pub(crate) struct Candidate<'a, T> {
    pub(crate) item: &'a Item<T>,
    pub(crate) model: ModelIx,
    /// Rows that wait for the same batches.
    pub(crate) beside: u64,
    pub(crate) sizing: Sizing<'a>,
    pub(crate) tenant: TenantIx,
    pub(crate) class: usize,
    /// The only slot that may take it.
    pub(crate) place: Option<usize>,
}

impl<K: Clone + Eq + Hash, T> Scheduler<K, T> {
    /// Whether the request may wait, and whether a prediction says so.
    pub(crate) fn admit(&self, now: Instant, candidate: &Candidate<'_, T>) -> Result<bool, RefusedFor> {
        let Some(predicted) = self.predict(now, candidate) else {
            return Ok(false);
        };
        let left = candidate.item.deadline.saturating_duration_since(now);
        if predicted <= left {
            return Ok(true);
        }
        let retry_after = (predicted - left).max(MIN_RETRY);
        Err(RefusedFor::TooLate { retry_after })
    }

    /// How long until the request would be finished; none while nothing is known of its model.
    fn predict(&self, now: Instant, candidate: &Candidate<'_, T>) -> Option<Duration> {
        let Candidate {
            item,
            model: index,
            beside,
            sizing,
            tenant,
            class,
            place,
        } = candidate;
        let model = self.models.get(*index)?;
        if self.running.is_idle() && model.waiting == 0 && !model.is_fresh(now) {
            return None;
        }
        let latency = sizing.latency?;
        let rows = if model.rules.shared {
            let together = u32::try_from(*beside).unwrap_or(u32::MAX).saturating_add(item.rows);
            together.min(sizing.full).max(item.rows)
        } else {
            item.rows
        };
        let rows = rows.max(place.map_or(0, |place| self.sequences.width(*index, place)));
        let running = self.running.first_free(now, |slot| {
            place.map_or_else(|| model.may_run_on(slot), |place| place == slot)
        });
        let running = running.saturating_duration_since(now);
        Some(
            running
                .saturating_add(self.queueing(*tenant, *class, model))
                .saturating_add(latency.tail(rows)?),
        )
    }

    /// How long what waits before the tenant's next request keeps the slots that have its model.
    fn queueing(&self, tenant: TenantIx, class: usize, model: &Model<K>) -> Duration {
        let (own, all) = self.tenants.backlogs(tenant, class);
        let part = match class {
            BATCH => self.floor.part(),
            _ if self.tenants.anyone_waits(BATCH) => INTERACTIVE_PART,
            _ => 1.0,
        };
        let slots = self.running.slots();
        let own_slots = (0..slots).filter(|slot| model.may_run_on(*slot)).count().max(1) as f64;
        let at_its_share = own as f64 / self.tenants.share(tenant, class) / own_slots;
        // What waits for other models may run elsewhere.
        let here = model.backlog.min(all);
        let all = here as f64 / own_slots + (all - here) as f64 / slots as f64;
        let nanoseconds = at_its_share.min(all * OTHERS_COME) * model.caution.0 / part;
        Duration::try_from_secs_f64(nanoseconds / 1e9).unwrap_or(Duration::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_in_a_hundred_dropped_keep_the_caution_where_it_is() {
        let mut caution = Caution::default();
        for _ in 0..20 {
            caution.late();
        }
        let before = caution.0;
        for _ in 0..50 {
            caution.late();
            caution.in_time(50);
        }
        assert!((caution.0 - before).abs() < STEP * 2.0, "{} after {before}", caution.0);
        caution.in_time(1_000_000);
        assert!((caution.0 - 1.0).abs() < f64::EPSILON);
        for _ in 0..10_000 {
            caution.late();
        }
        assert!((caution.0 - MOST_CAUTION).abs() < f64::EPSILON);
    }
}
