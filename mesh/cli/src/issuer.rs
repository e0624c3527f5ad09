//! `issuer`: the keys that an issuer's tokens are checked with, and how fetching them goes.

use serde::Deserialize;
use serde_json::Value;

use crate::{
    Failure, IssuerCommand, IssuerKeysArgs, OutputFormat, Terminal, apply::yaml, client::AdminClient, get::pretty,
    table,
};

/// The parts that are shown.
#[derive(Debug, Deserialize)]
struct Keys {
    issuer: String,
    source: String,
    url: Option<String>,
    keys: Vec<Key>,
    left_out: Vec<LeftOut>,
    fetched_at: Option<String>,
    next_refresh: Option<String>,
    kept_until: Option<String>,
    last_error: Option<String>,
    last_error_at: Option<String>,
}

#[derive(Debug, Deserialize)]
struct Key {
    key_id: Option<String>,
    algorithm: String,
    thumbprint: Option<String>,
}

#[derive(Debug, Deserialize)]
struct LeftOut {
    key_id: Option<String>,
    reason: String,
}

/// Runs `issuer`.
pub(crate) async fn issuer(
    client: &AdminClient,
    command: &IssuerCommand,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let IssuerCommand::Keys(IssuerKeysArgs { name, output }) = command;
    let value: Value = client.get(&format!("/issuers/{name}/keys")).await?;
    match output {
        OutputFormat::Json => return Ok(writeln!(terminal.out, "{}", pretty(&value))?),
        OutputFormat::Yaml => return Ok(write!(terminal.out, "{}", yaml(&value)?)?),
        OutputFormat::Table => {}
    }
    let keys = serde_json::from_value(value);
    let keys = keys.map_err(|error| Failure::refused(format!("the answer cannot be read: {error}")))?;
    Ok(write!(terminal.out, "{}", told(keys))?)
}

fn told(keys: Keys) -> String {
    let from = keys.url.map_or_else(String::new, |url| format!(" from {url}"));
    let mut text = format!("{}: keys by {}{from}\n", keys.issuer, keys.source);
    if keys.source != "declared" {
        let said = |time: Option<String>, none: &str| time.unwrap_or_else(|| none.to_owned());
        text += &format!(
            "fetched {}, next {}, used at the longest until {}\n",
            said(keys.fetched_at, "never"),
            said(keys.next_refresh, "now"),
            said(keys.kept_until, "-"),
        );
    }
    if let Some(error) = keys.last_error {
        text += &format!("failed {}: {error}\n", keys.last_error_at.unwrap_or_default());
    }
    let mut shown = table::new(&["kid", "algorithm", "thumbprint"]);
    let dash = || "-".to_owned();
    for key in keys.keys {
        let (key_id, thumbprint) = (key.key_id.unwrap_or_else(dash), key.thumbprint.unwrap_or_else(dash));
        shown.add_row([key_id, key.algorithm, thumbprint]);
    }
    text += &format!("\n{}", table::text(&shown));
    for left in keys.left_out {
        text += &format!("left out {}: {}\n", left.key_id.unwrap_or_else(dash), left.reason);
    }
    text
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn keys_are_told_with_how_fetching_them_goes() {
        let keys = json!({
            "issuer": "https://idp.test", "source": "jwks", "url": "https://idp.test/keys",
            "keys": [{"key_id": "k1", "algorithm": "ES256", "thumbprint": "print"}],
            "left_out": [{"key_id": null, "reason": "it is symmetric"}],
            "fetched_at": "2030-03-17T17:45:40Z", "next_refresh": null, "kept_until": null,
            "last_error": "answered 500", "last_error_at": "2030-03-17T17:46:39Z",
        });
        let text = told(serde_json::from_value(keys).unwrap());
        for words in [
            "https://idp.test: keys by jwks from https://idp.test/keys",
            "fetched 2030-03-17T17:45:40Z, next now, used at the longest until -",
            "failed 2030-03-17T17:46:39Z: answered 500",
            "ES256",
            "left out -: it is symmetric",
        ] {
            assert!(text.contains(words), "{text}");
        }
    }
}
