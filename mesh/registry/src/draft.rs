//! What would be there if writes that are not yet kept had happened: the store with changes laid over it.

use std::collections::BTreeMap;

use mesh_resources::{Kind, Resource, ResourceKey};

use crate::{RegistryError, StorageError, Store, Stored, record::decode};

/// How many entries are read from the store at once.
const STEP: usize = 256;

/// Changes by the store's key; none: taken away.
pub(crate) type Changes = BTreeMap<String, Option<Stored>>;

/// The store's key of a resource. Numbers are padded, so that the versions of a model are in their order.
pub(crate) fn store_key(key: &ResourceKey) -> String {
    match key.as_version() {
        Some(version) => format!(
            "{}/{}/{}/{:010}",
            key.kind,
            version.tenant,
            version.model,
            version.version.get()
        ),
        None => key.to_string(),
    }
}

/// The resource that an entry of the store is of, by its key.
pub(crate) fn resource_key(key: &str) -> Option<ResourceKey> {
    if let Ok(key) = key.parse::<ResourceKey>()
        && key.kind != Kind::ModelVersion
    {
        return Some(key);
    }
    let (model, number) = key.rsplit_once('/')?;
    format!("{model}/{}", number.parse::<u32>().ok()?).parse().ok()
}

/// The prefix of the store's keys of a kind, or of a tenant's resources of a kind.
pub(crate) fn prefix(kind: Kind, tenant: Option<&str>) -> String {
    match tenant {
        Some(tenant) => format!("{kind}/{tenant}/"),
        None => format!("{kind}/"),
    }
}

/// The resource that an entry of the store holds.
pub(crate) fn read(key: &str, stored: &Stored) -> Result<Resource, StorageError> {
    decode(&stored.value).map_err(|error| StorageError::Record {
        key: key.to_owned(),
        error,
    })
}

/// The store, with the changes of the writes before and then those of this write laid over it.
pub(crate) struct Draft<'a> {
    pub(crate) store: &'a dyn Store,
    pub(crate) before: &'a Changes,
    pub(crate) own: Changes,
}

impl Draft<'_> {
    /// The entry of a key.
    pub(crate) fn stored(&self, key: &ResourceKey) -> Result<Option<Stored>, RegistryError> {
        let key = store_key(key);
        match self.own.get(&key).or_else(|| self.before.get(&key)) {
            Some(changed) => Ok(changed.clone()),
            None => Ok(self.store.get(&key)?),
        }
    }

    /// The resource of a key.
    pub(crate) fn get(&self, key: &ResourceKey) -> Result<Option<Resource>, RegistryError> {
        let stored = self.stored(key)?;
        let resource = stored.map(|stored| read(&store_key(key), &stored)).transpose();
        Ok(resource?)
    }

    /// Whether there is such a resource.
    pub(crate) fn has(&self, key: &ResourceKey) -> Result<bool, RegistryError> {
        Ok(self.stored(key)?.is_some())
    }

    /// Every resource whose key begins with the prefix.
    pub(crate) fn list(&self, prefix: &str) -> Result<Vec<Resource>, RegistryError> {
        self.list_with(prefix, "")
    }

    /// Those of them whose record has this text in it: the others are not even read.
    pub(crate) fn list_with(&self, prefix: &str, text: &str) -> Result<Vec<Resource>, RegistryError> {
        let has =
            |stored: &Stored| text.is_empty() || stored.value.windows(text.len()).any(|part| part == text.as_bytes());
        let mut entries: BTreeMap<String, Stored> = BTreeMap::new();
        let mut after: Option<String> = None;
        loop {
            let page = self.store.list(prefix, after.as_deref(), STEP)?;
            after = page.entries.last().map(|(key, _)| key.clone());
            entries.extend(page.entries);
            if !page.more {
                break;
            }
        }
        for (key, changed) in self.before.iter().chain(&self.own) {
            match changed {
                Some(stored) if key.starts_with(prefix) => drop(entries.insert(key.clone(), stored.clone())),
                Some(_) => {}
                None => drop(entries.remove(key)),
            }
        }
        let entries = entries.iter().filter(|(_, stored)| has(stored));
        let resources: Result<Vec<_>, _> = entries.map(|(key, stored)| read(key, stored)).collect();
        Ok(resources?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_of_the_store_reads_back() {
        for text in [
            "Tenant/acme",
            "ApiKey/acme/abc",
            "Endpoint/acme/front",
            "ModelVersion/acme/m/3",
            "Policy/one",
        ] {
            let key: ResourceKey = text.parse().unwrap();
            assert_eq!(resource_key(&store_key(&key)), Some(key), "{text}");
        }
        for text in [
            "",
            "Tenant",
            "ModelVersion/acme/m",
            "ModelVersion/acme/m/x",
            "Nothing/a",
        ] {
            assert_eq!(resource_key(text), None, "{text}");
        }
    }
}
