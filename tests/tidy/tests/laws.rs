//! Holds the workspace to the laws of the house.

use mesh_tidy::{
    conformance_scripts, edge_breaches, missing_tests, protocol_breaches, source_breaches, workspace_edges,
    workspace_file, workspace_sources,
};

#[test]
fn dependencies_go_down_and_stay_at_home() {
    let edges = workspace_edges().unwrap();
    assert!(edges.len() > 30, "cargo metadata gave only {} edges", edges.len());
    let breaches = edge_breaches(&edges);
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn sources_are_small_documented_and_finished() {
    let sources = workspace_sources().unwrap();
    assert!(sources.len() > 30, "found only {} sources", sources.len());
    let breaches: Vec<String> = sources.iter().flat_map(source_breaches).collect();
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn the_table_of_the_protocols_names_tests_that_exist() {
    let sources = [workspace_sources().unwrap(), conformance_scripts().unwrap()].concat();
    let breaches = protocol_breaches(&workspace_file("router/PROTOCOL.md").unwrap(), &sources);
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}

#[test]
fn the_threat_model_names_tests_that_exist() {
    let sources = workspace_sources().unwrap();
    let missing = missing_tests(&workspace_file("docs/THREATS.md").unwrap(), &sources);
    assert!(missing.is_empty(), "{}", missing.join("\n"));
}

#[test]
fn the_tables_of_the_rules_of_security_name_tests_that_exist() {
    let sources = [workspace_sources().unwrap(), conformance_scripts().unwrap()].concat();
    let table = workspace_file("SECURITY.md").unwrap();
    assert!(
        table.matches("| done").count() > 20,
        "the tables are not where they were"
    );
    let breaches = protocol_breaches(&table, &sources);
    assert!(breaches.is_empty(), "{}", breaches.join("\n"));
}
