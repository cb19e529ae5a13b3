//! Calls on files of the home that `durable` does not have: durable moves, folders listed and removed, and
//! JSON files that a broken content never stops.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io;
use std::path::{Path, PathBuf};

use groundcrew_durable::whole::{Options, read_bounded, write_whole};
use groundcrew_durable::{Error, Result, fault};
use groundcrew_protocol::order;
use groundcrew_protocol::wire::HomeKind;
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::points;

/// Broken files of one name that are kept. The last place is taken again and again.
const BROKEN_MAX: u32 = 16;
/// Names that are tried for a free place.
const NAMES_MAX: u32 = 10_000;

/// The adapter from a failed call to an error with its path.
pub(crate) fn io_error(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Error {
    let path = path.to_owned();
    move |source| Error::Io { doing, path, source }
}

/// Moves a file or folder within one file system, durably. What stands at `to` is replaced if it is a file.
pub(crate) fn move_durably(from: &Path, to: &Path) -> Result<()> {
    fs::rename(from, to).map_err(io_error("moving aside", from))?;
    fault::point(points::MOVE_RENAMED);
    for path in [to, from] {
        let folder = path.parent().expect("what is moved lies in a folder");
        sync_folder(folder)?;
    }
    Ok(())
}

/// Makes what happened to names in a folder durable.
pub(crate) fn sync_folder(folder: &Path) -> Result<()> {
    let synced = File::open(folder).and_then(|file| file.sync_all());
    synced.map_err(io_error("syncing the folder", folder))
}

/// Whether what lies there outlives the machine's power, also where it is not made yet. Not on tmpfs and ramfs (an initramfs
/// is one of them), and not on an overlay: in a live image its upper layer lies in memory, and a container's goes with the
/// container. A disk under test is told by the profile.
pub(crate) fn kind_of(path: &Path) -> Result<HomeKind> {
    const TMPFS: u64 = 0x0102_1994;
    const RAMFS: u64 = 0x8584_58f6;
    const OVERLAY: u64 = 0x794c_7630;
    if fault::counts_as_disk() {
        return Ok(HomeKind::Durable);
    }
    let there = path.ancestors().find(|folder| folder.exists()).unwrap_or(path);
    let found = rustix::fs::statfs(there)
        .map_err(|errno| io_error("looking at the file system of", there)(errno.into()))?;
    // The field is signed on some machines; the numbers are 32 bits wide.
    let magic = found.f_type as u64 & 0xffff_ffff;
    Ok(if [TMPFS, RAMFS, OVERLAY].contains(&magic) { HomeKind::Volatile } else { HomeKind::Durable })
}

/// The names in a folder, sorted; none where there is no folder.
pub(crate) fn names_in(folder: &Path) -> Result<Vec<OsString>> {
    let entries = match fs::read_dir(folder) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        other => other.map_err(io_error("listing", folder))?,
    };
    let names = entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<Vec<_>>>();
    let mut names = names.map_err(io_error("listing", folder))?;
    order::sort(&mut names);
    Ok(names)
}

/// Moves something into a folder under its own name, or with a number behind it where that is taken.
pub(crate) fn move_into(from: &Path, folder: &Path) -> Result<PathBuf> {
    let name = from.file_name().expect("what is moved has a name").to_string_lossy().into_owned();
    let free = (1..NAMES_MAX)
        .map(|number| if number == 1 { folder.join(&name) } else { folder.join(format!("{name}.{number}")) })
        .find(|path| path.symlink_metadata().is_err());
    let to = free.unwrap_or_else(|| folder.join(&name));
    move_durably(from, &to)?;
    Ok(to)
}

/// Moves a file that nobody can read to `NAME.broken-N` beside it, and says where it is now.
pub(crate) fn set_aside(path: &Path) -> Result<PathBuf> {
    let named = |number: u32| {
        let mut name = path.file_name().expect("a file has a name").to_owned();
        name.push(format!(".broken-{number}"));
        path.with_file_name(name)
    };
    let free = (1..BROKEN_MAX).map(named).find(|path| path.symlink_metadata().is_err());
    let to = free.unwrap_or_else(|| named(BROKEN_MAX));
    move_durably(path, &to)?;
    Ok(to)
}

/// Reads a JSON file of the home; `None` where there is none. One that cannot be parsed or is too large is
/// set aside, which `notes` says, and counts as none.
pub(crate) fn read_json<T: DeserializeOwned>(
    path: &Path,
    bytes_max: u64,
    notes: &mut Vec<String>,
) -> Result<Option<T>> {
    let why = match read_bounded(path, bytes_max) {
        Ok(None) => return Ok(None),
        Ok(Some(bytes)) => match serde_json::from_slice(&bytes) {
            Ok(value) => return Ok(Some(value)),
            Err(error) => error.to_string(),
        },
        Err(error @ (Error::TooLarge { .. } | Error::NotAFile { .. })) => error.to_string(),
        Err(error) => return Err(error),
    };
    let aside = set_aside(path)?;
    notes.push(format!("{} could not be read ({why}) and is now {}", path.display(), aside.display()));
    Ok(None)
}

/// Writes a JSON file of the home, whole and durably, for its owner alone.
pub(crate) fn write_json(path: &Path, value: &impl Serialize) -> Result<()> {
    let bytes = serde_json::to_vec(value).expect("what the home keeps has text for keys and can be written");
    write_whole(path, &bytes, &Options::default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_volatile_also_before_the_home_is_made() {
        let folder = tempfile::tempdir_in("/dev/shm").expect("every Linux system has this tmpfs");
        for home in ["", "home", "of/a/home"] {
            assert_eq!(kind_of(&folder.path().join(home)).unwrap(), HomeKind::Volatile, "{home}");
            assert_eq!(kind_of(&Path::new("/proc").join(home)).unwrap(), HomeKind::Durable, "{home}");
        }
    }
}
