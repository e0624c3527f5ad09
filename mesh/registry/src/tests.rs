//! The registry as others use it.

use std::{sync::Arc, time::Duration};

use mesh_resources::{Kind, Problem, ResourceKey, Spec, TenantSpec};
use mesh_types::{Fault, FaultClass, ManualClock, TenantId};

use crate::{
    Author, Change, Expected, JournalLimits, MAX_AUTHOR_TEXT, MAX_CHANGES, MAX_PAGE, MAX_PENDING_WRITES,
    MAX_RESOURCE_BYTES, MAX_WRITE_BYTES, RegistryConfig, RegistryError, StorageError,
    testing::{BUILTIN, Bench, LossyFiles, START, admin, config, key, put, split, tenant, with_registry},
};

fn delete(text: &str, expected: Expected) -> Change {
    Change::Delete {
        key: key(text),
        expected,
    }
}

fn weighted(name: &str, weight: u32) -> mesh_resources::Resource {
    let mut resource = tenant(name);
    resource.spec = Spec::Tenant(TenantSpec {
        weight,
        ..TenantSpec::default()
    });
    resource
}

#[test]
fn a_write_fills_the_metadata_and_reads_back() {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(ManualClock::at(START));
    actix::System::new().block_on(async {
        let config = RegistryConfig {
            clock: clock.clone(),
            ..RegistryConfig::new(folder.path())
        };
        let bench = Bench::open(config).unwrap();
        let registry = bench.registry.handle();
        let written = registry
            .write(admin(), vec![Change::put(tenant("acme"))])
            .await
            .unwrap();
        assert_eq!(registry.get(&key("Tenant/acme")).unwrap(), Some(written[0].clone()));
        let metadata = &written[0].metadata;
        assert_eq!(metadata.revision, Some(1));
        assert_eq!(metadata.created.unwrap().as_second(), START);
        clock.advance(Duration::from_secs(60));
        let changed = registry
            .write(admin(), vec![Change::put(weighted("acme", 7))])
            .await
            .unwrap();
        let metadata = &changed[0].metadata;
        assert_eq!(metadata.revision, Some(2));
        assert_eq!(metadata.created.unwrap().as_second(), START);
        assert_eq!(metadata.updated.unwrap().as_second(), START + 60);
        assert_eq!(*registry.revision().borrow(), 2);
        let gone = registry
            .write(admin(), vec![delete("Tenant/acme", Expected::Revision(2))])
            .await;
        assert_eq!(gone.unwrap(), changed, "a delete answers what was there");
        assert_eq!(registry.get(&key("Tenant/acme")).unwrap(), None);
        bench.close().await;
    });
}

#[test]
fn a_write_that_expects_something_else_is_a_conflict_and_changes_nothing() {
    with_registry(|registry| async move {
        let both = vec![Change::put(tenant("acme")), Change::put(tenant("beta"))];
        registry.write(admin(), both).await.unwrap();
        registry
            .write(admin(), vec![Change::put(weighted("acme", 2))])
            .await
            .unwrap();
        let mut stale = weighted("acme", 3);
        stale.metadata.revision = Some(1);
        let put = |resource, expected| Change::Put { resource, expected };
        for (change, expected) in [
            (put(tenant("acme"), Expected::Absent), Expected::Absent),
            (put(tenant("acme"), Expected::Revision(1)), Expected::Revision(1)),
            (Change::put(stale), Expected::Revision(1)),
            (delete("Tenant/acme", Expected::Revision(1)), Expected::Revision(1)),
        ] {
            let refused = registry
                .write(admin(), vec![Change::put(weighted("beta", 9)), change])
                .await;
            let conflict = RegistryError::Conflict {
                key: key("Tenant/acme"),
                expected,
                found: Some(2),
            };
            assert_eq!(refused, Err(conflict.clone()));
            assert_eq!(Fault::from(conflict).class, FaultClass::Conflict);
        }
        assert_eq!(*registry.revision().borrow(), 2);
        let missing = registry
            .write(admin(), vec![delete("Tenant/none", Expected::Any)])
            .await;
        assert_eq!(missing, Err(RegistryError::NotFound(key("Tenant/none"))));
    });
}

