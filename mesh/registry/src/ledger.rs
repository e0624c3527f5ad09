//! The writer without its mailbox: checks writes, appends them to the journal, and then applies them to the store.
//!
//! Several writes may come together; they then share one fsync. Each is checked against what the ones before it would leave,
//! and is refused or taken on its own.

use std::{collections::BTreeSet, sync::Arc};

use jiff::Timestamp;
use mesh_policies::{PublicKey, SigningKey};
use mesh_resources::{Problem, Resource, ResourceKey};
use mesh_types::Clock;
use parking_lot::Mutex;
use serde_json::value::RawValue;

use crate::{
    Artifacts, Author, Batch, Change, Expected, MAX_AUTHOR_TEXT, MAX_CHANGES, RegistryError, SignedHead, State,
    StorageError, Store, Stored, Write,
    draft::{Changes, Draft, read, store_key},
    journal::{Extent, Head, Journal, Record, RecordedChange, digest, signed_text},
    record::encode,
    rules::{self, Changed, Rules, named},
};

/// The most resources.
pub const MAX_RESOURCES: usize = 400_000;
/// The most bytes of one resource's record.
pub const MAX_RESOURCE_BYTES: usize = 1 << 20;
/// The most bytes of one write's records.
pub const MAX_WRITE_BYTES: usize = 8 << 20;
/// The most bytes of records that share one fsync: one write always fits.
const MAX_GROUP_BYTES: usize = MAX_WRITE_BYTES;
/// The most problems that one answer tells.
const MAX_PROBLEMS: usize = 32;

/// A write that is asked for.
#[derive(Debug)]
pub(crate) struct Request {
    pub(crate) by: Author,
    pub(crate) changes: Vec<Change>,
    /// What happened, where no resource changes.
    pub(crate) event: Option<String>,
    /// Whether it asks for a signature of all before it, and for nothing else.
    pub(crate) seal: bool,
}

impl Request {
    pub(crate) fn of(by: Author, changes: Vec<Change>) -> Self {
        Self {
            by,
            changes,
            event: None,
            seal: false,
        }
    }
}

/// What it is answered with: for each change the resource as it was written, or as it was before it was taken away.
pub(crate) type Answer = Result<Vec<Resource>, RegistryError>;

/// What a ledger works with.
#[derive(Clone)]
pub(crate) struct LedgerParts {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) artifacts: Artifacts,
    pub(crate) clock: Arc<dyn Clock>,
    /// The last write that is in the store too, for those who read the journal.
    pub(crate) head: Arc<Mutex<Head>>,
    pub(crate) max_resources: usize,
    /// What heads of the audit log are signed with.
    pub(crate) signer: Option<SigningKey>,
    /// Whose signature models need.
    pub(crate) required_signers: Vec<PublicKey>,
}

/// The single writer.
pub(crate) struct Ledger {
    parts: LedgerParts,
    journal: Journal,
    resources: usize,
    /// The last write that is a signature; 0: none that is known of.
    signed: u64,
    /// The store lacks a write that the journal has: nothing more may be written.
    broken: bool,
}

/// A write that has passed every check.
struct Prepared {
    record: Record,
    batch: Batch,
    resources: Vec<Resource>,
    changes: Changes,
    bytes: usize,
    count: usize,
}

impl Ledger {
    pub(crate) fn new(parts: LedgerParts, journal: Journal, resources: usize) -> Self {
        *parts.head.lock() = journal.head();
        Self {
            parts,
            journal,
            resources,
            signed: 0,
            broken: false,
        }
    }

    /// The same, where it is known which write was the last signature.
    pub(crate) fn signed_at(self, revision: u64) -> Self {
        Self {
            signed: revision,
            ..self
        }
    }

    /// Whether it must be opened anew before the next write.
    pub(crate) fn is_broken(&self) -> bool {
        self.broken
    }

    /// Answers each write, in order.
    pub(crate) fn commit(&mut self, requests: Vec<Request>) -> Vec<Answer> {
        let (mut answers, mut group, mut laid_over) = (Vec::with_capacity(requests.len()), Vec::new(), Changes::new());
        let mut bytes = 0;
        for request in requests {
            if request.seal {
                // What it signs is in the journal before it is made.
                self.keep(std::mem::take(&mut group), &mut answers);
                (laid_over, bytes) = (Changes::new(), 0);
                if self.has_nothing_to_sign() {
                    answers.push(Ok(Vec::new()));
                    continue;
                }
            }
            let mut prepared = self.prepare(&request, &group, &laid_over);
            if let Ok(next) = &prepared
                && bytes + next.bytes > MAX_GROUP_BYTES
            {
                self.keep(std::mem::take(&mut group), &mut answers);
                (laid_over, bytes) = (Changes::new(), 0);
                prepared = self.prepare(&request, &group, &laid_over);
            }
            match prepared {
                Ok(prepared) => {
                    bytes += prepared.bytes;
                    laid_over.extend(prepared.changes.clone());
                    group.push((answers.len(), prepared));
                    // Its place in the order; overwritten when the group is kept.
                    answers.push(Err(RegistryError::Unanswered));
                }
                Err(error) => answers.push(Err(error)),
            }
        }
        self.keep(group, &mut answers);
        answers
    }

