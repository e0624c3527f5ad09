//! Which regions there are, and whose they are.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

use mesh_types::{MAX_REGION_NAME_BYTES, TenantId};
use parking_lot::RwLock;

use super::{
    error::{RegionError, quoted},
    object::{KeyProblem, Object, file_name},
};
use crate::Budget;

/// The most regions of one tenant. Each is an open file.
pub const MAX_REGIONS_PER_TENANT: usize = 256;
/// The most regions of all tenants together.
pub const MAX_REGIONS: usize = 1_024;

/// How regions are set up.
#[derive(Debug, Clone)]
pub struct RegionsConfig {
    /// The folder of the system's shared memory objects.
    pub folder: PathBuf,
    /// The most bytes that one request's inputs in regions may have.
    pub max_request_bytes: usize,
    /// The most bytes that all requests under way may have read from regions.
    pub max_buffered_bytes: usize,
}

/// What a caller registers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Registration<'a> {
    /// The object's name, with or without a `/` in front.
    pub key: &'a str,
    /// Where the region begins in it, in bytes.
    pub offset: u64,
    /// How long the region is, in bytes.
    pub bytes: u64,
}

/// A region as its tenant sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Region {
    /// Its name.
    pub name: String,
    /// The object's name, as it was registered.
    pub key: String,
    /// Where it begins there, in bytes.
    pub offset: u64,
    /// How long it is, in bytes.
    pub bytes: u64,
}

/// A region and its object; those who copy hold on to it, also when it is unregistered meanwhile.
#[derive(Debug)]
pub(super) struct Held {
    pub(super) region: Region,
    pub(super) object: Object,
}

/// The regions of all tenants.
#[derive(Debug, Default)]
pub struct Regions {
    on: Option<On>,
}

#[derive(Debug)]
pub(super) struct On {
    pub(super) config: RegionsConfig,
    pub(super) budget: Budget,
    known: RwLock<Known>,
}

type OfTenant = BTreeMap<String, Arc<Held>>;

#[derive(Debug, Default)]
struct Known {
    tenants: HashMap<TenantId, OfTenant>,
    count: usize,
}

impl Regions {
    /// Lets callers register regions. The default lets them not.
    pub fn open(config: RegionsConfig) -> Self {
        Self {
            on: Some(On {
                budget: Budget::new(config.max_buffered_bytes),
                config,
                known: RwLock::default(),
            }),
        }
    }

    /// Whether callers may register regions.
    pub fn is_on(&self) -> bool {
        self.on.is_some()
    }

    pub(super) fn on(&self) -> Result<&On, RegionError> {
        self.on.as_ref().ok_or(RegionError::Off)
    }

    /// Registers a region of a tenant's.
    pub fn register(&self, tenant: &TenantId, name: &str, what: &Registration<'_>) -> Result<(), RegionError> {
        self.on()?.register(tenant, name, what)
    }

    /// A tenant's regions by name: one, or all.
    pub fn status(&self, tenant: &TenantId, name: Option<&str>) -> Result<Vec<Region>, RegionError> {
        let on = self.on()?;
        if let Some(name) = name {
            return Ok(vec![on.find(tenant, name)?.region.clone()]);
        }
        let known = on.known.read();
        let of_tenant = known.tenants.get(tenant).into_iter().flat_map(BTreeMap::values);
        Ok(of_tenant.map(|held| held.region.clone()).collect())
    }

    /// Forgets one of a tenant's regions, or all.
    pub fn unregister(&self, tenant: &TenantId, name: Option<&str>) -> Result<(), RegionError> {
        let mut known = self.on()?.known.write();
        let Some(regions) = known.tenants.get_mut(tenant) else {
            return Ok(());
        };
        match name {
            Some(name) => drop(regions.remove(name)),
            None => regions.clear(),
        }
        known.count_anew();
        Ok(())
    }

    /// Forgets the regions of tenants that are gone.
    pub fn retain(&self, is_there: impl Fn(&TenantId) -> bool) {
        if let Some(on) = &self.on {
            let mut known = on.known.write();
            known.tenants.retain(|tenant, _| is_there(tenant));
            known.count_anew();
        }
    }
}

impl Known {
    fn count_anew(&mut self) {
        self.tenants.retain(|_, regions| !regions.is_empty());
        self.count = self.tenants.values().map(BTreeMap::len).sum();
    }
}

impl On {
    pub(super) fn find(&self, tenant: &TenantId, name: &str) -> Result<Arc<Held>, RegionError> {
        let known = self.known.read();
        let found = known.tenants.get(tenant).and_then(|regions| regions.get(name));
        found.cloned().ok_or_else(|| RegionError::unknown(name))
    }

    fn register(&self, tenant: &TenantId, name: &str, what: &Registration<'_>) -> Result<(), RegionError> {
        let (held, size) = self.open(name, what)?;
        let mut known = self.known.write();
        // First of all: nothing else that is said may depend on an object of another tenant's.
        let mut others = known.tenants.iter().filter(|(owner, _)| *owner != tenant);
        if others.any(|(_, regions)| regions.values().any(|other| other.object.is_same(&held.object))) {
            return Err(RegionError::NotOpened { key: quoted(what.key) });
        }
        let Registration { offset, bytes, .. } = *what;
        if offset.checked_add(bytes).is_none_or(|end| end > size) {
            return Err(RegionError::Beyond {
                name: quoted(name),
                offset,
                bytes,
                size,
            });
        }
        let regions = known.tenants.get(tenant);
        if regions.is_some_and(|regions| regions.contains_key(name)) {
            return Err(RegionError::Taken { name: quoted(name) });
        }
        if regions.map_or(0, BTreeMap::len) >= MAX_REGIONS_PER_TENANT {
            return Err(RegionError::TooManyOfTenant);
        }
        if known.count >= MAX_REGIONS {
            return Err(RegionError::TooMany);
        }
        let regions = known.tenants.entry(tenant.clone()).or_default();
        regions.insert(name.to_owned(), Arc::new(held));
        known.count += 1;
        Ok(())
    }

    /// Opens the object of a region, and says how long it is.
    fn open(&self, name: &str, what: &Registration<'_>) -> Result<(Held, u64), RegionError> {
        if !(1..=MAX_REGION_NAME_BYTES).contains(&name.len()) {
            return Err(RegionError::NameLength(name.len()));
        }
        let Registration { key, offset, bytes } = *what;
        let file = file_name(key).map_err(|problem| match problem {
            KeyProblem::Malformed => RegionError::Key { name: quoted(name) },
            KeyProblem::Reserved => RegionError::Reserved {
                name: quoted(name),
                key: quoted(key),
            },
        })?;
        if bytes == 0 {
            return Err(RegionError::Empty { name: quoted(name) });
        }
        let not_opened = |_| RegionError::NotOpened { key: quoted(key) };
        let object = Object::open(&self.config.folder, file).map_err(not_opened)?;
        let size = object.size().map_err(not_opened)?;
        let region = Region {
            name: name.to_owned(),
            key: key.to_owned(),
            offset,
            bytes,
        };
        Ok((Held { region, object }, size))
    }
}
