//! What a repository comes to: for each model its versions as the registry would hold them, or why it is skipped.
//!
//! All of it is worked out before anything is written. Ensembles come after the models of their steps; one whose steps' model
//! is skipped is skipped too, because it could not be called.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
};

use mesh_backend::ModelFiles;
use mesh_resources::{ModelVersionSpec, VersionPolicy};
use mesh_types::{ArtifactFormat, ModelId, Version};

use crate::{
    complete::complete,
    config::{self, Converted},
    folder::{self, FolderError, ModelFolder, VersionFolder},
    json,
    note::{Note, Notes, Place, Weight},
    read::CONFIG,
    runtime::{self, PACKAGE, Runtime, SCRIPTED},
    text::Message,
};

/// What a repository comes to.
#[derive(Debug, Default)]
pub struct Plan {
    /// Those that can be brought in, in an order in which they can be written.
    pub models: Vec<Planned>,
    /// Everything to be said, of those that can and those that cannot.
    pub notes: Vec<Note>,
    /// The folders of those that cannot.
    pub skipped: BTreeSet<String>,
}

/// A model.
#[derive(Debug, Clone)]
pub struct Planned {
    /// Its name, that of its folder.
    pub name: ModelId,
    /// Which versions are kept on the devices.
    pub policy: VersionPolicy,
    /// By their numbers.
    pub versions: Vec<PlannedVersion>,
    /// Whether versions that are kept off the devices come back to them.
    pub loads: bool,
}

/// A version.
#[derive(Debug, Clone)]
pub struct PlannedVersion {
    /// Its number, that of its folder.
    pub number: Version,
    /// Its file, of the digest in the specification.
    pub file: Option<PathBuf>,
    /// What the registry is to hold.
    pub spec: ModelVersionSpec,
}

impl Planned {
    /// The models that an ensemble's steps call.
    pub fn steps(&self) -> BTreeSet<&str> {
        let configs = self.versions.iter().map(|version| &version.spec.config);
        let steps = configs
            .flat_map(|config| &config.ensemble_scheduling)
            .flat_map(|steps| &steps.step);
        steps.map(|step| step.model_name.as_str()).collect()
    }
}

/// A configuration in JSON, of Triton's message, in the stead of the one that a model's folder has. What it is that runs the
/// model, and its inputs and outputs, stay the folder's where it does not say them.
#[derive(Debug, Clone, Copy)]
pub struct Said<'a> {
    /// The model.
    pub model: &'a str,
    /// The configuration.
    pub config: &'a str,
}

/// Reads a repository: all of its models, or those that are named.
pub fn plan(root: &Path, only: &[String], files: &dyn ModelFiles) -> Result<Plan, FolderError> {
    plan_said(root, only, None, files)
}

/// The same with what was said of one of the models.
pub fn plan_said(
    root: &Path,
    only: &[String],
    said: Option<Said<'_>>,
    files: &dyn ModelFiles,
) -> Result<Plan, FolderError> {
    let mut plan = Plan::default();
    let there = folder::models(root)?;
    for name in only.iter().filter(|name| !there.contains(name)) {
        let mut notes = Notes::of(name);
        notes.refuse(
            "there is no such folder in the repository",
            None,
            "see what is there, or leave --model out",
        );
        plan.keep(notes, name, None);
    }
    for name in there.iter().filter(|name| only.is_empty() || only.contains(name)) {
        let mut notes = Notes::of(name);
        let said = said.filter(|said| said.model == name.as_str()).map(|said| said.config);
        let planned = of_folder((&root.join(name), name), said, files, &mut notes);
        plan.keep(notes, name, planned);
    }
    plan.leave_out_ensembles();
    plan.order();
    Ok(plan)
}

impl Plan {
    fn keep(&mut self, notes: Notes, name: &str, planned: Option<Planned>) {
        match planned.filter(|_| !notes.refused()) {
            Some(planned) => self.models.push(planned),
            None => drop(self.skipped.insert(name.to_owned())),
        }
        self.notes.extend(notes.into_all());
    }

