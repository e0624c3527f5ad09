//! Fuzzing with programs that only say they fuzz.

use std::os::unix::fs::PermissionsExt;

use super::*;

/// Targets that are scripts.
fn fuzzers(root: &Path, scripts: &[(&str, &str)]) -> Fuzzers {
    let programs = root.join("programs");
    fs::create_dir_all(&programs).unwrap();
    for (name, script) in scripts {
        let path = programs.join(name);
        fs::write(&path, format!("#!/bin/sh\n{script}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
    }
    Fuzzers {
        folder: root.to_path_buf(),
        programs,
        cache: root.join("cache"),
    }
}

fn arguments(target: Option<&str>) -> FuzzArguments {
    FuzzArguments {
        target: target.map(str::to_owned),
        seconds: 1,
        input: None,
    }
}

#[test]
fn targets_are_named_and_another_is_refused_with_their_names() {
    let names = targets(&folder().unwrap()).unwrap();
    assert!(
        names.len() >= 15 && names.iter().any(|name| name == "infer_json"),
        "{names:?}"
    );
    let error = run(&arguments(Some("no-such-target"))).unwrap_err().to_string();
    assert!(error.contains("infer_json"), "{error}");
}

#[test]
fn every_target_is_a_program_of_the_package() {
    let folder = folder().unwrap();
    let manifest = fs::read_to_string(folder.join("Cargo.toml")).unwrap();
    for name in targets(&folder).unwrap() {
        assert!(manifest.contains(&format!("name = \"{name}\"\n")), "{name}");
        assert!(
            manifest.contains(&format!("path = \"fuzz_targets/{name}.rs\"")),
            "{name}"
        );
    }
}

#[test]
fn all_run_and_the_inputs_of_those_that_failed_are_told() {
    let root = tempfile::tempdir().unwrap();
    let well = "echo \"$@\" >&2; echo 'stat::number_of_executed_units: 1234'; echo 'stat::new_units_added: 5'";
    let found = "echo \"thread '<unnamed>' panicked at fuzz_targets/b.rs:6:9:\"; echo 'an unsound tensor'; \
                 echo \"artifact_prefix='/f/'; Test unit written to /f/crash-0a\"; exit 77";
    let fuzzers = fuzzers(root.path(), &[("a", well), ("b", found), ("c", "exit 3"), ("d", well)]);
    for at_once in [1, 2, 9] {
        let error = fuzzers.all(&["a", "b", "c", "d"], at_once, 7).unwrap_err().to_string();
        for told in [
            "b ended at an input: /f/crash-0a",
            "panicked at fuzz_targets/b.rs:6:9:\n  an unsound tensor",
            "cargo xtask fuzz b --input /f/crash-0a",
            "cp /f/crash-0a tests/fuzz/seeds/b/",
            "c failed (exit status: 3): see ",
        ] {
            assert!(error.contains(told), "no '{told}' in {error}");
        }
        let log = root.path().join("cache/d/log");
        let given = fs::read_to_string(&log).unwrap();
        fs::remove_file(log).unwrap();
        let (corpus, seeds) = (root.path().join("cache/d/corpus"), root.path().join("seeds/d"));
        // New inputs are written into the first folder, which is not the tracked one.
        assert!(
            given.starts_with(&format!("{} {} ", corpus.display(), seeds.display())),
            "{given}"
        );
        assert!(given.contains("-max_total_time=7 "), "{given}");
    }
    assert_eq!(fuzzers.one("a", 1).unwrap(), "1234 runs, 5 inputs kept");
    assert!(fuzzers.all(&["a", "d"], 2, 1).is_ok());
}

#[test]
fn an_input_that_takes_too_long_is_told_with_what_libfuzzer_says() {
    let root = tempfile::tempdir().unwrap();
    let slow =
        "echo '==7== ERROR: libFuzzer: timeout after 10 seconds'; echo 'Test unit written to /f/timeout-0a'; exit 70";
    let error = fuzzers(root.path(), &[("a", slow)])
        .one("a", 1)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("timeout after 10 seconds") && error.contains("--input /f/timeout-0a"),
        "{error}"
    );
}

#[test]
fn more_inputs_than_are_kept_become_those_that_reach_as_far() {
    let root = tempfile::tempdir().unwrap();
    // Keeps one of those in the second folder.
    let fuzzers = fuzzers(
        root.path(),
        &[("a", "test \"$1\" = -merge=1 && cp \"$3/2\" \"$2/kept\"")],
    );
    let kept = Kept::of(&fuzzers.cache, "a").unwrap();
    let names = || {
        let entries = fs::read_dir(&kept.corpus).unwrap();
        let mut names: Vec<_> = entries.map(|entry| entry.unwrap().file_name()).collect();
        names.sort();
        names
    };
    for name in ["1", "2", "3"] {
        fs::write(kept.corpus.join(name), name).unwrap();
    }
    fuzzers.condense("a", &kept, 3).unwrap();
    assert_eq!(names(), ["1", "2", "3"]);
    fuzzers.condense("a", &kept, 2).unwrap();
    assert_eq!(names(), ["kept"]);
    assert_eq!(fs::read(kept.corpus.join("kept")).unwrap(), b"2");
}

#[test]
fn targets_are_locked_to_the_workspaces_versions_and_keep_what_is_theirs_alone() {
    let ours = "version = 4\n\n[[package]]\nname = \"bytes\"\nversion = \"1.2.0\"\n";
    let own = "version = 4\n\n[[package]]\nname = \"bytes\"\nversion = \"1.1.0\"\n\n[[package]]\nname = \"libfuzzer-sys\"\nversion = \"0.4.9\"\n";
    let both = "version = 4\n\n[[package]]\nname = \"bytes\"\nversion = \"1.2.0\"\n\n[[package]]\nname = \"libfuzzer-sys\"\nversion = \"0.4.9\"\n";
    assert_eq!(locked(ours, own), both);
    assert_eq!(locked(ours, ""), ours);
    assert_eq!(locked(ours, both), both);
}
