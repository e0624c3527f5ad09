//! `model import`: a Triton model repository, brought in through the admin API.
//!
//! What the repository says is `mesh_import`'s; here are only the requests, what is printed, and the exit code.

use std::path::{Path, PathBuf};

use clap::Args;
use mesh_backend::ModelFiles;
use mesh_import::{Note, Outcome, Plan, Report, Setback, Target, Weight, carry_out, plan};
use mesh_resources::{ArtifactRef, Problem, Resource, ResourceKey};
use mesh_types::TenantId;
use serde_json::{Value, json};

use crate::{Failure, GlobalOptions, Terminal, block_on, client::AdminClient, exit_code, paths, publish};

const EXAMPLES: &str = "Examples:
  mesh model import /models -t acme --dry-run      what it would do, and what is not supported
  mesh model import /models -t acme
  mesh model import /models -t acme --model resnet --model classify

A model is a folder with a config.pbtxt and version folders 1, 2, .. that hold model.pt or model.pt2. Versions keep their
numbers. Running it again writes only what differs. What is not supported is listed by model, field and line, and skipped.
Where a configuration does not say all inputs and outputs, the model's file is read, which runs its author's code.

Exit codes: 0 all of it, 1 refused or failed, 2 wrong command line, 3 unreachable, 4 conflict, 5 some models were skipped.";

/// `mesh model import`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct ImportArgs {
    /// The repository: a folder with a folder for each model.
    #[arg(value_name = "DIR")]
    pub folder: PathBuf,
    /// The tenant that is to own the models.
    #[arg(short, long)]
    pub tenant: TenantId,
    /// Only this model; may be given again.
    #[arg(short, long = "model", value_name = "NAME")]
    pub models: Vec<String>,
    /// Work everything out and say what would change, but change nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// Runs the command; the answer is the exit code.
pub fn import(args: &ImportArgs, globals: &GlobalOptions, read: &dyn ModelFiles, terminal: &mut Terminal<'_>) -> u8 {
    let result = block_on(perform(globals, args, read, terminal));
    exit_code(result, terminal)
}

pub(crate) async fn perform(
    globals: &GlobalOptions,
    args: &ImportArgs,
    read: &dyn ModelFiles,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let client = globals.admin()?;
    let plan = plan(&args.folder, &args.models, read).map_err(|error| Failure::refused(error.to_string()))?;
    let tenant = ResourceKey::tenant(&args.tenant);
    if client.find::<Resource>(&paths::of(&tenant)).await?.is_none() {
        let text = format!("there is no tenant '{}': create it first", args.tenant);
        return Err(Failure::refused(text));
    }
    list(
        terminal,
        "ignored",
        plan.notes.iter().filter(|note| note.weight == Weight::Ignored),
    )?;
    let mut api = Api {
        client: &client,
        terminal,
    };
    let report = carry_out(&plan, &args.tenant, args.dry_run, &mut api).await?;
    finish(args, &plan, &report, terminal)
}

fn finish(args: &ImportArgs, plan: &Plan, report: &Report, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let refused = plan.notes.iter().filter(|note| note.weight == Weight::Refused);
    list(terminal, "skipped", refused.chain(&report.refused))?;
    let Report { models, written, .. } = report;
    let (are, wrote) = if args.dry_run {
        ("would be", "would write")
    } else {
        ("are", "wrote")
    };
    writeln!(
        terminal.out,
        "{models} models {are} in {} as the repository says; {wrote} {written} resources",
        args.tenant
    )?;
    match plan.skipped.len() + report.refused.len() {
        0 => Ok(()),
        skipped => Err(Failure::Incomplete(format!(
            "{skipped} of {} models were skipped",
            skipped + models
        ))),
    }
}

fn list<'a>(terminal: &mut Terminal<'_>, title: &str, notes: impl Iterator<Item = &'a Note>) -> Result<(), Failure> {
    for (index, note) in notes.enumerate() {
        if index == 0 {
            writeln!(terminal.err, "{title}:")?;
        }
        writeln!(terminal.err, "  {note}")?;
    }
    Ok(())
}

/// The mesh behind the admin API.
struct Api<'a, 'b> {
    client: &'a AdminClient,
    terminal: &'a mut Terminal<'b>,
}

/// A refusal is of the model that was sent; whatever else happens would happen to all.
fn setback(failure: Failure, resources: &[Resource]) -> Setback<Failure> {
    match failure {
        Failure::Refused { message, problems } => {
            let problems: Vec<String> = problems.iter().map(|problem| named(problem, resources)).collect();
            match problems.as_slice() {
                [] => Setback::Model(message),
                problems => Setback::Model(problems.join("; ")),
            }
        }
        Failure::Conflict(message) => Setback::Model(format!("{message}; run the import again")),
        other => Setback::All(other),
    }
}

/// The API names a resource by its position; a person wants its name.
fn named(problem: &Problem, resources: &[Resource]) -> String {
    let rest = problem.field.strip_prefix("resources[");
    let part = rest.and_then(|rest| rest.split_once(']'));
    let key = part.and_then(|(index, _)| resources.get(index.parse::<usize>().ok()?)?.key().ok());
    match (part, key) {
        (Some((_, field)), Some(key)) => format!("{key}{}: {}", field.replacen('.', " ", 1), problem.problem),
        _ => problem.to_string(),
    }
}

impl Target for Api<'_, '_> {
    type Error = Failure;

    async fn find(&mut self, key: &ResourceKey) -> Result<Option<Resource>, Failure> {
        self.client.find(&paths::of(key)).await
    }

    async fn upload(&mut self, file: &Path, artifact: &ArtifactRef) -> Result<(), Setback<Failure>> {
        let uploaded = publish::upload(self.client, file, self.terminal).await;
        match uploaded.map_err(|failure| setback(failure, &[]))? {
            uploaded if uploaded == *artifact => Ok(()),
            _ => Err(Setback::Model(
                "its file changed while it was read: run the import again".to_owned(),
            )),
        }
    }

    async fn write(&mut self, resources: Vec<Resource>) -> Result<(), Setback<Failure>> {
        let body = json!({"resources": resources});
        let sent = self.client.post::<Value>("/apply?dry_run=false", &body).await;
        sent.map(drop).map_err(|failure| setback(failure, &resources))
    }

    fn tell(&mut self, outcome: &Outcome) -> Result<(), Failure> {
        Ok(writeln!(self.terminal.out, "{:<9} {}", outcome.action, outcome.key)?)
    }
}
