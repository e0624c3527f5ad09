//! Compiled packages, optional inputs and numbers through the whole mesh.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    path::{Path, PathBuf},
};

use anyhow::{Context, ensure};
use futures::future::try_join_all;
use mesh_harness::{Mesh, fp32};
use serde_json::{Value, json};
use tch::{CModule, Device, Kind, Tensor};

/// A model that PyTorch made.
fn made(name: &str) -> anyhow::Result<PathBuf> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../.packages").join(name);
    ensure!(
        path.exists(),
        "{} is not there: run `cargo xtask packages`",
        path.display()
    );
    Ok(path)
}

fn perceptron() -> Value {
    json!({"max_batch_size": 8, "input": [fp32("x", &[30])], "output": [fp32("y", &[2])]})
}

fn row(seed: f64) -> Vec<f64> {
    (0..30u32).map(|index| (f64::from(index) * 0.3 + seed).sin()).collect()
}

#[tokio::test]
async fn one_module_as_torchscript_and_as_a_package_answers_alike_and_says_what_was_tried() -> anyhow::Result<()> {
    let mesh = Mesh::start().await?;
    let (caller, admin) = (mesh.tenant("acme").await?, mesh.admin()?);
    for (model, file, format) in [
        ("script", "perceptron.pt", "torchscript"),
        ("package", "perceptron.pt2", "torch_aoti"),
    ] {
        let artifact = admin.upload(tokio::fs::read(made(file)?).await?).await?;
        let spec = json!({"format": format, "artifact": artifact, "config": perceptron()});
        admin.publish("acme", model, &spec).await?;
        // The file is looked into: its kind cannot be said wrongly.
        let other = if format == "torchscript" {
            "torch_aoti"
        } else {
            "torchscript"
        };
        let wrong = json!({"format": other, "artifact": artifact, "config": perceptron()});
        let refused = admin.publish_only("acme", model, &wrong).await;
        let text = refused.err().context("the wrong format was accepted")?.to_string();
        ensure!(text.contains(&format!("(format: {format})")), "{text}");
    }
    for seed in [0.0, 1.0, 2.0] {
        let body = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 30], "data": row(seed)}]});
        caller.until_answers("package", &body).await?;
        let script = caller.infer("script", &body).await?.ok()?.numbers(0)?;
        let package = caller.infer("package", &body).await?.ok()?.numbers(0)?;
        for (one, other) in script.iter().zip(&package) {
            ensure!((one - other).abs() <= 1e-5, "{script:?} and {package:?}");
        }
    }
    let metadata = Value::from(caller.get("/v2/models/package").send().await?.text().await?);
    ensure!(
        metadata
            .as_str()
            .is_some_and(|text| text.contains("\"platform\":\"torch_aoti\"")),
        "{metadata}"
    );
    let devices = admin.get("/devices").await?;
    let models = devices[0]["models"].as_array().context("no models")?;
    let load = |name: &str| {
        models
            .iter()
            .find(|model| model["model"] == name)
            .map(|model| &model["load"])
    };
    let script = load("script").context("no report")?;
    ensure!(script["runtime"] == "libtorch 2.11.0, TorchScript", "{script}");
    let tried: Vec<_> = script["variants"].as_array().context("nothing tried")?.iter().collect();
    ensure!(tried.len() == 3 && tried[1]["variant"] == "frozen", "{script}");
    ensure!(
        tried[1]["relative_difference"]
            .as_f64()
            .is_some_and(|found| found <= 1e-5),
        "{script}"
    );
    ensure!(
        tried.iter().filter(|tried| tried["verdict"] == "chosen").count() == 1,
        "{script}"
    );
    let package = load("package").context("no report")?;
    ensure!(package["runtime"] == "libtorch 2.11.0, AOTInductor", "{package}");
    Ok(())
}

/// `x * scale + bias`, where `bias` may be left out: a traced module whose code is written again.
fn scaled(folder: &Path) -> anyhow::Result<PathBuf> {
    let (traced, path) = (folder.join("traced.pt"), folder.join("scaled.pt"));
    let example = [Tensor::ones([2, 2], (Kind::Float, Device::Cpu))];
    let mut same = |inputs: &[Tensor]| inputs.iter().map(Tensor::alias_copy).collect();
    CModule::create_by_tracing("Model", "forward", &example, &mut same)?.save(&traced)?;
    let code = "class Model(Module):\n  __parameters__ = []\n  __buffers__ = []\n  \
                def forward(self: __torch__.Model, x: Tensor, scale: float, bias: Optional[Tensor]=None) -> Tensor:\n    \
                y = torch.mul(x, scale)\n    \
                if torch.__isnot__(bias, None):\n      b = unchecked_cast(Tensor, bias)\n      z = torch.add(y, b)\n    \
                else:\n      z = y\n    return z\n";
    let mut archive = zip::ZipArchive::new(File::open(&traced)?)?;
    let mut writer = zip::ZipWriter::new(File::create(&path)?);
    let options = zip::write::SimpleFileOptions::default().compression_method(zip::CompressionMethod::Stored);
    for index in 0..archive.len() {
        let mut entry = archive.by_index(index)?;
        let (name, mut content) = (entry.name().to_owned(), Vec::new());
        entry.read_to_end(&mut content)?;
        if name.ends_with(".debug_pkl") {
            continue;
        }
        writer.start_file(&name, options)?;
        writer.write_all(if name.ends_with(".py") {
            code.as_bytes()
        } else {
            &content
        })?;
    }
    writer.finish()?;
    Ok(path)
}

