//! Who owns what is made in a data folder.
//!
//! The folder belongs to the user that serves from it. What root makes there, or of it, must be that user's too: a
//! certificate or a backup that only root can open would stop the next start.

use std::fs::File;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use rustix::fs::{Gid, Mode, OFlags, Uid, fchown, open};

/// Folders inside each other that are gone through.
const DEPTH_MAX: usize = 16;

/// Gives a file or folder, without what is in it, to the owner of `like`, where this process is root and they differ.
/// Links, and files that have another name elsewhere, stay as they are: they may be anybody's.
///
/// # Errors
/// Where it cannot be opened or given away.
pub fn give(path: &Path, like: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = std::fs::metadata(like)?;
    give_to(path, owner.uid(), owner.gid())
}

/// The same, with everything in it.
///
/// # Errors
/// As [`give`].
pub fn give_all(path: &Path, like: &Path) -> io::Result<()> {
    if !rustix::process::geteuid().is_root() {
        return Ok(());
    }
    let owner = std::fs::metadata(like)?;
    give_below(path, owner.uid(), owner.gid(), 0)
}

fn give_below(path: &Path, uid: u32, gid: u32, depth: usize) -> io::Result<()> {
    if std::fs::symlink_metadata(path)?.is_dir() {
        if depth >= DEPTH_MAX {
            return Err(io::Error::other(format!("{path:?}: more than {DEPTH_MAX} folders in each other")));
        }
        for entry in std::fs::read_dir(path)? {
            give_below(&entry?.path(), uid, gid, depth + 1)?;
        }
    }
    give_to(path, uid, gid)
}

fn give_to(path: &Path, uid: u32, gid: u32) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match open(path, flags, Mode::empty()) {
        Ok(file) => File::from(file),
        Err(rustix::io::Errno::LOOP) => return Ok(()),
        Err(errno) => return Err(errno.into()),
    };
    let found = file.metadata()?;
    let is_alone = found.is_dir() || (found.is_file() && found.nlink() == 1);
    if !is_alone || (found.uid() == uid && found.gid() == gid) {
        return Ok(());
    }
    Ok(fchown(&file, Some(Uid::from_raw(uid)), Some(Gid::from_raw(gid)))?)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A user that is not this one.
    const SOMEBODY: u32 = 54_321;

    #[test]
    fn what_root_makes_goes_to_the_owner_of_the_folder() {
        let folder = tempfile::tempdir().unwrap();
        let data = folder.path().join("data");
        std::fs::create_dir_all(data.join("tls")).unwrap();
        std::fs::write(data.join("tls/next.pem"), "made").unwrap();
        std::fs::write(folder.path().join("elsewhere"), "not ours").unwrap();
        std::os::unix::fs::symlink("../../elsewhere", data.join("tls/link")).unwrap();
        std::fs::hard_link(folder.path().join("elsewhere"), data.join("tls/name")).unwrap();
        let owner = |path: &str| std::fs::metadata(folder.path().join(path)).unwrap().uid();
        let me = owner("elsewhere");
        if !rustix::process::geteuid().is_root() {
            // Nobody else can give files away, and nothing is tried.
            give_all(&data.join("tls"), Path::new("/")).unwrap();
            assert_eq!(owner("data/tls/next.pem"), me);
            return;
        }
        std::os::unix::fs::chown(&data, Some(SOMEBODY), Some(SOMEBODY)).unwrap();
        give(&data.join("tls"), &data).unwrap();
        assert_eq!((owner("data/tls"), owner("data/tls/next.pem")), (SOMEBODY, me));
        give_all(&data.join("tls"), &data).unwrap();
        assert_eq!(owner("data/tls/next.pem"), SOMEBODY);
        assert_eq!(owner("elsewhere"), me, "neither through a link nor under a second name");
    }
}
