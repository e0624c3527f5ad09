//! Models and their versions.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    str::FromStr,
};

use mesh_types::{ArtifactFormat, Label, ModelConfig, NameError, TenantId, Version, VersionSelector};
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use utoipa::ToSchema;

use crate::{LimitsSpec, ModelSignature, Problem, schema::ModelConfigSchema, tenant::check_text};

/// The most labels of one model.
pub const MAX_LABELS: usize = 64;
/// The most tenants that one model is granted to.
pub const MAX_GRANTS: usize = 1_000;
pub(crate) const MAX_DESCRIPTION: usize = 2_000;

/// A version by its number or by a label: `3`, `stable`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, ToSchema)]
#[schema(value_type = String, examples("stable", "3"))]
pub struct VersionRef(VersionSelector);

impl VersionRef {
    /// What it selects; never the default.
    pub fn selector(&self) -> &VersionSelector {
        &self.0
    }
}

impl From<Version> for VersionRef {
    fn from(version: Version) -> Self {
        Self(VersionSelector::Version(version))
    }
}

impl From<Label> for VersionRef {
    fn from(label: Label) -> Self {
        Self(VersionSelector::Label(label))
    }
}

impl FromStr for VersionRef {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        VersionSelector::parse(text).map(Self)
    }
}

impl fmt::Display for VersionRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            VersionSelector::Version(version) => version.fmt(f),
            VersionSelector::Label(label) => label.fmt(f),
            VersionSelector::Default => Ok(()),
        }
    }
}

impl Serialize for VersionRef {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for VersionRef {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        // YAML reads an unquoted 3 as a number.
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a version number or a label")]
        enum Written {
            Number(u32),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(number) => Version::new(number).map(Self::from).map_err(serde::de::Error::custom),
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// The most versions that `version_policy` names one by one, and the most of the newest.
pub const MAX_POLICY_VERSIONS: usize = 1_000;

/// Which versions of a model are kept on the devices, in Triton's words. Those that a label, the default, an endpoint or a step
/// of an ensemble names stay in any case.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum VersionPolicy {
    /// The newest.
    Latest {
        /// So many.
        num_versions: u32,
    },
    /// Every one.
    All {},
    /// These.
    Specific {
        /// Their numbers.
        #[schema(value_type = Vec<u32>)]
        versions: Vec<Version>,
    },
}

impl VersionPolicy {
    /// The versions that it keeps of these, which come newest first; none where it keeps all.
    pub fn kept(&self, newest_first: impl Iterator<Item = Version>) -> Option<BTreeSet<Version>> {
        match self {
            Self::All {} => None,
            Self::Specific { versions } => Some(versions.iter().copied().collect()),
            Self::Latest { num_versions } => {
                let most = usize::try_from(*num_versions).unwrap_or(usize::MAX);
                Some(newest_first.take(most).collect())
            }
        }
    }
}

/// When a label, the default or a route moves to another version.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum LabelMoves {
    /// Once that version is ready; until then what it was before answers.
    #[default]
    WhenReady,
    /// At once: requests fail until that version is ready.
    AtOnce,
}

impl LabelMoves {
    fn is_default(&self) -> bool {
        *self == Self::default()
    }
}

/// A model of a tenant.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelSpec {
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Movable names of versions.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    #[schema(value_type = BTreeMap<String, u32>)]
    pub labels: BTreeMap<Label, Version>,
    /// Which version answers where none is named; absent: the highest that is ready.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default_version: Option<VersionRef>,
    /// Which versions are kept on the devices; absent: every one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub version_policy: Option<VersionPolicy>,
    /// When labels and the default move.
    #[serde(default, skip_serializing_if = "LabelMoves::is_default")]
    pub label_moves: LabelMoves,
    /// Other tenants that may call the model under its name.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schema(value_type = Vec<String>)]
    pub grants: Vec<TenantId>,
    /// What each tenant that calls it may use of it, besides the tenant's own limits.
    #[serde(default, skip_serializing_if = "LimitsSpec::is_empty")]
    pub limits: LimitsSpec,
    /// The most bytes that a request of it may have, unpacked, where that is less than the server takes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_request_bytes: Option<u64>,
}

impl ModelSpec {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        check_text(
            "spec.description",
            self.description.as_deref(),
            MAX_DESCRIPTION,
            problems,
        );
        if self.labels.len() > MAX_LABELS {
            problems.push(Problem::new(
                "spec.labels",
                format!("{} labels, at most {MAX_LABELS} are allowed", self.labels.len()),
            ));
        }
        if let Some(label) = self.labels.keys().find(|label| label.as_str().parse::<u32>().is_ok()) {
            problems.push(Problem::new(
                "spec.labels",
                format!("'{label}' would read as a version number: use a name"),
            ));
        }
        self.check_policy(problems);
        self.limits.check(problems);
        if self.max_request_bytes == Some(0) {
            problems.push(Problem::new(
                "spec.max_request_bytes",
                "1 or more: a model that takes no byte takes no request",
            ));
        }
        if self.grants.len() > MAX_GRANTS {
            problems.push(Problem::new(
                "spec.grants",
                format!("{} tenants, at most {MAX_GRANTS} are allowed", self.grants.len()),
            ));
        }
        if let Some(reference) = &self.default_version
            && let VersionSelector::Label(label) = reference.selector()
            && !self.labels.contains_key(label)
        {
            problems.push(Problem::new(
                "spec.default_version",
                format!("there is no label '{label}' in spec.labels"),
            ));
        }
    }
}

