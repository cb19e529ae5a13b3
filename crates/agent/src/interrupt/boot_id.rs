//! The kernel's boot id, and whether what is read there is the kernel's word.
//!
//! A container runtime, or a test, may have mounted a file over the boot id: it would then never change, or change
//! without a reboot. The mount that the opened file lies in says so, and such an id counts as unreadable.

use std::fs::File;
use std::io::Read;
use std::os::fd::AsRawFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use groundcrew_durable::epoch;
use groundcrew_protocol::ids::BootId;

/// Where the boot id lies below the root of procfs.
const BELOW_PROC: &str = "sys/kernel/random/boot_id";
/// Greatest size of a table of mounts that is read; a node with thousands of pods has some MiB.
const MOUNTINFO_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Greatest size of a boot id that is read, in bytes: the kernel's has 37.
const ID_BYTES_MAX: u64 = 4096;
/// Greatest size of what the kernel says of an open file, in bytes: a few lines for one in procfs.
const FDINFO_BYTES_MAX: u64 = 4096;

/// A boot id that nobody may rely on.
#[derive(Debug, thiserror::Error)]
pub enum BootIdError {
    /// It, or what tells whose word it is, could not be read.
    #[error("reading the kernel's boot id, and in which file system it lies, from {}", path.display())]
    Unread {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// Something is mounted over it.
    #[error("{kind} is mounted over {}, so the boot id that is read there is not the kernel's", on.display())]
    MountedOver {
        /// The type of the file system.
        kind: String,
        /// Where it is mounted.
        on: PathBuf,
    },
    /// It lies in a mount that the table does not have: one that was taken off meanwhile, or lies out of reach.
    #[error(
        "{} lies in the mount {mount}, which {} does not list, so nobody can tell whose word its boot id is",
        file.display(),
        table.display()
    )]
    NoSuchMount {
        /// The boot id's file.
        file: PathBuf,
        /// The number of its mount.
        mount: u64,
        /// The table of mounts.
        table: PathBuf,
    },
}

/// Reads the boot id of this agent's own kernel; `proc_root` is `/proc`, or a stand-in.
///
/// # Errors
/// Where it cannot be read, or is not the kernel's own.
pub fn read(proc_root: &Path) -> Result<String, BootIdError> {
    let path = proc_root.join(BELOW_PROC);
    let unread = |path: PathBuf| move |source| BootIdError::Unread { path, source };
    // By the mount of the very file that is open: which of several mounts lies over the others, no table says. A thread may
    // have mounts of its own.
    let plain = libc::O_NONBLOCK | libc::O_NOCTTY; // Whatever lies there: nobody is waited for.
    let file = File::options().read(true).custom_flags(plain).open(&path).map_err(unread(path.clone()))?;
    let mount = mount_id(&file)?;
    let table = proc_root.join("thread-self/mountinfo");
    let mounts = read_bounded(&table, MOUNTINFO_BYTES_MAX).map_err(unread(table.clone()))?;
    match cover(&mounts, mount, &path) {
        Cover::None => text_of(file).map_err(unread(path)),
        Cover::By { kind, on } => Err(BootIdError::MountedOver { kind, on }),
        Cover::Unknown => Err(BootIdError::NoSuchMount { file: path, mount, table }),
    }
}

/// The boot id as a claim names it, by which an orchestrator tells a reboot. One that nobody may rely on is none: whoever is to
/// ask for a reboot then reads it again, and says why it does not.
pub fn known(proc_root: &Path) -> Option<BootId> {
    read(proc_root).ok()?.parse().ok()
}

/// The number of the mount that an open file lies in.
pub(crate) fn mount_id(file: &File) -> Result<u64, BootIdError> {
    let path = PathBuf::from(format!("{}/thread-self/fdinfo/{}", epoch::PROC, file.as_raw_fd()));
    let text = read_bounded(&path, FDINFO_BYTES_MAX);
    let found = text.and_then(|text| mount_of(&text).ok_or_else(|| std::io::Error::other("found no mnt_id")));
    found.map_err(|source| BootIdError::Unread { path, source })
}

