//! One folder, held open, and the calls on names in it: what must happen in the same folder goes through one
//! descriptor. Names are never followed where they are links.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use groundcrew_durable::whole;
use groundcrew_protocol::order;
use rustix::fs::{
    AtFlags, Dir, FileType, FlockOperation, Gid, Mode, OFlags, Stat, StatVfsMountFlags, StatxAttributes,
    StatxFlags, Timespec, Timestamps, Uid, fchmod, fchown, flock, fsync, ftruncate, futimens, makedev,
    mkdirat, openat, renameat, statx, unlinkat,
};
use rustix::io::Errno;
use rustix::process::geteuid;

use super::error::{Error, Result};
use super::{Heeding, MODE_BITS, is_errno, kind_of, open_at, pour, walk};

/// Digits of the random part of a temporary name.
const RANDOM_DIGITS: usize = 16;

/// Folders below each other that are removed with a tree.
const REMOVE_DEPTH_MAX: usize = 256;

/// What a copy takes over from what it is a copy of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Like {
    /// Permission, set-id and sticky bits.
    pub(crate) mode: u32,
    /// When it was last changed: seconds and nanoseconds since 1970.
    pub(crate) changed: (i64, i64),
}

impl Like {
    pub(crate) fn of(stat: &Stat) -> Self {
        #[allow(clippy::unnecessary_cast, reason = "the width of these fields depends on the target")]
        let changed = (stat.st_mtime as i64, stat.st_mtime_nsec as i64);
        Self { mode: stat.st_mode & MODE_BITS, changed }
    }

    fn times(&self) -> Timestamps {
        let time = Timespec { tv_sec: self.changed.0, tv_nsec: self.changed.1 };
        Timestamps { last_access: time, last_modification: time }
    }
}

/// A folder beneath a root.
#[derive(Debug)]
pub(crate) struct Folder {
    descriptor: OwnedFd,
    /// As the host knows it, for errors.
    path: PathBuf,
}

impl AsFd for Folder {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

impl Folder {
    pub(super) fn new(descriptor: OwnedFd, path: PathBuf) -> Self {
        Self { descriptor, path }
    }

    pub(super) fn into_fd(self) -> OwnedFd {
        self.descriptor
    }

    /// Its path as the host knows it.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// The names in it, sorted.
    pub(crate) fn names(&self) -> Result<Vec<OsString>> {
        let entries = Dir::read_from(&self.descriptor).map_err(Error::io("listing", &self.path))?;
        let mut names = Vec::new();
        for entry in entries {
            let entry = entry.map_err(Error::io("listing", &self.path))?;
            let name = entry.file_name().to_bytes();
            if !matches!(name, b"." | b"..") {
                names.push(OsStr::from_bytes(name).to_owned());
            }
        }
        order::sort(&mut names);
        Ok(names)
    }

    /// What stands under a name, if anything.
    pub(crate) fn stat(&self, name: &OsStr) -> Result<Option<Stat>> {
        walk::stat_in(self.as_fd(), name).map_err(Error::io("looking at", &self.path.join(name)))
    }

    /// What it is like itself.
    pub(crate) fn own_stat(&self) -> Result<Stat> {
        rustix::fs::fstat(&self.descriptor).map_err(Error::io("looking at", &self.path))
    }

    /// Bytes that are free on its file system for this process: root may use what is set aside for it. `None` where it counts
    /// none, as a file system without a size does. One that cannot be written to is an error.
    pub(crate) fn free_bytes(&self) -> Result<Option<u64>> {
        let space = rustix::fs::fstatvfs(&self.descriptor)
            .map_err(Error::io("asking for the room at", &self.path))?;
        if space.f_flag.contains(StatVfsMountFlags::RDONLY) {
            return Err(Error::io("finding room at", &self.path)(Errno::ROFS));
        }
        let free = if geteuid().is_root() { space.f_bfree } else { space.f_bavail };
        Ok((space.f_blocks > 0).then(|| free.saturating_mul(space.f_frsize)))
    }

    /// Makes what happened to names in it durable.
    pub(crate) fn sync(&self) -> Result<()> {
        fsync(&self.descriptor).map_err(Error::io("syncing the folder", &self.path))
    }

