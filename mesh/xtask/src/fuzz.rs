//! `cargo xtask fuzz`, and the fuzzing that every run of the tests has: libFuzzer on the targets of tests/fuzz.
//!
//! libFuzzer is a library that the targets are linked with; what guides it the compiler puts into them, and a stable one does. Only
//! sanitizers need more, which cargo-fuzz asks for where it is installed and one target is run. Owns what is kept of each
//! target in the user's cache folder, outside of the repository: inputs that reach further than those before them, from which
//! the next run goes on, and inputs that ended a target, which every run tries again. What is worth keeping for everybody is put among the
//! tracked seeds by hand.
//!
//! Invariants: targets are built from the versions that the workspace is built from; one that fails stops no other.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::atomic::{AtomicUsize, Ordering},
};

use anyhow::{Context, bail, ensure};

use crate::{environment, prerequisites, process};

/// What makes a program tell libFuzzer which ways its input takes.
const COVERAGE: &str = "--cfg fuzzing -Cpasses=sancov-module -Cllvm-args=-sanitizer-coverage-level=4 \
    -Cllvm-args=-sanitizer-coverage-inline-8bit-counters -Cllvm-args=-sanitizer-coverage-pc-table \
    -Cllvm-args=-sanitizer-coverage-trace-compares -Ccodegen-units=1";
/// An input that takes longer has found something.
const MOST_SECONDS_PER_INPUT: u32 = 10;
/// And so has one that takes more memory.
const MOST_MIB: u32 = 2_048;
/// Inputs that are kept of a target; of more, those are that reach as far together.
const MOST_KEPT: usize = 20_000;

/// What is fuzzed, and how.
#[derive(Debug, clap::Args)]
pub(crate) struct FuzzArguments {
    /// Which; without one, they are listed.
    target: Option<String>,
    /// For how long.
    #[arg(long, default_value_t = 60)]
    seconds: u32,
    /// Run the target on this one input instead.
    #[arg(long, requires = "target")]
    input: Option<PathBuf>,
}

/// Fuzzes one target, runs it on one input, or lists all.
pub(crate) fn run(arguments: &FuzzArguments) -> anyhow::Result<()> {
    let folder = folder()?;
    let names = targets(&folder)?;
    let Some(target) = &arguments.target else {
        names.iter().for_each(|name| println!("{name}"));
        return Ok(());
    };
    ensure!(
        names.contains(target),
        "no target '{target}': it is one of {}",
        names.join(", ")
    );
    if let Some(input) = &arguments.input {
        let input = fs::canonicalize(input).with_context(|| format!("cannot read {}", input.display()))?;
        return process::run(Fuzzers::build(&[target])?.program(target).arg(input));
    }
    if prerequisites::answers("cargo", &["fuzz", "--version"]) {
        let kept = Kept::of(&environment::cache()?.join("fuzz"), target)?;
        lock(&folder)?;
        let mut command = process::command("cargo", &folder);
        // It asks the compiler for what stable Rust keeps behind this.
        command.env("RUSTC_BOOTSTRAP", "1");
        command.args(["fuzz", "run", "--fuzz-dir", ".", target]);
        command.args(kept.inputs(&folder, target)).arg("--");
        return process::run(command.args(kept.options(arguments.seconds)));
    }
    eprintln!("cargo-fuzz is not installed: fuzzing without sanitizers (cargo install cargo-fuzz)");
    let fuzzers = Fuzzers::build(&[target])?;
    let kept = Kept::of(&fuzzers.cache, target)?;
    process::run(&mut fuzzers.fuzzing(target, &kept, arguments.seconds))
}

/// Fuzzes every target for so long, as many at a time as there are processors.
pub(crate) fn run_all(seconds: u32) -> anyhow::Result<()> {
    let at_once = std::thread::available_parallelism().map_or(1, usize::from);
    let names = targets(&folder()?)?;
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let fuzzers = Fuzzers::build(&names)?;
    eprintln!(
        "{} targets for {seconds} s each, {at_once} at a time; what they find is kept in {}",
        names.len(),
        fuzzers.cache.display()
    );
    fuzzers.all(&names, at_once, seconds)
}

fn folder() -> anyhow::Result<PathBuf> {
    Ok(environment::root()?.join("tests/fuzz"))
}

