//! One suite for both kinds of file: the same PyTorch modules as TorchScript and as packages that AOTInductor compiled.
//!
//! The files are made by PyTorch itself; `cargo xtask packages` provides it and them, and links the folder as `.packages`.

use std::{
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use mesh_backend::{BatchInput, BatchInputs};
use mesh_types::{DataType, ModelConfig, Shape, Tensor, TensorSpec};
use proptest::prelude::*;

use super::*;
use crate::tests::{floats, load_as, raw, spec};

const KINDS: [(ArtifactFormat, &str); 2] = [(ArtifactFormat::TorchScript, "pt"), (ArtifactFormat::TorchAoti, "pt2")];

/// A module that was made by PyTorch.
pub(crate) fn made(name: &str, end: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../../.packages");
    let path = folder.join(name).with_extension(end);
    assert!(
        path.exists(),
        "{} is not there: run `cargo xtask packages`, which makes it with PyTorch",
        path.display()
    );
    path
}

fn config(inputs: Vec<TensorSpec>, outputs: Vec<TensorSpec>) -> ModelConfig {
    ModelConfig {
        max_batch_size: 64,
        input: inputs,
        output: outputs,
        ..ModelConfig::default()
    }
}

fn perceptron() -> ModelConfig {
    config(
        vec![spec("x", DataType::Fp32, &[30])],
        vec![spec("y", DataType::Fp32, &[2])],
    )
}

/// Runs a batch in which every input comes in one part.
fn run(model: &mut dyn LoadedModel, config: &ModelConfig, rows: u32, data: &[Vec<u8>]) -> Result<Vec<Tensor>, String> {
    let inputs = config.input.iter().zip(data).map(|(spec, data)| BatchInput {
        spec,
        shape: std::iter::once(i64::from(rows))
            .chain(spec.dims.iter().copied())
            .map(|extent| u64::try_from(extent).unwrap())
            .collect(),
        parts: vec![data],
    });
    let batch = BatchInputs {
        rows,
        inputs: inputs.collect(),
        parameters: None,
    };
    model
        .execute(&batch)
        .map(|outputs| outputs.outputs)
        .map_err(|error| error.to_string())
}

fn numbers(count: usize, seed: f32) -> Vec<u8> {
    let value = |index: usize| ((f32::from(u16::try_from(index % 1_000).unwrap()) + seed) * 0.37).sin();
    raw(&(0..count).map(value).collect::<Vec<f32>>())
}

#[test]
fn two_requests_in_one_batch_are_gathered_and_computed() {
    for (format, end) in KINDS {
        let two = |name: &str| spec(name, DataType::Fp32, &[2]);
        let config = config(vec![two("a"), two("b")], vec![two("sum"), two("difference")]);
        let mut model = load_as(format, made("add_sub", end), config.clone()).unwrap();
        let (first, second) = (raw(&[1.0, 2.0]), raw(&[3.0, 4.0, 5.0, 6.0]));
        let other = raw(&[10.0, 20.0, 30.0, 40.0, 50.0, 60.0]);
        let shape = || Shape::from_slice(&[3, 2]);
        let inputs = vec![
            BatchInput {
                spec: &config.input[0],
                shape: shape(),
                parts: vec![&first, &second],
            },
            BatchInput {
                spec: &config.input[1],
                shape: shape(),
                parts: vec![&other],
            },
        ];
        let outputs = model
            .execute(&BatchInputs {
                rows: 3,
                inputs,
                parameters: None,
            })
            .unwrap()
            .outputs;
        assert_eq!(floats(&outputs[0].data), [11.0, 22.0, 33.0, 44.0, 55.0, 66.0], "{end}");
        assert_eq!(
            floats(&outputs[1].data),
            [-9.0, -18.0, -27.0, -36.0, -45.0, -54.0],
            "{end}"
        );
        assert_eq!(outputs[1].shape.as_slice(), [3, 2]);
    }
}

#[test]
fn indices_in_names_place_inputs_and_outputs() {
    for (format, end) in KINDS {
        let two = |name: &str| spec(name, DataType::Fp32, &[2]);
        let config = config(
            vec![two("INPUT__1"), two("INPUT__0")],
            vec![two("OUTPUT__1"), two("OUTPUT__0")],
        );
        let mut model = load_as(format, made("add_sub", end), config.clone()).unwrap();
        let outputs = run(model.as_mut(), &config, 1, &[raw(&[1.0, 1.0]), raw(&[5.0, 7.0])]).unwrap();
        assert_eq!(
            (&*outputs[0].name, floats(&outputs[0].data)),
            ("OUTPUT__1", vec![4.0, 6.0]),
            "{end}"
        );
        assert_eq!(
            (&*outputs[1].name, floats(&outputs[1].data)),
            ("OUTPUT__0", vec![6.0, 8.0]),
            "{end}"
        );
    }
}

#[test]
fn both_agree_to_1e_5_at_every_batch_size_and_a_row_is_the_same_in_any_batch() {
    let config = perceptron();
    let mut models = KINDS.map(|(format, end)| load_as(format, made("perceptron", end), config.clone()).unwrap());
    let alone = numbers(30, 1.0);
    let mut answers = Vec::new();
    for rows in [1u32, 2, 3, 7, 32, 64] {
        let data = [
            alone.as_slice(),
            &numbers(30 * (usize::try_from(rows).unwrap() - 1), 5.0),
        ]
        .concat();
        let [script, package] = &mut models;
        let one = floats(&run(script.as_mut(), &config, rows, std::slice::from_ref(&data)).unwrap()[0].data);
        let other = floats(&run(package.as_mut(), &config, rows, &[data]).unwrap()[0].data);
        assert_eq!(one.len(), other.len());
        let worst = one
            .iter()
            .zip(&other)
            .map(|(one, other)| (one - other).abs())
            .fold(0.0, f32::max);
        assert!(worst <= 1e-5, "they differ by {worst} at {rows} rows");
        answers.push(other[..2].to_vec());
    }
    for answer in &answers {
        let worst = answer
            .iter()
            .zip(&answers[0])
            .map(|(one, other)| (one - other).abs())
            .fold(0.0, f32::max);
        assert!(worst <= 1e-6, "{answers:?}");
    }
}

#[test]
fn lists_and_dictionaries_go_in_and_dictionaries_come_out() {
    let three = |name: &str| spec(name, DataType::Fp32, &[3]);
    let outputs = || vec![three("shifted"), three("total")];
    let names = [
        (0, ["pair__1", "pair__0", "named.shift", "named.scale"]),
        (1, ["INPUT__0__1", "INPUT__0__0", "INPUT__1.shift", "INPUT__1.scale"]),
    ];
    let mut all = Vec::new();
    for (kind, names) in names {
        let (format, end) = KINDS[kind];
        let config = config(names.iter().map(|name| three(name)).collect(), outputs());
        let mut model = load_as(format, made("nested", end), config.clone()).unwrap();
        let data = [
            raw(&[1.0, 2.0, 3.0]),
            raw(&[10.0, 10.0, 10.0]),
            raw(&[0.5, 0.5, 0.5]),
            raw(&[2.0, 2.0, 2.0]),
        ];
        let outputs = run(model.as_mut(), &config, 1, &data).unwrap();
        all.push(outputs.iter().map(|output| floats(&output.data)).collect::<Vec<_>>());
    }
    assert_eq!(all[0], [[12.5, 14.5, 16.5], [12.0, 14.0, 16.0]]);
    assert_eq!(all[0], all[1]);
}

#[test]
fn whole_numbers_and_truth_values_are_not_changed() {
    for (format, end) in KINDS {
        let config = config(
            vec![spec("x", DataType::Int64, &[5])],
            vec![spec("sums", DataType::Int64, &[5]), spec("large", DataType::Bool, &[5])],
        );
        let mut model = load_as(format, made("counts", end), config.clone()).unwrap();
        let data: Vec<u8> = (1i64..=5).flat_map(i64::to_le_bytes).collect();
        let outputs = run(model.as_mut(), &config, 1, &[data]).unwrap();
        let sums: Vec<u8> = [1i64, 3, 6, 10, 15].into_iter().flat_map(i64::to_le_bytes).collect();
        assert_eq!(outputs[0].data, sums, "{end}");
        assert_eq!(outputs[1].data.as_ref(), [0, 0, 1, 1, 1], "{end}");
    }
}

#[test]
fn what_an_execution_gave_stays_as_it_was() {
    for (format, end) in KINDS {
        let wide = |name: &str| spec(name, DataType::Fp32, &[8_192]);
        let config = config(vec![wide("x")], vec![wide("y")]);
        let mut model = load_as(format, made("wide", end), config.clone()).unwrap();
        let kept: Vec<Tensor> = (0..5u8)
            .map(|value| {
                run(model.as_mut(), &config, 1, &[raw(&[f32::from(value); 8_192])])
                    .unwrap()
                    .remove(0)
            })
            .collect();
        drop(model);
        for (value, output) in (0..5u8).zip(&kept) {
            assert_eq!(output.data, raw(&[f32::from(value) * 2.0 + 1.0; 8_192]), "{end}");
        }
    }
}

#[test]
fn outputs_of_another_type_or_shape_are_named_and_the_model_stays_usable() {
    for (format, end) in KINDS {
        let data = [numbers(30, 0.0)];
        let cases = [
            (spec("y", DataType::Int64, &[2]), "'y' is Float, expected INT64"),
            (
                spec("y", DataType::Fp32, &[5]),
                "'y' has shape [1, 2], expected [-1, 5]",
            ),
        ];
        for (output, text) in cases {
            let config = ModelConfig {
                output: vec![output],
                ..perceptron()
            };
            let mut model = load_as(format, made("perceptron", end), config.clone()).unwrap();
            for _ in 0..2 {
                let error = run(model.as_mut(), &config, 1, &data).unwrap_err();
                assert!(error.contains(text), "{end}: {error}");
            }
        }
    }
}

#[test]
fn too_many_outputs_are_refused_at_load_and_too_few_inputs_too() {
    for (format, end) in KINDS {
        let mut many = perceptron();
        many.output.push(spec("z", DataType::Fp32, &[2]));
        let error = load_as(format, made("perceptron", end), many)
            .err()
            .unwrap()
            .to_string();
        assert!(
            error.contains("returns 1 tensor, the configuration has 2 outputs"),
            "{end}: {error}"
        );
        let one = config(
            vec![spec("p", DataType::Fp32, &[2])],
            vec![spec("s", DataType::Fp32, &[2])],
        );
        let error = load_as(format, made("add_sub", end), one).err().unwrap().to_string();
        assert!(error.contains("has no input; add"), "{end}: {error}");
    }
}

#[test]
fn memory_is_known_and_an_executions_peak_is_measured() {
    for (format, end) in KINDS {
        let config = perceptron();
        let mut model = load_as(format, made("perceptron", end), config.clone()).unwrap();
        let weights = (30 * 64 + 64 + 64 * 32 + 32 + 32 * 2 + 2) * 4;
        assert!(
            (weights..weights + 4_000_000).contains(&model.memory_bytes()),
            "{end}: {}",
            model.memory_bytes()
        );
        assert!(model.report().runtime.starts_with("libtorch 2.11.0"));
        let data = numbers(30 * 64, 0.0);
        let batch = BatchInputs {
            rows: 64,
            inputs: vec![BatchInput {
                spec: &config.input[0],
                shape: Shape::from_slice(&[64, 30]),
                parts: vec![&data],
            }],
            parameters: None,
        };
        let (_, peak) = model.execute_measured(&batch).unwrap();
        let least = 64 * (30 + 64) * 4;
        assert!((least..least * 20).contains(&peak.unwrap()), "{end}: {peak:?}");
    }
}

/// What becomes of a member of an archive: other bytes, or nothing.
pub(crate) type Change = dyn Fn(&str, Vec<u8>) -> Option<Vec<u8>>;

/// The file with some of its members changed.
pub(crate) fn changed(path: &Path, change: &Change) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let copy = folder.path().join("changed.pt2");
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let mut writer = zip::ZipWriter::new(std::fs::File::create(&copy).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let (name, mut content) = (entry.name().to_owned(), Vec::new());
        entry.read_to_end(&mut content).unwrap();
        if let Some(content) = change(&name, content) {
            writer.start_file(&name, options).unwrap();
            writer.write_all(&content).unwrap();
        }
    }
    writer.finish().unwrap();
    (folder, copy)
}

