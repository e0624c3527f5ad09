//! What runs a model: `backend` and `platform` of its configuration, or the files that are there, said in the mesh's words.

use mesh_types::ArtifactFormat;

/// The built-in models of the mesh, whose names as `backend` stand for themselves.
pub(crate) const BUILTINS: &[&str] = &[
    "identity",
    "add_sub",
    "sequence",
    "sequence_sum",
    "sum_state",
    "join_state",
    "busy",
    "fail_on_negative",
    "panic_on_negative",
    "hang_on_negative",
    "nan_on_negative",
    "oom_above",
    "repeat_int32",
    "mock_llm",
    "echo_parameters",
];

/// Triton's backends that are a built-in model of another name here.
const CALLED_OTHERWISE: &[(&str, &str)] = &[("repeat", "repeat_int32")];

const EXPORT: &str = "export the model to TorchScript or .pt2";
const SCRIPT: &str = "no Python runs here: script the model as TorchScript, or put models together as an ensemble";
const OTHERS: &str = "the mesh runs pytorch (TorchScript), torch_aoti (.pt2), ensembles and its built-in models";

/// What to do about those that are often met.
const ADVICE: &[(&str, &str)] = &[
    ("onnxruntime", EXPORT),
    ("tensorrt", EXPORT),
    ("tensorflow", EXPORT),
    ("openvino", EXPORT),
    ("python", SCRIPT),
];

/// Files of other runtimes, by how their names end.
const FOREIGN_FILES: &[(&str, &str)] = &[
    (".onnx", "onnxruntime"),
    (".plan", "tensorrt"),
    (".graphdef", "tensorflow"),
    (".savedmodel", "tensorflow"),
    (".xml", "openvino"),
    (".py", "python"),
];

/// What runs a model.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Runtime {
    /// libtorch; the file says which of its two kinds it is. With the name that the file has by default.
    Torch(&'static str),
    /// One of the mesh's own; by its name, or by the parameter `builtin`.
    Builtin(Option<&'static str>),
    /// Other models.
    Ensemble,
}

impl Runtime {
    /// The format where no file says it.
    pub(crate) fn format(self) -> ArtifactFormat {
        match self {
            Self::Torch(PACKAGE) => ArtifactFormat::TorchAoti,
            Self::Torch(_) => ArtifactFormat::TorchScript,
            Self::Builtin(_) => ArtifactFormat::Builtin,
            Self::Ensemble => ArtifactFormat::Ensemble,
        }
    }
}

/// What a TorchScript file is called.
pub(crate) const SCRIPTED: &str = "model.pt";
/// What a package of AOTInductor is called.
pub(crate) const PACKAGE: &str = "model.pt2";

/// Something that is not run here.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Foreign {
    /// The field that says it.
    pub(crate) field: &'static str,
    /// What is the case.
    pub(crate) what: String,
    /// What to do.
    pub(crate) right: &'static str,
}

/// What the configuration says; none where it says nothing.
pub(crate) fn said(backend: &str, platform: &str) -> Result<Option<Runtime>, Foreign> {
    let by_platform = match platform {
        "" => None,
        "pytorch_libtorch" => Some(Runtime::Torch(SCRIPTED)),
        "torch_aoti" => Some(Runtime::Torch(PACKAGE)),
        "ensemble" => Some(Runtime::Ensemble),
        "mesh_builtin" => Some(Runtime::Builtin(None)),
        other => return Err(foreign("platform", other)),
    };
    let by_backend = match backend {
        "" => None,
        "pytorch" => Some(Runtime::Torch(SCRIPTED)),
        "ensemble" => Some(Runtime::Ensemble),
        "mesh_builtin" => Some(Runtime::Builtin(None)),
        other => {
            let renamed = CALLED_OTHERWISE.iter().find(|(name, _)| *name == other);
            let other = renamed.map_or(other, |(_, name)| name);
            match BUILTINS.iter().find(|name| **name == other) {
                Some(name) => Some(Runtime::Builtin(Some(name))),
                None => return Err(foreign("backend", other)),
            }
        }
    };
    match (by_backend, by_platform) {
        // Beside `pytorch` the platform says which kind of file it is.
        (Some(Runtime::Torch(_)), Some(Runtime::Torch(file))) => Ok(Some(Runtime::Torch(file))),
        (Some(one), Some(other)) if one != other => Err(Foreign {
            field: "platform",
            what: format!("platform '{platform}' is not one of backend '{backend}'"),
            right: "leave one of the two out",
        }),
        (one, other) => Ok(one.or(other)),
    }
}

