//! Signing models: a key, a signature offline, and one on the way to publishing.
//!
//! The private key is read where it lies and is sent nowhere: what is sent is the signature and the public key.

use std::{
    fs::{File, OpenOptions},
    io::{Read as _, Write as _},
    os::unix::fs::OpenOptionsExt as _,
    path::Path,
};

use mesh_policies::{SigningKey, signing::SEED_BYTES};
use mesh_resources::{ArtifactRef, ModelSignature, ModelVersionSpec, Resource, model_manifest};
use mesh_types::{ModelId, Version};
use serde::Deserialize;
use sha2::{Digest as _, Sha256};

use crate::{
    Failure, KeygenArgs, PublishArgs, SignArgs, Terminal,
    client::AdminClient,
    files,
    publish::{format_of, read_config},
};

/// Only the owner reads it.
const OWNER_ONLY: u32 = 0o600;
const READ_BYTES: usize = 1 << 20;

pub(crate) fn keygen(args: &KeygenArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let path = args.file.display();
    let failed = |error: std::io::Error| Failure::refused(format!("cannot write {path}: {error}"));
    let seed: [u8; SEED_BYTES] = rand::random();
    let key = SigningKey::from_seed(&seed).map_err(|error| Failure::refused(error.to_string()))?;
    let mut options = OpenOptions::new();
    let file = options.write(true).create_new(true).mode(OWNER_ONLY).open(&args.file);
    let mut file = file.map_err(failed)?;
    file.write_all(&seed).and_then(|()| file.sync_all()).map_err(failed)?;
    writeln!(terminal.out, "{}", key.public())?;
    writeln!(
        terminal.err,
        "the private key is in {path}: keep it where only releases are made"
    )?;
    Ok(())
}

pub(crate) fn sign(args: &SignArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let spec = ModelVersionSpec {
        format: format_of(args.format, &args.file)?,
        artifact: Some(artifact_of(&args.file)?),
        config: read_config(args.config.as_deref(), Some(&args.file))?,
        signature: None,
        unloaded: false,
        description: None,
    };
    let signed = signed(&read_key(&args.sign_key)?, &args.model, args.version, &spec)?;
    let text = serde_json::to_string(&signed).map_err(|error| Failure::refused(error.to_string()))?;
    Ok(writeln!(terminal.out, "{text}")?)
}

/// The signature that a version is published with, if it is.
pub(crate) async fn for_publishing(
    client: &AdminClient,
    args: &PublishArgs,
    spec: &ModelVersionSpec,
) -> Result<Option<ModelSignature>, Failure> {
    match (&args.sign_key, &args.signature) {
        (Some(key), _) => {
            let (key, version) = (read_key(key)?, next_version(client, args).await?);
            signed(&key, &args.model, version, spec).map(Some)
        }
        (None, Some(path)) => {
            let text = files::read_file(path)?;
            let read = serde_json::from_str(&text);
            let read = read.map_err(|error| Failure::refused(format!("{} is no signature: {error}", path.display())));
            read.map(Some)
        }
        (None, None) => Ok(None),
    }
}

/// The number that the mesh gives the next version. Should somebody be faster, the mesh refuses the signature and says so.
async fn next_version(client: &AdminClient, args: &PublishArgs) -> Result<Version, Failure> {
    #[derive(Deserialize)]
    struct Versions {
        items: Vec<Resource>,
    }
    let path = format!("/tenants/{}/models/{}/versions", args.tenant, args.model);
    let Versions { items } = client.get(&path).await?;
    let numbers = items.iter().filter_map(|resource| resource.key().ok()?.as_version());
    match numbers.map(|version| version.version).max() {
        None => Ok(Version::FIRST),
        Some(last) => last
            .next()
            .ok_or_else(|| Failure::refused("the model has used up its version numbers")),
    }
}

fn signed(
    key: &SigningKey,
    model: &ModelId,
    version: Version,
    spec: &ModelVersionSpec,
) -> Result<ModelSignature, Failure> {
    let manifest = model_manifest(model, version, spec);
    let manifest = manifest.ok_or_else(|| Failure::refused("a model without a file has nothing to sign"))?;
    Ok(ModelSignature {
        signer: key.public().to_string(),
        signature: key.sign(manifest.as_bytes()).to_string(),
    })
}

fn read_key(path: &Path) -> Result<SigningKey, Failure> {
    let failed = |error: String| Failure::refused(format!("cannot use the key in {}: {error}", path.display()));
    let mut seed = Vec::with_capacity(SEED_BYTES + 1);
    let file = File::open(path).map_err(|error| failed(error.to_string()))?;
    let most = SEED_BYTES as u64 + 1;
    file.take(most)
        .read_to_end(&mut seed)
        .map_err(|error| failed(error.to_string()))?;
    SigningKey::from_seed(&seed).map_err(|error| failed(error.to_string()))
}

fn artifact_of(path: &Path) -> Result<ArtifactRef, Failure> {
    let failed = |error: std::io::Error| Failure::refused(format!("cannot read {}: {error}", path.display()));
    let mut file = File::open(path).map_err(failed)?;
    let (mut digest, mut bytes, mut chunk) = (Sha256::new(), 0, vec![0; READ_BYTES]);
    loop {
        let count = file.read(&mut chunk).map_err(failed)?;
        let Some(read) = chunk.get(..count).filter(|read| !read.is_empty()) else {
            break;
        };
        digest.update(read);
        bytes += count as u64;
    }
    let sha256 = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    Ok(ArtifactRef { sha256, bytes })
}
