//! What the tests share: a disk that loses what was not fsynced, a registry in a temporary folder, and resources.

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use mesh_actors::Tasks;
use mesh_resources::{Resource, ResourceKey, TenantSpec};
use mesh_types::{ManualClock, TenantId};
use parking_lot::Mutex;

use crate::{Appending, Author, Change, Files, Registry, RegistryConfig, RegistryError, RegistryHandle};

pub(crate) const START: i64 = 1_790_000_000;

/// A disk in memory. A crash keeps of each file what was fsynced, and of each folder the names that were.
#[derive(Clone, Default)]
pub(crate) struct LossyFiles {
    disk: Arc<Mutex<Disk>>,
}

#[derive(Default)]
struct Disk {
    names: BTreeMap<PathBuf, usize>,
    durable_names: BTreeMap<PathBuf, usize>,
    files: Vec<LossyFile>,
    failing_syncs: usize,
    failing_cuts: usize,
    syncs: usize,
    /// Changes until the power goes; none: it stays.
    until_dark: Option<usize>,
}

#[derive(Default, Clone)]
struct LossyFile {
    bytes: Vec<u8>,
    durable: Vec<u8>,
}

impl LossyFiles {
    /// The power goes. Of what was written and not fsynced, the first `torn(how much)` bytes are there all the same.
    pub(crate) fn crash(&self, mut torn: impl FnMut(usize) -> usize) {
        let mut disk = self.disk.lock();
        disk.names = disk.durable_names.clone();
        for file in &mut disk.files {
            if let Some(lost) = file.bytes.strip_prefix(file.durable.as_slice()) {
                let kept = lost[..torn(lost.len())].to_vec();
                file.durable.extend(kept);
            }
            file.bytes = file.durable.clone();
        }
    }

    /// The power goes, and of what was done to names and not fsynced, all is there all the same.
    pub(crate) fn crash_keeping_names(&self, torn: impl FnMut(usize) -> usize) {
        {
            let mut disk = self.disk.lock();
            disk.durable_names = disk.names.clone();
        }
        self.crash(torn);
    }

    /// Lets so many changes happen, and none after that until it is told otherwise.
    pub(crate) fn dark_after(&self, changes: Option<usize>) {
        self.disk.lock().until_dark = changes;
    }

    /// Whether a change was refused because the power was gone.
    pub(crate) fn is_dark(&self) -> bool {
        self.disk.lock().until_dark == Some(0)
    }

    pub(crate) fn fail_syncs(&self, count: usize) {
        self.disk.lock().failing_syncs = count;
    }

    pub(crate) fn fail_cuts(&self, count: usize) {
        self.disk.lock().failing_cuts = count;
    }

    pub(crate) fn syncs(&self) -> usize {
        self.disk.lock().syncs
    }

    /// Changes a file's bytes behind everyone's back.
    pub(crate) fn edit(&self, path: &Path, edit: impl FnOnce(&mut Vec<u8>)) {
        let mut disk = self.disk.lock();
        let inode = disk.names[path];
        edit(&mut disk.files[inode].bytes);
        disk.files[inode].durable = disk.files[inode].bytes.clone();
    }

    pub(crate) fn paths(&self) -> Vec<PathBuf> {
        self.disk.lock().names.keys().cloned().collect()
    }
}

fn missing() -> io::Error {
    io::ErrorKind::NotFound.into()
}

impl Files for LossyFiles {
    fn make_folder(&self, _: &Path) -> io::Result<()> {
        Ok(())
    }

    fn names(&self, folder: &Path) -> io::Result<Vec<String>> {
        let disk = self.disk.lock();
        let inside = disk.names.keys().filter(|path| path.parent() == Some(folder));
        Ok(inside
            .map(|path| path.file_name().unwrap().to_str().unwrap().to_owned())
            .collect())
    }

    fn read(&self, path: &Path) -> io::Result<Vec<u8>> {
        let disk = self.disk.lock();
        let inode = *disk.names.get(path).ok_or_else(missing)?;
        Ok(disk.files[inode].bytes.clone())
    }

    fn create(&self, path: &Path) -> io::Result<Box<dyn Appending>> {
        let mut disk = self.disk.lock();
        disk.changes()?;
        if disk.names.contains_key(path) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        let inode = disk.files.len();
        disk.files.push(LossyFile::default());
        disk.names.insert(path.to_path_buf(), inode);
        Ok(Box::new(Open {
            disk: self.disk.clone(),
            inode,
        }))
    }

    fn append(&self, path: &Path) -> io::Result<Box<dyn Appending>> {
        let inode = *self.disk.lock().names.get(path).ok_or_else(missing)?;
        Ok(Box::new(Open {
            disk: self.disk.clone(),
            inode,
        }))
    }

    fn remove(&self, path: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.changes()?;
        disk.names.remove(path).map(drop).ok_or_else(missing)
    }