/// What the files of a version say; none where nothing is known of them.
pub(crate) fn by_files(files: &[String]) -> Result<Option<Runtime>, Foreign> {
    let has = |name: &str| files.iter().any(|file| file == name);
    if has(SCRIPTED) {
        return Ok(Some(Runtime::Torch(SCRIPTED)));
    }
    if has(PACKAGE) {
        return Ok(Some(Runtime::Torch(PACKAGE)));
    }
    let other = files.iter().find_map(|file| {
        let (_, runtime) = FOREIGN_FILES.iter().find(|(end, _)| file.ends_with(end))?;
        Some((file, *runtime))
    });
    match other {
        Some((file, runtime)) => Err(Foreign {
            what: format!("{file} is a file of backend '{runtime}', which is not supported"),
            ..foreign("backend", runtime)
        }),
        None => Ok(None),
    }
}

fn foreign(field: &'static str, name: &str) -> Foreign {
    let advice = ADVICE.iter().find(|(known, _)| name.starts_with(known));
    let shown: String = name.chars().take(60).collect();
    Foreign {
        field,
        what: format!("{field} '{shown}' is not supported"),
        right: advice.map_or(OTHERS, |(_, right)| right),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use mesh_backend::{Backend as _, LoadSpec};
    use mesh_backend_builtin::BuiltinBackend;
    use mesh_types::{DeviceId, ModelConfig, ModelId, ModelVersionKey, ParameterValue, TenantId, Version};

    use super::*;

    #[test]
    fn backend_and_platform_say_the_same_thing_in_many_ways() {
        let torch = Ok(Some(Runtime::Torch(SCRIPTED)));
        assert_eq!(said("pytorch", ""), torch);
        assert_eq!(said("", "pytorch_libtorch"), torch);
        assert_eq!(said("pytorch", "pytorch_libtorch"), torch);
        assert_eq!(said("pytorch", "torch_aoti"), Ok(Some(Runtime::Torch(PACKAGE))));
        assert_eq!(said("", "torch_aoti"), Ok(Some(Runtime::Torch(PACKAGE))));
        assert_eq!(said("", "ensemble"), Ok(Some(Runtime::Ensemble)));
        assert_eq!(said("identity", ""), Ok(Some(Runtime::Builtin(Some("identity")))));
        assert_eq!(said("repeat", ""), Ok(Some(Runtime::Builtin(Some("repeat_int32")))));
        assert_eq!(said("", ""), Ok(None));
        assert_eq!(said("pytorch", "ensemble").unwrap_err().field, "platform");
    }

    #[test]
    fn what_is_not_run_here_is_named_with_what_to_do() {
        let refused = said("onnxruntime", "").unwrap_err();
        assert_eq!(refused.what, "backend 'onnxruntime' is not supported");
        assert_eq!(refused.right, EXPORT);
        assert_eq!(said("", "onnxruntime_onnx").unwrap_err().right, EXPORT);
        assert_eq!(said("", "tensorrt_plan").unwrap_err().right, EXPORT);
        assert_eq!(said("python", "").unwrap_err().right, SCRIPT);
        assert_eq!(said("dali", "").unwrap_err().right, OTHERS);
        let files = |names: &[&str]| by_files(&names.iter().map(|name| (*name).to_owned()).collect::<Vec<_>>());
        assert_eq!(files(&["model.pt2"]), Ok(Some(Runtime::Torch(PACKAGE))));
        assert_eq!(files(&["model.pt", "x.txt"]), Ok(Some(Runtime::Torch(SCRIPTED))));
        assert!(files(&["model.onnx"]).unwrap_err().what.contains("'onnxruntime'"));
        assert_eq!(files(&[]), Ok(None));
    }

    #[test]
    fn the_built_in_models_named_here_are_those_that_there_are() {
        let parameters = [("builtin".to_owned(), ParameterValue::String("none".into()))];
        let config = ModelConfig {
            parameters: parameters.into_iter().collect(),
            ..ModelConfig::default()
        };
        let spec = LoadSpec {
            key: ModelVersionKey {
                tenant: TenantId::parse("t").unwrap(),
                model: ModelId::parse("m").unwrap(),
                version: Version::FIRST,
            },
            config: Arc::new(config),
            artifact: None,
            format: ArtifactFormat::Builtin,
        };
        let refused = BuiltinBackend::new()
            .load(&spec, DeviceId::cpu(0))
            .err()
            .unwrap()
            .to_string();
        let (_, listed) = refused.split_once("is one of ").unwrap();
        let mut listed: Vec<&str> = listed.split(", ").collect();
        let mut named = BUILTINS.to_vec();
        listed.sort_unstable();
        named.sort_unstable();
        assert_eq!(named, listed);
    }
}
