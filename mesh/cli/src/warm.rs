//! `model warm`: a version brought into memory before requests come.

use std::time::Duration;

use clap::Args;
use mesh_resources::Kind;
use mesh_types::TenantId;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{Failure, Terminal, client::AdminClient, paths};

const EXAMPLES: &str = "Examples:
  mesh model warm digits -t acme            the default version, or the newest
  mesh model warm acme/digits@stable

A version that is not in memory is loaded with its first request; this loads it now. Others may have to leave for it.";

/// `mesh model warm`.
#[derive(Debug, Clone, Args)]
#[command(after_help = EXAMPLES)]
pub struct WarmArgs {
    /// The model, and after an @ the version's number or a label. `tenant/name` does as well.
    #[arg(value_name = "NAME[@VERSION]")]
    pub name: String,
    /// The tenant.
    #[arg(short, long)]
    pub tenant: Option<TenantId>,
    /// How long to wait until it is warm, such as 90s or 20m.
    #[arg(long, default_value = "10m", value_name = "TIME", value_parser = crate::spans::parse)]
    pub wait_timeout: Duration,
}

#[derive(Debug, Deserialize)]
struct Warmed {
    version: u32,
    devices: Vec<String>,
}

pub(crate) async fn warm(client: &AdminClient, args: &WarmArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let (name, version) = match args.name.split_once('@') {
        Some((_, "")) => {
            return Err(Failure::refused(
                "which version? write NAME@3, NAME@stable or just NAME",
            ));
        }
        Some((name, version)) => (name, Some(version)),
        None => (args.name.as_str(), None),
    };
    let key = paths::key(Kind::Model, name, args.tenant.as_ref())?;
    let path = format!("{}/warm", paths::of(&key));
    let body = version.map_or_else(|| json!({}), |version| json!({"version": version}));
    let answer: Value = client.post_patiently(&path, &body, args.wait_timeout).await?;
    let Warmed { version, devices } = Warmed::deserialize(answer).map_err(|error| {
        Failure::refused(format!(
            "the answer cannot be read ({error}): is the mesh of another version?"
        ))
    })?;
    writeln!(
        terminal.out,
        "{} version {version} is warm on {}",
        key.name,
        devices.join(", ")
    )?;
    Ok(())
}
