//! Regions of shared memory that callers have registered: names of a tenant for parts of the system's shared memory objects, and for
//! memory of its processes on CUDA devices.
//!
//! A caller on this machine puts its inputs there and finds its outputs there, so that tensors do not travel through a socket. Off unless the operator allows it, because an object belongs to the machine and not to a tenant: what keeps
//! another tenant out of one is that its name is not known, that the mesh may open it at all, and that an object is
//! registered by one tenant at a time. The same holds for a device's memory and its handle.
//!
//! Invariants: a name means something to its own tenant only, and another's answers as an unknown one; an object is copied
//! from and to through its file and never mapped, so that one that is cut short costs its request an error and nobody a
//! signal; regions, and the bytes of requests that are read from them, are bounded.

mod device;
mod error;
mod memory;
mod object;
mod registry;
mod transfer;

#[cfg(test)]
mod cuda_tests;
#[cfg(test)]
mod tests;

pub use device::{CudaRegion, CudaRegistration, DeviceHandle, DeviceMemory, DeviceObject, HANDLE_BYTES};
pub use error::RegionError;
pub use memory::MemoryKind;
pub use object::RESERVED_KEY_PREFIX;
pub use registry::{MAX_REGIONS, MAX_REGIONS_PER_TENANT, Region, Regions, RegionsConfig, Registration};
pub(crate) use transfer::Landing;

use std::sync::{Arc, LazyLock};

use mesh_types::{Deadline, Fault, TenantId};
use tokio::{
    runtime::Handle,
    sync::{Semaphore, oneshot},
};

use crate::{Credential, RouterHandle, keys};

/// Threads that wait for devices' drivers at a time, in the whole process. Who comes then waits for a place without a thread, and gives
/// it up by leaving; one whose work has begun keeps it until the driver is done.
const MAX_DRIVER_WAITS: usize = 64;
static DRIVER_WAITS: LazyLock<Arc<Semaphore>> = LazyLock::new(|| Arc::new(Semaphore::new(MAX_DRIVER_WAITS)));

/// Runs what waits for a device's driver on a thread that may: a router's own thread has other requests.
pub(crate) async fn may_wait<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, RegionError> + Send + 'static,
) -> Result<T, Fault> {
    may_wait_among(DRIVER_WAITS.clone(), work).await
}

/// The wait of a request for a driver, which ends at its deadline; what the driver has begun goes on, and nobody is told of it.
pub(crate) async fn in_time<T>(deadline: Deadline, copied: impl Future<Output = Result<T, Fault>>) -> Result<T, Fault> {
    let copied = tokio::time::timeout_at(deadline.instant().into(), copied).await;
    copied.unwrap_or_else(|_| Err(Fault::deadline("while a device's driver copied its tensors")))
}

async fn may_wait_among<T: Send + 'static>(
    places: Arc<Semaphore>,
    work: impl FnOnce() -> Result<T, RegionError> + Send + 'static,
) -> Result<T, Fault> {
    let failed = || Fault::internal("what was asked of a device's driver has failed");
    let place = places.acquire_owned().await.map_err(|_| failed())?;
    let work = move || {
        let _place = place;
        work()
    };
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(_) => Err(failed()),
    }
}

/// A region of a device's memory whose caller has not been told of it yet. One who leaves before never learns that there is one: it is none.
struct Unclaimed {
    of: Option<(Arc<Regions>, TenantId, Arc<memory::Held>)>,
}

impl Unclaimed {
    /// Waits for the driver, who closes the memory.
    fn undo(&mut self) {
        if let Some((regions, tenant, region)) = self.of.take() {
            regions.forget(&tenant, &region);
        }
    }
}

impl Drop for Unclaimed {
    fn drop(&mut self) {
        // Left between the registration and the answer, on a thread that must not wait.
        if let (Some(of), Ok(runtime)) = (self.of.take(), Handle::try_current()) {
            drop(runtime.spawn_blocking(move || Self { of: Some(of) }.undo()));
        }
    }
}

impl RouterHandle {
    /// Whether callers may use shared memory at all.
    pub fn offers_regions(&self) -> bool {
        self.parts().regions.is_on()
    }

    /// Registers a region of the caller's in system shared memory.
    pub fn register_region(&self, credential: &Credential, name: &str, what: &Registration<'_>) -> Result<(), Fault> {
        let tenant = self.tenant_of(credential)?;
        Ok(self.parts().regions.register(&tenant, name, what)?)
    }

    /// The caller's regions of system shared memory by name: one, or all.
    pub fn regions(&self, credential: &Credential, name: Option<&str>) -> Result<Vec<Region>, Fault> {
        let tenant = self.tenant_of(credential)?;
        Ok(self.parts().regions.status(&tenant, name)?)
    }

    /// Forgets a region of the caller's in system shared memory, or all; one that it has not is none to forget.
    pub fn unregister_regions(&self, credential: &Credential, name: Option<&str>) -> Result<(), Fault> {
        let tenant = self.tenant_of(credential)?;
        Ok((self.parts().regions).unregister(&tenant, name, MemoryKind::System)?)
    }

    /// The same for CUDA memory, which its driver closes.
    pub async fn unregister_cuda_regions(&self, credential: &Credential, name: Option<&str>) -> Result<(), Fault> {
        let (tenant, regions) = (self.tenant_of(credential)?, self.parts().regions.clone());
        let name = name.map(str::to_owned);
        may_wait(move || regions.unregister(&tenant, name.as_deref(), MemoryKind::Cuda)).await
    }

    /// Registers a region of the caller's in the memory of a CUDA device, which its driver opens.
    pub async fn register_cuda_region(
        &self,
        credential: &Credential,
        name: &str,
        what: &CudaRegistration<'_>,
    ) -> Result<(), Fault> {
        let (tenant, regions) = (self.tenant_of(credential)?, self.parts().regions.clone());
        let (name, handle) = (name.to_owned(), what.handle.to_vec());
        let (device, bytes) = (what.device, what.bytes);
        let (tell, told) = oneshot::channel();
        may_wait(move || {
            let what = CudaRegistration {
                handle: &handle,
                device,
                bytes,
            };
            let region = regions.take_in_cuda(&tenant, &name, &what)?;
            let registered = Unclaimed {
                of: Some((regions, tenant, region)),
            };
            if let Err(mut unclaimed) = tell.send(registered) {
                unclaimed.undo();
            }
            Ok(())
        })
        .await?;
        // From here on it is the caller's, who is there to be told.
        if let Ok(mut registered) = told.await {
            registered.of = None;
        }
        Ok(())
    }

    /// The caller's regions of CUDA memory by name: one, or all.
    pub fn cuda_regions(&self, credential: &Credential, name: Option<&str>) -> Result<Vec<CudaRegion>, Fault> {
        let tenant = self.tenant_of(credential)?;
        Ok(self.parts().regions.cuda_status(&tenant, name)?)
    }

    fn tenant_of(&self, credential: &Credential) -> Result<TenantId, Fault> {
        let parts = self.parts();
        let snapshot = parts.snapshots.load();
        let (principal, _) = keys::caller(&snapshot, parts, credential)?;
        Ok(principal.tenant)
    }
}
