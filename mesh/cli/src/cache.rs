//! `cache purge`: forgets the answers that are remembered of an endpoint.

use clap::{Args, Subcommand};
use mesh_resources::Kind;
use mesh_types::TenantId;
use serde::Deserialize;
use serde_json::json;

use crate::{Failure, Terminal, client::AdminClient, paths};

/// `mesh cache`.
#[derive(Debug, Clone, Subcommand)]
pub enum CacheCommand {
    /// Forget the answers of an endpoint, so that each is computed again.
    #[command(after_help = "Examples:
  mesh cache purge digits -t acme
  mesh cache purge acme/digits")]
    Purge(CachePurgeArgs),
}

/// `mesh cache purge`.
#[derive(Debug, Clone, Args)]
pub struct CachePurgeArgs {
    /// The endpoint; `tenant/name` does as well.
    pub name: String,
    /// The tenant.
    #[arg(short, long)]
    pub tenant: Option<TenantId>,
}

#[derive(Deserialize)]
struct Purged {
    entries: u64,
    bytes: u64,
}

pub(crate) async fn purge(
    client: &AdminClient,
    args: &CachePurgeArgs,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let key = paths::key(Kind::Endpoint, &args.name, args.tenant.as_ref())?;
    let path = format!("{}/cache/purge", paths::of(&key));
    let Purged { entries, bytes } = client.post(&path, &json!({})).await?;
    writeln!(terminal.out, "{key}: forgot {entries} answers of {bytes} bytes")?;
    Ok(())
}
