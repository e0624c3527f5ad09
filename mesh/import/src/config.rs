//! A model's `config.pbtxt` in the mesh's words: what is taken as it is, and what is called or given differently.
//!
//! Differs from Triton's own reading in nothing that a caller could notice, but where a note says so. Files that a configuration
//! names become part of it, because the mesh keeps no files beside a model's own; they are read through a function that the
//! caller gives.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use mesh_resources::VersionPolicy;
use mesh_types::{
    MAX_CLASS_LABEL_BYTES, MAX_INITIAL_STATE_BYTES, MAX_WARMUP_BYTES, ModelConfig, ModelId, StepVersion, Version,
};
use serde_json::{Map, Value as Json};

use crate::{
    note::{Notes, Weight},
    read::{Lines, Reader},
    runtime::{self, Runtime},
    schema::tables::MODEL,
    text::Message,
};

/// Reads a file of the model's folder: the folder within it, the name, and the most bytes.
pub(crate) type DataReader<'a> = dyn Fn(&str, &str, usize) -> Result<Vec<u8>, String> + 'a;

/// What the files of warm-up inputs and of initial states lie in.
const WARMUP_FOLDER: &str = "warmup";
const STATE_FOLDER: &str = "initial_state";
/// The parameter of a configuration that says which of a request's parameters its model is given: names with commas between them,
/// or `*` for all.
const REQUEST_PARAMETERS: &str = "REQUEST_PARAMETERS";
/// What only devices and their backends read, and an ensemble has none of.
const OF_BACKENDS: &[&str] = &[
    "instance_group",
    "parameters",
    "request_parameters",
    "model_warmup",
    "dynamic_batching",
    "sequence_batching",
];

/// What a configuration came to.
#[derive(Debug)]
pub(crate) struct Converted {
    /// What runs it; none where only its files say.
    pub(crate) runtime: Option<Runtime>,
    /// The file of each version, where it is said.
    pub(crate) file: Option<String>,
    pub(crate) policy: VersionPolicy,
    pub(crate) config: ModelConfig,
    pub(crate) lines: Lines,
}

impl Converted {
    /// That of a model without a configuration.
    pub(crate) fn nothing() -> Self {
        Self {
            runtime: None,
            file: None,
            policy: VersionPolicy::Latest { num_versions: 1 },
            config: ModelConfig::default(),
            lines: Lines::default(),
        }
    }
}

/// Reads a configuration. None where it cannot be read at all; the notes say whether the model is to be skipped.
pub(crate) fn convert(text: &str, folder: &str, data: &DataReader<'_>, notes: &mut Notes) -> Option<Converted> {
    let message = match Message::parse(text) {
        Ok(message) => message,
        Err(error) => {
            let mut place = Lines::default().place("");
            place.line = Some(error.line);
            notes.refuse(
                "the configuration cannot be read",
                Some(place),
                error.problem.to_string(),
            );
            return None;
        }
    };
    convert_message(&message, folder, data, notes)
}

/// The same of what was read.
pub(crate) fn convert_message(
    message: &Message,
    folder: &str,
    data: &DataReader<'_>,
    notes: &mut Notes,
) -> Option<Converted> {
    let lines = Lines::default();
    let mut reader = Reader { notes, lines };
    let object = reader.message(message, MODEL, "");
    let lines = reader.lines;
    Desk { notes, lines, data }.finish(object, folder)
}

/// Says everything that is wrong with a configuration as the mesh sees it, with the lines.
pub(crate) fn check(config: &ModelConfig, lines: &Lines, notes: &mut Notes) {
    for problem in config.problems() {
        notes.refuse(
            problem.field.clone(),
            Some(lines.place(&problem.field)),
            problem.problem,
        );
    }
}

/// Where a configuration is gone through.
struct Desk<'a> {
    notes: &'a mut Notes,
    lines: Lines,
    data: &'a DataReader<'a>,
}