    /// Skips ensembles of skipped models, and those of such ensembles.
    fn leave_out_ensembles(&mut self) {
        while let Some(index) = self
            .models
            .iter()
            .position(|model| lacking(model, &self.skipped).is_some())
        {
            let model = self.models.remove(index);
            let lacks = lacking(&model, &self.skipped).unwrap_or_default();
            let what = format!("a step's model '{lacks}' is skipped");
            let note = Note::new(Weight::Refused, model.name.as_str(), what, None, "see there");
            self.notes.push(note);
            self.skipped.insert(model.name.to_string());
        }
    }

    /// Puts ensembles behind their steps' models. Those in a circle come last: the registry says what is wrong with them.
    fn order(&mut self) {
        let mut waiting = std::mem::take(&mut self.models);
        loop {
            let names: BTreeSet<String> = waiting.iter().map(|model| model.name.to_string()).collect();
            let ready = |model: &Planned| !model.steps().iter().any(|step| names.contains(*step));
            let (free, bound): (Vec<_>, Vec<_>) = waiting.into_iter().partition(ready);
            let stuck = free.is_empty();
            self.models.extend(free);
            waiting = bound;
            if stuck || waiting.is_empty() {
                return self.models.extend(waiting);
            }
        }
    }
}

fn lacking(model: &Planned, skipped: &BTreeSet<String>) -> Option<String> {
    model
        .steps()
        .into_iter()
        .find(|step| skipped.contains(*step))
        .map(str::to_owned)
}

fn place(file: &str) -> Option<Place> {
    let (file, line) = (file.to_owned(), None);
    Some(Place { file, line })
}

fn of_folder(
    (path, name): (&Path, &str),
    said: Option<&str>,
    reader: &dyn ModelFiles,
    notes: &mut Notes,
) -> Option<Planned> {
    let model = match ModelId::parse(name) {
        Ok(model) => model,
        Err(error) => {
            notes.refuse(
                "the folder's name is no model's name",
                None,
                format!("{error}: rename it"),
            );
            return None;
        }
    };
    let folder = match folder::model(path) {
        Ok(folder) => folder,
        Err(error) => {
            notes.refuse("the folder cannot be read", None, error.to_string());
            return None;
        }
    };
    let mut converted = configuration(name, &folder, said, notes)?;
    let runtime = runtime_of(&folder, &converted, notes)?;
    if folder.versions.is_empty() {
        notes.refuse(
            "there is no version",
            None,
            "make a folder named 1, and put the model's file into it",
        );
        return None;
    }
    let files = files_of(&folder, &converted, runtime, notes);
    if let (Runtime::Torch(_), Some(newest)) = (runtime, files.last()) {
        complete_by(newest, &folder, &mut converted, reader, notes);
    }
    if !notes.refused() {
        config::check(&converted.config, &converted.lines, notes);
    }
    let version = |(number, format, file): (Version, ArtifactFormat, Option<Artifact>)| {
        let (file, artifact) = file.map(|file| (file.path, file.artifact)).unzip();
        PlannedVersion {
            number,
            file,
            spec: ModelVersionSpec {
                format,
                artifact,
                config: converted.config.clone(),
                signature: None,
                unloaded: false,
                description: None,
            },
        }
    };
    Some(Planned {
        name: model,
        policy: policy_of(&converted, &folder, notes),
        versions: files.into_iter().map(version).collect(),
        loads: false,
    })
}

/// What the model's configuration comes to: the one that was said, or else the folder's.
fn configuration(name: &str, folder: &ModelFolder, said: Option<&str>, notes: &mut Notes) -> Option<Converted> {
    let data = |within: &str, name: &str, most: usize| folder::data(&folder.path, within, name, most);
    match (said, &folder.config) {
        (Some(said), own) => {
            let own = own.as_deref().and_then(|own| Message::parse(own).ok());
            match json::parse(said, own.as_ref()) {
                Ok(message) => config::convert_message(&message, name, &data, notes),
                Err(problem) => {
                    notes.refuse("the configuration that was sent cannot be read", None, problem);
                    None
                }
            }
        }
        (None, Some(text)) => config::convert(text, name, &data, notes),
        (None, None) => Some(Converted::nothing()),
    }
}

/// A model's file.
struct Artifact {
    path: PathBuf,
    artifact: mesh_resources::ArtifactRef,
}

