//! `usage`: what tenants, and the subjects of their tokens, have used today and this month, beside their budgets.

use clap::Args;
use mesh_types::TenantId;
use serde::Deserialize;
use serde_json::Value;

use crate::{
    Failure, OutputFormat, Terminal,
    apply::yaml,
    client::AdminClient,
    get::{MAX_LISTED, escape, pretty},
    table,
};

/// `mesh usage`.
#[derive(Debug, Clone, Args)]
pub struct UsageArgs {
    /// The tenant; absent: all.
    pub tenant: Option<TenantId>,
    /// Of each subject of the tenant's tokens, where those have budgets: who has used the most requests this month comes first.
    #[arg(long, requires = "tenant")]
    pub subjects: bool,
    /// The most subjects that are shown.
    #[arg(long, requires = "subjects", default_value_t = 100, value_parser = clap::value_parser!(u16).range(1..=10_000))]
    pub limit: u16,
    /// How to print.
    #[arg(short, long, value_enum, default_value_t)]
    pub output: OutputFormat,
}

#[derive(Debug, Deserialize)]
struct Used {
    requests: u64,
    rows: u64,
    input_bytes: u64,
    device_ms: u64,
}

#[derive(Debug, Deserialize)]
struct View {
    tenant: String,
    day: String,
    daily: Used,
    month: String,
    monthly: Used,
    #[serde(default)]
    budgets: Value,
}

/// What each subject of a tenant's tokens has used, in pages.
#[derive(Debug, Deserialize)]
struct Subjects {
    day: String,
    month: String,
    #[serde(default)]
    budgets: Value,
    items: Vec<OfSubject>,
    total: usize,
}

#[derive(Debug, Deserialize)]
struct OfSubject {
    issuer: String,
    subject: String,
    daily: Used,
    monthly: Used,
}

/// What is used of each unit, beside the marks of a window's budget if it has some: `81 of 100`.
fn beside(budgets: &Value, window: &str, used: &Used) -> [String; 4] {
    let units = [
        ("requests", used.requests),
        ("rows", used.rows),
        ("input_bytes", used.input_bytes),
        ("device_ms", used.device_ms),
    ];
    units.map(|(unit, used)| {
        let marks = budgets.get(window).and_then(|window| window.get(unit));
        let mark = |name: &str| marks.and_then(|marks| marks.get(name)).and_then(Value::as_u64);
        match (mark("hard"), mark("soft")) {
            (Some(hard), _) => format!("{used} of {hard}"),
            (None, Some(soft)) => format!("{used}, warns at {soft}"),
            (None, None) => used.to_string(),
        }
    })
}

fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::refused(format!(
        "the answer cannot be read ({error}): is the mesh of another version?"
    ))
}

/// The names of a row's figures.
const UNITS: [&str; 4] = ["requests", "rows", "input bytes", "device ms"];

fn row(names: &[&str], used: [String; 4]) -> Vec<String> {
    names.iter().map(|name| (*name).to_owned()).chain(used).collect()
}

pub(crate) async fn usage(client: &AdminClient, args: &UsageArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    if let Some(tenant) = args.tenant.as_ref().filter(|_| args.subjects) {
        return subjects(client, tenant, args, terminal).await;
    }
    let items = match &args.tenant {
        Some(tenant) => vec![client.get(&format!("/tenants/{tenant}/usage")).await?],
        None => all(client).await?,
    };
    match args.output {
        OutputFormat::Json => writeln!(terminal.out, "{}", pretty(&Value::Array(items)))?,
        OutputFormat::Yaml => write!(terminal.out, "{}", yaml(&Value::Array(items))?)?,
        OutputFormat::Table => {
            let mut table = table::new(&[&["tenant", "in"][..], &UNITS].concat());
            for item in items {
                let view = View::deserialize(item).map_err(|error| unreadable(&error))?;
                let (daily, monthly) = ("daily", "monthly");
                let used = beside(&view.budgets, daily, &view.daily);
                table.add_row(row(&[&view.tenant, &view.day], used));
                let used = beside(&view.budgets, monthly, &view.monthly);
                table.add_row(row(&[&view.tenant, &view.month], used));
            }
            write!(terminal.out, "{}", table::text(&table))?;
        }
    }
    Ok(())
}

/// A name that whoever has issued a token chose, without signs that a terminal would obey.
fn shown(name: &str) -> String {
    let sign = |sign: char| {
        if sign.is_control() {
            sign.escape_default().collect()
        } else {
            sign.to_string()
        }
    };
    name.chars().map(sign).collect()
}

async fn subjects(
    client: &AdminClient,
    tenant: &TenantId,
    args: &UsageArgs,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let all = subjects_of(client, tenant, usize::from(args.limit)).await?;
    match args.output {
        OutputFormat::Json => writeln!(terminal.out, "{}", pretty(&all))?,
        OutputFormat::Yaml => write!(terminal.out, "{}", yaml(&all)?)?,
        OutputFormat::Table => {
            let all = Subjects::deserialize(all).map_err(|error| unreadable(&error))?;
            let mut table = table::new(&[&["issuer", "subject", "in"][..], &UNITS].concat());
            for of in &all.items {
                let (issuer, subject) = (shown(&of.issuer), shown(&of.subject));
                let used = beside(&all.budgets, "daily", &of.daily);
                table.add_row(row(&[&issuer, &subject, &all.day], used));
                let used = beside(&all.budgets, "monthly", &of.monthly);
                table.add_row(row(&[&issuer, &subject, &all.month], used));
            }
            write!(terminal.out, "{}", table::text(&table))?;
            if all.items.len() < all.total {
                let (shown, total) = (all.items.len(), all.total);
                writeln!(terminal.out, "{shown} of {total} subjects: more with --limit")?;
            }
        }
    }
    Ok(())
}

