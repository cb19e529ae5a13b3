//! Whole-file writes: after a crash at any instruction a reader finds the old file or the new one.
//!
//! The content goes into a temporary file in the same folder, takes over the mode and owner of the file that
//! it replaces, and reaches the disk before it is renamed over it; then the folder reaches the disk. What a
//! crash leaves of a temporary file has a name by which [`sweep_leftovers`] knows it.
//!
//! Not kept: hard links (the name gets a new inode), access control lists and extended attributes.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use rustix::fs::{
    AtFlags, CWD, Dir, FileType, FlockOperation, Gid, Mode, OFlags, Stat, Uid, fchmod, fchown, flock, fsync,
    mkdirat, openat, renameat, statat, unlinkat,
};
use rustix::io::Errno;

use crate::error::{Error, Result};
use crate::fault;
use crate::folder::{Place, kind_words, mode_of, open_folder, parent_of, require_file, stat_of};
use crate::points;

/// How the name of every temporary file begins; sixteen hexadecimal digits follow.
pub const LEFTOVER_PREFIX: &str = ".groundcrew-tmp-";

/// Digits of the random part of a temporary name: 64 bits.
const RANDOM_DIGITS: usize = 16;

/// Tries for a free temporary name. One is enough unless a sweep catches the file in the instant between its
/// making and its locking; eight in a row means that something else is wrong.
const NAME_TRIES_MAX: u32 = 8;

/// How a whole file is written.
#[derive(Debug, Clone, Copy)]
pub struct Options {
    /// The mode of a file that did not exist, exactly as given: the umask has no part in it. A file that is
    /// replaced keeps the mode it has.
    pub mode_for_new: u32,
}

impl Default for Options {
    /// Readable and writable by the owner alone, since a home holds tokens.
    fn default() -> Self {
        Self { mode_for_new: 0o600 }
    }
}

/// Replaces or makes the file at `path`, wholly and durably.
///
/// When this returns `Ok` the new content outlives a power cut. A file that stood there keeps its mode and its
/// owner; where the owner is another and this process may not give files away, nothing is written and the
/// answer is [`Error::OwnerNotKept`]. Anything but a regular file at `path` is refused ([`Error::NotAFile`]).
/// After any error the old file stands untouched, with one exception: if only the sync of the folder failed,
/// the new one stands, but may not outlive a power cut.
pub fn write_whole(path: &Path, bytes: &[u8], options: &Options) -> Result<()> {
    write_in(&Place::of(path)?, bytes, options)
}

/// [`write_whole`] in a folder that the caller holds open, wherever a path to it may lead by now. The name there is
/// the last component of `path`, which is what errors show. `folder` must be open for reading, since it is synced.
pub fn write_whole_at(folder: OwnedFd, path: &Path, bytes: &[u8], options: &Options) -> Result<()> {
    write_in(&Place::within(folder, path)?, bytes, options)
}

/// [`write_whole`] in a folder that is already open.
pub(crate) fn write_in(place: &Place, bytes: &[u8], options: &Options) -> Result<()> {
    write_in_where(place, bytes, options, || Ok(true)).map(|_always| ())
}

/// [`write_in`], unless `still` says no: it is asked last of all, right before the new file takes its place. True where
/// it was written.
pub(crate) fn write_in_where(
    place: &Place,
    bytes: &[u8],
    options: &Options,
    still: impl FnOnce() -> Result<bool>,
) -> Result<bool> {
    let replaced = place.stat(&place.name)?;
    if let Some(stat) = &replaced {
        require_file(&place.path, stat)?;
    }
    fault::point(points::WHOLE_STARTED);
    let mut temporary = Temporary::create(place)?;
    temporary.fill(bytes)?;
    match &replaced {
        Some(stat) => temporary.dress_like(stat)?,
        None => temporary.set_mode(Mode::from_raw_mode(options.mode_for_new))?,
    }
    fault::point(points::WHOLE_DRESSED);
    temporary.sync()?;
    fault::point(points::WHOLE_SYNCED);
    if !still()? {
        return Ok(false);
    }
    temporary.rename()?;
    fault::point(points::WHOLE_RENAMED);
    place.sync()?;
    fault::point(points::WHOLE_DONE);
    Ok(true)
}

