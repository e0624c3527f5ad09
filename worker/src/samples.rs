//! What a warm-up record's inputs hold: zeros, random data or the bytes that the configuration gives.
//!
//! Random data are the same in every run, so that a model that fails on them fails always.

use mesh_types::{Base64Bytes, DataType, ModelConfig, ModelWarmup, Shape, WarmupInput};

/// The most bytes of one input of a record, so that a mistake in `dims` is an error and not a machine without memory.
const MAX_BYTES: u64 = 1 << 31;
/// The letters of a random string.
const LETTERS: usize = 8;

/// An input's shape and bytes; none of one that the record leaves out.
pub(crate) type Sample = Option<(Shape, Vec<u8>)>;

/// Each input's sample, in the configuration's order; else what is wrong.
pub(crate) fn of(config: &ModelConfig, record: &ModelWarmup) -> Result<Vec<Sample>, String> {
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let inputs = config.input.iter().map(|spec| {
        let Some(input) = record.inputs.get(&spec.name) else {
            let missing = || format!("'{}' is missing", spec.name);
            return spec.optional.then_some(None).ok_or_else(missing);
        };
        let rows = config.has_rows(spec).then_some(u64::from(record.rows()));
        let sample = one(rows, input, &mut random);
        sample.map(Some).map_err(|problem| format!("'{}' {problem}", spec.name))
    });
    inputs.collect()
}

fn one(batch: Option<u64>, input: &WarmupInput, random: &mut Random) -> Result<(Shape, Vec<u8>), &'static str> {
    let extents = input.dims.iter().map(|dim| u64::try_from(*dim).unwrap_or(1));
    let shape: Shape = batch.into_iter().chain(extents).collect();
    let item = input.elements().ok_or("has a dimension that is no extent")?;
    let elements = item.checked_mul(batch.unwrap_or(1));
    let size = input.data_type.element_bytes().unwrap_or(4 + LETTERS) as u64;
    let fits = elements
        .and_then(|elements| elements.checked_mul(size))
        .is_some_and(|bytes| bytes <= MAX_BYTES);
    let elements = elements
        .filter(|_| fits)
        .and_then(|elements| usize::try_from(elements).ok());
    let elements = elements.ok_or("would be larger than 2 GiB")?;
    let data = match &input.input_data {
        Some(Base64Bytes(item)) => item.repeat(usize::try_from(batch.unwrap_or(1)).unwrap_or(1)),
        None if input.random_data => (0..elements).flat_map(|_| random.element(input.data_type)).collect(),
        // An empty string is a length of zero.
        None => vec![0; elements * input.data_type.element_bytes().unwrap_or(4)],
    };
    Ok((shape, data))
}

/// Marsaglia's xorshift.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// From 0 to 1; in halves of a float's bits, from a half to 1.
    fn element(&mut self, datatype: DataType) -> Vec<u8> {
        let number = self.next() >> 11;
        #[expect(clippy::cast_precision_loss, reason = "53 bits")]
        let fraction = number as f64 / (1_u64 << 53) as f64;
        #[expect(clippy::cast_possible_truncation, reason = "a fraction, and low bits")]
        let (single, bits) = (fraction as f32, (number & 0x3ff) as u16);
        let bit = u8::from(number & 1 == 1);
        match datatype {
            DataType::Fp64 => fraction.to_le_bytes().to_vec(),
            DataType::Fp32 => single.to_le_bytes().to_vec(),
            DataType::Fp16 => (0x3800 | bits).to_le_bytes().to_vec(),
            DataType::Bf16 => (0x3f00 | (bits & 0x7f)).to_le_bytes().to_vec(),
            DataType::Bytes => {
                let letters = self.next().to_le_bytes().map(|byte| b'a' + byte % 26);
                [[LETTERS as u8, 0, 0, 0].as_slice(), &letters].concat()
            }
            other => {
                let mut bytes = vec![0; other.element_bytes().unwrap_or(1)];
                bytes.iter_mut().take(1).for_each(|byte| *byte = bit);
                bytes
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mesh_types::TensorSpec;

    use super::*;

    fn record(datatype: DataType, change: impl Fn(&mut WarmupInput)) -> (ModelConfig, ModelWarmup) {
        let mut input = WarmupInput {
            data_type: datatype,
            dims: vec![2, 3],
            zero_data: false,
            random_data: false,
            input_data: None,
            input_data_file: None,
        };
        change(&mut input);
        let config = ModelConfig {
            max_batch_size: 4,
            input: vec![TensorSpec::new("x", datatype, &[-1, 3])],
            ..ModelConfig::default()
        };
        let record = ModelWarmup {
            name: "r".into(),
            batch_size: 2,
            inputs: BTreeMap::from([("x".to_owned(), input)]),
            count: 1,
        };
        (config, record)
    }

    #[test]
    fn every_type_has_zeros_and_random_data_of_the_right_length() {
        for datatype in DataType::ALL {
            let size = datatype.element_bytes();
            let (config, zero) = record(datatype, |input| input.zero_data = true);
            let (shape, data) = of(&config, &zero).unwrap().remove(0).unwrap();
            assert_eq!(shape.as_slice(), [2, 2, 3]);
            assert_eq!(data, vec![0; 12 * size.unwrap_or(4)]);
            let (config, random) = record(datatype, |input| input.random_data = true);
            let (_, data) = of(&config, &random).unwrap().remove(0).unwrap();
            assert_eq!(data.len(), 12 * size.unwrap_or(12), "{datatype}");
            assert!(data.iter().any(|byte| *byte != 0), "{datatype}");
            assert_eq!(
                of(&config, &random).unwrap().remove(0).unwrap().1,
                data,
                "the same in every run"
            );
            if datatype == DataType::Fp32 {
                let floats = data.as_chunks::<4>().0.iter().map(|bytes| f32::from_le_bytes(*bytes));
                assert!(floats.into_iter().all(|float| (0.0..=1.0).contains(&float)));
            }
        }
    }

    #[test]
    fn given_bytes_are_one_item_and_each_row_is_the_same() {
        let item: Vec<u8> = (0..6).collect();
        let (config, given) = record(DataType::Uint8, |input| {
            input.input_data = Some(Base64Bytes(item.clone().into()));
        });
        assert_eq!(
            of(&config, &given).unwrap()[0].as_ref().unwrap().1,
            [item.clone(), item].concat()
        );
    }

    #[test]
    fn what_would_take_all_memory_is_refused() {
        let (config, huge) = record(DataType::Fp32, |input| {
            input.zero_data = true;
            input.dims = vec![1 << 40, 3];
        });
        assert!(of(&config, &huge).unwrap_err().contains("2 GiB"));
    }
}
