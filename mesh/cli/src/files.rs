//! Reads resources out of files: one or many documents of YAML or JSON, with errors that name file, document and field.

use std::{
    fs,
    io::Read as _,
    path::{Path, PathBuf},
};

use mesh_resources::{Problem, Resource};
use serde::Deserialize as _;
use serde_json::Value;

use crate::{Failure, Terminal};

/// The most resources in one go; the registry takes no more in one transaction.
pub(crate) const MAX_RESOURCES: usize = 256;
/// The largest file.
const MAX_FILE_BYTES: u64 = 4 << 20;
/// The most files of a folder.
const MAX_FILES: usize = 1_000;

/// A resource and where it was written.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    /// The file and document, for messages.
    pub(crate) place: String,
    /// What it says.
    pub(crate) resource: Resource,
}

/// Everything that the files say, or everything that is wrong with them.
pub(crate) fn read_all(files: &[PathBuf], terminal: &mut Terminal<'_>) -> Result<Vec<Written>, Failure> {
    let (mut written, mut problems) = (Vec::new(), Vec::new());
    for path in files {
        if path.as_os_str() == "-" {
            let mut text = String::new();
            let read = terminal.input.take(MAX_FILE_BYTES + 1).read_to_string(&mut text);
            read.map_err(|error| Failure::refused(format!("cannot read the standard input: {error}")))?;
            read_text("standard input", &text, &mut written, &mut problems)?;
            continue;
        }
        for file in files_of(path)? {
            let text = read_file(&file)?;
            read_text(&file.display().to_string(), &text, &mut written, &mut problems)?;
        }
    }
    if !problems.is_empty() {
        return Err(Failure::Refused {
            message: "nothing was sent, the files have problems".to_owned(),
            problems,
        });
    }
    match written.len() {
        0 => Err(Failure::refused("the files hold no resource")),
        count if count > MAX_RESOURCES => Err(Failure::refused(format!(
            "{count} resources; at most {MAX_RESOURCES} are applied at once, all or nothing: split them"
        ))),
        _ => Ok(written),
    }
}

/// Reads one bounded file.
pub(crate) fn read_file(path: &Path) -> Result<String, Failure> {
    let failed = |error: std::io::Error| Failure::refused(format!("cannot read {}: {error}", path.display()));
    let mut text = String::new();
    let file = fs::File::open(path).map_err(failed)?;
    file.take(MAX_FILE_BYTES + 1)
        .read_to_string(&mut text)
        .map_err(failed)?;
    check_size(&path.display().to_string(), &text)?;
    Ok(text)
}

fn check_size(name: &str, text: &str) -> Result<(), Failure> {
    if text.len() as u64 > MAX_FILE_BYTES {
        return Err(Failure::refused(format!(
            "{name} is larger than {MAX_FILE_BYTES} bytes"
        )));
    }
    Ok(())
}

/// The file itself, or the folder's files in the order of their names.
fn files_of(path: &Path) -> Result<Vec<PathBuf>, Failure> {
    let failed = |error: std::io::Error| Failure::refused(format!("cannot read {}: {error}", path.display()));
    if !fs::metadata(path).map_err(failed)?.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let mut files = Vec::new();
    for entry in fs::read_dir(path).map_err(failed)? {
        let file = entry.map_err(failed)?.path();
        let extension = file.extension().and_then(|extension| extension.to_str());
        if file.is_file() && matches!(extension, Some("yaml" | "yml" | "json")) {
            files.push(file);
        }
        if files.len() > MAX_FILES {
            return Err(Failure::refused(format!(
                "{} holds more than {MAX_FILES} files",
                path.display()
            )));
        }
    }
    if files.is_empty() {
        return Err(Failure::refused(format!(
            "{} holds no .yaml, .yml or .json file",
            path.display()
        )));
    }
    files.sort();
    Ok(files)
}

fn read_text(name: &str, text: &str, written: &mut Vec<Written>, problems: &mut Vec<Problem>) -> Result<(), Failure> {
    check_size(name, text)?;
    for (index, document) in serde_yaml_ng::Deserializer::from_str(text).enumerate() {
        let place = format!("{name}, document {}", index + 1);
        match Value::deserialize(document) {
            Ok(Value::Null) => {}
            Ok(value) => read_value(&place, value, written, problems),
            Err(error) => {
                // What follows a syntax error cannot be told apart from it.
                problems.push(Problem::new(place, error.to_string()));
                return Ok(());
            }
        }
    }
    Ok(())
}

