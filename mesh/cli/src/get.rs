//! `get` and `describe`: resources as tables, JSON or YAML.

use mesh_resources::{Kind, Resource, ResourceKey, Spec};
use mesh_types::ArtifactFormat;
use serde::{Deserialize, de::DeserializeOwned};
use serde_json::{Value, json};

use crate::{
    DescribeArgs, Failure, GetArgs, OutputFormat, Terminal,
    apply::{declared, yaml},
    client::AdminClient,
    device, graph,
    key_uses::{self, Uses},
    paths, status, table,
};

/// Resources per answer, and the most that are listed.
const PAGE: usize = 200;
pub(crate) const MAX_LISTED: usize = 20_000;

#[derive(Debug, Deserialize)]
struct Page<T> {
    items: Vec<T>,
    next: Option<String>,
}

pub(crate) async fn get(client: &AdminClient, args: &GetArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let Some(name) = &args.name else {
        let listed = list::<Resource>(client, args, args.kind.plural()).await?;
        let uses = match (args.kind, args.output) {
            (Kind::ApiKey, OutputFormat::Table) => list(client, args, key_uses::PLURAL).await?.into(),
            _ => Uses::default(),
        };
        return print(terminal, args, &listed, &uses);
    };
    let key = paths::key(args.kind, name, args.tenant.as_ref())?;
    let resource = client.get::<Resource>(&paths::of(&key)).await?;
    match args.output {
        OutputFormat::Json => Ok(writeln!(terminal.out, "{}", pretty(&json!(resource)))?),
        OutputFormat::Yaml => Ok(write!(terminal.out, "{}", yaml(&resource)?)?),
        OutputFormat::Table => {
            let uses = key_uses::of(client, &key).await?;
            print(terminal, args, &[resource], &uses)
        }
    }
}

/// All pages of the resources, or of what is listed in their place.
async fn list<T: DeserializeOwned>(client: &AdminClient, args: &GetArgs, plural: &str) -> Result<Vec<T>, Failure> {
    let (mut listed, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let mut path = format!("/{plural}?limit={PAGE}");
        if let Some(tenant) = &args.tenant {
            if !args.kind.is_namespaced() {
                return Err(Failure::refused(format!(
                    "{} belong to no tenant: leave --tenant out",
                    args.kind.plural()
                )));
            }
            path.push_str(&format!("&tenant={tenant}"));
        }
        if let Some(cursor) = &cursor {
            path.push_str(&format!("&cursor={}", escape(cursor)));
        }
        let page: Page<T> = client.get(&path).await?;
        listed.extend(page.items);
        cursor = page.next;
        if cursor.is_none() {
            return Ok(listed);
        }
        if listed.len() >= MAX_LISTED {
            return Err(Failure::refused(format!(
                "more than {MAX_LISTED} resources: ask for one tenant's with --tenant"
            )));
        }
    }
}

/// Escapes what may not stand in a query.
pub(crate) fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.' | b'~' | b'/') {
            escaped.push(char::from(byte));
        } else {
            escaped.push_str(&format!("%{byte:02X}"));
        }
    }
    escaped
}

fn print(terminal: &mut Terminal<'_>, args: &GetArgs, listed: &[Resource], uses: &Uses) -> Result<(), Failure> {
    match args.output {
        OutputFormat::Json => writeln!(terminal.out, "{}", pretty(&json!({ "items": listed })))?,
        OutputFormat::Yaml => {
            for resource in listed {
                write!(terminal.out, "---\n{}", yaml(resource)?)?;
            }
        }
        OutputFormat::Table if listed.is_empty() => writeln!(terminal.err, "no {}", args.kind.plural())?,
        OutputFormat::Table => write!(terminal.out, "{}", table::resources(args.kind, listed, uses))?,
    }
    Ok(())
}

pub(crate) fn pretty(value: &Value) -> String {
    format!("{value:#}")
}

pub(crate) async fn describe(
    client: &AdminClient,
    args: &DescribeArgs,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let key = paths::key(args.kind, &args.name, args.tenant.as_ref())?;
    let resource = client.get::<Resource>(&paths::of(&key)).await?;
    writeln!(terminal.out, "{key}")?;
    let meta = &resource.metadata;
    let shown = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
    writeln!(
        terminal.out,
        "revision {}",
        shown(meta.revision.map(|revision| revision.to_string()))
    )?;
    writeln!(
        terminal.out,
        "created  {}",
        shown(meta.created.map(|time| time.to_string()))
    )?;
    writeln!(
        terminal.out,
        "updated  {}\n",
        shown(meta.updated.map(|time| time.to_string()))
    )?;
    write!(terminal.out, "{}", declared(&resource)?)?;
    let tenant = key.tenant.as_ref().map_or("", |tenant| tenant.as_str());
    let live = match &resource.spec {
        Spec::ModelVersion(spec) if spec.format == ArtifactFormat::Ensemble => {
            graph::of_version(client, tenant, &key.name).await?
        }
        _ => live(client, &key).await?,
    };
    if let Some(live) = live {
        write!(terminal.out, "\nNow\n{live}")?;
    }
    Ok(())
}

/// What is going on with it, for the kinds where something goes on.
async fn live(client: &AdminClient, key: &ResourceKey) -> Result<Option<String>, Failure> {
    if !matches!(
        key.kind,
        Kind::ApiKey | Kind::Endpoint | Kind::Model | Kind::ModelVersion | Kind::Tenant
    ) {
        return Ok(None);
    }
    if key.kind == Kind::ApiKey {
        return Ok(Some(format!(
            "last used {}\n",
            key_uses::of(client, key).await?.one(key)
        )));
    }
    let overview: status::Overview = client.get("/overview").await?;
    let tenant = key.tenant.as_ref().map_or(key.name.as_str(), |tenant| tenant.as_str());
    let (model, version) = key.name.split_once('/').unwrap_or((&key.name, ""));
    Ok(Some(match key.kind {
        Kind::Tenant => overview.endpoints_table(|row| row.tenant == tenant),
        Kind::Endpoint => overview.endpoints_table(|row| row.tenant == tenant && row.target == key.name),
        _ => {
            let wanted = |of: &str, name: &str, number: u32| {
                of == tenant && name == model && (version.is_empty() || number.to_string() == version)
            };
            let table = overview.devices_table(|held| wanted(&held.tenant, &held.model, held.version));
            let loads = device::loads_of(client, wanted).await?;
            if loads.is_empty() {
                table
            } else {
                format!("{table}\n{loads}")
            }
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cursors_are_escaped() {
        assert_eq!(escape("Endpoint/acme/a b&c"), "Endpoint/acme/a%20b%26c");
    }
}
