//! A file's folder, held open, and the calls on names in it. Everything that must happen in the same folder
//! goes through one descriptor, so that a folder renamed in the middle cannot split a write in two.

use std::ffi::{OsStr, OsString};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, Stat, fsync, openat, statat};
use rustix::io::Errno;

use crate::error::{Error, Result};

/// Permission bits, set-id bits and the sticky bit: what of `st_mode` is a mode.
const MODE_BITS: u32 = 0o7777;

/// A file's place: its folder, held open, and its name there.
pub(crate) struct Place {
    pub(crate) folder: OwnedFd,
    pub(crate) folder_path: PathBuf,
    pub(crate) name: OsString,
    /// The whole path as the caller gave it, for errors.
    pub(crate) path: PathBuf,
}

impl Place {
    /// Opens the folder in which `path` lies. The file itself need not exist.
    pub(crate) fn of(path: &Path) -> Result<Self> {
        let name = path.file_name().ok_or_else(|| Error::NoFileName { path: path.to_owned() })?;
        let folder_path = parent_of(path).to_owned();
        let folder = open_folder(&folder_path)?;
        Ok(Self { folder, folder_path, name: name.to_owned(), path: path.to_owned() })
    }

    /// The place of `path`'s last component in a folder that is open already.
    pub(crate) fn within(folder: OwnedFd, path: &Path) -> Result<Self> {
        let name = path.file_name().ok_or_else(|| Error::NoFileName { path: path.to_owned() })?;
        let folder_path = parent_of(path).to_owned();
        Ok(Self { folder, folder_path, name: name.to_owned(), path: path.to_owned() })
    }

    /// The path of another name in the same folder.
    pub(crate) fn sibling(&self, name: &OsStr) -> PathBuf {
        self.folder_path.join(name)
    }

    /// What stands at `name` in this folder, if anything; a symbolic link is not followed.
    pub(crate) fn stat(&self, name: &OsStr) -> Result<Option<Stat>> {
        match statat(&self.folder, name, AtFlags::SYMLINK_NOFOLLOW) {
            Ok(stat) => Ok(Some(stat)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::io("looking at", &self.sibling(name))(errno)),
        }
    }

    /// Opens `name` in this folder if a regular file stands there. Never blocks on a fifo or a device, never
    /// follows a symbolic link.
    pub(crate) fn open_file(&self, name: &OsStr, flags: OFlags, mode: Mode) -> Result<Option<OwnedFd>> {
        let path = self.sibling(name);
        let careful = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
        let file = match openat(&self.folder, name, flags | careful, mode) {
            Ok(file) => file,
            Err(Errno::NOENT) => return Ok(None),
            Err(errno) => return Err(self.why_not_opened(name, errno)),
        };
        require_file(&path, &stat_of(&file, &path)?)?;
        Ok(Some(file))
    }

    /// A link, a socket, a fifo without a reader and a folder are refused by open(2) itself, with an error
    /// that does not say what stands there.
    fn why_not_opened(&self, name: &OsStr, errno: Errno) -> Error {
        let path = self.sibling(name);
        if matches!(errno, Errno::LOOP | Errno::NXIO | Errno::ISDIR)
            && let Ok(Some(stat)) = self.stat(name)
            && let Err(error) = require_file(&path, &stat)
        {
            return error;
        }
        Error::io("opening", &path)(errno)
    }

    /// Makes what happened to names in this folder durable.
    pub(crate) fn sync(&self) -> Result<()> {
        fsync(&self.folder).map_err(Error::io("syncing the folder", &self.folder_path))
    }
}

/// The folder in which a path lies, `.` for a bare name.
pub(crate) fn parent_of(path: &Path) -> &Path {
    match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        Some(_) | None => Path::new("."),
    }
}

/// Opens a folder for calls on names in it.
pub(crate) fn open_folder(path: &Path) -> Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    openat(CWD, path, flags, Mode::empty()).map_err(Error::io("opening the folder", path))
}

/// fstat(2), with the path in its error.
pub(crate) fn stat_of(file: impl AsFd, path: &Path) -> Result<Stat> {
    rustix::fs::fstat(file).map_err(Error::io("looking at", path))
}

/// Refuses what is not a regular file.
pub(crate) fn require_file(path: &Path, stat: &Stat) -> Result<()> {
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::RegularFile => Ok(()),
        other => Err(Error::NotAFile { path: path.to_owned(), found: kind_words(other) }),
    }
}

/// The mode bits of a file.
pub(crate) fn mode_of(stat: &Stat) -> Mode {
    Mode::from_raw_mode(stat.st_mode & MODE_BITS)
}

/// What a reader of an error would call a kind of file.
pub fn kind_words(kind: FileType) -> &'static str {
    match kind {
        FileType::RegularFile => "a regular file",
        FileType::Directory => "a folder",
        FileType::Symlink => "a symbolic link",
        FileType::Fifo => "a fifo",
        FileType::Socket => "a socket",
        FileType::CharacterDevice => "a character device",
        FileType::BlockDevice => "a block device",
        FileType::Unknown => "something of an unknown kind",
    }
}