    /// What a write would be answered, without writing it.
    pub(crate) fn check(&self, request: &Request) -> Answer {
        Ok(self.prepare(request, &[], &Changes::new())?.resources)
    }

    /// Writes a snapshot if enough was written since the last. One that fails stops no write and is tried again later.
    pub(crate) fn compact_if_due(&mut self) {
        if self.broken {
            return;
        }
        let done = if self.journal.is_due() {
            let state = self.parts.store.state().map_err(StorageError::from);
            state.and_then(|state| self.journal.compact(&state))
        } else {
            self.journal.trim()
        };
        if let Err(error) = done {
            tracing::warn!(%error, "registry: the journal was not compacted: tried again when its next segment ends");
        }
    }

    /// Everything at the last write, and the segments that led to it.
    pub(crate) fn extent(&self) -> Result<(State, Extent), RegistryError> {
        if self.broken {
            return Err(StorageError::Failed.into());
        }
        Ok((self.parts.store.state()?, self.journal.extent()?))
    }

    fn has_nothing_to_sign(&self) -> bool {
        let revision = self.journal.head().revision;
        self.parts.signer.is_none() || revision == 0 || revision == self.signed
    }

    /// The signature that a request asks for.
    fn sealed(&self, request: &Request, time: Timestamp) -> Option<SignedHead> {
        let signer = self.parts.signer.as_ref().filter(|_| request.seal)?;
        let text = signed_text(self.journal.head(), time);
        Some(SignedHead {
            key: signer.public(),
            signature: signer.sign(text.as_bytes()),
        })
    }

    fn prepare(
        &self,
        request: &Request,
        group: &[(usize, Prepared)],
        before: &Changes,
    ) -> Result<Prepared, RegistryError> {
        if self.broken {
            return Err(RegistryError::NotRecorded(StorageError::Failed));
        }
        check_request(request)?;
        let last = group.last().map(|(_, prepared)| prepared);
        let count = last.map_or(self.resources, |prepared| prepared.count);
        let revision = last.map_or(self.journal.head().revision, |prepared| prepared.record.revision) + 1;
        let time = self.now();
        let mut draft = Draft {
            store: &*self.parts.store,
            before,
            own: Changes::new(),
        };
        let mut drawn = Drawn::default();
        for change in &request.changes {
            drawn.add(&mut draft, change, revision, time)?;
        }
        if drawn.bytes > MAX_WRITE_BYTES {
            return Err(too_many("bytes in one write", drawn.bytes, MAX_WRITE_BYTES));
        }
        let count = count + drawn.added - drawn.removed;
        if drawn.added > drawn.removed && count > self.parts.max_resources {
            return Err(too_many("resources", count, self.parts.max_resources));
        }
        let rules = Rules {
            draft: &draft,
            artifacts: &self.parts.artifacts,
            signers: &self.parts.required_signers,
        };
        let mut problems = rules::problems(&rules, time, &drawn.changed)?;
        if !problems.is_empty() {
            problems.truncate(MAX_PROBLEMS);
            return Err(RegistryError::Invalid(problems));
        }
        let resources = drawn
            .changed
            .into_iter()
            .filter_map(|changed| changed.after.or(changed.before));
        Ok(Prepared {
            record: Record::new(revision, time, request.by.clone(), drawn.recorded)
                .with_event(request.event.clone())
                .with_head(self.sealed(request, time)),
            resources: resources.collect(),
            batch: Batch {
                writes: drawn.writes,
                mark: Vec::new(),
            },
            changes: draft.own,
            bytes: drawn.bytes,
            count,
        })
    }

    fn now(&self) -> Timestamp {
        Timestamp::from_second(self.parts.clock.unix_seconds()).unwrap_or(Timestamp::UNIX_EPOCH)
    }

    /// Appends a group with one fsync, applies it, and answers it.
    fn keep(&mut self, group: Vec<(usize, Prepared)>, answers: &mut [Answer]) {
        let records: Vec<Record> = group.iter().map(|(_, prepared)| prepared.record.clone()).collect();
        let appended = self.journal.append(&records);
        let mut heads = appended.as_ref().map(|heads| heads.iter().copied()).ok();
        for (place, prepared) in group {
            let answer = match (&appended, heads.as_mut().and_then(Iterator::next)) {
                (Ok(_), Some(head)) => self.apply(prepared, head),
                (Err(error), _) => Err(RegistryError::NotRecorded(error.clone())),
                (Ok(_), None) => Err(RegistryError::Unanswered),
            };
            if let Some(slot) = answers.get_mut(place) {
                *slot = answer;
            }
        }
    }

    /// Applies a write that is in the journal.
    fn apply(&mut self, mut prepared: Prepared, head: Head) -> Answer {
        if self.broken {
            return Err(RegistryError::Unanswered);
        }
        prepared.batch.mark = head.hash.to_vec();
        match self.parts.store.commit(&prepared.batch) {
            Ok(revision) if revision == head.revision => {
                self.resources = prepared.count;
                if prepared.record.head.is_some() {
                    self.signed = head.revision;
                }
                *self.parts.head.lock() = head;
                Ok(prepared.resources)
            }
            other => {
                tracing::error!(
                    revision = head.revision,
                    ?other,
                    "registry: a write is in the journal but not in the index"
                );
                self.broken = true;
                Err(RegistryError::Unanswered)
            }
        }
    }
}

