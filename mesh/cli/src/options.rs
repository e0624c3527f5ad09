//! The command line: every command, option and help text; those of `mesh model` have a file of their own.

use std::path::PathBuf;

use clap::{Args, Subcommand, ValueEnum};
use mesh_resources::Kind;
use mesh_types::{DeviceId, KeyId, TenantId};

use crate::{
    AuditCommand, CacheCommand, CertificateCommand, Failure, ModelCommand, PolicyCommand, TrustOptions, UsageArgs,
    client::AdminClient, keys::Expiry, tensors::NamedInput,
};

const EXIT_CODES: &str = "Exit codes: 0 done, 1 refused or failed, 2 wrong command line, 3 unreachable, 4 conflict.";

/// Where the mesh is, and as whom to speak to it.
#[derive(Debug, Clone, Args)]
pub struct GlobalOptions {
    /// The admin door.
    #[arg(
        long,
        global = true,
        env = "MESH_ADMIN_URL",
        default_value = "http://127.0.0.1:8080",
        value_name = "URL",
        help_heading = "Connection"
    )]
    pub admin_url: String,
    /// The admin token; better in the environment or a file than on the command line, where others can see it.
    #[arg(
        long,
        global = true,
        env = "MESH_ADMIN_TOKEN",
        hide_env_values = true,
        value_name = "TOKEN",
        help_heading = "Connection"
    )]
    pub admin_token: Option<String>,
    /// A file that holds the admin token, as `mesh serve --admin-token-file` writes it.
    #[arg(
        long,
        global = true,
        env = "MESH_ADMIN_TOKEN_FILE",
        value_name = "FILE",
        help_heading = "Connection"
    )]
    pub admin_token_from: Option<PathBuf>,
    /// The inference door, for `mesh infer`.
    #[arg(
        long,
        global = true,
        env = "MESH_URL",
        default_value = "http://127.0.0.1:8000",
        value_name = "URL",
        help_heading = "Connection"
    )]
    pub url: String,
    /// A tenant's API key, for `mesh infer`.
    #[arg(
        long,
        global = true,
        env = "MESH_API_KEY",
        hide_env_values = true,
        value_name = "KEY",
        help_heading = "Connection"
    )]
    pub api_key: Option<String>,
    #[command(flatten)]
    #[expect(missing_docs, reason = "each of its options says what it is")]
    pub trust: TrustOptions,
}

impl GlobalOptions {
    pub(crate) fn admin(&self) -> Result<AdminClient, Failure> {
        let token = match (&self.admin_token, &self.admin_token_from) {
            (Some(token), _) => token.trim().to_owned(),
            (None, Some(path)) => {
                let read = std::fs::read_to_string(path);
                let token = read.map_err(|error| {
                    Failure::refused(format!("cannot read the admin token from {}: {error}", path.display()))
                })?;
                token.trim().to_owned()
            }
            (None, None) => {
                return Err(Failure::refused(
                    "no admin token: set MESH_ADMIN_TOKEN, or MESH_ADMIN_TOKEN_FILE to the file that `mesh serve --admin-token-file` wrote",
                ));
            }
        };
        AdminClient::new(&self.admin_url, token, &self.trust)
    }
}

/// What to do.
#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Make the mesh hold what files say, all or nothing.
    #[command(after_help = format!("Examples:
  mesh apply -f demo.yaml              one file of several documents
  mesh apply -f config/ --dry-run      every .yaml, .yml and .json of a folder; only says what would change
  mesh get endpoints -o yaml | mesh apply -f -

{EXIT_CODES}"))]
    Apply(ApplyArgs),
    /// Show what `apply` would change, line by line.
    #[command(after_help = "Examples:
  mesh diff -f endpoint.yaml
  mesh diff -f config/ --exit-code     ends in 1 if there is a difference, for scripts")]
    Diff(DiffArgs),
    /// List resources, or show one.
    #[command(
        after_help = "Kinds: tenants, issuers, keys, certificates, models, versions, endpoints, admin-tokens.

