//! The command line of `mesh model`: its commands, options and help texts.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use mesh_types::{Label, ModelId, TenantId, Version};

use crate::WarmArgs;

/// `mesh model`.
#[derive(Debug, Clone, Subcommand)]
pub enum ModelCommand {
    /// Upload a model and make it the next version.
    #[command(after_help = "Examples:
  mesh model publish digits.pt --tenant acme --model digits --config model.yaml --label stable --wait
  mesh model publish digits.pt2 --tenant acme --model digits --config model.yaml
  mesh model publish --format builtin --tenant acme --model echo --config echo.yaml
  mesh model publish --format ensemble --tenant acme --model scan --config scan.yaml --wait

The configuration is Triton's: max_batch_size, input, output (name, datatype, dims), dynamic_batching, parameters.")]
    Publish(PublishArgs),
    /// Show what a model's file takes and gives, and a configuration that fits it.
    #[command(after_help = "Examples:
  mesh model inspect digits.pt
  mesh model inspect compiled.pt2 -o yaml > model.yaml

Works offline. Reading a TorchScript file runs its author's code, as loading it anywhere does; a .pt2 package is not run.")]
    Inspect(InspectArgs),
    /// Bring in a Triton model repository: every model that can run here, with its versions.
    Import(crate::ImportArgs),
    /// Show an ensemble's graph: its steps, what each leads to now, and what they have done.
    #[command(after_help = "Example: mesh model graph acme/scan@stable -o dot | dot -Tsvg > scan.svg")]
    Graph(crate::GraphArgs),
    /// Bring a version into its devices' memory before requests come.
    Warm(WarmArgs),
    /// Make a key to sign models with, and show its public key.
    #[command(after_help = "Example: mesh model keygen release.key

The file holds the private key, 32 bytes, and is readable by its owner only. The public key is what a tenant's
spec.required_signers and `mesh serve --required-signers` name.")]
    Keygen(KeygenArgs),
    /// Sign a model's file as a version of a model, offline.
    #[command(after_help = "Example:
  mesh model sign digits.pt --model digits --version 3 --config model.yaml --sign-key release.key > digits.sig
  mesh model publish digits.pt --tenant acme --model digits --config model.yaml --signature digits.sig

What is signed: the model's name, the version's number, the file's SHA-256 and format, and what goes in and out.")]
    Sign(SignArgs),
}

/// `mesh model inspect`.
#[derive(Debug, Clone, Args)]
pub struct InspectArgs {
    /// The model's file.
    pub file: PathBuf,
    /// What kind of file it is; default: what it holds.
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: InspectOutput,
}

/// How `mesh model inspect` prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum InspectOutput {
    /// The signature as tables, and a configuration.
    #[default]
    Table,
    /// The configuration alone.
    Yaml,
}

/// `mesh model publish`.
#[derive(Debug, Clone, Args)]
pub struct PublishArgs {
    /// The model's file; built-in models have none.
    pub file: Option<PathBuf>,
    /// The tenant that owns the model.
    #[arg(short, long)]
    pub tenant: TenantId,
    /// The model; made if it is new.
    #[arg(short, long)]
    pub model: ModelId,
    /// How the model is called and run: a YAML or JSON file. Default: model.yaml beside the model's file. Outputs may be left out: the
    /// model is run on zeros to learn what they are.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What kind of file it is; default: what it holds.
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// Let this label point to the new version; may be given again.
    #[arg(long = "label", value_name = "LABEL")]
    pub labels: Vec<Label>,
    /// A note for people.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// Sign it with the private key in this file.
    #[arg(long, value_name = "FILE", conflicts_with = "signature")]
    pub sign_key: Option<PathBuf>,
    /// A signature that `mesh model sign` made of it.
    #[arg(long, value_name = "FILE")]
    pub signature: Option<PathBuf>,
    /// Wait until a device has the version ready.
    #[arg(long)]
    pub wait: bool,
    /// How long --wait waits, such as 90s or 5m.
    #[arg(long, default_value = "2m", value_name = "TIME", value_parser = crate::spans::parse)]
    pub wait_timeout: std::time::Duration,
}

/// `mesh model keygen`.
#[derive(Debug, Clone, Args)]
pub struct KeygenArgs {
    /// The file to write; it must not be there yet.
    pub file: PathBuf,
}

/// `mesh model sign`.
#[derive(Debug, Clone, Args)]
pub struct SignArgs {
    /// The model's file.
    pub file: PathBuf,
    /// The model that it is to be a version of.
    #[arg(short, long)]
    pub model: ModelId,
    /// The version's number: the one that publishing it will give it, which is the next.
    #[arg(long, value_name = "NUMBER", value_parser = version_number)]
    pub version: Version,
    /// How the model is called and run, as for publishing. Default: model.yaml beside the model's file.
    #[arg(short, long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// What kind of file it is; default: what it holds.
    #[arg(long, value_enum)]
    pub format: Option<Format>,
    /// The private key, as `mesh model keygen` made it.
    #[arg(long, value_name = "FILE")]
    pub sign_key: PathBuf,
}

fn version_number(text: &str) -> Result<Version, String> {
    let number = text.parse().map_err(|_| "a version is a number from 1 on".to_owned())?;
    Version::new(number).map_err(|error| error.to_string())
}

/// Formats of models.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// A TorchScript archive, run by libtorch.
    Torchscript,
    /// A package compiled by AOTInductor (.pt2), run by libtorch.
    #[value(name = "torch_aoti")]
    TorchAoti,
    /// A model that is part of the mesh.
    Builtin,
    /// A model made of other models.
    Ensemble,
}
