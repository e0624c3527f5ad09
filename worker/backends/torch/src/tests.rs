//! Real TorchScript, written by tracing, run through the contract.

use std::{path::PathBuf, sync::Arc};

use mesh_backend::{BatchInput, BatchInputs};
use mesh_types::{DataType, ModelConfig, ModelId, ModelVersionKey, Shape, TenantId, TensorSpec, Version};
use tch::{CModule, Device, Kind, Tensor};
use tempfile::TempDir;

use super::*;
use crate::module::CODE_BYTES;

pub(crate) fn spec(name: &str, datatype: DataType, dims: &[i64]) -> TensorSpec {
    TensorSpec::new(name, datatype, dims)
}

pub(crate) fn load_spec(artifact: Option<PathBuf>, config: ModelConfig) -> LoadSpec {
    let key = ModelVersionKey {
        tenant: TenantId::parse("t").unwrap(),
        model: ModelId::parse("m").unwrap(),
        version: Version::FIRST,
    };
    LoadSpec {
        key,
        config: Arc::new(config),
        artifact,
        format: ArtifactFormat::TorchScript,
    }
}

/// The same of another kind of file.
pub(crate) fn load_as(
    format: ArtifactFormat,
    artifact: PathBuf,
    config: ModelConfig,
) -> Result<Box<dyn LoadedModel>, BackendError> {
    let spec = LoadSpec {
        format,
        ..load_spec(Some(artifact), config)
    };
    TorchBackend::new(TorchOptions::default()).load(&spec, DeviceId::cpu(0))
}

pub(crate) fn load(artifact: Option<PathBuf>, config: ModelConfig) -> Result<Box<dyn LoadedModel>, BackendError> {
    TorchBackend::new(TorchOptions::default()).load(&load_spec(artifact, config), DeviceId::cpu(0))
}

/// A traced model on disk.
pub(crate) fn traced(inputs: &[Tensor], closure: &mut dyn FnMut(&[Tensor]) -> Vec<Tensor>) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pt");
    let mut closure = |tensors: &[Tensor]| closure(tensors);
    CModule::create_by_tracing("Model", "forward", inputs, &mut closure)
        .unwrap()
        .save(&path)
        .unwrap();
    (folder, path)
}

pub(crate) fn floats(bytes: &[u8]) -> Vec<f32> {
    bytes
        .chunks_exact(4)
        .map(|chunk| f32::from_le_bytes(chunk.try_into().unwrap()))
        .collect()
}

pub(crate) fn raw(values: &[f32]) -> Vec<u8> {
    values.iter().flat_map(|value| value.to_le_bytes()).collect()
}

fn add_sub_config() -> ModelConfig {
    ModelConfig {
        max_batch_size: 8,
        input: vec![spec("a", DataType::Fp32, &[2]), spec("b", DataType::Fp32, &[2])],
        output: vec![
            spec("sum", DataType::Fp32, &[2]),
            spec("difference", DataType::Fp32, &[2]),
        ],
        ..ModelConfig::default()
    }
}

/// Tracing writes models with one result only: this one's code is written again inside its archive.
fn add_sub() -> (TempDir, PathBuf) {
    let example = || Tensor::ones([2, 2], (Kind::Float, Device::Cpu));
    add_sub_with(
        &[example(), example()],
        "    return (torch.add(a, b), torch.sub(a, b))\n",
    )
}

/// A model of one argument `a`, which holds a constant of sevens, or of two with `b`; the code's lines return two results.
pub(crate) fn add_sub_with(inputs: &[Tensor], lines: &str) -> (TempDir, PathBuf) {
    let sevens = inputs[0].ones_like() * 7.0;
    let (folder, path) = traced(inputs, &mut |inputs| match inputs {
        [a, b] => vec![a + b],
        _ => vec![&inputs[0] * &sevens],
    });
    let arguments = if inputs.len() == 2 {
        "a: Tensor, b: Tensor"
    } else {
        "a: Tensor"
    };
    let rewritten = rewrite(
        &folder,
        &path,
        &format!("{arguments}) -> Tuple[Tensor, Tensor]:\n{lines}"),
    );
    (folder, rewritten)
}

