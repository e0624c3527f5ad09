//! Shared memory: regions are registered, shown and unregistered. What a name stands for is the router's to know.

use std::rc::Rc;

use mesh_protocol::grpc::messages::{
    cuda_shared_memory_status_response::RegionStatus as CudaRegionStatus,
    system_shared_memory_status_response::RegionStatus, *,
};
use mesh_router::{Credential, CudaRegion, CudaRegistration, Region, Registration};
use mesh_types::Fault;

use crate::service::Service;

/// The one that is named; all where none is.
fn named(name: &str) -> Option<&str> {
    Some(name).filter(|name| !name.is_empty())
}

pub(crate) fn system_status(
    service: &Service,
    asked: &SystemSharedMemoryStatusRequest,
    credential: &Credential,
) -> Result<SystemSharedMemoryStatusResponse, Fault> {
    let regions = service.router.regions(credential, named(&asked.name))?;
    let status = |region: Region| {
        let status = RegionStatus {
            name: region.name.clone(),
            key: region.key,
            offset: region.offset,
            byte_size: region.bytes,
        };
        (region.name, status)
    };
    Ok(SystemSharedMemoryStatusResponse {
        regions: regions.into_iter().map(status).collect(),
    })
}

pub(crate) fn system_register(
    service: &Service,
    asked: &SystemSharedMemoryRegisterRequest,
    credential: &Credential,
) -> Result<SystemSharedMemoryRegisterResponse, Fault> {
    let registration = Registration {
        key: &asked.key,
        offset: asked.offset,
        bytes: asked.byte_size,
    };
    service.router.register_region(credential, &asked.name, &registration)?;
    Ok(SystemSharedMemoryRegisterResponse {})
}

pub(crate) fn system_unregister(
    service: &Service,
    asked: &SystemSharedMemoryUnregisterRequest,
    credential: &Credential,
) -> Result<SystemSharedMemoryUnregisterResponse, Fault> {
    let router = &service.router;
    router.unregister_regions(credential, named(&asked.name))?;
    Ok(SystemSharedMemoryUnregisterResponse {})
}

pub(crate) fn cuda_status(
    service: &Service,
    asked: &CudaSharedMemoryStatusRequest,
    credential: &Credential,
) -> Result<CudaSharedMemoryStatusResponse, Fault> {
    let regions = service.router.cuda_regions(credential, named(&asked.name))?;
    let status = |region: CudaRegion| {
        let status = CudaRegionStatus {
            name: region.name.clone(),
            device_id: region.device.into(),
            byte_size: region.bytes,
        };
        (region.name, status)
    };
    Ok(CudaSharedMemoryStatusResponse {
        regions: regions.into_iter().map(status).collect(),
    })
}

pub(crate) async fn cuda_register(
    service: Rc<Service>,
    asked: CudaSharedMemoryRegisterRequest,
    credential: Credential,
) -> Result<CudaSharedMemoryRegisterResponse, Fault> {
    let registration = CudaRegistration {
        handle: &asked.raw_handle,
        device: asked.device_id,
        bytes: asked.byte_size,
    };
    let router = &service.router;
    router
        .register_cuda_region(&credential, &asked.name, &registration)
        .await?;
    Ok(CudaSharedMemoryRegisterResponse {})
}

pub(crate) async fn cuda_unregister(
    service: Rc<Service>,
    asked: CudaSharedMemoryUnregisterRequest,
    credential: Credential,
) -> Result<CudaSharedMemoryUnregisterResponse, Fault> {
    let router = &service.router;
    router.unregister_cuda_regions(&credential, named(&asked.name)).await?;
    Ok(CudaSharedMemoryUnregisterResponse {})
}
