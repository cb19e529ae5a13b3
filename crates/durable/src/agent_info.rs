//! Where `agent-info.json` lies and how it is changed: whole, under the lock of its sibling `.agent-info.json.lock`.
//!
//! The agent writes it, and so does whoever brings it together with what a runtime knows. What the fields mean is none of
//! this crate's business. A home is trusted by the agent that lives in it, and by nobody else: [`open_home`] reaches one
//! beneath a folder that is trusted, over no symbolic link.

use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{Mode, OFlags, ResolveFlags, openat2};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::folder::open_folder;
use crate::json::{self, Fields, update_shared_json_at};
use crate::whole::sweep_leftovers_at;

/// The name of the file in a home.
pub const FILE_NAME: &str = "agent-info.json";

/// The largest file that is read or written: it describes one agent, and others may add to it.
pub const BYTES_MAX: u64 = 1 << 20;

/// The mode of a new file: other users' tools may look, as into the systems that keep such a file too.
const MODE_FOR_NEW: u32 = 0o644;

/// Opens the home at `within`, a relative path, beneath the folder `root`. No component of it may be a symbolic link, nor
/// lead out; `None` where there is none.
pub fn open_home(root: &Path, within: &Path) -> Result<Option<OwnedFd>> {
    let path = root.join(within);
    let root = match open_folder(root) {
        Err(Error::Io { source, .. }) if source.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let beneath = ResolveFlags::BENEATH | ResolveFlags::NO_SYMLINKS;
    match openat2(&root, within, flags, Mode::empty(), beneath) {
        Ok(home) => Ok(Some(home)),
        Err(Errno::NOENT) => Ok(None),
        Err(Errno::LOOP | Errno::XDEV) => Err(Error::LeadsOut { path }),
        Err(errno) => Err(Error::io("opening the folder", &path)(errno)),
    }
}

/// Opens the home at `path` that its owner trusts, wherever links on the way lead.
pub fn open_own_home(path: &Path) -> Result<OwnedFd> {
    open_folder(path)
}

/// Changes the file in a home that is open, as [`json::update_shared_json_at`] does: other systems write such a file
/// without a lock. `path` is what errors call it.
pub fn update(
    home: OwnedFd,
    path: &Path,
    lock_wait: Duration,
    edit: impl FnMut(&mut Fields) -> bool,
) -> Result<bool> {
    let options = json::Options { bytes_max: BYTES_MAX, lock_wait, mode_for_new: MODE_FOR_NEW };
    update_shared_json_at(home, path, &options, edit)
}

/// Reads the file in a home that is open, without a lock; `None` where there is none.
pub fn read(home: OwnedFd, path: &Path) -> Result<Option<Fields>> {
    json::read_json_at(home, path, BYTES_MAX)
}

/// Removes what writers that were killed left in a home that is open.
pub fn sweep(home: &OwnedFd, path: &Path) -> Result<u64> {
    sweep_leftovers_at(home, path).map(|swept| swept.removed)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;

    use serde_json::json;

    use super::*;

    const WAIT: Duration = Duration::from_secs(5);

    #[test]
    fn a_home_is_reached_beneath_its_root_over_no_link_and_never_outside() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("agents");
        fs::create_dir_all(root.join("lab/one")).unwrap();
        fs::create_dir_all(folder.path().join("outside/one")).unwrap();
        symlink("one", root.join("lab/link")).unwrap();
        symlink(folder.path().join("outside"), root.join("away")).unwrap();
        fs::write(root.join("lab/file"), "{}").unwrap();

        assert!(open_home(&root, Path::new("lab/one")).unwrap().is_some());
        assert!(open_home(&root, Path::new("lab/none")).unwrap().is_none());
        assert!(open_home(&folder.path().join("none"), Path::new("lab")).unwrap().is_none());
        for out in ["lab/link", "away/one", "..", "lab/../../outside", "/etc"] {
            let error = open_home(&root, Path::new(out)).unwrap_err();
            assert!(matches!(error, Error::LeadsOut { .. }), "{out}: {error}");
        }
        let error = open_home(&root, Path::new("lab/file")).unwrap_err();
        assert!(error.to_string().starts_with("opening the folder "), "{error}");
    }

    #[test]
    fn a_file_is_changed_in_the_home_that_is_held_and_links_are_refused() {
        let folder = tempfile::tempdir().unwrap();
        let (home, moved) = (folder.path().join("home"), folder.path().join("moved"));
        let path = home.join(FILE_NAME);
        fs::create_dir(&home).unwrap();
        let held = || open_home(folder.path(), Path::new("home")).unwrap().unwrap();
        let set = |fields: &mut Fields| fields.insert("phase".to_owned(), json!("running")).is_none();
        assert_eq!(read(held(), &path).unwrap(), None);
        let first = held();
        fs::rename(&home, &moved).unwrap();
        fs::create_dir(&home).unwrap();
        assert!(update(first, &path, WAIT, set).unwrap());
        assert!(!path.exists() && moved.join(FILE_NAME).is_file());

        symlink(moved.join(FILE_NAME), &path).unwrap();
        for error in [update(held(), &path, WAIT, set).unwrap_err(), read(held(), &path).unwrap_err()] {
            assert!(matches!(error, Error::NotAFile { found: "a symbolic link", .. }), "{error}");
        }
        fs::write(home.join(".groundcrew-tmp-0123456789abcdef"), "left").unwrap();
        assert_eq!(sweep(&held(), &home).unwrap(), 1);
    }
}
