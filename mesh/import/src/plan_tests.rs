//! Repositories on disk, and what they come to.

use std::fs;

use mesh_backend::{Argument, Signature, ValueType};
use mesh_types::DataType;
use tempfile::TempDir;

use super::*;

struct Repository(TempDir);

impl Repository {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn with(self, name: &str, bytes: impl AsRef<[u8]>) -> Self {
        let path = self.0.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, bytes).unwrap();
        self
    }

    fn plan(&self) -> Plan {
        plan(self.0.path(), &[], &unreadable).unwrap()
    }
}

fn unreadable(_: &Path, _: ArtifactFormat) -> Result<Signature, String> {
    Err("it cannot be read".to_owned())
}

fn names(plan: &Plan) -> Vec<&str> {
    plan.models.iter().map(|model| model.name.as_str()).collect()
}

fn said(plan: &Plan) -> Vec<String> {
    plan.notes.iter().map(ToString::to_string).collect()
}

const TENSORS: &str =
    "input { name: 'x' data_type: TYPE_FP32 dims: -1 } output { name: 'y' data_type: TYPE_FP32 dims: -1 }";

fn config(text: &str) -> String {
    format!("{TENSORS} {text}")
}

fn ensemble(step: &str) -> String {
    let maps = "input_map { key: 'x' value: 'x' } output_map { key: 'y' value: 'y' }";
    config(&format!(
        "platform: 'ensemble' ensemble_scheduling {{ step {{ model_name: '{step}' {maps} }} }}"
    ))
}

#[test]
fn versions_have_their_files_digests_and_the_models_configuration() {
    let repository = Repository::new()
        .with("scale/config.pbtxt", config("backend: 'pytorch'"))
        .with("scale/1/model.pt", "one")
        .with("scale/3/model.pt", "three")
        .with("scale/3/notes.txt", "x");
    let plan = repository.plan();
    assert!(plan.skipped.is_empty() && plan.notes.is_empty(), "{:?}", plan.notes);
    let versions = &plan.models[0].versions;
    let numbers: Vec<u32> = versions.iter().map(|version| version.number.get()).collect();
    assert_eq!(numbers, [1, 3]);
    assert_eq!(versions[1].spec.format, ArtifactFormat::TorchScript);
    assert_eq!(versions[1].spec.artifact.as_ref().unwrap().bytes, 5);
    assert_ne!(versions[0].spec.artifact, versions[1].spec.artifact);
    assert_eq!(versions[0].spec.config, versions[1].spec.config);
}

#[test]
fn the_file_is_the_named_one_or_the_usual_of_either_kind() {
    let repository = Repository::new()
        .with(
            "named/config.pbtxt",
            config("backend: 'pytorch' default_model_filename: 'net.bin'"),
        )
        .with("named/1/net.bin", "x")
        .with("package/config.pbtxt", config("backend: 'pytorch'"))
        .with("package/1/model.pt2", "x")
        .with("silent/config.pbtxt", config(""))
        .with("silent/1/model.pt", "x")
        .with(
            "away/config.pbtxt",
            config("backend: 'pytorch' default_model_filename: '../../secret'"),
        )
        .with("away/1/model.pt", "x")
        .with("bare/config.pbtxt", config("platform: 'torch_aoti'"))
        .with("bare/1/readme", "x");
    let plan = repository.plan();
    assert_eq!(names(&plan), ["named", "package", "silent"]);
    assert_eq!(plan.models[0].versions[0].spec.format, ArtifactFormat::TorchScript);
    assert_eq!(plan.models[1].versions[0].spec.format, ArtifactFormat::TorchAoti);
    let said = said(&plan);
    assert!(
        said[0].contains("away: default_model_filename is no file's name (config.pbtxt:1)"),
        "{said:?}"
    );
    assert!(
        said[1].contains("bare: 1/model.pt2 cannot be read (1/model.pt2)"),
        "{said:?}"
    );
}

#[test]
fn what_is_not_supported_is_skipped_and_the_rest_stays() {
    let repository = Repository::new()
        .with("good/config.pbtxt", config("backend: 'identity'"))
        .with("good/1/.keep", "")
        .with(
            "densenet_onnx/config.pbtxt",
            "name: \"densenet_onnx\"\nplatform: \"onnxruntime_onnx\"\n",
        )
        .with("densenet_onnx/1/model.onnx", "x")
        .with("bare_onnx/1/model.onnx", "x")
        .with("Upper/1/model.pt", "x")
        .with("empty/notes", "x")
        .with("unversioned/config.pbtxt", config("backend: 'identity'"))
        .with("dark/config.pbtxt", config(""))
        .with("dark/1/x", "x");
    let plan = repository.plan();
    assert_eq!(names(&plan), ["good"]);
    let skipped: Vec<_> = plan.skipped.iter().map(String::as_str).collect();
    assert_eq!(
        skipped,
        ["Upper", "bare_onnx", "dark", "densenet_onnx", "empty", "unversioned"]
    );
    let said = said(&plan);
    for part in [
        "densenet_onnx: platform 'onnxruntime_onnx' is not supported (config.pbtxt:2): export the model to TorchScript or .pt2",
        "bare_onnx: model.onnx is a file of backend 'onnxruntime', which is not supported: export",
        "Upper: the folder's name is no model's name: invalid model name 'Upper'",
        "empty: the folder is no model: a model has config.pbtxt and a folder named 1",
        "unversioned: there is no version: make a folder named 1",
        "dark: nothing says what runs it: write backend",
    ] {
        assert!(said.iter().any(|said| said.starts_with(part)), "{part} in {said:#?}");
    }
}

