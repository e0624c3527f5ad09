//! The vocabulary of models made of other models: steps that hand tensors on to each other.
//!
//! Owns two forms of the same thing. [`EnsembleScheduling`] is Triton's, read as it is. [`Graph`] is the mesh's own and can
//! say more: routes that are switched by a condition or split by weight, and steps that may fail. Both are plain data within a
//! [`ModelConfig`](crate::ModelConfig), so that a graph has versions, labels and grants like any model. What they mean, and
//! whether they hold together, is decided where models are known.
//!
//! Tensors have names within the graph: its inputs, and what steps make. A step's maps lead from the names in its model's
//! signature to those.

use std::{collections::BTreeMap, fmt, str::FromStr};

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use crate::{ModelId, NameError, TenantId, Version, VersionSelector};

/// The most steps of one graph that call a model, those within routes included.
pub const MAX_STEPS: usize = 64;
/// The most switches and splitters of one graph.
pub const MAX_CHOICES: usize = 16;
/// The most routes of one switch or splitter.
pub const MAX_ROUTES: usize = 16;
/// How deep switches and splitters lie within each other's routes.
pub const MAX_ROUTE_NESTING: usize = 4;
/// The most tensors of one graph, its inputs included.
pub const MAX_GRAPH_TENSORS: usize = 256;
/// The most tensors that one input names to take the first of.
pub const MAX_SOURCES: usize = 8;
/// The longest condition, in bytes.
pub const MAX_CONDITION_BYTES: usize = 512;
/// The largest bound on requests in one step.
pub const MAX_INFLIGHT_REQUESTS: u32 = 1_000_000;

/// Which version of a step's model: a number, a label, or (absent, or -1 as in Triton) the model's default.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct StepVersion(VersionSelector);

impl StepVersion {
    /// What it selects.
    pub fn selector(&self) -> &VersionSelector {
        &self.0
    }

    /// Whether it is the model's default.
    pub fn is_default(&self) -> bool {
        self.0 == VersionSelector::Default
    }
}

impl FromStr for StepVersion {
    type Err = NameError;
    fn from_str(text: &str) -> Result<Self, NameError> {
        if text == "-1" {
            return Ok(Self::default());
        }
        VersionSelector::parse(text).map(Self)
    }
}

impl fmt::Display for StepVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.0 {
            VersionSelector::Version(version) => version.fmt(f),
            VersionSelector::Label(label) => label.fmt(f),
            VersionSelector::Default => f.write_str("-1"),
        }
    }
}

impl Serialize for StepVersion {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match &self.0 {
            VersionSelector::Version(version) => version.serialize(serializer),
            VersionSelector::Label(label) => label.serialize(serializer),
            VersionSelector::Default => serializer.serialize_i64(-1),
        }
    }
}

impl<'de> Deserialize<'de> for StepVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged, expecting = "a version number, a label, or -1 for the model's default")]
        enum Written {
            Number(i64),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Number(-1) => Ok(Self::default()),
            Written::Number(number) => {
                let number = u32::try_from(number).unwrap_or(0);
                let version = Version::new(number).map_err(serde::de::Error::custom)?;
                Ok(Self(VersionSelector::Version(version)))
            }
            Written::Text(text) => text.parse().map_err(serde::de::Error::custom),
        }
    }
}

/// Where a tensor comes from: the first of these names that there is. Written as one name, or as a list of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sources(pub Vec<String>);

impl From<&str> for Sources {
    fn from(name: &str) -> Self {
        Self(vec![name.to_owned()])
    }
}

impl Serialize for Sources {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self.0.as_slice() {
            [only] => serializer.serialize_str(only),
            several => several.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for Sources {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(
            untagged,
            expecting = "the name of a tensor, or a list of names to take the first of"
        )]
        enum Written {
            One(String),
            Several(Vec<String>),
        }
        Ok(match Written::deserialize(deserializer)? {
            Written::One(name) => Self(vec![name]),
            Written::Several(names) => Self(names),
        })
    }
}

/// What a step's failure means for the graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
pub enum Dependency {
    /// The whole request fails.
    #[default]
    #[serde(alias = "hard")]
    Hard,
    /// What the step would have made is missing, and the rest goes on.
    #[serde(alias = "soft")]
    Soft,
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_hard(dependency: &Dependency) -> bool {
    *dependency == Dependency::Hard
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde calls it so")]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

/// A model made of steps. A step starts as soon as its inputs are there, so their order in the list means nothing.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Graph {
    /// The steps.
    pub steps: Vec<GraphStep>,
    /// Where outputs come from, for those that are not the tensor of their own name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, Sources>,
    /// Outputs that an answer may lack, because a condition did not hold or a step failed softly.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub optional_outputs: Vec<String>,
    /// The most requests in one step at once, for steps that do not say; further ones wait. 0 is without bound.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_inflight_requests: u32,
}

/// One step: a call of a model, a switch or a splitter.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct GraphStep {
    /// Its name, unique within the graph.
    pub name: String,
    /// It is left out where this does not hold.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// The model it calls: the owner's own, or one granted to the owner.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub model: Option<ModelId>,
    /// Whose model; absent: the owner's own, else one granted to it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub namespace: Option<TenantId>,
    /// Which version.
    #[serde(skip_serializing_if = "StepVersion::is_default")]
    pub version: StepVersion,
    /// From the model's inputs to tensors of the graph. An input that is not named takes the tensor of its own name.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub inputs: BTreeMap<String, Sources>,
    /// From the model's outputs to tensors of the graph. Those that are not named are not asked for.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<String, String>,
    /// What its failure means.
    #[serde(skip_serializing_if = "is_hard")]
    pub dependency: Dependency,
    /// The most requests in it at once; 0 takes the graph's.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_inflight_requests: u32,
    /// The first route whose condition holds is taken.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub switch: Vec<SwitchRoute>,
    /// One route is taken, in proportion to the weights.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub splitter: Vec<SplitterRoute>,
    /// The unit that a splitter always sends the same way, as an endpoint does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sticky_by: Option<String>,
    /// What a splitter's units are drawn with; absent: the model's and the step's names.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub salt: Option<String>,
}

