//! A row's answer is its own, whoever shares its batch: never another tenant's row, and the same number alone and in company.

use std::path::{Path, PathBuf};

use mesh_e2e::counted;
use mesh_harness::{Caller, Lane, Mesh, batched, identity, vector};
use serde_json::json;
use tch::{CModule, Device, Kind, Tensor};
use tokio::task::JoinSet;

const TENANTS: usize = 16;
/// Requests that one tenant has under way at once. A batch with more than these in it holds two tenants' at least.
const LANES: usize = 2;
const REQUESTS: usize = 100_000;
const COLUMNS: usize = 4;
/// Fewer rows than all lanes together send, so that a batch is full before its time is up.
const BATCH_ROWS: u32 = 32;
const BATCH_DELAY_US: u64 = 1_000;

/// Sixteen tenants that may all call the first one's models.
async fn tenants(mesh: &Mesh) -> anyhow::Result<Vec<Caller>> {
    let mut callers = Vec::new();
    for number in 0..TENANTS {
        callers.push(mesh.tenant(&format!("t{number}")).await?);
    }
    Ok(callers)
}

async fn grant(mesh: &Mesh, model: &str) -> anyhow::Result<()> {
    let all: Vec<String> = (1..TENANTS).map(|number| format!("t{number}")).collect();
    mesh.admin()?.model("t0", model, json!({"grants": all})).await
}

/// The rows of a request: each value says whose it is, which request of theirs, which row and which column.
fn marked(tenant: usize, lane: usize, request: usize) -> anyhow::Result<Vec<f32>> {
    let rows = 1 + (tenant + request) % 2;
    let mark = |number: usize| Ok::<f32, anyhow::Error>(f32::from(u16::try_from(number)?));
    let mut values = Vec::with_capacity(rows * COLUMNS);
    for row in 0..rows {
        values.extend([
            mark(tenant * LANES + lane)?,
            mark(request)?,
            mark(row)?,
            mark((request * 31 + row * 7 + tenant) % 65_521)?,
        ]);
    }
    Ok(values)
}

/// Requests per batch of a model, over all that were answered.
async fn company(mesh: &Mesh, model: &str) -> anyhow::Result<f64> {
    let metrics = mesh.metrics().await?;
    let endpoint = format!("endpoint=\"{model}\"");
    let requests = counted(&metrics, "mesh_requests_total", &[&endpoint, "outcome=\"ok\""]);
    let batches = counted(&metrics, "mesh_batches_total", &[&format!("model=\"t0/{model}/1\"")]);
    Ok(requests / batches)
}

#[tokio::test]
async fn a_hundred_thousand_marked_rows_of_sixteen_tenants_come_back_to_whom_they_belong() -> anyhow::Result<()> {
    const PER_LANE: usize = REQUESTS / TENANTS / LANES;
    let mesh = Mesh::start().await?;
    let callers = tenants(&mesh).await?;
    mesh.admin()?
        .publish("t0", "marks", &batched(identity(), BATCH_ROWS, BATCH_DELAY_US))
        .await?;
    grant(&mesh, "marks").await?;
    let mut lanes = JoinSet::new();
    for (tenant, caller) in callers.iter().enumerate() {
        caller.until_ready("marks").await?;
        for number in 0..LANES {
            let mut lane = Lane::open(mesh.addresses().http, caller.key(), "marks", COLUMNS).await?;
            lanes.spawn(async move {
                for request in 0..PER_LANE {
                    let sent = marked(tenant, number, request)?;
                    let answer = lane.ask(&sent).await?;
                    anyhow::ensure!(
                        answer.status == 200 && answer.values == sent,
                        "t{tenant} lane {number} request {request}: {} with {:?} instead of {sent:?}",
                        answer.status,
                        answer.values
                    );
                }
                anyhow::Ok(PER_LANE)
            });
        }
    }
    let mut answered = 0;
    while let Some(lane) = lanes.join_next().await {
        answered += lane??;
    }
    assert_eq!(answered, REQUESTS);
    let company = company(&mesh, "marks").await?;
    let lanes = f64::from(u16::try_from(LANES)?);
    assert!(
        company > lanes,
        "{company} requests per batch: tenants did not share batches"
    );
    Ok(())
}