/// Reads a regular file of at most `bytes_max` bytes; `None` where there is none.
///
/// A symbolic link at the end of the path is not followed, and neither a fifo nor a device can make this
/// hang: both are [`Error::NotAFile`]. The limit holds for what is read, whatever size the file claims.
pub fn read_bounded(path: &Path, bytes_max: u64) -> Result<Option<Vec<u8>>> {
    let place = match Place::of(path) {
        Err(Error::Io { source, .. }) if source.kind() == io::ErrorKind::NotFound => return Ok(None),
        other => other?,
    };
    read_in(&place, bytes_max)
}

/// [`read_bounded`] in a folder that is already open.
pub(crate) fn read_in(place: &Place, bytes_max: u64) -> Result<Option<Vec<u8>>> {
    let Some(file) = place.open_file(&place.name, OFlags::RDONLY, Mode::empty())? else { return Ok(None) };
    let mut bytes = Vec::new();
    let mut limited = File::from(file).take(bytes_max.saturating_add(1));
    limited.read_to_end(&mut bytes).map_err(Error::io("reading", &place.path))?;
    if bytes.len() as u64 > bytes_max {
        return Err(Error::TooLarge { path: place.path.clone(), bytes_max });
    }
    Ok(Some(bytes))
}

/// Removes the file at `path` durably, and says whether it was there. A symbolic link is removed itself, a
/// folder is refused. Where nothing stands the folder is synced all the same, because the removal may have
/// happened just before a crash.
pub fn remove(path: &Path) -> Result<bool> {
    let place = Place::of(path)?;
    let existed = match unlinkat(&place.folder, &place.name, AtFlags::empty()) {
        Ok(()) => true,
        Err(Errno::NOENT) => false,
        Err(errno) => return Err(Error::io("removing", path)(errno)),
    };
    fault::point(points::REMOVE_UNLINKED);
    place.sync()?;
    fault::point(points::REMOVE_DONE);
    Ok(existed)
}

/// Makes the folder at `path` durably, with what is missing of the folders above it. `mode` is for those that
/// are made, less the umask, as mkdir(2) has it; a folder that exists is left as it is.
pub fn create_folder(path: &Path, mode: u32) -> Result<()> {
    let parent = parent_of(path);
    if !make_folder(path, mode)? {
        // The path gets shorter each time, and `.` has nothing above it that could be made.
        if parent != Path::new(".") {
            create_folder(parent, mode)?;
        }
        if !make_folder(path, mode)? {
            return Err(Error::io("making the folder", path)(Errno::NOENT));
        }
    }
    // Also where it existed: the process that made it may have ended before it was durable.
    fsync(open_folder(parent)?).map_err(Error::io("syncing the folder", parent))?;
    fault::point(points::FOLDER_DONE);
    Ok(())
}

/// Makes one folder, or finds it made; false where the folder above it is missing.
fn make_folder(path: &Path, mode: u32) -> Result<bool> {
    match mkdirat(CWD, path, Mode::from_raw_mode(mode)) {
        Ok(()) => {
            fault::point(points::FOLDER_MADE);
            Ok(true)
        }
        Err(Errno::EXIST) => require_folder(path).map(|()| true),
        Err(Errno::NOENT) => Ok(false),
        Err(errno) => Err(Error::io("making the folder", path)(errno)),
    }
}

fn require_folder(path: &Path) -> Result<()> {
    let stat = statat(CWD, path, AtFlags::empty()).map_err(Error::io("looking at", path))?;
    match FileType::from_raw_mode(stat.st_mode) {
        FileType::Directory => Ok(()),
        other => Err(Error::NotAFolder { path: path.to_owned(), found: kind_words(other) }),
    }
}

