//! TensorFlow Serving's calls at the door: they go the way of every other, with its metadata, bounds and errors.

use mesh_protocol::serving::messages::{
    DataType as Dtype, Example, Feature, Features, Int64List, TensorProto, TensorShapeProto, feature::Kind, serving::*,
    tensor_shape_proto::Dim,
};

use super::*;

const PREDICT: &str = "/tensorflow.serving.PredictionService/Predict";

fn spec(name: &str) -> Option<ModelSpec> {
    Some(ModelSpec {
        name: name.to_owned(),
        ..ModelSpec::default()
    })
}

fn tensor(numbers: &[i32]) -> TensorProto {
    let dim = |size| Dim { size, ..Dim::default() };
    TensorProto {
        dtype: Dtype::DtInt32.into(),
        tensor_shape: Some(TensorShapeProto {
            dim: vec![dim(1), dim(i64::try_from(numbers.len()).unwrap())],
            unknown_rank: false,
        }),
        int_val: numbers.to_vec(),
        ..TensorProto::default()
    }
}

fn asked(model: &str, numbers: &[i32]) -> PredictRequest {
    PredictRequest {
        model_spec: spec(model),
        inputs: [("INPUT0".to_owned(), tensor(numbers))].into(),
        output_filter: Vec::new(),
    }
}

impl Client {
    async fn predict(&self, message: PredictRequest) -> Result<Response<PredictResponse>, Status> {
        self.ask_at(PREDICT.parse().unwrap(), message).await
    }
}

#[actix_rt::test]
async fn a_prediction_by_tensors_has_the_metadata_of_every_other() {
    let bed = bed();
    let client = Client::new(&bed).await;
    let answer = client.predict(asked("echo", &[1, -2])).await.unwrap();
    let value = |name: &str| answer.metadata().get(name).and_then(|value| value.to_str().ok());
    assert_eq!(value("x-request-id").map(str::len), Some(32));
    assert_eq!(value("x-mesh-version"), Some("1"));
    assert!(value("traceparent").is_some());
    assert_eq!(answer.get_ref().outputs["OUTPUT0"], tensor(&[1, -2]));
    // Who sends messages packed gets them packed.
    let mut packed = client.clone();
    packed.grpc = packed
        .grpc
        .send_compressed(CompressionEncoding::Gzip)
        .accept_compressed(CompressionEncoding::Gzip);
    let answer = packed.predict(asked("echo", &[3; 500])).await.unwrap();
    assert_eq!(answer.get_ref().outputs["OUTPUT0"], tensor(&[3; 500]));
    let wanted = PredictRequest {
        output_filter: vec!["OTHER".to_owned()],
        ..asked("echo", &[1])
    };
    let refused = client.predict(wanted).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument, "{refused}");
}

#[actix_rt::test]
async fn its_calls_are_bounded_and_refused_as_those_of_version_2() {
    let bed = bed();
    let client = Client::new(&bed).await;
    let large = client
        .predict(asked("echo", &[i32::MAX; MAX_MESSAGE / 4]))
        .await
        .unwrap_err();
    assert_eq!(large.code(), Code::ResourceExhausted, "{large}");
    let full = client.predict(asked("full", &[1])).await.unwrap_err();
    assert_eq!(full.code(), Code::Unavailable);
    assert_eq!(full.metadata().get("grpc-retry-pushback-ms").unwrap(), "37");
    let late = client.clone().with("x-request-timeout-ms", "30");
    let late = late.predict(asked("never", &[1])).await.unwrap_err();
    assert_eq!(late.code(), Code::DeadlineExceeded);
    until(&bed.workers.cancelled, 1).await;
    let malformed = client.clone().with("x-request-timeout-ms", "soon");
    let malformed = malformed.predict(asked("echo", &[1])).await.unwrap_err();
    assert_eq!(malformed.code(), Code::InvalidArgument);
    let mut stranger = client.clone();
    stranger.key = None;
    for model in ["echo", "none"] {
        let refused = stranger.predict(asked(model, &[1])).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unauthenticated, "{model}");
    }
    let unknown = client.predict(asked("none", &[1])).await.unwrap_err();
    assert_eq!(unknown.code(), Code::NotFound);
    assert_eq!(unknown.message(), "Servable not found for request: Latest(none)");
    for call in [
        "PredictionService/MultiInference",
        "PredictionService/Guess",
        "ModelService/HandleReloadConfigRequest",
    ] {
        let path = format!("/tensorflow.serving.{call}").parse().unwrap();
        let refused = client
            .ask_at::<_, PredictResponse>(path, asked("echo", &[1]))
            .await
            .unwrap_err();
        assert_eq!(refused.code(), Code::Unimplemented, "{call}");
    }
    client.works().await;
}

#[actix_rt::test]
async fn examples_are_read_by_the_models_configuration_and_an_answer_without_classes_is_an_error() {
    let bed = bed();
    let client = Client::new(&bed).await;
    let list = Int64List { value: vec![4, -5] };
    let feature = Feature {
        kind: Some(Kind::Int64List(list)),
    };
    let features = Features {
        feature: [("INPUT0".to_owned(), feature)].into(),
    };
    let examples = vec![
        Example {
            features: Some(features)
        };
        2
    ];
    let input = Some(Input {
        kind: Some(input::Kind::ExampleList(ExampleList { examples })),
    });
    let classify = "/tensorflow.serving.PredictionService/Classify".parse().unwrap();
    let request = ClassificationRequest {
        model_spec: spec("echo"),
        input: input.clone(),
    };
    let answer: Response<ClassificationResponse> = client.ask_at(classify, request).await.unwrap();
    let rows = answer.into_inner().result.unwrap().classifications;
    let scores: Vec<Vec<f32>> = rows
        .iter()
        .map(|row| row.classes.iter().map(|class| class.score).collect())
        .collect();
    assert_eq!(scores, [[4.0, -5.0], [4.0, -5.0]]);
    let regress = "/tensorflow.serving.PredictionService/Regress".parse().unwrap();
    let request = RegressionRequest {
        model_spec: spec("echo"),
        input,
    };
    let refused = client
        .ask_at::<_, RegressionResponse>(regress, request)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    assert!(refused.message().contains("one number for each row"), "{refused}");
}
