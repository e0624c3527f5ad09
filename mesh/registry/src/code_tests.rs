//! Models are code: whose signature a version needs, and which files are refused before anything reads them.

use bytes::Bytes;
use mesh_policies::SigningKey;
use mesh_resources::{
    ArtifactRef, MAX_ARCHIVE_ENTRIES, ModelSignature, ModelVersionSpec, Resource, ResourceKey, Spec, model_manifest,
};
use mesh_types::{ModelId, Version};

use crate::{
    Change, RegistryConfig, RegistryError, RegistryHandle,
    testing::{Bench, admin, config, key, put, resource},
};

fn signer(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).unwrap()
}

async fn upload(registry: &RegistryHandle, bytes: &[u8]) -> ArtifactRef {
    let mut upload = registry.artifacts().begin().await.unwrap();
    upload.write(Bytes::copy_from_slice(bytes)).await.unwrap();
    upload.finish(None).await.unwrap()
}

fn spec_of(artifact: &ArtifactRef) -> ModelVersionSpec {
    serde_json::from_value(serde_json::json!({
        "format": "torchscript", "artifact": artifact,
        "config": {"max_batch_size": 8, "input": [{"name": "x", "datatype": "FP32", "dims": [2]}],
            "output": [{"name": "y", "datatype": "FP32", "dims": [2]}]},
    }))
    .unwrap()
}

fn signed(by: &SigningKey, model: &str, version: u32, spec: &ModelVersionSpec) -> ModelVersionSpec {
    let (model, version) = (ModelId::parse(model).unwrap(), Version::new(version).unwrap());
    let manifest = model_manifest(&model, version, spec).unwrap();
    ModelVersionSpec {
        signature: Some(ModelSignature {
            signer: by.public().to_string(),
            signature: by.sign(manifest.as_bytes()).to_string(),
        }),
        ..spec.clone()
    }
}

async fn publish(registry: &RegistryHandle, version: u32, spec: ModelVersionSpec) -> Result<(), String> {
    let key: ResourceKey = key(&format!("ModelVersion/acme/m/{version}"));
    let version = Resource::new(&key, Spec::ModelVersion(spec));
    let changes = vec![Change::put(version)];
    match registry.check(admin(), changes).await {
        Ok(_) => Ok(()),
        Err(RegistryError::Invalid(problems)) => Err(problems[0].to_string()),
        Err(other) => panic!("{other}"),
    }
}

fn with_signers(mesh: &[u8], tenant: &[u8], test: impl AsyncFnOnce(RegistryHandle)) {
    let folder = tempfile::tempdir().unwrap();
    let config = RegistryConfig {
        required_signers: mesh.iter().map(|seed| signer(*seed).public()).collect(),
        ..config(folder.path())
    };
    let signers: Vec<String> = tenant.iter().map(|seed| signer(*seed).public().to_string()).collect();
    actix::System::new().block_on(async {
        let bench = Bench::open(config).unwrap();
        let registry = bench.registry.handle();
        let spec = serde_json::json!({"required_signers": signers}).to_string();
        let changes = vec![put("Tenant/acme", &spec), put("Model/acme/m", "{}")];
        registry.write(admin(), changes).await.unwrap();
        test(registry).await;
        bench.close().await;
    });
}

#[test]
fn a_tenants_signer_is_wanted_by_name_and_no_other_does() {
    with_signers(&[], &[1, 2], async |registry| {
        let spec = spec_of(&upload(&registry, b"model").await);
        let refused = publish(&registry, 1, spec.clone()).await.unwrap_err();
        assert!(refused.contains("the tenant takes signed models only"), "{refused}");
        assert!(refused.contains(&signer(1).public().to_string()), "{refused}");
        for seed in [1, 2] {
            assert_eq!(
                publish(&registry, 1, signed(&signer(seed), "m", 1, &spec)).await,
                Ok(())
            );
        }
        let refused = publish(&registry, 1, signed(&signer(3), "m", 1, &spec))
            .await
            .unwrap_err();
        assert!(
            refused.contains(&format!("signed by {}", signer(3).public())) && refused.contains("the tenant wants"),
            "{refused}"
        );
        // What runs nowhere need not be signed, so that it can be put away.
        let unloaded = ModelVersionSpec { unloaded: true, ..spec };
        assert_eq!(publish(&registry, 1, unloaded).await, Ok(()));
    });
}