fn targets(folder: &Path) -> anyhow::Result<Vec<String>> {
    let mut names = Vec::new();
    for entry in fs::read_dir(folder.join("fuzz_targets"))? {
        let path = entry?.path();
        names.extend(path.file_stem().map(|name| name.to_string_lossy().into_owned()));
    }
    names.sort();
    Ok(names)
}

/// What is kept of a target.
struct Kept {
    /// Inputs that reach further than others.
    corpus: PathBuf,
    /// Inputs that have ended it.
    found: PathBuf,
    log: PathBuf,
}

impl Kept {
    fn of(cache: &Path, target: &str) -> anyhow::Result<Self> {
        let folder = cache.join(target);
        let kept = Self {
            corpus: folder.join("corpus"),
            found: folder.join("found"),
            log: folder.join("log"),
        };
        for folder in [&kept.corpus, &kept.found] {
            fs::create_dir_all(folder).with_context(|| format!("cannot make {}", folder.display()))?;
        }
        Ok(kept)
    }

    /// The folders of inputs that it begins with; new ones go into the first.
    fn inputs(&self, folder: &Path, target: &str) -> [PathBuf; 3] {
        let seeds = folder.join("seeds").join(target);
        [self.corpus.clone(), seeds, self.found.clone()]
    }

    fn options(&self, seconds: u32) -> [String; 5] {
        [
            format!("-max_total_time={seconds}"),
            format!("-timeout={MOST_SECONDS_PER_INPUT}"),
            format!("-rss_limit_mb={MOST_MIB}"),
            // A prefix and no folder: what libFuzzer writes is named behind it.
            format!("-artifact_prefix={}/", self.found.display()),
            "-print_final_stats=1".to_owned(),
        ]
    }
}

/// The targets, built.
struct Fuzzers {
    folder: PathBuf,
    programs: PathBuf,
    cache: PathBuf,
}

impl Fuzzers {
    fn build(targets: &[&str]) -> anyhow::Result<Self> {
        let folder = folder()?;
        lock(&folder)?;
        let (host, built) = (host(&folder)?, folder.join("target"));
        let mut command = environment::cargo();
        // With a target named, what runs while building is not instrumented.
        command
            .current_dir(&folder)
            .args(["build", "--release", "--target", &host, "--target-dir"])
            .arg(&built)
            .args(targets.iter().flat_map(|name| ["--bin", name]))
            .env("RUSTFLAGS", COVERAGE)
            .env_remove("CARGO_ENCODED_RUSTFLAGS");
        process::run(&mut command)?;
        Ok(Self {
            programs: built.join(host).join("release"),
            cache: environment::cache()?.join("fuzz"),
            folder,
        })
    }

    fn program(&self, target: &str) -> Command {
        process::command(self.programs.join(target), &self.folder)
    }

    fn fuzzing(&self, target: &str, kept: &Kept, seconds: u32) -> Command {
        let mut command = self.program(target);
        command
            .args(kept.inputs(&self.folder, target))
            .args(kept.options(seconds));
        command
    }

    fn all(&self, targets: &[&str], at_once: usize, seconds: u32) -> anyhow::Result<()> {
        let next = AtomicUsize::new(0);
        let work = || {
            let mut failed = Vec::new();
            while let Some(target) = targets.get(next.fetch_add(1, Ordering::Relaxed)) {
                match self.one(target, seconds) {
                    Ok(told) => eprintln!("{target:16} {told}"),
                    Err(error) => failed.push(format!("{error:#}")),
                }
            }
            failed
        };
        let failed: Vec<String> = std::thread::scope(|scope| {
            let workers: Vec<_> = (0..at_once.clamp(1, targets.len().max(1)))
                .map(|_| scope.spawn(work))
                .collect();
            let lost = |_| vec!["a fuzzer's thread was lost".to_owned()];
            let ended = workers.into_iter().map(|worker| worker.join().unwrap_or_else(lost));
            ended.flatten().collect()
        });
        ensure!(failed.is_empty(), "{}", failed.join("\n"));
        Ok(())
    }

