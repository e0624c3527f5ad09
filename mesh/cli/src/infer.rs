//! `infer`: asks the inference door as a tenant would.

use std::{io::Read as _, time::Duration};

use mesh_client::{Client, ClientBuilder, Error, JsonAnswer, Model, ModelMetadata};
use serde_json::{Value, json};

use crate::{
    Failure, GlobalOptions, InferArgs, OutputFormat, Terminal, apply::yaml, client::USER_AGENT, files, get::pretty,
    table,
};

const TIMEOUT: Duration = Duration::from_secs(60);
const MAX_REQUEST_BYTES: u64 = 16 << 20;
/// The most values of an output that a table shows.
const MAX_SHOWN_VALUES: usize = 20;

pub(crate) async fn infer(
    globals: &GlobalOptions,
    args: &InferArgs,
    terminal: &mut Terminal<'_>,
) -> Result<(), Failure> {
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
    let client = globals.trust.client(Client::http(url).api_key(key))?;
    let model = model(client, &args.name, version).map_err(|error| failure(url, &error))?;
    let body = match &args.file {
        Some(path) if path.as_os_str() == "-" => {
            let mut text = String::new();
            let read = terminal.input.take(MAX_REQUEST_BYTES).read_to_string(&mut text);
            read.map_err(|error| Failure::refused(format!("cannot read the standard input: {error}")))?;
            request_of(&text)?
        }
        Some(path) => request_of(&files::read_file(path)?)?,
        None => {
            let metadata = model.metadata().await.map_err(|error| failure(url, &error))?;
            inputs_of(args, &metadata)?
        }
    };
    let answer = model.infer_json(body.to_string(), args.unit.as_deref()).await;
    let answer = answer.map_err(|error| failure(url, &error))?;
    print(args, url, &answer, terminal)
}

fn model(client: ClientBuilder, name: &str, version: Option<&str>) -> Result<Model, Error> {
    // A command that is tried once says at once what is wrong.
    let client = client.user_agent(USER_AGENT).timeout(TIMEOUT).retries(0);
    let model = client.build()?.model(name);
    Ok(match version {
        Some(version) => model.version(version),
        None => model,
    })
}

fn failure(url: &str, error: &Error) -> Failure {
    match error {
        Error::Invalid(message) => Failure::refused(message.clone()),
        Error::Unreachable(cause) => Failure::Unreachable(format!(
            "cannot reach {url} ({cause}): is `mesh serve` running there? the address comes from MESH_URL"
        )),
        Error::Deadline(_) => {
            Failure::Unreachable(format!("{url} did not answer in time: try again, or check its health"))
        }
        Error::Broken(cause) => Failure::Unreachable(format!("{url} broke off its answer: {cause}")),
        Error::Refused(refusal) if error.http_status() == Some(401) => {
            Failure::refused(format!("{}: check the token or key", refusal.message))
        }
        Error::Refused(refusal) => Failure::refused(refusal.message.clone()),
        error => Failure::refused(format!("{url}: {error}")),
    }
}

fn request_of(text: &str) -> Result<Value, Failure> {
    serde_json::from_str(text).map_err(|error| Failure::refused(format!("the request is not json: {error}")))
}

/// The inputs with the datatypes that the model has.
fn inputs_of(args: &InferArgs, metadata: &ModelMetadata) -> Result<Value, Failure> {
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
        inputs.push(
            json!({"name": input.name, "datatype": known.datatype.as_str(), "shape": input.shape, "data": input.data}),
        );
    }
    Ok(json!({ "inputs": inputs }))
}

fn print(args: &InferArgs, url: &str, answer: &JsonAnswer, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let response: Value = serde_json::from_slice(&answer.body)
        .map_err(|error| Failure::refused(format!("{url} gave an answer that is not json ({error})")))?;
    match args.output {
        OutputFormat::Json => return Ok(writeln!(terminal.out, "{}", pretty(&response))?),
        OutputFormat::Yaml => return Ok(write!(terminal.out, "{}", yaml(&response)?)?),
        OutputFormat::Table => {}
    }
    let version = response.get("model_version").and_then(Value::as_str).unwrap_or("-");
    let arm = answer
        .arm
        .as_ref()
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
    fn what_goes_wrong_says_what_to_do() {
        let text = |error: Error| failure("http://x", &error).to_string();
        assert!(text(Error::Unreachable("refused".into())).contains("MESH_URL"));
        assert!(text(Error::Deadline(TIMEOUT)).contains("in time"));
        assert_eq!(failure("http://x", &Error::Broken("x".into())).exit_code(), 3);
        assert_eq!(failure("http://x", &Error::Invalid("x".into())).exit_code(), 1);
    }

    #[test]
    fn twenty_values_are_shown_and_the_next_is_counted() {
        let values = |count: usize| json!(vec![1; count]);
        assert!(!shown(Some(&values(MAX_SHOWN_VALUES))).contains("more"));
        assert!(shown(Some(&values(MAX_SHOWN_VALUES + 1))).contains("and 1 more"));
    }
}