#[test]
fn of_many_writers_that_expect_the_same_one_wins() {
    with_registry(|registry| async move {
        registry
            .write(admin(), vec![Change::put(tenant("acme"))])
            .await
            .unwrap();
        let mut writes = Vec::new();
        for weight in 1..=20 {
            let change = Change::Put {
                resource: weighted("acme", weight),
                expected: Expected::Revision(1),
            };
            let registry = registry.clone();
            writes.push(async move { registry.write(admin(), vec![change]).await });
        }
        let answers = join_all(writes).await;
        assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
        let conflicts = answers
            .iter()
            .filter(|answer| matches!(answer, Err(RegistryError::Conflict { found: Some(2), .. })));
        assert_eq!(conflicts.count(), 19);
    });
}

/// Polls all to their ends, each at least once before any is awaited.
async fn join_all<F: Future>(futures: Vec<F>) -> Vec<F::Output> {
    let mut running: Vec<_> = futures.into_iter().map(|future| (Box::pin(future), None)).collect();
    std::future::poll_fn(|context| {
        for (future, output) in &mut running {
            if output.is_none()
                && let std::task::Poll::Ready(ready) = future.as_mut().poll(context)
            {
                *output = Some(ready);
            }
        }
        if running.iter().all(|(_, output)| output.is_some()) {
            std::task::Poll::Ready(())
        } else {
            std::task::Poll::Pending
        }
    })
    .await;
    running.into_iter().filter_map(|(_, output)| output).collect()
}

#[test]
fn writes_that_wait_together_share_fsyncs() {
    let folder = tempfile::tempdir().unwrap();
    let files = LossyFiles::default();
    actix::System::new().block_on(async {
        let config = RegistryConfig {
            files: Arc::new(files.clone()),
            ..config(folder.path())
        };
        let bench = Bench::open(config).unwrap();
        let registry = bench.registry.handle();
        registry
            .write(admin(), vec![Change::put(tenant("first"))])
            .await
            .unwrap();
        let before = files.syncs();
        let writes = (0..MAX_PENDING_WRITES).map(|index| {
            let registry = registry.clone();
            async move {
                registry
                    .write(admin(), vec![Change::put(tenant(&format!("t{index}")))])
                    .await
            }
        });
        let answers = join_all(writes.collect()).await;
        let mut revisions: Vec<u64> = answers
            .iter()
            .map(|answer| answer.as_ref().unwrap()[0].metadata.revision.unwrap())
            .collect();
        revisions.sort_unstable();
        assert_eq!(revisions, (2..=MAX_PENDING_WRITES as u64 + 1).collect::<Vec<_>>());
        let syncs = files.syncs() - before;
        assert!(syncs < MAX_PENDING_WRITES, "{syncs} fsyncs");
        println!("{MAX_PENDING_WRITES} writes, {syncs} fsyncs");
        bench.close().await;
    });
}

#[test]
fn so_many_writes_wait_and_one_more_is_refused_at_once() {
    with_registry(|registry| async move {
        let write = |index: usize| {
            let registry = registry.clone();
            async move {
                registry
                    .write(admin(), vec![Change::put(tenant(&format!("t{index}")))])
                    .await
            }
        };
        let permits: Vec<_> = (0..MAX_PENDING_WRITES - 1)
            .map(|_| registry.inner.permits.try_acquire().unwrap())
            .collect();
        assert!(write(0).await.is_ok(), "the last place");
        let last = registry.inner.permits.try_acquire().unwrap();
        assert_eq!(write(1).await, Err(RegistryError::Busy));
        drop((permits, last));
        assert!(write(1).await.is_ok());
    });
}

