//! The settings of whose models are taken: signers, and versions of libtorch; of what they may see; and the runtimes that they are
//! loaded by.

use std::{path::Path, sync::Arc};

use clap::Args;
use mesh_backend::Backend;
use mesh_backend_builtin::BuiltinBackend;
use mesh_policies::PublicKey;
use mesh_resources::MAX_SIGNERS;
use serde::Deserialize;

use crate::{NodeConfig, Text};

/// What can be said of it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Args, Deserialize)]
#[serde(default)]
pub struct CodeOptions {
    /// Take model versions with a file only with a signature by one of these keys, for all tenants; with commas between them,
    /// as `mesh model keygen` prints them. [default: none is needed]
    #[arg(long, env = "MESH_REQUIRED_SIGNERS", value_name = "KEYS", help_heading = "Models")]
    pub required_signers: Option<Text>,
    /// Load compiled packages of these versions of libtorch, with commas between them. [default: 2.11]
    #[arg(long, env = "MESH_TORCH_VERSIONS", value_name = "VERSIONS", help_heading = "Models")]
    pub torch_versions: Option<Text>,
    /// Load TorchScript archives of these formats. [default: 1-10]
    #[arg(
        long,
        env = "MESH_TORCHSCRIPT_FORMATS",
        value_name = "FORMATS",
        help_heading = "Models"
    )]
    pub torchscript_formats: Option<Text>,
    /// Clear memory before a model of libtorch gets it, so that none can show what another has freed. It costs the time to write each
    /// tensor once more. On GPUs it is what TorchScript's operations give that is cleared, and not what compiled packages allocate.
    #[arg(long, env = "MESH_CLEAR_MEMORY", help_heading = "Models")]
    pub clear_memory: bool,
    /// Let code of models read and write files, reach the network and start programs, as far as this program may. By itself a mesh
    /// on Linux lets it read models' files and libraries only. On GPUs, files are left to it either way.
    #[arg(long, env = "MESH_UNCONFINED_MODELS", help_heading = "Models")]
    pub unconfined_models: bool,
}

/// The same, checked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CodeConfig {
    /// Whose signature versions with a file need; empty: nobody's.
    pub required_signers: Vec<PublicKey>,
    /// By which versions files may have been made.
    #[cfg(feature = "torch")]
    pub made_by: mesh_backend_torch::MadeBy,
    /// Whether models get cleared memory.
    pub clear_memory: bool,
    /// Whether code of models may do what the program may.
    pub unconfined_models: bool,
}

impl CodeOptions {
    /// What is said here, and for the rest what the other says.
    #[must_use]
    pub fn or(self, other: Self) -> Self {
        Self {
            required_signers: self.required_signers.or(other.required_signers),
            torch_versions: self.torch_versions.or(other.torch_versions),
            torchscript_formats: self.torchscript_formats.or(other.torchscript_formats),
            clear_memory: self.clear_memory || other.clear_memory,
            unconfined_models: self.unconfined_models || other.unconfined_models,
        }
    }

    /// Checks all of it, and adds what is wrong to the problems.
    pub(crate) fn check(self, problems: &mut Vec<String>) -> CodeConfig {
        let mut config = CodeConfig {
            clear_memory: self.clear_memory,
            unconfined_models: self.unconfined_models,
            ..CodeConfig::default()
        };
        if let Some(Text(signers)) = self.required_signers {
            let keys: Result<Vec<PublicKey>, _> = signers.split(',').map(|key| key.trim().parse()).collect();
            match keys {
                Ok(keys) if keys.len() <= MAX_SIGNERS => config.required_signers = keys,
                Ok(keys) => problems.push(format!(
                    "required_signers: {} keys, at most {MAX_SIGNERS} are allowed",
                    keys.len()
                )),
                Err(error) => problems.push(format!("required_signers: {error}")),
            }
        }
        #[cfg(feature = "torch")]
        {
            config.made_by = made_by(self.torch_versions, self.torchscript_formats, problems);
        }
        config
    }
}

#[cfg(feature = "torch")]
fn made_by(packages: Option<Text>, archives: Option<Text>, problems: &mut Vec<String>) -> mesh_backend_torch::MadeBy {
    let mut made_by = mesh_backend_torch::MadeBy::default();
    if let Some(Text(text)) = packages {
        match made_by.clone().with_packages(&text) {
            Ok(wanted) => made_by = wanted,
            Err(error) => problems.push(format!("torch_versions: it must be {error}")),
        }
    }
    if let Some(Text(text)) = archives {
        match made_by.clone().with_archives(&text) {
            Ok(wanted) => made_by = wanted,
            Err(error) => problems.push(format!("torchscript_formats: it must be {error}")),
        }
    }
    made_by
}

/// The program's own runtimes of models.
#[cfg(feature = "torch")]
pub(crate) fn backends(config: &NodeConfig, scratch: &Path) -> Vec<Arc<dyn Backend>> {
    let options = mesh_backend_torch::TorchOptions {
        intra_op_threads: config.intra_op_threads,
        made_by: config.code.made_by.clone(),
        clear_memory: config.code.clear_memory,
        scratch: Some(scratch.to_path_buf()),
    };
    let torch = mesh_backend_torch::TorchBackend::new(options);
    vec![Arc::new(torch), Arc::new(BuiltinBackend::new())]
}

/// The program's own runtimes of models.
#[cfg(not(feature = "torch"))]
pub(crate) fn backends(_: &NodeConfig, _: &Path) -> Vec<Arc<dyn Backend>> {
    vec![Arc::new(BuiltinBackend::new())]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn checked(options: CodeOptions) -> Result<CodeConfig, Vec<String>> {
        let mut problems = Vec::new();
        let config = options.check(&mut problems);
        if problems.is_empty() { Ok(config) } else { Err(problems) }
    }

    #[test]
    fn so_many_signers_are_named_and_each_is_a_key() {
        let key = format!("ed25519:{}", "0a".repeat(32));
        let said = |text: &str| {
            checked(CodeOptions {
                required_signers: Some(Text(text.to_owned())),
                ..CodeOptions::default()
            })
        };
        assert_eq!(said(&key).unwrap().required_signers.len(), 1);
        assert!(said(&vec![key.as_str(); MAX_SIGNERS].join(", ")).is_ok());
        assert!(said(&vec![key.as_str(); MAX_SIGNERS + 1].join(",")).is_err());
        assert!(said("ed25519:0a").unwrap_err()[0].contains("64 lowercase"));
    }

    #[test]
    fn a_switch_is_on_where_either_says_so() {
        let said = |on| CodeOptions {
            clear_memory: on,
            unconfined_models: on,
            ..CodeOptions::default()
        };
        for (line, file) in [(false, false), (true, false), (false, true), (true, true)] {
            let config = checked(said(line).or(said(file))).unwrap();
            assert_eq!(config.clear_memory, line || file);
            assert_eq!(config.unconfined_models, line || file);
        }
    }

    #[cfg(feature = "torch")]
    #[test]
    fn versions_are_said_or_the_mistake_is_named() {
        let said = |versions: &str, formats: &str| {
            checked(CodeOptions {
                torch_versions: Some(Text(versions.to_owned())),
                torchscript_formats: Some(Text(formats.to_owned())),
                ..CodeOptions::default()
            })
        };
        let config = said("2.10,2.11", "3-9").unwrap();
        assert_eq!(config.made_by.packages, [(2, 10), (2, 11)]);
        assert_eq!(config.made_by.archives, 3..=9);
        assert_eq!(said("new", "3-99").unwrap_err().len(), 2);
    }
}