Examples:
  mesh get tenants
  mesh get endpoints -t acme
  mesh get endpoint digits -t acme -o yaml > endpoint.yaml
  mesh get versions -o json"
    )]
    Get(GetArgs),
    /// Show one resource and what is going on with it.
    #[command(after_help = "Examples:
  mesh describe endpoint acme/digits   its split, and what each arm answers now
  mesh describe version acme/digits/2  its configuration, and the devices that hold it")]
    Describe(DescribeArgs),
    /// Delete resources.
    #[command(after_help = "Examples:
  mesh delete endpoint digits -t acme
  mesh delete -f demo.yaml --yes       everything that the file names, dependents first")]
    Delete(DeleteArgs),
    /// Publish models.
    #[command(subcommand)]
    Model(ModelCommand),
    /// Make credentials for tenants.
    #[command(subcommand)]
    Key(KeyCommand),
    /// Look at those who issue tokens.
    #[command(subcommand)]
    Issuer(IssuerCommand),
    /// Say which certificates stand for callers of tenants.
    #[command(subcommand)]
    Certificate(CertificateCommand),
    /// What is remembered of endpoints' answers.
    #[command(subcommand)]
    Cache(CacheCommand),
    /// Ask a model, as a tenant would.
    #[command(after_help = "Examples:
  mesh infer digits --input 'pixels=[[0,0,5,13]]'
  mesh infer digits --file request.json -o json
  mesh infer digits --version 2 --input 'pixels=[[0,0,5,13]]'
  mesh infer digits --unit user-7 --input 'pixels=[[0,0,5,13]]'

The tenant is the one of the API key: set MESH_API_KEY, or give --tenant-key.")]
    Infer(InferArgs),
    /// How the mesh is doing: rates, latency, endpoints, devices.
    #[command(after_help = "Examples:
  mesh status
  mesh status -o json")]
    Status(StatusArgs),
    /// Ask who may do what, and why; write policies.
    #[command(subcommand)]
    Policy(PolicyCommand),
    /// A tenant's own metrics, as Prometheus reads them.
    #[command(after_help = "Examples:
  mesh metrics acme")]
    Metrics {
        /// The tenant.
        tenant: TenantId,
    },
    /// What tenants have used today and this month, beside their budgets.
    #[command(after_help = "Examples:
  mesh usage                           every tenant
  mesh usage acme -o json
  mesh usage acme --subjects           each subject of its tokens")]
    Usage(UsageArgs),
    /// Look at devices, and take them out of service for a while.
    #[command(subcommand)]
    Device(DeviceCommand),
    /// Copy everything into one file while the mesh is serving: records and their history, models, secrets.
    #[command(after_help = format!("The file is a tar archive that begins with a signed list of what is in it. It is of one moment: every \
change that was acknowledged before is in it. It holds every secret of the mesh and is made readable by its owner only; \
making one needs an admin's token and is an entry of the audit log. `mesh restore` puts it back.

{EXIT_CODES}

Examples:
  mesh backup --output mesh.tar
  mesh backup --output /backups/mesh-$(date +%F).tar
  mesh restore mesh.tar --data /var/lib/mesh"))]
    Backup(BackupArgs),
    /// The audit log: check it, sign it, take it elsewhere.
    #[command(subcommand)]
    Audit(AuditCommand),
    /// Print completions for a shell.
    #[command(after_help = "Examples:
  mesh completions bash > ~/.local/share/bash-completion/completions/mesh")]
    Completions {
        /// Which shell.
        shell: clap_complete::Shell,
    },
}

/// How to print.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum OutputFormat {
    /// For people.
    #[default]
    Table,
    /// One JSON value.
    Json,
    /// YAML documents.
    Yaml,
}