#[test]
fn a_write_of_the_bounds_passes_and_one_past_each_does_not() {
    with_registry(|registry| async move {
        let tenants = |count: usize| -> Vec<Change> {
            (0..count)
                .map(|index| Change::put(tenant(&format!("t{index}"))))
                .collect()
        };
        assert!(registry.write(admin(), tenants(MAX_CHANGES)).await.is_ok());
        let refused = registry.write(admin(), tenants(MAX_CHANGES + 1)).await;
        assert!(matches!(refused, Err(RegistryError::TooMany { got, max: MAX_CHANGES, .. }) if got == MAX_CHANGES + 1));
        assert!(matches!(
            registry.write(admin(), Vec::new()).await,
            Err(RegistryError::Invalid(_))
        ));
        let by = |length: usize| Author::mesh("x".repeat(length));
        assert!(registry.write(by(MAX_AUTHOR_TEXT), tenants(1)).await.is_ok());
        let refused = registry.write(by(MAX_AUTHOR_TEXT + 1), tenants(1)).await;
        assert!(matches!(refused, Err(RegistryError::TooMany { .. })));
        let twice: Vec<Change> = tenants(1).into_iter().chain(tenants(1)).collect();
        let twice = registry.write(admin(), twice).await;
        assert!(twice.unwrap_err().to_string().contains("changed twice"));
    });
}

/// An issuer whose keys hold so many characters, each of two bytes in JSON, and one of one byte if `odd`.
fn issuer(name: &str, twos: usize, odd: bool) -> Change {
    let mut text = "\\n".repeat(twos);
    text.push_str(if odd { "x" } else { "" });
    let mut rest = text.as_str();
    let keys: Vec<String> = (0..32)
        .map(|index| {
            let part;
            (part, rest) = rest.split_at(rest.len().min(2 * (16_384 - 26)));
            format!(
                r#"{{"key_id":"k{index}","algorithm":"EdDSA","public_key_pem":"-----BEGIN PUBLIC KEY-----{part}"}}"#
            )
        })
        .collect();
    assert!(rest.is_empty());
    let spec = format!(
        r#"{{"issuer":"https://{name}","audiences":["mesh"],"tenants":{{"claim":"t"}},"keys":[{}]}}"#,
        keys.join(",")
    );
    put(&format!("Issuer/{name}"), &spec)
}

#[test]
fn no_resource_or_write_is_longer_than_its_bound() {
    with_registry(|registry| async move {
        let empty = registry.write(admin(), vec![issuer("i0", 0, false)]).await.unwrap();
        let missing = MAX_RESOURCE_BYTES - crate::record::encode(&empty[0]).unwrap().len();
        let exact = |name: &str| issuer(name, missing / 2, missing % 2 == 1);
        let over = issuer("i0", missing / 2 + missing % 2, missing.is_multiple_of(2));
        assert!(registry.write(admin(), vec![exact("i0")]).await.is_ok());
        let refused = registry.write(admin(), vec![over]).await;
        let bound = RegistryError::TooMany {
            what: "bytes in one resource",
            got: MAX_RESOURCE_BYTES + 1,
            max: MAX_RESOURCE_BYTES,
        };
        assert_eq!(refused, Err(bound));

        let mut full: Vec<Change> = (0..MAX_WRITE_BYTES / MAX_RESOURCE_BYTES)
            .map(|index| exact(&format!("i{index}")))
            .collect();
        assert!(registry.write(admin(), full.clone()).await.is_ok());
        full.push(Change::put(tenant("one-more")));
        let refused = registry.write(admin(), full).await;
        assert!(
            matches!(
                refused,
                Err(RegistryError::TooMany {
                    max: MAX_WRITE_BYTES,
                    ..
                })
            ),
            "{refused:?}"
        );
    });
}

#[test]
fn two_writes_too_long_for_one_fsync_are_both_kept() {
    with_registry(|registry| async move {
        let long = |name: &'static str| {
            let changes: Vec<Change> = (0..5)
                .map(|index| issuer(&format!("{name}{index}"), 500_000, false))
                .collect();
            let registry = registry.clone();
            async move { registry.write(admin(), changes).await }
        };
        let (one, two) = tokio::join!(long("a"), long("b"));
        assert!(one.is_ok() && two.is_ok(), "{one:?} {two:?}");
        assert_eq!(registry.verify_audit().unwrap().entries, 2);
    });
}

