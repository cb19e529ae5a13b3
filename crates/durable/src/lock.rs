//! Locks between processes, by flock(2). The kernel takes a lock off when its holder dies, however it dies.
//!
//! [`HomeLock`] keeps a second process out of an agent's home or an orchestrator's data folder for as long as
//! the first one lives.
//!
//! A child has copies of all its parent's descriptors until its exec, and with them the locks. So a lock is
//! given back by unlocking and not by closing alone; one that a killed process left may still seem taken for
//! the instant in which such a child comes to its exec.

use std::ffi::OsStr;
use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, Mode, OFlags, flock, ftruncate};
use rustix::io::{Errno, pwrite};

use crate::epoch::{PROC, process_start};
use crate::error::{Error, Result};
use crate::fault;
use crate::folder::{Place, stat_of};
pub use crate::found::Holder;
use crate::points;
use crate::whole::read_in;

/// The name of the lock file in a home.
pub const HOME_LOCK_NAME: &str = "lock";

/// The mode of a lock file. Readable by all, for flock(2) wants no more and another user may share the file.
pub(crate) const LOCK_MODE: Mode = Mode::from_raw_mode(0o644);

/// Tries to lock the file that the name means. More than one is needed only where somebody removes or
/// replaces lock files at that very moment.
const LOCK_TRIES_MAX: u32 = 8;

/// A process id and a start time, each of at most 20 digits, with room for a human's additions.
const SIGNATURE_BYTES_MAX: u64 = 128;

/// The right to a home, until it is dropped or the process ends.
#[derive(Debug)]
pub struct HomeLock {
    _locked: Locked,
    path: PathBuf,
}

impl HomeLock {
    /// Takes the lock of the folder `home` without waiting, and writes this process's id and start time into
    /// `{home}/lock`. [`Error::Held`] says who was quicker. The file stays behind; only the lock counts.
    pub fn acquire(home: &Path) -> Result<Self> {
        let path = home.join(HOME_LOCK_NAME);
        let place = Place::of(&path)?;
        let Some(locked) = try_lock(&place, &place.name, OFlags::RDWR, LOCK_MODE)? else {
            return Err(Error::Held { path, holder: holder_of(&place)? });
        };
        fault::point(points::HOME_LOCKED);
        sign(&locked.file, &path)?;
        fault::point(points::HOME_SIGNED);
        Ok(Self { _locked: locked, path })
    }

