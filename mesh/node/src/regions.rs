//! Shared memory of callers, as a node's configuration wants it.
//!
//! Brings together the router, which knows whose a region is, and CUDA's driver, which opens memory on devices. Without the torch
//! feature, and on machines without CUDA, there is system shared memory only.

use std::sync::Arc;

use mesh_router::{DeviceMemory, Regions, RegionsConfig};

use crate::config::NodeConfig;

/// Where the system has its shared memory objects.
const SHARED_MEMORY: &str = "/dev/shm";
/// The most bytes that requests under way may have read from them, as much as a door keeps of large bodies.
const MAX_REGION_BYTES: usize = 1 << 30;

/// Why callers cannot be let use shared memory as it was wanted.
#[derive(Debug, thiserror::Error)]
#[error("cuda_driver: {0}")]
pub struct RegionsError(String);

/// Shared memory, if callers may use it.
pub(crate) fn open(config: &NodeConfig) -> Result<Regions, RegionsError> {
    if !config.allow_client_shm {
        return Ok(Regions::default());
    }
    tracing::warn!("callers may reach the shared memory objects of this machine: see --allow-client-shm");
    let devices = devices(config)?;
    if devices.is_some() {
        tracing::warn!("callers may register memory that they have on CUDA devices of this machine");
    }
    Ok(Regions::open(RegionsConfig {
        folder: SHARED_MEMORY.into(),
        max_request_bytes: config.max_body_bytes,
        max_buffered_bytes: MAX_REGION_BYTES,
        devices,
    }))
}

#[cfg(not(feature = "torch"))]
fn devices(config: &NodeConfig) -> Result<Option<Arc<dyn DeviceMemory>>, RegionsError> {
    match &config.cuda_driver {
        None => Ok(None),
        Some(_) => Err(RegionsError(
            "this program was built without the torch feature".to_owned(),
        )),
    }
}

/// A driver that is named must be there; that of the system need not be.
#[cfg(feature = "torch")]
fn devices(config: &NodeConfig) -> Result<Option<Arc<dyn DeviceMemory>>, RegionsError> {
    use mesh_backend_torch::{CUDA_DRIVER, CudaMemory};
    let named = config.cuda_driver.as_deref();
    match CudaMemory::start(named.unwrap_or(CUDA_DRIVER.as_ref())) {
        Ok(memory) => Ok(Some(Arc::new(of_devices::Memory(memory)))),
        Err(error) if named.is_some() => Err(RegionsError(error.to_string())),
        Err(error) => {
            tracing::info!(%error, "callers cannot register memory of CUDA devices");
            Ok(None)
        }
    }
}

#[cfg(feature = "torch")]
mod of_devices {
    use std::io;

    use mesh_backend_torch::{CudaMemory, OpenMemory};
    use mesh_router::{DeviceHandle, DeviceMemory, DeviceObject};

    #[derive(Debug)]
    pub(super) struct Memory(pub(super) CudaMemory);

    #[derive(Debug)]
    struct Object(OpenMemory);

    impl DeviceMemory for Memory {
        fn open(&self, device: u16, handle: &DeviceHandle) -> Result<Box<dyn DeviceObject>, String> {
            match self.0.open(device, handle.0) {
                Ok(open) => Ok(Box::new(Object(open))),
                Err(error) => Err(error.to_string()),
            }
        }
    }

    impl DeviceObject for Object {
        fn size(&self) -> u64 {
            self.0.size()
        }

        fn read(&self, buffer: &mut [u8], from: u64) -> io::Result<()> {
            self.0.read(buffer, from)
        }

        fn write(&self, bytes: &[u8], to: u64) -> io::Result<()> {
            self.0.write(bytes, to)
        }
    }
}
