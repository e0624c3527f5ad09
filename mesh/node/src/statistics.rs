//! What devices did with a model version, as the router's callers are told.

use mesh_types::{ComputeTimes, ModelVersionKey, ResponseTimes, Times, VersionStatistics};
use mesh_worker::{BatchSizeStatistics, ModelStatistics, ResponseSums, Sum, WorkerHandle};

/// One version's numbers, over all devices.
pub(crate) fn of(worker: &WorkerHandle, key: &ModelVersionKey) -> VersionStatistics {
    VersionStatistics {
        memory: worker.memory_of(key),
        ..from(&worker.statistics_of(key))
    }
}

/// The same without the memory, which the devices report.
pub(crate) fn from(numbers: &ModelStatistics) -> VersionStatistics {
    let batch = |(rows, compute): (&u32, &BatchSizeStatistics)| {
        let compute = ComputeTimes {
            input: times(compute.compute_input),
            infer: times(compute.compute_infer),
            output: times(compute.compute_output),
        };
        (*rows, compute)
    };
    VersionStatistics {
        last_inference_ms: numbers.last_inference_ms,
        inference_count: numbers.inference_count,
        execution_count: numbers.execution_count,
        success: times(numbers.success),
        fail: times(numbers.fail),
        queue: times(numbers.queue),
        compute: ComputeTimes {
            input: times(numbers.compute_input),
            infer: times(numbers.compute_infer),
            output: times(numbers.compute_output),
        },
        // The router's, who asks its cache before any device.
        cache_hit: Times::default(),
        cache_miss: Times::default(),
        batches: numbers.batch_sizes.iter().map(batch).collect(),
        memory: Vec::new(),
        responses: numbers.responses.iter().map(response).collect(),
    }
}

fn response(sums: &ResponseSums) -> ResponseTimes {
    ResponseTimes {
        compute_infer: times(sums.compute_infer),
        compute_output: times(sums.compute_output),
        success: times(sums.success),
        fail: times(sums.fail),
        empty_response: times(sums.empty_response),
        cancel: times(sums.cancel),
    }
}

fn times(sum: Sum) -> Times {
    Times {
        count: sum.count,
        total: sum.total,
    }
}
