//! What JSON costs: a body with an FP32 tensor of an image, read and written by this crate and by `serde_json` straight to and
//! from numbers, in turn in one run. Prints nanoseconds as JSON, the median of the rounds of each side.
#![expect(clippy::print_stdout, reason = "the program's answer")]

use std::{error::Error, hint::black_box, sync::Arc, time::Instant};

use bytes::Bytes;
use mesh_protocol::{OutputOptions, decode_infer, encode_infer};
use mesh_types::{InferResponse, Parameters, Version, VersionSelector};

/// An image of 3 times 224 times 224.
const ELEMENTS: u16 = 50_176;
const PLANES: u16 = 3;

fn main() -> Result<(), Box<dyn Error>> {
    let rounds: usize = std::env::args().nth(1).as_deref().unwrap_or("21").parse()?;
    let numbers = numbers();
    let data = serde_json::to_string(&numbers)?;
    let body = format!(
        r#"{{"inputs":[{{"name":"x","shape":[1,{}],"datatype":"FP32","data":{data}}}]}}"#,
        numbers.len()
    );
    let body = Bytes::from(body);
    let decode = || decode_infer("m", VersionSelector::Default, &body, None);
    let inputs = decode()?.request.inputs;
    let response = InferResponse {
        id: None,
        model: "m".to_owned(),
        version: Version::FIRST,
        outputs: inputs,
        parameters: Parameters::new(),
        regions: Vec::new(),
    };
    let json = OutputOptions::all(false);
    let (mut sides, mut failed) = ([const { Vec::new() }; 4], false);
    for round in 0..rounds {
        for turn in 0..4 {
            // Who goes first takes turns.
            let side = if round % 2 == 0 { turn } else { turn ^ 1 };
            let begun = Instant::now();
            failed |= match side {
                0 => black_box(decode()).is_err(),
                1 => black_box(serde_json::from_str::<Vec<f32>>(&data)).is_err(),
                2 => black_box(encode_infer(&response, &json)).is_err(),
                _ => black_box(serde_json::to_vec(&numbers)).is_err(),
            };
            if let Some(times) = sides.get_mut(side) {
                times.push(begun.elapsed().as_nanos());
            }
        }
    }
    if failed {
        return Err("a tensor could not be read or written".into());
    }
    let medians = sides.map(|mut times| {
        times.sort_unstable();
        times.get(times.len() / 2).copied().unwrap_or_default()
    });
    println!("{}", serde_json::to_string(&medians)?);
    Ok(())
}

/// Numbers as they come out of normalising an image: all digits that an FP32 has.
fn numbers() -> Arc<[f32]> {
    let plane = |plane: u16| {
        (0..ELEMENTS).map(move |at| {
            let value = f32::from(at.wrapping_mul(31).wrapping_add(plane) % 256) / 255.0;
            (value - 0.485) / (0.229 + f32::from(plane) / 1_000.0)
        })
    };
    (0..PLANES).flat_map(plane).collect()
}
