//! `cache purge`: forgets the answers that are remembered of an endpoint.

use mesh_resources::Kind;
use serde::Deserialize;
use serde_json::json;

use crate::{CachePurgeArgs, Failure, Terminal, client::AdminClient, paths};

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
