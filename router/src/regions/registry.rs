//! Which regions there are, and whose they are.

use std::{
    collections::{BTreeMap, HashMap},
    path::PathBuf,
    sync::Arc,
};

use mesh_types::{MAX_REGION_NAME_BYTES, TenantId};
use parking_lot::RwLock;

use super::{
    device::{CudaRegion, CudaRegistration, DeviceHandle, HANDLE_BYTES, Opened, Opener},
    error::{RegionError, quoted},
    memory::{Held, Memory, MemoryKind},
    object::{KeyProblem, Object, file_name},
};
use crate::Budget;

/// The most regions of one tenant. Each is an open file, or memory that is open on a device.
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
    /// Who opens memory on CUDA devices; none where there are no such devices.
    pub devices: Opener,
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

    /// Registers a region of a tenant's in system shared memory.
    pub fn register(&self, tenant: &TenantId, name: &str, what: &Registration<'_>) -> Result<(), RegionError> {
        let on = self.on()?;
        let held = on.open(name, what)?;
        let not_opened = RegionError::NotOpened { key: quoted(what.key) };
        on.register(tenant, held, not_opened).map(drop)
    }

    /// Registers a region of a tenant's in the memory of a CUDA device.
    pub fn register_cuda(&self, tenant: &TenantId, name: &str, what: &CudaRegistration<'_>) -> Result<(), RegionError> {
        self.take_in_cuda(tenant, name, what).map(drop)
    }

    /// The same, and which region it is now.
    pub(super) fn take_in_cuda(
        &self,
        tenant: &TenantId,
        name: &str,
        what: &CudaRegistration<'_>,
    ) -> Result<Arc<Held>, RegionError> {
        let on = self.on()?;
        // Opening costs more than to look, so it is looked first.
        on.known.read().has_room(tenant, name)?;
        let held = on.open_cuda(name, what)?;
        let not_opened = RegionError::HandleNotOpened {
            name: quoted(name),
            device: what.device,
        };
        on.register(tenant, held, not_opened)
    }

    /// A tenant's regions of system shared memory by name: one, or all.
    pub fn status(&self, tenant: &TenantId, name: Option<&str>) -> Result<Vec<Region>, RegionError> {
        self.on()?.status(tenant, name, MemoryKind::System, Held::system)
    }

    /// A tenant's regions of CUDA memory by name: one, or all.
    pub fn cuda_status(&self, tenant: &TenantId, name: Option<&str>) -> Result<Vec<CudaRegion>, RegionError> {
        self.on()?.status(tenant, name, MemoryKind::Cuda, Held::cuda)
    }

    /// Forgets one of a tenant's regions, or all; those of the other kind stay.
    pub fn unregister(&self, tenant: &TenantId, name: Option<&str>, kind: MemoryKind) -> Result<(), RegionError> {
        let mut known = self.on()?.known.write();
        let Some(regions) = known.tenants.get_mut(tenant) else {
            return Ok(());
        };
        let mut gone = Vec::new();
        regions.retain(|known, held| {
            let stays = held.memory.kind() != kind || name.is_some_and(|name| name != known);
            if !stays {
                gone.push(held.clone());
            }
            stays
        });
        known.count_anew();
        // Memory of a device is closed by its driver, which may take its time: not while others wait to look.
        drop(known);
        drop(gone);
        Ok(())
    }

    /// Forgets this very region, and not one that has its name since.
    pub(super) fn forget(&self, tenant: &TenantId, region: &Arc<Held>) {
        let Some(on) = &self.on else { return };
        let mut known = on.known.write();
        let gone = known.tenants.get_mut(tenant).and_then(|regions| {
            let is_it = regions.get(&region.name).is_some_and(|held| Arc::ptr_eq(held, region));
            is_it.then(|| regions.remove(&region.name)).flatten()
        });
        known.count_anew();
        // As above: whoever has the last of it closes it.
        drop(known);
        drop(gone);
    }

    /// Forgets the regions of tenants that are gone.
    pub fn retain(&self, is_there: impl Fn(&TenantId) -> bool) {
        if let Some(on) = &self.on {
            let mut known = on.known.write();
            let gone: Vec<OfTenant> = known
                .tenants
                .extract_if(|tenant, _| !is_there(tenant))
                .map(|(_, regions)| regions)
                .collect();
            known.count_anew();
            drop(known);
            // As above.
            drop(gone);
        }
    }
}