#[test]
fn as_many_resources_as_the_bound_and_not_one_more() {
    let folder = tempfile::tempdir().unwrap();
    actix::System::new().block_on(async {
        let small = || RegistryConfig {
            max_resources: 3,
            ..config(folder.path())
        };
        let bench = Bench::open(small()).unwrap();
        let registry = bench.registry.handle();
        for name in ["a", "b", "c"] {
            registry.write(admin(), vec![Change::put(tenant(name))]).await.unwrap();
        }
        let refused = registry.write(admin(), vec![Change::put(tenant("d"))]).await;
        assert!(matches!(refused, Err(RegistryError::TooMany { got: 4, max: 3, .. })));
        bench.close().await;
        let bench = Bench::open(small()).unwrap();
        let registry = bench.registry.handle();
        assert!(
            registry.write(admin(), vec![Change::put(tenant("d"))]).await.is_err(),
            "counted anew"
        );
        let swap = vec![delete("Tenant/a", Expected::Any), Change::put(tenant("d"))];
        assert!(registry.write(admin(), swap).await.is_ok());
        assert!(
            registry
                .write(admin(), vec![Change::put(weighted("b", 2))])
                .await
                .is_ok()
        );
        bench.close().await;
    });
}

#[test]
fn lists_are_cut_into_pages_and_versions_are_by_number() {
    with_registry(|registry| async move {
        let mut changes = vec![Change::put(tenant("acme")), put("Model/acme/m", "{}")];
        for number in [10, 9, 1, 2, 100] {
            changes.push(put(&format!("ModelVersion/acme/m/{number}"), BUILTIN));
        }
        registry.write(admin(), changes).await.unwrap();
        let acme = TenantId::parse("acme").unwrap();
        let mut names = Vec::new();
        let mut after: Option<ResourceKey> = None;
        loop {
            let page = registry
                .list(Kind::ModelVersion, Some(&acme), after.as_ref(), 2)
                .unwrap();
            assert!(page.items.len() <= 2);
            names.extend(page.items.into_iter().map(|resource| resource.metadata.name));
            after = page.next;
            if after.is_none() {
                break;
            }
        }
        assert_eq!(names, ["m/1", "m/2", "m/9", "m/10", "m/100"]);
        assert_eq!(registry.list(Kind::Model, None, None, 0).unwrap().items.len(), 1);
        let (revision, all) = registry.all().unwrap();
        assert_eq!((revision, all.len()), (1, 7));
    });
}

#[test]
fn a_page_has_at_most_its_bound() {
    with_registry(|registry| async move {
        let count = MAX_PAGE + 1;
        let names: Vec<usize> = (0..count).collect();
        for part in names.chunks(MAX_CHANGES) {
            let tenants = part.iter().map(|index| Change::put(tenant(&format!("t{index}"))));
            registry.write(admin(), tenants.collect()).await.unwrap();
        }
        for limit in [MAX_PAGE, MAX_PAGE + 1, usize::MAX] {
            let page = registry.list(Kind::Tenant, None, None, limit).unwrap();
            assert_eq!(page.items.len(), MAX_PAGE);
            let rest = registry.list(Kind::Tenant, None, page.next.as_ref(), limit).unwrap();
            assert_eq!((rest.items.len(), rest.next), (1, None));
        }
    });
}

#[test]
fn the_revision_and_the_changes_are_told() {
    with_registry(|registry| async move {
        let mut revision = registry.revision();
        let mut watch = registry.watch(0).unwrap();
        registry
            .write(admin(), vec![Change::put(tenant("acme"))])
            .await
            .unwrap();
        revision.changed().await.unwrap();
        assert_eq!(*revision.borrow_and_update(), 1);
        let events = watch.next().await.unwrap();
        assert_eq!((events[0].key.as_str(), events[0].revision), ("Tenant/acme", 1));
        assert!(matches!(registry.watch(9), Err(RegistryError::Watch(_))));
    });
}

#[test]
fn what_was_written_and_what_is_gone_since_a_revision_is_told_by_resource() {
    with_registry(|registry| async move {
        for resource in [tenant("acme"), tenant("globex")] {
            registry.write(admin(), vec![Change::put(resource)]).await.unwrap();
        }
        let gone = delete("Tenant/globex", Expected::Any);
        let changed = vec![gone, Change::put(weighted("acme", 7))];
        let written = registry.write(admin(), changed).await.unwrap();
        let told = registry.changes(1).unwrap().unwrap();
        assert_eq!((told.revision, &told.written[..]), (3, &written[1..]));
        assert_eq!(told.gone, [key("Tenant/globex")]);
        let nothing = registry.changes(3).unwrap().unwrap();
        assert!(nothing.written.is_empty() && nothing.gone.is_empty());
        assert_eq!(registry.changes(4).unwrap(), None, "it is not there yet");
    });
}

