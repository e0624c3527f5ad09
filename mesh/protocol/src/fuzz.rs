//! The bodies of the fuzz targets, here so that ordinary tests run them too: any bytes, and what must then hold.
//!
//! Each returns what does not hold; the fuzzer and the tests panic on it. Not for use by the mesh.

mod about;

use bytes::Bytes;
use mesh_types::{DataType, InferResponse, ModelConfig, Parameters, Tensor, TensorSpec, Version, VersionSelector};

use prost::Message as _;

pub use about::{event, load, settings};

use crate::{
    DecodedInfer, OutputOptions, decode_generate, decode_index, decode_infer, decode_raw, encode_generate,
    encode_infer,
    grpc::{
        decode_message,
        messages::{ModelInferRequest, ModelInferResponse},
        write_message,
    },
    request::{Binary, decode_lifted},
    serving::{self, Predict, messages::serving::PredictRequest},
    v1::{self, Form},
};

/// What is said to a caller who has sent something wrong is shorter than this;
const MOST_CHARS: usize = 500;
/// where it names what the model has instead, than this.
const WORDY: usize = 1_000;

/// A body that is all JSON: taken or refused in the same words whether large lists are read apart or not.
pub fn infer_json(data: &[u8]) -> Result<(), String> {
    let body = Bytes::copy_from_slice(data);
    let read = |least| {
        let binary = Binary::nothing(&body);
        decode_lifted("m", VersionSelector::Default, &body, binary, least).map_err(|error| error.to_string())
    };
    if read(0) != read(usize::MAX) {
        return Err("lists that are read apart change what is read".to_owned());
    }
    check(&body, None)
}

/// Two bytes of header length, little endian, then the body; a length of 0xffff stands for one beyond any body.
pub fn infer_binary(data: &[u8]) -> Result<(), String> {
    let Some((prefix, body)) = data.split_first_chunk::<2>() else {
        return Ok(());
    };
    let header = match u16::from_le_bytes(*prefix) {
        u16::MAX => usize::MAX,
        header => usize::from(header),
    };
    let body = Bytes::copy_from_slice(body);
    if header == 0 {
        raw(&body)?;
    }
    check(&body, Some(header))
}

/// A body that is one tensor's bytes and nothing else, for models of each datatype: taken as what it is, or refused.
fn raw(body: &Bytes) -> Result<(), String> {
    for (rows, dims) in [(0, &[-1][..]), (8, &[-1]), (8, &[2, -1]), (0, &[1])] {
        for datatype in DataType::ALL {
            let config = ModelConfig {
                max_batch_size: rows,
                input: vec![TensorSpec::new("x", datatype, dims)],
                ..ModelConfig::default()
            };
            match decode_raw("m", VersionSelector::Default, body, &config) {
                Ok(decoded) => sound(&decoded.request.inputs)?,
                Err(error) => plain(&error, MOST_CHARS)?,
            }
        }
    }
    Ok(())
}

/// A `ModelInferRequest`: what both readers take, the hand-written and the generated one, they take for the same, and an answer
/// made of it reads back. The generated one also looks into parameters of tensors that mean nothing, and may refuse those.
pub fn infer_message(data: &[u8]) -> Result<(), String> {
    let body = Bytes::copy_from_slice(data);
    let request = match decode_message(&body) {
        Ok(request) => request,
        Err(error) => return plain(&error, MOST_CHARS),
    };
    sound(&request.inputs)?;
    if request.regions.is_some() {
        // What is in shared memory is among its tensors only once it was read.
        return Ok(());
    }
    let Ok(generated) = ModelInferRequest::decode(data) else {
        return Ok(());
    };
    let names = |inputs: &[Tensor]| inputs.iter().map(|input| input.name.to_string()).collect::<Vec<_>>();
    let theirs: Vec<String> = generated.inputs.iter().map(|input| input.name.clone()).collect();
    let same = request.model == generated.model_name
        && request.id.clone().unwrap_or_default() == generated.id
        && names(&request.inputs) == theirs;
    if !same {
        return Err("the two readers disagree".to_owned());
    }
    let response = InferResponse {
        id: request.id,
        model: request.model,
        version: Version::FIRST,
        outputs: request.inputs,
        parameters: request.parameters,
        regions: Vec::new(),
    };
    let mut bytes = Vec::new();
    write_message(&response, &mut bytes);
    let back = ModelInferResponse::decode(&*bytes).map_err(|error| format!("an answer does not read back: {error}"))?;
    let same = back.encoded_len() == bytes.len()
        && back
            .raw_output_contents
            .iter()
            .eq(response.outputs.iter().map(|output| &output.data));
    same.then_some(())
        .ok_or_else(|| "an answer reads back as something else".to_owned())
}

/// What asks for the index: it does so, or is refused in plain words.
pub fn index(data: &[u8]) -> Result<(), String> {
    match decode_index(data) {
        Ok(_) => Ok(()),
        Err(error) => plain(&error, MOST_CHARS),
    }
}

