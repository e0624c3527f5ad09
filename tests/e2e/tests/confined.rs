//! What code of a model can reach of the machine while a mesh runs it.

use std::{
    fs,
    path::{Path, PathBuf},
};

use anyhow::{Context as _, ensure};
use mesh_harness::{Answer, Mesh, MeshOptions, fp32};
use mesh_node::{CodeOptions, ServeOptions};
use mesh_worker::Cage;
use serde_json::{Value, json};
use tch::{CModule, Device, Kind, Tensor};
use tempfile::TempDir;

const BYTES: i64 = 16;
const SECRET: &[u8; 16] = b"sixteen of bytes";

/// Writes a model that answers with what the file holds: TorchScript opens files by itself. `shared` makes the file where it is not there.
fn curious(folder: &Path, file: &Path, shared: bool) -> anyhow::Result<Vec<u8>> {
    let path = folder.join("curious.pt");
    let file = file.to_string_lossy().into_owned();
    let mut forward = |inputs: &[Tensor]| {
        let bytes = Tensor::from_file(&file, shared, Some(BYTES), (Kind::Uint8, Device::Cpu));
        inputs.iter().map(|x| x * 0.0 + bytes.to_kind(Kind::Float)).collect()
    };
    let example = Tensor::zeros([2, BYTES], (Kind::Float, Device::Cpu));
    CModule::create_by_tracing("Curious", "forward", &[example], &mut forward)?.save(&path)?;
    Ok(fs::read(path)?)
}

/// Whether the kernel has what confines files; where it has not, these tests show nothing and say so. One that has must pass them.
#[expect(clippy::print_stderr, reason = "a test that was left out is to be seen")]
fn confines_files() -> bool {
    let has = Cage::knows_files();
    if !has {
        eprintln!("LEFT OUT: this kernel has no Landlock (from Linux 5.13 on, and not switched off)");
    }
    has
}

struct Bed {
    mesh: Mesh,
    folder: TempDir,
}

impl Bed {
    async fn start(unconfined_models: bool) -> anyhow::Result<Self> {
        let code = CodeOptions {
            unconfined_models,
            ..CodeOptions::default()
        };
        let serve = ServeOptions {
            code,
            ..ServeOptions::default()
        };
        let options = MeshOptions {
            serve,
            ..MeshOptions::default()
        };
        Ok(Self {
            mesh: Mesh::start_with(options).await?,
            folder: tempfile::tempdir()?,
        })
    }

    fn config() -> Value {
        json!({"max_batch_size": 8, "input": [fp32("x", &[BYTES])], "output": [fp32("y", &[BYTES])]})
    }

    /// Publishes the model, and tells the version's number.
    async fn publish(&self, model: &str, file: Vec<u8>) -> anyhow::Result<u32> {
        let admin = self.mesh.admin()?;
        let artifact = admin.upload(file).await?;
        let spec = json!({"format": "torchscript", "artifact": artifact, "config": Self::config()});
        admin.publish_only("acme", model, &spec).await
    }

    fn ask() -> Value {
        json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, BYTES], "data": vec![0.0; 16]}]})
    }
}

/// Whether a version has failed because the system refused it a file.
fn is_refused(version: &Value) -> bool {
    let reason = version["reason"].as_str().unwrap_or_default();
    ["Permission denied", "Operation not permitted"]
        .iter()
        .any(|text| reason.contains(text))
}

fn shown(answer: &Answer) -> anyhow::Result<Vec<u8>> {
    Ok(answer.numbers(0)?.into_iter().map(|byte| byte as u8).collect())
}

