//! The command line of `mesh model`: its commands, options and help texts.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use mesh_types::{Label, ModelId, TenantId};

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
    /// How the model is called and run: a YAML or JSON file. Default: model.yaml beside the model's file.
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
    /// Wait until a device has the version ready.
    #[arg(long)]
    pub wait: bool,
    /// How long --wait waits, such as 90s or 5m.
    #[arg(long, default_value = "2m", value_name = "TIME", value_parser = crate::spans::parse)]
    pub wait_timeout: std::time::Duration,
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
