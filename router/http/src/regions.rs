//! Shared memory: regions are registered, shown and unregistered. What a name stands for is the router's to know.

use actix_web::{HttpRequest, HttpResponse, http::StatusCode, web};
use mesh_protocol::{CudaRegionStatus, RegionStatus, decode_cuda_region, decode_system_region, regions_body};
use mesh_router::{CudaRegistration, Registration};
use mesh_types::{Fault, RequestId};

use crate::{
    extension::{MemoryCall, MemoryKind, decoded},
    reply,
    service::{Service, credential, is_presented},
};

impl Service {
    /// Answers what is asked about regions.
    pub(crate) async fn memory(
        &self,
        request: &HttpRequest,
        mut payload: web::Payload,
        (kind, region, call): (MemoryKind, Option<&str>, MemoryCall),
        id: RequestId,
    ) -> HttpResponse {
        // Read even where it says nothing, so that the connection can serve the next request.
        let body = match self.body(request, &mut payload, id).await {
            Ok(body) => body,
            Err(refused) => return refused,
        };
        let region = match region.map(decoded) {
            Some(None) => Err(Fault::invalid(
                "the name of a shared memory region must be encoded UTF-8",
            )),
            named => Ok(named.flatten()),
        };
        let answered = match (region, kind) {
            (Ok(region), MemoryKind::System) => self.system_memory(request, region.as_deref(), call, &body.bytes),
            (Ok(region), MemoryKind::Cuda) => self.cuda_memory(request, region.as_deref(), call, &body.bytes).await,
            (Err(fault), _) => Err(fault),
        };
        match answered {
            Ok(body) => reply::json(StatusCode::OK, body),
            Err(fault) => reply::fault(&fault, is_presented(request)),
        }
    }

    fn system_memory(
        &self,
        request: &HttpRequest,
        region: Option<&str>,
        call: MemoryCall,
        body: &[u8],
    ) -> Result<Vec<u8>, Fault> {
        let credential = credential(request);
        match call {
            MemoryCall::Status => {
                let regions = self.router.regions(&credential, region)?;
                Ok(regions_body(regions.iter().map(|region| RegionStatus {
                    name: &region.name,
                    key: &region.key,
                    offset: region.offset,
                    byte_size: region.bytes,
                })))
            }
            MemoryCall::Register => {
                let asked = decode_system_region(body)?;
                let registration = Registration {
                    key: &asked.key,
                    offset: asked.offset,
                    bytes: asked.byte_size,
                };
                self.router
                    .register_region(&credential, region.unwrap_or_default(), &registration)?;
                Ok(Vec::new())
            }
            MemoryCall::Unregister => {
                self.router.unregister_regions(&credential, region)?;
                Ok(Vec::new())
            }
        }
    }

    async fn cuda_memory(
        &self,
        request: &HttpRequest,
        region: Option<&str>,
        call: MemoryCall,
        body: &[u8],
    ) -> Result<Vec<u8>, Fault> {
        let credential = credential(request);
        match call {
            MemoryCall::Status => {
                let regions = self.router.cuda_regions(&credential, region)?;
                Ok(regions_body(regions.iter().map(|region| CudaRegionStatus {
                    name: &region.name,
                    device_id: region.device.into(),
                    byte_size: region.bytes,
                })))
            }
            MemoryCall::Register => {
                let asked = decode_cuda_region(body)?;
                let registration = CudaRegistration {
                    handle: &asked.handle,
                    device: asked.device,
                    bytes: asked.byte_size,
                };
                self.router
                    .register_cuda_region(&credential, region.unwrap_or_default(), &registration)
                    .await?;
                Ok(Vec::new())
            }
            MemoryCall::Unregister => {
                self.router.unregister_cuda_regions(&credential, region).await?;
                Ok(Vec::new())
            }
        }
    }
}
