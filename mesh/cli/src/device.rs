//! `device`: what devices hold, have done and for whom, and whether they take requests.

use std::time::{Duration, Instant};

use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    DeviceArgs, DeviceCommand, DeviceListArgs, DrainArgs, Failure, OutputFormat, Terminal, UndrainArgs, apply::yaml,
    client::AdminClient, get::pretty, loaded::Load, status::milliseconds, table,
};

/// How often `--wait` looks.
const POLL: Duration = Duration::from_millis(250);

/// The parts of a device that are shown.
#[derive(Debug, Deserialize)]
struct Device {
    device: String,
    kind: String,
    threads: u64,
    abandoned_threads: u64,
    draining: bool,
    in_flight: u64,
    #[serde(default)]
    open_sequences: u64,
    up_seconds: f64,
    busy_seconds: f64,
    busy_fraction: f64,
    recent_busy_fraction: Option<f64>,
    memory_bytes: u64,
    budget_bytes: Option<u64>,
    models: Vec<Model>,
    tenants: Vec<TenantTime>,
    other_tenants_seconds: f64,
}

#[derive(Debug, Deserialize)]
struct Model {
    tenant: String,
    model: String,
    version: u32,
    state: String,
    reason: Option<String>,
    memory_bytes: Option<u64>,
    queue_length: u64,
    requests: u64,
    failed: u64,
    rows: u64,
    executions: u64,
    mean_batch_rows: Option<f64>,
    mean_latency_ms: Option<f64>,
    mean_queue_ms: Option<f64>,
    mean_compute_ms: Option<f64>,
    cancelled: u64,
    expired: u64,
    rejected: u64,
    crashed: u64,
    out_of_memory: u64,
    non_finite: u64,
    load_seconds: Option<f64>,
    loads: u64,
    load_failures: u64,
    evictions: u64,
    idle_unloads: u64,
    progress: Option<Progress>,
    prediction_error: Option<f64>,
    load: Option<Load>,
    #[serde(default)]
    sequences: Option<Sequences>,
}

/// The sequences of a stateful model.
#[derive(Debug, Deserialize)]
struct Sequences {
    open: u64,
    backlog: u64,
    ended: u64,
    idle: u64,
    not_begun: u64,
    lost: u64,
    closed: u64,
}

#[derive(Debug, Deserialize)]
struct Progress {
    stage: String,
    instance: u32,
    instances: u32,
    rows: Option<u32>,
    record: Option<String>,
}

#[derive(Debug, Deserialize)]
struct TenantTime {
    tenant: String,
    seconds: f64,
}

pub(crate) async fn device(
    client: &AdminClient,
    command: &DeviceCommand,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    match command {
        DeviceCommand::List(args) => list(client, args, terminal).await,
        DeviceCommand::Describe(args) => describe(client, args, terminal).await,
        DeviceCommand::Drain(args) => drain(client, args, terminal).await,
        DeviceCommand::Undrain(args) => undrain(client, args, terminal).await,
    }
}

fn read<T: for<'de> Deserialize<'de>>(value: Value) -> Result<T, Failure> {
    T::deserialize(value).map_err(|error| {
        Failure::refused(format!(
            "the devices cannot be read ({error}): is the mesh of another version?"
        ))
    })
}

fn percent(fraction: Option<f64>) -> String {
    fraction.map_or_else(|| "-".to_owned(), |fraction| format!("{:.1} %", fraction * 100.0))
}

fn one_decimal(value: Option<f64>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| format!("{value:.1}"))
}

fn state(device: &Device) -> &'static str {
    match (device.draining, device.in_flight + device.open_sequences) {
        (false, _) => "serving",
        (true, 0) => "drained",
        (true, _) => "draining",
    }
}

async fn list(client: &AdminClient, args: &DeviceListArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let value: Value = client.get("/devices").await?;
    match args.output {
        OutputFormat::Json => return Ok(writeln!(terminal.out, "{}", pretty(&value))?),
        OutputFormat::Yaml => return Ok(write!(terminal.out, "{}", yaml(&value)?)?),
        OutputFormat::Table => {}
    }
    let devices: Vec<Device> = read(value)?;
    let mut table = table::new(&[
        "device",
        "state",
        "threads",
        "busy 10 s",
        "busy",
        "in flight",
        "models ready",
        "memory bytes",
    ]);
    for device in &devices {
        let ready = device.models.iter().filter(|model| model.state == "READY").count();
        table.add_row([
            device.device.clone(),
            state(device).to_owned(),
            device.threads.to_string(),
            percent(device.recent_busy_fraction),
            percent(Some(device.busy_fraction)),
            device.in_flight.to_string(),
            format!("{ready} of {}", device.models.len()),
            device.memory_bytes.to_string(),
        ]);
    }
    Ok(write!(terminal.out, "{}", table::text(&table))?)
}

