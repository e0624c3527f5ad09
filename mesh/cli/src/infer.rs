//! `infer`: asks the inference door as a tenant would.

use std::{io::Read as _, time::Duration};

use reqwest::{RequestBuilder, header::HeaderMap};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::{
    Failure, GlobalOptions, InferArgs, OutputFormat, Terminal,
    apply::yaml,
    client::{http_client, read, refusal, unreachable},
    files,
    get::pretty,
    table,
};

const TIMEOUT: Duration = Duration::from_secs(60);
const MAX_REQUEST_BYTES: u64 = 16 << 20;
/// The most values of an output that a table shows.
const MAX_SHOWN_VALUES: usize = 20;

#[derive(Debug, Deserialize)]
struct Metadata {
    inputs: Vec<TensorMetadata>,
}

#[derive(Debug, Deserialize)]
struct TensorMetadata {
    name: String,
    datatype: String,
}

pub(crate) async fn infer(
    globals: &GlobalOptions,
    args: &InferArgs,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
    let http = http_client()?;
    let url = globals.url.trim_end_matches('/');
    // A variable that is set to nothing is no key.
    let key = args.tenant_key.as_ref().or(globals.api_key.as_ref());
    let key = key.filter(|key| !key.is_empty());
    let key = key.ok_or_else(|| {
        Failure::refused("no API key: set MESH_API_KEY, or make one with `mesh key create --tenant TENANT`")
    })?;
    let valid = |text: &str| {
        !text.is_empty()
            && text
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'.'))
    };
    let version = args.version.as_deref();
    if !valid(&args.name) || !version.is_none_or(valid) {
        return Err(Failure::refused(
            "a name or version is letters, digits, '-', '_' and '.'",
        ));
    }
    let version = version
        .map(|version| format!("/versions/{version}"))
        .unwrap_or_default();
    let model = format!("{url}/v2/models/{}{version}", args.name);
    let body = match &args.file {
        Some(path) if path.as_os_str() == "-" => {
            let mut text = String::new();
            let read = terminal.input.take(MAX_REQUEST_BYTES).read_to_string(&mut text);
            read.map_err(|error| Failure::refused(format!("cannot read the standard input: {error}")))?;
            request_of(&text)?
        }
        Some(path) => request_of(&files::read_file(path)?)?,
        None => {
            let request = http.get(&model).bearer_auth(key).timeout(TIMEOUT);
            let (metadata, _) = answer(request, url).await?;
            let metadata = Metadata::deserialize(metadata)
                .map_err(|error| Failure::refused(format!("the model's metadata cannot be read: {error}")))?;
            inputs_of(args, &metadata)?
        }
    };
    let mut request = http
        .post(format!("{model}/infer"))
        .bearer_auth(key)
        .timeout(TIMEOUT)
        .json(&body);
    if let Some(unit) = &args.unit {
        request = request.header("x-mesh-unit", unit);
    }
    let (response, headers) = answer(request, url).await?;
    print(args, &response, &headers, terminal)
}

fn request_of(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::refused(format!("the request is not json: {error}")))
}

/// The inputs with the datatypes that the model has.
fn inputs_of(args: &InferArgs, metadata: &Metadata) -> Result<Value, Failure> {
    let mut inputs = Vec::new();
    for input in &args.inputs {
        let Some(known) = metadata.inputs.iter().find(|known| known.name == input.name) else {
            let names: Vec<_> = metadata.inputs.iter().map(|known| known.name.as_str()).collect();
            return Err(Failure::refused(format!(
                "the model has no input '{}': it has {}",
                input.name,
                names.join(", ")
            )));
        };
        inputs.push(json!({"name": input.name, "datatype": known.datatype, "shape": input.shape, "data": input.data}));
    }
    Ok(json!({ "inputs": inputs }))
}

async fn answer(request: RequestBuilder, url: &str) -> Result<(Value, HeaderMap), Failure> {
    let response = request
        .send()
        .await
        .map_err(|error| unreachable(url, "MESH_URL", &error))?;
    let (status, headers) = (response.status(), response.headers().clone());
    let body = read(response, url).await?;
    if !status.is_success() {
        return Err(refusal(status, &body));
    }
    let value = serde_json::from_slice(&body)
        .map_err(|error| Failure::refused(format!("{url} gave an answer that is not json ({error})")))?;
    Ok((value, headers))
}

fn print(args: &InferArgs, response: &Value, headers: &HeaderMap, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    match args.output {
        OutputFormat::Json => return Ok(writeln!(terminal.out, "{}", pretty(response))?),
        OutputFormat::Yaml => return Ok(write!(terminal.out, "{}", yaml(response)?)?),
        OutputFormat::Table => {}
    }
    let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    let version = response.get("model_version").and_then(Value::as_str).unwrap_or("-");
    let arm = header("x-mesh-arm")
        .map(|arm| format!(", arm {arm}"))
        .unwrap_or_default();
    writeln!(terminal.err, "{} version {version}{arm}", args.name)?;
    let mut table = table::new(&["output", "datatype", "shape", "data"]);
    for output in response.get("outputs").and_then(Value::as_array).into_iter().flatten() {
        let field = |name: &str| {
            output
                .get(name)
                .map(|value| value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned))
                .unwrap_or_default()
        };
        table.add_row([
            field("name"),
            field("datatype"),
            field("shape"),
            shown(output.get("data")),
        ]);
    }
    write!(terminal.out, "{}", table::text(&table))?;
    Ok(())
}

fn shown(data: Option<&Value>) -> String {
    let values = data.and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
    let mut text: Vec<_> = values.iter().take(MAX_SHOWN_VALUES).map(ToString::to_string).collect();
    if values.len() > MAX_SHOWN_VALUES {
        text.push(format!(
            "and {} more (-o json shows all)",
            values.len() - MAX_SHOWN_VALUES
        ));
    }
    text.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn twenty_values_are_shown_and_the_next_is_counted() {
        let values = |count: usize| json!(vec![1; count]);
        assert!(!shown(Some(&values(MAX_SHOWN_VALUES))).contains("more"));
        assert!(shown(Some(&values(MAX_SHOWN_VALUES + 1))).contains("and 1 more"));
    }
}