#[test]
fn the_meshs_signers_are_wanted_whatever_the_tenant_says() {
    with_signers(&[1], &[], async |registry| {
        let spec = spec_of(&upload(&registry, b"model").await);
        let refused = publish(&registry, 1, spec.clone()).await.unwrap_err();
        assert!(refused.contains("the mesh takes signed models only"), "{refused}");
        assert_eq!(publish(&registry, 1, signed(&signer(1), "m", 1, &spec)).await, Ok(()));
    });
    with_signers(&[1], &[2], async |registry| {
        let spec = spec_of(&upload(&registry, b"model").await);
        for seed in [1, 2] {
            assert!(
                publish(&registry, 1, signed(&signer(seed), "m", 1, &spec))
                    .await
                    .is_err(),
                "{seed}"
            );
        }
    });
}

#[test]
fn a_signature_is_of_one_model_version_file_and_signature_of_tensors() {
    with_signers(&[], &[1], async |registry| {
        let (one, other) = (upload(&registry, b"model").await, upload(&registry, b"other").await);
        let spec = spec_of(&one);
        let good = signed(&signer(1), "m", 1, &spec);
        assert_eq!(publish(&registry, 1, good.clone()).await, Ok(()));
        let of = |change: &dyn Fn(&mut ModelVersionSpec)| {
            let mut spec = good.clone();
            change(&mut spec);
            spec
        };
        let changed = [
            (2, good.clone()),
            (1, signed(&signer(1), "n", 1, &spec)),
            (1, of(&|spec| spec.artifact = Some(other.clone()))),
            (1, of(&|spec| spec.config.max_batch_size = 9)),
            (1, of(&|spec| spec.config.input[0].dims = [3].into_iter().collect())),
            (
                1,
                of(&|spec| spec.signature.as_mut().unwrap().signature = "0".repeat(128)),
            ),
            (
                1,
                of(&|spec| spec.signature.as_mut().unwrap().signer = signer(2).public().to_string()),
            ),
        ];
        for (version, spec) in changed {
            let refused = publish(&registry, version, spec).await.unwrap_err();
            assert!(refused.contains("not one of this manifest"), "{refused}");
        }
    });
    // One that is given must hold, wanted or not.
    with_signers(&[], &[], async |registry| {
        let spec = spec_of(&upload(&registry, b"model").await);
        assert_eq!(publish(&registry, 1, spec.clone()).await, Ok(()));
        let wrong = signed(&signer(1), "m", 7, &spec);
        assert!(publish(&registry, 1, wrong).await.is_err());
    });
}

#[test]
fn built_in_models_have_no_file_and_need_no_signature() {
    with_signers(&[1], &[2], async |registry| {
        let version = resource("ModelVersion/acme/m/1", crate::testing::BUILTIN);
        registry.check(admin(), vec![Change::put(version)]).await.unwrap();
    });
}

/// An archive of so many empty entries with these names.
fn archive(names: impl Iterator<Item = String>) -> Vec<u8> {
    let (mut directory, mut entries) = (Vec::new(), 0_u16);
    for name in names {
        entries += 1;
        let mut entry = [&b"PK\x01\x02"[..], &[0; 42]].concat();
        entry[28..30].copy_from_slice(&u16::try_from(name.len()).unwrap().to_le_bytes());
        entry.extend_from_slice(name.as_bytes());
        directory.extend(entry);
    }
    let mut end = [0; 22];
    end[..4].copy_from_slice(b"PK\x05\x06");
    end[10..12].copy_from_slice(&entries.to_le_bytes());
    end[12..16].copy_from_slice(&u32::try_from(directory.len()).unwrap().to_le_bytes());
    directory.extend(end);
    directory
}

#[test]
fn an_archive_out_of_bounds_is_refused_when_it_is_published() {
    with_signers(&[], &[], async |registry| {
        let names = |count: usize| (0..count).map(|index| format!("m/{index}"));
        let fits = upload(&registry, &archive(names(MAX_ARCHIVE_ENTRIES))).await;
        assert_eq!(publish(&registry, 1, spec_of(&fits)).await, Ok(()));
        let over = upload(&registry, &archive(names(MAX_ARCHIVE_ENTRIES + 1))).await;
        let refused = publish(&registry, 1, spec_of(&over)).await.unwrap_err();
        assert!(
            refused.contains("spec.artifact") && refused.contains("more than 10000 entries"),
            "{refused}"
        );
        let slip = upload(&registry, &archive(["../../etc/cron.d/x".to_owned()].into_iter())).await;
        let refused = publish(&registry, 1, spec_of(&slip)).await.unwrap_err();
        assert!(refused.contains("leads elsewhere"), "{refused}");
    });
}