fn refused(change: &Change) -> String {
    let (_folder, path) = changed(&made("perceptron", "pt2"), change);
    load_as(ArtifactFormat::TorchAoti, path, perceptron())
        .err()
        .unwrap()
        .to_string()
}

#[test]
fn a_package_for_another_device_processor_or_libtorch_is_refused_before_it_is_opened() {
    let edited = |from: &'static str, to: &'static str| {
        move |name: &str, content: Vec<u8>| {
            if !name.ends_with("_metadata.json") {
                return Some(content);
            }
            let text = String::from_utf8(content).unwrap();
            assert!(text.contains(from), "{text}");
            Some(text.replace(from, to).into_bytes())
        }
    };
    let cases = [
        (
            "\"AOTI_DEVICE_KEY\": \"cpu\"",
            "\"AOTI_DEVICE_KEY\": \"cuda\"",
            "for the device cuda, and this is cpu",
        ),
        (
            "\"AOTI_CPU_ISA\": \"",
            "\"AOTI_CPU_ISA\": \"AVX1024 ",
            "processors with AVX1024",
        ),
        ("\"AOTI_MACHINE\": \"", "\"AOTI_MACHINE\": \"z", "the processor z"),
        ("\"torch_version\": \"2.11", "\"torch_version\": \"2.7", "libtorch 2.7"),
    ];
    for (from, to, text) in cases {
        let said = refused(&edited(from, to));
        assert!(said.contains(text), "{said}");
    }
    let said = refused(&|name, content| {
        Some(if name.ends_with(".so") {
            content[..2_000].to_vec()
        } else {
            content
        })
    });
    assert!(said.contains("library is damaged"), "{said}");
    let said = refused(&|name, content| {
        // A name that this libtorch does not have, in the place of one that it has.
        let (from, to) = (b"aoti_torch_empty_strided\0", b"aoti_torch_empty_futured\0");
        let mut content = content;
        if name.ends_with(".so") {
            let at = content.windows(from.len()).position(|window| window == from).unwrap();
            content[at..at + to.len()].copy_from_slice(to);
        }
        Some(content)
    });
    assert!(
        said.contains("another libtorch") && said.contains("aoti_torch_empty_futured"),
        "{said}"
    );
    let said = refused(&|name, content| (!name.ends_with(".cpp")).then_some(content));
    assert!(said.contains("holds no source"), "{said}");
    let said = refused(&|name, content| (!name.ends_with(".so")).then_some(content));
    assert!(said.contains("holds no compiled library"), "{said}");
}