/// One way through a switch.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SwitchRoute {
    /// It is taken if this holds; only the last may be without.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub when: Option<String>,
    /// What then runs.
    pub steps: Vec<GraphStep>,
}

/// One way through a splitter.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SplitterRoute {
    /// Its share in percent, at most two decimals; those of a splitter sum to 100.
    pub weight: f64,
    /// What then runs.
    pub steps: Vec<GraphStep>,
}

/// Triton's form (`ModelEnsembling` of model_config.proto).
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EnsembleScheduling {
    /// The steps.
    #[serde(alias = "steps")]
    pub step: Vec<EnsembleStep>,
    /// The most requests in one step at once; further ones wait. 0 is without bound.
    #[serde(skip_serializing_if = "is_zero")]
    pub max_inflight_requests: u32,
}

/// One step of Triton's form.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EnsembleStep {
    /// The model.
    pub model_name: ModelId,
    /// Its version; -1 is the model's default. Labels do as well.
    #[serde(default)]
    pub model_version: StepVersion,
    /// From the model's inputs to tensors of the ensemble.
    #[serde(default)]
    pub input_map: BTreeMap<String, String>,
    /// From the model's outputs to tensors of the ensemble.
    #[serde(default)]
    pub output_map: BTreeMap<String, String>,
    /// Whose model; absent: the owner's own, else one granted to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub model_namespace: Option<TenantId>,
}

impl EnsembleScheduling {
    /// The same in the mesh's own form. A step is called by its model; a second one of the same model gets a number.
    pub fn to_graph(&self) -> Graph {
        let mut steps: Vec<GraphStep> = Vec::with_capacity(self.step.len());
        for step in &self.step {
            let model = step.model_name.as_str();
            let taken = |name: &str| steps.iter().any(|other| other.name == name);
            let numbered = (2..).map(|number| format!("{model}-{number}"));
            let name = std::iter::once(model.to_owned())
                .chain(numbered)
                .find(|name| !taken(name))
                .unwrap_or_default();
            let sources = |(input, tensor): (&String, &String)| (input.clone(), Sources(vec![tensor.clone()]));
            steps.push(GraphStep {
                name,
                model: Some(step.model_name.clone()),
                namespace: step.model_namespace.clone(),
                version: step.model_version.clone(),
                inputs: step.input_map.iter().map(sources).collect(),
                outputs: step.output_map.clone(),
                ..GraphStep::default()
            });
        }
        Graph {
            steps,
            max_inflight_requests: self.max_inflight_requests,
            ..Graph::default()
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_steps_version_is_a_number_a_label_or_minus_one() {
        let read = |value: serde_json::Value| serde_json::from_value::<StepVersion>(value);
        assert!(read(json!(-1)).unwrap().is_default());
        assert!(read(json!("-1")).unwrap().is_default());
        assert_eq!(read(json!(3)).unwrap().to_string(), "3");
        assert_eq!(read(json!("stable")).unwrap().to_string(), "stable");
        for bad in [json!(0), json!(-2), json!("No"), json!(5_000_000_000_i64), json!(null)] {
            assert!(read(bad.clone()).is_err(), "{bad}");
        }
        for written in [json!(-1), json!(7), json!("canary")] {
            assert_eq!(serde_json::to_value(read(written.clone()).unwrap()).unwrap(), written);
        }
    }

    #[test]
    fn tritons_form_is_read_and_steps_of_one_model_have_names_of_their_own() {
        let scheduling: EnsembleScheduling = serde_json::from_value(json!({
            "step": [
                {"model_name": "m", "model_version": -1, "input_map": {"x": "A"}, "output_map": {"y": "B"}},
                {"model_name": "m", "model_version": 2, "input_map": {"x": "B"}, "output_map": {"y": "C"}},
                {"model_name": "m-2", "input_map": {"x": "C"}, "output_map": {"y": "D"}},
            ],
            "max_inflight_requests": 4
        }))
        .unwrap();
        let graph = scheduling.to_graph();
        let names: Vec<&str> = graph.steps.iter().map(|step| step.name.as_str()).collect();
        assert_eq!(names, ["m", "m-2", "m-2-2"]);
        assert_eq!(graph.steps[1].inputs["x"], Sources::from("B"));
        assert_eq!(graph.max_inflight_requests, 4);
    }

    #[test]
    fn sources_are_a_name_or_a_list_and_read_back_as_written() {
        for written in [json!("a"), json!(["a", "b"])] {
            let sources: Sources = serde_json::from_value(written.clone()).unwrap();
            assert_eq!(serde_json::to_value(&sources).unwrap(), written);
        }
    }

    #[test]
    fn an_unknown_field_is_refused() {
        let step = json!({"name": "a", "model": "m", "input": {"x": "y"}});
        assert!(serde_json::from_value::<GraphStep>(step).is_err());
    }
}
