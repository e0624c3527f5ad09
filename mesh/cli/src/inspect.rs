//! `model inspect`: what a model's file takes and gives, and a configuration that fits it.
//!
//! Works offline, on a file: whoever assembles the program says how files are read. Says what the file says; types and extents
//! that it does not say are guesses, and marked as such.

use mesh_backend::{ModelFiles, Signature, ValueType};
use mesh_types::DataType;

use crate::{Failure, InspectArgs, InspectOutput, Terminal, publish, table};

/// The most rows of the configuration where the file names no bound.
const ROWS: u32 = 8;

/// Runs the command; the answer is the exit code.
pub fn inspect(args: &InspectArgs, read: &dyn ModelFiles, terminal: &mut Terminal<'_>) -> u8 {
    match shown(args, read, terminal) {
        Ok(()) => 0,
        Err(failure) => {
            // Nobody is left to tell if stderr is gone.
            let _ = write!(terminal.err, "{failure}");
            failure.exit_code()
        }
    }
}

fn shown(args: &InspectArgs, read: &dyn ModelFiles, terminal: &mut Terminal<'_>) -> Result<(), Failure> {
    let format = publish::format_of(args.format, &args.file)?;
    let signature = read
        .signature(&args.file, format)
        .map_err(|problem| Failure::refused(format!("{}: {problem}", args.file.display())))?;
    let configuration = configuration(&signature);
    if args.output == InspectOutput::Yaml {
        return Ok(write!(terminal.out, "{configuration}")?);
    }
    writeln!(terminal.out, "{}, {signature}\n", format.platform())?;
    writeln!(terminal.out, "{}", arguments(&signature))?;
    writeln!(terminal.out, "{}", results(&signature))?;
    write!(
        terminal.out,
        "A configuration that fits (alone with -o yaml):\n\n{configuration}"
    )?;
    Ok(())
}

fn arguments(signature: &Signature) -> String {
    let mut table = table::new(&["argument", "input", "type", "may be left out"]);
    for argument in &signature.arguments {
        if argument.value.is_parameters() {
            let of = "the request's parameters".to_owned();
            table.add_row([argument.name.clone(), of, argument.value.to_string(), "yes".to_owned()]);
            continue;
        }
        for (name, value) in argument.value.leaves(&argument.name) {
            let left_out = match &argument.default {
                Some(default) => format!("yes, then {default}"),
                None if argument.value.may_be_none() => "yes, then None".to_owned(),
                None => "no".to_owned(),
            };
            table.add_row([argument.name.clone(), name, value.to_string(), left_out]);
        }
    }
    if table.is_empty() {
        return "no arguments\n".to_owned();
    }
    table::text(&table)
}

/// The names of a result's tensors: keys at the top, places otherwise.
fn outputs(signature: &Signature) -> Vec<(String, &ValueType)> {
    let root = match signature.result.present() {
        ValueType::Dict { .. } | ValueType::Record(_) => "",
        value if value.is_leaf() => "OUTPUT__0",
        _ => "OUTPUT",
    };
    signature.result.leaves(root)
}

fn results(signature: &Signature) -> String {
    let mut table = table::new(&["output", "type"]);
    for (name, value) in outputs(signature) {
        table.add_row([name, value.to_string()]);
    }
    table::text(&table)
}

/// A configuration that fits, as YAML with remarks.
fn configuration(signature: &Signature) -> String {
    let of_inputs = || {
        let arguments = signature.arguments.iter();
        arguments.filter(|argument| !argument.value.is_parameters())
    };
    let tensors = || of_inputs().flat_map(|argument| argument.value.leaves(&argument.name));
    // A batch dimension that is fixed is none.
    let fixed = tensors().any(|(_, value)| matches!(known_dims(value), Some([rows, ..]) if *rows != -1));
    let rows = if fixed {
        0
    } else {
        signature.max_rows.unwrap_or(ROWS).min(ROWS)
    };
    let mut text = format!("max_batch_size: {rows}\n");
    if signature
        .arguments
        .iter()
        .any(|argument| argument.value.is_parameters())
    {
        text.push_str("request_parameters: {} # all; or names: [..]\n");
    }
    text.push_str("input:\n");
    for argument in of_inputs() {
        let optional = argument.default.is_some() || argument.value.may_be_none();
        for (name, value) in argument.value.leaves(&argument.name) {
            text.push_str(&tensor(&name, value, rows > 0, optional));
        }
    }
    text.push_str("output:\n");
    for (name, value) in outputs(signature) {
        text.push_str(&tensor(&name, value, rows > 0, false));
    }
    text
}

fn known_dims(value: &ValueType) -> Option<&[i64]> {
    match value.present() {
        ValueType::Tensor { dims, .. } => dims.as_deref(),
        _ => None,
    }
}

