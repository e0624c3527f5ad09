//! Requests through the scheduler and nothing else, for counting what they cost: `cost REQUESTS KNOWN ACTIVE`.
//!
//! One device runs one model in simulated time and always has two batches waiting and two under way. Of `KNOWN` tenants, all
//! of whom have called before, `ACTIVE` share the load by turns. The three calls of a device's turn are functions of their own
//! and are never inlined, so that a profiler tells them apart: run it under `valgrind --tool=callgrind` twice, with different
//! numbers of requests, and what does not grow with them falls out of the difference. `cargo xtask bench` does so.
#![expect(clippy::print_stdout, clippy::print_stderr, reason = "a program's answer")]

use std::{
    collections::VecDeque,
    process::ExitCode,
    time::{Duration, Instant},
};

use mesh_scheduler::{BatchId, BatchRules, Charge, Decision, Item, Outcome, RefusedFor, Scheduler, ShapeKey};
use mesh_types::{DynamicBatching, ModelConfig, Standing, TenantId};

const MODEL: &str = "model";
const MOST_ROWS: u32 = 16;
/// Requests that wait: two batches.
const WAITING: usize = 32;
/// Requests that come between two turns of the device.
const PER_TURN: usize = 4;
/// Batches under way.
const UNDER_WAY: usize = 2;
const PATIENCE: Duration = Duration::from_secs(5);

fn takes(rows: u32) -> Duration {
    Duration::from_millis(1) + Duration::from_micros(250) * rows
}

/// The device, its scheduler and its clock.
struct Device {
    scheduler: Scheduler<&'static str, u64>,
    now: Instant,
    under_way: VecDeque<(BatchId, u32)>,
    shape: ShapeKey,
    served: usize,
}

#[inline(never)]
fn offer(device: &mut Device, item: Item<u64>) -> Result<(), RefusedFor> {
    let taken = device.scheduler.offer(device.now, &MODEL, item);
    taken.map_err(|refused| refused.reason)
}

#[inline(never)]
fn poll(device: &mut Device) -> Decision<&'static str, u64> {
    device.scheduler.poll(device.now, 0, |_| true, |_| false)
}

#[inline(never)]
fn finished(device: &mut Device, id: BatchId, outcome: Outcome) -> Vec<Charge> {
    device.scheduler.finished(device.now, id, outcome)
}

impl Device {
    fn new() -> Self {
        let config = ModelConfig {
            max_batch_size: MOST_ROWS,
            dynamic_batching: Some(DynamicBatching::default()),
            ..ModelConfig::default()
        };
        let mut scheduler = Scheduler::new(1);
        scheduler.add_model(MODEL, BatchRules::of(&config, 4_096));
        let shape = ShapeKey::of([[1, 64, 256].as_slice()].into_iter());
        let sweep = [1, 2, 4, 8, 16].map(|rows| (rows, takes(rows)));
        scheduler.seed(&MODEL, &shape, &sweep);
        Self {
            scheduler,
            now: Instant::now(),
            under_way: VecDeque::new(),
            shape,
            served: 0,
        }
    }

    /// Asks for one row, and lets the device have its turn now and then.
    fn ask(&mut self, request: usize, tenant: &TenantId) -> Result<(), String> {
        let item = Item {
            payload: u64::try_from(request).unwrap_or(u64::MAX),
            tenant: tenant.clone(),
            standing: Standing::default(),
            rows: 1,
            shape: self.shape.clone(),
            arrived: self.now,
            deadline: self.now + PATIENCE,
        };
        offer(self, item).map_err(|reason| format!("request {request} was refused: {reason:?}"))?;
        if request.is_multiple_of(PER_TURN) {
            self.turn();
        }
        while self.scheduler.waiting(&MODEL) >= WAITING {
            self.settle();
            self.turn();
        }
        Ok(())
    }

    /// Hands out a batch if there is room for one; whether it did.
    fn turn(&mut self) -> bool {
        if self.under_way.len() >= UNDER_WAY {
            return false;
        }
        let decision = poll(self);
        match decision.batch {
            Some(batch) => {
                self.served += batch.items.len();
                self.under_way.push_back((batch.id, batch.rows));
                true
            }
            None => {
                // Time passes, or nothing would ever change.
                let next = decision.wake_at.unwrap_or(self.now + Duration::from_millis(1));
                self.now = self.now.max(next);
                false
            }
        }
    }

    /// The first batch is done.
    fn settle(&mut self) {
        let Some((id, rows)) = self.under_way.pop_front() else {
            return;
        };
        let busy = takes(rows);
        self.now += busy;
        let outcome = Outcome {
            busy,
            telling: true,
            too_large: None,
        };
        finished(self, id, outcome);
    }

    /// Serves what is left.
    fn drain(&mut self) {
        while self.scheduler.waiting(&MODEL) > 0 || !self.under_way.is_empty() {
            self.settle();
            self.turn();
        }
    }
}

fn measure(requests: usize, known: usize, active: usize) -> Result<usize, String> {
    let mut tenants = Vec::new();
    for index in 0..known {
        let tenant: TenantId = format!("tenant-{index}").parse().map_err(|_| "a tenant has no name")?;
        tenants.push(tenant);
    }
    let mut device = Device::new();
    // All have called before. The active ones are spread over them.
    for (request, tenant) in tenants.iter().enumerate() {
        device.ask(request, tenant)?;
    }
    device.drain();
    let step = known / active;
    let active: Vec<&TenantId> = tenants.iter().step_by(step).take(active).collect();
    for (request, tenant) in active.iter().cycle().take(requests).enumerate() {
        device.ask(request, tenant)?;
    }
    device.drain();
    Ok(device.served - known)
}

fn main() -> ExitCode {
    let numbers: Vec<usize> = std::env::args().skip(1).filter_map(|text| text.parse().ok()).collect();
    let [requests, known, active] = numbers.as_slice() else {
        eprintln!("cost REQUESTS KNOWN ACTIVE");
        return ExitCode::FAILURE;
    };
    if *active == 0 || active > known {
        eprintln!("1 to KNOWN tenants are active");
        return ExitCode::FAILURE;
    }
    match measure(*requests, *known, *active) {
        Ok(served) => {
            println!("served {served}");
            ExitCode::SUCCESS
        }
        Err(reason) => {
            eprintln!("{reason}");
            ExitCode::FAILURE
        }
    }
}