#[test]
fn a_resource_with_problems_is_refused_and_a_write_of_several_says_which() {
    with_registry(|registry| async move {
        let refused = registry.write(admin(), vec![Change::put(weighted("acme", 0))]).await;
        let Err(RegistryError::Invalid(problems)) = refused else {
            panic!("{refused:?}");
        };
        assert_eq!(problems, [Problem::new("spec.weight", "0 is not within 1 to 1000")]);
        let both = vec![Change::put(tenant("beta")), Change::put(weighted("acme", 0))];
        let Err(RegistryError::Invalid(problems)) = registry.write(admin(), both).await else {
            panic!("it was taken");
        };
        assert_eq!(problems[0].field, "Tenant/acme spec.weight");
        assert_eq!(registry.all().unwrap().1.len(), 0);
    });
}

#[test]
fn the_audit_log_says_who_changed_what_and_from_what() {
    with_registry(|registry| async move {
        registry
            .write(admin(), vec![Change::put(tenant("acme"))])
            .await
            .unwrap();
        registry
            .write(Author::mesh("test"), vec![Change::put(weighted("acme", 2))])
            .await
            .unwrap();
        registry
            .write(admin(), vec![delete("Tenant/acme", Expected::Any)])
            .await
            .unwrap();
        let entries = registry.audit(0, 10).unwrap().entries;
        assert_eq!(
            entries.iter().map(|entry| entry.revision).collect::<Vec<_>>(),
            [1, 2, 3]
        );
        assert_eq!((&entries[0].by, &entries[1].by), (&admin(), &Author::mesh("test")));
        assert_eq!(entries[0].time.as_second(), START);
        let change = |index: usize| &entries[index].changes[0];
        assert_eq!(change(0).key, key("Tenant/acme"));
        assert_eq!((&change(0).before, &change(2).after), (&None, &None));
        assert!(change(0).after.is_some() && change(0).after == change(1).before);
        assert_eq!(change(1).after, change(2).before);
        assert_ne!(change(1).before, change(1).after);
        assert_eq!(registry.audit(1, 1).unwrap().entries, entries[1..2]);
        assert_eq!(registry.audit(3, 10).unwrap().entries, []);
        let summary = registry.verify_audit().unwrap();
        assert_eq!((summary.entries, summary.segments), (3, 1));
        assert_eq!(summary.head, entries[2].hash);
    });
}

#[test]
fn the_audit_log_is_read_across_segments() {
    let folder = tempfile::tempdir().unwrap();
    actix::System::new().block_on(async {
        let config = RegistryConfig {
            journal: JournalLimits {
                segment_bytes: 2_000,
                ..JournalLimits::default()
            },
            ..config(folder.path())
        };
        let bench = Bench::open(config).unwrap();
        let registry = bench.registry.handle();
        for weight in 1..=30 {
            registry
                .write(admin(), vec![Change::put(weighted("acme", weight))])
                .await
                .unwrap();
        }
        let summary = registry.verify_audit().unwrap();
        assert!(summary.segments > 3, "{summary:?}");
        for after in 0..30 {
            let found = registry.audit(after, 5).unwrap().entries;
            let revisions: Vec<u64> = found.iter().map(|entry| entry.revision).collect();
            assert_eq!(revisions, (after + 1..=(after + 5).min(30)).collect::<Vec<_>>());
        }
        bench.close().await;
    });
}

