//! Which form of a version was found to be best on a device: a version that comes back is not measured again.

use std::{
    collections::VecDeque,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
};

use mesh_backend::LoadSpec;
use mesh_types::{DeviceId, LoadReport, ModelConfig, ModelVersionKey, Variant};

/// The most versions that are remembered; beyond it the oldest are forgotten.
const MAX_DECISIONS: usize = 2_048;

#[derive(Debug)]
struct Decision {
    key: ModelVersionKey,
    on: DeviceId,
    config: Arc<ModelConfig>,
    artifact: Option<PathBuf>,
    report: LoadReport,
}

impl Decision {
    fn is_about(&self, spec: &LoadSpec, on: DeviceId) -> bool {
        self.on == on && self.key == spec.key && self.artifact == spec.artifact
    }
}

/// What is remembered.
#[derive(Debug, Default)]
pub(crate) struct Decisions {
    all: Mutex<VecDeque<Decision>>,
}

impl Decisions {
    /// What was found of the same file, called in the same way.
    pub(crate) fn of(&self, spec: &LoadSpec, on: DeviceId) -> Option<LoadReport> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut about = all.iter().filter(|decision| decision.is_about(spec, on));
        let found = about.find(|decision| decision.config == spec.config)?;
        Some(found.report.clone())
    }

    /// Which form was found to be best, if that is known.
    pub(crate) fn chosen(&self, spec: &LoadSpec, on: DeviceId) -> Option<Variant> {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut about = all.iter().filter(|decision| decision.is_about(spec, on));
        let found = about.find(|decision| decision.config == spec.config)?;
        Some(found.report.chosen)
    }

    /// Remembers what was found.
    pub(crate) fn remember(&self, spec: &LoadSpec, on: DeviceId, report: &LoadReport) {
        let mut all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|decision| !decision.is_about(spec, on));
        if all.len() >= MAX_DECISIONS {
            all.pop_front();
        }
        all.push_back(Decision {
            key: spec.key.clone(),
            on,
            config: spec.config.clone(),
            artifact: spec.artifact.clone(),
            report: report.clone(),
        });
    }
}

#[cfg(test)]
mod tests {
    use mesh_types::{ArtifactFormat, ModelId, TenantId, Version};

    use super::*;

    fn spec(number: usize) -> LoadSpec {
        LoadSpec {
            key: ModelVersionKey {
                tenant: TenantId::parse("t").unwrap(),
                model: ModelId::parse(&format!("m{number}")).unwrap(),
                version: Version::FIRST,
            },
            config: Arc::default(),
            artifact: None,
            format: ArtifactFormat::TorchScript,
        }
    }

    #[test]
    fn so_many_are_remembered_and_the_oldest_goes() {
        let (decisions, on, report) = (Decisions::default(), DeviceId::cpu(0), LoadReport::plain("x"));
        (0..MAX_DECISIONS).for_each(|number| decisions.remember(&spec(number), on, &report));
        assert_eq!(decisions.of(&spec(0), on), Some(report.clone()));
        decisions.remember(&spec(MAX_DECISIONS), on, &report);
        assert_eq!(decisions.of(&spec(0), on), None);
        assert_eq!(decisions.of(&spec(1), on), Some(report));
        assert_eq!(decisions.of(&spec(1), DeviceId::cpu(1)), None);
    }

    #[test]
    fn another_configuration_of_the_same_version_is_measured_anew() {
        let (decisions, on) = (Decisions::default(), DeviceId::cpu(0));
        decisions.remember(&spec(1), on, &LoadReport::plain("x"));
        let mut other = spec(1);
        other.config = Arc::new(ModelConfig {
            max_batch_size: 3,
            ..ModelConfig::default()
        });
        assert_eq!(decisions.of(&other, on), None);
        decisions.remember(&other, on, &LoadReport::plain("y"));
        assert_eq!(decisions.of(&spec(1), on), None, "one decision for a version");
    }
}
