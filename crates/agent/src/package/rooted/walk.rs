//! How a path is followed without ever leaving the root: name by name, on held descriptors.
//!
//! Every name is opened relative to the folder that the walk stands in, never following a link. A symbolic link is
//! read and its names are walked in turn: an absolute one from the root, a relative one from the folder that holds
//! it. `..` goes back to the descriptor that the walk came from, and at the root it stays, as chroot(2) has it. No
//! text is ever resolved twice, so a folder that is renamed in the meantime is still the folder that was entered.
//! This needs no call that Linux 4.18 does not have.

use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, fsync, mkdirat, openat, readlinkat, statat};
use rustix::io::Errno;

use super::error::{Error, Result};

/// Symbolic links on one way, as many as the kernel itself follows (path_resolution(7)).
pub(super) const LINKS_MAX: u32 = 40;

/// Folders that one walk holds open: half of the descriptors that a process has by default.
pub(super) const FOLDERS_MAX: usize = 512;

/// The mode of folders that are made on the way, less the umask.
pub(super) const FOLDER_MODE: Mode = Mode::from_raw_mode(0o755);

/// What becomes of a symbolic link at the end of a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Last {
    Follow,
    Keep,
}

/// What becomes of a name that is not there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Absent {
    /// At the end of the path it is the answer, before that an error.
    Report,
    /// Folders on the way are made, the last name is reported.
    MakeParents,
    /// Everything is made as a folder.
    MakeAll,
}

/// Where a path leads.
pub(super) enum Reached {
    /// A folder.
    Folder { folder: OwnedFd, path: PathBuf },
    /// Something else, in this folder under this name.
    Other { parent: OwnedFd, name: OsString, path: PathBuf, stat: Box<Stat> },
    /// Nothing yet, in this folder under this name.
    Missing { parent: OwnedFd, name: OsString, path: PathBuf },
}

/// The root, as a walk needs it.
pub(super) struct Top<'a> {
    pub(super) folder: BorrowedFd<'a>,
    /// An absolute link whose target begins with this path means what lies beneath the root.
    pub(super) own_path: Option<&'a Path>,
    /// The path asked for, as errors show it.
    pub(super) shown: &'a Path,
}

struct Walk<'a> {
    top: &'a Top<'a>,
    /// The folders between the root and where the walk stands, with their names.
    folders: Vec<(OwnedFd, OsString)>,
    /// The names that are still to be walked, the next one last.
    ahead: Vec<OsString>,
    links: u32,
}

/// Follows `path` from the root, whether it begins with a slash or not.
pub(super) fn walk(top: &Top<'_>, path: &Path, last: Last, absent: Absent) -> Result<Reached> {
    let mut walk = Walk { top, folders: Vec::new(), ahead: Vec::new(), links: 0 };
    walk.push(path.as_os_str())?;
    while let Some(name) = walk.ahead.pop() {
        match name.as_bytes() {
            b"." => {}
            b".." => drop(walk.folders.pop()),
            _ => {
                if let Some(reached) = walk.step(&name, last, absent)? {
                    return Ok(reached);
                }
            }
        }
    }
    let folder = walk.here().try_clone_to_owned().map_err(walk.error("holding the folder"))?;
    Ok(Reached::Folder { folder, path: walk.path_to(None) })
}