/// What [`sweep_leftovers`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Swept {
    /// Temporary files of writers that are no more, now removed.
    pub removed: u64,
    /// Temporary files that a living process is writing at this moment, left alone.
    pub in_use: u64,
}

/// Removes the temporary files that killed writers left in `folder` (not in folders below it). Meant for the
/// start of a process; safe at any time, since a living writer holds a lock on its temporary file. Takes as
/// long as the folder has entries, and memory for one.
pub fn sweep_leftovers(folder: &Path) -> Result<Swept> {
    sweep_leftovers_at(&open_folder(folder)?, folder)
}

/// [`sweep_leftovers`] in a folder that the caller holds open for reading; errors call it `folder`.
pub fn sweep_leftovers_at(descriptor: &OwnedFd, folder: &Path) -> Result<Swept> {
    let entries = Dir::read_from(descriptor).map_err(Error::io("listing", folder))?;
    let mut swept = Swept::default();
    for entry in entries {
        let entry = entry.map_err(Error::io("listing", folder))?;
        if !is_leftover_name(entry.file_name().to_bytes()) {
            continue;
        }
        let path = folder.join(std::ffi::OsStr::from_bytes(entry.file_name().to_bytes()));
        match sweep_one(descriptor, entry.file_name(), &path)? {
            Leftover::Removed => swept.removed += 1,
            Leftover::InUse => swept.in_use += 1,
            Leftover::NotOurs => {}
        }
    }
    if swept.removed > 0 {
        fsync(descriptor).map_err(Error::io("syncing the folder", folder))?;
    }
    Ok(swept)
}

enum Leftover {
    Removed,
    InUse,
    NotOurs,
}

fn sweep_one(folder: &OwnedFd, name: &std::ffi::CStr, path: &Path) -> Result<Leftover> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::NOCTTY | OFlags::CLOEXEC;
    let file = match openat(folder, name, flags, Mode::empty()) {
        Ok(file) => file,
        // Renamed or removed by its writer meanwhile, or nothing that a writer of ours would have made.
        Err(Errno::NOENT | Errno::LOOP | Errno::NXIO) => return Ok(Leftover::NotOurs),
        Err(errno) => return Err(Error::io("opening the leftover", path)(errno)),
    };
    if FileType::from_raw_mode(stat_of(&file, path)?.st_mode) != FileType::RegularFile {
        return Ok(Leftover::NotOurs);
    }
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => {}
        Err(Errno::WOULDBLOCK) => return Ok(Leftover::InUse),
        Err(errno) => return Err(Error::io("locking the leftover", path)(errno)),
    }
    match unlinkat(folder, name, AtFlags::empty()) {
        Ok(()) => Ok(Leftover::Removed),
        Err(Errno::NOENT) => Ok(Leftover::NotOurs),
        Err(errno) => Err(Error::io("removing the leftover", path)(errno)),
    }
}

fn is_leftover_name(name: &[u8]) -> bool {
    let random = name.strip_prefix(LEFTOVER_PREFIX.as_bytes());
    random.is_some_and(|digits| {
        digits.len() == RANDOM_DIGITS
            && digits.iter().all(|d| d.is_ascii_digit() || (b'a'..=b'f').contains(d))
    })
}

/// A temporary file beside its place, locked, and removed when dropped before it was renamed.
struct Temporary<'a> {
    place: &'a Place,
    file: File,
    name: OsString,
    path: PathBuf,
    renamed: bool,
}

impl<'a> Temporary<'a> {
    fn create(place: &'a Place) -> Result<Self> {
        for _ in 0..NAME_TRIES_MAX {
            if let Some(temporary) = Self::try_create(place)? {
                fault::point(points::WHOLE_CREATED);
                return Ok(temporary);
            }
        }
        let taken = io::Error::from(io::ErrorKind::AlreadyExists);
        Err(Error::io("finding a free temporary name for", &place.path)(taken))
    }