fn runtime_of(folder: &ModelFolder, converted: &Converted, notes: &mut Notes) -> Option<Runtime> {
    if converted.runtime.is_some() || notes.refused() {
        return converted.runtime;
    }
    let said = converted.file.iter();
    let there = folder.versions.iter().flat_map(|version| &version.files);
    let files: Vec<String> = said.chain(there).cloned().collect();
    match runtime::by_files(&files) {
        Ok(Some(runtime)) => return Some(runtime),
        Ok(None) if folder.config.is_none() && folder.versions.is_empty() => {
            notes.refuse(
                "the folder is no model",
                None,
                format!("a model has {CONFIG} and a folder named 1"),
            );
        }
        Ok(None) => {
            let right = format!("write backend: \"pytorch\" into {CONFIG}, or call the file {SCRIPTED} or {PACKAGE}");
            notes.refuse("nothing says what runs it", None, right);
        }
        Err(foreign) => notes.refuse(foreign.what, None, foreign.right),
    }
    None
}

/// Each version's format and file, as far as they are there.
fn files_of(
    folder: &ModelFolder,
    converted: &Converted,
    runtime: Runtime,
    notes: &mut Notes,
) -> Vec<(Version, ArtifactFormat, Option<Artifact>)> {
    let mut found = Vec::new();
    for version in &folder.versions {
        let Runtime::Torch(usual) = runtime else {
            found.push((version.number, runtime.format(), None));
            continue;
        };
        let name = converted.file.as_deref().unwrap_or_else(|| usual_file(version, usual));
        let shown = format!("{}/{name}", version.number);
        if !folder::is_within(name) {
            let place = converted.lines.place("default_model_filename");
            notes.refuse(
                "default_model_filename is no file's name",
                Some(place),
                "name a file in the version's folder",
            );
            return found;
        }
        let path = version.path.join(name);
        match folder::artifact(&path) {
            Ok((artifact, kind)) => {
                let format = kind.unwrap_or(if name.ends_with(".pt2") {
                    ArtifactFormat::TorchAoti
                } else {
                    runtime.format()
                });
                found.push((version.number, format, Some(Artifact { path, artifact })));
            }
            Err(error) => notes.refuse(format!("{shown} cannot be read"), place(&shown), error.to_string()),
        }
    }
    found
}

/// The file of a version by its usual names: that of the platform, unless only the other is there.
fn usual_file(version: &VersionFolder, usual: &'static str) -> &'static str {
    let has = |name: &str| version.files.iter().any(|file| file == name);
    let other = if usual == SCRIPTED { PACKAGE } else { SCRIPTED };
    if !has(usual) && has(other) { other } else { usual }
}

/// Completes a configuration that does not say all inputs and outputs, by the newest version's file.
fn complete_by(
    newest: &(Version, ArtifactFormat, Option<Artifact>),
    folder: &ModelFolder,
    converted: &mut Converted,
    reader: &dyn ModelFiles,
    notes: &mut Notes,
) {
    let (_, format, file) = newest;
    let Some(file) = file else { return };
    if notes.refused() || !converted.config.input.is_empty() && !converted.config.output.is_empty() {
        return;
    }
    let rows_said = converted.lines.has("max_batch_size");
    let done = complete(&mut converted.config, (&file.path, *format), rows_said, reader);
    if let Err(problem) = done {
        let what = if folder.config.is_some() {
            "its inputs and outputs are not all written, and its file does not say them"
        } else {
            "it has no configuration, and its file does not say enough"
        };
        notes.refuse(what, place(CONFIG), problem);
    }
}

/// The policy, whose versions are those that there are.
fn policy_of(converted: &Converted, folder: &ModelFolder, notes: &mut Notes) -> VersionPolicy {
    if let VersionPolicy::Specific { versions } = &converted.policy {
        let there = |number: &Version| folder.versions.iter().any(|version| version.number == *number);
        if let Some(missing) = versions.iter().find(|number| !there(number)) {
            let place = converted.lines.place("version_policy.specific.versions");
            notes.refuse(
                format!("version_policy names version {missing}"),
                Some(place),
                "there is no such folder",
            );
        }
    }
    converted.policy.clone()
}

#[cfg(test)]
#[path = "plan_tests.rs"]
mod tests;