impl Walk<'_> {
    /// Puts the names of a path in front of those that are still to come. A slash at the end means a folder, which
    /// a `.` says too.
    fn push(&mut self, path: &OsStr) -> Result<()> {
        let bytes = path.as_bytes();
        if bytes.contains(&0) {
            return Err(Error::bad_name("path", &path.to_string_lossy(), "no NUL byte"));
        }
        if bytes.last() == Some(&b'/') {
            self.ahead.push(".".into());
        }
        let names = bytes.split(|byte| *byte == b'/').filter(|name| !name.is_empty());
        self.ahead.extend(names.rev().map(|name| OsStr::from_bytes(name).to_owned()));
        Ok(())
    }

    fn here(&self) -> BorrowedFd<'_> {
        self.folders.last().map_or(self.top.folder, |(folder, _)| folder.as_fd())
    }

    /// The path inside the root of where the walk stands, or of a name there.
    fn path_to(&self, name: Option<&OsStr>) -> PathBuf {
        let mut path = PathBuf::from("/");
        path.extend(self.folders.iter().map(|(_, name)| name.as_os_str()).chain(name));
        path
    }

    fn error<E: Into<io::Error>>(&self, doing: &'static str) -> impl FnOnce(E) -> Error {
        Error::io(doing, self.top.shown)
    }

    /// Goes one name further; an answer ends the walk.
    fn step(&mut self, name: &OsStr, last: Last, absent: Absent) -> Result<Option<Reached>> {
        let is_last = self.ahead.is_empty();
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let found = match openat(self.here(), name, flags, Mode::empty()) {
            Ok(found) => found,
            Err(Errno::NOENT) => return self.step_to_nothing(name, is_last, absent),
            Err(errno) => return Err(self.error("following the path")(errno)),
        };
        let stat = fstat(&found).map_err(self.error("looking at"))?;
        match FileType::from_raw_mode(stat.st_mode) {
            FileType::Directory => self.enter(found, name).map(|()| None),
            FileType::Symlink if !is_last || last == Last::Follow => self.follow(&found).map(|()| None),
            FileType::Symlink
            | FileType::RegularFile
            | FileType::Fifo
            | FileType::Socket
            | FileType::CharacterDevice
            | FileType::BlockDevice
            | FileType::Unknown => {
                if !is_last {
                    return Err(self.error("following the path")(Errno::NOTDIR));
                }
                self.reached_other(name, stat).map(Some)
            }
        }
    }

    fn enter(&mut self, folder: OwnedFd, name: &OsStr) -> Result<()> {
        if self.folders.len() >= FOLDERS_MAX {
            return Err(Error::TooDeep { path: self.top.shown.to_owned(), folders_max: FOLDERS_MAX });
        }
        self.folders.push((folder, name.to_owned()));
        Ok(())
    }

    fn follow(&mut self, link: &OwnedFd) -> Result<()> {
        self.links += 1;
        if self.links > LINKS_MAX {
            return Err(Error::Links { path: self.top.shown.to_owned(), links_max: LINKS_MAX });
        }
        let target = readlinkat(link, "", Vec::new())
            .map_err(self.error("reading the symbolic link on the way to"))?;
        let target = OsString::from_vec(target.into_bytes());
        if !target.as_bytes().starts_with(b"/") {
            return self.push(&target);
        }
        self.folders.clear();
        match self.top.own_path.and_then(|own| Path::new(&target).strip_prefix(own).ok()) {
            Some(beneath) => self.push(beneath.as_os_str()),
            None => self.push(&target),
        }
    }

    fn reached_other(&self, name: &OsStr, stat: Stat) -> Result<Reached> {
        let parent = self.here().try_clone_to_owned().map_err(self.error("holding the folder of"))?;
        let path = self.path_to(Some(name));
        Ok(Reached::Other { parent, name: name.to_owned(), path, stat: Box::new(stat) })
    }

    fn step_to_nothing(&mut self, name: &OsStr, is_last: bool, absent: Absent) -> Result<Option<Reached>> {
        let make = match absent {
            Absent::Report => false,
            Absent::MakeParents => !is_last,
            Absent::MakeAll => true,
        };
        if make {
            return self.make(name).map(|()| None);
        }
        if !is_last {
            return Err(self.error("following the path")(Errno::NOENT));
        }
        let parent = self.here().try_clone_to_owned().map_err(self.error("holding the folder of"))?;
        Ok(Some(Reached::Missing { parent, path: self.path_to(Some(name)), name: name.to_owned() }))
    }

    /// Makes a folder and enters it. Whoever was quicker made it too; anything but a folder there is an error.
    fn make(&mut self, name: &OsStr) -> Result<()> {
        match mkdirat(self.here(), name, FOLDER_MODE) {
            Ok(()) => sync_folder(self.here()).map_err(self.error("syncing the folder above"))?,
            Err(Errno::EXIST) => {}
            Err(errno) => return Err(self.error("making the folder")(errno)),
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let made =
            openat(self.here(), name, flags, Mode::empty()).map_err(self.error("making the folder"))?;
        self.enter(made, name)
    }
}

/// Makes what happened to names in a folder durable; the descriptor may be a mere path.
pub(super) fn sync_folder(folder: BorrowedFd<'_>) -> rustix::io::Result<()> {
    fsync(open_readable(folder)?)
}

/// A folder's descriptor that can be listed, synced and locked, from one that is a mere path.
pub(super) fn open_readable(folder: BorrowedFd<'_>) -> rustix::io::Result<OwnedFd> {
    openat(folder, ".", OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())
}

/// What stands under a name in a folder, if anything; a link is not followed.
pub(super) fn stat_in(folder: BorrowedFd<'_>, name: &OsStr) -> rustix::io::Result<Option<Stat>> {
    match statat(folder, name, AtFlags::SYMLINK_NOFOLLOW) {
        Ok(stat) => Ok(Some(stat)),
        Err(Errno::NOENT) => Ok(None),
        Err(errno) => Err(errno),
    }
}
