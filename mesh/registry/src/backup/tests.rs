//! A backup made while writes go on, and the way back.

use std::{fs, path::Path, time::Duration};

use super::{manifest::MAX_MANIFEST_BYTES, restore::MAX_FILLING, *};
use crate::{
    Change, JournalLimits, RegistryConfig, SealKey,
    testing::{Bench, admin, config, key, put, settled, tenant},
};

const SECRET: &[u8] = b"0123456789abcdef0123456789abcdef";

fn key_of(secrets: &[NamedSecret]) -> Option<SealKey> {
    let (_, secret) = secrets.iter().find(|(name, _)| name == "pepper")?;
    Some(SealKey::derive(secret))
}

fn small(folder: &Path) -> RegistryConfig {
    small_with(folder, SECRET)
}

/// A registry in a folder, small segments, with a secret beside it.
fn small_with(folder: &Path, secret: &[u8]) -> RegistryConfig {
    fs::write(folder.join("pepper"), secret).unwrap();
    RegistryConfig {
        journal: JournalLimits {
            segment_bytes: 2_000,
            snapshot_segments: 2,
            archived_segments: 2,
        },
        ..config(&folder.join("registry"))
    }
    .with_key(SealKey::derive(secret))
    .with_secret("pepper", folder.join("pepper"))
}

/// Writes a model with an artifact of so many bytes; its SHA-256.
async fn model(registry: &RegistryHandle, bytes: usize) -> ArtifactRef {
    let mut upload = registry.artifacts().begin().await.unwrap();
    upload.write(vec![7; bytes].into()).await.unwrap();
    let artifact = upload.finish(None).await.unwrap();
    let spec = format!(
        r#"{{"format":"torchscript","artifact":{{"sha256":"{}","bytes":{}}},"config":{{"max_batch_size":8,"input":[{{"name":"x","datatype":"FP32","dims":[2]}}],"output":[{{"name":"y","datatype":"FP32","dims":[2]}}]}}}}"#,
        artifact.sha256, artifact.bytes
    );
    let changes = vec![
        Change::put(tenant("acme")),
        put("Model/acme/m", "{}"),
        put("ModelVersion/acme/m/1", &spec),
    ];
    registry.write(admin(), changes).await.unwrap();
    artifact
}

async fn write(registry: &RegistryHandle, names: std::ops::Range<usize>) {
    for index in names {
        let change = Change::put(tenant(&format!("t{index}")));
        registry.write(admin(), vec![change]).await.unwrap();
    }
}

fn drain(backup: &mut Backup) -> Result<Vec<u8>, RegistryError> {
    let mut bytes = Vec::new();
    while let Some(chunk) = backup.next_chunk()? {
        assert!(!chunk.is_empty() && chunk.len() <= CHUNK);
        bytes.extend_from_slice(&chunk);
    }
    Ok(bytes)
}

fn unpacked(bytes: &[u8], folder: &Path) -> Result<Unpacked, BackupError> {
    unpack(&mut &*bytes, &RegistryConfig::new(folder.join("registry")), &key_of)
}

fn test<F: Future<Output = ()>>(test: impl FnOnce(PathBuf, Bench) -> F) {
    let folder = tempfile::tempdir().unwrap();
    let source = folder.path().join("source");
    fs::create_dir(&source).unwrap();
    actix::System::new().block_on(async {
        let bench = Bench::open(small(&source)).unwrap();
        test(folder.path().to_path_buf(), bench).await;
    });
}

