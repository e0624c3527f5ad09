//! `model publish`: digest, upload, version, and the wait until a device has it.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures::StreamExt as _;
use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use mesh_backend::ModelFiles;
use mesh_resources::{ArtifactRef, ModelVersionSpec, Resource};
use mesh_types::{ArtifactFormat, Base64Bytes, MAX_INITIAL_STATE_BYTES, MAX_WARMUP_BYTES, ModelConfig, TensorSpec};
use reqwest::{Body, Method};
use serde_json::json;
use sha2::{Digest as _, Sha256};
use tokio::{fs::File, io::AsyncReadExt as _, time::Instant};

use crate::{
    Failure, PublishArgs, Terminal,
    client::AdminClient,
    files, graph,
    model_options::Format,
    signing,
    status::{Device, Overview},
};

const CHUNK: usize = 1 << 20;
/// How often the devices are asked while waiting.
pub(crate) const POLL: Duration = Duration::from_millis(250);

pub(crate) async fn publish(
    client: &AdminClient,
    args: &PublishArgs,
    files: &dyn ModelFiles,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let mut config = read_config(args.config.as_deref(), args.file.as_deref())?;
    let unsaid = complete(&mut config, args, files, terminal)?;
    let problems = config.problems();
    if !problems.is_empty() {
        let problems = problems
            .into_iter()
            .map(|problem| mesh_resources::Problem::new(problem.field, problem.problem));
        let unsaid = unsaid.map(|problem| format!(", and its file does not say the rest: {problem}"));
        return Err(Failure::Refused {
            message: format!(
                "nothing was uploaded, the model's configuration has problems{}",
                unsaid.unwrap_or_default()
            ),
            problems: problems.collect(),
        });
    }
    let (format, artifact) = match (args.format, &args.file) {
        (Some(Format::Builtin), None) => (ArtifactFormat::Builtin, None),
        (Some(Format::Ensemble), None) => (ArtifactFormat::Ensemble, None),
        (_, Some(path)) => {
            let format = format_of(args.format, path)?;
            (format, Some(upload(client, path, terminal).await?))
        }
        (_, None) => {
            return Err(Failure::refused(
                "which file? only built-in models and ensembles have none (--format builtin or ensemble)",
            ));
        }
    };
    let mut spec = ModelVersionSpec {
        format,
        artifact,
        config,
        signature: None,
        unloaded: false,
        description: args.description.clone(),
    };
    spec.signature = signing::for_publishing(client, args, &spec).await?;
    let path = format!("/tenants/{}/models/{}/versions", args.tenant, args.model);
    let version: Resource = client
        .post(&path, &json!({"spec": spec, "labels": args.labels}))
        .await?;
    let key = version.key().map_err(|error| Failure::refused(error.to_string()))?;
    writeln!(terminal.out, "published {key}")?;
    if args.wait {
        wait(client, &version, args.wait_timeout, terminal).await?;
    }
    Ok(())
}

/// Fills in what the configuration leaves out of inputs and outputs, and says what; answers what keeps it from that.
fn complete(
    config: &mut ModelConfig,
    args: &PublishArgs,
    files: &dyn ModelFiles,
    terminal: &mut Terminal<'_>,
) -> Result<Option<String>, Failure> {
    let Some(path) = &args.file else { return Ok(None) };
    let (no_input, no_output) = (config.input.is_empty(), config.output.is_empty());
    if !no_input && !no_output {
        return Ok(None);
    }
    let format = format_of(args.format, path)?;
    if let Err(problem) = mesh_import::complete(config, (path, format), true, files) {
        return Ok(Some(problem));
    }
    let tensor = |field: &str, spec: &TensorSpec| format!("{field} {} {} {:?}", spec.name, spec.datatype, spec.dims);
    let inputs = config
        .input
        .iter()
        .filter(|_| no_input)
        .map(|spec| tensor("input", spec));
    let outputs = config
        .output
        .iter()
        .filter(|_| no_output)
        .map(|spec| tensor("output", spec));
    for found in inputs.chain(outputs) {
        writeln!(terminal.err, "found by the model's file: {found}")?;
    }
    Ok(None)
}

