//! `key create`: a tenant's API key, shown once and alone on stdout.

use std::time::{Duration, SystemTime};

use jiff::Timestamp;
use mesh_resources::Resource;
use serde::Deserialize;
use serde_json::json;

use crate::{Failure, KeyCreateArgs, Terminal, client::AdminClient, spans};

/// When a key ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expiry {
    /// So long from now.
    In(Duration),
    /// At this time.
    At(Timestamp),
}

impl Expiry {
    /// Reads `90d` or an RFC 3339 time.
    pub fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(time) => Ok(Self::At(time)),
            Err(_) => spans::parse(text)
                .map(Self::In)
                .map_err(|error| format!("{error}, or a date such as 2030-01-31T00:00:00Z")),
        }
    }

    pub(crate) fn counted_from(self, now: SystemTime) -> Result<Timestamp, Failure> {
        match self {
            Self::At(time) => Ok(time),
            Self::In(span) => Timestamp::try_from(now + span)
                .map_err(|error| Failure::refused(format!("cannot tell that time: {error}"))),
        }
    }
}

#[derive(Deserialize)]
struct Created {
    key: String,
    resource: Resource,
}

pub(crate) async fn create(
    client: &AdminClient,
    args: &KeyCreateArgs,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let expires = args
        .expires
        .map(|expiry| expiry.counted_from(SystemTime::now()))
        .transpose()?;
    let mut body = json!({});
    if let Some(expires) = expires {
        body["expires"] = json!(expires);
    }
    if let Some(description) = &args.description {
        body["description"] = json!(description);
    }
    if !args.groups.is_empty() {
        body["groups"] = json!(args.groups);
    }
    let created: Created = client.post(&format!("/tenants/{}/keys", args.tenant), &body).await?;
    writeln!(terminal.out, "{}", created.key)?;
    let until = expires.map_or_else(|| "does not expire".to_owned(), |time| format!("expires {time}"));
    writeln!(
        terminal.err,
        "key {} of {} ({until}); it cannot be shown again\nuse it: export MESH_API_KEY=...   take it back: mesh delete key {} -t {}",
        created.resource.metadata.name, args.tenant, created.resource.metadata.name, args.tenant
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn expiry_is_a_span_or_a_date() {
        assert_eq!(Expiry::parse("90d"), Ok(Expiry::In(Duration::from_secs(7_776_000))));
        assert!(matches!(Expiry::parse("2030-01-31T00:00:00Z"), Ok(Expiry::At(_))));
        assert!(Expiry::parse("soon").unwrap_err().contains("2030"));
        let now = SystemTime::UNIX_EPOCH;
        let end = Expiry::In(Duration::from_secs(60)).counted_from(now).unwrap();
        assert_eq!(end.to_string(), "1970-01-01T00:01:00Z");
    }
}