    /// The lock file.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

/// Writes who we are. It is read by people and by [`holder_of`] while we live, so it need not be durable.
fn sign(file: &File, path: &Path) -> Result<()> {
    let pid = std::process::id();
    // Without procfs the start is 0, which no later process can be mistaken for.
    let start = process_start(Path::new(PROC), pid)?.unwrap_or(0);
    let signature = format!("{pid} {start}\n");
    ftruncate(file, 0).map_err(Error::io("emptying", path))?;
    let written = pwrite(file, signature.as_bytes(), 0).map_err(Error::io("writing", path))?;
    if written < signature.len() {
        return Err(Error::io("writing all of", path)(Errno::NOSPC));
    }
    Ok(())
}

/// Reads who signed. A signature may be an earlier holder's, in the instant before the present one has
/// signed; the start time shows that.
fn holder_of(place: &Place) -> Result<Holder> {
    let bytes = read_in(place, SIGNATURE_BYTES_MAX)?.unwrap_or_default();
    let text = String::from_utf8_lossy(&bytes);
    let mut words = text.split_whitespace();
    let Some(pid) = words.next().and_then(|word| word.parse().ok()) else { return Ok(Holder::Unsigned) };
    let start: Option<u64> = words.next().and_then(|word| word.parse().ok());
    match process_start(Path::new(PROC), pid)? {
        Some(seen) if Some(seen) == start => Ok(Holder::Process { pid }),
        Some(_) | None => Ok(Holder::Unseen { pid }),
    }
}

/// A file on which this process holds the exclusive lock, until this is dropped.
#[derive(Debug)]
pub(crate) struct Locked {
    pub(crate) file: File,
}

impl Drop for Locked {
    fn drop(&mut self) {
        // Were this to fail, closing the file gives the lock back as soon as no child has a copy any more.
        let _given_back_by_close = flock(&self.file, FlockOperation::Unlock);
    }
}

/// Opens or makes the file `name` and locks it exclusively; `None` where it is taken at this moment. `mode` is
/// for a file that is made, less the umask.
pub(crate) fn try_lock(place: &Place, name: &OsStr, access: OFlags, mode: Mode) -> Result<Option<Locked>> {
    let path = place.sibling(name);
    for _ in 0..LOCK_TRIES_MAX {
        let file = open_or_make(place, name, access, mode)?;
        match flock(&file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(Error::io("locking", &path)(errno)),
        }
        // A lock on a file that the name no longer means keeps nobody out.
        let locked = Locked { file };
        let ours = stat_of(&locked.file, &path)?;
        let named = place.stat(name)?;
        if named.is_some_and(|named| (named.st_dev, named.st_ino) == (ours.st_dev, ours.st_ino)) {
            return Ok(Some(locked));
        }
    }
    Err(Error::io("locking the file that keeps being replaced,", &path)(Errno::AGAIN))
}

/// Opens first without O_CREAT, which the kernel refuses for another user's file in a sticky folder
/// (fs.protected_regular).
fn open_or_make(place: &Place, name: &OsStr, access: OFlags, mode: Mode) -> Result<File> {
    if let Some(file) = place.open_file(name, access, Mode::empty())? {
        return Ok(file.into());
    }
    let made = place.open_file(name, access | OFlags::CREATE, mode)?;
    made.map(File::from).ok_or_else(|| Error::io("making", &place.sibling(name))(Errno::NOENT))
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn a_second_lock_is_refused_and_names_the_holder() {
        let home = tempfile::tempdir().unwrap();
        let first = HomeLock::acquire(home.path()).unwrap();
        let error = HomeLock::acquire(home.path()).unwrap_err();
        let pid = std::process::id();
        assert!(matches!(&error, Error::Held { holder: Holder::Process { pid: held }, .. } if *held == pid));
        assert_eq!(error.to_string(), format!("{} is held by process {pid}", first.path().display()));
        drop(first);
        HomeLock::acquire(home.path()).unwrap();
    }

    #[test]
    fn a_signature_that_fits_no_living_process_is_said_to_be_unseen() {
        let home = tempfile::tempdir().unwrap();
        let lock = HomeLock::acquire(home.path()).unwrap();
        let pid = std::process::id();
        for (signature, expected) in [
            ("", Holder::Unsigned),
            ("nobody\n", Holder::Unsigned),
            (&*format!("{pid} 1\n"), Holder::Unseen { pid }),
            (&*format!("{pid}\n"), Holder::Unseen { pid }),
            ("4194305 7\n", Holder::Unseen { pid: 4_194_305 }),
        ] {
            fs::write(lock.path(), signature).unwrap();
            let error = HomeLock::acquire(home.path()).unwrap_err();
            assert!(
                matches!(&error, Error::Held { holder, .. } if *holder == expected),
                "{signature:?}: {error}"
            );
        }
    }

    #[test]
    fn a_stale_lock_file_keeps_nobody_out_and_a_missing_home_is_named() {
        let home = tempfile::tempdir().unwrap();
        fs::write(home.path().join("lock"), "4194305 1 and more than the next signature is long\n").unwrap();
        let lock = HomeLock::acquire(home.path()).unwrap();
        let start = process_start(Path::new(PROC), std::process::id()).unwrap().unwrap();
        assert_eq!(fs::read_to_string(lock.path()).unwrap(), format!("{} {start}\n", std::process::id()));

        let error = HomeLock::acquire(&home.path().join("absent")).unwrap_err();
        assert!(
            error.to_string().starts_with("opening the folder ") && error.to_string().ends_with("/absent")
        );
    }

    #[test]
    fn what_is_no_file_is_never_locked() {
        let home = tempfile::tempdir().unwrap();
        std::os::unix::fs::symlink(home.path().join("elsewhere"), home.path().join("lock")).unwrap();
        let error = HomeLock::acquire(home.path()).unwrap_err();
        assert!(matches!(&error, Error::NotAFile { found: "a symbolic link", .. }), "{error}");
        assert!(!home.path().join("elsewhere").exists());
    }
}