    /// What there is to be told of a run in which nothing was found.
    fn one(&self, target: &str, seconds: u32) -> anyhow::Result<String> {
        let kept = Kept::of(&self.cache, target)?;
        self.condense(target, &kept, MOST_KEPT)?;
        let log = fs::File::create(&kept.log).with_context(|| format!("cannot write {}", kept.log.display()))?;
        let mut command = self.fuzzing(target, &kept, seconds);
        command.stdin(std::process::Stdio::null()).stdout(log.try_clone()?);
        let ended = command.stderr(log).status();
        let ended = ended.with_context(|| format!("'{}' does not start", process::text(&command)))?;
        let printed = String::from_utf8_lossy(&fs::read(&kept.log)?).into_owned();
        if ended.success() {
            let runs = statistic(&printed, "number_of_executed_units");
            let added = statistic(&printed, "new_units_added");
            return Ok(format!("{runs} runs, {added} inputs kept"));
        }
        bail!("{}", failure(target, &printed, &kept, &ended.to_string()))
    }

    /// Keeps, where more than `most` inputs are kept, those that reach as far together.
    fn condense(&self, target: &str, kept: &Kept, most: usize) -> anyhow::Result<()> {
        if fs::read_dir(&kept.corpus)?.count() <= most {
            return Ok(());
        }
        let fewer = kept.corpus.with_extension("fewer");
        if fewer.exists() {
            fs::remove_dir_all(&fewer)?;
        }
        fs::create_dir(&fewer)?;
        process::output(self.program(target).arg("-merge=1").args([&fewer, &kept.corpus]))?;
        fs::remove_dir_all(&kept.corpus)?;
        fs::rename(&fewer, &kept.corpus)?;
        Ok(())
    }
}

/// One of the numbers that libFuzzer prints at its end.
fn statistic<'a>(printed: &'a str, name: &str) -> &'a str {
    let of = |line: &'a str| line.strip_prefix("stat::")?.strip_prefix(name)?.strip_prefix(':');
    printed.lines().find_map(of).map_or("?", str::trim)
}

/// Which input a target has ended at, why, and how to see it again.
fn failure(target: &str, printed: &str, kept: &Kept, ended: &str) -> String {
    const WRITTEN: &str = "Test unit written to ";
    let mut lines = printed.lines();
    let why: Vec<&str> = match lines.by_ref().find(|line| line.contains("panicked at")) {
        Some(place) => std::iter::once(place).chain(lines.next()).collect(),
        None => printed
            .lines()
            .filter(|line| line.contains("ERROR: libFuzzer"))
            .collect(),
    };
    let input = printed.lines().find_map(|line| line.split(WRITTEN).nth(1));
    let Some(input) = input else {
        return format!("{target} failed ({ended}): see {}", kept.log.display());
    };
    format!(
        "{target} ended at an input: {input}\n  {}\n  to see it again: cargo xtask fuzz {target} --input {input}\n  once it is \
         mended: cp {input} tests/fuzz/seeds/{target}/",
        why.join("\n  ")
    )
}

fn host(folder: &Path) -> anyhow::Result<String> {
    let told = process::output(process::command("rustc", folder).arg("-vV"))?;
    let host = told.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc does not say for which host it is")?.to_owned())
}

/// Has the targets, which are no part of the workspace, built from its versions.
fn lock(folder: &Path) -> anyhow::Result<()> {
    let (ours, path) = (environment::root()?.join("Cargo.lock"), folder.join("Cargo.lock"));
    let ours = fs::read_to_string(&ours).with_context(|| format!("cannot read {}", ours.display()))?;
    // Absent at first.
    let own = fs::read_to_string(&path).unwrap_or_default();
    fs::write(&path, locked(&ours, &own)).with_context(|| format!("cannot write {}", path.display()))
}

/// The workspace's packages, and of the targets' own those that it has not. Cargo leaves out what is not needed.
fn locked(ours: &str, own: &str) -> String {
    const PACKAGE: &str = "[[package]]\n";
    let name = |package: &str| package.lines().next().map(str::to_owned);
    let known: Vec<_> = ours.split(PACKAGE).skip(1).map(name).collect();
    let more = own
        .split(PACKAGE)
        .skip(1)
        .filter(|package| !known.contains(&name(package)));
    let more = more.map(|package| format!("\n{PACKAGE}{}\n", package.trim_end()));
    format!("{}\n{}", ours.trim_end(), more.collect::<String>())
}

#[cfg(test)]
#[path = "fuzz_tests.rs"]
mod tests;
