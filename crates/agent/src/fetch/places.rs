//! Where packages lie in the agent's home, and which of them stay.
//!
//! The default folder for what is applied to this very root, `{name}-{version}/{instance}`, may stand beside them. Nothing
//! here touches anything but what bears one of its own four names.

use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use groundcrew_durable::whole::create_folder;
use groundcrew_protocol::ids::Sha256Hex;
use groundcrew_protocol::order;
use groundcrew_protocol::wire::LogLevel;

use super::{FetchError, Wanted};

/// The folder of packages in the home.
const FOLDER: &str = "packages";
/// The home is the agent's alone.
const MODE: u32 = 0o700;
const FETCHED: &str = "fetched-";
const UNPACKING: &str = "unpacking-";
const PACKAGE: &str = "package-";
const LEAVING: &str = "leaving-";
/// Entries of a folder that a sweep looks at: far more than the retention lets stand there.
const ENTRIES_MAX: usize = 10_000;

/// The packages of a home.
#[derive(Debug)]
pub(super) struct Places {
    folder: PathBuf,
}

/// The place of one package.
#[derive(Debug)]
pub(super) struct Place {
    folder: PathBuf,
    sha256: Sha256Hex,
}

impl Places {
    pub(super) fn in_home(home: &Path) -> Places {
        Places { folder: home.join(FOLDER) }
    }

    /// The place of a package, made where it is not there yet.
    pub(super) fn of(&self, wanted: &Wanted) -> Result<Place, FetchError> {
        let folder = self.folder.join(wanted.name.as_str()).join(wanted.version.as_str());
        let made = create_folder(&folder, MODE).map_err(io::Error::other);
        made.map_err(FetchError::disk("making the folder", &folder))?;
        Ok(Place { folder, sha256: wanted.sha256.clone() })
    }

    /// Removes what no stage of the run uses: what was never finished, and packages beyond those that were used last. What
    /// cannot be removed is said, and is tried again by the next.
    pub(super) fn sweep(&self, of_run: &[Sha256Hex], kept_max: usize) -> Vec<(LogLevel, String)> {
        let mut notes = Vec::new();
        let found = self.look().unwrap_or_else(|error| {
            notes.push((LogLevel::Warn, crate::errors::chain(&error)));
            Vec::new()
        });
        let ours = |entry: &&Found| !of_run.contains(&entry.sha256);
        let unfinished = found.iter().filter(|entry| entry.state != State::Whole).filter(ours);
        let whole = found.iter().filter(|entry| entry.state == State::Whole).filter(ours);
        for entry in unfinished.chain(leaving(whole.collect(), kept_max)) {
            match entry.remove() {
                Ok(()) => notes.push((LogLevel::Info, format!("removed {}", entry.path.display()))),
                Err(error) => notes.push((LogLevel::Warn, crate::errors::chain(&error))),
            }
        }
        notes
    }

    /// All that bears a name of this module's.
    fn look(&self) -> Result<Vec<Found>, FetchError> {
        let mut found = Vec::new();
        for name in children(&self.folder)? {
            for version in children(&name)? {
                for path in children(&version)? {
                    found.extend(Found::at(path)?);
                }
            }
        }
        Ok(found)
    }
}

/// Which packages go: all but those that were used last.
fn leaving(mut whole: Vec<&Found>, kept_max: usize) -> impl Iterator<Item = &Found> {
    order::sort_by_key(&mut whole, |entry| std::cmp::Reverse(entry.used));
    whole.into_iter().skip(kept_max)
}

/// What stands in the folder of a version.
#[derive(Debug)]
struct Found {
    path: PathBuf,
    sha256: Sha256Hex,
    state: State,
    used: SystemTime,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    Fetched,
    Unpacking,
    Whole,
    Leaving,
}

impl Found {
    fn at(path: PathBuf) -> Result<Option<Found>, FetchError> {
        let name = path.file_name().and_then(OsStr::to_str).unwrap_or_default();
        let states = [
            (FETCHED, State::Fetched),
            (UNPACKING, State::Unpacking),
            (PACKAGE, State::Whole),
            (LEAVING, State::Leaving),
        ];
        let known = states.into_iter().find_map(|(prefix, state)| {
            let sha256 = name.strip_prefix(prefix)?.parse().ok()?;
            Some((sha256, state))
        });
        let Some((sha256, state)) = known else { return Ok(None) };
        let used = path.symlink_metadata().and_then(|metadata| metadata.modified());
        let used = used.map_err(FetchError::disk("looking at", &path))?;
        Ok(Some(Found { path, sha256, state, used }))
    }

    /// Removes it, and the folders of its version and its name once nothing is in them. A package that is whole loses its
    /// name first, so that half of one never bears it.
    fn remove(&self) -> Result<(), FetchError> {
        let version = self.path.parent().expect("it lies in the folder of a version");
        let name = version.parent().expect("that one lies in the folder of a name");
        match self.state {
            State::Fetched => {
                std::fs::remove_file(&self.path).map_err(FetchError::disk("removing", &self.path))?;
            }
            State::Unpacking | State::Leaving => remove_folder(&self.path)?,
            State::Whole => {
                let leaving = version.join(format!("{LEAVING}{}", self.sha256));
                remove_folder(&leaving)?;
                std::fs::rename(&self.path, &leaving).map_err(FetchError::disk("renaming", &self.path))?;
                sync(version)?;
                remove_folder(&leaving)?;
            }
        }
        for folder in [version, name] {
            match std::fs::remove_dir(folder) {
                Ok(()) => {}
                Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => break,
                Err(error) => return Err(FetchError::disk("removing", folder)(error)),
            }
        }
        Ok(())
    }
}