impl ModelSpec {
    fn check_policy(&self, problems: &mut Vec<Problem>) {
        let bound = format!("1 to {MAX_POLICY_VERSIONS}");
        match &self.version_policy {
            Some(VersionPolicy::Latest { num_versions }) => {
                let number = usize::try_from(*num_versions).unwrap_or(usize::MAX);
                if !(1..=MAX_POLICY_VERSIONS).contains(&number) {
                    let text = format!("{bound}, got {num_versions}");
                    problems.push(Problem::new("spec.version_policy.latest.num_versions", text));
                }
            }
            Some(VersionPolicy::Specific { versions }) if !(1..=MAX_POLICY_VERSIONS).contains(&versions.len()) => {
                let text = format!("{bound} versions, got {}", versions.len());
                problems.push(Problem::new("spec.version_policy.specific.versions", text));
            }
            _ => {}
        }
    }
}

/// A file in the artifact store, by what it holds.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ArtifactRef {
    /// SHA-256 of the file, 64 lowercase hexadecimal digits.
    pub sha256: String,
    /// Its size.
    pub bytes: u64,
}

impl ArtifactRef {
    /// Whether the digest is written as one.
    pub fn is_well_formed(&self) -> bool {
        self.sha256.len() == 64
            && self
                .sha256
                .bytes()
                .all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    }
}

/// One version of a model. Its name is `model/number`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ModelVersionSpec {
    /// What kind of file it is.
    #[schema(value_type = String, examples("torchscript", "torch_aoti", "builtin"))]
    pub format: ArtifactFormat,
    /// Its file; built-in models have none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub artifact: Option<ArtifactRef>,
    /// How it is called and run, in the vocabulary of Triton's model configuration.
    #[schema(value_type = ModelConfigSchema)]
    pub config: ModelConfig,
    /// Its author's signature of what it is; see [`crate::model_manifest`].
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signature: Option<ModelSignature>,
    /// Whether it is kept off the devices.
    #[serde(default)]
    pub unloaded: bool,
    /// For people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
}

impl ModelVersionSpec {
    pub(crate) fn check(&self, problems: &mut Vec<Problem>) {
        check_text(
            "spec.description",
            self.description.as_deref(),
            MAX_DESCRIPTION,
            problems,
        );
        let without = match self.format {
            ArtifactFormat::Builtin => Some("a built-in model has no file: leave it out"),
            ArtifactFormat::Ensemble => Some("an ensemble has no file: leave it out"),
            ArtifactFormat::TorchScript | ArtifactFormat::TorchAoti => None,
        };
        match (without, &self.artifact) {
            (Some(problem), Some(_)) => problems.push(Problem::new("spec.artifact", problem)),
            (None, None) => {
                problems.push(Problem::new(
                    "spec.artifact",
                    "this format needs its file: upload it first",
                ));
            }
            (_, Some(artifact)) if !artifact.is_well_formed() => {
                problems.push(Problem::new(
                    "spec.artifact.sha256",
                    "a digest is 64 lowercase hexadecimal digits",
                ));
            }
            _ => {}
        }
        match (&self.signature, &self.artifact) {
            (Some(signature), Some(_)) => signature.check(problems),
            (Some(_), None) => problems.push(Problem::new(
                "spec.signature",
                "a model without a file has nothing to sign: leave it out",
            )),
            (None, _) => {}
        }
        self.check_ensemble(problems);
        if self.config.is_decoupled() && self.format != ArtifactFormat::Builtin {
            problems.push(Problem::new(
                "spec.config.model_transaction_policy.decoupled",
                "only built-in models give any number of answers to a request: leave it out",
            ));
        }
        for problem in self.config.problems() {
            problems.push(Problem::new(format!("spec.config.{}", problem.field), problem.problem));
        }
    }

    /// What belongs to an ensemble and to nothing else, and the other way round. Whether its graph holds together depends on the
    /// models that it names.
    fn check_ensemble(&self, problems: &mut Vec<Problem>) {
        let config = &self.config;
        let mut say = |field: &str, problem: &str| problems.push(Problem::new(format!("spec.config.{field}"), problem));
        if self.format != ArtifactFormat::Ensemble {
            let needs = "a model with steps needs format: ensemble";
            if config.graph.is_some() {
                say("graph", needs);
            }
            if config.ensemble_scheduling.is_some() {
                say("ensemble_scheduling", needs);
            }
            return;
        }
        let steps_have = "an ensemble runs on no device: its steps' models say this, leave it out";
        if config.dynamic_batching.is_some() {
            say("dynamic_batching", steps_have);
        }
        if config.execution.is_some() {
            say("execution", steps_have);
        }
        if config.optimization.is_some() {
            say("optimization", steps_have);
        }
        if !config.instance_group.is_empty() {
            say("instance_group", steps_have);
        }
        if config.residency.is_some() {
            say(
                "residency",
                "an ensemble takes no memory: its steps' models say this, leave it out",
            );
        }
        if !config.model_warmup.is_empty() {
            say(
                "model_warmup",
                "an ensemble is not loaded: its steps' models are warmed up, leave it out",
            );
        }
        if config.sequence_batching.is_some() {
            say(
                "sequence_batching",
                "an ensemble keeps no state: its stateful steps get its requests' sequences, leave it out",
            );
        }
        if config.request_parameters.is_some() {
            say(
                "request_parameters",
                "an ensemble is given none: its steps' models say this, leave it out",
            );
        }
        if !config.parameters.is_empty() {
            say("parameters", "an ensemble has no backend: leave it out");
        }
    }
}
