//! What is traced and logged: read, and changed where callers may.

use mesh_protocol::{
    grpc::messages::{LogSettingsRequest, LogSettingsResponse, TraceSettingRequest, TraceSettingResponse},
    log_change, log_settings, trace_change, trace_settings,
};
use mesh_router::Credential;
use mesh_types::Fault;

use crate::service::Service;

pub(crate) fn trace(
    service: &Service,
    asked: &TraceSettingRequest,
    credential: &Credential,
) -> Result<TraceSettingResponse, Fault> {
    let model = Some(&*asked.model_name).filter(|name| !name.is_empty());
    let settings = service
        .router
        .trace_settings(credential, model, &trace_change(asked)?)?;
    Ok(trace_settings(&settings))
}

pub(crate) fn logging(
    service: &Service,
    asked: &LogSettingsRequest,
    credential: &Credential,
) -> Result<LogSettingsResponse, Fault> {
    let settings = service.router.log_settings(credential, &log_change(asked)?)?;
    Ok(log_settings(&settings))
}
