//! Requests and answers as HTTP has them: JSON, and raw tensors behind it.
//!
//! Inputs always travel raw, and outputs are asked for raw. A server that answers in JSON all the same is understood.

use std::borrow::Cow;

use bytes::Bytes;
use mesh_protocol::{MAX_TENSORS, read_json_data};
use mesh_types::{DataType, Parameters, Shape, Tensor};
use serde::{Deserialize, Serialize, Serializer, ser::SerializeMap as _};
use serde_json::value::RawValue;

use crate::{Answer, Error, Input, Output, Request};

/// A body: its parts one after the other, and how much of it is JSON where tensors follow.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(super) parts: Vec<Bytes>,
    pub(super) json_bytes: Option<usize>,
}

impl Written {
    /// JSON alone.
    pub(super) fn json(body: Bytes) -> Self {
        Self {
            parts: vec![body],
            json_bytes: None,
        }
    }

    pub(super) fn bytes(&self) -> usize {
        self.parts.iter().map(Bytes::len).sum()
    }
}

#[derive(Serialize)]
struct RequestJson<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<&'a str>,
    parameters: WithBinary<'a>,
    inputs: Vec<InputJson<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    outputs: Vec<OutputAsked<'a>>,
}

/// The caller's parameters, and that outputs are wanted raw.
struct WithBinary<'a>(&'a Parameters);

impl Serialize for WithBinary<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        const RAW: &str = "binary_data_output";
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in self.0.iter().filter(|(name, _)| *name != RAW) {
            map.serialize_entry(name, value)?;
        }
        map.serialize_entry(RAW, &true)?;
        map.end()
    }
}

#[derive(Serialize)]
struct InputJson<'a> {
    name: &'a str,
    datatype: &'a str,
    shape: &'a [u64],
    parameters: BinarySize,
}

#[derive(Serialize, Deserialize, Default)]
struct BinarySize {
    #[serde(default)]
    binary_data_size: Option<usize>,
}

#[derive(Serialize)]
struct OutputAsked<'a> {
    name: &'a str,
}

/// A request's body. Tensors are shared, not copied.
pub(super) fn write(request: &Request) -> Result<Written, Error> {
    let input = |Input(tensor): &'_ Input| tensor.data.len();
    let json = RequestJson {
        id: request.id.as_deref(),
        parameters: WithBinary(&request.parameters),
        inputs: request
            .inputs
            .iter()
            .map(|one| InputJson {
                name: &one.0.name,
                datatype: one.0.datatype.as_str(),
                shape: &one.0.shape,
                parameters: BinarySize {
                    binary_data_size: Some(input(one)),
                },
            })
            .collect(),
        outputs: request.outputs.iter().map(|name| OutputAsked { name }).collect(),
    };
    let json = serde_json::to_vec(&json).map_err(|error| Error::invalid(error.to_string()))?;
    let json_bytes = json.len();
    let tensors = request.inputs.iter().map(|Input(tensor)| tensor.data.clone());
    Ok(Written {
        // An empty part would be an empty frame.
        parts: [Bytes::from(json)]
            .into_iter()
            .chain(tensors.filter(|data| !data.is_empty()))
            .collect(),
        json_bytes: Some(json_bytes),
    })
}

#[derive(Deserialize)]
struct AnswerJson<'a> {
    #[serde(default)]
    id: Option<String>,
    model_name: String,
    #[serde(default)]
    model_version: Option<String>,
    #[serde(default)]
    parameters: Option<Parameters>,
    #[serde(borrow)]
    outputs: Vec<OutputJson<'a>>,
}

#[derive(Deserialize)]
struct OutputJson<'a> {
    #[serde(borrow)]
    name: Cow<'a, str>,
    datatype: DataType,
    shape: Shape,
    #[serde(default)]
    parameters: Option<BinarySize>,
    #[serde(borrow, default)]
    data: Option<&'a RawValue>,
}

/// An answer of which so many bytes are JSON, or all. Raw tensors share its memory.
pub(super) fn read(body: &Bytes, json_bytes: Option<usize>) -> Result<Answer, Error> {
    let wrong = |problem: String| Error::Unreadable(problem);
    let json_bytes = json_bytes.unwrap_or(body.len());
    let json = body
        .get(..json_bytes)
        .ok_or_else(|| wrong(format!("it says {json_bytes} bytes of JSON and has {}", body.len())))?;
    let answer: AnswerJson<'_> = serde_json::from_slice(json).map_err(|error| wrong(error.to_string()))?;
    if answer.outputs.len() > MAX_TENSORS {
        return Err(wrong(format!("it has more than {MAX_TENSORS} outputs")));
    }
    let mut raw = body.slice(json_bytes..);
    let mut outputs = Vec::with_capacity(answer.outputs.len());
    for output in answer.outputs {
        outputs.push(read_output(output, &mut raw)?);
    }
    if !raw.is_empty() {
        return Err(wrong(format!("{} bytes follow its last output", raw.len())));
    }
    Ok(Answer {
        id: answer.id,
        model: answer.model_name,
        version: answer.model_version.unwrap_or_default(),
        outputs,
        parameters: answer.parameters.unwrap_or_default(),
        arm: None,
        request_id: None,
        trace: None,
    })
}