/// A document is a resource, a list of them, or `{"items": [..]}` as `get -o json` prints it.
fn read_value(place: &str, value: Value, written: &mut Vec<Written>, problems: &mut Vec<Problem>) {
    let items = match value {
        Value::Array(items) => items,
        Value::Object(mut object) if object.contains_key("items") && !object.contains_key("kind") => {
            match object.remove("items") {
                Some(Value::Array(items)) => items,
                _ => return problems.push(Problem::new(place, "items: must be a list of resources")),
            }
        }
        single => return read_resource(place.to_owned(), single, written, problems),
    };
    for (index, item) in items.into_iter().enumerate() {
        read_resource(format!("{place}, item {}", index + 1), item, written, problems);
    }
}

fn read_resource(place: String, value: Value, written: &mut Vec<Written>, problems: &mut Vec<Problem>) {
    let resource = match Resource::deserialize(value) {
        Ok(resource) => resource,
        Err(error) => return problems.push(Problem::new(place, error.to_string())),
    };
    let name = resource.key().map(|key| format!(" ({key})")).unwrap_or_default();
    let place = format!("{place}{name}");
    let redacted = |problem: &Problem| problem.field == "spec.hash" || problem.field.ends_with("secret_base64");
    // A redacted secret stands for the one that the mesh has: whether it has one is the mesh's to say.
    let own = resource.problems().into_iter().filter(|problem| !redacted(problem));
    let before = problems.len();
    problems.extend(own.map(|problem| Problem::new(place.clone(), problem.to_string())));
    if problems.len() == before {
        written.push(Written { place, resource });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<Vec<Written>, Failure> {
        let mut terminal = Terminal {
            out: &mut Vec::new(),
            err: &mut Vec::new(),
            input: &mut text.as_bytes(),
            interactive: false,
        };
        read_all(&[PathBuf::from("-")], &mut terminal)
    }

    const TENANT: &str = "apiVersion: mesh/v1\nkind: Tenant\nmetadata: {name: acme}\nspec: {weight: 2}\n";

    #[test]
    fn documents_lists_and_items_are_read_in_order() {
        let tenant = |name: &str| TENANT.replace("acme", name);
        let text = format!("---\n{}---\n# only a comment\n---\n{}", tenant("a"), tenant("b"));
        let written = read(&text).unwrap();
        assert_eq!(written.len(), 2);
        assert_eq!(written[1].place, "standard input, document 3 (Tenant/b)");
        let json = serde_json::json!({"items": [written[0].resource, written[1].resource], "next": null});
        assert_eq!(read(&json.to_string()).unwrap().len(), 2);
        assert_eq!(read(&json["items"].to_string()).unwrap().len(), 2);
    }

    #[test]
    fn errors_name_the_document_and_the_field_all_at_once() {
        let bad = TENANT.replace("weight: 2", "wieght: 2");
        let heavy = TENANT.replace("weight: 2", "weight: 0");
        let text = read(&format!("{TENANT}---\n{bad}---\n{heavy}"))
            .unwrap_err()
            .to_string();
        assert!(
            text.contains("standard input, document 2: spec: unknown field `wieght`"),
            "{text}"
        );
        assert!(
            text.contains("document 3 (Tenant/acme): spec.weight: 0 is not within 1 to 1000"),
            "{text}"
        );
    }

    #[test]
    fn a_syntax_error_says_where() {
        let text = read(&format!("{TENANT}---\nkind: [\n")).unwrap_err().to_string();
        assert!(text.contains("document 2") && text.contains("line"), "{text}");
    }

    #[test]
    fn as_many_as_one_transaction_takes_and_not_one_more() {
        let many = |count: usize| format!("{TENANT}---\n").repeat(count);
        assert_eq!(read(&many(MAX_RESOURCES)).unwrap().len(), MAX_RESOURCES);
        assert!(
            read(&many(MAX_RESOURCES + 1))
                .unwrap_err()
                .to_string()
                .contains("split")
        );
        assert!(read("").unwrap_err().to_string().contains("no resource"));
    }

    #[test]
    fn a_folder_gives_its_files_by_name() {
        let folder = tempfile::tempdir().unwrap();
        for (name, tenant) in [("b.yaml", "b"), ("a.yml", "a"), ("notes.txt", "x")] {
            fs::write(folder.path().join(name), TENANT.replace("acme", tenant)).unwrap();
        }
        let mut terminal = Terminal {
            out: &mut Vec::new(),
            err: &mut Vec::new(),
            input: &mut &b""[..],
            interactive: false,
        };
        let written = read_all(&[folder.path().to_owned()], &mut terminal).unwrap();
        let names: Vec<_> = written.iter().map(|one| one.resource.metadata.name.as_str()).collect();
        assert_eq!(names, ["a", "b"]);
    }
}
