//! The programs of the workspace, built together so that their dependencies are built once.

use std::path::{Path, PathBuf};

use anyhow::ensure;

use crate::{commands, environment, environment::Environment, web};

const PACKAGES: &[&str] = &["mesh-node", "mesh-torch-workshop", "mesh-load"];

/// The programs of one profile, and what they need to start.
#[derive(Debug, Clone)]
pub(crate) struct Programs {
    folder: PathBuf,
    pub(crate) environment: Environment,
}

impl Programs {
    /// Builds the web app and the programs with optimisation.
    pub(crate) fn release(environment: Environment) -> anyhow::Result<Self> {
        web::build()?;
        eprintln!("building the mesh with optimisation; the first time this takes some minutes");
        let mut arguments = vec!["build", "--release"];
        arguments.extend(PACKAGES.iter().flat_map(|package| ["-p", *package]));
        commands::cargo(&environment, &arguments)?;
        Self::built(environment)
    }

    /// Takes those that the last optimised build left.
    pub(crate) fn built(environment: Environment) -> anyhow::Result<Self> {
        let programs = Self {
            folder: environment::target()?.join("release"),
            environment,
        };
        for program in [programs.mesh(), programs.workshop(), programs.load()] {
            ensure!(
                program.is_file(),
                "{} is not there: leave out --no-build",
                program.display()
            );
        }
        Ok(programs)
    }

    /// Takes those that the tests' own build left.
    pub(crate) fn debug(environment: Environment) -> anyhow::Result<Self> {
        Ok(Self {
            folder: environment::target()?.join("debug"),
            environment,
        })
    }

    /// The mesh.
    pub(crate) fn mesh(&self) -> PathBuf {
        self.folder.join("mesh")
    }

    /// Makes and measures TorchScript models.
    pub(crate) fn workshop(&self) -> PathBuf {
        self.folder.join("torch-workshop")
    }

    /// The load generator.
    pub(crate) fn load(&self) -> PathBuf {
        self.folder.join("mesh-load")
    }

    /// A command that finds libtorch.
    pub(crate) fn command(&self, program: &Path) -> std::process::Command {
        let mut command = std::process::Command::new(program);
        command.envs(self.environment.variables.iter().cloned());
        command
    }
}
