//! What a version has done, as the statistics extension writes it: a message, and the JSON of the same.

use mesh_types::{ComputeTimes, DeviceId, DeviceKind, ResponseTimes, Times, Version, VersionStatistics};

use super::messages::{
    InferBatchStatistics, InferResponseStatistics, InferStatistics, MemoryUsage, ModelStatistics, StatisticDuration,
};

/// A version's numbers and what the caller calls it.
#[derive(Debug, Clone, Copy)]
pub struct StatisticsOf<'a> {
    /// The name that the caller uses.
    pub name: &'a str,
    /// The version.
    pub version: Version,
    /// Its numbers.
    pub numbers: &'a VersionStatistics,
}

/// Writes them.
pub fn model_statistics(of: StatisticsOf<'_>) -> ModelStatistics {
    let numbers = of.numbers;
    let batch = |(rows, compute): (&u32, &ComputeTimes)| InferBatchStatistics {
        batch_size: u64::from(*rows),
        compute_input: duration(compute.input),
        compute_infer: duration(compute.infer),
        compute_output: duration(compute.output),
    };
    ModelStatistics {
        name: of.name.to_owned(),
        version: of.version.to_string(),
        last_inference: numbers.last_inference_ms,
        inference_count: numbers.inference_count,
        execution_count: numbers.execution_count,
        inference_stats: Some(InferStatistics {
            success: duration(numbers.success),
            fail: duration(numbers.fail),
            queue: duration(numbers.queue),
            compute_input: duration(numbers.compute.input),
            compute_infer: duration(numbers.compute.infer),
            compute_output: duration(numbers.compute.output),
            cache_hit: duration(numbers.cache_hit),
            cache_miss: duration(numbers.cache_miss),
        }),
        batch_stats: numbers.batches.iter().map(batch).collect(),
        memory_usage: numbers.memory.iter().map(memory).collect(),
        response_stats: (0_usize..)
            .map(|place| place.to_string())
            .zip(numbers.responses.iter().map(response))
            .collect(),
    }
}

/// What became of the answers at one place, in a map by that place; a model with one answer to a request has none.
fn response(times: &ResponseTimes) -> InferResponseStatistics {
    InferResponseStatistics {
        compute_infer: duration(times.compute_infer),
        compute_output: duration(times.compute_output),
        success: duration(times.success),
        fail: duration(times.fail),
        empty_response: duration(times.empty_response),
        cancel: duration(times.cancel),
    }
}

fn duration(times: Times) -> Option<StatisticDuration> {
    Some(StatisticDuration {
        count: times.count,
        ns: times.nanoseconds(),
    })
}

fn memory((device, bytes): &(DeviceId, u64)) -> MemoryUsage {
    MemoryUsage {
        r#type: match device.kind {
            DeviceKind::Cpu => "CPU",
            DeviceKind::Cuda => "GPU",
        }
        .to_owned(),
        id: i64::from(device.index),
        byte_size: *bytes,
    }
}
