//! Shared memory: regions are registered, shown and unregistered. What a name stands for is the router's to know.

use mesh_protocol::grpc::messages::{system_shared_memory_status_response::RegionStatus, *};
use mesh_router::{Credential, Region, Registration};
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
    service.router.unregister_regions(credential, named(&asked.name))?;
    Ok(SystemSharedMemoryUnregisterResponse {})
}

pub(crate) fn cuda_status(
    service: &Service,
    asked: &CudaSharedMemoryStatusRequest,
    credential: &Credential,
) -> Result<CudaSharedMemoryStatusResponse, Fault> {
    service.router.cuda_regions(credential, named(&asked.name))?;
    Ok(CudaSharedMemoryStatusResponse::default())
}

pub(crate) fn cuda_register(
    service: &Service,
    _: &CudaSharedMemoryRegisterRequest,
    credential: &Credential,
) -> Result<CudaSharedMemoryRegisterResponse, Fault> {
    Err(service.router.refuse_cuda_region(credential))
}

pub(crate) fn cuda_unregister(
    service: &Service,
    _: &CudaSharedMemoryUnregisterRequest,
    credential: &Credential,
) -> Result<CudaSharedMemoryUnregisterResponse, Fault> {
    service.router.unregister_cuda_regions(credential)?;
    Ok(CudaSharedMemoryUnregisterResponse {})
}
