//! `policy test`, `policy put`, `policy schema`: who may do what, and why.
//!
//! Asks the admin API; what is tried out from files goes along with the question and is written nowhere.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};
use mesh_resources::{PolicySpec, Resource, ResourceKey, Spec};
use mesh_types::KeyId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Failure, OutputFormat, Terminal,
    client::AdminClient,
    files::{read_all, read_file},
    get::pretty,
};

/// `mesh policy`.
#[derive(Debug, Clone, Subcommand)]
pub enum PolicyCommand {
    /// May X do Y to Z, and why: the policies that decide. Ends in exit code 1 where it may not, with --exit-code.
    #[command(after_help = "Examples:
  mesh policy test Key/acme/ci model:infer Model/acme/digits
  mesh policy test Admin/kim device:drain Device/cpu:0
  mesh policy test User/acme/alice model:infer Endpoint/acme/front --issuer https://idp.example --group interns
  mesh policy test Key/acme/ci model:infer Model/acme/digits -f lockdown.cedar

A file that ends in .cedar is a policy of the file's name; others hold resources of kind Policy, as `mesh apply` takes them. They
are laid over what is there, and written nowhere.")]
    Test(PolicyTestArgs),
    /// Write a policy from a file of Cedar.
    #[command(after_help = "Examples:
  mesh policy put lockdown lockdown.cedar
  mesh get policies
  mesh delete policy lockdown")]
    Put(PolicyPutArgs),
    /// What policies can speak of: every action, the schema, and what holds without any policy.
    Schema(PolicySchemaArgs),
}

