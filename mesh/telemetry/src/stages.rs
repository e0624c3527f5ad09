//! The stages of a request, and how long requests spend in each: a histogram per stage, one atomic per bucket.
//!
//! Every answered request is counted in all of them, on the thread of its door, so that counting must cost nanoseconds: the
//! library's histograms take a lock and a search for each.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use mesh_types::StageTimings;

/// Upper edges of the buckets in nanoseconds, from 10 microseconds to 5 seconds.
const EDGES: [u64; 16] = [
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    25_000_000,
    50_000_000,
    100_000_000,
    250_000_000,
    1_000_000_000,
    5_000_000_000,
];

/// The stages of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[expect(missing_docs, reason = "each is documented at mesh_types::StageTimings")]
pub enum Stage {
    Decode,
    Authenticate,
    Admit,
    Choose,
    Queue,
    ComputeInput,
    ComputeInfer,
    ComputeOutput,
    Encode,
}

impl Stage {
    /// Every stage, in the order a request goes through them.
    pub const ALL: [Self; 9] = [
        Self::Decode,
        Self::Authenticate,
        Self::Admit,
        Self::Choose,
        Self::Queue,
        Self::ComputeInput,
        Self::ComputeInfer,
        Self::ComputeOutput,
        Self::Encode,
    ];

    /// The name in metrics and spans.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Decode => "decode",
            Self::Authenticate => "authenticate",
            Self::Admit => "admit",
            Self::Choose => "choose",
            Self::Queue => "queue",
            Self::ComputeInput => "compute_input",
            Self::ComputeInfer => "compute_infer",
            Self::ComputeOutput => "compute_output",
            Self::Encode => "encode",
        }
    }

    /// This stage's share of a request's time.
    pub const fn of(self, timings: &StageTimings) -> Duration {
        match self {
            Self::Decode => timings.decode,
            Self::Authenticate => timings.authenticate,
            Self::Admit => timings.admit,
            Self::Choose => timings.choose,
            Self::Queue => timings.queue,
            Self::ComputeInput => timings.compute_input,
            Self::ComputeInfer => timings.compute_infer,
            Self::ComputeOutput => timings.compute_output,
            Self::Encode => timings.encode,
        }
    }
}

/// One stage's histogram.
#[derive(Debug, Default)]
struct Histogram {
    /// The last is of what is longer than every edge.
    buckets: [AtomicU64; EDGES.len() + 1],
    sum_ns: AtomicU64,
}

/// The histograms of all stages.
#[derive(Debug, Default)]
pub(crate) struct StageHistograms {
    stages: [Histogram; Stage::ALL.len()],
}

impl StageHistograms {
    /// Counts a request in every stage.
    pub(crate) fn record(&self, timings: &StageTimings) {
        for (stage, histogram) in Stage::ALL.iter().zip(&self.stages) {
            let nanoseconds = u64::try_from(stage.of(timings).as_nanos()).unwrap_or(u64::MAX);
            let bucket = EDGES.partition_point(|edge| *edge < nanoseconds);
            if let Some(count) = histogram.buckets.get(bucket) {
                count.fetch_add(1, Ordering::Relaxed);
            }
            histogram.sum_ns.fetch_add(nanoseconds, Ordering::Relaxed);
        }
    }

    /// In the OpenMetrics text format, without its end mark.
    pub(crate) fn encode(&self, text: &mut String) -> std::fmt::Result {
        writeln!(
            text,
            "# HELP mesh_stage_seconds Time of a request in each stage.\n# TYPE mesh_stage_seconds histogram\n# UNIT mesh_stage_seconds seconds"
        )?;
        for (stage, histogram) in Stage::ALL.iter().zip(&self.stages) {
            let (stage, mut count) = (stage.as_str(), 0);
            for (index, bucket) in histogram.buckets.iter().enumerate() {
                count += bucket.load(Ordering::Relaxed);
                match EDGES.get(index) {
                    Some(edge) => {
                        let edge = Duration::from_nanos(*edge).as_secs_f64();
                        writeln!(
                            text,
                            "mesh_stage_seconds_bucket{{stage=\"{stage}\",le=\"{edge}\"}} {count}"
                        )?;
                    }
                    None => writeln!(
                        text,
                        "mesh_stage_seconds_bucket{{stage=\"{stage}\",le=\"+Inf\"}} {count}"
                    )?,
                }
            }
            let sum = Duration::from_nanos(histogram.sum_ns.load(Ordering::Relaxed)).as_secs_f64();
            writeln!(text, "mesh_stage_seconds_sum{{stage=\"{stage}\"}} {sum}")?;
            writeln!(text, "mesh_stage_seconds_count{{stage=\"{stage}\"}} {count}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_counts_at_its_edge_and_in_every_bucket_above() {
        let histograms = StageHistograms::default();
        for nanoseconds in [10_000, 10_001, 6_000_000_000] {
            histograms.record(&StageTimings {
                queue: Duration::from_nanos(nanoseconds),
                ..StageTimings::default()
            });
        }
        let mut text = String::new();
        histograms.encode(&mut text).unwrap();
        for line in [
            "mesh_stage_seconds_bucket{stage=\"queue\",le=\"0.00001\"} 1",
            "mesh_stage_seconds_bucket{stage=\"queue\",le=\"0.000025\"} 2",
            "mesh_stage_seconds_bucket{stage=\"queue\",le=\"5\"} 2",
            "mesh_stage_seconds_bucket{stage=\"queue\",le=\"+Inf\"} 3",
            "mesh_stage_seconds_count{stage=\"queue\"} 3",
            "mesh_stage_seconds_count{stage=\"decode\"} 3",
        ] {
            assert!(text.lines().any(|found| found == line), "{line} in\n{text}");
        }
        assert!(EDGES.is_sorted());
    }
}
