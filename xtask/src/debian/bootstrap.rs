//! Debian's packages, unpacked into a folder by mmdebstrap.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result};

use crate::{apt, cargo};

/// Changes whenever this file does.
pub const RECIPE: &str = include_str!("bootstrap.rs");

/// The Debian that the guests run and that QEMU comes from.
const RELEASE: &str = "bookworm";

/// What stands beside an unpacked root: the names of the packages that it was made of, a line each, with their versions.
const LIST: &str = "packages";

/// Unpacks packages and what they depend on into `root`, from the mirrors that this machine's apt uses, and lists them in a
/// file beside it.
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
    // By the names of their archives: an extracted tree has no database of packages.
    let list = root.with_extension(LIST).display().to_string();
    command.arg(format!("--extract-hook=ls \"$1/var/cache/apt/archives\" | grep '[.]deb$' >'{list}'"));
    command.arg(RELEASE).arg(root).args(apt::sources(RELEASE)?);
    // chroot finds the guest's dpkg by it, and a user's PATH may lack the folders of administrators.
    command.env(
        "PATH",
        format!("/usr/local/sbin:/usr/sbin:/sbin:{}", std::env::var("PATH").unwrap_or_default()),
    );
    cargo::run(&mut command)
}

/// The packages of an unpacked root, a line each: name and version.
///
/// # Errors
/// When they were not listed.
pub fn packages_of(root: &Path) -> Result<Vec<String>> {
    let list = root.with_extension(LIST);
    let text = std::fs::read_to_string(&list).with_context(|| format!("reading {}", list.display()))?;
    Ok(text.lines().filter_map(package_of).collect())
}

/// From the name of its archive, in which a colon is escaped.
fn package_of(archive: &str) -> Option<String> {
    let mut parts = archive.split('_');
    let (name, version) = (parts.next()?, parts.next()?);
    Some(format!("{name} {}", version.replace("%3a", ":")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_is_told_by_its_archive() {
        assert_eq!(package_of("fio_3.33-3_amd64.deb").as_deref(), Some("fio 3.33-3"));
        assert_eq!(package_of("ethtool_1%3a6.1-1_amd64.deb").as_deref(), Some("ethtool 1:6.1-1"));
        assert_eq!(package_of("partial"), None);
    }
}
