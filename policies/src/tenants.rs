//! Every tenant of a snapshot, by name: what a snapshot and the one after it have in common is there once.
//!
//! Does not say what a tenant is or may do (`snapshot`), and is not where requests wait or are counted.

use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
    sync::Arc,
};

use mesh_types::TenantId;

use crate::{shards::Shards, snapshot::TenantEntry};

/// All tenants. A clone is cheap, and shares with its original whatever neither changes afterwards.
#[derive(Debug, Clone, Default)]
pub struct Tenants(Shards<ByName>);

#[derive(Clone)]
struct ByName(Arc<TenantEntry>);

impl Borrow<str> for ByName {
    fn borrow(&self) -> &str {
        self.0.id.as_str()
    }
}

impl PartialEq for ByName {
    fn eq(&self, other: &Self) -> bool {
        self.0.id == other.0.id
    }
}

impl Eq for ByName {}

impl Hash for ByName {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.id.as_str().hash(state);
    }
}

impl Tenants {
    /// The tenant of this name.
    pub fn get(&self, id: &str) -> Option<&Arc<TenantEntry>> {
        self.0.get(id).map(|named| &named.0)
    }

    /// Adds one, or puts it in the place of the one that has its name.
    pub fn insert(&mut self, entry: TenantEntry) {
        self.0.insert(ByName(Arc::new(entry)));
    }

    /// Takes one out, if it is there.
    pub fn remove(&mut self, id: &TenantId) {
        self.0.take(id.as_str());
    }

    /// Each of them, in no order.
    pub fn iter(&self) -> impl Iterator<Item = &Arc<TenantEntry>> {
        self.0.iter().map(|named| &named.0)
    }
}

impl FromIterator<TenantEntry> for Tenants {
    /// Of two of one name the later stays.
    fn from_iter<I: IntoIterator<Item = TenantEntry>>(entries: I) -> Self {
        Self(entries.into_iter().map(|entry| ByName(Arc::new(entry))).collect())
    }
}