/// The kind of a file: what is said, unless the file holds another, or else what it holds.
pub(crate) fn format_of(said: Option<Format>, path: &Path) -> Result<ArtifactFormat, Failure> {
    let failed = |error: std::io::Error| Failure::refused(format!("cannot read {}: {error}", path.display()));
    let said = match said {
        Some(Format::Builtin) => return Err(Failure::refused("a built-in model has no file: leave it out")),
        Some(Format::Ensemble) => return Err(Failure::refused("an ensemble has no file: leave it out")),
        Some(Format::Torchscript) => Some(ArtifactFormat::TorchScript),
        Some(Format::TorchAoti) => Some(ArtifactFormat::TorchAoti),
        None => None,
    };
    let mut file = std::fs::File::open(path).map_err(failed)?;
    let holds = mesh_resources::recognise(&mut file).map_err(failed)?;
    match (said, holds) {
        (Some(said), Some(holds)) if said != holds => Err(Failure::refused(format!(
            "{} is of the format {}, not {}: leave --format out",
            path.display(),
            name(holds),
            name(said)
        ))),
        // Of no kind that is known: whoever loads it says what is wrong with it.
        (said, holds) => Ok(said.or(holds).unwrap_or(ArtifactFormat::TorchScript)),
    }
}

const fn name(format: ArtifactFormat) -> &'static str {
    match format {
        ArtifactFormat::TorchScript => "torchscript",
        ArtifactFormat::TorchAoti => "torch_aoti",
        ArtifactFormat::Builtin => "builtin",
        ArtifactFormat::Ensemble => "ensemble",
    }
}

/// The configuration that is named, or else the one beside the model's file.
pub(crate) fn read_config(named: Option<&Path>, file: Option<&Path>) -> Result<ModelConfig, Failure> {
    let beside = || file.and_then(Path::parent).map(|folder| folder.join("model.yaml"));
    let path: PathBuf = named
        .map(Path::to_path_buf)
        .or_else(beside)
        .unwrap_or_else(|| PathBuf::from("model.yaml"));
    let text = files::read_file(&path).map_err(|failure| match failure {
        Failure::Refused { message, .. } if named.is_none() => {
            Failure::refused(format!("{message}; say how the model is called with --config FILE"))
        }
        other => other,
    })?;
    let mut config: ModelConfig =
        serde_yaml_ng::from_str(&text).map_err(|error| Failure::refused(format!("{}: {error}", path.display())))?;
    let folder = path.parent().unwrap_or(Path::new(""));
    read_states(&mut config, folder)?;
    for record in &mut config.model_warmup {
        for input in record.inputs.values_mut() {
            if let Some(name) = input.input_data_file.take() {
                input.input_data = Some(sample(folder, &name)?);
            }
        }
    }
    Ok(config)
}

/// The files that states begin from, named relative to the configuration, become part of it: the mesh keeps no files beside
/// a model.
fn read_states(config: &mut ModelConfig, folder: &Path) -> Result<(), Failure> {
    let states = config
        .sequence_batching
        .iter_mut()
        .flat_map(|sequence| &mut sequence.state);
    for initial in states.flat_map(|state| &mut state.initial_state) {
        let Some(name) = initial.data_file.take() else { continue };
        if initial.data.is_some() || initial.zero_data {
            let text = format!(
                "the initial state '{}' has data_file and something else: one is enough",
                initial.name
            );
            return Err(Failure::refused(text));
        }
        let path = folder.join(name);
        let failed = |error: std::io::Error| Failure::refused(format!("cannot read {}: {error}", path.display()));
        let length = std::fs::metadata(&path).map_err(failed)?.len();
        if length > u64::try_from(MAX_INITIAL_STATE_BYTES).unwrap_or(u64::MAX) {
            let text = format!(
                "{} has {length} bytes, an initial state at most {MAX_INITIAL_STATE_BYTES}",
                path.display()
            );
            return Err(Failure::refused(text));
        }
        let bytes = std::fs::read(&path).map_err(failed)?;
        initial.data = Some(STANDARD.encode(bytes));
    }
    Ok(())
}

