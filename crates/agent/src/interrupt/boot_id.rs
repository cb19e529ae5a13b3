//! The kernel's boot id, and whether what is read there is the kernel's word.
//!
//! A container runtime, or a test, may have mounted a file over the boot id: it would then never change, or change
//! without a reboot. The mounts say so, and such an id counts as unreadable.

use std::path::{Path, PathBuf};

use groundcrew_durable::epoch;
use groundcrew_protocol::ids::BootId;

/// Where the boot id lies below the root of procfs.
const BELOW_PROC: &str = "sys/kernel/random/boot_id";
/// Greatest size of a table of mounts that is read; a node with thousands of pods has some MiB.
const MOUNTINFO_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A boot id that nobody may rely on.
#[derive(Debug, thiserror::Error)]
pub enum BootIdError {
    /// It could not be read at all.
    #[error("reading the kernel's boot id")]
    Unread(#[source] groundcrew_durable::Error),
    /// The mounts could not be read, so that nobody knows whose word it is.
    #[error("reading which file systems are mounted, from {}", path.display())]
    Mounts {
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
}

/// Reads the boot id of this agent's own kernel; `proc_root` is `/proc`, or a stand-in.
///
/// # Errors
/// Where it cannot be read, or is not the kernel's own.
pub fn read(proc_root: &Path) -> Result<String, BootIdError> {
    use std::io::Read;
    let path = proc_root.join("self/mountinfo");
    let mut mounts = Vec::new();
    std::fs::File::open(&path)
        .and_then(|file| file.take(MOUNTINFO_BYTES_MAX).read_to_end(&mut mounts))
        .map_err(|source| BootIdError::Mounts { path, source })?;
    if let Some((kind, on)) = mounted_over(&mounts, &proc_root.join(BELOW_PROC)) {
        return Err(BootIdError::MountedOver { kind, on });
    }
    epoch::boot_id(proc_root).map_err(BootIdError::Unread)
}

/// The boot id as a claim names it, by which an orchestrator tells a reboot. One that nobody may rely on is none: whoever is to
/// ask for a reboot then reads it again, and says why it does not.
pub fn known(proc_root: &Path) -> Option<BootId> {
    read(proc_root).ok()?.parse().ok()
}

/// Which mount covers `file` where it is not procfs showing the very same place: its type and where it is mounted.
///
/// `mounts` is a table as in proc_pid_mountinfo(5): a line a mount, `ID PARENT DEVICE ROOT POINT OPTIONS… - TYPE …`.
/// The mount that counts is the last one of the deepest point; an entry that only makes a part of procfs read-only, as
/// container runtimes do with /proc/sys, shows the same place.
fn mounted_over(mounts: &[u8], file: &Path) -> Option<(String, PathBuf)> {
    let mut covering: Option<(PathBuf, PathBuf, String)> = None;
    for line in mounts.split(|byte| *byte == b'\n') {
        let line = String::from_utf8_lossy(line);
        let Some((point, root, kind)) = parse_mount(&line) else { continue };
        let deeper =
            |known: &(PathBuf, PathBuf, String)| point.components().count() >= known.0.components().count();
        if file.starts_with(&point) && covering.as_ref().is_none_or(deeper) {
            covering = Some((point, root, kind));
        }
    }
    let (point, root, kind) = covering?;
    let inside = root.join(file.strip_prefix(&point).ok()?);
    let kernels_own = kind == "proc" && inside == Path::new("/").join(BELOW_PROC);
    (!kernels_own).then_some((kind, point))
}

fn parse_mount(line: &str) -> Option<(PathBuf, PathBuf, String)> {
    let (place, source) = line.split_once(" - ")?;
    let mut fields = place.split(' ').skip(3);
    let root = unescape(fields.next()?);
    let point = unescape(fields.next()?);
    Some((point, root, source.split(' ').next()?.to_owned()))
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

    const FILE: &str = "/proc/sys/kernel/random/boot_id";
    const PROC: &str = "22 28 0:21 / /proc rw,nosuid shared:12 - proc proc rw";

    fn over(lines: &[&str]) -> Option<String> {
        let text = lines.join("\n");
        mounted_over(text.as_bytes(), Path::new(FILE)).map(|(kind, on)| format!("{kind} on {}", on.display()))
    }

    #[test]
    fn only_procfs_at_its_own_place_is_the_kernels_word() {
        let root = "28 1 8:1 / / rw - ext4 /dev/sda1 rw";
        assert_eq!(over(&[root, PROC]), None);
        assert_eq!(over(&[root, PROC, "30 22 0:21 /sys /proc/sys ro - proc proc ro"]), None);
        assert_eq!(
            over(&[root, PROC, "30 22 0:40 / /proc/sys/fs/binfmt_misc rw - autofs systemd-1 rw"]),
            None
        );
        assert_eq!(over(&[root, PROC, "30 22 0:40 / /proc/sysfoo rw - tmpfs x rw"]), None);
        let on_file = format!("30 22 0:40 /fake {FILE} rw - tmpfs tmpfs rw");
        assert_eq!(over(&[root, PROC, &on_file]), Some(format!("tmpfs on {FILE}")));
        let elsewhere = "30 22 0:21 /1 /proc/sys ro - proc proc ro";
        assert_eq!(over(&[root, PROC, elsewhere]), Some("proc on /proc/sys".to_owned()));
        assert_eq!(over(&[root]), Some("ext4 on /".to_owned()));
        assert_eq!(over(&[]), None);
    }

    #[test]
    fn the_last_mount_on_a_place_covers_those_before() {
        let fake = format!("30 22 0:40 /fake {FILE} rw - tmpfs tmpfs rw");
        let unmasked = format!("31 30 0:21 /sys/kernel/random/boot_id {FILE} rw - proc proc rw");
        assert_eq!(over(&[PROC, &fake, &unmasked]), None);
        assert_eq!(over(&[PROC, &unmasked, &fake]), Some(format!("tmpfs on {FILE}")));
    }

    #[test]
    fn names_with_spaces_are_read() {
        assert_eq!(unescape("/a\\040b\\134c\\999"), Path::new("/a b\\c\\999"));
    }

    #[test]
    fn this_machines_own_is_read() {
        let read = read(Path::new("/proc"));
        // A container may really have something mounted there; then it says so.
        match read {
            Ok(id) => assert_eq!(id.len(), 36, "{id}"),
            Err(error) => assert!(matches!(error, BootIdError::MountedOver { .. }), "{error}"),
        }
    }
}