async fn describe(client: &AdminClient, args: &DeviceArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let devices: Vec<Value> = client.get("/devices").await?;
    let named = |value: &&Value| value["device"] == args.device.as_str();
    let found = devices.iter().find(named).cloned();
    let value = found.ok_or_else(|| {
        let there: Vec<&str> = devices.iter().filter_map(|value| value["device"].as_str()).collect();
        Failure::refused(format!(
            "there is no device {}: there are {}",
            args.device,
            there.join(", ")
        ))
    })?;
    match args.output {
        OutputFormat::Json => return Ok(writeln!(terminal.out, "{}", pretty(&value))?),
        OutputFormat::Yaml => return Ok(write!(terminal.out, "{}", yaml(&value)?)?),
        OutputFormat::Table => {}
    }
    tell(&read(value)?, terminal)
}

/// One device in words and tables.
fn tell(device: &Device, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let out = &mut terminal.out;
    let of = if device.kind == "cuda" {
        "a GPU"
    } else {
        "host processors"
    };
    writeln!(out, "{} ({of}), {}", device.device, state(device))?;
    writeln!(
        out,
        "up {:.0} s, busy {:.1} s of {} thread(s): {} since the start, {} of late",
        device.up_seconds,
        device.busy_seconds,
        device.threads,
        percent(Some(device.busy_fraction)),
        percent(device.recent_busy_fraction),
    )?;
    writeln!(
        out,
        "{} in flight, models take {} bytes{}",
        device.in_flight,
        device.memory_bytes,
        device
            .budget_bytes
            .map_or_else(String::new, |budget| format!(" of {budget}")),
    )?;
    if device.abandoned_threads > 0 {
        writeln!(
            out,
            "{} thread(s) given up: an execution hangs on each",
            device.abandoned_threads
        )?;
    }
    writeln!(out, "\n{}", models(device))?;
    if let Some(residency) = residency(device) {
        writeln!(out, "{residency}")?;
    }
    if let Some(troubles) = troubles(device) {
        writeln!(out, "{troubles}")?;
    }
    if let Some(sequences) = sequences(device) {
        writeln!(out, "{sequences}")?;
    }
    writeln!(out, "{}", tenants(device))?;
    for model in &device.models {
        if let Some(reason) = &model.reason {
            let Model {
                tenant, model, version, ..
            } = model;
            writeln!(out, "{tenant}/{model}/{version}: {reason}")?;
        }
    }
    let loads = loads(device);
    if !loads.is_empty() {
        write!(out, "\nLoaded\n{loads}")?;
    }
    Ok(())
}

fn models(device: &Device) -> String {
    let mut table = table::new(&[
        "model",
        "state",
        "memory bytes",
        "queue",
        "requests",
        "failed",
        "rows",
        "executions",
        "rows each",
        "latency ms",
        "queue ms",
        "compute ms",
        "prediction off by",
    ]);
    for model in &device.models {
        table.add_row([
            format!("{}/{}/{}", model.tenant, model.model, model.version),
            model.state.clone(),
            model
                .memory_bytes
                .map_or_else(|| "-".to_owned(), |bytes| bytes.to_string()),
            model.queue_length.to_string(),
            model.requests.to_string(),
            model.failed.to_string(),
            model.rows.to_string(),
            model.executions.to_string(),
            one_decimal(model.mean_batch_rows),
            milliseconds(model.mean_latency_ms),
            milliseconds(model.mean_queue_ms),
            milliseconds(model.mean_compute_ms),
            percent(model.prediction_error),
        ]);
    }
    if table.is_empty() {
        return "no models\n".to_owned();
    }
    table::text(&table)
}

/// What loading came to, of models of a runtime that tries other forms.
fn loads(device: &Device) -> String {
    let of = |model: &Model| {
        let name = format!("{}/{}/{}", model.tenant, model.model, model.version);
        model.load.as_ref().map(|load| load.text(&name))
    };
    device.models.iter().filter_map(of).collect()
}

/// The same of one model, on every device.
pub(crate) async fn loads_of(
    client: &AdminClient,
    wanted: impl Fn(&str, &str, u32) -> bool,
) -> Result<String, Failure> {
    let Some(devices) = client.permitted("/devices").await? else {
        return Ok("what loading it came to is not shown: that takes device:read of the mesh\n".to_owned());
    };
    let mut text = String::new();
    for device in read::<Vec<Device>>(devices)? {
        for model in device
            .models
            .iter()
            .filter(|model| wanted(&model.tenant, &model.model, model.version))
        {
            if let Some(load) = &model.load {
                text.push_str(&load.text(&format!("{} version {}", device.device, model.version)));
            }
        }
    }
    Ok(text)
}

/// How models came and went, of those that did, and what loads are at.
fn residency(device: &Device) -> Option<String> {
    let mut table = table::new(&[
        "model",
        "loads",
        "failed loads",
        "last took s",
        "made room",
        "were idle",
        "now",
    ]);
    for model in &device.models {
        let moved = model.loads > 1 || model.load_failures + model.evictions + model.idle_unloads > 0;
        if moved || model.progress.is_some() {
            table.add_row([
                format!("{}/{}/{}", model.tenant, model.model, model.version),
                model.loads.to_string(),
                model.load_failures.to_string(),
                model
                    .load_seconds
                    .map_or_else(|| "-".to_owned(), |seconds| format!("{seconds:.3}")),
                model.evictions.to_string(),
                model.idle_unloads.to_string(),
                model.progress.as_ref().map_or_else(|| "-".to_owned(), progress),
            ]);
        }
    }
    (!table.is_empty()).then(|| table::text(&table))
}

