//! QEMU, the kernel and what makes the image, unpacked from Debian's packages without being installed.

use std::ffi::OsStr;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::Result;

use super::bootstrap;

/// Changes whenever this file does.
pub const RECIPE: &str = include_str!("tools.rs");

/// What is unpacked, with everything that it depends on.
const PACKAGES: [&str; 8] = [
    // The machine, and its disks.
    "qemu-system-x86",
    "qemu-utils",
    // The generic kernel: it has the drivers of real hardware, which the cloud kernel lacks.
    "linux-image-amd64",
    "kmod",
    // The initramfs is busybox and modules.
    "busybox-static",
    // The kernel is compressed by it.
    "xz-utils",
    // The root file system.
    "e2fsprogs",
    // Network boot: QEMU's network cards have their firmware there.
    "ipxe-qemu",
];

/// Unpacks it into `new/root`.
pub fn make(new: &Path) -> Result<()> {
    bootstrap::unpack("extract", &PACKAGES, &[], &new.join("root"))
}

/// A program of the unpacked tree, with the tree's own libraries.
///
/// kmod is one program under several names, and those are links that lead to the host: `name` is the one that it is
/// called by.
pub fn tool(root: &Path, path: &str, name: impl AsRef<OsStr>) -> Command {
    let library = |folder: &str| root.join(folder).join("x86_64-linux-gnu").display().to_string();
    let mut command = Command::new(root.join(path));
    command.arg0(name);
    command.env("LD_LIBRARY_PATH", format!("{}:{}", library("usr/lib"), library("lib")));
    command
}
