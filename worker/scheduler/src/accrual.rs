//! What batches cost whose end nobody can foresee, while they run.
//!
//! A batch's tenants are set forward by what it is expected to cost when it begins, and what it did cost is settled when it is done.
//! For a decoupled model's, which may give answers for minutes, the first says nothing and the second comes too late: in between
//! its tenant would go on on other slots as if it had used nothing.
//!
//! Invariant: settling takes back all that was accrued, so a tenant's clock is its device time as for any batch.

use std::{hash::Hash, time::Instant};

use crate::{Scheduler, forming::nanoseconds, tenants::weighted};

impl<K: Clone + Eq + Hash, T> Scheduler<K, T> {
    /// Sets the clocks of open-ended batches' tenants forward by what these have used so far. To be asked before
    /// [`Scheduler::poll`].
    pub fn accrue(&mut self, now: Instant) {
        let Self {
            running,
            tenants,
            waiting,
            ..
        } = self;
        for (run, used) in running.open_ended(now) {
            let rows = u128::from(run.rows.max(1));
            for part in &mut run.parts {
                let mine = u128::from(nanoseconds(used)) * u128::from(part.rows) / rows;
                let weight = tenants.get(part.tenant).map_or(1, |tenant| tenant.weight);
                let cost = weighted(u64::try_from(mine).unwrap_or(u64::MAX), weight);
                let more = cost.saturating_sub(part.expected);
                if more > 0 {
                    part.expected = cost;
                    waiting.reclock(tenants, part.tenant, part.class, |tenants| {
                        tenants.expect(part.tenant, part.class, more);
                    });
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use mesh_types::{DynamicBatching, ModelConfig, ModelTransactionPolicy, Standing, TenantId, TenantShare};

    use crate::{Batch, BatchRules, Item, Outcome, Scheduler, ShapeKey};

    type Desk = Scheduler<&'static str, u32>;

    fn rules(decoupled: bool) -> BatchRules {
        let config = ModelConfig {
            max_batch_size: 8,
            dynamic_batching: Some(DynamicBatching::default()),
            model_transaction_policy: Some(ModelTransactionPolicy { decoupled }),
            ..ModelConfig::default()
        };
        BatchRules::of(&config, 100)
    }

    /// Two slots, a decoupled model `d` and a plain one `p`.
    fn desk() -> Desk {
        let mut desk = Scheduler::new(2);
        desk.add_model("d", rules(true));
        desk.add_model("p", rules(false));
        desk
    }

    fn offer(desk: &mut Desk, now: Instant, (tenant, model): (&str, &'static str), payload: u32) {
        let item = Item {
            payload,
            tenant: TenantId::parse(tenant).unwrap(),
            standing: Standing::default(),
            rows: 1,
            shape: ShapeKey::of([[1, 1].as_slice()].into_iter()),
            arrived: now,
            deadline: now + Duration::from_secs(600),
        };
        assert!(desk.offer(now, &model, item).is_ok());
    }

    fn poll(desk: &mut Desk, now: Instant, slot: usize) -> Option<Batch<&'static str, u32>> {
        desk.accrue(now);
        desk.poll(now, slot, |_| true, |_| false).batch
    }

    fn payloads(batch: Option<Batch<&'static str, u32>>) -> Vec<u32> {
        let items = batch.into_iter().flat_map(|batch| batch.items);
        items.map(|item| item.payload).collect()
    }

    #[test]
    fn what_a_generation_uses_counts_while_it_runs_and_is_settled_to_the_nanosecond() {
        let (mut desk, start) = (desk(), Instant::now());
        offer(&mut desk, start, ("a", "d"), 1);
        let generation = poll(&mut desk, start, 0).unwrap();
        // Both have waited for as long; a's generation has gone on for a second.
        let later = start + Duration::from_secs(1);
        offer(&mut desk, later, ("a", "p"), 2);
        offer(&mut desk, later, ("b", "p"), 3);
        desk.accrue(later);
        desk.accrue(later);
        let a = desk
            .tenants
            .meet(&TenantId::parse("a").unwrap(), TenantShare::default());
        let accrued = desk.tenants.clock(a, 0);
        assert_eq!(
            accrued,
            super::weighted(1_000_000_000, 1),
            "once, however often it is asked"
        );
        let charges = desk.finished(
            later,
            generation.id,
            Outcome {
                busy: Duration::from_secs(1),
                ..Outcome::default()
            },
        );
        assert_eq!(charges[0].device_time, Duration::from_secs(1));
        assert_eq!(desk.tenants.charged("a", 0), Some(super::weighted(1_000_000_000, 1)));
        let first = poll(&mut desk, later, 0).unwrap();
        assert_eq!(first.items[0].payload, 3, "who has used nothing goes first");
    }

    #[test]
    fn nothing_is_handed_over_behind_a_generation() {
        let (mut desk, start) = (desk(), Instant::now());
        offer(&mut desk, start, ("a", "d"), 1);
        let generation = poll(&mut desk, start, 0).unwrap();
        offer(&mut desk, start, ("b", "p"), 2);
        let later = start + Duration::from_secs(9);
        assert_eq!(payloads(poll(&mut desk, later, 0)), [0; 0]);
        assert_eq!(payloads(poll(&mut desk, later, 1)), [2], "another slot takes it");
        desk.finished(later, generation.id, Outcome::default());
        offer(&mut desk, later, ("b", "p"), 3);
        assert_eq!(payloads(poll(&mut desk, later, 0)), [3]);
    }

    #[test]
    fn generations_of_two_tenants_share_no_batch_and_those_of_one_do() {
        let (mut desk, start) = (desk(), Instant::now());
        for (payload, tenant) in ["a", "b", "a"].into_iter().enumerate() {
            offer(&mut desk, start, (tenant, "d"), u32::try_from(payload).unwrap());
        }
        let mut batches = [payloads(poll(&mut desk, start, 0)), payloads(poll(&mut desk, start, 1))];
        batches.sort();
        assert_eq!(batches, [vec![0, 2], vec![1]]);
    }
}
