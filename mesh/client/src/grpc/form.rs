//! Requests and answers as gRPC has them: the protocol's messages, tensors in their raw fields.
//!
//! Inputs always travel raw. A server that answers with typed elements all the same is understood.

use bytes::{BufMut, Bytes, BytesMut};
use mesh_protocol::{
    MAX_TENSORS,
    grpc::messages::{
        InferParameter, InferTensorContents, ModelInferRequest, ModelInferResponse, ModelMetadataResponse,
        ModelStreamInferResponse, infer_parameter::ParameterChoice, model_infer_request as asked,
        model_infer_response::InferOutputTensor, model_metadata_response as told,
    },
};
use mesh_types::{DataType, ParameterValue, Parameters, Shape, Tensor};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::{Answer, Error, Input, ModelMetadata, Output, Request, TensorMetadata};

/// A request's message. Tensors are shared, not copied.
pub(super) fn write(request: &Request) -> Result<ModelInferRequest, Error> {
    let input = |Input(tensor): &Input| {
        let extents = tensor.shape.iter().map(|extent| i64::try_from(*extent));
        let shape = extents.collect::<Result<Vec<_>, _>>();
        Ok(asked::InferInputTensor {
            name: tensor.name.to_string(),
            datatype: tensor.datatype.as_str().to_owned(),
            shape: shape
                .map_err(|_| Error::invalid(format!("an extent of tensor '{}' is beyond gRPC", tensor.name)))?,
            ..asked::InferInputTensor::default()
        })
    };
    let output = |name: &String| asked::InferRequestedOutputTensor {
        name: name.clone(),
        ..asked::InferRequestedOutputTensor::default()
    };
    let parameter = |(name, value): (&String, &ParameterValue)| {
        let choice = match value.clone() {
            ParameterValue::Bool(value) => ParameterChoice::BoolParam(value),
            ParameterValue::Int(value) => ParameterChoice::Int64Param(value),
            ParameterValue::Uint(value) => ParameterChoice::Uint64Param(value),
            ParameterValue::Double(value) => ParameterChoice::DoubleParam(value),
            ParameterValue::String(value) => ParameterChoice::StringParam(value),
        };
        let parameter_choice = Some(choice);
        (name.clone(), InferParameter { parameter_choice })
    };
    Ok(ModelInferRequest {
        model_name: request.model.clone(),
        model_version: request.version.clone().unwrap_or_default(),
        id: request.id.clone().unwrap_or_default(),
        parameters: request.parameters.iter().map(parameter).collect(),
        inputs: request.inputs.iter().map(input).collect::<Result<_, Error>>()?,
        outputs: request.outputs.iter().map(output).collect(),
        raw_input_contents: request.inputs.iter().map(|Input(tensor)| tensor.data.clone()).collect(),
    })
}

/// An answer's message. Raw tensors share its memory.
pub(crate) fn read_answer(message: ModelInferResponse) -> Result<Answer, Error> {
    if message.outputs.len() > MAX_TENSORS {
        return Err(Error::Unreadable(format!("it has more than {MAX_TENSORS} outputs")));
    }
    let raw = message.raw_output_contents;
    if !raw.is_empty() && raw.len() != message.outputs.len() {
        let problem = format!("it has {} raw contents of {} outputs", raw.len(), message.outputs.len());
        return Err(Error::Unreadable(problem));
    }
    let mut raw = raw.into_iter();
    let mut outputs = Vec::with_capacity(message.outputs.len());
    for output in message.outputs {
        outputs.push(read_output(output, raw.next())?);
    }
    Ok(Answer {
        id: Some(message.id).filter(|id| !id.is_empty()),
        model: message.model_name,
        version: message.model_version,
        outputs,
        parameters: parameters(message.parameters),
        arm: None,
        request_id: None,
        trace: None,
    })
}

