//! What devices, the response cache and the machine say, for the metrics that have Triton's names.

use std::sync::Arc;

use mesh_router::ResponseCache;
use mesh_telemetry::{HostReading, TritonSource, VersionReading};
use mesh_worker::{ModelStatistics, WorkerHandle};
use parking_lot::Mutex;

use crate::{memory, statistics};

/// Reads the devices, the cache and the machine for telemetry.
pub(crate) struct TritonReadings {
    worker: WorkerHandle,
    cache: Arc<ResponseCache>,
    /// The processors' time when it was last asked.
    before: Mutex<Option<Ticks>>,
}

/// The processors' time since the machine started, in its own unit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Ticks {
    busy: u64,
    all: u64,
}

impl TritonReadings {
    pub(crate) fn new(worker: WorkerHandle, cache: Arc<ResponseCache>) -> Self {
        Self {
            before: Mutex::new(ticks()),
            worker,
            cache,
        }
    }
}

impl TritonSource for TritonReadings {
    fn versions(&self) -> Vec<VersionReading> {
        let known = self.worker.statistics();
        let reading = |(model, numbers): (_, ModelStatistics)| {
            let mut told = statistics::from(&numbers);
            self.cache.add_to(&model, &mut told);
            let has = known.devices.iter().filter(|device| device.models.contains_key(&model));
            VersionReading {
                devices: has.map(|device| device.device).collect(),
                cancelled: numbers.cancelled,
                rejected: numbers.rejected.saturating_add(numbers.expired),
                numbers: told,
                model,
            }
        };
        known.models().into_iter().map(reading).collect()
    }

    fn host(&self) -> HostReading {
        let now = ticks();
        let before = std::mem::replace(&mut *self.before.lock(), now);
        HostReading {
            utilization: before.zip(now).and_then(|(before, now)| share(before, now)),
            memory: memory::in_use(),
        }
    }
}

fn ticks() -> Option<Ticks> {
    parse(&std::fs::read_to_string("/proc/stat").ok()?)
}

/// The first line of `/proc/stat`: user, nice, system, idle, iowait, irq, softirq, steal; what guests use is in user.
fn parse(stat: &str) -> Option<Ticks> {
    let numbers = stat.lines().next()?.strip_prefix("cpu ")?.split_whitespace().take(8);
    let numbers: Vec<u64> = numbers.map(str::parse).collect::<Result<_, _>>().ok()?;
    let idle = numbers.get(3)?.checked_add(*numbers.get(4)?)?;
    let all = numbers.iter().try_fold(0_u64, |sum, number| sum.checked_add(*number))?;
    Some(Ticks {
        busy: all.checked_sub(idle)?,
        all,
    })
}

#[expect(clippy::cast_precision_loss, reason = "ticks between two looks are far below 2^52")]
fn share(before: Ticks, now: Ticks) -> Option<f64> {
    let all = now.all.checked_sub(before.all).filter(|all| *all > 0)?;
    let busy = now.busy.saturating_sub(before.busy);
    Some((busy as f64 / all as f64).min(1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_processors_time_is_read_and_compared() {
        let before = parse("cpu  100 0 50 800 50 0 0 0 9 9\ncpu0 1 2 3 4\n").unwrap();
        assert_eq!(before, Ticks { busy: 150, all: 1_000 });
        let now = Ticks { busy: 200, all: 1_200 };
        assert_eq!(share(before, now), Some(0.25));
        assert_eq!(share(now, now), None);
        for bad in ["", "cpu", "cpu  1 2 3", "cpu  1 2 3 x 5", "intr 1 2 3 4 5"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