/// `mesh policy test`.
#[derive(Debug, Clone, Args)]
pub struct PolicyTestArgs {
    /// X: Key/TENANT/NAME, Certificate/TENANT/NAME, User/TENANT/SUB or Admin/NAME.
    pub principal: String,
    /// Y: an action, such as model:infer; `mesh policy schema` lists them.
    pub action: String,
    /// Z: Mesh, Tenant/NAME, Model/TENANT/NAME, Endpoint/TENANT/NAME, Key/.., Issuer/.., Admin/.., Policy/.., Device/..
    pub resource: String,
    /// Who says who a user is: the iss of its tokens.
    #[arg(long, value_name = "ISS", default_value = "", hide_default_value = true)]
    pub issuer: String,
    /// A group of a user, or of a key or admin that is not there; may be given again.
    #[arg(long = "group", value_name = "GROUP")]
    pub groups: Vec<String>,
    /// The role of an admin that is not there.
    #[arg(long, value_parser = ["viewer", "experimenter", "operator", "admin"])]
    pub role: Option<String>,
    /// Policies to try that are not written yet; may be given again.
    #[arg(short = 'f', long = "file", value_name = "FILE")]
    pub files: Vec<PathBuf>,
    /// End in exit code 1 if it may not.
    #[arg(long)]
    pub exit_code: bool,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

/// `mesh policy put`.
#[derive(Debug, Clone, Args)]
pub struct PolicyPutArgs {
    /// Its name.
    pub name: KeyId,
    /// A file of Cedar.
    pub file: PathBuf,
    /// For people.
    #[arg(long)]
    pub description: Option<String>,
    /// Check it and say what would change, but change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `mesh policy schema`.
#[derive(Debug, Clone, Args)]
pub struct PolicySchemaArgs {
    /// Print the schema in Cedar's language.
    #[arg(long, conflicts_with = "builtin")]
    pub cedar: bool,
    /// Print the policies that hold without any other.
    #[arg(long)]
    pub builtin: bool,
}

#[derive(Debug, Deserialize)]
struct Answer {
    allowed: bool,
    reason: String,
    decided_by: Vec<Decided>,
    principal: String,
    principal_known: bool,
    action: String,
    resource: String,
}

#[derive(Debug, Deserialize)]
struct Decided {
    policy: String,
    statement: usize,
    line: usize,
    effect: String,
}

#[derive(Debug, Deserialize)]
struct Schema {
    schema: String,
    builtin: String,
    actions: Vec<Action>,
}

#[derive(Debug, Deserialize)]
struct Action {
    name: String,
    about: String,
    resources: Vec<String>,
    role: Option<String>,
}

/// The policies of a file.
fn drafts(path: &Path, terminal: &mut Terminal<'_>) -> Result<Vec<Value>, Failure> {
    let draft = |name: &str, cedar: &str| json!({"name": name, "cedar": cedar});
    if path.extension().is_some_and(|extension| extension == "cedar") {
        let name = path.file_stem().and_then(|stem| stem.to_str()).unwrap_or_default();
        let name = KeyId::parse(name).map_err(|error| Failure::refused(format!("{}: {error}", path.display())))?;
        return Ok(vec![draft(name.as_str(), &read_file(path)?)]);
    }
    let written = read_all(&[path.to_owned()], terminal)?;
    let policy = |one: &crate::files::Written| match &one.resource.spec {
        Spec::Policy(spec) => Ok(draft(&one.resource.metadata.name, &spec.cedar)),
        other => Err(Failure::refused(format!(
            "{}: a {}, only policies can be tried",
            one.place,
            other.kind()
        ))),
    };
    written.iter().map(policy).collect()
}

async fn test(client: &AdminClient, args: &PolicyTestArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let mut policies = Vec::new();
    for file in &args.files {
        policies.extend(drafts(file, terminal)?);
    }
    let mut question = json!({
        "principal": args.principal, "action": args.action, "resource": args.resource, "issuer": args.issuer,
        "groups": args.groups, "policies": policies,
    });
    if let Some(role) = &args.role {
        question["role"] = json!(role);
    }
    let told: Value = client.post("/policy-test", &question).await?;
    let answer: Answer =
        Answer::deserialize(&told).map_err(|error| Failure::refused(format!("an unknown answer: {error}")))?;
    if args.output == OutputFormat::Table {
        let verdict = if answer.allowed { "allowed" } else { "denied" };
        writeln!(
            terminal.out,
            "{verdict}: {} {} {}",
            answer.principal, answer.action, answer.resource
        )?;
        writeln!(terminal.out, "because: {}", answer.reason)?;
        for one in &answer.decided_by {
            let Decided {
                policy,
                statement,
                line,
                effect,
            } = one;
            writeln!(terminal.out, "  {effect} {policy}, statement {statement} (line {line})")?;
        }
        if !answer.principal_known && !args.principal.to_ascii_lowercase().starts_with("user/") {
            writeln!(
                terminal.err,
                "{} is not there: it was taken to be what the question says",
                args.principal
            )?;
        }
    } else {
        writeln!(terminal.out, "{}", pretty(&told))?;
    }
    if args.exit_code && !answer.allowed {
        return Err(Failure::refused("denied"));
    }
    Ok(())
}

async fn put(client: &AdminClient, args: &PolicyPutArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let key = ResourceKey::policy(&args.name);
    let spec = PolicySpec {
        description: args.description.clone(),
        cedar: read_file(&args.file)?,
    };
    let body = json!({"resources": [Resource::new(&key, spec)]});
    let path = if args.dry_run { "/apply?dry_run=true" } else { "/apply" };
    let answer: Value = client.post(path, &body).await?;
    let action = answer["results"][0]["action"].as_str().unwrap_or("written");
    let tried = if args.dry_run { " (nothing was written)" } else { "" };
    Ok(writeln!(terminal.out, "{key} {action}{tried}")?)
}

async fn schema(client: &AdminClient, args: &PolicySchemaArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let answer: Schema = client.get("/policy-schema").await?;
    if args.cedar {
        return Ok(write!(terminal.out, "{}", answer.schema)?);
    }
    if args.builtin {
        return Ok(write!(terminal.out, "{}", answer.builtin)?);
    }
    let mut table = crate::table::new(&["action", "done to", "least role", "what it is"]);
    for action in answer.actions {
        let role = action.role.unwrap_or_else(|| "scope infer".to_owned());
        table.add_row([action.name, action.resources.join(", "), role, action.about]);
    }
    Ok(write!(terminal.out, "{}", crate::table::text(&table))?)
}

pub(crate) async fn policy(
    client: &AdminClient,
    command: &PolicyCommand,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    match command {
        PolicyCommand::Test(args) => test(client, args, terminal).await,
        PolicyCommand::Put(args) => put(client, args, terminal).await,
        PolicyCommand::Schema(args) => schema(client, args, terminal).await,
    }
}
