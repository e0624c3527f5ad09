//! Issuers that go while a slow disk writes their keys.

use std::{
    sync::mpsc::{Receiver, SyncSender, sync_channel},
    thread,
};

use mesh_policies::{KeyAlgorithm, KeyLocation};

use super::*;

/// A shelf on which a set is written for as long as the test likes.
struct Slow {
    /// Told that a write has begun, before anything is there.
    begun: SyncSender<()>,
    /// Waited for before it ends.
    go_on: Mutex<Receiver<()>>,
    lies: Mutex<BTreeMap<String, i64>>,
}

impl Shelf for Slow {
    fn keep(&self, book: &KeyBook, _: &[u8], fetched: i64) {
        self.begun.send(()).unwrap();
        self.go_on.lock().recv().unwrap();
        self.lies.lock().insert(book.name().to_owned(), fetched);
    }

    fn forget(&self, name: &str) {
        self.lies.lock().remove(name);
    }
}

struct Scene {
    shelf: Arc<Slow>,
    shelving: Arc<Shelving>,
    begun: Receiver<()>,
    go_on: SyncSender<()>,
}

impl Scene {
    fn new() -> Self {
        let ((begun, has_begun), (go_on, going_on)) = (sync_channel(8), sync_channel(8));
        let shelf = Arc::new(Slow {
            begun,
            go_on: Mutex::new(going_on),
            lies: Mutex::default(),
        });
        Self {
            shelving: Arc::new(Shelving::new(shelf.clone())),
            shelf,
            begun: has_begun,
            go_on,
        }
    }

    /// A write that is under way.
    fn writing(&self, book: &Arc<KeyBook>, fetched: i64) -> thread::JoinHandle<()> {
        let (shelving, book) = (self.shelving.clone(), book.clone());
        let writing = thread::spawn(move || shelving.keep(&book, b"set", fetched));
        self.begun.recv().unwrap();
        writing
    }

    fn write(&self, book: &Arc<KeyBook>, fetched: i64) {
        self.go_on.send(()).unwrap();
        self.shelving.keep(book, b"set", fetched);
    }

    fn lies(&self) -> Vec<(String, i64)> {
        self.shelf.lies.lock().clone().into_iter().collect()
    }
}

fn book(name: &str) -> Arc<KeyBook> {
    let discovered = KeyLocation::Discovered;
    Arc::new(KeyBook::new(
        name,
        "https://idp.example",
        discovered,
        vec![KeyAlgorithm::EdDSA],
    ))
}

#[test]
fn an_issuer_that_is_deleted_while_its_keys_are_written_leaves_nothing_behind() {
    let (scene, sso) = (Scene::new(), book("sso"));
    scene.shelving.follow(std::slice::from_ref(&sso));
    let writing = scene.writing(&sso, 1);
    // It goes while the disk takes its time; whoever says so does not wait for the disk, and whoever is to forget it does.
    scene.shelving.follow(&[]);
    assert!(scene.shelving.hand.try_lock().is_none());
    let tidying = {
        let shelving = scene.shelving.clone();
        thread::spawn(move || shelving.tidy())
    };
    scene.go_on.send(()).unwrap();
    writing.join().unwrap();
    tidying.join().unwrap();
    assert_eq!(scene.lies(), []);
    // A fetch that ends later still is not kept either.
    scene.write(&sso, 2);
    assert_eq!(scene.lies(), []);
}

#[test]
fn what_a_former_declaration_brought_gives_way_and_what_the_new_one_brought_stays() {
    let (scene, before, after) = (Scene::new(), book("sso"), book("sso"));
    scene.shelving.follow(std::slice::from_ref(&before));
    let writing = scene.writing(&before, 1);
    scene.shelving.follow(std::slice::from_ref(&after));
    scene.go_on.send(()).unwrap();
    writing.join().unwrap();
    // The new one's set comes before the shelf is tidied: it is not what is to go.
    scene.write(&after, 2);
    scene.write(&before, 3);
    scene.shelving.tidy();
    assert_eq!(scene.lies(), [("sso".to_owned(), 2)]);
    // And where it brought nothing, nothing stays.
    scene.shelving.follow(&[book("sso")]);
    scene.shelving.tidy();
    assert_eq!(scene.lies(), []);
}

#[test]
fn what_a_former_start_has_left_goes_with_its_issuer_and_no_name_is_remembered() {
    let (scene, sso, other) = (Scene::new(), book("sso"), book("other"));
    scene.shelf.lies.lock().insert("sso".to_owned(), 1);
    scene.shelving.follow(&[sso, other.clone()]);
    scene.shelving.tidy();
    assert_eq!(scene.lies(), [("sso".to_owned(), 1)]);
    scene.shelving.follow(&[other]);
    scene.shelving.tidy();
    assert_eq!(scene.lies(), []);
    assert_eq!(scene.shelving.known.lock().shelved.len(), 1);
}