    fn rename(&self, from: &Path, to: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.changes()?;
        let inode = disk.names.remove(from).ok_or_else(missing)?;
        disk.names.insert(to.to_path_buf(), inode);
        Ok(())
    }

    fn sync_folder(&self, folder: &Path) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.fails()?;
        let names = disk.names.clone();
        disk.durable_names.retain(|path, _| path.parent() != Some(folder));
        disk.durable_names
            .extend(names.into_iter().filter(|(path, _)| path.parent() == Some(folder)));
        Ok(())
    }
}

impl Disk {
    /// Counts a change.
    fn changes(&mut self) -> io::Result<()> {
        match &mut self.until_dark {
            Some(0) => return Err(io::Error::other("the power is gone")),
            Some(left) => *left -= 1,
            None => {}
        }
        Ok(())
    }

    fn fails(&mut self) -> io::Result<()> {
        self.changes()?;
        self.syncs += 1;
        if self.failing_syncs == 0 {
            return Ok(());
        }
        self.failing_syncs -= 1;
        Err(io::Error::other("told to fail"))
    }
}

struct Open {
    disk: Arc<Mutex<Disk>>,
    inode: usize,
}

impl Appending for Open {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.changes()?;
        disk.files[self.inode].bytes.extend_from_slice(bytes);
        Ok(())
    }

    fn cut(&mut self, length: u64) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.changes()?;
        if disk.failing_cuts > 0 {
            disk.failing_cuts -= 1;
            return Err(io::Error::other("told to fail"));
        }
        disk.files[self.inode].bytes.truncate(length as usize);
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut disk = self.disk.lock();
        disk.fails()?;
        disk.files[self.inode].durable = disk.files[self.inode].bytes.clone();
        Ok(())
    }
}

/// Numbers without order, the same in each run.
pub(crate) struct Dice(pub(crate) u64);

impl Dice {
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % bound.max(1) as u64) as usize
    }
}

/// A registry that is open.
pub(crate) struct Bench {
    pub(crate) registry: Registry,
    pub(crate) tasks: Tasks,
}

pub(crate) fn config(folder: &Path) -> RegistryConfig {
    RegistryConfig {
        clock: Arc::new(ManualClock::at(START)),
        ..RegistryConfig::new(folder)
    }
}

impl Bench {
    pub(crate) fn open(config: RegistryConfig) -> Result<Self, RegistryError> {
        let tasks = Tasks::new();
        let registry = Registry::open(config, &tasks)?;
        Ok(Self { registry, tasks })
    }

    pub(crate) async fn close(self) {
        assert!(self.tasks.end(Duration::from_secs(5)).await.is_empty());
        self.registry.close().unwrap();
    }
}

/// Runs a test with a registry in a temporary folder.
pub(crate) fn with_registry<F: Future<Output = ()>>(test: impl FnOnce(RegistryHandle) -> F) {
    let folder = tempfile::tempdir().unwrap();
    actix::System::new().block_on(async {
        let bench = Bench::open(config(folder.path())).unwrap();
        test(bench.registry.handle()).await;
        bench.close().await;
    });
}

pub(crate) fn admin() -> Author {
    Author {
        who: "admin:root".to_owned(),
        source: "cli".to_owned(),
        request: Some("01".to_owned()),
        from: None,
    }
}

/// Returns once the writer has done what follows its last answer: a snapshot, and what is taken away after it.
pub(crate) async fn settled(registry: &RegistryHandle) {
    let change = vec![Change::put(tenant("settled"))];
    registry.check(admin(), change).await.unwrap();
}

pub(crate) fn key(text: &str) -> ResourceKey {
    text.parse().unwrap()
}

pub(crate) fn tenant(name: &str) -> Resource {
    Resource::new(
        &ResourceKey::tenant(&TenantId::parse(name).unwrap()),
        TenantSpec::default(),
    )
}

/// A resource from its key and its spec as JSON.
pub(crate) fn resource(text: &str, spec: &str) -> Resource {
    let key = key(text);
    let tenant = key
        .tenant
        .as_ref()
        .map_or(String::new(), |tenant| format!(r#""tenant":"{tenant}","#));
    let envelope = format!(
        r#"{{"apiVersion":"mesh/v1","kind":"{}","metadata":{{{tenant}"name":"{}"}},"spec":{spec}}}"#,
        key.kind, key.name
    );
    serde_json::from_str(&envelope).unwrap()
}

pub(crate) fn put(text: &str, spec: &str) -> Change {
    Change::put(resource(text, spec))
}

pub(crate) const BUILTIN: &str = r#"{"format":"builtin","config":{"parameters":{"builtin":"identity"},"max_batch_size":8,"input":[{"name":"x","datatype":"FP32","dims":[2]}],"output":[{"name":"y","datatype":"FP32","dims":[2]}]}}"#;

pub(crate) fn split(model: &str, version: &str) -> String {
    format!(r#"{{"arms":[{{"name":"a","model":"{model}","version":"{version}","weight":100}}]}}"#)
}
