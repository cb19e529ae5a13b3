//! `cargo xtask up`: builds the release binaries and becomes `groundcrewctl up`, which does the rest.

use std::process::Command;

use anyhow::Result;

use crate::{cargo, packages, release};

/// Returns only if something failed before `groundcrewctl` ran; from there on its exit status is the task's.
pub fn run(keep: bool) -> Result<()> {
    packages::ensure(packages::Need::Up)?;
    let folder = release::build()?;
    let mut up = Command::new(folder.join("groundcrewctl"));
    up.arg("up");
    if keep {
        up.arg("--keep");
    }
    up.arg("--bin-dir").arg(&folder).arg("--profile").arg(cargo::root().join("profiles/demo.toml"));
    up.arg("--report-dir").arg(cargo::target_folder()?.join("up"));
    cargo::become_command(&mut up)
}