#[test]
fn extents_that_a_package_was_not_compiled_for_are_refused_at_load_and_at_the_call() {
    let load = |config| load_as(ArtifactFormat::TorchAoti, made("perceptron", "pt2"), config);
    let text = |config| load(config).err().unwrap().to_string();
    let with = |dims: &[i64]| ModelConfig {
        input: vec![spec("x", DataType::Fp32, dims)],
        ..perceptron()
    };
    assert!(text(with(&[64])).contains("input 'x' has dims [64], the model takes [30]"));
    assert!(text(with(&[-1])).contains("the model takes [30]"));
    let rows = |max_batch_size| ModelConfig {
        max_batch_size,
        ..perceptron()
    };
    assert!(load(rows(1_024)).is_ok());
    assert!(text(rows(1_025)).contains("max_batch_size is 1025, but the model takes at most 1024 rows"));
    let fixed = config(
        vec![spec("x", DataType::Fp32, &[3])],
        vec![spec("y", DataType::Fp32, &[4])],
    );
    let said = load_as(ArtifactFormat::TorchAoti, made("turned", "pt2"), fixed)
        .err()
        .unwrap()
        .to_string();
    assert!(
        said.contains("exactly 4") && said.contains("dynamic batch dimension"),
        "{said}"
    );

    let config = perceptron();
    let mut model = load(config.clone()).unwrap();
    let data = numbers(2 * 31, 0.0);
    let batch = BatchInputs {
        rows: 2,
        inputs: vec![BatchInput {
            spec: &config.input[0],
            shape: Shape::from_slice(&[2, 31]),
            parts: vec![&data],
        }],
        parameters: None,
    };
    let error = model.execute(&batch).unwrap_err();
    assert!(matches!(error, BackendError::InvalidInput(_)), "{error}");
    let said = error.to_string();
    assert!(
        said.contains("'x' has the shape [2, 31], the package was compiled for [1 to 1024, 30]"),
        "{said}"
    );
    assert!(
        run(model.as_mut(), &config, 2, &[numbers(60, 0.0)]).is_ok(),
        "usable after that"
    );
}