/// The id in the open file.
fn text_of(file: File) -> std::io::Result<String> {
    let mut text = String::new();
    file.take(ID_BYTES_MAX).read_to_string(&mut text)?;
    match text.trim() {
        "" => Err(std::io::Error::other("found an empty file, expected the id of this boot")),
        id => Ok(id.to_owned()),
    }
}

fn read_bounded(path: &Path, bytes_max: u64) -> std::io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(path)?.take(bytes_max).read_to_end(&mut bytes)?;
    Ok(bytes)
}

/// The number of the mount that an open file lies in, from what proc_pid_fdinfo(5) says of it.
fn mount_of(fdinfo: &[u8]) -> Option<u64> {
    let text = str::from_utf8(fdinfo).ok()?;
    text.lines().find_map(|line| line.strip_prefix("mnt_id:"))?.trim().parse().ok()
}

/// What lies over the kernel's own file.
#[derive(Debug, PartialEq, Eq)]
enum Cover {
    /// Nothing: it is procfs, showing the very same place. What makes a part of it read-only, as container runtimes do with
    /// /proc/sys, shows the same place too.
    None,
    /// A file system of this type, mounted here, or procfs showing another place.
    By { kind: String, on: PathBuf },
    /// Nobody can tell: the table does not have its mount.
    Unknown,
}

/// What the mount of this number says of `file`, which lies in it.
///
/// `mounts` is a table as in proc_pid_mountinfo(5): a line a mount, `ID PARENT DEVICE ROOT POINT OPTIONS… - TYPE …`.
fn cover(mounts: &[u8], mount: u64, file: &Path) -> Cover {
    let found = mounts.split(|byte| *byte == b'\n').find_map(|line| {
        let line = String::from_utf8_lossy(line);
        parse_mount(&line).filter(|parsed| parsed.id == mount)
    });
    let Some(Mount { root, point, kind, .. }) = found else { return Cover::Unknown };
    let inside = file.strip_prefix(&point).map(|below| match below.as_os_str().is_empty() {
        true => root.clone(),
        false => root.join(below),
    });
    match inside {
        Ok(inside) if kind == "proc" && inside == Path::new("/").join(BELOW_PROC) => Cover::None,
        Ok(_) | Err(_) => Cover::By { kind, on: point },
    }
}

struct Mount {
    id: u64,
    root: PathBuf,
    point: PathBuf,
    kind: String,
}

fn parse_mount(line: &str) -> Option<Mount> {
    let (place, source) = line.split_once(" - ")?;
    let mut fields = place.split(' ');
    let id = fields.next()?.parse().ok()?;
    let mut fields = fields.skip(2);
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    Some(Mount { id, root, point, kind: source.split(' ').next()?.to_owned() })
}

