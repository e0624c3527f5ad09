//! The program `mesh`: serves, or speaks to a mesh that serves.

use std::{io::Write as _, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};
use mesh_node::{AuditSource, Node, NodeConfig, RestoreOptions, ServeOptions, signals};

/// A request allocates some forty times; libtorch keeps its own allocator.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// The configuration is not valid (EX_USAGE of sysexits).
const EXIT_CONFIGURATION: u8 = 64;
/// Something could not be started or ended in order.
const EXIT_FAILED: u8 = 1;

#[derive(Debug, Parser)]
#[command(
    name = "mesh",
    version,
    about = "One program that many tenants share to get predictions from pinned models"
)]
struct Cli {
    #[command(flatten)]
    globals: mesh_cli::GlobalOptions,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a mesh: the doors, the devices and the records, in one process.
    #[command(
        after_help = "Exit codes: 0 ended in order, 1 could not start, 64 the configuration is not valid.

Examples:
  mesh serve
  mesh serve --model-repository /models
  mesh serve --data /var/lib/mesh --admin-token-file /run/mesh/token --config /etc/mesh.toml
  MESH_DEVICES=2 mesh serve --log-format json"
    )]
    Serve(Box<ServeOptions>),
    /// Put a backup back: fill a new or empty data folder from a file that `mesh backup` wrote.
    #[command(
        after_help = "Works offline, and puts nothing in place before every file, the signatures and the records' history are \
checked. The folder then is what the mesh was when the backup began: the same keys and admin tokens work, and the audit log \
goes on.

Exit codes: 0 restored, 1 refused or failed, 2 wrong command line.

Examples:
  mesh restore mesh.tar --data /var/lib/mesh
  mesh serve --data /var/lib/mesh"
    )]
    Restore(RestoreOptions),
    #[command(flatten)]
    Admin(mesh_cli::Command),
}

fn main() -> ExitCode {
    let cli = Cli::parse();
    match cli.command {
        Command::Serve(options) => serve(*options),
        Command::Restore(options) => restore(&options),
        Command::Admin(mesh_cli::Command::Completions { shell }) => {
            mesh_cli::print_completions(shell, Cli::command(), &mut std::io::stdout());
            ExitCode::SUCCESS
        }
        Command::Admin(mesh_cli::Command::Model(mesh_cli::ModelCommand::Inspect(args))) => {
            mesh_cli::run_inspect(&args, &mesh_node::Files)
        }
        Command::Admin(mesh_cli::Command::Model(mesh_cli::ModelCommand::Import(args))) => {
            mesh_cli::run_import(&args, &cli.globals, &mesh_node::Files)
        }
        Command::Admin(mesh_cli::Command::Model(mesh_cli::ModelCommand::Publish(args))) => {
            mesh_cli::run_publish(&args, &cli.globals, &mesh_node::Files)
        }
        Command::Admin(mesh_cli::Command::Audit(mesh_cli::AuditCommand::Verify(args))) if args.is_offline() => {
            verify_audit(args)
        }
        Command::Admin(command) => mesh_cli::run(command, cli.globals),
    }
}

fn restore(options: &RestoreOptions) -> ExitCode {
    match mesh_node::restore(options) {
        Ok(done) => {
            // Nobody is left to tell if standard output is gone; the folder is what it says.
            let _ = writeln!(std::io::stdout(), "{done}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error);
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn verify_audit(args: mesh_cli::AuditVerifyArgs) -> ExitCode {
    let source = match (args.data, args.export) {
        (Some(folder), _) => AuditSource::Data(folder),
        (None, file) => AuditSource::Export(file.unwrap_or_default()),
    };
    match mesh_node::verify_audit(&source, args.public_key) {
        Ok(verdict) => {
            // Nobody is left to tell if standard output is gone.
            let _ = writeln!(std::io::stdout(), "{verdict}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            complain(&error);
            ExitCode::from(EXIT_FAILED)
        }
    }
}

fn complain(error: &dyn std::fmt::Display) {
    // Nobody is left to tell if standard error is gone.
    let _ = writeln!(std::io::stderr(), "mesh: {error}");
}

fn serve(options: ServeOptions) -> ExitCode {
    let config = match NodeConfig::load(options) {
        Ok(config) => config,
        Err(error) => {
            complain(&error);
            return ExitCode::from(EXIT_CONFIGURATION);
        }
    };
    if let Err(error) = mesh_telemetry::init_logs(config.log_format, &config.log) {
        complain(&error);
        return ExitCode::from(EXIT_CONFIGURATION);
    }
    tracing::debug!(?config, "effective configuration");
    let ended = actix::System::new().block_on(async {
        // Before anything is started, so that no signal is missed.
        let mut signals = signals::listen()?;
        let node = Node::start(config).await?;
        if let Some(token) = node.first_admin_token() {
            let mut out = std::io::stdout();
            writeln!(out, "admin token (shown only now): {token}")?;
            out.flush()?;
        }
        signals.first().await;
        signals.end_at_the_next();
        node.stop().await;
        Ok::<(), anyhow::Error>(())
    });
    match ended {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            complain(&format!("{error:#}"));
            ExitCode::from(EXIT_FAILED)
        }
    }
}