#[test]
fn a_package_says_what_it_takes_without_being_run() {
    let found = signature(&made("nested", "pt2"), ArtifactFormat::TorchAoti).unwrap();
    assert_eq!(
        found.to_string(),
        "forward(INPUT__0: Tuple[Tensor FP32 [-1, 3], Tensor FP32 [-1, 3]], INPUT__1: {scale: Tensor FP32 [-1, 3], shift: \
         Tensor FP32 [-1, 3]}) -> {total: Tensor, shifted: Tensor}"
    );
    assert_eq!(found.max_rows, Some(1_024));
}

/// Memory of this process that is in use, in bytes.
fn resident() -> u64 {
    let text = std::fs::read_to_string("/proc/self/statm").unwrap();
    let pages: u64 = text.split_whitespace().nth(1).unwrap().parse().unwrap();
    pages * 4_096
}

#[test]
fn a_model_that_comes_and_goes_leaves_memory_as_it_was() {
    for (format, end) in KINDS {
        let wide = |name: &str| spec(name, DataType::Fp32, &[8_192]);
        let config = config(vec![wide("x")], vec![wide("y")]);
        let cycle = || {
            let mut model = load_as(format, made("wide", end), config.clone()).unwrap();
            run(model.as_mut(), &config, 2, &[raw(&vec![1.0; 2 * 8_192])]).unwrap();
        };
        (0..20).for_each(|_| cycle());
        let before = resident();
        (0..100).for_each(|_| cycle());
        let after = resident();
        assert!(after < before + before / 33, "{end}: {before} and then {after} bytes");
    }
}

