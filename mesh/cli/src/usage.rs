//! `usage`: what tenants have used today and this month, beside their budgets.

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

impl View {
    /// What is used of a budget that has a mark: `81 of 100`.
    fn beside(&self, window: &str, unit: &str, used: u64) -> String {
        let marks = self.budgets.get(window).and_then(|window| window.get(unit));
        let mark = |name: &str| marks.and_then(|marks| marks.get(name)).and_then(Value::as_u64);
        match (mark("hard"), mark("soft")) {
            (Some(hard), _) => format!("{used} of {hard}"),
            (None, Some(soft)) => format!("{used}, warns at {soft}"),
            (None, None) => used.to_string(),
        }
    }

    fn row(&self, window: &str, name: &str, used: &Used) -> [String; 6] {
        [
            self.tenant.clone(),
            name.to_owned(),
            self.beside(window, "requests", used.requests),
            self.beside(window, "rows", used.rows),
            self.beside(window, "input_bytes", used.input_bytes),
            self.beside(window, "device_ms", used.device_ms),
        ]
    }
}

fn unreadable(error: &serde_json::Error) -> Failure {
    Failure::refused(format!(
        "the answer cannot be read ({error}): is the mesh of another version?"
    ))
}

pub(crate) async fn usage(client: &AdminClient, args: &UsageArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let items = match &args.tenant {
        Some(tenant) => vec![client.get(&format!("/tenants/{tenant}/usage")).await?],
        None => all(client).await?,
    };
    match args.output {
        OutputFormat::Json => writeln!(terminal.out, "{}", pretty(&Value::Array(items)))?,
        OutputFormat::Yaml => write!(terminal.out, "{}", yaml(&Value::Array(items))?)?,
        OutputFormat::Table => {
            let mut table = table::new(&["tenant", "in", "requests", "rows", "input bytes", "device ms"]);
            for item in items {
                let view = View::deserialize(item).map_err(|error| unreadable(&error))?;
                table.add_row(view.row("daily", &view.day, &view.daily));
                table.add_row(view.row("monthly", &view.month, &view.monthly));
            }
            write!(terminal.out, "{}", table::text(&table))?;
        }
    }
    Ok(())
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
