//! Whether systemd would ignore a request for a reboot because it comes out of a chroot.
//!
//! `reboot` is systemctl under another name on a systemd machine. In a chroot it says "Running in chroot, ignoring
//! request." and exits 0 (systemd 252, `running_in_chroot`): nothing happens, and an exit status says that it did. Its
//! test is that `/` and `/proc/1/root` can both be read and are different files, unless SYSTEMD_IGNORE_CHROOT is true.

use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::package::rooted::Root;

/// Where programs lie; what `reboot` means is looked up here in this order.
const PROGRAMS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// What statfs(2) says of procfs (`PROC_SUPER_MAGIC`).
const PROCFS: rustix::fs::FsWord = 0x9fa0;

/// The variable that lets systemd heed a request out of a chroot.
pub(crate) const IGNORE: &str = "SYSTEMD_IGNORE_CHROOT";

/// Why a reboot that is asked for in this root would be ignored; `None` where nothing says that it would.
pub(crate) fn would_ignore(root: &Root, host: &Path) -> Option<String> {
    // As systemd reads it: only a word that means yes counts.
    let told = std::env::var(IGNORE).unwrap_or_default().to_ascii_lowercase();
    if ["1", "yes", "y", "true", "t", "on"].contains(&&*told) || !reboot_is_systemctl(root) {
        return None;
    }
    let inside = identity(std::fs::metadata(host).ok()?);
    let init = identity(root_of_init(host)?);
    (inside != init).then(|| {
        format!(
            "systemd would ignore the request and call it done, because / of the root mount {} (device {}, inode {}) is \
             not /proc/1/root (device {}, inode {}); mount the host's / there (recursively bound), or set \
             SYSTEMD_IGNORE_CHROOT=1",
            host.display(),
            inside.0,
            inside.1,
            init.0,
            init.1
        )
    })
}

fn identity(metadata: std::fs::Metadata) -> (u64, u64) {
    (metadata.dev(), metadata.ino())
}

/// Process 1's root as the root mount's own procfs shows it; `None` where it has none, or it may not be read.
fn root_of_init(host: &Path) -> Option<std::fs::Metadata> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let proc = rustix::fs::open(host.join("proc"), flags, Mode::empty()).ok()?;
    let kind = rustix::fs::fstatfs(&proc).ok()?.f_type;
    if kind != PROCFS {
        return None;
    }
    std::fs::metadata(format!("/proc/self/fd/{}/1/root", proc.as_raw_fd())).ok()
}

fn reboot_is_systemctl(root: &Root) -> bool {
    let file = |name: &str| {
        PROGRAMS.iter().find_map(|folder| {
            let found = root.open_file(&Path::new(folder).join(name)).ok().flatten()?;
            found.metadata().ok().map(identity)
        })
    };
    file("reboot").is_some_and(|reboot| file("systemctl") == Some(reboot))
}
