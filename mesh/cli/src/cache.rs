//! `cache purge`: forgets the answers that are remembered of an endpoint, or of all that a tenant has.

use clap::{Args, Subcommand};
use mesh_resources::{Kind, ResourceKey};
use mesh_types::TenantId;
use serde::Deserialize;
use serde_json::json;

use crate::{Failure, Terminal, client::AdminClient, paths};

/// `mesh cache`.
#[derive(Debug, Clone, Subcommand)]
pub enum CacheCommand {
    /// Forget the answers of an endpoint, or of all endpoints of a tenant, so that each is computed again.
    #[command(after_help = "Examples:
  mesh cache purge digits -t acme
  mesh cache purge acme/digits
  mesh cache purge --all -t acme")]
    Purge(CachePurgeArgs),
}

/// `mesh cache purge`.
#[derive(Debug, Clone, Args)]
pub struct CachePurgeArgs {
    /// The endpoint; `tenant/name` does as well.
    #[arg(required_unless_present = "all")]
    pub name: Option<String>,
    /// The tenant.
    #[arg(short, long)]
    pub tenant: Option<TenantId>,
    /// All endpoints of the tenant.
    #[arg(long, conflicts_with = "name", requires = "tenant")]
    pub all: bool,
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
    let key = match (&args.name, &args.tenant) {
        (Some(name), tenant) => paths::key(Kind::Endpoint, name, tenant.as_ref())?,
        (None, Some(tenant)) if args.all => ResourceKey::tenant(tenant),
        // The command line has been read with one or the other.
        (None, _) => {
            return Err(Failure::refused(
                "whose cache? name an endpoint, or write --all --tenant TENANT",
            ));
        }
    };
    let path = format!("{}/cache/purge", paths::of(&key));
    let Purged { entries, bytes } = client.post(&path, &json!({})).await?;
    writeln!(terminal.out, "{key}: forgot {entries} answers, {bytes} bytes in all")?;
    Ok(())
}