/// The bytes of a warm-up input's file: in the folder `warmup` beside the configuration, as Triton has it, or beside it.
fn sample(folder: &Path, name: &str) -> Result<Base64Bytes, Failure> {
    let (in_warmup, beside) = (folder.join("warmup").join(name), folder.join(name));
    let path = if in_warmup.is_file() { in_warmup } else { beside };
    let refused = |text: String| Failure::refused(format!("input_data_file: {}: {text}", path.display()));
    let bytes = std::fs::metadata(&path)
        .map_err(|error| refused(error.to_string()))?
        .len();
    if usize::try_from(bytes).map_or(true, |bytes| bytes > MAX_WARMUP_BYTES) {
        return Err(refused(format!(
            "{bytes} bytes, at most {MAX_WARMUP_BYTES} are kept with a model"
        )));
    }
    let data = std::fs::read(&path).map_err(|error| refused(error.to_string()))?;
    Ok(Base64Bytes(data.into()))
}

/// Stores a model's file.
pub(crate) async fn upload(
    client: &AdminClient,
    path: &Path,
    terminal: &mut Terminal<'_>,
) -> Result<ArtifactRef, Failure> {
    let failed = |error: std::io::Error| Failure::refused(format!("cannot read {}: {error}", path.display()));
    let mut file = File::open(path).await.map_err(failed)?;
    let bytes = file.metadata().await.map_err(failed)?.len();
    let (mut digest, mut chunk) = (Sha256::new(), vec![0; CHUNK]);
    loop {
        let count = file.read(&mut chunk).await.map_err(failed)?;
        let Some(read) = chunk.get(..count).filter(|read| !read.is_empty()) else {
            break;
        };
        digest.update(read);
    }
    let sha256: String = digest.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
    let bar = progress(bytes, terminal);
    let moving = bar.clone();
    let file = File::open(path).await.map_err(failed)?;
    let chunks = futures::stream::try_unfold(file, |mut file| async move {
        let mut chunk = vec![0; CHUNK];
        let count = file.read(&mut chunk).await?;
        chunk.truncate(count);
        Ok::<_, std::io::Error>((count > 0).then_some((chunk, file)))
    });
    let chunks = chunks.inspect(move |chunk| {
        if let Ok(chunk) = chunk {
            moving.inc(chunk.len() as u64);
        }
    });
    let request = client
        .request(Method::POST, "/artifacts")
        .header("x-sha256", &sha256)
        .header("content-type", "application/octet-stream")
        .header("content-length", bytes)
        .body(Body::wrap_stream(chunks));
    let artifact: ArtifactRef = client.send(request).await?;
    bar.finish_and_clear();
    if artifact.sha256 != sha256 {
        return Err(Failure::refused("the mesh has other bytes than were sent: try again"));
    }
    writeln!(terminal.err, "uploaded {bytes} bytes, sha256 {sha256}")?;
    Ok(artifact)
}

fn progress(bytes: u64, terminal: &Terminal<'_>) -> ProgressBar {
    // indicatif shows nothing where stderr is no terminal.
    let target = if terminal.interactive {
        ProgressDrawTarget::stderr()
    } else {
        ProgressDrawTarget::hidden()
    };
    let bar = ProgressBar::with_draw_target(Some(bytes), target);
    let style = ProgressStyle::with_template("uploading {bar:40} {bytes}/{total_bytes} {bytes_per_sec} {eta}");
    match style {
        Ok(style) => bar.with_style(style),
        Err(_) => bar,
    }
}