impl Desk<'_> {
    fn refuse(&mut self, path: &str, what: impl Into<String>, right: impl Into<String>) {
        let place = self.lines.place(path);
        self.notes.refuse(what, Some(place), right);
    }

    fn ignore(&mut self, path: &str, right: &str) {
        let place = self.lines.place(path);
        self.notes
            .say(Weight::Ignored, format!("{path} is ignored"), Some(place), right);
    }

    fn finish(mut self, mut object: Map<String, Json>, folder: &str) -> Option<Converted> {
        let mut text = |name: &str| match object.remove(name) {
            Some(Json::String(text)) => text,
            _ => String::new(),
        };
        let [name, platform, backend, library, file] =
            ["name", "platform", "backend", "runtime", "default_model_filename"].map(&mut text);
        if !name.is_empty() && name != folder {
            let right = "the name of a model and of its folder are the same: change one, or leave the name out";
            self.refuse("name", format!("name '{name}' is not the folder's"), right);
        }
        let runtime = self.runtime(&backend, &platform, &library, &object);
        let policy = self.policy(object.remove("version_policy"));
        object.remove("response_cache");
        self.transactions(&mut object, runtime);
        self.one_scheduler(&mut object);
        self.groups(&mut object);
        self.labels(&mut object);
        self.warmups(&mut object);
        self.sequences(&mut object);
        self.steps(&object);
        self.request_parameters(&mut object);
        self.parameters(&mut object, runtime);
        if runtime == Some(Runtime::Ensemble) {
            for name in OF_BACKENDS.iter().filter(|name| object.remove(**name).is_some()) {
                self.ignore(name, "an ensemble runs on no device: its steps' models say this");
            }
        }
        let config = match serde_json::from_value(Json::Object(object)) {
            Ok(config) => config,
            // What the tables let pass has been told already; what they do not know shows here.
            Err(error) if !self.notes.refused() => {
                self.refuse("", "the configuration cannot be taken", error.to_string());
                return None;
            }
            Err(_) => return None,
        };
        Some(Converted {
            runtime,
            file: (!file.is_empty()).then_some(file),
            policy,
            config,
            lines: self.lines,
        })
    }

    fn runtime(&mut self, backend: &str, platform: &str, library: &str, object: &Map<String, Json>) -> Option<Runtime> {
        let has_steps = object.contains_key("ensemble_scheduling");
        if library.ends_with(".py") {
            let right = "no Python runs here: script the model as TorchScript";
            self.refuse("runtime", format!("runtime '{library}' is not supported"), right);
        }
        match runtime::said(backend, platform) {
            Ok(None) if has_steps => Some(Runtime::Ensemble),
            Ok(Some(Runtime::Ensemble)) if !has_steps => {
                self.refuse(
                    "platform",
                    "ensemble_scheduling is missing",
                    "an ensemble has steps: write them",
                );
                Some(Runtime::Ensemble)
            }
            Ok(Some(other)) if has_steps && other != Runtime::Ensemble => {
                let right = "a model with steps has platform: \"ensemble\"";
                self.refuse("ensemble_scheduling", "ensemble_scheduling is not the backend's", right);
                Some(other)
            }
            Ok(said) => said,
            Err(foreign) => {
                self.refuse(foreign.field, foreign.what, foreign.right);
                None
            }
        }
    }

    fn policy(&mut self, said: Option<Json>) -> VersionPolicy {
        let newest = VersionPolicy::Latest { num_versions: 1 };
        let said = match said {
            Some(Json::Object(said)) => said,
            _ => return newest,
        };
        if said.len() > 1 {
            self.refuse(
                "version_policy",
                "version_policy says two things",
                "it is one of latest, all and specific",
            );
        }
        if said.contains_key("all") {
            return VersionPolicy::All {};
        }
        if let Some(latest) = said.get("latest") {
            let number = latest.get("num_versions").and_then(Json::as_u64).unwrap_or(1);
            let num_versions = u32::try_from(number).unwrap_or(u32::MAX).max(1);
            return VersionPolicy::Latest { num_versions };
        }
        let Some(listed) = said
            .get("specific")
            .and_then(|specific| specific.get("versions")?.as_array())
        else {
            return newest;
        };
        let number = |number: &Json| {
            number
                .as_u64()
                .and_then(|number| Version::new(u32::try_from(number).ok()?).ok())
        };
        let versions: Option<Vec<Version>> = listed.iter().map(number).collect();
        match versions {
            Some(versions) if !versions.is_empty() => VersionPolicy::Specific { versions },
            _ => {
                let right = "name at least one; versions are numbered from 1";
                self.refuse(
                    "version_policy.specific",
                    "version_policy.specific names no versions",
                    right,
                );
                newest
            }
        }
    }

    fn one_scheduler(&mut self, object: &mut Map<String, Json>) {
        let all = ["dynamic_batching", "sequence_batching", "ensemble_scheduling"];
        let said: Vec<&str> = all.into_iter().filter(|name| object.contains_key(*name)).collect();
        if let [_, second, ..] = said.as_slice() {
            let what = format!("{} are there together", said.join(" and "));
            self.refuse(second, what, "a model has one of the three: choose");
        }
        let rows = object.get("max_batch_size").and_then(Json::as_u64).unwrap_or(0);
        if rows == 0 && object.remove("dynamic_batching").is_some() {
            self.ignore("dynamic_batching", "the model has no batches: max_batch_size is 0");
        }
    }

    /// Only models that are part of the mesh give any number of answers.
    fn transactions(&mut self, object: &mut Map<String, Json>, runtime: Option<Runtime>) {
        let policy = object.get("model_transaction_policy");
        let decoupled = policy.and_then(|policy| policy.get("decoupled")?.as_bool());
        if decoupled != Some(true) {
            // As in Triton the default, said or not.
            object.remove("model_transaction_policy");
        } else if !matches!(runtime, Some(Runtime::Builtin(_))) {
            let path = "model_transaction_policy.decoupled";
            let right = "what gives any number of answers is a built-in model: let this one give one, and leave it out";
            self.refuse(path, "a decoupled model of this kind is not supported", right);
        }
    }

    fn groups(&mut self, object: &mut Map<String, Json>) {
        for (index, group) in each(object.get_mut("instance_group")) {
            if group.get("kind").and_then(Json::as_str) == Some("KIND_MODEL") {
                let path = format!("instance_group[{index}].kind");
                let right = "a model is on one device here: use KIND_AUTO, KIND_GPU or KIND_CPU";
                self.refuse(&path, "KIND_MODEL is not supported", right);
                group.remove("kind");
            }
            // Absent, and what is below, means one in Triton; here absent means one for each thread of the device.
            let count = group.get("count").and_then(Json::as_i64).unwrap_or(1).max(1);
            group.insert("count".to_owned(), Json::from(count));
        }
    }

    /// A label for each line of a file beside the configuration.
    fn labels(&mut self, object: &mut Map<String, Json>) {
        for (index, output) in each(object.get_mut("output")) {
            let Some(Json::String(file)) = output.remove("label_filename") else {
                continue;
            };
            if file.is_empty() {
                continue;
            }
            let read = (self.data)("", &file, MAX_CLASS_LABEL_BYTES);
            let text = read.and_then(|bytes| String::from_utf8(bytes).map_err(|_| "it is not UTF-8".to_owned()));
            match text {
                Ok(text) => drop(output.insert("labels".to_owned(), text.lines().map(Json::from).collect())),
                Err(problem) => {
                    let path = format!("output[{index}].label_filename");
                    self.refuse(&path, format!("{path} '{file}' cannot be read"), problem);
                }
            }
        }
    }

    fn warmups(&mut self, object: &mut Map<String, Json>) {
        for (index, record) in each(object.get_mut("model_warmup")) {
            if record.get("name").and_then(Json::as_str).unwrap_or_default().is_empty() {
                record.insert("name".to_owned(), Json::from(format!("warmup-{}", index + 1)));
            }
            let Some(Json::Object(inputs)) = record.get_mut("inputs") else {
                continue;
            };
            for (name, input) in inputs {
                let Json::Object(input) = input else { continue };
                let path = format!("model_warmup[{index}].inputs.{name}.input_data_file");
                self.embed(
                    input,
                    ("input_data_file", "input_data"),
                    WARMUP_FOLDER,
                    MAX_WARMUP_BYTES,
                    &path,
                );
            }
        }
    }

    fn sequences(&mut self, object: &mut Map<String, Json>) {
        let Some(Json::Object(sequence)) = object.get_mut("sequence_batching") else {
            return;
        };
        for (_, input) in each(sequence.get_mut("control_input")) {
            for (_, control) in each(input.get_mut("control")) {
                // The first of its enumeration, as in every message of this form.
                control
                    .entry("kind")
                    .or_insert_with(|| Json::from("CONTROL_SEQUENCE_START"));
            }
        }
        for (index, state) in each(sequence.get_mut("state")) {
            for (which, initial) in each(state.get_mut("initial_state")) {
                let path = format!("sequence_batching.state[{index}].initial_state[{which}].data_file");
                self.embed(
                    initial,
                    ("data_file", "data"),
                    STATE_FOLDER,
                    MAX_INITIAL_STATE_BYTES,
                    &path,
                );
            }
        }
    }

    /// A file's bytes in its name's stead.
    fn embed(&mut self, object: &mut Map<String, Json>, names: (&str, &str), folder: &str, most: usize, path: &str) {
        let Some(Json::String(file)) = object.remove(names.0) else {
            return;
        };
        if file.is_empty() {
            return;
        }
        match (self.data)(folder, &file, most) {
            Ok(bytes) => drop(object.insert(names.1.to_owned(), Json::from(STANDARD.encode(bytes)))),
            Err(problem) => {
                self.refuse(path, format!("{path} '{file}' cannot be read"), problem);
                // In its stead, so that nothing more is said of it.
                object.insert("zero_data".to_owned(), Json::Bool(true));
            }
        }
    }

    fn steps(&mut self, object: &Map<String, Json>) {
        let steps = object
            .get("ensemble_scheduling")
            .and_then(|steps| steps.get("step")?.as_array());
        for (index, step) in steps.into_iter().flatten().enumerate() {
            let path = |field: &str| format!("ensemble_scheduling.step[{index}].{field}");
            let model = step.get("model_name").and_then(Json::as_str).unwrap_or_default();
            if let Err(error) = ModelId::parse(model) {
                let path = path("model_name");
                self.refuse(&path, path.clone(), error.to_string());
            }
            let version = step.get("model_version").and_then(Json::as_i64).unwrap_or(-1);
            if version.to_string().parse::<StepVersion>().is_err() || version == 0 || version < -1 {
                let path = path("model_version");
                self.refuse(
                    &path,
                    format!("{path} is {version}"),
                    "write a version from 1, or -1 for the newest",
                );
            }
        }
    }

    /// The mesh's own parameter [`REQUEST_PARAMETERS`] becomes the field that Triton has no word for. There no names are all names, so
    /// who names none here, and may have meant none, is asked.
    fn request_parameters(&mut self, object: &mut Map<String, Json>) {
        let parameters = object.get_mut("parameters").and_then(Json::as_object_mut);
        let Some(value) = parameters.and_then(|parameters| parameters.remove(REQUEST_PARAMETERS)) else {
            return;
        };
        let text = value.get("string_value").and_then(Json::as_str).unwrap_or_default();
        let said: Vec<&str> = text.split(',').map(str::trim).filter(|name| !name.is_empty()).collect();
        let names = match said.as_slice() {
            ["*"] => &[],
            [] => {
                let right = "write * for all, names with commas between them, or leave it out for none";
                self.refuse_request_parameters("names no parameters", right);
                return;
            }
            some if some.contains(&"*") => {
                let right = "write * alone for all, or names with commas between them";
                self.refuse_request_parameters("names all parameters and some", right);
                return;
            }
            names => names,
        };
        object.insert("request_parameters".to_owned(), serde_json::json!({ "names": names }));
    }

    fn refuse_request_parameters(&mut self, what: &str, right: &str) {
        let path = format!("parameters.{REQUEST_PARAMETERS}");
        self.refuse(&path, format!("{path} {what}"), right);
    }

    /// `{ string_value: "x" }` is the text; the built-in models read numbers as such.
    fn parameters(&mut self, object: &mut Map<String, Json>, runtime: Option<Runtime>) {
        let of_torch = matches!(runtime, None | Some(Runtime::Torch(_)));
        if let Some(Json::Object(parameters)) = object.get_mut("parameters") {
            for (name, value) in parameters.iter_mut() {
                let text = value.get("string_value").and_then(Json::as_str).unwrap_or_default();
                let number = text
                    .parse::<u64>()
                    .ok()
                    .filter(|_| matches!(runtime, Some(Runtime::Builtin(_))));
                *value = number.map_or_else(|| Json::from(text), Json::from);
                if of_torch {
                    self.notes.say(
                        Weight::Ignored,
                        format!("parameters.{name} has no effect"),
                        Some(self.lines.place(&format!("parameters.{name}"))),
                        "libtorch is set up for the whole program: see `mesh serve --help`",
                    );
                }
            }
        }
        if let Some(Runtime::Builtin(Some(name))) = runtime {
            let parameters = object.entry("parameters").or_insert_with(|| Json::Object(Map::new()));
            if let Json::Object(parameters) = parameters {
                parameters.insert("builtin".to_owned(), Json::from(name));
            }
        }
    }
}

/// The messages of a list, with their places.
fn each(list: Option<&mut Json>) -> impl Iterator<Item = (usize, &mut Map<String, Json>)> {
    let list = list.and_then(Json::as_array_mut).into_iter().flatten();
    list.enumerate()
        .filter_map(|(index, item)| Some((index, item.as_object_mut()?)))
}

#[cfg(test)]
#[path = "config_tests.rs"]
mod tests;
