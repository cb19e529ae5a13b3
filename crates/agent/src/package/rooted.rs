//! The file system under a root mount, which nothing here ever leaves.
//!
//! A [`Root`] is an opened root mount. Its calls take paths as a process would see them that had it for its root:
//! symbolic links, absolute ones too, and `..` lead to where they would lead that process (`walk`). What is opened
//! is handed on as a descriptor. A link to what is missing is followed when something is made: it is made where the
//! link points, inside the root.
//!
//! A folder that somebody moves out of the root while it is held open is still that folder: as with chroot(2), who
//! can move folders across the border is not kept out.

mod error;
mod folder;
mod walk;

#[cfg(test)]
pub(crate) mod alone;
#[cfg(test)]
mod chroot_tests;
#[cfg(test)]
mod tests;

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use groundcrew_durable::{kind_words, whole};
use rustix::fs::{
    AtFlags, CWD, FileType, FlockOperation, Mode, OFlags, Stat, flock, openat, renameat, unlinkat,
};
use rustix::io::Errno;

pub use error::{Error, Result};
pub(crate) use folder::{Folder, Like};
use walk::{Absent, Last, Reached, Top};

/// The mode of a log file that is made, less the umask.
const NEW_FILE_MODE: Mode = Mode::from_raw_mode(0o644);

/// Permission bits, set-id bits and the sticky bit: what of `st_mode` is a mode.
const MODE_BITS: u32 = 0o7777;

/// The execute bits for owner, group and others.
const EXECUTE: u32 = 0o111;

/// Tries to open or make what a walk has just found. More than one is needed only where somebody replaces it at that
/// very moment.
const TRIES_MAX: u32 = 8;

/// An opened root mount, or any other tree that is to be treated as one.
#[derive(Debug)]
pub struct Root {
    top: OwnedFd,
    host: PathBuf,
    own_path: Option<PathBuf>,
}

/// What stands at a path.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// What it is.
    pub kind: FileType,
    /// Its permission, set-id and sticky bits.
    pub mode: u32,
    /// Its size in bytes.
    pub bytes: u64,
}

/// Whether a symbolic link at the end of a path is followed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// What it leads to is meant.
    Follow,
    /// It is meant itself.
    Keep,
}

/// The turn of one process at a folder, until it is dropped or the process ends.
#[derive(Debug)]
pub struct FolderLock {
    folder: OwnedFd,
}

impl Drop for FolderLock {
    fn drop(&mut self) {
        // A child of the instant may hold a copy of the descriptor, so closing alone would not give the lock back.
        let _ends_with_the_process_else = flock(&self.folder, FlockOperation::Unlock);
    }
}