    /// Removes the temporary files that killed writers left in it.
    pub(crate) fn sweep(&self) -> Result<whole::Swept> {
        Ok(whole::sweep_leftovers_at(&self.descriptor, &self.path)?)
    }

    pub(super) fn write_whole(&self, name: &OsStr, bytes: &[u8], mode_for_new: u32) -> Result<()> {
        let path = self.path.join(name);
        let folder = self.descriptor.try_clone().map_err(Error::io("holding the folder of", &path))?;
        Ok(whole::write_whole_at(folder, &path, bytes, &whole::Options { mode_for_new })?)
    }

    /// Writes over a regular file where it stands. A crash may leave half of it.
    pub(super) fn overwrite(&self, name: &OsStr, source: &mut dyn Read) -> Result<()> {
        let path = self.path.join(name);
        let missing = || Error::io("opening", &path)(Errno::NOENT);
        let mut file = open_at(&self.descriptor, name, OFlags::WRONLY, &path)?.ok_or_else(missing)?;
        ftruncate(&file, 0).map_err(Error::io("emptying", &path))?;
        pour(source, &mut file).map_err(Error::io("writing", &path))?;
        file.sync_all().map_err(Error::io("syncing", &path))
    }

    /// Makes an empty file under a name, durably and with exactly this mode, and opens it to be read and written; `None`
    /// where the name is taken.
    pub(super) fn create_empty(&self, name: &OsStr, mode: u32) -> Result<Option<File>> {
        let path = self.path.join(name);
        let flags = OFlags::RDWR | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(&self.descriptor, name, flags, Mode::from_raw_mode(mode)) {
            Ok(file) => file,
            Err(Errno::EXIST) => return Ok(None),
            Err(errno) => return Err(Error::io("creating", &path)(errno)),
        };
        fchmod(&file, Mode::from_raw_mode(mode)).map_err(Error::io("setting the mode of", &path))?;
        fsync(&file).map_err(Error::io("syncing", &path))?;
        self.sync()?;
        Ok(Some(File::from(file)))
    }

    /// Puts a copy of `source` under a name, whole and with `like`'s mode and time, in place of a regular file or
    /// nothing. It keeps the owner of the file that it replaces. The folder itself is left to be synced. Where `stop` says
    /// so on the way, all stays as it was.
    pub(crate) fn install(
        &self,
        name: &OsStr,
        source: &mut File,
        like: &Like,
        stop: &dyn Fn() -> bool,
    ) -> Result<()> {
        let path = self.path.join(name);
        let replaced = self.stat(name)?;
        let mut temporary = Temporary::create(self)?;
        pour(&mut Heeding { from: source, stop }, &mut temporary.file).map_err(|error| {
            if stop() {
                return Error::Stopped { path: path.clone() };
            }
            Error::io("writing", &path)(error)
        })?;
        temporary.dress(like, replaced.as_ref(), &path)?;
        fsync(&temporary.file).map_err(Error::io("syncing", &path))?;
        let renamed = temporary.rename_to(name, &path);
        // A file that is a mount point of its own cannot be replaced, only written over.
        match renamed {
            Err(error) if error.system().is_some_and(|source| is_errno(source, Errno::BUSY)) => {
                use std::io::{Seek, SeekFrom};
                source.seek(SeekFrom::Start(0)).map_err(Error::io("reading again for", &path))?;
                self.overwrite(name, source)
            }
            other => other,
        }
    }

    /// Makes a folder under a name, with exactly this mode, and opens it; `None` where the name is taken.
    pub(crate) fn make_folder(&self, name: &OsStr, mode: u32) -> Result<Option<Self>> {
        let path = self.path.join(name);
        match mkdirat(&self.descriptor, name, Mode::from_raw_mode(mode & 0o777)) {
            Ok(()) => {}
            Err(Errno::EXIST) => return Ok(None),
            Err(errno) => return Err(Error::io("making the folder", &path)(errno)),
        }
        let made =
            self.open_folder(name)?.ok_or_else(|| Error::io("making the folder", &path)(Errno::NOENT))?;
        fchmod(&made.descriptor, Mode::from_raw_mode(mode))
            .map_err(Error::io("setting the mode of", &path))?;
        Ok(Some(made))
    }

