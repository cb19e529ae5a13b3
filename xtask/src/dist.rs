//! `cargo xtask dist`: the static binaries that are shipped, proved static, in target/dist.

use std::fs;

use anyhow::{Context, Result, bail, ensure};

use crate::{cargo, elf, packages, release};

/// What makes the C library part of the binary. It also exists for the gnu targets, which every toolchain can build;
/// musl's would have to be installed first.
const STATIC: &str = "-C target-feature=+crt-static";

/// Builds, proves and copies each binary. A binary that is not static ends the task.
///
/// Each package is built by itself: selected together, the agent would be given the orchestrator's features of the
/// crates that they share, and grow.
pub fn run() -> Result<()> {
    packages::ensure(packages::Need::Dist)?;
    let triple = cargo::host_triple()?;
    ensure!(
        triple.ends_with("-linux-gnu"),
        "static binaries are built on a linux-gnu host, and this is {triple}"
    );
    let target = cargo::target_folder()?;
    let dist = target.join("dist");
    fs::create_dir_all(&dist).with_context(|| format!("creating {}", dist.display()))?;
    for (package, binary) in release::SHIPPED {
        let mut build = cargo::cargo();
        // An explicit target keeps the flags away from build scripts and procedural macros, which must stay dynamic.
        let profile = if package == release::SHIPPED[0].0 { release::AGENT_PROFILE } else { "dist" };
        build.args(["build", "--profile", profile, "--target", &triple, "--package", package]);
        cargo::run(build.env("RUSTFLAGS", static_flags()))?;
        let built = target.join(&triple).join(profile).join(binary);
        let bytes = fs::read(&built).with_context(|| format!("reading {}", built.display()))?;
        let linkage = elf::linkage(&bytes).with_context(|| format!("reading {} as ELF", built.display()))?;
        if !linkage.is_static() {
            bail!("{} is not static: {linkage}", built.display());
        }
        release::refuse_faults(&built)?;
        let shipped = dist.join(binary);
        fs::copy(&built, &shipped).with_context(|| format!("copying to {}", shipped.display()))?;
        println!("{}: {:.2} MB, {linkage}", shipped.display(), bytes.len() as f64 / 1e6);
    }
    Ok(())
}

/// The caller's own flags, and ours behind them so that ours count.
fn static_flags() -> String {
    let own = std::env::var("RUSTFLAGS").unwrap_or_default();
    format!("{own} {STATIC}").trim_start().to_string()
}
