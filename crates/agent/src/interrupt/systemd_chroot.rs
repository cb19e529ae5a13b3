//! Whether systemd would ignore a request for a reboot because it comes out of a chroot.
//!
//! `reboot` is systemctl under another name on a systemd machine. In a chroot it says "Running in chroot, ignoring
//! request." and exits 0 (systemd 252, `running_in_chroot`): nothing happens, and an exit status says that it did. Its
//! test is that `/` and `/proc/1/root` can both be read and are different files, unless SYSTEMD_IGNORE_CHROOT is true.

use std::ffi::OsStr;
use std::os::fd::AsRawFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Mode, OFlags};

use crate::package::rooted::Root;
use crate::process::chroot_exec::search_folders;

/// Where systemctl may lie besides the folders in which `reboot` is looked for.
const PROGRAMS: [&str; 6] = ["/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"];
/// Every permission to execute: with none of them a file is no program, and the next folder's is taken.
const EXECUTABLE: u32 = 0o111;
/// What statfs(2) says of procfs (`PROC_SUPER_MAGIC`).
const PROCFS: rustix::fs::FsWord = 0x9fa0;

/// The variable that lets systemd heed a request out of a chroot.
pub(crate) const IGNORE: &str = "SYSTEMD_IGNORE_CHROOT";

/// What `reboot` is given when it is started.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Given<'a> {
    /// Its `PATH`.
    pub search_path: Option<&'a OsStr>,
    /// The folder that it runs in, inside the root.
    pub directory: &'a Path,
    /// Its [`IGNORE`].
    pub ignore_chroot: Option<&'a OsStr>,
}

/// Why a reboot that is asked for in this root would be ignored; `None` where nothing says that it would.
pub(crate) fn would_ignore(root: &Root, host: &Path, given: Given<'_>) -> Option<String> {
    if given.ignore_chroot.is_some_and(means_yes) || !reboot_is_systemctl(root, given) {
        return None;
    }
    let inside = identity(&std::fs::metadata(host).ok()?);
    let init = identity(&root_of_init(host)?);
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

/// As systemd reads such a variable.
fn means_yes(value: &OsStr) -> bool {
    let word = value.to_string_lossy().to_ascii_lowercase();
    ["1", "yes", "y", "true", "t", "on"].contains(&word.as_str())
}

fn identity(metadata: &std::fs::Metadata) -> (u64, u64) {
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

/// Whether the `reboot` that will be started leads to systemctl, wherever that lies.
fn reboot_is_systemctl(root: &Root, given: Given<'_>) -> bool {
    let folders = search_folders(given.search_path.map(OsStr::as_bytes));
    let program = |folder: &Path, name: &str| {
        let file = root.open_file(&given.directory.join(folder).join(name)).ok().flatten()?;
        let found = file.metadata().ok()?;
        (found.mode() & EXECUTABLE != 0).then(|| identity(&found))
    };
    let Some(reboot) = folders.iter().find_map(|folder| program(folder, "reboot")) else { return false };
    let known = folders.iter().map(AsRef::as_ref).chain(PROGRAMS.iter().map(Path::new));
    known.filter_map(|folder| program(folder, "systemctl")).any(|systemctl| systemctl == reboot)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    fn program(host: &Path, path: &str) {
        std::fs::write(host.join(path), path).unwrap();
        std::fs::set_permissions(host.join(path), PermissionsExt::from_mode(0o755)).unwrap();
    }

    #[test]
    fn only_a_word_that_means_yes_has_systemd_heed_a_request_out_of_a_chroot() {
        for (word, expected) in [
            ("1", true),
            ("yes", true),
            ("Y", true),
            ("true", true),
            ("T", true),
            ("ON", true),
            ("", false),
            ("0", false),
            ("no", false),
            ("false", false),
            ("yess", false),
        ] {
            assert_eq!(means_yes(OsStr::new(word)), expected, "{word:?}");
        }
    }

    #[test]
    fn what_reboot_is_depends_on_the_path_that_it_is_looked_for_in() {
        let folder = tempfile::tempdir().unwrap();
        let host = folder.path();
        for made in ["usr/bin", "usr/sbin", "own", "opt"] {
            std::fs::create_dir_all(host.join(made)).unwrap();
        }
        let root = Root::open(host).unwrap();
        let is_systemds = |path: Option<&str>, directory: &str| {
            let search_path = path.map(OsStr::new);
            reboot_is_systemctl(
                &root,
                Given { search_path, directory: Path::new(directory), ignore_chroot: None },
            )
        };
        assert!(!is_systemds(Some("/usr/sbin:/usr/bin"), "/"), "there is none");
        program(host, "usr/bin/systemctl");
        symlink("../bin/systemctl", host.join("usr/sbin/reboot")).unwrap();
        assert!(is_systemds(Some("/usr/sbin:/usr/bin"), "/"));
        assert!(is_systemds(Some("/usr/sbin"), "/"), "wherever systemctl itself lies");
        // No program at all, and one that nobody may execute: the next folder counts.
        assert!(is_systemds(Some("/none:/own:/usr/sbin"), "/"));
        std::fs::write(host.join("own/reboot"), "text").unwrap();
        assert!(is_systemds(Some("/own:/usr/sbin"), "/"));
        // A foreign one does as it likes.
        program(host, "own/reboot");
        assert!(!is_systemds(Some("/own:/usr/sbin"), "/"));
        assert!(is_systemds(Some("/usr/sbin:/own"), "/"));
        assert!(!is_systemds(Some(":/usr/sbin"), "/own"), "an empty folder is the one that it runs in");
        assert!(is_systemds(Some(":/usr/sbin"), "/opt"));
        assert!(!is_systemds(Some("own:/usr/sbin"), "/"), "and so is one that begins nowhere");
        // Without a path the C library's counts.
        assert!(!is_systemds(None, "/"));
        symlink("systemctl", host.join("usr/bin/reboot")).unwrap();
        assert!(is_systemds(None, "/"));
        // A systemctl that lies where nobody would look but along with its reboot.
        program(host, "opt/systemctl");
        std::fs::hard_link(host.join("opt/systemctl"), host.join("opt/reboot")).unwrap();
        assert!(is_systemds(Some("/opt:/usr/sbin"), "/"));
    }
}
