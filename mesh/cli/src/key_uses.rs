//! When API keys were last used, for `get` and `describe`.
//!
//! They are asked for beside the keys themselves, because a use changes no key. One that was made or taken away meanwhile, and so is
//! in one answer only, shows a dash.

use std::collections::HashMap;

use mesh_resources::{Kind, Resource, ResourceKey};
use serde::Deserialize;

use crate::{Failure, client::AdminClient, paths};

/// What is listed, by its path.
pub(crate) const PLURAL: &str = "key-uses";

/// One key's last use.
#[derive(Debug, Deserialize)]
pub(crate) struct KeyUse {
    tenant: String,
    key: String,
    last_used: Option<String>,
}

/// The last uses of keys, by tenant and name.
#[derive(Debug, Default)]
pub(crate) struct Uses(HashMap<(String, String), Option<String>>);

impl From<Vec<KeyUse>> for Uses {
    fn from(uses: Vec<KeyUse>) -> Self {
        let of = |one: KeyUse| ((one.tenant, one.key), one.last_used);
        Self(uses.into_iter().map(of).collect())
    }
}

impl Uses {
    /// The last use of a key, for a person.
    pub(crate) fn one(&self, key: &ResourceKey) -> String {
        let tenant = key.tenant.as_ref().map(ToString::to_string).unwrap_or_default();
        match self.0.get(&(tenant, key.name.clone())) {
            Some(Some(time)) => time.clone(),
            Some(None) => "never".to_owned(),
            None => "-".to_owned(),
        }
    }

    /// The same of a resource.
    pub(crate) fn told(&self, resource: &Resource) -> String {
        resource.key().map_or_else(|_| "-".to_owned(), |key| self.one(&key))
    }
}

/// The last use of one key; nothing of another kind of resource.
pub(crate) async fn of(client: &AdminClient, key: &ResourceKey) -> Result<Uses, Failure> {
    if key.kind != Kind::ApiKey {
        return Ok(Uses::default());
    }
    let found = client.find::<KeyUse>(&format!("{}/use", paths::of(key))).await?;
    Ok(Vec::from_iter(found).into())
}