/// The error of a stream's message, if it is one.
pub(crate) fn failed_on_stream(message: &ModelStreamInferResponse) -> Option<Error> {
    if message.error_message.is_empty() {
        return None;
    }
    let id = message.infer_response.as_ref().map(|response| response.id.clone());
    Some(Error::OnStream {
        id: id.filter(|id| !id.is_empty()),
        message: message.error_message.clone(),
    })
}

fn parameters(of: impl IntoIterator<Item = (String, InferParameter)>) -> Parameters {
    let value = |(name, parameter): (String, InferParameter)| {
        let value = match parameter.parameter_choice? {
            ParameterChoice::BoolParam(value) => value.into(),
            ParameterChoice::Int64Param(value) => value.into(),
            ParameterChoice::Uint64Param(value) => value.into(),
            ParameterChoice::DoubleParam(value) => value.into(),
            ParameterChoice::StringParam(value) => value.into(),
        };
        Some((name, value))
    };
    of.into_iter().filter_map(value).collect()
}

fn read_output(output: InferOutputTensor, raw: Option<Bytes>) -> Result<Output, Error> {
    let wrong = |problem: String| Error::Unreadable(format!("output '{}': {problem}", output.name));
    let datatype: DataType = output.datatype.parse().map_err(|error| wrong(format!("{error}")))?;
    let extents = output.shape.iter().map(|extent| u64::try_from(*extent));
    let shape = extents.collect::<Result<Shape, _>>();
    let shape = shape.map_err(|_| wrong("an extent is negative".to_owned()))?;
    let data = match (raw, output.contents) {
        (Some(raw), _) => raw,
        (None, contents) => typed(datatype, &contents.unwrap_or_default())?,
    };
    let tensor = Tensor::new(output.name.as_str().into(), datatype, shape, data);
    tensor.map(Output).map_err(|error| Error::Unreadable(error.to_string()))
}

/// Typed elements in their raw form. Smaller whole numbers than 32 bits are kept in 32, of which the lowest count.
fn typed(datatype: DataType, of: &InferTensorContents) -> Result<Bytes, Error> {
    let mut raw = BytesMut::new();
    match datatype {
        DataType::Bool => of.bool_contents.iter().for_each(|value| raw.put_u8(u8::from(*value))),
        DataType::Int8 | DataType::Int16 | DataType::Int32 => {
            let size = datatype.element_bytes().unwrap_or(4);
            of.int_contents
                .iter()
                .for_each(|value| raw.put_int_le(i64::from(*value), size));
        }
        DataType::Uint8 | DataType::Uint16 | DataType::Uint32 => {
            let size = datatype.element_bytes().unwrap_or(4);
            of.uint_contents
                .iter()
                .for_each(|value| raw.put_uint_le(u64::from(*value), size));
        }
        DataType::Int64 => of.int64_contents.iter().for_each(|value| raw.put_i64_le(*value)),
        DataType::Uint64 => of.uint64_contents.iter().for_each(|value| raw.put_u64_le(*value)),
        DataType::Fp32 => of.fp32_contents.iter().for_each(|value| raw.put_f32_le(*value)),
        DataType::Fp64 => of.fp64_contents.iter().for_each(|value| raw.put_f64_le(*value)),
        DataType::Bytes => {
            for element in &of.bytes_contents {
                let length = u32::try_from(element.len());
                raw.put_u32_le(length.map_err(|_| Error::Unreadable("an element is longer than 4 GiB".to_owned()))?);
                raw.put_slice(element);
            }
        }
        DataType::Fp16 | DataType::Bf16 => {}
    }
    Ok(raw.freeze())
}

/// What a model takes and gives.
pub(super) fn metadata(message: ModelMetadataResponse) -> Result<ModelMetadata, Error> {
    let tensor = |tensor: told::TensorMetadata| {
        let datatype = tensor.datatype.parse();
        Ok(TensorMetadata {
            datatype: datatype.map_err(|error| Error::Unreadable(format!("{error}")))?,
            name: tensor.name,
            shape: tensor.shape,
        })
    };
    let tensors = |tensors: Vec<told::TensorMetadata>| tensors.into_iter().map(tensor).collect::<Result<_, Error>>();
    Ok(ModelMetadata {
        name: message.name,
        versions: message.versions,
        platform: message.platform,
        inputs: tensors(message.inputs)?,
        outputs: tensors(message.outputs)?,
    })
}

