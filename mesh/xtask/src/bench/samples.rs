//! What the mesh and its process say of themselves between two moments: batches, memory, processor time.

use std::fs;

use anyhow::Context;

use crate::{bench::models::Model, node::Node};

/// Batches of one model on all devices.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub(crate) struct Batches {
    count: f64,
    rows: f64,
    busy_seconds: f64,
}

impl Batches {
    /// So far, from the mesh's own metrics.
    pub(crate) fn of(node: &Node, model: &Model) -> anyhow::Result<Self> {
        Ok(read(&node.metrics()?, model.name))
    }

    /// What came after.
    pub(crate) fn since(self, before: Self) -> Self {
        Self {
            count: self.count - before.count,
            rows: self.rows - before.rows,
            busy_seconds: self.busy_seconds - before.busy_seconds,
        }
    }

    /// How long one took in the mean; not a number where there were none.
    pub(crate) fn mean_ms(self) -> f64 {
        self.busy_seconds * 1e3 / self.count
    }

    /// Rows of one in the mean; not a number where there were none.
    pub(crate) fn mean_rows(self) -> f64 {
        self.rows / self.count
    }
}

fn read(metrics: &str, model: &str) -> Batches {
    let label = format!("/{model}/");
    let sum = |name: &str| {
        let of = |line: &str| {
            let (labels, value) = line.strip_prefix(name)?.strip_prefix('{')?.rsplit_once("} ")?;
            labels.contains(&label).then(|| value.parse::<f64>().ok())?
        };
        metrics.lines().filter_map(of).sum()
    };
    Batches {
        count: sum("mesh_batches_total"),
        rows: sum("mesh_batch_rows_total"),
        busy_seconds: sum("mesh_device_busy_seconds_total"),
    }
}

/// Resident memory of a process, in MiB.
pub(crate) fn resident_mib(pid: u32) -> anyhow::Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).context("there is no /proc to read memory from")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kib = line.and_then(|line| line.trim().strip_suffix("kB")?.trim().parse::<f64>().ok());
    Ok(kib.context("/proc names no VmRSS")? / 1024.0)
}

/// Processor time of a process so far, all its threads, in nanoseconds: of those that are still there.
pub(crate) fn processor_ns(pid: u32) -> anyhow::Result<f64> {
    let mut sum = 0.0;
    for thread in fs::read_dir(format!("/proc/{pid}/task")).context("there is no /proc to read threads from")? {
        let text = fs::read_to_string(thread?.path().join("schedstat")).unwrap_or_default();
        sum += text
            .split(' ')
            .next()
            .and_then(|time| time.parse::<f64>().ok())
            .unwrap_or(0.0);
    }
    Ok(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batches_are_summed_over_devices_and_versions_of_one_model() {
        let text = "mesh_batches_total{device=\"cpu-0\",model=\"bench/m/1\"} 2\n\
            mesh_batches_total{device=\"cpu-1\",model=\"bench/m/1\"} 3\n\
            mesh_batches_total{device=\"cpu-0\",model=\"bench/other/1\"} 70\n\
            mesh_batch_rows_total{device=\"cpu-0\",model=\"bench/m/1\"} 20\n\
            mesh_device_busy_seconds_total{device=\"cpu-0\",model=\"bench/m/1\"} 0.5\n";
        let batches = read(text, "m");
        assert_eq!(batches.count, 5.0);
        assert!((batches.mean_ms() - 100.0).abs() < 1e-9 && (batches.mean_rows() - 4.0).abs() < 1e-9);
        assert_eq!(batches.since(batches), Batches::default());
    }

    #[test]
    fn a_process_has_memory_and_has_used_its_processor() {
        let own = std::process::id();
        assert!(resident_mib(own).unwrap() > 0.1);
        assert!(processor_ns(own).unwrap() > 0.0);
    }
}