    /// Opens the folder under a name; `None` where there is nothing. A link is refused.
    pub(crate) fn open_folder(&self, name: &OsStr) -> Result<Option<Self>> {
        let path = self.path.join(name);
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(&self.descriptor, name, flags, Mode::empty()) {
            Ok(descriptor) => Ok(Some(Self { descriptor, path })),
            Err(Errno::NOENT) => Ok(None),
            Err(errno) => Err(Error::io("opening the folder", &path)(errno)),
        }
    }

    /// Gives this folder the time of what it is a copy of.
    pub(crate) fn set_changed(&self, like: &Like) -> Result<()> {
        futimens(&self.descriptor, &like.times()).map_err(Error::io("setting the time of", &self.path))
    }

    /// Makes a folder that was built the copy of what it is like, and durable.
    pub(crate) fn finish(&self, like: &Like) -> Result<()> {
        fchmod(&self.descriptor, Mode::from_raw_mode(like.mode))
            .map_err(Error::io("setting the mode of", &self.path))?;
        self.set_changed(like)?;
        self.sync()
    }

    /// Takes the turn at this folder; false while another process has it.
    pub(crate) fn try_lock(&self) -> Result<bool> {
        match flock(&self.descriptor, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(true),
            Err(Errno::WOULDBLOCK) => Ok(false),
            Err(errno) => Err(Error::io("locking", &self.path)(errno)),
        }
    }

    /// Gives what stands under `from` in this folder the name `to`.
    pub(crate) fn rename(&self, from: &OsStr, to: &OsStr) -> Result<()> {
        renameat(&self.descriptor, from, &self.descriptor, to)
            .map_err(Error::io("renaming to", &self.path.join(to)))
    }

    /// Removes the folder under a name where it is empty, and says whether it did. What somebody has put into it meanwhile
    /// keeps it.
    pub(crate) fn remove_empty(&self, name: &OsStr) -> Result<bool> {
        match unlinkat(&self.descriptor, name, AtFlags::REMOVEDIR) {
            Ok(()) => Ok(true),
            Err(Errno::NOTEMPTY | Errno::EXIST | Errno::NOENT | Errno::NOTDIR | Errno::BUSY) => Ok(false),
            Err(errno) => Err(Error::io("removing", &self.path.join(name))(errno)),
        }
    }

    /// Removes what stands under a name, with everything in it. Links are removed themselves.
    ///
    /// # Errors
    /// Where something in it is mounted, which is somebody else's and only shown there: then nothing is removed.
    pub(crate) fn remove_tree(&self, name: &OsStr) -> Result<()> {
        self.refuse_mounts(name, REMOVE_DEPTH_MAX)?;
        self.remove_tree_within(name, REMOVE_DEPTH_MAX)
    }

    fn refuse_mounts(&self, name: &OsStr, depth: usize) -> Result<()> {
        if self.is_mount_point(name)? {
            return Err(Error::Kind {
                path: self.path.join(name),
                found: "something that is mounted",
                expected: "nothing of the kind in what is to be removed",
            });
        }
        // What lies deeper is refused by the removal itself, which does not go there either.
        let (Some(folder), Some(below)) = (self.open_folder_if_one(name)?, depth.checked_sub(1)) else {
            return Ok(());
        };
        folder.names()?.iter().try_for_each(|inner| folder.refuse_mounts(inner, below))
    }

    /// The folder under a name; `None` where something else stands there, or nothing.
    fn open_folder_if_one(&self, name: &OsStr) -> Result<Option<Folder>> {
        match self.stat(name)? {
            Some(stat) if kind_of(&stat) == FileType::Directory => self.open_folder(name),
            Some(_) | None => Ok(None),
        }
    }

