//! The API keys that are known, by their public halves.
//!
//! Owns one record for each key: what its callers are told, which is made once ([`Principal`]), and what a shown key is held against. There
//! are some for every tenant, so nothing is kept twice: a key's identifier and its tenant are its principal's. Does not check a shown key.
//!
//! Invariant: two tenants may have chosen the same identifier, and each has its key; those of one identifier are found together, in the
//! order of their tenants' names.

use std::{
    borrow::Borrow,
    hash::{Hash, Hasher},
    slice,
    sync::Arc,
};

use mesh_types::TenantId;

use super::{ApiKeyEntry, LastUse, Principal, PrincipalId, SecretHash};
use crate::shards::Shards;

/// An API key with what its callers are told.
pub(super) struct StoredKey {
    pub(super) principal: Principal,
    pub(super) hash: SecretHash,
    pub(super) last_use: Arc<LastUse>,
    /// The Unix second from which it is no longer valid; the last there is, if it is for good.
    pub(super) expires: i64,
    pub(super) revoked: bool,
}

impl StoredKey {
    pub(super) fn new(entry: ApiKeyEntry, last_use: Arc<LastUse>) -> Self {
        let credential = Arc::from(format!("key:{}", entry.id));
        Self {
            principal: Principal {
                id: PrincipalId::fresh(),
                groups: entry.groups,
                tenant: entry.tenant,
                subject: entry.id.into(),
                credential,
                scopes: entry.scopes,
            },
            hash: entry.hash,
            last_use,
            expires: entry.expires.unwrap_or(i64::MAX),
            revoked: entry.revoked,
        }
    }

    fn id(&self) -> &str {
        &self.principal.subject
    }
}

/// The keys of one identifier: nearly always a single one, so that a table of them is narrow.
#[derive(Clone)]
enum Named {
    One(Arc<StoredKey>),
    Several(Box<Several>),
}

#[derive(Clone)]
struct Several(Vec<Arc<StoredKey>>);

impl Named {
    fn keys(&self) -> &[Arc<StoredKey>] {
        match self {
            Self::One(key) => slice::from_ref(key),
            Self::Several(keys) => &keys.0,
        }
    }

    fn with(self, key: Arc<StoredKey>) -> Self {
        let mut keys = match self {
            Self::One(first) => vec![first],
            Self::Several(keys) => keys.0,
        };
        // By tenant, so that it does not matter which was declared first.
        let place = keys.partition_point(|known| known.principal.tenant <= key.principal.tenant);
        keys.insert(place, key);
        Self::Several(Box::new(Several(keys)))
    }
}

impl Borrow<str> for Named {
    fn borrow(&self) -> &str {
        self.keys().first().map(|key| key.id()).unwrap_or_default()
    }
}

impl PartialEq for Named {
    fn eq(&self, other: &Self) -> bool {
        Borrow::<str>::borrow(self) == Borrow::<str>::borrow(other)
    }
}

impl Eq for Named {}

impl Hash for Named {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Borrow::<str>::borrow(self).hash(state);
    }
}

/// All API keys. A clone shares with its original whatever neither changes afterwards.
#[derive(Clone, Default)]
pub(super) struct Keys(Shards<Named>);

impl Keys {
    pub(super) fn add(&mut self, key: StoredKey) {
        self.add_stored(Arc::new(key));
    }

    fn add_stored(&mut self, key: Arc<StoredKey>) {
        let named = match self.0.take(key.id()) {
            Some(known) => known.with(key),
            None => Named::One(key),
        };
        self.0.insert(named);
    }

    /// Takes out the key of this tenant and identifier, if it is there.
    pub(super) fn remove(&mut self, tenant: &TenantId, id: &str) {
        let Some(known) = self.0.take(id) else { return };
        let others = known.keys().iter().filter(|key| key.principal.tenant != *tenant);
        for key in others {
            self.add_stored(key.clone());
        }
    }

    /// Those of this identifier.
    pub(super) fn of(&self, id: &str) -> &[Arc<StoredKey>] {
        self.0.get(id).map(Named::keys).unwrap_or_default()
    }

    /// Each of them.
    pub(super) fn all(&self) -> impl Iterator<Item = &Arc<StoredKey>> {
        self.0.iter().flat_map(Named::keys)
    }

    /// How many different identifiers there are.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