fn read_output(output: OutputJson<'_>, raw: &mut Bytes) -> Result<Output, Error> {
    let name = &*output.name;
    let size = output.parameters.and_then(|parameters| parameters.binary_data_size);
    let data = match (size, output.data) {
        (Some(size), _) if size > raw.len() => {
            let problem = format!("output '{name}' says {size} bytes, and {} are left", raw.len());
            return Err(Error::Unreadable(problem));
        }
        (Some(size), _) => raw.split_to(size),
        (None, Some(json)) => read_json_data(name, output.datatype, &output.shape, json).map_err(|error| {
            let text = error.to_string();
            // The reader is that of requests.
            let output = text.strip_prefix("input ").map(|rest| format!("output {rest}"));
            Error::Unreadable(output.unwrap_or(text))
        })?,
        (None, None) => return Err(Error::Unreadable(format!("output '{name}' has no data"))),
    };
    let tensor = Tensor::new(name.into(), output.datatype, output.shape, data);
    tensor.map(Output).map_err(|error| Error::Unreadable(error.to_string()))
}

#[cfg(test)]
mod tests {
    use mesh_protocol::decode_infer;
    use mesh_types::VersionSelector;

    use super::*;
    use crate::Client;

    #[test]
    fn a_request_is_what_the_door_reads() {
        let client = Client::http("http://127.0.0.1:1").build().unwrap();
        let request = client
            .model("m")
            .request()
            .id("7\"")
            .input(Input::new("a", [2], &[1.5_f32, -0.0]).unwrap())
            .input(Input::new::<i64>("none", [0, 3], &[]).unwrap())
            .input(Input::bytes("words", [1, 2], ["a\0", ""]).unwrap())
            .output("y")
            .parameter("user", "ada")
            .parameter("binary_data_output", false);
        let written = write(&request).unwrap();
        let body = Bytes::from(written.parts.concat());
        assert_eq!(written.bytes(), body.len());
        let read = decode_infer("m", VersionSelector::Default, &body, written.json_bytes).unwrap();
        let sent: Vec<_> = request.inputs.iter().map(|Input(tensor)| tensor.clone()).collect();
        assert_eq!(read.request.inputs, sent);
        assert_eq!(read.request.id.as_deref(), Some("7\""));
        assert_eq!(read.request.outputs, ["y"]);
        assert_eq!(read.request.parameters.len(), 1);
        assert!(read.outputs.is_binary("y"));
    }

    fn answer(json: &str, raw: &[u8]) -> Result<Answer, Error> {
        let body = Bytes::from([json.as_bytes(), raw].concat());
        read(&body, Some(json.len()))
    }

    #[test]
    fn raw_outputs_are_read_where_they_lie_and_json_is_understood() {
        let json = r#"{"model_name":"m","model_version":"2","outputs":[
            {"name":"a","datatype":"INT16","shape":[2],"parameters":{"binary_data_size":4}},
            {"name":"b","datatype":"FP32","shape":[1,2],"data":[[1.5,2]]},
            {"name":"c","datatype":"BYTES","shape":[1],"parameters":{"binary_data_size":5}}]}"#;
        let answer = answer(json, b"\x01\x00\x02\x00\x01\x00\x00\x00z").unwrap();
        assert_eq!(answer.output("a").unwrap().to_vec::<i16>().unwrap(), [1, 2]);
        assert_eq!(answer.output("b").unwrap().to_vec::<f32>().unwrap(), [1.5, 2.0]);
        assert_eq!(answer.output("c").unwrap().texts().unwrap(), ["z"]);
        assert!(answer.output("d").unwrap_err().to_string().contains("it has a, b, c"));
    }

    #[test]
    fn what_does_not_add_up_is_said() {
        let one = |size: usize, shape: usize| {
            format!(
                r#"{{"model_name":"m","outputs":[{{"name":"y","datatype":"INT8","shape":[{shape}],
                    "parameters":{{"binary_data_size":{size}}}}}]}}"#
            )
        };
        let text = |json: &str, raw: &[u8]| answer(json, raw).map(drop).unwrap_err().to_string();
        assert!(text(&one(3, 3), b"ab").contains("says 3 bytes, and 2 are left"));
        assert!(text(&one(2, 2), b"abc").contains("1 bytes follow"));
        assert!(text(&one(2, 3), b"ab").contains("need 3"));
        let json = r#"{"model_name":"m","outputs":[{"name":"y","datatype":"INT8","shape":[1],"data":[300]}]}"#;
        assert!(text(json, b"").contains("output 'y', element 0"));
        assert!(read(&Bytes::from_static(b"{}"), Some(3)).is_err());
        let outputs = |count| vec![r#"{"name":"y","datatype":"INT8","shape":[0],"data":[]}"#; count].join(",");
        let many = |count| format!(r#"{{"model_name":"m","outputs":[{}]}}"#, outputs(count));
        assert!(answer(&many(MAX_TENSORS), b"").is_ok());
        assert!(text(&many(MAX_TENSORS + 1), b"").contains("more than 64"));
    }
}