/// `mesh apply`.
#[derive(Debug, Clone, Args)]
pub struct ApplyArgs {
    /// A file, a folder, or - for the standard input; may be given again.
    #[arg(short = 'f', long = "file", required = true, value_name = "FILE|DIR|-")]
    pub files: Vec<PathBuf>,
    /// Check everything and say what would change, but change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `mesh diff`.
#[derive(Debug, Clone, Args)]
pub struct DiffArgs {
    /// A file, a folder, or - for the standard input; may be given again.
    #[arg(short = 'f', long = "file", required = true, value_name = "FILE|DIR|-")]
    pub files: Vec<PathBuf>,
    /// End in exit code 1 if there is a difference.
    #[arg(long)]
    pub exit_code: bool,
}

/// `mesh get`.
#[derive(Debug, Clone, Args)]
pub struct GetArgs {
    /// The kind, singular or plural.
    #[arg(value_parser = Kind::parse)]
    pub kind: Kind,
    /// The name; for a version `model/number`. `tenant/name` does as well.
    pub name: Option<String>,
    /// The tenant.
    #[arg(short, long)]
    pub tenant: Option<TenantId>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// `mesh describe`.
#[derive(Debug, Clone, Args)]
pub struct DescribeArgs {
    /// The kind, singular or plural.
    #[arg(value_parser = Kind::parse)]
    pub kind: Kind,
    /// The name; for a version `model/number`. `tenant/name` does as well.
    pub name: String,
    /// The tenant.
    #[arg(short, long)]
    pub tenant: Option<TenantId>,
}

/// `mesh delete`.
#[derive(Debug, Clone, Args)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["kind", "files"])))]
pub struct DeleteArgs {
    /// The kind, singular or plural.
    #[arg(value_parser = Kind::parse, requires = "name")]
    pub kind: Option<Kind>,
    /// The name; for a version `model/number`. `tenant/name` does as well.
    pub name: Option<String>,
    /// The tenant.
    #[arg(short, long)]
    pub tenant: Option<TenantId>,
    /// Delete everything that a file, a folder or the standard input names.
    #[arg(short = 'f', long = "file", value_name = "FILE|DIR|-", conflicts_with_all = ["kind", "name", "tenant"])]
    pub files: Vec<PathBuf>,
    /// Do not ask.
    #[arg(short, long)]
    pub yes: bool,
}

/// `mesh key`.
#[derive(Debug, Clone, Subcommand)]
pub enum KeyCommand {
    /// Make an API key for a tenant; it is shown once.
    #[command(after_help = "Examples:
  mesh key create --tenant acme --expires 90d
  export MESH_API_KEY=$(mesh key create --tenant acme)")]
    Create(KeyCreateArgs),
}

/// `mesh key create`.
#[derive(Debug, Clone, Args)]
pub struct KeyCreateArgs {
    /// The tenant that the key stands for.
    #[arg(short, long)]
    pub tenant: TenantId,
    /// When it ends: a time from now such as 90d or 12h, or a date such as 2030-01-31T00:00:00Z.
    #[arg(long, value_name = "TIME", value_parser = Expiry::parse)]
    pub expires: Option<Expiry>,
    /// A note for people.
    #[arg(long, value_name = "TEXT")]
    pub description: Option<String>,
    /// A group of the tenant's that it is in, for policies; may be given again.
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
}

/// `mesh issuer`.
#[derive(Debug, Clone, Subcommand)]
pub enum IssuerCommand {
    /// Show the keys that an issuer's tokens are checked with, when they were fetched, and what was wrong last.
    #[command(after_help = "Examples:
  mesh issuer keys sso
  mesh issuer keys sso -o json")]
    Keys(IssuerKeysArgs),
}

/// `mesh issuer keys`.
#[derive(Debug, Clone, Args)]
pub struct IssuerKeysArgs {
    /// The name of the issuer's resource.
    pub name: KeyId,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// `mesh device`.
#[derive(Debug, Clone, Subcommand)]
pub enum DeviceCommand {
    /// List devices: whether they serve, how busy they are, what they hold.
    #[command(after_help = "Examples:
  mesh device list
  mesh device list -o json

BUSY 10 S is the share of a device's threads' time that they executed batches, over the last ten seconds; BUSY is the same
since the mesh started.")]
    List(DeviceListArgs),
    /// Show one device: each of its models in numbers, and which tenants used its time.
    #[command(after_help = "Examples:
  mesh device describe cpu:0
  mesh device describe cuda:1 -o yaml

A model in state QUARANTINED crashed again and again: it stays loaded, but its requests are refused until its cool-down is
over. REJECTED requests were refused at once: the queue was full, or their deadline could not be met.")]
    Describe(DeviceArgs),
    /// Let a device take no new requests; what it has is finished.
    #[command(after_help = format!("The device's models stay on it, so that it serves again at once when it is undrained. New versions are \
not brought to it. Versions that are ready on other devices go on being served there; those that are not are answered with \
503, which callers may send again.

It lasts until `mesh device undrain`, or until the mesh is restarted, and is an entry of the audit log.

{EXIT_CODES}

Examples:
  mesh device drain cpu:0
  mesh device drain cuda:1 --wait --wait-timeout 5m"))]
    Drain(DrainArgs),
    /// Let a device that was drained take requests again.
    #[command(after_help = "Examples:
  mesh device undrain cpu:0")]
    Undrain(UndrainArgs),
}

/// `mesh device list`.
#[derive(Debug, Clone, Args)]
pub struct DeviceListArgs {
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// `mesh device describe`.
#[derive(Debug, Clone, Args)]
pub struct DeviceArgs {
    /// The device, such as cpu:0 or cuda:1.
    #[arg(value_parser = device_name)]
    pub device: String,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// `mesh device drain`.
#[derive(Debug, Clone, Args)]
pub struct DrainArgs {
    /// The device, such as cpu:0 or cuda:1.
    #[arg(value_parser = device_name)]
    pub device: String,
    /// Wait until nothing is in flight on it.
    #[arg(long)]
    pub wait: bool,
    /// How long --wait waits, such as 90s or 5m.
    #[arg(long, default_value = "2m", value_name = "TIME", value_parser = crate::spans::parse)]
    pub wait_timeout: std::time::Duration,
}

/// `mesh device undrain`.
#[derive(Debug, Clone, Args)]
pub struct UndrainArgs {
    /// The device, such as cpu:0 or cuda:1.
    #[arg(value_parser = device_name)]
    pub device: String,
}

/// The name of a device, as the API writes it.
fn device_name(text: &str) -> Result<String, String> {
    let id: DeviceId = text
        .parse()
        .map_err(|error: mesh_types::DeviceIdError| error.to_string())?;
    Ok(id.to_string())
}

/// `mesh infer`.
#[derive(Debug, Clone, Args)]
#[command(group(clap::ArgGroup::new("body").required(true).args(["inputs", "file"])))]
pub struct InferArgs {
    /// The endpoint or model.
    pub name: String,
    /// A version number or label, instead of the endpoint's split.
    #[arg(long, value_name = "VERSION")]
    pub version: Option<String>,
    /// An input: its name, and its values as nested JSON lists, first dimension rows; may be given again.
    #[arg(long = "input", value_name = "NAME=JSON", value_parser = NamedInput::parse)]
    pub inputs: Vec<NamedInput>,
    /// A whole request of the Open Inference Protocol, JSON; - for the standard input.
    #[arg(long, value_name = "FILE")]
    pub file: Option<PathBuf>,
    /// The unit that an endpoint's split sticks to, such as a user's id.
    #[arg(long, value_name = "TEXT")]
    pub unit: Option<String>,
    /// The tenant's API key; default MESH_API_KEY.
    #[arg(long, value_name = "KEY")]
    pub tenant_key: Option<String>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// `mesh backup`.
#[derive(Debug, Clone, Args)]
pub struct BackupArgs {
    /// The file to write; it gets its name only once it is whole.
    #[arg(short, long, value_name = "FILE")]
    pub output: PathBuf,
    /// Replace the file if it is there.
    #[arg(long)]
    pub force: bool,
}

/// `mesh status`.
#[derive(Debug, Clone, Args)]
pub struct StatusArgs {
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}