#[tokio::test]
async fn requests_with_other_numbers_or_other_inputs_left_out_get_their_own_answers() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let mesh = Mesh::start().await?;
    let (caller, admin) = (mesh.tenant("acme").await?, mesh.admin()?);
    let config = json!({
        "max_batch_size": 8,
        "input": [
            fp32("x", &[2]),
            {"name": "scale", "datatype": "FP32", "dims": [1], "unbatched": true},
            {"name": "bias", "datatype": "FP32", "dims": [2], "optional": true},
        ],
        "output": [fp32("y", &[2])],
        "dynamic_batching": {"max_queue_delay_microseconds": 20_000},
    });
    let file = scaled(folder.path())?;
    admin.publish_torchscript("acme", "scaled", &file, &config).await?;
    let body = |scale: f64, bias: Option<f64>| {
        let mut inputs = vec![
            json!({"name": "scale", "datatype": "FP32", "shape": [1], "data": [scale]}),
            json!({"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}),
        ];
        inputs.extend(
            bias.map(|bias| json!({"name": "bias", "datatype": "FP32", "shape": [1, 2], "data": [bias, bias]})),
        );
        json!({"inputs": inputs})
    };
    caller.until_answers("scaled", &body(1.0, None)).await?;
    // Together, so that what may share a batch does.
    let asked: Vec<(f64, Option<f64>)> = (0..48u32)
        .map(|index| {
            (
                f64::from(index % 3),
                (index % 2 == 0).then(|| f64::from(index % 4) * 10.0),
            )
        })
        .collect();
    let bodies: Vec<Value> = asked.iter().map(|(scale, bias)| body(*scale, *bias)).collect();
    let answers = try_join_all(bodies.iter().map(|body| caller.infer("scaled", body))).await?;
    for ((scale, bias), answer) in asked.iter().zip(answers) {
        let bias = bias.unwrap_or_default();
        let numbers = answer.ok()?.numbers(0)?;
        ensure!(
            numbers == [scale + bias, 2.0 * scale + bias],
            "{scale} {bias}: {numbers:?}"
        );
    }
    let missing = json!({"inputs": [{"name": "x", "datatype": "FP32", "shape": [1, 2], "data": [1.0, 2.0]}]});
    let refused = caller.infer("scaled", &missing).await?;
    ensure!(refused.status.as_u16() == 400, "{}", refused.status);
    let text = refused.error()?;
    ensure!(
        text.contains("expected number of inputs between 2 and 3 but got 1"),
        "{text}"
    );
    let devices = admin.get("/devices").await?;
    let model = &devices[0]["models"][0];
    let of = |name: &str| model[name].as_u64().unwrap_or_default();
    ensure!(of("rows") > of("executions"), "some shared a batch: {model}");
    Ok(())
}

/// Runs `mesh model inspect` on a file; what it prints.
fn inspect(file: &Path, output: mesh_cli::InspectOutput) -> anyhow::Result<String> {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let args = mesh_cli::InspectArgs {
        file: file.to_path_buf(),
        format: None,
        output,
    };
    let mut terminal = mesh_cli::Terminal {
        out: &mut out,
        err: &mut err,
        input: &mut std::io::empty(),
        interactive: false,
    };
    let code = mesh_cli::inspect(&args, &mesh_node::Files, &mut terminal);
    ensure!(code == 0, "{code}: {}", String::from_utf8_lossy(&err));
    Ok(String::from_utf8(out)?)
}

#[tokio::test]
async fn what_inspect_prints_of_a_package_is_a_configuration_that_it_is_served_with() -> anyhow::Result<()> {
    let package = made("nested.pt2")?;
    let shown = inspect(&package, mesh_cli::InspectOutput::Table)?;
    ensure!(
        shown.starts_with("torch_aoti, forward(INPUT__0: Tuple[Tensor FP32 [-1, 3]"),
        "{shown}"
    );
    let mut config: Value = serde_yaml_ng::from_str(&inspect(&package, mesh_cli::InspectOutput::Yaml)?)?;
    ensure!(
        config["input"][1]["name"] == "INPUT__0__1" && config["input"][2]["name"] == "INPUT__1.scale",
        "{config}"
    );
    // A package does not say what it gives: that is marked as a guess, and is the one thing to fill in.
    for output in config["output"].as_array_mut().context("no outputs")? {
        output["dims"] = json!([3]);
    }
    let mesh = Mesh::start().await?;
    let (caller, admin) = (mesh.tenant("acme").await?, mesh.admin()?);
    let artifact = admin.upload(tokio::fs::read(&package).await?).await?;
    let spec = json!({"format": "torch_aoti", "artifact": artifact, "config": config});
    admin.publish("acme", "nested", &spec).await?;
    let input = |name: &str, value: f64| {
        let data = [value; 3];
        json!({"name": name, "datatype": "FP32", "shape": [1, 3], "data": data})
    };
    let body = json!({"inputs": [
        input("INPUT__0__0", 10.0), input("INPUT__0__1", 1.0), input("INPUT__1.scale", 2.0), input("INPUT__1.shift", 0.5)
    ]});
    let answer = caller.until_answers("nested", &body).await?;
    ensure!(
        answer.numbers(0)? == [12.0; 3] && answer.numbers(1)? == [12.5; 3],
        "{:?}",
        answer.json()?
    );
    let script = inspect(&made("nested.pt")?, mesh_cli::InspectOutput::Yaml)?;
    for name in [
        "name: pair__0",
        "name: pair__1",
        "name: named.scale",
        "name: named.shift",
        "name: total",
        "name: shifted",
    ] {
        ensure!(script.contains(name), "{script}");
    }
    Ok(())
}