fn unpacked() -> usize {
    let ours = |entry: &std::fs::DirEntry| entry.file_name().to_string_lossy().starts_with("mesh-pt2-");
    std::fs::read_dir(std::env::temp_dir())
        .unwrap()
        .flatten()
        .filter(ours)
        .count()
}

#[test]
fn nothing_stays_behind_of_what_was_unpacked() {
    // Other tests unpack meanwhile, so what is there at one moment says nothing; what stays does.
    for _ in 0..10 {
        let mut model = load_as(ArtifactFormat::TorchAoti, made("perceptron", "pt2"), perceptron()).unwrap();
        run(model.as_mut(), &perceptron(), 1, &[numbers(30, 0.0)]).unwrap();
        refused(&|name, content| {
            Some(if name.ends_with(".so") {
                content[..2_000].to_vec()
            } else {
                content
            })
        });
    }
    let began = std::time::Instant::now();
    while unpacked() > 4 {
        assert!(began.elapsed().as_secs() < 60, "{} folders are left", unpacked());
        std::thread::yield_now();
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 24, ..ProptestConfig::default() })]

    #[test]
    fn a_damaged_package_is_an_error_and_no_crash(at in 0usize..1_000_000, byte in 1u8.., cut in any::<bool>()) {
        let whole = std::fs::read(made("perceptron", "pt2")).unwrap();
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("damaged.pt2");
        let mut bytes = whole;
        let at = at % bytes.len();
        if cut { bytes.truncate(at) } else { bytes[at] ^= byte }
        std::fs::write(&path, bytes).unwrap();
        // A byte of the compiled code or of its weights may be any: only what can be known from outside is asked.
        let archive = package::signature(&path);
        prop_assert!(!cut || archive.is_err());
    }
}
