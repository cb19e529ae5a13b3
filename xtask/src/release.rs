//! The three binaries, optimised, as operators get them: without the faults that tests put into durable writes.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

use crate::cargo;

/// The binaries that are shipped: (package, binary).
pub const SHIPPED: [(&str, &str); 3] = [
    ("groundcrew-agent", "groundcrew"),
    ("groundcrew-orchestrator", "groundcrewd"),
    ("groundcrew-ctl", "groundcrewctl"),
];

/// How the names of the variables begin by which tests order a fault (feature `faults` of groundcrew-durable).
const FAULT_VARIABLE: &[u8] = b"GROUNDCREW_FAULT";

/// The profile that the agent is built in: for its size.
pub const AGENT_PROFILE: &str = "agent";

/// What the agent may weigh, in bytes: live images carry it by the thousand.
const AGENT_BYTES_MAX: u64 = 6_000_000;

/// What makes the C library part of a binary; it also exists in static form for the gnu targets, which every toolchain can
/// build, where musl's would have to be installed first. Relocations become a list of addresses in place of a table, and
/// functions of the same code one function, which takes 0.3 MB off the agent; the linker that comes with Rust knows both.
/// Frame pointers take 0.18 MB more: with them the tables for unwinding need one rule for a function instead of one for each
/// value on the stack. A profiler can follow them too.
const STATIC: &str = "-C target-feature=+crt-static -C force-frame-pointers=yes \
    -C link-arg=-Wl,-z,pack-relative-relocs -C link-arg=-Wl,--icf=all";

/// Builds the shipped binaries, each in its profile, and returns the folder in which all of them lie. The agent is static
/// here already: what is run and measured is what machines get.
///
/// The agent is built by itself: selected together with the others it would be given the orchestrator's features of the
/// crates that they share, and grow. Cargo unites only the features of what is selected, and groundcrew-tests, which asks
/// for `faults`, never is.
pub fn build() -> Result<PathBuf> {
    let [(agent, agent_binary), others @ ..] = SHIPPED;
    let built = build_static(agent, agent_binary, AGENT_PROFILE)?;
    let mut build = cargo::cargo();
    build.args(["build", "--release"]);
    for (package, _) in others {
        build.args(["--package", package]);
    }
    cargo::run(&mut build)?;
    let target = cargo::target_folder()?;
    let folder = target.join("release");
    replace(&built, &folder.join(agent_binary))?;
    for (_, binary) in SHIPPED {
        refuse_faults(&folder.join(binary))?;
    }
    Ok(folder)
}

/// Builds one static binary and says where it lies. That it came out static, `dist` proves.
pub fn build_static(package: &str, binary: &str, profile: &str) -> Result<PathBuf> {
    let triple = cargo::host_triple()?;
    ensure!(
        triple.ends_with("-linux-gnu"),
        "static binaries are built on a linux-gnu host, and this is {triple}"
    );
    let mut build = cargo::cargo();
    // An explicit target keeps the flags away from build scripts and procedural macros, which must stay dynamic.
    build.args(["build", "--profile", profile, "--target", &triple, "--package", package]);
    cargo::run(build.env("RUSTFLAGS", static_flags()))?;
    Ok(cargo::target_folder()?.join(triple).join(profile).join(binary))
}

/// The caller's own flags, and ours behind them so that ours count.
fn static_flags() -> String {
    let own = std::env::var("RUSTFLAGS").unwrap_or_default();
    format!("{own} {STATIC}").trim_start().to_string()
}

/// Copies a file over another, which may be a program that runs: that one keeps what it has.
fn replace(from: &Path, to: &Path) -> Result<()> {
    let copying = || format!("copying {} to {}", from.display(), to.display());
    let beside = to.with_extension("new");
    std::fs::copy(from, &beside).with_context(copying)?;
    std::fs::rename(&beside, to).with_context(copying)
}

/// Proves that a binary cannot be told to fail: it does not hold the name of the variable that would.
pub fn refuse_faults(binary: &Path) -> Result<()> {
    let bytes = std::fs::read(binary).with_context(|| format!("reading {}", binary.display()))?;
    if holds(&bytes, FAULT_VARIABLE) {
        bail!(
            "{} holds {}: it was built with the faults that only tests may have",
            binary.display(),
            String::from_utf8_lossy(FAULT_VARIABLE)
        );
    }
    Ok(())
}

/// Refuses an agent that live images should not carry.
pub fn refuse_oversized(binary: &str, bytes: u64) -> Result<()> {
    ensure!(
        binary != SHIPPED[0].1 || bytes < AGENT_BYTES_MAX,
        "{binary} has {bytes} bytes, and is shipped under {AGENT_BYTES_MAX}: ARCHITECTURE.md says what keeps it small"
    );
    Ok(())
}

fn holds(bytes: &[u8], needle: &[u8]) -> bool {
    bytes.windows(needle.len()).any(|window| window == needle)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_agents_size_is_bounded() {
        assert!(refuse_oversized("groundcrew", AGENT_BYTES_MAX - 1).is_ok());
        assert!(refuse_oversized("groundcrewd", AGENT_BYTES_MAX).is_ok());
        let error = refuse_oversized("groundcrew", AGENT_BYTES_MAX).unwrap_err().to_string();
        assert!(error.starts_with("groundcrew has 6000000 bytes"), "{error}");
    }

    #[test]
    fn a_binary_that_holds_the_fault_variable_is_refused() {
        // This very test binary has the name in it.
        let own = std::env::current_exe().unwrap();
        let error = refuse_faults(&own).unwrap_err().to_string();
        assert!(error.contains("GROUNDCREW_FAULT") && error.contains(own.to_str().unwrap()), "{error}");
        refuse_faults(Path::new("/bin/true")).unwrap();
        assert!(refuse_faults(Path::new("/no/such/binary")).is_err(), "what cannot be read is not proved");
    }

    #[test]
    fn a_program_that_runs_is_replaced() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("program");
        std::fs::copy("/bin/sleep", &program).unwrap();
        let mut child = std::process::Command::new(&program).arg("60").spawn().unwrap();
        replace(Path::new("/bin/true"), &program).unwrap();
        assert!(std::process::Command::new(&program).status().unwrap().success());
        child.kill().unwrap();
        child.wait().unwrap();
        let error = replace(&folder.path().join("none"), &program).unwrap_err().to_string();
        assert!(error.contains("none"), "{error}");
    }
}