    /// `None` where the name was taken, or a sweep got hold of the file before its lock did.
    fn try_create(place: &'a Place) -> Result<Option<Self>> {
        let random = getrandom::u64().map_err(|error| {
            let system = error.raw_os_error().map(io::Error::from_raw_os_error);
            let source = system.unwrap_or_else(|| io::Error::other(error.to_string()));
            Error::io("finding a random name for", &place.path)(source)
        })?;
        let name = OsString::from(format!("{LEFTOVER_PREFIX}{random:0RANDOM_DIGITS$x}"));
        let path = place.sibling(&name);
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let file = match openat(&place.folder, &name, flags, Mode::RUSR | Mode::WUSR) {
            Ok(file) => file,
            Err(Errno::EXIST) => return Ok(None),
            Err(errno) => return Err(Error::io("creating the temporary file", &path)(errno)),
        };
        let temporary = Self { place, file: File::from(file), name, path, renamed: false };
        match flock(&temporary.file, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => {}
            Err(Errno::WOULDBLOCK) => return Ok(None),
            Err(errno) => return Err(Error::io("locking the temporary file", &temporary.path)(errno)),
        }
        Ok((temporary.stat()?.st_nlink > 0).then_some(temporary))
    }

    fn stat(&self) -> Result<Stat> {
        stat_of(&self.file, &self.path)
    }

    fn fill(&mut self, bytes: &[u8]) -> Result<()> {
        let (head, tail) = bytes.split_at(fault::cut(points::WHOLE_HALF_WRITTEN, bytes.len()));
        self.file.write_all(head).map_err(Error::io("writing", &self.path))?;
        if !tail.is_empty() {
            fault::point(points::WHOLE_HALF_WRITTEN);
            self.file.write_all(tail).map_err(Error::io("writing", &self.path))?;
        }
        fault::point(points::WHOLE_WRITTEN);
        Ok(())
    }

    /// Takes over owner and mode, in this order, because chown(2) clears the set-id bits.
    fn dress_like(&self, replaced: &Stat) -> Result<()> {
        let ours = self.stat()?;
        let owner = (ours.st_uid != replaced.st_uid).then(|| Uid::from_raw(replaced.st_uid));
        let group = (ours.st_gid != replaced.st_gid).then(|| Gid::from_raw(replaced.st_gid));
        if owner.is_some() || group.is_some() {
            fchown(&self.file, owner, group).map_err(|errno| match errno {
                Errno::PERM => Error::OwnerNotKept {
                    path: self.place.path.clone(),
                    uid: replaced.st_uid,
                    gid: replaced.st_gid,
                    source: errno.into(),
                },
                errno => Error::io("giving its owner to", &self.path)(errno),
            })?;
        }
        fault::point(points::WHOLE_OWNED);
        self.set_mode(mode_of(replaced))
    }

    fn set_mode(&self, mode: Mode) -> Result<()> {
        fchmod(&self.file, mode).map_err(Error::io("setting the mode of", &self.path))
    }

    fn sync(&self) -> Result<()> {
        fsync(&self.file).map_err(Error::io("syncing", &self.path))
    }

    fn rename(mut self) -> Result<()> {
        let folder = &self.place.folder;
        renameat(folder, &self.name, folder, &self.place.name)
            .map_err(Error::io("renaming the temporary file over", &self.place.path))?;
        self.renamed = true;
        Ok(())
    }
}

impl Drop for Temporary<'_> {
    fn drop(&mut self) {
        if !self.renamed {
            // The error on the way matters, not this one: what cannot be removed now, the next sweep removes.
            let _swept_later = unlinkat(&self.place.folder, &self.name, AtFlags::empty());
        }
    }
}
