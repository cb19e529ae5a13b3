//! The file that the profile allows: written, and read back by its checksums.
//!
//! It is made without a name, and fio reaches it through this process: nobody's file is ever written over, also not one that
//! the owner of the folder puts in its place meanwhile, and none is left behind.

use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::Instant;

use groundcrew_protocol::check::{Check, Observation};
use groundcrew_protocol::plan::names;
use rustix::fs::{AtFlags, CWD, FallocateFlags, Mode, OFlags, openat, unlinkat};
use rustix::io::Errno;

use super::fio::{Fio, Pattern};
use super::parse::Load;
use crate::vet::StageContext;

/// Room that stays free beside the file: a full file system stops whoever else writes to it.
const ROOM_BYTES_MIN: u64 = 256 << 20;
/// Nobody else reads it.
const MODE: Mode = Mode::from_raw_mode(0o600);

/// What came of the file.
pub(super) struct Written {
    pub check: Check,
    pub raw: Option<(String, Vec<u8>)>,
}

/// The file. It has no name: nobody can put another in its place, and the kernel frees it once nobody holds it open, however
/// this process ends.
struct OwnFile(OwnedFd);

impl OwnFile {
    /// Makes the file with all its room.
    fn make(folder: &Path, bytes: u64) -> Result<OwnFile, String> {
        let said = |error: Errno| format!("make a file of {bytes} bytes in {}: {error}", folder.display());
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let folder = openat(CWD, folder, flags, Mode::empty()).map_err(said)?;
        let file = match openat(&folder, ".", OFlags::RDWR | OFlags::TMPFILE | OFlags::CLOEXEC, MODE) {
            // A file system that knows no files without a name.
            Err(Errno::OPNOTSUPP | Errno::ISDIR) => unnamed(&folder),
            file => file,
        };
        let file = file.map_err(said)?;
        // fio takes a file that is shorter away, and makes it anew under the name that it was given.
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), 0, bytes) {
            Err(Errno::OPNOTSUPP) => rustix::fs::ftruncate(&file, bytes),
            room => room,
        }
        .map_err(said)?;
        Ok(OwnFile(file))
    }

    /// Where fio, which is a child of this process, finds it.
    fn path(&self) -> PathBuf {
        format!("/proc/{}/fd/{}", std::process::id(), self.0.as_raw_fd()).into()
    }
}

/// A file under a name that nothing had before, and that is taken away at once.
fn unnamed(folder: &OwnedFd) -> Result<OwnedFd, Errno> {
    let name = format!(".groundcrew-storage-{}", std::process::id());
    let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let file = openat(folder, &name, flags, MODE)?;
    unlinkat(folder, &name, AtFlags::empty())?;
    Ok(file)
}

/// Writes the file and reads it back.
pub(super) fn run(context: &StageContext, folder: &str, mib: u64, deadline: Instant) -> Written {
    let of = |observed, evidence: String| {
        let limit = context.limit(names::FILE_ERRORS);
        Check::of(names::FILE_ERRORS, Some(folder), observed, limit).with_evidence(evidence)
    };
    let unreadable =
        |why: String| Written { check: of(Observation::Unreadable { why }, String::new()), raw: None };
    let path = context.root.path(folder);
    if let Err(why) = has_room(&path, mib) {
        return unreadable(why);
    }
    let file = match OwnFile::make(&path, mib << 20) {
        Ok(file) => file,
        Err(why) => return unreadable(why),
    };
    let fio = Fio { context, pattern: Pattern::File { mib }, file: &file.path(), about: folder, deadline };
    let ran = fio.run();
    let observed = match &ran.load {
        Ok(load) => verified(load, mib << 20),
        Err(why) => Observation::Unreadable { why: why.clone() },
    };
    Written {
        check: of(observed, ran.command),
        raw: ran.raw.map(|bytes| ("fio-file.json".to_owned(), bytes)),
    }
}

/// What a file of this size showed that was written and read back.
pub(super) fn verified(load: &Load, size: u64) -> Observation {
    let part = |what: &str, bytes: f64| Observation::Unreadable {
        why: format!("only {bytes} of {size} bytes were {what}"),
    };
    match (load.errors, load.bytes >= size as f64, load.bytes_read >= size as f64) {
        (0, true, true) => Observation::measured(0.0, "errors"),
        (0, false, _) => part("written", load.bytes),
        (0, true, false) => part("read back", load.bytes_read),
        (errors, _, _) => Observation::measured(errors as f64, "errors"),
    }
}

fn has_room(folder: &Path, mib: u64) -> Result<(), String> {
    let said = |error: Errno| format!("look at the folder {}: {error}", folder.display());
    let found = rustix::fs::statvfs(folder).map_err(said)?;
    let free = found.f_bavail.saturating_mul(found.f_frsize);
    let needed = (mib << 20) + ROOM_BYTES_MIN;
    match free >= needed {
        true => Ok(()),
        false => Err(format!(
            "{} has {} MiB free, expected {} MiB for the file and what is to stay free",
            folder.display(),
            free >> 20,
            needed >> 20
        )),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::MetadataExt;

    use super::*;

    #[test]
    fn the_file_has_its_room_and_no_name() {
        let folder = tempfile::tempdir().unwrap();
        let file = OwnFile::make(folder.path(), 1 << 20).unwrap();
        let found = std::fs::metadata(file.path()).unwrap();
        assert_eq!((found.len(), found.nlink(), found.mode() & 0o777), (1 << 20, 0, 0o600));
        let opened = std::fs::File::open(folder.path()).unwrap().into();
        let other = OwnFile(unnamed(&opened).unwrap());
        assert_eq!(std::fs::metadata(other.path()).unwrap().nlink(), 0);
        assert!(std::fs::read_dir(folder.path()).unwrap().next().is_none());
        // Where names are needed, nobody's file is taken for its own.
        let name = format!(".groundcrew-storage-{}", std::process::id());
        std::os::unix::fs::symlink("/etc/passwd", folder.path().join(&name)).unwrap();
        assert_eq!(unnamed(&opened).unwrap_err(), Errno::EXIST);
        assert!(OwnFile::make(&folder.path().join("none"), 1).err().unwrap().contains("No such file"));
    }
}