/// One line of a configuration.
fn tensor(name: &str, value: &ValueType, batches: bool, optional: bool) -> String {
    if let ValueType::Other(text) = value.present() {
        return format!("  # {name} is {text}: it can only be left out\n");
    }
    let mut guesses = Vec::new();
    let (datatype, dims) = match value.present() {
        ValueType::Tensor { datatype, dims } => {
            let dims = dims
                .as_deref()
                .map(|dims| dims.get(usize::from(batches)..).unwrap_or_default().to_vec());
            guesses.extend(datatype.is_none().then_some("datatype"));
            guesses.extend(dims.is_none().then_some("dims"));
            (datatype.unwrap_or(DataType::Fp32), dims.unwrap_or_else(|| vec![-1]))
        }
        ValueType::List { item, .. } => (plain(item), vec![-1]),
        value => (plain(value), vec![1]),
    };
    let mut line = format!("  - {{name: {}, datatype: {datatype}, dims: {dims:?}", quoted(name));
    if optional {
        line.push_str(", optional: true");
    }
    if batches && value.is_plain() {
        line.push_str(", unbatched: true");
    }
    line.push('}');
    if name.contains("KEY") {
        guesses.push("name");
    }
    if !guesses.is_empty() {
        line.push_str(&format!("  # a guess: {}", guesses.join(", ")));
    }
    line.push('\n');
    line
}

fn plain(value: &ValueType) -> DataType {
    match value {
        ValueType::Int => DataType::Int64,
        ValueType::Bool => DataType::Bool,
        _ => DataType::Fp32,
    }
}

/// A name as YAML takes it.
fn quoted(name: &str) -> String {
    let plain = name
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'.'));
    let word = !matches!(
        name.to_ascii_lowercase().as_str(),
        "y" | "n" | "yes" | "no" | "on" | "off" | "true" | "false" | "null"
    );
    if plain && word && name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_') {
        return name.to_owned();
    }
    format!("\"{}\"", name.replace('\\', "\\\\").replace('"', "\\\""))
}

#[cfg(test)]
mod tests {
    use mesh_backend::{Argument, Binding};
    use mesh_types::ModelConfig;

    use super::*;

    fn argument(name: &str, value: ValueType, default: Option<&str>) -> Argument {
        Argument {
            name: name.into(),
            value,
            default: default.map(str::to_owned),
        }
    }

    #[test]
    fn the_configuration_fits_the_signature_and_marks_what_is_guessed() {
        let tensors = ValueType::List {
            item: Box::new(ValueType::tensor()),
            length: Some(2),
        };
        let texts = ValueType::Dict {
            value: Box::new(ValueType::Other("str".into())),
            keys: Vec::new(),
        };
        let keyed = ValueType::Dict {
            value: Box::new(ValueType::tensor()),
            keys: vec!["y".into()],
        };
        let signature = Signature {
            arguments: vec![
                argument("x", ValueType::tensor(), None),
                argument("k", ValueType::Int, Some("3")),
                argument("xs", tensors, None),
                argument("on", ValueType::Other("Device".into()), Some("cpu")),
                argument("given", texts, None),
            ],
            result: keyed,
            max_rows: None,
        };
        let text = configuration(&signature);
        assert!(
            text.contains("{name: k, datatype: INT64, dims: [1], optional: true, unbatched: true}"),
            "{text}"
        );
        assert!(
            text.contains("{name: xs__1, datatype: FP32, dims: [-1]}  # a guess: datatype, dims"),
            "{text}"
        );
        assert!(
            text.contains("request_parameters: {}") && !text.contains("given"),
            "{text}"
        );
        let table = arguments(&signature);
        assert!(table.contains("the request's parameters"), "{table}");
        assert!(text.contains("# on is Device: it can only be left out"), "{text}");
        assert!(text.contains("{name: \"y\", "), "{text}");
        let config: ModelConfig = serde_yaml_ng::from_str(&text).unwrap();
        assert!(config.problems().is_empty(), "{:?}", config.problems());
        assert!(Binding::of(&signature, &config).is_ok(), "{text}");
    }

    #[test]
    fn what_a_package_says_is_no_guess_and_a_fixed_batch_is_none() {
        let built = |rows: i64| Signature {
            arguments: vec![argument(
                "INPUT__0",
                ValueType::Tensor {
                    datatype: Some(DataType::Int64),
                    dims: Some(vec![rows, 30]),
                },
                None,
            )],
            result: ValueType::tensor(),
            max_rows: Some(4),
        };
        let text = configuration(&built(-1));
        assert!(
            text.starts_with("max_batch_size: 4\ninput:\n  - {name: INPUT__0, datatype: INT64, dims: [30]}\n"),
            "{text}"
        );
        let text = configuration(&built(2));
        assert!(
            text.starts_with("max_batch_size: 0\ninput:\n  - {name: INPUT__0, datatype: INT64, dims: [2, 30]}\n"),
            "{text}"
        );
        assert!(Binding::of(&built(2), &serde_yaml_ng::from_str(&text).unwrap()).is_ok());
    }
}