#[tokio::test]
async fn a_models_code_reads_neither_the_meshs_secrets_nor_other_files() -> anyhow::Result<()> {
    if !confines_files() {
        return Ok(());
    }
    // What it could do if it were let.
    let open = Bed::start(true).await?;
    let caller = open.mesh.tenant("acme").await?;
    let pepper = open.mesh.data().path().join("pepper");
    open.publish("curious", curious(open.folder.path(), &pepper, false)?)
        .await?;
    let seen = caller.until_answers("curious", &Bed::ask()).await?;
    ensure!(shown(&seen)?[..] == fs::read(&pepper)?[..16], "{seen:?}");

    let bed = Bed::start(false).await?;
    let caller = bed.mesh.tenant("acme").await?;
    let admin = bed.mesh.admin()?;
    let file = bed.folder.path().join("secret");
    fs::write(&file, SECRET)?;
    for (model, path) in [("pepper", bed.mesh.data().path().join("pepper")), ("elsewhere", file)] {
        let version = bed.publish(model, curious(bed.folder.path(), &path, false)?).await?;
        let failed = admin.until_state("acme", model, version, "FAILED").await?;
        ensure!(is_refused(&failed), "{failed}");
        ensure!(!caller.infer(model, &Bed::ask()).await?.status.is_success());
    }
    Ok(())
}

#[tokio::test]
async fn a_models_code_reads_no_other_models_file() -> anyhow::Result<()> {
    if !confines_files() {
        return Ok(());
    }
    let own = tempfile::tempdir()?;
    // Any file will do to find where the mesh keeps such files; what a test reads of it is what a model would.
    for (unconfined, folder) in [(true, "open"), (false, "confined")] {
        let bed = Bed::start(unconfined).await?;
        let caller = bed.mesh.tenant("acme").await?;
        let admin = bed.mesh.admin()?;
        admin.tenant("globex", json!({})).await?;
        let secret = own.path().join(folder);
        fs::write(&secret, SECRET)?;
        let other = curious(bed.folder.path(), &secret, false)?;
        let reference = admin.upload(other.clone()).await?;
        let spec = json!({"format": "torchscript", "artifact": reference, "config": Bed::config()});
        admin.publish_only("globex", "theirs", &spec).await?;
        let kept = kept(bed.mesh.data().path(), &other)?.context("the file is nowhere")?;
        let version = bed
            .publish("curious", curious(bed.folder.path(), &kept, false)?)
            .await?;
        if unconfined {
            let seen = caller.until_answers("curious", &Bed::ask()).await?;
            ensure!(shown(&seen)?[..] == other[..16], "{seen:?}");
        } else {
            let failed = admin.until_state("acme", "curious", version, "FAILED").await?;
            ensure!(is_refused(&failed), "{failed}");
        }
    }
    Ok(())
}

/// Where below a folder a file of these bytes lies.
fn kept(folder: &Path, bytes: &[u8]) -> anyhow::Result<Option<PathBuf>> {
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let found = if path.is_dir() {
            kept(&path, bytes)?
        } else {
            fs::read(&path).is_ok_and(|read| read == bytes).then_some(path)
        };
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

#[tokio::test]
async fn a_models_code_makes_no_file() -> anyhow::Result<()> {
    if !confines_files() {
        return Ok(());
    }
    let open = Bed::start(true).await?;
    let caller = open.mesh.tenant("acme").await?;
    let target = open.folder.path().join("made");
    let model = curious(open.folder.path(), &target, true)?;
    fs::remove_file(&target)?;
    open.publish("maker", model).await?;
    caller.until_answers("maker", &Bed::ask()).await?;
    ensure!(target.exists());

    let bed = Bed::start(false).await?;
    bed.mesh.tenant("acme").await?;
    let target = bed.mesh.data().path().join("registry").join("made");
    let model = curious(bed.folder.path(), &target, true)?;
    fs::remove_file(&target)?;
    let version = bed.publish("maker", model).await?;
    let failed = bed
        .mesh
        .admin()?
        .until_state("acme", "maker", version, "FAILED")
        .await?;
    ensure!(is_refused(&failed), "{failed}");
    ensure!(!target.exists());
    Ok(())
}