#[test]
fn what_was_acknowledged_is_restored_and_what_came_later_is_not() {
    test(|folder, bench| async move {
        let registry = bench.registry.handle();
        let artifact = model(&registry, 600_000).await;
        write(&registry, 0..40).await;
        settled(&registry).await;
        let (all, audit) = (registry.all().unwrap(), registry.audit(0, 1_000).unwrap());
        assert!(audit.begins > 1, "compaction has been there");
        let mut backup = registry.backup(Timestamp::UNIX_EPOCH).await.unwrap();
        assert_eq!(backup.revision(), 41);
        let first = backup.next_chunk().unwrap().unwrap();
        // Writes and compactions go on; the backup is of the moment at which it began.
        write(&registry, 40..80).await;
        let mut bytes = first.to_vec();
        bytes.extend(drain(&mut backup).unwrap());
        assert_eq!(backup.bytes(), bytes.len() as u64);
        drop(backup);
        bench.close().await;

        let restored = folder.join("restored");
        let found = unpacked(&bytes, &restored).unwrap();
        assert_eq!((found.revision, found.created), (41, Timestamp::UNIX_EPOCH));
        assert_eq!(found.secrets, [("pepper".to_owned(), SECRET.to_vec())]);
        let bench = Bench::open(small(&restored)).unwrap();
        let registry = bench.registry.handle();
        assert_eq!(registry.all().unwrap(), all);
        assert_eq!(registry.audit(0, 1_000).unwrap(), audit);
        registry.verify_audit().unwrap();
        let path = registry.artifacts().path_verified(&artifact).unwrap();
        assert_eq!(fs::metadata(path).unwrap().len(), 600_000);
        write(&registry, 40..60).await;
        registry.verify_audit().unwrap();
        bench.close().await;
    });
}

#[test]
fn nothing_of_a_backup_is_taken_away_before_it_is_dropped() {
    test(|_, bench| async move {
        let registry = bench.registry.handle();
        let artifact = model(&registry, 10).await;
        let mut backup = registry.backup(Timestamp::UNIX_EPOCH).await.unwrap();
        let gone = ["ModelVersion/acme/m/1", "Model/acme/m"].map(|name| Change::delete(key(name)));
        registry.write(admin(), gone.to_vec()).await.unwrap();
        write(&registry, 0..60).await;
        assert_eq!(registry.audit(0, 1).unwrap().begins, 1);
        assert_eq!(registry.remove_unreferenced_artifacts(Duration::ZERO).await, Ok(0));
        drain(&mut backup).unwrap();
        drop(backup);
        assert_eq!(registry.remove_unreferenced_artifacts(Duration::ZERO).await, Ok(1));
        assert!(registry.artifacts().check_present(&artifact).is_err());
        write(&registry, 60..61).await;
        settled(&registry).await;
        assert!(registry.audit(0, 1).unwrap().begins > 20);
        bench.close().await;
    });
}

#[test]
fn a_changed_or_missing_artifact_ends_a_backup_in_an_error() {
    test(|_, bench| async move {
        let registry = bench.registry.handle();
        let artifact = model(&registry, CHUNK * 2 + 1).await;
        let path = registry.artifacts().path_verified(&artifact).unwrap();
        let mut bytes = fs::read(&path).unwrap();
        bytes[CHUNK] ^= 1;
        fs::write(&path, &bytes).unwrap();
        let mut backup = registry.backup(Timestamp::UNIX_EPOCH).await.unwrap();
        let damaged = ArtifactError::Damaged(artifact.sha256.clone());
        assert_eq!(drain(&mut backup), Err(RegistryError::Artifact(damaged)));
        drop(backup);
        fs::remove_file(&path).unwrap();
        let refused = registry.backup(Timestamp::UNIX_EPOCH).await.err();
        let missing = ArtifactError::Missing(artifact.sha256);
        assert_eq!(refused, Some(RegistryError::Artifact(missing)));
        bench.close().await;
    });
}

#[test]
fn any_flipped_byte_and_any_cut_is_refused_with_the_name_of_the_file() {
    test(|folder, bench| async move {
        let registry = bench.registry.handle();
        model(&registry, 700).await;
        write(&registry, 0..6).await;
        let mut backup = registry.backup(Timestamp::UNIX_EPOCH).await.unwrap();
        let whole = drain(&mut backup).unwrap();
        drop(backup);
        bench.close().await;
        assert!(unpacked(&whole, &folder.join("whole")).is_ok());
        let (mut round, mut named) = (0, std::collections::BTreeSet::new());
        let mut refused = |bytes: &[u8], what: String| {
            round += 1;
            let into = folder.join(format!("r{round}"));
            match unpacked(bytes, &into).expect_err(&what) {
                BackupError::Damaged { file, .. } | BackupError::Cut { file } => named.insert(file),
                BackupError::Forged => named.insert("forged".to_owned()),
                other => panic!("{what}: {other:?}"),
            };
            fs::remove_dir_all(into).ok();
        };
        for at in (0..whole.len()).step_by(23) {
            let mut bytes = whole.clone();
            bytes[at] ^= 1 << (at % 8);
            refused(&bytes, format!("byte {at} of {}", whole.len()));
        }
        for at in (0..whole.len()).step_by(509) {
            refused(&whole[..at], format!("cut at {at}"));
        }
        let mut longer = whole.clone();
        longer.push(1);
        refused(&longer, "something after the end".to_owned());
        println!("{round} damaged backups of {} bytes, refused at {named:?}", whole.len());
        for file in ["manifest.json", "manifest.seal", "secrets/pepper"] {
            assert!(named.contains(file), "{file}: {named:?}");
        }
        for folder in ["journal/", "artifacts/"] {
            assert!(named.iter().any(|file| file.starts_with(folder)), "{folder}: {named:?}");
        }
    });
}