/// Writes a perceptron of two layers with weights that are the same at every run.
fn perceptron(folder: &Path) -> anyhow::Result<PathBuf> {
    const HIDDEN: i64 = 32;
    let columns = i64::try_from(COLUMNS)?;
    let weights = |rows: i64, columns: i64, step: f64| {
        let numbers = Tensor::arange(rows * columns, (Kind::Float, Device::Cpu));
        (numbers * step).sin().reshape([rows, columns])
    };
    let (first, second) = (weights(columns, HIDDEN, 0.7), weights(HIDDEN, columns, 1.3));
    let path = folder.join("perceptron.pt");
    let mut forward = |inputs: &[Tensor]| {
        let one = |x: &Tensor| x.matmul(&first).relu().matmul(&second);
        inputs.iter().map(one).collect()
    };
    let example = Tensor::zeros([2, columns], (Kind::Float, Device::Cpu));
    CModule::create_by_tracing("Perceptron", "forward", &[example], &mut forward)?.save(&path)?;
    Ok(path)
}

async fn publish_perceptron(mesh: &Mesh, folder: &Path) -> anyhow::Result<()> {
    let columns = i64::try_from(COLUMNS)?;
    let model = batched(json!({"config": vector(columns, columns)}), BATCH_ROWS, BATCH_DELAY_US);
    let (admin, file) = (mesh.admin()?, perceptron(folder)?);
    let version = admin.publish_torchscript("t0", "net", &file, &model["config"]).await?;
    assert_eq!(version, 1);
    grant(mesh, "net").await
}

/// A row of a small set, by number.
fn row(number: usize) -> anyhow::Result<Vec<f32>> {
    let at = |column: usize| Ok(f32::from(u16::try_from(number * COLUMNS + column)?).sin() * 3.0);
    (0..COLUMNS).map(at).collect()
}

/// Whether an answer is these rows' own, each as it was alone.
fn is_as_alone(values: &[f32], rows: &[usize], alone: &[Vec<f32>]) -> bool {
    let expected: Vec<f32> = rows.iter().flat_map(|row| alone[*row].iter().copied()).collect();
    let near = |(a, b): (&f32, &f32)| (a - b).abs() <= 1e-5;
    values.len() == expected.len() && values.iter().zip(&expected).all(near)
}

#[tokio::test]
async fn a_networks_answer_to_a_row_is_the_same_alone_and_in_any_company() -> anyhow::Result<()> {
    const ROWS: usize = 48;
    const PER_LANE: usize = 75;
    let models = tempfile::tempdir()?;
    let mesh = Mesh::start().await?;
    let callers = tenants(&mesh).await?;
    publish_perceptron(&mesh, models.path()).await?;
    for caller in &callers {
        caller.until_ready("net").await?;
    }
    let door = mesh.addresses().http;
    // One at a time: nobody is there to share a batch with.
    let (mut alone, mut single) = (Vec::new(), Lane::open(door, callers[0].key(), "net", COLUMNS).await?);
    for number in 0..ROWS {
        let answer = single.ask(&row(number)?).await?;
        assert_eq!((answer.status, answer.values.len()), (200, COLUMNS));
        alone.push(answer.values);
    }
    let apart = |a: usize, b: usize| !is_as_alone(&alone[a], &[b], &alone);
    assert!(
        (1..ROWS).all(|number| apart(number, number - 1)),
        "rows can be told apart"
    );
    let mut lanes = JoinSet::new();
    for (tenant, caller) in callers.iter().enumerate() {
        for number in 0..LANES {
            let mut lane = Lane::open(door, caller.key(), "net", COLUMNS).await?;
            let alone = alone.clone();
            lanes.spawn(async move {
                for request in 0..PER_LANE {
                    let first = tenant * 5 + number * 17 + request * 11;
                    let rows: Vec<usize> = (0..=request % 3).map(|next| (first + next * 13) % ROWS).collect();
                    let mut sent = Vec::new();
                    for number in &rows {
                        sent.extend(row(*number)?);
                    }
                    let answer = lane.ask(&sent).await?;
                    anyhow::ensure!(
                        answer.status == 200 && is_as_alone(&answer.values, &rows, &alone),
                        "t{tenant} rows {rows:?}: {} with {:?}",
                        answer.status,
                        answer.values
                    );
                }
                anyhow::Ok(())
            });
        }
    }
    while let Some(lane) = lanes.join_next().await {
        lane??;
    }
    // Those alone were a batch each, and still there are more than one tenant's lanes to a batch.
    let company = company(&mesh, "net").await?;
    let lanes = f64::from(u16::try_from(LANES)?);
    assert!(
        company > lanes,
        "{company} requests per batch: tenants did not share batches"
    );
    Ok(())
}