async fn wait(
    client: &AdminClient,
    version: &Resource,
    timeout: Duration,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let (model, number) = version.metadata.name.split_once('/').unwrap_or_default();
    let tenant = version.metadata.tenant.as_ref().map_or("", |tenant| tenant.as_str());
    let deadline = Instant::now() + timeout;
    if matches!(&version.spec, mesh_resources::Spec::ModelVersion(spec) if spec.format == ArtifactFormat::Ensemble) {
        return graph::wait(client, (tenant, model, number), deadline, terminal).await;
    }
    loop {
        let devices: Vec<Device> = match client.permitted("/devices").await? {
            Some(devices) => devices,
            // Whoever is bound to a tenant sees its own models there.
            None => client.get::<Overview>("/overview").await?.devices,
        };
        let held = devices
            .iter()
            .flat_map(|device| device.models.iter().map(move |held| (device, held)));
        let ours =
            held.filter(|(_, held)| held.tenant == tenant && held.model == model && held.version.to_string() == number);
        for (device, held) in ours {
            match held.state.as_str() {
                "READY" => return Ok(writeln!(terminal.out, "ready     on {}", device.device)?),
                "STANDBY" => {
                    let reason = held.reason.as_deref().unwrap_or("it is loaded with its first request");
                    return Ok(writeln!(terminal.out, "standby   on {}: {reason}", device.device)?);
                }
                "FAILED" => {
                    let reason = held.reason.as_deref().unwrap_or("no reason given");
                    return Err(Failure::refused(format!(
                        "{} does not load on {}: {reason}",
                        version.metadata.name, device.device
                    )));
                }
                _ => {}
            }
        }
        if Instant::now() >= deadline {
            return Err(Failure::refused(format!(
                "published, but no device has it ready after {} s: see `mesh status`",
                timeout.as_secs()
            )));
        }
        tokio::time::sleep(POLL).await;
    }
}

#[cfg(test)]
mod tests {
    use mesh_types::{DataType, InitialState, SequenceBatching, StateSpec};

    use super::*;

    fn config(initial: InitialState) -> ModelConfig {
        let state = StateSpec {
            input_name: "STATE".to_owned(),
            output_name: "NEXT".to_owned(),
            data_type: DataType::Int32,
            dims: vec![1],
            initial_state: vec![initial],
            use_same_buffer_for_input_output: false,
            use_growable_memory: false,
        };
        ModelConfig {
            sequence_batching: Some(SequenceBatching {
                state: vec![state],
                ..SequenceBatching::default()
            }),
            ..ModelConfig::default()
        }
    }

    fn of_file(name: &str) -> InitialState {
        InitialState {
            dims: vec![1],
            data_file: Some(name.to_owned()),
            ..InitialState::default()
        }
    }

    #[test]
    fn a_states_file_becomes_part_of_the_configuration() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("h0"), 7_i32.to_le_bytes()).unwrap();
        let mut config = config(of_file("h0"));
        read_states(&mut config, folder.path()).unwrap();
        let state = &config.sequence_batching.as_ref().unwrap().state[0];
        assert_eq!(state.initial().unwrap().1, 7_i32.to_le_bytes());
    }

    #[test]
    fn a_states_file_that_is_missing_too_large_or_one_too_many_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let refused = |initial: InitialState| {
            let refused = read_states(&mut config(initial), folder.path()).unwrap_err();
            refused.to_string()
        };
        assert!(refused(of_file("h0")).contains("cannot read"));
        std::fs::write(folder.path().join("h0"), vec![0; MAX_INITIAL_STATE_BYTES]).unwrap();
        assert!(read_states(&mut config(of_file("h0")), folder.path()).is_ok());
        std::fs::write(folder.path().join("h0"), vec![0; MAX_INITIAL_STATE_BYTES + 1]).unwrap();
        assert!(refused(of_file("h0")).contains("at most"));
        let both = InitialState {
            zero_data: true,
            ..of_file("h0")
        };
        assert!(refused(both).contains("one is enough"));
    }
}
