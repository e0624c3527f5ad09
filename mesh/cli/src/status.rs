//! `status`: the overview as tables.

use serde::Deserialize;
use serde_json::Value;

use crate::{Failure, OutputFormat, StatusArgs, Terminal, apply::yaml, client::AdminClient, get::pretty, table};

/// The parts of the overview that are shown.
#[derive(Debug, Deserialize)]
pub(crate) struct Overview {
    uptime_seconds: f64,
    in_flight: i64,
    totals: Totals,
    rates: Rates,
    latency_ms: Latency,
    endpoints: Vec<EndpointRow>,
    pub(crate) devices: Vec<Device>,
}

#[derive(Debug, Deserialize)]
struct Totals {
    ok: u64,
    refused: u64,
    errors: u64,
}

#[derive(Debug, Deserialize)]
struct Rates {
    requests_per_second: f64,
    errors_per_second: f64,
    refused_per_second: f64,
}

#[derive(Debug, Deserialize)]
struct Latency {
    p50: Option<f64>,
    p90: Option<f64>,
    p99: Option<f64>,
}

/// One way that requests go.
#[derive(Debug, Deserialize)]
pub(crate) struct EndpointRow {
    pub(crate) tenant: String,
    pub(crate) target: String,
    arm: String,
    version: u32,
    requests_per_second: f64,
    p50_ms: Option<f64>,
    p99_ms: Option<f64>,
    ok: u64,
    errors: u64,
    refused: u64,
}

#[derive(Debug, Deserialize)]
pub(crate) struct Device {
    pub(crate) device: String,
    pub(crate) models: Vec<Held>,
}

/// A model version on a device.
#[derive(Debug, Deserialize)]
pub(crate) struct Held {
    pub(crate) tenant: String,
    pub(crate) model: String,
    pub(crate) version: u32,
    pub(crate) state: String,
    pub(crate) reason: Option<String>,
    memory_bytes: Option<u64>,
}

pub(crate) fn milliseconds(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.2}"))
}

fn or_dash(text: &str) -> String {
    if text.is_empty() {
        "-".to_owned()
    } else {
        text.to_owned()
    }
}

impl Overview {
    pub(crate) fn endpoints_table(&self, wanted: impl Fn(&EndpointRow) -> bool) -> String {
        let columns = [
            "tenant", "target", "arm", "version", "req/s", "p50 ms", "p99 ms", "ok", "errors", "refused",
        ];
        let mut table = table::new(&columns);
        for row in self.endpoints.iter().filter(|row| wanted(row)) {
            let version = if row.version == 0 {
                "-".to_owned()
            } else {
                row.version.to_string()
            };
            table.add_row([
                row.tenant.clone(),
                or_dash(&row.target),
                or_dash(&row.arm),
                version,
                format!("{:.1}", row.requests_per_second),
                milliseconds(row.p50_ms),
                milliseconds(row.p99_ms),
                row.ok.to_string(),
                row.errors.to_string(),
                row.refused.to_string(),
            ]);
        }
        if table.is_empty() {
            return "no requests yet\n".to_owned();
        }
        table::text(&table)
    }

    pub(crate) fn devices_table(&self, wanted: impl Fn(&Held) -> bool) -> String {
        let mut table = table::new(&[
            "device",
            "tenant",
            "model",
            "version",
            "state",
            "memory bytes",
            "reason",
        ]);
        for device in &self.devices {
            for held in device.models.iter().filter(|held| wanted(held)) {
                table.add_row([
                    device.device.clone(),
                    held.tenant.clone(),
                    held.model.clone(),
                    held.version.to_string(),
                    held.state.clone(),
                    held.memory_bytes
                        .map_or_else(|| "-".to_owned(), |bytes| bytes.to_string()),
                    held.reason.clone().unwrap_or_default(),
                ]);
            }
        }
        if table.is_empty() {
            return "on no device\n".to_owned();
        }
        table::text(&table)
    }
}

pub(crate) async fn status(
    client: &AdminClient,
    args: &StatusArgs,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let value: Value = client.get("/overview").await?;
    match args.output {
        OutputFormat::Json => return Ok(writeln!(terminal.out, "{}", pretty(&value))?),
        OutputFormat::Yaml => return Ok(write!(terminal.out, "{}", yaml(&value)?)?),
        OutputFormat::Table => {}
    }
    let overview = Overview::deserialize(value).map_err(|error| {
        Failure::refused(format!(
            "the overview cannot be read ({error}): is the mesh of another version?"
        ))
    })?;
    let Overview {
        totals,
        rates,
        latency_ms,
        ..
    } = &overview;
    writeln!(
        terminal.out,
        "up {:.0} s, {} in flight",
        overview.uptime_seconds, overview.in_flight
    )?;
    writeln!(
        terminal.out,
        "last 10 s: {:.1} requests/s, {:.1} errors/s, {:.1} refused/s, latency p50 {} p90 {} p99 {} ms",
        rates.requests_per_second,
        rates.errors_per_second,
        rates.refused_per_second,
        milliseconds(latency_ms.p50),
        milliseconds(latency_ms.p90),
        milliseconds(latency_ms.p99),
    )?;
    writeln!(
        terminal.out,
        "since start: {} ok, {} errors, {} refused\n",
        totals.ok, totals.errors, totals.refused
    )?;
    writeln!(terminal.out, "{}", overview.endpoints_table(|_| true))?;
    write!(terminal.out, "{}", overview.devices_table(|_| true))?;
    Ok(())
}
