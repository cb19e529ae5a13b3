//! The rules: which entries an archive may have, so that all of it stays below one folder.
//!
//! Pure. [`Tree`] remembers what it took, and says of each further entry what it is to be. No entry lies below anything but
//! folders, and a link climbs only from the folder in which it lies and only before it goes down: so no walk through links
//! that were taken can leave the top, whatever order it takes them in.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::path::{Component, Path, PathBuf};

/// Entries of an archive, with the folders above them that it does not name: a package holds scripts and what they install.
pub const ENTRIES_MAX: usize = 20_000;
/// Bytes of the content of all files together: a driver or a runtime for a GPU, unpacked.
pub const UNPACKED_BYTES_MAX: u64 = 8 << 30;
/// Longest path in an archive and longest target of a link, in bytes.
pub const PATH_BYTES_MAX: usize = 1_024;
/// Longest name in a folder, on every file system that nodes use.
pub const NAME_BYTES_MAX: usize = 255;
/// Folders inside each other.
pub const DEPTH_MAX: usize = 32;
/// Permission bits that a file keeps: none that give its runner another identity, and nobody but its owner writes.
const MODE_KEPT: u32 = 0o755;
/// Permission bits that a file has at least.
const MODE_LEAST: u32 = 0o600;

/// An entry as the archive has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// What it is.
    pub kind: Kind,
    /// Its path.
    pub path: Vec<u8>,
    /// Its mode.
    pub mode: u32,
    /// What a link leads to.
    pub target: Vec<u8>,
}

/// What an entry is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A folder.
    Folder,
    /// A symbolic link.
    Link,
    /// Another name of a file that came before.
    HardLink,
    /// Anything else, in words.
    Other(&'static str),
}

/// What an entry is to be. Paths are relative to the top and lead through folders alone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Take {
    /// The top itself: nothing is to be done.
    Top,
    /// A folder, which may be there.
    Folder(PathBuf),
    /// A file, in a folder that may be missing, with this mode.
    File(PathBuf, u32),
    /// A symbolic link to this target.
    Link(PathBuf, PathBuf),
    /// Another name of the file at the second path.
    HardLink(PathBuf, PathBuf),
}

/// An entry breaks a rule.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("its entry {entry}, {path:?}: found {found}, expected {expected}")]
pub struct Refused {
    /// Which one, counted from 1.
    pub entry: usize,
    /// Its path.
    pub path: PathBuf,
    /// What was found.
    pub found: String,
    /// What was expected.
    pub expected: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Taken {
    File,
    /// Whether the archive named it, or only something below it.
    Folder {
        named: bool,
    },
    Link,
}

/// What was taken so far.
#[derive(Debug, Default)]
pub struct Tree {
    entries: usize,
    taken: BTreeMap<PathBuf, Taken>,
}

impl Tree {
    /// Entries that were looked at.
    pub fn entries(&self) -> usize {
        self.entries
    }

    /// Says what the next entry is to be.
    ///
    /// # Errors
    /// The rule that it breaks.
    pub fn take(&mut self, facts: &Facts) -> Result<Take, Refused> {
        self.entries += 1;
        let taken = self.judge(facts).map_err(|(found, expected)| Refused {
            entry: self.entries,
            path: shown(&facts.path),
            found,
            expected,
        })?;
        if self.taken.len() > ENTRIES_MAX || self.entries > ENTRIES_MAX {
            return Err(Refused {
                entry: self.entries,
                path: shown(&facts.path),
                found: format!("more than {ENTRIES_MAX} entries and folders"),
                expected: "an archive of at most 20000",
            });
        }
        Ok(taken)
    }

    fn judge(&mut self, facts: &Facts) -> Result<Take, Broken> {
        let path = inner_path(&facts.path)?;
        if path.as_os_str().is_empty() {
            return match facts.kind {
                Kind::Folder => Ok(Take::Top),
                Kind::File | Kind::Link | Kind::HardLink | Kind::Other(_) => {
                    broken("the archive's top, which is a folder", "a path below it")
                }
            };
        }
        match facts.kind {
            Kind::Folder => {
                self.place(&path, Taken::Folder { named: true })?;
                Ok(Take::Folder(path))
            }
            Kind::File => {
                self.place(&path, Taken::File)?;
                Ok(Take::File(path, facts.mode & MODE_KEPT | MODE_LEAST))
            }
            Kind::Link => {
                let target = link_target(&facts.target, path.components().count() - 1)?;
                self.place(&path, Taken::Link)?;
                Ok(Take::Link(path, target))
            }
            Kind::HardLink => {
                let target = inner_path(&facts.target)?;
                if self.taken.get(&target) != Some(&Taken::File) {
                    let found = format!("another name of {:?}", shown(&facts.target));
                    return Err((found, "one of a file that stands before it in the archive"));
                }
                self.place(&path, Taken::File)?;
                Ok(Take::HardLink(path, target))
            }
            Kind::Other(what) => broken(what, "a file, a folder or a link"),
        }
    }