impl Known {
    /// Whether the tenant may have one more of this name.
    fn has_room(&self, tenant: &TenantId, name: &str) -> Result<(), RegionError> {
        let regions = self.tenants.get(tenant);
        if regions.is_some_and(|regions| regions.contains_key(name)) {
            return Err(RegionError::Taken { name: quoted(name) });
        }
        if regions.map_or(0, BTreeMap::len) >= MAX_REGIONS_PER_TENANT {
            return Err(RegionError::TooManyOfTenant);
        }
        if self.count >= MAX_REGIONS {
            return Err(RegionError::TooMany);
        }
        Ok(())
    }

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

    fn status<T>(
        &self,
        tenant: &TenantId,
        name: Option<&str>,
        kind: MemoryKind,
        seen: fn(&Held) -> Option<T>,
    ) -> Result<Vec<T>, RegionError> {
        if let Some(name) = name {
            let held = self.find(tenant, name)?;
            let region = seen(&held).ok_or_else(|| RegionError::OtherKind {
                name: quoted(name),
                wanted: kind.as_str(),
                kind: held.memory.kind().as_str(),
            })?;
            return Ok(vec![region]);
        }
        let known = self.known.read();
        let of_tenant = known.tenants.get(tenant).into_iter().flat_map(BTreeMap::values);
        Ok(of_tenant.filter_map(|held| seen(held)).collect())
    }

    /// Takes in a region whose memory is open; `not_opened` is what is said of memory that another tenant has registered.
    fn register(&self, tenant: &TenantId, held: Held, not_opened: RegionError) -> Result<Arc<Held>, RegionError> {
        let (name, offset, bytes) = (held.name.clone(), held.offset, held.bytes);
        let size = held.memory.size().map_err(|_| not_opened.clone())?;
        let mut known = self.known.write();
        // First of all: nothing else that is said may depend on memory of another tenant's.
        let mut others = known.tenants.iter().filter(|(owner, _)| *owner != tenant);
        if others.any(|(_, regions)| regions.values().any(|other| other.memory.is_same(&held.memory))) {
            return Err(not_opened);
        }
        if offset.checked_add(bytes).is_none_or(|end| end > size) {
            return Err(RegionError::Beyond {
                name: quoted(&name),
                offset,
                bytes,
                size,
            });
        }
        known.has_room(tenant, &name)?;
        let regions = known.tenants.entry(tenant.clone()).or_default();
        let held = Arc::new(held);
        regions.insert(name, held.clone());
        known.count += 1;
        Ok(held)
    }

    /// Opens the object of a region.
    fn open(&self, name: &str, what: &Registration<'_>) -> Result<Held, RegionError> {
        let Registration { key, offset, bytes } = *what;
        check_name(name)?;
        let file = file_name(key).map_err(|problem| match problem {
            KeyProblem::Malformed => RegionError::Key { name: quoted(name) },
            KeyProblem::Reserved => RegionError::Reserved {
                name: quoted(name),
                key: quoted(key),
            },
        })?;
        check_bytes(name, bytes)?;
        let object = Object::open(&self.config.folder, file);
        let object = object.map_err(|_| RegionError::NotOpened { key: quoted(key) })?;
        Ok(Held {
            name: name.to_owned(),
            offset,
            bytes,
            memory: Memory::System {
                object,
                key: key.to_owned(),
            },
        })
    }

    /// Opens the memory of a region on a CUDA device.
    fn open_cuda(&self, name: &str, what: &CudaRegistration<'_>) -> Result<Held, RegionError> {
        let CudaRegistration { handle, device, bytes } = *what;
        let devices = self.config.devices.as_ref().ok_or(RegionError::NoCuda)?;
        check_name(name)?;
        let handle: [u8; HANDLE_BYTES] = handle.try_into().map_err(|_| RegionError::Handle {
            name: quoted(name),
            got: handle.len(),
        })?;
        check_bytes(name, bytes)?;
        let handle = DeviceHandle(handle);
        let not_opened = || RegionError::HandleNotOpened {
            name: quoted(name),
            device,
        };
        let index = u16::try_from(device).map_err(|_| not_opened())?;
        let object = devices.open(index, &handle).map_err(|error| {
            tracing::info!(device, error, "a caller's memory on a device is not opened");
            not_opened()
        })?;
        Ok(Held {
            name: name.to_owned(),
            offset: 0,
            bytes,
            memory: Memory::Cuda(Opened {
                device: index,
                handle,
                object,
            }),
        })
    }
}

fn check_name(name: &str) -> Result<(), RegionError> {
    if (1..=MAX_REGION_NAME_BYTES).contains(&name.len()) {
        return Ok(());
    }
    Err(RegionError::NameLength(name.len()))
}

fn check_bytes(name: &str, bytes: u64) -> Result<(), RegionError> {
    if bytes > 0 {
        return Ok(());
    }
    Err(RegionError::Empty { name: quoted(name) })
}
