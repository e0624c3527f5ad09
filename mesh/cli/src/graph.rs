//! `model graph`: an ensemble's graph as text, for Graphviz, or as JSON; and the wait until an ensemble is ready.

use clap::{Args, ValueEnum};
use mesh_types::{ModelId, TenantId, VersionSelector};
use serde::Deserialize;
use serde_json::Value;
use tokio::time::Instant;

use crate::{Failure, Terminal, client::AdminClient, get::pretty, publish::POLL, table};

/// `mesh model graph`.
#[derive(Debug, Clone, Args)]
pub struct GraphArgs {
    /// The model, and if need be its version by number or label: `scan`, `acme/scan`, `scan@stable`.
    #[arg(value_name = "NAME[@VERSION]")]
    pub name: String,
    /// The tenant.
    #[arg(short, long)]
    pub tenant: Option<TenantId>,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: GraphFormat,
}

/// How to print a graph.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, ValueEnum)]
pub enum GraphFormat {
    /// For people.
    #[default]
    Text,
    /// For Graphviz.
    Dot,
    /// One JSON value.
    Json,
}

/// The part of the answer that is printed.
#[derive(Debug, Deserialize)]
struct Graph {
    tenant: String,
    model: String,
    version: u32,
    ready: bool,
    reason: Option<String>,
    text: String,
    dot: String,
    steps: Vec<Step>,
    numbers: Option<Numbers>,
}

#[derive(Debug, Deserialize)]
struct Step {
    name: String,
    numbers: Option<StepNumbers>,
}

#[derive(Debug, Deserialize)]
struct Numbers {
    ok: u64,
    failed: u64,
    cancelled: u64,
    mean_ms: Option<f64>,
    mean_compose_ms: Option<f64>,
}

#[derive(Debug, Deserialize)]
struct StepNumbers {
    ok: u64,
    failed: u64,
    cancelled: u64,
    left_out: u64,
    mean_ms: Option<f64>,
}

/// The route of a graph.
fn path(args: &GraphArgs) -> Result<String, Failure> {
    let (name, version) = match args.name.split_once('@') {
        Some((name, version)) => (name, Some(version)),
        None => (args.name.as_str(), None),
    };
    let (tenant, model) = match (name.split_once('/'), &args.tenant) {
        (Some((tenant, model)), None) => (TenantId::parse(tenant), model),
        (None, Some(tenant)) => (Ok(tenant.clone()), name),
        (Some(_), Some(_)) => return Err(Failure::refused("the tenant is said twice: leave --tenant out")),
        (None, None) => return Err(Failure::refused("which tenant? say --tenant, or tenant/model")),
    };
    let wrong = |error: mesh_types::NameError| Failure::refused(error.to_string());
    let (tenant, model) = (tenant.map_err(wrong)?, ModelId::parse(model).map_err(wrong)?);
    let query = match version {
        None => String::new(),
        Some(version) => {
            VersionSelector::parse(version).map_err(wrong)?;
            format!("?version={version}")
        }
    };
    Ok(format!("/tenants/{tenant}/models/{model}/graph{query}"))
}

pub(crate) async fn graph(client: &AdminClient, args: &GraphArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let path = path(args)?;
    if args.output == GraphFormat::Json {
        let answer: Value = client.get(&path).await?;
        return Ok(writeln!(terminal.out, "{}", pretty(&answer))?);
    }
    let graph: Graph = client.get(&path).await?;
    if args.output == GraphFormat::Dot && !graph.dot.is_empty() {
        return Ok(write!(terminal.out, "{}", graph.dot)?);
    }
    let name = format!("{}/{}/{}", graph.tenant, graph.model, graph.version);
    if graph.text.is_empty() {
        return Err(Failure::refused(format!("{name} is {}", state(&graph))));
    }
    Ok(write!(terminal.out, "{name}  {}", shown(&graph))?)
}