/// A module without weights, whose forward takes, gives and does what is written.
pub(crate) fn scripted(arguments: &str, result: &str, lines: &str) -> (TempDir, PathBuf) {
    let example = [Tensor::ones([2, 2], (Kind::Float, Device::Cpu))];
    let (folder, path) = traced(&example, &mut |inputs| vec![inputs[0].alias_copy()]);
    let rewritten = rewrite(&folder, &path, &format!("{arguments}) -> {result}:\n{lines}"));
    (folder, rewritten)
}

/// Writes the code of a module's forward again, from its arguments on.
fn rewrite(folder: &TempDir, path: &Path, forward: &str) -> PathBuf {
    let code = format!(
        "class Model(Module):\n  __parameters__ = []\n  __buffers__ = []\n  def forward(self: __torch__.Model, {forward}"
    );
    let mut archive = zip::ZipArchive::new(std::fs::File::open(path).unwrap()).unwrap();
    let rewritten = folder.path().join("rewritten.pt");
    let mut writer = zip::ZipWriter::new(std::fs::File::create(&rewritten).unwrap());
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index).unwrap();
        let (name, mut content) = (entry.name().to_owned(), Vec::new());
        std::io::Read::read_to_end(&mut entry, &mut content).unwrap();
        if name.ends_with(".debug_pkl") {
            continue;
        }
        writer.start_file(&name, options).unwrap();
        let content = if name.ends_with(".py") {
            code.as_bytes()
        } else {
            &content
        };
        std::io::Write::write_all(&mut writer, content).unwrap();
    }
    writer.finish().unwrap();
    rewritten
}