#[test]
fn an_edited_or_replaced_log_is_found_out_while_it_is_open() {
    let folder = tempfile::tempdir().unwrap();
    actix::System::new().block_on(async {
        let files = LossyFiles::default();
        let config = |files: &LossyFiles, folder: &str| RegistryConfig {
            files: Arc::new(files.clone()),
            ..config(&tempfile::TempDir::keep(tempfile::tempdir_in(folder).unwrap()))
        };
        let at = folder.path().to_str().unwrap();
        let bench = Bench::open(config(&files, at)).unwrap();
        let registry = bench.registry.handle();
        registry
            .write(admin(), vec![Change::put(tenant("acme"))])
            .await
            .unwrap();
        // Another log of the same length, whole in itself.
        let forged = LossyFiles::default();
        let forger = Bench::open(config(&forged, at)).unwrap();
        let evil = vec![Change::put(tenant("evil"))];
        let other = forger.registry.handle();
        other.write(Author::mesh("other"), evil).await.unwrap();
        drop(other);
        forger.close().await;
        let text = std::cell::RefCell::new(Vec::new());
        forged.edit(&forged.paths()[0], |bytes| text.borrow_mut().clone_from(bytes));
        let mut original = Vec::new();
        let path = files.paths()[0].clone();
        files.edit(&path, |bytes| original = std::mem::replace(bytes, text.into_inner()));
        let replaced = StorageError::JournalReplaced { revision: 1 };
        assert_eq!(registry.verify_audit(), Err(RegistryError::Storage(replaced)));
        files.edit(&path, |bytes| {
            *bytes = original;
            let at = bytes.windows(5).position(|window| window == b"admin").unwrap();
            bytes[at] = b'A';
        });
        let edited = registry.verify_audit();
        assert!(
            matches!(
                edited,
                Err(RegistryError::Storage(StorageError::Journal { .. }))
                    | Err(RegistryError::Storage(StorageError::JournalBehind { .. }))
            ),
            "{edited:?}"
        );
        bench.close().await;
    });
}

#[test]
fn two_processes_do_not_open_one_folder() {
    let folder = tempfile::tempdir().unwrap();
    actix::System::new().block_on(async {
        let bench = Bench::open(config(folder.path())).unwrap();
        let second = Bench::open(config(folder.path()));
        assert_eq!(second.err(), Some(RegistryError::Storage(StorageError::Locked)));
        bench.close().await;
        Bench::open(config(folder.path())).unwrap().close().await;
    });
}

#[test]
fn a_writer_whose_disk_failed_goes_on_once_it_works() {
    let folder = tempfile::tempdir().unwrap();
    let files = LossyFiles::default();
    actix::System::new().block_on(async {
        let config = RegistryConfig {
            files: Arc::new(files.clone()),
            ..config(folder.path())
        };
        let bench = Bench::open(config).unwrap();
        let registry = bench.registry.handle();
        registry.write(admin(), vec![Change::put(tenant("a"))]).await.unwrap();
        files.fail_syncs(2);
        let refused = registry.write(admin(), vec![Change::put(tenant("b"))]).await;
        assert!(
            matches!(refused, Err(RegistryError::NotRecorded(StorageError::Io { .. }))),
            "{refused:?}"
        );
        assert_eq!(registry.get(&key("Tenant/b")).unwrap(), None);
        let written = registry.write(admin(), vec![Change::put(tenant("c"))]).await.unwrap();
        assert_eq!(written[0].metadata.revision, Some(2));
        assert_eq!(registry.verify_audit().unwrap().entries, 2);
        bench.close().await;
    });
}

#[test]
fn a_writer_that_panics_is_rebuilt_with_everything() {
    with_registry(|registry| async move {
        registry.write(admin(), vec![Change::put(tenant("a"))]).await.unwrap();
        let mut up = registry.inner.up.clone();
        let starts = *up.borrow_and_update();
        let mut dies = Some(crate::actor::BetweenWrites(Box::new(|| panic!("told to"))));
        let died = registry.send(|| dies.take());
        let beside = registry.write(admin(), vec![Change::put(tenant("c"))]);
        let (died, beside) = tokio::join!(died, beside);
        assert_eq!(died, Err(RegistryError::Unanswered));
        assert!(beside.is_ok(), "it had not been seen: {beside:?}");
        let written = registry.write(admin(), vec![Change::put(tenant("b"))]).await.unwrap();
        assert_eq!(written[0].metadata.revision, Some(3));
        assert_eq!(*up.borrow_and_update(), starts + 1);
        assert_eq!(registry.all().unwrap().1.len(), 3);
        assert_eq!(registry.verify_audit().unwrap().entries, 3);
    });
}

