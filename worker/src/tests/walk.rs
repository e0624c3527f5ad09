//! Many models, little memory: a walk at random.

use rand::{RngExt, SeedableRng, rngs::StdRng};

use super::{
    rig::{FAR, named, with_rig},
    *,
};

const MODELS: usize = 200;
const TENANTS: usize = 8;
const ROUNDS: usize = 400;
const WEIGHTS: u64 = 64 * 1024;
const SCRATCH: u64 = 16 * 1024;

/// From eight tenants, each on a walk of its own over 200 models, with room for 20: every request is answered with its own
/// rows, and what is in memory is never more than the budget and one execution's memory.
#[test]
fn every_request_of_a_walk_over_many_models_is_answered_within_the_budget() {
    let budget = 20 * WEIGHTS + SCRATCH;
    let config = WorkerConfig {
        cpu_memory: Some(budget),
        ..WorkerConfig::default()
    };
    with_rig(&config, |rig| async move {
        for number in 0..MODELS {
            let spec = named(&format!("m-{number}"), "identity", |config| {
                config.max_batch_size = 2;
                config
                    .parameters
                    .insert("weights_bytes".into(), ParameterValue::Uint(WEIGHTS));
                config
                    .parameters
                    .insert("scratch_bytes".into(), ParameterValue::Uint(SCRATCH));
            });
            rig.load(spec).await;
        }
        let in_memory = || -> u64 {
            let report = rig.worker.report();
            report.devices[0].models.iter().map(|model| model.memory_bytes).sum()
        };
        let alive = || rig.seen.lock().alive.values().sum::<usize>() as u64 * WEIGHTS;
        let walk = async |tenant: usize| {
            let mut random = StdRng::seed_from_u64(tenant as u64);
            let mut at = tenant * MODELS / TENANTS;
            for round in 0..ROUNDS {
                // Mostly the same model or the next one, now and then somewhere else.
                at = match random.random_range(0..10) {
                    0 => random.random_range(0..MODELS),
                    1..5 => (at + 1) % MODELS,
                    _ => at,
                };
                let value = (tenant * ROUNDS + round) as f32;
                let mut job = job(&format!("m-{at}"), &[value], FAR);
                job.tenant = TenantId::parse(&format!("t{tenant}")).unwrap();
                job.standing.share.weight = 1 + (tenant % 3) as u32;
                let outcome = rig.worker.submit(CPU, job).unwrap().await.unwrap();
                assert_eq!(outcome.outputs[0].data, value.to_le_bytes()[..]);
                rig.clock.advance(Duration::from_millis(1));
                assert!(in_memory() <= budget, "{} of {budget}", in_memory());
                assert!(alive() <= budget + SCRATCH, "{} of {budget}", alive());
            }
        };
        futures::future::join_all((0..TENANTS).map(walk)).await;
        let statistics = rig.worker.statistics();
        let models = &statistics.devices[0].models;
        let evictions: u64 = models.values().map(|model| model.evictions).sum();
        let rejected: u64 = models
            .values()
            .map(|model| model.rejected + model.expired + model.cancelled)
            .sum();
        assert!(evictions > 100, "{evictions}");
        assert_eq!(rejected, 0);
        rig
    });
}
