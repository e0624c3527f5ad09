//! A raw request: the body is the bytes of a model's only input and nothing else (`Inference-Header-Content-Length: 0`).
//!
//! What JSON would say is read off the model's configuration: the input's name and datatype, and its shape, of which one extent
//! may be open and follows from the number of bytes. It is one row where the model batches. Every output comes back as binary
//! data. Texts are Triton's, which its clients look for.

use std::sync::Arc;

use bytes::{BufMut, Bytes, BytesMut};
use mesh_types::{DataType, InferRequest, ModelConfig, Shape, Tensor, TensorSpec, VersionSelector};

use crate::{
    error::{DecodeError, quoted},
    request::{DecodedInfer, OutputOptions, cut},
};

/// Reads the body of a raw request for a model that is called as `config` says. The input shares the body's memory, but for BYTES,
/// whose element is put behind its length.
pub fn decode_raw(
    model: &str,
    version: VersionSelector,
    body: &Bytes,
    config: &ModelConfig,
) -> Result<DecodedInfer, DecodeError> {
    let [spec] = &config.input[..] else {
        return Err(DecodeError::RawInputs {
            inputs: config.input.len(),
            model: quoted(model),
        });
    };
    let shape = shape_of(config, spec, body.len())?;
    let data = match spec.datatype {
        DataType::Bytes => element(spec, &shape, body)?,
        _ => body.clone(),
    };
    let input = Tensor::new(Arc::from(spec.name.as_str()), spec.datatype, shape, data);
    Ok(DecodedInfer {
        request: InferRequest {
            model: model.to_owned(),
            version,
            inputs: vec![input.map_err(|error| cut(&spec.name, &error))?],
            ..InferRequest::default()
        },
        outputs: OutputOptions::all(true),
    })
}

/// The shape that so many bytes have; whether they fill it shows when the tensor is made.
fn shape_of(config: &ModelConfig, spec: &TensorSpec, bytes: usize) -> Result<Shape, DecodeError> {
    let mut shape = Shape::new();
    if config.has_rows(spec) {
        shape.push(1);
    }
    let (mut open, mut fixed) = (None, 1_u64);
    for dim in &spec.dims {
        match u64::try_from(*dim) {
            Ok(extent) => {
                fixed = fixed.saturating_mul(extent);
                shape.push(extent);
            }
            Err(_) if open.is_some() => {
                return Err(DecodeError::RawShape {
                    name: quoted(&spec.name),
                });
            }
            Err(_) => {
                open = Some(shape.len());
                shape.push(1);
            }
        }
    }
    let element = spec.datatype.element_bytes().unwrap_or(1) as u64;
    if let Some(extent) = open.and_then(|at| shape.get_mut(at)) {
        *extent = (bytes as u64).checked_div(fixed.saturating_mul(element)).unwrap_or(0);
    }
    Ok(shape)
}