/// A space, tab, line end or backslash stands as a backslash and three octal digits.
fn unescape(field: &str) -> PathBuf {
    use std::os::unix::ffi::OsStringExt;
    let mut bytes = Vec::with_capacity(field.len());
    let mut rest = field.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let octal = after.get(..3).and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) if first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(first);
                rest = after;
            }
        }
    }
    std::ffi::OsString::from_vec(bytes).into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::package::rooted::alone;

    const FILE: &str = "/proc/sys/kernel/random/boot_id";
    const PROC: &str = "22 28 0:21 / /proc rw,nosuid shared:12 - proc proc rw";

    fn over(mount: u64, line: &str) -> String {
        let text = format!("28 1 8:1 / / rw - ext4 /dev/sda1 rw\n{line}\n");
        match cover(text.as_bytes(), mount, Path::new(FILE)) {
            Cover::None => "the kernel's own".to_owned(),
            Cover::By { kind, on } => format!("{kind} on {}", on.display()),
            Cover::Unknown => "unknown".to_owned(),
        }
    }

    #[test]
    fn only_procfs_at_its_own_place_is_the_kernels_word() {
        for (mount, line, expected) in [
            (22, PROC.to_owned(), "the kernel's own"),
            (30, "30 22 0:21 /sys /proc/sys ro - proc proc ro".to_owned(), "the kernel's own"),
            (
                30,
                format!("30 22 0:21 /sys/kernel/random/boot_id {FILE} rw - proc proc rw"),
                "the kernel's own",
            ),
            (30, format!("30 22 0:40 /fake {FILE} rw - tmpfs tmpfs rw"), &*format!("tmpfs on {FILE}")),
            (
                30,
                format!("30 22 0:21 /sys/kernel/random/uuid {FILE} rw - proc proc rw"),
                &*format!("proc on {FILE}"),
            ),
            (30, "30 22 0:21 /1 /proc/sys ro - proc proc ro".to_owned(), "proc on /proc/sys"),
            (30, "30 22 0:21 / /elsewhere ro - proc proc ro".to_owned(), "proc on /elsewhere"),
            (28, PROC.to_owned(), "ext4 on /"),
            (31, PROC.to_owned(), "unknown"),
        ] {
            assert_eq!(over(mount, &line), expected, "mount {mount} of {line}");
        }
        assert_eq!(cover(b"", 22, Path::new(FILE)), Cover::Unknown);
    }

    #[test]
    fn the_mount_of_an_open_file_is_read() {
        assert_eq!(mount_of(b"pos:\t0\nflags:\t0100000\nmnt_id:\t22\nino:\t7\n"), Some(22));
        assert_eq!(mount_of(b"pos:\t0\n"), None);
        assert_eq!(mount_of(b"mnt_id:\tx\n"), None);
    }

    #[test]
    fn names_with_spaces_are_read() {
        assert_eq!(unescape("/a\\040b\\134c\\999"), Path::new("/a b\\c\\999"));
    }

    /// The kernel's table is no order of what lies over what: here the deepest and the last mount are both beneath another.
    #[test]
    fn what_is_mounted_over_it_is_found_whatever_lies_deeper_or_was_mounted_first() {
        let file = Path::new(FILE);
        let folder = tempfile::tempdir().unwrap();
        let fake = folder.path().join("fake");
        std::fs::write(&fake, "11111111-1111-4111-8111-111111111111\n").unwrap();
        let fake = fake.to_str().unwrap();
        alone::with_own_mounts(|| {
            alone::mount(&["-t", "proc", "proc", "/proc"]);
            let own = read(Path::new(epoch::PROC)).unwrap();
            assert_eq!(own, std::fs::read_to_string(file).unwrap().trim());
            alone::mount(&["--bind", fake, FILE]);
            let over = read(Path::new(epoch::PROC)).unwrap_err();
            assert!(matches!(&over, BootIdError::MountedOver { on, .. } if on == file), "{over}");
            // A whole procfs over all of that: the file beneath is a deeper mount, and nobody sees it.
            alone::mount(&["-t", "proc", "proc", "/proc"]);
            assert_eq!(read(Path::new(epoch::PROC)).unwrap(), own);
            // Another file of procfs over it is none of the kernel's boot ids.
            alone::mount(&["--bind", "/proc/sys/kernel/random/uuid", FILE]);
            let over = read(Path::new(epoch::PROC)).unwrap_err();
            assert!(matches!(&over, BootIdError::MountedOver { kind, .. } if kind == "proc"), "{over}");
        });
    }

    #[test]
    fn this_machines_own_is_read() {
        // A container may really have something mounted there; then it says so.
        match read(Path::new("/proc")) {
            Ok(id) => assert_eq!(id.len(), 36, "{id}"),
            Err(error) => assert!(matches!(error, BootIdError::MountedOver { .. }), "{error}"),
        }
    }
}
