//! The bill of materials of this workspace, held to what CycloneDX 1.6 requires.

use std::collections::BTreeSet;

use serde_json::Value;

use super::*;

fn text<'a>(value: &'a Value, field: &str) -> &'a str {
    value[field].as_str().unwrap_or_else(|| panic!("no {field} in {value}"))
}

fn is_hex(text: &str, digits: usize) -> bool {
    text.len() == digits && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

fn check_component(component: &Value) {
    assert!(
        ["application", "library"].contains(&text(component, "type")),
        "{component}"
    );
    assert!(!text(component, "name").is_empty() && !text(component, "version").is_empty());
    if let Some(purl) = component["purl"].as_str() {
        assert!(
            ["pkg:cargo/", "pkg:npm/", "pkg:pypi/"]
                .iter()
                .any(|kind| purl.starts_with(kind)),
            "{purl}"
        );
    }
    if let Some(scope) = component["scope"].as_str() {
        assert!(["required", "optional", "excluded"].contains(&scope), "{scope}");
    }
    for hash in component["hashes"].as_array().into_iter().flatten() {
        let digits = match text(hash, "alg") {
            "SHA-256" => 64,
            "SHA-512" => 128,
            other => panic!("{other}"),
        };
        assert!(is_hex(text(hash, "content"), digits), "{hash}");
    }
    let licenses = component["licenses"].as_array();
    // With an expression there is exactly one.
    assert!(licenses.is_none_or(|licenses| licenses.len() == 1), "{component}");
    for license in licenses.into_iter().flatten() {
        assert!(!text(license, "expression").contains('/'), "{license}");
    }
}

#[test]
fn it_has_what_the_form_requires_and_everything_that_is_shipped() {
    let made = make().unwrap();
    let sbom = serde_json::to_value(&made).unwrap();
    assert_eq!(
        (text(&sbom, "bomFormat"), text(&sbom, "specVersion")),
        ("CycloneDX", "1.6")
    );
    assert_eq!(sbom["version"], 1);
    let serial = text(&sbom, "serialNumber").strip_prefix("urn:uuid:").unwrap();
    let parts: Vec<usize> = serial.split('-').map(str::len).collect();
    assert_eq!(parts, [8, 4, 4, 4, 12], "{serial}");
    let components = sbom["components"].as_array().unwrap();
    assert!(components.len() > 400, "only {}", components.len());
    components.iter().for_each(check_component);
    check_component(&sbom["metadata"]["component"]);

    let mut references: BTreeSet<&str> = components.iter().map(|component| text(component, "bom-ref")).collect();
    assert_eq!(references.len(), components.len(), "a reference means one component");
    assert!(references.insert(text(&sbom["metadata"]["component"], "bom-ref")));
    let mut told = BTreeSet::new();
    for dependency in sbom["dependencies"].as_array().unwrap() {
        assert!(told.insert(text(dependency, "ref")), "told twice: {dependency}");
        assert!(references.contains(text(dependency, "ref")), "{dependency}");
        for needed in dependency["dependsOn"].as_array().into_iter().flatten() {
            assert!(references.contains(needed.as_str().unwrap()), "{needed}");
        }
    }

    let find = |name: &str| {
        let found = components.iter().find(|component| component["name"] == name);
        found.unwrap_or_else(|| panic!("no {name}"))
    };
    for shipped in ["actix-web", "rustls", "aws-lc-sys", "torch", "react", "mesh-router"] {
        assert_eq!(text(find(shipped), "scope"), "required", "{shipped}");
    }
    for not_shipped in ["rcgen", "vite", "mesh-tidy"] {
        assert_eq!(text(find(not_shipped), "scope"), "excluded", "{not_shipped}");
    }
    assert!(find("actix-web")["hashes"][0].is_object() && find("react")["hashes"][0].is_object());
    // Nothing in it is of the moment.
    assert_eq!(serde_json::to_value(make().unwrap()).unwrap(), sbom);
}
