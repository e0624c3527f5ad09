//! The audit log against whoever wants to change it: signed heads, exports, and a disk that takes no more.

use std::{path::Path, sync::Arc};

use mesh_policies::{PublicKey, SigningKey};

use crate::{
    AuditExport, Author, Change, ExportSummary, JournalLimits, MAX_EXPORT_LINE, RegistryConfig, RegistryError,
    RegistryHandle, StorageError,
    testing::{Bench, LossyFiles, admin, config, tenant},
    verify_audit_folder, verify_export,
};

fn signer(seed: u8) -> SigningKey {
    SigningKey::from_seed(&[seed; 32]).unwrap()
}

fn signing(folder: &Path) -> RegistryConfig {
    config(folder).with_audit_key(signer(1))
}

async fn put(registry: &RegistryHandle, name: &str) {
    let from = Author {
        from: Some("192.0.2.7".to_owned()),
        ..admin()
    };
    registry.write(from, vec![Change::put(tenant(name))]).await.unwrap();
}

async fn sign(registry: &RegistryHandle) {
    registry.sign_audit(Author::mesh("audit")).await.unwrap();
}

/// An export as the lines of a file.
fn exported(registry: &RegistryHandle, wanted: AuditExport) -> Vec<String> {
    let (mut lines, mut wanted) = (Vec::new(), wanted);
    loop {
        let part = registry.export_audit(wanted).unwrap();
        if lines.is_empty() {
            lines.push(serde_json::to_string(&part.header).unwrap());
        }
        let entries = part
            .entries
            .iter()
            .map(|item| serde_json::to_string(&item.line).unwrap());
        lines.extend(entries);
        match part.next {
            Some(next) => wanted.after = next,
            None => return lines,
        }
    }
}

fn pages(limit: usize) -> AuditExport {
    AuditExport {
        limit,
        ..AuditExport::default()
    }
}

fn checked(lines: &[String], key: Option<PublicKey>) -> Result<ExportSummary, String> {
    let text = lines.join("\n") + "\n";
    verify_export(&mut text.as_bytes(), key).map_err(|error| error.to_string())
}

#[test]
fn a_head_is_signed_when_asked_and_not_twice_for_the_same() {
    let folder = tempfile::tempdir().unwrap();
    actix::System::new().block_on(async {
        let bench = Bench::open(signing(folder.path())).unwrap();
        let registry = bench.registry.handle();
        sign(&registry).await;
        assert_eq!(registry.verify_audit().unwrap().entries, 0, "nothing to sign");
        put(&registry, "a").await;
        sign(&registry).await;
        sign(&registry).await;
        let summary = registry.verify_audit().unwrap();
        assert_eq!((summary.entries, summary.heads, summary.signed), (2, 1, Some(1)));
        assert_eq!(summary.key, Some(signer(1).public()));
        let entries = registry.audit(0, 10).unwrap().entries;
        assert_eq!(entries[0].by.from.as_deref(), Some("192.0.2.7"));
        assert_eq!(entries[1].head.as_ref().map(|head| head.key), Some(signer(1).public()));
        bench.close().await;
        // What was signed is known after a start, too.
        let bench = Bench::open(signing(folder.path())).unwrap();
        let registry = bench.registry.handle();
        sign(&registry).await;
        assert_eq!(registry.verify_audit().unwrap().entries, 2);
        put(&registry, "b").await;
        sign(&registry).await;
        assert_eq!(registry.verify_audit().unwrap().signed, Some(3));
        bench.close().await;
    });
}

#[test]
fn writes_that_come_with_a_signature_are_each_where_they_belong() {
    let folder = tempfile::tempdir().unwrap();
    actix::System::new().block_on(async {
        let bench = Bench::open(signing(folder.path())).unwrap();
        let registry = bench.registry.handle();
        put(&registry, "a").await;
        // All of these wait at once, and share what they can.
        tokio::join!(
            put(&registry, "b"),
            sign(&registry),
            put(&registry, "c"),
            sign(&registry),
            sign(&registry)
        );
        let summary = registry.verify_audit().unwrap();
        assert_eq!((summary.entries, summary.heads), (5, 2));
        bench.close().await;
    });
}