fn progress(progress: &Progress) -> String {
    let Progress {
        stage,
        instance,
        instances,
        rows,
        record,
    } = progress;
    let at = match (record, rows) {
        (Some(record), _) => format!(" on record '{record}'"),
        (None, Some(rows)) => format!(" at {rows} rows"),
        (None, None) => String::new(),
    };
    match instance {
        0 => stage.clone(),
        _ => format!("{stage} instance {instance} of {instances}{at}"),
    }
}

/// What did not go well, of models where anything did not.
fn troubles(device: &Device) -> Option<String> {
    let mut table = table::new(&[
        "model",
        "cancelled",
        "expired",
        "rejected",
        "crashed",
        "no memory",
        "non-finite",
    ]);
    for model in &device.models {
        let counts = [
            model.cancelled,
            model.expired,
            model.rejected,
            model.crashed,
            model.out_of_memory,
            model.non_finite,
        ];
        if counts.iter().any(|count| *count > 0) {
            let name = format!("{}/{}/{}", model.tenant, model.model, model.version);
            table.add_row(std::iter::once(name).chain(counts.map(|count| count.to_string())));
        }
    }
    (!table.is_empty()).then(|| table::text(&table))
}

/// The sequences of stateful models, where there are such models.
fn sequences(device: &Device) -> Option<String> {
    let mut table = table::new(&[
        "model",
        "open",
        "no seat",
        "ended",
        "idle",
        "not begun",
        "lost",
        "closed",
    ]);
    for model in &device.models {
        let Some(known) = &model.sequences else { continue };
        let name = format!("{}/{}/{}", model.tenant, model.model, model.version);
        let counts = [
            known.open,
            known.backlog,
            known.ended,
            known.idle,
            known.not_begun,
            known.lost,
            known.closed,
        ];
        table.add_row(std::iter::once(name).chain(counts.map(|count| count.to_string())));
    }
    (!table.is_empty()).then(|| table::text(&table))
}

fn tenants(device: &Device) -> String {
    let named: f64 = device.tenants.iter().map(|tenant| tenant.seconds).sum();
    let all = named + device.other_tenants_seconds;
    let share = |seconds: f64| percent((all > 0.0).then(|| seconds / all));
    let mut table = table::new(&["tenant", "device seconds", "share"]);
    for TenantTime { tenant, seconds } in &device.tenants {
        table.add_row([tenant.clone(), format!("{seconds:.3}"), share(*seconds)]);
    }
    if device.other_tenants_seconds > 0.0 {
        let seconds = device.other_tenants_seconds;
        table.add_row(["(others)".to_owned(), format!("{seconds:.3}"), share(seconds)]);
    }
    if table.is_empty() {
        return "no tenant has used it yet\n".to_owned();
    }
    table::text(&table)
}

async fn all(client: &AdminClient) -> Result<Vec<Device>, Failure> {
    read(client.get("/devices").await?)
}

async fn drain(client: &AdminClient, args: &DrainArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let name = &args.device;
    let path = format!("/devices/{name}/drain");
    let mut device: Device = read(client.post(&path, &json!({})).await?)?;
    writeln!(
        terminal.out,
        "{name} takes no new requests, {} in flight; models stay on it",
        device.in_flight
    )?;
    if all(client).await?.iter().all(|other| other.draining) {
        writeln!(
            terminal.err,
            "no device takes requests now: callers are answered 503 until one is undrained"
        )?;
    }
    writeln!(
        terminal.err,
        "until `mesh device undrain {name}`, or until the mesh is restarted"
    )?;
    let deadline = Instant::now() + args.wait_timeout;
    while args.wait && device.in_flight + device.open_sequences > 0 {
        if Instant::now() >= deadline {
            return Err(Failure::refused(format!(
                "{name} still has {} in flight and {} open sequences after {} s; it goes on draining",
                device.in_flight,
                device.open_sequences,
                args.wait_timeout.as_secs()
            )));
        }
        tokio::time::sleep(POLL).await;
        let found = all(client).await?.into_iter().find(|known| known.device == *name);
        device = found.ok_or_else(|| Failure::refused(format!("{name} is gone")))?;
        if !device.draining {
            return Err(Failure::Conflict(format!("somebody undrained {name} meanwhile")));
        }
    }
    if args.wait {
        writeln!(terminal.out, "{name} is drained: nothing is in flight on it")?;
    }
    Ok(())
}

async fn undrain(client: &AdminClient, args: &UndrainArgs, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let path = format!("/devices/{}/undrain", args.device);
    let _: Device = read(client.post(&path, &json!({})).await?)?;
    writeln!(terminal.out, "{} takes requests again", args.device)?;
    Ok(())
}