#[test]
fn two_requests_in_one_batch_are_gathered_and_computed() {
    let (_folder, path) = add_sub();
    let config = add_sub_config();
    let mut model = load(Some(path), config.clone()).unwrap();
    let (a1, a2, b) = (
        raw(&[1.0, 2.0]),
        raw(&[3.0, 4.0, 5.0, 6.0]),
        raw(&[10.0, 20.0, 30.0, 40.0, 50.0, 60.0]),
    );
    let shape = || Shape::from_slice(&[3, 2]);
    let inputs = vec![
        BatchInput {
            spec: &config.input[0],
            shape: shape(),
            parts: vec![&a1, &a2],
        },
        BatchInput {
            spec: &config.input[1],
            shape: shape(),
            parts: vec![&b],
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
    assert_eq!(&*outputs[0].name, "sum");
    assert_eq!(floats(&outputs[0].data), [11.0, 22.0, 33.0, 44.0, 55.0, 66.0]);
    assert_eq!(floats(&outputs[1].data), [-9.0, -18.0, -27.0, -36.0, -45.0, -54.0]);
    assert_eq!(outputs[1].shape.as_slice(), [3, 2]);
}

#[test]
fn indices_in_names_place_inputs_and_outputs() {
    let (_folder, path) = add_sub();
    let mut config = add_sub_config();
    (config.input[0].name, config.input[1].name) = ("INPUT__1".into(), "INPUT__0".into());
    (config.output[0].name, config.output[1].name) = ("OUTPUT__1".into(), "OUTPUT__0".into());
    let mut model = load(Some(path), config.clone()).unwrap();
    let (second, first) = (raw(&[1.0, 1.0]), raw(&[5.0, 7.0]));
    let shape = || Shape::from_slice(&[1, 2]);
    let inputs = vec![
        BatchInput {
            spec: &config.input[0],
            shape: shape(),
            parts: vec![&second],
        },
        BatchInput {
            spec: &config.input[1],
            shape: shape(),
            parts: vec![&first],
        },
    ];
    let outputs = model
        .execute(&BatchInputs {
            rows: 1,
            inputs,
            parameters: None,
        })
        .unwrap()
        .outputs;
    assert_eq!(
        (&*outputs[0].name, floats(&outputs[0].data)),
        ("OUTPUT__1", vec![4.0, 6.0])
    );
    assert_eq!(
        (&*outputs[1].name, floats(&outputs[1].data)),
        ("OUTPUT__0", vec![6.0, 8.0])
    );
}

fn one_input(closure: &mut dyn FnMut(&[Tensor]) -> Vec<Tensor>, output: TensorSpec) -> Result<Vec<f32>, BackendError> {
    let (_folder, path) = traced(&[Tensor::ones([2, 2], (Kind::Float, Device::Cpu))], closure);
    let config = ModelConfig {
        max_batch_size: 8,
        input: vec![spec("x", DataType::Fp32, &[-1])],
        output: vec![output],
        ..ModelConfig::default()
    };
    let mut model = load(Some(path), config.clone())?;
    let data = raw(&[1.0, 2.0, 3.0]);
    let inputs = vec![BatchInput {
        spec: &config.input[0],
        shape: Shape::from_slice(&[1, 3]),
        parts: vec![&data],
    }];
    let outputs = model
        .execute(&BatchInputs {
            rows: 1,
            inputs,
            parameters: None,
        })?
        .outputs;
    Ok(floats(&outputs[0].data))
}

#[test]
fn a_libtorch_exception_is_an_error_without_paths_and_the_thread_lives_on() {
    let weight = Tensor::ones([2, 4], (Kind::Float, Device::Cpu));
    let output = spec("y", DataType::Fp32, &[4]);
    let error = one_input(&mut |inputs| vec![inputs[0].matmul(&weight)], output).unwrap_err();
    let text = error.to_string();
    assert!(matches!(error, BackendError::Execution(_)), "{text}");
    assert!(text.contains("shapes cannot be multiplied"), "{text}");
    assert!(!text.contains(".cpp") && !text.contains('\n'), "{text}");
    assert_eq!(
        one_input(&mut |inputs| vec![&inputs[0] * 2.0], spec("y", DataType::Fp32, &[-1])).unwrap(),
        [2.0, 4.0, 6.0]
    );
}

#[test]
fn outputs_of_another_type_shape_or_row_count_are_named() {
    type Model = fn(&Tensor) -> Tensor;
    let cases: [(&str, TensorSpec, Model); 3] = [
        ("'y' is Float, expected INT64", spec("y", DataType::Int64, &[-1]), |x| {
            x * 2.0
        }),
        (
            "'y' has shape [1, 3], expected [-1, 5]",
            spec("y", DataType::Fp32, &[5]),
            |x| x * 2.0,
        ),
        (
            "'y' has 2 rows for a batch of 1",
            spec("y", DataType::Fp32, &[-1]),
            |x| Tensor::cat(&[x, x], 0),
        ),
    ];
    for (text, output, model) in cases {
        let error = one_input(&mut |inputs| vec![model(&inputs[0])], output).unwrap_err();
        assert!(matches!(error, BackendError::Output(_)), "{error}");
        assert!(error.to_string().contains(text), "{error}");
    }
}

#[test]
fn a_model_that_returns_too_few_tensors_is_refused_at_load() {
    let (_folder, path) = traced(&[Tensor::ones([1, 2], (Kind::Float, Device::Cpu))], &mut |inputs| {
        vec![&inputs[0] * 2.0]
    });
    let config = ModelConfig {
        input: add_sub_config().input[..1].to_vec(),
        ..add_sub_config()
    };
    let error = load(Some(path), config).err().unwrap().to_string();
    assert!(
        error.contains("returns 1 tensor, the configuration has 2 outputs"),
        "{error}"
    );
}

#[test]
fn files_that_are_no_torchscript_and_types_it_lacks_are_refused_at_load() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pt");
    std::fs::write(&path, b"not a model").unwrap();
    let text = load(Some(path.clone()), add_sub_config()).err().unwrap().to_string();
    assert!(text.contains("not a TorchScript archive"), "{text}");
    let missing = load(None, add_sub_config()).err().unwrap();
    assert!(matches!(missing, BackendError::Load(_)));
    let mut strings = add_sub_config();
    strings.input[0].datatype = DataType::Bytes;
    assert!(matches!(
        load(Some(path), strings).err().unwrap(),
        BackendError::Unsupported(_)
    ));
}

#[test]
fn every_supported_element_type_goes_through_unchanged() {
    let all = DataType::ALL
        .into_iter()
        .filter_map(|datatype| element::kind_of(datatype).ok().map(|kind| (datatype, kind)));
    for (datatype, kind) in all {
        let example = [Tensor::zeros([2, 2], (kind, Device::Cpu))];
        let (_folder, path) = traced(&example, &mut |inputs| vec![inputs[0].alias_copy()]);
        let config = ModelConfig {
            max_batch_size: 4,
            input: vec![spec("x", datatype, &[2])],
            output: vec![spec("y", datatype, &[2])],
            ..ModelConfig::default()
        };
        let mut model = load(Some(path), config.clone()).unwrap();
        let data: Vec<u8> = (0..2 * datatype.element_bytes().unwrap())
            .map(|byte| u8::from(byte % 2 == 0))
            .collect();
        let inputs = vec![BatchInput {
            spec: &config.input[0],
            shape: Shape::from_slice(&[1, 2]),
            parts: vec![&data],
        }];
        let outputs = model
            .execute(&BatchInputs {
                rows: 1,
                inputs,
                parameters: None,
            })
            .unwrap()
            .outputs;
        assert_eq!(outputs[0].data, data, "{datatype}");
    }
}

#[test]
fn memory_is_what_loading_took_also_of_constants_and_an_executions_peak_is_measured() {
    let weight = Tensor::ones([256, 512], (Kind::Float, Device::Cpu));
    let example = [Tensor::ones([2, 256], (Kind::Float, Device::Cpu))];
    let (_folder, path) = traced(&example, &mut |inputs| vec![inputs[0].matmul(&weight)]);
    let config = ModelConfig {
        max_batch_size: 8,
        input: vec![spec("x", DataType::Fp32, &[256])],
        output: vec![spec("y", DataType::Fp32, &[512])],
        ..ModelConfig::default()
    };
    let mut model = load(Some(path), config.clone()).unwrap();
    let weights = 256 * 512 * 4;
    let held = model.memory_bytes();
    assert!(
        (weights + CODE_BYTES..weights + CODE_BYTES + 64 * 1024).contains(&held),
        "{held} for weights of {weights}"
    );
    assert!(model.report().runtime.starts_with("libtorch"));
    let data = raw(&vec![1.0; 8 * 256]);
    let batch = BatchInputs {
        rows: 8,
        inputs: vec![BatchInput {
            spec: &config.input[0],
            shape: Shape::from_slice(&[8, 256]),
            parts: vec![&data],
        }],
        parameters: None,
    };
    for _ in 0..4 {
        let (outputs, peak) = model.execute_measured(&batch).unwrap();
        assert_eq!(outputs.outputs[0].shape.as_slice(), [8, 512]);
        let (least, peak) = (8 * (256 + 512) * 4, peak.unwrap());
        assert!((least..least + 1_000_000).contains(&peak), "{peak}");
    }
}

#[test]
fn the_workspace_of_libtorchs_mathematics_counts_with_each_run_however_many_ran_before() {
    // Before anything runs, as in the program.
    let backend = TorchBackend::new(TorchOptions::default());
    backend.enter_thread();
    let (rows, side) = (512, 1_024);
    let weight = Tensor::ones([side, side], (Kind::Float, Device::Cpu));
    let example = [Tensor::ones([2, side], (Kind::Float, Device::Cpu))];
    let (_folder, path) = traced(&example, &mut |inputs| vec![inputs[0].matmul(&weight)]);
    let config = ModelConfig {
        max_batch_size: rows,
        input: vec![spec("x", DataType::Fp32, &[side])],
        output: vec![spec("y", DataType::Fp32, &[side])],
        ..ModelConfig::default()
    };
    let spec = load_spec(Some(path), config.clone());
    let mut model = backend.load(&spec, DeviceId::cpu(0)).unwrap();
    let numbers = usize::try_from(i64::from(rows) * side).unwrap();
    let data = raw(&vec![1.0; numbers]);
    let batch = BatchInputs {
        rows,
        inputs: vec![BatchInput {
            spec: &config.input[0],
            shape: Shape::from_slice(&[u64::from(rows), 1_024]),
            parts: vec![&data],
        }],
        parameters: None,
    };
    drop(model.execute(&batch).unwrap());
    let before = host_heap();
    for _ in 0..3 {
        drop(model.execute(&batch).unwrap());
        let (outputs, peak) = model.execute_measured(&batch).unwrap();
        let (tensors, peak) = (2 * numbers as u64 * 4, peak.unwrap());
        drop(outputs);
        // What the thread keeps of it afterwards is what it was counted for.
        let kept = before.zip(host_heap()).map(|(_, with)| {
            shim::release_workspace(shim::Whose::All);
            with.in_use.saturating_sub(host_heap().unwrap().in_use)
        });
        let kept = kept.unwrap_or(0);
        let counted = peak - tensors;
        assert!(
            counted + 100_000 >= kept,
            "{counted} bytes are counted, and {kept} are kept"
        );
        assert!(
            counted < kept + 1_000_000,
            "{counted} bytes are counted, and {kept} are kept"
        );
        if cfg!(target_arch = "x86_64") {
            assert!(
                kept > 1_000_000,
                "{kept}: libtorch's mathematics has packed nothing, and this shows nothing"
            );
        }
    }
}

#[test]
fn workspace_that_is_given_back_beside_runs_spoils_none() {
    let stop = std::sync::atomic::AtomicBool::new(false);
    let _backend = TorchBackend::new(TorchOptions::default());
    std::thread::scope(|scope| {
        let run = |factor: i64| {
            tch::set_num_threads(1);
            let weight = Tensor::eye(512, (Kind::Float, Device::Cpu)) * factor;
            let x = Tensor::ones([500, 512], (Kind::Float, Device::Cpu));
            for _ in 0..100 {
                assert_eq!(
                    x.matmul(&weight).sum(Kind::Double).double_value(&[]),
                    (500 * 512 * factor) as f64
                );
            }
        };
        let runs = [2, 3].map(|factor| scope.spawn(move || run(factor)));
        scope.spawn(|| {
            while !stop.load(std::sync::atomic::Ordering::Acquire) {
                shim::release_workspace(shim::Whose::All);
                std::thread::yield_now();
            }
        });
        let ended = runs.map(std::thread::ScopedJoinHandle::join);
        stop.store(true, std::sync::atomic::Ordering::Release);
        assert!(ended.iter().all(Result::is_ok));
    });
}

/// What models of a few kinds have of the C library's memory, beyond their tensors, once they have run.
#[test]
fn what_a_models_code_takes_is_counted_about_as_it_is() {
    const COPIES: u64 = 8;
    let backend = TorchBackend::new(TorchOptions::default());
    let wide = (Kind::Float, Device::Cpu);
    for layers in [1, 4, 16] {
        let weights: Vec<Tensor> = (0..layers).map(|_| Tensor::ones([64, 64], wide)).collect();
        let (_folder, path) = traced(&[Tensor::ones([2, 64], wide)], &mut |inputs| {
            let through = |x: Tensor, weight: &Tensor| x.matmul(weight).relu() * 0.5;
            vec![weights.iter().fold(inputs[0].shallow_clone(), through)]
        });
        let config = ModelConfig {
            max_batch_size: 8,
            input: vec![spec("x", DataType::Fp32, &[64])],
            output: vec![spec("y", DataType::Fp32, &[64])],
            ..ModelConfig::default()
        };
        let spec = load_spec(Some(path), config.clone());
        let warm = || {
            let mut model = backend.load(&spec, DeviceId::cpu(0)).unwrap();
            for rows in [1, 2, 8, 8, 8] {
                let data = raw(&vec![1.0; rows * 64]);
                let input = BatchInput {
                    spec: &config.input[0],
                    shape: Shape::from_slice(&[rows as u64, 64]),
                    parts: vec![&data],
                };
                let batch = BatchInputs {
                    rows: u32::try_from(rows).unwrap(),
                    inputs: vec![input],
                    parameters: None,
                };
                drop(model.execute(&batch).unwrap());
            }
            model
        };
        // What is there once for all models.
        drop(warm());
        let Some(before) = host_heap() else { return };
        let models: Vec<_> = (0..COPIES).map(|_| warm()).collect();
        let taken = (host_heap().unwrap().in_use - before.in_use) / COPIES;
        let counted = models[0].memory_bytes();
        assert!(
            taken / 2 < counted && counted < taken * 2,
            "{layers} layers: {taken} bytes are taken and {counted} counted"
        );
        println!("{layers} layers: {taken} bytes are taken and {counted} counted");
    }
}
