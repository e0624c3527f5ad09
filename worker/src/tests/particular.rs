//! Inputs that may be left out, or are one value for a whole batch: what is gathered, and who shares a batch.

use std::sync::Arc;

use bytes::Bytes;
use mesh_types::{Clock as _, DataType, InferJob, ModelConfig, Shape, SystemClock, Tensor, TensorSpec};

use super::*;
use crate::{
    batch,
    dispatch::{shape_beside, shape_of},
    order::Member,
};

fn config() -> ModelConfig {
    ModelConfig {
        max_batch_size: 8,
        input: vec![
            TensorSpec::new("x", DataType::Int8, &[2]),
            TensorSpec {
                optional: true,
                ..TensorSpec::new("mask", DataType::Int8, &[2])
            },
            TensorSpec {
                unbatched: true,
                ..TensorSpec::new("k", DataType::Int8, &[1])
            },
        ],
        ..ModelConfig::default()
    }
}

fn tensor(name: &str, shape: &[u64], bytes: &[u8]) -> Tensor {
    let shape = Shape::from_slice(shape);
    Tensor::new(Arc::from(name), DataType::Int8, shape, Bytes::copy_from_slice(bytes)).unwrap()
}

fn inputs(mask: bool, k: u8) -> Vec<Tensor> {
    let mut inputs = vec![tensor("x", &[1, 2], &[1, 2])];
    inputs.extend(mask.then(|| tensor("mask", &[1, 2], &[3, 4])));
    inputs.push(tensor("k", &[1], &[k]));
    inputs
}

fn gathered(all: Vec<Vec<Tensor>>) -> Vec<(Vec<u64>, Vec<Vec<u8>>)> {
    let config = config();
    let clock = SystemClock;
    let member = |inputs: Vec<Tensor>| Member {
        job: Box::new(InferJob {
            inputs,
            ..job("identity", &[1.0], Duration::from_secs(1))
        }),
        arrived: clock.now(),
        step: None,
    };
    let members: Vec<Member> = all.into_iter().map(member).collect();
    let members: Vec<&Member> = members.iter().collect();
    let rows = u32::try_from(members.len()).unwrap();
    let batch = batch::gather(&config, &members, rows);
    let parts = |parts: &[&[u8]]| parts.iter().map(|part| part.to_vec()).collect();
    batch
        .inputs
        .iter()
        .map(|input| (input.shape.to_vec(), parts(&input.parts)))
        .collect()
}

#[test]
fn what_is_left_out_has_no_parts_and_a_value_for_the_batch_has_one() {
    let with = gathered(vec![inputs(true, 7), inputs(true, 7)]);
    assert_eq!(with[0], (vec![2, 2], vec![vec![1, 2], vec![1, 2]]));
    assert_eq!(with[1], (vec![2, 2], vec![vec![3, 4], vec![3, 4]]));
    assert_eq!(with[2], (vec![1], vec![vec![7]]));
    let without = gathered(vec![inputs(false, 7), inputs(false, 7)]);
    assert_eq!(without[0], with[0]);
    assert_eq!(without[1], (vec![], vec![]));
    assert_eq!(without[2], with[2]);
}

#[test]
fn who_leaves_out_others_or_gives_another_value_does_not_share_a_batch() {
    let config = config();
    let key = |mask, k| shape_beside(&config, &inputs(mask, k));
    assert_eq!(key(true, 7), key(true, 7));
    assert_ne!(key(true, 7), key(false, 7));
    assert_ne!(key(true, 7), key(true, 8));
    assert_eq!(
        key(true, 0),
        batch::shape_of_zeros(&config),
        "what warm-up seeds is what such requests are known by"
    );
    let plain = ModelConfig {
        input: vec![TensorSpec::new("x", DataType::Int8, &[2])],
        ..ModelConfig::default()
    };
    let x = [tensor("x", &[1, 2], &[1, 2])];
    assert_eq!(shape_beside(&plain, &x), shape_of(&x));
}

#[test]
fn a_batch_is_given_what_its_members_say() {
    let config = config();
    let said = mesh_types::ModelParameters::from(std::collections::BTreeMap::from([("a".to_owned(), "1".to_owned())]));
    let said = Arc::new(said);
    let member = |parameters: Option<Arc<mesh_types::ModelParameters>>| Member {
        job: Box::new(InferJob {
            inputs: inputs(true, 7),
            parameters,
            ..job("identity", &[1.0], Duration::from_secs(1))
        }),
        arrived: SystemClock.now(),
        step: None,
    };
    let (one, other) = (member(Some(said.clone())), member(Some(said.clone())));
    assert_eq!(batch::gather(&config, &[&one, &other], 2).parameters, Some(&*said));
    let plain = member(None);
    assert_eq!(batch::gather(&config, &[&plain], 1).parameters, None);
}

#[test]
fn samples_are_numbers_of_their_type_and_the_same_each_time() {
    let mut config = config();
    for (spec, datatype) in config
        .input
        .iter_mut()
        .zip([DataType::Fp32, DataType::Fp16, DataType::Int64])
    {
        spec.datatype = datatype;
    }
    let samples = batch::samples(&config, 3);
    assert_eq!(samples, batch::samples(&config, 3));
    let floats: Vec<f32> = samples[0]
        .1
        .chunks_exact(4)
        .map(|bytes| f32::from_le_bytes(bytes.try_into().unwrap()))
        .collect();
    assert_eq!(floats.len(), 6);
    assert!(floats.iter().all(|value| value.abs() <= 1.0) && floats.iter().any(|value| *value != floats[0]));
    // An FP16's exponent is in the upper byte: below one, and neither infinite nor no number.
    assert!(samples[1].1.chunks_exact(2).all(|bytes| bytes[1] & 0x7C == 0x34));
    assert!(
        samples[2].1.iter().all(|byte| *byte == 0),
        "what looks things up gets zeros"
    );
    assert_eq!(samples[2].0.as_slice(), [1]);
    assert_eq!(batch::sample_bytes(&config, 3), 3 * (8 + 4 + 8));
}