impl Place {
    /// The folder of its version.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// The archive.
    pub(super) fn fetched(&self) -> PathBuf {
        self.named(FETCHED)
    }

    /// What is unpacked of it.
    pub(super) fn unpacking(&self) -> PathBuf {
        self.named(UNPACKING)
    }

    /// The package.
    pub(super) fn package(&self) -> PathBuf {
        self.named(PACKAGE)
    }

    fn named(&self, prefix: &str) -> PathBuf {
        self.folder.join(format!("{prefix}{}", self.sha256))
    }

    /// True where the package is there.
    pub(super) fn is_whole(&self) -> Result<bool, FetchError> {
        let package = self.package();
        match package.symlink_metadata() {
            Ok(metadata) => Ok(metadata.is_dir()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
            Err(error) => Err(FetchError::disk("looking at", &package)(error)),
        }
    }

    /// Removes what a try that was killed has left of an unpacked package.
    pub(super) fn clear(&self) -> Result<(), FetchError> {
        remove_folder(&self.unpacking())
    }

    /// Makes the archive outlive a power cut.
    pub(super) fn sync_fetched(&self) -> Result<(), FetchError> {
        sync(&self.fetched())?;
        sync(&self.folder)
    }

    /// Removes the archive, if there is one.
    pub(super) fn remove_fetched(&self) -> Result<(), FetchError> {
        let fetched = self.fetched();
        match std::fs::remove_file(&fetched) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(FetchError::disk("removing", &fetched)(error))
            }
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Gives what is unpacked the package's name, once all of it is on the disk, and removes the archive.
    pub(super) fn finish(&self) -> Result<(), FetchError> {
        let (unpacking, package) = (self.unpacking(), self.package());
        // One call for thousands of files. It waits for what others wrote to this file system, too, and tells its errors.
        let synced = File::open(&unpacking).and_then(|folder| Ok(rustix::fs::syncfs(&folder)?));
        synced.map_err(FetchError::disk("syncing", &unpacking))?;
        std::fs::rename(&unpacking, &package).map_err(FetchError::disk("renaming", &unpacking))?;
        sync(&self.folder)?;
        self.remove_fetched()
    }

    /// Notes that it was used now.
    pub(super) fn touch(&self) -> Result<(), FetchError> {
        let package = self.package();
        let touched = File::open(&package).and_then(|folder| folder.set_modified(SystemTime::now()));
        touched.map_err(FetchError::disk("noting the use of", &package))
    }
}

/// Refuses to write where less than `least` bytes would stay free.
pub(super) fn expect_room(path: &Path, wanted: u64, least: u64) -> Result<(), FetchError> {
    let space = rustix::fs::statvfs(path).map_err(io::Error::from);
    let space = space.map_err(FetchError::disk("asking for the room at", path))?;
    let free = space.f_bavail.saturating_mul(space.f_frsize);
    // A file system without a size, such as the first one of a live image, counts none of its blocks.
    if space.f_blocks > 0 && free < wanted.saturating_add(least) {
        return Err(FetchError::NoRoom { path: path.to_owned(), free, wanted, least });
    }
    Ok(())
}

fn sync(path: &Path) -> Result<(), FetchError> {
    File::open(path).and_then(|opened| opened.sync_all()).map_err(FetchError::disk("syncing", path))
}

/// Removes a folder with all in it, if there is one. A link is removed itself.
pub(super) fn remove_folder(path: &Path) -> Result<(), FetchError> {
    match std::fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(FetchError::disk("removing", path)(error))
        }
        Ok(()) | Err(_) => Ok(()),
    }
}

/// What is in a folder; nothing where it is none.
fn children(folder: &Path) -> Result<Vec<PathBuf>, FetchError> {
    let is_folder = folder.symlink_metadata().is_ok_and(|metadata| metadata.is_dir());
    if !is_folder {
        return Ok(Vec::new());
    }
    let entries = std::fs::read_dir(folder).map_err(FetchError::disk("reading", folder))?;
    let paths = entries.take(ENTRIES_MAX).map(|entry| entry.map(|entry| entry.path()));
    paths.collect::<io::Result<_>>().map_err(FetchError::disk("reading", folder))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn found(used_s: u64, letter: &str) -> Found {
        Found {
            path: PathBuf::from(letter),
            sha256: letter.repeat(64).parse().unwrap(),
            state: State::Whole,
            used: SystemTime::UNIX_EPOCH + Duration::from_secs(used_s),
        }
    }

    #[test]
    fn the_packages_that_were_used_last_stay() {
        let all = [found(3, "a"), found(1, "b"), found(4, "c"), found(2, "d")];
        for (kept_max, expected) in [(0, "cadb"), (2, "db"), (3, "b"), (4, ""), (9, "")] {
            let names = leaving(all.iter().collect(), kept_max).map(|entry| entry.path.to_str().unwrap());
            assert_eq!(names.collect::<String>(), expected, "{kept_max}");
        }
    }

    #[test]
    fn room_is_wanted_beside_what_stays_free() {
        let here = Path::new("/");
        expect_room(here, 0, 0).unwrap();
        let refused = expect_room(here, 1, u64::MAX).unwrap_err().to_string();
        assert!(refused.contains("bytes free at /") && refused.contains("expected 1 and"), "{refused}");
    }
}
