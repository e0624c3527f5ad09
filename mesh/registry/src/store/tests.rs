//! One suite for every store.

use std::{collections::BTreeMap, sync::Arc};

use super::*;

type Named = (&'static str, Arc<dyn Store>);

/// Every store there is, empty, by name. The folder lives as long as the test.
fn stores() -> (tempfile::TempDir, Vec<Named>) {
    let folder = tempfile::tempdir().unwrap();
    let sled = SledStore::open(&folder.path().join("index")).unwrap();
    let stores: Vec<Named> = vec![("memory", Arc::new(MemoryStore::default())), ("sled", Arc::new(sled))];
    (folder, stores)
}

fn on_each(test: impl Fn(&dyn Store)) {
    let (_folder, stores) = stores();
    for (name, store) in stores {
        println!("on {name}");
        test(&*store);
    }
}

fn write(key: &str, expected: Expected, value: Option<&str>) -> Write {
    Write {
        key: key.to_owned(),
        expected,
        value: value.map(|value| value.as_bytes().to_vec()),
    }
}

fn batch(writes: Vec<Write>) -> Batch {
    Batch {
        writes,
        mark: b"mark".to_vec(),
    }
}

fn keys(page: &StorePage) -> Vec<&str> {
    page.entries.iter().map(|(key, _)| key.as_str()).collect()
}

#[test]
fn a_value_reads_back_with_the_revision_of_its_write() {
    on_each(|store| {
        assert_eq!(store.get("a").unwrap(), None);
        assert_eq!(store.put("a", b"1", Expected::Any).unwrap(), 1);
        assert_eq!(store.put("b", b"2", Expected::Any).unwrap(), 2);
        assert_eq!(store.put("a", b"3", Expected::Any).unwrap(), 3);
        let stored = |revision, value: &[u8]| {
            let value = value.to_vec();
            Some(Stored { revision, value })
        };
        assert_eq!(store.get("a").unwrap(), stored(3, b"3"));
        assert_eq!(store.get("b").unwrap(), stored(2, b"2"));
        assert_eq!(*store.revision().borrow(), 3);
    });
}

#[test]
fn a_put_needs_the_revision_that_it_expects() {
    on_each(|store| {
        store.put("a", b"1", Expected::Absent).unwrap();
        for expected in [Expected::Absent, Expected::Revision(2)] {
            let refused = store.put("a", b"2", expected);
            let conflict = StoreError::Conflict {
                key: "a".to_owned(),
                expected,
                found: Some(1),
            };
            assert_eq!(refused, Err(conflict));
        }
        assert!(store.put("b", b"2", Expected::Revision(1)).is_err());
        assert_eq!(*store.revision().borrow(), 1, "what is refused is no revision");
        assert_eq!(store.put("a", b"2", Expected::Revision(1)).unwrap(), 2);
    });
}

#[test]
fn a_batch_is_one_revision_and_all_or_nothing() {
    on_each(|store| {
        store.put("a", b"1", Expected::Any).unwrap();
        let both = vec![
            write("a", Expected::Revision(1), None),
            write("b", Expected::Absent, Some("2")),
        ];
        let refused = vec![both[0].clone(), write("b", Expected::Revision(9), Some("2"))];
        assert!(store.commit(&batch(refused)).is_err());
        assert!(store.get("a").unwrap().is_some(), "nothing of it happened");
        assert_eq!(store.commit(&batch(both)).unwrap(), 2);
        assert_eq!(store.get("a").unwrap(), None);
        assert_eq!(store.get("b").unwrap().unwrap().revision, 2);
        let state = store.state().unwrap();
        assert_eq!((state.revision, state.mark.as_slice()), (2, b"mark".as_slice()));
        let mut seen = BTreeMap::new();
        let visited = store.visit(&mut |key, stored| drop(seen.insert(key.to_owned(), stored)));
        assert_eq!((visited.unwrap(), &seen), (2, &state.entries));
        assert_eq!(state.entries.keys().collect::<Vec<_>>(), ["b"]);
    });
}

#[test]
fn a_listing_has_the_prefix_in_order_and_goes_on_where_it_ended() {
    on_each(|store| {
        for key in ["t/b/2", "t/a/1", "t/b/1", "u/x", "t/b/3", "t/bb/1", "s"] {
            store.put(key, b"", Expected::Any).unwrap();
        }
        let all = store.list("t/", None, 10).unwrap();
        assert_eq!(keys(&all), ["t/a/1", "t/b/1", "t/b/2", "t/b/3", "t/bb/1"]);
        assert!(!all.more);
        let exact = store.list("t/b/", None, 3).unwrap();
        assert_eq!(
            (keys(&exact).len(), exact.more),
            (3, false),
            "a full page is not a cut one"
        );
        let first = store.list("t/b/", None, 2).unwrap();
        assert_eq!((keys(&first), first.more), (vec!["t/b/1", "t/b/2"], true));
        let rest = store.list("t/b/", Some("t/b/2"), 2).unwrap();
        assert_eq!((keys(&rest), rest.more), (vec!["t/b/3"], false));
        assert_eq!(keys(&store.list("t/b/", Some("t/a/9"), 9).unwrap()).len(), 3);
        assert_eq!(keys(&store.list("", None, 9).unwrap()).len(), 7);
        assert!(keys(&store.list("v", None, 9).unwrap()).is_empty());
    });
}

#[tokio::test]
async fn a_watch_tells_what_was_and_then_what_comes() {
    let (_folder, stores) = stores();
    for (_, store) in stores {
        store.put("a", b"1", Expected::Any).unwrap();
        store.put("b", b"1", Expected::Any).unwrap();
        let event = |revision, key: &str, deleted| Event {
            revision,
            key: key.to_owned(),
            deleted,
        };
        let mut watch = store.watch(1).unwrap();
        assert_eq!(watch.next().await, Ok(vec![event(2, "b", false)]));
        let writes = vec![write("a", Expected::Any, None), write("c", Expected::Any, Some("1"))];
        let (next, ()) = tokio::join!(watch.next(), async {
            store.commit(&batch(writes)).unwrap();
        });
        assert_eq!(next, Ok(vec![event(3, "a", true), event(3, "c", false)]));
        assert_eq!(store.watch(4).err(), Some(StoreError::NotYet { asked: 4, newest: 3 }));
    }
}

#[tokio::test]
async fn a_watch_remembers_its_bound_of_changes_and_not_one_more() {
    let (_folder, stores) = stores();
    for (_, store) in stores {
        let mut from_the_start = store.watch(0).unwrap();
        for _ in 0..HISTORY_EVENTS {
            store.put("a", b"1", Expected::Any).unwrap();
        }
        assert!(store.watch(0).is_ok());
        store.put("a", b"1", Expected::Any).unwrap();
        let too_old = StoreError::TooOld { asked: 0, oldest: 1 };
        assert_eq!(store.watch(0).err(), Some(too_old.clone()));
        assert!(too_old.to_string().contains("only those since 1"), "{too_old}");
        assert_eq!(from_the_start.next().await, Err(too_old), "it fell behind");
        assert_eq!(store.watch(1).unwrap().next().await.unwrap().len(), HISTORY_EVENTS);
    }
}

#[test]
fn what_has_changed_is_told_as_it_is_now_each_key_once_and_within_what_is_remembered() {
    on_each(|store| {
        store.put("a", b"1", Expected::Any).unwrap();
        store.put("b", b"1", Expected::Any).unwrap();
        store.put("a", b"2", Expected::Any).unwrap();
        let gone = batch(vec![
            write("b", Expected::Any, None),
            write("c", Expected::Absent, Some("1")),
        ]);
        store.commit(&gone).unwrap();
        let changed = store.changed(1).unwrap();
        assert_eq!(changed.revision, 4);
        let told: Vec<_> = changed
            .entries
            .iter()
            .map(|(key, stored)| (key.as_str(), stored.as_ref().map(|stored| stored.revision)))
            .collect();
        assert_eq!(told, [("a", Some(3)), ("b", None), ("c", Some(4))]);
        assert_eq!(store.changed(4).unwrap().entries, []);
        assert_eq!(store.changed(5), Err(StoreError::NotYet { asked: 5, newest: 4 }));
        store.restore(&store.state().unwrap()).unwrap();
        assert_eq!(store.changed(3), Err(StoreError::TooOld { asked: 3, oldest: 4 }));
    });
}

#[test]
fn restore_makes_it_exactly_that_and_forgets_what_was_watched() {
    on_each(|store| {
        for key in ["a", "b", "c"] {
            store.put(key, b"1", Expected::Any).unwrap();
        }
        let stored = Stored {
            revision: 7,
            value: b"2".to_vec(),
        };
        let state = State {
            revision: 9,
            mark: b"m".to_vec(),
            entries: BTreeMap::from([("b".to_owned(), stored.clone()), ("d".to_owned(), stored)]),
        };
        store.restore(&state).unwrap();
        assert_eq!(store.state().unwrap(), state);
        assert!(matches!(store.watch(3), Err(StoreError::TooOld { oldest: 9, .. })));
        assert_eq!(store.put("e", b"1", Expected::Absent).unwrap(), 10);
    });
}

#[test]
fn sled_waits_for_one_that_is_still_being_closed() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    store.put("a", b"1", Expected::Any).unwrap();
    store.flush().unwrap();
    let (tell, told) = std::sync::mpsc::channel::<()>();
    let leaving = std::thread::spawn(move || {
        // Long enough that who does not wait finds the lock held, whoever runs first.
        assert!(told.recv_timeout(std::time::Duration::from_millis(300)).is_err());
        drop(store);
    });
    let again = SledStore::open(folder.path()).unwrap();
    assert_eq!(again.get("a").unwrap().unwrap().value, b"1");
    drop(tell);
    leaving.join().unwrap();
}

#[test]
fn sled_has_it_after_it_was_closed() {
    let folder = tempfile::tempdir().unwrap();
    let store = SledStore::open(folder.path()).unwrap();
    store.put("a", b"1", Expected::Any).unwrap();
    let state = store.state().unwrap();
    store.flush().unwrap();
    drop(store);
    let store = SledStore::open(folder.path()).unwrap();
    assert_eq!(store.state().unwrap(), state);
    assert!(store.is(&state).unwrap());
    let others = [
        State {
            revision: 2,
            ..state.clone()
        },
        State {
            mark: b"other".to_vec(),
            ..state.clone()
        },
        State {
            entries: BTreeMap::new(),
            ..state.clone()
        },
        State {
            entries: BTreeMap::from([("b".to_owned(), state.entries["a"].clone())]),
            ..state.clone()
        },
        State {
            entries: ["a", "b"]
                .map(|key| (key.to_owned(), state.entries["a"].clone()))
                .into(),
            ..state.clone()
        },
    ];
    for other in others {
        assert!(!store.is(&other).unwrap(), "{other:?}");
    }
    assert_eq!(store.put("a", b"2", Expected::Revision(1)).unwrap(), 2);
}
