//! `cargo xtask dist`: the static binaries that are shipped, proved static, in target/dist.

use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, bail};

use crate::{cargo, elf, packages, release};

/// Builds, proves and copies each binary. A binary that is not static, or does not start, ends the task.
///
/// Each package is built by itself: selected together, the agent would be given the orchestrator's features of the
/// crates that they share, and grow.
pub fn run() -> Result<()> {
    packages::ensure(packages::Need::Dist)?;
    let dist = cargo::target_folder()?.join("dist");
    fs::create_dir_all(&dist).with_context(|| format!("creating {}", dist.display()))?;
    for (package, binary) in release::SHIPPED {
        let profile = if package == release::SHIPPED[0].0 { release::AGENT_PROFILE } else { "dist" };
        let built = release::build_static(package, binary, profile)?;
        let bytes = fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
        let linkage = elf::linkage(&bytes).with_context(|| format!("reading {} as ELF", built.display()))?;
        if !linkage.is_static() {
            bail!("{} is not static: {linkage}", built.display());
        }
        release::refuse_faults(&built)?;
        release::refuse_oversized(binary, bytes.len() as u64)?;
        refuse_unstartable(&built)?;
        let shipped = dist.join(binary);
        fs::copy(&built, &shipped).with_context(|| format!("copying to {}", shipped.display()))?;
        println!("{}: {:.2} MB, {linkage}", shipped.display(), bytes.len() as f64 / 1e6);
    }
    Ok(())
}

/// A static binary relocates itself, which a C library before 2.36 cannot do from a packed list.
fn refuse_unstartable(binary: &Path) -> Result<()> {
    let asked = Command::new(binary).arg("--version").output();
    let output = asked.with_context(|| format!("starting {}", binary.display()))?;
    if !output.status.success() {
        bail!("{} --version: {}; is the C library older than 2.36?", binary.display(), output.status);
    }
    Ok(())
}
