//! Trying inputs out on every arm of an endpoint, side by side. Counts for nothing and moves no traffic.

use std::{sync::Arc, time::Duration};

use actix_web::{HttpResponse, web::Bytes};
use futures::future::join_all;
use mesh_protocol::{OutputOptions, decode_infer, encode_infer};
use mesh_resources::{ArmSpec, Kind, ModelSpec, Resource, ResourceKey, Spec, VersionRef};
use mesh_types::{
    CorrelationId, Deadline, EndpointId, Fault, InferJob, InferRequest, InferResponse, ModelConfig, ModelId,
    ModelVersionKey, Parameters, SequenceStep, Standing, TenantId, TraceContext, Version, VersionSelector,
};
use serde_json::Value;

use crate::{
    AdminState,
    auth::Caller,
    error::ApiError,
    resources::MAX_LIMIT,
    wire::{Trial, Trials},
};

/// The largest body of a trial.
pub(crate) const MAX_TRIAL_BYTES: usize = 8 << 20;
/// How long each arm may take.
const TIMEOUT: Duration = Duration::from_secs(10);

pub(crate) async fn try_endpoint(
    state: &AdminState,
    caller: &Caller,
    tenant: &TenantId,
    endpoint: &EndpointId,
    body: &Bytes,
) -> Result<HttpResponse, ApiError> {
    let busy = || ApiError::busy("as many trials are running as can be: wait for one to end");
    let _permit = state.inner.trials.try_acquire().ok_or_else(busy)?;
    let key = ResourceKey::endpoint(tenant, endpoint);
    let found = state
        .inner
        .parts
        .registry
        .get(&key)?
        .ok_or_else(|| ApiError::not_found(&key))?;
    let Spec::Endpoint(spec) = found.spec else {
        return Err(ApiError::not_found(&key));
    };
    let decoded = decode_infer(endpoint.as_str(), VersionSelector::Default, body, None).map_err(Fault::from)?;
    let arms = spec
        .arms
        .iter()
        .map(|arm| run(state, caller, tenant, arm, &decoded.request));
    Ok(HttpResponse::Ok().json(Trials {
        arms: join_all(arms).await,
    }))
}

async fn run(state: &AdminState, caller: &Caller, tenant: &TenantId, arm: &ArmSpec, request: &InferRequest) -> Trial {
    let started = state.inner.parts.clock.now();
    let resolved = resolve(state, tenant, &arm.model, arm.version.as_ref());
    let version = resolved.as_ref().ok().map(|(key, _)| key.version.get());
    let answer = match resolved {
        Ok((key, config)) => infer(state, caller, tenant, (key, config), request)
            .await
            .map_err(|fault| fault.to_string()),
        Err(error) => Err(error.to_string()),
    };
    let took = state.inner.parts.clock.now().saturating_duration_since(started);
    let (response, error) = match answer {
        Ok(response) => (Some(response), None),
        Err(error) => (None, Some(error)),
    };
    Trial {
        arm: arm.name.clone(),
        version,
        response,
        error,
        milliseconds: took.as_secs_f64() * 1_000.0,
    }
}

async fn infer(
    state: &AdminState,
    caller: &Caller,
    tenant: &TenantId,
    (key, config): (ModelVersionKey, ModelConfig),
    request: &InferRequest,
) -> Result<Value, Fault> {
    let mut inputs = request.inputs.clone();
    let rows = config.check_inputs(&key.model, &mut inputs)?;
    config.check_outputs(&key.model, &request.outputs)?;
    config.check_classes(&request.classes)?;
    let version = Arc::new(key);
    let job = InferJob {
        request: caller.request(),
        tenant: tenant.clone(),
        version: version.clone(),
        inputs,
        outputs: request.outputs.clone(),
        rows,
        parameters: config.model_parameters(&version.model, &request.parameters)?,
        deadline: Deadline::after(state.inner.parts.clock.now(), TIMEOUT),
        standing: Standing::default(),
        sequence: config.sequence_batching.is_some().then(|| alone(caller)),
        answers: None,
        trace: TraceContext::default(),
        meter: None,
    };
    let outcome = state.inner.parts.probe.infer(job, request.parameters.clone()).await?;
    let mut outputs = outcome.outputs;
    config.classify(&request.classes, &mut outputs)?;
    let response = InferResponse {
        id: request.id.clone(),
        model: version.model.to_string(),
        version: version.version,
        outputs,
        parameters: Parameters::default(),
        regions: Vec::new(),
    };
    let encoded = encode_infer(&response, &OutputOptions::all(false)).map_err(Fault::from)?;
    let bytes: Vec<u8> = encoded
        .into_chunks()
        .iter()
        .flat_map(|chunk| chunk.iter().copied())
        .collect();
    serde_json::from_slice(&bytes).map_err(|_| Fault::internal("the response cannot be written as json"))
}

