//! The command line of admins: reads files, speaks to the admin API, and prints.
//!
//! Owns the commands, their help, their exit codes and what they print. Decides nothing that the admin API decides: every
//! check it makes beforehand is one that the API makes too. Speaks only HTTP to the admin door, and for `infer`, through the
//! client that callers use, to the inference door; knows no registry and no model.
//!
//! Invariants: what `get -o yaml` and `-o json` print, `apply -f` takes; a secret is printed once, alone on stdout, when it
//! is made, and never otherwise; an error says what to do and ends in the exit code that [`Failure`] documents.

mod apply;
mod audit;
mod backup;
mod cache;
mod certificates;
mod client;
mod delete;
mod device;
mod diff;
mod failure;
mod files;
mod get;
mod graph;
mod import;
mod infer;
mod inspect;
mod issuer;
mod key_uses;
mod keys;
mod loaded;
mod metrics;
mod model_options;
mod options;
mod paths;
mod policy;
mod publish;
mod signing;
mod spans;
mod status;
mod table;
mod tensors;
mod trust;
mod usage;
mod warm;

use std::{
    future::Future,
    io::{BufRead, IsTerminal as _, Write},
    path::Path,
    process::ExitCode,
};

use clap::CommandFactory as _;
use mesh_backend::{ModelFiles, Signature};
use mesh_types::ArtifactFormat;

pub use audit::{AuditCommand, AuditExportArgs, AuditVerifyArgs};
pub use cache::{CacheCommand, CachePurgeArgs};
pub use certificates::{CertificateCommand, CertificateCreateArgs};
pub use failure::Failure;
pub use graph::{GraphArgs, GraphFormat};
pub use import::{ImportArgs, import};
pub use inspect::inspect;
pub use model_options::{InspectArgs, InspectOutput, KeygenArgs, ModelCommand, PublishArgs, SignArgs};
pub use options::{
    ApplyArgs, BackupArgs, Command, DeleteArgs, DescribeArgs, DeviceArgs, DeviceCommand, DeviceListArgs, DiffArgs,
    DrainArgs, GetArgs, GlobalOptions, InferArgs, IssuerCommand, IssuerKeysArgs, KeyCommand, KeyCreateArgs,
    OutputFormat, StatusArgs, UndrainArgs,
};
pub use policy::{PolicyCommand, PolicyPutArgs, PolicySchemaArgs, PolicyTestArgs};
pub use trust::TrustOptions;
pub use usage::UsageArgs;
pub use warm::WarmArgs;

/// Where a command reads from and prints to.
pub struct Terminal<'a> {
    /// What the command is asked for.
    pub out: &'a mut dyn Write,
    /// Hints, progress and errors.
    pub err: &'a mut dyn Write,
    /// Where answers and `-f -` come from.
    pub input: &'a mut dyn BufRead,
    /// Whether a person is there to be asked.
    pub interactive: bool,
}

/// Runs a command on the process' own streams.
#[expect(
    clippy::needless_pass_by_value,
    reason = "a command is the last thing the program does with its options"
)]
pub fn run(command: Command, globals: GlobalOptions) -> ExitCode {
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr());
    let stdin = std::io::stdin();
    let interactive = stdin.is_terminal();
    let mut terminal = Terminal {
        out: &mut out,
        err: &mut err,
        input: &mut stdin.lock(),
        interactive,
    };
    ExitCode::from(run_with(command, &globals, &mut terminal))
}

/// Runs `model inspect` on the process' own streams.
pub fn run_inspect(args: &InspectArgs, read: &dyn ModelFiles) -> ExitCode {
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr());
    let mut terminal = Terminal {
        out: &mut out,
        err: &mut err,
        input: &mut std::io::empty(),
        interactive: false,
    };
    ExitCode::from(inspect(args, read, &mut terminal))
}

/// Runs `model import` on the process' own streams.
pub fn run_import(args: &ImportArgs, globals: &GlobalOptions, read: &dyn ModelFiles) -> ExitCode {
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr());
    let mut terminal = Terminal {
        out: &mut out,
        err: &mut err,
        input: &mut std::io::empty(),
        interactive: std::io::stderr().is_terminal(),
    };
    ExitCode::from(import(args, globals, read, &mut terminal))
}

/// Runs `model publish` on the process' own streams.
pub fn run_publish(args: &PublishArgs, globals: &GlobalOptions, files: &dyn ModelFiles) -> ExitCode {
    let (mut out, mut err) = (std::io::stdout().lock(), std::io::stderr());
    let mut terminal = Terminal {
        out: &mut out,
        err: &mut err,
        input: &mut std::io::empty(),
        interactive: std::io::stderr().is_terminal(),
    };
    ExitCode::from(publish(args, globals, files, &mut terminal))
}

