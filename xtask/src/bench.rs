//! `cargo xtask bench`: builds the release binaries and the benchmark, and becomes the benchmark.

use std::ffi::OsString;
use std::process::Command;

use anyhow::Result;

use crate::{cargo, packages, release};

/// Returns only if something failed before the benchmark ran; from there on its exit status is the task's.
///
/// The binaries under measurement are built first and by themselves, so that they are the shipped ones: selected
/// together with the benchmark they would take over its features.
pub fn run(arguments: &[OsString]) -> Result<()> {
    packages::ensure(packages::Need::Bench)?;
    let folder = release::build()?;
    cargo::run(cargo::cargo().args(["build", "--release", "--package", "groundcrew-bench"]))?;
    let mut bench = Command::new(folder.join("groundcrew-bench"));
    cargo::become_command(bench.args(arguments).env("GROUNDCREW_BIN_DIR", &folder))
}