/// Whether a caller is told in a few words what is wrong.
fn plain(error: &impl std::fmt::Display, most_chars: usize) -> Result<(), String> {
    let text = error.to_string();
    let plain = !text.is_empty() && text.chars().count() < most_chars;
    plain
        .then_some(())
        .ok_or_else(|| format!("a message of {} bytes", text.len()))
}

/// Runs a body on seeds, and on so many mutations of them, always the same ones.
pub fn seeds_and_mutations(
    seeds: &[Vec<u8>],
    mutations: usize,
    body: impl Fn(&[u8]) -> Result<(), String>,
) -> Result<(), String> {
    let told = |data: &[u8], problem: String| format!("{problem}: {:?}", String::from_utf8_lossy(data));
    for seed in seeds {
        body(seed).map_err(|problem| told(seed, problem))?;
    }
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    for seed in seeds.iter().cycle().take(mutations) {
        let mut data = seed.clone();
        for _ in 0..=random.below(4) {
            mutate(&mut data, seeds, &mut random);
        }
        body(&data).map_err(|problem| told(&data, problem))?;
    }
    Ok(())
}

struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % u64::try_from(bound.max(1)).unwrap_or(u64::MAX)).unwrap_or_default()
    }
}

fn mutate(data: &mut Vec<u8>, seeds: &[Vec<u8>], random: &mut Random) {
    const TOKENS: [&[u8]; 14] = [
        b"[",
        b"]",
        b"{",
        b"}",
        b"\"",
        b",",
        b"-",
        b".",
        b" ",
        b"1e999",
        b"null",
        b"18446744073709551615",
        b"\\u0000",
        b"\xff",
    ];
    let at = random.below(data.len() + 1);
    match random.below(5) {
        0 => data.truncate(at),
        1 => {
            let bit = random.below(8);
            if let Some(byte) = data.get_mut(at) {
                *byte ^= 1 << bit;
            }
        }
        2 => {
            let token = TOKENS.get(random.below(TOKENS.len())).copied().unwrap_or_default();
            data.splice(at..at, token.iter().copied());
        }
        3 => {
            let end = (at + random.below(16)).min(data.len());
            data.drain(at..end);
        }
        _ => {
            let other = seeds
                .get(random.below(seeds.len()))
                .map(Vec::as_slice)
                .unwrap_or_default();
            let from = random.below(other.len() + 1);
            data.splice(at.., other.get(from..).unwrap_or_default().iter().copied());
        }
    }
}

/// The body of a generate request for a model that has an input of every datatype, named as the datatype is: an answer made of it
/// is one JSON object, and reads back as the same tensors.
pub fn generate(data: &[u8]) -> Result<(), String> {
    let spec = |datatype: &DataType| TensorSpec::new(datatype.as_str(), *datatype, &[-1]);
    let config = ModelConfig {
        max_batch_size: 1,
        input: DataType::ALL.iter().map(spec).collect(),
        ..ModelConfig::default()
    };
    let Ok(request) = decode_generate("m", VersionSelector::Default, data, &config) else {
        return Ok(());
    };
    sound(&request.inputs)?;
    let response = InferResponse {
        id: request.id,
        model: request.model,
        version: Version::FIRST,
        outputs: request.inputs,
        parameters: Parameters::new(),
        regions: Vec::new(),
    };
    let body = encode_generate(&response).map_err(|error| format!("what came as JSON does not go as JSON: {error}"))?;
    let back = decode_generate("m", VersionSelector::Default, &body, &config)
        .map_err(|error| format!("an answer does not read back: {error}"))?;
    let same = back.inputs == response.outputs && back.id == response.id;
    same.then_some(())
        .ok_or_else(|| "an answer reads back as something else".to_owned())
}

