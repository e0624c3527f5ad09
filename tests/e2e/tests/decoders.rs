//! What reads bytes from outside, on the seeds of the fuzzers and on twenty thousand mutations of each set: the fuzzers' own bodies,
//! in every run of the tests. The mutations are always the same; all targets together take some ten seconds. What is guided by coverage
//! and goes on from what it found before is `cargo xtask fuzz` (tests/fuzz/README.md).

use std::{fs, path::PathBuf};

use anyhow::{Context, anyhow, ensure};
use mesh_protocol::fuzz;

const MUTATIONS: usize = 20_000;
/// Seeds that a target has at least.
const LEAST_SEEDS: usize = 2;

type Body = fn(&[u8]) -> Result<(), String>;

/// A body for texts; the fuzzer makes only texts for it.
macro_rules! text {
    ($body:path) => {
        |data: &[u8]| $body(&String::from_utf8_lossy(data))
    };
}

const TARGETS: &[(&str, Body)] = &[
    ("archive", mesh_resources::fuzz::archive),
    ("condition", text!(mesh_policies::fuzz::condition)),
    ("credential", text!(mesh_policies::fuzz::credential)),
    ("event", fuzz::event),
    ("frames", mesh_wire::fuzz::frames),
    ("generate", fuzz::generate),
    ("heads", mesh_wire::fuzz::heads),
    ("index", fuzz::index),
    ("infer_binary", fuzz::infer_binary),
    ("infer_json", fuzz::infer_json),
    ("infer_message", fuzz::infer_message),
    ("key_set", mesh_policies::fuzz::key_set),
    ("load", fuzz::load),
    ("model_config", text!(mesh_import::fuzz::model_config)),
    ("model_config_json", text!(mesh_import::fuzz::model_config_json)),
    ("serving", fuzz::serving),
    ("settings", fuzz::settings),
    ("v1", fuzz::v1),
];

fn folder(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../fuzz")).join(name)
}

fn files(name: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder(name)).with_context(|| name.to_owned())? {
        files.push(entry?.path());
    }
    files.sort();
    Ok(files)
}

#[test]
fn seeds_and_their_mutations_get_an_answer() -> anyhow::Result<()> {
    std::thread::scope(|scope| {
        let run = |&(target, body): &(&str, Body)| {
            let seeds: Result<Vec<Vec<u8>>, _> = files(&format!("seeds/{target}"))?.iter().map(fs::read).collect();
            let seeds = seeds?;
            ensure!(seeds.len() >= LEAST_SEEDS, "{target} has {} seeds", seeds.len());
            fuzz::seeds_and_mutations(&seeds, MUTATIONS, body).map_err(|problem| anyhow!("{target}: {problem}"))
        };
        let running: Vec<_> = TARGETS.iter().map(|target| scope.spawn(move || run(target))).collect();
        for ended in running {
            ended.join().map_err(|_| anyhow!("a decoder panicked"))??;
        }
        Ok(())
    })
}

#[test]
fn every_fuzz_target_is_run_here() -> anyhow::Result<()> {
    let targets = files("fuzz_targets")?;
    let names: Vec<_> = targets.iter().filter_map(|path| path.file_stem()?.to_str()).collect();
    let run: Vec<_> = TARGETS.iter().map(|(name, _)| *name).collect();
    assert_eq!(names, run);
    Ok(())
}
