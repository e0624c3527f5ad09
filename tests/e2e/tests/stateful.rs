//! A stateful model with real weights: Silero's voice activity detector, from its package, equals PyTorch step by step.
//!
//! `cargo xtask packages` wraps the package's TorchScript so that it takes its state and gives the next one, and writes down
//! what the package's own module answers in PyTorch to some audio, sequence by sequence.

use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use mesh_harness::{Caller, Mesh, MeshOptions};
use mesh_node::{ServeOptions, Text};
use serde_json::{Value, json};

/// Samples of a step.
const CHUNK: usize = 512;

fn made(name: &str) -> PathBuf {
    let made = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.packages/silero");
    made.join(name)
}

fn floats(name: &str) -> anyhow::Result<Vec<f32>> {
    let path = made(name);
    let bytes = std::fs::read(&path).context("run `cargo xtask packages` first")?;
    Ok(bytes
        .as_chunks::<4>()
        .0
        .iter()
        .map(|bytes| f32::from_le_bytes(*bytes))
        .collect())
}

fn config() -> Value {
    let tensor = |name: &str, dims: &[i64]| json!({"name": name, "data_type": "TYPE_FP32", "dims": dims});
    let state = |input: &str, output: &str, dims: &[i64]| json!({"input_name": input, "output_name": output, "data_type": "TYPE_FP32", "dims": dims});
    json!({
        "max_batch_size": 8,
        "input": [tensor("audio", &[512])],
        "output": [tensor("speech", &[1])],
        "instance_group": [{"count": 2}],
        "sequence_batching": {
            "oldest": {"max_candidate_sequences": 16, "max_queue_delay_microseconds": 2000},
            "max_sequence_idle_microseconds": 60_000_000,
            "state": [state("context", "next_context", &[64]), state("hidden", "next_hidden", &[2, 128])],
        },
    })
}

async fn speech(caller: &Caller, id: &Value, (start, end): (bool, bool), audio: &[f32]) -> anyhow::Result<f32> {
    let body = json!({
        "parameters": {"sequence_id": id, "sequence_start": start, "sequence_end": end},
        "inputs": [{"name": "audio", "datatype": "FP32", "shape": [1, CHUNK], "data": audio}],
    });
    let answer = caller.infer("vad", &body).await?.ok()?;
    let numbers = answer.numbers(0)?;
    #[expect(clippy::cast_possible_truncation, reason = "they were 32 bits wide before JSON")]
    let speech = numbers.first().map(|number| *number as f32);
    speech.context("no answer")
}

#[tokio::test]
async fn a_real_stateful_model_equals_pytorch_step_by_step() -> anyhow::Result<()> {
    let (audio, expected) = (floats("audio.f32")?, floats("speech.f32")?);
    let sequences = usize::try_from(std::fs::read_to_string(made("sequences"))?.trim().parse::<u32>()?)?;
    let steps = expected.len() / sequences;
    ensure!(
        audio.len() == expected.len() * CHUNK && sequences >= 4 && steps >= 10,
        "{sequences} of {steps}"
    );
    let mesh = Mesh::start_with(MeshOptions {
        serve: ServeOptions {
            devices: Some(Text("2".to_owned())),
            http_workers: Some(Text("2".to_owned())),
            ..ServeOptions::default()
        },
        ..MeshOptions::default()
    })
    .await?;
    let callers = [mesh.tenant("acme").await?, mesh.tenant("globex").await?];
    let admin = mesh.admin()?;
    admin
        .publish_torchscript("acme", "vad", &made("vad.pt"), &config())
        .await?;
    admin.model("acme", "vad", json!({"grants": ["globex"]})).await?;
    for caller in &callers {
        caller.until_ready("vad").await?;
    }
    let mut worst = 0.0_f32;
    for step in 0..steps {
        let flags = (step == 0, step + 1 == steps);
        // All sequences take this step at the same time, so that they share batches; both tenants use the same ids.
        let asked = (0..sequences).map(|sequence| {
            let at = sequence * steps + step;
            let chunk = audio.get(at * CHUNK..(at + 1) * CHUNK).unwrap_or_default();
            let id = if sequence < 4 {
                json!(sequence / 2 + 1)
            } else {
                json!(format!("call-{}", sequence / 2))
            };
            let caller = callers.get(sequence % 2);
            async move { speech(caller.context("a caller")?, &id, flags, chunk).await }
        });
        for (sequence, answered) in futures::future::join_all(asked).await.into_iter().enumerate() {
            let wanted = expected.get(sequence * steps + step).context("an expectation")?;
            let off = (answered? - wanted).abs();
            ensure!(off <= 1e-5, "sequence {sequence} is off by {off} in step {step}");
            worst = worst.max(off);
        }
    }
    ensure!(
        expected.iter().any(|speech| *speech > 0.5) || expected.iter().any(|speech| *speech < 0.1),
        "the audio says nothing to the model"
    );
    eprintln!(
        "{} steps of {sequences} sequences, off by at most {worst:e}",
        expected.len()
    );
    Ok(())
}