#[test]
fn a_backup_whose_secret_is_not_its_registrys_is_refused() {
    test(|folder, bench| async move {
        let registry = bench.registry.handle();
        write(&registry, 0..3).await;
        // The list is whole, but signed with the key of another secret.
        fs::write(folder.join("source/pepper"), b"another secret").unwrap();
        let mut backup = registry.backup(Timestamp::UNIX_EPOCH).await.unwrap();
        let bytes = drain(&mut backup).unwrap();
        drop(backup);
        assert_eq!(unpacked(&bytes, &folder.join("restored")), Err(BackupError::Forged));
        bench.close().await;
    });
}

#[test]
fn tar_reads_a_backup() {
    test(|folder, bench| async move {
        let registry = bench.registry.handle();
        let artifact = model(&registry, 700).await;
        let mut backup = registry.backup(Timestamp::UNIX_EPOCH).await.unwrap();
        let file = folder.join("backup.tar");
        fs::write(&file, drain(&mut backup).unwrap()).unwrap();
        assert_eq!(backup.files(), 4);
        let listed = std::process::Command::new("tar").arg("tf").arg(&file).output().unwrap();
        let listed = String::from_utf8(listed.stdout).unwrap();
        let names: Vec<&str> = listed.lines().collect();
        let artifact = format!("artifacts/{}", artifact.sha256);
        assert_eq!(
            names,
            [
                "manifest.json",
                "manifest.seal",
                "secrets/pepper",
                "journal/00000000000000000001.snapshot",
                "journal/00000000000000000001.journal",
                &*artifact
            ]
        );
        drop(backup);
        bench.close().await;
    });
}

#[test]
fn secrets_the_list_and_what_fills_an_archive_up_have_bounds() {
    let folder = tempfile::tempdir().unwrap();
    actix::System::new().block_on(async {
        for (more, passes) in [(0, true), (1, false)] {
            let source = folder.path().join(format!("source-{more}"));
            fs::create_dir(&source).unwrap();
            let bench = Bench::open(small_with(&source, &vec![3; MAX_SECRET_BYTES as usize + more])).unwrap();
            write(&bench.registry.handle(), 0..1).await;
            let backup = bench.registry.handle().backup(Timestamp::UNIX_EPOCH).await;
            assert_eq!(backup.is_ok(), passes, "{backup:?}");
            if let Ok(mut backup) = backup {
                let mut bytes = drain(&mut backup).unwrap();
                let whole = bytes.len();
                for (filling, passes) in [(0, true), (MAX_FILLING, true), (MAX_FILLING + 1, false)] {
                    bytes.resize(whole + filling as usize, 0);
                    let restored = unpacked(&bytes, &folder.path().join(format!("filled-{filling}")));
                    assert_eq!(restored.is_ok(), passes, "{restored:?}");
                }
            }
            bench.close().await;
        }
        for (bytes, wanted) in [
            (MAX_MANIFEST_BYTES, "ends in the middle"),
            (MAX_MANIFEST_BYTES + 1, "at most"),
        ] {
            let header = tar::header(MANIFEST, bytes, 0);
            let error = unpacked(&header, &folder.path().join(format!("list-{bytes}"))).unwrap_err();
            assert!(error.to_string().contains(wanted), "{error}");
        }
    });
}
