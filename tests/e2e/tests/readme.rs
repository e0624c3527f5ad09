//! The first request of the project's README is answered as it says.

use std::{path::Path, process::Command};

use anyhow::{Context as _, ensure};
use mesh_e2e::python::run;
use mesh_harness::{Mesh, fp32};
use serde_json::{Value, json};

/// The README's only block of a shell, from its request on.
fn request() -> anyhow::Result<String> {
    let document = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../README.md");
    let document = std::fs::read_to_string(document)?;
    let mut blocks = document.split("```sh\n").skip(1);
    let block = blocks.next().and_then(|rest| rest.split_once("\n```"));
    let (block, _) = block.context("no block of a shell")?;
    ensure!(
        blocks.next().is_none(),
        "there are more blocks: which is the first request's?"
    );
    let begins = block.find("\ncurl ").context("no request")?;
    Ok(block[begins + 1..].to_owned())
}

#[tokio::test]
async fn the_first_request_of_the_readme_is_answered() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let caller = mesh.tenant("acme").await?;
    // In place of the trained one, one that gives the pixels back: what it was sent is then seen.
    let config = json!({
        "max_batch_size": 8,
        "input": [fp32("pixels", &[64])],
        "output": [fp32("probabilities", &[64])],
        "parameters": {"builtin": "identity"},
    });
    let spec = json!({"format": "builtin", "config": config});
    mesh.admin()?.publish("acme", "digits", &spec).await?;
    caller.until_ready("digits").await?;
    let command = request()?;
    let here = command.replace("127.0.0.1:8000", &mesh.addresses().http.to_string());
    ensure!(here != command, "it is sent elsewhere: {command}");
    let key = caller.key().to_owned();
    let told =
        tokio::task::spawn_blocking(move || run(Command::new("bash").args(["-euc", &here]).env("MESH_API_KEY", key)));
    let answer: Value = serde_json::from_str(&told.await??)?;
    let pixels = answer["outputs"][0]["data"].as_array().context("no output")?;
    // A nought is empty in the middle and has ink.
    let lit = |at: usize| pixels.get(at).and_then(Value::as_f64).is_some_and(|pixel| pixel > 0.0);
    ensure!(
        pixels.len() == 64 && !lit(27) && !lit(28) && lit(2) && lit(59),
        "{answer}"
    );
    Ok(())
}
