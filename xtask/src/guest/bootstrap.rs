//! Debian's packages, unpacked into a folder by mmdebstrap.

use std::path::Path;
use std::process::Command;

use anyhow::Result;

use crate::{apt, cargo};

/// Changes whenever this file does.
pub const RECIPE: &str = include_str!("bootstrap.rs");

/// The Debian that the guests run and that QEMU comes from.
const RELEASE: &str = "bookworm";

/// Unpacks packages and what they depend on into `root`, from the mirrors that this machine's apt uses.
///
/// # Errors
/// When a mirror does not answer or has no such package; mmdebstrap says which.
pub fn unpack(variant: &str, packages: &[&str], left_out: &[&str], root: &Path) -> Result<()> {
    let mut command = Command::new("mmdebstrap");
    command.args(["--mode=root", "--format=directory", &format!("--variant={variant}")]);
    command.arg(format!("--include={}", packages.join(",")));
    command.arg("--aptopt=APT::Install-Recommends \"false\"");
    // A mirror that fails once is asked again, but not without end.
    command.arg("--aptopt=Acquire::Retries \"3\"").arg("--aptopt=Acquire::http::Timeout \"60\"");
    // A tree that a crash of the host leaves torn is not used: its recipe is written last.
    command.arg("--dpkgopt=force-unsafe-io");
    for path in left_out {
        command.arg(format!("--dpkgopt=path-exclude={path}"));
    }
    command.arg(RELEASE).arg(root).args(apt::sources(RELEASE)?);
    // chroot finds the guest's dpkg by it, and a user's PATH may lack the folders of administrators.
    command.env(
        "PATH",
        format!("/usr/local/sbin:/usr/sbin:/sbin:{}", std::env::var("PATH").unwrap_or_default()),
    );
    cargo::run(&mut command)
}