/// A message in the JSON of the HTTP form.
pub(super) fn json(message: &impl Serialize) -> Result<Value, Error> {
    serde_json::to_value(message).map_err(|error| Error::Unreadable(error.to_string()))
}

/// A message by way of its JSON.
pub(super) fn of_message<T: DeserializeOwned>(message: &impl Serialize) -> Result<T, Error> {
    serde_json::from_value(json(message)?).map_err(|error| Error::Unreadable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use mesh_protocol::grpc::decode_message;
    use mesh_types::VersionSelector;
    use prost::Message as _;

    use super::*;
    use crate::{Client, Sequence};

    #[tokio::test]
    async fn a_request_is_what_the_door_reads() {
        let client = Client::grpc("http://127.0.0.1:1").build().unwrap();
        let request = client.model("m").version(3).request();
        let request = request
            .id("7")
            .input(Input::new("a", [2], &[1.5_f32, -0.0]).unwrap())
            .input(Input::bytes("words", [1, 2], ["a\0", ""]).unwrap())
            .output("y")
            .parameter("share", 0.5)
            .sequence(Sequence::text("s").start());
        let message = write(&request).unwrap();
        let read = decode_message(&message.encode_to_vec().into()).unwrap();
        let sent: Vec<_> = request.inputs.iter().map(|Input(tensor)| tensor.clone()).collect();
        assert_eq!(
            (read.model.as_str(), read.version),
            ("m", VersionSelector::parse("3").unwrap())
        );
        assert_eq!(read.inputs, sent);
        assert_eq!(read.outputs, ["y"]);
        let mut parameters = read.parameters;
        parameters.sort_keys();
        let mut wanted = request.parameters;
        wanted.sort_keys();
        assert_eq!(parameters, wanted);
    }

    fn answer(datatype: &str, contents: InferTensorContents) -> Result<Answer, Error> {
        read_answer(ModelInferResponse {
            outputs: vec![InferOutputTensor {
                name: "y".into(),
                datatype: datatype.into(),
                shape: vec![2],
                contents: Some(contents),
                ..InferOutputTensor::default()
            }],
            ..ModelInferResponse::default()
        })
    }

    #[test]
    fn typed_elements_are_understood() {
        let ints = InferTensorContents {
            int_contents: vec![-2, 127],
            ..InferTensorContents::default()
        };
        let small = answer("INT8", ints.clone()).unwrap();
        assert_eq!(small.outputs[0].to_vec::<i8>().unwrap(), [-2, 127]);
        let wide = answer("INT32", ints.clone()).unwrap();
        assert_eq!(wide.outputs[0].to_vec::<i32>().unwrap(), [-2, 127]);
        assert!(answer("FP32", ints).is_err());
        let words = InferTensorContents {
            bytes_contents: vec![Bytes::from_static(b"a\0"), Bytes::new()],
            ..InferTensorContents::default()
        };
        assert_eq!(answer("BYTES", words).unwrap().outputs[0].texts().unwrap(), ["a\0", ""]);
    }

    #[test]
    fn raw_contents_are_as_many_as_outputs_and_those_within_their_bound() {
        let message = |outputs: usize, raw: usize| ModelInferResponse {
            outputs: vec![
                InferOutputTensor {
                    name: "y".into(),
                    datatype: "INT8".into(),
                    shape: vec![0],
                    ..InferOutputTensor::default()
                };
                outputs
            ],
            raw_output_contents: vec![Bytes::new(); raw],
            ..ModelInferResponse::default()
        };
        assert!(read_answer(message(MAX_TENSORS, MAX_TENSORS)).is_ok());
        assert!(read_answer(message(MAX_TENSORS + 1, MAX_TENSORS + 1)).is_err());
        assert!(read_answer(message(2, 1)).is_err());
    }
}