/// A sequence of one request: what a stateful model answers to it first.
fn alone(caller: &Caller) -> Box<SequenceStep> {
    let id = CorrelationId::Text(format!("trial-{}", caller.request()).into());
    let (start, end) = (true, true);
    Box::new(SequenceStep { id, start, end })
}

/// The version that a tenant means now, and how it is called.
pub(crate) fn resolve(
    state: &AdminState,
    tenant: &TenantId,
    name: &ModelId,
    version: Option<&VersionRef>,
) -> Result<(ModelVersionKey, ModelConfig), ApiError> {
    let (owner, model) = model_of(state, tenant, name)?;
    let wanted = version
        .or(model.default_version.as_ref())
        .map(|wanted| wanted.selector().clone());
    let version = match wanted {
        Some(VersionSelector::Version(version)) => version,
        Some(VersionSelector::Label(label)) => {
            let pointed = model.labels.get(&label).copied();
            pointed.ok_or_else(|| ApiError::not_found(format!("label '{label}' of model '{name}'")))?
        }
        Some(VersionSelector::Default) | None => highest(state, &owner, name)?,
    };
    let key = ModelVersionKey {
        tenant: owner,
        model: name.clone(),
        version,
    };
    match state
        .inner
        .parts
        .registry
        .get(&ResourceKey::version(&key))?
        .map(|found| found.spec)
    {
        Some(Spec::ModelVersion(spec)) => Ok((key, spec.config)),
        _ => Err(ApiError::not_found(format!("version {version} of model '{name}'"))),
    }
}

/// The tenant's own model of that name, or one that was granted to it.
fn model_of(state: &AdminState, tenant: &TenantId, name: &ModelId) -> Result<(TenantId, ModelSpec), ApiError> {
    let registry = &state.inner.parts.registry;
    if let Some(Spec::Model(spec)) = registry.get(&ResourceKey::model(tenant, name))?.map(|found| found.spec) {
        return Ok((tenant.clone(), spec));
    }
    let granted = |resource: Resource| match (resource.metadata.tenant, resource.spec) {
        (Some(owner), Spec::Model(spec)) if spec.grants.contains(tenant) => Some((owner, spec)),
        _ => None,
    };
    let mut after = None;
    loop {
        let page = registry.list(Kind::Model, None, after.as_ref(), MAX_LIMIT)?;
        let mut named = page
            .items
            .into_iter()
            .filter(|resource| resource.metadata.name == name.as_str());
        if let Some(found) = named.find_map(granted) {
            return Ok(found);
        }
        after = page.next;
        if after.is_none() {
            return Err(ApiError::not_found(format!("model '{name}'")));
        }
    }
}

fn highest(state: &AdminState, owner: &TenantId, name: &ModelId) -> Result<Version, ApiError> {
    let versions = crate::versions::versions(state, owner, name)?;
    let loaded = versions
        .iter()
        .rev()
        .find(|(_, resource)| matches!(&resource.spec, Spec::ModelVersion(spec) if !spec.unloaded));
    let highest = loaded.map(|(version, _)| *version);
    highest.ok_or_else(|| ApiError::not_found(format!("a version of model '{name}'")))
}
