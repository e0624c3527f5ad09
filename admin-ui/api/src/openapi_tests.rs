//! The document against the routes, against itself, and against the copy that the web app's types are made from.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

fn written() -> Value {
    serde_json::to_value(document()).unwrap()
}

#[test]
fn every_route_is_in_the_document_and_nothing_else_is() {
    let document = written();
    let mut documented = BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for method in item.as_object().unwrap().keys() {
            documented.insert(format!("{method} {path}"));
        }
    }
    let method = |entry: &Entry| {
        serde_json::to_value(&entry.method)
            .unwrap()
            .as_str()
            .unwrap()
            .to_lowercase()
    };
    let routes: Vec<_> = entries()
        .iter()
        .map(|entry| format!("{} {}", method(entry), entry.path))
        .collect();
    assert_eq!(routes.len(), documented.len(), "a route is there twice");
    assert_eq!(documented, routes.into_iter().collect());
}

#[test]
fn operations_have_names_of_their_own_and_declare_the_parts_of_their_path() {
    let mut names = BTreeSet::new();
    for entry in entries() {
        assert!(names.insert(entry.id.clone()), "{} is there twice", entry.id);
        let operation = serde_json::to_value(operation(&entry).build()).unwrap();
        for part in path_parameters(&entry.path) {
            let found = operation["parameters"]
                .as_array()
                .unwrap()
                .iter()
                .any(|one| one["name"] == part && one["in"] == "path");
            assert!(found, "{}: {part}", entry.id);
        }
    }
}

fn references<'a>(value: &'a Value, found: &mut BTreeSet<&'a str>) {
    match value {
        Value::Object(object) => {
            for (name, value) in object {
                if let (true, Some(text)) = (name == "$ref", value.as_str()) {
                    found.insert(text);
                }
                references(value, found);
            }
        }
        Value::Array(items) => items.iter().for_each(|item| references(item, found)),
        _ => {}
    }
}

#[test]
fn every_reference_resolves_and_every_schema_is_used() {
    let document = written();
    let mut found = BTreeSet::new();
    references(&document, &mut found);
    for reference in &found {
        assert!(
            document.pointer(reference.trim_start_matches('#')).is_some(),
            "{reference} does not resolve"
        );
    }
    for name in document["components"]["schemas"].as_object().unwrap().keys() {
        assert!(
            found.contains(&*format!("#/components/schemas/{name}")),
            "{name} is not used"
        );
    }
    assert!(document["openapi"].as_str().unwrap().starts_with("3.1"));
}

#[test]
fn the_copy_beside_the_crate_is_current() {
    let copy: Value = serde_json::from_str(include_str!("../openapi.json")).unwrap();
    assert!(
        copy == written(),
        "openapi.json is old: cargo run -p mesh-admin-api --example openapi > admin-ui/api/openapi.json"
    );
}