/// Runs `model publish`; what its configuration leaves out is asked of whoever can read models. The answer is the exit code.
pub fn publish(args: &PublishArgs, globals: &GlobalOptions, files: &dyn ModelFiles, terminal: &mut Terminal<'_>) -> u8 {
    let done = block_on(async { publish::publish(&globals.admin()?, args, files, terminal).await });
    exit_code(done, terminal)
}

/// Runs a command on the given streams; the answer is the exit code.
pub fn run_with(command: Command, globals: &GlobalOptions, terminal: &mut Terminal<'_>) -> u8 {
    let result = block_on(perform(command, globals, terminal));
    exit_code(result, terminal)
}

/// Runs it to its end on this thread.
fn block_on<T>(work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::refused(format!("cannot start: {error}")))?;
    runtime.block_on(work)
}

fn exit_code(result: Result<(), Failure>, terminal: &mut Terminal<'_>) -> u8 {
    match result {
        Ok(()) => 0,
        Err(failure) => {
            // Nobody is left to tell if stderr is gone.
            let _ = write!(terminal.err, "{failure}");
            failure.exit_code()
        }
    }
}

/// Writes a shell's completions for a whole command tree.
pub fn print_completions(shell: clap_complete::Shell, mut root: clap::Command, out: &mut dyn Write) {
    let name = root.get_name().to_owned();
    clap_complete::generate(shell, &mut root, name, &mut &mut *out);
}

/// The commands on their own, for completions and tests; the program adds its own beside them.
#[derive(Debug, clap::Parser)]
#[command(
    name = "mesh",
    version,
    about = "One program that many tenants share to get predictions from pinned models"
)]
pub struct Cli {
    /// Where and as whom.
    #[command(flatten)]
    pub globals: GlobalOptions,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// Models' files, to who runs commands without the program.
fn unreadable(_: &Path, _: ArtifactFormat) -> Result<Signature, String> {
    Err("models are read by the program itself".to_owned())
}

async fn model(command: ModelCommand, globals: &GlobalOptions, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    match command {
        // As below.
        ModelCommand::Publish(args) => publish::publish(&globals.admin()?, &args, &unreadable, terminal).await,
        // It needs whoever can read models: see `inspect`.
        ModelCommand::Inspect(_) => Err(Failure::refused("models are read by the program itself")),
        // It completes what is not written where it is run with whoever can read models: see `import`.
        ModelCommand::Import(args) => import::perform(globals, &args, &unreadable, terminal).await,
        ModelCommand::Graph(args) => graph::graph(&globals.admin()?, &args, terminal).await,
        ModelCommand::Keygen(args) => signing::keygen(&args, terminal),
        ModelCommand::Sign(args) => signing::sign(&args, terminal),
        ModelCommand::Warm(args) => warm::warm(&globals.admin()?, &args, terminal).await,
    }
}

async fn perform(command: Command, globals: &GlobalOptions, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    match command {
        Command::Apply(args) => apply::apply(&globals.admin()?, &args, terminal).await,
        Command::Diff(args) => apply::diff(&globals.admin()?, &args, terminal).await,
        Command::Get(args) => get::get(&globals.admin()?, &args, terminal).await,
        Command::Describe(args) => get::describe(&globals.admin()?, &args, terminal).await,
        Command::Delete(args) => delete::delete(&globals.admin()?, &args, terminal).await,
        Command::Model(command) => model(command, globals, terminal).await,
        Command::Key(KeyCommand::Create(args)) => keys::create(&globals.admin()?, &args, terminal).await,
        Command::Issuer(command) => issuer::issuer(&globals.admin()?, &command, terminal).await,
        Command::Certificate(CertificateCommand::Create(args)) => {
            certificates::create(&globals.admin()?, &args, terminal).await
        }
        Command::Cache(CacheCommand::Purge(args)) => cache::purge(&globals.admin()?, &args, terminal).await,
        Command::Infer(args) => infer::infer(globals, &args, terminal).await,
        Command::Status(args) => status::status(&globals.admin()?, &args, terminal).await,
        Command::Policy(command) => policy::policy(&globals.admin()?, &command, terminal).await,
        Command::Metrics { tenant } => metrics::metrics(&globals.admin()?, &tenant, terminal).await,
        Command::Usage(args) => usage::usage(&globals.admin()?, &args, terminal).await,
        Command::Device(command) => device::device(&globals.admin()?, &command, terminal).await,
        Command::Backup(args) => backup::backup(&globals.admin()?, &args, terminal).await,
        Command::Audit(command) => audit::audit(&globals.admin()?, &command, terminal).await,
        Command::Completions { shell } => {
            print_completions(shell, Cli::command(), terminal.out);
            Ok(())
        }
    }
}

#[cfg(test)]
mod commands_tests;
#[cfg(test)]
mod import_tests;