impl Root {
    /// Opens the root mount at `host`, as this process sees that path now.
    pub fn open(host: &Path) -> Result<Self> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let top = openat(CWD, host, flags, Mode::empty()).map_err(Error::io("opening the folder", host))?;
        Ok(Self { top, host: host.to_owned(), own_path: None })
    }

    /// Opens the agent's own root as one. Messages name a file in it by its path alone.
    pub(crate) fn own() -> Result<Self> {
        Ok(Self { host: PathBuf::new(), ..Self::open(Path::new("/"))? })
    }

    /// Opens the tree at `host`, an absolute path, from which something is to be copied. An absolute link in it that
    /// names the tree by this path stays in the tree; any other is taken as in a root mount, so that it leads nowhere.
    pub fn open_tree(host: &Path) -> Result<Self> {
        Ok(Self { own_path: Some(host.to_owned()), ..Self::open(host)? })
    }

    /// Treats a folder that is held open as a root of its own.
    pub(crate) fn of_folder(folder: &Folder) -> Result<Self> {
        let top =
            folder.as_fd().try_clone_to_owned().map_err(Error::io("holding the folder", folder.path()))?;
        Ok(Self { top, host: folder.path().to_owned(), own_path: None })
    }

    /// The root mount's path followed by the path inside it, as text: how messages and errors name a file.
    pub fn host_path(&self, path: &Path) -> PathBuf {
        let mut text = self.host.as_os_str().to_owned();
        if !path.as_os_str().as_bytes().starts_with(b"/") {
            text.push("/");
        }
        text.push(path);
        PathBuf::from(text)
    }

    /// What stands at `path`, if anything. A link to nothing is nothing when it is followed, and so is a path whose
    /// folders are missing or are no folders.
    pub fn metadata(&self, path: &Path, link: Link) -> Result<Option<Metadata>> {
        let last = match link {
            Link::Follow => Last::Follow,
            Link::Keep => Last::Keep,
        };
        Ok(self.stat(path, last)?.as_ref().map(metadata_of))
    }

    /// What stands at `path`, following links, with all that the system tells of it.
    pub(crate) fn stat_followed(&self, path: &Path) -> Result<Option<Stat>> {
        self.stat(path, Last::Follow)
    }

    fn stat(&self, path: &Path, last: Last) -> Result<Option<Stat>> {
        let shown = self.host_path(path);
        match self.walk(path, last, Absent::Report) {
            Ok(Reached::Folder { folder, .. }) => {
                rustix::fs::fstat(folder).map(Some).map_err(Error::io("looking at", &shown))
            }
            Ok(Reached::Other { stat, .. }) => Ok(Some(*stat)),
            Ok(Reached::Missing { .. }) => Ok(None),
            Err(error) if is_nothing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Whether anything stands at `path`, following links.
    pub fn exists(&self, path: &Path) -> Result<bool> {
        Ok(self.metadata(path, Link::Follow)?.is_some())
    }

    /// Opens a regular file for reading; `None` where there is nothing. A fifo or a device cannot make this hang.
    pub fn open_file(&self, path: &Path) -> Result<Option<File>> {
        let shown = self.host_path(path);
        for _ in 0..TRIES_MAX {
            match self.walk(path, Last::Follow, Absent::Report) {
                Ok(Reached::Folder { .. }) => return Err(kind_error(&shown, FileType::Directory)),
                Ok(Reached::Other { parent, name, stat, .. }) => {
                    require_file(&shown, &stat)?;
                    // Somebody may have put a link or nothing in the file's place: then the walk tells what.
                    if let Some(file) = open_at(&parent, &name, OFlags::RDONLY, &shown)? {
                        return Ok(Some(file));
                    }
                }
                Ok(Reached::Missing { .. }) => return Ok(None),
                Err(error) if is_nothing(&error) => return Ok(None),
                Err(error) => return Err(error),
            }
        }
        Err(Error::io("opening", &shown)(Errno::AGAIN))
    }

    /// Reads a regular file of at most `bytes_max` bytes; `None` where there is nothing. The limit holds for what is
    /// read, whatever size the file claims.
    pub fn read(&self, path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>> {
        let shown = self.host_path(path);
        let Some(file) = self.open_file(path)? else { return Ok(None) };
        let mut bytes = Vec::new();
        file.take(bytes_max.saturating_add(1))
            .read_to_end(&mut bytes)
            .map_err(Error::io("reading", &shown))?;
        if bytes.len() as u64 > bytes_max {
            return Err(Error::TooLarge { path: shown, bytes_max });
        }
        Ok(Some(bytes))
    }

    /// Makes the folder at `path` durably, with what is missing above it: mode 0755 less the umask.
    pub fn create_folders(&self, path: &Path) -> Result<()> {
        self.create_folder(path).map(drop)
    }

    pub(crate) fn create_folder(&self, path: &Path) -> Result<Folder> {
        match self.walk(path, Last::Follow, Absent::MakeAll)? {
            Reached::Folder { folder, path } => self.folder_of(folder, &path),
            Reached::Other { stat, .. } => Err(Error::Kind {
                path: self.host_path(path),
                found: kind_words(kind_of(&stat)),
                expected: "a folder",
            }),
            Reached::Missing { .. } => unreachable!("a walk that makes folders makes the last one too"),
        }
    }

    /// Opens the folder at `path`; `None` where there is nothing.
    pub(crate) fn folder(&self, path: &Path) -> Result<Option<Folder>> {
        match self.walk(path, Last::Follow, Absent::Report) {
            Ok(Reached::Folder { folder, path }) => self.folder_of(folder, &path).map(Some),
            Ok(Reached::Other { stat, .. }) => Err(Error::Kind {
                path: self.host_path(path),
                found: kind_words(kind_of(&stat)),
                expected: "a folder",
            }),
            Ok(Reached::Missing { .. }) => Ok(None),
            Err(error) if is_nothing(&error) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// The names in the folder at `path`, sorted; none where there is nothing.
    pub fn names_in(&self, path: &Path) -> Result<Vec<OsString>> {
        self.folder(path)?.map_or_else(|| Ok(Vec::new()), |folder| folder.names())
    }

    /// Replaces or makes the file at `path`, wholly and durably, with the folders above it. A file that stood there
    /// keeps its mode and owner; a new one gets `mode_for_new` exactly. A file that cannot be replaced because it is
    /// a mount point of its own (a container's /etc/resolv.conf) is overwritten in place.
    pub fn write_whole(&self, path: &Path, bytes: &[u8], mode_for_new: u32) -> Result<()> {
        let target = self.target(path)?;
        match target.folder.write_whole(&target.name, bytes, mode_for_new) {
            Err(error) if error.system().is_some_and(|source| is_errno(source, Errno::BUSY)) => {
                target.folder.overwrite(&target.name, &mut &*bytes)
            }
            other => other,
        }
    }

    /// Where a file at `path` is or will be: links are followed, folders that are missing are made. What stands there
    /// is a regular file or nothing.
    pub(crate) fn target(&self, path: &Path) -> Result<Target> {
        let shown = self.host_path(path);
        let (parent, name, inside, stat) = match self.walk(path, Last::Follow, Absent::MakeParents)? {
            Reached::Folder { .. } => return Err(kind_error(&shown, FileType::Directory)),
            Reached::Other { parent, name, path, stat } => {
                require_file(&shown, &stat)?;
                (parent, name, path, Some(stat))
            }
            Reached::Missing { parent, name, path } => (parent, name, path, None),
        };
        let above = inside.parent().expect("what has a name lies in a folder");
        Ok(Target { folder: self.folder_of(parent, above)?, name, stat })
    }

    /// Makes a file that must not exist yet, for appending, with the folders above it. `None` where the name is taken,
    /// be it by a link.
    pub fn create_new(&self, path: &Path) -> Result<Option<File>> {
        let shown = self.host_path(path);
        let (above, name) = split(path).ok_or_else(|| no_name(&shown))?;
        let folder = self.create_folder(&above)?;
        let flags = OFlags::WRONLY
            | OFlags::APPEND
            | OFlags::CREATE
            | OFlags::EXCL
            | OFlags::NOFOLLOW
            | OFlags::NOCTTY
            | OFlags::CLOEXEC;
        match openat(folder.as_fd(), &name, flags, NEW_FILE_MODE) {
            Ok(file) => Ok(Some(File::from(file))),
            Err(Errno::EXIST) => Ok(None),
            Err(errno) => Err(Error::io("creating", &shown)(errno)),
        }
    }

    /// Opens the regular file at `path` to be read and written; where there is none it is made first, empty and durably,
    /// with the folders above it and exactly this mode. All who do so at once open the same file.
    pub(crate) fn open_or_create(&self, path: &Path, mode: u32) -> Result<File> {
        let shown = self.host_path(path);
        for _ in 0..TRIES_MAX {
            let target = self.target(path)?;
            let file = match target.stat {
                Some(_) => open_at(&target.folder, &target.name, OFlags::RDWR, &shown)?,
                None => target.folder.create_empty(&target.name, mode)?,
            };
            // Somebody else may have made or removed it meanwhile: then the walk tells what.
            if let Some(file) = file {
                return Ok(file);
            }
        }
        Err(Error::io("opening", &shown)(Errno::AGAIN))
    }

    /// Removes what stands at `path`, durably, and says whether something did. A link is removed itself, a folder is
    /// refused.
    pub fn remove(&self, path: &Path) -> Result<bool> {
        self.remove_from(path)?.map_or(Ok(false), |folder| folder.sync().map(|()| true))
    }

    /// [`Root::remove`] of what a power cut may bring back.
    pub(crate) fn remove_lazily(&self, path: &Path) -> Result<bool> {
        Ok(self.remove_from(path)?.is_some())
    }

    /// Removes a name and returns the folder that it was removed from.
    fn remove_from(&self, path: &Path) -> Result<Option<Folder>> {
        let shown = self.host_path(path);
        let (above, name) = split(path).ok_or_else(|| no_name(&shown))?;
        let Some(folder) = self.folder(&above)? else { return Ok(None) };
        match unlinkat(folder.as_fd(), &name, AtFlags::empty()) {
            Ok(()) => Ok(Some(folder)),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::io("removing", &shown)(errno)),
        }
    }

    /// Gives what stands at `from` the name `to`, durably; a file at `to` is replaced. Neither is followed where it is
    /// a link.
    pub fn rename(&self, from: &Path, to: &Path) -> Result<()> {
        let shown = self.host_path(from);
        let missing = || Error::io("renaming", &shown)(Errno::NOENT);
        let (from_above, from_name) = split(from).ok_or_else(|| no_name(&shown))?;
        let (to_above, to_name) = split(to).ok_or_else(|| no_name(&self.host_path(to)))?;
        let from_folder = self.folder(&from_above)?.ok_or_else(missing)?;
        let to_folder = self.folder(&to_above)?.ok_or_else(missing)?;
        renameat(from_folder.as_fd(), &from_name, to_folder.as_fd(), &to_name)
            .map_err(Error::io("renaming", &shown))?;
        to_folder.sync()?;
        from_folder.sync()
    }

    /// Gives the file at `path` the execute bits for all, keeping its other bits. Says whether it was there.
    pub fn make_executable(&self, path: &Path) -> Result<bool> {
        let shown = self.host_path(path);
        let Some(file) = self.open_file(path)? else { return Ok(false) };
        let stat = rustix::fs::fstat(&file).map_err(Error::io("looking at", &shown))?;
        let mode = stat.st_mode & MODE_BITS;
        if mode & EXECUTE != EXECUTE {
            rustix::fs::fchmod(&file, Mode::from_raw_mode(mode | EXECUTE))
                .map_err(Error::io("making executable", &shown))?;
        }
        Ok(true)
    }

    /// Takes the turn at the folder at `path`, made where it is missing; `None` while another process has it.
    pub fn try_lock(&self, path: &Path) -> Result<Option<FolderLock>> {
        let folder = self.create_folder(path)?;
        let shown = self.host_path(path);
        match flock(&folder, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Some(FolderLock { folder: folder.into_fd() })),
            Err(Errno::WOULDBLOCK) => Ok(None),
            Err(errno) => Err(Error::io("locking", &shown)(errno)),
        }
    }

    /// Removes the temporary files that killed writers left in the folder at `path`, if there is one. Safe at any
    /// time: a living writer holds a lock on its own.
    pub fn sweep(&self, path: &Path) -> Result<whole::Swept> {
        self.folder(path)?.map_or_else(|| Ok(whole::Swept::default()), |folder| folder.sweep())
    }

    fn walk(&self, path: &Path, last: Last, absent: Absent) -> Result<Reached> {
        let shown = self.host_path(path);
        let top = Top { folder: self.top.as_fd(), own_path: self.own_path.as_deref(), shown: &shown };
        walk::walk(&top, path, last, absent)
    }

    fn folder_of(&self, folder: OwnedFd, path: &Path) -> Result<Folder> {
        let shown = self.host_path(path);
        let readable =
            walk::open_readable(folder.as_fd()).map_err(Error::io("opening the folder", &shown))?;
        Ok(Folder::new(readable, shown))
    }
}

/// A file's folder and name, and what stands there: a regular file or nothing.
pub(crate) struct Target {
    pub(crate) folder: Folder,
    pub(crate) name: OsString,
    pub(crate) stat: Option<Box<Stat>>,
}

/// A path's last name and what lies above it; `None` where it ends in no name.
fn split(path: &Path) -> Option<(PathBuf, OsString)> {
    let bytes = path.as_os_str().as_bytes();
    let cut = bytes.iter().rposition(|byte| *byte == b'/').map_or(0, |slash| slash + 1);
    let (above, name) = bytes.split_at(cut);
    if matches!(name, b"" | b"." | b"..") {
        return None;
    }
    Some((PathBuf::from(OsStr::from_bytes(above)), OsStr::from_bytes(name).to_owned()))
}

fn no_name(shown: &Path) -> Error {
    Error::bad_name("path", &shown.to_string_lossy(), "one that ends in a name")
}

/// Opens a regular file under a name in a folder; `None` where it is gone or a link by now.
fn open_at(parent: impl AsFd, name: &OsStr, flags: OFlags, shown: &Path) -> Result<Option<File>> {
    let careful = OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(parent, name, flags | careful, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO | Errno::ISDIR) => return Ok(None),
        Err(errno) => return Err(Error::io("opening", shown)(errno)),
    };
    let stat = rustix::fs::fstat(&file).map_err(Error::io("looking at", shown))?;
    require_file(shown, &stat)?;
    Ok(Some(File::from(file)))
}

fn metadata_of(stat: &Stat) -> Metadata {
    Metadata {
        kind: kind_of(stat),
        mode: stat.st_mode & MODE_BITS,
        bytes: u64::try_from(stat.st_size).expect("no file has a negative size"),
    }
}

fn kind_of(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn require_file(shown: &Path, stat: &Stat) -> Result<()> {
    match kind_of(stat) {
        FileType::RegularFile => Ok(()),
        other => Err(kind_error(shown, other)),
    }
}

fn kind_error(shown: &Path, found: FileType) -> Error {
    Error::Kind { path: shown.to_owned(), found: kind_words(found), expected: "a regular file" }
}

/// A missing folder on the way, or something on it that is no folder: nothing stands at such a path.
fn is_nothing(error: &Error) -> bool {
    error.system().is_some_and(|source| is_errno(source, Errno::NOENT) || is_errno(source, Errno::NOTDIR))
}

fn is_errno(error: &io::Error, errno: Errno) -> bool {
    error.raw_os_error() == Some(errno.raw_os_error())
}

/// Copies all of one file into another, without a limit: package files have none.
fn pour(source: &mut dyn Read, into: &mut File) -> io::Result<u64> {
    let copied = io::copy(source, into)?;
    into.flush()?;
    Ok(copied)
}

/// A reader that fails once it is to stop.
struct Heeding<'a> {
    from: &'a mut File,
    stop: &'a dyn Fn() -> bool,
}

impl Read for Heeding<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if (self.stop)() {
            return Err(io::Error::other("ended on request"));
        }
        self.from.read(buffer)
    }
}
