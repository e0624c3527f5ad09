//! The metrics of one tenant: those series of all that are its own, and no other's.
//!
//! A series is whose its `tenant` label says: who has called, or whose certificate, limit or device time it is. One without such a
//! label is whose model or ensemble it is about. What is about nobody (devices, doors, issuers, stages) is nobody's here, and
//! neither is what is counted together for tenants past the bound on labels: a tenant of that very name has no view of it.
//!
//! Invariant: no line is kept but for a whole label that names the tenant; a text within another label's value never does, since it
//! is read as that value.

use std::fmt::Write as _;

use mesh_types::TenantId;
use prometheus_client::encoding::text::encode;

use crate::{
    labels::OTHER,
    metrics::Metrics,
    series::{MAX_TENANT_LABELS, SeriesTable},
};

/// Labels that name a model or an ensemble, with its tenant in front.
const OWNED: [&str; 2] = ["model", "ensemble"];

/// The value of a label of a line, as it is written there; none where the line has no such label.
fn label<'a>(line: &'a str, wanted: &str) -> Option<&'a str> {
    let (_, mut rest) = line.split_once('{')?;
    loop {
        let (name, after) = rest.split_once("=\"")?;
        let mut escaped = false;
        let end = after.find(|character| {
            let ends = character == '"' && !escaped;
            escaped = character == '\\' && !escaped;
            ends
        })?;
        let (value, after) = after.split_at(end);
        if name == wanted {
            return Some(value);
        }
        rest = after.strip_prefix("\",")?;
    }
}

fn is_of(line: &str, tenant: &str) -> bool {
    if let Some(named) = label(line, "tenant") {
        return named == tenant;
    }
    let owner = |name: &&str| label(line, name)?.split_once('/').map(|(owner, _)| owner);
    OWNED.iter().find_map(owner) == Some(tenant)
}

/// Of a text of metrics, the lines of this tenant, and what is said of their families.
fn lines_of(text: &str, tenant: &str, kept: &mut String) -> std::fmt::Result {
    // What is said of a family comes before its lines, and is written once one of them is.
    let (mut about, mut begins) = (Vec::new(), true);
    for line in text.lines() {
        if line.starts_with('#') {
            if begins {
                about.clear();
            }
            about.push(line);
            begins = false;
            continue;
        }
        begins = true;
        if is_of(line, tenant) {
            for line in about.drain(..) {
                writeln!(kept, "{line}")?;
            }
            writeln!(kept, "{line}")?;
        }
    }
    Ok(())
}

impl SeriesTable {
    /// Whether this tenant's requests are, or would be, counted apart from others'.
    fn tells_apart(&self, tenant: &str) -> bool {
        tenant != OTHER && (self.tenants().knows(tenant) || self.tenants().len() < MAX_TENANT_LABELS)
    }
}

impl Metrics {
    /// What is one tenant's of everything, in the OpenMetrics text format.
    pub fn encode_prometheus_of(&self, tenant: &TenantId) -> Result<String, std::fmt::Error> {
        let tenant = tenant.as_str();
        let apart = self.requests.tells_apart(tenant);
        let mut text = String::new();
        writeln!(
            text,
            "# HELP mesh_tenant_told_apart Whether the tenant has series of its own: 0 where it is counted together with others.\n\
             # TYPE mesh_tenant_told_apart gauge\n\
             mesh_tenant_told_apart{{tenant=\"{tenant}\"}} {}",
            u8::from(apart)
        )?;
        if tenant != OTHER {
            let mut all = self.encode_lines(Some(tenant))?;
            encode(&mut all, &self.registry.read())?;
            lines_of(&all, tenant, &mut text)?;
        }
        text.push_str("# EOF\n");
        Ok(text)
    }
}

#[cfg(test)]
#[path = "tenants_tests.rs"]
mod tests;
