//! Records and reports for tests, in few words.

use mesh_policies::{Pepper, Target, VersionEntry};
use mesh_resources::{
    ArmSpec, ArtifactRef, EndpointSpec, ModelSpec, ModelVersionSpec, Resource, ResourceKey, TenantSpec,
};
use mesh_types::{
    ArtifactFormat, DeviceId, EndpointId, ModelConfig, ModelId, ModelVersionKey, TenantId, Version, VersionSelector,
};

use crate::{Compiled, DeviceReport, FleetReport, ModelReport, ModelState, Records, Trouble, compile};

pub(crate) const CPU: DeviceId = DeviceId::cpu(0);

pub(crate) fn tenant(name: &str) -> TenantId {
    TenantId::parse(name).unwrap()
}

pub(crate) fn number(number: u32) -> Version {
    Version::new(number).unwrap()
}

/// `acme/m/3`.
pub(crate) fn key(text: &str) -> ModelVersionKey {
    let parts: Vec<&str> = text.split('/').collect();
    ModelVersionKey {
        tenant: tenant(parts[0]),
        model: ModelId::parse(parts[1]).unwrap(),
        version: parts[2].parse().unwrap(),
    }
}

pub(crate) fn a_tenant(name: &str) -> Resource {
    Resource::new(&ResourceKey::tenant(&tenant(name)), TenantSpec::default())
}

/// A model with labels written `stable=1` and grants.
pub(crate) fn a_model(owner: &str, name: &str, labels: &[(&str, u32)], grants: &[&str]) -> Resource {
    let spec = ModelSpec {
        labels: labels
            .iter()
            .map(|(label, version)| (label.parse().unwrap(), number(*version)))
            .collect(),
        grants: grants.iter().map(|name| tenant(name)).collect(),
        ..ModelSpec::default()
    };
    Resource::new(
        &ResourceKey::model(&tenant(owner), &ModelId::parse(name).unwrap()),
        spec,
    )
}

pub(crate) fn a_version(text: &str, unloaded: bool) -> Resource {
    a_version_of(text, unloaded, 0)
}

/// A version whose file's digest is all of one digit.
pub(crate) fn a_version_of(text: &str, unloaded: bool, digit: u8) -> Resource {
    let spec = ModelVersionSpec {
        format: ArtifactFormat::TorchScript,
        artifact: Some(ArtifactRef {
            sha256: digit.to_string().repeat(64),
            bytes: 1,
        }),
        config: ModelConfig::default(),
        signature: None,
        unloaded,
        description: None,
    };
    Resource::new(&ResourceKey::version(&key(text)), spec)
}

/// An endpoint with arms written `(name, model, version or label, percent)`.
pub(crate) fn an_endpoint(owner: &str, name: &str, arms: &[(&str, &str, &str, f64)]) -> Resource {
    let arm = |(name, model, version, weight): &(&str, &str, &str, f64)| ArmSpec {
        name: (*name).to_owned(),
        model: ModelId::parse(model).unwrap(),
        version: (!version.is_empty()).then(|| version.parse().unwrap()),
        weight: *weight,
    };
    let spec = EndpointSpec {
        description: None,
        arms: arms.iter().map(arm).collect(),
        sticky_by: None,
        salt: Some("salt".to_owned()),
        timeout_ms: Some(250),
        service_class: mesh_types::ServiceClass::default(),
        cache: None,
        limits: mesh_resources::LimitsSpec::default(),
    };
    let key = ResourceKey::endpoint(&tenant(owner), &EndpointId::parse(name).unwrap());
    Resource::new(&key, spec)
}

/// A report of the CPU device.
pub(crate) fn report(models: &[(&str, ModelState)]) -> FleetReport {
    let mut models: Vec<ModelReport> = models
        .iter()
        .map(|(text, state)| ModelReport {
            key: key(text),
            state: *state,
            reason: matches!(state, ModelState::Unavailable | ModelState::Quarantined).then(|| "it broke".to_owned()),
            memory_bytes: 0,
            peak_bytes: 0,
            load_time: None,
            proven: *state == ModelState::Ready,
            progress: None,
        })
        .collect();
    models.sort_by(|a, b| a.key.cmp(&b.key));
    FleetReport {
        devices: vec![DeviceReport {
            device: CPU,
            draining: false,
            budget: None,
            models,
        }],
    }
}

/// The same with the CPU device taking no new jobs.
pub(crate) fn draining(mut report: FleetReport) -> FleetReport {
    for device in &mut report.devices {
        device.draining = true;
    }
    report
}

pub(crate) fn ready(models: &[&str]) -> FleetReport {
    let models: Vec<_> = models.iter().map(|text| (*text, ModelState::Ready)).collect();
    report(&models)
}

pub(crate) fn records(revision: u64, resources: &[Resource]) -> Records {
    Records::index(revision, resources.iter().cloned())
}

pub(crate) fn compiled(records: &Records, report: &FleetReport, previous: &Compiled) -> Compiled {
    compile(
        records,
        report,
        &Trouble::default(),
        &Pepper::from_bytes([7; 32]),
        previous,
    )
}

/// What a tenant's call leads to: the versions that may answer, `model/number`, each with whether it is ready.
pub(crate) fn answers(compiled: &Compiled, caller: &str, name: &str) -> Vec<(String, bool)> {
    let show = |version: Option<&VersionEntry>| match version {
        Some(version) => (
            format!("{}/{}", version.key.model, version.key.version),
            version.is_ready(),
        ),
        None => ("none".to_owned(), false),
    };
    match compiled.snapshot.tenant(caller).and_then(|tenant| tenant.target(name)) {
        None => Vec::new(),
        Some(Target::Model(model)) => vec![show(model.resolve(&VersionSelector::Default).map(AsRef::as_ref))],
        Some(Target::Endpoint(route)) => {
            let arms = route.arms.iter().filter(|arm| arm.hundredths > 0);
            arms.map(|arm| show(arm.version.as_deref())).collect()
        }
    }
}
