//! Triton's model repositories: read, said in the mesh's words, and brought in.
//!
//! Owns the text format of `config.pbtxt` ([`text`]), what its fields mean here, the reading of a repository's folders, and the
//! order in which what they hold is written ([`carry_out`]). Knows no runtime, no wire and no registry: who calls it says where
//! resources are written ([`Target`]) and who reads a model's signature, so that the command and the program bring models in
//! the same way.
//!
//! Invariants: a model that is not supported is skipped with its reason, field and line, and stops no other; what is brought in
//! twice is written once; everything that is read is bounded.

mod carry;
mod complete;
mod config;
mod folder;
#[doc(hidden)]
pub mod fuzz;
mod json;
mod note;
mod plan;
mod read;
mod runtime;
mod schema;
pub mod text;

pub use carry::{Action, Outcome, Report, Setback, Target, carry_out};
pub use complete::{DEFAULT_ROWS, complete};
pub use folder::{FolderError, MAX_FILES, MAX_MODELS, MAX_VERSIONS, models};
pub use note::{MAX_NOTES, Note, Place, Weight};
pub use plan::{Plan, Planned, PlannedVersion, Said, plan, plan_said};

/// Reads a configuration as an import does, for fuzzing: the number of things there are to be said of it.
pub fn read_config(text: &str) -> usize {
    said_of(|data, notes| config::convert(text, "m", data, notes))
}

/// The same of one in JSON, as a load does.
fn read_config_json(text: &str) -> usize {
    said_of(|data, notes| match json::parse(text, None) {
        Ok(message) => config::convert_message(&message, "m", data, notes),
        Err(problem) => {
            notes.refuse("it cannot be read", None, problem);
            None
        }
    })
}

fn said_of(read: impl FnOnce(&config::DataReader<'_>, &mut note::Notes) -> Option<config::Converted>) -> usize {
    let mut notes = note::Notes::of("m");
    if let Some(converted) = read(&|_, _, _| Err("not there".to_owned()), &mut notes) {
        config::check(&converted.config, &converted.lines, &mut notes);
    }
    notes.into_all().len()
}