/// Writes the chain of a journal anew after changing a text, as somebody could who has the disk but not the key.
fn rewritten(lines: &[String], from: &str, to: &str) -> Vec<String> {
    let mut head = [0; 32];
    let mut forged = vec![lines[0].clone()];
    for line in &lines[1..] {
        let entry: crate::ExportEntry = serde_json::from_str(line).unwrap();
        let told = entry.entry.get().replace(from, to);
        head = crate::journal::chain(&head, told.as_bytes());
        forged.push(format!(r#"{{"hash":"{}","entry":{told}}}"#, crate::audit::hex(&head)));
    }
    forged
}

#[test]
fn an_export_is_checked_with_the_public_key_alone_and_names_what_was_changed() {
    let folder = tempfile::tempdir().unwrap();
    actix::System::new().block_on(async {
        let bench = Bench::open(signing(folder.path())).unwrap();
        let registry = bench.registry.handle();
        for name in ["a", "b", "c"] {
            put(&registry, name).await;
        }
        sign(&registry).await;
        put(&registry, "d").await;
        let key = Some(signer(1).public());
        for limit in [1, 2, 100] {
            let lines = exported(&registry, pages(limit));
            let summary = checked(&lines, key).unwrap();
            assert_eq!((summary.entries, summary.revisions), (5, Some((1, 5))), "{limit}");
            assert_eq!((summary.heads, summary.signed, summary.unproved), (1, Some(3), 0));
        }
        let lines = exported(&registry, pages(100));
        // A part of it is as good.
        let part = exported(&registry, AuditExport { after: 2, ..pages(100) });
        assert_eq!(checked(&part, key).unwrap().revisions, Some((3, 5)));
        // Nothing of what resources hold is in it.
        assert!(!lines.join("").contains("weight"), "{lines:?}");

        let with = |index: usize, line: &str| {
            let mut lines = lines.clone();
            lines[index] = line.to_owned();
            lines
        };
        let changed = with(2, &lines[2].replace("Tenant/b", "Tenant/x"));
        assert_eq!(
            checked(&changed, key).unwrap_err(),
            "line 3: the hash of revision 2 does not follow from what is written: it was changed"
        );
        let mut missing = lines.clone();
        missing.remove(2);
        assert_eq!(checked(&missing, key).unwrap_err(), "line 3: revision 3 follows 1");
        // A chain that was made anew fits together, but not with the signature.
        let forged = rewritten(&lines, "192.0.2.7", "198.51.100.1");
        assert!(
            checked(&forged, key)
                .unwrap_err()
                .starts_with("line 5: the signature in revision 4 does not hold"),
            "{:?}",
            checked(&forged, key)
        );
        let other = checked(&lines, Some(signer(2).public())).unwrap_err();
        assert!(other.contains("must be by"), "{other}");
        bench.close().await;
    });
}

#[test]
fn an_export_begins_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    actix::System::new().block_on(async {
        let clock = Arc::new(mesh_types::ManualClock::at(crate::testing::START));
        let config = RegistryConfig {
            clock: clock.clone(),
            ..signing(folder.path())
        };
        let bench = Bench::open(config).unwrap();
        let registry = bench.registry.handle();
        for name in ["a", "b", "c"] {
            put(&registry, name).await;
            clock.advance(std::time::Duration::from_secs(60));
        }
        let since = |seconds: i64| {
            let since = jiff::Timestamp::from_second(crate::testing::START + seconds).unwrap();
            let wanted = AuditExport {
                since: Some(since),
                ..pages(1)
            };
            checked(&exported(&registry, wanted), None).unwrap().revisions
        };
        assert_eq!(since(0), Some((1, 3)));
        assert_eq!(since(1), Some((2, 3)));
        assert_eq!(since(120), Some((3, 3)));
        assert_eq!(since(121), None);
        bench.close().await;
    });
}

#[test]
fn a_line_is_read_up_to_its_bound() {
    let line = |length: usize| " ".repeat(length);
    let refused = |length| checked(&[line(length)], None).unwrap_err();
    assert!(refused(MAX_EXPORT_LINE).contains("not the first line"));
    assert!(refused(MAX_EXPORT_LINE + 1).contains("longer than"));
}

#[test]
fn a_data_folder_is_checked_offline_and_its_first_bad_record_is_named() {
    let folder = tempfile::tempdir().unwrap();
    let files = LossyFiles::default();
    let config = || RegistryConfig {
        files: Arc::new(files.clone()),
        journal: JournalLimits {
            segment_bytes: 1_000,
            snapshot_segments: usize::MAX,
            ..JournalLimits::default()
        },
        ..signing(folder.path())
    };
    actix::System::new().block_on(async {
        let bench = Bench::open(config()).unwrap();
        let registry = bench.registry.handle();
        for name in ["a", "b", "c", "d"] {
            put(&registry, name).await;
        }
        sign(&registry).await;
        // While it is open, too.
        let key = Some(signer(1).public());
        let summary = verify_audit_folder(&config(), key).unwrap();
        assert_eq!((summary.entries, summary.signed), (5, Some(4)));
        bench.close().await;
        let other = verify_audit_folder(&config(), Some(signer(2).public()));
        assert!(
            matches!(
                &other,
                Err(RegistryError::Storage(StorageError::HeadForged { revision: 5, .. }))
            ),
            "{other:?}"
        );
        let paths = files.paths();
        let segment = paths.iter().find(|path| path.ends_with("00000000000000000003.journal"));
        let segment = segment.unwrap_or_else(|| panic!("{paths:?}"));
        files.edit(segment, |bytes| {
            let at = bytes
                .windows(8)
                .position(|window| window == b"Tenant/c" || window == b"\"name\":\"")
                .unwrap();
            bytes[at] ^= 1;
        });
        let wrong = verify_audit_folder(&config(), key).unwrap_err().to_string();
        assert!(wrong.contains("where revision 3 should be"), "{wrong}");
    });
}

#[test]
fn a_record_beside_the_chain_is_held_to_its_digest() {
    let folder = tempfile::tempdir().unwrap();
    let files = LossyFiles::default();
    let config = || RegistryConfig {
        files: Arc::new(files.clone()),
        ..signing(folder.path())
    };
    actix::System::new().block_on(async {
        let bench = Bench::open(config()).unwrap();
        put(&bench.registry.handle(), "a").await;
        bench.close().await;
        let path = files.paths()[0].clone();
        files.edit(&path, |bytes| {
            // The weight of the tenant, and the frame's checksum made right again.
            let at = bytes.windows(10).rposition(|window| window == b"\"weight\":1").unwrap();
            bytes[at + 9] = b'9';
            let payload = bytes[52 + 12..].to_vec();
            let length: [u8; 4] = bytes[52 + 4..52 + 8].try_into().unwrap();
            let mut crc = crc32fast::Hasher::new();
            crc.update(&length);
            crc.update(&payload);
            bytes[52 + 8..52 + 12].copy_from_slice(&crc.finalize().to_be_bytes());
        });
        let wrong = verify_audit_folder(&config(), None).unwrap_err().to_string();
        assert!(
            wrong.contains("a record of revision 1 is not the one that was written"),
            "{wrong}"
        );
    });
}

#[test]
fn what_cannot_be_written_into_the_log_is_not_done_and_reading_goes_on() {
    let folder = tempfile::tempdir().unwrap();
    let files = LossyFiles::default();
    let config = RegistryConfig {
        files: Arc::new(files.clone()),
        ..signing(folder.path())
    };
    actix::System::new().block_on(async {
        let bench = Bench::open(config).unwrap();
        let registry = bench.registry.handle();
        put(&registry, "a").await;
        files.dark_after(Some(0));
        for _ in 0..3 {
            let refused = registry.write(admin(), vec![Change::put(tenant("b"))]).await;
            let error = refused.unwrap_err();
            assert!(matches!(error, RegistryError::NotRecorded(_)), "{error:?}");
            let fault = mesh_types::Fault::from(error);
            assert_eq!(fault.class, mesh_types::FaultClass::Unavailable);
            assert!(
                fault.message.contains("audit log cannot be written"),
                "{}",
                fault.message
            );
            assert_eq!(registry.all().unwrap().1.len(), 1, "what is there is there");
        }
        assert!(registry.sign_audit(Author::mesh("audit")).await.is_err());
        files.dark_after(None);
        put(&registry, "b").await;
        assert_eq!(registry.verify_audit().unwrap().revision, 2);
        bench.close().await;
    });
}