/// The changes of one write, as they are kept.
#[derive(Default)]
struct Drawn {
    changed: Vec<Changed>,
    recorded: Vec<RecordedChange>,
    writes: Vec<Write>,
    bytes: usize,
    added: usize,
    removed: usize,
}

impl Drawn {
    /// Lays one change over the draft.
    fn add(
        &mut self,
        draft: &mut Draft<'_>,
        change: &Change,
        revision: u64,
        time: Timestamp,
    ) -> Result<(), RegistryError> {
        let key = change.key().map_err(|error| invalid("metadata", error.to_string()))?;
        let found = draft.stored(&key)?;
        let expected = change.expected();
        let at = found.as_ref().map(|stored| stored.revision);
        if !expected.is_met_by(at) {
            return Err(RegistryError::Conflict {
                key,
                expected,
                found: at,
            });
        }
        let store_key = store_key(&key);
        let before = found.as_ref().map(|stored| read(&store_key, stored)).transpose()?;
        let (after, record) = match change {
            Change::Put { resource, .. } => {
                let after = filled(resource, before.as_ref(), revision, time);
                let record = encoded(&key, &after)?;
                (Some(after), Some(record))
            }
            Change::Delete { .. } if before.is_none() => return Err(RegistryError::NotFound(key)),
            Change::Delete { .. } => (None, None),
        };
        let value = record.as_ref().map(|record| record.get().as_bytes().to_vec());
        self.bytes += value.as_ref().map_or(0, Vec::len);
        self.added += usize::from(before.is_none());
        self.removed += usize::from(after.is_none());
        self.recorded.push(RecordedChange {
            key: key.clone(),
            before: found.map(|stored| digest(&stored.value)),
            after: value.as_ref().map(|value| digest(value)),
            record,
        });
        self.writes.push(Write {
            key: store_key.clone(),
            expected: at.map_or(Expected::Absent, Expected::Revision),
            value: value.clone(),
        });
        draft
            .own
            .insert(store_key, value.map(|value| Stored { revision, value }));
        self.changed.push(Changed { key, before, after });
        Ok(())
    }
}

/// The resource with what the registry says of it.
fn filled(resource: &Resource, before: Option<&Resource>, revision: u64, time: Timestamp) -> Resource {
    let mut after = resource.clone();
    after.metadata.revision = Some(revision);
    after.metadata.created = before.and_then(|before| before.metadata.created).or(Some(time));
    after.metadata.updated = Some(time);
    after
}

fn encoded(key: &ResourceKey, resource: &Resource) -> Result<Box<RawValue>, RegistryError> {
    let record = encode(resource).map_err(|error| invalid("spec", error.to_string()))?;
    if record.len() > MAX_RESOURCE_BYTES {
        return Err(too_many("bytes in one resource", record.len(), MAX_RESOURCE_BYTES));
    }
    RawValue::from_string(record).map_err(|error| invalid(&key.to_string(), error.to_string()))
}

/// What can be said of a write without the store.
fn check_request(request: &Request) -> Result<(), RegistryError> {
    let Request {
        by,
        changes,
        event,
        seal,
    } = request;
    if changes.is_empty() && event.is_none() && !seal {
        return Err(invalid("changes", "a write changes something: give at least one"));
    }
    if changes.len() > MAX_CHANGES {
        return Err(too_many("changes in one write", changes.len(), MAX_CHANGES));
    }
    let texts = [
        Some(&by.who),
        Some(&by.source),
        by.request.as_ref(),
        by.from.as_ref(),
        event.as_ref(),
    ];
    if let Some(text) = texts.into_iter().flatten().find(|text| text.len() > MAX_AUTHOR_TEXT) {
        return Err(too_many(
            "bytes in a text about the author or the event",
            text.len(),
            MAX_AUTHOR_TEXT,
        ));
    }
    let (mut problems, mut keys) = (Vec::new(), BTreeSet::new());
    for change in changes {
        let key = change.key();
        if let Change::Put { resource, .. } = change {
            let found = resource.problems().into_iter();
            problems.extend(found.map(|problem| match &key {
                Ok(key) => named(problem, key, changes.len()),
                Err(_) => problem,
            }));
        }
        if let Ok(key) = key
            && !keys.insert(key.clone())
        {
            let text = format!("{key} is changed twice in one write: say it once");
            problems.push(Problem::new("metadata.name", text));
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    problems.truncate(MAX_PROBLEMS);
    Err(RegistryError::Invalid(problems))
}

fn invalid(field: &str, problem: impl Into<String>) -> RegistryError {
    RegistryError::Invalid(vec![Problem::new(field, problem)])
}

fn too_many(what: &'static str, got: usize, max: usize) -> RegistryError {
    RegistryError::TooMany { what, got, max }
}
