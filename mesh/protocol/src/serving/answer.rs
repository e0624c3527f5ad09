//! Responses as TensorFlow Serving answers: outputs by their names, classes with their labels, a number for each example.

use mesh_types::{InferResponse, ModelConfig, Tensor};

use super::{
    messages::serving::{
        Class, ClassificationResponse, ClassificationResult, Classifications, ModelSpec, PredictResponse, Regression,
        RegressionResponse, RegressionResult, model_spec::VersionChoice,
    },
    tensor,
};
use crate::v1::{SIGNATURE, V1Error, classes_of, regression_of};

/// Which version answered.
pub(super) fn spec(name: &str, version: u32) -> ModelSpec {
    ModelSpec {
        name: name.to_owned(),
        version_choice: Some(VersionChoice::Version(version.into())),
        signature_name: SIGNATURE.to_owned(),
    }
}

fn spec_of(response: &InferResponse) -> Option<ModelSpec> {
    Some(spec(&response.model, response.version.get()))
}

/// The outputs.
pub fn prediction(response: &InferResponse) -> PredictResponse {
    let output = |output: &Tensor| (output.name.to_string(), tensor::written(output));
    PredictResponse {
        outputs: response.outputs.iter().map(output).collect(),
        model_spec: spec_of(response),
    }
}

/// The scores of each example's classes.
pub fn classification(response: &InferResponse, config: &ModelConfig) -> Result<ClassificationResponse, V1Error> {
    let (output, wanted, classes) = classes_of(response, config)?;
    let scores = tensor::scores(output);
    let labelled = |(index, score): (usize, &f32)| Class {
        label: wanted.labels.get(index).cloned().unwrap_or_else(|| index.to_string()),
        score: *score,
    };
    let of_row = |scores: &[f32]| Classifications {
        classes: scores.iter().enumerate().map(labelled).collect(),
    };
    let rows = scores.chunks(usize::try_from(classes).unwrap_or(usize::MAX).max(1));
    let classifications = rows.map(of_row).collect();
    Ok(ClassificationResponse {
        result: Some(ClassificationResult { classifications }),
        model_spec: spec_of(response),
    })
}

/// The only number of each example.
pub fn regression(response: &InferResponse) -> Result<RegressionResponse, V1Error> {
    let (output, _) = regression_of(response)?;
    let one = |value| Regression { value };
    let regressions = tensor::scores(output).into_iter().map(one).collect();
    Ok(RegressionResponse {
        result: Some(RegressionResult { regressions }),
        model_spec: spec_of(response),
    })
}