    /// Puts something in its place, and folders above it where there is nothing yet.
    fn place(&mut self, path: &Path, what: Taken) -> Result<(), Broken> {
        let above: Vec<&Path> =
            path.ancestors().skip(1).filter(|above| !above.as_os_str().is_empty()).collect();
        for above in &above {
            match self.taken.get(*above) {
                None | Some(Taken::Folder { .. }) => {}
                Some(Taken::File) => {
                    return Err((format!("a path through {above:?}, a file"), "one through folders"));
                }
                Some(Taken::Link) => {
                    return Err((format!("a path through {above:?}, a link"), "one through folders"));
                }
            }
        }
        match (self.taken.get(path), what) {
            (None, _) | (Some(Taken::Folder { named: false }), Taken::Folder { .. }) => {}
            (Some(_), _) => return broken("a path that an entry before it has", "each path once"),
        }
        for above in above {
            self.taken.entry(above.to_owned()).or_insert(Taken::Folder { named: false });
        }
        self.taken.insert(path.to_owned(), what);
        Ok(())
    }
}

/// What was found, and what was expected.
type Broken = (String, &'static str);

fn broken<T>(found: &str, expected: &'static str) -> Result<T, Broken> {
    Err((found.to_owned(), expected))
}

/// A path as an error repeats it.
fn shown(path: &[u8]) -> PathBuf {
    PathBuf::from(OsStr::from_bytes(&path[..path.len().min(NAME_BYTES_MAX)]))
}

/// A path below the top, without what means nothing in it.
fn inner_path(bytes: &[u8]) -> Result<PathBuf, Broken> {
    let path = text(bytes)?;
    let mut inner = PathBuf::new();
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => inner.push(name_of(name)?),
            Component::ParentDir => return broken("a path with \"..\"", "one without"),
            Component::RootDir | Component::Prefix(_) => return broken("an absolute path", "a relative one"),
        }
    }
    if inner.components().count() > DEPTH_MAX {
        return broken("a path through too many folders", "at most 32 in each other");
    }
    Ok(inner)
}

/// The target of a symbolic link that lies so many folders below the top.
fn link_target(bytes: &[u8], depth: usize) -> Result<PathBuf, Broken> {
    let path = text(bytes)?;
    if path.as_os_str().is_empty() {
        return broken("a link to nothing", "a link to a path");
    }
    let (mut climbed, mut has_gone_down) = (0, false);
    for part in path.components() {
        match part {
            Component::CurDir => {}
            Component::Normal(name) => {
                name_of(name)?;
                has_gone_down = true;
            }
            Component::ParentDir if has_gone_down => {
                return broken("a link with \"..\" behind a name", "one that climbs at its beginning alone");
            }
            Component::ParentDir => climbed += 1,
            Component::RootDir | Component::Prefix(_) => {
                return broken("a link with an absolute target", "one with a relative target");
            }
        }
    }
    if climbed > depth {
        return broken("a link that leads out of the archive", "one that stays in it");
    }
    Ok(path.to_owned())
}

fn text(bytes: &[u8]) -> Result<&Path, Broken> {
    if bytes.len() > PATH_BYTES_MAX {
        return Err((format!("a path of {} bytes", bytes.len()), "at most 1024"));
    }
    if bytes.contains(&0) {
        return broken("a path with a NUL byte", "one without");
    }
    Ok(Path::new(OsStr::from_bytes(bytes)))
}

fn name_of(name: &OsStr) -> Result<&OsStr, Broken> {
    if name.len() > NAME_BYTES_MAX {
        return Err((format!("a name of {} bytes", name.len()), "at most 255"));
    }
    Ok(name)
}

#[cfg(test)]
mod tests;
