//! `cargo xtask fuzz`: builds the fuzz targets with coverage compiled in, and lets libFuzzer search.
//!
//! It needs no nightly toolchain: the coverage that libFuzzer reads is a pass of LLVM, asked for by stable flags. The
//! address sanitizer does need one and is left out; what is tried here is safe Rust.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};

use crate::{cargo, packages};

/// How long a target is tried unless told.
const SECONDS: u32 = 60;
/// The longest input, in bytes: enough for every shape, and short enough to try thousands a second.
const INPUT_BYTES_MAX: u32 = 4096;
/// What tells libFuzzer where an input went: a counter for each edge, and the values of comparisons.
const COVERAGE: [&str; 7] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Ccodegen-units=1",
    "-Cdebug-assertions",
];

/// What `cargo xtask fuzz` was asked for.
#[derive(Debug, PartialEq, Eq)]
pub struct Options {
    /// The target; all of them, one after another, where there is none.
    pub target: Option<String>,
    /// How long each is tried.
    pub seconds: u32,
}

impl Default for Options {
    fn default() -> Self {
        Options { target: None, seconds: SECONDS }
    }
}

/// Tries the targets; the first input that breaks a rule ends it with an error, after libFuzzer has said where it lies.
pub fn run(options: &Options) -> Result<()> {
    let root = cargo::root();
    let known = targets(&root.join("fuzz/corpus"))?;
    let chosen: Vec<&String> =
        known.iter().filter(|name| options.target.as_ref().is_none_or(|wanted| wanted == *name)).collect();
    ensure!(
        !chosen.is_empty(),
        "there is no fuzz target '{}'; expected one of {}",
        options.target.as_deref().unwrap_or_default(),
        known.join(", ")
    );
    packages::ensure(packages::Need::Fuzz)?;
    let folder = cargo::target_folder()?.join("fuzz");
    let host = cargo::host_triple()?;
    // With `--target` the flags are for the program alone, and not for the build scripts that run here.
    cargo::run(
        cargo::cargo()
            .args(["build", "--profile", "fuzz", "--package", "groundcrew-fuzz", "--features", "libfuzzer"])
            .args(["--target", &host, "--target-dir"])
            .arg(&folder)
            .env("RUSTFLAGS", COVERAGE.join(" ")),
    )?;
    let program = folder.join(host).join("fuzz/groundcrew-fuzz");
    for name in chosen {
        search(&program, name, options.seconds, &folder, &root.join("fuzz/corpus").join(name))?;
    }
    Ok(())
}

/// The targets: each has a folder of committed inputs, which a test of theirs sees to.
fn targets(corpus: &Path) -> Result<Vec<String>> {
    let reading = || format!("reading {}", corpus.display());
    let mut names = Vec::new();
    for entry in std::fs::read_dir(corpus).with_context(reading)? {
        names.push(entry.with_context(reading)?.file_name().to_string_lossy().into_owned());
    }
    names.sort();
    Ok(names)
}

/// New inputs are kept in the target folder, from where the next search goes on; the committed ones are only read.
fn search(program: &Path, name: &str, seconds: u32, folder: &Path, committed: &Path) -> Result<()> {
    let (kept, found) = (folder.join("corpus").join(name), folder.join("found"));
    for made in [&kept, &found] {
        std::fs::create_dir_all(made).with_context(|| format!("making {}", made.display()))?;
    }
    let mut command = Command::new(program);
    command
        .env("GROUNDCREW_FUZZ_TARGET", name)
        .arg(format!("-max_total_time={seconds}"))
        .arg(format!("-max_len={INPUT_BYTES_MAX}"))
        .arg(format!("-artifact_prefix={}/{name}-", found.display()))
        .arg("-print_final_stats=1")
        .args([&kept, committed]);
    cargo::run(&mut command).with_context(|| {
        format!(
            "target {name}: libFuzzer said above what was broken, and which file in {} breaks it",
            found.display()
        )
    })
}
