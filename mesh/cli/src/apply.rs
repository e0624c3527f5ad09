//! `apply` and `diff`: what files say, sent as one change.

use mesh_resources::{Resource, ResourceKey};
use serde::Deserialize;
use serde_json::json;

use crate::{ApplyArgs, DiffArgs, Failure, Terminal, client::AdminClient, diff::line_diff, files};

/// What became of one resource.
#[derive(Debug, Deserialize)]
pub(crate) struct Applied {
    pub(crate) key: ResourceKey,
    pub(crate) action: String,
    pub(crate) revision: Option<u64>,
    pub(crate) before: Option<Resource>,
    pub(crate) after: Option<Resource>,
}

#[derive(Debug, Deserialize)]
struct Results {
    results: Vec<Applied>,
}

async fn send(client: &AdminClient, written: &[files::Written], dry_run: bool) -> Result<Vec<Applied>, Failure> {
    let resources: Vec<_> = written.iter().map(|one| &one.resource).collect();
    let path = format!("/apply?dry_run={dry_run}");
    let sent = client.post::<Results>(&path, &json!({ "resources": resources })).await;
    sent.map(|answer| answer.results)
        .map_err(|failure| name_places(failure, written))
}

/// The API names a resource by its position; a person wants its file.
fn name_places(failure: Failure, written: &[files::Written]) -> Failure {
    let Failure::Refused { message, mut problems } = failure else {
        return failure;
    };
    for problem in &mut problems {
        let rest = problem.field.strip_prefix("resources[");
        let Some((index, field)) = rest.and_then(|rest| rest.split_once(']')) else {
            continue;
        };
        if let Some(one) = index.parse().ok().and_then(|index: usize| written.get(index)) {
            problem.field = format!("{}: {}", one.place, field.trim_start_matches('.'));
        }
    }
    Failure::Refused { message, problems }
}

pub(crate) async fn apply(client: &AdminClient, args: &ApplyArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let written = files::read_all(&args.files, terminal)?;
    let results = send(client, &written, args.dry_run).await?;
    for Applied {
        key, action, revision, ..
    } in &results
    {
        let revision = revision.filter(|_| !args.dry_run && action != "unchanged");
        let revision = revision
            .map(|revision| format!(" (revision {revision})"))
            .unwrap_or_default();
        writeln!(terminal.out, "{action:<9} {key}{revision}")?;
    }
    if args.dry_run {
        writeln!(terminal.err, "dry run: nothing was changed")?;
    }
    Ok(())
}

pub(crate) async fn diff(client: &AdminClient, args: &DiffArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let written = files::read_all(&args.files, terminal)?;
    let results = send(client, &written, true).await?;
    let changed: Vec<_> = results.iter().filter(|result| result.action != "unchanged").collect();
    for result in &changed {
        writeln!(terminal.out, "{} ({})", result.key, result.action)?;
        let text = |resource: &Option<Resource>| resource.as_ref().map(declared).transpose();
        let before = text(&result.before)?.unwrap_or_default();
        let after = text(&result.after)?.unwrap_or_default();
        write!(terminal.out, "{}", line_diff(&before, &after))?;
    }
    match changed.len() {
        0 => writeln!(terminal.err, "no difference")?,
        count if args.exit_code => return Err(Failure::refused(format!("{count} resources differ"))),
        _ => {}
    }
    Ok(())
}

/// A resource as a person declares it: without what the mesh keeps of it.
pub(crate) fn declared(resource: &Resource) -> Result<String, Failure> {
    let mut resource = resource.clone();
    resource.metadata.revision = None;
    resource.metadata.created = None;
    resource.metadata.updated = None;
    yaml(&resource)
}

pub(crate) fn yaml(value: &impl serde::Serialize) -> Result<String, Failure> {
    serde_yaml_ng::to_string(value).map_err(|error| Failure::refused(format!("cannot write yaml: {error}")))
}