/// The body of a V1 request for a model that has an input of every datatype, named as the datatype is: what is read as rows or columns
/// goes out as such and reads back as the same tensors; what is no request is refused in plain words.
pub fn v1(data: &[u8]) -> Result<(), String> {
    let spec = |datatype: &DataType| TensorSpec::new(datatype.as_str(), *datatype, &[-1]);
    let config = ModelConfig {
        max_batch_size: 8,
        input: DataType::ALL.iter().map(spec).collect(),
        ..ModelConfig::default()
    };
    if let Ok(examples) = v1::decode_examples(&config, data) {
        sound(&examples.inputs)?;
    }
    let v1::Predict { inputs, form } = match v1::decode_predict(&config, data) {
        Ok(read) => read,
        Err(error) => return plain(&error, WORDY),
    };
    sound(&inputs)?;
    let response = InferResponse {
        id: None,
        model: "m".to_owned(),
        version: Version::FIRST,
        outputs: inputs,
        parameters: Parameters::new(),
        regions: Vec::new(),
    };
    // Bytes that are no text may be refused, and so may rows that are not as many as the instances.
    let Ok(body) = v1::encode_predictions(&response, form) else {
        return Ok(());
    };
    let (written, read) = match form {
        Form::Columns => ("{\"outputs\":", "{\"inputs\":"),
        Form::Rows(_) | Form::Whole => ("{\"predictions\":", "{\"instances\":"),
    };
    let body = String::from_utf8(body).map_err(|_| "an answer is no text")?;
    let rest = body.strip_prefix(written).ok_or("an answer of another form")?;
    // One value alone does not say whose it is.
    let body = match (&response.outputs[..], form) {
        ([only], Form::Columns) => format!("{read}{{\"{}\":{}}}", only.name, rest),
        ([_], _) => return Ok(()),
        _ => format!("{read}{rest}"),
    };
    let back = v1::decode_predict(&config, body.as_bytes()).map_err(|error| format!("does not read back: {error}"))?;
    let same = back.inputs == response.outputs && back.form == form;
    same.then_some(())
        .ok_or_else(|| "an answer reads back as something else".to_owned())
}

/// A message of TensorFlow Serving's, taken for each that callers send: what is read has sound tensors, which go out and come back as
/// they were; what is none is refused in plain words.
pub fn serving(data: &[u8]) -> Result<(), String> {
    let message = Bytes::copy_from_slice(data);
    let spec = |datatype: &DataType| TensorSpec::new(datatype.as_str(), *datatype, &[-1]);
    let config = ModelConfig {
        max_batch_size: 8,
        input: DataType::ALL.iter().map(spec).collect(),
        ..ModelConfig::default()
    };
    let examples = serving::decode_examples(&message).and_then(|examples| examples.inputs(&config));
    match examples {
        Ok(inputs) => sound(&inputs)?,
        Err(error) => plain(&error, WORDY)?,
    }
    if let Err(error) = serving::decode_question(data) {
        plain(&error, WORDY)?;
    }
    let Predict { asked, inputs, .. } = match serving::decode_predict(&message) {
        Ok(read) => read,
        Err(error) => return plain(&error, WORDY),
    };
    sound(&inputs)?;
    let response = InferResponse {
        id: None,
        model: asked.name,
        version: Version::FIRST,
        outputs: inputs,
        parameters: Parameters::new(),
        regions: Vec::new(),
    };
    let told = serving::prediction(&response);
    let again = PredictRequest {
        model_spec: told.model_spec,
        inputs: told.outputs,
        output_filter: Vec::new(),
    };
    let back = serving::decode_predict(&again.encode_to_vec().into());
    let mut back = back
        .map_err(|error| format!("an answer does not read back: {error}"))?
        .inputs;
    back.sort_by_key(|tensor| response.outputs.iter().position(|known| known.name == tensor.name));
    (back == response.outputs)
        .then_some(())
        .ok_or_else(|| "an answer reads back as something else".to_owned())
}

fn sound(tensors: &[Tensor]) -> Result<(), String> {
    for tensor in tensors {
        let again = Tensor::new(
            tensor.name.clone(),
            tensor.datatype,
            tensor.shape.clone(),
            tensor.data.clone(),
        );
        again.map_err(|error| format!("an unsound tensor passed: {error}"))?;
    }
    Ok(())
}

fn check(body: &Bytes, header: Option<usize>) -> Result<(), String> {
    let DecodedInfer { request, outputs } = match decode_infer("m", VersionSelector::Default, body, header) {
        Ok(decoded) => decoded,
        Err(error) => return plain(&error, MOST_CHARS),
    };
    sound(&request.inputs)?;
    let response = InferResponse {
        id: request.id,
        model: request.model,
        version: Version::FIRST,
        outputs: request.inputs,
        parameters: Parameters::new(),
        regions: Vec::new(),
    };
    // As the caller asked: may be refused (16-bit floats, NaN, bytes that are no text), but never panics.
    let _ = encode_infer(&response, &outputs);
    let all_binary = OutputOptions::all(true);
    let encoded = encode_infer(&response, &all_binary).map_err(|error| format!("binary data was refused: {error}"))?;
    let header = encoded.header_content_length();
    let mut body = encoded.into_chunks().concat();
    // Within a string the quotation marks would be escaped, so this is the field.
    let field = b"\"outputs\":[";
    let at = body.windows(field.len()).position(|window| window == field);
    let at = at.ok_or("a response without outputs")?;
    // A response reads back as a request once its outputs are called inputs (and the same length keeps the header right).
    body.splice(at..at + field.len(), *b"\"inputs\": [");
    let back = decode_infer("m", VersionSelector::Default, &Bytes::from(body), header)
        .map_err(|error| format!("a response does not read back: {error}"))?;
    if back.request.inputs != response.outputs || back.request.id != response.id {
        return Err("a response reads back as something else".to_owned());
    }
    Ok(())
}
