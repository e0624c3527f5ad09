//! Artifacts, on the disk.

use std::time::Duration;

use super::*;

fn store(max_bytes: u64) -> (tempfile::TempDir, Artifacts) {
    let folder = tempfile::tempdir().unwrap();
    let artifacts = Artifacts::open(&folder.path().join("artifacts"), max_bytes).unwrap();
    (folder, artifacts)
}

async fn upload(
    artifacts: &Artifacts,
    parts: &[&'static str],
    expected: Option<&str>,
) -> Result<ArtifactRef, ArtifactError> {
    let mut upload = artifacts.begin().await?;
    for part in parts {
        upload.write(Bytes::from_static(part.as_bytes())).await?;
    }
    upload.finish(expected).await
}

fn files(folder: &Path) -> usize {
    fs::read_dir(folder).unwrap().count()
}

/// SHA-256 of "abc": FIPS 180-4, example.
const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

#[tokio::test]
async fn a_file_is_found_under_what_it_holds() {
    let (_folder, artifacts) = store(100);
    let artifact = upload(&artifacts, &["a", "bc"], Some(&ABC.to_uppercase()))
        .await
        .unwrap();
    assert_eq!((artifact.sha256.as_str(), artifact.bytes), (ABC, 3));
    assert_eq!(fs::read(artifacts.path_verified(&artifact).unwrap()).unwrap(), b"abc");
    assert_eq!(
        upload(&artifacts, &["abc"], None).await.unwrap(),
        artifact,
        "twice is once"
    );
}

#[tokio::test]
async fn what_is_not_what_was_said_is_refused_and_leaves_nothing() {
    let (folder, artifacts) = store(100);
    let refused = upload(&artifacts, &["abd"], Some(ABC)).await;
    assert!(matches!(refused, Err(ArtifactError::Differs { .. })));
    drop(artifacts.begin().await.unwrap());
    let artifacts = folder.path().join("artifacts");
    assert_eq!((files(&artifacts), files(&artifacts.join(INCOMING))), (1, 0));
}

#[tokio::test]
async fn a_file_of_the_bound_passes_and_one_byte_more_does_not() {
    let (_folder, artifacts) = store(3);
    assert!(upload(&artifacts, &["ab", "c"], None).await.is_ok());
    let refused = upload(&artifacts, &["ab", "cd"], None).await;
    assert_eq!(refused, Err(ArtifactError::TooLarge { max: 3 }));
}

#[tokio::test]
async fn so_many_uploads_at_once_and_one_more_waits() {
    let (_folder, artifacts) = store(3);
    let mut running = Vec::new();
    for _ in 0..MAX_UPLOADS {
        running.push(artifacts.begin().await.unwrap());
    }
    assert_eq!(artifacts.begin().await.err(), Some(ArtifactError::Busy));
    running.pop();
    assert!(artifacts.begin().await.is_ok());
}

#[tokio::test]
async fn a_changed_missing_or_cut_file_is_not_loaded() {
    let (_folder, artifacts) = store(100);
    let artifact = upload(&artifacts, &["abc"], None).await.unwrap();
    let path = artifacts.path_verified(&artifact).unwrap();
    fs::write(&path, "abd").unwrap();
    assert_eq!(
        artifacts.path_verified(&artifact),
        Err(ArtifactError::Damaged(ABC.to_owned()))
    );
    fs::write(&path, "ab").unwrap();
    assert!(matches!(
        artifacts.path_verified(&artifact),
        Err(ArtifactError::Size { got: 2, .. })
    ));
    fs::remove_file(&path).unwrap();
    assert_eq!(
        artifacts.path_verified(&artifact),
        Err(ArtifactError::Missing(ABC.to_owned()))
    );
    let outside = ArtifactRef {
        sha256: "../artifacts".to_owned(),
        bytes: 1,
    };
    assert!(matches!(
        artifacts.path_verified(&outside),
        Err(ArtifactError::Missing(_))
    ));
    assert!(upload(&artifacts, &["abc"], None).await.is_ok(), "an upload mends it");
    assert!(artifacts.path_verified(&artifact).is_ok());
}

#[tokio::test]
async fn unfinished_uploads_of_a_former_process_are_removed_at_opening() {
    let (folder, artifacts) = store(100);
    upload(&artifacts, &["abc"], None).await.unwrap();
    let folder = folder.path().join("artifacts");
    fs::write(folder.join(INCOMING).join("left-over"), "x").unwrap();
    Artifacts::open(&folder, 100).unwrap();
    assert_eq!((files(&folder), files(&folder.join(INCOMING))), (2, 0));
}

#[tokio::test]
async fn what_nothing_refers_to_goes_once_it_is_old() {
    let (_folder, artifacts) = store(100);
    let kept = upload(&artifacts, &["abc"], None).await.unwrap();
    let gone = upload(&artifacts, &["abd"], None).await.unwrap();
    let referenced = BTreeSet::from([kept.sha256.clone()]);
    let hour = Duration::from_secs(3600);
    assert_eq!(
        artifacts.remove_unreferenced(&referenced, SystemTime::now() - hour),
        Ok(0)
    );
    assert_eq!(
        artifacts.remove_unreferenced(&referenced, SystemTime::now() + hour),
        Ok(1)
    );
    assert!(artifacts.check_present(&kept).is_ok());
    assert!(artifacts.check_present(&gone).is_err());
}