#[test]
fn ensembles_come_behind_their_steps_and_go_with_them() {
    let repository = Repository::new()
        .with("a_outer/config.pbtxt", ensemble("b_inner"))
        .with("a_outer/1/.keep", "")
        .with("b_inner/config.pbtxt", ensemble("c_echo"))
        .with("b_inner/1/.keep", "")
        .with("c_echo/config.pbtxt", config("backend: 'identity'"))
        .with("c_echo/1/.keep", "")
        .with("d_lost/config.pbtxt", ensemble("e_lost"))
        .with("d_lost/1/.keep", "")
        .with("e_lost/config.pbtxt", ensemble("f_python"))
        .with("e_lost/1/.keep", "")
        .with("f_python/config.pbtxt", config("backend: 'python'"))
        .with("f_python/1/model.py", "")
        .with("g_foreign/config.pbtxt", ensemble("granted"))
        .with("g_foreign/1/.keep", "")
        .with("h_ring/config.pbtxt", ensemble("h_ring"))
        .with("h_ring/1/.keep", "");
    let plan = repository.plan();
    assert_eq!(names(&plan), ["c_echo", "g_foreign", "b_inner", "a_outer", "h_ring"]);
    let said = said(&plan);
    assert!(
        said.iter()
            .any(|said| said == "d_lost: a step's model 'e_lost' is skipped: see there"),
        "{said:?}"
    );
}

#[test]
fn some_can_be_named_and_one_that_is_not_there_is_told() {
    let repository = Repository::new()
        .with("a/config.pbtxt", config("backend: 'identity'"))
        .with("a/1/.keep", "")
        .with("b/config.pbtxt", "nonsense");
    let only = ["a".to_owned(), "c".to_owned()];
    let plan = plan(repository.0.path(), &only, &unreadable).unwrap();
    assert_eq!(names(&plan), ["a"]);
    assert_eq!(
        said(&plan),
        ["c: there is no such folder in the repository: see what is there, or leave --model out"]
    );
}

#[test]
fn a_model_without_a_configuration_is_completed_by_its_newest_file_or_told_what_to_write() {
    let repository = Repository::new().with("m/1/model.pt2", "x").with("m/2/model.pt2", "x");
    let known = |dims: &[i64]| ValueType::Tensor {
        datatype: Some(DataType::Fp32),
        dims: Some(dims.to_vec()),
    };
    let reader = |path: &Path, format: ArtifactFormat| {
        assert!(path.ends_with("2/model.pt2") && format == ArtifactFormat::TorchAoti);
        Ok(Signature {
            arguments: vec![Argument {
                name: "pixels".into(),
                value: known(&[-1, 64]),
                default: None,
            }],
            result: known(&[-1, 10]),
            max_rows: Some(4),
        })
    };
    let whole = plan(repository.0.path(), &[], &reader).unwrap();
    let config = &whole.models[0].versions[0].spec.config;
    assert_eq!((config.max_batch_size, config.input[0].name.as_str()), (4, "pixels"));
    let script = Repository::new().with("m/1/model.pt", "x");
    let reader = |_: &Path, _: ArtifactFormat| {
        Ok(Signature {
            arguments: vec![Argument {
                name: "x".into(),
                value: ValueType::tensor(),
                default: None,
            }],
            result: ValueType::tensor(),
            max_rows: None,
        })
    };
    let partly = plan(script.0.path(), &[], &reader).unwrap();
    assert!(partly.models.is_empty());
    let said = said(&partly);
    assert!(
        said[0].starts_with("m: it has no configuration, and its file does not say enough (config.pbtxt): write max_batch_size: 8 input [ { name: \"x\""),
        "{said:?}"
    );
    assert!(script.plan().notes[0].to_string().ends_with("it cannot be read"));
}

#[test]
fn a_policy_names_versions_that_there_are() {
    let text = config("backend: 'identity' version_policy { specific { versions: [ 1, 4 ] } }");
    let repository = Repository::new().with("m/config.pbtxt", text).with("m/1/.keep", "");
    assert_eq!(
        said(&repository.plan()),
        ["m: version_policy names version 4 (config.pbtxt:1): there is no such folder"]
    );
    assert!(matches!(
        repository.with("m/4/.keep", "").plan().models[0].policy,
        VersionPolicy::Specific { .. }
    ));
}

#[test]
fn a_repository_that_is_not_there_is_an_error() {
    assert!(plan(Path::new("/nonexistent"), &[], &unreadable).is_err());
}
