//! What a model is given of a request's parameters: names and texts, bounded, in one order.
//!
//! Owns the choice of them (a model says in its configuration that it takes any), how values are written as texts, and the bounds.
//! Which requests share an execution is decided by them, since a model is called once for all: so equal ones are equal
//! whatever their order was, and a request that says what holds anyway is like one that says nothing.

use std::{collections::BTreeMap, sync::Arc};

use serde::{Deserialize, Serialize};

use crate::{
    InputError, ModelConfig, ModelId, ParameterValue, Parameters,
    parameters::{has_meaning, is_reserved},
};

/// The most parameters that a model is given with a request, and the most names and defaults of a configuration.
pub const MAX_MODEL_PARAMETERS: usize = 64;
/// The most bytes of their names and texts together: they are compared with those of other requests.
pub const MAX_MODEL_PARAMETER_BYTES: usize = 4 << 10;

/// Which of a request's parameters a model is given. (An addition.)
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RequestParameters {
    /// Their names; none means all that mean nothing to the protocol or the mesh.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub names: Vec<String>,
    /// What a request is taken to say that does not say otherwise; the model is warmed up with it.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub defaults: BTreeMap<String, String>,
}

/// Parameters as a model is given them: texts by name, in the order of the names, each once.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Default)]
pub struct ModelParameters(Vec<(String, String)>);

impl ModelParameters {
    /// Names and texts, in the order of the names.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, text)| (name.as_str(), text.as_str()))
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Bytes of all names and texts.
    fn bytes(&self) -> usize {
        self.0.iter().map(|(name, text)| name.len() + text.len()).sum()
    }
}

impl From<BTreeMap<String, String>> for ModelParameters {
    fn from(texts: BTreeMap<String, String>) -> Self {
        Self(texts.into_iter().collect())
    }
}

/// A value as a model is given it: `true` or `false`; whole numbers in decimal; the shortest decimal that reads back as the same
/// double, always with a point or an exponent (`NaN`, `inf` and `-inf` over gRPC); a text as it is.
fn text_of(value: &ParameterValue) -> String {
    match value {
        ParameterValue::Bool(value) => value.to_string(),
        ParameterValue::Int(number) => number.to_string(),
        ParameterValue::Uint(number) => number.to_string(),
        ParameterValue::Double(number) => format!("{number:?}"),
        ParameterValue::String(text) => text.clone(),
    }
}

impl RequestParameters {
    /// What holds for a request that says nothing.
    pub fn by_default(&self) -> ModelParameters {
        self.defaults.clone().into()
    }

    fn takes(&self, name: &str) -> bool {
        if self.names.is_empty() {
            !has_meaning(name)
        } else {
            self.names.iter().any(|known| known == name)
        }
    }

    pub(crate) fn check(&self, mut say: impl FnMut(&str, String)) {
        if self.names.len() > MAX_MODEL_PARAMETERS {
            let problem = format!("at most {MAX_MODEL_PARAMETERS} names, got {}", self.names.len());
            say(".names", problem);
        }
        for name in self.names.iter().chain(self.defaults.keys()) {
            if name.is_empty() || has_meaning(name) || is_reserved(name) {
                let shown: String = name.chars().take(80).collect();
                let problem = format!("'{shown}' is not a name of the caller's to choose, so no model is given it");
                say("", problem);
            }
        }
        for name in self.defaults.keys().filter(|name| !self.takes(name)) {
            let shown: String = name.chars().take(80).collect();
            say(".defaults", format!("'{shown}' is none of the names: add it to them"));
        }
        let defaults = self.by_default();
        if defaults.0.len() > MAX_MODEL_PARAMETERS || defaults.bytes() > MAX_MODEL_PARAMETER_BYTES {
            let problem = format!(
                "at most {MAX_MODEL_PARAMETERS} defaults of {MAX_MODEL_PARAMETER_BYTES} bytes in all, got {} of {}",
                defaults.0.len(),
                defaults.bytes()
            );
            say(".defaults", problem);
        }
    }
}

impl ModelConfig {
    /// What the model is given of a request's parameters; none where that is what holds anyway, which is so for every model that
    /// takes no parameters. An error where they are too many or too long.
    pub fn model_parameters(
        &self,
        model: &ModelId,
        parameters: &Parameters,
    ) -> Result<Option<Arc<ModelParameters>>, InputError> {
        let Some(rule) = self.request_parameters.as_ref().filter(|_| !parameters.is_empty()) else {
            return Ok(None);
        };
        let said = parameters.iter().filter(|(name, _)| rule.takes(name));
        let mut all = rule.defaults.clone();
        all.extend(said.map(|(name, value)| (name.clone(), text_of(value))));
        if all == rule.defaults {
            return Ok(None);
        }
        let given = ModelParameters::from(all);
        if given.0.len() > MAX_MODEL_PARAMETERS || given.bytes() > MAX_MODEL_PARAMETER_BYTES {
            return Err(InputError::Parameters {
                got: given.0.len(),
                bytes: given.bytes(),
                model: model.clone(),
            });
        }
        Ok(Some(Arc::new(given)))
    }

    /// What the model is given where a request says nothing.
    pub fn default_parameters(&self) -> ModelParameters {
        let rule = self.request_parameters.as_ref();
        rule.map(RequestParameters::by_default).unwrap_or_default()
    }
}

#[cfg(test)]
#[path = "model_parameters_tests.rs"]
mod tests;