/// An ensemble as it stands, for who describes its version; none where it was only just written.
pub(crate) async fn of_version(client: &AdminClient, tenant: &str, name: &str) -> Result<Option<String>, Failure> {
    let (model, number) = name.split_once('/').unwrap_or((name, ""));
    let path = format!("/tenants/{tenant}/models/{model}/graph?version={number}");
    match client.get::<Graph>(&path).await {
        Ok(graph) => Ok(Some(shown(&graph))),
        Err(Failure::Refused { .. }) => Ok(None),
        Err(other) => Err(other),
    }
}

fn state(graph: &Graph) -> String {
    match (&graph.reason, graph.ready) {
        (Some(reason), true) => format!("ready: {reason}"),
        (None, true) => "ready".to_owned(),
        (Some(reason), false) => format!("not ready: {reason}"),
        (None, false) => "not ready".to_owned(),
    }
}

fn shown(graph: &Graph) -> String {
    let mut text = format!("{}\n", state(graph));
    if !graph.text.is_empty() {
        text.push('\n');
        text.push_str(&graph.text);
    }
    if let Some(numbers) = &graph.numbers {
        text.push('\n');
        text.push_str(&counted(numbers, &graph.steps));
    }
    text
}

fn milliseconds(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.3}"))
}

fn counted(numbers: &Numbers, steps: &[Step]) -> String {
    let mut table = table::new(&["step", "ok", "failed", "cancelled", "left out", "mean ms"]);
    let whole = vec![
        "(all)".to_owned(),
        numbers.ok.to_string(),
        numbers.failed.to_string(),
        numbers.cancelled.to_string(),
        "-".to_owned(),
        milliseconds(numbers.mean_ms),
    ];
    let between = vec![
        "(between steps)".to_owned(),
        "-".to_owned(),
        "-".to_owned(),
        "-".to_owned(),
        "-".to_owned(),
        milliseconds(numbers.mean_compose_ms),
    ];
    let step = |step: &Step| {
        let of = step.numbers.as_ref()?;
        Some(vec![
            step.name.clone(),
            of.ok.to_string(),
            of.failed.to_string(),
            of.cancelled.to_string(),
            of.left_out.to_string(),
            milliseconds(of.mean_ms),
        ])
    };
    for row in [whole, between].into_iter().chain(steps.iter().filter_map(step)) {
        table.add_row(row);
    }
    table::text(&table)
}

/// Waits until an ensemble is ready.
pub(crate) async fn wait(
    client: &AdminClient,
    (tenant, model, number): (&str, &str, &str),
    deadline: Instant,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let path = format!("/tenants/{tenant}/models/{model}/graph?version={number}");
    let mut reason = "it was only just written".to_owned();
    loop {
        // Until the mesh has looked at the new version there is no such graph.
        match client.get::<Graph>(&path).await {
            Ok(graph) if graph.ready => return Ok(writeln!(terminal.out, "ready     all of its steps")?),
            Ok(graph) => reason = graph.reason.unwrap_or_default(),
            Err(Failure::Refused { .. }) => {}
            Err(other) => return Err(other),
        }
        if Instant::now() >= deadline {
            return Err(Failure::refused(format!("published, but not ready: {reason}")));
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(name: &str, tenant: Option<&str>) -> Result<String, String> {
        let args = GraphArgs {
            name: name.to_owned(),
            tenant: tenant.map(|tenant| TenantId::parse(tenant).unwrap()),
            output: GraphFormat::Text,
        };
        path(&args).map_err(|failure| failure.to_string())
    }

    #[test]
    fn a_model_is_named_with_its_tenant_and_a_version() {
        assert_eq!(of("scan", Some("acme")).unwrap(), "/tenants/acme/models/scan/graph");
        assert_eq!(
            of("acme/scan@stable", None).unwrap(),
            "/tenants/acme/models/scan/graph?version=stable"
        );
        for (name, tenant) in [
            ("scan", None),
            ("acme/scan", Some("acme")),
            ("acme/scan@No", None),
            ("acme/No", None),
            ("a/b/c", None),
        ] {
            assert!(of(name, tenant).is_err(), "{name}");
        }
    }
}