    /// Whether something is mounted at a name. The kernel says so since Linux 5.8; from one before that, another file system's
    /// number is all that is to be had, which a bind of the same does not have.
    fn is_mount_point(&self, name: &OsStr) -> Result<bool> {
        let path = self.path.join(name);
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let found = match statx(&self.descriptor, name, flags, StatxFlags::BASIC_STATS) {
            Ok(found) => found,
            Err(Errno::NOENT) => return Ok(false),
            Err(errno) => return Err(Error::io("looking for mounts at", &path)(errno)),
        };
        if found.stx_attributes_mask.contains(StatxAttributes::MOUNT_ROOT) {
            return Ok(found.stx_attributes.contains(StatxAttributes::MOUNT_ROOT));
        }
        Ok(makedev(found.stx_dev_major, found.stx_dev_minor) != self.own_stat()?.st_dev)
    }

    fn remove_tree_within(&self, name: &OsStr, depth: usize) -> Result<()> {
        let path = self.path.join(name);
        let Some(stat) = self.stat(name)? else { return Ok(()) };
        let mut flags = AtFlags::empty();
        if kind_of(&stat) == FileType::Directory {
            let too_deep = || Error::TooMany {
                path: path.clone(),
                of_what: "folders in each other",
                limit: REMOVE_DEPTH_MAX,
            };
            let below = depth.checked_sub(1).ok_or_else(too_deep)?;
            if let Some(folder) = self.open_folder(name)? {
                for inner in folder.names()? {
                    folder.remove_tree_within(&inner, below)?;
                }
            }
            flags = AtFlags::REMOVEDIR;
        }
        match unlinkat(&self.descriptor, name, flags) {
            Ok(()) | Err(Errno::NOENT) => Ok(()),
            Err(errno) => Err(Error::io("removing", &path)(errno)),
        }
    }
}

/// A temporary file in a folder, locked and named as `durable` names and locks its own, so that the same sweep finds
/// what a killed process left. It is removed when dropped before it was renamed.
struct Temporary<'a> {
    folder: &'a Folder,
    file: File,
    name: OsString,
    renamed: bool,
}

impl<'a> Temporary<'a> {
    fn create(folder: &'a Folder) -> Result<Self> {
        let random = getrandom::u64().map_err(|error| {
            let source = std::io::Error::other(error.to_string());
            Error::io("finding a random name in", &folder.path)(source)
        })?;
        let name = OsString::from(format!("{}{random:0RANDOM_DIGITS$x}", whole::LEFTOVER_PREFIX));
        let path = folder.path.join(&name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = openat(&folder.descriptor, &name, flags, Mode::RUSR | Mode::WUSR)
            .map_err(Error::io("creating the temporary file", &path))?;
        let temporary = Self { folder, file: File::from(file), name, renamed: false };
        flock(&temporary.file, FlockOperation::NonBlockingLockExclusive)
            .map_err(Error::io("locking the temporary file", &path))?;
        Ok(temporary)
    }

    /// Owner, mode and time, in this order: chown(2) clears the set-id bits, and both would move the time of change.
    fn dress(&self, like: &Like, replaced: Option<&Stat>, path: &Path) -> Result<()> {
        if let Some(replaced) = replaced {
            let ours = rustix::fs::fstat(&self.file).map_err(Error::io("looking at", path))?;
            let owner = (ours.st_uid != replaced.st_uid).then(|| Uid::from_raw(replaced.st_uid));
            let group = (ours.st_gid != replaced.st_gid).then(|| Gid::from_raw(replaced.st_gid));
            if owner.is_some() || group.is_some() {
                fchown(&self.file, owner, group).map_err(Error::io("giving its owner to", path))?;
            }
        }
        fchmod(&self.file, Mode::from_raw_mode(like.mode)).map_err(Error::io("setting the mode of", path))?;
        futimens(&self.file, &like.times()).map_err(Error::io("setting the time of", path))
    }

    fn rename_to(mut self, name: &OsStr, path: &Path) -> Result<()> {
        let folder = &self.folder.descriptor;
        renameat(folder, &self.name, folder, name)
            .map_err(Error::io("renaming the temporary file over", path))?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.renamed {
            // The error on the way matters, not this one: what cannot be removed now, the next sweep removes.
            let _swept_later = unlinkat(&self.folder.descriptor, &self.name, AtFlags::empty());
        }
    }
}