#[test]
fn a_check_answers_like_the_write_and_writes_nothing() {
    with_registry(|registry| async move {
        let change = || vec![Change::put(tenant("a"))];
        let checked = registry.check(admin(), change()).await.unwrap();
        assert_eq!(registry.get(&key("Tenant/a")).unwrap(), None);
        assert_eq!(*registry.revision().borrow(), 0);
        assert_eq!(registry.write(admin(), change()).await.unwrap(), checked);
        let bad = || vec![put("Model/none/m", "{}")];
        let refused = registry.check(admin(), bad()).await;
        assert!(refused.is_err());
        assert_eq!(refused, registry.write(admin(), bad()).await);
    });
}

#[test]
fn after_the_end_a_write_is_refused_and_reads_go_on() {
    let folder = tempfile::tempdir().unwrap();
    actix::System::new().block_on(async {
        let bench = Bench::open(config(folder.path())).unwrap();
        let registry = bench.registry.handle();
        registry.write(admin(), vec![Change::put(tenant("a"))]).await.unwrap();
        bench.close().await;
        let refused = registry.write(admin(), vec![Change::put(tenant("b"))]).await;
        assert_eq!(refused, Err(RegistryError::Down));
        assert!(registry.get(&key("Tenant/a")).unwrap().is_some());
    });
}

#[test]
fn artifacts_that_no_version_refers_to_are_removed() {
    with_registry(|registry| async move {
        let mut upload = registry.artifacts().begin().await.unwrap();
        upload.write(bytes::Bytes::from_static(b"abc")).await.unwrap();
        let artifact = upload.finish(None).await.unwrap();
        let spec = BUILTIN.replace(
            r#""format":"builtin""#,
            &format!(
                r#""format":"torchscript","artifact":{{"sha256":"{}","bytes":3}}"#,
                artifact.sha256
            ),
        );
        let spec = spec.replace("identity", "pytorch");
        let changes = vec![
            Change::put(tenant("acme")),
            put("Model/acme/m", "{}"),
            put("ModelVersion/acme/m/1", &spec),
            put("Endpoint/acme/e", &split("m", "1")),
        ];
        registry.write(admin(), changes).await.unwrap();
        assert_eq!(registry.remove_unreferenced_artifacts(Duration::ZERO).await, Ok(0));
        let gone = vec![
            delete("Endpoint/acme/e", Expected::Any),
            delete("ModelVersion/acme/m/1", Expected::Any),
        ];
        registry.write(admin(), gone).await.unwrap();
        assert_eq!(
            registry.remove_unreferenced_artifacts(Duration::from_secs(3600)).await,
            Ok(0),
            "it is young"
        );
        assert_eq!(registry.remove_unreferenced_artifacts(Duration::ZERO).await, Ok(1));
        let refused = registry.write(admin(), vec![put("ModelVersion/acme/m/1", &spec)]).await;
        assert!(refused.unwrap_err().to_string().contains("upload it first"));
    });
}

#[test]
fn an_event_is_an_entry_that_changes_nothing_and_its_text_has_a_bound() {
    with_registry(|registry| async move {
        registry
            .write(admin(), vec![Change::put(tenant("acme"))])
            .await
            .unwrap();
        let all = registry.all().unwrap().1;
        registry.note(admin(), &"e".repeat(MAX_AUTHOR_TEXT)).await.unwrap();
        let refused = registry.note(admin(), &"e".repeat(MAX_AUTHOR_TEXT + 1)).await;
        assert!(
            matches!(
                refused,
                Err(RegistryError::TooMany {
                    max: MAX_AUTHOR_TEXT,
                    ..
                })
            ),
            "{refused:?}"
        );
        assert_eq!(registry.all().unwrap(), (2, all));
        let last = registry.audit(1, 10).unwrap().entries;
        assert_eq!((last.len(), last[0].changes.len(), &last[0].by), (1, 0, &admin()));
        registry.verify_audit().unwrap();
    });
}