/// The first answer, with the items of as many pages as it takes.
async fn subjects_of(client: &AdminClient, tenant: &TenantId, limit: usize) -> Result<Value, Failure> {
    const PAGE: usize = 1_000;
    let path = |cursor: usize| {
        let limit = PAGE.min(limit - cursor);
        format!("/tenants/{tenant}/usage/subjects?limit={limit}&cursor={cursor}")
    };
    let mut first: Value = client.get(&path(0)).await?;
    let mut next = first.get("next").cloned();
    while let Some(cursor) = next.as_ref().and_then(Value::as_str).and_then(|next| next.parse().ok()) {
        if cursor >= limit {
            break;
        }
        let mut page: Value = client.get(&path(cursor)).await?;
        if let (Some(Value::Array(items)), Some(Value::Array(more))) = (first.get_mut("items"), page.get_mut("items")) {
            items.append(more);
        }
        next = page.get("next").cloned();
    }
    if let Some(told) = first.get_mut("next") {
        *told = next.unwrap_or_default();
    }
    Ok(first)
}

async fn all(client: &AdminClient) -> Result<Vec<Value>, Failure> {
    let (mut items, mut cursor) = (Vec::new(), None::<String>);
    loop {
        let path = match &cursor {
            None => "/usage?limit=1000".to_owned(),
            Some(cursor) => format!("/usage?limit=1000&cursor={}", escape(cursor)),
        };
        let mut page: Value = client.get(&path).await?;
        if let Some(Value::Array(more)) = page.get_mut("items").map(Value::take) {
            items.extend(more);
        }
        match page.get("next").and_then(Value::as_str) {
            Some(next) => cursor = Some(next.to_owned()),
            None => return Ok(items),
        }
        if items.len() >= MAX_LISTED {
            return Err(Failure::refused(format!("more than {MAX_LISTED} tenants: name one")));
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::commands_tests::serve;

    fn page(names: std::ops::Range<usize>, total: usize, next: Option<usize>) -> Value {
        let used = |requests| json!({"requests": requests, "rows": 0, "input_bytes": 0, "device_ms": 0});
        let item = |index: usize| {
            let subject = if index == 0 {
                "ann\u{1b}[2J".to_owned()
            } else {
                format!("user-{index}")
            };
            json!({"issuer": "https://idp.test", "subject": subject, "daily": used(1), "monthly": used(2)})
        };
        json!({
            "tenant": "acme", "day": "2026-11-26", "month": "2026-11", "total": total, "next": next.map(|next| next.to_string()),
            "budgets": {"monthly": {"requests": {"hard": 9}}}, "items": names.map(item).collect::<Vec<_>>(),
        })
    }

    #[test]
    fn subjects_are_shown_beside_their_marks_and_no_more_than_asked_for() {
        let server = serve(vec![(
            "GET",
            "/admin/v1/tenants/acme/usage/subjects?limit=2&cursor=0",
            200,
            page(0..2, 3, Some(2)),
        )]);
        let ran = server.mesh("", &["usage", "acme", "--subjects", "--limit", "2"]);
        assert_eq!((ran.code, &*ran.err), (0, ""));
        let lines: Vec<Vec<&str>> = ran.out.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(lines[0][..4], ["ISSUER", "SUBJECT", "IN", "REQUESTS"]);
        assert_eq!(lines[1][..4], ["https://idp.test", "ann\\u{1b}[2J", "2026-11-26", "1"]);
        assert_eq!(lines[2][2..6], ["2026-11", "2", "of", "9"]);
        assert!(
            ran.out.ends_with("\n2 of 3 subjects: more with --limit\n"),
            "{}",
            ran.out
        );
    }

    #[test]
    fn more_than_a_page_of_subjects_is_one_answer() {
        let server = serve(vec![
            (
                "GET",
                "/admin/v1/tenants/acme/usage/subjects?limit=1000&cursor=0",
                200,
                page(0..1_000, 1_200, Some(1_000)),
            ),
            (
                "GET",
                "/admin/v1/tenants/acme/usage/subjects?limit=500&cursor=1000",
                200,
                page(1_000..1_200, 1_200, None),
            ),
        ]);
        let ran = server.mesh("", &["usage", "acme", "--subjects", "--limit", "1500", "-o", "json"]);
        assert_eq!(ran.code, 0, "{}", ran.err);
        let all: Value = serde_json::from_str(&ran.out).unwrap();
        assert_eq!(
            (all["items"].as_array().unwrap().len(), &all["next"]),
            (1_200, &Value::Null)
        );
        // Whose subjects must be said.
        assert!(<crate::Cli as clap::Parser>::try_parse_from(["mesh", "usage", "--subjects"]).is_err());
    }
}
