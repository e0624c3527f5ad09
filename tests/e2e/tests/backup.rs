//! A mesh is backed up while it serves, and goes on from the backup as if nothing had been.

use std::{fs, path::Path, sync::Arc};

use mesh_e2e::Load;
use mesh_harness::{Admin, Mesh, MeshOptions, identity, vector};
use mesh_node::{RestoreOptions, restore};
use reqwest::{Method, StatusCode};
use serde_json::{Value, json};
use tch::{CModule, Device, Kind, Tensor};

/// Writes a model that doubles rows of three numbers.
fn doubling(folder: &Path) -> anyhow::Result<std::path::PathBuf> {
    let path = folder.join("double.pt");
    let mut forward = |inputs: &[Tensor]| inputs.iter().map(|x| x * 2.0).collect();
    let example = Tensor::zeros([2, 3], (Kind::Float, Device::Cpu));
    CModule::create_by_tracing("Double", "forward", &[example], &mut forward)?.save(&path)?;
    Ok(path)
}

fn row() -> Value {
    json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 3], "data": [1.0, 2.0, 3.0]}]})
}

async fn backup(admin: &Admin) -> anyhow::Result<Vec<u8>> {
    let answer = admin.request(Method::GET, "/backup").send().await?.error_for_status()?;
    let length = answer.content_length();
    let bytes = answer.bytes().await?.to_vec();
    assert_eq!(length, Some(bytes.len() as u64), "its length is known before it comes");
    Ok(bytes)
}

/// A backup with writes before, during and after it.
async fn backup_while_writing(admin: &Admin) -> anyhow::Result<Vec<u8>> {
    let writing = async {
        for index in 0..20 {
            admin.tenant(&format!("during-{index}"), json!({})).await?;
        }
        anyhow::Ok(())
    };
    let (bytes, written) = tokio::join!(backup(admin), writing);
    written?;
    bytes
}

/// The chain holds, and says after this revision that there was a backup.
async fn trail_goes_on(admin: &Admin, after: u64) -> anyhow::Result<()> {
    assert_eq!(admin.get("/audit/verify").await?["valid"], true);
    let trail = admin.get(&format!("/audit?after={after}&limit=500")).await?;
    let mut events = trail["items"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|item| &item["event"]);
    assert!(events.any(|event| event == "backup"), "{trail}");
    Ok(())
}

fn into(file: &Path, data: &Path) -> RestoreOptions {
    RestoreOptions {
        file: file.to_path_buf(),
        data: data.to_path_buf(),
    }
}

#[tokio::test]
async fn a_backup_of_a_serving_mesh_is_a_mesh_in_which_the_old_keys_work_and_models_answer() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?.clone();
    let (acme, beta) = (mesh.tenant("acme").await?, mesh.tenant("beta").await?);
    let model = doubling(folder.path())?;
    admin
        .publish_torchscript("acme", "double", &model, &vector(3, 3))
        .await?;
    admin.publish("beta", "echo", &identity()).await?;
    admin
        .endpoint("acme", "front", &[("main", "double", "1", 100.0)])
        .await?;
    acme.until_answers("front", &row()).await?;
    beta.until_answers("echo", &row()).await?;
    // Under load, and with writes going on.
    let load = Load::begin(&beta, "echo", 2);
    let begun = admin.get("/audit?limit=1").await?["latest"].as_u64();
    let bytes = backup_while_writing(&admin).await?;
    load.go_on_for(50).await;
    assert_eq!(load.end().await.failures, Vec::<String>::new());
    let file = folder.path().join("mesh.tar");
    fs::write(&file, &bytes)?;
    // What came after it is not in it.
    admin.tenant("after", json!({})).await?;
    mesh.stop().await?;

    let data = Arc::new(tempfile::tempdir()?);
    let restored = restore(&into(&file, data.path()))?.to_string();
    assert!(restored.contains("mesh serve --data"), "{restored}");
    assert!(
        restore(&into(&file, data.path())).is_err(),
        "the folder is not empty any more"
    );
    let options = MeshOptions {
        data: Some(data),
        ..MeshOptions::default()
    };
    let again = Mesh::start_with(options).await?.with_token(admin.token());
    let answer = again.caller(acme.key()).until_answers("front", &row()).await?;
    assert_eq!(answer.numbers(0)?, [2.0, 4.0, 6.0]);
    let answer = again.caller(beta.key()).until_answers("echo", &row()).await?;
    assert_eq!(answer.numbers(0)?, [1.0, 2.0, 3.0]);
    let admin = again.admin()?;
    let missing = admin.request(Method::GET, "/tenants/after").send().await?.status();
    assert_eq!(missing, StatusCode::NOT_FOUND);
    trail_goes_on(admin, begun.unwrap_or(0)).await?;
    admin.tenant("later", json!({})).await?;
    again.stop().await?;
    Ok(())
}

#[tokio::test]
async fn a_flipped_byte_is_refused_with_the_name_of_the_file_and_puts_nothing_in_place() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mesh = Mesh::start().await?;
    let admin = mesh.admin()?;
    mesh.tenant("acme").await?;
    admin.publish("acme", "echo", &identity()).await?;
    let whole = backup(admin).await?;
    mesh.stop().await?;
    let (file, data) = (folder.path().join("mesh.tar"), folder.path().join("data"));
    // In the middle of each file: behind its header, by where the archive says that it is.
    let mut named = Vec::new();
    for (name, at) in files(&whole) {
        let mut bytes = whole.clone();
        bytes[at] ^= 1;
        fs::write(&file, bytes)?;
        let error = restore(&into(&file, &data)).err().map(|error| error.to_string());
        let error = error.unwrap_or_default();
        assert!(
            error.contains(&name) || error.contains("manifest.json"),
            "{name}: {error}"
        );
        assert!(error.contains("mesh.tar") && !data.exists(), "{name}: {error}");
        named.push(name);
    }
    assert!(named.iter().any(|name| name == "secrets/pepper"), "{named:?}");
    assert!(named.iter().any(|name| name.ends_with(".snapshot")), "{named:?}");
    fs::write(&file, &whole[..whole.len() / 2])?;
    let error = restore(&into(&file, &data)).err().map(|error| error.to_string());
    assert!(error.is_some_and(|error| error.contains("it is not whole")) && !data.exists());
    Ok(())
}

/// Each file of an archive, and a place in it.
fn files(archive: &[u8]) -> Vec<(String, usize)> {
    let (mut found, mut at) = (Vec::new(), 0);
    let text = |from: usize, to: usize| {
        let field = &archive[from..to];
        let end = field.iter().position(|byte| *byte == 0).unwrap_or(field.len());
        String::from_utf8_lossy(&field[..end]).into_owned()
    };
    while at + 512 <= archive.len() && archive[at] != 0 {
        let bytes = usize::from_str_radix(&text(at + 124, at + 136), 8).unwrap_or(0);
        found.push((text(at, at + 100), at + 512 + bytes / 2));
        at += 512 + bytes.div_ceil(512) * 512;
    }
    found
}