/// The whole body as the one element of an input of BYTES.
fn element(spec: &TensorSpec, shape: &Shape, body: &Bytes) -> Result<Bytes, DecodeError> {
    let open = spec.dims.iter().any(|dim| *dim < 0);
    let length = u32::try_from(body.len()).ok();
    match length.filter(|_| !open && shape.iter().all(|extent| *extent == 1)) {
        Some(length) => {
            let mut data = BytesMut::with_capacity(body.len().saturating_add(4));
            data.put_u32_le(length);
            data.extend_from_slice(body);
            Ok(data.freeze())
        }
        None => Err(DecodeError::RawText {
            name: quoted(&spec.name),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config(max_batch_size: u32, inputs: &[(&str, DataType, &[i64])]) -> ModelConfig {
        let input = inputs
            .iter()
            .map(|(name, kind, dims)| TensorSpec::new(*name, *kind, dims));
        ModelConfig {
            max_batch_size,
            input: input.collect(),
            ..ModelConfig::default()
        }
    }

    fn read(config: &ModelConfig, body: &[u8]) -> Result<(Vec<u64>, Bytes), String> {
        let body = Bytes::copy_from_slice(body);
        let decoded = decode_raw("m", VersionSelector::Default, &body, config).map_err(|error| error.to_string())?;
        assert!(decoded.outputs.is_binary("any"));
        let [input] = &decoded.request.inputs[..] else {
            panic!("one input")
        };
        assert_eq!(&*input.name, "x");
        Ok((input.shape.to_vec(), input.data.clone()))
    }

    #[test]
    fn the_shape_is_the_models_and_one_extent_may_be_open() {
        let bytes: Vec<u8> = (0..24).collect();
        for (batch, dims, shape) in [
            (8, &[3, 2][..], vec![1, 3, 2]),
            (8, &[-1, 2], vec![1, 3, 2]),
            (0, &[3, -1], vec![3, 2]),
            (0, &[-1], vec![6]),
            (0, &[6], vec![6]),
        ] {
            let config = config(batch, &[("x", DataType::Fp32, dims)]);
            assert_eq!(
                read(&config, &bytes),
                Ok((shape, Bytes::from(bytes.clone()))),
                "{dims:?}"
            );
        }
        let nothing = config(8, &[("x", DataType::Int64, &[-1])]);
        assert_eq!(read(&nothing, b""), Ok((vec![1, 0], Bytes::new())));
    }

    #[test]
    fn an_input_shares_the_bodys_memory() {
        let config = config(0, &[("x", DataType::Uint8, &[-1])]);
        let body = Bytes::from(vec![7; 100]);
        let decoded = decode_raw("m", VersionSelector::Default, &body, &config).unwrap();
        assert_eq!(decoded.request.inputs[0].data.as_ptr(), body.as_ptr());
    }

    #[test]
    fn a_text_is_the_whole_body() {
        for batch in [0, 8] {
            let config = config(batch, &[("x", DataType::Bytes, &[1])]);
            let (shape, data) = read(&config, b"a text\0").unwrap();
            assert_eq!(shape.len(), if batch == 0 { 1 } else { 2 });
            assert_eq!(&data[..], b"\x07\0\0\0a text\0");
        }
        for dims in [&[-1][..], &[2], &[1, -1]] {
            let config = config(0, &[("x", DataType::Bytes, dims)]);
            assert!(
                read(&config, b"a")
                    .unwrap_err()
                    .contains("the model must have input shape [1]")
            );
        }
    }

    #[test]
    fn what_cannot_be_deduced_has_tritons_text() {
        let two = config(8, &[("x", DataType::Fp32, &[1]), ("y", DataType::Fp32, &[1])]);
        assert_eq!(
            read(&two, &[0; 4]).unwrap_err(),
            "Raw request must only have 1 input (found 1) to be deduced but got 2 inputs in 'm' model configuration"
        );
        let open = config(8, &[("x", DataType::Fp32, &[-1, -1])]);
        assert_eq!(
            read(&open, &[0; 4]).unwrap_err(),
            "The shape of the raw input 'x' can not be deduced because there are more than one variable-sized dimension"
        );
        let fixed = config(8, &[("x", DataType::Fp32, &[2])]);
        for wrong in [0, 4, 7, 9, 12] {
            let text = read(&fixed, &vec![0; wrong]).unwrap_err();
            assert_eq!(
                text,
                format!("input 'x' holds {wrong} bytes, its shape and datatype need 8")
            );
        }
        let rows = config(8, &[("x", DataType::Fp32, &[2, -1])]);
        assert!(read(&rows, &[0; 12]).is_err());
        // An extent of nothing leaves no room for an open one, and no number of bytes overflows.
        let none = config(0, &[("x", DataType::Fp32, &[0, -1])]);
        assert!(read(&none, b"").is_ok() && read(&none, &[0; 4]).is_err());
        let huge = config(0, &[("x", DataType::Fp32, &[i64::MAX, i64::MAX, -1])]);
        assert!(read(&huge, &[0; 4]).is_err());
    }
}
